//! Whom to ask next for a group whose leader is not where it was. Pure.

use std::time::Duration;

use rafted_value::{CommandError, NodeId, NotApplied, QueryError, Unknown};

/// What an attempt at one node has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// That node leads.
    Redirect(NodeId),
    /// The node has a member, and nobody leads as far as it knows.
    Leaderless,
    /// The node gave no answer, or has no member that could.
    Absent,
    /// The node leads, and will take it after this time.
    Busy(Duration),
    /// The node leads and gets more than it can do; try it again after this time, once or twice.
    Overloaded(Duration),
    /// Trying again would give the same.
    Final,
}

impl Shown {
    pub(super) fn by_command(error: &CommandError) -> Self {
        match error {
            CommandError::Unknown(
                Unknown::Expired { .. } | Unknown::AlreadyAcknowledged | Unknown::ReplyTooLarge { .. },
            ) => Shown::Final,
            CommandError::Unknown(Unknown::LeaderChanged(_)) => Shown::Leaderless,
            CommandError::Unknown(_) => Shown::Absent,
            CommandError::NotApplied(error) => match error {
                NotApplied::NotLeader { leader: Some(leader), .. } => Shown::Redirect(*leader),
                NotApplied::NotLeader { leader: None, .. } => Shown::Leaderless,
                NotApplied::Overloaded { retry_after_ms } => {
                    Shown::Overloaded(Duration::from_millis(*retry_after_ms))
                }
                NotApplied::SessionTableFull { .. } => Shown::Busy(Duration::ZERO),
                NotApplied::RetryWindowTooLong { .. }
                | NotApplied::TooLarge { .. }
                | NotApplied::Refused(_)
                | NotApplied::Panicked(_)
                | NotApplied::Malformed(_) => Shown::Final,
                _ => Shown::Absent,
            },
        }
    }

    pub(super) fn by_query(error: &QueryError) -> Self {
        match error {
            QueryError::NotLeader { leader: Some(leader), .. } => Shown::Redirect(*leader),
            QueryError::NotLeader { leader: None, .. } => Shown::Leaderless,
            QueryError::Overloaded { retry_after_ms } => {
                Shown::Overloaded(Duration::from_millis(*retry_after_ms))
            }
            QueryError::Refused(_)
            | QueryError::Panicked(_)
            | QueryError::Malformed(_)
            | QueryError::TooLarge { .. }
            | QueryError::AnswerTooLarge { .. } => Shown::Final,
            _ => Shown::Absent,
        }
    }
}

/// Redirects that are followed in a row; two nodes may each believe that the other leads.
const REDIRECTS_MAX: u32 = 3;
/// The wait for a group that refuses is doubled at most so often.
const DOUBLINGS_MAX: u32 = 4;

/// The search for a group's leader by one call.
#[derive(Debug)]
pub(super) struct Chase {
    retry_interval: Duration,
    candidates: Vec<NodeId>,
    at: usize,
    follow: Option<NodeId>,
    redirects: u32,
    /// How often it was refused as too much.
    refusals: u32,
    /// A node that did not answer; others may still name it as the leader for a while.
    suspect: Option<NodeId>,
}

impl Chase {
    pub(super) fn new(retry_interval: Duration) -> Self {
        Self {
            retry_interval,
            candidates: Vec::new(),
            at: 0,
            follow: None,
            redirects: 0,
            refusals: 0,
            suspect: None,
        }
    }

    /// How often it was refused as too much.
    pub(super) fn refusals(&self) -> u32 {
        self.refusals
    }

    /// The node to ask: where the last answer pointed, else the cached leader, else the next candidate; `None` when
    /// nobody is known. `candidates` is asked for at the start of each round.
    pub(super) fn target(
        &mut self,
        cached: Option<NodeId>,
        candidates: impl FnOnce() -> Vec<NodeId>,
    ) -> Option<NodeId> {
        let cached = cached.filter(|node| Some(*node) != self.suspect);
        if let Some(node) = self.follow.take().or(cached) {
            return Some(node);
        }
        if self.at >= self.candidates.len() {
            self.at = 0;
            self.candidates = candidates();
        }
        if self.candidates.len() > 1 && self.is_suspected(self.at) {
            self.at = (self.at + 1) % self.candidates.len();
        }
        self.candidates.get(self.at).copied()
    }

    fn is_suspected(&self, at: usize) -> bool {
        self.suspect.is_some() && self.candidates.get(at).copied() == self.suspect
    }

