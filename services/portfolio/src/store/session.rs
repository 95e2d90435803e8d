//! One transaction's view of accounts, balances and holds: loaded when first needed, checked in memory, written once.

use super::{account_by_key, house_account, insert_many, rate};
use crate::{
    domain::{
        Account, AccountKey, AssetKey, Balance, Currency, Fault, Fx,
        hold::{End, Hold, Pending, Side, Terms},
        ledger::{Adjustment, POSTINGS_MAX, Transaction},
    },
    wire,
};
use fafnir_platform::{
    Refusal, agents, db,
    db::{Row, Tx, Value},
    error, params,
};
use fafnir_proto::v1;
use fafnir_proto::{id::UserId, reason::Reason};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Private updates kept per user, so that a client can resume.
pub const UPDATES_KEPT: i64 = 1_000;
/// Updates are pruned once in so many.
const PRUNE_EVERY: i64 = 64;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Error(#[from] error::Error),
}

impl From<db::Error> for Failure {
    fn from(e: db::Error) -> Self {
        Self::Error(e.into())
    }
}

impl From<Failure> for error::Error {
    fn from(f: Failure) -> Self {
        match f {
            Failure::Error(e) => e,
            Failure::Fault(Fault::Overflow) => Refusal::invalid(
                Reason::AMOUNT_TOO_LARGE,
                "amount must keep the balance within 9,223,372,036,854",
            )
            .into(),
            Failure::Fault(fault) => error::Error::internal(fault.to_string()),
        }
    }
}

/// A hold with what the table knows besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    pub hold: Hold,
    pub account: AccountKey,
    pub symbol: AssetKey,
    /// Currency of the listing, as an asset.
    pub listing: AssetKey,
    /// The recorded rate that [`Hold::terms`] come from; `None` in one currency.
    pub rate: Option<i64>,
    /// The first request, so that a repetition can be told from another one.
    pub asked_e4: i64,
    pub asked_price_e4: i64,
    pub held: i64,
    pub created_us: i64,
    pub closed_us: Option<i64>,
}

/// What is told after the commit.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub updates: Vec<v1::PortfolioUpdate>,
}

/// See the module.
pub struct Session<'a> {
    pub tx: &'a mut dyn Tx,
    pub now_us: i64,
    accounts: HashMap<AccountKey, Option<Account>>,
    balances: BTreeMap<(AccountKey, AssetKey), Balance>,
    changed_balances: BTreeSet<(AccountKey, AssetKey)>,
    holds: BTreeMap<Uuid, HoldRow>,
    changed_holds: BTreeSet<Uuid>,
    changed_accounts: BTreeSet<AccountKey>,
    assets: HashMap<String, AssetKey>,
    rates: HashMap<i64, i64>,
    ledger_id: Option<i64>,
    ledger: Vec<Value>,
    postings: Vec<Value>,
}

const LEDGER_COLUMNS: usize = 10;
const POSTING_COLUMNS: usize = 5;
const BALANCE_COLUMNS: usize = 9;
const HOLD_COLUMNS: usize = 23;

impl<'a> Session<'a> {
    pub fn new(tx: &'a mut dyn Tx, now_us: i64) -> Self {
        Self {
            tx,
            now_us,
            accounts: HashMap::new(),
            balances: BTreeMap::new(),
            changed_balances: BTreeSet::new(),
            holds: BTreeMap::new(),
            changed_holds: BTreeSet::new(),
            changed_accounts: BTreeSet::new(),
            assets: HashMap::new(),
            rates: HashMap::new(),
            ledger_id: None,
            ledger: Vec::new(),
            postings: Vec::new(),
        }
    }

    /// A client's account; `None` for the house.
    pub fn account(&mut self, key: AccountKey) -> Result<Option<Account>, db::Error> {
        if let Some(account) = self.accounts.get(&key) {
            return Ok(account.clone());
        }
        let account = account_by_key(self.tx, key)?;
        self.accounts.insert(key, account.clone());
        Ok(account)
    }

    /// Puts an account that was read or changed outside into the view, so that its user hears of it.
    pub fn account_put(&mut self, account: Account, changed: bool) {
        if changed {
            self.changed_accounts.insert(account.key);
        }
        self.accounts.insert(account.key, Some(account));
    }

