//! What the exchange would say to a ticket, said while one types: shape, instrument, band, funds (exchange-rules §7).
//!
//! The exchange has the last word; this asks the same rules, only earlier, and says what they say in the words of the
//! ticket where its box is too small for the exchange's sentence.

use super::{Field, Refusal, Request, Ticket, expiry, read_e4};
use crate::{
    model::{Model, holdings},
    text::{self, Input},
};
use fafnir_proto::v1::{
    self, OrderState, OrderType, PendingAction, PlaceOrderRequest, ReplaceOrderRequest, Side,
};
use fafnir_rules::money;
use fafnir_rules::{
    check::{self, Listing, Terms, Violation},
    limits::{BAND_PERCENT, QUANTITY_E4_MAX},
    order,
    price::{self, Trail},
};
use std::borrow::Cow;

fn refuse<T>(field: Field, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: Some(field), text: text.into() })
}

fn refuse_all<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: None, text: text.into() })
}

impl Ticket {
    /// Price × quantity in micros where both can be read; of a market order at its collar.
    pub fn notional_micros(&self, model: &Model) -> Option<i64> {
        let quantity = read_e4(&self.quantity)?;
        money::notional_micros(self.worst_price_e4(model)?, quantity)
    }

    /// The stop price that a trailing stop starts with, e4; none while its trail cannot be read.
    pub fn trailing_start_e4(&self, model: &Model) -> Option<i64> {
        let trail = self.parse_trail().ok()?;
        let tick = model.tick_e4(&self.symbol);
        price::trailing_start(self.rules_side(), trail, model.reference_e4(&self.symbol)?, tick)
    }

    /// The worst price at which the order can trade, e4.
    fn worst_price_e4(&self, model: &Model) -> Option<i64> {
        let tick = model.tick_e4(&self.symbol);
        let base = match self.kind {
            OrderType::Limit | OrderType::StopLimit | OrderType::Unspecified => {
                return read_e4(&self.price);
            }
            OrderType::Stop => read_e4(&self.stop)?,
            // The trail of an order that stands is not looked up again: only its quantity can change.
            OrderType::TrailingStop => match &self.replaces {
                Some(order) => order.stop_price_e4,
                None => self.trailing_start_e4(model)?,
            },
            OrderType::Market => model.reference_e4(&self.symbol)?,
        };
        price::collar(self.rules_side(), base, tick)
    }

    /// What a new order would take from the book at once: its shares and the last price that they come at, e4. None
    /// where it rests, and where what the book holds is not known.
    pub fn crossing(&self, model: &Model) -> Option<(i64, i64)> {
        let takes = matches!(self.kind, OrderType::Limit | OrderType::Market) && self.replaces.is_none();
        let open = matches!(model.trading_state(&self.symbol), v1::TradingState::Open);
        let book = model.book.as_ref().filter(|b| takes && open && b.symbol == self.symbol)?;
        let (limit, mut left) = (self.worst_price_e4(model)?, read_e4(&self.quantity)?);
        let levels = if self.side == Side::Buy { &book.asks } else { &book.bids };
        let (mut taken, mut last) = (0i64, 0);
        for level in levels {
            let reaches =
                if self.side == Side::Buy { level.price_e4 <= limit } else { level.price_e4 >= limit };
            if left <= 0 || !reaches {
                break;
            }
            let part = left.min(level.quantity_e4.max(0));
            (taken, last, left) = (taken.saturating_add(part), level.price_e4, left - part);
        }
        (taken > 0).then_some((taken, last))
    }

    /// Checks the ticket in the exchange's order.
    ///
    /// # Errors
    /// The first thing that the exchange would refuse.
    pub fn validate(&self, model: &Model) -> Result<Request, Refusal> {
        match &self.replaces {
            Some(order) => self.validate_replace(model, order).map(Request::Replace),
            None => self.validate_new(model).and_then(|order| self.with_exits(model, order)),
        }
    }

