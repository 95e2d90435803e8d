//! What lies over the trading screen: help, symbol search, command palette, alert, confirmation.

use crate::{
    keys,
    model::{Model, Overlay},
    text::{self, Input},
    theme::Role,
    update::find_symbols,
    view::{Layout, Pen},
};
use fafnir_rules::money;
use ratatui::layout::Rect;

pub fn draw(model: &Model, layout: &Layout, pen: &mut Pen) {
    let Some(overlay) = &model.overlay else { return };
    let window = Rect::new(0, layout.titles.y, layout.titles.width, layout.ticket.y - layout.titles.y);
    match overlay {
        Overlay::Help { scroll } => help(model, pen, window, *scroll),
        Overlay::Search { input, selected } => search(model, pen, window, input, *selected),
        Overlay::Palette { input, selected } => palette(model, pen, window, input, *selected),
        Overlay::Alert { input, refused } => alert(model, pen, window, input, refused.as_deref()),
        Overlay::ConfirmFlatten { symbol } => confirm(model, pen, window, symbol),
        Overlay::Page(page) => super::page::draw(model, pen, window, *page),
        Overlay::Welcome => welcome(pen, window),
    }
}

/// The first minute, in four lines.
fn welcome(pen: &mut Pen, window: Rect) {
    let inner = pen.boxed(centred(window, 58, 8), "Welcome: this is paper money");
    let lines = [
        ("b s", "write an order at the best price of its side"),
        ("j k", "choose a price; space follows the market again"),
        ("x F", "cancel at the cursor; cancel all and sell it all"),
        ("/ ?", "find a symbol; every key there is"),
    ];
    for (line, (keys, about)) in lines.into_iter().enumerate() {
        let y = inner.y + line as u16;
        pen.role(inner.x + 1, y, 4, keys, Role::Key);
        pen.role(inner.x + 6, y, inner.width.saturating_sub(6), about, Role::Text);
    }
    let y = inner.bottom().saturating_sub(1);
    pen.role(
        inner.x + 1,
        y,
        inner.width.saturating_sub(1),
        "the next key closes this; it is shown once",
        Role::Dim,
    );
}

fn centred(window: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(window.width), height.min(window.height));
    Rect::new(window.x + (window.width - width) / 2, window.y + (window.height - height) / 2, width, height)
}

/// The whole key table, by group.
fn help(model: &Model, pen: &mut Pen, window: Rect, scroll: usize) {
    let mut lines: Vec<(Option<&keys::Binding>, &str)> = Vec::new();
    let mut group = "";
    for row in keys::BINDINGS {
        if row.group != group {
            group = row.group;
            lines.push((None, group));
        }
        lines.push((Some(row), ""));
    }
    let columns: u16 = if window.width >= 96 { 2 } else { 1 };
    let per_column = lines.len().div_ceil(usize::from(columns));
    let area = centred(window, 48 * columns + 2, per_column as u16 + 3);
    let inner = pen.boxed(area, "Help  keys of the trading screen");
    let room = usize::from(inner.height.saturating_sub(1));
    let skip = scroll.min(per_column.saturating_sub(room));
    for column in 0..columns {
        let part = lines.iter().skip(usize::from(column) * per_column).take(per_column);
        let x = inner.x + 1 + column * 48;
        for (line, (row, title)) in part.skip(skip).take(room).enumerate() {
            let y = inner.y + line as u16;
            let Some(row) = row else {
                pen.role(x, y, 46, title, Role::Title);
                continue;
            };
            pen.role(x + 1, y, 8, &key_label(pen, &model.keys.label(row)), Role::Key);
            let style = pen.style(Role::Text);
            pen.words(x + 9, y, 37.min(inner.right().saturating_sub(x + 9)), row.about, style);
        }
    }
    let foot = "Esc closes  ↑↓ scroll  in a ticket: Tab next, ←→ change, y copies, Enter sends";
    let foot = if pen.theme.ascii {
        "Esc closes  arrows scroll  in a ticket: Tab next, y copies, Enter sends"
    } else {
        foot
    };
    pen.role(inner.x + 1, inner.bottom().saturating_sub(1), inner.width.saturating_sub(1), foot, Role::Dim);
}

fn key_label(pen: &Pen, label: &str) -> String {
    if !pen.theme.ascii {
        return label.to_owned();
    }
    label.replace('↑', "Up").replace('↓', "Dn")
}

fn input_line(pen: &mut Pen, area: Rect, prompt: &str, input: &Input) {
    let x = pen.role(area.x + 1, area.y, area.width, prompt, Role::Title);
    let room = area.right().saturating_sub(x + 1);
    let skip = input.caret().saturating_sub(usize::from(room).saturating_sub(1));
    let shown: String = input.text().chars().skip(skip).collect();
    let style = pen.style(Role::Field);
    pen.repeat(x, area.y, room, " ", style);
    pen.text(x, area.y, room, &shown, style);
    let cursor = pen.style(Role::Cursor);
    pen.paint(Rect::new(x + (input.caret() - skip) as u16, area.y, 1, 1).intersection(area), cursor);
}

