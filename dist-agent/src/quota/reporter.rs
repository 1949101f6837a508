//! The task that tells the ledger what the shards hold that this node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use raft_kv::raft_fleet::{CallOptions, GroupName};
use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::{Freshness, GroupId, encode};
use raft_kv::{Kv, LedShard, Tally};

use super::ending::Ending;
use super::ledger::{COMMAND_BYTES_MAX, GROUP};
use super::places::part_of;
use super::wire::{LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply, Report, UnnamedReport};
use crate::agent_id::QuotaName;
use crate::config::VALUE_TYPE;

/// Shards that are counted at a time.
const SHARDS_MAX: usize = 16;
/// At every look of this number all shards are reported, changed or not. What the ledger was told of one may have been replaced by the
/// report of another that covered its range for a moment, as when a move is undone, and nobody here would know.
const ANEW_EVERY: u32 = 60;
/// Where a shard could not be reported at so many looks one after the other, that is more than a change of leaders.
const MISSED_WARN: u32 = 10;
/// A report names its quotas up to this size, so that a ledger of any build understands all that it ever could.
const NAMED_BYTES_MAX: u64 = COMMAND_BYTES_MAX / 3 * 2;

/// Counts agents and reports them.
pub(crate) struct Reporter {
    kv: Kv,
    group: GroupName,
    options: CallOptions,
    interval: Duration,
    ending: Ending,
}

/// What is known here of a shard that was led at the last look.
#[derive(Default)]
struct Seen {
    /// What it held when it was last reported.
    reported: Option<Tally>,
    /// At how many looks, one after the other, it could not be reported.
    missed: u32,
}

impl Reporter {
    pub(crate) fn new(kv: Kv, options: CallOptions, interval: Duration) -> Self {
        let ending = Ending::new(Arc::clone(kv.fleet().env()));
        Self { kv, group: GroupName::new(GROUP).expect("a short name"), options, interval, ending }
    }

    /// Reports a shard when what it holds has changed since it was last reported from here, when the ledger waits for a report
    /// of it, and now and then.
    pub(crate) async fn run(self) {
        let env = Arc::clone(self.kv.fleet().env());
        let mut seen = BTreeMap::<_, Seen>::new();
        for look in 1_u32.. {
            sleep(env.as_ref(), self.interval).await;
            if look.is_multiple_of(ANEW_EVERY) {
                seen.values_mut().for_each(|seen| seen.reported = None);
            }
            let shards = self.kv.led_shards(VALUE_TYPE).await;
            if shards.is_empty() {
                seen.clear();
                continue;
            }
            let waiting = self.waiting().await;
            let mut now = BTreeMap::new();
            for some in shards.chunks(SHARDS_MAX) {
                let looks = some.iter().map(|shard| {
                    let before = seen.remove(&shard.group()).unwrap_or_default();
                    self.look_at(shard, &waiting, before)
                });
                now.extend(join_all(looks).await);
            }
            // A shard that is led here again later is reported anew.
            seen = now;
        }
    }

    async fn look_at(&self, shard: &LedShard, waiting: &[u8], before: Seen) -> (GroupId, Seen) {
        let Seen { reported, missed } = before;
        let seen = match self.report_news(shard, waiting, reported).await {
            Ok(tally) => Seen { reported: Some(tally), missed: 0 },
            Err(reason) => {
                let (group, missed) = (shard.group(), missed.saturating_add(1));
                if missed.is_multiple_of(MISSED_WARN) {
                    tracing::warn!(%group, reason, missed, "a shard's agents cannot be reported: places stay taken");
                } else {
                    tracing::debug!(%group, reason, missed, "a shard's agents were not reported");
                }
                Seen { reported: None, missed }
            }
        };
        (shard.group(), seen)
    }

    /// Reports a shard if there is a reason to; what it held when that was last done.
    async fn report_news(
        &self,
        shard: &LedShard,
        waiting: &[u8],
        reported: Option<Tally>,
    ) -> Result<Tally, String> {
        let held = shard.read_tally().await.map_err(|error| error.to_string())?;
        let (first, last) = (part_of(held.range.first()), part_of(held.range.last()));
        let is_waited_for = waiting.iter().any(|part| (first..=last).contains(part));
        if !is_waited_for && reported.is_some_and(|tally| tally == held) {
            return Ok(held);
        }
        let tally = self.report(shard).await?;
        Ok(Tally { now_ms: 0, ..tally })
    }

