//! A list of orders of any length: it stands as order-service's pages, encoded, and becomes text page by page; the objects
//! between the two exist one at a time.
//!
//! All lists of a gateway together take at most [`ROOM_BYTES_MAX`], until the text has left.

use super::{
    connection::Edge,
    enums::{self, GroupLeg, OrderState, PendingAction, Side, TimeInForce},
    error, json,
    scalars::{DateTime, Decimal, Uuid},
    types::{Fill, Order},
};
use async_graphql::{
    ContextSelectionSet, Error, OutputType, Positioned, SelectionField, ServerResult, Value,
    parser::types::Field, registry::Registry,
};
use axum::body::Bytes;
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, v1};
use prost::Message as _;
use std::{borrow::Cow, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// What all lists may take at a time, as pages and as text: some 500,000 orders with every field.
const ROOM_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Room is counted in pieces of this many bytes.
const PIECE_BYTES: usize = 1024;

/// The room for lists that a gateway has. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self::of(ROOM_BYTES_MAX)
    }
}

impl Room {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PIECE_BYTES)))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(pieces).map_err(|_| {
            let text = format!(
                "lists of orders take more than {} MiB at a time; ask for pages with `first`, or try again",
                ROOM_BYTES_MAX / 1024 / 1024
            );
            Refusal::exhausted(Reason::OVERLOADED, text)
        })
    }
}

/// What is asked of each row, in the order in which it was asked for; what was asked for in several places is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    key: String,
    field: String,
    below: Columns,
}

impl Columns {
    /// What is asked below a field.
    pub fn below(field: SelectionField<'_>) -> Self {
        let mut columns = Self::default();
        columns.add(field);
        columns
    }

    fn add(&mut self, field: SelectionField<'_>) {
        for field in field.selection_set() {
            let key = field.alias().unwrap_or(field.name());
            let at = self.0.iter().position(|column| column.key == key).unwrap_or(self.0.len());
            if at == self.0.len() {
                let (key, field) = (key.to_owned(), field.name().to_owned());
                self.0.push(Column { key, field, below: Self::default() });
            }
            self.0[at].below.add(field);
        }
    }

    fn of(&self, key: &str) -> Option<&Self> {
        self.0.iter().find(|column| column.key == key).map(|column| &column.below)
    }

    fn write<T: Row>(&self, row: &T, out: &mut String) {
        out.push('{');
        for (n, column) in self.0.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            // A name needs no escapes.
            out.push('"');
            out.push_str(&column.key);
            out.push_str("\":");
            row.write(&column.field, &column.below, out);
        }
        out.push('}');
    }
}

/// An object whose fields can be written by their names.
trait Row {
    fn write(&self, field: &str, below: &Columns, out: &mut String);
}

/// A value that can be written.
trait Cell {
    fn write(&self, below: &Columns, out: &mut String);
}

impl Cell for String {
    fn write(&self, _: &Columns, out: &mut String) {
        json::plain(out, self);
    }
}

impl<T: Cell> Cell for Option<T> {
    fn write(&self, below: &Columns, out: &mut String) {
        match self {
            Some(cell) => cell.write(below, out),
            None => out.push_str("null"),
        }
    }
}

impl Cell for DateTime {
    fn write(&self, _: &Columns, out: &mut String) {
        json::plain(out, &self.0);
    }
}

impl Cell for Uuid {
    fn write(&self, _: &Columns, out: &mut String) {
        json::plain(out, &self.0);
    }
}

macro_rules! word_cell {
    ($($type:ident),+) => {$(
        impl Cell for $type {
            fn write(&self, _: &Columns, out: &mut String) {
                json::plain(out, &enums::name(*self));
            }
        }
    )+};
}

word_cell!(Side, OrderState, PendingAction, TimeInForce, GroupLeg);

