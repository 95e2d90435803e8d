//! Commands as bytes: what the journal holds. The `put_…` functions and [`Reader`] are those of snapshots too.
//!
//! Enums of the rules have their own stable numbers here: the order in which they are declared is nobody's promise.

use crate::{
    account::{Currency, Kind},
    command::{
        Command, Endow, Flatten, Instruction, Instrument, NewGroup, NewOrder, Replace, RequestId, TRACE_BYTES,
    },
    terms::Rules,
};
use fafnir_rules::{
    calendar::Session,
    check::Terms,
    limits::VOLATILITY_BAND_BPS_MAX,
    order::{GroupKind, LEGS_MAX, SelfTrade, Side, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use uuid::Uuid;

/// Grows with every change of what a command does, of what its facts say, or of an encoding: a journal's tail is replayed
/// by programs of its own version only.
pub const RULES_VERSION: u32 = 5;
/// The first version with sessions, orders for one auction, and pauses that are extended.
pub const RULES_OF_SESSIONS: u32 = 3;
/// The first version that has groups of orders.
pub const RULES_OF_GROUPS: u32 = 4;
/// Longest text of a client's key in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

const NEW: u8 = 1;
const REPLACE: u8 = 2;
const CANCEL: u8 = 3;
const CANCEL_ALL: u8 = 4;
const FLATTEN: u8 = 5;
const NEW_GROUP: u8 = 6;
const CANCEL_GROUP: u8 = 7;
const OPEN_ACCOUNT: u8 = 10;
const CLOSE_ACCOUNT: u8 = 11;
const CLOSE_USER: u8 = 12;
const DEPOSIT: u8 = 20;
const WITHDRAW: u8 = 21;
const TRANSFER: u8 = 22;
const ENDOW: u8 = 23;
const SET_INSTRUMENT: u8 = 30;
const SET_STATE: u8 = 31;
const SET_RULES: u8 = 32;
const SET_FEES: u8 = 33;
const SET_RATE: u8 = 34;
const DAY_END: u8 = 40;
const EXPIRE: u8 = 41;
const REOPEN: u8 = 42;
const SET_SESSION: u8 = 43;

/// What a command's head says beside its kind.
const OF_USER: u8 = 1;
const OF_AGENT: u8 = 2;
const HAS_ID: u8 = 4;
/// The id is a door's own: no payload, no key, nothing was looked up.
const HAS_KEY: u8 = 8;
const HAS_TRACE: u8 = 16;
const HEAD: u8 = OF_USER | OF_AGENT | HAS_ID | HAS_KEY | HAS_TRACE;

impl Command {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.instruction.tag());
        let is_keyed = |id: &RequestId| id.payload != 0 || id.looked_until.is_some() || !id.key.is_empty();
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.push(
            flag(!self.user.is_nil(), OF_USER)
                | flag(self.agent, OF_AGENT)
                | flag(self.id.is_some(), HAS_ID)
                | flag(self.id.as_ref().is_some_and(is_keyed), HAS_KEY)
                | flag(self.trace.is_some(), HAS_TRACE),
        );
        if !self.user.is_nil() {
            put_uuid(out, self.user);
        }
        if let Some(id) = &self.id {
            put_u128(out, id.hash);
            if is_keyed(id) {
                put_u128(out, id.payload);
                // One more than the position; 0 for none. The last position of all cannot be looked behind.
                put_u64(out, id.looked_until.map_or(0, |at| at.saturating_add(1)));
                put_text(out, &id.key);
            }
        }
        if let Some(trace) = &self.trace {
            out.extend_from_slice(trace);
        }
        self.instruction.encode(out);
    }

    /// Reads what [`Self::encode`] wrote; nothing may be left over. Whatever the bytes are, this does not panic.
    ///
    /// # Errors
    /// The bytes are no command.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let tag = r.u8()?;
        let head = r.u8()?;
        if head & !HEAD != 0 || head & (HAS_ID | HAS_KEY) == HAS_KEY {
            return Err(Malformed("unknown head of a command"));
        }
        let user = if head & OF_USER == 0 { Uuid::nil() } else { r.uuid()? };
        let mut id = None;
        if head & HAS_ID != 0 {
            let mut read = RequestId { hash: r.u128()?, payload: 0, looked_until: None, key: "".into() };
            if head & HAS_KEY != 0 {
                read.payload = r.u128()?;
                read.looked_until = r.u64()?.checked_sub(1);
                read.key = r.text()?.into();
                if read.key.len() > KEY_BYTES_MAX {
                    return Err(Malformed("a key is too long"));
                }
            }
            id = Some(read);
        }
        let trace = if head & HAS_TRACE == 0 { None } else { Some(r.array::<TRACE_BYTES>()?) };
        let instruction = Instruction::decode(&mut r, tag)?;
        r.finish()?;
        Ok(Self { user, agent: head & OF_AGENT != 0, id, trace, instruction })
    }
}

