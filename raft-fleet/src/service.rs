//! What a node answers to other nodes and to clients.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rafted_value::transport::{Handler, Reply};
use rafted_value::{GroupError, NodeId, encode};

use crate::cluster_state::{ClusterCommand, ClusterRefusal, ClusterReply, ClusterState};
use crate::core::{Core, Member, decode};
use crate::inspect::own_reports;
use crate::node_info::NodeInfo;
use crate::wire::{FleetReply, FleetRequest, JoinReply, ViewReply};

/// Requests that need waiting and that one node carries out at a time.
const TASKS_MAX: usize = 64;

/// Members that one answer tells of at most, so that it fits a message.
const REPORTS_MAX: u32 = 2048;

/// The fleet's service on a full node.
pub(crate) struct FleetService {
    /// Weak, because the transport keeps its handlers, and the core keeps the transport.
    core: Weak<Core>,
    tasks: Arc<AtomicUsize>,
}

impl FleetService {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::downgrade(core), tasks: Arc::default() })
    }

    /// Answers when the future is done; too many at a time are dropped, which tells their callers at once.
    fn answer_later(
        &self,
        core: &Core,
        reply: Reply,
        answer: impl Future<Output = FleetReply> + Send + 'static,
    ) {
        if self.tasks.fetch_add(1, Ordering::Relaxed) >= TASKS_MAX {
            self.tasks.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let tasks = Arc::clone(&self.tasks);
        let task = async move {
            let answer = answer.await;
            tasks.fetch_sub(1, Ordering::Relaxed);
            send(reply, &answer);
        };
        core.env.spawn("fleet answer", Box::pin(task));
    }
}

impl Handler for FleetService {
    fn on_cast(&self, from: NodeId, _: Bytes) {
        tracing::debug!(%from, "a cast to a service that takes none");
    }

    fn on_call(&self, from: NodeId, payload: Bytes, reply: Reply) {
        // A fleet that was shut down answers nothing, which to its callers is what a dead node does.
        let Some(core) = self.core.upgrade().filter(|core| !core.is_closed()) else { return };
        let Some(member) = &core.member else { return };
        core.note_heard(from);
        let request = match decode::<FleetRequest>(&payload) {
            Ok(request) => request,
            Err(reason) => return send(reply, &FleetReply::Malformed(reason)),
        };
        match request {
            FleetRequest::Join { node, cluster } => {
                if node.node != from {
                    return send(
                        reply,
                        &FleetReply::Malformed(format!("node {from} says that it is {}", node.node)),
                    );
                }
                let core_of_task = Arc::clone(&core);
                self.answer_later(&core, reply, async move {
                    FleetReply::Join(take_in(&core_of_task, ClusterCommand::Join { node, cluster }).await)
                });
            }
            // Its members are not read from the disk yet: it is silent, and not without any.
            FleetRequest::Members { .. } if core.host.get().is_none() => (),
            FleetRequest::Members { after, limit } => {
                let core_of_task = Arc::clone(&core);
                self.answer_later(&core, reply, async move {
                    let reports = own_reports(&core_of_task, after, limit.min(REPORTS_MAX)).await;
                    FleetReply::Members(reports)
                });
            }
            FleetRequest::ForgetMember { group, member } => {
                let core_of_task = Arc::clone(&core);
                self.answer_later(&core, reply, async move {
                    let Some(host) = core_of_task.host.get() else { return no_host() };
                    tracing::warn!(%group, %member, %from, "a member is forgotten by force at an operator's wish");
                    let forgotten = host.force_remove_member(group, member).await;
                    FleetReply::Forgotten(match forgotten {
                        // It was forgotten before.
                        Err(GroupError::NotMember { removed: true, .. }) => Ok(()),
                        other => other.map_err(|error| error.to_string()),
                    })
                });
            }
            request => send(reply, &answer(&core, member, from, request)),
        }
    }
}

/// Answers what needs no waiting.
fn answer(core: &Core, member: &Member, from: NodeId, request: FleetRequest) -> FleetReply {
    let now = core.env.now();
    match request {
        FleetRequest::Hello(hello) if hello.info.node != from || hello.info.validate().is_err() => {
            FleetReply::Malformed(format!("a hello of node {from} in the name of {}", hello.info.node))
        }
        FleetRequest::Hello(hello) => {
            let NodeInfo { node, address, .. } = &hello.info;
            if takes_address(&core.views.current().state, *node) {
                core.env.transport().set_address(*node, address);
            }
            FleetReply::Hello(member.formation.lock().on_hello(now, hello))
        }
        FleetRequest::Propose(record) => FleetReply::Propose(member.formation.lock().on_propose(now, record)),
        FleetRequest::Activate(record) => {
            let reply = member.formation.lock().on_activate(record);
            member.formed.notify_one();
            FleetReply::Activate(reply)
        }
        FleetRequest::Renounce(cluster) => FleetReply::Renounce(member.formation.lock().on_renounce(cluster)),
        FleetRequest::View { revision } => {
            let state = core.views.current().state.clone();
            FleetReply::View(match state.cluster() {
                None => ViewReply::Unformed,
                Some(_) if state.revision() <= revision => ViewReply::Unchanged,
                Some(_) => ViewReply::State(Box::new((*state).clone())),
            })
        }
        FleetRequest::Ping => FleetReply::Done,
        FleetRequest::NotFounded { group } => FleetReply::NotFounded(member.why_not_founded(group)),
        FleetRequest::Refresh { revision } => {
            if core.views.current().state.revision() < revision {
                core.views.refresh_soon();
            }
            FleetReply::Done
        }
        FleetRequest::Join { .. } | FleetRequest::Members { .. } | FleetRequest::ForgetMember { .. } => {
            FleetReply::Malformed("what needs waiting, in the wrong place".into())
        }
    }
}

/// Whether an address that a node says it has is to be kept, which is for good: of whoever looks for a cluster together with
/// this node, and later of those that are listed. Others come through their own connections, and under ever other ids
/// they would be a number without bound.
fn takes_address(state: &ClusterState, node: NodeId) -> bool {
    state.cluster().is_none() || state.nodes().contains_key(&node)
}

/// Has the cluster list a node.
async fn take_in(core: &Core, join: ClusterCommand) -> JoinReply {
    let options = &core.config.call;
    match core.change_cluster(&join, options).await {
        Ok(ClusterReply::Refused(refusal @ ClusterRefusal::NotFormed)) => {
            JoinReply::Retry(refusal.to_string())
        }
        Ok(ClusterReply::Refused(refusal)) => JoinReply::Refused(refusal),
        Ok(_) => match core.refresh_latest(options.timeout).await {
            Ok(()) => JoinReply::Joined(Box::new((*core.views.current().state).clone())),
            Err(error) => JoinReply::Retry(error.to_string()),
        },
        Err(error) => JoinReply::Retry(error.to_string()),
    }
}

fn no_host() -> FleetReply {
    FleetReply::Forgotten(Err("this node is not part of a cluster yet".into()))
}

fn send(reply: Reply, answer: &FleetReply) {
    reply.send(encode(answer));
}
