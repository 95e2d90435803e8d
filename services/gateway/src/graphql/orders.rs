//! The caller's orders: lists, one, and what happened to it.

use super::{
    Needs,
    connection::PageInfo,
    enums::{OrderStandingKind, OrderState, OrderStepKind, Side, TradingState, given, word},
    error,
    list::{Columns, OrderEdges, OrderList},
    of,
    query::{first_of, id_of},
    rows::Rows,
    scalars::{DateTime, Decimal, Int64, Uuid},
    types::*,
};
use crate::{
    Gateway, market,
    session::{Permission::*, Session},
};
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, v1};
use fafnir_rules::order as rules;
use std::sync::Arc;
use time::{
    Date, OffsetDateTime, format_description::well_known::Iso8601, format_description::well_known::Rfc3339,
};
use tonic::Status;

/// Orders asked of order-service at a time.
const PAGE: u32 = 1_000;
/// Fills of one order asked for at a time.
const FILLS: u32 = 1_000;
const DAY_US: i64 = 86_400_000_000;

/// One thing that happened to an order.
#[derive(SimpleObject, Clone, Debug)]
pub struct OrderStep {
    /// The sequence of the caller's order updates.
    pub sequence: Int64,
    /// When it happened.
    pub time: DateTime,
    /// What it was.
    pub kind: OrderStepKind,
    /// What happened, and what is held after it, in one sentence.
    pub sentence: String,
    /// The order as it was after it, without fills.
    pub order: Option<Order>,
    /// The trade, of EXECUTED.
    pub fill: Option<Fill>,
}

/// Where an open order stands now, as the exchange has it.
#[derive(SimpleObject, Clone, Debug)]
pub struct OrderStanding {
    /// Where it stands.
    pub kind: OrderStandingKind,
    /// Resting: orders and visible shares ahead of it at its price, and visible shares at better prices.
    pub orders_ahead: u32,
    /// Visible shares ahead of it at its price.
    pub quantity_ahead: Decimal,
    /// Visible shares at better prices.
    pub quantity_better: Decimal,
    /// What the exchange does with the symbol.
    pub trading_state: TradingState,
    /// 0 where there is none.
    pub last_price: Decimal,
    /// The dearest price at which somebody buys; 0: nobody.
    pub best_bid: Decimal,
    /// The cheapest price at which somebody sells; 0: nobody.
    pub best_ask: Decimal,
}

/// What happened to an order.
#[derive(SimpleObject, Clone, Debug)]
pub struct OrderHistory {
    /// The order as it is now.
    pub order: Order,
    /// Oldest first.
    pub steps: Rows<OrderStep>,
    /// Hand it back as `after` for the next page.
    pub end_cursor: Option<Int64>,
    /// There are more.
    pub has_more: bool,
    /// None for an order that has ended, and while the exchange does not answer.
    pub standing: Option<OrderStanding>,
    /// What the order waits for now, or why it ended, in one sentence.
    pub waits_for: String,
}

