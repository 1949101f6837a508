//! Idle groups fall quiet: they send nothing, wake when something is asked, and find a new leader when theirs is gone.

use std::time::Duration;

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use rafted_value::sim::NetConfig;
use rafted_value::{Freshness, HostConfig, encode};

/// What a group of the default settings has to find a new leader in once the old one's node is gone: its longest election
/// timeout, and one round of votes.
const ELECTION_MAX: Duration = Duration::from_millis(1_300);

/// A group over some nodes, of which nobody has asked anything for long enough.
fn quiet_world(seed: u64, nodes: usize) -> World {
    let mut world = World::empty(seed);
    world.host_config = HostConfig { quiet_after: 500 * MS, ..world.host_config };
    for _ in 0..nodes {
        world.start_node();
    }
    world.found_on_all();
    let mut client = world.client();
    world.run(10 * SECOND, async move { client.add("a", 1).await });
    world.sim.run_for(2 * SECOND);
    world
}

/// Messages that are delivered in a second.
fn messages(world: &World) -> u64 {
    let before = world.sim.stats().delivered;
    world.sim.run_for(SECOND);
    world.sim.stats().delivered - before
}

/// A group that fell quiet is woken by nothing but its loops' silence, which the transport does not hurry.
fn without_notices(world: &World) {
    let silence = Duration::from_secs(3_600);
    let config = NetConfig {
        death_notice: 0.0,
        silence_min: silence,
        silence_max: 2 * silence,
        ..NetConfig::default()
    };
    world.sim.set_net_config(config);
}

/// The time until another node leads.
fn time_to_lead(world: &World, but: usize) -> Duration {
    let killed = world.sim.elapsed();
    while world.sim.elapsed() - killed < 10 * SECOND {
        let others = (0..world.nodes.len()).filter(|node| *node != but && world.nodes[*node].alive);
        if others.map(|node| world.status(node)).any(|status| status.ready) {
            return world.sim.elapsed() - killed;
        }
        world.sim.run_for(5 * MS);
    }
    panic!("nobody leads after ten seconds");
}

/// Three nodes, two loops each, one of which is shared with two others: a beat every 100 ms in both directions.
#[test]
fn an_idle_group_sends_nothing_but_its_loops_beats() {
    let world = quiet_world(1, 3);
    let messages = messages(&world);
    assert!((35..=45).contains(&messages), "{messages} messages");
}

#[test]
fn a_group_that_is_never_to_be_quiet_goes_on_beating() {
    let mut world = World::empty(2);
    world.host_config = HostConfig { quiet_after: Duration::ZERO, ..world.host_config };
    for _ in 0..3 {
        world.start_node();
    }
    world.found_on_all();
    world.sim.run_for(20 * SECOND);
    assert!(messages(&world) >= 70, "twenty rounds to two members");
}

/// Their followers would campaign before they could hear that a loop is silent.
#[test]
fn a_group_with_a_short_election_timeout_goes_on_beating() {
    let mut world = World::empty(3);
    world.host_config = HostConfig { quiet_after: 500 * MS, ..world.host_config };
    world.config.election_timeout_min_ms = 300;
    for _ in 0..3 {
        world.start_node();
    }
    world.found_on_all();
    world.sim.run_for(5 * SECOND);
    assert!(messages(&world) >= 70);
}

#[test]
fn a_group_of_one_falls_quiet_and_answers_at_once() {
    let mut world = quiet_world(4, 1);
    assert_eq!(messages(&world), 0);
    let mut client = world.client();
    world.run(SECOND, async move {
        assert_eq!(client.add("a", 1).await, 2);
    });
}

/// On every member, until something is asked of it; a page can tell an idle group from one that waits.
#[test]
fn a_status_says_whether_its_group_is_quiet() {
    let mut world = quiet_world(7, 3);
    let quiet = |world: &World| (0..3).filter(|node| world.status(*node).quiet).count();
    assert_eq!(quiet(&world), 3);
    let leader = world.leader();
    assert_eq!(quiet(&world), 3, "whoever asks for a status wakes nobody");
    let mut client = world.client();
    world.run(SECOND, async move { client.add("a", 1).await });
    assert!(!world.status(leader).quiet);
    world.sim.run_for(100 * MS);
    assert_eq!(quiet(&world), 0);
    world.sim.run_for(2 * SECOND);
    assert_eq!(quiet(&world), 3);
}

#[test]
fn a_command_wakes_a_group_and_is_answered_as_quickly_as_ever() {
    let mut world = quiet_world(5, 3);
    let mut client = world.client();
    let before = world.sim.elapsed();
    assert_eq!(world.run(SECOND, async move { client.add("a", 1).await }), 2);
    assert!(world.sim.elapsed() - before < 30 * MS, "{:?}", world.sim.elapsed() - before);
    world.sim.run_for(100 * MS);
    assert!(world.status(world.leader()).leased, "it beats again");
    world.sim.run_for(2 * SECOND);
    assert!(messages(&world) <= 45, "it falls quiet again");
    for node in &world.nodes {
        let host = node.host.clone();
        let value = world.run(SECOND, async move { stale(&host).await });
        assert_eq!(value.counts["a"], 2);
    }
}

/// A quiet leader has no lease: another may have been elected meanwhile.
#[test]
fn a_query_of_a_quiet_leader_waits_for_a_round() {
    let world = quiet_world(6, 3);
    let leader = world.leader();
    assert!(!world.status(leader).leased);
    let ask = |limit| {
        let host = world.nodes[leader].host.clone();
        world.run(5 * SECOND, async move { host.query(GROUP, Freshness::Latest, encode(&()), limit).await })
    };
    let answer: Counters = postcard::from_bytes(&ask(SECOND).unwrap()).unwrap();
    assert_eq!(answer.counts["a"], 1);
    world.sim.run_for(3 * SECOND);
    world.cut_off(leader);
    ask(200 * MS).expect_err("nobody confirms it");
}

