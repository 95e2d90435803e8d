//! What the engine says and what the client is answered.

use super::{
    super::{api::Api, orders::Orders},
    ALICE, BOB, Store, ended, fact, id, named, open_order,
};
use fafnir_platform::{
    Caller, Clock, Context, Settings, disk::Disk, facts::Follower, health::Health, secrets::Secrets,
    tasks::Tasks, tls::Tls,
};
use fafnir_proto::{
    client::{Clients, POSITION_KEY, REASON_KEY},
    id::UserId,
    v1::{command::What, execute_reply::Outcome, order_service_server::OrderService as _, *},
};
use fafnir_testing as testing;
use prost::Message as _;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

type Said = Result<ExecuteReply, Status>;

/// What the played engine answers in turn, and what it was asked.
#[derive(Default)]
struct Engine {
    answers: VecDeque<Said>,
    commands: Vec<Command>,
    open: Vec<Order>,
}

struct Stand {
    api: Api,
    store: Store,
    position: watch::Sender<u64>,
    engine: Arc<Mutex<Engine>>,
    /// How often the engine was asked to execute.
    asked: watch::Receiver<u64>,
    _dir: tempfile::TempDir,
}

#[expect(clippy::unnecessary_wraps, reason = "what an engine says")]
fn done(position: u64, done: Done) -> Said {
    Ok(ExecuteReply { position, outcome: Some(Outcome::Done(done)) })
}

#[expect(clippy::unnecessary_wraps, reason = "what an engine says")]
fn refused(position: u64, code: Code, reason: &str) -> Said {
    let refused = Refused { code: code as u32, reason: reason.into(), message: "so".into(), order: None };
    Ok(ExecuteReply { position, outcome: Some(Outcome::Refused(refused)) })
}

fn reason<T>(answer: &Result<T, Status>) -> (Code, String) {
    let Err(status) = answer else { panic!("it was done") };
    let reason = status.metadata().get(REASON_KEY).map_or("", |v| v.to_str().unwrap());
    (status.code(), reason.to_owned())
}

fn position<T>(response: &Response<T>) -> u64 {
    response.metadata().get(POSITION_KEY).unwrap().to_str().unwrap().parse().unwrap()
}

impl Stand {
    async fn new() -> Self {
        let engine = Arc::new(Mutex::new(Engine::default()));
        let played = Arc::clone(&engine);
        let (ask, asked) = watch::channel(0);
        let url = testing::play(move |method, request| {
            let mut engine = played.lock().unwrap();
            match method {
                "Execute" => {
                    let request: ExecuteRequest = testing::decode(request);
                    engine.commands.push(request.command.unwrap());
                    ask.send_modify(|times| *times += 1);
                    engine.answers.pop_front().expect("an answer is left").map(|reply| reply.encode_to_vec())
                }
                "OpenOrders" => {
                    let r: OpenOrdersRequest = testing::decode(request);
                    let fits = |o: &&Order| {
                        o.id > r.after_id
                            && (r.user_id.is_empty() || o.user_id == r.user_id)
                            && (r.symbol.is_empty() || o.symbol == r.symbol)
                    };
                    // Two a page.
                    let mut orders: Vec<Order> = engine.open.iter().filter(fits).take(3).cloned().collect();
                    let more = orders.len() > 2;
                    orders.truncate(2);
                    Ok(OpenOrdersReply { orders, position: 0, more }.encode_to_vec())
                }
                "Position" => {
                    Ok(PositionReply { position: 0, last: 77, ..Default::default() }.encode_to_vec())
                }
                other => Err(Status::unimplemented(other.to_owned())),
            }
        })
        .await;
        let (store, dir) = (Store::new().await, tempfile::tempdir().unwrap());
        let secrets = Secrets::load_or_create(dir.path()).unwrap();
        let addresses = BTreeMap::from([("trade-engine".to_owned(), url)]);
        let ctx = Context {
            service: "order-service",
            settings: Arc::new(Settings::default()),
            clients: Clients::new(&addresses, &[], secrets.service_token.current().expose()).unwrap(),
            secrets: Arc::new(secrets),
            tls: Tls::default(),
            clock: Clock::wall(),
            tasks: Tasks::new(CancellationToken::new()),
            health: Health::default(),
            disk: Disk::default(),
            addresses: Arc::new(addresses),
        };
        let (position, stands) = watch::channel(0);
        let api = Api(Orders::new(&ctx, store.db().clone(), Follower::of(stands)));
        Self { api, store, position, engine, asked, _dir: dir }
    }

