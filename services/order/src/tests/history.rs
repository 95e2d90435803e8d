//! What happened to an order, of any age, and lists that are whole.

use super::{
    super::store::{self, Filter, UPDATES_KEPT},
    BOB, Store, ended, fact, id, open_order,
};
use fafnir_proto::v1::{Fact, FactKind, Fill, Order, OrderState, OrderUpdate, Side};

/// BOB's order 1 is accepted, then `others` other orders of his come and go, then it trades `fills` times and is canceled.
fn story(others: u64, fills: u64) -> Vec<Fact> {
    let order = Order { quantity_e4: 10_000_000_000, open_e4: 10_000_000_000, ..open_order(BOB, 1) };
    let mut facts = vec![fact(1, FactKind::Accepted, &order, 1)];
    let next = |facts: &Vec<Fact>| facts.len() as u64 + 1;
    for n in 0..others {
        let other = open_order(BOB, 10 + u128::from(n));
        let seq = next(&facts);
        facts.push(fact(seq, FactKind::Accepted, &other, seq));
        let seq = next(&facts);
        facts.push(fact(seq, FactKind::Canceled, &ended(&other, OrderState::Canceled, 6), seq));
    }
    let mut order = Order { state: OrderState::PartiallyFilled.into(), ..order };
    for _ in 0..fills {
        let position = next(&facts);
        order.filled_e4 += 10_000;
        order.open_e4 -= 10_000;
        order.updated_us = position as i64;
        let fill = Fill {
            exec_id: format!("AAPL:{position}"),
            order_id: order.id.clone(),
            symbol: "AAPL".into(),
            side: Side::Buy.into(),
            price_e4: 2_310_000,
            quantity_e4: 10_000,
            maker: true,
            time_us: position as i64,
        };
        let update = OrderUpdate {
            user_id: BOB.to_string(),
            user_seq: position,
            order: Some(order.clone()),
            fill: Some(fill),
        };
        let told = fact(position, FactKind::Executed, &order, position);
        facts.push(Fact { orders: vec![update], exec_seq: position, ..told });
    }
    let position = next(&facts);
    let gone = ended(&order, OrderState::Canceled, position as i64);
    facts.push(fact(position, FactKind::Canceled, &gone, position));
    facts
}

