//! The price ladder: a static axis, both sides, own orders, depth bars, the cursor.
//!
//! Spread and imbalance have a line of their own above the axis, so that no price moves on the screen when they do.

use crate::{
    model::{
        Model,
        holdings::{is_pending, open_e4},
        ladder::grouped,
        ticket,
    },
    text,
    theme::Role,
    update::{ladder_price_e4, market_row},
    view::{Layout, Pen, layout},
};
use fafnir_proto::v1::{Holding, Order, Side, TradingState};
use fafnir_rules::money;
use ratatui::layout::Rect;
use std::collections::BTreeMap;

/// Columns of the volume at a price, and what the bars need beside it.
const VOLUME: u16 = 6;
const BAR_MIN: u16 = 9;

/// Columns of the ladder as (x, width).
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    pub mark: (u16, u16),
    pub my_bid: (u16, u16),
    pub bid: (u16, u16),
    pub price: (u16, u16),
    pub ask: (u16, u16),
    pub my_ask: (u16, u16),
    pub bar: (u16, u16),
    /// Shares traded at the price; no columns where there is no room.
    pub volume: (u16, u16),
}

impl Columns {
    pub fn new(area: Rect) -> Self {
        let widths = [1, 5, 7, 10, 7, 6];
        let mut x = area.x;
        let mut next = |width: u16| {
            let column = (x, width);
            x += width;
            column
        };
        let [mark, my_bid, bid, price, ask, my_ask] = widths.map(&mut next);
        let rest = area.right().saturating_sub(x);
        let volume = if rest >= BAR_MIN + VOLUME { VOLUME } else { 0 };
        let bar = (x, rest - volume);
        let volume = (x + bar.1, volume);
        Self { mark, my_bid, bid, price, ask, my_ask, bar, volume }
    }
}

/// What one row shows.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    bid_e4: i64,
    ask_e4: i64,
    cumulative_e4: i64,
    my_bid_e4: i64,
    my_ask_e4: i64,
    pending_bid: bool,
    pending_ask: bool,
    queue_e4: Option<i64>,
    volume_e4: i64,
}

pub fn draw(model: &Model, pen: &mut Pen, layout: &Layout) {
    let area = layout.ladder;
    let columns = Columns::new(area);
    headings(pen, area.y, &columns);
    if model.symbol.is_empty() {
        pen.role(
            area.x + 2,
            area.y + 3,
            area.width.saturating_sub(3),
            "press / to choose a symbol",
            Role::Dim,
        );
        return;
    }
    spread(model, pen, Rect::new(area.x, area.y + 1, area.width, 1));
    if model.book.is_none() && model.reference_e4(&model.symbol).is_none() {
        pen.role(area.x + 2, area.y + 3, area.width.saturating_sub(3), "waiting for the book", Role::Dim);
        return;
    }
    let rows = rows(model);
    let body = layout.ladder_body();
    let top = model.ladder.row_at(0);
    let bottom = model.ladder.row_at(usize::from(body.height).saturating_sub(1));
    let scale = rows.range(bottom..=top).map(|(_, r)| r.cumulative_e4).max().unwrap_or(0).max(1);
    for line in 0..usize::from(body.height) {
        let number = model.ladder.row_at(line);
        if number > 0 {
            let row = rows.get(&number).copied().unwrap_or_default();
            draw_row(model, pen, &columns, body.y + line as u16, number, &row, scale);
        }
    }
    pointer(model, pen, Rect::new(area.x, area.bottom() - 1, area.width, 1), top, bottom);
}

fn headings(pen: &mut Pen, y: u16, columns: &Columns) {
    let style = pen.style(Role::Dim);
    for ((x, width), name) in [
        (columns.my_bid, "MY"),
        (columns.bid, "BID"),
        (columns.price, "PRICE"),
        (columns.ask, "ASK"),
        (columns.my_ask, "MY"),
        (columns.volume, "VOL"),
    ] {
        pen.right(x, y, width, name, style);
    }
    let (x, width) = columns.bar;
    pen.text(x, y, width, " DEPTH", style);
}

