//! Candles in half blocks, or in letters where the terminal has ASCII only.

use crate::{model::Model, text, theme::Role, view::Pen};
use fafnir_proto::v1::Candle;
use ratatui::layout::Rect;

/// Columns of the price axis.
const AXIS: u16 = 9;

/// Lowest and highest price on the axis and the number of half rows.
struct Scale {
    low_e4: i64,
    high_e4: i64,
    halves: i64,
}

impl Scale {
    /// The half row of a price, 0 at the bottom.
    fn half(&self, price_e4: i64) -> i64 {
        let span = i128::from(self.high_e4 - self.low_e4).max(1);
        let at = i128::from(price_e4 - self.low_e4) * i128::from(self.halves - 1) / span;
        i64::try_from(at).unwrap_or(0).clamp(0, self.halves - 1)
    }
}

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    let candles = &model.chart.candles;
    if candles.is_empty() || area.width <= AXIS + 2 || area.height < 3 {
        pen.role(area.x + 1, area.y, area.width.saturating_sub(1), "no candles yet", Role::Dim);
        return;
    }
    let columns = usize::from(area.width - AXIS);
    let volume_rows: u16 = if area.height >= 9 { 2 } else { 0 };
    let rows = area.height - volume_rows;
    // Two columns for each bar leave a gap between them.
    let shown: Vec<&Candle> = candles.iter().rev().take(columns / 2).rev().collect();
    let low_e4 = shown.iter().map(|c| c.low_e4).min().unwrap_or(0);
    let high_e4 = shown.iter().map(|c| c.high_e4).max().unwrap_or(1);
    let scale = Scale { low_e4, high_e4, halves: i64::from(rows) * 2 };
    axis(model, pen, Rect { height: rows, ..area }, &scale);
    let most = shown.iter().map(|c| c.volume_e4).max().unwrap_or(0).max(1);
    for (at, candle) in shown.iter().enumerate() {
        let x = area.x + AXIS + 2 * at as u16;
        bar(pen, x, Rect { height: rows, ..area }, candle, &scale);
        if volume_rows > 0 {
            volume(pen, x, area.bottom() - 1, candle.volume_e4, most);
        }
    }
    if volume_rows > 0 {
        pen.role(area.x, area.bottom() - 1, AXIS - 1, " vol", Role::Dim);
    }
}

fn axis(model: &Model, pen: &mut Pen, area: Rect, scale: &Scale) {
    let tick = model.tick_e4(&model.symbol);
    let dim = pen.style(Role::Dim);
    let middle = scale.low_e4 + (scale.high_e4 - scale.low_e4) / 2;
    for price in [scale.high_e4, middle, scale.low_e4] {
        let y = area.bottom() - 1 - (scale.half(price) / 2) as u16;
        pen.right(area.x, y, AXIS - 1, &text::price(price, tick), dim);
    }
    let Some(last) = model.reference_e4(&model.symbol) else { return };
    if last >= scale.low_e4 && last <= scale.high_e4 {
        let y = area.bottom() - 1 - (scale.half(last) / 2) as u16;
        let style = pen.style(Role::Last);
        // Over whatever label is on this row, all of it.
        let label = format!("{:>width$}", text::price(last, tick), width = usize::from(AXIS - 1));
        pen.right(area.x, y, AXIS - 1, &label, style);
    }
}

fn bar(pen: &mut Pen, x: u16, area: Rect, candle: &Candle, scale: &Scale) {
    let glyphs = pen.theme.glyphs();
    let rises = candle.close_e4 >= candle.open_e4;
    let style = pen.style(if rises { Role::Up } else { Role::Down });
    let (low, high) = (scale.half(candle.low_e4), scale.half(candle.high_e4));
    let (bottom, top) =
        (scale.half(candle.open_e4.min(candle.close_e4)), scale.half(candle.open_e4.max(candle.close_e4)));
    for row in 0..i64::from(area.height) {
        let (lower, upper) = (row * 2, row * 2 + 1);
        let in_body = |half: i64| half >= bottom && half <= top;
        let in_wick = upper >= low && lower <= high;
        let body = if rises { glyphs.candle_up } else { glyphs.candle_down };
        let glyph = match (in_body(lower), in_body(upper)) {
            (false, true) if !glyphs.candle_top.is_empty() => glyphs.candle_top,
            (true, false) if !glyphs.candle_bottom.is_empty() => glyphs.candle_bottom,
            (false, false) if in_wick => glyphs.candle_wick,
            (false, false) => continue,
            _ => body,
        };
        pen.text(x, area.bottom() - 1 - row as u16, 1, glyph, style);
    }
}

fn volume(pen: &mut Pen, x: u16, y: u16, volume_e4: i64, most: i64) {
    let glyphs = pen.theme.glyphs().spark;
    let level = i128::from(volume_e4.max(0)) * (glyphs.len() as i128 - 1) / i128::from(most);
    let glyph = glyphs.get(level as usize).copied().unwrap_or(" ");
    pen.role(x, y, 1, glyph, Role::Dim);
}
