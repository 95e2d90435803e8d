//! The chain of the audit log: what each row's hash is of, and where a chain is broken; no I/O.
//!
//! A hash is HMAC-SHA-256 under the log's own key over the hash before it and every field of the row, each with its
//! length in front. So a row that is changed, removed or put elsewhere breaks the chain at that place, and who can write
//! the table but has no key can make no other chain. Rows gone from the end leave the head, which is kept apart.

use ring::hmac;

/// The hash before the first row.
pub const GENESIS: [u8; 32] = [0; 32];

/// An entry in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// From 1, without a gap.
    pub seq: u64,
    pub id: String,
    pub time_us: i64,
    pub action: String,
    pub outcome: String,
    pub actor: String,
    pub subject: String,
    pub source: String,
    pub trace: String,
    pub detail: String,
    pub key_id: String,
    pub hash: Vec<u8>,
}

/// The key of a log's chain.
#[derive(Clone)]
pub struct Chain(hmac::Key);

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain(****)")
    }
}

/// Where a log was tampered with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("row {seq} is not what was written, or not where it was written")]
    Hash { seq: u64 },
    #[error("row {wanted} is missing: after it comes row {found}")]
    Gap { wanted: u64, found: u64 },
    #[error("the log ends with row {found}, its head says {head}: rows were taken off its end, or put there")]
    End { head: u64, found: u64 },
    #[error("the head has another hash than the last row, {seq}")]
    Head { seq: u64 },
}

impl Chain {
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The hash of a row after another one's.
    pub fn hash(&self, before: &[u8], row: &Row) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(before);
        context.update(&row.seq.to_be_bytes());
        context.update(&row.time_us.to_be_bytes());
        let fields = [
            &row.id,
            &row.action,
            &row.outcome,
            &row.actor,
            &row.subject,
            &row.source,
            &row.trace,
            &row.detail,
            &row.key_id,
        ];
        for field in fields {
            context.update(&(field.len() as u64).to_be_bytes());
            context.update(field.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }
}

/// A log that is read from its beginning, row by row.
#[derive(Debug, Clone)]
pub struct Reading {
    pub seq: u64,
    pub hash: Vec<u8>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { seq: 0, hash: GENESIS.to_vec() }
    }
}

impl Reading {
    /// Takes the row that comes next.
    pub fn take(&mut self, chain: &Chain, row: &Row) -> Result<(), Broken> {
        let wanted = self.seq + 1;
        if row.seq != wanted {
            return Err(Broken::Gap { wanted, found: row.seq });
        }
        if row.hash != chain.hash(&self.hash, row) {
            return Err(Broken::Hash { seq: row.seq });
        }
        (self.seq, self.hash) = (row.seq, row.hash.clone());
        Ok(())
    }

    /// Whether the log ends where its head says.
    pub fn end(&self, head: &Self) -> Result<(), Broken> {
        if self.seq != head.seq {
            return Err(Broken::End { head: head.seq, found: self.seq });
        }
        if self.hash == head.hash { Ok(()) } else { Err(Broken::Head { seq: self.seq }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64, action: &str, detail: &str) -> Row {
        let text = String::new;
        Row {
            seq,
            id: format!("id-{seq}"),
            time_us: 7,
            action: action.to_owned(),
            outcome: "OK".to_owned(),
            actor: text(),
            subject: text(),
            source: text(),
            trace: text(),
            detail: detail.to_owned(),
            key_id: text(),
            hash: Vec::new(),
        }
    }

    #[test]
    fn no_text_moves_from_one_field_to_another_unseen() {
        let chain = Chain::new(b"key");
        let one = chain.hash(&GENESIS, &row(1, "ab", "c"));
        assert_ne!(one, chain.hash(&GENESIS, &row(1, "a", "bc")));
        assert_ne!(
            one,
            Chain::new(b"other").hash(&GENESIS, &row(1, "ab", "c")),
            "another key, another chain"
        );
    }
}
