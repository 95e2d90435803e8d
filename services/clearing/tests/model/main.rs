//! The core against a model of the whole exchange that was written from the rules, command by command; and what its
//! facts must keep to whatever happens.
//!
//! A failing run names its seed: `FAFNIR_TEST_SEED=N` repeats it, `FAFNIR_TEST_COMMANDS=N` sets the number of commands.

#![expect(clippy::expect_used, reason = "a test target")]

#[expect(dead_code, clippy::unwrap_used, reason = "the book's own reference, which its tests use whole")]
#[path = "../../../matching/tests/common/reference.rs"]
mod book;
mod exchange;
mod generate;
mod limits;
mod observed;
mod ratio;
mod rng;
mod told;

use exchange::{Exchange, name};
use fafnir_clearing::{
    State,
    account::{Asset, House},
    account_after,
    command::{Command, Instruction},
    fact::{Answer, Fact, Known, OrderAfter, What},
    order::Order,
    step,
};
use fafnir_matching::Slot;
use generate::{Generator, Used};
use observed::Observed;
use std::collections::{BTreeMap, VecDeque};
use told::Told;

const COMMANDS: u64 = 40_000;
const SEEDS: u64 = 4;
/// Commands between two looks at everything.
const WHOLE_EVERY: u64 = 500;

/// The names of commands that are remembered.
#[derive(Default)]
struct Names {
    order: VecDeque<u128>,
    known: BTreeMap<u128, (u128, Known)>,
    /// Position of the last one that was forgotten.
    forgotten: u64,
}

enum Name {
    New,
    Known(Known),
    Reused,
    Behind,
}

impl Names {
    fn judge(&self, command: &Command) -> Name {
        let Some(id) = &command.id else { return Name::New };
        match self.known.get(&id.hash) {
            Some((payload, known)) if *payload == id.payload => Name::Known(*known),
            Some(_) => Name::Reused,
            None if id.looked_until.is_some_and(|until| until < self.forgotten) => Name::Behind,
            None => Name::New,
        }
    }

    fn put(&mut self, hash: u128, payload: u128, known: Known) {
        self.order.push_back(hash);
        self.known.insert(hash, (payload, known));
    }

    fn forget(&mut self, most: u32) {
        while self.order.len() > most as usize {
            let hash = self.order.pop_front().expect("not empty");
            let (_, known) = self.known.remove(&hash).expect("known");
            self.forgotten = self.forgotten.max(known.at);
        }
    }
}

/// The core three times: as it is, from the first command on, and by way of snapshots.
struct Cores {
    core: State,
    genesis: State,
    restored: State,
}

/// Where an order lives in a book is not part of what happened.
fn without_slots(facts: &mut [Fact]) {
    let none = |after: &mut OrderAfter| after.order.slot = Slot::NONE;
    for fact in facts {
        match &mut fact.what {
            What::Order(order) => {
                none(&mut order.order);
                order.other.iter_mut().for_each(none);
            }
            What::Executed(trade) => {
                none(&mut trade.taker);
                none(&mut trade.maker);
            }
            _ => {}
        }
    }
}

fn without_slot(mut answer: Answer) -> Answer {
    if let Answer::Done(done) = &mut answer
        && let Some(order) = &mut done.order
    {
        order.slot = Slot::NONE;
    }
    answer
}

impl Cores {
    fn new() -> Self {
        Self { core: State::new(), genesis: State::new(), restored: State::new() }
    }

    fn step(&mut self, seq: u64, now: i64, command: &Command) -> (Vec<Fact>, Answer) {
        let run = |state: &mut State| {
            let mut facts = Vec::new();
            let answer = without_slot(step(state, seq, now, command, &mut facts));
            without_slots(&mut facts);
            (facts, answer)
        };
        let told = run(&mut self.core);
        assert_eq!(run(&mut self.genesis), told, "from genesis");
        assert_eq!(run(&mut self.restored), told, "by way of a snapshot");
        told
    }

