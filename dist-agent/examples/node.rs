//! A node of a cluster of counters: joins through its seeds, hosts agents, says once a second how it is.
//!
//! `node --name node-1 --listen 127.0.0.1:7001 --seed 127.0.0.1:7001 --seed 127.0.0.1:7002 --expect 2 --ca ca.pem
//! --cert node-1.pem --key node-1.key`, or the same in the environment or a TOML file; the `certs` example makes the
//! certificates.

mod demo;
#[path = "node/settings.rs"]
mod settings;

use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use demo::counter::Counter;
use dist_agent::raft_kv::rafted_value::Role;
use dist_agent::raft_kv::rafted_value::env::{Env, sleep};
use dist_agent::{AgentTypes, DistAgent, DistAgentConfig};
use futures_util::future::{Either, select};
use serde_json::json;
use settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    demo::log_to_stderr();
    demo::end("node", run(settings).await)
}

async fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    let settings = settings.complete()?;
    let mut told = pin!(demo::told_to_end(settings.exit_on_stdin_close));
    let (endpoint, env) =
        settings.membership.open(settings.listen, settings.advertise, Some(&settings.name)).await?;
    let local = env.transport().local();
    demo::print(&json!({ "event": "listening", "node": local.node.to_string(), "address": local.address }));

    let mut config = DistAgentConfig { tick_interval: settings.tick, ..DistAgentConfig::default() };
    config.fleet.zone = settings.zone;
    config.fleet.seeds = settings.membership.seeds;
    config.fleet.bootstrap_expect = settings.expect;
    config.agents.shards = settings.shards;
    let start = DistAgent::start(env.clone(), config, AgentTypes::new().with::<Counter>());
    let Either::Left((node, _)) = select(Box::pin(start), &mut told).await else { return Ok(()) };
    let node = node?;
    select(Box::pin(serve(&node, env.as_ref(), settings.expect)), told).await;
    // First the agents' part, then the connections: the other nodes are told that this one is gone.
    node.shutdown().await;
    endpoint.close().await;
    Ok(())
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
