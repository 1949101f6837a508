//! A durable member's snapshot is in its file and nowhere else: given to others piece by piece, read whole after a panic.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use rafted_value::env::{Env, sleep};
use rafted_value::sim::{NetConfig, SimTask};
use rafted_value::{
    ClientSession, CommandError, Durability, GroupConfig, GroupError, NotApplied, SessionId, encode,
};

const STATE_BYTES: usize = 3 << 20;
/// The snapshot takes five seconds on the wire.
const SLOW: u64 = 600_000;

/// A group with a state of some MiB over nodes with disks, and a snapshot of it on each.
fn world(seed: u64, nodes: usize, durability: Durability) -> World {
    let mut world = World::empty(seed);
    world.config =
        GroupConfig { durability, log_bytes_min: 100_000, log_expansion_factor: 1, ..GroupConfig::default() };
    world.start_durable_nodes(nodes);
    world.found_on_all();
    change(&world, &Change::Fill(STATE_BYTES));
    for _ in 0..2 {
        carry(&world, 100_000);
    }
    world.sim.run_for(SECOND);
    world
}

/// A command on the leader's own node, whatever the network does.
fn change(world: &World, change: &Change) {
    let leader = world.leader();
    let (host, env) = (world.nodes[leader].host.clone(), world.nodes[leader].env.clone());
    let mut session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
    let command = session.begin(env.wall_ms() + 60_000, 0, encode(change)).expect("nothing else waits");
    world.run(10 * SECOND, async move { host.command(GROUP, command, 5 * SECOND).await }).expect("it leads");
}

/// Makes the log longer by so many bytes, and the value no larger after the first time.
fn carry(world: &World, bytes: usize) {
    change(world, &Change::Add("y".repeat(bytes), 1));
}

