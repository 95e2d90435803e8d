//! Why a command changes nothing, as data; who answers a client gives it its code and its kind.

use crate::account::Currency;
use fafnir_matching::Reason as BookReason;
use fafnir_rules::{
    check::Violation,
    money::{format_e4, format_grouped, format_micros},
};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A rule that the order itself breaks, in this symbol.
    Violation(String, Violation),
    UnknownSymbol(String),
    /// Not an account of the user, whether somebody else's or nobody's.
    AccountUnknown(Uuid),
    AccountExists(Uuid),
    AccountNotInvestment(String),
    NoInvestmentAccount,
    TooManyAccounts {
        max: usize,
    },
    UserClosed,
    KeyReused(String),
    /// The window of recent ids begins after the position up to which the door looked.
    ProjectionBehind,
    TooManyOpenOrders {
        max: u32,
    },
    InsufficientFunds {
        needed: i64,
        available: i64,
        currency: Currency,
    },
    InsufficientShares {
        needed_e4: i64,
        available_e4: i64,
        symbol: String,
    },
    /// What the position costs, with all that is held, would be beyond 64 bits.
    CostTooLarge,
    /// Nobody has set a rate between the currencies.
    NoRate,
    /// Not an open order of the user.
    OrderNotOpen(Uuid),
    OrderExists(Uuid),
    VersionDiffers {
        asked: u32,
        is: u32,
    },
    NothingToReplace,
    PriceNotAllowed {
        field: &'static str,
        order_type: &'static str,
    },
    StopTriggered,
    /// The symbol is in a call: what was to sell at once waits for the auction.
    WaitsForAuction(String),
    BelowFilled {
        filled_e4: i64,
    },
    /// The book's own word.
    Book(BookReason),
    CurrencyMismatch {
        field: &'static str,
        is: Currency,
    },
    AmountOutOfRange {
        max: i64,
    },
    DepositsOfDay {
        max: i64,
        left: i64,
    },
    AccountFull {
        max: i64,
    },
    ExchangeFull,
    AmountTooSmall,
    AmountTooLarge,
    SameAccount,
    EndowmentOutOfRange {
        field: &'static str,
        max: i64,
    },
    NothingToSell(String),
    /// The orders of a group do not go together.
    GroupMalformed(&'static str),
    /// Not a group of the user that has open orders.
    GroupNotOpen(Uuid),
    /// The quantity of an exit follows its group.
    ExitQuantity,
    /// A number of the configuration.
    TermsOutOfRange(&'static str),
    /// At this rate beside those of open orders, what clients have and hold could be beyond what can be settled.
    RateTooFar,
    InstrumentMalformed(&'static str),
}

impl Refusal {
    /// One sentence that names the field and the limit.
    pub fn sentence(&self) -> String {
        let units = |amount: i64| format_grouped(amount, 6);
        match self {
            Self::Violation(symbol, violation) => violation.sentence(symbol),
            Self::UnknownSymbol(symbol) => format!("symbol {symbol} is not listed"),
            Self::AccountUnknown(id) => format!("account_id {id} is not an open account of this user"),
            Self::AccountExists(id) => format!("account_id {id} is another account already"),
            Self::AccountNotInvestment(number) => {
                format!("account {number} must be an INVESTMENT account to trade")
            }
            Self::NoInvestmentAccount => "an INVESTMENT account is needed; the user has none".to_owned(),
            Self::TooManyAccounts { max } => format!("a user may have at most {max} open accounts"),
            Self::UserClosed => "the user has left".to_owned(),
            Self::KeyReused(key) => {
                format!("key {key:?} was used for another request; it is unique for ever")
            }
            Self::ProjectionBehind => {
                "the records behind the key are further behind than recent requests reach; try again"
                    .to_owned()
            }
            Self::TooManyOpenOrders { max } => {
                format!("open orders must be at most {max} per user; cancel some first")
            }
            Self::InsufficientFunds { needed, available, currency } => format!(
                "cash of {} {currency} is needed, {} {currency} is available",
                units(*needed),
                units(*available),
                currency = currency.code()
            ),
            Self::InsufficientShares { needed_e4, available_e4, symbol } => format!(
                "{} shares of {symbol} are needed, {} are available",
                format_e4(*needed_e4),
                format_e4(*available_e4)
            ),
            Self::CostTooLarge => {
                "the cost of the position with all that is held must be at most 9,223,372,036,854".to_owned()
            }
            Self::NoRate => "there is no exchange rate between USD and CAD".to_owned(),
            Self::OrderNotOpen(id) => format!("order_id {id} is not an open order of this user"),
            Self::OrderExists(id) => format!("order_id {id} is an open order already"),
            Self::VersionDiffers { asked, is } => format!("version must be {is}, the order's, not {asked}"),
            Self::GroupNotOpen(id) => format!("group_id {id} is not an open group of this user"),
            Self::ExitQuantity => {
                "quantity of an exit follows its group: cancel the group and place it anew".to_owned()
            }
            Self::NothingToReplace => {
                "quantity, price, stop_price or a trail must be given to replace an order".to_owned()
            }
            Self::PriceNotAllowed { field, order_type } => {
                format!("{field} must not be given: it cannot be changed in a {order_type} order")
            }
            Self::StopTriggered => {
                "stop_price and trail cannot be changed: the stop was triggered".to_owned()
            }
            Self::WaitsForAuction(symbol) => {
                format!("symbol {symbol} gathers orders for an auction: the sale waits for it")
            }
            Self::BelowFilled { filled_e4 } => {
                format!("quantity must be above the {} already filled", format_e4(*filled_e4))
            }
            Self::Book(reason) => book_sentence(*reason).to_owned(),
            Self::TermsOutOfRange(what) | Self::InstrumentMalformed(what) | Self::GroupMalformed(what) => {
                (*what).to_owned()
            }
            Self::RateTooFar => {
                "usd_cad must keep clients' cash, and what orders accepted at former rates may make of \
                 it, within 4,611,686,018,427"
                    .to_owned()
            }
            of_money => of_money.money_sentence(),
        }
    }

    /// The same of what is about amounts.
    fn money_sentence(&self) -> String {
        let units = |amount: i64| format_grouped(amount, 6);
        match self {
            Self::CurrencyMismatch { field, is } => format!("{field} must be {}, the account's", is.code()),
            Self::AmountOutOfRange { max } => {
                format!("amount must be above 0 and at most {}", format_micros(*max))
            }
            Self::DepositsOfDay { max, left } => format!(
                "amount must be at most {}: deposits of a user and day are at most {} in a currency",
                units(*left),
                units(*max)
            ),
            Self::AccountFull { max } => {
                format!("amount must keep the account's cash within {}", units(*max))
            }
            Self::ExchangeFull => {
                "the exchange holds as much of its clients' cash or shares as it can".to_owned()
            }
            Self::AmountTooSmall => {
                "amount must be worth at least 0.000001 in the currency of to_account_id".to_owned()
            }
            Self::AmountTooLarge => "amount must keep the balance within 9,223,372,036,854".to_owned(),
            Self::SameAccount => "to_account_id must be another account than from_account_id".to_owned(),
            Self::EndowmentOutOfRange { field, max } => format!("{field} must be from 0 to {max}"),
            Self::NothingToSell(symbol) => format!("the account has no shares of {symbol} to sell"),
            other => format!("{other:?}"),
        }
    }
}

/// The book's word in a sentence.
pub fn book_sentence(reason: BookReason) -> &'static str {
    match reason {
        BookReason::WouldTrade => "post-only, and its price would trade at once",
        BookReason::Halted => "trading in the symbol is halted",
        BookReason::NoReferencePrice => "the symbol has no reference price",
        BookReason::BookFull => "the book of the symbol is full",
        BookReason::BelowFilled => "the quantity is not above what is already filled",
        BookReason::NotReplaceable => "this field of this order cannot be changed",
        BookReason::StopWrongSide => "the last price has passed the stop price already",
        BookReason::WrongPhase => "the symbol's phase takes no such order or change",
        other => other.as_str(),
    }
}
