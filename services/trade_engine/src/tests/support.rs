//! An exchange in a directory of its own, and commands as the doors send them.

use crate::{
    exchange::Exchange,
    market::{self, Market},
    recovery::{self, Error},
    replay::{Run, Until, Verdict},
    sequencer::{self, Config},
};
use fafnir_clearing::{State, command::Instruction, terms::Rules};
use fafnir_platform::{Clock, rng::Rng};
use fafnir_proto::v1::{self, command::What, execute_reply::Outcome};
use fafnir_rules::calendar::Calendar;
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

/// Nothing in a test takes longer.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const START_US: i64 = 1_800_000_000_000_000;
/// How long a volatility pause lasts, and within which time it ends then.
pub const PAUSE_US: i64 = 120_000_000;
pub const PAUSE_END_US: i64 = 30_000_000;

/// A running exchange whose clock the test moves.
pub struct Running {
    pub exchange: Exchange,
    pub market: mpsc::Receiver<Market>,
    pub now_us: Arc<AtomicI64>,
    /// Command of the snapshot that it began with.
    pub base: u64,
    ended: oneshot::Receiver<()>,
}

pub fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        snapshot_every_commands: u64::MAX,
        snapshot_every_us: i64::MAX / 4,
        journal_keep_all: false,
        facts_keep_all: false,
        calendar: Calendar::Always,
        disk: fafnir_platform::disk::Disk::default(),
    }
}

pub fn run(dir: &Path) -> Running {
    run_with(config(dir)).unwrap()
}

pub fn run_with(config: Config) -> Result<Running, Error> {
    let recovered = recovery::recover(&config.dir)?;
    let base = recovered.base;
    let published = Arc::clone(&recovered.published);
    let now_us = Arc::new(AtomicI64::new(START_US));
    let clock = Arc::clone(&now_us);
    let clock = Clock::from_fn(move || clock.load(Ordering::Relaxed));
    let (sender, market) = mpsc::channel(market::QUEUE_MAX);
    let (engine, ended) = sequencer::start(recovered, config, clock, sender).unwrap();
    Ok(Running {
        exchange: Exchange { engine, published, disk: fafnir_platform::disk::Disk::default() },
        market,
        now_us,
        base,
        ended,
    })
}

pub fn order_id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x0dde, number)
}

pub fn account_id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0xacc0, number)
}

pub fn user_id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x05e4, number)
}

/// A command of a user with an id of its own.
pub fn command(user: u64, id: u64, what: What) -> v1::Command {
    v1::Command {
        id: u128::from(id).to_be_bytes().to_vec(),
        user_id: user_id(user).to_string(),
        key: None,
        what: Some(what),
    }
}

/// A command of a user under a client's key.
pub fn keyed(user: u64, key: &str, looked_until: u64, what: What) -> v1::Command {
    let payload = vec![7; 16];
    let key = Some(v1::RequestKey { key: key.to_owned(), payload, looked_until });
    v1::Command { id: Vec::new(), user_id: user_id(user).to_string(), key, what: Some(what) }
}

pub fn listing(symbol: &str) -> What {
    listing_in(symbol, "USD")
}

pub fn listing_in(symbol: &str, currency: &str) -> What {
    What::SetInstrument(v1::SetInstrumentCommand {
        instrument: Some(v1::Instrument {
            symbol: symbol.to_owned(),
            currency: currency.to_owned(),
            tick_e4: 100,
            lot_e4: 10_000,
            state: v1::TradingState::Open.into(),
            previous_close_e4: 1_000_000,
            version: 1,
            ..Default::default()
        }),
    })
}

pub fn open_account(account: u64, opening: bool) -> What {
    What::OpenAccount(v1::OpenAccountCommand {
        account_id: account_id(account).to_string(),
        r#type: v1::AccountType::Investment.into(),
        currency: "USD".to_owned(),
        opening_deposit: opening,
    })
}

