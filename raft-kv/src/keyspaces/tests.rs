//! The list of keyspaces and their moves.

use raft_fleet::rafted_value::{GroupConfig, NodeId, encode};

use super::*;
use crate::key_range::KeyRange;

const CONTEXT: CommandContext = CommandContext { now_ms: 1, index: 1, seed: 1 };

fn name(name: &str) -> KeyspaceName {
    KeyspaceName::new(name).unwrap()
}

fn listed(list: &Keyspaces, query: KeyspacesQuery) -> Vec<Keyspace> {
    whole(list, query).keyspaces
}

fn whole(list: &Keyspaces, query: KeyspacesQuery) -> Listed {
    match list.query(query) {
        KeyspacesAnswer::V1(listed) => listed,
        KeyspacesAnswer::Page { .. } => panic!("a page"),
    }
}

fn register(list: &mut Keyspaces, keyspace: &str, policy: KeyspacePolicy) -> KeyspacesReply {
    list.command(&CONTEXT, KeyspacesCommand::Register { name: name(keyspace), policy })
}

#[test]
fn a_registration_that_is_repeated_finds_the_keyspace_as_it_is() {
    let mut list = Keyspaces::default();
    let KeyspacesReply::Registered(first) = register(&mut list, "a", KeyspacePolicy::of("bytes")) else {
        panic!("not registered");
    };
    assert_eq!((first.generation, first.state), (1, KeyspaceState::Creating));
    let ready = KeyspacesCommand::MarkReady { name: name("a"), generation: 1 };
    assert_eq!(list.command(&CONTEXT, ready.clone()), KeyspacesReply::Ready);
    assert_eq!(list.command(&CONTEXT, ready), KeyspacesReply::Ready);
    let again = register(&mut list, "a", KeyspacePolicy::of("bytes"));
    assert_eq!(
        again,
        KeyspacesReply::Registered(Box::new(Keyspace { state: KeyspaceState::Ready, ..*first }))
    );
}

#[test]
fn a_keyspace_keeps_its_policy() {
    let mut list = Keyspaces::default();
    register(&mut list, "a", KeyspacePolicy::of("bytes"));
    let reply = register(&mut list, "a", KeyspacePolicy { shards: 3, ..KeyspacePolicy::of("bytes") });
    assert!(matches!(reply, KeyspacesReply::OtherPolicy(present) if present.policy.shards == 16));
}

#[test]
fn a_policy_that_cannot_work_registers_nothing() {
    let mut list = Keyspaces::default();
    let reply = register(&mut list, "a", KeyspacePolicy { shards: 0, ..KeyspacePolicy::of("bytes") });
    assert!(matches!(reply, KeyspacesReply::InvalidPolicy(_)));
    assert_eq!(listed(&list, KeyspacesQuery::List), []);
}

#[test]
fn only_the_generation_that_was_made_is_marked_ready() {
    let mut list = Keyspaces::default();
    register(&mut list, "a", KeyspacePolicy::of("bytes"));
    for (keyspace, generation) in [("a", 2), ("b", 1)] {
        let command = KeyspacesCommand::MarkReady { name: name(keyspace), generation };
        assert_eq!(list.command(&CONTEXT, command), KeyspacesReply::NoSuchKeyspace);
    }
    assert_eq!(listed(&list, KeyspacesQuery::Get { name: name("a") })[0].state, KeyspaceState::Creating);
    assert_eq!(listed(&list, KeyspacesQuery::Get { name: name("b") }), []);
}

fn policy() -> KeyspacePolicy {
    let group = GroupConfig {
        heartbeat_ms: 1,
        promise_ms: 2,
        clock_drift_margin_ms: 3,
        election_timeout_min_ms: 4,
        election_timeout_max_ms: 5,
        session_replies_max: 6,
        retry_window_max_ms: 7,
        command_bytes_max: 8,
        log_expansion_factor: 9,
        log_bytes_min: 10,
        durability: raft_fleet::Durability::Fsync,
    };
    let split_merge = SplitMergePolicy {
        min_shards: 1,
        max_shards: 14,
        max_keys: Some(3),
        max_size: None,
        max_load: Some(4),
        miss_load: 5,
        merge_percent: 6,
        cooling_ms: 7,
    };
    let (key_bytes_max, value_bytes_max) = (15, 16);
    KeyspacePolicy {
        value_type: "v".into(),
        shards: 1,
        replicas: 12,
        group,
        key_bytes_max,
        value_bytes_max,
        split_merge,
    }
}

