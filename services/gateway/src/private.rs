//! A user's own orders, fills and positions as they change: first what was missed, then live, without gap or repeat.
//!
//! Live updates come from the facts themselves. Whatever the live feed skips is asked for by sequence from the service
//! that keeps it, and every [`RECONCILE`] the tail is asked for as well.

use super::{
    Gateway,
    feeds::Update,
    session::{Permission, Session, Watch},
};
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, v1};
use futures::Stream;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time};
use tonic::Status;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Time between two questions for what the live feed may have lost.
const RECONCILE: Duration = Duration::from_secs(10);
/// Updates that wait for a slow client; more wait in their owners' tables.
const BUFFER: usize = 256;
/// Updates asked for at a time.
const PAGE: u32 = 500;
/// Orders of a page of the snapshot that replaces updates which are no longer kept.
const SNAPSHOT_PAGE: u32 = 500;
/// Pages of open orders in a snapshot, at most.
const SNAPSHOT_PAGES_MAX: usize = 100;

/// Where a stream of updates starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Not wanted.
    Never,
    /// With the next change.
    Now,
    /// With everything after this sequence.
    After(u64),
}

/// What a private stream carries.
///
/// Where the updates after the client's sequence are no longer kept, a snapshot comes in their place, all of it marked
/// `reset`: what there is, with the client's own sequence, so that a client that is cut off within it gets it again; then
/// an update of nothing, with the sequence to go on from.
#[derive(Debug, Clone)]
pub enum Event {
    Order { update: Box<v1::OrderUpdate>, reset: bool },
    Portfolio { update: Box<v1::PortfolioUpdate>, reset: bool },
    Heartbeat(v1::Heartbeat),
}

/// What a receiver gets, as a stream.
pub fn stream<T>(mut receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// Starts a stream. It ends with a status when the session does, and when the receiver is dropped.
pub fn updates(
    gateway: Arc<Gateway>,
    session: Session,
    orders: Start,
    portfolio: Start,
) -> mpsc::Receiver<Result<Event, Status>> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let tasks = gateway.ctx.tasks.clone();
    tasks.spawn_until_shutdown("private updates", async move {
        let mut feed = Feed { gateway, session, sender, orders: None, portfolio: None };
        if let Err(status) = feed.run(orders, portfolio).await {
            // The receiver may be gone: then nobody needs the reason.
            drop(feed.sender.send(Err(status)).await);
        }
        Ok::<(), Status>(())
    });
    receiver
}

struct Feed {
    gateway: Arc<Gateway>,
    session: Session,
    sender: mpsc::Sender<Result<Event, Status>>,
    /// Last sequence that was sent.
    orders: Option<u64>,
    portfolio: Option<u64>,
}

/// The receiver was dropped.
fn gone() -> Status {
    Status::cancelled("the client left")
}

