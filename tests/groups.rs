//! Lives of groups of orders on a stack of the real binary: placed, changed and ended by GraphQL, gRPC and the command line,
//! with `kill -9` between their steps.

use crate::{
    harness::{Answer, Shell, Stack, binary},
    live::Person,
    refusals::Api,
};
use fafnir_proto::v1::{
    CancelGroupRequest, GroupKind, ListOrdersRequest, Order, OrderType, PlaceGroupRequest, PlaceOrderRequest,
    ReplaceOrderRequest, Side,
};
use fafnir_rules::money::{format_e4, parse_e4};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const SYMBOL: &str = "NVDA";
const OWNER: &str = "user@test.com";
/// Has shares of it; who the owner trades with.
const OTHER: &str = "admin@test.com";
const UP: &[&str] = &["--no-sim"];

const CREATE: &str = "mutation($r: CreateOrderGroupRequest!) { createOrderGroup(request: $r) { \
                      code reason message groupId orders { id leg groupId state clientOrderId } } }";

/// The owner at every door, and who it trades with.
struct Market {
    runtime: Runtime,
    stack: Stack,
    owner: Shell,
    other: Shell,
    graphql: Api,
    grpc: Person,
}

/// A group's orders as a door tells them: `leg state filled/quantity`, and what each holds.
type Picture = Vec<(String, String)>;

impl Market {
    fn up() -> Self {
        let (runtime, stack) = (Runtime::new().unwrap(), Stack::up(UP));
        let (owner, other) = (stack.signed_in(OWNER), stack.signed_in(OTHER));
        let graphql = runtime.block_on(Api::signed_in(&owner.url, OWNER));
        let grpc = runtime.block_on(Person::signed_in(&owner.url, OWNER));
        Self { runtime, stack, owner, other, graphql, grpc }
    }

    fn started(&mut self) {
        self.stack.restart(UP);
        (self.owner, self.other) = (self.stack.signed_in(OWNER), self.stack.signed_in(OTHER));
        let url = self.owner.url.clone();
        self.graphql = self.graphql.at(&url);
        self.grpc = self.runtime.block_on(async { self.grpc.at(&url) });
    }

    /// `kill -9`, and up again from snapshot and tail.
    fn killed(&mut self) {
        self.stack.process.kill();
        self.started();
    }

    /// Stopped in order, which leaves a snapshot, and up again.
    fn stopped(&mut self) {
        assert_eq!(self.stack.process.interrupt(), Some(0), "{}", self.stack.process.log());
        self.started();
    }

    /// Somebody else's order at the command line.
    fn trade(&self, side: &str, shares: &str, price: &str) {
        self.other.json(&["order", "place", side, SYMBOL, shares, "--price", price]);
    }

    fn ask(&self, query: &str, variables: Value) -> Value {
        let answer = self.runtime.block_on(self.graphql.graphql(query, variables));
        assert_eq!(answer["errors"], Value::Null, "{answer}");
        answer["data"].clone()
    }

    fn by_graphql(&self, group: &str) -> Picture {
        let query =
            "{ getOrders { data { id groupId leg state filledQuantity quantity heldQuantity heldCash } } }";
        let data = self.ask(query, json!({}));
        let mut orders: Vec<Value> = data["getOrders"]["data"].as_array().unwrap().clone();
        orders.retain(|o| o["groupId"] == group);
        orders.sort_by_key(|o| o["id"].as_str().unwrap().to_owned());
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let picture = orders.iter().map(|o| {
            let held = if o["leg"] == "ENTRY" { &o["heldCash"] } else { &o["heldQuantity"] };
            let (leg, state, filled) = (text(&o["leg"]), text(&o["state"]), plain(&o["filledQuantity"]));
            (format!("{leg} {state} {filled}/{}", plain(&o["quantity"])), plain(held))
        });
        picture.collect()
    }

