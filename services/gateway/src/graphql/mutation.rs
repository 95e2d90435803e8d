//! The mutations of public-api.md §6, and ours beyond the reference.

use super::{
    Manages, Trades, error, of,
    query::id_of,
    scalars::{DateTime, Decimal, Number, Uuid},
    types::*,
};
use crate::{
    Gateway,
    audit::money,
    market,
    session::{Act, Permission::*, Session},
};
use async_graphql::{Context, InputObject, Object, Result};
use fafnir_platform::{Refusal, audit::Action};
use fafnir_proto::{reason::Reason, v1};
use fafnir_rules::order::{TimeInForce, one_of};
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Longest idempotency key.
const KEY_LEN_MAX: usize = 64;

/// Put into a request whose orders were counted before it was executed.
#[derive(Debug, Clone, Copy)]
pub struct OrdersCounted;

/// Root fields that send orders and count against the rate.
pub const ORDER_FIELDS: [&str; 3] = ["createOrder", "createOrderGroup", "replaceOrder"];

/// What to buy or sell, and how.
#[derive(InputObject, Debug)]
pub struct CreateOrderRequest {
    /// The listed symbol, in any case.
    pub symbol: String,
    /// BUY, SELL in any case.
    pub side: String,
    /// MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING_STOP in any case.
    #[graphql(name = "type")]
    pub kind: String,
    /// Exactly one of `quantity` and `notional`.
    pub quantity: Option<Number>,
    /// MARKET and LIMIT: what to buy or sell for, in the listing's currency, rounded down to the lot: at the limit; a
    /// MARKET order to buy at the worst price that it may trade at, so that it never costs more, one to sell at the
    /// reference price.
    pub notional: Option<Number>,
    /// The limit, of LIMIT and STOP_LIMIT orders.
    pub price: Option<Number>,
    /// From this price on the order comes to life.
    pub stop_price: Option<Number>,
    /// DAY, GTC, IOC, FOK, GTD, OPG (for the next opening auction only), CLS (for the next closing auction only) in any
    /// case.
    pub time_in_force: Option<String>,
    /// At most 64 characters; the same again answers the same order.
    pub client_order_id: Option<String>,
    /// The account that trades; left out, the oldest INVESTMENT account in the listing's currency.
    pub account_id: Option<Uuid>,
    /// Rests or is canceled; never takes what rests.
    pub post_only: Option<bool>,
    /// What of an iceberg the book shows at a time; the rest is hidden.
    pub display_quantity: Option<Number>,
    /// What happens to orders of the caller that would meet: CANCEL_NEWEST (default), CANCEL_OLDEST, CANCEL_BOTH,
    /// DECREMENT in any case.
    pub self_trade_prevention: Option<String>,
    /// With GTD.
    pub expires_at: Option<DateTime>,
    /// How far the stop trails behind the price.
    pub trail_amount: Option<Number>,
    /// 1.25 is 1.25 %.
    pub trail_percent: Option<Number>,
}

/// Orders that depend on each other.
#[derive(InputObject, Debug)]
pub struct CreateOrderGroupRequest {
    /// OCO, BRACKET, OTO in any case.
    pub kind: String,
    /// The entry first, of the same symbol, account and quantity; 2 of an OCO or OTO, 3 of a BRACKET. Only the first one
    /// has a `clientOrderId`, which names the group: the same again answers the same group.
    pub orders: Vec<CreateOrderRequest>,
}

/// What to change of an open order; what is left out stays.
#[derive(InputObject, Debug)]
pub struct ReplaceOrderRequest {
    /// The open order.
    pub order_id: Uuid,
    /// The new total; left out it stays.
    pub quantity: Option<Number>,
    /// The new limit.
    pub price: Option<Number>,
    /// The new stop price.
    pub stop_price: Option<Number>,
    /// Of a trailing stop that was not triggered, in what it trails by: its stop starts anew behind the last price.
    pub trail_amount: Option<Number>,
    /// The same in percent: 1.25 is 1.25 %.
    pub trail_percent: Option<Number>,
    /// Refused where the order has another one.
    pub version: Option<u32>,
}

