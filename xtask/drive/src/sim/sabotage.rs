//! What can be broken on purpose, in the crates or in the harness around them: a check that never fails proves nothing.

use std::fmt;

use dist_agent::raft_kv::sim::{DROP_SESSIONS_AT_SPLIT, REPLAY_MERGE_BACKWARDS};
use dist_agent::sim::RESERVE_NO_QUOTA;
use rafted_value::sim::Mutation;

use crate::sim::scenario::Scenario;

/// What breaks a rule that the crates lean on: the checks must notice. For tests of the harness itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sabotage {
    /// Clocks run apart by more than the drift margin.
    ClocksBeyondTheMargin,
    /// Nodes are killed however little state is left.
    KillsWithoutCare,
    /// Clients send a command anew in another session.
    RetriesInNewSessions,
    /// Clients take any member's answer for the leader's; those of agents, an answer of before.
    ReadsFromAnybody,
    /// The members at the first place change more than they were told, now and then.
    OneMemberSlips,
    /// Nothing wakes a quiet group but what is asked of it.
    QuietGroupsSleepOn,
    /// The engine itself breaks one of its rules.
    InTheEngine(Mutation),
    /// A layer above it does.
    Above(Mutation),
}

const MUTATIONS: [Mutation; 12] = [
    Mutation::SkipLeaseCheck,
    Mutation::AcknowledgeBeforeQuorum,
    Mutation::AcknowledgeBeforeDisk,
    Mutation::ForgetVote,
    Mutation::ForgetTerm,
    Mutation::ForgetNewestEntry,
    Mutation::ForgetPromise,
    Mutation::BreakPromise,
    Mutation::AppendAnywhere,
    Mutation::DropSessions,
    Mutation::MixUpReplies,
    Mutation::KeepLeaseInTransfer,
];

const MUTATIONS_ABOVE: [Mutation; 3] = [DROP_SESSIONS_AT_SPLIT, REPLAY_MERGE_BACKWARDS, RESERVE_NO_QUOTA];

impl Sabotage {
    /// Whether it breaks anything in this kind of world.
    pub(crate) fn acts_in(self, scenario: Scenario) -> bool {
        match self {
            Sabotage::InTheEngine(_) | Sabotage::KillsWithoutCare => true,
            Sabotage::QuietGroupsSleepOn => scenario == Scenario::Engine,
            Sabotage::ClocksBeyondTheMargin
            | Sabotage::RetriesInNewSessions
            | Sabotage::ReadsFromAnybody
            | Sabotage::OneMemberSlips => scenario != Scenario::Fleet,
            Sabotage::Above(_) => scenario == Scenario::Stack,
        }
    }

    /// All there are.
    pub(crate) fn all() -> impl Iterator<Item = Sabotage> {
        let harness = [
            Sabotage::ClocksBeyondTheMargin,
            Sabotage::KillsWithoutCare,
            Sabotage::RetriesInNewSessions,
            Sabotage::ReadsFromAnybody,
            Sabotage::OneMemberSlips,
            Sabotage::QuietGroupsSleepOn,
        ];
        let crates = MUTATIONS.map(Sabotage::InTheEngine).into_iter();
        harness.into_iter().chain(crates).chain(MUTATIONS_ABOVE.map(Sabotage::Above))
    }
}

impl fmt::Display for Sabotage {
    /// As the command line takes it: the words of its name with hyphens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Sabotage::Above(Mutation::Above(name)) => return f.write_str(name),
            Sabotage::InTheEngine(mutation) => format!("{mutation:?}"),
            harness => format!("{harness:?}"),
        };
        for (place, letter) in name.chars().enumerate() {
            if letter.is_ascii_uppercase() && place > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_called_by_the_words_of_its_name() {
        assert_eq!(Sabotage::InTheEngine(Mutation::SkipLeaseCheck).to_string(), "skip-lease-check");
        assert_eq!(Sabotage::KillsWithoutCare.to_string(), "kills-without-care");
        assert_eq!(Sabotage::Above(RESERVE_NO_QUOTA).to_string(), "reserve-no-quota");
    }
}
