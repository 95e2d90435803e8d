//! `--dry-run`: what orders would be and need, by the exchange's own rules and what is known of it now. Nothing is sent;
//! the exchange has the last word, at another moment.

use super::look;
use crate::{
    client::Client,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{Account, Empty, Holding, Instrument, PlaceGroupRequest, PlaceOrderRequest, Quote, QuotesRequest},
};
use fafnir_rules::{
    check::{self, Listing, Violation},
    money::{format_e4, format_micros, format_price, notional_micros},
    order,
};
use fafnir_services::{
    order::NewOrder,
    platform::{Clock, Refusal},
};
use fafnir_tui::model::holdings::default_account;
use serde_json::{Value, json};

/// What an order is judged by.
struct Known {
    instrument: Instrument,
    quote: Quote,
    accounts: Vec<Account>,
    holdings: Vec<Holding>,
}

/// An order that the rules allow.
struct Preview {
    order: NewOrder,
    quantity_e4: i64,
    /// The worst price that it may trade at.
    cap_e4: i64,
    stop_e4: i64,
    /// What it would hold: cash of a buy in micros, shares of a sell, e4; none where the exchange converts.
    needs: Option<i64>,
    has: Option<i64>,
    takes_at_once: bool,
}

fn refused(refusal: Refusal) -> Error {
    Error::new(Exit::Precondition, refusal.message).told(refusal.reason)
}

fn broken(violation: Violation, symbol: &str) -> Error {
    refused(Refusal::of_rule(violation, symbol))
}

impl Known {
    async fn of(client: &mut Client, symbol: &str) -> Result<Self> {
        let instrument = look::listed(client, symbol).await?;
        let request = client.request(QuotesRequest { symbols: vec![symbol.to_owned()] });
        let quote = client.terminal.quotes(request).await?.into_inner().quotes.pop().unwrap_or_default();
        let request = client.request(Empty {});
        let accounts = client.terminal.accounts(request).await?.into_inner().accounts;
        let request = client.request(Empty {});
        let holdings = client.terminal.positions(request).await?.into_inner().holdings;
        Ok(Self { instrument, quote, accounts, holdings })
    }

    /// The account that the order names, else the one that it goes to without a name.
    fn account(&self, id: &str) -> Result<&Account> {
        let named = self.accounts.iter().filter(|a| id.is_empty() || a.id == id);
        default_account(named, &self.instrument.currency).ok_or_else(|| {
            Error::new(Exit::Precondition, "there is no such open investment account of yours")
                .code(Reason::NO_INVESTMENT_ACCOUNT)
        })
    }

    /// Judges an order; one that sells what is bought first needs no shares yet.
    fn judge(&self, request: &PlaceOrderRequest, follows: bool) -> Result<Preview> {
        let asked = NewOrder::parse(request).and_then(|o| o.in_time(Clock::wall().now_us()).map(|()| o));
        let order = asked.map_err(refused)?;
        let symbol = order.symbol.as_str();
        let listing = Listing {
            tick_e4: self.instrument.tick_e4.max(1),
            lot_e4: self.instrument.lot_e4.max(1),
            state: self.quote.state().known().unwrap_or(order::TradingState::Open),
        };
        let reference = [self.quote.price_e4, self.instrument.previous_close_e4].into_iter().find(|p| *p > 0);
        let quantity_e4 = match order.notional_micros {
            0 => order.quantity_e4,
            worth => check::quantity_of(order.side, order.terms, worth, &listing, reference)
                .map_err(|v| broken(v, symbol))?,
        };
        let judged = check::Order {
            side: order.side,
            terms: order.terms,
            time_in_force: order.time_in_force,
            quantity_e4,
            display_e4: order.display_e4,
        };
        let priced = check::order(&judged, &listing, reference).map_err(|v| broken(v, symbol))?;
        let account = self.account(&request.account_id)?;
        let is_buy = order.side == order::Side::Buy;
        let (needs, has) = if is_buy {
            let needs = notional_micros(priced.cap_e4, quantity_e4);
            let converts = account.currency != self.instrument.currency;
            (needs.filter(|_| !converts), Some(account.available_micros).filter(|_| !converts))
        } else {
            let held = |h: &&Holding| h.account_id == account.id && h.symbol == symbol;
            (Some(quantity_e4), Some(self.holdings.iter().find(held).map_or(0, |h| h.available_e4)))
        };
        let (needs, has) = if follows { (None, None) } else { (needs, has) };
        if let (Some(needs), Some(has)) = (needs, has)
            && needs > has
        {
            return Err(short(is_buy, needs, has, &self.instrument));
        }
        // What waits for its stop takes nothing yet.
        let takes_at_once = priced.stop_e4 == 0
            && listing.state == order::TradingState::Open
            && if is_buy {
                self.quote.ask_e4 > 0 && priced.cap_e4 >= self.quote.ask_e4
            } else {
                self.quote.bid_e4 > 0 && priced.cap_e4 <= self.quote.bid_e4
            };
        if takes_at_once && order.post_only {
            return Err(Error::new(Exit::Precondition, "the order would trade at once, and is post-only")
                .code(Reason::POST_ONLY_WOULD_CROSS));
        }
        let (cap_e4, stop_e4) = (priced.cap_e4, priced.stop_e4);
        Ok(Preview { order, quantity_e4, cap_e4, stop_e4, needs, has, takes_at_once })
    }
}

