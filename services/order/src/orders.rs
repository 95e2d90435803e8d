//! The door for orders: a request becomes a command of the journal, its outcome the answer.

use super::{
    domain::{
        Error as Refused,
        new_order::{NewOrder, trail},
    },
    store,
};
use fafnir_platform::{
    context::Context,
    db::Db,
    door::{Answer, Door},
    error::{Error, Result},
    facts::Follower,
};
use fafnir_proto::{
    client,
    id::{OrderId, UserId},
    reason::Reason,
    v1::{
        CancelAllCommand, CancelCommand, CancelGroupCommand, Command, Done, FlattenCommand, FlattenReply,
        OpenOrdersRequest, Order, OrderStanding, OrderState, PlaceGroupCommand, PlaceGroupRequest,
        PlaceOrderRequest, QueuePositionRequest, ReplaceCommand, ReplaceOrderRequest, RequestKey,
        command::What,
    },
};
use fafnir_rules::{
    check,
    money::{E4_DECIMALS, format_scaled},
    order::{LEGS_MAX, LEGS_RULE},
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};
use uuid::Uuid;

/// Orders being placed at once; one more is refused, cancels are not counted.
const PLACES_MAX: usize = 512;
/// Bytes of a request's hash that its key carries.
const PAYLOAD_LEN: usize = 16;
/// Fills in the answer to a command.
const FILLS_MAX: u32 = 100;
/// How long a changed order waits for its earlier fills; without them it is answered too.
const FILLS_WAIT: Duration = Duration::from_millis(100);
/// Open orders asked for at once.
const PAGE: u32 = 1_000;
/// The bits of an id that tell the orders of a group from each other.
const GROUP_PLACES: u128 = 0b11;

/// An answer and the position from which on a projection knows of it.
pub type Positioned<T> = Result<(T, u64)>;

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders {
    pub ctx: Context,
    pub db: Db,
    pub follower: Follower,
    door: Door,
    places: Arc<Semaphore>,
}

/// The hash of what a request asks for, without who asks.
fn payload(request: &PlaceOrderRequest) -> Vec<u8> {
    let plain = PlaceOrderRequest {
        user_id: String::new(),
        symbol: request.symbol.trim().to_ascii_uppercase(),
        account_id: request.account_id.to_ascii_lowercase(),
        ..request.clone()
    };
    Sha256::digest(plain.encode_to_vec())[..PAYLOAD_LEN].to_vec()
}

/// The same of a group.
fn group_payload(request: &PlaceGroupRequest) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(request.kind.to_be_bytes());
    for order in &request.orders {
        hash.update(payload(order));
    }
    hash.finalize()[..PAYLOAD_LEN].to_vec()
}

/// The orders of a group, each of the right shape.
fn group_legs(request: &PlaceGroupRequest) -> Result<Vec<NewOrder>, Refused> {
    let malformed = |text: &str| Refused::invalid(Reason::GROUP_MALFORMED, text.to_owned());
    let kind = request.kind().known().ok_or_else(|| malformed("kind must be OCO, BRACKET or OTO"))?;
    if request.orders.len() != kind.legs() {
        return Err(malformed(LEGS_RULE));
    }
    if request.orders[1..].iter().any(|order| !order.client_order_id.is_empty()) {
        return Err(malformed("client_order_id of a group is its first order's alone"));
    }
    request.orders.iter().map(NewOrder::parse).collect()
}

/// The id of a group from an id of its own: the last two bits are those of its orders.
fn group_id(own: Uuid) -> Uuid {
    Uuid::from_u128(own.as_u128() & !GROUP_PLACES)
}

/// The id of the order at a place of a group, from 0: whoever has one of a group's ids has all of them.
fn leg_id(group: Uuid, at: usize) -> Uuid {
    Uuid::from_u128(group.as_u128() | ((at as u128 + 1) & GROUP_PLACES))
}

fn reused(client_order_id: &str) -> Refused {
    Refused::exists(
        Reason::CLIENT_ORDER_ID_REUSED,
        format!("client_order_id {client_order_id:?} was used for another order; it is unique for ever"),
    )
}

/// No such order, or another's.
pub fn unknown() -> Refused {
    Refused::not_found(Reason::ORDER_NOT_FOUND, "no such order")
}

/// Reads an order id.
pub fn order_id(text: &str) -> Result<Uuid, Refused> {
    OrderId::parse(text)
        .map(OrderId::uuid)
        .map_err(|_| Refused::invalid(Reason::ID_MALFORMED, "order_id must be a UUID"))
}

