//! The real backend: the gateway's gRPC `Terminal`, the private stream, and market data from NATS.

use super::{
    Backend,
    market::{self, Mailbox, Wanted},
    rpc::{COMMAND_DEADLINE, Gateway, QUERY_DEADLINE, Renewal, outcome, sentence},
    session::{Session, SessionStore},
};
use crate::{
    model::{
        Who,
        chart::{CANDLES_MAX, DAILY, INTERVALS},
        feed::{Link, Wire},
        page::USERS_MAX,
        remembered::{Memory, Remembered},
    },
    msg::{Cmd, Event, Flattened, Outcome},
    now_us, terminal,
};
use fafnir_proto::{connection::Connection, tls, v1};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Events that wait for the loop; beyond it the senders wait, nothing is lost.
const EVENTS_MAX: usize = 2_048;
/// Calls under way at once.
const CALLS_MAX: usize = 64;
/// Orders asked for in one page, and pages asked for.
const ORDERS_PAGE: u32 = 100;
const PAGES_MAX: usize = 20;
const FILLS_ASKED: u32 = 100;
const TRADES_ASKED: u32 = 200;
const GAP_ASKED: u32 = 500;
/// The private stream beats every 5 s; after two missed beats it is dead.
const HEARTBEAT_MAX: Duration = Duration::from_secs(12);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long ending may take.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// What outlives the terminal, and where.
#[derive(Clone, Default)]
pub struct Keeps {
    pub sessions: Option<Arc<dyn SessionStore>>,
    pub memory: Option<Arc<dyn Memory>>,
}

impl std::fmt::Debug for Keeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeps").finish_non_exhaustive()
    }
}

/// The connection to a running exchange.
#[derive(Debug)]
pub struct Live {
    gateway: Arc<Gateway>,
    events: mpsc::Receiver<Event>,
    mailbox: Arc<Mailbox>,
    wanted: watch::Sender<Wanted>,
    /// What is to be remembered.
    kept: watch::Sender<Option<Remembered>>,
    /// Events made here or taken out of the mailbox.
    ready: VecDeque<Event>,
    /// Tasks that live as long as the terminal.
    tasks: JoinSet<()>,
    calls: JoinSet<()>,
    stop: CancellationToken,
}

impl Live {
    /// Starts connecting. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The address is not a URL.
    pub fn start(
        url: &str,
        session: Option<Session>,
        store: Option<Arc<dyn SessionStore>>,
    ) -> Result<Self, tonic::transport::Error> {
        Self::secured(url, &tls::Client::default(), session, Keeps { sessions: store, memory: None })
    }

