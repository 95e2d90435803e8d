//! `fafnir audit` finds every row that is not what it was, and nothing on a healthy market.

use crate::harness::{Shell, Stack};
use fafnir_proto::{
    client::Caller,
    id::UserId,
    v1::{
        AccountType, EndowRequest, Order, OrderState, OrderType, PlaceOrderRequest, SeedAccountRequest, Side,
        TimeInForce,
    },
};
use fafnir_services::{
    compose,
    platform::{Clock, Settings},
};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use rusqlite::{Connection, params};
use serde_json::Value;
use std::{fs, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Whose database a tampering is in.
#[derive(Debug, Clone, Copy)]
enum Of {
    Books,
    Orders,
}

/// A tampering: its name, its database, the tables that it touches, what it does.
type Tampering = (&'static str, Of, &'static [&'static str], fn(&Connection));

fn sql(c: &Connection, text: &str) {
    assert!(c.execute(text, []).unwrap() > 0, "nothing was changed: {text}");
}

/// Changes the stored order of a kind.
fn order(c: &Connection, which: &str, change: fn(&mut Order)) {
    let text = format!("SELECT rowid, body FROM orders WHERE {which} LIMIT 1");
    let (row, body): (i64, Vec<u8>) = c.query_row(&text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut order = Order::decode(&body[..]).unwrap();
    change(&mut order);
    c.execute("UPDATE orders SET body = ?2 WHERE rowid = ?1", params![row, order.encode_to_vec()]).unwrap();
}

const OPEN: &str = "ended_us = 0 AND agent = 0";
const ENDED: &str = "ended_us > 0 AND first_fill > 0 AND agent = 0";

const TAMPERINGS: &[Tampering] = &[
    ("two balances, one for the other", Of::Books, &["balance"], |c| {
        sql(
            c,
            "UPDATE balance SET posted = posted + 1000000 WHERE asset = 1 AND account = (SELECT MIN(account) FROM balance WHERE asset = 1)",
        );
        sql(
            c,
            "UPDATE balance SET posted = posted - 1000000 WHERE asset = 1 AND account = (SELECT MAX(account) FROM balance WHERE asset = 1 AND posted >= held + 1000000)",
        );
    }),
    ("a balance by a micro", Of::Books, &["balance"], |c| {
        sql(
            c,
            "UPDATE balance SET posted = posted + 1 WHERE rowid = (SELECT MAX(rowid) FROM balance WHERE asset = 1)",
        );
    }),
    ("a cost", Of::Books, &["balance"], |c| sql(c, "UPDATE balance SET cost = cost * 2 WHERE cost > 0")),
    ("a gain", Of::Books, &["balance"], |c| {
        sql(c, "UPDATE balance SET realized = realized + 5000000 WHERE asset > 2");
    }),
    ("a gain of ever", Of::Books, &["balance"], |c| {
        sql(c, "UPDATE balance SET realized_total = realized_total - 1 WHERE asset > 2");
    }),
    ("what is held", Of::Books, &["balance"], |c| {
        sql(c, "UPDATE balance SET held = held + 1 WHERE asset = 1 AND posted > held");
    }),
    ("a balance that is gone", Of::Books, &["balance"], |c| {
        sql(c, "DELETE FROM balance WHERE rowid = (SELECT MAX(rowid) FROM balance WHERE posted > 0)");
    }),
    ("a balance of the house", Of::Books, &["house"], |c| {
        let posted: Vec<u8> = c.query_row("SELECT posted FROM house LIMIT 1", [], |r| r.get(0)).unwrap();
        let more = i128::from_be_bytes(posted.clone().try_into().unwrap()) + 1;
        c.execute(
            "UPDATE house SET posted = ?1 WHERE posted = ?2",
            params![more.to_be_bytes().to_vec(), posted],
        )
        .unwrap();
    }),
    ("a settled trade that is gone", Of::Books, &["ledger", "posting"], |c| {
        sql(c, "DELETE FROM posting WHERE id / 16 = (SELECT MAX(id) FROM ledger WHERE kind = 4)");
        sql(c, "DELETE FROM ledger WHERE id = (SELECT MAX(id) FROM ledger WHERE kind = 4)");
    }),
    ("an amount", Of::Books, &["posting"], |c| {
        sql(c, "UPDATE posting SET amount = amount + 1 WHERE id = (SELECT MAX(id) FROM posting)");
    }),
    ("a posting of another account", Of::Books, &["posting"], |c| {
        sql(c, "UPDATE posting SET account = 1 WHERE id = (SELECT MAX(id) FROM posting WHERE account <> 1)");
    }),
    ("a posting that is gone", Of::Books, &["posting"], |c| {
        sql(c, "DELETE FROM posting WHERE id = (SELECT MIN(id) FROM posting)");
    }),
    ("a posting too many", Of::Books, &["posting"], |c| {
        sql(c, "INSERT INTO posting SELECT MAX(id) + 1, 1, 1, 0, 0, 0 FROM posting");
    }),
    ("the price of a trade", Of::Books, &["ledger"], |c| {
        sql(
            c,
            "UPDATE ledger SET price_e4 = price_e4 + 100 WHERE id = (SELECT MAX(id) FROM ledger WHERE kind = 4)",
        );
    }),
    ("the time of a transaction", Of::Books, &["ledger"], |c| {
        sql(c, "UPDATE ledger SET time_us = time_us + 1 WHERE id = (SELECT MIN(id) FROM ledger)");
    }),
    ("the cause of a transaction", Of::Books, &["ledger"], |c| {
        sql(c, "UPDATE ledger SET kind = 7 WHERE id = (SELECT MIN(id) FROM ledger WHERE kind = 2)");
    }),
    ("whose order a trade was", Of::Books, &["ledger"], |c| {
        sql(
            c,
            "UPDATE ledger SET payer_ref = payee_ref WHERE id = (SELECT MAX(id) FROM ledger WHERE kind = 4)",
        );
    }),
    ("who took", Of::Books, &["ledger"], |c| {
        sql(c, "UPDATE ledger SET taker = 3 - taker WHERE id = (SELECT MAX(id) FROM ledger WHERE kind = 4)");
    }),
    ("what a sale gained", Of::Books, &["ledger"], |c| {
        sql(
            c,
            "UPDATE ledger SET realized = realized + 1 WHERE id = (SELECT MAX(id) FROM ledger WHERE kind = 4)",
        );
    }),
    ("the hash of a row", Of::Books, &["ledger"], |c| {
        sql(c, "UPDATE ledger SET hash = zeroblob(16) WHERE id = (SELECT MAX(id) FROM ledger)");
    }),
    ("an exchange rate", Of::Books, &["fx_rate"], |c| {
        sql(c, "UPDATE fx_rate SET usd_cad_micros = usd_cad_micros + 1");
    }),
    ("a fee schedule", Of::Books, &["fee_schedule"], |c| sql(c, "UPDATE fee_schedule SET taker_bp = 30")),
    ("the currency of a listing", Of::Books, &["asset"], |c| {
        sql(c, "UPDATE asset SET currency = 'CAD' WHERE code = 'NVDA'");
    }),
    ("an account that is closed", Of::Books, &["account"], |c| {
        sql(
            c,
            "UPDATE account SET closed = 1 WHERE key = (SELECT MIN(key) FROM account WHERE user_id IS NOT NULL)",
        );
    }),
    ("whose an account is", Of::Books, &["account"], |c| {
        sql(
            c,
            "UPDATE account SET user_id = (SELECT MAX(user_id) FROM account) WHERE key = (SELECT MIN(key) FROM account WHERE user_id <> (SELECT MAX(user_id) FROM account))",
        );
    }),
    ("an account's number", Of::Books, &["account"], |c| {
        sql(c, "UPDATE account SET number = number || '0' WHERE user_id IS NOT NULL");
    }),
    ("what a key stands for", Of::Books, &["idempotency"], |c| {
        sql(c, "UPDATE idempotency SET amount_micros = amount_micros + 1 WHERE key = 'audit'");
    }),
    ("a key that is gone", Of::Books, &["idempotency"], |c| {
        sql(c, "DELETE FROM idempotency WHERE key = 'audit'");
    }),
    ("a private update of money", Of::Books, &["private_update"], |c| {
        sql(
            c,
            "UPDATE private_update SET payload = x'00' WHERE rowid = (SELECT MAX(rowid) FROM private_update)",
        );
    }),
    ("how many trades are settled", Of::Books, &["projection"], |c| {
        sql(c, "UPDATE projection SET trades = trades + 1");
    }),
    ("what is filled of an order", Of::Orders, &["orders"], |c| {
        order(c, ENDED, |o| o.filled_e4 -= 10_000);
    }),
    ("the price of an open order", Of::Orders, &["orders"], |c| order(c, OPEN, |o| o.price_e4 += 100)),
    ("an open order that has ended", Of::Orders, &["orders"], |c| {
        order(c, OPEN, |o| o.set_state(OrderState::Canceled));
        sql(c, "UPDATE orders SET ended_us = 7 WHERE ended_us = 0 AND agent = 0");
    }),
    ("an open order that is gone", Of::Orders, &["orders"], |c| {
        sql(c, "DELETE FROM orders WHERE ended_us = 0 AND agent = 0");
    }),
    ("an ended order that is gone", Of::Orders, &["orders"], |c| {
        sql(
            c,
            "DELETE FROM orders WHERE rowid = (SELECT MAX(rowid) FROM orders WHERE ended_us > 0 AND agent = 0)",
        );
    }),
    ("an ended order that is open", Of::Orders, &["orders"], |c| {
        sql(
            c,
            "UPDATE orders SET ended_us = 0 WHERE rowid = (SELECT MAX(rowid) FROM orders WHERE ended_us > 0)",
        );
    }),
    ("whose an order is", Of::Orders, &["orders"], |c| {
        sql(
            c,
            "UPDATE orders SET user_id = zeroblob(16) WHERE rowid = (SELECT MAX(rowid) FROM orders WHERE agent = 0)",
        );
    }),
    ("a fill that is gone", Of::Orders, &["fills"], |c| {
        sql(c, "DELETE FROM fills WHERE id = (SELECT MAX(id) FROM fills)");
    }),
    ("the price of a fill", Of::Orders, &["fills"], |c| {
        sql(c, "UPDATE fills SET price_e4 = price_e4 + 100 WHERE id = (SELECT MAX(id) FROM fills)");
    }),
    ("who made", Of::Orders, &["fills"], |c| {
        sql(c, "UPDATE fills SET maker = 1 - maker WHERE id = (SELECT MAX(id) FROM fills)");
    }),
    ("a fill too many", Of::Orders, &["fills"], |c| {
        sql(
            c,
            "INSERT INTO fills SELECT id + 2, user_id, order_id, symbol, exec_seq, side, price_e4, quantity_e4, maker, time_us FROM fills WHERE id = (SELECT MAX(id) FROM fills)",
        );
    }),
    ("what was traded of an order", Of::Orders, &["orders"], |c| {
        order(c, ENDED, |o| o.filled_notional_micros += 1);
    }),
    ("the state of a filled order", Of::Orders, &["orders"], |c| {
        order(c, ENDED, |o| o.set_state(OrderState::Canceled));
    }),
    ("which fill of an order is its last", Of::Orders, &["orders"], |c| {
        sql(c, "UPDATE orders SET last_fill = last_fill + 16 WHERE first_fill > 0");
    }),
    ("which update of an order is its first", Of::Orders, &["orders"], |c| {
        sql(c, "UPDATE orders SET first_seq = first_seq + 1 WHERE first_seq > 0");
    }),
    ("the quantity of one side", Of::Orders, &["fills"], |c| {
        sql(c, "UPDATE fills SET quantity_e4 = quantity_e4 + 10000 WHERE id = (SELECT MIN(id) FROM fills)");
    }),
    ("the number of a trade on one side", Of::Orders, &["fills"], |c| {
        sql(c, "UPDATE fills SET exec_seq = exec_seq + 1 WHERE id = (SELECT MAX(id) FROM fills)");
    }),
    ("which side a fill is of", Of::Orders, &["fills"], |c| {
        sql(c, "UPDATE fills SET side = 3 - side WHERE id = (SELECT MAX(id) FROM fills)");
    }),
    ("whose order a fill is of", Of::Orders, &["fills"], |c| {
        sql(
            c,
            "UPDATE fills SET order_id = (SELECT order_id FROM fills WHERE id = (SELECT MIN(id) FROM fills)) WHERE id = (SELECT MAX(id) FROM fills)",
        );
    }),
    ("a price on both sides", Of::Orders, &["fills"], |c| {
        sql(c, "UPDATE fills SET price_e4 = price_e4 - 100 WHERE id / 16 = (SELECT MAX(id) / 16 FROM fills)");
    }),
    ("what happened to an order", Of::Orders, &["events"], |c| {
        sql(c, "UPDATE events SET kind = kind + 1 WHERE id = (SELECT MAX(id) FROM events)");
    }),
    ("an update that is gone", Of::Orders, &["events"], |c| {
        sql(c, "DELETE FROM events WHERE id = (SELECT MIN(id) FROM events)");
    }),
    ("a private update of orders", Of::Orders, &["events"], |c| {
        sql(c, "UPDATE events SET body = x'00' WHERE id = (SELECT MAX(id) FROM events)");
    }),
    ("what a client order id asked for", Of::Orders, &["client_orders"], |c| {
        sql(c, "UPDATE client_orders SET payload = zeroblob(16) WHERE client_order_id = 'audit'");
    }),
    ("a client order id that is gone", Of::Orders, &["client_orders"], |c| {
        sql(c, "DELETE FROM client_orders WHERE client_order_id = 'audit'");
    }),
    ("how many orders are open", Of::Orders, &["position"], |c| {
        sql(c, "UPDATE position SET open_orders = 1000");
    }),
];

/// People who trade in both currencies, move money and leave an order open.
fn market(stack: &Stack) -> Shell {
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    for price in ["148.00", "148.50"] {
        seller.json(&["order", "place", "sell", "NVDA", "30", "--price", price]);
        buyer.json(&["order", "place", "buy", "NVDA", "10", "--price", price]);
    }
    buyer.json(&["order", "place", "sell", "NVDA", "5", "--price", "148.00"]);
    seller.json(&["order", "place", "buy", "NVDA", "5", "--price", "148.00"]);
    buyer.json(&["order", "place", "buy", "NVDA", "1", "--price", "120.00", "--client-order-id", "audit"]);
    let account = buyer.account()["id"].as_str().unwrap().to_owned();
    buyer.json(&["account", "deposit", &account, "12.5", "--idempotency-key", "audit"]);
    buyer
}

fn findings(audit: &Value) -> Vec<&Value> {
    audit["findings"].as_array().unwrap().iter().filter(|f| f["findings"] != 0).collect()
}

#[test]
fn every_tampering_is_found_and_nothing_else() {
    let stack = Stack::configured("[portfolio]\nmaker_fee_bp = 5\ntaker_fee_bp = 10\n", &["--no-sim"]);
    let buyer = market(&stack);
    let open = |of| {
        let name = match of {
            Of::Books => "portfolio-service.sqlite",
            Of::Orders => "order-service.sqlite",
        };
        let c = Connection::open(stack.data_dir().join("db").join(name)).unwrap();
        c.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        c.pragma_update(None, "ignore_check_constraints", true).unwrap();
        c
    };
    let (books, orders) = (open(Of::Books), open(Of::Orders));
    buyer.audit();
    let mut unseen = Vec::new();
    for (name, of, tables, tamper) in TAMPERINGS {
        let c = match of {
            Of::Books => &books,
            Of::Orders => &orders,
        };
        for table in *tables {
            c.execute_batch(&format!("CREATE TEMP TABLE kept_{table} AS SELECT * FROM main.{table}"))
                .unwrap();
        }
        tamper(c);
        let said = buyer.run(&["audit", "--json"]);
        let audit: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        if said.code != 1 || audit["ok"] != false || findings(&audit).is_empty() {
            unseen.push(format!("{name}: {} {}", said.code, said.stderr));
        }
        for table in *tables {
            c.execute_batch(&format!(
                "BEGIN; DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM kept_{table}; COMMIT; DROP TABLE kept_{table};"
            ))
            .unwrap();
        }
    }
    assert!(unseen.is_empty(), "not found: {unseen:#?}");
    assert!(TAMPERINGS.len() >= 30);
    buyer.audit();
}

/// FAFNIR_TEST_AUDITS is how many, 5 by default.
#[test]
fn a_healthy_market_never_alarms() {
    let audits = std::env::var("FAFNIR_TEST_AUDITS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let stack = Stack::up(&["--sim-rate", "20"]);
    let shell = stack.shell("nobody");
    let mut last = 0;
    for _ in 0..audits {
        let said = shell.run(&["audit", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        let audit = said.json();
        let position = audit["position"].as_u64().unwrap();
        assert!(position > last, "nothing happens");
        last = position;
    }
}

/// Somebody who trades at the services' own doors.
struct Trader {
    user: UserId,
    account: String,
}

impl Trader {
    async fn new(ctx: &compose::Running, currency: &str, shares_e4: i64) -> Self {
        let trader = Self { user: UserId::new(Uuid::new_v4()), account: Uuid::new_v4().to_string() };
        let (clients, system) = (&ctx.context.clients, Caller::system("audit"));
        let seed = SeedAccountRequest {
            account_id: trader.account.clone(),
            user_id: trader.user.to_string(),
            r#type: AccountType::Investment.into(),
            currency: currency.to_owned(),
        };
        clients.portfolio(&system).seed_account(seed).await.unwrap();
        let endow = EndowRequest {
            key: trader.account.clone(),
            account_id: trader.account.clone(),
            symbol: "NVDA".into(),
            quantity_e4: shares_e4,
            cost_price_e4: 1_000_000,
            currency: currency.to_owned(),
            amount_micros: 900_000_000_000_000,
        };
        clients.portfolio(&system).endow(endow).await.unwrap();
        trader
    }

    async fn place(&self, ctx: &compose::Running, side: Side, shares: i64, time: TimeInForce) {
        let request = PlaceOrderRequest {
            user_id: self.user.to_string(),
            account_id: self.account.clone(),
            symbol: "NVDA".into(),
            side: side.into(),
            r#type: OrderType::Limit.into(),
            time_in_force: time.into(),
            quantity_e4: shares * 10_000,
            price_e4: 1_480_000,
            ..PlaceOrderRequest::default()
        };
        // A busy machine may be late with an answer; an order more does no harm.
        for _ in 0..TRIES {
            let placed = ctx.context.clients.order(&Caller::User(self.user)).place(request.clone()).await;
            match placed {
                Ok(_) => return,
                Err(late) => println!("again: {late}"),
            }
        }
        panic!("no order is taken");
    }
}

/// Postings per trade, at least: between two currencies, both sides with a fee.
const POSTINGS_PER_TRADE: u64 = 10;
/// What a seller offers at a time, in shares: each is bought by an order of its own.
const OFFER: u64 = 500;
const AT_A_TIME: usize = 16;
const TRIES: usize = 20;

/// `FAFNIR_TEST_POSTINGS` is how many, 1,000,000 by default.
#[test]
#[ignore = "a measurement: cargo test --release -p fafnir --test e2e a_million_postings -- --ignored --nocapture"]
fn the_time_of_an_audit_of_a_million_postings() {
    let postings = std::env::var("FAFNIR_TEST_POSTINGS").ok().and_then(|n| n.parse().ok());
    let trades = postings.unwrap_or(1_000_000_u64).div_ceil(POSTINGS_PER_TRADE);
    let config = "[portfolio]\nmaker_fee_bp = 5\ntaker_fee_bp = 10\n[engine]\nfacts_keep = \"all\"\n";
    let stack = Stack::configured(config, &["--no-sim"]);
    let began = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut settings =
            Settings { data_dir: stack.data_dir().display().to_string(), ..Settings::default() };
        settings.addresses.portfolio = stack.process.address("portfolio-service");
        settings.addresses.order = stack.process.address("order-service");
        let ctx = compose::start(&[], settings, Clock::wall(), CancellationToken::new()).await.unwrap();
        let shares_e4 = i64::try_from(trades + OFFER).unwrap() * 10_000;
        let (seller, buyer) =
            (Trader::new(&ctx, "CAD", shares_e4).await, Trader::new(&ctx, "USD", 10_000).await);
        for _ in 0..trades.div_ceil(OFFER) {
            seller.place(&ctx, Side::Sell, OFFER as i64, TimeInForce::Gtc).await;
            let bought = (0..OFFER).map(|_| buyer.place(&ctx, Side::Buy, 1, TimeInForce::Ioc));
            stream::iter(bought).buffer_unordered(AT_A_TIME).collect::<Vec<()>>().await;
        }
    });
    let made = began.elapsed();
    let shell = stack.shell("nobody");
    let audit = shell.audit();
    let books = Connection::open(stack.data_dir().join("db/portfolio-service.sqlite")).unwrap();
    let count: i64 = books.query_row("SELECT COUNT(*) FROM posting", [], |r| r.get(0)).unwrap();
    let count = count.unsigned_abs();
    let status = fs::read_to_string(format!("/proc/{}/status", stack.process.id())).unwrap();
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    println!(
        "{count} postings, {} transactions, position {}: made in {} s, audited in {} ms, {peak}",
        audit["transactions"],
        audit["position"],
        made.as_secs(),
        audit["tookMs"],
    );
    assert!(count >= trades * POSTINGS_PER_TRADE, "{count}");
}
