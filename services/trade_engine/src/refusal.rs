//! The core's refusals as everybody outside says them: kind, code, sentence.

use super::request::Scope;
use fafnir_clearing::refusal::Refusal as Refused;
use fafnir_matching::Reason as BookReason;
use fafnir_platform::{Refusal, refusal::Kind};
use fafnir_proto::{order::end_sentence, reason::Reason, v1};
use tonic::Code;

/// A field of a command that no door sends.
pub fn malformed(field: &str, must: &str) -> Refusal {
    Refusal::invalid(Reason::COMMAND_MALFORMED, format!("{field} {must}"))
}

/// The refusal of a command whose keys are of this scope.
pub fn of(refused: &Refused, scope: Scope) -> Refusal {
    use Refused as R;
    let (kind, reason) = match refused {
        R::Violation(symbol, violation) => return Refusal::of_rule(*violation, symbol),
        R::UnknownSymbol(_) => (Kind::NotFound, Reason::UNKNOWN_SYMBOL),
        R::AccountUnknown(_) => (Kind::NotFound, Reason::ACCOUNT_NOT_FOUND),
        R::AccountExists(_) => (Kind::Exists, Reason::ACCOUNT_EXISTS),
        R::AccountNotInvestment(_) => (Kind::Precondition, Reason::ACCOUNT_NOT_INVESTMENT),
        R::NoInvestmentAccount => (Kind::Precondition, Reason::NO_INVESTMENT_ACCOUNT),
        R::TooManyAccounts { .. } => (Kind::Exhausted, Reason::TOO_MANY_ACCOUNTS),
        R::UserClosed => (Kind::Precondition, Reason::USER_CLOSED),
        R::KeyReused(key) => return reused(scope, key),
        R::ProjectionBehind => (Kind::Unavailable, Reason::PROJECTION_BEHIND),
        R::TooManyOpenOrders { .. } => (Kind::Precondition, Reason::TOO_MANY_OPEN_ORDERS),
        R::InsufficientFunds { .. } => (Kind::Precondition, Reason::INSUFFICIENT_FUNDS),
        R::InsufficientShares { .. } => (Kind::Precondition, Reason::INSUFFICIENT_SHARES),
        R::CostTooLarge => (Kind::Precondition, Reason::COST_TOO_LARGE),
        R::OrderNotOpen(_) => (Kind::NotFound, Reason::ORDER_NOT_OPEN),
        R::OrderExists(_) => (Kind::Exists, Reason::ORDER_EXISTS),
        R::VersionDiffers { .. } => (Kind::Precondition, Reason::VERSION_DIFFERS),
        R::NothingToReplace => (Kind::Invalid, Reason::NOTHING_TO_REPLACE),
        R::PriceNotAllowed { field: "stop_price", .. } => (Kind::Invalid, Reason::STOP_PRICE_NOT_ALLOWED),
        R::PriceNotAllowed { field: "trail", .. } => (Kind::Invalid, Reason::TRAIL_NOT_ALLOWED),
        R::PriceNotAllowed { .. } => (Kind::Invalid, Reason::PRICE_NOT_ALLOWED),
        R::WaitsForAuction(_) => (Kind::Precondition, Reason::SYMBOL_IN_AUCTION),
        R::GroupMalformed(_) => (Kind::Invalid, Reason::GROUP_MALFORMED),
        R::GroupNotOpen(_) => (Kind::NotFound, Reason::GROUP_NOT_FOUND),
        R::ExitQuantity => (Kind::Invalid, Reason::GROUP_EXIT_QUANTITY),
        R::StopTriggered => (Kind::Precondition, Reason::STOP_TRIGGERED),
        R::BelowFilled { .. } => (Kind::Precondition, Reason::BELOW_FILLED),
        R::Book(reason) => return of_book(*reason, refused),
        R::CurrencyMismatch { .. } => (Kind::Invalid, Reason::CURRENCY_MISMATCH),
        R::AmountOutOfRange { .. } => (Kind::Invalid, Reason::AMOUNT_OUT_OF_RANGE),
        R::DepositsOfDay { .. } => (Kind::Precondition, Reason::DEPOSITS_OF_DAY),
        R::AccountFull { .. } => (Kind::Precondition, Reason::ACCOUNT_FULL),
        R::ExchangeFull => (Kind::Precondition, Reason::EXCHANGE_FULL),
        R::AmountTooSmall => (Kind::Invalid, Reason::AMOUNT_TOO_SMALL),
        R::AmountTooLarge => (Kind::Invalid, Reason::AMOUNT_TOO_LARGE),
        R::SameAccount => (Kind::Invalid, Reason::SAME_ACCOUNT),
        R::EndowmentOutOfRange { .. } => (Kind::Invalid, Reason::ENDOWMENT_OUT_OF_RANGE),
        R::NothingToSell(_) => (Kind::Precondition, Reason::NOTHING_TO_SELL),
        R::NoRate => (Kind::Precondition, Reason::CURRENCY_UNKNOWN),
        R::TermsOutOfRange(_) | R::InstrumentMalformed(_) => (Kind::Invalid, Reason::COMMAND_MALFORMED),
        R::RateTooFar => (Kind::Precondition, Reason::EXCHANGE_FULL),
    };
    Refusal::new(kind, reason, refused.sentence())
}

