//! The directions of the architecture, read off the sources and manifests.

use std::{
    fs,
    path::{Path, PathBuf},
};

const SERVICES: [&str; 9] =
    ["auth", "gateway", "order", "portfolio", "security", "simulator", "stock", "trade_engine", "user"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The code without comments, and without its unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_service_never_imports_another_service() {
    for service in SERVICES {
        let own = sources(&root().join("services/src").join(service));
        assert!(!own.is_empty(), "{service} has no sources");
        for (path, text) in own {
            for other in SERVICES.iter().filter(|o| **o != service) {
                let wrong = format!("crate::{other}::");
                assert!(!code(&text).contains(&wrong), "{} names {wrong}", path.display());
            }
        }
    }
}

#[test]
fn sql_lives_in_stores_and_the_platform_only() {
    let is_store = |path: &Path| {
        let text = path.to_string_lossy();
        text.contains("/platform/db")
            || text.ends_with("/platform/testing.rs")
            || text.ends_with("/store.rs")
            || text.contains("/store/")
    };
    for (path, text) in sources(&root().join("services/src")) {
        let code = code(&text);
        for word in ["\"SELECT ", "\"INSERT INTO ", "\"UPDATE ", "\"DELETE FROM "] {
            assert!(is_store(&path) || !code.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn a_store_never_names_another_services_tables() {
    let tables = |service: &str| -> Vec<String> {
        let dir = root().join("services/migrations").join(service);
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        let sql: String = entries.map(|e| fs::read_to_string(e.unwrap().path()).unwrap()).collect();
        let after = |line: &str| {
            let name = line.trim().strip_prefix("CREATE TABLE ")?;
            Some(name.split([' ', '(']).next()?.to_owned())
        };
        sql.lines().filter_map(after).collect()
    };
    // Named alike in several services, each with its own.
    let shared = ["outbox", "inbox", "dead_letter", "schema_migrations"];
    for service in SERVICES {
        let own = tables(service);
        let foreign: Vec<_> = SERVICES.iter().filter(|o| **o != service).flat_map(|o| tables(o)).collect();
        let dir = root().join("services/src").join(service);
        for (path, text) in sources(&dir) {
            for table in foreign.iter().filter(|t| !own.contains(t) && !shared.contains(&t.as_str())) {
                for word in ["FROM", "INTO", "UPDATE", "JOIN"] {
                    let wrong = format!("{word} {table} ");
                    assert!(!code(&text).contains(&wrong), "{} names {table}", path.display());
                }
            }
        }
    }
}

#[test]
fn rules_are_pure() {
    let mut rules = sources(&root().join("services/matching/src"));
    rules.retain(|(path, _)| {
        !path.components().any(|c| matches!(c.as_os_str().to_str(), Some("flow" | "bench")))
            && !path.ends_with("bench.rs")
    });
    for service in SERVICES {
        let dir = root().join("services/src").join(service);
        rules.extend(
            sources(&dir)
                .into_iter()
                .filter(|(p, _)| p.ends_with("domain.rs") || p.to_string_lossy().contains("/domain/")),
        );
    }
    assert!(rules.len() > 5);
    for (path, text) in rules {
        // A hash map for look-ups is fine, its order is not: a file that has one says so and never walks it.
        let states_it = text.contains("never iterated");
        let code = code(&text);
        assert!(
            states_it || !code.contains("HashMap") && !code.contains("HashSet"),
            "{} hashes",
            path.display()
        );
        for wrong in ["tonic::", "tokio::", "SystemTime", "Instant::now", "f64", "f32", "rand::"] {
            assert!(!code.contains(wrong), "{} names {wrong}", path.display());
        }
    }
}

#[test]
fn the_terminal_and_the_contract_do_not_know_the_services() {
    for manifest in
        ["tui/Cargo.toml", "proto/Cargo.toml", "services/matching/Cargo.toml", "services/broker/Cargo.toml"]
    {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        assert!(!text.contains("fafnir-services"), "{manifest}");
    }
    let matching = fs::read_to_string(root().join("services/matching/Cargo.toml")).unwrap();
    let dependencies = matching.split("[dependencies]").nth(1).unwrap().split('[').next().unwrap().trim();
    assert!(dependencies.is_empty(), "matching depends on {dependencies}");
}

#[test]
fn the_top_level_shows_only_the_house() {
    const NAMES: [&str; 10] = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "cli",
        "deployments",
        "proto",
        "seeds",
        "services",
        "tui",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known =
            name.starts_with('.') || name == "target" || name == "tests" || NAMES.contains(&name.as_str());
        assert!(known, "{name} stands at the top level");
    }
}
