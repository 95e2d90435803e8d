//! The service as it runs: listings in, commands in, facts on the stream, market data, a lost broker store, a restart.

use crate::stack::{DEADLINE, Stack, system};
use fafnir_platform::{
    Context, Service,
    bus::{self, Bus},
};
use fafnir_proto::v1::{self, engine_command::Kind};
use fafnir_services::{broker, stock, trade_engine};
use futures::StreamExt as _;
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tonic::Code;
use uuid::Uuid;

const SERVICES: &[&Service] = &[&broker::SERVICE, &stock::SERVICE, &trade_engine::SERVICE];

fn instrument(symbol: &str) -> v1::Instrument {
    v1::Instrument {
        symbol: symbol.into(),
        name: symbol.into(),
        exchange: "NASDAQ".into(),
        exchange_full_name: "Nasdaq".into(),
        r#type: v1::InstrumentType::Equity.into(),
        currency: "USD".into(),
        tick_e4: 100,
        lot_e4: 10_000,
        state: v1::TradingState::Open.into(),
        previous_close_e4: 1_000_000,
        ..Default::default()
    }
}

fn order(cmd_seq: u64, side: v1::Side, shares: i64) -> v1::EngineCommand {
    let new = v1::NewOrder {
        order_id: Uuid::from_u64_pair(7, cmd_seq).to_string(),
        user_id: Uuid::from_u64_pair(8, cmd_seq).to_string(),
        side: side.into(),
        r#type: v1::OrderType::Limit.into(),
        time_in_force: v1::TimeInForce::Gtc.into(),
        quantity_e4: shares * 10_000,
        price_e4: 1_000_000,
        ..Default::default()
    };
    v1::EngineCommand { cmd_seq, symbol: "BRK.B".into(), kind: Some(Kind::NewOrder(new)) }
}

async fn submit(ctx: &Context, commands: Vec<v1::EngineCommand>) -> Result<u64, tonic::Status> {
    let mut engine = ctx.clients.engine(&system());
    Ok(engine.submit(v1::SubmitRequest { commands }).await?.into_inner().last_cmd_seq)
}

/// Follows the stream under a name of its own, from its first message.
async fn follow(
    ctx: &Context,
    bus: &Bus,
    name: &'static str,
) -> mpsc::UnboundedReceiver<(String, v1::ExecutionBatch)> {
    let (facts, receiver) = mpsc::unbounded_channel();
    let ctx = Context { service: name, ..ctx.clone() };
    bus.follow(&ctx, bus::ORDERS, move |batch| {
        for (subject, payload) in batch {
            let _ended = facts.send((subject, v1::ExecutionBatch::decode(payload).unwrap()));
        }
        async { Ok(()) }
    })
    .await
    .unwrap();
    receiver
}

async fn next<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(DEADLINE, receiver.recv()).await.expect("in time").expect("not ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_become_facts_and_market_data_and_survive_broker_and_restart() {
    let stack = Stack::start(SERVICES).await;
    let ctx = stack.running.context.clone();
    let bus = ctx.bus().await.unwrap();
    let mut trades = bus.subscribe(fafnir_proto::subject::trades("BRK.B")).await.unwrap();
    ctx.clients.stock(&system()).upsert_instrument(instrument("BRK.B")).await.unwrap();

    // The listing may still be on its way: the engine asks for it.
    let commands = vec![order(1, v1::Side::Sell, 10), order(2, v1::Side::Buy, 4)];
    assert_eq!(submit(&ctx, commands.clone()).await.unwrap(), 2);
    let gap = submit(&ctx, vec![order(9, v1::Side::Buy, 1)]).await.unwrap_err();
    assert_eq!(gap.code(), Code::FailedPrecondition);

    let print = timeout(DEADLINE, trades.next()).await.unwrap().unwrap();
    let print = v1::TradePrint::decode(print.payload).unwrap();
    assert_eq!((print.trades[0].trade_no, print.trades[0].quantity_e4), (1, 40_000));

    let mut facts = follow(&ctx, &bus, "first").await;
    let mut seq = 0;
    while seq < 3 {
        let (subject, batch) = next(&mut facts).await;
        assert_eq!((subject.as_str(), batch.symbol.as_str()), ("orders.exec.BRK_B", "BRK.B"));
        for execution in batch.executions {
            seq += 1;
            assert_eq!(execution.seq, seq);
        }
    }

    // The broker loses the stream: the next fact finds it gone, and everything that is kept is published again.
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    let mut published = bus.subscribe(fafnir_proto::subject::executions("BRK.B")).await.unwrap();
    jetstream.delete_stream(bus::ORDERS.name).await.unwrap();
    assert_eq!(submit(&ctx, vec![order(3, v1::Side::Buy, 1)]).await.unwrap(), 3);
    let again = async {
        while jetstream.get_stream(bus::ORDERS.name).await.is_err() {
            published.next().await.unwrap();
        }
        let mut facts = follow(&ctx, &bus, "second").await;
        let mut last = 0;
        while last < 5 {
            let (_, batch) = next(&mut facts).await;
            assert_eq!(batch.executions[0].seq, last + 1);
            last = batch.executions.last().unwrap().seq;
        }
    };
    timeout(DEADLINE, again).await.expect("published again");

    let mut engine = ctx.clients.engine(&system());
    let executions = engine.executions(v1::ExecutionsRequest::default()).await.unwrap().into_inner();
    assert_eq!(executions.batches.iter().map(|b| b.executions.len()).sum::<usize>(), 5);
    let status = engine.status(v1::Empty {}).await.unwrap().into_inner();
    let stack = stack.restart(SERVICES, |_| {}).await;
    let ctx = stack.running.context.clone();
    let mut engine = ctx.clients.engine(&system());
    let after = engine.status(v1::Empty {}).await.unwrap().into_inner();
    assert_eq!((&after.state_hash, after.last_cmd_seq), (&status.state_hash, 3));
    assert!(after.epoch > status.epoch);
    assert_eq!(submit(&ctx, commands).await.unwrap(), 3);
    let book = engine.book(v1::BookRequest { symbol: "BRK.B".into(), depth: 5 }).await.unwrap().into_inner();
    assert_eq!((book.asks.len(), book.asks[0].quantity_e4, book.last_trade_no), (1, 50_000, 2));
    let request = v1::TradesRequest { symbol: "BRK.B".into(), after_trade_no: 1, ..Default::default() };
    let trades = engine.trades(request).await.unwrap().into_inner().trades;
    assert_eq!(trades.iter().map(|t| t.trade_no).collect::<Vec<_>>(), [2]);
    stack.stop().await;
}
