//! Commands on their way into the log: admitted, gathered for a turn, and proposed together.

use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};

use super::machine::Machine;
use super::pace::Moment;
use super::{CommandResult, Group, Proposal, RETRY_AFTER_MS, Turn};
use crate::engine::Clocks;
use crate::entry::{Commands, EntryBody};
use crate::error::{CommandError, NotApplied, Unknown};
use crate::request::Command;
use crate::waiter::Waiter;

impl Group {
    /// Takes in a command; it is proposed when the turn ends.
    pub(crate) fn command(&mut self, turn: &mut Turn<'_>, command: Command, waiter: Waiter<CommandResult>) {
        if let Some(reply) = self.turn_away(turn, &command) {
            turn.out.command(waiter, Ok(reply));
            return;
        }
        if let Err(refusal) = self.admit(turn, &command) {
            turn.out.command(waiter, Err(refusal));
            return;
        }
        self.pace.lets_in(turn.now, self.commands_waiting());
        self.waiting += 1;
        self.incoming_bytes += command.payload.len();
        self.incoming.push((command, waiter));
    }

    /// What the value says to a command that is not for it. A leader that may have been deposed does not know that: what it
    /// proposes is not committed, so that its callers find the one that leads now.
    fn turn_away(&self, turn: &Turn<'_>, command: &Command) -> Option<Bytes> {
        self.machine.as_ref()?.turn_away(&command.payload).filter(|_| self.leased(turn.now))
    }

    fn admit(&self, turn: &Turn<'_>, command: &Command) -> Result<(), CommandError> {
        if self.leading.is_none() {
            return Err(NotApplied::NotLeader { group: self.id, leader: self.leader_to_ask() }.into());
        }
        let has_pace = self.pace.has_room(self.commands_waiting(), turn.limits.wait_target);
        if self.waiting >= turn.limits.group_waiting_max || !has_pace {
            metrics::counter!("rafted_value_commands_refused_total").increment(1);
            return Err(NotApplied::Overloaded { retry_after_ms: RETRY_AFTER_MS }.into());
        }
        let (bytes, limit_bytes) = (command.payload.len() as u64, self.config.command_bytes_max);
        if bytes > limit_bytes {
            return Err(NotApplied::TooLarge { bytes, limit_bytes }.into());
        }
        self.admit_window(turn, command)?;
        if command.acknowledged > command.sequence {
            let text = format!("command {} acknowledges {}", command.sequence, command.acknowledged);
            return Err(NotApplied::Malformed(text).into());
        }
        Ok(())
    }

    /// Whether [`end_turn`](Self::end_turn) wants to be told of the end of this turn.
    pub(crate) fn has_worked(&self) -> bool {
        self.pace.works()
    }

    /// All that a turn brought is done.
    pub(crate) fn end_turn(&mut self, clocks: Clocks, wait_target: Duration) {
        let Clocks { now, wall_ms } = clocks;
        self.pace.ends_turn(Moment { now, wall_ms, wait_target }, self.commands_waiting());
    }

    /// Commands of which it is not known yet what becomes of them.
    fn commands_waiting(&self) -> usize {
        self.waiting - self.reads.len()
    }

    /// A command outside its window would be refused when it is applied. It is refused before it is proposed, so that
    /// a leader whose clock is far ahead puts its stamp on nothing: stamped time never goes back.
    fn admit_window(&self, turn: &Turn<'_>, command: &Command) -> Result<(), CommandError> {
        let stamp_ms = self.machine.as_ref().map_or(0, Machine::stamp_ms).max(turn.wall_ms);
        if command.retry_until_ms < stamp_ms {
            return Err(Unknown::Expired { late_ms: stamp_ms - command.retry_until_ms }.into());
        }
        Ok(())
    }

    /// Puts an entry that nobody waits for into the log; whether raft took it.
    pub(super) fn propose_body(&mut self, body: &EntryBody) -> bool {
        self.propose_entries([Entry { data: crate::data::encode(body), ..Entry::default() }]).is_ok()
    }

    /// Gives raft entries for its log; where the first of them is then.
    pub(super) fn propose_entries(&mut self, entries: impl IntoIterator<Item = Entry>) -> raft::Result<u64> {
        let mut message = Message { from: self.member.0, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.mut_entries().extend(entries);
        let first = self.raw.raft.raft_log.last_index() + 1;
        self.raw.raft.step(message).map(|()| first)
    }

    /// Puts what came in into the log, or answers whoever sent it.
    pub(super) fn propose(&mut self, turn: &mut Turn<'_>) {
        // During a transfer raft drops what is proposed. It waits here until the transfer is over, one way or the other.
        if self.incoming.is_empty() || self.transfer.is_some() {
            return;
        }
        let incoming = std::mem::take(&mut self.incoming);
        let bytes = std::mem::take(&mut self.incoming_bytes);
        let Some(term) = self.leading else {
            let leader = self.leader_to_ask();
            self.waiting -= incoming.len();
            for (_, waiter) in incoming {
                let refusal = NotApplied::NotLeader { group: self.id, leader };
                turn.out.command(waiter, Err(refusal.into()));
            }
            return;
        };
        let mut ahead = self.commands_waiting() - incoming.len();
        let (mut entries, mut waiters) = (Vec::new(), Vec::new());
        for (commands, group_waiters) in split_into_entries(incoming, bytes, turn) {
            let body = EntryBody::Commands(Commands { stamp_ms: turn.wall_ms, commands });
            entries.push(Entry { data: crate::data::encode(&body), ..Entry::default() });
            waiters.push(group_waiters);
        }
        match self.propose_entries(entries) {
            Ok(first) => {
                for (index, waiters) in (first..).zip(waiters) {
                    let count = waiters.len();
                    let (since, busy) = (turn.now, turn.busy);
                    self.proposals.push_back(Proposal { term, index, waiters, since, busy, ahead });
                    ahead += count;
                }
            }
            Err(error) => {
                tracing::debug!(group = %self.id, %error, "raft did not take a proposal");
                for waiter in waiters.into_iter().flatten() {
                    self.waiting -= 1;
                    let refusal = NotApplied::Overloaded { retry_after_ms: RETRY_AFTER_MS };
                    turn.out.command(waiter, Err(refusal.into()));
                }
            }
        }
    }
}

/// Cuts what came in into entries of bounded size.
fn split_into_entries(
    incoming: Vec<(Command, Waiter<CommandResult>)>,
    bytes: usize,
    turn: &Turn<'_>,
) -> Vec<(Vec<Command>, Vec<Waiter<CommandResult>>)> {
    let (commands_max, bytes_max) = (turn.limits.entry_commands_max, turn.limits.entry_bytes_max);
    if incoming.len() <= commands_max && bytes <= bytes_max {
        return vec![incoming.into_iter().unzip()];
    }
    let mut entries = Vec::new();
    let mut current = (Vec::new(), Vec::new());
    let mut current_bytes = 0;
    for (command, waiter) in incoming {
        let size = command.payload.len();
        if !current.0.is_empty() && (current.0.len() >= commands_max || current_bytes + size > bytes_max) {
            entries.push(std::mem::take(&mut current));
            current_bytes = 0;
        }
        current_bytes += size;
        current.0.push(command);
        current.1.push(waiter);
    }
    entries.push(current);
    entries
}
