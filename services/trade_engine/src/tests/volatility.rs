//! The volatility band through the engine: it pauses, gathers, reopens by the clock, and survives a crash in between.

use super::support::*;
use crate::{
    domain::{Engine, Outcome, PAUSED},
    record::{Instruction, Listing, Record},
    recovery,
};
use fafnir_matching::{Kind, Side, Tif};
use fafnir_proto::v1::{self, ExecKind, TradingState};
use std::{fs, sync::atomic::Ordering};

/// Previous close 100.00, band 10 %.
fn banded() -> Listing {
    Listing { previous_close_e4: 1_000_000, band_bps: 1_000, ..listing("AAPL") }
}

struct Bench {
    engine: Engine,
    time_us: i64,
}

impl Bench {
    fn new(listing: Listing) -> Self {
        let mut bench = Self { engine: Engine::new(), time_us: START_US };
        bench.apply(&Record::Listing(listing));
        bench
    }

    fn apply(&mut self, record: &Record) -> Vec<Outcome> {
        self.time_us += 1;
        let mut facts = Vec::new();
        // Every step also from a restored state: it is the same engine.
        let mut bytes = Vec::new();
        self.engine.encode(&mut bytes);
        let mut restored = Engine::decode(&bytes).unwrap();
        restored.apply(self.engine.seq() + 1, self.time_us, record, &mut Vec::new());
        self.engine.apply(self.engine.seq() + 1, self.time_us, record, &mut facts);
        assert_eq!(restored.hash(), self.engine.hash());
        facts.into_iter().flat_map(|f| f.outcomes).collect()
    }

    fn instruct(&mut self, instruction: Instruction) -> Vec<Outcome> {
        let record = command(self.engine.cmd_seq() + 1, "AAPL", instruction).1;
        self.apply(&record)
    }

    fn limit(&mut self, order: u64, side: Side, shares: i64, cents: i64) -> Vec<Outcome> {
        self.instruct(Instruction::New(limit(order, order, side, shares, cents)))
    }

    fn reopen(&mut self) -> Vec<Outcome> {
        self.apply(&Record::Reopen { symbol: symbol("AAPL") })
    }

    fn market(&self) -> &crate::market::Market {
        self.engine.market_of(&symbol("AAPL")).unwrap()
    }
}

fn kinds(outcomes: &[Outcome]) -> Vec<ExecKind> {
    outcomes.iter().map(|o| o.kind).collect()
}

fn states(outcomes: &[Outcome]) -> Vec<(Option<TradingState>, &'static str)> {
    outcomes.iter().filter(|o| o.kind == ExecKind::StateChanged).map(|o| (o.state, o.reason)).collect()
}

const OPEN: (Option<TradingState>, &str) = (Some(TradingState::Open), "");
const IN_PAUSE: (Option<TradingState>, &str) = (Some(TradingState::Auction), PAUSED);

#[test]
fn a_trade_outside_the_band_pauses_gathers_and_reopens_at_the_auctions_price() {
    let mut bench = Bench::new(banded());
    assert_eq!(bench.market().band(), Some((900_000, 1_100_000)));
    bench.limit(1, Side::Sell, 5, 11_200);
    let paused = bench.limit(2, Side::Buy, 8, 11_300);
    assert_eq!(kinds(&paused), [ExecKind::Accepted, ExecKind::StateChanged]);
    assert_eq!((states(&paused), paused[1].price_e4), (vec![IN_PAUSE], 1_120_000));
    assert_eq!(bench.market().state(), TradingState::Auction);
    assert_eq!(bench.market().paused_us(), Some(bench.time_us));
    assert_eq!(bench.engine.listing(&symbol("AAPL")), Some(banded()));

    let mut immediate = limit(3, 3, Side::Buy, 1, 11_300);
    immediate.tif = Tif::Ioc;
    let refused = bench.instruct(Instruction::New(immediate));
    assert_eq!((refused[0].kind, refused[0].reason), (ExecKind::Rejected, "WRONG_PHASE"));
    // A seller comes: all eight trade at 112.00 or 113.00, and 112.00 is nearer to the previous close.
    assert_eq!(kinds(&bench.limit(4, Side::Sell, 3, 11_100)), [ExecKind::Accepted]);
    // What the listing says again is no news to a pause.
    assert!(bench.apply(&Record::Listing(banded())).is_empty());

    let reopened = bench.reopen();
    let trades: Vec<_> =
        reopened.iter().filter(|o| o.trade_no != 0).map(|o| (o.price_e4, o.quantity_e4, o.auction)).collect();
    assert_eq!(trades, [(1_120_000, 30_000, true), (1_120_000, 50_000, true)]);
    assert_eq!(states(&reopened), [OPEN]);
    assert_eq!(bench.market().state(), TradingState::Open);
    assert_eq!(bench.market().band(), Some((1_008_000, 1_232_000)));
    assert!(bench.reopen().is_empty());
    assert_eq!(bench.engine.paused().count(), 0);
}

