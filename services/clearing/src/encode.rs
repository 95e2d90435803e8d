//! The canonical state as bytes: what a snapshot holds and what the state hash is taken of.
//!
//! Two states that were fed the same commands have the same bytes, whether or not one was restored in between. Hash maps are
//! never iterated here but to be sorted at once, or to check each element.

use crate::{
    account::{Account, Asset, Cash, Currency, Holding, House, Kind, User},
    codec::{
        Malformed, RULES_OF_GROUPS, RULES_OF_SESSIONS, RULES_VERSION, Reader, group_kind_number, put_bytes,
        put_i64, put_i128, put_symbol, put_terms, put_text, put_u64, put_u128, put_uuid, self_trade_number,
        session_number, side_number, state_number, time_number,
    },
    fact::Known,
    group::{Group, Leg},
    hold::Hold,
    market::{Market, Pause, stepwise},
    order::Order,
    recent::{Entry, Recent},
    state::State,
    terms::{Fees, RATE_MAX, RATE_MIN, Rules},
};
use fafnir_matching::Book;
use fafnir_rules::{
    calendar::Session,
    limits::{LISTING_E4_MAX, QUANTITY_E4_MAX, VOLATILITY_BAND_BPS_MAX},
    order::{OrderState, TimeInForce},
};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

type Read<T> = Result<T, Malformed>;

/// Elements that are read before their room is taken on trust.
const TRUSTED_MAX: u64 = 65_536;

fn must(holds: bool, what: &'static str) -> Read<()> {
    if holds { Ok(()) } else { Err(Malformed(what)) }
}

/// Room for as many elements as a length says, within reason.
fn room(length: u64) -> usize {
    usize::try_from(length.min(TRUSTED_MAX)).unwrap_or(0)
}

