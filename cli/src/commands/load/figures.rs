//! What was measured: a histogram and counts per operation, as a table and as JSON.

use super::door::Outcome;
use crate::output::table;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Longest latency that is told apart, microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// The part of a round trip that each has.
pub const ROUND_TRIP_FIRST: &str = "1 accepted";
/// Different failures that are told.
const FAILURES_MAX: usize = 5;

/// What one client, or all of them, saw of one operation.
#[derive(Debug, Clone)]
pub struct Operation {
    pub latency_us: Histogram<u64>,
    pub refused: BTreeMap<String, u64>,
    pub shed: u64,
    pub failed: BTreeMap<String, u64>,
}

impl Default for Operation {
    #[expect(clippy::expect_used, reason = "the bounds are constants that hdrhistogram takes")]
    fn default() -> Self {
        let latency_us = Histogram::new_with_max(LATENCY_US_MAX, DIGITS)
            .expect("invariant: the bounds are hdrhistogram's");
        Self { latency_us, refused: BTreeMap::new(), shed: 0, failed: BTreeMap::new() }
    }
}

impl Operation {
    /// Counts one request; only what was done has a latency.
    pub fn count(&mut self, outcome: &Outcome, latency: Duration) {
        match outcome {
            Outcome::Done(_) => self.took(latency),
            Outcome::Refused(code) => *self.refused.entry(code.clone()).or_default() += 1,
            Outcome::Shed(_) => self.shed += 1,
            Outcome::Failed(why) => {
                let known = self.failed.contains_key(why) || self.failed.len() < FAILURES_MAX;
                let why = if known { why.as_str() } else { "other" };
                *self.failed.entry(why.to_owned()).or_default() += 1;
            }
        }
    }

    /// A latency; one beyond the longest counts as the longest.
    pub fn took(&mut self, latency: Duration) {
        self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn add(&mut self, other: &Self) {
        self.latency_us += &other.latency_us;
        self.shed += other.shed;
        for (mine, theirs) in [(&mut self.refused, &other.refused), (&mut self.failed, &other.failed)] {
            for (why, n) in theirs {
                *mine.entry(why.clone()).or_default() += n;
            }
        }
    }

    fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
    fn failed(&self) -> u64 {
        self.failed.values().sum()
    }
    /// Milliseconds below which this many percent of the requests stayed.
    fn ms(&self, percent: f64) -> f64 {
        self.latency_us.value_at_percentile(percent) as f64 / 1_000.0
    }
    fn max_ms(&self) -> f64 {
        self.latency_us.max() as f64 / 1_000.0
    }
}

/// What the stack's processes used while they were measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Cores busy on average.
    pub cores: f64,
    /// Resident memory at the end, bytes.
    pub resident: u64,
}

/// When the projections had everything that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct CaughtUp {
    /// After the last answer.
    pub after: Duration,
    /// Processor seconds of each of the stack's processes from the first measured request until then.
    pub processor_s: Vec<(String, f64)>,
}

impl CaughtUp {
    fn all_s(&self) -> f64 {
        self.processor_s.iter().map(|(_, s)| s).sum()
    }
}

/// Operations by name, in the order in which they are printed.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub operations: BTreeMap<&'static str, Operation>,
    /// From the first measured request to the last answer.
    pub measured: Duration,
    pub usage: Option<Usage>,
    pub caught_up: Option<CaughtUp>,
}

impl Figures {
    pub fn of(&mut self, name: &'static str) -> &mut Operation {
        self.operations.entry(name).or_default()
    }

    pub fn add(&mut self, other: &Self) {
        for (name, operation) in &other.operations {
            self.of(name).add(operation);
        }
    }

    pub fn failed(&self) -> u64 {
        self.operations.values().map(Operation::failed).sum()
    }
    pub fn shed(&self) -> u64 {
        self.operations.values().map(|o| o.shed).sum()
    }

    fn per_second(&self, operation: &Operation) -> f64 {
        operation.latency_us.len() as f64 / self.measured.as_secs_f64().max(f64::EPSILON)
    }

    /// Microseconds of these processor seconds for each request that was done.
    fn us_each(&self, processor_s: f64) -> Option<f64> {
        let done = match self.operations.get(ROUND_TRIP_FIRST) {
            Some(accepted) => accepted.latency_us.len(),
            None => self.operations.values().map(|o| o.latency_us.len()).sum(),
        };
        (done > 0).then(|| processor_s * 1e6 / done as f64)
    }