    /// The same, whose connections are secured as `tls` says.
    ///
    /// # Errors
    /// The address is not a URL.
    pub fn secured(
        url: &str,
        tls: &tls::Client,
        session: Option<Session>,
        keeps: Keeps,
    ) -> Result<Self, tonic::transport::Error> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let connection = Connection::to(url, tls)?;
        let mut ready = VecDeque::new();
        let mut known = Remembered::default();
        if let Some(session) = &session {
            let who = Who { user_id: session.user_id.clone(), email: session.email.clone() };
            if let Some(memory) = &keeps.memory {
                known = memory.recall(&who.user_id).unwrap_or_default();
                ready.push_back(Event::Recalled(Box::new(known.clone())));
            }
            ready.push_back(Event::SignedIn(who));
        }
        let gateway = Gateway::new(connection, tls.clone(), session, keeps, sender);
        *gateway.known.lock() = known;
        let gateway = Arc::new(gateway);
        let mailbox = Arc::new(Mailbox::default());
        let (wanted, wanted_of_market) = watch::channel(Wanted::default());
        let (kept, kept_of_memory) = watch::channel(None);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(until(stop.clone(), private(Arc::clone(&gateway))));
        tasks.spawn(until(stop.clone(), renewals(Arc::clone(&gateway))));
        tasks.spawn(remembers(Arc::clone(&gateway), kept_of_memory, stop.clone()));
        tasks.spawn(market::run(Arc::clone(&gateway), Arc::clone(&mailbox), wanted_of_market, stop.clone()));
        Ok(Self { gateway, events, mailbox, wanted, kept, ready, tasks, calls: JoinSet::new(), stop })
    }

    /// Ends every task and waits for them for a moment.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        self.calls.abort_all();
        let ended = timeout(SHUTDOWN_MAX, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            self.tasks.abort_all();
        }
    }

    /// True when a task panicked: the terminal must not go on with half of its connections.
    fn has_failed(&mut self) -> bool {
        let mut failed = false;
        while let Some(ended) = self.calls.try_join_next() {
            failed |= ended.is_err_and(|e| e.is_panic());
        }
        while let Some(ended) = self.tasks.try_join_next() {
            failed |= ended.is_err_and(|e| e.is_panic());
        }
        failed
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Backend for Live {
    fn submit(&mut self, cmd: Cmd) {
        let cmd = match cmd {
            Cmd::Copy(text) => return terminal::copy(&text),
            Cmd::Bell => return terminal::bell(),
            Cmd::Remember(now) => return drop(self.kept.send_replace(Some(*now))),
            cmd => cmd,
        };
        if let Cmd::Follow { symbol, quotes } = &cmd {
            self.wanted.send_replace(Wanted { symbol: symbol.clone(), quotes: quotes.clone() });
        }
        while self.calls.try_join_next().is_some() {}
        if self.calls.len() >= CALLS_MAX {
            self.ready.push_back(busy(cmd));
            return;
        }
        self.calls.spawn(carry_out(Arc::clone(&self.gateway), cmd));
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.has_failed() {
                return None;
            }
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            tokio::select! {
                event = self.events.recv() => return event,
                () = self.mailbox.wait() => {}
            }
        }
    }

    fn try_next(&mut self) -> Option<Event> {
        if self.ready.is_empty() {
            if let Ok(event) = self.events.try_recv() {
                return Some(event);
            }
            self.ready.extend(self.mailbox.take());
        }
        self.ready.pop_front()
    }
}

/// What a command that cannot be started is answered with: it was not sent.
fn busy(cmd: Cmd) -> Event {
    let text = format!("{CALLS_MAX} requests are under way already: try again");
    match cmd {
        Cmd::Place(request) => Event::Placed {
            client_order_id: request.client_order_id,
            outcome: Outcome::Refused(text),
            elapsed_us: 0,
        },
        Cmd::PlaceGroup(mut request) => Event::Placed {
            client_order_id: request.orders.drain(..).next().map(|o| o.client_order_id).unwrap_or_default(),
            outcome: Outcome::Refused(text),
            elapsed_us: 0,
        },
        Cmd::Replace(request) => {
            Event::Replaced { order_id: request.order_id, outcome: Outcome::Refused(text), elapsed_us: 0 }
        }
        Cmd::Cancel { order_id } => {
            Event::Canceled { order_id, outcome: Outcome::Refused(text), elapsed_us: 0 }
        }
        Cmd::CancelAll { symbol } => {
            Event::CanceledAll { symbol, outcome: Outcome::Refused(text), elapsed_us: 0 }
        }
        Cmd::Flatten { symbol, .. } => {
            Event::Flattened { symbol, outcome: Outcome::Refused(text), elapsed_us: 0 }
        }
        Cmd::SignIn { .. } => Event::SignInRefused(text),
        _ => Event::Unanswered { question: "request", text },
    }
}

fn elapsed_us(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX)
}

fn as_outcome<T>(answer: Result<T, Status>) -> Outcome<T> {
    answer.map_or_else(|status| outcome(&status), Outcome::Done)
}

