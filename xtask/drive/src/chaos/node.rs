//! A node process of a chaos run: hosts agents over QUIC, says ten times a second which groups it leads and whether they
//! are whole, and ends when its input does.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use batched_comm::{Endpoint, EndpointConfig, Identity};
use dist_agent::raft_kv::raft_fleet::CLUSTER_GROUP;
use dist_agent::{AgentTypes, DistAgent, DistAgentConfig};
use rafted_value::disk::RealDisk;
use rafted_value::env::{RealEnv, random_u64_from_os, sleep};
use rafted_value::transport::quic::QuicTransport;
use rafted_value::{Durability, node_on};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::slow_disk::SlowDisk;
use super::tally::Tally;
use crate::bench::BoxError;
use crate::sim::panics;
use crate::sim::stack::ledger::Ledger;

/// How often it says how it stands.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long it waits for its address to be there.
const ADDRESS_MAX: Duration = Duration::from_secs(10);
/// Entries that a member may lack and count as one that has caught up.
const BEHIND_MAX: u64 = 64;

/// Which node this process is.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Its name, as its certificate says.
    #[arg(long)]
    name: String,
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// The addresses of all nodes.
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<String>,
    /// Where the certificates are.
    #[arg(long)]
    certificates: PathBuf,
    /// Where it keeps its groups; in memory, if not given.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Nodes that it knows to be in the cluster.
    pub(super) nodes: u64,
    /// Groups that the cluster has, its own included.
    pub(super) groups: u64,
    /// Groups that this node leads, and whether all their members have caught up.
    pub(super) led: Vec<(u64, bool)>,
    /// Members on this node that cannot go on.
    pub(super) fenced: u64,
    /// Memory that the process uses.
    pub(super) resident_bytes: u64,
}

/// Runs the node until its input ends.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    panics::be_silent_on_purpose();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let arguments = arguments.clone();
    runtime.block_on(async { tokio::spawn(async move { serve(&arguments).await }).await? })
}

async fn serve(arguments: &Arguments) -> Result<(), BoxError> {
    let pem = |end: &str| arguments.certificates.join(format!("{}.{end}", arguments.name));
    let identity = Identity::from_files(arguments.certificates.join("ca.pem"), pem("pem"), pem("key"))?;
    let disk = match &arguments.directory {
        Some(directory) => Some(Arc::new(RealDisk::open(directory.join("store"))?)),
        None => None,
    };
    let known = match &disk {
        Some(disk) => node_on(disk.as_ref())?,
        None => None,
    };
    let node = known.map_or_else(|| random_u64_from_os().max(1), |node| node.0);
    let name = arguments.name.clone();
    let endpoint = bind(arguments, node, &identity).await?;
    let transport = QuicTransport::new(endpoint, name);
    let env = match (disk, &arguments.directory) {
        (Some(disk), Some(directory)) => {
            RealEnv::with_disk(transport, Arc::new(SlowDisk::over(disk, directory.join("slow"))))
        }
        _ => RealEnv::new(transport),
    };
    let mut config = DistAgentConfig::default();
    config.fleet.seeds = arguments.seeds.clone();
    config.fleet.bootstrap_expect = arguments.seeds.len();
    config.agents.shards = 8;
    if arguments.directory.is_none() {
        config.agents.group.durability = Durability::Memory;
    }
    let types = AgentTypes::new().with::<Ledger>().with::<Tally>();
    let started = DistAgent::start(env.clone(), config, types);
    let agents = tokio::select! {
        agents = started => agents?,
        () = input_ends() => return Ok(()),
    };
    let report = async {
        loop {
            say(&standing(&agents).await)?;
            sleep(env.as_ref(), REPORT_EVERY).await;
        }
    };
    tokio::select! {
        ended = report => ended,
        () = input_ends() => Ok(()),
    }
}

/// The address may be given to the process only after it has started.
async fn bind(arguments: &Arguments, node: u64, identity: &Identity) -> Result<Endpoint, BoxError> {
    let begun = tokio::time::Instant::now();
    loop {
        let id = batched_comm::NodeId(node);
        let config = EndpointConfig::new(arguments.listen, id, arguments.name.clone(), identity.clone());
        match Endpoint::bind(config).await {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) if begun.elapsed() > ADDRESS_MAX => return Err(error.into()),
            Err(_) => super::clients::wait(Duration::from_millis(10)).await,
        }
    }
}

/// Whoever started this process is gone, or wants it to end.
async fn input_ends() {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 64];
    while input.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

async fn standing(agents: &DistAgent) -> Standing {
    let fleet = agents.fleet();
    let view = fleet.cluster();
    let known: Vec<_> = view.nodes().keys().copied().collect();
    let mut standing = Standing {
        nodes: known.len() as u64,
        groups: view.groups().len() as u64 + 1,
        resident_bytes: crate::bench::usage::of_this_process().map_or(0, |usage| usage.resident_bytes),
        ..Standing::default()
    };
    let Some(host) = fleet.host() else { return standing };
    let listed: Vec<_> = view.groups().values().map(|entry| entry.id).chain([CLUSTER_GROUP]).collect();
    for status in host.statuses().await {
        standing.fenced += u64::from(status.fenced.is_some());
        // The leader of a group that rests needs no lease.
        if status.ready && (status.leased || status.quiet) && listed.contains(&status.group) {
            let whole = status.members.iter().all(|member| {
                let caught_up =
                    member.matched.is_some_and(|matched| matched + BEHIND_MAX > status.last_index);
                member.voter && caught_up && known.contains(&member.node)
            });
            standing.led.push((status.group.0, whole && status.members.len() >= 3));
        }
    }
    standing
}

fn say(standing: &Standing) -> Result<(), BoxError> {
    let mut line = serde_json::to_vec(standing)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line)?;
    Ok(output.flush()?)
}
