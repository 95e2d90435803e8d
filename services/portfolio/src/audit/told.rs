//! What the facts tell, against the rows that should say so.

use crate::{
    domain::ledger::{Entry, Hash},
    store::{self, AccountRow, Standing},
};
use fafnir_platform::checks::{Check, digest};
use fafnir_proto::v1::{Fact, FactKind};
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};

/// What facts told so far that later rows are compared with.
#[derive(Debug, Clone)]
pub struct Told {
    /// The facts behind this position are all of it.
    pub begins: u64,
    pub until: u64,
    rates: BTreeMap<u32, i64>,
    fees: BTreeMap<u32, (u32, u32)>,
    listings: HashMap<String, String>,
    accounts: HashMap<String, AccountRow>,
    /// Private updates and keys are told too: once, with every row of them.
    beside: bool,
    /// User → number of an update → its digest; those that may be kept.
    updates: HashMap<String, BTreeMap<u64, u64>>,
    keys: HashMap<(String, String), u64>,
    pub ledger: Check,
}

/// The digest of what a key stands for.
pub fn key_digest(payload: &[u8], object: &str, amount: i64, position: u64) -> u64 {
    let mut bytes = payload.to_vec();
    bytes.extend_from_slice(object.as_bytes());
    bytes.extend_from_slice(&amount.to_be_bytes());
    bytes.extend_from_slice(&position.to_be_bytes());
    digest(&bytes)
}

impl Told {
    pub fn new(begins: u64) -> Self {
        Self {
            begins,
            until: begins,
            rates: BTreeMap::new(),
            fees: BTreeMap::new(),
            listings: HashMap::new(),
            accounts: HashMap::new(),
            beside: true,
            updates: HashMap::new(),
            keys: HashMap::new(),
            ledger: Check::new("every transaction of the ledger is what its fact tells"),
        }
    }

    /// Takes a page of facts, and the rows of the ledger at their positions, both in order.
    pub fn page(&mut self, facts: &[Fact], rows: &[(Entry, Hash)]) {
        let mut rows = rows.iter().map(|(entry, _)| entry).peekable();
        for fact in facts {
            self.until = fact.position;
            self.fact(fact);
            let is_at = |row: &&Entry| row.id.unsigned_abs() == fact.position;
            while let Some(row) = rows.next_if(|row| row.id.unsigned_abs() < fact.position) {
                self.ledger.find(format!("transaction {}, of which no fact tells", row.id));
            }
            if fact.postings.is_empty() {
                continue;
            }
            let row = rows.next_if(is_at);
            let same = match (store::entry_of(fact), row) {
                (Ok(told), Some(row)) => told == *row,
                _ => false,
            };
            self.ledger.look(same, || format!("transaction {}", fact.position));
        }
        for row in rows {
            self.ledger.find(format!("transaction {}, of which no fact tells", row.id));
        }
    }

    /// Private updates and keys were compared: they are not gathered any more.
    pub fn forget_beside(&mut self) {
        (self.beside, self.updates, self.keys) = (false, HashMap::new(), HashMap::new());
    }

    fn fact(&mut self, fact: &Fact) {
        if let Some(terms) = fact.terms.filter(|_| fact.kind() == FactKind::TermsSet) {
            self.rates.entry(terms.rate_id).or_insert(terms.usd_cad_micros);
            self.fees.entry(terms.fees_id).or_insert((terms.maker_bp, terms.taker_bp));
        }
        if let Some(listing) = fact.instrument.as_ref().filter(|_| fact.kind() == FactKind::InstrumentSet) {
            self.listings.insert(listing.symbol.clone(), listing.currency.clone());
        }
        for update in &fact.balances {
            if let Some(a) = &update.account {
                let closed = a.closed || self.accounts.get(&a.id).is_some_and(|known| known.closed);
                self.accounts.insert(a.id.clone(), AccountRow { closed, ..AccountRow::of(a) });
            }
            if self.beside && update.user_seq > 0 {
                let kept = self.updates.entry(update.user_id.clone()).or_default();
                kept.insert(update.user_seq, digest(&update.encode_to_vec()));
                while kept.len() > store::UPDATES_ROWS_MAX {
                    kept.pop_first();
                }
            }
        }
        if let (true, Some(key), Some(done)) = (self.beside, &fact.key, &fact.done)
            && store::is_keyed(fact.kind())
        {
            let told = key_digest(&key.payload, &done.object_id, done.amount_micros, fact.position);
            self.keys.insert((fact.user_id.clone(), key.key.clone()), told);
        }
    }

