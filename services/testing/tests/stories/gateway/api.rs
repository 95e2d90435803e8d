//! The operations of public-api.md §6: names, codes, exact numbers.

use super::*;

#[tokio::test]
async fn the_queries_answer_in_the_shapes_that_clients_rely_on() {
    let door = Door::open().await;
    let data = door.ask("{ health }").await;
    assert_eq!(data["health"], "OK");
    let data = door
        .ask(
            "{ a: checkPermission(request: {permission: \"view_stocks\"}) { code data { hasPermission } } \
               b: checkPermission(request: {permission: \"manage_roles\"}) { code data { hasPermission } } \
               c: checkPermission(request: {permission: \"fly\"}) { code data { hasPermission } } }",
        )
        .await;
    assert_eq!(data["a"], json!({"code": "OK", "data": {"hasPermission": true}}));
    assert_eq!(data["b"], json!({"code": "PERMISSION_DENIED", "data": {"hasPermission": false}}));
    assert_eq!(data["c"], json!({"code": "INVALID_ARGUMENT", "data": {"hasPermission": false}}));
    let data = door.ask("{ getProfileData { code data { userId firstName lastName } } }").await;
    assert_eq!(
        data["getProfileData"],
        json!({"code": "OK", "data": {"userId": MEMBER, "firstName": "Ada", "lastName": "Byron"}})
    );
    let data = door
        .ask(
            "{ a: getStockMetadata(symbol: \" aapl \") { code data { symbol currency instrumentType } } \
               b: getStockMetadata(symbol: \"NOPE\") { code data { symbol } } \
               c: getStockMetadata(symbol: \"A*\") { code data { symbol } } }",
        )
        .await;
    assert_eq!(
        data["a"],
        json!({"code": "OK", "data": {"symbol": "AAPL", "currency": "USD", "instrumentType": "EQUITY"}})
    );
    assert_eq!(data["b"], json!({"code": "NOT_FOUND", "data": null}));
    assert_eq!(data["c"], json!({"code": "INVALID_ARGUMENT", "data": null}));
    let data = door
        .ask(
            "{ getStockQuote(symbol: \"AAPL\") { code data { price priceChange priceChangePercent marketCap volume } } \
               no: getStockQuote(symbol: \"NOPE\") { code data { price } } \
               getStockQuoteBatch(symbols: [\"NOPE\", \"aapl\", \"*\"]) { code data { symbol } } \
               searchStocks(query: \"app\") { symbol exchangeFullName } \
               getStockHistoricalData(symbol: \"AAPL\") { code data { date close priceChange priceChangePercent } } }",
        )
        .await;
    let quote = &data["getStockQuote"]["data"];
    assert_eq!(quote["price"], json!(231.07));
    assert_eq!(quote["priceChange"], json!(1.07));
    assert_eq!(quote["priceChangePercent"], json!(0.4652));
    assert_eq!(quote["marketCap"], json!(3_400_000_000_000_u64));
    assert_eq!(quote["volume"], json!(1_234_567));
    assert_eq!(data["no"], json!({"code": "NOT_FOUND", "data": null}));
    assert_eq!(data["getStockQuoteBatch"], json!({"code": "OK", "data": [{"symbol": "AAPL"}]}));
    assert_eq!(data["searchStocks"][0]["exchangeFullName"], "NASDAQ Global Select");
    assert_eq!(data["getStockHistoricalData"]["data"][0]["date"], "1970-01-01");
    let (code, _, _) = door.error_of("{ searchStocks(query: \"  \") { symbol } }").await;
    assert_eq!(code, "INVALID_ARGUMENT");
    door.stack.stop().await;
}

