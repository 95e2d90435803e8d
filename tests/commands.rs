//! Every command under a snapshot: what it prints for people, as JSON, and when it is used wrongly. A command that is not
//! in the table fails the test.

mod table;

use crate::harness::{Answer, Shell, Stack, WITHIN};
use regex::Regex;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};
use table::{Row, Who};

/// Elements of an array, and lines that are alike, that a snapshot of a shape keeps.
const ALIKE_MAX: usize = 1;
/// Price of a sell and a buy that meet.
const MEETS: &str = "231";

/// One stack with an administrator and a user.
struct Scene {
    stack: Stack,
    user: Shell,
    admin: Shell,
    /// Somebody who never signed in.
    nobody: Shell,
    fresh: AtomicU32,
}

impl Scene {
    fn new() -> Self {
        let stack = Stack::up(&["--no-sim"]);
        let (user, admin) = (stack.signed_in("user@test.com"), stack.signed_in("admin@test.com"));
        let nobody = stack.shell("nobody");
        let scene = Self { stack, user, admin, nobody, fresh: AtomicU32::new(0) };
        scene.trade();
        let filled = |fills: &Value| fills.as_array().is_some_and(|fills| !fills.is_empty());
        scene.user.until(&["fills"], "the first fill", filled);
        fs::create_dir_all(scene.dir()).unwrap();
        fs::write(scene.dir().join("bars.csv"), table::BARS).unwrap();
        // What a command reads from standard input is a password.
        fs::write(scene.dir().join("password"), "Password123\n").unwrap();
        scene
    }

    fn dir(&self) -> PathBuf {
        self.stack.dir.path().join("scene")
    }

    /// The administrator sells a share to the user.
    fn trade(&self) {
        self.admin.run(&["order", "place", "sell", "AAPL", "1", "--price", MEETS]);
        self.user.run(&["order", "place", "buy", "AAPL", "1", "--price", MEETS]);
    }

    fn number(&self) -> u32 {
        self.fresh.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn field(&self, args: &[&str], field: &str) -> String {
        let answer = self.user.json(args);
        answer[field].as_str().unwrap_or_else(|| panic!("{field}: {answer}")).to_owned()
    }

    fn resting(&self) -> String {
        let id = self.field(&["order", "place", "buy", "AAPL", "1", "--price", "200"], "id");
        self.user.until(&["order", "show", &id], "the order in the book", |order| order["state"] == "NEW");
        id
    }

    /// What stands for a word of the table.
    fn word(&self, word: &str) -> String {
        let path = |name: String| self.dir().join(name).display().to_string();
        match word {
            "{order}" => self.resting(),
            "{ended}" => {
                let id = self.resting();
                self.user.run(&["order", "cancel", &id]);
                let ended = |order: &Value| order["state"] == "CANCELED";
                self.user.until(&["order", "show", &id], "the end of the order", ended);
                id
            }
            "{group}" => {
                let bracket = [
                    "order", "group", "bracket", "AAPL", "1", "--price", "200", "--target", "240", "--stop",
                    "190",
                ];
                self.field(&bracket, "groupId")
            }
            "{usd}" => "0b5f3c9e-5d0e-4c57-9d51-3f2a8c1e7a01".to_owned(),
            "{chequing}" => "0b5f3c9e-5d0e-4c57-9d51-3f2a8c1e7a03".to_owned(),
            "{opened}" => self.field(&["account", "open", "savings", "USD"], "id"),
            "{key}" => self.field(&["key", "create", "bot"], "id"),
            "{session}" => {
                self.stack.shell(&format!("elsewhere{}", self.number())).sign_in("user@test.com");
                let sessions = self.user.json(&["session", "list"]);
                let other = sessions.as_array().unwrap().iter().find(|s| s["current"] == false);
                other.unwrap_or_else(|| panic!("{sessions}"))["id"].as_str().unwrap().to_owned()
            }
            "{alert}" => {
                self.user.run(&["alert", "add", "AAPL", "300"]);
                "300".to_owned()
            }
            "{fresh}" => format!("fresh{}@example.com", self.number()),
            "{stranger}" => {
                let email = self.word("{fresh}");
                let register = ["register", "--email", &email, "--first-name", "Ada", "--last-name", "Byron"];
                let answer = self.run(&self.nobody, &[&register[..], &["--password-stdin"]].concat());
                assert_eq!(answer.code, 0, "{answer:?}");
                email
            }
            "{operations}" => {
                let run = fs::read_to_string(self.stack.data_dir().join("run.json")).unwrap();
                let run: Value = serde_json::from_str(&run).unwrap();
                let address = run["operations"]["api-gateway"].as_str().unwrap();
                address.trim_end_matches('/').rsplit(':').next().unwrap().to_owned()
            }
            "{new}" => path(format!("new{}", self.number())),
            "{made}" => {
                let dir = path(format!("made{}", self.number()));
                fs::create_dir_all(&dir).unwrap();
                dir
            }
            "{bars}" => path("bars.csv".to_owned()),
            _ => word.to_owned(),
        }
    }

    /// Runs a command with a password on its standard input, which may stay unread.
    fn run(&self, shell: &Shell, args: &[&str]) -> Answer {
        let input = fs::File::open(self.dir().join("password")).unwrap();
        Answer::of(command(shell, args).stdin(input).output().unwrap())
    }

    /// Runs a command that waits for something to happen, and lets it happen until the command has ended.
    fn run_stirred(&self, shell: &Shell, args: &[&str]) -> Answer {
        let mut command = command(shell, args);
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let until = Instant::now() + WITHIN;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() >= until {
                child.kill().unwrap();
                panic!("{args:?} does not end: {:?}", Answer::of(child.wait_with_output().unwrap()));
            }
            self.trade();
        }
        Answer::of(child.wait_with_output().unwrap())
    }

