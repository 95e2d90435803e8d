//! What the broker tells about itself: the original's `/varz`, `/connz` and `/jsz`, main keys only.

use super::api_consumer::consumer_info;
use super::api_stream::stream_info;
use super::client::{PINGS_OUT_MAX, VERSION};
use super::net::{ConnId, Counts, Nanos};
use super::wire::CONTROL_LINE_MAX;
use super::{Core, clock};
use serde_json::{Value, json};

/// Connections in one answer of `/connz`.
const CONNZ_PAGE: usize = 1024;

/// Subscriptions of one connection in one answer of `/connz`.
const SUBSCRIPTIONS_MAX: usize = 1024;

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Messages and bytes since the start.
    pub counts: Counts,
    /// Open connections.
    pub connections: usize,
    /// Subscriptions of clients.
    pub subscriptions: usize,
    /// Clients ended because they did not read.
    pub slow_consumers: u64,
    /// Store changes not yet known to be on disk.
    pub behind: u64,
    /// Streams.
    pub streams: usize,
    /// Consumers of all streams.
    pub consumers: usize,
    /// Stored messages.
    pub messages: u64,
    /// Bytes that they count for.
    pub bytes: u64,
    /// Requests to the JetStream API, pulls not counted.
    pub api_total: u64,
    /// Those that were refused.
    pub api_errors: u64,
    /// Whether the store has room for new messages.
    pub room: bool,
}

impl Core {
    /// Numbers for metrics.
    pub fn totals(&self) -> Totals {
        Totals {
            counts: self.env.net.counts,
            connections: self.env.net.conns.len(),
            subscriptions: self.env.net.index.len(),
            slow_consumers: self.slow_consumers,
            behind: self.behind(),
            streams: self.streams.len(),
            consumers: self.consumer_count(),
            messages: self.streams.values().map(|stream| stream.log.index.len()).sum(),
            bytes: self.streams.values().map(|stream| stream.log.bytes).sum(),
            api_total: self.api_total,
            api_errors: self.api_errors,
            room: self.env.room,
        }
    }

    fn uptime(&self) -> String {
        seconds_text(self.env.now.saturating_sub(self.started) / 1_000_000_000)
    }

    /// `/varz`.
    pub fn varz(&self) -> Value {
        let settings = &self.settings;
        let totals = self.totals();
        json!({
            "server_id": settings.server_id, "server_name": settings.server_name, "version": VERSION, "proto": 1,
            "go": "fafnir", "host": settings.host, "port": settings.port,
            "auth_required": !settings.accounts.is_empty(),
            "max_connections": settings.connections_max, "max_payload": settings.payload_max,
            "max_subscriptions": settings.subscriptions_max,
            "max_control_line": CONTROL_LINE_MAX, "max_pending": settings.pending_max, "routes": 0, "remotes": 0,
            "leafnodes": 0, "ping_max": PINGS_OUT_MAX,
            "ping_interval": settings.ping_interval, "auth_timeout": settings.auth_timeout as f64 / 1e9,
            "start": clock::text(self.started), "now": clock::text(self.env.now), "uptime": self.uptime(),
            "connections": totals.connections, "total_connections": self.connections_total,
            "subscriptions": totals.subscriptions, "slow_consumers": totals.slow_consumers,
            "in_msgs": totals.counts.in_msgs, "in_bytes": totals.counts.in_bytes,
            "out_msgs": totals.counts.out_msgs, "out_bytes": totals.counts.out_bytes,
            "jetstream": {"config": jetstream_config(), "stats": self.jetstream_stats()},
        })
    }

    /// Account information as monitoring has it.
    fn jetstream_stats(&self) -> Value {
        let mut stats = self.account_info();
        stats["accounts"] = 1.into();
        stats["ha_assets"] = 0.into();
        stats
    }

    /// `/subsz`.
    pub fn subsz(&self) -> Value {
        json!({
            "server_id": self.settings.server_id, "now": clock::text(self.env.now),
            "num_subscriptions": self.env.net.index.len(),
        })
    }

    /// `/connz`, connections in the order of their ids; `pending` are the bytes that wait for one of them.
    pub fn connz(&self, offset: usize, subscriptions: bool, pending: impl Fn(ConnId) -> usize) -> Value {
        let mut ids: Vec<_> = self.env.net.conns.keys().copied().collect();
        ids.sort_unstable();
        let since = |at: Nanos| seconds_text(self.env.now.saturating_sub(at) / 1_000_000_000);
        let page: Vec<Value> = ids
            .iter()
            .skip(offset)
            .take(CONNZ_PAGE)
            .filter_map(|id| self.env.net.conns.get(id).map(|conn| (id, conn)))
            .map(|(id, conn)| {
                let (ip, port) = conn.peer.rsplit_once(':').unwrap_or((&conn.peer, "0"));
                let mut shown = json!({
                    "cid": id, "kind": "Client", "type": "nats", "ip": ip, "port": port.parse::<u16>().unwrap_or(0),
                    "start": clock::text(conn.since), "last_activity": clock::text(conn.active),
                    "uptime": since(conn.since), "idle": since(conn.active),
                    "in_msgs": conn.counts.in_msgs, "in_bytes": conn.counts.in_bytes,
                    "out_msgs": conn.counts.out_msgs, "out_bytes": conn.counts.out_bytes,
                    "subscriptions": self.env.net.sub_count(*id),
                    "name": conn.name, "lang": conn.lang, "version": conn.version, "authorized_user": conn.user,
                    "pending_bytes": pending(*id),
                });
                if subscriptions {
                    shown["subscriptions_list"] = self.env.net.patterns(*id, SUBSCRIPTIONS_MAX).into();
                }
                shown
            })
            .collect();
        json!({
            "server_id": self.settings.server_id, "now": clock::text(self.env.now),
            "num_connections": page.len(), "total": ids.len(), "offset": offset, "limit": CONNZ_PAGE,
            "connections": page,
        })
    }

    /// `/jsz`, with every stream and consumer if `details`.
    pub fn jsz(&mut self, details: bool) -> Value {
        let mut answer = self.jetstream_stats();
        answer["config"] = jetstream_config();
        answer["server_id"] = self.settings.server_id.clone().into();
        answer["now"] = clock::text(self.env.now).into();
        answer["messages"] = self.streams.values().map(|stream| stream.log.index.len()).sum::<u64>().into();
        answer["bytes"] = self.streams.values().map(|stream| stream.log.bytes).sum::<u64>().into();
        if details {
            let mut streams = Vec::new();
            for stream in self.streams.values_mut() {
                let ids: Vec<_> = stream.consumers.keys().copied().collect();
                let consumers: Vec<Value> =
                    ids.into_iter().filter_map(|id| consumer_info(stream, id, &mut self.env).ok()).collect();
                let mut detail = stream_info(stream);
                detail["name"] = stream.log.config.name.clone().into();
                detail["consumer_detail"] = consumers.into();
                streams.push(detail);
            }
            let mut account = self.account_info();
            account["name"] = "$G".into();
            account["id"] = "$G".into();
            account["stream_detail"] = streams.into();
            answer["account_details"] = json!([account]);
        }
        answer
    }
}

fn jetstream_config() -> Value {
    json!({"max_memory": -1, "max_storage": -1})
}

fn seconds_text(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m{}s", seconds % 60),
        _ => format!("{days}d{hours}h{minutes}m{}s", seconds % 60),
    }
}
