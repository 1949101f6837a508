//! The ledger: every quota, its limit, its places and its agents, and what the whole cluster shares; pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use raft_kv::rafted_value::{CommandContext, Data};
use serde::{Deserialize, Serialize};

use super::counts::{Counts, Part, QuotaLife};
use super::held::REUSE_MAX;
use super::limit::{QuotaLimit, QuotaUsage};
use super::places::{Places, StoredPlaces};
use super::versions::Versions;
use super::wire::{
    Ask, Given, LeaseTerms, LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply, PlaceFate, Report, Told,
    UnnamedReport,
};
use crate::agent_id::QuotaName;

/// The name of the ledger's group.
pub(crate) const GROUP: &str = "dist-agent-quotas";

/// The largest command to it, in bytes: as large as a group can take.
pub(crate) const COMMAND_BYTES_MAX: u64 = 3 << 20;

/// The largest number of quotas of a cluster, and of those that were deleted and whose agents may not all have ended.
const QUOTAS_MAX: usize = 100_000;
/// Quotas whose agents are to end, as one report is told; of the rest the next is.
const ENDED_MAX: usize = 1_000;
/// The longest time for which a place is good without being heard of.
pub(crate) const PASS_MAX_MS: u64 = 15 * 60_000;
/// For how long agents may be activated of which no place was taken, once an unlimited quota has got a limit: by those who
/// have not heard of it. A place is good for longer, for calls that are under way; whether there is room is not held up for those.
const UNLIMITED_MS: u64 = REUSE_MAX.as_millis() as u64;
/// Places of the smallest lease.
const LEASE_MIN: u64 = 2;
/// Names in one answer.
const LIST_MAX: usize = 1_000;

/// Every quota of the cluster.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Ledger {
    quotas: BTreeMap<QuotaName, Quota>,
    counts: Counts,
    places: Places,
    /// Quotas that were deleted and of which some shard may still hold agents, and until when such may still come to be.
    ended: BTreeMap<QuotaLife, u64>,
    generation: u64,
    place: u64,
    /// The length of a tick, as the first node said.
    tick_ms: Option<u32>,
    versions: Versions,
    /// Quotas that got a limit and had none before, and until when agents may be activated of which no place was taken. They
    /// have no place for anybody before all of these are counted.
    limited: BTreeMap<u64, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Quota {
    limit: QuotaLimit,
    /// Differs from that of every other quota there ever was, of the same name too.
    generation: u64,
}

/// The ledger in bytes; append-only.
#[derive(Serialize, Deserialize)]
enum Stored {
    V1(StoredLedger),
    /// With quotas that got a limit a moment ago.
    V2(StoredLedger, BTreeMap<u64, u64>),
}

#[derive(Serialize, Deserialize)]
struct StoredLedger {
    quotas: BTreeMap<QuotaName, Quota>,
    parts: Vec<Part>,
    places: StoredPlaces,
    ended: BTreeMap<QuotaLife, u64>,
    generation: u64,
    place: u64,
    tick_ms: Option<u32>,
    versions: Versions,
}

impl Data for Ledger {
    const NAME: &'static str = "dist-agent-quotas";
    type Command = LedgerCommand;
    type Reply = LedgerReply;
    type Query = LedgerQuery;
    type Answer = LedgerAnswer;

    fn command(&mut self, context: &CommandContext, command: LedgerCommand) -> LedgerReply {
        let reply = self.execute(context, command);
        #[cfg(feature = "sim")]
        raft_kv::rafted_value::sim::show(|| self.shown());
        reply
    }

    fn query(&self, query: LedgerQuery) -> LedgerAnswer {
        match query {
            LedgerQuery::List { after, max } => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let names = self.quotas.range((from, Bound::Unbounded)).map(|(name, _)| name.clone());
                LedgerAnswer::List(names.take(LIST_MAX.min(max as usize)).collect())
            }
            LedgerQuery::Usage { quota } => LedgerAnswer::Usage(self.usage(quota)),
            LedgerQuery::Waiting => LedgerAnswer::Waiting(self.waiting()),
            LedgerQuery::Agreed => LedgerAnswer::Agreed { tick_ms: self.tick_ms },
            LedgerQuery::Versions => {
                LedgerAnswer::Versions { agreed: self.versions.agreed(), nodes: self.versions.nodes() }
            }
            LedgerQuery::Generation { quota } => {
                LedgerAnswer::Generation(self.quotas.get(&quota).map(|quota| quota.generation))
            }
        }
    }

    fn command_kind(command: &LedgerCommand) -> &'static str {
        match command {
            LedgerCommand::Put { .. } => "put",
            LedgerCommand::Delete { .. } | LedgerCommand::DeleteThis { .. } => "delete",
            LedgerCommand::Places { .. } => "places",
            LedgerCommand::Report(_) | LedgerCommand::ReportUnnamed(_) => "report",
            LedgerCommand::Agree { .. } => "agree",
            LedgerCommand::Join(_) => "join",
        }
    }
}

