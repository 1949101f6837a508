//! A node process of the bench that hosts agents, or keys of the bare store, and calls those of the whole cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{Endpoint, EndpointConfig, Identity};
use bytes::Bytes;
use dist_agent::raft_kv::raft_fleet::CallOptions;
use dist_agent::raft_kv::rafted_value::env::{Env, RealEnv, random_u64_from_os};
use dist_agent::raft_kv::rafted_value::transport::quic::QuicTransport;
use dist_agent::raft_kv::rafted_value::{CommandContext, Freshness, GroupStatus, Refused};
use dist_agent::raft_kv::{Answer as KvAnswer, Done, Key, KeyspaceName, Kv, KvTypes, ValuePerKey};
use dist_agent::{
    Agent, AgentContext, AgentHandle, AgentId, AgentTypes, DistAgent, DistAgentConfig, OnTick, QueryContext,
    QuotaLimit,
};
use hdrhistogram::Histogram;

use super::super::node::{Arguments, LATENCY_MAX_NS, orders, say};
use super::super::protocol::{Answer, Kind, Loaded, Order, Standing};
use super::super::{BoxError, echo, usage};

/// The length of a tick.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// What the state of an agent takes.
pub(super) const STATE_BYTES: usize = std::mem::size_of::<Counter>();
/// What its key in the store takes.
pub(super) const KEY_BYTES: usize = "bench\0counter\0agent-00000000".len();

const QUOTA: &str = "bench";
/// A quota that has not much room; agents from [`TIGHT`] on are of it.
const TIGHT_QUOTA: &str = "tight";
const TIGHT_LIMIT: u64 = 60_000;
pub(super) const TIGHT: u64 = 1 << 40;
/// A client of an agent whose node ends gives up after this long.
const OUTLAST_MAX: Duration = Duration::from_secs(30);

/// A number that is added to, and may have something to do at ticks.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Counter {
    total: u64,
    ticks: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) enum Count {
    Add(u64),
    /// Its timeout comes at so many ticks.
    Ticks(u32),
}

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    type Command = Count;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, command: Count) -> u64 {
        match command {
            Count::Add(amount) => self.total += amount,
            Count::Ticks(ticks) => {
                self.ticks = ticks;
                context.on_tick(OnTick::Timeout { ticks: 0 });
            }
        }
        self.total
    }

    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {
        self.ticks = self.ticks.saturating_sub(1);
        if self.ticks > 0 {
            context.on_tick(OnTick::Timeout { ticks: 0 });
        }
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.total
    }
}

/// The same number as a bare value of the store.
struct Numbers;

impl ValuePerKey for Numbers {
    type Value = u64;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<u64>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        let number = value.get_or_insert(0);
        *number += command.len() as u64;
        Ok(Done { reply: Bytes::copy_from_slice(&number.to_le_bytes()), load: 3, size: 8 })
    }

    fn query(&self, _: &[u8], value: &u64, _: &Bytes) -> Result<KvAnswer, Refused> {
        Ok(KvAnswer { answer: Bytes::copy_from_slice(&value.to_le_bytes()), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<u64, String> {
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| "not 8 bytes")?))
    }
}

/// What a node hosts and calls.
#[derive(Clone)]
enum Hosted {
    Agents(DistAgent),
    Keys(Kv, KeyspaceName, CallOptions),
}

/// One agent, or one key.
#[derive(Clone)]
enum Called {
    Agent(AgentHandle<Counter>),
    Key(Kv, KeyspaceName, CallOptions, Key),
}

/// A node that hosts agents.
pub(crate) fn run_agents(arguments: &Arguments) -> Result<(), BoxError> {
    arguments.run(|arguments| async move { serve(&arguments, true).await })
}

/// A node that hosts keys.
pub(crate) fn run_keys(arguments: &Arguments) -> Result<(), BoxError> {
    arguments.run(|arguments| async move { serve(&arguments, false).await })
}

