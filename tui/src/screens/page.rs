//! The screens over ladder and panes: a portfolio, a symbol, the platform.

use super::{chart, lower};
use crate::{
    model::{
        Model, holdings,
        page::{self, Page},
    },
    text,
    theme::Role,
    view::Pen,
};
use fafnir_proto::v1::{self, PerformancePoint};
use fafnir_rules::money;
use ratatui::layout::Rect;

/// Columns of names before their values.
const NAME: u16 = 16;
/// Columns of the axis of a curve.
const AXIS: u16 = 15;
/// Columns of a symbol's facts; the days stand beside them from the double on.
const FACTS: u16 = 46;
/// Columns of a user's e-mail.
const EMAIL: u16 = 34;

/// A name, its value, and how that is meant.
type Fact = (&'static str, String, Role);

pub fn draw(model: &Model, pen: &mut Pen, window: Rect, page: Page) {
    let (title, keys) = match page {
        Page::Portfolio => (portfolio_title(model), "Tab account  , . period  R again  Esc closes"),
        Page::Symbol => (format!("Symbol  {}", model.symbol), "Tab next symbol  R again  Esc closes"),
        Page::Platform => ("Platform".to_owned(), "R again  Esc closes"),
    };
    let inner = pen.boxed(window, &title);
    if inner.height < 3 || inner.width < 20 {
        return;
    }
    let foot = inner.bottom() - 1;
    let body = Rect::new(inner.x + 1, inner.y, inner.width - 2, inner.height - 1);
    match (&model.pages.refused, page) {
        (Some(why), _) => {
            let style = pen.style(Role::Bad);
            pen.words(body.x, body.y, body.width, why, style);
        }
        (None, Page::Portfolio) => portfolio(model, pen, body),
        (None, Page::Symbol) => symbol(model, pen, body),
        (None, Page::Platform) => platform(model, pen, body),
    }
    pen.role(body.x, foot, body.width, keys, Role::Dim);
}

fn waiting(pen: &mut Pen, body: Rect) {
    pen.role(body.x, body.y, body.width, "asking", Role::Dim);
}

/// Names and values, one on a line; returns the line after them.
fn facts(pen: &mut Pen, area: Rect, facts: &[Fact]) -> u16 {
    let shown = facts.iter().filter(|(_, value, _)| !value.is_empty());
    let mut y = area.y;
    for ((name, value, role), line) in shown.zip(area.y..area.bottom()) {
        pen.role(area.x, line, NAME.min(area.width), name, Role::Dim);
        let style = pen.style(*role);
        pen.words(area.x + NAME, line, area.width.saturating_sub(NAME), value, style);
        y = line + 1;
    }
    y
}

fn portfolio_title(model: &Model) -> String {
    let period = model.pages.period_name();
    let Some(account) = page::account(model) else { return format!("Portfolio  {period}") };
    let count = page::accounts(model).len();
    let kind = account.r#type().as_str_name().trim_start_matches("ACCOUNT_TYPE_").to_lowercase();
    let number = if account.account_number.is_empty() {
        crate::update::short_id(&account.id).to_owned()
    } else {
        account.account_number.clone()
    };
    let which = model.pages.account % count.max(1) + 1;
    format!("Portfolio  {kind} {number} {} ({which} of {count})  {period}", account.currency)
}

/// Hundredths of a percent from the wire's e4: 1.25 % is 12500.
fn percent(percent_e4: i64) -> String {
    let sign = if percent_e4 > 0 { "+" } else { "" };
    format!("{sign}{}%", money::format_fixed(percent_e4 / 100, 2, 2))
}

fn toned(value: i64) -> Role {
    match value {
        ..0 => Role::Down,
        0 => Role::Text,
        _ => Role::Up,
    }
}

/// What the account is worth and how that went, the curve, the positions.
fn portfolio(model: &Model, pen: &mut Pen, body: Rect) {
    let Some(went) = &model.pages.performance else { return waiting(pen, body) };
    let rate = |percent_e4: Option<i64>| percent_e4.map_or_else(|| "-".to_owned(), percent);
    let cash = page::account(model).map_or(0, |a| a.balance_micros);
    let gain = format!("{} ({})", text::signed_cents(went.gain_micros), percent(went.gain_percent_e4));
    let left: [Fact; 4] = [
        ("value", format!("{} {}", text::cents(went.end_micros), went.currency), Role::Title),
        ("cash", text::cents(cash), Role::Text),
        ("gain", gain, toned(went.gain_micros)),
        ("at the start", text::cents(went.start_micros), Role::Text),
    ];
    let right: [Fact; 4] = [
        ("time-weighted", rate(went.time_weighted_percent_e4), Role::Text),
        ("money-weighted", rate(went.money_weighted_percent_e4), Role::Text),
        ("came in", text::cents(went.inflows_micros), Role::Text),
        ("went out", text::cents(went.outflows_micros), Role::Text),
    ];
    let half = body.width / 2;
    let two = half >= NAME + 20;
    let mut y = facts(pen, Rect { width: if two { half } else { body.width }, ..body }, &left);
    if two {
        facts(pen, Rect { x: body.x + half, width: body.width - half, ..body }, &right);
    }
    let left_over = body.bottom().saturating_sub(y);
    let rows = if left_over >= 9 { left_over / 2 } else { 0 };
    if rows > 0 {
        curve(model, pen, Rect { y: y + 1, height: rows - 1, ..body }, &went.points);
        y += rows;
    }
    if body.bottom() > y + 1 {
        pen.role(body.x, y + 1, body.width, "positions in all accounts", Role::Dim);
        let table = Rect { x: body.x - 1, y: y + 2, height: body.bottom() - y - 2, ..body };
        lower::positions(model, pen, table, model.pages.scroll);
    }
}

/// The value over time, filled down to its lowest: each column has the newest point of its part of the span.
fn curve(model: &Model, pen: &mut Pen, area: Rect, points: &[PerformancePoint]) {
    let columns = usize::from(area.width.saturating_sub(AXIS));
    let (Some(low), Some(high)) =
        (points.iter().map(|p| p.value_micros).min(), points.iter().map(|p| p.value_micros).max())
    else {
        return;
    };
    if columns < 8 || area.height < 3 {
        return;
    }
    let rows = area.height - 1;
    let dim = pen.style(Role::Dim);
    pen.right(area.x, area.y, AXIS - 1, &text::cents(high), dim);
    if low != high {
        pen.right(area.x, area.y + rows - 1, AXIS - 1, &text::cents(low), dim);
    }
    let glyphs = pen.theme.glyphs();
    let steps = glyphs.spark.len() as i64;
    let full = glyphs.bar.last().copied().unwrap_or("#");
    let (first, last) = (points[0].value_micros, points[points.len() - 1].value_micros);
    let style = pen.style(if last < first { Role::Down } else { Role::Up });
    let shown = columns.min(points.len().max(2) * 4);
    for column in 0..shown {
        let at = (column + 1) * points.len() / shown;
        let value = points[at.saturating_sub(1).min(points.len() - 1)].value_micros;
        let span = i128::from(high) - i128::from(low);
        let most = i128::from(rows) * i128::from(steps) - 1;
        // Levels from the bottom; the lowest value shows as well.
        let level = if span == 0 { most / 2 } else { (i128::from(value) - i128::from(low)) * most / span };
        let level = i64::try_from(level).unwrap_or(0);
        let x = area.x + AXIS + column as u16;
        for row in 0..=level / steps {
            let is_top = row == level / steps;
            let top = glyphs.spark.get((level % steps) as usize).copied().unwrap_or(full);
            let glyph = if is_top { top } else { full };
            pen.text(x, area.y + rows - 1 - row as u16, 1, glyph, style);
        }
    }
    let day = |us: i64| text::day(model.zone.shown_us(us), true);
    let (from, to) = (day(points[0].from_us), day(points[points.len() - 1].from_us));
    pen.text(area.x + AXIS, area.y + rows, 10, &from, dim);
    if shown >= 22 {
        pen.text(area.x + AXIS + shown as u16 - 10, area.y + rows, 10, &to, dim);
    }
}

/// The listing and the day's figures, and beside them the days.
fn symbol(model: &Model, pen: &mut Pen, body: Rect) {
    let rows = symbol_facts(model);
    let beside = body.width >= FACTS * 2;
    let width = if beside { FACTS } else { body.width };
    let y = facts(pen, Rect { width, ..body }, &rows);
    let area = if beside {
        Rect { x: body.x + FACTS + 1, width: body.width - FACTS - 1, ..body }
    } else {
        Rect { y: y + 1, height: body.bottom().saturating_sub(y + 1), ..body }
    };
    let (of, days) = &model.pages.days;
    if *of != model.symbol {
        return waiting(pen, area);
    }
    let bars = chart::Bars {
        candles: days,
        interval_us: 86_400_000_000,
        tick_e4: model.tick_e4(&model.symbol),
        last_e4: model.reference_e4(&model.symbol),
        zone: &model.zone,
    };
    if area.height >= 3 {
        chart::plot(&bars, pen, area);
    }
}

fn symbol_facts(model: &Model) -> Vec<Fact> {
    let symbol = &model.symbol;
    let tick = model.tick_e4(symbol);
    let instrument = model.instrument().cloned().unwrap_or_default();
    let quote = model.quotes.get(symbol).cloned().unwrap_or_default();
    let price = |e4: i64| if e4 > 0 { text::price(e4, tick) } else { String::new() };
    let range = |low: i64, high: i64| {
        if low > 0 {
            format!("{} - {}", text::price(low, tick), text::price(high, tick))
        } else {
            String::new()
        }
    };
    let side = |price_e4: i64, quantity_e4: i64| {
        if price_e4 > 0 {
            format!("{} x {}", price(price_e4), money::format_e4(quantity_e4))
        } else {
            String::new()
        }
    };
    let last = model.reference_e4(symbol).unwrap_or(0);
    let change = text::percent(last, quote.previous_close_e4);
    let number = |n: i64| if n > 0 { text::whole(n) } else { String::new() };
    let band = match instrument.volatility_band_bps {
        0 => "none".to_owned(),
        bps => format!("{}%", money::format_fixed(bps.into(), 2, 2)),
    };
    let state = model.trading_state(symbol);
    let held = model.holdings.positions.values().find(|h| h.symbol == *symbol && h.quantity_e4 != 0);
    let position = held.map_or(String::new(), |h| {
        let open = holdings::unrealised_micros(model, h).map_or(String::new(), text::signed_cents);
        format!("{} @ {} {open}", money::format_e4(h.quantity_e4), text::cents(h.avg_cost_micros))
    });
    let mut rows = vec![
        ("name", instrument.name, Role::Title),
        ("exchange", format!("{} {}", instrument.exchange, instrument.currency), Role::Text),
        ("state", state.name().to_owned(), Role::Text),
        ("last", format!("{} {change}", price(last)), toned(last - quote.previous_close_e4)),
        ("bid", side(quote.bid_e4, quote.bid_quantity_e4), Role::Bid),
        ("ask", side(quote.ask_e4, quote.ask_quantity_e4), Role::Ask),
        ("open", price(quote.open_e4), Role::Text),
        ("previous close", price(quote.previous_close_e4), Role::Text),
        ("day", range(quote.day_low_e4, quote.day_high_e4), Role::Text),
        ("52 weeks", range(quote.year_low_e4, quote.year_high_e4), Role::Text),
        ("volume", number(quote.volume_e4 / 10_000), Role::Text),
        ("market cap", number(quote.market_cap_units), Role::Text),
        ("shares", number(instrument.shares_outstanding), Role::Text),
        ("tick and lot", format!("{} / {}", price(tick), money::format_e4(model.lot_e4(symbol))), Role::Text),
        ("volatility band", band, Role::Text),
        ("sector", instrument.sector, Role::Text),
        ("industry", instrument.industry, Role::Text),
        ("country", instrument.country, Role::Text),
        ("website", instrument.website, Role::Text),
        ("position", position, Role::Own),
    ];
    let at = rows.iter().position(|(name, ..)| *name == "volume").map_or(rows.len(), |at| at + 1);
    rows.splice(at..at, year_facts(model));
    rows
}

/// What the exchange says of a year of the symbol's days; empty where it says nothing.
fn year_facts(model: &Model) -> [Fact; 4] {
    let said = model.pages.statistics.as_ref().filter(|s| s.symbol == model.symbol);
    let said = said.cloned().unwrap_or_default();
    let percent = |bps: Option<i64>| bps.map(|bps| format!("{}%", money::format_fixed(bps, 2, 2)));
    let whole = |e4: Option<i64>| e4.map_or_else(|| "-".to_owned(), |e4| text::whole(e4 / 10_000));
    let volumes = (said.volume_short_e4.is_some() || said.volume_long_e4.is_some())
        .then(|| format!("{} / {}", whole(said.volume_short_e4), whole(said.volume_long_e4)));
    let beta = said
        .beta_e4
        .map(|e4| format!("{} to {}", money::format_fixed(e4, money::E4_DECIMALS, 2), said.index));
    let change = said.year_change_bps.unwrap_or(0);
    [
        ("52-week change", percent(said.year_change_bps).unwrap_or_default(), toned(change)),
        ("mean 10d / 63d", volumes.unwrap_or_default(), Role::Text),
        (
            "volatility",
            percent(said.volatility_bps).map_or_else(String::new, |v| format!("{v} a year")),
            Role::Text,
        ),
        ("beta", beta.unwrap_or_default(), Role::Text),
    ]
}

/// Figures, the symbols that are not open, the users.
fn platform(model: &Model, pen: &mut Pen, body: Rect) {
    let Some(now) = &model.pages.platform else { return waiting(pen, body) };
    let half = (body.width / 2).max(NAME + 12).min(body.width);
    let mut y = facts(pen, Rect { width: half, ..body }, &platform_facts(model, now));
    let beside = Rect { x: body.x + half, width: body.width - half, ..body };
    if beside.width >= 20 {
        halts(pen, beside, &now.halted);
    }
    y += 1;
    if y >= body.bottom() {
        return;
    }
    pen.role(body.x, y, EMAIL, "USER", Role::Dim);
    pen.role(body.x + EMAIL + 1, y, 12, "STATE", Role::Dim);
    pen.role(body.x + EMAIL + 14, y, body.width.saturating_sub(EMAIL + 14), "NAME", Role::Dim);
    let room = usize::from(body.bottom() - y - 1);
    let skip = model.pages.scroll.min(model.pages.users.len().saturating_sub(room));
    let style = pen.style(Role::Text);
    for (user, y) in model.pages.users.iter().skip(skip).zip(y + 1..body.bottom()) {
        pen.words(body.x, y, EMAIL.min(body.width), &user.email, style);
        let role = if user.state == "ACTIVE" { Role::Good } else { Role::Warn };
        pen.role(body.x + EMAIL + 1, y, 12.min(body.width.saturating_sub(EMAIL + 1)), &user.state, role);
        let name = format!("{} {}", user.first_name, user.last_name);
        pen.words(body.x + EMAIL + 14, y, body.width.saturating_sub(EMAIL + 14), &name, style);
    }
}

fn platform_facts(model: &Model, now: &v1::DashboardReply) -> Vec<Fact> {
    let users = now.users.unwrap_or_default();
    let number = |n: u64| text::whole(i64::try_from(n).unwrap_or(i64::MAX));
    let bad = |n: u64| if n > 0 { Role::Bad } else { Role::Text };
    let takes = match (now.cancel_only, now.notice.as_str()) {
        (true, why) => (format!("cancels only: {why}"), Role::Bad),
        (false, "") => ("everything".to_owned(), Role::Good),
        (false, notice) => (notice.to_owned(), Role::Warn),
    };
    vec![
        ("takes", takes.0, takes.1),
        ("time", text::clock(model.zone.shown_us(now.time_us)), Role::Text),
        ("users", format!("{} active, {} not", number(users.active), number(users.deactivated)), Role::Text),
        ("sessions", format!("{}, {} API keys", number(users.sessions), number(users.keys)), Role::Text),
        ("accounts", number(now.accounts), Role::Text),
        ("open orders", number(now.open_orders), Role::Text),
        ("trades", format!("{}, {} settled", number(now.trades), number(now.settled)), Role::Text),
        ("dead letters", number(now.dead_letters), bad(now.dead_letters)),
        ("journal", format!("{}, {} behind", number(now.journal_seq), number(now.behind)), Role::Text),
        ("audit log", number(now.audit_seq), Role::Text),
    ]
}

fn halts(pen: &mut Pen, area: Rect, halted: &[v1::Instrument]) {
    pen.role(area.x, area.y, area.width, "not open", Role::Dim);
    if halted.is_empty() {
        pen.role(area.x, area.y + 1, area.width, "every symbol trades", Role::Text);
    }
    for (instrument, y) in halted.iter().zip(area.y + 1..area.bottom().min(area.y + 10)) {
        let text = format!("{:<10} {}", instrument.symbol, instrument.state().name());
        let style = pen.style(Role::Warn);
        pen.words(area.x, y, area.width, &text, style);
    }
}
