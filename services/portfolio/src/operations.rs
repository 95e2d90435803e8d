//! What each request does inside its transaction: find, check, post.

use super::{
    domain::{
        AMOUNT_MICROS_MAX, Account, AssetKey, Balance, Currency, ENDOWMENT_E4_MAX, ENDOWMENT_MICROS_MAX,
        FUNDING, FX, Fx, Kind, ROUNDING, State,
        hold::{End, Hold, Pending, Side, Terms},
        ledger::{Adjustment, Cause, Postings, Role, Transaction},
    },
    store::{self, HoldRow, NewAccount, Session},
};
use fafnir_platform::{Refusal, error::Result};
use fafnir_proto::{
    id::{AccountId, UserId},
    reason::Reason,
};
use fafnir_rules::limits::QUANTITY_E4_MAX;
use fafnir_rules::money::{format_e4, format_grouped};
use uuid::Uuid;

/// Accounts that a user may open.
pub const ACCOUNTS_MAX: u64 = 100;

/// What is configured, and the recorded id of the exchange rate.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Micros that a new account opens with, in its currency.
    pub opening_micros: i64,
    pub maker_bp: u32,
    pub taker_bp: u32,
    /// Micros of CAD for one USD.
    pub usd_cad: i64,
    pub rate: i64,
}

impl Rules {
    fn fx(&self, from: Currency, to: Currency) -> (Fx, Option<i64>) {
        let fx = Fx::between(from, to, self.usd_cad);
        (fx, fx.foreign.then_some(self.rate))
    }
}

/// The account of this user; another's answers like an unknown one.
pub fn own_account(tx: &mut dyn fafnir_platform::db::Tx, user: UserId, id: AccountId) -> Result<Account> {
    match store::account_by_id(tx, id)? {
        Some(account) if account.user == user => Ok(account),
        _ => Err(no_account(id).into()),
    }
}

/// Not an account of the user, whether somebody else's or nobody's.
pub fn no_account(id: AccountId) -> Refusal {
    Refusal::not_found(Reason::ACCOUNT_NOT_FOUND, format!("account_id {id} is not an account of this user"))
}

fn open(account: Account) -> Result<Account> {
    if account.state == State::Open {
        return Ok(account);
    }
    Err(Refusal::precondition(Reason::ACCOUNT_CLOSED, format!("account {} is closed", account.number)).into())
}

/// Checks an amount that a user names.
pub fn check_amount(amount: i64) -> Result<()> {
    if (1..=AMOUNT_MICROS_MAX).contains(&amount) {
        return Ok(());
    }
    let sentence = format!("amount must be above 0 and at most {}", format_grouped(AMOUNT_MICROS_MAX, 6));
    Err(Refusal::invalid(Reason::AMOUNT_OUT_OF_RANGE, sentence).into())
}

/// Checks the quantity that a hold is for.
fn check_quantity(quantity_e4: i64) -> Result<()> {
    if (1..=QUANTITY_E4_MAX).contains(&quantity_e4) {
        return Ok(());
    }
    let reason = if quantity_e4 < 1 { Reason::QUANTITY_NOT_POSITIVE } else { Reason::QUANTITY_TOO_LARGE };
    let sentence = format!("quantity must be above 0 and at most {}", format_e4(QUANTITY_E4_MAX));
    Err(Refusal::invalid(reason, sentence).into())
}

/// Checks that a named currency is the account's.
pub fn check_currency(account: &Account, named: &str) -> Result<()> {
    if named == account.currency.code() {
        return Ok(());
    }
    let sentence = format!("currency must be {}, the account's", account.currency.code());
    Err(Refusal::invalid(Reason::CURRENCY_MISMATCH, sentence).into())
}

fn insufficient_funds(needed: i64, balance: Balance, currency: Currency) -> Refusal {
    let sentence = format!(
        "cash of {} {currency} is needed, {} {currency} is available",
        format_grouped(needed, 6),
        format_grouped(balance.available(), 6),
        currency = currency.code(),
    );
    Refusal::precondition(Reason::INSUFFICIENT_FUNDS, sentence)
}

fn insufficient_shares(needed: i64, balance: Balance, symbol: &str) -> Refusal {
    let sentence = format!(
        "{} shares of {symbol} are needed, {} are available",
        format_e4(needed),
        format_e4(balance.available())
    );
    Refusal::precondition(Reason::INSUFFICIENT_SHARES, sentence)
}

