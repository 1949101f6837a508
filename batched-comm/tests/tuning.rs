//! What is changed and measured while an endpoint runs.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use batched_comm::{Compression, Lane, LaneSettings, NodeId, SendError, ServiceId, SettingError, StatsError};
use bytes::Bytes;
use support::{ECHO, Echo, LONG, Node, config, eventually, node, node_with};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const OTHER: ServiceId = ServiceId(7);

async fn connected_pair() -> (Node, Node) {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    check(&a).await;
    (a, b)
}

async fn check(a: &Node) {
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"here"), LONG).await;
    assert_eq!(answer.unwrap(), "here");
}

/// Text that shrinks.
fn text(i: u32) -> Bytes {
    format!("agent {i} of the cluster says what it said before, ").repeat(1 + i as usize % 500).into()
}

#[tokio::test]
async fn compressed_lanes_carry_the_same_messages_in_fewer_bytes() {
    for compression in [Compression::None, Compression::Lz4, Compression::Gzip, Compression::Zstd] {
        let (a, mut b) = connected_pair().await;
        for lane in Lane::ALL {
            let settings = LaneSettings { compression, ..a.endpoint.lane_settings(lane) };
            a.endpoint.set_lane_settings(lane, settings).unwrap();
        }
        let before = a.endpoint.counters();
        for i in 0..600 {
            a.endpoint.cast(NodeId(2), Lane::ALL[i as usize % 3], ECHO, text(i)).unwrap();
        }
        let mut next_on = [0, 1, 2];
        for _ in 0..600 {
            let (_, payload) = b.next_cast().await;
            let lane = (0..3).find(|lane| payload == text(next_on[*lane])).expect("the next of some lane");
            next_on[lane] += 3;
        }
        let after = a.endpoint.counters();
        let raw = after.bytes_sent_raw - before.bytes_sent_raw;
        let sent = after.bytes_sent - before.bytes_sent;
        let shrinks = compression != Compression::None;
        assert!(if shrinks { sent < raw / 4 } else { sent == raw }, "{compression:?}: {sent} of {raw}");
    }
}

#[tokio::test]
async fn a_snapshot_of_many_packs_arrives_whole_whether_it_shrinks_or_not() {
    let (a, mut b) = connected_pair().await;
    a.endpoint.set_bulk_bytes_per_second_max(None).unwrap();
    let settings = LaneSettings { compression: Compression::Lz4, ..LaneSettings::of(Lane::Bulk) };
    a.endpoint.set_lane_settings_of(NodeId(2), Lane::Bulk, settings).unwrap();
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let mut mixed = vec![0; 1 << 20];
    mixed.extend(std::iter::repeat_with(&mut noise).take(1 << 20));
    mixed.extend(vec![1; 1 << 20]);
    for payload in [Bytes::from(mixed), std::iter::repeat_with(&mut noise).take(3 << 20).collect()] {
        a.endpoint.cast(NodeId(2), Lane::Bulk, ECHO, payload.clone()).unwrap();
        assert!(b.next_cast().await.1 == payload);
    }
    let counters = a.endpoint.counters();
    let saved = counters.bytes_sent_raw - counters.bytes_sent;
    assert!((19 << 16..33 << 16).contains(&saved), "two of six MiB shrink to nothing: {saved}");
}

#[tokio::test]
async fn statistics_tell_messages_raw_and_sent_bytes_of_each_batch() {
    let (a, mut b) = connected_pair().await;
    let settings = LaneSettings {
        wait_max: Some(Duration::from_secs(60)),
        batch_messages_max: 50,
        compression: Compression::Zstd,
        ..LaneSettings::of(Lane::Normal)
    };
    a.endpoint.set_lane_settings_of(NodeId(2), Lane::Normal, settings).unwrap();
    let collecting = tokio::spawn({
        let endpoint = a.endpoint.clone();
        async move { endpoint.collect_sending_stats(NodeId(2), Duration::from_secs(3)).await }
    });
    tokio::task::yield_now().await;
    for _ in 0..100 {
        a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::from(vec![7; 92])).unwrap();
    }
    for _ in 0..100 {
        b.next_cast().await;
    }
    let stats = collecting.await.unwrap().unwrap();
    assert_eq!((stats.batches.len(), stats.messages(), stats.raw_bytes()), (2, 100, 10_000));
    assert!(stats.batches.iter().all(|batch| batch.messages == 50 && batch.sent_bytes < 1000), "{stats:?}");
    let nobody = a.endpoint.collect_sending_stats(NodeId(9), Duration::ZERO).await;
    assert_eq!(nobody, Err(StatsError::UnknownNode(NodeId(9))));
}

