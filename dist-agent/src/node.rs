//! A node that hosts agents, or a client that only talks to them.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use raft_kv::raft_fleet::{Fleet, FleetError};
use raft_kv::rafted_value::env::{Env, TaskHandle, sleep, timeout};
use raft_kv::rafted_value::{Data, GroupConfig};
use raft_kv::{KeyspaceName, KeyspacePolicy, KeyspaceState, Kv, KvError, KvTypes};

use crate::agent::Agent;
use crate::agent_id::{AgentId, AgentIdError, AgentKey, AgentTypeName, QuotaName};
use crate::agent_types::AgentTypes;
use crate::agent_values::AgentValues;
use crate::agreed;
use crate::answers::Answers;
use crate::config::{DistAgentConfig, VALUE_TYPE};
use crate::error::StartError;
use crate::handle::AgentHandle;
use crate::quota::{self, Desk, Ledger, Reporter};
use crate::quotas;
use crate::rate_limits::RateLimits;
use crate::versions::Versions;

/// A node of the cluster, or a client of it. Cheap to clone; all clones are one. It goes on until it is told to
/// [`shutdown`](Self::shutdown), whether or not anybody holds it.
#[derive(Clone)]
pub struct DistAgent {
    kv: Kv,
    shared: Arc<Shared>,
}

struct Shared {
    /// The types that this node hosts; none for a client, which knows those that its program names.
    types: Option<AgentTypes>,
    config: DistAgentConfig,
    desk: Desk,
    rate_limits: RateLimits,
    answers: Answers,
    versions: Arc<Versions>,
    /// They end with [`DistAgent::shutdown`].
    tasks: Vec<TaskHandle>,
}

/// The one keyspace in which all agents live.
pub(crate) fn keyspace() -> &'static KeyspaceName {
    static NAME: LazyLock<KeyspaceName> =
        LazyLock::new(|| KeyspaceName::new("dist-agent").expect("a name without slashes"));
    &NAME
}

impl DistAgent {
    /// Makes this process a node that hosts agents of these types; returns once it is part of a cluster in which
    /// agents can be activated.
    ///
    /// Every node may be started in this way, at the same time or later, any number of times.
    ///
    /// # Errors
    ///
    /// When two types share a name, a setting cannot work, or the node cannot become part of a cluster in time.
    pub async fn start(
        env: Arc<dyn Env>,
        mut config: DistAgentConfig,
        types: AgentTypes,
    ) -> Result<Self, StartError> {
        types.validate()?;
        config.validate().map_err(StartError::InvalidConfig)?;
        let policy = config.agents.keyspace_policy();
        let values = KvTypes::new().with(VALUE_TYPE, AgentValues::new(types.clone())).with_data::<Ledger>();
        let kv = Kv::start(env, config.fleet.clone(), config.kv.clone(), values).await?;
        let versions = match prepare(&kv, &mut config, &policy, &types).await {
            Ok(versions) => versions,
            Err(error) => {
                give_back(kv.fleet()).await;
                kv.shutdown().await;
                return Err(error);
            }
        };
        Ok(Self::run(kv, config, Some(types), versions))
    }

    fn run(kv: Kv, config: DistAgentConfig, types: Option<AgentTypes>, versions: Versions) -> Self {
        let env = kv.fleet().env();
        let desk = Desk::new(kv.fleet().clone(), &config);
        let rate_limits = RateLimits::new(env, config.rate_limits_max);
        let answers = Answers::new(config.answers_max);
        let versions = Arc::new(versions);
        let keep = Arc::clone(&versions).keep(
            kv.fleet().clone(),
            config.call.as_essential(),
            config.versions_interval,
        );
        let mut tasks = vec![env.spawn("agent-versions", Box::pin(keep))];
        if types.is_some() {
            let reporter = Reporter::new(kv.clone(), config.call.as_essential(), config.quota_interval);
            tasks.push(env.spawn("quota-reporter", Box::pin(reporter.run())));
        }
        let shared = Shared { types, config, desk, rate_limits, answers, versions, tasks };
        Self { kv, shared: Arc::new(shared) }
    }

