//! Candles in half blocks, or in letters where the terminal has ASCII only.

use crate::{model::Model, text, theme::Role, view::Pen, zone::Zone};
use fafnir_proto::v1::Candle;
use ratatui::layout::Rect;

/// Columns of the price axis.
const AXIS: u16 = 9;
/// Columns of a label on the axis of time, and of the gap behind it.
const TIME: u16 = 5;
const TIME_GAP: u16 = 3;
/// From this height on there are rows for volume and time.
const HEIGHT_WITH_VOLUME: u16 = 9;
const DAY_US: i64 = 86_400_000_000;

/// Bars and what is needed to draw them.
pub(super) struct Bars<'a> {
    /// Ascending by time.
    pub candles: &'a [Candle],
    pub interval_us: i64,
    pub tick_e4: i64,
    /// The last price, which the axis marks; e4.
    pub last_e4: Option<i64>,
    pub zone: &'a Zone,
}

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
    let bars = Bars {
        candles: &model.chart.candles,
        interval_us: model.chart.interval_us(),
        tick_e4: model.tick_e4(&model.symbol),
        last_e4: model.reference_e4(&model.symbol),
        zone: &model.zone,
    };
    plot(&bars, pen, area);
}

/// As many of the newest bars as have room.
pub(super) fn plot(bars: &Bars<'_>, pen: &mut Pen, area: Rect) {
    let candles = bars.candles;
    if candles.is_empty() || area.width <= AXIS + 2 || area.height < 3 {
        pen.role(area.x + 1, area.y, area.width.saturating_sub(1), "no candles yet", Role::Dim);
        return;
    }
    let columns = usize::from(area.width - AXIS);
    let volume_rows: u16 = if area.height >= HEIGHT_WITH_VOLUME { 2 } else { 0 };
    let rows = area.height - volume_rows;
    // Two columns for each bar leave a gap between them.
    let shown: Vec<&Candle> = candles.iter().rev().take(columns / 2).rev().collect();
    let low_e4 = shown.iter().map(|c| c.low_e4).min().unwrap_or(0);
    let high_e4 = shown.iter().map(|c| c.high_e4).max().unwrap_or(1);
    let scale = Scale { low_e4, high_e4, halves: i64::from(rows) * 2 };
    axis(bars, pen, Rect { height: rows, ..area }, &scale);
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
        times(bars, pen, Rect { y: area.bottom() - 2, height: 1, ..area }, &shown);
    }
}

fn axis(bars: &Bars<'_>, pen: &mut Pen, area: Rect, scale: &Scale) {
    let tick = bars.tick_e4;
    let dim = pen.style(Role::Dim);
    let middle = scale.low_e4 + (scale.high_e4 - scale.low_e4) / 2;
    for price in [scale.high_e4, middle, scale.low_e4] {
        let y = area.bottom() - 1 - (scale.half(price) / 2) as u16;
        pen.right(area.x, y, AXIS - 1, &text::price(price, tick), dim);
    }
    let Some(last) = bars.last_e4 else { return };
    if last >= scale.low_e4 && last <= scale.high_e4 {
        let y = area.bottom() - 1 - (scale.half(last) / 2) as u16;
        let style = pen.style(Role::Last);
        // Over whatever label is on this row, all of it.
        let label = format!("{:>width$}", text::price(last, tick), width = usize::from(AXIS - 1));
        pen.right(area.x, y, AXIS - 1, &label, style);
    }
}

/// When the bars were, below them: times of day, and the day where one begins; of daily bars the days.
fn times(bars: &Bars<'_>, pen: &mut Pen, row: Rect, shown: &[&Candle]) {
    let (mut free, mut day_before) = (row.x + AXIS, None);
    for (at, candle) in shown.iter().enumerate() {
        let x = row.x + AXIS + 2 * at as u16;
        if x < free || x + TIME > row.right() {
            continue;
        }
        // A daily bar is a day of the exchange, the same in every zone.
        let is_daily = bars.interval_us >= DAY_US;
        let shown_us = if is_daily { candle.time_us } else { bars.zone.shown_us(candle.time_us) };
        let day = shown_us.div_euclid(DAY_US);
        let begins = day_before.is_some_and(|before| before != day);
        day_before = Some(day);
        let label = if is_daily || begins { text::day(shown_us, false) } else { text::clock(shown_us) };
        pen.role(x, row.y, TIME, label.get(..usize::from(TIME)).unwrap_or(&label), Role::Dim);
        free = x + TIME + TIME_GAP;
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
