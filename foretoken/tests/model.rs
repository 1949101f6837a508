//! Buckets against a dumb model that counts tokens exactly.
//!
//! The model counts in units of which one token has `UNITS`, a multiple of all periods in use: a nanosecond at period
//! p is worth `UNITS / p` units, without rounding.

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use foretoken::{Config, Foretoken, ManualClock, Rate, TakeError};
use proptest::prelude::*;

/// Periods in nanoseconds, prime to each other so that every change of rate has to round.
const PERIODS: [u64; 4] = [700_001, 1_000_003, 3_000_017, 11_000_027];

/// The units of one token.
const UNITS: u128 = PERIODS[0] as u128 * PERIODS[1] as u128 * PERIODS[2] as u128 * PERIODS[3] as u128;

#[derive(Debug, Clone)]
struct Step {
    key: u8,
    after: Duration,
    period: u64,
    capacity: u32,
    n: u32,
    drop_idle: bool,
}

/// A bucket of the model: what it holds, when that was, and at which period and capacity it fills.
struct Exact {
    held: u128,
    at: u128,
    period: u64,
    capacity: u32,
    changes: u128,
}

impl Exact {
    fn new(at: u128, period: u64, capacity: u32) -> Exact {
        Exact { held: u128::from(capacity) * UNITS, at, period, capacity, changes: 0 }
    }

    fn fill_until(&mut self, now: u128) {
        let gained = (now - self.at) * (UNITS / u128::from(self.period));
        self.held = (self.held + gained).min(u128::from(self.capacity) * UNITS);
        self.at = now;
    }

    fn change(&mut self, period: u64, capacity: u32) {
        if (self.period, self.capacity) != (period, capacity) {
            self.changes += 1;
        }
        self.held = self.held.min(u128::from(capacity) * UNITS);
        (self.period, self.capacity) = (period, capacity);
    }

    /// The time, rounded up, until `n` tokens are held.
    fn wait_nanos(&self, n: u32) -> u128 {
        let missing = (u128::from(n) * UNITS).saturating_sub(self.held);
        missing.div_ceil(UNITS / u128::from(self.period))
    }
}

fn step(change: bool) -> impl Strategy<Value = Step> {
    let periods = if change { PERIODS.len() } else { 1 };
    let capacities = if change { 1..=9u32 } else { 5..=5 };
    (0..3u8, 0..8_000_000u64, 0..periods, capacities, any::<u32>(), 0..20u8).prop_map(
        |(key, after, period, capacity, n, drop)| Step {
            key,
            after: Duration::from_nanos(after),
            period: PERIODS[period],
            capacity,
            n: 1 + n % capacity,
            drop_idle: drop == 0,
        },
    )
}

fn every(period_nanos: u64) -> Rate {
    Rate::one_per(Duration::from_nanos(period_nanos)).expect("periods of the test are above zero")
}

/// Buckets that are forgotten as soon as they are full, so that forgetting is tried as hard as possible.
fn eager() -> Config {
    Config { idle_threshold: Duration::ZERO, cleanup_interval: Duration::ZERO, ..Config::default() }
}

fn check_against_model(config: &Config, steps: &[Step], may_forget: bool) -> Result<(), TestCaseError> {
    let clock = ManualClock::new();
    let buckets = Foretoken::with(config, Arc::new(clock.clone()), RandomState::new());
    let mut model: BTreeMap<u8, Exact> = BTreeMap::new();
    let mut now = 0;
    for step in steps {
        clock.advance(step.after);
        now += step.after.as_nanos();
        if step.drop_idle && may_forget {
            buckets.drop_idle();
        }
        let exact = model.entry(step.key).or_insert_with(|| Exact::new(now, step.period, step.capacity));
        exact.fill_until(now);
        exact.change(step.period, step.capacity);
        let wait_exact = exact.wait_nanos(step.n);
        match buckets.take(&step.key, every(step.period), step.capacity, step.n) {
            Ok(()) => {
                prop_assert_eq!(wait_exact, 0, "tokens out of nothing at {:?}", step);
                exact.held -= u128::from(step.n) * UNITS;
            }
            Err(TakeError::NotEnoughTokens { wait }) => {
                // Each change of rate rounds at most one nanosecond of the new rate away; a slower rate afterwards
                // stretches it by the ratio of the two.
                let slack = exact.changes * u128::from(PERIODS[3].div_ceil(PERIODS[0]) + 1);
                prop_assert!(wait.as_nanos() >= wait_exact, "told to come back too early at {:?}", step);
                let most = (wait_exact + slack).max(1_000_000);
                prop_assert!(wait.as_nanos() <= most, "{:?} is more than {} at {:?}", wait, most, step);
            }
            Err(other) => prop_assert!(false, "{other} at {step:?}"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_bucket_holds_what_an_exact_count_of_its_tokens_says(
        steps in prop::collection::vec(step(true), 1..150),
    ) {
        check_against_model(&Config::default(), &steps, false)?;
    }

    #[test]
    fn forgetting_full_buckets_makes_no_difference_while_rate_and_capacity_stay(
        steps in prop::collection::vec(step(false), 1..150),
    ) {
        check_against_model(&eager(), &steps, true)?;
    }

    #[test]
    fn no_window_sees_more_than_the_capacity_and_what_flowed_in(
        takes in prop::collection::vec((0..5_000_000u64, 1..=7u32), 1..100),
    ) {
        let (period, capacity) = (PERIODS[1], 7);
        let clock = ManualClock::new();
        let buckets = Foretoken::with(&eager(), Arc::new(clock.clone()), RandomState::new());
        let rate = every(period);
        let (mut now, mut granted) = (0, Vec::new());
        for (after, n) in takes {
            clock.advance(Duration::from_nanos(after));
            now += after;
            if buckets.take(&"b", rate, capacity, n).is_ok() {
                granted.push((now, u64::from(n)));
            }
        }
        for first in 0..granted.len() {
            let mut taken = 0;
            for &(at, n) in &granted[first..] {
                taken += n;
                let flowed_in = (at - granted[first].0) / period;
                prop_assert!(taken <= u64::from(capacity) + flowed_in, "{taken} within {} ns", at - granted[first].0);
            }
        }
    }
}
