//! What is split and merged, in which order, and where.

use proptest::prelude::*;

use super::*;
use crate::key_range::KeyRange;
use crate::keyspace::KeyspacePolicy;
use crate::keyspaces::MovePhase;

fn keyspace(name: &str, generation: u64, split_merge: SplitMergePolicy) -> Keyspace {
    let policy = KeyspacePolicy { shards: 4, split_merge, ..KeyspacePolicy::of("bytes") };
    let name = KeyspaceName::new(name).unwrap();
    Keyspace { state: KeyspaceState::Ready, ..Keyspace::new(name, policy, generation) }
}

fn rules() -> SplitMergePolicy {
    let (max_keys, max_load) = (Some(100), Some(1000));
    SplitMergePolicy { max_keys, max_load, max_shards: 6, ..SplitMergePolicy::default() }
}

fn sample(keys: u64, load: u64) -> Sample {
    Sample { keys, size: keys, load: Some(load), hot: None }
}

fn samples(generation: u64, of: [Sample; 4]) -> Samples {
    (0..).zip(of).map(|(number, sample)| ((generation, number), sample)).collect()
}

fn split(name: &str, generation: u64, shard: u32, because: Threshold) -> Plan {
    Plan::Split { keyspace: KeyspaceName::new(name).unwrap(), generation, shard, because }
}

fn merge(generation: u64, from: u32, to: u32) -> Plan {
    Plan::Merge { keyspace: KeyspaceName::new("a").unwrap(), generation, from, to }
}

#[test]
fn without_thresholds_nothing_is_done() {
    let keyspaces = [keyspace("a", 1, SplitMergePolicy::default())];
    let samples = samples(1, [sample(1 << 40, 1 << 40); 4]);
    assert_eq!(plan(&keyspaces, &[], &samples, 0, 9), []);
}

#[test]
fn the_hottest_of_all_keyspaces_is_split_first_up_to_the_limit() {
    let keyspaces = [keyspace("a", 1, rules()), keyspace("b", 2, rules())];
    let mut all = samples(1, [sample(101, 0), sample(50, 3000), sample(99, 999), sample(100, 1000)]);
    all.extend(samples(2, [sample(200, 0), sample(60, 999), sample(60, 0), sample(60, 0)]));
    let wanted = [
        split("a", 1, 1, Threshold::Load),
        split("b", 2, 0, Threshold::Keys),
        split("a", 1, 0, Threshold::Keys),
    ];
    assert_eq!(plan(&keyspaces, &[], &all, 0, 9), wanted);
    assert_eq!(plan(&keyspaces, &[], &all, 0, 2), wanted[..2]);
    assert_eq!(plan(&keyspaces, &[], &all, 0, 0), []);
}

#[test]
fn no_split_goes_over_the_limit_of_shards_and_no_merge_under_it() {
    let full = SplitMergePolicy { max_shards: 5, ..rules() };
    let all = samples(1, [sample(500, 0), sample(400, 0), sample(300, 0), sample(200, 0)]);
    assert_eq!(plan(&[keyspace("a", 1, full)], &[], &all, 0, 9), [split("a", 1, 0, Threshold::Keys)]);
    let few = SplitMergePolicy { min_shards: 3, ..rules() };
    let all = samples(1, [sample(1, 0), sample(2, 0), sample(3, 0), sample(4, 0)]);
    assert_eq!(plan(&[keyspace("a", 1, few)], &[], &all, 0, 9), [merge(1, 0, 1)]);
    assert_eq!(plan(&[keyspace("a", 1, rules())], &[], &all, 0, 9), [merge(1, 0, 1), merge(1, 2, 3)]);
}

#[test]
fn neighbours_are_merged_when_all_that_they_have_together_is_little() {
    let of = |low, high| samples(1, [sample(60, 0), low, high, sample(60, 0)]);
    let keyspaces = [keyspace("a", 1, rules())];
    assert_eq!(plan(&keyspaces, &[], &of(sample(20, 10), sample(29, 480)), 0, 9), [merge(1, 1, 2)]);
    assert_eq!(plan(&keyspaces, &[], &of(sample(29, 10), sample(20, 480)), 0, 9), [merge(1, 2, 1)]);
    assert_eq!(plan(&keyspaces, &[], &of(sample(20, 20), sample(29, 480)), 0, 9), [], "their load");
    assert_eq!(plan(&keyspaces, &[], &of(sample(21, 0), sample(29, 0)), 0, 9), [], "their keys");
    let unmeasured = Sample { load: None, ..sample(1, 0) };
    assert_eq!(plan(&keyspaces, &[], &of(unmeasured, sample(1, 0)), 0, 9), []);
}

