//! What happened, as the contract's messages say it: facts with everything that a projection stores or a client is shown.

use super::{
    refusal::{self, book_reason},
    request::Scope,
};
use fafnir_clearing::{
    account::{Asset, Currency, Holding, House, NUMBER_BASE},
    command::{Instrument, RequestId},
    fact::{
        AccountAfter, Answer, Cause, Done, End, Fact, Known, Money, OrderAfter, OrderFact, OrderKind, Party,
        Posting, Role, Terms, Touched, Trade, What,
    },
    group::Leg,
    order::Order,
};
use fafnir_proto::{order::end_sentence, reason::Reason, v1};
use fafnir_rules::{check, order::Side, price::Trail, symbol::Symbol};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Fills in an answer.
pub const FILLS_MAX: usize = 100;

/// What of a market its facts' messages need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub symbol: Symbol,
    pub currency: Currency,
}

/// The markets by number: each comes with the fact that sets its instrument.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Vec<Name>);

impl Names {
    /// The markets of a state, in the order of their numbers.
    pub fn new(names: Vec<Name>) -> Self {
        Self(names)
    }

    /// Learns a market from the fact that sets its instrument. Answers whether it is new.
    pub fn learn(&mut self, fact: &Fact) -> bool {
        let (Some((market, _)), What::InstrumentSet(instrument)) = (fact.at, &fact.what) else {
            return false;
        };
        let is_new = market as usize == self.0.len();
        if is_new {
            self.0.push(Name { symbol: instrument.symbol.clone(), currency: instrument.currency });
        }
        is_new
    }

    /// The symbol of a market.
    pub fn symbol(&self, market: u32) -> &str {
        self.0.get(market as usize).map_or("", |n| n.symbol.as_str())
    }

    fn currency(&self, market: u32) -> &'static str {
        self.0.get(market as usize).map_or("", |n| n.currency.code())
    }
}

fn id_text(id: Uuid) -> String {
    if id.is_nil() { String::new() } else { id.to_string() }
}

/// The fact.
pub fn fact(names: &Names, fact: &Fact) -> v1::Fact {
    let mut message = v1::Fact {
        position: fact.position,
        time_us: fact.time_us,
        user_id: id_text(fact.user),
        trace: fact.trace.map_or_else(Vec::new, Vec::from),
        ..Default::default()
    };
    if let Some((market, seq)) = fact.at {
        names.symbol(market).clone_into(&mut message.symbol);
        message.exec_seq = seq;
    }
    if let Some(named) = &fact.named {
        message.key = key(&named.0);
        message.done = message.key.is_some().then(|| known(&named.1));
    }
    match &fact.what {
        What::Order(order) => put_order(&mut message, names, order),
        What::Executed(trade) => put_trade(&mut message, names, trade),
        What::Money(money) => put_money(&mut message, names, money),
        What::AccountOpened(touched) => {
            message.set_kind(v1::FactKind::AccountOpened);
            message.balances.push(balance(names, touched));
        }
        What::AccountClosed(touched) => {
            message.set_kind(v1::FactKind::AccountClosed);
            message.balances.push(balance(names, touched));
        }
        What::UserClosed => message.set_kind(v1::FactKind::UserClosed),
        What::StateChanged { state, paused, price_e4, until_us } => {
            message.set_kind(v1::FactKind::StateChanged);
            message.set_state((*state).into());
            if *paused {
                Reason::VOLATILITY_PAUSE.as_str().clone_into(&mut message.reason);
            }
            message.price_e4 = *price_e4;
            message.until_us = *until_us;
        }
        What::InstrumentSet(instrument) => {
            message.set_kind(v1::FactKind::InstrumentSet);
            message.set_state(instrument.state.into());
            message.instrument = Some(listing(instrument));
        }
        What::TermsSet(terms) => {
            message.set_kind(v1::FactKind::TermsSet);
            message.terms = Some(terms_message(terms));
        }
    }
    message
}

