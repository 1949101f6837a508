//! A quota is never overshot, and the ledger never counts fewer agents than there are.

use dist_agent::raft_kv::sim::ShardShown;
use dist_agent::{QuotaLimit, QuotaName, QuotaUsage};

use super::Shards;

/// How many agents of a quota there are: those that are served, and those of ranges that were given up and not taken in.
pub(in crate::sim::stack) fn alive(shards: &Shards, quota: &QuotaName) -> u64 {
    let is_served =
        |hash: u64| shards.values().any(|shard| shard.serves.is_some_and(|range| range.contains(hash)));
    let lives = |shard: &ShardShown, hash: u64| {
        shard.serves.is_some_and(|range| range.contains(hash)) || !is_served(hash)
    };
    let of_quota =
        |key: &[u8]| key.strip_prefix(quota.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
    let count = |shard: &ShardShown| {
        shard.keys.iter().filter(|(hash, key)| of_quota(key) && lives(shard, *hash)).count() as u64
    };
    shards.values().map(count).sum()
}

/// # Errors
///
/// More agents than the limit, or more than the ledger knows of.
pub(in crate::sim::stack) fn quota_kept(
    quota: &QuotaName,
    usage: QuotaUsage,
    alive: u64,
) -> Result<(), String> {
    let QuotaUsage { agents, limit } = usage;
    match limit {
        QuotaLimit::Agents(limit) if alive > limit => {
            Err(format!("{alive} agents are active in the quota {quota} of {limit}"))
        }
        _ if alive > agents => {
            Err(format!("{alive} agents are active in the quota {quota}, and its ledger counts {agents}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{giving, range, serving, shards};
    use super::*;

    #[test]
    fn an_overshot_quota_and_a_ledger_that_counts_too_few_are_found() {
        let quota = QuotaName::new("storm").unwrap();
        let check =
            |agents, alive| quota_kept(&quota, QuotaUsage { agents, limit: QuotaLimit::Agents(3) }, alive);
        assert_eq!(check(3, 3), Ok(()));
        assert_eq!(check(4, 2), Ok(()));
        assert!(check(4, 4).unwrap_err().contains("4 agents are active in the quota storm of 3"));
        assert!(check(1, 2).unwrap_err().contains("its ledger counts 1"));
    }

    #[test]
    fn an_agent_on_its_way_counts_once() {
        let quota = QuotaName::new("storm").unwrap();
        let part = range(50, u64::MAX);
        let sender = giving(&serving(range(0, u64::MAX), &[5, 60, 70]), part);
        assert_eq!(alive(&shards(std::slice::from_ref(&sender)), &quota), 3);
        assert_eq!(alive(&shards(&[sender.clone(), serving(part, &[60, 70])]), &quota), 3);
        // One has ended since, which its old shard does not know.
        assert_eq!(alive(&shards(&[sender, serving(part, &[70])]), &quota), 2);
        assert_eq!(alive(&shards(&[serving(part, &[70])]), &QuotaName::new("stor").unwrap()), 0);
    }
}
