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

/// Replaces what differs from run to run.
fn scrub(value: &mut Value) {
    match value {
        Value::Object(members) => {
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
