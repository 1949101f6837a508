//! Which buckets are forgotten, when, and what happens at the limit.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use foretoken::{Config, Foretoken, ManualClock, Rate, Take, TakeError};

const MINUTE: Duration = Duration::from_secs(60);

fn buckets(config: &Config) -> (Foretoken<u32>, ManualClock) {
    let clock = ManualClock::new();
    (Foretoken::with(config, Arc::new(clock.clone()), RandomState::new()), clock)
}

fn per_minute() -> Rate {
    Rate::one_per(MINUTE).expect("a minute is above zero")
}

#[test]
fn idle_buckets_are_dropped_by_the_takes_of_others() {
    let (buckets, clock) = buckets(&Config::default());
    for key in 0..10_000 {
        buckets.take(&key, per_minute(), 5, 1).unwrap();
    }
    clock.advance(11 * MINUTE - Duration::from_nanos(1));
    for _ in 0..10_000 {
        buckets.take(&0, per_minute(), 5, 0).unwrap();
    }
    assert_eq!(buckets.len(), 10_000, "full since a nanosecond less than ten minutes");
    clock.advance(11 * MINUTE);
    for _ in 0..2_000 {
        buckets.take(&10_000, per_minute(), 2_000, 1).unwrap();
    }
    assert_eq!(buckets.len(), 1, "only the bucket in use is left");
}

#[test]
fn a_bucket_that_is_not_full_again_is_never_forgotten() {
    let (buckets, clock) = buckets(&Config::default());
    let hourly = Rate::one_per(60 * MINUTE).unwrap();
    buckets.take(&1, hourly, 2, 2).unwrap();
    clock.advance(119 * MINUTE);
    assert_eq!(buckets.drop_idle(), 0);
    assert!(buckets.take(&1, hourly, 2, 2).is_err(), "119 minutes have brought one token only");
    clock.advance(MINUTE);
    assert_eq!(buckets.drop_idle(), 0, "full, but not yet for ten minutes");
    clock.advance(10 * MINUTE);
    assert_eq!(buckets.drop_idle(), 1);
    let existing = Take::new(hourly, 2).existing_only();
    assert_eq!(buckets.take_with(&1, existing), Err(TakeError::NoSuchBucket));
}

#[test]
fn at_the_limit_full_buckets_make_room_and_others_do_not() {
    let (buckets, clock) = buckets(&Config { buckets_max: 100, ..Config::default() });
    let refused = Err(TakeError::TooManyBuckets { limit: 100 });
    for key in 0..100 {
        buckets.take(&key, per_minute(), 1, 1).unwrap();
    }
    for key in 100..200 {
        assert_eq!(buckets.take(&key, per_minute(), 1, 1), refused);
    }
    assert_eq!(buckets.len(), 100);
    for key in 0..100 {
        assert!(buckets.take(&key, per_minute(), 1, 1).is_err(), "{key} is still empty");
    }
    clock.advance(MINUTE);
    let made = (200..1_200).filter(|key| buckets.take(key, per_minute(), 1, 1).is_ok()).count();
    assert!(made >= 90, "{made} of 100 full buckets gave way");
    assert!(buckets.len() <= 100);
}

#[test]
fn many_threads_take_exactly_the_capacity() {
    let (buckets, _clock) = buckets(&Config::default());
    let take_all = || (0..20_000).filter(|n| buckets.take(&(n % 7), per_minute(), 1_000, 1).is_ok()).count();
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take_all)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 7 * 1_000);
}
