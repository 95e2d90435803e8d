//! Every figure against a computation by hand, whose arithmetic stands here, over days of the test's clock.

use super::{
    books_test::{Engine, Shelf, client, house, user},
    domain::{
        Account,
        gains::Traded,
        performance::{Course, Flow, Performance, Point},
        period::{Period, Span},
    },
    reports::{self, Gains},
    store::{self, Cut},
};
use fafnir_platform::clock::DAY_US;
use fafnir_proto::v1::{
    Cause, Fact, FactKind, House, Instrument, Posting, PostingRole, ReportReply, Side, StatementReply, Terms,
};
use fafnir_testing::{drop_databases, external};
use std::{collections::BTreeMap, time::Instant};
use uuid::Uuid;

const USD: i64 = 1_000_000;
const SHARE: i64 = 10_000;
const DOLLAR: i64 = 10_000;
const CENT: i64 = DOLLAR / 100;
const HOUR_US: i64 = DAY_US / 24;
/// The first day: 2026-06-01.
const DAY_0: i64 = 20_605 * DAY_US;

/// One side of a trade: account, cash that moves in its currency, fee.
#[derive(Clone, Copy)]
struct Party {
    at: usize,
    cash: i64,
    fee: i64,
}

impl Engine {
    fn clock(&mut self, day: i64, hour: i64) {
        self.now_us = DAY_0 + day * DAY_US + hour * HOUR_US;
    }

    fn list(&mut self, symbol: &str, currency: &str, previous_close_e4: i64) {
        let instrument = Instrument {
            symbol: symbol.into(),
            currency: currency.into(),
            previous_close_e4,
            ..Instrument::default()
        };
        let kind = FactKind::InstrumentSet.into();
        self.emit(Fact { kind, symbol: symbol.into(), instrument: Some(instrument), ..Fact::default() });
    }

    fn usd_cad(&mut self, rate_id: u32, usd_cad_micros: i64) {
        let terms = Terms { rate_id, usd_cad_micros, ..Terms::default() };
        self.emit(Fact { kind: FactKind::TermsSet.into(), terms: Some(terms), ..Fact::default() });
    }

    /// A trade; money of another currency than `listing` goes through the house's exchange.
    fn swap(
        &mut self,
        (symbol, listing): (&str, &str),
        quantity: i64,
        price_e4: i64,
        bought: Party,
        sold: Party,
    ) {
        let notional = quantity * price_e4 / 100;
        let s = self.accounts[sold.at].1.get_mut(symbol).unwrap();
        // What remains is rounded down: the last share takes the last micro with it.
        let cost =
            s.cost - (i128::from(s.cost) * i128::from(s.posted - quantity) / i128::from(s.posted)) as i64;
        let realized = sold.cash - sold.fee - cost;
        (s.posted, s.cost, s.realized) = (s.posted - quantity, s.cost - cost, s.realized + realized);
        let b = self.accounts[bought.at].1.entry(symbol.to_owned()).or_default();
        (b.posted, b.cost) = (b.posted + quantity, b.cost + bought.cash + bought.fee);
        self.accounts[bought.at].0.balance_micros -= bought.cash + bought.fee;
        self.accounts[sold.at].0.balance_micros += sold.cash - sold.fee;
        self.trades += 1;
        let balances = vec![self.told(bought.at, Some(symbol)), self.told(sold.at, Some(symbol))];
        let (b, s) = (self.accounts[bought.at].0.clone(), self.accounts[sold.at].0.clone());
        let mut postings = vec![
            client(&b.id, symbol, quantity),
            client(&s.id, symbol, -quantity),
            client(&b.id, &b.currency, -bought.cash),
            client(&s.id, &s.currency, sold.cash),
        ];
        for (account, cash, sign) in [(&b, bought.cash, 1), (&s, sold.cash, -1)] {
            if account.currency != listing {
                postings.push(house(House::Fx, &account.currency, sign * cash));
                postings.push(house(House::Fx, listing, -sign * notional));
            }
        }
        for (account, fee) in [(&b, bought.fee), (&s, sold.fee)] {
            if fee > 0 {
                let role = PostingRole::Fee.into();
                postings.push(Posting { role, ..client(&account.id, &account.currency, -fee) });
                postings.push(Posting { role, ..house(House::Fees, &account.currency, fee) });
            }
        }
        self.emit(Fact {
            kind: FactKind::Executed.into(),
            symbol: symbol.to_owned(),
            exec_seq: self.trades,
            trade_no: self.trades,
            price_e4,
            quantity_e4: quantity,
            balances,
            postings,
            payer_ref: Uuid::from_u128(77).to_string(),
            payee_ref: Uuid::from_u128(78).to_string(),
            realized_micros: realized,
            cost_micros: cost,
            ..Fact::default()
        });
    }