    /// The order with the exits that are filled in. One exit of a buy: what is bought is sold by it; two: by the one that
    /// comes first. Beside a sell a stop: whichever comes first.
    fn with_exits(&self, model: &Model, order: PlaceOrderRequest) -> Result<Request, Refusal> {
        let (has_target, has_stop) = (
            self.has_target() && !self.target.is_empty(),
            self.has_exit_stop() && !self.exit_stop.is_empty(),
        );
        if !has_target && !has_stop {
            return Ok(Request::Place(order));
        }
        let tick = model.tick_e4(&self.symbol);
        let price = |input: &Input, field: Field| {
            let price = price_of(input, field, field.name())?;
            if price % tick != 0 {
                let tick = text::price(tick, tick);
                return refuse(field, format!("{} must be a multiple of the tick {tick}", field.name()));
            }
            Ok(price)
        };
        let exit = |kind: OrderType, price_e4: i64, stop_price_e4: i64| PlaceOrderRequest {
            symbol: self.symbol.clone(),
            side: Side::Sell.into(),
            r#type: kind.into(),
            quantity_e4: order.quantity_e4,
            price_e4,
            stop_price_e4,
            account_id: order.account_id.clone(),
            ..Default::default()
        };
        let entry = text::price(order.price_e4, tick);
        let mut exits = Vec::new();
        if has_target {
            let target = price(&self.target, Field::Target)?;
            if target <= order.price_e4 {
                return refuse(Field::Target, format!("the target must be above the price {entry}"));
            }
            exits.push(exit(OrderType::Limit, target, 0));
        }
        if has_stop {
            let stop = price(&self.exit_stop, Field::ExitStop)?;
            if stop >= order.price_e4 {
                return refuse(Field::ExitStop, format!("the exit stop must be below the price {entry}"));
            }
            exits.push(exit(OrderType::Stop, 0, stop));
        }
        let (kind, mut orders) = match (self.side, exits.len()) {
            (Side::Sell, _) => (v1::GroupKind::Oco, vec![order]),
            (_, 1) => (v1::GroupKind::Oto, vec![order]),
            _ => (v1::GroupKind::Bracket, vec![order]),
        };
        orders.extend(exits);
        Ok(Request::Group(v1::PlaceGroupRequest { user_id: String::new(), kind: kind.into(), orders }))
    }

    fn validate_new(&self, model: &Model) -> Result<PlaceOrderRequest, Refusal> {
        let quantity_e4 = quantity_of(&self.quantity)?;
        let price_e4 = if self.has_price() { price_of(&self.price, Field::Price, "price")? } else { 0 };
        let stop_price_e4 =
            if self.has_stop() { price_of(&self.stop, Field::Stop, "stop price")? } else { 0 };
        let trail = if self.has_trail() { Some(self.parse_trail()?) } else { None };
        let expires_us = if self.has_expiry() {
            expiry::parse(self.expires.text(), model.now_us, &model.zone)
                .or_else(|text| refuse(Field::Expires, text))?
        } else {
            0
        };
        let display_e4 = self.display_of(model, quantity_e4)?;

        let Some(instrument) = model.instruments.get(&self.symbol) else {
            return refuse_all(format!("{} is not a listed symbol", self.symbol));
        };
        let order = check::Order {
            side: self.rules_side(),
            terms: match (self.kind, trail) {
                (OrderType::Market, _) => Terms::Market,
                (OrderType::Stop, _) => Terms::Stop { stop_e4: stop_price_e4 },
                (OrderType::StopLimit, _) => Terms::StopLimit { price_e4, stop_e4: stop_price_e4 },
                (OrderType::TrailingStop, Some(trail)) => Terms::TrailingStop { trail },
                _ => Terms::Limit { price_e4 },
            },
            time_in_force: self.time_in_force.known().unwrap_or(order::TimeInForce::Gtc),
            quantity_e4,
            display_e4,
        };
        let listing = Listing {
            tick_e4: instrument.tick_e4.max(1),
            lot_e4: instrument.lot_e4.max(1),
            state: model.trading_state(&self.symbol).known().unwrap_or(order::TradingState::Open),
        };
        self.said(model, check::order(&order, &listing, model.reference_e4(&self.symbol)))?;
        self.check_funds(model, quantity_e4)?;
        let (trail_amount_e4, trail_percent_e4) = match trail {
            Some(Trail::AmountE4(amount)) => (amount, 0),
            Some(Trail::PercentE4(percent)) => (0, percent),
            None => (0, 0),
        };
        Ok(PlaceOrderRequest {
            symbol: self.symbol.clone(),
            side: self.side.into(),
            r#type: self.kind.into(),
            time_in_force: self.time_in_force.into(),
            quantity_e4,
            price_e4,
            stop_price_e4,
            trail_amount_e4,
            trail_percent_e4,
            display_quantity_e4: display_e4,
            post_only: self.post_only && self.has_post_only(),
            client_order_id: self.client_order_id.clone(),
            account_id: self.accounts.get(self.account).map(|(id, _)| id.clone()).unwrap_or_default(),
            expires_us,
            ..Default::default()
        })
    }

