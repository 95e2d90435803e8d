//! A command off the wire as the core takes it: of the right shape, or refused here.

use super::refusal::malformed;
use fafnir_clearing::{
    account::{Currency, Kind},
    codec::KEY_BYTES_MAX,
    command::{Command, Endow, Flatten, Instruction, Instrument, NewGroup, NewOrder, Replace, RequestId},
};
use fafnir_platform::{Refusal, agents};
use fafnir_proto::{
    id::UserId,
    reason::Reason,
    v1::{self, command::What},
};
use fafnir_rules::{
    check::{self, Terms, Violation},
    limits::VOLATILITY_BAND_BPS_MAX,
    order::{OrderType, SelfTrade, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// What a key names: the table of keys that it is looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Client order ids.
    Order,
    /// Keys of accounts and money.
    Money,
}

impl Scope {
    /// The scope of an instruction's key.
    pub fn of(instruction: &Instruction) -> Self {
        match instruction {
            Instruction::New(_)
            | Instruction::NewGroup(_)
            | Instruction::Replace(_)
            | Instruction::Cancel { .. }
            | Instruction::CancelGroup { .. }
            | Instruction::CancelAll { .. }
            | Instruction::Flatten(_) => Self::Order,
            _ => Self::Money,
        }
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Order => 1,
            Self::Money => 2,
        }
    }
}

/// How a command is treated before it is journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It takes away: never refused for load, and in the room that is kept for it.
    Cancel,
    /// It adds: refused while the projections are behind.
    Change,
    /// Reference data.
    Reference,
}

/// The class of an instruction.
pub fn class(instruction: &Instruction) -> Class {
    match instruction {
        Instruction::Cancel { .. }
        | Instruction::CancelGroup { .. }
        | Instruction::CancelAll { .. }
        | Instruction::CloseUser
        | Instruction::SetState { .. } => Class::Cancel,
        Instruction::SetInstrument(_)
        | Instruction::SetRules(_)
        | Instruction::SetFees { .. }
        | Instruction::SetRate { .. }
        | Instruction::DayEnd
        | Instruction::Expire
        | Instruction::SetSession { .. }
        | Instruction::Reopen { .. } => Class::Reference,
        _ => Class::Change,
    }
}

fn invalid(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal::invalid(reason, message)
}

fn id(field: &str, text: &str) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text).map_err(|_| invalid(Reason::ID_MALFORMED, format!("{field} must be a UUID")))
}

fn id_or_none(field: &str, text: &str) -> Result<Option<Uuid>, Refusal> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

fn symbol(text: &str) -> Result<Symbol, Refusal> {
    Symbol::parse(text).map_err(|e| invalid(Reason::SYMBOL_MALFORMED, e.to_string()))
}

fn symbol_or_none(text: &str) -> Result<Option<Symbol>, Refusal> {
    if text.is_empty() { Ok(None) } else { symbol(text).map(Some) }
}

fn currency(text: &str) -> Result<Currency, Refusal> {
    Currency::parse(text).ok_or_else(|| invalid(Reason::CURRENCY_UNKNOWN, "currency must be USD or CAD"))
}

/// Reads a command.
pub fn parse(command: &v1::Command) -> Result<Command, Refusal> {
    let user = id_or_none("user_id", &command.user_id)?.unwrap_or_default();
    let what = command.what.as_ref().ok_or_else(|| malformed("what", "must be given"))?;
    let instruction = instruction(what)?;
    let id = request_id(command, user, Scope::of(&instruction))?;
    if user.is_nil() && needs_user(&instruction) {
        return Err(malformed("user_id", "must be given"));
    }
    Ok(Command { user, agent: agents::is_agent(UserId::new(user)), id, trace: None, instruction })
}

/// Whether a command is somebody's.
fn needs_user(instruction: &Instruction) -> bool {
    match class(instruction) {
        Class::Reference => false,
        // What the house gives is nobody's command.
        Class::Change => !matches!(instruction, Instruction::Endow(_)),
        Class::Cancel => {
            matches!(instruction, Instruction::CancelAll { symbol: None } | Instruction::CloseUser)
        }
    }
}