    /// The engine answers these next.
    fn says(&self, answers: impl IntoIterator<Item = Said>) {
        self.engine.lock().unwrap().answers.extend(answers);
    }

    fn commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.engine.lock().unwrap().commands)
    }

    /// The facts are projected.
    async fn projected(&self, facts: &[Fact]) {
        self.store.apply(facts).await;
        self.position.send_replace(facts.last().unwrap().position);
    }

    async fn place(&self, request: PlaceOrderRequest) -> Result<Response<OrderReply>, Status> {
        self.api.place(of(BOB, request)).await
    }

    async fn cancel(&self, user: UserId, number: u128) -> Result<Response<OrderReply>, Status> {
        let request = CancelOrderRequest { order_id: id(number).to_string(), user_id: String::new() };
        self.api.cancel(of(user, request)).await
    }
}

/// A request of a user who waits for a second.
fn of<T>(user: UserId, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::User(user));
    request.set_timeout(Duration::from_secs(1));
    request
}

fn buy() -> PlaceOrderRequest {
    PlaceOrderRequest {
        symbol: "aapl".into(),
        side: Side::Buy.into(),
        r#type: OrderType::Limit.into(),
        quantity_e4: 50_000,
        price_e4: 2_310_000,
        ..PlaceOrderRequest::default()
    }
}

fn named_buy() -> PlaceOrderRequest {
    PlaceOrderRequest { client_order_id: "mine".into(), ..buy() }
}

#[tokio::test]
async fn an_order_is_one_command_and_its_answer_what_the_engine_says() {
    let stand = Stand::new().await;
    let order = open_order(BOB, 1);
    stand.says([done(9, Done { order: Some(order.clone()), at: 8, ..Done::default() })]);
    let placed = stand.place(buy()).await.unwrap();
    assert_eq!(position(&placed), 9);
    assert_eq!(placed.into_inner().order, Some(order));
    let [command] = &stand.commands()[..] else { panic!("one command") };
    let Some(What::Place(place)) = &command.what else { panic!("a place") };
    assert_eq!((command.user_id.clone(), &command.key), (BOB.to_string(), &None));
    assert_eq!(command.id, Uuid::parse_str(&place.order_id).unwrap().as_bytes());
    assert_eq!((place.symbol.as_str(), place.time_in_force()), ("AAPL", TimeInForce::Gtc));

    // What the engine refuses is refused so; what has no shape never gets there.
    stand.says([refused(9, Code::FailedPrecondition, "SYMBOL_HALTED")]);
    assert_eq!(reason(&stand.place(buy()).await), (Code::FailedPrecondition, "SYMBOL_HALTED".into()));
    stand.commands();
    let shapeless = PlaceOrderRequest { quantity_e4: 0, ..buy() };
    assert_eq!(reason(&stand.place(shapeless).await).1, "QUANTITY_NOT_POSITIVE");
    assert!(stand.commands().is_empty());
}

#[tokio::test]
async fn a_client_order_id_is_looked_up_here_and_then_in_the_engine() {
    let stand = Stand::new().await;
    let order = open_order(BOB, 1);
    stand.says([done(1, Done { order: Some(order.clone()), at: 1, ..Done::default() })]);
    stand.place(named_buy()).await.unwrap();
    let key = stand.commands()[0].key.clone().unwrap();
    assert_eq!((key.key.as_str(), key.payload.len(), key.looked_until), ("mine", 16, 0));

    // Not projected yet: the engine knows it, the answer waits for the row.
    let known = Done { known: true, object_id: order.id.clone(), at: 1, ..Done::default() };
    stand.says([done(5, known)]);
    let waiting = stand.place(named_buy());
    let projecting = async {
        let mut asked = stand.asked.clone();
        tokio::time::timeout(Duration::from_secs(10), asked.wait_for(|times| *times == 2))
            .await
            .unwrap()
            .unwrap();
        let payload = key.payload.clone().try_into().unwrap();
        stand.projected(&[named(1, &order, 1, "mine", payload)]).await;
    };
    let (again, ()) = tokio::join!(waiting, projecting);
    assert_eq!(again.unwrap().into_inner().order.unwrap().id, order.id);
    stand.commands();

    // From here on the engine is not asked.
    assert_eq!(stand.place(named_buy()).await.unwrap().into_inner().order.unwrap().id, order.id);
    let other = PlaceOrderRequest { quantity_e4: 60_000, ..named_buy() };
    let reused = (Code::AlreadyExists, "CLIENT_ORDER_ID_REUSED".to_owned());
    assert_eq!(reason(&stand.place(other).await), reused);
    assert!(stand.commands().is_empty());

    // The engine's own refusal of it is passed on; where it cannot know, that is said.
    let fresh = PlaceOrderRequest { client_order_id: "new".into(), ..buy() };
    stand.says([
        refused(5, Code::AlreadyExists, "CLIENT_ORDER_ID_REUSED"),
        refused(5, Code::Unavailable, "PROJECTION_BEHIND"),
    ]);
    assert_eq!(reason(&stand.place(fresh.clone()).await), reused);
    assert_eq!(reason(&stand.place(fresh).await), (Code::Unavailable, "PROJECTION_BEHIND".into()));
    assert_eq!(stand.commands()[1].key.as_ref().unwrap().looked_until, 1);
}