    /// A trade of USD accounts in INTC, with the fee of the first one.
    fn intc(&mut self, buyer: usize, seller: usize, shares: i64, cents: i64, fees: (i64, i64)) {
        let cash = shares * cents * USD / 100;
        let (bought, sold) =
            (Party { at: buyer, cash, fee: fees.0 }, Party { at: seller, cash, fee: fees.1 });
        self.swap(("INTC", "USD"), shares * SHARE, cents * CENT, bought, sold);
    }

    /// All that a closed account had goes to the house.
    fn close(&mut self, at: usize, symbols: &[&str]) {
        let cash = self.accounts[at].0.balance_micros;
        self.cash(at, -cash, Cause::Closing, "");
        for symbol in symbols {
            let held = self.accounts[at].1.get_mut(*symbol).unwrap();
            let was = *held;
            (held.posted, held.cost) = (0, 0);
            let balances = vec![self.told(at, Some(symbol))];
            let id = self.accounts[at].0.id.clone();
            self.emit(Fact {
                kind: FactKind::Money.into(),
                cause: Cause::Closing.into(),
                cost_micros: -was.cost,
                postings: vec![client(&id, symbol, -was.posted), house(House::Issuer, symbol, was.posted)],
                balances,
                ..Fact::default()
            });
        }
    }
}

/// The account that is looked at, a second one of its user, a market maker, a trader in CAD, another trader.
const A: usize = 0;
const C: usize = 1;
const M: usize = 2;
const K: usize = 3;
const X: usize = 4;

/// Four days of an account, see the tests for what they come to.
fn story() -> Engine {
    let mut e = Engine::default();
    e.clock(-1, 0);
    e.usd_cad(1, 1_370_000);
    e.list("INTC", "USD", 24 * DOLLAR);
    e.list("SHOP", "CAD", 100 * DOLLAR);
    e.clock(0, 9);
    for (owner, currency) in [(1, "USD"), (1, "USD"), (2, "USD"), (3, "CAD"), (4, "USD")] {
        e.open(&user(owner), currency);
    }
    e.cash(M, 1_000_000 * USD, Cause::Endowment, "");
    e.cash(X, 100_000 * USD, Cause::Deposit, "");
    e.shares(M, "INTC", 100_000 * SHARE, 2_000_000 * USD);
    e.shares(M, "SHOP", 1_000 * SHARE, 1_000 * USD);
    e.cash(K, 10_000 * USD, Cause::Deposit, "");
    e.cash(A, 500 * USD, Cause::Opening, "");
    e.cash(A, 99_500 * USD, Cause::Deposit, "");
    e.clock(0, 12);
    e.intc(A, M, 1_000, 2_450, (0, 0));
    e.clock(0, 15);
    e.intc(X, M, 1, 2_500, (0, 0));
    // 10 at 25.00 USD are 250.00 USD, at 1.37 342.50 CAD.
    let (bought, sold) =
        (Party { at: K, cash: 342_500_000, fee: 0 }, Party { at: M, cash: 250 * USD, fee: 0 });
    e.swap(("INTC", "USD"), 10 * SHARE, 25 * DOLLAR, bought, sold);
    e.clock(1, 9);
    e.cash(A, 50_000 * USD, Cause::Deposit, "");
    e.clock(1, 12);
    e.intc(X, M, 1, 2_600, (0, 0));
    e.clock(2, 9);
    e.cash(A, -20_000 * USD, Cause::Transfer, "");
    e.cash(C, 20_000 * USD, Cause::Transfer, "");
    e.clock(2, 12);
    e.intc(X, A, 400, 2_550, (0, 2 * USD));
    e.usd_cad(2, 1_400_000);
    e.clock(3, 10);
    e.intc(A, M, 100, 2_600, (USD, 0));
    e.intc(X, A, 650, 2_700, (0, 0));
    e
}

struct Book {
    shelf: Shelf,
}

impl Book {
    async fn of(facts: &[Fact]) -> Self {
        let shelf = Shelf::new().await;
        shelf.apply(facts, 7).await;
        shelf.check().await;
        Self { shelf }
    }

    async fn account(&self, e: &Engine, at: usize) -> Account {
        let id = e.accounts[at].0.id.parse().unwrap();
        let found = self.shelf.db.read(move |tx| Ok(store::account_by_id(tx, id)?));
        found.await.unwrap().unwrap()
    }

    async fn went(&self, account: &Account, span: Span, interval: &str) -> (Performance, Vec<Point>) {
        let (account, points) = (account.clone(), span.points(interval).unwrap());
        let read = self.shelf.db.read(move |tx| reports::performance(tx, &account, span, &points));
        read.await.unwrap()
    }

    async fn gains(&self, account: &Account, span: Span) -> Vec<Gains> {
        let account = account.clone();
        self.shelf.db.read(move |tx| reports::gains(tx, &account, span)).await.unwrap()
    }

    async fn report(&self, account: &Account, span: Span, after: i64, limit: u32) -> ReportReply {
        let account = account.clone();
        self.shelf.db.read(move |tx| reports::report(tx, &account, span, after, limit)).await.unwrap()
    }

