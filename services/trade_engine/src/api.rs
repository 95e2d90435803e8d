//! The engine's RPCs: who may ask what, and how much of it.

use super::exchange::Exchange;
use fafnir_platform::{Error, Refusal, caller};
use fafnir_proto::{
    reason::Reason,
    v1::{self, trade_engine_server::TradeEngine},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Trades in one answer of `Trades`: a client's longest page, and one that tells whether there are more.
const TRADES_MAX: usize = 1_001;
const TRADES_DEFAULT: usize = 100;
/// Levels and orders per side in one answer of `Depth`.
const DEPTH_MAX: usize = 1_000;

/// The service.
#[derive(Debug, Clone)]
pub struct Api {
    pub exchange: Exchange,
}

type Answer<T> = Result<Response<T>, Status>;

fn unlisted(symbol: &str) -> Refusal {
    Refusal::not_found(Reason::UNKNOWN_SYMBOL, format!("symbol {symbol:?} is not listed"))
}

#[tonic::async_trait]
impl TradeEngine for Api {
    async fn execute(&self, request: Request<v1::ExecuteRequest>) -> Answer<v1::ExecuteReply> {
        caller::system(&request)?;
        let command = request.into_inner().command.unwrap_or_default();
        Ok(Response::new(self.exchange.execute(&command).await?))
    }

    async fn facts(&self, request: Request<v1::FactsRequest>) -> Answer<v1::FactsReply> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.facts(request.into_inner()).await?))
    }

    async fn position(&self, request: Request<v1::PositionRequest>) -> Answer<v1::PositionReply> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.position(request.get_ref())?))
    }

    async fn open_orders(&self, request: Request<v1::OpenOrdersRequest>) -> Answer<v1::OpenOrdersReply> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.open_orders(request.into_inner()).await?))
    }

    async fn image(&self, request: Request<v1::ImageRequest>) -> Answer<v1::ImageReply> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.image(request.get_ref()).await?))
    }

    async fn trades(&self, request: Request<v1::TradesRequest>) -> Answer<v1::TradesReply> {
        let r = request.into_inner();
        let limit = match r.limit as usize {
            0 => TRADES_DEFAULT,
            n => n.min(TRADES_MAX),
        };
        let published = Arc::clone(&self.exchange.published);
        let read = move || published.trades(&r.symbol, r.after_trade_no, limit, r.latest);
        let trades = tokio::task::spawn_blocking(read).await.map_err(|e| Error::internal(e.to_string()))?;
        let trades = trades.map_err(|e| Error::internal(e.to_string()))?;
        Ok(Response::new(v1::TradesReply { trades }))
    }

    async fn book(&self, request: Request<v1::BookRequest>) -> Answer<v1::BookImage> {
        let r = request.into_inner();
        let image = self.exchange.published.image(&r.symbol, r.depth as usize);
        Ok(Response::new(image.ok_or_else(|| unlisted(&r.symbol))?))
    }

    async fn depth(&self, request: Request<v1::DepthRequest>) -> Answer<v1::DepthReply> {
        caller::system(&request)?;
        let r = request.into_inner();
        if r.levels.max(r.orders) as usize > DEPTH_MAX {
            let message = format!("levels and orders must be at most {DEPTH_MAX}");
            return Err(Refusal::invalid(Reason::DEPTH_OUT_OF_RANGE, message).into());
        }
        let symbol = r.symbol.clone();
        Ok(Response::new(self.exchange.depth(r).await?.ok_or_else(|| unlisted(&symbol))?))
    }

    async fn queue_position(
        &self,
        request: Request<v1::QueuePositionRequest>,
    ) -> Answer<v1::QueuePositionReply> {
        caller::system(&request)?;
        let order = Uuid::parse_str(&request.get_ref().order_id)
            .map_err(|_| Refusal::invalid(Reason::ID_MALFORMED, "order_id must be a UUID"))?;
        let found = self.exchange.queue_position(order).await?.ok_or_else(|| {
            Refusal::not_found(Reason::ORDER_NOT_RESTING, format!("order {order} does not rest in a book"))
        })?;
        Ok(Response::new(found))
    }

    async fn standing(&self, request: Request<v1::QueuePositionRequest>) -> Answer<v1::OrderStanding> {
        caller::system(&request)?;
        let order = Uuid::parse_str(&request.get_ref().order_id)
            .map_err(|_| Refusal::invalid(Reason::ID_MALFORMED, "order_id must be a UUID"))?;
        let found = self.exchange.standing(order).await?;
        let closed = || Refusal::not_found(Reason::ORDER_NOT_OPEN, format!("order {order} is not open"));
        Ok(Response::new(found.ok_or_else(closed)?))
    }

    async fn status(&self, _request: Request<v1::Empty>) -> Answer<v1::EngineStatusReply> {
        Ok(Response::new(self.exchange.status().await?))
    }
}
