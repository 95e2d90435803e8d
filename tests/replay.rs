//! `fafnir replay` on the journal of a real stack, and on flows.

use crate::harness::{Answer, Stack, binary};
use serde_json::Value;
use std::{fs, path::Path};

/// The binary form's first bytes.
const FLOW_MAGIC: &[u8] = b"\0FAFWL01";

fn replay(dir: &Path, args: &[&str]) -> Answer {
    Answer::of(binary().arg("replay").args(args).arg("--json").current_dir(dir).output().unwrap())
}

/// The refusal's machine code and sentence.
fn refusal(answer: &Answer) -> (String, String) {
    assert_ne!(answer.code, 0, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.stderr).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    (
        body["error"]["code"].as_str().unwrap().to_owned(),
        body["error"]["message"].as_str().unwrap().to_owned(),
    )
}

fn market<'a>(found: &'a Value, symbol: &str) -> &'a Value {
    let markets = found["state"]["markets"].as_array().unwrap();
    markets.iter().find(|m| m["symbol"] == symbol).unwrap_or_else(|| panic!("{found}"))
}

fn copy_of(engine: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(engine).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_real_journal_replays_to_the_state_of_the_engine_that_wrote_it() {
    let mut stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    seller.json(&["order", "place", "sell", "NVDA", "30", "--price", "148.00"]);
    buyer.json(&["order", "place", "buy", "NVDA", "10", "--price", "148.00", "--wait", "20"]);
    let audit = buyer.audit();
    let data = stack.data_dir();
    let d = &stack.dir.path().to_owned();

    // While the engine runs.
    let found = replay(d, &[data.to_str().unwrap()]).json();
    assert_eq!(found["state"]["position"], audit["position"]);
    let hash = &found["state"]["hash"];
    let sequence = found["state"]["sequence"].as_u64().unwrap();
    let nvda = market(&found, "NVDA");
    assert_eq!((&nvda["trades"], &nvda["ask"], &nvda["last"]), (&1.into(), &"148".into(), &"148".into()));
    assert!(found["facts"]["agreed"].as_u64().unwrap() > 0 && found["facts"]["firstThatDiffers"].is_null());

    // Before the trade: at its sequence and at its time.
    let before = (sequence - 1).to_string();
    let earlier = replay(d, &[data.to_str().unwrap(), "--to", &before, "--symbol", "nvda"]).json();
    assert_eq!(market(&earlier, "NVDA")["trades"], 0);
    assert_eq!(earlier["book"]["asks"][0]["quantity"], "30");
    assert_eq!(earlier["book"]["askOrders"][0]["open"], "30");
    let time = earlier["state"]["time"].as_str().unwrap();
    let at = replay(d, &[data.to_str().unwrap(), "--at", time]).json();
    assert_eq!(
        (&at["state"]["sequence"], &at["state"]["hash"]),
        (&earlier["state"]["sequence"], &earlier["state"]["hash"])
    );
    let (code, _) = refusal(&replay(d, &[data.to_str().unwrap(), "--to", "1000000"]));
    assert_eq!(code, "BEYOND_THE_JOURNAL");

    let crashed = d.join("crashed");
    stack.process.kill();
    copy_of(&data.join("exchange"), &crashed);
    assert_eq!(&replay(d, &["crashed"]).json()["state"]["hash"], hash);

    // Stopped in order it leaves a snapshot, which the replay checks.
    stack.restart(&["--no-sim"]);
    assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
    let whole = replay(d, &[data.to_str().unwrap()]).json();
    assert!(whole["snapshots"].as_array().unwrap().iter().all(|s| s["agrees"] == true), "{whole}");
    assert!(!whole["snapshots"].as_array().unwrap().is_empty(), "{whole}");

    two_runs_are_compared(d, &data, sequence);
    what_can_be_stepped_is_not_skipped(d, &data, sequence);
    damage_is_named(d, &crashed);
}

/// A run against itself, and against a shorter one.
fn two_runs_are_compared(d: &Path, data: &Path, sequence: u64) {
    let same = replay(d, &["crashed", "--against", "crashed"]).json();
    assert_eq!((&same["sameRecords"], &same["difference"]), (&sequence.into(), &Value::Null));
    let longer = replay(d, &["crashed", "--against", data.to_str().unwrap()]);
    if longer.code != 0 {
        assert_eq!(refusal(&longer).0, "RUNS_DIFFER");
    }
    let cut = replay(d, &["crashed", "--against", data.to_str().unwrap(), "--to", &sequence.to_string()]);
    assert_eq!(cut.json()["sameRecords"], sequence);
}

fn what_can_be_stepped_is_not_skipped(d: &Path, data: &Path, sequence: u64) {
    let skip = |record: u64| {
        let args = ["journal", "skip", &record.to_string(), "--json", "--data-dir", data.to_str().unwrap()];
        refusal(&Answer::of(binary().args(args).current_dir(d).output().unwrap()))
    };
    let (code, message) = skip(sequence);
    assert_eq!(code, "RECORD_NOT_SKIPPED");
    assert!(message.contains("can be stepped"), "{message}");
    let (code, message) = skip(1_000_000);
    assert!(
        code == "RECORD_NOT_SKIPPED" && message.contains("beyond the journal's last record"),
        "{message}"
    );
}

fn damage_is_named(d: &Path, crashed: &Path) {
    let journal = fs::read_dir(crashed).unwrap().map(|e| e.unwrap().path());
    let journal = journal
        .into_iter()
        .find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("journal-"))
        .unwrap();
    let bytes = fs::read(&journal).unwrap();
    // In the payload of the first frame: whole frames of later batches follow.
    let mut damaged = bytes.clone();
    damaged[62] ^= 4;
    fs::write(&journal, &damaged).unwrap();
    let (code, message) = refusal(&replay(d, &["crashed"]));
    assert_eq!(code, "JOURNAL_DAMAGED");
    assert!(message.contains(journal.file_name().unwrap().to_str().unwrap()), "{message}");
    assert!(message.contains("offset 32, sequence 1: the checksum does not match"), "{message}");
    // A tail that is cut short is what a crash leaves: the replay ends before it and says so.
    fs::write(&journal, &bytes[..bytes.len() - 5]).unwrap();
    let torn = replay(d, &[journal.to_str().unwrap()]);
    let found: Value = serde_json::from_str(&torn.stdout).unwrap();
    assert!(found["tornBytes"].as_u64().unwrap() > 0, "{found}");
}

