//! The start: recovery, the configuration's numbers into the journal, what goes out.

use super::{
    exchange::Exchange,
    followers::Limits,
    market::{self, Market},
    published::Published,
    recovery,
    sequencer::{self, Config},
    standing::{self, Notes},
    steady::steady,
};
use anyhow::Context as _;
use fafnir_clearing::{
    State,
    command::Instruction,
    terms::{Fees, Rules},
};
use fafnir_platform::{
    Clock, Context, Error,
    clock::SECOND_US,
    config::Settings,
    manifest::{Entry, Manifest},
    tasks::{Next, Schedule},
};
use fafnir_rules::money::parse_micros;
use parking_lot::Mutex;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How often it is judged who is behind, and how often it is told again.
const JUDGE_EVERY: Duration = Duration::from_millis(500);
/// How often it is noted how far journal and fact log are.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// When the files are first looked through after a start, and how often from then on.
const LOOK_FIRST: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_hours(24);

/// The exchange as it was started.
#[derive(Debug)]
pub struct Started {
    pub exchange: Exchange,
    /// Resolves when the core's thread has ended.
    pub ended: oneshot::Receiver<()>,
    pub market: mpsc::Receiver<Market>,
    /// How far it is; taken at the stop.
    pub notes: Arc<Mutex<Option<Notes>>>,
}

/// Recovers the exchange in a directory and starts its threads.
pub async fn start(ctx: &Context, dir: &Path) -> anyhow::Result<Started> {
    let (recovered, entry) = {
        let (dir, data_dir, now_us) = (dir.to_owned(), ctx.settings.data_dir(), ctx.clock.now_us());
        let recover = move || -> anyhow::Result<_> {
            let entry = standing::claim(&data_dir, &dir, now_us)?;
            Ok((recovery::recover(&dir)?, entry))
        };
        tokio::task::spawn_blocking(recover).await??
    };
    if let Some(cut) = &recovered.cut {
        let file = cut.path.display();
        tracing::warn!(%file, bytes = cut.bytes, why = %cut.bad, "a torn tail of the journal was cut");
    }
    tracing::info!(
        commands = recovered.state.seq(),
        position = recovered.state.position(),
        replayed = recovered.replayed,
        open_orders = recovered.state.open_orders(),
        accounts = recovered.state.open_accounts(),
        "the exchange stands"
    );
    let wanted = Wanted::of(&ctx.settings)?;
    let news = wanted.differs(&recovered.state);
    let settings = &ctx.settings.engine;
    let config = Config {
        dir: dir.to_owned(),
        snapshot_every_commands: settings.snapshot_every_commands.max(1),
        snapshot_every_us: i64::try_from(settings.snapshot_every_s)
            .unwrap_or(i64::MAX)
            .saturating_mul(SECOND_US),
        journal_keep_all: settings.journal_keep == "all",
        facts_keep_all: settings.facts_keep == "all",
        disk: ctx.disk.clone(),
        calendar: settings.calendar(),
    };
    let published = Arc::clone(&recovered.published);
    let notes = notes(ctx, &entry, &published)?;
    let (market, messages) = mpsc::channel(market::QUEUE_MAX);
    let clock = steady(ctx.clock.clone(), recovered.state.time_us());
    let (engine, ended) = sequencer::start(recovered, config, clock.clone(), market)?;
    let exchange = Exchange { engine, published, disk: ctx.disk.clone() };
    for instruction in news {
        exchange
            .own(instruction)
            .await
            .map_err(|e| anyhow::anyhow!(e.message))
            .context("the configuration's numbers are refused")?;
    }
    judge(ctx, &exchange, clock);
    Ok(Started { exchange, ended, market: messages, notes })
}

/// The exchange is there: it has its id, and is noted once a second from here on.
fn notes(
    ctx: &Context,
    entry: &Entry,
    published: &Arc<Published>,
) -> anyhow::Result<Arc<Mutex<Option<Notes>>>> {
    published.set_exchange(entry.id);
    let data_dir = ctx.settings.data_dir();
    if !entry.made {
        Manifest::of(&data_dir).made(standing::STORE, entry.id)?;
    }
    let notes = Notes::open(&data_dir, entry.id, Arc::clone(published))?;
    let notes = Arc::new(Mutex::new(Some(notes)));
    let held = Arc::clone(&notes);
    ctx.tasks.every("notes of the journal", Schedule::after(NOTE_EVERY), move || {
        std::future::ready(held.lock().as_mut().map_or(Ok(()), Notes::write))
    });
    Ok(notes)
}

