//! What this crate offers that belongs to no other file of tests; the whole table is `tests/features.md`.

use crate::support::{Change, GROUP, MS, SECOND, World, stale};
use futures_util::future::join_all;
use rafted_value::env::Env;
use rafted_value::{
    ClientSession, Command, CommandError, Found, Freshness, GroupConfig, GroupId, NotApplied, QueryError,
    Role, SessionId, Unknown, encode,
};

fn command(env: &dyn Env, change: &Change) -> Command {
    let mut session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
    session.begin(env.wall_ms() + 60_000, 0, encode(change)).expect("nothing else waits")
}

fn send(world: &World, node: usize, group: GroupId, command: Command) -> Result<bytes::Bytes, CommandError> {
    let host = world.nodes[node].host.clone();
    world.run(5 * SECOND, async move { host.command(group, command, SECOND).await })
}

#[test]
fn every_refusal_of_a_command_says_that_nothing_was_applied() {
    let mut world = World::empty(1);
    world.config = GroupConfig {
        command_bytes_max: 1_000,
        session_replies_max: 4,
        retry_window_max_ms: 100_000,
        ..GroupConfig::default()
    };
    world.host_config.group_waiting_max = 4;
    for _ in 0..3 {
        world.start_node();
    }
    world.found_on_all();
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    let env = world.nodes[leader].env.clone();
    let add = || command(env.as_ref(), &Change::Add("a".into(), 1));
    let refused = |node, group, command| match send(&world, node, group, command) {
        Err(CommandError::NotApplied(why)) => why,
        other => panic!("{other:?}"),
    };
    let hint = Some(world.nodes[leader].id());
    assert_eq!(refused(follower, GROUP, add()), NotApplied::NotLeader { group: GROUP, leader: hint });
    let stranger = GroupId(5);
    assert_eq!(refused(leader, stranger, add()), NotApplied::NoSuchGroup(stranger));
    let large = command(env.as_ref(), &Change::Add("x".repeat(2_000), 1));
    assert!(matches!(refused(leader, GROUP, large), NotApplied::TooLarge { limit_bytes: 1_000, .. }));
    let long = Command { retry_until_ms: env.wall_ms() + 200_000, ..add() };
    assert!(matches!(refused(leader, GROUP, long), NotApplied::RetryWindowTooLong { limit_ms: 100_000, .. }));
    let backwards = Command { sequence: 1, acknowledged: 2, ..add() };
    assert!(matches!(refused(leader, GROUP, backwards), NotApplied::Malformed(_)));
    let garbage = Command { payload: bytes::Bytes::from_static(&[255; 9]), ..add() };
    assert!(matches!(refused(leader, GROUP, garbage), NotApplied::Refused(_)));
    // More at a time than may wait: the others go through.
    let host = world.nodes[leader].host.clone();
    let flood: Vec<Command> = (0..20).map(|_| add()).collect();
    let sent = flood.into_iter().map(move |command| {
        let host = host.clone();
        async move { host.command(GROUP, command, SECOND).await }
    });
    let answers = world.run(5 * SECOND, join_all(sent));
    let overloaded = |answer: &&Result<_, CommandError>| {
        matches!(answer, Err(CommandError::NotApplied(NotApplied::Overloaded { retry_after_ms: 1.. })))
    };
    assert!(answers.iter().filter(overloaded).count() >= 10, "{answers:?}");
    // The table of sessions has room for four replies, which nobody acknowledges.
    assert!(matches!(refused(leader, GROUP, add()), NotApplied::SessionTableFull { limit: 4, .. }));
    let applied = answers.iter().filter(|answer| answer.is_ok()).count() as i64;
    world.sim.run_for(SECOND);
    let host = world.nodes[follower].host.clone();
    let value = world.run(SECOND, async move { stale(&host).await });
    assert_eq!(value.counts.get("a").copied().unwrap_or(0), applied, "{answers:?}");
    assert!((1..=4).contains(&applied), "{answers:?}");
}

