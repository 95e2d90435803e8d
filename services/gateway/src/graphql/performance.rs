//! How the value of an account went, as portfolio-service reckons it.

use super::{Needs, error, of, query::id_of, scalars::Decimal, types::Outcome};
use crate::session::Permission::*;
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::clock::date;
use fafnir_proto::v1;
use tonic::Status;

#[derive(SimpleObject, Clone, Debug, PartialEq, Eq)]
pub struct PerformancePoint {
    pub date: String,
    /// Cash and shares at the end of the day, in the account's currency.
    pub value: Decimal,
    pub cash: Decimal,
    pub holdings: Decimal,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct Performance {
    pub account_id: String,
    pub currency: String,
    pub period: String,
    pub start_value: Decimal,
    pub end_value: Decimal,
    /// Deposits and transfers in, less transfers out, after the first day.
    pub net_flows: Decimal,
    /// What the value grew by beyond the flows.
    pub gain: Decimal,
    /// Of the start value and the flows; 1.25 is 1.25 %.
    pub gain_percent: Decimal,
    /// One for each day, ascending.
    pub points: Vec<PerformancePoint>,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct PerformanceResponse {
    pub data: Option<Performance>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::PerformanceReply> for Performance {
    fn from(r: v1::PerformanceReply) -> Self {
        let points = r.points.into_iter().map(|p| PerformancePoint {
            date: date(p.day_us),
            value: Decimal::micros(p.value_micros),
            cash: Decimal::micros(p.cash_micros),
            holdings: Decimal::micros(p.holdings_micros),
        });
        Self {
            account_id: r.account_id,
            currency: r.currency,
            period: r.period,
            start_value: Decimal::micros(r.start_micros),
            end_value: Decimal::micros(r.end_micros),
            net_flows: Decimal::micros(r.net_flows_micros),
            gain: Decimal::micros(r.gain_micros),
            gain_percent: Decimal::e4(r.gain_percent_e4),
            points: points.collect(),
        }
    }
}

#[derive(Default)]
pub struct Performances;

#[Object]
impl Performances {
    /// How the value of an account of the caller went; periods 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX in any case.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn portfolio_performance(
        &self,
        ctx: &Context<'_>,
        account_id: String,
        period: Option<String>,
    ) -> Result<PerformanceResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::PerformanceRequest {
                user_id: session.user.to_string(),
                account_id: id_of("accountId", &account_id)?,
                period: period.unwrap_or_else(|| "1M".to_owned()),
            };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.performance(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(PerformanceResponse { data: reply.map(Performance::from), outcome })
    }
}
