//! Rules of the broker, one test each, on the core alone: a disk that is instant, a clock that is told.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::BytesMut;
use fafnir_broker::core::log::Log;
use fafnir_broker::core::net::Nanos;
use fafnir_broker::core::random::Random;
use fafnir_broker::core::subject::matches;
use fafnir_broker::core::wire::Parser;
use fafnir_broker::core::{Account, Core, Input, Recovered, Securing, Settings};
use serde_json::{Value, json};

const MS: Nanos = 1_000_000;
const START: Nanos = 1_800_000_000_000 * MS;

/// What a client was sent.
#[derive(Debug, Clone)]
struct Frame {
    subject: String,
    reply: String,
    header: String,
    body: String,
}

impl Frame {
    fn status(&self) -> &str {
        self.header.lines().next().and_then(|line| line.strip_prefix("NATS/1.0 ")).unwrap_or("")
    }
}

/// A broker with one client, who listens to `in.>`, `d.>` and the advisories.
struct Bench {
    core: Core,
    now: Nanos,
    inbox: BytesMut,
    errors: Vec<String>,
    closes: usize,
}

fn settings(accounts: Vec<Account>) -> Settings {
    Settings {
        server_name: "rules".into(),
        server_id: "RULES".into(),
        host: "127.0.0.1".into(),
        port: 4222,
        accounts,
        payload_max: 8 << 20,
        connections_max: 10,
        subscriptions_max: 200_000,
        pending_max: 64 << 20,
        streams_max: 100,
        consumers_max: 100,
        auth_timeout: 2000 * MS,
        ping_interval: 1_000_000_000 * MS,
        seed: 7,
    }
}

impl Bench {
    fn new() -> Self {
        let core = Core::new(settings(Vec::new()), Recovered::default(), START);
        let mut bench = Self { core, now: START, inbox: BytesMut::new(), errors: Vec::new(), closes: 0 };
        bench.step(Input::Open { conn: 1, peer: "127.0.0.1:1".into(), securing: Securing::No });
        bench.raw(b"CONNECT {\"headers\":true,\"no_responders\":true}\r\nSUB in.> 1\r\nSUB d.> 2\r\n");
        bench
    }