fn request_id(command: &v1::Command, user: Uuid, scope: Scope) -> Result<Option<RequestId>, Refusal> {
    let bytes = |field: &str, bytes: &[u8]| {
        <[u8; 16]>::try_from(bytes).map_err(|_| malformed(field, "must have 16 bytes"))
    };
    if let Some(key) = command.key.as_ref().filter(|k| !k.key.is_empty()) {
        if key.key.len() > KEY_BYTES_MAX {
            let message = format!("key must have at most {KEY_BYTES_MAX} bytes");
            return Err(invalid(Reason::IDEMPOTENCY_KEY_TOO_LONG, message));
        }
        return Ok(Some(RequestId {
            hash: key_hash(scope, user, &key.key),
            payload: u128::from_be_bytes(bytes("key.payload", &key.payload)?),
            looked_until: Some(key.looked_until),
            key: key.key.as_str().into(),
        }));
    }
    if command.id.is_empty() {
        return Ok(None);
    }
    let hash = u128::from_be_bytes(bytes("id", &command.id)?);
    Ok(Some(RequestId { hash, payload: 0, looked_until: None, key: "".into() }))
}

/// What stands for a client's key in the core.
pub fn key_hash(scope: Scope, owner: Uuid, key: &str) -> u128 {
    let digest = Sha256::new()
        .chain_update([scope.tag()])
        .chain_update(owner.as_bytes())
        .chain_update(key.as_bytes())
        .finalize();
    digest[..16].iter().fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

fn instruction(what: &What) -> Result<Instruction, Refusal> {
    Ok(match what {
        What::Place(place) => Instruction::New(Box::new(new_order(place)?)),
        What::Replace(r) => Instruction::Replace(replace(r)?),
        What::PlaceGroup(group) => Instruction::NewGroup(Box::new(new_group(group)?)),
        What::CancelGroup(cancel) => Instruction::CancelGroup { group: id("group_id", &cancel.group_id)? },
        What::Cancel(cancel) => Instruction::Cancel { order: id("order_id", &cancel.order_id)? },
        What::CancelAll(all) => Instruction::CancelAll { symbol: symbol_or_none(&all.symbol)? },
        What::Flatten(flatten) => Instruction::Flatten(Flatten {
            account: id_or_none("account_id", &flatten.account_id)?,
            symbol: symbol(&flatten.symbol)?,
            order: id("order_id", &flatten.order_id)?,
        }),
        What::OpenAccount(open) => Instruction::OpenAccount {
            account: id("account_id", &open.account_id)?,
            kind: u8::try_from(open.r#type).ok().and_then(Kind::from_number).ok_or_else(|| {
                invalid(Reason::ACCOUNT_TYPE_UNKNOWN, "type must be INVESTMENT, SAVINGS or CHEQUING")
            })?,
            currency: currency(&open.currency)?,
            opening: open.opening_deposit,
        },
        What::CloseAccount(close) => {
            Instruction::CloseAccount { account: id("account_id", &close.account_id)? }
        }
        What::CloseUser(_) => Instruction::CloseUser,
        What::Deposit(deposit) => Instruction::Deposit {
            account: id("account_id", &deposit.account_id)?,
            currency: currency(&deposit.currency)?,
            amount: deposit.amount_micros,
        },
        What::Withdraw(withdraw) => Instruction::Withdraw {
            account: id("account_id", &withdraw.account_id)?,
            currency: currency(&withdraw.currency)?,
            amount: withdraw.amount_micros,
        },
        What::Transfer(transfer) => Instruction::Transfer {
            from: id("from_account_id", &transfer.from_account_id)?,
            to: id("to_account_id", &transfer.to_account_id)?,
            currency: currency(&transfer.currency)?,
            amount: transfer.amount_micros,
        },
        What::Endow(e) => Instruction::Endow(Endow {
            account: id("account_id", &e.account_id)?,
            currency: if e.currency.is_empty() { None } else { Some(currency(&e.currency)?) },
            amount: e.amount_micros,
            symbol: symbol_or_none(&e.symbol)?,
            quantity_e4: e.quantity_e4,
            cost_price_e4: e.cost_price_e4,
        }),
        What::SetInstrument(set) => {
            let instrument =
                set.instrument.as_ref().ok_or_else(|| malformed("instrument", "must be given"))?;
            Instruction::SetInstrument(Box::new(listing(instrument)?))
        }
        What::SetState(set) => Instruction::SetState {
            symbol: symbol(&set.symbol)?,
            state: set
                .state()
                .known()
                .ok_or_else(|| invalid(Reason::STATE_UNKNOWN, "state must be a trading state"))?,
        },
    })
}

