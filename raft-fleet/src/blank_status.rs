//! A member's status in which nothing is said, for tests that say what matters to them.

use rafted_value::{Durability, GroupConfig, GroupId, GroupStatus, MemberId, Role};

pub(crate) fn blank_status() -> GroupStatus {
    GroupStatus {
        group: GroupId(1),
        data: String::new(),
        member: MemberId(1),
        role: Role::Follower,
        term: 0,
        leader: None,
        ready: false,
        leased: false,
        members: Vec::new(),
        commit_index: 0,
        applied_index: 0,
        last_index: 0,
        snapshot_index: 0,
        snapshot_bytes: 0,
        snapshot_held_bytes: 0,
        log_bytes: 0,
        session_replies: 0,
        config: GroupConfig::default(),
        durability: Durability::Memory,
        fenced: None,
        lease_left_ms: None,
        promise_left_ms: 0,
        unresponsive: Vec::new(),
        transfer_to: None,
        change_under_way: false,
        waiting: 0,
        quiet: false,
    }
}
