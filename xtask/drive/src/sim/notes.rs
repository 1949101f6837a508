//! What is known of one seed however it ends.

use std::time::Duration;

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
