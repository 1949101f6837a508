//! Everything at once: restarts, reloads and double dials under load, and what must hold through all of it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batched_comm::{
    CallError, Compression, Endpoint, EndpointConfig, Handler, Identity, Lane, LaneSettings, NodeId,
    PeerChange, PeerEvents, Reply, ServiceId,
};
use bytes::Bytes;
use support::{ECHO, LONG, authority, config, eventually, mortal, node, node_with};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

const COUNTING: ServiceId = ServiceId(7);
const INCARNATION: ServiceId = ServiceId(8);

/// How often each call was handled, by its number.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Handler for Handled {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {}

    fn on_call(&self, _from: NodeId, payload: Bytes, reply: Reply) {
        let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
        *self.0.lock().unwrap().entry(number).or_default() += 1;
        reply.send(payload);
    }
}

/// Calls with numbers of its own until told to end; what became of each.
async fn call_on(
    client: Endpoint,
    to: NodeId,
    first: u64,
    is_over: Arc<AtomicBool>,
) -> Vec<(u64, Result<(), CallError>)> {
    let mut results = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let number = first + results.len() as u64;
        let payload = Bytes::copy_from_slice(&number.to_le_bytes());
        let answer = client.call(to, Lane::Normal, COUNTING, payload.clone(), LONG).await;
        if answer.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        results.push((number, answer.map(|answer| assert_eq!(answer, payload))));
    }
    results
}

/// Says which incarnation of the node answers.
struct Incarnation(u64);

impl Handler for Incarnation {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {}

    fn on_call(&self, _from: NodeId, _payload: Bytes, reply: Reply) {
        reply.send(Bytes::copy_from_slice(&self.0.to_le_bytes()));
    }
}

/// The peer's next incarnation is there. Until a death is noticed, `is_connected` still means the connection to the one that
/// died: the events tell them apart.
async fn is_up_again(events: &mut PeerEvents) {
    while !matches!(next_change(events).await, PeerChange::Down(_)) {}
    assert_eq!(next_change(events).await, PeerChange::Up);
}

async fn next_change(events: &mut PeerEvents) -> PeerChange {
    timeout(LONG, events.next()).await.expect("an event in time").expect("the endpoint lives").unwrap().change
}

/// Twenty nodes call one that dies five times and comes back at its place each time, under its old id and another instance.
/// No call is handled twice, none that was surely not delivered is handled at all, and all come back by themselves: whoever
/// has been told that the node is up again reaches the one that lives, at the first call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_storm_of_restarts_every_call_is_what_its_error_says() {
    const CLIENTS: u64 = 20;
    const CALLERS: u64 = 4;
    const CALLS_PER_LIFE: usize = 300;
    let handled = Handled::default();
    let born = |config: &EndpointConfig, incarnation| {
        let server = mortal(config.clone());
        server.node.endpoint.register(INCARNATION, Arc::new(Incarnation(incarnation)));
        server.node.endpoint.register(COUNTING, Arc::new(handled.clone()));
        server
    };
    let mut config_server = config(1);
    let mut server = born(&config_server, 0);
    config_server.listen = server.node.endpoint.local_addr();
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut clients, mut callers) = (Vec::new(), Vec::new());
    for client in 0..CLIENTS {
        let node = node(100 + client).await;
        let mut events = node.endpoint.watch_peers();
        node.knows(&server.node);
        for caller in 0..CALLERS {
            let first = (client * CALLERS + caller) << 32;
            callers.push(tokio::spawn(call_on(node.endpoint.clone(), NodeId(1), first, is_over.clone())));
        }
        assert_eq!(next_change(&mut events).await, PeerChange::Up);
        clients.push((node, events));
    }
    for incarnation in 1..=5u64 {
        let enough = handled.0.lock().unwrap().len() + CALLS_PER_LIFE;
        eventually("the node has work to lose", || handled.0.lock().unwrap().len() >= enough).await;
        server.kill();
        server = born(&config_server, incarnation);
        for (client, events) in &mut clients {
            is_up_again(events).await;
            let answer = client.endpoint.call(NodeId(1), Lane::Normal, INCARNATION, Bytes::new(), LONG).await;
            assert_eq!(answer, Ok(Bytes::copy_from_slice(&incarnation.to_le_bytes())));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut good, mut lost, mut undelivered) = (0, 0, 0);
    for caller in callers {
        for (number, result) in caller.await.unwrap() {
            let times = handled.0.lock().unwrap().get(&number).copied().unwrap_or(0);
            match result {
                Ok(()) => {
                    assert_eq!(times, 1, "call {number} was answered");
                    good += 1;
                }
                Err(error) if error.surely_not_delivered() => {
                    assert_eq!(times, 0, "call {number}: {error}");
                    undelivered += 1;
                }
                Err(error) => {
                    assert!(times <= 1, "call {number} was handled {times} times: {error}");
                    lost += 1;
                }
            }
        }
    }
    assert!(good > 1000 && lost > 0, "{good} good, {lost} lost, {undelivered} undelivered");
    server.kill();
}

