//! A batch is stored once, whole, and however it was split.

use super::{
    super::{
        MIGRATIONS,
        events::ReadModel,
        store::{self, Filter, retention},
    },
    ALICE, BOB, Store, agent, ended, fact,
    flow::Flow,
    id, named, open_order, rows,
};
use fafnir_platform::{Clock, db::Db, facts::Projection as _};
use fafnir_proto::v1::{Fact, FactKind, OrderState};
use fafnir_testing as testing;
use proptest::prelude::*;

/// Applies the facts in batches of these sizes, over and over.
async fn apply_split(model: &ReadModel, facts: &[Fact], sizes: &[usize]) {
    let (mut rest, mut sizes) = (facts, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
        let from = rest[0].position - 1;
        model.apply(from, rest[..size].to_vec()).await.unwrap();
        rest = &rest[size..];
    }
}

fn of(symbol: &str) -> Filter {
    Filter { symbol: symbol.into(), ..Filter::default() }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn the_rows_are_the_same_however_the_facts_came(
        choices in prop::collection::vec(any::<(u8, u8, u8)>(), 1..200),
        sizes in prop::collection::vec(1usize..40, 1..6),
    ) {
        let facts = Flow::of(&choices);
        block_on(async {
            let (whole, split, single) = (Store::new().await, Store::new().await, Store::new().await);
            apply_split(&whole.model, &facts, &[]).await;
            apply_split(&split.model, &facts, &sizes).await;
            apply_split(&single.model, &facts, &[1]).await;
            let rows = whole.rows().await;
            assert_eq!(rows, split.rows().await);
            assert_eq!(rows, single.rows().await);
            let open = rows[0].iter().filter(|row| row[4] == 0.into()).count();
            assert_eq!(rows[4][0][2], open.into());
        });
    }
}

/// A fixed flow that has everything in it.
fn flow(length: usize) -> Vec<Fact> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    Flow::of(&(0..length).map(|_| (next(), next(), next())).collect::<Vec<_>>())
}

#[tokio::test]
async fn facts_are_stored_once_and_in_their_order() {
    let (store, facts) = (Store::new().await, flow(120));
    store.model.apply(0, facts[..60].to_vec()).await.unwrap();
    let before = store.rows().await;
    for again in [&facts[..60], &facts[..10]] {
        let refused = store.model.apply(0, again.to_vec()).await.unwrap_err();
        assert!(refused.is_transient(), "another replica was faster: {refused}");
    }
    let ahead = store.model.apply(70, facts[70..80].to_vec()).await.unwrap_err();
    assert!(ahead.is_transient());
    assert_eq!(store.rows().await, before);
    store.model.apply(60, facts[60..].to_vec()).await.unwrap();
    assert_eq!(store.model.position().await.unwrap(), facts.len() as u64);
}

#[tokio::test]
async fn a_fact_that_contradicts_what_is_stored_stops_and_leaves_nothing() {
    let store = Store::new().await;
    let bobs = open_order(BOB, 1);
    let gone = open_order(BOB, 2);
    store
        .apply(&[
            named(1, &bobs, 1, "mine", [1; 16]),
            fact(2, FactKind::Accepted, &gone, 2),
            fact(3, FactKind::Canceled, &ended(&gone, OrderState::Canceled, 9), 3),
        ])
        .await;
    let before = store.rows().await;
    let stranger = open_order(ALICE, 1);
    for impossible in [
        fact(4, FactKind::Replaced, &open_order(BOB, 9), 4),
        fact(4, FactKind::Replaced, &stranger, 4),
        fact(4, FactKind::Expired, &ended(&gone, OrderState::Expired, 10), 4),
        fact(4, FactKind::Accepted, &bobs, 4),
        fact(4, FactKind::Accepted, &open_order(BOB, 3), 3),
        named(4, &open_order(BOB, 3), 4, "mine", [1; 16]),
    ] {
        let good = fact(5, FactKind::Accepted, &open_order(ALICE, 8), 1);
        let refused = store.model.apply(3, vec![impossible, good]).await.unwrap_err();
        assert!(!refused.is_transient(), "{refused}");
        assert_eq!(store.rows().await, before, "{refused}");
    }
}