impl Instruction {
    fn tag(&self) -> u8 {
        match self {
            Self::New(_) => NEW,
            Self::NewGroup(_) => NEW_GROUP,
            Self::CancelGroup { .. } => CANCEL_GROUP,
            Self::Replace(_) => REPLACE,
            Self::Cancel { .. } => CANCEL,
            Self::CancelAll { .. } => CANCEL_ALL,
            Self::Flatten(_) => FLATTEN,
            Self::OpenAccount { .. } => OPEN_ACCOUNT,
            Self::CloseAccount { .. } => CLOSE_ACCOUNT,
            Self::CloseUser => CLOSE_USER,
            Self::Deposit { .. } => DEPOSIT,
            Self::Withdraw { .. } => WITHDRAW,
            Self::Transfer { .. } => TRANSFER,
            Self::Endow(_) => ENDOW,
            Self::SetInstrument(_) => SET_INSTRUMENT,
            Self::SetState { .. } => SET_STATE,
            Self::SetRules(_) => SET_RULES,
            Self::SetFees { .. } => SET_FEES,
            Self::SetRate { .. } => SET_RATE,
            Self::DayEnd => DAY_END,
            Self::Expire => EXPIRE,
            Self::Reopen { .. } => REOPEN,
            Self::SetSession { .. } => SET_SESSION,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::New(new) => encode_new(out, new),
            Self::NewGroup(new) => {
                put_uuid(out, new.group);
                out.extend([group_kind_number(new.kind), new.legs.len().min(LEGS_MAX) as u8]);
                for leg in new.legs.iter().take(LEGS_MAX) {
                    encode_new(out, leg);
                }
            }
            Self::CancelGroup { group } => put_uuid(out, *group),
            Self::Replace(change) => {
                put_uuid(out, change.order);
                for value in [change.quantity_e4, change.price_e4, change.stop_e4] {
                    put_i64(out, value);
                }
                match change.trail {
                    None => out.push(0),
                    Some(trail) => put_terms(out, Terms::TrailingStop { trail }),
                }
                put_u64(out, u64::from(change.version));
            }
            Self::Cancel { order } => put_uuid(out, *order),
            Self::CancelAll { symbol } => put_symbol(out, symbol.as_ref()),
            Self::Flatten(flatten) => {
                put_account(out, flatten.account);
                put_symbol(out, Some(&flatten.symbol));
                put_uuid(out, flatten.order);
            }
            Self::OpenAccount { account, kind, currency, opening } => {
                put_uuid(out, *account);
                out.extend([*kind as u8, *currency as u8, u8::from(*opening)]);
            }
            Self::CloseAccount { account } => put_uuid(out, *account),
            Self::Deposit { account, currency, amount } | Self::Withdraw { account, currency, amount } => {
                put_uuid(out, *account);
                out.push(*currency as u8);
                put_i64(out, *amount);
            }
            Self::Transfer { from, to, currency, amount } => {
                put_uuid(out, *from);
                put_uuid(out, *to);
                out.push(*currency as u8);
                put_i64(out, *amount);
            }
            Self::Endow(endow) => encode_endow(out, endow),
            Self::SetInstrument(instrument) => instrument.encode(out),
            Self::SetState { symbol, state } => {
                put_symbol(out, Some(symbol));
                out.push(state_number(*state));
            }
            Self::SetRules(rules) => rules.encode(out),
            Self::SetFees { maker_bp, taker_bp } => {
                put_u64(out, u64::from(*maker_bp));
                put_u64(out, u64::from(*taker_bp));
            }
            Self::SetRate { usd_cad } => put_i64(out, *usd_cad),
            Self::Reopen { symbol } => put_symbol(out, Some(symbol)),
            Self::SetSession { session } => out.push(session_number(*session)),
            Self::CloseUser | Self::DayEnd | Self::Expire => {}
        }
    }

