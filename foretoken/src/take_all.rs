//! Takes from several buckets at once, as of an agent and its tenant: all of them or none.
//!
//! The shards of all buckets are locked together, in ascending order; everything else locks one shard at a time, so
//! that no two calls can wait for each other. The takes are tried on copies of the buckets, which are written back
//! with the tokens taken if every one is granted, and with only the new rate in force if not.
//!
//! There is no variant that waits in line: whoever waits for its own empty bucket would hold its place in the
//! tenant's line, and with it everybody else of that tenant.

use std::hash::{BuildHasher, Hash};
use std::task::Waker;

use parking_lot::MutexGuard;

use crate::bucket::Bucket;
use crate::error::{TakeAllError, TakeError};
use crate::foretoken::{Foretoken, shard_of};
use crate::shard::Shard;
use crate::take::Take;

/// The locked shards of one call, by their index.
struct Locked<'a, K>(Vec<(usize, MutexGuard<'a, Shard<K>>)>);

/// One take of the list and what it has come to on a copy of its bucket.
struct Trial {
    hash: u64,
    /// The bucket as it is, at the rate and capacity of the take. `None`: it is not there.
    refused: Option<Bucket>,
    /// The bucket without the tokens. `None`: it is not there and need not be made.
    granted: Option<Bucket>,
    /// Whether the rate or the capacity is another than before.
    changed: bool,
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Foretoken<K, S> {
    /// Takes from every bucket of the list the tokens that its [`Take`] describes, or none from any.
    ///
    /// What [`take_with`](Foretoken::take_with) says of one bucket holds for each: a bucket that does not exist is
    /// made (only if all takes are granted), a new rate or capacity is in force from this call on (even if a take is
    /// refused), callers in line keep their tokens.
    ///
    /// The order of the list has no influence on what is granted. An empty list is granted.
    ///
    /// # Errors
    /// [`TakeAllError::Refused`] names the bucket that lacks tokens for the longest time, or that refuses for another
    /// reason; the others of [`TakeAllError`] for a list that is too long or names a bucket twice.
    pub fn take_all(&self, takes: &[(&K, Take)]) -> Result<(), TakeAllError<K>> {
        let limit = self.config.take_all_max;
        if takes.len() > limit {
            return Err(TakeAllError::TooManyBuckets { buckets: takes.len(), limit });
        }
        let mut fills = Vec::with_capacity(takes.len());
        for (index, &(key, take)) in takes.iter().enumerate() {
            fills.push(take.fill_nanos().map_err(|error| refused(key, index, error))?);
        }
        let hashes: Vec<u64> = takes.iter().map(|(key, _)| self.hasher.hash_one(*key)).collect();
        if let Some(key) = twice(takes, &hashes) {
            return Err(TakeAllError::SameBucketTwice { key: key.clone() });
        }
        let now_nanos = self.now_nanos();
        let mut wake = Vec::new();
        let answer = self.take_all_at(now_nanos, takes, &hashes, &fills, &mut wake);
        wake.into_iter().for_each(|first: Waker| first.wake());
        self.sweep_some(now_nanos);
        answer.map_err(|(index, error)| refused(takes[index].0, index, error))
    }

    /// Locks, tries, and writes what has come of it. An error names the place in the list.
    fn take_all_at(
        &self,
        now_nanos: u64,
        takes: &[(&K, Take)],
        hashes: &[u64],
        fills: &[u64],
        wake: &mut Vec<Waker>,
    ) -> Result<(), (usize, TakeError)> {
        let keys: Vec<K> = takes.iter().map(|(key, _)| (*key).clone()).collect();
        let mut shards = self.lock(hashes);
        let mut trials = Vec::with_capacity(takes.len());
        let mut worst = None;
        for (index, &(key, take)) in takes.iter().enumerate() {
            let (trial, answer) =
                shards.of(hashes[index]).try_take(now_nanos, hashes[index], key, take, fills[index]);
            trials.push(trial);
            if let Err(error) = answer
                && worst.as_ref().is_none_or(|(_, worst)| is_worse(&error, worst))
            {
                worst = Some((index, error));
            }
        }
        // Existing buckets first: those that have given tokens are not full, and are not dropped to make room.
        for (trial, key) in trials.iter().zip(&keys) {
            let bucket = if worst.is_none() { &trial.granted } else { &trial.refused };
            shards.of(trial.hash).write(trial, key, bucket.as_ref(), wake);
        }
        if let Some(worst) = worst {
            return Err(worst);
        }
        self.make_missing(now_nanos, &mut shards, &trials, keys)
    }

    /// Makes the buckets that were missing; if there is no room, undoes everything.
    fn make_missing(
        &self,
        now_nanos: u64,
        shards: &mut Locked<'_, K>,
        trials: &[Trial],
        keys: Vec<K>,
    ) -> Result<(), (usize, TakeError)> {
        let is_missing = |trial: &Trial| trial.refused.is_none() && trial.granted.is_some();
        let missing: Vec<usize> = (0..trials.len()).filter(|&index| is_missing(&trials[index])).collect();
        for (reserved, &index) in missing.iter().enumerate() {
            if let Err(error) = self.reserve_bucket(shards.of(trials[index].hash), now_nanos) {
                self.release_buckets(reserved);
                for (trial, key) in trials.iter().zip(&keys) {
                    shards.of(trial.hash).write(trial, key, trial.refused.as_ref(), &mut Vec::new());
                }
                return Err((index, error));
            }
        }
        for (trial, key) in trials.iter().zip(keys).filter(|(trial, _)| is_missing(trial)) {
            if let Some(bucket) = trial.granted.clone() {
                self.insert(shards.of(trial.hash), trial.hash, key, bucket);
            }
        }
        Ok(())
    }

    /// Locks the shards of all hashes, each once, in ascending order.
    fn lock(&self, hashes: &[u64]) -> Locked<'_, K> {
        let mut indices: Vec<usize> = hashes.iter().map(|&hash| shard_of(hash)).collect();
        indices.sort_unstable();
        indices.dedup();
        Locked(indices.into_iter().map(|index| (index, self.shard_at(index))).collect())
    }
}

