//! What the exchange answers: commands through the core's thread, the rest from what is published or by a bounded question.

use super::{
    hash::hex,
    image::{self, Orders},
    inbox::Room,
    message::Names,
    published::Published,
    refusal,
    request::{self, Class, Scope},
    sequencer::Handle,
};
use fafnir_clearing::command::{Command, Instruction};
use fafnir_platform::{
    Error, Refusal,
    disk::{Disk, Stage},
    error::disk_full,
};
use fafnir_proto::{
    client, deadline,
    reason::Reason,
    trace::Trace,
    v1::{self, execute_reply::Outcome},
};
use fafnir_rules::symbol::Symbol;
use prost::Message as _;
use std::sync::Arc;
use tonic::Status;
use uuid::Uuid;

/// Facts in one answer, and their bytes.
const FACTS_MAX: usize = 8_192;
const FACTS_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Open orders in one answer, and accounts.
const ORDERS_MAX: usize = 1_000;
const ACCOUNTS_MAX: usize = 500;

/// The exchange as its doors see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub engine: Handle,
    pub published: Arc<Published>,
    pub disk: Disk,
}

fn limit(asked: u32, max: usize) -> usize {
    match asked as usize {
        0 => max,
        n => n.min(max),
    }
}

fn id_or_none(field: &str, text: &str) -> Result<Option<Uuid>, Refusal> {
    let malformed = |_| Refusal::invalid(Reason::ID_MALFORMED, format!("{field} must be a UUID"));
    if text.is_empty() { Ok(None) } else { Uuid::parse_str(text).map(Some).map_err(malformed) }
}

/// One line for each order that came in.
fn tell_placed(reply: &v1::ExecuteReply) {
    let Some(Outcome::Done(done)) = &reply.outcome else { return };
    for order in done.order.iter().chain(&done.others).filter(|_| !done.known) {
        let (trace, position) = (client::trace_id(), reply.position);
        tracing::debug!(
            order = order.id,
            trace,
            symbol = order.symbol,
            state = order.state().name(),
            position,
            "stepped"
        );
    }
}

impl Exchange {
    /// One command. A refusal is an answer; a status says that nobody knows yet: the outcome is found by its id.
    ///
    /// # Errors
    /// The engine is stopping, or too slow: the command may be in the journal.
    pub async fn execute(&self, command: &v1::Command) -> Result<v1::ExecuteReply, Status> {
        let mut command = match request::parse(command) {
            Ok(command) => command,
            Err(refused) => return Ok(self.refused(refused)),
        };
        command.trace = client::origin().trace.map(Trace::to_bytes);
        let class = request::class(&command.instruction);
        if let Err(refused) = self.admit(class) {
            return Ok(self.refused(refused));
        }
        let scope = Scope::of(&command.instruction);
        let places = matches!(command.instruction, Instruction::New(_) | Instruction::NewGroup(_));
        let room = if class == Class::Cancel { Room::Cancel } else { Room::Common };
        match tokio::time::timeout(deadline::at_most(deadline::ANSWER), self.engine.execute(room, command))
            .await
        {
            Ok(Ok(reply)) => {
                let reply = self.published.with_names(|names| reply.message(names, scope));
                if places {
                    tell_placed(&reply);
                }
                Ok(reply)
            }
            Ok(Err(refused)) if refused.reason == Reason::ENGINE_STOPPED => Err(refused.into()),
            Ok(Err(refused)) => Ok(self.refused(refused)),
            Err(_) => Err(Status::deadline_exceeded("the engine is too slow; ask again with the same id")),
        }
    }

    /// Whether a command of a class is taken, as the records and the disk stand.
    fn admit(&self, class: Class) -> Result<(), Refusal> {
        if self.disk.is_unwritten() {
            let message = "the engine's records cannot be written; try again";
            return Err(Refusal::unavailable(Reason::JOURNAL_UNWRITABLE, message));
        }
        let stage = self.disk.stage();
        if stage == Stage::ReadOnly {
            return Err(disk_full());
        }
        if class != Class::Change {
            return Ok(());
        }
        let why = if stage == Stage::CancelOnly {
            "the disk has little room"
        } else if self.published.followers.is_cancel_only() {
            "the records of orders and money are behind"
        } else {
            return Ok(());
        };
        let message = format!("{why}: only cancels are accepted now");
        Err(Refusal::exhausted(Reason::CANCEL_ONLY, message))
    }

    /// What keeps the exchange from taking everything, or soon will.
    pub fn notice(&self) -> String {
        let behind = "the records of orders and money are behind: only cancels are taken";
        let behind = self.published.followers.is_cancel_only().then(|| behind.to_owned());
        // An alarm is less than what is not taken.
        self.disk.trouble().or(behind).or_else(|| self.disk.notice()).unwrap_or_default()
    }

    fn refused(&self, refused: Refusal) -> v1::ExecuteReply {
        let outcome = Some(Outcome::Refused(refusal::message(refused)));
        v1::ExecuteReply { position: self.published.stepped(), outcome }
    }

    /// A command of the engine's own.
    ///
    /// # Errors
    /// It was not journaled, or it was refused.
    pub async fn own(&self, instruction: Instruction) -> Result<(), Refusal> {
        let command = Command { user: Uuid::nil(), agent: false, id: None, trace: None, instruction };
        let reply = self.engine.execute(Room::Own, command).await?;
        match reply.answer {
            fafnir_clearing::fact::Answer::Refused(refused) => Err(refusal::of(&refused, Scope::Money)),
            _ => Ok(()),
        }
    }

