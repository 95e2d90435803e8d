//! The story of order-service over real gRPC, on the real broker and engine; accounts, cash and listings are the test's
//! own commands.

use crate::stack::{self as testing, Stack};
use fafnir_platform::Service;
use fafnir_proto::{
    client::{Caller, POSITION_KEY, REASON_KEY},
    id::UserId,
    v1::{command::What, execute_reply::Outcome, *},
};
use fafnir_services::by_name;
use futures::future::join_all;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

mod groups;

const ALICE: UserId = UserId::new(Uuid::from_u128(0xa11ce));
const BOB: UserId = UserId::new(Uuid::from_u128(0xb0b));
const MICROS: i64 = 1_000_000;

/// The services under the story, by name: a service imports no other one.
fn services() -> Vec<&'static Service> {
    ["broker", "auth-service", "stock-service", "trade-engine", "order-service"]
        .map(|name| by_name(name).unwrap())
        .to_vec()
}

/// The account of a user.
fn account(user: UserId) -> String {
    Uuid::from_u128(0xacc_0000 + user.uuid().as_u128()).to_string()
}

struct Story {
    stack: Stack,
}

impl Story {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Alice has shares and cash, Bob has cash: 100,000 USD each.
    async fn start_with(change: impl FnOnce(&mut fafnir_platform::Settings)) -> Self {
        let story = Self { stack: Stack::start_with(&services(), change).await };
        story.list("AAPL", 2_310_000).await;
        for user in [ALICE, BOB] {
            let open = OpenAccountCommand {
                account_id: account(user),
                r#type: AccountType::Investment.into(),
                currency: "USD".into(),
                opening_deposit: false,
            };
            story.command(Some(user), What::OpenAccount(open)).await;
            let cash = EndowCommand {
                account_id: account(user),
                amount_micros: 100_000 * MICROS,
                ..EndowCommand::default()
            };
            story.command(Some(user), What::Endow(cash)).await;
        }
        let shares = EndowCommand {
            account_id: account(ALICE),
            symbol: "AAPL".into(),
            quantity_e4: 1_000_000,
            cost_price_e4: 2_000_000,
            ..EndowCommand::default()
        };
        story.command(Some(ALICE), What::Endow(shares)).await;
        story
    }

    async fn restart(self, change: impl FnOnce(&mut fafnir_platform::Settings)) -> Self {
        Self { stack: self.stack.restart(&services(), change).await }
    }

    /// A command of the journal; answers its position.
    async fn command(&self, user: Option<UserId>, what: What) -> u64 {
        let command = Command {
            id: Uuid::new_v4().as_bytes().to_vec(),
            user_id: user.map(|u| u.to_string()).unwrap_or_default(),
            key: None,
            what: Some(what),
        };
        let mut engine = self.stack.running.context.clients.engine(&testing::system());
        let reply = engine.execute(ExecuteRequest { command: Some(command) }).await.unwrap().into_inner();
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{:?}", reply.outcome);
        reply.position
    }

    async fn list(&self, symbol: &str, previous_close_e4: i64) {
        let instrument = Instrument {
            symbol: symbol.into(),
            name: symbol.into(),
            exchange: "NASDAQ".into(),
            r#type: InstrumentType::Equity.into(),
            currency: "USD".into(),
            tick_e4: 100,
            lot_e4: 10_000,
            state: TradingState::Open.into(),
            previous_close_e4,
            version: 1,
            ..Instrument::default()
        };
        self.command(None, What::SetInstrument(SetInstrumentCommand { instrument: Some(instrument) })).await;
    }

    fn orders(
        &self,
        user: UserId,
    ) -> order_service_client::OrderServiceClient<fafnir_proto::client::Authorised> {
        self.stack.running.context.clients.order(&Caller::User(user))
    }

    /// The order as its command left it, and the position to read from.
    async fn placed(&self, user: UserId, request: PlaceOrderRequest) -> (Order, u64) {
        let reply = self.orders(user).place(request).await.unwrap();
        (reply.get_ref().order.clone().unwrap(), position(&reply))
    }

    async fn place(&self, user: UserId, request: PlaceOrderRequest) -> Result<Order, Status> {
        Ok(self.orders(user).place(request).await?.into_inner().order.unwrap())
    }

    /// The order as it is at a position; without polling.
    async fn get(&self, user: UserId, id: &str, at: u64) -> Result<Order, Status> {
        let request = GetOrderRequest { order_id: id.into(), ..GetOrderRequest::default() };
        Ok(self.orders(user).get(from(at, request)).await?.into_inner().order.unwrap())
    }

