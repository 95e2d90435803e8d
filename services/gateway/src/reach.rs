//! What a caller bound to one account reaches of its user's: orders, groups and fills by their account.
//!
//! A caller that is not bound reaches everything that the services let its user have, and nothing is asked for here. What
//! is out of reach answers as what does not exist, in the words of the service that owns it.

use super::{Gateway, session::Session};
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, v1};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;

/// Orders asked for at a time.
const PAGE: u32 = 500;
/// Pages of open orders that are looked through, at most: more than a user may have open.
const PAGES_MAX: usize = 100;
/// Orders canceled at a time.
const CANCELS_MAX: usize = 16;

fn no_such_order() -> Status {
    Refusal::not_found(Reason::ORDER_NOT_FOUND, "no such order").into()
}

impl Gateway {
    /// An order of the caller.
    pub async fn own_order(&self, session: &Session, order_id: String) -> Result<v1::Order, Status> {
        let request = v1::GetOrderRequest { user_id: session.user.to_string(), order_id };
        let mut client = self.reads(session).await.order(&session.caller());
        let order = client.get(request).await?.into_inner().order.unwrap_or_default();
        self.learn_account(session, &order);
        if session.reaches(&order.account_id) { Ok(order) } else { Err(no_such_order()) }
    }

    /// Refuses an order that the caller does not reach.
    pub async fn reach_order(&self, session: &Session, order_id: &str) -> Result<(), Status> {
        let Some(bound) = session.bound_to() else { return Ok(()) };
        match self.accounts_of_orders.get(order_id) {
            Some((user, account)) if user == session.user && *account == *bound => Ok(()),
            Some(_) => Err(no_such_order()),
            None => self.own_order(session, order_id.to_owned()).await.map(drop),
        }
    }

    /// Remembers whose and of which account an order is, for the next question about it; both never change.
    pub fn learn_account(&self, session: &Session, order: &v1::Order) {
        if session.bound_to().is_some() && order.user_id == session.user.to_string() {
            let account = order.account_id.as_str().into();
            self.accounts_of_orders.insert(order.id.clone(), (session.user, account));
        }
    }

    /// Refuses a group that the caller does not reach: its orders are all of one account.
    pub async fn reach_group(&self, session: &Session, group_id: &str) -> Result<(), Status> {
        if session.bound_to().is_none() {
            return Ok(());
        }
        let open = self.open_orders(session, String::new()).await?;
        if open.iter().any(|order| order.group_id == group_id) {
            return Ok(());
        }
        let text = format!("group_id {group_id} is not an open group of this user");
        Err(Refusal::not_found(Reason::GROUP_NOT_FOUND, text).into())
    }

    /// The caller's open orders of the account that it is bound to.
    async fn open_orders(&self, session: &Session, symbol: String) -> Result<Vec<v1::Order>, Status> {
        let mut client = self.reads(session).await.order(&session.caller());
        let mut request = v1::ListOrdersRequest {
            user_id: session.user.to_string(),
            open_only: true,
            symbol,
            limit: PAGE,
            account_id: session.bound_to().unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let mut orders = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = client.list(request.clone()).await?.into_inner();
            let Some(last) = page.orders.last() else { break };
            request.before_id.clone_from(&last.id);
            orders.extend(page.orders);
            if !page.more {
                break;
            }
        }
        Ok(orders)
    }

    /// Asks to cancel every open order that the caller reaches, or those in one symbol. Answers how many.
    pub async fn cancel_all(&self, session: &Session, symbol: String) -> Result<u32, Status> {
        let user_id = session.user.to_string();
        let client = self.ctx.clients.order(&session.caller());
        if session.bound_to().is_none() {
            let request = v1::CancelAllRequest { user_id, symbol };
            return Ok(self.told(session, client.clone().cancel_all(request).await?).requested);
        }
        let open = self.open_orders(session, symbol).await?;
        let cancels = stream::iter(open).map(|order| {
            let request = v1::CancelOrderRequest { user_id: user_id.clone(), order_id: order.id };
            let mut client = client.clone();
            async move {
                match client.cancel(request).await {
                    Ok(reply) => Ok(u32::from(self.told(session, reply).order.is_some())),
                    // It ended meanwhile.
                    Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(0),
                    Err(status) => Err(status),
                }
            }
        });
        let done: Vec<u32> = cancels.buffer_unordered(CANCELS_MAX).try_collect().await?;
        Ok(done.into_iter().fold(0, u32::saturating_add))
    }

    /// Leaves only the fills of orders that the caller reaches.
    pub async fn keep_fills(&self, session: &Session, fills: &mut Vec<v1::Fill>) -> Result<(), Status> {
        if session.bound_to().is_none() {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(fills.len());
        for fill in fills.drain(..) {
            match self.reach_order(session, &fill.order_id).await {
                Ok(()) => kept.push(fill),
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        *fills = kept;
        Ok(())
    }
}
