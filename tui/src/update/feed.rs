//! Events of the exchange: market data, private updates, connections, answers.

use super::trade;
use crate::{
    model::{
        Model, Overlay, POINTER_US, Screen, Tone, WATCH_MAX, Who,
        alert::Facts,
        feed::{Feed, Link, VERIFY_US, Wire},
        holdings, intake, page,
        remembered::Remembered,
        tape::{GAP_MAX, Tape},
        ticket::Ticket,
        volume::Volume,
    },
    msg::{Cmd, Event, Outcome},
    view::layout,
};
use fafnir_proto::v1::{self, Side, private_update};
use fafnir_rules::symbol::Symbol;

/// What the pages ask for, as the backend names it.
const PAGE_QUESTIONS: [&str; 3] = ["performance", "days", "platform"];
/// A watchlist that is empty shows this many of the listed symbols.
const WATCH_DEFAULT: usize = 12;

pub(super) fn event(model: &mut Model, event: Event, cmds: &mut Vec<Cmd>) {
    match event {
        Event::Link(wire, link, why) => connection(model, wire, link, &why, cmds),
        Event::SignedIn(who) => signed_in(model, who, cmds),
        Event::Recalled(kept) => recalled(model, &kept),
        Event::SignInRefused(text) => {
            model.sign_in.busy = false;
            model.sign_in.password.clear();
            model.sign_in.refused = Some(crate::text::clean(&text).into_owned());
        }
        Event::SignedOut(text) => signed_out(model, &text),
        Event::Instruments(instruments) => take_instruments(model, instruments, cmds),
        Event::Watchlist(symbols) => {
            if !symbols.is_empty() {
                model.watch =
                    symbols.into_iter().filter(|s| Symbol::parse(s).is_ok()).take(WATCH_MAX).collect();
            }
            first_symbol(model, cmds);
        }
        Event::Orders { orders, open_complete } => take_orders(model, orders, open_complete, cmds),
        Event::Fills(fills) => {
            for fill in fills {
                model.holdings.take_fill(fill);
            }
        }
        Event::Positions(positions) => positions.into_iter().for_each(|p| model.holdings.take_position(p)),
        Event::Accounts(accounts) => accounts.into_iter().for_each(|a| model.holdings.take_account(a)),
        Event::Quotes(quotes) => {
            quotes.into_iter().filter(|q| Symbol::parse(&q.symbol).is_ok()).for_each(|q| model.take_quote(q));
        }
        Event::Book { image, from_feed } => take_book(model, image, from_feed),
        Event::Trades { symbol, trades, after } if symbol == model.symbol => {
            take_trades(model, trades, after, cmds);
        }
        Event::Trades { .. } => return,
        Event::Volume(reply) if reply.symbol == model.symbol => {
            model.volume.load(&reply, model.tape.all());
        }
        Event::Volume(_) => return,
        Event::Candles { symbol, interval, candles } => {
            if symbol == model.symbol && interval == model.chart.interval_name() {
                model.chart.load(candles);
            }
        }
        event @ (Event::Performance(_)
        | Event::Days { .. }
        | Event::Statistics(_)
        | Event::Platform { .. }) => page_shown(model, event),
        Event::Private(update) => private(model, update),
        Event::Placed { client_order_id, outcome, elapsed_us } => {
            trade::placed(model, &client_order_id, outcome, elapsed_us);
        }
        Event::Canceled { order_id, outcome, elapsed_us } => {
            trade::canceled(model, &order_id, outcome, elapsed_us);
        }
        Event::Replaced { order_id, outcome, elapsed_us } => {
            trade::replaced(model, &order_id, outcome, elapsed_us);
        }
        Event::CanceledAll { symbol, outcome, elapsed_us } => {
            trade::canceled_all(model, &symbol, outcome, elapsed_us);
        }
        Event::Flattened { symbol, outcome, elapsed_us } => {
            trade::flattened(model, &symbol, outcome, elapsed_us);
        }
        Event::WatchChanged { symbol, added, outcome } => watch_changed(model, &symbol, added, outcome),
        Event::Unanswered { question, text } => unanswered(model, question, &text),
    }
    model.dirty = true;
}

