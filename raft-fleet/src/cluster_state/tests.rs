//! What each command does to the cluster state, and that its bytes stay as they are.

mod founding;
mod size;

use proptest::prelude::*;
use rafted_value::encode;

use super::*;

const CLUSTER: ClusterId = ClusterId(7);

fn info(node: u64) -> NodeInfo {
    info_at(node, &format!("node-{node}"), &format!("host-{node}:1"))
}

fn info_at(node: u64, name: &str, address: &str) -> NodeInfo {
    NodeInfo {
        node: NodeId(node),
        name: name.into(),
        zone: format!("z{}", node % 2),
        address: address.into(),
    }
}

fn name(text: &str) -> GroupName {
    GroupName::new(text).unwrap()
}

fn formed(nodes: u64) -> ClusterState {
    let mut state = ClusterState::default();
    let nodes = (1..=nodes).map(info).collect();
    let form = ClusterCommand::Form { cluster: CLUSTER, nodes, cluster_members_max: 7 };
    assert_eq!(state.apply(0, form), ClusterReply::Done);
    state
}

fn join(state: &mut ClusterState, node: NodeInfo) -> ClusterReply {
    state.apply(0, ClusterCommand::Join { node, cluster: CLUSTER })
}

fn add(state: &mut ClusterState, group: &str) -> ClusterReply {
    let config = GroupConfig::default();
    state.apply(0, ClusterCommand::AddGroup { name: name(group), data: "d".into(), replicas: 3, config })
}

fn added(state: &mut ClusterState, group: &str) -> (GroupId, NodeId) {
    match add(state, group) {
        ClusterReply::GroupAdded { id, founder } => (id, founder),
        other => panic!("{other:?}"),
    }
}

fn purge(state: &mut ClusterState, node: NodeId, by: NodeId) -> ClusterReply {
    state.apply(0, ClusterCommand::Purge { node, by })
}

#[test]
fn only_the_first_forming_command_lists_the_founders() {
    let mut state = formed(3);
    let revision = state.revision();
    join(&mut state, info(9));
    let again = ClusterCommand::Form { cluster: CLUSTER, nodes: vec![info(1)], cluster_members_max: 7 };
    assert_eq!(state.apply(0, again), ClusterReply::Done);
    assert_eq!(state.nodes().len(), 4);
    assert_eq!(state.revision(), revision + 1);
    let other = ClusterCommand::Form { cluster: ClusterId(8), nodes: vec![], cluster_members_max: 7 };
    assert!(matches!(state.apply(0, other), ClusterReply::Refused(ClusterRefusal::OtherCluster { .. })));
}

#[test]
fn a_node_that_restarts_empty_at_its_address_supersedes_its_former_life_at_once() {
    let mut state = formed(3);
    let next = info_at(99, "node-2", "host-2:1");
    assert_eq!(join(&mut state, next.clone()), ClusterReply::Joined { superseded: Some(NodeId(2)) });
    assert!(!state.nodes().contains_key(&NodeId(2)));
    assert_eq!(join(&mut state, next), ClusterReply::Joined { superseded: None });
    assert_eq!(state.nodes().len(), 3);
}

#[test]
fn a_name_or_an_address_is_held_by_one_node_at_a_time() {
    let mut state = formed(3);
    let name = join(&mut state, info_at(99, "node-2", "elsewhere:1"));
    assert!(matches!(name, ClusterReply::Refused(ClusterRefusal::DuplicateName { .. })), "{name:?}");
    let address = join(&mut state, info_at(99, "node-99", "host-2:1"));
    assert!(matches!(address, ClusterReply::Refused(ClusterRefusal::DuplicateAddress { .. })), "{address:?}");
    purge(&mut state, NodeId(2), NodeId(1));
    let name = join(&mut state, info_at(99, "node-2", "elsewhere:1"));
    assert_eq!(name, ClusterReply::Joined { superseded: None });
}

