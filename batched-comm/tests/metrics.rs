//! What an endpoint tells the `metrics` facade.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batched_comm::{Endpoint, Lane, NodeId};
use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use support::{ECHO, LONG, config, eventually, node, node_with};

/// Keeps what it is told, under `name{label="value"}`.
#[derive(Clone, Default)]
struct Told {
    counters: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    gauges: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    described: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Told {
    fn counter(&self, name: &str) -> Option<u64> {
        self.counters.lock().unwrap().get(name).map(|value| value.load(Ordering::Relaxed))
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.gauges.lock().unwrap()[name].load(Ordering::Relaxed))
    }
}

fn full_name(key: &Key) -> String {
    let labels: Vec<_> = key.labels().map(|label| format!("{}={:?}", label.key(), label.value())).collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Recorder for Told {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), description.into_owned());
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), description.into_owned());
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.counters.lock().unwrap().entry(full_name(key)).or_default().clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.gauges.lock().unwrap().entry(full_name(key)).or_default().clone())
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn publish(told: &Told, endpoint: &Endpoint) {
    metrics::with_local_recorder(told, || endpoint.publish_metrics());
}

#[tokio::test]
async fn every_counter_is_published_under_its_name_with_the_node_as_label() {
    let (a, b) = (node(1).await, node(2).await);
    a.knows(&b);
    for _ in 0..7 {
        let answer = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::new(), LONG).await;
        assert_eq!(answer, Ok(Bytes::new()));
    }
    let told = Told::default();
    // Two nodes of one process share a recorder.
    publish(&told, &a.endpoint);
    publish(&told, &b.endpoint);
    for (node, sent) in [("0000000000000001", 7), ("0000000000000002", 7)] {
        let name = format!("batched_comm_messages_sent_total{{node={node:?}}}");
        assert_eq!(told.counter(&name), Some(sent));
    }
    for (name, value) in a.endpoint.counters().each() {
        let metric = format!("batched_comm_{name}_total");
        let published = told.counter(&format!("{metric}{{node=\"0000000000000001\"}}"));
        assert!(published.is_some_and(|published| published <= value), "{metric}: {published:?} of {value}");
        assert!(told.described.lock().unwrap()[&metric].len() > 10, "{metric} is described");
    }
}

#[tokio::test]
async fn gauges_tell_what_is_held_now() {
    let (a, b) = (node(1).await, node(2).await);
    let told = Told::default();
    let gauge = |name: &str| {
        publish(&told, &a.endpoint);
        told.gauge(&format!("batched_comm_{name}{{node=\"0000000000000001\"}}"))
    };
    assert_eq!((gauge("peers_known"), gauge("peers_connected")), (0.0, 0.0));
    a.knows(&b);
    assert_eq!((gauge("peers_known"), gauge("peers_connected")), (1.0, 0.0));
    let call = a.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"x"), LONG);
    assert_eq!((gauge("messages_queued"), gauge("bytes_queued"), gauge("calls_in_flight")), (1.0, 17.0, 1.0));
    call.await.unwrap();
    assert_eq!((gauge("messages_queued"), gauge("bytes_queued"), gauge("calls_in_flight")), (0.0, 0.0, 0.0));
    assert_eq!(gauge("peers_connected"), 1.0);
    let days = gauge("identity_expires_in_seconds") / 86_400.0;
    assert!((29.0..=30.0).contains(&days), "{days}");
    let readme = include_str!("../README.md");
    for name in told.described.lock().unwrap().keys().filter(|name| !name.ends_with("_total")) {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}

/// The recorder may come after the endpoint, and no call of the user is needed.
#[tokio::test]
async fn metrics_are_published_at_the_interval() {
    let mut config = config(1);
    config.metrics_interval = Some(Duration::from_millis(20));
    let a = node_with(config).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let told = Told::default();
    let _recorder = metrics::set_default_local_recorder(&told);
    assert!(a.endpoint.cast(NodeId(9), Lane::Normal, ECHO, Bytes::new()).is_err());
    let dropped = "batched_comm_casts_dropped_total{node=\"0000000000000001\"}";
    eventually("published", || told.counter(dropped) == Some(1)).await;
}