/// The client's key; `None` for a door's own id.
fn key(id: &RequestId) -> Option<v1::RequestKey> {
    (!id.key.is_empty()).then(|| v1::RequestKey {
        key: id.key.to_string(),
        payload: id.payload.to_be_bytes().to_vec(),
        looked_until: id.looked_until.unwrap_or(0),
    })
}

/// What a repetition is answered.
fn known(known: &Known) -> v1::Done {
    v1::Done {
        known: true,
        object_id: id_text(known.object),
        amount_micros: known.amount,
        at: known.at,
        ..Default::default()
    }
}

fn put_order(message: &mut v1::Fact, names: &Names, fact: &OrderFact) {
    message.set_kind(match fact.kind {
        OrderKind::Accepted => v1::FactKind::Accepted,
        OrderKind::Rejected => v1::FactKind::Rejected,
        OrderKind::Triggered => v1::FactKind::Triggered,
        OrderKind::Replaced => v1::FactKind::Replaced,
        OrderKind::Canceled => v1::FactKind::Canceled,
        OrderKind::Expired => v1::FactKind::Expired,
        OrderKind::Decremented => v1::FactKind::Decremented,
        OrderKind::StopMoved => v1::FactKind::StopMoved,
        OrderKind::Resized => v1::FactKind::Resized,
    });
    message.quantity_e4 = fact.quantity_e4;
    for after in [Some(&fact.order), fact.other.as_ref()].into_iter().flatten() {
        message.orders.push(update(names, after, None));
    }
    if let Some(end) = &fact.order.order.end {
        message.reason = end_of(&fact.order.order, end).0;
    } else if fact.kind == OrderKind::Decremented {
        Reason::SELF_TRADE.as_str().clone_into(&mut message.reason);
    }
    message.balances.extend(fact.touched.iter().flatten().map(|t| balance(names, t)));
}

fn put_trade(message: &mut v1::Fact, names: &Names, trade: &Trade) {
    message.set_kind(v1::FactKind::Executed);
    message.price_e4 = trade.price_e4;
    message.quantity_e4 = trade.quantity_e4;
    message.trade_no = trade.trade_no;
    message.set_aggressor(trade.aggressor.map_or(v1::Side::Unspecified, v1::Side::from));
    for (after, maker) in [(&trade.taker, false), (&trade.maker, true)] {
        let fill = Filled {
            exec_seq: message.exec_seq,
            price_e4: trade.price_e4,
            quantity_e4: trade.quantity_e4,
            maker,
            time_us: message.time_us,
        };
        message.orders.push(update(names, after, Some(fill.message(names, &after.order))));
    }
    message.balances = vec![balance(names, &trade.buyer), balance(names, &trade.seller)];
    message.postings = trade.postings.iter().map(|p| posting(names, p)).collect();
    message.set_cause(v1::Cause::Trade);
    let (bought, sold) = trade.sides();
    message.payer_ref = bought.order.id.to_string();
    message.payee_ref = sold.order.id.to_string();
    (message.payer_rate, message.payee_rate) = (bought.order.rate, sold.order.rate);
    (message.payer_fees, message.payee_fees) = (bought.order.fees, sold.order.fees);
    message.realized_micros = trade.realized;
    message.cost_micros = trade.cost;
}

fn put_money(message: &mut v1::Fact, names: &Names, money: &Money) {
    message.set_kind(v1::FactKind::Money);
    message.set_cause(match money.cause {
        Cause::Opening => v1::Cause::Opening,
        Cause::Deposit => v1::Cause::Deposit,
        Cause::Transfer => v1::Cause::Transfer,
        Cause::Endowment => v1::Cause::Endowment,
        Cause::Closing => v1::Cause::Closing,
        Cause::Withdrawal => v1::Cause::Withdrawal,
    });
    if let [Some(payer), Some(payee)] = &money.touched {
        message.payer_ref = payee.account.id.to_string();
        message.payee_ref = payer.account.id.to_string();
    }
    (message.payer_rate, message.payee_rate) = (money.rate, money.rate);
    message.cost_micros = money.cost;
    message.balances = money.touched.iter().flatten().map(|t| balance(names, t)).collect();
    message.postings = money.postings.iter().map(|p| posting(names, p)).collect();
}

