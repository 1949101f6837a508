//! The way from a key to its shard's group, as far as this node knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use raft_fleet::GroupName;

use crate::key_range::KeyRange;
use crate::keyspace::{Keyspace, KeyspaceName, KeyspaceState};
use crate::shard::Gone;

/// The shards of one keyspace.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) keyspace: Keyspace,
    /// In the order of their ranges, which cover all hashes once.
    shards: Vec<RouteShard>,
}

/// A shard as a caller addresses it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RouteShard {
    pub(crate) range: KeyRange,
    pub(crate) number: u32,
    pub(crate) group: GroupName,
    /// The move that brought the range there, as far as known.
    moved: u64,
}

impl Route {
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        let shards = keyspace.shards.iter().map(|place| RouteShard {
            range: place.range,
            number: place.number,
            group: keyspace.group(place.number),
            moved: place.moved,
        });
        let shards = shards.collect();
        Self { keyspace, shards }
    }

    /// The shard that a hash belongs to.
    pub(crate) fn shard(&self, hash: u64) -> &RouteShard {
        let behind = self.shards.partition_point(|shard| shard.range.first() <= hash);
        &self.shards[behind.checked_sub(1).expect("the first range begins at zero, as was checked")]
    }

    /// All shards, in the order of their ranges.
    #[cfg(test)]
    fn shards(&self) -> &[RouteShard] {
        &self.shards
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.keyspace.state == KeyspaceState::Ready
    }

    /// The route with a range at another shard; `None` when something newer is known of it.
    fn with(&self, gone: Gone) -> Option<Self> {
        let Gone { range, to, move_id } = gone;
        let mut shards = Vec::with_capacity(self.shards.len() + 1);
        for shard in &self.shards {
            if !shard.range.overlaps(range) {
                shards.push(shard.clone());
                continue;
            }
            if shard.moved >= move_id {
                return None;
            }
            let below =
                range.first().checked_sub(1).and_then(|last| KeyRange::new(shard.range.first(), last));
            let above =
                range.last().checked_add(1).and_then(|first| KeyRange::new(first, shard.range.last()));
            shards.extend(
                [below, above].into_iter().flatten().map(|range| RouteShard { range, ..shard.clone() }),
            );
        }
        shards.push(RouteShard { range, number: to, group: self.keyspace.group(to), moved: move_id });
        shards.sort_by_key(|shard| shard.range.first());
        Some(Self { keyspace: self.keyspace.clone(), shards })
    }
}

/// A copy of the list of keyspaces, with the names of the groups worked out.
#[derive(Default, Debug)]
pub(crate) struct Routes {
    routes: RwLock<BTreeMap<KeyspaceName, Arc<Route>>>,
}

impl Routes {
    /// The shards of a keyspace, if it is known here.
    pub(crate) fn get(&self, keyspace: &KeyspaceName) -> Option<Arc<Route>> {
        self.routes.read().get(keyspace).cloned()
    }

    /// Takes over one keyspace, unless a newer one is known.
    pub(crate) fn learn(&self, keyspace: &Keyspace) -> Arc<Route> {
        self.learn_unless(keyspace, |answer, known| age(answer) <= age(known))
    }

    /// The same for an answer that was asked for because what is known was found wrong: what shards said does not count.
    pub(crate) fn correct(&self, keyspace: &Keyspace) -> Arc<Route> {
        self.learn_unless(keyspace, |answer, known| age(answer) < age(known))
    }

    fn learn_unless(
        &self,
        keyspace: &Keyspace,
        known_is_better: fn(&Keyspace, &Keyspace) -> bool,
    ) -> Arc<Route> {
        let mut routes = self.routes.write();
        if let Some(present) = routes.get(&keyspace.name)
            && known_is_better(keyspace, &present.keyspace)
        {
            return Arc::clone(present);
        }
        let route = Arc::new(Route::new(keyspace.clone()));
        routes.insert(keyspace.name.clone(), Arc::clone(&route));
        route
    }

    /// Takes over where a shard says that its range went.
    pub(crate) fn learn_gone(&self, keyspace: &KeyspaceName, generation: u64, gone: Gone) {
        let mut routes = self.routes.write();
        if let Some(present) = routes.get_mut(keyspace)
            && present.keyspace.generation == generation
            && let Some(route) = present.with(gone)
        {
            *present = Arc::new(route);
        }
    }

