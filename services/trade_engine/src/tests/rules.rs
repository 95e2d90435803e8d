//! What the engine answers to commands, beside the rules of the book itself.

use super::support::*;
use crate::{
    domain::{Engine, Fact, Outcome},
    record::{Instruction, Record, Replace},
};
use fafnir_matching::{Kind, SelfTrade, Side, Tif};
use fafnir_proto::v1::{ExecKind, TradingState};

struct Bench {
    engine: Engine,
    time_us: i64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { engine: Engine::new(), time_us: START_US };
        bench.apply(&Record::Listing(listing("AAPL")));
        bench
    }

    fn facts(&mut self, record: &Record) -> Vec<Fact> {
        self.time_us += 1;
        let mut facts = Vec::new();
        self.engine.apply(self.engine.seq() + 1, self.time_us, record, &mut facts);
        facts
    }

    fn apply(&mut self, record: &Record) -> Vec<Outcome> {
        self.facts(record).into_iter().flat_map(|f| f.outcomes).collect()
    }

    fn instruct(&mut self, instruction: Instruction) -> Vec<Outcome> {
        let record = command(self.engine.cmd_seq() + 1, "AAPL", instruction).1;
        self.apply(&record)
    }
}

fn kinds(outcomes: &[Outcome]) -> Vec<ExecKind> {
    outcomes.iter().map(|o| o.kind).collect()
}

#[test]
fn a_trade_prints_at_the_makers_price_and_names_both_sides() {
    let mut bench = Bench::new();
    bench.instruct(Instruction::New(limit(1, 1, Side::Sell, 10, 10_000)));
    let outcomes = bench.instruct(Instruction::New(limit(2, 2, Side::Buy, 4, 10_100)));
    assert_eq!(kinds(&outcomes), [ExecKind::Accepted, ExecKind::Trade]);
    let trade = &outcomes[1];
    let maker = trade.maker.unwrap();
    assert_eq!((trade.price_e4, trade.quantity_e4, trade.open_e4, trade.trade_no), (1_000_000, 40_000, 0, 1));
    assert_eq!((trade.order, trade.user), (order_id(2), user_id(2)));
    assert_eq!((maker.order, maker.user, maker.open_e4), (order_id(1), user_id(1), 60_000));
    assert_eq!(trade.seq, 3);
    assert_eq!(bench.engine.open_order_ids(), [order_id(1)]);
}

#[test]
fn prices_off_tick_and_quantities_off_lot_are_rejected_and_change_nothing() {
    let mut bench = Bench::new();
    for (order, reason) in [
        (
            super::super::record::NewOrder { price_e4: 1_000_050, ..limit(1, 1, Side::Buy, 1, 1) },
            "PRICE_OFF_TICK",
        ),
        (super::super::record::NewOrder { price_e4: -100, ..limit(1, 1, Side::Buy, 1, 1) }, "PRICE_OFF_TICK"),
        (
            super::super::record::NewOrder { price_e4: i64::MAX / 100 * 100, ..limit(1, 1, Side::Buy, 1, 1) },
            "PRICE_OUT_OF_RANGE",
        ),
        (
            super::super::record::NewOrder { quantity_e4: 5_000, ..limit(1, 1, Side::Buy, 1, 1) },
            "QUANTITY_OFF_LOT",
        ),
        (super::super::record::NewOrder { quantity_e4: 0, ..limit(1, 1, Side::Buy, 1, 1) }, "BAD_QUANTITY"),
    ] {
        let outcomes = bench.instruct(Instruction::New(order));
        assert_eq!(kinds(&outcomes), [ExecKind::Rejected]);
        assert_eq!(outcomes[0].reason, reason);
        assert_eq!(bench.engine.open_orders(), 0);
    }
}

#[test]
fn an_order_for_a_symbol_that_is_not_listed_is_rejected_with_a_sequence_of_its_own() {
    let mut bench = Bench::new();
    let record = command(1, "NOPE", Instruction::New(limit(1, 1, Side::Buy, 1, 100))).1;
    let outcomes = bench.apply(&record);
    assert_eq!(
        (outcomes[0].kind, outcomes[0].reason, outcomes[0].seq),
        (ExecKind::Rejected, "UNKNOWN_SYMBOL", 1)
    );
}

#[test]
fn a_cancel_of_an_order_that_is_not_open_is_refused_by_name() {
    let mut bench = Bench::new();
    let outcomes = bench.instruct(Instruction::Cancel { order: order_id(9) });
    assert_eq!(kinds(&outcomes), [ExecKind::CancelRejected]);
    assert_eq!((outcomes[0].order, outcomes[0].reason), (order_id(9), "ORDER_NOT_OPEN"));
}

