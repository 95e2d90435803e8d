//! A deleted user's personal data is nowhere on the disk once its retention is over.

use crate::stack::{DEADLINE, Stack, request};
use axum::http::{Method, StatusCode};
use fafnir_platform::Service;
use fafnir_services::ALL;
use futures::TryStreamExt as _;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const EMAIL: &str = "quixotic.zebra@erasure.example";
const FIRST: &str = "Quillhelmina";
const LAST: &str = "Zebrafischer";
const BROWSER: &str = "ErasureProbe/7.7";
const PASSWORD: &str = "Password123";
/// Sessions are pruned a day after they would have ended, which is 14 days after they began.
const RETENTION_S: i64 = 16 * 24 * 3600;
/// What stream `users` keeps messages for in this test.
const MESSAGES_KEPT: Duration = Duration::from_millis(200);
/// A database is first looked at, and its log emptied, some seconds after the start.
const LOOKED_WITHIN: Duration = Duration::from_secs(30);

fn services() -> Vec<&'static Service> {
    ALL.iter().copied().filter(|s| !matches!(s.name, "api-gateway" | "simulator")).collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Which of the texts are in which files.
fn there(dir: &Path, texts: &[String]) -> BTreeSet<(String, String)> {
    let (mut all, mut found) = (Vec::new(), BTreeSet::new());
    files(dir, &mut all);
    for path in all {
        // One that goes while it is looked at holds nothing.
        let bytes = fs::read(&path).unwrap_or_default();
        for text in texts.iter().filter(|t| bytes.windows(t.len()).any(|w| w == t.as_bytes())) {
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            found.insert((name, text.clone()));
        }
    }
    found
}

#[tokio::test]
async fn nothing_personal_of_a_deleted_user_is_left_on_the_disk() {
    let stack = Stack::start(&services()).await;
    if stack.is_on_server() {
        // What a server overwrites, and when, is the server's own.
        stack.stop().await;
        return;
    }
    let url = stack.url("auth-service").to_owned();
    let post = async |path: &str, headers: &[(&str, &str)], body: serde_json::Value| {
        let json = [("content-type", "application/json"), ("user-agent", BROWSER)];
        let headers = [&json[..], headers].concat();
        request(Method::POST, &format!("{url}{path}"), &headers, &body.to_string()).await
    };
    let who = serde_json::json!({"email": EMAIL, "password": PASSWORD, "firstName": FIRST, "lastName": LAST});
    assert_eq!(post("/auth/register", &[], who).await.status, StatusCode::CREATED);
    let login = serde_json::json!({"email": EMAIL, "password": PASSWORD});
    let token = [("accept", "application/vnd.fafnir.token+json, application/json;q=0.5")];
    let signed_in = post("/auth/login", &token, login).await;
    assert_eq!(signed_in.status, StatusCode::OK, "{signed_in:?}");
    let bearer = format!("Bearer {}", signed_in.json()["accessToken"].as_str().unwrap());
    let dir = stack.data_dir();
    let hash = hash_in(&dir);
    let texts = [EMAIL, FIRST, LAST, BROWSER, &hash].map(str::to_owned);
    let places = there(&dir, &texts);
    for (place, text) in [
        ("db/auth-service", EMAIL),
        ("db/auth-service", LAST),
        ("db/auth-service", BROWSER),
        ("db/auth-service", hash.as_str()),
        ("db/user-service", FIRST),
        ("broker/", EMAIL),
    ] {
        let is_there = places.iter().any(|(at, what)| at.starts_with(place) && what == text);
        assert!(is_there, "{text} is not in {place}: the test looks in the wrong place; {places:?}");
    }
    let headers = [("authorization", bearer.as_str())];
    let deleted = request(Method::DELETE, &format!("{url}/auth/delete"), &headers, "").await;
    assert!(deleted.status.is_success(), "{deleted:?}");
    // Every service takes it, and says so.
    let bus = stack.running.context.bus().await.unwrap();
    let users = bus.jetstream().get_stream("users").await.unwrap();
    let taken = async {
        loop {
            let all: Vec<_> = users.consumers().try_collect().await.unwrap();
            if all.iter().all(|c| c.num_pending == 0 && c.num_ack_pending == 0) {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.expect("the services take what was deleted");
    drop((users, bus));

    // Its retention passes.
    stack.time.advance(RETENTION_S);
    let stack = stack.restart(&services(), |_| {}).await;
    let bus = stack.running.context.bus().await.unwrap();
    let mut users = bus.jetstream().get_stream("users").await.unwrap();
    let mut config = users.info().await.unwrap().config.clone();
    (config.max_age, config.duplicate_window) = (MESSAGES_KEPT, MESSAGES_KEPT);
    bus.jetstream().update_stream(config).await.unwrap();
    let empty = async { while users.info().await.unwrap().state.messages > 0 {} };
    tokio::time::timeout(DEADLINE, empty).await.expect("the messages go");
    // The look behind the start empties the databases' logs.
    let until = Instant::now() + LOOKED_WITHIN;
    let log = |name: &str| fs::metadata(dir.join(format!("db/{name}.sqlite-wal"))).map_or(0, |m| m.len());
    // One after the other, and what is written next is in them again.
    let mut full = vec!["auth-service", "user-service"];
    while !full.is_empty() {
        assert!(Instant::now() < until, "the logs of the databases are not emptied");
        full.retain(|name| log(name) > 0);
        tokio::task::yield_now().await;
    }
    let ended = stack.ended().await;
    let left = there(ended.path(), &texts);
    assert!(left.is_empty(), "still there: {left:?}");
}

/// The password's hash, as it is stored: the only one.
fn hash_in(dir: &Path) -> String {
    const MARK: &[u8] = b"$argon2id$";
    let log = fs::read(dir.join("db/auth-service.sqlite-wal")).unwrap();
    let at = log.windows(MARK.len()).position(|w| w == MARK).expect("a password was stored");
    let is_of_hash = |b: &&u8| b.is_ascii_alphanumeric() || b"$=,+/".contains(*b);
    // What follows in the row are the names.
    let hash: Vec<u8> = log[at..].iter().take_while(is_of_hash).copied().collect();
    String::from_utf8(hash).unwrap().split(FIRST).next().unwrap().to_owned()
}