#[tokio::test]
async fn amounts_are_printed_exactly_whatever_their_size() {
    let door = Door::open().await;
    let query = "{ getPortfolioSummary { code totalBalance accounts { balance accountNumber } } }";
    let answer = door.ask_as(&door.member, query, json!({})).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    // 2^53 + 1 micros: no double has it.
    assert!(text.contains("\"totalBalance\":9007199254.740993,"), "{text}");
    assert!(text.contains("\"balance\":9007199254.740993,"), "{text}");
    let data = door
        .ask(&format!(
            "{{ getHoldings(request: {{accountId: \"{ACCOUNT}\"}}) \
             {{ code data {{ symbol quantity avgCost marketValue unrealizedPnl }} }} }}"
        ))
        .await;
    assert_eq!(
        data["getHoldings"]["data"][0],
        json!({"symbol": "AAPL", "quantity": 10, "avgCost": 200, "marketValue": 2310.7, "unrealizedPnl": 310.7})
    );
    door.stack.stop().await;
}

#[tokio::test]
async fn an_order_is_placed_exactly_as_it_was_written() {
    let door = Door::open().await;
    let data = door
        .ask(
            "mutation { createOrder(request: {symbol: \" aapl\", side: \"buy\", type: \"limit\", quantity: 3, \
             price: 231.07, timeInForce: \"day\", clientOrderId: \"c-1\"}) { code data { id status state side type \
             quantity price userId avgFillPrice } } }",
        )
        .await;
    let reply = &data["createOrder"];
    assert_eq!(reply["code"], "OK");
    assert_eq!(reply["data"]["status"], "PENDING");
    assert_eq!(reply["data"]["state"], "PENDING_NEW");
    assert_eq!(reply["data"]["price"], json!(231.07));
    assert_eq!(reply["data"]["userId"], MEMBER);
    {
        let world = door.world.lock().unwrap();
        let placed = &world.placed[0];
        assert_eq!((placed.quantity_e4, placed.price_e4), (30_000, 2_310_700));
        assert_eq!(placed.side(), v1::Side::Buy);
        assert_eq!(placed.time_in_force(), v1::TimeInForce::Day);
        assert_eq!(placed.client_order_id, "c-1");
        assert_eq!(placed.user_id, MEMBER);
    }
    let id = reply["data"]["id"].as_str().unwrap();
    let data = door
        .ask(&format!("{{ getOrderByOrderID(request: {{orderId: \"{id}\"}}) {{ code data {{ id }} }} }}"))
        .await;
    assert_eq!(data["getOrderByOrderID"]["data"]["id"], *id);
    let data = door
        .ask(&format!("mutation {{ cancelOrder(orderId: \"{id}\") {{ code data {{ status }} }} }}"))
        .await;
    assert_eq!(data["cancelOrder"], json!({"code": "OK", "data": {"status": "CANCELED"}}));
    door.stack.stop().await;
}

#[tokio::test]
async fn what_cannot_be_an_order_is_an_error_with_a_code() {
    let door = Door::open().await;
    let order = |quantity: &str, rest: &str| {
        format!(
            "mutation {{ createOrder(request: {{symbol: \"AAPL\", side: \"BUY\", type: \"LIMIT\", \
             quantity: {quantity}{rest}}}) {{ code }} }}"
        )
    };
    for (quantity, rest, reason) in [
        ("1", ", price: 1.00001", "TOO_MANY_DECIMALS"),
        ("1e15", ", price: 1", "NUMBER_TOO_LARGE"),
        ("1", ", price: 1, accountId: \"x\"", "ID_MALFORMED"),
        ("1", ", price: 1, timeInForce: \"FOREVER\"", "TIME_IN_FORCE_UNKNOWN"),
        ("1", ", price: 1, expiresAt: \"soon\"", "TIME_MALFORMED"),
    ] {
        let (code, got, message) = door.error_of(&order(quantity, rest)).await;
        assert_eq!((code.as_str(), got.as_str()), ("INVALID_ARGUMENT", reason), "{message}");
    }
    assert!(door.world.lock().unwrap().placed.is_empty());
    door.world.lock().unwrap().refuse_orders =
        Some(refusal(Code::InvalidArgument, "PRICE_OFF_TICK", "price must be a multiple of 0.01"));
    let got = door.error_of(&order("1", ", price: 1")).await;
    assert_eq!(
        got,
        ("INVALID_ARGUMENT".into(), "PRICE_OFF_TICK".into(), "price must be a multiple of 0.01".into())
    );
    door.world.lock().unwrap().refuse_orders = Some(Status::internal("select secret FROM table"));
    let (code, _, message) = door.error_of(&order("1", ", price: 1")).await;
    assert_eq!((code.as_str(), message.as_str()), ("INTERNAL", "the service failed; the log has the cause"));
    door.world.lock().unwrap().refuse_orders = None;
    door.world.lock().unwrap().reject_orders = true;
    let data = door
        .ask(
            "mutation { createOrder(request: {symbol: \"AAPL\", side: \"BUY\", type: \"LIMIT\", quantity: 1, \
             price: 1}) { code data { status } } }",
        )
        .await;
    assert_eq!(data["createOrder"], json!({"code": "FAILED_PRECONDITION", "data": {"status": "REJECTED"}}));
    door.stack.stop().await;
}

