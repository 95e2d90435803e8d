//! The ledger against the rules, one rule per test.

use super::{
    domain::{Currency, hold::Side},
    operations::{self, Change},
    store,
    testing::{DOLLAR, Ledger, NOW_US, SHARE, SYMBOL, USD, fact, trade},
    wire,
};
use fafnir_platform::Refusal;
use fafnir_proto::id::AccountId;
use fafnir_proto::v1::{ExecKind, TransactionType};
use fafnir_testing::external;
use futures::future::join_all;
use uuid::Uuid;

fn refusal<T: std::fmt::Debug>(answer: fafnir_platform::Result<T>) -> Refusal {
    answer.unwrap_err().refusal().expect("a refusal")
}

#[tokio::test]
async fn a_trade_moves_cash_and_shares_of_both_sides_to_the_micro() {
    let l = Ledger::new(0, 0).await;
    let buyer = l.account(Currency::Usd, 2_000 * USD, 0).await;
    let seller = l.account(Currency::Usd, 0, 10 * SHARE).await;
    let sell = l.hold(&seller, Side::Sell, 10 * SHARE, 0).await.unwrap();
    let buy = l.hold(&buyer, Side::Buy, 5 * SHARE, 2_310_700).await.unwrap();
    assert_eq!(l.cash(&buyer).await.held, 1_155_350_000);
    assert_eq!(l.shares(&seller).await.held, 10 * SHARE);
    let report = l
        .facts(&[
            fact(1, ExecKind::Accepted, sell),
            fact(2, ExecKind::Accepted, buy),
            trade(3, Side::Buy, (buy, 3 * SHARE), (sell, 8 * SHARE), 2 * SHARE, 2_310_000),
            fact(4, ExecKind::Canceled, buy),
        ])
        .await;
    assert_eq!((report.trades, report.alarms.len(), report.applied.executions), (1, 0, 4));
    let (cash, shares) = (l.cash(&buyer).await, l.shares(&buyer).await);
    assert_eq!((cash.posted, cash.held), (2_000 * USD - 462 * USD, 0));
    assert_eq!((shares.posted, shares.cost, shares.average_cost()), (2 * SHARE, 462 * USD, 231 * USD));
    let (cash, shares) = (l.cash(&seller).await, l.shares(&seller).await);
    assert_eq!((cash.posted, shares.posted, shares.held), (462 * USD, 8 * SHARE, 8 * SHARE));
    assert_eq!((shares.cost, shares.realized), (80 * USD, 442 * USD));
    let audit = l.check("after").await;
    assert_eq!(audit.open_holds, [(sell, 0, 8 * SHARE)]);
}

#[tokio::test]
async fn a_redelivered_fact_changes_nothing_and_a_gap_waits() {
    let l = Ledger::new(0, 0).await;
    let buyer = l.account(Currency::Usd, 1_000 * USD, 0).await;
    let seller = l.account(Currency::Usd, 0, 10 * SHARE).await;
    let sell = l.hold(&seller, Side::Sell, 10 * SHARE, 0).await.unwrap();
    let buy = l.hold(&buyer, Side::Buy, 10 * SHARE, 10 * DOLLAR).await.unwrap();
    let fill = trade(1, Side::Buy, (buy, 9 * SHARE), (sell, 9 * SHARE), SHARE, 10 * DOLLAR);
    for _ in 0..3 {
        l.facts(&[fill.clone(), fill.clone()]).await;
    }
    assert_eq!(l.shares(&buyer).await.posted, SHARE);
    let later = trade(3, Side::Buy, (buy, 7 * SHARE), (sell, 7 * SHARE), SHARE, 10 * DOLLAR);
    let report = l.facts(std::slice::from_ref(&later)).await;
    assert!(report.applied.gap);
    assert_eq!(l.shares(&buyer).await.posted, SHARE, "what came too early waits");
    let missing = trade(2, Side::Buy, (buy, 8 * SHARE), (sell, 8 * SHARE), SHARE, 10 * DOLLAR);
    let report = l.facts(&[missing, later]).await;
    assert_eq!((report.trades, report.applied.gap), (2, false));
    assert_eq!(l.check("after").await.transactions, 2 + 3);
}

