//! A small exchange for the live backend: the gateway's gRPC door and a NATS server that speaks what a reader needs.

use fafnir_proto::v1::{
    self,
    private_update::Kind,
    terminal_server::{Terminal, TerminalServer},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status};

pub const PASSWORD: &str = "Password123";
/// `ID:SECRET` of an API key in base64, as it is sent.
pub const KEY: &str = "Basic UEtURVNUOnNlY3JldA==";

/// What the gateway knows and what it was asked.
#[derive(Default)]
pub struct Books {
    pub access: String,
    pub refresh: String,
    pub refreshes: usize,
    pub market_url: String,
    pub orders: Vec<v1::Order>,
    pub placed: Vec<v1::PlaceOrderRequest>,
    pub replaced: Vec<v1::ReplaceOrderRequest>,
    /// Ids of orders that were cancelled.
    pub canceled: Vec<String>,
    pub positions: Vec<v1::Holding>,
    /// The next order or replace is stored but its answer is this status.
    pub fail_place: Option<Code>,
    /// Accounts that were flattened.
    pub flattened: Vec<String>,
    /// Answers to the next ones, the first first; flat where there is none.
    pub flatten_answers: VecDeque<Result<v1::FlattenReply, Status>>,
    pub private_requests: Vec<v1::PrivateRequest>,
    pub book_seq: u64,
    /// [`KEY`] opens no more.
    pub is_key_revoked: bool,
}

pub struct Gateway {
    pub books: Arc<Mutex<Books>>,
    pub updates: broadcast::Sender<v1::PrivateUpdate>,
    pub address: SocketAddr,
    serving: Option<DropGuard>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Door {
    books: Arc<Mutex<Books>>,
    updates: broadcast::Sender<v1::PrivateUpdate>,
    stop: CancellationToken,
}

impl Gateway {
    pub async fn start(market_url: String) -> Self {
        let books = Books {
            access: "access-1".into(),
            refresh: "refresh-1".into(),
            market_url,
            book_seq: 1,
            ..Books::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, Arc::new(Mutex::new(books)), broadcast::channel(64).0)
    }

    fn serve(
        listener: TcpListener,
        books: Arc<Mutex<Books>>,
        updates: broadcast::Sender<v1::PrivateUpdate>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let door = Door { books: Arc::clone(&books), updates: updates.clone(), stop: stop.clone() };
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(TerminalServer::new(door))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended.cancelled_owned())
                .await
                .unwrap();
        });
        Self { books, updates, address, serving: Some(stop.drop_guard()), task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection and starts again on the same port.
    pub async fn restart(mut self) -> Self {
        drop(self.serving.take());
        self.task.await.unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        Self::serve(socket.listen(16).unwrap(), self.books, self.updates)
    }

    /// Says how the exchange is.
    pub fn beat(&self, notice: &str, limited: bool) {
        let beat =
            v1::Heartbeat { order_seq: 7, portfolio_seq: 3, notice: notice.into(), limited, time_us: 1 };
        let _ = self.updates.send(v1::PrivateUpdate { kind: Some(Kind::Heartbeat(beat)), reset: false });
    }

    /// Tells the private stream about an order.
    pub fn push(&self, user_seq: u64, order: v1::Order, fill: Option<v1::Fill>) {
        let update = v1::OrderUpdate { user_id: "u".into(), user_seq, order: Some(order), fill };
        let _ = self.updates.send(v1::PrivateUpdate { kind: Some(Kind::Order(update)), reset: false });
    }
}

type Answer<T> = Result<Response<T>, Status>;

impl Door {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let books = self.books.lock().unwrap();
        let token = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let by_key = token == KEY && !books.is_key_revoked;
        if by_key || token == format!("Bearer {}", books.access) {
            Ok(())
        } else {
            Err(Status::unauthenticated("the token has ended"))
        }
    }

    fn session(&self) -> v1::TerminalSession {
        let books = self.books.lock().unwrap();
        v1::TerminalSession {
            access_token: books.access.clone(),
            refresh_token: books.refresh.clone(),
            expires_in_s: 600,
            user_id: "u".into(),
            email: "user@test.com".into(),
            market_data_url: books.market_url.clone(),
            ..Default::default()
        }
    }
}

