//! `fafnir top`: what the platform does now, from the metrics of its processes: requests and their times by service, how far
//! who follows the exchange is behind, and what each process takes of the machine.

use crate::{
    args::{Global, Top},
    doors::{self, Door, Doors},
    output::{Error, Exit, Out, Result, table},
    settings,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};
use tokio::time::Instant;

/// Ends with an empty screen and the cursor in its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// gRPC's codes of answers in which the platform failed, not the caller: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE,
/// DATA_LOSS.
const FAILURES: [&str; 5] = ["2", "4", "13", "14", "15"];
const MIB: f64 = 1_048_576.0;

/// A sample of a metric: its labels, and its value.
type Sample = (BTreeMap<String, String>, f64);

/// The metrics of one process at a moment.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<String, Vec<Sample>>);

impl Metrics {
    /// Reads Prometheus' text format; what is no sample is left out.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, labels, value)) = sample(line) {
                metrics.0.entry(name).or_default().push((labels, value));
            }
        }
        metrics
    }

    fn samples(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Of a metric that has one sample; none where it is not told.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.samples(name).first().map(|(_, value)| *value)
    }

    fn sum(&self, name: &str) -> f64 {
        // From 0: the sum of nothing is -0.
        self.samples(name).iter().fold(0.0, |sum, (_, value)| sum + value)
    }
}

/// Name, labels and value of `name{label="value",…} 1.5`.
fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = head.split_once('{') else {
        return Some((head.to_owned(), BTreeMap::new(), value));
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => match letters.next()?.1 {
                    'n' => text.push('\n'),
                    letter => text.push(letter),
                },
                (_, letter) => text.push(letter),
            }
        };
        labels.insert(label.to_owned(), text);
        rest = after[end + 1..].trim_start_matches(',');
    }
    Some((name.to_owned(), labels, value))
}

/// What was asked of a service between two moments.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    requests: f64,
    failures: f64,
    /// Upper bound in seconds → answers within it.
    within: BTreeMap<u64, f64>,
}

/// Bounds are kept in microseconds: whole, so that they have an order; beyond the last there is none.
fn micros(bound: &str) -> u64 {
    bound.parse::<f64>().ok().filter(|b| b.is_finite()).map_or(u64::MAX, |b| (b * 1e6) as u64)
}

impl Asked {
    /// By service, since `before`. A process that began anew has counted from nothing.
    fn between(before: &Metrics, after: &Metrics) -> BTreeMap<String, Self> {
        let former = |name: &str| -> BTreeMap<_, f64> {
            before.samples(name).iter().map(|(labels, value)| (labels.clone(), *value)).collect()
        };
        let grown = |former: &BTreeMap<_, f64>, (labels, value): &Sample| {
            let was = former.get(labels).copied().unwrap_or(0.0);
            if *value < was { *value } else { value - was }
        };
        let mut each: BTreeMap<String, Self> = BTreeMap::new();
        let text =
            |labels: &BTreeMap<String, String>, name: &str| labels.get(name).cloned().unwrap_or_default();
        let counts = former("fafnir_request_seconds_count");
        for sample in after.samples("fafnir_request_seconds_count") {
            let asked = each.entry(text(&sample.0, "service")).or_default();
            let grown = grown(&counts, sample);
            asked.requests += grown;
            let status = text(&sample.0, "status");
            if FAILURES.contains(&status.as_str()) || (status.len() == 3 && status.starts_with('5')) {
                asked.failures += grown;
            }
        }
        let buckets = former("fafnir_request_seconds_bucket");
        for sample in after.samples("fafnir_request_seconds_bucket") {
            let asked = each.entry(text(&sample.0, "service")).or_default();
            *asked.within.entry(micros(&text(&sample.0, "le"))).or_default() += grown(&buckets, sample);
        }
        each
    }

    /// The bound below which this share of the answers were, in milliseconds; `None` without answers, or beyond the last
    /// bound.
    fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.within.values().copied().fold(0.0, f64::max);
        if all == 0.0 {
            return None;
        }
        let (bound, _) = self.within.iter().find(|(_, within)| **within >= all * share)?;
        (*bound != u64::MAX).then_some(*bound as f64 / 1e3)
    }
}

/// What is looked at: the processes, each by one of its doors.
struct Watched {
    doors: Doors,
    each: Vec<Door>,
}

