//! Orders: tickets, one-key orders, cancels, flatten, and what the exchange answers.
//!
//! One ticket, one order: while a ticket is in flight nothing else is sent, and an unknown outcome can only be asked
//! for again under the same `client_order_id`. Cancels need neither arming nor live data.

use crate::{
    model::{
        ARMED_US, Model, Tone,
        feed::{Freshness, Link},
        holdings,
        ticket::{Field, Request, State, Ticket, expiry, kind_name, side_name},
    },
    msg::{Cmd, Flattened, Outcome},
    screens::ticket::crossing_text,
    text,
    text::Input,
};
use fafnir_proto::v1::{self, AccountType, OrderState, OrderType, PendingAction, Side};
use fafnir_rules::money;

/// Characters of an id that people see.
const SHORT_ID: usize = 4;

/// The last characters of an order id: the first ones of a time-ordered UUID are the same for a whole minute.
pub fn short_id(id: &str) -> &str {
    let from = id.char_indices().rev().nth(SHORT_ID - 1).map_or(0, |(at, _)| at);
    &id[from..]
}

/// One order in words: `BUY 5 AAPL @ 231.07`, `SELL 5 AAPL TRAIL 1.5% till 18:30`.
pub fn describe(model: &Model, order: &v1::Order) -> String {
    let tick = model.tick_e4(&order.symbol);
    let limit = if order.price_e4 > 0 {
        format!("@ {}", text::price(order.price_e4, tick))
    } else {
        kind_name(order.r#type()).to_owned()
    };
    let stop = match order.r#type() {
        OrderType::Stop if order.stop_price_e4 > 0 => format!(" {}", text::price(order.stop_price_e4, tick)),
        OrderType::StopLimit if order.stop_price_e4 > 0 => {
            format!(" stop {}", text::price(order.stop_price_e4, tick))
        }
        OrderType::TrailingStop => format!(" {}", trail(order, tick)),
        _ => String::new(),
    };
    let until = match order.expires_us {
        0 => String::new(),
        at => format!(" till {}", expiry::short(at, model.now_us, &model.zone)),
    };
    let (side, quantity) = (side_name(order.side()), money::format_e4(order.quantity_e4));
    format!("{side} {quantity} {} {limit}{stop}{until}", order.symbol)
}

/// The trail of an order: `0.50` or `1.5%`.
pub fn trail(order: &v1::Order, tick_e4: i64) -> String {
    match order.trail_percent_e4 {
        0 => text::price(order.trail_amount_e4, tick_e4),
        percent => format!("{}%", money::format_e4(percent)),
    }
}

pub(super) fn disarm(model: &mut Model, why: &str) {
    if model.armed_until_us.take().is_some() {
        model.say(Tone::Note, format!("disarmed: {why}"));
    }
}

/// Why no new order may be sent now, if so.
pub(super) fn blocked(model: &Model) -> Option<String> {
    if model.read_only {
        return Some("read-only: orders are refused".into());
    }
    if model.links.grpc == Link::Down {
        return Some("the gateway is not connected: orders are refused".into());
    }
    match model.feed.freshness(model.now_us, model.links.nats) {
        Freshness::Live => None,
        Freshness::Waiting => Some("no market data yet: orders are refused".into()),
        Freshness::Stale(reason) => {
            Some(format!("stale, {}: orders are refused, cancels work", reason.sentence()))
        }
    }
}

pub(super) fn arm(model: &mut Model) {
    if model.armed_until_us.is_some() {
        return disarm(model, "by hand");
    }
    if let Some(why) = blocked(model) {
        return model.say(Tone::Bad, why);
    }
    model.armed_until_us = Some(model.now_us.saturating_add(ARMED_US));
    let most = text::cents(model.armed_notional_micros_max);
    model.say(Tone::Note, format!("armed for 5 minutes: b and s send at once, up to {most}"));
}