async fn carry_out(gateway: Arc<Gateway>, cmd: Cmd) {
    let gateway = &*gateway;
    match cmd {
        Cmd::SignIn { email, password } => gateway.sign_in(email, password).await,
        Cmd::Load => load(gateway).await,
        Cmd::Follow { quotes, .. } => ask_quotes(gateway, quotes).await,
        Cmd::Book { symbol } => ask_book(gateway, symbol).await,
        Cmd::Trades { symbol, after } => ask_trades(gateway, symbol, after).await,
        Cmd::Volume { symbol } => ask_volume(gateway, symbol).await,
        Cmd::Candles { symbol, interval } => ask_candles(gateway, symbol, interval).await,
        Cmd::Performance { account_id, period, interval } => {
            ask_performance(gateway, account_id, period, interval).await;
        }
        Cmd::Days { symbol } => ask_days(gateway, symbol).await,
        Cmd::Platform => ask_platform(gateway).await,
        Cmd::Order { order_id } => ask_order(gateway, order_id).await,
        Cmd::Place(request) => place(gateway, request).await,
        Cmd::PlaceGroup(request) => place_group(gateway, request).await,
        Cmd::Replace(request) => replace(gateway, request).await,
        Cmd::Cancel { order_id } => cancel(gateway, order_id).await,
        Cmd::CancelAll { symbol } => cancel_all(gateway, symbol).await,
        Cmd::Flatten { symbol, account_ids } => flatten(gateway, symbol, account_ids).await,
        Cmd::WatchAdd { symbol } => watch_add(gateway, symbol).await,
        Cmd::WatchRemove { symbol } => watch_remove(gateway, symbol).await,
        // The terminal's own, done where they are submitted.
        Cmd::Copy(_) | Cmd::Bell | Cmd::Remember(_) => {}
    }
}

async fn ask_quotes(gateway: &Gateway, symbols: Vec<String>) {
    let message = v1::QuotesRequest { symbols };
    let answer = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.quotes(r).await }).await;
    forward(gateway, "quotes", answer, |reply| Event::Quotes(reply.quotes)).await;
}

async fn ask_book(gateway: &Gateway, symbol: String) {
    let message = v1::BookRequest { symbol, depth: 0 };
    let answer = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.book(r).await }).await;
    forward(gateway, "book", answer, |image| Event::Book { image, from_feed: false }).await;
}

/// The latest trades, or with `after` those that the feed left out.
async fn ask_trades(gateway: &Gateway, symbol: String, after: u64) {
    let limit = if after == 0 { TRADES_ASKED } else { GAP_ASKED };
    let message =
        v1::TradesRequest { symbol: symbol.clone(), after_trade_no: after, limit, latest: after == 0 };
    let answer = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.trades(r).await }).await;
    forward(gateway, "trades", answer, |reply| Event::Trades {
        symbol,
        trades: reply.trades,
        after: Some(after),
    })
    .await;
}

/// How an account went; the curve of a long span has many points.
async fn ask_performance(gateway: &Gateway, account_id: String, period: &str, interval: &str) {
    let message = v1::PerformanceRequest {
        account_id,
        period: period.to_owned(),
        interval: interval.to_owned(),
        ..Default::default()
    };
    let answer =
        gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.performance(r).await }).await;
    forward(gateway, "performance", answer, |reply| Event::Performance(Box::new(reply))).await;
}

async fn ask_days(gateway: &Gateway, symbol: String) {
    let message = v1::SymbolRequest { symbol: symbol.clone() };
    let said = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.statistics(r).await }).await;
    forward(gateway, "statistics", said, |reply| Event::Statistics(Box::new(reply))).await;
    let answer = history(gateway, &symbol).await;
    forward(gateway, "days", answer, |reply| Event::Days { symbol, candles: reply.candles }).await;
}

/// A year of daily bars.
async fn history(gateway: &Gateway, symbol: &str) -> Result<v1::CandlesReply, Status> {
    let message = v1::HistoryRequest { symbol: symbol.to_owned(), period: "1Y".to_owned() };
    gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.history(r).await }).await
}

async fn ask_platform(gateway: &Gateway) {
    let empty = v1::Empty {};
    let figures = gateway.call(QUERY_DEADLINE, empty, |mut c, r| async move { c.dashboard(r).await }).await;
    let users = if figures.is_ok() {
        let message = v1::SearchUsersRequest { limit: USERS_MAX, ..Default::default() };
        let users = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.users(r).await }).await;
        // Who may see the figures may not see the users of necessity.
        users.map(|reply| reply.users).unwrap_or_default()
    } else {
        Vec::new()
    };
    forward(gateway, "platform", figures, |figures| Event::Platform { figures: Box::new(figures), users })
        .await;
}

