//! Replay gives the same state by hash, questions are answered from disk, numbering is kept.

use super::support::*;
use crate::{
    domain::Engine,
    published::Stored,
    record::{Instruction, Record},
    recovery,
};
use fafnir_matching::{Side, Tif};
use fafnir_platform::refusal::Kind;
use fafnir_proto::v1;
use prost::Message as _;
use std::{fs, path::Path, sync::Arc, sync::atomic::Ordering};

async fn feed(running: &Running, commands: Vec<(u64, Record)>) {
    for chunk in commands.chunks(97) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
    }
    // The answer comes when the commands are on disk; what they led to is published before the next question.
    running.hash().await;
}

fn all_executions(running: &Running, after: &[v1::SymbolPosition], limit: usize) -> Vec<Arc<Stored>> {
    let mut positions = after.to_vec();
    let mut found = Vec::new();
    loop {
        let (facts, more) = running.published.executions(&positions, limit, 1 << 20).unwrap();
        for fact in &facts {
            positions.retain(|p| p.symbol != fact.symbol);
            positions.push(v1::SymbolPosition { symbol: fact.symbol.clone(), seq: fact.last_seq });
        }
        found.extend(facts);
        if !more {
            return found;
        }
    }
}

fn sequencer_config(dir: &Path, snapshot_every_commands: u64) -> crate::sequencer::Config {
    crate::sequencer::Config { snapshot_every_commands, ..config(dir) }
}

#[tokio::test]
async fn a_state_that_was_restored_goes_on_like_the_one_that_was_not() {
    let commands = random_commands(3, 3_000);
    let mut whole = in_memory(&[]);
    let mut facts = Vec::new();
    for (n, symbol) in SYMBOLS.iter().enumerate() {
        whole.apply(n as u64 + 1, START_US, &Record::Listing(listing(symbol)), &mut facts);
    }
    let mut halves = Engine::decode(&encoded(&whole)).unwrap();
    for (n, (_, record)) in commands.iter().enumerate() {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        whole.apply(n as u64 + 5, START_US + n as i64, record, &mut left);
        halves.apply(n as u64 + 5, START_US + n as i64, record, &mut right);
        assert_eq!(left, right);
        if n % 251 == 0 {
            halves = Engine::decode(&encoded(&halves)).unwrap();
            assert_eq!(halves.hash(), whole.hash());
        }
    }
}

fn encoded(engine: &Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    engine.encode(&mut bytes);
    bytes
}

#[tokio::test]
async fn commands_seen_before_change_nothing_and_a_gap_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    let commands = random_commands(5, 60);
    assert_eq!(running.handle.submit(commands[..30].to_vec()).await, Ok(30));
    let hash = running.hash().await;
    assert_eq!(running.handle.submit(commands[..30].to_vec()).await, Ok(30));
    assert_eq!(running.hash().await, hash);
    let gap = running.handle.submit(vec![commands[30].clone(), commands[32].clone()]).await.unwrap_err();
    assert_eq!((gap.kind, gap.reason.as_str()), (Kind::Precondition, "CMD_SEQ_GAP"));
    assert_eq!(running.hash().await, hash);
    assert_eq!(running.handle.submit(commands[10..].to_vec()).await, Ok(60));
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.handle.submit(commands).await, Ok(60));
    again.stop().await;
}

#[tokio::test]
async fn executions_after_positions_are_complete_in_order_and_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    feed(&running, random_commands(11, 2_000)).await;
    let live = all_executions(&running, &[], 50);
    let mut last = std::collections::BTreeMap::<String, u64>::new();
    for fact in &live {
        let at = last.entry(fact.symbol.clone()).or_default();
        assert_eq!(fact.first_seq, *at + 1);
        *at = fact.last_seq;
    }
    let middle = v1::SymbolPosition { symbol: "AAPL".into(), seq: live[500].last_seq };
    running.stop().await;
    // The outcome log is made again where it is lost.
    for segment in fs::read_dir(dir.path()).unwrap() {
        let path = segment.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("outcomes") {
            fs::remove_file(path).unwrap();
        }
    }
    let again = run(dir.path());
    assert_eq!(all_executions(&again, &[], 50), live);
    let (tail, _) = again.published.executions(std::slice::from_ref(&middle), 10_000, 1 << 24).unwrap();
    assert!(tail.iter().all(|f| f.symbol != "AAPL" || f.last_seq > middle.seq));
    assert_eq!(again.published.facts_after(0, 10_000).unwrap(), live);
    again.stop().await;
}