#[tokio::test]
async fn lists_are_paged_by_cursor() {
    let door = Door::open().await;
    {
        let mut world = door.world.lock().unwrap();
        for i in 0..250_u128 {
            let id = Uuid::from_u128(i).to_string();
            world.orders.push(v1::Order { id, user_id: MEMBER.to_owned(), ..Default::default() });
        }
    }
    let data = door.ask("{ getOrders { count hasMore data { id } } }").await;
    assert_eq!((&data["getOrders"]["count"], &data["getOrders"]["hasMore"]), (&json!(250), &json!(false)));
    let (mut seen, mut after) = (0, String::new());
    loop {
        let query = format!("{{ getOrders(first: 120{after}) {{ count hasMore endCursor data {{ id }} }} }}");
        let page = door.ask(&query).await["getOrders"].clone();
        assert_eq!(page["count"], json!(250), "of all, whatever the page");
        seen += page["data"].as_array().unwrap().len();
        if page["hasMore"] == json!(false) {
            break;
        }
        after = format!(", after: {}", page["endCursor"]);
    }
    assert_eq!(seen, 250);
    let (code, _, _) = door.error_of("{ getOrders(first: 0) { count } }").await;
    assert_eq!(code, "INVALID_ARGUMENT");
    door.stack.stop().await;
}

