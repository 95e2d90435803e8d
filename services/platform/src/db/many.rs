//! Statements about many rows: one by one on SQLite, where each is prepared once, many in one on Postgres.

use super::{Error, Tx, Value};

/// Rows of one statement, largest first: few texts, so that prepared statements are found again.
const CHUNKS: [usize; 4] = [64, 16, 4, 1];

/// Runs statements that together carry every row of `columns` values; `sql` is the text for a number of rows. Answers
/// how many rows were changed.
pub fn execute(
    tx: &mut dyn Tx,
    columns: usize,
    values: &[Value],
    sql: impl Fn(usize) -> String,
) -> Result<u64, Error> {
    let (mut rest, mut changed) = (values, 0);
    let rows_max = tx.rows_per_statement();
    for rows in CHUNKS.into_iter().filter(|rows| *rows <= rows_max) {
        if rest.len() < rows * columns {
            continue;
        }
        let text = sql(rows);
        while rest.len() >= rows * columns {
            let (now, later) = rest.split_at(rows * columns);
            changed += tx.execute(&text, now)?;
            rest = later;
        }
    }
    Ok(changed)
}

/// Inserts rows: `head` up to the column list, `tail` after the values.
pub fn insert(
    tx: &mut dyn Tx,
    head: &str,
    columns: usize,
    tail: &str,
    values: &[Value],
) -> Result<u64, Error> {
    execute(tx, columns, values, |rows| format!("{head} VALUES {} {tail}", tuples(rows, columns)))
}

/// `(?1, ?2), (?3, ?4)`.
pub fn tuples(rows: usize, columns: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=columns {
            let comma = if column == 1 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{comma}?{}", row * columns + column);
        }
        text.push(')');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Row;

    #[derive(Default)]
    struct Recorder(usize, Vec<(String, usize)>);

    impl Tx for Recorder {
        fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
            self.1.push((sql.to_owned(), params.len()));
            Ok(params.len() as u64 / 2)
        }
        fn query(&mut self, _: &str, _: &[Value]) -> Result<Vec<Row>, Error> {
            Ok(Vec::new())
        }
        fn rows_per_statement(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn every_row_is_carried_once_in_few_texts() {
        for (rows_max, expected) in [(1, [0, 0, 0, 89]), (64, [1, 1, 2, 1])] {
            let mut tx = Recorder(rows_max, Vec::new());
            let values: Vec<Value> = (0..89 * 2).map(Value::from).collect();
            assert_eq!(insert(&mut tx, "INSERT INTO t (a, b)", 2, "", &values).unwrap(), 89);
            let counts = CHUNKS.map(|rows| tx.1.iter().filter(|(_, n)| *n == rows * 2).count());
            assert_eq!(counts, expected);
        }
        assert_eq!(tuples(2, 2), "(?1, ?2), (?3, ?4)");
    }
}