    async fn cancel(&self, user: UserId, id: &str) -> Result<Response<OrderReply>, Status> {
        let request = CancelOrderRequest { order_id: id.into(), ..CancelOrderRequest::default() };
        self.orders(user).cancel(request).await
    }

    async fn replace(&self, user: UserId, request: ReplaceOrderRequest) -> Result<Order, Status> {
        Ok(self.orders(user).replace(request).await?.into_inner().order.unwrap())
    }

    async fn status(&self) -> OrderStatusReply {
        let clients = &self.stack.running.context.clients;
        clients.order(&testing::system()).status(Empty {}).await.unwrap().into_inner()
    }
}

/// A read that must know a position.
fn from<T>(position: u64, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(POSITION_KEY, position.into());
    request
}

fn position<T>(reply: &Response<T>) -> u64 {
    reply.metadata().get(POSITION_KEY).unwrap().to_str().unwrap().parse().unwrap()
}

fn reason(status: &Status) -> String {
    status.metadata().get(REASON_KEY).map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
}

fn limit(side: Side, shares: i64, price_e4: i64) -> PlaceOrderRequest {
    PlaceOrderRequest {
        symbol: "AAPL".into(),
        side: side.into(),
        r#type: OrderType::Limit.into(),
        quantity_e4: shares * 10_000,
        price_e4,
        ..PlaceOrderRequest::default()
    }
}

fn buy(shares: i64, price_e4: i64) -> PlaceOrderRequest {
    limit(Side::Buy, shares, price_e4)
}

