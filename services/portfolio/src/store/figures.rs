//! What is read of any moment: positions of moments, balances, prices and rates then, flows, lots, what was traded.
//!
//! Rows are never changed, so that pages of different transactions fit together below a position.

use super::kept::traded;
use crate::domain::{
    Account, AssetKey, Currency,
    gains::{Lot, Traded},
    ledger::{Cause, POSTINGS_MAX},
    performance::Flow,
    period::MINUTE_US,
    valuation::{Rate, value_micros},
};
use fafnir_platform::{
    clock::DAY_US,
    db::{Error, Tx},
    params,
};
use std::collections::BTreeMap;
use uuid::Uuid;

const POSTINGS: i64 = POSTINGS_MAX as i64;

/// A moment in the ledger: what is before it happened before `time_us`, and in rows up to `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub time_us: i64,
    pub id: i64,
}

impl Cut {
    /// Postings before it have smaller ids.
    pub fn posting(self) -> i64 {
        (self.id + 1) * POSTINGS
    }

    /// Just before a ledger row.
    fn before(id: i64, time_us: i64) -> Self {
        Self { time_us, id: id - 1 }
    }
}

/// The ledger just before a moment.
pub fn cut(tx: &mut dyn Tx, time_us: i64) -> Result<Cut, Error> {
    let next = "SELECT first FROM minute WHERE minute >= ?1 ORDER BY minute LIMIT 1";
    let first = |tx: &mut dyn Tx, minute: i64| -> Result<Option<i64>, Error> {
        tx.query_opt(next, params![minute])?.map(|row| row.get(0)).transpose()
    };
    let minute = time_us.div_euclid(MINUTE_US);
    let end = |tx: &mut dyn Tx| -> Result<i64, Error> {
        Ok(tx.query_one("SELECT COALESCE(MAX(id), 0) FROM ledger", &[])?.get::<i64>(0)? + 1)
    };
    // The first row at or after the moment is in [low, high].
    let Some(mut low) = first(tx, minute)? else { return Ok(Cut { time_us, id: end(tx)? - 1 }) };
    if time_us == minute * MINUTE_US {
        return Ok(Cut { time_us, id: low - 1 });
    }
    let mut high = match first(tx, minute + 1)? {
        Some(first) => first,
        None => end(tx)?,
    };
    // Each row has a later time than the one before.
    while low < high {
        let middle = low + (high - low) / 2;
        let sql = "SELECT id, time_us FROM ledger WHERE id >= ?1 ORDER BY id LIMIT 1";
        let row = tx.query_opt(sql, params![middle])?;
        let (id, at) = row.map_or(Ok((high, i64::MAX)), |row| Ok::<_, Error>((row.get(0)?, row.get(1)?)))?;
        if at < time_us { low = id + 1 } else { high = middle }
    }
    Ok(Cut { time_us, id: low - 1 })
}

