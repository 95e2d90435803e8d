//! Keys in forms: sign-in, the ticket, search, palette, alert, confirmation, help.

use super::{actions, feed, trade};
use crate::{
    Exit, keys,
    model::{
        Model, Overlay, Screen, Tone,
        alert::{ALERTS_MAX, Alert, Trigger},
        page::{self, PERIODS, Page},
        ticket::Field,
    },
    msg::Cmd,
    text::{self, Input},
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use fafnir_proto::v1::{Instrument, Side};
use fafnir_rules::money::round_lot;

/// Search results shown at most.
pub const FOUND_MAX: usize = 12;

/// Edits a line. True when the key was an editing key.
fn edit(input: &mut Input, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('u') if control => input.clear(),
        KeyCode::Char('a') if control => input.home(),
        KeyCode::Char('e') if control => input.end(),
        KeyCode::Char(c) if !control && !key.modifiers.contains(KeyModifiers::ALT) => input.insert(c),
        KeyCode::Backspace => input.backspace(),
        KeyCode::Delete => input.delete(),
        KeyCode::Left => input.left(),
        KeyCode::Right => input.right(),
        KeyCode::Home => input.home(),
        KeyCode::End => input.end(),
        _ => return false,
    }
    true
}

pub(super) fn paste(model: &mut Model, text: &str) {
    if model.screen == Screen::SignIn {
        let form = &mut model.sign_in;
        let input = if form.on_password { &mut form.password } else { &mut form.email };
        return input.insert_str(text);
    }
    match model.overlay.as_mut() {
        Some(Overlay::Search { input, selected } | Overlay::Palette { input, selected }) => {
            input.insert_str(text);
            *selected = 0;
        }
        Some(Overlay::Alert { input, .. }) => input.insert_str(text),
        Some(Overlay::Help { .. } | Overlay::ConfirmFlatten { .. } | Overlay::Page(_) | Overlay::Welcome) => {
        }
        None => {
            if let Some(ticket) = model.ticket.as_mut().filter(|t| t.is_editing() && !t.quick) {
                let (field, text) = (ticket.field, text.trim());
                let refused = text.chars().find(|c| !field.takes(*c) || !field.is_input());
                if let Some(input) = ticket.input_mut(field).filter(|_| refused.is_none()) {
                    // Without the commas between thousands: what is sent is what stands there.
                    return input.insert_str(text::plain_number(text).as_deref().unwrap_or(text));
                }
                not_taken(model, field, "not pasted: ");
            }
        }
    }
}

pub(super) fn sign_in_key(model: &mut Model, key: KeyEvent, cmds: &mut Vec<Cmd>) {
    if key.code == KeyCode::Esc {
        model.exit = Some(Exit::Quit);
        return;
    }
    let form = &mut model.sign_in;
    if form.busy {
        return;
    }
    match key.code {
        KeyCode::Tab | KeyCode::BackTab | KeyCode::Up | KeyCode::Down => form.on_password = !form.on_password,
        KeyCode::Enter if !form.on_password && form.password.is_empty() => form.on_password = true,
        KeyCode::Enter => {
            if form.email.is_empty() || form.password.is_empty() {
                form.refused = Some("e-mail and password are both needed".into());
                return;
            }
            form.busy = true;
            form.refused = None;
            cmds.push(Cmd::SignIn {
                email: form.email.text().trim().to_owned(),
                password: form.password.text().to_owned(),
            });
        }
        _ => {
            edit(if form.on_password { &mut form.password } else { &mut form.email }, key);
        }
    }
}

/// Says what a field takes.
fn not_taken(model: &mut Model, field: Field, lead: &str) {
    let text = format!("{lead}{} takes {}", field.name(), field.wants());
    model.say(Tone::Bad, text);
}

