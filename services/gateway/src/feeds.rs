//! Who is to be told of which facts: the private streams that are open here, by user.
//!
//! The gateway reads the stream of facts from its end and hands each user's updates on as they are. What a slow stream
//! has no room for, and what the bus lost, is not kept: the stream is told that it misses something, and asks for it.

use super::{Gateway, positions::Positions};
use fafnir_platform::bus;
use fafnir_proto::{
    id::UserId,
    v1::{Fact, FactBatch, OrderUpdate, PortfolioUpdate},
};
use parking_lot::Mutex;
use prost::Message as _;
use prost::bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, mpsc};

/// Updates that wait for one stream.
const BUFFER: usize = 256;

/// A user's update, as the fact carries it.
#[derive(Debug)]
pub enum Update {
    Order(OrderUpdate),
    Portfolio(PortfolioUpdate),
}

/// The open streams.
#[derive(Debug, Default)]
pub struct Feeds {
    by_user: Mutex<HashMap<UserId, Vec<Outlet>>>,
    next_id: AtomicU64,
    /// The last position that the bus brought; 0: unknown, nobody listens.
    last: AtomicU64,
}

#[derive(Debug)]
struct Outlet {
    id: u64,
    sender: mpsc::Sender<Update>,
    missed: Arc<Notify>,
}

/// One stream's end of it; it is off the list when this is dropped.
#[derive(Debug)]
pub struct Inlet {
    feeds: Arc<Feeds>,
    user: UserId,
    id: u64,
    pub updates: mpsc::Receiver<Update>,
    /// Something was not delivered.
    pub missed: Arc<Notify>,
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut by_user = self.feeds.by_user.lock();
        if let Some(outlets) = by_user.get_mut(&self.user) {
            outlets.retain(|outlet| outlet.id != self.id);
            if outlets.is_empty() {
                by_user.remove(&self.user);
            }
        }
    }
}

impl Feeds {
    /// Opens a stream of a user's updates; from here on nothing is missed silently.
    pub fn open(self: &Arc<Self>, user: UserId) -> Inlet {
        let (sender, updates) = mpsc::channel(BUFFER);
        let (id, missed) = (self.next_id.fetch_add(1, Ordering::Relaxed), Arc::new(Notify::new()));
        let outlet = Outlet { id, sender, missed: Arc::clone(&missed) };
        self.by_user.lock().entry(user).or_default().push(outlet);
        Inlet { feeds: Arc::clone(self), user, id, updates, missed }
    }

    /// Hands on what a message of the stream `facts` has for the users who listen here.
    fn take(&self, message: Bytes, positions: &Positions) {
        if self.by_user.lock().is_empty() {
            self.last.store(0, Ordering::Relaxed);
            return;
        }
        let facts = FactBatch::decode(message).map(|batch| batch.facts).unwrap_or_default();
        let last = self.last.load(Ordering::Relaxed);
        let (Some(first), Some(newest)) = (facts.first(), facts.last()) else { return self.missed() };
        let (first, newest) = (first.position, newest.position);
        for fact in facts {
            self.deliver(fact, positions);
        }
        if last != 0 && first > last + 1 {
            self.missed();
        }
        self.last.store(newest.max(last), Ordering::Relaxed);
    }

    fn deliver(&self, fact: Fact, positions: &Positions) {
        let position = fact.position;
        let orders = fact.orders.into_iter().filter(|update| update.user_seq > 0);
        let balances = fact.balances.into_iter().filter(|update| update.user_seq > 0);
        for update in orders {
            self.push(position, &update.user_id.clone(), Update::Order(update), positions);
        }
        for update in balances {
            self.push(position, &update.user_id.clone(), Update::Portfolio(update), positions);
        }
    }