async fn ask_candles(gateway: &Gateway, symbol: String, interval: &'static str) {
    if interval == DAILY {
        let answer = history(gateway, &symbol).await;
        let event = |reply: v1::CandlesReply| Event::Candles { symbol, interval, candles: reply.candles };
        return forward(gateway, "candles", answer, event).await;
    }
    let length = INTERVALS.iter().find(|i| i.0 == interval).map_or(60_000_000, |i| i.1);
    let now = now_us();
    let message = v1::CandlesRequest {
        symbol: symbol.clone(),
        interval: interval.into(),
        // The newest bars, whenever they were: between two sessions there are none.
        from_us: 0,
        to_us: now + length,
        limit: CANDLES_MAX as u32,
    };
    let answer = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.candles(r).await }).await;
    forward(gateway, "candles", answer, |reply| Event::Candles { symbol, interval, candles: reply.candles })
        .await;
}

async fn ask_volume(gateway: &Gateway, symbol: String) {
    let message = v1::SymbolRequest { symbol };
    let answer =
        gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.volume_at_price(r).await }).await;
    forward(gateway, "volume", answer, Event::Volume).await;
}

async fn ask_order(gateway: &Gateway, order_id: String) {
    let message = v1::GetOrderRequest { order_id, ..Default::default() };
    let answer = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.order(r).await }).await;
    forward(gateway, "order", answer, |reply| Event::Orders {
        orders: reply.order.into_iter().collect(),
        open_complete: false,
    })
    .await;
}

async fn place(gateway: &Gateway, request: v1::PlaceOrderRequest) {
    let started = Instant::now();
    let client_order_id = request.client_order_id.clone();
    let answer = gateway.call(COMMAND_DEADLINE, request, |mut c, r| async move { c.place(r).await }).await;
    let outcome = as_outcome(answer.and_then(order_of));
    gateway.send(Event::Placed { client_order_id, outcome, elapsed_us: elapsed_us(started) }).await;
}

/// The answer is the first order's; the others come with the private stream as well.
async fn place_group(gateway: &Gateway, request: v1::PlaceGroupRequest) {
    let started = Instant::now();
    let client_order_id = request.orders.first().map(|o| o.client_order_id.clone()).unwrap_or_default();
    let answer =
        gateway.call(COMMAND_DEADLINE, request, |mut c, r| async move { c.place_group(r).await }).await;
    let outcome = match answer {
        Ok(mut reply) if !reply.orders.is_empty() => {
            let first = reply.orders.remove(0);
            gateway.send(Event::Orders { orders: reply.orders, open_complete: false }).await;
            Outcome::Done(first)
        }
        Ok(_) => outcome(&Status::internal("the answer holds no order")),
        Err(status) => outcome(&status),
    };
    gateway.send(Event::Placed { client_order_id, outcome, elapsed_us: elapsed_us(started) }).await;
}

async fn replace(gateway: &Gateway, request: v1::ReplaceOrderRequest) {
    let started = Instant::now();
    let order_id = request.order_id.clone();
    let answer = gateway.call(COMMAND_DEADLINE, request, |mut c, r| async move { c.replace(r).await }).await;
    let outcome = as_outcome(answer.and_then(order_of));
    gateway.send(Event::Replaced { order_id, outcome, elapsed_us: elapsed_us(started) }).await;
}

async fn cancel(gateway: &Gateway, order_id: String) {
    let started = Instant::now();
    let message = v1::CancelOrderRequest { order_id: order_id.clone(), ..Default::default() };
    let answer = gateway.call(COMMAND_DEADLINE, message, |mut c, r| async move { c.cancel(r).await }).await;
    let outcome = as_outcome(answer.and_then(order_of));
    gateway.send(Event::Canceled { order_id, outcome, elapsed_us: elapsed_us(started) }).await;
}

async fn cancel_all(gateway: &Gateway, symbol: String) {
    let started = Instant::now();
    let message = v1::CancelAllRequest { symbol: symbol.clone(), ..Default::default() };
    let answer =
        gateway.call(COMMAND_DEADLINE, message, |mut c, r| async move { c.cancel_all(r).await }).await;
    let outcome = as_outcome(answer.map(|reply| reply.requested));
    gateway.send(Event::CanceledAll { symbol, outcome, elapsed_us: elapsed_us(started) }).await;
}

