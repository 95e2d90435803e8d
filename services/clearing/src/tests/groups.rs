//! Groups as readable scenarios, `groups.txt`: a sentence, what is done (`B` places the group, `A` trades with it), and the
//! group's orders after it with what is held for them. `FAFNIR_BLESS=1` writes what comes out, to be reviewed.

use super::*;
use crate::{command::NewGroup, fact::OrderAfter, group::Leg};
use fafnir_rules::{
    order::{GroupKind, TimeInForce},
    price::Trail,
};
use std::fmt::Write as _;

const SCENARIOS_MIN: usize = 60;
const GROUP: u128 = 0x60;
const EXPIRES_IN_US: i64 = 1_000_000;
/// Entry, target, stop.
const LEGS: [(&str, u128); 3] = [("entry", 0xE), ("target", 0xF), ("stop", 0x10)];

struct Desk {
    e: Exchange,
    /// Why the last command was refused.
    refused: String,
}

impl Desk {
    fn new() -> Self {
        Self { e: Exchange::new(), refused: String::new() }
    }

    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).map_or(0, |word| word.parse::<i64>().unwrap());
        let leg = |at: usize| Uuid::from_u128(LEGS.iter().find(|leg| leg.0 == words[at]).unwrap().1);
        let instruction = match words[0] {
            "A" | "B" if words[1] == "stop" => {
                let (side, terms) =
                    (Side::parse(words[2]).unwrap(), Terms::Stop { stop_e4: number(4) * 10_000 });
                let new = self.e.new_order("AAPL", side, number(3), terms);
                self.e.done(if words[0] == "A" { A } else { B }, Instruction::New(Box::new(new)));
                return;
            }
            "A" | "B" => {
                let side = Side::parse(words[1]).unwrap();
                let who = if words[0] == "A" { A } else { B };
                self.e.place(who, side, number(2), number(3));
                return;
            }
            "shares" => return self.e.endow(B, "AAPL", number(1)),
            "bracket" | "oto" | "oco" => Instruction::NewGroup(Box::new(self.group(&words))),
            "cancel" if words[1] == "group" => Instruction::CancelGroup { group: Uuid::from_u128(GROUP) },
            "cancel" => Instruction::Cancel { order: leg(1) },
            "cancel-all" => Instruction::CancelAll { symbol: None },
            "flatten" => {
                let (symbol, order) = (symbol("AAPL"), Uuid::from_u128(0x99));
                Instruction::Flatten(Flatten { account: None, symbol, order })
            }
            "close" => Instruction::CloseAccount { account: account(B) },
            "replace" => {
                let mut change = Replace {
                    order: leg(1),
                    quantity_e4: 0,
                    price_e4: 0,
                    stop_e4: 0,
                    trail: None,
                    version: 0,
                };
                match words[2] {
                    "qty" => change.quantity_e4 = number(3) * 10_000,
                    "price" => change.price_e4 = number(3) * 10_000,
                    "stop" => change.stop_e4 = number(3) * 10_000,
                    _ => change.trail = Some(Trail::AmountE4(number(3) * 10_000)),
                }
                Instruction::Replace(change)
            }
            "state" => {
                let state = TradingState::parse(words[1]).unwrap();
                self.e.system(Instruction::SetState { symbol: symbol("AAPL"), state });
                return;
            }
            "day-end" => {
                self.e.system(Instruction::DayEnd);
                return;
            }
            // Later than what expires.
            "expire" => {
                self.e.later(2 * EXPIRES_IN_US);
                self.e.system(Instruction::Expire);
                return;
            }
            "open-orders" => {
                let rules = Rules { opening: 0, open_orders_max: number(1) as u32, ..Rules::default() };
                self.e.system(Instruction::SetRules(rules));
                return;
            }
            other => panic!("{other}"),
        };
        let command = Command { user: user(B), agent: false, id: None, trace: None, instruction };
        if let Answer::Refused(refusal) = self.e.run(command) {
            self.refused = refusal.sentence();
        }
    }

    /// `bracket 10 100 target 110 stop 90`; `market` for the entry's price; `trail 5` for a stop; at the end `day` or `gtd`,
    /// of the entry, or of exits alone.
    fn group(&mut self, words: &[&str]) -> NewGroup {
        let kind = GroupKind::parse(words[0]).unwrap();
        let shares: i64 = words[1].parse().unwrap();
        let price = |word: &str| word.parse::<i64>().unwrap() * 10_000;
        let mut legs = Vec::new();
        let time = match words.last() {
            Some(&"day") => Some(TimeInForce::Day),
            Some(&"gtd") => Some(TimeInForce::Gtd),
            _ => None,
        };
        let mut add = |e: &mut Exchange, side, terms: Terms, id| {
            let mut new = e.new_order("AAPL", side, shares, terms);
            new.order = Uuid::from_u128(id);
            if let Some(time) = time
                && terms != Terms::Market
                && (side == Side::Buy || !kind.has_entry())
            {
                new.time = time;
                if time == TimeInForce::Gtd {
                    new.expires_us = e.state.time_us().max(HOUR_US) + EXPIRES_IN_US;
                }
            }
            legs.push(new);
        };
        let mut rest = &words[2..];
        if kind.has_entry() {
            let terms = match rest[0] {
                "market" => Terms::Market,
                word => Terms::Limit { price_e4: price(word) },
            };
            add(&mut self.e, Side::Buy, terms, LEGS[0].1);
            rest = &rest[1..];
        }
        for pair in rest.chunks_exact(2) {
            let value = price(pair[1]);
            match pair[0] {
                "target" => add(&mut self.e, Side::Sell, Terms::Limit { price_e4: value }, LEGS[1].1),
                "stop" => add(&mut self.e, Side::Sell, Terms::Stop { stop_e4: value }, LEGS[2].1),
                _ => {
                    let trail = Trail::AmountE4(value);
                    add(&mut self.e, Side::Sell, Terms::TrailingStop { trail }, LEGS[2].1);
                }
            }
        }
        NewGroup { group: Uuid::from_u128(GROUP), kind, legs }
    }

    /// The group's orders as the facts told them last, and what is held.
    fn picture(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, id) in LEGS {
            let told = |fact: &Fact| -> Vec<OrderAfter> {
                match &fact.what {
                    What::Order(o) => std::iter::once(&o.order).chain(&o.other).cloned().collect(),
                    What::Executed(t) => vec![t.taker.clone(), t.maker.clone()],
                    _ => Vec::new(),
                }
            };
            let mut all = self.e.facts.iter().flat_map(told).map(|after| after.order);
            let Some(order) = all.rfind(|order| order.id == Uuid::from_u128(id)) else { continue };
            let mut line = format!(
                "{name} {} {}/{}",
                order.state.name(),
                order.filled_e4 / 10_000,
                order.quantity_e4 / 10_000
            );
            if order.asleep {
                line.push_str(" asleep");
            }
            if order.leg == Leg::Exit && order.stop_e4 != 0 {
                write!(line, " stop {}", order.stop_e4 / 10_000).unwrap();
            }
            match &order.end {
                Some(End::Book(reason)) => write!(line, " {}", reason.as_str()).unwrap(),
                Some(End::Group) => line.push_str(" GROUP"),
                Some(End::AccountClosing) => line.push_str(" ACCOUNT_CLOSING"),
                Some(End::Refused(_)) => line.push_str(" refused"),
                None => {}
            }
            lines.push(line);
        }
        if let Some(account) = self.e.state.account(account(B)) {
            let holding = account.holdings.get(&0).copied().unwrap_or_default();
            let (shares, held) = (holding.posted / 10_000, holding.held / 10_000);
            lines.push(format!("shares {shares} held {held}, cash held {}", account.cash.held / MICROS));
        }
        if !self.refused.is_empty() {
            lines.push(format!("refused: {}", self.refused));
        }
        lines
    }
}

