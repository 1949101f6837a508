//! Input from outside at its worst: extreme rates, capacities and numbers of tokens, clocks that jump.

use std::hash::RandomState;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use foretoken::{Clock, Config, Foretoken, Rate, Sleep, Take, TakeAllError, TakeError};
use proptest::prelude::*;

/// A clock that shows whatever the test wants, backwards too.
#[derive(Clone, Default)]
struct Jumpy(Arc<AtomicU64>);

impl Jumpy {
    fn jump(&self, to_nanos: u64) {
        self.0.store(to_nanos, Ordering::Relaxed);
    }
}

impl Clock for Jumpy {
    fn now_nanos(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn sleep_until(&self, _at_nanos: u64) -> Sleep {
        Box::pin(std::future::pending())
    }
}

fn with_clock() -> (Foretoken<u8>, Jumpy) {
    let clock = Jumpy::default();
    (Foretoken::with(&Config::default(), Arc::new(clock.clone()), RandomState::new()), clock)
}

#[test]
fn a_clock_that_goes_back_hands_out_no_token_twice() {
    let (buckets, clock) = with_clock();
    let take = Take::new(Rate::one_per(Duration::from_millis(1)).unwrap(), 3);
    clock.jump(1_000_000_000);
    assert_eq!(buckets.take_with(&1, take.tokens(3)), Ok(()));
    for back_to in [999_999_999, 500_000_000, 0] {
        clock.jump(back_to);
        assert!(buckets.take_with(&1, take).is_err());
        assert_eq!(buckets.peek(&1, take).unwrap().tokens, 0);
        assert_eq!(buckets.drop_idle(), 0);
    }
    clock.jump(1_001_000_000);
    assert_eq!(buckets.take_with(&1, take), Ok(()));
    assert!(buckets.take_with(&1, take).is_err());
    clock.jump(u64::MAX);
    assert_eq!(buckets.take_with(&1, take.tokens(3)), Ok(()));
    assert!(buckets.take_with(&1, take).is_err(), "time has ended: nothing comes in");
}

#[test]
fn the_slowest_rate_and_the_largest_capacity_can_be_waited_for_and_looked_at() {
    let (buckets, _clock) = with_clock();
    let mut context = Context::from_waker(Waker::noop());
    let slowest = Take::new(Rate::one_per(Duration::from_nanos(1 << 62)).unwrap(), 1);
    let largest = Take::new(Rate::per_second(1_000_000_000).unwrap(), u32::MAX).tokens(u32::MAX);
    for (key, take) in [(1, slowest), (2, largest)] {
        buckets.take_with(&key, take).unwrap();
        let mut first = Box::pin(buckets.take_or_wait(&key, take));
        let mut second = Box::pin(buckets.take_or_wait_for(&key, take, Duration::MAX));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(buckets.peek(&key, take).unwrap().wait > Duration::from_secs(12));
        assert!(matches!(buckets.take_all(&[(&key, take)]), Err(TakeAllError::Refused { .. })));
    }
}

/// Every field of the config at its least and at its most.
#[test]
fn limits_of_nothing_and_of_everything_are_kept_without_a_panic() {
    let nothing = Config {
        idle_threshold: Duration::ZERO,
        cleanup_interval: Duration::ZERO,
        buckets_max: 0,
        waiters_per_bucket_max: 0,
        waiters_max: 0,
        take_all_max: 0,
    };
    let everything = Config {
        idle_threshold: Duration::MAX,
        cleanup_interval: Duration::MAX,
        buckets_max: usize::MAX,
        waiters_per_bucket_max: u32::MAX,
        waiters_max: usize::MAX,
        take_all_max: usize::MAX,
    };
    let mut context = Context::from_waker(Waker::noop());
    let take = Take::new(Rate::per_second(1).unwrap(), 1);
    for (config, is_refused) in [(nothing, true), (everything, false)] {
        let clock = Jumpy::default();
        let buckets = Foretoken::with(&config, Arc::new(clock.clone()), RandomState::new());
        let no_bucket = Err(TakeError::TooManyBuckets { limit: 0 });
        assert_eq!(buckets.take_with(&1, take), if is_refused { no_bucket } else { Ok(()) });
        let mut caller = Box::pin(buckets.take_or_wait(&1, take));
        assert_eq!(caller.as_mut().poll(&mut context).is_ready(), is_refused, "it waits, or is refused");
        let list = buckets.take_all(&[(&2, take)]);
        assert_eq!(matches!(list, Err(TakeAllError::TooManyBuckets { buckets: 1, limit: 0 })), is_refused);
        let mut cleaning = Box::pin(buckets.keep_dropping_idle());
        assert!(cleaning.as_mut().poll(&mut context).is_pending());
        for time in [1, u64::MAX] {
            clock.jump(time);
            assert_eq!(buckets.drop_idle(), 0, "none is there, or one is waited for and none idle for ever");
        }
        drop(caller);
    }
}

/// A key whose copy is refused by a panic, as long as the test says so.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fragile(u8);

static IS_BROKEN: AtomicBool = AtomicBool::new(false);

impl Clone for Fragile {
    fn clone(&self) -> Fragile {
        assert!(!IS_BROKEN.load(Ordering::Relaxed), "a copy of somebody else's key");
        Fragile(self.0)
    }
}

#[test]
fn a_key_that_panics_when_it_is_copied_leaves_everything_as_it_was() {
    let config = Config { buckets_max: 2, ..Config::default() };
    let buckets = Foretoken::with(&config, Arc::new(Jumpy::default()), RandomState::new());
    let take = Take::new(Rate::per_second(1).unwrap(), 1);
    let (first, second) = (Fragile(1), Fragile(2));
    IS_BROKEN.store(true, Ordering::Relaxed);
    let alone = catch_unwind(AssertUnwindSafe(|| buckets.take_with(&first, take)));
    let together = catch_unwind(AssertUnwindSafe(|| buckets.take_all(&[(&first, take), (&second, take)])));
    assert!(alone.is_err() && together.is_err());
    IS_BROKEN.store(false, Ordering::Relaxed);
    assert_eq!(buckets.len(), 0, "nothing was counted");
    assert_eq!(buckets.take_all(&[(&first, take), (&second, take)]), Ok(()), "and no lock is held");
    let mut caller = Box::pin(buckets.take_or_wait(&first, take));
    IS_BROKEN.store(true, Ordering::Relaxed);
    let mut context = Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| caller.as_mut().poll(&mut context)));
    IS_BROKEN.store(false, Ordering::Relaxed);
    drop(caller);
    assert!(polled.is_err() || polled.is_ok_and(|polled| polled.is_pending()));
    assert_eq!(buckets.waiting(), 0, "no place is left behind");
}

