//! The rows of an answer, however many: others have their turn between them.
//!
//! async-graphql resolves all objects of a list in one go. A thousand candles with six fields are 6,000 futures and some
//! 10 ms in which nobody else on that thread is served, so a caller that pays for long lists would still make others wait
//! (`tests/attacks/doors.py`, `long_lists`).

use async_graphql::{
    ContextSelectionSet, OutputType, Positioned, ServerResult, Value, parser::types::Field,
    registry::Registry,
};
use std::{borrow::Cow, ops::Deref};

/// Rows that become values before others have their turn: a tenth of a millisecond or two.
const TURN: usize = 16;

/// Rows in their order, a list to the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows<T>(Vec<T>);

impl<T> Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for Rows<T> {
    fn from(rows: Vec<T>) -> Self {
        Self(rows)
    }
}

impl<T> FromIterator<T> for Rows<T> {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl<T: OutputType> OutputType for Rows<T> {
    fn type_name() -> Cow<'static, str> {
        <Vec<T> as OutputType>::type_name()
    }

    fn qualified_type_name() -> String {
        <Vec<T> as OutputType>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Vec<T> as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let mut values = Vec::with_capacity(self.0.len());
        for (at, row) in self.0.iter().enumerate() {
            let ctx = ctx.with_index(at);
            values.push(row.resolve(&ctx, field).await.map_err(|error| ctx.set_error_path(error))?);
            if values.len().is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
        }
        Ok(Value::List(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::{EmptyMutation, EmptySubscription, Error, Object, Schema};
    use futures::FutureExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Says how many of its kind were asked.
    struct Row(usize);

    static ASKED: AtomicUsize = AtomicUsize::new(0);

    #[Object]
    impl Row {
        async fn number(&self) -> usize {
            ASKED.fetch_add(1, Ordering::Relaxed);
            self.0
        }
        async fn small(&self) -> Result<usize, Error> {
            let small = (self.0 < 2).then_some(self.0);
            std::future::ready(small.ok_or_else(|| "too large".into())).await
        }
    }

    struct Query;

    #[Object]
    impl Query {
        async fn rows(&self) -> Rows<Row> {
            (0..100).map(Row).collect()
        }
        async fn list(&self) -> Vec<Row> {
            (0..100).map(Row).collect()
        }
    }

    #[tokio::test]
    async fn a_long_list_is_the_same_and_gives_others_their_turn() {
        let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
        let mut turns = vec![];
        let mut execution = Box::pin(schema.execute("{ rows { number } }"));
        let rows = loop {
            match execution.as_mut().now_or_never() {
                Some(response) => break response,
                None => turns.push(ASKED.swap(0, Ordering::Relaxed)),
            }
            // The runtime wakes who has given way.
            tokio::task::yield_now().await;
        };
        turns.retain(|asked| *asked > 0);
        assert_eq!(turns, vec![TURN; 100 / TURN]);
        let list = schema.execute("{ rows: list { number } }").await;
        assert_eq!(rows.into_result().unwrap().data, list.into_result().unwrap().data);
    }

    #[tokio::test]
    async fn a_row_that_fails_says_where_it_stands() {
        let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
        let (rows, list) =
            tokio::join!(schema.execute("{ rows { small } }"), schema.execute("{ rows: list { small } }"));
        let errors = |response: async_graphql::Response| -> Vec<_> {
            response.errors.into_iter().map(|e| (e.message, e.path)).collect()
        };
        let (rows, list) = (errors(rows), errors(list));
        assert_eq!(rows, list);
        assert_eq!(serde_json::to_string(&rows[0].1).unwrap(), r#"["rows",2,"small"]"#);
        assert!(schema.sdl().contains("rows: [Row!]!"), "{}", schema.sdl());
    }
}
