//! A group's records of what ran, lent to its value: a layer above moves keys between groups, and their records go along.
//!
//! A key that moves takes the records of its commands with it, so that a retry at the new group gets the reply that the
//! old one gave, and never runs again. Every session's acknowledged mark goes along too, and so does stamped time: a group
//! whose clock is behind would still run a command whose record the other has let expire.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Admission, Kept, Outcome, SWEEP_MIN_MS, Session, Sessions};
use crate::config::GroupConfig;
use crate::data::{CommandContext, RawData, Refused, encode};
use crate::error::{CommandError, NotApplied};
use crate::id::{GroupId, SessionId};
use crate::request::Command;

/// The records of a group's sessions, lent to its value while a command runs. Whatever a value does with them it must do
/// on every member alike.
pub struct Records<'a> {
    sessions: &'a mut Sessions,
    stamp_ms: &'a mut u64,
    kept: bool,
}

/// Where a page of records ended; the next one begins behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordPosition {
    session: SessionId,
    sequence: u64,
}

/// Some of a group's records, in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordsPage {
    /// What [`Records::import`] takes in.
    pub bytes: Bytes,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<RecordPosition>,
    /// Stamped time when the page was made. What changes afterwards, [`Records::export_since`] gives from this time on.
    pub stamp_ms: u64,
}

/// A page in bytes; append-only.
#[derive(Serialize, Deserialize)]
enum Page {
    V1 { stamp_ms: u64, sessions: Vec<PageSession> },
}

#[derive(Serialize, Deserialize)]
struct PageSession {
    id: SessionId,
    acknowledged: u64,
    last_until_ms: u64,
    kept: Vec<(u64, Kept)>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(sessions: &'a mut Sessions, stamp_ms: &'a mut u64) -> Self {
        Self { sessions, stamp_ms, kept: true }
    }

    /// The reply to this command is an answer to this attempt alone and is not kept: the next attempt asks anew, here or
    /// at another group. Only for a command that has changed nothing, or may run any number of times.
    pub fn keep_no_reply(&mut self) {
        self.kept = false;
    }

    /// Whether the reply is kept.
    pub(crate) fn keeps_reply(&self) -> bool {
        self.kept
    }

    /// How many sessions and replies are kept, which together are what
    /// [`session_replies_max`](GroupConfig::session_replies_max) limits.
    pub fn count(&self) -> u64 {
        self.sessions.replies() + self.sessions.sessions.len() as u64
    }

    /// How many more there would be, at most, once a page was taken in.
    pub fn count_new(&self, page: &ReadRecords) -> u64 {
        let Page::V1 { stamp_ms, sessions } = &page.0;
        let stamp_ms = (*stamp_ms).max(*self.stamp_ms);
        let lasting = sessions.iter().filter(|session| session.last_until_ms >= stamp_ms);
        let new = lasting.map(|session| match self.sessions.sessions.get(&session.id) {
            None => 1 + session.kept.len(),
            Some(present) => {
                let new = |sequence: &u64| {
                    *sequence >= present.acknowledged && !present.kept.contains_key(sequence)
                };
                session.kept.iter().filter(|(sequence, _)| new(sequence)).count()
            }
        });
        new.sum::<usize>() as u64
    }

    /// The records of commands whose key hash lies in `hashes`, behind `after`, up to about `bytes_max` bytes, unless one
    /// record alone has more; and the acknowledged marks of their sessions, whether they have such a record or not.
    pub fn export(
        &self,
        hashes: RangeInclusive<u64>,
        after: Option<RecordPosition>,
        bytes_max: usize,
    ) -> RecordsPage {
        self.export_since(0, hashes, after, bytes_max)
    }

    /// The same of what has changed at `since_ms` in stamped time or later. What this member has from a snapshot counts as
    /// changed when that was made. It looks at every session, and at every record of those that have changed.
    pub fn export_since(
        &self,
        since_ms: u64,
        hashes: RangeInclusive<u64>,
        after: Option<RecordPosition>,
        bytes_max: usize,
    ) -> RecordsPage {
        // Whatever came in a snapshot may have changed at any time before.
        let is_old = |changed_ms: u64| changed_ms.max(self.sessions.restored_ms) < since_ms;
        let from = after.map_or(SessionId::new(0, 0), |after| after.session);
        let (mut sessions, mut bytes, mut next) = (Vec::new(), 0, None);
        // What the last record or session was that is in the page.
        let mut last = None;
        for (id, session) in self.sessions.sessions.range(from..) {
            if session.last_until_ms < *self.stamp_ms || is_old(session.changed_ms) {
                continue;
            }
            let begun = after.filter(|after| after.session == *id).map(|after| after.sequence);
            let first = match begun {
                Some(u64::MAX) => continue,
                Some(sequence) => sequence + 1,
                None => 0,
            };
            let mut page = PageSession {
                id: *id,
                acknowledged: session.acknowledged,
                last_until_ms: session.last_until_ms,
                kept: Vec::new(),
            };
            bytes += SESSION_BYTES;
            for (sequence, kept) in session.kept.range(first..) {
                if !hashes.contains(&kept.key_hash) || is_old(kept.recorded_ms) {
                    continue;
                }
                let more = RECORD_BYTES + outcome_bytes(&kept.outcome);
                if bytes + more > bytes_max && last.is_some() {
                    next = last;
                    break;
                }
                bytes += more;
                page.kept.push((*sequence, kept.clone()));
                last = Some(RecordPosition { session: *id, sequence: *sequence });
            }
            if next.is_some() && page.kept.is_empty() {
                break;
            }
            sessions.push(page);
            last = Some(RecordPosition { session: *id, sequence: u64::MAX });
            if next.is_none() && bytes >= bytes_max {
                next = last;
            }
            if next.is_some() {
                break;
            }
        }
        let page = Page::V1 { stamp_ms: *self.stamp_ms, sessions };
        RecordsPage { bytes: encode(&page), next, stamp_ms: *self.stamp_ms }
    }

