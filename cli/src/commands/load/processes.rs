//! The processes of the stack that is loaded, where they run on this machine (Linux).

use crate::{args::Global, settings, stack};
use std::fs;

/// Name and process id of each.
#[derive(Debug)]
pub struct Processes(Vec<(String, u32)>);

impl Processes {
    /// Those of the stack whose gateway is at `url`: the one on this data directory, or the services that hold its parts
    /// where the configuration names that gateway. None for a stack elsewhere.
    pub fn of(global: &Global, url: &str) -> Self {
        let Ok(settings) = settings::settings(global, &[]) else { return Self(Vec::new()) };
        let dir = settings.data_dir();
        Self(match stack::running(&dir) {
            Some(run) if run.services.get("api-gateway").map(String::as_str) == Some(url) => {
                vec![("up".to_owned(), run.pid)]
            }
            None if settings.addresses.gateway == url => stack::holders(&dir),
            _ => Vec::new(),
        })
    }

    /// Processor seconds of each so far; none where there is no process, or one has gone.
    pub fn seconds(&self) -> Option<Vec<f64>> {
        let all = self.0.iter().map(|(_, pid)| processor_seconds(*pid));
        all.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
    }

    /// Resident bytes of all.
    pub fn resident(&self) -> Option<u64> {
        self.0.iter().map(|(_, pid)| resident(*pid)).sum()
    }

    /// What each has used since: its name and processor seconds.
    pub fn since(&self, before: &[f64]) -> Option<Vec<(String, f64)>> {
        let names = self.0.iter().map(|(name, _)| name.clone());
        Some(names.zip(self.seconds()?.iter().zip(before).map(|(now, before)| now - before)).collect())
    }
}

fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the fields after it are numbers, the 12th and 13th user and system ticks.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn resident(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
