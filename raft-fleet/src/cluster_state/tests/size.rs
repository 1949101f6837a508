//! How large the state may become, and that what is said of its size is never too little.

use rafted_value::Durability;

use super::*;
use crate::placement::WEIGHT_MAX;

/// The largest answer of a value.
const ANSWER_BYTES_MAX: usize = (4 << 20) - 64;

fn bytes(state: &ClusterState) -> usize {
    encode(&ClusterAnswer::State(Box::new(state.clone()))).len()
}

fn check(state: &ClusterState) {
    let (encoded, said) = (bytes(state) as u64, state.bytes_max());
    assert!(encoded <= said, "{encoded} bytes, and {said} are said");
}

/// A formed cluster of nodes whose ids are as long as ids are.
fn wide(nodes: u64) -> ClusterState {
    let mut state = ClusterState::default();
    let nodes = (1..=nodes).map(|node| NodeInfo { node: wide_id(node), ..info(node) }).collect();
    let form = ClusterCommand::Form { cluster: ClusterId(u128::MAX), nodes, cluster_members_max: 7 };
    assert_eq!(state.apply(0, form), ClusterReply::Done);
    state
}

fn wide_id(node: u64) -> NodeId {
    NodeId(u64::MAX - node)
}

fn long(number: usize, name_bytes: usize) -> GroupName {
    name(&format!("{number:0name_bytes$}"))
}

