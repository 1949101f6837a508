//! This node's access to the replicated list of keyspaces, and the making of keyspaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use raft_fleet::rafted_value::env::{BoxFuture, MonoTime, TaskHandle, sleep};
use raft_fleet::rafted_value::{CommandError, Data, Freshness, GroupConfig, NotApplied, QueryError, encode};
use raft_fleet::{CallOptions, Fleet, FleetError, GroupId, GroupName};

use crate::config::KvConfig;
use crate::error::{KvError, RouteError};
use crate::keyspace::{Keyspace, KeyspaceName, KeyspacePolicy, KeyspaceState, ShardPlace, SplitMergePolicy};
use crate::keyspaces::{
    Keyspaces, KeyspacesAnswer, KeyspacesCommand, KeyspacesQuery, KeyspacesReply, Listed, Move,
};
use crate::routes::{Route, Routes};
use crate::shard::{ShardCommand, ShardReply, split_reply};
use crate::value_type::{KvTypes, shard_data_name};

/// The list of keyspaces as this node knows it.
pub(crate) struct KeyspaceList {
    fleet: Fleet,
    config: KvConfig,
    types: KvTypes,
    routes: Routes,
    group: GroupName,
    /// What runs beside the calls of users; ended with the store.
    tasks: Mutex<BTreeMap<Task, TaskHandle>>,
}

/// What runs beside the calls of users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Task {
    Refresher,
    Mover,
    Planner,
    Waker,
    /// One of the moves that this node performs at a time.
    Move(usize),
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Task::Refresher => "kv-routes",
            Task::Mover => "kv-mover",
            Task::Planner => "kv-planner",
            Task::Waker => "kv-wakes",
            Task::Move(_) => "kv-move",
        }
    }
}