macro_rules! not_here {
    ($($name:ident($request:ty) -> $reply:ty;)*) => {
        $(fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Answer<$reply>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not part of this test")) })
        })*
    };
}

#[tonic::async_trait]
impl Terminal for Door {
    type PrivateStream = ReceiverStream<Result<v1::PrivateUpdate, Status>>;

    async fn info(&self, _: Request<v1::Empty>) -> Answer<v1::InfoReply> {
        Ok(Response::new(v1::InfoReply::default()))
    }

    async fn sign_in(&self, request: Request<v1::TerminalSignInRequest>) -> Answer<v1::TerminalSession> {
        if request.into_inner().password != PASSWORD {
            return Err(Status::unauthenticated("wrong e-mail or password"));
        }
        Ok(Response::new(self.session()))
    }

    async fn whoami(&self, request: Request<v1::Empty>) -> Answer<v1::TerminalSession> {
        self.check(&request)?;
        let nothing = String::new;
        let session = self.session();
        Ok(Response::new(v1::TerminalSession {
            access_token: nothing(),
            refresh_token: nothing(),
            expires_in_s: 0,
            ..session
        }))
    }

    async fn refresh(&self, request: Request<v1::TerminalRefreshRequest>) -> Answer<v1::TerminalSession> {
        {
            let mut books = self.books.lock().unwrap();
            if request.into_inner().refresh_token != books.refresh {
                return Err(Status::unauthenticated("the session has ended"));
            }
            books.refreshes += 1;
            books.access = format!("access-after-{}", books.refreshes);
            books.refresh = format!("refresh-after-{}", books.refreshes);
        }
        Ok(Response::new(self.session()))
    }

    async fn place(&self, request: Request<v1::PlaceOrderRequest>) -> Answer<v1::OrderReply> {
        self.check(&request)?;
        let request = request.into_inner();
        let mut books = self.books.lock().unwrap();
        books.placed.push(request.clone());
        let known = books.orders.iter().find(|o| o.client_order_id == request.client_order_id).cloned();
        let order = known.unwrap_or_else(|| {
            let order = v1::Order {
                client_order_id: request.client_order_id.clone(),
                id: format!("0197a8b0-0000-7000-8000-{:012}", books.orders.len()),
                ..crate::common::order("", request.side(), 1, request.price_e4, v1::OrderState::New)
            };
            books.orders.push(order.clone());
            order
        });
        match books.fail_place.take() {
            Some(code) => Err(Status::new(code, "no answer in time")),
            None => Ok(Response::new(v1::OrderReply { order: Some(order) })),
        }
    }

    async fn replace(&self, request: Request<v1::ReplaceOrderRequest>) -> Answer<v1::OrderReply> {
        self.check(&request)?;
        let request = request.into_inner();
        let mut books = self.books.lock().unwrap();
        books.replaced.push(request.clone());
        let order = books.orders.iter_mut().find(|o| o.id == request.order_id);
        let order = order.ok_or_else(|| Status::not_found("no such order"))?;
        if order.version != request.version {
            return Err(Status::failed_precondition("version differs"));
        }
        order.version += 1;
        if request.price_e4 != 0 {
            order.price_e4 = request.price_e4;
        }
        let order = order.clone();
        match books.fail_place.take() {
            Some(code) => Err(Status::new(code, "no answer in time")),
            None => Ok(Response::new(v1::OrderReply { order: Some(order) })),
        }
    }

