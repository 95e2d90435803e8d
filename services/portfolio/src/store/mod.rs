//! The tables of portfolio-service; the only SQL.
//!
//! Everything that moves money or shares goes through a [`Session`], which keeps what it touches in memory, checks it,
//! and writes it once at the end of the transaction.

mod accounts;
mod audit;
mod lists;
mod session;

pub use accounts::*;
pub use audit::*;
pub use lists::*;
pub use session::{Failure, HoldRow, Outcome, Session};

use fafnir_platform::{
    db::{Error, Migration, Tx, Value},
    migration,
};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001_init")];

/// Rows of one `INSERT`, largest first: few texts, so that prepared statements are found again.
const CHUNKS: [usize; 3] = [16, 4, 1];

/// Inserts rows of `columns` values each, many per statement.
fn insert_many(
    tx: &mut dyn Tx,
    head: &str,
    columns: usize,
    tail: &str,
    values: &[Value],
) -> Result<(), Error> {
    let mut rest = values;
    for chunk in CHUNKS {
        while rest.len() >= chunk * columns {
            let (now, later) = rest.split_at(chunk * columns);
            let mut sql = String::with_capacity(head.len() + tail.len() + chunk * columns * 5);
            sql.push_str(head);
            for row in 0..chunk {
                sql.push_str(if row == 0 { " (" } else { ", (" });
                for column in 0..columns {
                    if column > 0 {
                        sql.push_str(", ");
                    }
                    sql.push('?');
                    sql.push_str(&(row * columns + column + 1).to_string());
                }
                sql.push(')');
            }
            sql.push_str(tail);
            tx.execute(&sql, now)?;
            rest = later;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{
        domain::{Currency, hold::Side},
        testing::{DOLLAR, Ledger, SHARE, SYMBOL, USD, trade},
    };
    use fafnir_platform::agents::agent_id;
    use fafnir_proto::v1::ExecutionBatch;
    use futures::future::try_join_all;
    use std::time::Instant;

    const TRADES: usize = 2_000;
    const PER_TRANSACTION: usize = 128;
    /// 3 trades a second for a day within 200 MB are 771 bytes; half of it leaves room for busier days.
    const BYTES_PER_TRADE_MAX: i64 = 385;

    async fn bytes(ledger: &Ledger) -> i64 {
        ledger
            .read(|tx| {
                let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
                Ok(tx.query_one(sql, &[])?.get(0)?)
            })
            .await
    }

    /// Prints what a trade costs; only its bytes are asserted, times are for people.
    #[tokio::test]
    async fn a_day_of_the_default_market_fits_into_the_ledgers_budget() {
        let ledger = Ledger::new(0, 0).await;
        let mut accounts = Vec::new();
        for agent in 0..20 {
            accounts.push(
                ledger.account_of(agent_id(agent), Currency::Usd, 1_000_000 * USD, 10_000 * SHARE).await,
            );
        }
        let mut first = Vec::new();
        for _ in 0..200 {
            let started = Instant::now();
            ledger.hold(&accounts[0], Side::Buy, SHARE, DOLLAR).await.unwrap();
            first.push(started.elapsed());
        }
        first.sort();
        let (mut buys, mut sells) = (Vec::new(), Vec::new());
        for start in (0..TRADES).step_by(PER_TRANSACTION) {
            let some = start..(start + PER_TRANSACTION).min(TRADES);
            let asked = some.clone().map(|i| ledger.hold(&accounts[i % 20], Side::Buy, SHARE, 10 * DOLLAR));
            buys.extend(try_join_all(asked).await.unwrap());
            let asked = some.map(|i| ledger.hold(&accounts[(i + 7) % 20], Side::Sell, SHARE, 0));
            sells.extend(try_join_all(asked).await.unwrap());
        }
        let facts: Vec<_> = buys
            .iter()
            .zip(&sells)
            .enumerate()
            .map(|(i, (buy, sell))| {
                let seq = i as u64 + 1;
                let execution = trade(seq, Side::Buy, (*buy, 0), (*sell, 0), SHARE, 10 * DOLLAR);
                ExecutionBatch { symbol: SYMBOL.into(), executions: vec![execution] }
            })
            .collect();
        let before = bytes(&ledger).await;
        let started = Instant::now();
        for batches in facts.chunks(PER_TRANSACTION) {
            let report = ledger.batches(batches.to_vec()).await;
            assert_eq!(report.alarms, []);
        }
        let took = started.elapsed();
        let per_trade = (bytes(&ledger).await - before) / TRADES as i64;
        eprintln!(
            "{per_trade} bytes of ledger per trade; {:.0} trades/s settled; a hold alone {:?} (median)",
            TRADES as f64 / took.as_secs_f64(),
            first[first.len() / 2],
        );
        assert!(per_trade <= BYTES_PER_TRADE_MAX, "{per_trade} bytes");
        ledger.check("after").await;
    }
}
