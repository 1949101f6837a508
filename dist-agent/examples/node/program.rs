//! The program that a node is, whichever agents it hosts.

mod settings;

use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dist_agent::raft_kv::rafted_value::Role;
use dist_agent::raft_kv::rafted_value::env::{Env, sleep};
use dist_agent::{AgentTypes, DistAgent, DistAgentConfig};
use futures_util::future::{Either, select};
use mimalloc::MiMalloc;
use serde_json::json;

use self::settings::Settings;
use crate::demo;

/// A node makes and drops small things all the time, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The longest time that a node may take to hand over what it holds.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// A node that hosts these types, as its settings say, until it is told to end.
pub(crate) async fn main(types: AgentTypes) -> ExitCode {
    let settings = Settings::parse();
    demo::log_to_stderr();
    demo::end("node", run(settings, types).await)
}

async fn run(settings: Settings, types: AgentTypes) -> Result<(), Box<dyn Error>> {
    let settings = settings.complete()?;
    let mut told = pin!(demo::told_to_end(settings.exit_on_stdin_close));
    let (name, dir) = (Some(settings.name.as_str()), settings.dir.as_deref());
    let (endpoint, env) = settings.membership.open(settings.listen, settings.advertise, name, dir).await?;
    let local = env.transport().local();
    demo::print(&json!({ "event": "listening", "node": local.node.to_string(), "address": local.address }));

    let mut config = DistAgentConfig { tick_interval: settings.tick, ..DistAgentConfig::default() };
    config.fleet.zone = settings.zone;
    config.fleet.seeds = settings.membership.seeds;
    config.fleet.bootstrap_expect = settings.expect;
    config.agents.shards = settings.shards;
    let start = DistAgent::start(env.clone(), config, types);
    let Either::Left((node, _)) = select(Box::pin(start), &mut told).await else { return Ok(()) };
    let node = node?;
    select(Box::pin(serve(&node, env.as_ref(), settings.expect)), told).await;
    if settings.drain {
        drain(&node, env.as_ref()).await;
    }
    // First the agents' part, then the connections: the other nodes are told that this one is gone.
    node.shutdown().await;
    endpoint.close().await;
    Ok(())
}

/// Hands over what the node holds, so that nobody notices its end.
async fn drain(node: &DistAgent, env: &dyn Env) {
    let start = env.now();
    let drained = match node.fleet().deactivate().await {
        Ok(()) => node.fleet().drained(DRAIN_MAX).await,
        refused => refused,
    };
    match drained {
        Ok(()) => {
            let ms = env.now().since(start).as_millis() as u64;
            demo::print(&json!({ "event": "drained", "ms": ms }));
        }
        // Whoever wants it to end wants that more than anything else.
        Err(error) => tracing::warn!(%error, "the node ends with what it holds"),
    }
}

/// Says how the node is, for as long as it runs.
async fn serve(node: &DistAgent, env: &dyn Env, expect: usize) {
    let mut ready = false;
    loop {
        if !ready {
            let nodes = node.fleet().cluster().nodes().values().filter(|node| node.active).count();
            ready = nodes >= expect;
            if ready {
                demo::print(&json!({ "event": "ready", "nodes": nodes }));
            }
        }
        report(node).await;
        sleep(env, Duration::from_secs(1)).await;
    }
}

/// Says what this node hosts and leads.
async fn report(node: &DistAgent) {
    let Some(host) = node.fleet().host() else { return };
    let members = host.statuses().await;
    let leading = members.iter().filter(|member| member.role == Role::Leader).count();
    let agents = node.local_agents().await;
    demo::print(&json!({ "event": "status", "groups": members.len(), "leading": leading, "agents": agents }));
}
