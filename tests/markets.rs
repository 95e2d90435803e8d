//! What operators do with a market: halt, resume, auctions, mass cancels, the view of every order.

use crate::{
    harness::{Shell, Stack, WITHIN},
    refusals::Api,
};
use serde_json::{Value, json};
use std::time::Instant;

#[test]
fn a_halt_takes_no_orders_and_an_auction_gathers_them_and_trades_at_one_price() {
    let stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    let state = |state: &str| seller.json(&["market", "state", "nvda", state])["state"].clone();
    let in_engine = |wanted: &str| {
        seller.until(&["market", "show", "NVDA"], "the engine's state", |m| m["state"] == wanted);
    };
    let refused = |args: &[&str], code: &str| {
        let answer = buyer.run(args);
        assert!(answer.code == 5 && answer.stderr.contains(code), "{answer:?}");
    };
    let buy = |quantity: &str, price: &str| {
        buyer.json(&["order", "place", "buy", "NVDA", quantity, "--price", price])
    };

    assert_eq!(state("halted"), "HALTED");
    in_engine("HALTED");
    refused(&["order", "place", "buy", "NVDA", "1", "--price", "148.00"], "SYMBOL_HALTED");

    assert_eq!(state("auction"), "AUCTION");
    in_engine("AUCTION");
    refused(
        &["order", "place", "buy", "NVDA", "1", "--price", "148.00", "--tif", "ioc"],
        "SYMBOL_IN_AUCTION",
    );
    let first = buy("10", "149.00");
    buy("5", "148.00");
    seller.json(&["order", "place", "sell", "NVDA", "12", "--price", "147.00"]);
    let gathered = seller.until(&["market", "show", "NVDA"], "what the auction would give", |m| {
        m["indicative"]["quantity"] == "12"
    });
    // From 147 to 148 as much would trade; 148 is the nearest to the previous close.
    assert_eq!(gathered["indicative"]["price"], "148", "{gathered}");
    assert_eq!(gathered["indicative"]["surplus"], "3");
    assert_eq!(gathered["bidOrders"][0]["orderId"], first["id"]);
    let queue = seller.json(&["market", "queue", gathered["bidOrders"][1]["orderId"].as_str().unwrap()]);
    assert_eq!((&queue["ordersAhead"], &queue["quantityBetter"]), (&0.into(), &"10".into()));

    assert_eq!(state("open"), "OPEN");
    in_engine("OPEN");
    let filled = buyer.until(&["order", "show", first["id"].as_str().unwrap()], "the auction's trade", |o| {
        o["state"] == "FILLED"
    });
    assert_eq!(filled["averagePrice"], "148", "{filled}");
    buyer.until(&["order", "list", "--open"], "what is left", |l| l[0]["filled"] == "2");

    // Everybody's orders in one symbol, and no other.
    let other = buyer.json(&["order", "place", "buy", "KO", "1", "--price", "60.00"]);
    assert_eq!(seller.json(&["market", "cancel", "NVDA"])["requested"], 1);
    buyer.until(&["order", "list", "--open"], "only the other symbol's order", |l| {
        l.as_array().unwrap().len() == 1 && l[0]["id"] == other["id"]
    });
    let audit = buyer.audit();
    assert_eq!((&audit["trades"], &audit["openOrders"]), (&2.into(), &1.into()));
}

