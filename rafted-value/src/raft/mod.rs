//! TiKV's `raft`, hidden: nothing outside this folder and `group` names a type of it.

pub(crate) mod convert;
pub(crate) mod log;
mod logger;

pub(crate) use self::logger::bridge;

use crate::config::GroupConfig;
use crate::id::MemberId;

/// Ticks that never pass: raft counts, but the group decides when to campaign.
const NEVER_TICKS: usize = 1 << 40;
/// The most bytes of entries in one append.
const APPEND_BYTES_MAX: u64 = 256 << 10;
/// Appends on their way to one follower at most; raft reserves eight bytes for each, for each member, in each group.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes of entries that are proposed but not committed at most.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of committed entries applied in one go.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// raft's configuration for a member: one tick is one heartbeat, elections are ours to start.
pub(crate) fn raft_config(member: MemberId, config: &GroupConfig, applied: u64) -> raft::Config {
    let election_tick = (config.election_timeout_min_ms / config.heartbeat_ms).max(2) as usize;
    raft::Config {
        id: member.0,
        election_tick,
        heartbeat_tick: 1,
        applied,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: NEVER_TICKS,
        max_election_tick: NEVER_TICKS + 1,
        read_only_option: raft::ReadOnlyOption::Safe,
        skip_bcast_commit: true,
        // Joined appends would outgrow a transport's limit, and only then be lost.
        batch_append: false,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        ..raft::Config::default()
    }
}
