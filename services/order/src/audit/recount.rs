//! Orders counted again from their fills, whatever the facts still tell: what is filled, at which average, in which state,
//! and the two fills of each trade against each other. Nothing here is the exchange's own arithmetic.

use fafnir_platform::checks::Check;
use fafnir_proto::{
    reason::Reason,
    v1::{Fill, Order, OrderState, OrderType, Side},
};
use fafnir_rules::money::{self, AVERAGE_DECIMALS};
use std::collections::HashMap;
use uuid::Uuid;

/// `price_e4 × quantity_e4` in a micro.
const PARTS: i128 = 100;
/// What makes of parts over a quantity at e4 a price at ten decimals.
const TEN_DECIMALS: i128 = 1_000_000;
/// Ids of fills from one position to the next; the first two are the taker's and the maker's.
const IDS: i64 = 16;

/// What the fills of an order add up to.
#[derive(Debug, Clone)]
struct Sum {
    user: Uuid,
    symbol: String,
    side: i32,
    first: i64,
    last: i64,
    quantity: i128,
    parts: i128,
    /// The lowest and the highest price.
    prices: (i64, i64),
    /// Some are another one's, of another symbol or side.
    mixed: bool,
}

/// The fill before, which may be the other one of its trade.
#[derive(Debug)]
struct Before {
    id: i64,
    user: Uuid,
    order: Uuid,
    exec_seq: u64,
    fill: Fill,
}

/// The counting: every fill in the order of their ids, then every order.
#[derive(Debug)]
pub struct Recount {
    sums: HashMap<Uuid, Sum>,
    before: Option<Before>,
    /// Id of the last fill of each symbol, and its number.
    numbers: HashMap<String, (i64, u64)>,
    /// Orders of which more is filled than their fills say.
    short: Vec<Uuid>,
    orders: Check,
    sides: Check,
    numbered: Check,
}

impl Default for Recount {
    fn default() -> Self {
        Self {
            sums: HashMap::new(),
            before: None,
            numbers: HashMap::new(),
            short: Vec::new(),
            orders: Check::new("every order is what its fills make of it"),
            sides: Check::new("the two fills of every trade say the same"),
            numbered: Check::new("the fills of a symbol are numbered as they came"),
        }
    }
}

/// To the nearest, of two equally near to the even one.
fn rounded(parts: i128, quantity: i128) -> i128 {
    let (whole, rest) = (parts / quantity, parts % quantity);
    match (2 * rest).cmp(&quantity) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole % 2,
    }
}

impl Recount {
    /// Takes the next fill.
    pub fn fill(&mut self, id: i64, user: Uuid, order: Uuid, exec_seq: u64, fill: &Fill) {
        let of = i128::from(fill.quantity_e4);
        let parts = i128::from(fill.price_e4) * of;
        let sum = self.sums.entry(order).or_insert_with(|| Sum {
            user,
            symbol: fill.symbol.clone(),
            side: fill.side,
            first: id,
            last: id,
            quantity: 0,
            parts: 0,
            prices: (fill.price_e4, fill.price_e4),
            mixed: false,
        });
        sum.mixed |= sum.user != user || sum.symbol != fill.symbol || sum.side != fill.side;
        sum.last = id;
        sum.quantity += of;
        sum.parts += parts;
        sum.prices = (sum.prices.0.min(fill.price_e4), sum.prices.1.max(fill.price_e4));
        let number = self.numbers.entry(fill.symbol.clone()).or_insert((i64::MIN, 0));
        let fits = if number.0 / IDS == id / IDS { exec_seq == number.1 } else { exec_seq > number.1 };
        self.numbered.look(fits, || format!("fill {id}, {}:{exec_seq}", fill.symbol));
        *number = (id, exec_seq);
        self.side(Before { id, user, order, exec_seq, fill: fill.clone() });
    }

    /// Compares a fill with the other one of its trade. That of an agent may be gone, and its own order then too.
    fn side(&mut self, now: Before) {
        if now.fill.maker != (now.id % IDS == 1) || now.id % IDS > 1 {
            self.sides.find(format!("fill {} is neither side's", now.id));
        }
        if let Some(taker) = self.before.take().filter(|before| before.id / IDS == now.id / IDS) {
            let (a, b) = (&taker.fill, &now.fill);
            let fits = (a.price_e4, a.quantity_e4, a.time_us, &a.symbol, taker.exec_seq)
                == (b.price_e4, b.quantity_e4, b.time_us, &b.symbol, now.exec_seq)
                && [(Side::Buy, Side::Sell), (Side::Sell, Side::Buy)].contains(&(a.side(), b.side()))
                && taker.order != now.order
                && taker.user != now.user;
            self.sides.look(fits, || format!("{}:{}", b.symbol, now.exec_seq));
        }
        self.before = Some(now);
    }

