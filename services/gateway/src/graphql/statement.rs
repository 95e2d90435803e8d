//! The statement of an account: what moved its cash between two days, with the balance after each row.

use super::{Needs, error, of, query::id_of, scalars::Decimal, types::Transaction};
use crate::{
    Gateway,
    session::{Permission::*, Session},
};
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::{
    Refusal,
    clock::{DAY_US, SECOND_US, date},
};
use fafnir_proto::v1;
use time::{Date, format_description::well_known::Iso8601};
use tonic::Status;

/// Rows that are read back; a longer way back is refused.
const ROWS_MAX: usize = 5_000;
/// Days of a statement without `from`.
const DAYS_DEFAULT: i64 = 30;
/// Tries to read balance and rows at one moment.
const TRIES_MAX: usize = 5;

#[derive(SimpleObject, Clone, Debug)]
pub struct StatementEntry {
    pub transaction: Transaction,
    /// What the transaction added to the cash; negative when it took.
    pub change: Decimal,
    /// The balance after it.
    pub balance: Decimal,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct Statement {
    pub account_id: String,
    pub currency: String,
    /// First and last day, UTC, both included.
    pub from: String,
    pub to: String,
    pub opening_balance: Decimal,
    pub closing_balance: Decimal,
    /// Oldest first.
    pub entries: Vec<StatementEntry>,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct StatementResponse {
    pub data: Option<Statement>,
    pub code: String,
}

/// What a transaction did to the cash of its account.
pub fn signed(t: &v1::Transaction) -> i64 {
    use v1::TransactionType::*;
    match t.r#type() {
        Deposit | Sell | TransferIn => t.amount_micros,
        Buy | TransferOut | Fee => -t.amount_micros,
        Unspecified => 0,
    }
}

fn day_of(field: &str, text: &str) -> std::result::Result<i64, Status> {
    let day = Date::parse(text.trim(), &Iso8601::DATE).map_err(|_| {
        Status::from(Refusal::invalid("DATE_MALFORMED", format!("{field} must be a date, YYYY-MM-DD")))
    })?;
    Ok(day.midnight().assume_utc().unix_timestamp() * SECOND_US)
}

/// The statement that a balance now and the rows since `from_us`, newest first, amount to.
fn build(account: &v1::Account, rows: &[v1::Transaction], from_us: i64, to_us: i64) -> Option<Statement> {
    let mut balance = account.balance_micros;
    let mut entries = Vec::new();
    let mut closing = balance;
    for row in rows {
        let change = signed(row);
        let after = row.created_us >= to_us;
        if row.created_us < from_us {
            break;
        }
        if !after {
            entries.push(StatementEntry {
                transaction: row.clone().into(),
                change: Decimal::micros(change),
                balance: Decimal::micros(balance),
            });
        }
        balance = balance.checked_sub(change)?;
        if after {
            closing = balance;
        }
    }
    entries.reverse();
    Some(Statement {
        account_id: account.id.clone(),
        currency: account.currency.clone(),
        from: date(from_us),
        to: date(to_us - 1),
        opening_balance: Decimal::micros(balance),
        closing_balance: Decimal::micros(closing),
        entries,
    })
}

#[derive(Default)]
pub struct Statements;

#[Object]
impl Statements {
    /// What moved the cash of an account of the caller; days are UTC and both included. Without `from` the last 30
    /// days, without `to` until today.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn statement(
        &self,
        ctx: &Context<'_>,
        account_id: String,
        from: Option<String>,
        to: Option<String>,
    ) -> Result<StatementResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let account_id = id_of("accountId", &account_id)?;
            let today = gateway.ctx.clock.now_us().div_euclid(DAY_US) * DAY_US;
            let last = to.map_or(Ok(today), |t| day_of("to", &t))?;
            let first = from.map_or(Ok(last - (DAYS_DEFAULT - 1) * DAY_US), |t| day_of("from", &t))?;
            if first > last {
                return Err(Refusal::invalid("PERIOD_EMPTY", "from must not be after to").into());
            }
            gateway.statement(session, &account_id, first, last + DAY_US).await
        };
        let (data, code) = error::outcome(asked.await)?;
        Ok(StatementResponse { data, code })
    }
}

impl Gateway {
    pub async fn account(&self, session: &Session, id: &str) -> std::result::Result<v1::Account, Status> {
        let found = self.accounts(session).await?.into_iter().find(|a| a.id == id);
        found.ok_or_else(|| Refusal::not_found("ACCOUNT_NOT_FOUND", "no such account").into())
    }

    async fn statement(
        &self,
        session: &Session,
        id: &str,
        from_us: i64,
        to_us: i64,
    ) -> std::result::Result<Statement, Status> {
        let mut account = self.account(session, id).await?;
        for _ in 0..TRIES_MAX {
            let rows = self.transactions_since(session, id, from_us).await?;
            // Balance and rows are two questions: they belong together when the balance is the same before and after.
            let again = self.account(session, id).await?;
            if again.balance_micros == account.balance_micros && again.updated_us == account.updated_us {
                let built = build(&account, &rows, from_us, to_us);
                return built.ok_or_else(|| Status::internal("a statement beyond 64 bits"));
            }
            account = again;
        }
        Err(Status::unavailable("the account moves too fast"))
    }

    pub async fn transactions_since(
        &self,
        session: &Session,
        id: &str,
        from_us: i64,
    ) -> std::result::Result<Vec<v1::Transaction>, Status> {
        let mut rows: Vec<v1::Transaction> = Vec::new();
        loop {
            let before = rows.last().map(|t| t.id.clone()).unwrap_or_default();
            let wanted = super::query::PAGE as usize;
            let page = self.transactions(session, id, before, wanted).await?;
            let is_last = page.len() < wanted || page.last().is_some_and(|t| t.created_us < from_us);
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
            if rows.len() >= ROWS_MAX {
                let text =
                    format!("the period is more than {ROWS_MAX} transactions back; choose a later from");
                return Err(Refusal::exhausted("STATEMENT_TOO_LONG", text).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_adds_up_from_opening_to_closing() {
        let row = |day: i64, kind: v1::TransactionType, amount_micros| v1::Transaction {
            created_us: day * DAY_US,
            r#type: kind.into(),
            amount_micros,
            ..Default::default()
        };
        use v1::TransactionType::*;
        // Newest first: 500 − 120 − 1 + 50 = 429 now.
        let rows = [row(9, Deposit, 50), row(5, Fee, 1), row(4, Buy, 120), row(1, Deposit, 500)];
        let account = v1::Account { balance_micros: 429, ..Default::default() };
        let statement = build(&account, &rows, 2 * DAY_US, 6 * DAY_US).unwrap();
        assert_eq!(statement.opening_balance, Decimal::micros(500));
        assert_eq!(statement.closing_balance, Decimal::micros(379));
        let balances: Vec<_> = statement.entries.iter().map(|e| e.balance).collect();
        assert_eq!(balances, [Decimal::micros(380), Decimal::micros(379)]);
        assert_eq!((statement.from.as_str(), statement.to.as_str()), ("1970-01-03", "1970-01-06"));
        let nothing = build(&account, &rows, 20 * DAY_US, 21 * DAY_US).unwrap();
        assert_eq!(
            (nothing.opening_balance, nothing.closing_balance),
            (Decimal::micros(429), Decimal::micros(429))
        );
        assert!(day_of("from", "2026-02-30").is_err());
        assert_eq!(day_of("from", "1970-01-02").unwrap(), DAY_US);
    }
}