#[tokio::test]
async fn a_fact_for_an_unknown_or_ended_order_is_an_alarm_and_moves_nothing() {
    let l = Ledger::new(0, 0).await;
    let buyer = l.account(Currency::Usd, 1_000 * USD, 0).await;
    let buy = l.hold(&buyer, Side::Buy, SHARE, 10 * DOLLAR).await.unwrap();
    let stranger = Uuid::new_v4();
    let report = l
        .facts(&[
            trade(1, Side::Buy, (buy, 0), (stranger, 0), SHARE, 10 * DOLLAR),
            fact(2, ExecKind::Canceled, buy),
            fact(3, ExecKind::Expired, buy),
            fact(4, ExecKind::CancelRejected, buy),
            fact(5, ExecKind::ReplaceRejected, buy),
        ])
        .await;
    let alarmed: Vec<_> = report.alarms.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(alarmed, ["AAPL:1", "AAPL:3"]);
    assert_eq!(l.read(|tx| Ok(fafnir_platform::db::inbox::dead_letter_count(tx)?)).await, 2);
    assert_eq!(l.cash(&buyer).await.posted, 1_000 * USD);
    l.check("after").await;
}

#[tokio::test]
async fn a_hold_is_refused_with_what_is_needed_and_available() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 500 * USD, 2 * SHARE).await;
    let r = refusal(l.hold(&a, Side::Buy, 5 * SHARE, 2_310_700).await);
    assert_eq!(r.reason, "INSUFFICIENT_FUNDS");
    assert_eq!(r.message, "cash of 1,155.35 USD is needed, 500.00 USD is available");
    let r = refusal(l.hold(&a, Side::Sell, 5 * SHARE, 0).await);
    assert_eq!(r.reason, "INSUFFICIENT_SHARES");
    assert_eq!(r.message, "5 shares of AAPL are needed, 2 are available");
    let stranger = l.account(Currency::Usd, 0, 0).await;
    let not_mine = super::domain::Account { user: stranger.user, ..a.clone() };
    assert_eq!(refusal(l.hold(&not_mine, Side::Buy, SHARE, DOLLAR).await).reason, "ACCOUNT_NOT_FOUND");
    assert_eq!(l.check("after").await.open_holds, []);
}

#[tokio::test]
async fn a_hold_is_placed_once_whatever_is_repeated() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 100 * USD, 0).await;
    let order = Uuid::new_v4();
    for _ in 0..3 {
        assert_eq!(l.hold_as(order, &a, Side::Buy, SHARE, 60 * DOLLAR).await.unwrap(), 60 * USD);
    }
    assert_eq!(l.cash(&a).await.held, 60 * USD);
    assert_eq!(refusal(l.hold_as(order, &a, Side::Buy, SHARE, DOLLAR).await).reason, "HOLD_EXISTS");
    for _ in 0..2 {
        l.change(move |s| operations::hold_release(s, order)).await.unwrap();
    }
    assert_eq!(l.cash(&a).await.held, 0);
    assert_eq!(refusal(l.hold_as(order, &a, Side::Buy, SHARE, 60 * DOLLAR).await).reason, "HOLD_RELEASED");
    // Given up before its hold arrived.
    let late = Uuid::new_v4();
    l.change(move |s| operations::hold_release(s, late)).await.unwrap();
    assert_eq!(refusal(l.hold_as(late, &a, Side::Buy, SHARE, DOLLAR).await).reason, "HOLD_RELEASED");
    l.check("after").await;
}