impl State {
    /// Appends the canonical state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for value in [self.seq, self.position, self.order_no, self.account_no] {
            put_u64(out, value);
        }
        put_i64(out, self.time_us);
        put_i64(out, self.day_end_us);
        out.push(session_number(self.session));
        put_i64(out, self.session_us);
        self.rules.encode(out);
        put_u64(out, self.fees.len() as u64);
        for fees in &self.fees {
            put_u64(out, u64::from(fees.maker_bp));
            put_u64(out, u64::from(fees.taker_bp));
        }
        put_u64(out, self.rates.len() as u64);
        for rate in &self.rates {
            put_i64(out, *rate);
        }
        put_u64(out, self.users.len() as u64);
        for user in &self.users {
            encode_user(user, out);
        }
        let mut accounts: Vec<_> = self.accounts.values().collect();
        accounts.sort_unstable_by_key(|a| a.id);
        put_u64(out, accounts.len() as u64);
        for account in accounts {
            encode_account(account, out);
        }
        put_u64(out, self.markets.len() as u64);
        for market in &self.markets {
            encode_market(market, out);
        }
        put_u64(out, self.house.len() as u64);
        for ((house, asset), amount) in &self.house {
            out.push(*house as u8);
            put_asset(out, *asset);
            put_i128(out, *amount);
        }
        put_u64(out, self.groups.len() as u64);
        for group in self.groups.values() {
            put_uuid(out, group.id);
            out.push(group_kind_number(group.kind));
            put_u64(out, u64::from(group.owner));
            put_u64(out, u64::from(group.market));
            put_uuid(out, group.entry);
            put_u64(out, group.exits.len() as u64);
            for exit in &group.exits {
                put_uuid(out, *exit);
            }
            put_i64(out, group.pending_e4);
        }
        let (entries, begins_after) = self.recent.entries();
        put_u64(out, begins_after);
        put_u64(out, entries.len() as u64);
        for entry in entries {
            put_u128(out, entry.hash);
            put_u128(out, entry.payload);
            put_u64(out, entry.known.at);
            put_uuid(out, entry.known.object);
            put_i64(out, entry.known.amount);
        }
    }

    /// The state that [`Self::encode`] wrote. Whatever the bytes are, this does not panic.
    ///
    /// # Errors
    /// The bytes are no state.
    pub fn decode(bytes: &[u8]) -> Read<Self> {
        Self::decode_of(RULES_VERSION, bytes)
    }

    /// The state that a program of these rules or former ones wrote.
    ///
    /// # Errors
    /// The bytes are no state.
    pub fn decode_of(rules: u32, bytes: &[u8]) -> Read<Self> {
        let mut r = Reader::of(rules, bytes);
        let mut state = Self::new();
        state.seq = r.u64()?;
        state.position = r.u64()?;
        state.order_no = r.u64()?;
        state.account_no = r.u64()?;
        state.time_us = r.i64()?;
        state.day_end_us = r.i64()?;
        state.session = r.since(RULES_OF_SESSIONS, Session::Always, Reader::session)?;
        state.session_us = r.since(RULES_OF_SESSIONS, 0, Reader::i64)?;
        state.rules = Rules::decode(&mut r)?;
        for _ in 0..r.u64()? {
            state.fees.push(Fees { maker_bp: r.u32()?, taker_bp: r.u32()? });
        }
        for _ in 0..r.u64()? {
            let rate = r.i64()?;
            must((RATE_MIN..=RATE_MAX).contains(&rate), "a rate is out of range")?;
            state.rates.push(rate);
        }
        for _ in 0..r.u64()? {
            let user = decode_user(&mut r)?;
            let number = u32::try_from(state.users.len() + 1).map_err(|_| Malformed("too many users"))?;
            must(state.user_numbers.insert(user.id, number).is_none(), "a user is there twice")?;
            state.users.push(user);
        }
        for _ in 0..r.u64()? {
            let account = decode_account(&mut r, state.users.len())?;
            state.client_cash[account.currency as usize] += i128::from(account.cash.posted);
            state.client_held[account.currency as usize] += i128::from(account.cash.held);
            must(state.accounts.insert(account.id, account).is_none(), "an account is there twice")?;
        }
        for number in 0..r.u64()? {
            let number = u32::try_from(number).map_err(|_| Malformed("too many markets"))?;
            let market = decode_market(&mut r, number, &state)?;
            state.index_market(number, &market)?;
            state.markets.push(market);
        }
        for _ in 0..r.u64()? {
            let house = House::from_number(r.u8()?).ok_or(Malformed("unknown account of the house"))?;
            let (asset, amount) = (read_asset(&mut r)?, r.i128()?);
            must(state.house.insert((house, asset), amount).is_none(), "a balance is there twice")?;
        }
        for _ in 0..r.since(RULES_OF_GROUPS, 0, Reader::u64)? {
            let group = state.decode_group(&mut r)?;
            must(state.groups.insert(group.id, group).is_none(), "a group is there twice")?;
        }
        let begins_after = r.u64()?;
        let length = r.u64()?;
        let mut entries = Vec::with_capacity(room(length));
        for _ in 0..length {
            let (hash, payload) = (r.u128()?, r.u128()?);
            let known = Known { at: r.u64()?, object: r.uuid()?, amount: r.i64()? };
            entries.push(Entry { hash, payload, known });
        }
        state.recent = Recent::restore(entries, begins_after).ok_or(Malformed("an id is there twice"))?;
        r.finish()?;
        state.check()?;
        Ok(state)
    }

    /// A group of orders that are open.
    fn decode_group(&self, r: &mut Reader<'_>) -> Read<Group> {
        let id = r.uuid()?;
        let kind = r.group_kind()?;
        let (owner, market, entry) = (r.u32()?, r.u32()?, r.uuid()?);
        let mut exits = Vec::new();
        for _ in 0..r.u64()? {
            exits.push(r.uuid()?);
        }
        let pending_e4 = r.i64()?;
        let is = |order: &Uuid, leg| {
            let found = self.order(*order);
            found.is_some_and(|o| o.group == id && o.leg == leg && o.owner == owner && o.market == market)
        };
        must(entry.is_nil() || is(&entry, Leg::Entry), "the entry of a group is not open")?;
        must(!exits.is_empty() && exits.len() <= 2, "a group has one or two exits")?;
        must(exits.iter().all(|exit| is(exit, Leg::Exit)), "an exit of a group is not open")?;
        must((0..=QUANTITY_E4_MAX).contains(&pending_e4), "what waits for exits is out of range")?;
        Ok(Group { id, kind, owner, market, entry, exits, pending_e4 })
    }

    fn index_market(&mut self, number: u32, market: &Market) -> Read<()> {
        let is_new = self.market_numbers.insert(market.symbol.clone(), number).is_none();
        must(is_new, "a symbol is there twice")?;
        for (id, order) in &market.orders {
            must(self.open.insert(order.id, (number, *id)).is_none(), "an order is there twice")?;
            must(*id <= self.order_no, "an order's number is beyond the last")?;
            self.by_owner.insert((order.owner, *id, number));
            self.count_rate(order.rate, true);
            if order.time == TimeInForce::Gtd {
                self.gtd.insert((order.expires_us, *id));
            }
        }
        Ok(())
    }

    /// Checks what a step relies on: holdings of markets that are there, accounts of their users, holds that are covered.
    fn check(&self) -> Read<()> {
        let markets = self.markets.len();
        for account in self.accounts.values() {
            let user = &self.users[account.owner as usize - 1];
            must(user.accounts.contains(&account.id), "an account is not its user's")?;
            let known = account.holdings.keys().all(|m| (*m as usize) < markets);
            must(known, "shares are of an unknown symbol")?;
        }
        for user in &self.users {
            let known = user.accounts.iter().all(|id| self.accounts.contains_key(id));
            must(known, "an account of a user is missing")?;
        }
        let mut open = HashMap::<_, u32>::new();
        let mut users = vec![0u32; self.users.len()];
        for order in self.orders() {
            *open.entry(order.account).or_default() += 1;
            users[order.owner as usize - 1] += 1;
        }
        for account in self.accounts.values() {
            let counted = open.get(&account.id).copied().unwrap_or(0);
            must(counted == account.open_orders, "an account counts other open orders than it has")?;
        }
        let counted = self.users.iter().zip(users).all(|(user, n)| user.open_orders == n);
        must(counted, "a user counts other open orders than it has")
    }
}

