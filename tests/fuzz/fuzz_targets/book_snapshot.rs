//! A book's snapshot from any bytes: refused, or canonical.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fafnir_matching::fuzz::fuzz_snapshot(data));
