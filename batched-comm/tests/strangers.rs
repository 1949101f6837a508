//! Peers that do not belong here and peers that do not behave: refused with the reason, nothing else disturbed.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use batched_comm::{
    CallError, CertificateAuthority, ClusterId, Counters, EndpointConfig, Lane, NodeId, Refusal,
};
use bytes::Bytes;
use quinn::Connection;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::insider::{closed, control_message, hello, stranger};
use support::{ECHO, LONG, Node, authority, config, eventually, hasty, loopback, node, node_with};
use tokio::time::timeout;

/// What peers of wire version 1 say in TLS; what this file does is the same in every version.
const V1: &[u8] = b"batched-comm";

/// A healthy pair, whose connection must survive whatever a stranger does to `victim`.
struct Pair {
    victim: Node,
    friend: Node,
}

impl Pair {
    async fn new() -> Pair {
        Pair::with(config(1)).await
    }

    async fn with(config: EndpointConfig) -> Pair {
        let pair = Pair { victim: node_with(config).await, friend: node(2).await };
        pair.friend.knows(&pair.victim);
        pair.check().await;
        pair
    }

    /// The pair still talks, and over the first connection.
    async fn check(&self) {
        let payload = Bytes::from_static(b"still here");
        let answer = self.friend.endpoint.call(NodeId(1), Lane::Normal, ECHO, payload.clone(), LONG).await;
        assert_eq!(answer, Ok(payload));
        assert_eq!(self.friend.endpoint.counters().connections_established, 1);
        assert_eq!(self.friend.endpoint.counters().connections_lost, 0);
    }

    fn counters(&self) -> Counters {
        self.victim.endpoint.counters()
    }

    fn address(&self) -> SocketAddr {
        self.victim.endpoint.local_addr()
    }
}

/// Says `bytes` on the handshake stream and returns how the victim closes.
async fn close_after_saying(pair: &Pair, name: &str, bytes: &[u8]) -> (u64, String) {
    let (_endpoint, connection) = stranger(authority(), authority(), name, V1, pair.address()).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    closed(&connection).await
}

/// A stranger that has passed the handshake as node 9.
async fn insider(pair: &Pair) -> (quinn::Endpoint, Connection) {
    let (endpoint, connection) =
        stranger(authority(), authority(), "node-9", V1, pair.address()).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&control_message(1, &hello(9, "node-9"))).await.unwrap();
    let mut prefix = [0; 8];
    receive.read_exact(&mut prefix).await.unwrap();
    let mut welcome = vec![0; usize::from(u16::from_le_bytes([prefix[6], prefix[7]]))];
    receive.read_exact(&mut welcome).await.unwrap();
    assert_eq!(welcome[0], 1, "a welcome");
    send.write_all(&control_message(1, &[2, 5, 0])).await.unwrap();
    let mut verdict = [0; 10];
    receive.read_exact(&mut verdict).await.unwrap();
    assert_eq!(verdict[8..], [3, 0], "accepted");
    std::mem::forget(send);
    (endpoint, connection)
}

/// Sends `bytes` on a fresh lane stream as an insider; the victim closes, counts it and goes on.
async fn frames_refused(bytes: &[u8], finish: bool) -> String {
    let mut config = config(1);
    config.stall_timeout = Duration::from_millis(300);
    let pair = Pair::with(config).await;
    let (_endpoint, connection) = insider(&pair).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    if finish {
        stream.finish().unwrap();
    }
    let (code, reason) = closed(&connection).await;
    assert_eq!(code, 8);
    assert_eq!(pair.counters().frames_refused, 1);
    eventually("the peer is gone", || !pair.victim.endpoint.is_connected(NodeId(9))).await;
    pair.check().await;
    reason
}

