//! What nine processes say of themselves while one of them, or a server that they stand on, is killed or paused: whether
//! they are ready, whether they live, and what a client is answered.

use crate::{
    cluster::{AUTH, Cluster, ENGINE, External, GATEWAY, ORDER, PORTFOLIO, SECURITY, SERVICES, STOCK, USER},
    harness::{Answer, Shell, WITHIN},
    proxy::{Mode, Proxy},
};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A door for operations answers within this, or does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The gateway's answers begin within ten seconds; the rest is the command's own.
const TOLD_WITHIN: Duration = Duration::from_secs(14);
/// Those that store something on Postgres.
const STORING: [usize; 6] = [SECURITY, USER, STOCK, PORTFOLIO, ORDER, AUTH];
/// Those without which the gateway refuses everything.
const NEEDED: [(usize, &str); 2] =
    [(AUTH, "auth-service cannot be used"), (SECURITY, "security-service cannot be used")];

/// What a door for operations answers: its status and body; `None` where it does not.
pub fn ask(port: u16, path: &str) -> Option<(u16, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).ok()?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: fafnir\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.trim().to_owned()))
}

/// The platform with a proxy before each of its servers.
struct House {
    cluster: Cluster,
    postgres: Proxy,
    nats: Proxy,
    redis: Proxy,
    user: Shell,
}

/// What the cluster leaves behind is taken away through the proxies.
impl Drop for House {
    fn drop(&mut self) {
        for proxy in [&self.postgres, &self.nats, &self.redis] {
            proxy.set(Mode::Open);
        }
    }
}

impl House {
    fn up() -> Option<Self> {
        let external = External::named()?;
        let [postgres, nats, redis] =
            [&external.postgres, &external.nats, &external.redis].map(|u| Proxy::before(u));
        let proxied = External { postgres: postgres.url(), nats: nats.url(), redis: redis.url() };
        let cluster = Cluster::up(proxied, &[("FAFNIR_ENGINE_BEHIND_S_MAX", "2")]);
        let user = cluster.signed_in("user@test.com");
        let house = Self { cluster, postgres, nats, redis, user };
        house.is_well("the start");
        house.trades("the start");
        Some(house)
    }

    /// Waits until exactly these are not ready, each for this reason. All but the `silent` one live meanwhile. While nobody
    /// stores orders the engine can be without a record that it waits for, or not.
    fn until(&self, during: &str, unready: &[(usize, &str)], silent: Option<usize>) {
        let open = (silent == Some(ORDER) || unready.len() > STORING.len()).then_some(ENGINE);
        let until = Instant::now() + WITHIN;
        loop {
            let said: Vec<_> =
                (0..SERVICES.len()).map(|i| ask(self.cluster.operations(i), "/readyz")).collect();
            let as_expected = said.iter().enumerate().all(|(i, answer)| match answer {
                None => silent == Some(i),
                Some((200 | 503, _)) if open == Some(i) => true,
                Some((200, _)) => unready.iter().all(|(not, _)| *not != i),
                Some((503, body)) => unready.iter().any(|(not, why)| *not == i && body.contains(why)),
                Some(_) => false,
            });
            if as_expected {
                break;
            }
            assert!(Instant::now() < until, "{during}: {said:#?}");
            std::thread::yield_now();
        }
        for i in (0..SERVICES.len()).filter(|i| silent != Some(*i)) {
            assert_eq!(ask(self.cluster.operations(i), "/healthz"), Some((200, "ok".into())), "{during}");
        }
    }

    fn is_well(&self, after: &str) {
        self.until(after, &[], None);
    }

    fn place(&self) -> Answer {
        self.user.run(&["order", "place", "buy", "NVDA", "1", "--price", "120.00", "--json"])
    }

    /// An order is taken, and read again.
    fn trades(&self, during: &str) {
        let until = Instant::now() + WITHIN;
        let placed = loop {
            let placed = self.place();
            if placed.code == 0 {
                break placed.json();
            }
            assert!(Instant::now() < until, "{during}: {placed:?}");
        };
        let listed = self.user.json(&["order", "list"]);
        assert!(listed.as_array().unwrap().iter().any(|o| o["id"] == placed["id"]), "{during}: {listed}");
    }

