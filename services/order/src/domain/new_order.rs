//! The shape of a new order: everything that can be checked without knowing the instrument.

use super::Error;
use fafnir_proto::{
    money::format_e4,
    symbol::Symbol,
    v1::{OrderType, PlaceOrderRequest, Side, StpMode, TimeInForce},
};
use uuid::Uuid;

/// Largest quantity: 10,000,000 (exchange-rules §7).
pub const QUANTITY_E4_MAX: i64 = 10_000_000 * 10_000;
/// Longest client order id in bytes.
pub const CLIENT_ORDER_ID_LEN_MAX: usize = 64;
/// A GTD order ends within this: 366 days.
pub const EXPIRY_US_MAX: i64 = 366 * 86_400 * 1_000_000;
/// Largest trail: 50 % (scale 10⁻⁴ of a percent), the width of the price band.
pub const TRAIL_PERCENT_E4_MAX: i64 = 50 * 10_000;
/// A trail is a whole number of basis points.
const TRAIL_PERCENT_E4_STEP: i64 = 100;

/// Parts that an iceberg may show: what the book allows.
pub const PARTS_MAX: i64 = fafnir_rules::limits::ICEBERG_PARTS_MAX;

/// How a trailing stop follows the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trail {
    AmountE4(i64),
    /// Percent at scale 10⁻⁴: 1.5 % = 15,000.
    PercentE4(i64),
}

/// What the order does, with the prices that its type needs and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    Market,
    Limit { price_e4: i64 },
    Stop { stop_e4: i64 },
    StopLimit { price_e4: i64, stop_e4: i64 },
    TrailingStop { trail: Trail },
}

impl Terms {
    pub fn order_type(self) -> OrderType {
        match self {
            Self::Market => OrderType::Market,
            Self::Limit { .. } => OrderType::Limit,
            Self::Stop { .. } => OrderType::Stop,
            Self::StopLimit { .. } => OrderType::StopLimit,
            Self::TrailingStop { .. } => OrderType::TrailingStop,
        }
    }
    pub fn price_e4(self) -> i64 {
        match self {
            Self::Limit { price_e4 } | Self::StopLimit { price_e4, .. } => price_e4,
            Self::Market | Self::Stop { .. } | Self::TrailingStop { .. } => 0,
        }
    }
    pub fn stop_e4(self) -> i64 {
        match self {
            Self::Stop { stop_e4 } | Self::StopLimit { stop_e4, .. } => stop_e4,
            Self::Market | Self::Limit { .. } | Self::TrailingStop { .. } => 0,
        }
    }
}

/// A new order of the right shape; whether its instrument allows it is the next question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    pub account: Option<Uuid>,
    pub symbol: Symbol,
    pub side: Side,
    pub terms: Terms,
    pub time_in_force: TimeInForce,
    pub quantity_e4: i64,
    /// 0: all of it shows.
    pub display_e4: i64,
    pub post_only: bool,
    pub stp: StpMode,
    /// Empty: none.
    pub client_order_id: String,
    /// 0 unless GTD.
    pub expires_us: i64,
}

fn invalid<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Error> {
    Err(Error::invalid(reason, message))
}

/// The type in words for a sentence.
pub fn type_name(order_type: OrderType) -> &'static str {
    match order_type {
        OrderType::Unspecified => "unknown",
        OrderType::Market => "MARKET",
        OrderType::Limit => "LIMIT",
        OrderType::Stop => "STOP",
        OrderType::StopLimit => "STOP_LIMIT",
        OrderType::TrailingStop => "TRAILING_STOP",
    }
}

/// Checks a quantity apart from its lot.
pub fn quantity(quantity_e4: i64) -> Result<i64, Error> {
    if quantity_e4 <= 0 {
        return invalid("QUANTITY_NOT_POSITIVE", "quantity must be above 0");
    }
    if quantity_e4 > QUANTITY_E4_MAX {
        return invalid(
            "QUANTITY_TOO_LARGE",
            format!(
                "quantity must be at most {}, not {}",
                format_e4(QUANTITY_E4_MAX),
                format_e4(quantity_e4)
            ),
        );
    }
    Ok(quantity_e4)
}

