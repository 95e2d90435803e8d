//! Records what a terminal saw and plays it again: `update` is pure, so the same messages give the same screens.
//!
//! A file is a heading, then frames, each with its length before it. Passwords are never in it: nothing typed on the
//! sign-in screen is recorded, and neither are tokens, which the model does not know.

use crate::{
    keys::KeyMap,
    model::{
        Ids, Model, Screen, Who,
        chart::INTERVALS,
        feed::{Link, Wire},
    },
    msg::{Event, Flattened, Msg, Outcome},
    theme::Theme,
    update::update,
};
use crossterm::event::{
    Event as InputEvent, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use fafnir_proto::v1;
use prost::Message;
use std::io::{self, BufRead, BufReader, Read, Write};

/// The names of [`Event::Unanswered`] questions.
const QUESTIONS: [&str; 17] = [
    "quotes",
    "volume",
    "book",
    "trades",
    "candles",
    "order",
    "orders",
    "fills",
    "positions",
    "instruments",
    "watchlist",
    "accounts",
    "market data",
    "performance",
    "days",
    "statistics",
    "platform",
];
/// What a recording begins with.
const HEADING: &[u8] = b"fafnir terminal recording 1\n";
/// A recording ends itself at this size.
pub const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A frame larger than this is damage.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One message. `kind` says which; the other fields hold its parts in the order in which the code below writes them.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(sint64, repeated, tag = "2")]
    numbers: Vec<i64>,
    #[prost(string, repeated, tag = "3")]
    texts: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

