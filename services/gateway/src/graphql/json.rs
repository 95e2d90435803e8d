//! Writes a response as JSON, exact decimals as the numbers that they are.
//!
//! Bytes in a response are items of a list that are text already ([`super::list`]): they leave as they are, uncopied.

use async_graphql::{Response, Value};
use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// An answer's body in pieces; each is gone once it was sent.
#[derive(Debug, Default)]
pub struct Pieces(VecDeque<Bytes>);

impl Pieces {
    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// All of it at once.
    pub fn text(self) -> String {
        let mut bytes = Vec::with_capacity(self.len());
        self.0.iter().for_each(|piece| bytes.extend_from_slice(piece));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// The answer's body.
pub fn response(response: &Response) -> Pieces {
    let mut out = Writer { text: String::with_capacity(256), pieces: Pieces::default() };
    out.text.push_str("{\"data\":");
    out.value(&response.data);
    if !response.errors.is_empty() {
        out.text.push_str(",\"errors\":");
        plain(&mut out.text, &response.errors);
    }
    if !response.extensions.is_empty() {
        out.text.push_str(",\"extensions\":");
        plain(&mut out.text, &response.extensions);
    }
    out.text.push('}');
    out.cut();
    out.pieces
}

/// Appends texts, numbers, and what is made of them.
pub fn plain(out: &mut String, value: &impl serde::Serialize) {
    // Neither fails.
    out.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
}

struct Writer {
    text: String,
    pieces: Pieces,
}

impl Writer {
    /// What was written so far is a piece.
    fn cut(&mut self) {
        if !self.text.is_empty() {
            self.pieces.0.push_back(std::mem::take(&mut self.text).into());
        }
    }

    fn value(&mut self, this: &Value) {
        match this {
            Value::Enum(name) if name.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                self.text.push_str(name);
            }
            Value::Binary(items) => {
                self.cut();
                self.pieces.0.push_back(items.clone());
            }
            Value::List(items) => {
                self.text.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.text.push(',');
                    }
                    self.value(item);
                }
                self.text.push(']');
            }
            Value::Object(fields) => {
                self.text.push('{');
                for (i, (name, field)) in fields.iter().enumerate() {
                    if i > 0 {
                        self.text.push(',');
                    }
                    plain(&mut self.text, &name.as_str());
                    self.text.push(':');
                    self.value(field);
                }
                self.text.push('}');
            }
            other => plain(&mut self.text, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::{Name, value};

    #[test]
    fn decimals_are_written_as_numbers_and_texts_as_texts() {
        let mut data = value!({"a": [1, null, true, "1.5\n"], "side": "?"});
        if let Value::Object(fields) = &mut data {
            fields.insert(Name::new("side"), Value::Enum(Name::new("BUY")));
            fields.insert(Name::new("amount"), Value::Enum(Name::new("-9223372036854.775808")));
        }
        let text = super::response(&Response::new(data)).text();
        assert_eq!(
            text,
            r#"{"data":{"a":[1,null,true,"1.5\n"],"side":"BUY","amount":-9223372036854.775808}}"#
        );
    }

    #[test]
    fn items_that_are_text_leave_as_they_are() {
        let items = Bytes::from_static(br#"{"id":1},{"id":2}"#);
        let list = Value::List(vec![Value::Binary(items.clone()), Value::Binary(Bytes::from_static(b"3"))]);
        let pieces = super::response(&Response::new(Value::List(vec![list])));
        assert_eq!(pieces.size_hint().exact(), Some(pieces.len() as u64));
        assert!(pieces.0.iter().any(|piece| piece.as_ptr() == items.as_ptr()), "not copied");
        assert_eq!(pieces.text(), r#"{"data":[[{"id":1},{"id":2},3]]}"#);
    }
}
