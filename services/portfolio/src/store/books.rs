//! Facts into rows: a batch in one transaction, each touched balance written once.

use super::kept::Kept;
use crate::domain::{
    AccountKey, AssetKey, Balance,
    ledger::{Cause, Entry, Hash, POSTINGS_MAX, Posting, house_name},
};
use fafnir_platform::{
    db::{self, Tx, Value, many},
    error::{Error, Result},
    params,
};
use fafnir_proto::v1::{self, FactKind};
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Private updates kept per user, so that a client can resume.
const UPDATES_KEPT: i64 = 1_000;
/// Updates are pruned once in so many.
const PRUNE_EVERY: i64 = 64;
/// Private updates of a user that are there at least, and those that may be.
pub const UPDATES_KEPT_MIN: u64 = UPDATES_KEPT.unsigned_abs();
pub const UPDATES_ROWS_MAX: usize = (UPDATES_KEPT + PRUNE_EVERY).unsigned_abs() as usize;
/// Names whose keys are remembered.
const NAMES_MAX: usize = 100_000;

const LEDGER_COLUMNS: usize = 16;
const POSTING_COLUMNS: usize = 6;
const BALANCE_COLUMNS: usize = 10;
const UPDATE_COLUMNS: usize = 3;

/// Keys of accounts and assets, which never change: those of committed rows, and those that a transaction made.
#[derive(Debug, Default)]
pub struct Names {
    accounts: HashMap<String, AccountKey>,
    assets: HashMap<String, AssetKey>,
    new_accounts: Vec<String>,
    new_assets: Vec<String>,
}

impl Names {
    /// The transaction that used them was committed.
    pub fn committed(&mut self) {
        self.new_accounts.clear();
        self.new_assets.clear();
        if self.accounts.len() + self.assets.len() > NAMES_MAX {
            *self = Self::default();
        }
    }

    /// Forgets what a transaction made that was not committed.
    fn restart(&mut self) {
        for name in self.new_accounts.drain(..) {
            self.accounts.remove(&name);
        }
        for code in self.new_assets.drain(..) {
            self.assets.remove(&code);
        }
    }
}

/// Stores the effects of facts that follow `from` without a gap, and moves the position; answers how many trades.
pub fn apply(tx: &mut dyn Tx, names: &mut Names, from: u64, facts: &[v1::Fact]) -> Result<u64> {
    names.restart();
    let mut batch = Batch::begin(tx, names, from)?;
    for fact in facts {
        batch.fact(fact)?;
    }
    batch.finish(from)
}

/// Empty books begin with an opening between two positions, with this before the first row of their chain.
pub fn begin_at(tx: &mut dyn Tx, from: u64, to: u64, origin: &Hash) -> Result<(), db::Error> {
    let sql =
        "UPDATE projection SET at = ?1, chain = ?2, origin = ?2, origin_at = ?3 WHERE one = 1 AND at = 0";
    let moved = tx.execute(sql, params![from, origin.to_vec(), to])?;
    if moved == 1 { Ok(()) } else { Err(db::Error::Unusable("the books are not empty".into())) }
}

pub(super) fn impossible(fact: &v1::Fact, what: &str) -> Error {
    Error::internal(format!("the fact at {} {what}; `fafnir rebuild` makes the books anew", fact.position))
}

/// The position of a fact as a ledger row has it.
pub(super) fn narrow(fact: &v1::Fact) -> Result<i64> {
    i64::try_from(fact.position).map_err(|_| impossible(fact, "has a huge number"))
}

pub(super) struct Batch<'a> {
    pub(super) tx: &'a mut dyn Tx,
    names: &'a mut Names,
    at: u64,
    chain: Hash,
    trades: u64,
    /// As the last fact told, and what sales gained in this batch.
    pub(super) balances: BTreeMap<(AccountKey, AssetKey), (Balance, i64)>,
    /// What the house's balances gain.
    house: BTreeMap<(AccountKey, AssetKey), i128>,
    ledger: Vec<Value>,
    postings: Vec<Value>,
    updates: Vec<Value>,
    /// First and last number of each user's updates.
    updated: BTreeMap<String, (i64, i64)>,
    /// What figures are made from.
    pub(super) kept: Kept,
}

