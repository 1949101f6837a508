//! All buckets: which lock, which bucket, how many at most.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bucket::Bucket;
use crate::clock::{Clock, MonotonicClock};
use crate::config::Config;
use crate::error::TakeError;
use crate::rate::{FILL_MAX_NANOS, Rate};
use crate::shard::{Examined, Shard};
use crate::sweep::Sweep;
use crate::take::Take;

/// The number of locks the buckets are spread over: far more than the threads that take at the same moment.
const SHARDS: usize = 64;

/// The slots a take looks at while a pass is under way, or to find a full bucket to replace.
const SLOTS_PER_TAKE: usize = 64;

/// Token buckets by key.
///
/// Any key works that can be hashed, compared and cloned; keys are compared whole, there are no patterns. A bucket is
/// made, full, by the first take from it, and forgotten when it has been full for a while. All methods take `&self`
/// and may be called from many threads; a take locks one of 64 shards for well under a microsecond and never waits
/// for tokens.
///
/// `S` hashes the keys. The default is seeded at random and withstands keys chosen by an attacker; a simulation that
/// must repeat itself gives a hasher of its own.
pub struct Foretoken<K, S = RandomState> {
    shards: Box<[Line<K>]>,
    hasher: S,
    clock: Arc<dyn Clock>,
    sweep: Sweep,
    /// The buckets of all shards.
    buckets: AtomicUsize,
    buckets_max: usize,
    idle_nanos: u64,
}

/// A shard on cache lines of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
struct Line<K>(Mutex<Shard<K>>);

impl<K: Hash + Eq + Clone> Foretoken<K> {
    /// No buckets yet, the default limits, the machine's monotonic clock.
    pub fn new() -> Foretoken<K> {
        Foretoken::with(&Config::default(), Arc::new(MonotonicClock::new()), RandomState::new())
    }
}

impl<K: Hash + Eq + Clone> Default for Foretoken<K> {
    fn default() -> Self {
        Foretoken::new()
    }
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Foretoken<K, S> {
    /// No buckets yet, with limits, clock and hasher of the caller's choice.
    pub fn with(config: &Config, clock: Arc<dyn Clock>, hasher: S) -> Foretoken<K, S> {
        let &Config { idle_threshold, cleanup_interval, buckets_max } = config;
        let now_nanos = clock.now_nanos().min(FILL_MAX_NANOS);
        Foretoken {
            shards: (0..SHARDS).map(|_| Line(Mutex::new(Shard::new()))).collect(),
            hasher,
            clock,
            sweep: Sweep::new(now_nanos, nanos(cleanup_interval)),
            buckets: AtomicUsize::new(0),
            buckets_max,
            idle_nanos: nanos(idle_threshold),
        }
    }

    /// Takes `n` tokens from the bucket of `key`, or none.
    ///
    /// The bucket holds at most `capacity` tokens and gains them at `rate`. It is made, full, if it does not exist.
    /// If it was last used with another rate or capacity, the tokens it holds at this moment are carried over.
    ///
    /// # Errors
    /// Every [`TakeError`] but [`TakeError::NoSuchBucket`].
    pub fn take(&self, key: &K, rate: Rate, capacity: u32, n: u32) -> Result<(), TakeError> {
        self.take_with(key, Take::new(rate, capacity).tokens(n))
    }

    /// Takes the tokens that `take` describes, or none.
    ///
    /// # Errors
    /// A [`TakeError`], which tells how long to wait if waiting helps.
    pub fn take_with(&self, key: &K, take: Take) -> Result<(), TakeError> {
        let fill_nanos = take.fill_nanos()?;
        let now_nanos = self.clock.now_nanos().min(FILL_MAX_NANOS);
        let answer = self.take_at(now_nanos, key, take, fill_nanos);
        self.sweep_some(now_nanos);
        answer
    }

    /// Drops every bucket that has been full for [`Config::idle_threshold`], at once, and tells how many there were.
    ///
    /// Takes do the same bit by bit; this is for a program that wants the memory back while nothing is taken.
    pub fn drop_idle(&self) -> usize {
        let now_nanos = self.clock.now_nanos().min(FILL_MAX_NANOS);
        let drop_in = |line: &Line<K>| {
            let mut shard = line.0.lock();
            shard.rewind();
            self.examine(&mut shard, usize::MAX, now_nanos, self.idle_nanos).dropped
        };
        self.shards.iter().map(drop_in).sum()
    }

    /// The number of buckets kept now.
    pub fn len(&self) -> usize {
        self.buckets.load(Ordering::Relaxed)
    }

    /// Whether no bucket is kept now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_at(&self, now_nanos: u64, key: &K, take: Take, fill_nanos: u64) -> Result<(), TakeError> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[shard_of(hash)].0.lock();
        if let Some(bucket) = shard.find_mut(hash, key) {
            return bucket.take(now_nanos, take, fill_nanos);
        }
        if !take.create {
            return Err(TakeError::NoSuchBucket);
        }
        if take.n == 0 {
            return Ok(());
        }
        self.reserve_bucket(&mut shard, now_nanos)?;
        let mut bucket = Bucket::full(now_nanos, take.rate, take.capacity);
        let answer = bucket.take(now_nanos, take, fill_nanos);
        debug_assert!(answer.is_ok(), "a full bucket holds its capacity");
        shard.insert(hash, key.clone(), bucket, |key| self.hasher.hash_one(key));
        answer
    }

    /// Counts one more bucket; at the limit, full buckets of this shard make room.
    fn reserve_bucket(&self, shard: &mut Shard<K>, now_nanos: u64) -> Result<(), TakeError> {
        if self.count_one_more() {
            return Ok(());
        }
        self.examine(shard, SLOTS_PER_TAKE, now_nanos, 0);
        if self.count_one_more() {
            Ok(())
        } else {
            Err(TakeError::TooManyBuckets { limit: self.buckets_max })
        }
    }

    fn count_one_more(&self) -> bool {
        let one_more = |count: usize| (count < self.buckets_max).then_some(count + 1);
        self.buckets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A step of the pass that drops idle buckets, if one is due.
    fn sweep_some(&self, now_nanos: u64) {
        let Some(mut at) = self.sweep.due(now_nanos) else { return };
        let examined = {
            let mut shard = self.shards[*at].0.lock();
            self.examine(&mut shard, SLOTS_PER_TAKE, now_nanos, self.idle_nanos)
        };
        if examined.at_end {
            self.sweep.shard_done(&mut at, SHARDS, now_nanos);
        }
    }

    /// Examines slots of one shard, and counts the buckets that it drops.
    fn examine(&self, shard: &mut Shard<K>, slots: usize, now_nanos: u64, idle_nanos: u64) -> Examined {
        let examined = shard.examine(slots, now_nanos, idle_nanos, |key| self.hasher.hash_one(key));
        self.buckets.fetch_sub(examined.dropped, Ordering::Relaxed);
        examined
    }
}

impl<K, S> fmt::Debug for Foretoken<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foretoken")
            .field("buckets", &self.buckets.load(Ordering::Relaxed))
            .field("buckets_max", &self.buckets_max)
            .finish_non_exhaustive()
    }
}

/// The shard of a hash. The table inside uses the lowest and the highest bits, so these come from the middle.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// A duration in nanoseconds; `u64::MAX`, longer than clocks run, for what does not fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
