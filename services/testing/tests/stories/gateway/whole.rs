//! The public API over the real services: a trade between two users, and nobody sees another's rows.

use super::subscriptions::connect;
use super::*;
use fafnir_services::ALL;
use std::collections::BTreeSet;

const SELLER: &str = "22222222-0000-4000-8000-000000000001";
pub const SELLER_ACCOUNT: &str = "22222222-0000-4000-8000-000000000002";

/// A whole stack with a member who has money and a seller who has shares.
pub async fn whole() -> (Door, String) {
    whole_with(true).await
}

async fn whole_with(in_process: bool) -> (Door, String) {
    let settings = |settings: &mut Settings| {
        settings.bind.in_process = in_process;
        // These stories ask for everything that there is, many times a second.
        settings.gateway.cost_per_second = 0;
    };
    let stack = Stack::start_with(ALL, settings).await;
    let url = stack.url("api-gateway").to_owned();
    let mut door = Door { stack, url, world: Shared::default(), member: String::new(), admin: String::new() };
    door.seed(MEMBER, "user@test.com", &["member"]).await;
    door.seed(SELLER, "seller@test.com", &["member"]).await;
    door.seed(ADMIN, "admin@test.com", &["admin"]).await;
    let clients = door.stack.running.context.clients.clone();
    let caller = Caller::system("seed");
    let listing = v1::Instrument { previous_close_e4: 2_310_000, shares_outstanding: 1_000, ..instrument() };
    clients.stock(&caller).upsert_instrument(listing).await.unwrap();
    let mut portfolio = clients.portfolio(&caller);
    for (account_id, user_id) in [(ACCOUNT, MEMBER), (SELLER_ACCOUNT, SELLER)] {
        let seed = v1::SeedAccountRequest {
            account_id: account_id.to_owned(),
            user_id: user_id.to_owned(),
            r#type: v1::AccountType::Investment.into(),
            currency: "USD".to_owned(),
        };
        portfolio.seed_account(seed).await.unwrap();
    }
    let cash = v1::EndowRequest {
        key: "cash".to_owned(),
        account_id: ACCOUNT.to_owned(),
        currency: "USD".to_owned(),
        amount_micros: 10_000_000_000,
        ..Default::default()
    };
    let shares = v1::EndowRequest {
        key: "shares".to_owned(),
        account_id: SELLER_ACCOUNT.to_owned(),
        symbol: "AAPL".to_owned(),
        quantity_e4: 100_000,
        cost_price_e4: 2_000_000,
        currency: "USD".to_owned(),
        ..Default::default()
    };
    for endowment in [cash, shares] {
        // The listing reaches portfolio-service as a fact.
        let endowed = async || portfolio.clone().endow(endowment.clone()).await.is_ok();
        testing::until(&door.stack.running.context, "the endowment is there", endowed).await;
    }
    door.member = door.sign_in("user@test.com").await.access_token;
    door.admin = door.sign_in("admin@test.com").await.access_token;
    let seller = door.sign_in("seller@test.com").await.access_token;
    (door, seller)
}

/// Places a limit order; the listing may still be on its way to order-service.
pub async fn place(door: &Door, token: &str, side: &str, quantity: &str, price: &str) -> Value {
    // Tried again it is the same order.
    let key = Uuid::new_v4();
    let query = format!(
        "mutation {{ createOrder(request: {{symbol: \"AAPL\", side: \"{side}\", type: \"LIMIT\", \
         quantity: {quantity}, price: {price}, clientOrderId: \"{key}\"}}) {{ code data {{ id status rejectReason }} }} }}"
    );
    let ask = async || door.ask_as(token, &query, json!({})).await.json();
    let placed = async || ask().await.get("errors").is_none();
    testing::until(&door.stack.running.context, &query, placed).await;
    ask().await["data"]["createOrder"].clone()
}

