//! Public market data as streams for subscribers: images replace each other, trades come without a gap.

use super::{
    Gateway,
    session::{Permission, Session},
};
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, subject, v1};
use fafnir_rules::symbol::Symbol;
use futures::{
    Stream, StreamExt as _, future,
    stream::{self, BoxStream},
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tonic::Status;

/// Symbols in one subscription.
pub const SYMBOLS_MAX: usize = 50;
/// Messages taken at once from the bus; of images only the newest of each symbol goes on.
const CONFLATE_MAX: usize = 256;
/// Trades asked for at a time when some were missed.
const TRADES_PAGE: u32 = 500;
/// Time between two looks at the session of a subscriber.
const SESSION_CHECK: Duration = Duration::from_millis(500);

pub type Feed<T> = BoxStream<'static, Result<T, Status>>;

/// A symbol as a client wrote it.
pub fn symbol(text: &str) -> Result<Symbol, Status> {
    Symbol::parse(text).map_err(|e| Refusal::invalid(Reason::SYMBOL_MALFORMED, e.to_string()).into())
}

/// Ends a feed with a status when the session ends or the permission is lost.
fn while_allowed<T: Send + 'static>(
    gateway: Arc<Gateway>,
    session: Session,
    feed: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Feed<T> {
    let shutdown = gateway.ctx.tasks.shutdown().clone();
    let checks = stream::unfold((gateway, session), |(gateway, session)| async move {
        tokio::time::sleep(SESSION_CHECK).await;
        let allowed = async {
            gateway.sessions.check(&session).await?;
            gateway.sessions.require(&session, Permission::ViewStocks).await
        };
        Some((allowed.await.err().map(Err), (gateway, session)))
    });
    let mut ended = false;
    stream::select(feed.map(Some), checks)
        .filter_map(future::ready)
        .take_while(move |item| {
            let go_on = !ended;
            ended |= item.is_err();
            future::ready(go_on)
        })
        .take_until(shutdown.cancelled_owned())
        .boxed()
}

/// The book of a symbol: its image now, then each newer one.
pub async fn books(
    gateway: Arc<Gateway>,
    session: Session,
    symbol: Symbol,
) -> Result<Feed<v1::BookImage>, Status> {
    let live = gateway.bus.subscribe(subject::book(symbol.as_str())).await?;
    let request = v1::BookRequest { symbol: symbol.to_string(), depth: 0 };
    let first = gateway.ctx.clients.engine(&session.caller()).book(request).await?.into_inner();
    let mut newest = (first.epoch, first.book_seq);
    let images = live.ready_chunks(CONFLATE_MAX).filter_map(move |messages| {
        let image = messages
            .into_iter()
            .filter_map(|m| v1::BookImage::decode(m.payload).ok())
            .max_by_key(|image| (image.epoch, image.book_seq))
            .filter(|image| (image.epoch, image.book_seq) > newest);
        if let Some(image) = &image {
            newest = (image.epoch, image.book_seq);
        }
        future::ready(image.map(Ok))
    });
    let feed = stream::once(future::ready(Ok(first))).chain(images);
    Ok(while_allowed(gateway, session, feed))
}

/// The quotes of some symbols: as they are now, then each change.
pub async fn quotes(
    gateway: Arc<Gateway>,
    session: Session,
    symbols: Vec<Symbol>,
) -> Result<Feed<v1::Quote>, Status> {
    let mut live = Vec::with_capacity(symbols.len());
    for symbol in &symbols {
        live.push(gateway.bus.subscribe(subject::quotes(symbol.as_str())).await?);
    }
    let request = v1::QuotesRequest { symbols: symbols.iter().map(ToString::to_string).collect() };
    let first = gateway.ctx.clients.stock(&session.caller()).quotes(request).await?.into_inner().quotes;
    let changes = stream::select_all(live).ready_chunks(CONFLATE_MAX).flat_map(|messages| {
        let mut newest = BTreeMap::new();
        for quote in messages.into_iter().filter_map(|m| v1::Quote::decode(m.payload).ok()) {
            newest.insert(quote.symbol.clone(), quote);
        }
        stream::iter(newest.into_values().map(Ok))
    });
    let feed = stream::iter(first.into_iter().map(Ok)).chain(changes);
    Ok(while_allowed(gateway, session, feed))
}

/// The trades of a symbol after `after`, or from now on, in order and without a gap.
pub async fn trades(
    gateway: Arc<Gateway>,
    session: Session,
    symbol: Symbol,
    after: Option<u64>,
) -> Result<Feed<v1::Trade>, Status> {
    let live = gateway.bus.subscribe(subject::trades(symbol.as_str())).await?;
    let mut tape = Tape {
        gateway: gateway.clone(),
        session: session.clone(),
        symbol,
        last: 0,
        waiting: VecDeque::new(),
    };
    if let Some(last) = after {
        tape.last = last;
        tape.fill().await?;
    } else {
        let latest = tape.page(0, 1, true).await?;
        tape.last = latest.last().map_or(0, |t| t.trade_no);
    }
    let feed = stream::unfold((tape, live), |(mut tape, mut live)| async move {
        loop {
            if let Some(trade) = tape.waiting.pop_front() {
                return Some((Ok(trade), (tape, live)));
            }
            let message = live.next().await?;
            let Ok(print) = v1::TradePrint::decode(message.payload) else { continue };
            for trade in print.trades {
                if trade.trade_no == tape.last + 1 {
                    tape.last = trade.trade_no;
                    tape.waiting.push_back(trade);
                } else if trade.trade_no > tape.last {
                    // A failure leaves the gap as it is: the next print shows it again.
                    if let Err(status) = tape.fill().await {
                        tracing::warn!(code = ?status.code(), cause = status.message(), "missed trades");
                    }
                    break;
                }
            }
        }
    });
    Ok(while_allowed(gateway, session, feed))
}

struct Tape {
    gateway: Arc<Gateway>,
    session: Session,
    symbol: Symbol,
    last: u64,
    waiting: VecDeque<v1::Trade>,
}

impl Tape {
    async fn page(&self, after: u64, limit: u32, latest: bool) -> Result<Vec<v1::Trade>, Status> {
        let request =
            v1::TradesRequest { symbol: self.symbol.to_string(), after_trade_no: after, limit, latest };
        let mut client = self.gateway.ctx.clients.engine(&self.session.caller());
        Ok(client.trades(request).await?.into_inner().trades)
    }

    /// One page of what comes after the last trade; more follows when the next print shows a gap again.
    async fn fill(&mut self) -> Result<(), Status> {
        for trade in self.page(self.last, TRADES_PAGE, false).await? {
            if trade.trade_no > self.last {
                self.last = trade.trade_no;
                self.waiting.push_back(trade);
            }
        }
        Ok(())
    }
}