/// Orders of the caller.
#[derive(SimpleObject, Debug)]
pub struct OrdersResponse {
    /// The answer; null where it was refused.
    pub data: Option<Arc<OrderList>>,
    /// How many there are in all, whatever the page.
    pub count: i32,
    /// Hand it back as `after` for the next page.
    pub end_cursor: Option<String>,
    /// There are more.
    pub has_more: bool,
    /// The rows, each with its cursor; none where they were refused.
    pub edges: OrderEdges,
    /// Where the page begins and ends.
    pub page_info: PageInfo,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// Orders as they were found.
struct Listed {
    orders: OrderList,
    /// The first and the last of them.
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
    /// How many there are in all.
    count: u64,
}

/// The history of an order.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(complex)]
pub struct OrderHistoryConnection {
    /// The answer; null where it was refused.
    pub data: Option<OrderHistory>,
    /// The page follows another one.
    #[graphql(skip)]
    pub has_before: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

impl From<v1::OrderHistoryReply> for OrderHistory {
    fn from(r: v1::OrderHistoryReply) -> Self {
        let end_cursor = r.steps.last().map(|step| step.user_seq.into());
        let steps = r.steps.into_iter().map(|step| OrderStep {
            sequence: step.user_seq.into(),
            time: DateTime::of(step.time_us),
            kind: word(step.kind().as_str_name().trim_start_matches("FACT_KIND_")),
            sentence: step.sentence,
            order: step.order.map(Order::from),
            fill: step.fill.map(Fill::from),
        });
        Self {
            order: r.order.unwrap_or_default().into(),
            steps: steps.collect(),
            end_cursor,
            has_more: r.more,
            standing: r.standing.map(|s| OrderStanding {
                kind: word(s.kind().as_str_name().trim_start_matches("ORDER_STANDING_KIND_")),
                orders_ahead: s.orders_ahead,
                quantity_ahead: Decimal::e4(s.quantity_ahead_e4),
                quantity_better: Decimal::e4(s.quantity_better_e4),
                trading_state: given(s.state().known()),
                last_price: Decimal::e4(s.last_price_e4),
                best_bid: Decimal::e4(s.best_bid_e4),
                best_ask: Decimal::e4(s.best_ask_e4),
            }),
            waits_for: r.waits_for,
        }
    }
}

/// A day, to which `day_us` is added, or a moment.
fn moment(field: &str, text: Option<&String>, day_us: i64) -> std::result::Result<i64, Status> {
    let Some(text) = text.map(|text| text.trim()) else { return Ok(0) };
    if text.len() == "YYYY-MM-DD".len()
        && let Ok(day) = Date::parse(text, &Iso8601::DATE)
    {
        return Ok(day.midnight().assume_utc().unix_timestamp() * 1_000_000 + day_us);
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    at.and_then(|at| i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).ok()).ok_or_else(|| {
        let sentence = format!("{field} must be a day, YYYY-MM-DD, or a moment as in RFC 3339");
        Refusal::invalid(Reason::DATE_MALFORMED, sentence).into()
    })
}

fn state_of(state: OrderState) -> i32 {
    v1::OrderState::from(rules::OrderState::from(state)).into()
}

impl Gateway {
    /// The caller's orders as asked for, newest first, at most `wanted`, or all of them where it is left out.
    async fn orders_of(
        &self,
        session: &Session,
        mut request: v1::ListOrdersRequest,
        wanted: Option<usize>,
        orders: OrderList,
    ) -> std::result::Result<Listed, Status> {
        let mut client = self.reads(session).await.order(&session.caller());
        let mut listed = Listed { orders, first_id: None, last_id: None, has_more: false, count: 0 };
        loop {
            let there = listed.orders.len();
            let missing = wanted.map_or(PAGE as usize, |wanted| wanted - there);
            request.limit = PAGE.min(missing as u32);
            let page = client.list(request.clone()).await?.into_inner();
            if request.with_count {
                (listed.count, request.with_count) = (page.count, false);
            }
            listed.has_more = page.more;
            let Some(last) = page.orders.last() else { return Ok(listed) };
            request.before_id.clone_from(&last.id);
            listed.last_id = Some(last.id.clone());
            listed.first_id = listed.first_id.or_else(|| page.orders.first().map(|first| first.id.clone()));
            let mut orders = Vec::with_capacity(page.orders.len());
            for order in page.orders {
                orders.push(self.whole(session, order, request.with_fills).await?);
            }
            listed.orders.add(orders)?;
            if !page.more || wanted.is_some_and(|wanted| listed.orders.len() >= wanted) {
                return Ok(listed);
            }
        }
    }

