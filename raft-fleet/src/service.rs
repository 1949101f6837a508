//! What a node answers to other nodes and to clients.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rafted_value::transport::{Handler, Reply};
use rafted_value::{NodeId, encode};

use crate::cluster_state::{ClusterCommand, ClusterRefusal, ClusterReply};
use crate::core::{Core, Member, decode};
use crate::node_info::NodeInfo;
use crate::wire::{FleetReply, FleetRequest, JoinReply, ViewReply};

/// Requests to join that one node carries out at a time.
const JOINS_MAX: usize = 64;

/// The fleet's service on a full node.
pub(crate) struct FleetService {
    /// Weak, because the transport keeps its handlers, and the core keeps the transport.
    core: Weak<Core>,
    joins: Arc<AtomicUsize>,
}

impl FleetService {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::downgrade(core), joins: Arc::default() })
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
                if self.joins.fetch_add(1, Ordering::Relaxed) >= JOINS_MAX {
                    self.joins.fetch_sub(1, Ordering::Relaxed);
                    return send(reply, &FleetReply::Join(JoinReply::Retry("too many nodes join".into())));
                }
                let (joins, core_of_task) = (Arc::clone(&self.joins), Arc::clone(&core));
                let join = async move {
                    let answer = take_in(&core_of_task, ClusterCommand::Join { node, cluster }).await;
                    joins.fetch_sub(1, Ordering::Relaxed);
                    send(reply, &FleetReply::Join(answer));
                };
                core.env.spawn("fleet join", Box::pin(join));
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
            core.env.transport().set_address(*node, address);
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
        FleetRequest::Refresh { revision } => {
            if core.views.current().state.revision() < revision {
                core.views.refresh_soon();
            }
            FleetReply::Done
        }
        FleetRequest::Join { .. } => FleetReply::Malformed("a join in the wrong place".into()),
    }
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

fn send(reply: Reply, answer: &FleetReply) {
    reply.send(encode(answer));
}
