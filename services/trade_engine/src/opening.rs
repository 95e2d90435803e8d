//! Facts that stand for everything before a snapshot, where the true ones are gone: what a state holds, told as if it had
//! been opened with it. They end where the snapshot does, so that the facts behind it follow.

use super::{
    message,
    recovery::{Error, names_of},
    snapshot,
};
use fafnir_clearing::{
    State,
    account::{Account, Asset, House},
    account_after,
};
use fafnir_proto::v1;
use std::{fs, path::Path};
use uuid::Uuid;

/// A state that projections can begin from.
#[derive(Debug)]
pub struct Opening {
    /// The last position in it.
    pub position: u64,
    /// Its hash: where the chain of a ledger begins that has nothing before it.
    pub hash: [u8; 32],
    /// For the books: terms, listings, accounts, one transaction per balance.
    pub books: Vec<v1::Fact>,
    /// For the orders: those that are open.
    pub orders: Vec<v1::Fact>,
}

/// The oldest snapshot that the fact log goes on from; `None` where there is none.
///
/// # Errors
/// A file cannot be read.
pub fn oldest(dir: &Path, first_fact: u64, last_fact: u64) -> Result<Option<Opening>, Error> {
    let io_at = |path: &Path| {
        let path = path.display().to_string();
        move |source| Error::Io { path, source }
    };
    for named in snapshot::list(dir).map_err(io_at(dir))?.iter().rev() {
        let bytes = fs::read(&named.path).map_err(io_at(&named.path))?;
        let Ok(taken) = snapshot::decode(&bytes) else { continue };
        if (first_fact..=last_fact + 1).contains(&(taken.state.position() + 1)) {
            return Ok(Some(of(&taken.state, taken.hash)));
        }
    }
    Ok(None)
}

/// What a state holds, as facts.
pub fn of(state: &State, hash: [u8; 32]) -> Opening {
    let names = names_of(state);
    let (mut books, mut orders) = (reference(state), Vec::new());
    for account in state.accounts_after(Uuid::nil(), usize::MAX) {
        account_facts(state, &names, account, &mut books);
    }
    house(state, &names, &mut books);
    for order in state.orders() {
        let user = state.owner(order.owner).map_or_else(Uuid::nil, |u| u.id);
        let message = message::order(&names, order, user);
        let key = v1::RequestKey { key: message.client_order_id.clone(), ..Default::default() };
        let done = v1::Done { object_id: message.id.clone(), ..Default::default() };
        let update =
            v1::OrderUpdate { user_id: user.to_string(), order: Some(message), ..Default::default() };
        let mut fact = v1::Fact { user_id: user.to_string(), orders: vec![update], ..Default::default() };
        fact.set_kind(v1::FactKind::Accepted);
        (fact.key, fact.done) = (Some(key).filter(|key| !key.key.is_empty()), Some(done));
        orders.push(fact);
    }
    for facts in [&mut books, &mut orders] {
        let count = facts.len() as u64;
        for (at, fact) in (1..).zip(facts.iter_mut()) {
            fact.position = (state.position() + at).saturating_sub(count);
            fact.time_us = state.time_us();
        }
    }
    Opening { position: state.position(), hash, books, orders }
}

/// Every rate and schedule that an order may still have, and the listings.
fn reference(state: &State) -> Vec<v1::Fact> {
    let mut facts = Vec::new();
    let told = |terms: v1::Terms| {
        let mut fact = v1::Fact { terms: Some(terms), ..Default::default() };
        fact.set_kind(v1::FactKind::TermsSet);
        fact
    };
    for (rate_id, usd_cad) in (1..).zip(state.rates()) {
        facts.push(told(v1::Terms { rate_id, usd_cad_micros: *usd_cad, ..Default::default() }));
    }
    for (fees_id, fees) in (1..).zip(state.fees()) {
        let (maker_bp, taker_bp) = (fees.maker_bp, fees.taker_bp);
        facts.push(told(v1::Terms { fees_id, maker_bp, taker_bp, ..Default::default() }));
    }
    for market in state.markets() {
        let mut fact = v1::Fact {
            symbol: market.symbol().to_string(),
            instrument: Some(message::listing(&market.instrument())),
            ..Default::default()
        };
        fact.set_kind(v1::FactKind::InstrumentSet);
        facts.push(fact);
    }
    facts
}

fn account_facts(state: &State, names: &message::Names, account: &Account, facts: &mut Vec<v1::Fact>) {
    let user = state.owner(account.owner).map_or_else(Uuid::nil, |u| u.id);
    let after = account_after(account, false);
    let told = message::account(&after, user);
    let update = |holding| v1::PortfolioUpdate {
        user_id: user.to_string(),
        account: Some(told.clone()),
        holding,
        ..Default::default()
    };
    let mut opened = v1::Fact { balances: vec![update(None)], ..Default::default() };
    opened.set_kind(v1::FactKind::AccountOpened);
    facts.push(opened);
    let cash = Asset::Cash(account.currency);
    if account.cash.posted != 0 {
        facts.push(opening(names, &told.id, House::Funding, cash, account.cash.posted, update(None)));
    }
    for (market, shares) in &account.holdings {
        let holding = message::holding(names, &after, *market, *shares);
        let asset = Asset::Shares(*market);
        let mut fact = opening(names, &told.id, House::Issuer, asset, shares.posted, update(Some(holding)));
        (fact.cost_micros, fact.realized_micros) = (shares.cost, shares.realized);
        facts.push(fact);
    }
}

/// One transaction that brings a client's balance to what it is.
fn opening(
    names: &message::Names,
    account: &str,
    from: House,
    asset: Asset,
    amount: i64,
    update: v1::PortfolioUpdate,
) -> v1::Fact {
    let asset = message::asset(names, asset);
    let line = v1::Posting { asset, ..Default::default() };
    let postings = vec![
        v1::Posting { account_id: account.to_owned(), amount, ..line.clone() },
        v1::Posting { house: message::house(from).into(), amount: -amount, ..line },
    ];
    let mut fact = v1::Fact { balances: vec![update], postings, ..Default::default() };
    fact.set_kind(v1::FactKind::Money);
    fact.set_cause(v1::Cause::Opening);
    fact
}

/// What the house has beside that where money and shares come from, which is left with what all others add up to.
fn house(state: &State, names: &message::Names, facts: &mut Vec<v1::Fact>) {
    for (house, asset, mut amount) in state.house() {
        let from = match asset {
            Asset::Cash(_) => House::Funding,
            Asset::Shares(_) => House::Issuer,
        };
        while house != from && amount != 0 {
            // A balance of the house may be beyond what one line carries.
            let part = amount.clamp(-i128::from(i64::MAX), i128::from(i64::MAX));
            amount -= part;
            let part = i64::try_from(part).unwrap_or(i64::MAX);
            let line = v1::Posting { asset: message::asset(names, asset), ..Default::default() };
            let postings = vec![
                v1::Posting { house: message::house(house).into(), amount: part, ..line.clone() },
                v1::Posting { house: message::house(from).into(), amount: -part, ..line },
            ];
            let mut fact = v1::Fact { postings, ..Default::default() };
            fact.set_kind(v1::FactKind::Money);
            fact.set_cause(v1::Cause::Opening);
            facts.push(fact);
        }
    }
}
