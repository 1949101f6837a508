//! How fast a bucket fills: parsed once, so that nothing further in ever meets a rate of zero.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::error::RateError;

/// The longest time, in nanoseconds, that a bucket may need to fill: 2^62, about 146 years.
///
/// Clock readings are clamped to it as well, so that the sum of an arrival time, a whole bucket and one more take
/// stays below 2^64.
pub(crate) const FILL_MAX_NANOS: u64 = 1 << 62;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How fast a bucket fills: one token per a period of whole nanoseconds.
///
/// A period that is no whole number of nanoseconds is rounded up, so that a bucket never fills faster than asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    period_nanos: NonZeroU64,
}

impl Rate {
    /// The slowest rate there is.
    pub(crate) const SLOWEST: Rate = match Rate::one_per(Duration::from_nanos(FILL_MAX_NANOS)) {
        Ok(rate) => rate,
        Err(_) => panic!("the slowest rate is a rate"),
    };

    /// `tokens` a second.
    ///
    /// # Errors
    /// [`RateError::Zero`] for no token a second, [`RateError::TooFast`] above one token a nanosecond.
    pub const fn per_second(tokens: u32) -> Result<Rate, RateError> {
        if tokens as u64 > NANOS_PER_SECOND {
            return Err(RateError::TooFast { tokens });
        }
        match NonZeroU64::new(tokens as u64) {
            None => Err(RateError::Zero),
            Some(tokens) => match NonZeroU64::new(NANOS_PER_SECOND.div_ceil(tokens.get())) {
                None => Err(RateError::Zero),
                Some(period_nanos) => Ok(Rate { period_nanos }),
            },
        }
    }

    /// One token every `period`.
    ///
    /// # Errors
    /// [`RateError::Zero`] for a period of zero (an infinite rate), [`RateError::TooSlow`] for one above 2^62 ns
    /// (146 years).
    pub const fn one_per(period: Duration) -> Result<Rate, RateError> {
        let nanos = period.as_nanos();
        if nanos > FILL_MAX_NANOS as u128 {
            return Err(RateError::TooSlow { period });
        }
        match NonZeroU64::new(nanos as u64) {
            None => Err(RateError::Zero),
            Some(period_nanos) => Ok(Rate { period_nanos }),
        }
    }

    /// The time in which one token is added.
    pub const fn period(self) -> Duration {
        Duration::from_nanos(self.period_nanos.get())
    }

    pub(crate) const fn period_nanos(self) -> u64 {
        self.period_nanos.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_zero_is_an_error_value() {
        assert_eq!(Rate::per_second(0), Err(RateError::Zero));
        assert_eq!(Rate::one_per(Duration::ZERO), Err(RateError::Zero));
    }

    #[test]
    fn a_rate_that_cannot_be_counted_in_nanoseconds_is_an_error_value() {
        assert_eq!(Rate::per_second(1_000_000_001), Err(RateError::TooFast { tokens: 1_000_000_001 }));
        assert_eq!(Rate::one_per(Duration::MAX), Err(RateError::TooSlow { period: Duration::MAX }));
    }

    #[test]
    fn a_period_is_rounded_up_so_that_no_bucket_fills_faster_than_asked() {
        assert_eq!(Rate::per_second(3).unwrap().period(), Duration::from_nanos(333_333_334));
        assert_eq!(Rate::per_second(4).unwrap().period(), Duration::from_millis(250));
        assert_eq!(Rate::per_second(1_000_000_000).unwrap().period(), Duration::from_nanos(1));
    }
}
