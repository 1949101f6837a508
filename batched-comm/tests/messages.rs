//! Casts and calls between healthy nodes.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use batched_comm::{CallError, Handler, Lane, NodeId, Reply, SendError, ServiceId};
use bytes::Bytes;
use support::{ECHO, LONG, config, eventually, hasty, node, node_with};

#[tokio::test]
async fn a_call_comes_back_in_both_directions_over_one_connection() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"there"), LONG).await;
    assert_eq!(answer.unwrap(), "there");
    let answer = b.endpoint.call(NodeId(1), Lane::Control, ECHO, Bytes::from_static(b"back"), LONG).await;
    assert_eq!(answer.unwrap(), "back");
    for endpoint in [&a.endpoint, &b.endpoint] {
        assert_eq!(endpoint.counters().connections_established, 1);
    }
}

#[tokio::test]
async fn casts_keep_their_order_on_each_lane_whatever_their_size() {
    const CASTS: u32 = 3000;
    let (a, mut b) = (node(1).await, node(2).await);
    a.knows(&b);
    for i in 0..CASTS {
        for lane in Lane::ALL {
            let mut payload = vec![0; if i % 100 == 0 { 40_000 } else { (i % 50) as usize }];
            payload.extend_from_slice(&i.to_le_bytes());
            payload.push(lane as u8);
            while let Err(error) = a.endpoint.cast(NodeId(2), lane, ECHO, Bytes::from(payload.clone())) {
                assert!(matches!(error, SendError::QueueFull { .. }), "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let mut next = [0; 3];
    while next.iter().sum::<u32>() < 3 * CASTS {
        let (from, payload) = b.next_cast().await;
        assert_eq!(from, NodeId(1));
        let (rest, lane) = payload.split_at(payload.len() - 1);
        let number = u32::from_le_bytes(rest[rest.len() - 4..].try_into().unwrap());
        let expected = &mut next[lane[0] as usize];
        assert_eq!(number, *expected);
        *expected += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_in_flight_each_get_their_own_answer() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let calls: Vec<_> = (0..5000u32)
        .map(|i| {
            let payload = Bytes::copy_from_slice(&i.to_le_bytes());
            tokio::spawn(a.endpoint.call(NodeId(2), Lane::Normal, ECHO, payload, LONG))
        })
        .collect();
    for (i, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), &(i as u32).to_le_bytes()[..]);
    }
}

#[tokio::test]
async fn a_large_message_goes_through_the_bulk_lane_and_not_through_the_others() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let payload = Bytes::from(vec![7; 20 << 20]);
    let refused = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, payload.clone(), LONG).await;
    assert!(matches!(refused, Err(CallError::TooLarge { bytes_max: 4_194_304, .. })), "{refused:?}");
    let answer = a.endpoint.call(NodeId(2), Lane::Bulk, ECHO, payload.clone(), LONG).await;
    assert!(answer.unwrap() == payload);
}

#[tokio::test]
async fn discover_tells_who_lives_at_an_address_and_keeps_the_connection() {
    let (a, b) = (node(1).await, node(2).await);
    let info = a.endpoint.discover(b.endpoint.advertised(), LONG).await.unwrap();
    assert_eq!((info.node, info.name.as_str(), info.cluster), (NodeId(2), "node-2", None));
    assert_eq!(info.advertised, b.endpoint.advertised());
    assert!(a.endpoint.is_connected(NodeId(2)));
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer.unwrap(), "");
    let again = a.endpoint.discover(b.endpoint.advertised(), LONG).await.unwrap();
    assert_eq!(again, info);
    assert_eq!(a.endpoint.counters().connections_established, 1);
}

#[tokio::test]
async fn discover_of_an_address_where_nobody_lives_is_unreachable() {
    let a = node(1).await;
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = a.endpoint.discover(&nobody, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    let error = a.endpoint.discover("no-such-host.invalid:1", LONG).await.unwrap_err();
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

struct Silent;

impl Handler for Silent {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {
        panic!("a handler that panics");
    }

    fn on_call(&self, _from: NodeId, payload: Bytes, reply: Reply) {
        assert!(payload.is_empty(), "a handler that panics");
        drop(reply);
    }
}

#[tokio::test]
async fn a_call_nobody_answers_fails_at_once_with_what_is_known() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let (silent, nobody) = (ServiceId(2), ServiceId(3));
    b.endpoint.register(silent, Arc::new(Silent));
    let call = |service, payload| a.endpoint.call(NodeId(2), Lane::Normal, service, payload, LONG);
    assert_eq!(call(silent, Bytes::new()).await, Err(CallError::NoReply { node: NodeId(2) }));
    let no_handler = call(nobody, Bytes::new()).await.unwrap_err();
    assert_eq!(no_handler, CallError::NoHandler { node: NodeId(2), service: nobody });
    assert!(no_handler.surely_not_delivered());
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_message_only() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let silent = ServiceId(2);
    b.endpoint.register(silent, Arc::new(Silent));
    a.endpoint.cast(NodeId(2), Lane::Normal, silent, Bytes::new()).unwrap();
    let panicking = a.endpoint.call(NodeId(2), Lane::Normal, silent, Bytes::from_static(b"x"), LONG).await;
    assert_eq!(panicking, Err(CallError::NoReply { node: NodeId(2) }));
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"ok"), LONG).await;
    assert_eq!(answer.unwrap(), "ok");
    assert_eq!(b.endpoint.counters().handler_panics, 2);
}