    fn by_grpc(&mut self, group: &str) -> Picture {
        let request = self.grpc.ask(ListOrdersRequest { limit: 500, ..ListOrdersRequest::default() });
        let reply = self.runtime.block_on(self.grpc.terminal.orders(request)).unwrap();
        let mut orders: Vec<Order> = reply.into_inner().orders;
        orders.retain(|o| o.group_id == group);
        orders.sort_by(|a, b| a.id.cmp(&b.id));
        let picture = orders.iter().map(|o| {
            let leg = o.leg().as_str_name().trim_start_matches("GROUP_LEG_").to_owned();
            let held = if o.side() == Side::Buy { o.hold_micros / 100 } else { o.hold_e4 };
            let (filled, quantity) = (format_e4(o.filled_e4), format_e4(o.quantity_e4));
            (format!("{leg} {} {filled}/{quantity}", o.state().name()), format_e4(held))
        });
        picture.collect()
    }

    fn by_command_line(&self, group: &str) -> Picture {
        let all = self.owner.json(&["order", "list", "--limit", "500"]);
        let mut orders: Vec<Value> = all.as_array().unwrap().clone();
        orders.retain(|o| o["groupId"] == group);
        orders.sort_by_key(|o| o["id"].as_str().unwrap().to_owned());
        let text = |o: &Value, name: &str| o[name].as_str().unwrap().to_owned();
        let picture = orders.iter().map(|o| {
            let held = text(o, if o["leg"] == "ENTRY" { "heldCash" } else { "heldQuantity" });
            let (leg, state) = (text(o, "leg"), text(o, "state"));
            (format!("{leg} {state} {}/{}", text(o, "filled"), text(o, "quantity")), held)
        });
        picture.collect()
    }

    /// Every door tells the same of the group, and the account holds the shares of its exits once.
    fn is(&mut self, group: &str, expected: &[&str], shares: &str, held: &str) {
        let pictures = [self.by_graphql(group), self.by_grpc(group), self.by_command_line(group)];
        for picture in &pictures {
            assert_eq!(picture, &pictures[0], "the doors differ");
            assert_eq!(picture.iter().map(|o| o.0.as_str()).collect::<Vec<_>>(), expected);
        }
        let exits = pictures[0].iter().filter(|o| o.0.starts_with("EXIT"));
        let sum: i64 = exits.map(|o| parse_e4(&o.1).unwrap()).sum();
        assert_eq!(format_e4(sum), held, "{pictures:?}");
        assert_eq!(self.owner.position(SYMBOL), (shares.to_owned(), held.to_owned()));
    }

    /// The same, before and after the process was killed.
    fn is_and_stays(&mut self, group: &str, expected: &[&str], shares: &str, held: &str) {
        self.is(group, expected, shares, held);
        self.killed();
        self.is(group, expected, shares, held);
    }

    /// The books are clean, and the journal replayed from its beginning gives the facts and the snapshots that there are.
    fn ends(mut self) {
        let audit = self.owner.audit();
        assert_eq!((&audit["ok"], &audit["openOrders"]), (&true.into(), &0.into()), "{audit}");
        assert_eq!(self.owner.account()["held"], "0");
        self.stack.process.interrupt();
        let data = self.stack.data_dir();
        let mut command = binary();
        command.arg("replay").arg(&data).arg("--json").current_dir(self.stack.dir.path());
        let found = Answer::of(command.output().unwrap()).json();
        assert!(found["facts"]["firstThatDiffers"].is_null(), "{found}");
        let snapshots = found["snapshots"].as_array().unwrap();
        assert!(!snapshots.is_empty() && snapshots.iter().all(|s| s["agrees"] == true), "{found}");
    }
}

/// A number of JSON as the command line writes it.
fn plain(number: &Value) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// A bracket as GraphQL asks for it: the entry, the target and the stop.
fn bracket(key: &str) -> Value {
    let order = |side: &str, order_type: &str, price: &str, value: f64| json!({"symbol": SYMBOL, "side": side, "type": order_type, "quantity": 10, price: value});
    let mut entry = order("BUY", "LIMIT", "price", 148.0);
    entry["clientOrderId"] = key.into();
    let exits = [order("SELL", "LIMIT", "price", 155.0), order("SELL", "STOP", "stopPrice", 140.0)];
    json!({"kind": "bracket", "orders": [entry, exits[0], exits[1]]})
}

