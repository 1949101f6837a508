//! What a comparison of states sees of the sessions: all of them, at a fraction of what their encoding costs.
//!
//! A table of many records was most of what a comparison took. These bytes are never sent or kept: only their hash leaves
//! the member, and is held against one that another member made in the same way.

use super::Sessions;
use crate::data::encode;

/// About what a session takes, with a record.
const BYTES: usize = 128;

impl Sessions {
    /// About how many bytes it takes.
    pub(crate) fn about_bytes(&self) -> u64 {
        (self.sessions.len() as u64).max(self.replies) * BYTES as u64
    }

    /// Appends everything that is replicated, in order, so that equal bytes are equal sessions. What is due when is said
    /// once, by each session.
    pub(crate) fn write_compared(&self, out: &mut Vec<u8>) {
        out.reserve(self.sessions.len() * BYTES);
        let words = |out: &mut Vec<u8>, words: [u64; 4]| {
            words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        };
        for (id, session) in &self.sessions {
            out.extend_from_slice(&id.bits().to_le_bytes());
            let records = session.kept.len() as u64;
            words(out, [session.acknowledged, session.last_until_ms, session.due_ms, records]);
            for (sequence, kept) in &session.kept {
                let refusal;
                let (refused, reply): (u64, &[u8]) = match &kept.outcome {
                    Ok(reply) => (0, reply),
                    Err(refused) => {
                        refusal = encode(refused);
                        (1, &refusal)
                    }
                };
                words(out, [*sequence, kept.retry_until_ms, kept.key_hash, 2 * reply.len() as u64 + refused]);
                out.extend_from_slice(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Outcome;
    use super::*;
    use crate::error::NotApplied;
    use crate::id::SessionId;
    use crate::request::Command;

    fn command(session: u64, sequence: u64) -> Command {
        let session = SessionId::new(3, session);
        Command {
            session,
            sequence,
            acknowledged: 2,
            retry_until_ms: 9_000,
            key_hash: 7,
            payload: Bytes::new(),
        }
    }

    /// Commands with their stamps and outcomes.
    type Records = [(u64, Command, Outcome); 3];

    fn sessions(change: impl FnOnce(&mut Records)) -> Sessions {
        let mut records = [
            (10, command(1, 4), Ok(Bytes::from_static(b"one"))),
            (10, command(1, 5), Ok(Bytes::from_static(b"two"))),
            (12, command(2, 2), Err(NotApplied::Refused("no".into()))),
        ];
        change(&mut records);
        let mut sessions = Sessions::default();
        for (stamp_ms, command, outcome) in records {
            sessions.record(stamp_ms, &command, outcome);
        }
        sessions
    }

    fn compared(sessions: &Sessions) -> Vec<u8> {
        let mut bytes = Vec::new();
        sessions.write_compared(&mut bytes);
        bytes
    }

    #[test]
    fn members_with_the_same_records_compare_alike_however_they_came_by_them() {
        let sessions = sessions(|_| {});
        let restored: Sessions = postcard::from_bytes(&encode(&sessions)).unwrap();
        assert_eq!(compared(&sessions), compared(&restored));
    }

    #[test]
    fn whatever_differs_between_two_members_sessions_is_seen() {
        let changes: [fn(&mut Records); 9] = [
            |records| records[0].1.session = SessionId::new(3, 9),
            |records| records[0].1.sequence = 3,
            |records| records[1].1.acknowledged = 5,
            |records| records[1].1.retry_until_ms = 9_001,
            |records| records[0].1.key_hash = 8,
            |records| records[1].2 = Ok(Bytes::from_static(b"twe")),
            |records| records[2].2 = Ok(encode(&NotApplied::Refused("no".into()))),
            |records| records[2].2 = Err(NotApplied::Refused("on".into())),
            // It is looked at later.
            |records| records[0].0 = 8_999,
        ];
        let as_they_were = compared(&sessions(|_| {}));
        for (at, change) in changes.into_iter().enumerate() {
            assert_ne!(compared(&sessions(change)), as_they_were, "change {at}");
        }
    }

    /// Bytes that run into each other would hide what moved from one record to the next.
    #[test]
    fn where_one_reply_ends_and_the_next_begins_is_seen() {
        let replies = |first: &'static [u8], second: &'static [u8]| {
            compared(&sessions(|records| {
                (records[0].2, records[1].2) =
                    (Ok(Bytes::from_static(first)), Ok(Bytes::from_static(second)));
            }))
        };
        assert_ne!(replies(b"ab", b"c"), replies(b"a", b"bc"));
    }
}