#[test]
fn a_node_of_another_cluster_or_with_a_bad_zone_is_refused() {
    let mut state = formed(1);
    let other = state.apply(0, ClusterCommand::Join { node: info(2), cluster: ClusterId(8) });
    assert!(matches!(other, ClusterReply::Refused(ClusterRefusal::OtherCluster { .. })));
    let mut bad = info(2);
    bad.zone = "x".repeat(10_000);
    let ClusterReply::Refused(refusal) = join(&mut state, bad) else { panic!() };
    assert_eq!(refusal.to_string(), "the zone has 10000 bytes, over the limit of 255");
}

/// Fault 27: the original deletes a group, with its data, when all its members look dead.
#[test]
fn a_group_in_use_is_never_founded_again_whoever_is_purged() {
    let mut state = formed(3);
    let (id, _) = added(&mut state, "g");
    state.apply(0, ClusterCommand::GroupReady { name: name("g"), id });
    for node in 1..=3 {
        purge(&mut state, NodeId(node), NodeId(node));
    }
    join(&mut state, info(9));
    let entry = &state.groups()[&name("g")];
    assert_eq!((entry.id, entry.state), (id, GroupState::Running));
}

#[test]
fn a_name_cannot_be_used_again_before_the_members_of_the_removed_group_are_gone() {
    let mut state = formed(2);
    let (id, _) = added(&mut state, "g");
    assert_eq!(add(&mut state, "g"), ClusterReply::Refused(ClusterRefusal::AlreadyAdded(name("g"))));
    let removed = state.apply(0, ClusterCommand::RemoveGroup { name: name("g") });
    assert_eq!(removed, ClusterReply::GroupRemoved { id });
    let refused = ClusterRefusal::CleanupOngoing { name: name("g"), pending: 2 };
    assert_eq!(add(&mut state, "g"), ClusterReply::Refused(refused));
    state.apply(0, ClusterCommand::CleanedUp { node: NodeId(1), groups: vec![id] });
    let refused = ClusterRefusal::CleanupOngoing { name: name("g"), pending: 1 };
    assert_eq!(add(&mut state, "g"), ClusterReply::Refused(refused));
    purge(&mut state, NodeId(2), NodeId(1));
    assert_eq!(added(&mut state, "g").0, GroupId(FIRST_GROUP.0 + 1));
}

#[test]
fn an_unlisted_node_purges_nobody() {
    let mut state = formed(2);
    let refused = ClusterReply::Refused(ClusterRefusal::NoSuchNode(NodeId(5)));
    assert_eq!(purge(&mut state, NodeId(1), NodeId(5)), refused);
    assert_eq!(purge(&mut state, NodeId(5), NodeId(1)), refused);
}

#[test]
fn a_node_that_leaves_is_listed_but_gets_no_members() {
    let mut state = formed(2);
    assert_eq!(state.apply(0, ClusterCommand::Leave { node: NodeId(1) }), ClusterReply::Done);
    assert_eq!(state.desired(&name("g"), 3), vec![NodeId(2)]);
    assert_eq!(state.nodes().len(), 2);
    let again = state.apply(0, ClusterCommand::Leave { node: NodeId(1) });
    assert_eq!(again, ClusterReply::Refused(ClusterRefusal::Inactive(NodeId(1))));
    let none = state.apply(0, ClusterCommand::Leave { node: NodeId(2) });
    assert_eq!(none, ClusterReply::Done);
    assert_eq!(add(&mut state, "g"), ClusterReply::Refused(ClusterRefusal::NoActiveNode));
}

#[test]
fn a_node_that_left_is_activated_once_in_any_zone() {
    let mut state = formed(2);
    let activate = |zone: &str| {
        let node = NodeInfo { zone: zone.into(), ..info(1) };
        ClusterCommand::Activate { node, cluster: CLUSTER }
    };
    let refused = ClusterReply::Refused(ClusterRefusal::NotInactive(NodeId(1)));
    assert_eq!(state.apply(0, activate("z9")), refused);
    state.apply(0, ClusterCommand::Leave { node: NodeId(1) });
    assert_eq!(state.apply(0, activate("z9")), ClusterReply::Joined { superseded: None });
    assert_eq!(state.active_nodes()["z9"], [NodeId(1)]);
    assert_eq!(state.apply(0, activate("z9")), refused);
}

