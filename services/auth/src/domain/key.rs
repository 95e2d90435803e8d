//! API keys: what one must be, and what it may do; rules without I/O.

use fafnir_platform::{Refusal, http::address::Networks};
use fafnir_proto::reason::Reason;
use std::fmt;

/// What every key's public half begins with, and how many characters it has (alpaca.md §2).
const ID_PREFIX: &str = "PK";
const ID_LEN: usize = 20;
/// Characters of a key's secret half: 40 of 62 are 238 bits.
pub const SECRET_LEN: usize = 40;
/// Keys of one user that are neither revoked nor expired.
pub const KEYS_MAX: usize = 20;
/// Characters of a label.
const LABEL_LEN_MAX: usize = 64;
/// Addresses and networks that one key names.
const ADDRESSES_MAX: usize = 16;

const CAPITALS_AND_DIGITS: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const LETTERS_AND_DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The public half of a key: `PK` and 18 capital letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// `None`: no key has this id.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == ID_LEN
            && text.starts_with(ID_PREFIX)
            && text.bytes().all(|b| CAPITALS_AND_DIGITS.contains(&b));
        good.then(|| Self(text.to_owned()))
    }

    /// A new one out of random bytes.
    pub fn of_random(random: impl Iterator<Item = u8>) -> Self {
        Self(
            ID_PREFIX
                .chars()
                .chain(spell(CAPITALS_AND_DIGITS, random).take(ID_LEN - ID_PREFIX.len()))
                .collect(),
        )
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret half of a new key out of random bytes.
pub fn secret_of_random(random: impl Iterator<Item = u8>) -> String {
    spell(LETTERS_AND_DIGITS, random).take(SECRET_LEN).collect()
}

/// Each byte as a character of the alphabet, every one equally likely: bytes beyond the last whole round are left out.
fn spell<const N: usize>(alphabet: &[u8; N], random: impl Iterator<Item = u8>) -> impl Iterator<Item = char> {
    let rounds = 256 / N * N;
    random.filter(move |b| usize::from(*b) < rounds).map(|b| char::from(alphabet[usize::from(b) % N]))
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at whatever its user may look at, but for keys, sessions and what is an administrator's.
    Read,
    /// Place and cancel orders and change the watchlist as well.
    Trade,
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Trade => "trade",
        }
    }

    /// The widest of the scopes that are named; trade includes read.
    pub fn parse(names: &[String]) -> Result<Self, Refusal> {
        let one = |name: &String| match name.trim().to_ascii_lowercase().as_str() {
            "read" => Ok(Self::Read),
            "trade" => Ok(Self::Trade),
            _ => Err(Refusal::invalid(Reason::KEY_SCOPE_UNKNOWN, "scopes must be of read and trade")),
        };
        let scopes: Vec<Self> = names.iter().map(one).collect::<Result<_, _>>()?;
        let none = || Refusal::invalid(Reason::KEY_SCOPE_UNKNOWN, "scopes must name read or trade");
        scopes.into_iter().max().ok_or_else(none)
    }

    /// This and what it includes, as clients are told.
    pub fn names(self) -> Vec<String> {
        [Self::Read, Self::Trade].into_iter().filter(|s| *s <= self).map(|s| s.name().to_owned()).collect()
    }
}

/// What a user asks for that wants a key.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub label: String,
    pub scope: Scope,
    /// Addresses and networks as they were written; empty: from anywhere.
    pub addresses: Vec<String>,
    /// 0: never.
    pub expires_us: i64,
}

impl NewKey {
    pub fn parse(
        label: &str,
        scopes: &[String],
        addresses: &[String],
        expires_us: i64,
        now_us: i64,
    ) -> Result<Self, Refusal> {
        let label = label.trim();
        let characters = label.chars().count();
        if characters == 0 || characters > LABEL_LEN_MAX || label.chars().any(char::is_control) {
            let text = format!("label must have 1 to {LABEL_LEN_MAX} characters and no control characters");
            return Err(Refusal::invalid(Reason::KEY_LABEL, text));
        }
        if addresses.len() > ADDRESSES_MAX {
            let text = format!("addresses must have at most {ADDRESSES_MAX} elements");
            return Err(Refusal::invalid(Reason::KEY_ADDRESSES, text));
        }
        let addresses: Vec<String> = addresses.iter().map(|a| a.trim().to_owned()).collect();
        Networks::parse(&addresses)
            .map_err(|e| Refusal::invalid(Reason::KEY_ADDRESSES, format!("addresses: {e}")))?;
        if expires_us != 0 && expires_us <= now_us {
            return Err(Refusal::invalid(Reason::KEY_EXPIRY, "expires_us must be later than now"));
        }
        Ok(Self { label: label.to_owned(), scope: Scope::parse(scopes)?, addresses, expires_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_spelled_as_bots_expect_it_and_every_character_is_as_likely() {
        let id = KeyId::of_random(0..=255);
        assert_eq!(KeyId::parse(id.as_str()), Some(id));
        for bad in [
            "",
            "PK",
            "AK0123456789ABCDEFGH",
            "PK0123456789abcdefgh",
            "PK0123456789ABCDEFGHI",
            "PKé123456789ABCDEFG",
        ] {
            assert_eq!(KeyId::parse(bad), None, "{bad}");
        }
        assert_eq!(secret_of_random(0..=255).len(), SECRET_LEN);
        let mut counts = std::collections::BTreeMap::<char, u32>::new();
        for c in spell(LETTERS_AND_DIGITS, 0..=255) {
            *counts.entry(c).or_default() += 1;
        }
        assert_eq!(counts.len(), 62);
        assert!(counts.values().all(|n| *n == 4), "{counts:?}");
    }

    #[test]
    fn a_new_key_names_what_is_wrong_with_it() {
        let read = ["read".to_owned()];
        let reason = |label: &str, scopes: &[String], addresses: &[&str], expires_us: i64| {
            let addresses: Vec<_> = addresses.iter().map(|a| (*a).to_owned()).collect();
            NewKey::parse(label, scopes, &addresses, expires_us, 100).map_err(|r| r.reason.to_string()).err()
        };
        assert_eq!(reason(" bot ", &read, &["10.0.0.0/8", "::1"], 101), None);
        for label in ["", "  ", "a\nb", &"x".repeat(65)] {
            assert_eq!(reason(label, &read, &[], 0).as_deref(), Some("KEY_LABEL"), "{label:?}");
        }
        assert_eq!(reason("bot", &[], &[], 0).as_deref(), Some("KEY_SCOPE_UNKNOWN"));
        assert_eq!(reason("bot", &["withdraw".into()], &[], 0).as_deref(), Some("KEY_SCOPE_UNKNOWN"));
        assert_eq!(reason("bot", &read, &["10.0.0.0/33"], 0).as_deref(), Some("KEY_ADDRESSES"));
        assert_eq!(reason("bot", &read, &["1.1.1.1"; 17], 0).as_deref(), Some("KEY_ADDRESSES"));
        assert_eq!(reason("bot", &read, &[], 100).as_deref(), Some("KEY_EXPIRY"));
        let both = Scope::parse(&["READ".into(), "trade".into()]).unwrap();
        assert_eq!((both, both.names()), (Scope::Trade, vec!["read".to_owned(), "trade".to_owned()]));
    }
}