#[test]
fn a_trade_outside_the_volatility_band_pauses_the_symbol_and_an_auction_reopens_it_after_kill_9() {
    let mut stack = Stack::configured("[engine]\nvolatility_pause_s = 3600\n", &["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    let show = ["market", "show", "NVDA"];
    let seeded = seller.until(&show, "the seeded band", |m| !m["volatilityBand"].is_null());
    assert_eq!(seeded["volatilityBand"], serde_json::json!({"low": "118.65", "high": "177.97"}));
    let set = seller.json(&["market", "volatility", "nvda", "--bps", "500"]);
    assert_eq!(set, serde_json::json!({"symbol": "NVDA", "volatilityBandBps": 500}));
    seller.until(&show, "the narrower band", |m| m["volatilityBand"]["high"] == "155.72");

    seller.json(&["order", "place", "sell", "NVDA", "10", "--price", "160.00"]);
    let buy = buyer.json(&["order", "place", "buy", "NVDA", "10", "--price", "160.00"]);
    let paused = seller.until(&show, "the pause", |m| !m["pausedSince"].is_null());
    assert_eq!((&paused["state"], &paused["indicative"]["price"]), (&"AUCTION".into(), &"160".into()));
    assert!(paused["pauseUntil"].is_string() && paused["pauseExtended"] == false, "{paused}");
    let market_state = |shell: &Shell, state: &str| {
        shell.until(&["quote", "NVDA"], "the quote's state", |q| q[0]["marketState"] == state);
    };
    market_state(&buyer, "AUCTION");
    let until = Instant::now() + WITHIN;
    loop {
        let refused = buyer.run(&["order", "place", "buy", "NVDA", "1", "--price", "150.00", "--tif", "ioc"]);
        if refused.code == 5 && refused.stderr.contains("SYMBOL_IN_AUCTION") {
            break;
        }
        assert!(Instant::now() < until, "order-service does not know of the pause: {refused:?}");
    }
    let open = buyer.json(&["order", "show", buy["id"].as_str().unwrap()]);
    assert_eq!((&open["state"], &open["filled"]), (&"NEW".into(), &"0".into()));

    stack.process.kill();
    // What is paused lasts as long from the start on as the configuration says then.
    stack.configure("[engine]\nvolatility_pause_s = 1\nvolatility_end_s = 0\n");
    stack.restart(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    let filled = buyer.until(&["order", "show", buy["id"].as_str().unwrap()], "the auction's trade", |o| {
        o["state"] == "FILLED"
    });
    assert_eq!(filled["averagePrice"], "160", "{filled}");
    let reopened = seller.until(&show, "the reopening", |m| m["state"] == "OPEN");
    assert_eq!(reopened["volatilityBand"], serde_json::json!({"low": "152", "high": "168"}));
    assert!(reopened["pausedSince"].is_null());
    market_state(&buyer, "OPEN");

    let refused = seller.run(&["market", "volatility", "NVDA", "--bps", "10000"]);
    assert!(refused.code == 5 && refused.stderr.contains("volatility_band_bps 10000 must be"), "{refused:?}");
    let off = seller.run(&["market", "volatility", "NVDA", "--off"]);
    assert_eq!((off.code, off.stdout.as_str()), (0, "NVDA has no volatility band\n"), "{off:?}");
    seller.until(&show, "no band", |m| m["volatilityBand"].is_null());
    buyer.audit();
}

#[test]
fn an_iceberg_with_too_many_parts_is_refused_by_field_and_limit() {
    let stack = Stack::up(&["--no-sim"]);
    let buyer = stack.signed_in("user@test.com");
    let place = |quantity: &str| {
        buyer.run(&["order", "place", "buy", "KO", quantity, "--price", "60.00", "--display", "1"])
    };
    let refused = place("1001");
    assert!(refused.code == 5 && refused.stderr.contains("DISPLAY_QUANTITY_TOO_SMALL"), "{refused:?}");
    assert!(refused.stderr.contains("display_quantity 1 must be at least a 1000th of the quantity 1001"));
    let taken = place("5");
    assert_eq!(taken.code, 0, "{taken:?}");
}

#[test]
fn an_amount_buys_fractions_and_volume_is_told_in_whole_shares() {
    let stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    seller.json(&["order", "place", "sell", "AAPL", "2.5", "--price", "231.00"]);
    // 100 / 231 = 0.4329004…
    let bought = buyer.json(&["order", "place", "buy", "AAPL", "--notional", "100", "--price", "231.00"]);
    assert_eq!((&bought["state"], &bought["quantity"]), (&"FILLED".into(), &"0.4329".into()), "{bought}");
    // 231 × 0.4329 = 99.9999 of the 100,000 that there were.
    let account = buyer.account();
    assert!(account["balance"].to_string().contains("99900.0001"), "{account}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(Api::signed_in(&stack.process.address("api-gateway"), "user@test.com"));
    let place = |input: Value| {
        let query = "mutation($r: CreateOrderRequest!) { createOrder(request: $r) { code data { quantity filledQuantity status } } }";
        runtime.block_on(api.graphql(query, json!({"r": input})))
    };
    let volume = || {
        let answer = runtime.block_on(
            api.graphql("{ getStockQuote(symbol: \"AAPL\") { data { volume price } } }", json!({})),
        );
        answer["data"]["getStockQuote"]["data"]["volume"].clone()
    };
    assert_eq!(volume(), 0, "0.4329 shares are no whole one");
    // At the cap of a MARKET order to buy, 2.5 % above the last price: 236.77.
    let market = place(json!({"symbol": "AAPL", "side": "BUY", "type": "MARKET", "notional": 236.77}));
    let order = &market["data"]["createOrder"];
    assert_eq!((&order["code"], &order["data"]["quantity"]), (&"OK".into(), &json!(1)), "{market}");
    buyer.until(&["quote", "AAPL"], "the second trade", |_| volume() == 1);

    for (input, reason) in [
        (json!({"symbol": "AAPL", "side": "BUY", "type": "LIMIT", "price": 231}), "QUANTITY_AMBIGUOUS"),
        (
            json!({"symbol": "AAPL", "side": "BUY", "type": "LIMIT", "price": 231, "quantity": 1, "notional": 5}),
            "QUANTITY_AMBIGUOUS",
        ),
        (
            json!({"symbol": "AAPL", "side": "BUY", "type": "LIMIT", "price": 231, "notional": 0}),
            "NOTIONAL_NOT_POSITIVE",
        ),
        (
            json!({"symbol": "KO", "side": "BUY", "type": "LIMIT", "price": 63, "notional": 62.99}),
            "NOTIONAL_TOO_SMALL",
        ),
    ] {
        let refused = place(input);
        assert_eq!(refused["errors"][0]["extensions"]["reason"], reason, "{refused}");
    }
    buyer.audit();
}