/// The refusal to change an order that has ended.
fn ended(order: &Order, verb: &str) -> Refused {
    Refused::precondition(
        Reason::ORDER_DONE,
        format!("order {} is {} and can no longer be {verb}", order.id, order.state().name()),
    )
}

/// The shape of a replace: something changes, and to what can be.
fn replacement(r: &ReplaceOrderRequest) -> Result<ReplaceCommand, Refused> {
    let trails = r.trail_amount_e4 != 0 || r.trail_percent_e4 != 0;
    if r.quantity_e4 == 0 && r.price_e4 == 0 && r.stop_price_e4 == 0 && !trails {
        return Err(Refused::invalid(
            Reason::NOTHING_TO_REPLACE,
            "quantity, price, stop_price or a trail must be given to replace an order",
        ));
    }
    if trails {
        let trail = trail(r.trail_amount_e4, r.trail_percent_e4)?;
        check::trail(trail).map_err(|violation| Refused::of_rule(violation, ""))?;
    }
    if r.quantity_e4 != 0 {
        check::quantity(r.quantity_e4).map_err(|violation| Refused::of_rule(violation, ""))?;
    }
    if r.price_e4 < 0 {
        return Err(Refused::invalid(Reason::PRICE_NOT_POSITIVE, "price must be above 0"));
    }
    if r.stop_price_e4 < 0 {
        return Err(Refused::invalid(Reason::STOP_PRICE_NOT_POSITIVE, "stop_price must be above 0"));
    }
    Ok(ReplaceCommand {
        order_id: order_id(&r.order_id)?.to_string(),
        quantity_e4: r.quantity_e4,
        price_e4: r.price_e4,
        stop_price_e4: r.stop_price_e4,
        version: r.version,
        trail_amount_e4: r.trail_amount_e4,
        trail_percent_e4: r.trail_percent_e4,
    })
}

/// The one line at INFO of an order that was taken, in all: what comes of it stands in its history. Of what the platform
/// itself places there is none.
fn tell_accepted(order: &Order, position: u64) {
    let Some(trace) = client::trace_id() else { return };
    let (side, quantity) = (order.side().name(), format_scaled(order.quantity_e4, E4_DECIMALS));
    tracing::info!(
        order = order.id,
        trace,
        symbol = order.symbol,
        side,
        quantity,
        state = order.state().name(),
        position,
        "accepted"
    );
}

impl Orders {
    pub fn new(ctx: &Context, db: Db, follower: Follower) -> Self {
        let (door, places) = (Door::new(ctx), Arc::new(Semaphore::new(PLACES_MAX)));
        Self { ctx: ctx.clone(), db, follower, door, places }
    }