/// Adds groups until one is refused for the size of the state, and says how many there are then. All but the last ones are put
/// there as they would be listed, all in use.
fn fill(state: &mut ClusterState, name_bytes: usize) -> usize {
    let config = GroupConfig::default();
    let one = state.group_bytes(&long(0, name_bytes), "d", 3, &config, None);
    let fit = (CLUSTER_STATE_BYTES_MAX - state.bytes_max()) / one;
    let mut number = fit as usize - 8;
    for group in 0..number {
        let (id, config) = (GroupId(state.next_group), config.clone());
        let entry = GroupEntry { id, data: "d".into(), replicas: 3, config, state: GroupState::Running };
        state.groups.insert(long(group, name_bytes), entry);
        state.next_group += 1;
    }
    loop {
        let name = long(number, name_bytes);
        match add(state, name.as_str()) {
            ClusterReply::GroupAdded { id, .. } => {
                assert_eq!(state.apply(0, ClusterCommand::GroupReady { name, id }), ClusterReply::Done);
                number += 1;
            }
            ClusterReply::Refused(ClusterRefusal::TooManyBytes { bytes, limit_bytes }) => {
                assert!(bytes > limit_bytes && limit_bytes == CLUSTER_STATE_BYTES_MAX);
                return number;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Nobody counted bytes, and long before there were as many groups as there may be the state fitted no message any more: no
/// node learnt of any change from then on. Groups that were removed made it larger still.
#[test]
fn a_state_that_takes_no_more_groups_fits_a_message_also_when_all_of_them_are_removed() {
    let cases = [(3, 8, 40_000), (100, 255, 5_000), (1024, 255, 3_000)];
    for (nodes, name_bytes, at_least) in cases {
        let mut state = wide(nodes);
        let groups = fill(&mut state, name_bytes);
        assert!(groups >= at_least, "{groups} groups on {nodes} nodes");
        let fits = |state: &ClusterState| {
            check(state);
            assert!(bytes(state) <= ANSWER_BYTES_MAX, "{} bytes on {nodes} nodes", bytes(state));
        };
        fits(&state);
        let revision = state.revision();
        assert!(matches!(add(&mut state, long(groups, name_bytes).as_str()), ClusterReply::Refused(_)));
        assert_eq!(state.revision(), revision, "a refusal changes nothing");
        // Some at once, and the others when those are cleaned up.
        let (mut removed, mut waits) = (0, 0);
        while removed < 60 {
            match state.apply(0, ClusterCommand::RemoveGroup { name: long(removed, name_bytes) }) {
                ClusterReply::GroupRemoved { .. } => removed += 1,
                ClusterReply::Refused(ClusterRefusal::TooManyBytes { .. }) => {
                    assert!(!state.removed().is_empty(), "nothing is waited for");
                    waits += 1;
                    fits(&state);
                    for kept in state.kept.values_mut() {
                        kept.holders = (1..=3).map(|node| (wide_id(node), u64::MAX)).collect();
                    }
                    fits(&state);
                    state.removed.clear();
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(nodes == 1024, waits > 0, "{waits} waits on {nodes} nodes");
        fits(&state);
        assert!(
            matches!(add(&mut state, long(groups, name_bytes).as_str()), ClusterReply::Refused(_)),
            "nor in their place"
        );
        state.removed.clear();
        state.kept.clear();
        assert!(matches!(
            add(&mut state, long(groups, name_bytes).as_str()),
            ClusterReply::GroupAdded { .. }
        ));
    }
}

/// A state that had grown past its limit, by nodes that joined, once refused the very commands that make it smaller.
#[test]
fn groups_can_be_removed_however_large_the_state_has_become() {
    let mut state = wide(3);
    let groups = fill(&mut state, 255);
    for entry in state.groups.values_mut() {
        entry.replicas = u32::MAX;
    }
    for node in 4..=40 {
        let entry = state.nodes[&wide_id(1)].clone();
        state.nodes.insert(wide_id(node), entry);
    }
    assert!(state.bytes_max() > 2 * CLUSTER_STATE_BYTES_MAX);
    for group in 0..groups.min(20) {
        let name = long(group, 255);
        let command = match group % 2 {
            0 => ClusterCommand::RemoveGroup { name },
            _ => ClusterCommand::DeleteGroup { name },
        };
        assert!(matches!(state.apply(0, command), ClusterReply::GroupRemoved { .. }));
        // Another one has to wait until its nodes have cleaned up.
        let next = ClusterCommand::DeleteGroup { name: long(group + 1, 255) };
        assert!(matches!(state.apply(0, next), ClusterReply::Refused(ClusterRefusal::TooManyBytes { .. })));
        state.removed.clear();
    }
}

/// What was kept went first: a group that was still being founded with it had nothing left to begin with, although nobody was
/// told that it was deleted.
#[test]
fn a_deletion_that_is_refused_leaves_what_was_kept() {
    let mut state = wide(3);
    let holders: Vec<(u64, u64)> = (1..=3).map(|node| (wide_id(node).0, 7)).collect();
    removed(&mut state, &holders);
    let (id, _) = added(&mut state, "g");
    fill(&mut state, 255);
    for entry in state.groups.values_mut().filter(|entry| entry.id != id) {
        entry.replicas = u32::MAX;
    }
    for node in 4..=40 {
        let entry = state.nodes[&wide_id(1)].clone();
        state.nodes.insert(wide_id(node), entry);
    }
    let other = ClusterCommand::RemoveGroup { name: long(0, 255) };
    assert!(matches!(state.apply(0, other), ClusterReply::GroupRemoved { .. }));
    let before = state.clone();
    assert_eq!(before.kept()[&name("g")].restored_as, Some(id));
    let delete = ClusterCommand::DeleteGroup { name: name("g") };
    let refused = state.apply(0, delete.clone());
    assert!(matches!(refused, ClusterReply::Refused(ClusterRefusal::TooManyBytes { .. })), "{refused:?}");
    assert_eq!((state.kept(), state.revision()), (before.kept(), before.revision()));
    assert!(state.groups().contains_key(&name("g")));
    // Once there is room it goes with all that it has left.
    state.removed.clear();
    assert_eq!(state.apply(0, delete), ClusterReply::GroupRemoved { id });
    assert!(!state.kept().contains_key(&name("g")));
}

#[test]
fn a_pin_past_the_limit_is_refused_and_one_to_fewer_zones_is_not() {
    let mut state = wide(3);
    fill(&mut state, 8);
    let zones = |count: usize| (0..count).map(|zone| format!("{zone:0255}")).collect::<BTreeSet<_>>();
    let mut pin = |zones| {
        let (name, revision) = (long(0, 8), state.revision());
        let reply = state.apply(0, ClusterCommand::Pin { name, zones });
        (reply, state.revision() > revision)
    };
    let (refused, changed) = pin(zones(PINS_MAX));
    assert!(matches!(refused, ClusterReply::Refused(ClusterRefusal::TooManyBytes { .. })), "{refused:?}");
    assert!(!changed);
    let short = pin(["z0".to_owned()].into());
    assert_eq!(short, (ClusterReply::Done, true), "the group leaves more than that when it is removed");
    assert_eq!(pin(BTreeSet::new()), (ClusterReply::Done, true));
}

/// Each part of it at its longest.
#[test]
fn what_is_said_of_the_size_is_never_too_little() {
    let mut state = wide(40);
    check(&state);
    let config = GroupConfig {
        heartbeat_ms: u32::MAX,
        promise_ms: u32::MAX,
        clock_drift_margin_ms: u32::MAX,
        election_timeout_min_ms: u32::MAX,
        election_timeout_max_ms: u32::MAX,
        session_replies_max: u64::MAX,
        retry_window_max_ms: u64::MAX,
        command_bytes_max: u64::MAX,
        log_expansion_factor: u32::MAX,
        log_bytes_min: u64::MAX,
        durability: Durability::Memory,
    };
    let durabilities = [Durability::Memory, Durability::Fsync];
    for group in 0..200 {
        let (name, data) = (long(group, 255), "d".repeat(255));
        let config = GroupConfig { durability: durabilities[group % 2], ..config.clone() };
        let zones = (0..group % PINS_MAX).map(|zone| format!("{zone:0255}")).chain(["z0".into()]).collect();
        let add =
            ClusterCommand::AddPinnedGroup { name: name.clone(), data, replicas: u32::MAX, config, zones };
        let ClusterReply::GroupAdded { id, .. } = state.apply(0, add) else { panic!("it is refused") };
        if group % 3 == 0 {
            state.apply(0, ClusterCommand::GroupReady { name, id });
        }
    }
    check(&state);
    for node in 2..40 {
        let (node, by) = (wide_id(node), wide_id(1));
        state.apply(u64::MAX, ClusterCommand::Suspect { node, by, silent_ms: 0 });
        state.apply(0, ClusterCommand::Weigh { node, weight: WEIGHT_MAX });
        state.lives.insert(node, Life { number: u64::MAX, mark: u64::MAX });
    }
    assert_eq!((state.suspects().len(), state.weights.len()), (38, 38));
    check(&state);
    for group in (0..200).filter(|group| group % 3 != 1) {
        state.apply(0, ClusterCommand::RemoveGroup { name: long(group, 255) });
    }
    assert!(!state.kept().is_empty() && !state.removed().is_empty() && !state.groups().is_empty());
    check(&state);
    for kept in state.kept.values_mut() {
        kept.holders = (1..60).map(|node| (wide_id(node), u64::MAX)).collect();
    }
    check(&state);
    state.removed.clear();
    check(&state);
}
