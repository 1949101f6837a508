//! A token bucket for the bytes of the bulk lanes: what is sent in a burst is waited for afterwards.

use std::time::Duration;

use tokio::time::Instant;

/// The bucket holds what may be sent in this time.
const BURST: Duration = Duration::from_millis(20);
/// So many slices go out in a second, as long as they have a sensible size: a timer is not finer than a millisecond.
const SLICES_PER_SECOND: u64 = 1000;
const SLICE_BYTES_MIN: u64 = 16 << 10;
const SLICE_BYTES_MAX: u64 = 256 << 10;

/// Bytes a second, as a debt that is paid off by waiting.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    bytes_per_second: Option<u64>,
    /// When the bucket is full again.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket; without a rate nobody waits.
    pub(crate) fn new(bytes_per_second: Option<u64>, now: Instant) -> TokenBucket {
        TokenBucket { bytes_per_second, full_at: now }
    }

    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        self.bytes_per_second
    }

    /// Changes the rate; what is still to be paid off is paid off at the new one.
    pub(crate) fn set_bytes_per_second(&mut self, bytes_per_second: Option<u64>, now: Instant) {
        let debt = self.full_at.saturating_duration_since(now);
        let rescaled = match (self.bytes_per_second, bytes_per_second) {
            (Some(old), Some(new)) => {
                debt.as_nanos().saturating_mul(u128::from(old)) / u128::from(new.max(1))
            }
            _ => 0,
        };
        let rescaled = Duration::from_nanos(u64::try_from(rescaled).unwrap_or(u64::MAX));
        self.full_at = now.checked_add(rescaled).unwrap_or(self.full_at);
        self.bytes_per_second = bytes_per_second;
    }

    /// How many bytes to send at once: small enough that those who send between two slices hardly wait.
    pub(crate) fn slice_bytes(&self) -> usize {
        let rate = self.bytes_per_second.unwrap_or(u64::MAX);
        (rate / SLICES_PER_SECOND).clamp(SLICE_BYTES_MIN, SLICE_BYTES_MAX) as usize
    }

    /// Takes the tokens of `bytes` that are about to be sent, and says how long to wait before that.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let Some(bytes_per_second) = self.bytes_per_second else { return Duration::ZERO };
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let wait = self.full_at.saturating_duration_since(now).saturating_sub(BURST);
        let since = self.full_at.max(now);
        self.full_at = since.checked_add(cost).unwrap_or(since);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_than_the_rate_is_sent() {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = TokenBucket::new(Some(1_000_000), now);
        let mut sent = 0;
        while sent < 2_000_000 {
            now += bucket.take(10_000, now);
            sent += 10_000;
        }
        let took = now - start;
        assert!((Duration::from_millis(1950)..=Duration::from_millis(2000)).contains(&took), "{took:?}");
    }

    /// Slices of 256 KiB whatever the rate once tripled the p99 of small messages beside a snapshot.
    #[test]
    fn a_slice_is_what_the_rate_brings_in_a_millisecond() {
        let slice_bytes = |rate| TokenBucket::new(rate, Instant::now()).slice_bytes();
        assert_eq!(slice_bytes(Some(64 << 20)), 67_108);
        assert_eq!((slice_bytes(Some(1)), slice_bytes(None)), (16 << 10, 256 << 10));
    }

    /// A rate of one byte a second, set by mistake, once held back what came hours after it had been mended.
    #[test]
    fn a_debt_is_paid_off_at_the_new_rate() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(Some(1), now);
        assert_eq!(bucket.take(16_384, now), Duration::ZERO);
        bucket.set_bytes_per_second(Some(16_384), now);
        assert_eq!(bucket.take(0, now), Duration::from_millis(980));
        bucket.set_bytes_per_second(Some(1), now + Duration::from_millis(500));
        assert_eq!(bucket.take(0, now + Duration::from_millis(500)), Duration::from_millis(8_191_980));
        bucket.set_bytes_per_second(None, now);
        bucket.set_bytes_per_second(Some(u64::MAX), now);
        assert_eq!(bucket.take(1, now), Duration::ZERO);
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Some(1000), start);
        let later = start + Duration::from_secs(100);
        assert_eq!(bucket.take(1000, later), Duration::ZERO, "the bucket is full");
        assert_eq!(bucket.take(1000, later), Duration::from_millis(980));
    }

    #[test]
    fn without_a_rate_nobody_waits_and_a_new_rate_holds_at_once() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(None, now);
        assert_eq!(bucket.take(usize::MAX, now), Duration::ZERO);
        assert_eq!(bucket.take(usize::MAX, now), Duration::ZERO);
        bucket.set_bytes_per_second(Some(1000), now);
        assert_eq!(bucket.take(2000, now), Duration::ZERO);
        assert_eq!(bucket.take(1, now), Duration::from_millis(1980));
        assert_eq!(bucket.bytes_per_second(), Some(1000));
    }
}
