//! The NATS client protocol: bytes to operations, messages to bytes. Neither reads a socket.

use super::subject::{Text, is_pattern, put_text};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::ops::Range;

/// Longest line without payload that a client may send, in bytes (the original's default).
pub const CONTROL_LINE_MAX: usize = 4096;
/// Longest subscription id, in bytes.
pub const SID_MAX: usize = 64;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `CONNECT` with its JSON.
    Connect(Bytes),
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `SUB`.
    Sub { subject: Text, queue: Option<Text>, sid: Text },
    /// `UNSUB`; `max` is the total number of deliveries after which it ends.
    Unsub { sid: Text, max: Option<u64> },
    /// `PUB` or `HPUB`; an empty header means none.
    Pub { subject: Text, reply: Option<Text>, header: Bytes, payload: Bytes },
}

/// Why a connection is told off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// An unknown verb or a line that cannot be read; ends the connection.
    UnknownOperation,
    /// A payload above the limit; ends the connection.
    PayloadTooLarge,
    /// A line above the limit; ends the connection.
    ControlLineTooLong,
    /// Arguments that cannot be read; ends the connection.
    BadArguments,
    /// A subject with blanks, empty tokens or a misplaced wildcard; the operation is dropped.
    InvalidSubject,
}

impl Error {
    /// The text after `-ERR`, in the original's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownOperation => "Unknown Protocol Operation",
            Self::PayloadTooLarge => "Maximum Payload Violation",
            Self::ControlLineTooLong => "Maximum Control Line Exceeded",
            Self::BadArguments => "Parser Error",
            Self::InvalidSubject => "Invalid Subject",
        }
    }

    /// Whether the connection cannot go on.
    pub fn is_fatal(self) -> bool {
        !matches!(self, Self::InvalidSubject)
    }
}

#[derive(Debug)]
struct PubHead {
    subject: Option<Text>,
    reply: Option<Text>,
    header_len: usize,
    total_len: usize,
    /// The message is read and dropped, and this is said.
    refused: Option<Error>,
}

/// Cuts a byte stream into operations; holds no more than one message beyond the buffer it is given.
#[derive(Debug)]
pub struct Parser {
    payload_max: usize,
    head: Option<PubHead>,
    /// Bytes of the unfinished line that were already searched for its end.
    searched: usize,
}

impl Parser {
    /// A parser that refuses payloads above `payload_max` bytes.
    pub fn new(payload_max: usize) -> Self {
        Self { payload_max, head: None, searched: 0 }
    }

    /// Bytes that the buffer lacks for the message that has begun.
    pub fn lacks(&self, buffered: usize) -> usize {
        self.head.as_ref().map_or(0, |head| (head.total_len + 2).saturating_sub(buffered))
    }

