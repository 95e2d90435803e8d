//! The two logs: the journal of commands, and the fact log, one record per fact by its position.

use crate::seglog::{self, Segment, Spec};
use bytes::Bytes;
use fafnir_clearing::codec::{Malformed, RULES_VERSION, Reader, put_text, put_u64};
use fafnir_proto::trace::Trace;
use std::collections::BTreeMap;

/// Tests see logs roll within a few thousand commands.
const fn segment_bytes(bytes: u64) -> u64 {
    if cfg!(test) { 256 * 1024 } else { bytes }
}

/// Every command, numbered. What is not in it did not happen.
pub const JOURNAL: Spec = Spec {
    name: "journal",
    magic: *b"FAFCMDS1",
    rules: RULES_VERSION,
    segment_bytes: segment_bytes(16 * 1024 * 1024),
};

/// Every fact; made again from a snapshot and the journal where it is lost.
pub const FACTS: Spec =
    Spec { name: "facts", magic: *b"FAFFACT1", rules: 0, segment_bytes: segment_bytes(4 * 1024 * 1024) };

/// Where a segment of the fact log begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    /// Position of its first fact.
    pub position: u64,
    pub time_us: i64,
    /// Command of a snapshot before it, which is kept as long as the segment; 0 is genesis.
    pub snapshot: u64,
    /// Last trade of each symbol before it.
    pub trades: BTreeMap<String, u64>,
}

/// A fact as it is stored and published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub position: u64,
    /// Sequence of its command in the journal.
    pub command: u64,
    /// An encoded `Fact`.
    pub payload: Bytes,
    /// Its trace, where it is new and the trace's spans are recorded.
    pub trace: Option<Trace>,
}

/// Encodes a fact for its log; the first of a segment carries where the segment begins.
pub fn encode(command: u64, payload: &[u8], begin: Option<&Begin>) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 16);
    match begin {
        None => out.push(0),
        Some(begin) => {
            out.push(1);
            put_u64(&mut out, begin.snapshot);
            put_u64(&mut out, begin.trades.len() as u64);
            for (symbol, trade_no) in &begin.trades {
                put_text(&mut out, symbol);
                put_u64(&mut out, *trade_no);
            }
        }
    }
    put_u64(&mut out, command);
    out.extend_from_slice(payload);
    out
}

/// Reads what [`encode`] wrote, without copying the fact.
pub fn read(position: u64, time_us: i64, bytes: &[u8]) -> Result<(u64, &[u8], Option<Begin>), Malformed> {
    let mut r = Reader::new(bytes);
    let begin = if r.bool()? {
        let mut begin = Begin { position, time_us, snapshot: r.u64()?, trades: BTreeMap::new() };
        for _ in 0..r.u64()? {
            let symbol = r.text()?.to_owned();
            begin.trades.insert(symbol, r.u64()?);
        }
        Some(begin)
    } else {
        None
    };
    Ok((r.u64()?, r.rest(), begin))
}

/// What of the log's record does not fit.
pub fn damaged(segment: &Segment, frame: &crate::frames::Frame<'_>, e: Malformed) -> seglog::Error {
    let bad = crate::frames::Bad { offset: frame.offset, seq: frame.seq, what: e.0 };
    seglog::Error::Damaged { path: segment.path.clone(), bad }
}
