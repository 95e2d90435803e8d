//! Everything that the exchange knows. Hash maps are for look-ups and never iterated, save where the result is sorted at
//! once.

use crate::{
    account::{Account, Asset, Currency, House, MICROS, User},
    fact::{AccountAfter, Posting, Terms, Touched},
    group::Group,
    market::{Market, Pause},
    order::Order,
    recent::Recent,
    refusal::Refusal,
    terms::{Fees, Fx, Rules},
};
use fafnir_matching::Events;
use fafnir_rules::{calendar::Session, symbol::Symbol};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// All clients' cash, in either currency and with all that open orders may make of it, stays within half of what an
/// amount can be: no balance of a client overflows, whatever trades at whatever rate of its acceptance.
pub(crate) const CASH_MAX: i128 = i64::MAX as i128 / 2;

/// The state of the exchange.
#[derive(Debug)]
pub struct State {
    /// Sequence of the last command.
    pub(crate) seq: u64,
    pub(crate) time_us: i64,
    /// Position of the last fact.
    pub(crate) position: u64,
    pub(crate) order_no: u64,
    pub(crate) account_no: u64,
    /// Time of the last day end; before the first that of the first command.
    pub(crate) day_end_us: i64,
    /// What the calendar has the symbols do, and since when.
    pub(crate) session: Session,
    pub(crate) session_us: i64,
    pub(crate) rules: Rules,
    /// Fee schedules and rates: id − 1 is the index, the last one is in force. Without a rate nobody changes currencies.
    pub(crate) fees: Vec<Fees>,
    pub(crate) rates: Vec<i64>,
    pub(crate) users: Vec<User>,
    pub(crate) user_numbers: HashMap<Uuid, u32>,
    pub(crate) accounts: HashMap<Uuid, Account>,
    pub(crate) markets: Vec<Market>,
    pub(crate) market_numbers: HashMap<Symbol, u32>,
    /// Open order → market and number.
    pub(crate) open: HashMap<Uuid, (u32, u64)>,
    /// Open orders by owner, in the order of their numbers.
    pub(crate) by_owner: BTreeSet<(u32, u64, u32)>,
    /// Open GTD orders by time.
    pub(crate) gtd: BTreeSet<(i64, u64)>,
    pub(crate) house: BTreeMap<(House, Asset), i128>,
    /// All clients' cash by currency: what the accounts add up to.
    pub(crate) client_cash: [i128; 2],
    /// What of it open orders hold.
    pub(crate) client_held: [i128; 2],
    /// The rates that open orders were accepted at, and how many at each.
    pub(crate) rates_open: BTreeMap<i64, u32>,
    pub(crate) recent: Recent,
    /// Groups whose orders still depend on each other.
    pub(crate) groups: BTreeMap<Uuid, Group>,
    pub(crate) events: Events,
}

impl Default for State {
    fn default() -> Self {
        Self {
            seq: 0,
            time_us: 0,
            position: 0,
            order_no: 0,
            account_no: 0,
            day_end_us: 0,
            session: Session::Always,
            session_us: 0,
            rules: Rules::default(),
            fees: Vec::new(),
            rates: Vec::new(),
            users: Vec::new(),
            user_numbers: HashMap::new(),
            accounts: HashMap::new(),
            markets: Vec::new(),
            market_numbers: HashMap::new(),
            open: HashMap::new(),
            by_owner: BTreeSet::new(),
            gtd: BTreeSet::new(),
            house: BTreeMap::new(),
            client_cash: [0; 2],
            client_held: [0; 2],
            rates_open: BTreeMap::new(),
            recent: Recent::default(),
            groups: BTreeMap::new(),
            events: Events::new(),
        }
    }
}

impl State {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sequence of the last command.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Time of the last command.
    pub fn time_us(&self) -> i64 {
        self.time_us
    }

    /// Position of the last fact.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Time of the last day end; before the first that of the first command, 0 before any.
    pub fn day_end_us(&self) -> i64 {
        self.day_end_us
    }

    /// What the calendar has the symbols do.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Time of the command that set the session.
    pub fn session_us(&self) -> i64 {
        self.session_us
    }

