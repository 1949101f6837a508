//! What a take means, call by call, on a clock that the test moves.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use foretoken::{Config, Foretoken, ManualClock, Rate, Take, TakeError};

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

fn buckets<K: std::hash::Hash + Eq + Clone>(config: &Config) -> (Foretoken<K>, ManualClock) {
    let clock = ManualClock::new();
    (Foretoken::with(config, Arc::new(clock.clone()), RandomState::new()), clock)
}

fn every(period: Duration) -> Rate {
    Rate::one_per(period).expect("the test's period is above zero")
}

fn wait(answer: Result<(), TakeError>) -> Duration {
    match answer {
        Err(TakeError::NotEnoughTokens { wait }) => wait,
        other => panic!("expected to be told to wait, got {other:?}"),
    }
}

#[test]
fn a_new_bucket_is_full_and_an_empty_one_tells_when_to_come_back() {
    let (buckets, clock) = buckets(&Config::default());
    let rate = every(100 * MS);
    for _ in 0..5 {
        assert_eq!(buckets.take(&"b", rate, 5, 1), Ok(()));
    }
    clock.advance(30 * MS);
    assert_eq!(wait(buckets.take(&"b", rate, 5, 1)), 70 * MS);
    assert_eq!(wait(buckets.take(&"b", rate, 5, 3)), 270 * MS);
    clock.advance(70 * MS - Duration::from_nanos(1));
    assert_eq!(wait(buckets.take(&"b", rate, 5, 1)), MS, "never told to wait for less than 1 ms");
    clock.advance(Duration::from_nanos(1));
    assert_eq!(buckets.take(&"b", rate, 5, 1), Ok(()));
    assert!(buckets.take(&"b", rate, 5, 1).is_err());
}

#[test]
fn any_key_that_can_be_hashed_and_compared_names_a_bucket() {
    let (tuples, _clock) = buckets(&Config::default());
    let key = (vec![1, 2], Some("x".to_owned()));
    assert_eq!(tuples.take(&key, every(MS), 1, 1), Ok(()));
    assert!(tuples.take(&key, every(MS), 1, 1).is_err());
    assert_eq!(tuples.take(&(vec![1, 2], None), every(MS), 1, 1), Ok(()));
}

/// Fault 25: the original looked its buckets up with a match specification, in which keys such as `:_` and `:"$1"` are
/// patterns. Such a key matched, and drained, the buckets of everybody else.
#[test]
fn a_key_that_looks_like_a_pattern_touches_no_bucket_but_its_own() {
    let (buckets, _clock) = buckets(&Config::default());
    let rate = every(MINUTE);
    let patterns = ["_", "$1", "$_", "$$", "*", ".*", "%", "?", "", "[a-z]"];
    for own in ["alice", "bob"] {
        assert_eq!(buckets.take(&own, rate, 2, 1), Ok(()));
    }
    for pattern in patterns {
        assert_eq!(
            buckets.take_with(&pattern, Take::new(rate, 2).existing_only()),
            Err(TakeError::NoSuchBucket)
        );
        assert_eq!(buckets.take(&pattern, rate, 2, 2), Ok(()), "{pattern:?} has a full bucket of its own");
    }
    for own in ["alice", "bob"] {
        assert_eq!(buckets.take(&own, rate, 2, 1), Ok(()), "{own} still has the second token");
        assert!(buckets.take(&own, rate, 2, 1).is_err());
    }
}

/// Fault 26: taking three tokens from a bucket of capacity two raised an exception in the original, inside the agent
/// command that asked for them.
#[test]
fn taking_three_tokens_from_a_bucket_of_two_is_an_error_value_and_takes_none() {
    let (buckets, _clock) = buckets(&Config::default());
    let refused = Err(TakeError::MoreThanCapacity { n: 3, capacity: 2 });
    assert_eq!(buckets.take(&1, every(MS), 2, 3), refused);
    assert_eq!(buckets.len(), 0, "no bucket is made for it");
    assert_eq!(buckets.take(&1, every(MS), 2, 2), Ok(()));
    assert_eq!(buckets.take(&1, every(MS), 2, 3), refused);
}

#[test]
fn a_bucket_that_must_not_be_made_is_reported_missing() {
    let (buckets, _clock) = buckets(&Config::default());
    let existing = Take::new(every(MS), 5).existing_only();
    assert_eq!(buckets.take_with(&"b", existing), Err(TakeError::NoSuchBucket));
    assert_eq!(buckets.take_with(&"b", existing.tokens(0)), Err(TakeError::NoSuchBucket));
    assert!(buckets.is_empty());
    assert_eq!(buckets.take(&"b", every(MS), 5, 1), Ok(()));
    assert_eq!(buckets.take_with(&"b", existing), Ok(()));
}