/// Old logs and snapshots are read again.
#[test]
fn the_bytes_of_the_list_never_change() {
    let split_merge = [1, 14, 1, 3, 0, 1, 4, 5, 6, 7];
    let policy_bytes =
        [&[1, b'v', 1, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 15, 16][..], &split_merge].concat();
    let check = |command: KeyspacesCommand, bytes: &[u8]| {
        assert_eq!(postcard::to_stdvec(&command).unwrap(), bytes, "{command:?}");
    };
    let register = KeyspacesCommand::Register { name: name("n"), policy: policy() };
    check(register, &[&[0, 1, b'n'][..], &policy_bytes].concat());
    check(KeyspacesCommand::MarkReady { name: name("n"), generation: 13 }, &[1, 1, b'n', 13]);
    check(KeyspacesCommand::Deregister { name: name("n") }, &[2, 1, b'n']);
    let set = KeyspacesCommand::SetPolicy { name: name("n"), policy: policy().split_merge };
    check(set, &[&[3, 1, b'n'][..], &split_merge].concat());
    let split = KeyspacesCommand::Split { name: name("n"), generation: 2, shard: 3, at: 4, moves_max: 5 };
    check(split, &[4, 1, b'n', 2, 3, 4, 5]);
    let merge = KeyspacesCommand::Merge { name: name("n"), generation: 2, from: 3, to: 4, moves_max: 5 };
    check(merge, &[5, 1, b'n', 2, 3, 4, 5]);
    let (node, gone) = (NodeId(7), Some(NodeId(8)));
    check(KeyspacesCommand::Claim { node, gone, lease_ms: 9 }, &[6, 7, 1, 8, 9]);
    let report = |report| KeyspacesCommand::Report { id: 1, epoch: 2, report };
    check(report(MoveReport::AtWork { lease_ms: 9 }), &[7, 1, 2, 0, 9]);
    check(report(MoveReport::Moved), &[7, 1, 2, 1]);
    check(report(MoveReport::Abort("r".into())), &[7, 1, 2, 2, 1, b'r']);
    check(report(MoveReport::Ended), &[7, 1, 2, 3]);
    check(KeyspacesCommand::Resume { id: 1, epoch: 2, node, lease_ms: 9 }, &[8, 1, 2, 7, 9]);
    check(KeyspacesCommand::DeregisterThis { name: name("n"), generation: 3 }, &[9, 1, b'n', 3]);
    let page = |after: Option<&str>| KeyspacesQuery::Page { after: after.map(name) };
    assert_eq!(encode(&page(None))[..], [3, 0]);
    assert_eq!(encode(&page(Some("n")))[..], [3, 1, 1, b'n']);
    let listed = Listed { generation: 4, ..Listed::default() };
    assert_eq!(encode(&KeyspacesAnswer::Page { listed, more: true })[..], [1, 0, 4, 0, 1]);

    let mut list = Keyspaces::default();
    register_ready(&mut list, "n", policy());
    let split = KeyspacesCommand::Split { name: name("n"), generation: 1, shard: 0, at: 4, moves_max: 5 };
    assert!(matches!(list.command(&CONTEXT, split), KeyspacesReply::Moving(_)));
    let all = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let stored = [
        &[0, 1, 1, b'n'][..],
        &policy_bytes,
        &[1, 1, 1, 0, 0],
        &all,
        &[0, 0, 0, 2],
        &policy_bytes,
        &[1, 1, 1, 1, b'n', 1, 0, 0, 1, 4],
        &all,
        &[0, 0, 0, 0, 1],
    ]
    .concat();
    let bytes = postcard::to_stdvec(&list).unwrap();
    assert_eq!(bytes, stored);
    let again: Keyspaces = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(again.query(KeyspacesQuery::List), list.query(KeyspacesQuery::List));
}

