//! What changes the cluster state and what asks about it; sent and stored, so variants are only ever added at the end.

use std::collections::BTreeSet;

use rafted_value::transport::ClusterId;
use rafted_value::{GroupConfig, GroupId, NodeId};
use serde::{Deserialize, Serialize};

use super::{ClusterState, GROUPS_MAX, GroupEntry, NODES_MAX, PINS_MAX};
use crate::group_name::{GroupName, NameError};
use crate::life::Life;
use crate::node_info::NodeInfo;
use crate::placement::WEIGHT_MAX;

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
    /// A node that holds no members, or is not listed, wants to hold some.
    Activate {
        /// The node.
        node: NodeInfo,
        /// The cluster it means.
        cluster: ClusterId,
    },
    /// A node does not answer; from now on everybody knows.
    Suspect {
        /// The silent node.
        node: NodeId,
        /// Who noticed.
        by: NodeId,
        /// For how long it has been silent, in ms.
        silent_ms: u64,
    },
    /// A suspected node was heard of.
    Hear {
        /// The node.
        node: NodeId,
        /// Who has heard of it; perhaps itself.
        by: NodeId,
    },
    /// A node that has been suspected for too long is listed no more.
    PurgeSilent {
        /// The silent node.
        node: NodeId,
        /// Who asks for it.
        by: NodeId,
        /// For how long it must have been silent, in ms.
        window_ms: u64,
    },
    /// A node is to get a larger or smaller share.
    Weigh {
        /// The node.
        node: NodeId,
        /// Its share, as a multiple of what a node of weight 1 gets.
        weight: u32,
    },
    /// The members of a group are to be in these zones only.
    Pin {
        /// Its name.
        name: GroupName,
        /// The zones; none for all.
        zones: BTreeSet<String>,
    },
    /// Adds a group with members in these zones only.
    AddPinnedGroup {
        /// Its name.
        name: GroupName,
        /// The name of its data type.
        data: String,
        /// How many members it should have.
        replicas: u32,
        /// Its settings.
        config: GroupConfig,
        /// The zones; none for all.
        zones: BTreeSet<String>,
    },
    /// A node has written down what its member of a removed group had come to.
    Keep {
        /// The node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// How new it is, as [`Keepsake::rank`](rafted_value::Keepsake::rank) says.
        rank: u64,
    },
    /// Removes a group, if there is one of this name, and whatever is kept of removed ones of this name.
    DeleteGroup {
        /// The name.
        name: GroupName,
    },
    /// The same as `Join` for a node with a directory, in a life that must follow the newest one that is known of it.
    JoinInLife {
        /// The node.
        node: NodeInfo,
        /// The cluster it means to join.
        cluster: ClusterId,
        /// The newest life of it that is known, as far as it knows itself.
        from: Option<Life>,
        /// Its present life.
        life: Life,
    },
    /// A group cannot be founded by the node that is to; nothing happens to one that is founded elsewhere by now, or runs.
    GiveUpFounding {
        /// Its name.
        name: GroupName,
        /// The id that it was to be founded under.
        id: GroupId,
        /// Who cannot.
        node: NodeId,
        /// Whether nobody could, so that the group is removed; else another node is to.
        for_good: bool,
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
    /// The node is to hold members already.
    #[error("node {0} is active already")]
    NotInactive(NodeId),
    /// The node is to hold no members already.
    #[error("node {0} is inactive already")]
    Inactive(NodeId),
    /// Who does not answer itself cannot speak against others.
    #[error("node {0} is itself suspected to be gone")]
    Suspected(NodeId),
    /// The node was heard of lately.
    #[error("node {node} has been silent for {silent_ms} ms only, and is purged after {window_ms} ms")]
    NotSilent {
        /// The node.
        node: NodeId,
        /// For how long it has been suspected.
        silent_ms: u64,
        /// For how long it would have to be.
        window_ms: u64,
    },
    /// A share that no node can have.
    #[error("a weight of {0} is not in the range from 1 to {WEIGHT_MAX}")]
    Weight(u32),
    /// More zones than a pin can name.
    #[error("a group cannot be pinned to {0} zones; the limit is {PINS_MAX}")]
    TooManyZones(usize),
    /// The values of a removed group of this name are kept, with another type of data.
    #[error(
        "a removed group named {name:?} has left values of type {data:?}; delete it before another one is added"
    )]
    KeptOther {
        /// The name.
        name: GroupName,
        /// What is kept.
        data: String,
    },
    /// The values of a removed group of this name are kept, and too few of the nodes that keep them are here.
    #[error(
        "a removed group named {name:?} has left its values on {holders} nodes, of which {active} are active: wait for \
         them, or delete it to begin without"
    )]
    KeptElsewhere {
        /// The name.
        name: GroupName,
        /// How many nodes keep them.
        holders: u32,
        /// How many of those are active.
        active: u32,
    },
    /// Another process has become the node's newest life.
    #[error(
        "life {asked} of node {node} does not follow the newest one that is known, which is life {known}"
    )]
    OtherLife {
        /// The node.
        node: NodeId,
        /// The number of the life that was to be taken in.
        asked: u64,
        /// The number of the newest life that is known; 0 for none.
        known: u64,
    },
    /// The state of the cluster would be too large for a message.
    #[error(
        "the state of the cluster could come to have {bytes} bytes, over the limit of {limit_bytes}; groups that were \
         removed count until their nodes have cleaned up, and what is kept of them until it is deleted"
    )]
    TooManyBytes {
        /// What it could come to have.
        bytes: u64,
        /// What it may.
        limit_bytes: u64,
    },
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
