//! Pull requests: what may be asked, and joining the queue.

use super::consumer::Request;
use super::deliver::status;
use super::effects::ConsumerId;
use super::env::Env;
use super::stream::Stream;
use super::subject::Text;
use serde::Deserialize;

/// What a client asks for in `CONSUMER.MSG.NEXT`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pull {
    /// Number of messages; zero means one.
    pub batch: i64,
    /// Nanoseconds until the request ends; zero means never.
    pub expires: i64,
    /// End as soon as nothing is left.
    pub no_wait: bool,
    /// Bytes; zero means no bound.
    pub max_bytes: i64,
    /// Nanoseconds between heartbeats; zero means none.
    pub idle_heartbeat: i64,
}

/// Queues a request and serves it as far as possible.
pub fn request(stream: &mut Stream, id: ConsumerId, pull: &Pull, inbox: &Text, env: &mut Env) {
    let Stream { consumers, .. } = stream;
    let Some(consumer) = consumers.get_mut(&id) else { return };
    consumer.active = env.now;
    let config = consumer.config();
    if config.deliver_subject.is_some() {
        status(env, inbox, "409 Consumer is push based", &[]);
        return;
    }
    let refusal = if pull.batch < 0 || pull.expires < 0 || pull.max_bytes < 0 || pull.idle_heartbeat < 0 {
        Some("400 Bad Request - negative value".to_string())
    } else if pull.idle_heartbeat > 0
        && pull.expires > 0
        && pull.idle_heartbeat.saturating_mul(2) > pull.expires
    {
        Some("400 Bad Request - heartbeat value too large".to_string())
    } else if pull.idle_heartbeat > 0 && pull.expires == 0 {
        Some("400 Bad Request - heartbeat needs expires".to_string())
    } else if config.max_batch > 0 && pull.batch > config.max_batch {
        Some(format!("409 Exceeded MaxRequestBatch of {}", config.max_batch))
    } else if config.max_expires > 0 && pull.expires > config.max_expires {
        Some(format!("409 Exceeded MaxRequestExpires of {}", duration_text(config.max_expires)))
    } else if config.max_bytes > 0 && pull.max_bytes > config.max_bytes {
        Some(format!("409 Exceeded MaxRequestMaxBytes of {}", config.max_bytes))
    } else {
        None
    };
    if let Some(line) = refusal {
        status(env, inbox, &line, &[]);
        return;
    }
    if config.max_waiting > 0 && consumer.waiting.len() as i64 >= config.max_waiting {
        consumer.waiting.retain(|request| env.net.index.has_interest(&request.inbox));
        if consumer.waiting.len() as i64 >= consumer.config().max_waiting {
            status(env, inbox, "409 Exceeded MaxWaiting", &[]);
            return;
        }
    }
    let heartbeat = (pull.idle_heartbeat > 0).then_some(pull.idle_heartbeat as u64);
    let expires = (pull.expires > 0).then(|| env.now.saturating_add(pull.expires as u64));
    if let Some(at) = expires.into_iter().chain(heartbeat.map(|every| env.now + every)).min() {
        env.timers.arm(consumer.timer(), at);
    }
    consumer.waiting.push_back(Request {
        inbox: inbox.clone(),
        left: pull.batch.max(1) as u64,
        delivered: 0,
        expires,
        no_wait: pull.no_wait,
        bytes_left: (pull.max_bytes > 0).then_some(pull.max_bytes as u64),
        heartbeat,
        heartbeat_at: heartbeat.map_or(0, |every| env.now + every),
    });
    stream.pump_one(id, env);
}

/// A duration as the original prints it: the largest unit that keeps it whole.
fn duration_text(nanos: i64) -> String {
    let units = [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms")];
    if nanos % 3_600_000_000_000 == 0 {
        return format!("{}h0m0s", nanos / 3_600_000_000_000);
    }
    if nanos % 60_000_000_000 == 0 {
        return format!("{}m0s", nanos / 60_000_000_000);
    }
    for (unit, name) in units {
        if nanos % unit == 0 {
            return format!("{}{name}", nanos / unit);
        }
    }
    format!("{nanos}ns")
}
