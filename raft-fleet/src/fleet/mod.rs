//! The fleet as its users see it.

mod activity;
mod repair;
mod start;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use rafted_value::env::{Env, timeout};
use rafted_value::{CommandError, Freshness, GroupConfig, GroupId, Host, NodeId, NotApplied, QueryError};

pub use self::activity::{DrainStatus, Presence};
use crate::call::BegunCommand;
use crate::cluster_state::{
    ClusterAnswer, ClusterCommand, ClusterQuery, ClusterReply, ClusterState, GroupState, NODES_MAX,
};
use crate::config::CallOptions;
use crate::core::Core;
use crate::error::FleetError;
use crate::group_name::GroupName;
use crate::wire::{FleetReply, FleetRequest};

/// Members of a group that is added by name alone.
const USUAL_REPLICAS: usize = 3;

/// One node's, or one client's, part in a fleet of groups. Cheap to clone; all clones are one.
///
/// Its tasks run until [`shutdown`](Fleet::shutdown).
#[derive(Clone)]
pub struct Fleet {
    core: Arc<Core>,
}

impl Fleet {
    /// The door that this fleet goes through.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.core.env
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.core.node
    }

    /// The host of this node's groups; `None` in a client.
    pub fn host(&self) -> Option<&Host> {
        self.core.host.get()
    }

    /// The newest cluster state that is known here: a few hundred milliseconds old at most, unless the cluster cannot
    /// be reached.
    pub fn cluster(&self) -> Arc<ClusterState> {
        Arc::clone(&self.core.views.current().state)
    }

    /// The node that led a group when it was last called from here.
    pub fn cached_leader(&self, name: &GroupName) -> Option<NodeId> {
        let view = self.core.views.current();
        let entry = view.state.groups().get(name)?;
        self.core.lines.of(self.core.env.as_ref(), entry.id).leader()
    }

    /// Adds a group and waits until it serves, with all the members that it should have.
    ///
    /// `replicas` above the number of nodes means all nodes. If the wait ends first, the group comes to be all the
    /// same; [`await_group`](Fleet::await_group) waits on.
    ///
    /// # Errors
    ///
    /// [`FleetError::AlreadyAdded`] if a group has this name; [`FleetError::CleanupOngoing`] if one had it and is not
    /// wholly gone; [`FleetError::NoSuchData`] or [`FleetError::InvalidConfig`] for what cannot work;
    /// [`FleetError::NotFounded`] if the node that is to found it does not know the data type; [`FleetError::Timeout`] after
    /// `add_group_wait`.
    pub async fn add_group(
        &self,
        name: GroupName,
        data: &str,
        replicas: usize,
        config: GroupConfig,
    ) -> Result<GroupId, FleetError> {
        self.add_pinned_group(name, data, replicas, config, []).await
    }

    /// The same with three members, and the settings that
    /// [`FleetConfig::group_config`](crate::FleetConfig::group_config) makes for the name.
    ///
    /// # Errors
    ///
    /// As [`add_group`](Self::add_group).
    pub async fn add_usual_group(&self, name: GroupName, data: &str) -> Result<GroupId, FleetError> {
        let config = self.core.config.group_config.make(&name);
        self.add_group(name, data, USUAL_REPLICAS, config).await
    }

    /// The same for a group whose members may be in these zones only; in all if there are none.
    ///
    /// # Errors
    ///
    /// As [`add_group`](Self::add_group); [`FleetError::NoActiveNode`] if there is no active node in these zones.
    pub async fn add_pinned_group(
        &self,
        name: GroupName,
        data: &str,
        replicas: usize,
        config: GroupConfig,
        zones: impl IntoIterator<Item = &str>,
    ) -> Result<GroupId, FleetError> {
        let zones: BTreeSet<String> = zones.into_iter().map(str::to_owned).collect();
        config.validate().map_err(FleetError::InvalidConfig)?;
        if replicas == 0 {
            return Err(FleetError::InvalidConfig("a group cannot have 0 replicas".into()));
        }
        if self.core.member.as_ref().is_some_and(|member| member.registry.make(data).is_none()) {
            return Err(FleetError::NoSuchData { data: data.to_owned() });
        }
        let replicas = u32::try_from(replicas.min(NODES_MAX)).unwrap_or(u32::MAX);
        let (added, data) = (name.clone(), data.to_owned());
        let command = if zones.is_empty() {
            ClusterCommand::AddGroup { name: added, data, replicas, config }
        } else {
            ClusterCommand::AddPinnedGroup { name: added, data, replicas, config, zones }
        };
        match self.core.change_cluster(&command, &self.core.config.call).await? {
            ClusterReply::GroupAdded { id, founder } => {
                // It would notice by itself, a little later.
                let refresh = FleetRequest::Refresh { revision: u64::MAX };
                let limit = self.core.config.call.attempt_timeout;
                drop(self.core.ask(founder, &refresh, limit).await);
                self.await_founded(&name, Some((id, founder))).await
            }
            ClusterReply::Refused(refusal) => Err(refusal.into()),
            other => Err(FleetError::Malformed(format!("{other:?}"))),
        }
    }

    /// Moves the members of a group to these zones, and keeps them there; to all if there are none.
    ///
    /// # Errors
    ///
    /// [`FleetError::NoSuchGroup`] if there is none; when a zone cannot be, or the cluster group does not answer.
    pub async fn pin_group(
        &self,
        name: &GroupName,
        zones: impl IntoIterator<Item = &str>,
    ) -> Result<(), FleetError> {
        let zones: BTreeSet<String> = zones.into_iter().map(str::to_owned).collect();
        self.change(&ClusterCommand::Pin { name: name.clone(), zones }).await
    }

    /// Waits until a group that was added serves.
    ///
    /// # Errors
    ///
    /// [`FleetError::NotFounded`] if its founder cannot found it; [`FleetError::NoSuchGroup`] if it is not there, or goes
    /// away; [`FleetError::Timeout`] after `add_group_wait`.
    pub async fn await_group(&self, name: &GroupName) -> Result<GroupId, FleetError> {
        self.await_founded(name, None).await
    }

    /// Waits until a group serves that this node is to found, as far as is known.
    async fn await_founded(
        &self,
        name: &GroupName,
        mut founding: Option<(GroupId, NodeId)>,
    ) -> Result<GroupId, FleetError> {
        let limit = self.core.config.add_group_wait;
        let waiting = async {
            self.core.refresh_latest(limit).await?;
            let _urgency = self.core.views.urge();
            let mut view = self.core.views.current();
            loop {
                match view.state.groups().get(name).map(|entry| (entry.id, entry.state)) {
                    Some((id, GroupState::Running)) => return Ok(id),
                    Some((id, GroupState::Founding { founder })) => founding = Some((id, founder)),
                    None => return Err(self.why_gone(name, founding).await),
                }
                view = self.core.views.newer_than(view.state.revision()).await;
            }
        };
        let what = || format!("the founding of group {name:?}");
        let done = timeout(self.core.env.as_ref(), limit, waiting).await;
        done.unwrap_or_else(|| Err(FleetError::Timeout { what: what(), limit }))
    }

    /// Why a group is not there: its founder may have removed it, and remembers why.
    async fn why_gone(&self, name: &GroupName, founding: Option<(GroupId, NodeId)>) -> FleetError {
        let name = name.clone();
        let Some((group, node)) = founding else { return FleetError::NoSuchGroup { name } };
        let limit = self.core.config.call.attempt_timeout;
        match self.core.ask(node, &FleetRequest::NotFounded { group }, limit).await {
            Ok(FleetReply::NotFounded(Some(reason))) => FleetError::NotFounded { name, node, reason },
            Ok(_) | Err(_) => FleetError::NoSuchGroup { name },
        }
    }

    /// Removes a group: all its members end in time, also on nodes that are away now. Until they have, the name cannot be
    /// used again.
    ///
    /// What members on disks had come to stays there, except under [`Durability::Memory`](crate::Durability::Memory): a
    /// group that is added under the same name and with the same type of data begins with the newest of it.
    /// [`delete_group`](Self::delete_group) keeps nothing.
    ///
    /// # Errors
    ///
    /// [`FleetError::NoSuchGroup`] if there is none; when the cluster group does not answer.
    pub async fn remove_group(&self, name: &GroupName) -> Result<(), FleetError> {
        self.change(&ClusterCommand::RemoveGroup { name: name.clone() }).await?;
        self.core.refresh_latest(self.core.config.call.timeout).await
    }

    /// Removes a group and its data, and whatever removed groups of this name had left.
    ///
    /// # Errors
    ///
    /// [`FleetError::NoSuchGroup`] if there is no group of this name, and nothing is left of one; when the cluster group
    /// does not answer.
    pub async fn delete_group(&self, name: &GroupName) -> Result<(), FleetError> {
        self.change(&ClusterCommand::DeleteGroup { name: name.clone() }).await?;
        self.core.refresh_latest(self.core.config.call.timeout).await
    }

    /// What the cluster group itself says of a group at this moment.
    ///
    /// # Errors
    ///
    /// When the cluster group does not answer.
    pub async fn group(&self, name: &GroupName) -> Result<Option<crate::GroupEntry>, FleetError> {
        let query = ClusterQuery::Group { name: name.clone() };
        match self.core.ask_cluster(&query, self.core.config.call.timeout).await? {
            ClusterAnswer::Group(entry) => Ok(entry),
            other => Err(FleetError::Malformed(format!("{other:?}"))),
        }
    }

    /// Sends a command to a group and waits for its reply.
    ///
    /// The leader is found, and the command sent again under the same number where that helps, until
    /// `options.timeout`; it runs at most once however often it is sent. `key_hash` is a hash of the key that the
    /// command is about, zero where there is none.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotApplied`] if the command surely changed nothing and never will; [`CommandError::Unknown`] if
    /// any attempt may have been applied.
    pub async fn command(
        &self,
        name: &GroupName,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Bytes, CommandError> {
        self.core.command(name, None, key_hash, payload, options).await
    }

    /// The same, only to the group of this name that has this id: one that was added under the name since is not asked.
    ///
    /// # Errors
    ///
    /// As [`command`](Self::command); [`NotApplied::NoSuchName`] where the name is another group's.
    pub async fn command_of(
        &self,
        name: &GroupName,
        id: GroupId,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Bytes, CommandError> {
        self.core.command(name, Some(id), key_hash, payload, options).await
    }

    /// What a call would be told now that is not [essential](CallOptions::essential), if so many are under way that it would
    /// not be let in: for a layer above, before it makes a call ready.
    ///
    /// # Errors
    ///
    /// [`NotApplied::Overloaded`].
    pub fn check_room(&self) -> Result<(), NotApplied> {
        Ok(self.core.gate.check_room()?)
    }

    /// Gives a command its number, in this node's line to a group, without sending it yet.
    ///
    /// For a layer above that moves keys between groups: [`send`](Fleet::send) may be called for one group after
    /// another, and where the groups move the records of their commands with the keys
    /// ([`Records`](rafted_value::Records)), it runs at most once among them.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotApplied`] always: nothing was sent.
    pub async fn begin(
        &self,
        name: &GroupName,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<BegunCommand, CommandError> {
        self.core.begin(name, key_hash, payload, options).await
    }

    /// Sends a command that was [begun](Fleet::begin) to a group, until its time is up or that group is gone.
    ///
    /// # Errors
    ///
    /// As [`command`](Fleet::command), over all groups that it was sent to so far.
    pub async fn send(&self, name: &GroupName, command: &mut BegunCommand) -> Result<Bytes, CommandError> {
        self.core.send(name, command).await
    }

    /// Asks a group; with [`Freshness::Latest`] its leader, else the member on this node if there is one.
    ///
    /// # Errors
    ///
    /// The last reason why there was no answer until `options.timeout`.
    pub async fn query(
        &self,
        name: &GroupName,
        freshness: Freshness,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Bytes, QueryError> {
        self.core.query(name, freshness, payload, options).await
    }

    /// Ends this node's part: its tasks, and its members of all groups. The cluster is not told; to it the node has
    /// died.
    pub async fn shutdown(&self) {
        self.core.shutdown().await;
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("node", &self.core.node).finish_non_exhaustive()
    }
}
