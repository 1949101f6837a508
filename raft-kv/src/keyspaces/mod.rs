//! The list of keyspaces: a replicated value of its own, in the group `kv-keyspaces`.

mod moves;

use std::collections::BTreeMap;
use std::ops::Bound;

use raft_fleet::GroupName;
use raft_fleet::rafted_value::{CommandContext, Data, NodeId};
use serde::{Deserialize, Serialize};

pub(crate) use self::moves::MoveReport;
pub use self::moves::{Move, MoveKind, MovePhase, MoveRefusal};
use crate::keyspace::{Keyspace, KeyspaceName, KeyspacePolicy, KeyspaceState, SplitMergePolicy};

/// The largest number of keyspaces of a cluster.
const KEYSPACES_MAX: usize = 10_000;
/// Bytes of keyspaces in one answer, unless one alone has more; far below what a message holds.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Every keyspace of the cluster, and how far each has come; and the moves of ranges between their shards.
///
/// A keyspace is registered first and its shards are made afterwards, each step repeatable, so that whoever finds a
/// keyspace that is still [`Creating`](KeyspaceState::Creating) can finish it. One that is deregistered is gone from the
/// list at once, with its moves, whatever they are doing: its groups are nobody's from then on, and are removed by
/// whoever finds them.
#[derive(Default, Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Keyspaces {
    keyspaces: BTreeMap<KeyspaceName, Keyspace>,
    /// The generation of the newest keyspace there ever was.
    generation: u64,
    moves: BTreeMap<u64, Move>,
    /// The newest move there ever was.
    newest_move: u64,
}

/// The value in bytes; append-only.
#[derive(Serialize, Deserialize)]
enum Stored {
    V1 { keyspaces: Vec<Keyspace>, generation: u64, moves: Vec<Move>, newest_move: u64 },
}

/// What changes the list; append-only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesCommand {
    /// Adds a keyspace, or finds it there.
    Register { name: KeyspaceName, policy: KeyspacePolicy },
    /// Every shard of the keyspace serves.
    MarkReady { name: KeyspaceName, generation: u64 },
    /// Removes whatever keyspace has the name.
    Deregister { name: KeyspaceName },
    /// Changes when a keyspace's shards are split and merged.
    SetPolicy { name: KeyspaceName, policy: SplitMergePolicy },
    /// Begins a split: what a shard has from `at` on becomes a new shard.
    Split { name: KeyspaceName, generation: u64, shard: u32, at: u64, moves_max: u32 },
    /// Begins a merge of two neighbours.
    Merge { name: KeyspaceName, generation: u64, from: u32, to: u32, moves_max: u32 },
    /// A node wants to perform a move that nobody performs, or whose performer is gone, as far as it knows.
    Claim { node: NodeId, gone: Option<NodeId>, lease_ms: u64 },
    /// The performer of a move tells of it.
    Report { id: u64, epoch: u64, report: MoveReport },
    /// A node wants to perform anew the move that it performed in this epoch, of which its present life knows nothing.
    Resume { id: u64, epoch: u64, node: NodeId, lease_ms: u64 },
    /// Removes a keyspace, and no other that got its name since.
    DeregisterThis { name: KeyspaceName, generation: u64 },
}

/// What the list answers to a command; append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesReply {
    /// The keyspace is there, with the policy that was asked for.
    Registered(Box<Keyspace>),
    /// The keyspace is there, with another policy.
    OtherPolicy(Box<Keyspace>),
    /// The policy cannot work.
    InvalidPolicy(String),
    /// There are too many keyspaces.
    TooMany { limit: u64 },
    /// The keyspace is ready.
    Ready,
    /// There is no keyspace of this name and generation.
    NoSuchKeyspace,
    /// The keyspace is there no more; it had these shards, and numbers of shards below this.
    Deregistered { generation: u64, next_shard: u32 },
    /// The keyspace has the policy.
    PolicySet(Box<Keyspace>),
    /// The move is under way.
    Moving(Move),
    /// The move does not begin.
    MoveRefused(MoveRefusal),
    /// No move waits for a performer, or the one of this number and epoch is over or another's.
    NoMove,
}

/// What asks the list; append-only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesQuery {
    /// Every keyspace, in one answer.
    List,
    /// One keyspace.
    Get { name: KeyspaceName },
    /// Every move, without the keyspaces.
    Moves,
    /// The keyspaces behind this name, or all of them, as many as one answer holds.
    Page { after: Option<KeyspaceName> },
}