/// The private stream tells of the order's fill and of the shares.
async fn told_of_the_fill(private: &mut tonic::Streaming<v1::PrivateUpdate>, id: &str) {
    let (mut filled, mut held) = (false, false);
    while !(filled && held) {
        let message = private.message().await.unwrap().unwrap();
        match message.kind.unwrap() {
            v1::private_update::Kind::Order(u) => {
                filled |= u.order.is_some_and(|o| o.id == id && o.state() == v1::OrderState::Filled);
            }
            v1::private_update::Kind::Portfolio(u) => {
                held |= u.holding.is_some_and(|h| h.symbol == "AAPL" && h.quantity_e4 == 30_000);
            }
            v1::private_update::Kind::Heartbeat(_) => {}
        }
    }
}

#[tokio::test]
async fn two_users_trade_and_see_it_everywhere() {
    a_trade(true).await;
}

#[tokio::test]
async fn two_users_trade_and_see_it_everywhere_over_sockets() {
    a_trade(false).await;
}

/// The report of the member's account after the trade.
async fn is_reported(door: &Door, order: &str) {
    let report = door
        .ask(&format!(
            "{{ report(accountId: \"{ACCOUNT}\") {{ code data {{ currency openingBalance closingBalance hasMore \
             performance {{ endValue inflows }} gains {{ symbols {{ symbol quantity }} total {{ fees }} }} \
             trades {{ side quantity price amount fee orderId }} flows {{ change balance }} }} }} }}"
        ))
        .await;
    // 10,000 came; 3 for 231.05 each are 693.15.
    assert_eq!(
        report["report"],
        json!({"code": "OK", "data": {
            "currency": "USD", "openingBalance": 0, "closingBalance": 9306.85, "hasMore": false,
            "performance": {"endValue": 10000, "inflows": 10000},
            "gains": {"symbols": [{"symbol": "AAPL", "quantity": 3}], "total": {"fees": 0}},
            "trades": [{"side": "BUY", "quantity": 3, "price": 231.05, "amount": 693.15, "fee": 0, "orderId": order}],
            "flows": [{"change": 10000, "balance": 10000}],
        }})
    );
}

