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

/// One that begins with what another has left has the newest of it, or waits.
#[test]
fn a_silent_node_that_keeps_the_newest_is_still_the_founder() {
    let mut state = formed(3);
    removed(&mut state, &[(1, 9), (2, 7), (3, 7)]);
    let added = added(&mut state, "g");
    suspect(&mut state, 0, 1, 2);
    assert_eq!((state.groups()[&name("g")].id, founder(&state, "g")), (added.0, NodeId(1)));
}
