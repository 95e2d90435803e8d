//! The service as it runs: listings in, commands in, facts on the stream, market data, a lost stream, a restart.

use crate::stack::{DEADLINE, Stack, system};
use fafnir_platform::{
    Context, Service,
    bus::{self, Bus},
};
use fafnir_proto::v1::{self, command::What, execute_reply::Outcome};
use fafnir_services::{broker, stock, trade_engine};
use futures::StreamExt as _;
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
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

fn user(number: u64) -> String {
    Uuid::from_u64_pair(8, number).to_string()
}

async fn execute(ctx: &Context, user_id: String, what: What) -> v1::Done {
    let id = Uuid::new_v4().as_bytes().to_vec();
    let command = v1::Command { id, user_id, key: None, what: Some(what) };
    let request = v1::ExecuteRequest { command: Some(command) };
    let reply = ctx.clients.engine(&system()).execute(request).await.unwrap().into_inner();
    match reply.outcome {
        Some(Outcome::Done(done)) => done,
        other => panic!("{other:?}"),
    }
}

/// An account with cash and shares.
async fn endow(ctx: &Context, number: u64) {
    let account_id = user(number);
    let open = v1::OpenAccountCommand {
        account_id: account_id.clone(),
        r#type: v1::AccountType::Investment.into(),
        currency: "USD".into(),
        opening_deposit: true,
    };
    execute(ctx, user(number), What::OpenAccount(open)).await;
    let given = v1::EndowCommand {
        account_id,
        amount_micros: 10_000_000_000,
        symbol: "BRK.B".into(),
        quantity_e4: 1_000_000,
        cost_price_e4: 1_000_000,
        ..Default::default()
    };
    execute(ctx, user(number), What::Endow(given)).await;
}

async fn place(ctx: &Context, number: u64, side: v1::Side, shares: i64) -> v1::Order {
    let place = v1::PlaceCommand {
        order_id: Uuid::new_v4().to_string(),
        symbol: "BRK.B".into(),
        side: side.into(),
        r#type: v1::OrderType::Limit.into(),
        time_in_force: v1::TimeInForce::Gtc.into(),
        quantity_e4: shares * 10_000,
        price_e4: 1_000_000,
        ..Default::default()
    };
    execute(ctx, user(number), What::Place(place)).await.order.unwrap()
}

/// Follows the stream from now on.
async fn follow(ctx: &Context, bus: &Bus) -> mpsc::UnboundedReceiver<v1::FactBatch> {
    let (facts, receiver) = mpsc::unbounded_channel();
    let deliver = move |payload| {
        let _ended = facts.send(v1::FactBatch::decode(payload).unwrap());
        std::future::ready(())
    };
    bus.tail(ctx, bus::FACTS, deliver).await.unwrap();
    receiver
}

/// The facts that come, up to a position.
async fn until(receiver: &mut mpsc::UnboundedReceiver<v1::FactBatch>, position: u64) -> Vec<v1::Fact> {
    let mut facts: Vec<v1::Fact> = Vec::new();
    while facts.last().is_none_or(|f| f.position < position) {
        let batch = timeout(DEADLINE, receiver.recv()).await.expect("in time").expect("not ended");
        facts.extend(batch.facts);
    }
    facts
}

async fn status(ctx: &Context) -> v1::EngineStatusReply {
    ctx.clients.engine(&system()).status(v1::Empty {}).await.unwrap().into_inner()
}

/// Who lost the last message about something quiet, or listens only now, hears it though nothing changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_book_and_its_quote_come_again() {
    let stack = Stack::start(SERVICES).await;
    let ctx = stack.running.context.clone();
    let bus = ctx.bus().await.unwrap();
    ctx.clients.stock(&system()).upsert_instrument(instrument("BRK.B")).await.unwrap();
    endow(&ctx, 1).await;
    place(&ctx, 1, v1::Side::Sell, 90).await;
    for subject in [fafnir_proto::subject::book("BRK.B"), fafnir_proto::subject::quotes("BRK.B")] {
        let mut late = bus.subscribe(subject).await.unwrap();
        let mut last = bytes::Bytes::new();
        loop {
            let message = timeout(DEADLINE, late.next()).await.expect("in time").unwrap();
            if std::mem::replace(&mut last, message.payload.clone()) == message.payload {
                break;
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_become_facts_and_market_data_and_survive_broker_and_restart() {
    let stack = Stack::start(SERVICES).await;
    let ctx = stack.running.context.clone();
    let bus = ctx.bus().await.unwrap();
    let mut trades = bus.subscribe(fafnir_proto::subject::trades("BRK.B")).await.unwrap();
    let mut facts = follow(&ctx, &bus).await;
    ctx.clients.stock(&system()).upsert_instrument(instrument("BRK.B")).await.unwrap();
    for number in 1..=2 {
        endow(&ctx, number).await;
    }
    assert_eq!(place(&ctx, 1, v1::Side::Sell, 90).await.state(), v1::OrderState::New);
    let bought = place(&ctx, 2, v1::Side::Buy, 4).await;
    assert_eq!((bought.state(), bought.fills.len()), (v1::OrderState::Filled, 1));

    let print = timeout(DEADLINE, trades.next()).await.unwrap().unwrap();
    let print = v1::TradePrint::decode(print.payload).unwrap();
    assert_eq!((print.trades[0].trade_no, print.trades[0].quantity_e4), (1, 40_000));
    let last = status(&ctx).await.position;
    let told = until(&mut facts, last).await;
    assert!(told.windows(2).all(|w| w[1].position == w[0].position + 1));
    assert_eq!(told.last().unwrap().kind(), v1::FactKind::Executed);

    // The broker loses the stream: it is made again, and what was in it is asked for.
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    jetstream.delete_stream(bus::FACTS.name).await.unwrap();
    place(&ctx, 2, v1::Side::Buy, 1).await;
    // Each question is a round trip to the broker.
    let again = async { while jetstream.get_stream(bus::FACTS.name).await.is_err() {} };
    timeout(DEADLINE, again).await.expect("the stream is made again");
    let request = v1::FactsRequest { after: 0, limit: 0, follower: String::new() };
    let reply = ctx.clients.engine(&system()).facts(request.clone()).await.unwrap().into_inner();
    assert_eq!((reply.facts[0].position, reply.oldest, reply.last), (1, 1, reply.facts.len() as u64));
    let first = usize::try_from(told[0].position).unwrap() - 1;
    assert!(reply.facts[first..first + told.len()] == told, "the log has what the stream had");
    let before = status(&ctx).await;

    let stack = stack.restart(SERVICES, |_| {}).await;
    let ctx = stack.running.context.clone();
    let after = status(&ctx).await;
    assert_eq!(
        (after.position, after.journal_seq, after.open_orders),
        (before.position, before.journal_seq, before.open_orders)
    );
    assert_eq!((after.snapshot_seq, after.state_hash.len()), (before.journal_seq, 64));
    let same = ctx.clients.engine(&system()).facts(request).await.unwrap().into_inner();
    assert!(same.facts == reply.facts, "the same facts after a restart");
    assert_eq!(place(&ctx, 2, v1::Side::Buy, 1).await.state(), v1::OrderState::Filled);
    stack.stop().await;
}