    /// The next operation in the buffer, or nothing until more bytes arrive.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Op>, Error> {
        loop {
            if let Some(head) = self.head.take() {
                if buf.len() < head.total_len + 2 {
                    self.head = Some(head);
                    return Ok(None);
                }
                let mut body = buf.split_to(head.total_len).freeze();
                if &buf[..2] != b"\r\n" {
                    return Err(Error::BadArguments);
                }
                buf.advance(2);
                if let Some(error) = head.refused {
                    return Err(error);
                }
                let header = if head.header_len == 0 { Bytes::new() } else { body.split_to(head.header_len) };
                // Absent only when the head was refused, which is answered above.
                let subject = head.subject.ok_or(Error::BadArguments)?;
                return Ok(Some(Op::Pub { subject, reply: head.reply, header, payload: body }));
            }
            let Some(at) = buf[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = buf.len();
                if self.searched > CONTROL_LINE_MAX {
                    return Err(Error::ControlLineTooLong);
                }
                return Ok(None);
            };
            let at = self.searched + at;
            self.searched = 0;
            if at > CONTROL_LINE_MAX {
                return Err(Error::ControlLineTooLong);
            }
            let mut line = buf.split_to(at + 1).freeze();
            line.truncate(line.len() - 1);
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if let Some(op) = self.line(line)? {
                return Ok(Some(op));
            }
        }
    }

    fn line(&mut self, line: Bytes) -> Result<Option<Op>, Error> {
        let verb_len = line.iter().position(|b| *b == b' ' || *b == b'\t').unwrap_or(line.len());
        let verb = &line[..verb_len];
        if verb.eq_ignore_ascii_case(b"PUB") {
            self.publish(line, verb_len, false)?;
            Ok(None)
        } else if verb.eq_ignore_ascii_case(b"HPUB") {
            self.publish(line, verb_len, true)?;
            Ok(None)
        } else if verb.eq_ignore_ascii_case(b"SUB") {
            subscribe(&line, verb_len).map(Some)
        } else if verb.eq_ignore_ascii_case(b"UNSUB") {
            unsubscribe(&line, verb_len).map(Some)
        } else if verb.eq_ignore_ascii_case(b"PING") {
            Ok(Some(Op::Ping))
        } else if verb.eq_ignore_ascii_case(b"PONG") {
            Ok(Some(Op::Pong))
        } else if verb.eq_ignore_ascii_case(b"CONNECT") {
            Ok(Some(Op::Connect(line.slice(verb_len..))))
        } else if verb.eq_ignore_ascii_case(b"+OK") || verb.eq_ignore_ascii_case(b"-ERR") {
            Ok(None)
        } else {
            Err(Error::UnknownOperation)
        }
    }

    fn publish(&mut self, mut line: Bytes, verb_len: usize, with_header: bool) -> Result<(), Error> {
        let (args, count) = arguments(&line, verb_len).ok_or(Error::BadArguments)?;
        let numbers = if with_header { 2 } else { 1 };
        if count != numbers + 1 && count != numbers + 2 {
            return Err(Error::BadArguments);
        }
        let size = |arg: &Range<usize>| number(&line[arg.clone()]).ok_or(Error::BadArguments);
        let total_len = size(&args[count - 1])?;
        let header_len = if with_header { size(&args[count - 2])? } else { 0 };
        if total_len > self.payload_max {
            return Err(Error::PayloadTooLarge);
        }
        if header_len > total_len {
            return Err(Error::BadArguments);
        }
        let reply = (count == numbers + 2)
            .then(|| Some(Text::parse(line.slice(args[1].clone()))).filter(|s| is_pattern(s)));
        // The line becomes its subject: a slice of it would cost as much as all the rest.
        line.truncate(args[0].end);
        line.advance(args[0].start);
        let subject = Some(Text::parse(line)).filter(|s| is_pattern(s));
        let refused = match (&subject, &reply) {
            (None, _) | (_, Some(None)) => Some(Error::InvalidSubject),
            _ => None,
        };
        self.head = Some(PubHead { subject, reply: reply.flatten(), header_len, total_len, refused });
        Ok(())
    }
}

