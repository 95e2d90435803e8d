//! Accounts and money that moves without a trade.
#![expect(
    clippy::expect_used,
    reason = "what was checked before cannot fail: a step that breaks this must not go on"
)]

use crate::{
    account::{ACCOUNTS_MAX, Account, Asset, Cash, Currency, Holding, House, Kind, NUMBER_BASE},
    command::Endow,
    fact::{Cause, End, Money, Party, Posting, Role, Sink, Touched, What},
    refusal::Refusal,
    settle::Postings,
    state::account_after,
    step::{Checked, Stepper},
};
use fafnir_rules::limits::{LISTING_E4_MAX, QUANTITY_E4_MAX};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Most that one transfer may move: a billion of the currency.
pub const TRANSFER_MAX: i64 = 1_000_000_000_000_000;
/// Most cash and shares that one endowment may move: market makers hold more than people.
pub const ENDOWMENT_MAX: i64 = 100 * TRANSFER_MAX;
pub const ENDOWMENT_E4_MAX: i64 = 1_000 * QUANTITY_E4_MAX;
const DAY_US: i64 = 86_400_000_000;

impl Account {
    /// The number that its owner sees.
    pub fn number_text(&self) -> String {
        (NUMBER_BASE + self.number).to_string()
    }
}

fn check_amount(amount: i64, max: i64) -> Checked {
    if (1..=max).contains(&amount) { Ok(()) } else { Err(Refusal::AmountOutOfRange { max }) }
}

fn in_currency(currency: Currency, amount: i64) -> [i128; 2] {
    let mut both = [0; 2];
    both[currency as usize] = i128::from(amount);
    both
}