fn spread(model: &Model, pen: &mut Pen, area: Rect) {
    let glyphs = pen.theme.glyphs();
    let frame = pen.style(Role::Frame);
    pen.repeat(area.x, area.y, area.width, glyphs.horizontal, frame);
    let tick = model.tick_e4(&model.symbol);
    if super::state_name(model.trading_state(&model.symbol)).is_some() {
        return state(model, pen, area, tick);
    }
    let spread = match model.inside() {
        (Some(bid), Some(ask)) => format!(" spread {} ", text::price(ask - bid, tick)),
        (Some(_), None) => " no asks ".to_owned(),
        (None, Some(_)) => " no bids ".to_owned(),
        (None, None) => " empty book ".to_owned(),
    };
    let mut x = pen.role(area.x + 2, area.y, area.width.saturating_sub(2), &spread, Role::Text);
    let bids = super::imbalance(model);
    if let Some(bids) = bids {
        x = pen.role(x, area.y, area.right().saturating_sub(x), &format!("imb B {bids}% "), Role::Text);
    }
    if let Some(text) = market_marker(model, pen) {
        // Where the market went matters more than how it leans.
        let at = area.right().saturating_sub(text::width(&text) as u16 + 1);
        pen.role(at.max(x), area.y, area.right().saturating_sub(at.max(x)), &text, Role::Banner);
        return;
    }
    let Some(bids) = bids else { return };
    let room = area.right().saturating_sub(x + 2).min(12);
    let full = (i64::from(room) * bids / 100) as u16;
    let (bid, ask) = (pen.style(Role::Bid), pen.style(Role::Ask));
    pen.repeat(x, area.y, full, glyphs.bar[glyphs.bar.len() - 1], bid);
    pen.repeat(x + full, area.y, room - full, glyphs.bar_soft, ask);
}

/// Where the market is while the ladder stands somewhere else: ` market ▴ 231.46 `.
fn market_marker(model: &Model, pen: &Pen) -> Option<String> {
    let tick = model.tick_e4(&model.symbol);
    let row = market_row(model)?;
    let rows = layout(model.size, model.pane).ladder_rows();
    let last = model.ladder.row_at(rows.saturating_sub(1));
    let glyph = match row {
        row if row > model.ladder.top => pen.theme.glyphs().above,
        row if row < last => pen.theme.glyphs().below,
        _ => return None,
    };
    Some(format!(" market {glyph} {} ", text::price(model.ladder.price_e4(row, tick), tick)))
}

/// In place of the spread while the symbol does not trade: why, and in a call what the auction would give now.
fn state(model: &Model, pen: &mut Pen, area: Rect, tick: i64) {
    let state = model.trading_state(&model.symbol);
    let name = super::state_name(state).unwrap_or_default();
    // A volatility pause ends soon after what is told.
    let until = model.book.as_ref().map_or(0, |book| book.pause_until_us);
    let name = if until > 0 {
        format!(" {name} to {} ", text::clock(model.zone.shown_us(until)))
    } else {
        format!(" {name} ")
    };
    let mut x = pen.role(area.x + 2, area.y, area.width.saturating_sub(2), &name, Role::Banner);
    let mut shown = 0;
    for text in state_pieces(model, state, tick) {
        let text = format!(" {text} ");
        // A piece that does not fit whole is left out; the last one says the one before it shorter.
        if usize::from(x) + text::width(&text) <= usize::from(area.right()) && shown < 2 {
            x = pen.role(x, area.y, area.right() - x, &text, Role::Text);
            shown += 1;
        }
    }
}

