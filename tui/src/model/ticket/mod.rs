//! The order ticket: its fields, its checks while one types, and the lock that makes one ticket one order.
//!
//! A ticket has one `client_order_id`. While its order is on the way nothing else can be sent; when the answer is not
//! known, only the very same order can be asked for again. A replace of an open order goes through the same lock.

mod check;
pub mod expiry;
#[cfg(test)]
mod tests;

use super::holdings;
use crate::text::{self, Input};
use fafnir_proto::v1::{
    self, OrderState, OrderType, PlaceGroupRequest, PlaceOrderRequest, ReplaceOrderRequest, Side, TimeInForce,
};
use fafnir_rules::money;
use fafnir_rules::order;

/// One step of a trail in percent, at scale 10⁻⁴ of a percent.
const TRAIL_PERCENT_E4_STEP: i64 = 1_000;

/// A field of the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Side,
    Type,
    Quantity,
    Price,
    Stop,
    /// The distance of a trailing stop: an amount, or a percentage with `%` behind it.
    Trail,
    TimeInForce,
    /// When a GTD order ends.
    Expires,
    PostOnly,
    /// What an iceberg shows; empty shows everything.
    Display,
    /// Price at which what was bought is sold again.
    Target,
    /// Price below which what was bought, or is to be sold, is sold.
    ExitStop,
    /// The account that trades.
    Account,
}

impl Field {
    /// True for a field that is typed into.
    pub fn is_input(self) -> bool {
        matches!(
            self,
            Self::Quantity
                | Self::Price
                | Self::Stop
                | Self::Trail
                | Self::Expires
                | Self::Display
                | Self::Target
                | Self::ExitStop
        )
    }

    /// True when the field takes the character.
    pub fn takes(self, c: char) -> bool {
        match self {
            Self::Expires => {
                c.is_ascii_digit()
                    || matches!(c, '.' | ':' | '-' | '+' | ' ' | 'd' | 'h' | 'm' | 's' | 'T' | 'Z')
            }
            Self::Trail => c.is_ascii_digit() || matches!(c, '.' | ',' | '%'),
            _ => c.is_ascii_digit() || matches!(c, '.' | ','),
        }
    }

    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Side => "side",
            Self::Type => "type",
            Self::Quantity => "quantity",
            Self::Price => "price",
            Self::Stop => "stop price",
            Self::Trail => "trail",
            Self::TimeInForce => "time in force",
            Self::Expires => "expiry",
            Self::PostOnly => "post-only",
            Self::Display => "display quantity",
            Self::Target => "target",
            Self::ExitStop => "exit stop",
            Self::Account => "account",
        }
    }

    /// What can be typed into it, in words.
    pub fn wants(self) -> &'static str {
        match self {
            Self::Expires => "a time: 18:30, +2h, +3d, 2026-11-25 18:30",
            Self::Trail => "digits, a point, %",
            _ if self.is_input() => "digits and a point",
            _ => "no text: Left and Right choose",
        }
    }
}

/// What a ticket asks of the exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Place(PlaceOrderRequest),
    /// An order and its exits, or exits alone.
    Group(PlaceGroupRequest),
    Replace(ReplaceOrderRequest),
}

/// Where the ticket's order is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Editing,
    /// Sent; nothing else goes until the answer.
    InFlight(Request),
    /// Sent, and whether it arrived is not known. Only the same can be sent again.
    Unknown(Request),
}

/// One order that is being written or is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket {
    pub symbol: String,
    pub side: Side,
    pub kind: OrderType,
    pub time_in_force: TimeInForce,
    pub post_only: bool,
    pub quantity: Input,
    pub price: Input,
    pub stop: Input,
    pub trail: Input,
    pub expires: Input,
    pub display: Input,
    pub target: Input,
    pub exit_stop: Input,
    /// Accounts that can trade, the default one first: id, and what people see.
    pub accounts: Vec<(String, String)>,
    /// Index into them.
    pub account: usize,
    pub field: Field,
    /// Stable for this order; a new one only after a definite refusal.
    pub client_order_id: String,
    pub state: State,
    /// The open order that the ticket changes, as it was when the ticket was opened; none for a new order.
    pub replaces: Option<Box<v1::Order>>,
    /// Sent by one key while armed: shows no box unless something goes wrong.
    pub quick: bool,
    /// What the exchange said to the last attempt.
    pub refused: Option<String>,
}

/// Why a ticket cannot be sent: the field and one sentence with the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub field: Option<Field>,
    pub text: String,
}

impl Ticket {
    /// A LIMIT order, good until canceled.
    pub fn new(symbol: &str, side: Side, client_order_id: String) -> Self {
        Self {
            symbol: symbol.to_owned(),
            side,
            kind: OrderType::Limit,
            time_in_force: TimeInForce::Gtc,
            post_only: false,
            quantity: Input::default(),
            price: Input::default(),
            stop: Input::default(),
            trail: Input::default(),
            expires: Input::default(),
            display: Input::default(),
            target: Input::default(),
            exit_stop: Input::default(),
            accounts: Vec::new(),
            account: 0,
            field: Field::Quantity,
            client_order_id,
            state: State::Editing,
            replaces: None,
            quick: false,
            refused: None,
        }
    }

