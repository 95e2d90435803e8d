//! Between the contract's messages and the engine's own types.

use super::{
    domain::{Fact, Outcome},
    market::{self, Market},
    record::{Instruction, Listing, NewOrder, Record, Replace},
};
use fafnir_matching::{Kind, MAX_BAND_BPS, SelfTrade, Side, Tif};
use fafnir_platform::Refusal;
use fafnir_proto::{
    reason::Reason,
    v1::{self, engine_command},
};
use fafnir_rules::symbol::Symbol;
use uuid::Uuid;

/// Levels of a published book per side.
pub const IMAGE_LEVELS: usize = 50;

fn malformed(field: &str, must: &str) -> Refusal {
    Refusal::invalid(Reason::COMMAND_MALFORMED, format!("{field} {must}"))
}

fn id(field: &str, text: &str) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text).map_err(|_| malformed(field, "must be a UUID"))
}

/// Parses a command of order-service. What only the listing can tell is left to the engine.
pub fn parse_command(command: &v1::EngineCommand) -> Result<Record, Refusal> {
    use engine_command::Kind as Wire;
    let instruction = match command.kind.as_ref() {
        Some(Wire::NewOrder(new)) => Instruction::New(parse_new(new)?),
        Some(Wire::Cancel(cancel)) => Instruction::Cancel { order: id("order_id", &cancel.order_id)? },
        Some(Wire::Replace(replace)) => Instruction::Replace(Replace {
            order: id("order_id", &replace.order_id)?,
            quantity_e4: replace.quantity_e4,
            price_e4: replace.price_e4,
            stop_e4: replace.stop_price_e4,
            cap_e4: replace.cap_price_e4,
            version: replace.version,
        }),
        Some(Wire::CancelAll(all)) => Instruction::CancelAll { user: id("user_id", &all.user_id)? },
        Some(Wire::SetState(set)) => Instruction::SetState { state: state(set.state()) },
        None => return Err(malformed("kind", "must be given")),
    };
    let symbol = match command.symbol.as_str() {
        "" if matches!(instruction, Instruction::CancelAll { .. }) => None,
        text => Some(Symbol::parse(text).map_err(|e| malformed("symbol", &e.to_string()))?),
    };
    Ok(Record::Command { cmd_seq: command.cmd_seq, symbol, instruction })
}

fn parse_new(new: &v1::NewOrder) -> Result<NewOrder, Refusal> {
    let side = match new.side() {
        v1::Side::Buy => Side::Buy,
        v1::Side::Sell => Side::Sell,
        v1::Side::Unspecified => return Err(malformed("side", "must be BUY or SELL")),
    };
    let (kind, trail_e4) = match new.r#type() {
        v1::OrderType::Market => (Kind::Market, 0),
        v1::OrderType::Limit => (Kind::Limit, 0),
        v1::OrderType::Stop => (Kind::Stop, 0),
        v1::OrderType::StopLimit => (Kind::StopLimit, 0),
        v1::OrderType::TrailingStop if new.trail_amount_e4 != 0 => {
            (Kind::TrailingAmount, new.trail_amount_e4)
        }
        v1::OrderType::TrailingStop => (Kind::TrailingPercent, new.trail_percent_e4),
        v1::OrderType::Unspecified => return Err(malformed("type", "must be given")),
    };
    let tif = match new.time_in_force() {
        v1::TimeInForce::Unspecified if kind == Kind::Market => Tif::Ioc,
        v1::TimeInForce::Unspecified | v1::TimeInForce::Gtc => Tif::Gtc,
        v1::TimeInForce::Day => Tif::Day,
        v1::TimeInForce::Ioc => Tif::Ioc,
        v1::TimeInForce::Fok => Tif::Fok,
        v1::TimeInForce::Gtd => Tif::Gtd,
    };
    let self_trade = match new.stp() {
        v1::StpMode::Unspecified | v1::StpMode::CancelNewest => SelfTrade::CancelNewest,
        v1::StpMode::CancelOldest => SelfTrade::CancelOldest,
        v1::StpMode::CancelBoth => SelfTrade::CancelBoth,
        v1::StpMode::Decrement => SelfTrade::Decrement,
    };
    Ok(NewOrder {
        order: id("order_id", &new.order_id)?,
        user: id("user_id", &new.user_id)?,
        side,
        kind,
        tif,
        self_trade,
        post_only: new.post_only,
        quantity_e4: new.quantity_e4,
        price_e4: new.price_e4,
        stop_e4: new.stop_price_e4,
        trail_e4,
        display_e4: new.display_quantity_e4,
        expires_us: if tif == Tif::Gtd { new.expires_us } else { 0 },
        cap_e4: new.cap_price_e4,
    })
}

fn state(state: v1::TradingState) -> v1::TradingState {
    match state {
        v1::TradingState::Unspecified => v1::TradingState::Open,
        known => known,
    }
}