fn suspect(state: &mut ClusterState, now_ms: u64, node: u64, by: u64) -> ClusterReply {
    state.apply(now_ms, ClusterCommand::Suspect { node: NodeId(node), by: NodeId(by), silent_ms: 100 })
}

fn purge_silent(state: &mut ClusterState, now_ms: u64, node: u64, by: u64) -> ClusterReply {
    let (node, by) = (NodeId(node), NodeId(by));
    state.apply(now_ms, ClusterCommand::PurgeSilent { node, by, window_ms: 1000 })
}

fn hear(state: &mut ClusterState, node: u64, by: u64) -> ClusterReply {
    state.apply(0, ClusterCommand::Hear { node: NodeId(node), by: NodeId(by) })
}

#[test]
fn a_node_is_purged_only_after_a_suspicion_that_nobody_took_back_for_the_window() {
    let mut state = formed(3);
    let not_silent = |silent_ms: u64| {
        let refusal = ClusterRefusal::NotSilent { node: NodeId(2), silent_ms, window_ms: 1000 };
        ClusterReply::Refused(refusal)
    };
    assert_eq!(purge_silent(&mut state, 50_000, 2, 1), not_silent(0), "nobody has suspected it");
    assert_eq!(suspect(&mut state, 50_000, 2, 1), ClusterReply::Done);
    assert_eq!(state.suspects()[&NodeId(2)], Suspicion { by: NodeId(1), since_ms: 49_900 });
    assert_eq!(purge_silent(&mut state, 50_800, 2, 3), not_silent(900));
    assert_eq!(hear(&mut state, 2, 2), ClusterReply::Done, "it speaks up for itself");
    assert_eq!(suspect(&mut state, 51_000, 2, 1), ClusterReply::Done);
    assert_eq!(purge_silent(&mut state, 51_100, 2, 1), not_silent(200), "the window begins anew");
    assert_eq!(purge_silent(&mut state, 51_900, 2, 3), ClusterReply::Done, "whoever leads by then");
    assert!(!state.nodes().contains_key(&NodeId(2)) && state.suspects().is_empty());
}

/// In the original two nodes that do not see each other each purge the other.
#[test]
fn of_two_nodes_that_do_not_hear_each_other_the_first_to_say_so_is_believed() {
    let mut state = formed(3);
    let refused = |node: u64| ClusterReply::Refused(ClusterRefusal::Suspected(NodeId(node)));
    assert_eq!(suspect(&mut state, 0, 2, 1), ClusterReply::Done);
    assert_eq!(suspect(&mut state, 0, 1, 2), refused(2));
    assert_eq!(purge_silent(&mut state, 90_000, 1, 2), refused(2));
    assert_eq!(hear(&mut state, 2, 3), ClusterReply::Done);
    assert_eq!(suspect(&mut state, 0, 1, 2), ClusterReply::Done);
    assert_eq!(suspect(&mut state, 0, 3, 3), refused(3), "nobody speaks against itself");
}

#[test]
fn a_weight_belongs_to_a_name_and_outlives_a_restart_but_not_a_purge() {
    let mut state = formed(2);
    let weigh = |weight| ClusterCommand::Weigh { node: NodeId(2), weight };
    for weight in [0, 65] {
        assert_eq!(state.apply(0, weigh(weight)), ClusterReply::Refused(ClusterRefusal::Weight(weight)));
    }
    let revision = state.revision();
    assert_eq!(state.apply(0, weigh(1)), ClusterReply::Done);
    assert_eq!(state.revision(), revision, "it had 1 before");
    state.apply(0, weigh(5));
    join(&mut state, info_at(99, "node-2", "host-2:1"));
    assert_eq!(state.weight("node-2"), 5);
    purge(&mut state, NodeId(99), NodeId(1));
    assert_eq!(state.weight("node-2"), 1);
}

