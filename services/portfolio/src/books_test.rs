//! The books against hand-made facts.

use super::{
    audit,
    books::Books,
    store::{self, MIGRATIONS},
};
use fafnir_platform::{
    Clock,
    db::{Db, Row},
    facts::Projection as _,
    tasks::Tasks,
};
use fafnir_proto::v1::{
    Account, AccountType, AuditReply, Cause, Done, Fact, FactKind, Holding, House, PortfolioUpdate, Posting,
    PostingRole, RequestKey, Terms,
};
use fafnir_testing::{drop_databases, external};
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TIME_US: i64 = 1_800_000_000_000_000;
const USD: i64 = 1_000_000;
const SHARE: i64 = 10_000;

fn clock() -> Clock {
    Clock::from_fn(|| TIME_US)
}

pub(super) struct Shelf {
    pub(super) db: Db,
    books: Books,
    #[expect(dead_code, reason = "kept as long as the file is used")]
    dir: Option<tempfile::TempDir>,
}

impl Shelf {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let path = dir.path().join("portfolio.sqlite");
        let db = Db::open_sqlite(path, "portfolio-service", MIGRATIONS, &tasks, &clock()).await.unwrap();
        Self { books: Books::new(db.clone()), db, dir: Some(dir) }
    }

    pub(super) async fn on_server(url: &str, name: &str) -> Self {
        let db = Db::open_postgres(url, name, MIGRATIONS, &clock()).await.unwrap();
        Self { books: Books::new(db.clone()), db, dir: None }
    }

    /// Applies facts in batches of this many.
    pub(super) async fn apply(&self, facts: &[Fact], per_batch: usize) {
        for batch in facts.chunks(per_batch) {
            self.books.apply(batch[0].position - 1, batch.to_vec()).await.unwrap();
        }
    }

    async fn query(&self, sql: &'static str) -> Vec<Row> {
        self.db.read(move |tx| Ok(tx.query(sql, &[])?)).await.unwrap()
    }

    async fn execute(&self, sql: &'static str) {
        self.db.write(move |tx| Ok(tx.execute(sql, &[])?)).await.unwrap();
    }

    async fn audit(&self) -> AuditReply {
        audit::scan(&self.db).await.unwrap().0
    }

    pub(super) async fn check(&self) -> AuditReply {
        let audit = self.audit().await;
        assert_eq!(wrong(&audit), [0; 5], "{audit:?}");
        audit
    }

    /// Every row of the projection.
    async fn rows(&self) -> Vec<Vec<Row>> {
        let mut all = Vec::new();
        for sql in [
            "SELECT * FROM projection",
            "SELECT * FROM account ORDER BY key",
            "SELECT * FROM asset ORDER BY key",
            "SELECT * FROM balance ORDER BY account, asset",
            "SELECT * FROM house ORDER BY account, asset",
            "SELECT * FROM ledger ORDER BY id",
            "SELECT * FROM posting ORDER BY id",
            "SELECT * FROM minute ORDER BY minute",
            "SELECT * FROM price ORDER BY asset, minute",
            "SELECT * FROM listing ORDER BY asset",
            "SELECT * FROM flow ORDER BY account, id",
            "SELECT * FROM traded ORDER BY account, asset, day",
            "SELECT * FROM fx_rate ORDER BY id",
            "SELECT * FROM fee_schedule ORDER BY id",
            "SELECT * FROM idempotency ORDER BY owner, key",
            "SELECT * FROM private_update ORDER BY user_id, seq",
        ] {
            all.push(self.query(sql).await);
        }
        all
    }
}

/// Everything in an audit that must be 0; sums that are not are one.
fn wrong(a: &AuditReply) -> [u64; 5] {
    let sums = a.sums.iter().filter(|s| s.sum != 0).count() as u64;
    [sums, a.unbalanced_transactions, a.negative_available, a.balance_mismatches, a.chain_breaks]
}

#[derive(Clone, Copy, Default)]
pub(super) struct Shares {
    pub(super) posted: i64,
    pub(super) cost: i64,
    pub(super) realized: i64,
}

