//! What is the user's: orders, fills, positions, accounts. Older news never replaces newer.

use super::{Model, intake};
use fafnir_proto::v1::{self, AccountType, OrderState, PendingAction, Side};
use fafnir_rules::money;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Finished orders kept; open ones are kept all.
pub const DONE_ORDERS_MAX: usize = 200;
/// Fills kept.
pub const FILLS_MAX: usize = 300;

/// Everything of the user's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holdings {
    /// By order id.
    pub orders: BTreeMap<String, v1::Order>,
    /// Newest first.
    pub fills: VecDeque<v1::Fill>,
    /// By account and symbol.
    pub positions: BTreeMap<(String, String), v1::Holding>,
    /// By account id.
    pub accounts: BTreeMap<String, v1::Account>,
    /// Orders whose cancel is on its way.
    pub cancelling: BTreeSet<String>,
    /// Estimated quantity ahead of an own order in its level, e4.
    pub queue_e4: BTreeMap<String, i64>,
}

/// True when the order can still trade or is on its way.
pub fn is_open(order: &v1::Order) -> bool {
    order.state().is_open()
}

/// What can still trade of an order, e4.
pub fn open_e4(order: &v1::Order) -> i64 {
    if is_open(order) { order.quantity_e4.saturating_sub(order.filled_e4).max(0) } else { 0 }
}

/// True when something about the order waits for the exchange's word.
pub fn is_pending(order: &v1::Order) -> bool {
    order.state() == OrderState::PendingNew || order.pending() != PendingAction::None
}

/// Where an order without an account goes: the oldest open investment account in the currency, else the oldest one
/// (architecture.md §6).
pub fn default_account<'a>(
    accounts: impl IntoIterator<Item = &'a v1::Account>,
    currency: &str,
) -> Option<&'a v1::Account> {
    let trades = |a: &&v1::Account| a.r#type() == AccountType::Investment && !a.closed;
    let accounts = accounts.into_iter().filter(trades);
    accounts.min_by_key(|a| (a.currency != currency, a.created_us, &a.id))
}

fn rank(state: OrderState) -> u8 {
    match state {
        OrderState::Unspecified => 0,
        OrderState::PendingNew => 1,
        OrderState::Held => 2,
        OrderState::New => 3,
        OrderState::PartiallyFilled => 4,
        OrderState::Filled | OrderState::Canceled | OrderState::Expired | OrderState::Rejected => 5,
    }
}

fn is_newer_or_same(old: &v1::Order, new: &v1::Order) -> bool {
    let key = |o: &v1::Order| (rank(o.state()) == 5, o.version, o.filled_e4, rank(o.state()), o.updated_us);
    key(new) >= key(old)
}

impl Holdings {
    /// Takes an order unless what is known is newer. True when it was taken.
    pub fn take_order(&mut self, order: v1::Order) -> bool {
        if self.orders.get(&order.id).is_some_and(|old| !is_newer_or_same(old, &order)) {
            return false;
        }
        let order = intake::order(order);
        if !is_open(&order) {
            self.cancelling.remove(&order.id);
            self.queue_e4.remove(&order.id);
        }
        self.orders.insert(order.id.clone(), order);
        let done = self.orders.values().filter(|o| !is_open(o)).count();
        if done > DONE_ORDERS_MAX {
            let oldest = self
                .orders
                .values()
                .filter(|o| !is_open(o))
                .min_by_key(|o| o.updated_us)
                .map(|o| o.id.clone());
            oldest.and_then(|id| self.orders.remove(&id));
        }
        true
    }

    /// Takes a fill once. True when it is new.
    pub fn take_fill(&mut self, fill: v1::Fill) -> bool {
        if self.fills.iter().any(|f| f.exec_id == fill.exec_id && f.order_id == fill.order_id) {
            return false;
        }
        let fill = intake::fill(fill);
        let at = self.fills.iter().position(|f| f.time_us <= fill.time_us).unwrap_or(self.fills.len());
        self.fills.insert(at, fill);
        self.fills.truncate(FILLS_MAX);
        true
    }

    pub fn take_position(&mut self, holding: v1::Holding) {
        let key = (holding.account_id.clone(), holding.symbol.clone());
        if self.positions.get(&key).is_none_or(|old| old.updated_us <= holding.updated_us) {
            self.positions.insert(key, intake::holding(holding));
        }
    }