    fn step(&mut self, input: Input) {
        self.core.step(self.now, input);
        loop {
            let effects = self.core.effects();
            assert!(effects.loads.is_empty(), "everything is in memory here");
            for (conn, bytes) in effects.writes {
                if conn == 1 {
                    self.inbox.extend_from_slice(&bytes);
                }
            }
            self.closes += effects.closes.len();
            if effects.ops.is_empty() {
                return;
            }
            self.core.step(self.now, Input::Durable { upto: effects.ops_last });
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        let mut buffer = BytesMut::from(bytes);
        let mut parser = Parser::new(8 << 20);
        while let Some(op) = parser.next(&mut buffer).unwrap() {
            self.step(Input::Op { conn: 1, op });
        }
    }

    fn publish(&mut self, subject: &str, reply: &str, header: &str, body: &[u8]) {
        let header = if header.is_empty() { String::new() } else { format!("NATS/1.0\r\n{header}\r\n\r\n") };
        let mut bytes =
            format!("HPUB {subject} {reply} {} {}\r\n{header}", header.len(), header.len() + body.len())
                .into_bytes();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n");
        self.raw(&bytes);
    }

    /// Lets time pass, in steps in which everything due is done.
    fn wait(&mut self, time: Nanos) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.core.next_deadline().unwrap_or(end).clamp(self.now + 1, end);
            self.step(Input::Tick);
        }
    }

    /// What was sent since this was last asked.
    fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(end) = self.inbox.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&self.inbox.split_to(end + 2)).trim().to_owned();
            let words: Vec<&str> = line.split(' ').collect();
            let headed = words[0] == "HMSG";
            if !headed && words[0] != "MSG" {
                if line.starts_with("-ERR") {
                    self.errors.push(line);
                }
                continue;
            }
            let numbers = if headed { 2 } else { 1 };
            let number = |back: usize| words[words.len() - back].parse::<usize>().unwrap();
            let body = self.inbox.split_to(number(1) + 2);
            let split = if headed { number(2) } else { 0 };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            frames.push(Frame {
                subject: words[1].to_owned(),
                reply: if words.len() > 3 + numbers { words[3].to_owned() } else { String::new() },
                header: text(&body[..split]),
                body: text(&body[split..body.len() - 2]),
            });
        }
        frames
    }

    fn request(&mut self, subject: &str, body: &str) -> Vec<Frame> {
        self.frames();
        self.publish(subject, "in.answer", "", body.as_bytes());
        self.frames().into_iter().filter(|frame| frame.subject == "in.answer").collect()
    }

    fn api(&mut self, operation: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answers = self.request(&format!("$JS.API.{operation}"), &body);
        serde_json::from_str(&answers.first().unwrap_or_else(|| panic!("{operation} is answered")).body)
            .unwrap()
    }

    fn stream(&mut self, name: &str, more: Value) -> Value {
        let mut config = json!({"name": name, "subjects": [format!("{}.>", name.to_lowercase())]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.api(&format!("STREAM.CREATE.{name}"), config)
    }

    fn consumer(&mut self, stream: &str, name: &str, more: Value) -> Value {
        let mut config = json!({"durable_name": name, "ack_policy": "explicit"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.api(
            &format!("CONSUMER.CREATE.{stream}.{name}"),
            json!({"stream_name": stream, "config": config}),
        )
    }

    fn fetch(&mut self, stream: &str, consumer: &str, pull: Value) -> Vec<Frame> {
        self.frames();
        self.publish(
            &format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            "in.pull",
            "",
            pull.to_string().as_bytes(),
        );
        self.frames()
    }

    /// Publishes and returns the answer.
    fn store(&mut self, subject: &str, header: &str, body: &str) -> Value {
        self.frames();
        self.publish(subject, "in.answer", header, body.as_bytes());
        let frames = self.frames();
        serde_json::from_str(&frames.iter().find(|frame| frame.subject == "in.answer").unwrap().body).unwrap()
    }

    fn messages(&mut self, stream: &str) -> u64 {
        self.api(&format!("STREAM.INFO.{stream}"), Value::Null)["state"]["messages"].as_u64().unwrap()
    }
}

fn bodies(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.body.as_str()).collect()
}

fn code(answer: &Value) -> u64 {
    answer["error"]["err_code"].as_u64().unwrap_or(0)
}

#[test]
fn a_reader_with_flow_control_is_asked_and_gets_more_when_it_answers() {
    let mut bench = Bench::new();
    bench.stream("S", json!({"storage": "memory"}));
    for _ in 0..80 {
        bench.store("s.x", "", &"x".repeat(100_000));
    }
    let config = json!({"name": "f", "ack_policy": "none", "deliver_subject": "d.f", "flow_control": true,
        "idle_heartbeat": 200 * MS});
    let request = json!({"stream_name": "S", "config": config}).to_string();
    bench.publish("$JS.API.CONSUMER.CREATE.S.f", "in.answer", "", request.as_bytes());
    let (mut got, mut asked) = (0, Vec::new());
    // A millisecond of a reader that reads at once what it was sent.
    let read = |bench: &mut Bench, got: &mut u32, asked: &mut Vec<String>| {
        for frame in bench.frames() {
            match frame.status() {
                "100 FlowControl Request" => asked.push(frame.reply),
                _ if frame.subject.starts_with("s.") => *got += 1,
                _ => {}
            }
        }
        bench.step(Input::Drained { conn: 1 });
        bench.wait(MS);
    };
    for _ in 0..50 {
        read(&mut bench, &mut got, &mut asked);
    }
    assert!((20..=25).contains(&got) && asked.len() == 1, "{got} {asked:?}: the first window is 2 MiB");
    assert!(asked[0].starts_with("$JS.FC.S.f."));
    bench.wait(250 * MS);
    let beat = bench.frames().into_iter().find(|frame| frame.status() == "100 Idle Heartbeat").unwrap();
    assert!(beat.header.contains(&format!("Nats-Consumer-Stalled: {}", asked[0])), "{}", beat.header);
    for _ in 0..400 {
        if let Some(reply) = asked.pop() {
            bench.publish(&reply, "", "", b"");
        }
        read(&mut bench, &mut got, &mut asked);
    }
    assert_eq!(got, 80);
}

#[test]
fn a_client_that_has_enough_to_read_is_waited_for_by_consumers_but_not_by_publishers() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    for number in 0..4 {
        bench.store("s.x", "", &number.to_string());
    }
    bench.consumer("S", "pull", json!({}));
    bench.step(Input::Filled { conn: 1 });
    assert!(bench.fetch("S", "pull", json!({"batch": 2})).is_empty());
    bench.consumer("S", "push", json!({"deliver_subject": "d.push", "ack_policy": "none"}));
    assert!(bench.frames().iter().all(|frame| !frame.subject.starts_with("s.")));
    bench.publish("d.core", "", "", b"core");
    assert_eq!(bodies(&bench.frames()), ["core"]);
    bench.step(Input::Drained { conn: 1 });
    let mut got: Vec<String> = bench.frames().into_iter().map(|frame| frame.body).collect();
    got.sort();
    assert_eq!(got, ["0", "0", "1", "1", "2", "3"]);
}

#[test]
fn a_slow_consumer_is_counted_and_told_once() {
    let mut bench = Bench::new();
    bench.raw(b"SUB $JS.EVENT.ADVISORY.> 9\r\n");
    for _ in 0..3 {
        bench.step(Input::Overflow { conn: 1 });
    }
    let told =
        bench.frames().iter().filter(|f| f.subject.starts_with("$JS.EVENT.ADVISORY.SLOW_CONSUMER.")).count();
    assert_eq!((bench.core.totals().slow_consumers, bench.closes, told), (1, 1, 1));
}

/// Ways in which a message leaves a stream.
const LEAVING: [&str; 6] = ["delete", "purge", "purge all", "rollup", "limit", "age"];

#[test]
fn what_leaves_the_stream_is_no_longer_awaited_and_makes_room_for_the_next() {
    for how in LEAVING {
        let mut bench = Bench::new();
        let config = match how {
            "limit" => json!({"max_msgs": 2}),
            "age" => json!({"max_age": 1000 * MS, "duplicate_window": 1000 * MS}),
            _ => json!({"allow_rollup_hdrs": true}),
        };
        bench.stream("S", config);
        bench.consumer("S", "c", json!({"max_ack_pending": 2, "ack_wait": 3_600_000 * MS}));
        bench.store("s.x", "", "1");
        bench.store("s.x", "", "2");
        assert_eq!(bodies(&bench.fetch("S", "c", json!({"batch": 2}))), ["1", "2"], "{how}");
        if how == "age" {
            bench.wait(900 * MS);
        }
        bench.store("s.x", if how == "rollup" { "Nats-Rollup: sub" } else { "" }, "3");
        match how {
            "delete" => drop(bench.api("STREAM.MSG.DELETE.S", json!({"seq": 1}))),
            "purge" => drop(bench.api("STREAM.PURGE.S", json!({"seq": 3}))),
            "purge all" => {
                bench.api("STREAM.PURGE.S", Value::Null);
                bench.store("s.x", "", "3");
            }
            "age" => bench.wait(200 * MS),
            _ => {}
        }
        assert_eq!(bodies(&bench.fetch("S", "c", json!({"batch": 1}))), ["3"], "{how}");
        let info = bench.api("CONSUMER.INFO.S.c", Value::Null);
        let left = if matches!(how, "delete" | "limit") { 2 } else { 1 };
        assert_eq!(info["num_ack_pending"], left, "{how} {info}");
    }
}

#[test]
fn a_rollup_of_a_pattern_replaces_what_the_pattern_describes() {
    let mut bench = Bench::new();
    bench.stream("S", json!({"allow_rollup_hdrs": true}));
    for subject in ["s.key", "s.key.1", "s.key.2", "s.key.2.deeper"] {
        bench.store(subject, "", "value");
    }
    bench.store("s.key.*", "Nats-Rollup: sub", "");
    assert_eq!(bench.messages("S"), 3);
    for (subject, there) in
        [("s.key", true), ("s.key.1", false), ("s.key.2", false), ("s.key.2.deeper", true)]
    {
        let last = bench.api("STREAM.MSG.GET.S", json!({"last_by_subj": subject}));
        assert_eq!(last["error"].is_null(), there, "{subject}: {last}");
    }
}

#[test]
fn a_request_that_does_not_wait_waits_for_acks() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    for number in 1..=3 {
        bench.store("s.x", "", &number.to_string());
    }
    bench.consumer("S", "c", json!({"max_ack_pending": 2}));
    let first = bench.fetch("S", "c", json!({"batch": 2}));
    assert!(bench.fetch("S", "c", json!({"batch": 2, "no_wait": true})).is_empty());
    bench.publish(&first[0].reply, "", "", b"");
    let got = bench.frames();
    assert_eq!((got[0].body.as_str(), got[1].status()), ("3", "408 Request Timeout"));
    let nothing = bench.fetch("S", "c", json!({"batch": 2, "no_wait": true}));
    assert_eq!(nothing[0].status(), "404 No Messages");
}