    fn decode(r: &mut Reader<'_>, tag: u8) -> Result<Self, Malformed> {
        Ok(match tag {
            NEW => Self::New(Box::new(decode_new(r)?)),
            NEW_GROUP => {
                let group = r.uuid()?;
                let kind = r.group_kind()?;
                let count = usize::from(r.u8()?);
                if count > LEGS_MAX {
                    return Err(Malformed("a group has too many orders"));
                }
                let legs = (0..count).map(|_| decode_new(r)).collect::<Result<_, _>>()?;
                Self::NewGroup(Box::new(NewGroup { group, kind, legs }))
            }
            CANCEL_GROUP => Self::CancelGroup { group: r.uuid()? },
            REPLACE => Self::Replace(Replace {
                order: r.uuid()?,
                quantity_e4: r.i64()?,
                price_e4: r.i64()?,
                stop_e4: r.i64()?,
                trail: match r.terms_or_none()? {
                    None => None,
                    Some(Terms::TrailingStop { trail }) => Some(trail),
                    Some(_) => return Err(Malformed("not a trail")),
                },
                version: r.u32()?,
            }),
            CANCEL => Self::Cancel { order: r.uuid()? },
            CANCEL_ALL => Self::CancelAll { symbol: r.symbol_or_none()? },
            FLATTEN => {
                Self::Flatten(Flatten { account: r.account()?, symbol: r.symbol()?, order: r.uuid()? })
            }
            OPEN_ACCOUNT => Self::OpenAccount {
                account: r.uuid()?,
                kind: Kind::from_number(r.u8()?).ok_or(Malformed("unknown kind of account"))?,
                currency: r.currency()?,
                opening: r.bool()?,
            },
            CLOSE_ACCOUNT => Self::CloseAccount { account: r.uuid()? },
            CLOSE_USER => Self::CloseUser,
            DEPOSIT => Self::Deposit { account: r.uuid()?, currency: r.currency()?, amount: r.i64()? },
            WITHDRAW => Self::Withdraw { account: r.uuid()?, currency: r.currency()?, amount: r.i64()? },
            TRANSFER => {
                Self::Transfer { from: r.uuid()?, to: r.uuid()?, currency: r.currency()?, amount: r.i64()? }
            }
            ENDOW => Self::Endow(decode_endow(r)?),
            SET_INSTRUMENT => Self::SetInstrument(Box::new(Instrument::decode(r)?)),
            SET_STATE => Self::SetState { symbol: r.symbol()?, state: r.state()? },
            SET_RULES => Self::SetRules(Rules::decode(r)?),
            SET_FEES => Self::SetFees { maker_bp: r.u32()?, taker_bp: r.u32()? },
            SET_RATE => Self::SetRate { usd_cad: r.i64()? },
            DAY_END => Self::DayEnd,
            EXPIRE => Self::Expire,
            REOPEN => Self::Reopen { symbol: r.symbol()? },
            SET_SESSION => Self::SetSession { session: r.session()? },
            _ => return Err(Malformed("unknown kind of command")),
        })
    }
}

const POST_ONLY: u8 = 1;
const ICEBERG: u8 = 2;
const EXPIRES: u8 = 4;
const NOTIONAL: u8 = 8;

