//! The core on a bench: commands as doors send them in, facts as everybody gets them out, nothing in between.

use super::support::*;
use crate::{
    message::{self, Names},
    recovery::names_of,
    replay::hash,
    request,
};
use fafnir_clearing::{
    State,
    command::{Command, Instruction},
    fact::{Answer, Fact},
    market::Market,
    step,
};
use fafnir_proto::v1::{self, FactKind, command::What};
use fafnir_rules::symbol::Symbol;
use uuid::Uuid;

/// Users who have an account with cash and shares.
const TRADERS: u64 = 9;

pub struct Bench {
    pub state: State,
    pub time_us: i64,
    names: Names,
}

impl Bench {
    /// A listing of AAPL, and users who can buy and sell.
    pub fn new(listing: What) -> Self {
        let mut bench = Self { state: State::new(), time_us: START_US, names: Names::default() };
        bench.system(listing);
        for user in 1..=TRADERS {
            bench.of(user, open_account(user, false));
            bench.of(user, endow(user, "AAPL", 10_000));
            let cash = v1::EndowCommand {
                account_id: account_id(user).to_string(),
                amount_micros: 100_000_000_000_000,
                ..Default::default()
            };
            bench.of(user, What::Endow(cash));
        }
        bench
    }

    /// Steps a command; also from a restored state: it is the same exchange.
    pub fn step(&mut self, command: &Command) -> (Answer, Vec<v1::Fact>) {
        self.time_us += 1;
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        let mut restored = State::decode(&bytes).unwrap();
        let seq = self.state.seq() + 1;
        let (mut facts, mut again): (Vec<Fact>, Vec<Fact>) = (Vec::new(), Vec::new());
        step(&mut restored, seq, self.time_us, command, &mut again);
        let answer = step(&mut self.state, seq, self.time_us, command, &mut facts);
        assert_eq!(hash(&restored), hash(&self.state));
        self.names = names_of(&self.state);
        let told = facts.iter().map(|f| message::fact(&self.names, f)).collect();
        (answer, told)
    }

    fn told(&mut self, command: v1::Command) -> Vec<v1::Fact> {
        let command = request::parse(&command).unwrap();
        self.step(&command).1
    }

    pub fn of(&mut self, user: u64, what: What) -> Vec<v1::Fact> {
        self.told(v1::Command { user_id: user_id(user).to_string(), what: Some(what), ..Default::default() })
    }

    pub fn system(&mut self, what: What) -> Vec<v1::Fact> {
        self.told(v1::Command { what: Some(what), ..Default::default() })
    }

    /// A command of the engine's own clock.
    pub fn own(&mut self, instruction: Instruction) -> Vec<v1::Fact> {
        let command = Command { user: Uuid::nil(), agent: false, id: None, trace: None, instruction };
        self.step(&command).1
    }

    /// The code with which a command is refused; nothing happens.
    pub fn refused(&mut self, user: u64, what: What) -> String {
        let command =
            v1::Command { user_id: user_id(user).to_string(), what: Some(what), ..Default::default() };
        let (answer, facts) = self.step(&request::parse(&command).unwrap());
        assert!(facts.is_empty(), "{facts:?}");
        match answer {
            Answer::Refused(refused) => {
                crate::refusal::of(&refused, request::Scope::Order).reason.as_str().to_owned()
            }
            other => panic!("{other:?}"),
        }
    }

    /// A limit order of the user with its number.
    pub fn limit(&mut self, order: u64, side: v1::Side, shares: i64, cents: i64) -> Vec<v1::Fact> {
        self.of(order, limit(order, "AAPL", side, shares, cents))
    }

    pub fn state_to(&mut self, state: v1::TradingState) -> Vec<v1::Fact> {
        let set = v1::SetStateCommand { symbol: "AAPL".into(), state: state.into(), reason: String::new() };
        self.system(What::SetState(set))
    }

    /// Waits for the end of the pause, if there is one, and reopens.
    pub fn reopen(&mut self) -> Vec<v1::Fact> {
        if let Some(pause) = self.market().pause() {
            // A step takes a microsecond.
            self.time_us = pause.due_us - 1;
        }
        self.own_reopen()
    }

    pub fn own_reopen(&mut self) -> Vec<v1::Fact> {
        self.own(Instruction::Reopen { symbol: Symbol::parse("AAPL").unwrap() })
    }

    pub fn market(&self) -> &Market {
        self.state.market(&Symbol::parse("AAPL").unwrap()).unwrap()
    }
}

pub fn kinds(facts: &[v1::Fact]) -> Vec<FactKind> {
    facts.iter().map(v1::Fact::kind).collect()
}

/// AAPL with a previous close of 100.00 and a band, as its owner has it now.
pub fn banded(version: u64, previous_close_e4: i64, band_bps: u32) -> What {
    let mut what = listing("AAPL");
    if let What::SetInstrument(set) = &mut what
        && let Some(instrument) = &mut set.instrument
    {
        (instrument.version, instrument.previous_close_e4) = (version, previous_close_e4);
        instrument.volatility_band_bps = band_bps;
    }
    what
}

/// An order that is changed before it is placed.
pub fn order(order: u64, side: v1::Side, shares: i64, change: impl FnOnce(&mut v1::PlaceCommand)) -> What {
    let mut what = limit(order, "AAPL", side, shares, 0);
    if let What::Place(place) = &mut what {
        change(place);
    }
    what
}

/// A MARKET order.
pub fn market(number: u64, side: v1::Side, shares: i64) -> What {
    order(number, side, shares, |place| {
        place.set_type(v1::OrderType::Market);
        place.set_time_in_force(v1::TimeInForce::Ioc);
    })
}
