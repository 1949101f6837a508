//! The group's side of exactly-once: which commands of which sessions have run, and what they answered.
//!
//! Part of the replicated state: pure, ordered, driven by stamped time. A reply is kept until its client acknowledges it
//! or its retry window has passed; nothing is ever forgotten by count (a full table refuses new commands). Raft
//! dissertation, section 6.3, with windows in stamped time instead of a count of sessions.

mod compared;
mod records;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::GroupConfig;
use crate::error::{CommandError, NotApplied, Unknown};
use crate::id::{GroupId, SessionId};
use crate::request::Command;

pub use self::records::{ReadRecords, RecordPosition, RecordTable, Records, RecordsPage};

/// An idle session is looked at again after at least this long.
const SWEEP_MIN_MS: u64 = 1000;

/// What became of a command when it ran.
pub(crate) type Outcome = Result<Bytes, NotApplied>;

/// What to do with a command that comes out of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Run it, then [`Sessions::record`] its outcome.
    Run,
    /// Answer this, and run nothing.
    Answer(Result<Bytes, CommandError>),
}

/// The commands that may come again, by session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// When each session is looked at next; exactly one entry a session.
    due: BTreeSet<(u64, SessionId)>,
    replies: u64,
    /// The stamped time of the snapshot that this member has them from. No part of what is replicated.
    #[serde(skip)]
    restored_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    /// The client waits for nothing below this.
    acknowledged: u64,
    /// The end of the longest retry window seen; nothing of this session can run after it.
    last_until_ms: u64,
    due_ms: u64,
    kept: BTreeMap<u64, Kept>,
    /// The stamped time of the last change that this member has seen of it; 0 where it came in a snapshot, after which it
    /// has not changed. No part of what is replicated: it only spares an export what was exported before.
    #[serde(skip)]
    changed_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    retry_until_ms: u64,
    key_hash: u64,
    outcome: Outcome,
    /// When it came to be, as [`Session::changed_ms`].
    #[serde(skip)]
    recorded_ms: u64,
}

impl Sessions {
    /// How many replies are kept.
    pub(crate) fn replies(&self) -> u64 {
        self.replies
    }

    /// They came in a snapshot that was made at stamped time `stamp_ms`.
    pub(crate) fn restored(self, stamp_ms: u64) -> Self {
        Self { restored_ms: stamp_ms, ..self }
    }

    /// Decides what to do with `command` at stamped time `stamp_ms`, and takes note of what its client acknowledges.
    pub(crate) fn admit(
        &mut self,
        group: GroupId,
        config: &GroupConfig,
        stamp_ms: u64,
        command: &Command,
    ) -> Admission {
        if let Some(session) = self.sessions.get_mut(&command.session) {
            self.replies -= session.acknowledge(stamp_ms, command.acknowledged);
            if let Some(kept) = session.kept.get(&command.sequence) {
                let other = session.kept.values().next().filter(|_| planted!(MixUpReplies));
                let kept = other.unwrap_or(kept);
                return Admission::Answer(kept.outcome.clone().map_err(CommandError::NotApplied));
            }
            if command.sequence < session.acknowledged {
                return Admission::Answer(Err(Unknown::AlreadyAcknowledged.into()));
            }
        }
        if command.retry_until_ms < stamp_ms {
            let late_ms = stamp_ms - command.retry_until_ms;
            return Admission::Answer(Err(Unknown::Expired { late_ms }.into()));
        }
        let asked_ms = command.retry_until_ms - stamp_ms;
        if asked_ms > config.retry_window_max_ms {
            let limit_ms = config.retry_window_max_ms;
            return Admission::Answer(Err(NotApplied::RetryWindowTooLong { asked_ms, limit_ms }.into()));
        }
        let limit = config.session_replies_max;
        if self.replies + self.sessions.len() as u64 >= limit {
            return Admission::Answer(Err(NotApplied::SessionTableFull { group, limit }.into()));
        }
        Admission::Run
    }

    /// Keeps the outcome of a command that was admitted and ran.
    pub(crate) fn record(&mut self, stamp_ms: u64, command: &Command, outcome: Outcome) {
        let session = self.sessions.entry(command.session).or_insert_with(|| {
            let due_ms = command.retry_until_ms.max(stamp_ms.saturating_add(SWEEP_MIN_MS));
            self.due.insert((due_ms, command.session));
            Session { due_ms, ..Session::default() }
        });
        self.replies -= session.acknowledge(stamp_ms, command.acknowledged);
        session.last_until_ms = session.last_until_ms.max(command.retry_until_ms);
        session.changed_ms = stamp_ms;
        let Command { retry_until_ms, key_hash, .. } = *command;
        let kept = Kept { retry_until_ms, key_hash, outcome, recorded_ms: stamp_ms };
        let before = session.kept.insert(command.sequence, kept);
        assert!(before.is_none(), "command {} of {} ran twice", command.sequence, command.session);
        self.replies += 1;
    }

    /// Forgets what can never be asked for again at `stamp_ms`.
    pub(crate) fn expire(&mut self, stamp_ms: u64) {
        while let Some(&(due_ms, id)) = self.due.first() {
            if due_ms >= stamp_ms {
                return;
            }
            self.due.remove(&(due_ms, id));
            let session = self.sessions.get_mut(&id).expect("a session that is due exists");
            let before = session.kept.len();
            session.kept.retain(|_, kept| kept.retry_until_ms >= stamp_ms);
            self.replies -= (before - session.kept.len()) as u64;
            if session.last_until_ms < stamp_ms {
                debug_assert!(session.kept.is_empty());
                self.sessions.remove(&id);
            } else {
                let next = session.kept.values().map(|kept| kept.retry_until_ms).min();
                session.due_ms =
                    next.unwrap_or(session.last_until_ms).max(stamp_ms.saturating_add(SWEEP_MIN_MS));
                self.due.insert((session.due_ms, id));
            }
        }
    }
}