async fn a_trade(in_process: bool) {
    let (door, seller) = whole_with(in_process).await;
    let mut terminal = door.terminal().await;
    let mut request = tonic::Request::new(v1::PrivateRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {}", door.member).parse().unwrap());
    let mut private = terminal.private(request).await.unwrap().into_inner();

    assert_eq!(place(&door, &seller, "SELL", "5", "231.05").await["code"], "OK");
    let order = place(&door, &door.member, "BUY", "3", "231.10").await;
    assert_eq!(order["code"], "OK", "{order}");
    let id = order["data"]["id"].as_str().unwrap();
    tokio::time::timeout(testing::DEADLINE, told_of_the_fill(&mut private, id)).await.expect("told in time");

    let data = door
        .ask(
            "{ getOrders { count data { id status state filledQuantity avgFillPrice openQuantity \
               fills { price quantity } } } }",
        )
        .await;
    assert_eq!(
        data["getOrders"],
        json!({"count": 1, "data": [{
            "id": id, "status": "FILLED", "state": "FILLED", "filledQuantity": 3, "avgFillPrice": 231.05,
            "openQuantity": 0, "fills": [{"price": 231.05, "quantity": 3}],
        }]})
    );
    // The trade reaches stock-service by a follower of its own.
    let quoted = async || {
        let data = door.ask("{ getStockQuote(symbol: \"AAPL\") { data { price } } }").await;
        data["getStockQuote"]["data"]["price"] == json!(231.05)
    };
    testing::until(&door.stack.running.context, "the quote shows the trade", quoted).await;
    let data = door
        .ask(&format!(
            "{{ getHolding(request: {{accountId: \"{ACCOUNT}\", symbol: \"aapl\"}}) {{ code data {{ quantity avgCost }} }} \
             none: getHolding(request: {{accountId: \"{ACCOUNT}\", symbol: \"MSFT\"}}) {{ code }} \
             getPortfolioSummary {{ code totalBalance }} \
             getTransactions(request: {{accountId: \"{ACCOUNT}\"}}) {{ code data {{ type amount referenceId }} }} \
             statement(accountId: \"{ACCOUNT}\") {{ code data {{ openingBalance closingBalance entries {{ balance }} }} }} \
             portfolioPerformance(accountId: \"{ACCOUNT}\") {{ code data {{ endValue points {{ value }} }} }} \
             orderBook(symbol: \"AAPL\") {{ code }} trades(symbol: \"AAPL\") {{ code data {{ tradeNo price quantity }} }} }}"
        ))
        .await;
    assert_eq!(data["getHolding"], json!({"code": "OK", "data": {"quantity": 3, "avgCost": 231.05}}));
    assert_eq!(data["none"]["code"], "NOT_FOUND");
    assert_eq!(data["getPortfolioSummary"], json!({"code": "OK", "totalBalance": 9306.85}));
    is_reported(&door, id).await;
    let newest = &data["getTransactions"]["data"][0];
    assert_eq!(newest, &json!({"type": "BUY", "amount": 693.15, "referenceId": id}));
    assert_eq!(data["statement"]["data"]["closingBalance"], json!(9306.85));
    assert_eq!(data["portfolioPerformance"]["code"], "OK");
    assert_eq!(data["portfolioPerformance"]["data"]["endValue"], json!(10000));
    assert_eq!(data["trades"]["data"], json!([{"tradeNo": 1, "price": 231.05, "quantity": 3}]));

    // Done already: an error, and nothing changes.
    let (code, _, _) =
        door.error_of(&format!("mutation {{ cancelOrder(orderId: \"{id}\") {{ code }} }}")).await;
    assert_eq!(code, "FAILED_PRECONDITION");
    // Nobody buys: what is left, and why.
    let query = "mutation { flatten(symbol: \"AAPL\") { code reason left canceled orders { side type } } }";
    let flat = door.ask(query).await["flatten"].clone();
    assert_eq!(flat["orders"], json!([{"side": "SELL", "type": "MARKET"}]));
    assert_eq!((&flat["left"], &flat["reason"]), (&json!(3), &json!("NO_LIQUIDITY")), "{flat}");
    // Refused for funds: the REJECTED order.
    let order = place(&door, &door.member, "BUY", "1000", "231.00").await;
    assert_eq!(
        (&order["code"], &order["data"]["status"]),
        (&json!("FAILED_PRECONDITION"), &json!("REJECTED"))
    );
    door.stack.stop().await;
}

#[tokio::test]
async fn what_is_refused_says_why_and_what_is_done_is_read_at_once() {
    let (door, _seller) = whole().await;
    let money = async |field: &str, amount: &str| {
        let query = format!(
            "mutation {{ {field}(request: {{accountId: \"{ACCOUNT}\", amount: {amount}, currency: \"USD\"}}) \
             {{ code reason message newBalance }} }}"
        );
        door.ask(&query).await[field].clone()
    };
    let refused = money("withdraw", "20000").await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("FAILED_PRECONDITION"), &json!("INSUFFICIENT_FUNDS"))
    );
    assert!(refused["message"].as_str().unwrap().contains("10,000.00"), "{refused}");
    let refused = money("deposit", "-1").await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("INVALID_ARGUMENT"), &json!("AMOUNT_OUT_OF_RANGE"))
    );
    let query =
        "mutation { createAccount(request: {type: \"HOUSE\", currency: \"USD\"}) { code reason message } }";
    assert_eq!(door.ask(query).await["createAccount"]["reason"], json!("ACCOUNT_TYPE_UNKNOWN"));
    // Each answer is what the next read knows.
    let mut cents: i64 = 1_000_000;
    for round in 1..=20 {
        let (field, change) = if round % 2 == 0 { ("withdraw", -200) } else { ("deposit", 100) };
        cents += change;
        let amount = format!("{}.00", change.abs() / 100);
        let done = money(field, &amount).await;
        let balance = json!(cents / 100);
        assert_eq!((&done["code"], &done["newBalance"]), (&json!("OK"), &balance), "{done}");
        let read = door.ask("{ getPortfolioSummary { accounts { balance } } }").await;
        assert_eq!(read["getPortfolioSummary"]["accounts"][0]["balance"], balance);
    }
    let query = format!(
        "{{ getTransactions(request: {{accountId: \"{ACCOUNT}\"}}) {{ data {{ type description }} }} }}"
    );
    let newest = door.ask(&query).await["getTransactions"]["data"][0].clone();
    assert_eq!(newest, json!({"type": "TRANSFER_OUT", "description": "Withdrawal"}));
    door.stack.stop().await;
}