    /// The third core goes on from the first one's snapshot.
    fn restore(&mut self) {
        let bytes = encoded(&self.core);
        self.restored = State::decode(&bytes).expect("an own snapshot");
        assert_eq!(encoded(&self.restored), bytes, "a snapshot of what a snapshot gave");
        assert_eq!(encoded(&self.genesis), bytes, "a snapshot of what the commands gave");
    }
}

fn encoded(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    bytes
}

struct Run {
    cores: Cores,
    model: Exchange,
    observed: Observed,
    names: Names,
    generator: Generator,
    seq: u64,
    counts: BTreeMap<String, u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            cores: Cores::new(),
            model: Exchange::new(),
            observed: Observed::default(),
            names: Names::default(),
            generator: Generator::new(seed),
            seq: 0,
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Gives a command to everybody and compares. `Err`: where they differ.
    fn command(&mut self, command: &Command) -> Result<(), String> {
        self.seq += 1;
        let now = self.generator.now;
        let verdict = self.model.verdict(now, command);
        let judged = self.names.judge(command);
        let (facts, answer) = self.cores.step(self.seq, now, command);
        let refused = match &answer {
            Answer::Refused(refusal) => Some(name(refusal)),
            _ => None,
        };
        let report = |wrong: String| format!("{wrong}\nanswer {answer:#?}\nfacts {facts:#?}");
        self.observed.take(now, command, &facts).map_err(&report)?;
        let kind: String =
            format!("{:?}", command.instruction).chars().take_while(char::is_ascii_alphanumeric).collect();
        let closed = self.model.users.get(&command.user).is_some_and(|u| u.closed);
        let mut due = verdict.due;
        match judged {
            Name::Known(known) => {
                self.count(format!("{kind}: known"));
                let right =
                    answer == Answer::Known(known) || (closed && refused.as_deref() == Some("UserClosed"));
                return if right && facts.is_empty() {
                    Ok(())
                } else {
                    Err(report(format!("it is known: {known:?}")))
                };
            }
            Name::Reused => due.push("KeyReused"),
            Name::Behind => due.push("ProjectionBehind"),
            Name::New => {}
        }
        if let Some(why) = refused {
            self.count(format!("{kind}: {why}"));
            if !facts.is_empty() {
                return Err(report("a refusal changes nothing".to_owned()));
            }
            let right = due.iter().chain(&verdict.may).any(|name| *name == why);
            let by_book = due.is_empty()
                && why == "Book"
                && matches!(command.instruction, Instruction::Replace(_))
                && self.model.perform(now, command, &answer).is_err();
            return if right || by_book {
                Ok(())
            } else {
                Err(report(format!("the model refuses by {due:?}")))
            };
        }
        self.count(format!("{kind}: done"));
        let paused = |f: &Fact| matches!(f.what, What::StateChanged { paused: true, .. });
        if matches!(command.instruction, Instruction::Reopen { .. }) && facts.len() == 1 && paused(&facts[0])
        {
            self.count("pause that lasts once more".to_owned());
        }
        if !due.is_empty() {
            return Err(report(format!("the model refuses by {due:?}")));
        }
        self.model.pauses_at = facts.iter().filter(|f| paused(f)).map(|f| f.position).collect();
        let performed = self.model.perform(now, command, &answer);
        self.compare_told(command, &facts).map_err(&report)?;
        performed.map_err(|wrong| report(wrong.to_owned()))?;
        self.compare_balances(false).map_err(&report)?;
        self.remember(command, &facts, &answer).map_err(&report)
    }

