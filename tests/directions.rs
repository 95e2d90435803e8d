//! The directions of the architecture that Cargo cannot hold, and that the manifests say what it should hold.
//!
//! Sources are looked at word by word, comments, strings and unit tests left out, so that no form of import escapes. Each
//! check is a function over sources or manifests in memory; beside the real tree it is given a planted violation.

use fafnir_proto::reason::Reason;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const SERVICES: [&str; 9] =
    ["auth", "gateway", "order", "portfolio", "security", "simulator", "stock", "trade_engine", "user"];

/// A source file: path from the root, text.
type Source = (String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The `.rs` files below `dir`.
fn sources(dir: &str) -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), &mut found);
    assert!(!found.is_empty(), "{dir} has no sources");
    found
}

fn planted(path: &str, text: &str) -> Vec<Source> {
    vec![(path.to_owned(), text.to_owned())]
}

/// What one character of a source belongs to.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Code,
    Text,
    Comment,
}

/// Every character with what it belongs to. Knows nested comments, raw strings, and characters beside lifetimes.
fn classified(text: &str) -> Vec<(char, In)> {
    let all: Vec<char> = text.chars().collect();
    let (mut found, mut i) = (Vec::with_capacity(all.len()), 0);
    let starts = |i: usize, what: &str| what.chars().enumerate().all(|(n, c)| all.get(i + n) == Some(&c));
    while i < all.len() {
        let (end, kind) = if starts(i, "//") {
            ((i..all.len()).find(|n| all[*n] == '\n').unwrap_or(all.len()), In::Comment)
        } else if starts(i, "/*") {
            let (mut n, mut depth) = (i, 0);
            loop {
                if starts(n, "/*") {
                    (n, depth) = (n + 2, depth + 1);
                } else if starts(n, "*/") {
                    (n, depth) = (n + 2, depth - 1);
                } else {
                    n += 1;
                }
                if depth == 0 || n >= all.len() {
                    break (n.min(all.len()), In::Comment);
                }
            }
        } else if let Some(end) = string_end(&all, i) {
            (end, In::Text)
        } else {
            (i + 1, In::Code)
        };
        found.extend(all[i..end].iter().map(|c| (*c, kind)));
        i = end;
    }
    found
}

/// Where the string or character that begins at `i` ends; none begins there: `None`.
fn string_end(all: &[char], i: usize) -> Option<usize> {
    let word_before = i > 0 && (all[i - 1].is_alphanumeric() || all[i - 1] == '_');
    match all[i] {
        'r' if !word_before || (i > 0 && all[i - 1] == 'b') => {
            let hashes = all[i + 1..].iter().take_while(|c| **c == '#').count();
            (all.get(i + 1 + hashes) == Some(&'"')).then(|| {
                let mut n = i + 2 + hashes;
                while n < all.len()
                    && !(all[n] == '"'
                        && all[n + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes)
                {
                    n += 1;
                }
                (n + 1 + hashes).min(all.len())
            })
        }
        '"' => {
            let mut n = i + 1;
            while n < all.len() && all[n] != '"' {
                n += if all[n] == '\\' { 2 } else { 1 };
            }
            Some((n + 1).min(all.len()))
        }
        '\'' if all.get(i + 1) == Some(&'\\') => (i + 3..all.len()).find(|n| all[*n] == '\'').map(|n| n + 1),
        '\'' if all.get(i + 2) == Some(&'\'') => Some(i + 3),
        _ => None,
    }
}

/// The text with its unit tests (`#[cfg(test)] mod … { … }`) left out.
fn without_tests(text: &str) -> String {
    let all = classified(text);
    let code: String = all.iter().map(|(c, kind)| if *kind == In::Code { *c } else { ' ' }).collect();
    let code: Vec<char> = code.chars().collect();
    let mut kept = String::new();
    let mut i = 0;
    while i < code.len() {
        let rest: String = code[i..code.len().min(i + 40)].iter().collect();
        if rest.starts_with("#[cfg(test)]") && rest["#[cfg(test)]".len()..].trim_start().starts_with("mod ") {
            let open = (i..code.len()).find(|n| code[*n] == '{' || code[*n] == ';').unwrap_or(code.len() - 1);
            let (mut n, mut depth) = (open, 0);
            while n < code.len() {
                depth += i32::from(code[n] == '{') - i32::from(code[n] == '}');
                n += 1;
                if depth == 0 {
                    break;
                }
            }
            i = n;
        } else {
            kept.push(all[i].0);
            i += 1;
        }
    }
    kept
}

/// The words of the code alone.
fn words(text: &str) -> BTreeSet<String> {
    let code: String = classified(&without_tests(text))
        .into_iter()
        .map(|(c, kind)| if kind == In::Code { c } else { ' ' })
        .collect();
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The strings of the code, each on its own.
fn strings(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut last = In::Code;
    for (c, kind) in classified(&without_tests(text)) {
        if kind == In::Text && last != In::Text {
            all.push(String::new());
        }
        if let (In::Text, Some(text)) = (kind, all.last_mut()) {
            text.push(c);
        }
        last = kind;
    }
    all
}

/// Files that use one of the words.
fn naming(sources: &[Source], forbidden: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let words = words(text);
        found.extend(forbidden.iter().filter(|w| words.contains(**w)).map(|w| format!("{path} names {w}")));
    }
    found
}

fn is_store(path: &str) -> bool {
    path.starts_with("services/platform/src/db") || path.ends_with("/store.rs") || path.contains("/store/")
}

fn sql_outside_stores(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_store(path)) {
        for text in strings(text) {
            let statement = text.trim_start_matches(['r', '#', '"', '\\', '\n', ' ']);
            for word in ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "] {
                if statement.starts_with(word) {
                    found.push(format!("{path} has {text}"));
                }
            }
        }
    }
    found
}