    /// The key of an asset, made where it is missing.
    pub fn asset(&mut self, code: &str) -> Result<AssetKey, db::Error> {
        if let Some(&key) = self.assets.get(code) {
            return Ok(key);
        }
        let row = self.tx.query_opt("SELECT key FROM asset WHERE code = ?1", params![code])?;
        let key = if let Some(row) = row {
            row.get(0)?
        } else {
            let next = "SELECT COALESCE(MAX(key), 0) + 1 FROM asset";
            let key: AssetKey = self.tx.query_one(next, &[])?.get(0)?;
            self.tx.execute("INSERT INTO asset (key, code) VALUES (?1, ?2)", params![key, code])?;
            key
        };
        self.assets.insert(code.to_owned(), key);
        Ok(key)
    }

    /// The symbol or currency of an asset.
    pub fn asset_code(&mut self, key: AssetKey) -> Result<String, db::Error> {
        if let Some((code, _)) = self.assets.iter().find(|(_, k)| **k == key) {
            return Ok(code.clone());
        }
        let code: String =
            self.tx.query_one("SELECT code FROM asset WHERE key = ?1", params![key])?.get(0)?;
        self.assets.insert(code.clone(), key);
        Ok(code)
    }

    /// The house account that shares of a symbol come from.
    pub fn issuer(&mut self, symbol: &str) -> Result<AccountKey, db::Error> {
        house_account(self.tx, &format!("issuer:{symbol}"), self.now_us)
    }

    /// The balance as this transaction sees it; zero where there is none yet.
    pub fn balance(&mut self, account: AccountKey, asset: AssetKey) -> Result<Balance, db::Error> {
        if let Some(balance) = self.balances.get(&(account, asset)) {
            return Ok(*balance);
        }
        let row = self.tx.query_opt(
            "SELECT posted, held, cost, realized, created_us, updated_us FROM balance \
             WHERE account = ?1 AND asset = ?2",
            params![account, asset],
        )?;
        let balance = match row {
            Some(row) => balance_of(&row, 0)?,
            None => Balance { created_us: self.now_us, updated_us: self.now_us, ..Balance::default() },
        };
        self.balances.insert((account, asset), balance);
        Ok(balance)
    }

    fn rate(&mut self, id: i64) -> Result<i64, db::Error> {
        if let Some(&rate) = self.rates.get(&id) {
            return Ok(rate);
        }
        let rate = rate(self.tx, id)?;
        self.rates.insert(id, rate);
        Ok(rate)
    }

    /// The hold of an order, also a closed one that is still kept.
    pub fn hold(&mut self, order: Uuid) -> Result<Option<HoldRow>, db::Error> {
        if let Some(row) = self.holds.get(&order) {
            return Ok(Some(row.clone()));
        }
        let row = self.tx.query_opt(
            "SELECT account, symbol, listing, side, asked_e4, asked_price_e4, price_e4, open_e4, filled_e4, \
             maker_notional, taker_notional, rate, maker_bp, taker_bp, version, pending_version, \
             pending_total_e4, pending_price_e4, held, created_us, closed_us, end_kind FROM hold \
             WHERE order_id = ?1",
            params![&order.as_bytes()[..]],
        )?;
        let Some(row) = row else { return Ok(None) };
        let hold = self.hold_of(order, &row)?;
        self.holds.insert(order, hold.clone());
        Ok(Some(hold))
    }

    fn hold_of(&mut self, order: Uuid, row: &Row) -> Result<HoldRow, db::Error> {
        let defect = |what: &str| db::Error::Statement(format!("hold {order} has no valid {what}"));
        let (account, symbol, listing): (AccountKey, AssetKey, AssetKey) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let rate: Option<i64> = row.get(11)?;
        let fx = match rate {
            None => Fx::LOCAL,
            Some(id) => {
                let usd_cad = self.rate(id)?;
                let owner = self.account(account)?.ok_or_else(|| defect("account"))?;
                let listing = Currency::of_asset(listing).ok_or_else(|| defect("listing"))?;
                Fx::between(listing, owner.currency, usd_cad)
            }
        };
        let pending_version: u32 = row.get(15)?;
        let pending = (pending_version > 0)
            .then(|| {
                Ok::<_, db::Error>(Pending {
                    version: pending_version,
                    total_e4: row.get(16)?,
                    price_e4: row.get(17)?,
                })
            })
            .transpose()?;
        let hold = Hold {
            order,
            side: Side::of_number(row.get(3)?).ok_or_else(|| defect("side"))?,
            price_e4: row.get(6)?,
            open_e4: row.get(7)?,
            filled_e4: row.get(8)?,
            maker_notional: row.get(9)?,
            taker_notional: row.get(10)?,
            terms: Terms { fx, maker_bp: row.get(12)?, taker_bp: row.get(13)? },
            version: row.get(14)?,
            pending,
            end: End::of_number(row.get(21)?),
        };
        Ok(HoldRow {
            hold,
            account,
            symbol,
            listing,
            rate,
            asked_e4: row.get(4)?,
            asked_price_e4: row.get(5)?,
            held: row.get(18)?,
            created_us: row.get(19)?,
            closed_us: row.get(20)?,
        })
    }

