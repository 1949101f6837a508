//! Large snapshots come in pieces: a transfer survives cuts, and heartbeats and clients go on beside it.

mod support;

use rafted_value::GroupError;
use rafted_value::env::{Env, sleep};
use rafted_value::sim::NetConfig;
use support::{Change, GROUP, MS, SECOND, World, stale};

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
