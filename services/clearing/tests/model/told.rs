//! What a command did to orders and states, in a form that both sides can be put in.

use fafnir_clearing::{
    fact::{self, End, Fact, OrderAfter, OrderKind, What},
    group::Leg,
    order::Order,
};
use fafnir_matching::Reason;
use fafnir_rules::order::{OrderState, Side, TradingState};
use uuid::Uuid;

/// Why an order ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    Book(&'static str),
    AccountClosing,
    Group,
    /// The refusal's name.
    Refused(String),
}

impl Ended {
    pub fn book(reason: Reason) -> Self {
        // Asked for, alone or with others.
        let reason = if reason == Reason::MassCancel { Reason::Requested } else { reason };
        Self::Book(reason.as_str())
    }
}

/// An order as it is after something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: Uuid,
    pub state: OrderState,
    pub quantity: i64,
    pub filled: i64,
    /// 0 of an exit, whose group holds once.
    pub held: i64,
    pub group: Uuid,
    pub stop: i64,
    pub version: u32,
    pub maker_notional: i128,
    pub taker_notional: i128,
    pub end: Option<Ended>,
}

impl Seen {
    pub fn of(order: &Order) -> Self {
        Self {
            id: order.id,
            state: order.state,
            quantity: order.quantity_e4,
            filled: order.filled_e4,
            held: if order.leg == Leg::Exit { 0 } else { order.hold.held },
            group: order.group,
            stop: order.stop_e4,
            version: order.version,
            maker_notional: order.hold.maker_notional,
            taker_notional: order.hold.taker_notional,
            end: order.end.as_ref().map(|end| match end {
                End::Book(reason) => Ended::book(*reason),
                End::AccountClosing => Ended::AccountClosing,
                End::Group => Ended::Group,
                End::Refused(refusal) => Ended::Refused(crate::exchange::name(refusal)),
            }),
        }
    }

    fn after(order: &OrderAfter) -> Self {
        Self::of(&order.order)
    }
}

/// One thing that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Order {
        market: usize,
        kind: OrderKind,
        order: Seen,
        other: Option<Seen>,
        /// What was canceled, expired or taken off.
        quantity: i64,
    },
    Trade {
        market: usize,
        price: i64,
        quantity: i64,
        taker: Seen,
        maker: Seen,
        aggressor: Option<Side>,
        realized: i64,
        cost: i64,
    },
    State {
        market: usize,
        state: TradingState,
        paused: bool,
        price: i64,
        until: i64,
    },
}

impl Told {
    /// What a fact tells; `None`: nothing of orders or states. `market` is where the model has the fact's.
    pub fn of(fact: &Fact, market: impl Fn(u32) -> usize) -> Option<Self> {
        let at = || market(fact.at.expect("a fact about a market names it").0);
        Some(match &fact.what {
            What::Order(order) => {
                let taken =
                    matches!(order.kind, OrderKind::Canceled | OrderKind::Expired | OrderKind::Decremented);
                Self::Order {
                    market: at(),
                    kind: order.kind,
                    order: Seen::after(&order.order),
                    other: order.other.as_ref().map(Seen::after),
                    quantity: if taken { order.quantity_e4 } else { 0 },
                }
            }
            What::Executed(trade) => Self::trade(at(), trade),
            What::StateChanged { state, paused, price_e4, until_us } => Self::State {
                market: at(),
                state: *state,
                paused: *paused,
                price: *price_e4,
                until: *until_us,
            },
            _ => return None,
        })
    }

    fn trade(market: usize, trade: &fact::Trade) -> Self {
        Self::Trade {
            market,
            price: trade.price_e4,
            quantity: trade.quantity_e4,
            taker: Seen::after(&trade.taker),
            maker: Seen::after(&trade.maker),
            aggressor: trade.aggressor,
            realized: trade.realized,
            cost: trade.cost,
        }
    }

    /// For what is told in no order of meaning: an end first, by order.
    pub fn rank(&self) -> (u8, Uuid) {
        match self {
            Self::Order { kind: OrderKind::Canceled, order, .. } => (0, order.id),
            _ => (1, Uuid::nil()),
        }
    }
}