#[test]
fn the_bytes_of_a_pull_count_subject_reply_header_and_payload() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    for _ in 0..6 {
        bench.store("s.x", "A: b", "0123456789");
    }
    bench.consumer("S", "c", json!({}));
    let one = bench.fetch("S", "c", json!({"batch": 1}));
    let size = one[0].subject.len() + one[0].reply.len() + one[0].header.len() + one[0].body.len();
    let fits = bench.fetch("S", "c", json!({"batch": 5, "max_bytes": 2 * size}));
    assert_eq!((fits.len(), fits[1].status()), (2, ""), "it is over with its last byte");
    let short = bench.fetch("S", "c", json!({"batch": 5, "max_bytes": 2 * size - 1}));
    assert_eq!((short.len(), short[1].status()), (2, "409 Message Size Exceeds MaxBytes"));
}

#[test]
fn a_double_ack_is_confirmed_only_where_acks_are_awaited() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    for number in 1..=5 {
        bench.store("s.x", "", &number.to_string());
    }
    bench.consumer("S", "e", json!({}));
    bench.consumer("S", "all", json!({"ack_policy": "all"}));
    bench.consumer("S", "none", json!({"ack_policy": "none"}));
    for consumer in ["e", "all", "none"] {
        bench.fetch("S", consumer, json!({"batch": 2}));
    }
    let mut ack = |consumer: &str, seq: u64, word: &str| {
        let frames = bench.request(&format!("$JS.ACK.S.{consumer}.1.{seq}.{seq}.1.0"), word);
        frames.first().map(|frame| frame.status().to_owned())
    };
    for consumer in ["e", "all"] {
        assert_eq!(ack(consumer, 1, ""), Some(String::new()));
        assert_eq!(ack(consumer, 1, ""), Some(String::new()), "again");
        for word in ["", "+TERM"] {
            assert_eq!(ack(consumer, 4, word), None, "not delivered yet");
            assert_eq!(ack(consumer, 99, word), None, "not there yet");
        }
        for word in ["-NAK", "+WPI"] {
            assert_eq!(ack(consumer, 4, word), Some(String::new()));
        }
        assert_eq!(ack(consumer, 2, "hello"), Some(String::new()));
    }
    assert_eq!(ack("none", 1, ""), Some("503".into()));
    assert_eq!(ack("missing", 1, ""), Some("503".into()));
    bench.api("CONSUMER.DELETE.S.e", Value::Null);
    let gone = bench.request("$JS.ACK.S.e.1.2.2.1.0", "");
    assert_eq!(gone[0].status(), "503");
    assert_eq!(bench.request("$JS.ACK.S", "")[0].status(), "503");
}