impl Watched {
    fn new(doors: Doors) -> Self {
        // One process answers for all its services at any of their doors.
        let each = if doors.run.is_some() {
            doors.each.iter().take(1).cloned().collect()
        } else {
            doors.each.clone()
        };
        Self { doors, each }
    }

    /// What each process says, in order; of one that is silent nothing.
    async fn look(&self) -> (Instant, Vec<Result<Metrics, String>>) {
        let asked = self.each.iter().map(|door| self.doors.metrics(door));
        let said = futures::future::join_all(asked).await;
        (Instant::now(), said.into_iter().map(|text| text.map(|text| Metrics::parse(&text))).collect())
    }

    fn name(&self, at: usize) -> &str {
        if self.doors.run.is_some() { "up" } else { &self.each[at].service }
    }
}

pub async fn top(global: &Global, args: &Top, out: Out) -> Result {
    let interval = Duration::from_secs(args.interval.into());
    let watched = Watched::new(doors::find(&settings::settings(global, &[])?)?);
    let is_screen = std::io::stdout().is_terminal() && !out.json && args.count != Some(1);
    let mut before = watched.look().await;
    let mut left = args.count;
    loop {
        if tokio::time::timeout(interval, tokio::signal::ctrl_c()).await.is_ok() {
            return Ok(());
        }
        let after = watched.look().await;
        let page = Page::new(&watched, &before, &after);
        out.line(&page.document().to_string(), || {
            format!("{}{}", if is_screen { CLEAR } else { "" }, page.text())
        });
        before = after;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return if before.1.iter().all(Result::is_ok) {
                Ok(())
            } else {
                Err(Error::new(Exit::Failure, "a process does not answer"))
            };
        }
    }
}

/// What is shown at a time.
#[derive(Debug, Default)]
struct Page {
    seconds: f64,
    services: BTreeMap<String, Asked>,
    processes: Vec<Process>,
    followers: BTreeMap<String, f64>,
    /// What became more in the time: facts of the exchange, settled trades.
    facts: f64,
    trades: f64,
}

#[derive(Debug)]
struct Process {
    name: String,
    /// Why it says nothing.
    silent: Option<String>,
    cpu_seconds: f64,
    resident: f64,
    threads: f64,
    files: f64,
    connections: f64,
    websockets: f64,
}