    fn remember(&mut self, command: &Command, facts: &[Fact], answer: &Answer) -> Result<(), String> {
        let Answer::Done(done) = answer else { return Ok(()) };
        if let (Some(id), Some(first)) = (&command.id, facts.first()) {
            if done.known.at != first.position {
                return Err("the answer names the first fact".to_owned());
            }
            if first.named.as_ref().map(|named| named.1) != Some(done.known) {
                return Err("the first fact says what a repetition is answered".to_owned());
            }
            self.names.put(id.hash, id.payload, done.known);
            self.generator.used.push(Used { command: command.clone(), at: first.position });
        }
        self.names.forget(self.model.rules.recent_ids);
        Ok(())
    }

    fn compare_told(&mut self, command: &Command, facts: &[Fact]) -> Result<(), String> {
        let markets = &self.observed.markets;
        let mut theirs: Vec<Told> =
            facts.iter().filter_map(|fact| Told::of(fact, |number| markets[&number])).collect();
        let mut ours = self.model.told.clone();
        if matches!(
            command.instruction,
            Instruction::CancelAll { .. }
                | Instruction::CancelGroup { .. }
                | Instruction::CloseAccount { .. }
                | Instruction::CloseUser
                | Instruction::Flatten(_)
        ) {
            theirs.sort_by_key(Told::rank);
            ours.sort_by_key(Told::rank);
        }
        for told in &theirs {
            let kind = match told {
                Told::Order { kind, order, .. } => {
                    let end = order.end.as_ref().map_or(String::new(), |end| format!(" {end:?}"));
                    format!("fact {kind:?}{end}")
                }
                Told::Trade { aggressor: None, .. } => "fact auction trade".to_owned(),
                Told::Trade { .. } => "fact trade".to_owned(),
                Told::State { paused, state, .. } => format!("fact {state:?} paused {paused}"),
            };
            *self.counts.entry(kind).or_default() += 1;
        }
        if ours == theirs {
            return Ok(());
        }
        let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        Err(format!("told differs at {at}:\nmodel {:#?}\ncore {:#?}", ours.get(at), theirs.get(at)))
    }

    fn compare_balances(&self, all: bool) -> Result<(), String> {
        let (model, seen) = (&self.model, &self.observed);
        for (&(house, asset), &sum) in &seen.house {
            let ours = match asset {
                Asset::Cash(currency) => model.house_cash.get(&(house, currency)).copied().unwrap_or(0),
                Asset::Shares(_) if house != House::Issuer => 0,
                Asset::Shares(number) => model.house_shares.get(&seen.markets[&number]).copied().unwrap_or(0),
            };
            if ours != sum {
                return Err(format!("{house:?} has {sum} of {asset:?}, the model {ours}"));
            }
        }
        let accounts: Vec<_> = if all {
            model.accounts.keys().copied().collect()
        } else {
            model.touched.iter().copied().filter(|id| model.accounts.contains_key(id)).collect()
        };
        if model.accounts.len() != seen.accounts.len() {
            return Err(format!("{} accounts, the model {}", seen.accounts.len(), model.accounts.len()));
        }
        for id in accounts {
            let ours = &model.accounts[&id];
            let (_, theirs) = seen.accounts.get(&id).ok_or("an account that no fact told")?;
            let cash = (i128::from(theirs.cash.posted), i128::from(theirs.cash.held));
            let expected = (ours.cash, model.cash_held(id));
            if cash != expected {
                return Err(format!("cash of {id} is {cash:?}, in the model {expected:?}"));
            }
            for (&number, &market) in &seen.markets {
                let shares = seen.holdings.get(&(id, number)).copied().unwrap_or_default();
                let theirs = [shares.posted, shares.held, shares.cost, shares.realized].map(i128::from);
                let (held, shares) =
                    (model.shares_held(id, market), ours.shares.get(&market).copied().unwrap_or_default());
                let expected = [shares.quantity, held, shares.cost, shares.realized];
                if theirs != expected {
                    return Err(format!("shares in {market} of {id}: {theirs:?}, in the model {expected:?}"));
                }
            }
        }
        Ok(())
    }