#[test]
fn every_scenario_of_groups_goes_as_it_is_written() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/groups.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let (mut out, mut wrong, mut titles) = (String::new(), String::new(), Vec::new());
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.lines().filter(|line| !line.starts_with('#'));
        let title = lines.next().unwrap();
        let (done, expected): (Vec<&str>, Vec<&str>) = lines.partition(|line| !line.starts_with("    = "));
        let mut desk = Desk::new();
        for line in &done {
            desk.run(line.trim());
        }
        let picture: Vec<String> = desk.picture().iter().map(|line| format!("    = {line}")).collect();
        if picture != expected {
            write!(wrong, "\n{title}\n{}\nnot\n{}\n", picture.join("\n"), expected.join("\n")).unwrap();
        }
        write!(out, "{title}\n{}\n{}\n\n", done.join("\n"), picture.join("\n")).unwrap();
        titles.push(title.to_owned());
    }
    if std::env::var_os("FAFNIR_BLESS").is_some() {
        std::fs::write(&path, out.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{wrong}");
    let count = titles.len();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), count, "every scenario has a sentence of its own");
    assert!(count >= SCENARIOS_MIN, "{count} scenarios");
}

/// A bracket in an account of another currency, whose rate moves while it lives: the order keeps that of its acceptance, and
/// nothing is held when it is over.
#[test]
fn a_group_in_another_currency_outlives_the_rate_that_it_was_placed_at() {
    let mut desk = Desk::new();
    let cad = account(0xCAD);
    let open = Instruction::OpenAccount {
        account: cad,
        kind: Kind::Investment,
        currency: Currency::Cad,
        opening: false,
    };
    desk.e.done(B, open);
    let deposit = Instruction::Deposit { account: cad, currency: Currency::Cad, amount: 10_000 * MICROS };
    desk.e.done(B, deposit);
    let mut group = desk.group(&"bracket 10 100 target 110 stop 90".split(' ').collect::<Vec<_>>());
    group.legs.iter_mut().for_each(|leg| leg.account = Some(cad));
    desk.e.done(B, Instruction::NewGroup(Box::new(group)));
    let cash = |desk: &Desk| desk.e.state.account(cad).unwrap().cash;
    let (at_first, later) = (1_370_000, 1_500_000);
    assert_eq!(cash(&desk).held, 1_000 * at_first);
    desk.run("A sell 4 100");
    desk.e.system(Instruction::SetRate { usd_cad: later });
    desk.run("A sell 6 100");
    desk.run("A buy 3 110");
    assert_eq!((cash(&desk).posted, cash(&desk).held), (10_000 * MICROS - (1_000 - 330) * at_first, 0));
    assert_eq!(desk.e.state.account(cad).unwrap().holdings[&0].held, 70_000);
    // What is left goes by the stop, at the rate that the exit came with too.
    for line in ["A buy 8 89", "B buy 1 90", "A sell 1 90"] {
        desk.run(line);
    }
    assert_eq!(cash(&desk).posted, 10_000 * MICROS - (1_000 - 330 - 7 * 89) * at_first);
    assert!(desk.e.state.account(cad).unwrap().holdings.is_empty());
    assert!(desk.e.state.group(Uuid::from_u128(GROUP)).is_none());
}
