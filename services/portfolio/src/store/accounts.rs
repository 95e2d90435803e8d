//! Accounts, idempotency keys, exchange rates.

use crate::domain::{Account, AccountKey, Currency, Kind, State};
use fafnir_platform::{
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::id::{AccountId, UserId};

const COLUMNS: &str = "key, id, user_id, kind, currency, number, state, created_us, updated_us";
/// Account numbers count from here, so that each has ten digits.
const NUMBER_BASE: i64 = 4_000_000_000;

/// A new account as it is stored first.
#[derive(Debug, Clone, Copy)]
pub struct NewAccount {
    pub id: AccountId,
    pub user: UserId,
    pub kind: Kind,
    pub currency: Currency,
}

fn account(row: &Row) -> Result<Option<Account>, Error> {
    let Some(user) = row.get::<Option<UserId>>(2)? else { return Ok(None) };
    let defect = |what: &str| Error::Statement(format!("an account has no valid {what}"));
    Ok(Some(Account {
        key: row.get(0)?,
        id: row.get(1)?,
        user,
        kind: Kind::of_number(row.get(3)?).ok_or_else(|| defect("kind"))?,
        currency: Currency::parse(&row.get::<String>(4)?).ok_or_else(|| defect("currency"))?,
        number: row.get(5)?,
        state: State::of_number(row.get(6)?).ok_or_else(|| defect("state"))?,
        created_us: row.get(7)?,
        updated_us: row.get(8)?,
    }))
}

/// A client's account by its key; a house account answers `None`.
pub fn account_by_key(tx: &mut dyn Tx, key: AccountKey) -> Result<Option<Account>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM account WHERE key = ?1");
    tx.query_opt(&sql, params![key])?.map_or(Ok(None), |row| account(&row))
}

/// A client's account by its id, whoever owns it.
pub fn account_by_id(tx: &mut dyn Tx, id: AccountId) -> Result<Option<Account>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM account WHERE id = ?1");
    tx.query_opt(&sql, params![id])?.map_or(Ok(None), |row| account(&row))
}

/// The accounts of a user, oldest first, closed ones left out.
pub fn accounts_of(tx: &mut dyn Tx, user: UserId) -> Result<Vec<Account>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM account WHERE user_id = ?1 AND state <> 2 ORDER BY key");
    let rows = tx.query(&sql, params![user])?;
    rows.iter().filter_map(|row| account(row).transpose()).collect()
}

/// Accounts that close when their last hold has ended.
pub fn accounts_closing(tx: &mut dyn Tx, limit: u32) -> Result<Vec<Account>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM account WHERE state = 1 ORDER BY key LIMIT ?1");
    let rows = tx.query(&sql, params![limit])?;
    rows.iter().filter_map(|row| account(row).transpose()).collect()
}

/// Every account that a user ever had.
pub fn accounts_count(tx: &mut dyn Tx, user: UserId) -> Result<u64, Error> {
    tx.query_one("SELECT COUNT(*) FROM account WHERE user_id = ?1", params![user])?.get(0)
}

/// Stores a new account of a user.
pub fn account_insert(tx: &mut dyn Tx, new: NewAccount, now_us: i64) -> Result<Account, Error> {
    let key: i64 = tx.query_one("SELECT COALESCE(MAX(key), 0) + 1 FROM account", &[])?.get(0)?;
    let number = (NUMBER_BASE + key).to_string();
    tx.execute(
        "INSERT INTO account (key, id, user_id, house, kind, currency, number, state, created_us, updated_us) \
         VALUES (?1, ?2, ?3, NULL, ?4, ?5, ?6, 0, ?7, ?7)",
        params![key, new.id, new.user, new.kind.number(), new.currency.code(), &number, now_us],
    )?;
    Ok(Account {
        key,
        id: new.id,
        user: new.user,
        kind: new.kind,
        currency: new.currency,
        number,
        state: State::Open,
        created_us: now_us,
        updated_us: now_us,
    })
}

/// Moves an account on in its life.
pub fn account_set_state(tx: &mut dyn Tx, key: AccountKey, state: State, now_us: i64) -> Result<(), Error> {
    tx.execute(
        "UPDATE account SET state = ?2, updated_us = ?3 WHERE key = ?1",
        params![key, state.number(), now_us],
    )?;
    Ok(())
}

/// The key of a house account by its name, made where it is missing (issuer:SYMBOL).
pub fn house_account(tx: &mut dyn Tx, name: &str, now_us: i64) -> Result<AccountKey, Error> {
    if let Some(row) = tx.query_opt("SELECT key FROM account WHERE house = ?1", params![name])? {
        return row.get(0);
    }
    let key: i64 = tx.query_one("SELECT COALESCE(MAX(key), 0) + 1 FROM account", &[])?.get(0)?;
    let mut bytes = [0; 16];
    bytes[..5].copy_from_slice(b"house");
    bytes[10..].copy_from_slice(&key.to_be_bytes()[2..]);
    let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    tx.execute(
        "INSERT INTO account (key, id, user_id, house, kind, currency, number, state, created_us, updated_us) \
         VALUES (?1, ?2, NULL, ?3, ?4, '', ?5, 0, ?6, ?6)",
        params![key, id, name, Kind::House.number(), format!("HOUSE-{key}"), now_us],
    )?;
    Ok(key)
}

/// What was answered to a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeated {
    /// The key is new.
    No,
    /// The same request was answered with this.
    Same(String),
    /// The key was used for another request.
    Different,
}

/// Looks an idempotency key up. `owner` is a user id, or empty for the platform.
pub fn idempotency(tx: &mut dyn Tx, owner: &str, key: &str, request: &[u8]) -> Result<Repeated, Error> {
    let row = tx.query_opt(
        "SELECT request, answer FROM idempotency WHERE owner = ?1 AND key = ?2",
        params![owner, key],
    )?;
    let Some(row) = row else { return Ok(Repeated::No) };
    let same = row.get::<Vec<u8>>(0)? == request;
    Ok(if same { Repeated::Same(row.get(1)?) } else { Repeated::Different })
}

/// Remembers the answer to a request with an idempotency key.
pub fn idempotency_put(
    tx: &mut dyn Tx,
    owner: &str,
    key: &str,
    request: &[u8],
    answer: &str,
    now_us: i64,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO idempotency (owner, key, request, answer, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![owner, key, request, answer, now_us],
    )?;
    Ok(())
}

/// Records the exchange rate where it is not the newest one already, answers its id.
pub fn rate_ensure(tx: &mut dyn Tx, usd_cad_micros: i64, now_us: i64) -> Result<i64, Error> {
    let newest = tx.query_opt("SELECT id, usd_cad_micros FROM fx_rate ORDER BY id DESC LIMIT 1", &[])?;
    let id = match newest {
        Some(row) if row.get::<i64>(1)? == usd_cad_micros => return row.get(0),
        Some(row) => row.get::<i64>(0)? + 1,
        None => 1,
    };
    tx.execute(
        "INSERT INTO fx_rate (id, usd_cad_micros, created_us) VALUES (?1, ?2, ?3)",
        params![id, usd_cad_micros, now_us],
    )?;
    Ok(id)
}

/// A recorded exchange rate: micros of CAD for one USD.
pub fn rate(tx: &mut dyn Tx, id: i64) -> Result<i64, Error> {
    tx.query_one("SELECT usd_cad_micros FROM fx_rate WHERE id = ?1", params![id])?.get(0)
}
