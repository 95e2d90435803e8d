//! What a profile is.

use fafnir_platform::{Refusal, names};
use fafnir_proto::{id::UserId, reason::Reason, v1};
use fafnir_rules::symbol::Symbol;

/// A user's public face.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub user_id: UserId,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub created_us: i64,
    pub updated_us: i64,
}

/// The names of a request, checked.
pub fn parse_names(profile: &v1::Profile) -> Result<(String, String), Refusal> {
    Ok((
        names::person_name("first_name", &profile.first_name)?,
        names::person_name("last_name", &profile.last_name)?,
    ))
}

/// A symbol of a request in its canonical form.
pub fn symbol(text: &str) -> Result<String, Refusal> {
    let symbol =
        Symbol::parse(text).map_err(|e| Refusal::invalid(Reason::SYMBOL_MALFORMED, e.to_string()))?;
    Ok(symbol.to_string())
}

impl From<Profile> for v1::Profile {
    fn from(p: Profile) -> Self {
        Self {
            user_id: p.user_id.to_string(),
            first_name: p.first_name,
            last_name: p.last_name,
            email: p.email,
            created_us: p.created_us,
            updated_us: p.updated_us,
        }
    }
}