fn tables(sql: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let name = line.trim().strip_prefix("CREATE TABLE ")?;
        Some(name.split([' ', '(']).next()?.to_owned())
    };
    sql.lines().filter_map(name).collect()
}

/// Statements of `sources` over tables that are another service's.
fn foreign_tables(sources: &[Source], own: &BTreeSet<String>, others: &BTreeSet<String>) -> Vec<String> {
    // Named alike in several services, each with its own.
    let shared = ["outbox", "inbox", "dead_letter", "schema_migrations"];
    let mut found = Vec::new();
    for (path, text) in sources {
        let text = strings(text).join(" ");
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let table = pair[1];
            if matches!(pair[0], "FROM" | "INTO" | "UPDATE" | "JOIN")
                && others.contains(table)
                && !own.contains(table)
                && !shared.contains(&table)
            {
                found.push(format!("{path} names {table}"));
            }
        }
    }
    found
}

/// Crates of this workspace that a manifest depends on outside its tests.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let of = |section: &str| manifest.get(section).and_then(|t| t.as_table()).cloned().unwrap_or_default();
    let all = of("dependencies").into_iter().chain(of("build-dependencies"));
    all.filter_map(|(name, _)| name.strip_prefix("fafnir-").map(str::to_owned)).collect()
}

/// Dependencies that are not allowed.
fn wrong_dependencies(name: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let known = dependencies(manifest);
    known
        .iter()
        .filter(|d| !allowed.contains(&d.as_str()))
        .map(|d| format!("{name} depends on {d}"))
        .collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn crates_depend_downwards_only() {
    let mut allowed: Vec<(String, Vec<&str>)> = vec![
        ("proto".into(), vec!["rules", "tls"]),
        ("tui".into(), vec!["proto", "rules"]),
        ("services/rules".into(), vec![]),
        ("services/matching".into(), vec![]),
        ("services/market".into(), vec!["matching", "rules"]),
        ("services/disk".into(), vec![]),
        ("services/heap".into(), vec![]),
        ("services/tls".into(), vec![]),
        ("services/broker".into(), vec!["disk", "tls"]),
        ("services/testing".into(), vec![]),
        ("services/platform".into(), vec!["disk", "proto", "rules", "tls"]),
    ];
    for service in SERVICES {
        let below = match service {
            "trade_engine" => vec!["clearing", "disk", "matching"],
            "simulator" => vec!["market"],
            _ => vec![],
        };
        allowed.push((format!("services/{service}"), [vec!["platform", "proto", "rules"], below].concat()));
    }
    for (name, allowed) in allowed {
        let manifest = fs::read_to_string(root().join(&name).join("Cargo.toml"));
        // A crate that is still to come.
        let Ok(manifest) = manifest else { continue };
        assert_eq!(wrong_dependencies(&name, &manifest, &allowed), NOTHING);
    }
    let planted =
        "[dependencies]\nfafnir-platform.workspace = true\n[dependencies.fafnir-order]\npath = \"x\"\n";
    assert_eq!(wrong_dependencies("gateway", planted, &["platform"]), ["gateway depends on order"]);
}

#[test]
fn sql_lives_in_stores_and_the_platform_only() {
    assert_eq!(
        sql_outside_stores(
            &sources("services")[..].iter().filter(|(p, _)| !is_test(p)).cloned().collect::<Vec<_>>()
        ),
        NOTHING
    );
    let hidden = "fn f() { run(\n  \"\\\n   DELETE FROM orders\") }";
    assert_eq!(sql_outside_stores(&planted("services/order/src/api.rs", hidden)).len(), 1);
    assert_eq!(sql_outside_stores(&planted("services/order/src/store/x.rs", hidden)), NOTHING);
}

fn is_test(path: &str) -> bool {
    path.starts_with("services/testing/")
        || path.contains("/tests/")
        || path.ends_with("_test.rs")
        || path.ends_with("/tests.rs")
        || path.ends_with("/testing.rs")
}

#[test]
fn a_store_never_names_another_services_tables() {
    let of = |service: &str| -> BTreeSet<String> {
        let dir = root().join("services").join(service).join("migrations");
        let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
        tables(&entries.map(|e| fs::read_to_string(e.unwrap().path()).unwrap()).collect::<String>())
    };
    assert!(of("order").contains("orders"));
    for service in SERVICES {
        let others = SERVICES.iter().filter(|o| **o != service).flat_map(|o| of(o)).collect();
        let dir = format!("services/{service}/src");
        assert_eq!(foreign_tables(&sources(&dir), &of(service), &others), NOTHING);
    }
    let planted = planted("x", "const Q: &str = r#\"SELECT id FROM\n  orders\"#;");
    assert_eq!(foreign_tables(&planted, &of("user"), &of("order")), ["x names orders"]);
}

/// What rules never see.
const IMPURE: [&str; 9] =
    ["tonic", "prost", "tokio", "SystemTime", "Instant", "f64", "f32", "rand", "getrandom"];

/// A hash map for look-ups is fine, its order is not: a file that has one says so and never walks it.
fn unordered(sources: &[Source]) -> Vec<String> {
    let silent: Vec<Source> =
        sources.iter().filter(|(_, t)| !t.contains("never iterated")).cloned().collect();
    naming(&silent, &["HashMap", "HashSet"])
}

#[test]
fn rules_are_pure() {
    let mut rules = sources("services/matching/src");
    // The benchmark's own clock.
    rules.retain(|(path, _)| !path.contains("/flow/") && !path.ends_with("bench.rs"));
    for crate_of_rules in ["services/rules/src", "services/clearing/src"] {
        if root().join(crate_of_rules).exists() {
            rules.extend(sources(crate_of_rules));
        }
    }
    for service in SERVICES {
        let own = sources(&format!("services/{service}/src"));
        rules.extend(own.into_iter().filter(|(p, _)| p.ends_with("/domain.rs") || p.contains("/domain/")));
    }
    rules.retain(|(path, _)| !is_test(path));
    assert!(rules.len() > 5);
    assert_eq!(naming(&rules, &IMPURE), NOTHING);
    assert_eq!(unordered(&rules), NOTHING);
    let nested = "use std::{collections::{BTreeMap, HashMap}, sync::Arc};\nuse {fafnir_proto::v1, tonic::{Code, Status}};";
    assert_eq!(naming(&planted("domain.rs", nested), &IMPURE), ["domain.rs names tonic"]);
    assert_eq!(unordered(&planted("domain.rs", nested)), ["domain.rs names HashMap"]);
    let harmless = "// tonic\n/* f64 /* f32 */ */ const A: &str = r#\"tokio\"#; const B: char = '\"'; #[cfg(test)]\nmod tests { use rand; }";
    assert_eq!(naming(&planted("domain.rs", harmless), &IMPURE), NOTHING);
}

/// How the subjects of the bus begin: proto/src/subject.rs is their only home.
const SUBJECTS: [&str; 10] = [
    "market.book",
    "market.trades",
    "market.quotes",
    "market.*",
    "market.>",
    "orders.exec",
    "private.",
    "users.registered",
    "users.deleted",
    "_INBOX",
];
/// Those of one word, which begin other texts too.
const SUBJECTS_OF_A_WORD: [&str; 6] =
    ["users.*", "users.>", "users.{", "instruments.*", "instruments.>", "instruments.{"];

fn subjects(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        for text in strings(text) {
            let bare = text.trim_start_matches(['b', 'r', '#', '"']);
            if SUBJECTS.iter().chain(&SUBJECTS_OF_A_WORD).any(|s| bare.starts_with(s)) {
                found.push(format!("{path} has {text}"));
            }
        }
    }
    found
}