impl Feed {
    async fn run(&mut self, orders: Start, portfolio: Start) -> Result<(), Status> {
        // Opened before asking: nothing falls between the question and the live feed.
        let mut inlet = self.gateway.feeds.open(self.session.user);
        self.orders = self.first(orders, Kind::Orders).await?;
        self.portfolio = self.first(portfolio, Kind::Portfolio).await?;
        // `false` while an owner cannot be asked: no heartbeat then, so that the client sees the feed go stale.
        let mut whole = self.catch_up().await?;
        let mut heartbeat = time::interval_at(time::Instant::now(), HEARTBEAT);
        let mut reconcile = time::interval_at(time::Instant::now() + RECONCILE, RECONCILE);
        let mut watch = Watch::new(&self.gateway, &self.session, self.needs());
        for timer in [&mut heartbeat, &mut reconcile] {
            timer.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                () = self.sender.closed() => return Ok(()),
                status = watch.ended() => return Err(status),
                _ = reconcile.tick() => whole = self.catch_up().await?,
                _ = heartbeat.tick() => {
                    if !whole {
                        whole = self.catch_up().await?;
                    }
                    if whole {
                        let notice = self.gateway.notice.read().clone();
                        self.send(Event::Heartbeat(v1::Heartbeat {
                            time_us: self.gateway.ctx.clock.now_us(),
                            order_seq: self.orders.unwrap_or(0),
                            portfolio_seq: self.portfolio.unwrap_or(0),
                            notice: notice.text,
                            limited: notice.limited,
                        })).await?;
                    }
                }
                () = inlet.missed.notified() => whole = self.catch_up().await?,
                update = inlet.updates.recv() => {
                    let update = update.ok_or_else(feed_ended)?;
                    if !self.take(update).await? {
                        whole = self.catch_up().await?;
                    }
                }
            }
        }
    }

    /// Sends what comes next. `false`: something before it is missing.
    async fn take(&mut self, update: Update) -> Result<bool, Status> {
        let (last, seq) = match &update {
            Update::Order(update) => (self.orders, update.user_seq),
            Update::Portfolio(update) => (self.portfolio, update.user_seq),
        };
        match (last, update) {
            (Some(last), _) if seq > last + 1 => return Ok(false),
            (Some(last), Update::Order(update)) if seq > last => self.order(update).await?,
            (Some(last), Update::Portfolio(update)) if seq > last => self.position(update).await?,
            // Sent before, or not wanted.
            _ => {}
        }
        Ok(true)
    }

    async fn send(&self, event: Event) -> Result<(), Status> {
        self.sender.send(Ok(event)).await.map_err(|_| gone())
    }

    async fn order(&mut self, update: v1::OrderUpdate) -> Result<(), Status> {
        self.orders = Some(update.user_seq);
        // A fill is told with its order; one alone is nobody's who is bound to an account.
        let is_reached = match &update.order {
            Some(order) => self.session.reaches(&order.account_id),
            None => update.fill.is_none() || self.session.bound_to().is_none(),
        };
        if !is_reached {
            return Ok(());
        }
        self.send(Event::Order { update: Box::new(update), reset: false }).await
    }

    async fn position(&mut self, update: v1::PortfolioUpdate) -> Result<(), Status> {
        self.portfolio = Some(update.user_seq);
        let account = update.account.as_ref().map(|a| &a.id);
        let holding = update.holding.as_ref().map(|h| &h.account_id);
        if account.or(holding).is_some_and(|id| !self.session.reaches(id)) {
            return Ok(());
        }
        self.send(Event::Portfolio { update: Box::new(update), reset: false }).await
    }

    /// What the user must be allowed for as long as the stream lasts.
    fn needs(&self) -> Vec<Permission> {
        let orders = self.orders.map(|_| Permission::OrderStocks);
        let portfolio = self.portfolio.map(|_| Permission::ManageOwnPortfolio);
        orders.into_iter().chain(portfolio).collect()
    }

    async fn first(&self, start: Start, kind: Kind) -> Result<Option<u64>, Status> {
        Ok(match start {
            Start::Never => None,
            Start::After(seq) => Some(seq),
            Start::Now => Some(match kind {
                Kind::Orders => self.order_page(0, 1).await?.last_seq,
                Kind::Portfolio => self.portfolio_page(0, 1).await?.last_seq,
            }),
        })
    }

    async fn order_page(&self, after_seq: u64, limit: u32) -> Result<v1::UpdatesSinceReply, Status> {
        let request = v1::UpdatesSinceRequest { user_id: self.session.user.to_string(), after_seq, limit };
        let mut client = self.gateway.reads(&self.session).await.order(&self.session.caller());
        Ok(client.updates_since(request).await?.into_inner())
    }

    async fn portfolio_page(&self, after_seq: u64, limit: u32) -> Result<v1::PortfolioUpdatesReply, Status> {
        let request = v1::UpdatesSinceRequest { user_id: self.session.user.to_string(), after_seq, limit };
        let mut client = self.gateway.reads(&self.session).await.portfolio(&self.session.caller());
        Ok(client.updates_since(request).await?.into_inner())
    }

    /// Sends everything after the last sequences. `false`: an owner could not be asked, it stays behind.
    async fn catch_up(&mut self) -> Result<bool, Status> {
        let results = [self.catch_up_orders().await, self.catch_up_portfolio().await];
        let mut whole = true;
        for result in results {
            match result {
                Ok(()) => {}
                Err(status) if status.code() == tonic::Code::Cancelled && self.sender.is_closed() => {
                    return Err(status);
                }
                Err(status) => {
                    tracing::warn!(code = ?status.code(), cause = status.message(), "private updates stay behind");
                    whole = false;
                }
            }
        }
        Ok(whole)
    }

    async fn catch_up_orders(&mut self) -> Result<(), Status> {
        while let Some(last) = self.orders {
            let page = self.order_page(last, PAGE).await?;
            if page.reset {
                return self.order_snapshot(last).await;
            }
            let empty = page.updates.is_empty();
            for update in page.updates {
                if self.orders.is_some_and(|last| update.user_seq > last) {
                    self.order(update).await?;
                }
            }
            if empty || !page.more {
                break;
            }
        }
        Ok(())
    }

    async fn catch_up_portfolio(&mut self) -> Result<(), Status> {
        while let Some(last) = self.portfolio {
            let page = self.portfolio_page(last, PAGE).await?;
            if page.reset {
                return self.portfolio_snapshot(last, page.last_seq).await;
            }
            let empty = page.updates.is_empty();
            for update in page.updates {
                if self.portfolio.is_some_and(|last| update.user_seq > last) {
                    self.position(update).await?;
                }
            }
            if empty || !page.more {
                break;
            }
        }
        Ok(())
    }

    /// The updates after the client's sequence `last` are no longer kept: the newest orders as they now are and every
    /// open one, then the sequence that they include at least.
    async fn order_snapshot(&mut self, last: u64) -> Result<(), Status> {
        let user_id = self.session.user.to_string();
        let newest = self.order_list(String::new(), false).await?;
        let user_seq = newest.user_seq;
        let mut orders = newest.orders;
        // The list is by id, newest first: open orders that are older than its last one are asked for.
        for _ in 0..SNAPSHOT_PAGES_MAX {
            let Some(oldest) = orders.last() else { break };
            let page = self.order_list(oldest.id.clone(), true).await?.orders;
            let is_last = page.len() < SNAPSHOT_PAGE as usize;
            orders.extend(page);
            if is_last {
                break;
            }
        }
        let update =
            |user_seq, order| v1::OrderUpdate { user_id: user_id.clone(), user_seq, order, fill: None };
        for order in orders.into_iter().rev() {
            let update = Box::new(update(last, Some(order)));
            self.send(Event::Order { update, reset: true }).await?;
        }
        self.orders = Some(user_seq);
        self.send(Event::Order { update: Box::new(update(user_seq, None)), reset: true }).await
    }

    async fn order_list(&self, before_id: String, open_only: bool) -> Result<v1::ListOrdersReply, Status> {
        let request = v1::ListOrdersRequest {
            user_id: self.session.user.to_string(),
            limit: SNAPSHOT_PAGE,
            before_id,
            open_only,
            account_id: self.session.bound_to().unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let mut client = self.gateway.reads(&self.session).await.order(&self.session.caller());
        Ok(client.list(request).await?.into_inner())
    }

    /// The same for accounts and holdings, which are asked for after `seq` and so include it.
    async fn portfolio_snapshot(&mut self, last: u64, seq: u64) -> Result<(), Status> {
        let user_id = self.session.user.to_string();
        let update =
            |user_seq| v1::PortfolioUpdate { user_id: user_id.clone(), user_seq, ..Default::default() };
        let reset = |update| Event::Portfolio { update: Box::new(update), reset: true };
        let mut client = self.gateway.reads(&self.session).await.portfolio(&self.session.caller());
        let accounts = client.list_accounts(v1::UserRequest { user_id: user_id.clone() }).await?.into_inner();
        for account in accounts.accounts.into_iter().filter(|a| self.session.reaches(&a.id)) {
            let request = v1::AccountRequest { user_id: user_id.clone(), account_id: account.id.clone() };
            let holdings = client.holdings(request).await?.into_inner().holdings;
            self.send(reset(v1::PortfolioUpdate { account: Some(account), ..update(last) })).await?;
            for holding in holdings {
                self.send(reset(v1::PortfolioUpdate { holding: Some(holding), ..update(last) })).await?;
            }
        }
        self.portfolio = Some(seq);
        self.send(reset(update(seq))).await
    }
}

enum Kind {
    Orders,
    Portfolio,
}

fn feed_ended() -> Status {
    Refusal::unavailable(Reason::BUS_ENDED, "the feed of updates ended; connect again").into()
}
