//! What a member of the cluster can make another process hold by its worst behaviour, measured from outside.
#![cfg(target_os = "linux")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use batched_comm::{EndpointConfig, Lane, NodeId};
use bytes::Bytes;
use support::insider::{Insider, control_message, stranger};
use support::other::Other;
use support::{ECHO, LONG, Node, authority, config, loopback, node};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

/// Every feature but lifelines, which would speak on the control stream.
const FEATURES: u8 = 0b1_1110;
const MIB: u64 = 1 << 20;

/// Limits so small that whatever is not bounded shows.
fn tight() -> EndpointConfig {
    let mut config = config(1);
    config.message_bytes_max = 1 << 20;
    config.bulk_message_bytes_max = 4 << 20;
    config.queue_bytes_max = 1 << 20;
    config.calls_in_flight_max = 1000;
    config.handshakes_max = 16;
    config.connections_max = 64;
    config
}

/// A process that is attacked, and a friend of it that must not notice.
struct Victim {
    process: Other,
    friend: Node,
    /// What the process held before the first attack.
    bytes_before: u64,
    bytes_max: u64,
}

impl Victim {
    async fn start(test: &'static str) -> Victim {
        let process = tokio::task::spawn_blocking(move || Other::start(test, None)).await.unwrap();
        let friend = node(2).await;
        friend.endpoint.set_address(NodeId(1), &process.address);
        let bytes_max = tight().memory_bytes_per_peer_max() as u64;
        let mut victim = Victim { process, friend, bytes_before: 0, bytes_max };
        for _ in 0..100 {
            victim.check().await;
        }
        victim.bytes_before = victim.status("VmRSS:");
        victim
    }

    fn address(&self) -> SocketAddr {
        self.process.address.parse().unwrap()
    }

    async fn check(&self) {
        let answer = self.friend.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::new(), LONG).await;
        assert_eq!(answer, Ok(Bytes::new()));
        let counters = self.friend.endpoint.counters();
        assert_eq!((counters.connections_established, counters.connections_lost), (1, 0));
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// What the process held at most during an attack beyond what it held before the first one; the friend goes on all the
    /// time.
    async fn peak_during(&self, what: &str, attack: impl Future<Output = ()>) {
        // The peak is counted from now on, see proc(5).
        std::fs::write(format!("/proc/{}/clear_refs", self.process.child.id()), "5").unwrap();
        let going_on = async {
            loop {
                self.check().await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = attack => {}
            () = going_on => {}
        }
        self.check().await;
        let peak = self.status("VmHWM:").saturating_sub(self.bytes_before);
        println!("{what}: at most {:.1} MiB more", peak as f64 / MIB as f64);
        assert!(peak < self.bytes_max, "{what}: {peak} bytes are over {}", self.bytes_max);
    }

    async fn insider(&self) -> Insider {
        Insider::connect(self.address(), FEATURES).await
    }
}

/// A frame of a kind that claims to have `claimed` bytes.
fn frame(kind: u8, number: u16, claimed: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = (claimed as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// 100 MiB in a pack of some KiB.
fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 100 << 20]).unwrap();
    let body = [&(256u32 << 10).to_le_bytes()[..], &encoder.finish().unwrap()].concat();
    frame(7, 2, body.len(), &body)
}

#[tokio::test]
async fn the_worst_that_a_peer_can_do_costs_bounded_memory_and_no_friend() {
    if tokio::task::spawn_blocking(|| Other::play(tight())).await.unwrap() {
        return;
    }
    let victim = Victim::start("the_worst_that_a_peer_can_do_costs_bounded_memory_and_no_friend").await;
    assert_eq!(victim.bytes_max / MIB, 39);
    victim.peak_during("bombs", bombs(&victim)).await;
    victim.peak_during("lies about lengths", lies(&victim)).await;
    victim.peak_during("a flood of casts", flood_of_casts(&victim)).await;
    victim.peak_during("a flood of calls whose answers nobody reads", unread_answers(&victim)).await;
    victim.peak_during("calls that are never answered", held_calls(&victim)).await;
    victim.peak_during("a flood of streams", streams(&victim)).await;
    victim.peak_during("handshakes that never end", handshakes(&victim)).await;
    victim.peak_during("garbage and half-open lifelines", garbage(&victim)).await;
}

