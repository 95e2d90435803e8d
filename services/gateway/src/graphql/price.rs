//! What a request asks for, in rows: what a user's queries cost a second is bounded by it (`gateway.cost_per_second`).
//!
//! The walk over the document ([`super::cost`]) sees fields; a list of a thousand rows costs as much as a thousand
//! fields, and its length stands in an argument, perhaps in a variable. Cancelling and every other mutation is free:
//! orders have a bound of their own.

use async_graphql::{
    Name, Value, Variables,
    parser::types::{ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet},
};

/// A root field without a list: a call to a service.
const CALL: u64 = 1;
/// Rows of a page that does not say how many.
const PAGE: u64 = 500;
/// A statement, a performance or a period's gains are made from many reads.
pub const REPORT: u64 = 250;
/// A report is a performance, gains and lines.
pub const WHOLE_REPORT: u64 = 3 * REPORT;
/// A stream of a symbol or of own updates, when it is opened.
const STREAM: u64 = 20;
/// Trading days of a year, rounded up.
const YEAR: u64 = 253;
/// Years that a listing's history has at most here.
const HISTORY_YEARS: u64 = 10;

/// The rows of a history by its period, any case.
pub fn rows_of_period(period: &str) -> u64 {
    match period.trim().to_ascii_uppercase().as_str() {
        "1D" => 1,
        "1W" => 5,
        "" | "1M" => 23,
        "3M" => 66,
        "6M" => YEAR / 2 + 1,
        "1Y" => YEAR,
        "2Y" => 2 * YEAR,
        "5Y" => 5 * YEAR,
        _ => HISTORY_YEARS * YEAR,
    }
}

/// What an operation asks for with these variables. The document was found to be small before: each selection is
/// visited as often as it is executed.
pub fn of(document: &ExecutableDocument, operation: &OperationDefinition, variables: &Variables) -> u64 {
    let walk = Walk { document, operation, variables };
    match operation.ty {
        OperationType::Mutation => 0,
        OperationType::Query | OperationType::Subscription => walk.set(&operation.selection_set.node),
    }
}

struct Walk<'a> {
    document: &'a ExecutableDocument,
    operation: &'a OperationDefinition,
    variables: &'a Variables,
}

impl Walk<'_> {
    fn set(&self, set: &SelectionSet) -> u64 {
        let price = |selection: &Selection| match selection {
            Selection::Field(field) => self.field(&field.node),
            Selection::InlineFragment(fragment) => self.set(&fragment.node.selection_set.node),
            Selection::FragmentSpread(spread) => {
                let fragment = self.document.fragments.get(&spread.node.fragment_name.node);
                fragment.map_or(0, |fragment| self.set(&fragment.node.selection_set.node))
            }
        };
        set.items.iter().fold(0, |sum: u64, item| sum.saturating_add(price(&item.node)))
    }

    fn field(&self, field: &Field) -> u64 {
        if self.operation.ty == OperationType::Subscription {
            return STREAM.saturating_mul(self.length(field, "symbols").max(1));
        }
        let first = |otherwise| self.number(field, "first").unwrap_or(otherwise);
        let rows = match field.name.node.as_str() {
            "getOrders" | "getTransactions" | "candles" | "lots" | "orderHistory" => first(PAGE),
            "trades" | "users" | "auditLog" => first(100),
            "orderBook" => self.number(field, "depth").unwrap_or(10).saturating_mul(2),
            "searchStocks" => self.number(field, "limit").unwrap_or(8),
            "getStockQuoteBatch" => self.length(field, "symbols"),
            "getStockHistoricalData" => rows_of_period(&self.text(field, "period")),
            "statement" | "portfolioPerformance" | "realizedGains" => REPORT,
            "report" => WHOLE_REPORT,
            _ => 0,
        };
        rows.saturating_add(CALL)
    }

    /// An argument's value, through its variable and that one's default.
    fn value(&self, field: &Field, argument: &str) -> Option<Value> {
        let value = &field.get_argument(argument)?.node;
        let variable = |name: &Name| {
            let given = self.variables.get(name).cloned();
            let definitions = &self.operation.variable_definitions;
            let default = || {
                let definition = definitions.iter().find(|d| d.node.name.node == *name)?;
                definition.node.default_value.as_ref().map(|value| value.node.clone())
            };
            given.or_else(default).ok_or(())
        };
        value.clone().into_const_with(|name| variable(&name)).ok()
    }

    fn number(&self, field: &Field, argument: &str) -> Option<u64> {
        match self.value(field, argument)? {
            // What is negative or no whole number is refused later.
            Value::Number(number) => Some(number.as_u64().unwrap_or(0)),
            _ => None,
        }
    }

    fn length(&self, field: &Field, argument: &str) -> u64 {
        match self.value(field, argument) {
            Some(Value::List(items)) => items.len() as u64,
            _ => 0,
        }
    }

    fn text(&self, field: &Field, argument: &str) -> String {
        match self.value(field, argument) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::parser::parse_query;
    use serde_json::json;

    fn price(query: &str, variables: serde_json::Value) -> u64 {
        let document = parse_query(query).unwrap();
        let (_, operation) = document.operations.iter().next().unwrap();
        of(&document, &operation.node, &serde_json::from_value(variables).unwrap())
    }

    #[test]
    fn rows_have_a_price_wherever_their_number_stands() {
        let none = || json!({});
        assert_eq!(price("{ health }", none()), 1);
        assert_eq!(price("{ a: health b: health getWatchlist { code } }", none()), 3);
        assert_eq!(price(r#"{ candles(symbol: "A", first: 1000) { code } }"#, none()), 1001);
        assert_eq!(price(r#"{ candles(symbol: "A") { code } }"#, none()), 501);
        let variable = r#"query($n: Int = 7) { candles(symbol: "A", first: $n) { code } }"#;
        assert_eq!((price(variable, none()), price(variable, json!({"n": 900}))), (8, 901));
        let batch = "query($s: [String!]!) { getStockQuoteBatch(symbols: $s) { code } }";
        assert_eq!(price(batch, json!({"s": ["A", "B", "C"]})), 4);
        assert_eq!(price(r#"{ getStockQuoteBatch(symbols: ["A", "B"]) { code } }"#, none()), 3);
        let history =
            |period: &str| format!(r#"{{ getStockHistoricalData(symbol: "A"{period}) {{ code }} }}"#);
        assert_eq!(price(&history(""), none()), 24);
        assert_eq!(price(&history(r#", period: "max""#), none()), 2531);
        let spread = r#"{ ...f ...f } fragment f on Query { trades(symbol: "A") { code } ... { health } }"#;
        assert_eq!(price(spread, none()), 204);
        assert_eq!(price("mutation { cancelAllOrders { code } }", none()), 0);
        assert_eq!(price(r#"subscription { quoteUpdates(symbols: ["A", "B"]) { price } }"#, none()), 40);
    }

    #[test]
    fn the_dearest_document_costs_more_than_a_user_may_spend_at_once() {
        let history =
            |i| format!(r#"a{i}: getStockHistoricalData(symbol: "AAPL", period: "MAX") {{ code }}"#);
        let all: Vec<String> = (0..15).map(history).collect();
        assert!(price(&format!("{{ {} }}", all.join(" ")), json!({})) > 20_000);
        let silly = r#"{ candles(symbol: "A", first: 9999999999999999999) { code } }"#;
        assert!(price(silly, json!({})) > 20_000);
    }
}