/// `b`, `s`, `B`, `S`: a prefilled ticket, or at once when armed.
pub(super) fn open_ticket(model: &mut Model, side: Side, price_e4: Option<i64>, cmds: &mut Vec<Cmd>) {
    if model.symbol.is_empty() {
        return model.say(Tone::Bad, "no symbol is chosen: press /");
    }
    if model.read_only {
        return model.say(Tone::Bad, "read-only: orders are refused");
    }
    if let Some(ticket) = model.ticket.as_mut() {
        if ticket.is_editing() {
            ticket.quick = false;
        } else {
            model.say(Tone::Bad, "an order is on its way: wait for its answer");
        }
        return;
    }
    let Some(size_e4) = model.size_e4(side) else {
        let other = if side == Side::Sell { "bid" } else { "ask" };
        return model.say(Tone::Bad, format!("there is no best {other} to take the size of"));
    };
    let quick = model.is_armed();
    let price = price_e4.filter(|p| *p > 0).map(money::format_e4).unwrap_or_default();
    let ticket = Ticket {
        quantity: Input::prefilled(money::format_e4(size_e4)),
        price: Input::prefilled(price),
        accounts: model.holdings.trading_accounts(model.currency(&model.symbol)),
        quick,
        ..Ticket::new(&model.symbol, side, model.ids.take())
    };
    if !quick {
        model.ticket = Some(ticket);
        return;
    }
    send_quick(model, ticket, cmds);
}

/// `m`, `M`: a ticket for a market order, or at once when armed.
pub(super) fn open_market(model: &mut Model, side: Side, cmds: &mut Vec<Cmd>) {
    if model.ticket.is_some() {
        return open_ticket(model, side, None, cmds);
    }
    let armed = model.armed_until_us.take();
    open_ticket(model, side, None, cmds);
    model.armed_until_us = armed;
    let quick = model.is_armed();
    let Some(ticket) = model.ticket.as_mut() else { return };
    ticket.set_kind(OrderType::Market);
    ticket.quick = quick;
    if let Some(ticket) = model.ticket.take_if(|t| t.quick) {
        send_quick(model, ticket, cmds);
    }
}

/// Sends a ticket at once, up to the largest notional of one key; a refusal leaves none behind.
fn send_quick(model: &mut Model, ticket: Ticket, cmds: &mut Vec<Cmd>) {
    let too_large = ticket.notional_micros(model).is_none_or(|n| n > model.armed_notional_micros_max);
    if too_large {
        let most = text::cents(model.armed_notional_micros_max);
        model.ticket = None;
        return model
            .say(Tone::Bad, format!("one-key orders go up to {most}: take a smaller size or disarm"));
    }
    let crossing = ticket.crossing(model).map(|(taken, at)| {
        let tick = model.tick_e4(&ticket.symbol);
        format!("{} {}", side_name(ticket.side), crossing_text(taken, at, tick))
    });
    model.ticket = Some(ticket);
    send_ticket(model, cmds);
    match model.ticket.as_ref() {
        Some(ticket) if ticket.is_editing() => model.ticket = None,
        Some(_) => crossing.into_iter().for_each(|text| model.say(Tone::Note, text)),
        None => {}
    }
}

/// An own order is to stand at another price: armed it is replaced at once, else a ticket asks.
pub(super) fn move_order(model: &mut Model, order_id: &str, price_e4: i64, cmds: &mut Vec<Cmd>) {
    open_replace(model, order_id);
    let armed = model.is_armed();
    let Some(mut ticket) = model
        .ticket
        .take_if(|t| t.is_editing() && t.replaces.as_ref().is_some_and(|order| order.id == order_id))
    else {
        return;
    };
    let field = if ticket.has_price() { Field::Price } else { Field::Stop };
    if !ticket.fields().contains(&field) {
        let id = short_id(order_id);
        return model.say(Tone::Bad, format!("{id} has no price that can be changed"));
    }
    if let Some(input) = ticket.input_mut(field) {
        *input = Input::prefilled(money::format_e4(price_e4));
    }
    ticket.enter(field);
    if armed {
        ticket.quick = true;
        return send_quick(model, ticket, cmds);
    }
    model.ticket = Some(ticket);
}

/// A ticket that changes an open order: never by one key, armed or not.
pub(super) fn open_replace(model: &mut Model, order_id: &str) {
    if model.read_only {
        return model.say(Tone::Bad, "read-only: orders are refused");
    }
    if let Some(ticket) = &model.ticket {
        let text = if ticket.is_editing() {
            "a ticket is open already: Esc closes it"
        } else {
            "an order is on its way: wait for its answer"
        };
        return model.say(Tone::Bad, text);
    }
    let Some(order) = model.holdings.orders.get(order_id) else { return };
    let id = short_id(order_id);
    if holdings::is_pending(order) || model.holdings.cancelling.contains(order_id) {
        let text = format!("{id} waits for the exchange's word and cannot be replaced now");
        return model.say(Tone::Bad, text);
    }
    model.ticket = Some(Ticket::replacing(order, model.ids.take()));
}