#[test]
fn a_message_whose_deliveries_are_used_up_stays_until_it_is_acked() {
    for (retention, acked_first) in [("interest", true), ("interest", false), ("workqueue", true)] {
        let mut bench = Bench::new();
        bench.stream("S", json!({"retention": retention}));
        let wait = json!({"max_deliver": 1, "ack_wait": 200 * MS});
        bench.consumer("S", "b", wait);
        if retention == "interest" {
            bench.consumer("S", "a", json!({}));
        }
        bench.store("s.x", "", "1");
        let other = |bench: &mut Bench| {
            if retention == "interest" {
                let got = bench.fetch("S", "a", json!({"batch": 1}));
                bench.publish(&got[0].reply, "", "", b"");
            }
        };
        if acked_first {
            other(&mut bench);
        }
        let last = bench.fetch("S", "b", json!({"batch": 1}));
        bench.wait(1000 * MS);
        if !acked_first {
            other(&mut bench);
        }
        assert_eq!(bench.messages("S"), 1, "{retention} {acked_first}");
        let info = bench.api("CONSUMER.INFO.S.b", Value::Null);
        assert_eq!((&info["num_ack_pending"], &info["ack_floor"]["stream_seq"]), (&json!(0), &json!(0)));
        assert_eq!(
            bench.fetch("S", "b", json!({"batch": 1, "no_wait": true}))[0].status(),
            "404 No Messages"
        );
        bench.publish(&last[0].reply, "", "", b"");
        assert_eq!(bench.messages("S"), 0, "a late ack settles: {retention} {acked_first}");
    }
}

