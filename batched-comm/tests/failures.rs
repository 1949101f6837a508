//! Nodes that die, restart, move or were never there.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::time::Duration;

use batched_comm::{CallError, Lane, NodeId, Refusal, SendError};
use bytes::Bytes;
use support::other::Forgetful;
use support::{ECHO, LONG, config, eventually, hasty, loopback, mortal, node, node_with};
use tokio::time::Instant;

fn ping(from: &support::Node, to: u64) -> impl Future<Output = Result<Bytes, CallError>> + 'static + use<> {
    from.endpoint.call(NodeId(to), Lane::Normal, ECHO, Bytes::from_static(b"ping"), LONG)
}

/// What a future says that does not wait for anything.
async fn at_once<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::ZERO, future).await.expect("it does not wait")
}

#[tokio::test]
async fn a_call_to_a_node_nobody_knows_fails_at_once() {
    let a = node(1).await;
    let error = at_once(ping(&a, 9)).await.unwrap_err();
    assert!(error.surely_not_delivered());
    assert_eq!(error.to_string(), "node 0000000000000009 is unreachable: no address is known for it");
    let error = a.endpoint.cast(NodeId(9), Lane::Bulk, ECHO, Bytes::new()).unwrap_err();
    assert_eq!(error, SendError::UnknownAddress { node: NodeId(9) });
    assert_eq!((a.endpoint.counters().calls_refused, a.endpoint.counters().casts_dropped), (1, 1));
}

#[tokio::test]
async fn a_call_to_a_dead_node_fails_within_the_connect_timeout_and_then_at_once() {
    let a = node_with(hasty(1)).await;
    let dead = std::net::UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    a.endpoint.set_address(NodeId(2), &dead.to_string());
    let start = Instant::now();
    let error = ping(&a, 2).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    let error = at_once(ping(&a, 2)).await.unwrap_err();
    assert!(error.surely_not_delivered(), "{error}");
    let error = a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::new()).unwrap_err();
    assert!(matches!(error, SendError::Disconnected { .. }), "{error}");
    assert_eq!(a.endpoint.counters().casts_dropped, 1);
}

#[tokio::test]
async fn a_node_that_comes_up_late_is_reached_without_being_named_again() {
    let a = node_with(hasty(1)).await;
    let address = std::net::UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    a.endpoint.set_address(NodeId(2), &address.to_string());
    assert!(ping(&a, 2).await.is_err());
    let mut config_b = config(2);
    config_b.listen = address;
    let _b = node_with(config_b).await;
    eventually("connected in the background", || a.endpoint.is_connected(NodeId(2))).await;
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
}

#[tokio::test]
async fn calls_in_flight_to_a_node_that_is_killed_are_lost_after_the_idle_timeout_and_not_later() {
    let a = node_with(hasty(1)).await;
    let b = mortal(config(2));
    a.knows(&b.node);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    b.kill();
    let start = Instant::now();
    let error = ping(&a, 2).await.unwrap_err();
    assert_eq!(error, CallError::Lost { node: NodeId(2) });
    assert!(!error.surely_not_delivered());
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    assert_eq!(a.endpoint.counters().calls_lost, 1);
}

/// The endpoint's own timer ends calls in time, and it ends with the runtime: whoever waited on another one once waited for
/// its own timer, and would wait for ever without.
#[test]
fn a_call_ends_when_the_runtime_of_its_endpoint_does() {
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = (mortal(config(1)), here.block_on(node(2)));
    let silent = batched_comm::ServiceId(2);
    b.endpoint.register(silent, std::sync::Arc::new(Forgetful));
    a.node.knows(&b);
    here.block_on(ping(&a.node, 2)).unwrap();
    let call = a.node.endpoint.call(NodeId(2), Lane::Normal, silent, Bytes::new(), Duration::MAX);
    let received = || b.endpoint.counters().messages_received;
    here.block_on(eventually("it has arrived", || received() == 2));
    let endpoint = a.node.endpoint.clone();
    a.kill();
    assert_eq!(here.block_on(call), Err(CallError::Lost { node: NodeId(2) }));
    let after = endpoint.call(NodeId(2), Lane::Normal, silent, Bytes::new(), LONG);
    assert_eq!(here.block_on(after), Err(CallError::Closed));
}

#[tokio::test]
async fn calls_end_at_their_own_time_whatever_the_order_of_their_deadlines() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let silent = batched_comm::ServiceId(2);
    b.endpoint.register(silent, std::sync::Arc::new(Forgetful));
    let start = Instant::now();
    let mut calls: Vec<_> = [60_000, 100, 300, 0, 100]
        .into_iter()
        .map(|millis| {
            let timeout = Duration::from_millis(millis);
            let call = a.endpoint.call(NodeId(2), Lane::Normal, silent, Bytes::new(), timeout);
            tokio::spawn(async move { (timeout, call.await, start.elapsed()) })
        })
        .collect();
    for call in calls.split_off(1) {
        let (timeout, answer, took) = call.await.unwrap();
        assert!(matches!(answer, Err(CallError::Timeout { .. })), "{answer:?}");
        assert!(took >= timeout && took < timeout + LONG, "{took:?} of {timeout:?}");
    }
    assert!(!calls[0].is_finished());
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
}

