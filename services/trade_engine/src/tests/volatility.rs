//! The volatility band through the engine: it pauses, gathers, reopens by the clock, and survives a crash in between.

use super::{bench::*, support::*};
use crate::{recovery, replay::hash, sequencer::Config};
use fafnir_clearing::command::Instruction;
use fafnir_proto::v1::{self, FactKind, Side, TradingState, command::What};
use std::{fs, sync::atomic::Ordering};

const CLOSE: i64 = 1_000_000;

/// States that were told, with their reasons.
fn states(facts: &[v1::Fact]) -> Vec<(TradingState, &str)> {
    let changed = facts.iter().filter(|f| f.kind() == FactKind::StateChanged);
    changed.map(|f| (f.state(), f.reason.as_str())).collect()
}

const OPEN: (TradingState, &str) = (TradingState::Open, "");
const IN_PAUSE: (TradingState, &str) = (TradingState::Auction, "VOLATILITY_PAUSE");

#[test]
fn a_trade_outside_the_band_pauses_gathers_and_reopens_at_the_auctions_price() {
    let mut bench = Bench::new(banded(1, CLOSE, 1_000));
    assert_eq!(bench.market().band(), Some((900_000, 1_100_000)));
    bench.limit(1, Side::Sell, 5, 11_200);
    let paused = bench.limit(2, Side::Buy, 8, 11_300);
    assert_eq!(kinds(&paused), [FactKind::Accepted, FactKind::StateChanged]);
    assert_eq!((states(&paused), paused[1].price_e4), (vec![IN_PAUSE], 1_120_000));
    assert_eq!(bench.market().pause().map(|pause| pause.since_us), Some(bench.time_us));

    let immediate = order(3, Side::Buy, 1, |place| {
        place.price_e4 = 1_130_000;
        place.set_time_in_force(v1::TimeInForce::Ioc);
    });
    assert_eq!(bench.refused(3, immediate), "SYMBOL_IN_AUCTION");
    // A seller comes: all eight trade at 112.00 or 113.00, and 112.00 is nearer to the previous close.
    assert_eq!(kinds(&bench.limit(4, Side::Sell, 3, 11_100)), [FactKind::Accepted]);

    let reopened = bench.reopen();
    let trades: Vec<_> = reopened
        .iter()
        .filter(|f| f.trade_no != 0)
        .map(|f| (f.price_e4, f.quantity_e4, f.aggressor()))
        .collect();
    assert_eq!(trades, [(1_120_000, 30_000, Side::Unspecified), (1_120_000, 50_000, Side::Unspecified)]);
    assert_eq!(states(&reopened), [OPEN]);
    assert_eq!(bench.market().band(), Some((1_008_000, 1_232_000)));
    assert!(bench.reopen().is_empty());
    assert_eq!(bench.state.paused().count(), 0);
}

#[test]
fn a_market_order_pauses_and_a_second_pause_is_told_after_the_reopening() {
    let mut bench = Bench::new(banded(1, CLOSE, 200));
    bench.limit(1, Side::Sell, 5, 10_220);
    let paused = bench.of(2, market(2, Side::Buy, 5));
    assert_eq!(kinds(&paused), [FactKind::Accepted, FactKind::StateChanged, FactKind::Canceled]);
    assert_eq!(paused[2].reason, "VOLATILITY_PAUSE");

    // The auction's price elects a stop, which would trade outside the band around that price: it gathers.
    bench.limit(3, Side::Buy, 5, 10_220);
    bench.limit(4, Side::Sell, 5, 10_440);
    bench.of(
        5,
        order(5, Side::Buy, 1, |place| {
            place.set_type(v1::OrderType::Stop);
            place.stop_price_e4 = 1_022_000;
        }),
    );
    let reopened = bench.reopen();
    assert_eq!(states(&reopened), [OPEN, IN_PAUSE]);
    let waiting = bench.state.order(order_id(5)).unwrap();
    assert_eq!((waiting.state.name(), waiting.limit_e4()), ("NEW", 1_047_500), "a stop outlives the pause");
    assert!(reopened.windows(2).all(|w| w[1].exec_seq == w[0].exec_seq + 1));
    assert_eq!(bench.market().pause().map(|pause| pause.since_us), Some(bench.time_us));
}