#[test]
fn a_pinned_group_is_placed_in_its_zones_only() {
    let mut state = formed(4);
    let zones = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let pin = |names: &[&str]| ClusterCommand::Pin { name: name("g"), zones: zones(names) };
    let missing = ClusterReply::Refused(ClusterRefusal::NoSuchGroup(name("g")));
    assert_eq!(state.apply(0, pin(&["z0"])), missing);
    let add = |names: &[&str]| {
        let (data, config) = ("d".to_owned(), GroupConfig::default());
        ClusterCommand::AddPinnedGroup { name: name("g"), data, replicas: 3, config, zones: zones(names) }
    };
    let nobody = ClusterReply::Refused(ClusterRefusal::NoActiveNode);
    assert_eq!(state.apply(0, add(&["elsewhere"])), nobody);
    assert!(state.pinned(&name("g")).is_none() && state.groups().is_empty());
    state.apply(0, add(&["z1"]));
    let at = |state: &ClusterState| state.desired(&name("g"), 3).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(at(&state), [NodeId(1), NodeId(3)].into());
    state.apply(0, pin(&["z0"]));
    assert_eq!(at(&state), [NodeId(2), NodeId(4)].into());
    state.apply(0, pin(&[]));
    assert_eq!(at(&state).len(), 3);
    let bad = state.apply(0, pin(&["rack 1"]));
    assert!(matches!(bad, ClusterReply::Refused(ClusterRefusal::Name(_))), "{bad:?}");
    state.apply(0, pin(&["z0"]));
    state.apply(0, ClusterCommand::RemoveGroup { name: name("g") });
    assert!(state.pinned(&name("g")).is_none(), "a pin goes with its group");
}

fn keep(state: &mut ClusterState, node: u64, group: GroupId, index: u64) {
    state.apply(0, ClusterCommand::Keep { node: NodeId(node), group, rank: index });
}

/// A group that ran on all nodes and was removed; nodes have written down these indexes.
fn removed(state: &mut ClusterState, kept: &[(u64, u64)]) -> GroupId {
    let (id, _) = added(state, "g");
    state.apply(0, ClusterCommand::GroupReady { name: name("g"), id });
    state.apply(0, ClusterCommand::RemoveGroup { name: name("g") });
    kept.iter().for_each(|(node, index)| keep(state, *node, id, *index));
    for node in state.nodes().keys().copied().collect::<Vec<_>>() {
        state.apply(0, ClusterCommand::CleanedUp { node, groups: vec![id] });
    }
    id
}

#[test]
fn a_group_that_is_added_again_is_founded_where_the_newest_was_kept() {
    for newest in 1..=3 {
        let mut state = formed(3);
        let kept: Vec<(u64, u64)> = (1..=3).map(|node| (node, if node == newest { 9 } else { 7 })).collect();
        let former = removed(&mut state, &kept);
        let (id, founder) = added(&mut state, "g");
        assert_eq!(founder, NodeId(newest));
        assert_eq!(state.kept()[&name("g")].restored_as, Some(id));
        assert_ne!(id, former);
        state.apply(0, ClusterCommand::GroupReady { name: name("g"), id });
        assert!(state.kept().is_empty(), "from then on the new group has it");
    }
}

#[test]
fn what_was_kept_outlives_a_purge_and_its_nodes_must_be_there_when_it_is_wanted() {
    let mut state = formed(3);
    removed(&mut state, &[(1, 9), (2, 7), (3, 6)]);
    purge(&mut state, NodeId(1), NodeId(2));
    purge(&mut state, NodeId(2), NodeId(3));
    let refused = ClusterRefusal::KeptElsewhere { name: name("g"), holders: 3, active: 1 };
    assert_eq!(add(&mut state, "g"), ClusterReply::Refused(refused));
    join(&mut state, info(1));
    assert_eq!(added(&mut state, "g").1, NodeId(1));
    // Its founder dies before anybody could use it: another one must not begin with less.
    purge(&mut state, NodeId(1), NodeId(3));
    assert_eq!(state.groups()[&name("g")].state, GroupState::Founding { founder: NodeId(1) });
    join(&mut state, info(2));
    assert_eq!(state.groups()[&name("g")].state, GroupState::Founding { founder: NodeId(2) });
}

