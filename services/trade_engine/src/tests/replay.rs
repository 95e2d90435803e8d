//! Facts after any position, trades after any number, images, timers, room for cancels, what is kept.

use super::support::*;
use crate::{
    followers::{FOLLOWERS, Limits},
    log::{FACTS, JOURNAL},
    market::Market,
    message, publisher,
    replay::hash,
    seglog,
    sequencer::Config,
};
use fafnir_clearing::State;
use fafnir_platform::clock::SECOND_US;
use fafnir_proto::v1::{self, FactKind, Side};
use prost::Message as _;
use std::{fs, path::Path, sync::atomic::Ordering};

#[tokio::test]
async fn facts_after_any_position_are_the_same_from_memory_and_from_disk_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    running.feed(&random_commands(11, 2_000)).await;
    let facts = running.facts(0).await;
    assert!(
        facts.len() > 1_000 && running.exchange.published.recent_first().unwrap() > 1,
        "some are on disk only"
    );
    for after in [0, 1, 7, facts.len() as u64 / 2, facts.len() as u64 - 1] {
        assert_eq!(running.facts(after).await, facts[after as usize..]);
    }
    // Each user's numbers have no gap.
    let (mut orders, mut money) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for fact in &facts {
        for update in &fact.orders {
            let last: &mut u64 = orders.entry(update.user_id.clone()).or_default();
            *last += 1;
            assert_eq!(update.user_seq, *last, "{fact:?}");
        }
        for update in &fact.balances {
            let last: &mut u64 = money.entry(update.user_id.clone()).or_default();
            *last += 1;
            assert_eq!(update.user_seq, *last, "{fact:?}");
        }
    }
    // What goes to the broker is the same.
    let recent = running.exchange.published.recent_after(facts.len() as u64 - 5, 100, 1 << 20).unwrap();
    assert_eq!(v1::FactBatch::decode(publisher::batch(&recent)).unwrap().facts, facts[facts.len() - 5..]);
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.facts(0).await, facts);
    again.stop().await;
}

/// The segments of the fact log by whether they are packed, oldest first.
fn packed(dir: &Path) -> Vec<bool> {
    let all = seglog::segments(FACTS, dir).unwrap();
    all.iter().map(|s| s.path.extension().is_some_and(|e| e == "gz")).collect()
}

type Damage = fn(&mut Vec<u8>);

/// An exchange with a fact log of several segments.
async fn with_segments(dir: &Path) -> Running {
    let running = run(dir);
    running.prelude().await;
    for chunk in random_commands(17, 4_000).chunks(50) {
        running.feed(chunk).await;
    }
    running
}

#[tokio::test]
async fn packed_facts_are_the_same_and_found_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let running = with_segments(dir.path()).await;
    let facts = running.facts(0).await;
    let published = &running.exchange.published;
    let trades = published.trades("MSFT", 0, 1_000, false).unwrap();
    let count = packed(dir.path()).len();
    assert!(count > 4 && !packed(dir.path()).contains(&true));

    let listed = seglog::segments(FACTS, dir.path()).unwrap();
    while let Some((bytes, to)) = published.pack().unwrap() {
        assert!(to < bytes / 2, "{bytes} {to}");
    }
    assert_eq!(packed(dir.path()), [vec![true; count - 1], vec![false]].concat());
    // Who listed them before finds them all the same.
    assert_eq!(seglog::read_segment(FACTS, &listed[0]).unwrap().1.first_seq, 1);
    for after in [0, 1, facts.len() as u64 / 2, facts.len() as u64 - 1] {
        assert_eq!(running.facts(after).await, facts[after as usize..]);
    }
    assert_eq!(published.trades("MSFT", 0, 1_000, false).unwrap(), trades);
    running.stop().await;
    let copy = tempfile::tempdir().unwrap();
    crate::backup::copy(dir.path(), copy.path()).unwrap();
    for place in [dir.path(), copy.path()] {
        let again = run(place);
        assert_eq!((again.facts(0).await, again.exchange.published.oldest()), (facts.clone(), 1));
        again.stop().await;
    }
}