#[test]
fn a_replace_counts_versions_and_tells_the_new_total() {
    let mut bench = Bench::new();
    bench.instruct(Instruction::New(limit(1, 1, Side::Sell, 10, 10_000)));
    bench.instruct(Instruction::New(limit(2, 2, Side::Buy, 4, 10_000)));
    let change = Replace {
        order: order_id(1),
        quantity_e4: 80_000,
        price_e4: 1_010_000,
        stop_e4: 0,
        cap_e4: 0,
        version: 2,
    };
    let outcomes = bench.instruct(Instruction::Replace(change.clone()));
    assert_eq!(kinds(&outcomes), [ExecKind::Replaced]);
    let replaced = &outcomes[0];
    assert_eq!((replaced.version, replaced.quantity_e4, replaced.open_e4), (2, 80_000, 40_000));
    assert_eq!(replaced.price_e4, 1_010_000);
    let outcomes =
        bench.instruct(Instruction::Replace(Replace { quantity_e4: 40_000, version: 3, ..change }));
    assert_eq!((outcomes[0].kind, outcomes[0].version), (ExecKind::ReplaceRejected, 3));
    assert_eq!((outcomes[0].reason, outcomes[0].open_e4), ("BELOW_FILLED", 40_000));
}

#[test]
fn a_replaced_stop_has_no_limit_price() {
    for kind in [Kind::Stop, Kind::TrailingAmount, Kind::TrailingPercent] {
        let mut bench = Bench::new();
        bench.instruct(Instruction::New(limit(1, 1, Side::Sell, 1, 10_000)));
        bench.instruct(Instruction::New(limit(2, 2, Side::Buy, 1, 10_000)));
        let (stop_e4, trail_e4) = if kind == Kind::Stop { (950_000, 0) } else { (0, 50_000) };
        let stop = super::super::record::NewOrder {
            kind,
            price_e4: 0,
            stop_e4,
            trail_e4,
            cap_e4: 930_000,
            ..limit(3, 3, Side::Sell, 5, 0)
        };
        let outcomes = bench.instruct(Instruction::New(stop));
        assert_eq!((outcomes[0].kind, outcomes[0].held), (ExecKind::Accepted, true), "{kind:?}");
        let more = Replace {
            order: order_id(3),
            quantity_e4: 100_000,
            price_e4: 0,
            stop_e4: 0,
            cap_e4: 0,
            version: 2,
        };
        let outcomes = bench.instruct(Instruction::Replace(more));
        assert_eq!((outcomes[0].kind, outcomes[0].price_e4), (ExecKind::Replaced, 0), "{kind:?}");
        assert!(outcomes[0].stop_e4 > 0, "{kind:?}");
    }
}

#[test]
fn a_halt_refuses_new_orders_and_lets_cancels_through() {
    let mut bench = Bench::new();
    bench.instruct(Instruction::New(limit(1, 1, Side::Sell, 10, 10_000)));
    let halted = bench.instruct(Instruction::SetState { state: TradingState::Halted });
    assert_eq!((halted[0].kind, halted[0].state), (ExecKind::StateChanged, Some(TradingState::Halted)));
    assert!(bench.instruct(Instruction::SetState { state: TradingState::Halted }).is_empty());
    let refused = bench.instruct(Instruction::New(limit(2, 2, Side::Buy, 1, 10_000)));
    assert_eq!((refused[0].kind, refused[0].reason), (ExecKind::Rejected, "SYMBOL_HALTED"));
    assert_eq!(kinds(&bench.instruct(Instruction::Cancel { order: order_id(1) })), [ExecKind::Canceled]);
    let closed = bench.instruct(Instruction::SetState { state: TradingState::Closed });
    assert_eq!(closed[0].state, Some(TradingState::Closed));
    bench.instruct(Instruction::SetState { state: TradingState::Open });
    assert_eq!(
        kinds(&bench.instruct(Instruction::New(limit(3, 2, Side::Buy, 1, 10_000)))),
        [ExecKind::Accepted]
    );
}

#[test]
fn a_held_stop_is_accepted_held_and_triggers_on_the_last_trade() {
    let mut bench = Bench::new();
    bench.instruct(Instruction::New(limit(1, 1, Side::Sell, 1, 10_000)));
    bench.instruct(Instruction::New(limit(2, 1, Side::Sell, 5, 10_010)));
    let mut stop = limit(3, 3, Side::Buy, 2, 0);
    (stop.kind, stop.stop_e4, stop.cap_e4) = (Kind::Stop, 1_000_000, 1_005_000);
    let held = bench.instruct(Instruction::New(stop));
    assert_eq!((held[0].kind, held[0].held, held[0].stop_e4), (ExecKind::Accepted, true, 1_000_000));
    let outcomes = bench.instruct(Instruction::New(limit(4, 4, Side::Buy, 1, 10_000)));
    assert_eq!(kinds(&outcomes), [ExecKind::Accepted, ExecKind::Trade, ExecKind::Triggered, ExecKind::Trade]);
    assert_eq!((outcomes[3].order, outcomes[3].price_e4), (order_id(3), 1_001_000));
}