fn put_asset(out: &mut Vec<u8>, asset: Asset) {
    match asset {
        Asset::Cash(currency) => out.extend([0, currency as u8]),
        Asset::Shares(market) => {
            out.push(1);
            put_u64(out, u64::from(market));
        }
    }
}

fn read_asset(r: &mut Reader<'_>) -> Read<Asset> {
    match r.u8()? {
        0 => Ok(Asset::Cash(r.currency()?)),
        1 => Ok(Asset::Shares(r.u32()?)),
        _ => Err(Malformed("unknown asset")),
    }
}

fn encode_user(user: &User, out: &mut Vec<u8>) {
    put_uuid(out, user.id);
    out.push(u8::from(user.agent) | u8::from(user.closed) << 1);
    for value in [user.order_seq, user.money_seq, user.touched, u64::from(user.open_orders)] {
        put_u64(out, value);
    }
    put_i64(out, user.deposits_day_us);
    for amount in user.deposits {
        put_i64(out, amount);
    }
    put_u64(out, user.accounts.len() as u64);
    for id in &user.accounts {
        put_uuid(out, *id);
    }
}

fn decode_user(r: &mut Reader<'_>) -> Read<User> {
    let id = r.uuid()?;
    let flags = r.u8()?;
    must(flags <= 3, "unknown flag of a user")?;
    let (order_seq, money_seq, touched, open_orders) = (r.u64()?, r.u64()?, r.u64()?, r.u32()?);
    let deposits_day_us = r.i64()?;
    let deposits = [r.i64()?, r.i64()?];
    let mut accounts = Vec::new();
    for _ in 0..r.u64()? {
        accounts.push(r.uuid()?);
    }
    Ok(User {
        id,
        agent: flags & 1 != 0,
        closed: flags & 2 != 0,
        order_seq,
        money_seq,
        open_orders,
        accounts,
        deposits_day_us,
        deposits,
        touched,
    })
}

