#![doc = include_str!("../README.md")]

mod adjust;
mod cluster_state;
mod formation;
#[cfg(test)]
mod golden;
mod group_name;
mod node_info;
mod placement;

pub use rafted_value;

pub use self::adjust::{Step, plan};
pub use self::cluster_state::{
    CLUSTER_GROUP, ClusterAnswer, ClusterCommand, ClusterQuery, ClusterRefusal, ClusterReply, ClusterState,
    FIRST_GROUP, GROUPS_MAX, GroupEntry, GroupState, NODES_MAX, NodeEntry, RemovedGroup,
};
pub use self::formation::{
    ActivateReply, Formation, FormationAction, FormationConfig, FormationOutcome, FoundingRecord, Hello,
    HelloReply, ProposeReply, RenounceReply, Standing,
};
pub use self::group_name::{GroupName, NAME_BYTES_MAX, NameError};
pub use self::node_info::NodeInfo;
pub use self::placement::{Place, place};
