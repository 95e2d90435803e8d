//! Stream and consumer configurations: how clients write them, with defaults filled in and rules checked.

use super::fault::Fault;
use super::subject::{has_wildcard, is_pattern, overlaps};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Default dedupe window: 2 minutes in nanoseconds.
pub const DUPLICATE_WINDOW: i64 = 120_000_000_000;
/// Default ack wait: 30 s in nanoseconds.
pub const ACK_WAIT: i64 = 30_000_000_000;
/// Default of `max_ack_pending`.
pub const MAX_ACK_PENDING: i64 = 1000;
/// Default of `max_waiting` for pull consumers.
pub const MAX_WAITING: i64 = 512;
/// Default inactive threshold of consumers without a durable name: 5 s in nanoseconds.
pub const INACTIVE_THRESHOLD: i64 = 5_000_000_000;
/// Shortest heartbeat of a push consumer, in nanoseconds.
const HEARTBEAT_MIN: i64 = 100_000_000;
/// Bytes of all metadata of a stream or consumer together.
const METADATA_MAX: usize = 128 << 10;
/// Longest name of a stream or consumer, in bytes.
pub const NAME_MAX: usize = 255;
/// Most subjects of one stream, or filters of one consumer.
pub const SUBJECTS_MAX: usize = 1000;
/// Longest description, in bytes.
pub const DESCRIPTION_MAX: usize = 4096;
/// Most steps of a back-off.
pub const BACKOFF_MAX: usize = 100;

/// When messages leave a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// By limits only.
    #[default]
    Limits,
    /// When every consumer acked.
    Interest,
    /// When one consumer acked.
    WorkQueue,
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory: gone with the process.
    Memory,
}

/// What gives way when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest messages.
    #[default]
    Old,
    /// The new message is refused.
    New,
}

/// Configuration of a stream; durations in nanoseconds, `-1` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::module_name_repetitions,
    reason = "the protocol's own fields and name"
)]
pub struct StreamConfig {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub subjects: Vec<String>,
    pub retention: Retention,
    pub max_consumers: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: i64,
    pub max_msgs_per_subject: i64,
    pub max_msg_size: i64,
    pub discard: Discard,
    #[serde(skip_serializing_if = "is_false")]
    pub discard_new_per_subject: bool,
    pub storage: Storage,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub no_ack: bool,
    pub duplicate_window: i64,
    pub allow_rollup_hdrs: bool,
    pub allow_direct: bool,
    /// Always false: there are no mirrors.
    pub mirror_direct: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub sealed: bool,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub first_seq: u64,
    pub compression: Compression,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// How messages are compressed on disk: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    None,
}

/// What a stream's configuration may set; anything else is refused, so that nobody relies on it.
pub const STREAM_KEYS: [&str; 25] = [
    "name",
    "description",
    "subjects",
    "retention",
    "max_consumers",
    "max_msgs",
    "max_bytes",
    "max_age",
    "max_msgs_per_subject",
    "max_msg_size",
    "discard",
    "discard_new_per_subject",
    "storage",
    "num_replicas",
    "no_ack",
    "duplicate_window",
    "allow_rollup_hdrs",
    "allow_direct",
    "mirror_direct",
    "deny_delete",
    "deny_purge",
    "sealed",
    "first_seq",
    "metadata",
    // nats-py sets it for every key-value bucket. It is not served: a message that has a time to live is refused.
    "allow_msg_ttl",
];

/// What a consumer's configuration may set.
pub const CONSUMER_KEYS: [&str; 28] = [
    "durable_name",
    "name",
    "description",
    "deliver_policy",
    "opt_start_seq",
    "opt_start_time",
    "ack_policy",
    "ack_wait",
    "max_deliver",
    "backoff",
    "filter_subject",
    "filter_subjects",
    "replay_policy",
    "rate_limit_bps",
    "max_waiting",
    "max_ack_pending",
    "headers_only",
    "max_batch",
    "max_expires",
    "max_bytes",
    "inactive_threshold",
    "deliver_subject",
    "deliver_group",
    "flow_control",
    "idle_heartbeat",
    "num_replicas",
    "mem_storage",
    "metadata",
];

/// Where a consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    #[default]
    All,
    Last,
    New,
    ByStartSequence,
    ByStartTime,
    LastPerSubject,
}