fn encode_account(a: &Account, out: &mut Vec<u8>) {
    put_uuid(out, a.id);
    put_u64(out, a.number);
    put_u64(out, u64::from(a.owner));
    out.extend([a.kind as u8, a.currency as u8]);
    for value in [a.opened_us, a.updated_us, a.cash.posted, a.cash.held] {
        put_i64(out, value);
    }
    put_u64(out, u64::from(a.open_orders));
    put_u64(out, a.holdings.len() as u64);
    for (market, h) in &a.holdings {
        put_u64(out, u64::from(*market));
        for value in [h.posted, h.held, h.cost, h.realized, h.opened_us, h.updated_us] {
            put_i64(out, value);
        }
    }
}

fn decode_account(r: &mut Reader<'_>, users: usize) -> Read<Account> {
    let (id, number, owner) = (r.uuid()?, r.u64()?, r.u32()?);
    must(owner != 0 && owner as usize <= users, "an account's user is unknown")?;
    let kind = Kind::from_number(r.u8()?).ok_or(Malformed("unknown kind of account"))?;
    let currency: Currency = r.currency()?;
    let (opened_us, updated_us) = (r.i64()?, r.i64()?);
    let cash = Cash { posted: r.i64()?, held: r.i64()? };
    must((0..=cash.posted).contains(&cash.held), "cash does not cover its holds")?;
    let open_orders = r.u32()?;
    let mut holdings = BTreeMap::new();
    for _ in 0..r.u64()? {
        let market = r.u32()?;
        let h = Holding {
            posted: r.i64()?,
            held: r.i64()?,
            cost: r.i64()?,
            realized: r.i64()?,
            opened_us: r.i64()?,
            updated_us: r.i64()?,
        };
        must(h.posted > 0 && (0..=h.posted).contains(&h.held), "shares do not cover their holds")?;
        must(h.cost >= 0, "a cost is negative")?;
        must(holdings.insert(market, h).is_none(), "a holding is there twice")?;
    }
    Ok(Account { id, number, owner, kind, currency, opened_us, updated_us, cash, holdings, open_orders })
}

fn encode_market(m: &Market, out: &mut Vec<u8>) {
    put_symbol(out, Some(&m.symbol));
    put_u64(out, m.version);
    out.extend([m.currency as u8, state_number(m.state)]);
    let paused_us = m.pause.map_or(0, |pause| pause.since_us);
    for value in [m.tick_e4, m.lot_e4, m.previous_close_e4, paused_us, m.last_quantity_e4] {
        put_i64(out, value);
    }
    if let Some(pause) = m.pause {
        put_i64(out, pause.until_us);
        put_i64(out, pause.due_us);
        out.push(u8::from(pause.extended));
    }
    for value in [u64::from(m.band_bps), m.exec_seq, m.trade_no] {
        put_u64(out, value);
    }
    let mut book = Vec::new();
    m.book.snapshot(&mut book);
    put_bytes(out, &book);
    // In the canonical order of the book.
    put_u64(out, u64::from(m.book.open_orders()));
    for order in m.book.orders() {
        encode_order(&m.orders[&order.id], out);
    }
    let mut asleep: Vec<&Order> = m.orders.values().filter(|order| order.asleep).collect();
    asleep.sort_unstable_by_key(|order| order.number);
    put_u64(out, asleep.len() as u64);
    for order in asleep {
        encode_order(order, out);
    }
}

