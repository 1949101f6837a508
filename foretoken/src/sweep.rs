//! When the next few slots are swept, and of which shard: a pass over all shards that takes carry along.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// The progress of the passes that look for idle buckets.
pub(crate) struct Sweep {
    interval_nanos: u64,
    /// When the next pass starts; in the past while one is under way.
    due_nanos: AtomicU64,
    /// The shard that the pass has come to.
    shard: Mutex<usize>,
}

impl Sweep {
    pub(crate) fn new(now_nanos: u64, interval_nanos: u64) -> Sweep {
        Sweep {
            interval_nanos,
            due_nanos: AtomicU64::new(now_nanos.saturating_add(interval_nanos)),
            shard: Mutex::new(0),
        }
    }

    /// Whether a pass is due or under way.
    #[inline]
    pub(crate) fn is_due(&self, now_nanos: u64) -> bool {
        // Relaxed: a stale reading moves a step of the sweep by one take, nothing else.
        now_nanos >= self.due_nanos.load(Ordering::Relaxed)
    }

    /// The shard to examine next, if nobody else is at it.
    pub(crate) fn begin(&self) -> Option<MutexGuard<'_, usize>> {
        self.shard.try_lock()
    }

    /// Moves on from a shard whose end was reached.
    pub(crate) fn shard_done(&self, shard: &mut usize, shards: usize, now_nanos: u64) {
        *shard += 1;
        if *shard >= shards {
            *shard = 0;
            self.due_nanos.store(now_nanos.saturating_add(self.interval_nanos), Ordering::Relaxed);
        }
    }
}
