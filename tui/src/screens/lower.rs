//! The lower part: orders, positions, fills, log.

use crate::{
    columns::Table,
    keys,
    model::{
        Model, Tab, Tone,
        holdings::{self, is_open, is_pending},
        ticket::{expiry, kind_name, side_name, time_name},
    },
    text,
    theme::Role,
    update::{short_id, trail},
    view::Pen,
};
use fafnir_proto::v1::{GroupLeg, Order, OrderState, OrderType, Side};
use fafnir_rules::money;
use ratatui::layout::Rect;

/// Columns that a note needs at least.
const NOTE_MIN: u16 = 9;
/// Columns of an order's quantity.
const QUANTITY: u16 = 8;

/// The line with the tabs.
pub fn tabs(model: &Model, pen: &mut Pen, area: Rect) {
    for (tab, x, text) in placed_tabs(model, area) {
        let mut style = pen.style(if model.tab == tab { Role::Title } else { Role::Dim });
        if model.tab == tab {
            style = style.patch(pen.style(Role::Field));
        }
        pen.text(x, area.y, 1, " ", style);
        let x = pen.text(x + 1, area.y, area.right() - x, &text, style);
        pen.text(x, area.y, 1, " ", pen.style(Role::Frame));
    }
}

/// The tab under a column of their line.
pub fn tab_at(model: &Model, area: Rect, x: u16) -> Option<Tab> {
    let under =
        |(_, from, text): &(Tab, u16, String)| (*from..=*from + text::width(text) as u16).contains(&x);
    placed_tabs(model, area).into_iter().find(under).map(|(tab, ..)| tab)
}

/// The order whose row is under a line of the lower part.
pub fn order_at(model: &Model, area: Rect, y: u16) -> Option<String> {
    let orders = model.orders_listed();
    let first = area.y + u16::from(area.height > 2);
    let room = usize::from(area.bottom().saturating_sub(first));
    let skip = model.scroll.min(orders.len().saturating_sub(room));
    let line = usize::from(y.checked_sub(first)?);
    orders.get(skip + line).filter(|_| line < room).map(|o| o.id.clone())
}

/// Tabs that have room, where each begins and what it says.
fn placed_tabs(model: &Model, area: Rect) -> Vec<(Tab, u16, String)> {
    let orders = model.holdings.orders.values().filter(|o| is_open(o)).count();
    let positions = model.holdings.positions.values().filter(|h| h.quantity_e4 != 0).count();
    let mut placed = Vec::new();
    let mut x = area.x + 2;
    for (tab, action, name, count) in [
        (Tab::Orders, keys::Action::TabOrders, "rders", Some(orders)),
        (Tab::Positions, keys::Action::TabPositions, "ositions", Some(positions)),
        (Tab::Fills, keys::Action::TabFills, "ills", None),
        (Tab::Log, keys::Action::TabLog, "og", None),
    ] {
        let key = keys::binding(action).map_or_else(String::new, |row| model.keys.label(row).into_owned());
        let count = count.map_or(String::new(), |c| format!(" {c}"));
        let mut text = format!("[{key}]{name}{count}");
        if tab == Tab::Orders && !model.order_filter.name().is_empty() {
            text = format!("{text} {}", model.order_filter.name());
        }
        let width = text::width(&text) as u16;
        if x + width + 1 < area.right() {
            placed.push((tab, x, text));
            x += width + 2;
        }
    }
    placed
}

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    match model.tab {
        Tab::Orders => orders(model, pen, area),
        Tab::Positions => positions(model, pen, area, model.scroll),
        Tab::Fills => fills(model, pen, area),
        Tab::Log => log(model, pen, area),
    }
}

/// Columns that have room: which of the table's, and how wide each is.
fn placed(model: &Model, table: Table, width: u16) -> Vec<(usize, u16)> {
    let all = table.columns();
    let wanted = model.columns.of(table);
    let as_they_come = (0..all.len()).filter(|at| width + 2 >= all[*at].from);
    let wanted = wanted.map_or_else(|| as_they_come.collect(), <[usize]>::to_vec);
    // The one that takes what is left comes last to its room, wherever it stands.
    let mut room = width.saturating_sub(1);
    let mut takes = |needed: u16| {
        let has_room = needed <= room;
        room = room.saturating_sub(if has_room { needed + 1 } else { 0 });
        has_room
    };
    let mut shown: Vec<(usize, u16)> = wanted.into_iter().map(|at| (at, all[at].width)).collect();
    shown.retain(|(_, width)| *width == 0 || takes(*width));
    shown.retain_mut(|(_, width)| {
        let takes_the_rest = *width == 0;
        if takes_the_rest {
            *width = room;
        }
        !takes_the_rest || room >= NOTE_MIN
    });
    shown
}

