//! For operators: what does not work, what is on its way, and how to go on without nodes that will never come back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rafted_value::env::{sleep, timeout};
use rafted_value::{GroupId, MemberId, NodeId};

use super::Fleet;
use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterRefusal, ClusterReply};
use crate::error::FleetError;
use crate::group_name::GroupName;
use crate::inspect::{GroupRemoval, Inspection, LeaderlessGroup, Move, Removal, RemovalPlan, find_leader};
use crate::wire::{FleetReply, FleetRequest};

/// How often it is looked whether the cluster is whole.
const WHOLE_POLL: Duration = Duration::from_millis(200);

impl Fleet {
    /// The groups in use that nobody leads, the cluster's own first, with what their members say. It asks all nodes, and
    /// works without the cluster group, from the view that this node has.
    ///
    /// A group between two leaders may be among them: whoever acts on it should look twice.
    pub async fn find_groups_without_leader(&self) -> Vec<LeaderlessGroup> {
        let inspection = Inspection::gather(&self.core).await;
        inspection.leaderless(&self.cluster())
    }

    /// The node that leads a group with a majority behind it; `None` where nobody does, or it has no members yet. It asks
    /// the nodes that should hold the group, where [`cached_leader`](Self::cached_leader) only remembers.
    ///
    /// # Errors
    ///
    /// [`FleetError::NoSuchGroup`] if the cluster, as far as this node can learn, does not know the name.
    pub async fn whereis_leader(&self, name: &GroupName) -> Result<Option<NodeId>, FleetError> {
        if !self.cluster().groups().contains_key(name) {
            // It may have been added a moment ago; where the cluster group does not answer, the view has the last word.
            drop(self.core.refresh_latest(self.core.config.call.timeout).await);
        }
        let cluster = self.cluster();
        let entry =
            cluster.groups().get(name).ok_or_else(|| FleetError::NoSuchGroup { name: name.clone() })?;
        let nodes = cluster.desired(name, entry.replicas);
        Ok(find_leader(&self.core, entry.id, &nodes).await.map(|leader| leader.node))
    }

    /// The groups of the cluster and how many members each should have, as the cluster group knows them at this moment.
    ///
    /// # Errors
    ///
    /// When the cluster group does not answer.
    pub async fn consensus_groups(&self) -> Result<BTreeMap<GroupName, u32>, FleetError> {
        self.core.refresh_latest(self.core.config.call.timeout).await?;
        let cluster = self.cluster();
        Ok(cluster.groups().iter().map(|(name, entry)| (name.clone(), entry.replicas)).collect())
    }

    /// The members that are not where they should be yet, and how far they have come; empty when all is done. It asks all
    /// nodes; groups without a leader are not among them.
    pub async fn moves(&self) -> Vec<Move> {
        let inspection = Inspection::gather(&self.core).await;
        inspection.moves(&self.core.views.current())
    }

    /// Waits until the cluster bears the loss of any one node without losing anything: every group has a leader and all the
    /// members that it should have on the nodes that there are, each of them near and up to date. Whoever stops node after
    /// node waits for this in between; a node that has just started again is part of the cluster before it holds its
    /// members. It asks all nodes, five times a second.
    ///
    /// # Errors
    ///
    /// [`FleetError::Timeout`] after `limit`, with what was missing last.
    pub async fn wait_until_whole(&self, limit: Duration) -> Result<(), FleetError> {
        let (core, mut lack) = (&self.core, "an answer of the cluster's own group".to_owned());
        let whole = timeout(core.env.as_ref(), limit, async {
            loop {
                match core.refresh_latest(core.config.call.timeout).await {
                    Ok(()) => match Inspection::gather(core).await.lack(&core.views.current()) {
                        None => return,
                        Some(missing) => lack = missing.to_string(),
                    },
                    Err(error) => lack = error.to_string(),
                }
                sleep(core.env.as_ref(), WHOLE_POLL).await;
            }
        });
        let whole = whole.await;
        whole.ok_or_else(|| {
            let what = format!("the wait for the whole cluster, where {lack},");
            FleetError::Timeout { what, limit }
        })
    }