    async fn statement(&self, account: &Account, span: Span, after: i64, limit: u32) -> StatementReply {
        let account = account.clone();
        self.shelf.db.read(move |tx| reports::statement(tx, &account, span, after, limit)).await.unwrap()
    }
}

/// Of days, the last one excluded.
fn days(first: i64, end: i64) -> Span {
    Span { from_us: DAY_0 + first * DAY_US, to_us: DAY_0 + end * DAY_US }
}

fn until(day: i64, hour: i64) -> Span {
    Span { to_us: DAY_0 + day * DAY_US + hour * HOUR_US, ..days(0, 1) }
}

#[tokio::test]
async fn the_days_of_an_account_are_as_by_hand() {
    let e = story();
    let book = Book::of(&e.facts).await;
    let a = book.account(&e, A).await;
    // Day 0: 500 and 99,500 come; 1,000 at 24.50 are bought for 24,500: cash 75,500; the last price is 25: 25,000.
    // Worth 100,500, gain 500, of the inflows .5 %; time-weighted 500/500 x 100,500/100,000 = 1.005.
    let (day, points) = book.went(&a, days(0, 1), "1d").await;
    assert_eq!((day.start, day.end, day.gain), (0, 100_500 * USD, 500 * USD));
    assert_eq!((day.inflows, day.outflows), (100_000 * USD, 0));
    assert_eq!((day.gain_percent_e4, day.time_weighted_percent_e4), (5_000, Some(5_000)));
    assert_eq!((points.len(), points[0].cash, points[0].shares), (1, 75_500 * USD, 25_000 * USD));
    // Day 1: 50,000 come at a worth of 100,500; 26.00: 125,500 + 26,000 = 151,500. Gain 1,000, of the start .995 %;
    // time-weighted 151,500 / 150,500 = 1.0066445.
    let (day, _) = book.went(&a, days(1, 2), "1d").await;
    assert_eq!((day.start, day.end, day.gain), (100_500 * USD, 151_500 * USD, 1_000 * USD));
    assert_eq!((day.gain_percent_e4, day.time_weighted_percent_e4), (9_950, Some(6_645)));
    // Day 2: 20,000 go at 151,500; 400 are sold at 25.50 for 10,200 less a fee of 2: cash 115,698, 600 at 25.50 are
    // 15,300: worth 130,998, gain -502, of the start -.3314 %; time-weighted 130,998 / 131,500 = .9961825.
    let (day, points) = book.went(&a, days(2, 3), "1d").await;
    assert_eq!((day.end, day.gain, day.outflows), (130_998 * USD, -502 * USD, 20_000 * USD));
    assert_eq!((day.gain_percent_e4, day.time_weighted_percent_e4), (-3_314, Some(-3_817)));
    assert_eq!((points[0].cash, points[0].shares), (115_698 * USD, 15_300 * USD));
    // Day 3: 100 at 26.00 and 1 of fee: 2,601; 650 at 27.00: 17,550: cash 130,647, 50 at 27.00: 1,350; worth 131,997.
    // All days: gain 131,997 - 150,000 + 20,000 = 1,997, of the inflows 1.3313 %; time-weighted
    // 1.005 x 151,500/150,500 x 130,998/131,500 x 131,997/130,998 = 1.0155013.
    let (all, points) = book.went(&a, until(3, 12), "1d").await;
    assert_eq!((all.start, all.end, all.gain), (0, 131_997 * USD, 1_997 * USD));
    assert_eq!((all.gain_percent_e4, all.time_weighted_percent_e4), (13_313, Some(15_501)));
    let curve: Vec<_> = points.iter().map(|p| p.value() / USD).collect();
    assert_eq!(curve, [100_500, 151_500, 130_998, 131_997]);
    // Money-weighted: 100,000 on day 0, 50,000 on day 1, -20,000 on day 2 and -131,997 on day 3 are worth nothing
    // together at this rate.
    let rate = all.money_weighted_percent_e4.unwrap() as f64 / 1_000_000.0;
    let present = |rate: f64| {
        let flows = [(0.0, 100_000.0), (1.0, 50_000.0), (2.0, -20_000.0), (3.0, -131_997.0)];
        flows.map(|(day, amount): (f64, f64)| amount / (1.0 + rate).powf(day / 365.0)).iter().sum::<f64>()
    };
    assert!(present(rate - 1e-6) * present(rate + 1e-6) < 0.0, "{rate}");
    // Within the first day there is none.
    let (day, _) = book.went(&a, until(0, 20), "1h").await;
    assert_eq!((day.money_weighted_percent_e4, day.gain), (None, 500 * USD));
}