/// A fill of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    pub exec_seq: u64,
    pub price_e4: i64,
    pub quantity_e4: i64,
    pub maker: bool,
    pub time_us: i64,
}

impl Filled {
    fn message(self, names: &Names, order: &Order) -> v1::Fill {
        let symbol = names.symbol(order.market);
        v1::Fill {
            exec_id: format!("{symbol}:{}", self.exec_seq),
            order_id: order.id.to_string(),
            symbol: symbol.to_owned(),
            side: v1::Side::from(order.side).into(),
            price_e4: self.price_e4,
            quantity_e4: self.quantity_e4,
            maker: self.maker,
            time_us: self.time_us,
        }
    }
}

fn update(names: &Names, after: &OrderAfter, fill: Option<v1::Fill>) -> v1::OrderUpdate {
    v1::OrderUpdate {
        user_id: after.user.to_string(),
        user_seq: after.seq,
        order: Some(order(names, &after.order, after.user)),
        fill,
    }
}

/// Code and sentence of an order's end.
fn end_of(order: &Order, end: &End) -> (String, String) {
    let said = |reason: Reason| {
        let code = reason.as_str();
        (code.to_owned(), end_sentence(order.state.into(), code))
    };
    match end {
        End::Book(reason) => said(book_reason(*reason)),
        End::AccountClosing => said(Reason::ACCOUNT_CLOSING),
        End::Group => said(Reason::GROUP),
        End::Refused(refused) => {
            let refused = refusal::of(refused, Scope::Order);
            (refused.reason.as_str().to_owned(), refused.message)
        }
    }
}

/// The order.
pub fn order(names: &Names, order: &Order, user: Uuid) -> v1::Order {
    let (trail_amount_e4, trail_percent_e4) = match order.terms {
        check::Terms::TrailingStop { trail: Trail::AmountE4(amount) } => (amount, 0),
        check::Terms::TrailingStop { trail: Trail::PercentE4(percent) } => (0, percent),
        _ => (0, 0),
    };
    let hold = if order.state.is_open() { order.hold.held } else { 0 };
    let (reject_code, reject_reason) = order.end.as_ref().map_or_else(Default::default, |e| end_of(order, e));
    v1::Order {
        id: order.id.to_string(),
        user_id: user.to_string(),
        account_id: id_text(order.account),
        symbol: names.symbol(order.market).to_owned(),
        side: v1::Side::from(order.side).into(),
        r#type: v1::OrderType::from(order.terms.order_type()).into(),
        time_in_force: v1::TimeInForce::from(order.time).into(),
        state: v1::OrderState::from(order.state).into(),
        pending: v1::PendingAction::None.into(),
        quantity_e4: order.quantity_e4,
        filled_e4: order.filled_e4,
        price_e4: order.limit_e4(),
        stop_price_e4: order.stop_e4,
        trail_amount_e4,
        trail_percent_e4,
        display_quantity_e4: order.display_e4,
        post_only: order.post_only,
        stp: v1::StpMode::from(order.stp).into(),
        filled_notional_micros: order.notional(),
        currency: names.currency(order.market).to_owned(),
        client_order_id: order.client_id.to_string(),
        reject_code,
        reject_reason,
        version: order.version,
        created_us: order.created_us,
        updated_us: order.updated_us,
        expires_us: order.expires_us,
        fills: Vec::new(),
        open_e4: order.open_e4(),
        hold_micros: if order.side == Side::Buy { hold } else { 0 },
        hold_e4: if order.side == Side::Sell { hold } else { 0 },
        group_id: id_text(order.group),
        leg: match order.leg {
            Leg::None => v1::GroupLeg::None,
            Leg::Entry => v1::GroupLeg::Entry,
            Leg::Exit => v1::GroupLeg::Exit,
        }
        .into(),
    }
}

fn balance(names: &Names, touched: &Touched) -> v1::PortfolioUpdate {
    v1::PortfolioUpdate {
        user_id: touched.user.to_string(),
        user_seq: touched.seq,
        account: Some(account(&touched.account, touched.user)),
        holding: touched.holding.map(|(market, shares)| holding(names, &touched.account, market, shares)),
    }
}