    pub fn take_account(&mut self, account: v1::Account) {
        if self.accounts.get(&account.id).is_none_or(|old| old.updated_us <= account.updated_us) {
            self.accounts.insert(account.id.clone(), intake::account(account));
        }
    }

    /// Open orders in a symbol.
    pub fn open_in<'a>(&'a self, symbol: &'a str) -> impl Iterator<Item = &'a v1::Order> {
        self.orders.values().filter(move |o| o.symbol == symbol && is_open(o))
    }

    /// Open orders first, then by time, newest first.
    pub fn orders_shown(&self) -> Vec<&v1::Order> {
        let mut orders: Vec<&v1::Order> = self.orders.values().collect();
        orders.sort_by(|a, b| (is_open(b), b.created_us, &b.id).cmp(&(is_open(a), a.created_us, &a.id)));
        orders
    }

    /// Positions with shares or a result, by symbol.
    pub fn positions_shown(&self) -> Vec<&v1::Holding> {
        let mut shown: Vec<&v1::Holding> =
            self.positions.values().filter(|h| h.quantity_e4 != 0 || h.realized_pnl_micros != 0).collect();
        shown.sort_by(|a, b| (b.quantity_e4 != 0, &a.symbol).cmp(&(a.quantity_e4 != 0, &b.symbol)));
        shown
    }

    pub fn held_symbols(&self) -> impl Iterator<Item = &String> {
        self.positions.values().filter(|h| h.quantity_e4 != 0).map(|h| &h.symbol)
    }

    /// [`default_account`] of the user's.
    pub fn default_account(&self, currency: &str) -> Option<&v1::Account> {
        default_account(self.accounts.values(), currency)
    }

    /// Accounts that can trade in a currency's listings, the default one first: id, and what people see. None where there
    /// is nothing to choose.
    pub fn trading_accounts(&self, currency: &str) -> Vec<(String, String)> {
        let Some(default) = self.default_account(currency).map(|a| a.id.clone()) else { return Vec::new() };
        let trades = |a: &&v1::Account| a.r#type() == AccountType::Investment && !a.closed;
        let mut accounts: Vec<&v1::Account> = self.accounts.values().filter(trades).collect();
        if accounts.len() < 2 {
            return Vec::new();
        }
        accounts.sort_by_key(|a| (a.id != default, a.created_us, a.id.clone()));
        let shown = |a: &v1::Account| format!("{} {}", a.currency, crate::update::short_id(&a.id));
        accounts.into_iter().map(|a| (a.id.clone(), shown(a))).collect()
    }

    /// Shares that can be sold from an account, e4.
    pub fn sellable_e4(&self, account_id: &str, symbol: &str) -> i64 {
        self.positions.get(&(account_id.to_owned(), symbol.to_owned())).map_or(0, |h| h.available_e4)
    }
}

/// Market value of a position at the last price, micros; none without a price.
pub fn market_value_micros(model: &Model, holding: &v1::Holding) -> Option<i64> {
    let price = model.reference_e4(&holding.symbol)?;
    money::notional_micros(price, holding.quantity_e4)
}

/// Unrealised result of a position, micros; none where the account's currency is not the listing's.
pub fn unrealised_micros(model: &Model, holding: &v1::Holding) -> Option<i64> {
    let same_currency = holding.currency.is_empty() || holding.currency == model.currency(&holding.symbol);
    let value = market_value_micros(model, holding).filter(|_| same_currency)?;
    value.checked_sub(holding.cost_micros)
}

/// Cash and shares in one currency, and the unrealised result, micros.
pub fn equity_micros(model: &Model, currency: &str) -> Option<(i64, i64)> {
    let in_currency = |account: &&v1::Account| account.currency == currency && !account.closed;
    if !model.holdings.accounts.values().any(|a| in_currency(&a)) {
        return None;
    }
    let cash: i128 =
        model.holdings.accounts.values().filter(in_currency).map(|a| i128::from(a.balance_micros)).sum();
    let mut value = cash;
    let mut unrealised = 0i128;
    for holding in model.holdings.positions.values().filter(|h| h.quantity_e4 != 0) {
        if model.currency(&holding.symbol) == currency {
            value += i128::from(market_value_micros(model, holding)?);
            unrealised += i128::from(unrealised_micros(model, holding).unwrap_or(0));
        }
    }
    Some((i64::try_from(value).ok()?, i64::try_from(unrealised).ok()?))
}