    /// A line of a snapshot and below it what the command answered.
    fn told(&self, row: &Row, args: &str, json: bool) -> String {
        let shell = match row.who {
            Who::User => &self.user,
            Who::Admin => &self.admin,
            Who::Nobody => &self.nobody,
        };
        let said: Vec<&str> = row.path.split(' ').chain(args.split_whitespace()).collect();
        let words: Vec<String> = said.iter().map(|word| self.word(word)).collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(json.then_some("--json"));
        let is_right = args == row.args;
        let answer =
            if row.stirs && is_right { self.run_stirred(shell, &words) } else { self.run(shell, &words) };
        let shape = row.shape && is_right;
        let dir = self.stack.dir.path().display().to_string();
        let told = |text: &str| redacted(&text.replace(&dir, "[DIR]"), shape);
        // What is watched is JSON whatever the format is, and its first change is one of several.
        let stdout = match (row.stirs && is_right, json) {
            (true, _) => told(&names(&answer.stdout)),
            (false, true) => told(&documents(&answer.stdout, shape)),
            (false, false) => told(&answer.stdout),
        };
        let (flag, code, stderr) = (if json { " --json" } else { "" }, answer.code, told(&answer.stderr));
        format!("$ fafnir {}{flag}\nexit {code}\n--- stdout\n{stdout}--- stderr\n{stderr}\n", said.join(" "))
    }

    fn snapshot(&self, row: &Row) -> String {
        let right = if row.why.is_empty() {
            self.told(row, row.args, false) + &self.told(row, row.args, true)
        } else {
            format!("not run here: {}\n\n", row.why)
        };
        right + &self.told(row, row.wrong, false)
    }
}

/// With an environment that is the same everywhere.
fn command(shell: &Shell, args: &[&str]) -> Command {
    let mut command = shell.command(args);
    command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    command
}

/// One JSON document, or one on each line, so that a difference is a line; of a shape the first of what is alike.
fn documents(text: &str, shape: bool) -> String {
    let pretty = |mut value: Value| {
        if shape {
            cut(&mut value);
        }
        serde_json::to_string_pretty(&value).unwrap()
    };
    if let Ok(whole) = serde_json::from_str(text) {
        return pretty(whole);
    }
    let lines = text.lines().map(|line| serde_json::from_str(line).map_or_else(|_| line.to_owned(), pretty));
    lines.collect::<Vec<_>>().join("\n")
}

/// The names of the fields of the JSON document on each line.
fn names(text: &str) -> String {
    let of = |line: &str| {
        let document: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
        Some(document.keys().cloned().collect::<Vec<_>>().join(" ") + "\n")
    };
    text.lines().map(|line| of(line).unwrap_or_else(|| format!("{line}\n"))).collect()
}

fn cut(value: &mut Value) {
    match value {
        Value::Array(elements) => {
            elements.truncate(ALIKE_MAX);
            elements.iter_mut().for_each(cut);
        }
        Value::Object(fields) => fields.values_mut().for_each(cut),
        Value::Number(_) | Value::Null => *value = 0.into(),
        _ => {}
    }
}

