//! Carries out what [`Formation`](super::Formation) wants: hellos, proposals, and in the end the cluster group.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rafted_value::env::{sleep, timeout};
use rafted_value::transport::ClusterId;
use rafted_value::{Data, Found, GroupError, NodeId};

use super::{FormationAction, FormationOutcome, FoundingRecord};
use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterReply, ClusterState};
use crate::core::{Core, Member};
use crate::error::FleetError;
use crate::wire::{FleetReply, FleetRequest, JoinReply};

/// How often a node that waits for others says so.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// For how long a proposer pushes the news that its record is activated; who misses it learns it by a hello.
const ACTIVATION_PUSHES_MAX: u32 = 50;

/// Steps of the formation that one round takes without waiting, when each is answered at once.
const STEPS_MAX: u32 = 8;

/// Makes this node part of a cluster: a founder of a new one, or a member of one that is there.
pub(crate) async fn form_or_join(core: &Arc<Core>, member: &Member) -> Result<(), FleetError> {
    let mut reported = None;
    loop {
        say_hello(core, member).await;
        let mut rounds = 0..STEPS_MAX;
        while rounds.next().is_some() && perform(core, member).await {}
        let now = core.env.now();
        let outcome = member.formation.lock().outcome(now);
        match outcome {
            Some(FormationOutcome::Founded(record)) => return found(core, member, &record).await,
            Some(FormationOutcome::Join { cluster, node }) => {
                if join(core, member, cluster, node).await? {
                    return Ok(());
                }
            }
            None => {
                if reported.is_none_or(|at| now.since(at) >= REPORT_INTERVAL) {
                    reported = Some(now);
                    let seen = member.formation.lock().seen(now).len() + 1;
                    let expected = core.config.bootstrap_expect;
                    tracing::info!(node = %core.node, seen, expected, "waiting for nodes to form a cluster");
                }
            }
        }
        let deadline = core.jittered(core.config.hello_interval);
        let wait = deadline.since(core.env.now());
        // Whether the time is up or an activation has come, the next round is due.
        let _ = timeout(core.env.as_ref(), wait, member.formed.notified()).await;
    }
}

/// Says hello to every known address, all at once.
async fn say_hello(core: &Core, member: &Member) {
    let addresses = member.formation.lock().addresses();
    join_all(addresses.iter().map(|address| greet(core, member, address))).await;
}

async fn greet(core: &Core, member: &Member, address: &str) {
    let limit = core.config.hello_timeout;
    let transport = core.env.transport();
    let peer = match transport.discover(address, limit).await {
        Ok(peer) if peer.node != core.node => peer,
        Ok(_) => return member.formation.lock().on_nobody(address),
        Err(error) => {
            tracing::debug!(address, %error, "nobody answers");
            return member.formation.lock().on_nobody(address);
        }
    };
    transport.set_address(peer.node, address);
    let hello = {
        let mut formation = member.formation.lock();
        formation.on_discovered(address, peer.node);
        formation.hello()
    };
    let reply = core.ask(peer.node, &FleetRequest::Hello(hello.clone()), limit).await;
    let mut formation = member.formation.lock();
    match reply {
        Ok(FleetReply::Hello(reply)) if reply.info.node == peer.node => {
            formation.on_hello_reply(core.env.now(), address, &hello, reply);
        }
        Ok(other) => {
            tracing::debug!(address, ?other, "a hello was answered strangely");
            formation.on_nobody(address);
        }
        Err(error) => {
            tracing::debug!(address, %error, "a hello was not answered");
            formation.on_nobody(address);
        }
    }
}

/// Does what is due; says whether an answer has come, so that more may be.
async fn perform(core: &Core, member: &Member) -> bool {
    let random = (u128::from(core.env.random_u64()) << 64) | u128::from(core.env.random_u64());
    let actions = member.formation.lock().poll(core.env.now(), random);
    let answered = join_all(actions.into_iter().map(|action| act(core, member, action))).await;
    answered.into_iter().any(|answered| answered)
}

async fn act(core: &Core, member: &Member, action: FormationAction) -> bool {
    let (to, request) = match &action {
        FormationAction::Propose { to, record } => (*to, FleetRequest::Propose(record.clone())),
        FormationAction::Activate { to, record } => (*to, FleetRequest::Activate(record.clone())),
        FormationAction::Renounce { to, cluster } => (*to, FleetRequest::Renounce(*cluster)),
    };
    let reply = match core.ask(to, &request, core.config.hello_timeout).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::debug!(node = %to, %error, "a step of the formation was not answered");
            return false;
        }
    };
    let mut formation = member.formation.lock();
    match (action, reply) {
        (FormationAction::Propose { to, record }, FleetReply::Propose(reply)) => {
            formation.on_propose_reply(to, record.cluster, reply);
        }
        (FormationAction::Activate { to, .. }, FleetReply::Activate(_)) => formation.on_activate_reply(to),
        (FormationAction::Renounce { to, cluster }, FleetReply::Renounce(reply)) => {
            // It is asked again in the next round only: an answer may be that there is none yet.
            formation.on_renounce_reply(to, cluster, reply);
            return false;
        }
        (action, reply) => {
            tracing::debug!(?action, ?reply, "a step of the formation was answered strangely");
            return false;
        }
    }
    true
}

