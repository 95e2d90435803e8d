//! An order flow from any bytes: refused, or it replays.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fafnir_matching::fuzz::fuzz_flow(data));
