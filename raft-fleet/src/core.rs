//! What all parts of a fleet share on one node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rafted_value::env::{BoxFuture, Env, MonoTime, TaskHandle};
use rafted_value::transport::{CallError, ClusterId, Lane};
use rafted_value::{
    CommandError, Freshness, GroupCaller, GroupId, Host, HostConfig, NodeId, Registry, StoreError, encode,
};
use serde::de::DeserializeOwned;

use crate::call::{Gate, Lines, Target};
use crate::cluster_state::{
    CLUSTER_GROUP, ClusterAnswer, ClusterCommand, ClusterQuery, ClusterReply, ClusterState, NodeEntry,
};
use crate::config::{CallOptions, FleetConfig};
use crate::error::FleetError;
use crate::formation::{Formation, FoundingRecord, Sightings};
use crate::life::Lives;
use crate::membership::Membership;
use crate::node_info::NodeInfo;
use crate::view::Views;
use crate::wire::{FLEET_SERVICE, FleetReply, FleetRequest, ViewReply};

/// Groups that could not be founded and are remembered with the reason, at most; those who added them wait for the answer.
const NOT_FOUNDED_MAX: usize = 1024;

/// Nodes that one refresh of the view asks at most.
const SOURCES_MAX: usize = 3;

/// The shared parts of a fleet on one node.
pub(crate) struct Core {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) config: FleetConfig,
    pub(crate) node: NodeId,
    pub(crate) caller: GroupCaller,
    pub(crate) views: Views,
    pub(crate) lines: Lines,
    /// How many calls of this node's or client's callers may be under way.
    pub(crate) gate: Gate,
    /// What a full node has, and a client has not; on a node with a data directory, once it knows its cluster.
    pub(crate) host: OnceLock<Host>,
    pub(crate) member: Option<Member>,
    /// When nodes that others believe to be gone last asked something here.
    heard: Mutex<BTreeMap<NodeId, MonoTime>>,
    tasks: Mutex<Vec<TaskHandle>>,
    closed: AtomicBool,
}

/// What a full node has besides its host.
pub(crate) struct Member {
    info: Mutex<NodeInfo>,
    /// Whether this node is to hold members, as its program said last.
    wants_members: AtomicBool,
    pub(crate) registry: Registry,
    pub(crate) formation: Mutex<Formation>,
    /// What this node has seen while it looked for a cluster.
    pub(crate) sightings: Mutex<Sightings>,
    /// Woken when the formation may have come to something.
    pub(crate) formed: tokio::sync::Notify,
    /// What its data directory remembered when it started.
    pub(crate) kept: Option<Membership>,
    /// The lives that it has had in its directory, if it has one.
    lives: Mutex<Option<Lives>>,
    /// Why groups that this node was to found could not be, for those who wait for them.
    not_founded: Mutex<BTreeMap<GroupId, String>>,
}

impl Member {
    /// A node in its first moments.
    pub(crate) fn new(
        info: NodeInfo,
        registry: Registry,
        formation: Formation,
        kept: Option<Membership>,
        lives: Option<Lives>,
    ) -> Self {
        Self {
            info: Mutex::new(info),
            wants_members: AtomicBool::new(true),
            registry,
            formation: Mutex::new(formation),
            sightings: Mutex::default(),
            formed: tokio::sync::Notify::new(),
            kept,
            lives: Mutex::new(lives),
            not_founded: Mutex::default(),
        }
    }

    /// The node as it presents itself.
    pub(crate) fn info(&self) -> NodeInfo {
        self.info.lock().clone()
    }

    /// The node is in this zone from now on.
    pub(crate) fn move_to(&self, zone: &str) {
        zone.clone_into(&mut self.info.lock().zone);
    }

    /// Whether the node is to hold members, as its program said last.
    pub(crate) fn wants_members(&self) -> bool {
        self.wants_members.load(Ordering::Acquire)
    }

