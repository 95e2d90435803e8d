//! The screens: each part of the window draws itself from the model.

pub mod chart;
pub mod header;
pub mod ladder;
pub mod lower;
pub mod overlay;
pub mod page;
pub mod sign_in;
pub mod small;
pub mod tape;
pub mod ticket;
pub mod watch;

use crate::{
    model::{Model, feed::Freshness, holdings, ladder as axis},
    text,
    theme::Role,
    view::{Layout, Pen},
};
use fafnir_proto::v1::{self, TradingState};
use fafnir_rules::money;

/// The trading screen.
pub fn trading(model: &Model, layout: &Layout, pen: &mut Pen) {
    header::draw(model, pen, layout.header);
    frame(model, layout, pen);
    if let Some(area) = layout.watch {
        watch::draw(model, pen, area);
    }
    ladder::draw(model, pen, layout);
    if let Some(area) = layout.chart {
        chart::draw(model, pen, area);
    }
    if let Some(area) = layout.tape {
        tape::draw(model, pen, area);
    }
    lower::draw(model, pen, layout.lower);
    ticket::line(model, pen, layout.ticket);
    header::message(model, pen, layout.message);
    header::hints(model, pen, layout.hints);
    ticket::draw(model, layout, pen);
    overlay::draw(model, layout, pen);
    banner(model, layout, pen);
}

/// Over the titles when the book on the screen is not the market's.
fn banner(model: &Model, layout: &Layout, pen: &mut Pen) {
    let Freshness::Stale(reason) = model.feed.freshness(model.now_us, model.links.nats) else { return };
    let age =
        model.feed.age_us(model.now_us).map(|us| format!(" for {}s", us / 1_000_000)).unwrap_or_default();
    let long = format!(" STALE{age}: {}. Orders are refused, cancels work. ", reason.sentence());
    let short = format!(" STALE{age}: orders refused, cancels work ");
    let row = layout.titles;
    let text = if text::width(&long) <= usize::from(row.width) { long } else { short };
    let style = pen.style(Role::Banner);
    pen.clear(row);
    pen.paint(row, style);
    let x = (usize::from(row.width).saturating_sub(text::width(&text)) / 2) as u16;
    pen.text(x, row.y, row.width, &text, style);
}

/// Lines between the parts, with the titles in them.
fn frame(model: &Model, layout: &Layout, pen: &mut Pen) {
    let glyphs = pen.theme.glyphs();
    let [top_left, top_right, left_join, right_join, top_join, _, _, bottom_join] = glyphs.corners;
    let style = pen.style(Role::Frame);
    let (titles, tabs) = (layout.titles, layout.tabs);
    let right = titles.right() - 1;
    pen.repeat(0, titles.y, titles.width, glyphs.horizontal, style);
    pen.repeat(0, tabs.y, tabs.width, glyphs.horizontal, style);
    let columns = [layout.watch, Some(layout.ladder), layout.chart.or(layout.tape)];
    for area in columns.into_iter().flatten() {
        for y in area.y..tabs.y {
            pen.text(area.x - 1, y, 1, glyphs.vertical, style);
            pen.text(right, y, 1, glyphs.vertical, style);
        }
        pen.text(area.x - 1, titles.y, 1, top_join, style);
        pen.text(area.x - 1, tabs.y, 1, bottom_join, style);
    }
    for y in layout.lower.y..layout.lower.bottom() {
        pen.text(0, y, 1, glyphs.vertical, style);
        pen.text(right, y, 1, glyphs.vertical, style);
    }
    for (x, y, glyph) in [
        (0, titles.y, top_left),
        (right, titles.y, top_right),
        (0, tabs.y, left_join),
        (right, tabs.y, right_join),
    ] {
        pen.text(x, y, 1, glyph, style);
    }
    if let Some(split) = layout.split {
        pen.repeat(split.x, split.y, split.width, glyphs.horizontal, style);
        pen.text(split.x - 1, split.y, 1, left_join, style);
        pen.text(right, split.y, 1, right_join, style);
    }

    let title = pen.style(Role::Title);
    if let Some(area) = layout.watch {
        pen.words(area.x + 1, titles.y, area.width.saturating_sub(2), " Watch ", title);
    }
    let step = model.ladder.step_e4(model.tick_e4(&model.symbol));
    let room = layout.ladder.width.saturating_sub(2);
    let heading = format!(" Ladder grp {} [ ]", text::price(step, step));
    let end = pen.words(layout.ladder.x + 1, titles.y, room, &format!("{heading} "), title);
    let state = if model.ladder.is_pinned() || model.is_armed() { " pinned " } else { " centred " };
    let x = layout.ladder.right().saturating_sub(text::width(state) as u16 + 1);
    pen.role(x, titles.y, 10, state, Role::Dim);
    let between = x.saturating_sub(end + 1);
    let dim = pen.style(Role::Dim);
    // A number shows whole or not at all; a name may be shortened.
    let fits = |text: &String| text::width(text) < usize::from(between);
    if let Some(text) = position(model).into_iter().find(fits) {
        pen.text(end, titles.y, between, &format!("{text} "), dim);
    } else if let Some(instrument) = model.instrument().filter(|_| between > 10) {
        pen.words(end, titles.y, between, &format!("{} ", instrument.name), dim);
    }
    if let Some(area) = layout.chart {
        let text = format!(" {} candles  , . ", model.chart.interval_name());
        pen.words(area.x + 1, titles.y, area.width.saturating_sub(2), &text, title);
    }
    if let Some(area) = layout.tape {
        let y = layout.split.map_or(titles.y, |s| s.y);
        let least = model.tape.filter_e4();
        let filter = match least {
            0 => "all".to_owned(),
            _ => format!("{} {}", glyphs.at_least, fafnir_rules::money::format_e4(least)),
        };
        let heading = format!(" Time & sales {}  {filter} ", model.zone.label(model.now_us));
        pen.words(area.x + 1, y, area.width.saturating_sub(2), &heading, title);
    }
    lower::tabs(model, pen, tabs);
}

/// The position in the symbol on the ladder, longest first: shares, average cost (which the axis marks too), open result.
fn position(model: &Model) -> Vec<String> {
    let held = |h: &&v1::Holding| h.symbol == model.symbol && h.quantity_e4 > 0;
    let Some(holding) = model.holdings.positions.values().find(held) else { return Vec::new() };
    let (quantity, average) = (money::format_e4(holding.quantity_e4), text::cents(holding.avg_cost_micros));
    match holdings::unrealised_micros(model, holding).map(text::signed_cents) {
        Some(open) => vec![format!("{quantity} @ {average} {open}"), format!("{quantity} {open}"), quantity],
        None => vec![format!("{quantity} @ {average}"), quantity],
    }
}

/// The state of a symbol that does not trade continuously; none of one that does.
pub(crate) fn state_name(state: TradingState) -> Option<&'static str> {
    match state {
        TradingState::Open | TradingState::Unspecified => None,
        state => Some(state.name()),
    }
}

/// True while orders gather for an auction and nothing trades.
pub(crate) fn is_call(state: TradingState) -> bool {
    state.known().is_some_and(fafnir_rules::order::TradingState::is_call)
}

/// How the book leans, in percent of the bids, over the levels that a trader looks at.
pub(crate) fn imbalance(model: &Model) -> Option<i64> {
    const LEVELS: usize = 10;
    model.book.as_ref().and_then(|book| axis::imbalance_percent(book, LEVELS))
}
