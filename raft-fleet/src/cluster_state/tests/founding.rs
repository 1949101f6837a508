//! Who founds a group, and when another does.

use super::*;

#[test]
fn a_group_whose_founder_dies_before_it_is_ready_is_founded_anew_under_another_id() {
    let mut state = formed(3);
    let (first, founder) = added(&mut state, "g");
    assert_eq!(first, FIRST_GROUP);
    let other = *state.nodes().keys().find(|node| **node != founder).unwrap();
    purge(&mut state, founder, other);
    let entry = state.groups()[&name("g")].clone();
    assert_ne!(entry.id, first);
    let GroupState::Founding { founder: second } = entry.state else { panic!() };
    assert_ne!(second, founder);
    let stale = state.apply(0, ClusterCommand::GroupReady { name: name("g"), id: first });
    assert!(matches!(stale, ClusterReply::Refused(ClusterRefusal::NoSuchGroup(_))));
    let ready = state.apply(0, ClusterCommand::GroupReady { name: name("g"), id: entry.id });
    assert_eq!(ready, ClusterReply::Done);
}

/// A founder once made another node's member the second of two voters; that node died, and the group, which nobody had used
/// yet, could elect no leader for ever.
#[test]
fn a_group_that_loses_another_node_before_it_is_ready_is_founded_anew_as_well() {
    let mut state = formed(3);
    let (first, founder) = added(&mut state, "g");
    let other = *state.nodes().keys().find(|node| **node != founder).unwrap();
    purge(&mut state, other, founder);
    let second = state.groups()[&name("g")].id;
    assert_ne!(second, first);
    let stale = state.apply(0, ClusterCommand::GroupReady { name: name("g"), id: first });
    assert!(matches!(stale, ClusterReply::Refused(ClusterRefusal::NoSuchGroup(_))));
    let ready = state.apply(0, ClusterCommand::GroupReady { name: name("g"), id: second });
    assert_eq!(ready, ClusterReply::Done);
}

fn founder(state: &ClusterState, group: &str) -> NodeId {
    match state.groups()[&name(group)].state {
        GroupState::Founding { founder } => founder,
        GroupState::Running => panic!("{group} runs"),
    }
}

/// Whoever waited for a group once waited until its founder was purged, a minute later: splits of shards were given up.
#[test]
fn a_group_whose_founder_is_silent_is_founded_by_one_that_answers() {
    for places in 3..6 {
        let mut state = formed(places);
        let (first, preferred) = added(&mut state, "g");
        let other = state.nodes().keys().map(|node| node.0).find(|node| *node != preferred.0).unwrap();
        assert_eq!(suspect(&mut state, 0, preferred.0, other), ClusterReply::Done);
        assert_ne!(founder(&state, "g"), preferred);
        assert_ne!(
            state.groups()[&name("g")].id,
            first,
            "what the silent one still does is nobody's business"
        );

        // Nor is a silent node asked in the first place.
        let (_, next) = added(&mut state, "g2");
        assert!(!state.suspects().contains_key(&next));
        for node in (1..=places).filter(|node| *node != other) {
            suspect(&mut state, 0, node, other);
        }
        assert_eq!((founder(&state, "g"), founder(&state, "g2")), (NodeId(other), NodeId(other)));
    }
}

fn give_up(state: &mut ClusterState, group: &str, id: GroupId, node: NodeId, for_good: bool) -> ClusterReply {
    state.apply(0, ClusterCommand::GiveUpFounding { name: name(group), id, node, for_good })
}

/// It gave up by the name. Another node had founded the group by then, because this one had been cut off, and it was in use:
/// it was removed with all that was in it.
#[test]
fn a_founder_that_gives_up_removes_nothing_that_another_has_founded() {
    for for_good in [true, false] {
        let mut state = formed(3);
        let (first, former) = added(&mut state, "g");
        let other = *state.nodes().keys().find(|node| **node != former).unwrap();
        suspect(&mut state, 0, former.0, other.0);
        let second = state.groups()[&name("g")].id;
        let none = ClusterReply::Refused(ClusterRefusal::NoSuchGroup(name("g")));
        assert_eq!(give_up(&mut state, "g", first, former, for_good), none);
        assert_eq!(
            give_up(&mut state, "g", second, former, for_good),
            none,
            "it is not the founder any more"
        );
        state.apply(0, ClusterCommand::GroupReady { name: name("g"), id: second });
        for founder in [former, founder_of(&state)] {
            assert_eq!(give_up(&mut state, "g", second, founder, for_good), none, "it runs");
        }
        assert_eq!(state.groups()[&name("g")].id, second);
    }
}

fn founder_of(state: &ClusterState) -> NodeId {
    state.nodes().keys().copied().find(|node| !state.suspects().contains_key(node)).unwrap()
}

#[test]
fn a_group_that_nobody_can_found_is_removed_and_one_that_this_node_cannot_found_goes_to_another() {
    let mut state = formed(3);
    let (first, founder) = added(&mut state, "g");
    assert_eq!(give_up(&mut state, "g", first, founder, false), ClusterReply::Done);
    let second = state.groups()[&name("g")].id;
    let next = self::founder(&state, "g");
    assert!(second != first && next != founder);
    let removed = give_up(&mut state, "g", second, next, true);
    assert_eq!(removed, ClusterReply::GroupRemoved { id: second });

    let mut alone = formed(1);
    let (id, founder) = added(&mut alone, "g");
    let refused = give_up(&mut alone, "g", id, founder, false);
    assert_eq!(refused, ClusterReply::Refused(ClusterRefusal::NoActiveNode));
    assert_eq!(alone.groups()[&name("g")].id, id);
}

/// What it had of the group was in its memory, and nobody noticed, for it was back before anybody missed it: the group was
/// being founded for ever.
#[test]
fn a_group_whose_founder_was_restarted_is_founded_anew() {
    let mut state = formed(0);
    for node in 1..=3 {
        let life = Life { number: 1, mark: node };
        let join = ClusterCommand::JoinInLife { node: info(node), cluster: CLUSTER, from: None, life };
        assert_eq!(state.apply(0, join), ClusterReply::Joined { superseded: None });
    }
    let (first, founder) = added(&mut state, "g");
    let from = state.lives().get(&founder).copied();
    let life = Life { number: 2, mark: 77 };
    let again = ClusterCommand::JoinInLife { node: info(founder.0), cluster: CLUSTER, from, life };
    state.apply(0, again.clone());
    let second = state.groups()[&name("g")].id;
    assert_ne!(second, first);
    state.apply(0, again);
    assert_eq!(state.groups()[&name("g")].id, second, "it joins in this life already");
}

/// One that begins with what another has left has the newest of it, or waits.
#[test]
fn a_silent_node_that_keeps_the_newest_is_still_the_founder() {
    let mut state = formed(3);
    removed(&mut state, &[(1, 9), (2, 7), (3, 7)]);
    let added = added(&mut state, "g");
    suspect(&mut state, 0, 1, 2);
    assert_eq!((state.groups()[&name("g")].id, founder(&state, "g")), (added.0, NodeId(1)));
}
