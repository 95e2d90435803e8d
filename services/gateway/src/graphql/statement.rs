//! The statement of an account, as portfolio-service makes it.

use super::{
    Needs, error, of,
    query::id_of,
    scalars::Decimal,
    types::{Outcome, Transaction},
};
use crate::session::Permission::*;
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::clock::date;
use fafnir_proto::v1;
use tonic::Status;

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
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::StatementReply> for Statement {
    fn from(r: v1::StatementReply) -> Self {
        let entries = r.entries.into_iter().map(|e| StatementEntry {
            transaction: e.transaction.unwrap_or_default().into(),
            change: Decimal::micros(e.change_micros),
            balance: Decimal::micros(e.balance_micros),
        });
        Self {
            account_id: r.account_id,
            currency: r.currency,
            from: date(r.from_us),
            to: date(r.to_us - 1),
            opening_balance: Decimal::micros(r.opening_micros),
            closing_balance: Decimal::micros(r.closing_micros),
            entries: entries.collect(),
        }
    }
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
            let request = v1::StatementRequest { user_id: session.user.to_string(), account_id, from, to };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.statement(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(StatementResponse { data: reply.map(Into::into), outcome })
    }
}
