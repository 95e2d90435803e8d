//! From flags, environment and files to the settings in force.

use crate::{
    args::Global,
    output::{Error, Exit, Result},
};
use fafnir_proto::reason::Reason;
use fafnir_services::platform::{
    Settings,
    config::{Layers, environment_name},
};
use std::{collections::BTreeSet, path::PathBuf};

impl From<fafnir_services::platform::config::Error> for Error {
    fn from(e: fafnir_services::platform::config::Error) -> Self {
        Self::new(Exit::Usage, e.to_string())
            .code(Reason::CONFIGURATION)
            .hint("`fafnir config --show-origin` shows what is in force")
    }
}

/// The configuration of the directory that a command is started in.
pub const DIRECTORY_FILE: &str = "fafnir.toml";

/// Merges the layers; `flags` are `(key, value)` of the command itself.
pub fn layers(global: &Global, flags: &[(&str, Option<String>)]) -> Result<Layers> {
    let mut layers = Layers::default();
    layers.file(&user_file())?;
    match &global.config {
        Some(path) if !path.exists() => {
            return Err(Error::usage(format!("{}: no such file", path.display()))
                .hint("--config names the configuration file"));
        }
        Some(path) => layers.file(path)?,
        None => layers.file(&PathBuf::from(DIRECTORY_FILE))?,
    }
    layers.environment(std::env::vars())?;
    if let Some(dir) = &global.data_dir {
        layers.flag("data_dir", &dir.to_string_lossy())?;
    }
    for (key, value) in flags {
        if let Some(value) = value {
            layers.flag(key, value)?;
        }
    }
    Ok(layers)
}

/// The settings that the layers amount to.
pub fn settings(global: &Global, flags: &[(&str, Option<String>)]) -> Result<Settings> {
    Ok(layers(global, flags)?.settings()?)
}

/// Whether logs are JSON, as far as that can be told: a configuration that cannot be read may be why somebody asks.
pub fn logs_json(global: &Global) -> bool {
    let configured = layers(global, &[]).ok().and_then(|layers| {
        let format = layers.entries().find(|(key, ..)| *key == "log.format")?.1.to_string();
        Some(format.trim_matches('"').to_owned())
    });
    let named = configured.or_else(|| std::env::var("FAFNIR_LOG_FORMAT").ok()).or_else(|| {
        let file = global.config.clone().unwrap_or_else(|| PathBuf::from(DIRECTORY_FILE));
        let table: toml::Table = toml::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
        Some(table.get("log")?.get("format")?.as_str()?.to_owned())
    });
    named.is_some_and(|format| format == "json")
}

/// Variables of our prefix that are no settings: what a command, its shell or a test takes, and secrets.
const OTHER_VARIABLES: [&str; 6] = [
    "FAFNIR_BIN",
    "FAFNIR_URL",
    "FAFNIR_KEY",
    "FAFNIR_KEY_FILE",
    "FAFNIR_AUTHORITY",
    crate::complete::VARIABLE,
];
const OTHER_PREFIXES: [&str; 2] = ["FAFNIR_SECRET_", "FAFNIR_TEST_"];

/// Those of `names` that look like ours and mean nothing: a name that was mistyped.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: BTreeSet<String> =
        Layers::default().entries().map(|(key, ..)| environment_name(key)).collect();
    let is_other = |name: &str| {
        OTHER_VARIABLES.contains(&name) || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let ours = names.filter(|name| name.starts_with("FAFNIR_"));
    ours.filter(|name| !known.contains(name) && !is_other(name)).collect()
}

/// `$XDG_CONFIG_HOME/fafnir/fafnir.toml`.
pub fn user_file() -> PathBuf {
    xdg("XDG_CONFIG_HOME", ".config").join("fafnir").join("fafnir.toml")
}

/// `$XDG_STATE_HOME/fafnir`.
pub fn state_dir() -> PathBuf {
    xdg("XDG_STATE_HOME", ".local/state").join("fafnir")
}

fn xdg(variable: &str, fallback: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set(variable).unwrap_or_else(|| set("HOME").unwrap_or_else(|| PathBuf::from(".")).join(fallback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_found_among_those_that_mean_something() {
        let names = [
            "FAFNIR_DATADIR",
            "FAFNIR_DATA_DIR",
            "FAFNIR_SECRET_JWT_KEY",
            "FAFNIR_TEST_X",
            "FAFNIR_BIN",
            "HOME",
        ];
        let found = unknown_variables(names.into_iter().map(str::to_owned));
        assert_eq!(found, ["FAFNIR_DATADIR"]);
    }
}
