//! Public market data from NATS: the connection's own events, the subscriptions, a mailbox that conflates.

use super::rpc::Gateway;
use crate::{
    model::feed::{Link, Wire},
    msg::Event,
};
use fafnir_proto::{subject, v1};
use futures::StreamExt as _;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A dead connection is noticed after two unanswered pings.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A connection that is down this long is made anew, with what the session then says about its address.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Trades kept between two looks of the loop; more leave a gap that the gateway fills.
const TRADES_MAX: usize = 4_000;
const CONNECTION_EVENTS_MAX: usize = 64;
const SUBSCRIPTION_MESSAGES_MAX: usize = 1_024;

/// What the subscriptions should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub symbol: String,
    pub quotes: Vec<String>,
}

impl Wanted {
    fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<String> = self.quotes.iter().map(|s| subject::quotes(s)).collect();
        if !self.symbol.is_empty() {
            subjects.push(subject::book(&self.symbol));
            subjects.push(subject::trades(&self.symbol));
        }
        subjects
    }
}

/// Market data that the loop has not seen yet: the newest image and the newest quotes, but every trade.
#[derive(Debug, Default)]
pub struct Mailbox {
    slots: Mutex<Slots>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    books: BTreeMap<String, v1::BookImage>,
    quotes: BTreeMap<String, v1::Quote>,
    trades: BTreeMap<String, Vec<v1::Trade>>,
    trade_count: usize,
}

impl Mailbox {
    fn put(&self, change: impl FnOnce(&mut Slots)) {
        change(&mut self.slots.lock());
        self.arrived.notify_one();
    }

    fn put_message(&self, subject: &str, payload: &[u8]) -> Result<(), prost::DecodeError> {
        match subject::Market::of(subject) {
            Some(subject::Market::Book) => {
                let image = v1::BookImage::decode(payload)?;
                self.put(|slots| {
                    slots.books.insert(image.symbol.clone(), image);
                });
            }
            Some(subject::Market::Trades) => {
                let print = v1::TradePrint::decode(payload)?;
                self.put(|slots| {
                    if slots.trade_count + print.trades.len() > TRADES_MAX {
                        slots.trades.clear();
                        slots.trade_count = 0;
                    }
                    slots.trade_count += print.trades.len();
                    slots.trades.entry(print.symbol).or_default().extend(print.trades);
                });
            }
            Some(subject::Market::Quote) => {
                let quote = v1::Quote::decode(payload)?;
                self.put(|slots| {
                    slots.quotes.insert(quote.symbol.clone(), quote);
                });
            }
            // Nothing else was subscribed.
            None => {}
        }
        Ok(())
    }

    /// Takes what is there.
    pub fn take(&self) -> Vec<Event> {
        let slots = std::mem::take(&mut *self.slots.lock());
        let mut events: Vec<Event> = Vec::new();
        for (symbol, trades) in slots.trades {
            events.push(Event::Trades { symbol, trades, after: None });
        }
        events.extend(slots.books.into_values().map(|image| Event::Book { image, from_feed: true }));
        if !slots.quotes.is_empty() {
            events.push(Event::Quotes(slots.quotes.into_values().collect()));
        }
        events
    }

    /// Waits until something was put in since the last wait.
    pub async fn wait(&self) {
        self.arrived.notified().await;
    }
}

/// Keeps the connection and its subscriptions until `stop`.
pub async fn run(
    gateway: Arc<Gateway>,
    mailbox: Arc<Mailbox>,
    mut wanted: watch::Receiver<Wanted>,
    stop: CancellationToken,
) {
    let mut retry = RETRY_MIN;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connect(&gateway) => connected,
        };
        let why = match connected {
            Ok(connection) => {
                retry = RETRY_MIN;
                tokio::select! {
                    () = stop.cancelled() => return,
                    why = follow(connection, &gateway, &mailbox, &mut wanted) => why,
                }
            }
            Err(why) => why,
        };
        gateway.send(Event::Link(Wire::Nats, Link::Down, why)).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(retry) => {}
        }
        // The address may be out of date: after a restart the market-data password is another one.
        if retry >= RETRY_MAX
            && let Some(token) = gateway.token()
        {
            let _ = gateway.renew(&token).await;
        }
        retry = (retry * 2).min(RETRY_MAX);
    }
}

struct Connection {
    client: async_nats::Client,
    events: mpsc::Receiver<async_nats::Event>,
    url: String,
}

