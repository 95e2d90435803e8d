//! A made-up exchange for the tests: instruments, a book, a user, built from fixed numbers.

use crossterm::event::{Event as InputEvent, KeyCode, KeyEvent, KeyModifiers};
use fafnir_proto::v1::{self, AccountType, OrderState, OrderType, Side, TimeInForce};
use fafnir_tui::{
    Theme,
    model::{
        Ids, Model, Who,
        feed::{Link, Wire},
    },
    msg::{Cmd, Event, Msg},
    update::update,
};

/// 2026-11-22 12:04:30 UTC.
pub const START_US: i64 = 1_795_349_070_000_000;
pub const ACCOUNT: &str = "11111111-1111-4111-8111-111111111111";

pub fn apply(model: &mut Model, event: Event) -> Vec<Cmd> {
    update(model, Msg::Backend(event))
}

pub fn press(model: &mut Model, code: KeyCode) -> Vec<Cmd> {
    update(model, Msg::Input(InputEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))))
}

/// Types a text key by key.
pub fn keys(model: &mut Model, text: &str) -> Vec<Cmd> {
    text.chars().flat_map(|c| press(model, KeyCode::Char(c))).collect()
}

pub fn at(model: &mut Model, seconds_after_start: i64) -> Vec<Cmd> {
    update(model, Msg::Clock(START_US + seconds_after_start * 1_000_000))
}

pub fn instrument(symbol: &str, name: &str, close_e4: i64) -> v1::Instrument {
    v1::Instrument {
        symbol: symbol.into(),
        name: name.into(),
        exchange: "NASDAQ".into(),
        currency: "USD".into(),
        tick_e4: 100,
        lot_e4: 10_000,
        state: v1::TradingState::Open.into(),
        previous_close_e4: close_e4,
        r#type: v1::InstrumentType::Equity.into(),
        ..Default::default()
    }
}

pub fn quote(symbol: &str, price_e4: i64, close_e4: i64, version: u64) -> v1::Quote {
    v1::Quote {
        symbol: symbol.into(),
        currency: "USD".into(),
        price_e4,
        bid_e4: price_e4,
        ask_e4: price_e4.saturating_add(100),
        previous_close_e4: close_e4,
        version,
        ..Default::default()
    }
}

/// Twenty levels on each side of 231.07 / 231.08.
pub fn book(book_seq: u64, time_us: i64) -> v1::BookImage {
    let level = |side: i64, i: i64| v1::Level {
        price_e4: if side > 0 { 2_310_800 + 100 * i } else { 2_310_700 - 100 * i },
        quantity_e4: (22 + i * 17 * (3 + side) % 391) * 10_000,
        orders: 3,
    };
    v1::BookImage {
        symbol: "AAPL".into(),
        epoch: 1,
        book_seq,
        bids: (0..20).map(|i| level(-1, i)).collect(),
        asks: (0..20).map(|i| level(1, i)).collect(),
        last_price_e4: 2_310_700,
        last_quantity_e4: 30_000,
        last_trade_no: 40,
        time_us,
        state: v1::TradingState::Open.into(),
        ..Default::default()
    }
}

pub fn trade(trade_no: u64, price_e4: i64, shares: i64, aggressor: Side) -> v1::Trade {
    v1::Trade {
        symbol: "AAPL".into(),
        trade_no,
        exec_id: format!("AAPL:{}", trade_no * 3),
        price_e4,
        quantity_e4: shares * 10_000,
        aggressor: aggressor.into(),
        time_us: START_US - 60_000_000 + trade_no as i64 * 1_053_000,
    }
}

pub fn order(id: &str, side: Side, shares: i64, price_e4: i64, state: OrderState) -> v1::Order {
    v1::Order {
        id: format!("0197a8b0-0000-7000-8000-00000000{id}"),
        account_id: ACCOUNT.into(),
        symbol: "AAPL".into(),
        side: side.into(),
        r#type: OrderType::Limit.into(),
        time_in_force: TimeInForce::Gtc.into(),
        state: state.into(),
        quantity_e4: shares * 10_000,
        price_e4,
        currency: "USD".into(),
        version: 1,
        created_us: START_US - 30_000_000,
        updated_us: START_US - 30_000_000,
        ..Default::default()
    }
}

