//! The first line, the message and the hints.

use crate::{
    keys,
    model::{
        Model, Tone,
        feed::{Freshness, Link, Wire},
        holdings,
    },
    text,
    theme::Role,
    view::Pen,
};
use ratatui::layout::Rect;

/// A piece of the line with its role.
type Piece = (String, Role);

/// One field; the line leaves out the fields with the highest number first.
struct FieldOf {
    keep: u8,
    pieces: Vec<Piece>,
}

fn width_of(field: &FieldOf) -> usize {
    field.pieces.iter().map(|(t, _)| text::width(t)).sum()
}

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    let mut fields = fields(model);
    let separator = format!(" {} ", pen.theme.glyphs().separator);
    let room = usize::from(area.width).saturating_sub(1);
    loop {
        let needed: usize = fields.iter().map(width_of).sum::<usize>()
            + text::width(&separator) * fields.len().saturating_sub(1);
        if needed <= room || fields.len() <= 1 {
            break;
        }
        let worst = fields.iter().enumerate().max_by_key(|(_, f)| f.keep).map_or(0, |(at, _)| at);
        fields.remove(worst);
    }
    let mut x = area.x + 1;
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            x = pen.role(x, area.y, area.right().saturating_sub(x), &separator, Role::Frame);
        }
        for (text, role) in &field.pieces {
            x = pen.role(x, area.y, area.right().saturating_sub(x), text, *role);
        }
    }
}

fn fields(model: &Model) -> Vec<FieldOf> {
    let glyphs = model.theme.glyphs();
    let mode = if model.read_only { "READ-ONLY" } else { "PAPER" };
    let mut fields = match &model.replay {
        None => vec![FieldOf { keep: 6, pieces: vec![(mode.into(), Role::Title)] }],
        Some(replay) => {
            let held = if replay.held { "held" } else { "playing" };
            let (text, speed) = (format!(" REPLAY {held} "), format!(" {}%", replay.speed_percent));
            vec![FieldOf { keep: 0, pieces: vec![(text, Role::Banner), (speed, Role::Text)] }]
        }
    };
    if model.limited || !model.notice.is_empty() {
        let mark = if model.limited { " LIMITED " } else { " ALARM " };
        fields.push(FieldOf { keep: 0, pieces: vec![(mark.into(), Role::Banner)] });
    }
    if !model.who.email.is_empty() {
        fields.push(FieldOf { keep: 7, pieces: vec![(model.who.email.clone(), Role::Dim)] });
    }
    if !model.symbol.is_empty() {
        fields.push(FieldOf { keep: 0, pieces: price(model) });
        let tick = model.tick_e4(&model.symbol);
        let trades = super::state_name(model.trading_state(&model.symbol)).is_none();
        if let (true, (Some(bid), Some(ask))) = (trades, model.inside()) {
            let spread = ask - bid;
            let text = format!("spr {} ({}t)", text::price(spread, tick), spread / tick);
            fields.push(FieldOf { keep: 5, pieces: vec![(text, Role::Text)] });
        }
    }
    let currency = model.currency(&model.symbol);
    if let Some((equity, unrealised)) = holdings::equity_micros(model, currency) {
        let role = if unrealised < 0 { Role::Down } else { Role::Up };
        let pieces = vec![
            (format!("eq {} uPnL ", text::cents(equity)), Role::Text),
            (text::signed_cents(unrealised), role),
        ];
        fields.push(FieldOf { keep: 3, pieces });
    }
    let mut delays = Vec::new();
    match model.feed.freshness(model.now_us, model.links.nats) {
        Freshness::Stale(_) => {
            let age = model.feed.age_us(model.now_us).map_or("-".into(), text::duration);
            delays.push((format!("md {age} old"), Role::Bad));
        }
        Freshness::Live => {
            let delay = model.feed.delay_us.map_or("ok".into(), text::duration);
            delays.push((format!("md {delay}"), Role::Text));
        }
        Freshness::Waiting => delays.push(("md -".into(), Role::Warn)),
    }
    if let Some((median, high)) = model.links.percentiles() {
        delays.push((format!(" ord {}/{}", text::duration(median), text::duration(high)), Role::Text));
    }
    fields.push(FieldOf { keep: 4, pieces: delays });
    let link = |wire: Wire| {
        let (mark, role) = match model.links.get(wire) {
            Link::Up => (glyphs.link_up, Role::Good),
            Link::Connecting => (glyphs.link_connecting, Role::Warn),
            Link::Down => (glyphs.link_down, Role::Bad),
        };
        (format!("{} {mark}", wire.name()), role)
    };
    fields.push(FieldOf {
        keep: 1,
        pieces: vec![link(Wire::Nats), ("  ".into(), Role::Text), link(Wire::Grpc)],
    });
    fields
}

