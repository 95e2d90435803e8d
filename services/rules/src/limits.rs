//! Limits of what an order may ask for, and of a listing (exchange-rules §§2, 7).

use crate::money::ONE_E4;

/// Largest quantity: 10,000,000 (e4).
pub const QUANTITY_E4_MAX: i64 = 10_000_000 * ONE_E4;
/// Longest client order id in bytes.
pub const CLIENT_ORDER_ID_LEN_MAX: usize = 64;
/// A GTD order ends within this: 366 days, in microseconds.
pub const EXPIRY_US_MAX: i64 = 366 * 86_400 * 1_000_000;
/// Most parts in which an iceberg may show its quantity: one command could otherwise refill for ever.
pub const ICEBERG_PARTS_MAX: i64 = 1_000;
/// Highest number of ticks in a price: what the book can hold.
pub const TICKS_MAX: i64 = 4_294_967_294;
/// A price is within this of the reference price, in percent.
pub const BAND_PERCENT: i64 = 50;
/// A collar is at least this many ticks wide (exchange-rules §3).
pub const COLLAR_TICKS_MIN: i64 = 10;
/// A collar is at least this part of its price wide, in thousandths: 2.5 %.
pub const COLLAR_PER_MILLE: i64 = 25;
/// Largest trail at scale 10⁻⁴ of a percent: the width of the price band.
pub const TRAIL_PERCENT_E4_MAX: i64 = BAND_PERCENT * ONE_E4;
/// A trail in percent is a whole number of basis points (scale 10⁻⁴ of a percent).
pub const TRAIL_PERCENT_E4_STEP: i64 = 100;
/// How fast a recorded market may be played, thousandths.
pub const PLAYBACK_SPEED_MILLI: std::ops::RangeInclusive<u32> = 10..=1_000_000;
/// What news may say of a symbol's worth, in basis points.
pub const NEWS_BPS: std::ops::RangeInclusive<i32> = -9_000..=10_000;
/// Highest price, quantity step and previous close of a listing: 1,000,000 (e4).
pub const LISTING_E4_MAX: i64 = 1_000_000 * ONE_E4;
/// decimals(tick) + decimals(lot) stay within those of an amount.
pub const STEP_DECIMALS_MAX: u32 = crate::money::MICROS_DECIMALS;
/// Widest volatility band in basis points of its reference: below 100 %.
pub const VOLATILITY_BAND_BPS_MAX: u32 = 9_999;