    /// The order with all its fills: an answer carries a bounded number of them.
    async fn whole(
        &self,
        session: &Session,
        mut order: v1::Order,
        with_fills: bool,
    ) -> std::result::Result<v1::Order, Status> {
        let there: i64 = order.fills.iter().fold(0, |sum, fill| sum.saturating_add(fill.quantity_e4));
        if !with_fills || there >= order.filled_e4 {
            return Ok(order);
        }
        let mut client = self.reads(session).await.order(&session.caller());
        let mut request = v1::ListFillsRequest {
            user_id: session.user.to_string(),
            order_id: order.id.clone(),
            limit: FILLS,
            ..v1::ListFillsRequest::default()
        };
        let mut fills = Vec::new();
        loop {
            let page = client.list_fills(request.clone()).await?.into_inner();
            fills.extend(page.fills);
            if page.next == 0 {
                break;
            }
            request.before = page.next;
        }
        fills.reverse();
        order.fills = fills;
        Ok(order)
    }
}

#[derive(Default)]
pub struct Orders;

#[Object]
impl Orders {
    /// The caller's orders, newest first: all of them, or a page with `first`.
    #[graphql(guard = "Needs(OrderStocks)")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is an argument of the field; the macro may split them off"
    )]
    async fn get_orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "at most 1000; all when left out")] first: Option<i32>,
        #[graphql(desc = "an order's id: only older ones")] after: Option<String>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: Option<String>,
        #[graphql(default = false, desc = "only orders that can still trade")] open_only: bool,
        #[graphql(desc = "only of this account")] account_id: Option<Uuid>,
        #[graphql(desc = "only of this side")] side: Option<Side>,
        #[graphql(desc = "only in one of these states")] states: Option<Vec<OrderState>>,
        #[graphql(desc = "placed on this day (YYYY-MM-DD, UTC) or moment (RFC 3339), or later")] from: Option<
            String,
        >,
        #[graphql(desc = "placed on this day or earlier, or before this moment")] to: Option<String>,
    ) -> Result<OrdersResponse> {
        let (gateway, session) = of(ctx)?;
        let wanted = first.map(|first| first_of(Some(first))).transpose()?;
        let has_before = after.is_some();
        let (data, node) = (ctx.look_ahead().field("data"), ctx.look_ahead().field("edges").field("node"));
        let no_orders = || OrderList::new(gateway.lists.clone(), Columns::below(ctx.field()));
        let asked = async {
            let request = v1::ListOrdersRequest {
                user_id: session.user.to_string(),
                open_only,
                symbol: symbol
                    .map(|s| market::symbol(&s))
                    .transpose()?
                    .map_or_else(String::new, |s| s.to_string()),
                before_id: after.map(|id| id_of("after", &id)).transpose()?.unwrap_or_default(),
                account_id: session.listed_account(
                    account_id.map(|Uuid(id)| id_of("accountId", &id)).transpose()?.unwrap_or_default(),
                ),
                side: side.map_or(v1::Side::Unspecified, |side| rules::Side::from(side).into()).into(),
                states: states.unwrap_or_default().into_iter().map(state_of).collect(),
                from_us: moment("from", from.as_ref(), 0)?,
                to_us: moment("to", to.as_ref(), DAY_US)?,
                with_fills: data.field("fills").exists() || node.field("fills").exists(),
                with_count: ctx.look_ahead().field("count").exists(),
                ..v1::ListOrdersRequest::default()
            };
            gateway.orders_of(session, request, wanted, no_orders()).await
        };
        let (found, outcome) = error::outcome(asked.await)?;
        let nothing =
            || Listed { orders: no_orders(), first_id: None, last_id: None, has_more: false, count: 0 };
        let listed = found.unwrap_or_else(nothing);
        let orders = Arc::new(listed.orders);
        Ok(OrdersResponse {
            count: i32::try_from(listed.count).unwrap_or(i32::MAX),
            page_info: PageInfo {
                start_cursor: listed.first_id,
                end_cursor: listed.last_id.clone(),
                has_next_page: listed.has_more,
                has_previous_page: has_before,
            },
            end_cursor: listed.last_id,
            has_more: listed.has_more,
            edges: OrderEdges(Arc::clone(&orders)),
            data: Some(orders),
            outcome,
        })
    }

    /// One order of the caller, with all its fills.
    #[graphql(name = "getOrderByOrderID", guard = "Needs(OrderStocks)")]
    async fn get_order_by_order_id(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: GetOrderByIDRequest,
    ) -> Result<GetOrderByIDResponse> {
        let (gateway, session) = of(ctx)?;
        let order_id = id_of("orderId", &request.order_id).map_err(error::of)?;
        let order = gateway.own_order(session, order_id).await.map_err(error::of)?;
        let order = gateway.whole(session, order, true).await.map_err(error::of)?;
        Ok(GetOrderByIDResponse { data: Some(order.into()), outcome: Outcome::ok() })
    }

    /// What happened to an order of the caller, step by step, what it holds, and what it waits for now.
    #[graphql(guard = "Needs(OrderStocks)")]
    async fn order_history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the order's id")] order_id: Uuid,
        #[graphql(desc = "steps, at most 1000; 500 when left out")] first: Option<i32>,
        #[graphql(desc = "a step's sequence: only later ones")] after: Option<Int64>,
    ) -> Result<OrderHistoryConnection> {
        let (gateway, session) = of(ctx)?;
        let (limit, has_before) = (first_of(first)? as u32, after.is_some());
        let asked = async {
            let order_id = id_of("orderId", &order_id.0)?;
            gateway.reach_order(session, &order_id).await?;
            let request = v1::OrderHistoryRequest {
                user_id: session.user.to_string(),
                order_id,
                after_seq: after.map_or(0, |Int64(seq)| seq.max(0) as u64),
                limit,
            };
            let mut client = gateway.reads(session).await.order(&session.caller());
            Ok::<_, Status>(client.history(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(OrderHistoryConnection { data: reply.map(OrderHistory::from), has_before, outcome })
    }
}
