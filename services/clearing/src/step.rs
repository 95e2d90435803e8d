//! One command: looked up by its id, checked, done; what happened goes out as facts.

use crate::{
    account::User,
    command::{Command, Instruction, RequestId},
    fact::{AccountAfter, Answer, Done, End, Fact, Known, OrderAfter, Sink, What},
    order::Order,
    recent::Entry,
    refusal::Refusal,
    state::State,
};
use uuid::Uuid;

pub(crate) type Checked<T = ()> = Result<T, Refusal>;

/// Applies a command. `seq` is the one after the last, `time_us` is not before the last.
///
/// A refusal changes nothing and gives no fact.
pub fn step(state: &mut State, seq: u64, time_us: i64, command: &Command, sink: &mut impl Sink) -> Answer {
    debug_assert!(state.seq == 0 || seq == state.seq + 1, "invariant: command {seq} follows {}", state.seq);
    state.seq = seq;
    state.time_us = time_us;
    if state.day_end_us == 0 {
        state.day_end_us = time_us;
    }
    if let Some(id) = &command.id {
        match known(state, id) {
            Ok(None) => {}
            Ok(Some(known)) => return Answer::Known(known),
            Err(refusal) => return Answer::Refused(refusal),
        }
    }
    let mut s = Stepper {
        named: command.id.clone(),
        command,
        known: Known::default(),
        first: None,
        subject: Uuid::nil(),
        ended: None,
        account: None,
        canceled: 0,
        end: None,
        replacing: None,
        resizing: None,
        effects: std::collections::VecDeque::new(),
        state,
        sink,
    };
    let done = s.run();
    if let (Some(id), Some(known)) = (&command.id, s.first) {
        let entry = Entry { hash: id.hash, payload: id.payload, known };
        let max = s.state.rules.recent_ids;
        s.state.recent.put(entry, max);
    }
    match done {
        Ok(done) => Answer::Done(done),
        Err(refusal) => Answer::Refused(refusal),
    }
}

/// Passes a record over that breaks the step: it has its number and its time, and nothing happens.
pub fn pass(state: &mut State, seq: u64, time_us: i64) {
    state.seq = seq;
    state.time_us = time_us;
}

fn known(state: &State, id: &RequestId) -> Checked<Option<Known>> {
    match state.recent.get(id.hash) {
        Some(entry) if entry.payload == id.payload => Ok(Some(entry.known)),
        Some(_) => Err(Refusal::KeyReused(id.key.to_string())),
        None if id.looked_until.is_some_and(|until| until < state.recent.begins_after()) => {
            Err(Refusal::ProjectionBehind)
        }
        None => Ok(None),
    }
}

/// One command under way.
pub(crate) struct Stepper<'a, S: Sink> {
    pub state: &'a mut State,
    pub sink: &'a mut S,
    pub command: &'a Command,
    /// Goes out with the first fact.
    named: Option<RequestId>,
    /// What a repetition is answered; set before the first fact.
    pub known: Known,
    /// The same as it was told with the first fact.
    first: Option<Known>,
    /// The order that the command is about, and how it was when it ended.
    pub subject: Uuid,
    pub ended: Option<Box<Order>>,
    /// The account that the command is about, as it is.
    pub account: Option<AccountAfter>,
    /// Orders that were canceled.
    pub canceled: u32,
    /// Why orders end now, where it is not the book's word.
    pub end: Option<End>,
    pub replacing: Option<crate::orders::Replacement>,
    /// The new total of the exit whose group makes it grow.
    pub resizing: Option<i64>,
    /// What matches did to orders of groups, and is not settled yet.
    pub effects: std::collections::VecDeque<crate::group::Effect>,
}

