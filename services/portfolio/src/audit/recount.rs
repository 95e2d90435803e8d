//! The ledger counted again, from what its rows say they are of: the postings of each trade from price, quantity, fee
//! schedule and rate, cost and gains from the trades. Nothing here is the exchange's own arithmetic.

use crate::domain::{
    Currency,
    ledger::{Cause, Entry, Posting},
};
use fafnir_platform::checks::Check;
use fafnir_proto::v1::{PostingRole, Side};
use std::collections::{BTreeMap, HashMap};

const MICROS: i128 = 1_000_000;
const BASIS_POINTS: i128 = 10_000;
/// `price_e4 × quantity_e4` in a micro.
const PARTS: i128 = 100;

/// What the rows are counted with.
#[derive(Debug, Default, Clone)]
pub struct Terms {
    /// Micros of CAD for one USD, by the rate's id.
    pub rates: HashMap<u32, i64>,
    /// Maker's and taker's basis points, by the schedule's id.
    pub fees: HashMap<u32, (u32, u32)>,
    /// Currency of each symbol and of each client's account.
    pub listings: HashMap<String, String>,
    pub accounts: HashMap<String, String>,
}

/// What an order traded so far, and what it was posted for that.
#[derive(Debug, Default, Clone, Copy)]
struct Running {
    maker: i128,
    taker: i128,
    posted: [i128; 3],
}

/// Shares of an account as the trades leave them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lot {
    pub quantity: i64,
    pub cost: i64,
    /// Since the position was opened, and ever.
    pub realized: i64,
    pub total: i64,
}

/// A side of a trade, as it should have been posted: principal, exchanged, fee.
struct Legs {
    account: String,
    currency: String,
    foreign: bool,
    principal: i128,
    exchanged: i128,
    fee: i128,
}

/// The counting, row by row from the first.
#[derive(Debug, Clone)]
pub struct Recount {
    /// By the order's id; those that have ended are forgotten where that is told.
    orders: HashMap<u128, Running>,
    /// Orders may have traded before the first row: then what a row posts may be a micro off.
    off_by: i128,
    /// By symbol and account.
    lots: HashMap<String, HashMap<String, Lot>>,
    pub trades: Check,
    pub money: Check,
    pub gains: Check,
}

impl Default for Recount {
    fn default() -> Self {
        Self {
            orders: HashMap::new(),
            off_by: 0,
            lots: HashMap::new(),
            trades: Check::new("every trade's postings are those of its price, quantity, fees and rate"),
            money: Check::new("every movement of money is between the parties of its cause"),
            gains: Check::new("cost and gain of every sale are those of what was bought"),
        }
    }
}

fn round_up(numerator: i128, denominator: i128) -> i128 {
    numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0)
}

/// The fraction that turns micros of one currency into another.
fn rate(from: &str, to: &str, usd_cad: Option<i64>) -> Option<(i128, i128)> {
    match (from, to) {
        _ if from == to => Some((1, 1)),
        ("USD", "CAD") => Some((usd_cad?.into(), MICROS)),
        ("CAD", "USD") => Some((MICROS, usd_cad?.into())),
        _ => None,
    }
}

fn is_shares(asset: &str) -> bool {
    Currency::parse(asset).is_none()
}

/// Amounts by party, asset and role.
type Lines<'a> = BTreeMap<(&'a str, &'a str, i32), i128>;

/// Lines by party, asset and role, those of nothing left out.
fn lines<'a>(all: impl Iterator<Item = (&'a str, &'a str, i32, i128)>) -> Lines<'a> {
    let mut sums = BTreeMap::new();
    for (party, asset, role, amount) in all {
        *sums.entry((party, asset, role)).or_insert(0) += amount;
    }
    sums.retain(|_, amount| *amount != 0);
    sums
}

fn of_entry(entry: &Entry) -> Lines<'_> {
    lines(entry.postings.iter().map(|p| (p.account.as_str(), p.asset.as_str(), p.role, i128::from(p.amount))))
}

impl Recount {
    /// The rows begin with what was there, not with nothing.
    pub fn begins_open(&mut self) {
        self.off_by = 1;
    }

    /// An order trades no more.
    pub fn forget(&mut self, order: u128) {
        self.orders.remove(&order);
    }

    /// The shares of a symbol that the trades leave an account.
    pub fn lot(&self, account: &str, symbol: &str) -> Lot {
        self.lots.get(symbol).and_then(|of| of.get(account)).copied().unwrap_or_default()
    }

    fn lot_mut(&mut self, account: &str, symbol: &str) -> &mut Lot {
        self.lots.entry(symbol.to_owned()).or_default().entry(account.to_owned()).or_default()
    }

