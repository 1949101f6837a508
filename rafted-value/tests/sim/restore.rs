//! A group that is founded anew from the directory of one of its members, after the others are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use rafted_value::disk::{Disk, DiskReason};
use rafted_value::env::Env;
use rafted_value::{
    ClientSession, Data, Durability, Found, Freshness, GroupConfig, GroupError, GroupId, MemberId,
    RestoreGroupError, SessionId, StoreError, encode, read_log_rank,
};

fn durable(seed: u64, durability: Durability) -> World {
    let mut world = World::empty(seed);
    world.config = GroupConfig { durability, log_bytes_min: 20_000, ..GroupConfig::default() };
    world.start_durable_nodes(3);
    world.found_on_all();
    world
}

fn disk(world: &World, node: usize) -> Arc<dyn Disk> {
    world.nodes[node].disk().disk()
}

/// Restores the group on a node that never had it.
fn restore(world: &World, to: usize, from: usize) -> Result<MemberId, RestoreGroupError> {
    let (host, from) = (world.nodes[to].host.clone(), disk(world, from));
    world.run(5 * SECOND, async move { host.restore(GROUP, from).await })
}

/// The state and the sessions come back, from snapshots in files as well as from the log alone; the members do not.
#[test]
fn a_group_is_founded_anew_from_the_directory_with_the_newest_log() {
    for seed in 0..20 {
        let mut world = durable(seed, Durability::Fsync);
        let mut client = world.client();
        if seed % 2 == 0 {
            // Large enough that its snapshots are files.
            let (_, back) =
                world.run(20 * SECOND, async move { (client.change(&Change::Fill(200_000)).await, client) });
            client = back;
        }
        let until = client.env.wall_ms() + 60_000;
        let change = encode(&Change::Add("a".into(), 3));
        let command = client.session.begin(until, 0, change).unwrap();
        let (host, sent) = (world.nodes[world.leader()].host.clone(), command.clone());
        world.run(SECOND, async move { host.command(GROUP, sent, SECOND).await.unwrap() });
        // One of them misses the rest.
        let late = (world.leader() + 1) % 3;
        world.cut_off(late);
        world.run(60 * SECOND, async move {
            for _ in 0..100 {
                client.add("a", 1).await;
            }
        });
        let before: Vec<MemberId> = (0..3).map(|node| world.member(node)).collect();
        for node in 0..3 {
            world.lose_power(node);
        }
        world.sim.heal();
        let log = |node| read_log_rank(&disk(&world, node), GROUP).unwrap().expect("it had a member");
        let newest = (0..3).max_by_key(|node| log(*node)).unwrap();
        assert!(log(late) < log(newest), "seed {seed}");
        let unchanged = world.nodes[newest].disk().files();

        world.start_durable_nodes(2);
        let member = restore(&world, 3, newest).unwrap();
        assert!(before.iter().all(|old| *old < member), "seed {seed}: ids are never used again");
        assert_eq!(world.nodes[newest].disk().files(), unchanged, "seed {seed}: the directory was changed");
        world.sim.run_for(50 * MS);
        let status = world.status(3);
        assert!(status.ready && status.members.len() == 1, "seed {seed}: {status:?}");
        assert_eq!(status.durability, Durability::Fsync);
        let host = world.nodes[3].host.clone();
        assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 103, "seed {seed}");
        // What was sent before runs no second time.
        let host = world.nodes[3].host.clone();
        let again = world.run(SECOND, async move { host.command(GROUP, command, SECOND).await.unwrap() });
        assert_eq!(again[..], encode(&3i64)[..], "seed {seed}");
        // It grows again, and is there after a loss of power.
        world.add_voter(3, 4);
        world.sim.run_for(200 * MS);
        for node in [3, 4] {
            world.lose_power(node);
            world.restart(node);
        }
        world.sim.run_for(3 * SECOND);
        let host = world.nodes[world.leader()].host.clone();
        assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 103, "seed {seed}");
    }
}