fn price(model: &Model) -> Vec<Piece> {
    let glyphs = model.theme.glyphs();
    let mut pieces = vec![(format!("{} ", model.symbol), Role::Title)];
    if let Some(name) = super::state_name(model.trading_state(&model.symbol)) {
        pieces.push((format!(" {name} "), Role::Banner));
        pieces.push((" ".to_owned(), Role::Text));
    }
    let Some(last) = model.reference_e4(&model.symbol) else { return pieces };
    pieces.push((text::price(last, model.tick_e4(&model.symbol)), Role::Last));
    pieces.push((format!(" {}", model.currency(&model.symbol)), Role::Dim));
    let base = model.quotes.get(&model.symbol).map(|q| q.previous_close_e4);
    let base = base.or(model.instrument().map(|i| i.previous_close_e4)).unwrap_or(0);
    let change = text::percent(last, base);
    if !change.is_empty() {
        let (glyph, role) = match last.cmp(&base) {
            std::cmp::Ordering::Greater => (glyphs.up, Role::Up),
            std::cmp::Ordering::Less => (glyphs.down, Role::Down),
            std::cmp::Ordering::Equal => ("", Role::Text),
        };
        pieces.push((format!(" {glyph}{change}"), role));
    }
    pieces
}

/// The last message with its mark.
pub fn message(model: &Model, pen: &mut Pen, area: Rect) {
    let Some(message) = &model.message else { return };
    let glyphs = pen.theme.glyphs();
    let (mark, role) = match message.tone {
        Tone::Good => (glyphs.ok, Role::Good),
        Tone::Bad => (glyphs.refused, Role::Bad),
        Tone::Note => (glyphs.note, Role::Text),
    };
    let style = pen.style(role);
    let x = pen.text(area.x + 1, area.y, 3, mark, style);
    pen.words(x + 1, area.y, area.right().saturating_sub(x + 2), &message.text, style);
}

/// The keys that most need no looking up, as many as fit whole; help and quit always.
pub fn hints(model: &Model, pen: &mut Pen, area: Rect) {
    if model.replay.is_some() {
        let text = "space holds  + - speed  left right 10 s  q quit";
        pen.role(area.x + 1, area.y, area.width.saturating_sub(1), text, Role::Key);
        return;
    }
    for (row, x) in shown_hints(model, area) {
        let label = model.keys.label(row);
        let x = pen.role(x, area.y, area.right().saturating_sub(x), short(&label), Role::Key);
        pen.role(x + 1, area.y, area.right().saturating_sub(x + 1), row.hint, Role::Dim);
    }
}

/// The action whose hint is under a column.
pub fn hint_at(model: &Model, area: Rect, x: u16) -> Option<keys::Action> {
    let width = |row: &keys::Binding| hint_width(model, row) as u16;
    let under = |(row, from): &(&keys::Binding, u16)| (*from..*from + width(row)).contains(&x);
    shown_hints(model, area).into_iter().find(under).map(|(row, _)| row.action)
}

/// Columns of a hint without the gap behind it.
fn hint_width(model: &Model, row: &keys::Binding) -> usize {
    text::width(short(&model.keys.label(row))) + 1 + text::width(row.hint)
}

fn short(label: &str) -> &str {
    label.split(' ').next().unwrap_or(label)
}

/// The hints that have room, and where each begins.
fn shown_hints(model: &Model, area: Rect) -> Vec<(&'static keys::Binding, u16)> {
    let rows: Vec<_> = keys::BINDINGS.iter().filter(|row| !row.hint.is_empty()).collect();
    let width = |row: &&keys::Binding| hint_width(model, row) + 2;
    let (last, first): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| matches!(row.action, keys::Action::Help | keys::Action::Quit));
    let mut room = usize::from(area.width).saturating_sub(1);
    room = room.saturating_sub(last.iter().map(width).sum());
    let mut shown = Vec::new();
    for row in first {
        if width(&row) > room {
            break;
        }
        room -= width(&row);
        shown.push(row);
    }
    let mut x = area.x + 1;
    let mut placed = Vec::new();
    for row in shown.into_iter().chain(last) {
        placed.push((row, x));
        x += width(&row) as u16;
    }
    placed
}