    /// Takes the next row.
    pub fn entry(&mut self, terms: &Terms, entry: &Entry) {
        if entry.cause == Cause::Trade.number() {
            let counted = self.trade(terms, entry);
            self.trades.look(counted.is_ok(), || {
                format!("transaction {}: {}", entry.id, counted.as_ref().err().copied().unwrap_or_default())
            });
        } else {
            let fits = movement(terms, entry);
            self.money.look(fits.is_some(), || format!("transaction {}", entry.id));
            self.shares(entry);
        }
    }

    fn trade(&mut self, terms: &Terms, entry: &Entry) -> Result<(), &'static str> {
        let symbol = entry.symbol.as_deref().ok_or("it names no symbol")?;
        let listing = terms.listings.get(symbol).ok_or("its symbol has no currency")?.clone();
        let mut moved = entry.postings.iter().filter(|p| p.asset == symbol);
        let (Some(one), Some(other), None) = (moved.next(), moved.next(), moved.next()) else {
            return Err("its shares do not go from one to another");
        };
        let (seller, buyer) = if one.amount < 0 { (one, other) } else { (other, one) };
        let quantity = buyer.amount;
        if quantity <= 0 || seller.amount != -quantity {
            return Err("its shares do not go from one to another");
        }
        let parts = i128::from(entry.price_e4) * i128::from(quantity);
        if parts <= 0 || parts % PARTS != 0 {
            return Err("its price and quantity give no amount");
        }
        let notional = parts / PARTS;
        let takes = |side: Side| entry.taker == i32::from(side);
        if !takes(Side::Buy) && !takes(Side::Sell) {
            return Err("nobody took");
        }
        let bought = self.side(terms, entry, Side::Buy, buyer, &listing, notional)?;
        let sold = self.side(terms, entry, Side::Sell, seller, &listing, notional)?;
        let expected = postings(&bought, &sold, &listing, symbol, notional, quantity);
        let expected = lines(expected.iter().map(|(a, b, c, d)| (a.as_str(), b.as_str(), *c, *d)));
        let same = self.is_near(&expected, &of_entry(entry));
        self.lots_of_trade(entry, symbol, quantity, &bought, &sold);
        if same { Ok(()) } else { Err("its postings are other ones") }
    }

    fn is_near(&self, a: &Lines<'_>, b: &Lines<'_>) -> bool {
        if self.off_by == 0 {
            return a == b;
        }
        let amount = |of: &Lines<'_>, key| of.get(key).copied().unwrap_or(0);
        a.keys().chain(b.keys()).all(|key| {
            // A fee and a conversion may each be off.
            let off = if is_shares(key.1) { 0 } else { 2 * self.off_by };
            (amount(a, key) - amount(b, key)).abs() <= off
        })
    }

    fn side(
        &mut self,
        terms: &Terms,
        entry: &Entry,
        side: Side,
        shares: &Posting,
        listing: &str,
        notional: i128,
    ) -> Result<Legs, &'static str> {
        let (reference, rate_id, fees_id) = match side {
            Side::Buy => (&entry.payer_ref, entry.payer_rate, entry.payer_fees),
            _ => (&entry.payee_ref, entry.payee_rate, entry.payee_fees),
        };
        let order = reference.as_deref().and_then(|id| id.try_into().ok().map(u128::from_be_bytes));
        let order = order.ok_or("a side has no order")?;
        let currency = terms.accounts.get(&shares.account).ok_or("an account is unknown")?.clone();
        let usd_cad = terms.rates.get(&rate_id).copied();
        let (numerator, denominator) = rate(listing, &currency, usd_cad).ok_or("its rate is unknown")?;
        let (maker_bp, taker_bp) = match terms.fees.get(&fees_id) {
            Some(known) => *known,
            None if fees_id == 0 => (0, 0),
            None => return Err("its fee schedule is unknown"),
        };
        let running = self.orders.entry(order).or_default();
        if entry.taker == i32::from(side) {
            running.taker += notional;
        } else {
            running.maker += notional;
        }
        let beyond = "it is beyond what can be counted";
        let gross = (running.maker + running.taker).checked_mul(numerator).ok_or(beyond)?;
        let (up, down) = (round_up(gross, denominator), gross.div_euclid(denominator));
        let weighed = running.maker * i128::from(maker_bp) + running.taker * i128::from(taker_bp);
        let fee = round_up(weighed.checked_mul(numerator).ok_or(beyond)?, BASIS_POINTS * denominator);
        let now = match side {
            Side::Buy => [up, down, fee],
            _ => [down, up, fee.min(down)],
        };
        let before = std::mem::replace(&mut running.posted, now);
        let [principal, exchanged, fee] = [0, 1, 2].map(|at| now[at] - before[at]);
        let (account, foreign) = (shares.account.clone(), currency != listing);
        Ok(Legs { account, currency, foreign, principal, exchanged, fee })
    }

    fn lots_of_trade(&mut self, entry: &Entry, symbol: &str, quantity: i64, bought: &Legs, sold: &Legs) {
        // What a side was posted, which was compared before.
        let got = |side: &Legs| {
            let cash =
                entry.postings.iter().filter(|p| p.account == side.account && p.asset == side.currency);
            cash.fold(0_i64, |sum, p| sum.saturating_add(p.amount))
        };
        let buyer = self.lot_mut(&bought.account, symbol);
        if buyer.quantity == 0 {
            buyer.realized = 0;
        }
        buyer.quantity = buyer.quantity.saturating_add(quantity);
        buyer.cost = buyer.cost.saturating_sub(got(bought));
        let seller = self.lot_mut(&sold.account, symbol);
        let cost = carried(*seller, quantity);
        let gained = got(sold).saturating_sub(cost);
        seller.quantity = seller.quantity.saturating_sub(quantity);
        seller.cost = seller.cost.saturating_sub(cost);
        seller.realized = seller.realized.saturating_add(gained);
        seller.total = seller.total.saturating_add(gained);
        let fits = entry.realized == gained && entry.cost == cost && seller.quantity >= 0;
        self.gains.look(fits, || format!("transaction {}", entry.id));
    }

    /// Shares that move without a trade take the cost that the row says with them.
    fn shares(&mut self, entry: &Entry) {
        for p in entry.postings.iter().filter(|p| is_shares(&p.asset) && !p.account.starts_with("issuer:")) {
            let lot = self.lot_mut(&p.account, &p.asset);
            if lot.quantity == 0 {
                lot.realized = 0;
            }
            lot.quantity = lot.quantity.saturating_add(p.amount);
            lot.cost = lot.cost.saturating_add(entry.cost);
            if entry.cause == Cause::Opening.number() {
                (lot.realized, lot.total) = (entry.realized, entry.realized);
            }
            let fits = lot.quantity >= 0 && lot.cost >= 0 && (lot.quantity > 0 || lot.cost == 0);
            self.gains.look(fits, || format!("transaction {}", entry.id));
        }
    }
}

