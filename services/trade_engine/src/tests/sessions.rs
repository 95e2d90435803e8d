//! The calendar through the engine: sessions begin and end with their auctions, the day with its session, also for an
//! engine that was down meanwhile.

use super::{bench::*, support::*};
use crate::{recovery, replay::hash, sequencer::Config};
use fafnir_clearing::command::Instruction;
use fafnir_proto::v1::{self, FactKind, OrderState, Side, TimeInForce, TradingState, command::What};
use fafnir_rules::calendar::{Calendar, Session};
use std::{path::Path, sync::atomic::Ordering};

const CLOSE: i64 = 1_000_000;
const HOUR_US: i64 = 3_600_000_000;
/// [`START_US`] is Friday, 2027-01-15, 08:00 UTC: 03:00 in New York.
const OPENS_US: i64 = START_US + 6 * HOUR_US + HOUR_US / 2;
const CLOSES_US: i64 = START_US + 13 * HOUR_US;
const DAY_US: i64 = 24 * HOUR_US;

fn session(bench: &mut Bench, session: Session) -> Vec<v1::Fact> {
    bench.own(Instruction::SetSession { session })
}

fn open_bench(at: Session) -> Bench {
    let mut bench = Bench::new(banded(1, CLOSE, 1_000));
    session(&mut bench, at);
    bench
}

/// A limit order for one auction or another time; a price of 0 cents is a MARKET order.
fn timed(number: u64, side: Side, time: TimeInForce, shares: i64, cents: i64) -> What {
    order(number, side, shares, |place| {
        place.price_e4 = cents * 100;
        if cents == 0 {
            place.set_type(v1::OrderType::Market);
        }
        place.set_time_in_force(time);
    })
}

fn states(facts: &[v1::Fact]) -> Vec<TradingState> {
    facts.iter().filter(|f| f.kind() == FactKind::StateChanged).map(v1::Fact::state).collect()
}

/// Price, shares and whether it was an auction, of each trade.
fn trades(facts: &[v1::Fact]) -> Vec<(i64, i64, bool)> {
    let trades = facts.iter().filter(|f| f.trade_no != 0);
    trades.map(|f| (f.price_e4, f.quantity_e4 / 10_000, f.aggressor() == Side::Unspecified)).collect()
}

/// Reasons of the orders that ended without a trade, by their number.
fn ended(facts: &[v1::Fact]) -> Vec<(u64, &str)> {
    let ended = facts.iter().filter(|f| matches!(f.kind(), FactKind::Canceled | FactKind::Expired));
    ended
        .map(|f| {
            let id = f.orders[0].order.as_ref().unwrap().id.as_str();
            ((1..20).find(|n| order_id(*n).to_string() == id).unwrap(), f.reason.as_str())
        })
        .collect()
}

#[test]
fn the_opening_auction_crosses_what_gathered_and_ends_what_was_for_it_alone() {
    let mut bench = open_bench(Session::PreOpen);
    assert_eq!(bench.market().state().name(), "PRE_OPEN");
    bench.limit(1, Side::Sell, 5, 10_000);
    bench.of(2, timed(2, Side::Buy, TimeInForce::Opg, 3, 10_100));
    bench.of(3, timed(3, Side::Buy, TimeInForce::Opg, 1, 0));
    bench.of(4, timed(4, Side::Buy, TimeInForce::Opg, 2, 9_900));
    bench.of(5, timed(5, Side::Buy, TimeInForce::Day, 2, 9_800));
    let opened = session(&mut bench, Session::Regular);
    assert_eq!(trades(&opened), [(1_000_000, 1, true), (1_000_000, 3, true)]);
    assert_eq!((ended(&opened), states(&opened)), (vec![(4, "AUCTION_END")], vec![TradingState::Open]));
    assert_eq!(bench.refused(4, timed(6, Side::Buy, TimeInForce::Opg, 2, 9_900)), "NO_OPENING_AUCTION");
    // What is left of the sale, and the DAY order, go on.
    assert_eq!(bench.market().open_orders(), 2);
}