    /// What it takes to go on without nodes that will never come back, and what would be lost. Nothing is changed; it is
    /// for a person to read, who then calls [`remove_dead_members`](Self::remove_dead_members).
    ///
    /// Nodes that are given up together belong into one plan: a group that has lost two of three members goes on only
    /// without both.
    ///
    /// It is made from the view that this node has. Where that comes from members of the cluster's own group that were started
    /// again without a leader, the last changes may be missing in it: where groups are still without a leader when a plan was
    /// carried out, make another one for the same nodes.
    pub async fn plan_removal(&self, nodes: &[NodeId]) -> RemovalPlan {
        let inspection = Inspection::gather(&self.core).await;
        inspection.plan_removal(&self.cluster(), &nodes.iter().copied().collect())
    }

    /// Carries a plan out: the nodes are listed no more, so that leaders replace the members there as usual; in groups that
    /// have lost their majority those that are left forget the others **by force** first.
    ///
    /// The caller must be sure that the nodes are dead and will not come back with what they held: where such a node lives
    /// on, cut off together with enough others to lead, there are two groups of the same name from then on. Every step can
    /// be taken again after an error.
    ///
    /// # Errors
    ///
    /// [`FleetError::NodeAlive`], before anything is done, if one of the nodes answers; [`FleetError::Removal`] says for how
    /// many groups it was not done; when the cluster group does not answer.
    pub async fn remove_dead_members(&self, plan: &RemovalPlan) -> Result<(), FleetError> {
        for node in &plan.nodes {
            let limit = self.core.config.call.attempt_timeout;
            if *node == self.core.node || self.core.ask(*node, &FleetRequest::Ping, limit).await.is_ok() {
                return Err(FleetError::NodeAlive(*node));
            }
        }
        let mut failures = Vec::new();
        for removal in plan.groups.iter().filter(is_cluster_group) {
            failures.extend(self.carry_out(removal).await.err());
        }
        for node in &plan.nodes {
            self.give_up(*node, &plan.nodes).await?;
        }
        self.core.refresh_latest(self.core.config.call.timeout).await?;
        let view = self.core.views.current();
        // One that was being founded begins anew by itself, under another id.
        let others = plan.groups.iter().filter(|removal| !is_cluster_group(removal));
        for removal in others.filter(|removal| view.lists(removal.group)) {
            failures.extend(self.carry_out(removal).await.err());
        }
        match failures.first() {
            None => Ok(()),
            Some(first) => Err(FleetError::Removal {
                done: plan.groups.len() - failures.len(),
                failed: failures.len(),
                first: first.clone(),
            }),
        }
    }

    async fn carry_out(&self, removal: &GroupRemoval) -> Result<(), String> {
        let GroupRemoval { group, members, .. } = removal;
        match &removal.how {
            // Once the nodes are listed no more, their members are replaced as usual.
            Removal::ByLeader { .. } | Removal::NotYet { .. } => Ok(()),
            Removal::Nobody => Err(removal.to_string()),
            Removal::ByForce { survivors, .. } => {
                for node in survivors {
                    for member in members {
                        self.forget(*node, *group, *member).await?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn forget(&self, node: NodeId, group: GroupId, member: MemberId) -> Result<(), String> {
        let request = FleetRequest::ForgetMember { group, member };
        let result = match self.core.ask(node, &request, self.core.config.call.timeout).await {
            Ok(FleetReply::Forgotten(result)) => result,
            Ok(other) => Err(format!("it answered {other:?}")),
            Err(error) => Err(error.to_string()),
        };
        result
            .map_err(|error| format!("node {node} does not forget member {member} of group {group}: {error}"))
    }

    /// Has the cluster list a node no more.
    async fn give_up(&self, node: NodeId, dead: &[NodeId]) -> Result<(), FleetError> {
        let dead: BTreeSet<&NodeId> = dead.iter().collect();
        let cluster = self.cluster();
        let mut living = cluster.nodes().keys().filter(|node| !dead.contains(node));
        // A client speaks in the name of a node that is listed.
        let by =
            if cluster.nodes().contains_key(&self.core.node) { Some(&self.core.node) } else { living.next() };
        let Some(by) = by.copied() else { return Err(FleetError::NoActiveNode) };
        let purge = ClusterCommand::Purge { node, by };
        match self.core.change_cluster(&purge, &self.core.config.call).await? {
            // It was purged before.
            ClusterReply::Refused(ClusterRefusal::NoSuchNode(unknown)) if unknown == node => Ok(()),
            ClusterReply::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }
}

fn is_cluster_group(removal: &&GroupRemoval) -> bool {
    removal.group == CLUSTER_GROUP
}