#[test]
fn patterns_find_in_the_index_what_a_look_through_all_messages_finds() {
    let mut random = Random::new(3);
    let config =
        serde_json::from_value(json!({"name": "S", "subjects": [">"], "storage": "memory"})).unwrap();
    let mut log = Log::new(1, config, START);
    let mut live: Vec<(u64, String)> = Vec::new();
    let patterns = ["a.>", "*.b", "a.*.c", ">", "*", "*.*", "z", "a.b", "b.*.>", "*.*.*", "z.>"];
    for round in 0..3000 {
        if random.below(3) == 0 && !live.is_empty() {
            let (seq, _) = live.remove(random.index(live.len()));
            log.remove(seq);
        } else {
            let tokens: Vec<&str> =
                (0..=random.below(3)).map(|_| ["a", "b", "c", "*"][random.index(4)]).collect();
            let (message, _) = log.append(START + round, &tokens.join("."), b"", b"");
            live.push((message.seq, tokens.join(".")));
        }
        let pattern = patterns[random.index(patterns.len())];
        let fits = |(_, subject): &&(u64, String)| matches(pattern, subject);
        let from = random.below(log.last_seq + 2);
        let next = live.iter().filter(fits).map(|(seq, _)| *seq).find(|seq| *seq >= from);
        assert_eq!(log.next_matching(std::iter::once(pattern), from), next, "{pattern} from {from}");
        assert_eq!(log.last_matching(pattern), live.iter().rfind(fits).map(|(seq, _)| *seq), "{pattern}");
        let mut subjects: Vec<&str> = live.iter().filter(fits).map(|(_, subject)| subject.as_str()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let mut found: Vec<&str> = log.subjects.matching(pattern).map(|slot| &*slot.name).collect();
        found.sort_unstable();
        assert_eq!(found, subjects, "{pattern}");
        let first = live.first().map_or(log.last_seq + 1, |(seq, _)| *seq);
        let gaps =
            (first..=log.last_seq).filter(|seq| live.binary_search_by_key(seq, |(seq, _)| *seq).is_err());
        assert_eq!(log.index.gaps(log.last_seq).collect::<Vec<_>>(), gaps.collect::<Vec<_>>());
    }
}

#[test]
fn what_is_not_served_is_refused_and_what_says_nothing_is_not() {
    let mut bench = Bench::new();
    for (key, value) in [
        ("subject_transform", json!({"src": "a", "dest": "b"})),
        ("sources", json!([{"name": "T"}])),
        ("mirror", json!({"name": "T"})),
        ("republish", json!({"src": ">", "dest": "b.>"})),
        ("placement", json!({"tags": ["x"]})),
        ("compression", json!("s2")),
        ("consumer_limits", json!({"max_ack_pending": 5})),
        ("subject_delete_marker_ttl", json!(1)),
        ("allow_msg_counter", json!(true)),
        ("allow_atomic", json!(true)),
        ("allow_msg_schedules", json!(true)),
        ("mirror_direct", json!(true)),
        ("persist_mode", json!("async")),
        ("unheard_of", json!(1)),
    ] {
        assert_eq!(code(&bench.stream("S", json!({key: value}))), 10052, "{key}");
    }
    let idle = json!({"compression": "none", "consumer_limits": {}, "allow_msg_ttl": false, "sources": [],
        "placement": {"cluster": ""}, "mirror": null, "metadata": {"a": "b"}, "first_seq": 100});
    let made = bench.stream("S", idle);
    assert_eq!(made["config"]["metadata"]["a"], "b", "{made}");
    assert_eq!(bench.store("s.x", "", "")["seq"], 100);
    for (key, value, expected) in [
        ("pause_until", json!("2099-01-01T00:00:00Z"), 10012),
        ("priority_groups", json!(["A"]), 10012),
        ("priority_policy", json!("overflow"), 10012),
        ("sample_freq", json!("100"), 10012),
        ("replay_policy", json!("original"), 10012),
        ("rate_limit_bps", json!(1000), 10086),
        ("num_replicas", json!(3), 10074),
        ("filter_subjects", json!(["s.>", "s.a"]), 10138),
        ("deliver_policy", json!("bogus"), 10025),
        ("unheard_of", json!(1), 10012),
    ] {
        assert_eq!(code(&bench.consumer("S", "c", json!({key: value}))), expected, "{key}");
    }
    for (more, expected) in [
        (json!({"flow_control": true}), 10108),
        (json!({"idle_heartbeat": 1}), 10083),
        (json!({"rate_limit_bps": 1}), 10012),
    ] {
        let mut config = json!({"deliver_subject": "d.x"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(code(&bench.consumer("S", "p", config)), expected, "{more}");
    }
    assert_eq!(bench.store("s.x", "Nats-TTL: 1s", "")["error"]["err_code"], 10166);
}

#[test]
fn a_consumer_has_several_filters_and_metadata_and_is_created_only_once() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    let config = json!({"filter_subjects": ["s.a", "s.b.*"], "metadata": {"k": "v"}});
    let made = bench.consumer("S", "c", config.clone());
    assert_eq!((&made["config"]["metadata"]["k"], code(&made)), (&json!("v"), 0));
    for subject in ["s.a", "s.z", "s.b.1", "s.b", "s.a"] {
        bench.store(subject, "", subject);
    }
    assert_eq!(bench.api("CONSUMER.INFO.S.c", Value::Null)["num_pending"], 3);
    assert_eq!(bodies(&bench.fetch("S", "c", json!({"batch": 9}))), ["s.a", "s.b.1", "s.a"]);
    let mut create = |config: Value, action: &str| {
        let body = json!({"stream_name": "S", "config": config, "action": action});
        code(&bench.api("CONSUMER.CREATE.S.c", body))
    };
    let mut same = config.clone();
    same["durable_name"] = "c".into();
    same["ack_policy"] = "explicit".into();
    assert_eq!(create(same.clone(), "create"), 0);
    same["deliver_policy"] = "new".into();
    assert_eq!(create(same, "create"), 10148);
}

#[test]
fn several_messages_are_read_at_once() {
    let mut bench = Bench::new();
    bench.stream("S", json!({"allow_direct": true}));
    for number in 0..6 {
        bench.store(&format!("s.{}", number % 3), "", &number.to_string());
    }
    for (ask, got, end) in [
        (json!({"seq": 2, "batch": 3}), vec!["1", "2", "3"], "204 EOB"),
        (json!({"seq": 1, "batch": 10, "next_by_subj": "s.1"}), vec!["1", "4"], "204 EOB"),
        (json!({"multi_last": ["s.>"]}), vec!["3", "4", "5"], "204 EOB"),
        (json!({"multi_last": ["s.1", "s.2"], "up_to_seq": 5}), vec!["2", "4"], "204 EOB"),
        (json!({"seq": 1, "batch": 10, "max_bytes": 3}), vec!["0", "1", "2"], "204 EOB"),
        (json!({"start_time": "2020-01-01T00:00:00Z", "batch": 2}), vec!["0", "1"], "204 EOB"),
        (json!({"seq": 99, "batch": 2}), vec![], "404 Message Not Found"),
        (json!({"multi_last": ["zz"]}), vec![], "404 No Results"),
        (json!({"batch": 2}), vec![], "408 Empty Request"),
        (json!({"last_by_subj": "s.1", "batch": 2}), vec![], "408 Bad Request"),
    ] {
        let mut frames = bench.request("$JS.API.DIRECT.GET.S", &ask.to_string());
        assert_eq!(frames.pop().unwrap().status(), end, "{ask}");
        assert_eq!(bodies(&frames), got, "{ask}");
    }
    let frames = bench.request("$JS.API.DIRECT.GET.S", r#"{"seq":2,"batch":3}"#);
    assert!(
        frames[1].header.contains("Nats-Num-Pending: 3\r\nNats-Last-Sequence: 2\r\n"),
        "{}",
        frames[1].header
    );
}

#[test]
fn events_are_told_to_whoever_listens_and_stored_where_a_stream_wants_them() {
    let mut bench = Bench::new();
    bench.raw(b"SUB $JS.EVENT.ADVISORY.> 9\r\n");
    bench.api("STREAM.CREATE.LOG", json!({"name": "LOG", "subjects": ["$JS.EVENT.ADVISORY.CONSUMER.>"]}));
    bench.stream("S", json!({}));
    bench.consumer("S", "c", json!({"max_deliver": 1, "ack_wait": 100 * MS}));
    bench.store("s.x", "", "1");
    bench.frames();
    bench.fetch("S", "c", json!({"batch": 1}));
    bench.wait(500 * MS);
    let told = bench.frames();
    let told =
        told.iter().find(|frame| frame.subject == "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c").unwrap();
    let body: Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!((&body["stream_seq"], &body["deliveries"]), (&json!(1), &json!(1)));
    assert_eq!(body["type"], "io.nats.jetstream.advisory.v1.max_deliver");
    assert_eq!(bench.messages("LOG"), 2, "created and used up");
}

#[test]
fn a_client_is_told_who_it_is() {
    let mut bench = Bench::new();
    let answer: Value = serde_json::from_str(&bench.request("$SYS.REQ.USER.INFO", "")[0].body).unwrap();
    assert_eq!((&answer["data"]["user"], &answer["data"]["account"]), (&json!(""), &json!("$G")));
}

#[test]
fn subjects_and_ids_are_taken_as_they_come() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    assert_eq!(bench.store("s.*", "", "star")["seq"], 1);
    assert_eq!(bench.api("STREAM.MSG.GET.S", json!({"seq": 1}))["message"]["subject"], "s.*");
    let long = format!("Nats-Msg-Id: {}", "i".repeat(1500));
    assert_eq!(bench.store("s.x", &long, "")["seq"], 2);
    assert_eq!(bench.store("s.x", &long, "")["duplicate"], true);
    for pattern in ["s.", "none.>"] {
        assert_eq!(code(&bench.api("STREAM.MSG.GET.S", json!({"last_by_subj": pattern}))), 10037);
    }
    bench.frames();
    bench.raw(b"PUB d.\xff\xfe 1\r\nx\r\n");
    assert!(bench.inbox.windows(5).any(|bytes| bytes == b"d.\xff\xfe "), "{:?}", bench.inbox);
    assert!(bench.errors.is_empty());
}

#[test]
fn a_purge_beyond_the_last_message_moves_the_end() {
    let mut bench = Bench::new();
    bench.stream("S", json!({}));
    for _ in 0..5 {
        bench.store("s.x", "", "");
    }
    assert_eq!(bench.api("STREAM.PURGE.S", json!({"seq": 100}))["purged"], 5);
    let state = bench.api("STREAM.INFO.S", Value::Null)["state"].take();
    assert_eq!((&state["first_seq"], &state["last_seq"]), (&json!(100), &json!(99)));
    assert_eq!(bench.store("s.x", "", "")["seq"], 100);
    assert_eq!(bench.api("STREAM.PURGE.S", json!({"seq": 50}))["purged"], 0);
    assert_eq!(bench.api("STREAM.PURGE.S", json!({"seq": 500, "filter": "s.x"}))["purged"], 1);
    assert_eq!(bench.store("s.x", "", "")["seq"], 101);
}

#[test]
fn fifty_thousand_refused_messages_are_acked_backwards_at_once() {
    let mut bench = Bench::new();
    bench.stream("S", json!({"storage": "memory"}));
    bench.consumer("S", "c", json!({"max_ack_pending": -1}));
    for _ in 0..50_000 {
        bench.publish("s.x", "", "", b"");
    }
    let mut got = bench.fetch("S", "c", json!({"batch": 50_000}));
    for _ in 0..100 {
        bench.wait(1);
        got.extend(bench.frames());
    }
    assert_eq!(got.len(), 50_000);
    for frame in &got {
        bench.publish(&frame.reply, "", "", b"-NAK");
    }
    let start = std::time::Instant::now();
    for frame in got.iter().rev() {
        bench.publish(&frame.reply, "", "", b"");
    }
    // A look through the queue for each takes minutes here.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    assert_eq!(bench.api("CONSUMER.INFO.S.c", Value::Null)["num_ack_pending"], 0);
}

/// Everything that client 2 is sent while it does this.
fn second(core: &mut Core, now: Nanos, bytes: &[u8]) -> String {
    let mut buffer = BytesMut::from(bytes);
    let mut parser = Parser::new(1 << 20);
    while let Some(op) = parser.next(&mut buffer).unwrap() {
        core.step(now, Input::Op { conn: 2, op });
    }
    let sent = core.effects().writes.into_iter().filter(|(conn, _)| *conn == 2);
    sent.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

#[test]
fn who_leaves_with_many_equal_subscriptions_keeps_nobody_waiting() {
    const COUNT: usize = 190_000;
    let mut bench = Bench::new();
    bench.step(Input::Open { conn: 2, peer: "127.0.0.1:2".into(), securing: Securing::No });
    let mut asks = String::new();
    for sid in 0..COUNT {
        asks.push_str(&format!("SUB market.x {sid}\r\n"));
    }
    second(&mut bench.core, START, asks.as_bytes());
    assert_eq!(bench.core.totals().subscriptions, COUNT + 2);
    bench.core.step(START, Input::Closed { conn: 2 });
    let mut steps = 0;
    let mut before = bench.core.totals().subscriptions;
    while bench.core.totals().subscriptions > 2 {
        // Others are answered in between, and what is left of the client takes nothing from them.
        bench.publish("in.a", "", "", b"x");
        bench.publish("market.x", "", "", b"x");
        assert_eq!(bench.frames().len(), 1);
        assert_eq!(bench.core.next_deadline(), Some(START), "it goes on by itself");
        bench.step(Input::Tick);
        let left = bench.core.totals().subscriptions;
        assert!(left < before && before - left <= 4096, "{before} -> {left}");
        before = left;
        steps += 1;
    }
    assert!((COUNT / 4096 - 1..=COUNT / 4096).contains(&steps), "{steps}");
    assert_ne!(bench.core.next_deadline(), Some(START));
}

#[test]
fn unsubscribing_in_any_order_leaves_the_rest() {
    let mut bench = Bench::new();
    bench.step(Input::Open { conn: 2, peer: "127.0.0.1:2".into(), securing: Securing::No });
    let mut asks = String::new();
    for sid in 0..50_000 {
        asks.push_str(&format!("SUB market.x {sid}\r\n"));
    }
    for sid in (1..50_000).rev() {
        asks.push_str(&format!("UNSUB {sid}\r\n"));
    }
    second(&mut bench.core, START, asks.as_bytes());
    assert_eq!(bench.core.totals().subscriptions, 3);
    let sent = second(&mut bench.core, START, b"PUB market.x 1\r\ny\r\n");
    assert_eq!(sent, "MSG market.x 0 1\r\ny\r\n");
}

#[test]
fn a_message_for_very_many_reaches_them_in_parts_and_others_are_served_between() {
    const MANY: usize = 5000;
    let mut bench = Bench::new();
    bench.step(Input::Open { conn: 2, peer: "127.0.0.1:2".into(), securing: Securing::No });
    let mut wide = String::new();
    for sid in 10..10 + MANY {
        wide.push_str(&format!("SUB wide {sid}\r\n"));
    }
    bench.raw(wide.as_bytes());
    bench.frames();
    let op = |text: &[u8]| Parser::new(1 << 20).next(&mut BytesMut::from(text)).unwrap().unwrap();
    let core = &mut bench.core;
    let heard = |core: &mut Core| {
        let writes = core.effects().writes;
        let lines = |id| {
            let bytes: Vec<u8> =
                writes.iter().filter(|(conn, _)| *conn == id).flat_map(|(_, bytes)| bytes.to_vec()).collect();
            String::from_utf8(bytes).unwrap()
        };
        (lines(1).matches("MSG wide").count(), lines(2))
    };
    // Conn 2 has not signed in anywhere: nobody has to.
    core.step(START, Input::Op { conn: 2, op: op(b"PUB wide 5\r\nfirst\r\n") });
    assert!(core.is_busy(2));
    let (mut count, _) = heard(core);
    assert!(count > 0 && count < MANY, "{count}");
    core.step(START, Input::Op { conn: 1, op: op(b"PING\r\n") });
    let pong = core.effects().writes;
    assert!(pong.iter().any(|(conn, bytes)| *conn == 1 && bytes.ends_with(b"PONG\r\n")));
    let mut parts = 1;
    while core.is_busy(2) {
        core.step(START, Input::GoOn { conn: 2 });
        count += heard(core).0;
        parts += 1;
    }
    assert_eq!(count, MANY);
    assert!(parts >= 4, "{parts}");
    // What the same client asks for next never overtakes it, whoever forgets to wait.
    core.step(START, Input::Op { conn: 2, op: op(b"PUB wide 5\r\nfirst\r\n") });
    core.step(START, Input::Op { conn: 2, op: op(b"PUB wide 6\r\nsecond\r\n") });
    let mut text = Vec::new();
    loop {
        text.extend(core.effects().writes.into_iter().flat_map(|(_, bytes)| bytes.to_vec()));
        if !core.is_busy(2) {
            break;
        }
        core.step(START, Input::GoOn { conn: 2 });
    }
    let text = String::from_utf8(text).unwrap();
    let (first, second) = (text.rfind("first").unwrap(), text.find("second").unwrap());
    assert_eq!((text.matches("first").count(), text.matches("second").count()), (MANY, MANY));
    assert!(first < second);
    // A client that goes leaves nothing half done.
    core.step(START, Input::Op { conn: 2, op: op(b"PUB wide 4\r\nlast\r\n") });
    core.step(START, Input::Closed { conn: 2 });
    assert!(!core.is_busy(2));
    assert_eq!(heard(core).0, MANY);
}
