//! Auctions that exchanges published, each with its source in `auctions.csv`: the book gives the price that they print.
#![expect(clippy::expect_used, reason = "a test target")]

use fafnir_matching::*;

/// Examples in the table.
const EXAMPLES: usize = 38;

/// An example's orders of a side: `202x300 Mx50`.
fn orders(side: Side, text: &str) -> Vec<NewOrder> {
    let any_price = if side == Side::Buy { MAX_PRICE } else { 1 };
    let order = |text: &str| {
        let (price, qty) = text.split_once('x').expect("price x quantity");
        let qty = qty.parse().expect("a quantity");
        match price {
            "M" => NewOrder::market(0, 0, side, qty, any_price),
            price => NewOrder::limit(0, 0, side, qty, price.parse().expect("a price")),
        }
    };
    text.split_whitespace().map(order).collect()
}

/// Runs the auction; answers what it would give beforehand, and the prices and lots that it gave.
fn auction(bids: &str, asks: &str, reference: Ticks) -> (Option<Indicative>, Vec<(Ticks, Lots)>, Vec<What>) {
    let (mut book, mut events) = (Book::new(), Events::new());
    book.apply(&Command::SetBand { reference, bps: 0 }, &mut events);
    book.apply(&Command::SetPhase { phase: Phase::PreOpen }, &mut events);
    let all = orders(Side::Buy, bids).into_iter().chain(orders(Side::Sell, asks));
    for (id, order) in (1..).zip(all) {
        book.apply(&Command::New(NewOrder { id, ..order }), &mut events);
    }
    events.clear();
    let before = book.indicative();
    book.apply(&Command::SetPhase { phase: Phase::Continuous }, &mut events);
    if let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask()) {
        assert!(bid < ask, "what meets has traded");
    }
    assert_eq!(
        book.waiting(Side::Buy).chain(book.waiting(Side::Sell)).count(),
        0,
        "no market order waits on"
    );
    let whats: Vec<What> = events.iter().map(|event| event.what).collect();
    let trades = whats.iter().filter_map(|what| match what {
        What::Trade { price, qty, .. } => Some((*price, *qty)),
        _ => None,
    });
    (before, trades.collect(), whats)
}

#[test]
fn every_published_auction_has_the_price_that_was_published() {
    let mut examples = 0;
    for line in include_str!("auctions.csv").lines().filter(|line| !line.starts_with('#')).skip(1) {
        let [source, bids, asks, reference, price] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("five columns: {line}")
        };
        let reference = reference.parse().expect("a reference");
        let price: Ticks = price.parse().expect("a price");
        let (before, trades, whats) = auction(bids, asks, reference);
        assert_eq!(before.map_or(0, |found| found.price), price, "{source}, reference {reference}");
        assert!(trades.iter().all(|trade| trade.0 == price), "{source} has one price: {trades:?}");
        let traded: Lots = trades.iter().map(|trade| trade.1).sum();
        let told = whats.iter().filter(|what| matches!(what, What::Uncrossed { .. })).count();
        assert_eq!(told, usize::from(price != 0), "{source}: an auction is told once");
        assert_eq!(traded, before.map_or(0, |found| found.qty), "{source} trades what was told before");
        examples += 1;
    }
    assert_eq!(examples, EXAMPLES);
}