#[tokio::test]
async fn calls_in_flight_to_a_node_that_closes_are_lost_at_once() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    let silent = batched_comm::ServiceId(2);
    b.endpoint.register(silent, std::sync::Arc::new(Forgetful));
    let call = a.endpoint.call(NodeId(2), Lane::Normal, silent, Bytes::new(), LONG);
    eventually("it has arrived", || b.endpoint.counters().messages_received == 2).await;
    b.endpoint.close().await;
    let start = Instant::now();
    assert_eq!(call.await, Err(CallError::Lost { node: NodeId(2) }));
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    assert!(at_once(ping(&a, 2)).await.unwrap_err().surely_not_delivered());
    assert_eq!(b.endpoint.cast(NodeId(1), Lane::Normal, ECHO, Bytes::new()), Err(SendError::Closed));
    assert_eq!(ping(&b, 1).await, Err(CallError::Closed));
    assert_eq!(ping(&b, 2).await, Err(CallError::Closed));
}

/// The process is killed and comes back at once on the same port under a new node id: the old id must not hang
/// until the connection's silence is noticed. Its endpoint recognises the connection ids of its predecessor
/// (they are derived from the node's key) and resets those connections.
#[tokio::test]
async fn a_node_restarted_under_a_new_id_makes_the_old_one_unreachable_quickly() {
    let mut config_a = config(1);
    config_a.idle_timeout = 2 * LONG;
    let a = node_with(config_a).await;
    let mut config_b = config(2);
    let identity = config_b.identity.clone();
    let b = mortal(config_b.clone());
    a.knows(&b.node);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    config_b.listen = b.node.endpoint.local_addr();
    config_b.node = NodeId(3);
    config_b.identity = identity;
    b.kill();
    // Sent before anything of the death can have been noticed.
    let lost = ping(&a, 2);
    let c = node_with(config_b).await;
    let start = Instant::now();
    assert_eq!(lost.await, Err(CallError::Lost { node: NodeId(2) }));
    let mut error = ping(&a, 2).await.unwrap_err();
    while !matches!(error, CallError::Refused { refusal: Refusal::OtherNode, .. }) {
        assert!(error.surely_not_delivered(), "{error}");
        assert!(start.elapsed() < LONG / 2, "{error}");
        tokio::task::yield_now().await;
        error = ping(&a, 2).await.unwrap_err();
    }
    assert!(error.surely_not_delivered());
    a.knows(&c);
    assert_eq!(ping(&a, 3).await.unwrap(), "ping");
    assert!(!a.endpoint.is_connected(NodeId(2)));
}

/// The restarted node dials first: whoever still holds the predecessor's connection drops it on arrival.
#[tokio::test]
async fn a_restarted_node_that_dials_replaces_its_predecessor_on_arrival() {
    let mut config_a = config(1);
    config_a.idle_timeout = 2 * LONG;
    config_a.keep_alive_interval = LONG;
    let a = node_with(config_a).await;
    let mut config_b = config(2);
    let b = mortal(config_b.clone());
    a.knows(&b.node);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    config_b.listen = b.node.endpoint.local_addr();
    config_b.node = NodeId(3);
    b.kill();
    let c = node_with(config_b).await;
    c.endpoint.discover(a.endpoint.advertised(), LONG).await.unwrap();
    eventually("the old connection is gone", || !a.endpoint.is_connected(NodeId(2))).await;
    assert_eq!(ping(&a, 3).await.unwrap(), "ping");
    assert!(ping(&a, 2).await.unwrap_err().surely_not_delivered());
}

#[tokio::test]
async fn a_node_restarted_under_its_old_id_is_reached_again() {
    let a = node(1).await;
    let mut config_b = config(2);
    let b = mortal(config_b.clone());
    a.knows(&b.node);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    config_b.listen = b.node.endpoint.local_addr();
    b.kill();
    let b = node_with(config_b).await;
    b.knows(&a);
    assert_eq!(ping(&b, 1).await.unwrap(), "ping", "the new connection takes the old one's place");
    while let Err(error) = ping(&a, 2).await {
        assert!(!matches!(error, CallError::Timeout { .. }), "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_moved_is_reached_at_its_new_address() {
    let a = node_with(hasty(1)).await;
    let b = mortal(config(2));
    a.knows(&b.node);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    b.kill();
    let b = node(2).await;
    a.knows(&b);
    let start = Instant::now();
    while ping(&a, 2).await.is_err() {
        assert!(start.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_queued_during_the_first_dial_is_sent_when_it_succeeds() {
    let (a, mut b) = (node(1).await, node(2).await);
    a.knows(&b);
    for i in 0..50u8 {
        a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::copy_from_slice(&[i])).unwrap();
    }
    for i in 0..50u8 {
        assert_eq!(b.next_cast().await.1[0], i);
    }
}

#[tokio::test]
async fn a_forgotten_node_has_no_address_and_may_come_back() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    a.endpoint.forget(NodeId(2));
    assert!(!a.endpoint.is_connected(NodeId(2)));
    assert!(matches!(ping(&a, 2).await, Err(CallError::Unreachable { .. })));
    a.knows(&b);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_endpoint_and_frees_its_port() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    assert_eq!(ping(&a, 2).await.unwrap(), "ping");
    let address = b.endpoint.local_addr();
    drop(b);
    eventually("the connection is gone", || !a.endpoint.is_connected(NodeId(2))).await;
    eventually("the port is free", || std::net::UdpSocket::bind(address).is_ok()).await;
}
