//! What the whole cluster agrees on: its nodes and its groups, replicated in a group of its own.
//!
//! Pure and deterministic: it runs on every member of the cluster group. Everything that acts (founding, moving,
//! purging) reads it and proposes commands to it, so that two observers never act against each other.

mod apply;
mod command;
mod kept;
mod size;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use rafted_value::transport::ClusterId;
use rafted_value::{CommandContext, Data, GroupConfig, GroupId, NodeId};
use serde::{Deserialize, Serialize};

pub use self::command::{ClusterAnswer, ClusterCommand, ClusterQuery, ClusterRefusal, ClusterReply};
pub use self::kept::KeptGroup;
use self::stored::Stored;
use crate::group_name::GroupName;
use crate::life::Life;
use crate::node_info::NodeInfo;
use crate::placement::{Place, place};

/// The group that replicates the [`ClusterState`].
pub const CLUSTER_GROUP: GroupId = GroupId(1);

/// The first id of a user's group; those below are the fleet's own.
pub const FIRST_GROUP: GroupId = GroupId(16);

/// Nodes of one cluster, at most. A constant of the replicated state: members that disagree on it would diverge.
pub const NODES_MAX: usize = 1024;

/// Groups of one cluster, at most, with the recently removed and those that have left something. As a rule
/// [`CLUSTER_STATE_BYTES_MAX`] is reached before, the earlier the longer the names.
pub const GROUPS_MAX: usize = 131_072;

/// Bytes that the cluster state may come to have, at most: no group is added past that, and none is pinned to more zones. It is
/// sent in one message of at most 4 MiB; the rest is room for groups that are being removed, of which each node is to say that it
/// holds no member, and for nodes that join.
pub const CLUSTER_STATE_BYTES_MAX: u64 = 7 << 19;

/// Zones that one group can be pinned to, at most.
pub const PINS_MAX: usize = 64;

/// The name under which the cluster group is placed; no user's group can have it.
const CLUSTER_GROUP_NAME: &str = "\0cluster";

/// The replicated state of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct ClusterState {
    cluster: Option<ClusterId>,
    revision: u64,
    cluster_members_max: u32,
    nodes: BTreeMap<NodeId, NodeEntry>,
    groups: BTreeMap<GroupName, GroupEntry>,
    removed: BTreeMap<GroupId, RemovedGroup>,
    next_group: u64,
    /// Nodes that do not answer.
    suspects: BTreeMap<NodeId, Suspicion>,
    /// By the name of the node, so that its next life has the same; those that are not listed have 1.
    weights: BTreeMap<String, u32>,
    /// The zones in which the members of a group must be, where not all will do.
    pins: BTreeMap<GroupName, BTreeSet<String>>,
    /// What removed groups have left on disks, by the names that they had.
    kept: BTreeMap<GroupName, KeptGroup>,
    /// The newest life of each node that keeps a directory, also of some that are not listed any more.
    lives: BTreeMap<NodeId, Life>,
}

/// That a node does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suspicion {
    /// Who noticed first.
    pub by: NodeId,
    /// Since when it has been silent, in the stamped time of the cluster group: milliseconds since 1970.
    pub since_ms: u64,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The name its operator gave it; no other listed node has it.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Where others reach it; no other listed node has it.
    pub address: String,
    /// Whether it is to hold members. A node that leaves is listed until it is gone.
    pub active: bool,
}

/// A group of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Its id; a group that is removed and added again has another.
    pub id: GroupId,
    /// The name of its data type.
    pub data: String,
    /// How many members it should have; all active nodes where there are fewer.
    pub replicas: u32,
    /// Its settings.
    pub config: GroupConfig,
    /// How far it has come.
    pub state: GroupState,
}

/// How far a group has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GroupState {
    /// One node founds it; no client may use it yet, so that it can be founded again under another id when that
    /// node dies.
    Founding {
        /// The node that founds it.
        founder: NodeId,
    },
    /// It has had all the members it should have, and is in use. From here on it is never founded again.
    Running,
}

/// A group that was removed while nodes may still hold members of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemovedGroup {
    /// The name it had; it cannot be used again before the members are gone.
    pub name: GroupName,
    /// Nodes that have not yet said that they hold no member of it.
    pub pending: BTreeSet<NodeId>,
}