impl<S: Sink> Stepper<'_, S> {
    fn run(&mut self) -> Checked<Done> {
        let command = self.command;
        match &command.instruction {
            Instruction::New(new) => self.new_order(new)?,
            Instruction::NewGroup(new) => self.new_group(new)?,
            Instruction::CancelGroup { group } => self.cancel_group(*group)?,
            Instruction::Replace(replace) => self.replace(replace)?,
            Instruction::Cancel { order } => self.cancel(*order)?,
            Instruction::CancelAll { symbol } => self.cancel_all(symbol.as_ref())?,
            Instruction::Flatten(flatten) => return self.flatten(flatten),
            Instruction::OpenAccount { account, kind, currency, opening } => {
                self.open_account(*account, *kind, *currency, *opening)?;
            }
            Instruction::CloseAccount { account } => self.close_account(*account)?,
            Instruction::CloseUser => self.close_user(),
            Instruction::Deposit { account, currency, amount } => {
                self.deposit(*account, *currency, *amount)?;
            }
            Instruction::Withdraw { account, currency, amount } => {
                self.withdraw(*account, *currency, *amount)?;
            }
            Instruction::Transfer { from, to, currency, amount } => {
                self.transfer(*from, *to, *currency, *amount)?;
            }
            Instruction::Endow(endow) => self.endow(endow)?,
            Instruction::SetInstrument(instrument) => self.set_instrument(instrument)?,
            Instruction::SetState { symbol, state } => self.set_state_of(symbol, *state)?,
            Instruction::SetRules(rules) => self.set_rules(*rules)?,
            Instruction::SetFees { maker_bp, taker_bp } => self.set_fees(*maker_bp, *taker_bp)?,
            Instruction::SetRate { usd_cad } => self.set_rate(*usd_cad)?,
            Instruction::DayEnd => self.day_end(),
            Instruction::Expire => self.expire(),
            Instruction::Reopen { symbol } => self.reopen(symbol),
            Instruction::SetSession { session } => self.set_session(*session),
        }
        Ok(self.done())
    }

    /// What the command did so far.
    pub fn done(&mut self) -> Done {
        let order = self.ended.take().or_else(|| self.state.order(self.subject).cloned().map(Box::new));
        Done {
            known: self.first.unwrap_or_default(),
            order,
            account: self.account,
            canceled: self.canceled,
            left_e4: 0,
            why: None,
        }
    }

    /// Tells what happened; `market` where it is about one.
    pub fn emit(&mut self, market: Option<u32>, what: What) {
        let state = &mut *self.state;
        state.position += 1;
        let position = state.position;
        let at = market.map(|number| {
            let m = &mut state.markets[number as usize];
            m.exec_seq += 1;
            (number, m.exec_seq)
        });
        let trace = self.command.trace.filter(|_| self.first.is_none());
        let known = *self.first.get_or_insert(Known { at: position, ..self.known });
        let named = self.named.take().map(|id| Box::new((id, known)));
        let (time_us, user) = (state.time_us, self.command.user);
        self.sink.fact(Fact { position, time_us, user, named, trace, at, what });
    }

    /// An order for the next fact, with the next number of its user's orders.
    pub fn order_after(&mut self, order: Order) -> OrderAfter {
        let position = self.state.position + 1;
        let user = &mut self.state.users[order.owner as usize - 1];
        if !user.agent {
            user.order_seq += 1;
        }
        user.touched = position;
        let after = OrderAfter { user: user.id, seq: user.order_seq, order };
        if after.order.id == self.subject && !after.order.state.is_open() {
            self.ended = Some(Box::new(after.order.clone()));
        }
        after
    }

    /// The number of the command's user, who has not left. `None` where it was never seen.
    pub fn caller(&self) -> Checked<Option<u32>> {
        match self.state.user_numbers.get(&self.command.user) {
            Some(number) if self.state.users[*number as usize - 1].closed => Err(Refusal::UserClosed),
            number => Ok(number.copied()),
        }
    }

    /// The number of the command's user, made where it was never seen.
    pub fn caller_made(&mut self) -> u32 {
        let id = self.command.user;
        if let Some(number) = self.state.user_numbers.get(&id) {
            return *number;
        }
        self.state.users.push(User {
            id,
            agent: self.command.agent,
            closed: false,
            order_seq: 0,
            money_seq: 0,
            open_orders: 0,
            accounts: Vec::new(),
            deposits_day_us: 0,
            deposits: [0; 2],
            touched: 0,
        });
        let number = self.state.users.len() as u32;
        self.state.user_numbers.insert(id, number);
        number
    }
}