#[tokio::test]
async fn messages_to_the_own_node_are_delivered_in_order_without_a_network() {
    let mut a = node(1).await;
    for i in 0..100u8 {
        a.endpoint.cast(NodeId(1), Lane::Control, ECHO, Bytes::copy_from_slice(&[i])).unwrap();
    }
    for i in 0..100u8 {
        assert_eq!(a.next_cast().await, (NodeId(1), Bytes::copy_from_slice(&[i])));
    }
    let answer = a.endpoint.call(NodeId(1), Lane::Normal, ECHO, Bytes::from_static(b"me"), LONG).await;
    assert_eq!(answer.unwrap(), "me");
    let nobody = a.endpoint.call(NodeId(1), Lane::Normal, ServiceId(9), Bytes::new(), LONG).await;
    assert!(matches!(nobody, Err(CallError::NoHandler { .. })));
    assert_eq!(a.endpoint.counters().connections_established, 0);
}

#[tokio::test]
async fn when_both_dial_at_once_one_connection_stays_and_every_message_is_answered() {
    for round in 0..20 {
        let (a, b) = (node(2 * round + 1).await, node(2 * round + 2).await);
        a.knows(&b);
        b.knows(&a);
        let calls = |from: &support::Node, to: &support::Node| {
            let (from, to) = (from.endpoint.clone(), to.endpoint.node());
            tokio::spawn(async move {
                for i in 0..50u8 {
                    let payload = Bytes::copy_from_slice(&[i]);
                    let answer = from.call(to, Lane::Normal, ECHO, payload.clone(), LONG).await;
                    assert_eq!(answer.as_ref(), Ok(&payload));
                }
            })
        };
        let (there, back) = (calls(&a, &b), calls(&b, &a));
        there.await.unwrap();
        back.await.unwrap();
        for endpoint in [&a.endpoint, &b.endpoint] {
            let counters = endpoint.counters();
            assert_eq!((counters.connections_established, counters.connections_lost), (1, 0));
        }
    }
}

#[tokio::test]
async fn when_both_discover_each_other_one_connection_stays() {
    for round in 0..20 {
        let (a, b) = (node(2 * round + 1).await, node(2 * round + 2).await);
        let (there, back) = tokio::join!(
            a.endpoint.discover(b.endpoint.advertised(), LONG),
            b.endpoint.discover(a.endpoint.advertised(), LONG),
        );
        assert_eq!(there.unwrap().node, b.endpoint.node());
        assert_eq!(back.unwrap().node, a.endpoint.node());
        for endpoint in [&a.endpoint, &b.endpoint] {
            let counters = endpoint.counters();
            assert_eq!((counters.connections_established, counters.connections_lost), (1, 0));
        }
    }
}

#[tokio::test]
async fn a_full_queue_is_an_error_and_counted() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = hasty(1);
    config.queue_messages_max = 10;
    let a = node_with(config).await;
    a.endpoint.set_address(NodeId(2), &nobody.local_addr().unwrap().to_string());
    for _ in 0..10 {
        a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::new()).unwrap();
    }
    let full = a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::new());
    assert_eq!(
        full,
        Err(SendError::QueueFull { node: NodeId(2), lane: Lane::Normal, messages: 10, bytes: 80 })
    );
    assert_eq!(
        a.endpoint.cast(NodeId(2), Lane::Control, ECHO, Bytes::new()),
        Ok(()),
        "the lanes are separate"
    );
    assert_eq!(a.endpoint.counters().casts_dropped, 1);
    eventually("what was queued is counted as dropped", || a.endpoint.counters().casts_dropped == 12).await;
}

struct Holding(std::sync::Mutex<Vec<Reply>>);

impl Handler for Holding {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {
        self.0.lock().unwrap().clear();
    }

    fn on_call(&self, _from: NodeId, _payload: Bytes, reply: Reply) {
        self.0.lock().unwrap().push(reply);
    }
}