/// The book's own word: what ends orders has a sentence, which an answer gives too.
fn of_book(reason: BookReason, refused: &Refused) -> Refusal {
    let code = book_reason(reason);
    let ends = matches!(
        reason,
        BookReason::NoLiquidity | BookReason::Collar | BookReason::SelfTrade | BookReason::ImmediateRemainder
    );
    let sentence =
        if ends { end_sentence(v1::OrderState::Canceled, code.as_str()) } else { refused.sentence() };
    Refusal::new(Kind::Precondition, code, sentence)
}

fn reused(scope: Scope, key: &str) -> Refusal {
    match scope {
        Scope::Order => {
            let message =
                format!("client_order_id {key:?} was used for another order; it is unique for ever");
            Refusal::exists(Reason::CLIENT_ORDER_ID_REUSED, message)
        }
        Scope::Money => {
            let message = format!("idempotency key {key:?} was used for another request");
            Refusal::exists(Reason::IDEMPOTENCY_KEY_REUSED, message)
        }
    }
}

/// The refusal as an answer says it.
pub fn message(refusal: Refusal) -> v1::Refused {
    v1::Refused {
        code: Code::from(refusal.kind) as u32,
        reason: refusal.reason.as_str().to_owned(),
        message: refusal.message,
        order: None,
    }
}

/// What the book's own word is on the wire.
pub fn book_reason(reason: BookReason) -> Reason {
    match reason {
        BookReason::Requested | BookReason::MassCancel => Reason::USER,
        BookReason::SelfTrade => Reason::SELF_TRADE,
        BookReason::ImmediateRemainder => Reason::IOC,
        BookReason::CannotFillWhole => Reason::FOK,
        BookReason::Collar => Reason::COLLAR,
        BookReason::NoLiquidity => Reason::NO_LIQUIDITY,
        BookReason::DayEnd => Reason::DAY_END,
        BookReason::ExpireTime => Reason::GTD,
        BookReason::VolatilityPause => Reason::VOLATILITY_PAUSE,
        BookReason::AuctionEnd => Reason::AUCTION_END,
        BookReason::Halted => Reason::SYMBOL_HALTED,
        BookReason::NotHalted => Reason::NOT_HALTED,
        BookReason::BadOrderId => Reason::BAD_ORDER_ID,
        BookReason::BadQuantity => Reason::BAD_QUANTITY,
        BookReason::BadPrice => Reason::BAD_PRICE,
        BookReason::BadStopPrice => Reason::BAD_STOP_PRICE,
        BookReason::BadTrail => Reason::BAD_TRAIL,
        BookReason::BadDisplay => Reason::BAD_DISPLAY,
        BookReason::BadTimeInForce => Reason::BAD_TIME_IN_FORCE,
        BookReason::BadCombination => Reason::BAD_COMBINATION,
        BookReason::BadExpireTime => Reason::BAD_EXPIRE_TIME,
        BookReason::NoReferencePrice => Reason::NO_REFERENCE_PRICE,
        BookReason::WouldTrade => Reason::POST_ONLY_WOULD_CROSS,
        BookReason::BookFull => Reason::BOOK_FULL,
        BookReason::UnknownOrder => Reason::ORDER_NOT_OPEN,
        BookReason::BelowFilled => Reason::BELOW_FILLED,
        BookReason::NotReplaceable => Reason::NOT_REPLACEABLE,
        BookReason::WrongPhase => Reason::WRONG_PHASE,
        BookReason::SamePhase => Reason::SAME_PHASE,
        BookReason::BadBand => Reason::BAD_BAND,
        BookReason::StopWrongSide => Reason::STOP_WRONG_SIDE,
    }
}