    /// Compares what stands with what was told up to there.
    pub fn compare(&self, s: &Standing) -> Vec<Check> {
        let mut all = vec![self.ledger.clone(), self.terms(s), self.accounts(s)];
        if s.is_whole {
            all.extend([self.updates(s), self.keys(s)]);
        }
        all
    }

    fn terms(&self, s: &Standing) -> Check {
        let mut check = Check::new("rates, fee schedules and listings are what the facts tell");
        for (id, told) in self.rates.iter().filter(|(id, _)| **id > 0) {
            check.look(s.rates.get(id) == Some(told), || format!("rate {id}"));
        }
        for (id, told) in self.fees.iter().filter(|(id, _)| **id > 0) {
            check.look(s.fees.get(id) == Some(told), || format!("fee schedule {id}"));
        }
        for (symbol, told) in &self.listings {
            check.look(s.currencies.get(symbol) == Some(told), || format!("currency of {symbol}"));
        }
        if self.begins == 0 {
            let untold = s.rates.len() + s.fees.len() > self.known_terms();
            check.look(!untold, || "a rate or a schedule that no fact tells of".to_owned());
        }
        check
    }

    fn known_terms(&self) -> usize {
        let known = |ids: &mut dyn Iterator<Item = &u32>| ids.filter(|id| **id > 0).count();
        known(&mut self.rates.keys()) + known(&mut self.fees.keys())
    }

    fn accounts(&self, s: &Standing) -> Check {
        let mut check = Check::new("every account is what the facts tell");
        for (id, told) in &self.accounts {
            check.look(s.rows.get(id) == Some(told), || format!("account {id}"));
        }
        if self.begins == 0 {
            for id in s.rows.keys().filter(|id| !self.accounts.contains_key(*id)) {
                check.find(format!("account {id}, of which no fact tells"));
            }
        }
        check
    }

    fn updates(&self, s: &Standing) -> Check {
        let mut check = Check::new("every private update of money is what the facts tell");
        for (user, told) in &self.updates {
            let last = told.last_key_value().map_or(0, |(seq, _)| *seq);
            let rows = s.updates.get(user);
            for (seq, digest) in told {
                let row = rows.and_then(|rows| rows.get(seq));
                let may_be_gone = seq + store::UPDATES_KEPT_MIN <= last;
                let fits = row.map_or(may_be_gone, |row| row == digest);
                check.look(fits, || format!("update {seq} of user {user}"));
            }
            for seq in rows.into_iter().flat_map(BTreeMap::keys).filter(|seq| **seq > last) {
                check.find(format!("update {seq} of user {user}, of which no fact tells"));
            }
        }
        if self.begins == 0 {
            for user in s.updates.keys().filter(|user| !self.updates.contains_key(*user)) {
                check.find(format!("updates of user {user}, of which no fact tells"));
            }
        }
        check
    }

    fn keys(&self, s: &Standing) -> Check {
        let mut check = Check::new("every key of a request stands for what it did");
        for ((user, key), told) in &self.keys {
            let row = s.keys.get(&(user.clone(), key.clone()));
            check.look(row.is_some_and(|(digest, _)| digest == told), || {
                format!("key {key:?} of user {user:?}")
            });
        }
        for ((user, key), (_, position)) in &s.keys {
            if *position > self.begins && !self.keys.contains_key(&(user.clone(), key.clone())) {
                check.find(format!("key {key:?} of user {user:?}, of which no fact tells"));
            }
        }
        check
    }
}