/// Those that had the state and did not vote were counted: with some of them, a minority of the voters was enough.
#[test]
fn what_learners_had_counts_only_where_no_voter_has_left_anything() {
    let voted = |term: u64, index: u64| (term << 40) + index;
    let mut state = formed(5);
    removed(&mut state, &[(1, voted(2, 9)), (2, voted(2, 9)), (3, voted(2, 7)), (4, 7), (5, 7)]);
    purge(&mut state, NodeId(1), NodeId(3));
    purge(&mut state, NodeId(2), NodeId(3));
    let refused = ClusterRefusal::KeptElsewhere { name: name("g"), holders: 3, active: 1 };
    assert_eq!(add(&mut state, "g"), ClusterReply::Refused(refused));
    join(&mut state, info(2));
    assert_eq!(added(&mut state, "g").1, NodeId(2));
    let mut state = formed(3);
    removed(&mut state, &[(1, 7), (2, 8), (3, 7)]);
    assert_eq!(added(&mut state, "g").1, NodeId(2));
}

#[test]
fn a_group_leaves_nothing_that_was_never_used_or_that_only_memory_held_or_that_was_deleted() {
    let mut state = formed(2);
    let (id, _) = added(&mut state, "g");
    state.apply(0, ClusterCommand::RemoveGroup { name: name("g") });
    keep(&mut state, 1, id, 5);
    assert!(state.kept().is_empty());

    let mut state = formed(2);
    let config = GroupConfig { durability: rafted_value::Durability::Memory, ..GroupConfig::default() };
    let add = ClusterCommand::AddGroup { name: name("g"), data: "d".into(), replicas: 3, config };
    let ClusterReply::GroupAdded { id, .. } = state.apply(0, add) else { panic!("it is a new name") };
    state.apply(0, ClusterCommand::GroupReady { name: name("g"), id });
    state.apply(0, ClusterCommand::RemoveGroup { name: name("g") });
    assert!(state.kept().is_empty());

    let mut state = formed(2);
    removed(&mut state, &[(1, 5), (2, 5)]);
    let other = ClusterCommand::AddGroup {
        name: name("g"),
        data: "other".into(),
        replicas: 3,
        config: GroupConfig::default(),
    };
    let refused = ClusterRefusal::KeptOther { name: name("g"), data: "d".into() };
    assert_eq!(state.apply(0, other.clone()), ClusterReply::Refused(refused));
    assert_eq!(state.apply(0, ClusterCommand::DeleteGroup { name: name("g") }), ClusterReply::Done);
    assert!(state.kept().is_empty());
    assert!(matches!(state.apply(0, other), ClusterReply::GroupAdded { .. }));
    let none = state.apply(0, ClusterCommand::DeleteGroup { name: name("h") });
    assert_eq!(none, ClusterReply::Refused(ClusterRefusal::NoSuchGroup(name("h"))));
}

#[test]
fn an_unchanged_state_costs_a_small_answer() {
    let state = formed(3);
    let unchanged = state.query(ClusterQuery::Since { revision: state.revision() });
    assert_eq!(encode(&unchanged).len(), 1);
    let changed = state.query(ClusterQuery::Since { revision: 0 });
    assert_eq!(changed, ClusterAnswer::State(Box::new(state)));
}

