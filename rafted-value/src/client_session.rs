//! The client's side of exactly-once: numbers its commands and knows which ones it still waits for.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::id::SessionId;
use crate::request::Command;

/// One client's line of commands to one group.
///
/// A command is begun once, may be sent many times, and is finished once, when its reply has come or its caller has
/// given up; the group then forgets its reply. Pure: the caller draws the id and reads the clock.
#[derive(Debug)]
pub struct ClientSession {
    id: SessionId,
    next: u64,
    waiting: BTreeSet<u64>,
    waiting_max: usize,
}

impl ClientSession {
    /// A session that lets at most `waiting_max` commands wait at a time.
    pub fn new(id: SessionId, waiting_max: usize) -> Self {
        Self { id, next: 1, waiting: BTreeSet::new(), waiting_max }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Numbers a new command, or gives `None` when too many wait already.
    pub fn begin(&mut self, retry_until_ms: u64, key_hash: u64, payload: Bytes) -> Option<Command> {
        if self.waiting.len() >= self.waiting_max {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.waiting.insert(sequence);
        let acknowledged = self.acknowledged();
        Some(Command { session: self.id, sequence, acknowledged, retry_until_ms, key_hash, payload })
    }

    /// No command below this number is waited for.
    pub fn acknowledged(&self) -> u64 {
        self.waiting.first().copied().unwrap_or(self.next)
    }

    /// The caller waits for this command no more.
    pub fn finish(&mut self, sequence: u64) {
        self.waiting.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acknowledged_mark_stops_at_the_oldest_command_that_waits() {
        let mut session = ClientSession::new(SessionId::new(1, 2), 2);
        let first = session.begin(10, 0, Bytes::new()).unwrap();
        let second = session.begin(10, 0, Bytes::new()).unwrap();
        assert_eq!((first.sequence, first.acknowledged), (1, 1));
        assert_eq!((second.sequence, second.acknowledged), (2, 1));
        assert!(session.begin(10, 0, Bytes::new()).is_none());
        session.finish(2);
        assert_eq!(session.acknowledged(), 1);
        session.finish(1);
        assert_eq!(session.acknowledged(), 3);
    }
}