#[test]
fn a_recorded_flow_and_a_binary_one_go_straight_into_the_book() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let csv = "time_ms,event,order_id,side,price_ticks,quantity_lots\n\
        1,new,10,B,100,5\n2,new,11,S,99,3\n2,trade,,,100,3\n2,filled,11,S,99,0\n2,changed,10,B,100,2\n";
    fs::write(d.join("flow.csv"), csv).unwrap();
    let found = replay(d, &["--flow", "flow.csv"]).json();
    assert_eq!((&found["trades"], &found["equalTrades"], &found["lines"]), (&1.into(), &1.into(), &5.into()));

    let flow = fafnir_matching::flow::generate(7, 2, 50, 5_000, &mut |_| {});
    let mut bytes = Vec::new();
    flow.write(&mut bytes).unwrap();
    assert!(bytes.starts_with(FLOW_MAGIC));
    fs::write(d.join("flow"), &bytes).unwrap();
    let found = replay(d, &["--flow", "flow"]).json();
    assert_eq!((&found["reproduced"], &found["trades"]), (&true.into(), &flow.h.trades.into()));
    let (code, message) = refusal(&replay(d, &["--flow", "nowhere"]));
    assert!(code == "FLOW_FILE" && message.starts_with("nowhere: "), "{message}");
    fs::write(d.join("cut"), &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(refusal(&replay(d, &["--flow", "cut"])).0, "FLOW_FILE");
    // A header that promises other trades.
    bytes[48] ^= 1;
    fs::write(d.join("other"), &bytes).unwrap();
    assert_eq!(refusal(&replay(d, &["--flow", "other"])).0, "FLOW_MISMATCH");
    fs::write(d.join("broken.csv"), csv.replace("2,new,11,S,99,3", "2,new,x,S,99,3")).unwrap();
    let (_, message) = refusal(&replay(d, &["--flow", "broken.csv"]));
    assert!(message.contains("line 3"), "{message}");
}
