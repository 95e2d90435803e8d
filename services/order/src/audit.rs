//! The whole read model at one position: against the core's open orders there, and against what the facts tell.

mod recount;

use super::{
    domain::changes::{ChangedOrder, Changes},
    orders::Orders,
    store::{
        self,
        audit::{OrderRow, Stored},
    },
};
use fafnir_platform::{
    Context,
    checks::{self, Check, digest, facts_after, facts_begin, patient},
    error::{Error, Result},
    tasks::Schedule,
};
use fafnir_proto::v1::{AuditCheck, Fact, OpenOrdersRequest, Order, OrderAuditReply};
use prost::Message as _;
pub use recount::Recount;
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
fn order_digest(order: &Order) -> u64 {
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

/// What the facts tell of the rows, and what of them was compared already: fills and events come in the order of the
/// facts, so each is looked at once and forgotten.
#[derive(Debug)]
struct Told {
    orders: HashMap<Uuid, OrderRow>,
    /// How many of the stored fills and events were passed.
    fills_done: usize,
    events_done: usize,
    /// Fills that are not there, and their orders.
    missing: Vec<(i64, Uuid)>,
    fills: Check,
    events: Check,
    /// Digest of user and client order id → digest of what it stands for, and its order.
    clients: HashMap<u64, (u64, Uuid)>,
}

/// Passes rows up to an id, which no fact tells of; answers the digest of that one.
fn pass(rows: &[(i64, u64)], done: &mut usize, id: i64, mut untold: impl FnMut(i64)) -> Option<u64> {
    while let Some((row, digest)) = rows.get(*done).copied().filter(|(row, _)| *row <= id) {
        *done += 1;
        if row == id {
            return Some(digest);
        }
        untold(row);
    }
    None
}

impl Told {
    /// Nothing yet: the facts behind `begins` follow.
    fn new(begins: u64, stored: &Stored) -> Self {
        let before = |rows: &[(i64, u64)]| rows.partition_point(|(id, _)| !is_behind(*id, begins));
        Self {
            orders: HashMap::new(),
            fills_done: before(&stored.fills),
            events_done: before(&stored.events),
            missing: Vec::new(),
            fills: Check::new("every fill is what the facts tell"),
            events: Check::new("every private update of orders is what the facts tell"),
            clients: HashMap::new(),
        }
    }

    fn page(&mut self, from: u64, facts: Vec<Fact>, stored: &Stored) -> Result<u64> {
        let changes = Changes::read(from, facts).map_err(|e| Error::internal(e.to_string()))?;
        for changed in changes.orders {
            self.order(&changed);
        }
        for f in changes.fills {
            let check = &mut self.fills;
            let untold = |id| check.find(format!("fill {id}, of which no fact tells"));
            match pass(&stored.fills, &mut self.fills_done, f.id, untold) {
                Some(row) => {
                    let told = store::audit::fill_digest(f.user.uuid(), f.order, f.exec_seq, &f.fill);
                    self.fills.look(row == told, || format!("fill {} of order {}", f.id, f.order));
                }
                None => self.missing.push((f.id, f.order)),
            }
        }
        for e in changes.events {
            let (user, seq, check) = (e.user.uuid(), e.update.user_seq, &mut self.events);
            let untold = |id| check.find(format!("update {id}, of which no fact tells"));
            let row = pass(&stored.events, &mut self.events_done, e.id, untold);
            let body = e.update.encode_to_vec();
            let told = store::audit::event_digest(user, seq, e.kind.into(), e.order, &body);
            self.events.look(row == Some(told), || format!("update {seq} of user {user}"));
        }
        for c in changes.client_orders {
            let key = store::audit::client_digest(c.user.uuid(), &c.client_order_id);
            self.clients.insert(key, (digest(&c.payload), c.order));
        }
        Ok(changes.to)
    }

    fn order(&mut self, changed: &ChangedOrder) {
        let before = self.orders.get(&changed.id).copied().unwrap_or_default();
        let ended_us = changed.ended_us();
        let symbol = &changed.order.symbol;
        let user = changed.user.uuid();
        let row = OrderRow {
            columns: store::audit::columns_digest(user, symbol, changed.is_agents(), ended_us),
            body: order_digest(&changed.order),
            is_agents: changed.is_agents(),
            has_ended: ended_us != 0,
            first_fill: if before.first_fill == 0 { changed.first_fill } else { before.first_fill },
            last_fill: if changed.last_fill == 0 { before.last_fill } else { changed.last_fill },
            first_seq: if before.first_seq == 0 { changed.first_seq } else { before.first_seq },
            last_seq: if changed.last_seq == 0 { before.last_seq } else { changed.last_seq },
            // An order of before the log: what it had first may be too.
            is_whole: changed.is_new || before.is_whole,
        };
        self.orders.insert(changed.id, row);
    }

    /// Everything that was found, up to where the rows stand.
    fn compare(mut self, begins: u64, stored: &mut Stored) -> Vec<Check> {
        for (id, _) in stored.fills.iter().skip(self.fills_done) {
            self.fills.find(format!("fill {id}, of which no fact tells"));
        }
        for (id, _) in stored.events.iter().skip(self.events_done) {
            self.events.find(format!("update {id}, of which no fact tells"));
        }
        for (id, order) in std::mem::take(&mut self.missing) {
            let gone = self.may_be_gone(order, stored);
            self.fills.look(gone, || format!("fill {id} of order {order}"));
        }
        let orders = self.orders(begins, stored);
        let clients = self.clients(begins, stored);
        let recount = std::mem::take(&mut stored.recount);
        let counted = recount.checks(|id| self.orders.get(id).is_some_and(|o| o.is_whole));
        [orders, self.fills, self.events, clients].into_iter().chain(counted).collect()
    }

    /// Ended orders of agents go after a while, and theirs with them.
    fn may_be_gone(&self, order: Uuid, stored: &Stored) -> bool {
        !stored.orders.contains_key(&order)
            && self.orders.get(&order).is_some_and(|o| o.is_agents && o.has_ended)
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

    fn clients(&self, begins: u64, stored: &Stored) -> Check {
        let mut check = Check::new("every client order id stands for its order");
        for (key, told) in &self.clients {
            let fits = match stored.clients.get(key) {
                Some(row) => row == told,
                None => self.may_be_gone(told.1, stored),
            };
            check.look(fits, || format!("client order id of order {}", told.1));
        }
        if begins == 0 {
            let untold = stored.clients.iter().filter(|(key, _)| !self.clients.contains_key(*key));
            for (_, (_, order)) in untold {
                check.find(format!("a client order id of order {order}, of which no fact tells"));
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
        let mut stored = self.db.read(move |tx| Ok(store::audit::stored(tx, whole)?)).await?;
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
            let (mut told, mut after) = (Told::new(begins, &stored), begins);
            while after < stored.position {
                let facts = facts_after(&self.ctx, after, stored.position).await?;
                after = told.page(after, facts, &stored)?;
            }
            found.extend(told.compare(begins, &mut stored));
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
            let page = engine.open_orders(patient(request)).await?.into_inner();
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
    let rows: BTreeMap<&Uuid, &OrderRow> = stored.orders.iter().filter(|(_, row)| !row.has_ended).collect();
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