/// Plays the engine: keeps the balances that its facts tell.
#[derive(Default)]
pub(super) struct Engine {
    pub(super) facts: Vec<Fact>,
    pub(super) accounts: Vec<(Account, BTreeMap<String, Shares>)>,
    seqs: BTreeMap<String, u64>,
    pub(super) trades: u64,
    /// What its clock shows; 0: [`TIME_US`].
    pub(super) now_us: i64,
}

impl Engine {
    pub(super) fn emit(&mut self, fact: Fact) -> u64 {
        let position = self.facts.len() as u64 + 1;
        let now_us = if self.now_us == 0 { TIME_US } else { self.now_us };
        self.facts.push(Fact { position, time_us: now_us + position as i64, ..fact });
        position
    }

    pub(super) fn told(&mut self, at: usize, symbol: Option<&str>) -> PortfolioUpdate {
        let (account, holdings) = &mut self.accounts[at];
        account.updated_us = TIME_US + self.facts.len() as i64 + 1;
        account.available_micros = account.balance_micros - account.held_micros;
        let seq = self.seqs.entry(account.user_id.clone()).or_default();
        *seq += 1;
        let holding = symbol.map(|symbol| {
            let s = holdings[symbol];
            Holding {
                account_id: account.id.clone(),
                symbol: symbol.to_owned(),
                quantity_e4: s.posted,
                cost_micros: s.cost,
                realized_pnl_micros: s.realized,
                created_us: TIME_US,
                updated_us: account.updated_us,
                ..Holding::default()
            }
        });
        PortfolioUpdate {
            user_id: account.user_id.clone(),
            user_seq: *seq,
            account: Some(account.clone()),
            holding,
        }
    }

    pub(super) fn open(&mut self, user: &str, currency: &str) -> usize {
        let at = self.accounts.len();
        let account = Account {
            id: Uuid::from_u128(1_000 + at as u128).to_string(),
            user_id: user.to_owned(),
            account_number: format!("100000000{at}"),
            r#type: AccountType::Investment.into(),
            currency: currency.to_owned(),
            created_us: if self.now_us == 0 { TIME_US } else { self.now_us },
            ..Account::default()
        };
        self.accounts.push((account, BTreeMap::new()));
        let balances = vec![self.told(at, None)];
        self.emit(Fact { kind: FactKind::AccountOpened.into(), balances, ..Fact::default() });
        at
    }

    pub(super) fn cash(&mut self, at: usize, amount: i64, cause: Cause, key: &str) -> u64 {
        self.accounts[at].0.balance_micros += amount;
        let balances = vec![self.told(at, None)];
        let account = self.accounts[at].0.clone();
        let position = self.facts.len() as u64 + 1;
        self.emit(Fact {
            kind: FactKind::Money.into(),
            cause: cause.into(),
            user_id: account.user_id.clone(),
            postings: vec![
                client(&account.id, &account.currency, amount),
                house(House::Funding, &account.currency, -amount),
            ],
            balances,
            key: (!key.is_empty()).then(|| RequestKey {
                key: key.to_owned(),
                payload: vec![7; 16],
                looked_until: 0,
            }),
            done: (!key.is_empty()).then(|| Done {
                object_id: account.id.clone(),
                amount_micros: account.balance_micros,
                at: position,
                ..Done::default()
            }),
            ..Fact::default()
        })
    }

    pub(super) fn shares(&mut self, at: usize, symbol: &str, quantity: i64, cost: i64) {
        let held = self.accounts[at].1.entry(symbol.to_owned()).or_default();
        held.posted += quantity;
        held.cost += cost;
        let balances = vec![self.told(at, Some(symbol))];
        let id = self.accounts[at].0.id.clone();
        self.emit(Fact {
            kind: FactKind::Money.into(),
            cause: Cause::Endowment.into(),
            cost_micros: cost,
            postings: vec![client(&id, symbol, quantity), house(House::Issuer, symbol, -quantity)],
            balances,
            ..Fact::default()
        });
    }