/// The account.
pub fn account(account: &AccountAfter, user: Uuid) -> v1::Account {
    v1::Account {
        id: account.id.to_string(),
        user_id: user.to_string(),
        account_number: (NUMBER_BASE + account.number).to_string(),
        r#type: i32::from(account.kind as u8),
        currency: account.currency.code().to_owned(),
        balance_micros: account.cash.posted,
        held_micros: account.cash.held,
        available_micros: account.cash.available(),
        created_us: account.opened_us,
        updated_us: account.updated_us,
        closed: account.closed,
    }
}

/// Shares of an account.
pub fn holding(names: &Names, account: &AccountAfter, market: u32, shares: Holding) -> v1::Holding {
    let symbol = names.symbol(market);
    v1::Holding {
        id: holding_id(account.id, symbol).to_string(),
        account_id: account.id.to_string(),
        symbol: symbol.to_owned(),
        quantity_e4: shares.posted,
        held_e4: shares.held,
        available_e4: shares.available(),
        cost_micros: shares.cost,
        avg_cost_micros: average_cost(shares),
        realized_pnl_micros: shares.realized,
        created_us: shares.opened_us,
        updated_us: shares.updated_us,
        currency: account.currency.code().to_owned(),
    }
}

/// Micros of the account's currency per share, rounded to the nearest.
fn average_cost(shares: Holding) -> i64 {
    if shares.posted <= 0 {
        return 0;
    }
    let (cost, quantity) = (i128::from(shares.cost), i128::from(shares.posted));
    i64::try_from((2 * cost * 10_000 + quantity).div_euclid(2 * quantity)).unwrap_or(i64::MAX)
}