/// What an ack settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckPolicy {
    #[default]
    None,
    All,
    Explicit,
}

/// How fast stored messages are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayPolicy {
    #[default]
    Instant,
    /// Understood, served like `instant`.
    Original,
}

/// Configuration of a consumer; durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::module_name_repetitions, reason = "the protocol's own fields and name")]
pub struct ConsumerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<String>,
    pub ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "is_zero")]
    pub ack_wait: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_deliver: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: ReplayPolicy,
    #[serde(skip_serializing_if = "is_zero")]
    pub rate_limit_bps: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_waiting: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub headers_only: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_batch: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_expires: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_group: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub flow_control: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub idle_heartbeat: i64,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub mem_storage: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

/// Removes members that are null: clients write them for "not set".
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// A name that can stand in a subject token.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.bytes().any(|b| b <= b' ' || b == 0x7f || matches!(b, b'.' | b'*' | b'>' | b'/' | b'\\'))
}

fn check_metadata(metadata: &BTreeMap<String, String>, refuse: fn(String) -> Fault) -> Result<(), Fault> {
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > METADATA_MAX {
        Err(refuse(format!("metadata is longer than {METADATA_MAX} bytes")))
    } else {
        Ok(())
    }
}

fn unlimited(value: &mut i64) {
    if *value <= 0 {
        *value = -1;
    }
}

impl StreamConfig {
    /// Fills in the defaults and checks the rules that concern this stream alone.
    pub fn normalized(mut self) -> Result<Self, Fault> {
        if !is_name(&self.name) {
            return Err(Fault::stream_config(
                "stream name is required and can not contain '.', '*', '>', blanks",
            ));
        }
        if self.mirror_direct {
            return Err(Fault::stream_config("stream has no mirror but does have mirror direct"));
        }
        check_metadata(&self.metadata, Fault::stream_config)?;
        if self.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_MAX) {
            return Err(Fault::stream_config(format!(
                "stream description is too long, maximum allowed is {DESCRIPTION_MAX}"
            )));
        }
        if self.subjects.is_empty() {
            self.subjects = vec![self.name.clone()];
        }
        self.check_subjects()?;
        if self.max_age < 0 || self.duplicate_window < 0 {
            return Err(Fault::stream_config("max age and duplicate window can not be negative"));
        }
        if self.max_age > 0 && self.max_age < 100_000_000 {
            return Err(Fault::stream_config("max age needs to be >= 100ms"));
        }
        if self.duplicate_window > 0 && self.duplicate_window < 100_000_000 {
            return Err(Fault::stream_config("duplicates window needs to be >= 100ms"));
        }
        if self.duplicate_window == 0 {
            self.duplicate_window =
                if self.max_age > 0 { DUPLICATE_WINDOW.min(self.max_age) } else { DUPLICATE_WINDOW };
        }
        if self.max_age > 0 && self.duplicate_window > self.max_age {
            return Err(Fault::stream_config("duplicates window can not be larger then max age"));
        }
        unlimited(&mut self.max_consumers);
        unlimited(&mut self.max_msgs);
        unlimited(&mut self.max_bytes);
        unlimited(&mut self.max_msgs_per_subject);
        unlimited(&mut self.max_msg_size);
        self.num_replicas = self.num_replicas.max(1);
        if self.num_replicas > 1 {
            return Err(Fault::replicas());
        }
        if self.discard_new_per_subject && (self.discard != Discard::New || self.max_msgs_per_subject < 1) {
            return Err(Fault::stream_config(
                "discard new per subject requires discard new policy and max msgs per subject to be set",
            ));
        }
        if self.allow_rollup_hdrs && self.deny_purge {
            return Err(Fault::stream_config("roll-ups require the purge permission"));
        }
        Ok(self)
    }

    fn check_subjects(&self) -> Result<(), Fault> {
        if self.subjects.len() > SUBJECTS_MAX {
            return Err(Fault::stream_config(format!("at most {SUBJECTS_MAX} subjects are allowed")));
        }
        for (at, subject) in self.subjects.iter().enumerate() {
            if !is_pattern(subject) {
                return Err(Fault::stream_config("invalid subject"));
            }
            if overlaps(subject, "$JS.API.>") {
                return Err(Fault::stream_config(
                    "subjects that overlap with jetstream api require no-ack to be true",
                ));
            }
            if self.subjects[..at].contains(subject) {
                return Err(Fault::stream_config("duplicate subjects detected"));
            }
            if self.subjects[..at].iter().any(|other| overlaps(other, subject)) {
                return Err(Fault::stream_config(format!(
                    "subject {subject:?} overlaps with another of this stream"
                )));
            }
        }
        Ok(())
    }

    /// What sealing entails: nothing comes, nothing goes.
    pub fn seal(&mut self) {
        self.max_age = 0;
        self.discard = Discard::New;
        self.deny_delete = true;
        self.deny_purge = true;
        self.allow_rollup_hdrs = false;
    }

    /// Whether a message to this subject belongs to the stream.
    pub fn captures(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| super::subject::matches(pattern, subject))
    }
}