    /// What happened after a position; notes where the follower is that asks.
    ///
    /// # Errors
    /// The fact log cannot be read.
    pub async fn facts(&self, request: v1::FactsRequest) -> Result<v1::FactsReply, Error> {
        if !request.follower.is_empty() {
            self.published.followers.note(&request.follower, request.after);
        }
        if request.after <= self.published.stepped() {
            // What was stepped, and may be told by `Position`, is in the fact log a moment later.
            let mut recorded = self.published.watch();
            let there = recorded.wait_for(|last| *last >= request.after);
            let _late = tokio::time::timeout(deadline::at_most(deadline::POSITION), there).await;
        }
        let limit = limit(request.limit, FACTS_MAX);
        let published = Arc::clone(&self.published);
        let read = move || published.facts_after(request.after, limit, FACTS_BYTES_MAX);
        let is_in_memory = self.published.recent_first().is_some_and(|first| first <= request.after + 1)
            || request.after >= self.published.recorded();
        let page = if is_in_memory {
            read()
        } else {
            tokio::task::spawn_blocking(read).await.map_err(|e| Error::internal(e.to_string()))?
        };
        let page = page.map_err(|e| Error::internal(e.to_string()))?;
        let facts = page.facts.iter().map(|fact| v1::Fact::decode(fact.payload.clone()));
        let facts = facts
            .collect::<Result<_, _>>()
            .map_err(|e| Error::internal(format!("a stored fact is no Fact: {e}")))?;
        let exchange = self.published.exchange().to_string();
        Ok(v1::FactsReply { facts, last: page.last, oldest: page.oldest, exchange })
    }

    /// Where a user stands.
    ///
    /// # Errors
    /// The id is none.
    pub fn position(&self, request: &v1::PositionRequest) -> Result<v1::PositionReply, Refusal> {
        let last = self.published.stepped();
        let position = match id_or_none("user_id", &request.user_id)? {
            None => last,
            Some(user) => self.published.position_of(user),
        };
        let limited = self.admit(Class::Change).is_err();
        Ok(v1::PositionReply { position, last, notice: self.notice(), limited })
    }

    /// Open orders in the order of their ids.
    ///
    /// # Errors
    /// An id is none; the engine is busy or stopping.
    pub async fn open_orders(&self, request: v1::OpenOrdersRequest) -> Result<v1::OpenOrdersReply, Refusal> {
        let asked = Orders {
            user: id_or_none("user_id", &request.user_id)?,
            symbol: request.symbol,
            after: id_or_none("after_id", &request.after_id)?.unwrap_or_default(),
            limit: limit(request.limit, ORDERS_MAX),
        };
        let published = Arc::clone(&self.published);
        let read =
            move |state: &_| published.with_names(|names: &Names| image::open_orders(state, names, &asked));
        self.engine.query(read).await
    }

    /// What the core holds.
    ///
    /// # Errors
    /// The id is none; the engine is busy or stopping.
    pub async fn image(&self, request: &v1::ImageRequest) -> Result<v1::ImageReply, Refusal> {
        let after = id_or_none("after_account_id", &request.after_account_id)?.unwrap_or_default();
        let limit = limit(request.limit, ACCOUNTS_MAX);
        let published = Arc::clone(&self.published);
        let read = move |state: &_| {
            published.with_names(|names: &Names| image::accounts(state, names, after, limit))
        };
        self.engine.query(read).await
    }

    /// Levels and orders of a book; `None` for a symbol that is not listed.
    ///
    /// # Errors
    /// The engine is busy or stopping.
    pub async fn depth(&self, request: v1::DepthRequest) -> Result<Option<v1::DepthReply>, Refusal> {
        let Ok(symbol) = Symbol::parse(&request.symbol) else { return Ok(None) };
        let read = move |state: &fafnir_clearing::State| {
            let market = state.market(&symbol)?;
            Some(image::depth(state, market, request.levels as usize, request.orders as usize))
        };
        self.engine.query(read).await
    }

    /// Where an order stands in its queue; `None` where it does not rest.
    ///
    /// # Errors
    /// The engine is busy or stopping.
    pub async fn queue_position(&self, order: Uuid) -> Result<Option<v1::QueuePositionReply>, Refusal> {
        self.engine.query(move |state| image::queue_position(state, order)).await
    }

    /// Where an open order stands, resting or held, and what its market does.
    ///
    /// # Errors
    /// The engine is busy or stopping.
    pub async fn standing(&self, order: Uuid) -> Result<Option<v1::OrderStanding>, Refusal> {
        self.engine.query(move |state| image::standing(state, order)).await
    }

    /// Where the exchange stands.
    ///
    /// # Errors
    /// The engine is busy or stopping.
    pub async fn status(&self) -> Result<v1::EngineStatusReply, Refusal> {
        let snapshot = self.published.snapshot();
        let read = move |state: &fafnir_clearing::State| v1::EngineStatusReply {
            journal_seq: state.seq(),
            state_hash: hex(&snapshot.hash),
            open_orders: state.open_orders() as u64,
            trades: state.markets().iter().map(fafnir_clearing::market::Market::trade_no).sum(),
            snapshot_seq: snapshot.seq,
            position: state.position(),
            accounts: state.open_accounts() as u64,
            ..Default::default()
        };
        let mut status = self.engine.query(read).await?;
        status.skipped = self.published.skipped();
        status.cancel_only = self.admit(Class::Change).is_err();
        status.notice = self.notice();
        let follower = |(name, position): (String, u64)| v1::FollowerPosition { name, position };
        status.followers = self.published.followers.positions().into_iter().map(follower).collect();
        Ok(status)
    }
}
