//! Recordings of each form, and what is no recording.

use super::*;

const FLOW: &str = "time_ms,event,order_id,side,price_ticks,quantity_lots\n\
    1000,new,10,B,23647,200000000\n1500,new,11,S,23700,123456789\n1600,changed,10,B,23647,178855669\n\
    1600,trade,,,23647,21144331\n1700,cancel,7,B,100,1\n2000,filled,10,B,23647,0\n2500,new,12,B,23600,9999\n\
    3000,cancel,11,S,23700,123456789\n";

fn acts(recording: &Recording) -> Vec<Act> {
    recording.steps.iter().map(|step| step.act).collect()
}

#[test]
fn order_events_become_what_is_done() {
    let recording = read(FLOW, None).unwrap();
    let (buy, sell) = (Side::Buy, Side::Sell);
    assert_eq!(
        acts(&recording),
        [
            Act::New { order: 10, side: buy, price_e4: 2_364_700, quantity_e4: 20_000 },
            Act::New { order: 11, side: sell, price_e4: 2_370_000, quantity_e4: 12_345 },
            Act::Left { order: 10, quantity_e4: 17_885 },
            Act::Left { order: 10, quantity_e4: 0 },
            Act::Left { order: 11, quantity_e4: 0 },
        ]
    );
    assert_eq!((recording.began_us, recording.lasts_us()), (1_000_000, 2_000_000));
    // A trade, a cancel of nothing, and an order below the least lot.
    assert_eq!((recording.passed, recording.rounded), (3, 5));
    assert_eq!((recording.tick_e4, recording.lot_e4, recording.first_price_e4()), (100, 1, 2_364_700));
}

#[test]
fn a_recording_that_begins_later_begins_with_what_stood_then() {
    let mut recording = read(FLOW, None).unwrap();
    recording.begin_at(800_000);
    assert_eq!(
        recording.steps[..2],
        [
            Step {
                at_us: 0,
                act: Act::New { order: 10, side: Side::Buy, price_e4: 2_364_700, quantity_e4: 17_885 }
            },
            Step {
                at_us: 0,
                act: Act::New { order: 11, side: Side::Sell, price_e4: 2_370_000, quantity_e4: 12_345 }
            },
        ]
    );
    assert_eq!((recording.steps[2].at_us, recording.began_us), (200_000, 1_800_000));
}

#[test]
fn a_time_is_found_in_a_recording() {
    let mut recording = read(FLOW, None).unwrap();
    recording.began_us = 23 * 3_600_000_000;
    recording.steps.last_mut().unwrap().at_us = 2 * 3_600_000_000;
    assert_eq!(recording.offset_us("23:00:01"), Ok(1_000_000));
    assert_eq!(recording.offset_us("00:30"), Ok(90 * 60_000_000));
    assert!(recording.offset_us("12:00").unwrap_err().contains("lasts 2 hours"));
    assert!(recording.offset_us("soon").unwrap_err().contains("is no time"));
    assert!(recording.offset_us("25:00").is_err());
}

#[test]
fn lobster_s_messages_take_from_orders_and_from_the_levels_that_stood_before() {
    let messages = "34200.004241176,1,16113575,18,5853300,1\n\
        34200.025551909,4,99,7,5853300,1\n34200.1,1,500,100,5859400,-1\n34200.2,2,500,40,5859400,-1\n\
        34200.3,4,500,10,5859400,-1\n34200.4,3,500,50,5859400,-1\n34200.5,5,0,10,5856000,1\n\
        34200.6,3,77,5,5850000,1\n";
    let book = "5859400,200,5853300,18,9999999999,0,-9999999999,0\n";
    let recording = read(messages, Some(book)).unwrap();
    let (buy, sell) = (Side::Buy, Side::Sell);
    assert_eq!(
        acts(&recording),
        [
            Act::New { order: u64::MAX, side: sell, price_e4: 5_859_400, quantity_e4: 2_000_000 },
            Act::New { order: u64::MAX - 1, side: buy, price_e4: 5_853_300, quantity_e4: 180_000 },
            Act::Take { side: sell, price_e4: 5_853_300, quantity_e4: 70_000 },
            Act::Left { order: u64::MAX - 1, quantity_e4: 110_000 },
            Act::New { order: 500, side: sell, price_e4: 5_859_400, quantity_e4: 1_000_000 },
            Act::Left { order: 500, quantity_e4: 600_000 },
            Act::Take { side: buy, price_e4: 5_859_400, quantity_e4: 100_000 },
            Act::Left { order: 500, quantity_e4: 500_000 },
            Act::Left { order: 500, quantity_e4: 0 },
        ]
    );
    assert_eq!((recording.passed, recording.began_us), (2, 34_200_004_241));
}

#[test]
fn bars_are_walked_from_open_to_close_and_trade_their_volume() {
    let text = "Date,Open,High,Low,Close,Adj Close,Volume\n2026-11-27,10.00,10.50,9.80,10.20,10.20,4000\n";
    let recording = read(text, None).unwrap();
    let takes: Vec<(i64, i64, i64)> = recording
        .steps
        .iter()
        .filter_map(|step| match step.act {
            Act::Take { price_e4, quantity_e4, .. } => Some((step.at_us, price_e4, quantity_e4)),
            _ => None,
        })
        .collect();
    let quarter = 23_400 * 1_000_000 / 4;
    let points = [100_000, 98_000, 105_000, 102_000];
    let wanted: Vec<_> = (0..).zip(points).map(|(n, price)| (n * quarter, price, 10_000_000)).collect();
    assert_eq!(takes, wanted);
    let count = |f: fn(&Act) -> bool| acts(&recording).iter().filter(|act| f(act)).count();
    assert_eq!(count(|act| matches!(act, Act::New { .. })), 4 * 11);
    assert_eq!(count(|act| matches!(act, Act::Left { .. })), 3 * 10 + 4);
    assert_eq!((recording.tick_e4, recording.lot_e4), (100, 10_000));
}

#[test]
fn what_is_no_recording_is_refused_with_its_place() {
    let header = flow::HEADER;
    for (text, wanted) in [
        ("", "line 1: the file is empty"),
        (&format!("{header}\n"), "line 1: nothing is done in this recording"),
        (&format!("{header}\nx,new,1,B,1,1\n"), "line 2, column 1: time_ms \"x\" is no such number"),
        (&format!("{header}\n1,old,1,B,1,1\n"), "line 2, column 2: event \"old\" is none of"),
        (&format!("{header}\n1,new,1,X,1,1\n"), "line 2, column 4: side \"X\" is neither B nor S"),
        (&format!("{header}\n1,new,1,B,0,1\n"), "line 2, column 5: price_ticks 0"),
        (
            &format!("{header}\n5,new,1,B,1,90000\n4,new,2,B,1,90000\n"),
            "line 3, column 1: time_ms 4 is before",
        ),
        ("34200.0,1,5,18,5853300,1\n34199.0,1,6,18,5853300,1\n", "line 2, column 1: the time is before"),
        ("34200.0,1,5,18,5853300,1\n34201.0,1,6,18,5853300,2\n", "line 2, column 6: direction 2"),
        ("a,b\n1,2\n", "line 1: no column of the time"),
    ] {
        let fault = read(text, None).unwrap_err().to_string();
        assert!(fault.starts_with(wanted), "{text:?}: {fault}");
    }
}