/// What a page asked for.
fn page_shown(model: &mut Model, event: Event) {
    match event {
        // An answer about another account comes too late.
        Event::Performance(reply) if page::account(model).is_some_and(|a| a.id == reply.account_id) => {
            model.pages.performance = Some(*reply);
        }
        Event::Days { symbol, candles } => {
            model.pages.days = (symbol, candles.into_iter().map(intake::candle).collect());
        }
        Event::Statistics(reply) => model.pages.statistics = Some(intake::statistics(*reply)),
        Event::Platform { figures, users } => {
            model.pages.platform = Some(*figures);
            model.pages.users = users;
        }
        _ => {}
    }
}

fn unanswered(model: &mut Model, question: &str, text: &str) {
    if matches!(model.overlay, Some(Overlay::Page(_))) && PAGE_QUESTIONS.contains(&question) {
        model.pages.refused = Some(crate::text::clean(text).into_owned());
    }
    model.note(Tone::Bad, format!("{question}: {text}"));
}

/// The first time all of it, then what other programs may have changed.
fn recalled(model: &mut Model, kept: &Remembered) {
    if model.remembered.is_some() {
        kept.alerts_into(model);
    } else {
        kept.put_into(model);
    }
    model.remembered = Some(kept.clone());
}

fn signed_in(model: &mut Model, who: Who, cmds: &mut Vec<Cmd>) {
    model.who = who;
    model.sign_in = crate::model::SignIn::default();
    model.screen = Screen::Trading;
    if std::mem::take(&mut model.welcome) {
        model.overlay = Some(crate::model::Overlay::Welcome);
    }
    model.note(Tone::Good, format!("signed in as {}", model.who.email));
    cmds.push(Cmd::Load);
    if !model.symbol.is_empty() {
        ask_symbol(model, cmds);
    }
}

/// The session has ended: nothing stays armed.
fn signed_out(model: &mut Model, text: &str) {
    model.screen = Screen::SignIn;
    model.sign_in.busy = false;
    model.sign_in.refused = Some(crate::text::clean(text).into_owned());
    model.armed_until_us = None;
    model.overlay = None;
    model.flattening = None;
}

fn take_instruments(model: &mut Model, instruments: Vec<v1::Instrument>, cmds: &mut Vec<Cmd>) {
    model.instruments = instruments
        .into_iter()
        .filter(is_well_formed)
        .map(|i| (i.symbol.clone(), intake::instrument(i)))
        .collect();
    if model.watch.is_empty() {
        model.watch = model.instruments.keys().take(WATCH_DEFAULT).cloned().collect();
    }
    place_ladder(model);
    first_symbol(model, cmds);
}

fn is_well_formed(instrument: &v1::Instrument) -> bool {
    Symbol::parse(&instrument.symbol).is_ok_and(|s| s.as_str() == instrument.symbol)
}

fn connection(model: &mut Model, wire: Wire, link: Link, why: &str, cmds: &mut Vec<Cmd>) {
    let old = model.links.get(wire);
    model.links.set(wire, link, model.now_us);
    if old == link {
        return;
    }
    match link {
        Link::Up => {
            model.links.forget_down(wire);
            model.note(Tone::Good, format!("{} connected", wire.name()));
            if model.screen == Screen::Trading && !model.symbol.is_empty() {
                model.feed.verify_us = Some(model.now_us);
                cmds.push(Cmd::Book { symbol: model.symbol.clone() });
                model.tape.asked_us = Some(model.now_us);
                cmds.push(Cmd::Trades { symbol: model.symbol.clone(), after: model.tape.last_number() });
                cmds.push(Cmd::Volume { symbol: model.symbol.clone() });
            }
        }
        Link::Down => {
            if model.links.report_down(wire, why) {
                model.note(Tone::Bad, format!("{} disconnected: {why}", wire.name()));
            }
        }
        Link::Connecting => {}
    }
}

