//! One call's way from shard to shard, as what each of them says leads on. Pure.
//!
//! A range that is handed over is served by nobody for a moment. Its former shard names the new one, and the new one, which
//! is known to be about to serve it, is asked until it does. It may have had the range before and still name a shard that
//! it once gave it to: what is said of an older move than the one that led there leads nowhere.

use std::time::Duration;

use crate::shard::{Elsewhere, Gone};

/// The first wait for a range that no shard serves at the moment; each further one is twice as long.
pub(crate) const WAIT_FIRST: Duration = Duration::from_millis(1);
/// The longest.
const WAIT_MAX: Duration = Duration::from_millis(16);
/// Shards that are asked one after the other without a wait.
const HOPS_MAX: u32 = 3;

/// Whom to ask next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// This shard.
    Ask(u32),
    /// The same one again.
    Again,
    /// The list of keyspaces, which knows the shard.
    List,
}

/// Where a call has been.
#[derive(Debug)]
pub(crate) struct Trail {
    /// The shard that is asked.
    at: u32,
    hops: u32,
    wait: Duration,
    /// The newest move that has led anywhere.
    newest: u64,
}

impl Trail {
    pub(crate) fn begin(at: u32) -> Self {
        Self { at, hops: 0, wait: WAIT_FIRST, newest: 0 }
    }

    /// Where to go on after the shard has said that the hash is elsewhere.
    pub(crate) fn next(&mut self, elsewhere: &Elsewhere) -> Next {
        self.hops += 1;
        match elsewhere.hint {
            Some(Gone { to, move_id, .. }) if move_id > self.newest || !elsewhere.coming => {
                self.newest = self.newest.max(move_id);
                Next::Ask(to)
            }
            _ if elsewhere.coming => Next::Again,
            _ => Next::List,
        }
    }

    /// Goes to a shard; how long to wait before it is asked.
    pub(crate) fn go(&mut self, to: u32) -> Duration {
        let waits = to == self.at || self.hops.is_multiple_of(HOPS_MAX);
        self.at = to;
        if waits { self.stay() } else { Duration::ZERO }
    }

    /// Stays with the shard; how long to wait before it is asked again.
    pub(crate) fn stay(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait
    }

    /// Goes to a shard of which the list has told, without having heard of the one before.
    pub(crate) fn turn_to(&mut self, to: u32) {
        self.at = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_range::KeyRange;

    const MS: Duration = Duration::from_millis(1);

    fn gone(to: u32, move_id: u64) -> Option<Gone> {
        Some(Gone { range: KeyRange::ALL, to, move_id })
    }

    fn says(trail: &mut Trail, hint: Option<Gone>, coming: bool) -> Next {
        trail.next(&Elsewhere { range: None, hint, coming })
    }

    #[test]
    fn a_range_that_went_is_followed_at_once() {
        let mut trail = Trail::begin(0);
        assert_eq!(says(&mut trail, gone(1, 5), false), Next::Ask(1));
        assert_eq!(trail.go(1), Duration::ZERO);
        assert_eq!(says(&mut trail, gone(2, 6), false), Next::Ask(2));
        assert_eq!(trail.go(2), Duration::ZERO);
    }

    /// Callers once went in a circle while a range came back to the shard that had given it away: only every third question
    /// was one that could be answered.
    #[test]
    fn a_shard_that_gets_a_range_back_is_asked_until_it_serves_it() {
        let mut trail = Trail::begin(0);
        assert_eq!(says(&mut trail, gone(1, 7), false), Next::Ask(1));
        assert_eq!(trail.go(1), Duration::ZERO);
        for wait in [1, 2, 4, 8, 16, 16] {
            assert_eq!(says(&mut trail, gone(0, 3), true), Next::Again);
            assert_eq!(trail.stay(), wait * MS);
        }
        assert_eq!(says(&mut trail, gone(0, 3), false), Next::Ask(0), "the move was undone");
    }

    #[test]
    fn an_old_route_leads_to_the_shard_that_is_about_to_give_the_range_back() {
        let mut trail = Trail::begin(1);
        assert_eq!(says(&mut trail, gone(0, 3), true), Next::Ask(0));
        assert_eq!(trail.go(0), Duration::ZERO);
        assert_eq!(says(&mut trail, gone(1, 7), false), Next::Ask(1));
    }

    #[test]
    fn shards_that_name_each_other_do_not_keep_a_caller_spinning() {
        let mut trail = Trail::begin(0);
        let waits = (0..9).map(|hop| {
            let to = 1 - hop % 2;
            assert_eq!(says(&mut trail, gone(to, 7), false), Next::Ask(to));
            trail.go(to)
        });
        assert_eq!(waits.filter(|wait| !wait.is_zero()).count(), 3);
    }

    #[test]
    fn a_shard_that_knows_nothing_sends_to_the_list_and_is_not_asked_again_at_once() {
        let mut trail = Trail::begin(4);
        assert_eq!(says(&mut trail, None, false), Next::List);
        assert_eq!(trail.go(4), MS);
        assert_eq!(says(&mut trail, None, false), Next::List);
        assert_eq!(trail.go(5), Duration::ZERO);
    }
}
