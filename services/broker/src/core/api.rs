//! The JetStream API: which request is which, and how answers are wrapped.

use super::Core;
use super::config::without_nulls;
use super::deliver::status;
use super::fault::Fault;
use super::pull::{self, Pull};
use super::subject::Text;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// An answer of the API: the members of a success, or an error.
pub type Answer = Result<Value, Fault>;

/// Reads a request; null and unknown members are ignored.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Fault::invalid_json())?;
    if value.is_array() {
        // It would be read as the members in their order.
        return Err(Fault::invalid_json());
    }
    serde_json::from_value(without_nulls(value)).map_err(|_| Fault::invalid_json())
}

/// Reads a request whose configuration, at `path` in it, has nothing set that this server does not serve.
pub fn parse_served<T: DeserializeOwned>(
    body: &[u8],
    path: &[&str],
    served: &[&str],
    refuse: fn(String) -> Fault,
) -> Result<T, Fault> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Fault::invalid_json())?;
    let config = path.iter().fold(&value, |value, key| &value[*key]);
    let unserved = |(key, value): (&String, &Value)| {
        (!served.contains(&key.as_str()) && is_set(value)).then(|| key.clone())
    };
    if let Some(key) = config.as_object().and_then(|members| members.iter().find_map(unserved)) {
        return Err(refuse(format!("{key} is not supported")));
    }
    serde_json::from_value(without_nulls(value)).map_err(|_| Fault::invalid_json())
}

/// Texts by which clients write that they ask for nothing.
const SAYS_NOTHING: [&str; 6] = ["", "none", "default", "0", "0%", "0001-01-01T00:00:00Z"];

/// Whether a member of a configuration asks for something.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !SAYS_NOTHING.contains(&text.as_str()),
        Value::Array(items) => items.iter().any(is_set),
        Value::Object(members) => members.values().any(is_set),
    }
}

/// Reads what narrows down a question; like the original it takes a body that is neither object nor array for none.
pub fn parse_narrowing<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Fault> {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => parse(body),
        _ => Ok(T::default()),
    }
}

/// Reads a request whose body may be absent; clients write `null` for that too.
pub fn parse_optional<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Fault> {
    if body.trim_ascii().is_empty() {
        Ok(T::default())
    } else {
        Ok(parse::<Option<T>>(body)?.unwrap_or_default())
    }
}

/// Reads the body of a pull request: nothing, a number, or JSON.
pub fn parse_pull(body: &[u8]) -> Result<Pull, Fault> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(Pull { batch: 1, ..Pull::default() });
    }
    if body.iter().all(u8::is_ascii_digit) {
        let batch = std::str::from_utf8(body).ok().and_then(|digits| digits.parse().ok());
        return batch.map(|batch| Pull { batch, ..Pull::default() }).ok_or_else(Fault::bad_request);
    }
    parse(body)
}

impl Core {
    /// Takes a request to `$JS.API.<operation>`; false if there is no such operation.
    pub(super) fn api(&mut self, operation: &str, reply: Option<&Text>, body: &Bytes) -> bool {
        if let Some(rest) = operation.strip_prefix("CONSUMER.MSG.NEXT.") {
            self.next_message(rest, reply, body);
            return true;
        }
        self.api_total += 1;
        if let Some(rest) = operation.strip_prefix("DIRECT.GET.") {
            self.direct_get(rest, reply, body);
            return true;
        }
        let mut tokens = operation.splitn(3, '.');
        let verb = (tokens.next().unwrap_or(""), tokens.next().unwrap_or(""));
        let rest = tokens.next().unwrap_or("");
        let (kind, answer) = match verb {
            ("INFO", "") => ("account_info", Ok(self.account_info())),
            ("STREAM", "CREATE") => ("stream_create", self.stream_create(rest, body)),
            ("STREAM", "UPDATE") => ("stream_update", self.stream_update(rest, body)),
            ("STREAM", "INFO") => {
                self.stream_info_request(rest, reply, body);
                return true;
            }
            ("STREAM", "DELETE") => ("stream_delete", self.stream_delete(rest)),
            ("STREAM", "PURGE") => ("stream_purge", self.stream_purge(rest, body)),
            ("STREAM", "NAMES") => ("stream_names", self.stream_names(body)),
            ("STREAM", "LIST") => ("stream_list", self.stream_list(body)),
            ("STREAM", "MSG") => match rest.split_once('.') {
                Some(("GET", stream)) => {
                    self.message_get(stream, reply, body);
                    return true;
                }
                Some(("DELETE", stream)) => ("stream_msg_delete", self.message_delete(stream, body)),
                _ => return false,
            },
            ("CONSUMER", "CREATE") => ("consumer_create", self.consumer_create(rest, body, true)),
            ("CONSUMER", "DURABLE") => match rest.strip_prefix("CREATE.") {
                Some(rest) => ("consumer_create", self.consumer_create(rest, body, false)),
                None => return false,
            },
            ("CONSUMER", "INFO") => ("consumer_info", self.consumer_info_request(rest)),
            ("CONSUMER", "DELETE") => ("consumer_delete", self.consumer_delete(rest)),
            ("CONSUMER", "NAMES") => ("consumer_names", self.consumer_names(rest, body)),
            ("CONSUMER", "LIST") => ("consumer_list", self.consumer_list(rest, body)),
            _ => return false,
        };
        let confirms = matches!(
            kind,
            "stream_create"
                | "stream_update"
                | "stream_delete"
                | "stream_purge"
                | "stream_msg_delete"
                | "consumer_create"
                | "consumer_delete"
        );
        if confirms {
            self.answer(kind, answer, reply);
        } else {
            self.inform(kind, answer, reply);
        }
        true
    }

