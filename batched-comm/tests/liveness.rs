//! Who is told what when a peer dies, leaves, stops or falls silent.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use batched_comm::{
    CallError, CertificateAuthority, DownReason, EndpointConfig, Lane, NodeId, PeerChange, PeerEvent,
    PeerEvents, SendError,
};
use bytes::Bytes;
use support::{ECHO, LONG, Node, authority, config, eventually, mortal, node, node_with};
use tokio::time::{Instant, timeout};

/// Where the other process finds the CA; set for that process only.
const DIRECTORY: &str = "BATCHED_COMM_TEST_DIRECTORY";
/// The address it dials, if it is to dial.
const DIAL: &str = "BATCHED_COMM_TEST_DIAL";

/// Another process with node 2: this test binary again, running the same test in its other role.
struct Other {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Other {
    fn start(test: &str, dial: Option<&str>) -> Other {
        let directory = tempfile::tempdir().unwrap();
        authority().save(directory.path()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(DIRECTORY, directory.path())
            .envs(dial.map(|address| (DIAL, address)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the other process says where it is").unwrap();
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.to_owned();
            }
        };
        Other { child, address, _directory: directory }
    }

    /// The other role, in the process that was started for it; it ends with its standard input.
    fn play() -> bool {
        let Some(directory) = std::env::var_os(DIRECTORY) else { return false };
        let path = |name| std::path::Path::new(&directory).join(name);
        let authority = CertificateAuthority::from_files(path("ca.pem"), path("ca.key")).unwrap();
        let mut config = patient(2);
        config.identity = authority.identity(&config.name);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let node = runtime.block_on(async {
            let node = node_with(config).await;
            node.endpoint.register(batched_comm::ServiceId(2), std::sync::Arc::new(Forgetful));
            if let Ok(address) = std::env::var(DIAL) {
                node.endpoint.discover(&address, LONG).await.unwrap();
            }
            node
        });
        println!("listening on {}", node.endpoint.advertised());
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        runtime.block_on(node.endpoint.close());
        std::process::exit(0);
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps every reply for ever.
struct Forgetful;

impl batched_comm::Handler for Forgetful {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {}

    fn on_call(&self, _from: NodeId, _payload: Bytes, reply: batched_comm::Reply) {
        std::mem::forget(reply);
    }
}

/// A config with which silence cannot be what ends a connection within a test.
fn patient(node: u64) -> EndpointConfig {
    let mut config = config(node);
    config.idle_timeout = Duration::from_secs(60);
    config.keep_alive_interval = Duration::from_secs(20);
    config
}

async fn next(events: &mut PeerEvents) -> PeerEvent {
    timeout(LONG, events.next()).await.expect("an event in time").expect("the endpoint lives").unwrap()
}

async fn next_change(events: &mut PeerEvents, node: u64) -> PeerChange {
    let event = next(events).await;
    assert_eq!(event.node, NodeId(node));
    event.change
}

fn call(from: &Node, service: u16) -> impl Future<Output = Result<Bytes, CallError>> + 'static + use<> {
    from.endpoint.call(NodeId(2), Lane::Normal, batched_comm::ServiceId(service), Bytes::new(), LONG)
}

/// Waits for the lifelines of both ends, kills the other process and checks what this one is told.
async fn check_death(a: &Node, events: &mut PeerEvents, mut other: Other) {
    assert_eq!(next_change(events, 2).await, PeerChange::Up);
    eventually("the lifeline is held", || a.endpoint.counters().lifelines_held == 1).await;
    let in_flight = call(a, 2);
    other.child.kill().unwrap();
    let start = Instant::now();
    assert_eq!(next_change(events, 2).await, PeerChange::Down(DownReason::Died));
    println!("told of the death after {:?}", start.elapsed());
    assert_eq!(in_flight.await, Err(CallError::Lost { node: NodeId(2) }));
    assert!(!a.endpoint.is_connected(NodeId(2)));
    assert!(call(a, 1).await.unwrap_err().surely_not_delivered(), "and no call waits for it any more");
    assert_eq!(a.endpoint.counters().peers_died, 1);
}

/// QUIC has nobody to say goodbye for a killed process: its peers once had to wait for its silence.
#[tokio::test]
async fn the_death_of_a_process_that_was_dialled_shows_by_its_lifeline() {
    if tokio::task::spawn_blocking(Other::play).await.unwrap() {
        return;
    }
    let a = node_with(patient(1)).await;
    let mut events = a.endpoint.watch_peers();
    let other = Other::start("the_death_of_a_process_that_was_dialled_shows_by_its_lifeline", None);
    a.endpoint.set_address(NodeId(2), &other.address);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    check_death(&a, &mut events, other).await;
}

#[tokio::test]
async fn the_death_of_a_process_that_dialled_shows_by_its_lifeline() {
    if tokio::task::spawn_blocking(Other::play).await.unwrap() {
        return;
    }
    let a = node_with(patient(1)).await;
    let mut events = a.endpoint.watch_peers();
    let (name, address) =
        ("the_death_of_a_process_that_dialled_shows_by_its_lifeline", a.endpoint.advertised().to_owned());
    let other = tokio::task::spawn_blocking(move || Other::start(name, Some(&address))).await.unwrap();
    check_death(&a, &mut events, other).await;
}

#[tokio::test]
async fn a_process_that_is_stopped_is_suspected_then_cleared_or_given_up_as_silent() {
    if tokio::task::spawn_blocking(Other::play).await.unwrap() {
        return;
    }
    let mut config = config(1);
    config.keep_alive_interval = Duration::from_millis(100);
    config.suspect_after_beats_missed = 2;
    config.idle_timeout = Duration::from_millis(1500);
    let a = node_with(config).await;
    let mut events = a.endpoint.watch_peers();
    let name = "a_process_that_is_stopped_is_suspected_then_cleared_or_given_up_as_silent";
    let other = Other::start(name, None);
    a.endpoint.set_address(NodeId(2), &other.address);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
    other.signal("-STOP");
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Suspect);
    assert!(a.endpoint.is_connected(NodeId(2)), "a suspicion changes nothing");
    other.signal("-CONT");
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
    other.signal("-STOP");
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Suspect);
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Down(DownReason::Silent));
    other.signal("-CONT");
}

