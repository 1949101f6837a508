//! What the tests share: endpoints on loopback, an echoing handler that also records.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

pub(crate) mod insider;
pub(crate) mod other;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use batched_comm::{CertificateAuthority, Endpoint, EndpointConfig, Handler, NodeId, Reply, ServiceId};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const ECHO: ServiceId = ServiceId(1);
/// Until then whatever must come has come, on a machine that is busy with other things too. Nothing that holds waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// One CA for all tests of a binary.
pub(crate) fn authority() -> &'static CertificateAuthority {
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| CertificateAuthority::new("test"))
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A config on loopback, with which no connection ends and no dial is given up because the machine was busy elsewhere.
///
/// Whoever waits for the end of such a time makes it short, and says so in its own test.
pub(crate) fn config(node: u64) -> EndpointConfig {
    let name = format!("node-{node}");
    let identity = authority().identity(&name);
    let mut config = EndpointConfig::new(loopback(), NodeId(node), name, identity);
    config.idle_timeout = LONG;
    config.keep_alive_interval = LONG / 3;
    config.connect_timeout = LONG;
    config.reconnect_backoff_min = Duration::from_millis(10);
    config.reconnect_backoff_max = Duration::from_millis(100);
    config
}

/// A config with which silence ends a connection, and a dial that nobody answers ends, within a test.
pub(crate) fn hasty(node: u64) -> EndpointConfig {
    let mut config = config(node);
    config.idle_timeout = Duration::from_secs(3);
    config.keep_alive_interval = Duration::from_millis(200);
    config.connect_timeout = Duration::from_millis(1500);
    config
}

/// Answers calls with their payload and tells the test what came.
pub(crate) struct Echo {
    pub(crate) casts: mpsc::UnboundedSender<(NodeId, Bytes)>,
}

impl Handler for Echo {
    fn on_cast(&self, from: NodeId, payload: Bytes) {
        let _ = self.casts.send((from, payload));
    }

    fn on_call(&self, _from: NodeId, payload: Bytes, reply: Reply) {
        reply.send(payload);
    }
}

/// An endpoint with an echoing handler, and what is cast to it.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) casts: mpsc::UnboundedReceiver<(NodeId, Bytes)>,
}

pub(crate) async fn node_with(config: EndpointConfig) -> Node {
    let endpoint = Endpoint::bind(config).await.unwrap();
    let (sender, casts) = mpsc::unbounded_channel();
    endpoint.register(ECHO, Arc::new(Echo { casts: sender }));
    Node { endpoint, casts }
}

pub(crate) async fn node(id: u64) -> Node {
    node_with(config(id)).await
}

/// A node on a runtime of its own, which can be killed without a chance to say goodbye.
pub(crate) struct Mortal {
    pub(crate) node: Node,
    runtime: tokio::runtime::Runtime,
}

pub(crate) fn mortal(config: EndpointConfig) -> Mortal {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node =
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(node_with(config))).join().unwrap());
    Mortal { node, runtime }
}

impl Mortal {
    /// Ends all tasks and frees the port, as a kill does: nothing is sent any more.
    pub(crate) fn kill(self) {
        let Mortal { node, runtime } = self;
        std::thread::spawn(move || drop(runtime)).join().unwrap();
        drop(node);
    }
}

impl Node {
    /// Tells this node where another one lives.
    pub(crate) fn knows(&self, other: &Node) {
        self.endpoint.set_address(other.endpoint.node(), other.endpoint.advertised());
    }

    /// The next cast, which must come soon.
    pub(crate) async fn next_cast(&mut self) -> (NodeId, Bytes) {
        timeout(LONG, self.casts.recv()).await.expect("a cast comes in time").expect("the handler lives")
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