fn encode_new(out: &mut Vec<u8>, new: &NewOrder) {
    put_uuid(out, new.order);
    put_account(out, new.account);
    put_symbol(out, Some(&new.symbol));
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let flags = flag(new.post_only, POST_ONLY)
        | flag(new.display_e4 != 0, ICEBERG)
        | flag(new.expires_us != 0, EXPIRES)
        | flag(new.notional != 0, NOTIONAL);
    out.extend([side_number(new.side), time_number(new.time), self_trade_number(new.stp), flags]);
    put_terms(out, new.terms);
    put_i64(out, new.quantity_e4);
    if new.display_e4 != 0 {
        put_i64(out, new.display_e4);
    }
    if new.expires_us != 0 {
        put_i64(out, new.expires_us);
    }
    if new.notional != 0 {
        put_i64(out, new.notional);
    }
}

fn decode_new(r: &mut Reader<'_>) -> Result<NewOrder, Malformed> {
    let (order, account, symbol) = (r.uuid()?, r.account()?, r.symbol()?);
    let (side, time, stp, flags) = (r.side()?, r.time()?, r.self_trade()?, r.u8()?);
    if flags & !(POST_ONLY | ICEBERG | EXPIRES | NOTIONAL) != 0 {
        return Err(Malformed("unknown flag of an order"));
    }
    let terms = r.terms()?;
    let quantity_e4 = r.i64()?;
    let display_e4 = if flags & ICEBERG == 0 { 0 } else { r.i64()? };
    let expires_us = if flags & EXPIRES == 0 { 0 } else { r.i64()? };
    let notional = if flags & NOTIONAL == 0 { 0 } else { r.i64()? };
    let post_only = flags & POST_ONLY != 0;
    Ok(NewOrder {
        order,
        account,
        symbol,
        side,
        terms,
        time,
        quantity_e4,
        notional,
        display_e4,
        post_only,
        stp,
        expires_us,
    })
}

fn encode_endow(out: &mut Vec<u8>, endow: &Endow) {
    put_uuid(out, endow.account);
    out.push(endow.currency.map_or(0, |c| c as u8 + 1));
    put_i64(out, endow.amount);
    put_symbol(out, endow.symbol.as_ref());
    put_i64(out, endow.quantity_e4);
    put_i64(out, endow.cost_price_e4);
}

fn decode_endow(r: &mut Reader<'_>) -> Result<Endow, Malformed> {
    let account = r.uuid()?;
    let currency = match r.u8()?.checked_sub(1) {
        None => None,
        Some(number) => Some(Currency::from_number(number).ok_or(Malformed("unknown currency"))?),
    };
    Ok(Endow {
        account,
        currency,
        amount: r.i64()?,
        symbol: r.symbol_or_none()?,
        quantity_e4: r.i64()?,
        cost_price_e4: r.i64()?,
    })
}

impl Instrument {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_symbol(out, Some(&self.symbol));
        put_u64(out, self.version);
        out.extend([self.currency as u8, state_number(self.state)]);
        for value in [self.tick_e4, self.lot_e4, self.previous_close_e4] {
            put_i64(out, value);
        }
        put_u64(out, u64::from(self.band_bps));
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no listing.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (symbol, version, currency, state) = (r.symbol()?, r.u64()?, r.currency()?, r.state()?);
        let (tick_e4, lot_e4, previous_close_e4) = (r.i64()?, r.i64()?, r.i64()?);
        let band_bps = r.u32()?;
        if band_bps > VOLATILITY_BAND_BPS_MAX {
            return Err(Malformed("the width of a band is out of range"));
        }
        Ok(Self { symbol, version, currency, tick_e4, lot_e4, state, previous_close_e4, band_bps })
    }
}

impl Rules {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, u64::from(self.open_orders_max));
        put_u64(out, u64::from(self.recent_ids));
        for value in [self.opening, self.deposit_max, self.deposits_per_day_max, self.account_max] {
            put_i64(out, value);
        }
        put_i64(out, self.volatility_pause_us);
        put_i64(out, self.volatility_end_us);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no rules.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let before = Self::default();
        Ok(Self {
            open_orders_max: r.u32()?,
            recent_ids: r.u32()?,
            opening: r.i64()?,
            deposit_max: r.i64()?,
            deposits_per_day_max: r.i64()?,
            account_max: r.i64()?,
            volatility_pause_us: r.since(RULES_OF_SESSIONS, before.volatility_pause_us, Reader::i64)?,
            volatility_end_us: r.since(RULES_OF_SESSIONS, before.volatility_end_us, Reader::i64)?,
        })
    }
}

