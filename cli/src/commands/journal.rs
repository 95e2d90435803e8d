//! `fafnir journal`: what an operator may do to the journal of an exchange that is stopped.

use crate::{
    args::{Global, Journal},
    output::{Error, Exit, Out, Result},
    settings, stack,
};
use fafnir_proto::reason::Reason;
use fafnir_services::{
    platform::clock::rfc3339,
    trade_engine::{
        replay,
        skipped::{self, Refused},
    },
};
use serde_json::json;

pub fn journal(global: &Global, args: &Journal, out: Out) -> Result {
    match args {
        Journal::Skip { record } => skip(global, *record, out),
    }
}

/// Has a record passed over by every start from now on.
fn skip(global: &Global, record: u64, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    stack::check(&dir)?;
    let _lock = stack::lock(&dir, &["trade-engine"])?;
    let exchange = replay::directory(&dir)?;
    let passed = skipped::skip(&exchange, record).map_err(|refused| match refused {
        Refused::Journal(e) => e.into(),
        other => Error::new(Exit::Precondition, other.to_string()).code(Reason::RECORD_NOT_SKIPPED),
    })?;
    let asked = passed.command.map_or_else(|| "nobody can read it".to_owned(), |c| format!("{c:?}"));
    let time = rfc3339(passed.time_us);
    out.data(&json!({"record": record, "time": time, "asked": asked, "why": passed.why}), || {
        format!("record {record} of {time} is passed over from now on\nit asked for: {asked}\n")
    });
    Ok(())
}
