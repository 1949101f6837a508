//! Where the members of a group belong: rendezvous hashing, spread over zones.
//!
//! Every node computes the same answer from the replicated cluster state alone, so nobody has to be asked. Within a
//! zone the nodes are ranked by a hash of (node, group); then all nodes are ordered by (rank within the zone, hash),
//! and the first `replicas` of that order hold the group. The first of all is the preferred leader.
//!
//! It moves as little as can be: a node that comes shifts the later nodes of its own zone by one rank, each to a key
//! below the one that its successor had, so that at most the last chosen node falls out, in favour of the new one.
//! (Rendezvous hashing: Thaler and Ravishankar, 1998.)
//!
//! Nodes are hashed by name, not by id: a node that restarts empty has a new id and the same name, and gets back the
//! groups that it had, instead of moving some to others and some of others to it.

use rafted_value::NodeId;
use twox_hash::XxHash3_64;

/// The largest weight of a node: it gets this many times what a node of weight 1 gets.
pub const WEIGHT_MAX: u32 = 64;

/// The seed of all placement hashes; it must never change, or every group of every cluster moves.
const SEED: u64 = 0x7261_6674_666c_6565;

/// A node as placement sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The node.
    pub node: NodeId,
    /// Its name, which decides what it gets.
    pub name: &'a str,
    /// Its zone.
    pub zone: &'a str,
    /// Its share, as a multiple of what a node of weight 1 gets; 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

/// The nodes that should hold the group named `group`, the preferred leader first; all nodes where there are fewer
/// than `replicas`. The order of `places` does not matter.
pub fn place<'a>(places: impl IntoIterator<Item = Place<'a>>, group: &str, replicas: usize) -> Vec<NodeId> {
    let mut by_zone: Vec<(&str, u64, NodeId)> =
        places.into_iter().map(|place| (place.zone, lowest(&place, group), place.node)).collect();
    by_zone.sort_unstable();
    let mut ranked = Vec::with_capacity(by_zone.len());
    let mut rank = 0_usize;
    let mut previous = None;
    for (zone, score, node) in by_zone {
        rank = if previous == Some(zone) { rank + 1 } else { 0 };
        previous = Some(zone);
        ranked.push((rank, score, node));
    }
    ranked.sort_unstable();
    ranked.truncate(replicas);
    ranked.into_iter().map(|(_, _, node)| node).collect()
}

/// The lower, the nearer the node is to the group. A node of weight `w` has `w` draws, the best of which counts, and so
/// wins `w` times as often; no more weight ever takes a group away from it. (Logarithms would do it in one draw, but
/// floating point differs between machines.)
fn lowest(place: &Place<'_>, group: &str) -> u64 {
    let first = score(place.name, group);
    let further = (1..place.weight.min(WEIGHT_MAX)).map(|draw| mix(first, hash_of_draw(draw)));
    further.fold(first, u64::min)
}

fn hash_of_draw(draw: u32) -> u64 {
    XxHash3_64::oneshot_with_seed(SEED, &draw.to_le_bytes())
}

fn score(node: &str, group: &str) -> u64 {
    mix(hash(node), hash(group))
}

fn mix(first: u64, second: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&second.to_le_bytes());
    XxHash3_64::oneshot_with_seed(SEED, &bytes)
}

