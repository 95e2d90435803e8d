//! What is read: holdings, transactions, private updates.

use crate::domain::{
    Account, AssetKey, Balance,
    ledger::{Cause, POSTINGS_MAX},
    statement::Line,
};
use fafnir_platform::{
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::id::UserId;
use uuid::Uuid;

/// The cash of an account.
pub fn cash(tx: &mut dyn Tx, account: &Account) -> Result<Balance, Error> {
    Ok(balances(tx, account, Some(account.currency.asset()))?.pop().map(|b| b.2).unwrap_or_default())
}

/// The shares of an account, by symbol. What was sold out is left out; with `symbol` it is only those, and what was sold
/// out is there with what it gained in all.
pub fn holdings(
    tx: &mut dyn Tx,
    account: &Account,
    symbol: Option<&str>,
) -> Result<Vec<(String, Balance)>, Error> {
    let all = balances(tx, account, None)?;
    let is_asked = |(asset, code, balance): &(AssetKey, String, Balance)| {
        *asset != account.currency.asset()
            && symbol.map_or(balance.posted > 0, |s| s == code && balance.created_us > 0)
    };
    let mut found: Vec<_> = all.into_iter().filter(is_asked).map(|(_, code, b)| (code, b)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Reads a balance from a row, from column `first`.
fn balance_of(row: &Row, first: usize) -> Result<Balance, Error> {
    let id: Option<Vec<u8>> = row.get(first + 6)?;
    Ok(Balance {
        id: id.and_then(|id| Uuid::from_slice(&id).ok()),
        posted: row.get(first)?,
        held: row.get(first + 1)?,
        cost: row.get(first + 2)?,
        realized: row.get(first + 3)?,
        created_us: row.get(first + 4)?,
        updated_us: row.get(first + 5)?,
    })
}

fn balances(
    tx: &mut dyn Tx,
    account: &Account,
    asset: Option<AssetKey>,
) -> Result<Vec<(AssetKey, String, Balance)>, Error> {
    const ALL: &str = "SELECT b.asset, a.code, b.posted, b.held, b.cost, b.realized, b.created_us, b.updated_us, b.id \
                       FROM balance b JOIN asset a ON a.key = b.asset WHERE b.account = ?1";
    let rows = match asset {
        None => tx.query(ALL, params![account.key])?,
        Some(asset) => tx.query(&format!("{ALL} AND b.asset = ?2"), params![account.key, asset])?,
    };
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, balance_of(row, 2)?))).collect()
}

/// Which lines of an account are asked for: between two postings, both excluded.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    pub after: i64,
    pub before: i64,
    pub newest_first: bool,
    pub limit: u32,
}

/// Lines of an account: cash, and shares that came or went without a trade.
pub fn lines(tx: &mut dyn Tx, account: &Account, asked: Lines) -> Result<Vec<Line>, Error> {
    let cash = account.currency.asset();
    let order = if asked.newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT p.id, p.asset, p.amount, p.role, l.kind, l.time_us, l.price_e4, l.payer_ref, l.payee_ref, \
         COALESCE((SELECT s.amount FROM posting s WHERE s.id >= l.id * {POSTINGS_MAX} \
                   AND s.id < l.id * {POSTINGS_MAX} + {POSTINGS_MAX} \
                   AND s.account = p.account AND s.asset = COALESCE(l.symbol, p.asset) AND s.asset <> ?2), 0), \
         COALESCE((SELECT a.code FROM asset a WHERE a.key = COALESCE(l.symbol, p.asset)), ''), p.balance, l.exec_seq \
         FROM (SELECT id FROM (SELECT id FROM posting WHERE account = ?1 AND asset = ?2 AND id > ?3 AND id < ?4 \
                               AND balance IS NOT NULL ORDER BY id {order} LIMIT ?5) AS c \
               UNION SELECT id FROM (SELECT id FROM flow WHERE account = ?1 AND id > ?3 AND id < ?4 \
                                     ORDER BY id {order} LIMIT ?5) AS f) AS x \
         JOIN posting p ON p.id = x.id JOIN ledger l ON l.id = p.id / {POSTINGS_MAX} ORDER BY p.id {order} LIMIT ?5"
    );
    let rows = tx.query(&sql, params![account.key, cash, asked.after, asked.before, asked.limit])?;
    rows.iter().map(line).collect()
}

fn line(row: &Row) -> Result<Line, Error> {
    let (amount, shares): (i64, i64) = (row.get(2)?, row.get(9)?);
    let cause = row.get(4)?;
    let cause = Cause::of_number(cause)
        .ok_or_else(|| Error::Statement(format!("a ledger row has the kind {cause}")))?;
    // Who gains shares in a trade is its buyer, also where it pays a fee.
    let pays = if cause == Cause::Trade { shares > 0 } else { amount < 0 };
    let reference: Option<Vec<u8>> = row.get(if pays { 7 } else { 8 })?;
    Ok(Line {
        id: row.get(0)?,
        asset: row.get(1)?,
        amount,
        balance: row.get::<Option<i64>>(11)?.unwrap_or(0),
        fee: row.get::<i32>(3)? == 1,
        cause,
        time_us: row.get(5)?,
        price_e4: row.get(6)?,
        exec_seq: row.get(12)?,
        reference: reference.and_then(|b| Uuid::from_slice(&b).ok()),
        shares,
        symbol: row.get(10)?,
    })
}

/// A page of private updates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdatesPage {
    pub payloads: Vec<Vec<u8>>,
    pub last_seq: i64,
    pub more: bool,
    /// What was asked for is not kept any more (or never was): start from what is there now.
    pub reset: bool,
}

/// The private updates of a user after a sequence.
pub fn updates_since(tx: &mut dyn Tx, user: UserId, after: i64, limit: u32) -> Result<UpdatesPage, Error> {
    let row = tx.query_one(
        "SELECT COALESCE(MIN(seq), 0), COALESCE(MAX(seq), 0) FROM private_update WHERE user_id = ?1",
        params![user],
    )?;
    let (first, last_seq): (i64, i64) = (row.get(0)?, row.get(1)?);
    if after > last_seq || (last_seq > 0 && after < first - 1) {
        return Ok(UpdatesPage { last_seq, reset: true, ..UpdatesPage::default() });
    }
    let rows = tx.query(
        "SELECT payload FROM private_update WHERE user_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        params![user, after, limit],
    )?;
    let payloads: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    let more = after + (payloads.len() as i64) < last_seq;
    Ok(UpdatesPage { payloads, last_seq, more, reset: false })
}