impl Ledger {
    fn execute(&mut self, context: &CommandContext, command: LedgerCommand) -> LedgerReply {
        match command {
            LedgerCommand::Put { quota, limit } => self.put(quota, limit, context.now_ms),
            LedgerCommand::Delete { quota } => self.delete(quota, None, context.now_ms),
            LedgerCommand::DeleteThis { quota, generation } => {
                self.delete(quota, Some(generation), context.now_ms)
            }
            LedgerCommand::Places { asked, told, pass_ms } => {
                told.into_iter().for_each(|told| self.tell(told));
                let until_ms = context.now_ms.saturating_add(pass_ms.min(PASS_MAX_MS));
                LedgerReply::Places(asked.into_iter().map(|ask| self.give(ask, until_ms)).collect())
            }
            LedgerCommand::Report(report) => self.learn(&report),
            LedgerCommand::ReportUnnamed(report) => self.learn(&self.named(report)),
            LedgerCommand::Agree { tick_ms } => {
                LedgerReply::Agreed { tick_ms: *self.tick_ms.get_or_insert(tick_ms) }
            }
            LedgerCommand::Join(join) => match self.versions.join(join) {
                Ok(agreed) => LedgerReply::Joined(agreed),
                Err(mismatch) => LedgerReply::Mismatch(mismatch),
            },
        }
    }

    /// What it shows to the harness of a simulation.
    #[cfg(feature = "sim")]
    fn shown(&self) -> crate::sim::QuotasShown {
        let limited = self.quotas.iter().filter(|(_, quota)| quota.limit != QuotaLimit::Unlimited);
        let usages = limited.map(|(name, quota)| {
            let agents = self.reserved(&(name.clone(), quota.generation));
            (name.clone(), QuotaUsage { agents, limit: quota.limit })
        });
        crate::sim::QuotasShown { quotas: usages.collect(), leases: self.places.leases() }
    }

    fn put(&mut self, name: QuotaName, limit: QuotaLimit, now_ms: u64) -> LedgerReply {
        if let Some(quota) = self.quotas.get_mut(&name) {
            match (quota.limit, limit) {
                (_, QuotaLimit::Unlimited) => drop(self.limited.remove(&quota.generation)),
                (QuotaLimit::Unlimited, QuotaLimit::Agents(_)) => {
                    self.limited.insert(quota.generation, now_ms.saturating_add(UNLIMITED_MS));
                }
                (QuotaLimit::Agents(_), QuotaLimit::Agents(_)) => {}
            }
            quota.limit = limit;
            return LedgerReply::Done;
        }
        if self.quotas.len().max(self.ended.len()) >= QUOTAS_MAX {
            return LedgerReply::TooManyQuotas { limit: QUOTAS_MAX as u64 };
        }
        self.generation = self.generation.saturating_add(1);
        self.quotas.insert(name, Quota { limit, generation: self.generation });
        LedgerReply::Done
    }

    /// The quota is gone at once. Its agents end when their shards next report; those that are activated yet, with a place
    /// that was given before, end at the report after that.
    fn delete(&mut self, name: QuotaName, generation: Option<u64>, now_ms: u64) -> LedgerReply {
        let present = self.quotas.get(&name).map(|quota| quota.generation);
        let Some(generation) = present.filter(|present| generation.is_none_or(|asked| asked == *present))
        else {
            return LedgerReply::NoSuchQuota;
        };
        self.quotas.remove(&name);
        let life = (name, generation);
        self.places.forget(life.1);
        self.limited.remove(&life.1);
        self.ended.insert(life, now_ms.saturating_add(PASS_MAX_MS));
        LedgerReply::Done
    }

    fn tell(&mut self, told: Told) {
        let Self { places, counts, .. } = self;
        match told.fate {
            PlaceFate::Returned => places.give_back(told.place),
            PlaceFate::Used { at_ms } => places.used(told.place, at_ms, |hash| counts.at(hash)),
            PlaceFate::UsedOf { number, hash, at_ms } => {
                places.used_of((told.place, number), (hash, at_ms), counts.at(hash));
            }
            PlaceFate::ReturnedOf { number, places: count } => {
                places.give_back_of((told.place, number), count);
            }
        }
    }