fn decode_market(r: &mut Reader<'_>, number: u32, state: &State) -> Read<Market> {
    let (symbol, version, currency, trading) = (r.symbol()?, r.u64()?, r.currency()?, r.state()?);
    let (tick_e4, lot_e4, previous_close_e4) = (r.i64()?, r.i64()?, r.i64()?);
    let steps = (1..=LISTING_E4_MAX).contains(&tick_e4) && (1..=LISTING_E4_MAX).contains(&lot_e4);
    must(steps, "tick and lot are above 0")?;
    must((0..=LISTING_E4_MAX).contains(&previous_close_e4), "a previous close is out of range")?;
    let (paused_us, last_quantity_e4) = (r.i64()?, r.i64()?);
    let pause = if paused_us == 0 { None } else { Some(decode_pause(r, paused_us, &state.rules)?) };
    let (band_bps, exec_seq, trade_no) = (r.u32()?, r.u64()?, r.u64()?);
    must(band_bps <= VOLATILITY_BAND_BPS_MAX, "the width of a band is out of range")?;
    let book = stepwise(Book::restore(r.bytes()?).map_err(|_| Malformed("a book cannot be restored"))?);
    must(r.u64()? == u64::from(book.open_orders()), "the number of orders is not that of the book")?;
    let mut orders = HashMap::with_capacity(book.open_orders() as usize);
    for resting in book.orders() {
        let mut order = decode_order(r, number, state)?;
        order.slot = resting.slot;
        let same = resting.owner == order.owner && resting.id == order.number;
        must(same && !order.asleep, "an order is not that of the book")?;
        let open = resting.open.checked_mul(lot_e4.cast_unsigned());
        let open_e4 = u64::try_from(order.quantity_e4 - order.filled_e4).ok();
        must(open.is_some() && open == open_e4, "an order has another quantity open than the book")?;
        orders.insert(resting.id, order);
    }
    let mut before = 0;
    for _ in 0..r.since(RULES_OF_GROUPS, 0, Reader::u64)? {
        let order = decode_order(r, number, state)?;
        let sleeps = order.asleep && order.leg == Leg::Exit && order.filled_e4 == 0;
        must(sleeps && order.number > before, "what sleeps are exits, in their order")?;
        before = order.number;
        must(orders.insert(order.number, order).is_none(), "an order is there twice")?;
    }
    Ok(Market {
        symbol,
        version,
        currency,
        tick_e4,
        lot_e4,
        state: trading,
        previous_close_e4,
        band_bps,
        session: state.session,
        pause,
        exec_seq,
        trade_no,
        last_quantity_e4,
        book,
        orders,
    })
}

/// A pause of former rules ended after its time, without a moment that a hash chose.
fn decode_pause(r: &mut Reader<'_>, since_us: i64, rules: &Rules) -> Read<Pause> {
    let before = since_us.saturating_add(rules.volatility_pause_us);
    Ok(Pause {
        since_us,
        until_us: r.since(RULES_OF_SESSIONS, before, Reader::i64)?,
        due_us: r.since(RULES_OF_SESSIONS, before, Reader::i64)?,
        extended: r.since(RULES_OF_SESSIONS, false, Reader::bool)?,
    })
}

/// An exit that sleeps.
const ASLEEP: u8 = 2 | 1 << 4;
const HELD: u8 = 1;
const PARTIAL: u8 = 2;

