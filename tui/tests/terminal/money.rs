//! What would lose its user money, in the real terminal: a child trades in a pseudo-terminal against a small exchange, and
//! says at its end what the exchange was asked for.

use crate::{
    common::*,
    exchange::{Gateway, Nats},
    pty::{Driven, as_child, start},
};
use fafnir_proto::v1::{self, OrderState, Side};
use fafnir_tui::{Exit, Options, Session, run};
use std::{sync::Arc, time::Duration};

const NEAR: &str = "0197a8b0-0000-7000-8000-000000008f3a";

fn now_us() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000).unwrap()
}

/// What the parents below start; does nothing on its own.
#[test]
#[ignore = "runs inside the pseudo-terminal of the other tests"]
fn child() {
    let Some((mode, runtime)) = as_child() else { return };
    println!("{}", runtime.block_on(trade(&mode)));
}

/// Trades until Ctrl-C; what the exchange was asked for.
async fn trade(mode: &str) -> String {
    let nats = Nats::start().await;
    let gateway = Gateway::start(nats.url("secret")).await;
    {
        let mut books = gateway.books.lock().unwrap();
        books.positions = vec![holding("AAPL", 42, 9_600_000_000)];
        books.orders = vec![order("8f3a", Side::Buy, 5, 2_310_500, OrderState::New)];
        if mode == "far" {
            books.orders = vec![
                order("aaaa", Side::Sell, 5, 2_360_000, OrderState::New),
                order("bbbb", Side::Buy, 5, 2_260_000, OrderState::New),
            ];
        }
        let left = v1::FlattenReply { left_e4: 500_000, message: "no bids".into(), ..Default::default() };
        books.flatten_answers.push_back(Ok(left));
    }
    let reply = v1::TerminalSession {
        access_token: "access-1".into(),
        refresh_token: "refresh-1".into(),
        expires_in_s: 600,
        user_id: "u".into(),
        email: "user@test.com".into(),
        market_data_url: nats.url("secret"),
        ..Default::default()
    };
    let options = Options {
        session: Some(Session::new(reply, now_us())),
        symbol: "AAPL".into(),
        ..Options::new(gateway.url())
    };
    let (updates, books) = (gateway.updates.clone(), Arc::clone(&gateway.books));
    let moves = mode == "moves";
    let feed = tokio::spawn(async move {
        let mut seq = 1;
        loop {
            seq += 1;
            let mut image = book(seq, now_us());
            // The market leaves when the first order has come.
            if moves && !books.lock().unwrap().placed.is_empty() {
                image.bids.iter_mut().chain(&mut image.asks).for_each(|level| level.price_e4 += 3_000);
            }
            nats.publish("market.book.AAPL", &image);
            let beat = v1::Heartbeat { time_us: 1, order_seq: 7, portfolio_seq: 3, ..Default::default() };
            let kind = Some(v1::private_update::Kind::Heartbeat(beat));
            let _ = updates.send(v1::PrivateUpdate { kind, reset: false });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let exit = run(options).await.unwrap();
    feed.abort();
    assert_eq!(exit, Exit::Interrupted);
    let books = gateway.books.lock().unwrap();
    let placed = |r: &v1::PlaceOrderRequest| {
        format!("placed {} {} @ {}\n", r.side().as_str_name(), r.quantity_e4, r.price_e4)
    };
    let orders: String = books.placed.iter().map(placed).collect();
    let (count, replaced) = (books.placed.len(), books.replaced.len());
    format!("{orders}{count} placed, canceled {:?}, replaced {replaced}", books.canceled)
}

/// A terminal that shows a live market.
fn trading(mode: &str) -> Driven {
    let mut driven = start("money::child", mode);
    driven.until_screen("the ladder, the account and live data", |screen| {
        let text = screen.join("\n");
        text.contains("spread 0.01")
            && text.contains("avail 88,410.00")
            && text.contains("ositions 1")
            && text.contains("NATS ●  gRPC ●")
            && !text.contains("md ok")
    });
    driven
}

/// Waits for a word on the screen, leaves, and answers what the child says then.
fn told(mut driven: Driven, wait_for: &str) -> String {
    driven.until_screen(wait_for, |screen| screen.iter().any(|line| line.contains(wait_for)));
    driven.send("\x03");
    let ended = driven.end();
    assert!(ended.status.success() && ended.is_cooked, "{}", ended.output);
    ended.output
}

#[test]
fn a_click_on_an_own_order_cancels_it_and_places_none() {
    let mut driven = trading("click");
    driven.send("A");
    driven.until_screen("the own order", |screen| {
        screen.iter().any(|l| l.contains("5▸") && l.contains("231.05"))
    });
    let screen = driven.screen();
    let y = screen.iter().position(|l| l.contains("5▸") && l.contains("231.05")).unwrap() + 1;
    let x = screen[y - 1].chars().position(|c| c == '▸').unwrap() + 1;
    driven.send(&format!("\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m"));
    let told = told(driven, "canceled");
    assert!(told.contains(&format!("0 placed, canceled [\"{NEAR}\"]")), "{told}");
}

#[test]
fn an_armed_sell_without_a_cursor_joins_the_offer() {
    let mut driven = trading("sell");
    driven.send("1As");
    let told = told(driven, "accepted");
    assert!(told.contains("placed SIDE_SELL 10000 @ 2310800"), "{told}");
}

#[test]
fn typing_into_the_prefilled_quantity_replaces_it() {
    let mut driven = trading("type");
    driven.send("b2");
    driven.until_screen("the quantity", |screen| screen.iter().any(|l| l.contains(">Quantity   2 ")));
    driven.send("\r");
    let told = told(driven, "accepted");
    assert!(told.contains("placed SIDE_BUY 20000 @ 2310700"), "{told}");
}

#[test]
fn pasting_with_a_thousands_separator_is_read_as_it_is_meant() {
    let mut driven = trading("paste");
    driven.send("b\x1b[200~1,000\x1b[201~");
    driven.until_screen("the quantity", |screen| screen.iter().any(|l| l.contains(">Quantity   1000 ")));
    let told = told(driven, "not enough cash: needs");
    assert!(told.contains("0 placed"), "{told}");
}

#[test]
fn a_flatten_that_leaves_shares_is_loud() {
    let mut driven = trading("flatten");
    driven.send("Fy");
    told(driven, "✗ NOT FLAT: 50 AAPL left (no bids)");
}

#[test]
fn a_stop_on_the_wrong_side_is_refused_in_the_ticket() {
    let mut driven = trading("stop");
    // Back to the type, two on: a stop; then to its price.
    driven.send("s\x1b[Z\x1b[C\x1b[C\t\t240");
    driven.until_screen("the stop", |screen| screen.iter().any(|l| l.contains(">Stop       240 ")));
    assert!(!driven.screen().iter().any(|line| line.contains("ready")), "{:#?}", driven.screen());
    driven.send("\r");
    let told = told(driven, "✗ ");
    assert!(told.contains("0 placed"), "{told}");
}

#[test]
fn own_orders_above_and_below_are_both_pointed_at() {
    told(trading("far"), "▴ 1 own above  ▾ 1 own below");
}

#[test]
fn the_volume_at_a_price_is_what_the_exchange_keeps() {
    told(trading("volume"), "1234");
}

#[test]
fn armed_the_market_that_left_is_pointed_at_and_space_goes_after_it_armed() {
    let mut driven = trading("moves");
    driven.send("A1b");
    driven.until_screen("the marker", |screen| screen.iter().any(|line| line.contains("market ▴ 231.37")));
    driven.send(" ");
    driven.until_screen("the market again", |screen| !screen.iter().any(|line| line.contains("market ▴")));
    assert!(driven.screen().iter().any(|line| line.contains("ARMED 4:")), "{:#?}", driven.screen());
    told(driven, "ARMED 4:");
}
