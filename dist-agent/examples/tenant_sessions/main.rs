//! Sessions of the users of several tenants: each tenant has a quota of sessions, and no user may be too busy.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

mod session;

use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::sleep;
use dist_agent::{AgentPosition, AgentTypes, Rate, SingleNode};
use session::{IDLE_TICKS, Session, SessionHandle};

/// Short, so that something is to be seen.
const TICK: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let types = AgentTypes::new().with::<Session>();
    let cluster = SingleNode::new(types).config(|config| config.tick_interval = TICK).start().await?;
    let env = cluster.fleet().env().clone();
    cluster.put_quota("small-tenant", 2).await?;
    cluster.put_quota("large-tenant", 1_000).await?;

    // Two tokens a second, up to nine at once: a command takes three, a query one.
    let rate = Rate::per_second(2)?;
    for user in ["ann", "ben", "cat"] {
        let session = cluster.agent::<Session>("small-tenant", user)?.rate_limit(rate, 9);
        match session.set("language".into(), "en".into()).await {
            Ok(_) => println!("{}", session.describe().await?),
            Err(error) => println!("{user} is not let in: {error}"),
        }
    }
    let ann = cluster.agent::<Session>("small-tenant", "ann")?.rate_limit(rate, 9);
    for _ in 0..6 {
        match ann.read("language".into()).await {
            Ok(language) => println!("ann reads {language:?}"),
            Err(error) => println!("ann is too busy: {error}"),
        }
    }
    let usage = cluster.quota_usage("small-tenant").await?;
    println!("{} of {} sessions", usage.agents, usage.limit);
    let page = cluster.list_agents::<Session>("small-tenant", "", &AgentPosition::default(), 100).await?;
    println!("they are {:?}", page.agents.iter().map(ToString::to_string).collect::<Vec<_>>());

    sleep(env.as_ref(), (IDLE_TICKS + 2) * TICK + Duration::from_secs(2)).await;
    let usage = cluster.quota_usage("small-tenant").await?;
    println!("when nobody had written for {IDLE_TICKS} ticks: {} of {}", usage.agents, usage.limit);
    let cat = cluster.agent::<Session>("small-tenant", "cat")?;
    cat.set("language".into(), "fr".into()).await?;
    println!("now {}", cat.describe().await?);
    cluster.shutdown().await;
    Ok(())
}