#[test]
fn taking_no_token_always_succeeds_and_makes_no_bucket() {
    let (buckets, _clock) = buckets(&Config::default());
    assert_eq!(buckets.take(&1, every(MS), 0, 0), Ok(()));
    assert!(buckets.is_empty());
    assert_eq!(buckets.take(&1, every(MS), 1, 1), Ok(()));
    assert_eq!(buckets.take(&1, every(MS), 1, 0), Ok(()));
    assert_eq!(buckets.take(&1, every(MS), 0, 0), Ok(()));
    assert_eq!(buckets.take(&1, every(MS), 0, 1), Err(TakeError::MoreThanCapacity { n: 1, capacity: 0 }));
}

#[test]
fn a_look_takes_nothing_makes_no_bucket_and_leaves_the_rate_in_force() {
    let (buckets, clock) = buckets(&Config::default());
    let take = Take::new(every(10 * MS), 5);
    let look = |take| buckets.peek(&1, take).map(|seen| (seen.tokens, seen.waiters, seen.wait));
    assert_eq!(look(take), Ok((5, 0, Duration::ZERO)), "the bucket that a take would make");
    assert!(buckets.is_empty());
    assert_eq!(look(take.existing_only()), Err(TakeError::NoSuchBucket));
    assert_eq!(look(take.tokens(6)), Err(TakeError::MoreThanCapacity { n: 6, capacity: 5 }));
    assert_eq!(buckets.take_with(&1, take.tokens(4)), Ok(()));
    for _ in 0..3 {
        assert_eq!(look(take), Ok((1, 0, Duration::ZERO)));
        assert_eq!(look(take.tokens(3)), Ok((1, 0, 20 * MS)));
        assert_eq!(
            look(Take::new(every(MINUTE), 5).tokens(3)),
            Ok((1, 0, 2 * MINUTE)),
            "as if it were in force"
        );
    }
    clock.advance(20 * MS);
    assert_eq!(look(take.tokens(3)), Ok((3, 0, Duration::ZERO)), "and it was not");
}

#[test]
fn a_new_rate_neither_refills_an_empty_bucket_nor_makes_its_debt_longer_than_in_tokens() {
    let (buckets, clock) = buckets(&Config::default());
    assert_eq!(buckets.take(&1, every(MINUTE), 10, 10), Ok(()));
    // Ten tokens owed at one a minute are ten tokens owed at one per 10 ms.
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 10, 1)), 10 * MS);
    assert_eq!(wait(buckets.take(&1, every(MINUTE), 10, 1)), MINUTE);
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 10, 10)), 100 * MS);
    // The wait that was told holds: the new rate is in force although its take was refused.
    clock.advance(100 * MS);
    assert_eq!(buckets.take(&1, every(10 * MS), 10, 10), Ok(()));
}

#[test]
fn time_that_has_passed_counts_at_the_rate_that_was_in_force() {
    let (buckets, clock) = buckets(&Config::default());
    assert_eq!(buckets.take(&1, every(MINUTE), 10, 10), Ok(()));
    clock.advance(MINUTE);
    // One token has come in; at one per 10 ms, had that been the rate, the bucket would be full.
    assert_eq!(buckets.take(&1, every(10 * MS), 10, 1), Ok(()));
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 10, 1)), 10 * MS);
}

#[test]
fn a_larger_capacity_is_not_filled_for_free() {
    let (buckets, clock) = buckets(&Config::default());
    assert_eq!(buckets.take(&1, every(10 * MS), 5, 5), Ok(()));
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 100, 1)), 10 * MS);
    clock.advance(100 * MS);
    assert_eq!(buckets.take(&1, every(10 * MS), 100, 10), Ok(()));
    assert!(buckets.take(&1, every(10 * MS), 100, 1).is_err());
}

#[test]
fn a_refused_take_with_a_small_capacity_does_not_wipe_out_what_was_spent() {
    let (buckets, _clock) = buckets(&Config::default());
    assert_eq!(buckets.take(&1, every(10 * MS), 100, 100), Ok(()));
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 1, 1)), 10 * MS);
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 100, 1)), 10 * MS);
    assert_eq!(wait(buckets.take(&1, every(10 * MS), 100, 100)), 1000 * MS);
}

#[test]
fn extreme_rates_capacities_and_times_are_answered_without_a_panic() {
    let (buckets, clock) = buckets(&Config::default());
    let slowest = every(Duration::from_nanos(1 << 62));
    let fastest = Rate::per_second(1_000_000_000).unwrap();
    assert_eq!(buckets.take(&1, slowest, 1, 1), Ok(()));
    assert!(matches!(buckets.take(&1, slowest, 2, 1), Err(TakeError::FillsTooSlowly { capacity: 2, .. })));
    assert!(wait(buckets.take(&1, slowest, 1, 1)) > MINUTE);
    assert!(buckets.take(&1, fastest, u32::MAX, u32::MAX).is_err());
    assert!(buckets.take(&1, slowest, 1, 1).is_err());
    clock.advance(Duration::MAX);
    assert_eq!(buckets.take(&1, fastest, u32::MAX, 1), Ok(()));
    assert_eq!(buckets.take(&2, slowest, 1, 1), Ok(()));
    assert!(buckets.take(&2, slowest, 1, 1).is_err());
    assert!(buckets.take(&2, fastest, u32::MAX, u32::MAX).is_err());
}
