//! The statement of an account, as portfolio-service makes it.

use super::{
    Needs, error, of,
    query::{first_of, id_of},
    rows::Rows,
    scalars::{DateTime, Decimal, Uuid},
    types::{Outcome, Transaction},
};
use crate::session::Permission::*;
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::clock::date;
use fafnir_proto::v1;
use tonic::Status;

/// Entries of a page that does not say how many.
const ENTRIES_DEFAULT: i32 = 1_000;

/// A transaction with the balance after it.
#[derive(SimpleObject, Clone, Debug)]
pub struct StatementEntry {
    /// The transaction.
    pub transaction: Transaction,
    /// What the transaction added to the cash; negative when it took.
    pub change: Decimal,
    /// The balance after it.
    pub balance: Decimal,
    /// Of a trade, and of shares that came or went without one.
    pub symbol: Option<String>,
    /// Shares that the account gained, negative when it lost them; 0 on the line of a fee.
    pub quantity: Decimal,
    /// Of a trade, in the listing's currency; else 0.
    pub price: Decimal,
    /// SYMBOL:sequence of a trade.
    pub exec_id: Option<String>,
}

/// Every movement of an account's cash in a period.
#[derive(SimpleObject, Clone, Debug)]
pub struct Statement {
    /// The account's id.
    pub account_id: Uuid,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// First and last day, UTC, both included.
    pub from: String,
    /// Its end, YYYY-MM-DD or RFC 3339.
    pub to: String,
    /// The first moment.
    pub from_time: DateTime,
    /// The moment after the last.
    pub to_time: DateTime,
    /// Of the whole span, whatever the page.
    pub opening_balance: Decimal,
    /// Cash at the end.
    pub closing_balance: Decimal,
    /// Oldest first.
    pub entries: Rows<StatementEntry>,
    /// Hand it back as `after` for the next page.
    pub end_cursor: Option<String>,
    /// There are more.
    pub has_more: bool,
}

/// The statement of an account.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(complex)]
pub struct StatementConnection {
    /// The answer; null where it was refused.
    pub data: Option<Statement>,
    /// The page follows another one.
    #[graphql(skip)]
    pub has_before: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::StatementEntry> for StatementEntry {
    fn from(e: v1::StatementEntry) -> Self {
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        Self {
            transaction: e.transaction.unwrap_or_default().into(),
            change: Decimal::micros(e.change_micros),
            balance: Decimal::micros(e.balance_micros),
            symbol: some(e.symbol),
            quantity: Decimal::e4(e.quantity_e4),
            price: Decimal::e4(e.price_e4),
            exec_id: some(e.exec_id),
        }
    }
}

impl From<v1::StatementReply> for Statement {
    fn from(r: v1::StatementReply) -> Self {
        let end_cursor = r.entries.last().and_then(|e| e.transaction.as_ref()).map(|t| t.id.clone());
        let entries = r.entries.into_iter().map(StatementEntry::from);
        Self {
            account_id: Uuid(r.account_id),
            currency: r.currency,
            from: date(r.from_us),
            to: date(r.to_us - 1),
            from_time: DateTime::of(r.from_us),
            to_time: DateTime::of(r.to_us),
            opening_balance: Decimal::micros(r.opening_micros),
            closing_balance: Decimal::micros(r.closing_micros),
            entries: entries.collect(),
            end_cursor,
            has_more: r.more,
        }
    }
}

#[derive(Default)]
pub struct Statements;

#[Object]
impl Statements {
    /// What moved the cash of an account of the caller, closed or not, oldest first.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn statement(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the account's id")] account_id: Uuid,
        #[graphql(desc = "a day (YYYY-MM-DD, UTC) or a moment (RFC 3339); 30 days when left out")]
        from: Option<String>,
        #[graphql(desc = "a day, included, or a moment, excluded; now when left out")] to: Option<String>,
        #[graphql(desc = "at most 1000, and so many when left out")] first: Option<i32>,
        #[graphql(desc = "a transaction's id: only later ones")] after: Option<String>,
    ) -> Result<StatementConnection> {
        let (gateway, session) = of(ctx)?;
        let (limit, has_before) = (first_of(first.or(Some(ENTRIES_DEFAULT)))? as u32, after.is_some());
        let asked = async {
            let request = v1::StatementRequest {
                user_id: session.user.to_string(),
                account_id: session.own_account(Some(&account_id.0))?,
                from,
                to,
                limit,
                after_id: after.map(|id| id_of("after", &id)).transpose()?.unwrap_or_default(),
            };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.statement(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(StatementConnection { data: reply.map(Into::into), has_before, outcome })
    }
}
