//! What an endpoint counts and holds, told to the `metrics` facade now and then.
//!
//! Nothing is looked up or recorded while a message is under way: messages count in atomics of the endpoint, and those are
//! read here, once an interval or when the user asks. A recorder may be installed before or after the endpoint was bound.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use metrics::{counter, describe_gauge, gauge};
use tokio::time::{MissedTickBehavior, interval};

use crate::shared::Shared;

/// The gauges, with what each tells.
const GAUGES: [(&str, &str); 6] = [
    ("batched_comm_peers_connected", "Peers there is a connection to"),
    ("batched_comm_peers_known", "Peers that were named or are connected"),
    ("batched_comm_messages_queued", "Messages that wait to be sent, to all peers on all lanes"),
    ("batched_comm_bytes_queued", "Their bytes"),
    ("batched_comm_calls_in_flight", "Calls that wait for their answer"),
    (
        "batched_comm_identity_expires_in_seconds",
        "Until the node's certificate expires; negative once it has",
    ),
];

/// Publishes at each interval, as long as there is an endpoint; without an interval only when asked.
pub(crate) async fn publish_now_and_then(shared: Weak<Shared>) {
    let Some(period) = shared.upgrade().and_then(|shared| shared.config.metrics_interval) else { return };
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) else { return };
        publish(&shared);
    }
}

/// Tells the recorder everything as it is now.
pub(crate) fn publish(shared: &Arc<Shared>) {
    let node = shared.config.node.to_string();
    for (name, meaning, value) in shared.counters.snapshot().described() {
        metrics::describe_counter!(name, meaning);
        counter!(name, "node" => node.clone()).absolute(value);
    }
    for ((name, meaning), value) in GAUGES.into_iter().zip(held(shared)) {
        describe_gauge!(name, meaning);
        gauge!(name, "node" => node.clone()).set(value);
    }
}

/// The values of the gauges.
fn held(shared: &Arc<Shared>) -> [f64; GAUGES.len()] {
    let (mut connected, mut messages, mut bytes, mut calls) = (0, 0, 0, 0);
    let peers = shared.peers();
    for peer in &peers {
        connected += usize::from(peer.link().is_some());
        calls += peer.calls.in_flight();
        let (waiting, waiting_bytes) = peer.waiting();
        messages += waiting;
        bytes += waiting_bytes;
    }
    let until = shared.identity_validity().until;
    let left = match until.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    };
    [connected as f64, peers.len() as f64, messages as f64, bytes as f64, calls as f64, left]
}