/// True when the ticket took the key. While it is written no letter goes on to the screen; while its order is on the
/// way, those of tabs, cancels and help do.
pub(super) fn ticket_key(model: &mut Model, key: KeyEvent, cmds: &mut Vec<Cmd>) -> bool {
    let tick = model.ticket.as_ref().map_or(100, |t| model.tick_e4(&t.symbol));
    let lot = model.ticket.as_ref().map_or(10_000, |t| round_lot(model.lot_e4(&t.symbol)));
    match key.code {
        KeyCode::Esc => {
            trade::close_ticket(model);
            return true;
        }
        KeyCode::Enter => {
            trade::send_ticket(model, cmds);
            return true;
        }
        _ => {}
    }
    let Some(ticket) = model.ticket.as_mut() else { return false };
    let field = ticket.field;
    let moves = matches!(
        key.code,
        KeyCode::Tab | KeyCode::BackTab | KeyCode::Up | KeyCode::Down | KeyCode::Left | KeyCode::Right
    );
    // A field for a time takes letters too; those of the sides are keys of the ticket everywhere else.
    let types = matches!(key.code, KeyCode::Char(c) if c == ' ' || c.is_ascii_digit() || field.takes(c))
        || matches!(key.code, KeyCode::Backspace | KeyCode::Delete | KeyCode::Home | KeyCode::End);
    let picks_side = matches!(key.code, KeyCode::Char('b' | 's' | 'B' | 'S'));
    if !ticket.is_editing() {
        return moves || types || picks_side;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        // Clear, home, end; no letter with Control is a key of the ticket or the screen.
        if let Some(input) =
            ticket.input_mut(field).filter(|_| matches!(key.code, KeyCode::Char('u' | 'a' | 'e')))
        {
            edit(input, key);
        }
        return true;
    }
    match key.code {
        KeyCode::Tab | KeyCode::Down => ticket.move_field(true),
        KeyCode::BackTab | KeyCode::Up => ticket.move_field(false),
        KeyCode::Left | KeyCode::Right => ticket.step(key.code == KeyCode::Right, tick, lot),
        KeyCode::Char(' ') if !field.is_input() => ticket.step(true, tick, lot),
        KeyCode::Char('b') if !field.takes('b') && ticket.replaces.is_none() => ticket.side = Side::Buy,
        KeyCode::Char('s') if !field.takes('s') && ticket.replaces.is_none() => ticket.side = Side::Sell,
        KeyCode::Char('y') if !field.takes('y') => actions::copy_ticket(model, cmds),
        KeyCode::Char(c) if !field.is_input() || !field.takes(c) => not_taken(model, field, ""),
        _ => match ticket.input_mut(field) {
            Some(input) => return edit(input, key),
            None => return false,
        },
    }
    true
}

/// Listed symbols that match, best first: by the start of the symbol, then by letters of symbol or name.
pub fn find_symbols<'a>(model: &'a Model, query: &str) -> Vec<&'a Instrument> {
    let query = query.trim();
    let mut found: Vec<(usize, &Instrument)> = model
        .instruments
        .values()
        .filter_map(|i| {
            let starts = i.symbol.len() >= query.len()
                && i.symbol.as_bytes()[..query.len()].eq_ignore_ascii_case(query.as_bytes());
            if starts {
                return Some((i.symbol.len() - query.len(), i));
            }
            let by_symbol = keys::fuzzy(query, &i.symbol).map(|score| 100 + score);
            let by_name = keys::fuzzy(query, &i.name).map(|score| 200 + score);
            by_symbol.into_iter().chain(by_name).min().map(|score| (score, i))
        })
        .collect();
    found.sort_by_key(|(score, i)| (*score, i.symbol.as_str()));
    found.into_iter().map(|(_, i)| i).take(FOUND_MAX).collect()
}