    /// The asset that a hold is of: the account's currency for a BUY, the shares for a SELL.
    pub fn held_asset(&mut self, row: &HoldRow) -> Result<AssetKey, db::Error> {
        match row.hold.side {
            Side::Sell => Ok(row.symbol),
            Side::Buy => {
                let account = self.account(row.account)?;
                Ok(account.map_or(row.listing, |a| a.currency.asset()))
            }
        }
    }

    /// Stores the new state of a hold and moves what is held of the balance by the difference. Refuses what the
    /// balance does not cover.
    pub fn hold_put(&mut self, row: HoldRow) -> Result<(), Failure> {
        let needed = row.hold.needed().ok_or(Fault::Overflow)?;
        let asset = self.held_asset(&row)?;
        let held = needed.checked_sub(row.held).ok_or(Fault::Overflow)?;
        let adjustment = Adjustment { account: row.account, asset, held, cost: 0, realized: 0 };
        self.apply(&[], &[adjustment])?;
        self.hold_keep(row, needed);
        Ok(())
    }

    /// Stores a hold whose balance was moved by a ledger transaction.
    fn hold_keep(&mut self, mut row: HoldRow, held: i64) {
        row.held = held;
        if row.hold.end.is_some() && row.closed_us.is_none() {
            row.closed_us = Some(self.now_us);
        }
        self.changed_holds.insert(row.hold.order);
        self.holds.insert(row.hold.order, row);
    }

    /// Stores a ledger transaction with the holds that it moves. Nothing is changed where it is refused.
    pub fn record(
        &mut self,
        transaction: &Transaction,
        holds: impl IntoIterator<Item = HoldRow>,
    ) -> Result<i64, Failure> {
        let holds: Vec<(HoldRow, i64)> = holds
            .into_iter()
            .map(|row| row.hold.needed().map(|needed| (row, needed)).ok_or(Fault::Overflow))
            .collect::<Result<_, _>>()?;
        let changes: Vec<_> =
            transaction.postings.as_slice().iter().map(|p| (p.account, p.asset, p.amount)).collect();
        self.apply(&changes, &transaction.adjustments)?;
        let id = match self.ledger_id {
            Some(id) => id + 1,
            None => self.tx.query_one("SELECT COALESCE(MAX(id), 0) + 1 FROM ledger", &[])?.get(0)?,
        };
        self.ledger_id = Some(id);
        let reference = |id: Option<Uuid>| id.map(|id| id.as_bytes().to_vec());
        self.ledger.extend_from_slice(params![
            id,
            transaction.cause.number(),
            self.now_us,
            transaction.exec.map(|e| e.symbol),
            transaction.exec.map(|e| e.seq),
            transaction.exec.map(|e| e.price_e4),
            reference(transaction.payer_ref),
            reference(transaction.payee_ref),
            transaction.payer_rate,
            transaction.payee_rate,
        ]);
        for (number, p) in (0i64..).zip(transaction.postings.as_slice()) {
            let posting = id * POSTINGS_MAX as i64 + number;
            self.postings.extend_from_slice(params![posting, p.account, p.asset, p.amount, p.role.number()]);
        }
        for (row, held) in holds {
            self.hold_keep(row, held);
        }
        Ok(id)
    }

