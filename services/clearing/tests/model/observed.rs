//! The exchange as its facts tell it, and what every fact must keep to (exchange-rules §6).

use fafnir_clearing::{
    account::{Asset, Holding, House},
    command::Command,
    fact::{AccountAfter, Fact, OrderAfter, OrderKind, Party, Posting, Terms, Touched, Trade, What},
    order::Order,
};
use fafnir_rules::order::{OrderState, Side};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[derive(Debug, Default)]
pub struct Observed {
    pub position: u64,
    execs: BTreeMap<u32, u64>,
    trades: BTreeMap<u32, u64>,
    order_seqs: BTreeMap<Uuid, u64>,
    money_seqs: BTreeMap<Uuid, u64>,
    pub agents: BTreeSet<Uuid>,
    /// Open ones.
    pub accounts: BTreeMap<Uuid, (Uuid, AccountAfter)>,
    pub holdings: BTreeMap<(Uuid, u32), Holding>,
    pub orders: BTreeMap<Uuid, Order>,
    /// Sums of postings.
    pub clients: BTreeMap<(Uuid, Asset), i128>,
    pub house: BTreeMap<(House, Asset), i128>,
    pub terms: Option<Terms>,
    /// The model's market by the core's number.
    pub markets: BTreeMap<u32, usize>,
    touched: BTreeSet<Uuid>,
    /// Position of the last fact that touched a user.
    pub users: BTreeMap<Uuid, u64>,
}

fn ensure(right: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(wrong()) }
}

impl Observed {
    /// Takes the facts of one command.
    pub fn take(&mut self, now: i64, command: &Command, facts: &[Fact]) -> Result<(), String> {
        self.touched.clear();
        if command.agent {
            self.agents.insert(command.user);
        }
        for (at, fact) in facts.iter().enumerate() {
            self.fact(now, command, fact, at == 0).map_err(|wrong| format!("{wrong}\nin {fact:#?}"))?;
        }
        self.check_holds()
    }

    fn fact(&mut self, now: i64, command: &Command, fact: &Fact, first: bool) -> Result<(), String> {
        self.position += 1;
        ensure(fact.position == self.position, || format!("position {} is next", self.position))?;
        ensure(fact.time_us == now, || format!("the command's time is {now}"))?;
        ensure(fact.user == command.user, || format!("the command is that of {}", command.user))?;
        let name = fact.named.as_ref().map(|named| &named.0);
        let expected = command.id.as_ref().filter(|_| first);
        ensure(name == expected, || {
            format!("the first fact, and no other, names the command: {expected:?}")
        })?;
        if let Some((market, number)) = fact.at {
            let seq = self.execs.entry(market).or_default();
            *seq += 1;
            ensure(number == *seq, || format!("number {seq} is next in market {market}"))?;
        }
        match &fact.what {
            What::Order(order) => {
                self.order(&order.order, order.kind)?;
                if let Some(other) = &order.other {
                    self.order(other, order.kind)?;
                }
                for touched in order.touched.iter().flatten() {
                    self.touch(touched)?;
                }
            }
            What::Executed(trade) => self.trade(fact, trade)?,
            What::Money(money) => {
                self.post(&money.postings)?;
                for touched in money.touched.iter().flatten() {
                    self.touch(touched)?;
                }
            }
            What::AccountOpened(touched) => self.touch(touched)?,
            What::AccountClosed(touched) => {
                ensure(touched.account.closed, || "it is closed".to_owned())?;
                self.touch(touched)?;
                self.accounts.remove(&touched.account.id);
                let cash = Asset::Cash(touched.account.currency);
                let left = self.clients.iter().find(|((id, _), sum)| *id == touched.account.id && **sum != 0);
                ensure(left.is_none(), || format!("nothing is left of {cash:?}: {left:?}"))?;
            }
            What::TermsSet(terms) => self.terms = Some(*terms),
            What::InstrumentSet(_) => {
                let next = self.markets.len();
                let number = fact.at.map_or(next as u32, |at| at.0);
                self.markets.entry(number).or_insert(next);
            }
            What::UserClosed => {
                self.users.insert(fact.user, fact.position);
            }
            What::StateChanged { .. } => {}
        }
        Ok(())
    }

