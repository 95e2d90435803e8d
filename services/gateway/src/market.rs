//! Public market data as streams for subscribers: images replace each other, trades come without a gap.

use super::{
    Gateway,
    session::{Permission, Session, Watch},
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
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tonic::Status;

/// Symbols in one subscription.
pub const SYMBOLS_MAX: usize = 50;
/// Messages taken at once from the bus; of images only the newest of each symbol goes on.
const CONFLATE_MAX: usize = 256;
/// Trades asked for at a time when some were missed.
const TRADES_PAGE: u32 = 500;

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
    let watch = Watch::new(&gateway, &session, vec![Permission::ViewStocks]);
    let checks = stream::once(async move {
        let mut watch = watch;
        Some(Err(watch.ended().await))
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
    let subjects = symbols.iter().map(|symbol| subject::quotes(symbol.as_str())).collect();
    let live = gateway.bus.subscribe_all(subjects).await?;
    let request = v1::QuotesRequest { symbols: symbols.iter().map(ToString::to_string).collect() };
    let first = gateway.ctx.clients.stock(&session.caller()).quotes(request).await?.into_inner().quotes;
    let known: BTreeSet<&str> = first.iter().map(|quote| quote.symbol.as_str()).collect();
    if let Some(unknown) = symbols.iter().find(|symbol| !known.contains(symbol.as_str())) {
        return Err(unlisted(unknown));
    }
    let mut told: BTreeMap<_, _> = first.iter().map(|quote| (quote.symbol.clone(), quote.clone())).collect();
    let changes = stream::select_all(live).ready_chunks(CONFLATE_MAX).flat_map(move |messages| {
        let mut newest = BTreeMap::new();
        for quote in messages.into_iter().filter_map(|m| v1::Quote::decode(m.payload).ok()) {
            newest.insert(quote.symbol.clone(), quote);
        }
        // One that comes again says nothing.
        newest.retain(|symbol, quote| !told.get(symbol).is_some_and(|last| is_same(last, quote)));
        told.extend(newest.clone());
        stream::iter(newest.into_values().map(Ok))
    });
    let feed = stream::iter(first.into_iter().map(Ok)).chain(changes);
    Ok(while_allowed(gateway, session, feed))
}

/// Whether two quotes say the same; each process of stock-service counts versions of its own.
fn is_same(a: &v1::Quote, b: &v1::Quote) -> bool {
    v1::Quote { version: b.version, ..a.clone() } == *b
}

fn unlisted(symbol: &Symbol) -> Status {
    Refusal::not_found(Reason::UNKNOWN_SYMBOL, format!("{symbol} is not listed here")).into()
}

impl Gateway {
    /// Refuses a symbol that is not listed.
    pub async fn require_listed(&self, session: &Session, symbol: &Symbol) -> Result<(), Status> {
        let request = v1::SymbolRequest { symbol: symbol.to_string() };
        self.ctx.clients.stock(&session.caller()).get_instrument(request).await.map(drop)
    }
}

/// A trade of a subscription. `reset`: those between the subscriber's last one and this are no longer kept.
#[derive(Debug, Clone)]
pub struct Print {
    pub trade: v1::Trade,
    pub reset: bool,
}

/// The trades of a symbol after `after`, or from now on, in order and without a gap.
pub async fn trades(
    gateway: Arc<Gateway>,
    session: Session,
    symbol: Symbol,
    after: Option<u64>,
) -> Result<Feed<Print>, Status> {
    gateway.require_listed(&session, &symbol).await?;
    let live = gateway.bus.subscribe(subject::trades(symbol.as_str())).await?;
    let mut tape = Tape {
        gateway: gateway.clone(),
        session: session.clone(),
        symbol,
        last: 0,
        newest: 0,
        reset: false,
        waiting: VecDeque::new(),
    };
    let newest = tape.page(0, 1, true).await?.last().map_or(0, |t| t.trade_no);
    // A number that was never given is of another exchange's life.
    tape.reset = after.is_some_and(|after| after > newest);
    (tape.last, tape.newest) = (after.unwrap_or(newest).min(newest), newest);
    let feed = stream::unfold((tape, live), |(mut tape, mut live)| async move {
        loop {
            if let Some(print) = tape.waiting.pop_front() {
                return Some((Ok(print), (tape, live)));
            }
            if tape.last < tape.newest {
                match tape.fill().await {
                    Ok(()) => {}
                    // The subscriber knows where it stands, and comes again.
                    Err(status) => return Some((Err(status), (tape, live))),
                }
                continue;
            }
            let message = live.next().await?;
            let Ok(print) = v1::TradePrint::decode(message.payload) else { continue };
            for trade in print.trades {
                tape.newest = tape.newest.max(trade.trade_no);
                if trade.trade_no == tape.last + 1 {
                    tape.take(trade);
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
    /// The last trade that the subscriber has or that waits for it.
    last: u64,
    /// The last trade that is known to be.
    newest: u64,
    /// The next one does not follow what the subscriber has.
    reset: bool,
    waiting: VecDeque<Print>,
}

impl Tape {
    async fn page(&self, after: u64, limit: u32, latest: bool) -> Result<Vec<v1::Trade>, Status> {
        let request =
            v1::TradesRequest { symbol: self.symbol.to_string(), after_trade_no: after, limit, latest };
        let mut client = self.gateway.ctx.clients.engine(&self.session.caller());
        Ok(client.trades(request).await?.into_inner().trades)
    }

    fn take(&mut self, trade: v1::Trade) {
        let reset = std::mem::take(&mut self.reset) || trade.trade_no > self.last + 1;
        self.last = trade.trade_no;
        self.waiting.push_back(Print { trade, reset });
    }

    /// One page of what comes after the last trade.
    async fn fill(&mut self) -> Result<(), Status> {
        let page = self.page(self.last, TRADES_PAGE, false).await?;
        if page.is_empty() {
            // None of them is kept: the next one says so.
            self.newest = self.last;
        }
        for trade in page {
            if trade.trade_no > self.last {
                self.take(trade);
            }
        }
        Ok(())
    }
}