    /// Moves balances, all or none: posted amounts, then what else changes.
    fn apply(
        &mut self,
        postings: &[(AccountKey, AssetKey, i64)],
        adjustments: &[Adjustment],
    ) -> Result<(), Failure> {
        let mut after = BTreeMap::<(AccountKey, AssetKey), Balance>::new();
        for &(account, asset, amount) in postings {
            let mut balance = self.seen(&after, account, asset)?;
            balance.posted = balance.posted.checked_add(amount).ok_or(Fault::Overflow)?;
            after.insert((account, asset), balance);
        }
        for a in adjustments {
            let mut balance = self.seen(&after, a.account, a.asset)?;
            balance.held = balance.held.checked_add(a.held).ok_or(Fault::Overflow)?;
            balance.cost = balance.cost.checked_add(a.cost).ok_or(Fault::Overflow)?;
            balance.realized = balance.realized.checked_add(a.realized).ok_or(Fault::Overflow)?;
            after.insert((a.account, a.asset), balance);
        }
        for (&(account, asset), b) in &after {
            let client = self.account(account)?.is_some();
            if b.held < 0 || (client && b.posted < b.held) {
                return Err(Fault::Uncovered { account, asset, posted: b.posted, held: b.held }.into());
            }
        }
        self.assert_balanced(&after);
        for (key, balance) in after {
            if self.balances.get(&key) != Some(&balance) {
                self.balances.insert(key, Balance { updated_us: self.now_us, ..balance });
                self.changed_balances.insert(key);
            }
        }
        Ok(())
    }

    /// Money and shares only move: what some accounts gain the others lose. [`Balanced`] has refused everything else,
    /// so this guards the arithmetic here.
    ///
    /// [`Balanced`]: crate::domain::ledger::Balanced
    fn assert_balanced(&self, after: &BTreeMap<(AccountKey, AssetKey), Balance>) {
        let mut moved = BTreeMap::<AssetKey, i128>::new();
        for (key, balance) in after {
            let before = self.balances.get(key).map_or(0, |b| b.posted);
            *moved.entry(key.1).or_default() += i128::from(balance.posted) - i128::from(before);
        }
        assert!(
            moved.values().all(|sum| *sum == 0),
            "invariant: the ledger sums to zero per asset; moved by asset: {moved:?}"
        );
    }

    fn seen(
        &mut self,
        after: &BTreeMap<(AccountKey, AssetKey), Balance>,
        account: AccountKey,
        asset: AssetKey,
    ) -> Result<Balance, db::Error> {
        match after.get(&(account, asset)) {
            Some(balance) => Ok(*balance),
            None => self.balance(account, asset),
        }
    }

    /// Adds to a counter that [`super::counter`] reads.
    pub fn count(&mut self, name: &str, more: u64) -> Result<(), db::Error> {
        if more > 0 {
            self.tx.execute(
                "INSERT INTO counter (name, value) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET value = counter.value + excluded.value",
                params![name, more],
            )?;
        }
        Ok(())
    }

    /// Writes everything and answers what is to be told after the commit.
    pub fn finish(mut self) -> Result<Outcome, db::Error> {
        insert_many(
            self.tx,
            "INSERT INTO ledger (id, kind, time_us, symbol, exec_seq, price_e4, payer_ref, payee_ref, payer_rate, \
             payee_rate) VALUES",
            LEDGER_COLUMNS,
            "",
            &self.ledger,
        )?;
        insert_many(
            self.tx,
            "INSERT INTO posting (id, account, asset, amount, role) VALUES",
            POSTING_COLUMNS,
            "",
            &self.postings,
        )?;
        let mut values = Vec::with_capacity(self.changed_balances.len() * BALANCE_COLUMNS);
        for (account, asset) in self.changed_balances.clone() {
            let client = self.account(account)?.is_some();
            let b = self.balance(account, asset)?;
            assert!(
                b.held >= 0 && (!client || b.held <= b.posted),
                "invariant: a client's balance covers what is held; account {account} asset {asset}: {b:?}"
            );
            values.extend_from_slice(params![
                account,
                asset,
                client,
                b.posted,
                b.held,
                b.cost,
                b.realized,
                b.created_us,
                b.updated_us,
            ]);
        }
        insert_many(
            self.tx,
            "INSERT INTO balance (account, asset, client, posted, held, cost, realized, created_us, updated_us) VALUES",
            BALANCE_COLUMNS,
            " ON CONFLICT (account, asset) DO UPDATE SET posted = excluded.posted, held = excluded.held, \
             cost = excluded.cost, realized = excluded.realized, updated_us = excluded.updated_us",
            &values,
        )?;
        self.write_holds()?;
        let updates = self.write_updates()?;
        Ok(Outcome { updates })
    }

