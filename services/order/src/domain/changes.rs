//! What a batch of facts changes, each order once: as it is at the end of the batch.

use fafnir_platform::agents;
use fafnir_proto::{
    id::UserId,
    v1::{Fact, FactKind, Fill, Order, OrderUpdate},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Fills and events of a fact have the ids from this many times its position.
const IDS_PER_FACT: i64 = 16;

/// What the facts after `from`, up to `to`, change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    pub from: u64,
    pub to: u64,
    /// In the order of their ids.
    pub orders: Vec<ChangedOrder>,
    pub fills: Vec<NewFill>,
    pub events: Vec<Event>,
    pub client_orders: Vec<ClientOrder>,
    /// By how many open orders there are more.
    pub open_orders: i64,
}

/// An order at the end of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedOrder {
    pub user: UserId,
    pub id: Uuid,
    /// Its first fact is in the batch.
    pub is_new: bool,
    pub order: Order,
    /// Ids of its first and its last fill in the batch; 0: none.
    pub first_fill: i64,
    pub last_fill: i64,
    /// Sequences of its first and its last event in the batch; 0: none.
    pub first_seq: u64,
    pub last_seq: u64,
}

impl ChangedOrder {
    pub fn is_agents(&self) -> bool {
        agents::is_agent(self.user)
    }

    /// When it ended; 0 while it is open.
    pub fn ended_us(&self) -> i64 {
        if self.order.state().has_ended() { self.order.updated_us.max(1) } else { 0 }
    }
}

/// One side of a trade.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFill {
    pub id: i64,
    pub user: UserId,
    pub order: Uuid,
    pub exec_seq: u64,
    pub fill: Fill,
}

/// A person's private update.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: i64,
    pub user: UserId,
    pub order: Uuid,
    pub kind: FactKind,
    pub update: OrderUpdate,
}

/// A client order id that made an order.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientOrder {
    pub user: UserId,
    pub client_order_id: String,
    pub payload: Vec<u8>,
    pub order: Uuid,
}

/// A fact that cannot be: nothing after it can be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fact at position {position} is impossible: {what}")]
pub struct Impossible {
    pub position: u64,
    pub what: String,
}

impl Changes {
    /// Reads facts that follow `from` without a gap.
    pub fn read(from: u64, facts: Vec<Fact>) -> Result<Self, Impossible> {
        let mut changes = Self { from, to: from, ..Self::default() };
        let mut orders = BTreeMap::new();
        for fact in facts {
            let position = fact.position;
            let impossible = |what| Impossible { position, what };
            if position != changes.to + 1 {
                return Err(impossible(format!("it follows {}", changes.to)));
            }
            changes.to = position;
            changes.fact(&mut orders, fact).map_err(impossible)?;
        }
        changes.orders = orders.into_values().collect();
        Ok(changes)
    }

    fn fact(&mut self, orders: &mut BTreeMap<Uuid, ChangedOrder>, fact: Fact) -> Result<(), String> {
        let first_id = i64::try_from(fact.position).ok().and_then(|p| p.checked_mul(IDS_PER_FACT));
        let first_id = first_id.ok_or("its position is beyond what can be stored")?;
        let kind = fact.kind();
        let is_first = matches!(kind, FactKind::Accepted | FactKind::Rejected);
        if is_first && fact.orders.len() != 1 {
            return Err(format!("{} orders are new by it", fact.orders.len()));
        }
        for (id, update) in (first_id..first_id + IDS_PER_FACT).zip(fact.orders) {
            let order = update.order.as_ref().ok_or("an update has no order")?;
            let user = UserId::parse(&order.user_id).map_err(|e| format!("user_id {e}"))?;
            let order_id = id_of(&order.id)?;
            let changed = self.order(orders, user, order_id, order, is_first)?;
            if let Some(fill) = &update.fill {
                changed.last_fill = id;
                if changed.first_fill == 0 {
                    changed.first_fill = id;
                }
                let fill = fill.clone();
                self.fills.push(NewFill { id, user, order: order_id, exec_seq: fact.exec_seq, fill });
            }
            if update.user_seq > 0 {
                changed.last_seq = update.user_seq;
                if changed.first_seq == 0 {
                    changed.first_seq = update.user_seq;
                }
                self.events.push(Event { id, user, order: order_id, kind, update });
            }
        }
        if let Some(key) = fact.key.filter(|key| is_first && !key.key.is_empty()) {
            self.client_orders.push(ClientOrder {
                user: UserId::parse(&fact.user_id).map_err(|e| format!("user_id {e}"))?,
                client_order_id: key.key,
                payload: key.payload,
                order: id_of(fact.done.as_ref().map_or("", |done| &done.object_id))?,
            });
        }
        Ok(())
    }

    /// Takes the order as it is after a fact.
    fn order<'a>(
        &mut self,
        orders: &'a mut BTreeMap<Uuid, ChangedOrder>,
        user: UserId,
        id: Uuid,
        order: &Order,
        is_first: bool,
    ) -> Result<&'a mut ChangedOrder, String> {
        if !(0..=order.quantity_e4).contains(&order.filled_e4) {
            return Err(format!("{} of {} are filled of order {id}", order.filled_e4, order.quantity_e4));
        }
        let is_open = order.state().is_open();
        if is_open == order.state().has_ended() {
            return Err(format!("order {id} has no state"));
        }
        let was_open = match orders.get(&id) {
            Some(known) if is_first || known.user != user => {
                return Err(format!("order {id} was there before"));
            }
            Some(known) if known.order.state().has_ended() => return Err(format!("order {id} had ended")),
            Some(_) => true,
            None => !is_first,
        };
        self.open_orders += i64::from(is_open) - i64::from(was_open);
        let changed = orders.entry(id).or_insert_with(|| ChangedOrder {
            user,
            id,
            is_new: is_first,
            order: Order::default(),
            first_fill: 0,
            last_fill: 0,
            first_seq: 0,
            last_seq: 0,
        });
        changed.order.clone_from(order);
        changed.order.fills.clear();
        Ok(changed)
    }
}

fn id_of(text: &str) -> Result<Uuid, String> {
    Uuid::parse_str(text).map_err(|_| format!("order id {text:?} is no UUID"))
}