/// Shows the first symbol of the watchlist when none was chosen, or the chosen one is not listed.
fn first_symbol(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let listed = model.instruments.is_empty() || model.instruments.contains_key(&model.symbol);
    if !model.symbol.is_empty() && listed {
        return;
    }
    if !model.symbol.is_empty() {
        let text = format!("{} is not a listed symbol", model.symbol);
        model.say(Tone::Bad, text);
    }
    let first =
        model.watch.iter().find(|s| model.instruments.contains_key(*s)).or(model.instruments.keys().next());
    if let Some(symbol) = first.cloned() {
        select_symbol(model, &symbol, cmds);
    }
}

/// Puts another symbol on the ladder: disarms, closes an unsent ticket, asks for everything that shows.
pub fn select_symbol(model: &mut Model, symbol: &str, cmds: &mut Vec<Cmd>) {
    if model.symbol == symbol {
        return;
    }
    trade::disarm(model, "the symbol changed");
    if model.ticket.as_ref().is_some_and(Ticket::is_editing) {
        model.ticket = None;
    }
    symbol.clone_into(&mut model.symbol);
    model.book = None;
    model.feed = Feed { was_stale: false, ..Feed::default() };
    model.tape = Tape::new(model.tape.filter);
    model.volume = Volume::default();
    model.chart.clear();
    model.ladder.cursor = None;
    model.ladder.pinned = false;
    model.ladder.placed = false;
    model.drag = None;
    place_ladder(model);
    if model.screen == Screen::Trading {
        ask_symbol(model, cmds);
    }
    model.dirty = true;
}

fn ask_symbol(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let symbol = model.symbol.clone();
    model.following = model.wanted();
    cmds.push(Cmd::Follow { symbol: symbol.clone(), quotes: model.following.clone() });
    model.feed.verify_us = Some(model.now_us);
    cmds.push(Cmd::Book { symbol: symbol.clone() });
    model.tape.asked_us = Some(model.now_us);
    cmds.push(Cmd::Trades { symbol: symbol.clone(), after: 0 });
    cmds.push(Cmd::Volume { symbol: symbol.clone() });
    cmds.push(Cmd::Candles { symbol, interval: model.chart.interval_name() });
}

fn take_book(model: &mut Model, image: v1::BookImage, from_feed: bool) {
    if image.symbol != model.symbol {
        return;
    }
    let image = intake::book(image);
    let position = (image.epoch, image.book_seq);
    let known = model.book.as_ref().map(|b| (b.epoch, b.book_seq));
    // An engine that starts again takes a new epoch; its images replace the old ones whatever their number.
    let is_older = known.is_some_and(|(epoch, seq)| image.epoch == epoch && image.book_seq < seq);
    if from_feed {
        model.feed.confirmed_us = Some(model.now_us);
        if !is_older {
            model.feed.behind_since_us = None;
            model.feed.delay_us = Some((model.now_us - image.time_us).max(0));
        }
    } else {
        model.feed.verify_us = None;
        match known {
            Some(known) if known == position => {
                if model.feed.behind_since_us.is_none_or(|since| model.now_us - since < VERIFY_US) {
                    model.feed.confirmed_us = Some(model.now_us);
                }
            }
            Some(_) if !is_older => {
                model.feed.behind_since_us.get_or_insert(model.now_us);
            }
            Some(_) => {}
            None => model.feed.confirmed_us = Some(model.now_us),
        }
    }
    if is_older {
        return;
    }
    holdings::estimate_queue(&mut model.holdings, &image);
    if known.is_some() {
        log_state(model, image.state());
    }
    model.book = Some(image);
    place_ladder(model);
}

