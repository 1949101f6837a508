//! What a member of a group has come to, taken out whole, so that another group can begin with it when this one is gone.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine::{Found, Input};
use crate::error::GroupError;
use crate::host::Host;
use crate::id::{GroupId, MemberId};
use crate::waiter::{Answer, Waiter};

/// Bits of a [`Keepsake::rank`] that tell the index of its last entry; those above tell the term.
const INDEX_BITS: u32 = 40;

/// The state, the sessions and the settings of a group with all that was in one member's log, committed or not. May be
/// stored: its shape is frozen, and what is in it has versions of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keepsake {
    /// How new it is: by the term of the last entry that is in it, and among those of one term by its index. Of the keepsakes
    /// of a majority of a group's voters, one with the highest has every command that was acknowledged: those who elect a
    /// leader compare their logs so (Raft, section 5.4.1). That of a learner is below that of any voter, and says nothing of
    /// what was acknowledged; see [`is_of_voter`](Self::is_of_voter).
    pub rank: u64,
    /// The state in bytes.
    pub state: Bytes,
}

impl Keepsake {
    /// Whether a [`rank`](Self::rank) is that of a member that voted.
    pub fn is_of_voter(rank: u64) -> bool {
        rank >> INDEX_BITS > 0
    }
}

/// Where a log that ends with this entry stands among others.
pub(crate) fn rank_of(term: u64, index: u64) -> u64 {
    let index_max = (1 << INDEX_BITS) - 1;
    let term_max = (1 << (u64::BITS - INDEX_BITS)) - 1;
    (term.min(term_max) << INDEX_BITS) | index.min(index_max)
}

/// Never sent to another node.
impl Answer for Result<Option<Keepsake>, GroupError> {
    fn within(self, _: usize) -> Self {
        self
    }
}

impl Host {
    /// Takes this node's member of a group that is over out of service, and gives what it had come to, with all that is in
    /// its log; `None` if there is none, or it has no state yet.
    ///
    /// From then on the member takes part in nothing, so that all that it ever acknowledged is in it; its status says that it
    /// is fenced, another call gives the same, and [`drop_member`](Self::drop_member) ends it. A restart brings it back as
    /// it was: then it must retire once more before it ends.
    ///
    /// # Errors
    ///
    /// [`GroupError::Fenced`] if the member is, or its value does not encode; [`GroupError::Unavailable`] if the host is too
    /// busy or ends.
    pub async fn retire(&self, group: GroupId) -> Result<Option<Keepsake>, GroupError> {
        let (waiter, answer) = Waiter::local();
        self.put(group, Input::Retire { group, waiter });
        answer.await.unwrap_or(Err(GroupError::Unavailable))
    }

    /// Founds a group as [`found`](Self::found) does, with what a member of another group had come to. Its settings are
    /// those of `found`, and its members get new ids.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found); [`GroupError::InvalidConfig`] if the keepsake holds another type of data, or is damaged.
    pub async fn found_with(&self, found: Found, keepsake: Keepsake) -> Result<MemberId, GroupError> {
        let group = found.group;
        let keepsake = Some(keepsake);
        self.ask_member(group, |waiter| Input::Found { found, keepsake, waiter }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were compared by the index alone: what a leader that was cut off has in its log may be long, and was never
    /// acknowledged.
    #[test]
    fn a_later_term_is_newer_than_any_number_of_entries() {
        let ranks = [(0, 5), (1, 1), (2, 100), (3, 60), (3, 61), (u64::MAX, 3), (u64::MAX, u64::MAX)];
        assert!(ranks.map(|(term, index)| rank_of(term, index)).is_sorted_by(|one, other| one < other));
    }
}
