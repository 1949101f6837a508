//! How a node becomes part of a cluster, comes back to it, or connects to it as a client.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rafted_value::Registry;
use rafted_value::env::{Env, timeout};

use super::Fleet;
use crate::background;
use crate::cluster_state::ClusterState;
use crate::config::FleetConfig;
use crate::core::{Core, Member, open_host, other_cluster};
use crate::error::FleetError;
use crate::formation::shell::{come_back, form_or_join, take_part_again};
use crate::formation::{Formation, Sightings};
use crate::life::Lives;
use crate::membership::Membership;
use crate::node_info::NodeInfo;
use crate::service::FleetService;
use crate::wire::FLEET_SERVICE;

impl Fleet {
    /// Makes this node part of a cluster, found through the seeds or formed with other nodes; returns once the node is
    /// listed in the replicated cluster state. It waits for that at most `formation_wait`, and logs meanwhile what it
    /// sees.
    ///
    /// The node's name and address are those that the transport gives; `registry` holds the data types that the node
    /// can host, which should be the same on all nodes.
    ///
    /// Where `env` has a disk, the node keeps its groups there as their [`durability`](crate::GroupConfig::durability) says,
    /// and which cluster it belongs to: started again on that disk, under the id that
    /// [`node_on`](rafted_value::node_on) gives, it comes back to that cluster and never founds another. Where the
    /// cluster's own group has lost its majority for ever, nobody is listed any more, and this waits in vain:
    /// [`start_without_leader`](Self::start_without_leader) is for that.
    ///
    /// # Errors
    ///
    /// When a setting or a data type cannot work; when the data directory cannot be used, is that of a node of another
    /// cluster ([`FleetError::OtherCluster`]), or is a copy of one that has been started since ([`FleetError::Copied`]); when
    /// the seeds are of more than one cluster ([`FleetError::SeveralClusters`]); when the cluster refuses the node because its
    /// name or its address belongs to another; or when `formation_wait` passes first, and then the error says what was seen.
    pub async fn start(
        env: Arc<dyn Env>,
        config: FleetConfig,
        registry: Registry,
    ) -> Result<Fleet, FleetError> {
        let core = make_ready(env, config, registry).await?;
        form(core).await
    }

    /// The same for a node that comes back on its data directory to a cluster that may have no leader: it returns as soon as
    /// the node's groups are open, so that an operator can look at what is left, and
    /// [go on without the nodes that are lost](Self::plan_removal).
    ///
    /// The node answers to others like any that runs, and its groups serve where they have a majority; but until the
    /// cluster's own group has a leader again and lists the node, which it waits for without an end, it founds no groups,
    /// moves no members and purges nobody. Nor is it known before whether its directory is a copy, so do not use this on a
    /// backup: where it turns out to be one, the fleet is shut down with an error in the log.
    ///
    /// A node without a directory, or with one that belongs to no cluster yet, has nothing to come back to: there this is
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), as far as it can be known without a leader.
    pub async fn start_without_leader(
        env: Arc<dyn Env>,
        config: FleetConfig,
        registry: Registry,
    ) -> Result<Fleet, FleetError> {
        let core = make_ready(env, config, registry).await?;
        let Some(kept) = member_of(&core).kept.clone() else {
            return form(core).await;
        };
        if let Err(error) = come_back(&core, member_of(&core), &kept).await {
            core.shutdown().await;
            return Err(error);
        }
        background::start_refresher(&core);
        let back = Arc::clone(&core);
        core.run("fleet return", Box::pin(async move { be_back(&back, &kept).await }));
        Ok(Fleet { core })
    }

    /// Connects to a cluster through the seeds without being part of it: this process hosts nothing, and is listed
    /// nowhere. Where [`host.cluster`](rafted_value::HostConfig::cluster) names a cluster, it connects to no other.
    ///
    /// # Errors
    ///
    /// When a setting cannot work; when the seeds that answer are of more than one cluster
    /// ([`FleetError::SeveralClusters`]): the handshakes tell, so that those that do not answer when they are first dialled, or
    /// have no cluster yet, are not known; or when no seed tells the state of a cluster within `connect_wait`.
    pub async fn connect(env: Arc<dyn Env>, config: FleetConfig) -> Result<Fleet, FleetError> {
        config.validate().map_err(FleetError::InvalidConfig)?;
        if let Some(cluster) = config.host.cluster {
            env.transport().set_cluster(cluster);
        }
        let (limit, seeds) = (config.connect_wait, config.seeds.len());
        let core = Core::new(env, config, None, None);
        let seen = Mutex::new(Sightings::default());
        let find = async {
            loop {
                let sightings = background::find_contacts(&core).await;
                if let Some(seen) = sightings.of_two_clusters() {
                    return Err(FleetError::SeveralClusters { seen });
                }
                *seen.lock() = sightings;
                if core.refresh(0).await && core.views.current().state.cluster().is_some() {
                    return Ok(());
                }
                core.env.sleep_until(core.jittered(core.config.hello_interval)).await;
            }
        };
        let found = timeout(core.env.as_ref(), limit, find).await;
        found.unwrap_or_else(|| {
            let seen = seen.lock().to_string();
            Err(FleetError::NoCluster { seeds, limit, seen })
        })?;
        if let Some(cluster) = core.views.current().state.cluster() {
            core.env.transport().set_cluster(cluster);
        }
        background::start_refresher(&core);
        Ok(Fleet { core })
    }
}

