//! What a follower says of the requests whose facts it has stored: a line of the log for each order, a span for each
//! trace that is recorded.

use crate::telemetry::trace::{Kind, Open};
use fafnir_proto::{
    trace::Trace,
    v1::{Fact, FactKind},
};

/// Requests told of one by one in a commit; what the others did is stored all the same.
const TOLD_MAX: usize = 256;

/// The requests of a batch that are to be told of.
#[derive(Default)]
pub(super) struct Traced {
    service: &'static str,
    requests: Vec<Request>,
}

struct Request {
    trace: Trace,
    position: u64,
    /// The order that was accepted.
    order: Option<String>,
    span: Option<Open>,
}

impl Traced {
    pub(super) fn of(service: &'static str, facts: &[Fact]) -> Self {
        let is_told = tracing::enabled!(tracing::Level::DEBUG);
        let request = |fact: &Fact| {
            let trace = Trace::read(&fact.trace)?;
            let span = Open::begin(service, Some(trace));
            let accepted = fact.kind() == FactKind::Accepted && (is_told || span.is_some());
            let order = fact.orders.first().filter(|_| accepted);
            let order = order.and_then(|update| update.order.as_ref()).map(|order| order.id.clone());
            Some(Request { trace, position: fact.position, order, span })
        };
        let asked = |request: &Request| request.span.is_some() || is_told && request.order.is_some();
        let requests = facts.iter().filter(|fact| !fact.trace.is_empty());
        Self { service, requests: requests.filter_map(request).filter(asked).take(TOLD_MAX).collect() }
    }

    /// Their effects are stored.
    pub(super) fn applied(self) {
        for Request { trace, position, order, span } in self.requests {
            if let Some(order) = &order {
                let trace = trace.id_text();
                tracing::debug!(service = self.service, order, trace, position, "stored");
            }
            if let Some(span) = span {
                let mut told = vec![("position", position.to_string())];
                told.extend(order.map(|order| ("order", order)));
                span.end("facts stored", Kind::Consumer, &told);
            }
        }
    }
}