    /// What a client is told in time, and not as success.
    fn refuses(&self, during: &str, args: &[&str], code: &str) {
        let began = Instant::now();
        let answer = self.user.run(args);
        assert!(began.elapsed() < TOLD_WITHIN, "{during}: {:?} {answer:?}", began.elapsed());
        assert!(answer.code != 0 && answer.stderr.contains(code), "{during}: {answer:?}");
    }
}

const PLACE: [&str; 7] = ["order", "place", "buy", "NVDA", "1", "--price", "119.00"];

#[test]
fn readiness_and_liveness_tell_the_truth_in_each_outage() {
    let Some(mut house) = House::up() else { return };
    postgres(&house);
    redis_and_nats(&house);
    engine(&mut house);
    portfolio(&mut house);
    needed(&mut house);
    order_stock_and_user(&mut house);
    house.cluster.audit();
}

/// Who stores there is not ready, nor is the gateway, which needs two of them; the engine is.
fn postgres(house: &House) {
    for (during, mode) in [("Postgres paused", Mode::Paused), ("Postgres gone", Mode::Cut)] {
        house.postgres.set(mode);
        let mut unready = STORING.map(|i| (i, "Postgres cannot be used")).to_vec();
        unready.push((GATEWAY, "-service cannot be used"));
        house.until(during, &unready, None);
        // The one who is asked says so, before whoever asks has given up.
        let said = || house.cluster.log(AUTH).matches("request failed, can be tried again").count();
        let before = said();
        house.refuses(during, &["order", "list"], "");
        assert!(said() > before, "{during}: {}", house.cluster.log(AUTH));
        house.postgres.set(Mode::Open);
        house.is_well("after it");
        house.trades("after it");
    }
}

/// Nothing depends on either: everybody is ready, orders are taken and read.
fn redis_and_nats(house: &House) {
    for (during, proxy) in [("Redis", &house.redis), ("NATS", &house.nats)] {
        for mode in [Mode::Paused, Mode::Cut] {
            proxy.set(mode);
            for _ in 0..3 {
                house.trades(during);
                house.is_well(during);
            }
            proxy.set(Mode::Open);
            house.is_well(during);
            house.trades(during);
        }
    }
}

/// What is stored is still read; what needs the exchange is refused in time.
fn engine(house: &mut House) {
    away(house, ENGINE, |during, house| {
        house.until(during, &[], Some(ENGINE));
        house.refuses(during, &PLACE, "");
        house.user.json(&["order", "list"]);
    });
}

/// The exchange takes only cancels while the books do not follow, and says so.
fn portfolio(house: &mut House) {
    away(house, PORTFOLIO, |during, house| {
        // Something that the books do not have.
        let open = house.place().json()["id"].as_str().unwrap().to_owned();
        house.until(during, &[(ENGINE, "portfolio-service is behind")], Some(PORTFOLIO));
        house.refuses(during, &PLACE, "CANCEL_ONLY");
        house.user.json(&["order", "cancel", &open]);
    });
}

/// Killed and paused, with what is so meanwhile.
fn away(house: &mut House, i: usize, meanwhile: impl Fn(&str, &House)) {
    let during = format!("{} paused", SERVICES[i].1);
    house.cluster.signal(i, "STOP");
    meanwhile(&during, house);
    house.cluster.signal(i, "CONT");
    house.is_well(&during);
    house.trades(&during);
    let during = format!("{} killed", SERVICES[i].1);
    house.cluster.kill(i);
    meanwhile(&during, house);
    house.cluster.start(i);
    house.is_well(&during);
    house.trades(&during);
}

/// Without either the gateway refuses everything, says so, and is not ready.
fn needed(house: &mut House) {
    for (i, why) in NEEDED {
        away(house, i, |during, house| {
            house.until(during, &[(GATEWAY, why)], Some(i));
            house.refuses(during, &["order", "list"], "");
        });
    }
}

/// Everybody else does their own work.
fn order_stock_and_user(house: &mut House) {
    for i in [STOCK, USER] {
        away(house, i, |during, house| {
            house.trades(during);
            house.until(during, &[], Some(i));
        });
    }
    away(house, ORDER, |during, house| {
        house.until(during, &[], Some(ORDER));
        house.refuses(during, &PLACE, "");
        house.user.json(&["portfolio"]);
    });
}
