//! What a load asks for, and how each door is asked: GraphQL over HTTP, or the terminal's gRPC.

use super::{
    door::Outcome,
    line::{Bearer, Line},
    traffic::Listing,
};
use crate::{
    args::LoadDoor,
    client::{self, Gateway},
    output::Result,
};
use bytes::Bytes;
use fafnir_proto::{
    connection::Connection,
    reason::code_name,
    v1::{
        CancelAllRequest, CancelOrderRequest, Order, OrderState, OrderType, PlaceOrderRequest, QuotesRequest,
        ReplaceOrderRequest, Side, terminal_client::TerminalClient,
    },
};
use fafnir_rules::money::format_e4;
use serde_json::Value;
use std::time::Duration;
use tonic::{Code, Request, Status};

const CREATE: &str = "mutation($r:CreateOrderRequest!){op:createOrder(request:$r){code data{id status}}}";
const REPLACE: &str = "mutation($r:ReplaceOrderRequest!){op:replaceOrder(request:$r){code data{id}}}";
const CANCEL: &str = "mutation($o:String!){op:cancelOrder(orderId:$o){code data{id}}}";
const CANCEL_ALL: &str = "mutation{op:cancelAllOrders{code}}";
const QUOTE: &str = "query($s:String!){op:getStockQuote(symbol:$s){code data{symbol price asOf volume}}}";
/// Pause after "too many" over gRPC, which names none.
const SHED_PAUSE: Duration = Duration::from_secs(1);