#[test]
fn the_closing_auction_crosses_orders_on_close_with_the_book_and_ends_the_day() {
    let mut bench = open_bench(Session::PreOpen);
    // Taken before the opening and in the session; its auction is the next close.
    bench.of(1, timed(1, Side::Buy, TimeInForce::Cls, 4, 10_100));
    session(&mut bench, Session::Regular);
    bench.of(2, timed(2, Side::Sell, TimeInForce::Cls, 3, 0));
    bench.limit(3, Side::Sell, 2, 10_000);
    bench.of(4, timed(4, Side::Buy, TimeInForce::Day, 1, 9_900));
    bench.of(5, timed(5, Side::Sell, TimeInForce::Cls, 1, 10_300));
    assert_eq!(bench.market().last().0, 0, "orders on close trade with nobody before");
    let closed = session(&mut bench, Session::PreOpen);
    assert_eq!(trades(&closed), [(1_000_000, 3, true), (1_000_000, 1, true)]);
    assert_eq!(ended(&closed), [(5, "AUCTION_END"), (4, "DAY_END")]);
    assert_eq!(states(&closed), [TradingState::PreOpen]);
    let left = bench.state.order(order_id(3)).unwrap();
    assert_eq!((left.filled_e4, bench.market().open_orders()), (10_000, 1));
    assert_eq!(bench.state.day_end_us(), bench.time_us);
}

#[test]
fn a_volatility_pause_ends_with_the_closing_auction() {
    let mut bench = open_bench(Session::Regular);
    bench.limit(1, Side::Sell, 5, 11_200);
    bench.limit(2, Side::Buy, 5, 11_200);
    assert!(bench.market().pause().is_some());
    let closed = session(&mut bench, Session::PreOpen);
    assert_eq!((trades(&closed), states(&closed)), (vec![(1_120_000, 5, true)], vec![TradingState::PreOpen]));
    assert!(bench.market().pause().is_none() && bench.reopen().is_empty());
    // A new day: the band lies around the closing price.
    assert_eq!(bench.market().band(), Some((1_008_000, 1_232_000)));
}

#[test]
fn an_operators_state_goes_before_the_calendar() {
    let mut bench = open_bench(Session::Regular);
    bench.of(1, timed(1, Side::Buy, TimeInForce::Day, 1, 9_900));
    bench.of(2, timed(2, Side::Buy, TimeInForce::Cls, 1, 9_900));
    bench.limit(3, Side::Buy, 1, 9_800);
    bench.state_to(TradingState::Halted);
    let closed = session(&mut bench, Session::PreOpen);
    assert_eq!((ended(&closed), states(&closed)), (vec![(1, "DAY_END"), (2, "DAY_END")], vec![]));
    assert_eq!(bench.market().state().name(), "HALTED");
    // Open is what the calendar says.
    assert_eq!(states(&bench.state_to(TradingState::Open)), [TradingState::PreOpen]);
    bench.limit(4, Side::Sell, 1, 9_800);
    bench.state_to(TradingState::Closed);
    assert_eq!(bench.market().last().0, 980_000, "from a call to the close an auction runs");
    session(&mut bench, Session::Regular);
    assert_eq!(bench.market().state().name(), "CLOSED");
    assert_eq!(states(&bench.state_to(TradingState::Open)), [TradingState::Open]);
}

#[test]
fn a_symbol_that_is_listed_between_sessions_gathers_and_without_a_calendar_nothing_closes() {
    let mut bench = open_bench(Session::PreOpen);
    let mut other = banded(1, CLOSE, 0);
    if let What::SetInstrument(set) = &mut other {
        set.instrument.as_mut().unwrap().symbol = "MSFT".into();
    }
    assert_eq!(states(&bench.system(other)), [TradingState::PreOpen]);
    assert_eq!(states(&session(&mut bench, Session::Always)), [TradingState::Open; 2]);
    assert_eq!(bench.refused(1, timed(1, Side::Buy, TimeInForce::Cls, 1, 9_900)), "NO_CLOSING_AUCTION");
    assert_eq!(session(&mut bench, Session::Always), []);
}

