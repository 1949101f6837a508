//! The thin shell around the engines: inboxes, loops, timers and the transport.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::arrivals::Arrivals;
use crate::config::{GroupConfig, HostConfig};
use crate::driver::{Driver, clocks};
use crate::engine::{Engine, Found, Input};
use crate::env::{Env, TaskHandle, timeout};
use crate::errand::Errands;
use crate::error::{CommandError, GroupError, NotApplied, QueryError, Unknown};
use crate::group::change::{ChangeRequest, Removal};
use crate::id::{GroupId, MemberId, NodeId};
use crate::neighbours::LoopId;
use crate::open::{OpenStore, Part};
use crate::outputs::Outputs;
use crate::registry::Registry;
use crate::request::{Command, Freshness};
use crate::service::{GROUP_SERVICE, GroupService, LOOP_SERVICE, LoopService, PEER_SERVICE, PeerService};
use crate::status::GroupStatus;
use crate::store::StoreError;
use crate::transport::{PeerChange, PeerEvent};
use crate::waiter::Waiter;
use crate::writer::Writer;

/// What a caller who is refused by a full inbox is told to wait.
const RETRY_AFTER_MS: u64 = 20;

/// One part in this many of an inbox is kept free of clients: under a flood of commands, heartbeats still come in.
const CLIENTS_RESERVE: usize = 8;

/// All groups that have a member on this node. Cheap to clone; the loops run until [`shutdown`](Host::shutdown).
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    env: Arc<dyn Env>,
    node: NodeId,
    registry: Registry,
    inboxes: Inboxes,
    loops: Vec<TaskHandle>,
    /// The tasks that write, on a host that keeps anything.
    writer: Option<Writer>,
    handover_max: Duration,
}

/// The inboxes of a node's loops; a group belongs to one of them for ever.
#[derive(Clone)]
pub(crate) struct Inboxes(Arc<[mpsc::Sender<Input>]>);

impl Inboxes {
    /// The loop that owns a group.
    pub(crate) fn of(&self, group: GroupId) -> usize {
        loop_of(group, self.0.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts an input in front of a loop; gives it back when the inbox is full or the loop has ended.
    #[allow(clippy::result_large_err, reason = "an input that is refused goes back to who waits for it")]
    pub(crate) fn put(&self, position: usize, input: Input) -> Result<(), Refusal> {
        let inbox = &self.0[position];
        let of_client = matches!(input, Input::Command { .. } | Input::Query { .. });
        if of_client && inbox.capacity() <= inbox.max_capacity() / CLIENTS_RESERVE {
            return Err(Refusal { input, full: true });
        }
        inbox.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(input) => Refusal { input, full: true },
            mpsc::error::TrySendError::Closed(input) => Refusal { input, full: false },
        })
    }

    /// Puts an input in front of a loop as soon as there is room.
    async fn wait_for(&self, position: usize, input: Input) {
        if let Err(mpsc::error::SendError(input)) = self.0[position].send(input).await {
            Refusal { input, full: false }.answer();
        }
    }
}

/// Which of `loops` loops a group belongs to, by a hash of its id (Fibonacci hashing; Knuth, volume 3, section 6.4).
pub(crate) fn loop_of(group: GroupId, loops: usize) -> usize {
    let hash = group.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (hash % loops as u64) as usize
}

/// An input that no loop took.
pub(crate) struct Refusal {
    pub(crate) input: Input,
    pub(crate) full: bool,
}

impl Refusal {
    /// Tells whoever waits that nothing was done.
    pub(crate) fn answer(self) {
        let not_applied = if self.full {
            NotApplied::Overloaded { retry_after_ms: RETRY_AFTER_MS }
        } else {
            NotApplied::ShuttingDown
        };
        let query_error = if self.full {
            QueryError::Overloaded { retry_after_ms: RETRY_AFTER_MS }
        } else {
            QueryError::ShuttingDown
        };
        match self.input {
            Input::Command { waiter, .. } => waiter.answer(Err(not_applied.into())),
            Input::Query { waiter, .. } => waiter.answer(Err(query_error)),
            Input::Found { waiter, .. }
            | Input::Restore { waiter, .. }
            | Input::Change { waiter, .. }
            | Input::Transfer { waiter, .. }
            | Input::Drop { waiter, .. }
            | Input::Stop { waiter } => waiter.answer(Err(GroupError::Unavailable)),
            Input::Statuses { waiter, .. } => waiter.answer(Vec::new()),
            Input::Retire { waiter, .. } => waiter.answer(Err(GroupError::Unavailable)),
            Input::Peer { .. } => metrics::counter!("rafted_value_peer_batches_dropped_total").increment(1),
            // Then its silence will tell.
            Input::Beat { .. } => metrics::counter!("rafted_value_peer_batches_dropped_total").increment(1),
            Input::Doubt { .. } | Input::Death { .. } => {
                metrics::counter!("rafted_value_deaths_missed_total").increment(1);
            }
            Input::Disk(_) | Input::Errand(_) => {
                debug_assert!(false, "what the disk says, and what is done, has its own way to a loop");
            }
        }
    }
}

