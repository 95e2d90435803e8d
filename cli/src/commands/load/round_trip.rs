//! Round trips: a market order until both sides are settled and the client has been told so.
//!
//! One user per client, one order at a time, buying and selling in turn against whoever quotes. A trade settles both
//! sides in its own step, so the client's new position says that the other side has been settled too.

use super::{
    ask::{Ask, Way},
    door::Outcome,
    figures::{Figures, ROUND_TRIP_FIRST},
    traffic::Plan,
    users::User,
};
use crate::{
    client::{self, Gateway},
    output::{Error, Exit, Result},
};
use fafnir_proto::{
    reason::Reason,
    v1::{Empty, OrderState, PrivateRequest, PrivateUpdate, private_update::Kind},
};
use fafnir_services::platform::rng::Rng;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Updates that arrived and are not looked at yet.
const UPDATES_MAX: usize = 4_096;
/// A round trip ends within this, or has failed.
const WITHIN: Duration = Duration::from_secs(10);

/// What a round trip was waiting for when it came.
#[derive(Debug, Default)]
struct Arrived {
    filled: Option<Instant>,
    settled: Option<Instant>,
    /// The order ended without a fill: why.
    ended: Option<String>,
}

/// Sends market orders until the end; hands the user back.
pub async fn run(
    plan: Arc<Plan>,
    gateway: Gateway,
    mut way: Way,
    mut user: User,
    mut rng: Rng,
) -> Result<(Vec<User>, Figures)> {
    let mut figures = Figures::default();
    let mut client = client::Client::with_token(&gateway, &user.token)?;
    let mut positions = positions(&mut client).await?;
    let mut updates = subscribe(&client).await?;
    while let Some(began) = plan.next().await {
        if user.renew(&plan.door).await? {
            client = client::Client::with_token(&gateway, &user.token)?;
            updates = subscribe(&client).await?;
        }
        let listing = plan.listings[rng.index(plan.listings.len())].clone();
        let had = positions.get(&listing.symbol).copied().unwrap_or(0);
        let sells = had >= listing.lot_e4;
        let outcome = way.ask(&user.bearer, Ask::Market(&listing, sells)).await;
        let accepted = began.elapsed();
        let measured = plan.measures(began);
        if measured {
            figures.of(ROUND_TRIP_FIRST).count(&outcome, accepted);
        }
        plan.answered.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Done(Some(order)) => {
                let has = if sells { had - listing.lot_e4 } else { had + listing.lot_e4 };
                let arrived = follow(&mut updates, &order, &listing.symbol, has).await;
                if arrived.settled.is_some() {
                    positions.insert(listing.symbol, has);
                }
                if measured {
                    count(&mut figures, &arrived, began);
                }
            }
            Outcome::Shed(pause) => tokio::time::sleep(pause).await,
            _ => {}
        }
    }
    Ok((vec![user], figures))
}

fn count(figures: &mut Figures, arrived: &Arrived, began: Instant) {
    if let Some(why) = &arrived.ended {
        figures.of("2 filled").count(&Outcome::Refused(why.clone()), Duration::ZERO);
        return;
    }
    let late = || Outcome::Failed(format!("not told within {} s", WITHIN.as_secs()));
    let done = [
        ("2 filled", arrived.filled),
        ("3 settled", arrived.filled.max(arrived.settled).filter(|_| arrived.settled.is_some())),
    ];
    for (name, when) in done {
        match when {
            Some(when) => figures.of(name).took(when.saturating_duration_since(began)),
            None => figures.of(name).count(&late(), WITHIN),
        }
    }
}

/// Reads updates until the order is filled and the position is what it must become.
async fn follow(
    updates: &mut mpsc::Receiver<(Instant, PrivateUpdate)>,
    order: &str,
    symbol: &str,
    has_e4: i64,
) -> Arrived {
    let mut arrived = Arrived::default();
    let until = tokio::time::Instant::now() + WITHIN;
    while arrived.ended.is_none() && (arrived.filled.is_none() || arrived.settled.is_none()) {
        let Ok(Some((when, update))) = tokio::time::timeout_at(until, updates.recv()).await else { break };
        match update.kind {
            Some(Kind::Order(update)) => {
                let Some(now) = update.order.filter(|o| o.id == order) else { continue };
                match now.state() {
                    OrderState::Filled => arrived.filled = Some(when),
                    OrderState::Canceled | OrderState::Expired | OrderState::Rejected => {
                        arrived.ended = Some(now.reject_code);
                    }
                    _ => {}
                }
            }
            Some(Kind::Portfolio(update)) => {
                let holding = update.holding.filter(|h| h.symbol == symbol);
                if holding.is_some_and(|h| h.quantity_e4 == has_e4) {
                    arrived.settled = Some(when);
                }
            }
            _ => {}
        }
    }
    arrived
}

/// The shares a user has, by symbol.
async fn positions(gateway: &mut client::Client) -> Result<BTreeMap<String, i64>> {
    let request = gateway.request(Empty {});
    let holdings = gateway.terminal.positions(request).await?.into_inner().holdings;
    Ok(holdings.into_iter().map(|h| (h.symbol, h.quantity_e4)).collect())
}

/// Own orders and positions as they change, with the moment at which each arrived. The task ends with its receiver.
async fn subscribe(gateway: &client::Client) -> Result<mpsc::Receiver<(Instant, PrivateUpdate)>> {
    let mut terminal = gateway.terminal.clone();
    let request = gateway.stream(PrivateRequest { from_now: true, ..Default::default() });
    let mut stream = terminal.private(request).await?.into_inner();
    // The first heartbeat says that the stream stands.
    let first = tokio::time::timeout(WITHIN, stream.message()).await;
    let silent = || Error::new(Exit::Timeout, "the private stream did not begin").code(Reason::TIMEOUT);
    first.map_err(|_| silent())??;
    let (send, receive) = mpsc::channel(UPDATES_MAX);
    tokio::spawn(async move {
        while let Ok(Some(update)) = stream.message().await {
            if send.send((Instant::now(), update)).await.is_err() {
                return;
            }
        }
    });
    Ok(receive)
}
