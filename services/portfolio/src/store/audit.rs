//! The whole books for an audit: what stands in them at one position, and the ledger page by page.

use super::books::{hash_of, wide};
use crate::domain::{
    AccountKey, AssetKey,
    ledger::{Entry, Hash, POSTINGS_MAX, Posting},
};
use fafnir_platform::{
    db::{Error, Tx},
    params,
};
use std::collections::HashMap;

/// A balance of a client.
#[derive(Debug, Clone, Copy)]
pub struct Stands {
    pub account: AccountKey,
    pub asset: AssetKey,
    pub posted: i64,
    pub held: i64,
}

/// What stands in the books at a position.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub position: u64,
    /// Hash of the last ledger row.
    pub chain: Hash,
    /// Ids of clients' accounts, names of the house's.
    pub accounts: HashMap<AccountKey, String>,
    pub assets: HashMap<AssetKey, String>,
    pub balances: Vec<Stands>,
    pub house: Vec<(AccountKey, AssetKey, i128)>,
}

/// Reads what stands in the books now.
pub fn standing(tx: &mut dyn Tx) -> Result<Standing, Error> {
    let row = tx.query_one("SELECT at, chain FROM projection", &[])?;
    let accounts = tx.query("SELECT key, id FROM account", &[])?;
    let assets = tx.query("SELECT key, code FROM asset", &[])?;
    let balances = tx.query("SELECT account, asset, posted, held FROM balance", &[])?;
    let house = tx.query("SELECT account, asset, posted FROM house", &[])?;
    Ok(Standing {
        position: row.get(0)?,
        chain: hash_of(row.get(1)?)?,
        accounts: accounts.iter().map(|r| Ok((r.get(0)?, r.get(1)?))).collect::<Result<_, Error>>()?,
        assets: assets.iter().map(|r| Ok((r.get(0)?, r.get(1)?))).collect::<Result<_, Error>>()?,
        balances: balances
            .iter()
            .map(|r| Ok(Stands { account: r.get(0)?, asset: r.get(1)?, posted: r.get(2)?, held: r.get(3)? }))
            .collect::<Result<_, Error>>()?,
        house: house
            .iter()
            .map(|r| Ok((r.get(0)?, r.get(1)?, wide(r.get(2)?)?)))
            .collect::<Result<_, Error>>()?,
    })
}

/// A page of the ledger.
#[derive(Debug, Clone, Default)]
pub struct LedgerPage {
    /// Each with the hash that its row carries.
    pub entries: Vec<(Entry, Hash)>,
    /// Postings of the page that no row has.
    pub orphans: u64,
    /// The last id that it covers.
    pub until: u64,
}

/// The ledger after a position, at most `limit` rows, none beyond the standing's position: rows are never changed, so
/// that pages of different transactions fit together.
pub fn ledger_page(tx: &mut dyn Tx, s: &Standing, after: u64, limit: u32) -> Result<LedgerPage, Error> {
    let rows = tx.query(
        "SELECT id, kind, time_us, symbol, exec_seq, price_e4, payer_ref, payee_ref, payer_rate, payee_rate, \
         payer_fees, payee_fees, realized, cost, hash FROM ledger WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        params![after, s.position, limit],
    )?;
    let code = |key: AssetKey| s.assets.get(&key).cloned().unwrap_or_default();
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let entry = Entry {
            id: row.get(0)?,
            cause: row.get(1)?,
            time_us: row.get(2)?,
            symbol: row.get::<Option<AssetKey>>(3)?.map(code),
            exec_seq: row.get(4)?,
            price_e4: row.get(5)?,
            payer_ref: row.get(6)?,
            payee_ref: row.get(7)?,
            payer_rate: row.get(8)?,
            payee_rate: row.get(9)?,
            payer_fees: row.get(10)?,
            payee_fees: row.get(11)?,
            realized: row.get(12)?,
            cost: row.get(13)?,
            postings: Vec::new(),
        };
        entries.push((entry, hash_of(row.get(14)?)?));
    }
    let full = rows.len() == limit as usize;
    let until = entries.last().filter(|_| full).map_or(s.position, |(e, _)| e.id.unsigned_abs());
    let rows = tx.query(
        "SELECT id / ?3, account, asset, amount, role FROM posting WHERE id >= ?1 AND id < ?2 ORDER BY id",
        params![(after + 1) * POSTINGS_MAX as u64, (until + 1) * POSTINGS_MAX as u64, POSTINGS_MAX],
    )?;
    let mut orphans = 0;
    for row in &rows {
        let (id, account): (i64, AccountKey) = (row.get(0)?, row.get(1)?);
        let posting = Posting {
            account: s.accounts.get(&account).cloned().unwrap_or_default(),
            asset: code(row.get(2)?),
            amount: row.get(3)?,
            role: row.get(4)?,
        };
        match entries.binary_search_by_key(&id, |(e, _)| e.id) {
            Ok(at) => entries[at].0.postings.push(posting),
            Err(_) => orphans += 1,
        }
    }
    Ok(LedgerPage { entries, orphans, until })
}
