//! An upgrade to a build that cannot read the state of one agent: that agent is lost from view, and no other with it.

use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{Agent, AgentContext, AgentQueryError, AgentTypes, OnTick, QueryContext};
use serde::{Deserialize, Serialize};

use crate::cluster::{NODES, SECOND};

/// Counts its timeouts, of which there is one at each tick, from a number on.
#[derive(Default, Serialize, Deserialize)]
struct Clock(u64);

impl Agent for Clock {
    const TYPE: &'static str = "clock";
    type Command = u64;
    type Reply = ();
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, from: u64) {
        self.0 = from;
        context.on_tick(OnTick::Timeout { ticks: 0 });
    }

    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {
        self.0 += 1;
        context.on_tick(OnTick::Timeout { ticks: 0 });
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.0
    }
}

/// The clock of the next build, which cannot make anything of one that is far ahead.
#[derive(Default, Serialize, Deserialize)]
struct NextClock(Clock);

const FAR_AHEAD: u64 = 1_000_000;

impl Agent for NextClock {
    const TYPE: &'static str = "clock";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = u64;
    type Reply = ();
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, from: u64) {
        self.0.handle_command(context, from);
    }

    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {
        self.0.handle_timeout(context);
    }

    fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> u64 {
        self.0.handle_query(context, ())
    }

    fn migrate(_: u32, bytes: &[u8]) -> Result<Self, String> {
        let clock: Clock = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        if clock.0 >= FAR_AHEAD { Err("it is far ahead".to_owned()) } else { Ok(Self(clock)) }
    }

    fn write_as(&self, _: u32) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(&self.0).map_err(|error| error.to_string())
    }
}

/// One agent that the next build cannot read was due when the nodes started again. No node had heard yet of the version that
/// the cluster had agreed on; each took the others for ones of the earlier build, and ended its member. The wake was in the
/// log, so that it did so at every start, and all agents of the shard were lost with that one.
#[test]
fn an_agent_that_cannot_be_read_and_is_due_at_a_start_ends_no_member() {
    let mut options = ClusterOptions { disks: true, ..ClusterOptions::new(940) };
    options.config.agents.shards = 1;
    // Snapshots are taken often, so that what is in the log at the end is ticks alone.
    options.config.agents.group.log_bytes_min = 1;
    options.config.agents.group.log_expansion_factor = 1;
    let mut cluster = Cluster::with(options, AgentTypes::new().with::<Clock>());
    let fine = cluster.agent::<NextClock>("tenant-a", "fine");
    let unreadable = cluster.agent::<NextClock>("tenant-a", "unreadable");
    let (one, other) =
        (cluster.agent::<Clock>("tenant-a", "fine"), cluster.agent::<Clock>("tenant-a", "unreadable"));
    cluster.run(async move {
        one.command(1).await.unwrap();
        other.command(FAR_AHEAD).await.unwrap();
    });
    (0..20).for_each(|_| cluster.tick());
    let next = AgentTypes::new().with::<NextClock>();
    let mut before = 1;
    for start in 0..3 {
        (0..NODES).for_each(|node| cluster.kill(node));
        cluster.run_for(10 * SECOND);
        cluster.restart_all_as(&[0, 1, 2], &next);
        cluster.wait_until_whole();
        (0..3).for_each(|_| cluster.tick());
        let (one, other) = (fine.clone(), unreadable.clone());
        let (count, kept) = cluster.run(async move { (one.query(()).await, other.query(()).await) });
        assert!(matches!(kept, Err(AgentQueryError::UnreadableState { .. })), "start {start}: {kept:?}");
        let count = count.expect("its shard lives");
        assert!(count >= before + 2, "start {start}: it was {before} and is {count}");
        before = count;
        for node in 0..NODES {
            let fenced = cluster.run_on(node, |node| async move {
                let members = node.fleet().host().expect("it is a node").statuses().await;
                members.into_iter().find_map(|member| member.fenced)
            });
            assert_eq!(fenced, None, "start {start}: node {node}");
        }
    }
}
