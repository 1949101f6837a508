//! Leadership that is handed over: it moves where it is wanted, loses no command, gives no stale answer, and can be
//! called back at any time.

use std::time::Duration;

use crate::support::{Change, Counters, GROUP, MS, SECOND, World};
use rafted_value::sim::NetConfig;
use rafted_value::{
    Command, CommandError, Freshness, GroupConfig, GroupError, MemberId, QueryError, Role, encode,
};

fn check_moves(members: usize) {
    for seed in 0..10 {
        let world = World::with_group(seed, members);
        let mut leader = world.leader();
        for step in 1..members {
            let to = (leader + step) % members;
            let before = world.sim.elapsed();
            let moved = world.replace_leader(leader, Some(to));
            world.end(moved).expect("it moves");
            assert!(world.sim.elapsed() - before < 60 * MS, "seed {seed}: no promise stands in the way");
            world.sim.run_for(100 * MS);
            assert_eq!(world.leader(), to, "seed {seed}");
            assert_eq!(world.status(leader).role, Role::Follower, "seed {seed}");
            leader = to;
        }
    }
}

#[test]
fn leadership_moves_to_the_chosen_one_of_three_at_once() {
    check_moves(3);
}

/// In a group of five the target and the old leader are no majority: other voters must break their promise.
#[test]
fn leadership_moves_to_the_chosen_one_of_five_at_once() {
    check_moves(5);
}

#[test]
fn commands_that_run_into_a_transfer_are_answered_once_and_in_order() {
    for seed in 20..40 {
        let mut world = World::with_group(seed, 3);
        let mut client = world.client();
        let task = world.sim.spawn(async move {
            for i in 1..=400 {
                assert_eq!(client.add("a", 1).await, i);
            }
            client.read().await
        });
        for _ in 0..10 {
            world.sim.run_for(60 * MS);
            let leader = world.leader();
            let moved = world.replace_leader(leader, Some((leader + 1) % 3));
            world.end(moved).expect("it moves");
        }
        let value = world.run(60 * SECOND, task).expect("the client ends");
        assert_eq!(value.counts["a"], 400, "seed {seed}");
    }
}

