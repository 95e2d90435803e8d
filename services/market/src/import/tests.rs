//! Files as their vendors publish them, and what is wrong with others.

use super::*;

fn how() -> How {
    How { symbol: Some("AAPL".to_owned()), lot_e4: 10_000, ..How::default() }
}

fn good(text: &str) -> Read {
    read(text, &how()).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn faults(text: &str) -> Vec<String> {
    read(text, &how()).unwrap_err().iter().map(ToString::to_string).collect()
}

const YAHOO: &str = "Date,Open,High,Low,Close,Adj Close,Volume\n\
    2025-11-25,275.27,280.38,275.25,276.97,276.97,46914200\n\
    2025-11-26,276.96,279.53,276.63,277.55,277.55,33431400\n\
    2025-11-27,null,null,null,null,null,null\n\
    2025-11-28,277.26,279.00,275.99,278.85,278.85,20135600\n";

#[test]
fn a_file_of_each_vendor_is_recognised() {
    let yahoo = good(YAHOO);
    assert_eq!((yahoo.format, yahoo.is_intraday, yahoo.bars.len()), ("Yahoo", false, 3));
    assert_eq!(yahoo.null_rows, [4]);
    let first = Bar {
        time_us: 1_764_028_800_000_000,
        open_e4: 2_752_700,
        high_e4: 2_803_800,
        low_e4: 2_752_500,
        close_e4: 2_769_700,
        volume_e4: 469_142_000_000,
    };
    assert_eq!(yahoo.bars[0], first);

    let stooq = "Date,Open,High,Low,Close,Volume\n2025-11-25,275.27,280.38,275.25,276.97,46914200\n";
    let read = good(stooq);
    assert_eq!((read.format, read.bars), ("Stooq", vec![first]));
    let stooq = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n\
        AAPL.US,D,20251125,000000,275.27,280.38,275.25,276.97,46914200,0\n";
    let read = good(stooq);
    assert_eq!((read.format, read.is_intraday, read.bars), ("Stooq", false, vec![first]));

    let alpaca = "symbol,timestamp,open,high,low,close,volume,trade_count,vwap\n\
        AAPL,2025-11-25 14:30:00+00:00,275.27,275.9,275.25,275.8,1041021,9817,275.6\n\
        MSFT,2025-11-25 14:30:00+00:00,474,475,473,474.5,100,9,474.1\n\
        AAPL,2025-11-25 14:31:00+00:00,275.8,276,275.7,275.95,241021,4817,275.8\n";
    let read = good(alpaca);
    assert_eq!((read.format, read.is_intraday, read.bars.len(), read.others), ("Alpaca", true, 2, 1));

    let polygon = "ticker,volume,open,close,high,low,window_start,transactions\n\
        AAPL,4930,200.29,200.5,200.63,200.29,1744792500000000000,129\n\
        AAPL,1815,200.39,200.34,200.61,200.34,1744792560000000000,57\n";
    let read = good(polygon);
    assert_eq!((read.format, read.is_intraday, read.bars.len()), ("Polygon", true, 2));
    assert_eq!((read.bars[0].close_e4, read.bars[0].high_e4), (2_005_000, 2_006_300));
}

#[test]
fn klines_of_binance_need_rounding_and_their_volumes_come_down_to_the_lot() {
    let klines = "1764513000000,0.01634790,0.80000000,0.01575800,0.01577100,148976.11427815,1764513059999,2434.19055334,308,1756.87402397,28.46694368,0\n\
        1764513060000,0.01577100,0.02000000,0.01577000,0.01600000,12.50000000,1764513119999,2434.19055334,308,1756.87402397,28.46694368,0\n";
    assert_eq!(
        faults(klines)[0],
        "line 1, column 2: open \"0.01634790\" has more than 4 decimals; --round rounds such prices"
    );
    let read = read(klines, &How { round: true, ..how() }).unwrap();
    assert_eq!((read.format, read.is_intraday, read.rounded), ("Binance klines", true, 5));
    assert_eq!((read.bars[0].open_e4, read.bars[0].volume_e4), (163, 1_489_760_000));
    assert_eq!(read.volumes_rounded, 2);
}

#[test]
fn columns_that_are_called_otherwise_are_named() {
    let text = "Tag;Eröffnung;Hoch;Tief;Schluss\n2025-11-25;275.27;280.38;275.25;276.97\n";
    assert!(faults(text)[0].contains("--column time=NAME"), "{:?}", faults(text));
    let names =
        [("time", "Tag"), ("open", "Eröffnung"), ("high", "Hoch"), ("low", "Tief"), ("close", "Schluss")];
    let columns = names.map(|(f, n)| (f.to_owned(), n.to_owned())).to_vec();
    let read = read(text, &How { columns, ..how() }).unwrap();
    assert_eq!((read.format, read.bars.len(), read.bars[0].volume_e4), ("CSV", 1, 0));
}

#[test]
fn a_fault_names_its_line_and_column_and_all_are_told() {
    let text = "Date,Open,High,Low,Close,Adj Close,Volume\n\
        2025-11-25,275.27,270.00,275.25,276.97,276.97,46914200\n\
        2025-11-26,abc,279.53,276.63,277.55,277.55,33431400\n\
        2025-11-26,1,2,1,1,1,5\n\
        2025-11-26,1,2,1,1,1,5\n\
        26.11.2025,1,2,1,1,1,5\n\
        2025-11-28,1,2,1,-1,1,5\n\
        2025-11-29,1,2,1,1,1,-5\n\
        2025-12-01,1,2\n";
    assert_eq!(
        faults(text),
        [
            "line 2, column 3: the high is below another price of the row",
            "line 3, column 2: open \"abc\" is not a decimal number",
            "line 5, column 1: the time of line 4 again",
            "line 6, column 1: \"26.11.2025\" is no time that is known: 2026-11-30, 20261130, 2026-11-30T14:30:00Z, or an epoch",
            "line 7, column 5: close \"-1\" is not above 0",
            "line 8, column 7: volume \"-5\" is below 0",
            "line 9, column 4: no low",
        ]
    );
}

#[test]
fn files_of_nothing_of_others_and_of_five_minutes_are_refused() {
    assert_eq!(faults(""), ["line 1: the file is empty"]);
    assert_eq!(faults("Date,Open,High,Low,Close,Volume\n"), ["line 1: no row has a price"]);
    let others = "ticker,volume,open,close,high,low,window_start\nMSFT,1,1,1,1,1,1744792500000000000\n";
    assert_eq!(faults(others), ["line 1: all 1 rows are of other symbols"]);
    let five = "timestamp,open,high,low,close,volume\n\
        2025-11-25T14:30:00Z,1,1,1,1,1\n2025-11-25T14:35:00Z,1,1,1,1,1\n2025-11-25T14:40:00Z,1,1,1,1,1\n";
    assert_eq!(
        faults(five),
        ["line 3, column 1: no two bars lie a minute apart: bars are of days or of minutes"]
    );
}
