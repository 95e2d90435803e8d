//! `fafnir login`, `fafnir logout` and `fafnir session`.

use super::load::door::Door;
use crate::{
    args::{Global, Login, Register, SessionCommand, Where},
    client::{Client, gateway, ids},
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::{AnyReason, Reason},
    v1::{Empty, RevokeSessionRequest, RevokeSessionsRequest, TerminalSessions, UserSession},
};
use fafnir_services::platform::clock::rfc3339;
use serde_json::json;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

pub async fn login(global: &Global, args: &Login, out: Out) -> Result {
    let mut client = Client::new(&gateway(global, &args.at)?)?;
    let session = if args.demo {
        client.sign_in_demo().await?
    } else {
        let email = match &args.email {
            Some(email) => email.clone(),
            None => ask("E-mail: ")?,
        };
        let password = password(args.password_stdin)?;
        client.sign_in(&email, &password).await?
    };
    out.data(&json!({"userId": session.user_id, "email": session.email, "url": client.url}), || {
        format!("signed in as {} at {}\n", session.email, client.url)
    });
    Ok(())
}

/// Makes a user by the public door; an answer of it is no sign-in.
pub async fn register(global: &Global, args: &Register, out: Out) -> Result {
    let gateway = gateway(global, &args.at)?;
    let password = password(args.password_stdin)?;
    let new = json!({
        "email": args.email, "password": password, "firstName": args.first_name, "lastName": args.last_name,
    });
    let answer = Door::new(&gateway).rest("/auth/register", &new).await.map_err(|why| {
        Error::new(Exit::NotRunning, format!("no platform answers at this address: {why}"))
            .code(Reason::NOT_RUNNING)
            .hint("start one with `fafnir up`, or name another with --url")
    })?;
    if !answer.status.is_success() {
        let said = |key: &str| answer.body["error"][key].as_str().unwrap_or_default().to_owned();
        let message = Some(said("message")).filter(|m| !m.is_empty());
        let message = message.unwrap_or_else(|| format!("the platform answered {}", answer.status));
        return Err(Error::new(Exit::Precondition, message).told(AnyReason::read(&said("code"))));
    }
    out.data(&json!({"email": args.email, "url": gateway.url}), || {
        format!(
            "{} is registered at {}; `fafnir login --email {}` signs in\n",
            args.email, gateway.url, args.email
        )
    });
    Ok(())
}

pub async fn logout(global: &Global, at: &Where, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let request = client.request(Empty {});
    let answer = client.terminal.sign_out(request).await;
    client.forget()?;
    answer?;
    out.data(&json!({"signedOut": true, "url": client.url}), || format!("signed out at {}\n", client.url));
    Ok(())
}

pub async fn sessions(global: &Global, args: &SessionCommand, out: Out) -> Result {
    match args {
        SessionCommand::List(at) => {
            let mut client = Client::signed_in(global, at).await?;
            list(&listed(&mut client).await?, out);
            Ok(())
        }
        SessionCommand::Revoke { at, session: Some(session), .. } => {
            revoke(&mut Client::signed_in(global, at).await?, session, out).await
        }
        SessionCommand::Revoke { at, session: None, .. } => {
            let mut client = Client::signed_in(global, at).await?;
            let request = client.request(RevokeSessionsRequest::default());
            let revoked = client.terminal.revoke_sessions(request).await?.into_inner().revoked;
            out.data(&json!({"revoked": revoked}), || format!("{revoked} sessions ended\n"));
            Ok(())
        }
    }
}

async fn listed(client: &mut Client) -> Result<TerminalSessions> {
    let request = client.request(Empty {});
    Ok(client.terminal.sessions(request).await?.into_inner())
}

fn list(all: &TerminalSessions, out: Out) {
    let is_own = |s: &UserSession| s.id == all.current_id;
    let document: Vec<_> = all
        .sessions
        .iter()
        .map(|s| {
            json!({
                "id": s.id, "current": is_own(s), "createdAt": rfc3339(s.created_us), "expiresAt": rfc3339(s.expires_us),
                "address": s.client_ip, "userAgent": s.user_agent, "browser": s.browser,
            })
        })
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = all
            .sessions
            .iter()
            .map(|s| {
                let here = if is_own(s) { "this one" } else { "" };
                let mut row = vec![s.id.clone(), rfc3339(s.created_us), rfc3339(s.expires_us)];
                row.extend([s.client_ip.clone(), s.user_agent.clone(), here.to_owned()]);
                row
            })
            .collect();
        table(&["ID", "BEGAN", "ENDS", "ADDRESS", "PROGRAM", ""], &rows)
    });
}

async fn revoke(client: &mut Client, session: &str, out: Out) -> Result {
    let session_id = ids::session(client, session).await?;
    let request =
        client.request(RevokeSessionRequest { session_id: session_id.clone(), ..Default::default() });
    client.terminal.revoke_session(request).await?;
    out.data(&json!({"id": session_id, "revoked": true}), || format!("{session_id} has ended\n"));
    Ok(())
}

/// A password, from standard input or asked for without an echo.
pub fn password(from_stdin: bool) -> Result<String> {
    if from_stdin { read_line() } else { ask_hidden("Password: ") }
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(prompt: &str) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Error::usage("no terminal to ask for the e-mail").hint("give --email and --password-stdin")
        );
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    read_line()
}

/// Asks without an echo; the terminal is put back however the reading ends.
fn ask_hidden(prompt: &str) -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage("no terminal to ask for the password").hint("give --password-stdin"));
    }
    let before = tcgetattr(&stdin).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    // A Ctrl-C ends the process, and not before the terminal echoes again.
    let restore = before.clone();
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &restore);
            let _ = writeln!(std::io::stderr());
            std::process::exit(Exit::Interrupted as i32);
        }
    });
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)
        .map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    let line = ask(prompt);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &before);
    interrupt.abort();
    writeln!(std::io::stderr())?;
    restored.map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    line
}