#[tokio::test]
async fn damage_of_packed_facts_is_seen_and_mended() {
    // What a start sees of it is made again from the journal, in plain segments.
    let damages: [(Damage, bool); 3] = [
        (|bytes| bytes.truncate(5), true),
        (|bytes| bytes[12] ^= 4, true),
        (|bytes| bytes.truncate(bytes.len() - 3), false),
    ];
    let dir = tempfile::tempdir().unwrap();
    let running = with_segments(dir.path()).await;
    let facts = running.facts(0).await;
    while running.exchange.published.pack().unwrap().is_some() {}
    running.stop().await;
    for (damage, is_seen_by_start) in damages {
        let damaged = tempfile::tempdir().unwrap();
        crate::backup::copy(dir.path(), damaged.path()).unwrap();
        let file = seglog::segments(FACTS, damaged.path()).unwrap().swap_remove(0).path;
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let told = crate::standing::look(damaged.path()).unwrap_err();
        assert!(told.contains(".log.gz: offset 0"), "{told}");
        let again = run(damaged.path());
        assert_eq!(packed(damaged.path()).contains(&true), !is_seen_by_start);
        if is_seen_by_start {
            assert_eq!(again.facts(0).await, facts);
        }
        again.stop().await;
    }
}

#[tokio::test]
async fn trades_are_numbered_without_a_gap_and_found_after_any_number() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    running.feed(&random_commands(13, 3_000)).await;
    running.facts(0).await;
    let trades = running.exchange.published.trades("MSFT", 0, 1_000, false).unwrap();
    assert!(trades.len() > 50);
    for (n, trade) in trades.iter().enumerate() {
        assert_eq!(trade.trade_no, n as u64 + 1);
        assert!(trade.exec_id.starts_with("MSFT:"));
    }
    let latest = running.exchange.published.trades("MSFT", 0, 5, true).unwrap();
    assert_eq!(latest, trades[trades.len() - 5..]);
    assert_eq!(running.exchange.published.trades("MSFT", 10, 3, false).unwrap(), trades[10..13]);
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.exchange.published.trades("MSFT", 0, 1_000, false).unwrap(), trades);
    again.stop().await;
}

#[tokio::test]
async fn the_image_shows_the_book_and_trades_are_printed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = run(dir.path());
    running.set_up().await;
    for (user, n, what) in [
        (1, 1, limit(1, "AAPL", Side::Sell, 10, 10_000)),
        (2, 2, limit(2, "AAPL", Side::Buy, 4, 10_000)),
        (2, 3, limit(3, "AAPL", Side::Buy, 4, 9_900)),
    ] {
        done(running.execute(command(user, n, what)).await);
    }
    running.now_us.fetch_add(1_000_000, Ordering::Relaxed);
    running.seq().await;
    running.seq().await;
    let image = running.exchange.published.image("AAPL", 0).unwrap();
    assert_eq!((image.asks[0].price_e4, image.asks[0].quantity_e4), (1_000_000, 60_000));
    assert_eq!((image.bids[0].price_e4, image.last_price_e4, image.last_trade_no), (990_000, 1_000_000, 1));
    assert!(image.epoch > 0);
    let depth = v1::DepthRequest { symbol: "AAPL".into(), levels: 5, orders: 5 };
    let depth = running.exchange.depth(depth).await.unwrap().unwrap();
    assert_eq!((depth.asks.len(), depth.bid_orders[0].order_id.clone()), (1, order_id(3).to_string()));
    let at = running.exchange.queue_position(order_id(3)).await.unwrap().unwrap();
    assert_eq!((at.symbol.as_str(), at.orders_ahead), ("AAPL", 0));
    running.facts(0).await;
    let trades = running.exchange.published.trades("AAPL", 0, 10, false).unwrap();
    let mut prints = Vec::new();
    running.market.close();
    while let Some(message) = running.market.recv().await {
        if let Market::Print { subject, payload } = message {
            assert_eq!(subject, "market.trades.AAPL");
            prints.extend(v1::TradePrint::decode(payload).unwrap().trades);
        }
    }
    assert_eq!(prints, trades);
    running.stop().await;
}