/// Founds the cluster group together with the other listed nodes, and has it list them.
async fn found(core: &Arc<Core>, member: &Member, record: &FoundingRecord) -> Result<(), FleetError> {
    tracing::info!(node = %core.node, cluster = %record.cluster, nodes = record.nodes.len(), "founding a cluster");
    let transport = core.env.transport();
    transport.set_cluster(record.cluster);
    for info in record.nodes.iter().filter(|info| info.node != core.node) {
        transport.set_address(info.node, &info.address);
    }
    let nodes: Vec<NodeId> = record.nodes.iter().map(|info| info.node).collect();
    core.views.set_contacts(nodes.clone());
    let host = core.host.as_ref().expect("a full node has a host");
    let data = ClusterState::NAME.to_owned();
    let founded =
        host.found(Found { group: CLUSTER_GROUP, data, config: record.config.clone(), nodes }).await;
    match founded {
        Ok(_) | Err(GroupError::AlreadyExists(_)) => (),
        Err(error) => return Err(FleetError::Founding(error.to_string())),
    }
    let pusher = Arc::clone(core);
    core.run("fleet activation", Box::pin(async move { push_activation(&pusher).await }));
    let form = ClusterCommand::Form {
        cluster: record.cluster,
        nodes: record.nodes.clone(),
        cluster_members_max: record.cluster_members_max,
    };
    loop {
        match core.change_cluster(&form, &core.config.call).await {
            Ok(ClusterReply::Refused(refusal)) => return Err(refusal.into()),
            Ok(_) => break,
            Err(error) => tracing::info!(node = %core.node, %error, "the cluster group does not work yet"),
        }
        sleep(core.env.as_ref(), core.config.call.retry_interval).await;
    }
    be_listed(core, member, record.cluster).await
}

/// Tells listed nodes that the record is activated, until all know or are gone.
async fn push_activation(core: &Core) {
    let Some(member) = &core.member else { return };
    for _ in 0..ACTIVATION_PUSHES_MAX {
        let random = u128::from(core.env.random_u64());
        let actions = member.formation.lock().poll(core.env.now(), random);
        if actions.is_empty() {
            return;
        }
        join_all(actions.into_iter().map(|action| act(core, member, action))).await;
        core.env.sleep_until(core.jittered(core.config.hello_interval)).await;
    }
}

/// Asks a node of a cluster to be taken in; says whether it was.
async fn join(core: &Core, member: &Member, cluster: ClusterId, node: NodeId) -> Result<bool, FleetError> {
    if !member.formation.lock().begin_join(cluster) {
        return Ok(false);
    }
    tracing::info!(node = %core.node, %cluster, through = %node, "joining a cluster");
    let request = FleetRequest::Join { node: member.info.clone(), cluster };
    // Whoever is asked takes two calls at most.
    let limit = core.config.call.timeout.saturating_mul(2);
    match core.ask(node, &request, limit).await {
        Ok(FleetReply::Join(JoinReply::Joined(state))) if state.cluster() == Some(cluster) => {
            member.formation.lock().joined(cluster);
            core.env.transport().set_cluster(cluster);
            core.views.set_contacts(vec![node]);
            core.learn(*state);
            be_listed(core, member, cluster).await?;
            return Ok(true);
        }
        Ok(FleetReply::Join(JoinReply::Refused(refusal))) => {
            member.formation.lock().join_failed();
            return Err(refusal.into());
        }
        Ok(other) => tracing::info!(through = %node, ?other, "not taken in yet"),
        Err(error) => tracing::info!(through = %node, %error, "not taken in yet"),
    }
    member.formation.lock().join_failed();
    Ok(false)
}

/// Waits until the view lists this node.
async fn be_listed(core: &Core, member: &Member, cluster: ClusterId) -> Result<(), FleetError> {
    loop {
        if core.views.current().state.nodes().contains_key(&core.node) {
            return Ok(());
        }
        match core.refresh_latest(core.config.call.timeout).await {
            Ok(()) if core.views.current().state.nodes().contains_key(&core.node) => return Ok(()),
            Ok(()) => {
                // It was purged between then and now.
                let join = ClusterCommand::Join { node: member.info.clone(), cluster };
                if let Ok(ClusterReply::Refused(refusal)) =
                    core.change_cluster(&join, &core.config.call).await
                {
                    return Err(refusal.into());
                }
            }
            Err(error) => tracing::info!(node = %core.node, %error, "the cluster group does not answer yet"),
        }
        sleep(core.env.as_ref(), core.config.call.retry_interval).await;
    }
}
