//! `update(model, msg) → commands`: every rule of the terminal, without I/O.

mod actions;
mod feed;
mod forms;
mod input;
pub mod recipe;
mod trade;

use crate::{
    model::{
        Model, Screen, Tone,
        feed::{Freshness, Link},
        intake,
        remembered::Remembered,
    },
    msg::{Cmd, Msg},
};

pub use actions::ladder_price_e4;
pub use feed::{market_row, select_symbol};
pub use forms::find_symbols;
pub use trade::{short_id, trail};

/// A clock that jumps back further than this ends an arming (microseconds).
const CLOCK_JUMP_US: i64 = 1_000_000;

/// Applies one message and says what the backend has to do.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Cmd> {
    let mut cmds = Vec::new();
    match msg {
        Msg::Clock(now_us) => clock(model, now_us),
        Msg::Input(event) => input::input(model, event, &mut cmds),
        Msg::Backend(event) => feed::event(model, event, &mut cmds),
    }
    settle(model, &mut cmds);
    cmds
}

fn clock(model: &mut Model, now_us: i64) {
    let now_us = now_us.clamp(0, intake::NUMBER_MAX);
    if now_us < model.now_us - CLOCK_JUMP_US && model.armed_until_us.is_some() {
        trade::disarm(model, "the clock was set back");
    }
    // What shows the time changes by the second only.
    let shows_seconds = model.armed_until_us.is_some() || model.feed.was_stale;
    if shows_seconds && now_us / 1_000_000 != model.now_us / 1_000_000 {
        model.dirty = true;
    }
    model.now_us = now_us;
}

/// What follows from the state alone: expiries, stale data, gaps, alerts, subscriptions.
fn settle(model: &mut Model, cmds: &mut Vec<Cmd>) {
    if model.message.as_ref().is_some_and(|m| model.now_us >= m.until_us) {
        model.message = None;
        model.dirty = true;
    }
    if model.screen != Screen::Trading {
        return;
    }
    if model.armed_until_us.is_some() && !model.is_armed() {
        trade::disarm(model, "five minutes are over");
    }
    freshness(model);
    feed::checks(model, cmds);
    feed::alerts(model, cmds);
    remember(model, cmds);
    let wanted = model.wanted();
    if wanted != model.following && !model.symbol.is_empty() {
        model.following.clone_from(&wanted);
        cmds.push(Cmd::Follow { symbol: model.symbol.clone(), quotes: wanted });
    }
}

/// Keeps what has changed of what the next terminal begins with.
fn remember(model: &mut Model, cmds: &mut Vec<Cmd>) {
    if model.symbol.is_empty() || model.remembered.as_ref().is_none_or(|kept| kept.is_of(model)) {
        return;
    }
    let now = Remembered::of(model);
    model.remembered = Some(now.clone());
    cmds.push(Cmd::Remember(Box::new(now)));
}

fn freshness(model: &mut Model) {
    let stale = match model.feed.freshness(model.now_us, model.links.nats) {
        Freshness::Stale(reason) => Some(reason),
        Freshness::Live | Freshness::Waiting => None,
    };
    if stale.is_some() != model.feed.was_stale {
        model.feed.was_stale = stale.is_some();
        match stale {
            Some(reason) => {
                model.note(Tone::Bad, format!("market data is stale: {}", reason.sentence()));
                trade::disarm(model, "market data is stale");
            }
            None => model.note(Tone::Good, "market data is live"),
        }
        model.dirty = true;
    }
}

/// When the model wants to be told the time even if nothing happens, in microseconds since 1970; none at idle.
pub fn wake_us(model: &Model) -> Option<i64> {
    let mut wakes: Vec<i64> = Vec::new();
    wakes.extend(model.message.as_ref().map(|m| m.until_us));
    if model.screen == Screen::Trading {
        let next_second = (model.now_us / 1_000_000 + 1) * 1_000_000;
        if model.armed_until_us.is_some() || model.feed.was_stale {
            wakes.push(next_second);
        }
        if !model.symbol.is_empty() {
            wakes.extend(model.feed.wake_us(model.now_us, model.links.grpc == Link::Up));
        }
        if model.tape.has_gap() && model.links.grpc == Link::Up {
            wakes.push(next_second);
        }
    }
    wakes.into_iter().min().map(|wake| wake.max(model.now_us + 1_000))
}
