//! The disks of a seed's nodes, and what a member keeps through which kind of end.

use std::sync::Arc;

use parking_lot::Mutex;
use rafted_value::sim::{Sim, SimDisk};
use rafted_value::{Durability, NodeId};

use super::plan::DiskPlan;

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Its process, at once.
    Process,
    /// Its process, after its host was shut down.
    Politely,
    /// Its machine, and with it what was written but not synced.
    Power,
}

impl End {
    /// Whether a member of this durability has all it ever acknowledged when its node comes back.
    pub(super) fn spares(self, durability: Durability) -> bool {
        match durability {
            Durability::Memory => false,
            Durability::Async => self != End::Power,
            Durability::Fsync => true,
        }
    }
}

/// The disk of a place, and the node that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) node: NodeId,
    pub(super) disk: SimDisk,
}

impl Storage {
    /// An empty disk, on which a sync takes as long as the plan and the seed say.
    pub(super) fn new(sim: &Sim, plan: &DiskPlan) -> Self {
        let mut rng = sim.rng();
        let node = NodeId(rng.next_u64().max(1));
        let disk = SimDisk::new(sim.rng());
        let (world, longest, rng) = (sim.clone(), plan.sync_max, Mutex::new(rng));
        disk.set_sync_latency(Some(Arc::new(move || {
            let wait = rng.lock().duration(std::time::Duration::ZERO, longest);
            world.sleep(wait)
        })));
        Self { node, disk }
    }
}