fn ids(created: &Value) -> (String, Vec<String>) {
    assert_eq!(created["code"], "OK", "{created}");
    let group = created["groupId"].as_str().unwrap().to_owned();
    let orders = created["orders"].as_array().unwrap();
    assert!(orders.iter().all(|o| o["groupId"] == group.as_str()), "{created}");
    (group, orders.iter().map(|o| o["id"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn a_bracket_lives_through_every_door_and_a_kill_between_any_two_steps() {
    let mut m = Market::up();
    let mut wrong = bracket("bracket-1");
    wrong["orders"][2]["stopPrice"] = 148.into();
    let refused = m.runtime.block_on(m.graphql.graphql(CREATE, json!({"r": wrong})));
    let error = &refused["errors"][0];
    assert_eq!(error["extensions"]["reason"], "STOP_WRONG_SIDE", "{refused}");
    assert_eq!(error["message"], "stopPrice 148 of an exit must be below 148, the most that its entry pays");

    let created = m.ask(CREATE, json!({"r": bracket("bracket-1")}))["createOrderGroup"].clone();
    let (group, orders) = ids(&created);
    assert_eq!(orders.len(), 3, "{created}");
    let asleep = ["ENTRY NEW 0/10", "EXIT HELD 0/10", "EXIT HELD 0/10"];
    m.is_and_stays(&group, &asleep, "0", "0");
    // The same again is the same group, whatever was in between.
    let again = m.ask(CREATE, json!({"r": bracket("bracket-1")}))["createOrderGroup"].clone();
    assert_eq!(ids(&again), (group.clone(), orders.clone()));
    let why = m.owner.json(&["order", "why", &orders[2]]);
    assert_eq!(why["waitsFor"], "it sleeps until the entry of its group buys");
    assert_eq!(why["standing"]["kind"], "ASLEEP");

    // The entry buys in part, and its exits grow with it.
    m.trade("sell", "4", "148");
    m.is_and_stays(&group, &["ENTRY PARTIALLY_FILLED 4/10", "EXIT NEW 0/4", "EXIT HELD 0/4"], "4", "4");
    m.trade("sell", "3", "148");
    m.is_and_stays(&group, &["ENTRY PARTIALLY_FILLED 7/10", "EXIT NEW 0/7", "EXIT HELD 0/7"], "7", "7");

    // The target sells in part, and the stop shrinks.
    m.trade("buy", "2", "155");
    let sold = ["ENTRY PARTIALLY_FILLED 7/10", "EXIT PARTIALLY_FILLED 2/7", "EXIT HELD 0/5"];
    m.is(&group, &sold, "5", "5");
    m.stopped();
    m.is_and_stays(&group, &sold, "5", "5");

    // Its legs are replaced, one by gRPC and one by GraphQL.
    let request = ReplaceOrderRequest {
        order_id: orders[2].clone(),
        stop_price_e4: 141_0000,
        ..ReplaceOrderRequest::default()
    };
    let request = m.grpc.ask(request);
    let moved = m.runtime.block_on(m.grpc.terminal.replace(request)).unwrap().into_inner().order.unwrap();
    assert_eq!((moved.stop_price_e4, moved.quantity_e4, moved.version), (141_0000, 5_0000, 2));
    let replace =
        "mutation($r: ReplaceOrderRequest!) { replaceOrder(request: $r) { code data { price version } } }";
    let moved = m.ask(replace, json!({"r": {"orderId": orders[1], "price": 156}}))["replaceOrder"].clone();
    assert_eq!((&moved["data"]["price"], &moved["data"]["version"]), (&json!(156), &json!(2)), "{moved}");
    let more = m.owner.run(&["order", "replace", &orders[1], "--quantity", "9"]);
    assert!(more.code == 5 && more.stderr.contains("quantity of an exit follows its group"), "{more:?}");
    m.killed();

    // The entry buys the rest; the target sells all of it at its new price: flat.
    m.trade("sell", "3", "148");
    let whole = ["ENTRY FILLED 10/10", "EXIT PARTIALLY_FILLED 2/10", "EXIT HELD 0/8"];
    m.is_and_stays(&group, &whole, "8", "8");
    m.trade("buy", "8", "156");
    m.is_and_stays(&group, &["ENTRY FILLED 10/10", "EXIT FILLED 10/10", "EXIT CANCELED 0/8"], "0", "0");
    let why = m.owner.json(&["order", "why", &orders[2]]);
    let told: Vec<_> =
        why["steps"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap().to_owned()).collect();
    let grown = ["ACCEPTED", "RESIZED", "RESIZED", "RESIZED", "REPLACED", "RESIZED", "CANCELED"];
    assert_eq!(told, grown, "{why}");
    assert_eq!(why["order"]["rejectCode"], "GROUP");
    m.ends();
}

#[test]
fn a_bracket_of_the_command_line_goes_by_its_stop_and_one_of_grpc_by_one_cancel() {
    let mut m = Market::up();
    let placed = m.owner.json(&[
        "order", "group", "bracket", SYMBOL, "10", "--price", "148", "--target", "155", "--stop", "145",
    ]);
    let group = placed["groupId"].as_str().unwrap().to_owned();
    m.trade("sell", "10", "148");
    m.is_and_stays(&group, &["ENTRY FILLED 10/10", "EXIT NEW 0/10", "EXIT HELD 0/10"], "10", "10");
    // A trade at the stop's price: the stop sells what it finds down to its protection, and the rest of it rests.
    m.trade("buy", "4", "144");
    m.owner.json(&["order", "place", "buy", SYMBOL, "1", "--price", "145"]);
    m.trade("sell", "1", "145");
    m.is_and_stays(
        &group,
        &["ENTRY FILLED 10/10", "EXIT CANCELED 0/10", "EXIT PARTIALLY_FILLED 4/10"],
        "7",
        "6",
    );
    m.trade("buy", "6", "144");
    m.is_and_stays(&group, &["ENTRY FILLED 10/10", "EXIT CANCELED 0/10", "EXIT FILLED 10/10"], "1", "0");

    let order = |side: Side, order_type: OrderType| PlaceOrderRequest {
        symbol: SYMBOL.into(),
        side: side.into(),
        r#type: order_type.into(),
        quantity_e4: 5_0000,
        ..PlaceOrderRequest::default()
    };
    let request = m.grpc.ask(PlaceGroupRequest {
        kind: GroupKind::Oto.into(),
        orders: vec![
            PlaceOrderRequest { price_e4: 143_0000, ..order(Side::Buy, OrderType::Limit) },
            PlaceOrderRequest { trail_percent_e4: 2_0000, ..order(Side::Sell, OrderType::TrailingStop) },
        ],
        ..PlaceGroupRequest::default()
    });
    let placed = m.runtime.block_on(m.grpc.terminal.place_group(request)).unwrap().into_inner();
    let group = placed.group_id;
    assert_eq!(placed.orders.len(), 2);
    m.trade("sell", "2", "143");
    m.is_and_stays(&group, &["ENTRY PARTIALLY_FILLED 2/5", "EXIT HELD 0/2"], "3", "2");
    let request = m.grpc.ask(CancelGroupRequest { group_id: group.clone(), ..CancelGroupRequest::default() });
    let canceled = m.runtime.block_on(m.grpc.terminal.cancel_group(request)).unwrap().into_inner();
    assert_eq!(canceled.requested, 2);
    m.is_and_stays(&group, &["ENTRY CANCELED 2/5", "EXIT CANCELED 0/2"], "3", "0");
    let gone = m.owner.run(&["order", "cancel", "--group", &group]);
    assert!(gone.code == 5 && gone.stderr.contains("is not an open group"), "{gone:?}");

    // Exits alone, of the shares that are left, end with an account's flatten.
    let kept = m.owner.json(&["order", "group", "oco", SYMBOL, "3", "--target", "150", "--stop", "140"]);
    let group = kept["groupId"].as_str().unwrap().to_owned();
    m.is_and_stays(&group, &["EXIT NEW 0/3", "EXIT HELD 0/3"], "3", "3");
    m.trade("buy", "3", "142");
    let flat = m.owner.json(&["order", "flatten", SYMBOL]);
    assert_eq!((&flat["flat"], &flat["canceled"]), (&true.into(), &2.into()), "{flat}");
    m.is_and_stays(&group, &["EXIT CANCELED 0/3", "EXIT CANCELED 0/3"], "0", "0");
    m.ends();
}