/// What account to open.
#[derive(InputObject, Debug)]
pub struct CreateAccountRequest {
    /// INVESTMENT, SAVINGS, CHEQUING in any case.
    #[graphql(name = "type")]
    pub kind: String,
    /// USD, CAD.
    pub currency: String,
    /// At most 64 characters; the same again answers the same and changes nothing.
    pub idempotency_key: Option<String>,
}

/// What to put in.
#[derive(InputObject, Debug)]
pub struct DepositRequest {
    /// The account's id, a UUID.
    pub account_id: String,
    /// In the account's currency, above 0, at most two decimals.
    pub amount: Number,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// At most 64 characters; the same again answers the same and changes nothing.
    pub idempotency_key: Option<String>,
}

/// What to take out.
#[derive(InputObject, Debug)]
pub struct WithdrawRequest {
    /// The account's id.
    pub account_id: Uuid,
    /// In the account's currency, above 0, at most two decimals.
    pub amount: Number,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// At most 64 characters; the same again answers the same and changes nothing.
    pub idempotency_key: Option<String>,
}

/// What to move from where to where.
#[derive(InputObject, Debug)]
pub struct TransferRequest {
    /// The account that pays, a UUID.
    pub from_account_id: String,
    /// The account that receives, a UUID.
    pub to_account_id: String,
    /// In the account's currency, above 0, at most two decimals.
    pub amount: Number,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// At most 64 characters; the same again answers the same and changes nothing.
    pub idempotency_key: Option<String>,
}

/// What to watch.
#[derive(InputObject, Debug)]
pub struct AddToWatchlistRequest {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
}

/// What to watch no longer.
#[derive(InputObject, Debug)]
pub struct RemoveFromWatchlistRequest {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
}

/// `PREFIX_WORD` of a word in any case, for the contract's enums.
fn constant(prefix: &str, word: &str) -> String {
    let word: String = word.trim().chars().take(32).collect();
    format!("{prefix}{}", word.to_ascii_uppercase())
}

fn side_of(text: &str) -> Result<v1::Side> {
    v1::Side::parse(text).ok_or_else(|| error::invalid(Reason::SIDE_UNKNOWN, "side must be BUY or SELL"))
}

fn type_of(text: &str) -> Result<v1::OrderType> {
    v1::OrderType::parse(text).ok_or_else(|| {
        error::invalid(Reason::TYPE_UNKNOWN, "type must be MARKET, LIMIT, STOP, STOP_LIMIT or TRAILING_STOP")
    })
}

fn time_in_force_of(text: Option<&str>) -> Result<v1::TimeInForce> {
    let Some(text) = text else { return Ok(v1::TimeInForce::Unspecified) };
    v1::TimeInForce::parse(text).ok_or_else(|| {
        let times = one_of(TimeInForce::ALL.iter().map(|time| time.name()));
        error::invalid(Reason::TIME_IN_FORCE_UNKNOWN, format!("timeInForce must be {times}"))
    })
}

fn stp_of(text: Option<&str>) -> Result<v1::StpMode> {
    let Some(text) = text else { return Ok(v1::StpMode::Unspecified) };
    v1::StpMode::parse(text).ok_or_else(|| {
        error::invalid(
            Reason::SELF_TRADE_PREVENTION_UNKNOWN,
            "selfTradePrevention must be CANCEL_NEWEST, CANCEL_OLDEST, CANCEL_BOTH or DECREMENT",
        )
    })
}

fn account_type_of(text: &str) -> std::result::Result<v1::AccountType, Status> {
    use v1::AccountType::*;
    match v1::AccountType::from_str_name(&constant("ACCOUNT_TYPE_", text)) {
        Some(kind @ (Investment | Savings | Chequing)) => Ok(kind),
        _ => Err(Refusal::invalid(
            Reason::ACCOUNT_TYPE_UNKNOWN,
            "type must be INVESTMENT, SAVINGS or CHEQUING",
        )
        .into()),
    }
}

fn time_of(field: &str, text: &str) -> Result<i64> {
    let parsed = time::OffsetDateTime::parse(text.trim(), &Rfc3339).ok();
    let micros =
        parsed.and_then(|t| i64::try_from(t.unix_timestamp_nanos() / 1000).ok()).filter(|us| *us > 0);
    micros.ok_or_else(|| {
        error::invalid(Reason::TIME_MALFORMED, format!("{field} must be a time as in RFC 3339"))
    })
}

