//! Random work on the ledger against a naive model that adds everything up anew after each step.
//!
//! The model plays the order gate and the engine: facts are delivered late, repeatedly and too early. A failing seed is
//! printed; `FAFNIR_TEST_SEED=N` repeats it, `FAFNIR_TEST_SEEDS=N` tries more of them.

use super::{
    domain::{Account, Currency, Kind, hold::Side},
    operations::{self, Change},
    store::NewAccount,
    testing::{DOLLAR, Ledger, SHARE, SYMBOL, USD, fact, trade},
};
use fafnir_platform::rng::Rng;
use fafnir_proto::id::AccountId;
use fafnir_proto::v1::{ExecKind, Execution, ExecutionBatch};
use fafnir_testing::external;
use uuid::Uuid;

const SEEDS: u64 = 4;
const STEPS: usize = 250;
const STEPS_ON_SERVER: usize = 120;
const USERS: usize = 4;
const LOT: i64 = SHARE / 10;

/// An order as somebody sees it: the engine at its end of the log, the ledger at what it has applied.
#[derive(Clone)]
struct Seen {
    price: i64,
    open: i64,
    fills: Vec<(i64, i64, bool)>,
    ended: bool,
    version: u32,
}

struct Order {
    id: Uuid,
    account: usize,
    side: Side,
    engine: Seen,
    ledger: Seen,
    /// Asked of the ledger: version, total, price; until the ledger has applied the outcome.
    pending: Option<(u32, i64, i64)>,
    /// Sent to the engine and not answered.
    sent: Option<(u32, i64, i64)>,
}

struct Model {
    random: Rng,
    ledger: Ledger,
    accounts: Vec<Account>,
    /// Deposits and transfers, and shares given.
    cash: Vec<i64>,
    shares: Vec<i64>,
    orders: Vec<Order>,
    log: Vec<Execution>,
    applied: usize,
    bp: (i128, i128),
    usd_cad: i128,
    refused: usize,
}

fn up(n: i128, d: i128) -> i64 {
    let q = n / d;
    (if n % d > 0 { q + 1 } else { q }) as i64
}

impl Seen {
    fn filled(&self) -> i64 {
        self.fills.iter().map(|f| f.1).sum()
    }
}

impl Model {
    /// On SQLite, or on a server.
    async fn new(seed: u64, url: Option<&str>) -> Self {
        let mut random = Rng::new(seed);
        let bp = [(0, 0), (0, 10), (3, 7), (25, 1)][random.index(4)];
        let ledger = match url {
            None => Ledger::new(bp.0, bp.1).await,
            Some(url) => Ledger::on_server(url, bp.0, bp.1).await,
        };
        let mut model = Self {
            random,
            usd_cad: i128::from(ledger.rules.usd_cad),
            ledger,
            accounts: Vec::new(),
            cash: Vec::new(),
            shares: Vec::new(),
            orders: Vec::new(),
            log: Vec::new(),
            applied: 0,
            bp: (i128::from(bp.0), i128::from(bp.1)),
            refused: 0,
        };
        for user in 0..USERS {
            let currency = Currency::ALL[user % 2];
            let (cash, shares) = (1_000 * USD, 50 * SHARE);
            let account = model.ledger.account(currency, cash, shares).await;
            // A second account of the same user, in the other currency, for transfers.
            let new = NewAccount {
                id: AccountId::new(Uuid::new_v4()),
                user: account.user,
                kind: Kind::Savings,
                currency: Currency::ALL[(user + 1) % 2],
            };
            let second = model.ledger.change(move |s| operations::account_create(s, new, 0)).await.unwrap();
            model.accounts.extend([account, second]);
            model.cash.extend([cash, 0]);
            model.shares.extend([shares, 0]);
        }
        model
    }

    /// Account currency per USD as a fraction.
    fn fx(&self, account: usize) -> (i128, i128) {
        match self.accounts[account].currency {
            Currency::Usd => (1, 1),
            Currency::Cad => (self.usd_cad, 1_000_000),
        }
    }