    fn next(
        seqs: &mut BTreeMap<Uuid, u64>,
        agents: &BTreeSet<Uuid>,
        user: Uuid,
        seq: u64,
        what: &str,
    ) -> Result<(), String> {
        if agents.contains(&user) {
            return ensure(seq == 0, || format!("an agent has no {what}"));
        }
        let last = seqs.entry(user).or_default();
        *last += 1;
        ensure(seq == *last, || format!("{what} {last} of {user} is next, not {seq}"))
    }

    fn order(&mut self, after: &OrderAfter, kind: OrderKind) -> Result<(), String> {
        Self::next(&mut self.order_seqs, &self.agents, after.user, after.seq, "order_seq")?;
        self.users.insert(after.user, self.position);
        let order = &after.order;
        ensure(0 <= order.filled_e4 && order.filled_e4 <= order.quantity_e4, || {
            "0 ≤ filled ≤ quantity".into()
        })?;
        ensure(order.state.is_open() || order.hold.held == 0, || "an ended order holds nothing".into())?;
        ensure(order.state.is_open() == order.end.is_none() || order.state == OrderState::Filled, || {
            "an order that ended, and was not filled, says why".into()
        })?;
        let before = self.orders.get(&order.id);
        let is_first = matches!(kind, OrderKind::Accepted | OrderKind::Rejected);
        ensure(before.is_none() || !is_first, || "an order begins once".into())?;
        ensure(before.is_some() || is_first, || "it is open".into())?;
        if let Some(before) = before {
            let (from, to) = (before.state, order.state);
            ensure(leads(from, to), || format!("{} never leads to {}", from.name(), to.name()))?;
            let grew = order.version - before.version;
            ensure(grew == u32::from(kind == OrderKind::Replaced), || "a replace counts".into())?;
            let same = (before.account, before.market, before.side, before.rate, before.fees)
                == (order.account, order.market, order.side, order.rate, order.fees);
            ensure(same, || "rate and schedule are those of acceptance".into())?;
        } else if let Some(terms) = &self.terms {
            let of = order.rate == 0 || order.rate == terms.rate_id;
            ensure(of && order.fees == terms.fees_id, || format!("the terms are {terms:?}"))?;
        }
        self.touched.insert(order.account);
        if order.state.is_open() {
            self.orders.insert(order.id, order.clone());
        } else {
            self.orders.remove(&order.id);
        }
        Ok(())
    }

    fn trade(&mut self, fact: &Fact, trade: &Trade) -> Result<(), String> {
        let market = fact.at.ok_or("a trade is in a market")?.0;
        let number = self.trades.entry(market).or_default();
        *number += 1;
        ensure(trade.trade_no == *number, || format!("trade {number} is next"))?;
        ensure(trade.price_e4 > 0 && trade.quantity_e4 > 0, || "price and quantity".into())?;
        ensure(trade.taker.user != trade.maker.user, || "buyer ≠ seller".into())?;
        let (buyer, seller) = trade.sides();
        for (after, touched, side) in [(buyer, &trade.buyer, Side::Buy), (seller, &trade.seller, Side::Sell)]
        {
            let order = &after.order;
            let right = order.side == side && order.account == touched.account.id && order.market == market;
            ensure(right, || format!("the {side} side"))?;
            let within = if side == Side::Buy {
                trade.price_e4 <= order.cap_e4
            } else {
                trade.price_e4 >= order.cap_e4
            };
            ensure(within, || format!("{side} within {}", order.cap_e4))?;
            let before = self.orders.get(&order.id).ok_or("a fill of an order that is not open")?;
            let filled = order.filled_e4 - before.filled_e4;
            ensure(filled == trade.quantity_e4, || "each side is filled by the trade's quantity".into())?;
        }
        self.order(&trade.taker, OrderKind::Triggered)?;
        self.order(&trade.maker, OrderKind::Triggered)?;
        self.post(&trade.postings)?;
        self.touch(&trade.buyer)?;
        self.touch(&trade.seller)
    }