/// A reload while calls are under way cuts nothing and fails nothing, and the identity is in force for what comes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_reloaded_under_load_without_a_failed_call() {
    let patient = |node| {
        let mut config = config(node);
        // A machine that is busy elsewhere must not pass for a silent peer.
        config.idle_timeout = LONG;
        config
    };
    let (a, b) = (node_with(patient(1)).await, node_with(patient(2)).await);
    a.knows(&b);
    b.knows(&a);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    [&a, &b].iter().for_each(|node| node.endpoint.register(COUNTING, Arc::new(Handled::default())));
    for (from, to) in [(&a, NodeId(2)), (&b, NodeId(1))] {
        for caller in 0..8 {
            callers.push(tokio::spawn(call_on(from.endpoint.clone(), to, caller << 32, is_over.clone())));
        }
    }
    for round in 0..40 {
        let (from, name) = if round % 2 == 0 { (&a, "node-1") } else { (&b, "node-2") };
        let issued = authority().issue(name, 1 + round, &[]).unwrap();
        let identity = Identity::from_pem(authority().ca_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
        from.endpoint.reload_identity(&identity).unwrap();
        assert_eq!(from.endpoint.identity_expires_at(), identity.expires_at());
        let newcomer = node(100 + u64::from(round)).await;
        newcomer.endpoint.discover(from.endpoint.advertised(), LONG).await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        let results = caller.await.unwrap();
        assert!(results.len() > 10);
        for (number, result) in results {
            assert_eq!(result, Ok(()), "call {number}");
        }
    }
    for (endpoint, other) in [(&a.endpoint, 2), (&b.endpoint, 1)] {
        assert!(endpoint.is_connected(NodeId(other)));
        assert_eq!(endpoint.counters().calls_lost, 0);
    }
}

/// Forwards datagrams to `to` and back, each after `delay`.
async fn slow_way(to: SocketAddr, delay: Duration) -> SocketAddr {
    let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = inside.local_addr().unwrap();
    tokio::spawn(async move {
        let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut buffer = vec![0; 65_536];
        while let Ok((bytes, from)) = inside.recv_from(&mut buffer).await {
            let way = ways.entry(from).or_insert_with(|| {
                let outside = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                outside.connect(to).unwrap();
                outside.set_nonblocking(true).unwrap();
                let outside = Arc::new(UdpSocket::from_std(outside).unwrap());
                tokio::spawn(bring_back(outside.clone(), inside.clone(), from, delay));
                outside
            });
            let (datagram, outside) = (buffer[..bytes].to_vec(), way.clone());
            tokio::spawn(async move {
                sleep(delay).await;
                drop(outside.send(&datagram).await);
            });
        }
    });
    address
}

async fn bring_back(outside: Arc<UdpSocket>, inside: Arc<UdpSocket>, to: SocketAddr, delay: Duration) {
    let mut buffer = vec![0; 65_536];
    while let Ok(bytes) = outside.recv(&mut buffer).await {
        let (datagram, inside) = (buffer[..bytes].to_vec(), inside.clone());
        tokio::spawn(async move {
            sleep(delay).await;
            drop(inside.send_to(&datagram, to).await);
        });
    }
}

/// On a slow network both sides are in the middle of their handshakes for long: at any offset between the two dials one
/// connection stays, and no call is lost over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_both_dial_over_a_slow_network_one_connection_stays_at_any_offset() {
    let delay = Duration::from_millis(10);
    let mut rounds = tokio::task::JoinSet::new();
    for offset_millis in 0..60u64 {
        rounds.spawn(async move {
            let base = 1000 + 2 * offset_millis;
            let slow = |node| {
                let mut config = config(node);
                config.connect_timeout = LONG;
                config.idle_timeout = LONG;
                config
            };
            let (a, b) = (node_with(slow(base)).await, node_with(slow(base + 1)).await);
            let way_to_a = slow_way(a.endpoint.local_addr(), delay).await;
            let way_to_b = slow_way(b.endpoint.local_addr(), delay).await;
            a.endpoint.set_address(NodeId(base + 1), &way_to_b.to_string());
            b.endpoint.set_address(NodeId(base), &way_to_a.to_string());
            let call = |from: &support::Node, to| {
                from.endpoint.call(NodeId(to), Lane::Normal, ECHO, Bytes::from_static(b"x"), LONG)
            };
            let first = tokio::spawn(call(&a, base + 1));
            sleep(Duration::from_millis(offset_millis)).await;
            let second = tokio::spawn(call(&b, base));
            assert_eq!(first.await.unwrap().unwrap(), "x", "offset {offset_millis}");
            assert_eq!(second.await.unwrap().unwrap(), "x", "offset {offset_millis}");
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(200) {
                assert!(call(&a, base + 1).await.is_ok() && call(&b, base).await.is_ok());
            }
            for endpoint in [&a.endpoint, &b.endpoint] {
                let counters = endpoint.counters();
                let seen = (counters.connections_established, counters.connections_lost);
                assert_eq!(seen, (1, 0), "offset {offset_millis}");
            }
        });
    }
    while let Some(round) = rounds.join_next().await {
        round.unwrap();
    }
}