#[test]
fn the_death_of_a_quiet_leader_that_nobody_reports_is_noticed_within_an_election_timeout() {
    for seed in 10..20 {
        let mut world = quiet_world(seed, 3);
        without_notices(&world);
        let leader = world.leader();
        world.kill(leader);
        let time = time_to_lead(&world, leader);
        assert!(time <= ELECTION_MAX, "seed {seed}: {time:?}");
    }
}

#[test]
fn the_death_of_a_quiet_leader_that_is_reported_wakes_its_followers_at_once() {
    let mut world = quiet_world(20, 3);
    let leader = world.leader();
    world.kill(leader);
    let time = time_to_lead(&world, leader);
    assert!(time <= 300 * MS, "{time:?}");
}

/// A follower that cannot hear the leader, which hears it: the others keep the leader, and it comes back.
#[test]
fn a_cut_in_one_direction_wakes_a_quiet_group_and_unseats_nobody() {
    for (seed, to_follower) in [(21, true), (22, false)] {
        let mut world = quiet_world(seed, 3);
        let leader = world.leader();
        let term = world.status(leader).term;
        let follower = (leader + 1) % 3;
        let (from, to) = if to_follower { (leader, follower) } else { (follower, leader) };
        world.sim.partition_one_way(&[world.nodes[from].address()], &[world.nodes[to].address()]);
        world.sim.run_for(5 * SECOND);
        let unresponsive = world.status(leader).unresponsive;
        assert_eq!(unresponsive, [world.nodes[follower].id()], "seed {seed}: it is not quiet");
        world.sim.heal();
        world.sim.run_for(10 * SECOND);
        assert!(messages(&world) <= 45, "seed {seed}: it is quiet again");
        let status = world.status(world.leader());
        assert_eq!((status.term, status.unresponsive.len()), (term, 0), "seed {seed}");
        let mut client = world.client();
        assert_eq!(world.run(5 * SECOND, async move { client.add("a", 1).await }), 2);
    }
}

/// The leader's node goes on, and its loop with it: nobody would notice that the member is gone.
#[test]
fn a_leader_that_ends_while_its_loop_goes_on_wakes_its_group() {
    let mut world = quiet_world(23, 3);
    let leader = world.leader();
    let host = world.nodes[leader].host.clone();
    world.run(SECOND, async move { host.drop_member(GROUP).await }).unwrap();
    world.nodes[leader].alive = false;
    let time = time_to_lead(&world, leader);
    assert!(time <= ELECTION_MAX, "{time:?}");
}

/// It comes back under its old id before anybody has missed it, and leads nothing any more.
#[test]
fn a_node_that_was_down_for_a_moment_only_leaves_no_quiet_group_without_a_leader() {
    let mut world = World::empty(24);
    world.host_config = HostConfig { quiet_after: 500 * MS, ..world.host_config };
    world.start_durable_nodes(3);
    world.found_on_all();
    world.sim.run_for(3 * SECOND);
    assert!(messages(&world) <= 45);
    without_notices(&world);
    let leader = world.leader();
    world.kill(leader);
    world.sim.run_for(50 * MS);
    world.restart(leader);
    let back = world.sim.elapsed();
    world.leader();
    let time = world.sim.elapsed() - back;
    assert!(time <= ELECTION_MAX, "{time:?}");
    let mut client = world.client();
    world.run(5 * SECOND, async move { client.add("a", 1).await });
}

/// A process that was stopped hears nobody, and must not think that all others are gone.
#[test]
fn a_follower_that_stood_still_unseats_nobody() {
    for seed in 30..35 {
        let world = quiet_world(seed, 3);
        let leader = world.leader();
        let term = world.status(leader).term;
        let follower = &world.nodes[(leader + 1) % 3];
        world.sim.pause(&follower.env);
        world.sim.run_for(3 * SECOND);
        world.sim.resume(&follower.env);
        world.sim.run_for(10 * SECOND);
        assert_eq!(world.status(world.leader()).term, term, "seed {seed}");
        assert!(messages(&world) <= 45, "seed {seed}");
    }
}

/// A leader asks its quiet members again now and then, whatever happens.
#[test]
fn a_group_that_is_quiet_for_long_stays_so() {
    let world = quiet_world(40, 3);
    let (leader, term) = (world.leader(), world.status(world.leader()).term);
    let before = world.sim.stats().delivered;
    world.sim.run_for(600 * SECOND);
    let a_second = (world.sim.stats().delivered - before) / 600;
    assert!(a_second <= 45, "{a_second} messages a second");
    assert_eq!((world.leader(), world.status(leader).term), (leader, term));
    assert!(world.status(leader).unresponsive.is_empty());
}

#[test]
fn the_leadership_of_a_quiet_group_can_be_handed_over() {
    let world = quiet_world(41, 3);
    let leader = world.leader();
    let to = (leader + 1) % 3;
    let handed = world.replace_leader(leader, Some(to));
    world.end(handed).unwrap();
    assert_eq!(world.leader(), to);
    world.sim.run_for(3 * SECOND);
    assert!(messages(&world) <= 45);
}

#[test]
fn a_quiet_group_takes_a_new_member_in() {
    let mut world = quiet_world(42, 2);
    let leader = world.leader();
    let node = world.start_node();
    world.add_voter(leader, node);
    let mut client = world.client();
    world.run(5 * SECOND, async move {
        client.change(&Change::Add("a".into(), 1)).await.unwrap();
    });
    world.sim.run_for(2 * SECOND);
    assert!(messages(&world) <= 45);
    let host = world.nodes[node].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 2);
}