/// Whole units.
pub fn deposit(account: u64, amount: i64) -> What {
    What::Deposit(v1::DepositCommand {
        account_id: account_id(account).to_string(),
        amount_micros: amount * 1_000_000,
        currency: "USD".to_owned(),
    })
}

pub fn endow(account: u64, symbol: &str, shares: i64) -> What {
    What::Endow(v1::EndowCommand {
        account_id: account_id(account).to_string(),
        symbol: symbol.to_owned(),
        quantity_e4: shares * 10_000,
        cost_price_e4: 1_000_000,
        ..Default::default()
    })
}

/// A GTC limit order; price in cents, quantity in shares.
pub fn limit(order: u64, symbol: &str, side: v1::Side, shares: i64, cents: i64) -> What {
    What::Place(v1::PlaceCommand {
        order_id: order_id(order).to_string(),
        symbol: symbol.to_owned(),
        side: side.into(),
        r#type: v1::OrderType::Limit.into(),
        time_in_force: v1::TimeInForce::Gtc.into(),
        quantity_e4: shares * 10_000,
        price_e4: cents * 100,
        ..Default::default()
    })
}

pub fn cancel(order: u64) -> What {
    What::Cancel(v1::CancelCommand { order_id: order_id(order).to_string() })
}

pub fn done(reply: v1::ExecuteReply) -> v1::Done {
    match reply.outcome {
        Some(Outcome::Done(done)) => done,
        other => panic!("not done: {other:?}"),
    }
}