#[test]
fn a_shard_that_moves_or_cools_down_is_left_alone() {
    let mut keyspaces = [keyspace("a", 1, rules())];
    let all = samples(1, [sample(101, 0), sample(300, 0), sample(1, 0), sample(2, 0)]);
    keyspaces[0].shards[1].changed_ms = 5000;
    assert_eq!(plan(&keyspaces, &[], &all, 64_999, 1), [split("a", 1, 0, Threshold::Keys)]);
    assert_eq!(plan(&keyspaces, &[], &all, 65_000, 1), [split("a", 1, 1, Threshold::Keys)]);
    let (keyspace, range) = (keyspaces[0].name.clone(), KeyRange::ALL);
    let (kind, phase) = (MoveKind::Merge, MovePhase::Moving);
    let moving = Move {
        id: 1,
        keyspace,
        generation: 1,
        kind,
        from: 1,
        to: 2,
        range,
        phase,
        epoch: 1,
        until_ms: 0,
        performer: None,
    };
    assert_eq!(plan(&keyspaces, &[moving], &all, 65_000, 9), [split("a", 1, 0, Threshold::Keys)]);
}

#[test]
fn a_key_that_is_over_the_threshold_alone_is_reported_and_not_split() {
    let keyspaces = [keyspace("a", 1, rules())];
    let hot = |permille| Sample { hot: Some((42, permille)), ..sample(60, 2000) };
    let of = |sample_of: Sample| samples(1, [sample_of, sample(60, 0), sample(60, 0), sample(60, 0)]);
    let report = Plan::HotKey { keyspace: keyspaces[0].name.clone(), shard: 0, hash: 42 };
    assert_eq!(plan(&keyspaces, &[], &of(hot(600)), 0, 9), [report]);
    let rest = hot(499);
    assert_eq!(plan(&keyspaces, &[], &of(rest), 0, 9), [split("a", 1, 0, Threshold::Load)]);
}

/// A shard with a hot key once grew without end: nothing else that it had too much of was looked at.
#[test]
fn a_shard_with_a_hot_key_is_split_where_it_has_too_many_keys_as_well() {
    let keyspaces = [keyspace("a", 1, rules())];
    let hot = Sample { hot: Some((42, 900)), ..sample(150, 2000) };
    let all = samples(1, [hot, sample(60, 0), sample(60, 0), sample(60, 0)]);
    let report = Plan::HotKey { keyspace: keyspaces[0].name.clone(), shard: 0, hash: 42 };
    assert_eq!(plan(&keyspaces, &[], &all, 0, 9), [report, split("a", 1, 0, Threshold::Keys)]);
}

fn weights(load: Vec<u64>) -> Weights {
    Weights { range: KeyRange::ALL, keys: vec![1; BUCKETS], size: vec![1; BUCKETS], load }
}

/// Halving the range would leave all the load on one side.
#[test]
fn a_split_halves_the_load_and_not_the_range() {
    let mut load = vec![0; BUCKETS];
    (load[60], load[61], load[63]) = (50, 40, 5);
    let at = split_point(&weights(load.clone()), Threshold::Load).unwrap();
    assert_eq!(at, bucket_start(KeyRange::ALL, 61));
    assert_eq!(split_point(&weights(load), Threshold::Keys), Some(1 << 63));
    assert_eq!(split_point(&weights(vec![0; BUCKETS]), Threshold::Load), None);
}

proptest! {
    #[test]
    fn no_other_bucket_would_be_a_better_place_to_split(load in proptest::collection::vec(0_u64..50, BUCKETS)) {
        let heavier = |bucket: usize| {
            let below: u64 = load[..bucket].iter().sum();
            below.max(load.iter().sum::<u64>() - below)
        };
        let total: u64 = load.iter().sum();
        let best = (1..BUCKETS).map(heavier).min().unwrap();
        match split_point(&weights(load.clone()), Threshold::Load) {
            Some(at) => {
                let bucket = (1..BUCKETS).find(|bucket| bucket_start(KeyRange::ALL, *bucket) == at).unwrap();
                prop_assert_eq!(heavier(bucket), best);
            }
            None => prop_assert_eq!(best, total),
        }
    }
}
