//! `services/gateway/docs/first-client.md`: every block of it is run, in its order.

use crate::harness::{Answer, Shell, Stack, binary};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Language and text of each fenced block.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((language, block))) => open = Some((language, format!("{block}{line}\n"))),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn run(shell: &Shell, program: &str, args: &[&str], file: &Path, environment: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(program);
    command.args(args).arg(file).current_dir(&shell.home).stdin(Stdio::null());
    command.env("HOME", &shell.home).env("FAFNIR_URL", &shell.url).env("FAFNIR_DATA_DIR", &shell.data_dir);
    command.env("NO_COLOR", "1").envs(environment.iter().copied());
    let bin = Path::new(binary().get_program()).parent().unwrap().to_owned();
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    Answer::of(command.output().unwrap())
}

#[test]
fn every_block_of_the_page_does_what_it_says() {
    if !has("curl") || !has("bash") {
        eprintln!("skipped: curl and bash are not here");
        return;
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/gateway/docs/first-client.md");
    let page = fs::read_to_string(page).unwrap();
    let stack = Stack::up(&[]);
    let shell = stack.shell("reader");
    fs::create_dir_all(&shell.home).unwrap();
    let here = |text: &str| {
        let address = shell.url.trim_start_matches("http://");
        text.replace("localhost:8080", address)
    };
    let all = blocks(&page);
    let of = |language: &str| -> Vec<String> {
        all.iter().filter(|(l, _)| l == language).map(|(_, text)| here(text)).collect()
    };
    let (sh, js, python) = (of("sh"), of("js"), of("python"));
    assert_eq!((sh.len(), js.len(), python.len(), all.len()), (6, 2, 1, 9), "a block that nobody runs");

    // All but the last, which ends the key; what they set is handed on to the programs.
    let (last, first) = sh.split_last().unwrap();
    let script = shell.home.join("page.sh");
    let text = format!("set -euo pipefail\n{}\necho \"key $ID $SECRET\"\n", first.concat());
    fs::write(&script, text).unwrap();
    let answer = run(&shell, "bash", &[], &script, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    for said in ["\"price\"", "\"code\":\"OK\"", "\"email\":\"user@test.com\"", "user@test.com"] {
        assert!(answer.stdout.contains(said), "{said}: {answer:?}");
    }
    assert!(!answer.stdout.contains("\"errors\""), "{answer:?}");
    let key = answer.stdout.lines().rev().find_map(|line| line.strip_prefix("key ")).unwrap();
    let (id, secret) = key.split_once(' ').unwrap();
    assert!(id.starts_with("PK") && secret.len() == 40, "{key}");
    let environment = [("ID", id), ("SECRET", secret)];

    if has("node") {
        let file = shell.home.join("page.mjs");
        fs::write(&file, js.concat()).unwrap();
        // Of age in Node 22; a flag before.
        let answer = run(&shell, "node", &["--experimental-websocket"], &file, &environment);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.stdout.contains("orders 1") && answer.stdout.contains("book AAPL"), "{answer:?}");
    } else {
        eprintln!("skipped: node is not here");
    }
    if has("python3") {
        let file = shell.home.join("page.py");
        fs::write(&file, python.concat()).unwrap();
        let answer = run(&shell, "python3", &[], &file, &environment);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.stdout.contains("canceled AAPL OK"), "{answer:?}");
    } else {
        eprintln!("skipped: python3 is not here");
    }
    fs::write(&script, format!("set -euo pipefail\nID={id}\n{last}")).unwrap();
    let answer = run(&shell, "bash", &[], &script, &[]);
    assert!(answer.code == 0 && answer.stdout.contains("is revoked"), "{answer:?}");
}
