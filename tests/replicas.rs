//! Several replicas of each stateless service, replaced one after the other while orders come in.

use crate::{
    cluster::{AUTH, Cluster, ENGINE, External, GATEWAY, ORDER, PORTFOLIO, SECURITY, SERVICES, STOCK, USER},
    harness::{Process, WITHIN},
    live::{CASH, Person, UNTHROTTLED, resting},
    proxy::Proxy,
};
use fafnir_proto::v1::{PlaceOrderRequest, TimeInForce};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// What there may be several of.
const STATELESS: [usize; 6] = [SECURITY, USER, PORTFOLIO, ORDER, AUTH, GATEWAY];
/// What is one process, and is started again in its place.
const ALONE: [usize; 2] = [STOCK, ENGINE];
/// Clients that place one order after the other.
const CLIENTS: usize = 4;

/// The address of each service, behind which its replicas come and go.
struct Fleet {
    cluster: Cluster,
    addresses: Vec<Proxy>,
    replicas: Vec<(usize, Process)>,
}

impl Fleet {
    fn up(external: External) -> Self {
        let mut addresses = Vec::new();
        let cluster = Cluster::up_behind(external, &UNTHROTTLED, |own| {
            addresses = own.iter().map(|url| Proxy::before(url)).collect();
            addresses.iter().map(Proxy::url).collect()
        });
        Self { cluster, addresses, replicas: Vec::new() }
    }

    /// One more replica, which takes connections once it is ready.
    fn surge(&mut self, i: usize) {
        let replica = self.cluster.replica(i, &[]);
        self.addresses[i].add(&replica.address(SERVICES[i].1));
        self.replicas.push((i, replica));
    }

    /// The oldest replica goes as a pod does: no new connections, then told to end, and it drains.
    fn retire(&mut self, i: usize) {
        let at = self.replicas.iter().position(|(service, _)| *service == i).unwrap();
        let (_, mut oldest) = self.replicas.remove(at);
        self.addresses[i].remove(&oldest.address(SERVICES[i].1));
        assert_eq!(oldest.interrupt(), Some(0), "{}: {}", SERVICES[i].1, oldest.log());
    }

    /// The process that was there first goes.
    fn retire_first(&mut self, i: usize) {
        self.addresses[i].remove(&self.cluster.own_address(i));
        self.cluster.stop(i);
    }
}

/// What a client saw of its orders.
#[derive(Debug, Default)]
struct Seen {
    orders: Vec<String>,
    /// Answers that said nothing of the order: it was sent again with its id.
    repeated: usize,
    longest: Duration,
}

/// Places orders with ids of their own until it is over; each is sent again until it is answered.
async fn client(mut person: Person, name: usize, placed: &AtomicUsize, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let id = format!("replicas-{name}-{}", seen.orders.len());
        let order = PlaceOrderRequest {
            client_order_id: id.clone(),
            // It ends at once: nobody's number of open orders grows.
            time_in_force: TimeInForce::Ioc.into(),
            ..resting()
        };
        let began = Instant::now();
        while let Err(e) = person.place(order.clone()).await {
            let again = [tonic::Code::Unavailable, tonic::Code::DeadlineExceeded, tonic::Code::Cancelled];
            assert!(again.contains(&e.code()), "{id}: {e:?}");
            assert!(began.elapsed() < WITHIN, "{id} is not settled: {e:?}");
            seen.repeated += 1;
            tokio::task::yield_now().await;
        }
        seen.longest = seen.longest.max(began.elapsed());
        seen.orders.push(id);
        placed.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

/// Waits until orders have come in again: what was replaced is used.
fn orders_come_in(placed: &AtomicUsize) {
    let (until, before) = (Instant::now() + WITHIN, placed.load(Ordering::Relaxed));
    while placed.load(Ordering::Relaxed) < before + 2 * CLIENTS {
        assert!(Instant::now() < until, "no orders come in");
        std::thread::yield_now();
    }
}

/// Two of each, then three while one is replaced; then what is alone is started again.
fn replace_all(fleet: &mut Fleet, placed: &AtomicUsize) {
    for i in STATELESS {
        fleet.surge(i);
        orders_come_in(placed);
    }
    for i in STATELESS {
        fleet.surge(i);
        fleet.retire_first(i);
        orders_come_in(placed);
        fleet.surge(i);
        fleet.retire(i);
        orders_come_in(placed);
    }
    for i in ALONE {
        fleet.cluster.stop(i);
        fleet.cluster.start(i);
        orders_come_in(placed);
    }
}

#[test]
fn orders_go_on_while_every_replica_is_replaced() {
    let Some(external) = External::named() else { return };
    let mut fleet = Fleet::up(external);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = fleet.addresses[GATEWAY].url();
    let mut person = runtime.block_on(Person::signed_in(&url, "user@test.com"));
    runtime.block_on(person.deposit(CASH, "replicas")).unwrap();
    // Connections are made within it.
    let _entered = runtime.enter();
    let (placed, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let (person, runtime, placed, over) = (person.at(&url), &runtime, &placed, &over);
                scope.spawn(move || runtime.block_on(client(person, name, placed, over)))
            })
            .collect();
        replace_all(&mut fleet, &placed);
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let orders: usize = seen.iter().map(|seen| seen.orders.len()).sum();
    let repeated: usize = seen.iter().map(|seen| seen.repeated).sum();
    let longest = seen.iter().map(|seen| seen.longest).max();
    println!("{orders} orders, {repeated} sent again, the longest took {longest:?}");
    let found = runtime.block_on(person.client_orders("replicas-"));
    let mut ids: Vec<_> = seen.into_iter().flat_map(|seen| seen.orders).collect();
    ids.sort();
    assert_eq!(found, ids, "each of them once");
    fleet.cluster.audit();
}
