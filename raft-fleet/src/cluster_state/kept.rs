//! What removed groups have left on the disks of nodes, so that a group that is added again under the same name begins with
//! the newest of it.

use std::collections::BTreeMap;

use rafted_value::{Durability, GroupId, Keepsake, NodeId};
use serde::{Deserialize, Serialize};

use super::apply::{Applied, Change};
use super::command::{ClusterRefusal, ClusterReply};
use super::{ClusterState, GroupEntry, GroupState};
use crate::group_name::GroupName;

/// What a removed group has left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptGroup {
    /// The id that the group had.
    pub group: GroupId,
    /// The name of its data type.
    pub data: String,
    /// The nodes that keep what it had come to, and how new that is.
    pub holders: BTreeMap<NodeId, u64>,
    /// The id of the group that is being founded with it.
    pub restored_as: Option<GroupId>,
}

impl ClusterState {
    /// What removed groups have left, by the names that they had.
    pub fn kept(&self) -> &BTreeMap<GroupName, KeptGroup> {
        &self.kept
    }

    /// What a removed group has left, by its id.
    pub(crate) fn kept_of(&self, group: GroupId) -> Option<(&GroupName, &KeptGroup)> {
        self.kept.iter().find(|(_, kept)| kept.group == group)
    }

    /// A removed group leaves what its members write down from now on; one that was never used leaves nothing, but what
    /// it was to begin with stays.
    pub(super) fn leave_behind(&mut self, name: &GroupName, entry: &GroupEntry) {
        if let Some(kept) = self.kept.get_mut(name) {
            kept.restored_as = None;
        }
        if entry.state == GroupState::Running && entry.config.durability != Durability::Memory {
            let (group, data) = (entry.id, entry.data.clone());
            let kept = KeptGroup { group, data, holders: BTreeMap::new(), restored_as: None };
            self.kept.insert(name.clone(), kept);
        }
    }

    /// Forgets what has no holders once nobody is left who might have something.
    pub(super) fn forget_the_empty(&mut self) {
        let removed = &self.removed;
        self.kept.retain(|_, kept| !kept.holders.is_empty() || removed.contains_key(&kept.group));
    }

    /// The founder of a new group that begins with what one of this name has left, and `None` where nothing is left: the
    /// active node that keeps the newest. Most of those that keep what a voter had must be active, because only so does one of
    /// them have every command that was acknowledged. What learners had counts only where no voter has left anything.
    pub(super) fn restorer(&self, name: &GroupName, data: &str) -> Result<Option<NodeId>, ClusterRefusal> {
        let Some(kept) = self.kept.get(name).filter(|kept| !kept.holders.is_empty()) else { return Ok(None) };
        if kept.data != data {
            return Err(ClusterRefusal::KeptOther { name: name.clone(), data: kept.data.clone() });
        }
        let is_active = |node: &NodeId| self.nodes.get(node).is_some_and(|entry| entry.active);
        let voted = |(_, rank): &(&NodeId, &u64)| Keepsake::is_of_voter(**rank);
        let by_voters = kept.holders.iter().any(|holder| voted(&holder));
        let holders = kept.holders.iter().filter(|holder| !by_voters || voted(holder));
        let active = holders.clone().filter(|(node, _)| is_active(node));
        let (holders, count) = (holders.count(), active.clone().count());
        if count <= holders / 2 {
            let (holders, active) = (holders as u32, count as u32);
            return Err(ClusterRefusal::KeptElsewhere { name: name.clone(), holders, active });
        }
        Ok(active.max_by_key(|(_, rank)| **rank).map(|(node, _)| *node))
    }

    pub(super) fn keep(&mut self, node: NodeId, group: GroupId, rank: u64) -> Applied {
        let Some(kept) = self.kept.values_mut().find(|kept| kept.group == group) else {
            return Ok(Change::None(ClusterReply::Done));
        };
        let changed = kept.holders.insert(node, rank) != Some(rank);
        Ok(if changed { Change::Some(ClusterReply::Done) } else { Change::None(ClusterReply::Done) })
    }

    pub(super) fn delete_group(&mut self, name: GroupName) -> Applied {
        if self.groups.contains_key(&name) {
            let removed = self.remove_group(name.clone())?;
            self.kept.remove(&name);
            return Ok(removed);
        }
        if self.kept.remove(&name).is_some() {
            Ok(Change::Some(ClusterReply::Done))
        } else {
            Err(ClusterRefusal::NoSuchGroup(name))
        }
    }
}
