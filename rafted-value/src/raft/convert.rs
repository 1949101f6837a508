//! raft's own messages to ours and back.
//!
//! Only what one member may say to another has a counterpart: a proposal, or any of raft's local messages, cannot even
//! be written down. Membership changes are kept in raft's entries in our encoding and never as protobuf.

use bytes::Bytes;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType, Message, MessageType, Snapshot};

use crate::id::{GroupId, MemberId};
use crate::lease::Exemption;
use crate::message::{Body, ChangeKind, GroupMessage, MemberChange, WireEntry, WireEntryBody, WireSnapshot};

/// How raft marks a vote that is asked for at the wish of a leader (`CAMPAIGN_TRANSFER`, which it keeps to itself).
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// No log comes this far: what is counted from an index on never runs over.
const INDEX_MAX: u64 = u64::MAX >> 1;

/// What our lease adds to raft's heartbeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseFields {
    /// The round of the heartbeats that go out now.
    pub(crate) round: u64,
    /// The promise they ask for.
    pub(crate) promise_ms: u32,
    /// The newest round that this member has accepted from its present leader.
    pub(crate) accepted_round: u64,
    /// What lets this member ask for votes at the wish of a leader.
    pub(crate) exemption: Option<Exemption>,
}

/// raft's message as ours; `None` for kinds that never travel.
pub(crate) fn to_wire(group: GroupId, mut message: Message, lease: LeaseFields) -> Option<GroupMessage> {
    let at_leaders_wish = lease.exemption.filter(|exemption| {
        message.context[..] == *CAMPAIGN_TRANSFER && exemption.term.checked_add(1) == Some(message.term)
    });
    let body = match message.get_msg_type() {
        MessageType::MsgHeartbeat => {
            Body::Beat { commit: message.commit, round: lease.round, promise_ms: lease.promise_ms }
        }
        MessageType::MsgHeartbeatResponse => {
            Body::BeatAck { commit: message.commit, round: lease.accepted_round }
        }
        MessageType::MsgAppend => Body::Append {
            log_term: message.log_term,
            index: message.index,
            commit: message.commit,
            entries: message.take_entries().into_iter().map(entry_to_wire).collect(),
        },
        MessageType::MsgAppendResponse => Body::AppendAck {
            log_term: message.log_term,
            index: message.index,
            commit: message.commit,
            reject: message.reject,
            reject_hint: message.reject_hint,
            request_snapshot: message.request_snapshot,
        },
        MessageType::MsgTimeoutNow => Body::TransferNow { round: lease.round },
        MessageType::MsgRequestVote if at_leaders_wish.is_some() => Body::TransferVote {
            log_term: message.log_term,
            index: message.index,
            commit: message.commit,
            commit_term: message.commit_term,
            round: at_leaders_wish.map_or(0, |exemption| exemption.round),
        },
        kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => Body::Vote {
            pre: kind == MessageType::MsgRequestPreVote,
            log_term: message.log_term,
            index: message.index,
            commit: message.commit,
            commit_term: message.commit_term,
            priority: message.priority,
        },
        kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
            Body::VoteAck {
                pre: kind == MessageType::MsgRequestPreVoteResponse,
                reject: message.reject,
                commit: message.commit,
                commit_term: message.commit_term,
            }
        }
        MessageType::MsgSnapshot => Body::Snapshot { snapshot: snapshot_to_wire(message.take_snapshot()) },
        _ => return None,
    };
    Some(GroupMessage {
        group,
        from: MemberId(message.from),
        to: MemberId(message.to),
        term: message.term,
        body,
    })
}

/// Our message as raft's; `None` where it says nothing to raft.
pub(crate) fn from_wire(message: GroupMessage) -> Option<Message> {
    let mut out =
        Message { from: message.from.0, to: message.to.0, term: message.term, ..Message::default() };
    match message.body {
        Body::Beat { commit, .. } => {
            out.set_msg_type(MessageType::MsgHeartbeat);
            out.commit = commit;
        }
        Body::BeatAck { commit, .. } => {
            out.set_msg_type(MessageType::MsgHeartbeatResponse);
            out.commit = commit;
        }
        Body::Append { log_term, index, commit, entries } => {
            out.set_msg_type(MessageType::MsgAppend);
            (out.log_term, out.index, out.commit) = (log_term, index, commit);
            out.set_entries(entries.into_iter().map(entry_from_wire).collect::<Vec<_>>().into());
        }
        Body::AppendAck { log_term, index, commit, reject, reject_hint, request_snapshot } => {
            out.set_msg_type(MessageType::MsgAppendResponse);
            (out.log_term, out.index, out.commit) = (log_term, index, commit);
            (out.reject, out.reject_hint, out.request_snapshot) = (reject, reject_hint, request_snapshot);
        }
        Body::Vote { pre, log_term, index, commit, commit_term, priority } => {
            out.set_msg_type(if pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote });
            (out.log_term, out.index) = (log_term, index);
            (out.commit, out.commit_term, out.priority) = (commit, commit_term, priority);
        }
        Body::VoteAck { pre, reject, commit, commit_term } => {
            out.set_msg_type(if pre {
                MessageType::MsgRequestPreVoteResponse
            } else {
                MessageType::MsgRequestVoteResponse
            });
            (out.reject, out.commit, out.commit_term) = (reject, commit, commit_term);
        }
        Body::Snapshot { snapshot } => {
            out.set_msg_type(MessageType::MsgSnapshot);
            out.set_snapshot(snapshot_from_wire(snapshot));
        }
        Body::TransferNow { .. } => out.set_msg_type(MessageType::MsgTimeoutNow),
        Body::TransferVote { log_term, index, commit, commit_term, .. } => {
            out.set_msg_type(MessageType::MsgRequestVote);
            (out.log_term, out.index) = (log_term, index);
            (out.commit, out.commit_term) = (commit, commit_term);
            // raft's own lease, which counts ticks, must not stand in the way either.
            out.context = Bytes::from_static(CAMPAIGN_TRANSFER);
        }
        Body::Removed
        | Body::Offer { .. }
        | Body::Pull { .. }
        | Body::Piece { .. }
        | Body::StateHash { .. }
        | Body::Rest { .. }
        | Body::RestAck { .. }
        | Body::Wake => return None,
    }
    Some(out)
}

