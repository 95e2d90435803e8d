//! `cargo bench -p fafnir-matching`: the common flow through the full book and the naive one.
//!
//! Arguments after `--` pick flows by name: `cargo bench -p fafnir-matching -- A1k B100`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints figures")]

use fafnir_matching::flow::{SHAPES, measure};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!(
        "{:<7}{:>9}{:>9}{:>7}{:>8}{:>8}{:>9}{:>10}",
        "flow", "Mop/s", "naive", "ratio", "p50 ns", "p99 ns", "p99.9 ns", "trades"
    );
    for shape in SHAPES {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == shape.name) {
            continue;
        }
        let flow = shape.generate(&mut |_| {});
        match measure(shape.name, &flow, &mut |_| {}) {
            Ok(f) => println!(
                "{:<7}{:>9.1}{:>9.1}{:>7.2}{:>8}{:>8}{:>9}{:>10}",
                f.name,
                f.mops_cpu,
                f.naive_mops_cpu,
                f.mops_cpu / f.naive_mops_cpu,
                f.p50_ns,
                f.p99_ns,
                f.p999_ns,
                f.trades
            ),
            Err(sentence) => {
                eprintln!("{sentence}");
                std::process::exit(1);
            }
        }
    }
}