    /// Takes an order, its columns `first_fill` and `last_fill`, and whether its other columns say what it says. `begun`:
    /// the rows begin with a snapshot, before which it may have been filled.
    pub fn order(
        &mut self,
        user: Uuid,
        id: Uuid,
        order: &Order,
        filled: (i64, i64),
        says: bool,
        begun: bool,
    ) {
        let sum = self.sums.remove(&id);
        if begun && sum.as_ref().map_or(0, |sum| sum.quantity) < i128::from(order.filled_e4) {
            self.short.push(id);
            return;
        }
        let fits = says && has_its_state(order) && is_filled_by(user, order, filled, sum.as_ref());
        self.orders.look(fits, || format!("order {id}"));
    }

    /// Everything that was found. `is_whole` says whether all of an order came behind the snapshot that the rows begin with.
    pub fn checks(mut self, is_whole: impl Fn(&Uuid) -> bool) -> Vec<Check> {
        for id in self.short.iter().filter(|id| is_whole(id)) {
            self.orders.find(format!("order {id}"));
        }
        for id in self.sums.keys() {
            self.orders.find(format!("fills of order {id}, which is not there"));
        }
        vec![self.orders, self.sides, self.numbered]
    }
}

fn is_filled_by(user: Uuid, order: &Order, (first, last): (i64, i64), sum: Option<&Sum>) -> bool {
    let Some(sum) = sum else {
        return (order.filled_e4, order.filled_notional_micros, first, last) == (0, 0, 0, 0);
    };
    // A limit that was replaced may have been another one.
    let is_limited = order.version == 1
        && matches!(order.r#type(), OrderType::Limit | OrderType::StopLimit)
        && order.price_e4 > 0;
    let within = match order.side() {
        Side::Buy => sum.prices.1 <= order.price_e4,
        _ => sum.prices.0 >= order.price_e4,
    };
    let notional = sum.parts / PARTS;
    let is_exact = sum.parts % PARTS == 0 && sum.parts > 0 && sum.quantity > 0;
    is_exact
        && !sum.mixed
        && (sum.user, &sum.symbol, sum.side, sum.first, sum.last)
            == (user, &order.symbol, order.side, first, last)
        && sum.quantity == i128::from(order.filled_e4)
        && notional.min(i64::MAX.into()) == i128::from(order.filled_notional_micros)
        && (notional > i64::MAX.into() || is_average(order, sum))
        && (!is_limited || within)
}

/// Whether the doors' average is that of the fills: one division, half to even, at ten decimals.
fn is_average(order: &Order, sum: &Sum) -> bool {
    let shown = money::average_price(order.filled_notional_micros, order.filled_e4, AVERAGE_DECIMALS);
    i128::from(shown) == rounded(sum.parts * TEN_DECIMALS, sum.quantity).min(i64::MAX.into())
}

/// Whether state and quantities of an order fit together.
fn has_its_state(o: &Order) -> bool {
    let (filled, quantity) = (o.filled_e4, o.quantity_e4);
    let open = if o.state().is_open() { quantity - filled } else { 0 };
    let fits = match o.state() {
        OrderState::Held | OrderState::New | OrderState::Rejected => filled == 0,
        OrderState::PartiallyFilled => 0 < filled && filled < quantity,
        OrderState::Filled => 0 < filled && filled == quantity,
        // Self-trade prevention takes off what would have traded: all of the rest, at its end.
        OrderState::Canceled | OrderState::Expired => {
            0 <= filled
                && (filled < quantity || filled == quantity && o.reject_code == Reason::SELF_TRADE.as_str())
        }
        OrderState::PendingNew | OrderState::Unspecified => false,
    };
    fits && o.open_e4 == open
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUYER: Uuid = Uuid::from_u128(1);
    const SELLER: Uuid = Uuid::from_u128(2);

    fn fill(side: Side, price_e4: i64, quantity_e4: i64, maker: bool) -> Fill {
        Fill { symbol: "F".into(), side: side.into(), price_e4, quantity_e4, maker, ..Fill::default() }
    }

    /// BUY 3 F at most at 10.02 by 1 at 10.01 and 2 at 10.02: 30.05 dollars, on average 10.0166666667.
    fn bought() -> (Order, [(i64, i64); 2]) {
        let order = Order {
            symbol: "F".into(),
            side: Side::Buy.into(),
            r#type: OrderType::Limit.into(),
            state: OrderState::Filled.into(),
            quantity_e4: 30_000,
            filled_e4: 30_000,
            filled_notional_micros: 30_050_000,
            price_e4: 100_200,
            version: 1,
            ..Order::default()
        };
        (order, [(100_100, 10_000), (100_200, 20_000)])
    }

    /// Findings of orders, sides and numbers, after a change of the order, its fills' columns and the seller's fills.
    fn found(change: impl FnOnce(&mut Order, &mut (i64, i64), &mut [Fill; 2])) -> [u64; 3] {
        let (mut order, trades) = bought();
        let mut columns = (160, 176);
        let mut sold = trades.map(|(price, quantity)| fill(Side::Sell, price, quantity, true));
        change(&mut order, &mut columns, &mut sold);
        let mut recount = Recount::default();
        for (n, ((price, quantity), other)) in trades.into_iter().zip(&sold).enumerate() {
            let (id, seq) = (160 + 16 * n as i64, 7 + n as u64);
            recount.fill(id, BUYER, Uuid::from_u128(9), seq, &fill(Side::Buy, price, quantity, false));
            recount.fill(id + 1, SELLER, Uuid::from_u128(8), seq, other);
        }
        recount.order(BUYER, Uuid::from_u128(9), &order, columns, true, false);
        recount.sums.remove(&Uuid::from_u128(8));
        let checks = recount.checks(|_| true);
        [0, 1, 2].map(|at| checks[at].findings())
    }

    #[test]
    fn an_order_is_what_its_fills_make_and_nothing_else() {
        assert_eq!(found(|_, _, _| {}), [0, 0, 0]);
        assert_eq!(found(|o, _, _| o.filled_e4 -= 10_000), [1, 0, 0]);
        assert_eq!(found(|o, _, _| o.filled_notional_micros += 1), [1, 0, 0]);
        assert_eq!(found(|o, _, _| o.set_state(OrderState::PartiallyFilled)), [1, 0, 0]);
        assert_eq!(found(|o, _, _| o.set_state(OrderState::Canceled)), [1, 0, 0]);
        assert_eq!(found(|o, _, _| o.open_e4 = 1), [1, 0, 0]);
        assert_eq!(found(|o, _, _| o.set_side(Side::Sell)), [1, 0, 0]);
        assert_eq!(found(|o, _, _| o.price_e4 = 100_100), [1, 0, 0]);
        assert_eq!(found(|_, columns, _| columns.1 = 160), [1, 0, 0]);
        assert_eq!(found(|_, _, sold| sold[1].price_e4 += 1), [0, 1, 0]);
        assert_eq!(found(|_, _, sold| sold[0].quantity_e4 += 1), [0, 1, 0]);
        assert_eq!(found(|_, _, sold| sold[0].set_side(Side::Buy)), [0, 1, 0]);
        assert_eq!(found(|_, _, sold| sold[0].maker = false), [0, 1, 0]);
    }

    #[test]
    fn numbers_of_a_symbol_grow_and_a_half_goes_to_the_even_one() {
        let mut recount = Recount::default();
        for (id, seq) in [(16, 2), (17, 2), (32, 2), (48, 5)] {
            recount.fill(id, BUYER, Uuid::from_u128(9), seq, &fill(Side::Buy, 1, 100, id % 16 == 1));
        }
        assert_eq!(recount.numbered.findings(), 1);
        assert_eq!([(5, 2), (7, 2), (1, 3), (2, 3)].map(|(n, d)| rounded(n, d)), [2, 4, 0, 1]);
    }

    #[test]
    fn what_was_filled_before_the_rows_began_is_no_finding() {
        for (is_whole, findings) in [(false, 0), (true, 1)] {
            let (order, _) = bought();
            let mut recount = Recount::default();
            recount.order(BUYER, Uuid::from_u128(9), &order, (0, 0), true, true);
            assert_eq!(recount.checks(|_| is_whole)[0].findings(), findings);
        }
    }
}