impl Cell for bool {
    fn write(&self, _: &Columns, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl Cell for u32 {
    fn write(&self, _: &Columns, out: &mut String) {
        json::plain(out, self);
    }
}

impl Cell for Decimal {
    fn write(&self, _: &Columns, out: &mut String) {
        out.push_str(&self.text());
    }
}

impl<T: Row> Cell for Vec<T> {
    fn write(&self, below: &Columns, out: &mut String) {
        out.push('[');
        for (n, row) in self.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            below.write(row, out);
        }
        out.push(']');
    }
}

macro_rules! row {
    ($type:ident { $($name:literal $field:ident,)* }) => {
        impl Row for $type {
            fn write(&self, field: &str, below: &Columns, out: &mut String) {
                match field {
                    $($name => Cell::write(&self.$field, below, out),)*
                    "__typename" => out.push_str(concat!("\"", stringify!($type), "\"")),
                    // The query was validated: a field that is not here is missing in the macro's list.
                    _ => {
                        debug_assert!(false, "{} has no cell {field}", stringify!($type));
                        out.push_str("null");
                    }
                }
            }
        }
    };
}

row!(Fill {
    "execId" exec_id,
    "orderId" order_id,
    "symbol" symbol,
    "side" side,
    "price" price,
    "quantity" quantity,
    "maker" maker,
    "time" time,
});
row!(Order {
    "id" id,
    "userId" user_id,
    "symbol" symbol,
    "side" side,
    "type" kind,
    "status" status,
    "quantity" quantity,
    "price" price,
    "stopPrice" stop_price,
    "filledQuantity" filled_quantity,
    "avgFillPrice" avg_fill_price,
    "createdAt" created_at,
    "updatedAt" updated_at,
    "state" state,
    "pending" pending,
    "accountId" account_id,
    "timeInForce" time_in_force,
    "clientOrderId" client_order_id,
    "rejectReason" reject_reason,
    "rejectCode" reject_code,
    "openQuantity" open_quantity,
    "fills" fills,
    "version" version,
    "postOnly" post_only,
    "displayQuantity" display_quantity,
    "trailAmount" trail_amount,
    "trailPercent" trail_percent,
    "expiresAt" expires_at,
    "currency" currency,
    "heldCash" held_cash,
    "heldQuantity" held_quantity,
    "groupId" group_id,
    "leg" leg,
});

type OrderEdge = Edge<Order>;

row!(OrderEdge {
    "cursor" cursor,
    "node" node,
});

impl Cell for Order {
    fn write(&self, below: &Columns, out: &mut String) {
        below.write(self, out);
    }
}

/// One page, encoded.
#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    len: usize,
    _taken: OwnedSemaphorePermit,
}

/// Text that gives its room back when it has left.
struct Text {
    text: String,
    _taken: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Orders in the order in which they were added.
#[derive(Debug)]
pub struct OrderList {
    pages: Vec<Page>,
    room: Room,
    /// What is asked of the payload that the list is in.
    payload: Columns,
}

impl OrderList {
    /// `payload`: what is asked below the field whose answer has the list.
    pub fn new(room: Room, payload: Columns) -> Self {
        Self { pages: Vec::new(), room, payload }
    }

    /// Adds a page.
    ///
    /// # Errors
    /// `OVERLOADED`: there is no room.
    pub fn add(&mut self, orders: Vec<v1::Order>) -> Result<(), Status> {
        let len = orders.len();
        let bytes = v1::ListOrdersReply { orders, ..Default::default() }.encode_to_vec();
        let taken = self.room.take(bytes.len())?;
        self.pages.push(Page { bytes, len, _taken: taken });
        Ok(())
    }

    /// How many orders there are.
    pub fn len(&self) -> usize {
        self.pages.iter().map(|page| page.len).sum()
    }

    /// A page as text, with commas between its rows; `likely_len` is how long it may be.
    fn text<T: Row>(
        &self,
        page: &Page,
        row: fn(Order) -> T,
        columns: &Columns,
        likely_len: usize,
    ) -> Result<Bytes, Error> {
        let reply = v1::ListOrdersReply::decode(&page.bytes[..]);
        let reply = reply.map_err(|e| error::of(Status::internal(format!("a page of orders: {e}"))))?;
        let mut text = String::with_capacity(likely_len);
        for order in reply.orders {
            if !text.is_empty() {
                text.push(',');
            }
            columns.write(&row(Order::from(order)), &mut text);
        }
        text.shrink_to_fit();
        let taken = self.room.take(text.len()).map_err(error::refused)?;
        Ok(Bytes::from_owner(Text { text, _taken: taken }))
    }

    /// The list as text, each order as the row that is asked for.
    async fn rows<T: Row>(
        &self,
        ctx: &ContextSelectionSet<'_>,
        field: &Positioned<Field>,
        row: fn(Order) -> T,
    ) -> ServerResult<Value> {
        let failed = |e: Error| ctx.set_error_path(e.into_server_error(field.pos));
        let Some(columns) = self.payload.of(&field.node.response_key().node) else {
            return Err(failed(error::of(Status::internal("a list that was not asked for"))));
        };
        let (mut items, mut likely_len) = (Vec::new(), 0);
        for page in self.pages.iter().filter(|page| page.len > 0) {
            let text = self.text(page, row, columns, likely_len).map_err(failed)?;
            likely_len = text.len();
            items.push(Value::Binary(text));
            // Others have their turn between the pages of a long list.
            tokio::task::yield_now().await;
        }
        Ok(Value::List(items))
    }
}

/// The same orders as edges.
#[derive(Debug)]
pub struct OrderEdges(pub Arc<OrderList>);

impl OutputType for OrderEdges {
    fn type_name() -> Cow<'static, str> {
        <Vec<OrderEdge> as OutputType>::type_name()
    }

    fn qualified_type_name() -> String {
        <Vec<OrderEdge> as OutputType>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Vec<OrderEdge> as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        self.0.rows(ctx, field, |node| Edge { cursor: node.id.clone(), node }).await
    }
}

