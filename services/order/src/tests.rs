//! The store and its projection.

use super::store::{self, projection, retention};
use fafnir_platform::{
    Clock, agents,
    db::{Db, inbox},
    tasks::Tasks,
};
use fafnir_proto::id::UserId;
use fafnir_proto::v1::{ExecKind, Execution, ExecutionBatch, Order, OrderState, Side};
use uuid::Uuid;

const BOB: UserId = UserId::new(Uuid::from_u128(0xb0b));

/// A database with one order in the book.
async fn database(user: UserId) -> (Db, tempfile::TempDir, super::domain::Entry) {
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new(tokio_util::sync::CancellationToken::new());
    let path = dir.path().join("order.sqlite");
    let db = Db::open_sqlite(path, "order-service", super::MIGRATIONS, &tasks, &Clock::wall()).await.unwrap();
    let order = Order {
        id: Uuid::from_u128(1).to_string(),
        user_id: user.to_string(),
        symbol: "AAPL".into(),
        side: Side::Buy.into(),
        state: OrderState::New.into(),
        quantity_e4: 50_000,
        open_e4: 50_000,
        version: 1,
        ..Order::default()
    };
    let entry =
        super::domain::Entry { order, cap_price_e4: 100, accepted: true, agent: agents::is_agent(user) };
    let stored = entry.clone();
    db.write(move |tx| {
        store::open_orders_add(tx, &stored.order.user_id, 1)?;
        Ok(store::order_insert(tx, &stored)?)
    })
    .await
    .unwrap();
    (db, dir, entry)
}

fn batch(executions: Vec<Execution>) -> Vec<ExecutionBatch> {
    vec![ExecutionBatch { symbol: "AAPL".into(), executions }]
}

#[tokio::test]
async fn an_impossible_fact_is_put_away_and_what_follows_is_applied() {
    let (db, _dir, entry) = database(BOB).await;
    let about = |seq, kind: ExecKind| Execution {
        seq,
        kind: kind.into(),
        order_id: entry.order.id.clone(),
        time_us: 7,
        ..Execution::default()
    };
    let fill = |seq| Execution {
        price_e4: 2_310_000,
        quantity_e4: 10_000,
        open_e4: 40_000,
        maker_order_id: Uuid::from_u128(2).to_string(),
        ..about(seq, ExecKind::Trade)
    };
    let facts = batch(vec![fill(1), about(2, ExecKind::Canceled), fill(3), about(4, ExecKind::StateChanged)]);
    for _ in 0..3 {
        let facts = facts.clone();
        db.write(move |tx| Ok(projection::apply(tx, &facts, 9)?)).await.unwrap();
    }
    let id = entry.order.id.clone();
    let (now, dead_letters, position, fills) = db
        .read(move |tx| {
            let order = store::order_get(tx, &id)?.unwrap().order;
            Ok((
                order,
                inbox::dead_letter_count(tx)?,
                inbox::position(tx, "AAPL")?,
                store::fills_of(tx, &id, 9)?,
            ))
        })
        .await
        .unwrap();
    // The unknown maker twice, and the fill after the end.
    assert_eq!(
        (now.state(), now.filled_e4, dead_letters, position, fills.len()),
        (OrderState::Canceled, 10_000, 3, 4, 1)
    );
    let gap = batch(vec![about(9, ExecKind::Canceled)]);
    let learned = db.write(move |tx| Ok(projection::apply(tx, &gap, 9)?)).await.unwrap();
    assert!(learned.applied.gap && learned.applied.executions == 0);
}

#[tokio::test]
async fn only_agents_orders_are_pruned_and_nothing_private_is_kept_of_them() {
    for (user, left, updates) in [(agents::agent_id(1), 0, 0), (BOB, 1, 1)] {
        let (db, _dir, entry) = database(user).await;
        let end = Execution {
            seq: 1,
            kind: ExecKind::Canceled.into(),
            order_id: entry.order.id.clone(),
            time_us: 1_000,
            ..Execution::default()
        };
        let (facts, id) = (batch(vec![end]), entry.order.id.clone());
        let counts = db
            .write(move |tx| {
                projection::apply(tx, &facts, 9)?;
                assert_eq!(retention::agents_prune(tx, 1_000, 10)?, 0);
                retention::agents_prune(tx, 1_001, 10)?;
                let left = u64::from(store::order_get(tx, &id)?.is_some());
                let open: i64 = store::open_orders_add(tx, &user.to_string(), 0)?;
                Ok((left, store::update_list(tx, &user.to_string(), 0, 10)?.len(), open))
            })
            .await
            .unwrap();
        assert_eq!(counts, (left, updates, 0));
    }
}

#[tokio::test]
async fn updates_are_kept_for_resuming_and_older_ones_ask_for_a_reset() {
    let (db, _dir, entry) = database(BOB).await;
    let kept = store::UPDATES_KEPT;
    let reply = db
        .write(move |tx| {
            for _ in 0..kept + 5 {
                store::update_put(tx, &entry, None)?;
            }
            let user = BOB.to_string();
            Ok((
                store::updates_since(tx, &user, 4, 10)?,
                store::updates_since(tx, &user, 5, 10)?,
                store::updates_since(tx, &user, kept + 5, 10)?,
            ))
        })
        .await
        .unwrap();
    assert!(reply.0.reset);
    assert!(!reply.1.reset && reply.1.more && reply.1.updates[0].user_seq == 6);
    assert!(!reply.2.reset && !reply.2.more && reply.2.updates.is_empty());
}