/// Whether our messages say that raft can rely on: entries in a row after the one they follow, terms that never fall.
///
/// raft asserts these and would panic; a peer that breaks them is hostile or broken, and its message is refused.
pub(crate) fn check(message: &GroupMessage) -> Result<(), String> {
    if message.term == 0 {
        return Err("a message of term 0".into());
    }
    if message.from.0 == 0 || message.to.0 == 0 {
        return Err("a message from or to member 0".into());
    }
    match &message.body {
        Body::Append { log_term, index, entries, .. } => {
            if *log_term == 0 && *index > 0 {
                return Err(format!("an append after entry {index} of term 0"));
            }
            let mut before = (*log_term, *index);
            for entry in entries {
                if Some(entry.index) != before.1.checked_add(1)
                    || entry.term < before.0
                    || entry.term > message.term
                {
                    return Err(format!(
                        "entry {} of term {} after entry {} of term {}",
                        entry.index, entry.term, before.1, before.0
                    ));
                }
                before = (entry.term, entry.index);
            }
            Ok(())
        }
        Body::Snapshot { snapshot } | Body::Offer { snapshot, .. } => {
            if snapshot.index == 0 || snapshot.voters.is_empty() {
                return Err("a snapshot at index 0 or without voters".into());
            }
            if snapshot.index > INDEX_MAX {
                return Err(format!("a snapshot at index {}", snapshot.index));
            }
            if snapshot.term > message.term {
                return Err(format!("a snapshot of term {} in term {}", snapshot.term, message.term));
            }
            Ok(())
        }
        Body::AppendAck { request_snapshot, .. } if *request_snapshot != 0 => {
            Err(format!("a snapshot is asked for at index {request_snapshot}"))
        }
        Body::Vote { priority, .. } if *priority != 0 => Err(format!("a vote of priority {priority}")),
        _ => Ok(()),
    }
}

/// A log entry as ours.
pub(crate) fn entry_to_wire(entry: Entry) -> WireEntry {
    let body = match entry.get_entry_type() {
        EntryType::EntryNormal => WireEntryBody::Normal(entry.data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            WireEntryBody::Change(read_change(&entry).expect("a change in the log was written by us"))
        }
    };
    WireEntry { term: entry.term, index: entry.index, body }
}

/// Our log entry as raft's.
pub(crate) fn entry_from_wire(entry: WireEntry) -> Entry {
    let mut out = Entry { term: entry.term, index: entry.index, ..Entry::default() };
    match entry.body {
        WireEntryBody::Normal(data) => out.data = data,
        WireEntryBody::Change(change) => {
            out.set_entry_type(EntryType::EntryConfChange);
            out.context = write_change(&change);
        }
    }
    out
}

/// The change that a log entry holds, which is `None` for a corrupt one.
pub(crate) fn read_change(entry: &Entry) -> Option<MemberChange> {
    postcard::from_bytes(&entry.context).ok()
}

/// A change as a log entry holds it.
pub(crate) fn write_change(change: &MemberChange) -> Bytes {
    crate::data::encode(change)
}

/// A change as raft applies it.
pub(crate) fn change_to_raft(change: &MemberChange) -> ConfChange {
    let mut out = ConfChange { node_id: change.member.0, ..ConfChange::default() };
    out.set_change_type(match change.kind {
        ChangeKind::AddLearner => ConfChangeType::AddLearnerNode,
        ChangeKind::Promote => ConfChangeType::AddNode,
        ChangeKind::Remove => ConfChangeType::RemoveNode,
    });
    out
}

/// raft's snapshot as ours.
pub(crate) fn snapshot_to_wire(mut snapshot: Snapshot) -> WireSnapshot {
    let state = std::mem::take(&mut snapshot.data);
    let metadata = snapshot.get_metadata();
    let members = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    WireSnapshot {
        index: metadata.index,
        term: metadata.term,
        voters: members(&metadata.get_conf_state().voters),
        learners: members(&metadata.get_conf_state().learners),
        state,
    }
}

/// Our snapshot as raft's.
pub(crate) fn snapshot_from_wire(snapshot: WireSnapshot) -> Snapshot {
    let mut out = Snapshot { data: snapshot.state, ..Snapshot::default() };
    let metadata = out.mut_metadata();
    (metadata.index, metadata.term) = (snapshot.index, snapshot.term);
    let conf = metadata.mut_conf_state();
    conf.voters = snapshot.voters.iter().map(|member| member.0).collect();
    conf.learners = snapshot.learners.iter().map(|member| member.0).collect();
    out
}
