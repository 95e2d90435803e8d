//! The audit log: what came is appended and chained; read, and read through.

use super::{
    domain::audit::{Broken, Chain, Reading, Row},
    store::{
        self,
        audit::{Wanted, head},
    },
};
use fafnir_platform::{
    Context, Refusal, Result,
    db::{Db, Error, Tx},
    secrets,
};
use fafnir_proto::{
    deadline,
    id::UserId,
    reason::Reason,
    v1::{AuditEntry, AuditLogRequest, AuditRow, VerifyAuditReply, VerifyAuditRequest},
};
use std::sync::Arc;
use tokio::{sync::Mutex, time::timeout};

/// Rows of one page, and of a page without a size.
const ROWS_MAX: u32 = 1_000;
const ROWS_DEFAULT: u32 = 100;
/// Entries that are taken at a time.
const ENTRIES_MAX: usize = 1_000;
/// Bytes of each text of an entry.
const TEXT_LEN_MAX: usize = 1_024;
/// The file of the chain's key in the directory of secrets.
const KEY: &str = "audit_key";

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    db: Db,
    pub chain: Chain,
    /// Each entry is chained to the one before it: on a server two writers of one process would only send one another
    /// back to begin again.
    turn: Arc<Mutex<()>>,
}

impl Log {
    /// Opens it with its own key: who has the database alone cannot make another chain.
    pub fn open(ctx: &Context, db: Db) -> anyhow::Result<Self> {
        let key = secrets::secret(&ctx.settings.data_dir().join("secrets"), KEY)?;
        Ok(Self { db, chain: Chain::new(key.expose().as_bytes()), turn: Arc::default() })
    }

    #[cfg(test)]
    pub fn of(db: Db, key: &[u8]) -> Self {
        Self { db, chain: Chain::new(key), turn: Arc::default() }
    }

    /// Appends entries in their order; those that are there already change nothing.
    pub async fn record(&self, entries: Vec<AuditEntry>) -> Result<()> {
        if entries.len() > ENTRIES_MAX {
            let text = format!("entries must have at most {ENTRIES_MAX} elements");
            return Err(Refusal::invalid(Reason::TEXT_TOO_LONG, text).into());
        }
        if entries.iter().flat_map(texts).any(|text| text.len() > TEXT_LEN_MAX) {
            let text = format!("each text of an entry must have at most {TEXT_LEN_MAX} bytes");
            return Err(Refusal::invalid(Reason::TEXT_TOO_LONG, text).into());
        }
        let chain = self.chain.clone();
        let append = move |tx: &mut dyn Tx| {
            entries.iter().try_for_each(|entry| Ok(store::audit::append(tx, &chain, entry)?))
        };
        self.write(append).await
    }

    /// Does what appends to the log, when it is its turn.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = timeout(deadline::at_most(deadline::STORE), self.turn.lock()).await;
        let _turn = turn.map_err(|_| Error::Busy("too much is being written to the audit log".into()))?;
        self.db.write(work).await
    }

    /// A page of rows.
    pub async fn rows(&self, request: AuditLogRequest) -> Result<Vec<Row>> {
        let limit = if request.limit == 0 { ROWS_DEFAULT } else { request.limit.min(ROWS_MAX) };
        let subject = match request.user_id.as_str() {
            "" => String::new(),
            id => UserId::parse(id)
                .map_err(|_| Refusal::invalid(Reason::ID_MALFORMED, "user_id must be a UUID"))?
                .to_string(),
        };
        let wanted = Wanted { action: request.action, subject };
        let read = move |tx: &mut dyn Tx| {
            if request.forward {
                return Ok(store::audit::after(tx, request.after, limit, &wanted)?);
            }
            let before = if request.before == 0 { i64::MAX as u64 } else { request.before };
            Ok(store::audit::before(tx, before, limit, &wanted)?)
        };
        self.db.read(read).await
    }

    /// Reads the whole log as it now stands. `known`: a row that somebody wrote down, which must still be there.
    pub async fn verify(&self, known: VerifyAuditRequest) -> Result<VerifyAuditReply> {
        let (head, newest) = self
            .db
            .read(|tx| {
                let newest = store::audit::before(tx, i64::MAX as u64, 1, &Wanted::default())?;
                Ok((head(tx)?, newest.first().map_or(0, |row| row.seq)))
            })
            .await?;
        let mut reading = Reading::default();
        // Rows are only ever added: page by page the log is the same that it was in one piece.
        let broken = 'read: loop {
            let after = reading.seq;
            let page = self
                .db
                .read(move |tx| Ok(store::audit::after(tx, after, ROWS_MAX, &Wanted::default())?))
                .await?;
            let page: Vec<_> = page.into_iter().filter(|row| row.seq <= head.seq).collect();
            if page.is_empty() {
                let is_more = newest > head.seq;
                let end = if is_more {
                    Err(Broken::End { head: head.seq, found: newest })
                } else {
                    reading.end(&head)
                };
                break end.err();
            }
            for row in &page {
                if let Err(broken) = reading.take(&self.chain, row) {
                    break 'read Some(broken);
                }
                if row.seq == known.seq && row.hash != known.hash {
                    break 'read Some(Broken::Hash { seq: row.seq });
                }
            }
        };
        let is_short = known.seq > reading.seq && broken.is_none();
        let broken =
            if is_short { Some(Broken::End { head: known.seq, found: reading.seq }) } else { broken };
        Ok(VerifyAuditReply {
            sound: broken.is_none(),
            seq: reading.seq,
            hash: reading.hash,
            broken: broken.map_or_else(String::new, |b| b.to_string()),
        })
    }
}

fn texts(e: &AuditEntry) -> [&str; 9] {
    [&e.id, &e.action, &e.outcome, &e.actor, &e.subject, &e.source, &e.trace, &e.detail, &e.key_id]
}

/// A row as the contract has it.
pub fn wire(row: Row) -> AuditRow {
    let entry = AuditEntry {
        id: row.id,
        time_us: row.time_us,
        action: row.action,
        outcome: row.outcome,
        actor: row.actor,
        subject: row.subject,
        source: row.source,
        trace: row.trace,
        detail: row.detail,
        key_id: row.key_id,
    };
    AuditRow { seq: row.seq, entry: Some(entry), hash: row.hash }
}