/// What the list answers to a query; append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum KeyspacesAnswer {
    /// What was asked for, all as it was at one moment.
    V1(Listed),
    /// The first of what was asked for, and whether there are more behind them.
    Page { listed: Listed, more: bool },
}

/// Keyspaces with what is under way between their shards.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// In the order of their names.
    pub(crate) keyspaces: Vec<Keyspace>,
    /// The generation of the newest keyspace there ever was.
    pub(crate) generation: u64,
    /// In the order of their numbers.
    pub(crate) moves: Vec<Move>,
}

impl Listed {
    /// Adds the keyspaces behind these, which were asked for later.
    ///
    /// What is said of generations stays what was said with the first: whatever is registered between two answers is
    /// newer, and may be in neither.
    pub(crate) fn join(&mut self, behind: Listed) {
        self.keyspaces.extend(behind.keyspaces);
        self.moves.extend(behind.moves);
        self.moves.sort_by_key(|present| present.id);
    }

    /// Whether a group is a shard's that has ended, or never came to be: its generation or its number was given out
    /// before this list was read, and is in no use. Neither is ever used again.
    pub(crate) fn is_stray(&self, group: &GroupName) -> bool {
        let Some((name, generation, shard)) = KeyspaceName::parse_shard_group(group) else { return false };
        let place = self.keyspaces.binary_search_by(|keyspace| keyspace.name.cmp(&name));
        let present = place.ok().map(|place| &self.keyspaces[place]);
        match present.filter(|keyspace| keyspace.generation == generation) {
            None => generation <= self.generation,
            Some(keyspace) => {
                let moves = self.moves.iter().any(|present| {
                    present.generation == generation && [present.from, present.to].contains(&shard)
                });
                shard < keyspace.next_shard && keyspace.shard(shard).is_none() && !moves
            }
        }
    }
}

impl Data for Keyspaces {
    const NAME: &'static str = "kv-keyspaces";
    type Command = KeyspacesCommand;
    type Reply = KeyspacesReply;
    type Query = KeyspacesQuery;
    type Answer = KeyspacesAnswer;

    fn command(&mut self, context: &CommandContext, command: KeyspacesCommand) -> KeyspacesReply {
        let now_ms = context.now_ms;
        let started = match command {
            KeyspacesCommand::Register { name, policy } => return self.register(name, policy),
            KeyspacesCommand::MarkReady { name, generation } => return self.mark_ready(&name, generation),
            KeyspacesCommand::Deregister { name } => return self.deregister(&name, None),
            KeyspacesCommand::DeregisterThis { name, generation } => {
                return self.deregister(&name, Some(generation));
            }
            KeyspacesCommand::SetPolicy { name, policy } => return self.set_policy(&name, policy),
            KeyspacesCommand::Split { name, generation, shard, at, moves_max } => {
                self.start_split(&name, generation, shard, at, moves_max)
            }
            KeyspacesCommand::Merge { name, generation, from, to, moves_max } => {
                self.start_merge(&name, generation, from, to, moves_max)
            }
            KeyspacesCommand::Claim { node, gone, lease_ms } => {
                self.claim(now_ms, node, gone, lease_ms).ok_or(KeyspacesReply::NoMove)
            }
            KeyspacesCommand::Report { id, epoch, report } => {
                self.hear(now_ms, id, epoch, report).ok_or(KeyspacesReply::NoMove)
            }
            KeyspacesCommand::Resume { id, epoch, node, lease_ms } => {
                self.resume(now_ms, id, epoch, node, lease_ms).ok_or(KeyspacesReply::NoMove)
            }
        };
        started.map_or_else(|refused| refused, KeyspacesReply::Moving)
    }

    fn query(&self, query: KeyspacesQuery) -> KeyspacesAnswer {
        let keyspaces: Vec<Keyspace> = match query {
            KeyspacesQuery::List => self.keyspaces.values().cloned().collect(),
            KeyspacesQuery::Get { name } => self.keyspaces.get(&name).cloned().into_iter().collect(),
            KeyspacesQuery::Moves => {
                let (generation, moves) = (self.generation, self.moves.values().cloned().collect());
                return KeyspacesAnswer::V1(Listed { keyspaces: Vec::new(), generation, moves });
            }
            KeyspacesQuery::Page { after } => {
                let (keyspaces, more) = self.page(after.as_ref());
                return KeyspacesAnswer::Page { listed: self.with_moves(keyspaces), more };
            }
        };
        KeyspacesAnswer::V1(self.with_moves(keyspaces))
    }
}