fn e4(field: &str, number: Option<&Number>) -> Result<i64> {
    number.map_or(Ok(0), |n| n.e4(field))
}

/// Quantity and notional of a new order: one of the two, the other 0.
fn how_much(request: &CreateOrderRequest) -> Result<(i64, i64)> {
    let refuse = |reason, message: &str| Err(error::invalid(reason, message));
    match (&request.quantity, &request.notional) {
        (Some(quantity), None) => Ok((quantity.e4("quantity")?, 0)),
        (None, Some(notional)) => match notional.micros("notional")? {
            ..=0 => refuse(Reason::NOTIONAL_NOT_POSITIVE, "notional must be above 0"),
            micros => Ok((0, micros)),
        },
        (Some(_), Some(_)) => {
            refuse(Reason::QUANTITY_AMBIGUOUS, "only one of quantity and notional may be given")
        }
        (None, None) => {
            refuse(Reason::QUANTITY_AMBIGUOUS, "exactly one of quantity and notional must be given")
        }
    }
}

/// A number whose absence means "leave it": 0 itself is refused, because it would mean the same.
fn e4_positive(field: &str, reason: Reason, number: Option<&Number>) -> Result<i64> {
    match number.map(|n| n.e4(field)).transpose()? {
        Some(value) if value <= 0 => Err(error::invalid(reason, format!("{field} must be greater than 0"))),
        value => Ok(value.unwrap_or(0)),
    }
}

fn key_of(key: Option<String>) -> std::result::Result<String, Status> {
    match key {
        Some(key) if key.len() > KEY_LEN_MAX => {
            let text = format!("idempotencyKey must have at most {KEY_LEN_MAX} characters");
            Err(Refusal::invalid(Reason::IDEMPOTENCY_KEY_TOO_LONG, text).into())
        }
        key => Ok(key.unwrap_or_default()),
    }
}

fn currency_of(text: &str) -> String {
    text.trim().chars().take(8).collect::<String>().to_ascii_uppercase()
}

/// Counts one order against the caller's rate, unless the whole request was counted.
fn count_order(ctx: &Context<'_>) -> Result<()> {
    if ctx.data_opt::<OrdersCounted>().is_some() {
        return Ok(());
    }
    let (gateway, session) = of(ctx)?;
    gateway.orders.take(session.user, 1, Instant::now()).map_err(|exceeded| {
        let text = format!(
            "more than {} orders a second; try again in {} ms",
            gateway.ctx.settings.gateway.orders_per_second,
            exceeded.retry_after.as_millis().max(1)
        );
        error::refused(Refusal::exhausted(Reason::RATE_LIMITED, text))
    })
}

fn order_of(reply: v1::OrderReply) -> Result<v1::Order> {
    reply.order.ok_or_else(|| error::of(Status::internal("a reply without an order")))
}

/// The order that a request asks for.
fn place_request(session: &Session, request: CreateOrderRequest) -> Result<v1::PlaceOrderRequest> {
    let account_id =
        session.own_account(request.account_id.as_ref().map(|Uuid(id)| id.as_str())).map_err(error::of)?;
    let (quantity_e4, notional_micros) = how_much(&request)?;
    Ok(v1::PlaceOrderRequest {
        user_id: session.user.to_string(),
        account_id,
        symbol: market::symbol(&request.symbol).map_err(error::of)?.to_string(),
        side: side_of(&request.side)?.into(),
        r#type: type_of(&request.kind)?.into(),
        time_in_force: time_in_force_of(request.time_in_force.as_deref())?.into(),
        quantity_e4,
        notional_micros,
        price_e4: e4("price", request.price.as_ref())?,
        stop_price_e4: e4("stopPrice", request.stop_price.as_ref())?,
        trail_amount_e4: e4("trailAmount", request.trail_amount.as_ref())?,
        trail_percent_e4: e4("trailPercent", request.trail_percent.as_ref())?,
        display_quantity_e4: e4("displayQuantity", request.display_quantity.as_ref())?,
        post_only: request.post_only.unwrap_or(false),
        stp: stp_of(request.self_trade_prevention.as_deref())?.into(),
        client_order_id: request.client_order_id.unwrap_or_default(),
        expires_us: request.expires_at.map_or(Ok(0), |DateTime(t)| time_of("expiresAt", &t))?,
    })
}