#[tokio::test]
async fn of_a_thousand_concurrent_buys_of_one_balance_exactly_one_is_accepted() {
    let mut places = vec![Ledger::new(0, 0).await];
    if let Some(url) = external("FAFNIR_TEST_POSTGRES_URL") {
        places.push(Ledger::on_server(&url, 0, 0).await);
    }
    for l in places {
        let a = l.account(Currency::Usd, 100 * USD, 0).await;
        let placed = join_all((0..1_000).map(|_| l.hold(&a, Side::Buy, SHARE, 100 * DOLLAR))).await;
        assert_eq!(placed.iter().filter(|p| p.is_ok()).count(), 1);
        for refused in placed.into_iter().filter(Result::is_err).map(Result::unwrap_err) {
            let funds = refused.refusal().is_some_and(|r| r.reason == "INSUFFICIENT_FUNDS");
            // A server may be too busy to say; it has not done it then.
            assert!(funds || refused.is_transient(), "{refused}");
        }
        l.check("after").await;
        l.remove().await;
    }
}

#[tokio::test]
async fn a_replace_holds_more_at_once_and_less_after_the_engines_word() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 100 * USD, 0).await;
    let order = l.hold(&a, Side::Buy, 5 * SHARE, 10 * DOLLAR).await.unwrap();
    let change = |version, total, price| Change {
        order,
        version,
        total_e4: total,
        open_e4: 0,
        price_e4: price,
        only_increase: true,
        caught_up: false,
    };
    let more = change(2, 8 * SHARE, 10 * DOLLAR);
    assert_eq!(l.adjust(more).await.unwrap(), 80 * USD);
    assert_eq!(refusal(l.adjust(more).await).reason, "REPLACE_PENDING");
    assert_eq!(l.adjust(Change { caught_up: true, ..more }).await.unwrap(), 80 * USD, "a repetition");
    assert_eq!(refusal(l.adjust(change(3, 4 * SHARE, 10 * DOLLAR)).await).reason, "REPLACE_PENDING");
    l.facts(&[fact(1, ExecKind::ReplaceRejected, order)]).await;
    assert_eq!(l.cash(&a).await.held, 50 * USD);
    assert_eq!(refusal(l.adjust(change(2, 20 * SHARE, 10 * DOLLAR)).await).reason, "INSUFFICIENT_FUNDS");
    assert_eq!(l.cash(&a).await.held, 50 * USD);
    assert_eq!(l.adjust(change(2, 3 * SHARE, 11 * DOLLAR)).await.unwrap(), 50 * USD);
    let mut replaced = fact(2, ExecKind::Replaced, order);
    (replaced.version, replaced.open_e4) = (2, 3 * SHARE);
    l.facts(&[replaced]).await;
    assert_eq!(l.cash(&a).await.held, 33 * USD);
    assert_eq!(l.adjust(change(2, 9 * SHARE, 11 * DOLLAR)).await.unwrap(), 33 * USD, "done already");
    l.facts(&[fact(3, ExecKind::Canceled, order)]).await;
    assert_eq!(l.cash(&a).await.held, 0);
    assert_eq!(refusal(l.adjust(change(3, SHARE, DOLLAR)).await).reason, "HOLD_CLOSED");
    l.check("after").await;
}

#[tokio::test]
async fn self_trade_prevention_reduces_both_holds() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 100 * USD, 10 * SHARE).await;
    let buy = l.hold(&a, Side::Buy, 5 * SHARE, 10 * DOLLAR).await.unwrap();
    let sell = l.hold(&a, Side::Sell, 3 * SHARE, 0).await.unwrap();
    let mut both = fact(1, ExecKind::Decremented, sell);
    (both.quantity_e4, both.open_e4) = (3 * SHARE, 0);
    (both.maker_order_id, both.maker_open_e4) = (buy.to_string(), 2 * SHARE);
    let report = l.facts(&[both, fact(2, ExecKind::Canceled, sell)]).await;
    assert_eq!(report.alarms, []);
    assert_eq!((l.cash(&a).await.held, l.shares(&a).await.held), (20 * USD, 0));
    assert_eq!(l.check("after").await.open_holds, [(buy, 20 * USD, 0)]);
}

