//! The rules as readable tables: `tests/scenarios/*.txt`, one scenario per rule.
//!
//! A scenario is a sentence, then `given` (commands that make the book before), `when` (the commands of the rule),
//! `then` (their events) and `book` (the book after, best price first, orders in the order in which they trade:
//! `number(shown)`, `number(shown+hidden)`). `FAFNIR_BLESS=1` writes `then` and `book` as they are, to be reviewed.
#![expect(clippy::expect_used, reason = "a test target")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fafnir_matching::*;

const SCENARIOS_MIN: usize = 180;

#[derive(Default)]
struct Scenario {
    title: String,
    given: Vec<String>,
    when: Vec<String>,
    then: Vec<String>,
    book: Vec<String>,
}

fn parse(text: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut part = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if !line.starts_with(' ') {
            scenarios.push(Scenario { title: line.to_owned(), ..Scenario::default() });
            continue;
        }
        let (keyword, rest) = line.split_at(line.len().min(12));
        if !keyword.trim().is_empty() {
            keyword.trim().clone_into(&mut part);
        }
        let scenario = scenarios.last_mut().expect("a title comes first");
        let lines = match part.as_str() {
            "given" => &mut scenario.given,
            "when" => &mut scenario.when,
            "then" => &mut scenario.then,
            "book" => &mut scenario.book,
            other => panic!("{}: unknown part {other:?}", scenario.title),
        };
        lines.push(rest.trim().to_owned());
    }
    scenarios
}

/// A book with the slots of its open orders.
struct Desk {
    book: Book,
    slots: BTreeMap<OrderId, Slot>,
}

impl Desk {
    fn run(&mut self, line: &str) -> Vec<String> {
        let command = self.command(line).unwrap_or_else(|| panic!("not a command: {line:?}"));
        let mut events = Events::new();
        self.book.apply(&command, &mut events);
        self.slots = self.book.orders().map(|order| (order.id, order.slot)).collect();
        events.iter().map(|event| say(&event.what)).collect()
    }

    fn command(&self, line: &str) -> Option<Command> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let slot = |id: u64| self.slots.get(&id).copied().unwrap_or(Slot(9_999_999));
        Some(match *words.first()? {
            "buy" => Command::New(new_order(Side::Buy, &words)?),
            "sell" => Command::New(new_order(Side::Sell, &words)?),
            "cancel" => Command::Cancel { id: number(1)?, slot: slot(number(1)?) },
            "replace" => {
                let id = number(1)?;
                let mut replace = Replace::new(id, slot(id), 0, 0);
                for word in &words[2..] {
                    let (name, value) = word.split_once('=')?;
                    let value: u64 = value.parse().ok()?;
                    match name {
                        "qty" => replace.qty = value,
                        "price" => replace.price = value as u32,
                        "stop" => replace.stop = value as u32,
                        "show" => replace.display = value,
                        "as" => replace.new_id = value,
                        "trail" => replace.trail = value as u32,
                        _ => return None,
                    }
                }
                Command::Replace(replace)
            }
            "reduce" => Command::Reduce { id: number(1)?, slot: slot(number(1)?), qty: number(2)? },
            "cancel-all" => Command::CancelAll { owner: words.get(1).map_or(0, |name| owner(name)) },
            "expire" => Command::Expire { now: number(1)? },
            "day-end" => Command::DayEnd { now: number(1)? },
            "halt" => Command::Halt,
            "resume" => Command::Resume,
            "phase" => Command::SetPhase { phase: phase(words.get(1)?)? },
            "band" => Command::SetBand { reference: number(1)? as u32, bps: number(2)? as u32 },
            _ => return None,
        })
    }
}

const PHASES: [(&str, Phase); 5] = [
    ("continuous", Phase::Continuous),
    ("pre-open", Phase::PreOpen),
    ("auction", Phase::Auction),
    ("closed", Phase::Closed),
    ("closing", Phase::Closing),
];

