//! Reading a request's body within a bound: too much is 413, and is read away so that the client sees the answer.

use axum::body::{Body, Bytes};
use fafnir_platform::envelope::Failure;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use std::time::Duration;

/// Bytes of a refused body that are read away before the connection is given up.
const DISCARD_MAX: u64 = 32 * 1024 * 1024;
/// Longest time spent on reading a refused body away.
const DISCARD_DEADLINE: Duration = Duration::from_secs(3);

/// The whole body, at most `limit` bytes.
pub async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Failure> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let mut content = Vec::new();
    let mut fits = declared.is_none_or(|length| length <= limit as u64);
    while fits && let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::bad_request("the body ended early"))?;
        if let Ok(data) = frame.into_data() {
            fits = content.len() + data.len() <= limit;
            content.extend_from_slice(&data);
        }
    }
    if fits {
        return Ok(content.into());
    }
    if declared.is_none_or(|length| length <= DISCARD_MAX) {
        let discard = async {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, |d| d.len() as u64);
                if read > DISCARD_MAX {
                    break;
                }
            }
        };
        // Out of time is as good as done: the answer goes out either way.
        drop(tokio::time::timeout(DISCARD_DEADLINE, discard).await);
    }
    let text = format!("the body must have at most {limit} bytes");
    Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text))
}
