//! A directory that a node must not take, or cannot read, is an error that names the file; nothing in it is overwritten.
//!
//! Torn and flipped bytes of the log are in `src/store/tests`, full and unwritable disks in `tests/full_disk.rs`, and
//! the same on a real file system in `tests/real_disk.rs`.

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use std::sync::Arc;

use rafted_value::disk::DiskReason;
use rafted_value::env::sleep;
use rafted_value::sim::SimDisk;
use rafted_value::transport::ClusterId;
use rafted_value::{Found, GroupConfig, GroupId, Host, HostConfig, NodeId, Registry, StoreError};

/// Opens a directory as a node of a cluster, and gives the host up again.
fn open(world: &World, disk: &SimDisk, node: NodeId, cluster: Option<u128>) -> Result<(), StoreError> {
    world.sim.run_for(MS);
    let address = format!("sim:at-{}", world.sim.elapsed().as_nanos());
    let env = world.sim.start_node_on(node, disk.disk(), "node", &address);
    let config = HostConfig { cluster: cluster.map(ClusterId), ..world.host_config.clone() };
    let opened = world.run(SECOND, Host::open(env.clone(), config, world.registry.clone())).map(drop);
    world.sim.kill(&env);
    disk.kill();
    opened
}

/// Three members, one of whose nodes is down.
fn world(seed: u64) -> World {
    let mut world = World::empty(seed);
    world.config = GroupConfig { log_bytes_min: 10_000, log_expansion_factor: 1, ..GroupConfig::default() };
    world.start_durable_nodes(3);
    world.found_on_all();
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        client.change(&Change::Fill(70_000)).await.expect("a leader is there");
        let long = "a".repeat(1_000);
        for _ in 0..200 {
            client.add(&long, 1).await;
        }
    });
    world.sim.run_for(SECOND);
    world
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_and_left_as_it_is() {
    let mut world = world(1);
    world.lose_power(2);
    let (disk, node) = (world.nodes[2].disk().clone(), world.nodes[2].id());
    assert_eq!(open(&world, &disk, node, Some(7)), Ok(()), "from now on it belongs to this cluster");
    let before = disk.files();
    let stranger = NodeId(5);
    let refused = open(&world, &disk, stranger, Some(7)).unwrap_err();
    assert_eq!(refused, StoreError::OtherNode { found: node, expected: stranger });
    assert!(refused.to_string().starts_with("node: "), "the file is named: {refused}");
    let refused = open(&world, &disk, node, Some(6)).unwrap_err();
    assert_eq!(refused, StoreError::OtherCluster { found: 7, expected: 6 });
    assert!(refused.to_string().starts_with("node: "), "the file is named: {refused}");
    assert_eq!(disk.files(), before);
}

#[test]
fn a_second_process_on_one_directory_is_refused_and_the_first_goes_on() {
    let world = world(2);
    let (disk, node) = (world.nodes[2].disk().disk(), NodeId(4711));
    let before = world.nodes[2].disk().files();
    let env = world.sim.start_node_on(node, disk, "second", "sim:second");
    let refused = world.run(SECOND, Host::open(env, HostConfig::default(), world.registry.clone())).err();
    let Some(StoreError::Disk(error)) = &refused else { panic!("{refused:?}") };
    assert!(matches!(error.reason, DiskReason::InUse { .. }), "{error}");
    assert_eq!(error.file, "lock");
    assert_eq!(world.nodes[2].disk().files(), before);
    world.sim.run_for(SECOND);
    assert_eq!(world.status(2).fenced, None);
}

/// The newest snapshot file on a node's disk.
fn snapshot_of(disk: &SimDisk) -> String {
    let newest = disk.files().into_keys().filter(|name| name.starts_with("snap/")).max();
    newest.expect("its snapshots are files")
}

#[test]
fn a_snapshot_of_a_newer_format_fences_its_member_alone_and_names_the_file() {
    let mut world = world(3);
    let other = GroupId(78);
    let found = Found {
        group: other,
        data: "counters".into(),
        config: GroupConfig::default(),
        nodes: vec![world.nodes[2].id()],
    };
    let host = world.nodes[2].host.clone();
    world.run(SECOND, async move { host.found(found).await }).unwrap();
    world.lose_power(2);
    let disk = world.nodes[2].disk().clone();
    // The next version, with a head that is whole; of all of them, so that no older one takes its place.
    let names: Vec<String> = disk.files().into_keys().filter(|name| name.starts_with("snap/")).collect();
    for name in &names {
        let mut bytes = disk.files()[name].clone();
        bytes[4] = 2;
        let body = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..16 + body]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.put(name, Some(bytes));
    }
    let before = disk.files();
    world.restart(2);
    world.sim.run_for(SECOND);
    let fenced = world.status(2).fenced.expect("it cannot be read");
    let told = "has format version 2, where this program knows 1";
    assert!(names.iter().any(|name| fenced.contains(&format!("{name} {told}"))), "{fenced}");
    for name in &names {
        assert_eq!(disk.files()[name], before[name], "it was overwritten");
    }
    let host = world.nodes[2].host.clone();
    let status =
        world.run(SECOND, async move { host.status(other).await }).expect("the other group is there");
    assert_eq!((status.fenced, status.ready), (None, true));
}