/// What became of an order that was placed.
fn placed(order: &v1::Order) -> Outcome {
    match order.state() {
        v1::OrderState::Rejected => Outcome {
            code: error::code_name(Code::FailedPrecondition).to_owned(),
            reason: Some(order.reject_code.clone()),
            message: Some(order.reject_reason.clone()),
        },
        _ => Outcome::ok(),
    }
}

#[derive(Default)]
pub struct Trading;

#[Object]
impl Trading {
    /// Places an order. OK: accepted (status PENDING or further). FAILED_PRECONDITION: refused for funds or risk, with
    /// the REJECTED order. A wrong order is an error.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn create_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: CreateOrderRequest,
    ) -> Result<CreateOrderResponse> {
        let (gateway, session) = of(ctx)?;
        count_order(ctx)?;
        let order = place_request(session, request)?;
        let mut client = gateway.ctx.clients.order(&session.caller());
        let order = order_of(gateway.told(session, client.place(order).await.map_err(error::of)?))?;
        crate::tell_placed(&order);
        let outcome = placed(&order);
        Ok(CreateOrderResponse { data: Some(order.into()), outcome })
    }

    /// Places orders that depend on each other, all of them or none; against the rate they count as one. OCO: two exits, a
    /// LIMIT and a stop, that sell the same shares. BRACKET: an entry that buys, and such exits, which sleep (HELD) and
    /// grow with its fills. OTO: an entry and one exit. What one exit sells the other loses; the end of one, or the
    /// trigger of the stop, ends the other. Answered like createOrder.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn create_order_group(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: CreateOrderGroupRequest,
    ) -> Result<CreateOrderGroupResponse> {
        let (gateway, session) = of(ctx)?;
        count_order(ctx)?;
        let orders = request.orders.into_iter().map(|order| place_request(session, order));
        let group = v1::PlaceGroupRequest {
            kind: v1::GroupKind::parse(&request.kind).unwrap_or_default().into(),
            orders: orders.collect::<Result<_>>()?,
            user_id: session.user.to_string(),
        };
        let mut client = gateway.ctx.clients.order(&session.caller());
        let reply = gateway.told(session, client.place_group(group).await.map_err(error::of)?);
        for order in &reply.orders {
            crate::tell_placed(order);
        }
        let outcome = reply.orders.first().map_or_else(Outcome::ok, placed);
        let orders = reply.orders.into_iter().map(Order::from).collect();
        Ok(CreateOrderGroupResponse { group_id: Some(Uuid(reply.group_id)), orders, outcome })
    }

    /// Cancels every open order of a group; NOT_FOUND where none of them depends on another any more.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn cancel_order_group(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the group's id")] group_id: Uuid,
    ) -> Result<CancelAllOrdersResponse> {
        let (gateway, session) = of(ctx)?;
        let group_id = id_of("groupId", &group_id.0).map_err(error::of)?;
        gateway.reach_group(session, &group_id).await.map_err(error::of)?;
        let request = v1::CancelGroupRequest { user_id: session.user.to_string(), group_id };
        let mut client = gateway.ctx.clients.order(&session.caller());
        let reply = gateway.told(session, client.cancel_group(request).await.map_err(error::of)?);
        Ok(CancelAllOrdersResponse { requested: reply.requested, outcome: Outcome::ok() })
    }

    /// Cancels an order; waits up to a second for the engine's word. An order that is done is an error.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn cancel_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the order's id")] order_id: String,
    ) -> Result<CancelOrderResponse> {
        let (gateway, session) = of(ctx)?;
        let order_id = id_of("orderId", &order_id).map_err(error::of)?;
        gateway.reach_order(session, &order_id).await.map_err(error::of)?;
        let request = v1::CancelOrderRequest { user_id: session.user.to_string(), order_id };
        let mut client = gateway.ctx.clients.order(&session.caller());
        let order = order_of(gateway.told(session, client.cancel(request).await.map_err(error::of)?))?;
        Ok(CancelOrderResponse { data: Some(order.into()), outcome: Outcome::ok() })
    }

    /// Changes price or total quantity of an open order. A decrease of the quantity keeps its place in the queue.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn replace_order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: ReplaceOrderRequest,
    ) -> Result<ReplaceOrderResponse> {
        let (gateway, session) = of(ctx)?;
        count_order(ctx)?;
        let order_id = id_of("orderId", &request.order_id.0).map_err(error::of)?;
        gateway.reach_order(session, &order_id).await.map_err(error::of)?;
        let request = v1::ReplaceOrderRequest {
            user_id: session.user.to_string(),
            order_id,
            quantity_e4: e4_positive("quantity", Reason::QUANTITY_NOT_POSITIVE, request.quantity.as_ref())?,
            price_e4: e4_positive("price", Reason::PRICE_NOT_POSITIVE, request.price.as_ref())?,
            stop_price_e4: e4_positive(
                "stopPrice",
                Reason::STOP_PRICE_NOT_POSITIVE,
                request.stop_price.as_ref(),
            )?,
            version: request.version.unwrap_or(0),
            trail_amount_e4: e4("trailAmount", request.trail_amount.as_ref())?,
            trail_percent_e4: e4("trailPercent", request.trail_percent.as_ref())?,
        };
        let mut client = gateway.ctx.clients.order(&session.caller());
        let order = order_of(gateway.told(session, client.replace(request).await.map_err(error::of)?))?;
        Ok(ReplaceOrderResponse { data: Some(order.into()), outcome: Outcome::ok() })
    }

    /// Asks to cancel every open order of the caller, or those in one symbol.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn cancel_all_orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: Option<String>,
    ) -> Result<CancelAllOrdersResponse> {
        let (gateway, session) = of(ctx)?;
        let symbol = symbol.map(|s| market::symbol(&s)).transpose().map_err(error::of)?;
        let symbol = symbol.map(|s| s.to_string()).unwrap_or_default();
        let requested = gateway.cancel_all(session, symbol).await.map_err(error::of)?;
        Ok(CancelAllOrdersResponse { requested, outcome: Outcome::ok() })
    }

    /// Cancels the caller's open orders in a symbol and sells what is there at the market, as one command for each
    /// INVESTMENT account, or for the named one. OK: nothing is left.
    #[graphql(guard = "Trades(OrderStocks)")]
    async fn flatten(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "the account's id")] account_id: Option<Uuid>,
    ) -> Result<FlattenResponse> {
        let (gateway, session) = of(ctx)?;
        gateway.sessions.require(session, Act::Trade, ManageOwnPortfolio).await.map_err(error::of)?;
        let mut done =
            FlattenResponse { canceled: 0, orders: Vec::new(), left: Decimal::e4(0), outcome: Outcome::ok() };
        let mut left_e4: i64 = 0;
        for account_id in
            gateway.trading_accounts(session, account_id.map(|Uuid(id)| id)).await.map_err(error::of)?
        {
            count_order(ctx)?;
            let asked = async {
                let symbol = market::symbol(&symbol)?.to_string();
                let request = v1::FlattenRequest { user_id: session.user.to_string(), account_id, symbol };
                let mut client = gateway.ctx.clients.order(&session.caller());
                Ok(gateway.told(session, client.flatten(request).await?))
            };
            let (reply, outcome) = error::outcome(asked.await)?;
            let flattened = reply.unwrap_or_default();
            done.canceled = done.canceled.saturating_add(flattened.canceled);
            left_e4 = left_e4.saturating_add(flattened.left_e4);
            let outcome = if outcome == Outcome::ok() { left_over(&flattened) } else { outcome };
            if done.outcome == Outcome::ok() {
                done.outcome = outcome;
            }
            done.orders.extend(flattened.order.map(Order::from));
        }
        done.left = Decimal::e4(left_e4);
        Ok(done)
    }
}