#[test]
fn a_reopening_without_a_trade_moves_the_band_to_the_middle_of_the_market() {
    let mut bench = Bench::new(banded(1, CLOSE, 200));
    bench.limit(1, Side::Sell, 5, 10_220);
    assert_eq!(states(&bench.of(2, market(2, Side::Buy, 1))), [IN_PAUSE]);
    // One side alone is no market: the band stays, and the next order pauses again.
    assert_eq!(states(&bench.reopen()), [OPEN]);
    assert_eq!(bench.market().band(), Some((980_000, 1_020_000)));
    assert_eq!(states(&bench.of(3, market(3, Side::Buy, 1))), [IN_PAUSE]);
    bench.limit(4, Side::Buy, 5, 10_180);
    assert_eq!(states(&bench.reopen()), [OPEN]);
    assert_eq!(bench.market().band(), Some((999_600, 1_040_400)));
    assert_eq!(kinds(&bench.of(5, market(5, Side::Buy, 1))), [FactKind::Accepted, FactKind::Executed]);
}

#[test]
fn an_operators_state_ends_the_pause_and_decides_from_then_on() {
    for state in [TradingState::Halted, TradingState::PreOpen, TradingState::Auction, TradingState::Closed] {
        let mut bench = Bench::new(banded(1, CLOSE, 1_000));
        bench.limit(1, Side::Sell, 5, 11_200);
        bench.limit(2, Side::Buy, 5, 11_200);
        assert_eq!(states(&bench.state_to(state)), [(state, "")]);
        let market = bench.market();
        assert_eq!((v1::TradingState::from(market.state()), market.pause()), (state, None));
        assert!(bench.reopen().is_empty(), "{state:?}");
        assert_eq!(states(&bench.state_to(TradingState::Open)), [OPEN]);
        assert_eq!(bench.market().last().0, 1_120_000, "{state:?}: the auction has run");
    }
}

#[test]
fn the_band_follows_the_listing_and_the_day() {
    let mut bench = Bench::new(banded(1, CLOSE, 1_000));
    bench.limit(1, Side::Sell, 1, 10_800);
    bench.limit(2, Side::Buy, 1, 10_800);
    assert_eq!(bench.market().band(), Some((900_000, 1_100_000)));
    bench.own(Instruction::DayEnd);
    assert_eq!(bench.market().band(), Some((972_000, 1_188_000)));
    bench.system(banded(2, CLOSE, 500));
    assert_eq!(bench.market().band(), Some((1_026_000, 1_134_000)));
    bench.system(banded(3, CLOSE, 0));
    assert_eq!(bench.market().band(), None);
    bench.limit(3, Side::Sell, 1, 14_000);
    assert_eq!(kinds(&bench.limit(4, Side::Buy, 1, 14_000)), [FactKind::Accepted, FactKind::Executed]);
}

#[test]
fn without_a_previous_close_the_first_trade_is_the_reference() {
    let mut bench = Bench::new(banded(1, 0, 1_000));
    assert_eq!(bench.market().band(), None);
    bench.limit(1, Side::Sell, 1, 20_000);
    bench.limit(2, Side::Buy, 1, 20_000);
    assert_eq!(bench.market().band(), Some((1_800_000, 2_200_000)));
}

#[test]
fn an_auction_before_the_first_trade_has_the_limit_nearest_to_the_previous_close() {
    for (band_bps, close, price_e4) in
        [(0, CLOSE, 1_020_000), (1_000, 990_000, 980_000), (1_000, 1_010_000, 1_020_000), (0, 0, 980_000)]
    {
        let mut bench = Bench::new(banded(1, close, band_bps));
        bench.state_to(TradingState::PreOpen);
        bench.limit(1, Side::Buy, 1, 10_200);
        bench.limit(2, Side::Sell, 1, 9_800);
        bench.state_to(TradingState::Open);
        assert_eq!(bench.market().last().0, price_e4);
    }
}

#[test]
fn a_pause_lasts_once_more_where_its_auction_would_be_beyond_twice_the_band() {
    // 120.00 is twice the band of 10 % away, 120.01 is beyond it.
    for (cents, is_extended) in [(12_000, false), (12_001, true)] {
        let mut bench = Bench::new(banded(1, CLOSE, 1_000));
        bench.limit(1, Side::Sell, 5, cents);
        assert_eq!(states(&bench.limit(2, Side::Buy, 5, cents)), [IN_PAUSE]);
        let first = bench.market().pause().unwrap();
        let facts = bench.reopen();
        if !is_extended {
            assert_eq!(states(&facts), [OPEN]);
            continue;
        }
        assert_eq!((kinds(&facts), states(&facts)), (vec![FactKind::StateChanged], vec![IN_PAUSE]));
        assert_eq!((facts[0].price_e4, facts[0].until_us), (cents * 100, bench.time_us + PAUSE_US));
        let second = bench.market().pause().unwrap();
        assert!(second.extended && second.since_us == first.since_us && second.until_us > first.due_us);
        // The second time the auction runs, wherever it is.
        let reopened = bench.reopen();
        assert_eq!(states(&reopened), [OPEN]);
        assert_eq!(bench.market().last().0, cents * 100);
        assert!(bench.reopen().is_empty());
    }
}

