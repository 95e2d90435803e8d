//! The live backend against a small exchange: sign-in, orders, private updates, market data, what breaks and comes back.

use crate::{
    common::*,
    exchange::{Gateway, KEY, Nats, PASSWORD},
};
use crossterm::event::{Event as InputEvent, KeyCode, KeyEvent, KeyModifiers};
use fafnir_proto::v1::{self, OrderState, Side};
use fafnir_tui::{
    Session, SessionLock, SessionStore, Theme,
    backend::{Backend, live::Live},
    model::{
        Ids, Model, Screen,
        feed::{Freshness, Link},
        ticket::State,
    },
    msg::{Cmd, Event, Msg},
    update::update,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

const DEADLINE: Duration = Duration::from_secs(20);

/// A terminal without a screen.
struct Desk {
    model: Model,
    live: Live,
    started: std::time::Instant,
}

impl Desk {
    fn open(url: &str, session: Option<Session>, store: Option<Arc<dyn SessionStore>>) -> Self {
        let live = Live::start(url, session, store).unwrap();
        let model = Model::new(START_US, (120, 40), Theme::default(), Ids::new("desk"));
        Self { model, live, started: std::time::Instant::now() }
    }

    fn apply(&mut self, msg: Msg) {
        let now = START_US + i64::try_from(self.started.elapsed().as_micros()).unwrap();
        for msg in [Msg::Clock(now), msg] {
            for cmd in update(&mut self.model, msg) {
                self.live.submit(cmd);
            }
        }
    }

    fn press(&mut self, code: KeyCode) {
        self.apply(Msg::Input(InputEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))));
    }

    fn keys(&mut self, text: &str) {
        text.chars().for_each(|c| self.press(KeyCode::Char(c)));
    }

    /// Applies events until the model is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Model) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !wanted(&self.model) {
            // The clock goes on without events too, for what is stale after a while.
            let turn = deadline.min(Instant::now() + Duration::from_millis(200));
            match timeout_at(turn, self.live.next()).await {
                Ok(event) => self.apply(Msg::Backend(event.expect("the backend lives"))),
                Err(_) if Instant::now() < deadline => {
                    let now = START_US + i64::try_from(self.started.elapsed().as_micros()).unwrap();
                    self.apply(Msg::Clock(now));
                }
                Err(late) => panic!("{what} did not happen, {late}; log: {:#?}", self.model.log),
            }
        }
    }

    async fn is_ready(&mut self, nats: &mut Nats) {
        self.until("market data and accounts", |m| {
            m.links.nats == Link::Up
                && m.links.grpc == Link::Up
                && m.book.is_some()
                && !m.holdings.accounts.is_empty()
        })
        .await;
        while nats.subscribed.recv().await.expect("the server lives") != "market.trades.AAPL" {}
    }
}

async fn exchange() -> (Gateway, Nats) {
    let nats = Nats::start().await;
    let gateway = Gateway::start(nats.url("secret")).await;
    (gateway, nats)
}

#[tokio::test]
async fn an_api_key_opens_the_terminal_and_a_revoked_one_ends_at_the_sign_in() {
    let (gateway, mut nats) = exchange().await;
    let token = KEY.trim_start_matches("Basic ").to_owned();
    let who =
        v1::TerminalSession { user_id: "u".into(), email: "user@test.com".into(), ..Default::default() };
    // Without the address of the market data: the terminal asks who it is, and is told.
    let mut desk = Desk::open(&gateway.url(), Some(Session::of_key(who, token)), None);
    desk.is_ready(&mut nats).await;
    assert_eq!(gateway.books.lock().unwrap().refreshes, 0, "a key has nothing to renew");
    gateway.books.lock().unwrap().is_key_revoked = true;
    let gateway = gateway.restart().await;
    desk.until("the sign-in screen", |m| m.screen == Screen::SignIn).await;
    desk.live.shutdown().await;
    drop(gateway);
}

