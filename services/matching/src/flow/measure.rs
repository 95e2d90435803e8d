//! The measurement: a flow through the full book and the naive one, interleaved, figures per CPU-second.

use std::time::Instant;

use super::naive::Naive;
use super::wl::{ADD, CANCEL, Engine, IOC, MARKET, Msg, REPLACE, Stats, Workload};
use crate::prefetch::prefetch;
use crate::{Book, Command, Event, MAX_PRICE, NewOrder, Owner, Replace, Side, Sink, Slot, Tif, What};

/// Rounds of which the median counts.
const ROUNDS: usize = 5;
/// Open orders from which the order that an operation names is fetched early: they no longer fit the nearest cache.
const FETCH_FROM: u64 = 4_096;
/// Open orders from which the input is read ahead further, and by how many operations.
const READ_AHEAD_FROM: u64 = 16_384;
const READ_AHEAD: usize = 8;
/// Events that the reader's ring holds: 4 KiB of them.
const RING: usize = 64;
/// Operations between two words of progress.
const PROGRESS_EVERY: usize = 1 << 18;
/// Nanoseconds of the latency histogram; the last bucket holds everything longer.
const LATENCY_NS_MAX: usize = 1 << 16;

/// A flow of performance.md §1 by its `gen` arguments.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub symbols: usize,
    pub live_per_symbol: usize,
}

impl Shape {
    pub const SEED: u64 = 42;
    pub const OPS: usize = 4_000_000;

    /// Generates the flow.
    pub fn generate(&self, progress: &mut dyn FnMut(u64)) -> Workload {
        super::generate(Shape::SEED, self.symbols, self.live_per_symbol, Shape::OPS, progress)
    }
}

/// The flows that every matching benchmark reports.
pub const SHAPES: [Shape; 4] = [
    Shape { name: "A1k", symbols: 1, live_per_symbol: 1_000 },
    Shape { name: "A10k", symbols: 1, live_per_symbol: 10_000 },
    Shape { name: "A100k", symbols: 1, live_per_symbol: 100_000 },
    Shape { name: "B100", symbols: 100, live_per_symbol: 1_000 },
];

/// What one flow gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub name: String,
    /// Timed operations.
    pub ops: u64,
    /// Million operations per CPU-second, one thread, median of the rounds.
    pub mops_cpu: f64,
    /// Nanoseconds per operation, clock reading (about 20 ns) included.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub trades: u64,
    pub volume: u64,
    pub checksum: u64,
    /// The naive book on the same flow in the same run.
    pub naive_mops_cpu: f64,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u32,
    pub of: u32,
}

/// The full book, every feature on, behind the flow's interface: it numbers nothing itself, the table of slots is
/// what an engine around the book keeps.
#[derive(Debug)]
pub struct FafnirEngine {
    books: Vec<Book>,
    desk: Desk,
}

/// Who reads the events: keeps each as a whole record in a small ring, the slots of open orders, and counts trades.
#[derive(Debug)]
struct Desk {
    slots: Vec<Slot>,
    stats: Stats,
    ring: [Event; RING],
}

impl Sink for Desk {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        self.ring[event.seq as usize % RING] = event;
        match event.what {
            What::Trade { maker, taker, qty, price, .. } => {
                self.stats.trade(maker, taker, price, qty as u32);
            }
            What::Accepted { id, slot, .. } | What::Replaced { id, slot, .. } => {
                self.slots[id as usize] = slot;
            }
            _ => {}
        }
    }
}

impl FafnirEngine {
    /// The books, to look at after a replay.
    pub fn books(&self) -> &[Book] {
        &self.books
    }

    /// The operations other than add and cancel, one in ten.
    #[inline(never)]
    fn seldom(&mut self, m: &Msg) {
        let (side, owner, qty) = (side(m), owner(m), u64::from(m.qty));
        match m.op {
            REPLACE => {
                let slot = self.desk.slots[m.old_id as usize];
                let replace = Replace { new_id: m.id, ..Replace::new(m.old_id, slot, qty, m.price) };
                self.apply(m.sym, &Command::Replace(replace));
            }
            MARKET => {
                let cap = if m.side == 0 { MAX_PRICE } else { 1 };
                self.apply(m.sym, &Command::New(NewOrder::market(m.id, owner, side, qty, cap)));
            }
            _ => {
                debug_assert_eq!(m.op, IOC);
                let order = NewOrder::limit(m.id, owner, side, qty, m.price).with_tif(Tif::Ioc);
                self.apply(m.sym, &Command::New(order));
            }
        }
    }

