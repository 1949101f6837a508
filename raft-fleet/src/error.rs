//! What can go wrong with a fleet as a whole; commands and queries have their own errors.

use std::time::Duration;

use rafted_value::transport::ClusterId;
use rafted_value::{CommandError, NodeId, NotApplied, QueryError};

use crate::cluster_state::ClusterRefusal;
use crate::group_name::{GroupName, NameError};

/// Why a node could not become part of a cluster, or an operation on groups failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// A setting cannot work.
    #[error("the configuration cannot work: {0}")]
    InvalidConfig(String),
    /// The node's directory cannot be used; nothing in it was overwritten.
    #[error("the data directory: {0}")]
    Storage(String),
    /// The node's directory is that of a node of another cluster; nothing in it was overwritten.
    #[error("the data directory {directory} belongs to a node of cluster {found}, not of {expected}")]
    OtherCluster {
        /// The directory.
        directory: String,
        /// The cluster it belongs to.
        found: ClusterId,
        /// The one that the node was to be part of, as its settings or its seeds say.
        expected: ClusterId,
    },
    /// The node's directory is a copy of another one, or an old backup of it, that has been started since. The node itself
    /// goes on with that one; here the directory can only be emptied, which makes another node of it.
    #[error(
        "the data directory {directory} is a copy or an old backup of that of node {node}: it had the node up to life \
         {last}, and the cluster has life {known} from another copy; start that one, or empty this directory to have a \
         new node"
    )]
    Copied {
        /// The directory.
        directory: String,
        /// The node whose it is.
        node: NodeId,
        /// The number of the newest life of the node that had this directory; 0 for none.
        last: u64,
        /// The number of the newest life that the cluster knows.
        known: u64,
    },
    /// A node that may be part of one cluster only has found another one.
    #[error("this node may be part of cluster {expected} only, and found {found}")]
    WrongCluster {
        /// The one it found.
        found: ClusterId,
        /// The one that its settings name.
        expected: ClusterId,
    },
    /// The seeds are nodes of more than one cluster, and nothing says which one is meant.
    #[error(
        "the seeds are of more than one cluster: {} is of {}, and {} of {}; name those of one only, or set `host.cluster`",
        seen[0].0, seen[0].1, seen[1].0, seen[1].1
    )]
    SeveralClusters {
        /// Two of the nodes, by their addresses, and their clusters.
        seen: [(String, ClusterId); 2],
    },
    /// A name, a zone or an address cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A group of this name exists already; it may still be on its way to serve.
    #[error("a group named {name:?} exists already")]
    AlreadyAdded {
        /// The name.
        name: GroupName,
    },
    /// A group of this name was removed, and members of it may still exist.
    #[error("members of a removed group named {name:?} may still exist on {pending} nodes")]
    CleanupOngoing {
        /// The name.
        name: GroupName,
        /// On how many nodes.
        pending: u32,
    },
    /// No node of the cluster is active.
    #[error("no node is active")]
    NoActiveNode,
    /// No group has this name.
    #[error("no group named {name:?} exists")]
    NoSuchGroup {
        /// The name.
        name: GroupName,
    },
    /// The group was removed again, because the node that was to found it cannot: most often it does not know the data
    /// type, which should be registered on all nodes.
    #[error("node {node} cannot found the group named {name:?}: {reason}")]
    NotFounded {
        /// The name.
        name: GroupName,
        /// The node.
        node: NodeId,
        /// Why not, as the node says.
        reason: String,
    },
    /// This node does not know the data type.
    #[error("no data type named {data:?} is registered")]
    NoSuchData {
        /// The name of the data type.
        data: String,
    },
    /// This node is to hold members already.
    #[error("this node is active already")]
    NotInactive,
    /// This node is to hold no members already.
    #[error("this node is inactive already")]
    Inactive,
    /// A node that is to be given up answers.
    #[error("node {0} answers: it is not dead")]
    NodeAlive(NodeId),
    /// Not all of a plan to remove dead members could be carried out.
    #[error("{done} groups are rid of the dead members, and {failed} are not; the first: {first}")]
    Removal {
        /// Groups where it was done.
        done: usize,
        /// Groups where it was not.
        failed: usize,
        /// What happened at the first of these.
        first: String,
    },
    /// A client hosts nothing.
    #[error("this is a client, and no node of the cluster")]
    NotANode,
    /// The cluster refused for another reason.
    #[error("the cluster refused: {0}")]
    Refused(ClusterRefusal),
    /// It did not happen in time; it may still.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The cluster group has no leader within reach: surely nothing was changed.
    #[error("the cluster group has no leader within reach: {0}")]
    NoLeader(String),
    /// The cluster state could not be changed.
    #[error("the cluster group: {0}")]
    Command(CommandError),
    /// The cluster state could not be read.
    #[error("the cluster group: {0}")]
    Query(QueryError),
    /// No seed told the state of a cluster that it is part of.
    #[error("none of {seeds} seeds told the state of a cluster in {limit:?}: {seen}")]
    NoCluster {
        /// How many seeds were asked.
        seeds: usize,
        /// For how long.
        limit: Duration,
        /// What was there instead, for a person to read.
        seen: String,
    },
    /// A reply did not decode.
    #[error("a reply of the cluster group does not decode: {0}")]
    Malformed(String),
    /// The founding of the cluster group failed on this node.
    #[error("the cluster group cannot be founded here: {0}")]
    Founding(String),
    /// This node neither found a cluster nor formed one with others in time.
    #[error("this node did not become part of a cluster in {limit:?}: {seen}")]
    NotPartOfACluster {
        /// For how long it tried.
        limit: Duration,
        /// What it saw, for a person to read.
        seen: String,
    },
}

impl From<CommandError> for FleetError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotApplied(
                error @ (NotApplied::NotLeader { .. }
                | NotApplied::Unreachable(_)
                | NotApplied::NoSuchGroup(_)
                | NotApplied::ShuttingDown),
            ) => FleetError::NoLeader(error.to_string()),
            error => FleetError::Command(error),
        }
    }
}

impl From<QueryError> for FleetError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotLeader { .. }
            | QueryError::Unreachable(_)
            | QueryError::NoSuchGroup(_)
            | QueryError::ShuttingDown
            | QueryError::Timeout { .. } => FleetError::NoLeader(error.to_string()),
            error => FleetError::Query(error),
        }
    }
}

impl From<ClusterRefusal> for FleetError {
    fn from(refusal: ClusterRefusal) -> Self {
        match refusal {
            ClusterRefusal::AlreadyAdded(name) => FleetError::AlreadyAdded { name },
            ClusterRefusal::CleanupOngoing { name, pending } => FleetError::CleanupOngoing { name, pending },
            ClusterRefusal::NoActiveNode => FleetError::NoActiveNode,
            ClusterRefusal::NoSuchGroup(name) => FleetError::NoSuchGroup { name },
            ClusterRefusal::Name(error) => FleetError::Name(error),
            ClusterRefusal::NotInactive(_) => FleetError::NotInactive,
            ClusterRefusal::Inactive(_) => FleetError::Inactive,
            other => FleetError::Refused(other),
        }
    }
}