    async fn cancel(&self, request: Request<v1::CancelOrderRequest>) -> Answer<v1::OrderReply> {
        self.check(&request)?;
        let id = request.into_inner().order_id;
        let mut books = self.books.lock().unwrap();
        books.canceled.push(id.clone());
        let order = books.orders.iter_mut().find(|o| o.id == id);
        let order = order.ok_or_else(|| Status::not_found("no such order"))?;
        order.state = v1::OrderState::Canceled.into();
        let order = Some(order.clone());
        Ok(Response::new(v1::OrderReply { order }))
    }

    async fn place_group(&self, request: Request<v1::PlaceGroupRequest>) -> Answer<v1::OrderGroupReply> {
        self.check(&request)?;
        Err(Status::unimplemented("the terminal places no groups"))
    }

    async fn cancel_group(&self, request: Request<v1::CancelGroupRequest>) -> Answer<v1::CancelAllReply> {
        self.check(&request)?;
        Err(Status::unimplemented("the terminal cancels no groups"))
    }

    async fn flatten(&self, request: Request<v1::FlattenRequest>) -> Answer<v1::FlattenReply> {
        self.check(&request)?;
        let mut books = self.books.lock().unwrap();
        books.flattened.push(request.into_inner().account_id);
        books
            .flatten_answers
            .pop_front()
            .unwrap_or_else(|| Ok(v1::FlattenReply::default()))
            .map(Response::new)
    }

    async fn orders(&self, request: Request<v1::ListOrdersRequest>) -> Answer<v1::ListOrdersReply> {
        self.check(&request)?;
        let orders = self.books.lock().unwrap().orders.clone();
        Ok(Response::new(v1::ListOrdersReply { orders, ..Default::default() }))
    }

    async fn fills(&self, request: Request<v1::ListFillsRequest>) -> Answer<v1::ListFillsReply> {
        self.check(&request)?;
        Ok(Response::new(v1::ListFillsReply::default()))
    }

    async fn accounts(&self, request: Request<v1::Empty>) -> Answer<v1::ListAccountsReply> {
        self.check(&request)?;
        let accounts = vec![crate::common::account(88_410_000_000)];
        Ok(Response::new(v1::ListAccountsReply { accounts }))
    }

    async fn positions(&self, request: Request<v1::Empty>) -> Answer<v1::HoldingsReply> {
        self.check(&request)?;
        let holdings = self.books.lock().unwrap().positions.clone();
        Ok(Response::new(v1::HoldingsReply { holdings }))
    }

    async fn watchlist(&self, request: Request<v1::Empty>) -> Answer<v1::WatchlistReply> {
        self.check(&request)?;
        let items = vec![v1::WatchlistItem { symbol: "AAPL".into(), added_us: 1 }];
        Ok(Response::new(v1::WatchlistReply { items }))
    }

    async fn instruments(&self, request: Request<v1::Empty>) -> Answer<v1::ListInstrumentsReply> {
        self.check(&request)?;
        let instruments = vec![crate::common::instrument("AAPL", "Apple Inc.", 2_298_300)];
        Ok(Response::new(v1::ListInstrumentsReply { instruments }))
    }

    async fn quotes(&self, request: Request<v1::QuotesRequest>) -> Answer<v1::QuotesReply> {
        self.check(&request)?;
        Ok(Response::new(v1::QuotesReply::default()))
    }

    async fn book(&self, request: Request<v1::BookRequest>) -> Answer<v1::BookImage> {
        self.check(&request)?;
        let seq = self.books.lock().unwrap().book_seq;
        Ok(Response::new(crate::common::book(seq, 0)))
    }

    async fn trades(&self, request: Request<v1::TradesRequest>) -> Answer<v1::TradesReply> {
        self.check(&request)?;
        let request = request.into_inner();
        let numbers = if request.latest { 1..=3 } else { request.after_trade_no + 1..=10 };
        let trades = numbers.map(|n| crate::common::trade(n, 2_310_700, 1, v1::Side::Buy)).collect();
        Ok(Response::new(v1::TradesReply { trades }))
    }