impl NewOrder {
    /// Reads a request at time `now_us`.
    pub fn parse(r: &PlaceOrderRequest, now_us: i64) -> Result<Self, Error> {
        let symbol = Symbol::parse(&r.symbol).or_else(|e| invalid("SYMBOL_MALFORMED", e.to_string()))?;
        let account = match r.account_id.as_str() {
            "" => None,
            text => match Uuid::parse_str(text) {
                Ok(id) => Some(id),
                Err(_) => return invalid("ACCOUNT_ID_MALFORMED", "account_id must be a UUID"),
            },
        };
        let side = r.side();
        if side == Side::Unspecified {
            return invalid("SIDE_MISSING", "side must be BUY or SELL");
        }
        let quantity_e4 = quantity(r.quantity_e4)?;
        let terms = terms(r)?;
        let order_type = terms.order_type();
        let time_in_force = time_in_force(r.time_in_force(), order_type)?;
        let expires_us = expiry(time_in_force, r.expires_us, now_us)?;
        let rests = !matches!(time_in_force, TimeInForce::Ioc | TimeInForce::Fok);
        if r.post_only && !(order_type == OrderType::Limit && rests) {
            return invalid(
                "POST_ONLY_NOT_ALLOWED",
                "post_only is only for LIMIT orders with time in force DAY, GTC or GTD",
            );
        }
        let may_hide = matches!(order_type, OrderType::Limit | OrderType::StopLimit) && rests;
        if r.display_quantity_e4 != 0 && !may_hide {
            return invalid(
                "DISPLAY_QUANTITY_NOT_ALLOWED",
                "display_quantity is only for LIMIT and STOP_LIMIT orders with time in force DAY, GTC or GTD",
            );
        }
        if !(0..=quantity_e4).contains(&r.display_quantity_e4) {
            return invalid(
                "DISPLAY_QUANTITY_OUT_OF_RANGE",
                format!(
                    "display_quantity must be above 0 and at most the quantity {}",
                    format_e4(quantity_e4)
                ),
            );
        }
        parts(quantity_e4, r.display_quantity_e4)?;
        client_order_id(&r.client_order_id)?;
        Ok(Self {
            account,
            symbol,
            side,
            terms,
            time_in_force,
            quantity_e4,
            display_e4: r.display_quantity_e4,
            post_only: r.post_only,
            stp: match r.stp() {
                StpMode::Unspecified => StpMode::CancelNewest,
                stp => stp,
            },
            client_order_id: r.client_order_id.clone(),
            expires_us,
        })
    }
}

/// Checks that an iceberg does not show too many parts; a display quantity of 0 hides nothing.
pub fn parts(quantity_e4: i64, display_e4: i64) -> Result<(), Error> {
    if display_e4 == 0 || quantity_e4 <= display_e4.saturating_mul(PARTS_MAX) {
        return Ok(());
    }
    invalid(
        "DISPLAY_QUANTITY_TOO_SMALL",
        format!(
            "display_quantity {} must be at least a {PARTS_MAX}th of the quantity {}: an iceberg shows at most \
             {PARTS_MAX} parts",
            format_e4(display_e4),
            format_e4(quantity_e4)
        ),
    )
}

fn client_order_id(text: &str) -> Result<(), Error> {
    if text.len() > CLIENT_ORDER_ID_LEN_MAX {
        return invalid(
            "CLIENT_ORDER_ID_TOO_LONG",
            format!("client_order_id must have at most {CLIENT_ORDER_ID_LEN_MAX} characters"),
        );
    }
    if text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
        return invalid("CLIENT_ORDER_ID_MALFORMED", "client_order_id must be printable ASCII");
    }
    Ok(())
}

