//! Targets for fuzzing what the engine reads: whatever the bytes, nothing panics and nothing damaged is taken for whole.
#![expect(clippy::expect_used, reason = "a target of fuzzing stops at what must not be")]

use super::{
    frames::{self, Bad, Frames, Header},
    log::JOURNAL,
    message::{self, Names},
    replay::hash,
    snapshot,
};
use fafnir_clearing::{
    State,
    account::{Currency, Kind},
    codec::{RULES_VERSION, Reader},
    command::{Command, Endow, Instruction, Instrument},
    fact::Fact,
    step,
};
use fafnir_rules::{order::TradingState, symbol::Symbol};
use std::collections::HashMap;
use uuid::Uuid;

/// Commands that one input may hold.
const COMMANDS_MAX: usize = 4_096;
/// Users who have an account with cash and shares before the first command.
pub const USERS: u64 = 4;

/// A user of the targets; its account has the same id.
pub fn user(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x05e4, number)
}

/// What comes before the commands: two listings, a rate, users with something to trade.
pub fn prelude() -> Vec<Command> {
    let of = |user: Uuid, instruction| Command { user, agent: false, id: None, trace: None, instruction };
    let mut commands = vec![
        of(Uuid::nil(), Instruction::SetRate { usd_cad: 1_370_000 }),
        of(Uuid::nil(), Instruction::SetFees { maker_bp: 1, taker_bp: 2 }),
    ];
    for (text, currency) in [("AAPL", Currency::Usd), ("SHOP", Currency::Cad)] {
        let Ok(symbol) = Symbol::parse(text) else { continue };
        let instrument = Instrument {
            symbol,
            version: 1,
            currency,
            tick_e4: 100,
            lot_e4: 10_000,
            state: TradingState::Open,
            previous_close_e4: 1_000_000,
            band_bps: 50,
        };
        commands.push(of(Uuid::nil(), Instruction::SetInstrument(Box::new(instrument))));
        for number in 1..=USERS {
            let (id, is_first) = (user(number), currency == Currency::Usd);
            if is_first {
                let kind = Kind::Investment;
                let open = Instruction::OpenAccount { account: id, kind, currency, opening: true };
                commands.push(of(id, open));
            }
            let endow = Endow {
                account: id,
                currency: None,
                amount: if is_first { 1_000_000_000_000 } else { 0 },
                symbol: Symbol::parse(text).ok(),
                quantity_e4: 100_000_000,
                cost_price_e4: 1_000_000,
            };
            commands.push(of(id, Instruction::Endow(endow)));
        }
    }
    commands
}

/// Reads the bytes as commands, each behind its length, and steps those that can be read.
///
/// # Panics
/// If a command does not come back as it was read, positions have a gap, a fact's lines do not sum to zero, or the state
/// does not survive its own bytes.
pub fn commands(data: &[u8]) {
    let mut state = State::new();
    let mut names = Names::default();
    for command in prelude() {
        step_one(&mut state, &mut names, &command);
    }
    let mut input = Reader::new(data);
    for _ in 0..COMMANDS_MAX {
        let Ok(payload) = input.bytes() else { break };
        let Ok(command) = Command::decode(payload) else { continue };
        let mut again = Vec::new();
        command.encode(&mut again);
        assert_eq!(Command::decode(&again).as_ref(), Ok(&command), "a command comes back as it was");
        step_one(&mut state, &mut names, &command);
    }
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    let copy = State::decode(&bytes).expect("invariant: a state's own bytes are a state");
    assert_eq!(hash(&copy), hash(&state), "a restored state is the same state");
}

fn step_one(state: &mut State, names: &mut Names, command: &Command) {
    let mut facts: Vec<Fact> = Vec::new();
    let before = state.position();
    step(state, state.seq() + 1, state.time_us() + 1, command, &mut facts);
    for (fact, position) in facts.iter().zip(before + 1..) {
        assert_eq!(fact.position, position, "positions have no gap");
        names.learn(fact);
        let mut sums: HashMap<String, i128> = HashMap::new();
        for posting in message::fact(names, fact).postings {
            *sums.entry(posting.asset).or_default() += i128::from(posting.amount);
        }
        assert!(sums.values().all(|sum| *sum == 0), "the lines of a fact sum to zero: {fact:?}");
    }
    assert_eq!(state.position(), before + facts.len() as u64, "every fact is told");
}

/// Reads the bytes as a segment of the journal; then makes a segment of them and damages it.
///
/// # Panics
/// If a frame reaches beyond the bytes, or a flipped bit goes unseen.
pub fn journal(data: &[u8]) {
    let header =
        frames::parse_header(JOURNAL.magic, data).unwrap_or(Header { first_seq: 1, prev_crc: 0, rules: 0 });
    let mut walk = Frames::new(data, header);
    for frame in &mut walk {
        match frame {
            Ok(frame) => assert!(frame.end() <= data.len(), "a frame lies within its segment"),
            Err(bad) => {
                let _either = frames::is_torn_tail(data, &bad);
            }
        }
    }
    damaged_segment(data);
}

/// The bytes as payloads of a segment with one flipped bit; their first ones say which.
fn damaged_segment(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<4>() else { return };
    let header = Header { first_seq: 7, prev_crc: 3, rules: JOURNAL.rules };
    let mut segment = frames::header(JOURNAL.magic, header).to_vec();
    let mut prev = header.prev_crc;
    for (n, payload) in rest.chunks(23).enumerate() {
        prev = frames::push(&mut segment, prev, 0, header.first_seq + n as u64, n as i64, payload);
    }
    let count = rest.chunks(23).count();
    let bit = u32::from_le_bytes(*choice) as usize % (segment.len() * 8);
    segment[bit / 8] ^= 1 << (bit % 8);
    let Ok(read) = frames::parse_header(JOURNAL.magic, &segment) else { return };
    let bad: Option<Bad> = Frames::new(&segment, read).find_map(Result::err);
    let Some(bad) = bad else { panic!("bit {bit} of {} was flipped unseen", segment.len()) };
    let is_last = bad.seq + 1 == header.first_seq + count as u64;
    assert!(is_last || !frames::is_torn_tail(&segment, &bad), "bit {bit} was taken for a torn tail");
}

/// Reads the bytes as a snapshot file and as a state: each is refused or whole.
///
/// # Panics
/// If a state that can be read does not give its own bytes again.
pub fn snapshot(data: &[u8]) {
    if let Ok(taken) = snapshot::decode(data) {
        let mut state = Vec::new();
        taken.state.encode(&mut state);
        let is_former = taken.rules < RULES_VERSION;
        assert!(is_former || taken.hash == hash(&taken.state), "a state is canonical");
        let file = snapshot::encode(taken.state.seq(), &state).expect("invariant: memory can be written to");
        let again = snapshot::decode(&file).expect("invariant: a state's own file is a snapshot");
        assert_eq!(again.hash, hash(&taken.state), "a file gives the state it was made of");
    }
    if let Ok(state) = State::decode(data) {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        let again = State::decode(&bytes).expect("invariant: a state's own bytes are a state");
        assert_eq!(hash(&again), hash(&state), "a state comes back as it was");
    }
}