pub(super) fn overlay_key(model: &mut Model, key: KeyEvent, cmds: &mut Vec<Cmd>) {
    if key.code == KeyCode::Esc {
        model.overlay = None;
        return;
    }
    let Some(mut overlay) = model.overlay.take() else { return };
    match &mut overlay {
        // It is closed before its key comes here.
        Overlay::Welcome => return,
        Overlay::Help { scroll } => match key.code {
            KeyCode::Down | KeyCode::PageDown | KeyCode::Char('j' | ' ') => {
                *scroll = (*scroll + 4).min(keys::BINDINGS.len());
            }
            KeyCode::Up | KeyCode::PageUp | KeyCode::Char('k') => *scroll = scroll.saturating_sub(4),
            KeyCode::Char('?' | 'q') | KeyCode::F(1) | KeyCode::Enter => return,
            _ => {}
        },
        Overlay::ConfirmFlatten { symbol } => match key.code {
            KeyCode::Char('y') | KeyCode::Enter => return trade::flatten(model, symbol, cmds),
            KeyCode::Char('n' | 'q') => return,
            _ => {}
        },
        Overlay::Page(page) => {
            let page = *page;
            if page_key(model, page, key, cmds) {
                return;
            }
        }
        Overlay::Search { input, selected } => match key.code {
            KeyCode::Enter => {
                let found = find_symbols(model, input.text()).get(*selected).map(|i| i.symbol.clone());
                if let Some(symbol) = found {
                    feed::select_symbol(model, &symbol, cmds);
                } else {
                    let text = format!("no listed symbol matches {}", input.text());
                    model.say(Tone::Bad, text);
                }
                return;
            }
            _ => list_key(input, selected, key, find_symbols(model, input.text()).len()),
        },
        Overlay::Palette { input, selected } => match key.code {
            KeyCode::Enter => {
                let found = keys::search(input.text()).get(*selected).map(|row| row.action);
                match found {
                    Some(action) => actions::act(model, action, cmds),
                    None => model.say(Tone::Bad, "no such command"),
                }
                return;
            }
            _ => list_key(input, selected, key, keys::search(input.text()).len()),
        },
        Overlay::Alert { input, refused } if key.code == KeyCode::Enter => {
            let Err(text) = set_alert(model, input.text()) else { return };
            *refused = Some(text);
        }
        Overlay::Alert { input, refused } => {
            *refused = None;
            edit(input, key);
        }
    }
    model.overlay = Some(overlay);
}

/// True when the page closes. None of its keys does anything to an order.
fn page_key(model: &mut Model, page: Page, key: KeyEvent, cmds: &mut Vec<Cmd>) -> bool {
    let own = model.keys.action(&key);
    let before = (model.pages.period, model.pages.account, model.symbol.clone());
    match key.code {
        KeyCode::Char('q') | KeyCode::Enter => return true,
        KeyCode::Left | KeyCode::Char(',') => model.pages.period = model.pages.period.saturating_sub(1),
        KeyCode::Right | KeyCode::Char('.') => {
            model.pages.period = (model.pages.period + 1).min(PERIODS.len() - 1);
        }
        KeyCode::Down | KeyCode::Char('j') => model.pages.scroll += 1,
        KeyCode::Up | KeyCode::Char('k') => model.pages.scroll = model.pages.scroll.saturating_sub(1),
        KeyCode::Tab | KeyCode::BackTab if page == Page::Symbol => {
            actions::neighbour(model, key.code == KeyCode::Tab, cmds);
        }
        KeyCode::Tab if page == Page::Portfolio => {
            model.pages.account = (model.pages.account + 1) % page::accounts(model).len().max(1);
            model.pages.scroll = 0;
        }
        KeyCode::Char('R') => page::ask(model, page, cmds),
        _ => {
            let closes = match page {
                Page::Portfolio => keys::Action::Portfolio,
                Page::Symbol => keys::Action::Symbol,
                Page::Platform => keys::Action::Platform,
            };
            return own == Some(closes);
        }
    }
    if before != (model.pages.period, model.pages.account, model.symbol.clone()) {
        page::ask(model, page, cmds);
    }
    false
}

fn set_alert(model: &mut Model, text: &str) -> Result<(), String> {
    let trigger = Trigger::parse(text, model.reference_e4(&model.symbol))?;
    if model.alerts.len() >= ALERTS_MAX {
        return Err(format!("at most {ALERTS_MAX} alerts: d removes the symbol's"));
    }
    model.alerts.push(Alert { symbol: model.symbol.clone(), trigger, fired: false });
    Ok(())
}

fn list_key(input: &mut Input, selected: &mut usize, key: KeyEvent, count: usize) {
    match key.code {
        KeyCode::Down | KeyCode::Tab => *selected = (*selected + 1).min(count.saturating_sub(1)),
        KeyCode::Up | KeyCode::BackTab => *selected = selected.saturating_sub(1),
        _ => {
            if edit(input, key) {
                *selected = 0;
            }
        }
    }
}