fn state_pieces(model: &Model, state: TradingState, tick: i64) -> Vec<String> {
    if !super::is_call(state) {
        return vec!["only cancels are taken".to_owned()];
    }
    let Some(book) = model.book.as_ref().filter(|b| b.indicative_price_e4 > 0) else {
        return vec!["no price crosses yet".to_owned()];
    };
    let price = text::price(book.indicative_price_e4, tick);
    let mut pieces = vec![format!("ind {price} x {}", text::quantity(book.indicative_quantity_e4, 7))];
    let side = match book.indicative_surplus_e4 {
        0 => return pieces,
        1.. => "buy",
        _ => "sell",
    };
    let surplus = text::quantity(book.indicative_surplus_e4.saturating_abs(), 7);
    pieces.push(format!("{side} surplus {surplus}"));
    pieces.push(format!("{side} +{surplus}"));
    pieces
}

/// The price that the auction would give now, e4; none outside a call.
fn indicative_e4(model: &Model) -> Option<i64> {
    let book = model.book.as_ref().filter(|b| b.indicative_price_e4 > 0)?;
    super::is_call(model.trading_state(&model.symbol)).then_some(book.indicative_price_e4)
}

fn rows(model: &Model) -> BTreeMap<i64, Row> {
    let tick = model.tick_e4(&model.symbol);
    let mut rows: BTreeMap<i64, Row> = BTreeMap::new();
    if let Some(book) = &model.book {
        let mut sum = 0i64;
        for (number, quantity) in grouped(&model.ladder, &book.bids, Side::Buy, tick) {
            sum = sum.saturating_add(quantity);
            let row = rows.entry(number).or_default();
            row.bid_e4 = quantity;
            row.cumulative_e4 = sum;
        }
        sum = 0;
        for (number, quantity) in grouped(&model.ladder, &book.asks, Side::Sell, tick) {
            sum = sum.saturating_add(quantity);
            let row = rows.entry(number).or_default();
            row.ask_e4 = quantity;
            row.cumulative_e4 = row.cumulative_e4.max(sum);
        }
    }
    for (price_e4, volume_e4) in model.volume.levels() {
        let row = rows.entry(model.ladder.row_of(price_e4, Side::Buy, tick)).or_default();
        row.volume_e4 = row.volume_e4.saturating_add(volume_e4);
    }
    for order in model.holdings.open_in(&model.symbol) {
        let row = rows.entry(model.ladder.row_of(ladder_price_e4(order), order.side(), tick)).or_default();
        let pending = is_pending(order) || model.holdings.cancelling.contains(&order.id);
        add_own(row, order.side(), open_e4(order), pending);
        row.queue_e4 = model.holdings.queue_e4.get(&order.id).copied().or(row.queue_e4);
    }
    // What the mouse holds shows where it would go.
    for order in model.drag.iter().filter(|d| d.moved).flat_map(|d| &d.order_ids) {
        if let (Some(order), Some(drag)) = (model.holdings.orders.get(order), &model.drag) {
            add_own(rows.entry(drag.at).or_default(), order.side(), open_e4(order), true);
        }
    }
    // An order on its way shows where it will be.
    if let Some(
        ticket::State::InFlight(ticket::Request::Place(request))
        | ticket::State::Unknown(ticket::Request::Place(request)),
    ) = model.ticket.as_ref().map(|t| &t.state)
        && request.symbol == model.symbol
        && request.price_e4 > 0
        && !model.holdings.orders.values().any(|o| o.client_order_id == request.client_order_id)
    {
        let row = rows.entry(model.ladder.row_of(request.price_e4, request.side(), tick)).or_default();
        add_own(row, request.side(), request.quantity_e4, true);
    }
    rows
}

fn add_own(row: &mut Row, side: Side, quantity_e4: i64, pending: bool) {
    if side == Side::Buy {
        row.my_bid_e4 = row.my_bid_e4.saturating_add(quantity_e4);
        row.pending_bid |= pending;
    } else {
        row.my_ask_e4 = row.my_ask_e4.saturating_add(quantity_e4);
        row.pending_ask |= pending;
    }
}

