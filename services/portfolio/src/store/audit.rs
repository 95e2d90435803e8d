//! The whole books for an audit: what stands in them at one position, and the ledger page by page.

use super::books::{hash_of, wide};
use crate::audit::key_digest;
use crate::domain::{
    AccountKey, AssetKey,
    ledger::{Entry, Hash, POSTINGS_MAX, Posting},
};
use fafnir_platform::{
    checks::digest,
    db::{Error, Tx},
    params,
};
use fafnir_proto::v1;
use std::collections::{BTreeMap, HashMap};

/// Rows read at a time.
const ROWS: u32 = 2_000;

/// A balance of a client.
#[derive(Debug, Clone, Copy)]
pub struct Stands {
    pub account: AccountKey,
    pub asset: AssetKey,
    pub posted: i64,
    pub held: i64,
    pub cost: i64,
    pub realized: i64,
    pub realized_total: i64,
}

/// What a row says of a client's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    pub user: String,
    pub kind: i32,
    pub currency: String,
    pub number: String,
    pub closed: bool,
    pub created_us: i64,
}

impl AccountRow {
    /// What it should say of an account.
    pub fn of(a: &v1::Account) -> Self {
        Self {
            user: a.user_id.clone(),
            kind: a.r#type,
            currency: a.currency.clone(),
            number: a.account_number.clone(),
            closed: a.closed,
            created_us: a.created_us,
        }
    }
}

/// What stands in the books at a position.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub position: u64,
    /// Hash of the last ledger row.
    pub chain: Hash,
    /// What the chain begins with, where the books begin with a snapshot.
    pub origin: Option<Hash>,
    /// The position of that snapshot.
    pub origin_at: u64,
    /// Trades that are settled.
    pub trades: u64,
    /// Ids of clients' accounts, names of the house's.
    pub accounts: HashMap<AccountKey, String>,
    pub assets: HashMap<AssetKey, String>,
    /// Clients' accounts by id.
    pub rows: HashMap<String, AccountRow>,
    /// The currency that each symbol is traded in.
    pub currencies: HashMap<String, String>,
    pub rates: BTreeMap<u32, i64>,
    pub fees: BTreeMap<u32, (u32, u32)>,
    pub balances: Vec<Stands>,
    pub house: Vec<(AccountKey, AssetKey, i128)>,
    /// Private updates and keys were read too.
    pub is_whole: bool,
    /// Private updates: user → number → digest.
    pub updates: HashMap<String, BTreeMap<u64, u64>>,
    /// What keys stand for, as a digest, and at which position they came.
    pub keys: HashMap<(String, String), (u64, u64)>,
}

/// Reads what stands in the books now; with `whole` private updates and keys too.
pub fn standing(tx: &mut dyn Tx, whole: bool) -> Result<Standing, Error> {
    let mut s = Standing::default();
    let row = tx.query_one("SELECT at, chain, trades, origin, origin_at FROM projection", &[])?;
    (s.position, s.chain, s.trades) = (row.get(0)?, hash_of(row.get(1)?)?, row.get(2)?);
    let origin: Option<Vec<u8>> = row.get(3)?;
    s.origin_at = row.get(4)?;
    s.origin = origin.map(|hash| hash_of(Some(hash))).transpose()?;
    accounts(tx, &mut s)?;
    for r in tx.query("SELECT key, code, currency FROM asset", &[])? {
        let (key, code): (AssetKey, String) = (r.get(0)?, r.get(1)?);
        s.currencies.insert(code.clone(), r.get(2)?);
        s.assets.insert(key, code);
    }
    for r in tx.query("SELECT id, usd_cad_micros FROM fx_rate", &[])? {
        s.rates.insert(r.get(0)?, r.get(1)?);
    }
    for r in tx.query("SELECT id, maker_bp, taker_bp FROM fee_schedule", &[])? {
        s.fees.insert(r.get(0)?, (r.get(1)?, r.get(2)?));
    }
    let sql = "SELECT account, asset, posted, held, cost, realized, realized_total FROM balance";
    for r in tx.query(sql, &[])? {
        s.balances.push(Stands {
            account: r.get(0)?,
            asset: r.get(1)?,
            posted: r.get(2)?,
            held: r.get(3)?,
            cost: r.get(4)?,
            realized: r.get(5)?,
            realized_total: r.get(6)?,
        });
    }
    for r in tx.query("SELECT account, asset, posted FROM house", &[])? {
        s.house.push((r.get(0)?, r.get(1)?, wide(r.get(2)?)?));
    }
    s.is_whole = whole;
    if whole {
        beside(tx, &mut s)?;
    }
    Ok(s)
}