    /// A ticket that changes an open order, filled with what the order is.
    pub fn replacing(order: &v1::Order, client_order_id: String) -> Self {
        let number =
            |value: i64| if value > 0 { Input::prefilled(money::format_e4(value)) } else { Input::default() };
        Self {
            kind: order.r#type(),
            time_in_force: order.time_in_force(),
            post_only: order.post_only,
            quantity: number(order.quantity_e4),
            price: number(order.price_e4),
            stop: number(order.stop_price_e4),
            replaces: Some(Box::new(order.clone())),
            ..Self::new(&order.symbol, order.side(), client_order_id)
        }
    }

    pub fn has_price(&self) -> bool {
        self.kind.known().is_some_and(order::OrderType::has_price)
    }

    pub fn has_stop(&self) -> bool {
        self.kind.known().is_some_and(order::OrderType::has_stop)
    }

    pub fn has_trail(&self) -> bool {
        self.kind.known().is_some_and(order::OrderType::has_trail)
    }

    pub fn has_post_only(&self) -> bool {
        self.kind.known().zip(self.time_in_force.known()).is_some_and(|(kind, time)| kind.may_post_only(time))
    }

    /// True when a part of the order may hide.
    pub fn has_display(&self) -> bool {
        self.kind.known().zip(self.time_in_force.known()).is_some_and(|(kind, time)| kind.may_hide(time))
    }

    pub fn has_expiry(&self) -> bool {
        self.time_in_force == TimeInForce::Gtd
    }

    /// True when it can have exits: a buy that stands until it is filled or canceled, or the day is over.
    pub fn has_target(&self) -> bool {
        let stands = matches!(self.time_in_force, TimeInForce::Gtc | TimeInForce::Day);
        self.side == Side::Buy && self.kind == OrderType::Limit && stands && self.replaces.is_none()
    }

    /// The same of a stop; beside a limit order that sells it is the other exit.
    pub fn has_exit_stop(&self) -> bool {
        let stands = matches!(self.time_in_force, TimeInForce::Gtc | TimeInForce::Day);
        self.kind == OrderType::Limit && stands && self.replaces.is_none()
    }