    fn rules_side(&self) -> order::Side {
        self.side.known().unwrap_or(order::Side::Buy)
    }

    /// What a rule says, in the ticket's words.
    fn said<T>(&self, model: &Model, checked: Result<T, Violation>) -> Result<T, Refusal> {
        checked.map_err(|violation| Refusal {
            field: field_of(violation, self.kind),
            text: text_of(violation, &self.symbol, model.tick_e4(&self.symbol)),
        })
    }

    fn parse_trail(&self) -> Result<Trail, Refusal> {
        let text = plain(&self.trail, Field::Trail)?;
        let checked = |trail: Result<Trail, Violation>| {
            let trail = trail.and_then(|trail| check::trail(trail).map(|()| trail));
            trail.or_else(|violation| refuse(Field::Trail, violation.sentence(&self.symbol)))
        };
        if text.is_empty() {
            return checked(Err(Violation::TrailMissing));
        }
        match text.strip_suffix('%') {
            None => match money::parse_e4(&text) {
                Ok(amount) => checked(Ok(Trail::AmountE4(amount))),
                Err(e) => refuse(Field::Trail, format!("trail_amount {e}")),
            },
            Some(percent) => match money::parse_e4(percent) {
                Ok(percent) => checked(Ok(Trail::PercentE4(percent))),
                Err(e @ money::Error::Malformed) => refuse(Field::Trail, format!("trail_percent {e}")),
                Err(_) => checked(Err(Violation::TrailPercentOutOfRange)),
            },
        }
    }

    /// What an iceberg shows, e4; 0 shows everything.
    fn display_of(&self, model: &Model, quantity_e4: i64) -> Result<i64, Refusal> {
        if !self.has_display() || self.display.is_empty() {
            return Ok(0);
        }
        match money::parse_e4(&plain(&self.display, Field::Display)?) {
            Err(e) => refuse(Field::Display, format!("display_quantity {e}")),
            // Who types something into the field wants an iceberg.
            Ok(0) => self.said(model, Err(Violation::DisplayOutOfRange { quantity_e4 })),
            Ok(display_e4) => self.said(model, check::display(quantity_e4, display_e4)).map(|()| display_e4),
        }
    }

    fn check_funds(&self, model: &Model, quantity_e4: i64) -> Result<(), Refusal> {
        let currency = model.currency(&self.symbol);
        let chosen = self.accounts.get(self.account).and_then(|(id, _)| model.holdings.accounts.get(id));
        let Some(account) = chosen.or_else(|| model.holdings.default_account(currency)) else {
            return if model.holdings.accounts.is_empty() {
                Ok(())
            } else {
                refuse_all("there is no investment account to trade from")
            };
        };
        let needed = self.worst_price_e4(model).and_then(|p| money::notional_micros(p, quantity_e4));
        self.has_funds(model, account, quantity_e4, needed)
    }

    /// Compares what an order needs now with what the account has free.
    fn has_funds(
        &self,
        model: &Model,
        account: &v1::Account,
        shares_e4: i64,
        needed_micros: Option<i64>,
    ) -> Result<(), Refusal> {
        let currency = model.currency(&self.symbol);
        if self.side == Side::Sell {
            let available = model.holdings.sellable_e4(&account.id, &self.symbol);
            if shares_e4 > available {
                let have = money::format_e4(available);
                return refuse(
                    Field::Quantity,
                    format!("not enough shares: {have} {} available", self.symbol),
                );
            }
            return Ok(());
        }
        if account.currency != currency {
            return Ok(()); // the exchange converts, at a rate that it alone knows
        }
        let Some(needed) = needed_micros else {
            return refuse(Field::Quantity, "price × quantity is too large");
        };
        if needed > account.available_micros {
            let (needs, has) = (text::cents(needed), text::cents(account.available_micros));
            return refuse(
                Field::Quantity,
                format!("not enough cash: needs {needs}, available {has} {currency}"),
            );
        }
        Ok(())
    }