    /// The earliest GTD time of an open order.
    pub fn next_expiry_us(&self) -> Option<i64> {
        self.gtd.first().map(|(time, _)| *time)
    }

    /// The symbols in a volatility pause.
    pub fn paused(&self) -> impl Iterator<Item = (&Symbol, Pause)> {
        self.markets.iter().filter_map(|m| Some((&m.symbol, m.pause?)))
    }

    pub fn markets(&self) -> &[Market] {
        &self.markets
    }

    /// The market of a symbol.
    pub fn market(&self, symbol: &Symbol) -> Option<&Market> {
        self.market_numbers.get(symbol).map(|number| &self.markets[*number as usize])
    }

    /// The users; the number of one is its index + 1.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// A user by its id.
    pub fn user(&self, id: Uuid) -> Option<&User> {
        self.user_numbers.get(&id).map(|number| &self.users[*number as usize - 1])
    }

    /// The user with this number.
    pub fn owner(&self, number: u32) -> Option<&User> {
        self.users.get((number as usize).checked_sub(1)?)
    }

    /// An open account.
    pub fn account(&self, id: Uuid) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// The open accounts in the order of their ids, after one.
    pub fn accounts_after(&self, after: Uuid, limit: usize) -> Vec<&Account> {
        let mut found: Vec<_> = self.accounts.values().filter(|a| a.id > after).collect();
        found.sort_unstable_by_key(|a| a.id);
        found.truncate(limit);
        found
    }

    /// Number of open accounts.
    pub fn open_accounts(&self) -> usize {
        self.accounts.len()
    }

    /// An open order.
    pub fn order(&self, id: Uuid) -> Option<&Order> {
        let (market, number) = *self.open.get(&id)?;
        self.markets[market as usize].orders.get(&number)
    }

    /// Number of open orders, held stops included.
    pub fn open_orders(&self) -> usize {
        self.open.len()
    }

    /// The ids of the open orders after one, lowest first, at most so many.
    pub fn order_ids_after(&self, after: Uuid, limit: usize) -> Vec<Uuid> {
        let mut ids: Vec<Uuid> = self.open.keys().filter(|id| **id > after).copied().collect();
        if ids.len() > limit {
            ids.select_nth_unstable(limit);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        ids
    }

    /// Open orders of a user, oldest first.
    pub fn orders_of(&self, user: Uuid) -> impl Iterator<Item = &Order> {
        let number = self.user_numbers.get(&user).copied().unwrap_or(0);
        self.by_owner
            .range((number, 0, 0)..=(number, u64::MAX, u32::MAX))
            .filter_map(|(_, order, market)| self.markets[*market as usize].orders.get(order))
    }

    /// Every open order, by owner, oldest first.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.by_owner.iter().filter_map(|(_, order, market)| self.markets[*market as usize].orders.get(order))
    }

    /// A group whose orders still depend on each other.
    pub fn group(&self, id: Uuid) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// What the house has.
    pub fn house(&self) -> impl Iterator<Item = (House, Asset, i128)> {
        self.house.iter().map(|((house, asset), amount)| (*house, *asset, *amount))
    }

    /// What is computed with.
    pub fn terms(&self) -> Terms {
        Terms {
            rules: self.rules,
            fees_id: self.fees.len() as u32,
            fees: self.fees.last().copied().unwrap_or_default(),
            rate_id: self.rates.len() as u32,
            usd_cad: self.rates.last().copied().unwrap_or(MICROS),
        }
    }

    /// Every rate, that with id 1 first.
    pub fn rates(&self) -> &[i64] {
        &self.rates
    }

    /// Every fee schedule, that with id 1 first.
    pub fn fees(&self) -> &[Fees] {
        &self.fees
    }

    /// The rate with this id; 0 is that of one currency.
    pub(crate) fn fx(&self, rate: u32, from: Currency, to: Currency) -> Fx {
        let found = (rate as usize).checked_sub(1).and_then(|i| self.rates.get(i));
        found.map_or(Fx::LOCAL, |usd_cad| Fx::between(from, to, *usd_cad))
    }

