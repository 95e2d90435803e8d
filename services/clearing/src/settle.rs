//! A trade, settled in its own step: cash, shares, fees, conversion, price improvement, what is left of the holds.
#![expect(
    clippy::expect_used,
    reason = "what was checked before cannot fail: a step that breaks this must not go on"
)]

use crate::{
    account::{Account, Asset, House},
    fact::{OrderAfter, Party, Posting, Role, Sink, Touched, Trade, What},
    group::{Happened, Leg},
    hold::{Charges, Hold, Legs},
    order::Order,
    step::Stepper,
};
use fafnir_rules::{
    money::notional_micros,
    order::{OrderState, Side},
};

/// Collects postings; lines of the same party, asset and role become one, lines of nothing are left out.
#[derive(Debug, Default)]
pub(crate) struct Postings(Vec<Posting>);

impl Postings {
    pub fn add(&mut self, party: Party, asset: Asset, amount: i64, role: Role) -> &mut Self {
        let same = self.0.iter_mut().find(|p| p.party == party && p.asset == asset && p.role == role);
        match same {
            Some(posting) => posting.amount += amount,
            None => self.0.push(Posting { party, asset, amount, role }),
        }
        self
    }

    /// Moves an amount of one asset from one party to another.
    pub fn transfer(&mut self, from: Party, to: Party, asset: Asset, amount: i64, role: Role) -> &mut Self {
        self.add(from, asset, -amount, role).add(to, asset, amount, role)
    }

    /// The lines, which sum to zero per asset.
    pub fn balanced(mut self) -> Vec<Posting> {
        self.0.retain(|p| p.amount != 0);
        assert!(
            self.0.iter().all(|p| {
                let sum: i128 =
                    self.0.iter().filter(|q| q.asset == p.asset).map(|q| i128::from(q.amount)).sum();
                sum == 0
            }),
            "invariant: the postings of each asset sum to zero, {:?}",
            self.0
        );
        self.0
    }
}

/// What one side of a trade did.
struct Party1 {
    order: OrderAfter,
    touched: Touched,
    paid: Legs,
    charges: Charges,
    /// Of a sale: what it realised and the cost that went with the shares.
    realized: i64,
    cost: i64,
}

/// Moves cash and shares of one side; answers what the cash moved by, what a sale realised and the cost that went with
/// the shares.
fn move_balances(
    account: &mut Account,
    order: &Order,
    paid: Legs,
    quantity_e4: i64,
    released: i64,
) -> (i64, i64, i64) {
    let cash = &mut account.cash;
    let holding = account.holdings.entry(order.market).or_default();
    holding.updated_us = order.updated_us;
    let moved = match order.side {
        Side::Buy => {
            let out = paid.principal + paid.fee;
            cash.posted -= out;
            cash.held -= released;
            if holding.posted == 0 {
                holding.opened_us = order.updated_us;
            }
            holding.posted += quantity_e4;
            holding.cost =
                holding.cost.checked_add(out).expect("invariant: the cost was checked with the order");
            (-out, 0, 0)
        }
        Side::Sell => {
            let got = paid.principal - paid.fee;
            cash.posted = cash.posted.checked_add(got).expect("invariant: all clients' cash together fits");
            let cost = holding.cost_of(quantity_e4);
            let realized = got - cost;
            holding.posted -= quantity_e4;
            holding.held -= released;
            holding.cost -= cost;
            holding.realized = holding.realized.saturating_add(realized);
            (got, realized, cost)
        }
    };
    assert!(
        (0..=cash.posted).contains(&cash.held) && (0..=holding.posted).contains(&holding.held),
        "invariant: balances cover their holds, {cash:?} {holding:?}"
    );
    moved
}

