//! The simulated market as it runs: every service real, the opening book, trades, a restart that replaces nothing.

use crate::stack::{DEADLINE, Stack, system};
use fafnir_platform::{Context, Service};
use fafnir_proto::v1::{self, Side};
use futures::StreamExt as _;
use prost::Message as _;
use std::collections::BTreeSet;
use tokio::time::{Instant, timeout};

const SYMBOLS: [(&str, &str, i64); 3] =
    [("AAPL", "USD", 2_310_700), ("F", "USD", 111_800), ("RY.TO", "CAD", 1_746_000)];

/// Everything but the gateway: the streams of all are there, as in `up`.
fn services() -> Vec<&'static Service> {
    fafnir_services::ALL.iter().filter(|s| s.name != "api-gateway").copied().collect()
}

async fn list(ctx: &Context) {
    for (symbol, currency, price) in SYMBOLS {
        let instrument = v1::Instrument {
            symbol: symbol.into(),
            name: symbol.into(),
            exchange: "TEST".into(),
            exchange_full_name: "Test".into(),
            r#type: v1::InstrumentType::Equity.into(),
            currency: currency.into(),
            tick_e4: 100,
            lot_e4: 10_000,
            state: v1::TradingState::Open.into(),
            previous_close_e4: price,
            ..Default::default()
        };
        ctx.clients.stock(&system()).upsert_instrument(instrument).await.unwrap();
    }
}

fn simulator(stack: &Stack) -> Context {
    Context { service: fafnir_services::simulator::NAME, ..stack.running.context.clone() }
}

async fn image(ctx: &Context, symbol: &str) -> v1::BookImage {
    let request = v1::BookRequest { symbol: symbol.into(), depth: 0 };
    ctx.clients.engine(&system()).book(request).await.unwrap().into_inner()
}

/// Waits for an image in which both sides have this many levels.
async fn book_stands(ctx: &Context, symbol: &str, levels: usize) -> v1::BookImage {
    let subject = fafnir_proto::subject::book(symbol);
    let mut images = ctx.bus().await.unwrap().subscribe(subject).await.unwrap();
    let mut found = image(ctx, symbol).await;
    while found.bids.len() < levels || found.asks.len() < levels {
        let message = timeout(DEADLINE, images.next()).await.expect("an image in time").unwrap();
        found = v1::BookImage::decode(message.payload).unwrap();
    }
    found
}

