//! Members of the cluster that do their worst: bombs, floods, lies. They lose their connection or wait; nobody else does.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use batched_comm::{EndpointConfig, Handler, Lane, NodeId, Reply, ServiceId};
use bytes::Bytes;
use parking_lot::Mutex;
use support::insider::{Insider, control_message, stranger};
use support::{ECHO, LONG, Node, authority, config, eventually, hasty, node, node_with};
use tokio::time::timeout;

/// Every feature but lifelines, which would speak on the control stream.
const FEATURES: u8 = 0b1_1110;

/// A healthy pair, whose connection must outlive what an insider does to the first.
async fn pair(config: EndpointConfig) -> (Node, Node) {
    let (victim, friend) = (node_with(config).await, node(2).await);
    friend.knows(&victim);
    check(&friend).await;
    (victim, friend)
}

async fn check(friend: &Node) {
    let answer = friend.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
    assert_eq!(friend.endpoint.counters().connections_established, 1);
    assert_eq!(friend.endpoint.counters().connections_lost, 0);
}

/// A frame of a kind with a number where others have their service.
fn frame(kind: u8, number: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A pack that claims to hold `bytes`.
fn pack(algorithm: u16, bytes: u32, content: &[u8]) -> Vec<u8> {
    frame(7, algorithm, &[&bytes.to_le_bytes(), content].concat())
}

fn zeros_as_gzip(bytes: usize) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; bytes]).unwrap();
    encoder.finish().unwrap()
}

/// What the victim says when an insider sends `bytes` on the normal lane.
async fn refused(bytes: &[u8]) -> String {
    let (victim, friend) = pair(config(1)).await;
    let insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[&[1], bytes].concat()).await.unwrap();
    let (code, reason) = insider.closed().await;
    assert_eq!((code, victim.endpoint.counters().frames_refused), (8, 1));
    check(&friend).await;
    reason
}

#[tokio::test]
async fn a_bomb_of_every_algorithm_is_refused() {
    let gzip = zeros_as_gzip(100 << 20);
    assert!(gzip.len() < 200_000, "100 MiB in {} bytes", gzip.len());
    let broken =
        |algorithm| format!("a pack of algorithm {algorithm} does not hold the 262144 bytes it claims");
    assert_eq!(refused(&pack(2, 262_144, &gzip)).await, broken(2));
    let zstd = zstd::bulk::compress(&vec![0; 100 << 20], 19).unwrap();
    assert_eq!(refused(&pack(3, 262_144, &zstd)).await, broken(3));
    let lz4 = lz4_flex::block::compress(&vec![0; 16 << 20]);
    assert_eq!(refused(&pack(1, 262_144, &lz4)).await, broken(1));
    let claim = refused(&pack(1, u32::MAX, &lz4[..100])).await;
    assert_eq!(claim, "a pack of 4294967295 bytes is empty or over the limit of 262144");
}

#[tokio::test]
async fn lies_inside_packs_and_fan_outs_are_refused() {
    assert_eq!(refused(&pack(9, 1, b"x")).await, "compression algorithm 9 is unknown");
    assert_eq!(refused(&pack(0, 2, b"x")).await, "a pack of algorithm 0 does not hold the 2 bytes it claims");
    let nested = pack(0, 13, &pack(0, 1, b"x"));
    assert_eq!(refused(&nested).await, "a pack inside a pack");
    let lie = [&u32::MAX.to_le_bytes()[..], &[0; 4]].concat();
    let oversized = refused(&pack(0, 8, &lie)).await;
    assert_eq!(oversized, "a frame of 4294967295 bytes is over the limit of 4194304");
    let torn = [pack(0, 4, &[1, 0, 0, 0]), frame(0, 1, b"x")].concat();
    assert_eq!(refused(&torn).await, "a frame between the packs of another");
    assert_eq!(refused(&frame(8, 0, b"x")).await, "0 services in one fan-out are over the limit, or none");
    assert_eq!(
        refused(&frame(8, 300, b"x")).await,
        "300 services in one fan-out are over the limit, or none"
    );
    assert_eq!(refused(&frame(8, 3, b"xx")).await, "a frame of kind 8 cannot be 2 bytes long");
    assert_eq!(refused(&frame(7, 1, b"x")).await, "a frame of kind 7 cannot be 1 bytes long");
}