/// Draws headings and the rows that the scroll position shows; `empty` when there are none. A row has a text and a role
/// for each column of its table; it is told how wide the last column is.
fn table<T>(
    model: &Model,
    scroll: usize,
    pen: &mut Pen,
    area: Rect,
    which: Table,
    rows: &[T],
    row: impl Fn(&Pen, &T, u16) -> (Vec<String>, Vec<Role>),
) {
    let all = which.columns();
    let shown = placed(model, which, area.width);
    let has_heading = area.height > 2;
    let mut y = area.y;
    let cells = |pen: &mut Pen, y: u16, texts: &[&str], roles: &[Role]| {
        let mut x = area.x + 1;
        for (at, width) in &shown {
            let style = pen.style(roles[*at]);
            if all[*at].right {
                pen.right(x, y, *width, texts[*at], style);
            } else {
                pen.words(x, y, *width, texts[*at], style);
            }
            x += width + 1;
        }
    };
    if has_heading {
        let names: Vec<&str> = all.iter().map(|c| c.heading).collect();
        cells(pen, y, &names, &vec![Role::Dim; all.len()]);
        y += 1;
    }
    if rows.is_empty() {
        let empty = format!("no {}", which.name());
        pen.role(area.x + 1, y, area.width.saturating_sub(1), &empty, Role::Dim);
        return;
    }
    let last = shown.iter().find(|(at, _)| at + 1 == all.len()).map_or(0, |(_, width)| *width);
    let room = usize::from(area.bottom() - y);
    let skip = scroll.min(rows.len().saturating_sub(room));
    for (line, item) in rows.iter().skip(skip).take(room).enumerate() {
        let (texts, roles) = row(pen, item, last);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        cells(pen, y + line as u16, &texts, &roles);
    }
}

fn side_role(side: Side) -> Role {
    if side == Side::Sell { Role::Ask } else { Role::Bid }
}

pub(crate) fn state_name(order: &Order) -> &'static str {
    match order.state() {
        OrderState::Unspecified => "-",
        OrderState::PendingNew => "PENDING",
        OrderState::PartiallyFilled => "PARTIAL",
        state => state.name(),
    }
}

fn orders(model: &Model, pen: &mut Pen, area: Rect) {
    let listed = model.orders_listed();
    table(model, model.scroll, pen, area, Table::Orders, &listed, |pen, order, note_width| {
        let tick = model.tick_e4(&order.symbol);
        let average = match order.filled_e4 {
            0 => String::new(),
            filled => {
                let average = money::average_price(order.filled_notional_micros, filled, money::E4_DECIMALS);
                money::format_fixed(average, money::E4_DECIMALS, 2)
            }
        };
        let waits = is_open(order) && (is_pending(order) || model.holdings.cancelling.contains(&order.id));
        let state = format!("{}{}", state_name(order), if waits { pen.theme.glyphs().ellipsis } else { "" });
        let role = if is_open(order) { Role::Text } else { Role::Dim };
        let state_role = match order.state() {
            OrderState::Rejected => Role::Bad,
            OrderState::Filled => Role::Good,
            _ => role,
        };
        let note = if is_open(order) {
            whole_pieces(&terms(model, order, tick), usize::from(note_width))
        } else {
            order.reject_reason.clone()
        };
        let texts = vec![
            short_id(&order.id).to_owned(),
            side_name(order.side()).to_owned(),
            order.symbol.clone(),
            part_of_whole(order).unwrap_or_else(|| text::quantity(order.quantity_e4, QUANTITY.into())),
            text::quantity(order.filled_e4, 8),
            order_price(pen, order, tick),
            kind_name(order.r#type()).to_owned(),
            time_name(order.time_in_force()).to_owned(),
            state,
            average,
            text::clock(model.zone.shown_us(order.created_us)),
            note,
        ];
        let side = if is_open(order) { side_role(order.side()) } else { Role::Dim };
        let mut roles = vec![role; texts.len()];
        if is_open(order) && model.chosen.as_ref() == Some(&order.id) {
            roles[0] = Role::Cursor;
        }
        roles[1] = side;
        roles[8] = state_role;
        (texts, roles)
    });
}

/// The limit, else the stop price. The stop of a trailing stop has moved since, but never away from the market.
fn order_price(pen: &Pen, order: &Order, tick: i64) -> String {
    let glyphs = pen.theme.glyphs();
    match (order.price_e4, order.stop_price_e4) {
        (0, 0) => kind_name(order.r#type()).to_owned(),
        (0, stop) if order.r#type() == OrderType::TrailingStop => {
            let bound = if order.side() == Side::Sell { glyphs.at_least } else { glyphs.at_most };
            format!("{bound}{}", text::price(stop, tick))
        }
        (0, stop) => text::price(stop, tick),
        (limit, _) => text::price(limit, tick),
    }
}

/// What an iceberg shows and its whole, `20/100`; none where the column has no room for both.
fn part_of_whole(order: &Order) -> Option<String> {
    let (part, whole) = (order.display_quantity_e4, order.quantity_e4);
    let text = format!("{}/{}", money::format_e4(part), money::format_e4(whole));
    (part > 0 && text.len() <= usize::from(QUANTITY)).then_some(text)
}

/// What an open order has beside side, quantity and price.
fn terms(model: &Model, order: &Order, tick: i64) -> Vec<String> {
    let mut terms = Vec::new();
    // The same four characters are on every line of its group.
    match order.leg() {
        GroupLeg::None => {}
        GroupLeg::Entry => terms.push(format!("entry of {}", short_id(&order.group_id))),
        GroupLeg::Exit => terms.push(format!("exit of {}", short_id(&order.group_id))),
    }
    match order.r#type() {
        OrderType::TrailingStop => terms.push(format!("trail {}", trail(order, tick))),
        OrderType::StopLimit => terms.push(format!("stop {}", text::price(order.stop_price_e4, tick))),
        _ => {}
    }
    if order.display_quantity_e4 > 0 && part_of_whole(order).is_none() {
        terms.push(format!("shows {}", money::format_e4(order.display_quantity_e4)));
    }
    if order.expires_us > 0 {
        terms.push(format!("till {}", expiry::short(order.expires_us, model.now_us, &model.zone)));
    }
    if order.post_only {
        terms.push("post-only".to_owned());
    }
    terms
}

