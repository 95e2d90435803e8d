//! `fafnir login` and `fafnir logout`.

use crate::{
    args::{Global, Login, Where},
    client::{Client, gateway_url},
    output::{Error, Exit, Out, Result},
};
use fafnir_proto::v1::Empty;
use serde_json::json;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

pub async fn login(global: &Global, args: &Login, out: Out) -> Result {
    let mut client = Client::new(&gateway_url(global, &args.at)?)?;
    let session = if args.demo {
        client.sign_in_demo().await?
    } else {
        let email = match &args.email {
            Some(email) => email.clone(),
            None => ask("E-mail: ")?,
        };
        let password = if args.password_stdin { read_line()? } else { ask_hidden("Password: ")? };
        client.sign_in(&email, &password).await?
    };
    out.data(&json!({"userId": session.user_id, "email": session.email, "url": client.url}), || {
        format!("signed in as {} at {}\n", session.email, client.url)
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
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)
        .map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    let line = ask(prompt);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &before);
    writeln!(std::io::stderr())?;
    restored.map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    line
}