    /// What an order has posted in cash, from scratch: principal and fee.
    fn posted(&self, order: &Order, fills: &[(i64, i64, bool)]) -> (i64, i64) {
        let (n, d) = self.fx(order.account);
        // 10⁻⁸ of a dollar; × basis points 10⁻¹².
        let parts: i128 = fills.iter().map(|f| i128::from(f.0) * i128::from(f.1)).sum();
        let rate = |maker| if maker { self.bp.0 } else { self.bp.1 };
        let fees: i128 = fills.iter().map(|f| i128::from(f.0) * i128::from(f.1) * rate(f.2)).sum();
        let fee = up(fees * n, 1_000_000 * d);
        match order.side {
            Side::Buy => (up(parts * n, 100 * d), fee),
            Side::Sell => {
                let got = (parts * n / (100 * d)) as i64;
                (got, fee.min(got))
            }
        }
    }

    /// What must be held, from scratch: the dearest way in which the order may still end.
    fn held(&self, order: &Order) -> i64 {
        let seen = &order.ledger;
        if seen.ended {
            return 0;
        }
        let later =
            |o: Option<(u32, i64, i64)>| o.map(|(_, total, price)| ((total - seen.filled()).max(0), price));
        let pending = later(order.pending);
        if order.side == Side::Sell {
            return seen.open.max(pending.map_or(0, |p| p.0));
        }
        let product = |q: i64, p: i64| i128::from(q) * i128::from(p);
        let mut worst = product(seen.open, seen.price);
        if let Some((open, price)) = pending {
            for first in [0, seen.open.min(open)] {
                worst = worst.max(product(first, seen.price) + product(open - first, price));
            }
        }
        let (n, d) = self.fx(order.account);
        let parts: i128 = seen.fills.iter().map(|f| product(f.1, f.0)).sum();
        let rate = |maker| if maker { self.bp.0 } else { self.bp.1 };
        let fees: i128 = seen.fills.iter().map(|f| product(f.1, f.0) * rate(f.2)).sum();
        let percent = if d == 1 { 100 } else { 102 };
        let (principal, fee) = self.posted(order, &seen.fills);
        let highest = self.bp.0.max(self.bp.1);
        up((parts * 100 + worst * percent) * n, 10_000 * d) - principal
            + up((fees + worst * highest) * n, 1_000_000 * d)
            - fee
    }

    async fn check(&self, context: &str) {
        let audit = self.ledger.check(context).await;
        for (at, account) in self.accounts.iter().enumerate() {
            let (mut cash, mut held, mut shares, mut held_shares) = (self.cash[at], 0, self.shares[at], 0);
            for order in self.orders.iter().filter(|o| o.account == at) {
                let (principal, fee) = self.posted(order, &order.ledger.fills);
                match order.side {
                    Side::Buy => {
                        cash -= principal + fee;
                        held += self.held(order);
                        shares += order.ledger.filled();
                    }
                    Side::Sell => {
                        cash += principal - fee;
                        shares -= order.ledger.filled();
                        held_shares += self.held(order);
                    }
                }
            }
            let (c, s) = (self.ledger.cash(account).await, self.ledger.shares(account).await);
            assert_eq!((c.posted, c.held), (cash, held), "{context}: cash of account {at}");
            assert_eq!((s.posted, s.held), (shares, held_shares), "{context}: shares of account {at}");
            assert!(s.cost >= 0 && (s.posted > 0 || s.cost == 0), "{context}: {s:?}");
        }
        let open: usize = self.orders.iter().filter(|o| !o.ledger.ended).count();
        assert_eq!(audit.open_holds.len(), open, "{context}: no orphan holds");
        assert_eq!(audit.open_holds.iter().filter(|h| h.1 < 0 || h.2 < 0).count(), 0, "{context}");
    }

