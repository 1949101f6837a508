//! What shards and the ledger of quotas show as they change, held against what must be true of it at every step.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use dist_agent::raft_kv::sim::ShardShown;
use dist_agent::sim::QuotasShown;
use rafted_value::GroupId;
use rafted_value::sim::{WatchingShown, watch_shown};

use super::invariants::{RangesCoverOnce, Shards, alive, moves_keep_agents, one_shard_an_agent, quota_kept};
use super::moves::{Moves, moving};
use crate::sim::steps::{Scene, Steps};
use crate::sim::tally::Tally;

/// Watches all that is shown in a seed. Clones are handles of the same one.
#[derive(Clone, Default)]
pub(super) struct Shown(Rc<RefCell<Seen>>);

#[derive(Default)]
struct Seen {
    shards: Shards,
    quotas: Option<QuotasShown>,
    ranges: RangesCoverOnce,
    moves: Moves,
    complaint: Option<String>,
    changes: u64,
    leases: u64,
}

impl Shown {
    /// Begins to watch, until what is returned is dropped. The members' harness is told which groups move.
    pub(super) fn watch(&self, steps: &Steps) -> WatchingShown {
        let (seen, steps) = (self.0.clone(), steps.clone());
        watch_shown(move |group, shown| {
            if let Some(shard) = shown.downcast_ref::<ShardShown>() {
                steps.set_moving(group, moving(shard));
            }
            seen.borrow_mut().see(group, shown);
        })
    }

    /// What goes on around the shards from now on.
    pub(super) fn set_scene(&self, scene: Scene) {
        self.0.borrow_mut().moves.set_scene(scene);
    }

    /// How many ranges are on their way.
    pub(super) fn moves_under_way(&self) -> usize {
        self.0.borrow().moves.under_way()
    }

    /// # Errors
    ///
    /// The first thing that did not hold.
    pub(super) fn check(&self) -> Result<(), String> {
        self.0.borrow().complaint.clone().map_or(Ok(()), Err)
    }

    /// Adds what was seen.
    pub(super) fn read_out(&self, tally: &mut Tally) {
        let seen = self.0.borrow();
        tally.add("changes of shards and quotas checked", seen.changes);
        tally.add("leases of places in a quota", seen.leases);
        seen.moves.read_out(tally);
    }
}

impl Seen {
    fn see(&mut self, group: GroupId, shown: &dyn Any) {
        let holds = if let Some(shard) = shown.downcast_ref::<ShardShown>() {
            self.see_shard(group, shard)
        } else if let Some(quotas) = shown.downcast_ref::<QuotasShown>() {
            let before = self.quotas.replace(quotas.clone()).map_or(0, |before| before.leases);
            self.leases += quotas.leases.saturating_sub(before);
            self.changes += 1;
            self.check_quotas()
        } else {
            Ok(())
        };
        if let Err(complaint) = holds {
            self.complaint.get_or_insert(complaint);
        }
    }

    fn see_shard(&mut self, group: GroupId, shard: &ShardShown) -> Result<(), String> {
        if self.shards.get(&group) == Some(shard) {
            return Ok(());
        }
        self.changes += 1;
        let before = self.shards.insert(group, shard.clone());
        self.moves.sees(group, before.as_ref(), shard);
        if let Some(before) = &before {
            moves_keep_agents(group, before, shard, &self.shards)?;
        }
        self.ranges.holds(&self.shards)?;
        one_shard_an_agent(&self.shards)?;
        self.check_quotas()
    }

    fn check_quotas(&self) -> Result<(), String> {
        let quotas = self.quotas.iter().flat_map(|shown| &shown.quotas);
        quotas
            .into_iter()
            .try_for_each(|(quota, usage)| quota_kept(quota, *usage, alive(&self.shards, quota)))
    }
}
