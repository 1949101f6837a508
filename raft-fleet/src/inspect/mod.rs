//! What all members of all groups say of themselves, gathered from all nodes, and what follows from it.

mod leaderless;
mod moves;
mod removal;
mod report;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::future::join_all;
use rafted_value::{GroupId, NodeId};

pub use self::leaderless::LeaderlessGroup;
pub use self::moves::{Move, MoveKind};
pub use self::removal::{GroupRemoval, Removal, RemovalPlan};
pub use self::report::{MemberReport, ReportedMember};
use crate::cluster_state::{CLUSTER_GROUP, ClusterState, GroupState};
use crate::core::Core;
use crate::group_name::GroupName;
use crate::wire::{FleetReply, FleetRequest};

/// Members that one answer tells of.
const PAGE: u32 = 1024;

/// Answers of one node that are asked for, at most: as many as the groups of a cluster need.
const PAGES_MAX: usize = crate::cluster_state::GROUPS_MAX / PAGE as usize + 1;

/// What the nodes of a cluster have answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Inspection {
    /// What the members of each group say.
    pub(crate) reports: BTreeMap<GroupId, Vec<MemberReport>>,
    /// The nodes that did not answer.
    pub(crate) silent: BTreeSet<NodeId>,
}

impl Inspection {
    /// Asks all listed nodes at once.
    pub(crate) async fn gather(core: &Core) -> Self {
        let view = core.views.current();
        let nodes: Vec<NodeId> = view.state.nodes().keys().copied().collect();
        let answers = join_all(nodes.iter().map(|node| ask_for_all(core, *node))).await;
        let mut inspection = Self::default();
        for (node, answer) in nodes.into_iter().zip(answers) {
            match answer {
                None => _ = inspection.silent.insert(node),
                Some(reports) => reports
                    .into_iter()
                    .for_each(|report| inspection.reports.entry(report.group).or_default().push(report)),
            }
        }
        inspection
    }

    /// What the members of a group say.
    pub(crate) fn of(&self, group: GroupId) -> &[MemberReport] {
        self.reports.get(&group).map_or(&[], Vec::as_slice)
    }

    /// The member that leads a group with a majority behind it.
    pub(crate) fn leader(&self, group: GroupId) -> Option<&MemberReport> {
        self.leader_without(group, &self.silent)
    }

    /// The same where some nodes are known to be dead.
    pub(crate) fn leader_without(&self, group: GroupId, dead: &BTreeSet<NodeId>) -> Option<&MemberReport> {
        let leading = self.of(group).iter().filter(|report| report.leads_a_majority_without(dead));
        leading.max_by_key(|report| report.term)
    }
}

/// The groups in use, the cluster's own first.
fn in_use(state: &ClusterState) -> impl Iterator<Item = (GroupId, Option<GroupName>)> {
    let running = state.groups().iter().filter(|(_, entry)| entry.state == GroupState::Running);
    [(CLUSTER_GROUP, None)].into_iter().chain(running.map(|(name, entry)| (entry.id, Some(name.clone()))))
}

/// Writes of which group a line speaks; only the cluster's own has no name.
fn write_group(f: &mut fmt::Formatter<'_>, name: Option<&GroupName>) -> fmt::Result {
    match name {
        Some(name) => write!(f, "group {name:?}"),
        None => f.write_str("the cluster's own group"),
    }
}

/// The member that leads a group with a majority behind it, as the members on these nodes say, or on one that they name.
pub(crate) async fn find_leader(core: &Core, group: GroupId, nodes: &[NodeId]) -> Option<MemberReport> {
    let mut asked = BTreeSet::new();
    let mut to_ask: BTreeSet<NodeId> = nodes.iter().copied().collect();
    while !to_ask.is_empty() {
        let reports = join_all(to_ask.iter().map(|node| ask_for_one(core, *node, group))).await;
        asked.append(&mut to_ask);
        let reports: Vec<MemberReport> = reports.into_iter().flatten().collect();
        let none = BTreeSet::new();
        let leading = reports.iter().filter(|report| report.leads_a_majority_without(&none));
        if let Some(leader) = leading.max_by_key(|report| report.term) {
            return Some(leader.clone());
        }
        to_ask =
            reports.iter().filter_map(|report| report.leader).filter(|node| !asked.contains(node)).collect();
    }
    None
}

async fn ask_for_one(core: &Core, node: NodeId, group: GroupId) -> Option<MemberReport> {
    let after = Some(GroupId(group.0.checked_sub(1)?));
    let reports = if node == core.node {
        own_reports(core, after, 1).await
    } else {
        let request = FleetRequest::Members { after, limit: 1 };
        match core.ask(node, &request, core.config.call.attempt_timeout).await {
            Ok(FleetReply::Members(reports)) => reports,
            Ok(_) | Err(_) => return None,
        }
    };
    reports.into_iter().find(|report| report.group == group)
}

/// What the members on this node say.
pub(crate) async fn own_reports(core: &Core, after: Option<GroupId>, limit: u32) -> Vec<MemberReport> {
    let Some(host) = core.host.get() else { return Vec::new() };
    let statuses = host.statuses().await.into_iter();
    let later = statuses.filter(|status| after.is_none_or(|after| status.group > after));
    later.take(limit as usize).map(|status| MemberReport::new(core.node, status)).collect()
}

/// What all members on a node say; `None` where it does not answer.
async fn ask_for_all(core: &Core, node: NodeId) -> Option<Vec<MemberReport>> {
    if node == core.node {
        return Some(own_reports(core, None, u32::MAX).await);
    }
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let request =
            FleetRequest::Members { after: all.last().map(|last: &MemberReport| last.group), limit: PAGE };
        let limit = core.config.call.attempt_timeout.saturating_mul(2);
        let Ok(FleetReply::Members(page)) = core.ask(node, &request, limit).await else { return None };
        let last = page.len() < PAGE as usize;
        all.extend(page);
        if last {
            break;
        }
    }
    Some(all)
}