fn period() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(1 << 62), 1..=1_u64 << 62, 1..=1_000_000_000_u64]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>(), 0..20_u32]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..10_000_000_000_u64]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// With debug assertions and overflow checks on, any slip of the arithmetic is a panic.
    #[test]
    fn no_input_panics_and_what_is_taken_is_gone(
        steps in prop::collection::vec((0..2_u8, period(), number(), number(), time(), 0..5_u8), 1..60),
    ) {
        let keys = [0_u8, 1];
        let (buckets, clock) = with_clock();
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        for (key, period, capacity, n, now, how) in steps {
            clock.jump(now);
            let take = Take::new(Rate::one_per(Duration::from_nanos(period)).unwrap(), capacity).tokens(n);
            let key = &keys[usize::from(key)];
            let before = buckets.peek(key, take);
            let taken = match how {
                0 => {
                    let mut caller = Box::pin(buckets.take_or_wait(key, take));
                    if caller.as_mut().poll(&mut context).is_pending() {
                        waiting.push(caller);
                    }
                    continue;
                }
                1 => {
                    waiting.pop();
                    continue;
                }
                2 => match buckets.take_all(&[(key, take)]) {
                    Err(TakeAllError::Refused { error, .. }) => Err(error),
                    answer => {
                        prop_assert_eq!(answer, Ok(()));
                        Ok(())
                    }
                },
                _ => buckets.take_with(key, take),
            };
            match (before, taken) {
                (Ok(before), Ok(())) => {
                    prop_assert!(before.wait.is_zero());
                    let after = buckets.peek(key, take.tokens(0)).unwrap();
                    prop_assert_eq!(u64::from(after.tokens) + u64::from(n), u64::from(before.tokens));
                }
                (Ok(before), Err(TakeError::NotEnoughTokens { wait })) => {
                    prop_assert_eq!(wait, before.wait.max(Duration::from_millis(1)));
                    prop_assert!(!before.wait.is_zero());
                }
                (before, taken) => prop_assert_eq!(before.map(drop), taken),
            }
        }
    }
}