#[test]
fn subjects_of_the_bus_stand_once() {
    let mut all = [sources("services"), sources("tui/src"), sources("cli/src")].concat();
    all.retain(|(path, _)| path.contains("/src/") && !is_test(path) && !path.starts_with("services/broker/"));
    assert!(all.len() > 100);
    assert_eq!(subjects(&all), NOTHING);
    let hidden = "fn f(t: &str) { (format!(\n r#\"orders.exec.{t}\"#), \"users.toml\"); } // \"market.>\"";
    assert_eq!(subjects(&planted("x", hidden)), ["x has r#\"orders.exec.{t}\"#"]);
    assert_eq!(subjects(&planted("x", "const A: &str = \"instruments.*\";")).len(), 1);
}

/// Spelled like a refusal code.
fn is_code(text: &str) -> bool {
    let good =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.split('_').all(good)
}

/// What makes, reads or carries a refusal code: a call with it among its arguments, or a field.
const REFUSING: [&str; 16] = [
    "new",
    "invalid",
    "out_of_range",
    "not_found",
    "exists",
    "precondition",
    "exhausted",
    "unavailable",
    "refuse",
    "reject",
    "refused",
    "code",
    "told",
    "read",
    "known",
    "reason",
];

/// Codes in letters: known ones wherever they stand, and any that is handed to what refuses.
fn codes_in_letters(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let all = classified(&without_tests(text));
        // The word before each parenthesis that is open.
        let (mut open, mut word, mut i) = (Vec::new(), String::new(), 0);
        while i < all.len() {
            let (c, kind) = all[i];
            if kind == In::Text {
                let length = all[i..].iter().take_while(|(_, kind)| *kind == In::Text).count();
                let text: String = all[i..i + length].iter().map(|(c, _)| c).collect();
                let text = text.trim_matches('"');
                let told = open.last().is_some_and(|w: &String| REFUSING.contains(&w.as_str()));
                let known = text.contains('_') && Reason::known(text).is_some();
                if known || (is_code(text) && (told || REFUSING.contains(&word.as_str()))) {
                    found.push(format!("{path} has {text}"));
                }
                i += length;
                continue;
            }
            match c {
                _ if kind == In::Comment => {}
                '(' => open.push(std::mem::take(&mut word)),
                ')' => drop(open.pop()),
                c if c.is_alphanumeric() || c == '_' => word.push(c),
                // `reason: "…"` and `reason == "…"` belong to the word before.
                ':' | '=' | ' ' | '\n' if word == "reason" => {}
                _ => word.clear(),
            }
            i += 1;
        }
    }
    found
}