async fn flatten(gateway: &Gateway, symbol: String, account_ids: Vec<String>) {
    let started = Instant::now();
    let outcome = flatten_accounts(gateway, &symbol, account_ids, started).await;
    gateway.send(Event::Flattened { symbol, outcome, elapsed_us: elapsed_us(started) }).await;
}

/// One account after the other, all within one deadline. The first that has no answer ends it: asking again is safe.
async fn flatten_accounts(
    gateway: &Gateway,
    symbol: &str,
    account_ids: Vec<String>,
    started: Instant,
) -> Outcome<Flattened> {
    let mut done: Option<Flattened> = None;
    let mut refused = None;
    for account_id in account_ids {
        let message = v1::FlattenRequest { account_id, symbol: symbol.to_owned(), ..Default::default() };
        let left = COMMAND_DEADLINE.saturating_sub(started.elapsed());
        let answer = gateway.call(left, message, |mut c, r| async move { c.flatten(r).await }).await;
        match as_outcome(answer) {
            Outcome::Done(reply) => done.get_or_insert_default().add(reply),
            Outcome::Refused(text) => refused = refused.or(Some(text)),
            Outcome::Unknown(text) => return Outcome::Unknown(text),
        }
    }
    let refused = refused.unwrap_or_default();
    match done {
        None => Outcome::Refused(refused),
        Some(done) if done.why.is_empty() => Outcome::Done(Flattened { why: refused, ..done }),
        Some(done) => Outcome::Done(done),
    }
}

async fn watch_add(gateway: &Gateway, symbol: String) {
    let message = v1::SymbolRequest { symbol: symbol.clone() };
    let answer =
        gateway.call(COMMAND_DEADLINE, message, |mut c, r| async move { c.add_to_watchlist(r).await }).await;
    let outcome = as_outcome(answer.map(|_| ()));
    gateway.send(Event::WatchChanged { symbol, added: true, outcome }).await;
}

async fn watch_remove(gateway: &Gateway, symbol: String) {
    let message = v1::SymbolRequest { symbol: symbol.clone() };
    let answer = gateway
        .call(COMMAND_DEADLINE, message, |mut c, r| async move { c.remove_from_watchlist(r).await })
        .await;
    let outcome = as_outcome(answer.map(|_| ()));
    gateway.send(Event::WatchChanged { symbol, added: false, outcome }).await;
}

fn order_of(reply: v1::OrderReply) -> Result<v1::Order, Status> {
    reply.order.ok_or_else(|| Status::internal("the answer holds no order"))
}

async fn forward<R>(
    gateway: &Gateway,
    question: &'static str,
    answer: Result<R, Status>,
    event: impl FnOnce(R) -> Event,
) {
    let event = match answer {
        Ok(reply) => event(reply),
        Err(status) => Event::Unanswered { question, text: sentence(&status) },
    };
    gateway.send(event).await;
}

/// Everything that a freshly signed-in terminal shows.
async fn load(gateway: &Gateway) {
    gateway.recall().await;
    let empty = v1::Empty {};
    let instruments =
        gateway.call(QUERY_DEADLINE, empty, |mut c, r| async move { c.instruments(r).await }).await;
    forward(gateway, "instruments", instruments, |reply| Event::Instruments(reply.instruments)).await;
    let watchlist = gateway.call(QUERY_DEADLINE, empty, |mut c, r| async move { c.watchlist(r).await }).await;
    forward(gateway, "watchlist", watchlist, |reply| {
        Event::Watchlist(reply.items.into_iter().map(|i| i.symbol).collect())
    })
    .await;
    load_private(gateway).await;
}

