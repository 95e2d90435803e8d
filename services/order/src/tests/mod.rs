//! The read model over facts made by hand, and the door before an engine that the test plays.

mod door;
mod flow;
mod history;
mod projection;

use super::{MIGRATIONS, events::ReadModel};
use fafnir_platform::{
    Clock, agents,
    db::{Db, Value},
    facts::Projection as _,
    tasks::Tasks,
};
use fafnir_proto::{
    id::UserId,
    v1::{Done, Fact, FactKind, Order, OrderState, OrderUpdate, RequestKey, Side},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const BOB: UserId = UserId::new(Uuid::from_u128(0xb0b));
const ALICE: UserId = UserId::new(Uuid::from_u128(0xa11ce));

fn agent() -> UserId {
    agents::agent_id(1)
}

/// A read model in a directory of its own.
struct Store {
    model: ReadModel,
    _dir: tempfile::TempDir,
}

impl Store {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (path, tasks) = (dir.path().join("order.sqlite"), Tasks::new(CancellationToken::new()));
        let db = Db::open_sqlite(path, "order-service", MIGRATIONS, &tasks, &Clock::wall()).await.unwrap();
        Self { model: ReadModel(db), _dir: dir }
    }

    fn db(&self) -> &Db {
        &self.model.0
    }

    async fn apply(&self, facts: &[Fact]) {
        let from = self.model.position().await.unwrap();
        self.model.apply(from, facts.to_vec()).await.unwrap();
    }

    /// Every row of every table.
    async fn rows(&self) -> Vec<Vec<Vec<Value>>> {
        rows(self.db()).await
    }
}

async fn rows(db: &Db) -> Vec<Vec<Vec<Value>>> {
    db.read(|tx| {
        let tables = [
            "SELECT user_id, id, symbol, agent, ended_us, first_fill, last_fill, body, first_seq, last_seq FROM orders \
             ORDER BY 1, 2",
            "SELECT id, user_id, order_id, symbol, exec_seq, side, price_e4, quantity_e4, maker, time_us \
             FROM fills ORDER BY 1",
            "SELECT id, user_id, user_seq, kind, order_id, body FROM events ORDER BY 1",
            "SELECT user_id, client_order_id, payload, order_id FROM client_orders ORDER BY 1, 2",
            "SELECT id, at, open_orders FROM position",
        ];
        let mut rows = Vec::new();
        for sql in tables {
            rows.push(tx.query(sql, &[])?.into_iter().map(|row| row.0).collect());
        }
        Ok(rows)
    })
    .await
    .unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// BUY 5 AAPL, just accepted.
fn open_order(user: UserId, number: u128) -> Order {
    Order {
        id: id(number).to_string(),
        user_id: user.to_string(),
        account_id: id(0xacc).to_string(),
        symbol: "AAPL".into(),
        side: Side::Buy.into(),
        state: OrderState::New.into(),
        quantity_e4: 50_000,
        open_e4: 50_000,
        price_e4: 2_310_000,
        version: 1,
        created_us: 5,
        updated_us: 5,
        ..Order::default()
    }
}

fn ended(order: &Order, state: OrderState, at_us: i64) -> Order {
    Order { state: state.into(), open_e4: 0, updated_us: at_us, ..order.clone() }
}

/// A fact about one order; the user's sequence is 0 for agents.
fn fact(position: u64, kind: FactKind, order: &Order, user_seq: u64) -> Fact {
    Fact {
        position,
        time_us: order.updated_us,
        kind: kind.into(),
        symbol: order.symbol.clone(),
        exec_seq: position,
        user_id: order.user_id.clone(),
        orders: vec![OrderUpdate {
            user_id: order.user_id.clone(),
            user_seq,
            order: Some(order.clone()),
            fill: None,
        }],
        ..Fact::default()
    }
}

/// The fact that an order is in, under a client order id.
fn named(position: u64, order: &Order, user_seq: u64, key: &str, payload: [u8; 16]) -> Fact {
    Fact {
        key: Some(RequestKey { key: key.into(), payload: payload.to_vec(), looked_until: 0 }),
        done: Some(Done { object_id: order.id.clone(), at: position, ..Done::default() }),
        ..fact(
            position,
            FactKind::Accepted,
            &Order { client_order_id: key.into(), ..order.clone() },
            user_seq,
        )
    }
}
