//! Five hours of a real order flow: the book prints what the exchange printed.

use fafnir_matching::flow::replay_recorded;

/// Trades of the recording that a price-time book reproduces.
const EQUAL_MIN: u64 = 512;

/// `FAFNIR_TEST_FLOW` names the recording as an uncompressed CSV (`gunzip -c FILE.csv.gz > FILE.csv`).
#[test]
fn a_recorded_day_prints_what_the_exchange_printed() {
    let Some(path) = std::env::var_os("FAFNIR_TEST_FLOW") else {
        eprintln!("skipped: FAFNIR_TEST_FLOW names no recorded flow");
        return;
    };
    let csv = match std::fs::read_to_string(&path) {
        Ok(csv) => csv,
        Err(error) => panic!("{}: {error} (the test reads the CSV uncompressed)", path.display()),
    };
    let found = replay_recorded(&csv, &mut |_| {}).expect("a recording");
    assert!(found.equal >= EQUAL_MIN, "{found:?}");
    eprintln!("{found:?}");
    assert_eq!(replay_recorded(&csv, &mut |_| {}).expect("a recording"), found, "the same again");
}
