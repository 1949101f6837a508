//! Certificates that are replaced, names that point elsewhere, networks of both kinds.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use batched_comm::{
    BindError, CallError, CertificateAuthority, EndpointConfig, Identity, IdentityEvents, IdentityPhase,
    Lane, NodeId, PeerChange, Refusal, Resolver, Resolving,
};
use bytes::Bytes;
use support::{ECHO, LONG, Node, authority, config, eventually, hasty, mortal, node, node_with};
use tokio::time::timeout;

fn call(from: &Node, to: u64) -> impl Future<Output = Result<Bytes, CallError>> + 'static + use<> {
    from.endpoint.call(NodeId(to), Lane::Normal, ECHO, Bytes::from_static(b"here"), LONG)
}

/// An identity of `authority` for `node` that trusts `trusted` too.
fn identity(authority: &CertificateAuthority, node: u64, trusted: &CertificateAuthority) -> Identity {
    let issued = authority.issue(&format!("node-{node}"), 30, &[]).unwrap();
    let both = format!("{}{}", authority.ca_pem(), trusted.ca_pem());
    Identity::from_pem(&both, &issued.cert_pem, &issued.key_pem).unwrap()
}

/// The way to another CA that the docs describe, on running nodes.
#[tokio::test]
async fn the_ca_of_running_nodes_is_replaced_without_losing_a_connection() {
    let old = authority();
    let new = CertificateAuthority::new("new");
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    assert_eq!(call(&a, 2).await.unwrap(), "here");
    for (endpoint, node) in [(&a.endpoint, 1), (&b.endpoint, 2)] {
        endpoint.reload_identity(&identity(old, node, &new)).unwrap();
    }
    a.endpoint.reload_identity(&identity(&new, 1, old)).unwrap();
    assert_eq!(call(&a, 2).await.unwrap(), "here");
    assert_eq!(a.endpoint.counters().connections_established, 1, "nothing was cut");
    a.endpoint.forget(NodeId(2));
    a.knows(&b);
    assert_eq!(
        call(&a, 2).await.unwrap(),
        "here",
        "one has a certificate of the new one, the other trusts both"
    );
    b.endpoint.reload_identity(&new.identity("node-2")).unwrap();
    let stranger = node(3).await;
    stranger.knows(&b);
    let error = call(&stranger, 2).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { refusal: Refusal::OtherAuthority, .. }), "{error}");
    assert_eq!(call(&a, 2).await.unwrap(), "here");
}

#[tokio::test]
async fn an_identity_of_another_name_is_not_taken_and_the_old_one_stays() {
    let (a, b) = (node(1).await, node(2).await);
    let error = a.endpoint.reload_identity(&authority().identity("somebody-else")).unwrap_err();
    assert!(matches!(error, BindError::NameNotCertified { .. }), "{error}");
    b.knows(&a);
    assert_eq!(call(&b, 1).await.unwrap(), "here");
}