async fn open_orders(ctx: &Context) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    loop {
        let after_id = found.last().cloned().unwrap_or_default();
        let request = v1::OpenOrdersRequest { after_id, ..Default::default() };
        let page = ctx.clients.engine(&system()).open_orders(request).await.unwrap().into_inner();
        found.extend(page.orders.into_iter().map(|order| order.id));
        if !page.more {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opening_book_stands_trades_flow_and_a_restart_replaces_nothing() {
    let services = services();
    // Fast, so that the test sees trades soon.
    let fast = |s: &mut fafnir_platform::Settings| s.sim.rate = "20".into();
    let stack = Stack::start_with(&services, fast).await;
    let ctx = simulator(&stack);
    list(&ctx).await;
    let mut trades = ctx.bus().await.unwrap().subscribe(fafnir_proto::subject::TRADES.into()).await.unwrap();
    timeout(DEADLINE * 3, fafnir_services::simulator::start(ctx.clone())).await.expect("in time").unwrap();
    for (symbol, _, price) in SYMBOLS {
        let book = book_stands(&ctx, symbol, 10).await;
        // The spread follows the volatility, and is no more than half a percent; of cheap shares a few ticks.
        let near = (price / 200).max(500);
        assert!((book.bids[0].price_e4 - price).abs() <= near, "{symbol}: {book:?}");
        assert!(book.asks[0].price_e4 - book.bids[0].price_e4 <= near, "{symbol}: {book:?}");
    }
    let mut seen = 0;
    while seen < 20 {
        let message = timeout(DEADLINE, trades.next()).await.expect("a trade in time").unwrap();
        for trade in v1::TradePrint::decode(message.payload).unwrap().trades {
            assert!(trade.quantity_e4 > 0 && trade.aggressor() != Side::Unspecified);
            seen += 1;
        }
    }
    let audit = ctx.clients.portfolio(&ctx.system()).audit(v1::Empty {}).await.unwrap().into_inner();
    assert!(audit.sums.iter().all(|s| s.sum == 0), "{:?}", audit.sums);
    assert_eq!((audit.unbalanced_transactions, audit.negative_available), (0, 0));

    // Slow, so that what stands after the restart is what stood before it.
    let stack = stack.restart(&services, |s| s.sim.rate = "0.05".into()).await;
    let ctx = simulator(&stack);
    let before = open_orders(&ctx).await;
    assert!(before.len() >= 60, "{}", before.len());
    let started = Instant::now();
    timeout(DEADLINE, fafnir_services::simulator::start(ctx.clone())).await.expect("in time").unwrap();
    println!("open again after {:?}", started.elapsed());
    let after = open_orders(&ctx).await;
    let gone = before.difference(&after).count();
    assert!(gone <= 3, "{gone} orders of {} are gone", before.len());
    stack.stop().await;
}

/// Asks a recorded market.
async fn recording(ctx: &Context, action: v1::PlaybackAction, steps: u32) -> v1::PlaybackReply {
    let request = v1::PlaybackRequest { action: action.into(), steps, speed_milli: 0 };
    let bus = ctx.bus().await.unwrap();
    let asked = bus.client().request(fafnir_proto::subject::PLAYBACK, request.encode_to_vec().into());
    let message = timeout(DEADLINE, asked).await.expect("an answer in time").unwrap();
    v1::PlaybackReply::decode(message.payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_day_is_played_through_the_doors_and_can_be_paused_and_stepped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wine-2026.csv");
    let flow = "time_ms,event,order_id,side,price_ticks,quantity_lots\n\
        0,new,1,B,9990,500000000\n1,new,2,S,10010,400000000\n2,new,3,S,10020,100000000\n\
        3,new,4,B,10010,300000000\n3,changed,2,S,10010,100000000\n3,filled,4,B,10010,0\n\
        4,changed,1,B,9990,200000000\n900000,cancel,3,S,10020,100000000\n";
    std::fs::write(&file, flow).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let stack = Stack::start_with(&services(), |s| s.sim.market_file = file).await;
    let ctx = simulator(&stack);
    timeout(DEADLINE, fafnir_services::simulator::start(ctx.clone())).await.expect("in time").unwrap();
    let done = |n: u64| {
        let ctx = &ctx;
        async move || recording(ctx, v1::PlaybackAction::Unspecified, 0).await.done == n
    };
    crate::stack::until(&ctx, "everything but the last step", done(7)).await;
    let levels = |side: &[v1::Level]| side.iter().map(|l| (l.price_e4, l.quantity_e4)).collect::<Vec<_>>();
    // The image follows the engine.
    let as_recorded = async || {
        let book = image(&ctx, "WINE").await;
        levels(&book.bids) == [(999_000, 20_000)]
            && levels(&book.asks) == [(1_001_000, 10_000), (1_002_000, 10_000)]
    };
    crate::stack::until(&ctx, "the book is as it was recorded", as_recorded).await;
    let book = image(&ctx, "WINE").await;
    assert_eq!(book.last_price_e4, 1_001_000);

    let paused = recording(&ctx, v1::PlaybackAction::Pause, 0).await;
    assert!(
        paused.paused && paused.symbol == "WINE" && paused.steps == 8 && paused.refused == 0,
        "{paused:?}"
    );
    let stepping = recording(&ctx, v1::PlaybackAction::Step, 1).await;
    assert!(stepping.paused);
    crate::stack::until(&ctx, "the last step", done(8)).await;
    assert_eq!(recording(&ctx, v1::PlaybackAction::Resume, 0).await.at_us, 900_000_000);
    let gone = async || levels(&image(&ctx, "WINE").await.asks) == [(1_001_000, 10_000)];
    crate::stack::until(&ctx, "the last cancel", gone).await;
    let audit = ctx.clients.portfolio(&ctx.system()).audit(v1::Empty {}).await.unwrap().into_inner();
    assert_eq!((audit.unbalanced_transactions, audit.negative_available), (0, 0));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_cannot_be_played_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wine.csv");
    std::fs::write(&file, "time_ms,event,order_id,side,price_ticks,quantity_lots\n0,new,1,X,1,1\n").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let stack = Stack::start_with(&[], |s| s.sim.market_file = path).await;
    let refused = fafnir_services::simulator::start(simulator(&stack)).await.unwrap_err().to_string();
    assert!(refused.contains("wine.csv: line 2, column 4: side \"X\""), "{refused}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_no_number_is_refused_with_its_key() {
    let stack = Stack::start_with(&[], |s| s.sim.rate = "fast".into()).await;
    let refused = fafnir_services::simulator::start(simulator(&stack)).await.unwrap_err().to_string();
    assert!(refused.contains("sim.rate") && refused.contains("fast"), "{refused}");
    stack.stop().await;
}
