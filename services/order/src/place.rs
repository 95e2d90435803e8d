//! Taking an order: checks, PENDING_NEW, hold, accepted with its command; and the same again for what a crash left.

use super::{
    accounts::Accounts,
    domain::{Entry, Error as Refused, new_order, pricing},
    gate::{self, Gate},
    market::Market,
    relay::RelayState,
    store::{
        self,
        commands::{Done, Op},
    },
    watch::{Updates, Watchers},
};
use fafnir_platform::{
    agents,
    context::Context,
    db::Db,
    error::{Error, Result, refusal_of},
    refusal::Kind,
};
use fafnir_proto::{
    id::{AccountId, OrderId, UserId},
    reason::Reason,
    v1::{
        AdjustHoldRequest, HoldRequest, Order, OrderState, OrderType, PendingAction, PlaceOrderRequest,
        ReleaseHoldRequest, Side, TimeInForce,
    },
};
use fafnir_rules::{
    check::{Priced, Terms},
    limits::CLIENT_ORDER_ID_LEN_MAX,
    price::Trail,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::Status;
use uuid::{ContextV7, Timestamp, Uuid};

/// Orders being placed at once; one more is refused, cancels are not counted.
pub const PLACES_MAX: usize = 512;
/// Commands that the engine has not journaled; with more, new orders are refused. Cancels pass.
const BACKLOG_MAX: u64 = 8_192;
/// How long a repeated request waits for the first one's word.
const REPEAT_WAIT: Duration = Duration::from_secs(1);
/// Pause between two questions for an extra hold.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// The gate for orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Core {
    pub ctx: Context,
    pub db: Db,
    pub market: Market,
    pub gate: Gate,
    pub relay: Arc<RelayState>,
    pub watchers: Watchers,
    pub updates: Updates,
    pub accounts: Accounts,
    pub ids: Arc<Mutex<ContextV7>>,
    pub places: Arc<Semaphore>,
}

/// What the first transaction found.
enum Begun {
    New,
    Repeated(Box<Order>),
}