fn phase(name: &str) -> Option<Phase> {
    PHASES.iter().find(|(word, _)| *word == name).map(|&(_, phase)| phase)
}

fn owner(name: &str) -> u32 {
    ["nobody", "ann", "bob", "cy", "dee", "eve"]
        .iter()
        .position(|known| *known == name)
        .expect("a known owner") as u32
}

fn new_order(side: Side, words: &[&str]) -> Option<NewOrder> {
    let id = words.get(1)?.parse().ok()?;
    let (qty, price) = words.get(2)?.split_once('@').unwrap_or((words.get(2)?, "0"));
    let mut order = NewOrder::limit(id, 0, side, qty.parse().ok()?, price.parse().ok()?);
    for word in &words[3..] {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let value = || value.parse::<u64>().ok();
        match name {
            "market" => order = NewOrder { kind: Kind::Market, tif: Tif::Ioc, ..order },
            "cap" => order.price = value()? as u32,
            "stop" => {
                order.kind = if order.price == 0 { Kind::Stop } else { Kind::StopLimit };
                order.stop = value()? as u32;
            }
            "from" => order.stop = value()? as u32,
            "trail" => order = NewOrder { kind: Kind::TrailingAmount, trail: value()? as u32, ..order },
            "trail-bps" => order = NewOrder { kind: Kind::TrailingPercent, trail: value()? as u32, ..order },
            "day" => order.tif = Tif::Day,
            "opg" => order.tif = Tif::Opg,
            "cls" => order.tif = Tif::Cls,
            "ioc" => order.tif = Tif::Ioc,
            "fok" => order.tif = Tif::Fok,
            "gtd" => order = NewOrder { tif: Tif::Gtd, expire: value()?, ..order },
            "post" => order.post_only = true,
            "show" => order.display = value()?,
            "newest" => order.self_trade = SelfTrade::CancelNewest,
            "oldest" => order.self_trade = SelfTrade::CancelOldest,
            "both" => order.self_trade = SelfTrade::CancelBoth,
            "decrement" => order.self_trade = SelfTrade::Decrement,
            name => order.owner = owner(name),
        }
    }
    Some(order)
}

fn say(what: &What) -> String {
    match *what {
        What::Accepted { id, held: false, .. } => format!("accepted {id}"),
        What::Accepted { id, .. } => format!("held {id}"),
        What::Rejected { id, reason } => format!("rejected {id} {}", reason.as_str()),
        What::Trade { maker, taker, qty, maker_open, taker_open, price, .. } => {
            format!("trade {maker}>{taker} {qty}@{price} left {maker_open}/{taker_open}")
        }
        What::Canceled { id, open, reason, .. } => format!("canceled {id} left {open} {}", reason.as_str()),
        What::CancelRejected { id, reason } => format!("cancel-rejected {id} {}", reason.as_str()),
        What::Expired { id, open, reason, .. } => format!("expired {id} left {open} {}", reason.as_str()),
        What::Replaced { old, id, open, price, stop, version, kept_place, .. } => {
            let place = if kept_place { "kept its place" } else { "lost its place" };
            let number = if old == id { format!("{id}") } else { format!("{old} as {id}") };
            let stop = if stop == 0 { String::new() } else { format!(" stop {stop}") };
            format!("replaced {number} left {open}@{price}{stop} version {version} {place}")
        }
        What::Reduced { id, open, .. } => format!("reduced {id} left {open}"),
        What::ReplaceRejected { id, reason } => format!("replace-rejected {id} {}", reason.as_str()),
        What::Triggered { id, stop, last, price, .. } => {
            format!("triggered {id} stop {stop} by {last} at {price}")
        }
        What::StopMoved { id, stop, .. } => format!("stop-moved {id} to {stop}"),
        What::Refilled { id, shown, .. } => format!("refilled {id} shows {shown}"),
        What::Decremented { maker, taker, qty, maker_open, taker_open, .. } => {
            format!("decremented {maker} and {taker} by {qty} left {maker_open}/{taker_open}")
        }
        What::AllCanceled { count } => format!("all-canceled {count}"),
        What::Expiry { count, day_end, .. } => {
            format!("{} {count}", if day_end { "day-ended" } else { "expiry" })
        }
        What::Halted => "halted".to_owned(),
        What::Resumed => "resumed".to_owned(),
        What::Uncrossed { price, qty } => format!("uncrossed {qty}@{price}"),
        What::PhaseChanged { phase } => {
            let name = PHASES.iter().find(|(_, known)| *known == phase).map_or("?", |(name, _)| name);
            format!("phase {name}")
        }
        What::Paused { price, low, high } => format!("paused before {price}, band {low}..{high}"),
        What::BandSet { low, high } => format!("band {low}..{high}"),
        What::Refused { reason } => format!("refused {}", reason.as_str()),
        _ => format!("{what:?}"),
    }
}

