//! What each command does to the cluster state.

use rafted_value::transport::ClusterId;
use rafted_value::{GroupConfig, GroupId, NodeId};

use super::command::{ClusterCommand, ClusterRefusal, ClusterReply};
use super::{ClusterState, GROUPS_MAX, GroupEntry, GroupState, NODES_MAX, RemovedGroup};
use crate::group_name::{GroupName, check_name};
use crate::node_info::NodeInfo;
use crate::placement::place;

impl ClusterState {
    /// Applies one command; the revision grows if it changes anything.
    pub(super) fn apply(&mut self, command: ClusterCommand) -> ClusterReply {
        let done = match command {
            ClusterCommand::Form { cluster, nodes, cluster_members_max } => {
                self.form(cluster, nodes, cluster_members_max)
            }
            ClusterCommand::Join { node, cluster } => self.join(node, cluster),
            ClusterCommand::Leave { node } => self.leave(node),
            ClusterCommand::Purge { node, by } => self.purge(node, by),
            ClusterCommand::AddGroup { name, data, replicas, config } => {
                self.add_group(name, data, replicas, config)
            }
            ClusterCommand::RemoveGroup { name } => self.remove_group(name),
            ClusterCommand::GroupReady { name, id } => self.group_ready(name, id),
            ClusterCommand::CleanedUp { node, groups } => self.cleaned_up(node, &groups),
        };
        match done {
            Ok(Change::None(reply)) => reply,
            Ok(Change::Some(reply)) => {
                self.revision += 1;
                reply
            }
            Err(refusal) => ClusterReply::Refused(refusal),
        }
    }

    fn form(&mut self, cluster: ClusterId, nodes: Vec<NodeInfo>, members_max: u32) -> Applied {
        match self.cluster {
            Some(formed) if formed == cluster => return Ok(Change::None(ClusterReply::Done)),
            Some(formed) => return Err(ClusterRefusal::OtherCluster { cluster: formed, asked: cluster }),
            None => (),
        }
        if nodes.len() > NODES_MAX {
            return Err(ClusterRefusal::TooManyNodes);
        }
        nodes.iter().try_for_each(NodeInfo::validate).map_err(ClusterRefusal::Name)?;
        self.cluster = Some(cluster);
        self.cluster_members_max = members_max.max(1);
        self.nodes = nodes.into_iter().map(<_>::from).collect();
        Ok(Change::Some(ClusterReply::Done))
    }

    /// Only one process can hold an address, so a node that joins under the name and the address of another is the
    /// next life of it, and the former is gone for sure.
    fn join(&mut self, info: NodeInfo, asked: ClusterId) -> Applied {
        let cluster = self.cluster.ok_or(ClusterRefusal::NotFormed)?;
        if cluster != asked {
            return Err(ClusterRefusal::OtherCluster { cluster, asked });
        }
        info.validate().map_err(ClusterRefusal::Name)?;
        let mut superseded = None;
        for (node, entry) in self.nodes.iter().filter(|(node, _)| **node != info.node) {
            let NodeInfo { name, address, .. } = &info;
            let (name, address) = (name.clone(), address.clone());
            match (entry.name == name, entry.address == address) {
                (true, true) => superseded = Some(*node),
                (true, false) => {
                    let address = entry.address.clone();
                    return Err(ClusterRefusal::DuplicateName { name, node: *node, address });
                }
                (false, true) => {
                    let name = entry.name.clone();
                    return Err(ClusterRefusal::DuplicateAddress { address, node: *node, name });
                }
                (false, false) => (),
            }
        }
        if superseded.is_none() && !self.nodes.contains_key(&info.node) && self.nodes.len() >= NODES_MAX {
            return Err(ClusterRefusal::TooManyNodes);
        }
        let (node, entry) = info.into();
        if self.nodes.get(&node) == Some(&entry) && superseded.is_none() {
            return Ok(Change::None(ClusterReply::Joined { superseded: None }));
        }
        if let Some(former) = superseded {
            self.forget_node(former);
        }
        self.nodes.insert(node, entry);
        self.found_orphans_again();
        Ok(Change::Some(ClusterReply::Joined { superseded }))
    }

    fn leave(&mut self, node: NodeId) -> Applied {
        let entry = self.nodes.get_mut(&node).ok_or(ClusterRefusal::NoSuchNode(node))?;
        if !entry.active {
            return Ok(Change::None(ClusterReply::Done));
        }
        entry.active = false;
        self.found_orphans_again();
        Ok(Change::Some(ClusterReply::Done))
    }

