//! What shards show to the harness of a simulation, and the faults that it can plant in them.

use raft_fleet::rafted_value::sim::Mutation;

use crate::key_range::KeyRange;

/// The receiver of a range that is split off gets no records of the commands that sessions have sent.
pub const DROP_SESSIONS_AT_SPLIT: Mutation = Mutation::Above("drop-sessions-at-split");

/// At a merge, of what came twice the older wins, as if the changes had been replayed backwards.
pub const REPLAY_MERGE_BACKWARDS: Mutation = Mutation::Above("replay-merge-backwards");

/// What a shard has come to with a command, shown by [`show`](raft_fleet::rafted_value::sim::show).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardShown {
    /// What it is responsible for. What it has given up is in it until its receiver is known to serve it.
    pub range: Option<KeyRange>,
    /// What it serves.
    pub serves: Option<KeyRange>,
    /// What is on its way to another shard.
    pub sends: Option<KeyRange>,
    /// What is on its way here.
    pub receives: Option<KeyRange>,
    /// The keys of its range that have values, each behind its hash, in order.
    pub keys: Vec<(u64, Box<[u8]>)>,
}
