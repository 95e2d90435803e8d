//! What each action of the key table does.

use super::{feed, recipe, trade};
use crate::{
    Exit,
    keys::Action,
    model::{
        Model, Overlay, Pane, SIZE_BEST, Tab, Tone,
        chart::INTERVALS,
        holdings,
        ladder::GROUPS,
        page::{self, Page},
        tape::FILTERS,
        ticket::Request,
    },
    msg::Cmd,
    text::Input,
    view::layout,
};
use fafnir_proto::v1::{self, Side};

pub(super) fn act(model: &mut Model, action: Action, cmds: &mut Vec<Cmd>) {
    match action {
        Action::LevelUp => move_cursor(model, 1),
        Action::LevelDown => move_cursor(model, -1),
        Action::Centre => {
            model.ladder.cursor = None;
            model.ladder.pinned = false;
            model.ladder.placed = false;
            feed::place_ladder(model);
        }
        Action::GroupFiner => regroup(model, model.ladder.group.saturating_sub(1)),
        Action::GroupCoarser => regroup(model, (model.ladder.group + 1).min(GROUPS.len() - 1)),
        Action::Size1 => set_size(model, 0),
        Action::Size2 => set_size(model, 1),
        Action::Size3 => set_size(model, 2),
        Action::Size4 => set_size(model, 3),
        Action::SizeBest => set_size(model, SIZE_BEST),
        Action::Buy => trade::open_ticket(model, Side::Buy, order_price(model, Side::Buy), cmds),
        Action::Sell => trade::open_ticket(model, Side::Sell, order_price(model, Side::Sell), cmds),
        Action::JoinBid => join(model, Side::Buy, cmds),
        Action::JoinAsk => join(model, Side::Sell, cmds),
        Action::MarketBuy => trade::open_market(model, Side::Buy, cmds),
        Action::MarketSell => trade::open_market(model, Side::Sell, cmds),
        Action::Replace => replace(model),
        Action::CancelAtCursor => cancel_at_cursor(model, cmds),
        Action::OrderNext => choose(model, true),
        Action::OrderPrevious => choose(model, false),
        Action::CancelChosen => cancel_chosen(model, cmds),
        Action::CancelSymbol => trade::cancel_symbol(model, cmds),
        Action::Flatten => ask_flatten(model),
        Action::Arm => trade::arm(model),
        Action::Search => model.overlay = Some(Overlay::Search { input: Input::default(), selected: 0 }),
        Action::Palette => model.overlay = Some(Overlay::Palette { input: Input::default(), selected: 0 }),
        Action::Alert => model.overlay = Some(Overlay::Alert { input: Input::default(), refused: None }),
        Action::AlertsClear => {
            let symbol = model.symbol.clone();
            model.alerts.retain(|a| a.symbol != symbol);
            model.say(Tone::Note, format!("{symbol}: no alerts"));
        }
        Action::Portfolio => open_page(model, Page::Portfolio, cmds),
        Action::Symbol => open_page(model, Page::Symbol, cmds),
        Action::Platform => open_page(model, Page::Platform, cmds),
        Action::Help => model.overlay = Some(Overlay::Help { scroll: 0 }),
        Action::SymbolNext => neighbour(model, true, cmds),
        Action::SymbolPrevious => neighbour(model, false, cmds),
        Action::WatchToggle => watch_toggle(model, cmds),
        Action::TabOrders => set_tab(model, Tab::Orders),
        Action::TabPositions => set_tab(model, Tab::Positions),
        Action::TabFills => set_tab(model, Tab::Fills),
        Action::TabLog => set_tab(model, Tab::Log),
        Action::OrderFilter => {
            model.order_filter = model.order_filter.next();
            set_tab(model, Tab::Orders);
        }
        Action::Copy => copy(model, cmds),
        Action::ScrollUp => model.scroll = model.scroll.saturating_sub(lower_rows(model)),
        Action::ScrollDown => scroll_down(model, lower_rows(model)),
        Action::TapeFilter => model.tape.filter = (model.tape.filter + 1) % FILTERS.len(),
        Action::PaneNext => model.pane = next_pane(model.pane),
        Action::TimeframeShorter => timeframe(model, model.chart.interval.saturating_sub(1), cmds),
        Action::TimeframeLonger => {
            timeframe(model, (model.chart.interval + 1).min(INTERVALS.len() - 1), cmds);
        }
        Action::Reload => {
            model.say(Tone::Note, "loading again");
            cmds.push(Cmd::Load);
        }
        Action::Suspend => model.suspend = true,
        Action::Quit => model.exit = Some(Exit::Quit),
    }
}

/// A screen of its own; what it shows is asked for anew.
fn open_page(model: &mut Model, page: Page, cmds: &mut Vec<Cmd>) {
    model.pages.scroll = 0;
    model.overlay = Some(Overlay::Page(page));
    page::ask(model, page, cmds);
}

