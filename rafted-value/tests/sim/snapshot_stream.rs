//! Large snapshots come in pieces: a transfer survives cuts, and heartbeats and clients go on beside it.

use std::time::Duration;

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use rafted_value::env::{Env, sleep};
use rafted_value::sim::NetConfig;
use rafted_value::{
    ClientSession, Data, Found, GroupConfig, GroupError, GroupId, HostConfig, SessionId, encode,
};

const STATE_BYTES: usize = 3 << 20;

/// A group of two with a state of some MiB, and a third node that has no member yet.
fn world(seed: u64) -> World {
    let mut world = World::with_group(seed, 2);
    let mut client = world.client();
    world.run(30 * SECOND, async move {
        client.change(&Change::Fill(STATE_BYTES)).await.expect("there is room");
        client.add("a", 1).await;
    });
    world.start_node();
    world
}

/// Adds the third node's member; the task ends when it has caught up.
fn add_third(world: &World) -> rafted_value::sim::SimTask<()> {
    let (host, node) = (world.nodes[0].host.clone(), world.nodes[2].id());
    let env = world.nodes[0].env.clone();
    world.sim.spawn_on(&world.nodes[0].env, async move {
        let member = host.add_learner(GROUP, node).await.expect("it leads");
        loop {
            match host.promote(GROUP, member).await {
                Ok(()) => return,
                Err(GroupError::NotCaughtUp { .. }) => sleep(env.as_ref(), 10 * MS).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

#[test]
fn a_large_snapshot_comes_whole() {
    let world = world(1);
    let task = add_third(&world);
    world.run(10 * SECOND, task).expect("it ends");
    let host = world.nodes[2].host.clone();
    let value = world.run(SECOND, async move { stale(&host).await });
    assert_eq!(value.counts["a"], 1);
    assert!(value.counts.keys().any(|key| key.len() == STATE_BYTES));
}

#[test]
fn commands_and_the_lease_go_on_beside_a_slow_transfer() {
    let mut world = world(2);
    // The snapshot takes five seconds on the wire.
    world.sim.set_net_config(NetConfig { bandwidth_bytes_per_second: 600_000, ..NetConfig::default() });
    let mut client = world.client();
    let task = add_third(&world);
    let term = world.status(0).term;
    world.run(4 * SECOND, async move {
        for i in 2..=100 {
            assert_eq!(client.add("a", 1).await, i);
        }
    });
    assert!(world.status(0).leased);
    assert!(world.status(2).data.is_empty(), "the snapshot is still on its way");
    world.run(20 * SECOND, task).expect("it ends");
    assert_eq!(world.status(0).term, term);
}

#[test]
fn a_transfer_goes_on_where_it_was_when_the_network_was_cut() {
    let world = world(3);
    world.sim.set_net_config(NetConfig { bandwidth_bytes_per_second: 750_000, ..NetConfig::default() });
    let task = add_third(&world);
    let start = world.nodes[0].env.now();
    world.sim.run_for(3 * SECOND);
    world.cut_off(2);
    world.sim.run_for(8 * SECOND);
    world.sim.heal();
    world.run(20 * SECOND, task).expect("it ends");
    // From the beginning again it would be three seconds before the cut, eight cut off, and more than four afterwards.
    let took = world.nodes[0].env.now().since(start);
    assert!(took < 14 * SECOND, "{took:?}");
}

#[test]
fn pieces_that_are_lost_are_asked_for_again() {
    let world = world(4);
    world.sim.set_net_config(NetConfig {
        loss: 0.2,
        duplication: 0.1,
        reordering: 0.3,
        straggling_max: 50 * MS,
        ..NetConfig::default()
    });
    let task = add_third(&world);
    world.run(120 * SECOND, task).expect("it ends");
    let host = world.nodes[2].host.clone();
    let value = world.run(SECOND, async move { stale(&host).await });
    assert!(value.counts.keys().any(|key| key.len() == STATE_BYTES));
}

/// How long it takes until the first, and until the last, of four snapshots of a MiB is there, over a slow network.
fn four_at(seed: u64, snapshots_incoming_max: usize) -> (Duration, Duration) {
    let mut world = World::empty(seed);
    world.host_config = HostConfig { snapshots_incoming_max, ..world.host_config };
    world.start_node();
    world.start_node();
    let groups: Vec<GroupId> = (1..=4).map(GroupId).collect();
    let (env, host, node) = (world.nodes[0].env.clone(), world.nodes[0].host.clone(), world.nodes[0].id());
    let all = groups.clone();
    world.run(20 * SECOND, async move {
        for group in all {
            let (data, config, nodes) = (Counters::NAME.to_owned(), GroupConfig::default(), vec![node]);
            host.found(Found { group, data, config, nodes }).await.expect("it is new");
            sleep(env.as_ref(), 200 * MS).await;
            let mut session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
            let fill = encode(&Change::Fill(1 << 20));
            let command = session.begin(env.wall_ms() + 60_000, 0, fill).expect("nothing else waits");
            host.command(group, command, SECOND).await.expect("it leads");
        }
    });
    world.sim.set_net_config(NetConfig { bandwidth_bytes_per_second: 1 << 20, ..NetConfig::default() });
    let (host, to) = (world.nodes[0].host.clone(), world.nodes[1].id());
    world.run(5 * SECOND, async move {
        for group in groups {
            host.add_learner(group, to).await.expect("it leads");
        }
    });
    let begun = world.sim.elapsed();
    let mut first = None;
    loop {
        world.sim.run_for(20 * MS);
        let took = world.sim.elapsed() - begun;
        assert!(took < 30 * SECOND, "{first:?}");
        let host = world.nodes[1].host.clone();
        let statuses = world.run(SECOND, async move { host.statuses().await });
        let there = statuses.iter().filter(|status| !status.data.is_empty()).count();
        first = first.or((there > 0).then_some(took));
        if let (Some(first), 4) = (first, there) {
            return (first, took);
        }
    }
}

/// Each is held in memory until it is whole, so that many at a time could be more than a node has.
#[test]
fn so_many_snapshots_come_to_a_node_at_a_time_and_the_others_wait_for_their_turn() {
    let ((first_of_one, last_of_one), (first_of_many, last_of_many)) = (four_at(5, 1), four_at(5, 8));
    assert!(first_of_one < 2 * SECOND && first_of_many > 2 * SECOND, "{first_of_one:?} {first_of_many:?}");
    assert!(last_of_one < last_of_many + SECOND, "{last_of_one:?} {last_of_many:?}: the line is never idle");
}