/// Why a flatten left something; OK where it did not.
fn left_over(reply: &v1::FlattenReply) -> Outcome {
    if reply.left_e4 == 0 {
        return Outcome::ok();
    }
    let code = Code::from(i32::try_from(reply.code).unwrap_or_default());
    Outcome {
        code: error::code_name(if code == Code::Ok { Code::FailedPrecondition } else { code }).to_owned(),
        reason: Some(reply.reason.clone()),
        message: Some(reply.message.clone()),
    }
}

#[derive(Default)]
pub struct Money;

#[Object]
impl Money {
    /// Opens an account; it starts with the configured paper deposit.
    #[graphql(guard = "Manages(ManageOwnAccounts)")]
    async fn create_account(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: CreateAccountRequest,
    ) -> Result<CreateAccountResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::CreateAccountRequest {
                user_id: session.user.to_string(),
                r#type: account_type_of(&request.kind)?.into(),
                currency: currency_of(&request.currency),
                idempotency_key: key_of(request.idempotency_key)?,
            };
            let mut client = gateway.ctx.clients.portfolio(&session.caller());
            let detail = format!("{} {}", request.r#type().as_str_name(), request.currency);
            let act = client.create_account(request);
            Ok(gateway.told(
                session,
                gateway.audited(session, Action::AccountOpen, session.user, detail, act).await?,
            ))
        };
        let (account, outcome) = error::outcome(asked.await)?;
        Ok(CreateAccountResponse { data: account.map(Account::from), outcome })
    }

    /// Puts paper money into an account of the caller.
    #[graphql(guard = "Manages(ManageOwnAccounts)")]
    async fn deposit(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: DepositRequest,
    ) -> Result<DepositResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::DepositRequest {
                user_id: session.user.to_string(),
                account_id: id_of("accountId", &request.account_id)?,
                amount_micros: request.amount.micros("amount")?,
                currency: currency_of(&request.currency),
                idempotency_key: key_of(request.idempotency_key)?,
            };
            let mut client = gateway.ctx.clients.portfolio(&session.caller());
            let money = money(request.amount_micros, &request.currency);
            let detail = format!("{money} into {}", request.account_id);
            let act = client.deposit(request);
            Ok(gateway
                .told(session, gateway.audited(session, Action::Deposit, session.user, detail, act).await?))
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        let (balance, id) = reply.map_or((0, None), |r| (r.new_balance_micros, Some(r.transaction_id)));
        Ok(DepositResponse { new_balance: Decimal::micros(balance), transaction_id: id.map(Uuid), outcome })
    }

    /// Takes paper money out of an account of the caller.
    #[graphql(guard = "Manages(ManageOwnAccounts)")]
    async fn withdraw(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: WithdrawRequest,
    ) -> Result<WithdrawResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::WithdrawRequest {
                user_id: session.user.to_string(),
                account_id: id_of("accountId", &request.account_id.0)?,
                amount_micros: request.amount.micros("amount")?,
                currency: currency_of(&request.currency),
                idempotency_key: key_of(request.idempotency_key)?,
            };
            let mut client = gateway.ctx.clients.portfolio(&session.caller());
            let money = money(request.amount_micros, &request.currency);
            let detail = format!("{money} out of {}", request.account_id);
            let act = client.withdraw(request);
            Ok(gateway
                .told(session, gateway.audited(session, Action::Withdraw, session.user, detail, act).await?))
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        let (balance, id) = reply.map_or((0, None), |r| (r.new_balance_micros, Some(r.transaction_id)));
        Ok(WithdrawResponse { new_balance: Decimal::micros(balance), transaction_id: id.map(Uuid), outcome })
    }

    /// Moves money between two accounts of the caller.
    #[graphql(guard = "Manages(ManageOwnAccounts)")]
    async fn transfer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: TransferRequest,
    ) -> Result<TransferResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::TransferRequest {
                user_id: session.user.to_string(),
                from_account_id: id_of("fromAccountId", &request.from_account_id)?,
                to_account_id: id_of("toAccountId", &request.to_account_id)?,
                amount_micros: request.amount.micros("amount")?,
                currency: currency_of(&request.currency),
                idempotency_key: key_of(request.idempotency_key)?,
            };
            let mut client = gateway.ctx.clients.portfolio(&session.caller());
            let money = money(request.amount_micros, &request.currency);
            let detail = format!("{money} from {} to {}", request.from_account_id, request.to_account_id);
            let act = client.transfer(request);
            Ok(gateway
                .told(session, gateway.audited(session, Action::Transfer, session.user, detail, act).await?))
        };
        let (_, outcome) = error::outcome(asked.await)?;
        Ok(TransferResponse { outcome })
    }

    /// Watches a symbol; again changes nothing.
    #[graphql(guard = "Trades(ManageOwnWatchlist)")]
    async fn add_to_watchlist(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: AddToWatchlistRequest,
    ) -> Result<AddToWatchlistResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&request.symbol)?.to_string();
            let request = v1::WatchlistRequest { user_id: session.user.to_string(), symbol };
            gateway.ctx.clients.user(&session.caller()).add_to_watchlist(request).await
        };
        let (_, outcome) = error::outcome(asked.await)?;
        Ok(AddToWatchlistResponse { outcome })
    }

    /// Watches a symbol no longer; again changes nothing.
    #[graphql(guard = "Trades(ManageOwnWatchlist)")]
    async fn remove_from_watchlist(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: RemoveFromWatchlistRequest,
    ) -> Result<RemoveFromWatchlistResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&request.symbol)?.to_string();
            let request = v1::WatchlistRequest { user_id: session.user.to_string(), symbol };
            gateway.ctx.clients.user(&session.caller()).remove_from_watchlist(request).await
        };
        let (_, outcome) = error::outcome(asked.await)?;
        Ok(RemoveFromWatchlistResponse { outcome })
    }

    /// Closes an account of the caller: its orders are canceled, what is left goes to the house, its rows stay.
    #[graphql(guard = "Manages(ManageOwnAccounts)")]
    async fn delete_account(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the account's id")] account_id: String,
    ) -> Result<bool> {
        let (gateway, session) = of(ctx)?;
        let account_id = id_of("accountId", &account_id).map_err(error::of)?;
        let request = v1::AccountRequest { user_id: session.user.to_string(), account_id };
        let mut client = gateway.ctx.clients.portfolio(&session.caller());
        let detail = request.account_id.clone();
        let act = client.close_account(request);
        let closed = gateway.audited(session, Action::AccountClose, session.user, detail, act).await;
        Ok(gateway.told(session, closed.map_err(error::of)?).closed)
    }
}

