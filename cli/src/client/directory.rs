//! A `fafnir.toml` of the current directory that has a word in where passwords and tokens go: it may be anybody's.

use super::{Error, Exit, Global, Reason, Result, settings};
use fafnir_disk::whole;
use fafnir_services::platform::{
    config::{Layers, Origin},
    secrets::create_private_dir,
    tls::Trust,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

/// What was agreed to: this file may send passwords and tokens there, to whom this authority has believed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Agreed {
    file: PathBuf,
    url: String,
    authority: String,
}

/// Asks where one of the keys that decided about `url` and `trust` comes from the current directory, and was not agreed to
/// before. The answer is kept.
pub fn check(
    global: &Global,
    layers: &Layers,
    keys: &[&str],
    url: &str,
    trust: &Trust,
    may_ask: bool,
) -> Result {
    let here = Path::new(settings::DIRECTORY_FILE);
    let is_of_here = |origin: &Origin| matches!(origin, Origin::File(file) if file == here);
    let decided: Vec<&str> = layers
        .entries()
        .filter(|(key, _, origin)| keys.contains(key) && is_of_here(origin))
        .map(|(key, ..)| key)
        .collect();
    // --config is the caller's own word.
    if decided.is_empty() || global.config.is_some() {
        return Ok(());
    }
    let file = std::path::absolute(here)?;
    let authority = match trust {
        Trust::System => "the system".to_owned(),
        Trust::Authority(path) => std::path::absolute(path)?.display().to_string(),
    };
    let agreed = Agreed { file: file.clone(), url: url.to_owned(), authority: authority.clone() };
    let mut known = read();
    if known.contains(&agreed) {
        return Ok(());
    }
    let mut what = format!("{} ({}) has this go to {url}", file.display(), decided.join(", "));
    if url.starts_with("https://") {
        what.push_str(&format!(", believed by {authority}"));
    }
    if !global.trust_directory {
        if !may_ask || !std::io::stdin().is_terminal() {
            return Err(Error::new(Exit::Usage, what)
                .code(Reason::CONFIGURATION)
                .hint("--trust-directory accepts it from now on; --url and --config name another"));
        }
        let mut stderr = std::io::stderr();
        write!(stderr, "{what}.\nGo on, from now on without asking? [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Error::new(Exit::Usage, "nothing was sent").code(Reason::CONFIGURATION));
        }
    }
    known.insert(agreed);
    write_known(&known)
}

fn path() -> PathBuf {
    settings::state_dir().join("directories.json")
}

/// A file that cannot be read counts as none: it is asked again.
fn read() -> BTreeSet<Agreed> {
    fs::read(path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write_known(known: &BTreeSet<Agreed>) -> Result {
    create_private_dir(&settings::state_dir())?;
    let text = serde_json::to_vec_pretty(known).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    Ok(whole::write(&path(), &text, whole::PRIVATE)?)
}
