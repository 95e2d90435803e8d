//! The order ticket: its box beside the ladder, and the line below that always shows size, arming and cash.

use crate::{
    model::{
        Model, SIZES,
        ticket::{Field, State, Ticket, kind_name, side_name, time_name},
    },
    text,
    theme::Role,
    view::{Layout, Pen},
};
use fafnir_proto::{money, v1::Side};
use ratatui::layout::Rect;

/// Columns and rows of the box.
const WIDTH: u16 = 36;
const HEIGHT: u16 = 13;

/// Size, order defaults, arming, notional and cash, as far as they fit whole.
pub fn line(model: &Model, pen: &mut Pen, area: Rect) {
    let separator = format!(" {} ", pen.theme.glyphs().separator);
    let mut parts: Vec<Vec<(String, Role)>> = Vec::new();
    let mut sizes = vec![(format!("QTY {} ", money::format_e4(model.size_e4())), Role::Title)];
    for (at, size) in SIZES.iter().enumerate() {
        let role = if at == model.size_index { Role::Key } else { Role::Dim };
        sizes.push((format!(" ({}){size}", at + 1), role));
    }
    parts.push(sizes);
    parts.push(vec![if model.read_only {
        ("READ-ONLY".to_owned(), Role::Warn)
    } else if let Some(until) = model.armed_until_us.filter(|_| model.is_armed()) {
        let left = (until - model.now_us).max(0) / 1_000_000;
        (format!("ARMED {}:{:02} one key sends", left / 60, left % 60), Role::Banner)
    } else {
        ("DISARMED  A arms 5 min".to_owned(), Role::Text)
    }]);
    if !model.symbol.is_empty() {
        let currency = model.currency(&model.symbol).to_owned();
        if let Some(account) = model.holdings.default_account(&currency) {
            parts.push(vec![(
                format!("avail {} {}", text::cents(account.available_micros), account.currency),
                Role::Text,
            )]);
        }
        let price = model.inside().0.or(model.reference_e4(&model.symbol));
        if let Some(notional) = price.and_then(|p| money::notional_micros(p, model.size_e4())) {
            parts.push(vec![(format!("notional {}", text::cents(notional)), Role::Dim)]);
        }
    }
    let mut x = area.x + 1;
    for (at, part) in parts.iter().enumerate() {
        let lead = if at == 0 { 0 } else { text::width(&separator) };
        let needed = lead + part.iter().map(|(t, _)| text::width(t)).sum::<usize>();
        if usize::from(x) + needed > usize::from(area.right()) {
            continue;
        }
        if at > 0 {
            x = pen.role(x, area.y, area.width, &separator, Role::Frame);
        }
        for (text, role) in part {
            x = pen.role(x, area.y, area.width, text, *role);
        }
    }
}

/// The box, while a ticket is open.
pub fn draw(model: &Model, layout: &Layout, pen: &mut Pen) {
    let Some(ticket) = model.ticket.as_ref().filter(|t| !t.quick) else { return };
    let ladder = layout.ladder;
    let window = layout.titles.width;
    // Beside the ladder if there is room, else over its right part; never over the line of messages.
    let width = WIDTH.min(window);
    let x = if ladder.right() + 1 + width <= window { ladder.right() + 1 } else { window - width };
    let height = HEIGHT.min(layout.ticket.y.saturating_sub(layout.titles.y));
    let title = format!("{} {}", side_name(ticket.side), ticket.symbol);
    let inner = pen.boxed(Rect::new(x, layout.titles.y + 1, width, height), &title);
    fields(model, ticket, pen, inner);
}