/// The stable number of a trading state.
pub fn state_number(state: TradingState) -> u8 {
    match state {
        TradingState::Open => 1,
        TradingState::Halted => 2,
        TradingState::Closed => 3,
        TradingState::PreOpen => 4,
        TradingState::Auction => 5,
    }
}

/// The stable number of a side.
pub fn side_number(side: Side) -> u8 {
    match side {
        Side::Buy => 1,
        Side::Sell => 2,
    }
}

/// The stable number of a time in force.
pub fn time_number(time: TimeInForce) -> u8 {
    match time {
        TimeInForce::Day => 1,
        TimeInForce::Gtc => 2,
        TimeInForce::Ioc => 3,
        TimeInForce::Fok => 4,
        TimeInForce::Gtd => 5,
        TimeInForce::Opg => 6,
        TimeInForce::Cls => 7,
    }
}

/// The stable number of a session.
pub fn session_number(session: Session) -> u8 {
    match session {
        Session::Always => 1,
        Session::PreOpen => 2,
        Session::Regular => 3,
    }
}

/// The stable number of a kind of group.
pub fn group_kind_number(kind: GroupKind) -> u8 {
    match kind {
        GroupKind::Oco => 1,
        GroupKind::Bracket => 2,
        GroupKind::Oto => 3,
    }
}

/// The stable number of a mode of self-trade prevention.
pub fn self_trade_number(mode: SelfTrade) -> u8 {
    match mode {
        SelfTrade::CancelNewest => 1,
        SelfTrade::CancelOldest => 2,
        SelfTrade::CancelBoth => 3,
        SelfTrade::Decrement => 4,
    }
}

/// Appends the terms of an order.
pub fn put_terms(out: &mut Vec<u8>, terms: Terms) {
    match terms {
        Terms::Market => out.push(1),
        Terms::Limit { price_e4 } => {
            out.push(2);
            put_i64(out, price_e4);
        }
        Terms::Stop { stop_e4 } => {
            out.push(3);
            put_i64(out, stop_e4);
        }
        Terms::StopLimit { price_e4, stop_e4 } => {
            out.push(4);
            put_i64(out, price_e4);
            put_i64(out, stop_e4);
        }
        Terms::TrailingStop { trail: Trail::AmountE4(amount) } => {
            out.push(5);
            put_i64(out, amount);
        }
        Terms::TrailingStop { trail: Trail::PercentE4(percent) } => {
            out.push(6);
            put_i64(out, percent);
        }
    }
}

/// Appends an unsigned number, seven bits a byte, least first.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7F) as u8);
}

/// Appends a signed number, small magnitudes short.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a number of 128 bits as it is.
pub fn put_u128(out: &mut Vec<u8>, value: u128) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a signed number of 128 bits as it is.
pub fn put_i128(out: &mut Vec<u8>, value: i128) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a text with its length.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Appends bytes with their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an id.
pub fn put_uuid(out: &mut Vec<u8>, id: Uuid) {
    out.extend_from_slice(id.as_bytes());
}

/// Appends a symbol; nothing is an empty text.
pub fn put_symbol(out: &mut Vec<u8>, symbol: Option<&Symbol>) {
    put_text(out, symbol.map_or("", Symbol::as_str));
}

fn put_account(out: &mut Vec<u8>, account: Option<Uuid>) {
    out.push(u8::from(account.is_some()));
    if let Some(account) = account {
        put_uuid(out, account);
    }
}

/// Reads what the `put_…` functions wrote.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// [`RULES_VERSION`] of who wrote it.
    rules: u32,
}

const SHORT: Malformed = Malformed("it is cut off");

/// What a read answers.
type Read<T> = Result<T, Malformed>;

