//! What belongs to no one of the other files, with an agent that keeps what its handlers were told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dist_agent::rand_core::RngCore;
use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{
    Agent, AgentContext, AgentError, AgentHooks, AgentNotApplied, AgentPosition, AgentQueryError, AgentTypes,
    DistAgent, DistAgentConfig, OnTick, QueryContext, QuotaLimit, Rate, SplitMergePolicy,
};
use futures_util::future::{join, join_all};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);

/// What a handler was told of the world.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Seen {
    who: String,
    now_ms: u64,
    revision: u64,
    drawn: u64,
}

/// Keeps what its handlers were told.
#[derive(Default, Serialize, Deserialize)]
struct Witness {
    seen: Vec<Seen>,
    timeouts: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Order {
    Look,
    /// Looks, and says no.
    Refuse,
    /// Leaves the memory.
    Passivate,
    End,
    /// Its timeout comes at the next tick.
    Tick,
    /// The same, and then it panics.
    TickAndPanic,
}

impl Agent for Witness {
    const TYPE: &'static str = "witness";
    type Command = Order;
    type Reply = Result<Seen, String>;
    type Query = ();
    type Answer = (Vec<Seen>, u32);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, order: Order) -> Result<Seen, String> {
        let who = [context.quota(), context.agent_type(), context.key()].join("/");
        let drawn = context.rng().next_u64();
        let seen = Seen { who, now_ms: context.now_ms(), revision: context.revision(), drawn };
        self.seen.push(seen.clone());
        match order {
            Order::Look => {}
            Order::Refuse => return Err("it will not".to_owned()),
            Order::Passivate => context.passivate(),
            Order::End => context.deactivate(),
            Order::Tick | Order::TickAndPanic => context.on_tick(OnTick::Timeout { ticks: 0 }),
        }
        assert!(!matches!(order, Order::TickAndPanic), "it cannot bear the order");
        Ok(seen)
    }

    fn handle_timeout(&mut self, _: &mut AgentContext<'_>) {
        self.timeouts += 1;
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> (Vec<Seen>, u32) {
        (self.seen.clone(), self.timeouts)
    }
}

fn witnesses() -> AgentTypes {
    AgentTypes::new().with::<Witness>()
}

fn is_full(result: &Result<Result<Seen, String>, AgentError>) -> bool {
    matches!(result, Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { .. })))
}

/// Every member runs the handlers, and whoever leads next has seen the same time and drawn the same numbers.
#[test]
fn what_a_handler_knows_of_the_world_is_the_same_on_every_member() {
    let mut cluster = Cluster::new(201, witnesses());
    let agent = cluster.agent::<Witness>("tenant-a", "room-42");
    let asked = agent.clone();
    let told = cluster.run(async move {
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(asked.command(Order::Look).await.unwrap().unwrap());
        }
        told
    });
    for (revision, seen) in told.iter().enumerate() {
        assert_eq!((seen.who.as_str(), seen.revision), ("tenant-a/witness/room-42", revision as u64));
    }
    assert!(told.windows(2).all(|pair| pair[0].now_ms <= pair[1].now_ms && pair[0].drawn != pair[1].drawn));
    for _ in 0..3 {
        let leader = cluster.leader_of(agent.id()).expect("the shard is led");
        cluster.kill(leader);
        let asked = agent.clone();
        assert_eq!(cluster.run(async move { asked.query(()).await.unwrap().0 }), told);
        cluster.restart(leader);
        cluster.run_for(30 * SECOND);
    }
}

/// A state that counts how often it was copied.
#[derive(Default, Serialize, Deserialize)]
struct Copied(u64);

static COPIES: AtomicU64 = AtomicU64::new(0);