#[test]
fn the_stored_bytes_never_change() {
    let mut state = formed(1);
    added(&mut state, "g");
    let (id, _) = added(&mut state, "h");
    state.apply(0, ClusterCommand::RemoveGroup { name: name("h") });
    assert_eq!(id, GroupId(17));
    let bytes = encode(&state);
    assert_eq!(postcard::from_bytes::<ClusterState>(&bytes).unwrap(), state);
    let config = GroupConfig::default();
    let form = ClusterCommand::Form { cluster: CLUSTER, nodes: vec![info(1)], cluster_members_max: 7 };
    let add = ClusterCommand::AddGroup { name: name("g"), data: "d".into(), replicas: 3, config };
    let ready = ClusterCommand::GroupReady { name: name("g"), id };
    let mut second = formed(1);
    let weigh = ClusterCommand::Weigh { node: NodeId(1), weight: 5 };
    second.apply(0, weigh.clone());
    let second = encode(&second);
    assert_eq!(postcard::from_bytes::<ClusterState>(&second).unwrap().weight("node-1"), 5);
    let zones: BTreeSet<String> = ["z".to_owned()].into();
    let pin = ClusterCommand::Pin { name: name("g"), zones: zones.clone() };
    let (data, config) = ("d".to_owned(), GroupConfig::default());
    let pinned = ClusterCommand::AddPinnedGroup { name: name("g"), data, replicas: 3, config, zones };
    let (node, by) = (NodeId(1), NodeId(2));
    let mut third = formed(1);
    removed(&mut third, &[(1, 300)]);
    let third = encode(&third);
    assert_eq!(postcard::from_bytes::<ClusterState>(&third).unwrap().kept().len(), 1);
    let mut fourth = formed(1);
    let life = Life { number: 1, mark: 300 };
    let join_in_life = ClusterCommand::JoinInLife { node: info(1), cluster: CLUSTER, from: None, life };
    assert_eq!(fourth.apply(0, join_in_life.clone()), ClusterReply::Joined { superseded: None });
    let fourth = encode(&fourth);
    assert_eq!(postcard::from_bytes::<ClusterState>(&fourth).unwrap().lives()[&NodeId(1)], life);
    let give_up = ClusterCommand::GiveUpFounding { name: name("g"), id, node, for_good: true };
    let other_life = ClusterRefusal::OtherLife { node, asked: 2, known: 300 };
    let too_many_bytes = ClusterRefusal::TooManyBytes { bytes: 300, limit_bytes: 200 };
    let kept_other = ClusterRefusal::KeptOther { name: name("g"), data: "d".into() };
    let kept_elsewhere = ClusterRefusal::KeptElsewhere { name: name("g"), holders: 3, active: 1 };
    crate::golden::check(
        "cluster_state",
        &[
            ("state", &bytes),
            ("form", &encode(&form)),
            ("join", &encode(&ClusterCommand::Join { node: info(1), cluster: CLUSTER })),
            ("leave", &encode(&ClusterCommand::Leave { node: NodeId(1) })),
            ("purge", &encode(&ClusterCommand::Purge { node: NodeId(1), by: NodeId(2) })),
            ("add", &encode(&add)),
            ("remove", &encode(&ClusterCommand::RemoveGroup { name: name("g") })),
            ("ready", &encode(&ready)),
            ("cleaned_up", &encode(&ClusterCommand::CleanedUp { node: NodeId(1), groups: vec![id] })),
            ("since", &encode(&ClusterQuery::Since { revision: 3 })),
            ("missing", &encode(&ClusterQuery::Missing { groups: vec![id] })),
            ("group", &encode(&ClusterQuery::Group { name: name("g") })),
            ("done", &encode(&ClusterReply::Done)),
            ("joined", &encode(&ClusterReply::Joined { superseded: Some(NodeId(1)) })),
            ("added", &encode(&ClusterReply::GroupAdded { id, founder: NodeId(1) })),
            ("removed", &encode(&ClusterReply::GroupRemoved { id })),
            ("refused", &encode(&ClusterReply::Refused(ClusterRefusal::NoActiveNode))),
            ("unchanged", &encode(&ClusterAnswer::Unchanged)),
            ("missing_answer", &encode(&ClusterAnswer::Missing(vec![id]))),
            ("group_answer", &encode(&ClusterAnswer::Group(None))),
            ("second_state", &second),
            ("activate", &encode(&ClusterCommand::Activate { node: info(1), cluster: CLUSTER })),
            ("suspect", &encode(&ClusterCommand::Suspect { node, by, silent_ms: 300 })),
            ("hear", &encode(&ClusterCommand::Hear { node, by })),
            ("purge_silent", &encode(&ClusterCommand::PurgeSilent { node, by, window_ms: 300 })),
            ("weigh", &encode(&weigh)),
            ("pin", &encode(&pin)),
            ("add_pinned", &encode(&pinned)),
            ("last_refusal", &encode(&ClusterReply::Refused(ClusterRefusal::TooManyZones(300)))),
            ("third_state", &third),
            ("keep", &encode(&ClusterCommand::Keep { node, group: id, rank: 300 })),
            ("delete", &encode(&ClusterCommand::DeleteGroup { name: name("g") })),
            ("kept_other", &encode(&ClusterReply::Refused(kept_other))),
            ("kept_elsewhere", &encode(&ClusterReply::Refused(kept_elsewhere))),
            ("fourth_state", &fourth),
            ("join_in_life", &encode(&join_in_life)),
            ("other_life", &encode(&ClusterReply::Refused(other_life))),
            ("give_up", &encode(&give_up)),
            ("too_many_bytes", &encode(&ClusterReply::Refused(too_many_bytes))),
        ],
    );
}