    fn post(&mut self, postings: &[Posting]) -> Result<(), String> {
        let mut sums = BTreeMap::<Asset, i128>::new();
        for posting in postings {
            let amount = i128::from(posting.amount);
            *sums.entry(posting.asset).or_default() += amount;
            match posting.party {
                Party::Client(id) => {
                    *self.clients.entry((id, posting.asset)).or_default() += amount;
                    self.touched.insert(id);
                }
                Party::House(house) => *self.house.entry((house, posting.asset)).or_default() += amount,
            }
        }
        ensure(postings.len() <= 16, || "at most 16 postings".into())?;
        ensure(sums.values().all(|sum| *sum == 0), || format!("postings sum to zero: {sums:?}"))
    }

    fn touch(&mut self, touched: &Touched) -> Result<(), String> {
        Self::next(&mut self.money_seqs, &self.agents, touched.user, touched.seq, "money_seq")?;
        self.users.insert(touched.user, self.position);
        let (id, cash) = (touched.account.id, touched.account.cash);
        ensure(0 <= cash.held && cash.held <= cash.posted, || format!("0 ≤ held ≤ posted: {cash:?}"))?;
        let of = |asset| self.clients.get(&(id, asset)).copied().unwrap_or(0);
        let sum = of(Asset::Cash(touched.account.currency));
        ensure(i128::from(cash.posted) == sum, || format!("cash is the sum of its postings, {sum}"))?;
        self.accounts.insert(id, (touched.user, touched.account));
        self.touched.insert(id);
        if let Some((market, holding)) = touched.holding {
            let sum = of(Asset::Shares(market));
            ensure(i128::from(holding.posted) == sum, || format!("shares are the sum of postings, {sum}"))?;
            ensure(0 <= holding.held && holding.held <= holding.posted, || format!("{holding:?}"))?;
            ensure(holding.cost >= 0, || format!("{holding:?}"))?;
            if holding.posted == 0 {
                ensure(holding.cost == 0, || format!("no shares, no cost: {holding:?}"))?;
                self.holdings.remove(&(id, market));
            } else {
                self.holdings.insert((id, market), holding);
            }
        }
        Ok(())
    }

    /// What accounts hold is the sum over their open orders.
    fn check_holds(&self) -> Result<(), String> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let (mut cash, mut shares) = (BTreeMap::<Uuid, i64>::new(), BTreeMap::<(Uuid, u32), i64>::new());
        for order in self.orders.values().filter(|o| self.touched.contains(&o.account)) {
            match order.side {
                Side::Buy => *cash.entry(order.account).or_default() += order.hold.held,
                Side::Sell => *shares.entry((order.account, order.market)).or_default() += order.hold.held,
            }
        }
        for id in &self.touched {
            let Some((_, account)) = self.accounts.get(id) else {
                let open = cash.contains_key(id) || shares.keys().any(|(of, _)| of == id);
                ensure(!open, || format!("orders of {id}, which is not open"))?;
                continue;
            };
            let sum = cash.get(id).copied().unwrap_or(0);
            ensure(account.cash.held == sum, || format!("{account:?} holds the sum of its orders, {sum}"))?;
        }
        for ((id, market), holding) in &self.holdings {
            if self.touched.contains(id) {
                let sum = shares.remove(&(*id, *market)).unwrap_or(0);
                ensure(holding.held == sum, || format!("{holding:?} of {id} holds {sum}"))?;
            }
        }
        shares.retain(|_, held| *held != 0);
        ensure(shares.is_empty(), || format!("shares are held where none are: {shares:?}"))
    }
}

/// The arrows of exchange-rules §3, and a state to itself while it is open.
fn leads(from: OrderState, to: OrderState) -> bool {
    use OrderState::{Canceled, Expired, Filled, Held, New, PartiallyFilled};
    matches!(
        (from, to),
        (Held, Held | New | Canceled | Expired)
            | (New, New | PartiallyFilled | Filled | Canceled | Expired)
            | (PartiallyFilled, PartiallyFilled | Filled | Canceled | Expired)
    )
}