    async fn report(&self, shard: &LedShard) -> Result<Tally, String> {
        // What is counted during a sweep may be over when the sweep is: the next look begins another where one is needed.
        let is_ending = self.ending.is_busy(shard.group());
        let tally = shard.tally().await.map_err(|error| error.to_string())?;
        let reply = self.kv.fleet().command(&self.group, 0, command_of(&tally), &self.options).await;
        let reply = reply.map_err(|error| error.to_string())?;
        match postcard::from_bytes(&reply) {
            Ok(LedgerReply::Ended(ended)) if !is_ending => self.ending.begin(shard, &ended),
            Ok(LedgerReply::Ended(_)) => {}
            other => return Err(format!("the answer is not understood: {other:?}")),
        }
        Ok(tally)
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

/// What the ledger is told of a shard: it is a command that the ledger takes, however many quotas there are.
fn command_of(tally: &Tally) -> Bytes {
    let (first, last, at_ms) = (tally.range.first(), tally.range.last(), tally.now_ms);
    // A tally of very many quotas names none of them; each has a generation of its own.
    if tally.counts.iter().all(|class| !class.prefix.is_empty()) {
        let counts: Vec<_> = tally.counts.iter().filter_map(count).collect();
        let command = encode(&LedgerCommand::Report(Report { first, last, at_ms, counts }));
        if command.len() as u64 <= NAMED_BYTES_MAX {
            return command;
        }
    }
    let counts = tally.counts.iter().map(|class| (class.tag, class.count)).collect();
    encode(&LedgerCommand::ReportUnnamed(UnnamedReport { first, last, at_ms, counts }))
}

/// What the ledger is told of a class: quotas are classes whose prefix is the quota's name and a zero.
fn count(class: &raft_kv::ClassCount) -> Option<(QuotaName, u64, u64)> {
    let name = class.prefix.strip_suffix(b"\0")?;
    let quota = QuotaName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((quota, class.tag, class.count))
}

#[cfg(test)]
mod tests {
    use raft_kv::rafted_value::{CommandContext, Data};
    use raft_kv::{ClassCount, KeyRange};

    use super::super::ledger::Ledger;
    use super::super::limit::QuotaLimit;
    use super::*;

    /// What a shard held of so many quotas of the longest names, two agents each.
    fn tally(quotas: u64) -> Tally {
        let range = KeyRange::new(0, u64::MAX).unwrap();
        let class = |n| ClassCount { prefix: format!("{n:0>255}\0").into_bytes(), tag: n + 1, count: 2 };
        Tally { range, now_ms: 10, counts: (0..quotas).map(class).collect() }
    }

    fn learn(ledger: &mut Ledger, command: &Bytes) -> LedgerReply {
        let context = CommandContext { now_ms: 20, index: 1, seed: 1 };
        ledger.command(&context, postcard::from_bytes(command).unwrap())
    }

    /// A report named every quota. One of 12,000 of the longest names was refused as too large, for ever: places that came
    /// free in its shard stayed taken, and no lease was over anywhere.
    #[test]
    fn a_report_of_as_many_quotas_as_there_may_be_is_one_that_the_ledger_takes() {
        const QUOTAS: u64 = 100_000;
        let mut ledger = Ledger::default();
        let name = |n: u64| QuotaName::new(format!("{n:0>255}")).unwrap();
        for n in 0..QUOTAS {
            let put = LedgerCommand::Put { quota: name(n), limit: QuotaLimit::Agents(3) };
            learn(&mut ledger, &encode(&put));
        }
        let command = command_of(&tally(QUOTAS));
        assert!(command.len() as u64 <= COMMAND_BYTES_MAX, "{} bytes", command.len());
        assert_eq!(learn(&mut ledger, &command), LedgerReply::Ended(vec![]));
        for n in [0, 77_777, QUOTAS - 1] {
            let LedgerAnswer::Usage(usage) = ledger.query(LedgerQuery::Usage { quota: name(n) }) else {
                panic!("no usage");
            };
            assert_eq!(usage.unwrap().agents, 2);
        }
    }

    /// A shard of so many quotas names none of them, and could once not be counted at all.
    #[test]
    fn a_tally_that_names_no_quota_is_reported() {
        let mut ledger = Ledger::default();
        let name = QuotaName::new("q").unwrap();
        let put = LedgerCommand::Put { quota: name.clone(), limit: QuotaLimit::Agents(3) };
        learn(&mut ledger, &encode(&put));
        let class = |tag| ClassCount { prefix: vec![], tag, count: 2 };
        let tally = Tally { counts: vec![class(1), class(2)], ..tally(0) };
        assert_eq!(learn(&mut ledger, &command_of(&tally)), LedgerReply::Ended(vec![]));
        let LedgerAnswer::Usage(usage) = ledger.query(LedgerQuery::Usage { quota: name }) else {
            panic!("no usage");
        };
        assert_eq!(usage.unwrap().agents, 2);
    }

    /// Nodes and ledgers of an earlier build know no other.
    #[test]
    fn a_report_that_can_name_its_quotas_does() {
        let command = postcard::from_bytes(&command_of(&tally(8_000))).unwrap();
        assert!(matches!(command, LedgerCommand::Report(Report { counts, .. }) if counts.len() == 8_000));
        let command = postcard::from_bytes(&command_of(&tally(9_000))).unwrap();
        assert!(
            matches!(command, LedgerCommand::ReportUnnamed(UnnamedReport { counts, .. }) if counts.len() == 9_000)
        );
    }
}