fn fields(model: &Model, ticket: &Ticket, pen: &mut Pen, area: Rect) {
    let tick = model.tick_e4(&ticket.symbol);
    let checked = ticket.validate(model);
    let wrong = checked.as_ref().err().and_then(|r| r.field).filter(|_| ticket.is_editing());
    let [left, right] = pen.theme.glyphs().choice;
    let choice = |text: &str| format!("{left} {text} {right}");
    let mut y = area.y;
    for field in ticket.fields() {
        let (name, value, note) = match field {
            Field::Side => ("Side", choice(side_name(ticket.side)), String::new()),
            Field::Type => ("Type", choice(kind_name(ticket.kind)), String::new()),
            Field::Quantity => {
                let lot = money::format_e4(model.lot_e4(&ticket.symbol));
                ("Quantity", ticket.quantity.text().to_owned(), format!("lot {lot}"))
            }
            Field::Price => {
                ("Price", ticket.price.text().to_owned(), format!("tick {}", text::price(tick, tick)))
            }
            Field::Stop => {
                ("Stop", ticket.stop.text().to_owned(), format!("tick {}", text::price(tick, tick)))
            }
            Field::TimeInForce => ("In force", choice(time_name(ticket.time_in_force)), String::new()),
            Field::PostOnly => {
                ("Post-only", if ticket.post_only { "[x]" } else { "[ ]" }.into(), String::new())
            }
        };
        let here = ticket.field == field && ticket.is_editing();
        let name_role = if wrong == Some(field) { Role::Bad } else { Role::Dim };
        if here {
            pen.role(area.x, y, 1, ">", Role::Title);
        }
        pen.role(area.x + 1, y, 10, name, name_role);
        let is_input = matches!(field, Field::Quantity | Field::Price | Field::Stop);
        let side_role = if ticket.side == Side::Sell { Role::Ask } else { Role::Bid };
        let mut style = pen.style(if field == Field::Side { side_role } else { Role::Text });
        if here {
            style = style.patch(pen.style(if is_input { Role::Field } else { Role::Cursor }));
        }
        let room = area.right().saturating_sub(area.x + 12);
        let cell = if is_input { format!("{value:<12}") } else { value };
        let end = pen.words(area.x + 12, y, room.min(14), &cell, style);
        if here && is_input {
            let input = match field {
                Field::Quantity => &ticket.quantity,
                Field::Price => &ticket.price,
                _ => &ticket.stop,
            };
            let at = area.x + 12 + (input.caret() as u16).min(13);
            let cursor = pen.style(Role::Cursor);
            pen.paint(Rect::new(at, y, 1, 1), cursor);
        }
        let dim = pen.style(Role::Dim);
        if usize::from(area.right().saturating_sub(end + 1)) >= text::width(&note) {
            pen.text(end + 1, y, area.right().saturating_sub(end + 1), &note, dim);
        }
        y += 1;
    }
    let notional = ticket.notional_micros(model).map_or("-".to_owned(), text::cents);
    pen.role(area.x + 1, y, area.width, &format!("notional   {notional}"), Role::Text);
    y += 1;
    let (text, role) = match (&ticket.state, &checked, &ticket.refused) {
        (State::InFlight(_), ..) => ("sent, waiting for the answer".to_owned(), Role::Warn),
        (State::Unknown(_), ..) => ("no answer: Enter asks again for the same order".to_owned(), Role::Bad),
        (State::Editing, _, Some(refused)) => (format!("refused: {refused}"), Role::Bad),
        (State::Editing, Err(refusal), _) => (refusal.text.clone(), Role::Bad),
        (State::Editing, Ok(_), None) => ("ready".to_owned(), Role::Good),
    };
    let style = pen.style(role);
    for piece in wrap(&text, usize::from(area.width.saturating_sub(2))) {
        if y + 1 < area.bottom() {
            pen.text(area.x + 1, y, area.width.saturating_sub(1), &piece, style);
            y += 1;
        }
    }
    let hint = "Enter sends  Esc closes  Tab next";
    pen.role(area.x + 1, area.bottom().saturating_sub(1), area.width.saturating_sub(1), hint, Role::Dim);
}

/// Breaks a sentence between words.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text::width(line) + 1 + text::width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(text::prefix(word, columns).to_owned()),
        }
    }
    lines
}
