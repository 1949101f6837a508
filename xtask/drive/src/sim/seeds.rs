//! Which seeds are played, in order: those that once failed, where they are asked for, then a range.

use std::ops::Range;

use super::scenario::Scenario;

/// Seeds that showed a fault which is mended, in the crates or in the harness; what each was is told by the test that is
/// named after it, in the CHANGELOGs and in `.github/VERIFICATION.md`. A seed decides a world only as long as nothing
/// draws more or less from it than before, so that most of the older ones play another world by now: the test beside the
/// code is what keeps a fault away, and this is one more look.
const fn once_failed(scenario: Scenario) -> &'static [u64] {
    match scenario {
        Scenario::Engine => &[258, 378, 1205, 1262, 2462, 3113, 3247, 3345, 4172, 10_663, 5_002_543],
        Scenario::Fleet => &[],
        Scenario::Stack => &[1083, 20_050, 20_393, 60_175, 80_202, 102_057, 200_730, 300_831, 603_100, 784],
    }
}

/// The seeds of one scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seeds {
    first: &'static [u64],
    range: Range<u64>,
}

impl Seeds {
    /// A range, up to [`u64::MAX`] for as many as there is time for.
    pub(super) fn new(range: Range<u64>) -> Self {
        Self { first: &[], range }
    }

    /// The same behind those that once failed.
    pub(super) fn behind_once_failed(self, scenario: Scenario) -> Self {
        Self { first: once_failed(scenario), ..self }
    }

    /// The `n`-th, from 0 on.
    pub(super) fn nth(&self, n: u64) -> Option<u64> {
        let first = self.first.len() as u64;
        match n.checked_sub(first) {
            None => self.first.get(n as usize).copied(),
            Some(behind) => self.range.start.checked_add(behind).filter(|seed| self.range.contains(seed)),
        }
    }

    /// How many there are; `None` for as many as there is time for.
    pub(super) fn count(&self) -> Option<u64> {
        let all = self.range.end - self.range.start + self.first.len() as u64;
        (self.range.end < u64::MAX).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seeds: &Seeds) -> Vec<u64> {
        (0..).map_while(|n| seeds.nth(n)).collect()
    }

    #[test]
    fn a_range_is_played_in_order_to_its_end() {
        let seeds = Seeds::new(7..10);
        assert_eq!(all(&seeds), [7, 8, 9]);
        assert_eq!(seeds.count(), Some(3));
        let endless = Seeds::new(0..u64::MAX);
        assert_eq!((endless.nth(1_000_000), endless.count()), (Some(1_000_000), None));
    }

    #[test]
    fn seeds_that_once_failed_come_first() {
        let seeds = Seeds::new(7..9).behind_once_failed(Scenario::Stack);
        let once = once_failed(Scenario::Stack);
        assert_eq!(all(&seeds), [once, &[7, 8]].concat());
        assert_eq!(seeds.count(), Some(once.len() as u64 + 2));
    }
}
