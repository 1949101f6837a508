//! TiKV's `raft`, hidden: nothing outside this folder and `group` names a type of it.

pub(crate) mod convert;
pub(crate) mod log;
mod logger;

pub(crate) use self::logger::bridge;

use crate::config::GroupConfig;
use crate::id::MemberId;

/// An election timeout as raft counts it. raft cannot be told another one later, so it counts in parts of whatever the
/// timeout is at the moment: see [`parts_a_heartbeat`].
const ELECTION_PARTS: usize = 1 << 20;
/// Parts that never pass: raft counts, but the group decides when to campaign.
const NEVER_PARTS: usize = usize::MAX / 4;
/// The most bytes of entries in one append.
const APPEND_BYTES_MAX: u64 = 256 << 10;
/// Appends on their way to one follower at most; raft reserves eight bytes for each, for each member, in each group.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes of entries that are proposed but not committed at most.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of committed entries applied in one go.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// Parts of an election timeout that pass from heartbeat to heartbeat.
pub(crate) fn parts_a_heartbeat(config: &GroupConfig) -> usize {
    let timeout_ms = config.election_timeout_min_ms.max(1) as usize;
    (ELECTION_PARTS * config.heartbeat_ms as usize).div_ceil(timeout_ms).max(1)
}

/// Lets raft answer votes although it has heard of a leader lately, as it counts; our promises stand in the way for as
/// long as they run.
pub(crate) fn forget_leader_lease<T: raft::Storage>(raft: &mut raft::Raft<T>) {
    raft.election_elapsed = ELECTION_PARTS;
}

/// raft's configuration for a member: one tick is one heartbeat, elections are ours to start.
pub(crate) fn raft_config(member: MemberId, applied: u64) -> raft::Config {
    raft::Config {
        id: member.0,
        election_tick: ELECTION_PARTS,
        heartbeat_tick: 1,
        applied,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: NEVER_PARTS,
        max_election_tick: NEVER_PARTS + 1,
        read_only_option: raft::ReadOnlyOption::Safe,
        skip_bcast_commit: true,
        // Joined appends would outgrow a transport's limit, and only then be lost.
        batch_append: false,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        ..raft::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_timeout_passes_in_as_many_heartbeats_as_it_spans() {
        for (heartbeat_ms, election_timeout_min_ms, beats) in [(50, 600, 12), (50, 100, 2), (7, 50, 8)] {
            let config = GroupConfig { heartbeat_ms, election_timeout_min_ms, ..GroupConfig::default() };
            let parts = parts_a_heartbeat(&config);
            assert!(parts * beats >= ELECTION_PARTS && parts * (beats - 1) < ELECTION_PARTS);
        }
    }
}