#[tokio::test]
async fn a_node_that_closes_has_left_at_once_and_everything_it_sent_has_arrived() {
    const CASTS: u32 = 2000;
    let mut a = node_with(patient(1)).await;
    let b = node_with(patient(2)).await;
    let mut events = a.endpoint.watch_peers();
    b.knows(&a);
    for i in 0..CASTS {
        let payload = Bytes::from([&i.to_le_bytes()[..], &vec![0; (i % 7000) as usize]].concat());
        b.endpoint.cast(NodeId(1), Lane::ALL[i as usize % 3], ECHO, payload).unwrap();
    }
    b.endpoint.close().await;
    assert_eq!(b.endpoint.cast(NodeId(1), Lane::Normal, ECHO, Bytes::new()), Err(SendError::Closed));
    let mut next_on = [0, 1, 2];
    for _ in 0..CASTS {
        let (_, payload) = a.next_cast().await;
        let number = u32::from_le_bytes(payload[..4].try_into().unwrap());
        let expected = &mut next_on[number as usize % 3];
        assert_eq!(number, *expected);
        *expected += 3;
    }
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Down(DownReason::Left));
    assert!(b.endpoint.watch_peers().next().await.is_none(), "a closed endpoint has no events");
}

/// Each demo client that ended once left a line of warning on every server: `peer is out of reach`.
#[tokio::test]
async fn a_client_that_ends_normally_causes_no_warning() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let a = node_with(patient(1)).await;
    let mut events = a.endpoint.watch_peers();
    for (client, is_dropped) in [(2, false), (3, true)] {
        let b = node_with(patient(client)).await;
        b.knows(&a);
        let answer = b.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
        assert_eq!(answer, Ok(Bytes::new()));
        eventually("the lifeline is held", || a.endpoint.counters().lifelines_held == client - 1).await;
        if is_dropped {
            drop(b);
        } else {
            b.endpoint.close().await;
        }
        assert_eq!(next_change(&mut events, client).await, PeerChange::Up);
        assert_eq!(next_change(&mut events, client).await, PeerChange::Down(DownReason::Left));
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("peer down") && !text.contains("WARN"), "{text}");
    assert_eq!(a.endpoint.counters().dials_unreachable, 0);
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_node_that_left_is_reached_again_when_something_is_sent_to_it() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    let mut config_b = config(2);
    config_b.listen = b.endpoint.local_addr();
    b.endpoint.close().await;
    drop(b);
    eventually("it has left", || !a.endpoint.is_connected(NodeId(2))).await;
    eventually("its port is free", || std::net::UdpSocket::bind(config_b.listen).is_ok()).await;
    assert!(call(&a, 1).await.unwrap_err().surely_not_delivered());
    let _b = node_with(config_b).await;
    eventually("connected in the background", || a.endpoint.is_connected(NodeId(2))).await;
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
}

