//! The order ticket: its box beside the ladder, and the line below that always shows size, arming and cash.

use crate::{
    model::{
        Model,
        ticket::{Field, State, Ticket, expiry, kind_name, side_name, time_name},
    },
    text::{self, Input},
    theme::Role,
    update::short_id,
    view::{Layout, Pen},
};
use fafnir_proto::v1::Side;
use fafnir_rules::money;
use ratatui::{layout::Rect, style::Style};

/// Columns of the box, and its rows at least.
const WIDTH: u16 = 36;
const HEIGHT: u16 = 13;
/// Where the values begin in the box, and their columns.
const VALUE: u16 = 12;
const INPUT: u16 = 14;
/// Columns of an empty input.
const INPUT_SHOWN: usize = 12;

/// Size, order defaults, arming, notional and cash, as far as they fit whole.
pub fn line(model: &Model, pen: &mut Pen, area: Rect) {
    let separator = format!(" {} ", pen.theme.glyphs().separator);
    let mut parts: Vec<Vec<(String, Role)>> = Vec::new();
    let size_e4 = model.sizes_e4.get(model.size_index).copied();
    let mut sizes =
        vec![(format!("QTY {} ", size_e4.map_or_else(|| "best".to_owned(), money::format_e4)), Role::Title)];
    for (at, size) in model.sizes_e4.iter().enumerate() {
        let role = if at == model.size_index { Role::Key } else { Role::Dim };
        sizes.push((format!(" ({}){}", at + 1, money::format_e4(*size)), role));
    }
    if size_e4.is_none() {
        let at_best = |side| model.size_e4(side).map_or_else(|| "-".to_owned(), money::format_e4);
        sizes.push((format!(" (0)b {} s {}", at_best(Side::Buy), at_best(Side::Sell)), Role::Key));
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
        if let Some(notional) = price.zip(size_e4).and_then(|(p, size)| money::notional_micros(p, size)) {
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

/// One line of the box below the fields.
type Line = (String, Role);

/// The ticket's box, what stands in it below its fields; none while none shows.
fn boxed<'a>(model: &'a Model, layout: &Layout) -> Option<(&'a Ticket, Rect, Vec<Line>)> {
    let ticket = model.ticket.as_ref().filter(|t| !t.quick)?;
    let ladder = layout.ladder;
    let window = layout.titles.width;
    // Beside the ladder if there is room, else over its right part; never over the line of messages.
    let width = WIDTH.min(window);
    let x = if ladder.right() + 1 + width <= window { ladder.right() + 1 } else { window - width };
    let y = layout.titles.y + 1;
    let fields = field_lines(ticket);
    let room = layout.ticket.y.saturating_sub(y).saturating_sub(2);
    let notes = notes(model, ticket, width.saturating_sub(4), room.saturating_sub(fields));
    let height = (fields + notes.len() as u16 + 2).max(HEIGHT).min(room + 2);
    Some((ticket, Rect::new(x, y, width, height), notes))
}

/// Where the ticket covers the screen.
pub fn area(model: &Model, layout: &Layout) -> Option<Rect> {
    boxed(model, layout).map(|(_, area, _)| area)
}

/// The box, while a ticket is open.
pub fn draw(model: &Model, layout: &Layout, pen: &mut Pen) {
    let Some((ticket, area, notes)) = boxed(model, layout) else { return };
    let title = match &ticket.replaces {
        Some(order) => {
            format!("REPLACE {} {} {}", short_id(&order.id), side_name(ticket.side), ticket.symbol)
        }
        None => format!("{} {}", side_name(ticket.side), ticket.symbol),
    };
    let inner = pen.boxed(area, &title);
    let first = draw_fields(model, ticket, pen, inner);
    let last = inner.bottom().saturating_sub(1);
    for (y, (at, (text, role))) in (first..=last).zip(notes.iter().enumerate()) {
        // The keys stand at the bottom.
        let is_keys = at + 1 == notes.len() && *role == Role::Dim;
        let y = if is_keys { last } else { y };
        pen.role(inner.x + 1, y, inner.width.saturating_sub(1), text, *role);
    }
}

/// Lines that the fields take: each one, and one for what a trail and an expiry mean.
fn field_lines(ticket: &Ticket) -> u16 {
    let fields = ticket.fields();
    let meanings = fields.iter().filter(|f| matches!(f, Field::Trail | Field::Expires)).count();
    (fields.len() + meanings) as u16
}

/// What stands below the fields, the least important left out where there is no room: the verdict, the notional, the
/// order as it is, the keys.
fn notes(model: &Model, ticket: &Ticket, columns: u16, room: u16) -> Vec<Line> {
    let tick = model.tick_e4(&ticket.symbol);
    let (text, role) = match (&ticket.state, ticket.validate(model), &ticket.refused) {
        (State::InFlight(_), ..) => ("sent, waiting for the answer".to_owned(), Role::Warn),
        (State::Unknown(_), ..) => ("no answer: Enter asks again for the same order".to_owned(), Role::Bad),
        (State::Editing, _, Some(refused)) => (format!("refused: {refused}"), Role::Bad),
        (State::Editing, Err(refusal), _) => (refusal.text, Role::Bad),
        (State::Editing, Ok(_), None) => match ticket.crossing(model) {
            None => ("ready".to_owned(), Role::Good),
            Some(_) if ticket.post_only => ("post-only: it would cross and be refused".to_owned(), Role::Bad),
            Some((taken, at)) => (crossing_text(taken, at, tick), Role::Warn),
        },
    };
    let room = usize::from(room);
    let mut verdict: Vec<Line> = wrap(&text, usize::from(columns)).into_iter().map(|t| (t, role)).collect();
    verdict.truncate(room.max(1));
    let mut lines = Vec::new();
    let mut spare = room.saturating_sub(verdict.len());
    if spare > 0 {
        spare -= 1;
        let notional = ticket.notional_micros(model).map_or("-".to_owned(), text::cents);
        lines.push((format!("notional   {notional}"), Role::Text));
    }
    if let Some(order) = ticket.replaces.as_ref().filter(|_| spare > 0) {
        spare -= 1;
        let filled = model.holdings.orders.get(&order.id).map_or(order.filled_e4, |o| o.filled_e4);
        lines.push((format!("filled     {}", money::format_e4(filled)), Role::Text));
    }
    lines.extend(verdict);
    if spare > 1 {
        lines.push((String::new(), Role::Text));
    }
    if spare > 0 {
        lines.push(("Enter sends  Esc closes  Tab next".to_owned(), Role::Dim));
    }
    lines
}

/// What an order takes at once: `crosses: takes 30 @ 231.18`.
pub fn crossing_text(taken_e4: i64, at_e4: i64, tick_e4: i64) -> String {
    format!("crosses: takes {} @ {}", money::format_e4(taken_e4), text::price(at_e4, tick_e4))
}

/// Draws the fields; answers the line after them.
fn draw_fields(model: &Model, ticket: &Ticket, pen: &mut Pen, area: Rect) -> u16 {
    let tick = model.tick_e4(&ticket.symbol);
    let wrong = ticket.validate(model).err().and_then(|r| r.field).filter(|_| ticket.is_editing());
    let [left, right] = pen.theme.glyphs().choice;
    let choice = |text: &str| format!("{left} {text} {right}");
    let price_step = || format!("tick {}", text::price(tick, tick));
    let mut y = area.y;
    for field in ticket.fields() {
        if y >= area.bottom() {
            break;
        }
        let (name, value, note) = match field {
            Field::Side => ("Side", choice(side_name(ticket.side)), String::new()),
            Field::Type => ("Type", choice(kind_name(ticket.kind)), String::new()),
            Field::Quantity => {
                ("Quantity", String::new(), format!("lot {}", money::format_e4(model.lot_e4(&ticket.symbol))))
            }
            Field::Price => ("Price", String::new(), price_step()),
            Field::Stop => ("Stop", String::new(), price_step()),
            Field::Trail => ("Trail", String::new(), "or 1.5%".to_owned()),
            Field::TimeInForce => ("In force", choice(time_name(ticket.time_in_force)), String::new()),
            Field::Expires => ("Expires", String::new(), String::new()),
            Field::PostOnly => {
                ("Post-only", if ticket.post_only { "[x]" } else { "[ ]" }.into(), String::new())
            }
            Field::Target => ("Target", String::new(), "sells there".to_owned()),
            Field::ExitStop => ("Exit stop", String::new(), "sells below".to_owned()),
            Field::Account => {
                let shown = ticket.accounts.get(ticket.account).map_or("-", |(_, shown)| shown.as_str());
                ("Account", choice(shown), String::new())
            }
            Field::Display => {
                ("Display", String::new(), if ticket.display.is_empty() { "all" } else { "" }.into())
            }
        };
        let here = ticket.field == field && ticket.is_editing();
        let name_role = if wrong == Some(field) { Role::Bad } else { Role::Dim };
        if here {
            pen.role(area.x, y, 1, ">", Role::Title);
        }
        pen.role(area.x + 1, y, 10, name, name_role);
        let x = area.x + VALUE;
        let room = area.right().saturating_sub(x);
        let side_role = if ticket.side == Side::Sell { Role::Ask } else { Role::Bid };
        let mut style = pen.style(if field == Field::Side { side_role } else { Role::Text });
        if here {
            style = style.patch(pen.style(if field.is_input() { Role::Field } else { Role::Cursor }));
        }
        let end = match ticket.input(field) {
            // A time is longer than a number.
            Some(input) => {
                let columns = if field == Field::Expires { room } else { room.min(INPUT) };
                draw_input(pen, Rect::new(x, y, columns, 1), input, here, style)
            }
            None => pen.words(x, y, room.min(INPUT), &value, style),
        };
        let dim = pen.style(Role::Dim);
        if usize::from(area.right().saturating_sub(end + 1)) >= text::width(&note) {
            pen.text(end + 1, y, area.right().saturating_sub(end + 1), &note, dim);
        }
        y += 1;
        if let Some(meaning) = meaning(model, ticket, field, tick)
            && y < area.bottom()
        {
            pen.role(area.x + 1, y, area.width.saturating_sub(1), &meaning, Role::Dim);
            y += 1;
        }
    }
    y
}

/// What a trail or an expiry means, empty while that is not known; none for fields that mean what they say.
fn meaning(model: &Model, ticket: &Ticket, field: Field, tick: i64) -> Option<String> {
    match field {
        Field::Trail => {
            let stop = ticket.trailing_start_e4(model);
            Some(stop.map_or_else(String::new, |stop| format!("stop starts at {}", text::price(stop, tick))))
        }
        Field::Expires => {
            let at = expiry::parse(ticket.expires.text(), model.now_us, &model.zone).ok();
            let text = at.map(|at| expiry::meaning(at, model.now_us, &model.zone));
            Some(text.unwrap_or_else(|| "18:30 +2h +3d 2026-11-25 18:30".to_owned()))
        }
        _ => None,
    }
}

/// Draws an input so that its caret is in sight; answers the column after it.
fn draw_input(pen: &mut Pen, area: Rect, input: &Input, here: bool, style: Style) -> u16 {
    let columns = usize::from(area.width);
    let skip = if here { input.caret().saturating_sub(columns.saturating_sub(1)) } else { 0 };
    let shown: String = input.text().chars().skip(skip).collect();
    let cell = format!("{shown:<width$}", width = columns.min(INPUT_SHOWN));
    let end = if here && skip > 0 {
        pen.text(area.x, area.y, area.width, &cell, style)
    } else {
        pen.words(area.x, area.y, area.width, &cell, style)
    };
    if here && input.is_chosen() {
        // What is typed next replaces it.
        let cursor = pen.style(Role::Cursor);
        pen.paint(Rect::new(area.x, area.y, text::width(&shown).min(columns) as u16, 1), cursor);
    } else if here {
        let cursor = pen.style(Role::Cursor);
        let at = area.x + ((input.caret() - skip) as u16).min(area.width.saturating_sub(1));
        pen.paint(Rect::new(at, area.y, 1, 1), cursor);
    }
    end
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
