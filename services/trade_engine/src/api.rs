//! The engine's RPCs. Only Submit and Status reach the matching thread.

use super::{
    exchange::api::Exchange,
    published::Published,
    record::Record,
    sequencer::{COMMANDS_MAX, Handle},
    wire,
};
use fafnir_platform::{Context, Error, Refusal, caller, context::retry};
use fafnir_proto::{
    reason::Reason,
    v1::{self, trade_engine_server::TradeEngine},
};
use fafnir_rules::symbol::Symbol;
use prost::Message as _;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// Facts in one answer of `Executions`, and their bytes.
const EXECUTIONS_MAX: usize = 1_000;
const EXECUTIONS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Trades in one answer of `Trades`.
const TRADES_MAX: usize = 1_000;
const TRADES_DEFAULT: usize = 100;
/// Levels and orders per side in one answer of `Depth`.
const DEPTH_MAX: usize = 1_000;
/// How long a command for a symbol that the engine does not know waits for stock-service.
const LISTING_DEADLINE: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug, Clone)]
pub struct Api {
    pub ctx: Context,
    pub engine: Handle,
    pub published: Arc<Published>,
    pub exchange: Exchange,
}

fn limit(asked: u32, default: usize, max: usize) -> usize {
    match asked as usize {
        0 => default,
        n => n.min(max),
    }
}

/// Reads the disk away from the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, super::seglog::Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(e.to_string()))?
        .map_err(|e| Error::internal(e.to_string()))
}

impl Api {
    /// An order can be here before the fact about its symbol's listing: then the owner is asked.
    async fn ensure_listed(&self, records: &[(u64, Record)]) -> Result<(), Error> {
        let unknown: BTreeSet<&Symbol> = records
            .iter()
            .filter_map(|(_, record)| match record {
                Record::Command { symbol, .. } => symbol.as_ref(),
                _ => None,
            })
            .filter(|symbol| self.published.image(symbol.as_str(), 1).is_none())
            .collect();
        let mut listings = Vec::new();
        for symbol in unknown {
            let found = retry(LISTING_DEADLINE, || async {
                let mut stock = self.ctx.clients.stock(&self.ctx.system());
                let request = v1::SymbolRequest { symbol: symbol.to_string() };
                match stock.get_instrument(request).await {
                    Ok(instrument) => Ok(Some(instrument.into_inner())),
                    Err(status) if status.code() == Code::NotFound => Ok(None),
                    Err(status) => Err(Error::from(status)),
                }
            })
            .await?;
            listings.extend(found.as_ref().and_then(wire::listing));
        }
        if listings.is_empty() { Ok(()) } else { Ok(self.engine.list(listings).await?) }
    }
}

