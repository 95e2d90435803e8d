//! Checksums of rows: over every column and over what the row is the row of.

use crate::core::effects::{ConsumerId, Pair, PendingRecord, StreamId};
use crate::core::net::Nanos;

/// Over numbers in order.
pub fn numbers(numbers: &[u64]) -> u32 {
    numbers.iter().fold(0, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()))
}

/// Over a text and a number.
pub fn keyed(text: &str, number: u64) -> u32 {
    crc32c::crc32c_append(numbers(&[number]), text.as_bytes())
}

/// Over a message's header and payload.
pub fn body(header: &[u8], payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(numbers(&[header.len() as u64]), header);
    crc32c::crc32c_append(sum, payload)
}

/// Over a message's row in the index, which has the checksum of its body.
pub fn index(seq: u64, ts: Nanos, size: u32, subject: &str, body: u32) -> u32 {
    let mut fixed = [0; 24];
    fixed[..8].copy_from_slice(&seq.to_le_bytes());
    fixed[8..16].copy_from_slice(&ts.to_le_bytes());
    fixed[16..20].copy_from_slice(&size.to_le_bytes());
    fixed[20..].copy_from_slice(&body.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&fixed), subject.as_bytes())
}

/// Over a remembered message id.
pub fn dedupe(seq: u64, ts: Nanos, id: &str) -> u32 {
    crc32c::crc32c_append(numbers(&[seq, ts]), id.as_bytes())
}

/// Over a consumer's description.
pub fn consumer(id: ConsumerId, stream: StreamId, record: &str) -> u32 {
    crc32c::crc32c_append(numbers(&[u64::from(id), u64::from(stream)]), record.as_bytes())
}

/// Over where a consumer stands.
pub fn position(id: ConsumerId, delivered: Pair, floor: Pair) -> u32 {
    numbers(&[u64::from(id), delivered.consumer, delivered.stream, floor.consumer, floor.stream])
}

/// Over a delivery that awaits its ack.
pub fn pending(consumer: ConsumerId, record: &PendingRecord) -> u32 {
    numbers(&[u64::from(consumer), record.sequence, record.consumer_seq, record.count])
}
