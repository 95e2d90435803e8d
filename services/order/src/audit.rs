//! The whole read model at one position: against the core's open orders there, and against what the facts tell.

use super::{
    domain::changes::{ChangedOrder, Changes},
    orders::Orders,
    store::{
        self,
        audit::{ClientKey, OrderRow, Stored},
    },
};
use fafnir_platform::{
    Context,
    checks::{self, Check, digest, facts_after, facts_begin},
    error::{Error, Result},
    tasks::Schedule,
};
use fafnir_proto::v1::{AuditCheck, Fact, OpenOrdersRequest, Order, OrderAuditReply};
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// Open orders asked for at once.
const PAGE: u32 = 1_000;
/// How often the open orders are looked at for the metrics; everything once a day.
const EVERY: Duration = Duration::from_mins(1);
const WHOLE_EVERY: u32 = 24 * 60;

/// The digest of an order as its row should have it.
pub fn order_digest(order: &Order) -> u64 {
    let mut order = order.clone();
    order.id.clear();
    order.user_id.clear();
    order.fills.clear();
    digest(&order.encode_to_vec())
}

/// The core's open orders: read page by page, then brought to a position by the facts in between.
#[derive(Debug, Default)]
struct Open {
    /// Last order and position of each page; the last one reaches to the end.
    pages: Vec<(Uuid, u64)>,
    orders: HashMap<Uuid, u64>,
}

impl Open {
    fn span(&self) -> (u64, u64) {
        let positions = || self.pages.iter().map(|(_, position)| *position);
        (positions().min().unwrap_or(0), positions().max().unwrap_or(0))
    }

    fn read_at(&self, order: Uuid) -> u64 {
        self.pages.iter().find(|(last, _)| order <= *last).map_or(0, |(_, position)| *position)
    }

    fn fact(&mut self, fact: &Fact) {
        for order in fact.orders.iter().filter_map(|update| update.order.as_ref()) {
            let Ok(id) = Uuid::parse_str(&order.id) else { continue };
            if fact.position <= self.read_at(id) {
                continue;
            }
            if order.state().is_open() {
                self.orders.insert(id, order_digest(order));
            } else {
                self.orders.remove(&id);
            }
        }
    }
}

/// What the facts tell of the rows.
#[derive(Debug, Default)]
struct Told {
    orders: HashMap<Uuid, OrderRow>,
    /// Row → digest, and the order that it belongs to.
    fills: HashMap<i64, (u64, Uuid)>,
    /// Row → digest, user and number.
    events: HashMap<i64, (u64, Uuid, u64)>,
    last_events: HashMap<Uuid, u64>,
    clients: HashMap<ClientKey, (u64, Uuid)>,
}

impl Told {
    fn page(&mut self, from: u64, facts: Vec<Fact>) -> Result<u64> {
        let changes = Changes::read(from, facts).map_err(|e| Error::internal(e.to_string()))?;
        for changed in changes.orders {
            self.order(&changed);
        }
        for f in changes.fills {
            self.fills.insert(
                f.id,
                (store::audit::fill_digest(f.user.uuid(), f.order, f.exec_seq, &f.fill), f.order),
            );
        }
        for e in changes.events {
            let (user, seq) = (e.user.uuid(), e.update.user_seq);
            self.last_events.insert(user, seq);
            self.events.insert(e.id, (digest(&e.update.encode_to_vec()), user, seq));
        }
        for c in changes.client_orders {
            self.clients.insert((c.user.uuid(), c.client_order_id), (digest(&c.payload), c.order));
        }
        Ok(changes.to)
    }

    fn order(&mut self, changed: &ChangedOrder) {
        let before = self.orders.get(&changed.id);
        let first_fill = before.map(|o| o.first_fill).filter(|fill| *fill != 0).unwrap_or(changed.first_fill);
        let last_fill =
            if changed.last_fill == 0 { before.map_or(0, |o| o.last_fill) } else { changed.last_fill };
        let row = OrderRow {
            user: changed.user.uuid(),
            symbol: changed.order.symbol.clone(),
            agent: changed.is_agents(),
            ended_us: changed.ended_us(),
            first_fill,
            last_fill,
            body: order_digest(&changed.order),
            // An order of before the log: its first fill may be too.
            is_whole: changed.is_new || before.is_some_and(|o| o.is_whole),
        };
        self.orders.insert(changed.id, row);
    }

    fn compare(&self, begins: u64, stored: &Stored) -> Vec<Check> {
        vec![
            self.orders(begins, stored),
            self.fills(begins, stored),
            self.events(begins, stored),
            self.clients(begins, stored),
        ]
    }

    /// Ended orders of agents go after a while, and theirs with them.
    fn may_be_gone(&self, order: Uuid, stored: &Stored) -> bool {
        !stored.orders.contains_key(&order)
            && self.orders.get(&order).is_some_and(|o| o.agent && o.ended_us > 0)
    }

    fn orders(&self, begins: u64, stored: &Stored) -> Check {
        let mut check = Check::new("every order is what the facts tell");
        for (id, told) in &self.orders {
            let fits = match stored.orders.get(id) {
                Some(row) => row.is(told),
                None => self.may_be_gone(*id, stored),
            };
            check.look(fits, || format!("order {id}"));
        }
        if begins == 0 {
            for id in stored.orders.keys().filter(|id| !self.orders.contains_key(*id)) {
                check.find(format!("order {id}, of which no fact tells"));
            }
        }
        check
    }