    fn push(&self, position: u64, user_id: &str, update: Update, positions: &Positions) {
        let Ok(user) = UserId::parse(user_id) else { return };
        let by_user = self.by_user.lock();
        let Some((last, others)) = by_user.get(&user).and_then(|outlets| outlets.split_last()) else {
            return;
        };
        positions.learn(user, position);
        for outlet in others {
            let update = match &update {
                Update::Order(update) => Update::Order(update.clone()),
                Update::Portfolio(update) => Update::Portfolio(update.clone()),
            };
            outlet.push(update);
        }
        last.push(update);
    }

    /// Every stream asks for what it has not got.
    fn missed(&self) {
        for outlet in self.by_user.lock().values().flatten() {
            outlet.missed.notify_one();
        }
    }
}

impl Outlet {
    fn push(&self, update: Update) {
        // A stream that is gone is about to leave the list.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(update) {
            self.missed.notify_one();
        }
    }
}

/// Reads the stream of facts until shutdown, as soon as the engine has created it.
pub fn spawn(gateway: &Arc<Gateway>) {
    let this = Arc::clone(gateway);
    gateway.ctx.tasks.spawn_until_shutdown("facts for private updates", async move {
        let taker = Arc::clone(&this);
        this.bus
            .tail(&this.ctx, bus::FACTS, move |message| {
                taker.feeds.take(message, &taker.positions);
                std::future::ready(())
            })
            .await?;
        // Streams that were opened before.
        this.feeds.missed();
        Ok::<(), fafnir_platform::Error>(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn user(n: u128) -> UserId {
        UserId::new(uuid::Uuid::from_u128(n))
    }

    fn fact(position: u64, of: UserId, user_seq: u64) -> Fact {
        let update = OrderUpdate { user_id: of.to_string(), user_seq, ..OrderUpdate::default() };
        Fact { position, orders: vec![update], ..Fact::default() }
    }

    fn message(facts: Vec<Fact>) -> Bytes {
        FactBatch { facts }.encode_to_vec().into()
    }

    fn seqs(inlet: &mut Inlet) -> Vec<u64> {
        std::iter::from_fn(|| match inlet.updates.try_recv().ok()? {
            Update::Order(update) => Some(update.user_seq),
            Update::Portfolio(_) => None,
        })
        .collect()
    }

    fn has_missed(inlet: &Inlet) -> bool {
        inlet.missed.notified().now_or_never().is_some()
    }

    #[test]
    fn each_stream_gets_its_own_users_updates_in_order() {
        let (feeds, positions) = (Arc::new(Feeds::default()), Positions::default());
        let (mut one, mut again, mut two) = (feeds.open(user(1)), feeds.open(user(1)), feeds.open(user(2)));
        feeds.take(message(vec![fact(1, user(1), 7), fact(2, user(2), 3), fact(3, user(3), 1)]), &positions);
        feeds.take(message(vec![fact(4, user(1), 8), fact(5, user(1), 0)]), &positions);
        assert_eq!((seqs(&mut one), seqs(&mut again), seqs(&mut two)), (vec![7, 8], vec![7, 8], vec![3]));
        assert!(!has_missed(&one) && !has_missed(&two));
        drop((one, again, two));
        assert!(feeds.by_user.lock().is_empty());
    }

    #[test]
    fn what_is_not_delivered_is_told() {
        let (feeds, positions) = (Arc::new(Feeds::default()), Positions::default());
        let mut inlet = feeds.open(user(1));
        feeds.take(message(vec![fact(5, user(1), 1)]), &positions);
        assert!(!has_missed(&inlet));
        // A gap of the bus.
        feeds.take(message(vec![fact(9, user(2), 1)]), &positions);
        assert!(has_missed(&inlet));
        // A stream that does not read.
        let many = (0..BUFFER as u64 + 5).map(|n| fact(10 + n, user(1), 2 + n)).collect();
        feeds.take(message(many), &positions);
        assert!(has_missed(&inlet));
        assert_eq!(seqs(&mut inlet).len(), BUFFER);
    }
}