    /// Sends an answer once what it confirms is on disk.
    fn answer(&mut self, kind: &str, answer: Answer, reply: Option<&Text>) {
        if let Ok(value) = answer {
            if let Some(reply) = reply {
                self.env.reply(reply, wrap(kind, value).to_string().into());
            }
        } else {
            self.inform(kind, answer, reply);
        }
    }

    /// Sends an answer that confirms nothing.
    pub(super) fn inform(&mut self, kind: &str, answer: Answer, reply: Option<&Text>) {
        if answer.is_err() {
            self.api_errors += 1;
        }
        let Some(reply) = reply else { return };
        let value = answer.unwrap_or_else(|fault| json!({"error": fault.json()}));
        self.env.tell(reply, Bytes::new(), wrap(kind, value).to_string().into());
    }

    fn next_message(&mut self, rest: &str, reply: Option<&Text>, body: &Bytes) {
        let Some(inbox) = reply else { return };
        let found = rest.split_once('.').and_then(|(stream, consumer)| {
            let id = *self.by_name.get(stream)?;
            let consumer = *self.streams.get(&id)?.names.get(consumer)?;
            Some((id, consumer))
        });
        let Some((stream, consumer)) = found else {
            status(&mut self.env, inbox, "503", &[]);
            return;
        };
        match parse_pull(body) {
            Ok(asked) => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    pull::request(stream, consumer, &asked, inbox, &mut self.env);
                }
            }
            Err(fault) => {
                status(&mut self.env, inbox, &format!("400 Bad Request - {}", fault.description), &[]);
            }
        }
    }

    pub(super) fn account_info(&self) -> Value {
        let sum = |on_disk: bool| {
            self.streams.values().filter(|s| s.log.on_disk() == on_disk).map(|s| s.log.bytes).sum::<u64>()
        };
        let reserved = |on_disk: bool| {
            self.streams
                .values()
                .filter(|s| s.log.on_disk() == on_disk)
                .map(|s| s.log.config.max_bytes.max(0))
                .sum::<i64>()
        };
        json!({
            "memory": sum(false),
            "storage": sum(true),
            "reserved_memory": reserved(false),
            "reserved_storage": reserved(true),
            "streams": self.streams.len(),
            "consumers": self.consumer_count(),
            "limits": {
                "max_memory": -1, "max_storage": -1,
                "max_streams": self.settings.streams_max, "max_consumers": self.settings.consumers_max,
                "max_ack_pending": -1, "memory_max_stream_bytes": -1, "storage_max_stream_bytes": -1,
                "max_bytes_required": false,
            },
            "api": {"total": self.api_total, "errors": self.api_errors},
        })
    }

    /// Number of consumers in all streams.
    pub(super) fn consumer_count(&self) -> usize {
        self.streams.values().map(|stream| stream.consumers.len()).sum()
    }
}

pub(super) fn wrap(kind: &str, value: Value) -> Value {
    let mut body = Map::new();
    body.insert("type".into(), Value::String(format!("io.nats.jetstream.api.v1.{kind}_response")));
    if let Value::Object(members) = value {
        body.extend(members);
    }
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_bodies_are_empty_a_number_or_json_with_nulls() {
        assert_eq!(parse_pull(b"").unwrap().batch, 1);
        assert_eq!(parse_pull(b" 7 ").unwrap().batch, 7);
        let pull = parse_pull(br#"{"batch":2,"expires":null,"group":null,"no_wait":true}"#).unwrap();
        assert_eq!(pull, Pull { batch: 2, no_wait: true, ..Pull::default() });
        assert!(parse_pull(b"{").is_err());
        assert!(parse_pull(b"99999999999999999999").is_err());
    }
}