    /// Connects to a cluster without hosting anything; returns once agents can be activated there.
    ///
    /// # Errors
    ///
    /// When a setting cannot work, no seed answers, or the cluster is not ready for agents in time.
    pub async fn connect(env: Arc<dyn Env>, mut config: DistAgentConfig) -> Result<Self, StartError> {
        config.validate().map_err(StartError::InvalidConfig)?;
        let kv = Kv::connect(Arc::clone(&env), config.fleet.clone(), config.kv.clone()).await?;
        let ready: Result<Versions, StartError> = async {
            wait_until_ready(&kv, &config, env.as_ref()).await?;
            agreed::ask(kv.fleet(), &mut config).await?;
            Ok(Versions::ask(kv.fleet(), &config).await?)
        }
        .await;
        match ready {
            Ok(versions) => Ok(Self::run(kv, config, None, versions)),
            Err(error) => {
                kv.shutdown().await;
                Err(error)
            }
        }
    }

    /// A handle to the agent of type `A` with this key in this quota. Sends nothing, and activates nothing.
    ///
    /// # Errors
    ///
    /// When the quota or the key cannot work, or this node hosts agents and does not know the type.
    pub fn agent<A: Agent>(&self, quota: &str, key: &str) -> Result<AgentHandle<A>, AgentIdError> {
        let agent_type = AgentTypeName::new(A::TYPE)?;
        if let Some(types) = &self.shared.types
            && !types.contains(&agent_type)
        {
            return Err(AgentIdError::UnknownAgentType(A::TYPE.to_owned()));
        }
        let id = AgentId { quota: QuotaName::new(quota)?, agent_type, key: AgentKey::new(key)? };
        Ok(AgentHandle::new(self.clone(), id))
    }

    /// A handle to the agent with this identity: one that was serialised, or listed.
    ///
    /// # Errors
    ///
    /// When the identity is of another type, or this node hosts agents and does not know the type.
    pub fn handle<A: Agent>(&self, id: &AgentId) -> Result<AgentHandle<A>, AgentIdError> {
        if id.agent_type.as_str() != A::TYPE {
            let (named, wanted) = (id.agent_type.as_str().to_owned(), A::TYPE);
            return Err(AgentIdError::OtherType { named, wanted });
        }
        self.agent(id.quota.as_str(), id.key.as_str())
    }

    /// The length of a tick, the same on all nodes and clients of the cluster.
    pub fn tick_interval(&self) -> Duration {
        self.shared.config.tick_interval
    }

    /// How many agents the members on this node hold, as leaders or as followers.
    pub async fn local_agents(&self) -> u64 {
        self.kv.local_shards(VALUE_TYPE).await.iter().map(|shard| shard.keys).sum()
    }

    pub(crate) fn config(&self) -> &DistAgentConfig {
        &self.shared.config
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.shared.answers
    }

    pub(crate) fn versions(&self) -> &Versions {
        &self.shared.versions
    }

    pub(crate) fn rate_limits(&self) -> &RateLimits {
        &self.shared.rate_limits
    }

    /// The store below.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// The fleet below the store.
    pub fn fleet(&self) -> &Fleet {
        self.kv.fleet()
    }

    /// Waits until the cluster bears the loss of any one node without losing an agent: every group has a leader and all its
    /// members, each up to date. Whoever restarts node after node waits for this in between; a node that has just started is
    /// part of the cluster before it holds its members.
    ///
    /// # Errors
    ///
    /// After `limit`, with what was missing last.
    pub async fn wait_until_whole(&self, limit: Duration) -> Result<(), FleetError> {
        self.fleet().wait_until_whole(limit).await
    }

    /// Ends this node or client. The agents live on where the cluster has other members of their shards.
    pub async fn shutdown(&self) {
        self.shared.tasks.iter().for_each(TaskHandle::abort);
        self.kv.shutdown().await;
    }
}