#[tokio::test]
async fn a_pack_that_stops_in_the_middle_of_a_message_stalls_like_any_other() {
    let mut config = config(1);
    config.stall_timeout = Duration::from_millis(200);
    let (victim, friend) = pair(config).await;
    let insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[&[1][..], &pack(0, 4, &[9, 0, 0, 0])].concat()).await.unwrap();
    assert_eq!(insider.closed().await, (8, "the stream stalled inside a frame".to_owned()));
    check(&friend).await;
}

#[tokio::test]
async fn what_a_peer_has_not_agreed_to_it_may_not_send() {
    let (victim, friend) = pair(config(1)).await;
    for (bytes, reason) in
        [(pack(0, 1, b"x"), "frame kind 7 is unknown"), (frame(8, 1, b"\x01\0"), "frame kind 8 is unknown")]
    {
        let insider = Insider::connect(victim.endpoint.local_addr(), 0).await;
        let mut stream = insider.connection.open_uni().await.unwrap();
        stream.write_all(&[&[1][..], &bytes].concat()).await.unwrap();
        assert_eq!(insider.closed().await, (8, reason.to_owned()));
    }
    check(&friend).await;
}

/// Streams past the lanes stay closed, whatever is tried, and cost the victim nothing.
#[tokio::test]
async fn a_thousand_streams_are_three() {
    let (victim, friend) = pair(config(1)).await;
    let insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    let opened = Arc::new(Mutex::new(Vec::new()));
    let openers: Vec<_> = (0..1000)
        .map(|i| {
            let (connection, opened) = (insider.connection.clone(), opened.clone());
            tokio::spawn(async move {
                let stream = if i % 2 == 0 { connection.open_uni().await.ok() } else { None };
                match stream {
                    Some(stream) => opened.lock().push(stream),
                    None => drop(connection.open_bi().await),
                }
            })
        })
        .collect();
    eventually("what may be opened is", || opened.lock().len() == 3).await;
    for _ in 0..20 {
        check(&friend).await;
    }
    assert_eq!(opened.lock().len(), 3);
    openers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Keeps what it is given until it is told to let go.
#[derive(Default)]
struct Greedy(Mutex<Vec<Reply>>);

impl Handler for Greedy {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {}

    fn on_call(&self, _from: NodeId, _payload: Bytes, reply: Reply) {
        self.0.lock().push(reply);
    }
}

#[tokio::test]
async fn a_flood_of_calls_is_held_to_the_limit_of_those_in_the_hands_of_handlers() {
    let mut config = config(1);
    config.calls_in_flight_max = 100;
    let (victim, friend) = pair(config).await;
    let greedy = Arc::new(Greedy::default());
    victim.endpoint.register(ServiceId(5), greedy.clone());
    let insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    for correlation in 0..5000u64 {
        stream.write_all(&frame(1, 5, &correlation.to_le_bytes())).await.unwrap();
    }
    eventually("the others are refused", || victim.endpoint.counters().calls_overloaded == 4900).await;
    assert_eq!(greedy.0.lock().len(), 100);
    check(&friend).await;
}

/// One packet may hold packs of a hundred thousand messages, which were once handed out in one go: for that long a
/// single-threaded victim answered nobody, and its peers took it for dead.
#[tokio::test]
async fn a_flood_of_packed_casts_leaves_room_for_others() {
    let (victim, friend) = pair(config(1)).await;
    let insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    let content: Vec<u8> = frame(0, 99, b"").repeat(30_000);
    let flood = pack(1, content.len() as u32, &lz4_flex::block::compress(&content));
    assert!(flood.len() < 2000);
    let flooding = tokio::spawn(async move {
        for _ in 0..100 {
            stream.write_all(&flood).await.unwrap();
        }
        stream
    });
    for _ in 0..20 {
        check(&friend).await;
    }
    let _stream = flooding.await.unwrap();
    eventually("all arrived", || victim.endpoint.counters().casts_without_handler == 3_000_000).await;
}

/// Handshakes under way are bounded; those past the limit wait or are refused, and peers still get in.
#[tokio::test]
async fn a_flood_of_handshakes_that_never_end_does_not_keep_peers_out_for_long() {
    let mut config_victim = hasty(1);
    config_victim.idle_timeout = LONG;
    config_victim.handshakes_max = 16;
    let (victim, friend) = pair(config_victim).await;
    let address = victim.endpoint.local_addr();
    let mut held = Vec::new();
    for _ in 0..40 {
        // Each passes TLS and never says hello.
        let dialled = stranger(authority(), authority(), "node-9", b"batched-comm/2", address);
        held.push(tokio::spawn(async move {
            let connection = dialled.await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(connection);
        }));
    }
    check(&friend).await;
    let third = node(3).await;
    third.knows(&victim);
    eventually("let in", || {
        drop(third.endpoint.cast(NodeId(1), Lane::Normal, ECHO, Bytes::new()));
        third.endpoint.is_connected(NodeId(1))
    })
    .await;
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Each id that had once been connected was looked for, for a minute: a member that came under one id after the other had
/// the victim hold, and dial, as many as it liked.
#[tokio::test]
async fn a_member_that_comes_and_goes_under_ever_other_ids_leaves_a_bounded_number_behind() {
    const IDS: std::ops::Range<u8> = 10..120;
    let mut config = config(1);
    config.connections_max = 128;
    let (victim, friend) = pair(config).await;
    let known = || {
        let ids = IDS.map(|id| NodeId(u64::from(id)));
        ids.filter(|id| victim.endpoint.lane_settings_of(*id, Lane::Normal).is_some()).count()
    };
    for id in IDS {
        let insider = Insider::connect_as(id, "127.0.0.1:9", victim.endpoint.local_addr(), FEATURES).await;
        let node = NodeId(u64::from(id));
        eventually("it is there", || victim.endpoint.is_connected(node)).await;
        insider.connection.close(99u32.into(), b"");
        eventually("it has gone", || !victim.endpoint.is_connected(node)).await;
        assert!(known() <= 64, "{} are known after {id}", known());
    }
    check(&friend).await;
    let newcomer = node(3).await;
    newcomer.endpoint.discover(victim.endpoint.advertised(), LONG).await.unwrap();
}

/// Whoever comes again from the same place under another id takes the place of the former one, whose connection is cut: its
/// entry stayed for good, as the end of a connection that is not the current one is nobody's business.
#[tokio::test]
async fn a_member_that_comes_under_ever_other_ids_while_its_connections_stand_leaves_one_behind() {
    const IDS: std::ops::Range<u8> = 10..40;
    let (victim, friend) = pair(config(1)).await;
    let known = || {
        let ids = IDS.map(|id| NodeId(u64::from(id)));
        ids.filter(|id| victim.endpoint.lane_settings_of(*id, Lane::Normal).is_some()).count()
    };
    let mut insiders = Vec::new();
    for id in IDS {
        let insider = Insider::connect_as(id, "127.0.0.1:9", victim.endpoint.local_addr(), FEATURES).await;
        eventually("it is there", || victim.endpoint.is_connected(NodeId(u64::from(id)))).await;
        assert_eq!(known(), 1, "after {id}");
        insiders.push(insider);
    }
    let lost = victim.endpoint.counters().connections_lost;
    assert_eq!(lost, insiders.len() as u64 - 1, "each but the last was replaced");
    check(&friend).await;
}

/// Connections of those who left would add up to the limit.
#[tokio::test]
async fn a_peer_that_says_goodbye_and_stays_is_cut_off() {
    let mut config = config(1);
    config.stall_timeout = Duration::from_millis(200);
    let (victim, friend) = pair(config).await;
    let mut insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    insider.send.write_all(&control_message(2, &[8])).await.unwrap();
    eventually("it has left", || !victim.endpoint.is_connected(NodeId(9))).await;
    assert_eq!(insider.closed().await.0, 7);
    check(&friend).await;
}

#[tokio::test]
async fn a_control_message_that_stalls_or_lies_about_its_length_costs_its_sender_only() {
    let (victim, friend) = pair(config(1)).await;
    let mut insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    insider.send.write_all(b"BCOM\x02\0\xff\xff").await.unwrap();
    let (code, reason) = insider.closed().await;
    assert_eq!((code, reason.as_str()), (8, "a handshake message of 65535 bytes is over the limit of 1024"));
    let mut insider = Insider::connect(victim.endpoint.local_addr(), FEATURES).await;
    insider.send.write_all(&control_message(2, &[8])[..7]).await.unwrap();
    // Half a goodbye is no goodbye; nothing waits for it.
    assert!(timeout(Duration::from_millis(100), insider.connection.closed()).await.is_err());
    check(&friend).await;
}