/// Two copies of one directory have the same life behind them, and only one can be the next.
#[test]
fn a_life_is_taken_in_only_if_it_follows_the_newest_one() {
    let mut state = formed(3);
    let mut join = |from: Option<Life>, life: Life| {
        let before = state.revision();
        let join = ClusterCommand::JoinInLife { node: info(2), cluster: CLUSTER, from, life };
        let reply = state.apply(0, join);
        (reply, state.revision() > before)
    };
    let life = |number, mark| Life { number, mark };
    let joined = ClusterReply::Joined { superseded: None };
    let refused =
        |asked, known| ClusterReply::Refused(ClusterRefusal::OtherLife { node: NodeId(2), asked, known });
    let (first, second) = (life(1, 7), life(2, 8));
    assert_eq!(join(Some(first), second), (refused(2, 0), false));
    assert_eq!(join(None, first), (joined.clone(), true));
    assert_eq!(join(None, first), (joined.clone(), false), "it may say so twice");
    assert_eq!(join(None, life(1, 9)), (refused(1, 1), false));
    assert_eq!(join(Some(first), second), (joined, true));
    assert_eq!(join(Some(first), life(2, 9)), (refused(2, 2), false));
    assert_eq!(join(Some(second), life(2, 9)), (refused(2, 2), false), "numbers grow");
}

/// A backup of a node that was purged long ago is no less old, but not all that ever were can be remembered.
#[test]
fn the_lives_of_nodes_that_are_gone_are_remembered_up_to_a_limit() {
    let mut state = formed(1);
    let join = |state: &mut ClusterState, node: u64| {
        let life = Life { number: 1, mark: node };
        let join = ClusterCommand::JoinInLife { node: info(node), cluster: CLUSTER, from: None, life };
        assert_eq!(state.apply(0, join), ClusterReply::Joined { superseded: None }, "{node}");
    };
    join(&mut state, 1);
    for node in 2..=3_000 {
        join(&mut state, node);
        assert!(state.lives().contains_key(&NodeId(node)));
        assert_eq!(purge(&mut state, NodeId(node), NodeId(1)), ClusterReply::Done);
        assert!(state.lives().contains_key(&NodeId(node)), "it outlives the purge");
    }
    assert_eq!(state.lives().len(), 2 * NODES_MAX);
    assert!(state.lives().contains_key(&NodeId(1)), "a node that is listed is not forgotten");
}