#[tokio::test]
async fn calls_past_the_limits_of_either_side_are_overloaded_and_surely_not_handled() {
    let mut config_b = config(2);
    config_b.calls_in_flight_max = 3;
    let mut config_a = config(1);
    config_a.calls_in_flight_max = 5;
    let (a, b) = (node_with(config_a).await, node_with(config_b).await);
    a.knows(&b);
    let holding = ServiceId(2);
    b.endpoint.register(holding, Arc::new(Holding(std::sync::Mutex::default())));
    let call = || tokio::spawn(a.endpoint.call(NodeId(2), Lane::Normal, holding, Bytes::new(), LONG));
    let held = [call(), call(), call()];
    let over_there = call().await.unwrap().unwrap_err();
    assert!(matches!(over_there, CallError::Overloaded { .. }), "{over_there}");
    let more = [call(), call()];
    eventually("the receiver has refused them all", || b.endpoint.counters().calls_overloaded == 3).await;
    drop(more);
    a.endpoint.cast(NodeId(2), Lane::Normal, holding, Bytes::new()).unwrap();
    for call in held {
        assert_eq!(call.await.unwrap(), Err(CallError::NoReply { node: NodeId(2) }));
    }
    let held: Vec<_> = (0..3).map(|_| call()).collect();
    eventually("they are held", || b.endpoint.counters().messages_received >= 10).await;
    let _waiting: Vec<_> =
        (0..2).map(|_| a.endpoint.call(NodeId(2), Lane::Bulk, ECHO, Bytes::new(), LONG)).collect();
    let here = a.endpoint.call(NodeId(2), Lane::Normal, holding, Bytes::new(), LONG).await.unwrap_err();
    assert!(here.surely_not_delivered() && matches!(here, CallError::Overloaded { .. }), "{here}");
    drop(held);
}

#[tokio::test]
async fn a_call_that_takes_too_long_times_out_and_its_late_answer_is_counted() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    let holding = ServiceId(2);
    b.endpoint.register(holding, Arc::new(Holding(std::sync::Mutex::default())));
    let call = a.endpoint.call(NodeId(2), Lane::Normal, holding, Bytes::new(), Duration::from_millis(100));
    let error = call.await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }) && !error.surely_not_delivered());
    a.endpoint.cast(NodeId(2), Lane::Normal, holding, Bytes::new()).unwrap();
    eventually("the late answer is counted", || a.endpoint.counters().replies_unexpected == 1).await;
}

/// Snapshots must not delay heartbeats: whatever fills the bulk lane leaves the others their room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_bulk_lane_does_not_hold_up_the_control_lane() {
    let mut config_a = config(1);
    config_a.queue_bytes_max = 1 << 30;
    config_a.bulk_bytes_per_second_max = None;
    let (a, mut b) = (node_with(config_a).await, node(2).await);
    a.knows(&b);
    let bulk = Bytes::from(vec![0; 32 << 20]);
    for _ in 0..8 {
        a.endpoint.cast(NodeId(2), Lane::Bulk, ECHO, bulk.clone()).unwrap();
    }
    b.next_cast().await;
    for _ in 0..10 {
        let answer = a.endpoint.call(NodeId(2), Lane::Control, ECHO, Bytes::new(), LONG).await;
        assert_eq!(answer, Ok(Bytes::new()));
    }
    assert!(b.casts.len() < 4, "the calls were answered while the bulk was under way");
    for _ in 0..7 {
        b.next_cast().await;
    }
}

#[tokio::test]
async fn a_node_is_reached_by_a_name_instead_of_an_address() {
    let (a, b) = (node(1).await, node(2).await);
    a.endpoint.set_address(NodeId(2), &format!("localhost:{}", b.endpoint.local_addr().port()));
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
}

#[tokio::test]
async fn nodes_talk_over_ipv6() {
    let listen = "[::1]:0".parse().unwrap();
    if std::net::UdpSocket::bind(listen).is_err() {
        // This machine has no IPv6.
        return;
    }
    let mut configs = [config(1), config(2)];
    configs.iter_mut().for_each(|config| config.listen = listen);
    let [a, b] = configs.map(node_with);
    let (a, b) = (a.await, b.await);
    a.knows(&b);
    let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
    assert_eq!(answer, Ok(Bytes::new()));
}

/// The first message to a peer starts a dial, which once panicked when its sender was no task.
#[test]
fn messages_may_be_sent_from_outside_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (a, mut b) = runtime.block_on(async { (node(1).await, node(2).await) });
    a.knows(&b);
    a.endpoint.cast(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"from outside")).unwrap();
    assert_eq!(runtime.block_on(b.next_cast()).1, "from outside");
    let call = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"again"), LONG);
    assert_eq!(runtime.block_on(call).unwrap(), "again");
}