fn sell(shares: i64, price_e4: i64) -> PlaceOrderRequest {
    limit(Side::Sell, shares, price_e4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_trade_and_each_sees_its_own_side_without_waiting() {
    let story = Story::start().await;
    let (resting, _) = story.placed(ALICE, sell(10, 2_310_000)).await;
    assert_eq!((resting.state(), resting.account_id.clone()), (OrderState::New, account(ALICE)));
    let (taken, at) = story.placed(BOB, buy(4, 2_320_000)).await;
    assert_eq!((taken.state(), taken.filled_e4), (OrderState::Filled, 40_000));
    assert_eq!(taken.filled_notional_micros, 924_000_000);
    assert_eq!((taken.fills.len(), taken.fills[0].maker, taken.fills[0].price_e4), (1, false, 2_310_000));
    assert_eq!(story.get(BOB, &taken.id, at).await.unwrap(), taken);
    let made = story.get(ALICE, &resting.id, at).await.unwrap();
    assert_eq!((made.state(), made.open_e4), (OrderState::PartiallyFilled, 60_000));
    assert_eq!((made.fills[0].maker, made.fills[0].side()), (true, Side::Sell));
    assert_eq!(made.fills[0].exec_id, taken.fills[0].exec_id);

    let canceled = story.cancel(ALICE, &resting.id).await.unwrap();
    let at = position(&canceled);
    let canceled = canceled.into_inner().order.unwrap();
    assert_eq!((canceled.state(), canceled.reject_code.as_str()), (OrderState::Canceled, "USER"));
    assert_eq!(canceled.fills, made.fills);
    for refused in [story.cancel(ALICE, &resting.id).await, story.cancel(BOB, &taken.id).await] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "ORDER_DONE"));
        let state = if refused.message().contains(&resting.id) { "CANCELED" } else { "FILLED" };
        assert!(refused.message().contains(state), "{}", refused.message());
    }

    // What a stream of private updates resumes from is gapless.
    let since = |after_seq| from(at, UpdatesSinceRequest { after_seq, ..UpdatesSinceRequest::default() });
    let all = story.orders(BOB).updates_since(since(0)).await.unwrap().into_inner();
    let seqs: Vec<u64> = all.updates.iter().map(|u| u.user_seq).collect();
    assert_eq!((seqs, all.reset, all.more), (vec![1, 2], false, false));
    assert!(all.updates[1].fill.is_some() && all.updates[1].order.as_ref().unwrap().id == taken.id);
    let rest = story.orders(BOB).updates_since(since(1)).await.unwrap().into_inner();
    assert_eq!(rest.updates, all.updates[1..]);
    assert!(story.orders(BOB).updates_since(since(999)).await.unwrap().into_inner().reset);

    // Another's order is like none.
    for refused in [
        story.get(BOB, &resting.id, 0).await.unwrap_err(),
        story.cancel(BOB, &resting.id).await.unwrap_err(),
        story.get(BOB, &Uuid::new_v4().to_string(), 0).await.unwrap_err(),
    ] {
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such order"));
    }
    let foreign = GetOrderRequest { user_id: ALICE.to_string(), order_id: resting.id.clone() };
    assert_eq!(story.orders(BOB).get(foreign).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(story.get(BOB, "1", 0).await.unwrap_err().code(), Code::InvalidArgument);

    let list = story.orders(ALICE).list(from(at, ListOrdersRequest::default())).await.unwrap().into_inner();
    assert_eq!(list.orders, [Order { fills: Vec::new(), ..canceled }]);
    let fills = story.orders(BOB).list_fills(ListFillsRequest::default()).await.unwrap().into_inner().fills;
    assert_eq!(fills, taken.fills);
    let status = story.status().await;
    assert_eq!((status.open_orders, status.position), (0, status.last_position));
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_order_id_is_one_order_for_ever() {
    let story = Story::start_with(|s| s.engine.recent_ids = 16).await;
    let request = PlaceOrderRequest { client_order_id: "mine-1".into(), ..buy(1, 2_300_000) };
    let placed = join_all((0..50).map(|_| story.place(BOB, request.clone()))).await;
    let ids: Vec<String> = placed.into_iter().map(|o| o.unwrap().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(story.status().await.open_orders, 1);
    let other = PlaceOrderRequest { quantity_e4: 20_000, ..request.clone() };
    let refused = story.place(BOB, other.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "CLIENT_ORDER_ID_REUSED"));
    // Another user's is another one; and it holds after the end of the order, after the window of recent ids and after
    // a restart.
    assert_ne!(story.place(ALICE, request.clone()).await.unwrap().id, ids[0]);
    story.cancel(BOB, &ids[0]).await.unwrap();
    for _ in 0..40 {
        story.place(ALICE, sell(1, 2_400_000)).await.unwrap();
    }
    let story = story.restart(|s| s.engine.recent_ids = 16).await;
    let again = story.place(BOB, request).await.unwrap();
    assert_eq!((&again.id, again.state()), (&ids[0], OrderState::Canceled));
    assert_eq!(reason(&story.place(BOB, other).await.unwrap_err()), "CLIENT_ORDER_ID_REUSED");
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_changes_nothing_and_says_why() {
    let story = Story::start_with(|s| s.order.open_orders_max = 2).await;
    story.list("NEWCO", 0).await;
    let newco = |r: PlaceOrderRequest| PlaceOrderRequest { symbol: "NEWCO".into(), ..r };
    let market = PlaceOrderRequest { r#type: OrderType::Market.into(), price_e4: 0, ..buy(1, 1) };
    for (request, code, why) in [
        (PlaceOrderRequest { symbol: "NOPE".into(), ..buy(1, 100) }, Code::NotFound, "UNKNOWN_SYMBOL"),
        (buy(0, 2_310_000), Code::InvalidArgument, "QUANTITY_NOT_POSITIVE"),
        (buy(1, 100), Code::InvalidArgument, "PRICE_OUT_OF_BAND"),
        (newco(market.clone()), Code::FailedPrecondition, "NO_REFERENCE_PRICE"),
        (
            PlaceOrderRequest { account_id: Uuid::new_v4().to_string(), ..buy(1, 2_310_000) },
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
        ),
    ] {
        let refused = story.place(BOB, request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why), "{}", refused.message());
    }
    let named = PlaceOrderRequest { account_id: account(BOB), ..buy(1, 2_310_000) };
    story.place(BOB, named).await.unwrap();
    story.place(BOB, newco(buy(1, 500))).await.unwrap();
    let refused = story.place(BOB, buy(1, 2_310_000)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "TOO_MANY_OPEN_ORDERS")
    );

    // For funds: a REJECTED order, also the second time.
    let request = PlaceOrderRequest { client_order_id: "poor".into(), ..buy(1_000, 2_310_000) };
    for _ in 0..2 {
        let rejected = story.place(ALICE, request.clone()).await.unwrap();
        assert_eq!(
            (rejected.state(), rejected.reject_code.as_str()),
            (OrderState::Rejected, "INSUFFICIENT_FUNDS")
        );
        assert!(rejected.reject_reason.contains("100,000.00 USD is available"), "{}", rejected.reject_reason);
    }
    let rejected = story.place(BOB, sell(1, 2_310_000)).await;
    assert!(rejected.is_err_and(|e| reason(&e) == "TOO_MANY_OPEN_ORDERS"));
    let open = ListOrdersRequest { open_only: true, ..ListOrdersRequest::default() };
    let none = story.orders(ALICE).list(open.clone()).await.unwrap().into_inner();
    assert!(none.orders.is_empty() && none.user_seq > 0);
    assert_eq!(story.orders(BOB).list(open).await.unwrap().into_inner().orders.len(), 2);

    // A halt is in force when it is answered; canceling goes on.
    let halt =
        SetStateCommand { symbol: "AAPL".into(), state: TradingState::Halted.into(), ..Default::default() };
    story.command(None, What::SetState(halt)).await;
    let halted = story.place(ALICE, sell(1, 2_400_000)).await.unwrap_err();
    assert_eq!((halted.code(), reason(&halted).as_str()), (Code::FailedPrecondition, "SYMBOL_HALTED"));
    let all = CancelAllRequest::default();
    assert_eq!(story.orders(ALICE).cancel_all(all.clone()).await.unwrap().into_inner().requested, 0);
    let all = story.orders(BOB).cancel_all(all).await.unwrap();
    let (at, count) = (position(&all), all.into_inner().requested);
    let listed = story.orders(BOB).list(from(at, ListOrdersRequest::default())).await.unwrap().into_inner();
    assert_eq!((count, listed.orders.len()), (2, 2));
    assert!(listed.orders.iter().all(|order| order.state() == OrderState::Canceled));
    assert_eq!(story.status().await.open_orders, 0);
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_market_order_trades_within_its_collar() {
    let story = Story::start().await;
    let market = PlaceOrderRequest { r#type: OrderType::Market.into(), price_e4: 0, ..buy(5, 1) };
    story.place(ALICE, sell(2, 2_320_000)).await.unwrap();
    story.place(ALICE, sell(2, 2_375_000)).await.unwrap();
    // 231.00 + 2.5 % = 236.77.
    let ended = story.place(BOB, market.clone()).await.unwrap();
    assert_eq!((ended.state(), ended.filled_e4), (OrderState::Canceled, 20_000));
    assert_eq!(ended.reject_code, "COLLAR");
    // From now on the last trade is the reference: 232.00 + 2.5 % = 237.80.
    let ended = story.place(BOB, market).await.unwrap();
    assert_eq!((ended.filled_e4, ended.fills[0].price_e4), (20_000, 2_375_000));
    assert_eq!(ended.reject_code, "NO_LIQUIDITY");
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replace_counts_versions_and_a_refused_one_leaves_the_order() {
    let story = Story::start().await;
    let order = story.place(BOB, buy(2, 2_300_000)).await.unwrap();
    let change = ReplaceOrderRequest { order_id: order.id.clone(), ..ReplaceOrderRequest::default() };
    let request =
        ReplaceOrderRequest { quantity_e4: 30_000, price_e4: 2_310_000, version: 1, ..change.clone() };
    let replaced = story.replace(BOB, request.clone()).await.unwrap();
    assert_eq!((replaced.version, replaced.quantity_e4, replaced.price_e4), (2, 30_000, 2_310_000));
    assert_eq!((replaced.state(), replaced.pending()), (OrderState::New, PendingAction::None));
    let stale = story.replace(BOB, request).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::FailedPrecondition, "VERSION_DIFFERS"));
    for (bad, why) in [
        (change.clone(), "NOTHING_TO_REPLACE"),
        (ReplaceOrderRequest { price_e4: 150, ..change.clone() }, "PRICE_OFF_TICK"),
        (ReplaceOrderRequest { price_e4: 100, ..change.clone() }, "PRICE_OUT_OF_BAND"),
        (ReplaceOrderRequest { quantity_e4: -1, ..change.clone() }, "QUANTITY_NOT_POSITIVE"),
        (ReplaceOrderRequest { stop_price_e4: 100, ..change.clone() }, "STOP_PRICE_NOT_ALLOWED"),
        (ReplaceOrderRequest { quantity_e4: 10_000_000, ..change.clone() }, "INSUFFICIENT_FUNDS"),
        (
            ReplaceOrderRequest { order_id: Uuid::new_v4().to_string(), price_e4: 100, ..change.clone() },
            "ORDER_NOT_FOUND",
        ),
    ] {
        let refused = story.replace(BOB, bad).await.unwrap_err();
        assert_eq!(reason(&refused), why, "{}", refused.message());
    }
    let same = story.get(BOB, &order.id, 0).await.unwrap();
    assert_eq!((same.version, same.price_e4, same.pending()), (2, 2_310_000, PendingAction::None));
    let change = ReplaceOrderRequest { price_e4: 2_320_000, ..change };
    assert_eq!(story.replace(BOB, change.clone()).await.unwrap().version, 3);
    story.cancel(BOB, &order.id).await.unwrap();
    let done = story.replace(BOB, change).await.unwrap_err();
    assert_eq!(reason(&done), "ORDER_DONE");
    assert!(done.message().contains("CANCELED and can no longer be replaced"), "{}", done.message());
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_flatten_cancels_and_sells_what_is_there_or_says_what_is_left() {
    let story = Story::start().await;
    let resting = story.place(ALICE, sell(60, 2_400_000)).await.unwrap();
    story.place(BOB, buy(40, 2_310_000)).await.unwrap();
    let request = FlattenRequest { symbol: "AAPL".into(), ..FlattenRequest::default() };
    let reply = story.orders(ALICE).flatten(request.clone()).await.unwrap();
    let at = position(&reply);
    let reply = reply.into_inner();
    assert_eq!((reply.canceled, reply.left_e4, reply.code), (1, 600_000, Code::FailedPrecondition as u32));
    let why = "the rest was canceled: nothing is left on the other side of the book";
    assert_eq!((reply.reason.as_str(), reply.message.as_str()), ("NO_LIQUIDITY", why));
    let sold = reply.order.unwrap();
    assert_eq!((sold.filled_e4, sold.side(), sold.r#type()), (400_000, Side::Sell, OrderType::Market));
    assert_eq!(story.get(ALICE, &resting.id, at).await.unwrap().state(), OrderState::Canceled);
    assert_eq!(story.get(ALICE, &sold.id, at).await.unwrap().fills.len(), 1);
    story.place(BOB, buy(60, 2_310_000)).await.unwrap();
    let flat = story.orders(ALICE).flatten(request).await.unwrap().into_inner();
    assert_eq!((flat.canceled, flat.left_e4, flat.code, flat.reason.as_str()), (0, 0, 0, ""));
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_read_model_is_made_again_from_the_facts() {
    let story = Story::start().await;
    let request = PlaceOrderRequest { client_order_id: "kept".into(), ..buy(3, 2_310_000) };
    let (kept, _) = story.placed(BOB, request.clone()).await;
    story.place(ALICE, sell(1, 2_310_000)).await.unwrap();
    let (last, at) = story.placed(ALICE, sell(5, 2_500_000)).await;
    let before = story.get(BOB, &kept.id, at).await.unwrap();
    assert_eq!((before.filled_e4, before.fills.len()), (10_000, 1));
    let updates = UpdatesSinceRequest::default();
    let told = story.orders(BOB).updates_since(updates.clone()).await.unwrap().into_inner();

    let story = story
        .restart(|s| {
            let database = s.data_dir().join("db").join("order-service.sqlite");
            for file in ["", "-wal", "-shm"] {
                let mut path = database.clone().into_os_string();
                path.push(file);
                // On Postgres there is no file, and nothing is lost.
                let _absent = std::fs::remove_file(path);
            }
        })
        .await;
    assert_eq!(story.get(BOB, &kept.id, at).await.unwrap(), before);
    assert_eq!(story.orders(BOB).updates_since(updates).await.unwrap().into_inner(), told);
    assert_eq!(story.place(BOB, request).await.unwrap(), before);
    let open = ListOrdersRequest { open_only: true, ..ListOrdersRequest::default() };
    let open = story.orders(ALICE).list(open).await.unwrap().into_inner().orders;
    assert_eq!(open.iter().map(|o| &o.id).collect::<Vec<_>>(), [&last.id]);
    // And it goes on.
    let (filled, at) = story.placed(ALICE, sell(2, 2_310_000)).await;
    assert_eq!(filled.state(), OrderState::Filled);
    assert_eq!(story.get(BOB, &kept.id, at).await.unwrap().state(), OrderState::Filled);
    assert_eq!(story.status().await.open_orders, 1);
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_orders_of_one_who_leaves_end_and_a_symbol_is_cleared_of_everybodys() {
    let story = Story::start().await;
    let bobs = story.place(BOB, buy(1, 2_300_000)).await.unwrap();
    let alices = story.place(ALICE, sell(1, 2_400_000)).await.unwrap();
    let at = story.command(Some(BOB), What::CloseUser(CloseUserCommand {})).await;
    assert_eq!(story.get(BOB, &bobs.id, at).await.unwrap().state(), OrderState::Canceled);
    assert_eq!(reason(&story.place(BOB, buy(1, 2_300_000)).await.unwrap_err()), "USER_CLOSED");
    let request = SymbolOrdersRequest { symbol: "AAPL".into() };
    let reply = story.stack.running.context.clients.order(&testing::system()).cancel_symbol(request).await;
    let reply = reply.unwrap();
    assert_eq!((reply.get_ref().requested, reply.metadata().contains_key(POSITION_KEY)), (1, true));
    let ended = story.get(ALICE, &alices.id, position(&reply)).await.unwrap();
    assert_eq!(ended.state(), OrderState::Canceled);
    story.stack.stop().await;
}
