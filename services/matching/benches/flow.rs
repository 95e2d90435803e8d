//! `cargo bench -p fafnir-matching`: every flow through the full book and the naive one.
//!
//! Arguments after `--` pick flows by name: `cargo bench -p fafnir-matching -- A1k B100`. Shares of A1k are those of this
//! run; A1k is measured first where it is wanted.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints figures")]

use fafnir_matching::flow::{Figures, SHAPES, measure};
use fafnir_matching::{Book, Command, Events, NewOrder, Side};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!(
        "Million operations per CPU-second: in batches, one at a time, the same by number; naive; ratio; of A1k."
    );
    println!("Nanoseconds of a command with the clock's 20; KiB of a book at the end.");
    println!(
        "{:<6}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7} |{:>5}{:>5}{:>6}{:>7}{:>8} |{:>7}{:>9}",
        "flow",
        "batch",
        "single",
        "by no.",
        "single",
        "naive",
        "ratio",
        "of A1k",
        "p50",
        "p99",
        "p99.9",
        "p99.99",
        "worst",
        "KiB",
        "trades"
    );
    let mut a1k = None;
    for shape in SHAPES {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == shape.name) {
            continue;
        }
        let flow = shape.generate(&mut |_| {});
        match measure(shape.name, &flow, &mut |_| {}) {
            Ok(figures) => {
                let share = figures.mops_cpu / *a1k.get_or_insert(figures.mops_cpu);
                print(&figures, share);
            }
            Err(sentence) => {
                eprintln!("{sentence}");
                std::process::exit(1);
            }
        }
    }
    let (empty, lone) = memory();
    println!("an empty book: {empty} bytes; each of 4,096 lone orders 1,000 ticks apart: {lone} bytes");
}

fn print(f: &Figures, share: f64) {
    println!(
        "{:<6}{:>7.1}{:>7.1}{:>7.1}{:>7.1}{:>7.1}{:>7.2}{:>7.2} |{:>5}{:>5}{:>6}{:>7}{:>8} |{:>7.1}{:>9}",
        f.name,
        f.mops_cpu,
        f.single_mops_cpu,
        f.keyed_mops_cpu,
        f.keyed_single_mops_cpu,
        f.naive_mops_cpu,
        f.mops_cpu / f.naive_mops_cpu,
        share,
        f.p50_ns,
        f.p99_ns,
        f.p999_ns,
        f.p9999_ns,
        f.max_ns,
        f.book_bytes as f64 / 1024.0,
        f.trades
    );
}

/// Bytes of an empty book, and of each order of one whose orders stand alone.
fn memory() -> (usize, usize) {
    let (mut book, mut events) = (Book::new(), Events::new());
    let empty = book.memory();
    for id in 1..=4_096u32 {
        let order = NewOrder::limit(u64::from(id), 1, Side::Buy, 1, id * 1_000);
        book.apply(&Command::New(order), &mut events);
    }
    (empty, (book.memory() - empty) / 4_096)
}