fn register_ready(list: &mut Keyspaces, keyspace: &str, policy: KeyspacePolicy) -> u64 {
    let KeyspacesReply::Registered(registered) = register(list, keyspace, policy) else {
        panic!("not registered");
    };
    let generation = registered.generation;
    let ready = KeyspacesCommand::MarkReady { name: name(keyspace), generation };
    assert_eq!(list.command(&CONTEXT, ready), KeyspacesReply::Ready);
    generation
}

fn at(now_ms: u64) -> CommandContext {
    CommandContext { now_ms, ..CONTEXT }
}

fn split(list: &mut Keyspaces, shard: u32, at: u64) -> KeyspacesReply {
    let command = KeyspacesCommand::Split { name: name("a"), generation: 1, shard, at, moves_max: 2 };
    list.command(&CONTEXT, command)
}

fn merge(list: &mut Keyspaces, from: u32, to: u32) -> KeyspacesReply {
    let command = KeyspacesCommand::Merge { name: name("a"), generation: 1, from, to, moves_max: 2 };
    list.command(&CONTEXT, command)
}

fn claim(list: &mut Keyspaces, now_ms: u64) -> KeyspacesReply {
    claim_from(list, now_ms, 1, None)
}

fn claim_from(list: &mut Keyspaces, now_ms: u64, node: u64, gone: Option<u64>) -> KeyspacesReply {
    let (node, gone) = (NodeId(node), gone.map(NodeId));
    list.command(&at(now_ms), KeyspacesCommand::Claim { node, gone, lease_ms: 100 })
}

fn report(list: &mut Keyspaces, now_ms: u64, epoch: u64, report: MoveReport) -> KeyspacesReply {
    list.command(&at(now_ms), KeyspacesCommand::Report { id: 1, epoch, report })
}

fn four() -> KeyspacePolicy {
    let split_merge = SplitMergePolicy { max_shards: 5, min_shards: 3, ..SplitMergePolicy::default() };
    KeyspacePolicy { shards: 4, split_merge, ..KeyspacePolicy::of("bytes") }
}

#[test]
fn a_move_is_held_by_one_performer_and_another_takes_it_over_when_that_is_silent() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    let middle = KeyRange::part(1, 4).first() + 10;
    let KeyspacesReply::Moving(started) = split(&mut list, 1, middle) else { panic!("it does not begin") };
    assert_eq!((started.from, started.to, started.range.first()), (1, 4, middle));
    assert!(matches!(claim(&mut list, 10), KeyspacesReply::Moving(claimed) if claimed.epoch == 1));
    assert_eq!(claim(&mut list, 100), KeyspacesReply::NoMove);
    assert!(matches!(
        report(&mut list, 100, 1, MoveReport::AtWork { lease_ms: 100 }),
        KeyspacesReply::Moving(_)
    ));
    assert_eq!(claim(&mut list, 150), KeyspacesReply::NoMove);
    assert!(matches!(claim(&mut list, 201), KeyspacesReply::Moving(claimed) if claimed.epoch == 2));
    for stale in [MoveReport::AtWork { lease_ms: 100 }, MoveReport::Moved, MoveReport::Ended] {
        assert_eq!(report(&mut list, 202, 1, stale), KeyspacesReply::NoMove);
    }
    assert!(matches!(report(&mut list, 203, 2, MoveReport::Moved), KeyspacesReply::Moving(_)));
    let shards = listed(&list, KeyspacesQuery::List)[0].shards.clone();
    let numbers: Vec<u32> = shards.iter().map(|shard| shard.number).collect();
    assert_eq!(numbers, [0, 1, 4, 2, 3]);
    assert_eq!(shards[1].range.joined(shards[2].range), Some(KeyRange::part(1, 4)));
    assert!(matches!(report(&mut list, 300, 2, MoveReport::Ended), KeyspacesReply::Moving(_)));
    let shards = listed(&list, KeyspacesQuery::List)[0].shards.clone();
    let changed: Vec<u64> = shards.iter().map(|shard| shard.changed_ms).collect();
    assert_eq!(changed, [0, 300, 300, 0, 0]);
    assert_eq!(claim(&mut list, 9999), KeyspacesReply::NoMove);
}