    /// Why requests were refused or failed, a line each.
    pub fn reasons(&self) -> String {
        let mut text = String::new();
        for (name, o) in &self.operations {
            for (word, why) in [("refused", &o.refused), ("failed", &o.failed)] {
                for (why, n) in why {
                    text.push_str(&format!("{name}: {n} {word}: {}\n", crate::output::printable(why)));
                }
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        let operations: Vec<_> = self
            .operations
            .iter()
            .map(|(name, o)| {
                json!({
                    "name": name, "done": o.latency_us.len(), "perSecond": round(self.per_second(o), 1),
                    "refused": o.refused, "shed": o.shed, "failed": o.failed,
                    "p50Ms": o.ms(50.0), "p90Ms": o.ms(90.0), "p99Ms": o.ms(99.0), "p999Ms": o.ms(99.9),
                    "maxMs": o.max_ms(),
                })
            })
            .collect();
        let stack = self.usage.map(|u| json!({"cores": round(u.cores, 2), "residentBytes": u.resident}));
        let caught_up = self.caught_up.as_ref().map(|c| {
            let each = |s| self.us_each(s).map(|us| round(us, 0));
            let process = |(name, s): &(String, f64)| json!({"name": name, "processorUsEach": each(*s)});
            json!({
                "afterMs": round(c.after.as_secs_f64() * 1e3, 1), "processorS": round(c.all_s(), 2),
                "processorUsEach": each(c.all_s()), "processes": c.processor_s.iter().map(process).collect::<Vec<_>>(),
            })
        });
        json!({
            "operations": operations, "measuredS": round(self.measured.as_secs_f64(), 2), "stack": stack,
            "caughtUp": caught_up,
        })
    }

    pub fn table(&self) -> String {
        let rows: Vec<_> = self
            .operations
            .iter()
            .map(|(name, o)| {
                let ms = |ms: f64| if o.latency_us.is_empty() { "-".to_owned() } else { format!("{ms:.2}") };
                vec![
                    (*name).to_owned(),
                    o.latency_us.len().to_string(),
                    format!("{:.0}", self.per_second(o)),
                    o.refused().to_string(),
                    o.shed.to_string(),
                    o.failed().to_string(),
                    ms(o.ms(50.0)),
                    ms(o.ms(90.0)),
                    ms(o.ms(99.0)),
                    ms(o.ms(99.9)),
                    ms(o.max_ms()),
                ]
            })
            .collect();
        let headers = [
            "OPERATION",
            ">DONE",
            ">/S",
            ">REFUSED",
            ">SHED",
            ">FAILED",
            ">P50 MS",
            ">P90 MS",
            ">P99 MS",
            ">P99.9 MS",
            ">MAX MS",
        ];
        let mut text = table(&headers, &rows);
        if let Some(usage) = self.usage {
            let mib = usage.resident as f64 / 1_048_576.0;
            text.push_str(&format!("stack: {:.2} cores, {mib:.0} MiB resident\n", usage.cores));
        }
        if let Some(caught_up) = &self.caught_up {
            let after = caught_up.after.as_secs_f64() * 1e3;
            text.push_str(&format!("orders and books had all of it {after:.0} ms after the last answer"));
            if let Some(us) = self.us_each(caught_up.all_s()) {
                text.push_str(&format!("; until then {us:.0} µs of processor time each"));
            }
            text.push('\n');
            if caught_up.processor_s.len() > 1 {
                let us = |s| self.us_each(s).map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
                let row = |(name, s): &(String, f64)| vec![name.clone(), us(*s)];
                let rows: Vec<_> = caught_up.processor_s.iter().map(row).collect();
                text.push_str(&table(&["PROCESS", ">µS EACH"], &rows));
            }
        }
        text
    }
}

fn round(x: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (x * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_done_has_a_latency() {
        let mut figures = Figures { measured: Duration::from_secs(2), ..Figures::default() };
        let ms = Duration::from_millis;
        for latency in [ms(1), ms(2), ms(3), ms(100_000)] {
            figures.of("createOrder").count(&Outcome::Done(None), latency);
        }
        figures.of("createOrder").count(&Outcome::Refused("NOT_FOUND".into()), ms(50));
        figures.of("createOrder").count(&Outcome::Shed(ms(1_000)), ms(50));
        figures.of("createOrder").count(&Outcome::Failed("HTTP 500".into()), ms(50));
        let mut both = Figures { measured: Duration::from_secs(2), ..Figures::default() };
        both.add(&figures);
        both.add(&figures);
        let json = both.json();
        let o = &json["operations"][0];
        assert_eq!((o["done"].as_u64(), o["perSecond"].as_f64()), (Some(8), Some(4.0)), "{json}");
        assert_eq!((o["refused"]["NOT_FOUND"].as_u64(), o["shed"].as_u64()), (Some(2), Some(2)));
        assert_eq!((o["failed"]["HTTP 500"].as_u64(), both.failed()), (Some(2), 2));
        let (p50, max) = (o["p50Ms"].as_f64().unwrap(), o["maxMs"].as_f64().unwrap());
        assert!((1.99..2.01).contains(&p50) && (59_900.0..60_100.0).contains(&max), "{json}");
        assert_eq!(both.reasons(), "createOrder: 2 refused: NOT_FOUND\ncreateOrder: 2 failed: HTTP 500\n");
    }

    #[test]
    fn failures_of_many_kinds_are_told_in_few_lines() {
        let mut operation = Operation::default();
        for i in 0..100 {
            operation.count(&Outcome::Failed(format!("cause {i}")), Duration::ZERO);
        }
        assert_eq!((operation.failed.len(), operation.failed["other"]), (FAILURES_MAX + 1, 95));
    }
}