impl Default for ClusterState {
    fn default() -> Self {
        Self {
            cluster: None,
            revision: 0,
            cluster_members_max: 0,
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            removed: BTreeMap::new(),
            next_group: FIRST_GROUP.0,
            suspects: BTreeMap::new(),
            weights: BTreeMap::new(),
            pins: BTreeMap::new(),
            kept: BTreeMap::new(),
            lives: BTreeMap::new(),
        }
    }
}

impl ClusterState {
    /// The cluster's id; `None` before the cluster is formed.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Grows with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All nodes, the inactive ones included.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeEntry> {
        &self.nodes
    }

    /// All groups, those that are being founded included.
    pub fn groups(&self) -> &BTreeMap<GroupName, GroupEntry> {
        &self.groups
    }

    /// Groups that were removed and whose members are not all known to be gone.
    pub fn removed(&self) -> &BTreeMap<GroupId, RemovedGroup> {
        &self.removed
    }

    /// The nodes that may hold members, by zone.
    pub fn active_nodes(&self) -> BTreeMap<&str, Vec<NodeId>> {
        let mut zones = BTreeMap::<&str, Vec<NodeId>>::new();
        for (node, entry) in self.nodes.iter().filter(|(_, entry)| entry.active) {
            zones.entry(entry.zone.as_str()).or_default().push(*node);
        }
        zones
    }

    /// The nodes that do not answer, and since when; each is purged when that has gone on for the failure window.
    pub fn suspects(&self) -> &BTreeMap<NodeId, Suspicion> {
        &self.suspects
    }

    /// The newest life of each node that keeps a directory: no process in an older one is taken in again, and so none that
    /// has a copy of the directory. Those of nodes that are gone are kept too, up to as many as can be listed.
    pub fn lives(&self) -> &BTreeMap<NodeId, Life> {
        &self.lives
    }

    /// The share of a node, as a multiple of what a node of weight 1 gets.
    pub fn weight(&self, name: &str) -> u32 {
        self.weights.get(name).copied().unwrap_or(1)
    }

    /// The zones that a group is pinned to; `None` where its members may be anywhere.
    pub fn pinned(&self, name: &GroupName) -> Option<&BTreeSet<String>> {
        self.pins.get(name)
    }

    /// The nodes that should hold the members of a group with this name, the preferred leader first.
    pub fn desired(&self, name: &GroupName, replicas: u32) -> Vec<NodeId> {
        let zones = self.pinned(name);
        let places = self.places().filter(|place| zones.is_none_or(|zones| zones.contains(place.zone)));
        place(places, name.as_str(), replicas as usize)
    }

    /// The nodes that should hold the members of the cluster group itself.
    pub fn desired_of_cluster_group(&self) -> Vec<NodeId> {
        place(self.places(), CLUSTER_GROUP_NAME, self.cluster_members_max as usize)
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let active = self.nodes.iter().filter(|(_, entry)| entry.active);
        active.map(|(node, entry)| Place {
            node: *node,
            name: &entry.name,
            zone: &entry.zone,
            weight: self.weight(&entry.name),
        })
    }
}

impl Data for ClusterState {
    const NAME: &'static str = "raft-fleet.cluster";
    type Command = ClusterCommand;
    type Reply = ClusterReply;
    type Query = ClusterQuery;
    type Answer = ClusterAnswer;

    fn command(&mut self, context: &CommandContext, command: ClusterCommand) -> ClusterReply {
        self.apply(context.now_ms, command)
    }

    fn query(&self, query: ClusterQuery) -> ClusterAnswer {
        match query {
            ClusterQuery::Since { revision } if revision == self.revision => ClusterAnswer::Unchanged,
            ClusterQuery::Since { .. } => ClusterAnswer::State(Box::new(self.clone())),
            ClusterQuery::Missing { groups } => {
                let listed: BTreeSet<GroupId> = self.groups.values().map(|entry| entry.id).collect();
                ClusterAnswer::Missing(groups.into_iter().filter(|id| !listed.contains(id)).collect())
            }
            ClusterQuery::Group { name } => ClusterAnswer::Group(self.groups.get(&name).cloned()),
        }
    }
}

impl From<NodeInfo> for (NodeId, NodeEntry) {
    fn from(info: NodeInfo) -> Self {
        let NodeInfo { node, name, zone, address } = info;
        (node, NodeEntry { name, zone, address, active: true })
    }
}

#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;