impl<'a> Batch<'a> {
    fn begin(tx: &'a mut dyn Tx, names: &'a mut Names, from: u64) -> Result<Self> {
        let row = tx.query_one("SELECT at, chain FROM projection", &[])?;
        let at: u64 = row.get(0)?;
        if at != from {
            return Err(Error::unavailable(format!("the books are at {at}, not at {from}: another follows")));
        }
        Ok(Self {
            at,
            chain: hash_of(row.get(1)?)?,
            kept: Kept::begin(tx)?,
            tx,
            names,
            trades: 0,
            balances: BTreeMap::new(),
            house: BTreeMap::new(),
            ledger: Vec::new(),
            postings: Vec::new(),
            updates: Vec::new(),
            updated: BTreeMap::new(),
        })
    }

    fn fact(&mut self, fact: &v1::Fact) -> Result<()> {
        if fact.position != self.at + 1 {
            return Err(impossible(fact, &format!("does not follow {}", self.at)));
        }
        self.at = fact.position;
        if fact.kind() == FactKind::Money {
            self.flows(fact)?;
        }
        for update in &fact.balances {
            self.balance(fact, update)?;
        }
        if !fact.postings.is_empty() {
            self.entry(fact)?;
        }
        if fact.kind() == FactKind::TermsSet {
            self.terms(fact.terms.unwrap_or_default(), fact.time_us)?;
        }
        if let Some(instrument) = &fact.instrument {
            self.listing(instrument)?;
        }
        if let Some(listing) = fact.instrument.as_ref().filter(|_| fact.kind() == FactKind::InstrumentSet) {
            let key = self.asset(&listing.symbol)?;
            let sql = "UPDATE asset SET currency = ?2 WHERE key = ?1";
            self.tx.execute(sql, params![key, &listing.currency])?;
        }
        self.key(fact)
    }

    /// Cash and shares of one account as they are after the fact.
    fn balance(&mut self, fact: &v1::Fact, update: &v1::PortfolioUpdate) -> Result<()> {
        if let Some(account) = &update.account {
            let key = self.client(account)?;
            let currency = self.asset(&account.currency)?;
            let cash = Balance {
                posted: account.balance_micros,
                held: account.held_micros,
                created_us: account.created_us,
                updated_us: account.updated_us,
                ..Balance::default()
            };
            self.told(key, currency, cash);
        }
        if let Some(holding) = &update.holding {
            let key = self.account(fact, &holding.account_id)?;
            let asset = self.asset(&holding.symbol)?;
            let shares = Balance {
                id: reference(fact, &holding.id)?,
                posted: holding.quantity_e4,
                held: holding.held_e4,
                cost: holding.cost_micros,
                realized: holding.realized_pnl_micros,
                created_us: holding.created_us,
                updated_us: holding.updated_us,
            };
            self.told(key, asset, shares);
        }
        if update.user_seq > 0 {
            let seq = i64::try_from(update.user_seq).map_err(|_| impossible(fact, "has a huge user_seq"))?;
            self.updates.extend_from_slice(params![&update.user_id, seq, update.encode_to_vec()]);
            self.updated.entry(update.user_id.clone()).or_insert((seq, seq)).1 = seq;
        }
        Ok(())
    }

    fn told(&mut self, account: AccountKey, asset: AssetKey, balance: Balance) {
        self.balances.entry((account, asset)).or_default().0 = balance;
    }