impl ConsumerConfig {
    /// Fills in the defaults and checks the rules, given the stream it belongs to.
    pub fn normalized(mut self, stream: &StreamConfig) -> Result<Self, Fault> {
        let fault = |reason: &str| Err(Fault::consumer_create(reason));
        for name in [&self.durable_name, &self.name].into_iter().flatten() {
            if !is_name(name) {
                return fault("consumer name can not contain '.', '*', '>', blanks");
            }
        }
        for text in
            [&mut self.durable_name, &mut self.name, &mut self.deliver_group, &mut self.deliver_subject]
        {
            if text.as_ref().is_some_and(String::is_empty) {
                *text = None;
            }
        }
        if self.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_MAX) {
            return fault("consumer description is too long");
        }
        if self.backoff.len() > BACKOFF_MAX || self.backoff.iter().any(|step| *step < 0) {
            return fault("consumer backoff is not valid");
        }
        let durations = [self.ack_wait, self.inactive_threshold, self.idle_heartbeat, self.max_expires];
        if durations.iter().any(|duration| *duration < 0) {
            return fault("consumer durations can not be negative");
        }
        check_metadata(&self.metadata, Fault::consumer_create)?;
        if self.replay_policy == ReplayPolicy::Original {
            return fault("replay_policy original is not supported");
        }
        if self.num_replicas > 1 {
            return Err(Fault::replicas());
        }
        self.check_filters()?;
        self.settle_delivery(stream)?;
        self.check_start()?;
        if let Some(first) = self.backoff.first() {
            self.ack_wait = *first;
            if self.max_deliver > 0 && self.backoff.len() as i64 > self.max_deliver {
                return Err(Fault::new(
                    400,
                    10116,
                    "max deliver is required to be > length of backoff values",
                ));
            }
        }
        if self.ack_policy == AckPolicy::None {
            self.ack_wait = 0;
            self.max_ack_pending = 0;
        } else {
            if self.ack_wait == 0 {
                self.ack_wait = ACK_WAIT;
            }
            if self.max_ack_pending == 0 {
                self.max_ack_pending = MAX_ACK_PENDING;
            }
        }
        if self.max_deliver <= 0 {
            self.max_deliver = -1;
        }
        if self.durable_name.is_none() && self.inactive_threshold == 0 {
            self.inactive_threshold = INACTIVE_THRESHOLD;
        }
        self.num_replicas = self.num_replicas.max(0);
        Ok(self)
    }

    fn check_filters(&self) -> Result<(), Fault> {
        let fault = |reason: &str| Err(Fault::consumer_create(reason));
        if self.filter_subjects.len() > SUBJECTS_MAX {
            return fault("consumer has too many filters");
        }
        if !self.filter_subject.is_empty() && !self.filter_subjects.is_empty() {
            return Err(Fault::new(
                500,
                10136,
                "consumer cannot have both FilterSubject and FilterSubjects specified",
            ));
        }
        let overlap = |(at, filter): (usize, &String)| {
            self.filter_subjects[..at].iter().any(|other| overlaps(other, filter))
        };
        if self.filter_subjects.iter().enumerate().any(overlap) {
            return Err(Fault::new(400, 10138, "consumer subject filters cannot overlap"));
        }
        for filter in self.filters() {
            if !is_pattern(filter) {
                return fault("consumer filter subject is not a valid subject");
            }
        }
        Ok(())
    }

    /// What a push consumer may not set, and what a pull consumer may not.
    fn settle_delivery(&mut self, stream: &StreamConfig) -> Result<(), Fault> {
        let fault = |reason: &str| Err(Fault::consumer_create(reason));
        if let Some(deliver) = &self.deliver_subject {
            if self.rate_limit_bps > 0 {
                return fault("rate_limit_bps is not supported");
            }
            if self.idle_heartbeat > 0 && self.idle_heartbeat < HEARTBEAT_MIN {
                return Err(Fault::new(400, 10083, "consumer idle heartbeat needs to be >= 100ms"));
            }
            if self.flow_control && self.idle_heartbeat == 0 {
                return Err(Fault::new(400, 10108, "consumer with flow control also needs heartbeats"));
            }
            if !is_pattern(deliver) || has_wildcard(deliver) {
                return Err(Fault::new(400, 10079, "consumer deliver subject has wildcards"));
            }
            if stream.captures(deliver) {
                return Err(Fault::new(400, 10081, "consumer deliver subject forms a cycle"));
            }
            if self.max_waiting > 0 {
                return Err(Fault::new(400, 10089, "consumer in push mode can not set max waiting"));
            }
        } else {
            if self.rate_limit_bps > 0 {
                return Err(Fault::new(400, 10086, "consumer in pull mode can not have rate limit set"));
            }
            if self.flow_control || self.idle_heartbeat > 0 {
                return fault("consumer idle heartbeat and flow control require a push based consumer");
            }
            if self.deliver_group.is_some() {
                return fault("consumer deliver group requires a push based consumer");
            }
            if self.max_waiting < 0 {
                return Err(Fault::new(400, 10087, "consumer max waiting needs to be positive"));
            }
            if self.max_waiting == 0 {
                self.max_waiting = MAX_WAITING;
            }
        }
        Ok(())
    }

    /// Whether the place where it starts fits its delivery policy.
    fn check_start(&self) -> Result<(), Fault> {
        let policy = |reason: &str| Err(Fault::new(400, 10094, reason));
        match self.deliver_policy {
            DeliverPolicy::ByStartSequence if self.opt_start_seq == 0 => {
                return policy(
                    "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
                );
            }
            DeliverPolicy::ByStartTime if self.opt_start_time.is_none() => {
                return policy(
                    "consumer delivery policy is deliver by start time, but optional start time is not set",
                );
            }
            DeliverPolicy::LastPerSubject if self.filters().next().is_none() => {
                return policy(
                    "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
                );
            }
            DeliverPolicy::ByStartSequence | DeliverPolicy::ByStartTime => {}
            _ if self.opt_start_seq != 0 => {
                return policy("consumer delivery policy does not take a start sequence");
            }
            _ if self.opt_start_time.is_some() => {
                return policy("consumer delivery policy does not take a start time");
            }
            _ => {}
        }
        if let Some(time) = &self.opt_start_time
            && super::clock::parse(time).is_none()
        {
            return Err(Fault::consumer_create("consumer start time is not an RFC 3339 time"));
        }
        Ok(())
    }

    /// The subjects it wants; none means all.
    pub fn filters(&self) -> impl Iterator<Item = &str> + Clone {
        (!self.filter_subject.is_empty())
            .then_some(self.filter_subject.as_str())
            .into_iter()
            .chain(self.filter_subjects.iter().map(String::as_str))
    }

    /// Why a consumer with this configuration cannot become `new`, if it cannot.
    pub fn update_refusal(&self, new: &Self) -> Option<&'static str> {
        if self.deliver_policy != new.deliver_policy {
            Some("deliver policy can not be updated")
        } else if self.opt_start_seq != new.opt_start_seq {
            Some("start sequence can not be updated")
        } else if self.opt_start_time != new.opt_start_time {
            Some("start time can not be updated")
        } else if self.ack_policy != new.ack_policy {
            Some("ack policy can not be updated")
        } else if self.replay_policy != new.replay_policy {
            Some("replay policy can not be updated")
        } else if self.flow_control != new.flow_control {
            Some("flow control can not be updated")
        } else if self.idle_heartbeat != new.idle_heartbeat {
            Some("heart beats can not be updated")
        } else if self.max_waiting != new.max_waiting {
            Some("max waiting can not be updated")
        } else if self.deliver_subject.is_some() != new.deliver_subject.is_some() {
            Some("can not update pull consumer to push based, nor the reverse")
        } else {
            None
        }
    }
}