impl<S: Sink> Stepper<'_, S> {
    /// An open account of the caller.
    fn own_account(&self, id: Uuid) -> Checked<&Account> {
        let owner = self.caller()?;
        let account = self.state.accounts.get(&id).filter(|a| Some(a.owner) == owner);
        account.ok_or(Refusal::AccountUnknown(id))
    }

    fn own_in(&self, id: Uuid, currency: Currency) -> Checked<&Account> {
        let account = self.own_account(id)?;
        if account.currency == currency {
            return Ok(account);
        }
        Err(Refusal::CurrencyMismatch { field: "currency", is: account.currency })
    }

    fn check_room(&self, currency: Currency, amount: i64) -> Checked {
        let rate = self.state.terms().usd_cad;
        let more = in_currency(currency, amount);
        let fits = amount == 0 || self.state.fits(more, rate) && self.state.settles(more, [0; 2], rate);
        if fits { Ok(()) } else { Err(Refusal::ExchangeFull) }
    }

    pub fn open_account(&mut self, id: Uuid, kind: Kind, currency: Currency, opening: bool) -> Checked {
        let owner = self.caller()?;
        if let Some(account) = self.state.accounts.get(&id) {
            let same = Some(account.owner) == owner && account.kind == kind && account.currency == currency;
            if !same {
                return Err(Refusal::AccountExists(id));
            }
            self.account = Some(account_after(account, false));
            return Ok(());
        }
        let user = owner.and_then(|number| self.state.owner(number));
        if user.is_some_and(|u| u.accounts.len() >= ACCOUNTS_MAX) {
            return Err(Refusal::TooManyAccounts { max: ACCOUNTS_MAX });
        }
        let deposit = if opening { self.state.rules.opening } else { 0 };
        self.check_room(currency, deposit)?;
        let owner = self.caller_made();
        let now = self.state.time_us;
        self.state.account_no += 1;
        let account = Account {
            id,
            number: self.state.account_no,
            owner,
            kind,
            currency,
            opened_us: now,
            updated_us: now,
            cash: Cash::default(),
            holdings: BTreeMap::new(),
            open_orders: 0,
        };
        self.state.accounts.insert(id, account);
        self.state.users[owner as usize - 1].accounts.push(id);
        self.known.object = id;
        let touched = self.state.touch(id, None, false).expect("invariant: the account was just opened");
        self.emit(None, What::AccountOpened(touched));
        if deposit > 0 {
            self.move_cash(id, deposit, Cause::Opening);
        }
        self.account = self.state.accounts.get(&id).map(|a| account_after(a, false));
        Ok(())
    }

    /// Moves cash between an account and funding, and tells it; what it needs was checked.
    fn move_cash(&mut self, id: Uuid, amount: i64, cause: Cause) {
        let currency = self.add_cash(id, amount);
        let asset = Asset::Cash(currency);
        let mut lines = Postings::default();
        lines.transfer(Party::House(House::Funding), Party::Client(id), asset, amount, Role::Principal);
        // The client's line first: it is the one that an answer names.
        let mut postings = lines.balanced();
        postings.reverse();
        let touched = [self.state.touch(id, None, false), None];
        self.known.amount = self.state.accounts[&id].cash.posted;
        self.told(Money { cause, touched, postings, rate: 0, cost: 0 });
    }

    fn add_cash(&mut self, id: Uuid, amount: i64) -> Currency {
        let account = self.state.accounts.get_mut(&id).expect("invariant: the account was found");
        account.cash.posted =
            account.cash.posted.checked_add(amount).expect("invariant: all clients' cash together fits");
        self.state.client_cash[account.currency as usize] += i128::from(amount);
        account.currency
    }

    fn told(&mut self, money: Money) {
        for posting in &money.postings {
            self.state.post_house(posting);
        }
        self.emit(None, What::Money(Box::new(money)));
    }

    pub fn deposit(&mut self, id: Uuid, currency: Currency, amount: i64) -> Checked {
        let account = self.own_in(id, currency)?;
        let rules = self.state.rules;
        check_amount(amount, rules.deposit_max)?;
        let owner = account.owner;
        let fits = account.cash.posted.checked_add(amount).is_some_and(|after| after <= rules.account_max);
        if !fits {
            return Err(Refusal::AccountFull { max: rules.account_max });
        }
        let day_us = self.state.time_us - self.state.time_us.rem_euclid(DAY_US);
        let user = &self.state.users[owner as usize - 1];
        let so_far = if user.deposits_day_us == day_us { user.deposits } else { [0; 2] };
        let left = rules.deposits_per_day_max.saturating_sub(so_far[currency as usize]);
        if amount > left {
            return Err(Refusal::DepositsOfDay { max: rules.deposits_per_day_max, left: left.max(0) });
        }
        self.check_room(currency, amount)?;
        let user = &mut self.state.users[owner as usize - 1];
        user.deposits_day_us = day_us;
        user.deposits = so_far;
        user.deposits[currency as usize] += amount;
        self.known.object = id;
        self.move_cash(id, amount, Cause::Deposit);
        self.account = self.state.accounts.get(&id).map(|a| account_after(a, false));
        Ok(())
    }

    pub fn withdraw(&mut self, id: Uuid, currency: Currency, amount: i64) -> Checked {
        let account = self.own_in(id, currency)?;
        check_amount(amount, TRANSFER_MAX)?;
        let available = account.cash.available();
        if amount > available {
            return Err(Refusal::InsufficientFunds { needed: amount, available, currency });
        }
        self.known.object = id;
        self.move_cash(id, -amount, Cause::Withdrawal);
        self.account = self.state.accounts.get(&id).map(|a| account_after(a, false));
        Ok(())
    }

    pub fn transfer(&mut self, from: Uuid, to: Uuid, currency: Currency, amount: i64) -> Checked {
        if from == to {
            return Err(Refusal::SameAccount);
        }
        let paying = self.own_in(from, currency)?;
        let paid = self.own_account(to)?;
        check_amount(amount, TRANSFER_MAX)?;
        let available = paying.cash.available();
        if amount > available {
            return Err(Refusal::InsufficientFunds { needed: amount, available, currency });
        }
        let got = paid.currency;
        let rate = self.state.rate_id(currency, got)?;
        let fx = self.state.fx(rate, currency, got);
        let (down, up) = fx.convert(amount).ok_or(Refusal::AmountTooLarge)?;
        if down == 0 {
            return Err(Refusal::AmountTooSmall);
        }
        let mut moved = in_currency(currency, -amount);
        moved[got as usize] += i128::from(up);
        if !self.state.settles(moved, [0; 2], self.state.terms().usd_cad) {
            return Err(Refusal::ExchangeFull);
        }
        self.known.object = from;
        self.add_cash(from, -amount);
        self.add_cash(to, down);
        let mut lines = Postings::default();
        let (paid, got) = (Asset::Cash(currency), Asset::Cash(got));
        lines.add(Party::Client(from), paid, -amount, Role::Principal);
        lines.add(Party::Client(to), got, down, Role::Principal);
        if fx.foreign {
            lines.add(Party::House(House::Fx), paid, amount, Role::Conversion);
            lines.add(Party::House(House::Fx), got, -up, Role::Conversion);
            lines.add(Party::House(House::Rounding), got, up - down, Role::Conversion);
        }
        let touched = [self.state.touch(from, None, false), self.state.touch(to, None, false)];
        self.known.amount = self.state.accounts[&from].cash.posted;
        self.told(Money { cause: Cause::Transfer, touched, postings: lines.balanced(), rate, cost: 0 });
        self.account = self.state.accounts.get(&from).map(|a| account_after(a, false));
        Ok(())
    }

    pub fn endow(&mut self, endow: &Endow) -> Checked {
        let account =
            self.state.accounts.get(&endow.account).ok_or(Refusal::AccountUnknown(endow.account))?;
        let currency = endow.currency.unwrap_or(account.currency);
        let range = |field, value, max| {
            if (0..=max).contains(&value) { Ok(()) } else { Err(Refusal::EndowmentOutOfRange { field, max }) }
        };
        range("amount_micros", endow.amount, ENDOWMENT_MAX)?;
        range("quantity_e4", endow.quantity_e4, ENDOWMENT_E4_MAX)?;
        range("cost_price_e4", endow.cost_price_e4, LISTING_E4_MAX)?;
        if endow.amount > 0 && currency != account.currency {
            return Err(Refusal::CurrencyMismatch { field: "currency", is: account.currency });
        }
        self.check_room(currency, endow.amount)?;
        let shares = match &endow.symbol {
            Some(symbol) if endow.quantity_e4 > 0 => {
                Some(self.endowed_shares(account, symbol, currency, endow)?)
            }
            _ => None,
        };
        self.known.object = endow.account;
        if endow.amount > 0 {
            self.move_cash(endow.account, endow.amount, Cause::Endowment);
        }
        if let Some((market, cost)) = shares {
            self.give_shares(endow.account, market, endow.quantity_e4, cost);
        }
        self.account = self.state.accounts.get(&endow.account).map(|a| account_after(a, false));
        Ok(())
    }

    /// Market and cost, in the account's currency, of shares that are given.
    fn endowed_shares(
        &self,
        account: &Account,
        symbol: &fafnir_rules::symbol::Symbol,
        currency: Currency,
        endow: &Endow,
    ) -> Checked<(u32, i64)> {
        let market = self.market_of(symbol)?;
        let parts = i128::from(endow.quantity_e4) * i128::from(endow.cost_price_e4);
        let cost = i64::try_from(parts / 100).map_err(|_| Refusal::AmountTooLarge)?;
        let rate = self.state.rate_id(currency, account.currency)?;
        let (_, cost) =
            self.state.fx(rate, currency, account.currency).convert(cost).ok_or(Refusal::AmountTooLarge)?;
        let holding = account.holdings.get(&market).copied().unwrap_or_default();
        let worst = i128::from(holding.cost) + i128::from(account.cash.held) + i128::from(cost);
        if worst > i128::from(i64::MAX) {
            return Err(Refusal::CostTooLarge);
        }
        let issued = self.state.house.get(&(House::Issuer, Asset::Shares(market))).copied().unwrap_or(0);
        if i128::from(endow.quantity_e4) - issued > i128::from(i64::MAX) {
            return Err(Refusal::ExchangeFull);
        }
        Ok((market, cost))
    }

    fn give_shares(&mut self, id: Uuid, market: u32, quantity_e4: i64, cost: i64) {
        let now = self.state.time_us;
        let account = self.state.accounts.get_mut(&id).expect("invariant: the account was found");
        let holding =
            account.holdings.entry(market).or_insert(Holding { opened_us: now, ..Holding::default() });
        holding.posted += quantity_e4;
        holding.cost += cost;
        holding.updated_us = now;
        let touched = [self.state.touch(id, Some(market), false), None];
        let mut lines = Postings::default();
        lines.add(Party::Client(id), Asset::Shares(market), quantity_e4, Role::Principal);
        lines.add(Party::House(House::Issuer), Asset::Shares(market), -quantity_e4, Role::Principal);
        self.told(Money { cause: Cause::Endowment, touched, postings: lines.balanced(), rate: 0, cost });
    }

    pub fn close_account(&mut self, id: Uuid) -> Checked {
        let owner = self.own_account(id)?.owner;
        self.known.object = id;
        self.close(owner, id);
        Ok(())
    }

    /// Cancels the account's orders, moves what is left to the house, and takes it out: in one step.
    fn close(&mut self, owner: u32, id: Uuid) {
        self.end = Some(End::AccountClosing);
        self.cancel_where(owner, |o| o.account == id);
        self.end = None;
        let account = &self.state.accounts[&id];
        let cash = account.cash.posted;
        let markets: Vec<(u32, Holding)> = account.holdings.iter().map(|(m, h)| (*m, *h)).collect();
        if cash > 0 {
            self.move_cash(id, -cash, Cause::Closing);
        }
        for (market, holding) in markets {
            self.take_shares(id, market, holding);
        }
        let touched = self.state.touch(id, None, true).expect("invariant: the account is there");
        self.account = Some(touched.account);
        self.state.accounts.remove(&id);
        self.state.users[owner as usize - 1].accounts.retain(|a| *a != id);
        self.emit(None, What::AccountClosed(touched));
    }

    fn take_shares(&mut self, id: Uuid, market: u32, was: Holding) {
        let now = self.state.time_us;
        if let Some(holding) =
            self.state.accounts.get_mut(&id).and_then(|account| account.holdings.get_mut(&market))
        {
            *holding = Holding { posted: 0, held: 0, cost: 0, updated_us: now, ..was };
        }
        let touched: [Option<Touched>; 2] = [self.state.touch(id, Some(market), false), None];
        if let Some(account) = self.state.accounts.get_mut(&id) {
            account.holdings.remove(&market);
        }
        let line =
            |party, amount| Posting { party, asset: Asset::Shares(market), amount, role: Role::Principal };
        let postings =
            vec![line(Party::Client(id), -was.posted), line(Party::House(House::Issuer), was.posted)];
        self.told(Money { cause: Cause::Closing, touched, postings, rate: 0, cost: -was.cost });
    }

    pub fn close_user(&mut self) {
        if self.caller().is_err() {
            return;
        }
        let owner = self.caller_made();
        for id in self.state.users[owner as usize - 1].accounts.clone() {
            self.close(owner, id);
        }
        let position = self.state.position + 1;
        let user = &mut self.state.users[owner as usize - 1];
        user.closed = true;
        user.touched = position;
        self.emit(None, What::UserClosed);
    }
}