    /// Stores the ledger transaction of a fact.
    fn entry(&mut self, fact: &v1::Fact) -> Result<()> {
        let entry = entry_of(fact)?;
        self.keep(fact, &entry)?;
        if entry.cause == Cause::Trade.number() {
            self.trades += 1;
            // The seller's are the second.
            let sold = fact.balances.get(1).and_then(|b| b.holding.as_ref());
            let sold = sold.ok_or_else(|| impossible(fact, "is a trade without what the seller has left"))?;
            let key = (self.account(fact, &sold.account_id)?, self.asset(&sold.symbol)?);
            let gained = &mut self.balances.entry(key).or_default().1;
            *gained = gained
                .checked_add(entry.realized)
                .ok_or_else(|| impossible(fact, "gains more than 64 bits"))?;
        }
        if entry.cause == Cause::Opening.number()
            && entry.realized != 0
            && let Some(held) = fact.balances.first().and_then(|b| b.holding.as_ref())
        {
            // Books that begin with a snapshot: what sales gained before.
            let key = (self.account(fact, &held.account_id)?, self.asset(&held.symbol)?);
            self.balances.entry(key).or_default().1 = entry.realized;
        }
        self.chain = entry.hash_after(&self.chain);
        let symbol = entry.symbol.as_deref().map(|s| self.asset(s)).transpose()?;
        self.ledger.extend_from_slice(params![
            entry.id,
            entry.cause,
            entry.time_us,
            symbol,
            entry.exec_seq,
            entry.price_e4,
            entry.payer_ref,
            entry.payee_ref,
            entry.payer_rate,
            entry.payee_rate,
            entry.payer_fees,
            entry.payee_fees,
            entry.realized,
            entry.cost,
            entry.taker,
            self.chain.to_vec(),
        ]);
        for (number, (line, told)) in entry.postings.iter().zip(&fact.postings).enumerate() {
            let asset = self.asset(&line.asset)?;
            let account = if told.account_id.is_empty() {
                let account = self.house(&line.account, fact.time_us)?;
                *self.house.entry((account, asset)).or_default() += i128::from(line.amount);
                account
            } else {
                self.account(fact, &line.account)?
            };
            let id = entry.id * POSTINGS_MAX as i64 + number as i64;
            let balance = Kept::balance_after(fact, number)?;
            self.postings.extend_from_slice(params![id, account, asset, line.amount, line.role, balance]);
        }
        Ok(())
    }

    fn terms(&mut self, terms: v1::Terms, time_us: i64) -> Result<()> {
        if terms.rate_id > 0 {
            self.tx.execute(
                "INSERT INTO fx_rate (id, usd_cad_micros, since_us) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
                params![terms.rate_id, terms.usd_cad_micros, time_us],
            )?;
            self.rate(terms.usd_cad_micros);
        }
        if terms.fees_id > 0 {
            self.tx.execute(
                "INSERT INTO fee_schedule (id, maker_bp, taker_bp) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (id) DO NOTHING",
                params![terms.fees_id, terms.maker_bp, terms.taker_bp],
            )?;
        }
        Ok(())
    }

