//! A disk that fills up and has room again, and a platform that is copied while it trades and brought back elsewhere.

use crate::{
    harness::{Answer, Stack, WITHIN, binary},
    kills::{CONFIG, Killed},
};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};
use tempfile::TempDir;

/// A file system of a bounded size, gone with it.
struct Small(TempDir);

impl Small {
    /// `None` where this user may not mount.
    fn mounted(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "fafnir-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("left out: this user may not mount a file system");
        None
    }

    fn dir(&self) -> TempDir {
        tempfile::tempdir_in(self.0.path()).unwrap()
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Leaves so many free bytes; 0: not one.
    fn leave(&self, bytes: u64) {
        let mut file = File::create(self.ballast()).unwrap();
        let part = vec![0_u8; 64 * 1024];
        let free = |path: &Path| {
            let found = rustix::fs::statvfs(path).unwrap();
            found.f_bavail * found.f_frsize
        };
        while free(self.0.path()) > bytes {
            let now = (free(self.0.path()) - bytes).min(part.len() as u64) as usize;
            if file.write_all(&part[..now.max(1)]).is_err() {
                break;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: what was on it may end a moment later.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// Nothing is refused before the disk itself refuses it.
const NO_LIMITS: &str = "[disk]\nalarm_mib = 0\ncancel_only_mib = 0\nread_only_mib = 0\n";

/// Asks until it is as wanted.
fn until<T>(mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + WITHIN;
    loop {
        match ask() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < end, "{last}"),
        }
    }
}

/// Asks until an order is refused, as the disk takes nothing, by a process that lives.
fn refuses_writes(killed: &mut Killed) {
    let said = until(|| killed.takes_an_order().map_or_else(Ok, |()| Err("orders are taken".to_owned())));
    let codes = ["JOURNAL_UNWRITABLE", "DISK_FULL"];
    assert!(codes.iter().any(|code| said.contains(code)), "{said}");
    assert!(killed.stack().process.is_running(), "{}", killed.stack().process.log());
}

/// Eight clients while the disk is full to the last byte: FAFNIR_TEST_FULL is how often, 2 by default.
#[test]
fn a_full_disk_loses_nothing_and_trading_goes_on_by_itself_when_there_is_room() {
    let Some(small) = Small::mounted(160) else { return };
    let rounds = std::env::var("FAFNIR_TEST_FULL").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let config = format!("{CONFIG}\n{NO_LIMITS}");
    let mut killed = Killed::on(Stack::configured_in(small.dir(), &config, &["--no-sim"]));
    for _ in 0..rounds {
        killed.under_traffic(|_| small.leave(0));
        refuses_writes(&mut killed);
        small.make_room();
        until(|| killed.takes_an_order());
        assert!(killed.stack().process.is_running(), "{}", killed.stack().process.log());
        killed.check();
    }
    killed.check_all();
    let data = killed.stack().data_dir();
    assert_eq!(killed.stack().process.interrupt(), Some(0), "{}", killed.stack().process.log());
    Answer::of(binary().args(["replay", "--json"]).arg(data).output().unwrap()).json();
}

/// Builds what makes a file system read-only for a program; `None` without a compiler.
fn read_only_for(dir: &Path) -> Option<PathBuf> {
    let (source, made) = (concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/read_only.c"), dir.join("ro.so"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&made).arg(source).status();
    if built.is_ok_and(|status| status.success()) {
        return Some(made);
    }
    let is_required = std::env::var("FAFNIR_TEST_REQUIRE_EXTERNAL").is_ok_and(|v| v == "1");
    assert!(!is_required, "cc must be there");
    println!("skipped: there is no C compiler");
    None
}

#[test]
fn a_file_system_that_turns_read_only_loses_nothing_and_trading_goes_on_by_itself() {
    let Some(small) = Small::mounted(160) else { return };
    let tools = tempfile::tempdir().unwrap();
    let Some(library) = read_only_for(tools.path()) else { return };
    let flag = tools.path().join("read-only");
    let environment = [
        ("LD_PRELOAD", library.as_path()),
        ("FAFNIR_TEST_ROOT", small.0.path()),
        ("FAFNIR_TEST_READ_ONLY", flag.as_path()),
    ];
    let config = format!("{CONFIG}\n{NO_LIMITS}");
    let stack = Stack::surrounded_in(small.dir(), &config, &["--no-sim"], &environment);
    let mut killed = Killed::on(stack);
    for _ in 0..2 {
        killed.under_traffic(|_| fs::write(&flag, "").unwrap());
        refuses_writes(&mut killed);
        let said = killed.stack().shell("nobody").run(&["status", "--json"]);
        assert!(said.code == 1 && said.stdout.contains("cannot be written"), "{said:?}");
        fs::remove_file(&flag).unwrap();
        until(|| killed.takes_an_order());
        assert!(killed.stack().process.is_running(), "{}", killed.stack().process.log());
        killed.check();
    }
    killed.check_all();
    let data = killed.stack().data_dir();
    assert_eq!(killed.stack().process.interrupt(), Some(0), "{}", killed.stack().process.log());
    Answer::of(binary().args(["replay", "--json"]).arg(data).output().unwrap()).json();
}

#[test]
fn a_disk_with_little_room_takes_cancels_then_nothing_then_everything_again() {
    let Some(small) = Small::mounted(256) else { return };
    let config = "[disk]\nalarm_mib = 120\ncancel_only_mib = 80\nread_only_mib = 40\n";
    let stack = Stack::configured_in(small.dir(), config, &["--no-sim"]);
    let buyer = stack.signed_in("user@test.com");
    let place = ["order", "place", "buy", "NVDA", "1", "--price", "120.00", "--json"];
    let order = buyer.json(&["order", "place", "buy", "NVDA", "1", "--price", "120.00"]);
    let status = || buyer.run(&["status", "--json"]);
    assert_eq!(status().code, 0);
    let mib = |n: u64| n << 20;
    small.leave(mib(70));
    let said = until(|| {
        let said = buyer.run(&place);
        if said.code == 0 { Err(format!("{said:?}")) } else { Ok(said) }
    });
    assert!(said.stderr.contains("CANCEL_ONLY") && said.stderr.contains("little room"), "{said:?}");
    buyer.json(&["order", "cancel", order["id"].as_str().unwrap()]);
    let said = status();
    assert!(said.code == 1 && said.stdout.contains("only cancels are taken"), "{said:?}");
    let said = buyer.run(&["doctor", "--json"]);
    assert!(said.stdout.contains("not ready"), "{said:?}");
    small.leave(mib(20));
    let said = until(|| {
        let said = buyer.run(&place);
        if said.stderr.contains("DISK_FULL") { Ok(said) } else { Err(format!("{said:?}")) }
    });
    assert!(said.stderr.contains("the disk is full"), "{said:?}");
    let said = status();
    assert!(said.code == 1 && said.stdout.contains("nothing that writes is taken"), "{said:?}");
    small.make_room();
    until(|| {
        let said = buyer.run(&place);
        if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
    });
    assert_eq!(until(|| Some(status()).filter(|s| s.code == 0).ok_or("not ready".to_owned())).code, 0);
    buyer.audit();
}

fn backup(stack: &Stack, to: &Path) -> Command {
    let mut command = binary();
    command.args(["backup", "--json"]).arg(to).arg("--data-dir").arg(stack.data_dir());
    command.current_dir(stack.dir.path());
    command
}

fn restore(from: &Path, dir: &TempDir) -> Command {
    let mut command = binary();
    command.args(["restore", "--json"]).arg(from).arg("--data-dir").arg(dir.path().join("data"));
    command.current_dir(dir.path());
    command
}

/// A command that is killed after a moment, unless it ends before.
fn killed_within(mut command: Command, looks: u32) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..looks {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_platform_is_copied_while_it_trades_and_brought_back_as_it_was() {
    let mut killed = Killed::on(Stack::configured(CONFIG, &["--no-sim"]));
    let at = killed.stack().dir.path().join("backup");
    // What was acknowledged before.
    killed.under_traffic(|_| {});
    killed.check();
    let before = killed.placed();
    killed.under_traffic(|stack| {
        for looks in [20_000, 200_000] {
            killed_within(backup(stack, &at), looks);
            if at.exists() {
                fs::remove_dir_all(&at).unwrap();
            }
        }
        let said = Answer::of(backup(stack, &at).output().unwrap());
        assert_eq!(said.code, 0, "{said:?}");
    });
    let again = Answer::of(backup(killed.stack(), &at).output().unwrap());
    assert!(again.code == 5 && again.stderr.contains("BACKUP_UNUSABLE"), "{again:?}");
    // What comes after it.
    killed.takes_an_order().unwrap();
    let last = killed.keys_of(0).into_iter().rfind(|key| key.starts_with("try-")).unwrap();
    killed.stack().process.kill();

    let damaged = tempfile::tempdir().unwrap();
    let file = at.join("exchange");
    let file = fs::read_dir(file)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.display().to_string().contains("journal"));
    let file = file.unwrap();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&file, flipped).unwrap();
    let said = Answer::of(restore(&at, &damaged).output().unwrap());
    assert!(said.code == 5 && said.stderr.contains("is not what the backup had"), "{said:?}");
    fs::write(&file, whole).unwrap();

    let dir = tempfile::tempdir().unwrap();
    for looks in [100_000, 1_000_000] {
        killed_within(restore(&at, &dir), looks);
    }
    let data = dir.path().join("data");
    if data.join(".restoring").exists() {
        let mut up = binary();
        up.args(["up", "--no-sim", "--json", "--ports", "auto", "--data-dir"]).arg(&data);
        let said = Answer::of(up.output().unwrap());
        assert!(said.code == 1 && said.stderr.contains("interrupted"), "{said:?}");
    }
    if !data.join("exchange").exists() || data.join(".restoring").exists() {
        let said = Answer::of(restore(&at, &dir).output().unwrap());
        assert_eq!(said.code, 0, "{said:?}");
    }
    let other = tempfile::tempdir_in(dir.path()).unwrap();
    fs::rename(&data, other.path().join("data")).unwrap();
    killed.at(Stack::configured_in(other, CONFIG, &["--no-sim"]));
    killed.stack().shell("nobody").audit();
    for person in 0..2 {
        let there = killed.keys_of(person);
        for (_, key) in before.iter().filter(|(of, _)| *of == person) {
            assert!(there.contains(key), "lost: {key}");
        }
    }
    assert!(!killed.keys_of(0).contains(&last), "an order of after the backup is there");
    // It trades on.
    killed.takes_an_order().unwrap();
    assert_eq!(killed.stack().process.interrupt(), Some(0), "{}", killed.stack().process.log());
}
