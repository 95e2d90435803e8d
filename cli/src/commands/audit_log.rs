//! `fafnir audit-log`: read, followed, and read through.

use crate::{
    args::{AuditLog, Global},
    client::Client,
    output::{Error, Exit, Out, Result, table},
};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use fafnir_proto::{
    reason::Reason,
    v1::{AuditLogRequest, AuditRow, VerifyAuditRequest},
};
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};
use std::{pin::pin, time::Duration};

/// How often it is asked for what came.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Rows asked for at a time while following.
const PAGE: u32 = 500;
/// The whole log is read at the other end.
const VERIFY_DEADLINE: Duration = Duration::from_mins(2);

pub async fn audit_log(global: &Global, args: &AuditLog, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    if args.verify {
        return verify(&mut client, args, out).await;
    }
    let request = client.request(wanted(args, args.lines));
    let mut rows = client.terminal.audit_log(request).await?.into_inner().rows;
    rows.reverse();
    if args.follow {
        return follow(global, args, client, rows, out).await;
    }
    out.data(&json!(rows.iter().map(document).collect::<Vec<_>>()), || {
        let cells: Vec<_> = rows.iter().map(cells).collect();
        table(&[">ROW", "TIME", "ACTION", "OUTCOME", "ACTOR", "SUBJECT", "FROM", "DETAIL"], &cells)
    });
    Ok(())
}

fn wanted(args: &AuditLog, limit: u32) -> AuditLogRequest {
    AuditLogRequest {
        action: args.action.clone().unwrap_or_default(),
        user_id: args.user.clone().unwrap_or_default(),
        limit,
        ..AuditLogRequest::default()
    }
}

/// Prints rows, and those that come after them, until Ctrl-C.
async fn follow(
    global: &Global,
    args: &AuditLog,
    mut client: Client,
    mut rows: Vec<AuditRow>,
    out: Out,
) -> Result {
    // One for the whole time: what is pressed while a request is under way counts too.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut last = 0;
    while !out.is_closed() {
        for row in &rows {
            last = row.seq;
            out.line(&document(row).to_string(), || format!("{}\n", cells(row).join("  ")));
        }
        let is_full = rows.len() >= PAGE as usize;
        let more = async {
            if !is_full {
                tokio::time::sleep(FOLLOW_EVERY).await;
                // A token lives ten minutes; who follows stays longer.
                client = Client::signed_in(global, &args.at).await?;
            }
            let request =
                client.request(AuditLogRequest { after: last, forward: true, ..wanted(args, PAGE) });
            Ok::<_, Error>(client.terminal.audit_log(request).await?.into_inner().rows)
        };
        rows = tokio::select! {
            more = more => more?,
            _ = &mut interrupted => return Err(Error::new(Exit::Interrupted, "interrupted")),
        };
    }
    Ok(())
}

fn document(row: &AuditRow) -> Value {
    let e = row.entry.clone().unwrap_or_default();
    let key = Some(e.key_id).filter(|id| !id.is_empty());
    json!({
        "sequence": row.seq, "time": rfc3339(e.time_us), "action": e.action, "outcome": e.outcome, "actor": e.actor,
        "subject": e.subject, "source": e.source, "trace": e.trace, "detail": e.detail, "keyId": key,
        "hash": HEXLOWER.encode(&row.hash),
    })
}

fn cells(row: &AuditRow) -> Vec<String> {
    let e = row.entry.clone().unwrap_or_default();
    vec![row.seq.to_string(), rfc3339(e.time_us), e.action, e.outcome, e.actor, e.subject, e.source, e.detail]
}

async fn verify(client: &mut Client, args: &AuditLog, out: Out) -> Result {
    let known = match &args.head {
        None => VerifyAuditRequest::default(),
        Some(text) => {
            let parts = text.split_once(':').and_then(|(seq, hash)| {
                Some((seq.parse().ok()?, HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok()?))
            });
            let (seq, hash) = parts.ok_or_else(|| {
                Error::usage(format!("{text:?} is not a head such as 12:0af7…"))
                    .hint("`fafnir audit-log --verify` prints it")
            })?;
            VerifyAuditRequest { seq, hash }
        }
    };
    let mut request = client.request(known);
    request.set_timeout(VERIFY_DEADLINE);
    let verdict = client.terminal.verify_audit(request).await?.into_inner();
    if !verdict.sound {
        let message = format!("the audit log was tampered with: {}", verdict.broken);
        return Err(Error::new(Exit::Failure, message).code(Reason::AUDIT_BROKEN));
    }
    let head = format!("{}:{}", verdict.seq, HEXLOWER.encode(&verdict.hash));
    out.data(&json!({"sound": true, "rows": verdict.seq, "head": head}), || {
        format!("{} rows, each what was written\nhead {head}\n", verdict.seq)
    });
    Ok(())
}