async fn bombs(victim: &Victim) {
    let bomb = bomb();
    for _ in 0..10 {
        let insider = victim.insider().await;
        let mut stream = insider.connection.open_uni().await.unwrap();
        stream.write_all(&[&[1], &bomb[..]].concat()).await.unwrap();
        assert_eq!(insider.closed().await.0, 8);
    }
}

/// Claims of the largest frame on each lane, with nearly all of it behind them, and claims of more than that.
async fn lies(victim: &Victim) {
    let insider = victim.insider().await;
    let mut held = Vec::new();
    for (lane, bytes) in [(0, 1 << 20), (1, 1 << 20), (2, 4 << 20)] {
        let mut stream = insider.connection.open_uni().await.unwrap();
        stream.write_all(&[lane]).await.unwrap();
        stream.write_all(&frame(0, 1, bytes, &vec![7; bytes - 1])).await.unwrap();
        held.push(stream);
    }
    sleep(Duration::from_millis(300)).await;
    assert!(insider.connection.close_reason().is_none(), "nothing is wrong with it, until it stalls");
    drop((held, insider));
    for _ in 0..10 {
        let insider = victim.insider().await;
        let mut stream = insider.connection.open_uni().await.unwrap();
        stream.write_all(&[&[2], &frame(0, 1, u32::MAX as usize, &[])[..]].concat()).await.unwrap();
        assert_eq!(insider.closed().await.0, 8);
    }
}

async fn flood_of_casts(victim: &Victim) {
    let insider = victim.insider().await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    let casts = frame(0, 99, 1000, &[0; 1000]).repeat(1000);
    for _ in 0..200 {
        stream.write_all(&casts).await.unwrap();
    }
}

async fn unread_answers(victim: &Victim) {
    let insider = victim.insider().await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    let call = frame(1, ECHO.0, 8 + (64 << 10), &vec![0; 8 + (64 << 10)]);
    for _ in 0..3000 {
        stream.write_all(&call).await.unwrap();
    }
    sleep(Duration::from_millis(200)).await;
}

/// The other process has a service that keeps every reply.
async fn held_calls(victim: &Victim) {
    let insider = victim.insider().await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    let calls = frame(1, 2, 8, &[0; 8]).repeat(1000);
    for _ in 0..100 {
        stream.write_all(&calls).await.unwrap();
    }
    sleep(Duration::from_millis(200)).await;
}

/// Three streams are lanes, each with half a message; no more are opened. What is no lane ends it all.
async fn streams(victim: &Victim) {
    let insider = victim.insider().await;
    let mut held = Vec::new();
    for lane in 0..1000u32 {
        if let Ok(stream) = timeout(Duration::from_millis(1), insider.connection.open_uni()).await {
            let mut stream = stream.unwrap();
            stream.write_all(&[&[lane as u8], &frame(0, 1, 1000, &[7; 500])[..]].concat()).await.unwrap();
            held.push(stream);
        }
    }
    assert_eq!(held.len(), 3);
    let insider = victim.insider().await;
    let mut stream = insider.connection.open_uni().await.unwrap();
    stream.write_all(&[3]).await.unwrap();
    assert_eq!(insider.closed().await, (8, "lane tag 3 is unknown or in use".to_owned()));
}

/// Past half of the handshakes that may be under way, one must prove its address; past all, it is refused.
async fn handshakes(victim: &Victim) {
    let mut held = Vec::new();
    for _ in 0..60 {
        let dialled = stranger(authority(), authority(), "node-9", b"batched-comm/2", victim.address());
        if let Ok((endpoint, connection)) = timeout(LONG, dialled).await.unwrap() {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            // Half a message.
            let hello = control_message(2, &[0; 900]);
            send.write_all(&hello[..500]).await.unwrap();
            held.push((endpoint, connection, send, receive));
        }
    }
    assert!(held.len() >= 8, "{} got as far as that", held.len());
}

async fn garbage(victim: &Victim) {
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    for i in 0..50_000usize {
        let _ = socket.send_to(&[i as u8; 1200][..i % 1200], victim.address());
        if i % 500 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut held = Vec::new();
    for _ in 0..500 {
        let mut stream = tokio::net::TcpStream::connect(victim.address()).await.unwrap();
        // What is hung up on cannot be written to.
        let _ = stream.write_all(&[7; 15]).await;
        held.push(stream);
    }
}
