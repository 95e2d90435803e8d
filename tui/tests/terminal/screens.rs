//! What the screens look like: text and styles at three sizes, in three themes, in four states.

use crate::common::*;
use crossterm::event::KeyCode;
use fafnir_proto::v1;
use fafnir_tui::{
    Theme,
    model::{
        Model, Overlay, Tab,
        feed::{Link, Wire},
    },
    msg::{Event, Outcome},
    theme::Depth,
    view::view,
};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Modifier};

const SIZES: [(u16, u16); 3] = [(120, 40), (80, 24), (40, 12)];

fn themes() -> [(&'static str, Theme); 3] {
    [
        ("default", Theme::default()),
        ("mono", Theme { depth: Depth::Mono, ..Theme::default() }),
        ("ascii", Theme { depth: Depth::Ansi16, ascii: true, ..Theme::default() }),
    ]
}

pub fn draw(model: &Model) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
    terminal.draw(|frame| view(model, frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// The text, then a block of runs: `row: style×columns …`, because the test backend prints no colour.
pub fn render(buffer: &Buffer) -> String {
    let mut text = String::new();
    let mut styles = String::from("\n");
    for y in 0..buffer.area.height {
        let mut runs: Vec<(String, u16)> = Vec::new();
        let mut line = String::new();
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            line.push_str(cell.symbol());
            let mut style = match cell.fg {
                ratatui::style::Color::Reset => String::new(),
                color => format!("{color}").to_lowercase(),
            };
            for (modifier, mark) in
                [(Modifier::BOLD, "+b"), (Modifier::REVERSED, "+r"), (Modifier::UNDERLINED, "+u")]
            {
                if cell.modifier.contains(modifier) {
                    style.push_str(mark);
                }
            }
            let style = if style.is_empty() { ".".to_owned() } else { style };
            match runs.last_mut() {
                Some((last, count)) if *last == style => *count += 1,
                _ => runs.push((style, 1)),
            }
        }
        text.push_str(&format!("{}\n", line.trim_end()));
        if runs.len() > 1 || runs[0].0 != "." {
            let runs: Vec<String> = runs.iter().map(|(style, count)| format!("{style}×{count}")).collect();
            styles.push_str(&format!("{y}: {}\n", runs.join(" ")));
        }
    }
    text + &styles
}

fn stale(size: (u16, u16), theme: Theme) -> Model {
    let mut model = live(size, theme);
    apply(&mut model, Event::Link(Wire::Nats, Link::Down, "connection lost".into()));
    at(&mut model, 7);
    model
}

fn rejected(size: (u16, u16), theme: Theme) -> Model {
    let mut model = live(size, theme);
    keys(&mut model, "b");
    press(&mut model, KeyCode::Enter);
    let client_order_id = model.ticket.as_ref().map(|t| t.client_order_id.clone()).unwrap_or_default();
    let outcome = Outcome::Refused("insufficient cash: needed 1,155.35, available 88.10".into());
    apply(&mut model, Event::Placed { client_order_id, outcome, elapsed_us: 9_000 });
    model
}

fn beat(model: &mut Model, notice: &str, limited: bool) {
    let beat = v1::Heartbeat { notice: notice.to_owned(), limited, ..v1::Heartbeat::default() };
    let kind = Some(v1::private_update::Kind::Heartbeat(beat));
    apply(model, Event::Private(v1::PrivateUpdate { kind, reset: false }));
}

const LITTLE_ROOM: &str = "the disk of /data has 999 MiB free, less than 1024: only cancels are taken";

fn limited(size: (u16, u16), theme: Theme) -> Model {
    let mut model = live(size, theme);
    beat(&mut model, LITTLE_ROOM, true);
    model
}

fn snapshots(state: &str, make: fn((u16, u16), Theme) -> Model) {
    for size in SIZES {
        for (name, theme) in themes() {
            let snapshot = format!("{state}_{}x{}_{name}", size.0, size.1);
            insta::assert_snapshot!(snapshot, render(&draw(&make(size, theme))));
        }
    }
}

#[test]
fn a_live_market_at_every_size_in_every_theme() {
    snapshots("live", live);
}

#[test]
fn a_stale_market_says_so_at_every_size_in_every_theme() {
    snapshots("stale", stale);
}

#[test]
fn a_rejected_order_says_why_at_every_size_in_every_theme() {
    snapshots("rejected", rejected);
}

#[test]
fn an_exchange_that_does_not_take_everything_says_so_at_every_size_in_every_theme() {
    snapshots("limited", limited);
    let first = |model: &Model| render(&draw(model)).lines().next().unwrap().to_owned();
    let mut model = live(SIZES[0], Theme::default());
    assert!(!first(&model).contains("LIMITED"));
    beat(&mut model, "the disk of /data has 1999 MiB free, less than 2048: make room", false);
    assert!(first(&model).contains("ALARM") && !first(&model).contains("LIMITED"));
    beat(&mut model, LITTLE_ROOM, true);
    assert!(first(&model).contains("LIMITED"));
    beat(&mut model, "", false);
    assert!(!first(&model).contains("LIMITED") && !first(&model).contains("ALARM"));
    assert!(render(&draw(&model)).contains("the exchange takes everything again"));
}

#[test]
fn an_empty_terminal_at_every_size_in_every_theme() {
    snapshots("empty", signed_in);
}

#[test]
fn the_other_screens() {
    let size = SIZES[0];
    let theme = Theme::default();
    let mut model = fresh(size, theme);
    keys(&mut model, "user@test.com\t");
    press(&mut model, KeyCode::Tab);
    keys(&mut model, "secret");
    let shown = render(&draw(&model));
    assert!(!shown.contains("secret"));
    insta::assert_snapshot!("sign_in", shown);

    let mut model = live(size, theme);
    keys(&mut model, "?");
    insta::assert_snapshot!("help", render(&draw(&model)));
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "/mic");
    insta::assert_snapshot!("search", render(&draw(&model)));
    press(&mut model, KeyCode::Esc);
    keys(&mut model, ":canc");
    insta::assert_snapshot!("palette", render(&draw(&model)));
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "F");
    insta::assert_snapshot!("confirm_flatten", render(&draw(&model)));
    press(&mut model, KeyCode::Esc);
    for (name, tab) in [("positions", Tab::Positions), ("fills", Tab::Fills), ("log", Tab::Log)] {
        model.tab = tab;
        insta::assert_snapshot!(format!("tab_{name}"), render(&draw(&model)));
    }
}