#[tokio::test]
async fn trades_are_numbered_without_a_gap_and_found_after_any_number() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    feed(&running, random_commands(13, 3_000)).await;
    let trades = running.published.trades("MSFT", 0, 1_000, false).unwrap();
    assert!(trades.len() > 50);
    for (n, trade) in trades.iter().enumerate() {
        assert_eq!(trade.trade_no, n as u64 + 1);
        assert!(trade.exec_id.starts_with("MSFT:"));
    }
    let latest = running.published.trades("MSFT", 0, 5, true).unwrap();
    assert_eq!(latest, trades[trades.len() - 5..]);
    assert_eq!(running.published.trades("MSFT", 10, 3, false).unwrap(), trades[10..13]);
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.published.trades("MSFT", 0, 1_000, false).unwrap(), trades);
    again.stop().await;
}

#[tokio::test]
async fn the_image_shows_the_book_and_trades_are_printed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = run(dir.path());
    running.list().await;
    let orders = vec![
        command(1, "AAPL", Instruction::New(limit(1, 1, Side::Sell, 10, 10_000))),
        command(2, "AAPL", Instruction::New(limit(2, 2, Side::Buy, 4, 10_000))),
        command(3, "AAPL", Instruction::New(limit(3, 2, Side::Buy, 4, 9_900))),
    ];
    running.handle.submit(orders).await.unwrap();
    running.now_us.fetch_add(1_000_000, Ordering::Relaxed);
    running.handle.status().await.unwrap();
    running.handle.status().await.unwrap();
    let image = running.published.image("AAPL", 0).unwrap();
    assert_eq!((image.asks[0].price_e4, image.asks[0].quantity_e4), (1_000_000, 60_000));
    assert_eq!((image.bids[0].price_e4, image.last_price_e4, image.last_trade_no), (990_000, 1_000_000, 1));
    assert!(image.epoch > 0);
    let mut prints = Vec::new();
    running.market.close();
    while let Some(message) = running.market.recv().await {
        if let crate::sequencer::Market::Print { subject, payload } = message {
            assert_eq!(subject, "market.trades.AAPL");
            prints.extend(v1::TradePrint::decode(payload).unwrap().trades);
        }
    }
    assert_eq!(prints, running.published.trades("AAPL", 0, 10, false).unwrap());
    running.stop().await;
}

#[tokio::test]
async fn day_end_and_gtd_expiry_are_journaled_when_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    let mut day = limit(1, 1, Side::Buy, 1, 9_000);
    day.tif = Tif::Day;
    let mut gtd = limit(2, 1, Side::Buy, 1, 9_000);
    (gtd.tif, gtd.expires_us) = (Tif::Gtd, START_US + 60_000_000);
    let orders = vec![command(1, "AAPL", Instruction::New(day)), command(2, "AAPL", Instruction::New(gtd))];
    running.handle.submit(orders).await.unwrap();
    running.now_us.store(START_US + 60_000_000, Ordering::Relaxed);
    assert_eq!(running.handle.status().await.unwrap().open_orders, 1);
    running.now_us.store(START_US + 86_400_000_000, Ordering::Relaxed);
    let status = running.handle.status().await.unwrap();
    assert_eq!(status.open_orders, 0);
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.hash().await, status.state_hash);
    again.stop().await;
}

#[tokio::test]
async fn what_followers_are_past_and_a_snapshot_covers_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(sequencer_config(dir.path(), 10_000));
    running.list().await;
    let mut next = 1;
    let told = |running: &Running, status: &v1::EngineStatusReply| {
        for follower in crate::published::FOLLOWERS {
            running.published.note_follower(follower, &status.positions);
        }
        running.published.note_relayed(u64::MAX - 1);
    };
    let oldest =
        |dir: &Path| crate::seglog::segments(recovery::JOURNAL, dir).unwrap().first().unwrap().first_seq;
    // Crossing pairs of orders: two outcomes of some size each.
    while oldest(dir.path()) == 1 {
        assert!(next < 3_000_000, "nothing was dropped");
        let commands: Vec<_> = (next..next + 1_000)
            .map(|n| {
                let side = if n % 2 == 0 { Side::Buy } else { Side::Sell };
                command(n, "AAPL", Instruction::New(limit(n, n % 2, side, 1, 10_000)))
            })
            .collect();
        next += 1_000;
        running.handle.submit(commands).await.unwrap();
        if next % 50_000 == 1 {
            let status = running.handle.status().await.unwrap();
            told(&running, &status);
        }
    }
    let hash = running.hash().await;
    running.stop().await;
    let again = run(dir.path());
    assert_eq!(again.hash().await, hash);
    again.stop().await;
}
