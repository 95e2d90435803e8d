//! The subscriptions: public market data, and the caller's own updates, resumable by sequence.

use super::{Needs, error, of, scalars::Int64, types::*};
use crate::{
    Gateway, market,
    private::{self, Event, Start},
    session::{Permission::*, Session},
};
use async_graphql::{Context, Result, SimpleObject, Subscription as GraphSubscription};
use fafnir_proto::{reason::Reason, v1};
use futures::{Stream, StreamExt as _, stream};
use std::sync::Arc;

/// A change of one of the caller's orders.
#[derive(SimpleObject, Clone, Debug)]
pub struct OrderUpdate {
    /// Hand it back as `after` to resume.
    pub sequence: Int64,
    /// The updates after `after` are no longer kept: this is part of a snapshot, which ends with the sequence to go on
    /// from and no order.
    pub reset: bool,
    /// The order.
    pub order: Option<Order>,
    /// The fill.
    pub fill: Option<Fill>,
}

/// A change of one of the caller's accounts or holdings.
#[derive(SimpleObject, Clone, Debug)]
pub struct PortfolioUpdate {
    /// Hand it back as `after` to resume.
    pub sequence: Int64,
    /// The updates after `after` are no longer kept: this is part of a snapshot, which ends with the sequence to go on
    /// from and neither account nor holding.
    pub reset: bool,
    /// The account as it now is.
    pub account: Option<Account>,
    /// The holding as it now is.
    pub holding: Option<Holding>,
}

pub struct Subscription;

/// Left out: from now on. A number: everything after it.
fn start(after: Option<Int64>) -> Result<Start> {
    match after {
        None => Ok(Start::Now),
        Some(Int64(seq)) if seq >= 0 => Ok(Start::After(seq as u64)),
        Some(_) => Err(error::invalid(Reason::AFTER_NEGATIVE, "after must not be negative")),
    }
}

fn updates(
    gateway: &Arc<Gateway>,
    session: &Session,
    orders: Start,
    portfolio: Start,
) -> impl Stream<Item = Result<Event>> + use<> {
    let received = private::updates(gateway.clone(), session.clone(), orders, portfolio);
    private::stream(received).map(|event| event.map_err(error::of))
}

/// What is pushed as it happens, over `/graphql/ws` (graphql-transport-ws).
#[GraphSubscription]
impl Subscription {
    /// The caller's orders and fills as they change.
    #[graphql(guard = "Needs(OrderStocks)")]
    #[expect(clippy::unused_async, reason = "a subscription is opened by a future")]
    async fn order_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the cursor or sequence to go on after")] after: Option<Int64>,
    ) -> Result<impl Stream<Item = Result<OrderUpdate>> + use<>> {
        let (gateway, session) = of(ctx)?;
        let events = updates(gateway, session, start(after)?, Start::Never);
        Ok(events.filter_map(async |event| match event {
            Ok(Event::Order { update, reset }) => Some(Ok(OrderUpdate {
                sequence: update.user_seq.into(),
                reset,
                order: update.order.map(Order::from),
                fill: update.fill.map(Fill::from),
            })),
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        }))
    }

    /// The caller's accounts and holdings as they change.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    #[expect(clippy::unused_async, reason = "a subscription is opened by a future")]
    async fn portfolio_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the cursor or sequence to go on after")] after: Option<Int64>,
    ) -> Result<impl Stream<Item = Result<PortfolioUpdate>> + use<>> {
        let (gateway, session) = of(ctx)?;
        let (gateway, session) = (gateway.clone(), session.clone());
        let events = updates(&gateway, &session, Start::Never, start(after)?);
        let updates = events.filter_map(async |event| match event {
            Ok(Event::Portfolio { update, reset }) => Some(Ok((update, reset))),
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        });
        Ok(updates.then(move |update| {
            let (gateway, session) = (gateway.clone(), session.clone());
            async move {
                let (update, reset) = update?;
                let holding = match update.holding {
                    Some(holding) => {
                        let user_id = session.user.to_string();
                        let request = v1::ValueRequest { user_id, holding: Some(holding) };
                        let mut client = gateway.reads(&session).await.portfolio(&session.caller());
                        Some(client.value(request).await.map_err(error::of)?.into_inner().into())
                    }
                    None => None,
                };
                let account = update.account.map(Account::from);
                Ok(PortfolioUpdate { sequence: update.user_seq.into(), reset, account, holding })
            }
        }))
    }

    /// The book of a symbol: its image now, then each newer one, at most ten a second.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn order_book_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
    ) -> Result<impl Stream<Item = Result<OrderBook>> + use<>> {
        let (gateway, session) = of(ctx)?;
        let symbol = market::symbol(&symbol).map_err(error::of)?;
        let feed = market::books(gateway.clone(), session.clone(), symbol).await.map_err(error::of)?;
        Ok(feed.map(|image| image.map(OrderBook::from).map_err(error::of)))
    }

    /// The trades of a symbol in order and without a gap: from now on, or after a trade number.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn trade_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "the cursor or sequence to go on after")] after: Option<Int64>,
    ) -> Result<impl Stream<Item = Result<Trade>> + use<>> {
        let (gateway, session) = of(ctx)?;
        let symbol = market::symbol(&symbol).map_err(error::of)?;
        let after = match start(after)? {
            Start::After(seq) => Some(seq),
            Start::Now | Start::Never => None,
        };
        let feed =
            market::trades(gateway.clone(), session.clone(), symbol, after).await.map_err(error::of)?;
        Ok(feed.map(|print| {
            let print = print.map_err(error::of)?;
            Ok(Trade { reset: print.reset, ..Trade::from(print.trade) })
        }))
    }

    /// The quotes of at most 50 symbols: as they are now, then each change.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn quote_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "listed symbols, in any case")] symbols: Vec<String>,
    ) -> Result<stream::BoxStream<'static, Result<StockPriceData>>> {
        let (gateway, session) = of(ctx)?;
        if symbols.is_empty() || symbols.len() > market::SYMBOLS_MAX {
            let text = format!("symbols must have 1 to {} elements", market::SYMBOLS_MAX);
            return Err(error::invalid(Reason::TOO_MANY_SYMBOLS, text));
        }
        let symbols: std::result::Result<Vec<_>, _> = symbols.iter().map(|s| market::symbol(s)).collect();
        let symbols = symbols.map_err(error::of)?;
        let feed = market::quotes(gateway.clone(), session.clone(), symbols).await.map_err(error::of)?;
        Ok(feed.map(|quote| quote.map(StockPriceData::from).map_err(error::of)).boxed())
    }
}
