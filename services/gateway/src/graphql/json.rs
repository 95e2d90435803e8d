//! Writes a response as JSON, exact decimals as the numbers that they are.

use async_graphql::{Response, Value};

/// The answer's body.
pub fn response(response: &Response) -> String {
    let mut out = String::with_capacity(256);
    out.push_str("{\"data\":");
    value(&mut out, &response.data);
    if !response.errors.is_empty() {
        out.push_str(",\"errors\":");
        plain(&mut out, &response.errors);
    }
    if !response.extensions.is_empty() {
        out.push_str(",\"extensions\":");
        plain(&mut out, &response.extensions);
    }
    out.push('}');
    out
}

fn plain(out: &mut String, value: &impl serde::Serialize) {
    // Errors and extensions hold texts and numbers only.
    out.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
}

/// Appends one value.
fn value(out: &mut String, this: &Value) {
    match this {
        Value::Enum(name) if name.starts_with(|c: char| c.is_ascii_digit() || c == '-') => out.push_str(name),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (name, field)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                plain(out, &name.as_str());
                out.push(':');
                value(out, field);
            }
            out.push('}');
        }
        other => plain(out, other),
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
        let text = super::response(&Response::new(data));
        assert_eq!(
            text,
            r#"{"data":{"a":[1,null,true,"1.5\n"],"side":"BUY","amount":-9223372036854.775808}}"#
        );
    }
}