    fn purge(&mut self, node: NodeId, by: NodeId) -> Applied {
        for listed in [by, node] {
            if !self.nodes.contains_key(&listed) {
                return Err(ClusterRefusal::NoSuchNode(listed));
            }
        }
        self.forget_node(node);
        self.found_orphans_again();
        Ok(Change::Some(ClusterReply::Done))
    }

    fn add_group(&mut self, name: GroupName, data: String, replicas: u32, config: GroupConfig) -> Applied {
        if self.cluster.is_none() {
            return Err(ClusterRefusal::NotFormed);
        }
        if self.groups.contains_key(&name) {
            return Err(ClusterRefusal::AlreadyAdded(name));
        }
        if replicas == 0 {
            return Err(ClusterRefusal::Replicas(replicas));
        }
        check_name("name of the data type", &data).map_err(ClusterRefusal::Name)?;
        if let Some(removed) = self.removed.values().find(|removed| removed.name == name) {
            let pending = u32::try_from(removed.pending.len()).unwrap_or(u32::MAX);
            return Err(ClusterRefusal::CleanupOngoing { name, pending });
        }
        if self.groups.len() + self.removed.len() >= GROUPS_MAX {
            return Err(ClusterRefusal::TooManyGroups);
        }
        let founder = *self.desired(&name, 1).first().ok_or(ClusterRefusal::NoActiveNode)?;
        let id = self.allocate_group();
        let state = GroupState::Founding { founder };
        self.groups.insert(name, GroupEntry { id, data, replicas, config, state });
        Ok(Change::Some(ClusterReply::GroupAdded { id, founder }))
    }

    fn remove_group(&mut self, name: GroupName) -> Applied {
        let entry = self.groups.remove(&name).ok_or_else(|| ClusterRefusal::NoSuchGroup(name.clone()))?;
        // Without nodes there is nobody who could have members to clean up.
        if !self.nodes.is_empty() {
            let pending = self.nodes.keys().copied().collect();
            self.removed.insert(entry.id, RemovedGroup { name, pending });
        }
        Ok(Change::Some(ClusterReply::GroupRemoved { id: entry.id }))
    }

    fn group_ready(&mut self, name: GroupName, id: GroupId) -> Applied {
        let entry = self.groups.get_mut(&name).filter(|entry| entry.id == id);
        let entry = entry.ok_or(ClusterRefusal::NoSuchGroup(name))?;
        if entry.state == GroupState::Running {
            return Ok(Change::None(ClusterReply::Done));
        }
        entry.state = GroupState::Running;
        Ok(Change::Some(ClusterReply::Done))
    }

    fn cleaned_up(&mut self, node: NodeId, groups: &[GroupId]) -> Applied {
        let mut changed = false;
        for group in groups {
            if let Some(removed) = self.removed.get_mut(group) {
                changed |= removed.pending.remove(&node);
            }
        }
        self.removed.retain(|_, removed| !removed.pending.is_empty());
        Ok(if changed { Change::Some(ClusterReply::Done) } else { Change::None(ClusterReply::Done) })
    }

    fn forget_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.removed.retain(|_, removed| {
            removed.pending.remove(&node);
            !removed.pending.is_empty()
        });
    }

    /// A group whose founder is gone before any client could use it starts anew under another id, so that whatever the
    /// former founder still does under the old id is nobody's business. Without any active node it waits.
    fn found_orphans_again(&mut self) {
        let orphans: Vec<GroupName> = self
            .groups
            .iter()
            .filter(|(_, entry)| match entry.state {
                GroupState::Founding { founder } => !self.nodes.get(&founder).is_some_and(|node| node.active),
                GroupState::Running => false,
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in orphans {
            let Some(founder) = place(self.places(), name.as_str(), 1).first().copied() else { return };
            let id = self.allocate_group();
            let entry = self.groups.get_mut(&name).expect("the name was taken from the table above");
            entry.id = id;
            entry.state = GroupState::Founding { founder };
        }
    }

    fn allocate_group(&mut self) -> GroupId {
        let id = GroupId(self.next_group);
        self.next_group += 1;
        id
    }
}

enum Change {
    None(ClusterReply),
    Some(ClusterReply),
}

type Applied = Result<Change, ClusterRefusal>;
