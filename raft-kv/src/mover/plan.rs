//! When to split and what to merge. Pure: from what the shards hold and have to do, and the keyspaces' policies.

use std::collections::{BTreeMap, BTreeSet};

use crate::keyspace::{Keyspace, KeyspaceName, KeyspaceState, ShardPlace, SplitMergePolicy};
use crate::keyspaces::{Move, MoveKind};
use crate::shard::{BUCKETS, Weights, bucket_start};

/// What one shard holds and has to do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Sample {
    pub(super) keys: u64,
    pub(super) size: u64,
    /// A second; `None` where it was not measured yet.
    pub(super) load: Option<u64>,
    /// The hash that has more of the load than all others, and how many thousandths of it.
    pub(super) hot: Option<(u64, u16)>,
}

/// The samples of a keyspace's shards, by generation and number.
pub(super) type Samples = BTreeMap<(u64, u32), Sample>;

/// What a shard has too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Threshold {
    Keys,
    Size,
    Load,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Plan {
    /// The shard has too much of something; where to split it is asked next.
    Split { keyspace: KeyspaceName, generation: u64, shard: u32, because: Threshold },
    /// Two neighbours have little.
    Merge { keyspace: KeyspaceName, generation: u64, from: u32, to: u32 },
    /// One key alone has more load than a shard should: no split helps.
    HotKey { keyspace: KeyspaceName, shard: u32, hash: u64 },
}

/// What to begin now, the most urgent first: the shard that is furthest over a threshold is split first, the neighbours
/// that have the least are merged first, and splits come before merges. No more moves than `moves_max` are under way then.
pub(super) fn plan(
    keyspaces: &[Keyspace],
    moves: &[Move],
    samples: &Samples,
    now_ms: u64,
    moves_max: u32,
) -> Vec<Plan> {
    let (mut splits, mut merges, mut plans) = (Vec::new(), Vec::new(), Vec::new());
    for keyspace in keyspaces.iter().filter(|keyspace| keyspace.state == KeyspaceState::Ready) {
        let of_keyspace =
            |kind| move |present: &&Move| present.generation == keyspace.generation && present.kind == kind;
        let splitting = moves.iter().filter(of_keyspace(MoveKind::Split)).count();
        let merging = moves.iter().filter(of_keyspace(MoveKind::Merge)).count();
        let policy = &keyspace.policy.split_merge;
        let mut splits_left = (policy.max_shards as usize).saturating_sub(keyspace.shards.len() + splitting);
        let merges_left = keyspace.shards.len().saturating_sub(merging + policy.min_shards as usize);
        let busy: BTreeSet<u32> = moves
            .iter()
            .filter(|present| present.generation == keyspace.generation)
            .flat_map(|present| [present.from, present.to])
            .collect();
        let free = |place: &ShardPlace| {
            let cool = place.changed_ms == 0 || place.changed_ms.saturating_add(policy.cooling_ms) <= now_ms;
            (cool && !busy.contains(&place.number))
                .then(|| samples.get(&(keyspace.generation, place.number)))
                .flatten()
        };
        let mut over: Vec<(u64, Threshold, u32)> = Vec::new();
        for place in &keyspace.shards {
            let Some(sample) = free(place) else { continue };
            let mut full = fullest(policy, sample);
            if let Some(hash) = hot_alone(policy, sample).filter(|_| is_over(full, Threshold::Load)) {
                let (keyspace, shard) = (keyspace.name.clone(), place.number);
                plans.push(Plan::HotKey { keyspace, shard, hash });
                // A split helps against what else there is too much of.
                full = fullest(policy, &Sample { load: None, ..*sample });
            }
            let Some((excess, because)) = full.filter(|(excess, _)| *excess > FULL) else { continue };
            if place.range.width() >= BUCKETS as u128 {
                over.push((excess, because, place.number));
            }
        }
        over.sort_by_key(|(excess, _, number)| (std::cmp::Reverse(*excess), *number));
        splits_left = splits_left.min(over.len());
        splits.extend(over.into_iter().take(splits_left).map(|(excess, because, shard)| {
            let (keyspace, generation) = (keyspace.name.clone(), keyspace.generation);
            (excess, Plan::Split { keyspace, generation, shard, because })
        }));
        merges.extend(little(keyspace, policy, &free).into_iter().take(merges_left));
    }
    splits.sort_by_key(|(excess, _)| std::cmp::Reverse(*excess));
    merges.sort_by_key(|(share, _)| *share);
    let room = (moves_max as usize).saturating_sub(moves.len());
    plans.extend(splits.into_iter().chain(merges).map(|(_, plan)| plan).take(room));
    plans
}