/// Enter on a ticket: sends it, once.
pub(super) fn send_ticket(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let Some(ticket) = &model.ticket else { return };
    if ticket.is_in_flight() {
        return;
    }
    if let Some(why) = blocked(model) {
        return model.say(Tone::Bad, why);
    }
    let request = match &ticket.state {
        State::Unknown(request) => request.clone(),
        _ => match ticket.validate(model) {
            Ok(request) => request,
            Err(refusal) => {
                if let (Some(ticket), Some(field)) = (model.ticket.as_mut(), refusal.field) {
                    ticket.field = field;
                }
                return model.say(Tone::Bad, refusal.text);
            }
        },
    };
    if let Some(ticket) = model.ticket.as_mut() {
        ticket.state = State::InFlight(request.clone());
        ticket.refused = None;
    }
    cmds.push(match request {
        Request::Place(request) => Cmd::Place(request),
        Request::Group(request) => Cmd::PlaceGroup(request),
        Request::Replace(request) => Cmd::Replace(request),
    });
}

/// Closes the ticket. An order that is on its way stays the exchange's.
pub(super) fn close_ticket(model: &mut Model) {
    match model.ticket.as_ref().map(|t| &t.state) {
        Some(State::InFlight(_)) => model.say(Tone::Note, "the order is on its way: wait for its answer"),
        Some(State::Unknown(request)) => {
            let id = match request {
                Request::Place(request) => &request.client_order_id,
                Request::Group(request) => request.orders.first().map_or("", |o| o.client_order_id.as_str()),
                Request::Replace(request) => short_id(&request.order_id),
            };
            let text = format!("left without an answer: look for order {id} among the orders");
            model.ticket = None;
            model.say(Tone::Bad, text);
        }
        _ => model.ticket = None,
    }
}

/// The answer to a placed order.
pub(super) fn placed(model: &mut Model, client_order_id: &str, outcome: Outcome<v1::Order>, elapsed_us: i64) {
    model.links.round_trip(elapsed_us);
    let took = text::duration(elapsed_us);
    let is_ticket = model.ticket.as_ref().is_some_and(|t| t.client_order_id == client_order_id);
    match outcome {
        Outcome::Done(order) => {
            let text = describe(model, &order);
            let id = short_id(&order.id).to_owned();
            let rejected = order.state() == OrderState::Rejected;
            let reason = order.reject_reason.clone();
            model.holdings.take_order(order);
            if rejected {
                model.say(Tone::Bad, format!("{id} {text} rejected: {reason}"));
                if is_ticket {
                    refused_ticket(model, &reason);
                }
            } else {
                model.say(Tone::Good, format!("{id} {text} accepted  {took}"));
                if is_ticket {
                    model.ticket = None;
                }
            }
        }
        Outcome::Refused(text) => {
            model.say(Tone::Bad, format!("refused: {text}"));
            if is_ticket {
                refused_ticket(model, &text);
            }
        }
        Outcome::Unknown(text) => {
            let next =
                if is_ticket { "; Enter asks again for the same order" } else { "; look among the orders" };
            model.say(Tone::Bad, format!("no answer: {text}{next}"));
            if is_ticket {
                unanswered_ticket(model);
            }
        }
    }
}

/// Whether the order arrived is not known: the ticket shows, and can only ask for the same again.
fn unanswered_ticket(model: &mut Model) {
    let Some(ticket) = model.ticket.as_mut() else { return };
    if let State::InFlight(request) = &ticket.state {
        ticket.state = State::Unknown(request.clone());
    }
    ticket.quick = false;
}

/// The answer to a replace.
pub(super) fn replaced(model: &mut Model, order_id: &str, outcome: Outcome<v1::Order>, elapsed_us: i64) {
    model.links.round_trip(elapsed_us);
    let asked = match model.ticket.as_ref().map(|t| &t.state) {
        Some(State::InFlight(Request::Replace(r)) | State::Unknown(Request::Replace(r)))
            if r.order_id == order_id =>
        {
            Some(r.version)
        }
        _ => None,
    };
    let id = short_id(order_id).to_owned();
    match outcome {
        Outcome::Done(order) => {
            let took = text::duration(elapsed_us);
            let text = describe(model, &order);
            let waits = order.pending() == PendingAction::Replace && holdings::is_open(&order);
            let word = if waits { "replace waits for the exchange" } else { "replaced" };
            model.holdings.take_order(order);
            model.say(Tone::Good, format!("{id} {word}: {text}  {took}"));
            if asked.is_some() {
                model.ticket = None;
            }
        }
        Outcome::Refused(text) => {
            model.say(Tone::Bad, format!("{id} not replaced: {text}"));
            if asked.is_some() {
                refused_ticket(model, &text);
            }
        }
        Outcome::Unknown(text) => {
            let next =
                if asked.is_some() { "; Enter asks again for the same" } else { "; look among the orders" };
            model.say(Tone::Bad, format!("{id}: no answer to the replace: {text}{next}"));
            if asked.is_some() {
                unanswered_ticket(model);
            }
        }
    }
}