fn encode_order(o: &Order, out: &mut Vec<u8>) {
    put_uuid(out, o.id);
    put_u64(out, u64::from(o.owner));
    put_uuid(out, o.account);
    put_u64(out, o.number);
    let state = match o.state {
        OrderState::Held => HELD,
        OrderState::PartiallyFilled => PARTIAL,
        _ => 0,
    };
    out.extend([side_number(o.side), time_number(o.time), self_trade_number(o.stp)]);
    out.extend([u8::from(o.post_only), state]);
    put_terms(out, o.terms);
    for value in [o.quantity_e4, o.filled_e4, o.display_e4, o.stop_e4, o.cap_e4, o.expires_us] {
        put_i64(out, value);
    }
    put_text(out, &o.client_id);
    for value in [o.version, o.rate, o.fees] {
        put_u64(out, u64::from(value));
    }
    put_i64(out, o.created_us);
    put_i64(out, o.updated_us);
    put_i128(out, o.hold.maker_notional);
    put_i128(out, o.hold.taker_notional);
    put_i64(out, o.hold.held);
    out.push(o.leg as u8 | u8::from(o.asleep) << 4);
    if o.leg != Leg::None {
        put_uuid(out, o.group);
    }
}

fn decode_order(r: &mut Reader<'_>, market: u32, state: &State) -> Read<Order> {
    let (id, owner, account, number) = (r.uuid()?, r.u32()?, r.uuid()?, r.u64()?);
    let is_owned = state.accounts.get(&account).is_some_and(|a| a.owner == owner);
    must(is_owned, "an order's account is not its user's")?;
    let (side, time, stp, post_only) = (r.side()?, r.time()?, r.self_trade()?, r.bool()?);
    let order_state = match r.u8()? {
        0 => OrderState::New,
        HELD => OrderState::Held,
        PARTIAL => OrderState::PartiallyFilled,
        _ => return Err(Malformed("unknown state of an order")),
    };
    let terms = r.terms()?;
    let (quantity_e4, filled_e4) = (r.i64()?, r.i64()?);
    let in_range = (1..=QUANTITY_E4_MAX).contains(&quantity_e4) && (0..quantity_e4).contains(&filled_e4);
    must(in_range, "an order's quantity is out of range")?;
    let (display_e4, stop_e4, cap_e4, expires_us) = (r.i64()?, r.i64()?, r.i64()?, r.i64()?);
    must(display_e4 >= 0 && stop_e4 >= 0 && cap_e4 >= 0, "an order's number is negative")?;
    let client_id = r.text()?.into();
    let (version, rate, fees) = (r.u32()?, r.u32()?, r.u32()?);
    let known = rate as usize <= state.rates.len() && fees as usize <= state.fees.len();
    must(known, "an order's rate or fees are unknown")?;
    let (created_us, updated_us) = (r.i64()?, r.i64()?);
    let hold = Hold { maker_notional: r.i128()?, taker_notional: r.i128()?, held: r.i64()? };
    // Far more than an order can trade, and few enough for every product with rate and fee.
    let money = 0..=i128::from(i64::MAX) << 16;
    let fits = money.contains(&hold.maker_notional) && money.contains(&hold.taker_notional);
    must(fits && hold.held >= 0, "a hold is out of range")?;
    let (leg, asleep) = match r.since(RULES_OF_GROUPS, 0, Reader::u8)? {
        0 => (Leg::None, false),
        1 => (Leg::Entry, false),
        2 => (Leg::Exit, false),
        ASLEEP => (Leg::Exit, true),
        _ => return Err(Malformed("unknown leg of a group")),
    };
    let group = if leg == Leg::None { Uuid::nil() } else { r.uuid()? };
    must((leg == Leg::None) == group.is_nil(), "an order of a group names it")?;
    Ok(Order {
        id,
        owner,
        account,
        market,
        number,
        slot: fafnir_matching::Slot::NONE,
        side,
        terms,
        time,
        stp,
        post_only,
        state: order_state,
        quantity_e4,
        filled_e4,
        display_e4,
        stop_e4,
        cap_e4,
        expires_us,
        client_id,
        version,
        created_us,
        updated_us,
        rate,
        fees,
        hold,
        group,
        leg,
        asleep,
        end: None,
    })
}