    /// Takes in a page that [`export`](Records::export) gave, once or many times: records join those that are here,
    /// the higher acknowledged mark wins, and stamped time never goes back.
    ///
    /// # Errors
    ///
    /// When the bytes are no such page; nothing has changed then.
    pub fn import(&mut self, page: &[u8]) -> Result<(), Refused> {
        self.take_in(ReadRecords::of(page)?);
        Ok(())
    }

    /// The same with a page that was read before, for a value that must not change before it knows that all can be read.
    pub fn take_in(&mut self, page: ReadRecords) {
        let Page::V1 { stamp_ms, sessions } = page.0;
        *self.stamp_ms = stamp_ms.max(*self.stamp_ms);
        for session in sessions {
            self.sessions.merge(*self.stamp_ms, session);
        }
    }
}

/// A page that was read and not taken in yet.
pub struct ReadRecords(Page);

impl ReadRecords {
    /// Reads a page that [`Records::export`] gave.
    ///
    /// # Errors
    ///
    /// When the bytes are no such page.
    pub fn of(page: &[u8]) -> Result<Self, Refused> {
        postcard::from_bytes(page)
            .map(Self)
            .map_err(|error| Refused(format!("the page of records does not decode: {error}")))
    }
}

/// About what an outcome takes in a page, whose text a value may have made as long as it likes.
fn outcome_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Ok(reply) => reply.len(),
        Err(NotApplied::Refused(text) | NotApplied::Panicked(text)) => text.len(),
        Err(_) => 0,
    }
}

/// About what a session without records takes in a page.
const SESSION_BYTES: usize = 40;
/// About what a record without its reply takes.
const RECORD_BYTES: usize = 24;

impl Sessions {
    fn merge(&mut self, stamp_ms: u64, page: PageSession) {
        if page.last_until_ms < stamp_ms {
            return;
        }
        let session = self.sessions.entry(page.id).or_insert_with(|| {
            let due_ms = stamp_ms.saturating_add(SWEEP_MIN_MS);
            self.due.insert((due_ms, page.id));
            Session { due_ms, ..Session::default() }
        });
        self.replies -= session.acknowledge(stamp_ms, page.acknowledged);
        session.changed_ms = stamp_ms;
        session.last_until_ms = session.last_until_ms.max(page.last_until_ms);
        for (sequence, kept) in page.kept {
            // Both groups have it where the key was here before. It is the same reply, unless the one that is here is over, and the
            // number was used anew where it was known to be.
            let here = session.kept.get(&sequence).map(|here| here.retry_until_ms);
            if sequence >= session.acknowledged && here.is_none_or(|here| here < kept.retry_until_ms) {
                session.kept.insert(sequence, Kept { recorded_ms: stamp_ms, ..kept });
                self.replies += u64::from(here.is_none());
            }
        }
    }
}

/// A value with its sessions and its stamped time, without a group around them: for tests of values that move records.
#[derive(Default)]
pub struct RecordTable {
    sessions: Sessions,
    stamp_ms: u64,
}

impl RecordTable {
    /// Runs a command as a group does that stamps it with `now_ms`.
    ///
    /// # Errors
    ///
    /// What the group would answer.
    pub fn run(
        &mut self,
        data: &mut dyn RawData,
        now_ms: u64,
        index: u64,
        command: &Command,
    ) -> Result<Bytes, CommandError> {
        self.stamp_ms = self.stamp_ms.max(now_ms);
        self.sessions.expire(self.stamp_ms);
        let admission = self.sessions.admit(GroupId(1), &GroupConfig::default(), self.stamp_ms, command);
        if let Admission::Answer(answer) = admission {
            return answer;
        }
        let context = CommandContext { now_ms: self.stamp_ms, index, seed: index };
        let mut records = Records::new(&mut self.sessions, &mut self.stamp_ms);
        let ran = data.command_with_records(&context, &command.payload, &mut records);
        let kept = records.keeps_reply();
        let outcome: Outcome = ran.map_err(|refused| NotApplied::Refused(refused.0));
        if kept {
            self.sessions.record(self.stamp_ms, command, outcome.clone());
        }
        outcome.map_err(CommandError::NotApplied)
    }

    /// Its records, to be lent to a value.
    pub fn records(&mut self) -> Records<'_> {
        Records::new(&mut self.sessions, &mut self.stamp_ms)
    }

    /// How many replies are kept.
    pub fn replies(&self) -> u64 {
        self.sessions.replies()
    }
}

#[cfg(test)]
mod tests;
