//! What comes from outside is bounded before it is kept, so that no sum or difference of two of its numbers overflows.

use fafnir_proto::v1;

/// Largest magnitude of a price, quantity, amount or time that is kept. Real ones are far below.
pub const NUMBER_MAX: i64 = i64::MAX / 64;
/// Levels of the book that are kept on each side.
pub const LEVELS_MAX: usize = 50;

fn bound(numbers: &mut [&mut i64]) {
    for number in numbers {
        **number = (**number).clamp(-NUMBER_MAX, NUMBER_MAX);
    }
}

/// Levels with a price and a quantity, best first.
pub fn book(mut image: v1::BookImage) -> v1::BookImage {
    bound(&mut [&mut image.last_price_e4, &mut image.last_quantity_e4, &mut image.time_us]);
    let v1::BookImage { indicative_price_e4, indicative_quantity_e4, indicative_surplus_e4, .. } = &mut image;
    bound(&mut [indicative_price_e4, indicative_quantity_e4, indicative_surplus_e4]);
    bound(&mut [&mut image.pause_until_us]);
    for side in [&mut image.bids, &mut image.asks] {
        side.retain(|l| l.price_e4 > 0 && l.quantity_e4 > 0);
        side.truncate(LEVELS_MAX);
        for level in side.iter_mut() {
            bound(&mut [&mut level.price_e4, &mut level.quantity_e4]);
        }
    }
    image.bids.sort_by_key(|l| std::cmp::Reverse(l.price_e4));
    image.asks.sort_by_key(|l| l.price_e4);
    image
}

pub fn trade(mut trade: v1::Trade) -> v1::Trade {
    bound(&mut [&mut trade.price_e4, &mut trade.quantity_e4, &mut trade.time_us]);
    trade
}

pub fn quote(mut quote: v1::Quote) -> v1::Quote {
    bound(&mut [&mut quote.price_e4, &mut quote.bid_e4, &mut quote.ask_e4, &mut quote.previous_close_e4]);
    quote
}

pub fn candle(mut candle: v1::Candle) -> v1::Candle {
    let v1::Candle { time_us, open_e4, high_e4, low_e4, close_e4, volume_e4, .. } = &mut candle;
    bound(&mut [time_us, open_e4, high_e4, low_e4, close_e4, volume_e4]);
    candle.high_e4 = candle.high_e4.max(candle.open_e4).max(candle.close_e4);
    candle.low_e4 = candle.low_e4.min(candle.open_e4).min(candle.close_e4);
    candle
}

pub fn statistics(mut said: v1::StatisticsReply) -> v1::StatisticsReply {
    let v1::StatisticsReply {
        year_change_bps, volume_short_e4, volume_long_e4, volatility_bps, beta_e4, ..
    } = &mut said;
    for number in [year_change_bps, volume_short_e4, volume_long_e4, volatility_bps, beta_e4] {
        bound(&mut number.iter_mut().collect::<Vec<_>>());
    }
    said
}

pub fn order(mut order: v1::Order) -> v1::Order {
    let v1::Order { quantity_e4, filled_e4, price_e4, stop_price_e4, filled_notional_micros, .. } =
        &mut order;
    bound(&mut [quantity_e4, filled_e4, price_e4, stop_price_e4, filled_notional_micros]);
    let v1::Order {
        trail_amount_e4,
        trail_percent_e4,
        display_quantity_e4,
        created_us,
        updated_us,
        expires_us,
        ..
    } = &mut order;
    bound(&mut [trail_amount_e4, trail_percent_e4, display_quantity_e4, created_us, updated_us, expires_us]);
    order
}

pub fn fill(mut fill: v1::Fill) -> v1::Fill {
    bound(&mut [&mut fill.price_e4, &mut fill.quantity_e4, &mut fill.time_us]);
    fill
}

pub fn holding(mut holding: v1::Holding) -> v1::Holding {
    let v1::Holding {
        quantity_e4,
        held_e4,
        available_e4,
        cost_micros,
        avg_cost_micros,
        realized_pnl_micros,
        ..
    } = &mut holding;
    bound(&mut [quantity_e4, held_e4, available_e4, cost_micros, avg_cost_micros, realized_pnl_micros]);
    holding
}

pub fn account(mut account: v1::Account) -> v1::Account {
    bound(&mut [&mut account.balance_micros, &mut account.held_micros, &mut account.available_micros]);
    account
}

pub fn instrument(mut instrument: v1::Instrument) -> v1::Instrument {
    bound(&mut [&mut instrument.tick_e4, &mut instrument.lot_e4, &mut instrument.previous_close_e4]);
    instrument
}
