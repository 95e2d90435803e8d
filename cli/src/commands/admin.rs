//! `fafnir admin`: users, roles and the platform at a glance.

use super::{platform::adopted, session};
use crate::{
    args::{Admin, AdminCreate, AdminRole, AdminUser, Global, UserStateName, Where},
    client::Client,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{
        DashboardReply, Empty, GrantRequest, Instrument, PermissionsRequest, RevokeSessionsRequest,
        SearchUsersRequest, SeedUserRequest, UserAccount, UserStateRequest,
    },
};
use fafnir_services::platform::{Caller, clock::rfc3339};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Request;

/// Users asked for at a time.
const PAGE: u32 = 500;
/// A password hash takes its time.
const CREATE_DEADLINE: Duration = Duration::from_secs(10);

pub async fn admin(global: &Global, args: &Admin, out: Out) -> Result {
    match args {
        Admin::Create(args) => create(global, args, out).await,
        Admin::Users { at, query, state } => users(global, at, query.as_deref(), *state, out).await,
        Admin::Deactivate(args) => access(global, args, false, out).await,
        Admin::Reactivate(args) => access(global, args, true, out).await,
        Admin::EndSessions(args) => end_sessions(global, args, out).await,
        Admin::Roles { at, user } => roles(global, at, user.as_deref(), out).await,
        Admin::Grant(args) => change_role(global, args, true, out).await,
        Admin::Revoke(args) => change_role(global, args, false, out).await,
        Admin::Dashboard(at) => {
            let d = dashboard(global, at).await?;
            out.data(&document(&d), || text(&d));
            Ok(())
        }
        Admin::Halts(at) => {
            let halted = dashboard(global, at).await?.halted;
            out.data(&json!(halted.iter().map(halt).collect::<Vec<_>>()), || {
                let rows: Vec<_> =
                    halted.iter().map(|i| vec![i.symbol.clone(), i.state().name().to_owned()]).collect();
                table(&["SYMBOL", "STATE"], &rows)
            });
            Ok(())
        }
    }
}

async fn access(global: &Global, args: &AdminUser, give: bool, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let user_id = user(&mut client, &args.user).await?;
    let request = client.request(UserStateRequest { user_id: user_id.clone() });
    let asked = if give {
        client.terminal.reactivate(request).await
    } else {
        client.terminal.deactivate(request).await
    };
    asked?;
    let (state, word) = if give { ("ACTIVE", "active") } else { ("DEACTIVATED", "deactivated") };
    out.data(&json!({"userId": user_id, "state": state}), || format!("{user_id} is {word}\n"));
    Ok(())
}

async fn end_sessions(global: &Global, args: &AdminUser, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let user_id = user(&mut client, &args.user).await?;
    let request = client.request(RevokeSessionsRequest { user_id: user_id.clone(), ..Default::default() });
    let revoked = client.terminal.revoke_sessions(request).await?.into_inner().revoked;
    let document = json!({"userId": user_id, "revoked": revoked});
    out.data(&document, || format!("{revoked} sessions of {user_id} ended\n"));
    Ok(())
}

async fn change_role(global: &Global, args: &AdminRole, grant: bool, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = GrantRequest { user_id: user(&mut client, &args.user).await?, role: args.role.clone() };
    let sent = client.request(request.clone());
    let asked =
        if grant { client.terminal.grant_role(sent).await } else { client.terminal.revoke_role(sent).await };
    asked?;
    let document = json!({"userId": request.user_id, "role": request.role, "granted": grant});
    let end = if grant { "" } else { " no longer" };
    out.data(&document, || format!("{} has the role {}{end}\n", request.user_id, request.role));
    Ok(())
}

/// Whoever has the data directory is trusted: there may be no administrator yet.
async fn create(global: &Global, args: &AdminCreate, out: Out) -> Result {
    let running = adopted(global).await?;
    let password = session::password(args.password_stdin)?;
    let mut request = Request::new(SeedUserRequest {
        email: args.email.clone(),
        password,
        first_name: args.first_name.clone(),
        last_name: args.last_name.clone(),
        roles: vec!["admin".to_owned(), "member".to_owned()],
        ..Default::default()
    });
    request.set_timeout(CREATE_DEADLINE);
    let mut auth = running.context.clients.auth(&Caller::system("operator"));
    let user_id = auth.seed(request).await?.into_inner().user_id;
    out.data(&json!({"userId": user_id, "email": args.email}), || {
        format!("{} is an administrator; sign in with `fafnir login --email {}`\n", args.email, args.email)
    });
    Ok(())
}

async fn found(client: &mut Client, query: &str, state: &str) -> Result<Vec<UserAccount>> {
    let mut all: Vec<UserAccount> = Vec::new();
    loop {
        let after_id = all.last().map_or_else(String::new, |u| u.user_id.clone());
        let (query, state) = (query.to_owned(), state.to_owned());
        let request = client.request(SearchUsersRequest { query, state, after_id, limit: PAGE });
        let page = client.terminal.users(request).await?.into_inner();
        all.extend(page.users);
        if !page.more {
            return Ok(all);
        }
    }
}

