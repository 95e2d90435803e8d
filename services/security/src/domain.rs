//! Names of roles and permissions.

pub mod audit;

use fafnir_platform::Refusal;
use fafnir_proto::reason::Reason;

/// Characters of a role's or a permission's name.
const NAME_LEN_MAX: usize = 64;

/// The role whose last holder keeps it: somebody must be able to grant.
pub const ADMIN: &str = "admin";
/// What a user needs to read the audit log.
pub const VIEW_AUDIT_LOGS: &str = "view_audit_logs";
/// What a user needs to grant and revoke roles.
pub const MANAGE_ROLES: &str = "manage_roles";

/// A name as it can be in the tables: `[a-z_]`, 1 to 64 characters.
pub fn parse_name(field: &'static str, text: &str) -> Result<String, Refusal> {
    let good = !text.is_empty()
        && text.len() <= NAME_LEN_MAX
        && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if good {
        Ok(text.to_owned())
    } else {
        let message = format!("{field} must have 1 to {NAME_LEN_MAX} characters out of a-z and _");
        Err(Refusal::invalid(Reason::NAME_MALFORMED, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case() {
        assert!(parse_name("permission", "view_stocks").is_ok());
        for bad in ["", "View", "a b", "a'; --", "é", &"a".repeat(65)] {
            assert!(parse_name("permission", bad).is_err(), "{bad:?}");
        }
    }
}