    fn write_holds(&mut self) -> Result<(), db::Error> {
        let mut values = Vec::with_capacity(self.changed_holds.len() * HOLD_COLUMNS);
        for order in &self.changed_holds {
            let Some(row) = self.holds.get(order) else { continue };
            let hold = &row.hold;
            let pending = hold.pending;
            values.extend_from_slice(params![
                order.as_bytes().to_vec(),
                row.account,
                row.symbol,
                row.listing,
                hold.side.number(),
                row.asked_e4,
                row.asked_price_e4,
                hold.price_e4,
                hold.open_e4,
                hold.filled_e4,
                hold.maker_notional,
                hold.taker_notional,
                row.rate,
                hold.terms.maker_bp,
                hold.terms.taker_bp,
                hold.version,
                pending.map_or(0, |p| p.version),
                pending.map_or(0, |p| p.total_e4),
                pending.map_or(0, |p| p.price_e4),
                row.held,
                row.created_us,
                row.closed_us,
                End::number(hold.end),
            ]);
        }
        insert_many(
            self.tx,
            "INSERT INTO hold (order_id, account, symbol, listing, side, asked_e4, asked_price_e4, price_e4, open_e4, \
             filled_e4, maker_notional, taker_notional, rate, maker_bp, taker_bp, version, pending_version, \
             pending_total_e4, pending_price_e4, held, created_us, closed_us, end_kind) VALUES",
            HOLD_COLUMNS,
            " ON CONFLICT (order_id) DO UPDATE SET price_e4 = excluded.price_e4, open_e4 = excluded.open_e4, \
             filled_e4 = excluded.filled_e4, maker_notional = excluded.maker_notional, \
             taker_notional = excluded.taker_notional, version = excluded.version, \
             pending_version = excluded.pending_version, pending_total_e4 = excluded.pending_total_e4, \
             pending_price_e4 = excluded.pending_price_e4, held = excluded.held, closed_us = excluded.closed_us, \
             end_kind = excluded.end_kind",
            &values,
        )
    }

    /// One update per account that changed, or per holding of it that changed, in the sequence of its user.
    fn write_updates(&mut self) -> Result<Vec<v1::PortfolioUpdate>, db::Error> {
        let mut changed = BTreeMap::<AccountKey, Vec<AssetKey>>::new();
        for &account in &self.changed_accounts {
            changed.entry(account).or_default();
        }
        for &(account, asset) in &self.changed_balances {
            let holdings = changed.entry(account).or_default();
            if Currency::of_asset(asset).is_none() {
                holdings.push(asset);
            }
        }
        let mut updates = Vec::new();
        let mut last = BTreeMap::<UserId, i64>::new();
        for (key, holdings) in changed {
            let Some(account) = self.account(key)? else { continue };
            if agents::is_agent(account.user) {
                continue;
            }
            let user = account.user;
            let cash = self.balance(key, account.currency.asset())?;
            let shown = wire::account(&account, &cash);
            let holdings =
                if holdings.is_empty() { vec![None] } else { holdings.into_iter().map(Some).collect() };
            for asset in holdings {
                let holding = match asset {
                    None => None,
                    Some(asset) => {
                        let (code, balance) = (self.asset_code(asset)?, self.balance(key, asset)?);
                        Some(wire::holding(&account, asset, &code, &balance))
                    }
                };
                let before = match last.get(&user) {
                    Some(seq) => *seq,
                    None => last_update(self.tx, user)?,
                };
                let seq = before + 1;
                last.insert(user, seq);
                let update = v1::PortfolioUpdate {
                    user_id: user.to_string(),
                    user_seq: seq as u64,
                    account: Some(shown.clone()),
                    holding,
                };
                self.tx.execute(
                    "INSERT INTO private_update (user_id, seq, payload) VALUES (?1, ?2, ?3)",
                    params![user, seq, update.encode_to_vec()],
                )?;
                if seq % PRUNE_EVERY == 0 {
                    self.tx.execute(
                        "DELETE FROM private_update WHERE user_id = ?1 AND seq <= ?2",
                        params![user, seq - UPDATES_KEPT],
                    )?;
                }
                updates.push(update);
            }
        }
        Ok(updates)
    }
}

/// The last private update of a user; 0 before the first.
pub fn last_update(tx: &mut dyn Tx, user: UserId) -> Result<i64, db::Error> {
    tx.query_one("SELECT COALESCE(MAX(seq), 0) FROM private_update WHERE user_id = ?1", params![user])?.get(0)
}

/// Reads posted, held, cost, realized, created, updated from a row, from column `first`.
pub(super) fn balance_of(row: &Row, first: usize) -> Result<Balance, db::Error> {
    Ok(Balance {
        posted: row.get(first)?,
        held: row.get(first + 1)?,
        cost: row.get(first + 2)?,
        realized: row.get(first + 3)?,
        created_us: row.get(first + 4)?,
        updated_us: row.get(first + 5)?,
    })
}
