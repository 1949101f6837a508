#![doc = include_str!("../README.md")]

mod cluster_state;
#[cfg(test)]
mod golden;
mod group_name;
mod node_info;
mod placement;

pub use rafted_value;

pub use self::cluster_state::{
    CLUSTER_GROUP, ClusterAnswer, ClusterCommand, ClusterQuery, ClusterRefusal, ClusterReply, ClusterState,
    FIRST_GROUP, GROUPS_MAX, GroupEntry, GroupState, NODES_MAX, NodeEntry, RemovedGroup,
};
pub use self::group_name::{GroupName, NAME_BYTES_MAX, NameError};
pub use self::node_info::NodeInfo;
pub use self::placement::{Place, place};