/// The part of a position's cost that goes with shares: what stays is rounded down.
fn carried(lot: Lot, quantity: i64) -> i64 {
    if quantity >= lot.quantity {
        return lot.cost;
    }
    let stays = i128::from(lot.cost) * i128::from(lot.quantity - quantity) / i128::from(lot.quantity);
    lot.cost - i64::try_from(stays).unwrap_or(0)
}

/// A line that should be there: party, asset, role, amount.
type Line = (String, String, i32, i128);

fn postings(
    bought: &Legs,
    sold: &Legs,
    listing: &str,
    symbol: &str,
    notional: i128,
    quantity: i64,
) -> Vec<Line> {
    let [principal, fee, conversion] =
        [PostingRole::Principal, PostingRole::Fee, PostingRole::Conversion].map(i32::from);
    let mut all = Vec::new();
    let mut add = |party: &str, asset: &str, role: i32, amount: i128| {
        all.push((party.to_owned(), asset.to_owned(), role, amount));
    };
    let (b, s) = (bought, sold);
    add(&b.account, &b.currency, principal, -b.principal);
    if b.foreign {
        add("fx", &b.currency, conversion, b.exchanged);
        add("rounding", &b.currency, conversion, b.principal - b.exchanged);
        add("fx", listing, conversion, -notional);
    }
    add(&s.account, &s.currency, principal, s.principal);
    if s.foreign {
        add("fx", listing, conversion, notional);
        add("fx", &s.currency, conversion, -s.exchanged);
        add("rounding", &s.currency, conversion, s.exchanged - s.principal);
    }
    add(&b.account, symbol, principal, quantity.into());
    add(&s.account, symbol, principal, -i128::from(quantity));
    for side in [b, s] {
        add(&side.account, &side.currency, fee, -side.fee);
        add("fees", &side.currency, fee, side.fee);
    }
    all
}

