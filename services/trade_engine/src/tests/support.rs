//! Records at random, and an engine in a directory of its own.

use crate::{
    domain::Engine,
    record::{Instruction, Listing, NewOrder, Record, Replace},
    recovery::{self, Recovered},
    replay::{Run, Until},
    sequencer::{self, Config, Handle, Market},
};
use fafnir_matching::{Kind, SelfTrade, Side, Tif};
use fafnir_platform::{Clock, rng::Rng};
use fafnir_proto::v1::TradingState;
use fafnir_rules::symbol::Symbol;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub const SYMBOLS: [&str; 4] = ["AAPL", "MSFT", "BRK.B", "SHOP"];
/// Nothing in a test takes longer.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn symbol(text: &str) -> Symbol {
    Symbol::parse(text).unwrap()
}

pub fn listing(text: &str) -> Listing {
    Listing {
        symbol: symbol(text),
        tick_e4: 100,
        lot_e4: 10_000,
        state: TradingState::Open,
        previous_close_e4: 0,
        band_bps: 0,
    }
}

pub fn order_id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x0dde, number)
}

pub fn user_id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x05e4, number)
}

/// A GTC limit order; price in cents, quantity in shares.
pub fn limit(order: u64, user: u64, side: Side, shares: i64, cents: i64) -> NewOrder {
    NewOrder {
        order: order_id(order),
        user: user_id(user),
        side,
        kind: Kind::Limit,
        tif: Tif::Gtc,
        self_trade: SelfTrade::CancelNewest,
        post_only: false,
        quantity_e4: shares * 10_000,
        price_e4: cents * 100,
        stop_e4: 0,
        trail_e4: 0,
        display_e4: 0,
        expires_us: 0,
        cap_e4: 0,
    }
}

pub fn command(cmd_seq: u64, on: &str, instruction: Instruction) -> (u64, Record) {
    (cmd_seq, Record::Command { cmd_seq, symbol: Some(symbol(on)), instruction })
}

/// Commands over every kind of order, numbered from 1.
pub fn random_commands(seed: u64, count: u64) -> Vec<(u64, Record)> {
    let mut r = Rng::new(seed);
    (1..=count)
        .map(|n| {
            let instruction = match r.below(100) {
                0..55 => Instruction::New(random_order(&mut r, n)),
                55..80 => Instruction::Cancel { order: order_id(1 + r.below(n)) },
                80..96 => Instruction::Replace(Replace {
                    order: order_id(1 + r.below(n)),
                    quantity_e4: r.below(40) as i64 * 10_000,
                    price_e4: if r.below(2) == 0 { 0 } else { (9_950 + r.below(100) as i64) * 100 },
                    stop_e4: 0,
                    cap_e4: 0,
                    version: 0,
                }),
                96..98 => Instruction::CancelAll { user: user_id(r.below(20)) },
                98 => Instruction::SetState { state: TradingState::Halted },
                _ => Instruction::SetState { state: TradingState::Open },
            };
            command(n, SYMBOLS[r.below(4) as usize], instruction)
        })
        .collect()
}

/// Commands, and now and then a listing with a narrow band, a reopening or a day's end.
pub fn random_records(seed: u64, count: u64) -> Vec<(u64, Record)> {
    let mut r = Rng::new(seed);
    let mut records = Vec::new();
    for command in random_commands(seed, count) {
        let on = SYMBOLS[r.below(4) as usize];
        let between = match r.below(30) {
            0 => Record::Listing(Listing {
                previous_close_e4: 990_000 + r.below(200) as i64 * 100,
                band_bps: r.below(60) as u32,
                ..listing(on)
            }),
            1..4 => Record::Reopen { symbol: symbol(on) },
            4 => Record::DayEnd,
            _ => {
                records.push(command);
                continue;
            }
        };
        records.extend([(0, between), command]);
    }
    records
}

