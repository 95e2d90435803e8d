//! Spans of the core's thread: how long a batch's write lasted, and its steps, in the trace of each of its commands.

use fafnir_platform::{
    clock,
    telemetry::trace::{self, Kind, Open},
};
use fafnir_proto::trace::Trace;
use std::time::SystemTime;

/// Commands of a batch whose spans are told.
const TOLD_MAX: usize = 64;

/// The traces of a batch that are recorded, and when its present part began.
pub struct Traced {
    traces: Vec<Trace>,
    began: SystemTime,
}

impl Traced {
    /// Of the commands of a batch.
    pub fn of<'a>(traces: impl Iterator<Item = Option<&'a [u8]>>) -> Self {
        let traces = if trace::is_on() {
            let read = traces.flatten().filter_map(Trace::read);
            read.filter(|trace| trace.is_sampled).take(TOLD_MAX).collect()
        } else {
            Vec::new()
        };
        Self { traces, began: SystemTime::UNIX_EPOCH }.next()
    }

    /// The part that began is over; the next one begins.
    pub fn part(&mut self, name: &'static str, commands: usize) {
        if self.traces.is_empty() {
            return;
        }
        let now = clock::moment();
        let told = [("commands", commands.to_string())];
        for trace in &self.traces {
            if let Some(span) = Open::begin(super::SERVICE.name, Some(*trace)) {
                span.since(self.began).end_at(now, name, Kind::Internal, &told);
            }
        }
        self.began = now;
    }

    fn next(mut self) -> Self {
        if !self.traces.is_empty() {
            self.began = clock::moment();
        }
        self
    }
}
