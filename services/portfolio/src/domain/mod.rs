//! Accounts, assets and balances as the books have them; what is read out of them (the ledger's chain, statements,
//! valuation, performance) has files of its own.
//!
//! Everything here is integer arithmetic without a clock, randomness or I/O. Amounts are micros of one currency,
//! quantities and prices have scale 10⁻⁴. Nothing here decides a balance: the engine's facts do.

pub mod gains;
pub mod ledger;
pub mod performance;
pub mod period;
pub mod report;
pub mod statement;
pub mod valuation;

use fafnir_proto::id::{AccountId, UserId};
use uuid::Uuid;

/// Key of an account inside the books, in the order of first appearance.
pub type AccountKey = i64;
/// Key of a currency or symbol inside the books, in the order of first appearance.
pub type AssetKey = i64;

/// Micros in one unit of a currency.
pub const MICROS: i64 = 1_000_000;

/// A currency that accounts and listings may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Currency {
    Usd,
    Cad,
}

impl Currency {
    pub const ALL: [Self; 2] = [Self::Usd, Self::Cad];

    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.code() == code)
    }
    /// ISO 4217.
    pub fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Cad => "CAD",
        }
    }
    /// Its key as an asset; fixed by the first migration.
    pub fn asset(self) -> AssetKey {
        match self {
            Self::Usd => 1,
            Self::Cad => 2,
        }
    }
}

/// A client's account. House accounts are only keys: nobody reads them one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub key: AccountKey,
    pub id: AccountId,
    pub user: UserId,
    /// Number of `fafnir.v1.AccountType`.
    pub kind: i32,
    pub currency: Currency,
    pub number: String,
    pub closed: bool,
    pub created_us: i64,
    pub updated_us: i64,
}

/// Cash or shares of an account, as the last fact about them told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Of shares: the public id.
    pub id: Option<Uuid>,
    pub posted: i64,
    pub held: i64,
    /// Shares: micros of the account's currency paid for what is there now.
    pub cost: i64,
    /// Shares: micros of the account's currency gained by sales since the position was opened.
    pub realized: i64,
    pub created_us: i64,
    pub updated_us: i64,
}

impl Balance {
    /// What can be spent: posted − held. Never negative.
    pub fn available(&self) -> i64 {
        self.posted.saturating_sub(self.held)
    }

    /// Cost of one share in micros, rounded half up.
    pub fn average_cost(&self) -> i64 {
        if self.posted <= 0 {
            return 0;
        }
        let (cost, quantity) = (i128::from(self.cost), i128::from(self.posted));
        i64::try_from((2 * cost * 10_000 + quantity).div_euclid(2 * quantity)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_cost_is_per_share_rounded_half_up() {
        let b = Balance { posted: 30_000, cost: 1_000_000, ..Balance::default() };
        assert_eq!(b.average_cost(), 333_333);
        let b = Balance { posted: i64::MAX, cost: i64::MAX, ..Balance::default() };
        assert_eq!(b.average_cost(), 10_000);
    }
}