/// A range whose performer died while nobody served it once waited for the end of its lease.
#[test]
fn a_move_is_taken_from_a_performer_that_is_known_to_be_gone_and_from_no_other() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    split(&mut list, 1, KeyRange::part(1, 4).first() + 10);
    assert_eq!(claim_from(&mut list, 5, 3, Some(1)).performer(), Some((3, 1)), "nobody performed it");
    assert_eq!(claim_from(&mut list, 10, 2, Some(1)), KeyspacesReply::NoMove);
    assert_eq!(claim_from(&mut list, 10, 2, None), KeyspacesReply::NoMove);
    assert_eq!(claim_from(&mut list, 10, 2, Some(3)).performer(), Some((2, 2)));
    assert_eq!(claim_from(&mut list, 10, 1, Some(3)), KeyspacesReply::NoMove, "the next one comes too late");
    assert_eq!(report(&mut list, 11, 1, MoveReport::Moved), KeyspacesReply::NoMove);
    let listed = whole(&list, KeyspacesQuery::Moves);
    assert_eq!((listed.keyspaces.len(), listed.moves.len()), (0, 1));
}

impl KeyspacesReply {
    /// Who performs the move, and which epoch it is.
    fn performer(&self) -> Option<(u64, u64)> {
        let KeyspacesReply::Moving(moving) = self else { return None };
        moving.performer.map(|performer| (performer.0, moving.epoch))
    }
}

/// A node that started again could once take its first move only, and the others waited for the ends of their leases.
#[test]
fn a_move_is_given_back_to_the_node_that_has_forgotten_it_and_to_no_other() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    split(&mut list, 1, KeyRange::part(1, 4).first() + 10);
    merge(&mut list, 2, 3);
    for _ in 0..2 {
        assert_eq!(claim(&mut list, 10).performer(), Some((1, 1)));
    }
    let resume = |list: &mut Keyspaces, id, epoch, node| {
        list.command(&at(20), KeyspacesCommand::Resume { id, epoch, node: NodeId(node), lease_ms: 100 })
    };
    for (id, epoch, node) in [(1, 1, 2), (1, 2, 1), (1, 0, 1), (3, 1, 1)] {
        assert_eq!(resume(&mut list, id, epoch, node), KeyspacesReply::NoMove, "{id} {epoch} {node}");
    }
    for id in [2, 1] {
        assert_eq!(resume(&mut list, id, 1, 1).performer(), Some((1, 2)));
        assert_eq!(resume(&mut list, id, 1, 1), KeyspacesReply::NoMove, "once is enough");
    }
    assert_eq!(claim(&mut list, 120), KeyspacesReply::NoMove, "it has its lease");
    assert_eq!(
        report(&mut list, 30, 1, MoveReport::Moved),
        KeyspacesReply::NoMove,
        "the earlier life is over"
    );
}

/// In the original an aborted workflow left its shards locked for ever (fault 12): here a move that aborts is still a
/// move, which somebody performs until both shards are free.
#[test]
fn an_abort_is_performed_to_its_end_by_whoever_claims_it() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    split(&mut list, 1, KeyRange::part(1, 4).first() + 10);
    claim(&mut list, 10);
    report(&mut list, 20, 1, MoveReport::Abort("no room".into()));
    assert_eq!(merge(&mut list, 1, 2), refused(MoveRefusal::ShardMoves(1)));
    let KeyspacesReply::Moving(claimed) = claim(&mut list, 500) else { panic!("nobody goes on") };
    assert_eq!(claimed.phase, MovePhase::Aborting("no room".into()));
    report(&mut list, 510, 2, MoveReport::Ended);
    assert_eq!(listed(&list, KeyspacesQuery::List)[0].shards.len(), 4);
    assert!(matches!(merge(&mut list, 1, 2), KeyspacesReply::Moving(_)));
}