impl Keyspaces {
    /// The first keyspaces behind a name, and whether there are more.
    fn page(&self, after: Option<&KeyspaceName>) -> (Vec<Keyspace>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut keyspaces, mut bytes) = (Vec::new(), 0);
        for keyspace in self.keyspaces.range::<KeyspaceName, _>((from, Bound::Unbounded)).map(|(_, of)| of) {
            bytes += about_bytes(keyspace);
            if bytes > PAGE_BYTES_MAX && !keyspaces.is_empty() {
                return (keyspaces, true);
            }
            keyspaces.push(keyspace.clone());
        }
        (keyspaces, false)
    }

    fn with_moves(&self, keyspaces: Vec<Keyspace>) -> Listed {
        let of_listed =
            |present: &&Move| keyspaces.iter().any(|keyspace| keyspace.generation == present.generation);
        let moves = self.moves.values().filter(of_listed).cloned().collect();
        Listed { keyspaces, generation: self.generation, moves }
    }

    fn register(&mut self, name: KeyspaceName, policy: KeyspacePolicy) -> KeyspacesReply {
        if let Err(reason) = policy.validate_as_listed() {
            return KeyspacesReply::InvalidPolicy(reason);
        }
        match self.keyspaces.get(&name) {
            Some(present) if [&present.policy, &present.registered].contains(&&policy) => {
                KeyspacesReply::Registered(Box::new(present.clone()))
            }
            Some(present) => KeyspacesReply::OtherPolicy(Box::new(present.clone())),
            None if self.keyspaces.len() >= KEYSPACES_MAX => {
                KeyspacesReply::TooMany { limit: KEYSPACES_MAX as u64 }
            }
            None => {
                self.generation += 1;
                let keyspace = Keyspace::new(name.clone(), policy, self.generation);
                self.keyspaces.insert(name, keyspace.clone());
                KeyspacesReply::Registered(Box::new(keyspace))
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

    fn deregister(&mut self, name: &KeyspaceName, wanted: Option<u64>) -> KeyspacesReply {
        let present = self.keyspaces.get(name);
        let present = present.filter(|present| wanted.is_none_or(|wanted| present.generation == wanted));
        let Some(&Keyspace { generation, next_shard, .. }) = present else {
            return KeyspacesReply::NoSuchKeyspace;
        };
        self.keyspaces.remove(name);
        self.moves.retain(|_, present| present.generation != generation);
        KeyspacesReply::Deregistered { generation, next_shard }
    }

    fn set_policy(&mut self, name: &KeyspaceName, policy: SplitMergePolicy) -> KeyspacesReply {
        if let Err(reason) = policy.validate() {
            return KeyspacesReply::InvalidPolicy(reason);
        }
        let Some(keyspace) = self.keyspaces.get_mut(name) else { return KeyspacesReply::NoSuchKeyspace };
        keyspace.policy.split_merge = policy;
        keyspace.revision += 1;
        KeyspacesReply::PolicySet(Box::new(keyspace.clone()))
    }
}

/// No less than a keyspace takes in an answer.
fn about_bytes(keyspace: &Keyspace) -> usize {
    let Keyspace { name, policy, registered, shards, .. } = keyspace;
    name.as_str().len()
        + policy.value_type.len()
        + registered.value_type.len()
        + KEYSPACE_BYTES
        + shards.len() * SHARD_BYTES
}

/// The most that a keyspace takes in an answer beside its names and its shards.
const KEYSPACE_BYTES: usize = 500;
/// ... and one of its shards.
const SHARD_BYTES: usize = 45;

impl From<Stored> for Keyspaces {
    fn from(stored: Stored) -> Self {
        let Stored::V1 { keyspaces, generation, moves, newest_move } = stored;
        let keyspaces = keyspaces.into_iter().map(|keyspace| (keyspace.name.clone(), keyspace)).collect();
        let moves = moves.into_iter().map(|present| (present.id, present)).collect();
        Self { keyspaces, generation, moves, newest_move }
    }
}

impl From<Keyspaces> for Stored {
    fn from(list: Keyspaces) -> Self {
        let Keyspaces { keyspaces, generation, moves, newest_move } = list;
        let (keyspaces, moves) = (keyspaces.into_values().collect(), moves.into_values().collect());
        Self::V1 { keyspaces, generation, moves, newest_move }
    }
}

#[cfg(test)]
mod tests;