/// What a recording cannot be read for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is not a recording of a fafnir terminal")]
    Heading,
    #[error("the recording is damaged at frame {0}")]
    Damaged(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

mod kind {
    pub const START: u32 = 1;
    pub const CLOCK: u32 = 2;
    pub const KEY: u32 = 3;
    pub const MOUSE: u32 = 4;
    pub const PASTE: u32 = 5;
    pub const RESIZE: u32 = 6;
    pub const FOCUS_LOST: u32 = 7;
    pub const LINK: u32 = 10;
    pub const SIGNED_IN: u32 = 11;
    pub const SIGN_IN_REFUSED: u32 = 12;
    pub const SIGNED_OUT: u32 = 13;
    pub const INSTRUMENTS: u32 = 14;
    pub const WATCHLIST: u32 = 15;
    pub const ORDERS: u32 = 16;
    pub const FILLS: u32 = 17;
    pub const POSITIONS: u32 = 18;
    pub const ACCOUNTS: u32 = 19;
    pub const QUOTES: u32 = 20;
    pub const BOOK: u32 = 21;
    pub const TRADES: u32 = 22;
    pub const CANDLES: u32 = 23;
    pub const PRIVATE: u32 = 24;
    pub const PLACED: u32 = 25;
    pub const CANCELED: u32 = 26;
    pub const CANCELED_ALL: u32 = 27;
    pub const WATCH_CHANGED: u32 = 28;
    pub const UNANSWERED: u32 = 29;
    pub const REPLACED: u32 = 30;
    pub const FLATTENED: u32 = 31;
    pub const VOLUME: u32 = 32;
    pub const RECALLED: u32 = 33;
    pub const PERFORMANCE: u32 = 34;
    pub const DAYS: u32 = 35;
    pub const PLATFORM: u32 = 36;
    pub const STATISTICS: u32 = 37;
}

/// Writes a recording.
pub struct Recorder {
    out: Box<dyn Write + Send>,
    written: u64,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins with the model as it is; it must not have seen a message yet.
    pub fn start(out: impl Write + Send + 'static, model: &Model) -> io::Result<Self> {
        let mut recorder = Self { out: Box::new(out), written: 0 };
        recorder.out.write_all(HEADING)?;
        let ids = model.ids.prefix().to_owned();
        let numbers = vec![
            model.now_us,
            model.size.0.into(),
            model.size.1.into(),
            model.read_only.into(),
            model.armed_notional_micros_max,
            model.sign_in.on_password.into(),
        ];
        recorder.write(&Frame {
            kind: kind::START,
            numbers,
            texts: [ids, model.symbol.clone()].into_iter().chain(model.keys.rows()).collect(),
            body: vec![],
        })?;
        Ok(recorder)
    }

    /// Adds a message, before the model has seen it. Past the largest size nothing is added any more.
    pub fn add(&mut self, model: &Model, msg: &Msg) -> io::Result<()> {
        if self.written > BYTES_MAX {
            return Ok(());
        }
        match encode(model, msg) {
            Some(frame) => self.write(&frame),
            None => Ok(()),
        }
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.encode_length_delimited_to_vec();
        self.written += bytes.len() as u64;
        self.out.write_all(&bytes)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a recording.
pub struct Player {
    input: Box<dyn BufRead + Send>,
    frames: u64,
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Player {
    /// Reads the beginning: the model before its first message.
    pub fn open(input: impl Read + Send + 'static, theme: Theme) -> Result<(Self, Model), Error> {
        let mut player = Self { input: Box::new(BufReader::new(input)), frames: 0 };
        let mut heading = vec![0; HEADING.len()];
        player.input.read_exact(&mut heading).map_err(|_| Error::Heading)?;
        if heading != HEADING {
            return Err(Error::Heading);
        }
        let start = player.frame()?.filter(|f| f.kind == kind::START).ok_or(Error::Heading)?;
        let (Some(&[now, columns, rows, read_only, most, on_password]), [ids, symbol, keys @ ..]) =
            (start.numbers.first_chunk::<6>(), start.texts.as_slice())
        else {
            return Err(Error::Damaged(0));
        };
        let size = (u16::try_from(columns).unwrap_or(0), u16::try_from(rows).unwrap_or(0));
        let mut model = Model::new(now, size, theme, Ids::new(ids));
        model.read_only = read_only != 0;
        model.armed_notional_micros_max = most;
        model.symbol.clone_from(symbol);
        model.sign_in.on_password = on_password != 0;
        model.keys = KeyMap::parse(keys).map_err(|_| Error::Damaged(0))?;
        Ok((player, model))
    }

    fn frame(&mut self) -> Result<Option<Frame>, Error> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let damaged = Error::Damaged(self.frames);
        let mut length = 0usize;
        for shift in (0..).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if length > FRAME_BYTES_MAX || shift > 28 {
                return Err(damaged);
            }
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        self.frames += 1;
        Frame::decode(bytes.as_slice()).map(Some).map_err(|_| damaged)
    }

    /// The next message; none at the end. A last frame that was cut off ends the recording too.
    pub fn read(&mut self) -> Result<Option<Msg>, Error> {
        match self.frame() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => decode(frame).map(Some).ok_or(Error::Damaged(self.frames)),
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Plays everything at once.
    pub fn play(mut self, model: &mut Model) -> Result<u64, Error> {
        while let Some(msg) = self.read()? {
            update(model, msg);
        }
        Ok(self.frames)
    }
}

fn frame(kind: u32, numbers: &[i64], texts: &[&str], body: &impl Message) -> Frame {
    Frame {
        kind,
        numbers: numbers.to_vec(),
        texts: texts.iter().map(|t| (*t).to_owned()).collect(),
        body: body.encode_to_vec(),
    }
}

fn encode(model: &Model, msg: &Msg) -> Option<Frame> {
    let nothing = v1::Empty {};
    match msg {
        Msg::Clock(now) => Some(frame(kind::CLOCK, &[*now], &[], &nothing)),
        Msg::Backend(event) => Some(encode_event(event)),
        Msg::Input(InputEvent::Resize(w, h)) => {
            Some(frame(kind::RESIZE, &[i64::from(*w), i64::from(*h)], &[], &nothing))
        }
        Msg::Input(InputEvent::FocusLost) => Some(frame(kind::FOCUS_LOST, &[], &[], &nothing)),
        // What is typed here may be a password.
        Msg::Input(_) if model.screen == Screen::SignIn => None,
        Msg::Input(InputEvent::Key(key)) => {
            let (code, value) = key_numbers(key.code)?;
            Some(frame(kind::KEY, &[code, value, key.modifiers.bits().into()], &[], &nothing))
        }
        Msg::Input(InputEvent::Mouse(mouse)) => {
            let what = match mouse.kind {
                MouseEventKind::Down(MouseButton::Left) => 1,
                MouseEventKind::ScrollUp => 2,
                MouseEventKind::ScrollDown => 3,
                MouseEventKind::Moved => 4,
                MouseEventKind::Drag(MouseButton::Left) => 5,
                MouseEventKind::Up(MouseButton::Left) => 6,
                _ => return None,
            };
            Some(frame(kind::MOUSE, &[what, mouse.column.into(), mouse.row.into()], &[], &nothing))
        }
        Msg::Input(InputEvent::Paste(text)) => Some(frame(kind::PASTE, &[], &[text], &nothing)),
        Msg::Input(InputEvent::FocusGained) => None,
    }
}

const KEY_CODES: [KeyCode; 14] = [
    KeyCode::Enter,
    KeyCode::Esc,
    KeyCode::Tab,
    KeyCode::BackTab,
    KeyCode::Up,
    KeyCode::Down,
    KeyCode::Left,
    KeyCode::Right,
    KeyCode::Backspace,
    KeyCode::Delete,
    KeyCode::Home,
    KeyCode::End,
    KeyCode::PageUp,
    KeyCode::PageDown,
];

fn key_numbers(code: KeyCode) -> Option<(i64, i64)> {
    match code {
        KeyCode::Char(c) => Some((-1, i64::from(u32::from(c)))),
        KeyCode::F(n) => Some((-2, n.into())),
        other => KEY_CODES.iter().position(|k| *k == other).map(|at| (at as i64, 0)),
    }
}

fn key_of(code: i64, value: i64) -> Option<KeyCode> {
    match code {
        -1 => u32::try_from(value).ok().and_then(char::from_u32).map(KeyCode::Char),
        -2 => u8::try_from(value).ok().map(KeyCode::F),
        at => usize::try_from(at).ok().and_then(|at| KEY_CODES.get(at)).copied(),
    }
}

fn outcome_parts<T>(outcome: &Outcome<T>) -> (i64, &str, Option<&T>) {
    match outcome {
        Outcome::Done(value) => (0, "", Some(value)),
        Outcome::Refused(text) => (1, text, None),
        Outcome::Unknown(text) => (2, text, None),
    }
}

fn outcome_of<T>(number: i64, text: String, value: T) -> Outcome<T> {
    match number {
        0 => Outcome::Done(value),
        1 => Outcome::Refused(text),
        _ => Outcome::Unknown(text),
    }
}

/// What charts, pages and the watchlist show, and what was remembered.
fn encode_page(event: &Event) -> Frame {
    let nothing = v1::Empty {};
    match event {
        Event::Watchlist(symbols) => {
            let texts: Vec<&str> = symbols.iter().map(String::as_str).collect();
            frame(kind::WATCHLIST, &[], &texts, &nothing)
        }
        Event::Candles { symbol, interval, candles } => {
            let body = v1::CandlesReply { candles: candles.clone(), currency: String::new() };
            frame(kind::CANDLES, &[], &[symbol, interval], &body)
        }
        Event::Recalled(kept) => {
            // It has no part that JSON cannot hold.
            let text = serde_json::to_string(kept).unwrap_or_default();
            frame(kind::RECALLED, &[], &[&text], &nothing)
        }
        Event::Performance(reply) => frame(kind::PERFORMANCE, &[], &[], &**reply),
        Event::Days { symbol, candles } => {
            let body = v1::CandlesReply { candles: candles.clone(), currency: String::new() };
            frame(kind::DAYS, &[], &[symbol], &body)
        }
        Event::Statistics(reply) => frame(kind::STATISTICS, &[], &[], &**reply),
        // Who the users of a platform are is nobody's who is shown a recording.
        Event::Platform { figures, .. } => frame(kind::PLATFORM, &[], &[], &**figures),
        _ => frame(kind::UNANSWERED, &[], &["request", ""], &nothing),
    }
}

fn encode_event(event: &Event) -> Frame {
    let nothing = v1::Empty {};
    match event {
        Event::Link(wire, link, why) => frame(kind::LINK, &[*wire as i64, *link as i64], &[why], &nothing),
        Event::SignedIn(who) => frame(kind::SIGNED_IN, &[], &[&who.user_id, &who.email], &nothing),
        Event::Recalled(_)
        | Event::Watchlist(_)
        | Event::Candles { .. }
        | Event::Performance(_)
        | Event::Days { .. }
        | Event::Statistics(_)
        | Event::Platform { .. } => encode_page(event),
        Event::SignInRefused(text) => frame(kind::SIGN_IN_REFUSED, &[], &[text], &nothing),
        Event::SignedOut(text) => frame(kind::SIGNED_OUT, &[], &[text], &nothing),
        Event::Instruments(list) => {
            frame(kind::INSTRUMENTS, &[], &[], &v1::ListInstrumentsReply { instruments: list.clone() })
        }
        Event::Orders { orders, open_complete } => {
            let body = v1::ListOrdersReply { orders: orders.clone(), ..Default::default() };
            frame(kind::ORDERS, &[(*open_complete).into()], &[], &body)
        }
        Event::Fills(fills) => {
            frame(kind::FILLS, &[], &[], &v1::ListFillsReply { fills: fills.clone(), ..Default::default() })
        }
        Event::Positions(list) => {
            frame(kind::POSITIONS, &[], &[], &v1::HoldingsReply { holdings: list.clone() })
        }
        Event::Accounts(list) => {
            frame(kind::ACCOUNTS, &[], &[], &v1::ListAccountsReply { accounts: list.clone() })
        }
        Event::Quotes(quotes) => frame(kind::QUOTES, &[], &[], &v1::QuotesReply { quotes: quotes.clone() }),
        Event::Book { image, from_feed } => frame(kind::BOOK, &[(*from_feed).into()], &[], image),
        Event::Trades { symbol, trades, after } => {
            let numbers = [after.is_some().into(), after.unwrap_or(0) as i64];
            frame(kind::TRADES, &numbers, &[symbol], &v1::TradesReply { trades: trades.clone() })
        }
        Event::Volume(reply) => frame(kind::VOLUME, &[], &[], reply),
        Event::Private(update) => frame(kind::PRIVATE, &[], &[], update),
        Event::Placed { client_order_id, outcome, elapsed_us } => {
            let (number, text, order) = outcome_parts(outcome);
            let body = v1::OrderReply { order: order.cloned() };
            frame(kind::PLACED, &[number, *elapsed_us], &[client_order_id, text], &body)
        }
        Event::Canceled { order_id, outcome, elapsed_us } => {
            let (number, text, order) = outcome_parts(outcome);
            let body = v1::OrderReply { order: order.cloned() };
            frame(kind::CANCELED, &[number, *elapsed_us], &[order_id, text], &body)
        }
        Event::Replaced { order_id, outcome, elapsed_us } => {
            let (number, text, order) = outcome_parts(outcome);
            let body = v1::OrderReply { order: order.cloned() };
            frame(kind::REPLACED, &[number, *elapsed_us], &[order_id, text], &body)
        }
        Event::CanceledAll { symbol, outcome, elapsed_us } => {
            let (number, text, count) = outcome_parts(outcome);
            let count = i64::from(count.copied().unwrap_or(0));
            frame(kind::CANCELED_ALL, &[number, *elapsed_us, count], &[symbol, text], &nothing)
        }
        Event::Flattened { symbol, outcome, elapsed_us } => {
            let (number, text, done) = outcome_parts(outcome);
            let Flattened { orders, left_e4, why } = done.cloned().unwrap_or_default();
            let body = v1::ListOrdersReply { orders, ..Default::default() };
            frame(kind::FLATTENED, &[number, *elapsed_us, left_e4], &[symbol, text, &why], &body)
        }
        Event::WatchChanged { symbol, added, outcome } => {
            let (number, text, _) = outcome_parts(outcome);
            frame(kind::WATCH_CHANGED, &[number, (*added).into()], &[symbol, text], &nothing)
        }
        Event::Unanswered { question, text } => frame(kind::UNANSWERED, &[], &[question, text], &nothing),
    }
}

fn decode(frame: Frame) -> Option<Msg> {
    let Frame { kind, numbers, texts, body } = frame;
    let number = |at: usize| numbers.get(at).copied();
    let small = |at: usize| number(at).and_then(|n| u16::try_from(n).ok());
    Some(match kind {
        kind::CLOCK => Msg::Clock(number(0)?),
        kind::RESIZE => Msg::Input(InputEvent::Resize(small(0)?, small(1)?)),
        kind::FOCUS_LOST => Msg::Input(InputEvent::FocusLost),
        kind::PASTE => Msg::Input(InputEvent::Paste(texts.into_iter().next()?)),
        kind::KEY => {
            let modifiers = KeyModifiers::from_bits_truncate(u8::try_from(number(2)?).ok()?);
            Msg::Input(InputEvent::Key(KeyEvent::new(key_of(number(0)?, number(1)?)?, modifiers)))
        }
        kind::MOUSE => {
            let kind = match number(0)? {
                1 => MouseEventKind::Down(MouseButton::Left),
                2 => MouseEventKind::ScrollUp,
                3 => MouseEventKind::ScrollDown,
                5 => MouseEventKind::Drag(MouseButton::Left),
                6 => MouseEventKind::Up(MouseButton::Left),
                _ => MouseEventKind::Moved,
            };
            let (column, row) = (small(1)?, small(2)?);
            Msg::Input(InputEvent::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
        }
        _ => Msg::Backend(decode_event(kind, &numbers, texts, &body)?),
    })
}

fn decode_event(kind: u32, numbers: &[i64], texts: Vec<String>, body: &[u8]) -> Option<Event> {
    let number = |at: usize| numbers.get(at).copied();
    let flag = |at: usize| number(at).map(|n| n != 0);
    let mut texts = texts.into_iter();
    Some(match kind {
        kind::LINK => {
            let wire = if number(0)? == Wire::Grpc as i64 { Wire::Grpc } else { Wire::Nats };
            let link = [Link::Connecting, Link::Up, Link::Down]
                .into_iter()
                .find(|l| Some(*l as i64) == number(1))?;
            Event::Link(wire, link, texts.next()?)
        }
        kind::SIGNED_IN => Event::SignedIn(Who { user_id: texts.next()?, email: texts.next()? }),
        kind::SIGN_IN_REFUSED => Event::SignInRefused(texts.next()?),
        kind::SIGNED_OUT => Event::SignedOut(texts.next()?),
        kind::INSTRUMENTS => Event::Instruments(v1::ListInstrumentsReply::decode(body).ok()?.instruments),
        kind::WATCHLIST => Event::Watchlist(texts.collect()),
        kind::ORDERS => {
            let orders = v1::ListOrdersReply::decode(body).ok()?.orders;
            Event::Orders { orders, open_complete: flag(0)? }
        }
        kind::FILLS => Event::Fills(v1::ListFillsReply::decode(body).ok()?.fills),
        kind::POSITIONS => Event::Positions(v1::HoldingsReply::decode(body).ok()?.holdings),
        kind::ACCOUNTS => Event::Accounts(v1::ListAccountsReply::decode(body).ok()?.accounts),
        kind::QUOTES => Event::Quotes(v1::QuotesReply::decode(body).ok()?.quotes),
        kind::BOOK => Event::Book { image: v1::BookImage::decode(body).ok()?, from_feed: flag(0)? },
        kind::TRADES => {
            let trades = v1::TradesReply::decode(body).ok()?.trades;
            let after = flag(0)?.then_some(number(1)? as u64);
            Event::Trades { symbol: texts.next()?, trades, after }
        }
        kind::CANDLES => {
            let (symbol, name) = (texts.next()?, texts.next()?);
            let interval = INTERVALS.iter().find(|i| i.0 == name)?.0;
            Event::Candles { symbol, interval, candles: v1::CandlesReply::decode(body).ok()?.candles }
        }
        kind::RECALLED => Event::Recalled(Box::new(serde_json::from_str(&texts.next()?).ok()?)),
        kind::PERFORMANCE => Event::Performance(Box::new(v1::PerformanceReply::decode(body).ok()?)),
        kind::DAYS => {
            let candles = v1::CandlesReply::decode(body).ok()?.candles;
            Event::Days { symbol: texts.next()?, candles }
        }
        kind::STATISTICS => Event::Statistics(Box::new(v1::StatisticsReply::decode(body).ok()?)),
        kind::PLATFORM => {
            let figures = Box::new(v1::DashboardReply::decode(body).ok()?);
            Event::Platform { figures, users: Vec::new() }
        }
        kind::VOLUME => Event::Volume(v1::VolumeAtPriceReply::decode(body).ok()?),
        kind::PRIVATE => Event::Private(v1::PrivateUpdate::decode(body).ok()?),
        kind::UNANSWERED => {
            let question = texts.next()?;
            let question = QUESTIONS.into_iter().find(|k| *k == question).unwrap_or("request");
            Event::Unanswered { question, text: texts.next()? }
        }
        _ => return decode_answer(kind, numbers, texts, body),
    })
}

/// The answers to commands.
fn decode_answer(
    kind: u32,
    numbers: &[i64],
    mut texts: impl Iterator<Item = String>,
    body: &[u8],
) -> Option<Event> {
    let number = |at: usize| numbers.get(at).copied();
    let order = || v1::OrderReply::decode(body).ok().map(|reply| reply.order.unwrap_or_default());
    Some(match kind {
        kind::PLACED => Event::Placed {
            client_order_id: texts.next()?,
            outcome: outcome_of(number(0)?, texts.next()?, order()?),
            elapsed_us: number(1)?,
        },
        kind::CANCELED => Event::Canceled {
            order_id: texts.next()?,
            outcome: outcome_of(number(0)?, texts.next()?, order()?),
            elapsed_us: number(1)?,
        },
        kind::REPLACED => Event::Replaced {
            order_id: texts.next()?,
            outcome: outcome_of(number(0)?, texts.next()?, order()?),
            elapsed_us: number(1)?,
        },
        kind::CANCELED_ALL => Event::CanceledAll {
            symbol: texts.next()?,
            outcome: outcome_of(number(0)?, texts.next()?, u32::try_from(number(2)?).ok()?),
            elapsed_us: number(1)?,
        },
        kind::FLATTENED => {
            let orders = v1::ListOrdersReply::decode(body).ok()?.orders;
            let (symbol, text, why) = (texts.next()?, texts.next()?, texts.next()?);
            let outcome = outcome_of(number(0)?, text, Flattened { orders, left_e4: number(2)?, why });
            Event::Flattened { symbol, outcome, elapsed_us: number(1)? }
        }
        kind::WATCH_CHANGED => Event::WatchChanged {
            symbol: texts.next()?,
            added: number(1)? != 0,
            outcome: outcome_of(number(0)?, texts.next()?, ()),
        },
        _ => return None,
    })
}