/// The id of an account's shares in a symbol, for ever the same.
pub fn holding_id(account: Uuid, symbol: &str) -> Uuid {
    let digest = Sha256::new().chain_update(account.as_bytes()).chain_update(symbol.as_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A house account.
pub fn house(house: House) -> v1::House {
    match house {
        House::Funding => v1::House::Funding,
        House::Fees => v1::House::Fees,
        House::Fx => v1::House::Fx,
        House::Rounding => v1::House::Rounding,
        House::Issuer => v1::House::Issuer,
    }
}

/// The name of an asset.
pub fn asset(names: &Names, asset: Asset) -> String {
    match asset {
        Asset::Cash(currency) => currency.code().to_owned(),
        Asset::Shares(market) => names.symbol(market).to_owned(),
    }
}

fn posting(names: &Names, posting: &Posting) -> v1::Posting {
    let (account_id, whose) = match posting.party {
        Party::Client(account) => (account.to_string(), v1::House::Unspecified),
        Party::House(of) => (String::new(), house(of)),
    };
    let role = match posting.role {
        Role::Principal => v1::PostingRole::Principal,
        Role::Fee => v1::PostingRole::Fee,
        Role::Conversion => v1::PostingRole::Conversion,
    };
    v1::Posting {
        account_id,
        house: whose.into(),
        asset: asset(names, posting.asset),
        amount: posting.amount,
        role: role.into(),
    }
}

/// A listing, as far as the exchange knows it.
pub fn listing(instrument: &Instrument) -> v1::Instrument {
    v1::Instrument {
        symbol: instrument.symbol.to_string(),
        currency: instrument.currency.code().to_owned(),
        tick_e4: instrument.tick_e4,
        lot_e4: instrument.lot_e4,
        state: v1::TradingState::from(instrument.state).into(),
        previous_close_e4: instrument.previous_close_e4,
        version: instrument.version,
        volatility_band_bps: instrument.band_bps,
        ..Default::default()
    }
}

fn terms_message(terms: &Terms) -> v1::Terms {
    v1::Terms {
        rate_id: terms.rate_id,
        usd_cad_micros: terms.usd_cad,
        fees_id: terms.fees_id,
        maker_bp: terms.fees.maker_bp,
        taker_bp: terms.fees.taker_bp,
        opening_micros: terms.rules.opening,
        open_orders_max: terms.rules.open_orders_max,
        deposit_max_micros: terms.rules.deposit_max,
        deposits_per_day_max_micros: terms.rules.deposits_per_day_max,
        account_max_micros: terms.rules.account_max,
        volatility_pause_us: terms.rules.volatility_pause_us,
        volatility_end_us: terms.rules.volatility_end_us,
    }
}

/// The trade in a fact as the public sees it.
pub fn public_trade(fact: &v1::Fact) -> Option<v1::Trade> {
    (fact.trade_no != 0).then(|| v1::Trade {
        symbol: fact.symbol.clone(),
        trade_no: fact.trade_no,
        exec_id: format!("{}:{}", fact.symbol, fact.exec_seq),
        price_e4: fact.price_e4,
        quantity_e4: fact.quantity_e4,
        aggressor: fact.aggressor,
        time_us: fact.time_us,
    })
}

/// What the thread answers a command; made a message by who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The last position when the command had been stepped.
    pub position: u64,
    pub answer: Answer,
    /// Whose the order or account in it is.
    pub user: Uuid,
    /// The first fills of the answer's order by this command.
    pub fills: Vec<Filled>,
    /// The other orders of its group that the command changed, and their fills.
    pub others: Vec<(Order, Vec<Filled>)>,
}

/// The other orders of an order's group in facts, as they are after them.
pub fn others(facts: &[Fact], of: &Order) -> Vec<(Order, Vec<Filled>)> {
    if of.leg == Leg::None {
        return Vec::new();
    }
    let mut last = BTreeMap::new();
    for fact in facts {
        let told = match &fact.what {
            What::Order(told) => [Some(&told.order), told.other.as_ref()],
            What::Executed(trade) => [Some(&trade.taker), Some(&trade.maker)],
            _ => [None, None],
        };
        for after in told.into_iter().flatten() {
            if after.order.group == of.group && after.order.id != of.id {
                last.insert(after.order.id, &after.order);
            }
        }
    }
    last.into_iter().map(|(id, order)| (order.clone(), fills(facts, id))).collect()
}

/// The first fills of an order in facts.
pub fn fills(facts: &[Fact], order: Uuid) -> Vec<Filled> {
    let fill = |fact: &Fact| {
        let What::Executed(trade) = &fact.what else { return None };
        let maker = trade.maker.order.id == order;
        (maker || trade.taker.order.id == order).then(|| Filled {
            exec_seq: fact.at.map_or(0, |(_, seq)| seq),
            price_e4: trade.price_e4,
            quantity_e4: trade.quantity_e4,
            maker,
            time_us: fact.time_us,
        })
    };
    facts.iter().filter_map(fill).take(FILLS_MAX).collect()
}

impl Reply {
    /// The answer to a command whose keys are of this scope.
    pub fn message(&self, names: &Names, scope: Scope) -> v1::ExecuteReply {
        use v1::execute_reply::Outcome;
        let outcome = match &self.answer {
            Answer::Done(done) => Outcome::Done(self.done(names, scope, done)),
            Answer::Known(it) => Outcome::Done(known(it)),
            Answer::Refused(refused) => Outcome::Refused(refusal::message(refusal::of(refused, scope))),
        };
        v1::ExecuteReply { position: self.position, outcome: Some(outcome) }
    }

    fn done(&self, names: &Names, scope: Scope, done: &Done) -> v1::Done {
        let whole = |o: &Order, fills: &[Filled]| {
            let fills = fills.iter().map(|f| f.message(names, o)).collect();
            v1::Order { fills, ..order(names, o, self.user) }
        };
        v1::Done {
            known: false,
            object_id: id_text(done.known.object),
            amount_micros: done.known.amount,
            at: done.known.at,
            order: done.order.as_ref().map(|o| whole(o, &self.fills)),
            others: self.others.iter().map(|(o, fills)| whole(o, fills)).collect(),
            canceled: done.canceled,
            left_e4: done.left_e4,
            why: done.why.as_ref().map(|why| refusal::message(refusal::of(why, scope))),
            account: done.account.as_ref().map(|a| account(a, self.user)),
        }
    }
}
