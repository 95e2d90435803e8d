//! The watchlist, with small charts where there is room, and the alerts below it.

use crate::{model::Model, text, theme::Role, view::Pen};
use ratatui::layout::Rect;

/// Columns of one row: mark, symbol, price, change.
const SYMBOL: u16 = 8;
const PRICE: u16 = 9;
const CHANGE: u16 = 6;

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    let here: Vec<_> = model.alerts.iter().collect();
    let (rows, skip) = rows(model, area);
    let alert_rows = area.height - rows;
    for (line, symbol) in model.watch.iter().skip(skip).take(usize::from(rows)).enumerate() {
        row(model, pen, Rect::new(area.x, area.y + line as u16, area.width, 1), symbol);
    }
    if alert_rows == 0 {
        return;
    }
    let y = area.y + rows;
    let frame = pen.style(Role::Frame);
    pen.repeat(area.x, y, area.width, pen.theme.glyphs().horizontal, frame);
    pen.role(area.x + 1, y, area.width, " Alerts ", Role::Title);
    let glyphs = pen.theme.glyphs();
    for (line, alert) in here.iter().take(usize::from(alert_rows - 1)).enumerate() {
        let y = y + 1 + line as u16;
        let text = format!("{} {}", alert.symbol, alert.trigger.text(glyphs.at_least, glyphs.at_most));
        let (state, role) = if alert.fired { ("hit", Role::Warn) } else { ("on", Role::Dim) };
        let style = pen.style(Role::Text);
        pen.words(area.x + 1, y, area.width.saturating_sub(5), &text, style);
        let style = pen.style(role);
        pen.right(area.right().saturating_sub(3), y, 3, state, style);
    }
}

/// Rows for symbols, and how many symbols are scrolled away above them.
fn rows(model: &Model, area: Rect) -> (u16, usize) {
    let alerts = model.alerts.len() as u16;
    let alert_rows = if alerts == 0 { 0 } else { (alerts + 1).min(area.height / 2) };
    let rows = area.height - alert_rows;
    let at = model.watch.iter().position(|s| *s == model.symbol).unwrap_or(0);
    (rows, (at + 1).saturating_sub(usize::from(rows)))
}

/// The symbol on a line of the watchlist.
pub fn symbol_at(model: &Model, area: Rect, line: usize) -> Option<&String> {
    let (rows, skip) = rows(model, area);
    model.watch.get(skip + line).filter(|_| line < usize::from(rows))
}

fn row(model: &Model, pen: &mut Pen, area: Rect, symbol: &str) {
    let glyphs = pen.theme.glyphs();
    let selected = symbol == model.symbol;
    let (x, y) = (area.x, area.y);
    if selected {
        pen.role(x, y, 1, glyphs.selected, Role::Title);
    }
    let style = pen.style(if selected { Role::Title } else { Role::Text });
    pen.words(x + 1, y, SYMBOL, symbol, style);
    let Some(quote) = model.quotes.get(symbol) else { return };
    let price = text::price(quote.price_e4, model.tick_e4(symbol));
    pen.right(x + 1 + SYMBOL, y, PRICE.min(area.width.saturating_sub(1 + SYMBOL)), &price, style);
    let role = match quote.price_e4.cmp(&quote.previous_close_e4) {
        std::cmp::Ordering::Less => Role::Down,
        std::cmp::Ordering::Equal => Role::Text,
        std::cmp::Ordering::Greater => Role::Up,
    };
    let used = 1 + SYMBOL + PRICE;
    // One decimal here: the header has both.
    let change = text::percent(quote.price_e4, quote.previous_close_e4);
    let change = match change.len().checked_sub(2) {
        Some(cut) if change.is_char_boundary(cut) => format!("{}%", &change[..cut]),
        _ => change,
    };
    if area.width >= used + CHANGE {
        let style = pen.style(role);
        pen.right(x + used, y, CHANGE, &change, style);
    }
    let room = area.width.saturating_sub(used + CHANGE + 1);
    if room >= 5 {
        spark(model, pen, x + used + CHANGE + 1, y, room, symbol, role);
    }
}

fn spark(model: &Model, pen: &mut Pen, x: u16, y: u16, columns: u16, symbol: &str, role: Role) {
    let Some(prices) = model.sparks.get(symbol) else { return };
    let glyphs = pen.theme.glyphs().spark;
    let shown: Vec<i64> = prices.iter().rev().take(usize::from(columns)).rev().copied().collect();
    let (Some(low), Some(high)) = (shown.iter().min(), shown.iter().max()) else { return };
    let style = pen.style(role);
    for (at, price) in shown.iter().enumerate() {
        let level = (price - low) * (glyphs.len() as i64 - 1) / (high - low).max(1);
        let glyph = glyphs.get(level as usize).copied().unwrap_or(" ");
        pen.text(x + at as u16, y, 1, glyph, style);
    }
}