fn accounts(tx: &mut dyn Tx, s: &mut Standing) -> Result<(), Error> {
    let sql = "SELECT key, id, user_id, kind, currency, number, closed, created_us FROM account";
    for r in tx.query(sql, &[])? {
        let (key, id): (AccountKey, String) = (r.get(0)?, r.get(1)?);
        if let Some(user) = r.get::<Option<String>>(2)? {
            let row = AccountRow {
                user,
                kind: r.get(3)?,
                currency: r.get(4)?,
                number: r.get(5)?,
                closed: r.get(6)?,
                created_us: r.get(7)?,
            };
            s.rows.insert(id.clone(), row);
        }
        s.accounts.insert(key, id);
    }
    Ok(())
}

/// What stands beside the money: private updates and keys.
fn beside(tx: &mut dyn Tx, s: &mut Standing) -> Result<(), Error> {
    let mut after: (String, i64) = Default::default();
    loop {
        let rows = tx.query(
            "SELECT user_id, seq, payload FROM private_update WHERE (user_id, seq) > (?1, ?2) \
             ORDER BY user_id, seq LIMIT ?3",
            params![&after.0, after.1, ROWS],
        )?;
        for r in &rows {
            let (user, seq, payload): (String, i64, Vec<u8>) = (r.get(0)?, r.get(1)?, r.get(2)?);
            s.updates.entry(user.clone()).or_default().insert(seq.unsigned_abs(), digest(&payload));
            after = (user, seq);
        }
        if rows.len() < ROWS as usize {
            break;
        }
    }
    let mut after: (String, String) = Default::default();
    loop {
        let rows = tx.query(
            "SELECT owner, key, payload, object_id, amount_micros, at FROM idempotency \
             WHERE (owner, key) > (?1, ?2) ORDER BY owner, key LIMIT ?3",
            params![&after.0, &after.1, ROWS],
        )?;
        for r in &rows {
            let (payload, object): (Vec<u8>, String) = (r.get(2)?, r.get(3)?);
            let (amount, at): (i64, u64) = (r.get(4)?, r.get(5)?);
            after = (r.get(0)?, r.get(1)?);
            s.keys.insert(after.clone(), (key_digest(&payload, &object, amount, at), at));
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
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

/// The ledger after a position, at most `limit` rows, none beyond `until`: rows are never changed, so that pages of
/// different transactions fit together.
pub fn ledger_page(
    tx: &mut dyn Tx,
    s: &Standing,
    after: u64,
    until: u64,
    limit: u32,
) -> Result<LedgerPage, Error> {
    let rows = tx.query(
        "SELECT id, kind, time_us, symbol, exec_seq, price_e4, payer_ref, payee_ref, payer_rate, payee_rate, \
         payer_fees, payee_fees, realized, cost, taker, hash FROM ledger WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        params![after, until, limit],
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
            taker: row.get(14)?,
            postings: Vec::new(),
        };
        entries.push((entry, hash_of(row.get(15)?)?));
    }
    let full = rows.len() == limit as usize;
    let until = entries.last().filter(|_| full).map_or(until, |(e, _)| e.id.unsigned_abs());
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
