//! Whole databases: a consistent copy of a file that is in use, and every row from one back end to another.

use super::{Db, Error, Migration, Row, Tx, Value, many, sqlite};
use crate::{error, params};
use std::path::Path;
use tokio::sync::mpsc;

/// Rows read and written at a time.
const ROWS: u32 = 1_000;
/// Pages that wait to be written.
const QUEUE_LEN: usize = 4;

/// A table as its migrations define it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
    /// Places of the columns of its primary key.
    pub key: Vec<usize>,
    /// The back end numbers its rows where nobody else does.
    pub is_numbered: bool,
}

/// Copies a database file, also one that is in use, as it is at one moment; what is copied is looked through.
///
/// # Errors
/// It cannot be read or written, or it is damaged.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    sqlite::copy_file(from, to)?;
    sqlite::quick_check(to).map_err(|e| Error::Unusable(format!("{}: {e}", to.display())))
}

enum Part {
    /// What came before is void: the reading begins again.
    Begin,
    Rows(usize, Vec<Row>),
}

/// Makes a database equal to another one of the same migrations, which is read at one moment. Answers how many rows.
///
/// # Errors
/// One of the two fails; the one that was written to is then not to be used.
pub async fn copy_rows(from: &Db, to: &Db, migrations: &'static [Migration]) -> error::Result<u64> {
    let tables = sqlite::tables(migrations)?;
    let (parts, mut arriving) = mpsc::channel(QUEUE_LEN);
    let read = {
        let tables = tables.clone();
        from.read(move |tx| read_all(tx, &tables, &parts))
    };
    let written_to = tables.clone();
    // Owns the receiving end: a reader whose pages nobody takes any more ends.
    let write = async move {
        let mut rows_all = 0;
        while let Some(part) = arriving.recv().await {
            match part {
                Part::Begin => {
                    let tables = written_to.clone();
                    to.write_anyway(move |tx| clear(tx, &tables)).await?;
                    rows_all = 0;
                }
                Part::Rows(at, rows) => {
                    rows_all += rows.len() as u64;
                    let table = written_to[at].clone();
                    let values: Vec<Value> = rows.into_iter().flat_map(|row| row.0).collect();
                    to.write_anyway(move |tx| put(tx, &table, &values)).await?;
                }
            }
        }
        Ok::<_, error::Error>(rows_all)
    };
    let (read, written) = tokio::join!(read, write);
    read?;
    let written = written?;
    if to.commits().is_none() {
        to.write_anyway(move |tx| number(tx, &tables)).await?;
    }
    Ok(written)
}

