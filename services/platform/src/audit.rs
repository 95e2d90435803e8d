//! The audit log as the acting services write it: an entry is stored with the change that it tells of, in the same
//! transaction, and handed to security-service afterwards, which chains it.
//!
//! An entry names people by their ids alone: the log is never rewritten, so nothing personal may stand in it.

use super::{
    context::Context,
    db::{Db, Error, Tx, audit_outbox},
    error,
    tasks::{Next, Schedule, Wake},
};
use fafnir_proto::{
    client::{self, Caller},
    trace::Trace,
    v1::{AuditEntry, RecordRequest},
};
use prost::Message as _;
use std::{fmt, net::IpAddr, time::Duration};
use uuid::Uuid;

/// Entries handed over at a time.
const BATCH: u32 = 256;
/// The safety net behind [`Wake`].
const POLL: Duration = Duration::from_secs(1);
/// Characters of the words beside an entry.
const DETAIL_LEN_MAX: usize = 256;

macro_rules! actions {
    ($($(#[doc = $meaning:literal])+ $name:ident = $text:literal,)+) => {
        /// What was done, or asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As it stands in the log.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

actions! {
    /// A user came to be.
    Register = "user.register",
    /// A sign-in, or its refusal.
    SignIn = "session.open",
    /// An address has to wait before it tries again.
    Throttle = "session.throttle",
    /// A sign-out.
    SignOut = "session.close",
    /// A session was ended by its user, from another one, or by an administrator.
    SessionRevoke = "session.revoke",
    /// A refresh token came twice: its session was ended.
    RefreshReuse = "session.reuse",
    /// A new password, or its refusal.
    Password = "user.password",
    /// A user asked to be deleted.
    Delete = "user.delete",
    /// An administrator took a user's access.
    Deactivate = "user.deactivate",
    /// An administrator gave it back.
    Reactivate = "user.reactivate",
    /// An API key was made.
    KeyCreate = "key.create",
    /// An API key was revoked.
    KeyRevoke = "key.revoke",
    /// A role was given.
    RoleGrant = "role.grant",
    /// A role was taken.
    RoleRevoke = "role.revoke",
    /// An account was opened.
    AccountOpen = "account.open",
    /// An account was closed.
    AccountClose = "account.close",
    /// Money came in.
    Deposit = "money.deposit",
    /// Money went out.
    Withdraw = "money.withdraw",
    /// Money went from one account to another.
    Transfer = "money.transfer",
    /// What a symbol does was changed.
    MarketState = "market.state",
    /// The volatility band of a symbol was changed.
    MarketBand = "market.band",
    /// The simulated market was told something about a symbol.
    MarketNews = "market.news",
    /// A recorded market was paused, or went on.
    MarketPlayback = "market.playback",
    /// Every order in a symbol was canceled.
    MarketCancel = "market.cancel",
}

/// The outcome of what was done.
pub const OK: &str = "OK";
/// The outcome of what is about to be tried; another entry with the same `detail` tells what became of it.
pub const ASKED: &str = "ASKED";

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    Caller(Caller),
    /// Nobody who is known: a refused sign-in.
    Nobody,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(caller) => caller.fmt(f),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

impl From<Caller> for Actor {
    fn from(caller: Caller) -> Self {
        Self::Caller(caller)
    }
}

/// An entry of now, with trace and address of the request under way.
#[must_use]
pub fn entry(action: Action, actor: impl Into<Actor>, subject: impl fmt::Display, now_us: i64) -> AuditEntry {
    let origin = client::origin();
    AuditEntry {
        id: Uuid::now_v7().to_string(),
        time_us: now_us,
        action: action.name().to_owned(),
        outcome: OK.to_owned(),
        actor: actor.into().to_string(),
        subject: subject.to_string(),
        trace: origin.trace.map_or_else(String::new, Trace::id_text),
        source: origin.address.map_or_else(String::new, |ip| ip.to_canonical().to_string()),
        ..AuditEntry::default()
    }
}

/// What an entry may say beside that.
pub trait More {
    /// A refusal's machine code, in place of OK.
    #[must_use]
    fn with_outcome(self, outcome: &str) -> Self;
    /// Where it came from.
    #[must_use]
    fn at_address(self, ip: IpAddr) -> Self;
    /// Words about it: ids, numbers and names of ours, nothing that a user wrote.
    #[must_use]
    fn with_detail(self, detail: impl fmt::Display) -> Self;
}

impl More for AuditEntry {
    fn with_outcome(mut self, outcome: &str) -> Self {
        outcome.clone_into(&mut self.outcome);
        self
    }

    fn at_address(mut self, ip: IpAddr) -> Self {
        self.source = ip.to_canonical().to_string();
        self
    }

    fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = detail.to_string().chars().filter(|c| !c.is_control()).take(DETAIL_LEN_MAX).collect();
        self
    }
}

/// Stores an entry, in the transaction of what it tells of. A closure that runs again stores the same entry once: its id is
/// made outside.
pub fn put(tx: &mut dyn Tx, entry: &AuditEntry) -> Result<(), Error> {
    audit_outbox::put(tx, entry.encode_to_vec())
}

/// Hands over what is in the outbox, in order, until shutdown; an entry goes when security-service has it on disk. `wake`
/// tells of a commit after which there may be something to hand over.
pub fn spawn_relay(ctx: &Context, db: Db, wake: Wake) {
    let (name, this) = (format!("{}: audit relay", ctx.service), ctx.clone());
    ctx.tasks.every(name, Schedule::at_once(POLL).or_on(&wake), move || {
        let (db, ctx) = (db.clone(), this.clone());
        async move {
            Ok::<_, error::Error>(Next::at_once_if(relay_once(&ctx, &db).await? == u64::from(BATCH)))
        }
    });
}

async fn relay_once(ctx: &Context, db: &Db) -> error::Result<u64> {
    let rows = db.read(|tx| Ok(audit_outbox::first(tx, BATCH)?)).await?;
    let Some(last) = rows.last().map(|(id, _)| *id) else { return Ok(0) };
    let entries: Vec<_> = rows
        .iter()
        .map(|(_, bytes)| AuditEntry::decode(&bytes[..]).map_err(|e| error::Error::internal(e.to_string())))
        .collect::<error::Result<_>>()?;
    ctx.clients.security(&ctx.system()).record(RecordRequest { entries }).await?;
    // Everything up to the last that was read: what came meanwhile has a greater number.
    db.write_anyway(move |tx| Ok(audit_outbox::delete_through(tx, last)?)).await?;
    Ok(rows.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_names_of_their_own_and_words_are_bounded() {
        let names: std::collections::BTreeSet<_> = Action::ALL.iter().map(|a| a.name()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        let entry = entry(Action::SignIn, Actor::Nobody, "", 1).with_detail("a\nb".repeat(1_000));
        assert_eq!((entry.detail.len(), entry.detail.contains('\n')), (DETAIL_LEN_MAX, false));
    }
}