impl<S: Sink> Stepper<'_, S> {
    /// Both sides of a trade move.
    pub fn traded(
        &mut self,
        market: u32,
        maker: u64,
        taker: u64,
        price_e4: i64,
        quantity_e4: i64,
        auction: bool,
    ) {
        let notional = notional_micros(price_e4, quantity_e4)
            .expect("invariant: tick and lot make a product exact, the buyer's hold makes it fit");
        let taker_buys = self.state.markets[market as usize].orders[&taker].side == Side::Buy;
        let (buyer, seller) = if taker_buys { (taker, maker) } else { (maker, taker) };
        let bought = self.settle_side(market, buyer, buyer == maker, notional, quantity_e4);
        let sold = self.settle_side(market, seller, seller == maker, notional, quantity_e4);
        let postings = self.postings(market, notional, quantity_e4, &bought, &sold);
        for posting in &postings {
            self.state.post_house(posting);
        }
        let m = &mut self.state.markets[market as usize];
        m.trade_no += 1;
        m.last_quantity_e4 = quantity_e4;
        let trade_no = m.trade_no;
        let side = if taker_buys { Side::Buy } else { Side::Sell };
        let (realized, cost) = (sold.realized, sold.cost);
        let (taker, maker) = if taker_buys { (bought.order, sold.order) } else { (sold.order, bought.order) };
        let trade = Trade {
            trade_no,
            price_e4,
            quantity_e4,
            aggressor: (!auction).then_some(side),
            taker,
            maker,
            buyer: bought.touched,
            seller: sold.touched,
            postings,
            realized,
            cost,
        };
        let legs = [&trade.taker.order, &trade.maker.order].map(|o| (o.leg != Leg::None).then(|| o.clone()));
        self.emit(Some(market), What::Executed(Box::new(trade)));
        for leg in legs.into_iter().flatten() {
            self.happened(&leg, Happened::Filled(quantity_e4));
        }
    }

    fn settle_side(
        &mut self,
        market: u32,
        number: u64,
        maker: bool,
        notional: i64,
        quantity_e4: i64,
    ) -> Party1 {
        let now = self.state.time_us;
        let before = &self.state.markets[market as usize].orders[&number];
        let charges = self.charges(before);
        let fits = "invariant: what an order trades is within what its hold was checked for";
        let hold = before.hold.traded(maker, notional);
        let (was, is) = (before.hold.posted(&charges).expect(fits), hold.posted(&charges).expect(fits));
        let paid = is.since(was).expect(fits);
        let mut order = before.clone();
        order.filled_e4 += quantity_e4;
        let open_e4 = order.quantity_e4 - order.filled_e4;
        assert!(open_e4 >= 0, "invariant: an order never fills beyond its quantity, {order:?}");
        order.state = if open_e4 == 0 { OrderState::Filled } else { OrderState::PartiallyFilled };
        order.updated_us = now;
        let (held, carried) = if order.leg == Leg::Exit {
            self.exit_held(&order, quantity_e4)
        } else {
            (if open_e4 == 0 { 0 } else { hold.needed(&charges, open_e4, order.cap_e4).expect(fits) }, 0)
        };
        let account = self
            .state
            .accounts
            .get_mut(&order.account)
            .expect("invariant: an account stays while it has orders");
        let released = order.hold.held + carried - held;
        order.hold = Hold { held: if open_e4 == 0 { 0 } else { held }, ..hold };
        let (moved, realized, cost) = move_balances(account, &order, paid, quantity_e4, released);
        let currency = account.currency as usize;
        if order.side == Side::Buy {
            self.state.client_held[currency] -= i128::from(released);
        }
        self.state.client_cash[currency] += i128::from(moved);
        if open_e4 == 0 {
            self.take_out(market, number);
        } else if let Some(open) = self.state.markets[market as usize].orders.get_mut(&number) {
            open.clone_from(&order);
        }
        let touched =
            self.state.touch(order.account, Some(market), false).expect("invariant: the account is there");
        if let Some(account) = self.state.accounts.get_mut(&order.account)
            && account.holdings.get(&market).is_some_and(|h| h.posted == 0)
        {
            account.holdings.remove(&market);
        }
        Party1 { order: self.order_after(order), touched, paid, charges, realized, cost }
    }

    /// What both sides post: money one way, shares the other, fees and exchanges to the house.
    fn postings(
        &self,
        market: u32,
        notional: i64,
        quantity_e4: i64,
        bought: &Party1,
        sold: &Party1,
    ) -> Vec<Posting> {
        let mut lines = Postings::default();
        let listing = Asset::Cash(self.state.markets[market as usize].currency);
        let (buyer, seller) = (bought.touched.account, sold.touched.account);
        let (paying, paid_in) = (Asset::Cash(buyer.currency), Asset::Cash(seller.currency));
        let (buyer, seller) = (Party::Client(buyer.id), Party::Client(seller.id));
        let [fx, rounding, fees] = [House::Fx, House::Rounding, House::Fees].map(Party::House);
        let (paid, got) = (bought.paid, sold.paid);
        lines.add(buyer, paying, -paid.principal, Role::Principal);
        if bought.charges.fx.foreign {
            lines.add(fx, paying, paid.exchanged, Role::Conversion);
            lines.add(rounding, paying, paid.principal - paid.exchanged, Role::Conversion);
            lines.add(fx, listing, -notional, Role::Conversion);
        }
        lines.add(seller, paid_in, got.principal, Role::Principal);
        if sold.charges.fx.foreign {
            lines.add(fx, listing, notional, Role::Conversion);
            lines.add(fx, paid_in, -got.exchanged, Role::Conversion);
            lines.add(rounding, paid_in, got.exchanged - got.principal, Role::Conversion);
        }
        lines.transfer(seller, buyer, Asset::Shares(market), quantity_e4, Role::Principal);
        lines.transfer(buyer, fees, paying, paid.fee, Role::Fee);
        lines.transfer(seller, fees, paid_in, got.fee, Role::Fee);
        lines.balanced()
    }
}
