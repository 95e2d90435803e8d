//! Canceling and replacing: the request is on disk first, then the engine's word is awaited for a moment.

use super::{
    domain::{Entry, Error as Refused, pricing},
    gate,
    place::Core,
    store::{
        self, Replace,
        commands::{self, Done, Op},
    },
    watch::{EngineRefusal, Progress},
};
use fafnir_platform::error::{Error, Result};
use fafnir_proto::{
    id::{OrderId, UserId},
    reason::Reason,
    v1::{Instrument, Order, OrderState, PendingAction, ReplaceOrderRequest},
};
use fafnir_rules::{check::Terms, order::OrderType};
use std::time::Duration;

/// How long the engine's word is awaited (architecture.md §6).
const WORD_WAIT: Duration = Duration::from_secs(1);

impl Core {
    /// The user's order as it is.
    pub async fn order_of(&self, user: UserId, id: &str) -> Result<Entry> {
        let id = order_id(id)?;
        let found = self.db.read(move |tx| Ok(store::order_of(tx, &user, &id)?)).await?;
        found.ok_or_else(|| commands::unknown().into())
    }

    /// Asks for an order to end; answers it as it then is.
    pub async fn cancel(&self, user: UserId, id: &str) -> Result<Order> {
        let id = order_id(id)?;
        let mut watcher = self.watchers.watch(&id);
        let done = self.gate.run(Op::Cancel { user, id: id.clone() }).await??;
        let Done::Order(requested) = done else {
            return Err(Error::internal("the gate answered another question"));
        };
        let settled = |progress: &Progress| {
            progress.order.state().has_ended() || matches!(progress.refused, Some(EngineRefusal::Cancel(_)))
        };
        let Some(Progress { order, refused }) = watcher.wait(WORD_WAIT, settled).await else {
            return Ok(requested);
        };
        match (order.state(), refused) {
            (OrderState::Filled, _) => Err(commands::ended(&order, "canceled").into()),
            (state, Some(EngineRefusal::Cancel(code))) if !state.has_ended() => {
                let text = format!("the engine refused to cancel order {id}: {code}");
                Err(Refused::precondition(Reason::CANCEL_REJECTED, text).into())
            }
            _ => Ok(order),
        }
    }

    /// Asks for every open order of a user (in a symbol) to end; answers how many there are.
    pub async fn cancel_all(&self, user: UserId, symbol: String) -> Result<u32> {
        match self.gate.run(Op::CancelAll { user, symbol }).await?? {
            Done::Requested(orders) => {
                self.updates.mark(&user.to_string());
                Ok(orders)
            }
            Done::Order(_) | Done::CanceledEarly(_) => {
                Err(Error::internal("the gate answered another question"))
            }
        }
    }

    /// Asks for every open order in a symbol to end, whoever's; answers how many there are.
    pub async fn cancel_symbol(&self, symbol: String) -> Result<u32> {
        let of = symbol.clone();
        let users = self.db.read(move |tx| Ok(store::users_with_open_orders(tx, &of)?)).await?;
        let mut requested = 0u32;
        for user in users {
            requested = requested.saturating_add(self.cancel_all(user, symbol.clone()).await?);
        }
        Ok(requested)
    }

    /// Changes an open order: the extra hold first, then the engine.
    pub async fn replace(&self, user: UserId, request: &ReplaceOrderRequest) -> Result<Order> {
        self.admit()?;
        let id = order_id(&request.order_id)?;
        let mut watcher = self.watchers.watch(&id);
        let mut entry = self.order_of(user, &id).await?;
        if entry.order.state() == OrderState::PendingNew {
            let arrived = |progress: &Progress| progress.order.state() != OrderState::PendingNew;
            if watcher.wait(WORD_WAIT, arrived).await.is_some() {
                entry = self.order_of(user, &id).await?;
            }
        }
        commands::replaceable(&entry.order, request.version)?;
        let instrument = self
            .market
            .instrument(&entry.order.symbol)
            .ok_or_else(|| Error::internal("an order is in an unknown symbol"))?;
        let replace = replacement(&entry, request, &instrument, self.market.reference(&instrument))?;
        let (stored, now_us) = (replace.clone(), self.ctx.clock.now_us());
        let begun =
            self.db.write(move |tx| Ok(commands::replace_begin(tx, &user, &stored, now_us)?)).await??;
        gate::mark(&self.updates, &begun);
        match self.finish_replace(&entry, &replace).await {
            Ok(order) if order.pending() == PendingAction::Cancel => {
                let text = format!("order {id} stands as it was: a cancel came first");
                return Err(Refused::precondition(Reason::REPLACE_REJECTED, text).into());
            }
            Ok(_) => {}
            // It is on disk and goes on by itself.
            Err(e) if e.is_transient() => {
                tracing::warn!(order = id, error = %e, "the replace waits for its hold");
                return Ok(begun);
            }
            Err(e) => return Err(e),
        }
        let settled = |progress: &Progress| {
            progress.order.state().has_ended()
                || progress.order.version >= replace.version
                || matches!(progress.refused, Some(EngineRefusal::Replace(_)))
        };
        let Some(progress) = watcher.wait(WORD_WAIT, settled).await else { return Ok(begun) };
        if progress.order.version >= replace.version {
            return Ok(progress.order);
        }
        if progress.order.state().has_ended() {
            return Err(commands::ended(&progress.order, "replaced").into());
        }
        let code = match progress.refused {
            Some(EngineRefusal::Replace(code)) => code,
            _ => String::new(),
        };
        let why = match Reason::known(&code) {
            Some(Reason::BELOW_FILLED) => "the quantity is not above what is already filled",
            Some(Reason::POST_ONLY_WOULD_CROSS) => "it is post-only, and the new price would trade at once",
            Some(Reason::NOT_REPLACEABLE) => "this field of this order cannot be changed",
            Some(Reason::SYMBOL_HALTED) => "trading in the symbol is halted",
            _ => code.as_str(),
        };
        Err(Refused::precondition(Reason::REPLACE_REJECTED, format!("order {id} stands as it was: {why}"))
            .into())
    }
}

