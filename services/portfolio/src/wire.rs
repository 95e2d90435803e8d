//! The domain as messages of the contract, and the ids that are derived from ledger keys.

use super::{
    domain::{
        Account, Balance, Currency,
        gains::{Lot, Lots, Traded},
        ledger::Cause,
        performance::{Performance, Point},
        period::{Period, Span},
        report,
        statement::{Entry, Line},
        valuation::Worth,
    },
    reports::Gains,
};
use fafnir_proto::v1;
use fafnir_rules::money::{format_e4, format_fixed};
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

fn exec_id(symbol: &str, exec_seq: i64) -> String {
    format!("{symbol}:{exec_seq}")
}

fn entry(account: &Account, e: &Entry) -> v1::StatementEntry {
    let is_trade = e.line.cause == Cause::Trade;
    v1::StatementEntry {
        transaction: Some(transaction(account, &e.line)),
        change_micros: e.change,
        balance_micros: e.balance,
        symbol: if is_trade || e.line.shares != 0 { e.line.symbol.clone() } else { String::new() },
        quantity_e4: if e.line.fee { 0 } else { e.line.shares },
        price_e4: e.line.price_e4,
        exec_id: if is_trade { exec_id(&e.line.symbol, e.line.exec_seq) } else { String::new() },
    }
}

/// The statement of an account; opening and closing balance are those of the span.
pub fn statement(
    account: &Account,
    span: Span,
    (opening, closing): (i64, i64),
    entries: &[Entry],
    more: bool,
) -> v1::StatementReply {
    let entries = entries.iter().map(|e| entry(account, e));
    v1::StatementReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        from_us: span.from_us,
        to_us: span.to_us,
        opening_micros: opening,
        closing_micros: closing,
        entries: entries.collect(),
        more,
    }
}

/// A page of a report, up to the line `end`, without its figures.
pub fn report(
    account: &Account,
    span: Span,
    (opening, closing): (i64, i64),
    (trades, flows): (&[report::Trade], &[Entry]),
    end: Option<i64>,
) -> v1::ReportReply {
    let trades = trades.iter().map(|trade| v1::ReportTrade {
        exec_id: exec_id(&trade.symbol, trade.exec_seq),
        time_us: trade.time_us,
        side: if trade.shares > 0 { v1::Side::Buy } else { v1::Side::Sell }.into(),
        symbol: trade.symbol.clone(),
        quantity_e4: trade.shares.saturating_abs(),
        price_e4: trade.price_e4,
        amount_micros: trade.amount,
        fee_micros: trade.fee,
        order_id: trade.order.map(|id| id.to_string()).unwrap_or_default(),
    });
    v1::ReportReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        from_us: span.from_us,
        to_us: span.to_us,
        opening_micros: opening,
        closing_micros: closing,
        trades: trades.collect(),
        flows: flows.iter().map(|flow| entry(account, flow)).collect(),
        end_id: end.map(|id| transaction_id(id).to_string()).unwrap_or_default(),
        ..v1::ReportReply::default()
    }
}

/// How the worth of an account went.
pub fn performance(
    account: &Account,
    period: Period,
    span: Span,
    p: &Performance,
    points: &[Point],
) -> v1::PerformanceReply {
    let points = points.iter().map(|point| v1::PerformancePoint {
        from_us: point.from_us,
        until_us: point.until_us,
        cash_micros: point.cash,
        holdings_micros: point.shares,
        value_micros: point.value(),
    });
    v1::PerformanceReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        period: period.name.to_owned(),
        from_us: span.from_us,
        to_us: span.to_us,
        start_micros: p.start,
        end_micros: p.end,
        inflows_micros: p.inflows,
        outflows_micros: p.outflows,
        net_flows_micros: p.inflows.saturating_sub(p.outflows),
        gain_micros: p.gain,
        gain_percent_e4: p.gain_percent_e4,
        time_weighted_percent_e4: p.time_weighted_percent_e4,
        money_weighted_percent_e4: p.money_weighted_percent_e4,
        points: points.collect(),
    }
}

/// The largest that fits, where an amount is beyond 64 bits.
fn narrow(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

fn symbol_gains(g: &Gains) -> v1::SymbolGains {
    let unrealized = if g.price_e4 == 0 { 0 } else { g.value - g.cost };
    v1::SymbolGains {
        symbol: g.symbol.clone(),
        bought_e4: narrow(g.traded.bought),
        paid_micros: narrow(g.traded.paid),
        sold_e4: narrow(g.traded.sold),
        proceeds_micros: narrow(g.traded.proceeds),
        cost_micros: narrow(g.traded.cost),
        realized_micros: narrow(g.traded.realized()),
        fifo_realized_micros: narrow(g.realized_fifo),
        fees_micros: narrow(g.traded.fees),
        trades: u64::try_from(g.traded.trades).unwrap_or(0),
        quantity_e4: g.quantity,
        held_cost_micros: narrow(g.cost),
        held_fifo_cost_micros: narrow(g.cost_fifo),
        price_e4: g.price_e4,
        value_micros: narrow(g.value),
        unrealized_micros: narrow(unrealized),
    }
}

/// What an account traded and gained.
pub fn gains(account: &Account, span: Span, gains: Vec<Gains>) -> v1::GainsReply {
    let symbols: Vec<v1::SymbolGains> = gains.iter().map(symbol_gains).collect();
    let traded = gains.iter().fold(Traded::default(), |sum, g| sum + g.traded);
    let sum = |of: fn(&Gains) -> i128| gains.iter().map(of).fold(0i128, i128::saturating_add);
    let total = Gains {
        traded,
        realized_fifo: sum(|g| g.realized_fifo),
        cost: sum(|g| g.cost),
        cost_fifo: sum(|g| g.cost_fifo),
        value: sum(|g| g.value),
        ..Gains::default()
    };
    let unrealized = symbols.iter().map(|s| i128::from(s.unrealized_micros)).sum();
    let total = v1::SymbolGains {
        bought_e4: 0,
        sold_e4: 0,
        unrealized_micros: narrow(unrealized),
        ..symbol_gains(&total)
    };
    v1::GainsReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        from_us: span.from_us,
        to_us: span.to_us,
        symbols,
        total: Some(total),
    }
}

/// A page of lots, each with what is left of it.
pub fn lots(account: &Account, symbol: &str, all: &Lots, page: &[(Lot, i64)], more: bool) -> v1::LotsReply {
    let lots = page.iter().map(|(lot, left)| v1::Lot {
        id: transaction_id(lot.id).to_string(),
        acquired_us: lot.time_us,
        reference_id: lot.reference.map(|id| id.to_string()).unwrap_or_default(),
        quantity_e4: lot.quantity,
        left_e4: *left,
        cost_micros: lot.cost_of(*left),
    });
    v1::LotsReply {
        account_id: account.id.to_string(),
        currency: account.currency.code().to_owned(),
        symbol: symbol.to_owned(),
        quantity_e4: all.quantity,
        cost_micros: narrow(all.cost),
        count: all.count,
        lots: lots.collect(),
        more,
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
