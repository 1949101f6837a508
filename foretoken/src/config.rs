//! The limits of a set of buckets.

use std::time::Duration;

/// The limits of a [`Foretoken`](crate::Foretoken).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A bucket may be forgotten once it has been full for this long. Default: 10 minutes.
    ///
    /// A bucket that is not full is never forgotten, however long it has not been used: its debt would be, too.
    pub idle_threshold: Duration,
    /// The time between two passes that look for idle buckets. Default: 10 minutes.
    ///
    /// A pass is carried by the takes themselves, each looking at a few dozen slots; no thread or timer is behind it.
    /// [`Foretoken::keep_dropping_idle`](crate::Foretoken::keep_dropping_idle) makes whole passes at the same
    /// interval while nothing is taken.
    pub cleanup_interval: Duration,
    /// The most buckets kept at once. Default: 1,000,000 (32 to 64 MB with a key of 8 bytes).
    ///
    /// At the limit a take that needs a new bucket replaces a full one, idle or not; if none is found nearby, it ends
    /// with [`TakeError::TooManyBuckets`](crate::TakeError::TooManyBuckets).
    pub buckets_max: usize,
    /// The most callers that wait for one bucket. Default: 1,000.
    ///
    /// One more is refused with [`TakeError::TooManyWaiters`](crate::TakeError::TooManyWaiters).
    pub waiters_per_bucket_max: u32,
    /// The most callers that wait for all buckets together. Default: 100,000 (about 200 bytes each).
    ///
    /// One more is refused with [`TakeError::TooManyWaiters`](crate::TakeError::TooManyWaiters).
    pub waiters_max: usize,
    /// The most buckets of one [`take_all`](crate::Foretoken::take_all). Default: 32.
    pub take_all_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            idle_threshold: Duration::from_secs(600),
            cleanup_interval: Duration::from_secs(600),
            buckets_max: 1_000_000,
            waiters_per_bucket_max: 1_000,
            waiters_max: 100_000,
            take_all_max: 32,
        }
    }
}