async fn start(arguments: &Arguments, agents: bool) -> Result<Hosted, BoxError> {
    let name = format!("node-{}", arguments.number);
    let pem = |end: &str| arguments.certificates.join(format!("{name}.{end}"));
    let identity = Identity::from_files(arguments.certificates.join("ca.pem"), pem("pem"), pem("key"))?;
    let listen = *arguments.addresses.get(arguments.number as usize - 1).ok_or("the node has no address")?;
    // A new id for each life: a node comes back with an empty memory.
    let node = batched_comm::NodeId(random_u64_from_os().max(1));
    let endpoint = Endpoint::bind(EndpointConfig::new(listen, node, name.clone(), identity)).await?;
    let env: Arc<dyn Env> = RealEnv::new(QuicTransport::new(endpoint, name));
    let mut config = DistAgentConfig { tick_interval: TICK, ..DistAgentConfig::default() };
    config.fleet.seeds = arguments.addresses.iter().map(ToString::to_string).collect();
    config.fleet.bootstrap_expect = arguments.addresses.len();
    config.fleet.failure_window = Duration::from_secs(3);
    config.call.timeout = Duration::from_secs(10);
    if agents {
        let node = DistAgent::start(env, config, AgentTypes::new().with::<Counter>()).await?;
        node.put_quota(QUOTA, QuotaLimit::Agents(u64::MAX)).await?;
        node.put_quota(TIGHT_QUOTA, QuotaLimit::Agents(TIGHT_LIMIT)).await?;
        return Ok(Hosted::Agents(node));
    }
    let types = KvTypes::new().with("numbers", Numbers);
    let kv = Kv::start(env, config.fleet.clone(), config.kv.clone(), types).await?;
    let keyspace = KeyspaceName::new(QUOTA)?;
    let mut policy = dist_agent::raft_kv::KeyspacePolicy::of("numbers");
    policy.shards = config.agents.shards;
    kv.register_keyspace(&keyspace, &policy).await?;
    Ok(Hosted::Keys(kv, keyspace, config.call))
}

async fn serve(arguments: &Arguments, agents: bool) -> Result<(), BoxError> {
    let hosted = start(arguments, agents).await?;
    let name = format!("node-{}", arguments.number);
    say(&Answer::Listening { echo: echo::serve(&arguments.certificates, &name)? })?;
    let (mut lines, mut handles) = (orders(), Arc::<[Called]>::from([]));
    while let Some(line) = lines.recv().await {
        let answer = match serde_json::from_str(&line)? {
            Order::Activate { first, agents, clients } => hosted.activate(first, agents, clients).await,
            Order::Call { agents, clients, seconds, kind } => {
                // They are kept from turn to turn: what they cost is not of a call.
                if handles.len() as u64 != agents {
                    handles = (0..agents).map(|number| hosted.called(number)).collect();
                }
                call_all(&handles, clients, Duration::from_secs_f64(seconds), kind).await
            }
            Order::Ticks { agents, ticks } => hosted.set_ticks(agents, ticks).await,
            Order::Outlast { .. } => hosted.outlast().await,
            Order::Status { .. } => Ok(Answer::Status(hosted.standing(arguments.addresses.len()).await)),
            Order::Usage => usage::of_this_process().map(Answer::Usage),
            other => Err(format!("{other:?} is for another kind of node").into()),
        };
        say(&answer.unwrap_or_else(|error| Answer::Failed { reason: error.to_string() }))?;
    }
    Ok(())
}

impl Hosted {
    fn called(&self, number: u64) -> Called {
        let key = format!("agent-{number:08}");
        match self {
            Hosted::Agents(node) => {
                let quota = if number < TIGHT { QUOTA } else { TIGHT_QUOTA };
                Called::Agent(node.agent(quota, &key).expect("a short name"))
            }
            Hosted::Keys(kv, keyspace, options) => {
                Called::Key(kv.clone(), keyspace.clone(), *options, Key::new(key).expect("a short key"))
            }
        }
    }