/// Whether money that moved without a trade went between those whom its cause names.
fn movement(terms: &Terms, entry: &Entry) -> Option<()> {
    let client = |p: &Posting| terms.accounts.contains_key(&p.account);
    let of = |cause: Cause| entry.cause == cause.number();
    if of(Cause::Transfer) {
        return transfer(terms, entry);
    }
    let [one, other] = entry.postings.as_slice() else { return None };
    let from_funding = |p: &Posting| p.account == "funding" || p.account.starts_with("issuer:");
    let (client, house) = match (client(one), client(other)) {
        (true, _) => (one, other),
        (_, true) => (other, one),
        // Books that begin with a snapshot: what the house had.
        _ if of(Cause::Opening) && (from_funding(one) || from_funding(other)) => return Some(()),
        _ => return None,
    };
    let from =
        if is_shares(&client.asset) { format!("issuer:{}", client.asset) } else { "funding".to_owned() };
    let comes = of(Cause::Opening) || of(Cause::Deposit) || of(Cause::Endowment);
    let goes = of(Cause::Withdrawal) || of(Cause::Closing);
    let fits = house.account == from
        && client.asset == house.asset
        && client.amount == house.amount.checked_neg()?
        && (comes && client.amount > 0 || goes && client.amount < 0);
    fits.then_some(())
}