/// The currencies and symbols that an account ever had, by code.
pub fn assets(tx: &mut dyn Tx, account: &Account) -> Result<Vec<(AssetKey, String)>, Error> {
    let sql = "SELECT a.key, a.code FROM balance b JOIN asset a ON a.key = b.asset WHERE b.account = ?1";
    let mut found: Vec<(AssetKey, String)> = tx
        .query(sql, params![account.key])?
        .iter()
        .map(|row| Ok((row.get(0)?, row.get(1)?)))
        .collect::<Result<_, Error>>()?;
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// What an account had of an asset at a moment.
pub fn balance_at(tx: &mut dyn Tx, account: &Account, asset: AssetKey, cut: Cut) -> Result<i64, Error> {
    balance_before(tx, account, asset, cut.posting())
}

/// What an account had of an asset before a posting.
pub fn balance_before(
    tx: &mut dyn Tx,
    account: &Account,
    asset: AssetKey,
    posting: i64,
) -> Result<i64, Error> {
    let sql = "SELECT balance FROM posting WHERE account = ?1 AND asset = ?2 AND id < ?3 AND balance IS NOT NULL \
               ORDER BY id DESC LIMIT 1";
    tx.query_opt(sql, params![account.key, asset, posting])?.map_or(Ok(0), |row| row.get(0))
}

/// The last price of a symbol before a moment; before the first trade the listing's first known one. 0: none is known.
pub fn price_at(tx: &mut dyn Tx, asset: AssetKey, cut: Cut) -> Result<i64, Error> {
    let mut minute = (cut.time_us - 1).div_euclid(MINUTE_US);
    loop {
        let sql = "SELECT minute, price_e4, first, last FROM price WHERE asset = ?1 AND minute <= ?2 \
                   ORDER BY minute DESC LIMIT 1";
        let Some(row) = tx.query_opt(sql, params![asset, minute])? else { break };
        let (first, last): (i64, i64) = (row.get(2)?, row.get(3)?);
        if last <= cut.id {
            return row.get(1);
        }
        if first <= cut.id {
            let sql = "SELECT price_e4 FROM ledger WHERE id >= ?1 AND id <= ?2 AND symbol = ?3 AND kind = ?4 \
                       ORDER BY id DESC LIMIT 1";
            return tx.query_one(sql, params![first, cut.id, asset, Cause::Trade.number()])?.get(0);
        }
        minute = row.get::<i64>(0)? - 1;
    }
    let first = "SELECT first_e4 FROM listing WHERE asset = ?1 AND first_e4 > 0";
    if let Some(row) = tx.query_opt(first, params![asset])? {
        return row.get(0);
    }
    // It came without a price: its first trade's.
    let sql = "SELECT l.price_e4 FROM price p JOIN ledger l ON l.id = p.first WHERE p.asset = ?1 \
               ORDER BY p.minute LIMIT 1";
    tx.query_opt(sql, params![asset])?.map_or(Ok(0), |row| row.get(0))
}

/// Micros of CAD for one USD at a moment: before the first rate that one.
fn usd_cad_at(tx: &mut dyn Tx, time_us: i64) -> Result<i64, Error> {
    let then = "SELECT usd_cad_micros FROM fx_rate WHERE since_us < ?1 ORDER BY id DESC LIMIT 1";
    if let Some(row) = tx.query_opt(then, params![time_us])? {
        return row.get(0);
    }
    let first = "SELECT usd_cad_micros FROM fx_rate ORDER BY id LIMIT 1";
    tx.query_opt(first, &[])?.map_or(Ok(0), |row| row.get(0))
}

/// The currency of a symbol's listing, where it is known.
fn listed_in(tx: &mut dyn Tx, asset: AssetKey) -> Result<Option<Currency>, Error> {
    let row = tx.query_opt("SELECT currency FROM listing WHERE asset = ?1", params![asset])?;
    let code: Option<String> = row.map(|row| row.get(0)).transpose()?;
    Ok(code.as_deref().and_then(Currency::parse))
}

/// Price and rate of a symbol at a moment, for an account of a currency.
pub fn quote_at(tx: &mut dyn Tx, asset: AssetKey, account: Currency, cut: Cut) -> Result<(i64, Rate), Error> {
    let listing = listed_in(tx, asset)?;
    let usd_cad = if listing.is_none_or(|l| l == account) { 0 } else { usd_cad_at(tx, cut.time_us)? };
    Ok((price_at(tx, asset, cut)?, Rate::between(listing, account, usd_cad)))
}

/// Cash and worth of the shares of an account at moments that ascend, in micros.
pub fn worth_at(tx: &mut dyn Tx, account: &Account, cuts: &[Cut]) -> Result<Vec<(i64, i64)>, Error> {
    let mut worth = vec![(0i64, 0i128); cuts.len()];
    let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else { return Ok(Vec::new()) };
    for (asset, _) in assets(tx, account)? {
        let (start, end) = (balance_at(tx, account, asset, *first)?, balance_at(tx, account, asset, *last)?);
        let moved = "SELECT id FROM posting WHERE account = ?1 AND asset = ?2 AND id >= ?3 AND id < ?4 \
                     AND balance IS NOT NULL LIMIT 1";
        let is_still =
            tx.query_opt(moved, params![account.key, asset, first.posting(), last.posting()])?.is_none();
        if is_still && start == 0 {
            continue;
        }
        for (n, cut) in cuts.iter().enumerate() {
            let quantity = match n {
                _ if is_still || n == 0 => start,
                _ if n + 1 == cuts.len() => end,
                _ => balance_at(tx, account, asset, *cut)?,
            };
            if asset == account.currency.asset() {
                worth[n].0 = quantity;
            } else if quantity != 0 {
                let (price_e4, rate) = quote_at(tx, asset, account.currency, *cut)?;
                worth[n].1 += value_micros(quantity, price_e4, rate);
            }
        }
    }
    let narrow = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(worth.into_iter().map(|(cash, shares)| (cash, narrow(shares))).collect())
}

/// At most `limit` flows of an account between two moments, after a posting; with the posting of each.
pub fn flows(
    tx: &mut dyn Tx,
    account: &Account,
    after: i64,
    until: Cut,
    limit: u32,
) -> Result<Vec<(i64, Flow)>, Error> {
    let sql = format!(
        "SELECT f.id, f.amount, f.before, l.time_us, p.asset, p.amount FROM flow f JOIN posting p ON p.id = f.id \
         JOIN ledger l ON l.id = f.id / {POSTINGS} WHERE f.account = ?1 AND f.id > ?2 AND f.id < ?3 ORDER BY f.id LIMIT ?4"
    );
    let mut flows = Vec::new();
    for row in tx.query(&sql, params![account.key, after, until.posting(), limit])? {
        let (id, time_us): (i64, i64) = (row.get(0)?, row.get(3)?);
        let then = Cut::before(id / POSTINGS, time_us);
        let amount = if let Some(amount) = row.get::<Option<i64>>(1)? {
            amount
        } else {
            let (price_e4, rate) = quote_at(tx, row.get(4)?, account.currency, then)?;
            i64::try_from(value_micros(row.get(5)?, price_e4, rate)).unwrap_or(i64::MAX)
        };
        let before = match row.get::<Option<i64>>(2)? {
            Some(before) => before,
            None => worth_at(tx, account, &[then])?
                .first()
                .map_or(0, |(cash, shares)| cash.saturating_add(*shares)),
        };
        flows.push((id, Flow { time_us, amount, before }));
    }
    Ok(flows)
}

/// What an account traded by symbol on whole days, the last one excluded.
pub fn traded_on(
    tx: &mut dyn Tx,
    account: &Account,
    assets: &[(AssetKey, String)],
    first_day: i64,
    end_day: i64,
) -> Result<BTreeMap<AssetKey, Traded>, Error> {
    let mut found = BTreeMap::new();
    for (asset, _) in assets {
        let sql = "SELECT body FROM traded WHERE account = ?1 AND asset = ?2 AND day >= ?3 AND day < ?4";
        for row in tx.query(sql, params![account.key, *asset, first_day, end_day])? {
            let sum = found.entry(*asset).or_insert_with(Traded::default);
            *sum = *sum + traded(&row.get::<Vec<u8>>(0)?)?;
        }
    }
    Ok(found)
}

/// Shares of an account that moved at once.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    pub id: i64,
    pub time_us: i64,
    pub is_trade: bool,
    pub shares: i64,
    /// Cash that the account gained with them, in all and for fees.
    pub cash: i64,
    pub fees: i64,
    /// What the ledger row has as cost, and the order of the side.
    pub cost: i64,
    reference: Option<Uuid>,
}

