//! The RPCs of order-service.

use super::{
    domain::{Error as Refused, history},
    orders::{self, Orders},
    store,
};
use fafnir_platform::{
    caller,
    db::Tx,
    door::{answered, deadline},
    error::Error,
};
use fafnir_proto::{
    id::UserId,
    reason::Reason,
    v1::{
        CancelAllReply, CancelAllRequest, CancelGroupRequest, CancelOrderRequest, Empty, FlattenReply,
        FlattenRequest, GetOrderRequest, ListFillsReply, ListFillsRequest, ListOrdersReply,
        ListOrdersRequest, Order, OrderAuditReply, OrderGroupReply, OrderHistoryReply, OrderHistoryRequest,
        OrderReply, OrderState, OrderStatusReply, OrderStep, PlaceGroupRequest, PlaceOrderRequest,
        PositionRequest, ReplaceOrderRequest, Side, SymbolOrdersRequest, UpdatesSinceReply,
        UpdatesSinceRequest, order_service_server::OrderService,
    },
};
use fafnir_rules::symbol::Symbol;
use tonic::{Request, Response, Status};

/// Orders, fills and updates in one answer.
const LIST_DEFAULT: u32 = 100;
const LIST_MAX: u32 = 1_000;
/// Fills shown with an order, and with a page of orders; whoever needs more lists them.
const FILLS_MAX: u32 = 10_000;
/// Steps of an order's history in one answer.
const STEPS_MAX: u32 = 1_000;

/// The service behind the RPCs.
#[derive(Debug, Clone)]
pub struct Api(pub Orders);

fn limit(requested: u32) -> u32 {
    if requested == 0 { LIST_DEFAULT } else { requested.min(LIST_MAX) }
}

/// An optional symbol; empty is all.
fn symbol(text: &str) -> Result<String, Error> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let symbol =
        Symbol::parse(text).map_err(|e| Refused::invalid(Reason::SYMBOL_MALFORMED, e.to_string()))?;
    Ok(symbol.to_string())
}

/// A symbol that must be given.
fn one_symbol(text: &str) -> Result<String, Error> {
    match symbol(text)? {
        symbol if symbol.is_empty() => {
            Err(Refused::invalid(Reason::SYMBOL_MISSING, "symbol must be given").into())
        }
        symbol => Ok(symbol),
    }
}

/// Which orders a request asks for.
fn filter(r: &ListOrdersRequest) -> Result<store::Filter, Error> {
    let account_id = match r.account_id.as_str() {
        "" => String::new(),
        text => uuid::Uuid::parse_str(text)
            .map_err(|_| Refused::invalid(Reason::ID_MALFORMED, "account_id must be a UUID"))?
            .to_string(),
    };
    Ok(store::Filter {
        symbol: symbol(&r.symbol)?,
        account_id,
        side: Some(r.side()).filter(|side| *side != Side::Unspecified),
        states: r.states().filter(|state| *state != OrderState::Unspecified).collect(),
        from_us: r.from_us,
        to_us: r.to_us,
    })
}

/// The first of these orders, one more of which tells that there are more; with all their fills, as far as one answer
/// carries them.
fn page(
    tx: &mut dyn Tx,
    user: UserId,
    mut orders: Vec<Order>,
    limit: u32,
    with_fills: bool,
) -> Result<ListOrdersReply, Error> {
    let mut more = orders.len() > limit as usize;
    orders.truncate(limit as usize);
    let mut room = FILLS_MAX as usize;
    let mut whole = 0;
    for order in orders.iter_mut().filter(|_| with_fills) {
        if order.filled_e4 > 0 {
            let id = orders::order_id(&order.id)?;
            // An order that has more than an answer carries stands alone.
            let most = if whole == 0 { FILLS_MAX } else { room as u32 + 1 };
            let stored = store::order_get(tx, user, id, most)?;
            order.fills = stored.map(|stored| stored.fills).unwrap_or_default();
            if whole > 0 && order.fills.len() > room {
                break;
            }
            room -= order.fills.len().min(room);
        }
        whole += 1;
    }
    if with_fills && whole < orders.len() {
        more = true;
        orders.truncate(whole);
    }
    Ok(ListOrdersReply { orders, more, ..ListOrdersReply::default() })
}