/// Opens an account, with the opening deposit where `opening` is not 0.
pub fn account_create(s: &mut Session<'_>, new: NewAccount, opening: i64) -> Result<Account> {
    if store::accounts_count(s.tx, new.user)? >= ACCOUNTS_MAX {
        let sentence = format!("a user may open at most {ACCOUNTS_MAX} accounts");
        return Err(Refusal::exhausted(Reason::TOO_MANY_ACCOUNTS, sentence).into());
    }
    let account = store::account_insert(s.tx, new, s.now_us)?;
    s.account_put(account.clone(), true);
    if opening > 0 {
        post_cash(s, &account, opening, Cause::Opening)?;
    }
    Ok(account)
}

/// Posts paper money from the house to an account; answers the id of the account's posting.
fn post_cash(s: &mut Session<'_>, account: &Account, amount: i64, cause: Cause) -> Result<i64> {
    let mut lines = Postings::default();
    let asset = account.currency.asset();
    lines
        .add(account.key, asset, amount, Role::Principal)
        .and_then(|l| l.add(FUNDING, asset, -amount, Role::Principal))
        .map_err(store::Failure::from)?;
    let transaction = Transaction::new(cause, lines.balanced().map_err(store::Failure::from)?);
    Ok(s.record(&transaction, [])? * super::domain::ledger::POSTINGS_MAX as i64)
}

/// Puts paper money into an account; answers the new balance and the posting.
pub fn deposit(
    s: &mut Session<'_>,
    user: UserId,
    account: AccountId,
    amount: i64,
    currency: &str,
) -> Result<(i64, i64)> {
    check_amount(amount)?;
    let account = open(own_account(s.tx, user, account)?)?;
    check_currency(&account, currency)?;
    s.account_put(account.clone(), false);
    let posting = post_cash(s, &account, amount, Cause::Deposit)?;
    Ok((s.balance(account.key, account.currency.asset())?.posted, posting))
}

/// Moves money between two accounts of a user; through the house's exchange where the currencies differ.
pub fn transfer(
    s: &mut Session<'_>,
    rules: &Rules,
    user: UserId,
    from: AccountId,
    to: AccountId,
    amount: i64,
    currency: &str,
) -> Result<()> {
    check_amount(amount)?;
    if from == to {
        let sentence = "to_account_id must be another account than from_account_id";
        return Err(Refusal::invalid(Reason::SAME_ACCOUNT, sentence).into());
    }
    let from = open(own_account(s.tx, user, from)?)?;
    let to = open(own_account(s.tx, user, to)?)?;
    check_currency(&from, currency)?;
    s.account_put(from.clone(), false);
    s.account_put(to.clone(), false);
    let (paid, got) = (from.currency.asset(), to.currency.asset());
    let balance = s.balance(from.key, paid)?;
    if balance.available() < amount {
        return Err(insufficient_funds(amount, balance, from.currency).into());
    }
    let (fx, rate) = rules.fx(from.currency, to.currency);
    let too_large =
        || Refusal::invalid(Reason::AMOUNT_TOO_LARGE, "amount must fit into 64 bits when it is exchanged");
    let (down, up) = fx.convert(amount).ok_or_else(too_large)?;
    if down == 0 {
        let sentence = "amount must be worth at least 0.000001 in the currency of to_account_id";
        return Err(Refusal::invalid(Reason::AMOUNT_TOO_SMALL, sentence).into());
    }
    let lines = (|| {
        let mut lines = Postings::default();
        lines.add(from.key, paid, -amount, Role::Principal)?.add(to.key, got, down, Role::Principal)?;
        if fx.foreign {
            lines.add(FX, paid, amount, Role::Conversion)?.add(FX, got, -up, Role::Conversion)?.add(
                ROUNDING,
                got,
                up - down,
                Role::Conversion,
            )?;
        }
        lines.balanced()
    })()
    .map_err(store::Failure::from)?;
    let transaction = Transaction {
        payer_ref: Some(to.id.uuid()),
        payee_ref: Some(from.id.uuid()),
        payer_rate: rate,
        payee_rate: rate,
        ..Transaction::new(Cause::Transfer, lines)
    };
    s.record(&transaction, [])?;
    Ok(())
}

/// The oldest INVESTMENT account in the currency, else the oldest INVESTMENT account.
pub fn default_account(
    tx: &mut dyn fafnir_platform::db::Tx,
    user: UserId,
    currency: &str,
) -> Result<Account> {
    let mut accounts = store::accounts_of(tx, user)?;
    accounts.retain(|a| a.kind == Kind::Investment && a.state == State::Open);
    let at = accounts.iter().position(|a| a.currency.code() == currency).unwrap_or(0);
    if accounts.is_empty() {
        let sentence = "an INVESTMENT account is needed; the user has none";
        return Err(Refusal::precondition(Reason::NO_INVESTMENT_ACCOUNT, sentence).into());
    }
    Ok(accounts.swap_remove(at))
}