    /// One command. Called with each kind of command apart, so that the record's operation is looked at once, not again
    /// as a command.
    #[inline(always)]
    fn apply(&mut self, symbol: u16, command: &Command) {
        self.books[symbol as usize].apply_into(command, &mut self.desk);
    }
}

fn side(m: &Msg) -> Side {
    if m.side & 1 == 0 { Side::Buy } else { Side::Sell }
}

/// Owners count from 1: 0 would take no part in self-trade prevention.
fn owner(m: &Msg) -> Owner {
    u32::from(m.owner) + 1
}

impl Engine for FafnirEngine {
    const NAME: &'static str = "fafnir";

    fn new(n_symbols: usize, max_id: usize) -> FafnirEngine {
        FafnirEngine {
            books: (0..n_symbols).map(|_| Book::new()).collect(),
            desk: Desk {
                slots: vec![Slot(0); max_id + 1],
                stats: Stats::default(),
                ring: [Event { seq: 0, what: What::Resumed }; RING],
            },
        }
    }

    #[inline(always)]
    fn op(&mut self, m: &Msg) {
        if m.op == ADD {
            let order = NewOrder::limit(m.id, owner(m), side(m), u64::from(m.qty), m.price);
            self.apply(m.sym, &Command::New(order));
        } else if m.op == CANCEL {
            let slot = self.desk.slots[m.old_id as usize];
            self.apply(m.sym, &Command::Cancel { id: m.old_id, slot });
        } else {
            self.seldom(m);
        }
    }

    fn run(&mut self, ops: &[Msg]) {
        let live = self.live().unwrap_or(0);
        let ahead = ops.len().saturating_sub(3 * READ_AHEAD);
        let (most, rest) = ops.split_at(ahead);
        if live < FETCH_FROM {
            for m in most {
                self.op(m);
            }
        } else if live < READ_AHEAD_FROM {
            for ((m, next), second) in
                most.iter().zip(&ops[ops.len().min(READ_AHEAD)..]).zip(&ops[ops.len().min(2 * READ_AHEAD)..])
            {
                prefetch(&self.desk.slots, second.old_id as usize);
                self.books[next.sym as usize].fetch_order(self.desk.slots[next.old_id as usize]);
                self.op(m);
            }
        } else {
            let later = |groups: usize| &ops[ops.len().min(groups * READ_AHEAD)..];
            for (((m, next), second), third) in most.iter().zip(later(1)).zip(later(2)).zip(later(3)) {
                prefetch(&self.desk.slots, third.old_id as usize);
                self.books[second.sym as usize].fetch_order(self.desk.slots[second.old_id as usize]);
                let book = &self.books[next.sym as usize];
                book.fetch_neighbours(self.desk.slots[next.old_id as usize]);
                self.op(m);
            }
        }
        for m in rest {
            self.op(m);
        }
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.desk.stats
    }

    fn live(&self) -> Option<u64> {
        Some(self.books.iter().map(|book| u64::from(book.open_orders())).sum())
    }
}

/// One replay of the flow: what the timed part gave, and its CPU-seconds.
pub fn replay<E: Engine>(flow: &Workload) -> (E, f64) {
    let mut engine = E::new(flow.h.n_symbols as usize, flow.h.max_id as usize);
    engine.run(flow.preload());
    *engine.stats() = Stats::default();
    let start = CpuClock::now();
    engine.run(flow.ops());
    let seconds = start.seconds();
    (engine, seconds)
}

/// The same in parts, for a long flow: `progress` hears how many operations are done, preload included.
pub fn replay_in_parts<E: Engine>(flow: &Workload, progress: &mut dyn FnMut(u64)) -> (E, f64) {
    let mut engine = E::new(flow.h.n_symbols as usize, flow.h.max_id as usize);
    let mut done = 0;
    let mut run = |engine: &mut E, ops: &[Msg]| {
        for part in ops.chunks(PROGRESS_EVERY) {
            engine.run(part);
            done += part.len() as u64;
            progress(done);
        }
    };
    run(&mut engine, flow.preload());
    *engine.stats() = Stats::default();
    let start = CpuClock::now();
    run(&mut engine, flow.ops());
    let seconds = start.seconds();
    (engine, seconds)
}