async fn users(
    global: &Global,
    at: &Where,
    query: Option<&str>,
    state: Option<UserStateName>,
    out: Out,
) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let state = state.map_or(String::new(), |s| format!("{s:?}").to_uppercase());
    let users = found(&mut client, query.unwrap_or_default(), &state).await?;
    let document: Vec<Value> = users
        .iter()
        .map(|u| {
            json!({
                "userId": u.user_id, "email": u.email, "firstName": u.first_name, "lastName": u.last_name,
                "state": u.state, "createdAt": rfc3339(u.created_us),
            })
        })
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = users
            .iter()
            .map(|u| {
                let name = format!("{} {}", u.first_name, u.last_name);
                vec![u.user_id.clone(), u.email.clone(), name, u.state.clone(), rfc3339(u.created_us)]
            })
            .collect();
        table(&["ID", "E-MAIL", "NAME", "STATE", "REGISTERED"], &rows)
    });
    Ok(())
}

/// The id of the user who is meant: by e-mail, or by id or its beginning.
async fn user(client: &mut Client, text: &str) -> Result<String> {
    let text = text.trim().to_lowercase();
    let mut users = found(client, &text, "").await?;
    let is_exact = |u: &UserAccount| u.email.to_lowercase() == text || u.user_id == text;
    if users.iter().any(is_exact) {
        users.retain(is_exact);
    } else {
        users.retain(|u| u.user_id.starts_with(&text));
    }
    match (users.pop(), users.pop()) {
        (Some(user), None) => Ok(user.user_id),
        _ => Err(Error::new(Exit::Precondition, format!("{text:?} is not one user's e-mail or id"))
            .code(Reason::USER_NOT_FOUND)
            .hint("`fafnir admin users` has them")),
    }
}

async fn roles(global: &Global, at: &Where, of: Option<&str>, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    if let Some(text) = of {
        let request = PermissionsRequest { user_id: user(&mut client, text).await? };
        let sent = client.request(request.clone());
        let has = client.terminal.user_roles(sent).await?.into_inner();
        let document = json!({"userId": request.user_id, "roles": has.roles, "permissions": has.permissions});
        out.data(&document, || {
            format!("{}: {}\n{}\n", request.user_id, has.roles.join(" "), has.permissions.join(" "))
        });
        return Ok(());
    }
    let request = client.request(Empty {});
    let roles = client.terminal.roles(request).await?.into_inner().roles;
    let document: Vec<_> =
        roles.iter().map(|r| json!({"name": r.name, "permissions": r.permissions})).collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = roles.iter().map(|r| vec![r.name.clone(), r.permissions.join(" ")]).collect();
        table(&["ROLE", "PERMISSIONS"], &rows)
    });
    Ok(())
}

async fn dashboard(global: &Global, at: &Where) -> Result<DashboardReply> {
    let mut client = Client::signed_in(global, at).await?;
    let request = client.request(Empty {});
    Ok(client.terminal.dashboard(request).await?.into_inner())
}

fn halt(i: &Instrument) -> Value {
    json!({"symbol": i.symbol, "state": i.state().name()})
}

/// The figures, each with its name.
fn figures(d: &DashboardReply) -> Vec<(&'static str, u64)> {
    let users = d.users.unwrap_or_default();
    vec![
        ("activeUsers", users.active),
        ("deactivatedUsers", users.deactivated),
        ("unfinishedUsers", users.unfinished),
        ("sessions", users.sessions),
        ("apiKeys", users.keys),
        ("accounts", d.accounts),
        ("openOrders", d.open_orders),
        ("trades", d.trades),
        ("settledTrades", d.settled),
        ("deadLetters", d.dead_letters),
        ("journalSequence", d.journal_seq),
        ("factsBehind", d.behind),
        ("symbols", d.symbols),
        ("auditSequence", d.audit_seq),
    ]
}

fn document(d: &DashboardReply) -> Value {
    let mut document: serde_json::Map<_, _> =
        figures(d).into_iter().map(|(name, n)| (name.to_owned(), json!(n))).collect();
    document.insert("time".to_owned(), json!(rfc3339(d.time_us)));
    document.insert("cancelOnly".to_owned(), json!(d.cancel_only));
    document.insert("notice".to_owned(), json!(Some(&d.notice).filter(|n| !n.is_empty())));
    document.insert("notOpen".to_owned(), json!(d.halted.iter().map(halt).collect::<Vec<_>>()));
    Value::Object(document)
}

fn text(d: &DashboardReply) -> String {
    let mut rows: Vec<_> =
        figures(d).into_iter().map(|(name, n)| vec![spoken(name), n.to_string()]).collect();
    rows.push(vec!["symbols not open".to_owned(), d.halted.len().to_string()]);
    let mut text = table(&["FIGURE", ">"], &rows);
    if !d.notice.is_empty() {
        text.push_str(&format!("\n{}\n", d.notice));
    }
    text
}

/// `openOrders` as people read it.
fn spoken(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_uppercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
        out
    })
}