/// After a definite no the ticket can be changed: what it sends next is another order.
fn refused_ticket(model: &mut Model, text: &str) {
    let id = model.ids.take();
    let Some(ticket) = model.ticket.as_mut() else { return };
    if ticket.quick {
        model.ticket = None;
        return;
    }
    ticket.state = State::Editing;
    ticket.refused = Some(text::clean(text).into_owned());
    ticket.client_order_id = id;
}

/// An order in the private stream answers for a ticket whose own answer is out.
pub(super) fn resolve_ticket(model: &mut Model, order: &v1::Order) {
    if model.ticket.as_ref().is_some_and(|t| t.is_answered_by(order)) {
        if order.state() == OrderState::Rejected {
            refused_ticket(model, &order.reject_reason);
        } else {
            model.ticket = None;
        }
    }
}

/// Ends and rejections that no command of ours answers are told.
pub(super) fn log_order(model: &mut Model, order: &v1::Order) {
    let Some(old) = model.holdings.orders.get(&order.id) else { return };
    let waited = old.pending() == PendingAction::Replace && order.pending() == PendingAction::None;
    let asks = model.ticket.as_ref().is_some_and(|t| t.replaces.as_ref().is_some_and(|o| o.id == order.id));
    if waited && !asks && holdings::is_open(order) {
        let (tone, word) = if order.version > old.version {
            (Tone::Good, "replaced")
        } else {
            (Tone::Bad, "stands as it was, not replaced")
        };
        let text = format!("{} {word}: {}", short_id(&order.id), describe(model, order));
        return model.say(tone, text);
    }
    if old.state() == order.state() || !holdings::is_open(old) {
        return;
    }
    let text = format!("{} {}", short_id(&order.id), describe(model, order));
    match order.state() {
        OrderState::Rejected => model.say(Tone::Bad, format!("{text} rejected: {}", order.reject_reason)),
        OrderState::Canceled if !model.holdings.cancelling.contains(&order.id) => {
            model.say(Tone::Note, format!("{text} canceled {}", order.reject_code));
        }
        OrderState::Expired => model.say(Tone::Note, format!("{text} expired")),
        _ => {}
    }
}

pub(super) fn log_fill(model: &mut Model, fill: v1::Fill) {
    let price = text::price(fill.price_e4, model.tick_e4(&fill.symbol));
    let quantity = money::format_e4(fill.quantity_e4);
    let text = format!(
        "{} filled {} {quantity} {} @ {price}",
        short_id(&fill.order_id),
        side_name(fill.side()),
        fill.symbol
    );
    if model.holdings.take_fill(fill) {
        model.say(Tone::Good, text);
    }
}

/// Cancels the given orders; one whose cancel is out already is not asked for twice.
pub(super) fn cancel(model: &mut Model, ids: Vec<String>, cmds: &mut Vec<Cmd>) {
    if model.read_only {
        return model.say(Tone::Bad, "read-only: cancels are refused");
    }
    if ids.is_empty() {
        return model.say(Tone::Note, "no own order there");
    }
    let mut sent = 0;
    for order_id in ids {
        if model.holdings.cancelling.insert(order_id.clone()) {
            cmds.push(Cmd::Cancel { order_id });
            sent += 1;
        }
    }
    let text = if sent == 0 { "the cancel is on its way".to_owned() } else { format!("cancelling {sent}") };
    model.say(Tone::Note, text);
}

pub(super) fn cancel_symbol(model: &mut Model, cmds: &mut Vec<Cmd>) {
    if model.read_only {
        return model.say(Tone::Bad, "read-only: cancels are refused");
    }
    if model.symbol.is_empty() {
        return model.say(Tone::Note, "no symbol is chosen");
    }
    // Sent even when no open order is known here: the exchange knows better.
    let symbol = model.symbol.clone();
    model.say(Tone::Note, format!("cancelling all in {symbol}"));
    cmds.push(Cmd::CancelAll { symbol });
}