/// Ids of what somebody owns, and of the owner.
#[derive(Clone, Copy)]
pub struct Ids<'a> {
    pub order: &'a str,
    pub account: &'a str,
    pub group: &'a str,
    pub session: &'a str,
    pub key: &'a str,
    pub user: &'a str,
}

impl<'a> Ids<'a> {
    /// The same for everything.
    pub fn all(id: &'a str) -> Self {
        Self { order: id, account: id, group: id, session: id, key: id, user: id }
    }

    fn each(&self) -> [&'a str; 6] {
        [self.order, self.account, self.group, self.session, self.key, self.user]
    }
}

/// What an administrator alone may ask, about anybody.
const ADMINISTRATORS: [&str; 7] = [
    "userPermissions",
    "auditLog",
    "deactivateUser",
    "reactivateUser",
    "endSessions",
    "grantRole",
    "revokeRole",
];
/// What everybody with a profile may ask, administrators too, about the own.
const EVERYBODYS: [&str; 3] = ["createApiKey", "revokeApiKey", "revokeSession"];

/// The root field of an operation.
fn field_of(operation: &str) -> &str {
    let text = operation.trim_start_matches("mutation").trim_start_matches([' ', '{']);
    text.split('(').next().unwrap()
}

/// Every operation with an id of somebody's row, over GraphQL.
pub fn operations_with(ids: Ids<'_>) -> Vec<String> {
    let Ids { order, account, group, session, key, user } = ids;
    vec![
        format!("mutation {{ cancelOrderGroup(groupId: \"{group}\") {{ code }} }}"),
        format!("mutation {{ revokeSession(sessionId: \"{session}\") {{ code }} }}"),
        format!("mutation {{ revokeApiKey(keyId: \"{key}\") {{ code }} }}"),
        format!("{{ userPermissions(userId: \"{user}\") {{ code }} }}"),
        format!("{{ auditLog(userId: \"{user}\") {{ code }} }}"),
        format!("mutation {{ deactivateUser(userId: \"{user}\") {{ code }} }}"),
        format!("mutation {{ reactivateUser(userId: \"{user}\") {{ code }} }}"),
        format!("mutation {{ endSessions(userId: \"{user}\") {{ code }} }}"),
        format!("mutation {{ grantRole(userId: \"{user}\", role: \"admin\") {{ code }} }}"),
        format!("mutation {{ revokeRole(userId: \"{user}\", role: \"member\") {{ code }} }}"),
        format!("{{ getOrderByOrderID(request: {{orderId: \"{order}\"}}) {{ code data {{ id userId }} }} }}"),
        format!("{{ getHoldings(request: {{accountId: \"{account}\"}}) {{ code data {{ id }} }} }}"),
        format!(
            "{{ getHolding(request: {{accountId: \"{account}\", symbol: \"AAPL\"}}) {{ code data {{ id }} }} }}"
        ),
        format!("{{ getTransactions(request: {{accountId: \"{account}\"}}) {{ code data {{ id }} }} }}"),
        format!("{{ statement(accountId: \"{account}\") {{ code data {{ openingBalance }} }} }}"),
        format!("{{ orderHistory(orderId: \"{order}\") {{ code }} }}"),
        format!("{{ realizedGains(accountId: \"{account}\") {{ code }} }}"),
        format!("{{ lots(accountId: \"{account}\", symbol: \"AAPL\") {{ code }} }}"),
        format!("{{ report(accountId: \"{account}\") {{ code data {{ openingBalance }} }} }}"),
        format!(
            "mutation {{ withdraw(request: {{accountId: \"{account}\", amount: 1, currency: \"USD\"}}) \
             {{ code newBalance }} }}"
        ),
        format!("mutation {{ flatten(accountId: \"{account}\", symbol: \"AAPL\") {{ code }} }}"),
        format!("{{ portfolioPerformance(accountId: \"{account}\") {{ code data {{ endValue }} }} }}"),
        format!("mutation {{ cancelOrder(orderId: \"{order}\") {{ code data {{ id }} }} }}"),
        format!(
            "mutation {{ replaceOrder(request: {{orderId: \"{order}\", price: 231.20}}) {{ code data {{ id }} }} }}"
        ),
        format!(
            "mutation {{ deposit(request: {{accountId: \"{account}\", amount: 1, currency: \"USD\"}}) \
             {{ code newBalance }} }}"
        ),
        format!(
            "mutation {{ transfer(request: {{fromAccountId: \"{account}\", toAccountId: \"{ACCOUNT}\", amount: 1, \
             currency: \"USD\"}}) {{ code }} }}"
        ),
        format!(
            "mutation {{ transfer(request: {{fromAccountId: \"{ACCOUNT}\", toAccountId: \"{account}\", amount: 1, \
             currency: \"USD\"}}) {{ code }} }}"
        ),
        format!("mutation {{ deleteAccount(accountId: \"{account}\") }}"),
        format!(
            "mutation {{ createApiKey(request: {{label: \"bot\", accountId: \"{account}\"}}) {{ code secret }} }}"
        ),
        format!(
            "mutation {{ createOrder(request: {{symbol: \"AAPL\", side: \"BUY\", type: \"LIMIT\", quantity: 1, \
             price: 231, accountId: \"{account}\"}}) {{ code data {{ id }} }} }}"
        ),
    ]
}