    /// How long to wait before the next attempt, after `asked` has shown something.
    pub(super) fn pause(&mut self, asked: NodeId, shown: Shown) -> Duration {
        match shown {
            Shown::Redirect(leader) => {
                let useful =
                    leader != asked && self.suspect != Some(leader) && self.redirects < REDIRECTS_MAX;
                if useful {
                    self.redirects += 1;
                    self.follow = Some(leader);
                    return Duration::ZERO;
                }
                self.suspect = None;
                self.next_round()
            }
            Shown::Leaderless => self.next_round(),
            Shown::Absent => {
                self.suspect = Some(asked);
                self.redirects = 0;
                self.at += 1;
                // Who comes next and is not asked again belongs to this round.
                self.at += usize::from(self.is_suspected(self.at));
                if self.at >= self.candidates.len() && !self.candidates.is_empty() {
                    self.retry_interval
                } else {
                    Duration::ZERO
                }
            }
            Shown::Busy(wait) => {
                self.follow = Some(asked);
                wait.max(self.retry_interval)
            }
            Shown::Overloaded(wait) => {
                self.follow = Some(asked);
                let doublings = self.refusals.min(DOUBLINGS_MAX);
                self.refusals += 1;
                wait.max(self.retry_interval).saturating_mul(1 << doublings)
            }
            Shown::Final => Duration::ZERO,
        }
    }

    fn next_round(&mut self) -> Duration {
        self.redirects = 0;
        self.at += 1;
        self.retry_interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(50);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn chase() -> Chase {
        Chase::new(PAUSE)
    }

    fn all() -> Vec<NodeId> {
        vec![A, B, C]
    }

    #[test]
    fn a_stale_entry_costs_one_redirect() {
        let mut chase = chase();
        assert_eq!(chase.target(Some(A), all), Some(A));
        assert_eq!(chase.pause(A, Shown::Redirect(B)), Duration::ZERO);
        assert_eq!(chase.target(Some(A), all), Some(B));
    }

    #[test]
    fn a_dead_leader_that_others_still_name_is_not_asked_again_at_once() {
        let mut chase = chase();
        assert_eq!(chase.target(Some(A), all), Some(A));
        assert_eq!(chase.pause(A, Shown::Absent), Duration::ZERO);
        assert_eq!(chase.target(Some(A), all), Some(B));
        assert_eq!(chase.pause(B, Shown::Redirect(A)), PAUSE);
        assert_eq!(chase.target(None, all), Some(C));
        assert_eq!(chase.pause(C, Shown::Redirect(B)), Duration::ZERO);
        assert_eq!(chase.target(None, all), Some(B));
    }

    #[test]
    fn two_nodes_that_name_each_other_do_not_keep_a_caller_spinning() {
        let mut chase = chase();
        let mut asked = chase.target(None, all).unwrap();
        let mut paused = 0;
        for _ in 0..40 {
            let other = if asked == A { B } else { A };
            paused += u32::from(!chase.pause(asked, Shown::Redirect(other)).is_zero());
            asked = chase.target(None, all).unwrap();
        }
        assert!(paused >= 10, "{paused}");
    }

    #[test]
    fn a_round_in_which_nobody_answers_ends_in_a_pause() {
        let mut chase = chase();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let asked = chase.target(None, all).unwrap();
            pauses.push(chase.pause(asked, Shown::Absent));
        }
        assert!(pauses.iter().filter(|pause| **pause == PAUSE).count() >= 2, "{pauses:?}");
    }

    /// Of three nodes two were out of reach, and their neighbour named one of them: the round began anew where it should have
    /// ended, and its caller asked on and on without a pause (seed 102057 of the stack).
    #[test]
    fn a_neighbour_that_names_a_node_out_of_reach_does_not_keep_a_caller_spinning() {
        for order in [[A, B, C], [A, C, B], [B, A, C], [B, C, A], [C, A, B], [C, B, A]] {
            let mut chase = chase();
            let mut cached = None;
            let mut paused = 0;
            for _ in 0..40 {
                let asked = chase.target(cached, || order.to_vec()).unwrap();
                let shown = if asked == A { Shown::Redirect(B) } else { Shown::Absent };
                cached = if asked == A { Some(B) } else { cached.filter(|node| *node != asked) };
                paused += u32::from(!chase.pause(asked, shown).is_zero());
            }
            assert!(paused >= 8, "{order:?}: {paused}");
        }
    }

    #[test]
    fn one_node_alone_is_asked_again_after_a_pause() {
        let mut chase = chase();
        for _ in 0..3 {
            assert_eq!(chase.target(None, || vec![A]), Some(A));
            assert_eq!(chase.pause(A, Shown::Absent), PAUSE);
        }
        assert_eq!(chase.target(None, || vec![A]), Some(A));
        assert_eq!(chase.pause(A, Shown::Leaderless), PAUSE);
    }

    #[test]
    fn who_is_refused_as_too_much_waits_twice_as_long_each_time() {
        let mut chase = chase();
        let mut pause = || chase.pause(A, Shown::Overloaded(PAUSE / 5));
        let pauses: Vec<_> = (0..7).map(|_| pause() / PAUSE.as_millis() as u32).collect();
        let times = [1, 2, 4, 8, 16, 16, 16];
        assert_eq!(pauses, times.map(Duration::from_millis));
        assert_eq!((chase.refusals(), chase.target(None, all)), (7, Some(A)));
    }

    #[test]
    fn nobody_known_is_nobody_asked() {
        assert_eq!(chase().target(None, Vec::new), None);
    }
}