fn next_pane(pane: Pane) -> Pane {
    match pane {
        Pane::Tape => Pane::Chart,
        Pane::Chart => Pane::Watch,
        Pane::Watch => Pane::Tape,
    }
}

fn move_cursor(model: &mut Model, by: i64) {
    let rows = layout(model.size, model.pane).ladder_rows();
    let Some(from) = model.ladder.cursor.or_else(|| feed::market_row(model)) else { return };
    model.ladder.move_cursor(from, by, rows);
}

/// The price under the cursor, e4. Where none was chosen the best price of the side itself, and never one that trades
/// at once: nobody asked for that.
fn order_price(model: &Model, side: Side) -> Option<i64> {
    let tick = model.tick_e4(&model.symbol);
    if let Some(row) = model.ladder.cursor {
        return Some(model.ladder.price_e4(row, tick));
    }
    let (bid, ask) = model.inside();
    let reference = model.reference_e4(&model.symbol);
    match side {
        Side::Sell => ask.or_else(|| reference.max(bid.map(|bid| bid.saturating_add(tick)))),
        _ => bid.or_else(|| match (reference, ask.map(|ask| ask.saturating_sub(tick))) {
            (Some(reference), Some(below)) => Some(reference.min(below)),
            (reference, below) => reference.or(below),
        }),
    }
}

fn regroup(model: &mut Model, group: usize) {
    let tick = model.tick_e4(&model.symbol);
    let pinned = model.ladder.cursor.map(|row| model.ladder.price_e4(row, tick));
    model.ladder.group = group;
    model.ladder.placed = false;
    model.ladder.cursor = pinned.map(|price| model.ladder.row_of(price, Side::Buy, tick).max(1));
    if let Some(row) = model.ladder.cursor {
        model.ladder.centre(row, layout(model.size, model.pane).ladder_rows());
    } else {
        feed::place_ladder(model);
    }
}

fn set_size(model: &mut Model, index: usize) {
    model.size_index = index.min(SIZE_BEST);
}

fn join(model: &mut Model, side: Side, cmds: &mut Vec<Cmd>) {
    let (bid, ask) = model.inside();
    let best = if side == Side::Buy { bid } else { ask };
    if best.is_none() {
        let name = if side == Side::Buy { "bid" } else { "ask" };
        return model.say(Tone::Bad, format!("there is no best {name} to join"));
    }
    trade::open_ticket(model, side, best, cmds);
}

fn cancel_at_cursor(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let ids = own_at_cursor(model);
    trade::cancel(model, ids, cmds);
}

/// Open orders in the row of the cursor.
fn own_at_cursor(model: &Model) -> Vec<String> {
    let row = model.ladder.cursor.or_else(|| feed::market_row(model));
    row.map_or_else(Vec::new, |row| own_at(model, row, None))
}

/// Open orders in a row, of one side where it is given.
pub(super) fn own_at(model: &Model, row: i64, side: Option<Side>) -> Vec<String> {
    let tick = model.tick_e4(&model.symbol);
    model
        .holdings
        .open_in(&model.symbol)
        .filter(|o| side.is_none_or(|side| o.side() == side))
        .filter(|o| model.ladder.row_of(ladder_price_e4(o), o.side(), tick) == row)
        .map(|o| o.id.clone())
        .collect()
}

/// Own orders were dragged to another row.
pub(super) fn move_orders(model: &mut Model, order_ids: &[String], row: i64, cmds: &mut Vec<Cmd>) {
    let price_e4 = model.ladder.price_e4(row, model.tick_e4(&model.symbol));
    match order_ids {
        [id] => trade::move_order(model, id, price_e4, cmds),
        several => {
            let text = format!("{} own orders there: n chooses one, r changes it", several.len());
            model.say(Tone::Bad, text);
        }
    }
}

/// The order chosen among the orders, while it is open.
fn chosen(model: &Model) -> Option<String> {
    let order = model.chosen.as_ref().and_then(|id| model.holdings.orders.get(id))?;
    holdings::is_open(order).then(|| order.id.clone())
}

/// Opens a ticket on the chosen order, else on the one at the cursor.
fn replace(model: &mut Model) {
    if let Some(id) = chosen(model) {
        return trade::open_replace(model, &id);
    }
    match own_at_cursor(model).as_slice() {
        [] => model.say(Tone::Note, "no own order there: n chooses one among the orders"),
        [id] => trade::open_replace(model, id),
        several => {
            let text = format!("{} own orders there: n chooses one", several.len());
            model.say(Tone::Note, text);
        }
    }
}

/// Copies the chosen order as what places the same one again.
fn copy(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let Some(order) = model.chosen.as_ref().and_then(|id| model.holdings.orders.get(id)) else {
        return model.say(Tone::Note, "no order is chosen: n chooses one");
    };
    cmds.push(Cmd::Copy(recipe::of_order(order)));
    model.say(Tone::Note, "copied, as a command and as GraphQL");
}