#[tokio::test]
async fn fees_and_exchange_are_posted_to_the_house_and_each_currency_sums_to_zero() {
    let l = Ledger::new(1, 7).await;
    let buyer = l.account(Currency::Cad, 1_000 * USD, 0).await;
    let seller = l.account(Currency::Cad, 0, 10 * SHARE).await;
    let sell = l.hold(&seller, Side::Sell, 3 * SHARE, 0).await.unwrap();
    let buy = l.hold(&buyer, Side::Buy, 3 * SHARE, 333_300).await.unwrap();
    for (seq, open) in [(1, 2), (2, 1), (3, 0)] {
        let open = open * SHARE;
        let report = l.facts(&[trade(seq, Side::Buy, (buy, open), (sell, open), SHARE, 333_300)]).await;
        assert_eq!(report.alarms, []);
        l.check("between").await;
    }
    // 99.99 USD at 1.370001 are 136.98639999 CAD: one total, rounded once, however many fills.
    let (paid, got) = (1_000 * USD - l.cash(&buyer).await.posted, l.cash(&seller).await.posted);
    assert_eq!(paid, 136_986_400 + 95_891);
    assert_eq!(got, 136_986_399 - 13_699);
    assert_eq!((l.cash(&buyer).await.held, l.shares(&seller).await.held), (0, 0));
}