impl Session {
    /// Drops what the client has acknowledged; gives how many replies went.
    fn acknowledge(&mut self, stamp_ms: u64, acknowledged: u64) -> u64 {
        if acknowledged <= self.acknowledged {
            return 0;
        }
        (self.acknowledged, self.changed_ms) = (acknowledged, stamp_ms);
        let mut dropped = 0;
        while self.kept.first_key_value().is_some_and(|(&sequence, _)| sequence < acknowledged) {
            self.kept.pop_first();
            dropped += 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn command(sequence: u64, acknowledged: u64, retry_until_ms: u64) -> Command {
        let session = SessionId::new(0, 1);
        Command { session, sequence, acknowledged, retry_until_ms, key_hash: 0, payload: Bytes::new() }
    }

    fn admit(sessions: &mut Sessions, stamp: u64, command: &Command) -> Admission {
        sessions.admit(GROUP, &GroupConfig::default(), stamp, command)
    }

    fn reply(n: u8) -> Outcome {
        Ok(Bytes::copy_from_slice(&[n]))
    }

    /// FAULTS 4: the same command id again after 100 other commands was applied twice.
    #[test]
    fn a_retry_after_many_other_commands_runs_once() {
        let mut sessions = Sessions::default();
        for sequence in 1..=500 {
            let command = command(sequence, 1, 1000);
            assert_eq!(admit(&mut sessions, 10, &command), Admission::Run);
            sessions.record(10, &command, reply(sequence as u8));
        }
        assert_eq!(
            admit(&mut sessions, 20, &command(1, 1, 1000)),
            Admission::Answer(Ok(Bytes::from_static(&[1])))
        );
    }

    #[test]
    fn an_acknowledged_reply_goes_and_its_command_never_runs_again() {
        let mut sessions = Sessions::default();
        let first = command(1, 1, 1000);
        sessions.record(10, &first, reply(1));
        sessions.record(10, &command(2, 2, 1000), reply(2));
        assert_eq!(sessions.replies(), 1);
        assert_eq!(
            admit(&mut sessions, 20, &first),
            Admission::Answer(Err(Unknown::AlreadyAcknowledged.into()))
        );
    }

    #[test]
    fn a_command_past_its_window_is_refused_even_when_its_record_is_gone() {
        let mut sessions = Sessions::default();
        let first = command(1, 1, 1000);
        sessions.record(10, &first, reply(1));
        sessions.expire(5000);
        assert_eq!(sessions, Sessions::default());
        assert_eq!(
            admit(&mut sessions, 5000, &first),
            Admission::Answer(Err(Unknown::Expired { late_ms: 4000 }.into()))
        );
    }

    #[test]
    fn a_full_table_refuses_new_commands_and_forgets_nothing() {
        let config = GroupConfig { session_replies_max: 3, ..GroupConfig::default() };
        let mut sessions = Sessions::default();
        for sequence in 1..=2 {
            let command = command(sequence, 1, 1000);
            assert_eq!(sessions.admit(GROUP, &config, 10, &command), Admission::Run);
            sessions.record(10, &command, reply(1));
        }
        let full = NotApplied::SessionTableFull { group: GROUP, limit: 3 };
        assert_eq!(
            sessions.admit(GROUP, &config, 10, &command(3, 1, 1000)),
            Admission::Answer(Err(full.into()))
        );
        assert!(matches!(sessions.admit(GROUP, &config, 10, &command(1, 1, 1000)), Admission::Answer(Ok(_))));
        assert_eq!(sessions.admit(GROUP, &config, 10, &command(3, 3, 1000)), Admission::Run);
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut sessions = Sessions::default();
        assert!(matches!(
            admit(&mut sessions, 10, &command(1, 1, 700_000)),
            Admission::Answer(Err(CommandError::NotApplied(NotApplied::RetryWindowTooLong { .. })))
        ));
    }

    proptest! {
        /// Against a dumb twin that remembers everything: no command runs twice, whatever order attempts,
        /// acknowledgements and time come in.
        #[test]
        fn nothing_runs_twice(steps in proptest::collection::vec((0u64..3, 1u64..20, 0u64..20, 0u64..3000, 0u64..2000), 1..200)) {
            let mut sessions = Sessions::default();
            let mut ran = BTreeSet::new();
            let mut windows = BTreeMap::new();
            let mut stamp = 0;
            for (session, sequence, acknowledged, window, passed) in steps {
                stamp += passed;
                sessions.expire(stamp);
                let until = *windows.entry((session, sequence)).or_insert(stamp + window);
                let command = Command { session: SessionId::new(0, session), ..command(sequence, acknowledged.min(sequence), until) };
                if admit(&mut sessions, stamp, &command) == Admission::Run {
                    prop_assert!(ran.insert((session, sequence)));
                    sessions.record(stamp, &command, reply(0));
                }
                let kept: u64 = sessions.sessions.values().map(|session| session.kept.len() as u64).sum();
                prop_assert_eq!(kept, sessions.replies());
                prop_assert_eq!(sessions.due.len(), sessions.sessions.len());
            }
        }
    }
}
