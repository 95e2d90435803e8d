//! The measurement: a flow through the full book and the naive one, interleaved, figures per CPU-second.

use std::time::Instant;

use super::engine::{FafnirEngine, KeyedEngine, KeyedOneByOne, OneByOne};
use super::moving::Way;
use super::naive::Naive;
use super::wl::{Engine, Msg, Stats, Workload};
use crate::Book;

/// Rounds of which the median counts.
const ROUNDS: usize = 5;
/// Replays of which each command's shortest time counts: what else the machine does falls on other commands each time.
const LATENCY_ROUNDS: usize = 3;
/// Operations between two words of progress.
const PROGRESS_EVERY: usize = 1 << 18;

/// A flow by the arguments of its generator.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub symbols: usize,
    pub live_per_symbol: usize,
    /// How its price moves, in one symbol; the common flow, whose mid stays within a few ticks, with none.
    pub way: Option<Way>,
}

impl Shape {
    pub const SEED: u64 = 42;
    pub const OPS: usize = 4_000_000;

    /// Generates the flow.
    pub fn generate(&self, progress: &mut dyn FnMut(u64)) -> Workload {
        self.generate_ops(Shape::OPS, progress)
    }

    /// Generates the flow with another number of operations.
    pub fn generate_ops(&self, ops: usize, progress: &mut dyn FnMut(u64)) -> Workload {
        match self.way {
            None => super::generate(Shape::SEED, self.symbols, self.live_per_symbol, ops, progress),
            Some(way) => super::generate_moving(way, Shape::SEED, self.live_per_symbol, ops, progress),
        }
    }
}

const fn common(name: &'static str, symbols: usize, live_per_symbol: usize) -> Shape {
    Shape { name, symbols, live_per_symbol, way: None }
}

const fn moving(name: &'static str, way: Way) -> Shape {
    Shape { name, symbols: 1, live_per_symbol: 1_000, way: Some(way) }
}

/// The flows that every matching benchmark reports: four whose mid stands, then those whose prices move.
pub const SHAPES: [Shape; 13] = [
    common("A1k", 1, 1_000),
    common("A10k", 1, 10_000),
    common("A100k", 1, 100_000),
    common("B100", 100, 1_000),
    moving("N1k", Way::Walk),
    moving("FC", Way::Crash),
    moving("J", Way::Far),
    moving("W25", Way::Swing(25)),
    moving("W40", Way::Swing(40)),
    moving("S", Way::Sparse),
    moving("K", Way::Wide),
    moving("L450", Way::Lone(450)),
    moving("L1M", Way::Lone(1_000_000)),
];

/// What one flow gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub name: String,
    /// Timed operations.
    pub ops: u64,
    /// Million operations per CPU-second, one thread, median of the rounds; operations come in batches.
    pub mops_cpu: f64,
    /// The same, one operation at a time: nothing is known of the next one.
    pub single_mops_cpu: f64,
    /// The same two where orders are named by number only ([`KeyedBook`](crate::KeyedBook)).
    pub keyed_mops_cpu: f64,
    pub keyed_single_mops_cpu: f64,
    /// Nanoseconds per operation, clock reading (about 20 ns) included, one at a time; of each operation the shortest of
    /// a few replays.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub p9999_ns: u64,
    pub max_ns: u64,
    /// Bytes that a book holds at the end of the flow, on average.
    pub book_bytes: u64,
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
    let of = (5 * ROUNDS + LATENCY_ROUNDS) as u32;
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(Progress { done, of });
    };
    let mut seconds: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        for (engine, times) in [
            seconds_of::<FafnirEngine>,
            seconds_of::<OneByOne>,
            seconds_of::<KeyedEngine>,
            seconds_of::<KeyedOneByOne>,
            seconds_of::<Naive>,
        ]
        .iter()
        .zip(&mut seconds)
        {
            times.push(engine(name, flow)?);
            step();
        }
    }
    let mut latencies = vec![u32::MAX; flow.ops().len()];
    for _ in 0..LATENCY_ROUNDS {
        shorten(&mut latencies, flow);
        step();
    }
    latencies.sort_unstable();
    let [batches, single, keyed, keyed_single, naive] = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        flow.h.n_ops as f64 / seconds[ROUNDS / 2].max(1e-9) / 1e6
    });
    Ok(Figures {
        name: name.to_owned(),
        ops: flow.h.n_ops,
        mops_cpu: batches,
        single_mops_cpu: single,
        keyed_mops_cpu: keyed,
        keyed_single_mops_cpu: keyed_single,
        p50_ns: quantile(&latencies, 5_000),
        p99_ns: quantile(&latencies, 9_900),
        p999_ns: quantile(&latencies, 9_990),
        p9999_ns: quantile(&latencies, 9_999),
        max_ns: quantile(&latencies, 10_000),
        book_bytes: book_bytes(flow),
        trades: expected.trades,
        volume: expected.volume,
        checksum: expected.checksum,
        naive_mops_cpu: naive,
    })
}

/// CPU-seconds of one replay that gave what the header says, or a sentence.
fn seconds_of<E: Engine>(name: &str, flow: &Workload) -> Result<f64, String> {
    let expected = Stats { trades: flow.h.trades, volume: flow.h.volume, checksum: flow.h.checksum };
    let (mut engine, seconds) = replay::<E>(flow);
    let (got, live) = (*engine.stats(), engine.live());
    if got == expected && live.is_none_or(|live| live == flow.h.final_live) {
        Ok(seconds)
    } else {
        Err(format!("{name}: {} gave {got:?} and {live:?} live orders, the flow says {:?}", E::NAME, flow.h))
    }
}

/// What a book holds after the flow, on average.
fn book_bytes(flow: &Workload) -> u64 {
    let (engine, _) = replay::<FafnirEngine>(flow);
    let bytes: usize = engine.books().iter().map(Book::memory).sum();
    (bytes / engine.books().len().max(1)) as u64
}

/// Keeps of each operation the shorter time: the one before, or that of another replay.
fn shorten(latencies: &mut [u32], flow: &Workload) {
    let mut engine = FafnirEngine::new(flow.h.n_symbols as usize, flow.h.max_id as usize);
    engine.run(flow.preload());
    let mut before = Instant::now();
    for (m, latency) in flow.ops().iter().zip(latencies) {
        engine.op(m);
        let now = Instant::now();
        *latency = (*latency).min(u32::try_from((now - before).as_nanos()).unwrap_or(u32::MAX));
        before = now;
    }
}

/// The time that so many of ten thousand operations stay within.
fn quantile(sorted: &[u32], per_ten_thousand: usize) -> u64 {
    let rank = (sorted.len() * per_ten_thousand).div_ceil(10_000);
    sorted.get(rank.max(1) - 1).copied().map_or(0, u64::from)
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
    fn every_shape_replays_to_the_trades_of_the_naive_book_in_batches_and_one_by_one() {
        for shape in SHAPES {
            let flow = shape.generate_ops(20_000, &mut |_| {});
            for seconds in [
                seconds_of::<FafnirEngine>,
                seconds_of::<OneByOne>,
                seconds_of::<KeyedEngine>,
                seconds_of::<KeyedOneByOne>,
                seconds_of::<Naive>,
            ] {
                assert_eq!(seconds(shape.name, &flow).err(), None);
            }
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
