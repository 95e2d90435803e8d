//! Keys, mouse, pasted text and the window: where each goes.

use super::{actions, forms, trade};
use crate::{
    Exit,
    keys::{self, Action},
    model::{Model, Screen},
    msg::Cmd,
    view::layout,
};
use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

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
    if model.screen == Screen::SignIn {
        return forms::sign_in_key(model, key, cmds);
    }
    if layout(model.size, model.pane).too_small {
        // What cannot be seen cannot be ordered; what is out there can be called back.
        if let Some(action @ (Action::CancelAtCursor | Action::CancelSymbol | Action::Quit)) =
            keys::action(&key)
        {
            actions::act(model, action, cmds);
        }
        return;
    }
    if model.overlay.is_some() {
        return forms::overlay_key(model, key, cmds);
    }
    if model.ticket.as_ref().is_some_and(|t| !t.quick) && forms::ticket_key(model, key, cmds) {
        return;
    }
    if let Some(action) = keys::action(&key) {
        actions::act(model, action, cmds);
    } else if key.code == KeyCode::Esc {
        model.message = None;
        model.chosen = None;
    }
}

/// True when something changed.
fn mouse(model: &mut Model, event: MouseEvent, cmds: &mut Vec<Cmd>) -> bool {
    if model.screen != Screen::Trading || model.overlay.is_some() {
        return false;
    }
    let layout = layout(model.size, model.pane);
    if layout.too_small {
        return false;
    }
    let (x, y) = (event.column, event.row);
    model.pointer = Some(((x, y), model.now_us));
    if let Some(line) = layout.ladder_line(x, y) {
        let rows = layout.ladder_rows();
        match event.kind {
            MouseEventKind::Down(MouseButton::Left) => {
                model.ladder.cursor = Some(model.ladder.row_at(line).max(1));
                // On the bid column a click means buy, on the ask column sell; elsewhere it only moves the cursor.
                match layout.ladder_column(x) {
                    Some(fafnir_proto::v1::Side::Buy) => actions::act(model, Action::Buy, cmds),
                    Some(fafnir_proto::v1::Side::Sell) => actions::act(model, Action::Sell, cmds),
                    _ => {}
                }
            }
            MouseEventKind::ScrollUp => model.ladder.top = model.ladder.top.saturating_add(1),
            MouseEventKind::ScrollDown => {
                model.ladder.top = model.ladder.top.saturating_sub(1).max(rows as i64 / 2);
            }
            _ => return false,
        }
        if model.ladder.cursor.is_none() {
            // Scrolling away from the market pins the axis where it is.
            model.ladder.cursor = Some(model.ladder.row_at(rows / 2).max(1));
        }
        return true;
    }
    if let Some(index) = layout.watch_line(x, y)
        && event.kind == MouseEventKind::Down(MouseButton::Left)
        && let Some(symbol) = model.watch.get(index).cloned()
    {
        super::select_symbol(model, &symbol, cmds);
        return true;
    }
    false
}