/// Tells when the symbol on the ladder begins or stops to trade.
fn log_state(model: &mut Model, state: v1::TradingState) {
    use v1::TradingState::{Auction, Closed, Halted, Open, PreOpen, Unspecified};
    let old = model.trading_state(&model.symbol);
    if state == old || state == Unspecified {
        return;
    }
    let (tone, text) = match state {
        Open | Unspecified => (Tone::Good, "trades again"),
        PreOpen => (Tone::Note, "PRE_OPEN: orders gather for the opening auction"),
        Auction => (Tone::Note, "AUCTION: orders gather, nothing trades"),
        Halted => (Tone::Bad, "HALTED: only cancels are taken"),
        Closed => (Tone::Bad, "CLOSED: only cancels are taken"),
    };
    let text = format!("{} {text}", model.symbol);
    model.say(tone, text);
}

/// Lets the ladder follow the market as far as its rule allows.
pub(super) fn place_ladder(model: &mut Model) {
    let layout = layout(model.size, model.pane);
    let rows = layout.ladder_rows();
    let is_recent = |seen: i64| model.now_us - seen < POINTER_US;
    let held =
        model.pointer.is_some_and(|((x, y), seen)| layout.ladder_line(x, y).is_some() && is_recent(seen));
    // The price under one key does not move with the market either.
    if (held || model.is_armed()) && model.ladder.placed {
        return;
    }
    if let Some(row) = market_row(model) {
        model.ladder.follow(row, rows);
    }
}

/// The row of the market: the best bid, else the best ask, else the reference.
pub fn market_row(model: &Model) -> Option<i64> {
    let tick = model.tick_e4(&model.symbol);
    let (bid, ask) = model.inside();
    let of = |price: Option<i64>, side| price.map(|p| model.ladder.row_of(p, side, tick));
    of(bid, Side::Buy)
        .or_else(|| of(ask, Side::Sell))
        .or_else(|| of(model.reference_e4(&model.symbol), Side::Buy))
}

fn take_trades(model: &mut Model, trades: Vec<v1::Trade>, after: Option<u64>, cmds: &mut Vec<Cmd>) {
    let symbol = model.symbol.clone();
    let fresh = model.tape.take(trades.into_iter().filter(|t| t.symbol == symbol).collect());
    let mut lacks_past = false;
    for trade in &fresh {
        holdings::trade_in_queue(&mut model.holdings, trade);
        model.volume.add(trade);
        // History that arrives on request is in the gateway's candles already.
        if after.is_none() {
            lacks_past |= model.chart.add(trade);
        }
    }
    if lacks_past {
        cmds.push(Cmd::Candles { symbol, interval: model.chart.interval_name() });
    }
    if after.is_some() && model.tape.has_gap() && fresh.is_empty() {
        give_up_gap(model);
    }
}

fn give_up_gap(model: &mut Model) {
    if let Some((after, before)) = model.tape.gap() {
        model
            .note(Tone::Bad, format!("{}: trades {} to {} are missing", model.symbol, after + 1, before - 1));
    }
    model.tape.skip_gap();
}

fn take_orders(model: &mut Model, orders: Vec<v1::Order>, open_complete: bool, cmds: &mut Vec<Cmd>) {
    if open_complete {
        let missing = |o: &&v1::Order| holdings::is_open(o) && !orders.iter().any(|new| new.id == o.id);
        let ask =
            model.holdings.orders.values().filter(missing).map(|o| Cmd::Order { order_id: o.id.clone() });
        cmds.extend(ask);
    }
    for order in orders {
        trade::resolve_ticket(model, &order);
        model.holdings.take_order(order);
    }
}

