//! Plots as SVG: a curve of worth over time, bars of gains by symbol. Places are reckoned in whole pixels.

use super::html::escaped;
use fafnir_rules::money::format_grouped;

const WIDTH: i128 = 900;
const HEIGHT: i128 = 260;
/// Room for the labels of the worth and of the time.
const LEFT: i128 = 110;
const BOTTOM: i128 = 30;
const TOP: i128 = 12;
const RIGHT: i128 = 12;
const LINES: i128 = 4;
/// Bars of a plot.
const BARS_MAX: usize = 20;
const BAR: i128 = 24;

/// Where a value stands between two others, on so many pixels.
fn place(value: i128, low: i128, high: i128, pixels: i128) -> i128 {
    if high == low { pixels / 2 } else { (value - low) * pixels / (high - low) }
}

fn open(height: i128, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(title)
    )
}

/// A curve through `(time, micros)`; the labels of its first and its last time.
pub fn curve(title: &str, points: &[(i64, i64)], labels: (&str, &str)) -> String {
    let mut svg = open(HEIGHT, title);
    let values = || points.iter().map(|(_, value)| i128::from(*value));
    let (Some(low), Some(high)) = (values().min(), values().max()) else {
        return svg + "</svg>\n";
    };
    // A margin, so that a flat curve is in the middle.
    let margin = ((high - low) / 10).max(1);
    // What was never below nothing is not drawn below it.
    let (low, high) = (if low >= 0 { (low - margin).max(0) } else { low - margin }, high + margin);
    let (wide, tall) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let y = |value: i128| TOP + tall - place(value, low, high, tall);
    for n in 0..=LINES {
        let value = low + (high - low) * n / LINES;
        let at = y(value);
        let label = format_grouped(i64::try_from(value / 10_000).unwrap_or(i64::MAX), 2);
        svg.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" class=\"grid\"/>\
             <text x=\"{}\" y=\"{}\" class=\"value\">{label}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8,
            at + 4
        ));
    }
    let (first, last) = (points[0].0.into(), points[points.len() - 1].0.into());
    let x = |time: i64| LEFT + place(time.into(), first, last, wide);
    let line: Vec<String> =
        points.iter().map(|(time, value)| format!("{},{}", x(*time), y((*value).into()))).collect();
    let base = TOP + tall;
    svg.push_str(&format!(
        "<polygon points=\"{},{base} {} {},{base}\" class=\"area\"/>\n<polyline points=\"{}\" class=\"line\"/>\n",
        x(points[0].0),
        line.join(" "),
        x(points[points.len() - 1].0),
        line.join(" ")
    ));
    if points.len() == 1 {
        svg.push_str(&format!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"4\" class=\"dot\"/>\n",
            x(points[0].0),
            y(points[0].1.into())
        ));
    }
    svg.push_str(&format!(
        "<text x=\"{LEFT}\" y=\"{}\" class=\"time\">{}</text><text x=\"{}\" y=\"{}\" class=\"time end\">{}</text>\n</svg>\n",
        HEIGHT - 8,
        escaped(labels.0),
        WIDTH - RIGHT,
        HEIGHT - 8,
        escaped(labels.1)
    ));
    svg
}

/// A bar for each name, to the right of the middle for gains, to the left for losses; the largest ones.
pub fn bars(title: &str, values: &[(String, i64)]) -> String {
    let mut sorted: Vec<_> = values.iter().filter(|(_, value)| *value != 0).collect();
    sorted.sort_by_key(|(name, value)| (std::cmp::Reverse(value.unsigned_abs()), name.clone()));
    sorted.truncate(BARS_MAX);
    let height = TOP + BAR * sorted.len() as i128 + TOP;
    let mut svg = open(height, title);
    let most = sorted.iter().map(|(_, value)| i128::from(value.unsigned_abs())).max().unwrap_or(1);
    let half = (WIDTH - LEFT - RIGHT) / 2 - 110;
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2;
    svg.push_str(&format!(
        "<line x1=\"{middle}\" x2=\"{middle}\" y1=\"0\" y2=\"{height}\" class=\"grid\"/>\n"
    ));
    for (n, (name, value)) in sorted.into_iter().enumerate() {
        let at = TOP + BAR * n as i128;
        let wide = place(i128::from(value.unsigned_abs()), 0, most, half).max(1);
        let (class, x, label_x, end) = if *value < 0 {
            ("loss", middle - wide, middle - wide - 8, " end")
        } else {
            ("gain", middle, middle + wide + 8, "")
        };
        svg.push_str(&format!(
            "<text x=\"{}\" y=\"{}\" class=\"value\">{}</text>\
             <rect x=\"{x}\" y=\"{at}\" width=\"{wide}\" height=\"{}\" class=\"{class}\"/>\
             <text x=\"{label_x}\" y=\"{}\" class=\"time{end}\">{}</text>\n",
            LEFT - 8,
            at + 15,
            escaped(name),
            BAR - 6,
            at + 15,
            format_grouped(*value, 6)
        ));
    }
    svg + "</svg>\n"
}