impl KeyspaceList {
    pub(crate) fn new(fleet: Fleet, config: KvConfig, types: KvTypes) -> Self {
        let group = GroupName::new(Keyspaces::NAME).expect("a short name");
        let (routes, tasks) = (Routes::default(), Mutex::default());
        Self { fleet, config, types, routes, group, tasks }
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub(crate) fn config(&self) -> &KvConfig {
        &self.config
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether this node leads the list.
    pub(crate) async fn is_led_here(&self) -> bool {
        let cluster = self.fleet.cluster();
        let (Some(host), Some(entry)) = (self.fleet.host(), cluster.groups().get(&self.group)) else {
            return false;
        };
        host.status(entry.id).await.is_some_and(|status| status.ready)
    }

    /// Runs something until it ends or the store does, in the place of what had the name before.
    pub(crate) fn run(&self, task: Task, future: BoxFuture<()>) {
        let handle = self.fleet.env().spawn(task.name(), future);
        self.tasks.lock().insert(task, handle);
    }

    /// Ends what runs.
    pub(crate) fn end_tasks(&self) {
        self.tasks.lock().values().for_each(TaskHandle::abort);
    }

    /// Registers a keyspace and makes its shards; see [`Kv::register_keyspace`](crate::Kv::register_keyspace).
    pub(crate) async fn register(&self, name: &KeyspaceName, policy: &KeyspacePolicy) -> Result<(), KvError> {
        policy.validate().map_err(|reason| KvError::InvalidPolicy { name: name.clone(), reason })?;
        if self.fleet.host().is_some() && !self.types.contains(&policy.value_type) {
            return Err(KvError::UnknownValueType(policy.value_type.clone()));
        }
        let deadline = self.fleet.env().now() + self.config.creation_timeout;
        let (replicas, group) = (self.config.keyspaces_replicas, &self.config.keyspaces_group);
        self.make_group(&self.group, Keyspaces::NAME, replicas, group, deadline).await?;
        let command = KeyspacesCommand::Register { name: name.clone(), policy: policy.clone() };
        match self.command("registering a keyspace", &command, deadline).await? {
            KeyspacesReply::Registered(keyspace) => self.make(*keyspace, deadline).await,
            KeyspacesReply::OtherPolicy(keyspace) => {
                let Keyspace { name, policy: present, .. } = *keyspace;
                let (present, wanted) = (Box::new(present), Box::new(policy.clone()));
                Err(KvError::AlreadyRegistered { name, present, wanted })
            }
            KeyspacesReply::InvalidPolicy(reason) => {
                Err(KvError::InvalidPolicy { name: name.clone(), reason })
            }
            KeyspacesReply::TooMany { limit } => Err(KvError::TooManyKeyspaces { limit }),
            reply => Err(KvError::Answer { what: "registering a keyspace", reason: format!("{reply:?}") }),
        }
    }

    /// Brings a registered keyspace to its end. Each step finds what an earlier one, here or elsewhere, has done.
    async fn make(&self, mut keyspace: Keyspace, deadline: MonoTime) -> Result<(), KvError> {
        if keyspace.state == KeyspaceState::Creating {
            for some in keyspace.shards.chunks(self.config.creations_max) {
                if !self.make_shards(&keyspace, some, deadline).await? {
                    return Ok(());
                }
            }
            let (name, generation) = (keyspace.name.clone(), keyspace.generation);
            let command = KeyspacesCommand::MarkReady { name, generation };
            match self.command("finishing a keyspace", &command, deadline).await? {
                KeyspacesReply::Ready => keyspace.state = KeyspaceState::Ready,
                _ => return Err(KvError::NoSuchKeyspace(keyspace.name)),
            }
        }
        self.routes.learn(&keyspace);
        Ok(())
    }

    /// Makes some shards of a keyspace; not so where others have made all of them meanwhile.
    async fn make_shards(
        &self,
        keyspace: &Keyspace,
        some: &[ShardPlace],
        deadline: MonoTime,
    ) -> Result<bool, KvError> {
        let groups = some.iter().map(|place| self.make_shard_group(keyspace, place.number, deadline));
        let founded = try_join_all(groups).await;
        // Whoever was held up has perhaps founded anew what was merged away since: it must not serve its first range. Nor must
        // what others found under the name from now on, so that a group is asked by its id.
        if !self.is_unmade(keyspace, some, deadline).await? {
            return Ok(false);
        }
        let shards = some.iter().zip(founded?);
        let shards = shards.map(|(place, group)| self.initialise_shard(keyspace, place, group, deadline));
        match try_join_all(shards).await {
            Ok(_) => Ok(true),
            // Since the last look others may have made it, and split or merged the shard.
            Err(error) if self.is_unmade(keyspace, some, deadline).await? => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Whether a keyspace is still to be made, as the list says now. Where it is not, those of the groups that are no shard's
    /// any more are removed.
    async fn is_unmade(
        &self,
        keyspace: &Keyspace,
        some: &[ShardPlace],
        deadline: MonoTime,
    ) -> Result<bool, KvError> {
        let what = "reading a keyspace that is being made";
        let Keyspace { name, generation, .. } = keyspace;
        let get = KeyspacesQuery::Get { name: name.clone() };
        let listed = loop {
            match self.query(&get, Freshness::Latest, &self.config.call).await {
                Ok((listed, _)) => break listed,
                Err(unread) => self.pause(unread.told(what), deadline).await?,
            }
        };
        let present = listed.keyspaces.iter().find(|present| present.generation == *generation);
        if present.is_some_and(|present| present.state == KeyspaceState::Creating) {
            return Ok(true);
        }
        let groups = some.iter().map(|place| keyspace.group(place.number));
        for group in groups.filter(|group| listed.is_stray(group)) {
            self.remove_group(&group).await;
        }
        self.routes.learn(present.ok_or_else(|| KvError::NoSuchKeyspace(name.clone()))?);
        Ok(false)
    }

    async fn initialise_shard(
        &self,
        keyspace: &Keyspace,
        place: &ShardPlace,
        id: GroupId,
        deadline: MonoTime,
    ) -> Result<(), KvError> {
        let what = "initialising a shard";
        let ShardPlace { number: shard, range, .. } = *place;
        let value_size_max = keyspace.policy.value_bytes_max;
        let payload = ShardCommand::Initialise { range, value_size_max }.encode(&[]);
        let (group, call) = (keyspace.group(shard), &self.config.call);
        let reply = loop {
            match self.fleet.command_of(&group, id, range.first(), payload.clone(), call).await {
                Ok(reply) => break reply,
                Err(error) => self.pause(KvError::Command { what, error }, deadline).await?,
            }
        };
        match split_reply(&reply).map_err(|reason| KvError::Answer { what, reason })? {
            (ShardReply::Initialised, _) => Ok(()),
            (ShardReply::OtherRange { range: present }, _) => {
                let name = keyspace.name.clone();
                Err(KvError::OtherRange { name, shard, present, wanted: range })
            }
            (other, _) => Err(KvError::Answer { what, reason: format!("{other:?}") }),
        }
    }

    /// Makes sure that the group of a shard exists.
    pub(crate) async fn make_shard_group(
        &self,
        keyspace: &Keyspace,
        shard: u32,
        deadline: MonoTime,
    ) -> Result<GroupId, KvError> {
        let KeyspacePolicy { value_type, replicas, group, .. } = &keyspace.policy;
        let data = shard_data_name(value_type);
        self.make_group(&keyspace.group(shard), &data, *replicas, group, deadline).await
    }

    async fn make_group(
        &self,
        name: &GroupName,
        data: &str,
        replicas: u32,
        config: &GroupConfig,
        deadline: MonoTime,
    ) -> Result<GroupId, KvError> {
        loop {
            let added =
                match self.fleet.add_group(name.clone(), data, replicas as usize, config.clone()).await {
                    // Somebody else, or this node before, is making it.
                    Err(FleetError::AlreadyAdded { .. }) => self.fleet.await_group(name).await,
                    added => added,
                };
            match added {
                Ok(id) => return Ok(id),
                Err(error) => self.pause(KvError::Fleet(error), deadline).await?,
            }
        }
    }

    /// Changes the list; the command may run any number of times.
    pub(crate) async fn command(
        &self,
        what: &'static str,
        command: &KeyspacesCommand,
        deadline: MonoTime,
    ) -> Result<KeyspacesReply, KvError> {
        let reply = self.send(what, &self.group, 0, &encode(command), deadline).await?;
        read_reply(what, &reply)
    }

    /// Changes the list once at most: the command has one number however often it is tried, and its reply is that of the
    /// first time that it ran. What was begun by an attempt without a reply would refuse the next one.
    pub(crate) async fn command_once(
        &self,
        what: &'static str,
        command: &KeyspacesCommand,
    ) -> Result<KeyspacesReply, KvError> {
        let (payload, options) = (encode(command), &self.config.call);
        let deadline = self.fleet.env().now() + options.timeout;
        let mut begun = loop {
            match self.fleet.begin(&self.group, 0, payload.clone(), options).await {
                Ok(begun) => break begun,
                Err(error) => self.pause(KvError::Command { what, error }, deadline).await?,
            }
        };
        loop {
            match self.fleet.send(&self.group, &mut begun).await {
                Ok(reply) => return read_reply(what, &reply),
                Err(error) => self.pause(KvError::Command { what, error }, begun.deadline()).await?,
            }
        }
    }

    /// Sends a command that may run any number of times.
    pub(crate) async fn send(
        &self,
        what: &'static str,
        group: &GroupName,
        key_hash: u64,
        payload: &Bytes,
        deadline: MonoTime,
    ) -> Result<Bytes, KvError> {
        loop {
            match self.fleet.command(group, key_hash, payload.clone(), &self.config.call).await {
                Ok(reply) => return Ok(reply),
                Err(error) => self.pause(KvError::Command { what, error }, deadline).await?,
            }
        }
    }

    /// Waits a little before a step is tried again; gives the error back when that cannot help or the time is over.
    async fn pause(&self, error: KvError, deadline: MonoTime) -> Result<(), KvError> {
        let env = self.fleet.env();
        if !error.may_pass() || env.now() >= deadline {
            return Err(error);
        }
        tracing::debug!(%error, "a step is tried again");
        sleep(env.as_ref(), self.config.call.retry_interval).await;
        Ok(())
    }

    /// Reads the whole list, and learns from it.
    pub(crate) async fn read_all(&self) -> Result<Listed, KvError> {
        let what = "reading the list of keyspaces";
        let mut after = None;
        let mut all = None::<Listed>;
        let listed = loop {
            let query = KeyspacesQuery::Page { after };
            let (listed, more) = self
                .query(&query, Freshness::Latest, &self.config.call)
                .await
                .map_err(|unread| unread.told(what))?;
            after = listed.keyspaces.last().map(|keyspace| keyspace.name.clone());
            let listed = match all.take() {
                Some(mut before) => {
                    before.join(listed);
                    before
                }
                None => listed,
            };
            if !more || after.is_none() {
                break listed;
            }
            all = Some(listed);
        };
        for keyspace in &listed.keyspaces {
            self.routes.learn(keyspace);
        }
        self.routes.retain(&listed.keyspaces, listed.generation);
        Ok(listed)
    }

    /// The moves that are under way, as a member of the list close by knows them: it may be a little late.
    pub(crate) async fn read_moves(&self) -> Option<Vec<Move>> {
        let asked = self.query(&KeyspacesQuery::Moves, Freshness::Stale, &self.config.call).await;
        asked.ok().map(|(listed, _)| listed.moves)
    }

    /// Asks for one keyspace, and learns from the answer. `wrong` when the route that is known was found to be so.
    pub(crate) async fn read_one(
        &self,
        name: &KeyspaceName,
        options: &CallOptions,
        wrong: bool,
    ) -> Result<Option<Arc<Route>>, RouteError> {
        let get = KeyspacesQuery::Get { name: name.clone() };
        let answer = self.query(&get, Freshness::Latest, options).await;
        match answer {
            Ok((Listed { keyspaces, generation, .. }, _)) => match keyspaces.into_iter().next() {
                Some(keyspace) if wrong => Ok(Some(self.routes.correct(&keyspace))),
                Some(keyspace) => Ok(Some(self.routes.learn(&keyspace))),
                None => {
                    self.routes.forget(name, generation);
                    Ok(None)
                }
            },
            Err(Unread::Query(error)) => Err(RouteError::Keyspaces(error.to_string())),
            Err(Unread::Answer(reason)) => Err(RouteError::Keyspaces(reason)),
        }
    }

    /// Removes a keyspace; see [`Kv::deregister_keyspace`](crate::Kv::deregister_keyspace).
    pub(crate) async fn deregister(&self, name: &KeyspaceName) -> Result<(), KvError> {
        let what = "deregistering a keyspace";
        let deadline = self.fleet.env().now() + self.config.creation_timeout;
        let keyspace = loop {
            match self.read_one(name, &self.config.call, false).await {
                Ok(Some(route)) => break route.keyspace.clone(),
                Ok(None) => return Err(KvError::NoSuchKeyspace(name.clone())),
                Err(error) => self.pause(KvError::Route(error), deadline).await?,
            }
        };
        // This one and no other: the reply may be lost, and another have the name by the time that the command comes again.
        let generation = keyspace.generation;
        let command = KeyspacesCommand::DeregisterThis { name: name.clone(), generation };
        match self.command(what, &command, deadline).await? {
            // It is gone, by this attempt or by one before.
            KeyspacesReply::Deregistered { .. } | KeyspacesReply::NoSuchKeyspace => {}
            reply => return Err(KvError::Answer { what, reason: format!("{reply:?}") }),
        }
        self.routes.forget(name, generation);
        for group in self.groups_of(&keyspace) {
            self.remove_group(&group).await;
        }
        Ok(())
    }

    /// The groups of a keyspace as far as they are known here: of the shards that it has, and of those that come and go.
    fn groups_of(&self, keyspace: &Keyspace) -> BTreeSet<GroupName> {
        let of_this = |group: &&GroupName| {
            KeyspaceName::parse_shard_group(group)
                .is_some_and(|(_, generation, _)| generation == keyspace.generation)
        };
        let cluster = self.fleet.cluster();
        let present = cluster.groups().keys().filter(of_this).cloned();
        present.chain(keyspace.shards.iter().map(|place| keyspace.group(place.number))).collect()
    }

    /// Changes when shards are split and merged.
    pub(crate) async fn set_policy(
        &self,
        name: &KeyspaceName,
        policy: &SplitMergePolicy,
    ) -> Result<(), KvError> {
        let what = "setting the policy of a keyspace";
        let command = KeyspacesCommand::SetPolicy { name: name.clone(), policy: policy.clone() };
        match self.command_once(what, &command).await {
            Ok(KeyspacesReply::PolicySet(keyspace)) => {
                self.routes.learn(&keyspace);
                Ok(())
            }
            Ok(KeyspacesReply::InvalidPolicy(reason)) => {
                Err(KvError::InvalidPolicy { name: name.clone(), reason })
            }
            // The first registration makes the list.
            Ok(KeyspacesReply::NoSuchKeyspace)
            | Err(KvError::Command { error: CommandError::NotApplied(NotApplied::NoSuchName(_)), .. }) => {
                Err(KvError::NoSuchKeyspace(name.clone()))
            }
            Ok(reply) => Err(KvError::Answer { what, reason: format!("{reply:?}") }),
            Err(error) => Err(error),
        }
    }

    /// Removes a group that nobody may use any more, with all that its members have on disks: its name is never used again.
    /// One that is not removed now is found later.
    pub(crate) async fn remove_group(&self, group: &GroupName) {
        match self.fleet.delete_group(group).await {
            Ok(()) | Err(FleetError::NoSuchGroup { .. }) => {}
            Err(error) => tracing::debug!(%group, %error, "a group is not removed yet"),
        }
    }

    /// Reads the list now and then, finishes keyspaces whose maker is gone, and removes groups that are nobody's.
    pub(crate) async fn refresh_for_ever(self: Arc<Self>) {
        let mut unfinished = Vec::<(KeyspaceName, u64)>::new();
        loop {
            sleep(self.fleet.env().as_ref(), self.config.routes_refresh).await;
            // What is listed as a group before the list is read, and is none of its shards, never will be again.
            let cluster = self.fleet.cluster();
            let groups: Vec<GroupName> =
                cluster.groups().keys().chain(cluster.kept().keys()).cloned().collect();
            let listed = match self.read_all().await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::debug!(%error, "the list of keyspaces was not read");
                    continue;
                }
            };
            if self.fleet.host().is_some() {
                for group in groups.iter().filter(|group| listed.is_stray(group)) {
                    tracing::info!(%group, "a group that is no shard any more is removed");
                    self.remove_group(group).await;
                }
            }
            let Listed { keyspaces, .. } = listed;
            let creating = keyspaces.into_iter().filter(|keyspace| keyspace.state == KeyspaceState::Creating);
            let creating: Vec<Keyspace> = creating.collect();
            // The maker gets one whole interval; after that several nodes may finish one keyspace, which is harmless.
            for keyspace in &creating {
                if unfinished.contains(&(keyspace.name.clone(), keyspace.generation))
                    && self.can_make(keyspace)
                {
                    self.finish(keyspace.clone()).await;
                }
            }
            unfinished = creating.into_iter().map(|keyspace| (keyspace.name, keyspace.generation)).collect();
        }
    }

    fn can_make(&self, keyspace: &Keyspace) -> bool {
        self.fleet.host().is_some() && self.types.contains(&keyspace.policy.value_type)
    }

    async fn finish(&self, keyspace: Keyspace) {
        let name = keyspace.name.clone();
        let deadline = self.fleet.env().now() + self.config.creation_timeout;
        match self.make(keyspace, deadline).await {
            Ok(()) => tracing::info!(keyspace = %name, "finished a keyspace that was left half made"),
            Err(error) => tracing::warn!(keyspace = %name, %error, "a keyspace is still half made"),
        }
    }

    /// Asks the list; and whether there is more behind what it answers.
    async fn query(
        &self,
        query: &KeyspacesQuery,
        freshness: Freshness,
        options: &CallOptions,
    ) -> Result<(Listed, bool), Unread> {
        let answer = self.fleet.query(&self.group, freshness, encode(query), options).await;
        let answer = match answer {
            Ok(answer) => answer,
            // The first registration makes the group of the list; before it there are no keyspaces.
            Err(QueryError::NoSuchName(_)) => return Ok((Listed::default(), false)),
            Err(error) => return Err(Unread::Query(error)),
        };
        let answer = postcard::from_bytes(&answer).map_err(|error| Unread::Answer(error.to_string()))?;
        let (listed, more) = match answer {
            KeyspacesAnswer::V1(listed) => (listed, false),
            KeyspacesAnswer::Page { listed, more } => (listed, more),
        };
        listed.keyspaces.iter().try_for_each(Keyspace::check_shards).map_err(Unread::Answer)?;
        Ok((listed, more))
    }
}

fn read_reply(what: &'static str, reply: &[u8]) -> Result<KeyspacesReply, KvError> {
    let reply = postcard::from_bytes(reply).map_err(|error| error.to_string()).and_then(checked_reply);
    reply.map_err(|reason| KvError::Answer { what, reason })
}

/// A reply whose keyspace, if it tells one, may become a route.
fn checked_reply(reply: KeyspacesReply) -> Result<KeyspacesReply, String> {
    if let KeyspacesReply::Registered(keyspace)
    | KeyspacesReply::OtherPolicy(keyspace)
    | KeyspacesReply::PolicySet(keyspace) = &reply
    {
        keyspace.check_shards()?;
    }
    Ok(reply)
}

enum Unread {
    Query(QueryError),
    Answer(String),
}

impl Unread {
    fn told(self, what: &'static str) -> KvError {
        match self {
            Unread::Query(error) => KvError::Query { what, error },
            Unread::Answer(reason) => KvError::Answer { what, reason },
        }
    }
}