#[test]
fn a_pause_ends_at_a_moment_that_position_and_symbol_choose_and_not_before() {
    let mut ends = std::collections::BTreeSet::new();
    for fills in 0..20 {
        let mut bench = Bench::new(banded(1, CLOSE, 1_000));
        for _ in 0..fills {
            bench.own(Instruction::SetFees { maker_bp: 1, taker_bp: 2 });
            bench.own(Instruction::SetFees { maker_bp: 2, taker_bp: 2 });
        }
        bench.limit(1, Side::Sell, 5, 11_200);
        let paused = bench.limit(2, Side::Buy, 5, 11_200);
        let (told, pause) = (paused.last().unwrap(), bench.market().pause().unwrap());
        assert_eq!((told.until_us, pause.until_us), (bench.time_us + PAUSE_US, bench.time_us + PAUSE_US));
        let later = fafnir_rules::pause::random_end_us(told.position, "AAPL", PAUSE_END_US);
        assert_eq!(pause.due_us, pause.until_us + later);
        ends.insert(later);
        bench.time_us = pause.due_us - 3;
        assert!(bench.own_reopen().is_empty() && bench.own_reopen().is_empty(), "it is not time yet");
        assert_eq!(states(&bench.own_reopen()), [OPEN]);
    }
    assert_eq!(ends.len(), 20, "each position has its own moment");
}

fn image_of(running: &Running) -> v1::BookImage {
    running.exchange.published.image("AAPL", 0).unwrap()
}

/// Lets the clock pass the interval between two images.
async fn settle(running: &Running) {
    running.now_us.fetch_add(1_000_000, Ordering::Relaxed);
    running.seq().await;
    running.seq().await;
}

#[tokio::test]
async fn a_pause_that_a_crash_interrupts_still_ends_with_its_auction() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    done(running.own(banded(2, CLOSE, 1_000)).await);
    done(running.execute(command(1, 1, limit(1, "AAPL", Side::Sell, 5, 11_200))).await);
    done(running.execute(command(2, 2, limit(2, "AAPL", Side::Buy, 5, 11_200))).await);
    settle(&running).await;
    let image = image_of(&running);
    assert_eq!((image.state(), image.indicative_price_e4), (TradingState::Auction, 1_120_000));
    // The directory as kill -9 leaves it: no last snapshot.
    let crash = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, crash.path().join(path.file_name().unwrap())).unwrap();
    }
    // And as a stop with a snapshot leaves it.
    running.stop().await;
    for (dir, has_snapshot) in [(crash.path(), false), (dir.path(), true)] {
        assert_eq!(recovery::recover(dir).unwrap().state.paused().count(), 1);
        let running = run(dir);
        assert_eq!(running.base > 0, has_snapshot);
        running.now_us.store(START_US + PAUSE_US - 1_000_000, Ordering::Relaxed);
        running.seq().await;
        assert_eq!(running.exchange.status().await.unwrap().trades, 0);
        running.now_us.store(START_US + PAUSE_US + PAUSE_END_US + 1_000_000, Ordering::Relaxed);
        running.seq().await;
        assert_eq!(running.exchange.status().await.unwrap().trades, 1);
        settle(&running).await;
        let image = image_of(&running);
        assert_eq!((image.state(), image.last_price_e4), (TradingState::Open, 1_120_000));
        let now = running.hash().await;
        running.stop().await;
        assert_eq!(hash(&replayed(dir)), now);
    }
}

#[tokio::test]
async fn random_commands_in_narrow_bands_replay_to_the_same_hash() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(Config { journal_keep_all: true, ..config(dir.path()) }).unwrap();
    running.prelude().await;
    for symbol in SYMBOLS {
        let mut narrow = banded(2, CLOSE, 20);
        if let What::SetInstrument(set) = &mut narrow
            && let Some(instrument) = &mut set.instrument
        {
            symbol.clone_into(&mut instrument.symbol);
            let is_foreign = symbol == "SHOP";
            if is_foreign { "CAD" } else { "USD" }.clone_into(&mut instrument.currency);
        }
        done(running.own(narrow).await);
    }
    let mut pauses = 0;
    for chunk in random_commands(91, 3_000).chunks(30) {
        running.feed(chunk).await;
        pauses += running.exchange.engine.query(|state| state.paused().count()).await.unwrap();
        running.now_us.fetch_add(PAUSE_US / 3, Ordering::Relaxed);
    }
    assert!(pauses > 10, "{pauses}");
    let now = running.hash().await;
    running.stop().await;
    assert_eq!(hash(&replayed(dir.path())), now);
}
