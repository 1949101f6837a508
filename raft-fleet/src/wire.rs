//! What the fleet's nodes and clients say to each other; variants are only ever added at the end.

use rafted_value::transport::{ClusterId, ServiceId};
use rafted_value::{GroupId, MemberId};
use serde::{Deserialize, Serialize};

use crate::cluster_state::{ClusterRefusal, ClusterState};
use crate::formation::{ActivateReply, FoundingRecord, Hello, HelloReply, ProposeReply, RenounceReply};
use crate::inspect::MemberReport;
use crate::node_info::NodeInfo;

/// The service of the fleet on every node.
pub(crate) const FLEET_SERVICE: ServiceId = ServiceId(16);

/// What is asked of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum FleetRequest {
    Hello(Hello),
    Propose(FoundingRecord),
    Activate(FoundingRecord),
    Renounce(ClusterId),
    /// Take this node into the cluster.
    Join {
        node: NodeInfo,
        cluster: ClusterId,
    },
    /// The newest cluster state that the node knows, unless it is of this revision.
    View {
        revision: u64,
    },
    /// Do you live?
    Ping,
    /// The cluster state has reached this revision: look at it soon.
    Refresh {
        revision: u64,
    },
    /// What the members on the node say of themselves, in the order of their groups.
    Members {
        /// Only those of later groups.
        after: Option<GroupId>,
        /// So many at most.
        limit: u32,
    },
    /// Have the member on the node forget this one, with no regard to what others know.
    ForgetMember {
        group: GroupId,
        member: MemberId,
    },
    /// Why the node, which was to found this group, could not.
    NotFounded {
        group: GroupId,
    },
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum FleetReply {
    Hello(HelloReply),
    Propose(ProposeReply),
    Activate(ActivateReply),
    Renounce(RenounceReply),
    Join(JoinReply),
    View(ViewReply),
    Done,
    /// The request does not decode, or makes no sense from this peer.
    Malformed(String),
    /// What members say of themselves; fewer than the limit are the last ones.
    Members(Vec<MemberReport>),
    /// A member was forgotten, or the reason why not.
    Forgotten(Result<(), String>),
    /// Why the group could not be founded, if that was so.
    NotFounded(Option<String>),
}

/// Whether a node was taken in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum JoinReply {
    /// It is listed in this state.
    Joined(Box<ClusterState>),
    /// It never will be, as it is.
    Refused(ClusterRefusal),
    /// Nobody knows yet: try again.
    Retry(String),
}

/// The cluster state as a node knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ViewReply {
    /// The node knows no newer one.
    Unchanged,
    /// A newer one.
    State(Box<ClusterState>),
    /// The node belongs to no cluster yet.
    Unformed,
}

#[cfg(test)]
mod tests {
    use rafted_value::{GroupConfig, NodeId, encode};

    use crate::inspect::ReportedMember;

    use super::*;

    #[test]
    fn the_sent_bytes_never_change() {
        let node = NodeInfo { node: NodeId(1), name: "n".into(), zone: "z".into(), address: "a:1".into() };
        let record = FoundingRecord {
            cluster: ClusterId(5),
            nodes: vec![node.clone()],
            cluster_members_max: 7,
            config: GroupConfig::default(),
        };
        let hello = Hello { info: node.clone(), addresses: vec![], granted: None };
        let join = FleetRequest::Join { node, cluster: ClusterId(5) };
        let joined = FleetReply::Join(JoinReply::Joined(Box::default()));
        let (group, member) = (GroupId(300), MemberId(7));
        let reported =
            ReportedMember { member, node: NodeId(1), voter: true, matched: Some(5), heard: Some(true) };
        let report = MemberReport {
            node: NodeId(1),
            group,
            member,
            leads: true,
            leader: Some(NodeId(1)),
            term: 2,
            commit_index: 5,
            last_index: 6,
            fenced: None,
            members: vec![reported],
        };
        crate::golden::check(
            "wire",
            &[
                ("hello", &encode(&FleetRequest::Hello(hello))),
                ("propose", &encode(&FleetRequest::Propose(record.clone()))),
                ("activate", &encode(&FleetRequest::Activate(record))),
                ("renounce", &encode(&FleetRequest::Renounce(ClusterId(5)))),
                ("join", &encode(&join)),
                ("view", &encode(&FleetRequest::View { revision: 300 })),
                ("ping", &encode(&FleetRequest::Ping)),
                ("refresh", &encode(&FleetRequest::Refresh { revision: 300 })),
                ("granted", &encode(&FleetReply::Propose(ProposeReply::Granted))),
                ("activated", &encode(&FleetReply::Activate(ActivateReply::Activated))),
                ("dead", &encode(&FleetReply::Renounce(RenounceReply::Dead))),
                ("joined", &encode(&joined)),
                ("refused", &encode(&FleetReply::Join(JoinReply::Refused(ClusterRefusal::NotFormed)))),
                ("retry", &encode(&FleetReply::Join(JoinReply::Retry("r".into())))),
                ("unchanged", &encode(&FleetReply::View(ViewReply::Unchanged))),
                ("unformed", &encode(&FleetReply::View(ViewReply::Unformed))),
                ("done", &encode(&FleetReply::Done)),
                ("malformed", &encode(&FleetReply::Malformed("m".into()))),
                ("members", &encode(&FleetRequest::Members { after: Some(group), limit: 300 })),
                ("forget_member", &encode(&FleetRequest::ForgetMember { group, member })),
                ("reports", &encode(&FleetReply::Members(vec![report]))),
                ("forgotten", &encode(&FleetReply::Forgotten(Err("e".into())))),
                ("not_founded", &encode(&FleetRequest::NotFounded { group })),
                ("why_not", &encode(&FleetReply::NotFounded(Some("e".into())))),
            ],
        );
    }

    #[test]
    fn garbage_is_an_error_value() {
        for length in 0..64 {
            let garbage: Vec<u8> = (0..length).map(|byte| (byte * 37 + 200) as u8).collect();
            drop(postcard::from_bytes::<FleetRequest>(&garbage));
        }
        assert!(postcard::from_bytes::<FleetRequest>(&[0xff; 40]).is_err());
        assert!(postcard::from_bytes::<FleetRequest>(&[]).is_err());
    }
}
