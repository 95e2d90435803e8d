//! What a client sends: no panic, and no answer out of proportion.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// An answer of one input stays below this: INFO, and what the input's own publishes fan out to.
const SENT_MAX: usize = 64 << 20;

fuzz_target!(|data: &[u8]| {
    assert!(fafnir_broker::fuzz::protocol(data).len() < SENT_MAX);
});