    fn give(&mut self, ask: Ask, until_ms: u64) -> Given {
        let Some(Quota { limit, generation }) = self.quotas.get(&ask.quota).copied() else {
            return Given::NoSuchQuota;
        };
        let QuotaLimit::Agents(limit) = limit else {
            return Given::Unlimited { generation, until_ms };
        };
        let life = (ask.quota, generation);
        let (agents, sum) = (self.counts.total(&life), self.places.sum(generation));
        let room = match self.limited.contains_key(&generation) {
            true => 0,
            false => limit.saturating_sub(agents.saturating_add(sum.places)),
        };
        let (wanted, reserves) = (ask.hashes.len() as u64, !planted!(RESERVE_NO_QUOTA));
        let leased = ask.lease.map_or(0, |terms| lease_of(terms, room));
        if leased >= wanted.max(LEASE_MIN) {
            self.place = self.place.saturating_add(1);
            let (lease, places) = (self.place, u32::try_from(leased).unwrap_or(u32::MAX));
            if reserves {
                self.places.lease(lease, generation, places, until_ms);
            }
            return Given::Lease { lease, places, generation, until_ms };
        }
        let first = self.place.saturating_add(1);
        let given = wanted.min(room);
        for hash in ask.hashes.into_iter().take(usize::try_from(given).unwrap_or(usize::MAX)) {
            self.place = self.place.saturating_add(1);
            if reserves {
                self.places.take(self.place, generation, hash, until_ms);
            }
        }
        let places = u32::try_from(given).unwrap_or(u32::MAX);
        let unsure = agents.saturating_add(sum.places - sum.unsure).saturating_add(given) < limit;
        Given::Places { first, places, generation, until_ms, limit, unsure }
    }

    fn learn(&mut self, report: &Report) -> LedgerReply {
        if report.first <= report.last && self.counts.learn(report) {
            self.places.reported(report.first, report.last, report.at_ms);
            if let Some(oldest_ms) = self.counts.oldest().filter(|_| self.places.leases() > 0) {
                self.places.all_reported(oldest_ms);
            }
        }
        if !self.limited.is_empty() {
            let oldest = self.counts.oldest();
            self.limited.retain(|_, until_ms| oldest.is_none_or(|oldest| oldest <= *until_ms));
        }
        let ended = report.counts.iter().map(|(name, generation, _)| (name.clone(), *generation));
        let ended = ended.filter(|life| self.ended.contains_key(life)).take(ENDED_MAX).collect();
        if !self.ended.is_empty() {
            let (counts, oldest) = (&self.counts, self.counts.oldest());
            self.ended.retain(|life, until_ms| {
                counts.total(life) > 0 || oldest.is_none_or(|oldest| oldest <= *until_ms)
            });
        }
        LedgerReply::Ended(ended)
    }

    /// The report with the names of its quotas. What is told of one that is neither there nor ending counts nowhere.
    fn named(&self, report: UnnamedReport) -> Report {
        let UnnamedReport { first, last, at_ms, counts: unnamed } = report;
        let mut counted = BTreeMap::<u64, u64>::new();
        for (generation, count) in unnamed {
            let counted = counted.entry(generation).or_insert(0);
            *counted = counted.saturating_add(count);
        }
        let present = self.quotas.iter().map(|(name, quota)| (name, quota.generation));
        let ended = self.ended.keys().map(|(name, generation)| (name, *generation));
        let lives = ended.chain(present);
        let named = lives.filter_map(|(name, life)| Some((name.clone(), life, *counted.get(&life)?)));
        Report { first, last, at_ms, counts: named.collect() }
    }

    fn usage(&self, name: QuotaName) -> Option<QuotaUsage> {
        let Quota { limit, generation } = *self.quotas.get(&name)?;
        let life = (name, generation);
        let agents = self.reserved(&life) - self.places.sum(generation).leased;
        Some(QuotaUsage { agents, limit })
    }

    /// How many agents a quota has and may get by places that are taken or leased.
    fn reserved(&self, life: &QuotaLife) -> u64 {
        self.counts.total(life).saturating_add(self.places.sum(life.1).places)
    }

    /// Where reports would let something go. A quota that was deleted waits for them only while agents of it are counted: one
    /// that is activated yet changes what its shard holds, which is reported for that alone.
    fn waiting(&self) -> Vec<u8> {
        let ending = self.ended.keys().any(|life| self.counts.total(life) > 0);
        if ending || !self.limited.is_empty() || self.places.leases() > 0 {
            return (0..=u8::MAX).collect();
        }
        self.places.parts().into_iter().collect()
    }
}

/// How many places a lease gets where there is room for so many.
fn lease_of(terms: LeaseTerms, room: u64) -> u64 {
    room.checked_div(u64::from(terms.share)).unwrap_or(0).min(u64::from(terms.places_max))
}

impl From<Stored> for Ledger {
    fn from(stored: Stored) -> Self {
        let (stored, limited) = match stored {
            Stored::V1(stored) => (stored, BTreeMap::new()),
            Stored::V2(stored, limited) => (stored, limited),
        };
        let StoredLedger { quotas, parts, places, ended, generation, place, tick_ms, versions } = stored;
        let (counts, places) = (Counts::of(parts), places.into());
        Self { quotas, counts, places, ended, generation, place, tick_ms, versions, limited }
    }
}

impl From<Ledger> for Stored {
    fn from(ledger: Ledger) -> Self {
        let Ledger { quotas, counts, places, ended, generation, place, tick_ms, versions, limited } = ledger;
        let (parts, places) = (counts.parts(), places.into());
        let stored = StoredLedger { quotas, parts, places, ended, generation, place, tick_ms, versions };
        // What is as it could always be is written as it always was.
        if limited.is_empty() { Self::V1(stored) } else { Self::V2(stored, limited) }
    }
}

#[cfg(test)]
mod tests;
