//! The users of a load: registered through the public door, signed in, with cash; kept for the next run.
//!
//! What is kept are refresh tokens, no passwords: a password is random and forgotten. A user whose session has ended is
//! replaced by a new one.

use super::{door::Door, line::Bearer};
use crate::{
    output::{Error, Exit, Result},
    settings,
};
use fafnir_disk::whole;
use fafnir_proto::reason::Reason;
use fafnir_services::platform::secrets::create_private_dir;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A user with less cash than this, in units of the currency, gets [`DEPOSIT`].
const CASH_MIN: f64 = 1_000_000.0;
const DEPOSIT: f64 = 10_000_000.0;
/// An access token lives 10 minutes; it is renewed when it is older than this.
const RENEW_AFTER: Duration = Duration::from_mins(7);
/// Users whose sessions are kept for a gateway.
const KEPT_MAX: usize = 2_000;

/// A user who is signed in and can pay.
#[derive(Debug)]
pub struct User {
    pub token: String,
    /// The same as the load sends it.
    pub bearer: Bearer,
    refresh: String,
    since: Instant,
    /// Orders that stand, oldest first: id and listing (its place in the plan).
    pub open: VecDeque<(String, usize)>,
    /// Shares bought by market orders and not sold again, per symbol.
    pub bought: BTreeMap<String, u64>,
    /// The platform said "too many": not before this.
    pub not_before: Option<Instant>,
}

/// Refresh tokens by gateway.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept(BTreeMap<String, Vec<String>>);

fn kept_file() -> std::path::PathBuf {
    settings::state_dir().join("load.json")
}

/// Refresh tokens of an earlier run; a file that cannot be read counts as none.
fn read() -> Kept {
    fs::read(kept_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Tokens of an earlier run at this gateway. They are taken out of the file: a refresh token works once.
pub fn take_kept(url: &str) -> Result<Vec<String>> {
    let mut kept = read();
    let tokens = kept.0.remove(url).unwrap_or_default();
    if !tokens.is_empty() {
        write(&kept)?;
    }
    Ok(tokens)
}

/// Keeps the sessions of these users, and tokens that were not needed, for the next run.
pub fn keep(url: &str, users: impl Iterator<Item = User>, unused: Vec<String>) -> Result {
    let mut kept = read();
    let tokens: Vec<String> = users.map(|u| u.refresh).chain(unused).take(KEPT_MAX).collect();
    kept.0.insert(url.to_owned(), tokens);
    write(&kept)
}

fn write(kept: &Kept) -> Result {
    create_private_dir(&settings::state_dir())?;
    let text = serde_json::to_vec(kept).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    Ok(whole::write(&kept_file(), &text, whole::PRIVATE)?)
}

fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Exit::Failure, format!("{what}: {why}")).code(Reason::LOAD_USERS)
}

/// Continues a kept session; none when it has ended.
pub async fn resume(door: &Door, refresh: &str) -> Result<Option<User>> {
    let answer = door.rest("/auth/refresh", &json!({"refreshToken": refresh})).await;
    let answer = answer.map_err(|e| not_running(&e))?;
    Ok(if answer.status.is_success() { user(&answer.body) } else { None })
}

/// Registers a user nobody else knows, signs in and opens an account with cash.
pub async fn register(door: &Door) -> Result<User> {
    let email = format!("load-{}@load.test", Uuid::new_v4().simple());
    let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let new = json!({"email": email, "password": password, "firstName": "Load", "lastName": "Test"});
    let answer = door.rest("/auth/register", &new).await.map_err(|e| not_running(&e))?;
    if !answer.status.is_success() {
        return Err(failed("a user cannot be registered", answer.body["error"]["message"].clone()));
    }
    let answer = door
        .rest("/auth/login", &json!({"email": email, "password": password}))
        .await
        .map_err(|e| not_running(&e))?;
    let user = user(&answer.body)
        .ok_or_else(|| failed("a new user cannot sign in", answer.body["error"]["message"].clone()))?;
    let open = "mutation{op:createAccount(request:{type:\"INVESTMENT\",currency:\"USD\"}){code}}";
    door.query(&user.token, &json!({"query": open})).await.map_err(|e| failed("no account", e))?;
    Ok(user)
}

/// Tops the cash of a user up.
pub async fn fund(door: &Door, user: &User) -> Result {
    let query = "{op:getPortfolioSummary{code accounts{id type currency available}}}";
    let answer =
        door.query(&user.token, &json!({"query": query})).await.map_err(|e| failed("no account", e))?;
    let accounts = answer["data"]["op"]["accounts"].as_array().cloned().unwrap_or_default();
    let account = accounts
        .iter()
        .find(|a| a["type"] == "INVESTMENT" && a["currency"] == "USD")
        .ok_or_else(|| failed("no account", "the user has no investment account in USD"))?;
    if account["available"].as_f64().unwrap_or(0.0) >= CASH_MIN {
        return Ok(());
    }
    let deposit = "mutation($r:DepositRequest!){op:deposit(request:$r){code}}";
    let request = json!({"accountId": account["id"], "amount": DEPOSIT, "currency": "USD"});
    let body = json!({"query": deposit, "variables": {"r": request}});
    door.query(&user.token, &body).await.map_err(|e| failed("no deposit", e))?;
    Ok(())
}

impl User {
    /// Renews the access token when it is old: whether it did.
    pub async fn renew(&mut self, door: &Door) -> Result<bool> {
        if self.since.elapsed() < RENEW_AFTER {
            return Ok(false);
        }
        let fresh = resume(door, &self.refresh).await?;
        let fresh = fresh.ok_or_else(|| failed("a session ended", "its refresh token was refused"))?;
        (self.token, self.bearer) = (fresh.token, fresh.bearer);
        (self.refresh, self.since) = (fresh.refresh, fresh.since);
        Ok(true)
    }
}

fn user(body: &serde_json::Value) -> Option<User> {
    let token = body["accessToken"].as_str()?;
    Some(User {
        token: token.to_owned(),
        bearer: Bearer::new(token),
        refresh: body["refreshToken"].as_str()?.to_owned(),
        since: Instant::now(),
        open: VecDeque::new(),
        bought: BTreeMap::new(),
        not_before: None,
    })
}

fn not_running(why: &str) -> Error {
    Error::new(Exit::NotRunning, format!("no platform answers at this address: {why}"))
        .code(Reason::NOT_RUNNING)
        .hint("start one with `fafnir up`, or name another with --url")
}
