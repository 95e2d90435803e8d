//! How an account went, what it gained and the lots of its shares, as portfolio-service reckons them.

use super::{
    Needs, error, of,
    query::{first_of, id_of},
    rows::Rows,
    scalars::{DateTime, Decimal, Int64, Uuid},
    types::{Outcome, optional},
};
use crate::{market, session::Permission::*};
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::clock::date;
use fafnir_proto::v1;
use tonic::Status;

/// The worth of an account at the end of an interval.
#[derive(SimpleObject, Clone, Debug, PartialEq, Eq)]
pub struct PerformancePoint {
    /// The day on which the interval begins.
    pub date: String,
    /// The moment after the interval: the amounts are those before it.
    pub until: DateTime,
    /// Cash and shares, in the account's currency.
    pub value: Decimal,
    /// Cash.
    pub cash: Decimal,
    /// What the shares are worth.
    pub holdings: Decimal,
}

/// How the worth of an account went over a span of time, in its currency.
#[derive(SimpleObject, Clone, Debug)]
pub struct Performance {
    /// The account's id.
    pub account_id: Uuid,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// The named period; where `from` was given, of no meaning.
    pub period: String,
    /// The first moment.
    pub from: DateTime,
    /// The moment after the last.
    pub to: DateTime,
    /// The worth before the first moment: 0 for an account that was opened within the span.
    pub start_value: Decimal,
    /// Worth at the end.
    pub end_value: Decimal,
    /// What came in without a trade, cash and shares at their price, less what went.
    pub net_flows: Decimal,
    /// What came in from outside.
    pub inflows: Decimal,
    /// What went out.
    pub outflows: Decimal,
    /// What the worth grew by beyond the flows.
    pub gain: Decimal,
    /// Of the start value; where that is 0, of what came in; 1.25 is 1.25 %.
    pub gain_percent: Decimal,
    /// The time-weighted return, chained at every flow; 1.25 is 1.25 %.
    pub time_weighted_percent: Option<Decimal>,
    /// The money-weighted return: the annual rate that sets the present value to zero. None within one day.
    pub money_weighted_percent: Option<Decimal>,
    /// One for each interval, ascending; the last ends with the span.
    pub points: Rows<PerformancePoint>,
}

