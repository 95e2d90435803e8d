//! Errors of the JetStream API, in the original's numbers and words.

use serde_json::{Value, json};

/// An error as the API states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Like an HTTP status.
    pub code: u16,
    /// The original's error number.
    pub err_code: u32,
    /// What is wrong.
    pub description: String,
}

impl Fault {
    /// An error with a text of its own.
    pub fn new(code: u16, err_code: u32, description: impl Into<String>) -> Self {
        Self { code, err_code, description: description.into() }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({"code": self.code, "err_code": self.err_code, "description": self.description})
    }

    /// 10059.
    pub fn stream_not_found() -> Self {
        Self::new(404, 10059, "stream not found")
    }

    /// 10014.
    pub fn consumer_not_found() -> Self {
        Self::new(404, 10014, "consumer not found")
    }

    /// 10023: the disk is full.
    pub fn no_room() -> Self {
        Self::new(503, 10023, "insufficient resources")
    }

    /// 10074.
    pub fn replicas() -> Self {
        Self::new(500, 10074, "replicas > 1 not supported in non-clustered mode")
    }

    /// 10037.
    pub fn no_message_found() -> Self {
        Self::new(404, 10037, "no message found")
    }

    /// 10058.
    pub fn stream_name_in_use() -> Self {
        Self::new(400, 10058, "stream name already in use with a different configuration")
    }

    /// 10065.
    pub fn subjects_overlap() -> Self {
        Self::new(400, 10065, "subjects overlap with an existing stream")
    }

    /// 10003.
    pub fn bad_request() -> Self {
        Self::new(400, 10003, "bad request")
    }

    /// 10025.
    pub fn invalid_json() -> Self {
        Self::new(400, 10025, "invalid JSON")
    }

    /// 10056.
    pub fn stream_mismatch() -> Self {
        Self::new(400, 10056, "stream name in subject does not match request")
    }

    /// 10017.
    pub fn durable_mismatch() -> Self {
        Self::new(400, 10017, "consumer name in subject does not match durable name in request")
    }

    /// 10013.
    pub fn consumer_name_in_use() -> Self {
        Self::new(400, 10013, "consumer name already in use")
    }

    /// 10012.
    pub fn consumer_create(reason: impl Into<String>) -> Self {
        Self::new(500, 10012, reason)
    }

    /// 10052.
    pub fn stream_config(reason: impl Into<String>) -> Self {
        Self::new(500, 10052, reason)
    }

    /// 10043.
    pub fn sequence_not_found(seq: u64) -> Self {
        Self::new(400, 10043, format!("sequence {seq} not found"))
    }

    /// 10109.
    pub fn sealed() -> Self {
        Self::new(400, 10109, "invalid operation on sealed stream")
    }
}
