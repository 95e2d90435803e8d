//! Lists as connections: every list with `first` and `after` answers its rows as edges too, and says where the page begins
//! and ends, so that client libraries can page by themselves (GraphQL Cursor Connections Specification).

use super::{
    admin::{AuditLogConnection, AuditRow, User, UserConnection},
    orders::{OrderHistoryConnection, OrderStep},
    performance::{Lot, LotConnection},
    query::TradeConnection,
    rows::Rows,
    statement::{StatementConnection, StatementEntry},
    types::{GetTransactionsResponse, Order, Trade, Transaction},
};
use async_graphql::{ComplexObject, OutputType, SimpleObject};

/// Where a page of a list begins and ends.
#[derive(SimpleObject, Clone, Debug, Default, PartialEq, Eq)]
pub struct PageInfo {
    /// The cursor of the first edge; null where there is none.
    pub start_cursor: Option<String>,
    /// The cursor of the last edge: hand it back as `after` for the next page; null where there is none.
    pub end_cursor: Option<String>,
    /// There are more after it.
    pub has_next_page: bool,
    /// There are some before it.
    pub has_previous_page: bool,
}

/// A row of a list, and where it stands.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(
    concrete(name = "OrderEdge", params(Order)),
    concrete(name = "TransactionEdge", params(Transaction)),
    concrete(name = "TradeEdge", params(Trade)),
    concrete(name = "LotEdge", params(Lot)),
    concrete(name = "OrderStepEdge", params(OrderStep)),
    concrete(name = "StatementEntryEdge", params(StatementEntry)),
    concrete(name = "UserEdge", params(User)),
    concrete(name = "AuditRowEdge", params(AuditRow))
)]
pub struct Edge<T: OutputType> {
    /// Hand it back as `after` for what follows it.
    pub cursor: String,
    /// The row.
    pub node: T,
}

/// A page of a list.
trait Page {
    type Node: Clone + OutputType;

    /// Its rows; none where they were refused.
    fn rows(&self) -> &[Self::Node];
    /// Where a row stands.
    fn cursor(row: &Self::Node) -> String;
    /// There are rows after and before them.
    fn more(&self) -> (bool, bool);

    fn to_edges(&self) -> Rows<Edge<Self::Node>> {
        self.rows().iter().map(|row| Edge { cursor: Self::cursor(row), node: row.clone() }).collect()
    }

    fn to_page_info(&self) -> PageInfo {
        let (has_next_page, has_previous_page) = self.more();
        PageInfo {
            start_cursor: self.rows().first().map(Self::cursor),
            end_cursor: self.rows().last().map(Self::cursor),
            has_next_page,
            has_previous_page,
        }
    }
}

/// Makes a response a connection: `$list` are its rows, and `$has_more` says that there are more.
macro_rules! connection {
    ($response:ident of $node:ident, |$this:ident| $list:expr, $has_more:expr, |$row:ident| $cursor:expr) => {
        impl Page for $response {
            type Node = $node;

            fn rows(&self) -> &[$node] {
                let $this = self;
                $list
            }
            fn cursor($row: &$node) -> String {
                $cursor
            }
            fn more(&self) -> (bool, bool) {
                let $this = self;
                ($has_more, $this.has_before)
            }
        }

        #[ComplexObject]
        impl $response {
            /// The rows, each with its cursor; none where they were refused.
            async fn edges(&self) -> Rows<Edge<$node>> {
                self.to_edges()
            }
            /// Where the page begins and ends.
            async fn page_info(&self) -> PageInfo {
                self.to_page_info()
            }
        }
    };
}

connection!(UserConnection of User, |page| page.data.as_deref().unwrap_or_default(), page.has_more,
    |row| row.user_id.0.clone());
connection!(AuditLogConnection of AuditRow, |page| page.data.as_deref().unwrap_or_default(), page.has_more,
    |row| row.sequence.0.to_string());
connection!(TradeConnection of Trade, |page| page.data.as_deref().unwrap_or_default(), page.has_more,
    |row| row.trade_no.0.to_string());
connection!(GetTransactionsResponse of Transaction, |page| page.data.as_deref().unwrap_or_default(), page.has_more,
    |row| row.id.clone());
connection!(LotConnection of Lot, |page| page.data.as_ref().map_or(&[], |lots| &lots.lots),
    page.data.as_ref().is_some_and(|lots| lots.has_more), |row| row.id.clone());
connection!(OrderHistoryConnection of OrderStep, |page| page.data.as_ref().map_or(&[], |history| &history.steps),
    page.data.as_ref().is_some_and(|history| history.has_more), |row| row.sequence.0.to_string());
connection!(StatementConnection of StatementEntry, |page| page.data.as_ref().map_or(&[], |statement| &statement.entries),
    page.data.as_ref().is_some_and(|statement| statement.has_more), |row| row.transaction.id.clone());
