//! What happened. Everything that a projection stores or a client is shown of it is in it.

use crate::{
    account::{Asset, Cash, Currency, Holding, House, Kind},
    command::{Instrument, RequestId, TRACE_BYTES},
    order::Order,
    refusal::Refusal,
    terms::{Fees, Rules},
};
use fafnir_matching::Reason as BookReason;
use fafnir_rules::order::{Side, TradingState};
use uuid::Uuid;

/// Where facts go, in their order.
pub trait Sink {
    fn fact(&mut self, fact: Fact);
}

impl Sink for Vec<Fact> {
    fn fact(&mut self, fact: Fact) {
        self.push(fact);
    }
}

/// One thing that happened, numbered without a gap over the whole exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub position: u64,
    pub time_us: i64,
    /// Whose command it was; nil: the system's.
    pub user: Uuid,
    /// On the first fact of a command that named itself: its name, and what a repetition is answered.
    pub named: Option<Box<(RequestId, Known)>>,
    /// On the first fact of a command that had one: its trace.
    pub trace: Option<[u8; TRACE_BYTES]>,
    /// Market and number there, gapless per market, of what is about one.
    pub at: Option<(u32, u64)>,
    pub what: What,
}

/// What a repetition of a command is answered: what the first one made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Position of its first fact.
    pub at: u64,
    /// The order or account that it made, or the account that it changed.
    pub object: Uuid,
    /// Deposit and withdrawal: the account's cash after it.
    pub amount: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// One order changed (of a decrement two, the taker's first).
    Order(Box<OrderFact>),
    Executed(Box<Trade>),
    Money(Box<Money>),
    AccountOpened(Touched),
    AccountClosed(Touched),
    UserClosed,
    /// `paused`: by the volatility band, before a trade at `price_e4`; its auction runs soon after `until_us`. Told again
    /// where the pause is extended, because that auction would be at `price_e4`.
    StateChanged {
        state: TradingState,
        paused: bool,
        price_e4: i64,
        until_us: i64,
    },
    InstrumentSet(Box<Instrument>),
    TermsSet(Terms),
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OrderKind {
    Accepted = 1,
    Rejected = 2,
    Triggered = 3,
    Replaced = 5,
    Canceled = 6,
    Expired = 7,
    Decremented = 8,
    StopMoved = 9,
    /// An order of a group has another quantity, or woke, because of another one's fill.
    Resized = 10,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFact {
    pub kind: OrderKind,
    pub order: OrderAfter,
    /// Of a decrement the resting order.
    pub other: Option<OrderAfter>,
    /// Balances whose hold it changed: of a decrement two, else at most one.
    pub touched: [Option<Touched>; 2],
    /// What was canceled, expired or taken off.
    pub quantity_e4: i64,
}

/// An order as it is after a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderAfter {
    pub order: Order,
    pub user: Uuid,
    /// The user's `order_seq`; 0 for agents.
    pub seq: u64,
}

/// A user's balances after a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    pub user: Uuid,
    /// The user's `money_seq`; 0 for agents.
    pub seq: u64,
    pub account: AccountAfter,
    /// Market and shares.
    pub holding: Option<(u32, Holding)>,
}

/// An account as it is after a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountAfter {
    pub id: Uuid,
    pub number: u64,
    pub kind: Kind,
    pub currency: Currency,
    pub cash: Cash,
    pub opened_us: i64,
    pub updated_us: i64,
    pub closed: bool,
}

/// A trade, settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    pub trade_no: u64,
    pub price_e4: i64,
    pub quantity_e4: i64,
    /// Side of the taker; in an auction of nobody.
    pub aggressor: Option<Side>,
    pub taker: OrderAfter,
    pub maker: OrderAfter,
    pub buyer: Touched,
    pub seller: Touched,
    pub postings: Vec<Posting>,
    /// What the sale realised and the cost that went with the shares, micros of the seller's currency.
    pub realized: i64,
    pub cost: i64,
}

impl Trade {
    /// The order that bought and the one that sold.
    pub fn sides(&self) -> (&OrderAfter, &OrderAfter) {
        match self.taker.order.side {
            Side::Buy => (&self.taker, &self.maker),
            Side::Sell => (&self.maker, &self.taker),
        }
    }
}

/// Why money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    Opening = 1,
    Deposit = 2,
    Transfer = 3,
    Endowment = 5,
    Closing = 6,
    Withdrawal = 7,
}

/// Money or shares that moved without a trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    pub cause: Cause,
    /// The side that pays first, where two accounts are touched.
    pub touched: [Option<Touched>; 2],
    pub postings: Vec<Posting>,
    /// Rate id of a transfer between two currencies; 0: none.
    pub rate: u32,
    /// Shares: micros of the account's currency that their cost changed by.
    pub cost: i64,
}

/// One line of a ledger transaction; the lines of a fact sum to zero per asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    pub party: Party,
    pub asset: Asset,
    pub amount: i64,
    pub role: Role,
}

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Client(Uuid),
    House(House),
}

/// What a posting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    Principal = 0,
    Fee = 1,
    Conversion = 2,
}

/// What is computed with from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub rules: Rules,
    pub fees_id: u32,
    pub fees: Fees,
    pub rate_id: u32,
    pub usd_cad: i64,
}

/// Why an order ended, or was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The book's own word.
    Book(BookReason),
    /// The account or the user was closed.
    AccountClosing,
    /// The order that it depended on ended, filled, or was triggered.
    Group,
    /// Refused for funds or risk.
    Refused(Box<Refusal>),
}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done(Done),
    /// The command was known: this is what the first one made.
    Known(Known),
    /// Nothing changed.
    Refused(Refusal),
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    pub known: Known,
    /// The order that the command is about, as it is after it.
    pub order: Option<Box<Order>>,
    /// The account that the command is about, as it is after it.
    pub account: Option<AccountAfter>,
    /// Orders that were canceled.
    pub canceled: u32,
    /// Flatten: shares that are left, and why.
    pub left_e4: i64,
    pub why: Option<Box<Refusal>>,
}