/// The fields of the schema that take the id of somebody's row, in an argument or in an input's field. The one that a
/// client makes up names nobody's.
async fn fields_with_ids(door: &Door) -> BTreeSet<String> {
    let named = |value: &Value| {
        let name = value["name"].as_str().unwrap();
        (name == "id" || name.ends_with("Id")) && name != "clientOrderId"
    };
    let root = "fields { name args { name type { name ofType { name } } } }";
    let query = format!(
        "{{ __schema {{ queryType {{ {root} }} mutationType {{ {root} }} subscriptionType {{ {root} }} \
         types {{ name inputFields {{ name }} }} }} }}"
    );
    let schema = door.ask(&query).await["__schema"].clone();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let inputs: BTreeSet<_> = list(&schema["types"])
        .iter()
        .filter(|t| list(&t["inputFields"]).iter().any(named))
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect();
    let takes = |arg: &Value| {
        let kind = arg["type"]["ofType"]["name"].as_str().or(arg["type"]["name"].as_str());
        named(arg) || kind.is_some_and(|kind| inputs.contains(kind))
    };
    let fields = ["queryType", "mutationType", "subscriptionType"].map(|root| list(&schema[root]["fields"]));
    let with_ids = fields.iter().flatten().filter(|field| list(&field["args"]).iter().any(takes));
    with_ids.map(|field| field["name"].as_str().unwrap().to_owned()).collect()
}

/// What a seller has beside an account: an open order, a group of two, a session, a key.
struct Sellers {
    order: String,
    group: String,
    session: String,
    key: String,
}