/// A member of the group of old that comes back and speaks to the new one is told that it is none any more.
#[test]
fn a_member_of_before_ends_when_it_meets_the_group_that_was_founded_anew() {
    let mut world = durable(30, Durability::Fsync);
    let mut client = world.client();
    world.run(5 * SECOND, async move { client.add("a", 7).await });
    for node in 0..3 {
        world.lose_power(node);
    }
    world.start_durable_nodes(1);
    let member = restore(&world, 3, 0).unwrap();
    // The node of another old member takes part again, with its old member first.
    world.restart(1);
    let added = world.add_voter(3, 1);
    assert!(added > member);
    world.sim.run_for(SECOND);
    assert_eq!(world.status(1).member, added);
    let host = world.nodes[1].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 7);
}

#[test]
fn what_cannot_be_restored_is_refused_and_says_why() {
    let mut world = durable(31, Durability::Fsync);
    world.start_durable_nodes(1);
    // A directory in use.
    let refused = restore(&world, 3, 0).unwrap_err();
    let RestoreGroupError::Store(StoreError::Disk(error)) = &refused else { panic!("{refused}") };
    assert!(matches!(error.reason, DiskReason::InUse { .. }), "{refused}");
    world.lose_power(0);
    // A group that is there.
    let host = world.nodes[1].host.clone();
    let from = disk(&world, 0);
    let refused = world.run(5 * SECOND, async move { host.restore(GROUP, from).await });
    assert_eq!(refused, Err(GroupError::AlreadyExists(GROUP).into()));
    // A group that never was.
    let (host, from) = (world.nodes[3].host.clone(), disk(&world, 0));
    let stranger = GroupId(5);
    let refused = world.run(5 * SECOND, async move { host.restore(stranger, from).await }).unwrap_err();
    assert!(
        matches!(refused, RestoreGroupError::NothingKept { group, .. } if group == stranger),
        "{refused}"
    );
    assert_eq!(read_log_rank(&disk(&world, 0), stranger), Ok(None));
    // A damaged directory, which is named.
    let segment = "log/0000000000000000.seg";
    let damaged = world.nodes[0].disk();
    let bits = damaged.files()[segment].len() as u64 * 4;
    assert!(damaged.flip_bit(segment, bits));
    let refused = restore(&world, 3, 0).unwrap_err();
    assert!(refused.to_string().starts_with(segment), "{refused}");
}

/// A member that lived in memory left nothing to restore.
#[test]
fn a_group_in_memory_leaves_nothing_to_restore() {
    let mut world = durable(32, Durability::Memory);
    world.lose_power(0);
    world.start_durable_nodes(1);
    let refused = restore(&world, 3, 0).unwrap_err();
    assert!(matches!(refused, RestoreGroupError::NothingKept { .. }), "{refused}");
    assert_eq!(read_log_rank(&disk(&world, 0), GROUP), Ok(None));
}

/// A command that panicked is undone when it is replayed too.
#[test]
fn a_command_that_panicked_stays_undone_in_a_group_that_was_founded_anew() {
    let mut world = durable(33, Durability::Async);
    let mut client = world.client();
    world.run(20 * SECOND, async move {
        client.add("a", 1).await;
        client.change(&Change::Panic).await.unwrap_err();
        client.add("a", 1).await;
    });
    for node in 0..3 {
        world.kill(node);
    }
    world.start_durable_nodes(1);
    restore(&world, 3, 2).unwrap();
    let host = world.nodes[3].host.clone();
    let value = world.run(SECOND, async move { stale(&host).await });
    assert_eq!((value.counts["a"], value.log), (2, vec![1, 1]));
    // The id of the group is taken for good.
    let (host, node) = (world.nodes[3].host.clone(), world.nodes[3].id());
    let found =
        Found { group: GROUP, data: "counters".into(), config: GroupConfig::default(), nodes: vec![node] };
    let again = world.run(SECOND, async move { host.found(found).await });
    assert_eq!(again, Err(GroupError::AlreadyExists(GROUP)));
}

