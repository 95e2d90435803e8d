//! The story of order-service over real gRPC, on the real broker, engine and listings; portfolio is played by the test.

use crate::stack::{self as testing, Stack};
use fafnir_platform::{Service, bus};
use fafnir_proto::id::UserId;
use fafnir_proto::{
    client::{Caller, REASON_KEY},
    v1::*,
};
use fafnir_services::by_name;
use futures::{StreamExt as _, future::join_all};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tonic::{Code, Status};
use uuid::Uuid;

const ACCOUNT: &str = "00000000-0000-4000-8000-0000000000aa";
const ALICE: UserId = UserId::new(Uuid::from_u128(0xa11ce));
const BOB: UserId = UserId::new(Uuid::from_u128(0xb0b));

/// The services under the story, by name: a service imports no other one.
fn services() -> Vec<&'static Service> {
    ["broker", "auth-service", "stock-service", "trade-engine", "order-service"]
        .map(|name| by_name(name).unwrap())
        .to_vec()
}

/// What the played portfolio-service knows and how it answers.
#[derive(Default)]
struct Portfolio {
    holds: BTreeMap<String, HoldRequest>,
    hold_calls: u32,
    adjusted: Vec<AdjustHoldRequest>,
    released: Vec<String>,
    down: bool,
    /// BUY holds above this are refused.
    funds_e4: Option<i64>,
}

fn refusal(code: Code, reason: &str, text: &str) -> Status {
    let mut status = Status::new(code, text);
    status.metadata_mut().insert(REASON_KEY, reason.parse().unwrap());
    status
}

impl Portfolio {
    fn answer(&mut self, method: &str, request: bytes::Bytes) -> Result<Vec<u8>, Status> {
        if self.down {
            return Err(Status::unavailable("down"));
        }
        let account = Account {
            id: ACCOUNT.into(),
            r#type: AccountType::Investment.into(),
            currency: "USD".into(),
            ..Account::default()
        };
        match method {
            "DefaultAccount" => Ok(account.encode_to_vec()),
            "ListAccounts" => Ok(ListAccountsReply { accounts: vec![account] }.encode_to_vec()),
            "Hold" => {
                let hold: HoldRequest = testing::decode(request);
                self.hold_calls += 1;
                self.affordable(hold.price_e4)?;
                self.holds.insert(hold.order_id.clone(), hold);
                Ok(HoldReply::default().encode_to_vec())
            }
            "AdjustHold" => {
                let adjust: AdjustHoldRequest = testing::decode(request);
                self.affordable(adjust.price_e4)?;
                self.adjusted.push(adjust);
                Ok(HoldReply::default().encode_to_vec())
            }
            "ReleaseHold" => {
                let release: ReleaseHoldRequest = testing::decode(request);
                self.released.push(release.order_id);
                Ok(Empty {}.encode_to_vec())
            }
            other => Err(Status::unimplemented(other.to_owned())),
        }
    }

    fn affordable(&self, price_e4: i64) -> Result<(), Status> {
        match self.funds_e4 {
            Some(funds) if price_e4 > funds => Err(refusal(
                Code::FailedPrecondition,
                "INSUFFICIENT_FUNDS",
                "the order needs 1155.35 USD, 500 are available",
            )),
            _ => Ok(()),
        }
    }
}

struct Story {
    stack: Stack,
    portfolio: Arc<Mutex<Portfolio>>,
    portfolio_url: String,
}