fn read_all(tx: &mut dyn Tx, tables: &[Table], parts: &mpsc::Sender<Part>) -> error::Result<()> {
    let gone = |_| error::Error::unavailable("the copy cannot be written");
    parts.blocking_send(Part::Begin).map_err(gone)?;
    for (at, table) in tables.iter().enumerate() {
        let key: Vec<&str> = table.key.iter().map(|k| table.columns[*k].as_str()).collect();
        let (columns, key) = (table.columns.join(", "), key.join(", "));
        let marks = (1..=table.key.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        let mut after: Vec<Value> = Vec::new();
        loop {
            let behind = if after.is_empty() { String::new() } else { format!("WHERE ({key}) > ({marks})") };
            let name = &table.name;
            let sql = format!("SELECT {columns} FROM {name} {behind} ORDER BY {key} LIMIT {ROWS}");
            let rows = tx.query(&sql, &after)?;
            let Some(last) = rows.last() else { break };
            after = table.key.iter().map(|k| last.0[*k].clone()).collect();
            let is_full = rows.len() == ROWS as usize;
            parts.blocking_send(Part::Rows(at, rows)).map_err(gone)?;
            if !is_full {
                break;
            }
        }
    }
    Ok(())
}

/// Rows that the migrations make go too: the other database has them as they became.
fn clear(tx: &mut dyn Tx, tables: &[Table]) -> error::Result<()> {
    for table in tables.iter().rev() {
        tx.execute(&format!("DELETE FROM {}", table.name), &[])?;
    }
    Ok(())
}

fn put(tx: &mut dyn Tx, table: &Table, values: &[Value]) -> error::Result<()> {
    let head = format!("INSERT INTO {} ({})", table.name, table.columns.join(", "));
    many::insert(tx, &head, table.columns.len(), "", values)?;
    Ok(())
}

/// A server goes on numbering behind the rows that are there.
fn number(tx: &mut dyn Tx, tables: &[Table]) -> error::Result<()> {
    for table in tables.iter().filter(|t| t.is_numbered) {
        let (name, key) = (&table.name, &table.columns[table.key[0]]);
        let next = tx.query_one(&format!("SELECT COALESCE(MAX({key}), 0) + 1 FROM {name}"), &[])?;
        let next: i64 = next.get(0)?;
        let sql = format!("SELECT setval(pg_get_serial_sequence('{name}', '{key}'), ?1, false)");
        tx.query(&sql, params![next.max(1)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, tasks::Tasks};
    use tokio_util::sync::CancellationToken;

    const MIGRATIONS: &[Migration] = &[Migration {
        name: "0001_init",
        sql: "CREATE TABLE a (\n  id INTEGER PRIMARY KEY,\n  t TEXT NOT NULL,\n  b BLOB\n) STRICT;\n\
              CREATE TABLE pair (\n  x TEXT NOT NULL,\n  y INTEGER NOT NULL,\n  z INTEGER NOT NULL,\n  \
              PRIMARY KEY (x, y)\n) STRICT;\nINSERT INTO pair (x, y, z) VALUES ('first', 1, 1);\n",
    }];

    async fn rows(db: &Db) -> Vec<Row> {
        db.read(|tx| {
            let mut all = tx.query("SELECT id, t, b FROM a ORDER BY id", &[])?;
            all.extend(tx.query("SELECT x, y, z FROM pair ORDER BY x, y", &[])?);
            Ok(all)
        })
        .await
        .unwrap()
    }

    async fn filled(dir: &Path, tasks: &Tasks) -> Db {
        let path = dir.join("from.sqlite");
        let db = Db::open_sqlite(path, "test", MIGRATIONS, tasks, &Clock::wall()).await.unwrap();
        db.write(|tx| {
            for n in 0..2_500_i64 {
                let blob = (n % 3 > 0).then(|| vec![u8::try_from(n % 251).unwrap_or(0); 3]);
                tx.execute(
                    "INSERT INTO a (id, t, b) VALUES (?1, ?2, ?3)",
                    params![n * 2, format!("t{n}"), blob],
                )?;
                tx.execute(
                    "INSERT INTO pair (x, y, z) VALUES (?1, ?2, ?3)",
                    params![format!("x{}", n / 7), n, -n],
                )?;
            }
            tx.execute("DELETE FROM pair WHERE x = 'first'", &[])?;
            Ok(())
        })
        .await
        .unwrap();
        db
    }

    #[test]
    fn a_table_is_what_its_migrations_make_of_it() {
        let tables = sqlite::tables(MIGRATIONS).unwrap();
        let text = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let a = Table { name: "a".into(), columns: text(&["id", "t", "b"]), key: vec![0], is_numbered: true };
        let pair = Table {
            name: "pair".into(),
            columns: text(&["x", "y", "z"]),
            key: vec![0, 1],
            is_numbered: false,
        };
        assert_eq!(tables, [a, pair]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_in_use_is_copied_as_it_is_and_its_rows_go_to_a_server_and_back() {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new(CancellationToken::new()));
        let from = filled(dir.path(), &tasks).await;
        let all = rows(&from).await;
        assert_eq!(all.len(), 5_000);
        let copy = dir.path().join("copy.sqlite");
        copy_file(&dir.path().join("from.sqlite"), &copy).unwrap();
        let copied = Db::open_sqlite(copy, "test", MIGRATIONS, &tasks, &Clock::wall()).await.unwrap();
        assert_eq!(rows(&copied).await, all);
        let Some(url) = fafnir_testing::external("FAFNIR_TEST_POSTGRES_URL") else { return };
        let prefix = format!("test_{}_", uuid::Uuid::new_v4().simple());
        let server =
            Db::open_postgres(&url, &format!("{prefix}a_db"), MIGRATIONS, &Clock::wall()).await.unwrap();
        assert_eq!(copy_rows(&from, &server, MIGRATIONS).await.unwrap(), 5_000);
        assert_eq!(rows(&server).await, all);
        // The server numbers behind them.
        server.write(|tx| Ok(tx.execute("INSERT INTO a (t) VALUES ('next')", &[])?)).await.unwrap();
        let next =
            server.read(|tx| Ok(tx.query_one("SELECT MAX(id) FROM a", &[])?.get::<i64>(0)?)).await.unwrap();
        assert_eq!(next, 4_999);
        let path = dir.path().join("back.sqlite");
        let back = Db::open_sqlite(path, "test", MIGRATIONS, &tasks, &Clock::wall()).await.unwrap();
        assert_eq!(copy_rows(&server, &back, MIGRATIONS).await.unwrap(), 5_001);
        assert_eq!(rows(&back).await, rows(&server).await);
        drop(server);
        fafnir_testing::drop_databases(&url, &prefix).await;
    }
}