impl Page {
    fn new(
        watched: &Watched,
        (since, before): &(Instant, Vec<Result<Metrics, String>>),
        (now, after): &(Instant, Vec<Result<Metrics, String>>),
    ) -> Self {
        let mut page = Self { seconds: now.duration_since(*since).as_secs_f64(), ..Self::default() };
        let none = Metrics::default();
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            let metrics = after.as_ref().unwrap_or(&none);
            page.processes.push(Process {
                name: watched.name(at).to_owned(),
                silent: after.as_ref().err().cloned(),
                cpu_seconds: metrics.sum("process_cpu_seconds_total"),
                resident: metrics.sum("process_resident_memory_bytes"),
                threads: metrics.sum("process_threads"),
                files: metrics.sum("process_open_fds"),
                connections: metrics.sum("fafnir_connections"),
                websockets: metrics.sum("fafnir_websockets"),
            });
            for (labels, lag) in metrics.samples("fafnir_follower_lag") {
                page.followers.insert(labels.get("follower").cloned().unwrap_or_default(), *lag);
            }
            // Without a look before, everything since its start would seem to be of this time.
            let (Ok(before), Ok(after)) = (before, after) else { continue };
            for (service, asked) in Asked::between(before, after) {
                page.services.insert(service, asked);
            }
            let grown = |name: &str| (after.sum(name) - before.sum(name)).max(0.0);
            page.facts += grown("fafnir_position");
            page.trades += grown("fafnir_settled_trades_total");
        }
        page
    }

    fn rate(&self, count: f64) -> f64 {
        if self.seconds > 0.0 { count / self.seconds } else { 0.0 }
    }

    fn text(&self) -> String {
        let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        let services: Vec<_> = self
            .services
            .iter()
            .map(|(name, asked)| {
                vec![
                    name.clone(),
                    format!("{:.1}", self.rate(asked.requests)),
                    format!("{:.1}", self.rate(asked.failures)),
                    time(asked.quantile(0.5)),
                    time(asked.quantile(0.99)),
                ]
            })
            .collect();
        let processes: Vec<_> = self
            .processes
            .iter()
            .map(|p| match &p.silent {
                Some(why) => {
                    let mut row = vec![String::new(); 6];
                    row.insert(0, format!("{}: {why}", p.name));
                    row
                }
                None => vec![
                    p.name.clone(),
                    format!("{:.0}", p.cpu_seconds),
                    format!("{:.0}", p.resident / MIB),
                    format!("{:.0}", p.threads),
                    format!("{:.0}", p.files),
                    format!("{:.0}", p.connections),
                    format!("{:.0}", p.websockets),
                ],
            })
            .collect();
        let behind: Vec<_> = self.followers.iter().map(|(name, lag)| format!("{name} {lag:.0}")).collect();
        let behind = if behind.is_empty() { "nobody follows".to_owned() } else { behind.join(", ") };
        format!(
            "{:.1} s: {:.1} facts/s, {:.1} trades/s; facts behind: {behind}\n\n{}\n{}",
            self.seconds,
            self.rate(self.facts),
            self.rate(self.trades),
            table(&["SERVICE", ">REQUESTS/S", ">FAILED/S", ">P50 MS", ">P99 MS"], &services),
            table(
                &["PROCESS", ">CPU S", ">MIB", ">THREADS", ">FILES", ">CONNECTIONS", ">WEBSOCKETS"],
                &processes
            ),
        )
    }

    fn document(&self) -> Value {
        let services: serde_json::Map<_, _> = self
            .services
            .iter()
            .map(|(name, asked)| {
                let document = json!({"requestsPerSecond": self.rate(asked.requests), "failuresPerSecond": self.rate(asked.failures), "p50Ms": asked.quantile(0.5), "p99Ms": asked.quantile(0.99)});
                (name.clone(), document)
            })
            .collect();
        let processes: Vec<_> = self
            .processes
            .iter()
            .map(|p| json!({"name": p.name, "silent": p.silent, "cpuSeconds": p.cpu_seconds, "residentBytes": p.resident, "threads": p.threads, "openFiles": p.files, "connections": p.connections, "webSockets": p.websockets}))
            .collect();
        json!({"seconds": self.seconds, "factsPerSecond": self.rate(self.facts), "tradesPerSecond": self.rate(self.trades), "behind": self.followers, "services": services, "processes": processes})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
# HELP fafnir_request_seconds Time
fafnir_request_seconds_bucket{service="order-service",method="Place",status="0",le="0.001"} 90
fafnir_request_seconds_bucket{service="order-service",method="Place",status="0",le="0.005"} 100
fafnir_request_seconds_bucket{service="order-service",method="Place",status="0",le="+Inf"} 100
fafnir_request_seconds_count{service="order-service",method="Place",status="0"} 100
"#;
    const AFTER: &str = r#"
fafnir_request_seconds_bucket{service="order-service",method="Place",status="0",le="0.001"} 96
fafnir_request_seconds_bucket{service="order-service",method="Place",status="0",le="0.005"} 110
fafnir_request_seconds_bucket{service="order-service",method="Place",status="0",le="+Inf"} 110
fafnir_request_seconds_count{service="order-service",method="Place",status="0"} 110
fafnir_request_seconds_count{service="order-service",method="Place",status="14"} 3
fafnir_request_seconds_count{service="order-service",method="Place",status="9"} 2
"#;

    #[test]
    fn what_was_asked_is_what_the_counters_grew_by() {
        let asked = Asked::between(&Metrics::parse(BEFORE), &Metrics::parse(AFTER));
        let order = &asked["order-service"];
        assert_eq!((order.requests, order.failures), (15.0, 3.0));
        assert_eq!((order.quantile(0.5), order.quantile(0.99)), (Some(1.0), Some(5.0)));
        // Begun anew between the two looks.
        let asked = Asked::between(&Metrics::parse(AFTER), &Metrics::parse(BEFORE));
        assert_eq!(asked["order-service"].requests as u64, 100);
        let asked = Asked::between(&Metrics::parse(AFTER), &Metrics::parse(AFTER));
        assert_eq!(asked["order-service"].quantile(0.5), None);
    }

    #[test]
    fn labels_are_read_with_their_escapes() {
        let (name, labels, value) = sample(r#"m{a="x\"y\\z\n",b="{1,2}"} 1.5"#).unwrap();
        assert_eq!((name.as_str(), value), ("m", 1.5));
        assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("x\"y\\z\n", "{1,2}"));
        for broken in ["m{a=\"x 1", "m{a=\"x\" 1", "m one", "m"] {
            assert_eq!(sample(broken), None, "{broken}");
        }
        assert_eq!(sample("up 1").unwrap().2 as u64, 1);
    }
}