#[tokio::test]
async fn day_end_and_gtd_expiry_are_journaled_when_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    let mut day = limit(1, "AAPL", Side::Buy, 1, 9_000);
    let mut gtd = limit(2, "AAPL", Side::Buy, 1, 9_000);
    if let (v1::command::What::Place(day), v1::command::What::Place(gtd)) = (&mut day, &mut gtd) {
        day.set_time_in_force(v1::TimeInForce::Day);
        gtd.set_time_in_force(v1::TimeInForce::Gtd);
        gtd.expires_us = START_US + 60_000_000;
    }
    done(running.execute(command(1, 1, day)).await);
    done(running.execute(command(1, 2, gtd)).await);
    running.now_us.store(START_US + 60_000_000, Ordering::Relaxed);
    assert_eq!(running.exchange.status().await.unwrap().open_orders, 1);
    running.now_us.store(START_US + 86_400_000_000, Ordering::Relaxed);
    assert_eq!(running.exchange.status().await.unwrap().open_orders, 0);
    let now = running.hash().await;
    let reasons: Vec<String> = running
        .facts(0)
        .await
        .into_iter()
        .filter(|f| f.kind() == FactKind::Expired)
        .map(|f| f.reason)
        .collect();
    assert_eq!(reasons, ["GTD", "DAY_END"]);
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.hash().await, now);
    again.stop().await;
}

#[tokio::test]
async fn pages_of_open_orders_and_accounts_are_complete_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    running.feed(&random_commands(19, 600)).await;
    let all = running.exchange.engine.query(|state| {
        let mut ids: Vec<_> = state.orders().map(|o| o.id.to_string()).collect();
        ids.sort();
        (ids, state.open_accounts())
    });
    let (orders, accounts) = all.await.unwrap();
    let mut found = Vec::new();
    loop {
        let after_id = found.last().cloned().unwrap_or_default();
        let request = v1::OpenOrdersRequest { after_id, limit: 7, ..Default::default() };
        let page = running.exchange.open_orders(request).await.unwrap();
        found.extend(page.orders.into_iter().map(|o| o.id));
        if !page.more {
            break;
        }
    }
    assert!(found == orders && orders.len() > 20);
    let mut found = Vec::new();
    let mut holds = 0;
    loop {
        let after_account_id = found.last().cloned().unwrap_or_default();
        let page = running.exchange.image(&v1::ImageRequest { after_account_id, limit: 3 }).await.unwrap();
        assert_eq!(page.house.is_empty(), !found.is_empty());
        holds += page.accounts.iter().map(|a| a.holds.len()).sum::<usize>();
        found.extend(page.accounts.into_iter().map(|a| a.account.unwrap().id));
        if !page.more {
            break;
        }
    }
    assert!(found.len() == accounts && found.is_sorted());
    assert_eq!(holds, orders.len());
    running.stop().await;
}

#[tokio::test]
async fn who_begins_at_a_position_that_was_told_is_not_ahead_of_the_fact_log() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    for n in 1..300 {
        done(running.execute(command(1, n, deposit(1, 1))).await);
        let after = running.exchange.position(&v1::PositionRequest::default()).unwrap().last;
        let request = v1::FactsRequest { after, limit: 1, follower: String::new() };
        assert!(running.exchange.facts(request).await.unwrap().last >= after);
    }
    running.stop().await;
}

#[tokio::test]
async fn only_cancels_are_taken_while_the_books_are_behind() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    done(running.execute(command(1, 1, limit(1, "AAPL", Side::Sell, 10, 10_000))).await);
    let followers = &running.exchange.published.followers;
    let limits = Limits { behind_us: SECOND_US, behind_facts: 1_000 };
    let ask = |after| v1::FactsRequest { after, limit: 1, follower: "order-service".into() };
    running.exchange.facts(ask(1)).await.unwrap();
    followers.judge(limits, START_US, 1_001);
    for what in [limit(2, "AAPL", Side::Sell, 1, 10_000), deposit(1, 5), open_account(9, false)] {
        let is = refused(running.execute(command(1, 2, what)).await);
        assert_eq!((is.code, is.reason.as_str()), (8, "CANCEL_ONLY"));
    }
    done(running.execute(command(1, 3, cancel(1))).await);
    running.exchange.facts(ask(2)).await.unwrap();
    followers.judge(limits, START_US, 1_001);
    done(running.execute(command(1, 4, limit(4, "AAPL", Side::Sell, 1, 10_000))).await);
    running.stop().await;
}