impl<K> Locked<'_, K> {
    fn of(&mut self, hash: u64) -> &mut Shard<K> {
        let index = self.0.binary_search_by_key(&shard_of(hash), |(index, _)| *index);
        &mut self.0[index.expect("every hash of the call is locked")].1
    }
}

impl<K: Hash + Eq> Shard<K> {
    /// Tries a take on a copy of its bucket.
    fn try_take(
        &self,
        now_nanos: u64,
        hash: u64,
        key: &K,
        take: Take,
        fill_nanos: u64,
    ) -> (Trial, Result<(), TakeError>) {
        let Some(mut refused) = self.bucket(hash, key) else {
            let (granted, answer) = match (take.create, take.n) {
                (false, _) => (None, Err(TakeError::NoSuchBucket)),
                (true, 0) => (None, Ok(())),
                (true, _) => {
                    let mut granted = Bucket::full(now_nanos, take.rate, take.capacity);
                    let answer = granted.take(now_nanos, take);
                    (Some(granted), answer)
                }
            };
            return (Trial { hash, refused: None, granted, changed: false }, answer);
        };
        let changed = refused.adopt(now_nanos, take, fill_nanos);
        let mut granted = refused.clone();
        let ahead = self.line(hash, key).map_or(0, |line| line.tokens());
        let answer = granted.take_after(now_nanos, take, ahead);
        (Trial { hash, refused: Some(refused), granted: Some(granted), changed }, answer)
    }

    /// Writes the bucket of a trial back, if it is there.
    fn write(&mut self, trial: &Trial, key: &K, bucket: Option<&Bucket>, wake: &mut Vec<Waker>) {
        let Some(bucket) = bucket else { return };
        self.update(trial.hash, key, |existing, line| {
            *existing = bucket.clone();
            if trial.changed {
                wake.extend(line.and_then(|line| line.wake_first()));
            }
        });
    }
}

fn refused<K: Clone>(key: &K, index: usize, error: TakeError) -> TakeAllError<K> {
    TakeAllError::Refused { key: key.clone(), index, error }
}

/// Whether `error` is to be told rather than `other`: what waiting does not help comes first, then the longest wait.
fn is_worse(error: &TakeError, other: &TakeError) -> bool {
    match (error.wait(), other.wait()) {
        (Some(wait), Some(longest)) => wait > longest,
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

/// A key that is in the list twice. The list is short: it has a limit.
fn twice<'a, K: Eq>(takes: &[(&'a K, Take)], hashes: &[u64]) -> Option<&'a K> {
    let before =
        |index: usize| (0..index).any(|i| hashes[i] == hashes[index] && takes[i].0 == takes[index].0);
    (0..takes.len()).find(|&index| before(index)).map(|index| takes[index].0)
}
