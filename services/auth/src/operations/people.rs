//! Sessions as their owner sees them, and users as administrators do.

use super::{Client, Failure, Operations};
use crate::{
    domain::Email,
    store::{
        self, User, UserState,
        people::{self, Figures, Listed},
    },
};
use fafnir_platform::{
    Refusal, Result,
    audit::{self, Action, More as _},
    clock::SECOND_US,
    error::refusal_of,
};
use fafnir_proto::{
    client::Caller,
    id::{SessionId, UserId},
    reason::Reason,
    v1,
};

/// Sessions of a user that are listed.
const SESSIONS_LISTED_MAX: u32 = 500;
/// Who signed in so lately need not give the password again to delete the account.
const YOUNG_US: i64 = 10 * 60 * SECOND_US;
/// Longest text that users are searched by, in characters.
const QUERY_LEN_MAX: usize = 100;

fn no_such_user() -> Refusal {
    Refusal::not_found(Reason::USER_NOT_FOUND, "no such user")
}

impl Operations {
    /// A user's sessions that are alive, newest first.
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<Listed>> {
        let now_us = self.ctx.clock.now_us();
        self.db.read(move |tx| Ok(people::sessions_of(tx, user, now_us, SESSIONS_LISTED_MAX)?)).await
    }

    /// Ends a session of a user; one that has ended stays so.
    pub async fn revoke_session(&self, by: &Caller, user: UserId, session: SessionId) -> Result<()> {
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::SessionRevoke, by.clone(), user, now_us).with_detail(session);
        let revoke = move |tx: &mut dyn fafnir_platform::db::Tx| {
            let unknown = || Refusal::not_found(Reason::SESSION_NOT_FOUND, "no such session");
            people::session_began(tx, user, session)?.ok_or_else(unknown)?;
            if store::revoke_session(tx, session, now_us)? {
                audit::put(tx, &entry)?;
            }
            Ok(())
        };
        self.written(self.db.write(revoke).await)
    }

    /// Ends every session of a user, but for one. Answers how many.
    pub async fn revoke_sessions(&self, by: &Caller, user: UserId, except: Option<SessionId>) -> Result<u32> {
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::SessionRevoke, by.clone(), user, now_us);
        let revoke = move |tx: &mut dyn fafnir_platform::db::Tx| {
            store::user_by_id(tx, user)?.ok_or_else(no_such_user)?;
            let revoked = store::revoke_sessions(tx, user, except, now_us)?;
            audit::put(tx, &entry.clone().with_detail(format!("{revoked} sessions")))?;
            Ok(u32::try_from(revoked).unwrap_or(u32::MAX))
        };
        self.written(self.db.write(revoke).await)
    }

    /// What was written may have to be told: to the bus, to the audit log.
    pub(super) fn written<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_ok() {
            self.wake.notify();
            self.audit_wake.notify();
        }
        result
    }

    /// A page of users, and whether there are more.
    pub async fn search(
        &self,
        query: &str,
        state: &str,
        after: String,
        limit: u32,
    ) -> Result<(Vec<User>, bool)> {
        let query = query.trim();
        if query.chars().count() > QUERY_LEN_MAX {
            let text = format!("query must have at most {QUERY_LEN_MAX} characters");
            return Err(Refusal::invalid(Reason::QUERY_TOO_LONG, text).into());
        }
        let wanted = state.trim().to_ascii_uppercase();
        let known = UserState::ALL.into_iter().find(|s| s.as_str() == wanted);
        if known.is_none() && !wanted.is_empty() {
            let text = "state must be PENDING, ACTIVE, DEACTIVATED, CLOSING or DELETED";
            return Err(Refusal::invalid(Reason::USER_STATE_UNKNOWN, text).into());
        }
        let escaped = query.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let pattern = format!("%{escaped}%");
        let find = move |tx: &mut dyn fafnir_platform::db::Tx| {
            Ok(people::users_like(tx, &pattern, known, &after, limit + 1)?)
        };
        let mut users = self.db.read(find).await?;
        let more = users.len() > limit as usize;
        users.truncate(limit as usize);
        Ok((users, more))
    }

    /// Takes a user's access: sessions and keys end within a second, nobody signs in; again changes nothing. The last
    /// administrator keeps it.
    pub async fn deactivate(&self, by: &Caller, user: UserId) -> Result<()> {
        let known = self.user(user).await?.ok_or_else(no_such_user)?;
        match known.state {
            UserState::Active => {}
            UserState::Deactivated => return Ok(()),
            _ => return Err(no_such_user().into()),
        }
        // Two administrators who deactivate each other at once are told apart there.
        self.suspend(user).await?;
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::Deactivate, by.clone(), user, now_us);
        let deactivate = move |tx: &mut dyn fafnir_platform::db::Tx| {
            if store::move_user(tx, user, UserState::Active, UserState::Deactivated, now_us)? {
                store::revoke_sessions(tx, user, None, now_us)?;
                audit::put(tx, &entry)?;
            }
            Ok(())
        };
        self.written(self.db.write(deactivate).await)
    }

    /// Gives a user's access back; again changes nothing.
    pub async fn reactivate(&self, by: &Caller, user: UserId) -> Result<()> {
        let known = self.user(user).await?.ok_or_else(no_such_user)?;
        if !matches!(known.state, UserState::Active | UserState::Deactivated) {
            return Err(no_such_user().into());
        }
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::Reactivate, by.clone(), user, now_us);
        let reactivate = move |tx: &mut dyn fafnir_platform::db::Tx| {
            if store::move_user(tx, user, UserState::Deactivated, UserState::Active, now_us)? {
                audit::put(tx, &entry)?;
            }
            Ok(())
        };
        self.written(self.db.write(reactivate).await)?;
        // Also where an earlier try got no further than here.
        let request = v1::SuspendRequest { user_id: user.to_string() };
        self.ctx.clients.security(&self.ctx.system()).resume(request).await?;
        Ok(())
    }

    /// Refused for the last administrator: security-service knows, and has it count for nobody from then on.
    pub(super) async fn suspend(&self, user: UserId) -> Result<()> {
        let request = v1::SuspendRequest { user_id: user.to_string() };
        let asked = self.ctx.clients.security(&self.ctx.system()).suspend(request).await;
        asked.map(drop).map_err(|status| match refusal_of(&status) {
            Some(refusal) => refusal.into(),
            None => status.into(),
        })
    }

    pub async fn figures(&self) -> Result<Figures> {
        let now_us = self.ctx.clock.now_us();
        self.db.read(move |tx| Ok(people::figures(tx, now_us)?)).await
    }

    /// Whether a caller with a token may delete the account: it gives the password, or has signed in of late.
    pub async fn check_deletion(
        &self,
        user: UserId,
        session: SessionId,
        password: Option<&str>,
        client: &Client,
    ) -> Result<(), Failure> {
        let now_us = self.ctx.clock.now_us();
        let Some(password) = password else {
            let began = self.db.read(move |tx| Ok(people::session_began(tx, user, session)?)).await?;
            if began.is_some_and(|us| now_us.saturating_sub(us) < YOUNG_US) {
                return Ok(());
            }
            let text = "deleting the account needs the password: {\"password\": \"…\"}, or a sign-in of the last 10 minutes";
            return Err(
                Refusal::new(fafnir_platform::refusal::Kind::Denied, Reason::PASSWORD_NEEDED, text).into()
            );
        };
        let known = self.user(user).await?.ok_or_else(super::wrong_credentials)?;
        self.check_password(&Email::fold(&known.email), password, Some(known), client, Action::Delete)
            .await
            .map(drop)
    }

    /// A user with a new id, for whoever holds the data directory: the password must be one that is not guessed.
    pub async fn create(&self, new: crate::domain::NewUser, roles: &[String]) -> Result<UserId, Failure> {
        self.check_strength("password", &new.password, &new.email)?;
        let email = new.email.clone();
        let taken = self.db.read(move |tx| Ok(store::user_by_email(tx, &email)?.is_some())).await?;
        if taken {
            let text = "a user with this email exists already; an administrator can give it the role";
            return Err(Refusal::exists(Reason::EMAIL_TAKEN, text).into());
        }
        Ok(self.seed(UserId::new(uuid::Uuid::now_v7()), new, roles).await?.0)
    }

    /// Stores an entry of its own, where nothing else is written; a failure is told in the log alone.
    pub(super) async fn note(&self, entry: v1::AuditEntry) {
        let stored = self.db.write(move |tx| Ok(audit::put(tx, &entry)?)).await;
        if let Err(e) = self.written(stored) {
            tracing::error!(error = %e, "an entry of the audit log is lost");
        }
    }
}