    /// What the key of an account's or money's command stands for from now on. Orders' keys are order-service's.
    fn key(&mut self, fact: &v1::Fact) -> Result<()> {
        let (Some(key), Some(done)) = (&fact.key, &fact.done) else { return Ok(()) };
        if !is_keyed(fact.kind()) {
            return Ok(());
        }
        self.tx.execute(
            "INSERT INTO idempotency (owner, key, payload, object_id, amount_micros, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                &fact.user_id,
                &key.key,
                key.payload.as_slice(),
                &done.object_id,
                done.amount_micros,
                fact.position
            ],
        )?;
        Ok(())
    }

    /// A client's account, made when it first appears, closed when the fact says so.
    fn client(&mut self, told: &v1::Account) -> Result<AccountKey, db::Error> {
        if let Some(key) = self.known(&told.id)? {
            if told.closed {
                self.tx.execute(
                    "UPDATE account SET closed = 1, updated_us = ?2 WHERE key = ?1",
                    params![key, told.updated_us],
                )?;
            }
            return Ok(key);
        }
        self.account_insert(told)
    }

    pub(super) fn account(&mut self, fact: &v1::Fact, id: &str) -> Result<AccountKey> {
        self.known(id)?.ok_or_else(|| impossible(fact, &format!("touches the unknown account {id:?}")))
    }

    fn house(&mut self, name: &str, time_us: i64) -> Result<AccountKey, db::Error> {
        if let Some(key) = self.known(name)? {
            return Ok(key);
        }
        self.account_insert(&v1::Account {
            id: name.to_owned(),
            r#type: v1::AccountType::House.into(),
            created_us: time_us,
            updated_us: time_us,
            ..v1::Account::default()
        })
    }

    /// The key of an account by its id or name.
    pub(super) fn known(&mut self, name: &str) -> Result<Option<AccountKey>, db::Error> {
        if let Some(key) = self.names.accounts.get(name) {
            return Ok(Some(*key));
        }
        let row = self.tx.query_opt("SELECT key FROM account WHERE id = ?1", params![name])?;
        let Some(key) = row.map(|row| row.get(0)).transpose()? else { return Ok(None) };
        self.names.accounts.insert(name.to_owned(), key);
        Ok(Some(key))
    }

    fn account_insert(&mut self, told: &v1::Account) -> Result<AccountKey, db::Error> {
        let next = "SELECT COALESCE(MAX(key), 0) + 1 FROM account";
        let key: AccountKey = self.tx.query_one(next, &[])?.get(0)?;
        let user = (!told.user_id.is_empty()).then_some(&told.user_id);
        self.tx.execute(
            "INSERT INTO account (key, id, user_id, kind, currency, number, closed, created_us, updated_us) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                key,
                &told.id,
                user,
                told.r#type,
                &told.currency,
                &told.account_number,
                told.closed,
                told.created_us,
                told.updated_us
            ],
        )?;
        self.names.accounts.insert(told.id.clone(), key);
        self.names.new_accounts.push(told.id.clone());
        Ok(key)
    }

    /// The key of an asset, made when it first appears.
    pub(super) fn asset(&mut self, code: &str) -> Result<AssetKey, db::Error> {
        if let Some(key) = self.names.assets.get(code) {
            return Ok(*key);
        }
        let row = self.tx.query_opt("SELECT key FROM asset WHERE code = ?1", params![code])?;
        let key = if let Some(row) = row {
            row.get(0)?
        } else {
            let next = "SELECT COALESCE(MAX(key), 0) + 1 FROM asset";
            let key: AssetKey = self.tx.query_one(next, &[])?.get(0)?;
            self.tx
                .execute("INSERT INTO asset (key, code, currency) VALUES (?1, ?2, '')", params![key, code])?;
            self.names.new_assets.push(code.to_owned());
            key
        };
        self.names.assets.insert(code.to_owned(), key);
        Ok(key)
    }

    /// Writes what was gathered and moves the position.
    fn finish(mut self, from: u64) -> Result<u64> {
        many::insert(
            self.tx,
            "INSERT INTO ledger (id, kind, time_us, symbol, exec_seq, price_e4, payer_ref, payee_ref, payer_rate, \
             payee_rate, payer_fees, payee_fees, realized, cost, taker, hash)",
            LEDGER_COLUMNS,
            "",
            &self.ledger,
        )?;
        many::insert(
            self.tx,
            "INSERT INTO posting (id, account, asset, amount, role, balance)",
            POSTING_COLUMNS,
            "",
            &self.postings,
        )?;
        self.kept.write(self.tx)?;
        self.balances_write()?;
        self.house_write()?;
        self.updates_write()?;
        let moved = self.tx.execute(
            "UPDATE projection SET at = ?1, chain = ?2, trades = trades + ?3 WHERE one = 1 AND at = ?4",
            params![self.at, self.chain.to_vec(), self.trades, from],
        )?;
        if moved != 1 {
            return Err(Error::unavailable(format!("the books are no longer at {from}: another follows")));
        }
        Ok(self.trades)
    }

    fn balances_write(&mut self) -> Result<(), db::Error> {
        let mut values = Vec::with_capacity(self.balances.len() * BALANCE_COLUMNS);
        for ((account, asset), (b, gained)) in &self.balances {
            values.extend_from_slice(params![
                *account,
                *asset,
                b.id.map(|id| id.as_bytes().to_vec()),
                b.posted,
                b.held,
                b.cost,
                b.realized,
                *gained,
                b.created_us,
                b.updated_us
            ]);
        }
        many::insert(
            self.tx,
            "INSERT INTO balance (account, asset, id, posted, held, cost, realized, realized_total, created_us, \
             updated_us)",
            BALANCE_COLUMNS,
            "ON CONFLICT (account, asset) DO UPDATE SET posted = excluded.posted, held = excluded.held, \
             cost = excluded.cost, realized = excluded.realized, \
             realized_total = balance.realized_total + excluded.realized_total, \
             created_us = excluded.created_us, updated_us = excluded.updated_us",
            &values,
        )?;
        Ok(())
    }

    fn house_write(&mut self) -> Result<()> {
        for ((account, asset), more) in &self.house {
            let key = params![*account, *asset];
            let sql = "SELECT posted FROM house WHERE account = ?1 AND asset = ?2";
            let before = match self.tx.query_opt(sql, key)? {
                Some(row) => wide(row.get(0)?)?,
                None => 0,
            };
            let after = before
                .checked_add(*more)
                .ok_or_else(|| Error::internal("a balance of the house is beyond 128 bits"))?;
            self.tx.execute(
                "INSERT INTO house (account, asset, posted) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (account, asset) DO UPDATE SET posted = excluded.posted",
                params![*account, *asset, after.to_be_bytes().to_vec()],
            )?;
        }
        Ok(())
    }

    fn updates_write(&mut self) -> Result<(), db::Error> {
        let head = "INSERT INTO private_update (user_id, seq, payload)";
        many::insert(self.tx, head, UPDATE_COLUMNS, "", &self.updates)?;
        for (user, (first, last)) in &self.updated {
            // However the facts come in batches, the same rows are left.
            let round = last - last % PRUNE_EVERY;
            if round >= *first && round > UPDATES_KEPT {
                self.tx.execute(
                    "DELETE FROM private_update WHERE user_id = ?1 AND seq <= ?2",
                    params![user, round - UPDATES_KEPT],
                )?;
            }
        }
        Ok(())
    }
}