#[tonic::async_trait]
impl TradeEngine for Api {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        caller::system(&request)?;
        let commands = request.into_inner().commands;
        if commands.len() > COMMANDS_MAX {
            let message = format!("commands may hold at most {COMMANDS_MAX}");
            return Err(Refusal::invalid(Reason::COMMANDS_TOO_MANY, message).into());
        }
        let mut records = Vec::with_capacity(commands.len());
        for (place, command) in commands.iter().enumerate() {
            let record = wire::parse_command(command).map_err(|refusal| {
                let message = format!("commands[{place}] (cmd_seq {}): {}", command.cmd_seq, refusal.message);
                Refusal { message, ..refusal }
            })?;
            records.push((command.cmd_seq, record));
        }
        self.ensure_listed(&records).await?;
        let last_cmd_seq = self.engine.submit(records).await?;
        Ok(Response::new(v1::SubmitReply { last_cmd_seq }))
    }

    async fn executions(
        &self,
        request: Request<v1::ExecutionsRequest>,
    ) -> Result<Response<v1::ExecutionsReply>, Status> {
        let name = caller::system(&request)?;
        let request = request.into_inner();
        self.published.note_follower(&name, &request.positions);
        let published = Arc::clone(&self.published);
        let (facts, more) = blocking(move || {
            let limit = limit(request.limit, EXECUTIONS_MAX, EXECUTIONS_MAX);
            published.executions(&request.positions, limit, EXECUTIONS_BYTES_MAX)
        })
        .await?;
        let batches = facts
            .iter()
            .map(|fact| v1::ExecutionBatch::decode(fact.payload.clone()))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::internal(format!("a stored fact is no ExecutionBatch: {e}")))?;
        Ok(Response::new(v1::ExecutionsReply { batches, more }))
    }

    async fn trades(&self, request: Request<v1::TradesRequest>) -> Result<Response<v1::TradesReply>, Status> {
        let request = request.into_inner();
        let published = Arc::clone(&self.published);
        if self.exchange.published.image(&request.symbol, 1).is_some() {
            let published = Arc::clone(&self.exchange.published);
            let trades = blocking(move || {
                let limit = limit(request.limit, TRADES_DEFAULT, TRADES_MAX);
                published.trades(&request.symbol, request.after_trade_no, limit, request.latest)
            });
            return Ok(Response::new(v1::TradesReply { trades: trades.await? }));
        }
        let trades = blocking(move || {
            let limit = limit(request.limit, TRADES_DEFAULT, TRADES_MAX);
            published.trades(&request.symbol, request.after_trade_no, limit, request.latest)
        })
        .await?;
        Ok(Response::new(v1::TradesReply { trades }))
    }

    async fn book(&self, request: Request<v1::BookRequest>) -> Result<Response<v1::BookImage>, Status> {
        let request = request.into_inner();
        let depth = request.depth as usize;
        let image = self.exchange.published.image(&request.symbol, depth);
        let image = image.or_else(|| self.published.image(&request.symbol, depth)).ok_or_else(|| {
            Refusal::not_found(Reason::UNKNOWN_SYMBOL, format!("symbol {:?} is not listed", request.symbol))
        })?;
        Ok(Response::new(image))
    }

    async fn depth(&self, request: Request<v1::DepthRequest>) -> Result<Response<v1::DepthReply>, Status> {
        caller::system(&request)?;
        let request = request.into_inner();
        if request.levels.max(request.orders) as usize > DEPTH_MAX {
            let message = format!("levels and orders must be at most {DEPTH_MAX}");
            return Err(Refusal::invalid(Reason::DEPTH_OUT_OF_RANGE, message).into());
        }
        let unknown = || {
            Refusal::not_found(Reason::UNKNOWN_SYMBOL, format!("symbol {:?} is not listed", request.symbol))
        };
        let symbol = Symbol::parse(&request.symbol).map_err(|_| unknown())?;
        if let Some(found) = self.exchange.depth(request.clone()).await? {
            return Ok(Response::new(found));
        }
        let found = self.engine.query(move |engine| {
            let market = engine.market_of(&symbol)?;
            Some(wire::depth(market, engine.users(), request.levels as usize, request.orders as usize))
        });
        Ok(Response::new(found.await?.ok_or_else(unknown)?))
    }

    async fn queue_position(
        &self,
        request: Request<v1::QueuePositionRequest>,
    ) -> Result<Response<v1::QueuePositionReply>, Status> {
        caller::system(&request)?;
        let order = Uuid::parse_str(&request.get_ref().order_id)
            .map_err(|_| Refusal::invalid(Reason::ID_MALFORMED, "order_id must be a UUID"))?;
        if let Some(found) = self.exchange.queue_position(order).await? {
            return Ok(Response::new(found));
        }
        let found = self.engine.query(move |engine| {
            let (market, at) = engine.queue_position(order)?;
            Some(v1::QueuePositionReply {
                symbol: market.symbol.to_string(),
                orders_ahead: at.orders_ahead,
                quantity_ahead_e4: market.quantity_e4(at.qty_ahead),
                quantity_better_e4: market.quantity_e4(at.qty_better),
            })
        });
        let found = found.await?.ok_or_else(|| {
            Refusal::not_found(Reason::ORDER_NOT_RESTING, format!("order {order} does not rest in a book"))
        })?;
        Ok(Response::new(found))
    }

    async fn execute(
        &self,
        request: Request<v1::ExecuteRequest>,
    ) -> Result<Response<v1::ExecuteReply>, Status> {
        caller::system(&request)?;
        let command = request.into_inner().command.unwrap_or_default();
        Ok(Response::new(self.exchange.execute(&command).await?))
    }

    async fn facts(&self, request: Request<v1::FactsRequest>) -> Result<Response<v1::FactsReply>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.facts(request.into_inner()).await?))
    }

    async fn position(
        &self,
        request: Request<v1::PositionRequest>,
    ) -> Result<Response<v1::PositionReply>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.position(request.get_ref())?))
    }

    async fn open_orders(
        &self,
        request: Request<v1::OpenOrdersRequest>,
    ) -> Result<Response<v1::OpenOrdersReply>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.open_orders(request.into_inner()).await?))
    }

    async fn image(&self, request: Request<v1::ImageRequest>) -> Result<Response<v1::ImageReply>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.exchange.image(request.get_ref()).await?))
    }

    async fn status(&self, _request: Request<v1::Empty>) -> Result<Response<v1::EngineStatusReply>, Status> {
        let (old, new) = (self.engine.status().await?, self.exchange.status().await?);
        if new.positions.is_empty() {
            let (position, accounts) = (new.position, new.accounts);
            return Ok(Response::new(v1::EngineStatusReply { position, accounts, ..old }));
        }
        Ok(Response::new(v1::EngineStatusReply { epoch: old.epoch, ..new }))
    }
}
