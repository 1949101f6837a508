//! All buckets: which lock, which bucket, how many at most.

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::TakeError;
use crate::monotonic::MonotonicClock;
use crate::rate::{FILL_MAX_NANOS, Rate};
use crate::shard::{Examined, Shard};
use crate::sweep::Sweep;
use crate::take::Take;

/// The number of locks the buckets are spread over: far more than the threads that take at the same moment.
const SHARDS: usize = 64;

/// The slots a take looks at while a pass is under way, or to find a full bucket to replace.
const SLOTS_PER_TAKE: usize = 64;

/// The shortest time between two passes of [`Foretoken::keep_dropping_idle`].
const CLEANUP_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Token buckets by key.
///
/// Any key works that can be hashed, compared and cloned; keys are compared whole, there are no patterns. A bucket is
/// made, full, by the first take from it, and forgotten when it has been full for a while. All methods take `&self`
/// and may be called from many threads; a take locks one of 64 shards for well under a microsecond, and only
/// [`take_or_wait`](Foretoken::take_or_wait) and its like wait for tokens.
///
/// `Hash`, `Eq`, `Clone` and `Drop` of a key run under that lock: they must not call back.
///
/// `S` hashes the keys. The default is seeded at random and withstands keys chosen by an attacker; a simulation that
/// must repeat itself gives a hasher of its own.
pub struct Foretoken<K, S = RandomState> {
    shards: Box<[Padded<K>]>,
    pub(crate) hasher: S,
    pub(crate) clock: Arc<dyn Clock>,
    sweep: Sweep,
    /// The buckets of all shards.
    buckets: AtomicUsize,
    /// The waiting callers of all shards.
    pub(crate) waiters: AtomicUsize,
    pub(crate) config: Config,
    idle_nanos: u64,
}

/// A shard on cache lines of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
pub(crate) struct Padded<K>(pub(crate) Mutex<Shard<K>>);