    /// The keyspace is not there any more, as an answer of that generation says.
    pub(crate) fn forget(&self, keyspace: &KeyspaceName, generation: u64) {
        let mut routes = self.routes.write();
        if routes.get(keyspace).is_some_and(|route| route.keyspace.generation <= generation) {
            routes.remove(keyspace);
        }
    }

    /// Forgets what an answer of that generation does not list; it lists keyspaces in the order of their names.
    pub(crate) fn retain(&self, keyspaces: &[Keyspace], generation: u64) {
        let listed =
            |name: &KeyspaceName| keyspaces.binary_search_by(|keyspace| keyspace.name.cmp(name)).is_ok();
        let mut routes = self.routes.write();
        routes.retain(|name, route| route.keyspace.generation > generation || listed(name));
    }
}

/// What makes one answer newer than another; answers may overtake each other.
fn age(keyspace: &Keyspace) -> (u64, bool, u64) {
    (keyspace.generation, keyspace.state == KeyspaceState::Ready, keyspace.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::keyspace::KeyspacePolicy;

    fn name() -> KeyspaceName {
        KeyspaceName::new("a").unwrap()
    }

    fn keyspace(generation: u64, state: KeyspaceState) -> Keyspace {
        let policy = KeyspacePolicy { shards: 5, ..KeyspacePolicy::of("bytes") };
        Keyspace { state, ..Keyspace::new(name(), policy, generation) }
    }

    #[test]
    fn a_key_goes_to_the_shard_whose_range_holds_its_hash() {
        let route = Route::new(keyspace(1, KeyspaceState::Ready));
        assert_eq!(route.shards().len(), 5);
        for n in 0..100 {
            let hash = Key::new(format!("key-{n}")).unwrap().hash();
            let shard = (0..5).find(|index| KeyRange::part(*index, 5).contains(hash)).unwrap();
            assert_eq!(route.shard(hash).group.as_str(), format!("kv/a/1.{shard}"));
        }
        assert_eq!((route.shard(0).number, route.shard(u64::MAX).number), (0, 4));
    }

    #[test]
    fn an_answer_that_was_overtaken_takes_nothing_back() {
        let routes = Routes::default();
        assert!(routes.get(&name()).is_none());
        assert!(routes.learn(&keyspace(2, KeyspaceState::Ready)).is_ready());
        assert!(routes.learn(&keyspace(2, KeyspaceState::Creating)).is_ready());
        assert!(routes.learn(&keyspace(1, KeyspaceState::Ready)).keyspace.generation == 2);
        assert!(!routes.learn(&keyspace(3, KeyspaceState::Creating)).is_ready());
        routes.forget(&name(), 2);
        assert!(routes.get(&name()).is_some(), "the answer was given before this one was registered");
        routes.forget(&name(), 3);
        assert!(routes.get(&name()).is_none());
    }

    #[test]
    fn what_a_shard_says_of_its_range_heals_the_route_until_the_list_says_more() {
        let routes = Routes::default();
        let ready = keyspace(1, KeyspaceState::Ready);
        routes.learn(&ready);
        let (_, range) = KeyRange::part(2, 5).split_at(KeyRange::part(2, 5).first() + 1000).unwrap();
        let gone = Gone { range, to: 9, move_id: 3 };
        routes.learn_gone(&name(), 7, gone);
        assert_eq!(routes.get(&name()).unwrap().shards().len(), 5, "another generation");
        routes.learn_gone(&name(), 1, gone);
        let route = routes.get(&name()).unwrap();
        let numbers: Vec<u32> = route.shards().iter().map(|shard| shard.number).collect();
        assert_eq!(numbers, [0, 1, 2, 9, 3, 4]);
        assert_eq!(route.shard(range.first()).number, 9);
        assert_eq!(route.shard(range.first() - 1).number, 2);
        routes.learn_gone(&name(), 1, Gone { to: 4, move_id: 2, ..gone });
        assert_eq!(routes.get(&name()).unwrap().shard(range.first()).number, 9, "an older move");
        assert_eq!(routes.learn(&ready).shards().len(), 6, "the list does not know it yet");
        assert_eq!(
            routes.correct(&ready).shards().len(),
            5,
            "the list was asked because the route was wrong"
        );
    }
}
