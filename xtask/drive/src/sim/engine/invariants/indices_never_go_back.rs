//! What a member has committed, applied or left behind it keeps, and its term only grows.

use std::collections::BTreeMap;

use rafted_value::{GroupId, MemberId, NodeId};

use super::Sighting;

/// The newest indices of each member.
#[derive(Debug, Default)]
pub(super) struct IndicesNeverGoBack(BTreeMap<(NodeId, GroupId, MemberId), [u64; 4]>);

const NAMES: [&str; 4] = ["term", "commit index", "applied index", "snapshot index"];

impl IndicesNeverGoBack {
    /// # Errors
    ///
    /// When one went back, or they are in no possible order.
    pub(super) fn observe(&mut self, sighting: &Sighting) -> Result<(), String> {
        let status = &sighting.status;
        if status.data.is_empty() {
            // A member without state may be dropped and made again under the same id.
            return Ok(());
        }
        let who = || format!("group {}, member {} on {}", status.group, status.member, sighting.node);
        let now = [status.term, status.commit_index, status.applied_index, status.snapshot_index];
        let before = self.0.entry((sighting.node, status.group, status.member)).or_insert(now);
        for ((name, before), now) in NAMES.iter().zip(*before).zip(now) {
            if now < before {
                return Err(format!("{}: its {name} went back from {before} to {now}", who()));
            }
        }
        *before = now;
        let ordered = status.snapshot_index <= status.applied_index
            && status.applied_index <= status.commit_index
            && status.commit_index <= status.last_index;
        if ordered { Ok(()) } else { Err(format!("{}: impossible indices {status:?}", who())) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sighting;
    use super::*;

    #[test]
    fn an_index_that_goes_back_is_found() {
        let mut indices = IndicesNeverGoBack::default();
        let mut member = sighting(1, 1);
        (member.status.commit_index, member.status.last_index) = (5, 5);
        indices.observe(&member).unwrap();
        indices.observe(&sighting(2, 2)).unwrap();
        member.status.commit_index = 4;
        indices.observe(&member).unwrap_err();
    }

    #[test]
    fn applied_beyond_committed_is_found() {
        let mut member = sighting(1, 1);
        member.status.applied_index = 2;
        IndicesNeverGoBack::default().observe(&member).unwrap_err();
    }
}