/// A shard is over a threshold that has more of it than this.
const FULL: u64 = 1000;

fn is_over(full: Option<(u64, Threshold)>, of: Threshold) -> bool {
    full.is_some_and(|(excess, because)| excess > FULL && because == of)
}

/// How full a shard is by the threshold that it is closest to or furthest over, in thousandths of it.
fn fullest(policy: &SplitMergePolicy, sample: &Sample) -> Option<(u64, Threshold)> {
    let share = |value: u64, limit: Option<u64>| {
        limit.map(|limit| u64::try_from(u128::from(value) * 1000 / u128::from(limit)).unwrap_or(u64::MAX))
    };
    let shares = [
        (share(sample.keys, policy.max_keys), Threshold::Keys),
        (share(sample.size, policy.max_size), Threshold::Size),
        (sample.load.and_then(|load| share(load, policy.max_load)), Threshold::Load),
    ];
    shares.into_iter().filter_map(|(share, of)| Some((share?, of))).max_by_key(|(share, _)| *share)
}

/// The hash whose load alone is over the threshold.
fn hot_alone(policy: &SplitMergePolicy, sample: &Sample) -> Option<u64> {
    let (hash, permille) = sample.hot?;
    let load = u128::from(sample.load?) * u128::from(permille) / 1000;
    (load >= u128::from(policy.max_load?)).then_some(hash)
}

/// Neighbours that have little together, those with the least first; no shard is in two pairs.
fn little<'a>(
    keyspace: &Keyspace,
    policy: &SplitMergePolicy,
    free: &impl Fn(&ShardPlace) -> Option<&'a Sample>,
) -> Vec<(u64, Plan)> {
    let mut pairs = Vec::new();
    for pair in keyspace.shards.windows(2) {
        let (Some(low), Some(high)) = (free(&pair[0]), free(&pair[1])) else { continue };
        // A load that was not measured may be any.
        if policy.max_load.is_some() && (low.load.is_none() || high.load.is_none()) {
            continue;
        }
        let sum = Sample {
            keys: low.keys.saturating_add(high.keys),
            size: low.size.saturating_add(high.size),
            load: low.load.zip(high.load).map(|(low, high)| low.saturating_add(high)),
            hot: None,
        };
        let Some((share, _)) = fullest(policy, &sum) else { continue };
        if share < u64::from(policy.merge_percent) * 10 {
            // The one with less goes, because what goes is copied.
            let (from, to) = if (low.size, low.keys) <= (high.size, high.keys) { (0, 1) } else { (1, 0) };
            pairs.push((share, pair[from].number, pair[to].number));
        }
    }
    pairs.sort_unstable();
    let mut taken = BTreeSet::new();
    pairs.retain(|(_, from, to)| {
        let free = !taken.contains(from) && !taken.contains(to);
        if free {
            taken.extend([*from, *to]);
        }
        free
    });
    let (name, generation) = (&keyspace.name, keyspace.generation);
    let merge = |(share, from, to)| (share, Plan::Merge { keyspace: name.clone(), generation, from, to });
    pairs.into_iter().map(merge).collect()
}

/// The hash at which a split leaves both sides with as nearly the same as can be of what there is too much of; `None`
/// when one side would have nothing of it, whatever is chosen.
pub(super) fn split_point(weights: &Weights, because: Threshold) -> Option<u64> {
    let of = match because {
        Threshold::Keys => &weights.keys,
        Threshold::Size => &weights.size,
        Threshold::Load => &weights.load,
    };
    let total: u128 = of.iter().map(|weight| u128::from(*weight)).sum();
    let mut below = 0;
    let mut best = None;
    for (bucket, weight) in (1..BUCKETS).zip(of) {
        below += u128::from(*weight);
        let heavier = below.max(total - below);
        if heavier < total && best.is_none_or(|(least, _)| heavier < least) {
            best = Some((heavier, bucket));
        }
    }
    best.map(|(_, bucket)| bucket_start(weights.range, bucket))
}

#[cfg(test)]
mod tests;