    fn validate_replace(&self, model: &Model, opened: &v1::Order) -> Result<ReplaceOrderRequest, Refusal> {
        let order = model.holdings.orders.get(&opened.id).unwrap_or(opened);
        let id = crate::update::short_id(&order.id);
        if !holdings::is_open(order) {
            return refuse_all(format!("order {id} has ended: {}", crate::screens::lower::state_name(order)));
        }
        match (order.state(), order.pending()) {
            (OrderState::PendingNew, _) => {
                return refuse_all(format!("order {id} is not in the book yet and cannot be replaced"));
            }
            (_, PendingAction::Cancel) => {
                return refuse_all(format!("a cancel of order {id} is already on its way"));
            }
            (_, PendingAction::Replace) => {
                return refuse_all(format!("a replace of order {id} is already on its way"));
            }
            (_, PendingAction::None) => {}
        }
        if order.version != opened.version {
            return refuse_all(format!(
                "version of order {id} is {}, not {}: close and open it again",
                order.version, opened.version
            ));
        }
        let quantity_e4 = quantity_of(&self.quantity)?;
        let price_e4 = if self.has_price() { price_of(&self.price, Field::Price, "price")? } else { 0 };
        let stop_e4 = if self.has_stop() { price_of(&self.stop, Field::Stop, "stop price")? } else { 0 };
        // What stays as it is is not sent: 0 keeps it.
        let change = |now: i64, was: i64| if now == was { 0 } else { now };
        let request = ReplaceOrderRequest {
            order_id: order.id.clone(),
            quantity_e4: change(quantity_e4, order.quantity_e4),
            price_e4: change(price_e4, order.price_e4),
            stop_price_e4: if self.has_stop() { change(stop_e4, order.stop_price_e4) } else { 0 },
            version: order.version,
            ..Default::default()
        };
        if (request.quantity_e4, request.price_e4, request.stop_price_e4) == (0, 0, 0) {
            let what = if self.has_price() { "quantity or price" } else { "quantity" };
            return refuse(Field::Quantity, format!("nothing changes yet: give another {what}"));
        }
        if request.stop_price_e4 != 0 && order.state() != OrderState::Held {
            return refuse(
                Field::Stop,
                format!("stop_price cannot be changed: the stop of order {id} was triggered"),
            );
        }
        let state = model.trading_state(&self.symbol).known().unwrap_or(order::TradingState::Open);
        self.said(model, check::open(state))?;
        let lot = model.lot_e4(&self.symbol);
        self.said(model, check::lots(check::Field::Quantity, quantity_e4, lot))?;
        let rest_e4 = quantity_e4.saturating_sub(order.filled_e4);
        self.said(model, check::parts(rest_e4, order.display_quantity_e4))
            .map_err(|refusal| Refusal { field: Some(Field::Quantity), ..refusal })?;
        if quantity_e4 <= order.filled_e4 {
            let filled = money::format_e4(order.filled_e4);
            return refuse(Field::Quantity, format!("quantity must be above the {filled} already filled"));
        }
        let (tick, reference) = (model.tick_e4(&self.symbol), model.reference_e4(&self.symbol));
        for terms in
            [Terms::Limit { price_e4: request.price_e4 }, Terms::Stop { stop_e4: request.stop_price_e4 }]
        {
            let checked = check::ticks(terms, tick)
                .and_then(|()| check::priced(self.rules_side(), terms, tick, reference));
            self.said(model, checked)?;
        }
        self.check_extra(model, order, quantity_e4)?;
        Ok(request)
    }

    /// What a replace needs beyond what the order holds already.
    fn check_extra(&self, model: &Model, order: &v1::Order, quantity_e4: i64) -> Result<(), Refusal> {
        let Some(account) = model.holdings.accounts.get(&order.account_id) else { return Ok(()) };
        let tick = model.tick_e4(&self.symbol);
        let held_at = if order.price_e4 > 0 {
            Some(order.price_e4)
        } else {
            price::collar(self.rules_side(), order.stop_price_e4, tick)
        };
        let open = |quantity: i64| quantity.saturating_sub(order.filled_e4);
        let cost = |price: Option<i64>, quantity: i64| {
            price.and_then(|price| money::notional_micros(price, open(quantity)))
        };
        let needed = cost(self.worst_price_e4(model), quantity_e4)
            .zip(cost(held_at, order.quantity_e4))
            .and_then(|(new, old)| new.checked_sub(old));
        let shares = quantity_e4.saturating_sub(order.quantity_e4);
        if self.side == Side::Sell && shares <= 0 {
            return Ok(());
        }
        if self.side == Side::Buy && needed.is_some_and(|extra| extra <= 0) {
            return Ok(());
        }
        self.has_funds(model, account, shares, needed)
    }
}

/// The number in a field without the commas between its thousands.
fn plain(input: &Input, field: Field) -> Result<Cow<'_, str>, Refusal> {
    text::plain_number(input.text()).or_else(|why| refuse(field, format!("{} {why}", field.name())))
}

