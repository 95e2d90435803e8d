//! Between the types of stock-service and the contract's messages, once.

use super::{
    domain::{Bar, Event, Instrument, Kind, LastTrade, Proposal, Quote, State, Terms, Top},
    statistics::Statistics,
};
use fafnir_platform::clock::DAY_US;
use fafnir_proto::{reason::Reason, v1};

fn kind(kind: Kind) -> v1::InstrumentType {
    match kind {
        Kind::Equity => v1::InstrumentType::Equity,
        Kind::Etf => v1::InstrumentType::Etf,
    }
}

fn kind_of(kind: v1::InstrumentType) -> Option<Kind> {
    match kind {
        v1::InstrumentType::Unspecified => None,
        v1::InstrumentType::Equity => Some(Kind::Equity),
        v1::InstrumentType::Etf => Some(Kind::Etf),
    }
}

/// A state as a message names it.
pub fn state(state: State) -> v1::TradingState {
    match state {
        State::Open => v1::TradingState::Open,
        State::Halted => v1::TradingState::Halted,
        State::Closed => v1::TradingState::Closed,
        State::PreOpen => v1::TradingState::PreOpen,
        State::Auction => v1::TradingState::Auction,
    }
}

/// The state that a message names; `None` where it names none.
pub fn state_of(state: v1::TradingState) -> Option<State> {
    match state {
        v1::TradingState::Unspecified => None,
        v1::TradingState::Open => Some(State::Open),
        v1::TradingState::Halted => Some(State::Halted),
        v1::TradingState::Closed => Some(State::Closed),
        v1::TradingState::PreOpen => Some(State::PreOpen),
        v1::TradingState::Auction => Some(State::Auction),
    }
}

/// A listing as a message asks for it, unchecked. Version and pause are not for the caller to say.
pub fn proposal(message: v1::Instrument) -> Proposal {
    Proposal {
        kind: kind_of(message.r#type()),
        state: state_of(message.state()),
        volatility_band_bps: message.volatility_band_bps,
        symbol: message.symbol,
        terms: Terms {
            name: message.name,
            exchange: message.exchange,
            exchange_full_name: message.exchange_full_name,
            currency: message.currency,
            tick_e4: message.tick_e4,
            lot_e4: message.lot_e4,
            previous_close_e4: message.previous_close_e4,
            shares_outstanding: message.shares_outstanding,
            sector: message.sector,
            industry: message.industry,
            description: message.description,
            country: message.country,
            website: message.website,
        },
    }
}

/// The statistics of a symbol.
pub fn statistics(
    symbol: String,
    currency: String,
    index: Option<String>,
    s: &Statistics,
) -> v1::StatisticsReply {
    let price = |at: Option<(i64, i64)>| at.map_or((0, 0), |(price_e4, day)| (price_e4, day * DAY_US));
    let ((year_low_e4, year_low_us), (year_high_e4, year_high_us)) = (price(s.year_low), price(s.year_high));
    v1::StatisticsReply {
        symbol,
        currency,
        sessions: s.sessions,
        year_low_e4,
        year_low_us,
        year_high_e4,
        year_high_us,
        year_change_bps: s.year_change_bps,
        volume_short_e4: s.volume_short_e4,
        volume_long_e4: s.volume_long_e4,
        volatility_bps: s.volatility_bps,
        index: if s.beta_e4.is_some() { index.unwrap_or_default() } else { String::new() },
        beta_e4: s.beta_e4,
    }
}

/// A listing as it is.
pub fn instrument(i: &Instrument) -> v1::Instrument {
    let terms = i.terms.clone();
    v1::Instrument {
        symbol: i.symbol.clone(),
        name: terms.name,
        exchange: terms.exchange,
        exchange_full_name: terms.exchange_full_name,
        r#type: kind(i.kind).into(),
        currency: terms.currency,
        tick_e4: terms.tick_e4,
        lot_e4: terms.lot_e4,
        state: state(i.state).into(),
        previous_close_e4: terms.previous_close_e4,
        shares_outstanding: terms.shares_outstanding,
        sector: terms.sector,
        industry: terms.industry,
        description: terms.description,
        country: terms.country,
        website: terms.website,
        version: i.version,
        volatility_band_bps: i.volatility_band_bps,
        volatility_pause: i.volatility_pause,
    }
}

/// The fact that a listing is as it now is.
pub fn instrument_changed(i: &Instrument) -> v1::InstrumentChanged {
    v1::InstrumentChanged { instrument: Some(instrument(i)) }
}

/// The quote of a listing.
pub fn quote(i: &Instrument, q: &Quote) -> v1::Quote {
    v1::Quote {
        symbol: i.symbol.clone(),
        currency: i.terms.currency.clone(),
        price_e4: q.price_e4,
        bid_e4: q.top.bid_e4,
        ask_e4: q.top.ask_e4,
        bid_quantity_e4: q.top.bid_quantity_e4,
        ask_quantity_e4: q.top.ask_quantity_e4,
        open_e4: q.day.open_e4,
        previous_close_e4: q.previous_close_e4,
        day_low_e4: q.day.low_e4,
        day_high_e4: q.day.high_e4,
        year_low_e4: q.year_low_e4,
        year_high_e4: q.year_high_e4,
        volume_e4: q.day.volume_e4,
        market_cap_micros: q.market_cap_micros,
        market_cap_units: q.market_cap_units,
        as_of_us: q.as_of_us,
        state: state(q.state).into(),
        version: q.version,
    }
}

/// The bar of a symbol that begins at a time.
pub fn candle(symbol: &str, time_us: i64, bar: Bar) -> v1::Candle {
    v1::Candle {
        symbol: symbol.to_owned(),
        time_us,
        open_e4: bar.open_e4,
        high_e4: bar.high_e4,
        low_e4: bar.low_e4,
        close_e4: bar.close_e4,
        volume_e4: bar.volume_e4,
    }
}

/// A bar with the time that it names, unchecked.
pub fn bar(c: &v1::Candle) -> (i64, Bar) {
    let bar = Bar {
        open_e4: c.open_e4,
        high_e4: c.high_e4,
        low_e4: c.low_e4,
        close_e4: c.close_e4,
        volume_e4: c.volume_e4,
    };
    (c.time_us, bar)
}

/// The best levels of a book image.
pub fn top(image: &v1::BookImage) -> Top {
    let (bid, ask) = (image.bids.first(), image.asks.first());
    Top {
        epoch: image.epoch,
        book_seq: image.book_seq,
        bid_e4: bid.map_or(0, |l| l.price_e4),
        bid_quantity_e4: bid.map_or(0, |l| l.quantity_e4),
        ask_e4: ask.map_or(0, |l| l.price_e4),
        ask_quantity_e4: ask.map_or(0, |l| l.quantity_e4),
    }
}

/// What a fact is for listings and quotes; `None` where it is nothing.
pub fn event(fact: &v1::Fact) -> Option<Event> {
    match fact.kind() {
        v1::FactKind::Executed => Some(Event::Traded(LastTrade {
            price_e4: fact.price_e4,
            quantity_e4: fact.quantity_e4,
            trade_no: fact.trade_no,
            time_us: fact.time_us,
        })),
        v1::FactKind::StateChanged if fact.reason == Reason::VOLATILITY_PAUSE.as_str() => Some(Event::Paused),
        v1::FactKind::StateChanged => state_of(fact.state()).map(Event::StateSet),
        _ => None,
    }
}