#[test]
fn a_market_order_pauses_and_a_second_pause_is_told_after_the_reopening() {
    let mut bench = Bench::new(banded());
    bench.limit(1, Side::Sell, 5, 11_200);
    let mut market = limit(2, 2, Side::Buy, 5, 0);
    (market.kind, market.tif, market.cap_e4) = (Kind::Market, Tif::Ioc, 1_150_000);
    let paused = bench.instruct(Instruction::New(market));
    assert_eq!(kinds(&paused), [ExecKind::Accepted, ExecKind::StateChanged, ExecKind::Canceled]);
    assert_eq!(paused[2].reason, PAUSED);

    // The auction's price reaches a stop, which would trade outside the band around that price.
    bench.limit(3, Side::Buy, 5, 11_200);
    bench.limit(4, Side::Sell, 5, 13_000);
    let mut stop = limit(5, 5, Side::Buy, 1, 0);
    (stop.kind, stop.stop_e4, stop.cap_e4) = (Kind::Stop, 1_120_000, 1_400_000);
    bench.instruct(Instruction::New(stop));
    let reopened = bench.reopen();
    assert_eq!(states(&reopened), [OPEN, IN_PAUSE]);
    let seqs: Vec<u64> = reopened.iter().map(|o| o.seq).collect();
    assert!(seqs.windows(2).all(|w| w[1] == w[0] + 1));
    assert_eq!(bench.market().paused_us(), Some(bench.time_us));
}

#[test]
fn a_reopening_without_a_trade_moves_the_band_to_the_middle_of_the_market() {
    let mut bench = Bench::new(banded());
    bench.limit(1, Side::Sell, 5, 11_200);
    let market = |order| {
        let mut market = limit(order, order, Side::Buy, 1, 0);
        (market.kind, market.tif, market.cap_e4) = (Kind::Market, Tif::Ioc, 1_150_000);
        Instruction::New(market)
    };
    assert_eq!(states(&bench.instruct(market(2))), [IN_PAUSE]);
    // One side alone is no market: the band stays, and the next order pauses again.
    assert_eq!(states(&bench.reopen()), [OPEN]);
    assert_eq!(bench.market().band(), Some((900_000, 1_100_000)));
    assert_eq!(states(&bench.instruct(market(3))), [IN_PAUSE]);
    bench.limit(4, Side::Buy, 5, 11_001);
    assert_eq!(states(&bench.reopen()), [OPEN]);
    assert_eq!(bench.market().band(), Some((999_000, 1_221_000)));
    assert_eq!(kinds(&bench.instruct(market(5))), [ExecKind::Accepted, ExecKind::Trade]);
}

#[test]
fn an_operators_state_ends_the_pause_and_decides_from_then_on() {
    for state in [TradingState::Halted, TradingState::PreOpen, TradingState::Auction, TradingState::Closed] {
        let mut bench = Bench::new(banded());
        bench.limit(1, Side::Sell, 5, 11_200);
        bench.limit(2, Side::Buy, 5, 11_200);
        let outcomes = bench.apply(&Record::Listing(Listing { state, ..banded() }));
        assert_eq!(states(&outcomes), [(Some(state), "")]);
        assert_eq!((bench.market().state(), bench.market().paused_us()), (state, None));
        assert!(bench.reopen().is_empty(), "{state:?}");
        let open = bench.apply(&Record::Listing(banded()));
        assert_eq!(states(&open), [OPEN]);
        assert_eq!(bench.market().last().0, 1_120_000, "{state:?}: the auction has run");
    }
}

#[test]
fn the_band_follows_the_listing_and_the_day() {
    let mut bench = Bench::new(banded());
    bench.limit(1, Side::Sell, 1, 10_800);
    bench.limit(2, Side::Buy, 1, 10_800);
    assert_eq!(bench.market().band(), Some((900_000, 1_100_000)));
    bench.apply(&Record::DayEnd);
    assert_eq!(bench.market().band(), Some((972_000, 1_188_000)));
    bench.apply(&Record::Listing(Listing { band_bps: 500, ..banded() }));
    assert_eq!(bench.market().band(), Some((1_026_000, 1_134_000)));
    bench.apply(&Record::Listing(Listing { band_bps: 0, ..banded() }));
    assert_eq!(bench.market().band(), None);
    bench.limit(3, Side::Sell, 1, 14_000);
    assert_eq!(kinds(&bench.limit(4, Side::Buy, 1, 14_000)), [ExecKind::Accepted, ExecKind::Trade]);
}