/// A hold that an order needs.
#[derive(Debug, Clone)]
pub struct NewHold {
    pub order: Uuid,
    pub user: UserId,
    /// `None`: the default account.
    pub account: Option<AccountId>,
    pub symbol: String,
    pub side: Side,
    pub quantity_e4: i64,
    /// BUY: the worst price; SELL: 0.
    pub price_e4: i64,
    pub listing: Currency,
}

/// Places the hold of an order; the same again answers the same hold.
pub fn hold_place(s: &mut Session<'_>, rules: &Rules, new: &NewHold) -> Result<(HoldRow, Account)> {
    let symbol = s.asset(&new.symbol)?;
    if let Some(row) = s.hold(new.order)? {
        return hold_again(s, new, symbol, row);
    }
    check_quantity(new.quantity_e4)?;
    if new.side == Side::Buy && new.price_e4 <= 0 {
        let sentence = "price must be above 0: a BUY holds cash for it";
        return Err(Refusal::invalid(Reason::PRICE_NOT_POSITIVE, sentence).into());
    }
    let account = match new.account {
        Some(id) => own_account(s.tx, new.user, id)?,
        None => default_account(s.tx, new.user, new.listing.code())?,
    };
    let account = open(account)?;
    if account.kind != Kind::Investment {
        let sentence = format!("account {} must be an INVESTMENT account to trade", account.number);
        return Err(Refusal::precondition(Reason::ACCOUNT_NOT_INVESTMENT, sentence).into());
    }
    s.account_put(account.clone(), false);
    let (fx, rate) = rules.fx(new.listing, account.currency);
    let terms = Terms { fx, maker_bp: rules.maker_bp, taker_bp: rules.taker_bp };
    let hold = Hold::new(new.order, new.side, new.quantity_e4, new.price_e4, terms);
    let row = HoldRow {
        hold,
        account: account.key,
        symbol,
        listing: new.listing.asset(),
        rate,
        asked_e4: new.quantity_e4,
        asked_price_e4: new.price_e4,
        held: 0,
        created_us: s.now_us,
        closed_us: None,
    };
    let row = hold_cover(s, row, &account, &new.symbol)?;
    Ok((row, account))
}

fn hold_again(
    s: &mut Session<'_>,
    new: &NewHold,
    symbol: AssetKey,
    row: HoldRow,
) -> Result<(HoldRow, Account)> {
    if row.hold.end == Some(End::Released) {
        let sentence = format!("order {} was given up, its hold is released", new.order);
        return Err(Refusal::precondition(Reason::HOLD_RELEASED, sentence).into());
    }
    let account = s.account(row.account)?.filter(|a| a.user == new.user);
    let same = row.symbol == symbol
        && row.hold.side == new.side
        && row.asked_e4 == new.quantity_e4
        && row.asked_price_e4 == new.price_e4
        && row.listing == new.listing.asset();
    match account {
        Some(account) if same && new.account.is_none_or(|id| id == account.id) => Ok((row, account)),
        _ => {
            let sentence = format!("order_id {} already has another hold", new.order);
            Err(Refusal::exists(Reason::HOLD_EXISTS, sentence).into())
        }
    }
}

/// Stores a hold if the account covers what it needs now.
fn hold_cover(s: &mut Session<'_>, row: HoldRow, account: &Account, symbol: &str) -> Result<HoldRow> {
    let too_large =
        || Refusal::invalid(Reason::ORDER_TOO_LARGE, "price times quantity must fit into 64 bits");
    let needed = row.hold.needed().ok_or_else(too_large)?;
    let asset = s.held_asset(&row)?;
    let balance = s.balance(account.key, asset)?;
    let more = needed.saturating_sub(row.held);
    if more > balance.available() {
        return Err(match row.hold.side {
            Side::Buy => insufficient_funds(more, balance, account.currency),
            Side::Sell => insufficient_shares(more, balance, symbol),
        }
        .into());
    }
    let order = row.hold.order;
    s.hold_put(row)?;
    s.hold(order)?.ok_or_else(|| fafnir_platform::Error::internal("a hold that was just placed is missing"))
}

