//! The fuzz targets over a corpus and random input; the book against the reference on the same bytes.

mod common;

use common::random::Rng;
use common::reference::Reference;
use common::without_slots;
use fafnir_matching::flow::generate;
use fafnir_matching::fuzz::{fuzz_commands_with, fuzz_flow, fuzz_snapshot};
use fafnir_matching::*;

const INPUTS: u64 = 3_000;

fn differential(name: &str, data: &[u8]) {
    let mut reference = Reference::default();
    fuzz_commands_with(data, &mut |_, command, events| {
        let got: Vec<What> = events.iter().map(|event| without_slots(event.what)).collect();
        assert_eq!(got, reference.apply(command), "{name}: {command:?}");
    });
}

#[test]
fn the_corpus_breaks_nothing() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        differential(&path.display().to_string(), &data);
        fuzz_snapshot(&data);
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn random_bytes_break_nothing() {
    for seed in 0..INPUTS {
        let mut rng = Rng(seed);
        let data: Vec<u8> = (0..rng.below(1_500)).map(|_| rng.next() as u8).collect();
        differential(&format!("seed {seed}"), &data);
        fuzz_snapshot(&data);
        fuzz_flow(&data);
    }
}

#[test]
fn a_damaged_flow_is_refused_or_replays() {
    let mut binary = Vec::new();
    generate(1, 2, 20, 300, &mut |_| {}).write(&mut binary).unwrap();
    let recorded =
        (0..300).fold("time_ms,event,order_id,side,price_ticks,quantity_lots\n".to_owned(), |csv, n| {
            let event = ["new", "new", "changed", "filled", "cancel", "trade"][n % 6];
            csv + &format!("{n},{event},{},{},{},{}\n", n / 3, ["B", "S"][n % 2], 100 + n % 7, 1 + n % 5)
        });
    fuzz_flow(&binary);
    fuzz_flow(recorded.as_bytes());
    for seed in 0..INPUTS {
        let mut rng = Rng(seed);
        for flow in [&binary, recorded.as_bytes()] {
            let mut flow = flow.to_vec();
            for _ in 0..=rng.below(4) {
                let at = rng.below(flow.len() as u64) as usize;
                // A digit more often than any byte: it keeps the form.
                flow[at] = if rng.one_in(2) { b'0' + rng.below(10) as u8 } else { rng.next() as u8 };
            }
            fuzz_flow(&flow);
        }
    }
    fuzz_flow(b"head\n1,new,7,B,100,5\n1,new,8,S,100,1\n1,changed,7,B,100,18446744073709551615\n");
}

#[test]
fn no_flipped_bit_of_a_snapshot_goes_unseen() {
    let mut caller = common::random::Caller::new(3);
    let (mut book, mut events) = (Book::new(), Events::new());
    for _ in 0..400 {
        events.clear();
        book.apply(&caller.command(), &mut events);
        caller.hear(events.as_slice());
    }
    let mut bytes = Vec::new();
    book.snapshot(&mut bytes);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Book::restore(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..bytes.len() {
        assert!(Book::restore(&bytes[..len]).is_err(), "length {len}");
    }
}

/// A snapshot whose checksum is right but whose contents are not: refused, or a book that can go on.
#[test]
fn a_forged_snapshot_gives_no_broken_book() {
    let fnv = |bytes: &[u8]| {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    for seed in 0..300 {
        let mut caller = common::random::Caller::new(seed);
        let (mut book, mut events) = (Book::new(), Events::new());
        for _ in 0..80 {
            events.clear();
            book.apply(&caller.command(), &mut events);
            caller.hear(events.as_slice());
        }
        let mut bytes = Vec::new();
        book.snapshot(&mut bytes);
        let body = bytes.len() - 8;
        for _ in 0..30 {
            let mut forged = bytes.clone();
            let at = caller.rng.below(body as u64) as usize;
            forged[at] ^= 1 << caller.rng.below(8);
            let sum = fnv(&forged[..body]).to_le_bytes();
            forged[body..].copy_from_slice(&sum);
            fuzz_snapshot(&forged);
            let Ok(mut book) = Book::restore(&forged) else { continue };
            for _ in 0..40 {
                events.clear();
                book.apply(&caller.command(), &mut events);
            }
        }
    }
}