#[tokio::test]
async fn a_node_of_another_ca_is_refused_whichever_side_dials() {
    let pair = Pair::new().await;
    let other = CertificateAuthority::new("other");
    let mut config = config(3);
    config.identity = other.identity("node-3");
    let outsider = node_with(config).await;
    for (from, to) in [(&outsider, &pair.victim), (&pair.victim, &outsider)] {
        let error = from.endpoint.discover(to.endpoint.advertised(), LONG).await.unwrap_err();
        let CallError::Refused { refusal, .. } = &error else { panic!("{error}") };
        assert_eq!(*refusal, Refusal::OtherAuthority, "{error}");
    }
    eventually("counted", || pair.counters().refused_other_authority == 2).await;
    pair.check().await;
}

/// A client that does not care whom it talks to must not get in either.
#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_by_the_accepting_side() {
    let pair = Pair::new().await;
    let other = CertificateAuthority::new("other");
    if let Ok((_endpoint, connection)) = stranger(&other, authority(), "node-3", V1, pair.address()).await {
        // In TLS 1.3 the client is done before the server has seen its certificate.
        timeout(LONG, connection.closed()).await.unwrap();
    }
    eventually("counted", || pair.counters().refused_other_authority == 1).await;
    pair.check().await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_whichever_side_dials() {
    let mut config_here = config(1);
    config_here.cluster = Some(ClusterId(1));
    let pair = Pair::with(config_here).await;
    let mut config_there = config(3);
    config_there.cluster = Some(ClusterId(2));
    let outsider = node_with(config_there).await;
    for (from, to) in [(&outsider, &pair.victim), (&pair.victim, &outsider)] {
        let error = from.endpoint.discover(to.endpoint.advertised(), LONG).await.unwrap_err();
        let CallError::Refused { refusal, detail, .. } = &error else { panic!("{error}") };
        assert_eq!(*refusal, Refusal::OtherCluster);
        assert!(detail.contains(&ClusterId(1).to_string()) && detail.contains(&ClusterId(2).to_string()));
        assert!(error.surely_not_delivered());
    }
    pair.check().await;
}