impl<K: Hash + Eq> Padded<K> {
    pub(crate) fn new() -> Padded<K> {
        Padded(Mutex::new(Shard::new()))
    }
}

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
        let now_nanos = clock.now_nanos().min(FILL_MAX_NANOS);
        Foretoken {
            shards: (0..SHARDS).map(|_| Padded::new()).collect(),
            hasher,
            clock,
            sweep: Sweep::new(now_nanos, nanos(config.cleanup_interval)),
            buckets: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
            idle_nanos: nanos(config.idle_threshold),
            config: config.clone(),
        }
    }

    /// Takes `n` tokens from the bucket of `key`, or none.
    ///
    /// The bucket holds at most `capacity` tokens and gains them at `rate`. It is made, full, if it does not exist.
    /// If it was last used with another rate or capacity, the tokens it holds at this moment are carried over.
    ///
    /// Callers that wait in line keep their tokens: a take gets what is left when all of them are served.
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
        let now_nanos = self.now_nanos();
        let hash = self.hasher.hash_one(key);
        let mut first = None;
        let answer = self.take_in(&mut self.shard(hash), hash, now_nanos, key, take, fill_nanos, &mut first);
        if let Some(first) = first {
            first.wake();
        }
        self.sweep_some(now_nanos);
        answer
    }

    /// Drops every bucket that has been full for [`Config::idle_threshold`], at once, and tells how many there were.
    ///
    /// Takes do the same bit by bit; this is for a program that wants the memory back while nothing is taken. It locks
    /// one shard after the other, each for as long as it takes to look at one 64th of the buckets.
    pub fn drop_idle(&self) -> usize {
        let now_nanos = self.now_nanos();
        let drop_in = |padded: &Padded<K>| {
            let mut shard = padded.0.lock();
            shard.rewind();
            self.examine(&mut shard, usize::MAX, now_nanos, self.idle_nanos).dropped
        };
        self.shards.iter().map(drop_in).sum()
    }

    /// Drops idle buckets every [`Config::cleanup_interval`] (but not more often than every millisecond), by the
    /// injected clock and for as long as it is polled: a task for a program that pauses and wants the memory back.
    ///
    /// Nothing is lost when it is dropped. `S` and `K` allowing, it can be spawned with an `Arc` of the buckets:
    /// `spawn(async move { buckets.keep_dropping_idle().await })`.
    pub async fn keep_dropping_idle(&self) -> Infallible {
        let interval_nanos = nanos(self.config.cleanup_interval.max(CLEANUP_INTERVAL_MIN));
        loop {
            self.clock.sleep_until(self.now_nanos().saturating_add(interval_nanos)).await;
            self.drop_idle();
        }
    }

    /// The number of buckets kept now.
    pub fn len(&self) -> usize {
        self.buckets.load(Ordering::Relaxed)
    }

    /// Whether no bucket is kept now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of callers that wait in line now, for all buckets together.
    pub fn waiting(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    /// The time, up to its end.
    #[inline]
    pub(crate) fn now_nanos(&self) -> u64 {
        self.clock.now_nanos().min(FILL_MAX_NANOS)
    }

    /// The locked shard of a hash.
    #[inline]
    pub(crate) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<K>> {
        self.shard_at(shard_of(hash))
    }

    #[inline]
    pub(crate) fn shard_at(&self, index: usize) -> MutexGuard<'_, Shard<K>> {
        self.shards[index].0.lock()
    }

    /// Takes under the lock of the shard. `first` becomes whoever is first in line and must look again.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "the parts of one call, each read once before the lock")]
    pub(crate) fn take_in(
        &self,
        shard: &mut Shard<K>,
        hash: u64,
        now_nanos: u64,
        key: &K,
        take: Take,
        fill_nanos: u64,
        first: &mut Option<Waker>,
    ) -> Result<(), TakeError> {
        let taken = shard.update(hash, key, |bucket, line| {
            let changed = bucket.adopt(now_nanos, take, fill_nanos);
            let Some(line) = line else { return bucket.take(now_nanos, take) };
            if changed {
                *first = line.wake_first();
            }
            bucket.take_after(now_nanos, take, line.tokens())
        });
        match taken {
            Some(answer) => answer,
            None => self.take_anew(shard, hash, now_nanos, key, take),
        }
    }

    /// Takes from a bucket that is not there yet.
    #[cold]
    fn take_anew(
        &self,
        shard: &mut Shard<K>,
        hash: u64,
        now_nanos: u64,
        key: &K,
        take: Take,
    ) -> Result<(), TakeError> {
        if !take.create {
            return Err(TakeError::NoSuchBucket);
        }
        if take.n == 0 {
            return Ok(());
        }
        // Code of somebody else, which may panic: before anything is counted.
        let own_key = key.clone();
        self.reserve_bucket(shard, now_nanos)?;
        let mut bucket = Bucket::full(now_nanos, take.rate, take.capacity);
        let answer = bucket.take(now_nanos, take);
        debug_assert!(answer.is_ok(), "a full bucket holds its capacity");
        self.insert(shard, hash, own_key, bucket);
        answer
    }

    /// Adds a bucket that has been reserved.
    pub(crate) fn insert(&self, shard: &mut Shard<K>, hash: u64, key: K, bucket: Bucket) {
        shard.insert(hash, key, bucket, |key| self.hasher.hash_one(key));
    }

    /// Counts one more bucket; at the limit, full buckets of this shard make room.
    pub(crate) fn reserve_bucket(&self, shard: &mut Shard<K>, now_nanos: u64) -> Result<(), TakeError> {
        if self.count_one_more() {
            return Ok(());
        }
        self.examine(shard, SLOTS_PER_TAKE, now_nanos, 0);
        if self.count_one_more() {
            Ok(())
        } else {
            Err(TakeError::TooManyBuckets { limit: self.config.buckets_max })
        }
    }

    /// Takes back a reservation that came to nothing.
    pub(crate) fn release_buckets(&self, count: usize) {
        self.buckets.fetch_sub(count, Ordering::Relaxed);
    }

    fn count_one_more(&self) -> bool {
        let one_more = |count: usize| (count < self.config.buckets_max).then_some(count + 1);
        self.buckets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A step of the pass that drops idle buckets, if one is due.
    #[inline]
    pub(crate) fn sweep_some(&self, now_nanos: u64) {
        if self.sweep.is_due(now_nanos) {
            self.sweep_step(now_nanos);
        }
    }

    #[cold]
    fn sweep_step(&self, now_nanos: u64) {
        let Some(mut at) = self.sweep.begin() else { return };
        let examined = {
            let mut shard = self.shard_at(*at);
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
            .field("waiters", &self.waiters.load(Ordering::Relaxed))
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The shard of a hash. The table inside uses the lowest and the highest bits, so these come from the middle.
pub(crate) fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// A duration in nanoseconds; `u64::MAX`, longer than clocks run, for what does not fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