fn replace(r: &v1::ReplaceCommand) -> Result<Replace, Refusal> {
    for (field, value) in
        [("quantity", r.quantity_e4), ("price", r.price_e4), ("stop_price", r.stop_price_e4)]
            .into_iter()
            .chain([("trail_amount", r.trail_amount_e4), ("trail_percent", r.trail_percent_e4)])
    {
        if value < 0 {
            return Err(malformed(field, "must not be negative"));
        }
    }
    if r.quantity_e4 != 0 {
        check::quantity(r.quantity_e4).map_err(|v| Refusal::of_rule(v, ""))?;
    }
    Ok(Replace {
        order: id("order_id", &r.order_id)?,
        quantity_e4: r.quantity_e4,
        price_e4: r.price_e4,
        stop_e4: r.stop_price_e4,
        trail: match (r.trail_amount_e4, r.trail_percent_e4) {
            (0, 0) => None,
            (amount, 0) => Some(Trail::AmountE4(amount)),
            (0, percent) => Some(Trail::PercentE4(percent)),
            _ => return Err(malformed("trail_percent", "must not be given beside trail_amount")),
        },
        version: r.version,
    })
}

/// A listing as the core keeps it.
pub fn listing(instrument: &v1::Instrument) -> Result<Instrument, Refusal> {
    Ok(Instrument {
        symbol: symbol(&instrument.symbol)?,
        version: instrument.version,
        currency: currency(&instrument.currency)?,
        tick_e4: instrument.tick_e4,
        lot_e4: instrument.lot_e4,
        state: instrument.state().known().unwrap_or(TradingState::Open),
        previous_close_e4: instrument.previous_close_e4.max(0),
        band_bps: instrument.volatility_band_bps.min(VOLATILITY_BAND_BPS_MAX),
    })
}

fn new_group(r: &v1::PlaceGroupCommand) -> Result<NewGroup, Refusal> {
    let kind = r.kind().known().ok_or_else(|| malformed("kind", "must be OCO, BRACKET or OTO"))?;
    if r.orders.len() != kind.legs() {
        return Err(malformed("orders", "must be as many as the kind of group has"));
    }
    let legs = r.orders.iter().map(new_order).collect::<Result<_, _>>()?;
    Ok(NewGroup { group: id("group_id", &r.group_id)?, kind, legs })
}

