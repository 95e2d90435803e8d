//! The bytes of a log segment: header, frames, their checksums and their chain; pure functions over slices.
//!
//! A frame is `length u32, crc32c u32, previous frame's crc u32, place in its batch u32, sequence u64, time i64,
//! payload`, little endian. The crc covers everything but itself. A batch is what one fsync made durable: a whole frame
//! of a later batch behind a bad frame proves that the bad one was durable once, so it is damage and no torn tail.

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a frame without its payload.
pub const FRAME_BYTES: usize = 32;
/// A payload longer than this is refused when written and is damage when read.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
const VERSION: u32 = 1;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Sequence of its first frame.
    pub first_seq: u64,
    /// Crc of the last frame of the segment before; 0 in the first.
    pub prev_crc: u32,
    /// Version of what its frames mean.
    pub rules: u32,
}

/// One frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it starts in the segment.
    pub offset: usize,
    pub seq: u64,
    pub time_us: i64,
    /// Its place in the batch that was made durable together, from 0.
    pub batch_index: u32,
    pub crc: u32,
    pub prev_crc: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Where the next frame starts.
    pub fn end(&self) -> usize {
        self.offset + FRAME_BYTES + self.payload.len()
    }
}

/// Why a place in a segment is not the frame that must be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}, sequence {seq}: {what}")]
pub struct Bad {
    pub offset: usize,
    /// The sequence that should be there.
    pub seq: u64,
    pub what: &'static str,
}

/// The number at a place, little endian; nothing where the bytes end before.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// As [`u32_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The header of a new segment.
pub fn header(magic: [u8; 8], header: Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..16].copy_from_slice(&header.first_seq.to_le_bytes());
    bytes[16..20].copy_from_slice(&header.prev_crc.to_le_bytes());
    bytes[20..24].copy_from_slice(&VERSION.to_le_bytes());
    bytes[24..28].copy_from_slice(&header.rules.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a segment's header.
pub fn parse_header(magic: [u8; 8], bytes: &[u8]) -> Result<Header, Bad> {
    let bad = |what| Bad { offset: 0, seq: 0, what };
    let head = bytes.get(..HEADER_BYTES).ok_or(bad("the header is cut off"))?;
    if head[..8] != magic {
        return Err(bad("not a segment of this log"));
    }
    if u32_at(head, 28) != Some(crc32c::crc32c(&head[..28])) {
        return Err(bad("the header's checksum does not match"));
    }
    if u32_at(head, 20) != Some(VERSION) {
        return Err(bad("a segment of another version"));
    }
    let first_seq = u64_at(head, 8).unwrap_or(0);
    let word = |at| u32_at(head, at).unwrap_or(0);
    Ok(Header { first_seq, prev_crc: word(16), rules: word(24) })
}

/// Appends a frame and answers its crc.
pub fn push(
    out: &mut Vec<u8>,
    prev_crc: u32,
    batch_index: u32,
    seq: u64,
    time_us: i64,
    payload: &[u8],
) -> u32 {
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "invariant: what is written can be read again; {} bytes are too long for a frame",
        payload.len()
    );
    let start = out.len();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&prev_crc.to_le_bytes());
    out.extend_from_slice(&batch_index.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&time_us.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc_of(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn crc_of(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..])
}

/// The whole frame at `offset`, if one is there: its own checksum holds; its place in the chain is not looked at.
pub fn frame_at(bytes: &[u8], offset: usize) -> Result<Frame<'_>, &'static str> {
    let rest = bytes.get(offset..).unwrap_or_default();
    if rest.len() < FRAME_BYTES {
        return Err("the frame is cut off");
    }
    let length = u32_at(rest, 0).map_or(usize::MAX, |n| n as usize);
    if length > PAYLOAD_BYTES_MAX {
        return Err("the length is beyond the limit");
    }
    let frame = rest.get(..FRAME_BYTES + length).ok_or("the frame is cut off")?;
    let crc = u32_at(frame, 4).unwrap_or(0);
    if crc_of(frame) != crc {
        return Err("the checksum does not match");
    }
    Ok(Frame {
        offset,
        crc,
        prev_crc: u32_at(frame, 8).unwrap_or(0),
        batch_index: u32_at(frame, 12).unwrap_or(0),
        seq: u64_at(frame, 16).unwrap_or(0),
        time_us: u64_at(frame, 24).unwrap_or(0).cast_signed(),
        payload: &frame[FRAME_BYTES..],
    })
}

/// Where a walk over a segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: usize,
    pub next_seq: u64,
    pub prev_crc: u32,
}

impl Place {
    /// Behind the header.
    pub fn first(header: Header) -> Self {
        Self { offset: HEADER_BYTES, next_seq: header.first_seq, prev_crc: header.prev_crc }
    }
}

/// Walks the frames of a segment and checks sequence and chain. After an error it ends.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    place: Place,
    ended: bool,
}

impl<'a> Frames<'a> {
    /// The frames behind the header.
    pub fn new(bytes: &'a [u8], header: Header) -> Self {
        Self::from_place(bytes, Place::first(header))
    }

    /// The frames from a place on.
    pub fn from_place(bytes: &'a [u8], place: Place) -> Self {
        Self { bytes, place, ended: false }
    }

    /// Where the walk stands: behind the last good frame.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.place;
        if self.ended || at.offset >= self.bytes.len() {
            return None;
        }
        let what = match frame_at(self.bytes, at.offset) {
            Ok(frame) if frame.seq != at.next_seq => "the sequence is not the next one",
            Ok(frame) if frame.prev_crc != at.prev_crc => "the chain to the frame before is broken",
            Ok(frame) => {
                self.place = Place { offset: frame.end(), next_seq: at.next_seq + 1, prev_crc: frame.crc };
                return Some(Ok(frame));
            }
            Err(what) => what,
        };
        self.ended = true;
        Some(Err(Bad { offset: at.offset, seq: at.next_seq, what }))
    }
}

/// Whether what is bad at the end of the last segment can be a write that a crash cut short: no whole frame is there,
/// and none behind it belongs to a later batch.
pub fn is_torn_tail(bytes: &[u8], bad: &Bad) -> bool {
    if frame_at(bytes, bad.offset).is_ok() {
        return false;
    }
    let rest = bytes.len().saturating_sub(bad.offset);
    let seq_max = bad.seq.saturating_add((rest / FRAME_BYTES) as u64);
    for offset in bad.offset + 1..bytes.len().saturating_sub(FRAME_BYTES - 1) {
        let seq = u64_at(bytes, offset + 16).unwrap_or(0);
        let batch_index = u64::from(u32_at(bytes, offset + 12).unwrap_or(0));
        let is_later_batch =
            (bad.seq..=seq_max).contains(&seq) && seq.checked_sub(batch_index).is_some_and(|s| s > bad.seq);
        if is_later_batch && frame_at(bytes, offset).is_ok() {
            return false;
        }
    }
    true
}
