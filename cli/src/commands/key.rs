//! `fafnir key`: API keys, for bots that have no password.

use crate::{
    args::{Global, Key, KeyCreate, KeyScope, Where},
    client::{Client, ids},
    output::{Out, Result, table},
};
use fafnir_proto::v1::{ApiKey, CreateKeyRequest, Empty, RevokeKeyRequest};
use fafnir_services::platform::{
    Clock,
    clock::{SECOND_US, rfc3339},
};
use serde_json::{Value, json};

const DAY_US: i64 = 24 * 3600 * SECOND_US;

pub async fn key(global: &Global, args: &Key, out: Out) -> Result {
    match args {
        Key::Create(args) => create(global, args, out).await,
        Key::List(at) => list(global, at, out).await,
        Key::Revoke { at, key } => revoke(global, at, key, out).await,
    }
}

fn time(us: i64) -> Option<String> {
    (us > 0).then(|| rfc3339(us))
}

fn document(key: &ApiKey) -> Value {
    let account = Some(&key.account_id).filter(|id| !id.is_empty());
    json!({
        "id": key.id, "label": key.label, "scopes": key.scopes, "accountId": account, "addresses": key.addresses,
        "createdAt": rfc3339(key.created_us), "expiresAt": time(key.expires_us), "lastUsedAt": time(key.last_used_us),
    })
}

async fn create(global: &Global, args: &KeyCreate, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = match &args.account {
        Some(text) => ids::account(&mut client, text).await?,
        None => String::new(),
    };
    let scope = match args.scope {
        KeyScope::Read => "read",
        KeyScope::Trade => "trade",
    };
    let expires_us = args.days.map_or(0, |days| Clock::wall().now_us() + i64::from(days) * DAY_US);
    let request = client.request(CreateKeyRequest {
        label: args.label.clone(),
        scopes: vec![scope.to_owned()],
        account_id,
        addresses: args.from.clone(),
        expires_us,
        ..Default::default()
    });
    let reply = client.terminal.create_key(request).await?.into_inner();
    let key = reply.key.unwrap_or_default();
    let mut whole = document(&key);
    whole["secret"] = json!(reply.secret);
    out.data(&whole, || {
        format!(
            "id      {id}\nsecret  {secret}\n\nThe secret is shown this once. Commands take both as FAFNIR_KEY={id}:{secret}, \
             or from a file by --key-file;\nprograms as the headers APCA-API-KEY-ID and APCA-API-SECRET-KEY, or by HTTP Basic.\n",
            id = key.id,
            secret = reply.secret
        )
    });
    Ok(())
}

async fn keys(client: &mut Client) -> Result<Vec<ApiKey>> {
    let request = client.request(Empty {});
    Ok(client.terminal.keys(request).await?.into_inner().keys)
}

async fn list(global: &Global, at: &Where, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let keys = keys(&mut client).await?;
    out.data(&json!(keys.iter().map(document).collect::<Vec<_>>()), || {
        let rows: Vec<_> = keys
            .iter()
            .map(|k| {
                let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
                vec![
                    k.id.clone(),
                    k.label.clone(),
                    k.scopes.join(" "),
                    or(k.account_id.clone(), "all"),
                    or(k.addresses.join(" "), "anywhere"),
                    time(k.expires_us).unwrap_or_else(|| "never".to_owned()),
                    time(k.last_used_us).unwrap_or_else(|| "never".to_owned()),
                ]
            })
            .collect();
        table(&["ID", "LABEL", "SCOPES", "ACCOUNT", "FROM", "EXPIRES", "LAST USED"], &rows)
    });
    Ok(())
}

async fn revoke(global: &Global, at: &Where, key: &str, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let wanted = key.trim().to_uppercase();
    let mut found: Vec<_> = keys(&mut client).await?.into_iter().map(|k| k.id).collect();
    found.retain(|id| id.starts_with(&wanted));
    // A whole id is passed on as it is: what is revoked already is revoked again.
    let key_id = if found.len() == 1 { found.remove(0) } else { wanted };
    let request = client.request(RevokeKeyRequest { key_id: key_id.clone(), ..Default::default() });
    client.terminal.revoke_key(request).await?;
    out.data(&json!({"id": key_id, "revoked": true}), || format!("{key_id} is revoked\n"));
    Ok(())
}
