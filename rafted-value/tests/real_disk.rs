//! Nodes on real directories: what they keep is there again, and a directory that is not theirs is refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rafted_value::disk::{Disk, RealDisk};
use rafted_value::env::{RealEnv, sleep};
use rafted_value::transport::memory::MemoryNetwork;
use rafted_value::{
    ClientSession, CommandContext, Data, Durability, Found, Freshness, GroupConfig, GroupId, Host,
    HostConfig, NodeId, Registry, SessionId, StoreError, encode, node_on,
};

const GROUP: GroupId = GroupId(5);
const LIMIT: Duration = Duration::from_secs(5);

/// A sum.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Sum(i64);

impl Data for Sum {
    const NAME: &'static str = "sum";
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn command(&mut self, _: &CommandContext, add: i64) -> i64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): ()) -> i64 {
        self.0
    }
}

async fn open(network: &MemoryNetwork, node: u64, directory: &Path) -> Result<Host, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory)?);
    let env = RealEnv::with_disk(network.join(NodeId(node), format!("node-{node}")), disk);
    Host::open(env, HostConfig::default(), Registry::new().with::<Sum>()).await
}

async fn add(host: &Host, amount: i64) -> i64 {
    let env = host.env();
    let mut session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
    let command = session.begin(env.wall_ms() + 60_000, 0, encode(&amount)).expect("nothing else waits");
    let reply = host.command(GROUP, command, LIMIT).await.expect("it leads");
    postcard::from_bytes(&reply).expect("a sum")
}

async fn sum(host: &Host) -> i64 {
    for _ in 0..500 {
        if let Ok(answer) = host.query(GROUP, Freshness::Latest, encode(&()), LIMIT).await {
            return postcard::from_bytes(&answer).expect("a sum");
        }
        sleep(host.env().as_ref(), Duration::from_millis(10)).await;
    }
    panic!("nobody leads");
}

async fn found(host: &Host) {
    let config = GroupConfig { durability: Durability::Fsync, ..GroupConfig::default() };
    let found = Found { group: GROUP, data: Sum::NAME.into(), config, nodes: vec![host.node()] };
    host.found(found).await.expect("a new group");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_kept_is_there_again() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(node_on(&RealDisk::open(directory.path()).expect("a disk")), Ok(None));
    let host = open(&MemoryNetwork::new(), 1, directory.path()).await.expect("a new store");
    found(&host).await;
    for amount in 1..=20 {
        add(&host, amount).await;
    }
    host.shutdown().await;
    drop(host);
    assert_eq!(node_on(&RealDisk::open(directory.path()).expect("a disk")), Ok(Some(NodeId(1))));
    let host = open(&MemoryNetwork::new(), 1, directory.path()).await.expect("its own store");
    assert_eq!(sum(&host).await, 210);
    assert_eq!(add(&host, 1).await, 211);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_or_of_another_node_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let host = open(&MemoryNetwork::new(), 1, directory.path()).await.expect("a new store");
    found(&host).await;
    add(&host, 7).await;
    let second = open(&MemoryNetwork::new(), 1, directory.path()).await.expect_err("it is in use");
    assert!(second.to_string().contains("in use"), "{second}");
    host.shutdown().await;
    drop(host);
    let other = open(&MemoryNetwork::new(), 2, directory.path()).await.err();
    assert_eq!(other, Some(StoreError::OtherNode { found: NodeId(1), expected: NodeId(2) }));
    let host = open(&MemoryNetwork::new(), 1, directory.path()).await.expect("nothing was overwritten");
    assert_eq!(sum(&host).await, 7);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_is_named_and_nothing_is_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let host = open(&MemoryNetwork::new(), 1, directory.path()).await.expect("a new store");
    found(&host).await;
    for amount in 1..=50 {
        add(&host, amount).await;
    }
    host.shutdown().await;
    drop(host);
    let log = std::fs::read_dir(directory.path().join("log")).expect("a folder");
    let segment =
        log.filter_map(Result::ok).find(|file| file.file_name().to_string_lossy().ends_with(".seg"));
    let segment = segment.expect("a segment").path();
    let mut bytes = std::fs::read(&segment).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes).expect("it can be written");
    let error = open(&MemoryNetwork::new(), 1, directory.path()).await.err();
    assert!(
        matches!(&error, Some(StoreError::Corrupt { file, .. }) if file.starts_with("log/")),
        "{error:?}"
    );
    assert_eq!(std::fs::read(&segment).expect("a file"), bytes);
}