    async fn candles(&self, request: Request<v1::CandlesRequest>) -> Answer<v1::CandlesReply> {
        self.check(&request)?;
        Ok(Response::new(v1::CandlesReply::default()))
    }

    async fn volume_at_price(&self, request: Request<v1::SymbolRequest>) -> Answer<v1::VolumeAtPriceReply> {
        self.check(&request)?;
        let symbol = request.into_inner().symbol;
        let levels = vec![v1::PriceVolume { price_e4: 2_310_700, volume_e4: 12_340_000 }];
        let day_us = crate::common::START_US / 86_400_000_000 * 86_400_000_000;
        Ok(Response::new(v1::VolumeAtPriceReply { symbol, day_us, levels, last_trade_no: 40 }))
    }

    async fn private(&self, request: Request<v1::PrivateRequest>) -> Answer<Self::PrivateStream> {
        self.check(&request)?;
        let mut updates = self.updates.subscribe();
        self.books.lock().unwrap().private_requests.push(request.into_inner());
        let (sender, receiver) = mpsc::channel(16);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let beat = v1::Heartbeat { time_us: 1, order_seq: 7, portfolio_seq: 3, ..Default::default() };
            let _ =
                sender.send(Ok(v1::PrivateUpdate { kind: Some(Kind::Heartbeat(beat)), reset: false })).await;
            loop {
                let update = tokio::select! {
                    update = updates.recv() => update,
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                };
                let Ok(update) = update else { return };
                if sender.send(Ok(update)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    not_here! {
        order_history(v1::OrderHistoryRequest) -> v1::OrderHistoryReply;
        statement(v1::StatementRequest) -> v1::StatementReply;
        performance(v1::PerformanceRequest) -> v1::PerformanceReply;
        gains(v1::GainsRequest) -> v1::GainsReply;
        report(v1::ReportRequest) -> v1::ReportReply;
        lots(v1::LotsRequest) -> v1::LotsReply;
        sign_out(v1::Empty) -> v1::Empty;
        create_key(v1::CreateKeyRequest) -> v1::CreateKeyReply;
        keys(v1::Empty) -> v1::ListKeysReply;
        revoke_key(v1::RevokeKeyRequest) -> v1::Empty;
        sessions(v1::Empty) -> v1::TerminalSessions;
        revoke_session(v1::RevokeSessionRequest) -> v1::Empty;
        revoke_sessions(v1::RevokeSessionsRequest) -> v1::RevokeSessionsReply;
        users(v1::SearchUsersRequest) -> v1::SearchUsersReply;
        deactivate(v1::UserStateRequest) -> v1::Empty;
        reactivate(v1::UserStateRequest) -> v1::Empty;
        roles(v1::Empty) -> v1::ListRolesReply;
        user_roles(v1::PermissionsRequest) -> v1::PermissionsReply;
        grant_role(v1::GrantRequest) -> v1::Empty;
        revoke_role(v1::GrantRequest) -> v1::Empty;
        dashboard(v1::Empty) -> v1::DashboardReply;
        audit_log(v1::AuditLogRequest) -> v1::AuditLogReply;
        verify_audit(v1::VerifyAuditRequest) -> v1::VerifyAuditReply;
        set_trading_state(v1::SetTradingStateRequest) -> v1::Instrument;
        set_volatility_band(v1::SetVolatilityBandRequest) -> v1::Instrument;
        cancel_symbol(v1::SymbolOrdersRequest) -> v1::CancelAllReply;
        publish_news(v1::News) -> v1::Empty;
        playback(v1::PlaybackRequest) -> v1::PlaybackReply;
        depth(v1::DepthRequest) -> v1::DepthReply;
        queue_position(v1::QueuePositionRequest) -> v1::QueuePositionReply;
        cancel_all(v1::CancelAllRequest) -> v1::CancelAllReply;
        withdraw(v1::WithdrawRequest) -> v1::DepositReply;
        order(v1::GetOrderRequest) -> v1::OrderReply;
        create_account(v1::CreateAccountRequest) -> v1::Account;
        close_account(v1::AccountRequest) -> v1::Account;
        deposit(v1::DepositRequest) -> v1::DepositReply;
        transfer(v1::TransferRequest) -> v1::Empty;
        transactions(v1::TransactionsRequest) -> v1::TransactionsReply;
        add_to_watchlist(v1::SymbolRequest) -> v1::Empty;
        remove_from_watchlist(v1::SymbolRequest) -> v1::Empty;
        search(v1::SearchRequest) -> v1::ListInstrumentsReply;
        history(v1::HistoryRequest) -> v1::CandlesReply;
        statistics(v1::SymbolRequest) -> v1::StatisticsReply;
    }
}

/// A NATS server with one user, `market` / `secret`, that may only subscribe.
pub struct Nats {
    pub address: SocketAddr,
    published: broadcast::Sender<(String, Vec<u8>)>,
    cut: broadcast::Sender<()>,
    /// Subjects as they are subscribed.
    pub subscribed: mpsc::UnboundedReceiver<String>,
    _stop: DropGuard,
}

impl Nats {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (published, cut) = (broadcast::channel(256).0, broadcast::channel(4).0);
        let (report, subscribed) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let (to_publish, to_cut, stopped) = (published.clone(), cut.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                tokio::spawn(connection(socket, to_publish.subscribe(), to_cut.subscribe(), report.clone()));
            }
        });
        Self { address, published, cut, subscribed, _stop: stop.drop_guard() }
    }