#[tokio::test]
async fn a_message_that_may_wait_goes_when_its_time_has_come() {
    let (a, mut b) = connected_pair().await;
    let wait = Duration::from_millis(200);
    let settings = LaneSettings { wait_max: Some(wait), ..LaneSettings::of(Lane::Normal) };
    a.endpoint.set_lane_settings(Lane::Normal, settings).unwrap();
    let start = Instant::now();
    for i in 0..10u8 {
        a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::copy_from_slice(&[i])).unwrap();
    }
    let before = a.endpoint.counters().batches_sent;
    for i in 0..10u8 {
        assert_eq!(b.next_cast().await.1[0], i);
    }
    assert!(start.elapsed() >= wait);
    assert_eq!(a.endpoint.counters().batches_sent, before + 1);
    check(&a).await;
}

#[tokio::test]
async fn settings_are_changed_for_all_or_one_and_can_be_read_back() {
    let (a, b, c) = (node(1).await, node(2).await, node(3).await);
    a.knows(&b);
    let defaults = LaneSettings::of(Lane::Normal);
    assert_eq!(a.endpoint.lane_settings(Lane::Normal), defaults);
    let fast = LaneSettings { priority: 9, ..defaults };
    a.endpoint.set_lane_settings(Lane::Normal, fast).unwrap();
    a.knows(&c);
    let slow = LaneSettings { priority: -1, ..defaults };
    a.endpoint.set_lane_settings_of(NodeId(3), Lane::Normal, slow).unwrap();
    assert_eq!(a.endpoint.lane_settings_of(NodeId(2), Lane::Normal), Some(fast));
    assert_eq!(a.endpoint.lane_settings_of(NodeId(3), Lane::Normal), Some(slow));
    assert_eq!(a.endpoint.lane_settings_of(NodeId(3), Lane::Bulk), Some(LaneSettings::of(Lane::Bulk)));
    check(&a).await;
    assert_eq!(a.endpoint.lane_settings_of(NodeId(9), Lane::Normal), None);
    let unknown = a.endpoint.set_lane_settings_of(NodeId(9), Lane::Normal, fast);
    assert_eq!(unknown, Err(SettingError::UnknownNode(NodeId(9))));
    assert!(
        a.endpoint.set_lane_settings(Lane::Bulk, LaneSettings { batch_bytes_max: 0, ..defaults }).is_err()
    );
}

/// Messages on each of two lanes: more than a connection takes at once.
const CONTENDING: u8 = 200;

/// How many messages of `slow` come before the last one of `fast`, when both lanes have everything to send at once and
/// `slow` was first to have it.
async fn overtaken(a: &Node, b: &mut Node, fast: Lane, slow: Lane) -> u8 {
    for lane in [slow, fast] {
        for i in 0..CONTENDING {
            let mut payload = vec![0; 1 << 10];
            payload[..2].copy_from_slice(&[u8::from(lane == fast), i]);
            a.endpoint.cast(NodeId(2), lane, ECHO, payload.into()).unwrap();
        }
    }
    let (mut before, mut next) = (0, [0, 0]);
    while next != [CONTENDING; 2] {
        let (_, payload) = b.next_cast().await;
        let is_fast = payload[0] == 1;
        assert_eq!(payload[1], next[usize::from(is_fast)], "each lane keeps its order");
        next[usize::from(is_fast)] += 1;
        before += u8::from(!is_fast && next[1] < CONTENDING);
    }
    before
}

