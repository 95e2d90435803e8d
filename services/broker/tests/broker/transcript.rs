//! What a scenario saw, in lines that are equal on every server: no times, no random names.

use async_nats::Client;
use bytes::Bytes;
use serde_json::Value;
use std::fmt::Display;
use std::time::Duration;

/// Lines of one scenario.
#[derive(Default)]
pub struct Transcript {
    pub lines: Vec<String>,
}

impl Transcript {
    pub fn say(&mut self, line: impl Display) {
        self.lines.push(line.to_string());
    }

    /// A result: its value or its error.
    pub fn result<T: Display, E: Display>(&mut self, what: &str, result: Result<T, E>) {
        match result {
            Ok(value) => self.say(format!("{what}: {value}")),
            Err(error) => self.say(format!("{what}: error: {error}")),
        }
    }

    /// A raw request to the JetStream API with its whole answer.
    pub async fn api(&mut self, client: &Client, operation: &str, body: &str) -> Value {
        let subject = format!("$JS.API.{operation}");
        let request = client.request(subject, Bytes::copy_from_slice(body.as_bytes()));
        let answer = match tokio::time::timeout(Duration::from_secs(5), request).await {
            Ok(Ok(answer)) => serde_json::from_slice(&answer.payload).unwrap_or(Value::Null),
            Ok(Err(error)) => Value::String(error.to_string()),
            Err(_) => Value::String("silence".into()),
        };
        let mut shown = answer.clone();
        scrub(&mut shown);
        if shown["error"].is_object() {
            shown = shown["error"].take();
        }
        self.say(format!("{operation} {body} -> {shown}"));
        answer
    }
}

/// An answer to a publish, its members in one order.
pub fn canonical(payload: &[u8]) -> String {
    serde_json::from_slice::<Value>(payload)
        .map_or_else(|_| String::from_utf8_lossy(payload).into_owned(), |value| value.to_string())
}

/// Members by which a later server tells of what is not served here, or of itself.
const LATER: [&str; 4] = ["ts", "cluster", "consumer_limits", "allow_msg_ttl"];
/// How a server begins the names of what it notes in `metadata` itself.
const OWN_METADATA: &str = "_nats.";
/// What precedes the words of a parser.
const BAD_JSON: &str = "invalid JSON";

/// Replaces what differs from run to run, and leaves out what is known to differ.
fn scrub(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| !LATER.contains(&key.as_str()));
            if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|key, _| !key.starts_with(OWN_METADATA));
                if metadata.is_empty() {
                    members.remove("metadata");
                }
            }
            if let Some(Value::String(text)) = members.get_mut("description")
                && text.starts_with(BAD_JSON)
            {
                text.truncate(BAD_JSON.len());
            }
            for (key, member) in members.iter_mut() {
                match key.as_str() {
                    "created" | "first_ts" | "last_ts" | "time" | "last_active" => {
                        if member.as_str().is_some_and(|text| !text.starts_with("0001")) {
                            *member = Value::String("TIME".into());
                        }
                    }
                    _ => scrub(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        _ => {}
    }
}