/// Sets the estimate of what is ahead of the user's orders from a new image of the book: never more than the level
/// holds apart from the order itself, and never more than it was.
pub fn estimate_queue(holdings: &mut Holdings, book: &v1::BookImage) {
    let mut estimates = Vec::new();
    for order in holdings.open_in(&book.symbol) {
        if !matches!(order.state(), OrderState::New | OrderState::PartiallyFilled) || order.price_e4 == 0 {
            continue;
        }
        let levels = if order.side() == Side::Buy { &book.bids } else { &book.asks };
        let Some(level) = levels.iter().find(|l| l.price_e4 == order.price_e4) else { continue };
        let others = level.quantity_e4.saturating_sub(open_e4(order)).max(0);
        let ahead = holdings.queue_e4.get(&order.id).map_or(others, |old| others.min(*old));
        estimates.push((order.id.clone(), ahead));
    }
    holdings.queue_e4.extend(estimates);
}

/// Trades at an order's price take from what is ahead of it.
pub fn trade_in_queue(holdings: &mut Holdings, trade: &v1::Trade) {
    let resting = match trade.aggressor() {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
        Side::Unspecified => return,
    };
    let ids: Vec<String> = holdings
        .open_in(&trade.symbol)
        .filter(|o| o.side() == resting && o.price_e4 == trade.price_e4)
        .map(|o| o.id.clone())
        .collect();
    for id in ids {
        if let Some(ahead) = holdings.queue_e4.get_mut(&id) {
            *ahead = ahead.saturating_sub(trade.quantity_e4).max(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(state: OrderState, filled_e4: i64, updated_us: i64) -> v1::Order {
        v1::Order {
            id: "o".into(),
            state: state.into(),
            filled_e4,
            quantity_e4: 50_000,
            version: 1,
            updated_us,
            ..Default::default()
        }
    }

    #[test]
    fn a_late_reply_never_takes_an_order_back() {
        let mut holdings = Holdings::default();
        assert!(holdings.take_order(order(OrderState::Filled, 50_000, 9)));
        assert!(!holdings.take_order(order(OrderState::PendingNew, 0, 10)));
        assert_eq!(holdings.orders["o"].state(), OrderState::Filled);
    }

    #[test]
    fn a_fill_that_comes_twice_counts_once() {
        let mut holdings = Holdings::default();
        let fill = v1::Fill { exec_id: "AAPL:1".into(), order_id: "o".into(), ..Default::default() };
        assert!(holdings.take_fill(fill.clone()));
        assert!(!holdings.take_fill(fill.clone()));
        assert!(holdings.take_fill(v1::Fill { order_id: "mine too".into(), ..fill }));
    }

    #[test]
    fn the_default_account_is_the_oldest_investment_account_in_the_currency() {
        let mut holdings = Holdings::default();
        for (id, kind, currency, created_us) in [
            ("a", AccountType::Investment, "USD", 3),
            ("b", AccountType::Investment, "CAD", 1),
            ("c", AccountType::Savings, "USD", 0),
            ("d", AccountType::Investment, "USD", 2),
        ] {
            holdings.take_account(v1::Account {
                id: id.into(),
                r#type: kind.into(),
                currency: currency.into(),
                created_us,
                ..Default::default()
            });
        }
        assert_eq!(holdings.default_account("USD").map(|a| a.id.as_str()), Some("d"));
        assert_eq!(holdings.default_account("EUR").map(|a| a.id.as_str()), Some("b"));
    }

    #[test]
    fn trades_and_a_shrinking_level_move_an_order_up_its_queue() {
        let mut holdings = Holdings::default();
        let mine = v1::Order {
            symbol: "A".into(),
            side: Side::Buy.into(),
            price_e4: 100,
            ..order(OrderState::New, 0, 1)
        };
        holdings.take_order(mine);
        let book = |quantity_e4| v1::BookImage {
            symbol: "A".into(),
            bids: vec![v1::Level { price_e4: 100, quantity_e4, orders: 2 }],
            ..Default::default()
        };
        estimate_queue(&mut holdings, &book(150_000));
        assert_eq!(holdings.queue_e4["o"], 100_000);
        trade_in_queue(
            &mut holdings,
            &v1::Trade {
                symbol: "A".into(),
                aggressor: Side::Sell.into(),
                price_e4: 100,
                quantity_e4: 30_000,
                ..Default::default()
            },
        );
        estimate_queue(&mut holdings, &book(500_000));
        assert_eq!(holdings.queue_e4["o"], 70_000);
        estimate_queue(&mut holdings, &book(60_000));
        assert_eq!(holdings.queue_e4["o"], 10_000);
    }
}
