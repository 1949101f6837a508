//! Who is told what when a peer dies, leaves, stops or falls silent.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::io::Write;

use batched_comm::{CallError, DownReason, Lane, NodeId, PeerChange, PeerEvent, PeerEvents, SendError};
use bytes::Bytes;
use support::other::Other;
use support::{ECHO, LONG, Node, config, eventually, hasty, mortal, node, node_with};
use tokio::time::{Instant, timeout};

async fn next(events: &mut PeerEvents) -> PeerEvent {
    timeout(LONG, events.next()).await.expect("an event in time").expect("the endpoint lives").unwrap()
}

async fn next_change(events: &mut PeerEvents, node: u64) -> PeerChange {
    let event = next(events).await;
    assert_eq!(event.node, NodeId(node));
    event.change
}

/// The next suspicion. On a busy machine a healthy peer may have been suspected before, and cleared.
async fn next_suspicion(events: &mut PeerEvents) {
    loop {
        match next_change(events, 2).await {
            PeerChange::Suspect => return,
            change => assert_eq!(change, PeerChange::Up),
        }
    }
}

/// What becomes of a suspected peer in the end. Of what it has sent last, some may have been read only now: then it is
/// cleared, and suspected again.
async fn end_of_suspicion(events: &mut PeerEvents) -> PeerChange {
    loop {
        match next_change(events, 2).await {
            PeerChange::Up => next_suspicion(events).await,
            change => return change,
        }
    }
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
    if tokio::task::spawn_blocking(|| Other::play(config(2))).await.unwrap() {
        return;
    }
    let a = node_with(config(1)).await;
    let mut events = a.endpoint.watch_peers();
    let other = Other::start("the_death_of_a_process_that_was_dialled_shows_by_its_lifeline", None);
    a.endpoint.set_address(NodeId(2), &other.address);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    check_death(&a, &mut events, other).await;
}

#[tokio::test]
async fn the_death_of_a_process_that_dialled_shows_by_its_lifeline() {
    if tokio::task::spawn_blocking(|| Other::play(config(2))).await.unwrap() {
        return;
    }
    let a = node_with(config(1)).await;
    let mut events = a.endpoint.watch_peers();
    let (name, address) =
        ("the_death_of_a_process_that_dialled_shows_by_its_lifeline", a.endpoint.advertised().to_owned());
    let other = tokio::task::spawn_blocking(move || Other::start(name, Some(&address))).await.unwrap();
    check_death(&a, &mut events, other).await;
}

#[tokio::test]
async fn a_process_that_is_stopped_is_suspected_then_cleared_or_given_up_as_silent() {
    if tokio::task::spawn_blocking(|| Other::play(config(2))).await.unwrap() {
        return;
    }
    let mut config = hasty(1);
    config.suspect_after_beats_missed = 2;
    let a = node_with(config).await;
    let mut events = a.endpoint.watch_peers();
    let name = "a_process_that_is_stopped_is_suspected_then_cleared_or_given_up_as_silent";
    let other = Other::start(name, None);
    a.endpoint.set_address(NodeId(2), &other.address);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
    other.signal("-STOP");
    next_suspicion(&mut events).await;
    assert!(a.endpoint.is_connected(NodeId(2)), "a suspicion changes nothing");
    other.signal("-CONT");
    assert_eq!(next_change(&mut events, 2).await, PeerChange::Up);
    other.signal("-STOP");
    next_suspicion(&mut events).await;
    assert_eq!(end_of_suspicion(&mut events).await, PeerChange::Down(DownReason::Silent));
    other.signal("-CONT");
}

#[tokio::test]
async fn a_node_that_closes_has_left_at_once_and_everything_it_sent_has_arrived() {
    const CASTS: u32 = 2000;
    let mut a = node_with(config(1)).await;
    let b = node_with(config(2)).await;
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
    let a = node_with(config(1)).await;
    let mut events = a.endpoint.watch_peers();
    for (client, is_dropped) in [(2, false), (3, true)] {
        let b = node_with(config(client)).await;
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
        let mut configs = [hasty(1), hasty(2)];
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
        next_suspicion(&mut events).await;
        assert_eq!(end_of_suspicion(&mut events).await, PeerChange::Down(DownReason::Silent));
        assert_eq!(a.endpoint.counters().lifelines_held, 0);
    }
}

#[tokio::test]
async fn a_node_whose_tcp_port_is_taken_does_without_a_lifeline_until_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config_b = config(2);
    config_b.listen = taken.local_addr().unwrap();
    let (a, b) = (node_with(config(1)).await, node_with(config_b).await);
    a.knows(&b);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    eventually("noticed", || b.endpoint.counters().lifelines_missing == 1).await;
    drop(taken);
    let address = b.endpoint.local_addr();
    eventually("it listens", || std::net::TcpStream::connect(address).is_ok()).await;
    let c = node_with(config(3)).await;
    c.knows(&b);
    let answer = c.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
    eventually("the next connection has one", || c.endpoint.counters().lifelines_held == 1).await;
}

#[tokio::test]
async fn a_restarted_node_of_the_same_id_is_down_before_it_is_up_again() {
    let a = node_with(config(1)).await;
    let mut events = a.endpoint.watch_peers();
    let mut config_b = config(2);
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
    let (a, b) = (node_with(config(1)).await, node_with(config(2)).await);
    let (mut at_a, mut at_b) = (a.endpoint.watch_peers(), b.endpoint.watch_peers());
    a.knows(&b);
    assert_eq!(call(&a, 1).await, Ok(Bytes::new()));
    a.endpoint.forget(NodeId(2));
    assert_eq!(next_change(&mut at_a, 2).await, PeerChange::Up);
    assert_eq!(next_change(&mut at_a, 2).await, PeerChange::Down(DownReason::Forgotten));
    assert_eq!(next_change(&mut at_b, 1).await, PeerChange::Up);
    assert_eq!(next_change(&mut at_b, 1).await, PeerChange::Down(DownReason::Left));
}
