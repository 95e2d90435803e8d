//! The shape of a new order: everything that can be checked without knowing the instrument.

use super::Error;
use fafnir_proto::{
    id::AccountId,
    reason::Reason,
    v1::{self, PlaceCommand, PlaceOrderRequest, StpMode},
};
use fafnir_rules::{
    check::{self, Terms, Violation},
    order::{OrderType, Side, TimeInForce},
    price::Trail,
};
use fafnir_rules::{money::format_e4, symbol::Symbol};
use uuid::Uuid;

/// A new order of the right shape; whether its instrument allows it is the next question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    pub account: Option<AccountId>,
    pub symbol: Symbol,
    pub side: Side,
    pub terms: Terms,
    pub time_in_force: TimeInForce,
    /// 0 where `notional_micros` says how much.
    pub quantity_e4: i64,
    /// 0: none.
    pub notional_micros: i64,
    /// 0: all of it shows.
    pub display_e4: i64,
    pub post_only: bool,
    pub stp: StpMode,
    /// Empty: none.
    pub client_order_id: String,
    /// 0 unless GTD.
    pub expires_us: i64,
}

fn invalid<T>(reason: Reason, message: impl Into<String>) -> Result<T, Error> {
    Err(Error::invalid(reason, message))
}

impl NewOrder {
    /// Reads a request.
    pub fn parse(r: &PlaceOrderRequest) -> Result<Self, Error> {
        let symbol =
            Symbol::parse(&r.symbol).or_else(|e| invalid(Reason::SYMBOL_MALFORMED, e.to_string()))?;
        let account = match r.account_id.as_str() {
            "" => None,
            text => match AccountId::parse(text) {
                Ok(id) => Some(id),
                Err(_) => return invalid(Reason::ID_MALFORMED, "account_id must be a UUID"),
            },
        };
        let Some(side) = r.side().known() else {
            return invalid(Reason::SIDE_UNKNOWN, "side must be BUY or SELL");
        };
        let refuse = |violation: Violation| Error::of_rule(violation, symbol.as_str());
        if r.notional_micros == 0 {
            check::quantity(r.quantity_e4).map_err(refuse)?;
        }
        let terms = terms(r, symbol.as_str())?;
        let order_type = terms.order_type();
        check::how_much(order_type, r.quantity_e4, r.notional_micros).map_err(refuse)?;
        let time_in_force = r.time_in_force().known().unwrap_or(order_type.default_time());
        check::time_in_force(order_type, time_in_force).map_err(refuse)?;
        if time_in_force == TimeInForce::Gtd && r.expires_us == 0 {
            return Err(refuse(Violation::ExpiryMissing));
        }
        if time_in_force != TimeInForce::Gtd && r.expires_us != 0 {
            return invalid(Reason::EXPIRY_NOT_ALLOWED, "expires_at is only for time in force GTD");
        }
        if r.post_only && !order_type.may_post_only(time_in_force) {
            return invalid(
                Reason::POST_ONLY_NOT_ALLOWED,
                "post_only is only for LIMIT orders with time in force DAY, GTC or GTD",
            );
        }
        if r.display_quantity_e4 != 0 && !order_type.may_hide(time_in_force) {
            return invalid(
                Reason::DISPLAY_QUANTITY_NOT_ALLOWED,
                "display_quantity is only for LIMIT and STOP_LIMIT orders with time in force DAY, GTC or GTD",
            );
        }
        check::display(r.quantity_e4, r.display_quantity_e4).map_err(refuse)?;
        check::client_order_id(&r.client_order_id).map_err(refuse)?;
        Ok(Self {
            account,
            symbol,
            side,
            terms,
            time_in_force,
            quantity_e4: r.quantity_e4,
            notional_micros: r.notional_micros,
            display_e4: r.display_quantity_e4,
            post_only: r.post_only,
            stp: match r.stp() {
                StpMode::Unspecified => StpMode::CancelNewest,
                stp => stp,
            },
            client_order_id: r.client_order_id.clone(),
            expires_us: r.expires_us,
        })
    }

    /// Checks that it would not end before it begins, at time `now_us`.
    pub fn in_time(&self, now_us: i64) -> Result<(), Error> {
        if self.time_in_force != TimeInForce::Gtd {
            return Ok(());
        }
        check::expiry(self.expires_us, now_us).map_err(|v| Error::of_rule(v, self.symbol.as_str()))
    }

