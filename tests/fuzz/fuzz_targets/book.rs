//! The book against the naive reference, event by event, on commands read from any bytes.
#![no_main]

#[path = "../../../services/matching/tests/common/mod.rs"]
mod common;

use common::{reference::Reference, without_slots};
use fafnir_matching::{What, fuzz::fuzz_commands_with};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut reference = Reference::default();
    fuzz_commands_with(data, &mut |_, command, events| {
        let got: Vec<What> = events.iter().map(|event| without_slots(event.what)).collect();
        assert_eq!(got, reference.apply(command), "{command:?}");
    });
});
