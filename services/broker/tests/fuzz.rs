//! The fuzz entry points on mutated samples: a fixed number of rounds, more by `FAFNIR_TEST_BROKER_FUZZ_ROUNDS`.

use fafnir_broker::{
    core::random::Random,
    fuzz::{jetstream, protocol},
};

const SESSION: &[u8] = b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\nSUB a.* q 1\r\nSUB > 2\r\n\
UNSUB 1 2\r\nPUB a.b r 2\r\nhi\r\nHPUB a.c 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPUB $JS.API.STREAM.CREATE.S r 32\r\n\
{\"name\":\"S\",\"subjects\":[\"s.>\"]}  \r\nPUB s.x r 0\r\n\r\nPUB $JS.API.CONSUMER.CREATE.S r 39\r\n\
{\"stream_name\":\"S\",\"config\":{\"name\":\"c\"}}\r\nPUB $JS.API.CONSUMER.MSG.NEXT.S.c r 1\r\n5\r\nPONG\r\n";
const BODIES: [&[u8]; 4] = [
    br#"{"name":"S","subjects":["s.>","t.*"],"max_msgs":5,"max_age":1000000000,"discard":"new","retention":"limits"}"#,
    br#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"all","ack_wait":1,"backoff":[1,2],"filter_subject":"s.x","deliver_policy":"by_start_sequence","opt_start_seq":18446744073709551615}}"#,
    br#"{"batch":9223372036854775807,"expires":9223372036854775807,"idle_heartbeat":1,"no_wait":true,"max_bytes":-1}"#,
    br#"{"seq":18446744073709551615,"last_by_subj":"s.>","keep":1,"filter":"s.*","offset":18446744073709551615,"subjects_filter":">","deleted_details":true}"#,
];

fn mutated(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=random.index(6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.index(bytes.len());
        match random.index(6) {
            0 => bytes[at] = random.index(256) as u8,
            1 => bytes.insert(at, b" \r\n{}[]\",:.*>0-9"[random.index(16)]),
            2 => {
                bytes.remove(at);
            }
            3 => bytes.truncate(at.max(1)),
            4 => {
                let piece = bytes[at..(at + random.index(40)).min(bytes.len())].to_vec();
                let to = random.index(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
    bytes
}

fn rounds() -> usize {
    std::env::var("FAFNIR_TEST_BROKER_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000)
}

#[test]
fn no_bytes_of_a_client_make_the_broker_panic_or_swell() {
    let mut random = Random::new(1);
    for _ in 0..rounds() {
        let bytes = mutated(SESSION, &mut random);
        assert!(protocol(&bytes).len() < 1 << 20);
    }
}

#[test]
fn no_body_of_a_jetstream_request_makes_the_broker_panic() {
    let mut random = Random::new(2);
    for round in 0..rounds() {
        jetstream(&mutated(BODIES[round % BODIES.len()], &mut random));
    }
    for body in BODIES {
        jetstream(body);
    }
}