impl Story {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut fafnir_platform::Settings)) -> Self {
        let portfolio = Arc::new(Mutex::new(Portfolio::default()));
        let played = Arc::clone(&portfolio);
        let portfolio_url =
            testing::play(move |method, request| played.lock().unwrap().answer(method, request)).await;
        let url = portfolio_url.clone();
        let stack = Stack::start_with(&services(), |s| {
            s.addresses.portfolio = url;
            change(s);
        })
        .await;
        let story = Self { stack, portfolio, portfolio_url };
        story.list("AAPL", 2_310_000).await;
        story
    }

    async fn restart(self) -> Self {
        let Self { stack, portfolio, portfolio_url } = self;
        let url = portfolio_url.clone();
        let stack = stack.restart(&services(), |s| s.addresses.portfolio = url).await;
        Self { stack, portfolio, portfolio_url }
    }

    /// Lists a symbol and waits until the gate and the engine know it.
    async fn list(&self, symbol: &str, previous_close_e4: i64) {
        let instrument = Instrument {
            symbol: symbol.into(),
            name: symbol.into(),
            exchange: "NASDAQ".into(),
            r#type: InstrumentType::Equity.into(),
            currency: "USD".into(),
            tick_e4: 100,
            lot_e4: 10_000,
            previous_close_e4,
            ..Instrument::default()
        };
        let clients = &self.stack.running.context.clients;
        clients.stock(&testing::system()).upsert_instrument(instrument).await.unwrap();
        testing::until(&self.stack.running.context, "the symbol is known", async || {
            let request = PlaceOrderRequest { symbol: symbol.into(), quantity_e4: 1, ..sell(1, 1) };
            reason(&self.place(ALICE, request).await.unwrap_err()) != "UNKNOWN_SYMBOL"
        })
        .await;
    }

    fn orders(
        &self,
        user: UserId,
    ) -> order_service_client::OrderServiceClient<fafnir_proto::client::Authorised> {
        self.stack.running.context.clients.order(&Caller::User(user))
    }

    async fn place(&self, user: UserId, request: PlaceOrderRequest) -> Result<Order, Status> {
        Ok(self.orders(user).place(request).await?.into_inner().order.unwrap())
    }

    async fn get(&self, user: UserId, id: &str) -> Result<Order, Status> {
        let request = GetOrderRequest { order_id: id.into(), ..GetOrderRequest::default() };
        Ok(self.orders(user).get(request).await?.into_inner().order.unwrap())
    }

    async fn cancel(&self, user: UserId, id: &str) -> Result<Order, Status> {
        let request = CancelOrderRequest { order_id: id.into(), ..CancelOrderRequest::default() };
        Ok(self.orders(user).cancel(request).await?.into_inner().order.unwrap())
    }

    async fn replace(&self, user: UserId, request: ReplaceOrderRequest) -> Result<Order, Status> {
        Ok(self.orders(user).replace(request).await?.into_inner().order.unwrap())
    }

    /// The order once it is in this state.
    async fn reaches(&self, user: UserId, id: &str, state: OrderState) -> Order {
        let context = &self.stack.running.context;
        let so = async || self.get(user, id).await.unwrap().state() == state;
        testing::until(context, &format!("{id} is {state:?}"), so).await;
        self.get(user, id).await.unwrap()
    }

    async fn status(&self) -> OrderStatusReply {
        let clients = &self.stack.running.context.clients;
        clients.order(&testing::system()).status(Empty {}).await.unwrap().into_inner()
    }
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
async fn two_users_trade_and_each_sees_its_own_side() {
    let story = Story::start().await;
    let bus = story.stack.running.context.bus().await.unwrap();
    let mut updates = bus.subscribe(fafnir_proto::subject::private_orders(BOB)).await.unwrap();
    bus.client().flush().await.unwrap();

    let resting = story.place(ALICE, sell(10, 2_310_000)).await.unwrap();
    assert_eq!(resting.state(), OrderState::PendingNew);
    story.reaches(ALICE, &resting.id, OrderState::New).await;
    let taking = story.place(BOB, buy(4, 2_320_000)).await.unwrap();
    let taken = story.reaches(BOB, &taking.id, OrderState::Filled).await;
    assert_eq!((taken.filled_e4, taken.filled_notional_micros), (40_000, 924_000_000));
    assert_eq!((taken.fills.len(), taken.fills[0].maker, taken.fills[0].price_e4), (1, false, 2_310_000));
    let made = story.reaches(ALICE, &resting.id, OrderState::PartiallyFilled).await;
    assert_eq!((made.open_e4, made.fills[0].maker, made.fills[0].side()), (60_000, true, Side::Sell));
    assert_eq!(made.fills[0].exec_id, taken.fills[0].exec_id);

    let canceled = story.cancel(ALICE, &resting.id).await.unwrap();
    assert_eq!((canceled.state(), canceled.reject_code.as_str()), (OrderState::Canceled, "USER"));
    let again = story.cancel(ALICE, &resting.id).await.unwrap_err();
    assert_eq!((again.code(), reason(&again).as_str()), (Code::FailedPrecondition, "ORDER_DONE"));
    assert!(again.message().contains("CANCELED"), "{}", again.message());

    // The stream of private updates is gapless, and the same can be asked for.
    let mut heard = Vec::new();
    while heard.last().is_none_or(|u: &OrderUpdate| u.order.as_ref().unwrap().state() != OrderState::Filled) {
        let message = tokio::time::timeout(testing::DEADLINE, updates.next()).await.unwrap().unwrap();
        heard.push(OrderUpdate::decode(message.payload).unwrap());
    }
    let seqs: Vec<u64> = heard.iter().map(|u| u.user_seq).collect();
    assert_eq!(seqs, (1..=heard.len() as u64).collect::<Vec<_>>());
    assert!(heard.last().unwrap().fill.is_some());
    let since = UpdatesSinceRequest { after_seq: 1, ..UpdatesSinceRequest::default() };
    let since = story.orders(BOB).updates_since(since).await.unwrap().into_inner();
    assert_eq!(since.updates, heard[1..]);
    assert!(!since.reset && !since.more);
    let future = UpdatesSinceRequest { after_seq: 999, ..UpdatesSinceRequest::default() };
    assert!(story.orders(BOB).updates_since(future).await.unwrap().into_inner().reset);

    // Another's order is like none.
    for refused in [
        story.get(BOB, &resting.id).await.unwrap_err(),
        story.cancel(BOB, &resting.id).await.unwrap_err(),
        story.get(BOB, &Uuid::new_v4().to_string()).await.unwrap_err(),
    ] {
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such order"));
    }
    let foreign = GetOrderRequest { user_id: ALICE.to_string(), order_id: resting.id.clone() };
    assert_eq!(story.orders(BOB).get(foreign).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(story.get(BOB, "1").await.unwrap_err().code(), Code::InvalidArgument);

    let list = ListOrdersRequest::default();
    let list = story.orders(ALICE).list(list).await.unwrap().into_inner();
    assert_eq!(list.orders.len(), 1);
    let fills = story.orders(BOB).list_fills(ListFillsRequest::default()).await.unwrap().into_inner().fills;
    assert_eq!(fills, taken.fills);
    // Everything is projected: no command waits, nothing is open.
    let status = story.status().await;
    assert_eq!((status.open_orders, status.dead_letters), (0, 0));
    assert_eq!(status.last_cmd_seq, status.sent_cmd_seq);
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_order_id_is_one_order_for_ever() {
    let story = Story::start().await;
    let request = PlaceOrderRequest { client_order_id: "mine-1".into(), ..buy(1, 2_300_000) };
    let placed = join_all((0..50).map(|_| story.place(BOB, request.clone()))).await;
    let ids: Vec<String> = placed.into_iter().map(|o| o.unwrap().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(story.portfolio.lock().unwrap().hold_calls, 1);
    let other = PlaceOrderRequest { quantity_e4: 20_000, ..request.clone() };
    let refused = story.place(BOB, other).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "CLIENT_ORDER_ID_REUSED"));
    // Another user's is another one; and it holds after the end of the order.
    assert_ne!(story.place(ALICE, request.clone()).await.unwrap().id, ids[0]);
    story.reaches(BOB, &ids[0], OrderState::New).await;
    story.cancel(BOB, &ids[0]).await.unwrap();
    let again = story.place(BOB, request).await.unwrap();
    assert_eq!((&again.id, again.state()), (&ids[0], OrderState::Canceled));
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
    let named = PlaceOrderRequest { account_id: ACCOUNT.into(), ..buy(1, 2_310_000) };
    story.place(BOB, named).await.unwrap();
    story.place(BOB, newco(buy(1, 500))).await.unwrap();
    let refused = story.place(BOB, buy(1, 2_310_000)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "TOO_MANY_OPEN_ORDERS")
    );

    // For funds: a REJECTED order, also the second time.
    story.portfolio.lock().unwrap().funds_e4 = Some(1_000_000);
    let request = PlaceOrderRequest { client_order_id: "poor".into(), ..buy(1, 2_310_000) };
    for _ in 0..2 {
        let rejected = story.place(ALICE, request.clone()).await.unwrap();
        assert_eq!(
            (rejected.state(), rejected.reject_code.as_str()),
            (OrderState::Rejected, "INSUFFICIENT_FUNDS")
        );
        assert!(rejected.reject_reason.contains("500 are available"));
    }
    let none = story.orders(ALICE).list(ListOrdersRequest { open_only: true, ..Default::default() }).await;
    assert!(none.unwrap().into_inner().orders.is_empty());

    let halt = SetTradingStateRequest { symbol: "AAPL".into(), state: TradingState::Halted.into() };
    let clients = &story.stack.running.context.clients;
    clients.stock(&testing::system()).set_trading_state(halt).await.unwrap();
    let context = &story.stack.running.context;
    testing::until(context, "the halt is known", async || {
        // Away from the bid: until the halt is known it rests.
        story.place(ALICE, sell(1, 2_400_000)).await.is_err_and(|e| reason(&e) == "SYMBOL_HALTED")
    })
    .await;
    // Canceling goes on.
    let all = CancelAllRequest::default();
    story.orders(ALICE).cancel_all(all.clone()).await.unwrap();
    assert_eq!(story.orders(BOB).cancel_all(all).await.unwrap().into_inner().requested, 2);
    testing::until(context, "nothing is open", async || story.status().await.open_orders == 0).await;
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_market_order_trades_within_its_collar_and_holds_for_it() {
    let story = Story::start().await;
    let market = PlaceOrderRequest { r#type: OrderType::Market.into(), price_e4: 0, ..buy(5, 1) };
    story.place(ALICE, sell(2, 2_320_000)).await.unwrap();
    story.place(ALICE, sell(2, 2_400_000)).await.unwrap();
    let order = story.place(BOB, market.clone()).await.unwrap();
    assert_eq!(story.portfolio.lock().unwrap().holds[&order.id].price_e4, 2_367_700);
    let ended = story.reaches(BOB, &order.id, OrderState::Canceled).await;
    assert_eq!((ended.filled_e4, ended.reject_code.as_str()), (20_000, "COLLAR"));
    // From now on the last trade is the reference: 232.00 + 2.5 % = 237.80.
    let order = story.place(BOB, market).await.unwrap();
    assert_eq!(story.portfolio.lock().unwrap().holds[&order.id].price_e4, 2_378_000);
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replace_places_the_extra_hold_first_and_counts_versions() {
    let story = Story::start().await;
    let order = story.place(BOB, buy(2, 2_300_000)).await.unwrap();
    let change = ReplaceOrderRequest { order_id: order.id.clone(), ..ReplaceOrderRequest::default() };
    let request =
        ReplaceOrderRequest { quantity_e4: 30_000, price_e4: 2_310_000, version: 1, ..change.clone() };
    let replaced = story.replace(BOB, request.clone()).await.unwrap();
    assert_eq!((replaced.version, replaced.quantity_e4, replaced.price_e4), (2, 30_000, 2_310_000));
    assert_eq!((replaced.state(), replaced.pending()), (OrderState::New, PendingAction::None));
    let adjusted = story.portfolio.lock().unwrap().adjusted.clone();
    assert_eq!(adjusted.len(), 1);
    assert_eq!(
        (adjusted[0].version, adjusted[0].quantity_e4, adjusted[0].price_e4, adjusted[0].only_increase),
        (2, 30_000, 2_310_000, true)
    );
    let stale = story.replace(BOB, request).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::FailedPrecondition, "VERSION_DIFFERS"));
    for (bad, why) in [
        (change.clone(), "NOTHING_TO_REPLACE"),
        (ReplaceOrderRequest { price_e4: 150, ..change.clone() }, "PRICE_OFF_TICK"),
        (ReplaceOrderRequest { price_e4: 100, ..change.clone() }, "PRICE_OUT_OF_BAND"),
        (ReplaceOrderRequest { quantity_e4: -1, ..change.clone() }, "QUANTITY_NOT_POSITIVE"),
        (ReplaceOrderRequest { stop_price_e4: 100, ..change.clone() }, "STOP_PRICE_NOT_ALLOWED"),
    ] {
        assert_eq!(reason(&story.replace(BOB, bad).await.unwrap_err()), why);
    }
    // A refused extra hold leaves the order as it was.
    story.portfolio.lock().unwrap().funds_e4 = Some(1);
    let refused =
        story.replace(BOB, ReplaceOrderRequest { price_e4: 2_320_000, ..change.clone() }).await.unwrap_err();
    assert_eq!(reason(&refused), "INSUFFICIENT_FUNDS");
    let same = story.get(BOB, &order.id).await.unwrap();
    assert_eq!((same.version, same.price_e4, same.pending()), (2, 2_310_000, PendingAction::None));
    // And it can be replaced again.
    story.portfolio.lock().unwrap().funds_e4 = None;
    let again = story.replace(BOB, ReplaceOrderRequest { price_e4: 2_320_000, ..change }).await.unwrap();
    assert_eq!(again.version, 3);
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_on_its_way_goes_on_after_the_restart_once() {
    let story = Story::start().await;
    let resting = story.place(ALICE, sell(1, 2_310_000)).await.unwrap();
    story.reaches(ALICE, &resting.id, OrderState::New).await;
    // Bob's account is known from an earlier order.
    let early = story.place(BOB, buy(1, 2_200_000)).await.unwrap();
    story.cancel(BOB, &early.id).await.unwrap();
    story.portfolio.lock().unwrap().down = true;
    let waiting = story.place(BOB, buy(3, 2_310_000)).await.unwrap();
    assert_eq!(waiting.state(), OrderState::PendingNew);
    let unwanted = story.place(BOB, buy(7, 2_310_000)).await.unwrap();
    let asked = story.cancel(BOB, &unwanted.id).await.unwrap();
    assert_eq!((asked.state(), asked.pending()), (OrderState::PendingNew, PendingAction::Cancel));

    story.portfolio.lock().unwrap().down = false;
    let story = story.restart().await;
    let gone_on = story.reaches(BOB, &waiting.id, OrderState::PartiallyFilled).await;
    assert_eq!((gone_on.filled_e4, gone_on.fills.len()), (10_000, 1));
    let abandoned = story.reaches(BOB, &unwanted.id, OrderState::Rejected).await;
    assert_eq!(abandoned.reject_code, "CANCELED_EARLY");
    assert_eq!(story.portfolio.lock().unwrap().released, [unwanted.id]);
    // The book is the same after one more restart, and numbers go on.
    let story = story.restart().await;
    let status = story.status().await;
    assert_eq!((status.open_orders, status.dead_letters), (1, 0));
    story.place(ALICE, sell(2, 2_310_000)).await.unwrap();
    story.reaches(BOB, &waiting.id, OrderState::Filled).await;
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_users_orders_end() {
    let story = Story::start().await;
    let order = story.place(BOB, buy(1, 2_300_000)).await.unwrap();
    let bus = story.stack.running.context.bus().await.unwrap();
    let fact = UserDeleted { user_id: BOB.to_string(), time_us: 1 }.encode_to_vec();
    bus.publish_fact(bus::USERS.name, fafnir_proto::subject::USER_DELETED, "deleted-bob", fact.into())
        .await
        .unwrap();
    story.reaches(BOB, &order.id, OrderState::Canceled).await;
    story.stack.stop().await;
}