    /// A trade without fees, in one currency.
    pub(super) fn trade(&mut self, buyer: usize, seller: usize, symbol: &str, quantity: i64, price_e4: i64) {
        let notional = quantity * price_e4 / 100;
        let sold = self.accounts[seller].1.get_mut(symbol).unwrap();
        let cost = sold.cost * quantity / sold.posted;
        sold.posted -= quantity;
        sold.cost -= cost;
        sold.realized += notional - cost;
        let bought = self.accounts[buyer].1.entry(symbol.to_owned()).or_default();
        bought.posted += quantity;
        bought.cost += notional;
        self.accounts[buyer].0.balance_micros -= notional;
        self.accounts[seller].0.balance_micros += notional;
        self.trades += 1;
        let balances = vec![self.told(buyer, Some(symbol)), self.told(seller, Some(symbol))];
        let (b, s) = (self.accounts[buyer].0.clone(), self.accounts[seller].0.clone());
        self.emit(Fact {
            kind: FactKind::Executed.into(),
            symbol: symbol.to_owned(),
            exec_seq: self.trades,
            trade_no: self.trades,
            price_e4,
            quantity_e4: quantity,
            balances,
            postings: vec![
                client(&b.id, symbol, quantity),
                client(&s.id, symbol, -quantity),
                client(&b.id, &b.currency, -notional),
                client(&s.id, &b.currency, notional),
            ],
            payer_ref: Uuid::from_u128(77).to_string(),
            payee_ref: Uuid::from_u128(78).to_string(),
            payer_fees: 1,
            payee_fees: 1,
            realized_micros: notional - cost,
            cost_micros: cost,
            ..Fact::default()
        });
    }

    /// Two users who trade, with rates and fees before.
    fn market() -> Self {
        let mut e = Self::default();
        let terms = Terms {
            rate_id: 1,
            usd_cad_micros: 1_370_000,
            fees_id: 1,
            maker_bp: 1,
            taker_bp: 2,
            ..Terms::default()
        };
        e.emit(Fact { kind: FactKind::TermsSet.into(), terms: Some(terms), ..Fact::default() });
        e.open(&user(1), "USD");
        e.open(&user(2), "USD");
        e.cash(0, 1_000 * USD, Cause::Deposit, "d");
        e.cash(1, 1_000 * USD, Cause::Opening, "");
        e.shares(1, "AAPL", 10 * SHARE, 80 * USD);
        for _ in 0..4 {
            e.trade(0, 1, "AAPL", SHARE, 100_000);
        }
        e
    }
}

