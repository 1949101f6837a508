//! Groups that are removed and added again under the same name while their clients write: what was acknowledged comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::{Data, FleetError, GroupConfig};
use rafted_value::env::sleep;

use super::load::{Counted, Counter};
use super::world::REPLICAS;
use super::{Run, SECOND};

/// So many of the groups that are removed come back.
pub(super) const COMES_BACK: f64 = 0.6;
/// All groups are back within this time after the faults.
const BACK_MAX: Duration = Duration::from_secs(120);

impl Run<'_> {
    /// Removes a group, and adds it again under the same name after a while, from a node that nothing ends. Its client goes
    /// on, and so must its count.
    pub(super) fn remove_and_add(&mut self, counted: Arc<Counted>) {
        let (env, client) = self.client.clone().expect("it is connected before groups are added");
        if counted.away.swap(true, Ordering::Relaxed) {
            return;
        }
        let wait = self.more.duration(Duration::ZERO, 2 * SECOND);
        self.note(&format!("{} is removed, and added again after {wait:?}", counted.name));
        self.notes.tally.one("groups removed and added again");
        self.away.fetch_add(1, Ordering::Relaxed);
        let (away, door) = (self.away.clone(), env.clone());
        drop(self.world.sim.spawn_on(&env, async move {
            // What an attempt of unknown end has done is not done twice.
            while !matches!(
                client.remove_group(&counted.name).await,
                Ok(()) | Err(FleetError::NoSuchGroup { .. })
            ) {
                sleep(door.as_ref(), SECOND / 5).await;
            }
            sleep(door.as_ref(), wait).await;
            loop {
                let name = counted.name.clone();
                match client.add_group(name, Counter::NAME, REPLICAS, GroupConfig::default()).await {
                    Ok(_) | Err(FleetError::AlreadyAdded { .. }) => break,
                    Err(_) => sleep(door.as_ref(), SECOND / 5).await,
                }
            }
            counted.away.store(false, Ordering::Relaxed);
            away.fetch_sub(1, Ordering::Relaxed);
        }));
    }

    /// Waits until all groups that were removed to come back are there.
    pub(super) fn until_back(&mut self) -> Result<(), String> {
        let end = self.world.sim.elapsed() + BACK_MAX;
        while self.away.load(Ordering::Relaxed) > 0 {
            if self.world.sim.elapsed() >= end {
                return Err(format!("a group that was removed cannot be added again in {BACK_MAX:?}"));
            }
            self.world.steps.check()?;
            self.world.sim.run_for(SECOND / 10);
        }
        Ok(())
    }
}