fn refused(refusal: MoveRefusal) -> KeyspacesReply {
    KeyspacesReply::MoveRefused(refusal)
}

#[test]
fn a_move_that_cannot_be_is_refused_by_name() {
    let mut list = Keyspaces::default();
    assert_eq!(split(&mut list, 1, 5), KeyspacesReply::NoSuchKeyspace);
    register(&mut list, "a", four());
    assert_eq!(split(&mut list, 1, 5), refused(MoveRefusal::StillCreating));
    let ready = KeyspacesCommand::MarkReady { name: name("a"), generation: 1 };
    list.command(&CONTEXT, ready);
    assert_eq!(split(&mut list, 9, 5), refused(MoveRefusal::NoSuchShard(9)));
    let range = KeyRange::part(1, 4);
    for at in [5, range.first(), range.last() + 1] {
        assert_eq!(split(&mut list, 1, at), refused(MoveRefusal::NotInRange { shard: 1, range, at }));
    }
    assert_eq!(merge(&mut list, 0, 2), refused(MoveRefusal::NoSuchShard(2)));
    assert_eq!(merge(&mut list, 0, 0), refused(MoveRefusal::NoSuchShard(0)));
    assert!(matches!(split(&mut list, 1, range.first() + 5), KeyspacesReply::Moving(_)));
    assert_eq!(split(&mut list, 1, range.first() + 6), refused(MoveRefusal::ShardMoves(1)));
    assert_eq!(split(&mut list, 0, 6), refused(MoveRefusal::ShardLimit { shards: 5 }));
    assert!(matches!(merge(&mut list, 2, 3), KeyspacesReply::Moving(_)));
    let third = KeyspacesCommand::Split { name: name("a"), generation: 1, shard: 0, at: 6, moves_max: 2 };
    assert_eq!(list.command(&CONTEXT, third), refused(MoveRefusal::TooManyMoves { moves: 2 }));
    claim(&mut list, 10);
}

/// In the original the keyspaces group itself died of this (fault 11).
#[test]
fn a_keyspace_may_be_deregistered_while_its_shards_move() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    split(&mut list, 1, KeyRange::part(1, 4).first() + 10);
    claim(&mut list, 10);
    let deregister = KeyspacesCommand::Deregister { name: name("a") };
    let gone = KeyspacesReply::Deregistered { generation: 1, next_shard: 5 };
    assert_eq!(list.command(&at(20), deregister.clone()), gone);
    assert_eq!(list.command(&at(20), deregister), KeyspacesReply::NoSuchKeyspace);
    for late in [MoveReport::Moved, MoveReport::Abort("late".into()), MoveReport::Ended] {
        assert_eq!(report(&mut list, 30, 1, late), KeyspacesReply::NoMove);
    }
    assert_eq!(claim(&mut list, 9999), KeyspacesReply::NoMove);
    assert_eq!(register_ready(&mut list, "a", four()), 2);
    assert_eq!(listed(&list, KeyspacesQuery::List)[0].shards.len(), 4);
}

#[test]
fn groups_that_are_nobodys_are_told_from_those_in_use() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    register_ready(&mut list, "b", four());
    list.command(&CONTEXT, KeyspacesCommand::Deregister { name: name("b") });
    split(&mut list, 1, KeyRange::part(1, 4).first() + 10);
    let stray = |list: &Keyspaces, group: &str| {
        whole(list, KeyspacesQuery::List).is_stray(&GroupName::new(group).unwrap())
    };
    for used in
        ["kv/a/1.0", "kv/a/1.3", "kv/a/1.4", "kv/a/1.5", "kv/a/3.0", "kv/c/3.0", "kv-keyspaces", "mine"]
    {
        assert!(!stray(&list, used), "{used}");
    }
    for gone in ["kv/b/2.0", "kv/a/0.1", "kv/c/1.0"] {
        assert!(stray(&list, gone), "{gone}");
    }
    claim(&mut list, 10);
    report(&mut list, 20, 1, MoveReport::Abort("no room".into()));
    assert!(!stray(&list, "kv/a/1.4"));
    report(&mut list, 20, 1, MoveReport::Ended);
    assert!(stray(&list, "kv/a/1.4"), "the shard that an aborted split would have made");
}

