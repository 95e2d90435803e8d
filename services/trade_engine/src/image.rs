//! A market as it is published, and as operators ask for it.

use fafnir_clearing::{
    State,
    account::Account,
    account_after,
    market::{Level, Market, Queued},
    order::Order,
};
use fafnir_proto::v1;
use fafnir_rules::order::Side;
use prost::Message as _;
use uuid::Uuid;

use super::message::{self, Names};

/// Bytes of the accounts in one answer.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Levels of a published book per side.
pub const IMAGE_LEVELS: usize = 50;

fn levels(market: &Market, side: Side, levels_max: usize) -> Vec<v1::Level> {
    let level = |l: Level| v1::Level { price_e4: l.price_e4, quantity_e4: l.quantity_e4, orders: l.orders };
    market.depth(side, levels_max).into_iter().map(level).collect()
}

/// The image of a market's book.
pub fn book(market: &Market, epoch: u64, book_seq: u64, time_us: i64) -> v1::BookImage {
    let (indicative_price_e4, indicative_quantity_e4, indicative_surplus_e4) =
        market.indicative().unwrap_or_default();
    let (last_price_e4, last_quantity_e4) = market.last();
    v1::BookImage {
        symbol: market.symbol().to_string(),
        epoch,
        book_seq,
        bids: levels(market, Side::Buy, IMAGE_LEVELS),
        asks: levels(market, Side::Sell, IMAGE_LEVELS),
        last_price_e4,
        last_quantity_e4,
        last_trade_no: market.trade_no(),
        time_us,
        state: v1::TradingState::from(market.state()).into(),
        indicative_price_e4,
        indicative_quantity_e4,
        indicative_surplus_e4,
        pause_until_us: market.pause().map_or(0, |pause| pause.until_us),
    }
}

/// Levels and orders of a market as operators see them.
pub fn depth(state: &State, market: &Market, levels_max: usize, orders_max: usize) -> v1::DepthReply {
    let order = |q: Queued<'_>| v1::QueuedOrder {
        order_id: q.order.id.to_string(),
        user_id: state.owner(q.order.owner).map_or_else(String::new, |u| u.id.to_string()),
        price_e4: q.price_e4,
        shown_e4: q.shown_e4,
        open_e4: q.open_e4,
        filled_e4: q.filled_e4,
        version: q.order.version,
    };
    let orders = |side| market.queue(side, orders_max).into_iter().map(order).collect();
    let (indicative_price_e4, indicative_quantity_e4, indicative_surplus_e4) =
        market.indicative().unwrap_or_default();
    let (band_low_e4, band_high_e4) = market.band().unwrap_or_default();
    v1::DepthReply {
        bids: levels(market, Side::Buy, levels_max),
        asks: levels(market, Side::Sell, levels_max),
        bid_orders: orders(Side::Buy),
        ask_orders: orders(Side::Sell),
        state: v1::TradingState::from(market.state()).into(),
        indicative_price_e4,
        indicative_quantity_e4,
        indicative_surplus_e4,
        band_low_e4,
        band_high_e4,
        paused_us: market.pause().map_or(0, |pause| pause.since_us),
        pause_until_us: market.pause().map_or(0, |pause| pause.until_us),
        pause_extended: market.pause().is_some_and(|pause| pause.extended),
    }
}

/// Where an order stands in the queue of its price.
pub fn queue_position(state: &State, order: Uuid) -> Option<v1::QueuePositionReply> {
    let order = state.order(order)?;
    let market = state.markets().get(order.market as usize)?;
    let (orders_ahead, quantity_ahead_e4, quantity_better_e4) = market.queue_position(order)?;
    let symbol = market.symbol().to_string();
    Some(v1::QueuePositionReply { symbol, orders_ahead, quantity_ahead_e4, quantity_better_e4 })
}

