//! The RPCs of order-service.

use super::{
    domain::Error as Refused,
    orders::{self, Orders},
    store,
};
use fafnir_platform::{
    caller,
    door::{answered, deadline},
    error::Error,
};
use fafnir_proto::{
    reason::Reason,
    v1::{
        CancelAllReply, CancelAllRequest, CancelGroupRequest, CancelOrderRequest, Empty, FlattenReply,
        FlattenRequest, GetOrderRequest, ListFillsReply, ListFillsRequest, ListOrdersReply,
        ListOrdersRequest, Order, OrderGroupReply, OrderReply, OrderStatusReply, PlaceGroupRequest,
        PlaceOrderRequest, PositionRequest, ReplaceOrderRequest, SymbolOrdersRequest, UpdatesSinceReply,
        UpdatesSinceRequest, order_service_server::OrderService,
    },
};
use fafnir_rules::symbol::Symbol;
use tonic::{Request, Response, Status};

/// Orders, fills and updates in one answer.
const LIST_DEFAULT: u32 = 100;
const LIST_MAX: u32 = 1_000;
/// Fills shown with an order.
const FILLS_MAX: u32 = 10_000;

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
        let (symbol, limit) = (symbol(&r.symbol)?, limit(r.limit));
        let before = match r.before_id.as_str() {
            "" => None,
            id => Some(orders::order_id(id)?),
        };
        if !r.open_only {
            let listed = self.0.db.read(move |tx| {
                let orders = store::order_list(tx, user, &symbol, before, limit)?;
                Ok(ListOrdersReply { orders, user_seq: store::update_seq(tx, user)? })
            });
            return Ok(Response::new(listed.await?));
        }
        // The sequence first: whatever the orders tell beyond it comes as an update too.
        let user_seq = self.0.db.read(move |tx| Ok(store::update_seq(tx, user)?)).await?;
        let before = before.map_or_else(String::new, |id| id.to_string());
        let open = self.0.open_orders(&user.to_string(), &symbol).await?.into_iter().rev();
        let older = open.filter(|order| before.is_empty() || order.id < before);
        Ok(Response::new(ListOrdersReply { orders: older.take(limit as usize).collect(), user_seq }))
    }

    async fn list_fills(
        &self,
        request: Request<ListFillsRequest>,
    ) -> Result<Response<ListFillsReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        self.0.follower.wait_for(&request).await?;
        let (symbol, limit) = (symbol(&request.get_ref().symbol)?, limit(request.get_ref().limit));
        let fills = self.0.db.read(move |tx| Ok(store::fill_list(tx, user, &symbol, limit)?)).await?;
        Ok(Response::new(ListFillsReply { fills }))
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