fn search(model: &Model, pen: &mut Pen, window: Rect, input: &Input, selected: usize) {
    let found = find_symbols(model, input.text());
    let inner = pen.boxed(centred(window, 60, found.len().max(1) as u16 + 4), "Find a symbol");
    input_line(pen, Rect { height: 1, ..inner }, "/", input);
    if found.is_empty() {
        pen.role(inner.x + 1, inner.y + 1, inner.width, "no listed symbol matches", Role::Dim);
    }
    let room = usize::from(inner.height.saturating_sub(2));
    let skip = (selected + 1).saturating_sub(room);
    for (line, instrument) in found.iter().enumerate().skip(skip).take(room) {
        let y = inner.y + 1 + (line - skip) as u16;
        let style = pen.style(if line == selected { Role::Cursor } else { Role::Text });
        pen.words(inner.x + 1, y, 10, &format!("{:<10}", instrument.symbol), style);
        let width = inner.width.saturating_sub(22);
        let dim = pen.style(Role::Dim);
        pen.words(inner.x + 12, y, width, &instrument.name, dim);
        pen.words(inner.right().saturating_sub(9), y, 8, &instrument.exchange, dim);
    }
    pen.role(
        inner.x + 1,
        inner.bottom().saturating_sub(1),
        inner.width,
        "Enter shows it  Esc closes",
        Role::Dim,
    );
}

fn palette(model: &Model, pen: &mut Pen, window: Rect, input: &Input, selected: usize) {
    let found = keys::search(input.text());
    let inner = pen.boxed(centred(window, 60, found.len().clamp(1, 14) as u16 + 4), "Command");
    input_line(pen, Rect { height: 1, ..inner }, ":", input);
    if found.is_empty() {
        pen.role(inner.x + 1, inner.y + 1, inner.width, "no such command", Role::Dim);
    }
    let room = usize::from(inner.height.saturating_sub(2));
    let skip = (selected + 1).saturating_sub(room);
    for (line, row) in found.iter().enumerate().skip(skip).take(room) {
        let y = inner.y + 1 + (line - skip) as u16;
        let style = pen.style(if line == selected { Role::Cursor } else { Role::Text });
        let about = format!("{:<44}", row.about);
        pen.words(inner.x + 1, y, inner.width.saturating_sub(12), &about, style);
        let label = key_label(pen, &model.keys.label(row));
        let key = pen.style(Role::Key);
        pen.right(inner.right().saturating_sub(9), y, 8, &label, key);
    }
    pen.role(
        inner.x + 1,
        inner.bottom().saturating_sub(1),
        inner.width,
        "Enter runs it  Esc closes",
        Role::Dim,
    );
}

fn alert(model: &Model, pen: &mut Pen, window: Rect, input: &Input, refused: Option<&str>) {
    let inner = pen.boxed(centred(window, 56, 6), &format!("Alert on {}", model.symbol));
    input_line(pen, Rect { height: 1, ..inner }, "when ", input);
    let (line, role) = match refused {
        Some(text) => (text, Role::Bad),
        None => (">= 235  <= 220.5  spread 0.05  pnl -500  stale 10", Role::Dim),
    };
    pen.role(inner.x + 1, inner.y + 1, inner.width.saturating_sub(1), line, role);
    pen.role(
        inner.x + 1,
        inner.bottom().saturating_sub(1),
        inner.width,
        "Enter adds it  Esc closes",
        Role::Dim,
    );
}

fn confirm(model: &Model, pen: &mut Pen, window: Rect, symbol: &str) {
    let orders = model.holdings.open_in(symbol).count();
    let held = model.holdings.positions.values().filter(|h| h.symbol == symbol);
    let shares = held.fold(0i64, |sum, h| sum.saturating_add(h.quantity_e4));
    let inner = pen.boxed(centred(window, 54, 6), &format!("Flatten {symbol}"));
    let text = format!("cancel {orders} orders, then sell {} at market?", money::format_e4(shares));
    let style = pen.style(Role::Text);
    for (line, piece) in
        super::ticket::wrap(&text, usize::from(inner.width.saturating_sub(2))).iter().take(2).enumerate()
    {
        pen.text(inner.x + 1, inner.y + 1 + line as u16, inner.width.saturating_sub(1), piece, style);
    }
    let y = inner.bottom().saturating_sub(1);
    let x = pen.role(inner.x + 1, y, inner.width, "y", Role::Key);
    let x = pen.role(x, y, inner.width, " does it  ", Role::Dim);
    let x = pen.role(x, y, inner.width, "Esc", Role::Key);
    pen.role(x, y, inner.right().saturating_sub(x), " closes", Role::Dim);
    debug_assert!(text::width(symbol) <= 64, "invariant: symbols are at most 10 characters");
}