pub fn refused(reply: v1::ExecuteReply) -> v1::Refused {
    match reply.outcome {
        Some(Outcome::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

impl Running {
    pub async fn execute(&self, command: v1::Command) -> v1::ExecuteReply {
        self.exchange.execute(&command).await.unwrap()
    }

    /// A command of the system.
    pub async fn own(&self, what: What) -> v1::ExecuteReply {
        self.execute(v1::Command { what: Some(what), ..Default::default() }).await
    }

    /// Rules, a listing, and two users with an account, cash and shares each.
    pub async fn set_up(&self) {
        for instruction in [
            Instruction::SetRules(Rules { opening: 500_000_000, ..Rules::default() }),
            Instruction::SetFees { maker_bp: 1, taker_bp: 2 },
            Instruction::SetRate { usd_cad: 1_370_000 },
        ] {
            self.exchange.own(instruction).await.unwrap();
        }
        done(self.own(listing("AAPL")).await);
        for user in 1..=2 {
            done(self.execute(command(user, 1_000 + user, open_account(user, true))).await);
            done(self.execute(command(user, 1_010 + user, deposit(user, 100_000))).await);
            done(self.execute(command(user, 1_020 + user, endow(user, "AAPL", 1_000))).await);
        }
    }

    /// Every fact after a position; they have no gap.
    pub async fn facts(&self, after: u64) -> Vec<v1::Fact> {
        let wanted = self.exchange.published.stepped();
        let mut recorded = self.exchange.published.watch();
        let reached = recorded.wait_for(|last| *last >= wanted);
        tokio::time::timeout(DEADLINE, reached).await.expect("facts are recorded").map(drop).unwrap();
        let mut facts: Vec<v1::Fact> = Vec::new();
        while facts.last().map_or(after, |f| f.position) < wanted {
            let at = facts.last().map_or(after, |f| f.position);
            let request = v1::FactsRequest { after: at, limit: 100, follower: String::new() };
            let page = self.exchange.facts(request).await.unwrap();
            assert!(page.oldest <= after + 1);
            assert!(!page.facts.is_empty(), "what is recorded is found");
            for fact in page.facts {
                assert_eq!(fact.position, facts.last().map_or(after, |f| f.position) + 1);
                facts.push(fact);
            }
        }
        facts
    }

    /// The hash of the state as it is now.
    pub async fn hash(&self) -> [u8; 32] {
        self.exchange.engine.query(hash_of).await.unwrap()
    }

    pub async fn stop(self) {
        self.exchange.engine.stop();
        let _dropped = tokio::time::timeout(DEADLINE, self.ended).await.unwrap();
    }
}

/// The hash of a state.
pub fn hash_of(state: &State) -> [u8; 32] {
    crate::replay::hash(state)
}

pub const SYMBOLS: [&str; 3] = ["AAPL", "MSFT", "SHOP"];
/// Users of the commands at random; each has an account with its number, and one in CAD with 100 more.
pub const USERS: u64 = 8;
/// Every so many commands there is one about a group, whose exits have ids from another number on.
const GROUPS_EVERY: u64 = 6;
const EXITS_FROM: u64 = 1 << 40;

/// Every command that a door may send, the same for the same seed; those of a number below `n` come again now and then.
pub fn random_commands(seed: u64, count: u64) -> Vec<v1::Command> {
    let mut r = Rng::new(seed);
    let mut commands: Vec<v1::Command> = Vec::new();
    for n in 1..=count {
        let user = 1 + r.below(USERS);
        let what = match r.below(100) {
            _ if n % GROUPS_EVERY == 0 => random_group(&mut r, n),
            0..52 => random_order(&mut r, n),
            52..70 => cancel(1 + r.below(n)),
            70..82 => What::Replace(v1::ReplaceCommand {
                order_id: order_id(1 + r.below(n)).to_string(),
                quantity_e4: r.below(30) as i64 * 10_000,
                price_e4: if r.below(2) == 0 { 0 } else { (9_950 + r.below(100) as i64) * 100 },
                ..Default::default()
            }),
            82..95 => random_money(&mut r, n, user),
            95 => What::CancelAll(v1::CancelAllCommand { symbol: String::new() }),
            96 => What::Flatten(v1::FlattenCommand {
                symbol: SYMBOLS[r.index(3)].to_owned(),
                order_id: order_id(n).to_string(),
                ..Default::default()
            }),
            97 => {
                let again = commands.get(r.index(commands.len().max(1))).cloned();
                commands.push(again.unwrap_or_else(|| command(user, n, cancel(1))));
                continue;
            }
            _ => {
                let what = random_reference(&mut r, n);
                commands.push(v1::Command { what: Some(what), ..Default::default() });
                continue;
            }
        };
        let changes =
            matches!(what, What::Cancel(_) | What::CancelGroup(_) | What::Replace(_) | What::CancelAll(_));
        let is_keyed = !changes && r.below(4) == 0;
        let key = format!("key {n}");
        commands.push(if is_keyed { keyed(user, &key, 0, what) } else { command(user, n, what) });
    }
    commands
}

fn random_order(r: &mut Rng, n: u64) -> What {
    let side = if r.below(2) == 0 { v1::Side::Buy } else { v1::Side::Sell };
    let around = |r: &mut Rng| (9_950 + r.below(100) as i64) * 100;
    let mut place = v1::PlaceCommand {
        order_id: order_id(n).to_string(),
        symbol: SYMBOLS[r.index(3)].to_owned(),
        side: side.into(),
        r#type: v1::OrderType::Limit.into(),
        time_in_force: v1::TimeInForce::Gtc.into(),
        quantity_e4: (1 + r.below(30) as i64) * 10_000,
        price_e4: around(r),
        stp: 1 + r.below(4) as i32,
        ..Default::default()
    };
    match r.below(12) {
        0 => {
            place.set_type(v1::OrderType::Market);
            place.set_time_in_force(v1::TimeInForce::Ioc);
            place.price_e4 = 0;
        }
        1 => place.set_time_in_force(v1::TimeInForce::Ioc),
        2 => place.set_time_in_force(v1::TimeInForce::Fok),
        3 => place.set_time_in_force(v1::TimeInForce::Day),
        4 => {
            place.set_time_in_force(v1::TimeInForce::Gtd);
            place.expires_us = START_US + 86_400_000_000;
        }
        5 => place.post_only = true,
        6 => place.display_quantity_e4 = 10_000,
        7 => {
            place.set_type(v1::OrderType::Stop);
            place.stop_price_e4 = std::mem::take(&mut place.price_e4);
        }
        8 => {
            place.set_type(v1::OrderType::StopLimit);
            place.stop_price_e4 = around(r);
        }
        9 => {
            place.set_type(v1::OrderType::TrailingStop);
            (place.price_e4, place.trail_amount_e4) = (0, 500);
        }
        _ => {}
    }
    What::Place(place)
}

/// Ids of a group and of its orders, the entry's the first.
pub fn group_id(n: u64) -> Uuid {
    Uuid::from_u64_pair(0x60, n)
}

/// A group by the number of its command, or something with an earlier one or an exit of it.
fn random_group(r: &mut Rng, n: u64) -> What {
    let earlier = GROUPS_EVERY * (1 + r.below(n / GROUPS_EVERY));
    let leg = |n: u64, at: u64| order_id(if at == 0 { n } else { EXITS_FROM + 2 * n + at });
    let around = 9_950 + r.below(100) as i64;
    match r.below(8) {
        0 => return What::CancelGroup(v1::CancelGroupCommand { group_id: group_id(earlier).to_string() }),
        1 => {
            let order_id = leg(earlier, 1 + r.below(2)).to_string();
            return What::Cancel(v1::CancelCommand { order_id });
        }
        2 => {
            return What::Replace(v1::ReplaceCommand {
                order_id: leg(earlier, 1).to_string(),
                price_e4: (around + 20) * 100,
                ..Default::default()
            });
        }
        _ => {}
    }
    let kind =
        [v1::GroupKind::Bracket, v1::GroupKind::Bracket, v1::GroupKind::Oto, v1::GroupKind::Oco][r.index(4)];
    let (symbol, quantity_e4) = (SYMBOLS[r.index(3)].to_owned(), (1 + r.below(20) as i64) * 10_000);
    let stp = 1 + r.below(4) as i32;
    let order = |at, side: v1::Side, order_type: v1::OrderType| v1::PlaceCommand {
        order_id: leg(n, at).to_string(),
        symbol: symbol.clone(),
        side: side.into(),
        r#type: order_type.into(),
        time_in_force: v1::TimeInForce::Gtc.into(),
        quantity_e4,
        stp,
        ..Default::default()
    };
    let entry = v1::PlaceCommand { price_e4: around * 100, ..order(0, v1::Side::Buy, v1::OrderType::Limit) };
    let (sell, limit) = (v1::Side::Sell, v1::OrderType::Limit);
    let target = |at| v1::PlaceCommand { price_e4: (around + 15) * 100, ..order(at, sell, limit) };
    let stop = v1::PlaceCommand { stop_price_e4: (around - 15) * 100, ..order(2, sell, v1::OrderType::Stop) };
    let orders = match kind {
        v1::GroupKind::Oco => vec![target(0), stop],
        v1::GroupKind::Oto => vec![entry, stop],
        _ => vec![entry, target(1), stop],
    };
    What::PlaceGroup(v1::PlaceGroupCommand { group_id: group_id(n).to_string(), kind: kind.into(), orders })
}

fn random_money(r: &mut Rng, n: u64, user: u64) -> What {
    let account = |number: u64| account_id(number).to_string();
    let amount_micros = 1 + r.below(5_000_000_000) as i64;
    let (usd, cad) = ("USD".to_owned(), "CAD".to_owned());
    match r.below(8) {
        0..3 => What::Deposit(v1::DepositCommand { account_id: account(user), amount_micros, currency: usd }),
        3 => What::Withdraw(v1::WithdrawCommand { account_id: account(user), amount_micros, currency: usd }),
        4 => What::Transfer(v1::TransferCommand {
            from_account_id: account(user),
            to_account_id: account(100 + user),
            amount_micros,
            currency: usd,
        }),
        5 => What::Transfer(v1::TransferCommand {
            from_account_id: account(100 + user),
            to_account_id: account(user),
            amount_micros,
            currency: cad,
        }),
        6 => What::OpenAccount(v1::OpenAccountCommand {
            account_id: account(1_000 + n),
            r#type: 1 + r.below(3) as i32,
            currency: cad,
            opening_deposit: r.below(2) == 0,
        }),
        _ => What::CloseAccount(v1::CloseAccountCommand { account_id: account(1_000 + r.below(n)) }),
    }
}

fn random_reference(r: &mut Rng, n: u64) -> What {
    let symbol = SYMBOLS[r.index(3)].to_owned();
    let state = match r.below(6) {
        0 => v1::TradingState::Halted,
        1 => v1::TradingState::Auction,
        _ => v1::TradingState::Open,
    };
    if r.below(3) > 0 {
        return What::SetState(v1::SetStateCommand { symbol, state: state.into(), reason: String::new() });
    }
    let mut what = listing_in(&symbol, if symbol == "SHOP" { "CAD" } else { "USD" });
    if let What::SetInstrument(set) = &mut what
        && let Some(instrument) = &mut set.instrument
    {
        instrument.version = n + 1;
        instrument.volatility_band_bps = r.below(200) as u32;
    }
    what
}

/// Commands before those at random: what they need is there.
pub const PRELUDE: u64 = 3 + 3 + USERS * 5;

impl Running {
    /// Rules, three listings, users with two accounts, cash and shares.
    pub async fn prelude(&self) {
        for instruction in [
            Instruction::SetRules(Rules { opening: 500_000_000, recent_ids: 500, ..Rules::default() }),
            Instruction::SetFees { maker_bp: 1, taker_bp: 2 },
            Instruction::SetRate { usd_cad: 1_370_000 },
        ] {
            self.exchange.own(instruction).await.unwrap();
        }
        for (symbol, currency) in [("AAPL", "USD"), ("MSFT", "USD"), ("SHOP", "CAD")] {
            done(self.own(listing_in(symbol, currency)).await);
        }
        for user in 1..=USERS {
            let as_user = |what| v1::Command {
                user_id: user_id(user).to_string(),
                what: Some(what),
                ..Default::default()
            };
            for (account, currency) in [(user, "USD"), (100 + user, "CAD")] {
                let mut open = open_account(account, true);
                if let What::OpenAccount(open) = &mut open {
                    open.currency = currency.to_owned();
                }
                done(self.execute(as_user(open)).await);
            }
            for symbol in SYMBOLS {
                done(self.execute(as_user(endow(user, symbol, 1_000))).await);
            }
        }
    }

    /// Sends commands so that they are journaled in this order, and waits for their answers.
    pub async fn feed(&self, commands: &[v1::Command]) {
        let replies = commands.iter().map(|c| self.exchange.execute(c));
        for reply in futures_of(replies).await {
            reply.unwrap();
        }
    }

    /// Commands that are in the journal.
    pub async fn seq(&self) -> u64 {
        self.exchange.engine.query(State::seq).await.unwrap()
    }
}

/// Polls futures in their order, to their end.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut ended: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, ended) in futures.iter_mut().zip(&mut ended) {
            if ended.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *ended = Some(output);
            }
        }
        if ended.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    ended.into_iter().flatten().collect()
}

/// The state that the journal in a directory gives from genesis; what it passes must agree.
pub fn replayed(dir: &Path) -> State {
    replayed_from(dir, State::new())
}

/// The state that the journal in a directory makes of one that has its first commands.
pub fn replayed_from(dir: &Path, base: State) -> State {
    let mut run = Run::from_base(dir, base).unwrap();
    run.run(Until::END, &mut |_, _| {}).unwrap();
    assert!(run.checked.iter().all(|c| c.verdict == Verdict::Agrees));
    assert_eq!((run.fact_differs, run.facts_damaged.as_deref()), (None, None));
    run.state
}