impl Host {
    /// Starts the loops and registers the services through which other nodes reach them. Everything is in memory, even
    /// if the node has a disk.
    ///
    /// A data type that [`Registry::validate`] complains of is left out, and whoever founds a group of it is told why. Settings
    /// out of their limits are taken as [`HostConfig::within_limits`] has them.
    pub fn start(env: Arc<dyn Env>, config: HostConfig, registry: Registry) -> Host {
        if let Err(mistake) = registry.validate() {
            tracing::error!(mistake, "a data type cannot be hosted");
        }
        Self::run(env, config, registry, None)
    }

    /// The same for a node that keeps its groups on the disk behind `env`, as each group's
    /// [`durability`](crate::GroupConfig::durability) says; those that it kept are there again. Without a disk it is
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// When the disk cannot be read, is damaged, in use, or another node's or cluster's. Nothing is overwritten then. A
    /// damaged file of one member only fences that member. [`StoreError::InvalidConfig`] when a data type, or a setting of
    /// the store, cannot work.
    pub async fn open(env: Arc<dyn Env>, config: HostConfig, registry: Registry) -> Result<Host, StoreError> {
        let Some(disk) = env.disk().cloned() else {
            return Ok(Self::start(env, config, registry));
        };
        registry.validate().map_err(StoreError::InvalidConfig)?;
        let store =
            OpenStore::open(&env, disk, config.store.clone(), config.cluster, registry.clone()).await?;
        Ok(Self::run(env, config, registry, Some(store)))
    }