fn draw_row(model: &Model, pen: &mut Pen, columns: &Columns, y: u16, number: i64, row: &Row, scale: i64) {
    let glyphs = pen.theme.glyphs();
    let tick = model.tick_e4(&model.symbol);
    let price = model.ladder.price_e4(number, tick);
    let (bid, ask, own) = (pen.style(Role::Bid), pen.style(Role::Ask), pen.style(Role::Own));
    let is_cursor = model.ladder.cursor == Some(number);
    if is_cursor {
        pen.role(columns.mark.0, y, 1, ">", Role::Title);
    }
    if row.my_bid_e4 > 0 {
        let mark = if row.pending_bid { glyphs.ellipsis } else { "" };
        let room = usize::from(columns.my_bid.1) - 1 - text::width(mark);
        let text = format!("{}{mark}{}", text::quantity(row.my_bid_e4, room), glyphs.own_bid);
        pen.right(columns.my_bid.0, y, columns.my_bid.1, &text, own);
    }
    if row.bid_e4 > 0 {
        let text = text::quantity(row.bid_e4, usize::from(columns.bid.1) - 1);
        pen.right(columns.bid.0, y, columns.bid.1, &text, bid);
    }
    if row.ask_e4 > 0 {
        let text = text::quantity(row.ask_e4, usize::from(columns.ask.1) - 1);
        pen.right(columns.ask.0, y, columns.ask.1, &text, ask);
    }
    if row.my_ask_e4 > 0 {
        let mark = if row.pending_ask { glyphs.ellipsis } else { "" };
        let room = usize::from(columns.my_ask.1) - 2 - text::width(mark);
        let text = format!("{}{}{mark}", glyphs.own_ask, text::quantity(row.my_ask_e4, room));
        pen.text(columns.my_ask.0 + 1, y, columns.my_ask.1 - 1, &text, own);
    }
    let last = model.tape.last().map(|t| (t.price_e4, t.quantity_e4));
    let last = last.or(model.book.as_ref().map(|b| (b.last_price_e4, b.last_quantity_e4)));
    let is_last = last.is_some_and(|(p, _)| p > 0 && model.ladder.row_of(p, Side::Buy, tick) == number);
    let role = match () {
        () if is_last => Role::Last,
        () if row.bid_e4 > 0 => Role::Bid,
        () if row.ask_e4 > 0 => Role::Ask,
        () => Role::Dim,
    };
    let mut style = pen.style(role);
    if is_cursor {
        style = style.patch(pen.style(Role::Cursor));
    }
    let width = columns.price.1 - 2;
    let text = text::number(&text::price(price, tick), usize::from(width), glyphs.ellipsis).to_owned();
    let padded = format!("{text:>width$}", width = usize::from(width));
    pen.text(columns.price.0 + 2, y, width, &padded, style);
    bar(pen, columns, y, row, scale);
    if row.volume_e4 > 0 && columns.volume.1 > 0 {
        let dim = pen.style(Role::Dim);
        let text = text::quantity(row.volume_e4, usize::from(columns.volume.1) - 1);
        pen.right(columns.volume.0, y, columns.volume.1, &text, dim);
    }
    let is_indicative =
        indicative_e4(model).is_some_and(|p| model.ladder.row_of(p, Side::Buy, tick) == number);
    if is_indicative {
        note(pen, columns, y, "ind", Role::Last);
    } else if is_last {
        note(
            pen,
            columns,
            y,
            &format!("{}{}", glyphs.last, last.map_or(String::new(), |(_, q)| money::format_e4(q))),
            Role::Last,
        );
    } else if let Some(ahead) = row.queue_e4 {
        note(pen, columns, y, &format!("{}{}", glyphs.note, text::quantity(ahead, 5)), Role::Dim);
    } else if break_even_row(model, tick) == Some(number) {
        note(pen, columns, y, "avg", Role::Dim);
    }
}