#[tokio::test]
async fn a_period_split_anywhere_adds_up_to_the_whole() {
    let e = story();
    let book = Book::of(&e.facts).await;
    for at in [A, C, M, K, X] {
        let account = book.account(&e, at).await;
        let whole = until(3, 12);
        let (went, points) = book.went(&account, whole, "1h").await;
        let gained = book.gains(&account, whole).await;
        assert_eq!(points.len(), 84);
        let hours: Vec<i64> = (0..=84).map(|h| DAY_0 + h * HOUR_US).collect();
        // Every hour, and moments between two postings of the same command's microseconds.
        let odd = [
            9 * HOUR_US + 12,
            9 * HOUR_US + 14,
            2 * DAY_US + 12 * HOUR_US + 23,
            3 * DAY_US + 10 * HOUR_US + 25,
        ];
        let mut cuts = hours.clone();
        cuts.extend(odd.map(|us| DAY_0 + us));
        cuts.sort_unstable();
        let (mut gain, mut growth, mut end) = (0, 1.0, 0);
        let mut sums: BTreeMap<String, (Traded, i128)> = BTreeMap::new();
        for pair in cuts.windows(2) {
            let span = Span { from_us: pair[0], to_us: pair[1] };
            let (part, _) = book.went(&account, span, "1d").await;
            assert_eq!(part.start, end, "it begins where the last one ended");
            (gain, end) = (gain + part.gain, part.end);
            growth *= 1.0 + part.time_weighted_percent_e4.unwrap_or(0) as f64 / 1e6;
            for g in book.gains(&account, span).await {
                let sum = sums.entry(g.symbol).or_default();
                *sum = (sum.0 + g.traded, sum.1 + g.realized_fifo);
            }
        }
        assert_eq!((gain, end), (went.gain, went.end));
        let growth = ((growth - 1.0) * 1e6).round() as i64;
        assert!((growth - went.time_weighted_percent_e4.unwrap()).abs() < 50, "{growth}: rounded 80 times");
        for g in gained {
            assert_eq!(sums[&g.symbol], (g.traded, g.realized_fifo), "{} of {at}", g.symbol);
        }
        let at_hours: Vec<_> = points.iter().map(|p| p.until_us).collect();
        assert_eq!(at_hours, hours[1..]);
    }
}

#[tokio::test]
async fn gains_are_by_average_cost_and_first_in_first_out_beside_it() {
    let e = story();
    let book = Book::of(&e.facts).await;
    let a = book.account(&e, A).await;
    // 400 of 1,000 for 24,500: 9,800 of cost; 10,200 less 2 of fee: 398, by either way.
    let day = &book.gains(&a, days(2, 3)).await[0];
    assert_eq!((day.traded.realized(), day.realized_fifo), (398_000_000, 398_000_000));
    assert_eq!((day.traded.fees, day.traded.sold, day.quantity), (2_000_000, 4_000_000, 600 * SHARE));
    assert_eq!((day.cost, day.cost_fifo, day.value), (14_700_000_000, 14_700_000_000, 15_300_000_000));
    // Day 3: 100 for 2,601. Of 700 for 17,301 650 go: what remains is 17,301 x 50/700 = 1,235.785714, rounded down, so
    // 16,065.214286 go with them: 17,550 - 16,065.214286 = 1,484.785714. First in first out go 600 for 14,700 and 50 of
    // 100 for 2,601, 1,300.50: 17,550 - 16,000.50 = 1,549.50.
    let day = &book.gains(&a, Span { from_us: DAY_0 + 3 * DAY_US, ..until(3, 12) }).await[0];
    assert_eq!((day.traded.realized(), day.realized_fifo), (1_484_785_714, 1_549_500_000));
    assert_eq!((day.cost, day.cost_fifo), (1_235_785_714, 1_300_500_000));
    assert_eq!((day.price_e4, day.value), (27 * DOLLAR, 1_350_000_000));
    let all = &book.gains(&a, until(3, 12)).await[0];
    assert_eq!((all.traded.realized(), all.realized_fifo), (1_882_785_714, 1_947_500_000));
    assert_eq!((all.traded.trades, all.traded.fees), (4, 3_000_000));
    // Gained in all: realised and what is there above its cost, by either way.
    assert_eq!(all.traded.realized() + all.value - all.cost, 1_997_000_000);
    assert_eq!(all.realized_fifo + all.value - all.cost_fifo, 1_997_000_000);
    let lots = |day: i64, after: i64, limit| {
        let account = a.clone();
        book.shelf.db.read(move |tx| {
            let cut = store::cut(tx, DAY_0 + day * DAY_US)?;
            reports::lots(tx, &account, "INTC", cut, after, limit)
        })
    };
    let now = lots(4, 0, 10).await.unwrap();
    assert_eq!((now.count, now.quantity_e4, now.cost_micros), (1, 50 * SHARE, 1_300_500_000));
    assert_eq!((now.lots[0].quantity_e4, now.lots[0].left_e4), (100 * SHARE, 50 * SHARE));
    assert_eq!(now.lots[0].cost_micros, 1_300_500_000);
    let then = lots(3, 0, 10).await.unwrap();
    assert_eq!((then.lots.len(), then.lots[0].left_e4, then.cost_micros), (1, 600 * SHARE, 14_700_000_000));
}