    fn run(env: Arc<dyn Env>, config: HostConfig, registry: Registry, store: Option<OpenStore>) -> Host {
        let node = env.transport().local().node;
        let asked = config;
        let config = asked.clone().within_limits();
        if config != asked {
            tracing::warn!(%node, ?asked, ?config, "settings are out of their limits; the nearest are taken");
        }
        let count = config.loops;
        let (mut senders, mut loops, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let (parts, writer) = match store {
            Some(store) => {
                let (parts, writer) = store.share_out(&env, count);
                (parts, Some(writer))
            }
            None => (Vec::new(), None),
        };
        let arrivals = Arrivals::new(config.snapshots_incoming_max);
        let parts = parts.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for part in parts.take(count) {
            let (sender, inbox) = mpsc::channel(config.inbox_max);
            let id = LoopId(env.random_u64());
            ids.push(id);
            let (arrivals, seed) = (arrivals.clone(), env.random_u64());
            let mut engine = Engine::new((node, id), config.clone(), registry.clone(), arrivals, seed);
            let mut out = Outputs::default();
            let disk = part.map(|part| {
                let Part { members, damaged, ended, line } = part;
                engine.recover(members, damaged, ended, clocks(env.as_ref()), &mut out);
                line
            });
            let inputs_max = config.turn_inputs_max;
            let errands = Errands::new();
            let driver = Driver { env: env.clone(), engine, inbox, disk, errands, inputs_max, alarm: None };
            loops.push(env.spawn("rafted-value loop", Box::pin(driver.run(out))));
            senders.push(sender);
        }
        let inboxes = Inboxes(senders.into());
        env.transport().register(PEER_SERVICE, Arc::new(PeerService::new(inboxes.clone())));
        env.transport().register(LOOP_SERVICE, Arc::new(LoopService::new(inboxes.clone(), ids)));
        env.transport().register(GROUP_SERVICE, Arc::new(GroupService::new(inboxes.clone())));
        loops.push(env.spawn("rafted-value deaths", Box::pin(watch_deaths(env.clone(), inboxes.clone()))));
        let handover_max = config.handover_max;
        Host { shared: Arc::new(Shared { env, node, registry, inboxes, loops, writer, handover_max }) }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The door that this host goes through.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.shared.env
    }

    /// Founds a group with a first member on this node.
    ///
    /// # Errors
    ///
    /// [`GroupError::AlreadyExists`] if this node has or had a member of it; [`GroupError::NoSuchData`] and
    /// [`GroupError::InvalidConfig`] name what is wrong.
    pub async fn found(&self, found: Found) -> Result<MemberId, GroupError> {
        let group = found.group;
        self.ask_member(group, |waiter| Input::Found { found, keepsake: None, waiter }).await
    }

    /// Adds a member on `node` that receives everything and does not vote yet; its id. Its host makes it when the
    /// leader's first message comes. If the group has a member there already, its id is given.
    ///
    /// # Errors
    ///
    /// When this node does not lead the group, or another change is under way.
    pub async fn add_learner(&self, group: GroupId, node: NodeId) -> Result<MemberId, GroupError> {
        self.change(group, ChangeRequest::AddLearner(node)).await
    }

    /// Makes a learner that has caught up a voter; does nothing if it is one. Done means that it survives the loss of any
    /// minority of the voters, this leader included: a quorum of them knows that there is one more.
    ///
    /// # Errors
    ///
    /// [`GroupError::NotCaughtUp`] while it lacks more than a few entries; when this node does not lead the group, or
    /// another change is under way. [`GroupError::Unknown`] when it lost the leadership meanwhile.
    pub async fn promote(&self, group: GroupId, member: MemberId) -> Result<(), GroupError> {
        self.change(group, ChangeRequest::Promote(member)).await.map(drop)
    }

    /// Removes a member for ever, and says whether it was there. Done means that a quorum of the voters that are left
    /// knows, so that the member's node may be switched off.
    ///
    /// # Errors
    ///
    /// When the member is the leader itself or never was a member, when too few voters that the leader has heard of
    /// would be left, while another change or a transfer of the leadership is under way, and when this node does not
    /// lead the group.
    pub async fn remove_member(&self, group: GroupId, member: MemberId) -> Result<Removal, GroupError> {
        match self.change(group, ChangeRequest::Remove(member)).await {
            Ok(_) => Ok(Removal::Removed),
            Err(GroupError::NotMember { removed: true, .. }) => Ok(Removal::GoneBefore),
            Err(error) => Err(error),
        }
    }

    /// Removes a member from the membership as this node's member knows it, with no regard to what others know.
    ///
    /// **Unsafe by design.** For a group that has lost the majority of its members for good, and for nothing else: call
    /// it on every survivor, for every member that is lost; then the survivors elect a leader among themselves. What
    /// only the lost members held is lost. Where a member that was removed in this way lives on with enough others to
    /// lead, there are two groups of the same name from then on, and both answer. No log entry is written, and a member
    /// whose node was not told goes on waiting for the lost ones.
    ///
    /// # Errors
    ///
    /// When there is no such member, when it is this node's own, or when no voter would be left.
    pub async fn force_remove_member(&self, group: GroupId, member: MemberId) -> Result<(), GroupError> {
        self.change(group, ChangeRequest::ForceRemove(member)).await.map(drop)
    }

    /// Gives the group new settings. They are in force on each member when it applies the change, without a restart;
    /// what followers have promised to a leader, and replies that are kept, stay what they are.
    ///
    /// # Errors
    ///
    /// [`GroupError::InvalidConfig`] names what cannot work; when this node does not lead the group, and while another
    /// change or a transfer of the leadership is under way.
    pub async fn change_config(&self, group: GroupId, config: GroupConfig) -> Result<(), GroupError> {
        self.change(group, ChangeRequest::Configure(Box::new(config))).await.map(drop)
    }

    /// Hands the leadership of a group that this node leads over to `target`, and waits until that is done. A later call
    /// overrides an earlier one; `None` cancels what is under way, and the leader stays.
    ///
    /// Commands that come meanwhile wait: they are put into the log if the transfer is given up, and are refused with
    /// `NotLeader`, which names the successor, if it succeeds. Queries are not answered under a lease meanwhile. Where
    /// the leadership has not moved within an election timeout, the transfer is given up.
    ///
    /// # Errors
    ///
    /// When `target` is no voter of the group or has not been heard of for an election timeout, when this node does not
    /// lead the group, while another change is under way, and when the leadership went elsewhere or nowhere.
    pub async fn replace_leader(&self, group: GroupId, target: Option<MemberId>) -> Result<(), GroupError> {
        self.ask_member(group, |waiter| Input::Transfer { group, target, waiter }).await.map(drop)
    }

    /// Ends this node's member of a group that exists no more; no later member of it will live on this node.
    ///
    /// # Errors
    ///
    /// [`GroupError::Unavailable`] when the host is overloaded or shuts down.
    pub async fn drop_member(&self, group: GroupId) -> Result<(), GroupError> {
        self.bury(group, MemberId(u64::MAX)).await
    }

    /// Ends this node's member of a group, and any before it, for ever; a later one may live on this node.
    ///
    /// For a member that its group has removed and that nobody is left to tell: a leader that names this node's member no
    /// more, in a term that is not before that of the member, is proof that it was removed.
    ///
    /// # Errors
    ///
    /// [`GroupError::Unavailable`] when the host is overloaded or shuts down.
    pub async fn drop_former_member(&self, group: GroupId, member: MemberId) -> Result<(), GroupError> {
        self.bury(group, member).await
    }

    /// Ends this node's member of a group, and any up to `newest`, for ever.
    pub(crate) async fn bury(&self, group: GroupId, newest: MemberId) -> Result<(), GroupError> {
        self.ask_member(group, |waiter| Input::Drop { group, newest, waiter }).await.map(drop)
    }

    /// Sends a command to this node's member of a group, which must lead it.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotApplied`] if it surely changed nothing, else [`CommandError::Unknown`].
    pub async fn command(
        &self,
        group: GroupId,
        command: Command,
        limit: Duration,
    ) -> Result<Bytes, CommandError> {
        let (waiter, answer) = Waiter::local();
        self.put(group, Input::Command { group, command, waiter });
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match timeout(self.shared.env.as_ref(), limit, answer).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Unknown::Stopped(group).into()),
            None => Err(Unknown::Timeout { limit_ms }.into()),
        }
    }

    /// Asks this node's member of a group; it must lead the group unless a stale answer will do.
    ///
    /// # Errors
    ///
    /// When there is no such member, it does not lead, or no answer comes in time.
    pub async fn query(
        &self,
        group: GroupId,
        freshness: Freshness,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, QueryError> {
        let (waiter, answer) = Waiter::local();
        self.put(group, Input::Query { group, freshness, payload, waiter });
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match timeout(self.shared.env.as_ref(), limit, answer).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(QueryError::ShuttingDown),
            None => Err(QueryError::Timeout { limit_ms }),
        }
    }

    /// What this node's member of a group says of itself; `None` if there is none, or the host has shut down. An
    /// overloaded node answers late.
    pub async fn status(&self, group: GroupId) -> Option<GroupStatus> {
        let position = self.shared.inboxes.of(group);
        self.statuses_of(position, Some(group)).await.pop()
    }

    /// What all members on this node say of themselves, in the order of their groups.
    pub async fn statuses(&self) -> Vec<GroupStatus> {
        let mut statuses = Vec::new();
        for position in 0..self.shared.inboxes.len() {
            statuses.extend(self.statuses_of(position, None).await);
        }
        statuses.sort_by_key(|status| status.group);
        statuses
    }

    /// Hands the leadership of all groups over, within [`HostConfig::handover_max`], then ends all members and loops;
    /// whoever waits is answered. Once it is done, the host's directory is free, for another host of this process too; a
    /// snapshot that was being written is given up. It may be called again, and by several at a time: all wait for that.
    pub async fn shutdown(&self) {
        self.hand_over_all(self.shared.handover_max).await;
        for position in 0..self.shared.inboxes.len() {
            let (waiter, answer) = Waiter::local();
            if self.shared.inboxes.put(position, Input::Stop { waiter }).is_ok() {
                drop(answer.await);
            }
        }
        for task in &self.shared.loops {
            task.abort();
        }
        if let Some(writer) = &self.shared.writer {
            writer.ended().await;
        }
    }

    async fn statuses_of(&self, position: usize, group: Option<GroupId>) -> Vec<GroupStatus> {
        let (waiter, answer) = Waiter::local();
        // Whoever looks after an overloaded node must see it: the question waits for its turn.
        self.shared.inboxes.wait_for(position, Input::Statuses { group, waiter }).await;
        answer.await.unwrap_or_default()
    }

    async fn change(&self, group: GroupId, request: ChangeRequest) -> Result<MemberId, GroupError> {
        self.ask_member(group, |waiter| Input::Change { group, request, waiter }).await
    }

    pub(crate) async fn ask_member(
        &self,
        group: GroupId,
        input: impl FnOnce(Waiter<Result<MemberId, GroupError>>) -> Input,
    ) -> Result<MemberId, GroupError> {
        let (waiter, answer): (_, oneshot::Receiver<_>) = Waiter::local();
        self.put(group, input(waiter));
        answer.await.unwrap_or(Err(GroupError::Unknown(group)))
    }

    pub(crate) fn put(&self, group: GroupId, input: Input) {
        if let Err(refusal) = self.shared.inboxes.put(self.shared.inboxes.of(group), input) {
            refusal.answer();
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

/// Tells all loops of nodes whose process has ended, as far as the transport says so.
async fn watch_deaths(env: Arc<dyn Env>, inboxes: Inboxes) {
    let mut peers = env.transport().watch_peers();
    while let Some(event) = peers.next().await {
        // What was missed is told by silence, later.
        let Ok(PeerEvent { node, change: PeerChange::Down(reason) }) = event else { continue };
        for position in 0..inboxes.len() {
            let input = if reason.is_final() { Input::Death { node } } else { Input::Doubt { node } };
            if let Err(refusal) = inboxes.put(position, input) {
                refusal.answer();
            }
        }
    }
}