/// A death without a lifeline shows by the idle timeout, whichever side does without.
#[tokio::test]
async fn without_a_lifeline_a_death_shows_by_its_silence() {
    for (here, there) in [(true, false), (false, true)] {
        let mut configs = [config(1), config(2)];
        configs[0].lifeline = here;
        configs[1].lifeline = there;
        let [config_a, config_b] = configs;
        let a = node_with(config_a).await;
        let mut events = a.endpoint.watch_peers();
        let b = mortal(config_b);
        a.knows(&b.node);
        assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
        b.kill();
        assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
        assert_eq!(next_change(&mut events, 2).await, PeerChange::Suspect);
        assert_eq!(next_change(&mut events, 2).await, PeerChange::Down(DownReason::Silent));
        assert_eq!(a.endpoint.counters().lifelines_held, 0);
    }
}

#[tokio::test]
async fn a_node_whose_tcp_port_is_taken_does_without_a_lifeline_until_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config_b = patient(2);
    config_b.listen = taken.local_addr().unwrap();
    let (a, b) = (node_with(patient(1)).await, node_with(config_b).await);
    a.knows(&b);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    eventually("noticed", || b.endpoint.counters().lifelines_missing == 1).await;
    drop(taken);
    let address = b.endpoint.local_addr();
    eventually("it listens", || std::net::TcpStream::connect(address).is_ok()).await;
    let c = node_with(patient(3)).await;
    c.knows(&b);
    let answer = c.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
    eventually("the next connection has one", || c.endpoint.counters().lifelines_held == 1).await;
}

#[tokio::test]
async fn a_restarted_node_of_the_same_id_is_down_before_it_is_up_again() {
    let a = node_with(patient(1)).await;
    let mut events = a.endpoint.watch_peers();
    let mut config_b = patient(2);
    config_b.lifeline = false;
    let b = mortal(config_b.clone());
    a.knows(&b.node);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    config_b.listen = b.node.endpoint.local_addr();
    b.kill();
    let b = node_with(config_b).await;
    b.knows(&a);
    let answer = b.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Down(DownReason::Replaced));
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
}

#[tokio::test]
async fn a_forgotten_peer_is_down_and_learns_of_it() {
    let (a, b) = (node_with(patient(1)).await, node_with(patient(2)).await);
    let (mut at_a, mut at_b) = (a.endpoint.watch_peers(), b.endpoint.watch_peers());
    a.knows(&b);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    a.endpoint.forget(NodeId(2));
    assert_eq!(next_change(&mut at_a, 2).await, PeerChange::Up);
    assert_eq!(next_change(&mut at_a, 2).await, PeerChange::Down(DownReason::Forgotten));
    assert_eq!(next_change(&mut at_b, 1).await, PeerChange::Up);
    assert_eq!(next_change(&mut at_b, 1).await, PeerChange::Down(DownReason::Left));
}