#[test]
fn decrement_takes_both_sides_down_in_one_outcome() {
    let mut bench = Bench::new();
    bench.instruct(Instruction::New(limit(1, 1, Side::Sell, 10, 10_000)));
    let mut order = limit(2, 1, Side::Buy, 4, 10_000);
    order.self_trade = SelfTrade::Decrement;
    let outcomes = bench.instruct(Instruction::New(order));
    assert_eq!(kinds(&outcomes), [ExecKind::Accepted, ExecKind::Decremented, ExecKind::Canceled]);
    let maker = outcomes[1].maker.unwrap();
    assert_eq!((outcomes[1].quantity_e4, outcomes[1].open_e4, maker.open_e4), (40_000, 0, 60_000));
}

#[test]
fn the_day_end_expires_day_orders_and_a_gtd_order_expires_at_its_time() {
    let mut bench = Bench::new();
    let mut day = limit(1, 1, Side::Buy, 1, 9_000);
    day.tif = Tif::Day;
    let mut gtd = limit(2, 1, Side::Buy, 1, 9_000);
    (gtd.tif, gtd.expires_us) = (Tif::Gtd, START_US + 1_000);
    bench.instruct(Instruction::New(day));
    bench.instruct(Instruction::New(gtd));
    bench.instruct(Instruction::New(limit(3, 1, Side::Buy, 1, 9_000)));
    assert_eq!(bench.engine.next_expiry_us(), Some(START_US + 1_000));
    bench.time_us = START_US + 2_000;
    let expired = bench.apply(&Record::Expire);
    assert_eq!(
        (expired[0].kind, expired[0].order, expired[0].reason),
        (ExecKind::Expired, order_id(2), "GTD")
    );
    assert_eq!(bench.engine.next_expiry_us(), None);
    let ended = bench.apply(&Record::DayEnd);
    assert_eq!((ended.len(), ended[0].order, ended[0].reason), (1, order_id(1), "DAY_END"));
    assert_eq!(bench.engine.open_order_ids(), [order_id(3)]);
}

#[test]
fn cancel_all_without_a_symbol_reaches_every_book_and_no_stranger() {
    let mut bench = Bench::new();
    bench.apply(&Record::Listing(listing("MSFT")));
    bench.instruct(Instruction::New(limit(1, 1, Side::Buy, 1, 9_000)));
    bench.apply(&command(2, "MSFT", Instruction::New(limit(2, 1, Side::Buy, 1, 9_000))).1);
    bench.instruct(Instruction::New(limit(3, 2, Side::Buy, 1, 9_000)));
    let all =
        |user| Record::Command { cmd_seq: 9, symbol: None, instruction: Instruction::CancelAll { user } };
    assert!(bench.facts(&all(user_id(77))).is_empty());
    let facts = bench.facts(&all(user_id(1)));
    assert_eq!(facts.len(), 2);
    assert_eq!(bench.engine.open_order_ids(), [order_id(3)]);
}

#[test]
fn sequences_have_no_gap_per_symbol_and_facts_none_at_all() {
    let mut engine = Engine::new();
    let mut facts = Vec::new();
    for (n, symbol) in SYMBOLS.iter().enumerate() {
        engine.apply(n as u64 + 1, START_US, &Record::Listing(listing(symbol)), &mut facts);
    }
    for (n, (_, record)) in random_commands(7, 5_000).iter().enumerate() {
        engine.apply(n as u64 + 5, START_US + n as i64, record, &mut facts);
    }
    let mut last = [0u64; 8];
    let mut trades = [0u64; 8];
    for (n, fact) in facts.iter().enumerate() {
        assert_eq!(fact.fact_no, n as u64 + 1);
        for outcome in &fact.outcomes {
            last[fact.market] += 1;
            assert_eq!(outcome.seq, last[fact.market]);
            if outcome.trade_no != 0 {
                trades[fact.market] += 1;
                assert_eq!(outcome.trade_no, trades[fact.market]);
                assert_ne!(outcome.user, outcome.maker.unwrap().user);
            }
        }
    }
    assert!(trades.iter().sum::<u64>() > 300);
}

/// The book depends on nothing, so it has limits of its own: they are those that the doors check against.
#[test]
fn the_book_and_the_rules_have_the_same_limits() {
    use fafnir_matching::{MAX_BAND_BPS, MAX_PARTS, MAX_PRICE};
    use fafnir_rules::limits;
    assert_eq!(i64::from(MAX_PRICE), limits::TICKS_MAX);
    assert_eq!(i64::try_from(MAX_PARTS), Ok(limits::ICEBERG_PARTS_MAX));
    assert_eq!(MAX_BAND_BPS, limits::VOLATILITY_BAND_BPS_MAX);
}
