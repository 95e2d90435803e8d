//! A ledger on a file of its own, for tests: operations and facts in transactions, without a bus.

use super::{
    domain::{Account, Balance, Currency, Kind, hold::Side},
    operations::{self, Change, Endowment, NewHold, Rules},
    settlement::{self, Report},
    store::{self, MIGRATIONS, NewAccount, Session},
};
use fafnir_platform::{
    Clock,
    db::{Db, Tx},
    error::Result,
    tasks::Tasks,
};
use fafnir_proto::id::{AccountId, UserId};
use fafnir_proto::v1::{ExecKind, Execution, ExecutionBatch};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const NOW_US: i64 = 1_800_000_000_000_000;
pub const SYMBOL: &str = "AAPL";
/// One dollar, one share at e4, one dollar at e4.
pub const USD: i64 = 1_000_000;
pub const SHARE: i64 = 10_000;
pub const DOLLAR: i64 = 10_000;

pub struct Ledger {
    pub db: Db,
    pub rules: Rules,
    place: Place,
}

enum Place {
    File(#[expect(dead_code, reason = "kept as long as the file is used")] tempfile::TempDir),
    Server { url: String, prefix: String },
}

/// Databases of the services that a story runs.
const DATABASES: [&str; 5] = ["auth_db", "security_db", "user_db", "stock_db", "portfolio_db"];

/// A prefix for databases that no other test has.
pub fn database_prefix() -> String {
    format!("test_{}_", Uuid::new_v4().simple())
}

/// Drops what a test had on a Postgres server.
pub async fn databases_drop(url: &str, prefix: &str) {
    let config: tokio_postgres::Config = format!("{}/postgres", url.trim_end_matches('/')).parse().unwrap();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    for name in DATABASES {
        let drop = format!("DROP DATABASE IF EXISTS \"{prefix}{name}\" WITH (FORCE)");
        client.batch_execute(&drop).await.unwrap();
    }
    connection.abort();
}

impl Ledger {
    /// On SQLite, in a directory of its own.
    pub async fn new(maker_bp: u32, taker_bp: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let path = dir.path().join("portfolio.sqlite");
        let db = Db::open_sqlite(path, "portfolio-service", MIGRATIONS, &tasks, &clock()).await.unwrap();
        Self::over(db, Place::File(dir), maker_bp, taker_bp).await
    }

    /// On a Postgres server, in a database of its own; [`Self::remove`] drops it.
    pub async fn on_server(url: &str, maker_bp: u32, taker_bp: u32) -> Self {
        let (url, prefix) = (url.to_owned(), database_prefix());
        let name = format!("{prefix}portfolio_db");
        let db = Db::open_postgres(&url, &name, MIGRATIONS, &clock()).await.unwrap();
        Self::over(db, Place::Server { url, prefix }, maker_bp, taker_bp).await
    }

    async fn over(db: Db, place: Place, maker_bp: u32, taker_bp: u32) -> Self {
        let usd_cad = 1_370_001;
        let rate = db.write(move |tx| Ok(store::rate_ensure(tx, usd_cad, NOW_US)?)).await.unwrap();
        let rules = Rules { opening_micros: 0, maker_bp, taker_bp, usd_cad, rate };
        Self { db, rules, place }
    }

    /// Drops a database on a server; a directory goes by itself.
    pub async fn remove(self) {
        if let Place::Server { url, prefix } = self.place {
            databases_drop(&url, &prefix).await;
        }
    }