#[test]
fn a_policy_is_changed_and_whoever_registers_with_the_first_one_finds_the_keyspace() {
    let mut list = Keyspaces::default();
    register_ready(&mut list, "a", four());
    let wanted = SplitMergePolicy { max_keys: Some(10), ..SplitMergePolicy::default() };
    let set = |policy| KeyspacesCommand::SetPolicy { name: name("a"), policy };
    let reply = list.command(&CONTEXT, set(wanted.clone()));
    assert!(matches!(reply, KeyspacesReply::PolicySet(present) if present.policy.split_merge == wanted));
    let reply = list.command(&CONTEXT, set(SplitMergePolicy { min_shards: 0, ..wanted.clone() }));
    assert!(matches!(reply, KeyspacesReply::InvalidPolicy(_)));
    let reply = register(&mut list, "a", four());
    assert!(matches!(reply, KeyspacesReply::Registered(present) if present.policy.split_merge == wanted));
    let missing = KeyspacesCommand::SetPolicy { name: name("b"), policy: wanted };
    assert_eq!(list.command(&CONTEXT, missing), KeyspacesReply::NoSuchKeyspace);
}

/// A reply that was lost once had the command sent again, and it removed the keyspace that had got the name meanwhile.
#[test]
fn a_keyspace_that_got_the_name_of_one_that_is_removed_stays() {
    let mut list = Keyspaces::default();
    let remove = |generation| KeyspacesCommand::DeregisterThis { name: name("a"), generation };
    assert_eq!(register_ready(&mut list, "a", four()), 1);
    let gone = KeyspacesReply::Deregistered { generation: 1, next_shard: 4 };
    assert_eq!(list.command(&at(20), remove(1)), gone);
    assert_eq!(register_ready(&mut list, "a", four()), 2);
    assert_eq!(list.command(&at(30), remove(1)), KeyspacesReply::NoSuchKeyspace);
    assert_eq!(listed(&list, KeyspacesQuery::List)[0].generation, 2);
}

/// All of them were once in one answer, which no message held: no move was performed any more, and nobody could list them.
#[test]
fn a_list_of_any_length_is_read_in_pages_that_a_message_holds() {
    let mut list = Keyspaces::default();
    let policy = KeyspacePolicy { shards: KeyspacePolicy::SHARDS_MAX, ..KeyspacePolicy::of("bytes") };
    for n in 0..50 {
        register_ready(&mut list, &format!("{n:03}"), policy.clone());
    }
    for n in [3, 40] {
        let merge = |name| KeyspacesCommand::Merge { name, generation: n + 1, from: 0, to: 1, moves_max: 4 };
        let started = list.command(&CONTEXT, merge(name(&format!("{n:03}"))));
        assert!(matches!(started, KeyspacesReply::Moving(_)), "{started:?}");
    }
    let whole = whole(&list, KeyspacesQuery::List);
    assert!(encode(&whole).len() > 4 << 20, "it is too much for one message");
    let (mut joined, mut after) = (Listed { generation: list.generation, ..Listed::default() }, None);
    loop {
        let answer = list.query(KeyspacesQuery::Page { after });
        assert!(encode(&answer).len() <= PAGE_BYTES_MAX, "a page is too large");
        let KeyspacesAnswer::Page { listed, more } = answer else { panic!("{answer:?}") };
        after = listed.keyspaces.last().map(|keyspace| keyspace.name.clone());
        joined.join(listed);
        if !more {
            break;
        }
    }
    assert_eq!(joined, whole);
}