fn transfer(terms: &Terms, entry: &Entry) -> Option<()> {
    let clients = || entry.postings.iter().filter(|p| terms.accounts.contains_key(&p.account));
    let (from, to) = (clients().find(|p| p.amount < 0)?, clients().find(|p| p.amount > 0)?);
    let gone = -i128::from(from.amount);
    let usd_cad = terms.rates.get(&entry.payer_rate).copied();
    let (numerator, denominator) = rate(&from.asset, &to.asset, usd_cad)?;
    let (down, up) = ((gone * numerator).div_euclid(denominator), round_up(gone * numerator, denominator));
    let [principal, conversion] = [PostingRole::Principal, PostingRole::Conversion].map(i32::from);
    let (f, t) = (from.asset.as_str(), to.asset.as_str());
    let mut expected =
        vec![(from.account.as_str(), f, principal, -gone), (to.account.as_str(), t, principal, down)];
    if f != t {
        expected.push(("fx", f, conversion, gone));
        expected.push(("fx", t, conversion, -up));
        expected.push(("rounding", t, conversion, up - down));
    }
    (lines(expected.into_iter()) == of_entry(entry)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let text = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<HashMap<_, _>>()
        };
        Terms {
            rates: HashMap::from([(1, 1_370_000)]),
            fees: HashMap::from([(1, (5, 10))]),
            listings: text(&[("AAPL", "USD"), ("SHOP", "CAD")]),
            accounts: text(&[("b", "USD"), ("s", "CAD")]),
        }
    }

    fn posting(account: &str, asset: &str, amount: i64, role: PostingRole) -> Posting {
        Posting { account: account.into(), asset: asset.into(), amount, role: role.into() }
    }

    /// 3 AAPL at 10.01 USD: 30.03 USD. The buyer, with dollars, takes: 10 basis points are 0.03003 USD. The seller,
    /// with Canadian ones at 1.37, gets 41.1411 CAD and pays 5 basis points, 0.02057055, up to 0.020571 CAD.
    fn trade() -> Entry {
        use PostingRole::{Conversion, Fee, Principal};
        Entry {
            id: 9,
            cause: Cause::Trade.number(),
            symbol: Some("AAPL".into()),
            price_e4: 100_100,
            taker: Side::Buy.into(),
            payer_ref: Some(vec![1; 16]),
            payee_ref: Some(vec![2; 16]),
            payer_rate: 1,
            payee_rate: 1,
            payer_fees: 1,
            payee_fees: 1,
            realized: 41_141_100 - 20_571 - 3_000_000,
            cost: 3_000_000,
            postings: vec![
                posting("b", "USD", -30_030_000, Principal),
                posting("s", "CAD", 41_141_100, Principal),
                posting("fx", "USD", 30_030_000, Conversion),
                posting("fx", "CAD", -41_141_100, Conversion),
                posting("s", "AAPL", -30_000, Principal),
                posting("b", "AAPL", 30_000, Principal),
                posting("b", "USD", -30_030, Fee),
                posting("fees", "USD", 30_030, Fee),
                posting("s", "CAD", -20_571, Fee),
                posting("fees", "CAD", 20_571, Fee),
            ],
            ..Entry::default()
        }
    }

    fn counted(entry: &Entry) -> [u64; 3] {
        let mut recount = Recount::default();
        let lot = Lot { quantity: 30_000, cost: 3_000_000, realized: 7, total: 7 };
        *recount.lot_mut("s", "AAPL") = lot;
        recount.entry(&terms(), entry);
        [&recount.trades, &recount.money, &recount.gains].map(Check::findings)
    }

    type Change = fn(&mut Entry);

    #[test]
    fn a_trade_by_hand_is_what_is_counted_and_any_other_one_is_found() {
        assert_eq!(counted(&trade()), [0, 0, 0]);
        let changes: [(Change, [u64; 3]); 9] = [
            (|e| e.price_e4 += 100, [1, 0, 0]),
            (|e| e.taker = Side::Sell.into(), [1, 0, 0]),
            (|e| e.payee_rate = 2, [1, 0, 0]),
            (|e| e.payer_fees = 0, [1, 0, 0]),
            (|e| e.realized += 1, [0, 0, 1]),
            (|e| e.cost -= 1, [0, 0, 1]),
            (|e| e.postings[1].amount += 1, [1, 0, 1]),
            (|e| (e.postings[6].amount, e.postings[7].amount) = (-30_031, 30_031), [1, 0, 0]),
            (|e| e.symbol = Some("SHOP".into()), [1, 0, 0]),
        ];
        for (at, (change, found)) in changes.into_iter().enumerate() {
            let mut entry = trade();
            change(&mut entry);
            assert_eq!(counted(&entry), found, "change {at}");
        }
    }

    #[test]
    fn what_an_order_pays_is_rounded_on_its_total() {
        let mut recount = Recount::default();
        let terms = Terms { fees: HashMap::from([(1, (1, 1))]), ..terms() };
        // 0.0033 USD each: 0.33 micros of fee, 0.66, 0.99, 1.32: one, nothing, nothing, one more.
        for (id, fee) in [(1, 1), (2, 0), (3, 0), (4, 1)] {
            let mut entry = Entry { id, price_e4: 33, realized: 0, cost: 0, ..trade() };
            entry.postings = vec![
                posting("b", "USD", -3_300, PostingRole::Principal),
                posting("s", "CAD", 4_521, PostingRole::Principal),
                posting("fx", "USD", 3_300, PostingRole::Conversion),
                posting("fx", "CAD", -4_521, PostingRole::Conversion),
                posting("s", "AAPL", -10_000, PostingRole::Principal),
                posting("b", "AAPL", 10_000, PostingRole::Principal),
                posting("b", "USD", -fee, PostingRole::Fee),
                posting("fees", "USD", fee, PostingRole::Fee),
                posting("s", "CAD", -(i64::from(id == 1 || id == 3)), PostingRole::Fee),
                posting("fees", "CAD", i64::from(id == 1 || id == 3), PostingRole::Fee),
            ];
            recount.entry(&terms, &entry);
        }
        assert_eq!(recount.trades.findings(), 0, "{:?}", recount.trades);
    }

    #[test]
    fn an_order_that_has_ended_is_forgotten() {
        let mut recount = Recount::default();
        recount.entry(&terms(), &trade());
        assert_eq!(recount.orders.len(), 2);
        recount.forget(u128::from_be_bytes([1; 16]));
        assert_eq!(recount.orders.keys().copied().collect::<Vec<_>>(), [u128::from_be_bytes([2; 16])]);
    }

    #[test]
    fn money_goes_between_those_whom_its_cause_names() {
        let deposit = |amount| Entry {
            cause: Cause::Deposit.number(),
            postings: vec![
                posting("b", "USD", amount, PostingRole::Principal),
                posting("funding", "USD", -amount, PostingRole::Principal),
            ],
            ..Entry::default()
        };
        assert_eq!(counted(&deposit(5)), [0, 0, 0]);
        assert_eq!(counted(&deposit(-5)), [0, 1, 0]);
        let mut elsewhere = deposit(5);
        elsewhere.postings[1].account = "fees".into();
        assert_eq!(counted(&elsewhere), [0, 1, 0]);
        // 0.000003 USD at 1.37 are 4.11 micros: 4 arrive, 5 are given.
        let transfer = Entry {
            cause: Cause::Transfer.number(),
            payer_rate: 1,
            postings: vec![
                posting("b", "USD", -3, PostingRole::Principal),
                posting("s", "CAD", 4, PostingRole::Principal),
                posting("fx", "USD", 3, PostingRole::Conversion),
                posting("fx", "CAD", -5, PostingRole::Conversion),
                posting("rounding", "CAD", 1, PostingRole::Conversion),
            ],
            ..Entry::default()
        };
        assert_eq!(counted(&transfer), [0, 0, 0]);
        assert_eq!(counted(&Entry { payer_rate: 3, ..transfer }), [0, 1, 0]);
    }
}