    /// Everything: the model, the facts' sums, the core's own words and its snapshot.
    fn whole(&mut self) -> Result<(), String> {
        self.compare_balances(true)?;
        let core = &self.cores.core;
        if core.position() != self.observed.position {
            return Err(format!("the core stands at {}", core.position()));
        }
        let house: BTreeMap<(House, Asset), i128> = core.house().map(|(h, a, sum)| ((h, a), sum)).collect();
        for (key, sum) in &self.observed.house {
            if house.get(key).copied().unwrap_or(0) != *sum {
                return Err(format!("the core has {:?} of {key:?}, its facts {sum}", house.get(key)));
            }
        }
        let plain = |order: &Order| Order { slot: Slot::NONE, ..order.clone() };
        let mut orders: Vec<Order> = core.orders().map(plain).collect();
        orders.sort_by_key(|order| order.id);
        let told: Vec<Order> = self.observed.orders.values().cloned().collect();
        if orders != told {
            return Err("the core's open orders are not those that its facts told".to_owned());
        }
        let open = self.model.orders.len();
        if open != orders.len() || core.open_orders() != open {
            return Err(format!("{} open orders, in the model {open}", core.open_orders()));
        }
        for user in core.users() {
            let told = self.observed.users.get(&user.id).copied().unwrap_or(0);
            if user.touched != told {
                return Err(format!("{user:?} was touched last at {told}"));
            }
            let open = self.model.users.get(&user.id).map_or(0, |u| u.orders.len());
            if user.open_orders as usize != open {
                return Err(format!("{user:?} has {open} open orders in the model"));
            }
        }
        let accounts = core.accounts_after(uuid::Uuid::nil(), usize::MAX);
        if accounts.len() != self.observed.accounts.len() || core.open_accounts() != accounts.len() {
            return Err("the core's open accounts are not those that its facts told".to_owned());
        }
        for account in accounts {
            let (_, told) = self.observed.accounts.get(&account.id).ok_or("an account that no fact told")?;
            if account_after(account, false) != *told {
                return Err(format!("{account:?} is not as told: {told:?}"));
            }
            for (market, holding) in &account.holdings {
                if self.observed.holdings.get(&(account.id, *market)) != Some(holding) {
                    return Err(format!("{holding:?} of {account:?} is not as told"));
                }
            }
        }
        self.cores.restore();
        Ok(())
    }

    fn go(&mut self, commands: u64) -> Result<(), String> {
        for command in self.generator.beginning() {
            self.command(&command).map_err(|wrong| format!("{command:#?}\n{wrong}"))?;
        }
        for step in 0..commands {
            let command = self.generator.command(&self.model, self.observed.position);
            self.command(&command).map_err(|wrong| format!("step {step} {command:#?}\n{wrong}"))?;
            if self.generator.rng.one_in(WHOLE_EVERY) {
                self.whole().map_err(|wrong| format!("after step {step} {command:#?}\n{wrong}"))?;
            }
        }
        self.whole()
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_core_does_what_the_rules_say() {
    let commands = number("FAFNIR_TEST_COMMANDS").unwrap_or(COMMANDS);
    let seeds = match number("FAFNIR_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + SEEDS,
    };
    let each = commands / (seeds.end - seeds.start);
    let mut counts = BTreeMap::<String, u64>::new();
    for seed in seeds {
        let mut run = Run::new(seed);
        if let Err(wrong) = run.go(each) {
            panic!("seed {seed}: {wrong}");
        }
        for (what, times) in run.counts {
            *counts.entry(what).or_default() += times;
        }
    }
    eprintln!("{counts:#?}");
    if number("FAFNIR_TEST_COMMANDS").is_none() && number("FAFNIR_TEST_SEED").is_none() {
        for (what, times_min) in [
            ("pause that lasts once more", 5),
            ("fact auction trade", 100),
            ("fact Expired Book(\"AUCTION_END\")", 50),
        ] {
            let times = counts.get(what).copied().unwrap_or(0);
            assert!(times >= times_min, "{what} came {times} times");
        }
    }
}