    /// The id of the rate in force between two currencies; 0 where they are one.
    pub(crate) fn rate_id(&self, from: Currency, to: Currency) -> Result<u32, Refusal> {
        match (from == to, self.rates.len() as u32) {
            (true, _) => Ok(0),
            (false, 0) => Err(Refusal::NoRate),
            (false, last) => Ok(last),
        }
    }

    /// What all clients' cash is worth in either currency at a rate: within [`CASH_MAX`] or not.
    pub(crate) fn fits(&self, more: [i128; 2], usd_cad: i64) -> bool {
        let rate = i128::from(usd_cad);
        let (usd, cad) = (self.client_cash[0] + more[0], self.client_cash[1] + more[1]);
        let micros = i128::from(MICROS);
        usd + cad * micros / rate <= CASH_MAX && cad + usd * rate / micros <= CASH_MAX
    }

    /// Whether every open order can be settled with so much more cash and holds, and new orders at this rate: what clients
    /// have in a currency, and what trades of held cash at the rates in use can make in it, is within [`CASH_MAX`].
    ///
    /// Held USD become CAD at the highest rate, held CAD become USD at the lowest, and where a buyer's rate differs from
    /// the seller's, held cash may grow within its own currency by their quotient. What a trade adds to a currency it
    /// takes from what is held at least so much, so that trades, cancels and money that leaves never raise the sum: only
    /// what is checked by this does.
    pub(crate) fn settles(&self, cash: [i128; 2], held: [i128; 2], usd_cad: i64) -> bool {
        let rates = || self.rates_open.keys().copied();
        let low = i128::from(rates().next().map_or(usd_cad, |rate| rate.min(usd_cad)));
        let high = i128::from(rates().next_back().map_or(usd_cad, |rate| rate.max(usd_cad)));
        let [usd, cad] = [0, 1].map(|c| self.client_cash[c] + cash[c]);
        let [held_usd, held_cad] = [0, 1].map(|c| self.client_held[c] + held[c]);
        let micros = i128::from(MICROS);
        // Both sides times what would divide: at most 2¹²⁰.
        usd * low + held_usd * (high - low) + held_cad * micros <= CASH_MAX * low
            && (cad * low + held_cad * (high - low)) * micros + held_usd * high * low
                <= CASH_MAX * low * micros
    }

    /// Counts an order among those that are open at its rate, or no longer.
    pub(crate) fn count_rate(&mut self, rate: u32, opened: bool) {
        let Some(usd_cad) = (rate as usize).checked_sub(1).and_then(|i| self.rates.get(i)).copied() else {
            return;
        };
        let orders = self.rates_open.entry(usd_cad).or_default();
        *orders = if opened { *orders + 1 } else { *orders - 1 };
        if *orders == 0 {
            self.rates_open.remove(&usd_cad);
        }
    }

    /// Notes what a posting did to the house.
    pub(crate) fn post_house(&mut self, posting: &Posting) {
        if let crate::fact::Party::House(house) = posting.party {
            let key = (house, posting.asset);
            let balance = self.house.entry(key).or_default();
            *balance += i128::from(posting.amount);
            if *balance == 0 {
                self.house.remove(&key);
            }
        }
    }

    /// The account after what was just done, with the next number of its user's money.
    pub(crate) fn touch(&mut self, account: Uuid, market: Option<u32>, closed: bool) -> Option<Touched> {
        let now = self.time_us;
        let a = self.accounts.get_mut(&account)?;
        a.updated_us = now;
        let holding = market.map(|m| (m, a.holdings.get(&m).copied().unwrap_or_default()));
        let after = account_after(a, closed);
        let user = &mut self.users[a.owner as usize - 1];
        if !user.agent {
            user.money_seq += 1;
        }
        user.touched = self.position + 1;
        Some(Touched { user: user.id, seq: user.money_seq, account: after, holding })
    }
}

/// An account as it is.
pub fn account_after(a: &Account, closed: bool) -> AccountAfter {
    AccountAfter {
        id: a.id,
        number: a.number,
        kind: a.kind,
        currency: a.currency,
        cash: a.cash,
        opened_us: a.opened_us,
        updated_us: a.updated_us,
        closed,
    }
}