/// The user's orders, fills, positions and accounts as they are.
async fn load_private(gateway: &Gateway) {
    let empty = v1::Empty {};
    let accounts = gateway.call(QUERY_DEADLINE, empty, |mut c, r| async move { c.accounts(r).await }).await;
    forward(gateway, "accounts", accounts, |reply| Event::Accounts(reply.accounts)).await;
    let positions = gateway.call(QUERY_DEADLINE, empty, |mut c, r| async move { c.positions(r).await }).await;
    forward(gateway, "positions", positions, |reply| Event::Positions(reply.holdings)).await;
    let open = orders(gateway, true).await;
    forward(gateway, "orders", open, |(orders, open_complete)| Event::Orders { orders, open_complete }).await;
    let recent = orders(gateway, false).await;
    forward(gateway, "orders", recent, |(orders, _)| Event::Orders { orders, open_complete: false }).await;
    let message = v1::ListFillsRequest { limit: FILLS_ASKED, ..Default::default() };
    let fills = gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.fills(r).await }).await;
    forward(gateway, "fills", fills, |reply| Event::Fills(reply.fills)).await;
}

/// All open orders page by page, or the newest page of all; and whether the pages came to their end.
async fn orders(gateway: &Gateway, open_only: bool) -> Result<(Vec<v1::Order>, bool), Status> {
    let mut orders: Vec<v1::Order> = Vec::new();
    for _ in 0..PAGES_MAX {
        let before_id = orders.last().map(|o| o.id.clone()).unwrap_or_default();
        let message =
            v1::ListOrdersRequest { open_only, limit: ORDERS_PAGE, before_id, ..Default::default() };
        let page =
            gateway.call(QUERY_DEADLINE, message, |mut c, r| async move { c.orders(r).await }).await?.orders;
        let is_last = page.len() < ORDERS_PAGE as usize;
        orders.extend(page);
        if is_last || !open_only {
            return Ok((orders, open_only && is_last));
        }
    }
    Ok((orders, false))
}

/// Keeps what is to be remembered as it changes, and at the end what has changed last.
async fn remembers(
    gateway: Arc<Gateway>,
    mut kept: watch::Receiver<Option<Remembered>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            // In this order: what has changed before the end is kept.
            biased;
            changed = kept.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let now = kept.borrow_and_update().clone();
        if let Some(now) = now {
            gateway.remember(now).await;
        }
    }
}

/// Renews the session before its token ends.
async fn renewals(gateway: Arc<Gateway>) {
    let mut session = gateway.session.subscribe();
    let mut asked_for_address = false;
    loop {
        let (token, mut renew_us, has_address) = {
            let Ok(current) = session.wait_for(Option::is_some).await else { return };
            let of = |s: &Session| (s.access_token.clone(), s.renew_us(), !s.market_data_url.is_empty());
            current.as_ref().map(of).unwrap_or_default()
        };
        // A kept session may come without the address of the market data: a renewal brings it.
        if !has_address && !std::mem::replace(&mut asked_for_address, true) {
            renew_us = 0;
        }
        let wait = u64::try_from(renew_us.saturating_sub(now_us())).unwrap_or(0);
        tokio::select! {
            () = sleep(Duration::from_micros(wait)) => {}
            changed = session.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        if gateway.renew(&token).await.is_err() {
            sleep(RETRY_MAX).await;
        }
    }
}

/// Where the private stream is to go on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Position {
    user_id: String,
    order_seq: u64,
    portfolio_seq: u64,
    /// Both numbers are known.
    known: bool,
}

impl Position {
    /// Takes the numbers of an update; true when one was left out.
    fn follow(&mut self, update: &v1::PrivateUpdate) -> bool {
        use v1::private_update::Kind;
        let mut gap = false;
        let mut take = |last: &mut u64, seq: u64| {
            gap |= *last != 0 && seq > *last + 1;
            *last = (*last).max(seq);
        };
        match &update.kind {
            Some(Kind::Order(update)) => take(&mut self.order_seq, update.user_seq),
            Some(Kind::Portfolio(update)) => take(&mut self.portfolio_seq, update.user_seq),
            Some(Kind::Heartbeat(beat)) => {
                self.known = true;
                // A beat ahead of what arrived means that something was left out.
                gap |= self.order_seq != 0 && beat.order_seq > self.order_seq;
                gap |= self.portfolio_seq != 0 && beat.portfolio_seq > self.portfolio_seq;
                self.order_seq = self.order_seq.max(beat.order_seq);
                self.portfolio_seq = self.portfolio_seq.max(beat.portfolio_seq);
            }
            None => {}
        }
        gap
    }
}

