//! The task that tells the ledger what the shards hold that this node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use raft_kv::raft_fleet::{CallOptions, GroupName};
use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::{Freshness, GroupId, encode};
use raft_kv::{Kv, LedShard, Tally};

use super::ledger::GROUP;
use super::places::part_of;
use super::wire::{LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply, Report};
use crate::agent_id::QuotaName;
use crate::config::VALUE_TYPE;
use crate::wire::{AgentSweep, join};

/// Shards that are counted at a time.
const SHARDS_MAX: usize = 16;
/// At every look of this number all shards are reported, changed or not. What the ledger was told of one may have been replaced by the
/// report of another that covered its range for a moment, as when a move is undone, and nobody here would know.
const ANEW_EVERY: u32 = 60;

/// Counts agents and reports them.
pub(crate) struct Reporter {
    kv: Kv,
    group: GroupName,
    options: CallOptions,
    interval: Duration,
}

impl Reporter {
    pub(crate) fn new(kv: Kv, options: CallOptions, interval: Duration) -> Self {
        Self { kv, group: GroupName::new(GROUP).expect("a short name"), options, interval }
    }

    /// Reports a shard when what it holds has changed since it was last reported from here, when the ledger waits for a report
    /// of it, and now and then.
    pub(crate) async fn run(self) {
        let env = Arc::clone(self.kv.fleet().env());
        let mut reported = BTreeMap::new();
        for look in 1_u32.. {
            sleep(env.as_ref(), self.interval).await;
            if look.is_multiple_of(ANEW_EVERY) {
                reported.clear();
            }
            let shards = self.kv.led_shards(VALUE_TYPE).await;
            if shards.is_empty() {
                reported.clear();
                continue;
            }
            let waiting = self.waiting().await;
            let mut now = BTreeMap::new();
            for some in shards.chunks(SHARDS_MAX) {
                let looks =
                    some.iter().map(|shard| self.look_at(shard, &waiting, reported.get(&shard.group())));
                now.extend(join_all(looks).await.into_iter().flatten());
            }
            // A shard that is led here again later is reported anew.
            reported = now;
        }
    }

    async fn look_at(
        &self,
        shard: &LedShard,
        waiting: &[u8],
        reported: Option<&Tally>,
    ) -> Option<(GroupId, Tally)> {
        let held = shard.read_tally().await.ok()?;
        let (first, last) = (part_of(held.range.first()), part_of(held.range.last()));
        let is_waited_for = waiting.iter().any(|part| (first..=last).contains(part));
        if !is_waited_for && reported.is_some_and(|tally| *tally == held) {
            return Some((shard.group(), held));
        }
        match self.report(shard).await {
            Ok(tally) => Some((shard.group(), Tally { now_ms: 0, ..tally })),
            Err(reason) => {
                tracing::debug!(group = %shard.group(), reason, "a shard's agents were not reported");
                None
            }
        }
    }

    async fn report(&self, shard: &LedShard) -> Result<Tally, String> {
        let tally = shard.tally().await.map_err(|error| error.to_string())?;
        let report = Report {
            first: tally.range.first(),
            last: tally.range.last(),
            at_ms: tally.now_ms,
            counts: tally.counts.iter().filter_map(count).collect(),
        };
        let command = encode(&LedgerCommand::Report(report));
        let reply = self.kv.fleet().command(&self.group, 0, command, &self.options).await;
        let reply = reply.map_err(|error| error.to_string())?;
        match postcard::from_bytes(&reply) {
            Ok(LedgerReply::Ended(ended)) => self.end(shard, ended).await?,
            other => return Err(format!("the answer is not understood: {other:?}")),
        }
        Ok(tally)
    }

    /// Ends the agents of quotas that were deleted.
    async fn end(&self, shard: &LedShard, ended: Vec<(QuotaName, u64)>) -> Result<(), String> {
        for (quota, generation) in ended {
            let payload = join(&AgentSweep::EndQuota { generation }, &[]);
            let prefix = format!("{}\0", quota.as_str());
            tracing::info!(%quota, group = %shard.group(), "the agents of a deleted quota end");
            shard.sweep(prefix.as_bytes(), &payload).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Where the ledger waits for reports; a ledger that does not answer waits for none.
    async fn waiting(&self) -> Vec<u8> {
        let query = encode(&LedgerQuery::Waiting);
        let answer = self.kv.fleet().query(&self.group, Freshness::Latest, query, &self.options).await;
        match answer.map(|answer| postcard::from_bytes(&answer)) {
            Ok(Ok(LedgerAnswer::Waiting(parts))) => parts,
            _ => Vec::new(),
        }
    }
}

/// What the ledger is told of a class: quotas are classes whose prefix is the quota's name and a zero.
fn count(class: &raft_kv::ClassCount) -> Option<(QuotaName, u64, u64)> {
    let name = class.prefix.strip_suffix(b"\0")?;
    let quota = QuotaName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((quota, class.tag, class.count))
}