/// Where an open order stands, resting or held, and what its market does.
pub fn standing(state: &State, order: Uuid) -> Option<v1::OrderStanding> {
    let order = state.order(order)?;
    let market = state.markets().get(order.market as usize)?;
    let resting = market.queue_position(order);
    let (orders_ahead, quantity_ahead_e4, quantity_better_e4) = resting.unwrap_or_default();
    let kind = match resting {
        Some(_) => v1::OrderStandingKind::Resting,
        None if order.asleep => v1::OrderStandingKind::Asleep,
        None => v1::OrderStandingKind::Held,
    };
    let best = |side| market.depth(side, 1).first().map_or(0, |level| level.price_e4);
    Some(v1::OrderStanding {
        kind: kind.into(),
        orders_ahead,
        quantity_ahead_e4,
        quantity_better_e4,
        state: v1::TradingState::from(market.state()).into(),
        last_price_e4: market.last().0,
        best_bid_e4: best(Side::Buy),
        best_ask_e4: best(Side::Sell),
    })
}

/// Which open orders are asked for.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// `None`: everybody's.
    pub user: Option<Uuid>,
    /// Empty: all.
    pub symbol: String,
    /// The order after which they are asked for.
    pub after: Uuid,
    pub limit: usize,
}

/// Open orders in the order of their ids.
pub fn open_orders(state: &State, names: &Names, asked: &Orders) -> v1::OpenOrdersReply {
    let is_asked = |o: &&Order| {
        o.id > asked.after && (asked.symbol.is_empty() || names.symbol(o.market) == asked.symbol)
    };
    let mut found: Vec<&Order> = match asked.user {
        Some(user) => state.orders_of(user).filter(is_asked).collect(),
        // Everybody's: their ids first, so that the core is kept from its work as short as can be.
        None if asked.symbol.is_empty() => {
            let ids = state.order_ids_after(asked.after, asked.limit + 1);
            ids.into_iter().filter_map(|id| state.order(id)).collect()
        }
        None => state.orders().filter(is_asked).collect(),
    };
    let more = found.len() > asked.limit;
    if more {
        found.select_nth_unstable_by_key(asked.limit, |o| o.id);
        found.truncate(asked.limit);
    }
    found.sort_unstable_by_key(|o| o.id);
    let user = |o: &Order| state.owner(o.owner).map_or_else(Uuid::nil, |u| u.id);
    let orders = found.into_iter().map(|o| message::order(names, o, user(o))).collect();
    v1::OpenOrdersReply { orders, position: state.position(), more }
}

/// What the core holds, for audits: a page of accounts, on the first one the house too.
pub fn accounts(state: &State, names: &Names, after: Uuid, limit: usize) -> v1::ImageReply {
    let found = state.accounts_after(after, limit + 1);
    let mut accounts: Vec<v1::ImageAccount> = Vec::new();
    let mut bytes = 0;
    for one in found.iter().take(limit) {
        let message = account(state, names, one);
        bytes += message.encoded_len();
        if bytes > PAGE_BYTES_MAX && !accounts.is_empty() {
            break;
        }
        accounts.push(message);
    }
    let more = accounts.len() < found.len();
    let house = |(house, asset, amount): (_, _, i128)| v1::HouseBalance {
        house: message::house(house).into(),
        asset: message::asset(names, asset),
        amount: amount.to_string(),
    };
    v1::ImageReply {
        position: state.position(),
        accounts,
        more,
        house: if after.is_nil() { state.house().map(house).collect() } else { Vec::new() },
        open_orders: state.open_orders() as u64,
    }
}

fn account(state: &State, names: &Names, account: &Account) -> v1::ImageAccount {
    let after = account_after(account, false);
    let owner = state.owner(account.owner).map_or_else(Uuid::nil, |u| u.id);
    let hold = |o: &Order| {
        let (cash_micros, shares_e4) = match o.side {
            Side::Buy => (o.hold.held, 0),
            Side::Sell => (0, o.hold.held),
        };
        v1::ImageHold { order_id: o.id.to_string(), cash_micros, shares_e4 }
    };
    v1::ImageAccount {
        account: Some(message::account(&after, owner)),
        holdings: account
            .holdings
            .iter()
            .map(|(market, shares)| message::holding(names, &after, *market, *shares))
            .collect(),
        holds: state.orders_of(owner).filter(|o| o.account == account.id).map(hold).collect(),
    }
}
