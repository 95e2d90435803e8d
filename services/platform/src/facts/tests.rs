//! The follower against a fact log and a projection in memory.

use super::{
    Batch, Follower, Projection, Source,
    runner::{FACTS_MAX, Runner},
};
use crate::{
    error::{Error, Result},
    health::Health,
};
use fafnir_proto::{
    client::POSITION_KEY,
    reason::Reason,
    v1::{Fact, FactsReply, FactsRequest},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Table {
    position: u64,
    commits: Vec<usize>,
    impossible: BTreeSet<u64>,
    busy: u32,
    /// Whether one replica has the lead, and which.
    has_lead: bool,
    leader: Option<u32>,
    /// Two tried to store the same.
    met: u32,
    /// What each replica has heard of.
    heard: BTreeMap<u32, Vec<u64>>,
}

/// A projection that remembers what was committed. A second replica shares the table.
#[derive(Default, Clone)]
struct Memory(Arc<Mutex<Table>>, u32);

impl Memory {
    /// Replicas of which one has the lead.
    fn led() -> Self {
        let memory = Self::default();
        memory.0.lock().has_lead = true;
        memory
    }

    fn replica(&self) -> Self {
        Self(Arc::clone(&self.0), self.1 + 1)
    }
}

impl Projection for Memory {
    async fn position(&self) -> Result<u64> {
        Ok(self.0.lock().position)
    }

    fn hear(&self, facts: &[Fact]) {
        let mut table = self.0.lock();
        table.heard.entry(self.1).or_default().extend(facts.iter().map(|fact| fact.position));
    }

    async fn apply(&self, from: u64, facts: Vec<Fact>) -> Result<()> {
        let mut table = self.0.lock();
        if table.busy > 0 {
            table.busy -= 1;
            return Err(Error::unavailable("busy"));
        }
        if table.position != from {
            table.met += 1;
            return Err(Error::internal("another replica was faster"));
        }
        if let Some(fact) = facts.iter().find(|fact| table.impossible.contains(&fact.position)) {
            return Err(Error::internal(format!("{} cannot be", fact.position)));
        }
        let positions: Vec<u64> = facts.iter().map(|fact| fact.position).collect();
        let expected: Vec<u64> = (from + 1..=from + facts.len() as u64).collect();
        assert_eq!(positions, expected, "without a gap");
        table.position += facts.len() as u64;
        table.commits.push(facts.len());
        Ok(())
    }

    async fn lead(&self) -> Result<bool> {
        let mut table = self.0.lock();
        if table.has_lead {
            table.leader.get_or_insert(self.1);
        }
        Ok(table.leader.is_none_or(|leader| leader == self.1))
    }

    async fn resign(&self) {
        self.0.lock().leader.take_if(|leader| *leader == self.1);
    }
}

#[derive(Default)]
struct Log {
    last: u64,
    oldest: u64,
    asked: Vec<FactsRequest>,
}

/// The engine's fact log.
#[derive(Default, Clone)]
struct Memo(Arc<Mutex<Log>>);

impl Source for Memo {
    async fn facts(&self, request: FactsRequest) -> Result<FactsReply> {
        let mut log = self.0.lock();
        let (from, limit) = (request.after + 1, u64::from(request.limit));
        log.asked.push(request);
        let upto = log.last.min(from + limit - 1);
        Ok(FactsReply {
            facts: facts(from, upto),
            last: log.last,
            oldest: log.oldest,
            exchange: String::new(),
        })
    }
}

fn facts(from: u64, upto: u64) -> Vec<Fact> {
    (from..=upto).map(|position| Fact { position, ..Fact::default() }).collect()
}

/// A follower with everything around it.
struct Bench {
    memory: Memory,
    log: Memo,
    health: Health,
    follower: Follower,
    stream: mpsc::Sender<Batch>,
    task: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    async fn new(last: u64) -> Self {
        let log = Memo::default();
        log.0.lock().last = last;
        Self::on(Memory::default(), log).await
    }

    async fn on(memory: Memory, log: Memo) -> Self {
        let health = Health::default();
        health.started();
        let (stream, inbox) = mpsc::channel(8);
        let stored = memory.0.lock().position;
        let projection = Arc::new(memory.clone());
        let (mut runner, follower) =
            Runner::at(stored, "test", "test-service", health.clone(), projection, log.clone(), inbox);
        runner.start().await.expect("catches up");
        let task = tokio::spawn(async move { match runner.run().await {} });
        Self { memory, log, health, follower, stream, task }
    }

    /// The engine has done something; the stream may bring it.
    async fn happens(&self, upto: u64, brought: bool) {
        let from = {
            let mut log = self.log.0.lock();
            std::mem::replace(&mut log.last, upto) + 1
        };
        if brought {
            self.stream.send(Batch { bytes: 100, facts: facts(from, upto) }).await.expect("followed");
        }
    }

    fn commits(&self) -> Vec<usize> {
        self.memory.0.lock().commits.clone()
    }

    async fn until(&self, position: u64) {
        let mut stands = self.follower.position.clone();
        timeout(DEADLINE, stands.wait_for(|p| *p >= position)).await.expect("in time").expect("runs");
    }
}

#[tokio::test]
async fn the_start_reads_everything_from_the_log_in_large_commits() {
    let bench = Bench::new(5_000).await;
    assert_eq!((bench.follower.position(), bench.commits()), (5_000, vec![FACTS_MAX, FACTS_MAX, 904]));
    assert!(bench.log.0.lock().asked.iter().all(|request| request.follower == "test-service"));
}

#[tokio::test]
async fn what_comes_while_nobody_waits_is_one_commit_and_a_reader_is_not_kept_waiting() {
    let bench = Bench::new(0).await;
    for upto in [1, 2, 5] {
        bench.happens(upto, true).await;
    }
    bench.until(5).await;
    assert_eq!(bench.commits(), [5]);
    // The gathering would take longer than this many readers one after another.
    let begun = Instant::now();
    for upto in 6..26 {
        bench.happens(upto, true).await;
        bench.follower.wait(upto).await.expect("in time");
    }
    assert!(begun.elapsed() < Memory::LINGER * 10, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_the_stream_lost_comes_from_the_log() {
    let bench = Bench::new(3).await;
    bench.happens(6, false).await;
    bench.happens(8, true).await;
    bench.until(8).await;
    // The tail is lost: a reader asks for it, or the report finds it.
    bench.happens(9, false).await;
    bench.follower.wait(9).await.expect("in time");
    bench.happens(11, false).await;
    bench.until(11).await;
    assert_eq!(bench.memory.0.lock().position, 11);
}

#[tokio::test]
async fn what_was_stored_before_is_not_stored_again() {
    let bench = Bench::new(4).await;
    bench.stream.send(Batch { bytes: 1, facts: facts(1, 4) }).await.expect("followed");
    bench.log.0.lock().last = 6;
    bench.stream.send(Batch { bytes: 1, facts: facts(3, 6) }).await.expect("followed");
    bench.until(6).await;
    assert_eq!(bench.commits(), [4, 2]);
}

#[tokio::test]
async fn a_reader_ahead_of_everything_is_told_after_a_second() {
    let bench = Bench::new(2).await;
    bench.follower.wait(0).await.expect("waits for nothing");
    let refusal = bench.follower.wait(3).await.expect_err("nothing is there").refusal().expect("a refusal");
    assert!(refusal.reason == Reason::PROJECTION_BEHIND, "{refusal:?}");
    let mut request = tonic::Request::new(());
    bench.follower.wait_for(&request).await.expect("names no position");
    request.metadata_mut().insert(POSITION_KEY, 2u64.into());
    bench.follower.wait_for(&request).await.expect("stands there");
}

#[tokio::test]
async fn a_busy_database_is_tried_again() {
    let bench = Bench::new(1).await;
    bench.memory.0.lock().busy = 3;
    bench.happens(4, true).await;
    bench.until(4).await;
    assert_eq!(bench.health.ready(), Ok(()));
    assert_eq!(bench.memory.0.lock().heard[&0], [1, 2, 3, 4], "each once, however often it was tried");
}

#[tokio::test]
async fn a_fact_that_cannot_be_stops_the_follower_right_before_it() {
    let bench = Bench::new(1).await;
    bench.memory.0.lock().impossible.insert(7);
    bench.happens(9, true).await;
    bench.until(6).await;
    let why = timeout(DEADLINE, async {
        loop {
            match bench.health.ready() {
                Err(why) => break why,
                Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    let why = why.await.expect("in time");
    assert!(why.contains("position 7") && why.contains("rebuild"), "{why}");
    assert_eq!(bench.follower.position(), 6);
    // Repaired: goes on by itself.
    bench.memory.0.lock().impossible.clear();
    bench.until(9).await;
    bench.happens(10, true).await;
    bench.until(10).await;
    assert_eq!(bench.health.ready(), Ok(()));
}

#[tokio::test]
async fn facts_that_are_gone_refuse_the_start_and_name_the_rebuild() {
    let (memory, log) = (Memory::default(), Memo::default());
    memory.0.lock().position = 5;
    *log.0.lock() = Log { last: 20, oldest: 10, asked: Vec::new() };
    let (_stream, inbox) = mpsc::channel(1);
    let (mut runner, _) =
        Runner::at(5, "test", "test-service", Health::default(), Arc::new(memory), log.clone(), inbox);
    let refused = runner.start().await.expect_err("6 to 9 are gone").to_string();
    assert!(refused.contains("before 10") && refused.contains("fafnir rebuild"), "{refused}");
    *log.0.lock() = Log { last: 4, oldest: 1, asked: Vec::new() };
    let refused = runner.start().await.expect_err("the journal is older").to_string();
    assert!(refused.contains("the journal of the exchange at 4"), "{refused}");
}

#[tokio::test]
async fn of_two_replicas_each_fact_is_stored_once_and_both_stand_where_it_is() {
    let one = Bench::new(2).await;
    let two = Bench::on(one.memory.clone(), one.log.clone()).await;
    for upto in 3..300 {
        one.log.0.lock().last = upto;
        for bench in [&one, &two] {
            bench.stream.send(Batch { bytes: 1, facts: facts(upto, upto) }).await.expect("followed");
        }
        if upto % 20 == 0 {
            one.follower.wait(upto).await.expect("in time");
            two.follower.wait(upto).await.expect("in time");
        }
    }
    one.until(299).await;
    two.until(299).await;
    let table = one.memory.0.lock();
    assert_eq!((table.position, table.commits.iter().sum::<usize>()), (299, 299));
}

#[tokio::test]
async fn who_has_the_lead_stores_alone_and_another_takes_over_when_it_goes() {
    let one = Bench::on(Memory::led(), Memo::default()).await;
    one.happens(1, true).await;
    one.until(1).await;
    let two = Bench::on(one.memory.replica(), one.log.clone()).await;
    for upto in 2..100 {
        one.log.0.lock().last = upto;
        for bench in [&one, &two] {
            if upto == 50 && bench.memory.1 == 1 {
                continue;
            }
            bench.stream.send(Batch { bytes: 1, facts: facts(upto, upto) }).await.expect("followed");
        }
        if upto % 20 == 0 {
            two.follower.wait(upto).await.expect("in time");
        }
    }
    two.until(99).await;
    let memory = one.memory.clone();
    let seen = {
        let table = memory.0.lock();
        (table.leader, table.met)
    };
    assert_eq!(seen, (Some(0), 0));
    drop(one);
    memory.resign().await;
    two.happens(200, false).await;
    two.follower.wait(200).await.expect("in time");
    let table = memory.0.lock();
    assert_eq!((table.leader, table.met, table.commits.iter().sum::<usize>()), (Some(1), 0, 200));
    // Who stood by has heard of everything too, of the one that the stream did not bring from the log.
    assert_eq!(table.heard[&1], (2..=200).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_nothing_is_passed_over() {
    let memory = Memory::led();
    memory.0.lock().leader = Some(99);
    let bench = Bench::on(memory, Memo::default()).await;
    bench.happens(10, true).await;
    bench.until(10).await;
    bench.happens(20, true).await;
    let before = Instant::now();
    bench.until(20).await;
    assert!(before.elapsed() < Duration::from_secs(1), "it goes on without waiting");
    // Where the leader works after all, it stands by again.
    bench.memory.0.lock().position = 30;
    bench.happens(30, true).await;
    bench.until(30).await;
    bench.happens(31, true).await;
    bench.until(31).await;
    let table = bench.memory.0.lock();
    assert_eq!((table.met, table.leader), (1, Some(99)));
}