impl OutputType for OrderList {
    fn type_name() -> Cow<'static, str> {
        <Vec<Order> as OutputType>::type_name()
    }

    fn qualified_type_name() -> String {
        <Vec<Order> as OutputType>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Vec<Order> as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        self.rows(ctx, field, |order| order).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::{Context, EmptyMutation, EmptySubscription, Object, Schema, SimpleObject};

    fn order(n: u32) -> v1::Order {
        let fill =
            v1::Fill { exec_id: format!("A:{n}"), quantity_e4: 10_000, maker: true, ..Default::default() };
        v1::Order {
            id: format!("\"{n}\" \n ü"),
            symbol: "AAPL".into(),
            quantity_e4: 15_000,
            filled_e4: 10_000,
            filled_notional_micros: 3_333_333,
            expires_us: i64::from(n),
            reject_code: if n == 1 { "X".into() } else { String::new() },
            post_only: n == 2,
            version: n,
            fills: vec![fill; n as usize],
            ..Default::default()
        }
    }

    #[derive(SimpleObject)]
    struct Payload {
        data: Arc<OrderList>,
        edges: OrderEdges,
        plain: Vec<Order>,
    }

    struct Query;

    #[Object]
    impl Query {
        async fn both(&self, ctx: &Context<'_>) -> Payload {
            let mut data = OrderList::new(Room::default(), Columns::below(ctx.field()));
            data.add(vec![order(1), order(2)]).unwrap();
            data.add(Vec::new()).unwrap();
            data.add(vec![order(3)]).unwrap();
            let data = Arc::new(data);
            Payload {
                edges: OrderEdges(Arc::clone(&data)),
                data,
                plain: (1..=3).map(|n| Order::from(order(n))).collect(),
            }
        }
    }

    async fn ask(query: &str) -> serde_json::Value {
        let response = Schema::new(Query, EmptyMutation, EmptySubscription).execute(query).await;
        let text = json::response(&response).text();
        let mut answer: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(answer.get("errors").is_none(), "{text}");
        answer["data"]["both"].take()
    }

    #[tokio::test]
    async fn a_list_says_of_every_field_what_an_object_says() {
        let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
        let fields = |name: &str| -> Vec<String> {
            let registry = schema.names();
            assert!(registry.contains(&name.to_owned()));
            let sdl = schema.sdl();
            let (_, body) = sdl.split_once(&format!("type {name} {{")).unwrap();
            let lines = body.split_once("\n}").unwrap().0.lines().map(str::trim);
            let names =
                lines.filter(|l| !l.starts_with('"') && l.contains(": ")).filter_map(|l| l.split_once(':'));
            names.map(|(name, _)| name.to_owned()).filter(|n| !n.contains(' ')).collect()
        };
        let fills = fields("Fill").join(" ");
        let orders = fields("Order").join(" ").replace("fills", &format!("fills {{ __typename {fills} }}"));
        assert!(orders.split_whitespace().count() > 40, "{orders}");
        let asked = format!("{{ __typename x: id {orders} }}");
        let edges = format!("edges {{ __typename at: cursor node {asked} }}");
        let both = ask(&format!("{{ both {{ data {asked} {edges} plain {asked} }} }}")).await;
        assert_eq!(both["data"], both["plain"]);
        let edge = |order: &serde_json::Value| serde_json::json!({"__typename": "OrderEdge", "at": order["id"], "node": order});
        let expected: Vec<_> = both["plain"].as_array().unwrap().iter().map(edge).collect();
        assert_eq!(both["edges"], serde_json::Value::from(expected));
        assert_eq!(
            (&both["data"][1]["avgFillPrice"], both["data"][2]["fills"].as_array().unwrap().len()),
            (&serde_json::json!(3.333_333), 3)
        );
    }

    #[tokio::test]
    async fn what_is_asked_for_in_two_places_is_one() {
        let query = "{ both { ...f data { symbol fills { maker } } a: data { version } } } \
                     fragment f on Payload { data { id fills { execId } } }";
        let both = ask(query).await;
        let first = serde_json::json!({"id": order(1).id, "symbol": "AAPL", "fills": [{"execId": "A:1", "maker": true}]});
        assert_eq!(both["data"][0], first);
        assert_eq!(both["a"], serde_json::json!([{"version": 1}, {"version": 2}, {"version": 3}]));
    }

    #[test]
    fn lists_have_room_until_their_pages_and_their_text_are_gone() {
        let room = Room::of(64 * PIECE_BYTES);
        let orders = |n: usize| vec![v1::Order { id: "x".repeat(1_000), ..Default::default() }; n];
        let id = Columns(vec![Column { key: "id".into(), field: "id".into(), below: Columns::default() }]);
        let mut list = OrderList::new(room.clone(), Columns::default());
        list.add(orders(30)).unwrap();
        let text = list.text(&list.pages[0], |order| order, &id, 0).unwrap();
        assert_eq!(std::str::from_utf8(&text).unwrap().matches('{').count(), 30);
        let refused = list.add(orders(10)).unwrap_err();
        assert_eq!((refused.code(), list.len()), (tonic::Code::ResourceExhausted, 30));
        assert!(list.text(&list.pages[0], |order| order, &id, 0).is_err());
        drop(text);
        list.add(orders(30)).unwrap();
        drop(list);
        assert_eq!(room.0.available_permits(), 64);
    }
}