/// Adds a member on another node; the task ends when it has caught up.
fn add(world: &World, node: usize) -> SimTask<()> {
    let leader = world.leader();
    let (host, id) = (world.nodes[leader].host.clone(), world.nodes[node].id());
    let env = world.nodes[leader].env.clone();
    world.sim.spawn_on(&world.nodes[leader].env, async move {
        let member = host.add_learner(GROUP, id).await.expect("it leads");
        loop {
            match host.promote(GROUP, member).await {
                Ok(()) => return,
                Err(GroupError::NotCaughtUp { .. }) => sleep(env.as_ref(), 10 * MS).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

fn set_bandwidth(world: &World, bandwidth_bytes_per_second: u64) {
    world.sim.set_net_config(NetConfig { bandwidth_bytes_per_second, ..NetConfig::default() });
}

/// The snapshot files of a node, oldest first.
fn files(world: &World, node: usize) -> BTreeMap<String, Vec<u8>> {
    let mut files = world.nodes[node].disk().files();
    files.retain(|name, _| name.ends_with(".snap"));
    files
}

fn newest(world: &World, node: usize) -> String {
    files(world, node).pop_last().expect("a snapshot has a file").0
}

/// Flips a bit in the second half of a file, which is what goes over the wire last.
fn damage(world: &World, node: usize, file: &str) {
    let bits = files(world, node)[file].len() as u64 * 8;
    assert!(world.nodes[node].disk().flip_bit(file, bits * 9 / 10));
}

fn value(world: &World, node: usize) -> Counters {
    let host = world.nodes[node].host.clone();
    world.run(SECOND, async move { stale(&host).await })
}

fn check_alike(world: &World) {
    world.sim.run_for(5 * SECOND);
    let expected = value(world, world.leader());
    assert!(expected.counts.keys().any(|key| key.len() == STATE_BYTES));
    for node in 0..world.nodes.len() {
        assert!(value(world, node) == expected, "node {node} holds something else");
    }
}

#[test]
fn a_durable_member_holds_no_snapshot_in_memory() {
    for durability in [Durability::Async, Durability::Fsync, Durability::Memory] {
        let mut world = world(1, 2, durability);
        world.start_durable_nodes(1);
        let task = add(&world, 2);
        world.run(20 * SECOND, task).expect("it ends");
        world.sim.run_for(SECOND);
        for node in 0..3 {
            let status = world.status(node);
            assert!(status.snapshot_bytes > STATE_BYTES as u64, "{durability:?}: {status:?}");
            let held = if durability == Durability::Memory { status.snapshot_bytes } else { 0 };
            assert_eq!(status.snapshot_held_bytes, held, "{durability:?}, node {node}");
        }
        check_alike(&world);
    }
}

/// Of a snapshot that takes long to send, the file was to be removed when there are two newer ones.
#[test]
fn a_stream_goes_on_while_newer_snapshots_replace_its_file() {
    for durability in [Durability::Async, Durability::Fsync] {
        let mut world = world(2, 1, durability);
        world.start_durable_nodes(1);
        set_bandwidth(&world, SLOW);
        let task = add(&world, 1);
        world.sim.run_for(SECOND);
        let (given, file) = (world.status(0).snapshot_index, newest(&world, 0));
        let mut last = given;
        for _ in 0..3 {
            while world.status(0).snapshot_index == last {
                carry(&world, 900_000);
            }
            last = world.status(0).snapshot_index;
            assert_eq!(world.status(0).snapshot_held_bytes, 0, "{durability:?}");
        }
        world.sim.run_for(100 * MS);
        assert!(files(&world, 0).contains_key(&file), "{durability:?}: the stream has lost its file");
        assert_eq!(files(&world, 0).len(), 3, "{durability:?}: the two newest, and the one that is read");
        let begun = world.sim.elapsed();
        while world.status(1).data.is_empty() {
            assert!(world.sim.elapsed() - begun < 8 * SECOND, "{durability:?}: it has begun again");
            world.sim.run_for(50 * MS);
        }
        assert_eq!(world.status(1).snapshot_index, given, "{durability:?}: it is the one that was begun");
        set_bandwidth(&world, NetConfig::default().bandwidth_bytes_per_second);
        world.run(30 * SECOND, task).expect("it ends");
        // It goes with the next snapshot.
        let last = world.status(0).snapshot_index;
        while world.status(0).snapshot_index == last {
            carry(&world, 900_000);
        }
        world.sim.run_for(100 * MS);
        assert!(!files(&world, 0).contains_key(&file), "{durability:?}");
        assert!(files(&world, 0).len() <= 2, "{durability:?}");
        check_alike(&world);
    }
}

/// What is damaged is never sent: the leader takes a new snapshot, and the group goes on meanwhile.
#[test]
fn a_flipped_bit_that_is_found_while_a_snapshot_is_sent_costs_a_new_snapshot_and_nothing_else() {
    for seed in 10..30 {
        let mut world = world(seed, 1, Durability::Fsync);
        world.start_durable_nodes(1);
        set_bandwidth(&world, SLOW);
        let task = add(&world, 1);
        world.sim.run_for(SECOND);
        let (file, before) = (newest(&world, 0), world.status(0).snapshot_index);
        if seed % 2 == 0 {
            // Otherwise nothing is applied beyond it, and the new one has its name.
            change(&world, &Change::Add("a".into(), 1));
        }
        if seed % 3 == 0 {
            world.nodes[0].disk().put(&file, None);
        } else {
            damage(&world, 0, &file);
        }
        let damaged = files(&world, 0).remove(&file);
        world.sim.run_for(6 * SECOND);
        assert!(world.status(0).ready, "seed {seed}: {:?}", world.status(0).fenced);
        let replaced = files(&world, 0).remove(&file) != damaged || world.status(0).snapshot_index > before;
        assert!(replaced, "seed {seed}: nobody noticed");
        change(&world, &Change::Add("b".into(), 1));
        set_bandwidth(&world, NetConfig::default().bandwidth_bytes_per_second);
        world.run(20 * SECOND, task).expect("it ends");
        check_alike(&world);
        // And what it wrote in its place is whole.
        world.lose_power(0);
        world.restart(0);
        check_alike(&world);
    }
}

/// A disk that damages whatever is written to it does not keep the node busy for ever.
#[test]
fn snapshots_that_are_damaged_again_and_again_are_taken_no_more_often_than_they_are_sent_again() {
    let mut world = world(40, 1, Durability::Fsync);
    world.start_durable_nodes(1);
    set_bandwidth(&world, SLOW);
    let task = add(&world, 1);
    let (mut damages, mut known) = (0_u32, Vec::new());
    let begun = world.sim.elapsed();
    while world.sim.elapsed() - begun < 60 * SECOND {
        world.sim.run_for(50 * MS);
        let file = newest(&world, 0);
        if files(&world, 0)[&file] != known {
            damage(&world, 0, &file);
            known = files(&world, 0).remove(&file).unwrap();
            damages += 1;
        }
    }
    assert!((3..=8).contains(&damages), "{damages} snapshots in a minute, where 10 s are between two tries");
    change(&world, &Change::Add("a".into(), 1));
    world.run(60 * SECOND, task).expect("it ends once the disk behaves");
    check_alike(&world);
}

/// The value is built anew from the file, and the copy that it is built from goes with the next snapshot.
#[test]
fn a_command_that_panics_is_undone_with_what_is_in_the_file() {
    let mut world = world(50, 3, Durability::Fsync);
    let before = value(&world, world.leader());
    let mut client = world.client();
    let error = world.run(30 * SECOND, async move { client.change(&Change::Panic).await }).unwrap_err();
    assert!(matches!(error, CommandError::NotApplied(NotApplied::Panicked(_))), "{error}");
    check_alike(&world);
    assert!(value(&world, world.leader()) == before);
    let leader = world.leader();
    assert!(world.status(leader).snapshot_held_bytes > 0);
    let last = world.status(leader).snapshot_index;
    while world.status(leader).snapshot_index == last {
        carry(&world, 900_000);
    }
    assert_eq!(world.status(leader).snapshot_held_bytes, 0);
}

#[test]
fn a_member_that_cannot_undo_a_panic_because_its_file_is_damaged_is_fenced_alone_and_names_the_file() {
    let mut world = world(51, 3, Durability::Fsync);
    let leader = world.leader();
    let odd = (leader + 1) % 3;
    let file = newest(&world, odd);
    damage(&world, odd, &file);
    let mut client = world.client();
    let error = world.run(30 * SECOND, async move { client.change(&Change::Panic).await }).unwrap_err();
    assert!(matches!(error, CommandError::NotApplied(NotApplied::Panicked(_))), "{error}");
    world.sim.run_for(SECOND);
    let reason = world.status(odd).fenced.expect("it cannot go on");
    assert!(reason.contains(&file), "{reason}");
    assert_eq!(world.leader(), leader);
    change(&world, &Change::Add("a".into(), 1));
    for node in (0..3).filter(|node| *node != odd) {
        world.sim.run_for(SECOND);
        assert_eq!(value(&world, node).counts["a"], 1);
    }
}

/// The next version of the file's format, with a head that is whole.
fn make_newer(world: &World, node: usize, file: &str) {
    let mut bytes = files(world, node).remove(file).expect("it is there");
    bytes[4] = 2;
    let body = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..16 + body]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    world.nodes[node].disk().put(file, Some(bytes));
}

#[test]
fn a_snapshot_of_a_newer_format_is_replaced_instead_of_sent() {
    let mut world = world(60, 1, Durability::Fsync);
    world.start_durable_nodes(1);
    // A member that is added gets a snapshot that names it: the one that is made for it is changed before it is read.
    set_bandwidth(&world, SLOW);
    let before = world.status(0).snapshot_index;
    let task = add(&world, 1);
    while world.status(0).snapshot_index == before {
        world.sim.run_for(MS);
    }
    let file = newest(&world, 0);
    make_newer(&world, 0, &file);
    let newer = files(&world, 0)[&file].clone();
    set_bandwidth(&world, NetConfig::default().bandwidth_bytes_per_second);
    world.run(60 * SECOND, task).expect("it ends");
    assert_eq!(world.status(0).fenced, None);
    assert_ne!(files(&world, 0).get(&file), Some(&newer), "it was replaced, or a newer one is there");
    check_alike(&world);
}

/// The power of a receiver fails so long after a member on it was ordered, and it comes back.
fn lose_receiver(seed: u64, durability: Durability, after: Duration) {
    let mut world = world(seed, 1, durability);
    world.start_durable_nodes(1);
    set_bandwidth(&world, SLOW);
    let task = add(&world, 1);
    world.sim.run_for(after);
    world.lose_power(1);
    world.sim.run_for(SECOND);
    world.restart(1);
    set_bandwidth(&world, NetConfig::default().bandwidth_bytes_per_second);
    world.run(60 * SECOND, task).expect("it ends");
    check_alike(&world);
    let files = world.nodes[1].disk().files();
    assert!(files.keys().all(|name| !name.ends_with(".tmp")), "{durability:?}, after {after:?}");
}

#[test]
fn a_receiver_that_is_killed_in_the_middle_gets_its_snapshot_once_it_is_back() {
    for durability in [Durability::Async, Durability::Fsync, Durability::Memory] {
        for (seed, after_ms) in (70..).zip([1, 50, 500, 2_500, 4_500]) {
            lose_receiver(seed, durability, after_ms * MS);
        }
    }
}

/// While it is decoded, written to a file, and while the record that the member begins with is written.
#[test]
fn a_receiver_that_is_killed_when_its_snapshot_has_just_come_gets_it_again_or_has_it() {
    const SEED: u64 = 79;
    let mut world = world(SEED, 1, Durability::Fsync);
    world.start_durable_nodes(1);
    set_bandwidth(&world, SLOW);
    let begun = world.sim.elapsed();
    let _task = add(&world, 1);
    world.sim.run_for(SECOND);
    while world.status(1).data.is_empty() {
        world.sim.run_for(MS / 4);
    }
    let came = world.sim.elapsed() - begun;
    for quarter in 0..16 {
        lose_receiver(SEED, Durability::Fsync, came + quarter * MS / 4 - MS);
    }
}

#[test]
fn a_disk_that_fills_up_while_a_snapshot_comes_fences_its_member_and_all_is_well_once_there_is_room() {
    let mut world = world(80, 1, Durability::Fsync);
    world.start_durable_nodes(1);
    set_bandwidth(&world, SLOW);
    let task = add(&world, 1);
    world.sim.run_for(2 * SECOND);
    assert!(world.status(1).snapshot_held_bytes > 0, "it is on its way");
    let disk = world.nodes[1].disk().clone();
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.set_bytes_max(Some(used as u64 + 2_000));
    world.sim.run_for(6 * SECOND);
    let fenced = world.status(1).fenced.expect("its disk is full");
    assert!(fenced.contains(".snap.tmp") && fenced.ends_with("the disk is full"), "{fenced}");
    assert!(files(&world, 1).is_empty(), "half a snapshot is none");
    change(&world, &Change::Add("a".into(), 1));
    world.lose_power(1);
    disk.set_bytes_max(None);
    world.restart(1);
    assert!(disk.files().keys().all(|name| !name.ends_with(".tmp")), "what was begun is gone");
    set_bandwidth(&world, NetConfig::default().bandwidth_bytes_per_second);
    world.run(60 * SECOND, task).expect("it ends");
    check_alike(&world);
}