impl Sellers {
    async fn of(door: &Door, seller: &str) -> Self {
        let order = place(door, seller, "SELL", "5", "231.30").await;
        let exits = "{symbol: \"AAPL\", side: \"SELL\", type: \"LIMIT\", quantity: 1, price: 250}, \
                     {symbol: \"AAPL\", side: \"SELL\", type: \"STOP\", quantity: 1, stopPrice: 200}";
        let query = format!(
            "mutation {{ createOrderGroup(request: {{kind: \"OCO\", orders: [{exits}]}}) {{ code reason groupId }} }}"
        );
        let group = door.ask_as(seller, &query, json!({})).await.json()["data"]["createOrderGroup"].clone();
        assert_eq!(group["code"], "OK", "{group}");
        let sessions = door.ask_as(seller, "{ sessions { data { id } } }", json!({})).await.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            order: text(&order["data"]["id"]),
            group: text(&group["groupId"]),
            session: text(&sessions["data"]["sessions"]["data"][0]["id"]),
            key: door.key(seller, "read", "").await.id,
        }
    }

    fn ids(&self) -> Ids<'_> {
        let Self { order, group, session, key } = self;
        Ids { order, account: SELLER_ACCOUNT, group, session, key, user: SELLER }
    }
}

/// All that the seller has, without what changes by itself.
async fn belongings(door: &Door, seller: &str) -> Value {
    let query = "{ getOrders { data { id state version price } } getPortfolioSummary { accounts { id balance held } } \
                 sessions { data { id } } apiKeys { data { id } } getProfileData { data { userId } } }";
    let mut all = door.ask_as(seller, query, json!({})).await.json()["data"].clone();
    for order in all["getOrders"]["data"].as_array_mut().unwrap() {
        // NEW or still PENDING_NEW: what matters is that nobody else ended it.
        let has_ended = order["state"].as_str().is_some_and(|s| s == "CANCELED" || s == "REJECTED");
        order["state"] = json!(has_ended);
    }
    all
}