#[tokio::test]
async fn shares_of_another_currency_are_worth_what_the_rate_of_the_moment_makes_of_them() {
    let mut e = story();
    // 3 SHOP at 100 CAD are 300 CAD, at 1.40 214.285714 USD; the account is charged a micro more.
    e.clock(3, 11);
    let (bought, sold) =
        (Party { at: A, cash: 214_285_715, fee: 0 }, Party { at: M, cash: 214_285_714, fee: 0 });
    e.swap(("SHOP", "CAD"), 3 * SHARE, 100 * DOLLAR, bought, sold);
    let book = Book::of(&e.facts).await;
    let k = book.account(&e, K).await;
    // Day 0: 10,000 - 342.50 + 10 x 25 x 1.37 = 10,000. Day 1: 10 x 26 x 1.37 = 356.20: 10,013.70. Day 2: 1.40 and
    // 25.50: 357: 10,014.50. Day 3: 27.00: 378: 10,035.50.
    let (went, points) = book.went(&k, until(3, 12), "1d").await;
    let worth: Vec<_> = points.iter().map(|p| p.value()).collect();
    assert_eq!(worth, [10_000_000_000, 10_013_700_000, 10_014_500_000, 10_035_500_000]);
    assert_eq!((went.gain, went.time_weighted_percent_e4), (35_500_000, Some(3_550)));
    let a = book.account(&e, A).await;
    let gains = book.gains(&a, until(3, 12)).await;
    // 300 / 1.40 = 214.2857142857: 214.285714; the micro is what it lost.
    assert_eq!((gains[1].symbol.as_str(), gains[1].value, gains[1].cost), ("SHOP", 214_285_714, 214_285_715));
}