/// Pages through a connection with one text, as client libraries do: the cursors of its rows, and what the ends of each
/// page say.
async fn paged(door: &Door, token: &str, n: u32, query: &str) -> (Vec<String>, Vec<(bool, bool)>) {
    let (mut cursors, mut ends, mut after) = (Vec::new(), Vec::new(), Value::Null);
    loop {
        let answer = door.ask_as(token, query, json!({"n": n, "after": after})).await.json();
        let page = answer["data"]["page"].clone();
        let edges = page["edges"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let info = &page["pageInfo"];
        assert_eq!(info["startCursor"], edges.first().map_or(Value::Null, |e| e["cursor"].clone()));
        assert_eq!(info["endCursor"], edges.last().map_or(Value::Null, |e| e["cursor"].clone()));
        for edge in edges {
            let cursor = edge["cursor"].as_str().unwrap();
            let id =
                edge["node"]["id"].as_str().map_or_else(|| edge["node"]["id"].to_string(), str::to_owned);
            assert_eq!(cursor, id, "{edge}");
            cursors.push(cursor.to_owned());
        }
        let is = |name: &str| info[name].as_bool().unwrap();
        ends.push((is("hasPreviousPage"), is("hasNextPage")));
        if !is("hasNextPage") {
            return (cursors, ends);
        }
        after = info["endCursor"].clone();
    }
}

#[tokio::test]
async fn lists_are_connections() {
    let door = Door::open().await;
    let id = |i: u64| Uuid::from_u128(u128::from(i)).to_string();
    {
        let mut world = door.world.lock().unwrap();
        for i in 1..=80 {
            world.orders.push(v1::Order { id: id(i), user_id: MEMBER.to_owned(), ..Default::default() });
            world.trades.push(v1::Trade { symbol: "AAPL".into(), trade_no: i, ..Default::default() });
        }
    }
    let info = "pageInfo { startCursor endCursor hasNextPage hasPreviousPage }";
    let orders = format!(
        "query($n: Int!, $after: String) {{ page: getOrders(first: $n, after: $after) {{ edges {{ cursor node {{ id }} }} {info} }} }}"
    );
    let (seen, ends) = paged(&door, &door.member, 40, &orders).await;
    assert_eq!(seen, (1..=80).map(id).collect::<Vec<_>>());
    assert_eq!(ends, [(false, true), (true, false)]);
    // A number is a cursor as a text too.
    let trades = format!(
        "query($n: Int!, $after: Int64 = \"0\") {{ page: trades(symbol: \"AAPL\", first: $n, after: $after) \
         {{ edges {{ cursor node {{ id: tradeNo }} }} {info} }} }}"
    );
    let first = trades.replace("after: $after", "after: 0").replace(", $after: Int64 = \"0\"", "");
    let answer = door.ask_as(&door.member, &first, json!({"n": 80})).await.json();
    assert_eq!(answer["data"]["page"]["pageInfo"]["hasNextPage"], false, "{answer}");
    let answer = door.ask_as(&door.member, &trades, json!({"n": 40, "after": "40"})).await.json();
    let page = answer["data"]["page"].clone();
    let ends = json!({"startCursor": "41", "endCursor": "80", "hasNextPage": false, "hasPreviousPage": true});
    assert_eq!((&page["pageInfo"], &page["edges"][0]["node"]["id"]), (&ends, &json!(41)), "{answer}");
    let answer = door.ask_as(&door.member, &trades, json!({"n": 39, "after": "0"})).await.json();
    let ends = json!({"startCursor": "1", "endCursor": "39", "hasNextPage": true, "hasPreviousPage": false});
    assert_eq!(answer["data"]["page"]["pageInfo"], ends, "{answer}");
    // Administrators' lists, as they are.
    let users = format!(
        "query($n: Int!, $after: UUID) {{ page: users(first: $n, after: $after) {{ edges {{ cursor node {{ id: userId }} }} {info} }} }}"
    );
    assert_eq!(paged(&door, &door.admin, 1, &users).await.0.len(), 2);
    let rows = format!(
        "query($n: Int!, $after: Int64) {{ page: auditLog(first: $n, after: $after) {{ edges {{ cursor node {{ id: sequence }} }} {info} }} }}"
    );
    let (seen, ends) = paged(&door, &door.admin, 2, &rows).await;
    let seen: Vec<i64> = seen.iter().map(|n| n.parse().unwrap()).collect();
    let whole = (1..=seen[0]).rev().collect::<Vec<_>>();
    assert_eq!(seen, whole, "newest first, without a gap");
    assert!(ends.len() > 1 && !ends[0].0 && ends.last().is_some_and(|(before, _)| *before), "{ends:?}");
    // What is refused has no rows, and no page.
    let refused =
        door.ask(&format!("{{ trades(symbol: \"NOPE\") {{ code edges {{ cursor }} {info} }} }}")).await;
    let nothing =
        json!({"startCursor": null, "endCursor": null, "hasNextPage": false, "hasPreviousPage": false});
    assert_eq!((&refused["trades"]["edges"], &refused["trades"]["pageInfo"]), (&json!([]), &nothing));
    door.stack.stop().await;
}

/// A type's name, without the lists and bangs around it.
fn innermost(kind: &Value) -> String {
    if kind["ofType"].is_null() {
        kind["name"].as_str().unwrap().to_owned()
    } else {
        innermost(&kind["ofType"])
    }
}

/// Every field with `first` and `after` answers a connection: edges with cursors and nodes, and the ends of the page.
#[tokio::test]
async fn every_list_with_pages_is_a_connection() {
    let door = Door::open().await;
    let kind = "name kind ofType { name kind ofType { name kind ofType { name } } }";
    let query = format!(
        "{{ __schema {{ queryType {{ fields {{ name args {{ name }} type {{ {kind} }} }} }} \
         types {{ name fields {{ name type {{ {kind} }} }} }} }} }}"
    );
    let schema = door.ask(&query).await["__schema"].clone();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let fields_of = |name: &str| {
        let found = list(&schema["types"]).into_iter().find(|t| t["name"] == name).unwrap();
        list(&found["fields"])
    };
    let has = |args: &[Value], name: &str| args.iter().any(|arg| arg["name"] == name);
    let mut connections = Vec::new();
    for field in list(&schema["queryType"]["fields"]) {
        let args = list(&field["args"]);
        // A report's page is made of two lists.
        if !has(&args, "first") || !has(&args, "after") || field["name"] == "report" {
            continue;
        }
        let response = fields_of(&innermost(&field["type"]));
        let kind_of = |name: &str| response.iter().find(|f| f["name"] == name).map(|f| innermost(&f["type"]));
        assert_eq!(kind_of("pageInfo").as_deref(), Some("PageInfo"), "{field}");
        let edge = fields_of(&kind_of("edges").unwrap_or_else(|| panic!("{field}")));
        assert!(has(&edge, "cursor") && has(&edge, "node"), "{field}");
        connections.push(field["name"].as_str().unwrap().to_owned());
    }
    connections.sort();
    let expected =
        ["auditLog", "getOrders", "getTransactions", "lots", "orderHistory", "statement", "trades", "users"];
    assert_eq!(connections, expected);
    door.stack.stop().await;
}

#[tokio::test]
async fn a_long_list_is_whole_however_it_is_asked_for() {
    const ORDERS: usize = 2_300;
    let door = Door::open().await;
    let ids: Vec<_> = (0..ORDERS as u128).map(|i| Uuid::from_u128(i).to_string()).collect();
    for id in ids.clone() {
        let symbol = format!("S{}", &id[33..]);
        let order = v1::Order { id, symbol, user_id: MEMBER.to_owned(), ..Default::default() };
        door.world.lock().unwrap().orders.push(order);
    }
    let answer = door.ask_as(&door.member, "{ getOrders { data { id } code count } }", json!({})).await;
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string());
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.starts_with(r#"{"data":{"getOrders":{"data":[{"id":"#), "{text:.200}");
    assert!(text.ends_with(r#"}],"code":"OK","count":2300}}}"#), "{}", &text[text.len() - 200..]);
    let column = |data: &Value, list: &str, key: &str| -> Vec<String> {
        let rows = data["getOrders"][list].as_array().unwrap().iter();
        rows.map(|row| row[key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(column(&answer.json()["data"], "data", "id"), ids);
    // Under two names, and put together of two places.
    let data = door.ask("{ getOrders { a: data { id } b: data { symbol } hasMore } }").await;
    assert_eq!((column(&data, "a", "id"), data["getOrders"]["hasMore"].clone()), (ids.clone(), json!(false)));
    let both = "{ getOrders { ...f ...g } } fragment f on OrdersResponse { data { id } } \
                fragment g on OrdersResponse { data { symbol } }";
    let together = door.ask(both).await;
    assert_eq!(column(&together, "data", "id"), ids);
    assert_eq!(column(&together, "data", "symbol"), column(&data, "b", "symbol"));
    assert_eq!(column(&together, "data", "symbol")[ORDERS - 1], "S8fb");
    door.stack.stop().await;
}

#[tokio::test]
async fn business_outcomes_travel_in_the_code() {
    let door = Door::open().await;
    let other = Uuid::new_v4();
    let data = door
        .ask(&format!(
            "mutation {{ \
             a: deposit(request: {{accountId: \"{ACCOUNT}\", amount: 500.25, currency: \"usd\"}}) {{ code newBalance }} \
             b: deposit(request: {{accountId: \"{ACCOUNT}\", amount: -1, currency: \"USD\"}}) {{ code newBalance }} \
             c: deposit(request: {{accountId: \"{other}\", amount: 1, currency: \"USD\"}}) {{ code }} \
             d: deposit(request: {{accountId: \"{ACCOUNT}\", amount: 0.0000001, currency: \"USD\"}}) {{ code reason message }} \
             e: createAccount(request: {{type: \"investment\", currency: \"usd\"}}) {{ code data {{ type }} }} \
             f: createAccount(request: {{type: \"HOUSE\", currency: \"USD\"}}) {{ code data {{ id }} }} \
             g: addToWatchlist(request: {{symbol: \"aapl\"}}) {{ code }} \
             h: removeFromWatchlist(request: {{symbol: \"a b\"}}) {{ code }} \
             i: deleteAccount(accountId: \"{ACCOUNT}\") \
             j: cancelAllOrders {{ code requested }} }}"
        ))
        .await;
    assert_eq!(data["a"], json!({"code": "OK", "newBalance": 500.25}));
    assert_eq!(data["b"], json!({"code": "INVALID_ARGUMENT", "newBalance": 0}));
    assert_eq!(data["c"]["code"], "NOT_FOUND");
    let refused = json!({"code": "INVALID_ARGUMENT", "reason": "TOO_MANY_DECIMALS",
                         "message": "amount has more than 6 decimals"});
    assert_eq!(data["d"], refused);
    assert_eq!(data["e"], json!({"code": "OK", "data": {"type": "INVESTMENT"}}));
    assert_eq!(data["f"], json!({"code": "INVALID_ARGUMENT", "data": null}));
    assert_eq!((&data["g"]["code"], &data["h"]["code"]), (&json!("OK"), &json!("INVALID_ARGUMENT")));
    assert_eq!(data["i"], json!(true));
    assert_eq!(data["j"], json!({"code": "OK", "requested": 2}));
    door.stack.stop().await;
}

#[tokio::test]
async fn an_answer_has_the_form_that_the_contract_gives_it() {
    let door = Door::open().await;
    // Root keys stand as they were asked for, whoever answers them.
    let text = door.ask_as(
        &door.member,
        "{ getWatchlist { code } health ...f a: getStockQuote(symbol: \"AAPL\") { code } } fragment f on Query { getOrders { code } z: health }",
        json!({}),
    );
    let text = String::from_utf8(text.await.body.to_vec()).unwrap();
    let place = |key: &str| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}: {text}"));
    let places = ["getWatchlist", "health", "getOrders", "z", "a"].map(place);
    assert!(places.is_sorted(), "{text}");
    // A missing or ill-typed variable is a request error.
    let quote = "query($s: String!) { getStockQuote(symbol: $s) { code } }";
    for _ in 0..2 {
        for wrong in [json!({}), json!({"s": 1}), json!({"s": null})] {
            let answer = door.ask_as(&door.member, quote, wrong.clone()).await;
            assert_eq!(answer.status, 422, "{wrong}: {:?}", answer.json());
            assert_eq!(answer.json()["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
        }
        let answer = door.ask_as(&door.member, quote, json!({"s": "AAPL"})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.json());
    }
    // Unknown symbols and periods are told.
    for query in [
        "{ trades(symbol: \"NOPE\") { code reason } }",
        "{ getStockQuote(symbol: \"NOPE\") { code reason } }",
    ] {
        let answer = door.ask(query).await;
        let first = answer.as_object().unwrap().values().next().unwrap();
        assert_eq!(first["code"], "NOT_FOUND", "{query}: {answer}");
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn what_a_user_asks_for_is_bounded_and_mutations_always_pass() {
    let door = Door::open_with(|s| (s.gateway.cost_per_second, s.gateway.cost_burst) = (50, 1_000)).await;
    let candles = |n: u32| format!("{{ candles(symbol: \"AAPL\", first: {n}) {{ code }} }}");
    let ask = async |query: &str| door.ask_as(&door.member, query, json!({})).await;
    let dear = ask(&candles(1_000)).await;
    assert_eq!((dear.status.as_u16(), dear.code()), (400, "INVALID_INPUT".to_owned()));
    assert_eq!(dear.json()["error"]["details"], "QUERY_TOO_DEAR");
    assert_eq!(ask(&candles(900)).await.status, 200);
    let later = ask(&candles(900)).await;
    assert_eq!((later.status.as_u16(), later.code()), (429, "RATE_LIMITED".to_owned()));
    let wait: u64 = later.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((10..=18).contains(&wait), "{wait}");
    for _ in 0..50 {
        let canceled = ask("mutation { cancelAllOrders { code } }").await;
        assert_eq!(
            (canceled.status.as_u16(), &canceled.json()["data"]["cancelAllOrders"]["code"]),
            (200, &json!("OK"))
        );
    }
    let other = door.ask_as(&door.admin, "{ roles { code } }", json!({})).await;
    assert_eq!(other.status, 200, "another user has its own");
    door.stack.stop().await;
}

#[tokio::test]
async fn a_browsers_session_goes_on_while_it_is_used() {
    let door = Door::open().await;
    let (cookies, _) = door.browser().await;
    let ask = async |cookies: &str| {
        let headers = [("content-type", "application/json"), ("cookie", cookies)];
        door.send(Method::POST, "/graphql", &headers, r#"{"query":"{ health }"}"#).await
    };
    let set = |answer: &Answer| -> Vec<String> {
        let all = answer.headers.get_all("set-cookie").iter();
        all.map(|v| v.to_str().unwrap().split(';').next().unwrap().to_owned()).collect()
    };
    assert!(set(&ask(&cookies).await).is_empty(), "its token is young");
    let mut cookies = cookies;
    for _ in 0..4 {
        door.stack.time.advance(40 * 60);
        let answer = ask(&cookies).await;
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        let renewed = set(&answer);
        assert_eq!(renewed.len(), 2, "{renewed:?}");
        assert!(cookies.contains(renewed.iter().find(|c| c.starts_with("csrf_token=")).unwrap()));
        cookies = renewed.join("; ");
    }
    door.stack.time.advance(61 * 60);
    assert_eq!(ask(&cookies).await.status, 401, "idle for longer than a token lives");
    door.stack.stop().await;
}

#[tokio::test]
async fn headers_say_what_a_client_needs_to_know() {
    let door = Door::open_with(|s| s.gateway.cors_origins = vec!["https://app.example".into()]).await;
    let refused = door.send(Method::GET, "/graphql?query=%7Bhealth%7D", &[], "").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(refused.headers["keep-alive"], "timeout=60");
    let preflight = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let allowed = door.send(Method::OPTIONS, "/graphql", &preflight, "").await;
    assert_eq!(allowed.headers["access-control-max-age"], "3600");
    let exposed = door.send(Method::GET, "/healthz", &[("origin", "https://app.example")], "").await;
    assert_eq!(exposed.headers["access-control-expose-headers"], "retry-after");
    let plain = door.send(Method::GET, "/schema.graphql", &[], "").await;
    assert!(plain.headers.get("content-encoding").is_none());
    assert!(String::from_utf8_lossy(&plain.body).contains("type GetOrderByIDResponse"));
    let described = door.send(Method::GET, "/openapi.json", &[], "").await;
    assert_eq!(described.headers["content-type"], "application/json");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../auth/docs/openapi.json");
    let is_committed = described.body[..] == std::fs::read(committed).unwrap()[..];
    assert!(is_committed, "services/auth/docs/openapi.json is not what is served");
    let packed = door.send(Method::GET, "/schema.graphql", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() * 3 < plain.body.len());
    let small = door.send(Method::GET, "/healthz", &[("accept-encoding", "gzip")], "").await;
    assert!(small.headers.get("content-encoding").is_none());
    door.stack.stop().await;
}