/// They stayed for ever where the node died between the two, or ended its member because it had lost its state.
#[test]
fn the_snapshots_of_members_that_have_ended_are_gone_after_the_next_start() {
    let mut world = world(6);
    let follower = (world.leader() + 1) % 3;
    let disk = world.nodes[follower].disk().clone();
    let snapshots = |disk: &SimDisk| -> Vec<(String, Vec<u8>)> {
        disk.files().into_iter().filter(|(name, _)| name.starts_with("snap/")).collect()
    };
    let before = snapshots(&disk);
    assert_eq!(before.len(), 2);
    let host = world.nodes[follower].host.clone();
    world.run(SECOND, async move { host.drop_member(GROUP).await }).expect("it ends");
    world.sim.run_for(SECOND);
    assert_eq!(snapshots(&disk), []);
    world.lose_power(follower);
    before.into_iter().for_each(|(name, bytes)| disk.put(&name, Some(bytes)));
    world.restart(follower);
    world.sim.run_for(SECOND);
    assert_eq!(snapshots(&disk), []);
}

/// What was on its way into a file when its member ended came into it afterwards, and nobody knew of it any more.
#[test]
fn a_snapshot_that_is_written_while_its_member_ends_is_gone_with_it() {
    let mut world = World::empty(7);
    world.config = GroupConfig { log_bytes_min: 10_000, log_expansion_factor: 1, ..GroupConfig::default() };
    world.start_durable_nodes(3);
    world.found_on_all();
    world.sim.run_for(SECOND);
    let follower = (world.leader() + 1) % 3;
    let (disk, clock) = (world.nodes[follower].disk().clone(), world.nodes[follower].env.clone());
    disk.set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), 200 * MS))));
    let mut client = world.client();
    let writing = world.sim.spawn(async move {
        client.change(&Change::Fill(70_000)).await.expect("a leader is there");
        let long = "a".repeat(1_000);
        for _ in 0..200 {
            client.add(&long, 1).await;
        }
    });
    let snapshots = |disk: &SimDisk| disk.files().keys().filter(|name| name.starts_with("snap/")).count();
    let end = world.sim.elapsed() + 20 * SECOND;
    while snapshots(&disk) == 0 {
        assert!(world.sim.elapsed() < end, "no snapshot is written");
        world.sim.run_for(MS);
    }
    let host = world.nodes[follower].host.clone();
    world.run(SECOND, async move { host.drop_member(GROUP).await }).expect("it ends");
    world.run(60 * SECOND, writing).expect("the others go on");
    world.sim.run_for(2 * SECOND);
    assert_eq!(snapshots(&disk), 0);
}

/// FAULTS 6: a damaged newest snapshot made a restart impossible although an older one was there.
#[test]
fn where_the_newest_snapshot_is_damaged_the_one_before_it_takes_its_place() {
    let mut world = world(4);
    let follower = (world.leader() + 1) % 3;
    let disk = world.nodes[follower].disk().clone();
    assert_eq!(disk.files().keys().filter(|name| name.starts_with("snap/")).count(), 2);
    world.lose_power(follower);
    let newest = snapshot_of(&disk);
    assert!(disk.flip_bit(&newest, disk.files()[&newest].len() as u64 * 4));
    world.restart(follower);
    world.sim.run_for(2 * SECOND);
    let status = world.status(follower);
    assert_eq!(status.fenced, None);
    assert_eq!(status.applied_index, world.status(world.leader()).applied_index);
    let host = world.nodes[follower].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts[&"a".repeat(1_000)], 200);
    assert_eq!(world.status(follower).group, GROUP);
}

/// A data type that its encoding loses was left out of the registry without a word, until a group of it was founded.
#[test]
fn a_data_type_that_cannot_work_is_named_when_a_host_opens_and_when_a_group_is_founded() {
    let mut world = World::empty(5);
    world.registry = Registry::new().with::<Counters>().with::<broken::Broken>();
    let disk = SimDisk::new(world.sim.rng());
    let refused = open(&world, &disk, NodeId(1), None).unwrap_err();
    let StoreError::InvalidConfig(reason) = &refused else { panic!("{refused}") };
    assert!(reason.contains("\"broken\" is lost in its encoding"), "{reason}");
    assert!(disk.files().is_empty());
    let node = world.start_node();
    let (host, id) = (world.nodes[node].host.clone(), world.nodes[node].id());
    let found =
        Found { group: GROUP, data: "broken".into(), config: GroupConfig::default(), nodes: vec![id] };
    let refused = world.run(SECOND, async move { host.found(found).await }).unwrap_err();
    assert!(refused.to_string().contains("\"broken\" is lost in its encoding"), "{refused}");
}

mod broken {
    use rafted_value::{CommandContext, Data};

    /// A value whose default does not decode.
    #[derive(Default, serde::Serialize, serde::Deserialize)]
    pub(super) struct Broken {
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
    }

    impl Data for Broken {
        const NAME: &'static str = "broken";
        type Command = ();
        type Reply = ();
        type Query = ();
        type Answer = ();

        fn command(&mut self, _: &CommandContext, (): ()) {}

        fn query(&self, (): ()) {}
    }
}