#[tokio::test]
async fn a_peer_that_turns_out_to_be_of_another_cluster_is_cut_off() {
    let (a, b, c) = (node(1).await, node(2).await, node(3).await);
    for peer in [&b, &c] {
        a.endpoint.discover(peer.endpoint.advertised(), LONG).await.unwrap();
    }
    a.endpoint.set_cluster(ClusterId(1));
    b.endpoint.set_cluster(ClusterId(1));
    c.endpoint.set_cluster(ClusterId(2));
    eventually("cut off", || !a.endpoint.is_connected(NodeId(3)) && !c.endpoint.is_connected(NodeId(1)))
        .await;
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
    assert_eq!(a.endpoint.counters().connections_established, 2);
    a.knows(&c);
    let mut error = a.endpoint.call(NodeId(3), Lane::Normal, ECHO, Bytes::new(), LONG).await.unwrap_err();
    while !matches!(error, CallError::Refused { refusal: Refusal::OtherCluster, .. }) {
        tokio::task::yield_now().await;
        error = a.endpoint.call(NodeId(3), Lane::Normal, ECHO, Bytes::new(), LONG).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_node_of_another_wire_version_is_refused_with_both_numbers() {
    let pair = Pair::new().await;
    let hello = control_message(7, b"who knows what version 7 says");
    let (code, reason) = close_after_saying(&pair, "node-9", &hello).await;
    assert_eq!((code, reason.as_str()), (2, "the peer speaks version 7, this node 1"));
    assert_eq!(pair.counters().refused_other_wire_version, 1);
    pair.check().await;
}

/// The dialling side learns it too: an accepting node of version 7 is played by a bare QUIC server.
#[tokio::test]
async fn the_dialler_says_that_the_other_side_speaks_another_wire_version() {
    let a = node(1).await;
    let node = authority().issue("node-9", 1, &[]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(node.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(node.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"batched-comm".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let server =
        quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), loopback()).unwrap();
    let address = server.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let connection = server.accept().await.unwrap().await.unwrap();
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.write_all(&control_message(7, b"version 7")).await.unwrap();
        closed(&connection).await
    });
    let error = a.endpoint.discover(&address, LONG).await.unwrap_err();
    let CallError::Refused { refusal, .. } = &error else { panic!("{error}") };
    assert_eq!(*refusal, Refusal::OtherWireVersion);
    assert!(error.to_string().contains("version 7"), "{error}");
    assert_eq!(serving.await.unwrap().0, 2);
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let mut config = hasty(1);
    config.idle_timeout = LONG;
    let pair = Pair::with(config).await;
    let (code, _) = close_after_saying(&pair, "node-9", b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(code, 8);
    let oversized = control_message(1, &[0; 2000]);
    assert_eq!(close_after_saying(&pair, "node-9", &oversized).await.0, 8);
    let out_of_turn = control_message(1, &[3, 0]);
    assert_eq!(close_after_saying(&pair, "node-9", &out_of_turn).await.0, 8);
    let silent = close_after_saying(&pair, "node-9", b"BC").await;
    assert_eq!(silent, (8, "the handshake timed out".to_owned()));
    assert_eq!(pair.counters().refused_malformed, 4);
    pair.check().await;
}

#[tokio::test]
async fn a_name_that_is_not_in_the_certificate_is_refused() {
    let pair = Pair::new().await;
    let (code, reason) = close_after_saying(&pair, "node-9", &control_message(1, &hello(9, "node-8"))).await;
    assert_eq!(code, 6);
    assert!(reason.contains("node-8") && reason.contains("node-9"), "{reason}");
    pair.check().await;
}

/// A node with a valid certificate of its own must not push another one aside by claiming its id.
#[tokio::test]
async fn the_id_of_a_connected_node_is_not_given_to_one_of_another_name() {
    let pair = Pair::new().await;
    let (code, reason) = close_after_saying(&pair, "node-9", &control_message(1, &hello(2, "node-9"))).await;
    assert_eq!(code, 6);
    assert!(reason.contains("node-2"), "{reason}");
    assert_eq!(pair.counters().refused_name, 1);
    pair.check().await;
}

#[tokio::test]
async fn a_node_that_claims_the_own_id_is_refused() {
    let pair = Pair::new().await;
    assert_eq!(close_after_saying(&pair, "node-9", &control_message(1, &hello(1, "node-9"))).await.0, 5);
    let itself = pair.victim.endpoint.discover(pair.victim.endpoint.advertised(), LONG).await.unwrap_err();
    assert!(matches!(itself, CallError::Refused { refusal: Refusal::OwnNode, .. }), "{itself}");
    pair.check().await;
}

/// The second process of a node, from a copy of what makes it that node, once pushed the first aside at every peer.
#[tokio::test]
async fn a_second_process_with_the_id_of_a_living_one_is_refused_by_all_that_hear_the_first() {
    let pair = Pair::new().await;
    let twin = node(2).await;
    let first = pair.friend.endpoint.advertised();
    for at in [&pair.victim, &pair.friend] {
        let error = twin.endpoint.discover(at.endpoint.advertised(), LONG).await.unwrap_err();
        assert!(matches!(error, CallError::Refused { refusal: Refusal::IdTaken, .. }), "{error}");
        assert!(error.to_string().contains(first), "it says where the first is: {error}");
    }
    twin.knows(&pair.victim);
    let call = twin.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert!(matches!(call, Err(CallError::Refused { refusal: Refusal::IdTaken, .. })), "{call:?}");
    // The other way round: whoever is told that the node lives there now finds out that another does.
    let found = pair.victim.endpoint.discover(twin.endpoint.advertised(), LONG).await.unwrap_err();
    assert!(matches!(found, CallError::Refused { refusal: Refusal::IdTaken, .. }), "{found}");
    assert!(pair.counters().refused_id_taken >= 3);
    pair.check().await;

    // Once the first has ended it is the node's next life, wherever it is.
    pair.friend.endpoint.close().await;
    eventually("it is let in", || twin.endpoint.is_connected(NodeId(1))).await;
}

/// Each took the other's place as fast as handshakes go.
#[tokio::test]
async fn two_processes_of_one_name_and_address_push_each_other_out_no_faster_than_they_may_dial() {
    let watcher = node(1).await;
    let address = "127.0.0.1:1";
    let mut twins = Vec::new();
    for id in [2, 3] {
        let mut twin = config(2);
        twin.node = NodeId(id);
        // It would tell of the end of the connection first, which is a dial that went wrong.
        twin.lifeline = false;
        twin.advertise = Some(address.into());
        (twin.reconnect_backoff_min, twin.reconnect_backoff_max) = (LONG, 2 * LONG);
        twins.push(node_with(twin).await);
    }
    for twin in &twins {
        twin.knows(&watcher);
        assert!(twin.endpoint.discover(watcher.endpoint.advertised(), LONG).await.is_ok());
    }
    eventually("both have lost their places", || {
        twins.iter().all(|twin| twin.endpoint.counters().connections_lost > 0)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let established = watcher.endpoint.counters().connections_established;
    assert!(established <= 6, "{established} connections");
}

/// One that is silent may be dead, and its next life must not wait for QUIC to give up.
#[tokio::test]
async fn a_node_that_moved_is_let_in_as_soon_as_its_former_life_is_silent() {
    let mut silent = config(2);
    // Nothing but missed beats shows its death.
    silent.lifeline = false;
    silent.keep_alive_interval = LONG;
    silent.idle_timeout = 10 * LONG;
    let mut quiet = config(1);
    quiet.idle_timeout = 10 * LONG;
    quiet.keep_alive_interval = Duration::from_millis(300);
    let watcher = node_with(quiet).await;
    let first = support::mortal(silent);
    first.node.knows(&watcher);
    let call = first.node.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert!(call.is_ok(), "{call:?}");
    first.kill();
    let moved = node(2).await;
    let early = moved.endpoint.discover(watcher.endpoint.advertised(), LONG).await.unwrap_err();
    assert!(matches!(early, CallError::Refused { refusal: Refusal::IdTaken, .. }), "{early}");
    eventually("it is suspected", || watcher.endpoint.counters().peers_suspected > 0).await;
    assert!(watcher.endpoint.is_connected(NodeId(2)), "by its old connection");
    assert!(moved.endpoint.discover(watcher.endpoint.advertised(), LONG).await.is_ok());
}

#[tokio::test]
async fn too_many_connections_are_refused_and_counted() {
    let mut config = config(1);
    config.connections_max = 1;
    let pair = Pair::with(config).await;
    let third = node(3).await;
    let error = third.endpoint.discover(pair.victim.endpoint.advertised(), LONG).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { refusal: Refusal::TooManyConnections, .. }), "{error}");
    assert_eq!(pair.counters().refused_too_many_connections, 1);
    pair.check().await;
}

#[tokio::test]
async fn garbage_on_the_port_is_counted_and_disturbs_nobody() {
    let pair = Pair::new().await;
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    let before = pair.counters().datagrams_garbage;
    let mut state = 1u64;
    for i in 0..200usize {
        let datagram: Vec<u8> = (0..i * 7)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        socket.send_to(&datagram, pair.address()).unwrap();
        // One at a time: the socket's buffer is small, and what it drops nobody counts.
        let sent = i as u64 + 1;
        eventually("garbage is counted", || pair.counters().datagrams_garbage >= before + sent).await;
    }
    // What looks like a packet of an existing connection, with an id nobody has given out.
    socket.send_to(&[0x40; 100], pair.address()).unwrap();
    eventually("garbage is counted", || pair.counters().datagrams_garbage == before + 201).await;
    pair.check().await;
}

#[tokio::test]
async fn an_oversized_frame_closes_its_connection_only() {
    let mut bytes = vec![Lane::Normal as u8];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let reason = frames_refused(&bytes, false).await;
    assert_eq!(reason, "a frame of 4294967295 bytes is over the limit of 4194304");
}

#[tokio::test]
async fn a_truncated_frame_closes_its_connection_only() {
    let reason = frames_refused(b"\x01\x0a\0\0\0\0\0\0\0abc", true).await;
    assert_eq!(reason, "the stream ended inside a frame");
}

#[tokio::test]
async fn a_frame_that_stalls_closes_its_connection_only() {
    let reason = frames_refused(b"\x01\x0a\0\0\0\0\0\0\0abc", false).await;
    assert_eq!(reason, "the stream stalled inside a frame");
}

#[tokio::test]
async fn garbage_in_a_lane_closes_its_connection_only() {
    assert_eq!(frames_refused(b"\x01\0\0\0\0\x63\0\0\0", false).await, "frame kind 99 is unknown");
    assert_eq!(frames_refused(b"\x01\0\0\0\0\0\x01\0\0", false).await, "frame flags 0x1 are unknown");
    let short_call = b"\x01\x03\0\0\0\x01\0\0\0abc";
    assert_eq!(frames_refused(short_call, false).await, "a frame of kind 1 cannot be 3 bytes long");
    assert_eq!(frames_refused(b"\x07", false).await, "lane tag 7 is unknown or in use");
}

#[tokio::test]
async fn a_lane_that_is_opened_twice_closes_its_connection_only() {
    let pair = Pair::new().await;
    let (_endpoint, connection) = insider(&pair).await;
    for _ in 0..2 {
        connection.open_uni().await.unwrap().write_all(&[0]).await.unwrap();
    }
    assert_eq!(closed(&connection).await.0, 8);
    pair.check().await;
}

/// QUIC itself keeps a peer from opening more streams than there are lanes.
#[tokio::test]
async fn a_peer_cannot_open_more_streams_than_there_are_lanes() {
    let pair = Pair::new().await;
    let (_endpoint, connection) = insider(&pair).await;
    let mut streams = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), connection.open_uni()).await {
        streams.push(stream.unwrap());
    }
    assert_eq!(streams.len(), 3);
    pair.check().await;
}