/// Measures one flow. Fails with a sentence if a book does not reproduce what the header says.
pub fn measure(name: &str, flow: &Workload, progress: &mut dyn FnMut(Progress)) -> Result<Figures, String> {
    let expected = Stats { trades: flow.h.trades, volume: flow.h.volume, checksum: flow.h.checksum };
    let check = |engine: &str, got: Stats, live: Option<u64>| {
        if got == expected && live.is_none_or(|live| live == flow.h.final_live) {
            Ok(())
        } else {
            Err(format!("{name}: {engine} gave {got:?} and {live:?} live orders, the flow says {:?}", flow.h))
        }
    };
    let of = 2 * ROUNDS as u32 + 1;
    let (mut own, mut naive) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let (mut engine, seconds) = replay::<FafnirEngine>(flow);
        check("fafnir", *engine.stats(), engine.live())?;
        own.push(seconds);
        progress(Progress { done: 2 * round + 1, of });
        let (mut engine, seconds) = replay::<Naive>(flow);
        check("the naive book", *engine.stats(), engine.live())?;
        naive.push(seconds);
        progress(Progress { done: 2 * round + 2, of });
    }
    let latency = latencies(flow);
    progress(Progress { done: of, of });
    let mops = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        flow.h.n_ops as f64 / seconds[seconds.len() / 2].max(1e-9) / 1e6
    };
    Ok(Figures {
        name: name.to_owned(),
        ops: flow.h.n_ops,
        mops_cpu: mops(&mut own),
        p50_ns: quantile(&latency, 500),
        p99_ns: quantile(&latency, 990),
        p999_ns: quantile(&latency, 999),
        trades: expected.trades,
        volume: expected.volume,
        checksum: expected.checksum,
        naive_mops_cpu: mops(&mut naive),
    })
}

/// How many operations took how many nanoseconds.
fn latencies(flow: &Workload) -> Vec<u32> {
    let mut engine = FafnirEngine::new(flow.h.n_symbols as usize, flow.h.max_id as usize);
    engine.run(flow.preload());
    let mut histogram = vec![0u32; LATENCY_NS_MAX];
    let mut before = Instant::now();
    for m in flow.ops() {
        engine.op(m);
        let now = Instant::now();
        let ns = (now - before).as_nanos() as usize;
        histogram[ns.min(LATENCY_NS_MAX - 1)] += 1;
        before = now;
    }
    histogram
}

fn quantile(histogram: &[u32], per_mille: u64) -> u64 {
    let total: u64 = histogram.iter().map(|&count| u64::from(count)).sum();
    let mut seen = 0;
    for (ns, &count) in histogram.iter().enumerate() {
        seen += u64::from(count);
        if seen * 1000 >= total * per_mille {
            return ns as u64;
        }
    }
    0
}

/// CPU time of this thread where the system tells it, else time on the wall.
struct CpuClock {
    cpu_ns: Option<u64>,
    wall: Instant,
}

impl CpuClock {
    fn now() -> CpuClock {
        CpuClock { cpu_ns: thread_cpu_ns(), wall: Instant::now() }
    }

    fn seconds(&self) -> f64 {
        let wall = self.wall.elapsed().as_secs_f64();
        match (self.cpu_ns, thread_cpu_ns()) {
            (Some(before), Some(after)) if after > before => (after - before) as f64 / 1e9,
            _ => wall,
        }
    }
}

fn thread_cpu_ns() -> Option<u64> {
    // Giving up the processor once makes Linux account for the running slice.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::generate;

    #[test]
    fn a_generated_flow_replays_to_its_own_trades_volume_and_checksum() {
        for (symbols, live) in [(1, 500), (7, 100)] {
            let flow = generate(42, symbols, live, 50_000, &mut |_| {});
            let mut bytes = Vec::new();
            flow.write(&mut bytes).expect("memory");
            let flow = Workload::read(&mut bytes.as_slice()).expect("own bytes");
            let (mut engine, _) = replay::<FafnirEngine>(&flow);
            let stats = *engine.stats();
            assert_eq!((stats.trades, stats.volume), (flow.h.trades, flow.h.volume));
            assert_eq!((stats.checksum, engine.live()), (flow.h.checksum, Some(flow.h.final_live)));
        }
    }

    #[test]
    fn a_file_that_is_no_flow_is_refused() {
        let flow = generate(1, 1, 10, 100, &mut |_| {});
        let mut bytes = Vec::new();
        flow.write(&mut bytes).expect("memory");
        assert!(Workload::read(&mut &bytes[..bytes.len() - 1]).is_err());
        bytes[200] ^= 0xFF;
        bytes[0] ^= 1;
        assert!(Workload::read(&mut bytes.as_slice()).is_err());
    }
}