    pub async fn change<T, F>(&self, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Session<'_>) -> Result<T> + Send + 'static,
    {
        self.db
            .write(move |tx| {
                let mut s = Session::new(tx, NOW_US);
                let answer = work(&mut s)?;
                s.finish()?;
                Ok(answer)
            })
            .await
    }

    pub async fn read<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> Result<T> + Send + 'static,
    {
        self.db.read(work).await.unwrap()
    }

    /// An INVESTMENT account of a new user with cash (micros) and shares (e4) of [`SYMBOL`] at $10.
    pub async fn account(&self, currency: Currency, cash: i64, shares: i64) -> Account {
        self.account_of(UserId::new(Uuid::new_v4()), currency, cash, shares).await
    }

    pub async fn account_of(&self, user: UserId, currency: Currency, cash: i64, shares: i64) -> Account {
        let new = NewAccount { id: AccountId::new(Uuid::new_v4()), user, kind: Kind::Investment, currency };
        let rules = self.rules;
        self.change(move |s| {
            let account = operations::account_create(s, new, 0)?;
            let endowment = Endowment {
                account: account.id,
                symbol: SYMBOL.into(),
                quantity_e4: shares,
                cost_price_e4: 10 * DOLLAR,
                currency: String::new(),
                amount_micros: cash,
            };
            operations::endow(s, &rules, &endowment)?;
            Ok(account)
        })
        .await
        .unwrap()
    }

    /// Places the hold of a new order in USD; answers its id.
    pub async fn hold(&self, of: &Account, side: Side, quantity_e4: i64, price_e4: i64) -> Result<Uuid> {
        let order = Uuid::new_v4();
        self.hold_as(order, of, side, quantity_e4, price_e4).await.map(|_| order)
    }

    pub async fn hold_as(
        &self,
        order: Uuid,
        of: &Account,
        side: Side,
        quantity_e4: i64,
        price_e4: i64,
    ) -> Result<i64> {
        let new = NewHold {
            order,
            user: of.user,
            account: Some(of.id),
            symbol: SYMBOL.into(),
            side,
            quantity_e4,
            price_e4,
            listing: Currency::Usd,
        };
        let rules = self.rules;
        self.change(move |s| Ok(operations::hold_place(s, &rules, &new)?.0.held)).await
    }

    pub async fn adjust(&self, change: Change) -> Result<i64> {
        self.change(move |s| Ok(operations::hold_adjust(s, change)?.0.held)).await
    }

    /// Applies executions of [`SYMBOL`] as one batch each.
    pub async fn facts(&self, executions: &[Execution]) -> Report {
        let batches = executions
            .iter()
            .map(|e| ExecutionBatch { symbol: SYMBOL.into(), executions: vec![e.clone()] })
            .collect();
        self.batches(batches).await
    }

    pub async fn batches(&self, batches: Vec<ExecutionBatch>) -> Report {
        let batches = Arc::new(batches);
        self.db.write(move |tx| settlement::apply(tx, &batches, NOW_US)).await.unwrap()
    }

    pub async fn cash(&self, account: &Account) -> Balance {
        let account = account.clone();
        self.read(move |tx| Ok(store::cash(tx, &account)?)).await
    }

    pub async fn shares(&self, account: &Account) -> Balance {
        let account = account.clone();
        self.read(move |tx| {
            let mut found = store::holdings(tx, &account, Some(SYMBOL))?;
            Ok(found.pop().map(|(_, _, b)| b).unwrap_or_default())
        })
        .await
    }

    /// Asserts exchange-rules §6 on the whole ledger.
    pub async fn check(&self, context: &str) -> store::Audit {
        let audit = self.read(|tx| Ok(store::audit(tx, u32::MAX)?)).await;
        assert!(audit.sums.iter().all(|(_, sum)| *sum == 0), "{context}: {:?}", audit.sums);
        let wrong =
            (audit.unbalanced, audit.negative_available, audit.hold_mismatches, audit.balance_mismatches);
        assert_eq!(wrong, (0, 0, 0, 0), "{context}");
        audit
    }
}

fn clock() -> Clock {
    Clock::from_fn(|| NOW_US)
}

pub fn fact(seq: u64, kind: ExecKind, order: Uuid) -> Execution {
    Execution { seq, kind: kind.into(), order_id: order.to_string(), ..Execution::default() }
}

/// A trade between a taker and a maker with what is open of both afterwards.
pub fn trade(
    seq: u64,
    side: Side,
    (taker, taker_open): (Uuid, i64),
    (maker, maker_open): (Uuid, i64),
    quantity_e4: i64,
    price_e4: i64,
) -> Execution {
    Execution {
        side: side.number(),
        quantity_e4,
        price_e4,
        open_e4: taker_open,
        maker_order_id: maker.to_string(),
        maker_open_e4: maker_open,
        ..fact(seq, ExecKind::Trade, taker)
    }
}