/// The row of the average cost of the position: there it neither wins nor loses.
fn break_even_row(model: &Model, tick: i64) -> Option<i64> {
    let held = |h: &&Holding| h.symbol == model.symbol && h.quantity_e4 > 0;
    let position = model.holdings.positions.values().find(held)?;
    let same = position.currency.is_empty() || position.currency == model.currency(&model.symbol);
    same.then(|| model.ladder.row_of(position.avg_cost_micros / 100, Side::Buy, tick))
}

/// A few characters against the right edge, over the bar.
fn note(pen: &mut Pen, columns: &Columns, y: u16, text: &str, role: Role) {
    let (x, width) = columns.bar;
    let wide = text::width(text) as u16;
    if wide < width {
        pen.role(x + width - wide, y, wide, text, role);
    }
}

fn bar(pen: &mut Pen, columns: &Columns, y: u16, row: &Row, scale: i64) {
    let glyphs = pen.theme.glyphs();
    let (x, width) = (columns.bar.0 + 1, columns.bar.1.saturating_sub(1));
    let level = row.bid_e4.max(row.ask_e4);
    if level <= 0 || width == 0 {
        return;
    }
    let side = if row.ask_e4 > row.bid_e4 { Role::Ask } else { Role::Bid };
    let style = pen.style(side);
    let steps = glyphs.bar.len() as i128;
    let eighths = |quantity: i64| i128::from(quantity) * i128::from(width) * steps / i128::from(scale);
    let cumulative = (eighths(row.cumulative_e4) / steps) as u16;
    pen.repeat(x, y, cumulative.min(width), glyphs.bar_soft, style);
    let length = eighths(level).max(1);
    let whole = (length / steps) as u16;
    pen.repeat(x, y, whole.min(width), glyphs.bar[glyphs.bar.len() - 1], style);
    let rest = (length % steps) as usize;
    if rest > 0 && whole < width {
        pen.text(x + whole, y, 1, glyphs.bar[rest - 1], style);
    }
}

/// Own orders that the window does not show: those above and those below, with what they are where there is room.
fn pointer(model: &Model, pen: &mut Pen, area: Rect, top: i64, bottom: i64) {
    let glyphs = pen.theme.glyphs();
    let tick = model.tick_e4(&model.symbol);
    let row_of = |o: &Order| model.ladder.row_of(ladder_price_e4(o), o.side(), tick);
    let out = |is_out: &dyn Fn(i64) -> bool| -> Vec<&Order> {
        model.holdings.open_in(&model.symbol).filter(|o| is_out(row_of(o))).collect()
    };
    let short = |glyph: &str, word: &str, orders: &[&Order]| match orders.len() {
        0 => None,
        count => Some(format!("{glyph} {count} own {word}")),
    };
    let long = |glyph: &str, word: &str, orders: &[&Order]| match orders {
        [one] => {
            let price = text::price(ladder_price_e4(one), tick);
            Some(format!("{glyph} 1 own {word}: {} @ {price}", money::format_e4(open_e4(one))))
        }
        several => short(glyph, word, several),
    };
    let (above, below) = (out(&|row| row > top), out(&|row| row < bottom));
    let room = usize::from(area.width.saturating_sub(2));
    let pair = [long(glyphs.above, "above", &above), long(glyphs.below, "below", &below)];
    let wide: usize = pair.iter().flatten().map(|text| text::width(text) + 2).sum();
    let pair = if wide.saturating_sub(2) <= room {
        pair
    } else {
        [short(glyphs.above, "above", &above), short(glyphs.below, "below", &below)]
    };
    let mut x = area.x + 2;
    for text in pair.iter().flatten() {
        x = pen.role(x, area.y, area.right().saturating_sub(x), text, Role::Own) + 2;
    }
}
