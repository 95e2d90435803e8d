//! Keys, mouse, pasted text and the window: where each goes.

use super::{actions, forms, trade};
use crate::{
    Exit,
    keys::Action,
    model::{Drag, Model, Overlay, Screen, Tab, Tone},
    msg::Cmd,
    screens,
    view::{Column, Layout, layout},
};
use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use fafnir_proto::v1::Side;

pub(super) fn input(model: &mut Model, event: Event, cmds: &mut Vec<Cmd>) {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => self::key(model, key, cmds),
        Event::Key(_) => return,
        Event::Mouse(event) => {
            if !mouse(model, event, cmds) {
                return;
            }
        }
        Event::Paste(text) => forms::paste(model, &text),
        Event::Resize(columns, rows) => {
            model.size = (columns, rows);
            super::feed::place_ladder(model);
        }
        Event::FocusLost => {
            model.pointer = None;
            model.drag = None;
            trade::disarm(model, "the window lost the focus");
        }
        Event::FocusGained => {}
    }
    model.dirty = true;
}

fn key(model: &mut Model, key: KeyEvent, cmds: &mut Vec<Cmd>) {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        model.exit = Some(Exit::Interrupted);
        return;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('z') {
        model.suspend = true;
        return;
    }
    if model.screen == Screen::SignIn {
        return forms::sign_in_key(model, key, cmds);
    }
    // An alert stays until somebody is there.
    model.message.take_if(|m| m.until_us == i64::MAX);
    if layout(model.size, model.pane).too_small {
        // What cannot be seen cannot be ordered; what is out there can be called back.
        if let Some(action @ (Action::CancelAtCursor | Action::CancelSymbol | Action::Quit)) =
            model.keys.action(&key)
        {
            actions::act(model, action, cmds);
        }
        return;
    }
    if model.overlay.take_if(|overlay| *overlay == Overlay::Welcome).is_some() {
        // The first key does what it does: who knows it waits for nothing. Nobody reads on by calling orders back, by
        // arming or by leaving.
        let is_meant = model.keys.action(&key).is_some_and(|action| {
            !matches!(
                action,
                Action::CancelAtCursor
                    | Action::CancelSymbol
                    | Action::CancelChosen
                    | Action::Arm
                    | Action::Quit
            )
        });
        if !is_meant {
            return;
        }
    }
    if model.overlay.is_some() {
        return forms::overlay_key(model, key, cmds);
    }
    if model.ticket.as_ref().is_some_and(|t| !t.quick) && forms::ticket_key(model, key, cmds) {
        return;
    }
    if let Some(action) = model.keys.action(&key) {
        actions::act(model, action, cmds);
    } else if key.code == KeyCode::Esc {
        model.message = None;
        model.chosen = None;
        model.drag = None;
    }
}

/// True when something changed.
fn mouse(model: &mut Model, event: MouseEvent, cmds: &mut Vec<Cmd>) -> bool {
    let layout = layout(model.size, model.pane);
    if matches!(event.kind, MouseEventKind::Down(_))
        && model.overlay.take_if(|overlay| *overlay == Overlay::Welcome).is_some()
    {
        return true;
    }
    if model.screen != Screen::Trading || model.overlay.is_some() || layout.too_small {
        model.drag = None;
        return false;
    }
    let (x, y) = (event.column, event.row);
    model.pointer = Some(((x, y), model.now_us));
    let left = matches!(
        event.kind,
        MouseEventKind::Down(MouseButton::Left)
            | MouseEventKind::Drag(MouseButton::Left)
            | MouseEventKind::Up(MouseButton::Left)
    );
    if left && model.drag.is_some() {
        return drag(model, &layout, event, cmds);
    }
    // What the ticket covers takes no clicks.
    if screens::ticket::area(model, &layout).is_some_and(|area| area.contains((x, y).into())) {
        return false;
    }
    if let Some(line) = layout.ladder_line(x, y) {
        let rows = layout.ladder_rows();
        match event.kind {
            MouseEventKind::Down(MouseButton::Left) => press(model, &layout, x, line, cmds),
            // Scrolling away from the market keeps the axis where it is, and chooses no price.
            MouseEventKind::ScrollUp => {
                model.ladder.pinned = true;
                model.ladder.top = model.ladder.top.saturating_add(1);
            }
            MouseEventKind::ScrollDown => {
                model.ladder.pinned = true;
                model.ladder.top = model.ladder.top.saturating_sub(1).max(rows as i64 / 2);
            }
            _ => return false,
        }
        return true;
    }
    match event.kind {
        MouseEventKind::Down(MouseButton::Left) => click(model, &layout, (x, y), cmds),
        MouseEventKind::ScrollUp if layout.lower.contains((x, y).into()) => {
            model.scroll = model.scroll.saturating_sub(1);
            true
        }
        MouseEventKind::ScrollDown if layout.lower.contains((x, y).into()) => {
            actions::scroll_down(model, 1);
            true
        }
        _ => false,
    }
}