impl Clone for Copied {
    fn clone(&self) -> Self {
        COPIES.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Agent for Copied {
    const TYPE: &'static str = "copied";
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

struct Silent;

impl AgentHooks<Copied> for Silent {}

#[test]
fn only_a_type_with_hooks_is_ever_copied() {
    let copies = |types: AgentTypes| {
        let before = COPIES.load(Ordering::Relaxed);
        let cluster = Cluster::new(202, types);
        let agent = cluster.agent::<Copied>("tenant-a", "room-42");
        cluster.run(async move {
            for n in 1..=9 {
                assert_eq!(agent.command(1).await, Ok(n));
                assert_eq!(agent.query(()).await, Ok(n));
            }
        });
        COPIES.load(Ordering::Relaxed) - before
    };
    assert_eq!(copies(AgentTypes::new().with::<Copied>()), 0);
    // The member that leads keeps what was there before each command; the first command has nothing before it.
    assert_eq!(copies(AgentTypes::new().with_hooks::<Copied>(Silent)), 8);
}

/// What the members on the first node have handled so far.
fn load(cluster: &Cluster) -> u64 {
    let shards = cluster.run_on(0, |node| async move { node.kv().local_shards("dist-agent").await });
    shards.iter().map(|shard| shard.load).sum()
}

/// The load of a shard counts three for each agent that a tick wakes, on every member alike.
#[test]
fn a_tick_wakes_those_who_are_due_and_nobody_else() {
    const IDLE: usize = 300;
    const DUE: usize = 7;
    let cluster = Cluster::new(203, witnesses());
    let agents: Vec<_> =
        (0..IDLE).map(|n| cluster.agent::<Witness>("tenant-a", &format!("room-{n}"))).collect();
    let asked = agents.clone();
    cluster.run(async move {
        for agent in &asked {
            agent.command(Order::Look).await.unwrap().unwrap();
        }
    });
    cluster.run_for(SECOND);
    let idle = load(&cluster);
    for _ in 0..5 {
        cluster.tick();
    }
    assert_eq!(load(&cluster), idle, "nobody was due");
    let asked = agents.clone();
    cluster.run(async move {
        for agent in &asked[..DUE] {
            agent.command(Order::Tick).await.unwrap().unwrap();
        }
    });
    for _ in 0..5 {
        cluster.tick();
    }
    assert_eq!(load(&cluster), idle + 3 * 2 * DUE as u64, "each had a command, and was woken once");
}

/// Nothing but an activation looks at a limit.
#[test]
fn agents_over_a_lowered_limit_live_on_through_the_death_of_their_node_and_a_split() {
    const AGENTS: usize = 40;
    let mut options = ClusterOptions::new(204);
    options.config.agents.shards = 1;
    options.config.agents.split_merge =
        SplitMergePolicy { max_keys: Some(16), cooling_ms: 1_000, ..SplitMergePolicy::default() };
    options.config.kv.stats_interval = SECOND;
    let mut cluster = Cluster::with(options, witnesses());
    let client = cluster.client().clone();
    let agents: Vec<_> = (0..AGENTS).map(|n| cluster.agent::<Witness>("few", &format!("room-{n}"))).collect();
    let asked = agents.clone();
    cluster.run(async move {
        client.put_quota("few", AGENTS as u64).await.unwrap();
        for agent in &asked {
            agent.command(Order::Look).await.unwrap().unwrap();
        }
        client.put_quota("few", 1).await.unwrap();
    });
    let leader = cluster.leader_of(agents[0].id()).expect("the shard is led");
    cluster.kill(leader);
    cluster.run_for(20 * SECOND);
    cluster.restart(leader);
    cluster.run_for(40 * SECOND);
    let (client, late) = (cluster.client().clone(), cluster.agent::<Witness>("few", "late"));
    cluster.run(async move {
        let keyspace = client.kv().list_keyspaces().await.unwrap().remove(0);
        assert!(keyspace.shards.len() > 1, "it was split");
        for agent in &agents {
            assert_eq!(agent.command(Order::Look).await.unwrap().unwrap().revision, 1);
        }
        assert_eq!(client.quota_usage("few").await.unwrap().agents, AGENTS as u64);
        let refused = late.command(Order::Look).await;
        assert!(is_full(&refused), "{refused:?}");
    });
}

/// A command that comes back because its agent is not active is one entry too many in a log.
#[test]
fn an_activation_after_others_takes_one_command_and_no_call_of_an_active_agent_takes_a_question() {
    const AGENTS: u64 = 60;
    let cluster = Cluster::new(218, witnesses());
    let client = cluster.client().clone();
    let agents: Vec<_> =
        (0..AGENTS).map(|n| cluster.agent::<Witness>("many", &format!("room-{n}"))).collect();
    let asked = agents.clone();
    cluster.run(async move {
        client.put_quota("many", 1_000).await.unwrap();
        for agent in &asked {
            agent.command(Order::Look).await.unwrap().unwrap();
        }
    });
    cluster.run_for(SECOND);
    let activated = load(&cluster);
    assert!(activated < 3 * (AGENTS + 8), "{activated}: only the first ones took two commands");
    cluster.run(async move {
        for _ in 0..10 {
            for agent in &agents {
                agent.command(Order::Look).await.unwrap().unwrap();
            }
        }
    });
    cluster.run_for(SECOND);
    // A question counts one, on the member that answers it.
    let called = load(&cluster) - activated;
    assert!((3 * 10 * AGENTS..3 * 10 * AGENTS + 8).contains(&called), "{called}");
}

#[test]
fn tokens_are_of_one_agent_on_one_node() {
    let cluster = Cluster::new(205, witnesses());
    let limited = |cluster: &DistAgent, key: &str| {
        let agent = cluster.agent::<Witness>("tenant-a", key).unwrap();
        agent.rate_limit(Rate::per_second(1).unwrap(), 3)
    };
    let (one, other) = (limited(cluster.client(), "one"), limited(cluster.client(), "other"));
    cluster.run(async move {
        assert!(one.command(Order::Look).await.is_ok());
        let refused = one.clone().command(Order::Look).await;
        let over = matches!(refused, Err(AgentError::NotApplied(AgentNotApplied::RateLimitReached { .. })));
        assert!(over, "{refused:?}");
        assert!(other.command(Order::Look).await.is_ok());
    });
    let here = cluster.run_on(1, move |node| async move { limited(&node, "one").command(Order::Look).await });
    assert!(here.is_ok(), "{here:?}");
}

#[test]
fn a_cluster_that_is_started_again_and_again_has_one_keyspace_and_one_ledger() {
    let mut cluster = Cluster::new(206, witnesses());
    for node in [0, 1, 2, 0] {
        cluster.kill(node);
        cluster.restart(node);
        cluster.run_for(30 * SECOND);
    }
    let client = cluster.client().clone();
    let agent = cluster.agent::<Witness>("tenant-a", "room-42");
    cluster.run(async move {
        assert_eq!(client.kv().list_keyspaces().await.unwrap().len(), 1);
        // The quota was put before any of the starts.
        assert_eq!(client.quota_usage("tenant-a").await.unwrap().limit, QuotaLimit::Unlimited);
        assert!(agent.command(Order::Look).await.is_ok());
        let cluster = client.fleet().cluster();
        let names: Vec<&str> = cluster.groups().keys().map(|name| name.as_str()).collect();
        assert_eq!(names.iter().filter(|name| name.starts_with("kv/")).count(), 4, "{names:?}");
        assert_eq!(names.iter().filter(|name| name.contains("quotas")).count(), 1, "{names:?}");
    });
}

/// In the original, the first pending command of an agent that ended it told the second client an internal value
/// (fault 16).
#[test]
fn whoever_comes_beside_a_first_command_that_ends_the_agent_is_told_its_own_reply() {
    let cluster = Cluster::new(207, witnesses());
    let agent = cluster.agent::<Witness>("tenant-a", "room-42");
    cluster.run(async move {
        let ends = join_all((0..8).map(|_| agent.command(Order::End)));
        let looks = join_all((0..8).map(|_| agent.command(Order::Look)));
        let (ends, looks) = join(ends, looks).await;
        for told in ends.into_iter().chain(looks) {
            assert_eq!(told.unwrap().unwrap().who, "tenant-a/witness/room-42");
        }
    });
}

/// In the original, a client that had seen no quota cleaned up after itself, and with it the agent of another client, who
/// had seen the quota made meanwhile (fault 18).
#[test]
fn who_saw_no_quota_harms_nobody_who_saw_it_made() {
    for seed in 208..212 {
        let cluster = Cluster::new(seed, witnesses());
        let agent = cluster.agent::<Witness>("late", "room-42");
        let client = cluster.client().clone();
        let refused = cluster.run(async move {
            let early = join_all((0..16).map(|_| agent.command(Order::Look)));
            let (early, put) = join(early, client.put_quota("late", 100)).await;
            put.unwrap();
            let refused = early.iter().filter(|told| told.is_err()).count();
            let none = |told: &Result<_, AgentError>| {
                matches!(told, Ok(Ok(_)) | Err(AgentError::NotApplied(AgentNotApplied::QuotaNotFound(_))))
            };
            assert!(early.iter().all(none), "{early:?}");
            assert_eq!(agent.command(Order::Look).await.unwrap().unwrap().revision, 16 - refused as u64);
            assert_eq!(agent.query(()).await.unwrap().0.len(), 17 - refused);
            refused
        });
        assert!(refused <= 16);
    }
}

/// In the original, timeouts fired while an agent was being prepared. Here an activation happens whole or not at all.
#[test]
fn an_activation_that_fails_leaves_no_timer() {
    let cluster = Cluster::new(213, witnesses());
    let agent = cluster.agent::<Witness>("tenant-a", "room-42");
    let asked = agent.clone();
    cluster.run(async move {
        let failed = asked.command(Order::TickAndPanic).await;
        let panicked = matches!(failed, Err(AgentError::NotApplied(AgentNotApplied::Panicked { .. })));
        assert!(panicked, "{failed:?}");
    });
    (0..3).for_each(|_| cluster.tick());
    let asked = agent.clone();
    cluster.run(async move {
        let not_found = AgentQueryError::AgentNotFound(asked.id().clone());
        assert_eq!(asked.query(()).await, Err(not_found));
        assert_eq!(asked.command(Order::Look).await.unwrap().unwrap().revision, 0);
    });
    (0..3).for_each(|_| cluster.tick());
    cluster.run(async move { assert_eq!(agent.query(()).await.unwrap().1, 0) });
}

#[test]
fn an_error_of_the_agents_own_is_in_its_reply_and_its_effects_stay() {
    let cluster = Cluster::new(214, witnesses());
    let agent = cluster.agent::<Witness>("tenant-a", "room-42");
    cluster.run(async move {
        assert_eq!(agent.command(Order::Refuse).await, Ok(Err("it will not".to_owned())));
        assert_eq!(agent.command(Order::Look).await.unwrap().unwrap().revision, 1);
        assert_eq!(agent.query(()).await.unwrap().0.len(), 2);
    });
}

#[test]
fn agents_are_listed_by_quota_type_and_prefix_and_go_on_after_a_failover() {
    let mut cluster = Cluster::new(215, witnesses().with::<Copied>());
    let client = cluster.client().clone();
    let expected: BTreeSet<String> = (0..30).map(|n| format!("room-{n}")).collect();
    let rooms = expected.clone();
    let first = cluster.run(async move {
        client.put_quota("tenant-b", 100).await.unwrap();
        for key in &rooms {
            client.agent::<Witness>("tenant-b", key).unwrap().command(Order::Look).await.unwrap().unwrap();
            client.agent::<Copied>("tenant-b", key).unwrap().command(1).await.unwrap();
            client.agent::<Witness>("tenant-a", key).unwrap().command(Order::Look).await.unwrap().unwrap();
        }
        client.agent::<Witness>("tenant-b", "hall").unwrap().command(Order::Look).await.unwrap().unwrap();
        client.list_agents::<Witness>("tenant-b", "room-", &AgentPosition::default(), 7).await.unwrap()
    });
    assert_eq!(first.agents.len(), 7);
    cluster.kill(0);
    // The position is bytes to whoever keeps it.
    let kept = postcard::to_stdvec(&first.next.unwrap()).unwrap();
    let client = cluster.client().clone();
    let mut found: Vec<String> = first.agents.iter().map(|id| id.key.to_string()).collect();
    found.extend(cluster.run(async move {
        let (mut found, mut position) = (Vec::new(), Some(postcard::from_bytes(&kept).unwrap()));
        while let Some(from) = position {
            let page = client.list_agents::<Witness>("tenant-b", "room-", &from, 7).await.unwrap();
            assert!(page.agents.len() <= 7);
            found.extend(page.agents.into_iter().map(|id| id.key.to_string()));
            position = page.next;
        }
        found
    }));
    assert_eq!(found.len(), expected.len(), "each is given once");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn an_agent_that_left_the_memory_is_active_counts_and_comes_back_on_another_node() {
    let mut cluster = Cluster::new(216, witnesses());
    let client = cluster.client().clone();
    let (agent, other) =
        (cluster.agent::<Witness>("one", "room-42"), cluster.agent::<Witness>("one", "other"));
    let asked = agent.clone();
    cluster.run(async move {
        client.put_quota("one", 1).await.unwrap();
        asked.command(Order::Look).await.unwrap().unwrap();
        asked.command(Order::Passivate).await.unwrap().unwrap();
        assert_eq!(asked.query(()).await.unwrap().0.len(), 2);
        let refused = other.command(Order::Look).await;
        assert!(is_full(&refused), "{refused:?}");
    });
    let leader = cluster.leader_of(agent.id()).expect("the shard is led");
    cluster.kill(leader);
    cluster.run(async move {
        assert_eq!(agent.query(()).await.unwrap().0.len(), 2);
        assert_eq!(agent.if_active().command(Order::Look).await.unwrap().unwrap().revision, 2);
        assert_eq!(agent.query(()).await.unwrap().0.len(), 3);
    });
}

/// Where a test reads what was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// If callers differed, the timeouts of an agent would depend on who called it last.
#[test]
fn a_node_with_another_tick_is_told_and_takes_that_of_the_cluster() {
    let cluster = Cluster::new(217, witnesses());
    let env = cluster.sim().start_node("node-4", "sim:4");
    let mut config = DistAgentConfig { tick_interval: 90 * SECOND, ..ClusterOptions::new(217).config };
    config.fleet.seeds = (0..3).map(|node| format!("sim:{node}")).collect();
    config.fleet.bootstrap_expect = 3;
    config.fleet.host.loops = 2;
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).with_ansi(false).finish();
    let node = tracing::subscriber::with_default(subscriber, || {
        let start = DistAgent::start(env.clone(), config, witnesses());
        let start = async move { start.await.map_err(|error| error.to_string()) };
        cluster.finish(cluster.sim().spawn_on(&env, start)).unwrap()
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    let said = log.lines().find(|line| line.contains("tick_interval")).expect("it is told");
    assert!(said.contains("tick_ms=1000 own_ms=90000"), "{said}");
    assert_eq!((node.tick_interval(), cluster.client().tick_interval()), (SECOND, SECOND));

    let agent = node.agent::<Witness>("tenant-a", "room-42").unwrap();
    let asked = agent.clone();
    let set = cluster.sim().spawn_on(&env, async move { asked.command(Order::Tick).await.unwrap() });
    cluster.finish(set).unwrap();
    cluster.tick();
    let timeouts = cluster.sim().spawn_on(&env, async move { agent.query(()).await.unwrap().1 });
    assert_eq!(cluster.finish(timeouts), 1, "it came at the tick of the cluster");
}
