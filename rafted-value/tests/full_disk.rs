//! Disks that are full or may not be written: the error names the file, nothing is overwritten, and the node goes on.
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, unused_imports, reason = "only Linux has a device that is always full")
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rafted_value::disk::{Disk, DiskError, DiskReason, RealDisk};
use rafted_value::env::{RealEnv, sleep};
use rafted_value::sim::SimDisk;
use rafted_value::transport::memory::MemoryNetwork;
use rafted_value::{
    ClientSession, CommandError, Data, Found, GroupConfig, GroupError, Host, HostConfig, MemberId, NodeId,
    NotApplied, Registry, SessionId, StoreError, encode,
};
use support::{Change, Counters, GROUP, MS, SECOND, World};

fn add(world: &mut World, count: i64) {
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        for _ in 0..count {
            client.add("a", 1).await;
        }
    });
}

#[test]
fn a_full_disk_fences_its_members_with_the_file_and_all_come_back_once_there_is_room() {
    for seed in 0..10 {
        let mut world = World::empty(700 + seed);
        world.start_durable_nodes(3);
        world.found_on_all();
        add(&mut world, 20);
        world.sim.run_for(SECOND);
        let full = world.leader();
        let before = world.nodes[full].disk().files();
        world.nodes[full].disk().set_bytes_max(Some(0));
        add(&mut world, 20);
        let fenced = world.status(full).fenced.expect("its disk is full");
        assert!(fenced.contains("write \"log/") && fenced.ends_with("the disk is full"), "{fenced}");
        let after = world.nodes[full].disk().files();
        let unchanged = |(name, bytes): (&String, &Vec<u8>)| after.get(name) == Some(bytes);
        assert!(before.iter().all(unchanged), "seed {seed}: something was overwritten");
        // The node is alive, and says so.
        let (host, env) = (world.nodes[full].host.clone(), world.nodes[full].env.clone());
        let mut session = ClientSession::new(SessionId::new(1, seed), 1);
        let until = rafted_value::env::Env::wall_ms(env.as_ref()) + 60_000;
        let command = session.begin(until, 0, encode(&Change::Add("a".into(), 1))).expect("the first");
        let refused = world.run(SECOND, async move { host.command(GROUP, command, SECOND).await });
        assert!(
            matches!(refused, Err(CommandError::NotApplied(NotApplied::Fenced { .. }))),
            "seed {seed}: {refused:?}"
        );
        world.lose_power(full);
        world.nodes[full].disk().set_bytes_max(None);
        world.restart(full);
        world.sim.run_for(3 * SECOND);
        let (back, leader) = (world.status(full), world.status(world.leader()));
        assert_eq!((back.fenced, back.applied_index), (None, leader.applied_index), "seed {seed}");
        let mut client = world.client();
        assert_eq!(world.run(SECOND, async move { client.read().await }).counts["a"], 40, "seed {seed}");
    }
}

#[test]
fn a_node_does_not_start_on_a_disk_that_is_full_from_the_start() {
    let world = World::empty(720);
    let disk = SimDisk::new(world.sim.rng());
    disk.set_bytes_max(Some(0));
    let open = |address: &str| {
        let env = world.sim.start_node_on(NodeId(9), disk.disk(), "node", address);
        let open = Host::open(env.clone(), HostConfig::default(), Registry::new().with::<Counters>());
        (env, world.run(SECOND, open))
    };
    let (env, refused) = open("sim:0");
    let Err(StoreError::Disk(DiskError { file, reason: DiskReason::Full, .. })) = refused else {
        panic!("{:?}", refused.err());
    };
    assert!(!file.is_empty());
    world.sim.kill(&env);
    disk.kill();
    disk.set_bytes_max(None);
    let (_, opened) = open("sim:1");
    assert!(opened.is_ok(), "{:?}", opened.err());
}

async fn open(directory: &Path) -> Result<Host, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory)?);
    let env = RealEnv::with_disk(MemoryNetwork::new().join(NodeId(1), "node-1"), disk);
    Host::open(env, HostConfig::default(), Registry::new().with::<Counters>()).await
}

async fn refused(directory: &Path) -> DiskError {
    match open(directory).await {
        Err(StoreError::Disk(error)) => error,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it opened"),
    }
}

/// What is in a directory, folders left out.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it is read"));
    let files = entries.filter(|entry| entry.path().is_file());
    let file = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path()).expect("it is read");
        (entry.file_name().to_string_lossy().into_owned(), bytes)
    };
    files.map(file).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_where_a_directory_should_be_is_named_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("node");
    std::fs::write(&place, "mine").expect("it is written");
    let error = refused(&place).await;
    assert!(error.to_string().contains(&place.display().to_string()), "{error}");
    std::fs::remove_file(&place).expect("it is there");
    std::fs::create_dir(&place).expect("it is made");
    std::fs::write(place.join("log"), "mine").expect("it is written");
    let error = refused(&place).await;
    assert!(error.file.starts_with("log"), "{error}");
    assert_eq!(files(&place)["log"], b"mine");
}

async fn found(host: &Host) -> Result<MemberId, GroupError> {
    let config = GroupConfig::default();
    host.found(Found { group: GROUP, data: Counters::NAME.into(), config, nodes: vec![host.node()] }).await
}

/// Linux has a device that is always full; the log's first segment is led there.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_disk_that_is_full_fences_the_member_with_the_file_and_the_node_lives() {
    let (usual, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let host = open(usual.path()).await.expect("a new store");
    found(&host).await.expect("a new group");
    host.shutdown().await;
    let names = files(&usual.path().join("log"));
    let segment = names.keys().find(|name| name.ends_with(".seg")).expect("a log has a segment");
    let log = directory.path().join("log");
    std::fs::create_dir(&log).expect("it is made");
    std::os::unix::fs::symlink("/dev/full", log.join(segment)).expect("it is made");
    let host = open(directory.path()).await.expect("nothing is logged yet");
    // What the founder is told depends on which comes first, the answer or the failure.
    let _ = found(&host).await;
    let mut fenced = None;
    for _ in 0..1000 {
        fenced = host.status(GROUP).await.and_then(|status| status.fenced);
        if fenced.is_some() {
            break;
        }
        sleep(host.env().as_ref(), 10 * MS).await;
    }
    let fenced = fenced.expect("its disk is full");
    let told = format!("write \"log/{segment}\": the disk is full");
    assert!(fenced.contains(&told), "{fenced}");
    host.shutdown().await;
    drop(host);
    // Whoever takes the log away to make room takes what the node may have said: that is damage, not a new node.
    std::fs::remove_file(log.join(segment)).expect("it is there");
    let error = open(directory.path()).await.err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|error| error.contains("the log is missing")), "{error:?}");
}

/// Whoever runs as root may write everywhere: there the same directory opens, and nothing can be refused.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_may_not_be_written_is_a_typed_error_with_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("node");
    open(&place).await.expect("a new store").shutdown().await;
    std::fs::remove_file(place.join("lock")).expect("it is given up");
    let before = files(&place);
    let allow = |mode| std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).expect("ours");
    allow(0o555);
    let privileged = std::fs::write(place.join("probe"), "").is_ok();
    let opened = open(&place).await;
    allow(0o755);
    if privileged {
        opened.expect("root may").shutdown().await;
        return;
    }
    let Err(StoreError::Disk(error)) = opened else { panic!("{:?}", opened.err()) };
    assert_eq!((error.file.as_str(), &error.reason), ("lock", &DiskReason::Permission), "{error}");
    assert_eq!(files(&place), before, "something was written");
}
