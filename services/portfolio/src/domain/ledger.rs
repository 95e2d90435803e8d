//! The ledger's transactions and the chain that a changed or missing one breaks.

use fafnir_proto::v1;
use sha2::{Digest as _, Sha256};

/// Postings that one ledger transaction can have: their ids are `ledger id × 16 + number`.
pub const POSTINGS_MAX: usize = 16;

/// Why a ledger transaction was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Opening = 1,
    Deposit = 2,
    Transfer = 3,
    Trade = 4,
    Endowment = 5,
    Closing = 6,
    Withdrawal = 7,
}

impl Cause {
    /// Number of `fafnir.v1.Cause`, which is also the stored one.
    pub fn number(self) -> i32 {
        self as i32
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [
            Self::Opening,
            Self::Deposit,
            Self::Transfer,
            Self::Trade,
            Self::Endowment,
            Self::Closing,
            Self::Withdrawal,
        ]
        .into_iter()
        .find(|c| c.number() == number)
    }
}

/// Name of a house account: of the issuer one for each symbol.
pub fn house_name(house: v1::House, asset: &str) -> Option<String> {
    Some(match house {
        v1::House::Unspecified => return None,
        v1::House::Funding => "funding".to_owned(),
        v1::House::Fees => "fees".to_owned(),
        v1::House::Fx => "fx".to_owned(),
        v1::House::Rounding => "rounding".to_owned(),
        v1::House::Issuer => format!("issuer:{asset}"),
    })
}

/// What a ledger row carries of its place: the hash of the one before it and of all that itself says.
pub type Hash = [u8; 16];

/// One line of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Id of a client's account, or name of the house's.
    pub account: String,
    /// Currency or symbol.
    pub asset: String,
    pub amount: i64,
    pub role: i32,
}

/// A ledger transaction, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Position of its fact.
    pub id: i64,
    pub cause: i32,
    pub time_us: i64,
    /// Trade: symbol and number there, its price.
    pub symbol: Option<String>,
    pub exec_seq: i64,
    pub price_e4: i64,
    /// What the side that pays and the side that is paid sees as reference: its order, or the other account.
    pub payer_ref: Option<Vec<u8>>,
    pub payee_ref: Option<Vec<u8>>,
    /// Ids of rate and fee schedule of the two sides; 0: none.
    pub payer_rate: u32,
    pub payee_rate: u32,
    pub payer_fees: u32,
    pub payee_fees: u32,
    /// Trade: what the sale realised and the cost that went with the shares, micros of the seller's currency.
    pub realized: i64,
    pub cost: i64,
    /// Trade: number of `fafnir.v1.Side` of the side that took; in an auction of the one that the book names so.
    pub taker: i32,
    pub postings: Vec<Posting>,
}

impl Entry {
    /// Its hash in the chain after another; the first one's is [`Hash::default`].
    pub fn hash_after(&self, before: &Hash) -> Hash {
        let mut hash = Sha256::new_with_prefix(before);
        let mut bytes = |b: &[u8]| {
            hash.update((b.len() as u64).to_be_bytes());
            hash.update(b);
        };
        let (cause, taker) = (self.cause.into(), self.taker.into());
        for number in [self.id, cause, self.time_us, self.exec_seq, self.price_e4, taker] {
            bytes(&number.to_be_bytes());
        }
        for id in [self.payer_rate, self.payee_rate, self.payer_fees, self.payee_fees] {
            bytes(&id.to_be_bytes());
        }
        for amount in [self.realized, self.cost] {
            bytes(&amount.to_be_bytes());
        }
        bytes(self.symbol.as_deref().unwrap_or_default().as_bytes());
        bytes(self.payer_ref.as_deref().unwrap_or_default());
        bytes(self.payee_ref.as_deref().unwrap_or_default());
        for posting in &self.postings {
            bytes(posting.account.as_bytes());
            bytes(posting.asset.as_bytes());
            bytes(&posting.amount.to_be_bytes());
            bytes(&posting.role.to_be_bytes());
        }
        let mut short = Hash::default();
        short.copy_from_slice(&hash.finalize()[..size_of::<Hash>()]);
        short
    }

    /// Whether its postings sum to zero per asset.
    pub fn is_balanced(&self) -> bool {
        self.postings.iter().all(|p| {
            let same = self.postings.iter().filter(|other| other.asset == p.asset);
            same.map(|other| i128::from(other.amount)).sum::<i128>() == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let posting = |account: &str, amount| Posting {
            account: account.to_owned(),
            asset: "USD".to_owned(),
            amount,
            role: 0,
        };
        Entry { id: 7, cause: 2, postings: vec![posting("a", 5), posting("funding", -5)], ..Entry::default() }
    }

    #[test]
    fn each_asset_is_balanced_on_its_own() {
        let mut e = entry();
        assert!(e.is_balanced());
        e.postings[1].asset = "CAD".to_owned();
        assert!(!e.is_balanced());
    }

    #[test]
    fn a_hash_is_of_everything_that_an_entry_says_and_of_its_place() {
        let first = entry().hash_after(&Hash::default());
        let mut seen = vec![first, entry().hash_after(&first)];
        let changes: [fn(&mut Entry); 8] = [
            |e| e.id += 1,
            |e| e.cause += 1,
            |e| e.time_us += 1,
            |e| e.payee_ref = Some(vec![1]),
            |e| e.payer_ref = Some(vec![1]),
            |e| e.realized = -1,
            |e| e.postings[0].amount += 1,
            |e| e.postings.swap(0, 1),
        ];
        for change in changes {
            let mut e = entry();
            change(&mut e);
            seen.push(e.hash_after(&Hash::default()));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10);
    }
}
