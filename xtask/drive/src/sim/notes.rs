//! What is known of one seed however it ends.

use std::time::Duration;

use rafted_value::sim::Sim;

use super::journal::Journal;
use super::tally::Tally;

/// Filled while a seed is played.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) journal: Journal,
    pub(crate) tally: Tally,
    pub(crate) virtual_time: Duration,
    /// For how long faults happened.
    pub(crate) faults_time: Duration,
    /// How long it took from the last fault until all was well.
    pub(crate) slowest_heal: Duration,
    /// Equal hashes, equal runs.
    pub(crate) trace_hash: u64,
}

impl Notes {
    /// Notes how far the simulation has come, and what its network did.
    pub(crate) fn read_out(&mut self, sim: &Sim) {
        self.virtual_time = sim.elapsed();
        self.trace_hash = sim.trace_hash();
        let stats = sim.stats();
        self.tally.add("messages delivered", stats.delivered);
        self.tally.add("messages lost", stats.lost);
        self.tally.add("messages duplicated", stats.duplicated);
        self.tally.add("messages reordered", stats.reordered);
    }
}
