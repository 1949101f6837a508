//! The smallest program with agents: one process, no ports, no certificates.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use dist_agent::{Agent, AgentContext, AgentTypes, DistAgent, QueryContext, QuotaLimit};
use serde::{Deserialize, Serialize};

/// A number that lives in the cluster.
#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

/// What changes it.
#[derive(Serialize, Deserialize)]
struct Add(i64);

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    type Command = Add;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, Add(amount): Add) -> i64 {
        self.total += amount;
        self.total
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> i64 {
        self.total
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = DistAgent::single_node(AgentTypes::new().with::<Counter>()).await?;
    cluster.put_quota("tenant-a", QuotaLimit::Unlimited).await?;
    let counter = cluster.agent::<Counter>("tenant-a", "room-42")?;
    println!("after the first command: {}", counter.command(Add(5)).await?);
    println!("after the second: {}", counter.command(Add(-2)).await?);
    println!("asked: {}", counter.query(()).await?);
    cluster.shutdown().await;
    Ok(())
}

#[cfg(test)]
#[test]
fn the_program_runs_to_its_end() {
    main().expect("all of its calls are answered");
}
