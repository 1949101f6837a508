//! How unformed nodes become one cluster, and never two: a pure state machine, time an argument.
//!
//! Nodes say hello to every address they know. When a node sees `bootstrap_expect` unformed nodes that see it too, and
//! has the lowest id among them, it proposes a founding record that lists exactly those. A node grants one record,
//! and only when all listed nodes have granted it does the proposer activate it and tell the others. So two records
//! that share a node are never both activated.
//!
//! A grant is given back only on proof that its record can never be activated by a majority of its list:
//! - its proposer says that it has abandoned it, or
//! - a listed node has not granted it and never will, or
//! - its proposer's life is over (another life answers at its address), and all listed nodes that are not gone in the
//!   same way have promised never to activate it, so many that the rest is no majority.
//!
//! What is left to the operator: two disjoint sets of `bootstrap_expect` nodes that do not see each other form two
//! clusters, so `bootstrap_expect` should be the number of nodes that are started at first. And a node whose grant
//! cannot be given back, because too many listed nodes died at the worst moment, waits until it is restarted.

mod machine;
mod message;
mod patience;
pub(crate) mod shell;
mod sightings;

use std::time::Duration;

use rafted_value::{GroupConfig, NodeId};

pub use self::machine::Formation;
pub use self::message::{
    ActivateReply, FoundingRecord, Hello, HelloReply, ProposeReply, RenounceReply, Standing,
};
pub(crate) use self::sightings::{Sight, Sightings};
use rafted_value::transport::ClusterId;

/// The settings of [`Formation`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormationConfig {
    /// How many nodes must see each other before they found a cluster.
    pub bootstrap_expect: usize,
    /// Addresses to begin with; the own address may be among them.
    pub seeds: Vec<String>,
    /// Members of the cluster group, at most.
    pub cluster_members_max: u32,
    /// The settings of the cluster group.
    pub cluster_group: GroupConfig,
    /// A node that has not answered for this long is not seen any more.
    pub seen_max: Duration,
    /// A proposal that not all have granted by then is abandoned.
    pub proposal_max: Duration,
    /// After a proposal was abandoned the next one waits for a random part of this.
    pub backoff_max: Duration,
    /// A proposer's life must have been seen to be over for this long before its record is renounced.
    pub renounce_after: Duration,
    /// Addresses that are remembered, at most.
    pub addresses_max: usize,
    /// Records that are refused for ever and remembered, at most.
    pub refused_max: usize,
    /// The only cluster that the node may join, where that is known.
    pub cluster: Option<ClusterId>,
}

/// What the shell is to send; each answer comes back through the method of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FormationAction {
    /// Ask a node to grant a record.
    Propose {
        /// The node.
        to: NodeId,
        /// The record.
        record: FoundingRecord,
    },
    /// Tell a node that a record is activated.
    Activate {
        /// The node.
        to: NodeId,
        /// The record.
        record: FoundingRecord,
    },
    /// Ask a node never to activate a record.
    Renounce {
        /// The node.
        to: NodeId,
        /// The record.
        cluster: ClusterId,
    },
}

/// What has become of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FormationOutcome {
    /// It is a founding node of a cluster.
    Founded(FoundingRecord),
    /// A cluster exists, and this node of it was seen.
    Join {
        /// The cluster.
        cluster: ClusterId,
        /// A node of it.
        node: NodeId,
    },
    /// The nodes at the seeds are of more than one cluster, and nobody said which one is meant: two of them, by their
    /// addresses.
    SeveralClusters([(String, ClusterId); 2]),
}

#[cfg(test)]
mod tests;
