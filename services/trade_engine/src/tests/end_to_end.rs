//! Accounts, money and orders through the whole exchange: answers, facts without a gap, and the same again after a restart.

use super::support::*;
use fafnir_proto::v1::{self, FactKind, OrderState, Side};

#[tokio::test(flavor = "multi_thread")]
async fn two_orders_trade_and_settle_in_one_step_and_a_restart_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    let before = running.exchange.published.stepped();
    let sold = done(running.execute(command(1, 1, limit(1, "AAPL", Side::Sell, 10, 10_000))).await);
    assert_eq!(sold.order.as_ref().unwrap().state(), OrderState::New);
    let reply = running.execute(command(2, 2, limit(2, "AAPL", Side::Buy, 4, 10_100))).await;
    let position = reply.position;
    let bought = done(reply).order.unwrap();
    assert_eq!(
        (bought.state(), bought.filled_e4, bought.filled_notional_micros),
        (OrderState::Filled, 40_000, 400_000_000)
    );
    assert_eq!((bought.fills.len(), bought.fills[0].price_e4, bought.fills[0].maker), (1, 1_000_000, false));
    assert_eq!(bought.user_id, user_id(2).to_string());

    let facts = running.facts(0).await;
    let kinds: Vec<_> = facts[before as usize..].iter().map(v1::Fact::kind).collect();
    assert_eq!(kinds, [FactKind::Accepted, FactKind::Accepted, FactKind::Executed]);
    let trade = facts.last().unwrap();
    assert_eq!((trade.position, trade.trade_no, trade.aggressor()), (position, 1, Side::Buy));
    assert_eq!((trade.orders.len(), trade.balances.len()), (2, 2));
    let mut sums = std::collections::BTreeMap::new();
    for posting in &trade.postings {
        *sums.entry(posting.asset.clone()).or_insert(0) += posting.amount;
    }
    assert!(sums.len() == 2 && sums.values().all(|sum| *sum == 0), "{sums:?}");
    let buyer = &trade.balances[0];
    assert_eq!(buyer.user_id, user_id(2).to_string());
    assert_eq!(buyer.holding.as_ref().unwrap().quantity_e4, 10_040_000);
    // 400.00 and a taker's fee of two basis points.
    assert_eq!(buyer.account.as_ref().unwrap().balance_micros, 100_500_000_000 - 400_000_000 - 80_000);
    assert_eq!(running.exchange.published.position_of(user_id(1)), position);

    let hash = running.hash().await;
    let open = running.exchange.open_orders(v1::OpenOrdersRequest::default()).await.unwrap();
    assert_eq!((open.orders.len(), open.orders[0].open_e4, open.more), (1, 60_000, false));
    let image = running.exchange.image(&v1::ImageRequest::default()).await.unwrap();
    assert_eq!((image.accounts.len(), image.open_orders, image.house.is_empty()), (2, 1, false));
    running.stop().await;

    let again = run(dir.path());
    assert_eq!((again.base > 0, again.hash().await), (true, hash));
    assert_eq!(again.facts(0).await, facts);
    assert_eq!(again.exchange.published.position_of(user_id(1)), position);
    let trades = again.exchange.published.trades("AAPL", 0, 10, false).unwrap();
    assert_eq!((trades.len(), trades[0].exec_id.as_str()), (1, bought.fills[0].exec_id.as_str()));
    let canceled = done(again.execute(command(1, 3, cancel(1))).await).order.unwrap();
    assert_eq!((canceled.state(), canceled.reject_code.as_str()), (OrderState::Canceled, "USER"));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_an_id_has_one_effect_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    let place = |n| keyed(1, "mine", 5, limit(n, "AAPL", Side::Sell, 1, 10_000));
    let first = done(running.execute(place(1)).await);
    assert!(!first.known && first.order.unwrap().client_order_id == "mine");
    let again = done(running.execute(place(2)).await);
    assert!(again.known && again.object_id == order_id(1).to_string() && again.at == first.at);
    running.stop().await;

    let running = run(dir.path());
    assert_eq!(done(running.execute(place(3)).await).at, first.at);
    let mut other = place(4);
    other.key.as_mut().unwrap().payload = vec![8; 16];
    let refused_reply = refused(running.execute(other).await);
    assert_eq!((refused_reply.code, refused_reply.reason.as_str()), (6, "CLIENT_ORDER_ID_REUSED"));
    let facts = running.facts(0).await;
    let fact = &facts[first.at as usize - 1];
    assert_eq!(fact.key.as_ref().map(|k| (k.key.as_str(), k.payload.len())), Some(("mine", 16)));
    assert_eq!(fact.done.as_ref().map(|d| d.object_id.clone()), Some(order_id(1).to_string()));
    let deposit = || command(2, 77, deposit(2, 5));
    let amount = done(running.execute(deposit()).await).amount_micros;
    let known = done(running.execute(deposit()).await);
    assert_eq!((known.known, known.amount_micros), (true, amount));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_changes_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    let hash = running.hash().await;
    let position = running.exchange.published.stepped();
    for (what, code, reason) in [
        (deposit(9, 5), 5, "ACCOUNT_NOT_FOUND"),
        (limit(5, "MSFT", Side::Buy, 1, 100), 5, "UNKNOWN_SYMBOL"),
        (limit(5, "AAPL", Side::Buy, 0, 100), 3, "QUANTITY_NOT_POSITIVE"),
        (limit(5, "AAPL", Side::Buy, 1, 0), 3, "PRICE_MISSING"),
        (cancel(5), 5, "ORDER_NOT_OPEN"),
        (limit(5, "AAPL", Side::Buy, 1, 1), 3, "PRICE_OUT_OF_BAND"),
    ] {
        let is = refused(running.execute(command(1, 500, what)).await);
        assert_eq!((is.code, is.reason.as_str()), (code, reason), "{}", is.message);
        assert!(is.message.len() > 10);
    }
    assert_eq!((running.exchange.published.stepped(), running.facts(position).await.len()), (position, 0));
    let poor = done(running.execute(command(1, 501, limit(6, "AAPL", Side::Buy, 10_000, 10_000))).await);
    let poor = poor.order.unwrap();
    assert_eq!((poor.state(), poor.reject_code.as_str()), (OrderState::Rejected, "INSUFFICIENT_FUNDS"));
    assert_ne!(running.hash().await, hash);
    running.stop().await;
}