#[tokio::test]
async fn a_statement_of_any_span_adds_up_page_by_page() {
    let e = story();
    let book = Book::of(&e.facts).await;
    let a = book.account(&e, A).await;
    let whole = book.statement(&a, until(3, 12), 0, 100).await;
    let changes: Vec<_> =
        whole.entries.iter().map(|x| (x.change_micros / USD, x.balance_micros / USD)).collect();
    assert_eq!(
        changes,
        [
            (500, 500),
            (99_500, 100_000),
            (-24_500, 75_500),
            (50_000, 125_500),
            (-20_000, 105_500),
            (10_200, 115_700),
            (-2, 115_698),
            (-2_600, 113_098),
            (-1, 113_097),
            (17_550, 130_647),
        ]
    );
    assert_eq!((whole.opening_micros, whole.closing_micros, whole.more), (0, 130_647 * USD, false));
    let sold = &whole.entries[5];
    assert_eq!((sold.symbol.as_str(), sold.quantity_e4, sold.price_e4), ("INTC", -400 * SHARE, 2_550 * CENT));
    assert_eq!((sold.exec_id.as_str(), whole.entries[6].quantity_e4), ("INTC:5", 0));
    // Any span: from each hour to each later one, in pages of three.
    for from in (0..84).step_by(7) {
        for to in (from + 1..=84).step_by(9) {
            let span = Span { from_us: DAY_0 + from * HOUR_US, to_us: DAY_0 + to * HOUR_US };
            let (mut after, mut balance, mut rows) = (0, None, 0);
            loop {
                let page = book.statement(&a, span, after, 3).await;
                let mut so_far = balance.unwrap_or(page.opening_micros);
                for entry in &page.entries {
                    so_far += entry.change_micros;
                    assert_eq!(so_far, entry.balance_micros);
                    let transaction = entry.transaction.as_ref().unwrap();
                    assert!((span.from_us..span.to_us).contains(&transaction.created_us));
                    after = super::wire::posting_of(&transaction.id.parse().unwrap()).unwrap();
                }
                (balance, rows) = (Some(so_far), rows + page.entries.len());
                assert!(page.entries.len() <= 3);
                if !page.more {
                    assert_eq!(so_far, page.closing_micros, "{from} to {to}");
                    break;
                }
            }
            let expected = whole.entries.iter().filter_map(|x| x.transaction.as_ref());
            let expected = expected.filter(|t| (span.from_us..span.to_us).contains(&t.created_us)).count();
            assert_eq!(rows, expected, "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn a_reports_pages_have_each_line_of_the_statement_once() {
    let e = story();
    let book = Book::of(&e.facts).await;
    let (a, span) = (book.account(&e, A).await, until(3, 12));
    for limit in [2, 3, 4, 5, 100] {
        let (mut after, mut trades, mut flows) = (0, Vec::new(), Vec::new());
        loop {
            let page = book.report(&a, span, after, limit).await;
            assert_eq!((page.opening_micros, page.closing_micros), (0, 130_647 * USD), "{limit}");
            assert!(page.trades.len() + page.flows.len() <= limit as usize);
            assert!(!page.trades.is_empty() || !page.flows.is_empty());
            trades.extend(page.trades);
            flows.extend(page.flows);
            after = super::wire::posting_of(&page.end_id.parse().unwrap()).unwrap();
            if !page.more {
                break;
            }
        }
        // 1,000 at 24.50; 400 at 25.50, 2 of fee; 100 at 26.00, 1 of fee; 650 at 27.00.
        let told: Vec<_> = trades
            .iter()
            .map(|t| (t.side(), t.quantity_e4 / SHARE, t.amount_micros / USD, t.fee_micros / USD))
            .collect();
        let expected = [
            (Side::Buy, 1_000, 24_500, 0),
            (Side::Sell, 400, 10_200, 2),
            (Side::Buy, 100, 2_600, 1),
            (Side::Sell, 650, 17_550, 0),
        ];
        assert_eq!(told, expected, "{limit}");
        let flowed: Vec<_> = flows.iter().map(|f| (f.change_micros / USD, f.balance_micros / USD)).collect();
        assert_eq!(flowed, [(500, 500), (99_500, 100_000), (50_000, 125_500), (-20_000, 105_500)], "{limit}");
        let cash: i64 = trades
            .iter()
            .map(|t| -t.fee_micros + if t.side() == Side::Buy { -t.amount_micros } else { t.amount_micros })
            .sum();
        assert_eq!(cash + flows.iter().map(|f| f.change_micros).sum::<i64>(), 130_647 * USD);
    }
}

#[tokio::test]
async fn a_closed_account_and_shares_without_a_price_keep_their_figures() {
    let mut e = story();
    e.clock(4, 9);
    e.shares(C, "NEW", 10 * SHARE, 0);
    e.cash(C, 100 * USD, Cause::Deposit, "");
    let book = Book::of(&e.facts).await;
    let c = book.account(&e, C).await;
    // No price of NEW was ever known: it counts for nothing.
    let (went, _) = book.went(&c, days(4, 5), "1d").await;
    assert_eq!((went.start, went.end, went.gain), (20_000 * USD, 20_100 * USD, 0));
    // Its first trade, at 7.00, is what it was worth before: 70 came with it.
    e.clock(5, 9);
    e.list("NEW", "USD", 0);
    let cash = 7 * USD;
    e.swap(("NEW", "USD"), SHARE, 7 * DOLLAR, Party { at: X, cash, fee: 0 }, Party { at: C, cash, fee: 0 });
    let book = Book::of(&e.facts).await;
    let (went, _) = book.went(&c, days(4, 5), "1d").await;
    assert_eq!((went.end, went.inflows, went.gain), (20_170 * USD, 170 * USD, 0));
    assert_eq!(went.time_weighted_percent_e4, Some(0));
    // Closing takes 20,107 of cash and 9 shares of 7.00 away: a flow out, no loss.
    e.clock(6, 9);
    e.close(C, &["NEW"]);
    let book = Book::of(&e.facts).await;
    let (went, points) = book.went(&c, days(2, 8), "1d").await;
    assert_eq!((went.start, went.end, went.gain), (0, 0, 0));
    assert_eq!((went.inflows, went.outflows), (20_170 * USD, 20_170 * USD));
    assert_eq!(
        points.iter().map(|p| p.value() / USD).collect::<Vec<_>>(),
        [20_000, 20_000, 20_170, 20_170, 0, 0]
    );
    let gains = &book.gains(&c, days(2, 8)).await[0];
    assert_eq!((gains.traded.realized(), gains.realized_fifo), (7_000_000, 7_000_000));
    assert_eq!((gains.quantity, gains.cost, gains.cost_fifo), (0, 0, 0));
    let statement = book.statement(&c, days(2, 8), 0, 100).await;
    assert_eq!((statement.opening_micros, statement.closing_micros), (0, 0));
    assert_eq!(statement.entries.len(), 6, "three of cash, one of a sale, two of shares");
}

#[tokio::test]
async fn what_is_kept_of_days_is_what_the_postings_say() {
    let e = story();
    let book = Book::of(&e.facts).await;
    for at in [A, M, K, X] {
        let account = book.account(&e, at).await;
        let (whole, split) = book
            .shelf
            .db
            .read(move |tx| {
                let mut assets = store::assets(tx, &account)?;
                assets.retain(|(asset, _)| *asset != account.currency.asset());
                let zero = Cut { time_us: 0, id: 0 };
                let end = store::cut(tx, i64::MAX)?;
                let whole = reports::traded_between(tx, &account, &assets, zero, end)?;
                let mut split: BTreeMap<i64, Traded> = BTreeMap::new();
                let mut from = zero;
                // A cut within every day: nothing of a day is read as it is kept.
                for hour in (0..100).step_by(5) {
                    let to = store::cut(tx, DAY_0 + hour * HOUR_US + 1)?;
                    for (asset, traded) in reports::traded_between(tx, &account, &assets, from, to)? {
                        let sum = split.entry(asset).or_default();
                        *sum = *sum + traded;
                    }
                    from = to;
                }
                Ok((whole, split))
            })
            .await
            .unwrap();
        assert_eq!(whole, split, "{at}");
        assert!(whole.values().any(|t| t.trades > 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_the_figures_are_the_same() {
    let Some(url) = external("FAFNIR_TEST_POSTGRES_URL") else { return };
    let e = story();
    let prefix = format!("test_{}_", Uuid::new_v4().simple());
    let file = Book::of(&e.facts).await;
    let server = Book { shelf: Shelf::on_server(&url, &format!("{prefix}portfolio_db")).await };
    server.shelf.apply(&e.facts, 5).await;
    let (a, span) = (file.account(&e, A).await, until(3, 12));
    assert_eq!(file.went(&a, span, "1h").await, server.went(&a, span, "1h").await);
    assert_eq!(file.statement(&a, span, 0, 4).await, server.statement(&a, span, 0, 4).await);
    let (here, there) = (file.gains(&a, span).await, server.gains(&a, span).await);
    assert_eq!(format!("{here:?}"), format!("{there:?}"));
    drop(server);
    drop_databases(&url, &prefix).await;
}

/// Prints how long an account of a million postings takes: `cargo test -p fafnir-portfolio --lib million -- --ignored
/// --nocapture`.
#[tokio::test]
#[ignore = "takes minutes; a measurement"]
async fn an_account_of_a_million_postings_is_answered() {
    const TRADES: i64 = 333_000;
    const DAYS: i64 = 30;
    let mut e = Engine::default();
    e.clock(-1, 0);
    e.list("INTC", "USD", 24 * DOLLAR);
    e.clock(0, 1);
    for owner in [1, 2] {
        e.open(&user(owner), "USD");
    }
    e.cash(0, 100_000_000 * USD, Cause::Deposit, "");
    e.cash(1, 100_000_000 * USD, Cause::Deposit, "");
    e.shares(1, "INTC", 1_000_000 * SHARE, 24_000_000 * USD);
    let shelf = Shelf::new().await;
    let started = Instant::now();
    let mut applied = 0;
    for n in 0..TRADES {
        e.now_us = DAY_0 + HOUR_US + n * (DAYS * DAY_US / TRADES) - e.facts.len() as i64;
        let (buyer, seller) = if n % 3 == 2 { (1, 0) } else { (0, 1) };
        // Three postings of the account in each: shares, cash, fee.
        e.intc(buyer, seller, 1, 2_400 + n % 100, (USD / 100, USD / 100));
        if e.facts.len() - applied >= 1_024 {
            shelf.apply(&e.facts[applied..], 256).await;
            applied = e.facts.len();
        }
    }
    shelf.apply(&e.facts[applied..], 256).await;
    eprintln!("{TRADES} trades written in {:?}", started.elapsed());
    let book = Book { shelf };
    let account = book.account(&e, 0).await;
    let span = Span { from_us: DAY_0, to_us: DAY_0 + (DAYS + 1) * DAY_US };
    let odd = Span { from_us: DAY_0 + 5 * HOUR_US + 7, to_us: DAY_0 + 20 * DAY_US + 13 };
    for (what, span) in [("all", span), ("an odd span", odd)] {
        let started = Instant::now();
        let (went, points) = book.went(&account, span, "1h").await;
        let took = started.elapsed();
        eprintln!("performance of {what}: {} points in {took:?}, gain {}", points.len(), went.gain);
        let started = Instant::now();
        let gains = book.gains(&account, span).await;
        eprintln!("gains of {what}: {} trades in {:?}", gains[0].traded.trades, started.elapsed());
        let started = Instant::now();
        let page = book.statement(&account, span, 0, 1_000).await;
        eprintln!("first page of the statement of {what}: {:?}", started.elapsed());
        assert!(page.more);
    }
    let (started, mut after, mut rows, mut sum) = (Instant::now(), 0, 0, 0);
    loop {
        let page = book.statement(&account, span, after, 1_000).await;
        rows += page.entries.len();
        sum += page.entries.iter().map(|x| x.change_micros).sum::<i64>();
        let last = page.entries.last().unwrap().transaction.as_ref().unwrap();
        after = super::wire::posting_of(&last.id.parse().unwrap()).unwrap();
        if !page.more {
            assert_eq!(page.opening_micros + sum, page.closing_micros);
            break;
        }
    }
    eprintln!("the whole statement: {rows} rows in {:?}", started.elapsed());
    let (started, mut after, mut traded) = (Instant::now(), 0, 0);
    loop {
        let page = book.report(&account, span, after, 1_000).await;
        traded += page.trades.len();
        if !page.more {
            break;
        }
        after = super::wire::posting_of(&page.end_id.parse().unwrap()).unwrap();
    }
    eprintln!("the lines of the whole report: {traded} trades in {:?}", started.elapsed());
    assert_eq!(traded as i64, TRADES);
    assert!(rows as i64 >= 2 * TRADES);
}

/// Courses that nobody thought of: flows in and out, gains and losses, over three years.
fn courses() -> Vec<Vec<(i64, i64, i64)>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |range: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % range
    };
    let course = |n: i64| {
        let (mut day, mut worth) = (0, 1_000 + next(9_000));
        let mut events = vec![(day, 0, worth)];
        for _ in 0..n % 12 {
            day += 1 + next(90);
            // From two thirds to four thirds of it; then some comes or goes.
            let before = (worth * (667 + next(667)) / 1_000).max(1);
            let flow = next(2_000) - (before / 3).min(800);
            events.push((day, before, flow));
            worth = before + flow;
        }
        events.push((day + 1 + next(90), worth * (667 + next(667)) / 1_000, 0));
        events
    };
    (0..200).map(course).collect()
}

#[test]
fn returns_are_those_of_independent_libraries() {
    // pyxirr for the money-weighted rate, empyrical for the chain of the time-weighted one.
    let Ok(python) = std::env::var("FAFNIR_TEST_RETURNS_PYTHON") else {
        eprintln!("skipped: FAFNIR_TEST_RETURNS_PYTHON names no Python with pyxirr and empyrical-reloaded");
        return;
    };
    let courses = courses();
    let lines: Vec<String> = courses
        .iter()
        .map(|events| events.iter().map(|(d, b, f)| format!("{d},{b},{f}")).collect::<Vec<_>>().join(";"))
        .collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/returns_test.py");
    let ran = std::process::Command::new(python).arg(script).arg(lines.join(" ")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let told = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(told.lines().count(), courses.len());
    let mut rates = 0;
    for (events, line) in courses.iter().zip(told.lines()) {
        let mut course = Course::new(0, DAY_0);
        let (last, flows) = events.split_last().unwrap();
        for (day, before, amount) in flows {
            let time_us = DAY_0 + day * DAY_US + 7;
            course.flow(Flow { time_us, amount: amount * USD, before: before * USD });
        }
        let went = course.end(last.1 * USD, DAY_0 + last.0 * DAY_US);
        let (time_weighted, money_weighted) = line.split_once(' ').unwrap();
        let same = |ours: i64, theirs: &str| {
            let theirs: f64 = theirs.parse().unwrap();
            // Ours are rounded to the fourth decimal of a percentage.
            assert!((ours as f64 / 1e6 - theirs).abs() < 6e-7, "{ours} and {theirs} of {events:?}");
        };
        same(went.time_weighted_percent_e4.unwrap(), time_weighted);
        match went.money_weighted_percent_e4 {
            Some(rate) => {
                same(rate, money_weighted);
                rates += 1;
            }
            // A thousandfold a year, or all but a millionth lost: beyond what is told.
            None => assert!(
                money_weighted
                    .parse::<f64>()
                    .map_or(money_weighted == "None", |rate| !(-0.999_999..=1_000.0).contains(&rate)),
                "{money_weighted} of {events:?}"
            ),
        }
    }
    assert!(rates > 150, "{rates} of {} had a rate", courses.len());
}

/// A named period of the account's own clock.
#[tokio::test]
async fn every_period_of_the_first_day_says_what_the_day_gained() {
    // 10,000 come; 10 are bought at 148 and sold at 150: 20, whatever the period.
    let mut e = Engine::default();
    e.clock(0, 9);
    e.list("NVDA", "USD", 147 * DOLLAR);
    e.open(&user(1), "USD");
    e.open(&user(2), "USD");
    e.cash(1, 10_000 * USD, Cause::Deposit, "");
    e.shares(1, "NVDA", 100 * SHARE, 14_700 * USD);
    e.cash(0, 10_000 * USD, Cause::Deposit, "");
    for (buyer, seller, dollars) in [(0, 1, 148), (1, 0, 150)] {
        let cash = 10 * dollars * USD;
        let (bought, sold) = (Party { at: buyer, cash, fee: 0 }, Party { at: seller, cash, fee: 0 });
        e.swap(("NVDA", "USD"), 10 * SHARE, dollars * DOLLAR, bought, sold);
    }
    let book = Book::of(&e.facts).await;
    let account = book.account(&e, 0).await;
    let now_us = DAY_0 + 10 * HOUR_US;
    for period in ["1D", "1W", "1M", "MAX"] {
        let period = Period::parse(period).unwrap();
        let span = Span::of_figures(period, None, None, account.created_us, now_us).unwrap();
        let (went, points) = book.went(&account, span, "1d").await;
        assert_eq!((went.start, went.gain, went.gain_percent_e4), (0, 20 * USD, 2_000), "{period:?}");
        assert_eq!((points.len(), points[0].value()), (1, 10_020 * USD));
    }
    // Sold out, and still there with what it gained.
    let holding = book.shelf.db.read(move |tx| {
        let all = store::holdings(tx, &account, None)?;
        Ok((all, store::holdings(tx, &account, Some("NVDA"))?))
    });
    let (all, closed) = holding.await.unwrap();
    assert!(all.is_empty());
    assert_eq!((closed[0].1.posted, closed[0].1.realized), (0, 20 * USD));
}
