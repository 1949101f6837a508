//! What an engine says of its members.

use super::Engine;
use crate::env::MonoTime;
use crate::id::GroupId;
use crate::status::GroupStatus;

impl Engine {
    pub(super) fn statuses(&self, only: Option<GroupId>, now: MonoTime) -> Vec<GroupStatus> {
        if let Some(id) = only {
            let live = self.groups.get(&id).map(|group| group.status(now));
            return live.or_else(|| self.fenced_status(id)).into_iter().collect();
        }
        let live = self.groups.values().map(|group| group.status(now));
        live.chain(self.fenced.keys().filter_map(|id| self.fenced_status(*id))).collect()
    }

    fn fenced_status(&self, group: GroupId) -> Option<GroupStatus> {
        let fenced = self.fenced.get(&group)?;
        Some(GroupStatus::fenced(group, fenced.member, fenced.term, fenced.reason.clone()))
    }
}