    pub(crate) fn set_wants_members(&self, wants: bool) {
        self.wants_members.store(wants, Ordering::Release);
    }

    /// Remembers why a group cannot be founded here.
    pub(crate) fn note_not_founded(&self, group: GroupId, reason: String) {
        let mut groups = self.not_founded.lock();
        groups.insert(group, reason);
        if groups.len() > NOT_FOUNDED_MAX {
            groups.pop_first();
        }
    }

    /// Why a group could not be founded here, where that was so lately.
    pub(crate) fn why_not_founded(&self, group: GroupId) -> Option<String> {
        self.not_founded.lock().get(&group).cloned()
    }

    /// The lives that the node has had in its directory, if it has one.
    pub(crate) fn lives(&self) -> Option<Lives> {
        self.lives.lock().clone()
    }

    /// What makes a state list the node just as it presents itself; `None` where it does.
    ///
    /// # Errors
    ///
    /// [`FleetError::Copied`] where the state shows that the node's directory is a copy.
    pub(crate) fn missing_in(
        &self,
        state: &ClusterState,
        cluster: ClusterId,
        env: &Arc<dyn Env>,
    ) -> Result<Option<ClusterCommand>, FleetError> {
        let node = self.info();
        let is_listed = state.nodes().get(&node.node) == Some(&<(NodeId, NodeEntry)>::from(node.clone()).1);
        let Some(lives) = self.lives() else {
            return Ok((!is_listed).then_some(ClusterCommand::Join { node, cluster }));
        };
        let from = state.lives().get(&node.node).copied();
        let life = lives.present_in(state, env)?;
        let is_missing = !is_listed || from != Some(life);
        Ok(is_missing.then_some(ClusterCommand::JoinInLife { node, cluster, from, life }))
    }

    /// The cluster lists the node as it presents itself: its directory remembers in which life.
    pub(crate) async fn keep_life(&self, state: &ClusterState, env: &Arc<dyn Env>) -> Result<(), FleetError> {
        let Some(lives) = self.lives() else { return Ok(()) };
        let life = lives.present_in(state, env)?;
        let lives = lives.taken_in(life);
        *self.lives.lock() = Some(lives.clone());
        lives.save(env).await
    }
}

