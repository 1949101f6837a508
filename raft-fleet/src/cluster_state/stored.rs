//! The cluster state as it is stored and sent; a change of its shape is a new variant at the end.

use std::collections::{BTreeMap, BTreeSet};

use rafted_value::transport::ClusterId;
use rafted_value::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

use super::{ClusterState, GroupEntry, KeptGroup, NodeEntry, RemovedGroup, Suspicion};
use crate::group_name::GroupName;
use crate::life::Life;

/// The shapes that the state has had. A state that needs no more than an older shape is written in that one, so that
/// nodes of that version can read it.
#[derive(Serialize, Deserialize)]
pub(super) enum Stored {
    V1(First),
    /// With suspects, weights and pins.
    V2(First, Second),
    /// With what removed groups have left.
    V3(First, Second, BTreeMap<GroupName, KeptGroup>),
    /// With the lives of nodes that keep directories.
    V4(First, Second, BTreeMap<GroupName, KeptGroup>, BTreeMap<NodeId, Life>),
}

#[derive(Serialize, Deserialize)]
pub(super) struct First {
    cluster: Option<ClusterId>,
    revision: u64,
    cluster_members_max: u32,
    nodes: BTreeMap<NodeId, NodeEntry>,
    groups: BTreeMap<GroupName, GroupEntry>,
    removed: BTreeMap<GroupId, RemovedGroup>,
    next_group: u64,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Second {
    suspects: BTreeMap<NodeId, Suspicion>,
    weights: BTreeMap<String, u32>,
    pins: BTreeMap<GroupName, BTreeSet<String>>,
}

impl From<Stored> for ClusterState {
    fn from(stored: Stored) -> Self {
        let (first, second, kept, lives) = match stored {
            Stored::V1(first) => (first, Second::default(), BTreeMap::new(), BTreeMap::new()),
            Stored::V2(first, second) => (first, second, BTreeMap::new(), BTreeMap::new()),
            Stored::V3(first, second, kept) => (first, second, kept, BTreeMap::new()),
            Stored::V4(first, second, kept, lives) => (first, second, kept, lives),
        };
        let First { cluster, revision, cluster_members_max, nodes, groups, removed, next_group } = first;
        let Second { suspects, weights, pins } = second;
        Self {
            cluster,
            revision,
            cluster_members_max,
            nodes,
            groups,
            removed,
            next_group,
            suspects,
            weights,
            pins,
            kept,
            lives,
        }
    }
}

impl From<ClusterState> for Stored {
    fn from(state: ClusterState) -> Self {
        let ClusterState {
            cluster,
            revision,
            cluster_members_max,
            nodes,
            groups,
            removed,
            next_group,
            suspects,
            weights,
            pins,
            kept,
            lives,
        } = state;
        let first = First { cluster, revision, cluster_members_max, nodes, groups, removed, next_group };
        let second = Second { suspects, weights, pins };
        match (second == Second::default(), kept.is_empty(), lives.is_empty()) {
            (_, _, false) => Self::V4(first, second, kept, lives),
            (_, false, true) => Self::V3(first, second, kept),
            (false, true, true) => Self::V2(first, second),
            (true, true, true) => Self::V1(first),
        }
    }
}
