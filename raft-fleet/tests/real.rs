//! The same on real sockets and real files: three nodes over QUIC that keep their groups in directories.

#![cfg(feature = "quic")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use raft_fleet::rafted_value::disk::{Disk, RealDisk};
use raft_fleet::rafted_value::env::{Env, RealEnv, random_u64_from_os};
use raft_fleet::rafted_value::node_on;
use raft_fleet::rafted_value::transport::quic::QuicTransport;
use raft_fleet::rafted_value::transport::quic::batched_comm::{
    CertificateAuthority, Endpoint, EndpointConfig, NodeId,
};
use raft_fleet::{
    CallOptions, CommandContext, Data, Fleet, FleetConfig, Freshness, GroupConfig, GroupName, Registry,
    encode,
};

/// An integer that can be added to.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

impl Data for Counter {
    const NAME: &'static str = "counter";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

/// Bytes a second of snapshots.
const RATE: u64 = 8 << 20;

struct Node {
    endpoint: Endpoint,
    fleet: Fleet,
}

/// One that was free a moment ago.
fn free_address() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.local_addr().expect("it is bound")
}

struct Machines {
    authority: CertificateAuthority,
    folder: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
}

impl Machines {
    fn new() -> Self {
        let addresses = (0..3).map(|_| free_address()).collect();
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        Self { authority: CertificateAuthority::new("test"), folder, addresses }
    }

    async fn start(&self, place: usize) -> Node {
        let name = format!("node-{place}");
        let disk = RealDisk::open(Path::join(self.folder.path(), &name)).expect("a directory of our own");
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let node = node_on(disk.as_ref()).expect("the directory is whole");
        let node = NodeId(node.map_or_else(random_u64_from_os, |node| node.0));
        let identity = self.authority.identity(&name);
        let config = EndpointConfig::new(self.addresses[place], node, name.clone(), identity);
        let endpoint = Endpoint::bind(config).await.expect("the port is free");
        let env = RealEnv::with_disk(QuicTransport::new(endpoint.clone(), name), disk);
        let config = FleetConfig {
            zone: format!("zone-{place}"),
            seeds: self.addresses.iter().map(ToString::to_string).collect(),
            bootstrap_expect: 3,
            snapshot_bytes_per_second_max: Some(RATE),
            ..FleetConfig::default()
        };
        let env: Arc<dyn Env> = env;
        let fleet = Fleet::start(env, config, Registry::new().with::<Counter>()).await.expect("it starts");
        assert_eq!(endpoint.bulk_bytes_per_second_max(), Some(RATE));
        Node { endpoint, fleet }
    }

    async fn start_all(&self) -> Vec<Node> {
        let (first, second, third) = tokio::join!(self.start(0), self.start(1), self.start(2));
        vec![first, second, third]
    }
}

async fn count(fleet: &Fleet, name: &GroupName, times: u64) -> u64 {
    let mut last = 0;
    for _ in 0..times {
        let options = CallOptions::default().with_timeout(Duration::from_secs(20));
        let reply = fleet.command(name, 0, encode(&1_u64), &options).await.expect("it is answered in time");
        last = postcard::from_bytes(&reply).expect("a number");
    }
    last
}

async fn read(fleet: &Fleet, name: &GroupName) -> u64 {
    let options = CallOptions::default().with_timeout(Duration::from_secs(20));
    let answer = fleet.query(name, Freshness::Latest, encode(&()), &options).await.expect("in time");
    postcard::from_bytes(&answer).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_over_quic_is_drained_restarted_and_keeps_what_it_acknowledged() {
    let machines = Machines::new();
    let mut nodes = machines.start_all().await;
    let name = GroupName::new("visits").expect("a name");
    let (data, config) = (Counter::NAME, GroupConfig::default());
    nodes[0].fleet.add_group(name.clone(), data, 3, config).await.expect("a new name");
    assert_eq!(count(&nodes[1].fleet, &name, 20).await, 20);
    assert!(nodes[2].fleet.whereis_leader(&name).await.expect("there is such a group").is_some());
    assert_eq!(nodes[2].fleet.consensus_groups().await.expect("the cluster answers")[&name], 3);

    let leaving = nodes.remove(0);
    leaving.fleet.deactivate().await.expect("it was active");
    leaving.fleet.drained(Duration::from_secs(60)).await.expect("it is empty in time");
    leaving.fleet.shutdown().await;
    leaving.endpoint.close().await;
    drop(leaving);
    assert_eq!(count(&nodes[0].fleet, &name, 20).await, 40);
    nodes.insert(0, machines.start(0).await);

    let ids: Vec<_> = nodes.iter().map(|node| node.fleet.node()).collect();
    let cluster = nodes[1].fleet.cluster().cluster();
    for node in nodes {
        node.fleet.shutdown().await;
        node.endpoint.close().await;
    }
    let nodes = machines.start_all().await;
    assert_eq!(nodes.iter().map(|node| node.fleet.node()).collect::<Vec<_>>(), ids);
    assert_eq!(nodes[0].fleet.cluster().cluster(), cluster);
    assert_eq!(read(&nodes[2].fleet, &name).await, 40);
    assert_eq!(count(&nodes[0].fleet, &name, 2).await, 42);
    for node in nodes {
        node.fleet.shutdown().await;
        node.endpoint.close().await;
    }
}
