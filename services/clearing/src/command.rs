//! What the exchange is told. A command is of the right shape; whether it can be done is what [`step`](crate::step) decides.

use crate::{
    account::{Currency, Kind},
    terms::Rules,
};
use fafnir_rules::{
    calendar::Session,
    check::Terms,
    order::{GroupKind, SelfTrade, Side, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use uuid::Uuid;

/// One command, with whose it is and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Nil: the system's.
    pub user: Uuid,
    /// The user belongs to the simulated market: nobody follows its sequences. Counts where the user is first seen.
    pub agent: bool,
    /// `None`: it may be repeated freely, like a cancel.
    pub id: Option<RequestId>,
    /// The trace that the command belongs to, as who sent it wrote it: told with the first fact, never looked at.
    pub trace: Option<[u8; TRACE_BYTES]>,
    pub instruction: Instruction,
}

/// Bytes of a command's trace.
pub const TRACE_BYTES: usize = 25;

/// The name of a command, so that the same one has one effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// Of owner, kind of thing and key: 128 bits of a hash, or the door's own id.
    pub hash: u128,
    /// Of what is asked for: the same key with another payload is refused.
    pub payload: u128,
    /// The position up to which the door did not find the key. `None`: the door's own id, which needs only the window.
    pub looked_until: Option<u64>,
    /// The client's text, told in the facts; empty for the door's own id.
    pub key: Box<str>,
}

/// What a command asks for. Prices and quantities at scale 10⁻⁴, amounts in micros, 0 = none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    New(Box<NewOrder>),
    NewGroup(Box<NewGroup>),
    /// Every open order of a group.
    CancelGroup {
        group: Uuid,
    },
    Replace(Replace),
    Cancel {
        order: Uuid,
    },
    /// Every open order of the user, of one symbol or (without one) of all.
    CancelAll {
        symbol: Option<Symbol>,
    },
    Flatten(Flatten),
    OpenAccount {
        account: Uuid,
        kind: Kind,
        currency: Currency,
        /// Whether it opens with the rules' deposit.
        opening: bool,
    },
    CloseAccount {
        account: Uuid,
    },
    CloseUser,
    Deposit {
        account: Uuid,
        currency: Currency,
        amount: i64,
    },
    Withdraw {
        account: Uuid,
        currency: Currency,
        amount: i64,
    },
    Transfer {
        from: Uuid,
        to: Uuid,
        /// Of the account that pays.
        currency: Currency,
        amount: i64,
    },
    Endow(Endow),
    SetInstrument(Box<Instrument>),
    SetState {
        symbol: Symbol,
        state: TradingState,
    },
    /// The numbers of the configuration, at start where they differ.
    SetRules(Rules),
    SetFees {
        maker_bp: u32,
        taker_bp: u32,
    },
    /// Micros of CAD for one USD.
    SetRate {
        usd_cad: i64,
    },
    /// The day ended before the command's time.
    DayEnd,
    /// GTD times up to the command's time have come.
    Expire,
    /// The volatility pause of a symbol has lasted long enough: its auction runs, or it is extended. Before its time
    /// nothing happens.
    Reopen {
        symbol: Symbol,
    },
    /// What the calendar has every symbol do from now on that its operator leaves open. From a session to what comes
    /// after it the closing auctions run and the day ends.
    SetSession {
        session: Session,
    },
}

/// A new order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    pub order: Uuid,
    /// `None`: the default account.
    pub account: Option<Uuid>,
    pub symbol: Symbol,
    pub side: Side,
    pub terms: Terms,
    pub time: TimeInForce,
    /// 0 where `notional` says how much.
    pub quantity_e4: i64,
    /// Micros of the listing's currency; 0: none.
    pub notional: i64,
    /// 0: all of it shows.
    pub display_e4: i64,
    pub post_only: bool,
    pub stp: SelfTrade,
    /// 0 unless GTD.
    pub expires_us: i64,
}

/// Orders that depend on each other, the entry first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    pub group: Uuid,
    pub kind: GroupKind,
    pub legs: Vec<NewOrder>,
}

/// A change of an open order; 0 or `None` keeps a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replace {
    pub order: Uuid,
    /// The new total.
    pub quantity_e4: i64,
    pub price_e4: i64,
    pub stop_e4: i64,
    /// Of an untriggered trailing stop, in what it trails by: its stop starts anew behind the reference price.
    pub trail: Option<Trail>,
    /// 0: any; else the order must have it.
    pub version: u32,
}

/// Cancel the account's orders in the symbol, then sell with a MARKET order what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flatten {
    /// `None`: the default account.
    pub account: Option<Uuid>,
    pub symbol: Symbol,
    /// Id of the order that sells.
    pub order: Uuid,
}

/// Cash and shares that the house gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endow {
    pub account: Uuid,
    /// Of the cash and of the cost price; `None`: the account's.
    pub currency: Option<Currency>,
    pub amount: i64,
    /// `None`: no shares.
    pub symbol: Option<Symbol>,
    pub quantity_e4: i64,
    pub cost_price_e4: i64,
}

/// A listing as its owner has it. Tick, lot and currency are fixed by the first one of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instrument {
    pub symbol: Symbol,
    pub version: u64,
    pub currency: Currency,
    pub tick_e4: i64,
    pub lot_e4: i64,
    /// Counts only for a symbol that is not known yet.
    pub state: TradingState,
    /// Reference price before the first trade; 0 = none.
    pub previous_close_e4: i64,
    /// Width of the volatility band, at most [`VOLATILITY_BAND_BPS_MAX`]; 0 = no band.
    ///
    /// [`VOLATILITY_BAND_BPS_MAX`]: fafnir_rules::limits::VOLATILITY_BAND_BPS_MAX
    pub band_bps: u32,
}