/// The pieces that fit, each whole: a part of a number would be another number.
fn whole_pieces(pieces: &[String], columns: usize) -> String {
    let mut line = String::new();
    for piece in pieces {
        let lead = usize::from(!line.is_empty());
        if text::width(&line) + lead + text::width(piece) <= columns {
            line.push_str(if lead == 0 { "" } else { " " });
            line.push_str(piece);
        }
    }
    line
}

/// Positions in all accounts, from the line that is scrolled to.
pub(super) fn positions(model: &Model, pen: &mut Pen, area: Rect, scroll: usize) {
    let held = model.holdings.positions_shown();
    table(model, scroll, pen, area, Table::Positions, &held, |_, holding, _| {
        let tick = model.tick_e4(&holding.symbol);
        let unrealised = holdings::unrealised_micros(model, holding);
        let pnl = |micros: Option<i64>| match micros {
            Some(value) if value < 0 => Role::Down,
            Some(value) if value > 0 => Role::Up,
            _ => Role::Text,
        };
        let texts = vec![
            holding.symbol.clone(),
            text::quantity(holding.quantity_e4, 9),
            text::quantity(holding.held_e4, 7),
            money::format_fixed(holding.avg_cost_micros / 100, money::E4_DECIMALS, 2),
            model.reference_e4(&holding.symbol).map_or(String::new(), |p| text::price(p, tick)),
            holdings::market_value_micros(model, holding).map_or(String::new(), text::cents),
            unrealised.map_or(String::new(), text::signed_cents),
            text::signed_cents(holding.realized_pnl_micros),
            holding.currency.clone(),
        ];
        let mut roles = vec![Role::Text; texts.len()];
        roles[6] = pnl(unrealised);
        roles[7] = pnl(Some(holding.realized_pnl_micros));
        (texts, roles)
    });
}

fn fills(model: &Model, pen: &mut Pen, area: Rect) {
    let rows: Vec<_> = model.holdings.fills.iter().collect();
    table(model, model.scroll, pen, area, Table::Fills, &rows, |_, fill, _| {
        let texts = vec![
            text::clock_ms(model.zone.shown_us(fill.time_us)),
            side_name(fill.side()).to_owned(),
            fill.symbol.clone(),
            text::quantity(fill.quantity_e4, 9),
            text::price(fill.price_e4, model.tick_e4(&fill.symbol)),
            if fill.maker { "maker" } else { "taker" }.to_owned(),
            short_id(&fill.order_id).to_owned(),
            fill.exec_id.clone(),
        ];
        let mut roles = vec![Role::Text; texts.len()];
        roles[1] = side_role(fill.side());
        (texts, roles)
    });
}

fn log(model: &Model, pen: &mut Pen, area: Rect) {
    if model.log.is_empty() {
        pen.role(area.x + 1, area.y, area.width, "nothing yet", Role::Dim);
    }
    let room = usize::from(area.height);
    let skip = model.scroll.min(model.log.len().saturating_sub(room));
    for (line, entry) in model.log.iter().rev().skip(skip).take(room).enumerate() {
        let y = area.y + line as u16;
        let role = match entry.tone {
            Tone::Good => Role::Good,
            Tone::Bad => Role::Bad,
            Tone::Note => Role::Text,
        };
        let x = pen.role(area.x + 1, y, 8, &text::clock(model.zone.shown_us(entry.time_us)), Role::Dim) + 1;
        let style = pen.style(role);
        pen.words(x, y, area.right().saturating_sub(x), &entry.text, style);
    }
}