/// What a replace asks for.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub order: Uuid,
    /// The version that the replace makes.
    pub version: u32,
    /// The new total; 0: unknown, `open_e4` counts.
    pub total_e4: i64,
    pub open_e4: i64,
    pub price_e4: i64,
    pub only_increase: bool,
    /// Everything that the engine has journaled before this request is applied here.
    pub caught_up: bool,
}

/// Sets what a replace needs. An earlier replace that has no outcome here is refused with REPLACE_PENDING: a refused
/// replace gives its version back, so that only the engine's word tells a repetition from another replace.
pub fn hold_adjust(s: &mut Session<'_>, change: Change) -> Result<(HoldRow, Account)> {
    let missing =
        || Refusal::not_found(Reason::HOLD_NOT_FOUND, format!("order_id {} has no hold", change.order));
    let mut row = s.hold(change.order)?.ok_or_else(missing)?;
    let account = s.account(row.account)?.ok_or_else(missing)?;
    if row.hold.end.is_some() {
        let sentence = format!("order {} has ended, its hold is closed", change.order);
        return Err(Refusal::precondition(Reason::HOLD_CLOSED, sentence).into());
    }
    if change.version <= row.hold.version {
        return Ok((row, account));
    }
    let total_e4 = match change.total_e4 {
        0 => row.hold.filled_e4.saturating_add(change.open_e4),
        total => total,
    };
    check_quantity(total_e4)?;
    if row.hold.side == Side::Buy && change.price_e4 <= 0 {
        let sentence = "price must be above 0: a BUY holds cash for it";
        return Err(Refusal::invalid(Reason::PRICE_NOT_POSITIVE, sentence).into());
    }
    let price_e4 = if row.hold.side == Side::Buy { change.price_e4 } else { 0 };
    let wanted = Pending { version: change.version, total_e4, price_e4 };
    if let Some(pending) = row.hold.pending.filter(|_| change.only_increase) {
        // A repetition may have counted other fills where it does not name the total.
        let same = pending.version == change.version
            && pending.price_e4 == price_e4
            && (change.total_e4 == 0 || pending.total_e4 == total_e4);
        if same && change.caught_up {
            return Ok((row, account));
        }
        let sentence = format!(
            "version {} of order {} has no outcome yet; try again after it",
            pending.version, change.order
        );
        return Err(Refusal::precondition(Reason::REPLACE_PENDING, sentence).into());
    }
    row.hold.replace_pending(wanted);
    if !change.only_increase {
        let open_e4 = (total_e4 - row.hold.filled_e4).max(0);
        row.hold.replaced(change.version, open_e4, price_e4);
    }
    let symbol = s.asset_code(row.symbol)?;
    let row = hold_cover(s, row, &account, &symbol)?;
    Ok((row, account))
}

/// Releases the hold of an order that never reached the engine. An order without one gets a mark, so that a late
/// request for its hold is refused.
pub fn hold_release(s: &mut Session<'_>, order: Uuid) -> Result<()> {
    let mut row = match s.hold(order)? {
        Some(row) if row.hold.end.is_some() => return Ok(()),
        Some(row) => row,
        None => {
            let terms = Terms { fx: Fx::LOCAL, maker_bp: 0, taker_bp: 0 };
            HoldRow {
                hold: Hold::new(order, Side::Sell, 0, 0, terms),
                account: FUNDING,
                symbol: Currency::Usd.asset(),
                listing: Currency::Usd.asset(),
                rate: None,
                asked_e4: 0,
                asked_price_e4: 0,
                held: 0,
                created_us: s.now_us,
                closed_us: None,
            }
        }
    };
    row.hold.finish(End::Released);
    s.hold_put(row)?;
    Ok(())
}

/// Cash and shares that the house gives.
#[derive(Debug, Clone)]
pub struct Endowment {
    pub account: AccountId,
    /// Empty: no shares.
    pub symbol: String,
    pub quantity_e4: i64,
    pub cost_price_e4: i64,
    /// Of the cash and the cost price; empty: the account's.
    pub currency: String,
    pub amount_micros: i64,
}

