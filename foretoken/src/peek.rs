//! What a caller sees of a bucket without touching it.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::error::TakeError;
use crate::foretoken::Foretoken;
use crate::take::Take;

/// A look at one bucket at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peek {
    /// The whole tokens it holds, those that callers in line wait for included.
    pub tokens: u32,
    /// The callers that wait in its line.
    pub waiters: u32,
    /// How long until the tokens asked for could be had, when everybody in line has been served; zero: now.
    ///
    /// Exact, unlike the wait of [`TakeError::NotEnoughTokens`](crate::TakeError::NotEnoughTokens), which is at least
    /// 1 ms.
    pub wait: Duration,
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Foretoken<K, S> {
    /// Tells what a take would meet now; it takes nothing, makes no bucket and leaves the rate in force.
    ///
    /// The rate and capacity of `take` count as if they were in force from now on.
    ///
    /// # Errors
    /// [`TakeError::NoSuchBucket`] if there is none and `take` asks not to make it,
    /// [`TakeError::MoreThanCapacity`] and [`TakeError::FillsTooSlowly`] if the take can never be granted.
    pub fn peek(&self, key: &K, take: Take) -> Result<Peek, TakeError> {
        let fill_nanos = take.fill_nanos()?;
        let now_nanos = self.now_nanos();
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash);
        let Some(mut bucket) = shard.bucket(hash, key) else {
            let full = Peek { tokens: take.capacity, waiters: 0, wait: Duration::ZERO };
            return if take.create { Ok(full) } else { Err(TakeError::NoSuchBucket) };
        };
        bucket.adopt(now_nanos, take, fill_nanos);
        let ahead = shard.line(hash, key).map_or(0, |line| line.tokens());
        let ready_at_nanos = match take.n {
            0 => now_nanos,
            n => bucket.holds_at_nanos(now_nanos, ahead.saturating_add(u64::from(n))),
        };
        let wait = Duration::from_nanos(ready_at_nanos.saturating_sub(now_nanos));
        Ok(Peek { tokens: bucket.held(now_nanos), waiters: bucket.waiters(), wait })
    }
}
