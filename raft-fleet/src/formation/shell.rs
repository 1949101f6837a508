//! Carries out what [`Formation`](super::Formation) wants: hellos, proposals, and in the end the cluster group.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rafted_value::env::{sleep, timeout};
use rafted_value::transport::ClusterId;
use rafted_value::{Data, Found, GroupError, GroupStatus, NodeId};

use super::patience::Patience;
use super::{FormationAction, FormationOutcome, FoundingRecord, Sight, Standing};
use crate::background;
use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterRefusal, ClusterReply, ClusterState};
use crate::core::{Core, Member, other_cluster};
use crate::error::FleetError;
use crate::membership::Membership;
use crate::wire::{FleetReply, FleetRequest, JoinReply};

/// For how long a proposer pushes the news that its record is activated; who misses it learns it by a hello.
const ACTIVATION_PUSHES_MAX: u32 = 50;

/// Steps of the formation that one round takes without waiting, when each is answered at once.
const STEPS_MAX: u32 = 8;

/// Nodes that one which comes back asks at the same time, at most, before it opens its directory.
const LISTENED_MAX: usize = 16;

/// Makes this node part of a cluster: a founder of a new one, or a member of one that is there.
pub(crate) async fn form_or_join(core: &Arc<Core>, member: &Member) -> Result<(), FleetError> {
    let limit = core.config.formation_wait;
    if let Some(kept) = &member.kept {
        come_back(core, member, kept).await?;
        return take_part_again(core, member, kept, limit).await;
    }
    let mut patience = Patience::new(core.env.now(), limit, core.config.formation_report_interval);
    let expected = core.config.bootstrap_expect;
    tracing::info!(node = %core.node, expected, "looking for a cluster, or for nodes to form one");
    loop {
        say_hello(core, member).await;
        let mut rounds = 0..STEPS_MAX;
        while rounds.next().is_some() && perform(core, member).await {}
        let outcome = member.formation.lock().outcome(core.env.now());
        match outcome {
            Some(FormationOutcome::Founded(record)) => {
                return found(core, member, &record, &mut patience).await;
            }
            Some(FormationOutcome::SeveralClusters(seen)) => {
                return Err(FleetError::SeveralClusters { seen });
            }
            Some(FormationOutcome::Join { cluster, node })
                if join(core, member, cluster, node, &mut patience).await? =>
            {
                return Ok(());
            }
            _ => (),
        }
        let now = core.env.now();
        patience.look(now).tell(core.node, || {
            let obstacle = member.formation.lock().obstacle(now);
            format!("{obstacle}; {}", member.sightings.lock())
        })?;
        let deadline = core.jittered(core.config.hello_interval);
        let wait = deadline.since(core.env.now());
        // Whether the time is up or an activation has come, the next round is due.
        let _ = timeout(core.env.as_ref(), wait, member.formed.notified()).await;
    }
}

/// Opens what the node's directory keeps of the cluster that it remembers, and learns what the others say of that; nobody
/// needs to lead it.
pub(crate) async fn come_back(core: &Core, member: &Member, kept: &Membership) -> Result<(), FleetError> {
    tracing::info!(node = %core.node, cluster = %kept.cluster, "coming back to the cluster of the data directory");
    look_before_opening(core, member, kept.cluster).await?;
    core.env.transport().set_cluster(kept.cluster);
    let contacts = crate::contacts::load(&core.env).await;
    for (node, address) in &contacts {
        core.env.transport().set_address(*node, address);
    }
    core.views.remember_contacts(contacts.into_iter().map(|(node, _)| node).collect());
    background::find_contacts(core).await;
    listen_to_others(core).await;
    // What a copy holds must not be taken for the node's, so it is not even opened where any other node can tell.
    member.missing_in(&core.views.current().state, kept.cluster, &core.env)?;
    core.settle(member, kept.cluster, kept.record.clone()).await?;
    // It ends by itself, unless its disk is very slow.
    let _ = timeout(core.env.as_ref(), core.config.call.timeout, apply_what_is_kept(core)).await;
    core.refresh(1).await;
    Ok(())
}

/// Waits until the own member of the cluster group has applied all that its disk knows to be committed: before, it tells of a
/// cluster as old as its last snapshot.
async fn apply_what_is_kept(core: &Core) {
    let Some(host) = core.host.get() else { return };
    let behind = |status: &GroupStatus| status.fenced.is_none() && status.applied_index < status.commit_index;
    while host.status(CLUSTER_GROUP).await.as_ref().is_some_and(behind) {
        sleep(core.env.as_ref(), core.config.call.retry_interval).await;
    }
}