#[test]
fn a_call_that_is_not_answered_in_time_says_so() {
    let world = World::with_group(2, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    world.cut_off(leader);
    let env = world.nodes[leader].env.clone();
    let command = command(env.as_ref(), &Change::Add("a".into(), 1));
    let host = world.nodes[leader].host.clone();
    let limit = 50 * MS;
    let answer = world.run(SECOND, async move { host.command(GROUP, command, limit).await });
    assert_eq!(
        answer,
        Err(CommandError::Unknown(Unknown::Timeout { limit_ms: 50 })),
        "it may be applied yet"
    );
    world.sim.run_for(200 * MS);
    let host = world.nodes[leader].host.clone();
    let latest =
        world.run(SECOND, async move { host.query(GROUP, Freshness::Latest, encode(&()), limit).await });
    assert_eq!(latest, Err(QueryError::Timeout { limit_ms: 50 }));
    // Whoever asks for an old value gets it, from any member that is there.
    for node in 0..3 {
        let host = world.nodes[node].host.clone();
        assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts.get("a"), None);
    }
}

/// The records of the sessions are in the snapshot that a new member begins with.
#[test]
fn a_command_sent_again_to_a_leader_that_came_by_snapshot_runs_once() {
    let mut world = World::with_group(3, 1);
    let env = world.nodes[0].env.clone();
    let command = command(env.as_ref(), &Change::Add("a".into(), 5));
    let first = send(&world, 0, GROUP, command.clone());
    world.start_node();
    world.add_voter(0, 1);
    world.sim.run_for(SECOND);
    let moved = world.replace_leader(0, Some(1));
    world.end(moved).unwrap();
    world.sim.run_for(100 * MS);
    assert_eq!(send(&world, 1, GROUP, command), first);
    let host = world.nodes[1].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 5);
}

#[test]
fn queries_take_no_entry_of_the_log() {
    for margin in [20, 1_000] {
        let mut world = World::empty(4);
        world.config = GroupConfig { clock_drift_margin_ms: margin, ..GroupConfig::default() };
        for _ in 0..3 {
            world.start_node();
        }
        world.found_on_all();
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let before = world.status(leader);
        assert_eq!(before.leased, margin < before.config.promise_ms);
        let mut client = world.client();
        world.run(10 * SECOND, async move {
            for _ in 0..100 {
                client.read().await;
            }
        });
        let after = world.status(leader);
        assert_eq!((after.last_index, after.term), (before.last_index, before.term));
    }
}

/// It hears nothing and is heard: it campaigns as a voter that it is no more.
#[test]
fn a_removed_member_that_does_not_know_it_unseats_nobody() {
    for seed in 10..20 {
        let mut world = World::with_group(seed, 4);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let removed = (leader + 1) % 4;
        let others: Vec<String> =
            (0..4).filter(|node| *node != removed).map(|node| world.nodes[node].address()).collect();
        world.sim.partition_one_way(&others, &[world.nodes[removed].address()]);
        let (host, member) = (world.nodes[leader].host.clone(), world.member_on(leader, removed).unwrap());
        world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await }).unwrap();
        let term = world.status(leader).term;
        let mut client = world.client();
        client.favourite = leader;
        let total = world.run(30 * SECOND, async move {
            for _ in 0..300 {
                client.add("a", 1).await;
                rafted_value::env::sleep(client.env.as_ref(), 20 * MS).await;
            }
            client.read().await.counts["a"]
        });
        assert_eq!(total, 300);
        assert_ne!(world.status(removed).role, Role::Leader);
        let status = world.status(leader);
        assert_eq!((status.role, status.term), (Role::Leader, term), "seed {seed}: it was unseated");
    }
}

/// Every group writes in the same turn: they share writes and syncs.
#[test]
fn a_hundred_groups_that_write_together_cost_few_syncs() {
    const GROUPS: u64 = 100;
    let mut world = World::empty(5);
    world.host_config.loops = 1;
    world.start_durable_nodes(1);
    let (host, node) = (world.nodes[0].host.clone(), world.nodes[0].id());
    for group in 1..=GROUPS {
        let config = GroupConfig::default();
        let found = Found { group: GroupId(group), data: "counters".into(), config, nodes: vec![node] };
        let host = host.clone();
        world.run(SECOND, async move { host.found(found).await }).unwrap();
    }
    world.sim.run_for(SECOND);
    let before = world.nodes[0].disk().syncs();
    let env = world.nodes[0].env.clone();
    let sent = (1..=GROUPS).map(|group| {
        let (host, command) = (host.clone(), command(env.as_ref(), &Change::Add("a".into(), 1)));
        async move { host.command(GroupId(group), command, SECOND).await }
    });
    let sent: Vec<_> = sent.collect();
    let answers = world.run(5 * SECOND, join_all(sent));
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let syncs = world.nodes[0].disk().syncs() - before;
    assert!((1..=5).contains(&syncs), "{syncs} syncs for {GROUPS} groups");
}
