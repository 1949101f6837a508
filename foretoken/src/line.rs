//! Who waits for one bucket, in the order of coming: bookkeeping only, no clock and no tokens.

use std::collections::BTreeMap;
use std::task::Waker;

/// The callers that wait for one bucket. Only the first may take; when it leaves, the next is woken.
///
/// Invariant: `tokens` is the sum of all `n`. It fits, as there are fewer than 2^32 waiters in a line.
#[derive(Default)]
pub(crate) struct Line {
    /// By ticket: tickets are handed out in ascending order.
    waiters: BTreeMap<u64, Waiter>,
    tokens: u64,
}

struct Waiter {
    n: u32,
    /// `None` once woken, until the next poll.
    waker: Option<Waker>,
}

impl Line {
    /// Goes to the end of the line. `ticket` is above all tickets before it.
    pub(crate) fn join(&mut self, ticket: u64, n: u32, waker: Waker) {
        debug_assert!(self.waiters.last_key_value().is_none_or(|(&last, _)| last < ticket), "first come");
        self.waiters.insert(ticket, Waiter { n, waker: Some(waker) });
        self.tokens += u64::from(n);
    }

    /// Whether nobody is before `ticket`.
    pub(crate) fn is_first(&self, ticket: u64) -> bool {
        self.waiters.first_key_value().is_some_and(|(&first, _)| first == ticket)
    }

    /// Remembers whom to wake for `ticket`. Answers the waker from before, to be dropped outside of the lock.
    pub(crate) fn set_waker(&mut self, ticket: u64, waker: Waker) -> Option<Waker> {
        self.waiters.get_mut(&ticket).and_then(|waiter| waiter.waker.replace(waker))
    }

    /// Gives up the place of `ticket`. Answers whom to wake, as it is first now, and a waker to drop.
    pub(crate) fn leave(&mut self, ticket: u64) -> (Option<Waker>, Option<Waker>) {
        let was_first = self.is_first(ticket);
        let Some(waiter) = self.waiters.remove(&ticket) else { return (None, None) };
        self.tokens -= u64::from(waiter.n);
        let next = if was_first { self.wake_first() } else { None };
        (next, waiter.waker)
    }

    /// The waker of the first, who must look again. `None` if it has been woken and has not looked yet.
    pub(crate) fn wake_first(&mut self) -> Option<Waker> {
        self.waiters.first_entry().and_then(|mut first| first.get_mut().waker.take())
    }

    /// The tokens that all in the line wait for.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The tokens that `ticket` and everybody before it wait for.
    pub(crate) fn tokens_through(&self, ticket: u64) -> u64 {
        self.waiters.range(..=ticket).map(|(_, waiter)| u64::from(waiter.n)).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(tokens: &[u32]) -> Line {
        let mut line = Line::default();
        for (ticket, &n) in tokens.iter().enumerate() {
            line.join(ticket as u64, n, Waker::noop().clone());
        }
        line
    }

    #[test]
    fn whoever_came_first_is_first_and_the_next_is_woken_when_it_leaves() {
        let mut line = line_of(&[2, 3, 4]);
        assert!(line.is_first(0) && !line.is_first(1));
        assert_eq!((line.tokens(), line.tokens_through(1)), (9, 5));
        assert!(line.leave(0).0.is_some(), "the second is woken");
        assert!(line.wake_first().is_none(), "it has been woken already");
        assert!(line.is_first(1));
        assert!(line.set_waker(1, Waker::noop().clone()).is_none());
        assert!(line.wake_first().is_some());
    }

    #[test]
    fn whoever_leaves_from_the_middle_wakes_nobody_and_takes_its_tokens_along() {
        let mut line = line_of(&[2, 3, 4]);
        assert!(line.leave(1).0.is_none());
        assert_eq!((line.tokens(), line.tokens_through(2)), (6, 6));
        assert!(line.leave(1).1.is_none(), "gone is gone");
        line.leave(0);
        line.leave(2);
        assert!(line.is_empty());
        assert_eq!(line.tokens(), 0);
    }
}
