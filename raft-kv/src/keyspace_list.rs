//! This node's access to the replicated list of keyspaces, and the making of keyspaces.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use raft_fleet::rafted_value::env::{MonoTime, sleep};
use raft_fleet::rafted_value::{Data, Freshness, GroupConfig, QueryError, encode};
use raft_fleet::{CallOptions, Fleet, FleetError, GroupName};

use crate::config::KvConfig;
use crate::error::{KvError, RouteError};
use crate::key_range::KeyRange;
use crate::keyspace::{Keyspace, KeyspaceName, KeyspacePolicy, KeyspaceState};
use crate::keyspaces::{Keyspaces, KeyspacesCommand, KeyspacesQuery, KeyspacesReply};
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
}

impl KeyspaceList {
    pub(crate) fn new(fleet: Fleet, config: KvConfig, types: KvTypes) -> Self {
        let group = GroupName::new(Keyspaces::NAME).expect("a short name");
        Self { fleet, config, types, routes: Routes::default(), group }
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
            KeyspacesReply::Registered(keyspace) => self.make(keyspace, deadline).await,
            KeyspacesReply::OtherPolicy(Keyspace { name, policy: present, .. }) => {
                let (present, wanted) = (Box::new(present), Box::new(policy.clone()));
                Err(KvError::AlreadyRegistered { name, present, wanted })
            }
            KeyspacesReply::InvalidPolicy(reason) => {
                Err(KvError::InvalidPolicy { name: name.clone(), reason })
            }
            KeyspacesReply::TooMany { limit } => Err(KvError::TooManyKeyspaces { limit }),
            reply @ (KeyspacesReply::Ready | KeyspacesReply::NoSuchKeyspace) => {
                Err(KvError::Answer { what: "registering a keyspace", reason: format!("{reply:?}") })
            }
        }
    }

    /// Brings a registered keyspace to its end. Each step finds what an earlier one, here or elsewhere, has done.
    async fn make(&self, mut keyspace: Keyspace, deadline: MonoTime) -> Result<(), KvError> {
        if keyspace.state == KeyspaceState::Creating {
            let route = Route::new(keyspace.clone());
            let shards: Vec<u32> = (0..keyspace.policy.shards).collect();
            for some in shards.chunks(self.config.creations_max) {
                try_join_all(some.iter().map(|index| self.make_shard(&route, *index, deadline))).await?;
            }
            let (name, generation) = (keyspace.name.clone(), keyspace.generation);
            let command = KeyspacesCommand::MarkReady { name, generation };
            match self.command("finishing a keyspace", &command, deadline).await? {
                KeyspacesReply::Ready => keyspace.state = KeyspaceState::Ready,
                _ => return Err(KvError::NoSuchKeyspace(keyspace.name)),
            }
        }
        self.routes.learn(keyspace);
        Ok(())
    }

    async fn make_shard(&self, route: &Route, index: u32, deadline: MonoTime) -> Result<(), KvError> {
        let what = "initialising a shard";
        let KeyspacePolicy { value_type, shards, replicas, group } = &route.keyspace.policy;
        let name = &route.groups()[index as usize];
        self.make_group(name, &shard_data_name(value_type), *replicas, group, deadline).await?;
        let range = KeyRange::part(index, *shards);
        let payload = ShardCommand::Initialise { range }.encode(&[]);
        let reply = self.send(what, name, range.first(), &payload, deadline).await?;
        match split_reply(&reply).map_err(|reason| KvError::Answer { what, reason })? {
            (ShardReply::Initialised, _) => Ok(()),
            (ShardReply::OtherRange { range: present }, _) => {
                let name = route.keyspace.name.clone();
                Err(KvError::OtherRange { name, shard: index, present, wanted: range })
            }
            (other, _) => Err(KvError::Answer { what, reason: format!("{other:?}") }),
        }
    }

    async fn make_group(
        &self,
        name: &GroupName,
        data: &str,
        replicas: u32,
        config: &GroupConfig,
        deadline: MonoTime,
    ) -> Result<(), KvError> {
        loop {
            let added =
                match self.fleet.add_group(name.clone(), data, replicas as usize, config.clone()).await {
                    // Somebody else, or this node before, is making it.
                    Err(FleetError::AlreadyAdded { .. }) => self.fleet.await_group(name).await,
                    added => added,
                };
            match added {
                Ok(_) => return Ok(()),
                Err(error) => self.pause(KvError::Fleet(error), deadline).await?,
            }
        }
    }

    async fn command(
        &self,
        what: &'static str,
        command: &KeyspacesCommand,
        deadline: MonoTime,
    ) -> Result<KeyspacesReply, KvError> {
        let reply = self.send(what, &self.group, 0, &encode(command), deadline).await?;
        postcard::from_bytes(&reply).map_err(|error| KvError::Answer { what, reason: error.to_string() })
    }

    /// Sends a command that may run any number of times.
    async fn send(
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
    pub(crate) async fn read_all(&self) -> Result<Vec<Keyspace>, KvError> {
        let keyspaces =
            self.query(&KeyspacesQuery::List, &self.config.call).await.map_err(|error| match error {
                Unread::Query(error) => KvError::Query { what: "reading the list of keyspaces", error },
                Unread::Answer(reason) => KvError::Answer { what: "reading the list of keyspaces", reason },
            })?;
        for keyspace in &keyspaces {
            self.routes.learn(keyspace.clone());
        }
        Ok(keyspaces)
    }

    /// Asks for one keyspace, and learns from the answer.
    pub(crate) async fn read_one(
        &self,
        name: &KeyspaceName,
        options: &CallOptions,
    ) -> Result<Option<Arc<Route>>, RouteError> {
        let answer = self.query(&KeyspacesQuery::Get { name: name.clone() }, options).await;
        match answer {
            Ok(keyspaces) => Ok(keyspaces.into_iter().next().map(|keyspace| self.routes.learn(keyspace))),
            Err(Unread::Query(error)) => Err(RouteError::Keyspaces(error.to_string())),
            Err(Unread::Answer(reason)) => Err(RouteError::Keyspaces(reason)),
        }
    }

    /// Reads the list now and then, and finishes keyspaces whose maker is gone.
    pub(crate) async fn refresh_for_ever(self: Arc<Self>) {
        let mut unfinished = Vec::<(KeyspaceName, u64)>::new();
        loop {
            sleep(self.fleet.env().as_ref(), self.config.routes_refresh).await;
            let keyspaces = match self.read_all().await {
                Ok(keyspaces) => keyspaces,
                Err(error) => {
                    tracing::debug!(%error, "the list of keyspaces was not read");
                    continue;
                }
            };
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

    async fn query(&self, query: &KeyspacesQuery, options: &CallOptions) -> Result<Vec<Keyspace>, Unread> {
        let answer = self.fleet.query(&self.group, Freshness::Latest, encode(query), options).await;
        let answer = match answer {
            Ok(answer) => answer,
            // The first registration makes the group of the list; before it there are no keyspaces.
            Err(QueryError::NoSuchName(_)) => return Ok(Vec::new()),
            Err(error) => return Err(Unread::Query(error)),
        };
        postcard::from_bytes(&answer).map_err(|error| Unread::Answer(error.to_string()))
    }
}

enum Unread {
    Query(QueryError),
    Answer(String),
}
