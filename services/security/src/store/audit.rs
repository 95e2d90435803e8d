//! The tables of the audit log. Rows are only ever added.

use crate::domain::audit::{Chain, GENESIS, Reading, Row};
use fafnir_platform::{
    db::{Error, Row as Columns, Tx},
    params,
};
use fafnir_proto::v1::AuditEntry;

const COLUMNS: &str =
    "seq, id, time_us, action, outcome, actor, subject, source, trace, detail, key_id, hash";

fn row(r: &Columns) -> Result<Row, Error> {
    Ok(Row {
        seq: r.get(0)?,
        id: r.get(1)?,
        time_us: r.get(2)?,
        action: r.get(3)?,
        outcome: r.get(4)?,
        actor: r.get(5)?,
        subject: r.get(6)?,
        source: r.get(7)?,
        trace: r.get(8)?,
        detail: r.get(9)?,
        key_id: r.get(10)?,
        hash: r.get(11)?,
    })
}

/// Where the log ends; its beginning where nothing was written.
pub fn head(tx: &mut dyn Tx) -> Result<Reading, Error> {
    let found = tx.query_opt("SELECT seq, hash FROM audit_head WHERE id = 1", &[])?;
    found.map_or(Ok(Reading::default()), |r| Ok(Reading { seq: r.get(0)?, hash: r.get(1)? }))
}

/// Appends an entry; one that is there already changes nothing.
pub fn append(tx: &mut dyn Tx, chain: &Chain, entry: &AuditEntry) -> Result<(), Error> {
    if tx.query_opt("SELECT seq FROM audit_log WHERE id = ?1", params![&entry.id])?.is_some() {
        return Ok(());
    }
    // The head is written first: of two writers on a server one waits here, or is sent back to begin again.
    tx.execute(
        "INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, ?1) ON CONFLICT (id) DO NOTHING",
        params![&GENESIS[..]],
    )?;
    tx.execute("UPDATE audit_head SET seq = seq + 1 WHERE id = 1", &[])?;
    let head = head(tx)?;
    let mut row = Row {
        seq: head.seq,
        id: entry.id.clone(),
        time_us: entry.time_us,
        action: entry.action.clone(),
        outcome: entry.outcome.clone(),
        actor: entry.actor.clone(),
        subject: entry.subject.clone(),
        source: entry.source.clone(),
        trace: entry.trace.clone(),
        detail: entry.detail.clone(),
        key_id: entry.key_id.clone(),
        hash: Vec::new(),
    };
    row.hash = chain.hash(&head.hash, &row);
    tx.execute(
        &format!(
            "INSERT INTO audit_log ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        ),
        params![
            row.seq,
            &row.id,
            row.time_us,
            &row.action,
            &row.outcome,
            &row.actor,
            &row.subject,
            &row.source,
            &row.trace,
            &row.detail,
            &row.key_id,
            row.hash.clone(),
        ],
    )?;
    tx.execute("UPDATE audit_head SET hash = ?1 WHERE id = 1", params![row.hash])?;
    Ok(())
}

/// What of the log is asked for; empty texts ask for everything.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub action: String,
    pub subject: String,
}

/// Rows after a number, oldest first.
pub fn after(tx: &mut dyn Tx, seq: u64, limit: u32, wanted: &Wanted) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_log WHERE seq > ?1 AND (?3 = '' OR action = ?3) \
         AND (?4 = '' OR subject = ?4 OR actor = ?5) ORDER BY seq LIMIT ?2"
    );
    let actor = format!("user {}", wanted.subject);
    let rows = tx.query(&sql, params![seq, limit, &wanted.action, &wanted.subject, actor])?;
    rows.iter().map(row).collect()
}

/// Rows before a number, newest first.
pub fn before(tx: &mut dyn Tx, seq: u64, limit: u32, wanted: &Wanted) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_log WHERE seq < ?1 AND (?3 = '' OR action = ?3) \
         AND (?4 = '' OR subject = ?4 OR actor = ?5) ORDER BY seq DESC LIMIT ?2"
    );
    let actor = format!("user {}", wanted.subject);
    let rows = tx.query(&sql, params![seq, limit, &wanted.action, &wanted.subject, actor])?;
    rows.iter().map(row).collect()
}
