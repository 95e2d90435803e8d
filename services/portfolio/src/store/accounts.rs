//! Accounts, idempotency keys, exchange rates, the position.

use crate::domain::{Account, Currency};
use fafnir_platform::{
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::id::{AccountId, UserId};

const COLUMNS: &str = "key, id, user_id, kind, currency, number, closed, created_us, updated_us";

fn account(row: &Row) -> Result<Account, Error> {
    let currency: String = row.get(4)?;
    Ok(Account {
        key: row.get(0)?,
        id: row.get(1)?,
        user: row.get(2)?,
        kind: row.get(3)?,
        currency: Currency::parse(&currency)
            .ok_or_else(|| Error::Statement(format!("an account is in {currency:?}")))?,
        number: row.get(5)?,
        closed: row.get(6)?,
        created_us: row.get(7)?,
        updated_us: row.get(8)?,
    })
}

/// A client's account by its id, whoever owns it, closed or not.
pub fn account_by_id(tx: &mut dyn Tx, id: AccountId) -> Result<Option<Account>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM account WHERE id = ?1 AND user_id IS NOT NULL");
    tx.query_opt(&sql, params![id])?.map(|row| account(&row)).transpose()
}

/// The accounts of a user, oldest first, closed ones left out.
pub fn accounts_of(tx: &mut dyn Tx, user: UserId) -> Result<Vec<Account>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM account WHERE user_id = ?1 AND closed = 0 ORDER BY key");
    tx.query(&sql, params![user])?.iter().map(account).collect()
}

/// What a request with a key did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Hash of what was asked for.
    pub payload: Vec<u8>,
    /// The account that it made or changed.
    pub object_id: String,
    /// Deposit and withdrawal: the account's cash after it.
    pub amount_micros: i64,
    /// Position of its first fact.
    pub at: u64,
}

/// What a key stands for. `owner` is a user id, or empty for the platform.
pub fn answered(tx: &mut dyn Tx, owner: &str, key: &str) -> Result<Option<Answered>, Error> {
    let row = tx.query_opt(
        "SELECT payload, object_id, amount_micros, at FROM idempotency WHERE owner = ?1 AND key = ?2",
        params![owner, key],
    )?;
    row.map(|row| {
        Ok(Answered {
            payload: row.get(0)?,
            object_id: row.get(1)?,
            amount_micros: row.get(2)?,
            at: row.get(3)?,
        })
    })
    .transpose()
}

/// The newest exchange rate: micros of CAD for one USD; 0 before the first.
pub fn usd_cad(tx: &mut dyn Tx) -> Result<i64, Error> {
    let newest = tx.query_opt("SELECT usd_cad_micros FROM fx_rate ORDER BY id DESC LIMIT 1", &[])?;
    newest.map_or(Ok(0), |row| row.get(0))
}

/// Position of the last fact in the books.
pub fn position(tx: &mut dyn Tx) -> Result<u64, Error> {
    tx.query_one("SELECT at FROM projection", &[])?.get(0)
}

/// Trades in the books.
pub fn trades(tx: &mut dyn Tx) -> Result<u64, Error> {
    tx.query_one("SELECT trades FROM projection", &[])?.get(0)
}
