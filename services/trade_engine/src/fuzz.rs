//! Targets for fuzzing what the engine reads: whatever the bytes, nothing panics and nothing damaged is taken for whole.
#![expect(clippy::expect_used, reason = "a target of fuzzing stops at what must not be")]

use super::{
    domain::{Engine, Fact},
    frames::{self, Bad, Frames, Header},
    record::{Listing, Reader, Record},
    recovery::JOURNAL,
    snapshot,
};
use fafnir_proto::v1::TradingState;
use fafnir_rules::symbol::Symbol;
use std::collections::HashMap;

/// Records that one input may hold.
const RECORDS_MAX: usize = 4_096;

/// Reads the bytes as records, each behind its length, and applies those that can be read.
///
/// # Panics
/// If a record does not come back as it was read, a sequence has a gap, or the state does not survive its own bytes.
pub fn records(data: &[u8]) {
    let mut engine = Engine::new();
    let mut facts: Vec<Fact> = Vec::new();
    for text in ["AAPL", "MSFT"] {
        let Ok(symbol) = Symbol::parse(text) else { continue };
        let listing = Listing {
            symbol,
            tick_e4: 100,
            lot_e4: 10_000,
            state: TradingState::Open,
            previous_close_e4: 1_000_000,
            band_bps: 20,
        };
        engine.apply(engine.seq() + 1, 1, &Record::Listing(listing), &mut facts);
    }
    let mut last: HashMap<usize, u64> = HashMap::new();
    let mut input = Reader::new(data);
    for _ in 0..RECORDS_MAX {
        let Ok(payload) = input.bytes() else { break };
        let Ok(record) = Record::decode(payload) else { continue };
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(Record::decode(&again).as_ref(), Ok(&record), "a record comes back as it was");
        facts.clear();
        engine.apply(engine.seq() + 1, engine.time_us() + 1, &record, &mut facts);
        for fact in &facts {
            for outcome in &fact.outcomes {
                let at = last.entry(fact.market).or_default();
                assert_eq!(outcome.seq, *at + 1, "sequences have no gap");
                *at = outcome.seq;
            }
        }
    }
    let mut state = Vec::new();
    engine.encode(&mut state);
    let copy = Engine::decode(&state).expect("invariant: an engine's own state is a state");
    assert_eq!(copy.hash(), engine.hash(), "a restored engine is the same engine");
}

/// Reads the bytes as a segment of the journal; then makes a segment of them and damages it.
///
/// # Panics
/// If a frame reaches beyond the bytes, or a flipped bit goes unseen.
pub fn journal(data: &[u8]) {
    let header =
        frames::parse_header(JOURNAL.magic, data).unwrap_or(Header { first_seq: 1, prev_crc: 0, rules: 0 });
    let mut walk = Frames::new(data, header);
    for frame in &mut walk {
        match frame {
            Ok(frame) => assert!(frame.end() <= data.len(), "a frame lies within its segment"),
            Err(bad) => {
                let _either = frames::is_torn_tail(data, &bad);
            }
        }
    }
    damaged_segment(data);
}

/// The bytes as payloads of a segment with one flipped bit; their first ones say which.
fn damaged_segment(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<4>() else { return };
    let header = Header { first_seq: 7, prev_crc: 3, rules: 0 };
    let mut segment = frames::header(JOURNAL.magic, header).to_vec();
    let mut prev = header.prev_crc;
    for (n, payload) in rest.chunks(23).enumerate() {
        prev = frames::push(&mut segment, prev, 0, header.first_seq + n as u64, n as i64, payload);
    }
    let count = rest.chunks(23).count();
    let bit = u32::from_le_bytes(*choice) as usize % (segment.len() * 8);
    segment[bit / 8] ^= 1 << (bit % 8);
    let Ok(read) = frames::parse_header(JOURNAL.magic, &segment) else { return };
    let bad: Option<Bad> = Frames::new(&segment, read).find_map(Result::err);
    let Some(bad) = bad else { panic!("bit {bit} of {} was flipped unseen", segment.len()) };
    let is_last = bad.seq + 1 == header.first_seq + count as u64;
    assert!(is_last || !frames::is_torn_tail(&segment, &bad), "bit {bit} was taken for a torn tail");
}

/// Reads the bytes as a snapshot file and as a state: each is refused or whole.
///
/// # Panics
/// If a state that can be read does not give its own bytes again.
pub fn snapshot(data: &[u8]) {
    if let Ok((engine, _)) = snapshot::decode(data) {
        let mut state = Vec::new();
        engine.encode(&mut state);
        assert_eq!(snapshot::encode(engine.seq(), &state), data, "a snapshot is canonical");
    }
    if let Ok(engine) = Engine::decode(data) {
        let mut state = Vec::new();
        engine.encode(&mut state);
        let again = Engine::decode(&state).expect("invariant: an engine's own state is a state");
        assert_eq!(again.hash(), engine.hash(), "a state comes back as it was");
    }
}
