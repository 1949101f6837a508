//! What a snapshot costs in memory once it is in its file: nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rafted_value::disk::RealDisk;
use rafted_value::env::{RealEnv, sleep};
use rafted_value::transport::memory::MemoryNetwork;
use rafted_value::{
    ClientSession, CommandContext, Data, Durability, Found, GroupConfig, GroupId, GroupStatus, Host,
    HostConfig, NodeId, Registry, SessionId, encode,
};

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

const GROUP: GroupId = GroupId(9);
const MS: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(30);
const PIECES: usize = 32;
const PIECE_BYTES: usize = 1 << 20;
/// What may be on the heap beside the value: buffers of the disk's writer, and what the runtime sets aside.
const SPARE_BYTES: usize = 4 << 20;

/// Pieces that copies share.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
struct Pieces(Vec<Bytes>);

impl Data for Pieces {
    const NAME: &'static str = "pieces";
    type Command = u8;
    type Reply = ();
    type Query = ();
    type Answer = ();

    fn command(&mut self, _: &CommandContext, byte: u8) {
        self.0.push(vec![byte; PIECE_BYTES].into());
    }

    fn query(&self, (): ()) {}

    fn freeze(&self) -> Option<Self> {
        Some(self.clone())
    }
}

async fn status(host: &Host, wanted: impl Fn(&GroupStatus) -> bool) -> GroupStatus {
    for _ in 0..3_000 {
        if let Some(status) = host.status(GROUP).await.filter(|status| wanted(status)) {
            return status;
        }
        sleep(host.env().as_ref(), 10 * MS).await;
    }
    panic!("not in half a minute: {:?}", host.status(GROUP).await);
}

/// Each durable member once held its value twice: as it is, and as the newest snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_in_its_file_costs_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let open = || async {
        let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
        let env = RealEnv::with_disk(MemoryNetwork::new().join(NodeId(1), "node-1"), disk);
        let config = HostConfig { loops: 1, ..HostConfig::default() };
        Host::open(env, config, Registry::new().with::<Pieces>()).await.unwrap()
    };
    let _counting = dhat::Profiler::builder().testing().build();
    let host = open().await;
    let env = host.env().clone();
    let config = GroupConfig { durability: Durability::Fsync, ..GroupConfig::default() };
    let found = Found { group: GROUP, data: Pieces::NAME.into(), config, nodes: vec![host.node()] };
    host.found(found).await.unwrap();
    let mut session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
    for byte in 0..PIECES as u8 {
        let command = session.begin(env.wall_ms() + 60_000, 0, encode(&byte)).unwrap();
        let sequence = command.sequence;
        host.command(GROUP, command, LIMIT).await.unwrap();
        session.finish(sequence);
    }
    let check = |when: &str| {
        let bytes = dhat::HeapStats::get().curr_bytes;
        println!("{bytes} bytes {when}");
        assert!(bytes < PIECES * PIECE_BYTES + SPARE_BYTES, "{bytes} bytes {when}");
    };
    check("before the snapshot");
    let before = host.status(GROUP).await.unwrap();
    let config = GroupConfig { log_bytes_min: 1, log_expansion_factor: 1, ..before.config };
    host.change_config(GROUP, config).await.unwrap();
    let after = status(&host, |status| status.snapshot_index > before.snapshot_index).await;
    assert!(after.snapshot_bytes > (PIECES * PIECE_BYTES) as u64);
    check("once it is taken");
    host.shutdown().await;
    drop(host);
    let host = open().await;
    let again = status(&host, |status| status.ready).await;
    assert_eq!((again.snapshot_bytes, again.snapshot_held_bytes), (after.snapshot_bytes, 0));
    check("once the node has come back");
    host.shutdown().await;
}
