//! The wait before the next dial: doubling, bounded, jittered.

use std::time::Duration;

/// The wait after `failures` dials in a row went wrong, drawn by `random` from half to the whole of the doubled
/// minimum, at most `max`.
///
/// The jitter keeps the nodes of a cluster from dialling a restarted one in step.
pub(crate) fn backoff(failures: u32, min: Duration, max: Duration, random: u64) -> Duration {
    let doubled = min.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let whole = doubled.min(max);
    let half = whole / 2;
    let span_nanos = u64::try_from((whole - half).as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random % span_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn backoff_stays_between_half_the_minimum_and_the_maximum(failures in 0u32..1000, random: u64) {
            let (min, max) = (Duration::from_millis(50), Duration::from_secs(1));
            let wait = backoff(failures, min, max, random);
            prop_assert!(wait >= min / 2 && wait <= max);
        }
    }

    #[test]
    fn backoff_doubles_until_the_maximum() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
        let halves: Vec<_> = (1..=6).map(|failures| backoff(failures, min, max, 0).as_millis()).collect();
        assert_eq!(halves, [5, 10, 20, 40, 50, 50]);
    }
}
