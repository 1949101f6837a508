//! The engine's own counters, read out per seed: its metrics go to a recorder of the thread that runs the seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use super::tally::Tally;

/// What is read out, and how the table calls it.
const NAMES: [(&str, &str); 14] = [
    ("rafted_value_elections_won_total", "elections won"),
    ("rafted_value_snapshots_taken_total", "snapshots taken"),
    ("rafted_value_snapshots_restored_total", "snapshots installed"),
    ("rafted_value_peer_batches_dropped_total", "peer batches dropped"),
    ("rafted_value_reads_leased_total", "reads under a lease"),
    ("rafted_value_reads_confirmed_total", "reads confirmed by a round"),
    ("rafted_value_transfers_begun_total", "transfers begun"),
    ("rafted_value_transfers_done_total", "transfers done"),
    ("rafted_value_transfers_timed_out_total", "transfers timed out"),
    ("rafted_value_groups_quieted_total", "members that fell quiet"),
    ("rafted_value_groups_woken_total", "members that woke"),
    ("rafted_value_loops_doubted_total", "loops in doubt"),
    ("raft_kv_moves_total", "moves performed to their end"),
    ("raft_kv_moves_aborted_total", "moves that their performer gave up"),
];

/// Counts in memory; gauges and histograms are dropped.
#[derive(Default)]
pub(crate) struct Counters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counters {
    /// Adds what was counted.
    pub(crate) fn read_out(&self, tally: &mut Tally) {
        let counters = self.0.lock();
        for (metric, name) in NAMES {
            let count = counters.get(metric).map_or(0, |counter| counter.load(Ordering::Relaxed));
            tally.add(name, count);
        }
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.0.lock();
        let counter = match counters.get(key.name()) {
            Some(counter) => counter.clone(),
            None => counters.entry(key.name().to_owned()).or_default().clone(),
        };
        Counter::from_arc(counter)
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