    pub fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight(_))
    }

    pub fn is_editing(&self) -> bool {
        self.state == State::Editing
    }

    /// The fields that this type of order has, in order; of a replace those that can change.
    pub fn fields(&self) -> Vec<Field> {
        if let Some(order) = &self.replaces {
            let mut fields = vec![Field::Quantity];
            if self.has_price() {
                fields.push(Field::Price);
            }
            if self.has_stop() && order.state() == OrderState::Held {
                fields.push(Field::Stop);
            }
            return fields;
        }
        let mut fields = vec![Field::Side, Field::Type, Field::Quantity];
        for (has, field) in [
            (self.has_price(), Field::Price),
            (self.has_stop(), Field::Stop),
            (self.has_trail(), Field::Trail),
            (true, Field::TimeInForce),
            (self.has_expiry(), Field::Expires),
            (self.has_post_only(), Field::PostOnly),
            (self.has_display(), Field::Display),
            (self.has_target(), Field::Target),
            (self.has_exit_stop(), Field::ExitStop),
            (self.accounts.len() > 1, Field::Account),
        ] {
            if has {
                fields.push(field);
            }
        }
        fields
    }

    pub fn input(&self, field: Field) -> Option<&Input> {
        match field {
            Field::Quantity => Some(&self.quantity),
            Field::Price => Some(&self.price),
            Field::Stop => Some(&self.stop),
            Field::Trail => Some(&self.trail),
            Field::Expires => Some(&self.expires),
            Field::Display => Some(&self.display),
            Field::Target => Some(&self.target),
            Field::ExitStop => Some(&self.exit_stop),
            _ => None,
        }
    }

    pub fn input_mut(&mut self, field: Field) -> Option<&mut Input> {
        match field {
            Field::Quantity => Some(&mut self.quantity),
            Field::Price => Some(&mut self.price),
            Field::Stop => Some(&mut self.stop),
            Field::Trail => Some(&mut self.trail),
            Field::Expires => Some(&mut self.expires),
            Field::Display => Some(&mut self.display),
            Field::Target => Some(&mut self.target),
            Field::ExitStop => Some(&mut self.exit_stop),
            _ => None,
        }
    }

    /// The times in force of this type, its default first.
    pub fn times(&self) -> Vec<TimeInForce> {
        let kind = self.kind.known().unwrap_or(order::OrderType::Limit);
        kind.times().iter().map(|time| TimeInForce::from(*time)).collect()
    }

    /// Moves to another field.
    pub fn move_field(&mut self, forward: bool) {
        let fields = self.fields();
        let at = fields.iter().position(|f| *f == self.field).unwrap_or(0);
        let next = if forward { at + 1 } else { at + fields.len() - 1 };
        self.enter(fields[next % fields.len()]);
    }

    /// Goes to a field; what stands there is replaced by what is typed next.
    pub fn enter(&mut self, field: Field) {
        self.field = field;
        if let Some(input) = self.input_mut(field).filter(|_| field != Field::Expires) {
            input.choose();
        }
    }

    /// Makes it another type, with what that type allows.
    pub fn set_kind(&mut self, kind: OrderType) {
        self.kind = kind;
        if !self.times().contains(&self.time_in_force) {
            self.time_in_force = self.times()[0];
        }
        self.post_only &= self.has_post_only();
    }

    /// Steps through the choices of a field, or a number by one tick, lot or tenth of a percent.
    pub fn step(&mut self, forward: bool, tick_e4: i64, lot_e4: i64) {
        let cycle = |len: usize, at: usize| if forward { (at + 1) % len } else { (at + len - 1) % len };
        let by = |step: i64| if forward { step } else { -step };
        match self.field {
            Field::Side => self.side = if self.side == Side::Buy { Side::Sell } else { Side::Buy },
            Field::Type => {
                let at = KINDS.iter().position(|k| *k == self.kind).unwrap_or(0);
                self.set_kind(KINDS[cycle(KINDS.len(), at)]);
            }
            Field::TimeInForce => {
                let times = self.times();
                let at = times.iter().position(|t| *t == self.time_in_force).unwrap_or(0);
                self.time_in_force = times[cycle(times.len(), at)];
                self.post_only &= self.has_post_only();
            }
            Field::PostOnly => self.post_only = !self.post_only,
            Field::Quantity => step_input(&mut self.quantity, by(lot_e4)),
            Field::Display => step_input(&mut self.display, by(lot_e4)),
            Field::Price => step_input(&mut self.price, by(tick_e4)),
            Field::Target => step_input(&mut self.target, by(tick_e4)),
            Field::ExitStop => step_input(&mut self.exit_stop, by(tick_e4)),
            Field::Account => self.account = cycle(self.accounts.len().max(1), self.account),
            Field::Stop => step_input(&mut self.stop, by(tick_e4)),
            Field::Trail => match self.trail.text().trim().strip_suffix('%') {
                Some(percent) => {
                    let mut input = Input::new(percent);
                    step_input(&mut input, by(TRAIL_PERCENT_E4_STEP));
                    self.trail = Input::prefilled(format!("{}%", input.text()));
                }
                None => step_input(&mut self.trail, by(tick_e4)),
            },
            Field::Expires if forward => self.expires.right(),
            Field::Expires => self.expires.left(),
        }
    }

    /// True when the exchange's word about an order answers this ticket, whose own answer is out.
    pub fn is_answered_by(&self, order: &v1::Order) -> bool {
        match &self.state {
            State::Unknown(Request::Place(request)) => {
                !order.client_order_id.is_empty() && request.client_order_id == order.client_order_id
            }
            State::Unknown(Request::Group(_)) => {
                !order.client_order_id.is_empty() && self.client_order_id == order.client_order_id
            }
            State::Unknown(Request::Replace(request)) => {
                request.order_id == order.id && (order.version > request.version || !holdings::is_open(order))
            }
            State::Editing | State::InFlight(_) => false,
        }
    }
}

/// Types that the ticket offers.
pub const KINDS: [OrderType; 5] =
    [OrderType::Limit, OrderType::Market, OrderType::Stop, OrderType::StopLimit, OrderType::TrailingStop];

fn step_input(input: &mut Input, by_e4: i64) {
    // An empty field starts at one step.
    let value = if input.is_empty() { Some(0) } else { read_e4(input) };
    if let Some(next) = value.and_then(|v| v.checked_add(by_e4)).filter(|v| *v > 0) {
        *input = Input::prefilled(money::format_e4(next));
    }
}

/// The number in an input, e4; none while it cannot be read.
fn read_e4(input: &Input) -> Option<i64> {
    money::parse_e4(&text::plain_number(input.text()).ok()?).ok()
}

pub fn kind_name(kind: OrderType) -> &'static str {
    match kind {
        OrderType::Limit | OrderType::Unspecified => "LMT",
        OrderType::Market => "MKT",
        OrderType::Stop => "STP",
        OrderType::StopLimit => "STP LMT",
        OrderType::TrailingStop => "TRAIL",
    }
}

pub fn time_name(time: TimeInForce) -> &'static str {
    time.known().unwrap_or(order::TimeInForce::Gtc).name()
}

pub fn side_name(side: Side) -> &'static str {
    side.known().map_or("-", order::Side::name)
}