#[tokio::test]
async fn a_command_is_sent_again_as_it_was_until_its_caller_stops_waiting() {
    let stand = Stand::new().await;
    let away = || Err(Status::unavailable("away"));
    stand.says([away(), away(), done(3, Done { order: Some(open_order(BOB, 1)), ..Done::default() })]);
    assert_eq!(position(&stand.place(buy()).await.unwrap()), 3);
    let commands = stand.commands();
    assert!(commands.len() == 3 && commands[1..].iter().all(|c| *c == commands[0]));

    stand.says((0..200).map(|_| away()));
    let (started, mut request) = (Instant::now(), of(BOB, buy()));
    request.set_timeout(Duration::from_millis(300));
    let late = stand.api.place(request).await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable);
    assert!(started.elapsed() < Duration::from_millis(290), "before the caller is gone");
    assert!(stand.commands().len() > 2);

    stand.engine.lock().unwrap().answers.clear();
    stand.says([Err(Status::resource_exhausted("busy"))]);
    assert_eq!(stand.place(buy()).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(stand.commands().len(), 1, "a refusal is an answer");
}

#[tokio::test]
async fn a_cancel_is_answered_from_its_outcome_and_a_refused_one_from_the_row() {
    let stand = Stand::new().await;
    let (open, filled) = (open_order(BOB, 1), open_order(BOB, 2));
    let canceled = ended(&open, OrderState::Canceled, 6);
    stand.says([done(4, Done { order: Some(canceled.clone()), ..Done::default() })]);
    let answer = stand.cancel(BOB, 1).await.unwrap();
    assert_eq!((position(&answer), answer.into_inner().order), (4, Some(canceled.clone())));

    // With fills the row is waited for a moment; where it does not come, the order goes without them.
    let partly = Order { filled_e4: 10_000, ..canceled };
    stand.says([done(4, Done { order: Some(partly.clone()), ..Done::default() })]);
    assert_eq!(stand.cancel(BOB, 1).await.unwrap().into_inner().order, Some(partly));

    let full = Order { filled_e4: 50_000, ..ended(&filled, OrderState::Filled, 7) };
    stand
        .projected(&[
            fact(1, FactKind::Accepted, &open, 1),
            fact(2, FactKind::Accepted, &filled, 2),
            fact(3, FactKind::Executed, &full, 3),
        ])
        .await;
    let not_open = || refused(3, Code::NotFound, "ORDER_NOT_OPEN");
    stand.says([not_open(), not_open(), not_open()]);
    let done_already = stand.cancel(BOB, 2).await;
    assert_eq!(reason(&done_already), (Code::FailedPrecondition, "ORDER_DONE".into()));
    assert!(done_already.unwrap_err().message().contains("is FILLED and can no longer be canceled"));
    let unknown = (Code::NotFound, "ORDER_NOT_FOUND".to_owned());
    assert_eq!(reason(&stand.cancel(ALICE, 2).await), unknown);
    assert_eq!(reason(&stand.cancel(BOB, 3).await), unknown);
    stand.says([not_open()]);
    let replace = ReplaceOrderRequest {
        order_id: filled.id.clone(),
        price_e4: 100,
        version: 4,
        ..ReplaceOrderRequest::default()
    };
    let replaced = stand.api.replace(of(BOB, replace)).await;
    assert!(replaced.unwrap_err().message().contains("can no longer be replaced"));
    let commands = stand.commands();
    let Some(What::Replace(replace)) = &commands.last().unwrap().what else { panic!("a replace") };
    assert_eq!((replace.price_e4, replace.version), (100, 4));

    // The first of two came through, and nobody heard it.
    let canceled = ended(&open, OrderState::Canceled, 8);
    stand.says([Err(Status::unavailable("lost")), refused(4, Code::NotFound, "ORDER_NOT_OPEN")]);
    stand.projected(&[fact(4, FactKind::Canceled, &canceled, 4)]).await;
    assert_eq!(stand.cancel(BOB, 1).await.unwrap().into_inner().order, Some(canceled));
}

