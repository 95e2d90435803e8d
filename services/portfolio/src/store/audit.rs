//! The whole ledger at once: sums and invariants (exchange-rules §6), counts, and what is pruned.

use crate::domain::{AccountKey, ledger::POSTINGS_MAX};
use fafnir_platform::{
    db::{Error, Tx},
    params,
};
use uuid::Uuid;

/// An open hold: order, cash (micros), shares (e4).
pub type OpenHold = (Uuid, i64, i64);

/// What [`audit`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Per asset the sum over all accounts, house included; each must be 0.
    pub sums: Vec<(String, i64)>,
    pub transactions: u64,
    pub unbalanced: u64,
    pub negative_available: u64,
    /// Balances whose held amount differs from their open holds.
    pub hold_mismatches: u64,
    /// Balances that differ from the sum of their postings.
    pub balance_mismatches: u64,
    pub open_holds: Vec<OpenHold>,
}

/// Reads the whole ledger.
pub fn audit(tx: &mut dyn Tx, open_holds_max: u32) -> Result<Audit, Error> {
    let rows = tx.query(
        "SELECT a.code, CAST(SUM(b.posted) AS BIGINT) FROM balance b JOIN asset a ON a.key = b.asset \
         GROUP BY a.code ORDER BY a.code",
        &[],
    )?;
    let sums = rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect::<Result<_, Error>>()?;
    let count = |tx: &mut dyn Tx, sql: &str| -> Result<u64, Error> { tx.query_one(sql, &[])?.get(0) };
    let transactions = count(tx, "SELECT COUNT(*) FROM ledger")?;
    let unbalanced = tx
        .query_one(
            "SELECT COUNT(*) FROM (SELECT 1 AS one FROM posting GROUP BY id / ?1, asset HAVING SUM(amount) <> 0) AS u",
            params![POSTINGS_MAX],
        )?
        .get(0)?;
    let negative_available = count(tx, "SELECT COUNT(*) FROM balance WHERE client = 1 AND posted < held")?;
    let hold_mismatches = count(
        tx,
        "SELECT COUNT(*) FROM balance b JOIN account c ON c.key = b.account JOIN asset a ON a.key = b.asset \
         WHERE b.held <> COALESCE((SELECT SUM(h.held) FROM hold h WHERE h.account = b.account AND h.closed_us IS NULL \
           AND ((h.side = 2 AND h.symbol = b.asset) OR (h.side = 1 AND a.code = c.currency))), 0)",
    )?;
    let balance_mismatches = count(
        tx,
        "SELECT COUNT(*) FROM balance b LEFT JOIN \
           (SELECT account, asset, SUM(amount) AS total FROM posting GROUP BY account, asset) p \
           ON p.account = b.account AND p.asset = b.asset \
         WHERE b.posted <> COALESCE(p.total, 0)",
    )?;
    Ok(Audit {
        sums,
        transactions,
        unbalanced,
        negative_available,
        hold_mismatches,
        balance_mismatches,
        open_holds: open_holds(tx, open_holds_max)?,
    })
}

/// The open holds, oldest first.
pub fn open_holds(tx: &mut dyn Tx, limit: u32) -> Result<Vec<OpenHold>, Error> {
    let rows = tx.query(
        "SELECT order_id, side, held FROM hold WHERE closed_us IS NULL ORDER BY created_us, order_id LIMIT ?1",
        params![limit],
    )?;
    rows.iter()
        .map(|row| {
            let id = Uuid::from_slice(&row.get::<Vec<u8>>(0)?)
                .map_err(|_| Error::Statement("a hold's id is not 16 bytes".into()))?;
            let held: i64 = row.get(2)?;
            Ok(if row.get::<i32>(1)? == 1 { (id, held, 0) } else { (id, 0, held) })
        })
        .collect()
}

/// Whether an account has a hold that has not ended.
pub fn has_open_holds(tx: &mut dyn Tx, account: AccountKey) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM hold WHERE account = ?1 AND closed_us IS NULL LIMIT 1";
    Ok(tx.query_opt(sql, params![account])?.is_some())
}

/// A counter that [`super::Session::count`] keeps.
pub fn counter(tx: &mut dyn Tx, name: &str) -> Result<u64, Error> {
    let row = tx.query_opt("SELECT value FROM counter WHERE name = ?1", params![name])?;
    row.map_or(Ok(0), |row| row.get(0))
}

/// Forgets closed holds that ended before a time, at most `limit`; answers how many.
pub fn holds_prune(tx: &mut dyn Tx, closed_before_us: i64, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM hold WHERE order_id IN (SELECT order_id FROM hold \
         WHERE closed_us IS NOT NULL AND closed_us < ?1 ORDER BY closed_us LIMIT ?2)",
        params![closed_before_us, limit],
    )
}

/// Whether [`holds_prune`] would find something.
pub fn holds_prunable(tx: &mut dyn Tx, closed_before_us: i64) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM hold WHERE closed_us IS NOT NULL AND closed_us < ?1 LIMIT 1";
    Ok(tx.query_opt(sql, params![closed_before_us])?.is_some())
}