    /// Gives each agent its first command, once.
    async fn activate(&self, first: u64, agents: u64, clients: usize) -> Result<Answer, BoxError> {
        let start = Instant::now();
        let clients = clients.max(1) as u64;
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let hosted = self.clone();
                tokio::spawn(async move {
                    let mut told = Told::new();
                    for number in (first..first + agents).skip(client as usize).step_by(clients as usize) {
                        told.time(hosted.called(number).call(Kind::Command)).await;
                    }
                    told
                })
            })
            .collect();
        Told::join(tasks, start).await
    }

    async fn set_ticks(&self, agents: u64, ticks: u32) -> Result<Answer, BoxError> {
        let Hosted::Agents(node) = self else { return Err("keys have no ticks".into()) };
        for number in 0..agents {
            let agent: AgentHandle<Counter> = node.agent(QUOTA, &format!("agent-{number:08}"))?;
            agent.command(Count::Ticks(ticks)).await?;
        }
        Ok(Answer::Loaded(Loaded::default()))
    }

    /// The longest time between two replies of the first agent, whose node is about to end; it is seen to be over when
    /// replies have come again for a while.
    async fn outlast(&self) -> Result<Answer, BoxError> {
        let called = self.called(0);
        let start = Instant::now();
        let (mut last, mut longest) = (start, Duration::ZERO);
        while start.elapsed() < OUTLAST_MAX {
            if called.call(Kind::Command).await {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            if longest > Duration::from_millis(100) && start.elapsed() > longest + Duration::from_secs(1) {
                break;
            }
        }
        Ok(Answer::Outlasted { outage_ms: longest.as_secs_f64() * 1000.0 })
    }

    /// How the groups stand that this node leads, and whether the first agent's shard is among them.
    async fn standing(&self, nodes: usize) -> Standing {
        let (Hosted::Agents(node), Called::Agent(agent)) = (self, self.called(0)) else {
            return Standing::default();
        };
        let Some(host) = node.fleet().host() else { return Standing::default() };
        let all = host.statuses().await;
        let log_bytes = all.iter().map(|status| status.log_bytes).sum();
        let snapshot_bytes = all.iter().map(|status| status.snapshot_held_bytes).sum();
        let led: Vec<_> = all.into_iter().filter(|status| status.ready).collect();
        let (whole, led) = (led.iter().all(|status| is_whole(status, nodes)), led.len() as u64);
        let groups = node.fleet().cluster().groups().len() as u64;
        Standing { leads: leads(node, agent.id()).await, whole, led, groups, log_bytes, snapshot_bytes }
    }
}

/// Whether this node leads the shard of an agent.
async fn leads(node: &DistAgent, agent: &AgentId) -> bool {
    let key = [agent.quota.as_str(), agent.agent_type.as_str(), agent.key.as_str()].join("\0");
    let hash = Key::new(key).expect("a short key").hash();
    for shard in node.kv().led_shards("dist-agent").await {
        if shard.read_tally().await.is_ok_and(|tally| tally.range.contains(hash)) {
            return true;
        }
    }
    false
}

/// Whether there is a voter on every node, near and with all that is committed.
fn is_whole(status: &GroupStatus, nodes: usize) -> bool {
    status.members.len() == nodes
        && status.members.iter().all(|member| {
            member.member == status.member
                || (member.voter
                    && member.responsive == Some(true)
                    && member.matched >= Some(status.commit_index))
        })
}

impl Called {
    async fn call(&self, kind: Kind) -> bool {
        match (self, kind) {
            (Called::Agent(agent), Kind::Command) => agent.command(Count::Add(1)).await.is_ok(),
            (Called::Agent(agent), Kind::Query) => agent.query(()).await.is_ok(),
            (Called::Key(kv, keyspace, options, key), Kind::Command) => {
                kv.command(keyspace, key, b"x", options).await.is_ok()
            }
            (Called::Key(kv, keyspace, options, key), Kind::Query) => {
                kv.query(keyspace, key, Freshness::Latest, b"", options).await.is_ok()
            }
        }
    }
}

/// What a client was told, and how long it took.
struct Told {
    latencies: Histogram<u64>,
    errors: u64,
}

impl Told {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are in order");
        Self { latencies, errors: 0 }
    }

    async fn time(&mut self, call: impl Future<Output = bool>) {
        let before = Instant::now();
        if call.await {
            let nanos = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(nanos.max(1));
        } else {
            self.errors += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn join(tasks: Vec<tokio::task::JoinHandle<Self>>, start: Instant) -> Result<Answer, BoxError> {
        let mut all = Self::new();
        for task in tasks {
            let told = task.await?;
            all.latencies.add(told.latencies)?;
            all.errors += told.errors;
        }
        Ok(Answer::Loaded(Loaded::of(&all.latencies, all.errors, start.elapsed())))
    }
}

/// Calls agents at random.
async fn call_all(
    handles: &Arc<[Called]>,
    clients: usize,
    time: Duration,
    kind: Kind,
) -> Result<Answer, BoxError> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let handles = handles.clone();
            tokio::spawn(async move {
                let mut told = Told::new();
                // A walk that meets all of them, in an order of each client's own (Lehmer; Knuth, volume 2, 3.2.1).
                let mut at = random_u64_from_os();
                while start.elapsed() < time {
                    at = at.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    let called = &handles[((at >> 33) % handles.len() as u64) as usize];
                    told.time(called.call(kind)).await;
                }
                told
            })
        })
        .collect();
    Told::join(tasks, start).await
}
