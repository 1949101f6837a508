//! Whether a move catches up with what changes in its range while it is copied.

/// The chunks after which no less was left to copy than before, over the whole move.
///
/// What counts is not how much is copied: a large range of which much has changed needs many chunks, and after each of them
/// less is left. As often as a chunk helps, something of what was left is gone, so that a move ends sooner or later. Less
/// than at the chunk before, and not less than ever: after a burst of changes a move has as much time to come down again.
#[derive(Default)]
pub(super) struct CatchUp {
    in_vain: u64,
    /// What was left after the last chunk of this pass.
    left: Option<u64>,
}

impl CatchUp {
    /// What changed meanwhile is copied from now on, however much it is.
    pub(super) fn begin_pass(&mut self) {
        self.left = None;
    }

    /// Takes note of what is left after a chunk; whether the range has not changed faster than it is copied more than
    /// `in_vain_max` times.
    pub(super) fn goes_on(&mut self, left: u64, in_vain_max: u64) -> bool {
        if self.left.replace(left).is_some_and(|before| left >= before) {
            self.in_vain += 1;
        }
        self.in_vain <= in_vain_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many chunks of so many hashes a move copies, where so many change after each, until nothing is left or it is
    /// given up.
    fn chunks(mut left: u64, changes: impl Fn(u64) -> u64, in_vain_max: u64) -> (u64, u64) {
        let mut catch_up = CatchUp::default();
        catch_up.begin_pass();
        for chunk in 1.. {
            left = left.saturating_sub(10);
            if left == 0 || !catch_up.goes_on(left, in_vain_max) {
                return (chunk, left);
            }
            left += changes(chunk);
        }
        unreachable!("a number is always there")
    }

    /// Every chunk but the last was once counted, so that a move ended after as many as there may be in vain.
    #[test]
    fn a_move_goes_on_as_long_as_less_is_left_after_each_chunk() {
        assert_eq!(chunks(10_000, |_| 0, 5), (1000, 0));
        assert_eq!(chunks(10_000, |_| 9, 5).1, 0);
    }

    #[test]
    fn a_burst_of_changes_does_not_end_a_move_that_catches_up_afterwards() {
        assert_eq!(chunks(100, |chunk| if chunk == 9 { 10_000 } else { 0 }, 5), (1010, 0));
    }

    #[test]
    fn a_move_that_does_not_catch_up_ends() {
        for changes in [10, 11, 1000] {
            assert_eq!(chunks(500, |_| changes, 5).0, 7, "{changes}");
        }
        let (chunks, left) = chunks(500, |chunk| if chunk.is_multiple_of(3) { 40 } else { 0 }, 5);
        assert!(chunks < 20 && left > 0, "{chunks}");
    }

    #[test]
    fn a_pass_begins_with_whatever_has_changed_meanwhile() {
        let mut catch_up = CatchUp::default();
        for left in [1, 50, 3] {
            catch_up.begin_pass();
            assert!(catch_up.goes_on(left, 0));
        }
    }
}