/// One request.
#[derive(Debug, Clone, Copy)]
pub enum Ask<'a> {
    Quote(&'a Listing),
    /// A limit order to buy one lot at this price.
    Limit(&'a Listing, i64),
    /// A market order for one lot; whether it sells.
    Market(&'a Listing, bool),
    Replace(&'a str, i64),
    Cancel(&'a str),
    CancelAll,
}

/// A client's way to the platform.
#[derive(Debug)]
pub enum Way {
    Graphql(Box<Line>),
    Grpc(TerminalClient<Connection>),
}

impl Way {
    /// A way to the gateway at `http://host:port`; nothing is sent yet.
    pub fn new(door: LoadDoor, gateway: &Gateway) -> Result<Self> {
        Ok(match door {
            LoadDoor::Graphql => Self::Graphql(Box::new(Line::new(gateway))),
            LoadDoor::Grpc => Self::Grpc(client::Client::new(gateway)?.terminal),
        })
    }

    /// Sends one request: what became of it.
    pub async fn ask(&mut self, bearer: &Bearer, ask: Ask<'_>) -> Outcome {
        match self {
            Self::Graphql(line) => line.operate(bearer, ask.body()).await,
            Self::Grpc(terminal) => match ask.call(terminal, bearer).await {
                Ok(order) => done(order),
                Err(status) => outcome(&status),
            },
        }
    }
}

/// The order of an answer that has one; one that was rejected is a refusal, as over GraphQL.
fn done(order: Option<Order>) -> Outcome {
    match order {
        Some(order) if order.state() == OrderState::Rejected => {
            Outcome::Refused(code_name(Code::FailedPrecondition).to_owned())
        }
        Some(order) => Outcome::Done(Some(order.id)),
        None => Outcome::Done(None),
    }
}

fn outcome(status: &Status) -> Outcome {
    match status.code() {
        Code::ResourceExhausted => Outcome::Shed(SHED_PAUSE),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::PermissionDenied => Outcome::Refused(code_name(status.code()).to_owned()),
        _ => Outcome::Failed(status.message().to_owned()),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The body of a request; `query` holds nothing that JSON escapes, `variables` is JSON.
fn body(query: &str, variables: &str) -> Bytes {
    Bytes::from(format!(r#"{{"query":"{query}","variables":{variables}}}"#))
}

impl Ask<'_> {
    fn body(self) -> Bytes {
        match self {
            Self::Quote(listing) => body(QUOTE, &format!(r#"{{"s":{}}}"#, quoted(&listing.symbol))),
            Self::Limit(listing, price_e4) => {
                let (symbol, lot, price) =
                    (quoted(&listing.symbol), format_e4(listing.lot_e4), format_e4(price_e4));
                let order = format!(
                    r#"{{"symbol":{symbol},"side":"BUY","type":"LIMIT","quantity":{lot},"price":{price}}}"#
                );
                body(CREATE, &format!(r#"{{"r":{order}}}"#))
            }
            Self::Market(listing, sells) => {
                let (symbol, lot) = (quoted(&listing.symbol), format_e4(listing.lot_e4));
                let side = if sells { "SELL" } else { "BUY" };
                let order =
                    format!(r#"{{"symbol":{symbol},"side":"{side}","type":"MARKET","quantity":{lot}}}"#);
                body(CREATE, &format!(r#"{{"r":{order}}}"#))
            }
            Self::Replace(order, price_e4) => {
                let (order, price) = (quoted(order), format_e4(price_e4));
                body(REPLACE, &format!(r#"{{"r":{{"orderId":{order},"price":{price}}}}}"#))
            }
            Self::Cancel(order) => body(CANCEL, &format!(r#"{{"o":{}}}"#, quoted(order))),
            Self::CancelAll => body(CANCEL_ALL, "{}"),
        }
    }

    async fn call(
        self,
        terminal: &mut TerminalClient<Connection>,
        bearer: &Bearer,
    ) -> std::result::Result<Option<Order>, Status> {
        let place = |listing: &super::traffic::Listing| PlaceOrderRequest {
            symbol: listing.symbol.clone(),
            quantity_e4: listing.lot_e4,
            ..Default::default()
        };
        match self {
            Self::Quote(listing) => {
                let symbols = vec![listing.symbol.clone()];
                terminal.quotes(bearer.sign(QuotesRequest { symbols })).await?;
                Ok(None)
            }
            Self::Limit(listing, price_e4) => {
                let mut order = PlaceOrderRequest { price_e4, ..place(listing) };
                (order.side, order.r#type) = (Side::Buy.into(), OrderType::Limit.into());
                Ok(terminal.place(bearer.sign(order)).await?.into_inner().order)
            }
            Self::Market(listing, sells) => {
                let mut order = place(listing);
                let side = if sells { Side::Sell } else { Side::Buy };
                (order.side, order.r#type) = (side.into(), OrderType::Market.into());
                Ok(terminal.place(bearer.sign(order)).await?.into_inner().order)
            }
            Self::Replace(order, price_e4) => {
                let request =
                    ReplaceOrderRequest { order_id: order.to_owned(), price_e4, ..Default::default() };
                Ok(terminal.replace(bearer.sign(request)).await?.into_inner().order)
            }
            Self::Cancel(order) => {
                let request = CancelOrderRequest { order_id: order.to_owned(), ..Default::default() };
                Ok(terminal.cancel(bearer.sign(request)).await?.into_inner().order)
            }
            Self::CancelAll => {
                terminal.cancel_all(bearer.sign(CancelAllRequest::default())).await?;
                Ok(None)
            }
        }
    }
}

impl Bearer {
    fn sign<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(super::door::DEADLINE);
        // A token that is no metadata is refused by the gateway.
        if let Ok(value) = self.text().parse() {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_bodies_are_the_requests_in_json() {
        let read = |ask: Ask<'_>| serde_json::from_slice::<Value>(&ask.body()).unwrap();
        let listing = Listing::new("A\"B", 100, 10_000, 1_000_000);
        assert_eq!(read(Ask::Quote(&listing)), json!({"query": QUOTE, "variables": {"s": "A\"B"}}));
        let limit = json!({"symbol": "A\"B", "side": "BUY", "type": "LIMIT", "quantity": 1, "price": 12.34});
        assert_eq!(read(Ask::Limit(&listing, 123_400)), json!({"query": CREATE, "variables": {"r": limit}}));
        let market = json!({"symbol": "A\"B", "side": "SELL", "type": "MARKET", "quantity": 1});
        assert_eq!(read(Ask::Market(&listing, true)), json!({"query": CREATE, "variables": {"r": market}}));
        let replace = json!({"r": {"orderId": "7", "price": 0.5}});
        assert_eq!(read(Ask::Replace("7", 5_000)), json!({"query": REPLACE, "variables": replace}));
        assert_eq!(read(Ask::Cancel("7")), json!({"query": CANCEL, "variables": {"o": "7"}}));
        assert_eq!(read(Ask::CancelAll), json!({"query": CANCEL_ALL, "variables": {}}));
    }

    #[test]
    fn a_status_is_a_refusal_a_shed_request_or_a_failure() {
        assert_eq!(outcome(&Status::not_found("no")), Outcome::Refused("NOT_FOUND".into()));
        assert_eq!(outcome(&Status::resource_exhausted("slow")), Outcome::Shed(SHED_PAUSE));
        assert_eq!(outcome(&Status::unavailable("gone")), Outcome::Failed("gone".into()));
        let mut order = Order { id: "7".into(), ..Default::default() };
        assert_eq!(done(Some(order.clone())), Outcome::Done(Some("7".into())));
        order.set_state(OrderState::Rejected);
        assert_eq!(done(Some(order)), Outcome::Refused("FAILED_PRECONDITION".into()));
    }
}
