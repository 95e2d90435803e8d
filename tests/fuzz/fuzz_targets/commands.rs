//! What the engine reads: see `fafnir_trade_engine::fuzz::commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fafnir_trade_engine::fuzz::commands(data));