fn random_order(r: &mut Rng, n: u64) -> NewOrder {
    let side = if r.below(2) == 0 { Side::Buy } else { Side::Sell };
    let around = |r: &mut Rng| 9_950 + r.below(100) as i64;
    let mut order = limit(n, r.below(20), side, 1 + r.below(30) as i64, around(r));
    order.self_trade = SelfTrade::from_code(r.below(4) as u8).unwrap();
    match r.below(12) {
        0 => order.kind = Kind::Market,
        1 => order.tif = Tif::Ioc,
        2 => order.tif = Tif::Fok,
        3 => order.tif = Tif::Day,
        4 => {
            order.tif = Tif::Gtd;
            order.expires_us = i64::MAX / 2;
        }
        5 => order.post_only = true,
        6 => order.display_e4 = 10_000,
        7 => order.kind = Kind::Stop,
        8 => order.kind = Kind::StopLimit,
        9 => {
            order.kind = Kind::TrailingAmount;
            order.trail_e4 = 500;
        }
        _ => {}
    }
    order.cap_e4 = if side == Side::Buy { 1_010_000 } else { 990_000 };
    order.stop_e4 = if matches!(order.kind, Kind::Stop | Kind::StopLimit) { around(r) * 100 } else { 0 };
    order
}

/// A running engine whose clock the test moves.
pub struct Running {
    pub handle: Handle,
    pub published: Arc<crate::published::Published>,
    pub market: mpsc::Receiver<Market>,
    pub now_us: Arc<AtomicI64>,
    pub snapshot_seq: u64,
    ended: oneshot::Receiver<()>,
}

pub const START_US: i64 = 1_800_000_000_000_000;

/// How long a volatility pause lasts.
pub const PAUSE_US: i64 = 120_000_000;

pub fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        snapshot_every_commands: u64::MAX,
        snapshot_every_us: i64::MAX / 4,
        keep_all: false,
        volatility_pause_us: PAUSE_US,
    }
}

pub fn run(dir: &Path) -> Running {
    run_with(config(dir))
}

pub fn run_with(config: Config) -> Running {
    let recovered: Recovered = recovery::recover(&config.dir).unwrap();
    let snapshot_seq = recovered.snapshot_seq;
    let published = Arc::clone(&recovered.published);
    let now_us = Arc::new(AtomicI64::new(START_US));
    let clock = Arc::clone(&now_us);
    let clock = Clock::from_fn(move || clock.load(Ordering::Relaxed));
    let (sender, market) = mpsc::channel(sequencer::MARKET_QUEUE_MAX);
    let (handle, ended) = sequencer::start(recovered, config, clock, sender).unwrap();
    Running { handle, published, market, now_us, snapshot_seq, ended }
}

impl Running {
    pub async fn list(&self) {
        self.handle.list(SYMBOLS.iter().map(|s| listing(s)).collect()).await.unwrap();
    }

    pub async fn hash(&self) -> String {
        self.handle.status().await.unwrap().state_hash
    }

    pub async fn stop(self) {
        let handle = self.handle.clone();
        tokio::task::spawn_blocking(move || handle.stop()).await.unwrap();
        let _dropped = tokio::time::timeout(DEADLINE, self.ended).await.unwrap();
    }
}

/// Applies records without any file.
pub fn in_memory(records: &[(u64, Record)]) -> Engine {
    let mut engine = Engine::new();
    let mut facts = Vec::new();
    for (n, (_, record)) in records.iter().enumerate() {
        engine.apply(n as u64 + 1, START_US + n as i64, record, &mut facts);
    }
    engine
}

/// The engine that the journal in a directory gives from genesis; what it passes must agree.
pub fn replayed(dir: &Path) -> Engine {
    replayed_from(dir, Engine::new())
}

/// The engine that the journal in a directory makes of one that has its first records.
pub fn replayed_from(dir: &Path, base: Engine) -> Engine {
    let mut run = Run::from_base(dir, base).unwrap();
    run.run(Until::END, &mut |_, _| {}).unwrap();
    assert!(run.checked.iter().all(|c| c.verdict == crate::replay::Verdict::Agrees));
    assert_eq!((run.fact_differs, run.outcomes_damaged.as_deref()), (None, None));
    run.engine
}