/// A keepsake was what a member had applied. One that is just back from a loss of power does not know that its last entries
/// were committed, and what begins with its keepsake lacked commands that were acknowledged.
#[test]
fn a_keepsake_has_all_that_was_acknowledged_though_nobody_says_so_any_more() {
    for seed in 40..50 {
        let mut world = durable(seed, Durability::Fsync);
        let mut client = world.client();
        world.run(5 * SECOND, async move {
            client.add("a", 3).await;
            client.add("a", 4).await;
        });
        let leader = world.leader();
        for node in 0..3 {
            world.lose_power(node);
        }
        world.restart(leader);
        let host = world.nodes[leader].host.clone();
        let begins = async move {
            let keepsake = host.retire(GROUP).await.expect("it is there").expect("it has come to something");
            let (group, data, config) = (GroupId(78), Counters::NAME.into(), GroupConfig::default());
            let found = Found { group, data, config, nodes: vec![host.node()] };
            host.found_with(found, keepsake).await.expect("a new group");
            let query = host.query(GroupId(78), Freshness::Latest, encode(&()), SECOND).await;
            postcard::from_bytes::<Counters>(&query.expect("it leads")).expect("it is the value")
        };
        assert_eq!(world.run(5 * SECOND, begins).counts["a"], 7, "seed {seed}");
    }
}

/// A member went on with its group after it was asked what it had come to. What it acknowledged until it was dropped was
/// answered to clients, and nobody had it any more.
#[test]
fn what_is_acknowledged_while_members_retire_is_in_what_they_leave() {
    for seed in 60..80 {
        let mut world = durable(seed, Durability::Fsync);
        let mut client = world.client();
        let told = Arc::new(AtomicI64::new(0));
        let tells = told.clone();
        drop(world.sim.spawn(async move {
            while let Ok(count) = client.change(&Change::Add("a".into(), 1)).await {
                tells.store(count, Ordering::Relaxed);
            }
        }));
        world.sim.run_for(SECOND);
        let retire = |node: usize| {
            let host = world.nodes[node].host.clone();
            let retired = world.sim.spawn(async move { host.retire(GROUP).await });
            world.end(retired).expect("it is there").expect("it has come to something")
        };
        // Those that follow come first, so that the leader could go on with either as long as both take part.
        let leader = world.leader();
        let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        let first = retire(others[0]);
        world.sim.run_for(100 * MS);
        assert_eq!(retire(others[0]), first, "seed {seed}: it has come to nothing more");
        let second = retire(others[1]);
        world.sim.run_for(100 * MS);
        assert!(told.load(Ordering::Relaxed) > 0, "seed {seed}");
        let newest = [first, second].into_iter().max_by_key(|kept| kept.rank).expect("there are two");

        let host = world.nodes[others[0]].host.clone();
        let begins = async move {
            host.drop_member(GROUP).await.expect("it ends");
            let (group, data, config) = (GroupId(78), Counters::NAME.into(), GroupConfig::default());
            let found = Found { group, data, config, nodes: vec![host.node()] };
            host.found_with(found, newest).await.expect("a new group");
            let query = host.query(GroupId(78), Freshness::Latest, encode(&()), SECOND).await;
            postcard::from_bytes::<Counters>(&query.expect("it leads")).expect("it is the value")
        };
        let count = world.run(5 * SECOND, begins).counts["a"];
        assert!(count >= told.load(Ordering::Relaxed), "seed {seed}: {count} of {told:?} are left");
    }
}

/// Of two commands that had panicked, one was known to have and the other was in the log alone: nothing could be taken then.
#[test]
fn what_a_member_has_come_to_is_taken_where_commands_panicked_in_what_it_has_applied_and_behind() {
    let mut world = World::with_group(240, 3);
    let mut client = world.client();
    world.run(10 * SECOND, async move {
        client.add("a", 4).await;
        client.change(&Change::Panic).await.expect_err("it panics");
        client.add("a", 1).await;
    });
    let leader = world.leader();
    world.cut_off(leader);
    let (host, until) = (world.nodes[leader].host.clone(), world.nodes[leader].env.wall_ms() + 60_000);
    let command = ClientSession::new(SessionId::new(7, 8), 10).begin(until, 0, encode(&Change::Panic));
    let command = command.expect("there is room");
    drop(world.sim.spawn(async move { host.command(GROUP, command, SECOND).await }));
    world.sim.run_for(20 * MS);
    let status = world.status(leader);
    assert!(status.last_index > status.applied_index, "{status:?}");
    let host = world.nodes[leader].host.clone();
    let kept = world.run(SECOND, async move { host.retire(GROUP).await });
    assert!(matches!(kept, Ok(Some(_))), "{kept:?}");
}