/// Reads an order id.
pub fn order_id(text: &str) -> Result<String, Refused> {
    OrderId::parse(text)
        .map(|id| id.to_string())
        .map_err(|_| Refused::invalid(Reason::ID_MALFORMED, "order_id must be a UUID"))
}

/// What a replace makes of an order, checked like a new one.
fn replacement(
    entry: &Entry,
    r: &ReplaceOrderRequest,
    instrument: &Instrument,
    reference: Option<i64>,
) -> Result<Replace, Refused> {
    let o = &entry.order;
    if r.quantity_e4 == 0 && r.price_e4 == 0 && r.stop_price_e4 == 0 {
        return Err(Refused::invalid(
            Reason::NOTHING_TO_REPLACE,
            "quantity, price or stop_price must be given to replace an order",
        ));
    }
    if r.price_e4 < 0 {
        return Err(Refused::invalid(Reason::PRICE_NOT_POSITIVE, "price must be above 0"));
    }
    if r.stop_price_e4 < 0 {
        return Err(Refused::invalid(Reason::STOP_PRICE_NOT_POSITIVE, "stop_price must be above 0"));
    }
    let (Some(side), Some(order_type)) = (o.side().known(), o.r#type().known()) else {
        return Err(Refused::invalid(Reason::SIDE_UNKNOWN, format!("order {} has no side or type", o.id)));
    };
    if r.price_e4 != 0 && !order_type.has_price() {
        return Err(Refused::invalid(
            Reason::PRICE_NOT_ALLOWED,
            format!("price must not be given: a {order_type} order has none"),
        ));
    }
    if r.stop_price_e4 != 0 && !order_type.has_stop() {
        return Err(Refused::invalid(
            Reason::STOP_PRICE_NOT_ALLOWED,
            format!("stop_price must not be given: it cannot be changed in a {order_type} order"),
        ));
    }
    if r.stop_price_e4 != 0 && o.state() != OrderState::Held {
        return Err(Refused::precondition(
            Reason::STOP_TRIGGERED,
            format!("stop_price cannot be changed: the stop of order {} was triggered", o.id),
        ));
    }
    pricing::open(instrument)?;
    let quantity_e4 = if r.quantity_e4 == 0 { o.quantity_e4 } else { r.quantity_e4 };
    pricing::quantity(quantity_e4, o.filled_e4, o.display_quantity_e4, instrument)?;
    if quantity_e4 <= o.filled_e4 {
        return Err(Refused::precondition(
            Reason::BELOW_FILLED,
            format!(
                "quantity must be above the {} already filled",
                fafnir_rules::money::format_e4(o.filled_e4)
            ),
        ));
    }
    // Only what changes is checked against tick and band.
    let mut cap_price_e4 = entry.cap_price_e4;
    if r.price_e4 != 0 {
        let terms = Terms::Limit { price_e4: r.price_e4 };
        cap_price_e4 = pricing::terms(side, terms, instrument, reference)?.cap_e4;
    }
    if r.stop_price_e4 != 0 {
        let terms = Terms::Stop { stop_e4: r.stop_price_e4 };
        let priced = pricing::terms(side, terms, instrument, reference)?;
        if order_type == OrderType::Stop {
            cap_price_e4 = priced.cap_e4;
        }
    }
    pricing::size(cap_price_e4, quantity_e4, instrument)?;
    Ok(Replace {
        order_id: o.id.clone(),
        version: o.version.saturating_add(1),
        quantity_e4,
        price_e4: r.price_e4,
        stop_price_e4: r.stop_price_e4,
        cap_price_e4,
        sent: false,
    })
}
