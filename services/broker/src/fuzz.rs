//! Entry points for fuzzing: bytes in, no panic, no growth beyond a bound.

use crate::core::net::Nanos;
use crate::core::wire::Parser;
use crate::core::{Core, Input, Recovered, Securing, Settings};
use bytes::BytesMut;

/// Largest payload in these runs.
const PAYLOAD_MAX: usize = 1 << 16;
const START: Nanos = 1_800_000_000_000_000_000;

fn core() -> Core {
    let settings = Settings {
        server_name: "fuzz".into(),
        server_id: "FUZZ".into(),
        host: "127.0.0.1".into(),
        port: 4222,
        accounts: Vec::new(),
        payload_max: PAYLOAD_MAX,
        connections_max: 4,
        subscriptions_max: 64,
        pending_max: 1 << 20,
        streams_max: 8,
        consumers_max: 8,
        auth_timeout: 1_000_000_000,
        ping_interval: 1_000_000_000,
        seed: 1,
    };
    Core::new(settings, Recovered::default(), START)
}

/// Feeds bytes of a client to the parser and what it understands to a core whose disk is instant.
/// Returns the bytes that the client was sent.
pub fn protocol(data: &[u8]) -> Vec<u8> {
    let mut core = core();
    core.step(START, Input::Open { conn: 1, peer: "fuzz".into(), securing: Securing::No });
    let mut parser = Parser::new(PAYLOAD_MAX);
    let mut buffer = BytesMut::from(data);
    let mut sent = Vec::new();
    let mut now = START;
    loop {
        now += 1_000_000;
        let input = match parser.next(&mut buffer) {
            Ok(Some(op)) => Input::Op { conn: 1, op },
            Ok(None) => break,
            Err(error) => Input::Bad { conn: 1, error },
        };
        let fatal = matches!(&input, Input::Bad { error, .. } if error.is_fatal());
        core.step(now, input);
        for _ in 0..16 {
            let effects = core.effects();
            sent.extend(effects.writes.iter().flat_map(|(_, bytes)| bytes.iter().copied()));
            for load in &effects.loads {
                core.step(
                    now,
                    Input::Loaded { stream: load.stream, getter: load.getter, messages: Vec::new() },
                );
            }
            if effects.ops.is_empty() && effects.loads.is_empty() && effects.writes.is_empty() {
                break;
            }
            core.step(now, Input::Durable { upto: effects.ops_last });
        }
        if fatal {
            break;
        }
    }
    sent
}

/// Sends `data` as the body of every kind of JetStream request, to a broker that has a stream and a consumer.
pub fn jetstream(data: &[u8]) {
    let mut script = b"CONNECT {\"headers\":true}\r\nSUB r 1\r\n".to_vec();
    let mut publish = |subject: &str, reply: &str, body: &[u8]| {
        script.extend_from_slice(format!("PUB {subject} {reply} {}\r\n", body.len()).as_bytes());
        script.extend_from_slice(body);
        script.extend_from_slice(b"\r\n");
    };
    publish("$JS.API.STREAM.CREATE.S", "r", br#"{"name":"S","subjects":["s.>"],"allow_direct":true}"#);
    publish("s.x", "r", b"1");
    publish(
        "$JS.API.CONSUMER.CREATE.S.C",
        "r",
        br#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#,
    );
    for operation in [
        "INFO",
        "STREAM.CREATE.S",
        "STREAM.CREATE.T",
        "STREAM.UPDATE.S",
        "STREAM.INFO.S",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.MSG.GET.S",
        "DIRECT.GET.S",
        "CONSUMER.CREATE.S.C",
        "CONSUMER.CREATE.S",
        "CONSUMER.DURABLE.CREATE.S.D",
        "CONSUMER.INFO.S.C",
        "CONSUMER.NAMES.S",
        "CONSUMER.LIST.S",
        "CONSUMER.MSG.NEXT.S.C",
        "STREAM.MSG.DELETE.S",
        "STREAM.PURGE.S",
        "CONSUMER.DELETE.S.C",
        "STREAM.DELETE.S",
    ] {
        publish(&format!("$JS.API.{operation}"), "r", data);
        publish("$JS.ACK.S.C.1.1.1.1.0", "r", data);
    }
    protocol(&script);
}