/// A click beside the ladder: a symbol, a tab, an order, a hint.
fn click(model: &mut Model, layout: &Layout, (x, y): (u16, u16), cmds: &mut Vec<Cmd>) -> bool {
    if let Some(area) = layout.watch
        && let Some(line) = layout.watch_line(x, y)
    {
        let Some(symbol) = screens::watch::symbol_at(model, area, line).cloned() else { return false };
        super::select_symbol(model, &symbol, cmds);
        return true;
    }
    if y == layout.tabs.y {
        let Some(tab) = screens::lower::tab_at(model, layout.tabs, x) else { return false };
        actions::set_tab(model, tab);
        return true;
    }
    if layout.lower.contains((x, y).into()) && model.tab == Tab::Orders {
        let order = screens::lower::order_at(model, layout.lower, y);
        model.chosen = order.or(model.chosen.take());
        return true;
    }
    if y == layout.hints.y
        && let Some(action) = screens::header::hint_at(model, layout.hints, x)
    {
        actions::act(model, action, cmds);
        return true;
    }
    false
}

/// The button goes down on the ladder: on an own order it takes hold of it, in the columns of the book it means buy or
/// sell there, elsewhere it only moves the cursor.
fn press(model: &mut Model, layout: &Layout, x: u16, line: usize, cmds: &mut Vec<Cmd>) {
    let row = model.ladder.row_at(line).max(1);
    let column = layout.ladder_column(x);
    if let Some(Column::Own(side)) = column {
        let order_ids = actions::own_at(model, row, Some(side));
        if !order_ids.is_empty() {
            model.drag = Some(Drag { order_ids, from: row, at: row, moved: false });
            return;
        }
    }
    model.ladder.cursor = Some(row);
    match column {
        Some(Column::Book(Side::Buy)) => actions::act(model, Action::Buy, cmds),
        Some(Column::Book(Side::Sell)) => actions::act(model, Action::Sell, cmds),
        _ => {}
    }
}

/// The button is down on own orders: let go on their row it cancels them, on another one it moves them there, outside
/// the ladder it leaves them alone.
fn drag(model: &mut Model, layout: &Layout, event: MouseEvent, cmds: &mut Vec<Cmd>) -> bool {
    let row = layout.ladder_line(event.column, event.row).map(|line| model.ladder.row_at(line).max(1));
    let is_over = matches!(event.kind, MouseEventKind::Up(_));
    if !is_over {
        if let Some((drag, row)) = model.drag.as_mut().zip(row) {
            drag.at = row;
            drag.moved |= row != drag.from;
        }
        return true;
    }
    let Some(drag) = model.drag.take() else { return false };
    match row {
        Some(row) if row != drag.from => actions::move_orders(model, &drag.order_ids, row, cmds),
        Some(_) if !drag.moved => trade::cancel(model, drag.order_ids, cmds),
        _ => model.say(Tone::Note, "let go: the order stays as it was"),
    }
    true
}
