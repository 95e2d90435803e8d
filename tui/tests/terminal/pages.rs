//! The screens over ladder and panes, and what a terminal remembers.

use crate::{
    common::*,
    screens::{draw, render},
};
use crossterm::event::KeyCode;
use fafnir_proto::v1;
use fafnir_tui::{
    Remembered, Theme,
    model::{
        Model, Overlay, Pane, Tab,
        alert::{Alert, Trigger},
        page::Page,
    },
    msg::{Cmd, Event},
    theme::Depth,
};

const DAY_US: i64 = 86_400_000_000;
const SIZES: [(u16, u16); 3] = [(120, 40), (80, 24), (60, 16)];

fn themes() -> [(&'static str, Theme); 3] {
    [
        ("default", Theme::default()),
        ("mono", Theme { depth: Depth::Mono, ..Theme::default() }),
        ("ascii", Theme { depth: Depth::Ansi16, ascii: true, ..Theme::default() }),
    ]
}

fn performance() -> v1::PerformanceReply {
    let point = |i: i64| v1::PerformancePoint {
        from_us: START_US - (30 - i) * DAY_US,
        value_micros: 100_000_000_000 + (i * 37 % 23) * 90_000_000 + i * 40_000_000,
        ..Default::default()
    };
    v1::PerformanceReply {
        account_id: ACCOUNT.into(),
        currency: "USD".into(),
        period: "1M".into(),
        start_micros: 100_000_000_000,
        end_micros: 101_204_100_000,
        inflows_micros: 800_000_000,
        gain_micros: 404_100_000,
        gain_percent_e4: 4_041,
        time_weighted_percent_e4: Some(4_000),
        points: (0..30).map(point).collect(),
        ..Default::default()
    }
}

fn days() -> Vec<v1::Candle> {
    (0..40)
        .map(|i: i64| {
            let open_e4 = 2_250_000 + (i * 37 % 23) * 2_000;
            let close_e4 = open_e4 + (i * 29 % 17 - 8) * 1_500;
            v1::Candle {
                symbol: "AAPL".into(),
                time_us: START_US / DAY_US * DAY_US - (40 - i) * DAY_US,
                open_e4,
                close_e4,
                high_e4: open_e4.max(close_e4) + 7_000,
                low_e4: open_e4.min(close_e4) - 5_000,
                volume_e4: (1_000 + i * 31 % 50) * 10_000,
            }
        })
        .collect()
}

fn statistics() -> v1::StatisticsReply {
    v1::StatisticsReply {
        symbol: "AAPL".into(),
        currency: "USD".into(),
        sessions: 251,
        year_change_bps: Some(-1_234),
        volume_short_e4: Some(10_190_000),
        volume_long_e4: Some(10_245_000),
        volatility_bps: Some(2_871),
        index: "SPY".into(),
        beta_e4: Some(10_712),
        ..Default::default()
    }
}

fn platform() -> Event {
    let figures = v1::DashboardReply {
        time_us: START_US,
        users: Some(v1::AuthFigures {
            active: 3,
            deactivated: 1,
            sessions: 4,
            keys: 2,
            ..Default::default()
        }),
        open_orders: 812,
        trades: 40_123,
        settled: 40_123,
        accounts: 7,
        journal_seq: 123_456,
        cancel_only: true,
        notice: "the disk has 999 MiB free".into(),
        halted: vec![v1::Instrument { state: v1::TradingState::Halted.into(), ..instrument("TSLA", "", 1) }],
        ..Default::default()
    };
    let user = |email: &str, state: &str| v1::UserAccount {
        email: email.into(),
        first_name: "Ada".into(),
        last_name: "Byron".into(),
        state: state.into(),
        ..Default::default()
    };
    let users = vec![user("ada@example.com", "ACTIVE"), user("eve@example.com", "DEACTIVATED")];
    Event::Platform { figures: Box::new(figures), users }
}

fn with_page(size: (u16, u16), theme: Theme, key: &str) -> Model {
    let mut model = live(size, theme);
    keys(&mut model, key);
    apply(&mut model, Event::Performance(Box::new(performance())));
    apply(&mut model, Event::Days { symbol: "AAPL".into(), candles: days() });
    apply(&mut model, Event::Statistics(Box::new(statistics())));
    apply(&mut model, platform());
    model
}

#[test]
fn portfolio_symbol_and_platform_at_every_size_in_every_theme() {
    for (page, key) in [("portfolio", "P"), ("symbol", "i"), ("platform", "D")] {
        for size in SIZES {
            for (name, theme) in themes() {
                let snapshot = format!("{page}_{}x{}_{name}", size.0, size.1);
                insta::assert_snapshot!(snapshot, render(&draw(&with_page(size, theme, key))));
            }
        }
    }
}

#[test]
fn a_page_asks_for_what_it_shows_and_its_keys_reach_no_order() {
    let mut model = live(SIZES[0], Theme::default());
    let asked = keys(&mut model, "P");
    assert!(
        matches!(&asked[..], [Cmd::Performance { account_id, period: "1M", interval: "1d" }] if account_id == ACCOUNT),
        "{asked:?}"
    );
    let asked = keys(&mut model, "bsxXFm1A");
    assert!(asked.is_empty() && model.ticket.is_none() && !model.is_armed(), "{asked:?}");
    assert!(matches!(&keys(&mut model, ".")[..], [Cmd::Performance { period: "3M", .. }]));
    apply(&mut model, Event::Unanswered { question: "performance", text: "no such account".into() });
    assert!(render(&draw(&model)).contains("no such account"));
    keys(&mut model, "P");
    assert_eq!(model.overlay, None);
    assert!(matches!(&keys(&mut model, "i")[..], [Cmd::Days { symbol }] if symbol == "AAPL"));
    let asked = press(&mut model, KeyCode::Tab);
    assert_eq!((model.symbol.as_str(), &model.overlay), ("MSFT", &Some(Overlay::Page(Page::Symbol))));
    assert!(asked.iter().any(|c| matches!(c, Cmd::Days { symbol } if symbol == "MSFT")), "{asked:?}");
    press(&mut model, KeyCode::Esc);
    assert!(matches!(&keys(&mut model, "D")[..], [Cmd::Platform]));
    apply(&mut model, Event::Unanswered { question: "platform", text: "not permitted".into() });
    assert!(render(&draw(&model)).contains("not permitted"));
}

#[test]
fn a_terminal_begins_where_the_last_one_ended_and_keeps_what_changes() {
    let mut model = fresh(SIZES[0], Theme::default());
    let alert = Alert { symbol: "NVDA".into(), trigger: Trigger::PriceAtLeast(9_000_000), fired: false };
    let kept = Remembered {
        symbol: "MSFT".into(),
        group: 5,
        timeframe: "15m".into(),
        pane: Pane::Chart,
        tab: Tab::Fills,
        alerts: vec![alert.clone()],
        ..Remembered::default()
    };
    apply(&mut model, Event::Recalled(Box::new(kept.clone())));
    let who = fafnir_tui::model::Who { user_id: "u".into(), email: "user@test.com".into() };
    let asked = apply(&mut model, Event::SignedIn(who));
    assert!(asked.iter().any(|c| matches!(c, Cmd::Book { symbol } if symbol == "MSFT")), "{asked:?}");
    assert!(!asked.iter().any(|c| matches!(c, Cmd::Remember(_))), "nothing has changed: {asked:?}");
    assert_eq!((model.pane, model.tab, model.alerts.len()), (Pane::Chart, Tab::Fills, 1));
    let kept_now = keys(&mut model, "p");
    assert!(
        matches!(&kept_now[..], [Cmd::Remember(now)] if now.tab == Tab::Positions && now.symbol == "MSFT")
    );
    let kept_now: Vec<Cmd> =
        keys(&mut model, "a>= 500").into_iter().chain(press(&mut model, KeyCode::Enter)).collect();
    assert!(matches!(&kept_now[..], [Cmd::Remember(now)] if now.alerts.len() == 2), "{kept_now:?}");
    // Another program took one away; the layout of this terminal stays.
    apply(&mut model, Event::Recalled(Box::new(Remembered { alerts: vec![alert], ..kept })));
    assert_eq!((model.alerts.len(), model.tab), (1, Tab::Positions));
}

#[test]
fn without_a_memory_nothing_is_kept() {
    let mut model = live(SIZES[0], Theme::default());
    assert!(keys(&mut model, "pfl]t").is_empty());
}

#[test]
fn an_open_ticket_is_copied_as_a_command() {
    let mut model = live(SIZES[0], Theme::default());
    keys(&mut model, "b");
    let copied = keys(&mut model, "y");
    assert!(
        matches!(&copied[..], [Cmd::Copy(text)] if text.starts_with("fafnir order place buy AAPL 5 --price 231.07")),
        "{copied:?}"
    );
    assert!(model.ticket.is_some());
}

#[test]
fn a_day_is_a_timeframe_of_the_chart() {
    let mut model = live(SIZES[0], Theme::default());
    let asked = keys(&mut model, "....");
    assert!(matches!(asked.last(), Some(Cmd::Candles { interval: "1d", .. })), "{asked:?}");
    apply(&mut model, Event::Candles { symbol: "AAPL".into(), interval: "1d", candles: days() });
    let shown = render(&draw(&model));
    assert!(shown.contains("1d candles") && shown.contains("11-1"), "{shown}");
}
