//! What changes the cluster state and what asks about it; sent and stored, so variants are only ever added at the end.

use rafted_value::transport::ClusterId;
use rafted_value::{GroupConfig, GroupId, NodeId};
use serde::{Deserialize, Serialize};

use super::{ClusterState, GROUPS_MAX, GroupEntry, NODES_MAX};
use crate::group_name::{GroupName, NameError};
use crate::node_info::NodeInfo;

/// Changes the cluster state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClusterCommand {
    /// Lists the nodes that formed the cluster; only the first such command does anything.
    Form {
        /// The cluster's id.
        cluster: ClusterId,
        /// The nodes that founded it.
        nodes: Vec<NodeInfo>,
        /// Members of the cluster group, at most.
        cluster_members_max: u32,
    },
    /// A node wants to hold members, in a life that may be new.
    Join {
        /// The node.
        node: NodeInfo,
        /// The cluster it means to join; one that belonged to another is refused.
        cluster: ClusterId,
    },
    /// A node wants to hold no more members.
    Leave {
        /// The node.
        node: NodeId,
    },
    /// A node has been silent for too long.
    Purge {
        /// The silent node.
        node: NodeId,
        /// Who noticed; must be listed itself.
        by: NodeId,
    },
    /// Adds a group.
    AddGroup {
        /// Its name.
        name: GroupName,
        /// The name of its data type.
        data: String,
        /// How many members it should have.
        replicas: u32,
        /// Its settings.
        config: GroupConfig,
    },
    /// Removes a group and its data.
    RemoveGroup {
        /// Its name.
        name: GroupName,
    },
    /// A group that was being founded has all its members.
    GroupReady {
        /// Its name.
        name: GroupName,
        /// Its id.
        id: GroupId,
    },
    /// A node holds no members of these removed groups.
    CleanedUp {
        /// The node.
        node: NodeId,
        /// The groups.
        groups: Vec<GroupId>,
    },
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClusterReply {
    /// What was asked for holds now.
    Done,
    /// The node is listed; `superseded` was its former life.
    Joined {
        /// The former life of the node, which is listed no more.
        superseded: Option<NodeId>,
    },
    /// The group is listed.
    GroupAdded {
        /// Its id.
        id: GroupId,
        /// The node that founds it.
        founder: NodeId,
    },
    /// The group is listed no more.
    GroupRemoved {
        /// The id it had.
        id: GroupId,
    },
    /// Nothing has changed.
    Refused(ClusterRefusal),
}

/// Why a command changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClusterRefusal {
    /// The cluster has not been formed yet.
    #[error("the cluster is not formed yet")]
    NotFormed,
    /// The node belongs to another cluster.
    #[error("this is cluster {cluster}, not {asked}")]
    OtherCluster {
        /// This cluster.
        cluster: ClusterId,
        /// The one that the node meant.
        asked: ClusterId,
    },
    /// Another node, at another address, has this name.
    #[error(
        "the node name {name:?} is taken by node {node} at {address}; a node that moved is taken in under its new address \
         once its former life has been silent for the cluster's failure window"
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// Who has it.
        node: NodeId,
        /// Where that node is.
        address: String,
    },
    /// Another node, of another name, has this address.
    #[error("the address {address} is taken by node {node} named {name:?}")]
    DuplicateAddress {
        /// The address.
        address: String,
        /// Who has it.
        node: NodeId,
        /// The name of that node.
        name: String,
    },
    /// A name, a zone or an address cannot be.
    #[error("{0}")]
    Name(NameError),
    /// The cluster has as many nodes as it can have.
    #[error("the cluster has its limit of {NODES_MAX} nodes")]
    TooManyNodes,
    /// The cluster has as many groups as it can have.
    #[error("the cluster has its limit of {GROUPS_MAX} groups")]
    TooManyGroups,
    /// No such node is listed.
    #[error("no node {0} is listed")]
    NoSuchNode(NodeId),
    /// A group of this name exists.
    #[error("a group named {0:?} exists already")]
    AlreadyAdded(GroupName),
    /// A group of this name was removed, and members of it may still exist.
    #[error("members of a removed group named {name:?} may still exist on {pending} nodes")]
    CleanupOngoing {
        /// The name.
        name: GroupName,
        /// On how many nodes.
        pending: u32,
    },
    /// There is no node that could hold a member.
    #[error("no node is active")]
    NoActiveNode,
    /// No group has this name, or the one that has it has another id.
    #[error("no group named {0:?} exists")]
    NoSuchGroup(GroupName),
    /// A group without members.
    #[error("a group cannot have {0} replicas")]
    Replicas(u32),
}

/// Asks about the cluster state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClusterQuery {
    /// The whole state, unless it is still at this revision.
    Since {
        /// The revision that the caller has.
        revision: u64,
    },
    /// Which of these groups are not listed.
    Missing {
        /// The groups.
        groups: Vec<GroupId>,
    },
    /// One group.
    Group {
        /// Its name.
        name: GroupName,
    },
}

/// The answer to a [`ClusterQuery`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClusterAnswer {
    /// The caller has the newest revision that this member knows.
    Unchanged,
    /// The whole state.
    State(Box<ClusterState>),
    /// The groups that are not listed.
    Missing(Vec<GroupId>),
    /// The group, if it is listed.
    Group(Option<GroupEntry>),
}
