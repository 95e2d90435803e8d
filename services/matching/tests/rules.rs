//! The rules at a glance, each on a small book.
#![expect(clippy::expect_used, reason = "a test target")]
use fafnir_matching::*;

struct Desk {
    book: Book,
    events: Events,
}

impl Desk {
    fn new() -> Desk {
        Desk { book: Book::new(), events: Events::new() }
    }

    fn apply(&mut self, command: Command) -> Vec<What> {
        self.events.clear();
        self.book.apply(&command, &mut self.events);
        assert!(!self.events.as_slice().is_empty(), "every command yields an event");
        let mut bytes = Vec::new();
        self.book.snapshot(&mut bytes);
        let restored = Book::restore(&bytes).expect("own snapshot");
        assert_eq!(restored.state_hash(), self.book.state_hash());
        self.events.iter().map(|event| event.what).collect()
    }

    fn new_order(&mut self, order: NewOrder) -> Vec<What> {
        self.apply(Command::New(order))
    }

    fn slot(&self, id: OrderId) -> Slot {
        self.book.orders().find(|order| order.id == id).map(|order| order.slot).expect("open")
    }

    fn depth(&self, side: Side) -> Vec<(Ticks, Lots, u32)> {
        self.book.depth(side).map(|level| (level.price, level.qty, level.orders)).collect()
    }
}

use Side::{Buy, Sell};

#[test]
fn orders_trade_by_price_then_time() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Sell, 5, 102));
    desk.new_order(NewOrder::limit(2, 1, Sell, 5, 101));
    desk.new_order(NewOrder::limit(3, 1, Sell, 5, 101));
    let makers: Vec<_> = desk
        .new_order(NewOrder::limit(4, 2, Buy, 12, 102))
        .into_iter()
        .filter_map(|what| match what {
            What::Trade { maker, qty, price, .. } => Some((maker, qty, price)),
            _ => None,
        })
        .collect();
    assert_eq!(makers, [(2, 5, 101), (3, 5, 101), (1, 2, 102)]);
    assert_eq!(desk.depth(Sell), [(102, 3, 1)]);
}

#[test]
fn a_fill_or_kill_order_trades_whole_or_not_at_all() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Sell, 5, 101));
    let events = desk.new_order(NewOrder::limit(2, 2, Buy, 6, 101).with_tif(Tif::Fok));
    assert!(matches!(events[1], What::Canceled { open: 6, reason: Reason::CannotFillWhole, .. }));
    let events = desk.new_order(NewOrder::limit(3, 2, Buy, 5, 101).with_tif(Tif::Fok));
    assert!(matches!(events[1], What::Trade { qty: 5, .. }));
}

#[test]
fn a_stop_enters_after_the_match_that_reached_it() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Sell, 5, 101));
    desk.new_order(NewOrder::limit(2, 1, Sell, 5, 102));
    desk.new_order(NewOrder::stop(3, 3, Buy, 4, 101, 110));
    let events = desk.new_order(NewOrder::limit(4, 2, Buy, 5, 101));
    assert!(matches!(events[1], What::Trade { maker: 1, taker: 4, .. }));
    assert!(matches!(events[2], What::Triggered { id: 3, stop: 101, last: 101, .. }));
    assert!(matches!(events[3], What::Trade { maker: 2, taker: 3, qty: 4, price: 102, .. }));
}

#[test]
fn a_trailing_stop_follows_the_market_and_never_turns_back() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Sell, 1, 100));
    desk.new_order(NewOrder::limit(2, 2, Buy, 1, 100));
    desk.new_order(NewOrder::trailing(3, 3, Sell, 5, 10, 20));
    assert_eq!(desk.book.held(Sell).next().map(|order| order.stop), Some(90));
    desk.new_order(NewOrder::limit(4, 1, Sell, 1, 120));
    desk.new_order(NewOrder::limit(5, 2, Buy, 1, 120));
    assert_eq!(desk.book.held(Sell).next().map(|order| order.stop), Some(110));
    desk.new_order(NewOrder::limit(6, 2, Buy, 7, 95));
    desk.new_order(NewOrder::limit(7, 1, Sell, 1, 95));
    let order = desk.book.orders().find(|order| order.id == 3);
    assert_eq!(order, None, "reached at 95, filled at 95");
    assert_eq!(desk.depth(Buy), [(95, 1, 1)]);
}

#[test]
fn an_iceberg_shows_a_part_and_refills_at_the_back() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder { display: 3, ..NewOrder::limit(1, 1, Sell, 10, 100) });
    desk.new_order(NewOrder::limit(2, 2, Sell, 3, 100));
    assert_eq!(desk.depth(Sell), [(100, 6, 2)]);
    let events = desk.new_order(NewOrder::limit(3, 3, Buy, 5, 100));
    assert!(matches!(events[1], What::Trade { maker: 1, qty: 3, maker_open: 7, .. }));
    assert!(matches!(events[2], What::Refilled { id: 1, shown: 3, .. }));
    assert!(matches!(events[3], What::Trade { maker: 2, qty: 2, maker_open: 1, .. }));
    assert_eq!(desk.depth(Sell), [(100, 4, 2)]);
}

