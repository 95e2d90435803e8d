//! Facts of a small market, as an engine could give them.

use super::{ALICE, BOB, agent, ended, fact, named, open_order};
use fafnir_proto::{
    id::UserId,
    v1::{Fact, FactKind, Fill, Order, OrderState, OrderUpdate, Side},
};
use std::collections::HashMap;

/// What happens next, and to which open orders.
pub type Choice = (u8, u8, u8);

/// A market of three users.
#[derive(Default)]
pub struct Flow {
    pub facts: Vec<Fact>,
    open: Vec<Order>,
    orders: u128,
    seqs: HashMap<String, u64>,
}

impl Flow {
    pub fn of(choices: &[Choice]) -> Vec<Fact> {
        let mut flow = Self::default();
        for choice in choices {
            flow.go_on(*choice);
        }
        flow.facts
    }

    fn position(&self) -> u64 {
        self.facts.len() as u64 + 1
    }

    fn seq(&mut self, user: &str) -> u64 {
        if user == agent().to_string() {
            return 0;
        }
        let seq = self.seqs.entry(user.to_owned()).or_default();
        *seq += 1;
        *seq
    }

    fn tell(&mut self, kind: FactKind, order: &Order) {
        let (position, seq) = (self.position(), self.seq(&order.user_id));
        self.facts.push(fact(position, kind, order, seq));
    }

    fn go_on(&mut self, (what, one, other): Choice) {
        let users: [UserId; 3] = [BOB, ALICE, agent()];
        let count = self.open.len();
        match what % 8 {
            0..=2 => {
                self.orders += 1;
                let order = open_order(users[usize::from(one) % 3], self.orders);
                let (position, seq) = (self.position(), self.seq(&order.user_id));
                if other.is_multiple_of(2) {
                    self.facts.push(fact(position, FactKind::Accepted, &order, seq));
                    self.open.push(order);
                } else {
                    let key = format!("key-{}", self.orders);
                    self.facts.push(named(position, &order, seq, &key, [other; 16]));
                    self.open.push(Order { client_order_id: key, ..order });
                }
            }
            3 => {
                self.orders += 1;
                let order = open_order(users[usize::from(one) % 3], self.orders);
                self.tell(FactKind::Rejected, &ended(&order, OrderState::Rejected, 5));
            }
            4 if count > 0 => {
                let order = self.open.swap_remove(usize::from(one) % count);
                let at_us = self.position() as i64;
                self.tell(FactKind::Canceled, &ended(&order, OrderState::Canceled, at_us));
            }
            5 if count > 0 => {
                let order = &mut self.open[usize::from(one) % count];
                (order.version, order.price_e4) = (order.version + 1, 2_310_000 + i64::from(other));
                let order = order.clone();
                self.tell(FactKind::Replaced, &order);
            }
            _ if count > 1 => self.trade(usize::from(one) % count, usize::from(other) % count),
            _ => self.facts.push(Fact {
                position: self.position(),
                kind: FactKind::Money.into(),
                ..Fact::default()
            }),
        }
    }

    fn trade(&mut self, taker: usize, maker: usize) {
        if taker == maker {
            return;
        }
        let position = self.position();
        let mut orders = Vec::new();
        for (index, is_maker) in [(taker, false), (maker, true)] {
            let order = &mut self.open[index];
            order.filled_e4 += 10_000;
            order.open_e4 -= 10_000;
            order.updated_us = position as i64;
            order.set_state(if order.open_e4 == 0 {
                OrderState::Filled
            } else {
                OrderState::PartiallyFilled
            });
            let fill = Fill {
                exec_id: format!("AAPL:{position}"),
                order_id: order.id.clone(),
                symbol: "AAPL".into(),
                side: if is_maker { Side::Sell } else { Side::Buy }.into(),
                price_e4: 2_310_000,
                quantity_e4: 10_000,
                maker: is_maker,
                time_us: position as i64,
            };
            let (user_id, order) = (order.user_id.clone(), order.clone());
            let user_seq = self.seq(&user_id);
            orders.push(OrderUpdate { user_id, user_seq, order: Some(order), fill: Some(fill) });
        }
        self.facts.push(Fact {
            position,
            kind: FactKind::Executed.into(),
            symbol: "AAPL".into(),
            exec_seq: position,
            orders,
            ..Fact::default()
        });
        self.open.retain(|order| order.open_e4 > 0);
    }
}
