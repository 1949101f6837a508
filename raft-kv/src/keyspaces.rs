//! The list of keyspaces: a replicated value of its own, in the group `kv-keyspaces`.

use std::collections::BTreeMap;

use raft_fleet::rafted_value::{CommandContext, Data};
use serde::{Deserialize, Serialize};

use crate::keyspace::{Keyspace, KeyspaceName, KeyspacePolicy, KeyspaceState};

/// The largest number of keyspaces of a cluster.
const KEYSPACES_MAX: usize = 10_000;

/// Every keyspace of the cluster, and how far each has come.
///
/// A keyspace is registered first and its shards are made afterwards, each step repeatable, so that whoever finds a
/// keyspace that is still [`Creating`](KeyspaceState::Creating) can finish it.
#[derive(Default, Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Keyspaces {
    keyspaces: BTreeMap<KeyspaceName, Keyspace>,
    /// The generation of the newest keyspace there ever was.
    generation: u64,
}

/// The value in bytes; append-only.
#[derive(Serialize, Deserialize)]
enum Stored {
    V1 { keyspaces: Vec<Keyspace>, generation: u64 },
}

/// What changes the list; append-only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesCommand {
    /// Adds a keyspace, or finds it there.
    Register { name: KeyspaceName, policy: KeyspacePolicy },
    /// Every shard of the keyspace serves.
    MarkReady { name: KeyspaceName, generation: u64 },
}

/// What the list answers to a command; append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesReply {
    /// The keyspace is there, with the policy that was asked for.
    Registered(Keyspace),
    /// The keyspace is there, with another policy.
    OtherPolicy(Keyspace),
    /// The policy cannot work.
    InvalidPolicy(String),
    /// There are too many keyspaces.
    TooMany { limit: u64 },
    /// The keyspace is ready.
    Ready,
    /// There is no keyspace of this name and generation.
    NoSuchKeyspace,
}

/// What asks the list; append-only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesQuery {
    /// Every keyspace.
    List,
    /// One keyspace.
    Get { name: KeyspaceName },
}

impl Data for Keyspaces {
    const NAME: &'static str = "kv-keyspaces";
    type Command = KeyspacesCommand;
    type Reply = KeyspacesReply;
    type Query = KeyspacesQuery;
    /// In the order of their names.
    type Answer = Vec<Keyspace>;

    fn command(&mut self, _: &CommandContext, command: KeyspacesCommand) -> KeyspacesReply {
        match command {
            KeyspacesCommand::Register { name, policy } => self.register(name, policy),
            KeyspacesCommand::MarkReady { name, generation } => self.mark_ready(&name, generation),
        }
    }

    fn query(&self, query: KeyspacesQuery) -> Vec<Keyspace> {
        match query {
            KeyspacesQuery::List => self.keyspaces.values().cloned().collect(),
            KeyspacesQuery::Get { name } => self.keyspaces.get(&name).cloned().into_iter().collect(),
        }
    }
}

impl Keyspaces {
    fn register(&mut self, name: KeyspaceName, policy: KeyspacePolicy) -> KeyspacesReply {
        if let Err(reason) = policy.validate() {
            return KeyspacesReply::InvalidPolicy(reason);
        }
        match self.keyspaces.get(&name) {
            Some(present) if present.policy == policy => KeyspacesReply::Registered(present.clone()),
            Some(present) => KeyspacesReply::OtherPolicy(present.clone()),
            None if self.keyspaces.len() >= KEYSPACES_MAX => {
                KeyspacesReply::TooMany { limit: KEYSPACES_MAX as u64 }
            }
            None => {
                self.generation += 1;
                let state = KeyspaceState::Creating;
                let keyspace = Keyspace { name: name.clone(), policy, generation: self.generation, state };
                self.keyspaces.insert(name, keyspace.clone());
                KeyspacesReply::Registered(keyspace)
            }
        }
    }

    fn mark_ready(&mut self, name: &KeyspaceName, generation: u64) -> KeyspacesReply {
        match self.keyspaces.get_mut(name) {
            Some(keyspace) if keyspace.generation == generation => {
                keyspace.state = KeyspaceState::Ready;
                KeyspacesReply::Ready
            }
            _ => KeyspacesReply::NoSuchKeyspace,
        }
    }
}

impl From<Stored> for Keyspaces {
    fn from(stored: Stored) -> Self {
        let Stored::V1 { keyspaces, generation } = stored;
        let keyspaces = keyspaces.into_iter().map(|keyspace| (keyspace.name.clone(), keyspace)).collect();
        Self { keyspaces, generation }
    }
}

impl From<Keyspaces> for Stored {
    fn from(list: Keyspaces) -> Self {
        Self::V1 { keyspaces: list.keyspaces.into_values().collect(), generation: list.generation }
    }
}

#[cfg(test)]
mod tests {
    use raft_fleet::rafted_value::GroupConfig;

    use super::*;

    const CONTEXT: CommandContext = CommandContext { now_ms: 1, index: 1, seed: 1 };

    fn name(name: &str) -> KeyspaceName {
        KeyspaceName::new(name).unwrap()
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
        assert_eq!(again, KeyspacesReply::Registered(Keyspace { state: KeyspaceState::Ready, ..first }));
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
        assert_eq!(list.query(KeyspacesQuery::List), []);
    }

    #[test]
    fn only_the_generation_that_was_made_is_marked_ready() {
        let mut list = Keyspaces::default();
        register(&mut list, "a", KeyspacePolicy::of("bytes"));
        for (keyspace, generation) in [("a", 2), ("b", 1)] {
            let command = KeyspacesCommand::MarkReady { name: name(keyspace), generation };
            assert_eq!(list.command(&CONTEXT, command), KeyspacesReply::NoSuchKeyspace);
        }
        assert_eq!(list.query(KeyspacesQuery::Get { name: name("a") })[0].state, KeyspaceState::Creating);
        assert_eq!(list.query(KeyspacesQuery::Get { name: name("b") }), []);
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
        KeyspacePolicy { value_type: "v".into(), shards: 11, replicas: 12, group }
    }

    /// Old logs and snapshots are read again.
    #[test]
    fn the_bytes_of_the_list_and_its_commands_never_change() {
        let policy_bytes = [1, b'v', 11, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2];
        let command = KeyspacesCommand::Register { name: name("n"), policy: policy() };
        let register_bytes = [&[0, 1, b'n'][..], &policy_bytes].concat();
        assert_eq!(postcard::to_stdvec(&command).unwrap(), register_bytes);
        let command = KeyspacesCommand::MarkReady { name: name("n"), generation: 13 };
        assert_eq!(postcard::to_stdvec(&command).unwrap(), [1, 1, b'n', 13]);

        let keyspace =
            Keyspace { name: name("n"), policy: policy(), generation: 1, state: KeyspaceState::Ready };
        let list = Keyspaces { keyspaces: [(name("n"), keyspace)].into(), generation: 1 };
        let stored = [&[0, 1, 1, b'n'][..], &policy_bytes, &[1, 1, 1]].concat();
        let bytes = postcard::to_stdvec(&list).unwrap();
        assert_eq!(bytes, stored);
        let again: Keyspaces = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(again.query(KeyspacesQuery::List), list.query(KeyspacesQuery::List));
    }
}