/// Takes part again in the cluster that the node's directory remembers, once that has a leader.
pub(crate) async fn take_part_again(
    core: &Arc<Core>,
    member: &Member,
    kept: &Membership,
    limit: Duration,
) -> Result<(), FleetError> {
    let mut patience = Patience::new(core.env.now(), limit, core.config.formation_report_interval);
    match &kept.record {
        // It may have died before the others had all that makes a founder.
        Some(record) => found(core, member, record, &mut patience).await,
        None => be_listed(core, member, kept.cluster, &mut patience).await,
    }
}

/// Whether the directory should be opened here: not if the nodes at all seeds but the own answer, and are of one other
/// cluster. As long as this node says of no cluster that it is its own, any node talks to it.
async fn look_before_opening(core: &Core, member: &Member, own: ClusterId) -> Result<(), FleetError> {
    let me = member.info();
    let others = core.config.seeds.iter().filter(|seed| **seed != me.address);
    let mut looks: FuturesUnordered<_> = others.map(|seed| look_at(core, member, seed)).collect();
    let mut other = None;
    while let Some(sight) = looks.next().await {
        match sight {
            Sight::Myself => (),
            Sight::Formed { cluster, .. } if cluster != own && other.is_none_or(|other| other == cluster) => {
                other = Some(cluster);
            }
            // Whatever the rest say, it may be a node of the own cluster that is not up yet.
            _ => return Ok(()),
        }
    }
    other.map_or(Ok(()), |expected| Err(other_cluster(&core.env, own, expected)))
}

/// A node whose directory is not open yet learns what the first of the others that answers knows of the cluster.
async fn listen_to_others(core: &Core) {
    let others = core.views.sources(core.node).into_iter().take(LISTENED_MAX);
    let mut answers: FuturesUnordered<_> =
        others.map(|node| core.refresh_from(node, core.config.hello_timeout)).collect();
    while answers.next().await == Some(false) {}
}

/// A node that came back from its disk learns where the others are now: from its own member, and from the seeds.
async fn look_around(core: &Core) {
    if core.env.disk().is_some() {
        background::find_contacts(core).await;
        core.refresh(1).await;
    }
}

/// Says hello to every known address, all at once.
async fn say_hello(core: &Core, member: &Member) {
    let addresses = member.formation.lock().addresses();
    join_all(addresses.iter().map(|address| greet(core, member, address))).await;
}

async fn greet(core: &Core, member: &Member, address: &str) {
    let sight = look_at(core, member, address).await;
    member.sightings.lock().note(address, sight);
}