/// Looks through the exchange's files once it has started and once a day.
pub fn look(ctx: &Context, dir: &Path) {
    let (dir, health) = (dir.to_owned(), ctx.health.clone());
    ctx.tasks.every("look at the exchange's files", Schedule::after(LOOK_FIRST), move || {
        let (dir, health) = (dir.clone(), health.clone());
        async move {
            let found = tokio::task::spawn_blocking(move || standing::look(&dir)).await;
            if let Err(why) = found.unwrap_or_else(|e| Err(e.to_string())) {
                tracing::error!("{why}: restore a backup with `fafnir restore`");
                metrics::gauge!("fafnir_store_damaged", "service" => super::SERVICE.name).set(1.0);
                health.damaged(&why);
            }
            Ok::<_, Error>(Next::After(LOOK_EVERY))
        }
    });
}

/// Judges who is behind until shutdown.
fn judge(ctx: &Context, exchange: &Exchange, clock: Clock) {
    let published = Arc::clone(&exchange.published);
    let settings = &ctx.settings.engine;
    let limits = Limits {
        behind_us: i64::from(settings.behind_s_max).saturating_mul(SECOND_US),
        behind_facts: settings.behind_facts_max,
    };
    let health = ctx.health.clone();
    ctx.tasks.every("lag of the followers", Schedule::after(JUDGE_EVERY), move || {
        let (behind, is_other) = published.followers.judge(limits, clock.now_us(), published.recorded());
        match &behind {
            Some(b) => {
                let why = format!("{} is behind with its records: only cancels are taken", b.follower);
                health.lacks("followers", &why);
            }
            None => health.has("followers"),
        }
        match behind {
            Some(b) if is_other => tracing::error!(
                follower = b.follower,
                position = b.position,
                last = b.last,
                "a follower is too far behind: only cancels are accepted"
            ),
            None if is_other => tracing::warn!("the followers have caught up: orders are accepted again"),
            _ => {}
        }
        std::future::ready(Ok::<(), Error>(()))
    });
}

/// What the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    rules: Rules,
    fees: Fees,
    usd_cad: i64,
}

impl Wanted {
    /// Reads the settings under the names that they have always had.
    pub fn of(settings: &Settings) -> anyhow::Result<Self> {
        let amount = |name: &str, text: &str| {
            parse_micros(text).map_err(|e| anyhow::anyhow!("{name}: {text:?}: {e:?}"))
        };
        let (engine, portfolio) = (&settings.engine, &settings.portfolio);
        Ok(Self {
            rules: Rules {
                opening: amount("portfolio.opening_deposit", &portfolio.opening_deposit)?,
                open_orders_max: settings.order.open_orders_max,
                deposit_max: amount("engine.deposit_max", &engine.deposit_max)?,
                deposits_per_day_max: amount("engine.deposits_per_day_max", &engine.deposits_per_day_max)?,
                account_max: amount("engine.account_max", &engine.account_max)?,
                recent_ids: engine.recent_ids,
                volatility_pause_us: i64::from(engine.volatility_pause_s).saturating_mul(SECOND_US),
                volatility_end_us: i64::from(engine.volatility_end_s).saturating_mul(SECOND_US),
            },
            fees: Fees { maker_bp: portfolio.maker_fee_bp, taker_bp: portfolio.taker_fee_bp },
            usd_cad: amount("portfolio.usd_cad", &portfolio.usd_cad)?,
        })
    }

    /// What must be journaled so that a state computes with it.
    pub fn differs(&self, state: &State) -> Vec<Instruction> {
        let is = state.terms();
        let mut news = Vec::new();
        if is.rules != self.rules {
            news.push(Instruction::SetRules(self.rules));
        }
        if is.fees_id == 0 || is.fees != self.fees {
            news.push(Instruction::SetFees { maker_bp: self.fees.maker_bp, taker_bp: self.fees.taker_bp });
        }
        if is.rate_id == 0 || is.usd_cad != self.usd_cad {
            news.push(Instruction::SetRate { usd_cad: self.usd_cad });
        }
        news
    }
}