pub fn account(available_micros: i64) -> v1::Account {
    v1::Account {
        id: ACCOUNT.into(),
        r#type: AccountType::Investment.into(),
        currency: "USD".into(),
        balance_micros: available_micros + 3_000_000_000,
        held_micros: 3_000_000_000,
        available_micros,
        created_us: 1,
        updated_us: 1,
        ..Default::default()
    }
}

pub fn holding(symbol: &str, shares: i64, cost_micros: i64) -> v1::Holding {
    v1::Holding {
        account_id: ACCOUNT.into(),
        symbol: symbol.into(),
        quantity_e4: shares * 10_000,
        available_e4: shares * 10_000,
        cost_micros,
        avg_cost_micros: cost_micros / shares.max(1),
        currency: "USD".into(),
        updated_us: 1,
        ..Default::default()
    }
}

/// At the sign-in screen.
pub fn fresh(size: (u16, u16), theme: Theme) -> Model {
    Model::new(START_US, size, theme, Ids::new("test"))
}

/// Signed in, connected, listed instruments, nothing else.
pub fn signed_in(size: (u16, u16), theme: Theme) -> Model {
    let mut model = fresh(size, theme);
    apply(&mut model, Event::Link(Wire::Grpc, Link::Up, String::new()));
    apply(&mut model, Event::Link(Wire::Nats, Link::Up, String::new()));
    apply(&mut model, Event::SignedIn(Who { user_id: "u".into(), email: "user@test.com".into() }));
    apply(
        &mut model,
        Event::Instruments(vec![
            instrument("AAPL", "Apple Inc.", 2_298_300),
            instrument("MSFT", "Microsoft Corporation", 4_128_400),
            instrument("NVDA", "NVIDIA Corporation", 1_438_500),
        ]),
    );
    apply(&mut model, Event::Watchlist(vec!["AAPL".into(), "MSFT".into(), "NVDA".into()]));
    model
}

/// A running market with cash, a position, two orders and a fill.
pub fn live(size: (u16, u16), theme: Theme) -> Model {
    let mut model = signed_in(size, theme);
    apply(&mut model, Event::Accounts(vec![account(88_410_000_000)]));
    apply(
        &mut model,
        Event::Positions(vec![holding("AAPL", 42, 9_600_000_000), holding("MSFT", 7, 2_900_000_000)]),
    );
    apply(
        &mut model,
        Event::Quotes(vec![
            quote("AAPL", 2_310_700, 2_298_300, 1),
            quote("MSFT", 4_112_000, 4_128_400, 1),
            quote("NVDA", 1_483_100, 1_438_500, 1),
        ]),
    );
    let trades = (1..=40)
        .map(|n| {
            let side = if n % 3 == 0 { Side::Sell } else { Side::Buy };
            trade(n, 2_310_000 + (n as i64 * 7 % 11) * 100, 1 + n as i64 * 13 % 120, side)
        })
        .collect();
    apply(&mut model, Event::Trades { symbol: "AAPL".into(), trades, after: Some(0) });
    let candles = (0..30)
        .map(|i: i64| {
            let open = 2_305_000 + (i * 37 % 23) * 300;
            let close = open + (i * 29 % 17 - 8) * 200;
            v1::Candle {
                symbol: "AAPL".into(),
                time_us: START_US - (30 - i) * 60_000_000,
                open_e4: open,
                close_e4: close,
                high_e4: open.max(close) + 700,
                low_e4: open.min(close) - 500,
                volume_e4: (i * 31 % 50) * 10_000,
            }
        })
        .collect();
    apply(&mut model, Event::Candles { symbol: "AAPL".into(), interval: "1m", candles });
    apply(&mut model, Event::Book { image: book(1, START_US - 3_000), from_feed: true });
    let mut partly = order("8f3a", Side::Buy, 5, 2_310_500, OrderState::PartiallyFilled);
    partly.filled_e4 = 20_000;
    partly.filled_notional_micros = 462_100_000;
    let far = order("11c2", Side::Buy, 5, 2_299_000, OrderState::New);
    apply(&mut model, Event::Orders { orders: vec![partly, far], open_complete: true });
    apply(
        &mut model,
        Event::Fills(vec![v1::Fill {
            exec_id: "AAPL:114".into(),
            order_id: "0197a8b0-0000-7000-8000-000000008f3a".into(),
            symbol: "AAPL".into(),
            side: Side::Buy.into(),
            price_e4: 2_310_500,
            quantity_e4: 20_000,
            maker: true,
            time_us: START_US - 20_000_000,
        }]),
    );
    model.links.round_trip(11_000);
    model
}