/// Posts cash from funding and shares from the issuer to an account.
pub fn endow(s: &mut Session<'_>, rules: &Rules, endowment: &Endowment) -> Result<()> {
    let account =
        store::account_by_id(s.tx, endowment.account)?.ok_or_else(|| no_account(endowment.account))?;
    let account = open(account)?;
    s.account_put(account.clone(), false);
    let currency = if endowment.currency.is_empty() {
        account.currency
    } else {
        Currency::parse(&endowment.currency)
            .ok_or_else(|| Refusal::invalid(Reason::CURRENCY_UNKNOWN, "currency must be USD or CAD"))?
    };
    let range = |field: &str, value: i64, max: i64| -> Result<()> {
        if (0..=max).contains(&value) {
            return Ok(());
        }
        Err(Refusal::invalid(Reason::ENDOWMENT_OUT_OF_RANGE, format!("{field} must be from 0 to {max}"))
            .into())
    };
    range("amount_micros", endowment.amount_micros, ENDOWMENT_MICROS_MAX)?;
    range("quantity_e4", endowment.quantity_e4, ENDOWMENT_E4_MAX)?;
    range("cost_price_e4", endowment.cost_price_e4, i64::MAX)?;
    if endowment.amount_micros > 0 {
        check_currency(&account, currency.code())?;
        post_cash(s, &account, endowment.amount_micros, Cause::Endowment)?;
    }
    if endowment.quantity_e4 > 0 {
        let issuer = s.issuer(&endowment.symbol)?;
        let asset = s.asset(&endowment.symbol)?;
        let too_large =
            || Refusal::invalid(Reason::AMOUNT_TOO_LARGE, "the cost of the shares must fit into 64 bits");
        let parts = i128::from(endowment.quantity_e4) * i128::from(endowment.cost_price_e4);
        let cost = i64::try_from(parts / 100).map_err(|_| too_large())?;
        let (fx, _) = rules.fx(currency, account.currency);
        let (_, cost) = fx.convert(cost).ok_or_else(too_large)?;
        let mut lines = Postings::default();
        lines
            .add(account.key, asset, endowment.quantity_e4, Role::Principal)
            .and_then(|l| l.add(issuer, asset, -endowment.quantity_e4, Role::Principal))
            .map_err(store::Failure::from)?;
        let mut transaction =
            Transaction::new(Cause::Endowment, lines.balanced().map_err(store::Failure::from)?);
        transaction.adjustments =
            vec![Adjustment { account: account.key, asset, held: 0, cost, realized: 0 }];
        s.record(&transaction, [])?;
    }
    Ok(())
}

/// Closes an account: refuses while a hold is open, moves what is left to the house, keeps the rows.
pub fn account_close(s: &mut Session<'_>, account: Account) -> Result<Account> {
    if account.state == State::Closed {
        return Ok(account);
    }
    if store::has_open_holds(s.tx, account.key)? {
        let sentence = format!("account {} has open orders; cancel them first", account.number);
        return Err(Refusal::precondition(Reason::OPEN_ORDERS, sentence).into());
    }
    let cash = account.currency.asset();
    let mut rest = vec![(cash, None)];
    rest.extend(store::holdings(s.tx, &account, None)?.into_iter().map(|(key, code, _)| (key, Some(code))));
    for (asset, symbol) in rest {
        let balance = s.balance(account.key, asset)?;
        if balance.posted == 0 {
            continue;
        }
        let house = match symbol {
            None => FUNDING,
            Some(symbol) => s.issuer(&symbol)?,
        };
        let mut lines = Postings::default();
        lines
            .add(account.key, asset, -balance.posted, Role::Principal)
            .and_then(|l| l.add(house, asset, balance.posted, Role::Principal))
            .map_err(store::Failure::from)?;
        let mut transaction =
            Transaction::new(Cause::Closing, lines.balanced().map_err(store::Failure::from)?);
        transaction.adjustments =
            vec![Adjustment { account: account.key, asset, held: 0, cost: -balance.cost, realized: 0 }];
        s.record(&transaction, [])?;
    }
    store::account_set_state(s.tx, account.key, State::Closed, s.now_us)?;
    let closed = Account { state: State::Closed, updated_us: s.now_us, ..account };
    s.account_put(closed.clone(), true);
    Ok(closed)
}

/// A user is gone: its accounts take nothing new and close, now or when their last hold ends.
pub fn user_deleted(s: &mut Session<'_>, user: UserId) -> Result<()> {
    for account in store::accounts_of(s.tx, user)? {
        if account.state == State::Open {
            store::account_set_state(s.tx, account.key, State::Closing, s.now_us)?;
            s.account_put(Account { state: State::Closing, ..account.clone() }, true);
        }
        close_when_idle(s, Account { state: State::Closing, ..account })?;
    }
    Ok(())
}

/// Closes a closing account if no hold keeps it open.
pub fn close_when_idle(s: &mut Session<'_>, account: Account) -> Result<()> {
    if !store::has_open_holds(s.tx, account.key)? {
        account_close(s, account)?;
    }
    Ok(())
}
