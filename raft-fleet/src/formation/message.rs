//! What unformed nodes say to each other; sent, so variants are only ever added at the end.

use rafted_value::transport::ClusterId;
use rafted_value::{GroupConfig, NodeId};
use serde::{Deserialize, Serialize};

use crate::node_info::NodeInfo;

/// The birth certificate of a cluster: who founds it, and with which settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FoundingRecord {
    /// The cluster's id, drawn at random by the proposer; no two records have the same.
    pub cluster: ClusterId,
    /// The founding nodes in the order of their ids; the first is the proposer.
    pub nodes: Vec<NodeInfo>,
    /// Members of the cluster group, at most.
    pub cluster_members_max: u32,
    /// The settings of the cluster group.
    pub config: GroupConfig,
}

impl FoundingRecord {
    /// The node that proposed it, and that alone may activate it first.
    pub fn proposer(&self) -> Option<&NodeInfo> {
        self.nodes.first()
    }

    /// Whether this very life of a node is listed.
    pub fn lists(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|info| info.node == node)
    }

    /// How many nodes are a majority of the list.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}

/// Asked of whoever answers at a known address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Who asks.
    pub info: NodeInfo,
    /// Addresses that the asker knows.
    pub addresses: Vec<String>,
    /// The record that the asker has granted, if any; only its proposer has something to say about it.
    pub granted: Option<ClusterId>,
}

/// The answer to a [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelloReply {
    /// Who answers.
    pub info: NodeInfo,
    /// Addresses that the answerer knows.
    pub addresses: Vec<String>,
    /// Whom the answerer has seen lately.
    pub sees: Vec<NodeId>,
    /// How far the answerer has come.
    pub standing: Standing,
    /// Whether the record that the asker granted is one that the answerer will never activate; it means something
    /// only when the answerer is that record's proposer.
    pub abandoned: bool,
}

/// How far a node has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// It belongs to no cluster.
    Unformed,
    /// It has activated this record.
    Founded(Box<FoundingRecord>),
    /// It has joined this cluster.
    Member(ClusterId),
}

/// The answer to the proposal of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProposeReply {
    /// The node has granted this record, and grants no other.
    Granted,
    /// The node will not grant it.
    Denied,
}

/// The answer to the activation of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ActivateReply {
    /// The node has activated the record, now or before.
    Activated,
    /// The node never will.
    Refused,
}

/// The answer to the question whether a record whose proposer is gone is dead. Whoever answers anything but
/// `Activated` will never activate it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenounceReply {
    /// The record can never be activated: this node has not granted it, or has proof.
    Dead,
    /// This node had granted the record and has not activated it.
    Renounced,
    /// This node has activated the record.
    Activated(Box<FoundingRecord>),
    /// This node cannot tell.
    Unavailable,
}