/// A little random number.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// One verb of an endpoint, drawn, with whatever it comes to.
async fn any_verb(endpoint: &Endpoint, addresses: &[String], state: &mut u64) {
    let index = draw(state, addresses.len() as u64) as usize;
    let (to, lane) = (NodeId(1 + index as u64), Lane::ALL[draw(state, 3) as usize]);
    let payload = Bytes::from(vec![7; draw(state, 40_000) as usize]);
    let timeout = Duration::from_millis(draw(state, 300));
    match draw(state, 12) {
        0 => endpoint.forget(to),
        1 | 2 => endpoint.set_address(to, &addresses[index]),
        3 => drop(endpoint.discover(&addresses[index], timeout).await),
        4 => drop(endpoint.cast(to, lane, ECHO, payload)),
        5 => drop(endpoint.call(to, lane, ECHO, payload, timeout).await),
        // Given up before it is answered.
        6 => drop(endpoint.call(to, lane, ECHO, payload, timeout)),
        7 => {
            drop(endpoint.broadcast(&[(NodeId(1), ECHO), (NodeId(2), COUNTING), (to, ECHO)], lane, &payload));
        }
        8 => {
            let compression = [Compression::None, Compression::Lz4, Compression::Gzip, Compression::Zstd];
            let compression = compression[draw(state, 4) as usize];
            let settings =
                LaneSettings { compression, wait_max: Some(timeout / 100), ..LaneSettings::of(lane) };
            endpoint.set_lane_settings(lane, settings).unwrap();
            drop(endpoint.set_lane_settings_of(to, lane, LaneSettings::of(lane)));
        }
        9 => drop(endpoint.collect_sending_stats(to, timeout / 10).await),
        10 => {
            let name = format!("node-{}", endpoint.node().0);
            endpoint.reload_identity(&authority().identity(&name)).unwrap();
            endpoint.set_bulk_bytes_per_second_max(Some(1 + draw(state, 1 << 26))).unwrap();
        }
        _ => drop(tokio::time::timeout(timeout / 10, endpoint.watch_peers().next()).await),
    }
}

/// Every verb from many tasks at once, on nodes that are closed in the middle of it: no task of an endpoint panics, no call is
/// without its end, and a newcomer is served as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_at_once_on_nodes_that_close_ends_nothing_by_a_panic() {
    let panics = Arc::new(AtomicUsize::new(0));
    let (before, counted) = (std::panic::take_hook(), panics.clone());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
    for id in 1..=4 {
        let node = node(id).await;
        node.endpoint.register(COUNTING, Arc::new(Incarnation(id)));
        addresses.push(node.endpoint.advertised().to_owned());
        nodes.push(node);
    }
    let (is_over, addresses) = (Arc::new(AtomicBool::new(false)), Arc::new(addresses));
    let (mut verbs, done) = (tokio::task::JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for task in 0..32 {
        let endpoint = nodes[task % nodes.len()].endpoint.clone();
        let (is_over, addresses, done) = (is_over.clone(), addresses.clone(), done.clone());
        verbs.spawn(async move {
            let mut state = task as u64;
            while !is_over.load(Ordering::Relaxed) {
                any_verb(&endpoint, &addresses, &mut state).await;
                done.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    for (node, verbs) in [(3, 2000), (2, 3000)] {
        eventually("much was done", || done.load(Ordering::Relaxed) >= verbs).await;
        nodes[node].endpoint.close().await;
    }
    eventually("and more without them", || done.load(Ordering::Relaxed) >= 4000).await;
    is_over.store(true, Ordering::Relaxed);
    let all = async { while verbs.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
    timeout(LONG, all).await.expect("every verb has its end");
    let newcomer = node(9).await;
    newcomer.knows(&nodes[0]);
    let answer = newcomer.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::from_static(b"x"), LONG).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"x")));
    for node in &nodes {
        node.endpoint.close().await;
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0, "a task has panicked");
}