/// Where the arguments after a line's verb are.
fn arguments(line: &[u8], verb_len: usize) -> Option<([Range<usize>; 4], usize)> {
    let mut args = [const { 0..0 }; 4];
    let mut count = 0;
    let mut start = verb_len;
    for at in verb_len..=line.len() {
        if at == line.len() || line[at] == b' ' || line[at] == b'\t' {
            if at > start {
                *args.get_mut(count)? = start..at;
                count += 1;
            }
            start = at + 1;
        }
    }
    Some((args, count))
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A text that is kept: it must not keep everything alive that was read with it.
fn own(bytes: &[u8]) -> Text {
    Text::parse(Bytes::copy_from_slice(bytes))
}

fn sid(bytes: &[u8]) -> Result<Text, Error> {
    if bytes.len() > SID_MAX {
        return Err(Error::BadArguments);
    }
    Ok(own(bytes))
}

fn subscribe(line: &[u8], verb_len: usize) -> Result<Op, Error> {
    let (args, count) = arguments(line, verb_len).ok_or(Error::BadArguments)?;
    let argument = |at: usize| &line[args[at].clone()];
    let (queue, sid_at) = match count {
        2 => (None, 1),
        3 => (Some(own(argument(1))), 2),
        _ => return Err(Error::BadArguments),
    };
    let sid = sid(argument(sid_at))?;
    let subject = own(argument(0));
    if !is_pattern(&subject) {
        return Err(Error::InvalidSubject);
    }
    Ok(Op::Sub { subject, queue, sid })
}

fn unsubscribe(line: &[u8], verb_len: usize) -> Result<Op, Error> {
    let (args, count) = arguments(line, verb_len).ok_or(Error::BadArguments)?;
    let argument = |at: usize| &line[args[at].clone()];
    let max = match count {
        1 => None,
        2 => Some(number(argument(1)).ok_or(Error::BadArguments)? as u64).filter(|max| *max > 0),
        _ => return Err(Error::BadArguments),
    };
    Ok(Op::Unsub { sid: sid(argument(0))?, max })
}

fn put_number(out: &mut BytesMut, number: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// Appends a delivery: `MSG`, or `HMSG` when there is a header.
pub fn put_message(
    out: &mut BytesMut,
    subject: &str,
    sid: &str,
    reply: Option<&str>,
    header: &[u8],
    payload: &[u8],
) {
    out.reserve(subject.len() + sid.len() + reply.map_or(0, str::len) + header.len() + payload.len() + 48);
    out.put_slice(if header.is_empty() { b"MSG " } else { b"HMSG " });
    put_text(out, subject);
    out.put_u8(b' ');
    put_text(out, sid);
    out.put_u8(b' ');
    if let Some(reply) = reply {
        put_text(out, reply);
        out.put_u8(b' ');
    }
    if !header.is_empty() {
        put_number(out, header.len());
        out.put_u8(b' ');
    }
    put_number(out, header.len() + payload.len());
    out.put_slice(b"\r\n");
    out.put_slice(header);
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Appends `-ERR 'text'`.
pub fn put_error(out: &mut BytesMut, text: &str) {
    out.put_slice(b"-ERR '");
    put_text(out, text);
    out.put_slice(b"'\r\n");
}

/// The value of a header, by name without regard to case; the first one counts.
pub fn header_value<'a>(header: &'a [u8], name: &str) -> Option<&'a str> {
    for line in header.split(|b| *b == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        if line[..colon].eq_ignore_ascii_case(name.as_bytes()) {
            return std::str::from_utf8(&line[colon + 1..]).ok().map(str::trim);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Op>, Option<Error>) {
        let mut parser = Parser::new(1024);
        let mut buf = BytesMut::from(bytes);
        let mut ops = Vec::new();
        loop {
            match parser.next(&mut buf) {
                Ok(Some(op)) => ops.push(op),
                Ok(None) => return (ops, None),
                Err(error) if error.is_fatal() => return (ops, Some(error)),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn runs_of_blanks_and_lower_case_verbs_are_understood() {
        let (ops, error) = all(b"pub a.b  4\r\nabcd\r\nSUB x  3\r\nUNSUB 3 \r\nping\r\n");
        assert_eq!(error, None);
        assert_eq!(ops.len(), 4);
        assert_eq!(
            ops[0],
            Op::Pub {
                subject: "a.b".into(),
                reply: None,
                header: Bytes::new(),
                payload: Bytes::from_static(b"abcd")
            }
        );
    }

    #[test]
    fn a_header_of_length_zero_is_no_header() {
        let (ops, _) = all(b"HPUB s r 0 2\r\nhi\r\nHPUB s 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        assert!(matches!(&ops[0], Op::Pub { header, .. } if header.is_empty()));
        assert!(
            matches!(&ops[1], Op::Pub { header, payload, .. } if header.len() == 12 && &payload[..] == b"hi")
        );
    }

    #[test]
    fn operations_arrive_whole_however_the_bytes_are_cut() {
        let stream = b"SUB a.* q 1\r\nHPUB s 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\nPUB a 0\r\n\r\n";
        let (whole, _) = all(stream);
        let mut parser = Parser::new(1024);
        let mut buf = BytesMut::new();
        let mut ops = Vec::new();
        for byte in stream {
            buf.put_u8(*byte);
            while let Some(op) = parser.next(&mut buf).unwrap() {
                ops.push(op);
            }
        }
        assert_eq!(ops, whole);
        assert_eq!(ops.len(), 4);
    }

    #[test]
    fn bad_lines_name_their_fault() {
        assert_eq!(all(b"HELLO\r\n").1, Some(Error::UnknownOperation));
        assert_eq!(all(b"PUB a 99999\r\n").1, Some(Error::PayloadTooLarge));
        assert_eq!(all(b"PUB a -1\r\n").1, Some(Error::BadArguments));
        assert_eq!(all(b"HPUB a 5 4\r\n").1, Some(Error::BadArguments));
        assert_eq!(all(&[b'a'; 5000]).1, Some(Error::ControlLineTooLong));
        assert_eq!(all(b"PUB a..b 1\r\nx\r\nPING\r\n").0, [Op::Ping]);
    }

    #[test]
    fn header_values_are_found_without_regard_to_case() {
        let block = b"NATS/1.0\r\nNats-Msg-Id: 7\r\nA:b:c\r\n\r\n";
        assert_eq!(header_value(block, "nats-msg-id"), Some("7"));
        assert_eq!(header_value(block, "a"), Some("b:c"));
        assert_eq!(header_value(block, "b"), None);
    }
}
