//! Double entry: a ledger transaction is a set of postings that sums to zero per asset.

use super::{AccountKey, AssetKey, Fault};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Postings that one ledger transaction can have: their ids are `ledger id × 16 + number`.
pub const POSTINGS_MAX: usize = 16;

/// Why a ledger transaction was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Opening,
    Deposit,
    Transfer,
    Trade,
    Endowment,
    Closing,
}

impl Cause {
    pub fn number(self) -> i32 {
        match self {
            Self::Opening => 1,
            Self::Deposit => 2,
            Self::Transfer => 3,
            Self::Trade => 4,
            Self::Endowment => 5,
            Self::Closing => 6,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Opening, Self::Deposit, Self::Transfer, Self::Trade, Self::Endowment, Self::Closing]
            .into_iter()
            .find(|c| c.number() == number)
    }
}

/// What a posting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Principal,
    Fee,
    Conversion,
}

impl Role {
    pub fn number(self) -> i32 {
        match self {
            Self::Principal => 0,
            Self::Fee => 1,
            Self::Conversion => 2,
        }
    }
}

/// One line: an account gains or loses an amount of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    pub account: AccountKey,
    pub asset: AssetKey,
    pub amount: i64,
    pub role: Role,
}

/// A set of postings that was checked: at most [`POSTINGS_MAX`], none zero, each asset sums to zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced(Vec<Posting>);

impl Balanced {
    pub fn as_slice(&self) -> &[Posting] {
        &self.0
    }
}

/// Collects postings; lines of the same account, asset and role become one.
#[derive(Debug, Clone, Default)]
pub struct Postings(Vec<Posting>);

impl Postings {
    /// Adds one line.
    pub fn add(
        &mut self,
        account: AccountKey,
        asset: AssetKey,
        amount: i64,
        role: Role,
    ) -> Result<&mut Self, Fault> {
        let same = self.0.iter_mut().find(|p| p.account == account && p.asset == asset && p.role == role);
        match same {
            Some(posting) => {
                posting.amount = posting.amount.checked_add(amount).ok_or(Fault::Overflow)?;
            }
            None => self.0.push(Posting { account, asset, amount, role }),
        }
        Ok(self)
    }

    /// Moves an amount of one asset from one account to another.
    pub fn transfer(
        &mut self,
        from: AccountKey,
        to: AccountKey,
        asset: AssetKey,
        amount: i64,
        role: Role,
    ) -> Result<&mut Self, Fault> {
        self.add(from, asset, -amount, role)?.add(to, asset, amount, role)
    }

    /// Checks that each asset sums to zero.
    pub fn balanced(mut self) -> Result<Balanced, Fault> {
        let mut sums = BTreeMap::<AssetKey, i128>::new();
        for posting in &self.0 {
            *sums.entry(posting.asset).or_default() += i128::from(posting.amount);
        }
        if let Some((&asset, &sum)) = sums.iter().find(|(_, sum)| **sum != 0) {
            return Err(Fault::Unbalanced { asset, sum });
        }
        self.0.retain(|p| p.amount != 0);
        if self.0.len() > POSTINGS_MAX {
            return Err(Fault::TooManyPostings(POSTINGS_MAX));
        }
        Ok(Balanced(self.0))
    }
}

/// A trade's name in the ledger: unique for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecId {
    pub symbol: AssetKey,
    pub seq: u64,
    pub price_e4: i64,
}

/// A ledger transaction that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub cause: Cause,
    pub exec: Option<ExecId>,
    /// What the side that pays, and the side that is paid, sees as reference: its order, or the other account.
    pub payer_ref: Option<Uuid>,
    pub payee_ref: Option<Uuid>,
    /// The recorded rate of a side whose account is in another currency.
    pub payer_rate: Option<i64>,
    pub payee_rate: Option<i64>,
    pub postings: Balanced,
    /// Changes of balances besides the postings.
    pub adjustments: Vec<Adjustment>,
}

impl Transaction {
    pub fn new(cause: Cause, postings: Balanced) -> Self {
        Self {
            cause,
            exec: None,
            payer_ref: None,
            payee_ref: None,
            payer_rate: None,
            payee_rate: None,
            postings,
            adjustments: Vec::new(),
        }
    }
}

/// What changes in a balance besides what is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjustment {
    pub account: AccountKey,
    pub asset: AssetKey,
    pub held: i64,
    pub cost: i64,
    pub realized: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_that_do_not_sum_to_zero_are_refused() {
        let mut p = Postings::default();
        p.add(1, 1, -5, Role::Principal).unwrap().add(2, 1, 4, Role::Principal).unwrap();
        assert_eq!(p.balanced(), Err(Fault::Unbalanced { asset: 1, sum: -1 }));
    }

    #[test]
    fn each_asset_is_balanced_on_its_own() {
        let mut p = Postings::default();
        p.add(1, 1, -5, Role::Principal).unwrap().add(2, 2, 5, Role::Principal).unwrap();
        assert!(matches!(p.balanced(), Err(Fault::Unbalanced { .. })));
    }

    #[test]
    fn lines_that_cancel_out_are_left_out() {
        let mut p = Postings::default();
        p.transfer(1, 2, 1, 7, Role::Conversion).unwrap().transfer(2, 3, 1, 7, Role::Conversion).unwrap();
        let kept = p.balanced().unwrap();
        assert_eq!(kept.as_slice().iter().map(|p| p.account).collect::<Vec<_>>(), [1, 3]);
    }
}