impl Moved {
    /// What it is to the gains of its day.
    pub fn traded(&self) -> Traded {
        super::kept::moved(self.is_trade, self.shares, self.cash.into(), (-self.fees).into(), self.cost)
    }

    /// The lot that came.
    pub fn lot(&self) -> Lot {
        let cost = if self.is_trade { -self.cash } else { self.cost };
        Lot { id: self.id, time_us: self.time_us, reference: self.reference, quantity: self.shares, cost }
    }
}

/// Which of an account's postings in a symbol are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Postings {
    pub asset: AssetKey,
    /// Above the one, below the other.
    pub after: i64,
    pub before: i64,
    /// Only shares that came.
    pub came: bool,
    pub newest_first: bool,
    pub limit: u32,
}

/// What moved an account's shares of a symbol.
pub fn moved(tx: &mut dyn Tx, account: &Account, asked: Postings) -> Result<Vec<Moved>, Error> {
    let came = if asked.came { "AND amount > 0" } else { "" };
    let order = if asked.newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT s.id, l.time_us, l.kind, s.amount, l.cost, l.payer_ref, l.payee_ref, c.amount, c.role FROM \
         (SELECT id, amount FROM posting WHERE account = ?1 AND asset = ?2 AND id > ?3 AND id < ?4 \
          AND balance IS NOT NULL {came} ORDER BY id {order} LIMIT ?5) AS s \
         JOIN ledger l ON l.id = s.id / {POSTINGS} LEFT JOIN posting c ON c.id >= l.id * {POSTINGS} \
         AND c.id < l.id * {POSTINGS} + {POSTINGS} AND c.account = ?1 AND c.asset = ?6 ORDER BY s.id {order}, c.id"
    );
    let cash = account.currency.asset();
    let rows =
        tx.query(&sql, params![account.key, asked.asset, asked.after, asked.before, asked.limit, cash])?;
    let mut found: Vec<Moved> = Vec::new();
    for row in rows {
        let id: i64 = row.get(0)?;
        if found.last().is_none_or(|last| last.id != id) {
            let shares: i64 = row.get(3)?;
            let is_trade = row.get::<i32>(2)? == Cause::Trade.number();
            let reference: Option<Vec<u8>> = row.get(if shares > 0 { 5 } else { 6 })?;
            found.push(Moved {
                id,
                time_us: row.get(1)?,
                is_trade,
                shares,
                cash: 0,
                fees: 0,
                cost: row.get(4)?,
                reference: reference.filter(|_| is_trade).and_then(|b| Uuid::from_slice(&b).ok()),
            });
        }
        if let (Some(last), Some(amount)) = (found.last_mut(), row.get::<Option<i64>>(7)?) {
            last.cash += amount;
            last.fees += if row.get::<Option<i32>>(8)? == Some(1) { amount } else { 0 };
        }
    }
    Ok(found)
}

/// The day of a moment, since 1970.
pub fn day(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US)
}