#[test]
fn without_a_previous_close_the_first_trade_is_the_reference() {
    let mut bench = Bench::new(Listing { previous_close_e4: 0, ..banded() });
    assert_eq!(bench.market().band(), None);
    bench.limit(1, Side::Sell, 1, 20_000);
    bench.limit(2, Side::Buy, 1, 20_000);
    assert_eq!(bench.market().band(), Some((1_800_000, 2_200_000)));
}

#[test]
fn an_auction_before_the_first_trade_is_nearest_to_the_previous_close() {
    for (band_bps, previous_close_e4, price_e4) in
        [(0, 1_000_000, 1_000_000), (1_000, 1_010_000, 1_010_000), (0, 0, 980_000)]
    {
        let listing = Listing { band_bps, previous_close_e4, state: TradingState::PreOpen, ..banded() };
        let mut bench = Bench::new(listing.clone());
        bench.limit(1, Side::Buy, 1, 10_200);
        bench.limit(2, Side::Sell, 1, 9_800);
        bench.apply(&Record::Listing(Listing { state: TradingState::Open, ..listing }));
        assert_eq!(bench.market().last().0, price_e4);
    }
}

#[test]
fn a_listing_of_an_older_journal_is_one_without_band() {
    let mut bytes = Vec::new();
    Record::Listing(listing("AAPL")).encode(&mut bytes);
    let mut old = bytes.clone();
    old.truncate(bytes.len() - 2);
    old[0] = 6;
    assert_eq!(Record::decode(&old), Ok(Record::Listing(listing("AAPL"))));
}

/// Two orders that meet outside the band.
fn outside() -> Vec<(u64, Record)> {
    vec![
        command(1, "AAPL", Instruction::New(limit(1, 1, Side::Sell, 5, 11_200))),
        command(2, "AAPL", Instruction::New(limit(2, 2, Side::Buy, 5, 11_200))),
    ]
}

fn state_of(running: &Running) -> v1::BookImage {
    running.published.image("AAPL", 0).unwrap()
}

/// Lets the clock pass the interval between two images.
async fn settle(running: &Running) {
    running.now_us.fetch_add(1_000_000, Ordering::Relaxed);
    running.handle.status().await.unwrap();
    running.handle.status().await.unwrap();
}

#[tokio::test]
async fn a_pause_that_a_crash_interrupts_still_ends_with_its_auction() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.handle.list(vec![banded()]).await.unwrap();
    running.handle.submit(outside()).await.unwrap();
    settle(&running).await;
    assert_eq!(state_of(&running).state(), TradingState::Auction);
    assert_eq!(state_of(&running).indicative_price_e4, 1_120_000);
    // The directory as kill -9 leaves it: no last snapshot.
    let crash = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, crash.path().join(path.file_name().unwrap())).unwrap();
    }
    // And as a stop with a snapshot leaves it.
    running.stop().await;
    for (dir, snapshot) in [(crash.path(), false), (dir.path(), true)] {
        assert_eq!(recovery::recover(dir).unwrap().engine.paused().count(), 1);
        let running = run(dir);
        assert_eq!(running.snapshot_seq > 0, snapshot);
        running.now_us.store(START_US + PAUSE_US - 1_000_000, Ordering::Relaxed);
        running.handle.status().await.unwrap();
        assert_eq!(running.handle.status().await.unwrap().trades, 0);
        running.now_us.store(START_US + PAUSE_US + 1_000_000, Ordering::Relaxed);
        running.handle.status().await.unwrap();
        assert_eq!(running.handle.status().await.unwrap().trades, 1);
        settle(&running).await;
        let image = state_of(&running);
        assert_eq!((image.state(), image.last_price_e4), (TradingState::Open, 1_120_000));
        let hash = running.hash().await;
        running.stop().await;
        assert_eq!(crate::state::hex(&replayed(dir).hash()), hash);
    }
}

#[tokio::test]
async fn random_commands_in_narrow_bands_replay_to_the_same_hash() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(crate::sequencer::Config { keep_all: true, ..config(dir.path()) });
    let narrow = SYMBOLS.map(|s| Listing { previous_close_e4: 1_000_000, band_bps: 20, ..listing(s) });
    running.handle.list(narrow.to_vec()).await.unwrap();
    let mut pauses = 0;
    for chunk in random_commands(91, 3_000).chunks(30) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
        pauses += running.handle.query(|engine| engine.paused().count()).await.unwrap();
        running.now_us.fetch_add(PAUSE_US / 3, Ordering::Relaxed);
    }
    assert!(pauses > 20, "{pauses}");
    let hash = running.hash().await;
    running.stop().await;
    assert_eq!(crate::state::hex(&replayed(dir.path()).hash()), hash);
}