    /// Places an order for a user.
    pub async fn place(
        &self,
        user: UserId,
        request: &PlaceOrderRequest,
        deadline: Instant,
    ) -> Positioned<Order> {
        let overloaded =
            || Refused::exhausted(Reason::OVERLOADED, "too many orders are being placed; try again");
        let _place = self.places.try_acquire().map_err(|_| overloaded())?;
        let new = NewOrder::parse(request)?;
        let mut command = Command { user_id: user.to_string(), ..Command::default() };
        if !new.client_order_id.is_empty() {
            // The position before the table: what came between the two is looked for twice.
            let looked_until = self.follower.position();
            let payload = payload(request);
            if let Some(order) = self.placed(user, &new.client_order_id, &payload).await? {
                return Ok((order, self.follower.position()));
            }
            command.key = Some(RequestKey { key: new.client_order_id.clone(), payload, looked_until });
        }
        new.in_time(self.ctx.clock.now_us())?;
        let id = self.door.new_id();
        if command.key.is_none() {
            command.id = id.as_bytes().to_vec();
        }
        command.what = Some(What::Place(new.command(id)));
        let answer = self.door.execute(command, deadline).await?;
        match answer.outcome {
            Ok(done) if done.known => {
                let id = Uuid::parse_str(&done.object_id);
                let id = id.map_err(|_| Error::internal("the engine names an order that is no UUID"))?;
                self.known(user, id, done.at, deadline).await
            }
            Ok(done) => {
                let order = made(done)?;
                tell_accepted(&order, answer.position);
                Ok((order, answer.position))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Places the orders of a group, all of them or none; answers its id and the orders.
    pub async fn place_group(
        &self,
        user: UserId,
        request: &PlaceGroupRequest,
        deadline: Instant,
    ) -> Positioned<(String, Vec<Order>)> {
        let overloaded =
            || Refused::exhausted(Reason::OVERLOADED, "too many orders are being placed; try again");
        let _place = self.places.try_acquire().map_err(|_| overloaded())?;
        let legs = group_legs(request)?;
        let mut command = Command { user_id: user.to_string(), ..Command::default() };
        let key = &legs[0].client_order_id;
        if !key.is_empty() {
            let looked_until = self.follower.position();
            let payload = group_payload(request);
            if let Some(order) = self.placed(user, key, &payload).await? {
                let group = self.group_of(user, order).await?;
                return Ok((group, self.follower.position()));
            }
            command.key = Some(RequestKey { key: key.clone(), payload, looked_until });
        }
        for leg in &legs {
            leg.in_time(self.ctx.clock.now_us())?;
        }
        let group = group_id(self.door.new_id());
        if command.key.is_none() {
            command.id = group.as_bytes().to_vec();
        }
        command.what = Some(What::PlaceGroup(PlaceGroupCommand {
            group_id: group.to_string(),
            kind: request.kind,
            orders: legs.iter().zip(0..).map(|(leg, at)| leg.command(leg_id(group, at))).collect(),
        }));
        let answer = self.door.execute(command, deadline).await?;
        match answer.outcome {
            Ok(done) if done.known => {
                let id = Uuid::parse_str(&done.object_id);
                let id = id.map_err(|_| Error::internal("the engine names an order that is no UUID"))?;
                let (order, position) = self.known(user, id, done.at, deadline).await?;
                Ok((self.group_of(user, order).await?, position))
            }
            Ok(mut done) => {
                let others = std::mem::take(&mut done.others);
                let first = made(done)?;
                let group = first.group_id.clone();
                let orders: Vec<_> = std::iter::once(first).chain(others).collect();
                for order in &orders {
                    tell_accepted(order, answer.position);
                }
                Ok(((group, orders), answer.position))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// The group of its first order with all its orders, as they are stored.
    async fn group_of(&self, user: UserId, first: Order) -> Result<(String, Vec<Order>)> {
        let Ok(group) = Uuid::parse_str(&first.group_id) else { return Err(unknown().into()) };
        let stored = self.db.read(move |tx| {
            let one = |at| store::order_get(tx, user, leg_id(group, at), FILLS_MAX);
            let found = (0..LEGS_MAX).map(one).collect::<Result<Vec<_>, _>>()?;
            Ok(found.into_iter().flatten().filter(|order| order.group_id == group.to_string()).collect())
        });
        Ok((first.group_id, stored.await?))
    }

    /// Ends every open order of a group; answers how many there were.
    pub async fn cancel_group(&self, user: UserId, group: &str, deadline: Instant) -> Positioned<u32> {
        let group_id = Uuid::parse_str(group)
            .map_err(|_| Refused::invalid(Reason::ID_MALFORMED, "group_id must be a UUID"))?
            .to_string();
        let answer = self.execute(user, What::CancelGroup(CancelGroupCommand { group_id }), deadline).await?;
        Ok((answer.outcome?.canceled, answer.position))
    }

    /// The order that a client order id made, as far as it is known here.
    async fn placed(&self, user: UserId, client_order_id: &str, payload: &[u8]) -> Result<Option<Order>> {
        let key = client_order_id.to_owned();
        let found = self
            .db
            .read(move |tx| match store::client_order_get(tx, user, &key)? {
                Some((payload, id)) => Ok(Some((payload, store::order_get(tx, user, id, FILLS_MAX)?))),
                None => Ok(None),
            })
            .await?;
        match found {
            None => Ok(None),
            Some((known, Some(order))) if known == payload => Ok(Some(order)),
            Some(_) => Err(reused(client_order_id).into()),
        }
    }

    /// Asks for an order to end; answers it as it then is.
    pub async fn cancel(&self, user: UserId, order: &str, deadline: Instant) -> Positioned<Order> {
        let id = order_id(order)?;
        let what = What::Cancel(CancelCommand { order_id: id.to_string() });
        let answer = self.execute(user, what, deadline).await?;
        self.changed(user, id, answer, "canceled", deadline).await
    }

    /// Changes an open order.
    pub async fn replace(
        &self,
        user: UserId,
        request: &ReplaceOrderRequest,
        deadline: Instant,
    ) -> Positioned<Order> {
        let command = replacement(request)?;
        let id = order_id(&command.order_id)?;
        let answer = self.execute(user, What::Replace(command), deadline).await?;
        self.changed(user, id, answer, "replaced", deadline).await
    }

    /// Ends every open order of a user (in a symbol); answers how many there were.
    pub async fn cancel_all(&self, user: UserId, symbol: String, deadline: Instant) -> Positioned<u32> {
        let answer = self.execute(user, What::CancelAll(CancelAllCommand { symbol }), deadline).await?;
        Ok((answer.outcome?.canceled, answer.position))
    }

    /// Ends every open order in a symbol, whoever's; answers how many there were.
    pub async fn cancel_symbol(&self, symbol: String, deadline: Instant) -> Positioned<u32> {
        let open = self.open_orders("", &symbol).await?;
        let users: BTreeSet<UserId> = open.iter().filter_map(|o| UserId::parse(&o.user_id).ok()).collect();
        let (mut canceled, mut position) = (0u32, 0);
        for user in users {
            let (more, at) = self.cancel_all(user, symbol.clone(), deadline).await?;
            (canceled, position) = (canceled.saturating_add(more), at);
        }
        Ok((canceled, position))
    }

    /// Ends the account's orders in a symbol and sells what is there.
    pub async fn flatten(
        &self,
        user: UserId,
        account_id: String,
        symbol: String,
        deadline: Instant,
    ) -> Positioned<FlattenReply> {
        let mut sold = None;
        loop {
            let id = self.door.new_id();
            let command = FlattenCommand {
                account_id: account_id.clone(),
                symbol: symbol.clone(),
                order_id: id.to_string(),
            };
            let answer = self.execute(user, What::Flatten(command), deadline).await?;
            let done = answer.outcome?;
            if done.known {
                // The answer that told it was lost: another command says what is left now.
                self.stand_at(done.at, deadline).await?;
                sold = self.order_opt(user, id).await?.or(sold);
                continue;
            }
            let why = done.why.unwrap_or_default();
            let reply = FlattenReply {
                canceled: done.canceled,
                order: done.order.or(sold),
                left_e4: done.left_e4,
                code: why.code,
                reason: why.reason,
                message: why.message,
            };
            return Ok((reply, answer.position));
        }
    }

    /// Open orders of a user (empty: of everybody) in a symbol (empty: in all), as the engine has them, the oldest first.
    pub async fn open_orders(&self, user_id: &str, symbol: &str) -> Result<Vec<Order>> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let mut orders: Vec<Order> = Vec::new();
        loop {
            let request = OpenOrdersRequest {
                user_id: user_id.to_owned(),
                symbol: symbol.to_owned(),
                after_id: orders.last().map(|o| o.id.clone()).unwrap_or_default(),
                limit: PAGE,
            };
            let page = engine.open_orders(request).await?.into_inner();
            let is_last = !page.more || page.orders.is_empty();
            orders.extend(page.orders);
            if is_last {
                return Ok(orders);
            }
        }
    }

    /// Where an open order stands; `None` where it is no longer open, or the engine does not answer.
    pub async fn standing(&self, order: Uuid) -> Option<OrderStanding> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let asked = engine.standing(QueuePositionRequest { order_id: order.to_string() }).await;
        asked.map(tonic::Response::into_inner).ok()
    }

    async fn execute(&self, user: UserId, what: What, deadline: Instant) -> Result<Answer> {
        let command = Command { user_id: user.to_string(), what: Some(what), ..Command::default() };
        self.door.execute(command, deadline).await
    }

    /// The order that a command was to change, as it is after it.
    async fn changed(
        &self,
        user: UserId,
        id: Uuid,
        answer: Answer,
        verb: &str,
        deadline: Instant,
    ) -> Positioned<Order> {
        let position = answer.position;
        let refused = match answer.outcome {
            Ok(done) if done.known => return self.known(user, id, done.at, deadline).await,
            Ok(done) => return Ok((self.with_fills(user, id, made(done)?, position).await, position)),
            Err(refused) => Refused::from(refused),
        };
        if refused.reason != Reason::ORDER_NOT_OPEN {
            return Err(refused.into());
        }
        self.stand_at(position, deadline).await?;
        let order = self.order(user, id).await?;
        // The first of two may have come through.
        let is_ours = answer.is_repeated && order.state() == OrderState::Canceled && verb == "canceled";
        if is_ours {
            return Ok((order, position));
        }
        if order.state().has_ended() {
            return Err(ended(&order, verb).into());
        }
        Err(Error::internal(format!("order {id} is open here and not in the engine at {position}")))
    }

    /// The order of a command that had been carried out before, at position `at`.
    async fn known(&self, user: UserId, id: Uuid, at: u64, deadline: Instant) -> Positioned<Order> {
        self.stand_at(at, deadline).await?;
        Ok((self.order(user, id).await?, self.follower.position()))
    }

    async fn order(&self, user: UserId, id: Uuid) -> Result<Order> {
        self.order_opt(user, id).await?.ok_or_else(|| unknown().into())
    }

    async fn order_opt(&self, user: UserId, id: Uuid) -> Result<Option<Order>> {
        self.db.read(move |tx| Ok(store::order_get(tx, user, id, FILLS_MAX)?)).await
    }

    /// Adds the fills of earlier commands, if the read model has them within a moment.
    async fn with_fills(&self, user: UserId, id: Uuid, order: Order, position: u64) -> Order {
        if order.filled_e4 == 0 {
            return order;
        }
        let fills = async {
            self.follower.wait(position).await?;
            Ok::<_, Error>(self.order(user, id).await?.fills)
        };
        match tokio::time::timeout(FILLS_WAIT, fills).await {
            Ok(Ok(fills)) => Order { fills, ..order },
            Ok(Err(_)) | Err(_) => order,
        }
    }

    /// Waits until the read model stands at a position, at most until the deadline.
    async fn stand_at(&self, position: u64, deadline: Instant) -> Result<()> {
        let late = |_| Error::unavailable("the read model is behind the engine");
        tokio::time::timeout_at(deadline, self.follower.wait(position)).await.map_err(late)?
    }
}

fn made(done: Done) -> Result<Order> {
    done.order.ok_or_else(|| Error::internal("the engine did not answer with the order"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_what_is_asked_for_however_it_is_spelled_and_whoever_asks() {
        let request = PlaceOrderRequest {
            user_id: "someone".into(),
            symbol: " aapl".into(),
            account_id: "00000000-0000-4000-8000-0000000000AA".into(),
            quantity_e4: 10_000,
            ..PlaceOrderRequest::default()
        };
        let same = PlaceOrderRequest {
            user_id: String::new(),
            symbol: "AAPL".into(),
            account_id: "00000000-0000-4000-8000-0000000000aa".into(),
            ..request.clone()
        };
        let other = PlaceOrderRequest { quantity_e4: 20_000, ..request.clone() };
        assert_eq!(payload(&request).len(), PAYLOAD_LEN);
        assert_eq!(payload(&request), payload(&same));
        assert_ne!(payload(&request), payload(&other));
    }

    #[test]
    fn a_replace_that_cannot_be_is_refused_before_it_is_a_command() {
        let id = Uuid::from_u128(1).to_string();
        let change = ReplaceOrderRequest { order_id: id, price_e4: 100, ..ReplaceOrderRequest::default() };
        assert!(replacement(&change).is_ok());
        for (bad, why) in [
            (ReplaceOrderRequest { price_e4: 0, ..change.clone() }, "NOTHING_TO_REPLACE"),
            (ReplaceOrderRequest { price_e4: -1, ..change.clone() }, "PRICE_NOT_POSITIVE"),
            (ReplaceOrderRequest { stop_price_e4: -1, ..change.clone() }, "STOP_PRICE_NOT_POSITIVE"),
            (ReplaceOrderRequest { quantity_e4: -1, ..change.clone() }, "QUANTITY_NOT_POSITIVE"),
            (ReplaceOrderRequest { quantity_e4: i64::MAX, ..change.clone() }, "QUANTITY_TOO_LARGE"),
            (ReplaceOrderRequest { trail_amount_e4: -1, ..change.clone() }, "TRAIL_OUT_OF_RANGE"),
            (
                ReplaceOrderRequest { trail_amount_e4: 100, trail_percent_e4: 100, ..change.clone() },
                "TRAIL_AMBIGUOUS",
            ),
            (ReplaceOrderRequest { order_id: "1".into(), ..change }, "ID_MALFORMED"),
        ] {
            assert_eq!(replacement(&bad).unwrap_err().reason, why);
        }
    }
}
