//! What an idle agent costs in memory, with the log and the snapshot of its shard: a node holds a million of them.

use std::time::Duration;

use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{Agent, AgentContext, AgentTypes, QueryContext};
use serde::{Deserialize, Serialize};

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

/// A number.
#[derive(Default, Serialize, Deserialize)]
struct Counter(u64);

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.0
    }
}

/// Agents that are there before anything is counted: what grows with the first of them is no agent's own.
const WARM: usize = 1_000;
const AGENTS: usize = 4_000;
/// What one may hold beside its state on its one member, its key of 27 bytes included. It was 441 bytes when it was first
/// counted, most of them in snapshots with room for a log that was not in them any more.
const BYTES_MAX: usize = 250;

fn activate(cluster: &Cluster, numbers: std::ops::Range<usize>) {
    let agents: Vec<_> =
        numbers.map(|n| cluster.agent::<Counter>("many", &format!("agent-{n:08}"))).collect();
    let client = cluster.client().clone();
    cluster.run(async move {
        client.put_quota("many", 1_000_000).await.expect("the cluster takes quotas");
        for some in agents.chunks(100) {
            let calls = some.iter().map(|agent| agent.command(1));
            for total in futures_util::future::join_all(calls).await {
                assert_eq!(total, Ok(1));
            }
        }
    });
    // What was kept for clients is gone, and what was counted is told.
    cluster.run_for(Duration::from_secs(15));
}

#[test]
fn an_idle_agent_holds_less_than_its_limit_beside_its_state() {
    let mut options = ClusterOptions { nodes: 1, ..ClusterOptions::new(1) };
    options.config.agents.replicas = 1;
    options.config.kv.keyspaces_replicas = 1;
    let cluster = Cluster::with(options, AgentTypes::new().with::<Counter>());
    activate(&cluster, 0..WARM);
    let _counting = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().curr_bytes;
    activate(&cluster, WARM..WARM + AGENTS);
    let after = dhat::HeapStats::get().curr_bytes;
    let bytes = (after - before) / AGENTS - size_of::<Counter>();
    println!("{bytes} bytes an agent");
    assert!(bytes < BYTES_MAX, "{bytes} bytes an agent");
}