/// What the gateway would have handed out, with a token of choice.
fn session(gateway: &Gateway, access: &str) -> Session {
    let url = gateway.books.lock().unwrap().market_url.clone();
    let reply = v1::TerminalSession {
        access_token: access.into(),
        refresh_token: "refresh-1".into(),
        expires_in_s: 600,
        user_id: "u".into(),
        email: "user@test.com".into(),
        market_data_url: url,
        ..Default::default()
    };
    // A time far ahead: the tests that are about renewal do it by a refused token.
    Session::new(reply, i64::MAX / 4)
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<Session>>>);

impl SessionStore for Kept {
    fn lock(&self) -> anyhow::Result<Box<dyn SessionLock>> {
        Ok(Box::new(self.clone()))
    }
}

impl SessionLock for Kept {
    fn load(&mut self) -> anyhow::Result<Option<Session>> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn store(&mut self, session: &Session) -> anyhow::Result<()> {
        *self.0.lock().unwrap() = Some(session.clone());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_sign_in_screen_to_a_fill() {
    let (gateway, mut nats) = exchange().await;
    let kept = Kept::default();
    let mut desk = Desk::open(&gateway.url(), None, Some(Arc::new(kept.clone())));
    desk.keys("user@test.com");
    desk.press(KeyCode::Tab);
    desk.keys("wrong");
    desk.press(KeyCode::Enter);
    desk.until("a refusal", |m| m.sign_in.refused.is_some()).await;
    assert_eq!(desk.model.sign_in.refused.as_deref(), Some("wrong e-mail or password"));
    desk.keys(PASSWORD);
    desk.press(KeyCode::Enter);
    desk.until("the trading screen", |m| m.screen == Screen::Trading).await;
    assert_eq!(kept.0.lock().unwrap().as_ref().map(|s| s.access_token.as_str()), Some("access-1"));
    desk.is_ready(&mut nats).await;

    nats.publish("market.book.AAPL", &book(5, START_US));
    desk.until("the book of the feed", |m| m.book.as_ref().is_some_and(|b| b.book_seq == 5)).await;
    let late =
        v1::TradePrint { symbol: "AAPL".into(), epoch: 1, trades: vec![trade(10, 2_310_700, 4, Side::Buy)] };
    nats.publish("market.trades.AAPL", &late);
    desk.until("the gap filled by the gateway", |m| m.tape.last_number() == 10 && !m.tape.has_gap()).await;

    desk.keys("B");
    desk.press(KeyCode::Enter);
    desk.press(KeyCode::Enter);
    desk.until("the order", |m| m.ticket.is_none() && m.holdings.orders.len() == 1).await;
    assert_eq!(gateway.books.lock().unwrap().placed.len(), 1);
    assert!(desk.model.links.percentiles().is_some());

    let mut filled = desk.model.holdings.orders.values().next().cloned().unwrap();
    filled.state = OrderState::Filled.into();
    filled.filled_e4 = filled.quantity_e4;
    let fill = v1::Fill {
        exec_id: "AAPL:30".into(),
        order_id: filled.id.clone(),
        symbol: "AAPL".into(),
        ..Default::default()
    };
    gateway.push(8, filled, Some(fill));
    desk.until("the fill", |m| m.holdings.fills.len() == 1).await;
    assert_eq!(
        desk.model.holdings.orders.values().next().map(fafnir_proto::v1::Order::state),
        Some(OrderState::Filled)
    );
    desk.live.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_does_not_take_everything_is_told_by_the_heartbeat() {
    let (gateway, mut nats) = exchange().await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.is_ready(&mut nats).await;
    gateway.beat("the disk has 9 MiB free: only cancels are taken", true);
    desk.until("the mark", |m| m.limited && m.notice.ends_with("only cancels are taken")).await;
    gateway.beat("", false);
    desk.until("its end", |m| !m.limited && m.notice.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_answer_was_lost_is_asked_for_again_and_exists_once() {
    let (gateway, mut nats) = exchange().await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.is_ready(&mut nats).await;
    gateway.books.lock().unwrap().fail_place = Some(tonic::Code::DeadlineExceeded);
    desk.keys("B");
    desk.press(KeyCode::Enter);
    desk.until("an unknown outcome", |m| {
        m.ticket.as_ref().is_some_and(|t| matches!(t.state, State::Unknown(_)))
    })
    .await;
    desk.press(KeyCode::Enter);
    desk.until("the order", |m| m.ticket.is_none()).await;
    let books = gateway.books.lock().unwrap();
    assert_eq!((books.placed.len(), books.orders.len()), (2, 1));
    assert_eq!(books.placed[0], books.placed[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replace_whose_answer_was_lost_is_asked_for_again_and_happens_once() {
    let (gateway, mut nats) = exchange().await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.is_ready(&mut nats).await;
    desk.keys("B");
    desk.press(KeyCode::Enter);
    desk.until("the order", |m| m.ticket.is_none() && m.holdings.orders.len() == 1).await;
    gateway.books.lock().unwrap().fail_place = Some(tonic::Code::DeadlineExceeded);
    desk.keys("nr");
    desk.press(KeyCode::Tab);
    desk.press(KeyCode::Left);
    desk.press(KeyCode::Enter);
    desk.until("an unknown outcome", |m| {
        m.ticket.as_ref().is_some_and(|t| matches!(t.state, State::Unknown(_)))
    })
    .await;
    desk.press(KeyCode::Enter);
    desk.until("a refusal of the version", |m| m.ticket.as_ref().is_some_and(|t| t.refused.is_some())).await;
    let books = gateway.books.lock().unwrap();
    assert_eq!((books.replaced.len(), books.orders[0].version), (2, 2));
    assert_eq!(books.replaced[0], books.replaced[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flatten_asks_the_gateway_for_each_account_and_shows_what_is_left() {
    let (gateway, mut nats) = exchange().await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.is_ready(&mut nats).await;
    nats.publish("market.book.AAPL", &book(5, START_US));
    desk.until("live", |m| m.feed.freshness(m.now_us, m.links.nats) == Freshness::Live).await;
    let second = v1::Account { id: "second".into(), ..account(1) };
    desk.apply(Msg::Backend(Event::Accounts(vec![second])));
    desk.apply(Msg::Backend(Event::Positions(vec![holding("AAPL", 42, 9_600_000_000)])));
    let left = |shares: i64, message: &str| {
        Ok(v1::FlattenReply { left_e4: shares * 10_000, message: message.into(), ..Default::default() })
    };
    let sold = order("ffff", Side::Sell, 42, 0, OrderState::Filled);
    let flat = Ok(v1::FlattenReply { order: Some(sold), ..Default::default() });
    let refused = Err(Status::resource_exhausted("too many orders"));
    let silent = Err(Status::deadline_exceeded("no answer in time"));
    for (answers, told, asked) in [
        (vec![flat, left(0, "")], "AAPL is flat", 2),
        (vec![left(30, "no bids"), left(20, "halted")], "NOT FLAT: 50 AAPL left (no bids)", 2),
        (vec![left(0, ""), refused.clone()], "NOT FLAT: AAPL (too many orders)", 2),
        (vec![refused.clone(), refused], "AAPL not flattened: too many orders", 2),
        (vec![silent], "AAPL: no answer to the flatten: no answer in time; F asks again", 1),
    ] {
        gateway.books.lock().unwrap().flatten_answers = answers.into();
        desk.keys("Fy");
        desk.until("the answer", |m| m.flattening.is_none()).await;
        let shown = desk.model.message.as_ref().map_or("", |m| m.text.as_str());
        assert!(shown.starts_with(told), "{shown}");
        let accounts = std::mem::take(&mut gateway.books.lock().unwrap().flattened);
        assert_eq!(accounts, [ACCOUNT, "second"][..asked]);
    }
    assert_eq!(desk.model.holdings.orders.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_token_is_renewed_once_for_all_calls_and_kept() {
    let (gateway, mut nats) = exchange().await;
    let kept = Kept::default();
    let old = session(&gateway, "access-0");
    let mut desk = Desk::open(&gateway.url(), Some(old), Some(Arc::new(kept.clone())));
    desk.is_ready(&mut nats).await;
    assert_eq!(gateway.books.lock().unwrap().refreshes, 1);
    assert_eq!(kept.0.lock().unwrap().as_ref().map(|s| s.refresh_token.as_str()), Some("refresh-after-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_renewed_is_taken_over_instead_of_renewing_twice() {
    let (gateway, mut nats) = exchange().await;
    let newer = Session { refresh_token: "refresh-of-another".into(), ..session(&gateway, "access-1") };
    let kept = Kept(Arc::new(Mutex::new(Some(newer))));
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-0")), Some(Arc::new(kept)));
    desk.is_ready(&mut nats).await;
    assert_eq!(gateway.books.lock().unwrap().refreshes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_goes_back_to_sign_in() {
    let (gateway, _nats) = exchange().await;
    let ended = Session { refresh_token: "used".into(), ..session(&gateway, "access-0") };
    let mut desk = Desk::open(&gateway.url(), Some(ended), None);
    desk.until("the sign-in screen", |m| m.screen == Screen::SignIn && m.sign_in.refused.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_market_data_connection_shows_and_comes_back() {
    let (gateway, mut nats) = exchange().await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.is_ready(&mut nats).await;
    nats.publish("market.book.AAPL", &book(5, START_US));
    desk.until("live", |m| m.feed.freshness(m.now_us, m.links.nats) == Freshness::Live).await;
    nats.cut();
    desk.until("stale", |m| m.links.nats != Link::Up && m.feed.was_stale).await;
    desk.until("connected again", |m| m.links.nats == Link::Up).await;
    while nats.subscribed.recv().await.expect("the server lives") != "market.book.AAPL" {}
    nats.publish("market.book.AAPL", &book(6, START_US));
    desk.until("live again", |m| m.book.as_ref().is_some_and(|b| b.book_seq == 6) && !m.feed.was_stale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_market_data_password_is_said_and_the_rest_works() {
    let nats = Nats::start().await;
    let gateway = Gateway::start(nats.url("old")).await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.until("the refusal", |m| m.links.nats == Link::Down && m.links.grpc == Link::Up).await;
    desk.until("the book of the gateway", |m| m.book.is_some()).await;
    let told: Vec<_> = desk.model.log.iter().filter(|l| l.text.starts_with("NATS disconnected")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(!told[0].text.contains("old"), "no password in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_gateway_the_private_stream_goes_on_where_it_was() {
    let (gateway, mut nats) = exchange().await;
    let mut desk = Desk::open(&gateway.url(), Some(session(&gateway, "access-1")), None);
    desk.is_ready(&mut nats).await;
    gateway.push(8, order("aaaa", Side::Buy, 5, 2_310_000, OrderState::New), None);
    desk.until("an order", |m| m.holdings.orders.len() == 1).await;
    let gateway = gateway.restart().await;
    desk.until("the loss", |m| m.links.grpc != Link::Up).await;
    desk.until("the connection", |m| m.links.grpc == Link::Up).await;
    let requests = gateway.books.lock().unwrap().private_requests.clone();
    let (first, last) = (requests.first().unwrap(), requests.last().unwrap());
    assert!(first.from_now);
    assert_eq!((last.from_now, last.after_order_seq, last.after_portfolio_seq), (false, 8, 3));
    assert!(matches!(
        desk.model.feed.freshness(desk.model.now_us, desk.model.links.nats),
        Freshness::Live | Freshness::Stale(_)
    ));
    desk.live.submit(Cmd::Load);
}
