//! The domain as messages of the contract, and the ids that are derived from ledger keys.

use super::domain::{
    Account, Balance, Currency,
    ledger::Cause,
    performance::{Performance, Period},
    statement::{Line, Span, Statement},
    valuation::Worth,
};
use fafnir_proto::v1;
use fafnir_rules::money::{format_e4, format_fixed, percent_e4};
use uuid::Uuid;

/// First bytes of the ids of transactions.
const TRANSACTION_TAG: [u8; 4] = *b"ledg";
/// Bytes of an id that carry the key: 48 bits.
const KEY_BYTES: std::ops::Range<usize> = 10..16;

/// The public id of a posting.
pub fn transaction_id(posting: i64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&TRANSACTION_TAG);
    bytes[KEY_BYTES].copy_from_slice(&posting.to_be_bytes()[2..]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The posting that a public id names.
pub fn posting_of(id: &Uuid) -> Option<i64> {
    let bytes = id.as_bytes();
    let mut key = [0; 8];
    key[2..].copy_from_slice(&bytes[KEY_BYTES]);
    let posting = i64::from_be_bytes(key);
    (transaction_id(posting) == *id).then_some(posting)
}

/// An account with its cash.
pub fn account(account: &Account, cash: &Balance) -> v1::Account {
    v1::Account {
        id: account.id.to_string(),
        user_id: account.user.to_string(),
        account_number: account.number.clone(),
        r#type: account.kind,
        currency: account.currency.code().to_owned(),
        balance_micros: cash.posted,
        held_micros: cash.held,
        available_micros: cash.available(),
        created_us: account.created_us,
        updated_us: account.updated_us.max(cash.updated_us),
        closed: account.closed,
    }
}

/// Shares of an account.
pub fn holding(account: &Account, symbol: &str, shares: &Balance) -> v1::Holding {
    v1::Holding {
        id: shares.id.map(|id| id.to_string()).unwrap_or_default(),
        account_id: account.id.to_string(),
        symbol: symbol.to_owned(),
        quantity_e4: shares.posted,
        held_e4: shares.held,
        available_e4: shares.available(),
        cost_micros: shares.cost,
        avg_cost_micros: shares.average_cost(),
        realized_pnl_micros: shares.realized,
        created_us: shares.created_us,
        updated_us: shares.updated_us,
        currency: account.currency.code().to_owned(),
    }
}

/// A line of an account's statement.
pub fn transaction(account: &Account, line: &Line) -> v1::Transaction {
    use v1::TransactionType as Type;
    let shares = format_e4(line.shares.saturating_abs());
    let price = format_fixed(line.price_e4, 4, 2);
    let is_cash = line.asset == account.currency.asset();
    let (kind, description) = match line.cause {
        Cause::Trade if line.fee => (Type::Fee, format!("Fee for {shares} {} at {price}", line.symbol)),
        Cause::Trade if line.amount < 0 => (Type::Buy, format!("Bought {shares} {} at {price}", line.symbol)),
        Cause::Trade => (Type::Sell, format!("Sold {shares} {} at {price}", line.symbol)),
        Cause::Opening => (Type::Deposit, "Opening deposit".to_owned()),
        Cause::Deposit => (Type::Deposit, "Deposit".to_owned()),
        Cause::Endowment if is_cash => (Type::Deposit, "Endowment".to_owned()),
        Cause::Endowment => (Type::TransferIn, format!("Received {shares} {}", line.symbol)),
        Cause::Transfer if line.amount < 0 => (Type::TransferOut, "Transfer out".to_owned()),
        Cause::Transfer => (Type::TransferIn, "Transfer in".to_owned()),
        Cause::Withdrawal => (Type::TransferOut, "Withdrawal".to_owned()),
        Cause::Closing if is_cash => (Type::TransferOut, "Account closed".to_owned()),
        Cause::Closing => (Type::TransferOut, format!("Account closed: {shares} {}", line.symbol)),
    };
    v1::Transaction {
        id: transaction_id(line.id).to_string(),
        account_id: account.id.to_string(),
        r#type: kind.into(),
        // Shares that moved without a trade move no money.
        amount_micros: if is_cash { line.amount.saturating_abs() } else { 0 },
        description,
        reference_id: line.reference.map(|id| id.to_string()).unwrap_or_default(),
        created_us: line.time_us,
    }
}

/// The currency of a holding's account.
pub fn currency_of(holding: &v1::Holding) -> Option<Currency> {
    Currency::parse(&holding.currency)
}

/// A holding with what it is worth at a price.
pub fn valued(holding: v1::Holding, market_price_e4: i64, worth: Worth) -> v1::ValuedHolding {
    v1::ValuedHolding {
        holding: Some(holding),
        market_price_e4,
        market_value_micros: worth.value_micros,
        unrealized_pnl_micros: worth.unrealized_micros,
    }
}

/// The statement of an account.
pub fn statement(account: &Account, span: Span, s: &Statement) -> v1::StatementReply {
    let entries = s.entries.iter().map(|e| v1::StatementEntry {
        transaction: Some(transaction(account, &e.line)),
        change_micros: e.change,
        balance_micros: e.balance,
    });
    v1::StatementReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        from_us: span.from_us,
        to_us: span.to_us,
        opening_micros: s.opening,
        closing_micros: s.closing,
        entries: entries.collect(),
    }
}

/// How the value of an account went.
pub fn performance(account: &Account, period: Period, p: &Performance) -> v1::PerformanceReply {
    let points = p.points.iter().map(|point| v1::PerformancePoint {
        day_us: point.day_us,
        cash_micros: point.cash,
        holdings_micros: point.shares,
        value_micros: point.value(),
    });
    v1::PerformanceReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        period: period.name.to_owned(),
        start_micros: p.start,
        end_micros: p.end,
        net_flows_micros: p.net_flows,
        gain_micros: p.gain,
        gain_percent_e4: percent_e4(p.gain, p.start.saturating_add(p.net_flows)),
        points: points.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_transaction_names_its_posting() {
        for posting in [0, 1, 16, 4_711, (1 << 48) - 1] {
            assert_eq!(posting_of(&transaction_id(posting)), Some(posting));
        }
        assert_eq!(posting_of(&Uuid::nil()), None);
    }
}
