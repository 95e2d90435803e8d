//! Where the heads of requests begin and end in what comes over HTTP/2, before hyper has one of them whole.
//!
//! h2 waits for the end of a head for ever, answers no other stream meanwhile and tells nobody, so that a connection
//! with a head that never ends lasted as long as its PINGs were answered. This looks at nothing but the nine bytes before
//! each frame (RFC 9113 §4.1, §6.2, §6.10).

/// Bytes before the payload of a frame: its length (3), its type, its flags, its stream (4).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// What a client says after the preface, frame by frame.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heads {
    /// The head of a frame as far as it came.
    frame: [u8; FRAME_HEAD],
    came: usize,
    /// Bytes of the frame's payload that have not come.
    payload: usize,
    /// A head has begun and its last frame has not.
    is_open: bool,
}

impl Heads {
    /// The first frame stands behind so many bytes.
    pub fn after(bytes: usize) -> Self {
        Self {
            frame: [DATA; FRAME_HEAD],
            came: if bytes > 0 { FRAME_HEAD } else { 0 },
            payload: bytes,
            is_open: false,
        }
    }

    /// Looks at what came next.
    pub fn came(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let n = self.payload.min(bytes.len());
                self.payload -= n;
                bytes = &bytes[n..];
            } else {
                // The frame before it has come whole.
                if self.came == FRAME_HEAD {
                    self.came = 0;
                }
                let n = (FRAME_HEAD - self.came).min(bytes.len());
                self.frame[self.came..self.came + n].copy_from_slice(&bytes[..n]);
                self.came += n;
                bytes = &bytes[n..];
                if self.came == FRAME_HEAD {
                    self.frame_begins();
                }
            }
        }
    }

    fn frame_begins(&mut self) {
        let [a, b, c, kind, flags, ..] = self.frame;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.is_open = flags & END_HEADERS == 0;
        }
    }

    /// Something has begun that a client sends without a pause: a head, or a frame of another kind than a request's body.
    pub fn is_amid(&self) -> bool {
        let is_amid_frame = match self.came {
            0 => false,
            FRAME_HEAD => self.payload > 0 && self.frame[3] != DATA,
            _ => true,
        };
        self.is_open || is_amid_frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA_ENDS: u8 = 0x1;
    const SETTINGS: u8 = 0x4;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, length @ ..] = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = length.to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(vec![0xff; payload]);
        frame
    }

    #[test]
    fn a_head_lasts_from_its_first_byte_to_its_last_whatever_the_pieces() {
        // Each frame, and whether its client owes something after it.
        let frames = [
            (frame(SETTINGS, 0, 0), false),
            (frame(HEADERS, END_HEADERS, 300), false),
            (frame(DATA, 0, 70_000), false),
            (frame(HEADERS, 0, 20), true),
            (frame(CONTINUATION, 0, 0), true),
            (frame(CONTINUATION, 0, 7), true),
            (frame(CONTINUATION, END_HEADERS, 1), false),
            (frame(DATA, DATA_ENDS, 0), false),
        ];
        for size in [1, 2, 8, 9, 10, 16_384, 100_000] {
            let mut heads = Heads::default();
            for (frame, owes) in &frames {
                for piece in frame.chunks(size) {
                    heads.came(piece);
                }
                assert_eq!(heads.is_amid(), *owes, "{size} {:?}", &frame[..FRAME_HEAD]);
            }
        }
        let all: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame.clone()).collect();
        let mut heads = Heads::default();
        heads.came(&all);
        assert!(!heads.is_amid());
    }

    #[test]
    fn what_stands_before_the_first_frame_is_none() {
        let mut heads = Heads::after(24);
        for byte in frame(HEADERS, 0, 15) {
            heads.came(&[byte]);
            assert!(!heads.is_amid());
        }
        heads.came(&frame(HEADERS, 0, 1));
        assert!(heads.is_amid());
    }

    #[test]
    fn half_a_frame_is_owed_but_not_the_rest_of_a_body() {
        let amid = |bytes: &[u8]| {
            let mut heads = Heads::default();
            heads.came(bytes);
            heads.is_amid()
        };
        assert!(!amid(&[]));
        assert!(amid(&frame(SETTINGS, 0, 6)[..1]));
        assert!(amid(&frame(SETTINGS, 0, 6)[..FRAME_HEAD]));
        assert!(amid(&frame(HEADERS, END_HEADERS, 20)[..FRAME_HEAD + 19]));
        assert!(amid(&frame(DATA, 0, 20)[..FRAME_HEAD - 1]));
        assert!(!amid(&frame(DATA, 0, 20)[..FRAME_HEAD]));
    }
}