#[tokio::test]
async fn another_users_rows_are_as_unknown_as_rows_that_do_not_exist() {
    let (door, seller) = whole().await;
    let sellers = Sellers::of(&door, &seller).await;
    let before = belongings(&door, &seller).await;
    let random = Uuid::new_v4().to_string();
    let (theirs, nobodys) = (sellers.ids(), Ids::all(&random));
    let operations = operations_with(theirs);
    let mut covered: BTreeSet<_> = operations.iter().map(|text| field_of(text).to_owned()).collect();
    // Narrows down the caller's own: below.
    covered.insert("getOrders".to_owned());
    assert_eq!(covered, fields_with_ids(&door).await, "an operation that takes an id is missing above");
    for account in [SELLER_ACCOUNT, &random] {
        let query = format!("{{ getOrders(accountId: \"{account}\") {{ code count data {{ id }} }} }}");
        let own = door.ask(&query).await["getOrders"].clone();
        assert_eq!((&own["count"], own["data"].as_array().map_or(0, Vec::len)), (&json!(0), 0), "{own}");
    }
    for (own, unknown) in operations.iter().zip(&operations_with(nobodys)) {
        // An answer may name the id that was asked for, and nothing else that differs.
        let strip = |answer: Value, ids: Ids<'_>| {
            let mut answer = answer;
            if let Some(errors) = answer["errors"].as_array_mut() {
                for error in errors {
                    error.as_object_mut().unwrap().remove("locations");
                }
            }
            ids.each().iter().fold(answer.to_string(), |text, id| text.replace(id, "ID"))
        };
        let got = door.ask_as(&door.member, own, json!({})).await.json();
        let want = door.ask_as(&door.member, unknown, json!({})).await.json();
        let text = got.to_string();
        assert_eq!(strip(got, theirs), strip(want, nobodys), "{own}");
        assert!(!text.contains("\"OK\"") && !text.contains("true"), "{own}: {text}");
        let field = field_of(own);
        if ADMINISTRATORS.contains(&field) {
            assert!(text.contains("PERMISSION_DENIED"), "{own}: {text}");
            continue;
        }
        let asked = door.ask_as(&door.admin, own, json!({})).await.json();
        if EVERYBODYS.contains(&field) {
            assert_eq!(asked["data"][field]["code"], "NOT_FOUND", "{own}: {asked}");
        } else {
            assert_eq!(asked["errors"][0]["extensions"]["code"], "PERMISSION_DENIED", "{own}");
        }
    }
    for malformed in
        ["", "x", "../../etc/passwd", "' OR 1=1 --", "\\u0000", "00000000-0000-0000-0000-00000000000g"]
    {
        for query in operations_with(Ids::all(malformed)) {
            let answer = door.ask_as(&door.member, &query, json!({})).await.json();
            let text = answer.to_string();
            let refused = match field_of(&query) {
                // A key's public half has a form of its own; what has not is no key.
                "revokeApiKey" => "NOT_FOUND",
                field if ADMINISTRATORS.contains(&field) => "PERMISSION_DENIED",
                _ => "INVALID_ARGUMENT",
            };
            assert!(!text.contains("\"OK\"") && text.contains(refused), "{query}: {text}");
        }
    }
    // Straight on gRPC, with the service token of the platform but as the wrong user.
    let clients = &door.stack.running.context.clients;
    let me = Caller::User(MEMBER.parse().unwrap());
    let (mut orders, mut portfolio) = (clients.order(&me), clients.portfolio(&me));
    for user_id in [String::new(), SELLER.to_owned()] {
        let get = v1::GetOrderRequest { user_id: user_id.clone(), order_id: sellers.order.clone() };
        assert_eq!(orders.get(get).await.unwrap_err().code(), Code::NotFound);
        let cancel = v1::CancelOrderRequest { user_id: user_id.clone(), order_id: sellers.order.clone() };
        assert_eq!(orders.cancel(cancel).await.unwrap_err().code(), Code::NotFound);
        let account = v1::AccountRequest { user_id: user_id.clone(), account_id: SELLER_ACCOUNT.to_owned() };
        assert_eq!(portfolio.holdings(account.clone()).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(portfolio.close_account(account).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(belongings(&door, &seller).await, before, "nothing was written");
    door.stack.stop().await;
}

#[tokio::test]
async fn nobody_hears_of_anothers_orders_and_money() {
    let (door, seller) = whole().await;
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    socket
        .subscribe("orders", "subscription { orderUpdates(after: 0) { sequence order { id userId } } }")
        .await;
    socket
        .subscribe("money", "subscription { portfolioUpdates(after: 0) { sequence account { userId } holding { accountId } } }")
        .await;
    assert_eq!(place(&door, &seller, "SELL", "5", "231.05").await["code"], "OK");
    let own = place(&door, &door.member, "BUY", "3", "231.10").await;
    let own = own["data"]["id"].as_str().unwrap();
    // Both are told of the same trade; the member's shares are the last that it brings.
    let (mut ordered, mut held) = (false, false);
    while !(ordered && held) {
        let message = socket.receive().await;
        let data = &message["payload"]["data"];
        let (order, money) = (&data["orderUpdates"]["order"], &data["portfolioUpdates"]);
        if order.is_object() {
            assert_eq!((&order["userId"], &order["id"]), (&json!(MEMBER), &json!(own)), "{message}");
            ordered = true;
        }
        if money["account"].is_object() {
            assert_eq!(money["account"]["userId"], MEMBER, "{message}");
        }
        if money["holding"].is_object() {
            assert_eq!(money["holding"]["accountId"], ACCOUNT, "{message}");
            held = true;
        }
    }
    door.stack.stop().await;
}
