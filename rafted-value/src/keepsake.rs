//! What a member of a group has come to, taken out whole, so that another group can begin with it when this one is gone.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine::{Found, Input};
use crate::error::GroupError;
use crate::host::Host;
use crate::id::{GroupId, MemberId};
use crate::waiter::{Answer, Waiter};

/// The state, the sessions and the settings of a group as one member had applied them. May be stored: its shape is
/// frozen, and what is in it has versions of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keepsake {
    /// The index of the last entry that is in it: of two keepsakes of one group, the one with the larger is newer.
    pub index: u64,
    /// The state in bytes.
    pub state: Bytes,
}

/// Never sent to another node.
impl Answer for Option<Keepsake> {
    fn within(self, _: usize) -> Self {
        self
    }
}

impl Host {
    /// What this node's member of a group has come to; `None` if there is none, it has no state yet, it is fenced, or the
    /// value does not encode.
    ///
    /// A command that was acknowledged a moment ago may be missing on a follower, which hears of it with the next
    /// heartbeat: of the keepsakes of a majority, the newest has everything that was acknowledged a few heartbeats before
    /// the first of them was taken.
    pub async fn keepsake(&self, group: GroupId) -> Option<Keepsake> {
        let (waiter, answer) = Waiter::local();
        self.put(group, Input::Keepsake { group, waiter });
        answer.await.ok().flatten()
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
