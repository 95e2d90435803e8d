//! `fafnir bench`: the matching core on the common order flow, beside the naive book.

use crate::{
    args::Bench,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_matching::flow::{Figures, SHAPES, measure, wl::Workload};
use fafnir_proto::reason::Reason;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::{fs::File, io::BufReader, io::IsTerminal as _, path::Path};

pub fn bench(args: &Bench, out: Out) -> Result {
    let hidden = out.json || !std::io::stderr().is_terminal();
    let target = || if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = |name: &str, length: u64| {
        let bar = ProgressBar::with_draw_target(Some(length), target());
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len}") {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        bar
    };
    let mut all = Vec::new();
    let mut measure = |name: &str, flow: &Workload| -> Result {
        let progress = bar(name, 0);
        let figures = measure(name, flow, &mut |p| {
            progress.set_length(u64::from(p.of));
            progress.set_position(u64::from(p.done));
        });
        progress.finish_and_clear();
        all.push(figures.map_err(|e| Error::new(Exit::Failure, e).code(Reason::FLOW_MISMATCH))?);
        Ok(())
    };
    if args.flow.is_empty() {
        for shape in &SHAPES {
            let progress =
                bar(&format!("generating {}", shape.name), fafnir_matching::flow::Shape::OPS as u64);
            let flow = shape.generate(&mut |done| progress.set_position(done));
            progress.finish_and_clear();
            measure(shape.name, &flow)?;
        }
    }
    for path in &args.flow {
        let name =
            path.file_stem().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        measure(&name, &read(path)?)?;
    }
    print(&all, out);
    Ok(())
}

fn read(path: &Path) -> Result<Workload> {
    let fail = |e: std::io::Error| {
        Error::new(Exit::Failure, format!("{}: {e}", path.display())).code(Reason::FLOW_FILE)
    };
    let file = File::open(path).map_err(fail)?;
    Workload::read(&mut BufReader::new(file)).map_err(fail)
}

fn print(all: &[Figures], out: Out) {
    let flows: Vec<_> = all
        .iter()
        .map(|f| {
            json!({
                "name": f.name, "ops": f.ops, "mops_cpu": f.mops_cpu, "single_mops_cpu": f.single_mops_cpu,
                "keyed_mops_cpu": f.keyed_mops_cpu, "keyed_single_mops_cpu": f.keyed_single_mops_cpu,
                "naive_mops_cpu": f.naive_mops_cpu, "p50_ns": f.p50_ns, "p99_ns": f.p99_ns, "p999_ns": f.p999_ns,
                "p9999_ns": f.p9999_ns, "max_ns": f.max_ns, "book_bytes": f.book_bytes, "trades": f.trades,
                "volume": f.volume, "checksum": f.checksum,
            })
        })
        .collect();
    out.data(&json!({"flows": flows}), || {
        let rows: Vec<_> = all
            .iter()
            .map(|f| {
                vec![
                    f.name.clone(),
                    format!("{:.1}", f.mops_cpu),
                    format!("{:.1}", f.single_mops_cpu),
                    format!("{:.1}", f.keyed_mops_cpu),
                    format!("{:.1}", f.keyed_single_mops_cpu),
                    format!("{:.1}", f.naive_mops_cpu),
                    format!("{:.1}", f.mops_cpu / f.naive_mops_cpu),
                    of_first(f, all),
                    f.p50_ns.to_string(),
                    f.p99_ns.to_string(),
                    f.p999_ns.to_string(),
                    f.p9999_ns.to_string(),
                    f.max_ns.to_string(),
                    f.book_bytes.div_ceil(1024).to_string(),
                    f.trades.to_string(),
                    f.volume.to_string(),
                    format!("{:016x}", f.checksum),
                ]
            })
            .collect();
        let header = [
            "FLOW",
            ">MOPS/CPU-S",
            ">SINGLE",
            ">BY NUMBER",
            ">SINGLE",
            ">NAIVE",
            ">RATIO",
            ">OF FIRST",
            ">P50 NS",
            ">P99 NS",
            ">P99.9 NS",
            ">P99.99 NS",
            ">WORST NS",
            ">BOOK KIB",
            ">TRADES",
            ">VOLUME",
            "CHECKSUM",
        ];
        table(&header, &rows)
    });
}

/// A flow's throughput as a share of the first one's (A1k's, where all are measured).
fn of_first(f: &Figures, all: &[Figures]) -> String {
    all.first().map_or_else(String::new, |first| format!("{:.2}", f.mops_cpu / first.mops_cpu))
}