fn quantity_of(input: &Input) -> Result<i64, Refusal> {
    match money::parse_e4(&plain(input, Field::Quantity)?) {
        _ if input.is_empty() => refuse(Field::Quantity, "quantity is missing"),
        Err(e) => refuse(Field::Quantity, format!("quantity {e}")),
        Ok(q) => match check::quantity(q) {
            Ok(()) => Ok(q),
            Err(violation) => refuse(Field::Quantity, text_of(violation, "", 1)),
        },
    }
}

fn price_of(input: &Input, field: Field, name: &str) -> Result<i64, Refusal> {
    match money::parse_e4(&plain(input, field)?) {
        _ if input.is_empty() => refuse(field, format!("{name} is missing")),
        Err(e) => refuse(field, format!("{name} {e}")),
        Ok(p) if p <= 0 => refuse(field, format!("{name} must be above 0")),
        Ok(p) => Ok(p),
    }
}

/// The field of the ticket that breaks a rule; `None` where it is the symbol's state.
fn field_of(violation: Violation, kind: OrderType) -> Option<Field> {
    use Violation::*;
    let field = |field: check::Field| match field {
        check::Field::Quantity => Field::Quantity,
        check::Field::DisplayQuantity => Field::Display,
        check::Field::Price => Field::Price,
        check::Field::StopPrice => Field::Stop,
        check::Field::TrailAmount => Field::Trail,
    };
    Some(match violation {
        Halted | Closed | ClientOrderIdTooLong | ClientOrderIdMalformed => return None,
        InCall | NoOpeningAuction | NoClosingAuction | TimeNotAllowed { .. } => Field::TimeInForce,
        NoReferencePrice { .. } => Field::Type,
        StopWrongSide { .. } if kind == OrderType::TrailingStop => Field::Trail,
        StopWrongSide { .. } | StopNotBelowEntry { .. } => Field::Stop,
        TargetNotAboveEntry { .. } => Field::Price,
        QuantityNotPositive | QuantityTooLarge { .. } | OrderTooLarge => Field::Quantity,
        QuantityAmbiguous | NotionalNotPositive | NotionalTooSmall { .. } | NotionalNotAllowed { .. } => {
            Field::Quantity
        }
        ExpiryMissing | ExpiryInThePast | ExpiryTooFar => Field::Expires,
        TrailMissing | TrailAmountNotPositive | TrailPercentOutOfRange | TrailTooWide { .. } => Field::Trail,
        DisplayOutOfRange { .. } | TooManyParts { .. } => Field::Display,
        OffLot { field: of, .. }
        | OffTick { field: of, .. }
        | PriceTooLarge { field: of, .. }
        | OutOfBand { field: of, .. } => field(of),
    })
}

/// The sentence of a rule; shorter than the exchange's where the ticket shows the rest of it anyway.
fn text_of(violation: Violation, symbol: &str, tick_e4: i64) -> String {
    let name = |field: check::Field| match field {
        check::Field::StopPrice => "stop price",
        field => field.name(),
    };
    match violation {
        Violation::QuantityTooLarge { .. } => {
            let most = money::format_grouped(QUANTITY_E4_MAX, money::E4_DECIMALS);
            format!("quantity must be at most {}", most.trim_end_matches(".00"))
        }
        Violation::OffLot { field, lot_e4, .. } => {
            format!("{} must be a multiple of the lot {}", name(field), money::format_e4(lot_e4))
        }
        Violation::OffTick { field, tick_e4, .. } => {
            format!("{} must be a multiple of the tick {}", name(field), money::format_e4(tick_e4))
        }
        Violation::PriceTooLarge { field, most_e4 } => {
            format!("{} must be at most {}", name(field), money::format_e4(most_e4))
        }
        Violation::OutOfBand { field, reference_e4, .. } => {
            let (low, high) = price::band(reference_e4, tick_e4);
            let limits = format!("{} to {}", text::price(low, tick_e4), text::price(high, tick_e4));
            format!("{} must be within {BAND_PERCENT} % of the reference: {limits}", name(field))
        }
        Violation::NoReferencePrice { order_type: order::OrderType::Market } => {
            "a market order needs a reference price, and there is none yet".to_owned()
        }
        Violation::NoReferencePrice { .. } => {
            "a trailing stop needs a reference price, and there is none yet".to_owned()
        }
        Violation::TrailTooWide { reference_e4 } => format!(
            "the trail must be at most {BAND_PERCENT} % of the reference price {}",
            text::price(reference_e4, tick_e4)
        ),
        other => other.sentence(symbol),
    }
}