impl Gateway {
    /// The caller's accounts that trade, or the named one; the default one where there is none to name.
    async fn trading_accounts(
        &self,
        session: &Session,
        named: Option<String>,
    ) -> std::result::Result<Vec<String>, Status> {
        if named.is_some() || session.bound_to().is_some() {
            return Ok(vec![session.own_account(named.as_deref())?]);
        }
        let mut accounts = self.accounts(session).await?;
        accounts.retain(|a| a.r#type() == v1::AccountType::Investment);
        if accounts.is_empty() {
            return Ok(vec![String::new()]);
        }
        Ok(accounts.into_iter().map(|a| a.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_unknown_ones_are_refused() {
        assert_eq!(side_of(" buy ").unwrap(), v1::Side::Buy);
        assert_eq!(type_of("Stop_Limit").unwrap(), v1::OrderType::StopLimit);
        assert_eq!(time_in_force_of(Some("gtc")).unwrap(), v1::TimeInForce::Gtc);
        assert_eq!(stp_of(Some("cancel_both")).unwrap(), v1::StpMode::CancelBoth);
        assert_eq!(time_in_force_of(None).unwrap(), v1::TimeInForce::Unspecified);
        for bad in ["", "unspecified", "UNSPECIFIED", "HOLD", "SIDE_BUY"] {
            assert!(side_of(bad).is_err(), "{bad}");
            assert!(type_of(bad).is_err(), "{bad}");
            assert!(time_in_force_of(Some(bad)).is_err(), "{bad}");
            assert!(stp_of(Some(bad)).is_err(), "{bad}");
            assert!(account_type_of(bad).is_err(), "{bad}");
        }
        assert!(account_type_of("HOUSE").is_err());
        assert_eq!(time_of("expiresAt", "2030-01-01T00:00:00Z").unwrap(), 1_893_456_000_000_000);
        assert!(time_of("expiresAt", "tomorrow").is_err());
    }
}
