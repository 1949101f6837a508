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
    pub cleanup_interval: Duration,
    /// The most buckets kept at once. Default: 1,000,000 (32 to 64 MB with a key of 8 bytes).
    ///
    /// At the limit a take that needs a new bucket replaces a full one, idle or not; if none is found nearby, it ends
    /// with [`TakeError::TooManyBuckets`](crate::TakeError::TooManyBuckets).
    pub buckets_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            idle_threshold: Duration::from_secs(600),
            cleanup_interval: Duration::from_secs(600),
            buckets_max: 1_000_000,
        }
    }
}