/// A part of an address without its escapes.
fn plain(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

async fn connect(gateway: &Gateway) -> Result<Connection, String> {
    let mut session = gateway.session.subscribe();
    let url = match session.wait_for(|s| s.as_ref().is_some_and(|s| !s.market_data_url.is_empty())).await {
        Ok(session) => session.as_ref().map(|s| s.market_data_url.clone()).unwrap_or_default(),
        Err(_) => return Err("the terminal ends".into()),
    };
    gateway.send(Event::Link(Wire::Nats, Link::Connecting, String::new())).await;
    let (report, events) = mpsc::channel(CONNECTION_EVENTS_MAX);
    let address: async_nats::ServerAddr =
        url.parse().map_err(|_| "the address of the market data is not a URL")?;
    let mut options = async_nats::ConnectOptions::new();
    // The client does not take user and password out of the address by itself.
    if let (Some(user), Some(password)) = (address.username(), address.password()) {
        options = options.user_and_password(plain(user), plain(password));
    }
    if gateway.tls.is_private() || address.tls_required() {
        let config = gateway.tls.config().map_err(|e| e.to_string())?;
        options = options.require_tls(address.tls_required()).tls_client_config((*config).clone());
    }
    let options = options
        .name("fafnir-trade")
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .reconnect_delay_callback(|attempt| RETRY_MIN * u32::try_from(attempt.clamp(1, 20)).unwrap_or(20))
        .event_callback(move |event| {
            let report = report.clone();
            async move {
                let _ = report.send(event).await;
            }
        });
    // The error of the client names neither user nor password.
    let client = options
        .connect(address)
        .await
        .map_err(|e| fafnir_proto::tls::sentence(&e).unwrap_or_else(|| e.to_string()))?;
    Ok(Connection { client, events, url })
}

/// Serves one connection until it is given up; the answer says why.
async fn follow(
    mut connection: Connection,
    gateway: &Gateway,
    mailbox: &Arc<Mailbox>,
    wanted: &mut watch::Receiver<Wanted>,
) -> String {
    let mut session = gateway.session.subscribe();
    let mut pumps: JoinSet<()> = JoinSet::new();
    let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let mut down_since: Option<Instant> = None;
    wanted.mark_changed();
    gateway.send(Event::Link(Wire::Nats, Link::Up, String::new())).await;
    loop {
        let give_up = down_since.map_or_else(|| Instant::now() + Duration::from_hours(1), |at| at + GIVE_UP);
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return "the terminal ends".into();
                }
                let subjects = wanted.borrow_and_update().subjects();
                running.retain(|subject, pump| {
                    let keep = subjects.contains(subject);
                    if !keep {
                        pump.abort();
                    }
                    keep
                });
                for subject in subjects {
                    if running.contains_key(&subject) {
                        continue;
                    }
                    match connection.client.subscribe(subject.clone()).await {
                        Ok(subscription) => {
                            let pump = pumps.spawn(pump(subscription, Arc::clone(mailbox)));
                            running.insert(subject, pump);
                        }
                        Err(e) => return e.to_string(),
                    }
                }
            }
            event = connection.events.recv() => match event {
                Some(async_nats::Event::Connected) => {
                    down_since = None;
                    gateway.send(Event::Link(Wire::Nats, Link::Up, String::new())).await;
                }
                Some(async_nats::Event::Disconnected) => {
                    down_since.get_or_insert_with(Instant::now);
                    gateway.send(Event::Link(Wire::Nats, Link::Down, "connection lost".into())).await;
                }
                Some(async_nats::Event::Closed) | None => return "connection closed".into(),
                // Each attempt to connect again reports itself; that the connection is down is told already.
                Some(async_nats::Event::ClientError(_)) if down_since.is_some() => {}
                Some(other) => {
                    let text = other.to_string();
                    gateway.send(Event::Unanswered { question: "market data", text }).await;
                }
            },
            _ = session.changed() => {
                let now = session.borrow_and_update().as_ref().map(|s| s.market_data_url.clone());
                match now {
                    None => return "signed out".into(),
                    Some(url) if url != connection.url && !url.is_empty() => return "the address changed".into(),
                    Some(_) => {}
                }
            }
            ended = pumps.join_next(), if !pumps.is_empty() => {
                if let Some(Err(e)) = ended && e.is_panic() {
                    return "a market-data task failed".into();
                }
            }
            _ = timeout_at(give_up, std::future::pending::<()>()), if down_since.is_some() => {
                return "no connection".into();
            }
        }
    }
}

async fn pump(mut subscription: async_nats::Subscriber, mailbox: Arc<Mailbox>) {
    while let Some(message) = subscription.next().await {
        if let Err(error) = mailbox.put_message(&message.subject, &message.payload) {
            tracing::warn!(subject = %message.subject, %error, "a market-data message cannot be read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_and_quotes_are_conflated_and_trades_are_not() {
        let mailbox = Mailbox::default();
        for book_seq in 1..=3 {
            let image = v1::BookImage { symbol: "A".into(), book_seq, ..Default::default() };
            mailbox.put_message("market.book.A", &image.encode_to_vec()).unwrap();
            let trade = v1::Trade { symbol: "A".into(), trade_no: book_seq, ..Default::default() };
            let print = v1::TradePrint { symbol: "A".into(), epoch: 1, trades: vec![trade] };
            mailbox.put_message("market.trades.A", &print.encode_to_vec()).unwrap();
        }
        let events = mailbox.take();
        assert!(matches!(&events[0], Event::Trades { trades, .. } if trades.len() == 3));
        assert!(matches!(&events[1], Event::Book { image, from_feed: true } if image.book_seq == 3));
        assert_eq!(events.len(), 2);
        assert!(mailbox.take().is_empty());
    }

    #[test]
    fn the_symbol_decides_the_subjects() {
        let wanted = Wanted { symbol: "BRK.B".into(), quotes: vec!["AAPL".into()] };
        assert_eq!(wanted.subjects(), ["market.quotes.AAPL", "market.book.BRK_B", "market.trades.BRK_B"]);
        assert!(Wanted::default().subjects().is_empty());
    }
}