fn new_order(r: &v1::PlaceCommand) -> Result<NewOrder, Refusal> {
    let symbol = symbol(&r.symbol)?;
    let side = r.side().known().ok_or_else(|| invalid(Reason::SIDE_UNKNOWN, "side must be BUY or SELL"))?;
    let broken = |violation: Violation| Refusal::of_rule(violation, symbol.as_str());
    if r.notional_micros == 0 {
        check::quantity(r.quantity_e4).map_err(broken)?;
    }
    let terms = terms(r, symbol.as_str())?;
    let order_type = terms.order_type();
    check::how_much(order_type, r.quantity_e4, r.notional_micros).map_err(broken)?;
    let time = r.time_in_force().known().unwrap_or(order_type.default_time());
    check::time_in_force(order_type, time).map_err(broken)?;
    if (time == TimeInForce::Gtd) != (r.expires_us > 0) {
        return Err(if time == TimeInForce::Gtd {
            broken(Violation::ExpiryMissing)
        } else {
            invalid(Reason::EXPIRY_NOT_ALLOWED, "expires_at is only for time in force GTD")
        });
    }
    if r.post_only && !order_type.may_post_only(time) {
        let message = "post_only is only for LIMIT orders with time in force DAY, GTC or GTD";
        return Err(invalid(Reason::POST_ONLY_NOT_ALLOWED, message));
    }
    if r.display_quantity_e4 != 0 && !order_type.may_hide(time) {
        let message =
            "display_quantity is only for LIMIT and STOP_LIMIT orders with time in force DAY, GTC or GTD";
        return Err(invalid(Reason::DISPLAY_QUANTITY_NOT_ALLOWED, message));
    }
    check::display(r.quantity_e4, r.display_quantity_e4).map_err(broken)?;
    Ok(NewOrder {
        order: id("order_id", &r.order_id)?,
        account: id_or_none("account_id", &r.account_id)?,
        symbol,
        side,
        terms,
        time,
        quantity_e4: r.quantity_e4,
        notional: r.notional_micros,
        display_e4: r.display_quantity_e4,
        post_only: r.post_only,
        stp: r.stp().known().unwrap_or(SelfTrade::CancelNewest),
        expires_us: r.expires_us,
    })
}

/// The prices of the type: each one that it needs, no other.
fn terms(r: &v1::PlaceCommand, symbol: &str) -> Result<Terms, Refusal> {
    let order_type = r.r#type().known().ok_or_else(|| {
        invalid(Reason::TYPE_UNKNOWN, "type must be MARKET, LIMIT, STOP, STOP_LIMIT or TRAILING_STOP")
    })?;
    price_of(order_type.has_price(), r.price_e4, order_type, "price")?;
    price_of(order_type.has_stop(), r.stop_price_e4, order_type, "stop_price")?;
    if !order_type.has_trail() && (r.trail_amount_e4, r.trail_percent_e4) != (0, 0) {
        let message = format!("a trail must not be given: a {order_type} order has none");
        return Err(invalid(Reason::TRAIL_NOT_ALLOWED, message));
    }
    Ok(match order_type {
        OrderType::Market => Terms::Market,
        OrderType::Limit => Terms::Limit { price_e4: r.price_e4 },
        OrderType::Stop => Terms::Stop { stop_e4: r.stop_price_e4 },
        OrderType::StopLimit => Terms::StopLimit { price_e4: r.price_e4, stop_e4: r.stop_price_e4 },
        OrderType::TrailingStop => {
            let trail = match (r.trail_amount_e4, r.trail_percent_e4) {
                (0, 0) => return Err(Refusal::of_rule(Violation::TrailMissing, symbol)),
                (amount, 0) => Trail::AmountE4(amount),
                (0, percent) => Trail::PercentE4(percent),
                _ => {
                    let message = "only one of trail_amount and trail_percent may be given";
                    return Err(invalid(Reason::TRAIL_AMBIGUOUS, message));
                }
            };
            check::trail(trail).map_err(|v| Refusal::of_rule(v, symbol))?;
            Terms::TrailingStop { trail }
        }
    })
}

/// Checks that a price is there where the type has it, and only there.
fn price_of(has: bool, value_e4: i64, order_type: OrderType, field: &str) -> Result<(), Refusal> {
    let is_stop = field == "stop_price";
    let reason = |price, stop| if is_stop { stop } else { price };
    if value_e4 < 0 {
        let reason = reason(Reason::PRICE_NOT_POSITIVE, Reason::STOP_PRICE_NOT_POSITIVE);
        Err(invalid(reason, format!("{field} must be above 0")))
    } else if has && value_e4 == 0 {
        let reason = reason(Reason::PRICE_MISSING, Reason::STOP_PRICE_MISSING);
        Err(invalid(reason, format!("{field} is missing: a {order_type} order needs one above 0")))
    } else if !has && value_e4 != 0 {
        let reason = reason(Reason::PRICE_NOT_ALLOWED, Reason::STOP_PRICE_NOT_ALLOWED);
        Err(invalid(reason, format!("{field} must not be given: a {order_type} order has none")))
    } else {
        Ok(())
    }
}