#[test]
fn the_states_that_a_trader_must_not_mistake() {
    let (size, theme) = (SIZES[0], Theme::default());
    let mut model = live(size, theme);
    keys(&mut model, "A");
    insta::assert_snapshot!("armed", render(&draw(&model)));
    let mut model = live(size, theme);
    model.read_only = true;
    insta::assert_snapshot!("read_only", render(&draw(&model)));
    let mut model = live(size, theme);
    model.replay = Some(fafnir_tui::model::Replay { held: true, speed_percent: 200 });
    insta::assert_snapshot!("replay", render(&draw(&model)));
    let mut model = live(size, theme);
    keys(&mut model, "a<= 1");
    press(&mut model, KeyCode::Enter);
    keys(&mut model, "a>= 231");
    press(&mut model, KeyCode::Enter);
    insta::assert_snapshot!("alert_rings", render(&draw(&model)));
    keys(&mut model, "a");
    keys(&mut model, "soon");
    press(&mut model, KeyCode::Enter);
    insta::assert_snapshot!("alert_refused", render(&draw(&model)));
    let mut model = fresh(size, theme);
    model.welcome = true;
    let who = fafnir_tui::model::Who { user_id: "u".into(), email: "user@test.com".into() };
    apply(&mut model, Event::SignedIn(who));
    insta::assert_snapshot!("welcome", render(&draw(&model)));
    for (key, ticket) in [('b', true), ('X', false), ('q', false), ('A', false), ('\u{7f}', false)] {
        let mut model = live(size, theme);
        model.overlay = Some(Overlay::Welcome);
        assert!(press(&mut model, KeyCode::Char(key)).is_empty());
        assert_eq!((&model.overlay, model.ticket.is_some()), (&None, ticket), "{key:?}");
        assert!(model.exit.is_none() && !model.is_armed());
    }
    let mut model = live(size, theme);
    model.keys = fafnir_tui::keys::KeyMap::parse(&["buy=space", "centre=C", "tab-orders=O"]).unwrap();
    insta::assert_snapshot!("keys_of_ones_own", render(&draw(&model)));
    let mut model = live(size, theme);
    model.columns = fafnir_tui::columns::Columns::parse(&["orders=state,note,price,qty,id"]).unwrap();
    insta::assert_snapshot!("columns_of_ones_own", render(&draw(&model)));
}