#[test]
fn refusal_codes_stand_once() {
    let mut all = [sources("services"), sources("tui/src"), sources("cli/src")].concat();
    // The broker and the book stand alone: their words become codes where the engine and the command line read them.
    let alone = ["services/broker/", "services/matching/"];
    all.retain(|(path, _)| {
        path.contains("/src/") && !is_test(path) && !alone.iter().any(|dir| path.starts_with(dir))
    });
    let unused: Vec<&str> = {
        let used: BTreeSet<String> = all.iter().flat_map(|(_, text)| words(text)).collect();
        Reason::ALL.iter().map(|(reason, _)| reason.as_str()).filter(|code| !used.contains(*code)).collect()
    };
    assert_eq!(unused, NOTHING, "nobody refuses with these");
    // The codes of REST are public-api.md's; one of them is spelled like one of ours.
    all.retain(|(path, _)| path != "services/platform/src/envelope.rs");
    assert_eq!(codes_in_letters(&all), NOTHING);
    let hidden = "fn f() { Err(Refusal::new(\n Kind::Invalid,\n \"MOON_NOT_FULL\", format!(\"no\"))) } // invalid(\"A_B\")";
    assert_eq!(codes_in_letters(&planted("x", hidden)), ["x has MOON_NOT_FULL"]);
    assert_eq!(codes_in_letters(&planted("x", "x.code(\"MOON\")")), ["x has MOON"]);
    assert_eq!(codes_in_letters(&planted("x", "if r.reason == \"FULL_MOON\" {}")).len(), 1);
    assert_eq!(codes_in_letters(&planted("x", "let s = (1, \"PRICE_OFF_TICK\");")).len(), 1);
    assert_eq!(codes_in_letters(&planted("x", "table(&[\"SYMBOL\", \"USER\"]); new(\"Mixed\")")), NOTHING);
}

#[test]
fn the_terminal_never_sees_a_service() {
    let services: Vec<String> = SERVICES.iter().map(|s| format!("fafnir_{s}")).collect();
    let mut forbidden: Vec<&str> = services.iter().map(String::as_str).collect();
    forbidden.extend(["fafnir_services", "fafnir_platform"]);
    assert_eq!(naming(&sources("tui/src"), &forbidden), NOTHING);
    assert_eq!(naming(&planted("x", "use {fafnir_order as o};"), &forbidden).len(), 1);
}

#[test]
fn the_top_level_shows_only_the_house() {
    const NAMES: [&str; 12] = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "cli",
        "deployments",
        "proto",
        "seeds",
        "services",
        "target",
        "tests",
        "tui",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = name.starts_with('.') || NAMES.contains(&name.as_str());
        assert!(known, "{name} stands at the top level");
    }
}
