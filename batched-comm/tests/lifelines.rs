//! Strangers at the TCP port of lifelines, and peers that misuse theirs.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use batched_comm::{DownReason, EndpointConfig, Lane, NodeId, PeerChange};
use bytes::Bytes;
use support::insider::{Insider, control_message};
use support::{ECHO, LONG, Node, config, eventually, hasty, node, node_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A pair with a lifeline, which must outlive whatever strangers do to `victim`.
async fn pair(config: EndpointConfig) -> (Node, Node) {
    let (victim, friend) = (node_with(config).await, node(2).await);
    friend.knows(&victim);
    check(&friend).await;
    eventually("a lifeline", || victim.endpoint.counters().lifelines_held == 1).await;
    (victim, friend)
}

async fn check(friend: &Node) {
    let answer = friend.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
    assert_eq!(friend.endpoint.counters().connections_established, 1);
}

/// The victim hangs up without having said a word.
async fn is_hung_up(stream: &mut TcpStream) {
    let mut said = Vec::new();
    // A reset instead of an end: not everything was read.
    let _ = timeout(LONG, stream.read_to_end(&mut said)).await.expect("hung up in time");
    assert!(said.is_empty());
}

#[tokio::test]
async fn a_nonce_that_nobody_waits_for_is_refused_without_a_word() {
    let (victim, friend) = pair(config(1)).await;
    let mut stream = TcpStream::connect(victim.endpoint.local_addr()).await.unwrap();
    stream.write_all(&[7; 4096]).await.unwrap();
    is_hung_up(&mut stream).await;
    assert_eq!(victim.endpoint.counters().lifelines_refused, 1);
    check(&friend).await;
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_hung_up_on_after_the_connect_timeout() {
    let (victim, friend) = pair(hasty(1)).await;
    let mut stream = TcpStream::connect(victim.endpoint.local_addr()).await.unwrap();
    stream.write_all(&[7; 15]).await.unwrap();
    is_hung_up(&mut stream).await;
    assert_eq!(victim.endpoint.counters().lifelines_refused, 1);
    check(&friend).await;
}

#[tokio::test]
async fn strangers_past_the_limit_are_hung_up_on_at_once() {
    let mut config = config(1);
    config.handshakes_max = 2;
    let (victim, friend) = pair(config).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(victim.endpoint.local_addr()).await.unwrap());
    }
    let mut third = TcpStream::connect(victim.endpoint.local_addr()).await.unwrap();
    is_hung_up(&mut third).await;
    assert!(victim.endpoint.counters().lifelines_refused >= 1);
    check(&friend).await;
}

#[tokio::test]
async fn a_peer_that_sends_anything_on_its_lifeline_loses_its_connection() {
    let (victim, friend) = pair(config(1)).await;
    let mut insider = Insider::connect(victim.endpoint.local_addr(), 1).await;
    let mut stream = TcpStream::connect(victim.endpoint.local_addr()).await.unwrap();
    stream.write_all(&insider.lifeline_nonce().await).await.unwrap();
    insider.expect(&[7]).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(insider.closed().await, (8, "data on a lifeline".to_owned()));
    check(&friend).await;
}

#[tokio::test]
async fn a_nonce_works_once_and_the_end_of_the_first_lifeline_is_the_peers_death() {
    let (victim, friend) = pair(config(1)).await;
    let mut events = victim.endpoint.watch_peers();
    let mut insider = Insider::connect(victim.endpoint.local_addr(), 1).await;
    let nonce = insider.lifeline_nonce().await;
    let mut first = TcpStream::connect(victim.endpoint.local_addr()).await.unwrap();
    first.write_all(&nonce).await.unwrap();
    insider.expect(&[7]).await;
    let mut second = TcpStream::connect(victim.endpoint.local_addr()).await.unwrap();
    second.write_all(&nonce).await.unwrap();
    is_hung_up(&mut second).await;
    assert!(victim.endpoint.is_connected(NodeId(9)));
    drop(first);
    for change in [PeerChange::Up, PeerChange::Down(DownReason::Died)] {
        let event = timeout(LONG, events.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((event.node, event.change), (NodeId(9), change));
    }
    check(&friend).await;
}

#[tokio::test]
async fn a_control_message_out_of_turn_closes_the_connection() {
    let (victim, friend) = pair(config(1)).await;
    // Another verdict, a lifeline's nonce from the dialling side twice, and what no version says.
    for messages in [vec![&[3, 0][..]], vec![&[6; 17][..], &[6; 17][..]], vec![&[99][..]]] {
        let mut insider = Insider::connect(victim.endpoint.local_addr(), 0).await;
        for message in messages {
            insider.send.write_all(&control_message(2, message)).await.unwrap();
        }
        assert_eq!(insider.closed().await.0, 8);
    }
    check(&friend).await;
}

/// It has a certificate, so it may ask for lifelines; it may not keep the victim waiting for more than its own.
#[tokio::test]
async fn a_peer_that_never_dials_its_lifeline_is_kept_without_one() {
    let (victim, friend) = pair(hasty(1)).await;
    let mut insider = Insider::connect(victim.endpoint.local_addr(), 1).await;
    insider.lifeline_nonce().await;
    eventually("given up", || victim.endpoint.counters().lifelines_missing == 1).await;
    assert!(victim.endpoint.is_connected(NodeId(9)));
    check(&friend).await;
}