#[expect(clippy::missing_errors_doc, reason = "each is refused where the bytes are not what they should be")]
impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::of(RULES_VERSION, bytes)
    }

    /// Reads what a program of these rules wrote.
    pub fn of(rules: u32, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, rules }
    }

    /// What is there since a version of the rules, or what it was before.
    pub fn since<T>(&mut self, rules: u32, before: T, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.rules < rules { Ok(before) } else { read(self) }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn bool(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is 0 or 1")),
        }
    }

    pub fn u64(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub fn u32(&mut self) -> Read<u32> {
        u32::try_from(self.u64()?).map_err(|_| Malformed("a number is out of range"))
    }

    pub fn i64(&mut self) -> Read<i64> {
        let value = self.u64()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub fn u128(&mut self) -> Read<u128> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub fn i128(&mut self) -> Read<i128> {
        Ok(i128::from_le_bytes(self.array()?))
    }

    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let n = usize::try_from(self.u64()?).map_err(|_| SHORT)?;
        self.take(n)
    }

    pub fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub fn uuid(&mut self) -> Read<Uuid> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    pub fn symbol(&mut self) -> Read<Symbol> {
        self.symbol_or_none()?.ok_or(Malformed("a symbol is missing"))
    }

    pub fn symbol_or_none(&mut self) -> Read<Option<Symbol>> {
        match self.text()? {
            "" => Ok(None),
            text => {
                let symbol = Symbol::parse(text).ok().filter(|s| s.as_str() == text);
                symbol.map(Some).ok_or(Malformed("not a symbol"))
            }
        }
    }

    fn account(&mut self) -> Read<Option<Uuid>> {
        if self.bool()? { self.uuid().map(Some) } else { Ok(None) }
    }

    pub fn currency(&mut self) -> Read<Currency> {
        Currency::from_number(self.u8()?).ok_or(Malformed("unknown currency"))
    }

    pub fn state(&mut self) -> Read<TradingState> {
        let number = self.u8()?;
        let mut all = TradingState::ALL.iter().copied();
        all.find(|s| state_number(*s) == number).ok_or(Malformed("unknown trading state"))
    }

    pub fn side(&mut self) -> Read<Side> {
        let number = self.u8()?;
        Side::ALL.iter().copied().find(|s| side_number(*s) == number).ok_or(Malformed("unknown side"))
    }

    pub fn time(&mut self) -> Read<TimeInForce> {
        let number = self.u8()?;
        let mut all = TimeInForce::ALL.iter().copied();
        all.find(|t| time_number(*t) == number).ok_or(Malformed("unknown time in force"))
    }

    pub fn session(&mut self) -> Read<Session> {
        let number = self.u8()?;
        let mut all = [Session::Always, Session::PreOpen, Session::Regular].into_iter();
        all.find(|s| session_number(*s) == number).ok_or(Malformed("unknown session"))
    }

    pub fn group_kind(&mut self) -> Read<GroupKind> {
        let number = self.u8()?;
        let mut all = GroupKind::ALL.iter().copied();
        all.find(|kind| group_kind_number(*kind) == number).ok_or(Malformed("unknown kind of group"))
    }

    pub fn self_trade(&mut self) -> Read<SelfTrade> {
        let number = self.u8()?;
        let mut all = SelfTrade::ALL.iter().copied();
        all.find(|m| self_trade_number(*m) == number).ok_or(Malformed("unknown self-trade mode"))
    }

    pub fn terms(&mut self) -> Read<Terms> {
        self.terms_or_none()?.ok_or(Malformed("unknown order type"))
    }

    fn terms_or_none(&mut self) -> Read<Option<Terms>> {
        Ok(Some(match self.u8()? {
            0 => return Ok(None),
            1 => Terms::Market,
            2 => Terms::Limit { price_e4: self.i64()? },
            3 => Terms::Stop { stop_e4: self.i64()? },
            4 => Terms::StopLimit { price_e4: self.i64()?, stop_e4: self.i64()? },
            5 => Terms::TrailingStop { trail: Trail::AmountE4(self.i64()?) },
            6 => Terms::TrailingStop { trail: Trail::PercentE4(self.i64()?) },
            _ => return Err(Malformed("unknown order type")),
        }))
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The rest, which ends the reading.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn finish(self) -> Read<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("something is left over")) }
    }
}

#[cfg(test)]
mod tests;