fn picture(book: &Book) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for order in book.orders() {
        let price = if order.held { order.stop } else { order.price };
        let kind = match order.kind {
            _ if order.for_close => "for the close ",
            Kind::Market => "waiting ",
            _ if order.held => "held ",
            _ => "",
        };
        let start = format!("{kind}{} {price}:", if order.side == Side::Buy { "buy" } else { "sell" });
        let hidden = order.open - order.shown;
        let hidden = if hidden > 0 { format!("+{hidden}") } else { String::new() };
        match lines.last_mut().filter(|line| line.starts_with(&start)) {
            Some(line) => write!(line, " {}({}{hidden})", order.id, order.shown).expect("a string"),
            None => lines.push(format!("{start} {}({}{hidden})", order.id, order.shown)),
        }
    }
    if lines.is_empty() {
        lines.push("empty".to_owned());
    }
    lines
}

/// Events of the `when` commands, and the picture of the book after.
fn play(scenario: &Scenario) -> (Vec<String>, Vec<String>) {
    let mut desk = Desk { book: Book::new(), slots: BTreeMap::new() };
    for line in &scenario.given {
        let said = desk.run(line);
        assert!(
            !said.iter().any(|event| event.contains("rejected") || event.starts_with("refused")),
            "{}: given {line:?} gave {said:?}",
            scenario.title
        );
    }
    let events = scenario.when.iter().flat_map(|line| desk.run(line)).collect();
    (events, picture(&desk.book))
}

fn bless(path: &Path, scenarios: &[Scenario], text: &str) {
    let about = text.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut out = about + "\n";
    for scenario in scenarios {
        let (then, book) = play(scenario);
        writeln!(out, "\n{}", scenario.title).expect("a string");
        for (keyword, lines) in
            [("given", &scenario.given), ("when", &scenario.when), ("then", &then), ("book", &book)]
        {
            for (at, line) in lines.iter().enumerate() {
                writeln!(out, "    {:<8}{line}", if at == 0 { keyword } else { "" }).expect("a string");
            }
        }
    }
    std::fs::write(path, out).expect("writable");
}

#[test]
fn every_scenario_goes_as_it_is_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("scenarios").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    let mut titles: Vec<String> = Vec::new();
    let mut wrong = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let scenarios = parse(&text);
        if std::env::var_os("FAFNIR_BLESS").is_some() {
            bless(&path, &scenarios, &text);
            continue;
        }
        for scenario in scenarios {
            let (then, book) = play(&scenario);
            if then != scenario.then || book != scenario.book {
                write!(
                    wrong,
                    "\n{}\n  then {:#?}\n  not  {:#?}\n  book {:#?}\n  not  {:#?}\n",
                    scenario.title, then, scenario.then, book, scenario.book
                )
                .expect("a string");
            }
            titles.push(scenario.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let count = titles.len();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), count, "every scenario has a sentence of its own");
    assert!(count >= SCENARIOS_MIN || std::env::var_os("FAFNIR_BLESS").is_some(), "{count} scenarios");
}