fn any_command() -> impl Strategy<Value = ClusterCommand> {
    let node = 1..8_u64;
    let group = (0..4_u8).prop_map(|number| name(&format!("g{number}")));
    let (pinned, deleted) = (group.clone(), group.clone());
    let id = (16..40_u64).prop_map(GroupId);
    prop_oneof![
        (node.clone(), 1..5_u64).prop_map(|(node, at)| {
            let node = info_at(node, &format!("node-{at}"), &format!("host-{at}:1"));
            ClusterCommand::Join { node, cluster: CLUSTER }
        }),
        node.clone().prop_map(|node| ClusterCommand::Leave { node: NodeId(node) }),
        (node.clone(), node.clone())
            .prop_map(|(node, by)| ClusterCommand::Purge { node: NodeId(node), by: NodeId(by) }),
        group.clone().prop_map(|name| {
            let config = GroupConfig::default();
            ClusterCommand::AddGroup { name, data: "d".into(), replicas: 3, config }
        }),
        group.clone().prop_map(|name| ClusterCommand::RemoveGroup { name }),
        (group, id.clone()).prop_map(|(name, id)| ClusterCommand::GroupReady { name, id }),
        (node.clone(), id)
            .prop_map(|(node, id)| ClusterCommand::CleanedUp { node: NodeId(node), groups: vec![id] }),
        (node.clone(), node.clone()).prop_map(|(node, by)| {
            ClusterCommand::Suspect { node: NodeId(node), by: NodeId(by), silent_ms: 10 }
        }),
        (node.clone(), node.clone())
            .prop_map(|(node, by)| ClusterCommand::Hear { node: NodeId(node), by: NodeId(by) }),
        (node.clone(), node.clone()).prop_map(|(node, by)| {
            ClusterCommand::PurgeSilent { node: NodeId(node), by: NodeId(by), window_ms: 20 }
        }),
        (node.clone(), 1..3_u32)
            .prop_map(|(node, weight)| ClusterCommand::Weigh { node: NodeId(node), weight }),
        (pinned, 0..3_u64).prop_map(|(name, zone)| {
            let zones = if zone == 2 { BTreeSet::new() } else { [format!("z{zone}")].into() };
            ClusterCommand::Pin { name, zones }
        }),
        (node.clone(), 16..40_u64, 0..9_u64).prop_map(|(node, group, rank)| ClusterCommand::Keep {
            node: NodeId(node),
            group: GroupId(group),
            rank,
        }),
        deleted.prop_map(|name| ClusterCommand::DeleteGroup { name }),
        node.clone().prop_map(|node| ClusterCommand::Activate { node: info(node), cluster: CLUSTER }),
        (node, 0..4_u64, 0..3_u64).prop_map(|(node, number, mark)| {
            let from = number.checked_sub(1).filter(|from| *from > 0).map(|number| Life { number, mark });
            let life = Life { number, mark: mark + 1 };
            ClusterCommand::JoinInLife { node: info(node), cluster: CLUSTER, from, life }
        }),
    ]
}

proptest! {
    #[test]
    fn ids_are_never_reused_and_tables_never_contradict_each_other(
        commands in prop::collection::vec(any_command(), 0..60),
    ) {
        let mut state = formed(3);
        let mut ids = BTreeMap::<GroupId, GroupName>::new();
        for (now_ms, command) in commands.into_iter().enumerate() {
            let before = state.clone();
            let reply = state.apply(now_ms as u64 * 10, command);
            let bytes = encode(&state);
            prop_assert_eq!(&postcard::from_bytes::<ClusterState>(&bytes).unwrap(), &state);
            prop_assert!(bytes.len() as u64 <= state.bytes_max());
            prop_assert_eq!(state.revision() > before.revision(), state != before, "{:?}", reply);
            let names: BTreeSet<_> = state.nodes().values().map(|entry| &entry.name).collect();
            let addresses: BTreeSet<_> = state.nodes().values().map(|entry| &entry.address).collect();
            prop_assert_eq!(names.len(), state.nodes().len());
            prop_assert_eq!(addresses.len(), state.nodes().len());
            for (name, entry) in state.groups() {
                let owner = ids.entry(entry.id).or_insert_with(|| name.clone());
                prop_assert_eq!(&*owner, name);
                prop_assert!(!state.removed().contains_key(&entry.id));
                if let GroupState::Founding { founder } = entry.state {
                    let active = state.nodes().get(&founder).is_some_and(|node| node.active);
                    let waits = state.restorer(name, &entry.data).is_err();
                    prop_assert!(active || waits || state.desired(name, 1).is_empty());
                }
            }
            for (node, life) in before.lives() {
                let now = state.lives()[node];
                prop_assert!(now == *life || now.number > life.number, "{now:?} after {life:?}");
            }
            prop_assert!(state.suspects().keys().all(|node| state.nodes().contains_key(node)));
            prop_assert!(state.pins.keys().all(|name| state.groups().contains_key(name)));
            prop_assert!(state.weights.keys().all(|name| names.contains(name)));
            for kept in state.kept().values() {
                prop_assert!(!kept.holders.is_empty() || state.removed().contains_key(&kept.group));
                let restored = kept.restored_as.is_none_or(|id| state.groups().values().any(|entry| entry.id == id));
                prop_assert!(restored, "{:?}", kept);
            }
            for removed in state.removed().values() {
                prop_assert!(!removed.pending.is_empty());
                prop_assert!(removed.pending.iter().all(|node| state.nodes().contains_key(node)));
            }
        }
    }
}
