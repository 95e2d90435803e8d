//! What the facts of the journal say to the agents.

use fafnir_market::{Agent, Event, Side};
use fafnir_proto::v1::{self, Fact, FactKind, TradingState};
use std::collections::HashMap;
use uuid::Uuid;

/// Whose facts and which symbols' concern the agents.
#[derive(Debug)]
pub struct Known {
    /// User id → agent.
    pub agents: HashMap<String, Agent>,
    /// Symbol → market.
    pub markets: HashMap<String, usize>,
}

/// The side of a message; `None` where it names none.
pub fn side_of(side: v1::Side) -> Option<Side> {
    match side {
        v1::Side::Buy => Some(Side::Buy),
        v1::Side::Sell => Some(Side::Sell),
        v1::Side::Unspecified => None,
    }
}

impl Known {
    /// The events of a fact, in the order in which the agents must hear them.
    pub fn events(&self, fact: &Fact) -> Vec<Event> {
        let mut events: Vec<Event> = fact.balances.iter().flat_map(|update| self.balance(update)).collect();
        let Some(market) = self.markets.get(&fact.symbol).copied() else { return events };
        match fact.kind() {
            FactKind::Executed => events.push(Event::Traded {
                market,
                price_e4: fact.price_e4,
                quantity_e4: fact.quantity_e4,
                aggressor: side_of(fact.aggressor()),
            }),
            FactKind::StateChanged => {
                events.push(Event::State { market, is_open: fact.state() == TradingState::Open });
            }
            _ => {}
        }
        let orders = fact.orders.iter().filter_map(|update| update.order.as_ref());
        events.extend(orders.filter_map(|order| self.order(market, fact.position, order)));
        events
    }

    /// Cash and shares of an agent, as they are.
    fn balance(&self, update: &v1::PortfolioUpdate) -> Vec<Event> {
        let Some(agent) = self.agents.get(&update.user_id).copied() else { return Vec::new() };
        let mut events = Vec::new();
        if let (Agent::Maker(market), Some(account)) = (agent, &update.account) {
            events.push(Event::Cash { market, micros: account.balance_micros });
        }
        if let Some(holding) = &update.holding
            && let Some(market) = self.markets.get(&holding.symbol).copied()
        {
            events.push(Event::Shares { market, agent, quantity_e4: holding.quantity_e4 });
        }
        events
    }

    fn order(&self, market: usize, position: u64, order: &v1::Order) -> Option<Event> {
        let agent = self.agents.get(&order.user_id).copied()?;
        let id = Uuid::parse_str(&order.id).unwrap_or_default();
        let (filled_e4, ended) = (order.filled_e4, order.state().has_ended());
        Some(Event::Order { market, position, agent, order: id.as_u128(), filled_e4, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_proto::v1::OrderState;

    fn known() -> Known {
        Known {
            agents: [("maker".to_owned(), Agent::Maker(0)), ("trader".to_owned(), Agent::Trader(2))].into(),
            markets: [("AAPL".to_owned(), 0)].into(),
        }
    }

    #[test]
    fn a_trade_of_agents_says_who_has_what_then_that_it_was_then_what_became_of_the_orders() {
        let id = Uuid::from_u128(77);
        let mut order =
            v1::Order { id: id.to_string(), user_id: "maker".into(), filled_e4: 5, ..Default::default() };
        order.set_state(OrderState::Filled);
        let mut fact = Fact { symbol: "AAPL".into(), position: 9, ..Default::default() };
        fact.set_kind(FactKind::Executed);
        fact.set_aggressor(v1::Side::Sell);
        (fact.price_e4, fact.quantity_e4) = (100, 10);
        fact.orders.push(v1::OrderUpdate { order: Some(order), ..Default::default() });
        fact.balances.push(v1::PortfolioUpdate {
            user_id: "trader".into(),
            account: Some(v1::Account { balance_micros: 4, ..Default::default() }),
            holding: Some(v1::Holding { symbol: "AAPL".into(), quantity_e4: 3, ..Default::default() }),
            ..Default::default()
        });
        fact.balances.push(v1::PortfolioUpdate { user_id: "a person".into(), ..Default::default() });
        let events = known().events(&fact);
        assert!(
            matches!(
                events[..],
                [
                    Event::Shares { market: 0, agent: Agent::Trader(2), quantity_e4: 3 },
                    Event::Traded { price_e4: 100, quantity_e4: 10, aggressor: Some(Side::Sell), .. },
                    Event::Order {
                        position: 9,
                        agent: Agent::Maker(0),
                        order: 77,
                        filled_e4: 5,
                        ended: true,
                        ..
                    },
                ]
            ),
            "{events:?}"
        );
    }

    #[test]
    fn a_symbol_that_is_not_traded_here_says_nothing() {
        let mut fact = Fact { symbol: "ZZZ".into(), ..Default::default() };
        fact.set_kind(FactKind::StateChanged);
        assert!(known().events(&fact).is_empty());
    }
}