/// The prices of the type: each one that it needs, no other.
fn terms(r: &PlaceOrderRequest) -> Result<Terms, Error> {
    let order_type = r.r#type();
    let name = type_name(order_type);
    let (wants_price, wants_stop, wants_trail) = match order_type {
        OrderType::Unspecified => {
            return invalid("TYPE_MISSING", "type must be MARKET, LIMIT, STOP, STOP_LIMIT or TRAILING_STOP");
        }
        OrderType::Market => (false, false, false),
        OrderType::Limit => (true, false, false),
        OrderType::Stop => (false, true, false),
        OrderType::StopLimit => (true, true, false),
        OrderType::TrailingStop => (false, false, true),
    };
    if r.price_e4 < 0 {
        return invalid(
            "PRICE_NOT_POSITIVE",
            format!("price must be above 0, not {}", format_e4(r.price_e4)),
        );
    }
    if r.stop_price_e4 < 0 {
        let stop = format_e4(r.stop_price_e4);
        return invalid("STOP_PRICE_NOT_POSITIVE", format!("stop_price must be above 0, not {stop}"));
    }
    if wants_price && r.price_e4 == 0 {
        return invalid("PRICE_MISSING", format!("price is missing: a {name} order needs one above 0"));
    }
    if wants_stop && r.stop_price_e4 == 0 {
        return invalid(
            "STOP_PRICE_MISSING",
            format!("stop_price is missing: a {name} order needs one above 0"),
        );
    }
    if !wants_price && r.price_e4 != 0 {
        return invalid("PRICE_NOT_ALLOWED", format!("price must not be given: a {name} order has none"));
    }
    if !wants_stop && r.stop_price_e4 != 0 {
        return invalid(
            "STOP_PRICE_NOT_ALLOWED",
            format!("stop_price must not be given: a {name} order has none"),
        );
    }
    let has_trail = r.trail_amount_e4 != 0 || r.trail_percent_e4 != 0;
    if !wants_trail && has_trail {
        return invalid("TRAIL_NOT_ALLOWED", format!("a trail must not be given: a {name} order has none"));
    }
    Ok(match order_type {
        OrderType::Market | OrderType::Unspecified => Terms::Market,
        OrderType::Limit => Terms::Limit { price_e4: r.price_e4 },
        OrderType::Stop => Terms::Stop { stop_e4: r.stop_price_e4 },
        OrderType::StopLimit => Terms::StopLimit { price_e4: r.price_e4, stop_e4: r.stop_price_e4 },
        OrderType::TrailingStop => {
            Terms::TrailingStop { trail: trail(r.trail_amount_e4, r.trail_percent_e4)? }
        }
    })
}

fn trail(amount_e4: i64, percent_e4: i64) -> Result<Trail, Error> {
    match (amount_e4, percent_e4) {
        (0, 0) => invalid(
            "TRAIL_MISSING",
            "trail_amount or trail_percent is missing: a TRAILING_STOP order needs one",
        ),
        (amount, 0) if amount > 0 => Ok(Trail::AmountE4(amount)),
        (_, 0) => invalid("TRAIL_OUT_OF_RANGE", "trail_amount must be above 0"),
        (0, percent) => {
            if !(TRAIL_PERCENT_E4_STEP..=TRAIL_PERCENT_E4_MAX).contains(&percent)
                || percent % TRAIL_PERCENT_E4_STEP != 0
            {
                return invalid(
                    "TRAIL_OUT_OF_RANGE",
                    "trail_percent must be from 0.01 to 50 with at most 2 decimals",
                );
            }
            Ok(Trail::PercentE4(percent))
        }
        _ => invalid("TRAIL_AMBIGUOUS", "only one of trail_amount and trail_percent may be given"),
    }
}

fn time_in_force(wish: TimeInForce, order_type: OrderType) -> Result<TimeInForce, Error> {
    use TimeInForce::{Day, Fok, Gtc, Gtd, Ioc, Unspecified};
    match (order_type, wish) {
        (OrderType::Market, Unspecified) => Ok(Ioc),
        (OrderType::Market, Ioc | Fok) => Ok(wish),
        (OrderType::Market, Day | Gtc | Gtd) => {
            invalid("TIME_IN_FORCE_NOT_ALLOWED", "time_in_force of a MARKET order must be IOC or FOK")
        }
        (_, Unspecified) => Ok(Gtc),
        (OrderType::Limit, _) | (_, Day | Gtc | Gtd) => Ok(wish),
        (_, Ioc | Fok) => invalid(
            "TIME_IN_FORCE_NOT_ALLOWED",
            format!("time_in_force of a {} order must be DAY, GTC or GTD", type_name(order_type)),
        ),
    }
}

fn expiry(time_in_force: TimeInForce, expires_us: i64, now_us: i64) -> Result<i64, Error> {
    if time_in_force != TimeInForce::Gtd {
        return match expires_us {
            0 => Ok(0),
            _ => invalid("EXPIRY_NOT_ALLOWED", "expires_at is only for time in force GTD"),
        };
    }
    if expires_us == 0 {
        return invalid("EXPIRY_MISSING", "expires_at is missing: time in force GTD needs one");
    }
    if expires_us <= now_us {
        return invalid("EXPIRY_IN_THE_PAST", "expires_at must be in the future");
    }
    if expires_us - now_us > EXPIRY_US_MAX {
        return invalid("EXPIRY_TOO_FAR", "expires_at must be within 366 days");
    }
    Ok(expires_us)
}