#[tokio::test]
async fn a_row_that_does_not_come_is_no_answer() {
    let stand = Stand::new().await;
    stand.says([refused(9, Code::NotFound, "ORDER_NOT_OPEN")]);
    assert_eq!(stand.cancel(BOB, 1).await.unwrap_err().code(), Code::Unavailable);
    let mut get = of(BOB, GetOrderRequest { order_id: id(1).to_string(), user_id: String::new() });
    get.metadata_mut().insert(POSITION_KEY, 9.into());
    assert_eq!(reason(&stand.api.get(get).await), (Code::Unavailable, "PROJECTION_BEHIND".into()));
}

#[tokio::test]
async fn open_orders_are_the_engines_and_a_symbol_is_canceled_user_by_user() {
    let stand = Stand::new().await;
    let orders = [(BOB, 1), (ALICE, 2), (BOB, 3), (BOB, 4), (BOB, 5)].map(|(u, n)| open_order(u, n));
    stand.engine.lock().unwrap().open = orders.to_vec();
    let list = |before: &str, limit| ListOrdersRequest {
        open_only: true,
        before_id: before.to_owned(),
        limit,
        ..ListOrdersRequest::default()
    };
    let ids = |reply: Response<ListOrdersReply>| {
        reply
            .into_inner()
            .orders
            .into_iter()
            .map(|o| o.id.parse::<Uuid>().unwrap().as_u128())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(stand.api.list(of(BOB, list("", 0))).await.unwrap()), [5, 4, 3, 1]);
    assert_eq!(ids(stand.api.list(of(BOB, list(&orders[4].id, 2))).await.unwrap()), [4, 3]);

    stand.says([
        done(5, Done { canceled: 1, ..Done::default() }),
        done(6, Done { canceled: 4, ..Done::default() }),
    ]);
    let mut request = Request::new(SymbolOrdersRequest { symbol: "AAPL".into() });
    request.extensions_mut().insert(Caller::system("test"));
    let answer = stand.api.cancel_symbol(request).await.unwrap();
    assert_eq!((position(&answer), answer.into_inner().requested), (6, 5));
    let users: Vec<_> = stand.commands().into_iter().map(|c| c.user_id).collect();
    assert_eq!(users, [BOB.to_string(), ALICE.to_string()]);
    let mine = stand.api.cancel_symbol(of(BOB, SymbolOrdersRequest { symbol: "AAPL".into() })).await;
    assert_eq!(mine.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn to_flatten_is_one_command_that_says_what_is_left_and_why() {
    let stand = Stand::new().await;
    let why =
        Refused { code: Code::FailedPrecondition as u32, reason: "COLLAR".into(), ..Refused::default() };
    let sold = ended(&open_order(BOB, 1), OrderState::Canceled, 6);
    let outcome = Done { canceled: 2, order: Some(sold), left_e4: 7, why: Some(why), ..Done::default() };
    stand.says([done(4, Done { known: true, at: 0, ..Done::default() }), done(5, outcome)]);
    let request = FlattenRequest { symbol: "aapl".into(), ..FlattenRequest::default() };
    let reply = stand.api.flatten(of(BOB, request.clone())).await.unwrap().into_inner();
    assert_eq!((reply.canceled, reply.left_e4, reply.code, reply.reason.as_str()), (2, 7, 9, "COLLAR"));
    assert!(reply.order.is_some());
    let commands = stand.commands();
    assert!(commands.len() == 2 && commands[0].id != commands[1].id);
    let Some(What::Flatten(flatten)) = &commands[0].what else { panic!("a flatten") };
    assert_eq!((flatten.symbol.as_str(), flatten.account_id.as_str()), ("AAPL", ""));
    let malformed = FlattenRequest { account_id: "1".into(), ..request };
    assert_eq!(reason(&stand.api.flatten(of(BOB, malformed)).await).1, "ID_MALFORMED");
}

#[tokio::test]
async fn the_status_says_where_the_read_model_stands() {
    let stand = Stand::new().await;
    stand.projected(&[fact(1, FactKind::Accepted, &open_order(BOB, 1), 1)]).await;
    let mut request = Request::new(Empty {});
    request.extensions_mut().insert(Caller::system("test"));
    let status = stand.api.status(request).await.unwrap().into_inner();
    assert_eq!((status.position, status.open_orders, status.last_position), (1, 1, 77));
}