#[tokio::test]
async fn every_step_of_an_old_order_is_there_page_by_page() {
    let store = Store::new().await;
    let (others, fills) = (UPDATES_KEPT, 5);
    let facts = story(others, fills);
    for batch in facts.chunks(200) {
        store.apply(batch).await;
    }
    let steps = |after, limit| store.db().read(move |tx| Ok(store::steps(tx, BOB, id(1), after, limit)?));
    let all = steps(0, 100).await.unwrap();
    let kinds: Vec<_> = all.iter().map(|(kind, _)| *kind).collect();
    let mut expected = vec![FactKind::Accepted];
    expected.extend([FactKind::Executed; 5]);
    expected.push(FactKind::Canceled);
    assert_eq!(kinds, expected);
    let filled: Vec<_> = all.iter().map(|(_, u)| u.order.as_ref().unwrap().filled_e4 / 10_000).collect();
    assert_eq!(filled, [0, 1, 2, 3, 4, 5, 5]);
    let (mut paged, mut after) = (Vec::new(), 0);
    loop {
        let page = steps(after, 3).await.unwrap();
        let Some((_, last)) = page.last() else { break };
        after = last.user_seq;
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let nobodys = store.db().read(|tx| Ok(store::steps(tx, super::ALICE, id(1), 0, 9)?)).await.unwrap();
    assert!(nobodys.is_empty());
}

#[tokio::test]
async fn fills_are_whole_at_any_age_and_in_pages() {
    let store = Store::new().await;
    let fills = 2_345;
    for batch in story(3, fills).chunks(200) {
        store.apply(batch).await;
    }
    let (mut seen, mut before) = (Vec::new(), i64::MAX);
    loop {
        let page = store.db().read(move |tx| Ok(store::fill_list(tx, BOB, "", Some(id(1)), before, 1_000)?));
        let (page, next) = page.await.unwrap();
        seen.extend(page);
        if next == 0 {
            break;
        }
        before = next;
    }
    assert_eq!(seen.len() as u64, fills);
    assert!(seen.is_sorted_by(|a, b| a.time_us > b.time_us), "newest first, each once");
    let other = store.db().read(|tx| Ok(store::fill_list(tx, BOB, "", Some(id(11)), i64::MAX, 10)?));
    assert_eq!(other.await.unwrap(), (Vec::new(), 0));
}

#[tokio::test]
async fn orders_are_counted_and_filtered() {
    let store = Store::new().await;
    let mut facts = Vec::new();
    for n in 1..=30_u64 {
        let order = Order {
            symbol: if n % 3 == 0 { "MSFT" } else { "AAPL" }.into(),
            side: if n % 2 == 0 { Side::Buy } else { Side::Sell }.into(),
            created_us: n as i64,
            account_id: id(u128::from(n % 5)).to_string(),
            ..open_order(BOB, u128::from(n))
        };
        let position = facts.len() as u64 + 1;
        facts.push(fact(position, FactKind::Accepted, &order, position));
        if n % 10 == 0 {
            let gone = ended(&order, OrderState::Canceled, 99);
            facts.push(fact(position + 1, FactKind::Canceled, &gone, position + 1));
        }
    }
    store.apply(&facts).await;
    for (filter, count) in [
        (Filter::default(), 30),
        (Filter { symbol: "MSFT".into(), ..Filter::default() }, 10),
        (Filter { side: Some(Side::Buy), ..Filter::default() }, 15),
        // 2 and 4 of each ten, 6 and 8 too, 10 is gone; of them every third is MSFT: 6, 12, 18, 24.
        (
            Filter {
                symbol: "MSFT".into(),
                side: Some(Side::Buy),
                states: vec![OrderState::New],
                ..Filter::default()
            },
            4,
        ),
        (Filter { states: vec![OrderState::Canceled, OrderState::Filled], ..Filter::default() }, 3),
        (Filter { from_us: 5, to_us: 8, ..Filter::default() }, 3),
        (Filter { account_id: id(2).to_string(), ..Filter::default() }, 6),
        (Filter { symbol: "NVDA".into(), ..Filter::default() }, 0),
    ] {
        let listed = store.db().read(move |tx| {
            let all = store::order_list(tx, BOB, &filter, None, 1_000)?;
            let (mut paged, mut before) = (Vec::new(), None);
            loop {
                let page = store::order_list(tx, BOB, &filter, before, 2)?;
                let Some(last) = page.last() else { break };
                before = last.id.parse().ok();
                paged.extend(page);
            }
            Ok((store::order_count(tx, BOB, &filter)?, all, paged))
        });
        let (counted, all, paged) = listed.await.unwrap();
        assert_eq!((counted, all.len()), (count, count as usize));
        assert_eq!(all, paged);
        assert!(all.is_sorted_by(|a, b| a.id > b.id));
    }
}

/// Prints how long a user of 100,000 orders takes: `cargo test -p fafnir-order --lib hundred -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes a minute; a measurement"]
async fn a_hundred_thousand_orders_are_listed() {
    const ORDERS: u64 = 100_000;
    let store = Store::new().await;
    let started = std::time::Instant::now();
    let mut facts = Vec::new();
    for n in 1..=ORDERS {
        facts.push(fact(n, FactKind::Accepted, &open_order(BOB, u128::from(n)), n));
        if facts.len() == 1_000 {
            store.apply(&facts).await;
            facts.clear();
        }
    }
    eprintln!("{ORDERS} orders written in {:?}", started.elapsed());
    let measured = async |what: &str, filter: Filter| {
        let started = std::time::Instant::now();
        let count = store.db().read(move |tx| Ok(store::order_count(tx, BOB, &filter)?)).await.unwrap();
        eprintln!("count of {what}: {count} in {:?}", started.elapsed());
        count
    };
    assert_eq!(measured("all", Filter::default()).await, ORDERS);
    let sells = Filter { side: Some(Side::Sell), ..Filter::default() };
    assert_eq!(measured("all sales", sells).await, 0);
    let (started, mut seen, mut before) = (std::time::Instant::now(), 0, None);
    loop {
        let page = store
            .db()
            .read(move |tx| Ok(store::order_list(tx, BOB, &Filter::default(), before, 1_000)?))
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        before = last.id.parse().ok();
        seen += page.len() as u64;
    }
    eprintln!("{seen} orders in pages of 1,000 in {:?}", started.elapsed());
    let started = std::time::Instant::now();
    let steps = store.db().read(|tx| Ok(store::steps(tx, BOB, id(1), 0, 100)?)).await.unwrap();
    eprintln!("{} steps of the oldest in {:?}", steps.len(), started.elapsed());
    assert_eq!(seen, ORDERS);
}
