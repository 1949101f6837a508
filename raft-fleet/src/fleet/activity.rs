//! Whether a node holds members, and how it is emptied before it stops.

use std::collections::BTreeMap;
use std::time::Duration;

use rafted_value::env::{sleep, timeout};
use rafted_value::{NodeId, Role};
use serde::{Deserialize, Serialize};

use super::Fleet;
use crate::cluster_state::{ClusterCommand, ClusterReply, Suspicion};
use crate::core::Member;
use crate::error::FleetError;

/// How often a node that waits until it is empty looks.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// What a node still holds on its way to be empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Whether the node is still to hold members; then it is not on its way.
    pub active: bool,
    /// Groups that are led here.
    pub leaders_left: usize,
    /// Members that are here, leaders included.
    pub members_left: usize,
}

impl DrainStatus {
    /// Whether the node can stop without anybody noticing.
    pub fn is_safe_to_stop(&self) -> bool {
        !self.active && self.members_left == 0
    }
}

/// What a fleet is to its cluster, as far as it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Presence {
    /// A node that holds members.
    Active,
    /// A node that is to hold no members: it was deactivated. It can do all that a client can.
    Inactive,
    /// A node that was purged because it was silent for too long.
    Purged,
    /// A client.
    Client,
}

impl Fleet {
    /// Has this node hold members from now on, in this zone: again after [`deactivate`](Self::deactivate), or after it was
    /// purged. A node that starts is active at once.
    ///
    /// # Errors
    ///
    /// [`FleetError::NotInactive`] if it is active; [`FleetError::NotANode`] in a client; when the zone cannot be, the
    /// cluster refuses, or the cluster group does not answer.
    pub async fn activate(&self, zone: &str) -> Result<(), FleetError> {
        let member = self.member()?;
        let mut info = member.info();
        zone.clone_into(&mut info.zone);
        info.validate()?;
        let Some(cluster) = self.cluster().cluster() else { return Err(FleetError::NotANode) };
        self.change(&ClusterCommand::Activate { node: info, cluster }).await?;
        member.move_to(zone);
        member.set_wants_members(true);
        self.core.refresh_latest(self.core.config.call.timeout).await
    }

    /// Has this node hold no members any more. It returns at once; leaderships are handed over first, then members are
    /// moved to other nodes. [`drain_status`](Self::drain_status) tells how far that has come, and
    /// [`drained`](Self::drained) waits until the node is empty. Until then the node must not stop; meanwhile, and after,
    /// it can do all that a client can.
    ///
    /// Where no active node is left to take the members, they stay, and the node is never empty.
    ///
    /// # Errors
    ///
    /// [`FleetError::Inactive`] if it is inactive; [`FleetError::NotANode`] in a client; when the cluster group does not
    /// answer.
    pub async fn deactivate(&self) -> Result<(), FleetError> {
        let member = self.member()?;
        self.change(&ClusterCommand::Leave { node: self.core.node }).await?;
        member.set_wants_members(false);
        self.core.refresh_latest(self.core.config.call.timeout).await
    }

    /// What this node still holds.
    ///
    /// # Errors
    ///
    /// [`FleetError::NotANode`] in a client.
    pub async fn drain_status(&self) -> Result<DrainStatus, FleetError> {
        let host = self.host().ok_or(FleetError::NotANode)?;
        let statuses = host.statuses().await;
        let leaders_left = statuses.iter().filter(|status| status.role == Role::Leader).count();
        let active = self.presence() == Presence::Active;
        Ok(DrainStatus { active, leaders_left, members_left: statuses.len() })
    }

    /// Waits until this node, which was deactivated, is empty and can stop without anybody noticing.
    ///
    /// # Errors
    ///
    /// [`FleetError::NotInactive`] if it is active; [`FleetError::NotANode`] in a client; [`FleetError::Timeout`] after
    /// `limit`, with what is left.
    pub async fn drained(&self, limit: Duration) -> Result<(), FleetError> {
        let env = self.core.env.as_ref();
        let mut status = self.drain_status().await?;
        let empty = timeout(env, limit, async {
            loop {
                status = self.drain_status().await?;
                match status {
                    DrainStatus { active: true, .. } => return Err(FleetError::NotInactive),
                    status if status.is_safe_to_stop() => return Ok(()),
                    _ => sleep(env, DRAIN_POLL).await,
                }
            }
        });
        let empty = empty.await;
        let DrainStatus { leaders_left, members_left, .. } = status;
        empty.unwrap_or_else(|| {
            let what =
                format!("the drain of a node with {leaders_left} leaders and {members_left} members left");
            Err(FleetError::Timeout { what, limit })
        })
    }

    /// What this node or client is to its cluster, as far as it knows.
    pub fn presence(&self) -> Presence {
        match (&self.core.member, self.cluster().nodes().get(&self.core.node)) {
            (None, _) => Presence::Client,
            (Some(_), None) => Presence::Purged,
            (Some(_), Some(entry)) if entry.active => Presence::Active,
            (Some(_), Some(_)) => Presence::Inactive,
        }
    }

    /// The nodes that hold members, by zone, as the cluster group knows them at this moment.
    ///
    /// # Errors
    ///
    /// When the cluster group does not answer.
    pub async fn active_nodes(&self) -> Result<BTreeMap<String, Vec<NodeId>>, FleetError> {
        self.core.refresh_latest(self.core.config.call.timeout).await?;
        let cluster = self.cluster();
        Ok(cluster.active_nodes().into_iter().map(|(zone, nodes)| (zone.to_owned(), nodes)).collect())
    }

    /// The nodes that do not answer, and since when. Each is purged when that has gone on for the failure window; one
    /// that answers before is listed here no more.
    pub fn unreachable_nodes(&self) -> BTreeMap<NodeId, Suspicion> {
        self.cluster().suspects().clone()
    }

    /// Gives a node a larger or smaller share of members and leaders, as a multiple of what a node of weight 1 gets. The
    /// cluster remembers it for the node's name, until the node is purged.
    ///
    /// # Errors
    ///
    /// When the weight is not in the range from 1 to [`WEIGHT_MAX`](crate::WEIGHT_MAX), there is no such node, or the
    /// cluster group does not answer.
    pub async fn set_weight(&self, node: NodeId, weight: u32) -> Result<(), FleetError> {
        self.change(&ClusterCommand::Weigh { node, weight }).await
    }

    /// Changes the cluster state, where nothing but a refusal is of interest.
    pub(super) async fn change(&self, command: &ClusterCommand) -> Result<(), FleetError> {
        match self.core.change_cluster(command, &self.core.config.call).await? {
            ClusterReply::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    fn member(&self) -> Result<&Member, FleetError> {
        self.core.member.as_ref().ok_or(FleetError::NotANode)
    }
}