fn order_reply((order, position): (Order, u64)) -> Response<OrderReply> {
    answered(OrderReply { order: Some(order) }, position)
}

fn count_reply((requested, position): (u32, u64)) -> Response<CancelAllReply> {
    answered(CancelAllReply { requested }, position)
}

#[tonic::async_trait]
impl OrderService for Api {
    async fn place(&self, request: Request<PlaceOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        Ok(order_reply(self.0.place(user, request.get_ref(), until).await?))
    }

    async fn cancel(&self, request: Request<CancelOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        Ok(order_reply(self.0.cancel(user, &request.get_ref().order_id, until).await?))
    }

    async fn place_group(
        &self,
        request: Request<PlaceGroupRequest>,
    ) -> Result<Response<OrderGroupReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        let ((group_id, orders), position) = self.0.place_group(user, request.get_ref(), until).await?;
        Ok(answered(OrderGroupReply { group_id, orders }, position))
    }

    async fn cancel_group(
        &self,
        request: Request<CancelGroupRequest>,
    ) -> Result<Response<CancelAllReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        Ok(count_reply(self.0.cancel_group(user, &request.get_ref().group_id, until).await?))
    }

    async fn cancel_all(
        &self,
        request: Request<CancelAllRequest>,
    ) -> Result<Response<CancelAllReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        Ok(count_reply(self.0.cancel_all(user, symbol(&request.get_ref().symbol)?, until).await?))
    }

    async fn cancel_symbol(
        &self,
        request: Request<SymbolOrdersRequest>,
    ) -> Result<Response<CancelAllReply>, Status> {
        caller::system(&request)?;
        let until = deadline(&request);
        Ok(count_reply(self.0.cancel_symbol(one_symbol(&request.get_ref().symbol)?, until).await?))
    }

    async fn replace(&self, request: Request<ReplaceOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        Ok(order_reply(self.0.replace(user, request.get_ref(), until).await?))
    }

    async fn flatten(&self, request: Request<FlattenRequest>) -> Result<Response<FlattenReply>, Status> {
        let (user, until) = (caller::owner(&request, &request.get_ref().user_id)?, deadline(&request));
        let FlattenRequest { account_id, symbol, .. } = request.into_inner();
        if !account_id.is_empty() && uuid::Uuid::parse_str(&account_id).is_err() {
            let malformed = Refused::invalid(Reason::ID_MALFORMED, "account_id must be a UUID");
            return Err(malformed.into());
        }
        let (reply, position) = self.0.flatten(user, account_id, one_symbol(&symbol)?, until).await?;
        Ok(answered(reply, position))
    }

    async fn get(&self, request: Request<GetOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let id = orders::order_id(&request.get_ref().order_id)?;
        self.0.follower.wait_for(&request).await?;
        let found = self.0.db.read(move |tx| Ok(store::order_get(tx, user, id, FILLS_MAX)?)).await?;
        let order = found.ok_or_else(orders::unknown)?;
        Ok(Response::new(OrderReply { order: Some(order) }))
    }

    async fn list(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        self.0.follower.wait_for(&request).await?;
        let r = request.into_inner();
        let (filter, limit) = (filter(&r)?, limit(r.limit));
        let before = match r.before_id.as_str() {
            "" => None,
            id => Some(orders::order_id(id)?),
        };
        let (with_fills, with_count) = (r.with_fills, r.with_count);
        if !r.open_only {
            let listed = self.0.db.read(move |tx| {
                let count = if with_count { store::order_count(tx, user, &filter)? } else { 0 };
                let user_seq = store::update_seq(tx, user)?;
                let orders = store::order_list(tx, user, &filter, before, limit + 1)?;
                let page = page(tx, user, orders, limit, with_fills)?;
                Ok(ListOrdersReply { user_seq, count, ..page })
            });
            return Ok(Response::new(listed.await?));
        }
        // The sequence first: whatever the orders tell beyond it comes as an update too.
        let user_seq = self.0.db.read(move |tx| Ok(store::update_seq(tx, user)?)).await?;
        let before = before.map_or_else(String::new, |id| id.to_string());
        let mut open = self.0.open_orders(&user.to_string(), &filter.symbol).await?;
        open.retain(|order| filter.takes(order));
        let count = open.len() as u64;
        let older = open.into_iter().rev().filter(|order| before.is_empty() || order.id < before);
        let orders: Vec<Order> = older.take(limit as usize + 1).collect();
        let page = self.0.db.read(move |tx| page(tx, user, orders.clone(), limit, with_fills));
        Ok(Response::new(ListOrdersReply { user_seq, count, ..page.await? }))
    }

    async fn history(
        &self,
        request: Request<OrderHistoryRequest>,
    ) -> Result<Response<OrderHistoryReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let id = orders::order_id(&request.get_ref().order_id)?;
        self.0.follower.wait_for(&request).await?;
        let (after, limit) = (request.get_ref().after_seq, request.get_ref().limit);
        let limit = if limit == 0 { STEPS_MAX } else { limit.min(STEPS_MAX) };
        let found = self.0.db.read(move |tx| {
            let Some(order) = store::order_get(tx, user, id, 0)? else { return Ok(None) };
            Ok(Some((order, store::steps(tx, user, id, after, limit + 1)?)))
        });
        let (order, mut steps) = found.await?.ok_or_else(orders::unknown)?;
        let more = steps.len() > limit as usize;
        steps.truncate(limit as usize);
        let steps = steps.into_iter().map(|(kind, update)| {
            let order = update.order.unwrap_or_default();
            OrderStep {
                user_seq: update.user_seq,
                // A trade's is that of the order after it, as of everything else.
                time_us: order.updated_us,
                kind: kind.into(),
                sentence: history::sentence(kind, &order, update.fill.as_ref()),
                order: Some(order),
                fill: update.fill,
            }
        });
        let steps = steps.collect();
        let standing = if order.state().is_open() { self.0.standing(id).await } else { None };
        let waits_for = history::waits_for(&order, standing.as_ref());
        Ok(Response::new(OrderHistoryReply { order: Some(order), steps, more, standing, waits_for }))
    }

    async fn list_fills(
        &self,
        request: Request<ListFillsRequest>,
    ) -> Result<Response<ListFillsReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        self.0.follower.wait_for(&request).await?;
        let r = request.into_inner();
        let (symbol, limit) = (symbol(&r.symbol)?, limit(r.limit));
        let order = match r.order_id.as_str() {
            "" => None,
            id => Some(orders::order_id(id)?),
        };
        let before = match r.before {
            0 => i64::MAX,
            id => i64::try_from(id).unwrap_or(i64::MAX),
        };
        let listed = self.0.db.read(move |tx| Ok(store::fill_list(tx, user, &symbol, order, before, limit)?));
        let (fills, next) = listed.await?;
        Ok(Response::new(ListFillsReply { fills, next: next.unsigned_abs() }))
    }

    async fn updates_since(
        &self,
        request: Request<UpdatesSinceRequest>,
    ) -> Result<Response<UpdatesSinceReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        self.0.follower.wait_for(&request).await?;
        let (after, limit) = (request.get_ref().after_seq, limit(request.get_ref().limit));
        let reply = self.0.db.read(move |tx| Ok(store::updates_since(tx, user, after, limit)?)).await?;
        Ok(Response::new(reply))
    }

    async fn audit(&self, request: Request<Empty>) -> Result<Response<OrderAuditReply>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.0.audit(true).await?))
    }

    async fn status(&self, request: Request<Empty>) -> Result<Response<OrderStatusReply>, Status> {
        caller::system(&request)?;
        let (position, open_orders) = self.0.db.read(|tx| Ok(store::position(tx)?)).await?;
        let mut engine = self.0.ctx.clients.engine(&self.0.ctx.system());
        let last = engine.position(PositionRequest::default()).await;
        Ok(Response::new(OrderStatusReply {
            position,
            open_orders,
            last_position: last.map_or(0, |reply| reply.into_inner().last),
        }))
    }
}