#[test]
fn self_trade_prevention_has_four_modes() {
    for (mode, own_left, taken) in [
        (SelfTrade::CancelNewest, 5, 0),
        (SelfTrade::CancelOldest, 0, 4),
        (SelfTrade::CancelBoth, 0, 0),
        (SelfTrade::Decrement, 0, 4),
    ] {
        let mut desk = Desk::new();
        desk.new_order(NewOrder::limit(1, 7, Sell, 5, 100));
        desk.new_order(NewOrder::limit(2, 8, Sell, 4, 101));
        desk.new_order(NewOrder { self_trade: mode, ..NewOrder::limit(3, 7, Buy, 9, 101) });
        let own = desk.book.orders().find(|order| order.id == 1).map_or(0, |order| order.open);
        assert_eq!((own, desk.book.volume()), (own_left, taken), "{mode:?}");
    }
}

#[test]
fn only_a_smaller_quantity_keeps_the_place() {
    let mut desk = Desk::new();
    for id in 1..=3 {
        desk.new_order(NewOrder::limit(id, 1, Buy, 5, 100));
    }
    let events = desk.apply(Command::Replace(Replace::new(1, desk.slot(1), 4, 0)));
    assert!(matches!(events[0], What::Replaced { kept_place: true, open: 4, version: 1, .. }));
    let events = desk.apply(Command::Replace(Replace::new(2, desk.slot(2), 6, 100)));
    assert!(matches!(events[0], What::Replaced { kept_place: false, open: 6, .. }));
    let queue: Vec<_> = desk.book.resting(Buy).map(|order| order.id).collect();
    assert_eq!(queue, [1, 3, 2]);
    assert_eq!(
        desk.book.queue_position(2, desk.slot(2)).map(|at| (at.orders_ahead, at.qty_ahead)),
        Some((2, 9))
    );
}

#[test]
fn a_halted_book_only_lets_orders_go() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Buy, 5, 100));
    assert_eq!(desk.apply(Command::Halt), [What::Halted]);
    assert_eq!(desk.apply(Command::Halt), [What::Refused { reason: Reason::Halted }]);
    assert_eq!(
        desk.new_order(NewOrder::limit(2, 1, Buy, 5, 100)),
        [What::Rejected { id: 2, reason: Reason::Halted }]
    );
    let slot = desk.slot(1);
    assert_eq!(
        desk.apply(Command::Replace(Replace::new(1, slot, 4, 0))),
        [What::ReplaceRejected { id: 1, reason: Reason::Halted }]
    );
    assert!(matches!(desk.apply(Command::Cancel { id: 1, slot })[0], What::Canceled { open: 5, .. }));
    assert_eq!(desk.apply(Command::Resume), [What::Resumed]);
}

#[test]
fn the_day_end_expires_day_orders_and_gtd_orders_in_time() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Buy, 5, 100).with_tif(Tif::Day));
    desk.new_order(NewOrder { expire: 50, ..NewOrder::limit(2, 1, Buy, 5, 100).with_tif(Tif::Gtd) });
    desk.new_order(NewOrder { expire: 90, ..NewOrder::limit(3, 1, Buy, 5, 100).with_tif(Tif::Gtd) });
    desk.new_order(NewOrder::limit(4, 1, Buy, 5, 100));
    let events = desk.apply(Command::Expire { now: 50 });
    assert!(matches!(
        events[..],
        [What::Expired { id: 2, .. }, What::Expiry { count: 1, day_end: false, .. }]
    ));
    let events = desk.apply(Command::DayEnd { now: 90 });
    assert!(matches!(
        events[..],
        [
            What::Expired { id: 3, .. },
            What::Expired { id: 1, .. },
            What::Expiry { count: 2, day_end: true, .. }
        ]
    ));
    assert_eq!(desk.depth(Buy), [(100, 5, 1)]);
}

#[test]
fn a_market_order_stops_at_its_cap() {
    let mut desk = Desk::new();
    desk.new_order(NewOrder::limit(1, 1, Sell, 5, 100));
    desk.new_order(NewOrder::limit(2, 1, Sell, 5, 120));
    let events = desk.new_order(NewOrder::market(3, 2, Buy, 8, 110));
    assert!(matches!(events[2], What::Canceled { open: 3, reason: Reason::Collar, slot: Slot::NONE, .. }));
    let events = desk.new_order(NewOrder::market(4, 2, Sell, 8, 90));
    assert!(matches!(events[1], What::Canceled { open: 8, reason: Reason::NoLiquidity, .. }));
}

#[test]
fn room_made_ahead_changes_nothing_but_memory() {
    let (mut book, mut roomy) = (Book::new(), Book::new());
    roomy.reserve(10_000);
    let before = roomy.memory();
    let (mut events, mut expected) = (Events::new(), Events::new());
    for id in 1..=5_000u64 {
        let side = if id % 2 == 0 { Buy } else { Sell };
        let order = NewOrder::limit(id, 1 + id as u32 % 9, side, 1 + id % 5, 1_000 + (id * 7 % 40) as u32);
        book.apply(&Command::New(order), &mut expected);
        roomy.apply(&Command::New(order), &mut events);
    }
    assert_eq!(events.as_slice(), expected.as_slice());
    assert_eq!(roomy.state_hash(), book.state_hash());
    assert!(roomy.memory() < before + 4_096, "no command needed room for orders");
}
