//! How many commands of this node's callers may be under way to one group: as many as come, until the group has refused one
//! as overloaded; then about as many as it takes. What would be refused over there is refused here, where it costs nobody
//! anything.
//!
//! Narrowed by half where a group refuses, and widened by a little with every reply (additive increase and multiplicative
//! decrease: Chiu and Jain, Computer Networks and ISDN Systems 17, 1989, section 3), so that callers on many nodes come to
//! have about the same share.

use std::time::Duration;

use parking_lot::Mutex;
use rafted_value::env::MonoTime;

/// Refusals within this time count as one: they answer what was sent before the window was narrowed.
const NARROWS_EVERY: Duration = Duration::from_millis(100);
/// As many as come are let in again once for so long nothing was refused, neither by the group nor here.
const OPENS_AFTER: Duration = Duration::from_secs(10);
/// By this part of itself, and one, the window is widened when as many replies have come as it has room for.
const WIDENS_BY: usize = 8;

/// The window to one group.
#[derive(Debug, Default)]
pub(super) struct Window(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// None: as many as come.
    narrow: Option<Narrow>,
}

#[derive(Debug)]
struct Narrow {
    room: usize,
    /// Replies since it was widened.
    replies: usize,
    /// When it was narrowed last.
    narrowed: MonoTime,
    /// When something was refused last.
    refused: MonoTime,
}

impl Window {
    /// Lets one command in, if there is room, which it [`leave`](Self::leave)s in the end; an essential one always finds
    /// room, and takes it.
    pub(super) fn enter(&self, now: MonoTime, essential: bool) -> bool {
        let State { under_way, narrow } = &mut *self.0.lock();
        narrow.take_if(|narrow| now.since(narrow.refused) > OPENS_AFTER);
        if let Some(narrow) = narrow
            && *under_way >= narrow.room
            && !essential
        {
            narrow.refused = now;
            return false;
        }
        *under_way += 1;
        true
    }

    /// A command that was let in has ended.
    pub(super) fn leave(&self) {
        self.0.lock().under_way -= 1;
    }

    /// The group has replied.
    pub(super) fn widen(&self) {
        let mut state = self.0.lock();
        if let Some(narrow) = &mut state.narrow {
            narrow.replies += 1;
            if narrow.replies >= narrow.room {
                narrow.room += 1 + narrow.room / WIDENS_BY;
                narrow.replies = 0;
            }
        }
    }

    /// The group has refused as overloaded.
    pub(super) fn narrow(&self, now: MonoTime) {
        let State { under_way, narrow } = &mut *self.0.lock();
        let room = match narrow {
            Some(narrow) => {
                narrow.refused = now;
                if now.since(narrow.narrowed) < NARROWS_EVERY {
                    return;
                }
                narrow.room.min(*under_way)
            }
            None => *under_way,
        };
        *narrow = Some(Narrow { room: (room / 2).max(1), replies: 0, narrowed: now, refused: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(ms * 1_000_000)
    }

    /// How many more are let in.
    fn fill(window: &Window, now: MonoTime) -> usize {
        (0..100_000).take_while(|_| window.enter(now, false)).count()
    }

    fn empty(window: &Window, count: usize) {
        (0..count).for_each(|_| window.leave());
    }

    #[test]
    fn as_many_as_come_are_let_in_until_one_is_refused() {
        let window = Window::default();
        (0..1_000).for_each(|_| assert!(window.enter(at(0), false)));
        window.narrow(at(1));
        // The others of the same moment say the same once more.
        (0..50).for_each(|_| window.narrow(at(90)));
        assert!(!window.enter(at(90), false));
        empty(&window, 501);
        assert!(window.enter(at(90), false));
        assert!(!window.enter(at(90), false));
        assert!(window.enter(at(90), true));
    }

    #[test]
    fn replies_widen_it_and_time_opens_it() {
        let window = Window::default();
        (0..64).for_each(|_| assert!(window.enter(at(0), false)));
        window.narrow(at(0));
        empty(&window, 64);
        (0..32).for_each(|_| window.widen());
        assert_eq!(fill(&window, at(10)), 32 + 1 + 4);
        empty(&window, 37);
        // What is refused here counts as well: somebody would send more.
        assert_eq!(fill(&window, at(10_005)), 37);
        empty(&window, 37);
        assert_eq!(fill(&window, at(20_005)), 37);
        empty(&window, 37);
        assert_eq!(fill(&window, at(30_006)), 100_000);
    }

    #[test]
    fn one_command_at_a_time_may_always_go() {
        let window = Window::default();
        assert!(window.enter(at(0), false));
        for round in 1..10 {
            window.narrow(at(round * 1_000));
        }
        window.leave();
        assert_eq!(fill(&window, at(9_000)), 1);
    }

    /// Eight callers that send as much as they may, to a group that takes a hundred at a time.
    #[test]
    fn callers_come_to_share_what_a_group_takes() {
        let windows: Vec<Window> = (0..8).map(|_| Window::default()).collect();
        let mut sums = [0; 8];
        for round in 0..2_000_u64 {
            let now = at(round * 200);
            let counts: Vec<usize> = windows
                .iter()
                .map(|window| (0..200).take_while(|_| window.enter(now, false)).count())
                .collect();
            let mut room = 100_usize;
            for at in 0..8 {
                let first = (at + round as usize) % 8;
                let taken = counts[first].min(room);
                room -= taken;
                (0..taken).for_each(|_| windows[first].widen());
                if taken < counts[first] {
                    windows[first].narrow(now);
                }
                empty(&windows[first], counts[first]);
                sums[first] += taken;
            }
        }
        let total: usize = sums.iter().sum();
        assert!(total > 2_000 * 100 * 7 / 10, "{sums:?}");
        assert!(sums.iter().all(|sum| sum * 8 > total * 7 / 10), "{sums:?}");
    }
}
