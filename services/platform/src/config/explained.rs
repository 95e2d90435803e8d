//! Every key with what it is for, as a file of settings: what the structs' own documentation says, and the defaults.

use super::{Layers, environment_name};
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use std::fmt::Write as _;

/// Columns of a comment.
const COLUMNS: usize = 116;

/// A `fafnir.toml` that sets every key to its default, with the key's meaning and its environment variable above it.
pub fn explained() -> String {
    let schemas = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
    let root = Json::from(schemas.into_root_schema_for::<super::Settings>());
    let defaults = Layers::default();
    let mut text = String::from("# Every setting with its default. A file names only what is to differ.\n");
    // Keys without a table stand before the first one.
    for is_nested in [false, true] {
        let mut table = "";
        for (key, value, _) in defaults.entries().filter(|(key, ..)| key.contains('.') == is_nested) {
            let (of, name) = key.rsplit_once('.').unwrap_or(("", key));
            if of != table {
                table = of;
                let _always = write!(text, "\n{}[{table}]\n", comment(meaning(&root, table)));
            } else if !text.ends_with("]\n") {
                text.push('\n');
            }
            text += &comment(meaning(&root, key));
            let _always = write!(text, "# {}\n{name} = {}\n", environment_name(key), value);
        }
    }
    text
}

/// What the documentation of a key's field says; of a table its struct's, where the field has none.
fn meaning<'a>(root: &'a Json, key: &str) -> &'a str {
    let schema = key.split('.').fold(root, |schema, name| &schema["properties"][name]);
    schema["description"].as_str().unwrap_or_default()
}

/// The text as lines of a comment.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > COLUMNS {
            lines += &line;
            lines.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line += word;
    }
    if line.len() > 1 {
        lines += &line;
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Settings, Value};

    #[test]
    fn every_key_is_explained() {
        let schemas = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
        let root = Json::from(schemas.into_root_schema_for::<Settings>());
        let silent: Vec<String> = Layers::default()
            .entries()
            .filter(|(key, ..)| meaning(&root, key).is_empty())
            .map(|(key, ..)| key.to_owned())
            .collect();
        assert!(silent.is_empty(), "without a word: {silent:?}");
    }

    #[test]
    fn the_page_of_the_deployments_is_what_is_printed() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deployments/fafnir.toml");
        let kept = std::fs::read_to_string(page).unwrap();
        assert!(kept == explained(), "write it anew: fafnir config --explain > deployments/fafnir.toml");
    }

    #[test]
    fn the_page_is_a_file_of_settings_that_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fafnir.toml");
        std::fs::write(&file, explained()).unwrap();
        let mut layers = Layers::default();
        layers.file(&file).unwrap();
        let defaults = Layers::default();
        let values = |layers: &Layers| -> Vec<(String, Value)> {
            layers.entries().map(|(key, value, _)| (key.to_owned(), value.clone())).collect()
        };
        assert_eq!(values(&layers), values(&defaults));
        // The values alone would be the same if it named none.
        assert!(layers.entries().all(|(_, _, origin)| *origin != Origin::Default));
    }
}