    fn fills(&self, begins: u64, stored: &Stored) -> Check {
        let mut check = Check::new("every fill is what the facts tell");
        for (id, (told, order)) in &self.fills {
            let fits = match stored.fills.get(id) {
                Some(row) => row == told,
                None => self.may_be_gone(*order, stored),
            };
            check.look(fits, || format!("fill {id} of order {order}"));
        }
        for id in stored.fills.keys().filter(|id| is_behind(**id, begins) && !self.fills.contains_key(*id)) {
            check.find(format!("fill {id}, of which no fact tells"));
        }
        check
    }

    fn events(&self, begins: u64, stored: &Stored) -> Check {
        let mut check = Check::new("every private update of orders is what the facts tell");
        for (id, (told, user, seq)) in &self.events {
            let last = self.last_events.get(user).copied().unwrap_or(0);
            let fits = match stored.events.get(id) {
                Some(row) => row == told,
                None => seq + store::UPDATES_KEPT <= last,
            };
            check.look(fits, || format!("update {seq} of user {user}"));
        }
        for id in stored.events.keys().filter(|id| is_behind(**id, begins) && !self.events.contains_key(*id))
        {
            check.find(format!("update {id}, of which no fact tells"));
        }
        check
    }

    fn clients(&self, begins: u64, stored: &Stored) -> Check {
        let mut check = Check::new("every client order id stands for its order");
        for ((user, key), told) in &self.clients {
            let fits = match stored.clients.get(&(*user, key.clone())) {
                Some(row) => row == told,
                None => self.may_be_gone(told.1, stored),
            };
            check.look(fits, || format!("client order id {key:?} of user {user}"));
        }
        if begins == 0 {
            for (user, key) in stored.clients.keys().filter(|key| !self.clients.contains_key(*key)) {
                check.find(format!("client order id {key:?} of user {user}, of which no fact tells"));
            }
        }
        check
    }
}

/// Whether a row with an id by position is of a fact behind `begins`.
fn is_behind(id: i64, begins: u64) -> bool {
    u64::try_from(id / 16).is_ok_and(|position| position > begins)
}

impl Orders {
    /// The read model as it stands; with `whole` every row, else those of open orders.
    pub async fn audit(&self, whole: bool) -> Result<OrderAuditReply> {
        let mut open = self.open_of_core().await?;
        self.follower.wait(open.span().1).await?;
        let stored = self.db.read(move |tx| Ok(store::audit::stored(tx, whole)?)).await?;
        let mut after = open.span().0;
        while after < stored.position {
            let facts = facts_after(&self.ctx, after, stored.position).await?;
            for fact in &facts {
                open.fact(fact);
            }
            after = facts.last().map_or(stored.position, |fact| fact.position);
        }
        let mut found = vec![compare_open(&open, &stored)];
        if whole {
            let begins = facts_begin(&self.ctx).await?.max(stored.origin_at);
            let (mut told, mut after) = (Told::default(), begins);
            while after < stored.position {
                let facts = facts_after(&self.ctx, after, stored.position).await?;
                after = told.page(after, facts)?;
            }
            found.extend(told.compare(begins, &stored));
        }
        Ok(OrderAuditReply {
            position: stored.position,
            open_orders: stored.open_orders,
            checks: found.into_iter().map(Into::into).collect::<Vec<AuditCheck>>(),
        })
    }

    async fn open_of_core(&self) -> Result<Open> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let (mut open, mut after_id) = (Open::default(), String::new());
        loop {
            let request = OpenOrdersRequest { after_id, limit: PAGE, ..Default::default() };
            let page = engine.open_orders(request).await?.into_inner();
            let id = |order: &Order| Uuid::parse_str(&order.id).unwrap_or_default();
            let last = page.orders.last().map(id).filter(|_| page.more);
            open.pages.push((last.unwrap_or(Uuid::max()), page.position));
            open.orders.extend(page.orders.iter().map(|order| (id(order), order_digest(order))));
            match last {
                Some(last) => after_id = last.to_string(),
                None => return Ok(open),
            }
        }
    }
}

fn compare_open(open: &Open, stored: &Stored) -> Check {
    let mut check = Check::new("the open orders are the core's");
    let rows: BTreeMap<&Uuid, &OrderRow> =
        stored.orders.iter().filter(|(_, row)| row.ended_us == 0).collect();
    for (id, core) in &open.orders {
        check.look(rows.get(id).is_some_and(|row| row.body == *core), || format!("order {id}"));
    }
    for id in rows.keys().filter(|id| !open.orders.contains_key(**id)) {
        check.find(format!("order {id}, which the core does not have open"));
    }
    let counted = open.orders.len() as u64;
    check.look(counted == stored.open_orders, || {
        format!("{} are counted, {counted} are open", stored.open_orders)
    });
    check
}

/// Audits for the metrics: a finding is an error.
pub fn spawn(ctx: &Context, orders: Orders) {
    let mut turns = 0_u32;
    ctx.tasks.every("audit of the orders", Schedule::after(EVERY), move || {
        let orders = orders.clone();
        let whole = turns.is_multiple_of(WHOLE_EVERY);
        turns = turns.wrapping_add(1);
        async move {
            let reply = orders.audit(whole).await?;
            reply.checks.iter().for_each(|check| checks::publish(orders.ctx.service, check));
            Ok::<_, Error>(())
        }
    });
}
