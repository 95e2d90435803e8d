//! `fafnir config`: what is in force, and where it comes from.

use crate::{
    args::{Config, Global},
    output::{Out, Result, table},
    settings,
};
use fafnir_services::platform::config::{explained, without_password};
use serde_json::json;

pub fn config(global: &Global, args: &Config, out: Out) -> Result {
    if args.explain {
        let page = explained();
        out.data(&json!({"page": page}), || page.clone());
        return Ok(());
    }
    let layers = settings::layers(global, &[])?;
    layers.settings()?;
    let document: serde_json::Map<_, _> = layers
        .entries()
        .map(|(key, value, origin)| {
            let value = shown(value);
            let entry = if args.show_origin {
                json!({"value": value, "origin": origin.to_string()})
            } else {
                json!(value)
            };
            (key.to_owned(), entry)
        })
        .collect();
    out.data(&document.into(), || {
        if args.show_origin {
            let rows: Vec<_> = layers
                .entries()
                .map(|(k, v, o)| vec![k.to_owned(), shown(v).to_string(), o.to_string()])
                .collect();
            table(&["KEY", "VALUE", "ORIGIN"], &rows)
        } else {
            layers.entries().fold(String::new(), |text, (k, v, _)| text + &format!("{k} = {}\n", shown(v)))
        }
    });
    Ok(())
}

/// A value without the passwords that stand in its URLs.
fn shown(value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::String(text) => without_password(text).into(),
        other => other.clone(),
    }
}