#[tokio::test]
async fn a_statement_shows_each_movement_with_its_order() {
    let l = Ledger::new(0, 10).await;
    let buyer = l.account(Currency::Usd, 1_000 * USD, 0).await;
    let seller = l.account(Currency::Usd, 0, 10 * SHARE).await;
    let sell = l.hold(&seller, Side::Sell, 2 * SHARE, 0).await.unwrap();
    let buy = l.hold(&buyer, Side::Buy, 2 * SHARE, 10 * DOLLAR).await.unwrap();
    l.facts(&[trade(1, Side::Sell, (sell, 0), (buy, 0), 2 * SHARE, 10 * DOLLAR)]).await;
    let (of, id) = (buyer.clone(), buyer.id);
    let shown = |of: super::domain::Account, before: i64, limit: u32| {
        let l = &l;
        async move {
            let lines = {
                let of = of.clone();
                l.read(move |tx| Ok(store::lines(tx, &of, before, limit)?)).await
            };
            lines.iter().map(|line| wire::transaction(&of, line)).collect::<Vec<_>>()
        }
    };
    let bought = shown(of.clone(), i64::MAX, 10).await;
    assert_eq!(bought.len(), 2);
    assert_eq!((bought[0].r#type(), bought[0].amount_micros), (TransactionType::Buy, 20 * USD));
    assert_eq!(bought[0].description, "Bought 2 AAPL at 10.00");
    assert_eq!((bought[0].reference_id.clone(), &bought[0].account_id), (buy.to_string(), &id.to_string()));
    assert_eq!((bought[1].r#type(), bought[1].amount_micros), (TransactionType::Deposit, 1_000 * USD));
    let sold = shown(seller.clone(), i64::MAX, 10).await;
    let kinds: Vec<_> = sold.iter().map(|t| (t.r#type(), t.amount_micros)).collect();
    let expected =
        [(TransactionType::Fee, 20_000), (TransactionType::Sell, 20 * USD), (TransactionType::TransferIn, 0)];
    assert_eq!(kinds, expected);
    assert!(sold[..2].iter().all(|t| t.reference_id == sell.to_string()), "{sold:?}");
    let first = wire::posting_of(&sold[0].id.parse().unwrap()).unwrap();
    assert_eq!(shown(seller, first, 1).await, sold[1..2], "a page goes on after its id");
}

#[tokio::test]
async fn an_account_closes_when_no_order_is_open_and_its_rest_goes_to_the_house() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 100 * USD, 10 * SHARE).await;
    let order = l.hold(&a, Side::Buy, SHARE, DOLLAR).await.unwrap();
    let close = || {
        let a = a.clone();
        l.change(move |s| {
            let account = operations::own_account(s.tx, a.user, a.id)?;
            operations::account_close(s, account)
        })
    };
    assert_eq!(refusal(close().await).reason, "OPEN_ORDERS");
    let user = a.user;
    l.change(move |s| operations::user_deleted(s, user)).await.unwrap();
    assert_eq!(refusal(l.hold(&a, Side::Buy, SHARE, DOLLAR).await).reason, "ACCOUNT_CLOSED");
    l.facts(&[fact(1, ExecKind::Canceled, order)]).await;
    for _ in 0..2 {
        assert_eq!(close().await.unwrap().state, super::domain::State::Closed);
    }
    assert_eq!((l.cash(&a).await.posted, l.shares(&a).await.posted), (0, 0));
    assert_eq!(l.read(move |tx| Ok(store::accounts_of(tx, user)?.len())).await, 0);
    l.check("after").await;
}

#[tokio::test]
async fn private_updates_have_a_gapless_sequence_and_can_be_resumed() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 100 * USD, 0).await;
    for _ in 0..3 {
        let (user, id) = (a.user, a.id);
        l.change(move |s| operations::deposit(s, user, id, USD, "USD")).await.unwrap();
    }
    let user = a.user;
    let db = &l.db;
    let page = move |after, limit| db.read(move |tx| Ok(store::updates_since(tx, user, after, limit)?));
    let all = page(0, 100).await.unwrap();
    assert_eq!((all.payloads.len(), all.last_seq, all.more, all.reset), (4, 4, false, false));
    let some = page(1, 2).await.unwrap();
    assert_eq!((&some.payloads[..], some.more), (&all.payloads[1..3], true));
    assert!(page(5, 2).await.unwrap().reset, "from the future: another database");
}

#[tokio::test]
async fn money_moves_between_currencies_through_the_house() {
    let l = Ledger::new(0, 0).await;
    let usd = l.account(Currency::Usd, 100 * USD, 0).await;
    let user = usd.user;
    let new = store::NewAccount {
        id: AccountId::new(Uuid::new_v4()),
        user,
        kind: super::domain::Kind::Savings,
        currency: Currency::Cad,
    };
    let rules = l.rules;
    let cad = l.change(move |s| operations::account_create(s, new, 0)).await.unwrap();
    let go = |from: AccountId, to: AccountId, amount: i64, currency: &'static str| {
        l.change(move |s| operations::transfer(s, &rules, user, from, to, amount, currency))
    };
    go(usd.id, cad.id, 10 * USD + 1, "USD").await.unwrap();
    assert_eq!(l.cash(&cad).await.posted, 13_700_011);
    assert_eq!(refusal(go(usd.id, cad.id, USD, "CAD").await).reason, "CURRENCY_MISMATCH");
    assert_eq!(refusal(go(usd.id, usd.id, USD, "USD").await).reason, "SAME_ACCOUNT");
    assert_eq!(refusal(go(usd.id, cad.id, 100 * USD, "USD").await).reason, "INSUFFICIENT_FUNDS");
    assert_eq!(refusal(go(usd.id, cad.id, 0, "USD").await).reason, "AMOUNT_OUT_OF_RANGE");
    assert_eq!(refusal(go(cad.id, usd.id, 1, "CAD").await).reason, "AMOUNT_TOO_SMALL");
    let stranger = l.account(Currency::Usd, 0, 0).await;
    assert_eq!(refusal(go(usd.id, stranger.id, USD, "USD").await).reason, "ACCOUNT_NOT_FOUND");
    l.check("after").await;
}

#[tokio::test]
async fn holds_that_ended_long_ago_are_forgotten_and_the_ledger_is_not() {
    let l = Ledger::new(0, 0).await;
    let a = l.account(Currency::Usd, 100 * USD, 0).await;
    let (kept, gone) = (
        l.hold(&a, Side::Buy, SHARE, DOLLAR).await.unwrap(),
        l.hold(&a, Side::Buy, SHARE, DOLLAR).await.unwrap(),
    );
    l.facts(&[fact(1, ExecKind::Rejected, gone)]).await;
    let pruned = l.db.write(|tx| Ok(store::holds_prune(tx, NOW_US + 1, 10)?)).await.unwrap();
    assert_eq!((pruned, l.check("after").await.open_holds[0].0), (1, kept));
    let report = l.facts(&[fact(2, ExecKind::Canceled, gone)]).await;
    assert_eq!(report.alarms.len(), 1, "unknown, so an alarm");
    assert_eq!(SYMBOL, "AAPL");
}