fn private(model: &mut Model, update: v1::PrivateUpdate) {
    match update.kind {
        Some(private_update::Kind::Order(update)) => {
            if let Some(order) = update.order {
                trade::resolve_ticket(model, &order);
                trade::log_order(model, &order);
                model.holdings.take_order(order);
            }
            if let Some(fill) = update.fill {
                trade::log_fill(model, fill);
            }
        }
        Some(private_update::Kind::Portfolio(update)) => {
            update.account.into_iter().for_each(|a| model.holdings.take_account(a));
            update.holding.into_iter().for_each(|h| model.holdings.take_position(h));
        }
        Some(private_update::Kind::Heartbeat(beat)) => {
            // How many bytes are free changes all the time, what follows from it does not.
            let follows = |notice: &str| notice.rsplit(": ").next().map(ToOwned::to_owned);
            if (follows(&beat.notice), beat.limited) != (follows(&model.notice), model.limited) {
                match beat.notice.as_str() {
                    "" if model.limited => model.say(Tone::Good, "the exchange takes everything again"),
                    "" => model.say(Tone::Good, "the exchange is well again"),
                    notice => model.say(Tone::Bad, notice),
                }
            }
            (model.notice, model.limited) = (beat.notice, beat.limited);
        }
        None => {}
    }
}

fn watch_changed(model: &mut Model, symbol: &str, added: bool, outcome: Outcome<()>) {
    match outcome {
        Outcome::Done(()) => {
            model.watch.retain(|s| s != symbol);
            if added {
                model.watch.insert(0, symbol.to_owned());
                model.watch.truncate(WATCH_MAX);
            }
            let verb = if added { "added to" } else { "removed from" };
            model.say(Tone::Good, format!("{symbol} {verb} the watchlist"));
        }
        Outcome::Refused(text) | Outcome::Unknown(text) => model.say(Tone::Bad, format!("watchlist: {text}")),
    }
}

/// Asks the gateway where the feed leaves a doubt: a quiet book, a missing trade.
pub(super) fn checks(model: &mut Model, cmds: &mut Vec<Cmd>) {
    if model.symbol.is_empty() || model.links.grpc != Link::Up {
        return;
    }
    if model.feed.wants_check(model.now_us) {
        model.feed.verify_us = Some(model.now_us);
        cmds.push(Cmd::Book { symbol: model.symbol.clone() });
    }
    if let Some(after) = model.tape.wants(model.now_us) {
        let wide = model.tape.gap().is_some_and(|(after, before)| before - after > GAP_MAX);
        if wide {
            give_up_gap(model);
        } else {
            model.tape.asked_us = Some(model.now_us);
            cmds.push(Cmd::Trades { symbol: model.symbol.clone(), after });
        }
    }
}

/// How long the market of a symbol is not known to be current, microseconds. Of a symbol that is not on the ladder it is
/// the connection that is known.
fn stale_us(model: &Model, symbol: &str) -> Option<i64> {
    if symbol == model.symbol {
        return model.feed.stale_us(model.now_us, &model.links);
    }
    model.links.nats_down_us.map(|since| (model.now_us - since).max(0))
}

/// Fires the alerts whose condition holds.
pub(super) fn alerts(model: &mut Model, cmds: &mut Vec<Cmd>) {
    let mut fired = Vec::new();
    for (at, alert) in model.alerts.iter().enumerate().filter(|(_, a)| !a.fired) {
        let spread_e4 = model.quotes.get(&alert.symbol).filter(|q| q.bid_e4 > 0 && q.ask_e4 > 0);
        let position =
            model.holdings.positions.values().find(|h| h.symbol == alert.symbol && h.quantity_e4 != 0);
        let facts = Facts {
            last_e4: model.reference_e4(&alert.symbol),
            spread_e4: spread_e4.map(|q| q.ask_e4 - q.bid_e4),
            pnl_micros: position.and_then(|h| holdings::unrealised_micros(model, h)),
            stale_us: stale_us(model, &alert.symbol),
        };
        if alert.trigger.holds(&facts) {
            fired.push(at);
        }
    }
    let glyphs = model.theme.glyphs();
    for at in fired {
        let alert = &mut model.alerts[at];
        alert.fired = true;
        let text = format!("alert: {} {}", alert.symbol, alert.trigger.text(glyphs.at_least, glyphs.at_most));
        model.say(Tone::Bad, text);
        // It rings, and stays until a key says that it was seen.
        cmds.push(Cmd::Bell);
        if let Some(message) = &mut model.message {
            message.until_us = i64::MAX;
        }
    }
}
