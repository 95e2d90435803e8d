//! Measures a frame: one update with a new book, a trade and a quote, and one drawing of the whole screen.
//!
//! `cargo run --release -p fafnir-tui --example frames [FRAMES]`; with 350000 a million events of each size, and what
//! memory is resident then.

use fafnir_proto::v1::{self, Side, TradingState};
use fafnir_tui::{
    Theme,
    model::{
        Ids, Model, Who,
        feed::{Link, Wire},
    },
    msg::{Event, Msg},
    update::update,
    view::view,
};
use ratatui::{Terminal, backend::TestBackend};
use std::{
    io::Write as _,
    time::{Duration, Instant},
};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (250, 70)];
const FRAMES_DEFAULT: usize = 2_000;
const START_US: i64 = 1_795_349_070_000_000;

fn book(seq: u64) -> v1::BookImage {
    let shift = (seq % 7) as i64 * 100;
    let levels = |side: i64| {
        let level = |i: i64| v1::Level {
            price_e4: 2_310_700 + shift + side * (i + 1) * 100,
            quantity_e4: ((seq as i64 * 31 + i * 17) % 500 + 1) * 10_000,
            orders: 3,
        };
        (0..50).map(level).collect()
    };
    v1::BookImage {
        symbol: "AAPL".into(),
        epoch: 1,
        book_seq: seq,
        bids: levels(-1),
        asks: levels(1),
        last_price_e4: 2_310_700 + shift,
        last_quantity_e4: 10_000,
        time_us: START_US,
        ..Default::default()
    }
}

fn trade(trade_no: u64) -> v1::Trade {
    v1::Trade {
        symbol: "AAPL".into(),
        trade_no,
        exec_id: format!("AAPL:{trade_no}"),
        price_e4: 2_310_700 + (trade_no % 9) as i64 * 100,
        quantity_e4: 10_000,
        aggressor: Side::Buy.into(),
        time_us: START_US + trade_no as i64 * 33_000,
    }
}

fn market(size: (u16, u16)) -> Model {
    let mut model = Model::new(START_US, size, Theme::default(), Ids::new("frames"));
    let symbols = ["AAPL", "AMZN", "GOOGL", "META", "MSFT", "NFLX", "NVDA", "TSLA"];
    let instrument = |symbol: &&str| v1::Instrument {
        symbol: (*symbol).into(),
        name: "A company".into(),
        currency: "USD".into(),
        tick_e4: 100,
        lot_e4: 10_000,
        state: TradingState::Open.into(),
        previous_close_e4: 2_300_000,
        ..Default::default()
    };
    for event in [
        Event::Link(Wire::Grpc, Link::Up, String::new()),
        Event::Link(Wire::Nats, Link::Up, String::new()),
        Event::SignedIn(Who { user_id: "u".into(), email: "user@test.com".into() }),
        Event::Instruments(symbols.iter().map(instrument).collect()),
        Event::Watchlist(symbols.map(str::to_owned).to_vec()),
        Event::Trades { symbol: "AAPL".into(), trades: (1..=600).map(trade).collect(), after: Some(0) },
    ] {
        update(&mut model, Msg::Backend(event));
    }
    model
}

/// Where the system says so.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "an unknown amount".to_owned(), |line| line.trim().to_owned())
}

fn main() -> anyhow::Result<()> {
    let frames = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(FRAMES_DEFAULT);
    for size in SIZES {
        let mut model = market(size);
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1))?;
        let mut times: Vec<Duration> = Vec::with_capacity(frames);
        for frame in 0..frames as u64 {
            let quote = v1::Quote {
                symbol: "MSFT".into(),
                price_e4: 4_100_000 + frame as i64 % 50 * 100,
                version: frame,
                ..Default::default()
            };
            let events = [
                Event::Book { image: book(frame + 1), from_feed: true },
                Event::Trades { symbol: "AAPL".into(), trades: vec![trade(601 + frame)], after: None },
                Event::Quotes(vec![quote]),
            ];
            let started = Instant::now();
            update(&mut model, Msg::Clock(START_US + frame as i64 * 33_000));
            for event in events {
                update(&mut model, Msg::Backend(event));
            }
            terminal.draw(|f| view(&model, f))?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).saturating_sub(1)].as_micros();
        let (w, h) = size;
        writeln!(
            std::io::stdout(),
            "{w}x{h}: p50 {} us, p99 {} us, max {} us over {frames} frames, {} events; {} resident",
            at(50),
            at(99),
            at(100),
            frames * 3,
            resident()
        )?;
    }
    Ok(())
}
