//! Groups of orders at the door for orders: one by its client id whoever asks how often, and what is refused.

use super::*;
use std::collections::BTreeSet;

fn group(kind: GroupKind, orders: &[PlaceOrderRequest]) -> PlaceGroupRequest {
    PlaceGroupRequest { user_id: String::new(), kind: kind.into(), orders: orders.to_vec() }
}

fn stop(shares: i64, stop_price_e4: i64) -> PlaceOrderRequest {
    PlaceOrderRequest { r#type: OrderType::Stop.into(), price_e4: 0, stop_price_e4, ..sell(shares, 1) }
}

fn bracket(shares: i64, client_order_id: &str) -> PlaceGroupRequest {
    let entry = PlaceOrderRequest { client_order_id: client_order_id.into(), ..buy(shares, 2_310_000) };
    group(GroupKind::Bracket, &[entry, sell(shares, 2_400_000), stop(shares, 2_200_000)])
}

impl Story {
    async fn place_group(&self, user: UserId, request: PlaceGroupRequest) -> Result<OrderGroupReply, Status> {
        Ok(self.orders(user).place_group(request).await?.into_inner())
    }

    async fn cancel_group(&self, user: UserId, group_id: &str) -> Result<u32, Status> {
        let request = CancelGroupRequest { group_id: group_id.into(), ..CancelGroupRequest::default() };
        Ok(self.orders(user).cancel_group(request).await?.into_inner().requested)
    }
}

fn ids(reply: &OrderGroupReply) -> Vec<String> {
    reply.orders.iter().map(|order| order.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_order_id_is_one_group_for_ever() {
    let story = Story::start_with(|s| s.engine.recent_ids = 16).await;
    let placed = join_all((0..100).map(|_| story.place_group(BOB, bracket(10, "mine-1")))).await;
    let placed: Vec<OrderGroupReply> = placed.into_iter().map(Result::unwrap).collect();
    let all: BTreeSet<(String, Vec<String>)> =
        placed.iter().map(|reply| (reply.group_id.clone(), ids(reply))).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    let first = &placed[0];
    assert_eq!(story.status().await.open_orders, 3);
    let told: Vec<_> =
        first.orders.iter().map(|o| (o.leg(), o.state(), o.client_order_id.as_str())).collect();
    let expected = [
        (GroupLeg::Entry, OrderState::New, "mine-1"),
        (GroupLeg::Exit, OrderState::Held, ""),
        (GroupLeg::Exit, OrderState::Held, ""),
    ];
    assert_eq!(told, expected);
    // Another payload under its name is refused, as a group and as an order; another user's is another one.
    for refused in [
        story.place_group(BOB, bracket(9, "mine-1")).await.unwrap_err(),
        story.place(BOB, bracket(10, "mine-1").orders[0].clone()).await.unwrap_err(),
    ] {
        let told = (refused.code(), reason(&refused));
        assert_eq!(told, (Code::AlreadyExists, "CLIENT_ORDER_ID_REUSED".to_owned()));
    }
    let others = story.place_group(ALICE, bracket(10, "mine-1")).await.unwrap();
    assert_ne!(others.group_id, first.group_id);
    assert_eq!(story.cancel_group(ALICE, &others.group_id).await.unwrap(), 3);

    // As it is after it traded, after the window of recent ids and after a restart.
    story.place(ALICE, sell(4, 2_310_000)).await.unwrap();
    for _ in 0..40 {
        story.place(ALICE, sell(1, 2_450_000)).await.unwrap();
    }
    let story = story.restart(|s| s.engine.recent_ids = 16).await;
    let again = join_all((0..100).map(|_| story.place_group(BOB, bracket(10, "mine-1")))).await;
    for again in again {
        let again = again.unwrap();
        assert_eq!((&again.group_id, ids(&again)), (&first.group_id, ids(first)));
        let open: Vec<_> = again.orders.iter().map(|o| (o.filled_e4, o.open_e4)).collect();
        assert_eq!(open, [(40_000, 60_000), (0, 40_000), (0, 40_000)]);
    }
    // And after its end, once the read model knows of it.
    let request = CancelGroupRequest { group_id: first.group_id.clone(), ..CancelGroupRequest::default() };
    let canceled = story.orders(BOB).cancel_group(request).await.unwrap();
    assert_eq!(canceled.get_ref().requested, 3);
    story.get(BOB, &ids(first)[0], position(&canceled)).await.unwrap();
    let ended = story.place_group(BOB, bracket(10, "mine-1")).await.unwrap();
    assert!(ended.orders.iter().all(|order| order.state() == OrderState::Canceled));
    assert_eq!(ids(&ended), ids(first));
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_group_has_all_its_orders_with_what_they_traded() {
    let story = Story::start().await;
    story.place(ALICE, sell(6, 2_310_000)).await.unwrap();
    let reply = story.orders(BOB).place_group(bracket(10, "")).await.unwrap();
    let (at, reply) = (position(&reply), reply.into_inner());
    let told: Vec<_> = reply.orders.iter().map(|o| (o.state(), o.filled_e4, o.open_e4, o.hold_e4)).collect();
    assert_eq!(told[0], (OrderState::PartiallyFilled, 60_000, 40_000, 0));
    assert_eq!(
        (told[1].0, told[1].2, told[2].0, told[2].2),
        (OrderState::New, 60_000, OrderState::Held, 60_000)
    );
    assert_eq!(told[1].3 + told[2].3, 60_000, "its shares are held once");
    assert_eq!(reply.orders[0].fills.len(), 1);
    for order in &reply.orders {
        assert_eq!(story.get(BOB, &order.id, at).await.unwrap(), *order);
        assert_eq!(order.group_id, reply.group_id);
    }
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_does_not_go_together_is_refused_with_what_must_be() {
    let story = Story::start().await;
    let change = |at: usize, change: fn(&mut PlaceOrderRequest)| {
        let mut request = bracket(10, "");
        change(&mut request.orders[at]);
        request
    };
    let oco = |exits: [PlaceOrderRequest; 2]| group(GroupKind::Oco, &exits);
    for (request, why, sentence) in [
        (
            PlaceGroupRequest { kind: 0, ..bracket(10, "") },
            "GROUP_MALFORMED",
            "kind must be OCO, BRACKET or OTO",
        ),
        (
            PlaceGroupRequest { kind: 1, ..bracket(10, "") },
            "GROUP_MALFORMED",
            "OCO or OTO group has 2 orders",
        ),
        (group(GroupKind::Bracket, &[]), "GROUP_MALFORMED", "a BRACKET group 3"),
        (change(2, |o| o.client_order_id = "x".into()), "GROUP_MALFORMED", "client_order_id of a group"),
        (change(1, |o| o.quantity_e4 = 90_000), "GROUP_MALFORMED", "same quantity"),
        (change(1, |o| o.symbol = "MSFT".into()), "GROUP_MALFORMED", "same symbol and account"),
        (change(2, |o| o.account_id = account(BOB)), "GROUP_MALFORMED", "same symbol and account"),
        (change(0, |o| o.set_side(Side::Sell)), "GROUP_MALFORMED", "side of an entry must be BUY"),
        (change(1, |o| o.set_side(Side::Buy)), "GROUP_MALFORMED", "side of an exit must be SELL"),
        (change(1, |o| o.set_time_in_force(TimeInForce::Day)), "GROUP_MALFORMED", "time_in_force of an exit"),
        (change(1, |o| o.set_time_in_force(TimeInForce::Ioc)), "GROUP_MALFORMED", "must be able to rest"),
        (change(1, |o| o.post_only = true), "GROUP_MALFORMED", "post-only or an iceberg"),
        (change(1, |o| o.display_quantity_e4 = 20_000), "GROUP_MALFORMED", "post-only or an iceberg"),
        (oco([stop(5, 2_200_000), stop(5, 2_100_000)]), "GROUP_MALFORMED", "a LIMIT order and a stop"),
        (
            oco([
                sell(5, 2_400_000),
                PlaceOrderRequest { time_in_force: TimeInForce::Day.into(), ..stop(5, 2_200_000) },
            ]),
            "GROUP_MALFORMED",
            "same time in force",
        ),
        (
            change(2, |o| o.stop_price_e4 = 2_310_000),
            "STOP_WRONG_SIDE",
            "must be below 231, the most that its entry pays",
        ),
        (change(2, |o| o.stop_price_e4 = 100), "STOP_PRICE_OUT_OF_BAND", "stop_price"),
        (change(1, |o| o.price_e4 = 2_400_050), "PRICE_OFF_TICK", "price"),
        (change(1, |o| o.quantity_e4 = 0), "QUANTITY_NOT_POSITIVE", "quantity"),
        (change(0, |o| o.symbol = "NOPE".into()), "GROUP_MALFORMED", "same symbol"),
    ] {
        let refused = story.place_group(BOB, request).await.unwrap_err();
        assert_eq!(reason(&refused), why, "{}", refused.message());
        assert!(refused.message().contains(sentence), "{} without {sentence:?}", refused.message());
    }
    assert_eq!(story.status().await.open_orders, 0);
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_refused_for_funds_whole_and_belongs_to_its_user() {
    let story = Story::start().await;
    // For funds: the first order alone, REJECTED, also the second time; of exits alone for shares.
    for _ in 0..2 {
        let rejected = story.place_group(BOB, bracket(1_000, "poor")).await.unwrap();
        assert_eq!(rejected.orders.len(), 1);
        let order = &rejected.orders[0];
        assert_eq!((order.state(), order.reject_code.as_str()), (OrderState::Rejected, "INSUFFICIENT_FUNDS"));
    }
    let exits = group(GroupKind::Oco, &[sell(5, 2_400_000), stop(5, 2_200_000)]);
    let bare = story.place_group(BOB, exits).await.unwrap();
    assert_eq!(bare.orders[0].reject_code, "INSUFFICIENT_SHARES");
    assert_eq!(story.status().await.open_orders, 0);

    // Another's group is like none; an exit's quantity is its group's.
    let placed = story.place_group(BOB, bracket(10, "")).await.unwrap();
    for (refused, why) in [
        (story.cancel_group(ALICE, &placed.group_id).await.unwrap_err(), "GROUP_NOT_FOUND"),
        (story.cancel_group(BOB, &Uuid::new_v4().to_string()).await.unwrap_err(), "GROUP_NOT_FOUND"),
        (story.cancel_group(BOB, "1").await.unwrap_err(), "ID_MALFORMED"),
    ] {
        assert_eq!(reason(&refused), why, "{}", refused.message());
    }
    let change = ReplaceOrderRequest {
        order_id: placed.orders[1].id.clone(),
        quantity_e4: 50_000,
        ..ReplaceOrderRequest::default()
    };
    assert_eq!(reason(&story.replace(BOB, change).await.unwrap_err()), "GROUP_EXIT_QUANTITY");
    // A halt takes no group and lets one go.
    let halt =
        SetStateCommand { symbol: "AAPL".into(), state: TradingState::Halted.into(), ..Default::default() };
    story.command(None, What::SetState(halt)).await;
    assert_eq!(reason(&story.place_group(BOB, bracket(10, "")).await.unwrap_err()), "SYMBOL_HALTED");
    assert_eq!(story.cancel_group(BOB, &placed.group_id).await.unwrap(), 3);
    story.stack.stop().await;
}
