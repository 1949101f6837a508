//! What is sent to one peer, batch by batch, while somebody looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::lane::Lane;

/// Collections to one peer at one time.
const COLLECTIONS_MAX: usize = 16;

/// One batch that was handed to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct BatchStats {
    /// The lane.
    pub lane: Lane,
    /// Messages in it: casts, calls, answers.
    pub messages: usize,
    /// Their bytes, headers included.
    pub raw_bytes: usize,
    /// The bytes after compression; the overhead of QUIC, UDP and IP comes on top.
    pub sent_bytes: usize,
}

/// What was sent to one peer in a time.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct SendingStats {
    /// The batches, in order per lane.
    pub batches: Vec<BatchStats>,
    /// Batches past the limit, which are not in the list.
    pub batches_missed: u64,
}

impl SendingStats {
    /// Messages in all listed batches.
    pub fn messages(&self) -> usize {
        self.batches.iter().map(|batch| batch.messages).sum()
    }

    /// Bytes of their messages.
    pub fn raw_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.raw_bytes).sum()
    }

    /// Bytes that were sent for them.
    pub fn sent_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.sent_bytes).sum()
    }
}

/// Why nothing is collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// Nobody has named that node, and it is not connected.
    #[error("node {0} is not known")]
    UnknownNode(crate::id::NodeId),
    /// Others are collecting.
    #[error("{COLLECTIONS_MAX} collections for this node are under way")]
    TooMany,
}

/// Who looks at what is sent to one peer. It costs one load a batch while nobody does.
#[derive(Default)]
pub(crate) struct Collectors {
    count: AtomicUsize,
    collections: Mutex<Vec<Arc<Collection>>>,
}

struct Collection {
    batches_max: usize,
    stats: Mutex<SendingStats>,
}

/// A collection under way; it ends when this is dropped.
pub(crate) struct Collecting<'a> {
    collectors: &'a Collectors,
    collection: Arc<Collection>,
}

impl Collectors {
    /// Starts a collection of at most `batches_max`; `None` when there are too many.
    pub(crate) fn start(&self, batches_max: usize) -> Option<Collecting<'_>> {
        let collection = Arc::new(Collection { batches_max, stats: Mutex::default() });
        let mut collections = self.collections.lock();
        if collections.len() >= COLLECTIONS_MAX {
            return None;
        }
        collections.push(collection.clone());
        self.count.store(collections.len(), Ordering::Relaxed);
        Some(Collecting { collectors: self, collection })
    }

    /// Tells of a batch.
    pub(crate) fn record(&self, batch: BatchStats) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        for collection in &*self.collections.lock() {
            let mut stats = collection.stats.lock();
            if stats.batches.len() < collection.batches_max {
                stats.batches.push(batch);
            } else {
                stats.batches_missed += 1;
            }
        }
    }
}

impl Collecting<'_> {
    /// What has been collected.
    pub(crate) fn take(&self) -> SendingStats {
        std::mem::take(&mut *self.collection.stats.lock())
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        let mut collections = self.collectors.collections.lock();
        collections.retain(|collection| !Arc::ptr_eq(collection, &self.collection));
        self.collectors.count.store(collections.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_is_bounded_and_leaves_nothing_behind() {
        let collectors = Collectors::default();
        let batch = BatchStats { lane: Lane::Bulk, messages: 2, raw_bytes: 30, sent_bytes: 20 };
        collectors.record(batch);
        let collecting = collectors.start(3).unwrap();
        (0..5).for_each(|_| collectors.record(batch));
        let stats = collecting.take();
        assert_eq!((stats.batches.len(), stats.batches_missed), (3, 2));
        assert_eq!((stats.messages(), stats.raw_bytes(), stats.sent_bytes()), (6, 90, 60));
        let others: Vec<_> = (1..COLLECTIONS_MAX).map(|_| collectors.start(1).unwrap()).collect();
        assert!(collectors.start(1).is_none());
        drop((collecting, others));
        assert!(collectors.collections.lock().is_empty());
        assert_eq!(collectors.count.load(Ordering::Relaxed), 0);
    }
}
