//! Who and what a message is about: each kind of id is a type of its own, so that none passes for another.
//!
//! An id is read from the wire once ([`UserId::parse`] and the like) and printed there; in between nobody looks inside.

use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The text is not a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID")]
pub struct Malformed;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with this number: a new one, or one that is kept as a bare number.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// Reads an id off the wire.
            ///
            /// # Errors
            /// The text is not a UUID.
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                Uuid::parse_str(text).map(Self).map_err(|_| Malformed)
            }

            /// The number, for what keeps bare numbers.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )+ };
}

ids! {
    /// A person, or an agent of the house.
    UserId
    /// A sign-in, from its beginning to its end.
    SessionId
    /// A client's account.
    AccountId
    /// An order, the same at every service.
    OrderId
    /// A line of an account's statement.
    TransactionId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_or_refused_and_printed_as_it_was() {
        let text = "0197a8b0-0000-7000-8000-000000008f3a";
        assert_eq!(UserId::parse(text).map(|id| id.to_string()), Ok(text.to_owned()));
        assert_eq!(format!("{:?}", AccountId::parse(text)), format!("Ok({text})"));
        for bad in ["", "1", "0197a8b0-0000-7000-8000-00000000"] {
            assert_eq!(OrderId::parse(bad), Err(Malformed), "{bad}");
        }
    }
}