#[tokio::test]
async fn answers_nobody_asked_for_and_casts_for_nobody_are_counted() {
    let pair = Pair::new().await;
    let (_endpoint, connection) = insider(&pair).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(b"\x01\x08\0\0\0\x04\0\0\0\x18\x17\x16\x15\x14\x13\x12\x11").await.unwrap();
    stream.write_all(b"\x01\0\0\0\0\0\x63\0x").await.unwrap();
    eventually("both are counted", || {
        let counters = pair.counters();
        (counters.replies_unexpected, counters.casts_without_handler) == (1, 1)
    })
    .await;
    assert!(pair.victim.endpoint.is_connected(NodeId(9)), "no reason to close");
    pair.check().await;
}

/// A peer that calls and never reads the answers must not fill this node's memory.
#[tokio::test]
async fn answers_to_a_peer_that_does_not_read_them_are_bounded() {
    let mut config = config(1);
    config.queue_bytes_max = 1 << 20;
    let pair = Pair::with(config).await;
    let (_endpoint, connection) = insider(&pair).await;
    let mut stream = connection.open_uni().await.unwrap();
    let mut call = b"\x08\0\x01\0\x01\0\x01\0\0\0\0\0\0\0\0\0".to_vec();
    call.extend_from_slice(&[0; 65_536]);
    stream.write_all(&[1]).await.unwrap();
    // Nobody accepts the stream of the answers: their window closes, then the queue fills.
    for _ in 0..1000 {
        stream.write_all(&call).await.unwrap();
    }
    eventually("answers are dropped", || pair.counters().replies_dropped > 0).await;
    pair.check().await;
}