fn xnys(dir: &Path) -> Config {
    Config { calendar: Calendar::Xnys, journal_keep_all: true, ..config(dir) }
}

async fn state_of(running: &Running, number: u64) -> Option<OrderState> {
    let found = move |state: &fafnir_clearing::State| state.order(order_id(number)).map(|o| o.state.into());
    running.exchange.engine.query(found).await.unwrap()
}

async fn market_state(running: &Running) -> &'static str {
    let symbol = fafnir_rules::symbol::Symbol::parse("AAPL").unwrap();
    let name = move |state: &fafnir_clearing::State| state.market(&symbol).unwrap().state().name();
    running.exchange.engine.query(name).await.unwrap()
}

#[tokio::test]
async fn the_clock_opens_and_closes_the_session_and_what_was_missed_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(xnys(dir.path())).unwrap();
    running.set_up().await;
    assert_eq!(market_state(&running).await, "PRE_OPEN");
    let at = |running: &Running, us: i64| running.now_us.store(us, Ordering::Relaxed);
    done(running.execute(command(1, 1, limit(1, "AAPL", Side::Sell, 5, 10_000))).await);
    done(running.execute(command(2, 2, timed(2, Side::Buy, TimeInForce::Opg, 2, 10_100))).await);
    done(running.execute(command(2, 3, timed(3, Side::Buy, TimeInForce::Day, 2, 9_000))).await);
    at(&running, OPENS_US - 1_000_000);
    assert_eq!(
        (market_state(&running).await, running.exchange.status().await.unwrap().trades),
        ("PRE_OPEN", 0)
    );
    at(&running, OPENS_US);
    running.seq().await;
    assert_eq!((market_state(&running).await, running.exchange.status().await.unwrap().trades), ("OPEN", 1));
    // Midnight UTC is no end of a day, the close is; this one with kill -9 before it.
    done(running.execute(command(2, 4, timed(4, Side::Buy, TimeInForce::Cls, 1, 10_000))).await);
    at(&running, CLOSES_US - 1_000_000);
    running.seq().await;
    assert_eq!(state_of(&running, 3).await, Some(OrderState::New));
    running.stop().await;

    let running = run_with(xnys(dir.path())).unwrap();
    at(&running, CLOSES_US + 3 * HOUR_US);
    running.seq().await;
    assert_eq!(
        (market_state(&running).await, running.exchange.status().await.unwrap().trades),
        ("PRE_OPEN", 2)
    );
    assert_eq!(state_of(&running, 3).await, None, "the DAY order ended with its session");
    assert_eq!(state_of(&running, 1).await, Some(OrderState::PartiallyFilled));
    // Saturday, Sunday, and Monday is Martin Luther King's: the next session is Tuesday's.
    done(running.execute(command(2, 5, timed(5, Side::Buy, TimeInForce::Day, 2, 9_000))).await);
    at(&running, OPENS_US + 3 * DAY_US + HOUR_US);
    running.seq().await;
    assert_eq!(
        (market_state(&running).await, state_of(&running, 5).await),
        ("PRE_OPEN", Some(OrderState::New))
    );
    running.stop().await;

    // Down from Monday to Wednesday noon: Tuesday's order ended on Tuesday.
    let running = run_with(xnys(dir.path())).unwrap();
    at(&running, OPENS_US + 5 * DAY_US + 2 * HOUR_US);
    running.seq().await;
    assert_eq!((market_state(&running).await, state_of(&running, 5).await), ("OPEN", None));
    let now = running.hash().await;
    running.stop().await;
    assert_eq!(hash(&replayed(dir.path())), now);

    // Back to 24x7: the session goes, the exchange trades at any time.
    let running = run_with(Config { calendar: Calendar::Always, ..xnys(dir.path()) }).unwrap();
    at(&running, CLOSES_US + 5 * DAY_US + HOUR_US);
    running.seq().await;
    assert_eq!(market_state(&running).await, "OPEN");
    running.stop().await;
    let recovered = recovery::recover(dir.path()).unwrap().state;
    assert_eq!(recovered.session(), Session::Always);
}