#[tokio::test]
async fn snapshots_are_written_beside_the_core_and_give_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(Config { snapshot_every_commands: 200, ..config(dir.path()) }).unwrap();
    running.prelude().await;
    let commands = random_commands(17, 3_000);
    for chunk in commands.chunks(50) {
        running.feed(chunk).await;
    }
    // Each question goes to the core's thread and back.
    let written =
        async { while running.seq().await > 0 && running.exchange.published.snapshot().seq == 0 {} };
    tokio::time::timeout(DEADLINE, written).await.expect("a snapshot is written");
    let status = running.exchange.status().await.unwrap();
    assert!(status.snapshot_seq > 0 && status.state_hash.len() == 64);
    let now = running.hash().await;
    running.stop().await;
    let again = run(dir.path());
    assert_eq!((again.base, again.hash().await), (PRELUDE + 3_000, now));
    again.stop().await;
}

#[tokio::test]
async fn what_a_snapshot_covers_and_no_fact_needs_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(Config { snapshot_every_commands: 5_000, ..config(dir.path()) }).unwrap();
    running.set_up().await;
    let oldest = |spec, dir: &Path| seglog::segments(spec, dir).unwrap().first().unwrap().first_seq;
    let mut next = 1;
    // The clock goes on by days: facts grow old.
    while oldest(JOURNAL, dir.path()) == 1 || oldest(FACTS, dir.path()) == 1 {
        assert!(next < 400_000, "nothing was dropped");
        let pairs: Vec<_> = (next..next + 1_000)
            .map(|n| {
                let (user, side) = if n % 2 == 0 { (1, Side::Buy) } else { (2, Side::Sell) };
                command(user, n, limit(n, "AAPL", side, 1, 10_000))
            })
            .collect();
        next += 1_000;
        running.feed(&pairs).await;
        running.now_us.fetch_add(86_400_000_000, Ordering::Relaxed);
        for follower in FOLLOWERS {
            running.exchange.published.followers.note(follower, running.exchange.published.recorded());
        }
    }
    let now = running.hash().await;
    let oldest_fact = running.exchange.published.oldest();
    let gone = v1::FactsRequest { after: 0, limit: 5, follower: String::new() };
    let gone = running.exchange.facts(gone).await.unwrap();
    assert!(gone.oldest >= oldest_fact && gone.facts[0].position >= gone.oldest);
    running.stop().await;
    let again = run(dir.path());
    // The recorder may have dropped one more before it stopped.
    assert!(again.hash().await == now && again.exchange.published.oldest() >= oldest_fact);
    // What is kept has no gap; asked now, when nobody drops any of it.
    again.facts(again.exchange.published.oldest()).await;
    again.stop().await;
}

#[tokio::test]
async fn a_state_that_was_restored_goes_on_like_the_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    running.feed(&random_commands(3, 1_500)).await;
    let now = running.hash().await;
    running.stop().await;
    let mut whole = crate::replay::Run::from_base(dir.path(), State::new()).unwrap();
    let mut steps = 0;
    let mut copy = State::new();
    while let Some(step) = whole.step(crate::replay::Until::END).unwrap() {
        let mut facts = Vec::new();
        fafnir_clearing::step(&mut copy, step.seq, step.time_us, &step.command, &mut facts);
        let names = whole.names();
        // Not the facts themselves: where an order lives in its book is nobody's business.
        let say = |facts: &[_]| facts.iter().map(|f| message::fact(names, f)).collect::<Vec<_>>();
        assert_eq!(say(&facts), say(&step.facts));
        steps += 1;
        if steps % 251 == 0 {
            let mut bytes = Vec::new();
            copy.encode(&mut bytes);
            copy = State::decode(&bytes).unwrap();
            assert_eq!(hash(&copy), hash(&whole.state));
        }
    }
    assert_eq!(hash(&copy), now);
}
