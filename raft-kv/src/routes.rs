//! The way from a key to its shard's group, as far as this node knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use raft_fleet::GroupName;

use crate::key_range::KeyRange;
use crate::keyspace::{Keyspace, KeyspaceName, KeyspaceState};

/// The shards of one keyspace.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) keyspace: Keyspace,
    /// The group of each shard, in the order of their ranges.
    groups: Box<[GroupName]>,
}

impl Route {
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        let groups = (0..keyspace.policy.shards).map(|index| keyspace.name.shard_group(index)).collect();
        Self { keyspace, groups }
    }

    /// The group of the shard that a hash belongs to.
    pub(crate) fn group(&self, hash: u64) -> &GroupName {
        &self.groups[KeyRange::part_of(hash, self.keyspace.policy.shards) as usize]
    }

    /// The groups of all shards, in the order of their ranges.
    pub(crate) fn groups(&self) -> &[GroupName] {
        &self.groups
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.keyspace.state == KeyspaceState::Ready
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
    pub(crate) fn learn(&self, keyspace: Keyspace) -> Arc<Route> {
        let mut routes = self.routes.write();
        if let Some(present) = routes.get(&keyspace.name)
            && !is_newer(&keyspace, &present.keyspace)
        {
            return Arc::clone(present);
        }
        let name = keyspace.name.clone();
        let route = Arc::new(Route::new(keyspace));
        routes.insert(name, Arc::clone(&route));
        route
    }
}

/// Whether an answer tells more than what is known; answers may overtake each other.
fn is_newer(answer: &Keyspace, known: &Keyspace) -> bool {
    let age = |keyspace: &Keyspace| (keyspace.generation, keyspace.state == KeyspaceState::Ready);
    age(answer) > age(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::keyspace::KeyspacePolicy;

    fn keyspace(generation: u64, state: KeyspaceState) -> Keyspace {
        let policy = KeyspacePolicy { shards: 5, ..KeyspacePolicy::of("bytes") };
        Keyspace { name: KeyspaceName::new("a").unwrap(), policy, generation, state }
    }

    #[test]
    fn a_key_goes_to_the_shard_whose_range_holds_its_hash() {
        let route = Route::new(keyspace(1, KeyspaceState::Ready));
        assert_eq!(route.groups().len(), 5);
        for n in 0..100 {
            let hash = Key::new(format!("key-{n}")).unwrap().hash();
            let shard = (0..5).find(|index| KeyRange::part(*index, 5).contains(hash)).unwrap();
            assert_eq!(route.group(hash).as_str(), format!("kv/a/{shard}"));
        }
    }

    #[test]
    fn an_answer_that_was_overtaken_takes_nothing_back() {
        let routes = Routes::default();
        assert!(routes.get(&KeyspaceName::new("a").unwrap()).is_none());
        assert!(routes.learn(keyspace(2, KeyspaceState::Ready)).is_ready());
        assert!(routes.learn(keyspace(2, KeyspaceState::Creating)).is_ready());
        assert!(routes.learn(keyspace(1, KeyspaceState::Ready)).keyspace.generation == 2);
        assert!(!routes.learn(keyspace(3, KeyspaceState::Creating)).is_ready());
    }
}