fn short(is_buy: bool, needs: i64, has: i64, instrument: &Instrument) -> Error {
    let text = if is_buy {
        let (needs, has) = (format_micros(needs), format_micros(has));
        format!("not enough cash: needs {needs} {}, available {has}", instrument.currency)
    } else {
        let (needs, has) = (format_e4(needs), format_e4(has));
        format!("not enough shares: needs {needs} {}, available {has}", instrument.symbol)
    };
    let code = if is_buy { Reason::INSUFFICIENT_FUNDS } else { Reason::INSUFFICIENT_SHARES };
    Error::new(Exit::Precondition, text).code(code)
}

impl Preview {
    fn document(&self) -> Value {
        let is_buy = self.order.side == order::Side::Buy;
        let amount = |value: i64| if is_buy { format_micros(value) } else { format_e4(value) };
        json!({
            "symbol": self.order.symbol.as_str(), "side": self.order.side.name(),
            "type": self.order.terms.order_type().name(), "timeInForce": self.order.time_in_force.name(),
            "quantity": format_e4(self.quantity_e4), "worstPrice": format_e4(self.cap_e4),
            "stopPrice": format_e4(self.stop_e4), "takesAtOnce": self.takes_at_once,
            "holds": if is_buy { "cash" } else { "shares" },
            "needs": self.needs.map(amount), "available": self.has.map(amount),
        })
    }

    fn row(&self) -> Vec<String> {
        let is_buy = self.order.side == order::Side::Buy;
        let amount = |value: Option<i64>| {
            value.map_or_else(String::new, |v| if is_buy { format_micros(v) } else { format_e4(v) })
        };
        let stop = if self.stop_e4 > 0 { format_price(self.stop_e4) } else { String::new() };
        vec![
            self.order.symbol.to_string(),
            self.order.side.name().to_owned(),
            self.order.terms.order_type().name().to_owned(),
            self.order.time_in_force.name().to_owned(),
            format_e4(self.quantity_e4),
            format_price(self.cap_e4),
            stop,
            amount(self.needs),
            amount(self.has),
            if self.takes_at_once { "takes at once" } else { "rests" }.to_owned(),
        ]
    }
}

fn print(previews: &[Preview], out: Out) {
    let documents: Vec<Value> = previews.iter().map(Preview::document).collect();
    out.data(&json!({"dryRun": true, "orders": documents}), || {
        let rows: Vec<_> = previews.iter().map(Preview::row).collect();
        let heads = [
            "SYMBOL",
            "SIDE",
            "TYPE",
            "TIF",
            ">QUANTITY",
            ">WORST",
            ">STOP",
            ">NEEDS",
            ">AVAILABLE",
            "WOULD",
        ];
        format!("{}nothing was sent\n", table(&heads, &rows))
    });
}

fn symbol_of(request: &PlaceOrderRequest) -> PlaceOrderRequest {
    PlaceOrderRequest { symbol: request.symbol.trim().to_uppercase(), ..request.clone() }
}

/// One order.
pub async fn place(client: &mut Client, request: &PlaceOrderRequest, out: Out) -> Result {
    let request = symbol_of(request);
    let known = Known::of(client, &request.symbol).await?;
    print(&[known.judge(&request, false)?], out);
    Ok(())
}

/// An entry with its exits, which sell what it buys; or exits alone, which sell the same shares once.
pub async fn group(client: &mut Client, request: &PlaceGroupRequest, out: Out) -> Result {
    let orders: Vec<PlaceOrderRequest> = request.orders.iter().map(symbol_of).collect();
    let Some(first) = orders.first() else { return Err(Error::usage("a group has orders")) };
    let known = Known::of(client, &first.symbol).await?;
    let previews: Result<Vec<Preview>> =
        orders.iter().enumerate().map(|(at, order)| known.judge(order, at > 0)).collect();
    print(&previews?, out);
    Ok(())
}

/// A change of an order that stands: what it holds already is not asked for again.
pub async fn replace(client: &mut Client, changed: &PlaceOrderRequest, out: Out) -> Result {
    let known = Known::of(client, &changed.symbol).await?;
    print(&[known.judge(changed, true)?], out);
    Ok(())
}

/// What a flatten would cancel and sell.
pub async fn flatten(client: &mut Client, symbol: &str, account_id: &str, out: Out) -> Result {
    let known = Known::of(client, symbol).await?;
    let account = known.account(account_id)?.id.clone();
    let request = client.request(fafnir_proto::v1::ListOrdersRequest {
        open_only: true,
        symbol: symbol.to_owned(),
        account_id: account.clone(),
        limit: 1,
        with_count: true,
        ..Default::default()
    });
    let open = client.terminal.orders(request).await?.into_inner().count;
    let held = known.holdings.iter().find(|h| h.account_id == account && h.symbol == symbol);
    let sells = format_e4(held.map_or(0, |h| h.quantity_e4));
    let bid = format_price(known.quote.bid_e4);
    let document = json!({"dryRun": true, "symbol": symbol, "accountId": account, "cancels": open, "sells": sells, "bestBid": bid});
    out.data(&document, || {
        format!(
            "{open} orders would be canceled and {sells} {symbol} sold at market (best bid {bid})\nnothing was sent\n"
        )
    });
    Ok(())
}
