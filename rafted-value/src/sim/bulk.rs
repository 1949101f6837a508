//! The rate at which a node sends on its bulk lanes, to all others together.

/// Bytes a second, and what was sent already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BulkRate {
    bytes_per_second: Option<u64>,
    /// When all that was sent so far has left.
    free_at: u64,
}

impl BulkRate {
    /// Sends no more than this from now on.
    pub(super) fn limit(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = Some(bytes_per_second);
    }

    /// When a message that is sent now has left, in nanoseconds: behind all before it.
    pub(super) fn depart(&mut self, now: u64, bytes: usize) -> u64 {
        let Some(rate) = self.bytes_per_second else { return now };
        let cost = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        self.free_at = self.free_at.max(now).saturating_add(cost);
        self.free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_on_bulk_lanes_leaves_at_its_rate_and_a_pause_is_not_saved_up() {
        let mut rate = BulkRate::default();
        assert_eq!(rate.depart(5, usize::MAX), 5, "no limit");
        rate.limit(1_000_000_000);
        assert_eq!((rate.depart(5, 10), rate.depart(5, 10)), (15, 25));
        assert_eq!(rate.depart(1_000, 10), 1_010);
    }
}