    async fn step(&mut self) -> &'static str {
        match self.random.below(100) {
            0..8 => self.deposit().await,
            8..12 => self.transfer().await,
            12..36 => self.place().await,
            36..58 => self.fill(),
            58..64 => self.end(),
            64..72 => self.replace().await,
            72..78 => self.answer(),
            78..81 => self.decrement(),
            81..85 => self.too_early().await,
            _ => self.deliver().await,
        }
    }

    async fn deposit(&mut self) -> &'static str {
        let (at, amount) = (self.random.index(self.accounts.len()), self.random.between(1, 100 * USD));
        let a = self.accounts[at].clone();
        let code = a.currency.code();
        self.ledger.change(move |s| operations::deposit(s, a.user, a.id, amount, code)).await.unwrap();
        self.cash[at] += amount;
        "deposit"
    }

    async fn transfer(&mut self) -> &'static str {
        let from = self.random.index(self.accounts.len());
        let (to, amount) = (from ^ 1, self.random.between(1, 300 * USD));
        let (a, b) = (self.accounts[from].clone(), self.accounts[to].clone());
        let (rules, code) = (self.ledger.rules, a.currency.code());
        let available = self.ledger.cash(&a).await.available();
        let done = self
            .ledger
            .change(move |s| operations::transfer(s, &rules, a.user, a.id, b.id, amount, code))
            .await;
        let ((to_usd, per_usd), (from_usd, per_from)) = (self.fx(to), self.fx(from));
        let got = (i128::from(amount) * to_usd * per_from / (per_usd * from_usd)) as i64;
        assert_eq!(done.is_ok(), available >= amount && got > 0, "{done:?}");
        if done.is_ok() {
            self.cash[from] -= amount;
            self.cash[to] += got;
        }
        "transfer"
    }

    async fn place(&mut self) -> &'static str {
        let account = self.random.index(USERS) * 2;
        let side = if self.random.chance(500) { Side::Buy } else { Side::Sell };
        let (quantity, price) =
            (self.random.between(1, 200) * LOT, self.random.between(800, 1_200) * (DOLLAR / 100));
        let seen = Seen { price, open: quantity, fills: Vec::new(), ended: false, version: 1 };
        let id = Uuid::new_v4();
        let order =
            Order { id, account, side, engine: seen.clone(), ledger: seen, pending: None, sent: None };
        let a = self.accounts[account].clone();
        let available = match side {
            Side::Buy => self.ledger.cash(&a).await.available(),
            Side::Sell => self.ledger.shares(&a).await.available(),
        };
        let needed = self.held(&order);
        let tries = if self.random.chance(200) { 2 } else { 1 };
        for _ in 0..tries {
            let placed = self.ledger.hold_as(id, &a, side, quantity, price).await;
            assert_eq!(placed.is_ok(), needed <= available, "{placed:?}: {needed} of {available}");
            if let Ok(held) = placed {
                assert_eq!(held, needed);
            }
        }
        if needed > available {
            self.refused += 1;
            return "refused";
        }
        if self.random.chance(50) {
            self.ledger.change(move |s| operations::hold_release(s, id)).await.unwrap();
            return "released";
        }
        let kind = if self.random.chance(80) { ExecKind::Rejected } else { ExecKind::Accepted };
        self.orders.push(order);
        let at = self.orders.len() - 1;
        self.orders[at].engine.ended = kind == ExecKind::Rejected;
        self.emit(kind, at, |_| {});
        "placed"
    }

    fn emit(&mut self, kind: ExecKind, at: usize, with: impl FnOnce(&mut Execution)) {
        let mut e = fact(self.log.len() as u64 + 1, kind, self.orders[at].id);
        e.open_e4 = self.orders[at].engine.open;
        with(&mut e);
        self.log.push(e);
    }

    fn pick(&mut self, side: Option<Side>) -> Option<usize> {
        let open: Vec<usize> = (0..self.orders.len())
            .filter(|i| {
                let o = &self.orders[*i];
                !o.engine.ended && side.is_none_or(|s| s == o.side)
            })
            .collect();
        (!open.is_empty()).then(|| open[self.random.index(open.len())])
    }

    /// An open buy and an open sell of two users that cross.
    fn crossing(&mut self) -> Option<(usize, usize)> {
        (0..20).find_map(|_| {
            let (buy, sell) = (self.pick(Some(Side::Buy))?, self.pick(Some(Side::Sell))?);
            let (b, s) = (&self.orders[buy], &self.orders[sell]);
            (b.account != s.account && b.engine.price >= s.engine.price).then_some((buy, sell))
        })
    }

    fn fill(&mut self) -> &'static str {
        let Some((buy, sell)) = self.crossing() else { return "no cross" };
        let (b, s) = (&self.orders[buy], &self.orders[sell]);
        let most = b.engine.open.min(s.engine.open);
        let quantity = if self.random.chance(300) { most } else { self.random.between(1, most / LOT) * LOT };
        let (taker, maker) = if self.random.chance(500) { (buy, sell) } else { (sell, buy) };
        let price = self.orders[maker].engine.price;
        for (at, is_maker) in [(taker, false), (maker, true)] {
            let seen = &mut self.orders[at].engine;
            seen.open -= quantity;
            seen.fills.push((price, quantity, is_maker));
            seen.ended = seen.open == 0;
        }
        let (t, m) = (&self.orders[taker], &self.orders[maker]);
        let seq = self.log.len() as u64 + 1;
        self.log.push(trade(seq, t.side, (t.id, t.engine.open), (m.id, m.engine.open), quantity, price));
        "trade"
    }

    fn end(&mut self) -> &'static str {
        let Some(at) = self.pick(None) else { return "nothing to end" };
        let kind = if self.random.chance(700) { ExecKind::Canceled } else { ExecKind::Expired };
        self.orders[at].engine.ended = true;
        self.emit(kind, at, |_| {});
        if self.random.chance(300) {
            self.emit(ExecKind::CancelRejected, at, |_| {});
        }
        "ended"
    }

    /// The order gate asks the ledger for more first, then sends the replace.
    async fn replace(&mut self) -> &'static str {
        let Some(at) = self.pick(None) else { return "nothing to replace" };
        if self.orders[at].sent.is_some() {
            return "replace under way";
        }
        let o = &self.orders[at];
        let (version, filled) = (o.engine.version + 1, o.engine.filled());
        let total = filled + self.random.between(1, 200) * LOT;
        let price = self.random.between(800, 1_200) * (DOLLAR / 100);
        let change = Change {
            order: self.orders[at].id,
            version,
            total_e4: total,
            open_e4: 0,
            price_e4: price,
            only_increase: true,
            caught_up: false,
        };
        let mut asked = self.ledger.adjust(change).await;
        if let Err(e) = &asked
            && e.refusal().is_some_and(|r| r.reason == "REPLACE_PENDING")
        {
            self.apply(self.log.len()).await;
            asked = self.ledger.adjust(Change { caught_up: true, ..change }).await;
        }
        let before = self.held(&self.orders[at]);
        let was = self.orders[at].pending.replace((version, total, price));
        let needed = self.held(&self.orders[at]);
        match asked {
            Ok(held) => {
                assert_eq!(held, needed);
                self.orders[at].sent = Some((version, total, price));
            }
            Err(e) => {
                assert!(e.refusal().unwrap().reason.as_str().starts_with("INSUFFICIENT"), "{e}");
                assert!(needed > before);
                self.orders[at].pending = was;
                self.refused += 1;
            }
        }
        "replace"
    }

    /// The engine answers a replace.
    fn answer(&mut self) -> &'static str {
        let sent: Vec<usize> = (0..self.orders.len()).filter(|i| self.orders[*i].sent.is_some()).collect();
        if sent.is_empty() {
            return "no replace under way";
        }
        let at = sent[self.random.index(sent.len())];
        let Some((version, total, price)) = self.orders[at].sent.take() else { return "none" };
        let seen = &mut self.orders[at].engine;
        let open = total - seen.filled();
        if seen.ended || open <= 0 || self.random.chance(200) {
            self.emit(ExecKind::ReplaceRejected, at, |e| e.version = version);
            return "replace rejected";
        }
        (seen.open, seen.price, seen.version) = (open, price, version);
        self.emit(ExecKind::Replaced, at, |e| {
            (e.version, e.quantity_e4, e.price_e4) = (version, total, price);
        });
        "replaced"
    }

    fn decrement(&mut self) -> &'static str {
        let (Some(a), Some(b)) = (self.pick(Some(Side::Buy)), self.pick(Some(Side::Sell))) else {
            return "no pair";
        };
        if self.orders[a].account != self.orders[b].account {
            return "not own";
        }
        let quantity = self.orders[a].engine.open.min(self.orders[b].engine.open);
        for at in [a, b] {
            self.orders[at].engine.open -= quantity;
        }
        let (maker, open) = (self.orders[b].id.to_string(), self.orders[b].engine.open);
        self.emit(ExecKind::Decremented, a, |e| {
            (e.maker_order_id, e.maker_open_e4, e.quantity_e4) = (maker, open, quantity);
        });
        for at in [a, b] {
            if self.orders[at].engine.open == 0 {
                self.orders[at].engine.ended = true;
                self.emit(ExecKind::Canceled, at, |_| {});
            }
        }
        "decremented"
    }

    /// What the stream lost: later facts alone change nothing.
    async fn too_early(&mut self) -> &'static str {
        if self.log.len() < self.applied + 2 {
            return "nothing early";
        }
        let from = self.random.between(self.applied as i64 + 1, self.log.len() as i64 - 1) as usize;
        let report = self.ledger.facts(&self.log[from..]).await;
        assert!(report.applied.gap);
        assert_eq!((report.applied.executions, report.trades), (0, 0));
        "too early"
    }

    /// Delivers some facts, with some that were there before, in batches of any size.
    async fn deliver(&mut self) -> &'static str {
        let to = self.applied + self.random.index(self.log.len() - self.applied + 1);
        self.apply(to).await;
        "delivered"
    }

    async fn apply(&mut self, to: usize) {
        let from = self.applied.saturating_sub(self.random.index(10));
        let mut batches = Vec::new();
        let mut at = from;
        while at < to {
            let end = (at + 1 + self.random.index(4)).min(to);
            batches.push(ExecutionBatch { symbol: SYMBOL.into(), executions: self.log[at..end].to_vec() });
            // Each message may come up to three times.
            for _ in 0..self.random.index(3) {
                batches.push(batches.last().unwrap().clone());
            }
            at = end;
        }
        let report = self.ledger.batches(batches).await;
        assert_eq!(report.alarms, []);
        assert_eq!(report.applied.executions, (to - self.applied) as u64);
        for at in self.applied..to {
            let e = self.log[at].clone();
            self.project(&e);
        }
        self.applied = to.max(self.applied);
    }

    /// The model's own projection of a fact.
    fn project(&mut self, e: &Execution) {
        let at = |id: &str| self.orders.iter().position(|o| o.id.to_string() == id);
        let order = at(&e.order_id);
        let maker = at(&e.maker_order_id);
        let Some(order) = order else { return };
        match e.kind() {
            ExecKind::Trade => {
                for (at, open, is_maker) in
                    [(order, e.open_e4, false), (maker.unwrap(), e.maker_open_e4, true)]
                {
                    let seen = &mut self.orders[at].ledger;
                    seen.fills.push((e.price_e4, e.quantity_e4, is_maker));
                    seen.open = open;
                    seen.ended = open == 0;
                }
            }
            ExecKind::Canceled | ExecKind::Expired | ExecKind::Rejected => {
                self.orders[order].ledger.ended = true;
            }
            ExecKind::Replaced => {
                let o = &mut self.orders[order];
                (o.ledger.open, o.ledger.price, o.ledger.version) = (e.open_e4, e.price_e4, e.version);
                o.pending = None;
            }
            ExecKind::ReplaceRejected => self.orders[order].pending = None,
            ExecKind::Decremented => {
                self.orders[order].ledger.open = e.open_e4;
                self.orders[maker.unwrap()].ledger.open = e.maker_open_e4;
            }
            _ => {}
        }
    }
}

