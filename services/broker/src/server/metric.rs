//! Metrics: handles taken once, set soon after something happened.

use crate::core::monitor::Totals;
use metrics::{Counter, Gauge, counter, gauge};

/// The broker's metrics.
pub struct Metrics {
    in_msgs: Counter,
    in_bytes: Counter,
    out_msgs: Counter,
    out_bytes: Counter,
    slow_consumers: Counter,
    connections: Gauge,
    subscriptions: Gauge,
    behind: Gauge,
    streams: Gauge,
    consumers: Gauge,
    messages: Gauge,
    bytes: Gauge,
    api: Counter,
    api_errors: Counter,
    room: Gauge,
}

impl Metrics {
    /// Takes the handles from the recorder that is installed now.
    pub fn new() -> Self {
        Self {
            in_msgs: counter!("fafnir_broker_in_messages_total"),
            in_bytes: counter!("fafnir_broker_in_bytes_total"),
            out_msgs: counter!("fafnir_broker_out_messages_total"),
            out_bytes: counter!("fafnir_broker_out_bytes_total"),
            slow_consumers: counter!("fafnir_broker_slow_consumers_total"),
            connections: gauge!("fafnir_broker_connections"),
            subscriptions: gauge!("fafnir_broker_subscriptions"),
            behind: gauge!("fafnir_broker_store_changes_unsynced"),
            streams: gauge!("fafnir_broker_streams"),
            consumers: gauge!("fafnir_broker_consumers"),
            messages: gauge!("fafnir_broker_stored_messages"),
            bytes: gauge!("fafnir_broker_stored_bytes"),
            api: counter!("fafnir_broker_api_requests_total"),
            api_errors: counter!("fafnir_broker_api_errors_total"),
            room: gauge!("fafnir_broker_store_has_room"),
        }
    }

    /// Publishes the numbers.
    pub fn set(&self, totals: &Totals) {
        self.in_msgs.absolute(totals.counts.in_msgs);
        self.in_bytes.absolute(totals.counts.in_bytes);
        self.out_msgs.absolute(totals.counts.out_msgs);
        self.out_bytes.absolute(totals.counts.out_bytes);
        self.slow_consumers.absolute(totals.slow_consumers);
        self.connections.set(totals.connections as f64);
        self.subscriptions.set(totals.subscriptions as f64);
        self.behind.set(totals.behind as f64);
        self.streams.set(totals.streams as f64);
        self.consumers.set(totals.consumers as f64);
        self.messages.set(totals.messages as f64);
        self.bytes.set(totals.bytes as f64);
        self.api.absolute(totals.api_total);
        self.api_errors.absolute(totals.api_errors);
        self.room.set(f64::from(u8::from(totals.room)));
    }
}