async fn wait_until_ready(kv: &Kv, config: &DistAgentConfig, env: &dyn Env) -> Result<(), StartError> {
    let limit = config.ready_timeout;
    let deadline = env.now() + limit;
    loop {
        let last = match kv.list_keyspaces().await {
            Ok(keyspaces) => match keyspaces.iter().find(|found| found.name == *keyspace()) {
                Some(found) if found.state == KeyspaceState::Ready => return Ok(()),
                Some(_) => "its shards are being made".to_owned(),
                None => "no node that hosts agents has started".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        if env.now() >= deadline {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            return Err(StartError::NotReady { limit_ms, last });
        }
        sleep(env, config.call.retry_interval).await;
    }
}

/// How long others may take to have what a node holds that is not to be.
const GIVE_BACK_MAX: Duration = Duration::from_secs(30);

/// A node that cannot be part of the cluster after all may have been given members before it knew. Without a disk they end with
/// it, so that others take them first: one that was just added to a group in the place of a lost one would be the second that the
/// group loses.
async fn give_back(fleet: &Fleet) {
    if fleet.env().disk().is_some() {
        return;
    }
    let emptied = timeout(fleet.env().as_ref(), GIVE_BACK_MAX, async {
        fleet.deactivate().await?;
        fleet.drained(GIVE_BACK_MAX).await
    });
    match emptied.await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::warn!(%error, "what this node holds in memory ends with it"),
        None => tracing::warn!(limit = ?GIVE_BACK_MAX, "what this node holds in memory ends with it"),
    }
}

/// Makes sure that there is everything that agents need. The keyspace comes last: who sees that it is ready may rely on
/// the rest.
async fn prepare(
    kv: &Kv,
    config: &mut DistAgentConfig,
    policy: &KeyspacePolicy,
    types: &AgentTypes,
) -> Result<Versions, StartError> {
    make_ledger(kv, config).await?;
    agreed::say(kv.fleet(), config).await?;
    let versions = Versions::join(kv.fleet(), config, types.clone()).await?;
    register(kv, policy).await?;
    Ok(versions)
}

/// Makes sure that the group of the ledger of quotas is there. It is kept as the agents are: a ledger that was lost while
/// they live on would know none of them.
async fn make_ledger(kv: &Kv, config: &DistAgentConfig) -> Result<(), FleetError> {
    let (fleet, group) = (kv.fleet(), quotas::group());
    let deadline = fleet.env().now() + config.kv.creation_timeout;
    let replicas = config.agents.replicas as usize;
    let settings = ledger_settings(&config.agents.group);
    loop {
        let added = match fleet.add_group(group.clone(), Ledger::NAME, replicas, settings.clone()).await {
            // Somebody else, or this node in an earlier life, is making it.
            Err(FleetError::AlreadyAdded { .. }) => fleet.await_group(&group).await,
            added => added,
        };
        match added {
            Ok(_) => return Ok(()),
            Err(error) if fleet.env().now() >= deadline => return Err(error),
            Err(error) => tracing::debug!(%error, "the ledger of quotas is not there yet"),
        }
        sleep(fleet.env().as_ref(), config.call.retry_interval).await;
    }
}

/// The ledger's group is as those of the agents are, but for its commands: however little an agent may be told, what is told
/// of quotas goes by the hundreds, and a report of a shard names every quota of which there are agents.
fn ledger_settings(agents: &GroupConfig) -> GroupConfig {
    let session_replies_max = agents.session_replies_max.max(GroupConfig::default().session_replies_max);
    GroupConfig { command_bytes_max: quota::COMMAND_BYTES_MAX, session_replies_max, ..agents.clone() }
}

/// Makes sure that the agents' keyspace is there. The first node of a cluster decides how the agents are spread; one
/// that comes later with other wishes takes what it finds, since it could do no good by staying away.
async fn register(kv: &Kv, wanted: &KeyspacePolicy) -> Result<(), KvError> {
    match kv.register_keyspace(keyspace(), wanted).await {
        Err(KvError::AlreadyRegistered { present, .. }) if present.value_type == wanted.value_type => {
            let differences = present.differences(wanted);
            tracing::warn!(
                differences,
                "the cluster spreads its agents otherwise than this node's settings say"
            );
            kv.register_keyspace(keyspace(), &present).await
        }
        registered => registered,
    }
}

impl fmt::Debug for DistAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistAgent").field("types", &self.shared.types).finish_non_exhaustive()
    }
}
