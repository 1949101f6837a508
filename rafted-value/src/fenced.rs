//! A member that is out of service on its node, until somebody repairs or removes it.

use crate::id::MemberId;
use crate::store::Record;

/// What is left of the member.
pub(crate) struct Fenced {
    pub(crate) member: MemberId,
    /// The newest term that it knew.
    pub(crate) term: u64,
    pub(crate) reason: String,
    /// All that the disk has of it, where it is certain what that is: the log must be able to do without its older parts
    /// though nobody else writes this member's records anew.
    pub(crate) kept: Option<Record>,
}

/// Whether a log of so many bytes fits into one record. What is around its entries counts as more in memory than in a record;
/// the rest is room for a small snapshot, the membership and the vote.
pub(crate) fn fits_one_record(log_bytes: u64, record_bytes_max: usize) -> bool {
    log_bytes.saturating_add(ROOM_BYTES) <= record_bytes_max as u64
}

const ROOM_BYTES: u64 = 256 << 10;