/// How an account went.
#[derive(SimpleObject, Clone, Debug)]
pub struct PerformanceResponse {
    /// The answer; null where it was refused.
    pub data: Option<Performance>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::PerformanceReply> for Performance {
    fn from(r: v1::PerformanceReply) -> Self {
        let points = r.points.into_iter().map(|p| PerformancePoint {
            date: date(p.from_us),
            until: DateTime::of(p.until_us),
            value: Decimal::micros(p.value_micros),
            cash: Decimal::micros(p.cash_micros),
            holdings: Decimal::micros(p.holdings_micros),
        });
        Self {
            account_id: Uuid(r.account_id),
            currency: r.currency,
            period: r.period,
            from: DateTime::of(r.from_us),
            to: DateTime::of(r.to_us),
            start_value: Decimal::micros(r.start_micros),
            end_value: Decimal::micros(r.end_micros),
            net_flows: Decimal::micros(r.net_flows_micros),
            inflows: Decimal::micros(r.inflows_micros),
            outflows: Decimal::micros(r.outflows_micros),
            gain: Decimal::micros(r.gain_micros),
            gain_percent: Decimal::e4(r.gain_percent_e4),
            time_weighted_percent: r.time_weighted_percent_e4.map(Decimal::e4),
            money_weighted_percent: r.money_weighted_percent_e4.map(Decimal::e4),
            points: points.collect(),
        }
    }
}

/// What was traded of a symbol in a span of time, and what is there at its end; amounts in the account's currency.
#[derive(SimpleObject, Clone, Debug)]
pub struct SymbolGains {
    /// Empty in the total.
    pub symbol: String,
    /// Shares bought.
    pub bought: Decimal,
    /// For what was bought, fees included.
    pub paid: Decimal,
    /// Shares sold.
    pub sold: Decimal,
    /// For what was sold, fees taken off.
    pub proceeds: Decimal,
    /// Average cost that went with what was sold.
    pub cost: Decimal,
    /// Proceeds less cost.
    pub realized_pnl: Decimal,
    /// The same, first in first out.
    pub fifo_realized_pnl: Decimal,
    /// What trading cost beside.
    pub fees: Decimal,
    /// How many trades.
    pub trades: Int64,
    /// At the end of the span: shares, their average and their first-in-first-out cost.
    pub quantity: Decimal,
    /// What the shares that are held cost on average.
    pub held_cost: Decimal,
    /// What they cost, the first bought being the first sold.
    pub held_fifo_cost: Decimal,
    /// The last price before the end of the span, in the listing's currency; 0 where none is known.
    pub market_price: Decimal,
    /// What they are worth at the market price.
    pub market_value: Decimal,
    /// Worth less average cost.
    pub unrealized_pnl: Decimal,
}

impl From<v1::SymbolGains> for SymbolGains {
    fn from(g: v1::SymbolGains) -> Self {
        Self {
            symbol: g.symbol,
            bought: Decimal::e4(g.bought_e4),
            paid: Decimal::micros(g.paid_micros),
            sold: Decimal::e4(g.sold_e4),
            proceeds: Decimal::micros(g.proceeds_micros),
            cost: Decimal::micros(g.cost_micros),
            realized_pnl: Decimal::micros(g.realized_micros),
            fifo_realized_pnl: Decimal::micros(g.fifo_realized_micros),
            fees: Decimal::micros(g.fees_micros),
            trades: g.trades.into(),
            quantity: Decimal::e4(g.quantity_e4),
            held_cost: Decimal::micros(g.held_cost_micros),
            held_fifo_cost: Decimal::micros(g.held_fifo_cost_micros),
            market_price: Decimal::e4(g.price_e4),
            market_value: Decimal::micros(g.value_micros),
            unrealized_pnl: Decimal::micros(g.unrealized_micros),
        }
    }
}

/// What an account gained in a span of time.
#[derive(SimpleObject, Clone, Debug)]
pub struct Gains {
    /// The account's id.
    pub account_id: Uuid,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// The first moment.
    pub from: DateTime,
    /// Its end, YYYY-MM-DD or RFC 3339.
    pub to: DateTime,
    /// By symbol, those that were traded in the span or are held at its end: closed positions too.
    pub symbols: Rows<SymbolGains>,
    /// Amounts of all of them; without quantities and price.
    pub total: SymbolGains,
}

/// Gains of an account.
#[derive(SimpleObject, Clone, Debug)]
pub struct GainsResponse {
    /// The answer; null where it was refused.
    pub data: Option<Gains>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::GainsReply> for Gains {
    fn from(r: v1::GainsReply) -> Self {
        Self {
            account_id: Uuid(r.account_id),
            currency: r.currency,
            from: DateTime::of(r.from_us),
            to: DateTime::of(r.to_us),
            symbols: r.symbols.into_iter().map(SymbolGains::from).collect(),
            total: r.total.unwrap_or_default().into(),
        }
    }
}

/// Shares that came at once.
#[derive(SimpleObject, Clone, Debug)]
pub struct Lot {
    /// Its id, a UUID.
    pub id: String,
    /// When it was bought, RFC 3339.
    pub acquired_at: DateTime,
    /// The order; none where the shares came without a trade.
    pub reference_id: Option<String>,
    /// As it came, and what is left of it.
    pub quantity: Decimal,
    /// Shares that are left.
    pub left: Decimal,
    /// Of what is left.
    pub cost: Decimal,
}

/// The lots of an account's shares of a symbol, first in first out.
#[derive(SimpleObject, Clone, Debug)]
pub struct Lots {
    /// The account's id.
    pub account_id: Uuid,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Of all lots.
    pub quantity: Decimal,
    /// What they cost, in the account's currency.
    pub cost: Decimal,
    /// How many there are in all, whatever the page.
    pub count: Int64,
    /// Oldest first.
    pub lots: Rows<Lot>,
    /// Hand it back as `after` for the next page.
    pub end_cursor: Option<String>,
    /// There are more.
    pub has_more: bool,
}

/// Lots of a holding.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(complex)]
pub struct LotConnection {
    /// The answer; null where it was refused.
    pub data: Option<Lots>,
    /// The page follows another one.
    #[graphql(skip)]
    pub has_before: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::LotsReply> for Lots {
    fn from(r: v1::LotsReply) -> Self {
        let end_cursor = r.lots.last().map(|lot| lot.id.clone());
        let lots = r.lots.into_iter().map(|lot| Lot {
            id: lot.id,
            acquired_at: DateTime::of(lot.acquired_us),
            reference_id: optional(lot.reference_id),
            quantity: Decimal::e4(lot.quantity_e4),
            left: Decimal::e4(lot.left_e4),
            cost: Decimal::micros(lot.cost_micros),
        });
        Self {
            account_id: Uuid(r.account_id),
            currency: r.currency,
            symbol: r.symbol,
            quantity: Decimal::e4(r.quantity_e4),
            cost: Decimal::micros(r.cost_micros),
            count: r.count.into(),
            lots: lots.collect(),
            end_cursor,
            has_more: r.more,
        }
    }
}

#[derive(Default)]
pub struct Performances;

#[Object]
impl Performances {
    /// How the worth of an account of the caller went, closed or not.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn portfolio_performance(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the account's id")] account_id: Uuid,
        #[graphql(
            desc = "1D (today) 1W 1M 3M 6M 1Y 2Y 5Y MAX in any case, that ends with the span; 1M when left out"
        )]
        period: Option<String>,
        #[graphql(desc = "a day (YYYY-MM-DD, UTC) or a moment (RFC 3339) instead of a period")] from: Option<
            String,
        >,
        #[graphql(desc = "a day, included, or a moment, excluded; now when left out")] to: Option<String>,
        #[graphql(desc = "of the points: 1m 5m 15m 1h 1d; 1d when left out")] interval: Option<String>,
    ) -> Result<PerformanceResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::PerformanceRequest {
                user_id: session.user.to_string(),
                account_id: session.own_account(Some(&account_id.0))?,
                period: period.unwrap_or_default(),
                from,
                to,
                interval: interval.unwrap_or_default(),
            };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.performance(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(PerformanceResponse { data: reply.map(Into::into), outcome })
    }

