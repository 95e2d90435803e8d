//! The RPCs of order-service.

use super::{change, domain::Error as Refused, place::Core, store};
use fafnir_platform::{caller, error::Error};
use fafnir_proto::{
    reason::Reason,
    v1::{
        CancelAllReply, CancelAllRequest, CancelOrderRequest, Empty, GetOrderRequest, ListFillsReply,
        ListFillsRequest, ListOrdersReply, ListOrdersRequest, OrderReply, OrderStatusReply,
        PlaceOrderRequest, ReplaceOrderRequest, SymbolOrdersRequest, SymbolPosition, UpdatesSinceReply,
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
pub struct Api(pub Core);

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

#[tonic::async_trait]
impl OrderService for Api {
    async fn place(&self, request: Request<PlaceOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let order = self.0.place(user, request.into_inner()).await?;
        Ok(Response::new(OrderReply { order: Some(order) }))
    }

    async fn cancel(&self, request: Request<CancelOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let order = self.0.cancel(user, &request.get_ref().order_id).await?;
        Ok(Response::new(OrderReply { order: Some(order) }))
    }

    async fn cancel_all(
        &self,
        request: Request<CancelAllRequest>,
    ) -> Result<Response<CancelAllReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let requested = self.0.cancel_all(user, symbol(&request.get_ref().symbol)?).await?;
        Ok(Response::new(CancelAllReply { requested }))
    }

    async fn cancel_symbol(
        &self,
        request: Request<SymbolOrdersRequest>,
    ) -> Result<Response<CancelAllReply>, Status> {
        caller::system(&request)?;
        let symbol = symbol(&request.get_ref().symbol)?;
        if symbol.is_empty() {
            return Err(Error::from(Refused::invalid(Reason::SYMBOL_MISSING, "symbol must be given")).into());
        }
        let requested = self.0.cancel_symbol(symbol).await?;
        Ok(Response::new(CancelAllReply { requested }))
    }

    async fn replace(&self, request: Request<ReplaceOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let order = self.0.replace(user, request.get_ref()).await?;
        Ok(Response::new(OrderReply { order: Some(order) }))
    }

    async fn get(&self, request: Request<GetOrderRequest>) -> Result<Response<OrderReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let id = change::order_id(&request.get_ref().order_id).map_err(Error::from)?;
        let found = self
            .0
            .db
            .read(move |tx| {
                let Some(entry) = store::order_of(tx, &user, &id)? else { return Ok(None) };
                let mut order = entry.order;
                order.fills = store::fills_of(tx, &id, FILLS_MAX)?;
                Ok(Some(order))
            })
            .await?;
        let order = found.ok_or_else(|| Error::from(store::commands::unknown()))?;
        Ok(Response::new(OrderReply { order: Some(order) }))
    }

    async fn list(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let r = request.into_inner();
        let symbol = symbol(&r.symbol)?;
        let before = match r.before_id.as_str() {
            "" => String::new(),
            id => change::order_id(id).map_err(Error::from)?,
        };
        let reply = self
            .0
            .db
            .read(move |tx| {
                Ok(ListOrdersReply {
                    orders: store::order_list(tx, &user, r.open_only, &symbol, &before, limit(r.limit))?,
                    user_seq: store::update_seq(tx, &user.to_string())?,
                })
            })
            .await?;
        Ok(Response::new(reply))
    }

    async fn list_fills(
        &self,
        request: Request<ListFillsRequest>,
    ) -> Result<Response<ListFillsReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let r = request.into_inner();
        let symbol = symbol(&r.symbol)?;
        let fills =
            self.0.db.read(move |tx| Ok(store::fill_list(tx, &user, &symbol, limit(r.limit))?)).await?;
        Ok(Response::new(ListFillsReply { fills }))
    }

    async fn updates_since(
        &self,
        request: Request<UpdatesSinceRequest>,
    ) -> Result<Response<UpdatesSinceReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?.to_string();
        let r = request.into_inner();
        let reply = self
            .0
            .db
            .read(move |tx| Ok(store::updates_since(tx, &user, r.after_seq, limit(r.limit))?))
            .await?;
        Ok(Response::new(reply))
    }

    async fn status(&self, request: Request<Empty>) -> Result<Response<OrderStatusReply>, Status> {
        caller::system(&request)?;
        let figures = self.0.db.read(|tx| Ok(store::figures(tx)?)).await?;
        Ok(Response::new(OrderStatusReply {
            positions: figures
                .positions
                .into_iter()
                .map(|(symbol, seq)| SymbolPosition { symbol, seq })
                .collect(),
            last_cmd_seq: figures.last_cmd_seq,
            sent_cmd_seq: self.0.relay.sent(),
            open_orders: figures.open_orders,
            dead_letters: figures.dead_letters,
        }))
    }
}
