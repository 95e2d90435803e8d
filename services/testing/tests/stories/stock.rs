//! The service as it runs: what it answers is what it knows now.

use crate::stack::{DEADLINE, Stack, external, system};
use fafnir_platform::{Service, cache::Cache};
use fafnir_proto::{subject, v1};
use fafnir_services::{broker, stock, trade_engine};
use futures::StreamExt as _;
use prost::Message as _;

static SERVICES: [&Service; 3] = [&broker::SERVICE, &stock::SERVICE, &trade_engine::SERVICE];

fn apple() -> v1::Instrument {
    v1::Instrument {
        symbol: "AAPL".into(),
        name: "Apple Inc.".into(),
        exchange: "NASDAQ".into(),
        r#type: v1::InstrumentType::Equity.into(),
        currency: "USD".into(),
        tick_e4: 100,
        lot_e4: 10_000,
        previous_close_e4: 2_310_000,
        ..Default::default()
    }
}

/// Quotes that were published, and one that somebody left in the cache, are older than what the service knows.
async fn quotes_follow_at_once(redis: &str) {
    let stack = Stack::start_with(&SERVICES, |s| redis.clone_into(&mut s.redis.url)).await;
    let ctx = &stack.running.context;
    let mut published = ctx.bus().await.unwrap().subscribe(subject::quotes("AAPL")).await.unwrap();
    let mut client = ctx.clients.stock(&system());
    client.upsert_instrument(apple()).await.unwrap();
    let cache = Cache::connect(&ctx.settings, 0).await.unwrap();
    for state in [v1::TradingState::Halted, v1::TradingState::Open, v1::TradingState::Halted] {
        let message = tokio::time::timeout(DEADLINE, published.next()).await.expect("in time").unwrap();
        let before = v1::Quote::decode(message.payload.clone()).unwrap();
        let set = v1::SetTradingStateRequest { symbol: "AAPL".into(), state: state.into() };
        client.set_trading_state(set).await.unwrap();
        cache.put("quote:AAPL", message.payload).await;
        let asked = v1::QuotesRequest { symbols: vec!["NOPE".into(), "aapl".into()] };
        let quotes = client.quotes(asked).await.unwrap().into_inner().quotes;
        assert_eq!(quotes.len(), 1, "an unknown symbol is left out");
        assert_eq!(quotes[0].state(), state);
        assert!(quotes[0].version > before.version);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_is_what_the_desk_knows_and_not_what_was_published_last() {
    quotes_follow_at_once("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_quote_in_a_shared_cache_is_not_answered() {
    if let Some(url) = external("FAFNIR_TEST_REDIS_URL") {
        quotes_follow_at_once(&url).await;
    }
}
