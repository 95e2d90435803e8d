//! The report of an account, as portfolio-service makes it: the source of `fafnir report` too.

use super::{
    Needs,
    enums::{Side, given},
    error, of,
    performance::{Gains, Performance},
    query::{first_of, id_of},
    rows::Rows,
    scalars::{DateTime, Decimal, Uuid},
    statement::StatementEntry,
    types::{Outcome, optional},
};
use crate::session::Permission::*;
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_proto::v1;
use tonic::Status;

/// Lines of a page that does not say how many.
const LINES_DEFAULT: i32 = 1_000;

/// A trade of an account: its principal and its fees, in the account's currency.
#[derive(SimpleObject, Clone, Debug)]
pub struct ReportTrade {
    /// SYMBOL:sequence.
    pub exec_id: String,
    /// When it happened.
    pub time: DateTime,
    /// What the account did.
    pub side: Side,
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Shares, to four decimals.
    pub quantity: Decimal,
    /// In the listing's currency.
    pub price: Decimal,
    /// In the account's currency, above 0, at most two decimals.
    pub amount: Decimal,
    /// What the trade cost beside.
    pub fee: Decimal,
    /// The order's id.
    pub order_id: Option<Uuid>,
}

/// How an account went in a span of time: all figures from one state of the books.
#[derive(SimpleObject, Clone, Debug)]
pub struct Report {
    /// The account's id.
    pub account_id: Uuid,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// The first moment.
    pub from: DateTime,
    /// The moment after the last.
    pub to: DateTime,
    /// Equity curve, returns, flows in all.
    pub performance: Performance,
    /// Open and closed positions, fees, and their totals.
    pub gains: Gains,
    /// Cash, of the whole span, whatever the page.
    pub opening_balance: Decimal,
    /// Cash at the end.
    pub closing_balance: Decimal,
    /// Of the page, oldest first.
    pub trades: Rows<ReportTrade>,
    /// What came and went without a trade, of the page, oldest first.
    pub flows: Rows<StatementEntry>,
    /// Hand it back as `after`, with the same span, for the next page.
    pub end_cursor: Option<String>,
    /// There are more.
    pub has_more: bool,
}

/// The report of an account.
#[derive(SimpleObject, Clone, Debug)]
pub struct ReportResponse {
    /// The answer; null where it was refused.
    pub data: Option<Report>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::ReportReply> for Report {
    fn from(r: v1::ReportReply) -> Self {
        let trades = r.trades.into_iter().map(|t| ReportTrade {
            side: given(t.side().known()),
            exec_id: t.exec_id,
            time: DateTime::of(t.time_us),
            symbol: t.symbol,
            quantity: Decimal::e4(t.quantity_e4),
            price: Decimal::e4(t.price_e4),
            amount: Decimal::micros(t.amount_micros),
            fee: Decimal::micros(t.fee_micros),
            order_id: Uuid::optional(t.order_id),
        });
        Self {
            account_id: Uuid(r.account_id),
            currency: r.currency,
            from: DateTime::of(r.from_us),
            to: DateTime::of(r.to_us),
            performance: r.performance.unwrap_or_default().into(),
            gains: r.gains.unwrap_or_default().into(),
            opening_balance: Decimal::micros(r.opening_micros),
            closing_balance: Decimal::micros(r.closing_micros),
            trades: trades.collect(),
            flows: r.flows.into_iter().map(StatementEntry::from).collect(),
            end_cursor: optional(r.end_id),
            has_more: r.more,
        }
    }
}

#[derive(Default)]
pub struct Reports;

#[Object]
impl Reports {
    /// How an account of the caller went, closed or not: equity, returns, positions, trades, flows, fees.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is an argument of the field; the macro may split them off"
    )]
    async fn report(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the account's id")] account_id: Uuid,
        #[graphql(desc = "as of portfolioPerformance")] period: Option<String>,
        #[graphql(desc = "a day or a moment instead of a period")] from: Option<String>,
        #[graphql(desc = "a day, included, or a moment, excluded; now when left out")] to: Option<String>,
        #[graphql(desc = "of the points: 1m 5m 15m 1h 1d; 1d when left out")] interval: Option<String>,
        #[graphql(
            desc = "lines of a statement that a page is made of, at most 1000, and so many when left out"
        )]
        first: Option<i32>,
        #[graphql(desc = "endCursor of the page before")] after: Option<String>,
    ) -> Result<ReportResponse> {
        let (gateway, session) = of(ctx)?;
        let limit = first_of(first.or(Some(LINES_DEFAULT)))? as u32;
        let data = ctx.look_ahead().field("data");
        let asked = async {
            let request = v1::ReportRequest {
                user_id: session.user.to_string(),
                account_id: session.own_account(Some(&account_id.0))?,
                period: period.unwrap_or_default(),
                from,
                to,
                interval: interval.unwrap_or_default(),
                limit,
                after_id: after.map(|id| id_of("after", &id)).transpose()?.unwrap_or_default(),
                lines_only: !data.field("performance").exists() && !data.field("gains").exists(),
            };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.report(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(ReportResponse { data: reply.map(Into::into), outcome })
    }
}