    /// What an account of the caller traded and gained, by symbol, positions that were sold out too.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn realized_gains(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the account's id")] account_id: Uuid,
        #[graphql(desc = "as of portfolioPerformance")] period: Option<String>,
        #[graphql(desc = "a day or a moment instead of a period")] from: Option<String>,
        #[graphql(desc = "a day, included, or a moment, excluded; now when left out")] to: Option<String>,
    ) -> Result<GainsResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::GainsRequest {
                user_id: session.user.to_string(),
                account_id: session.own_account(Some(&account_id.0))?,
                period: period.unwrap_or_default(),
                from,
                to,
            };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.gains(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(GainsResponse { data: reply.map(Into::into), outcome })
    }

    /// The lots of an account's shares of a symbol, first in first out, oldest first.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn lots(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the account's id")] account_id: Uuid,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "a day, at its end, or a moment; now when left out")] at: Option<String>,
        #[graphql(desc = "at most 1000; 500 when left out")] first: Option<i32>,
        #[graphql(desc = "a lot's id: only younger ones")] after: Option<String>,
    ) -> Result<LotConnection> {
        let (gateway, session) = of(ctx)?;
        let (limit, has_before) = (first_of(first)? as u32, after.is_some());
        let asked = async {
            let request = v1::LotsRequest {
                user_id: session.user.to_string(),
                account_id: session.own_account(Some(&account_id.0))?,
                symbol: market::symbol(&symbol)?.to_string(),
                at,
                limit,
                after_id: after.map(|id| id_of("after", &id)).transpose()?.unwrap_or_default(),
            };
            let mut portfolio = gateway.reads(session).await.portfolio(&session.caller());
            Ok::<_, Status>(portfolio.lots(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(LotConnection { data: reply.map(Lots::from), has_before, outcome })
    }
}