/// Raft drops what is proposed while a transfer is under way; here it waits, and loses nothing.
#[test]
fn a_command_that_comes_during_a_transfer_waits_and_is_applied_after_the_cancel() {
    let mut world = World::with_group(41, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let slow = (leader + 1) % 3;
    world.sim.pause(&world.nodes[slow].env);
    let moving = world.replace_leader_to(leader, world.member_on(leader, slow));
    world.sim.run_for(10 * MS);
    let mut client = world.client();
    let waiting = world.sim.spawn(async move { client.add("a", 3).await });
    world.sim.run_for(100 * MS);
    let before = world.status(leader);
    assert_eq!(before.last_index, before.applied_index, "nothing went into the log");
    let kept = world.replace_leader_to(leader, None);
    world.end(kept).unwrap();
    let cancelled = world.end(moving);
    assert!(matches!(cancelled, Err(GroupError::TransferCancelled { .. })), "{cancelled:?}");
    assert_eq!(world.run(5 * SECOND, waiting), Some(3));
    assert!(world.status(leader).ready);
}

#[test]
fn a_command_that_waits_for_a_transfer_is_told_who_leads_next() {
    let mut world = World::with_group(42, 3);
    let leader = world.leader();
    let to = (leader + 1) % 3;
    // The way to the target is long: there is time between the call and its end.
    world.sim.set_net_config(NetConfig { delay_min: 20 * MS, delay_max: 20 * MS, ..NetConfig::default() });
    let moving = world.replace_leader(leader, Some(to));
    world.sim.run_for(MS);
    let (host, mut client) = (world.nodes[leader].host.clone(), world.client());
    let change = encode(&Change::Add("a".into(), 1));
    let until = rafted_value::env::Env::wall_ms(client.env.as_ref()) + 60_000;
    let command: Command = client.session.begin(until, 0, change).unwrap();
    let refused = world.run(5 * SECOND, async move { host.command(GROUP, command, SECOND).await });
    world.end(moving).unwrap();
    let expected = rafted_value::NotApplied::NotLeader { group: GROUP, leader: Some(world.nodes[to].id()) };
    assert_eq!(refused, Err(CommandError::NotApplied(expected)));
}

#[test]
fn leadership_is_given_to_nobody_who_could_not_take_it() {
    let mut world = World::with_group(43, 3);
    let leader = world.leader();
    let (follower, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = world.start_node();
    let (host, id) = (world.nodes[leader].host.clone(), world.nodes[node].id());
    let learner = world.run(5 * SECOND, async move { host.add_learner(GROUP, id).await.unwrap() });
    world.sim.run_for(SECOND);
    let dead_member = world.member(dead);
    world.kill(dead);
    world.sim.run_for(3 * SECOND);
    let refused = |member| {
        let task = world.replace_leader_to(leader, Some(member));
        world.end(task).unwrap_err()
    };
    assert_eq!(
        refused(dead_member),
        GroupError::Unresponsive { group: GROUP, member: dead_member, limit_ms: 600 }
    );
    assert!(matches!(refused(learner), GroupError::NoSuchMember { member, .. } if member == learner));
    let stranger = MemberId(99);
    assert_eq!(refused(stranger), GroupError::NotMember { group: GROUP, member: stranger, removed: false });
    let task = world.replace_leader(follower, Some(follower));
    let error = world.end(task).unwrap_err();
    assert!(matches!(error, GroupError::NotLeader { leader: Some(_), .. }), "{error}");
}

#[test]
fn a_later_call_overrides_an_earlier_one() {
    let world = World::with_group(44, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let (slow, quick) = ((leader + 1) % 3, (leader + 2) % 3);
    let to_slow = world.member_on(leader, slow);
    world.sim.pause(&world.nodes[slow].env);
    let first = world.replace_leader_to(leader, to_slow);
    world.sim.run_for(50 * MS);
    let second = world.replace_leader(leader, Some(quick));
    world.end(second).unwrap();
    let first = world.end(first);
    assert!(
        matches!(first, Err(GroupError::TransferCancelled { to, .. }) if Some(to) == to_slow),
        "{first:?}"
    );
    world.sim.run_for(100 * MS);
    assert!(world.status(quick).ready);
    // The first message arrives at last, and changes nothing.
    let term = world.status(quick).term;
    world.sim.resume(&world.nodes[slow].env);
    world.sim.run_for(3 * SECOND);
    assert_eq!((world.leader(), world.status(quick).term), (quick, term));
}

#[test]
fn a_transfer_that_does_not_finish_is_given_up_within_an_election_timeout() {
    let mut world = World::with_group(45, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let slow = (leader + 1) % 3;
    let member = world.member_on(leader, slow).unwrap();
    world.sim.pause(&world.nodes[slow].env);
    let before = world.sim.elapsed();
    let moving = world.replace_leader_to(leader, Some(member));
    let mut client = world.client();
    let command = world.sim.spawn(async move { client.add("a", 1).await });
    let error = world.end(moving).unwrap_err();
    assert_eq!(error, GroupError::TransferTimedOut { group: GROUP, to: member, limit_ms: 600 });
    assert!(world.sim.elapsed() - before <= 660 * MS, "{:?}", world.sim.elapsed() - before);
    assert_eq!(world.run(SECOND, command), Some(1));
    world.sim.run_for(100 * MS);
    assert!(world.status(leader).leased, "rounds sent after the end count again");
}

#[test]
fn a_leader_has_no_lease_from_its_call_until_a_round_that_it_sent_after_the_cancel() {
    let world = World::with_group(46, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let slow = (leader + 1) % 3;
    assert!(world.status(leader).leased);
    let member = world.member_on(leader, slow);
    world.sim.pause(&world.nodes[slow].env);
    let moving = world.replace_leader_to(leader, member);
    world.sim.run_for(MS);
    for _ in 0..40 {
        assert!(!world.status(leader).leased);
        world.sim.run_for(10 * MS);
    }
    let kept = world.replace_leader_to(leader, None);
    world.end(kept).unwrap();
    assert!(!world.status(leader).leased, "rounds from before the cancel do not count");
    world.sim.run_for(60 * MS);
    assert!(world.status(leader).leased);
    drop(moving);
}

/// The message to the successor was under way when the transfer was called back: the successor asks for votes at the
/// leader's wish, while the leader answers queries under a new lease.
#[test]
fn a_transfer_message_that_comes_after_the_cancel_deposes_no_leader_with_a_lease() {
    for seed in 50..80 {
        let mut world = World::with_group(seed, 5);
        // The target holds everything, so that the message to it leaves at once.
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let to = (leader + 1) % 5;
        let member = world.member_on(leader, to);
        world.sim.pause(&world.nodes[to].env);
        let moving = world.replace_leader_to(leader, member);
        world.sim.run_for(Duration::from_millis(1 + seed % 30));
        let kept = world.replace_leader_to(leader, None);
        world.end(kept).unwrap();
        world.end(moving).unwrap_err();
        // Rounds that follow the cancel reach a majority, but not the target.
        world.sim.run_for(60 * MS);
        assert!(world.status(leader).leased, "seed {seed}");
        let mut client = world.client();
        world.sim.resume(&world.nodes[to].env);
        for _ in 0..25 {
            let leased = (0..5).filter(|node| world.status(*node).leased).count();
            assert!(leased <= 1, "seed {seed}");
            world.sim.run_for(MS);
        }
        let term = world.status(leader).term;
        let elected = (0..5).any(|node| node != leader && world.status(node).role == Role::Leader);
        assert!(!elected, "seed {seed}: others were bound by what they acknowledged since (term {term})");
        assert_eq!(world.run(10 * SECOND, async move { client.add("a", 1).await }), 1);
    }
}

/// The leader hears nothing of the election that it has asked for: whoever answers queries must be the new one.
#[test]
fn a_leader_that_does_not_hear_of_its_successor_answers_nothing_stale() {
    for seed in 80..100 {
        let mut world = World::new(seed, 3);
        world.config = GroupConfig { promise_ms: 600, ..GroupConfig::default() };
        world.found(0);
        world.add_voter(0, 1);
        world.add_voter(0, 2);
        let moving = world.replace_leader(0, Some(1));
        world.sim.run_for(MS / 2);
        // What it has sent gets through, and nothing comes back.
        let (others, here) =
            ([world.nodes[1].address(), world.nodes[2].address()], [world.nodes[0].address()]);
        world.sim.partition_one_way(&others, &here);
        world.sim.run_for(20 * MS);
        let host = world.nodes[1].host.clone();
        let mut client = world.client();
        client.favourite = 1;
        assert_eq!(world.run(SECOND, async move { client.add("a", 7).await }), 7, "seed {seed}: 1 leads");
        let old = world.nodes[0].host.clone();
        let answer = world
            .run(5 * SECOND, async move { old.query(GROUP, Freshness::Latest, encode(&()), 100 * MS).await });
        let silent = matches!(answer, Err(QueryError::Timeout { .. } | QueryError::NotLeader { .. }));
        assert!(silent, "seed {seed}: {answer:?}");
        let fresh = world.run(SECOND, async move {
            host.query(GROUP, Freshness::Latest, encode(&()), SECOND).await.unwrap()
        });
        let fresh: Counters = postcard::from_bytes(&fresh).unwrap();
        assert_eq!(fresh.counts["a"], 7);
        drop(moving);
    }
}

/// A leader's process that ended was missed for an election timeout, although its system tells at once.
#[test]
fn a_leader_whose_death_is_told_is_replaced_when_the_promises_end() {
    let mut longest = std::time::Duration::ZERO;
    for seed in 0..40 {
        let mut world = World::with_group(seed, 3);
        let mut client = world.client();
        world.run(5 * SECOND, async move { client.add("a", 1).await });
        let leader = world.leader();
        world.sim.run_for((seed as u32 * 7) * MS);
        world.kill(leader);
        let start = world.sim.elapsed();
        let mut led = false;
        while !led && world.sim.elapsed() - start < 2 * SECOND {
            world.sim.run_for(5 * MS);
            led = (0..3).filter(|node| *node != leader).any(|node| world.status(node).ready);
        }
        assert!(led, "seed {seed}: nobody leads");
        longest = longest.max(world.sim.elapsed() - start);
    }
    // A promise of 200 ms, a turn of 25, and the votes; an election timeout is at least 600.
    assert!(longest < 300 * MS, "{longest:?}");
}

/// Where a vote came onto the disk later than the election timeout ended, every candidate gave up before it had the votes,
/// for ever: a group of four voters, one of which was gone, had no leader after 239 terms.
#[test]
fn a_leader_is_elected_where_votes_take_longer_than_the_election_timeout() {
    let mut longest = Duration::ZERO;
    for seed in 0..20 {
        let mut world = World::empty(seed);
        world.config = GroupConfig {
            heartbeat_ms: 10,
            promise_ms: 10,
            clock_drift_margin_ms: 0,
            election_timeout_min_ms: 20,
            election_timeout_max_ms: 30,
            ..GroupConfig::default()
        };
        world.sync_takes = 25 * MS;
        world.start_durable_nodes(3);
        world.found_on_all();
        let leader = world.leader();
        world.cut_off(leader);
        let start = world.sim.elapsed();
        let others = || (0..3).filter(|node| *node != leader);
        while !others().any(|node| world.status(node).ready) {
            assert!(world.sim.elapsed() - start < 10 * SECOND, "seed {seed}: nobody leads");
            world.sim.run_for(5 * MS);
        }
        longest = longest.max(world.sim.elapsed() - start);
    }
    assert!(longest < SECOND, "{longest:?}");
}
