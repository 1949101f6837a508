//! What must be true of shards, agents and quotas at every step, one file each.

mod moves_keep_agents;
mod one_shard_an_agent;
mod quota_kept;
mod ranges_cover_once;
mod replies_stay;

use std::collections::BTreeMap;

use dist_agent::raft_kv::sim::ShardShown;
use rafted_value::GroupId;

pub(super) use self::moves_keep_agents::moves_keep_agents;
pub(super) use self::one_shard_an_agent::one_shard_an_agent;
pub(super) use self::quota_kept::{alive, quota_kept};
pub(super) use self::ranges_cover_once::RangesCoverOnce;
pub(super) use self::replies_stay::RepliesStay;

/// What every shard has come to, by its group.
pub(super) type Shards = BTreeMap<GroupId, ShardShown>;

#[cfg(test)]
mod testing {
    use dist_agent::raft_kv::KeyRange;

    use super::*;

    /// The range of these hashes.
    pub(super) fn range(first: u64, last: u64) -> KeyRange {
        KeyRange::new(first, last).unwrap()
    }

    /// A shard that serves its whole range and holds these keys, each named after its hash.
    pub(super) fn serving(range: KeyRange, keys: &[u64]) -> ShardShown {
        let keys = keys.iter().map(|hash| (*hash, format!("storm\0{hash}").into_bytes().into()));
        ShardShown {
            range: Some(range),
            serves: Some(range),
            sends: None,
            receives: None,
            keys: keys.collect(),
        }
    }

    /// The same once it has given up a part that it sends.
    pub(super) fn giving(shard: &ShardShown, part: KeyRange) -> ShardShown {
        let serves = shard.range.and_then(|range| range.without(part));
        ShardShown { serves, sends: Some(part), ..shard.clone() }
    }

    /// Shards by numbers of groups from 1 on.
    pub(super) fn shards(all: &[ShardShown]) -> Shards {
        (1..).map(GroupId).zip(all.iter().cloned()).collect()
    }
}
