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
    /// The node leads and is busy; try it again after this time.
    Busy(Duration),
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
                    Shown::Busy(Duration::from_millis(*retry_after_ms))
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
            QueryError::Overloaded { retry_after_ms } => Shown::Busy(Duration::from_millis(*retry_after_ms)),
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

/// The search for a group's leader by one call.
#[derive(Debug)]
pub(super) struct Chase {
    retry_interval: Duration,
    candidates: Vec<NodeId>,
    at: usize,
    follow: Option<NodeId>,
    redirects: u32,
    /// A node that did not answer; others may still name it as the leader for a while.
    suspect: Option<NodeId>,
}

impl Chase {
    pub(super) fn new(retry_interval: Duration) -> Self {
        Self { retry_interval, candidates: Vec::new(), at: 0, follow: None, redirects: 0, suspect: None }
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
        let suspected = self.candidates.len() > 1 && self.candidates.get(self.at).copied() == self.suspect;
        if suspected {
            self.at = (self.at + 1) % self.candidates.len();
        }
        self.candidates.get(self.at).copied()
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
    fn nobody_known_is_nobody_asked() {
        assert_eq!(chase().target(None, Vec::new), None);
    }
}
