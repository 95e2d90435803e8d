//! The hash of a state's canonical bytes.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// A SHA-256 of the canonical state.
pub type StateHash = [u8; 32];

/// The hash in hexadecimal.
pub fn hex(hash: &StateHash) -> String {
    HEXLOWER.encode(hash)
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> StateHash {
    Sha256::digest(bytes).into()
}