pub(super) fn canceled(model: &mut Model, order_id: &str, outcome: Outcome<v1::Order>, elapsed_us: i64) {
    model.links.round_trip(elapsed_us);
    model.holdings.cancelling.remove(order_id);
    let id = short_id(order_id).to_owned();
    match outcome {
        Outcome::Done(order) => {
            let took = text::duration(elapsed_us);
            let waits = order.pending() == PendingAction::Cancel && holdings::is_open(&order);
            let word = if waits { "cancel waits for the exchange" } else { "canceled" };
            model.holdings.take_order(order);
            model.say(Tone::Good, format!("{id} {word}  {took}"));
        }
        Outcome::Refused(text) => model.say(Tone::Bad, format!("{id} not canceled: {text}")),
        Outcome::Unknown(text) => {
            model.say(Tone::Bad, format!("{id}: no answer to the cancel: {text}; x asks again"));
        }
    }
}

pub(super) fn canceled_all(model: &mut Model, symbol: &str, outcome: Outcome<u32>, elapsed_us: i64) {
    model.links.round_trip(elapsed_us);
    match outcome {
        Outcome::Done(count) => {
            let took = text::duration(elapsed_us);
            model.say(Tone::Good, format!("{symbol}: {count} to cancel  {took}"));
        }
        Outcome::Refused(text) | Outcome::Unknown(text) => {
            model.say(Tone::Bad, format!("{symbol} not canceled: {text}"));
        }
    }
}

/// After the user confirmed: one request, which cancels every order and sells the shares.
pub(super) fn flatten(model: &mut Model, symbol: &str, cmds: &mut Vec<Cmd>) {
    if let Some(why) = blocked(model) {
        return model.say(Tone::Bad, why);
    }
    if let Some(symbol) = &model.flattening {
        let text = format!("the flatten of {symbol} is on its way: wait for its answer");
        return model.say(Tone::Bad, text);
    }
    if model.ticket.as_ref().is_some_and(|t| !t.is_editing()) {
        return model.say(Tone::Bad, "an order is on its way: wait for its answer");
    }
    model.ticket = None;
    model.flattening = Some(symbol.to_owned());
    model.say(Tone::Note, format!("flattening {symbol}"));
    cmds.push(Cmd::Flatten { symbol: symbol.to_owned(), account_ids: accounts_to_flatten(model, symbol) });
}

/// Every account that can hold shares, those first that are known to have something in the symbol; where none is
/// known, the default one, by its empty id.
fn accounts_to_flatten(model: &Model, symbol: &str) -> Vec<String> {
    let has_some = |id: &str| {
        model
            .holdings
            .positions
            .values()
            .any(|h| h.account_id == id && h.symbol == symbol && h.quantity_e4 > 0)
            || model.holdings.open_in(symbol).any(|o| o.account_id == id)
    };
    let accounts = model.holdings.accounts.values();
    let mut ids: Vec<String> = accounts
        .filter(|a| a.r#type() == AccountType::Investment && !a.closed)
        .map(|a| a.id.clone())
        .collect();
    ids.sort_by_key(|id| !has_some(id));
    if ids.is_empty() {
        ids.push(String::new());
    }
    ids
}

/// The answer to a flatten: nothing is left, or what is left and why.
pub(super) fn flattened(model: &mut Model, symbol: &str, outcome: Outcome<Flattened>, elapsed_us: i64) {
    model.links.round_trip(elapsed_us);
    model.flattening.take_if(|s| s == symbol);
    match outcome {
        Outcome::Done(done) => {
            for order in done.orders {
                model.holdings.take_order(order);
            }
            let why = if done.why.is_empty() { String::new() } else { format!(" ({})", done.why) };
            if done.left_e4 > 0 {
                let left = money::format_e4(done.left_e4);
                model.say(Tone::Bad, format!("NOT FLAT: {left} {symbol} left{why}"));
            } else if !why.is_empty() {
                model.say(Tone::Bad, format!("NOT FLAT: {symbol}{why}"));
            } else {
                model.say(Tone::Good, format!("{symbol} is flat  {}", text::duration(elapsed_us)));
            }
        }
        Outcome::Refused(text) => model.say(Tone::Bad, format!("{symbol} not flattened: {text}")),
        Outcome::Unknown(text) => {
            model.say(Tone::Bad, format!("{symbol}: no answer to the flatten: {text}; F asks again"));
        }
    }
}