    pub fn url(&self, password: &str) -> String {
        format!("nats://market:{password}@{}", self.address)
    }

    pub fn publish(&self, subject: &str, message: &impl prost::Message) {
        let _ = self.published.send((subject.to_owned(), message.encode_to_vec()));
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        let _ = self.cut.send(());
    }
}

async fn connection(
    socket: TcpStream,
    mut published: broadcast::Receiver<(String, Vec<u8>)>,
    mut cut: broadcast::Receiver<()>,
    report: mpsc::UnboundedSender<String>,
) {
    let (reader, mut writer) = socket.into_split();
    let mut lines = BufReader::new(reader).lines();
    let info = r#"INFO {"server_id":"T","server_name":"t","version":"2.10.0","go":"","host":"127.0.0.1","port":1,"headers":true,"max_payload":1048576,"proto":1,"client_id":1,"auth_required":true}"#;
    writer.write_all(format!("{info}\r\n").as_bytes()).await.unwrap();
    let mut subscriptions: Vec<(String, String)> = Vec::new();
    loop {
        tokio::select! {
            _ = cut.recv() => return,
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let words: Vec<&str> = line.split_whitespace().collect();
                let answer = match words.as_slice() {
                    ["CONNECT", ..] if line.contains(r#""user":"market""#) && line.contains(r#""pass":"secret""#) => "",
                    ["CONNECT", ..] => "-ERR 'Authorization Violation'\r\n",
                    ["PING"] => "PONG\r\n",
                    ["SUB", subject, id] => {
                        subscriptions.push(((*subject).to_owned(), (*id).to_owned()));
                        let _ = report.send((*subject).to_owned());
                        ""
                    }
                    ["UNSUB", id, ..] => {
                        subscriptions.retain(|s| s.1 != *id);
                        ""
                    }
                    _ => "",
                };
                if writer.write_all(answer.as_bytes()).await.is_err() || answer.starts_with("-ERR") {
                    return;
                }
            }
            message = published.recv() => {
                let Ok((subject, payload)) = message else { return };
                for (_, id) in subscriptions.iter().filter(|s| s.0 == subject) {
                    let head = format!("MSG {subject} {id} {}\r\n", payload.len());
                    let whole = [head.as_bytes(), &payload, b"\r\n"].concat();
                    if writer.write_all(&whole).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
