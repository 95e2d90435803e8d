//! What clients do with money and the market, for the audit log: what is asked for stands there before it is tried, what
//! became of it afterwards.
//!
//! The exchange and the books have no table of their own into which an entry could go with the change, so it goes first: a
//! request that cannot be written down changes nothing. It waits for security-service no longer than for any other.

use super::{Gateway, session::Session};
use fafnir_platform::{
    Error,
    audit::{ASKED, Action, More as _, OK, entry},
    context::retry,
    error::refusal_of,
};
use fafnir_proto::v1::{AuditEntry, RecordRequest};
use std::{fmt, time::Duration};
use tonic::Status;

/// How long it is tried to write down what became of a request.
const OUTCOME_WITHIN: Duration = Duration::from_mins(1);

impl Gateway {
    /// Does something that the audit log must tell of. `subject` is what it is about, `detail` its numbers.
    pub async fn audited<T>(
        &self,
        session: &Session,
        action: Action,
        subject: impl fmt::Display,
        detail: impl fmt::Display,
        act: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let entry_of = |outcome: &str| AuditEntry {
            key_id: session.key.as_ref().map_or_else(String::new, |key| key.id.clone()),
            ..entry(action, session.caller(), &subject, self.ctx.clock.now_us())
                .with_detail(&detail)
                .with_outcome(outcome)
        };
        let mut security = self.ctx.clients.security(&self.ctx.system());
        let asked = RecordRequest { entries: vec![entry_of(ASKED)] };
        security.record(asked).await.inspect_err(|e| {
            tracing::warn!(cause = e.message(), action = action.name(), "refused, it cannot be written down");
        })?;
        let done = act.await;
        let outcome = match &done {
            Ok(_) => OK.to_owned(),
            Err(status) => match refusal_of(status) {
                Some(refusal) => refusal.reason.to_string(),
                // Nobody knows: it may have had its effect.
                None => format!("{:?}", status.code()).to_uppercase(),
            },
        };
        self.tell(entry_of(&outcome));
        done
    }

    /// Writes down what became of a request; nobody waits for it.
    fn tell(&self, entry: AuditEntry) {
        let (ctx, request) = (self.ctx.clone(), RecordRequest { entries: vec![entry] });
        self.ctx.tasks.spawn("audit entry", async move {
            let told = retry(OUTCOME_WITHIN, || {
                let (mut security, request) = (ctx.clients.security(&ctx.system()), request.clone());
                async move { Ok::<_, Error>(security.record(request).await.map(drop)?) }
            });
            let stopping = ctx.tasks.shutdown().clone();
            let told = tokio::select! {
                told = told => told,
                // A last try has been made already.
                () = stopping.cancelled() => Ok(()),
            };
            if let Err(e) = told {
                tracing::error!(error = %e, "what became of a request is not in the audit log");
            }
            Ok::<(), std::convert::Infallible>(())
        });
    }
}

/// An amount as people read it.
pub fn money(micros: i64, currency: &str) -> String {
    format!("{} {currency}", fafnir_rules::money::format_fixed(micros, 6, 2))
}
