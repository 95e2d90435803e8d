//! What an audit looked at and what it found, check by check.

use super::{
    context::Context,
    error::{Error, Result},
};
use fafnir_proto::v1::{AuditCheck, Fact, FactsRequest};
use std::{
    hash::{DefaultHasher, Hasher as _},
    time::Duration,
};

/// Findings that a check names; the others are only counted.
const EXAMPLES_MAX: usize = 5;
/// How long a page may take on a busy machine.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Facts of a page: some 500 kB as they are sent, five times that as they are read, by two audits in the same second.
const FACTS_PAGE: u32 = 512;

/// One rule, and how often it was looked at and broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    name: &'static str,
    looked: u64,
    findings: u64,
    examples: Vec<String>,
}

impl Check {
    pub fn new(name: &'static str) -> Self {
        Self { name, looked: 0, findings: 0, examples: Vec::new() }
    }

    /// One look; where the rule is broken, `what` names it.
    pub fn look(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.looked += 1;
        if !holds {
            self.find(what());
        }
    }

    /// One more finding.
    pub fn find(&mut self, what: String) {
        self.findings += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }

    pub fn findings(&self) -> u64 {
        self.findings
    }

    pub fn looked(&self) -> u64 {
        self.looked
    }
}

impl From<Check> for AuditCheck {
    fn from(c: Check) -> Self {
        Self { name: c.name.to_owned(), looked: c.looked, findings: c.findings, examples: c.examples }
    }
}

/// A short stand-in for bytes that are compared within one audit.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// An audit's question: pages are large, and nobody waits behind it.
pub fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PAGE_WAIT_MAX);
    request
}

/// The position before the first fact that is kept.
///
/// # Errors
/// The engine does not answer.
pub async fn facts_begin(ctx: &Context) -> Result<u64> {
    let request = FactsRequest { after: 0, limit: 1, ..Default::default() };
    let reply = ctx.clients.engine(&ctx.system()).facts(patient(request)).await?.into_inner();
    Ok(reply.oldest.saturating_sub(1))
}

/// A page of the facts after a position, none beyond `until`; empty only at `until`.
///
/// # Errors
/// The engine does not answer, or no longer has them.
pub async fn facts_after(ctx: &Context, after: u64, until: u64) -> Result<Vec<Fact>> {
    if after >= until {
        return Ok(Vec::new());
    }
    let request = FactsRequest { after, limit: FACTS_PAGE, ..Default::default() };
    let mut facts = ctx.clients.engine(&ctx.system()).facts(patient(request)).await?.into_inner().facts;
    if facts.first().is_none_or(|fact| fact.position != after + 1) {
        return Err(Error::internal(format!("the facts after position {after} are not there")));
    }
    facts.retain(|fact| fact.position <= until);
    Ok(facts)
}

/// Puts a check where the metrics of the service are read; what is found is said too.
pub fn publish(service: &'static str, check: &AuditCheck) {
    let labels = [("service", service.to_owned()), ("check", check.name.clone())];
    let figure = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    metrics::gauge!("fafnir_audit_findings", &labels).set(figure(check.findings));
    metrics::gauge!("fafnir_audit_looked", &labels).set(figure(check.looked));
    if check.findings > 0 {
        let (check, findings, examples) = (&check.name, check.findings, check.examples.join(", "));
        tracing::error!(service, check, findings, examples, "the audit found what cannot be");
    }
}
