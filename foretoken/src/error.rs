//! What can be wrong with a rate and with a take.

use std::time::Duration;

use thiserror::Error;

/// Why a rate cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RateError {
    /// No token a second would never fill a bucket, and one token per no time is no limit.
    #[error("a rate must be above zero and finite")]
    Zero,
    /// Periods are whole nanoseconds.
    #[error("{tokens} tokens a second are more than one a nanosecond")]
    TooFast {
        /// The tokens a second that were asked for.
        tokens: u32,
    },
    /// The period is above 2^62 ns.
    #[error("one token per {period:?} is slower than one in 146 years")]
    TooSlow {
        /// The period that was asked for.
        period: Duration,
    },
}

/// Why no token was taken. The bucket holds as many tokens as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TakeError {
    /// The bucket holds too few tokens now.
    ///
    /// After `wait`, at the same rate and capacity, it holds enough, unless somebody else took some in between. Those
    /// who wait in line now are counted in.
    #[error("not enough tokens for another {wait:?}")]
    NotEnoughTokens {
        /// How long to wait before trying again: at least 1 ms.
        wait: Duration,
    },
    /// The bucket does not exist, and the caller asked not to make it.
    #[error("no such bucket")]
    NoSuchBucket,
    /// No bucket of this capacity ever holds that many tokens; waiting is useless.
    #[error("{n} tokens are more than the capacity {capacity}")]
    MoreThanCapacity {
        /// The tokens asked for.
        n: u32,
        /// The capacity of the bucket.
        capacity: u32,
    },
    /// A bucket of this capacity and rate would take longer than 2^62 ns to fill.
    #[error("{capacity} tokens at one per {period:?} take more than 146 years to fill")]
    FillsTooSlowly {
        /// The capacity of the bucket.
        capacity: u32,
        /// The time in which one token is added.
        period: Duration,
    },
    /// Making the bucket would exceed [`Config::buckets_max`](crate::Config::buckets_max).
    #[error("the limit of {limit} buckets is reached")]
    TooManyBuckets {
        /// The limit.
        limit: usize,
    },
    /// Waiting would exceed [`Config::waiters_per_bucket_max`](crate::Config::waiters_per_bucket_max) or
    /// [`Config::waiters_max`](crate::Config::waiters_max).
    #[error("the limit of {limit} waiting callers is reached")]
    TooManyWaiters {
        /// The limit that is reached.
        limit: usize,
    },
}

impl TakeError {
    /// How long to wait before trying again; `None` if time alone does not help.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            TakeError::NotEnoughTokens { wait } => Some(*wait),
            _ => None,
        }
    }
}

/// Why [`take_all`](crate::Foretoken::take_all) took no token. All buckets hold as many tokens as before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TakeAllError<K> {
    /// One of the buckets refuses.
    ///
    /// If several lack tokens this is the one with the longest wait, the first of them if they are equal; a bucket
    /// that refuses for another reason comes before all that lack tokens.
    #[error("bucket {key:?}: {error}")]
    Refused {
        /// The bucket.
        key: K,
        /// Its place in the list, from zero.
        index: usize,
        /// What it lacks. After [`TakeError::wait`] all buckets have enough, unless somebody else took some.
        error: TakeError,
    },
    /// A bucket is in the list twice.
    #[error("bucket {key:?} is asked for twice")]
    SameBucketTwice {
        /// The bucket.
        key: K,
    },
    /// The list is longer than [`Config::take_all_max`](crate::Config::take_all_max).
    #[error("{buckets} buckets at once are more than the limit of {limit}")]
    TooManyBuckets {
        /// The buckets asked for.
        buckets: usize,
        /// The limit.
        limit: usize,
    },
}

impl<K> TakeAllError<K> {
    /// How long to wait before trying again; `None` if time alone does not help.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            TakeAllError::Refused { error, .. } => error.wait(),
            _ => None,
        }
    }
}
