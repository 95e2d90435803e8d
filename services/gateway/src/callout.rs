//! nats-server's auth callout (2.10 and newer): it asks who signs in, the gateway answers for sessions.
//!
//! Question and answer are JWTs, signed with Ed25519 keys that are written as nkeys. What the server asks is not verified:
//! it comes over our own connection as `services`, on a subject that nobody else may publish to.

use super::Gateway;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use data_encoding::BASE32_NOPAD;
use fafnir_platform::{
    clock::SECOND_US,
    secrets::{Secret, callout_seed, random_text},
};
use fafnir_proto::subject;
use futures::StreamExt as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

/// Where nats-server asks.
const QUESTIONS: &str = "$SYS.REQ.USER.AUTH";
/// Gateways share the questions.
const GROUP: &str = "gateways";
/// The account of a server that has no others.
const ACCOUNT: &str = "$G";
/// The server ends a connection after this; whoever comes again is asked for again.
const VALID_S: i64 = 300;
/// Prefix byte of an account's public key, the letter A.
const ACCOUNT_PREFIX: u8 = 0;
/// Questions answered at a time; more wait.
const CONCURRENT_MAX: usize = 64;

/// The key with which answers are signed.
struct Issuer {
    key: Ed25519KeyPair,
    public: String,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What a server asks.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    server: String,
    user_nkey: String,
    name: String,
    password: String,
}

impl Question {
    /// Reads the claims of a question.
    fn read(token: &[u8]) -> Option<Self> {
        let token = std::str::from_utf8(token).ok()?;
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let nats = &claims["nats"];
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        Some(Self {
            server: text(&nats["server_id"]["id"])?,
            user_nkey: text(&nats["user_nkey"])?,
            name: text(&nats["connect_opts"]["user"]).unwrap_or_default(),
            password: text(&nats["connect_opts"]["pass"]).unwrap_or_default(),
        })
    }
}

impl Issuer {
    fn new(nats_sessions: &Secret) -> anyhow::Result<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(callout_seed(nats_sessions).as_ref())
            .map_err(|_| anyhow::anyhow!("no key can be made of the secret nats_sessions"))?;
        let public = nkey(ACCOUNT_PREFIX, key.public_key().as_ref());
        Ok(Self { key, public })
    }

    fn sign(&self, claims: &Value) -> String {
        let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The answer: what the user may do, or that it may not.
    fn answer(&self, question: &Question, is_let_in: bool, now_s: i64, id: &str) -> String {
        let claims = |subject: &str, audience: &str, nats: Value| {
            json!({
                "jti": id, "iat": now_s, "iss": self.public, "sub": subject, "aud": audience, "nats": nats,
            })
        };
        let nats = if is_let_in {
            let may = json!({
                "pub": {"deny": [">"]},
                "sub": {"allow": [subject::MARKET]},
                "subs": subject::GUEST_SUBSCRIPTIONS_MAX, "data": -1, "payload": -1,
                "type": "user", "version": 2,
            });
            let mut user = claims(&question.user_nkey, ACCOUNT, may);
            user["name"] = question.name.as_str().into();
            user["exp"] = (now_s + VALID_S).into();
            json!({"jwt": self.sign(&user), "type": "authorization_response", "version": 2})
        } else {
            let error = "the session has ended, or never was";
            json!({"error": error, "type": "authorization_response", "version": 2})
        };
        self.sign(&claims(&question.user_nkey, &question.server, nats))
    }
}

/// A public key as text: base 32 of its prefix, itself and a CRC-16, without padding.
fn nkey(prefix: u8, key: &[u8]) -> String {
    let mut raw = vec![prefix];
    raw.extend_from_slice(key);
    let crc = raw.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    raw.extend_from_slice(&crc.to_le_bytes());
    BASE32_NOPAD.encode(&raw)
}

/// The gateway's public key as nats-server's configuration has it.
///
/// # Errors
/// When no key can be made of the secret.
pub fn issuer(nats_sessions: &Secret) -> anyhow::Result<String> {
    Ok(Issuer::new(nats_sessions)?.public)
}

/// Answers the server's questions until shutdown.
pub fn spawn(gateway: &Arc<Gateway>) -> anyhow::Result<()> {
    let issuer = Arc::new(Issuer::new(&gateway.ctx.secrets.nats_sessions.current())?);
    let this = Arc::clone(gateway);
    gateway.ctx.tasks.spawn_until_shutdown("auth callout", async move {
        let client = this.bus.client().clone();
        let questions = client.queue_subscribe(QUESTIONS, GROUP.to_owned()).await?;
        questions
            .for_each_concurrent(CONCURRENT_MAX, |message| {
                let (this, issuer, client) = (this.clone(), issuer.clone(), client.clone());
                async move {
                    let (Some(question), Some(reply)) = (Question::read(&message.payload), message.reply)
                    else {
                        return tracing::warn!("nats-server asked something else");
                    };
                    let is_let_in = this.is_credential(&question.name, &question.password).await;
                    let now_s = this.ctx.clock.now_us() / SECOND_US;
                    let id = random_text(16).unwrap_or_default();
                    let answer = issuer.answer(&question, is_let_in, now_s, &id);
                    if let Err(e) = client.publish(reply, answer.into()).await {
                        tracing::warn!(error = %e, "nats-server was not answered");
                    }
                }
            })
            .await;
        anyhow::Ok(())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, UnparsedPublicKey};

    fn claims(token: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_key_is_written_as_the_servers_tools_write_it() {
        // As Python writes them: `base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little"))`.
        let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let sevens = "UADQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQPL3S";
        assert_eq!(nkey(ACCOUNT_PREFIX, &[0; 32]), zeros);
        assert_eq!(nkey(20 << 3, &[7; 32]), sevens);
    }

    #[test]
    fn an_answer_lets_a_session_watch_and_nothing_else() {
        let issuer = Issuer::new(&Secret::new("a secret of the market")).unwrap();
        let asked = json!({"nats": {
            "server_id": {"id": "NSERVER"}, "user_nkey": "UUSER", "connect_opts": {"user": "s", "pass": "p"},
        }});
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(asked.to_string()));
        let question = Question::read(token.as_bytes()).unwrap();
        assert_eq!((question.name.as_str(), question.password.as_str()), ("s", "p"));
        let answer = issuer.answer(&question, true, 1_000, "id");
        let (signed, signature) = answer.rsplit_once('.').unwrap();
        let key = UnparsedPublicKey::new(&ED25519, issuer.key.public_key().as_ref());
        assert!(key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok());
        let outer = claims(&answer);
        assert_eq!(
            (&outer["sub"], &outer["aud"], &outer["iss"]),
            (&json!("UUSER"), &json!("NSERVER"), &json!(issuer.public))
        );
        let user = claims(outer["nats"]["jwt"].as_str().unwrap());
        assert_eq!(user["nats"]["pub"], json!({"deny": [">"]}));
        assert_eq!(user["nats"]["sub"], json!({"allow": ["market.>"]}));
        assert_eq!((&user["sub"], &user["exp"]), (&json!("UUSER"), &json!(1_300)));
        let refused = claims(&issuer.answer(&question, false, 1_000, "id"));
        assert!(refused["nats"].get("jwt").is_none() && refused["nats"]["error"].is_string());
        for nonsense in ["", "a.b.c", "x"] {
            assert_eq!(Question::read(nonsense.as_bytes()), None);
        }
    }
}
