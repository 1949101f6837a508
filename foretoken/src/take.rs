//! What a caller asks of a bucket.

use crate::error::TakeError;
use crate::limits::Limits;
use crate::rate::{FILL_MAX_NANOS, Rate};

/// A request for tokens: how many, from a bucket of which rate and capacity, and whether to make the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    pub(crate) rate: Rate,
    pub(crate) capacity: u32,
    pub(crate) n: u32,
    pub(crate) create: bool,
}

impl Take {
    /// One token from a bucket that holds at most `capacity` and is made, full, if it does not exist.
    pub const fn new(rate: Rate, capacity: u32) -> Take {
        Take { rate, capacity, n: 1, create: true }
    }

    /// The same with `n` tokens. Zero tokens can always be had, and make no bucket.
    #[must_use]
    pub const fn tokens(self, n: u32) -> Take {
        Take { n, ..self }
    }

    /// The same, or [`TakeError::NoSuchBucket`] if the bucket does not exist.
    #[must_use]
    pub const fn existing_only(self) -> Take {
        Take { create: false, ..self }
    }

    #[inline]
    pub(crate) const fn limits(self) -> Limits {
        Limits { rate: self.rate, capacity: self.capacity }
    }

    /// The time in which the whole bucket fills, in nanoseconds, if this can ever be granted.
    pub(crate) fn fill_nanos(self) -> Result<u64, TakeError> {
        let Take { rate, capacity, n, .. } = self;
        if n > capacity {
            return Err(TakeError::MoreThanCapacity { n, capacity });
        }
        match rate.period_nanos().checked_mul(u64::from(capacity)) {
            Some(fill) if fill <= FILL_MAX_NANOS => Ok(fill),
            _ => Err(TakeError::FillsTooSlowly { capacity, period: rate.period() }),
        }
    }
}
