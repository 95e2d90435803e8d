//! An exchange in a directory of its own, and commands as the doors send them.

use crate::{
    exchange::{
        api::Exchange,
        recovery::{self, Error},
        sequencer::{self, Config},
    },
    sequencer::{MARKET_QUEUE_MAX, Market},
};
use fafnir_clearing::{command::Instruction, terms::Rules};
use fafnir_platform::Clock;
use fafnir_proto::v1::{self, command::What, execute_reply::Outcome};
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
/// How long a volatility pause lasts.
pub const PAUSE_US: i64 = 120_000_000;

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
        volatility_pause_us: PAUSE_US,
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
    let (sender, market) = mpsc::channel(MARKET_QUEUE_MAX);
    let (engine, ended) = sequencer::start(recovered, config, clock, sender).unwrap();
    Ok(Running { exchange: Exchange { engine, published }, market, now_us, base, ended })
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
    What::SetInstrument(v1::SetInstrumentCommand {
        instrument: Some(v1::Instrument {
            symbol: symbol.to_owned(),
            currency: "USD".to_owned(),
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
        let mut facts: Vec<v1::Fact> = Vec::new();
        while facts.last().map_or(after, |f| f.position) < wanted {
            let at = facts.last().map_or(after, |f| f.position);
            let request = v1::FactsRequest { after: at, limit: 100, follower: String::new() };
            let page = self.exchange.facts(request).await.unwrap();
            assert!(page.oldest <= after + 1);
            if page.facts.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
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
pub fn hash_of(state: &fafnir_clearing::State) -> [u8; 32] {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    crate::state::sha256(&bytes)
}