/// On one thread nothing leaves before both lanes are full: what goes first then is a matter of priority alone.
#[tokio::test]
async fn a_priority_that_is_changed_while_a_connection_stands_says_which_lane_goes_first() {
    let (a, mut b) = connected_pair().await;
    let lanes = [Lane::Control, Lane::Normal];
    for (round, fast) in [0, 1, 0, 1, 1].into_iter().enumerate() {
        let slow = 1 - fast;
        for (lane, priority) in [(lanes[fast], 5), (lanes[slow], -5)] {
            let settings = LaneSettings { priority, ..LaneSettings::of(lane) };
            a.endpoint.set_lane_settings_of(NodeId(2), lane, settings).unwrap();
        }
        let before = overtaken(&a, &mut b, lanes[fast], lanes[slow]).await;
        assert!(before < CONTENDING / 4, "round {round}: {before} messages of the slow lane went before");
    }
}

#[tokio::test]
async fn a_broadcast_goes_once_to_each_node_and_to_each_of_its_services() {
    let (a, mut b) = connected_pair().await;
    let (sender, mut others) = mpsc::unbounded_channel();
    b.endpoint.register(OTHER, Arc::new(Echo { casts: sender }));
    let mut here = node_with(config(1)).await;
    let payload = Bytes::from_static(b"to all");
    let to = [(NodeId(2), ECHO), (NodeId(1), ECHO), (NodeId(2), OTHER), (NodeId(2), ServiceId(99))];
    let before = a.endpoint.counters().messages_sent;
    a.endpoint.broadcast(&to, Lane::Normal, &payload).unwrap();
    assert_eq!(b.next_cast().await, (NodeId(1), payload.clone()));
    assert_eq!(timeout(LONG, others.recv()).await.unwrap().unwrap(), (NodeId(1), payload.clone()));
    eventually("counted", || b.endpoint.counters().casts_without_handler == 1).await;
    assert_eq!(a.endpoint.counters().messages_sent, before + 1, "one copy");
    let failed = here.endpoint.broadcast(&to, Lane::Normal, &payload).unwrap_err();
    assert_eq!(failed, [(NodeId(2), SendError::UnknownAddress { node: NodeId(2) })]);
    assert_eq!(here.next_cast().await, (NodeId(1), payload.clone()), "the others were told");
    here.endpoint.set_address(NodeId(2), b.endpoint.advertised());
    a.endpoint.close().await;
    here.endpoint.broadcast(&to[..3], Lane::Normal, &payload).unwrap();
    assert_eq!(b.next_cast().await.1, payload, "a node that is not connected yet gets its copies");
    assert_eq!(timeout(LONG, others.recv()).await.unwrap().unwrap().1, payload);
}

#[tokio::test]
async fn the_bulk_lanes_keep_to_their_rate_and_the_others_do_not_wait() {
    let mut config_a = config(1);
    // At this rate it takes minutes.
    config_a.bulk_bytes_per_second_max = Some(16 << 10);
    let (a, mut b) = (node_with(config_a).await, node(2).await);
    a.knows(&b);
    check(&a).await;
    a.endpoint.cast(NodeId(2), Lane::Bulk, ECHO, Bytes::from(vec![0; 4 << 20])).unwrap();
    for _ in 0..10 {
        check(&a).await;
    }
    assert!(b.casts.is_empty(), "the calls were answered while the bulk was held back");
    let start = Instant::now();
    a.endpoint.set_bulk_bytes_per_second_max(Some(4 << 20)).unwrap();
    b.next_cast().await;
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_millis(800), "{elapsed:?}");
    assert_eq!(a.endpoint.bulk_bytes_per_second_max(), Some(4 << 20));
    assert!(a.endpoint.set_bulk_bytes_per_second_max(Some(0)).is_err());
    a.endpoint.set_bulk_bytes_per_second_max(Some(1)).unwrap();
    a.endpoint.cast(NodeId(2), Lane::Bulk, ECHO, Bytes::from(vec![0; 4 << 20])).unwrap();
    check(&a).await;
    a.endpoint.set_bulk_bytes_per_second_max(Some(1 << 40)).unwrap();
    a.endpoint.cast(NodeId(2), Lane::Bulk, ECHO, Bytes::from(vec![0; 4 << 20])).unwrap();
    b.next_cast().await;
    b.next_cast().await;
}