/// The listing in an instrument; `None` for one that cannot be traded.
pub fn listing(instrument: &v1::Instrument) -> Option<Listing> {
    let symbol = Symbol::parse(&instrument.symbol).ok()?;
    (instrument.tick_e4 > 0 && instrument.lot_e4 > 0).then(|| Listing {
        symbol,
        tick_e4: instrument.tick_e4,
        lot_e4: instrument.lot_e4,
        state: state(instrument.state()),
        previous_close_e4: instrument.previous_close_e4.max(0),
        band_bps: instrument.volatility_band_bps.min(MAX_BAND_BPS),
    })
}

fn side(side: Option<Side>) -> i32 {
    match side {
        Some(Side::Buy) => v1::Side::Buy.into(),
        Some(Side::Sell) => v1::Side::Sell.into(),
        None => v1::Side::Unspecified.into(),
    }
}

fn id_text(id: Uuid) -> String {
    if id.is_nil() { String::new() } else { id.to_string() }
}

fn execution(fact: &Fact, outcome: &Outcome) -> v1::Execution {
    let maker = outcome.maker;
    v1::Execution {
        seq: outcome.seq,
        kind: outcome.kind.into(),
        order_id: id_text(outcome.order),
        user_id: id_text(outcome.user),
        side: side(outcome.side),
        price_e4: outcome.price_e4,
        quantity_e4: outcome.quantity_e4,
        open_e4: outcome.open_e4,
        reason: outcome.reason.to_owned(),
        version: outcome.version,
        time_us: fact.time_us,
        cmd_seq: fact.cmd_seq,
        held: outcome.held,
        maker_order_id: maker.map_or_else(String::new, |m| id_text(m.order)),
        maker_user_id: maker.map_or_else(String::new, |m| id_text(m.user)),
        maker_open_e4: maker.map_or(0, |m| m.open_e4),
        trade_no: outcome.trade_no,
        stop_price_e4: outcome.stop_e4,
        state: outcome.state.unwrap_or(v1::TradingState::Unspecified).into(),
        auction: outcome.auction,
    }
}

/// The fact as it is published.
pub fn batch(symbol: &str, fact: &Fact) -> v1::ExecutionBatch {
    v1::ExecutionBatch {
        symbol: symbol.to_owned(),
        executions: fact.outcomes.iter().map(|o| execution(fact, o)).collect(),
    }
}

/// The trades of a batch as the public sees them.
pub fn trades(batch: &v1::ExecutionBatch) -> impl Iterator<Item = v1::Trade> + '_ {
    batch.executions.iter().filter(|e| e.trade_no != 0).map(|e| v1::Trade {
        symbol: batch.symbol.clone(),
        trade_no: e.trade_no,
        exec_id: format!("{}:{}", batch.symbol, e.seq),
        price_e4: e.price_e4,
        quantity_e4: e.quantity_e4,
        aggressor: if e.auction { v1::Side::Unspecified.into() } else { e.side },
        time_us: e.time_us,
    })
}

/// The image of a market's book.
pub fn image(market: &Market, epoch: u64, book_seq: u64, time_us: i64) -> v1::BookImage {
    let (indicative_price_e4, indicative_quantity_e4, indicative_surplus_e4) =
        market.indicative().unwrap_or_default();
    let (last_price_e4, last_quantity_e4) = market.last();
    v1::BookImage {
        symbol: market.symbol.to_string(),
        epoch,
        book_seq,
        bids: levels(market, Side::Buy, IMAGE_LEVELS),
        asks: levels(market, Side::Sell, IMAGE_LEVELS),
        last_price_e4,
        last_quantity_e4,
        last_trade_no: market.trade_no(),
        time_us,
        state: market.state().into(),
        indicative_price_e4,
        indicative_quantity_e4,
        indicative_surplus_e4,
    }
}

fn levels(market: &Market, side: Side, levels_max: usize) -> Vec<v1::Level> {
    let level =
        |l: market::Level| v1::Level { price_e4: l.price_e4, quantity_e4: l.quantity_e4, orders: l.orders };
    market.depth(side, levels_max).into_iter().map(level).collect()
}

/// Levels and orders of a market as operators see them.
pub fn depth(market: &Market, users: &[Uuid], levels_max: usize, orders_max: usize) -> v1::DepthReply {
    let order = |q: market::Queued| v1::QueuedOrder {
        order_id: id_text(q.order),
        user_id: id_text(q.user),
        price_e4: q.price_e4,
        shown_e4: q.shown_e4,
        open_e4: q.open_e4,
        filled_e4: q.filled_e4,
        version: q.version,
    };
    let orders = |side| market.queue(side, users, orders_max).into_iter().map(order).collect();
    let (indicative_price_e4, indicative_quantity_e4, indicative_surplus_e4) =
        market.indicative().unwrap_or_default();
    let (band_low_e4, band_high_e4) = market.band().unwrap_or_default();
    v1::DepthReply {
        bids: levels(market, Side::Buy, levels_max),
        asks: levels(market, Side::Sell, levels_max),
        bid_orders: orders(Side::Buy),
        ask_orders: orders(Side::Sell),
        state: market.state().into(),
        indicative_price_e4,
        indicative_quantity_e4,
        indicative_surplus_e4,
        band_low_e4,
        band_high_e4,
        paused_us: market.paused_us().unwrap_or(0),
    }
}
