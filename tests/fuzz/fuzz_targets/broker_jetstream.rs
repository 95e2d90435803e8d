//! The body of every kind of JetStream request, of a pull and of an ack: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fafnir_broker::fuzz::jetstream(data));