/// Follows the private stream for ever: resumes where it was, loads everything again after a gap.
async fn private(gateway: Arc<Gateway>) {
    let mut session = gateway.session.subscribe();
    let mut position = Position::default();
    let mut retry = RETRY_MIN;
    loop {
        let user_id = {
            let Ok(current) = session.wait_for(Option::is_some).await else { return };
            current.as_ref().map(|s| s.user_id.clone()).unwrap_or_default()
        };
        if position.user_id != user_id {
            position = Position { user_id, ..Position::default() };
        }
        gateway.send(Event::Link(Wire::Grpc, Link::Connecting, String::new())).await;
        match stream(&gateway, &mut position, &mut retry).await {
            End::Renew(token) => match gateway.renew(&token).await {
                Ok(()) => continue,
                Err(Renewal::Ended) => {
                    gateway.send(Event::Link(Wire::Grpc, Link::Down, "signed out".into())).await;
                }
                Err(Renewal::NoAnswer(why)) => gateway.send(Event::Link(Wire::Grpc, Link::Down, why)).await,
            },
            End::Lost(why) => gateway.send(Event::Link(Wire::Grpc, Link::Down, why)).await,
        }
        sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

enum End {
    /// The token has ended.
    Renew(String),
    Lost(String),
}

async fn stream(gateway: &Arc<Gateway>, position: &mut Position, retry: &mut Duration) -> End {
    let message = v1::PrivateRequest {
        after_order_seq: position.order_seq,
        after_portfolio_seq: position.portfolio_seq,
        from_now: !position.known,
    };
    let (request, token) = match gateway.request(message) {
        Ok(request) => request,
        Err(status) => return End::Lost(sentence(&status)),
    };
    let end = |status: Status| {
        if status.code() == Code::Unauthenticated {
            End::Renew(token.clone())
        } else {
            End::Lost(sentence(&status))
        }
    };
    let mut client = gateway.client();
    let mut updates = match timeout(QUERY_DEADLINE, client.private(request)).await {
        Err(_) => return End::Lost("the gateway does not answer".into()),
        Ok(Err(status)) => return end(status),
        Ok(Ok(reply)) => reply.into_inner(),
    };
    *retry = RETRY_MIN;
    gateway.send(Event::Link(Wire::Grpc, Link::Up, String::new())).await;
    // The stream stands, so nothing is missed between this picture and its first update.
    let mut loading: JoinSet<()> = JoinSet::new();
    let reload = |loading: &mut JoinSet<()>| {
        let gateway = Arc::clone(gateway);
        loading.spawn(async move { load_private(&gateway).await });
    };
    reload(&mut loading);
    loop {
        match timeout(HEARTBEAT_MAX, updates.message()).await {
            Err(_) => return End::Lost("no heartbeat".into()),
            Ok(Err(status)) => return end(status),
            Ok(Ok(None)) => return End::Lost("the gateway closed the stream".into()),
            Ok(Ok(Some(update))) => {
                if position.follow(&update) && loading.is_empty() {
                    reload(&mut loading);
                }
                while loading.try_join_next().is_some() {}
                // A heartbeat says how the exchange is.
                if update.kind.is_some() {
                    gateway.send(Event::Private(update)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::private_update::Kind;

    fn order(user_seq: u64) -> v1::PrivateUpdate {
        let order = v1::OrderUpdate { user_seq, ..Default::default() };
        v1::PrivateUpdate { kind: Some(Kind::Order(order)), reset: false }
    }

    fn beat(order_seq: u64, portfolio_seq: u64) -> v1::PrivateUpdate {
        v1::PrivateUpdate {
            kind: Some(Kind::Heartbeat(v1::Heartbeat {
                time_us: 0,
                order_seq,
                portfolio_seq,
                ..Default::default()
            })),
            reset: false,
        }
    }

    #[test]
    fn a_left_out_private_update_is_noticed() {
        let mut position = Position::default();
        assert!(!position.follow(&beat(4, 2)));
        assert!(!position.follow(&order(5)));
        assert!(position.follow(&order(7)));
        assert!(!position.follow(&beat(7, 2)));
        assert!(position.follow(&beat(8, 2)));
        assert_eq!((position.order_seq, position.portfolio_seq, position.known), (8, 2, true));
    }
}
