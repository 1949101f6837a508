//! How the agents of quotas that were deleted end: by a sweep of each shard, beside the looks at it.
//!
//! A sweep visits every agent of a shard, in command after command, and may take minutes where there are a million. It ends
//! the agents of many quotas at once, and nobody waits for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft_kv::LedShard;
use raft_kv::rafted_value::env::Env;
use raft_kv::rafted_value::{GroupId, encode};

use super::counts::QuotaLife;
use crate::wire::{AgentSweep, join};

/// Shards that are swept at a time.
const SHARDS_MAX: usize = 16;
/// Quotas of one sweep: a list of them has room in a command, however little an agent may be told.
const QUOTAS_MAX: usize = 128;

/// Sweeps shards, each by one task at a time.
pub(super) struct Ending {
    env: Arc<dyn Env>,
    busy: Arc<Mutex<BTreeSet<GroupId>>>,
}

impl Ending {
    pub(super) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, busy: Arc::default() }
    }

    /// Whether a shard is being swept.
    pub(super) fn is_busy(&self, group: GroupId) -> bool {
        self.busy.lock().contains(&group)
    }

    /// Begins to end the agents of quotas in a shard. Where that goes on already, or in too many others, nothing is begun:
    /// the ledger will say again what is to end.
    pub(super) fn begin(&self, shard: &LedShard, ended: &[QuotaLife]) {
        let group = shard.group();
        {
            let mut busy = self.busy.lock();
            if ended.is_empty() || busy.len() >= SHARDS_MAX || !busy.insert(group) {
                return;
            }
        }
        tracing::info!(%group, quotas = ended.len(), "the agents of deleted quotas end");
        let (shard, busy, sweeps) = (shard.clone(), Arc::clone(&self.busy), sweeps(ended));
        let sweep = async move {
            for (prefix, payload) in sweeps {
                if let Err(error) = shard.sweep(&prefix, &payload).await {
                    tracing::debug!(%group, %error, "the agents of deleted quotas have not all ended");
                    break;
                }
            }
            busy.lock().remove(&group);
        };
        self.env.spawn("quota-ending", Box::pin(sweep));
    }
}

/// What ends the agents of these quotas: with which bytes their keys begin, and what is done to them.
fn sweeps(ended: &[QuotaLife]) -> Vec<(Vec<u8>, Bytes)> {
    let sweep = |lives: &[QuotaLife]| {
        let payload = match lives {
            // Members of an earlier build know no other.
            [(_, generation)] => join(&AgentSweep::EndQuota { generation: *generation }, &[]),
            _ => {
                let list: Vec<u64> = lives.iter().map(|(_, generation)| *generation).collect();
                join(&AgentSweep::EndQuotas, &encode(&list))
            }
        };
        (common_prefix(lives), payload)
    };
    ended.chunks(QUOTAS_MAX).map(sweep).collect()
}

/// What the keys of all agents of these quotas begin with.
fn common_prefix(lives: &[QuotaLife]) -> Vec<u8> {
    let mut prefixes = lives.iter().map(|(quota, _)| format!("{}\0", quota.as_str()).into_bytes());
    let first = prefixes.next().unwrap_or_default();
    prefixes.fold(first, |mut common, prefix| {
        let alike = common.iter().zip(&prefix).take_while(|(one, other)| one == other).count();
        common.truncate(alike);
        common
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_id::QuotaName;

    fn life(name: &str, generation: u64) -> QuotaLife {
        (QuotaName::new(name).unwrap(), generation)
    }

    /// Each of a hundred quotas once had a sweep of the whole shard to itself.
    #[test]
    fn many_quotas_are_ended_by_one_sweep_and_few_of_an_earlier_kind() {
        let payload = |list: &[u64]| join(&AgentSweep::EndQuotas, &encode(&list.to_vec()));
        assert_eq!(sweeps(&[]), []);
        let one = join(&AgentSweep::EndQuota { generation: 3 }, &[]);
        assert_eq!(sweeps(&[life("a", 3)]), [(b"a\0".to_vec(), one)]);
        assert_eq!(sweeps(&[life("a", 3), life("ab", 4)]), [(b"a".to_vec(), payload(&[3, 4]))]);
        assert_eq!(sweeps(&[life("a", 3), life("a", 4)]), [(b"a\0".to_vec(), payload(&[3, 4]))]);
        let many: Vec<_> = (0..100).map(|n| life(&format!("{n}"), n)).collect();
        assert_eq!(sweeps(&many), [(vec![], payload(&(0..100).collect::<Vec<_>>()))]);
        let more: Vec<_> = (0..300).map(|n| life("x", n)).collect();
        assert_eq!(sweeps(&more).len(), 3);
    }
}
