#![doc = include_str!("../README.md")]

mod adjust;
mod background;
#[cfg(test)]
mod blank_status;
mod call;
mod cluster_state;
mod config;
mod config_maker;
mod contacts;
mod core;
mod error;
mod fleet;
mod formation;
#[cfg(test)]
mod golden;
mod group_name;
mod inspect;
mod keepsakes;
mod life;
mod membership;
mod node_info;
mod note;
mod placement;
mod service;
mod view;
mod wire;

pub use rafted_value;
pub use rafted_value::{
    Command, CommandContext, CommandError, Data, Durability, Freshness, GroupConfig, GroupId, GroupStatus,
    HostConfig, MemberId, NodeId, NotApplied, QueryError, RawData, Refused, Registry, RestoreError, Unknown,
    encode,
};

pub use self::adjust::{Step, plan};
pub use self::call::BegunCommand;
pub use self::cluster_state::{
    CLUSTER_GROUP, CLUSTER_STATE_BYTES_MAX, ClusterAnswer, ClusterCommand, ClusterQuery, ClusterRefusal,
    ClusterReply, ClusterState, FIRST_GROUP, GROUPS_MAX, GroupEntry, GroupState, KeptGroup, NODES_MAX,
    NodeEntry, PINS_MAX, RemovedGroup, Suspicion,
};
pub use self::config::{CallOptions, CommandNumber, FleetConfig};
pub use self::config_maker::GroupConfigMaker;
pub use self::error::FleetError;
pub use self::fleet::{DrainStatus, Fleet, Presence};
pub use self::formation::{
    ActivateReply, Formation, FormationAction, FormationConfig, FormationOutcome, FoundingRecord, Hello,
    HelloReply, ProposeReply, RenounceReply, Standing,
};
pub use self::group_name::{GroupName, NAME_BYTES_MAX, NameError};
pub use self::inspect::{
    GroupRemoval, LeaderlessGroup, MemberReport, Move, MoveKind, Removal, RemovalPlan, ReportedMember,
};
pub use self::life::Life;
pub use self::node_info::NodeInfo;
pub use self::placement::{Place, WEIGHT_MAX, place};