#[tokio::test]
async fn an_endpoint_tells_when_its_certificate_expires() {
    let a = node(1).await;
    let day = Duration::from_secs(24 * 3600);
    let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap();
    let first = left(a.endpoint.identity_expires_at());
    assert!((29 * day..=30 * day).contains(&first), "{first:?}");
    let issued = authority().issue("node-1", 3, &[]).unwrap();
    let short = Identity::from_pem(authority().ca_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    a.endpoint.reload_identity(&short).unwrap();
    assert_eq!(a.endpoint.identity_expires_at(), short.expires_at());
    assert!((2 * day..=3 * day).contains(&left(short.expires_at())));
}

/// An identity for `node-1` of a CA of its own, from so long ago until so much later.
fn brief_identity(ago: Duration, left: Duration) -> Identity {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let mut params = rcgen::CertificateParams::new(vec!["node-1".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - ago).into();
    params.not_after = (SystemTime::now() + left).into();
    let key = rcgen::KeyPair::generate().unwrap();
    let node = params.signed_by(&key, &issuer).unwrap();
    Identity::from_pem(&ca.pem(), &node.pem(), &key.serialize_pem()).unwrap()
}

async fn next_phase(events: &mut IdentityEvents) -> IdentityPhase {
    timeout(LONG, events.next()).await.expect("an event in time").expect("the endpoint lives").phase
}

/// The log alone once told of it, which no program reads, and certificates of less than an hour expired untold.
#[tokio::test]
async fn that_a_certificate_ends_is_an_event_ahead_of_time_and_so_is_its_renewal() {
    const HOUR: Duration = Duration::from_secs(3600);
    let a = node(1).await;
    let mut events = a.endpoint.watch_identity();
    assert_eq!(next_phase(&mut events).await, IdentityPhase::Valid);
    // In its last third already when it is loaded.
    let ending = brief_identity(3 * HOUR, HOUR);
    a.endpoint.reload_identity(&ending).unwrap();
    let event = timeout(LONG, events.next()).await.unwrap().unwrap();
    assert_eq!((event.phase, event.expires_at), (IdentityPhase::Expiring, ending.expires_at()));
    let mut late = a.endpoint.watch_identity();
    assert_eq!(next_phase(&mut late).await, IdentityPhase::Expiring, "a late watch is told what holds");
    a.endpoint.reload_identity(&authority().identity("node-1")).unwrap();
    assert_eq!(next_phase(&mut events).await, IdentityPhase::Valid, "it is renewed");
    a.endpoint.close().await;
    assert!(events.next().await.is_none() && a.endpoint.watch_identity().next().await.is_none());
}

#[tokio::test]
async fn a_certificate_is_followed_through_its_life_after_a_reload_too() {
    let mut config_a = config(1);
    config_a.identity_expiry_warning = Duration::from_secs(3);
    let a = node_with(config_a).await;
    let mut events = a.endpoint.watch_identity();
    assert_eq!(next_phase(&mut events).await, IdentityPhase::Valid);
    // Two seconds until it is about to end, three more until it has.
    let brief = brief_identity(Duration::from_secs(10), Duration::from_secs(5));
    a.endpoint.reload_identity(&brief).unwrap();
    assert_eq!(next_phase(&mut events).await, IdentityPhase::Valid);
    assert_eq!(next_phase(&mut events).await, IdentityPhase::Expiring);
    assert!(SystemTime::now() < brief.expires_at(), "ahead of time");
    assert_eq!(next_phase(&mut events).await, IdentityPhase::Expired);
    assert!(SystemTime::now() >= brief.expires_at());
}

/// Answers with what the test says.
#[derive(Debug, Default)]
struct Names(Mutex<Vec<SocketAddr>>);

impl Resolver for Names {
    fn resolve(&self, address: &str) -> Resolving {
        assert_eq!(address, "b.example:7000");
        let addresses = self.0.lock().unwrap().clone();
        Box::pin(async move { Ok(addresses) })
    }
}

#[tokio::test]
async fn a_name_is_looked_up_anew_at_each_dial_and_its_addresses_are_tried_in_turn() {
    let names = Arc::new(Names::default());
    let mut config_a = hasty(1);
    config_a.resolver = names.clone();
    let a = node_with(config_a).await;
    a.endpoint.set_address(NodeId(2), "b.example:7000");
    let error = call(&a, 2).await.unwrap_err().to_string();
    assert!(error.contains("b.example:7000 has no address"), "{error}");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let b = mortal(config(2));
    *names.0.lock().unwrap() = vec![nobody, b.node.endpoint.local_addr()];
    eventually("the second address is found", || a.endpoint.is_connected(NodeId(2))).await;
    let mut events = a.endpoint.watch_peers();
    b.kill();
    let b = node(2).await;
    *names.0.lock().unwrap() = vec![b.endpoint.local_addr()];
    let is_down = |change| matches!(change, PeerChange::Down(_));
    while !is_down(timeout(LONG, events.next()).await.unwrap().unwrap().unwrap().change) {}
    eventually("its new address is found", || a.endpoint.is_connected(NodeId(2))).await;
    assert_eq!(call(&a, 2).await.unwrap(), "here");
}

/// Panics once, and gives an address from then on.
#[derive(Debug)]
struct PanicsOnce(AtomicBool, SocketAddr);

impl Resolver for PanicsOnce {
    fn resolve(&self, _: &str) -> Resolving {
        assert!(self.0.swap(true, Ordering::Relaxed), "as it was told");
        let address = self.1;
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// Nobody dialled the peer ever again, and all calls to it timed out.
#[tokio::test]
async fn a_resolver_that_panics_fails_the_call_and_is_asked_again_by_the_next() {
    let b = node(2).await;
    let mut config_a = config(1);
    config_a.resolver = Arc::new(PanicsOnce(AtomicBool::new(false), b.endpoint.local_addr()));
    let a = node_with(config_a).await;
    a.endpoint.set_address(NodeId(2), "b.example:7000");
    let error = call(&a, 2).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert_eq!(call(&a, 2).await.unwrap(), "here");
}

fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

#[tokio::test]
async fn a_node_that_listens_on_all_addresses_is_reached_by_both_kinds_and_has_its_lifelines() {
    if !has_ipv6() {
        // This machine has no IPv6.
        return;
    }
    let on = |node: u64, listen: &str| {
        let mut config: EndpointConfig = config(node);
        config.listen = listen.parse().unwrap();
        config
    };
    let a = node_with(on(1, "[::]:0")).await;
    let port = a.endpoint.local_addr().port();
    for (peer, listen, address) in [(2, "127.0.0.1:0", "127.0.0.1"), (3, "[::1]:0", "[::1]")] {
        let b = node_with(on(peer, listen)).await;
        b.endpoint.set_address(NodeId(1), &format!("{address}:{port}"));
        assert_eq!(call(&b, 1).await.unwrap(), "here");
        eventually("a lifeline", || b.endpoint.counters().lifelines_held == 1).await;
        a.endpoint.forget(NodeId(peer));
        a.endpoint.set_address(NodeId(peer), b.endpoint.advertised());
        assert_eq!(call(&a, peer).await.unwrap(), "here", "and reaches both kinds");
    }
}

#[tokio::test]
async fn every_counter_is_in_the_readme() {
    let readme = include_str!("../README.md");
    for (name, value) in node(1).await.endpoint.counters().each() {
        assert!(readme.contains(&format!("`{name}`")), "{name} is missing");
        assert_eq!(value, 0, "{name}");
    }
}

#[test]
fn what_one_peer_can_make_a_node_hold_is_known_and_grows_with_the_limits() {
    let mut config = config(1);
    let by_default = config.memory_bytes_per_peer_max();
    assert_eq!(by_default >> 20, 393);
    config.queue_bytes_max /= 2;
    assert_eq!(config.memory_bytes_per_peer_max(), by_default - 3 * (16 << 20));
}
