//! Many of everything: 100,000 subscriptions, and a subject index whose look-ups do not grow with them.

use crate::support::{TestBroker, round_trip, soon};
use fafnir_broker::core::sublist::Sublist;
use std::hint::black_box;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const MANY: usize = 100_000;

fn index(subscriptions: usize) -> Sublist {
    let mut index = Sublist::default();
    for id in 0..subscriptions {
        let pattern = match id % 4 {
            0 => format!("orders.{id}.*"),
            1 => format!("orders.{id}.>"),
            2 => format!("market.{}.{id}", id % 100),
            _ => format!("inbox.{id}"),
        };
        index.insert(&pattern, (id % 7 == 0).then_some("q"), id as u64);
    }
    index
}

/// Time of one look-up, the best of several rounds.
fn lookup_nanos(index: &Sublist, subscriptions: usize) -> f64 {
    const ROUND: usize = 2_000;
    let subjects: Vec<String> = (0..ROUND)
        .map(|at| format!("orders.{}.x", at * (subscriptions / ROUND).max(1) / 4 * 4 % subscriptions))
        .collect();
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for subject in &subjects {
            black_box(index.matches(black_box(subject)));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / ROUND as f64);
    }
    best
}

/// A ratio of two measurements of the same run: a scan would be a thousand times slower with a thousand times as many.
#[test]
fn looking_up_a_subject_does_not_take_longer_the_more_subscriptions_there_are() {
    let (few, many) = (index(100), index(MANY));
    assert_eq!(many.len(), MANY);
    let ratio = lookup_nanos(&many, MANY) / lookup_nanos(&few, 100);
    println!("a look-up among {MANY} subscriptions takes {ratio:.1} times one among 100");
    assert!(ratio < 50.0, "{ratio}");
    assert_eq!(many.matches("orders.400.x").plain.len(), 1);
}

#[tokio::test]
async fn one_client_may_hold_a_hundred_thousand_subscriptions_and_each_still_gets_its_own() {
    let broker = TestBroker::start().await;
    let socket = soon(TcpStream::connect(broker.address)).await.unwrap();
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read).lines();
    let writing = tokio::spawn(async move {
        let mut script = String::from("CONNECT {}\r\n");
        for id in 0..MANY {
            script.push_str(&format!("SUB many.{id} {id}\r\n"));
        }
        for id in [0, MANY / 2, MANY - 1] {
            script.push_str(&format!("PUB many.{id} 1\r\nx\r\n"));
        }
        script.push_str("PUB many.none 1\r\nx\r\nPING\r\n");
        write.write_all(script.as_bytes()).await.unwrap();
        write
    });
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line: &String| line != "PONG") {
        heard.push(soon(lines.next_line()).await.unwrap().unwrap());
    }
    let messages: Vec<&String> = heard.iter().filter(|line| line.starts_with("MSG")).collect();
    assert_eq!(messages, ["MSG many.0 0 1", "MSG many.50000 50000 1", "MSG many.99999 99999 1"]);
    // All of them end with their connection.
    drop((lines, soon(writing).await.unwrap()));
    let client = broker.connect().await;
    round_trip(&client).await;
}