/// Without what is another at each run. A shape has no number either, nor the dash that stands for one, and lines that
/// are alike once.
fn redacted(text: &str, shape: bool) -> String {
    let mut text = text.to_owned();
    for (what, with) in [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[ID]"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[TIME]"),
        (r"\d{4}-\d\d-\d\d", "[DATE]"),
        (r"(?:127\.0\.0\.1|localhost):\d+", "[ADDRESS]"),
        (r"\bA[A-Z0-9]{55}\b", "[NKEY]"),
        (r"\bPK[A-Z0-9]{18}\b", "[KEY]"),
        (r#"(secret  |"secret": "|\[KEY\]:)[A-Za-z0-9_-]{20,}"#, "$1[SECRET]"),
        (r"[0-9a-f]{64}", "[HASH]"),
        (r"\b[0-9a-f]{32}\b", "[TRACE]"),
        (r"process \d+", "process [PID]"),
        (r"(fresh|new|made)\d+", "$1[N]"),
        // A consumer that the library named.
        (r#"(facts +|"name": ")[A-Za-z0-9]{8}\b"#, "$1[NAME]"),
        (r#"("(?:accountNumber|sequence)": "?)\d+"#, "$1[N]"),
    ] {
        text = Regex::new(what).unwrap().replace_all(&text, with).into_owned();
    }
    if shape {
        text = Regex::new(r"[-+]?\d(?:[\d,.]*\d)?").unwrap().replace_all(&text, "#").into_owned();
        text = Regex::new(r"(?m)  -(  |$)").unwrap().replace_all(&text, "  #$1").into_owned();
    }
    // A time has as many digits as it needs: columns beside one move.
    let moves = shape || text.contains("[TIME]");
    let spaces = Regex::new(r"(\S) {2,}").unwrap();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = if moves { spaces.replace_all(line, "$1  ").into_owned() } else { line.to_owned() };
        if !shape || lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// The commands that have none below them, by the snapshot of their helps.
fn leaves() -> BTreeSet<String> {
    let helps = include_str!("snapshots/help.snap");
    let paths: BTreeSet<String> = helps
        .lines()
        .filter_map(|line| line.strip_prefix("$ fafnir ")?.strip_suffix("--help"))
        .map(|path| path.trim().to_owned())
        .filter(|path| !path.is_empty())
        .collect();
    let is_leaf = |path: &&String| !paths.iter().any(|other| other.starts_with(&format!("{path} ")));
    paths.iter().filter(is_leaf).cloned().collect()
}

#[test]
fn what_is_another_at_each_run_is_taken_for_one_thing() {
    // The public key of an issuer may have in it what an API key begins with, and did.
    let issuer = "ADO55KO3IKIPK7QZ2M4NBVCXLKJHGFDSAPOIUYTREWQZXCVBNMLKJHGF";
    let text = format!("{issuer}\n{{\n  \"issuer\": \"{issuer}\"\n}}\n");
    assert_eq!(redacted(&text, false), "[NKEY]\n{\n  \"issuer\": \"[NKEY]\"\n}\n");
    let (key, secret) = ("PK0123456789ABCDEFGH", "2026PK3456789ABCDEFGHIJabcdefghijklmnop0");
    let text = format!("id  {key}\nsecret  {secret}\nFAFNIR_KEY={key}:{secret}\n");
    assert_eq!(redacted(&text, false), "id  [KEY]\nsecret  [SECRET]\nFAFNIR_KEY=[KEY]:[SECRET]\n");
}

#[test]
fn every_command_prints_what_its_snapshot_says() {
    let rows: BTreeSet<String> = table::ROWS.iter().map(|row| row.path.to_owned()).collect();
    // `broker` and `sim` run by themselves, and have others below them.
    let more = BTreeSet::from(["broker".to_owned(), "sim".to_owned()]);
    assert_eq!(rows, &leaves() | &more, "a command that is new needs a row here");
    assert_eq!(rows.len(), table::ROWS.len(), "a command has one row");
    let scene = Scene::new();
    let texts: Vec<(String, String)> =
        table::ROWS.iter().map(|row| (row.path.replace([' ', '-'], "_"), scene.snapshot(row))).collect();
    let settings = {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("snapshots/commands");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings
    };
    settings.bind(|| {
        for (name, text) in &texts {
            insta::assert_snapshot!(name.as_str(), text);
        }
    });
}