impl Core {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        config: FleetConfig,
        host: Option<Host>,
        member: Option<Member>,
    ) -> Arc<Self> {
        let node = env.transport().local().node;
        Arc::new(Self {
            caller: GroupCaller::new(env.clone()),
            lines: Lines::new(config.sessions, config.session_waiting_max),
            gate: Gate::new(config.calls_max),
            views: Views::new(),
            env,
            config,
            node,
            host: host.map_or_else(OnceLock::new, OnceLock::from),
            member,
            heard: Mutex::new(BTreeMap::new()),
            tasks: Mutex::new(Vec::new()),
            closed: AtomicBool::new(false),
        })
    }

    /// This node belongs to a cluster from now on: its directory remembers that before it keeps anything else, and only
    /// then has it a host. Without a directory there is nothing to do.
    pub(crate) async fn settle(
        &self,
        member: &Member,
        cluster: ClusterId,
        record: Option<FoundingRecord>,
    ) -> Result<(), FleetError> {
        if let Some(expected) = self.config.host.cluster.filter(|expected| *expected != cluster) {
            return Err(FleetError::WrongCluster { found: cluster, expected });
        }
        if self.host.get().is_some() {
            return Ok(());
        }
        if member.kept.is_none() {
            Membership { node: self.node, cluster, record }.save(&self.env).await?;
        }
        let host = open_host(&self.env, &self.config, &member.registry, Some(cluster)).await?;
        if let Err(host) = self.host.set(host) {
            debug_assert!(false, "only the start of a fleet opens its host");
            host.shutdown().await;
        }
        // Before the cluster can hear of the life that begins, and only in a directory that proved to be the node's.
        match member.lives() {
            Some(lives) => lives.save(&self.env).await,
            None => Ok(()),
        }
    }

    /// A node has asked something here, so it lives.
    pub(crate) fn note_heard(&self, node: NodeId) {
        let view = self.views.current();
        let suspects = view.state.suspects();
        if suspects.contains_key(&node) {
            let mut heard = self.heard.lock();
            heard.retain(|node, _| suspects.contains_key(node));
            heard.insert(node, self.env.now());
        }
    }

    /// Whether a suspected node has asked something here within this time.
    pub(crate) fn has_heard(&self, node: NodeId, within: Duration) -> bool {
        let at = self.heard.lock().get(&node).copied();
        at.is_some_and(|at| self.env.now().since(at) <= within)
    }

    /// Runs a task until it ends or the fleet is shut down.
    pub(crate) fn run(&self, name: &'static str, task: BoxFuture<()>) {
        let mut tasks = self.tasks.lock();
        if !self.is_closed() {
            tasks.push(self.env.spawn(name, task));
        }
    }

    /// Whether the fleet was shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends all tasks and the host.
    pub(crate) async fn shutdown(&self) {
        let tasks = {
            let mut tasks = self.tasks.lock();
            self.closed.store(true, Ordering::Release);
            std::mem::take(&mut *tasks)
        };
        tasks.iter().for_each(TaskHandle::abort);
        if let Some(host) = self.host.get() {
            host.shutdown().await;
        }
    }

    /// Changes the cluster state.
    pub(crate) async fn change_cluster(
        &self,
        command: &ClusterCommand,
        options: &CallOptions,
    ) -> Result<ClusterReply, CommandError> {
        let deadline = self.env.now() + options.timeout;
        let reply = self.command_to(self.cluster(), 0, encode(command), options, deadline).await?;
        self.views.refresh_soon();
        decode(&reply).map_err(|reason| rafted_value::Unknown::ConnectionLost(reason).into())
    }

    /// Reads the cluster state from the leader of its group.
    pub(crate) async fn ask_cluster(
        &self,
        query: &ClusterQuery,
        limit: Duration,
    ) -> Result<ClusterAnswer, FleetError> {
        let options = self.config.call.with_timeout(limit);
        let deadline = self.env.now() + limit;
        let answer =
            self.query_to(self.cluster(), Freshness::Latest, encode(query), &options, deadline).await?;
        decode(&answer).map_err(FleetError::Malformed)
    }

    /// Brings the view to what the cluster group holds now.
    pub(crate) async fn refresh_latest(&self, limit: Duration) -> Result<(), FleetError> {
        let revision = self.views.current().state.revision();
        if let ClusterAnswer::State(state) =
            self.ask_cluster(&ClusterQuery::Since { revision }, limit).await?
        {
            self.learn(*state);
        }
        Ok(())
    }

    /// Takes in a cluster state, unless a newer one is known.
    pub(crate) fn learn(&self, state: ClusterState) {
        if self.views.learn(self.env.as_ref(), state) {
            let view = self.views.current();
            self.lines.retain(|group| view.lists(group));
        }
    }

    /// Asks the nearest source for a newer cluster state; says whether one answered.
    pub(crate) async fn refresh(&self, turn: usize) -> bool {
        // The own member may have been left behind without knowing it, so now and then another node is asked.
        if !turn.is_multiple_of(4) && self.refresh_from_own_member().await {
            return true;
        }
        let sources = self.views.sources(self.node);
        for asked in 0..sources.len().min(SOURCES_MAX) {
            let node = sources[(turn / 4 + asked) % sources.len()];
            let limit = self.patience(node, &self.config.call, || sources.clone());
            if self.refresh_from(node, limit).await {
                return true;
            }
        }
        self.refresh_from_own_member().await
    }

    /// Takes in what a node knows of the cluster state, where that is newer; says whether it answered.
    pub(crate) async fn refresh_from(&self, node: NodeId, limit: Duration) -> bool {
        let revision = self.views.current().state.revision();
        match self.ask(node, &FleetRequest::View { revision }, limit).await {
            Ok(FleetReply::View(ViewReply::State(state))) => {
                self.learn(*state);
                true
            }
            Ok(FleetReply::View(ViewReply::Unchanged)) => true,
            Ok(_) | Err(_) => false,
        }
    }

    async fn refresh_from_own_member(&self) -> bool {
        let Some(host) = self.host.get() else { return false };
        let revision = self.views.current().state.revision();
        let query = encode(&ClusterQuery::Since { revision });
        let limit = self.config.call.attempt_timeout;
        let answer = host.query(CLUSTER_GROUP, Freshness::Stale, query, limit).await;
        match answer.map(|answer| decode::<ClusterAnswer>(&answer)) {
            Ok(Ok(ClusterAnswer::State(state))) => self.learn(*state),
            Ok(Ok(ClusterAnswer::Unchanged)) => (),
            Ok(_) | Err(_) => return false,
        }
        true
    }

    /// For how long one attempt at a node waits. One without a connection, while others have theirs, most likely has
    /// ended: somebody else is asked meanwhile, and the dial goes on.
    pub(crate) fn patience(
        &self,
        node: NodeId,
        options: &CallOptions,
        others: impl FnOnce() -> Vec<NodeId>,
    ) -> Duration {
        let transport = self.env.transport();
        let limit = options.attempt_timeout;
        if node == self.node || transport.is_connected(node) {
            return limit;
        }
        let elsewhere = |other: &NodeId| *other != node && transport.is_connected(*other);
        if others().iter().any(elsewhere) { limit.min(options.retry_interval) } else { limit }
    }

    /// Calls the fleet's service on a node.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        request: &FleetRequest,
        limit: Duration,
    ) -> Result<FleetReply, CallError> {
        let transport = self.env.transport();
        let reply = transport.call(node, Lane::Normal, FLEET_SERVICE, encode(request), limit).await?;
        Ok(decode(&reply).unwrap_or_else(FleetReply::Malformed))
    }

    /// A time between half and one and a half of `interval`, so that nodes do not act in step.
    pub(crate) fn jittered(&self, interval: Duration) -> MonoTime {
        self.env.now() + self.half_and_up_to(interval, 2)
    }

    /// Half of `interval`, and up to so many more halves of it.
    pub(crate) fn half_and_up_to(&self, interval: Duration, halves: u64) -> Duration {
        let half = interval / 2;
        let half_nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let jitter = self.env.random_u64() % half_nanos.saturating_mul(halves).saturating_add(1);
        half.saturating_add(Duration::from_nanos(jitter))
    }

    fn cluster(&self) -> Target {
        Target::new(CLUSTER_GROUP, &self.config.cluster_group)
    }
}

/// Opens what a node of a cluster kept, which is refused if it is that of a node of another one; without a disk everything
/// is in memory.
pub(crate) async fn open_host(
    env: &Arc<dyn Env>,
    config: &FleetConfig,
    registry: &Registry,
    cluster: Option<ClusterId>,
) -> Result<Host, FleetError> {
    let config = HostConfig { cluster: cluster.or(config.host.cluster), ..config.host.clone() };
    let opened = Host::open(Arc::clone(env), config, registry.clone()).await;
    opened.map_err(|error| match error {
        StoreError::OtherCluster { found, expected } => {
            other_cluster(env, ClusterId(found), ClusterId(expected))
        }
        error => FleetError::Storage(error.to_string()),
    })
}

/// The node's directory is that of a node of another cluster.
pub(crate) fn other_cluster(env: &Arc<dyn Env>, found: ClusterId, expected: ClusterId) -> FleetError {
    let directory = env.disk().map_or_else(String::new, |disk| disk.place());
    FleetError::OtherCluster { directory, found, expected }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    postcard::from_bytes(bytes).map_err(|error| error.to_string())
}