/// The hash of what a request asks for, without who asks.
fn request_hash(request: &PlaceOrderRequest) -> String {
    let plain = PlaceOrderRequest {
        user_id: String::new(),
        symbol: request.symbol.trim().to_ascii_uppercase(),
        account_id: request.account_id.to_ascii_lowercase(),
        ..request.clone()
    };
    Sha256::digest(plain.encode_to_vec()).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn reused(key: &str) -> Refused {
    Refused::exists(
        Reason::CLIENT_ORDER_ID_REUSED,
        format!("client_order_id {key:?} was used for another order; it is unique for ever"),
    )
}

impl Core {
    fn now_us(&self) -> i64 {
        self.ctx.clock.now_us()
    }

    /// New orders and replaces are refused while the platform is overloaded or the engine is away for long.
    pub fn admit(&self) -> Result<(), Refused> {
        if self.relay.is_stuck(self.now_us()) {
            return Err(Refused::exhausted(
                Reason::CANCEL_ONLY,
                "the engine has not taken commands for 30 seconds: only cancels are accepted now",
            ));
        }
        if self.relay.backlog() > BACKLOG_MAX {
            return Err(Refused::exhausted(
                Reason::OVERLOADED,
                "too many commands wait for the engine; try again",
            ));
        }
        Ok(())
    }

    fn new_id(&self, now_us: i64) -> OrderId {
        let now_us = u64::try_from(now_us).unwrap_or(0);
        let (seconds, nanos) = (now_us / 1_000_000, (now_us % 1_000_000) as u32 * 1_000);
        // Later orders have greater ids, also within a millisecond: lists are in the order of ids.
        OrderId::new(Uuid::new_v7(Timestamp::from_unix(&*self.ids, seconds, nanos)))
    }

    /// Places an order for a user.
    pub async fn place(&self, user: UserId, request: PlaceOrderRequest) -> Result<Order> {
        let overloaded =
            || Refused::exhausted(Reason::OVERLOADED, "too many orders are being placed; try again");
        let _place = self.places.try_acquire().map_err(|_| overloaded())?;
        let hash = request_hash(&request);
        let key = request.client_order_id.as_str();
        if !key.is_empty()
            && key.len() <= CLIENT_ORDER_ID_LEN_MAX
            && let Some(order) = self.repeated(user, key, &hash).await?
        {
            return Ok(order);
        }
        self.admit()?;
        let now_us = self.now_us();
        let new = new_order::NewOrder::parse(&request, now_us)?;
        let symbol = new.symbol.as_str();
        let instrument = self.market.instrument(symbol).ok_or_else(|| {
            Refused::not_found(Reason::UNKNOWN_SYMBOL, format!("symbol {symbol} is not listed"))
        })?;
        let priced = pricing::price(&new, &instrument, self.market.reference(&instrument))?;
        let account = self.accounts.resolve(user, new.account, &instrument.currency).await?;
        let id = self.new_id(now_us);
        let entry = new_entry(id, user, account, &instrument.currency, &new, priced, now_us);
        match self.begin(user, &entry, hash).await? {
            Begun::Repeated(order) => self.settled(*order).await,
            Begun::New => match self.finish(&entry).await {
                // It is on disk and goes on by itself: recovery is the normal path.
                Err(e) if e.is_transient() => {
                    tracing::warn!(order = entry.order.id, error = %e, "the order waits for its hold");
                    Ok(entry.order)
                }
                result => result,
            },
        }
    }

    /// The order that was placed under this client order id, if any.
    async fn repeated(&self, user: UserId, key: &str, hash: &str) -> Result<Option<Order>> {
        let of = key.to_owned();
        let found = self
            .db
            .read(move |tx| match store::idempotency_get(tx, &user, &of)? {
                Some((hash, id)) => Ok(Some((hash, store::order_get(tx, &id)?))),
                None => Ok(None),
            })
            .await?;
        match found {
            None => Ok(None),
            Some((known, Some(entry))) if known == hash => Ok(Some(self.settled(entry.order).await?)),
            Some(_) => Err(reused(key).into()),
        }
    }

    /// The order of a repeated request: when the first one is still on its way, its outcome is awaited for a moment.
    async fn settled(&self, order: Order) -> Result<Order> {
        let mut watcher = self.watchers.watch(&order.id);
        let id = order.id.clone();
        let now = self.db.read(move |tx| Ok(store::order_get(tx, &id)?)).await?;
        match now {
            Some(entry) if entry.accepted => Ok(entry.order),
            _ => Ok(watcher.wait(REPEAT_WAIT, |_| true).await.map_or(order, |progress| progress.order)),
        }
    }

    /// The first transaction: the order and its client order id.
    async fn begin(&self, user: UserId, entry: &Entry, hash: String) -> Result<Begun> {
        let open_max = i64::from(self.ctx.settings.order.open_orders_max);
        let entry = entry.clone();
        self.db
            .write(move |tx| {
                let order = &entry.order;
                let key = order.client_order_id.as_str();
                if !key.is_empty() && !store::idempotency_put(tx, &user, key, &hash, &order.id)? {
                    let known = store::idempotency_get(tx, &user, key)?;
                    let Some((known, id)) = known else { return Err(reused(key).into()) };
                    let first = store::order_get(tx, &id)?;
                    return match first {
                        Some(first) if known == hash => Ok(Begun::Repeated(Box::new(first.order))),
                        _ => Err(reused(key).into()),
                    };
                }
                if store::open_orders_add(tx, &order.user_id, 1)? > open_max {
                    return Err(Refused::precondition(
                        Reason::TOO_MANY_OPEN_ORDERS,
                        format!("open orders must be at most {open_max} per user; cancel some first"),
                    )
                    .into());
                }
                store::order_insert(tx, &entry)?;
                Ok(Begun::New)
            })
            .await
    }

    /// Hold, then accepted with its command; or rejected. Can be repeated after a crash at any point.
    pub async fn finish(&self, entry: &Entry) -> Result<Order> {
        let order = &entry.order;
        let request = HoldRequest {
            order_id: order.id.clone(),
            user_id: order.user_id.clone(),
            account_id: order.account_id.clone(),
            symbol: order.symbol.clone(),
            side: order.side,
            quantity_e4: order.quantity_e4,
            price_e4: if order.side() == Side::Buy { entry.cap_price_e4 } else { 0 },
            currency: order.currency.clone(),
        };
        let id = order.id.clone();
        let refusal = match self.ctx.clients.portfolio(&self.ctx.system()).hold(request).await {
            Ok(_) => match self.gate.run(Op::Accept { id: id.clone() }).await?? {
                Done::CanceledEarly(order) => return self.abandon(&order).await,
                done => return order_of(done),
            },
            Err(status) => match refusal_of(&status) {
                Some(r) if is_about_the_order(r.kind) => r,
                _ => return Err(status.into()),
            },
        };
        if let Ok(user) = UserId::parse(&order.user_id) {
            self.accounts.forget(user, &order.account_id, &order.currency).await;
        }
        let op = Op::Reject { id, code: refusal.reason.into(), reason: refusal.message };
        order_of(self.gate.run(op).await??)
    }

    /// Ends an order that was canceled before it was accepted.
    async fn abandon(&self, order: &Order) -> Result<Order> {
        let request = ReleaseHoldRequest { order_id: order.id.clone() };
        self.ctx.clients.portfolio(&self.ctx.system()).release_hold(request).await?;
        let op = Op::Reject {
            id: order.id.clone(),
            code: Reason::CANCELED_EARLY.into(),
            reason: "canceled before it reached the engine".to_owned(),
        };
        order_of(self.gate.run(op).await??)
    }

    /// The extra hold of a replace, then its command; or the replace is taken back and refused. Can be repeated.
    pub async fn finish_replace(&self, entry: &Entry, replace: &store::Replace) -> Result<Order> {
        let order = &entry.order;
        let request = AdjustHoldRequest {
            order_id: replace.order_id.clone(),
            version: replace.version,
            open_quantity_e4: replace.quantity_e4.saturating_sub(order.filled_e4),
            price_e4: if order.side() == Side::Buy { replace.cap_price_e4 } else { 0 },
            only_increase: true,
            quantity_e4: replace.quantity_e4,
        };
        let (id, version) = (replace.order_id.clone(), replace.version);
        match self.adjust_hold(request).await {
            Ok(()) => order_of(self.gate.run(Op::SendReplace { id, version }).await??),
            Err(status) => match refusal_of(&status) {
                Some(r) if is_about_the_order(r.kind) => {
                    let now_us = self.now_us();
                    self.db
                        .write(move |tx| Ok(store::commands::replace_drop(tx, &id, version, now_us)?))
                        .await?;
                    gate::mark(&self.updates, order);
                    Err(r.into())
                }
                _ => Err(status.into()),
            },
        }
    }

    /// Asks for the extra hold. While portfolio-service has not heard the engine's word on the replace before this one,
    /// which we have, it is asked again.
    async fn adjust_hold(&self, request: AdjustHoldRequest) -> Result<(), Status> {
        let end = Instant::now() + REPEAT_WAIT;
        loop {
            let answer = self.ctx.clients.portfolio(&self.ctx.system()).adjust_hold(request.clone()).await;
            match answer {
                Ok(_) => return Ok(()),
                Err(status) if refusal_of(&status).is_none_or(|r| r.reason != Reason::REPLACE_PENDING) => {
                    return Err(status);
                }
                Err(_) if Instant::now() >= end => {
                    return Err(Status::unavailable("portfolio-service is behind the engine"));
                }
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }
}

/// A refusal that is an outcome, in contrast to one that says that the service is busy or does not know us.
fn is_about_the_order(kind: Kind) -> bool {
    matches!(kind, Kind::Precondition | Kind::NotFound | Kind::Invalid | Kind::OutOfRange)
}

fn order_of(done: Done) -> Result<Order> {
    match done {
        Done::Order(order) | Done::CanceledEarly(order) => Ok(order),
        Done::Requested(_) => Err(Error::internal("the gate answered another question")),
    }
}

fn new_entry(
    id: OrderId,
    user: UserId,
    account: AccountId,
    currency: &str,
    new: &new_order::NewOrder,
    priced: Priced,
    now_us: i64,
) -> Entry {
    let (trail_amount_e4, trail_percent_e4) = match new.terms {
        Terms::TrailingStop { trail: Trail::AmountE4(amount) } => (amount, 0),
        Terms::TrailingStop { trail: Trail::PercentE4(percent) } => (0, percent),
        _ => (0, 0),
    };
    let order = Order {
        id: id.to_string(),
        user_id: user.to_string(),
        account_id: account.to_string(),
        symbol: new.symbol.to_string(),
        side: Side::from(new.side).into(),
        r#type: OrderType::from(new.terms.order_type()).into(),
        time_in_force: TimeInForce::from(new.time_in_force).into(),
        state: OrderState::PendingNew.into(),
        pending: PendingAction::None.into(),
        quantity_e4: new.quantity_e4,
        price_e4: new.terms.price_e4(),
        stop_price_e4: priced.stop_e4,
        trail_amount_e4,
        trail_percent_e4,
        display_quantity_e4: new.display_e4,
        post_only: new.post_only,
        stp: new.stp.into(),
        currency: currency.to_owned(),
        client_order_id: new.client_order_id.clone(),
        version: 1,
        created_us: now_us,
        updated_us: now_us,
        expires_us: new.expires_us,
        open_e4: new.quantity_e4,
        ..Order::default()
    };
    Entry { order, cap_price_e4: priced.cap_e4, accepted: false, agent: agents::is_agent(user) }
}
