//! Every key hash has one owner: no two shards serve it, and once all were served, somebody is responsible for it.

use dist_agent::raft_kv::KeyRange;

use super::Shards;

/// Remembers whether the space was ever covered: until then shards are being made.
#[derive(Debug, Default)]
pub(in crate::sim::stack) struct RangesCoverOnce {
    covered: bool,
}

impl RangesCoverOnce {
    /// # Errors
    ///
    /// Two shards that serve a hash, or one that nobody is responsible for.
    pub(in crate::sim::stack) fn holds(&mut self, shards: &Shards) -> Result<(), String> {
        let mut served: Vec<_> =
            shards.iter().filter_map(|(group, shard)| Some((shard.serves?, *group))).collect();
        served.sort_by_key(|(range, _)| range.first());
        for pair in served.windows(2) {
            let [(low, one), (high, other)] = pair else { continue };
            if low.overlaps(*high) {
                return Err(format!("{one} serves the hashes {low}, and {other} serves {high}"));
            }
        }
        let gap = first_gap(shards.values().filter_map(|shard| shard.range));
        match gap {
            Some(hash) if self.covered => Err(format!("nobody is responsible for the hash {hash:016x}")),
            Some(_) => Ok(()),
            None => {
                self.covered = true;
                Ok(())
            }
        }
    }
}

/// The first hash that lies in none of these ranges.
fn first_gap(ranges: impl Iterator<Item = KeyRange>) -> Option<u64> {
    let mut ranges: Vec<KeyRange> = ranges.collect();
    ranges.sort_by_key(|range| range.first());
    let mut next = Some(0_u64);
    for range in ranges {
        let wanted = next?;
        if range.first() > wanted {
            return Some(wanted);
        }
        if range.last() >= wanted {
            next = range.last().checked_add(1);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::super::testing::{giving, range, serving, shards};
    use super::*;

    #[test]
    fn a_hash_that_two_shards_serve_is_found() {
        let (low, all) = (serving(range(0, 99), &[]), serving(KeyRange::ALL, &[]));
        let high = serving(range(100, u64::MAX), &[]);
        let mut invariant = RangesCoverOnce::default();
        // While the range is handed over the sender is responsible, and when the receiver serves it both are.
        let given = giving(&all, range(100, u64::MAX));
        for fine in
            [vec![all.clone()], vec![given.clone()], vec![given, high.clone()], vec![low, high.clone()]]
        {
            assert_eq!(invariant.holds(&shards(&fine)), Ok(()));
        }
        assert!(invariant.holds(&shards(&[all, high])).unwrap_err().contains("serves"));
    }

    #[test]
    fn a_hash_that_nobody_is_responsible_for_is_found_once_all_were_served() {
        let (low, high) = (serving(range(0, 99), &[]), serving(range(101, u64::MAX), &[]));
        let mut invariant = RangesCoverOnce::default();
        assert_eq!(invariant.holds(&shards(std::slice::from_ref(&low))), Ok(()));
        assert_eq!(invariant.holds(&shards(&[serving(KeyRange::ALL, &[])])), Ok(()));
        let gap = invariant.holds(&shards(&[low, high])).unwrap_err();
        assert_eq!(gap, "nobody is responsible for the hash 0000000000000064");
        assert!(invariant.holds(&shards(&[])).is_err());
    }
}
