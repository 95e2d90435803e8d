//! Accounts of clients, what is in them, and the house.

use std::collections::BTreeMap;
use uuid::Uuid;

/// Micros in one unit of a currency.
pub const MICROS: i64 = 1_000_000;
/// Accounts that a user may have open.
pub const ACCOUNTS_MAX: usize = 100;
/// Account numbers count from here, so that each has ten digits.
pub const NUMBER_BASE: u64 = 1_000_000_000;

/// A currency that accounts and listings may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Currency {
    Usd = 0,
    Cad = 1,
}

impl Currency {
    pub const ALL: [Self; 2] = [Self::Usd, Self::Cad];

    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.code() == code)
    }

    /// ISO 4217.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Cad => "CAD",
        }
    }

    /// The currency with this stable number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| *c as u8 == number)
    }
}

/// What an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Investment = 1,
    Savings = 2,
    Chequing = 3,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Investment, Self::Savings, Self::Chequing];

    /// The kind with this stable number, which is that of `fafnir.v1.AccountType`.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u8 == number)
    }
}

/// What a balance is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asset {
    Cash(Currency),
    /// Shares, by the number of their market.
    Shares(u32),
}

/// An account of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum House {
    /// Where paper money comes from.
    Funding = 1,
    Fees = 2,
    /// Changes currencies.
    Fx = 3,
    /// Keeps what rounding leaves.
    Rounding = 4,
    /// Where the shares of a symbol come from.
    Issuer = 5,
}

impl House {
    pub const ALL: [Self; 5] = [Self::Funding, Self::Fees, Self::Fx, Self::Rounding, Self::Issuer];

    /// The account with this stable number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|h| *h as u8 == number)
    }
}

/// Cash of an account, micros. `0 <= held <= posted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cash {
    pub posted: i64,
    /// For open BUY orders.
    pub held: i64,
}

impl Cash {
    /// What can be spent: posted − held.
    pub fn available(self) -> i64 {
        self.posted - self.held
    }
}

/// Shares of an account in one symbol, e4. `0 <= held <= posted`; one that is sold out leaves the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    pub posted: i64,
    /// For open SELL orders.
    pub held: i64,
    /// Micros of the account's currency paid for what is there now.
    pub cost: i64,
    /// Micros of the account's currency gained by sales since the position was opened.
    pub realized: i64,
    pub opened_us: i64,
    pub updated_us: i64,
}

impl Holding {
    /// What can be sold: posted − held.
    pub fn available(self) -> i64 {
        self.posted - self.held
    }

    /// The part of the cost that `quantity` of the shares carries: proportional, what remains is rounded down, so that
    /// the last share takes the last micro with it.
    pub fn cost_of(self, quantity: i64) -> i64 {
        if quantity >= self.posted {
            return self.cost;
        }
        let rest = i128::from(self.cost) * i128::from(self.posted - quantity) / i128::from(self.posted);
        self.cost - i64::try_from(rest).unwrap_or(self.cost)
    }
}

/// An open account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: Uuid,
    /// Counted from 1 over all accounts.
    pub number: u64,
    /// Number of its user.
    pub owner: u32,
    pub kind: Kind,
    pub currency: Currency,
    pub opened_us: i64,
    pub updated_us: i64,
    pub cash: Cash,
    /// By market.
    pub holdings: BTreeMap<u32, Holding>,
    /// Its open orders.
    pub open_orders: u32,
}

/// Somebody who has accounts or orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    pub agent: bool,
    /// It has left: nothing more is taken from it.
    pub closed: bool,
    /// Last number of its orders' facts and of its money's; 0 for agents.
    pub order_seq: u64,
    pub money_seq: u64,
    pub open_orders: u32,
    /// Its open accounts, oldest first.
    pub accounts: Vec<Uuid>,
    /// Deposits of the day that began then, by currency.
    pub deposits_day_us: i64,
    pub deposits: [i64; 2],
    /// Position of the last fact that touched it.
    pub touched: u64,
}