/// Says hello at one address, and tells who is there.
async fn look_at(core: &Core, member: &Member, address: &str) -> Sight {
    let limit = core.config.hello_timeout;
    let transport = core.env.transport();
    let peer = match transport.discover(address, limit).await {
        Ok(peer) if peer.node != core.node => peer,
        Ok(_) => {
            member.formation.lock().on_nobody(address);
            return Sight::Myself;
        }
        Err(error) => {
            tracing::debug!(address, %error, "nobody answers");
            member.formation.lock().on_nobody(address);
            return Sight::nobody(error);
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
    let name = peer.name;
    match reply {
        Ok(FleetReply::Hello(reply)) if reply.info.node == peer.node => {
            let sight = match &reply.standing {
                Standing::Unformed => Sight::Unformed { name, sees_us: reply.sees.contains(&core.node) },
                Standing::Founded(record) => Sight::Formed { name, cluster: record.cluster },
                Standing::Member(cluster) => Sight::Formed { name, cluster: *cluster },
            };
            formation.on_hello_reply(core.env.now(), address, &hello, reply);
            sight
        }
        Ok(other) => {
            tracing::debug!(address, ?other, "a hello was answered strangely");
            formation.on_nobody(address);
            Sight::Strange { name, reason: "it answers what this version does not understand".into() }
        }
        Err(error) => {
            tracing::debug!(address, %error, "a hello was not answered");
            formation.on_nobody(address);
            Sight::Strange { name, reason: error.to_string() }
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
async fn found(
    core: &Arc<Core>,
    member: &Member,
    record: &FoundingRecord,
    patience: &mut Patience,
) -> Result<(), FleetError> {
    tracing::info!(node = %core.node, cluster = %record.cluster, nodes = record.nodes.len(), "founding a cluster");
    let transport = core.env.transport();
    transport.set_cluster(record.cluster);
    // Where they were when the cluster was founded: whoever comes back to it may know better by now.
    let (contacts, view) = (crate::contacts::load(&core.env).await, core.views.current());
    let is_known = |node: NodeId| {
        view.state.nodes().contains_key(&node) || contacts.iter().any(|(contact, _)| *contact == node)
    };
    for info in record.nodes.iter().filter(|info| info.node != core.node && !is_known(info.node)) {
        transport.set_address(info.node, &info.address);
    }
    let nodes: Vec<NodeId> = record.nodes.iter().map(|info| info.node).collect();
    core.views.set_contacts(nodes.clone());
    core.settle(member, record.cluster, Some(record.clone())).await?;
    let host = core.host.get().expect("a node of a cluster has a host");
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
            Err(error) => {
                tracing::debug!(node = %core.node, %error, "the cluster group does not work yet");
                patience.look(core.env.now()).tell(core.node, || {
                    let founders = record.nodes.iter().map(|info| info.name.as_str()).collect::<Vec<_>>();
                    format!("the cluster that {founders:?} found does not answer: {error}")
                })?;
                look_around(core).await;
            }
        }
        sleep(core.env.as_ref(), core.config.call.retry_interval).await;
    }
    be_listed(core, member, record.cluster, patience).await
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
async fn join(
    core: &Core,
    member: &Member,
    cluster: ClusterId,
    node: NodeId,
    patience: &mut Patience,
) -> Result<bool, FleetError> {
    if let Some(expected) = core.config.host.cluster.filter(|expected| *expected != cluster) {
        return Err(FleetError::WrongCluster { found: cluster, expected });
    }
    if !member.formation.lock().begin_join(cluster) {
        return Ok(false);
    }
    tracing::info!(node = %core.node, %cluster, through = %node, "joining a cluster");
    let request = FleetRequest::Join { node: member.info(), cluster };
    // Whoever is asked takes two calls at most.
    let limit = core.config.call.timeout.saturating_mul(2);
    match core.ask(node, &request, limit).await {
        Ok(FleetReply::Join(JoinReply::Joined(state))) if state.cluster() == Some(cluster) => {
            member.formation.lock().joined(cluster);
            core.env.transport().set_cluster(cluster);
            core.views.set_contacts(vec![node]);
            core.learn(*state);
            core.settle(member, cluster, None).await?;
            be_listed(core, member, cluster, patience).await?;
            return Ok(true);
        }
        Ok(FleetReply::Join(JoinReply::Refused(refusal))) => {
            tracing::warn!(node = %core.node, through = %node, %refusal, "the cluster does not take this node in");
            member.formation.lock().join_failed();
            return Err(refusal.into());
        }
        Ok(FleetReply::Join(JoinReply::Retry(reason))) => not_taken_in(member, node, reason),
        Ok(other) => not_taken_in(member, node, format!("it answered {other:?}")),
        Err(error) => not_taken_in(member, node, error.to_string()),
    }
    member.formation.lock().join_failed();
    Ok(false)
}

fn not_taken_in(member: &Member, node: NodeId, reason: String) {
    tracing::info!(through = %node, reason, "not taken in yet");
    member.sightings.lock().note(&format!("node {node}"), Sight::NotTakenIn { reason });
}

/// Waits until the view lists this node as it presents itself: at its address, in its zone, to hold members, and in its
/// present life.
async fn be_listed(
    core: &Core,
    member: &Member,
    cluster: ClusterId,
    patience: &mut Patience,
) -> Result<(), FleetError> {
    let missing = || member.missing_in(&core.views.current().state, cluster, &core.env);
    while missing()?.is_some() {
        match core.refresh_latest(core.config.call.timeout).await {
            Ok(()) => {
                // It begins a life, was purged between then and now, was drained, or has another address than before.
                let Some(join) = missing()? else { break };
                match core.change_cluster(&join, &core.config.call).await {
                    // The next look tells whether this is a copy.
                    Ok(ClusterReply::Refused(ClusterRefusal::OtherLife { .. })) | Err(_) => (),
                    Ok(ClusterReply::Refused(refusal)) => return Err(refusal.into()),
                    Ok(_) => continue,
                }
            }
            Err(error) => {
                tracing::debug!(node = %core.node, %error, "the cluster group does not answer yet");
                let seen = || format!("cluster {cluster} does not say that it lists this node: {error}");
                patience.look(core.env.now()).tell(core.node, seen)?;
                look_around(core).await;
            }
        }
        sleep(core.env.as_ref(), core.config.call.retry_interval).await;
    }
    member.keep_life(&core.views.current().state, &core.env).await
}
