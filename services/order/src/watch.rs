//! Who waits for an order in this process, and which users have private updates to be published.

use super::store;
use bytes::Bytes;
use fafnir_platform::{
    bus::Bus,
    context::Context,
    db::Db,
    error::Result,
    tasks::{Schedule, Wake},
};
use fafnir_proto::{subject, v1::Order};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Updates read at once per user.
const UPDATES_BATCH: u32 = 256;
/// The safety net behind [`Updates::mark`].
const POLL: Duration = Duration::from_secs(1);

/// How an order has gone on.
#[derive(Debug, Clone)]
pub struct Progress {
    pub order: Order,
    pub refused: Option<EngineRefusal>,
}

/// The engine refused to change the order; with its machine code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineRefusal {
    Cancel(String),
    Replace(String),
}

type Waiting = Arc<Mutex<HashMap<String, (usize, watch::Sender<Option<Progress>>)>>>;

/// Lets a request wait for what becomes of its order. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Watchers(Waiting);

/// One wait; ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    id: String,
    waiting: Waiting,
    progress: watch::Receiver<Option<Progress>>,
}

impl Watchers {
    /// Hears everything about an order from now on.
    pub fn watch(&self, id: &str) -> Watcher {
        let mut waiting = self.0.lock();
        let (count, sender) = waiting.entry(id.to_owned()).or_insert_with(|| (0, watch::channel(None).0));
        *count += 1;
        Watcher { id: id.to_owned(), progress: sender.subscribe(), waiting: Arc::clone(&self.0) }
    }

    /// Notifies whoever waits for this order.
    pub fn notify(&self, order: &Order, refused: Option<EngineRefusal>) {
        let waiting = self.0.lock();
        if let Some((_, sender)) = waiting.get(&order.id) {
            sender.send_replace(Some(Progress { order: order.clone(), refused }));
        }
    }
}

impl Watcher {
    /// Waits for progress, later than the watch began, that `enough` is content with; `None` after the time.
    pub async fn wait(&mut self, time: Duration, enough: impl Fn(&Progress) -> bool) -> Option<Progress> {
        let found = async {
            while self.progress.changed().await.is_ok() {
                let progress = self.progress.borrow_and_update().clone();
                if progress.as_ref().is_some_and(&enough) {
                    return progress;
                }
            }
            None
        };
        tokio::time::timeout(time, found).await.ok().flatten()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        if let Some((count, _)) = waiting.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}

/// Publishes stored private updates in the order of their sequence. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Updates(Arc<Pending>);

#[derive(Debug, Default)]
struct Pending {
    users: Mutex<BTreeSet<String>>,
    wake: Wake,
    /// Last published sequence per user; only the publishing task takes it.
    published: tokio::sync::Mutex<HashMap<String, u64>>,
}

impl Updates {
    /// A user has new updates, committed.
    pub fn mark(&self, user: &str) {
        self.0.users.lock().insert(user.to_owned());
        self.0.wake.notify();
    }

    /// Publishes until shutdown, from where the sequences stand now.
    pub async fn spawn(&self, ctx: &Context, db: Db, bus: Bus) -> Result<()> {
        let stored = db.read(|tx| Ok(store::update_seqs(tx)?)).await?;
        *self.0.published.lock().await = stored.into_iter().collect();
        let this = self.clone();
        ctx.tasks.every("private updates of orders", Schedule::after(POLL).or_on(&self.0.wake), move || {
            let (this, db, bus) = (this.clone(), db.clone(), bus.clone());
            async move { this.publish(&db, &bus).await }
        });
        Ok(())
    }

    /// Publishes what the marked users have new.
    async fn publish(&self, db: &Db, bus: &Bus) -> Result<()> {
        let users = std::mem::take(&mut *self.0.users.lock());
        let mut published = self.0.published.lock().await;
        let mut failed = None;
        for user in users {
            let last = published.entry(user.clone()).or_insert(0);
            // A listener that misses some asks for them: UpdatesSince.
            failed = publish(db, bus, &user, last).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }
}

async fn publish(db: &Db, bus: &Bus, user: &str, last: &mut u64) -> Result<()> {
    loop {
        let (of, after) = (user.to_owned(), *last);
        let stored = db.read(move |tx| Ok(store::update_list(tx, &of, after, UPDATES_BATCH)?)).await?;
        let full = stored.len() == UPDATES_BATCH as usize;
        for (seq, payload) in stored {
            bus.publish(subject::private_orders(user), Bytes::from(payload)).await?;
            *last = seq;
        }
        if !full {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_hears_only_what_comes_after_it_began() {
        let (watchers, order) = (Watchers::default(), Order { id: "1".into(), ..Order::default() });
        let other = watchers.watch("1");
        watchers.notify(&order, None);
        let mut late = watchers.watch("1");
        assert!(late.wait(Duration::from_millis(1), |_| true).await.is_none());
        watchers.notify(&Order { version: 2, ..order.clone() }, None);
        let progress = late.wait(Duration::from_secs(5), |n| n.order.version == 2).await;
        assert!(progress.is_some());
        drop((late, other));
        assert!(watchers.0.lock().is_empty());
    }
}