fn hash(text: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(SEED, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// (name number, zone number) of each node; the id is the name number + 1.
    fn nodes() -> impl Strategy<Value = BTreeMap<u64, u8>> {
        prop::collection::btree_map(0..40_u64, 0..5_u8, 1..12)
    }

    fn placed(nodes: &BTreeMap<u64, u8>, group: &str, replicas: usize) -> Vec<NodeId> {
        weighted(nodes, &BTreeMap::new(), group, replicas)
    }

    fn weighted(
        nodes: &BTreeMap<u64, u8>,
        weights: &BTreeMap<u64, u32>,
        group: &str,
        replicas: usize,
    ) -> Vec<NodeId> {
        let weight = |node: &NodeId| weights.get(&(node.0 - 1)).copied().unwrap_or(1);
        let named: Vec<_> = nodes
            .iter()
            .map(|(number, zone)| (NodeId(number + 1), format!("node-{number}"), format!("zone-{zone}")))
            .collect();
        let places =
            named.iter().map(|(node, name, zone)| Place { node: *node, name, zone, weight: weight(node) });
        place(places, group, replicas)
    }

    proptest! {
        #[test]
        fn a_node_that_comes_or_goes_moves_only_what_it_must(
            nodes in nodes(), group in "[a-z]{1,8}", replicas in 1..6_usize, at in any::<prop::sample::Index>(),
        ) {
            let with: Vec<NodeId> = placed(&nodes, &group, replicas);
            let number = *at.get(&nodes.keys().copied().collect::<Vec<_>>());
            let mut fewer = nodes.clone();
            fewer.remove(&number);
            let without = placed(&fewer, &group, replicas);
            let gone = NodeId(number + 1);
            let with: BTreeSet<_> = with.into_iter().collect();
            let without: BTreeSet<_> = without.into_iter().collect();
            if with.contains(&gone) {
                let kept: BTreeSet<_> = with.iter().copied().filter(|node| *node != gone).collect();
                prop_assert!(kept.is_subset(&without), "{kept:?} {without:?}");
            } else {
                prop_assert_eq!(with, without);
            }
        }

        #[test]
        fn members_are_spread_over_zones_as_far_as_there_are_zones(
            nodes in nodes(), group in "[a-z]{1,8}", replicas in 1..6_usize,
        ) {
            let chosen = placed(&nodes, &group, replicas);
            prop_assert_eq!(chosen.len(), replicas.min(nodes.len()));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            let zones: BTreeSet<u8> = nodes.values().copied().collect();
            let used: BTreeSet<u8> = chosen.iter().map(|node| nodes[&(node.0 - 1)]).collect();
            prop_assert_eq!(used.len(), zones.len().min(replicas));
        }

        /// A heavier node takes from others and never gives; nobody else moves anything among themselves.
        #[test]
        fn a_node_that_gets_heavier_only_takes(
            nodes in nodes(), group in "[a-z]{1,8}", replicas in 1..6_usize, at in any::<prop::sample::Index>(),
            before in 1..8_u32, more in 1..8_u32,
        ) {
            let number = *at.get(&nodes.keys().copied().collect::<Vec<_>>());
            let heavier = NodeId(number + 1);
            let set = |weight| -> BTreeSet<NodeId> {
                weighted(&nodes, &[(number, weight)].into(), &group, replicas).into_iter().collect()
            };
            let (light, heavy) = (set(before), set(before + more));
            if light.contains(&heavier) || !heavy.contains(&heavier) {
                prop_assert_eq!(light, heavy);
            } else {
                let kept: BTreeSet<_> = heavy.iter().copied().filter(|node| *node != heavier).collect();
                prop_assert!(kept.is_subset(&light), "{light:?} {heavy:?}");
            }
        }

        #[test]
        fn more_replicas_keep_the_members_that_fewer_would_have(
            nodes in nodes(), group in "[a-z]{1,8}", replicas in 1..6_usize,
        ) {
            let few = placed(&nodes, &group, replicas);
            let more = placed(&nodes, &group, replicas + 1);
            prop_assert_eq!(&few[..], &more[..few.len()]);
        }
    }

    #[test]
    fn leaders_and_members_are_spread_evenly() {
        let nodes: BTreeMap<u64, u8> = (0..4).map(|number| (number, number as u8 % 2)).collect();
        let mut leads = BTreeMap::<NodeId, u32>::new();
        let mut holds = BTreeMap::<NodeId, u32>::new();
        for group in 0..4000 {
            let chosen = placed(&nodes, &format!("group-{group}"), 2);
            *leads.entry(chosen[0]).or_default() += 1;
            chosen.into_iter().for_each(|node| *holds.entry(node).or_default() += 1);
        }
        assert!(leads.values().all(|count| (850..1150).contains(count)), "{leads:?}");
        assert!(holds.values().all(|count| (1850..2150).contains(count)), "{holds:?}");
    }

    #[test]
    fn a_share_grows_with_the_weight() {
        let nodes: BTreeMap<u64, u8> = (0..4).map(|number| (number, 0)).collect();
        let mut leads = BTreeMap::<NodeId, u32>::new();
        for group in 0..7000 {
            let chosen = weighted(&nodes, &[(0, 4)].into(), &format!("group-{group}"), 1);
            *leads.entry(chosen[0]).or_default() += 1;
        }
        assert!((3800..4200).contains(&leads[&NodeId(1)]), "four of seven parts: {leads:?}");
        assert!(leads.values().skip(1).all(|count| (900..1100).contains(count)), "{leads:?}");
    }

    #[test]
    fn a_node_that_restarts_under_a_new_id_gets_its_place_back() {
        let names = ["a", "b", "c", "d"];
        let at = |ids: [u64; 4]| {
            let places = names.iter().zip(ids).map(|(name, id)| Place {
                node: NodeId(id),
                name,
                zone: "z",
                weight: 1,
            });
            place(places, "g", 3)
        };
        let before = at([1, 2, 3, 4]);
        let after = at([1, 2, 99, 4]);
        let renamed: Vec<_> =
            before.iter().map(|node| if *node == NodeId(3) { NodeId(99) } else { *node }).collect();
        assert_eq!(after, renamed);
    }

    /// A changed hash would move every group of every cluster at the next upgrade.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(score("node-1", "group-1"), 9_460_586_248_714_576_466);
        let nodes: BTreeMap<u64, u8> = (0..6).map(|number| (number, number as u8 % 3)).collect();
        let chosen: Vec<Vec<u64>> = ["a", "b", "c", "kv/users/0"]
            .iter()
            .map(|group| placed(&nodes, group, 3).into_iter().map(|node| node.0).collect())
            .collect();
        assert_eq!(chosen, [[1, 2, 3], [5, 4, 6], [3, 2, 4], [6, 4, 5]]);
    }
}
