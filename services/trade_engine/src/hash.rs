//! The hash of a state's canonical bytes.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// A SHA-256 of the canonical state.
pub type StateHash = [u8; 32];

/// The hash in hexadecimal.
pub fn hex(hash: &StateHash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> StateHash {
    Sha256::digest(bytes).into()
}
