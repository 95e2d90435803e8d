//! What a step costs: orders of many users around one price, and the state as bytes.
//!
//! `cargo bench -p fafnir-clearing`. Prints; asserts no time.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and stops at what must not be"
)]

use fafnir_clearing::{
    State,
    account::{Currency, Kind, MICROS},
    command::{Command, Endow, Instruction, Instrument, NewOrder},
    fact::{Fact, Sink},
    step,
    terms::Rules,
};
use fafnir_rules::{
    check::Terms,
    order::{SelfTrade, Side, TimeInForce, TradingState},
    symbol::Symbol,
};
use std::{hint::black_box, time::Instant};
use uuid::Uuid;

const USERS: u128 = 10_000;
const ORDERS: u128 = 1_000_000;
const RESTING: u128 = 100_000;

#[derive(Default)]
struct Count(u64);

impl Sink for Count {
    fn fact(&mut self, fact: Fact) {
        self.0 += 1;
        black_box(fact);
    }
}

struct Run {
    state: State,
    facts: Count,
    random: u64,
}

impl Run {
    fn next(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn step(&mut self, user: u128, instruction: Instruction) {
        let command =
            Command { user: Uuid::from_u128(user), agent: false, id: None, trace: None, instruction };
        let (seq, now) = (self.state.seq() + 1, self.state.time_us() + 1);
        black_box(step(&mut self.state, seq, now, &command, &mut self.facts));
    }

    fn cancel(&mut self, id: u128) {
        let order = Uuid::from_u128(id);
        if self.state.order(order).is_some() {
            self.step(0, Instruction::Cancel { order });
        }
    }

    fn order(&mut self, id: u128, symbol: &Symbol, spread: i64) {
        let user = 1 + u128::from(self.next(USERS as u64));
        let side = if self.next(2) == 0 { Side::Buy } else { Side::Sell };
        let away = i64::try_from(self.next(100)).unwrap_or(0) + spread;
        let price_e4 = 1_000_000 + 100 * if side == Side::Buy { -away } else { away };
        let new = NewOrder {
            order: Uuid::from_u128(id),
            account: None,
            symbol: symbol.clone(),
            side,
            terms: Terms::Limit { price_e4 },
            time: TimeInForce::Gtc,
            quantity_e4: 10_000 * (1 + i64::try_from(self.next(10)).unwrap_or(0)),
            notional: 0,
            display_e4: 0,
            post_only: false,
            stp: SelfTrade::CancelNewest,
            expires_us: 0,
        };
        self.step(user, Instruction::New(Box::new(new)));
    }
}

/// CPU time of this process so far, in clock ticks of 10 ms.
fn ticks() -> u128 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u128>().ok()).sum()
}

fn main() {
    let mut run = Run { state: State::new(), facts: Count::default(), random: 42 };
    let symbol = Symbol::parse("AAPL").expect("a symbol");
    let rules = Rules { opening: 0, open_orders_max: u32::MAX, ..Rules::default() };
    run.step(0, Instruction::SetRules(rules));
    run.step(0, Instruction::SetFees { maker_bp: 1, taker_bp: 2 });
    let listing = Instrument {
        symbol: symbol.clone(),
        version: 1,
        currency: Currency::Usd,
        tick_e4: 100,
        lot_e4: 10_000,
        state: TradingState::Open,
        previous_close_e4: 1_000_000,
        band_bps: 0,
    };
    run.step(0, Instruction::SetInstrument(Box::new(listing)));
    for user in 1..=USERS {
        let (account, kind, currency) = (Uuid::from_u128(user << 32), Kind::Investment, Currency::Usd);
        run.step(user, Instruction::OpenAccount { account, kind, currency, opening: false });
        run.step(
            0,
            Instruction::Endow(Endow {
                account,
                currency: None,
                amount: 10_000_000 * MICROS,
                symbol: Some(symbol.clone()),
                quantity_e4: 1_000_000_000,
                cost_price_e4: 1_000_000,
            }),
        );
    }
    for id in 0..RESTING {
        run.order(1 << 100 | id, &symbol, 60);
    }
    let (accounts, open) = (run.state.open_accounts(), run.state.open_orders());
    let (before, began) = (run.facts.0, ticks());
    for id in 0..ORDERS {
        run.order(2 << 100 | id, &symbol, -20);
        // The number of open orders stays what it is.
        if let Some(old) = id.checked_sub(RESTING / 2) {
            run.cancel(2 << 100 | old);
        }
    }
    let took = (ticks() - began) * 10_000_000;
    let facts = run.facts.0 - before;
    println!("{accounts} accounts, {open} open orders before");
    println!(
        "{ORDERS} orders and their cancels: {} ns of CPU each, {:.2} facts each",
        took / ORDERS,
        facts as f64 / ORDERS as f64
    );
    let mut bytes = Vec::new();
    let began = Instant::now();
    run.state.encode(&mut bytes);
    println!(
        "state as bytes: {} KiB in {:?}, {} open orders",
        bytes.len() / 1024,
        began.elapsed(),
        run.state.open_orders()
    );
    let began = Instant::now();
    black_box(State::decode(&bytes)).expect("its own bytes");
    println!("and back in {:?}", began.elapsed());
}