async fn run(seed: u64, steps: usize, url: Option<&str>) {
    eprintln!("seed {seed}");
    let mut model = Model::new(seed, url).await;
    for step in 0..steps {
        let what = model.step().await;
        model.check(&format!("seed {seed}, step {step}, {what}")).await;
    }
    while let Some(at) = model.pick(None) {
        model.orders[at].engine.ended = true;
        model.emit(ExecKind::Canceled, at, |_| {});
    }
    model.apply(model.log.len()).await;
    model.check(&format!("seed {seed}, end")).await;
    let trades = model.log.iter().filter(|e| e.kind() == ExecKind::Trade).count() as u64;
    let (settled, holds) = model
        .ledger
        .read(|tx| {
            let settled = super::store::counter(tx, super::settlement::SETTLED)?;
            Ok((settled, super::store::open_holds(tx, u32::MAX)?.len()))
        })
        .await;
    assert_eq!((settled, holds), (trades, 0), "seed {seed}");
    let refused = model.refused;
    eprintln!("seed {seed}: {} facts, {trades} trades, {refused} refusals", model.log.len());
    model.ledger.remove().await;
}

#[tokio::test]
async fn random_work_leaves_the_ledger_as_the_naive_model_says() {
    let set = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds: Vec<u64> = match set("FAFNIR_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (1..=set("FAFNIR_TEST_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    for seed in seeds {
        run(seed, STEPS, None).await;
    }
}

#[tokio::test]
async fn random_work_on_postgres_leaves_the_same() {
    if let Some(url) = external("FAFNIR_TEST_POSTGRES_URL") {
        run(1, STEPS_ON_SERVER, Some(&url)).await;
    }
}