    /// The command that places it as the order `id`.
    pub fn command(&self, id: Uuid) -> PlaceCommand {
        let (trail_amount_e4, trail_percent_e4) = match self.terms {
            Terms::TrailingStop { trail: Trail::AmountE4(amount) } => (amount, 0),
            Terms::TrailingStop { trail: Trail::PercentE4(percent) } => (0, percent),
            _ => (0, 0),
        };
        PlaceCommand {
            order_id: id.to_string(),
            account_id: self.account.map(|id| id.to_string()).unwrap_or_default(),
            symbol: self.symbol.to_string(),
            side: v1::Side::from(self.side).into(),
            r#type: v1::OrderType::from(self.terms.order_type()).into(),
            time_in_force: v1::TimeInForce::from(self.time_in_force).into(),
            quantity_e4: self.quantity_e4,
            notional_micros: self.notional_micros,
            price_e4: self.terms.price_e4(),
            stop_price_e4: self.terms.stop_e4(),
            trail_amount_e4,
            trail_percent_e4,
            display_quantity_e4: self.display_e4,
            post_only: self.post_only,
            stp: self.stp.into(),
            expires_us: self.expires_us,
        }
    }
}

/// The prices of the type: each one that it needs, no other.
fn terms(r: &PlaceOrderRequest, symbol: &str) -> Result<Terms, Error> {
    let Some(order_type) = r.r#type().known() else {
        return invalid(
            Reason::TYPE_UNKNOWN,
            "type must be MARKET, LIMIT, STOP, STOP_LIMIT or TRAILING_STOP",
        );
    };
    let (has_price, has_stop) = (order_type.has_price(), order_type.has_stop());
    if r.price_e4 < 0 {
        return invalid(
            Reason::PRICE_NOT_POSITIVE,
            format!("price must be above 0, not {}", format_e4(r.price_e4)),
        );
    }
    if r.stop_price_e4 < 0 {
        let stop = format_e4(r.stop_price_e4);
        return invalid(Reason::STOP_PRICE_NOT_POSITIVE, format!("stop_price must be above 0, not {stop}"));
    }
    if has_price && r.price_e4 == 0 {
        return invalid(
            Reason::PRICE_MISSING,
            format!("price is missing: a {order_type} order needs one above 0"),
        );
    }
    if has_stop && r.stop_price_e4 == 0 {
        return invalid(
            Reason::STOP_PRICE_MISSING,
            format!("stop_price is missing: a {order_type} order needs one above 0"),
        );
    }
    if !has_price && r.price_e4 != 0 {
        return invalid(
            Reason::PRICE_NOT_ALLOWED,
            format!("price must not be given: a {order_type} order has none"),
        );
    }
    if !has_stop && r.stop_price_e4 != 0 {
        return invalid(
            Reason::STOP_PRICE_NOT_ALLOWED,
            format!("stop_price must not be given: a {order_type} order has none"),
        );
    }
    let has_trail = r.trail_amount_e4 != 0 || r.trail_percent_e4 != 0;
    if !order_type.has_trail() && has_trail {
        return invalid(
            Reason::TRAIL_NOT_ALLOWED,
            format!("a trail must not be given: a {order_type} order has none"),
        );
    }
    Ok(match order_type {
        OrderType::Market => Terms::Market,
        OrderType::Limit => Terms::Limit { price_e4: r.price_e4 },
        OrderType::Stop => Terms::Stop { stop_e4: r.stop_price_e4 },
        OrderType::StopLimit => Terms::StopLimit { price_e4: r.price_e4, stop_e4: r.stop_price_e4 },
        OrderType::TrailingStop => {
            let trail = trail(r.trail_amount_e4, r.trail_percent_e4)?;
            check::trail(trail).map_err(|v| Error::of_rule(v, symbol))?;
            Terms::TrailingStop { trail }
        }
    })
}

/// The one trail of a request.
pub fn trail(amount_e4: i64, percent_e4: i64) -> Result<Trail, Error> {
    match (amount_e4, percent_e4) {
        (0, 0) => Err(Error::of_rule(Violation::TrailMissing, "")),
        (amount, 0) => Ok(Trail::AmountE4(amount)),
        (0, percent) => Ok(Trail::PercentE4(percent)),
        _ => invalid(Reason::TRAIL_AMBIGUOUS, "only one of trail_amount and trail_percent may be given"),
    }
}