/// A node that answers others and is part of no cluster yet.
async fn make_ready(
    env: Arc<dyn Env>,
    config: FleetConfig,
    registry: Registry,
) -> Result<Arc<Core>, FleetError> {
    let local = env.transport().local();
    config.validate_for_node(&local.address).map_err(FleetError::InvalidConfig)?;
    registry.validate().map_err(FleetError::InvalidConfig)?;
    let info =
        NodeInfo { node: local.node, name: local.name, zone: config.zone.clone(), address: local.address };
    info.validate()?;
    let registry = registry.with::<ClusterState>();
    let kept = Membership::load(&env).await?;
    let lives = Lives::begin(&env).await?;
    let known = kept.as_ref().map(|kept| kept.cluster);
    if let (Some(found), Some(expected)) = (known, config.host.cluster)
        && found != expected
    {
        return Err(other_cluster(&env, found, expected));
    }
    if let Some(rate) = config.snapshot_bytes_per_second_max
        && !env.transport().limit_bulk(rate)
    {
        tracing::warn!(rate, "this transport cannot send the states of groups at a limited rate");
    }
    // A directory is opened only once it is known to be that of a node of the cluster that is found.
    let host = match env.disk() {
        Some(_) => None,
        None => Some(open_host(&env, &config, &registry, None).await?),
    };
    let formation = match kept.clone() {
        Some(kept) => Formation::formed(info.clone(), config.formation(), kept.cluster, kept.record),
        None => Formation::new(info.clone(), config.formation()),
    };
    let member = Member::new(info, registry, formation, kept, lives);
    let core = Core::new(env, config, host, Some(member));
    core.env.transport().register(FLEET_SERVICE, FleetService::new(&core));
    Ok(core)
}

/// Has a node that was made ready form a cluster, or join one, or come back to its own.
async fn form(core: Arc<Core>) -> Result<Fleet, FleetError> {
    if let Err(error) = form_or_join(&core, member_of(&core)).await {
        core.shutdown().await;
        return Err(error);
    }
    background::start_refresher(&core);
    background::start_duties(&core);
    let fleet = Fleet { core };
    let nodes = fleet.cluster().nodes().len();
    tracing::info!(node = %fleet.node(), nodes, "this node is part of the cluster");
    Ok(fleet)
}

fn member_of(core: &Core) -> &Member {
    core.member.as_ref().expect("a node was made ready with it")
}

/// Waits until the cluster lists a node that came back to it, and takes up the node's duties.
async fn be_back(core: &Arc<Core>, kept: &Membership) {
    match take_part_again(core, member_of(core), kept, Duration::MAX).await {
        Ok(()) => {
            tracing::info!(node = %core.node, "this node is part of the cluster again");
            background::start_duties(core);
        }
        Err(error) => {
            tracing::error!(node = %core.node, %error, "this node ends: it cannot be part of its cluster");
            let refused = Arc::clone(core);
            // It ends this task too.
            drop(core.env.spawn("fleet end", Box::pin(async move { refused.shutdown().await })));
        }
    }
}