/// Copies what the open ticket would place; of one that would be refused the refusal is said instead.
pub(super) fn copy_ticket(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let Some(ticket) = &model.ticket else { return };
    let text = match ticket.validate(model) {
        Ok(Request::Place(request)) => recipe::of_request(&request),
        Ok(Request::Group(request)) => recipe::of_group(&request),
        Ok(Request::Replace(request)) => recipe::of_replace(&request),
        Err(refusal) => return model.say(Tone::Bad, format!("not copied: {}", refusal.text)),
    };
    cmds.push(Cmd::Copy(text));
    model.say(Tone::Note, "copied, as a command and as GraphQL");
}

fn cancel_chosen(model: &mut Model, cmds: &mut Vec<Cmd>) {
    match chosen(model) {
        Some(id) => trade::cancel(model, vec![id], cmds),
        None => model.say(Tone::Note, "no order is chosen: n chooses one"),
    }
}

/// Chooses another open order; one in the symbol on the ladder takes the cursor with it.
fn choose(model: &mut Model, forward: bool) {
    let shown = model.orders_listed();
    let open: Vec<&v1::Order> = shown.into_iter().filter(|o| holdings::is_open(o)).collect();
    let at = open.iter().position(|o| Some(&o.id) == model.chosen.as_ref());
    let next = match at {
        _ if open.is_empty() => return model.say(Tone::Note, "no open order to choose"),
        Some(at) if forward => (at + 1) % open.len(),
        Some(at) => (at + open.len() - 1) % open.len(),
        None if forward => 0,
        None => open.len() - 1,
    };
    let order = open[next].clone();
    model.tab = Tab::Orders;
    // One line of the tab is its heading.
    let room = lower_rows(model).saturating_sub(1).max(1);
    model.scroll = model.scroll.min(next).max((next + 1).saturating_sub(room));
    if order.symbol == model.symbol && ladder_price_e4(&order) > 0 {
        let tick = model.tick_e4(&model.symbol);
        let row = model.ladder.row_of(ladder_price_e4(&order), order.side(), tick);
        model.ladder.move_cursor(row, 0, layout(model.size, model.pane).ladder_rows());
    }
    model.chosen = Some(order.id);
}

/// Where an order shows on the ladder: at its limit, a stop without one at its stop price, e4.
pub fn ladder_price_e4(order: &v1::Order) -> i64 {
    if order.price_e4 > 0 { order.price_e4 } else { order.stop_price_e4 }
}

fn ask_flatten(model: &mut Model) {
    if let Some(why) = trade::blocked(model) {
        return model.say(Tone::Bad, why);
    }
    let symbol = model.symbol.clone();
    let has_position = model.holdings.positions.values().any(|h| h.symbol == symbol && h.quantity_e4 > 0);
    if !has_position && model.holdings.open_in(&symbol).next().is_none() {
        return model.say(Tone::Note, format!("{symbol} is flat"));
    }
    model.overlay = Some(Overlay::ConfirmFlatten { symbol });
}

pub(super) fn neighbour(model: &mut Model, forward: bool, cmds: &mut Vec<Cmd>) {
    if model.watch.is_empty() {
        return;
    }
    let len = model.watch.len();
    let next = match model.watch.iter().position(|s| *s == model.symbol) {
        Some(at) if forward => (at + 1) % len,
        Some(at) => (at + len - 1) % len,
        None => 0,
    };
    let symbol = model.watch[next].clone();
    feed::select_symbol(model, &symbol, cmds);
}

fn watch_toggle(model: &mut Model, cmds: &mut Vec<Cmd>) {
    if model.symbol.is_empty() {
        return;
    }
    let symbol = model.symbol.clone();
    cmds.push(if model.watch.contains(&symbol) {
        Cmd::WatchRemove { symbol }
    } else {
        Cmd::WatchAdd { symbol }
    });
}

pub(super) fn scroll_down(model: &mut Model, lines: usize) {
    let last = lower_lines(model).saturating_sub(lower_rows(model));
    model.scroll = (model.scroll + lines).min(last);
}

pub(super) fn set_tab(model: &mut Model, tab: Tab) {
    model.tab = tab;
    model.scroll = 0;
}

fn lower_rows(model: &Model) -> usize {
    usize::from(layout(model.size, model.pane).lower.height).max(1)
}

fn lower_lines(model: &Model) -> usize {
    match model.tab {
        Tab::Orders => model.orders_listed().len() + 1,
        Tab::Positions => holdings::Holdings::positions_shown(&model.holdings).len() + 1,
        Tab::Fills => model.holdings.fills.len() + 1,
        Tab::Log => model.log.len(),
    }
}

fn timeframe(model: &mut Model, interval: usize, cmds: &mut Vec<Cmd>) {
    if interval == model.chart.interval {
        return;
    }
    model.chart.interval = interval;
    model.chart.clear();
    if !model.symbol.is_empty() {
        cmds.push(Cmd::Candles { symbol: model.symbol.clone(), interval: model.chart.interval_name() });
    }
}