/// Whether a request's key that a fact carries is kept here. Orders' keys are order-service's.
pub fn is_keyed(kind: FactKind) -> bool {
    matches!(kind, FactKind::Money | FactKind::AccountOpened | FactKind::AccountClosed | FactKind::UserClosed)
}

/// An id that may be empty.
fn reference(fact: &v1::Fact, id: &str) -> Result<Option<Uuid>> {
    if id.is_empty() {
        return Ok(None);
    }
    Uuid::parse_str(id).map(Some).map_err(|_| impossible(fact, "refers to no id"))
}

/// The side of the order that took, of a trade.
fn taker(fact: &v1::Fact) -> i32 {
    let taker = fact.orders.first().and_then(|update| update.order.as_ref());
    taker.filter(|_| fact.kind() == FactKind::Executed).map_or(0, |order| order.side)
}

/// The ledger transaction that a fact tells.
pub fn entry_of(fact: &v1::Fact) -> Result<Entry> {
    let cause = if fact.kind() == FactKind::Executed { v1::Cause::Trade.into() } else { fact.cause };
    let postings = fact.postings.iter().map(|p| {
        let account = if p.account_id.is_empty() {
            house_name(p.house(), &p.asset).ok_or_else(|| impossible(fact, "posts to nobody"))?
        } else {
            p.account_id.clone()
        };
        Ok(Posting { account, asset: p.asset.clone(), amount: p.amount, role: p.role })
    });
    let entry = Entry {
        id: narrow(fact)?,
        cause,
        time_us: fact.time_us,
        symbol: (!fact.symbol.is_empty()).then(|| fact.symbol.clone()),
        exec_seq: i64::try_from(fact.exec_seq).map_err(|_| impossible(fact, "has a huge number"))?,
        price_e4: fact.price_e4,
        payer_ref: reference(fact, &fact.payer_ref)?.map(|id| id.as_bytes().to_vec()),
        payee_ref: reference(fact, &fact.payee_ref)?.map(|id| id.as_bytes().to_vec()),
        payer_rate: fact.payer_rate,
        payee_rate: fact.payee_rate,
        payer_fees: fact.payer_fees,
        payee_fees: fact.payee_fees,
        realized: fact.realized_micros,
        cost: fact.cost_micros,
        taker: taker(fact),
        postings: postings.collect::<Result<_>>()?,
    };
    if Cause::of_number(entry.cause).is_none() {
        return Err(impossible(fact, "moves money without a cause"));
    }
    if entry.postings.len() > POSTINGS_MAX || !entry.is_balanced() {
        return Err(impossible(fact, "does not sum to zero per asset"));
    }
    Ok(entry)
}

/// The hash in a column; null is that before the first row.
pub(super) fn hash_of(bytes: Option<Vec<u8>>) -> Result<Hash, db::Error> {
    let defect = |_| db::Error::Statement("a hash is not 16 bytes".into());
    bytes.map_or(Ok(Hash::default()), |b| b.as_slice().try_into().map_err(defect))
}

/// The 128-bit number in a column.
pub(super) fn wide(bytes: Vec<u8>) -> Result<i128, db::Error> {
    let defect = |_| db::Error::Statement("a balance of the house is not 16 bytes".into());
    Ok(i128::from_be_bytes(bytes.as_slice().try_into().map_err(defect)?))
}