#[test]
fn an_escape_sequence_in_a_name_is_drawn_as_text() {
    let mut model = live(SIZES[0], Theme::default());
    apply(&mut model, Event::Instruments(vec![instrument("AAPL", "Ap\x1b[2Jple\u{202e}\u{7}", 2_298_300)]));
    // Where no position takes its place the name shows.
    model.holdings.positions.clear();
    model.who.email = "evil\x1b]0;title\x07@test.com".into();
    let buffer = draw(&model);
    for cell in buffer.content() {
        assert!(!cell.symbol().chars().any(|c| c.is_control() || c == '\u{202e}'), "{:?}", cell.symbol());
    }
    assert!(render(&buffer).contains("Ap?[2Jple??"));
}

#[test]
fn a_symbol_that_does_not_trade_continuously_says_what_it_does() {
    let mut model = live(SIZES[0], Theme::default());
    let first_line = |model: &Model| render(&draw(model)).lines().next().unwrap().to_owned();
    assert!(first_line(&model).contains("│ AAPL 231."));
    for (seq, state, words, said) in [
        (2, v1::TradingState::Auction, "AAPL  AUCTION  231.", "AAPL AUCTION: orders gather, nothing trades"),
        (3, v1::TradingState::Halted, "AAPL  HALTED  231.", "AAPL HALTED: only cancels are taken"),
        (4, v1::TradingState::Open, "│ AAPL 231.", "AAPL trades again"),
    ] {
        let image = v1::BookImage { state: state.into(), ..book(seq, START_US) };
        apply(&mut model, Event::Book { image, from_feed: true });
        assert!(first_line(&model).contains(words), "{}", first_line(&model));
        assert_eq!(model.message.as_ref().map(|m| m.text.as_str()), Some(said));
    }
}

#[test]
fn before_the_first_book_the_quote_says_whether_a_symbol_trades() {
    let mut model = signed_in(SIZES[0], Theme::default());
    let mut paused = quote("AAPL", 2_310_700, 2_298_300, 2);
    paused.set_state(v1::TradingState::Auction);
    apply(&mut model, Event::Quotes(vec![paused]));
    let shown = render(&draw(&model));
    assert!(shown.lines().next().unwrap().contains("AAPL  AUCTION  231."), "{shown}");
}

fn in_state(size: (u16, u16), theme: Theme, change: impl Fn(&mut v1::BookImage)) -> Model {
    let mut model = live(size, theme);
    let mut image = book(2, START_US - 3_000);
    change(&mut image);
    apply(&mut model, Event::Book { image, from_feed: true });
    model
}

#[test]
fn a_call_shows_what_the_auction_would_give_and_a_halt_that_only_cancels_are_taken() {
    snapshots("auction", |size, theme| {
        in_state(size, theme, |image| {
            image.set_state(v1::TradingState::Auction);
            image.indicative_price_e4 = 2_310_900;
            image.indicative_quantity_e4 = 12_400_000;
            image.indicative_surplus_e4 = -3_100_000;
        })
    });
    snapshots("halted", |size, theme| {
        in_state(size, theme, |image| image.set_state(v1::TradingState::Halted))
    });
}

#[test]
fn every_size_can_be_drawn() {
    let full = live((120, 40), Theme::default());
    let mut with_ticket = full.clone();
    keys(&mut with_ticket, "b");
    let mut with_help = full.clone();
    keys(&mut with_help, "?");
    let sign_in = fresh((1, 1), Theme::default());
    for base in [full, with_ticket, with_help, sign_in] {
        for width in (0..=200).step_by(23).chain([59, 60, 61, 79, 80, 109, 110, 139, 140]) {
            for height in (0..=70).step_by(13).chain([15, 16, 17, 29, 30, 31]) {
                let mut model = base.clone();
                fafnir_tui::update::update(
                    &mut model,
                    fafnir_tui::msg::Msg::Input(crossterm::event::Event::Resize(width, height)),
                );
                draw(&model);
            }
        }
    }
}