#[tokio::test]
async fn orders_and_fills_are_read_as_they_were_told() {
    let (store, facts) = (Store::new().await, flow(400));
    apply_split(&store.model, &facts, &[7, 64, 1]).await;
    for user in [BOB, ALICE, agent()] {
        let told = |f: &Fact| {
            let of_user = |u: &fafnir_proto::v1::OrderUpdate| u.user_id == user.to_string();
            f.orders.iter().filter(|u| of_user(u)).cloned().collect::<Vec<_>>()
        };
        let told: Vec<_> = facts.iter().flat_map(told).collect();
        let (listed, fills) = store
            .db()
            .read(move |tx| {
                let orders = store::order_list(tx, user, &Filter::default(), None, 1_000)?;
                Ok((orders, store::fill_list(tx, user, "AAPL", None, i64::MAX, 1_000)?.0))
            })
            .await
            .unwrap();
        assert!(listed.is_sorted_by(|a, b| a.id > b.id) && listed.len() > 20);
        let expected: Vec<_> = told.iter().rev().filter_map(|u| u.fill.clone()).collect();
        assert_eq!(fills.len(), expected.len());
        for order in listed {
            let last = told.iter().rev().find_map(|u| u.order.clone().filter(|o| o.id == order.id));
            assert_eq!(Some(&order), last.as_ref());
            let number = order.id.parse().unwrap();
            let found = store.db().read(move |tx| Ok(store::order_get(tx, user, number, 100)?));
            let found = found.await.unwrap().unwrap();
            let mine: Vec<_> =
                told.iter().filter_map(|u| u.fill.clone()).filter(|f| f.order_id == order.id).collect();
            assert_eq!(found.fills, mine);
        }
        let page = store
            .db()
            .read(move |tx| Ok(store::order_list(tx, user, &of("AAPL"), Some(id(60)), 3)?))
            .await
            .unwrap();
        assert!(page.len() == 3 && page.iter().all(|o| o.id < id(60).to_string()));
    }
    let (others, none) = store
        .db()
        .read(|tx| {
            Ok((store::order_list(tx, BOB, &of("MSFT"), None, 9)?, store::order_get(tx, BOB, id(9_999), 9)?))
        })
        .await
        .unwrap();
    assert!(others.is_empty() && none.is_none());
}

#[tokio::test]
async fn updates_are_kept_for_resuming_and_older_ones_ask_for_a_reset() {
    let store = Store::new().await;
    let order = open_order(BOB, 1);
    let count = store::UPDATES_KEPT + 600;
    let facts: Vec<Fact> = (1..=count)
        .map(|n| fact(n, if n == 1 { FactKind::Accepted } else { FactKind::Replaced }, &order, n))
        .collect();
    apply_split(&store.model, &facts, &[200]).await;
    let since = |after| store.db().read(move |tx| Ok(store::updates_since(tx, BOB, after, 10)?));
    let kept = since(count - store::UPDATES_KEPT).await.unwrap();
    assert!(!kept.reset && kept.more && kept.updates.len() == 10);
    assert_eq!((kept.updates[0].user_seq, kept.last_seq), (count - store::UPDATES_KEPT + 1, count));
    assert_eq!(kept.updates[0].order.as_ref(), Some(&order));
    assert!(since(4).await.unwrap().reset && since(count + 1).await.unwrap().reset);
    let all = since(count).await.unwrap();
    assert!(!all.reset && !all.more && all.updates.is_empty());
    let nobody = store.db().read(|tx| Ok(store::updates_since(tx, ALICE, 0, 10)?)).await.unwrap();
    assert!(!nobody.reset && nobody.last_seq == 0);
}

#[tokio::test]
async fn only_agents_orders_are_pruned_and_their_fills_and_names_go_with_them() {
    let (store, facts) = (Store::new().await, flow(300));
    store.apply(&facts).await;
    let (mut pruned, mut turns) = (0, 0);
    loop {
        let before = facts.len() as i64 / 2;
        let gone = store.db().write(move |tx| Ok(retention::agents_prune(tx, before, 5)?)).await.unwrap();
        (pruned, turns) = (pruned + gone, turns + 1);
        if gone < 5 {
            break;
        }
    }
    assert!(pruned > 5 && turns > 1, "{pruned} in {turns}");
    let whole = Store::new().await;
    whole.apply(&facts).await;
    let (left, before) = (store.rows().await, whole.rows().await);
    assert_eq!(before[0].len() - left[0].len(), usize::try_from(pruned).unwrap());
    let gone: Vec<_> =
        before[0].iter().filter(|row| !left[0].contains(row)).map(|row| row[1].clone()).collect();
    assert!(before[0].iter().filter(|row| gone.contains(&row[1])).all(|row| row[3] == 1.into()));
    for (table, column) in [(1, 2), (3, 3)] {
        let expected: Vec<_> =
            before[table].iter().filter(|row| !gone.contains(&row[column])).cloned().collect();
        assert_eq!(left[table], expected);
    }
    assert_eq!((&left[2], &left[4]), (&before[2], &before[4]));
}

#[tokio::test]
async fn on_postgres_the_rows_are_those_of_sqlite() {
    let Some(url) = testing::external("FAFNIR_TEST_POSTGRES_URL") else { return };
    let prefix = format!("order_{}", uuid::Uuid::new_v4().simple());
    let db = Db::open_postgres(&url, &prefix, MIGRATIONS, &Clock::wall()).await.unwrap();
    let (store, facts) = (Store::new().await, flow(1_500));
    apply_split(&store.model, &facts, &[500]).await;
    let model = ReadModel(db.clone());
    apply_split(&model, &facts, &[1, 200, 30]).await;
    assert_eq!(rows(&db).await, store.rows().await);
    assert!(model.apply(3, facts[3..9].to_vec()).await.unwrap_err().is_transient());
    let last = facts.len() as u64;
    let unknown = fact(last + 1, FactKind::Replaced, &open_order(BOB, 99_999), 99_999);
    assert!(!model.apply(last, vec![unknown]).await.unwrap_err().is_transient());
    drop(db);
    testing::drop_databases(&url, &prefix).await;
}