pub(super) fn user(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

pub(super) fn client(account: &str, asset: &str, amount: i64) -> Posting {
    Posting { account_id: account.to_owned(), asset: asset.to_owned(), amount, ..Posting::default() }
}

pub(super) fn house(house: House, asset: &str, amount: i64) -> Posting {
    let role = PostingRole::Principal.into();
    Posting { house: house.into(), asset: asset.to_owned(), amount, role, ..Posting::default() }
}

#[tokio::test]
async fn the_books_say_what_the_facts_told() {
    let (shelf, mut e) = (Shelf::new().await, Engine::market());
    e.trade(0, 1, "AAPL", 6 * SHARE, 110_000);
    shelf.apply(&e.facts, 4).await;
    let audit = shelf.check().await;
    assert_eq!((audit.transactions, audit.position), (8, e.facts.len() as u64));
    let id = e.accounts[1].0.id.parse().unwrap();
    let (account, cash, shares) = shelf
        .db
        .read(move |tx| {
            let account = store::account_by_id(tx, id)?.unwrap();
            let cash = store::cash(tx, &account)?;
            let shares = store::holdings(tx, &account, None)?;
            Ok((account, cash, shares))
        })
        .await
        .unwrap();
    assert_eq!((account.number.as_str(), account.user.to_string()), ("1000000001", user(2)));
    assert_eq!(cash.posted, (1_000 + 4 * 10 + 6 * 11) * USD);
    assert!(shares.is_empty(), "sold out: {shares:?}");
    // What was gained is still there.
    let gained = shelf.query("SELECT realized_total FROM balance WHERE posted = 0 AND account = 2").await;
    assert_eq!(gained[0].get::<i64>(0).unwrap(), (106 - 80) * USD);
    let trades = shelf.db.read(|tx| Ok((store::trades(tx)?, store::usd_cad(tx)?))).await.unwrap();
    assert_eq!(trades, (5, 1_370_000));
}

#[tokio::test]
async fn facts_that_are_there_or_do_not_follow_are_refused_and_change_nothing() {
    let (shelf, e) = (Shelf::new().await, Engine::market());
    shelf.apply(&e.facts[..5], 5).await;
    let before = shelf.rows().await;
    let again = shelf.books.apply(0, e.facts[..5].to_vec()).await.unwrap_err();
    assert!(again.is_transient(), "another replica was faster: {again}");
    let early = shelf.books.apply(6, e.facts[6..].to_vec()).await.unwrap_err();
    assert!(early.is_transient());
    let gap = shelf.books.apply(5, e.facts[6..].to_vec()).await.unwrap_err();
    assert!(!gap.is_transient(), "{gap}");
    assert_eq!(shelf.rows().await, before);
    shelf.apply(&e.facts[5..], 100).await;
    shelf.check().await;
}

#[tokio::test]
async fn an_impossible_fact_is_refused_whole_and_the_books_go_on_after_it_is_mended() {
    let (shelf, e) = (Shelf::new().await, Engine::market());
    let last = e.facts.len() - 1;
    shelf.apply(&e.facts[..last], 100).await;
    let before = shelf.rows().await;
    let spoil: [fn(&mut Fact); 6] = [
        |f| f.postings[0].amount += 1,
        |f| f.postings[0].account_id = user(99),
        |f| f.balances[0].account.as_mut().unwrap().held_micros = -1,
        |f| f.balances[0].holding.as_mut().unwrap().held_e4 = i64::MAX,
        |f| f.payer_ref = "?".into(),
        |f| f.balances.truncate(1),
    ];
    for (n, spoil) in spoil.into_iter().enumerate() {
        let mut fact = e.facts[last].clone();
        spoil(&mut fact);
        let refused = shelf.books.apply(last as u64, vec![fact]).await.unwrap_err();
        assert!(!refused.is_transient(), "{n}: {refused}");
        assert_eq!(shelf.rows().await, before, "{n}");
    }
    shelf.apply(&e.facts[last..], 1).await;
    shelf.check().await;
}

/// A long story: enough private updates that old ones go.
fn long() -> Engine {
    let mut e = Engine::market();
    for n in 0..1_600 {
        match n % 4 {
            0 => e.trade(0, 1, "AAPL", SHARE / 100, 100_000 + n),
            1 => e.trade(1, 0, "AAPL", SHARE / 100, 100_000 - n),
            2 => drop(e.cash(0, USD, Cause::Deposit, &format!("d{n}"))),
            _ => drop(e.cash(1, -USD / 10, Cause::Withdrawal, "")),
        }
        if n == 600 {
            e.open(&user(3), "CAD");
            e.shares(2, "SHOP.TO", SHARE, USD);
        }
    }
    e
}

#[tokio::test]
async fn books_made_anew_are_equal_row_by_row_however_the_facts_come() {
    let e = long();
    let mut made = Vec::new();
    for per_batch in [1, 7, 100, usize::MAX] {
        let shelf = Shelf::new().await;
        shelf.apply(&e.facts, per_batch.min(e.facts.len())).await;
        shelf.check().await;
        made.push(shelf.rows().await);
    }
    for other in &made[1..] {
        for (a, b) in made[0].iter().zip(other) {
            assert_eq!(a, b);
        }
    }
    let updates = made[0].last().unwrap().len();
    assert!((2 * 1_000..2 * 1_064).contains(&updates), "{updates} private updates");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_the_same_rows_are_made() {
    let Some(url) = external("FAFNIR_TEST_POSTGRES_URL") else { return };
    let e = long();
    let prefix = format!("test_{}_", Uuid::new_v4().simple());
    let (file, server) = (Shelf::new().await, Shelf::on_server(&url, &format!("{prefix}portfolio_db")).await);
    for shelf in [&file, &server] {
        shelf.apply(&e.facts, 100).await;
        shelf.check().await;
    }
    for (a, b) in file.rows().await.iter().zip(&server.rows().await) {
        assert_eq!(a, b);
    }
    drop(server);
    drop_databases(&url, &prefix).await;
}

#[tokio::test]
async fn the_house_goes_beyond_64_bits() {
    let (shelf, mut e) = (Shelf::new().await, Engine::default());
    for n in 0..5 {
        e.open(&user(n), "USD");
        e.cash(n as usize, i64::MAX - 7, Cause::Endowment, "");
    }
    shelf.apply(&e.facts, 3).await;
    let audit = shelf.check().await;
    assert_eq!(audit.sums.len(), 1);
    let house = shelf.query("SELECT posted FROM house").await;
    let posted = i128::from_be_bytes(house[0].get::<Vec<u8>>(0).unwrap().try_into().unwrap());
    assert_eq!(posted, -5 * i128::from(i64::MAX - 7));
}

#[tokio::test]
async fn a_row_that_was_changed_or_is_missing_is_found() {
    let e = Engine::market();
    let n = e.facts.len() as u64;
    let spoils = [
        ("UPDATE posting SET amount = amount + 1 WHERE id = 5 * 16", [0, 1, 0, 1, 1]),
        ("UPDATE posting SET amount = amount * 2 WHERE id / 16 = 5", [0, 0, 0, 2, 1]),
        ("UPDATE posting SET account = 2 WHERE id = 4 * 16", [0, 0, 0, 2, 1]),
        ("UPDATE ledger SET price_e4 = 1 WHERE id = 8", [0, 0, 0, 0, 1]),
        ("UPDATE ledger SET time_us = 1 WHERE id = 10", [0, 0, 0, 0, 1]),
        ("DELETE FROM posting WHERE id / 16 = 9", [0, 0, 0, 4, 1]),
        ("DELETE FROM ledger WHERE id = 9", [0, 0, 0, 4, 5]),
        ("DELETE FROM ledger WHERE id = 10", [0, 0, 0, 4, 5]),
        ("UPDATE balance SET posted = posted + 1 WHERE account = 1 AND asset = 1", [1, 0, 0, 1, 0]),
        ("UPDATE account SET id = 'somebody' WHERE key = 1", [0, 0, 0, 0, 5]),
    ];
    for (sql, found) in spoils {
        let shelf = Shelf::new().await;
        shelf.apply(&e.facts, 100).await;
        assert_eq!(shelf.check().await.position, n);
        shelf.execute(sql).await;
        assert_eq!(wrong(&shelf.audit().await), found, "{sql}");
    }
}

#[tokio::test]
async fn a_key_stands_for_what_its_request_did() {
    let (shelf, e) = (Shelf::new().await, Engine::market());
    shelf.apply(&e.facts, 100).await;
    let found = shelf.db.read(|tx| Ok(store::answered(tx, &user(1), "d")?)).await.unwrap().unwrap();
    assert_eq!((found.amount_micros, found.at, found.payload), (1_000 * USD, 4, vec![7; 16]));
    let other = shelf.db.read(|tx| Ok(store::answered(tx, &user(2), "d")?)).await.unwrap();
    assert_eq!(other, None);
}

#[tokio::test]
async fn a_day_of_the_default_market_fits_into_the_ledgers_budget() {
    /// 3 trades a second for a day within 200 MB are 771 bytes; half of it leaves room for busier days.
    const BYTES_PER_TRADE_MAX: i64 = 385;
    const TRADES: i64 = 2_000;
    let (shelf, mut e) = (Shelf::new().await, Engine::market());
    // Agents, whom nobody follows.
    let before = e.facts.len();
    for n in 0..TRADES {
        let (buyer, seller) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        e.trade(buyer, seller, "AAPL", SHARE, 100_000 + n % 7);
    }
    for fact in &mut e.facts {
        fact.balances.iter_mut().for_each(|b| b.user_seq = 0);
    }
    shelf.apply(&e.facts[..before], 100).await;
    let bytes = || async {
        let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        shelf.query(sql).await[0].get::<i64>(0).unwrap()
    };
    let empty = bytes().await;
    let started = std::time::Instant::now();
    shelf.apply(&e.facts[before..], 256).await;
    let took = started.elapsed();
    let per_trade = (bytes().await - empty) / TRADES;
    eprintln!("{per_trade} bytes of ledger per trade, {:?} each", took / TRADES as u32);
    assert!(per_trade <= BYTES_PER_TRADE_MAX, "{per_trade} bytes");
    shelf.check().await;
}
