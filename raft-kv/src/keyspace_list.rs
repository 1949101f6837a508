//! This node's access to the replicated list of keyspaces, and the making of keyspaces.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use raft_fleet::rafted_value::env::{sleep, timeout};
use raft_fleet::{CallOptions, Fleet, FleetError, GroupName};
use raft_fleet::rafted_value::{Data, Freshness, QueryError, encode};

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
        let limit = self.config.creation_timeout;
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        timeout(self.fleet.env().as_ref(), limit, self.register_and_make(name, policy))
            .await
            .unwrap_or(Err(KvError::Timeout { what: "the making of the keyspace", limit_ms }))
    }

    async fn register_and_make(&self, name: &KeyspaceName, policy: &KeyspacePolicy) -> Result<(), KvError> {
        let (replicas, group) = (self.config.keyspaces_replicas, &self.config.keyspaces_group);
        self.make_group(&self.group, Keyspaces::NAME, replicas, group).await?;
        let command = KeyspacesCommand::Register { name: name.clone(), policy: policy.clone() };
        match self.command("registering a keyspace", &command).await? {
            KeyspacesReply::Registered(keyspace) => self.make(keyspace).await,
            KeyspacesReply::OtherPolicy(Keyspace { name, policy, .. }) => {
                Err(KvError::AlreadyRegistered { name, present: Box::new(policy) })
            }
            KeyspacesReply::InvalidPolicy(reason) => Err(KvError::InvalidPolicy { name: name.clone(), reason }),
            KeyspacesReply::TooMany { limit } => Err(KvError::TooManyKeyspaces { limit }),
            reply @ (KeyspacesReply::Ready | KeyspacesReply::NoSuchKeyspace) => {
                Err(KvError::Answer { what: "registering a keyspace", reason: format!("{reply:?}") })
            }
        }
    }

    /// Brings a registered keyspace to its end. Each step finds what an earlier one, here or elsewhere, has done.
    async fn make(&self, mut keyspace: Keyspace) -> Result<(), KvError> {
        if keyspace.state == KeyspaceState::Creating {
            let route = Route::new(keyspace.clone());
            let shards = 0..keyspace.policy.shards;
            stream::iter(shards)
                .map(|index| self.make_shard(&route, index))
                .buffer_unordered(self.config.creations_max)
                .try_collect::<()>()
                .await?;
            let (name, generation) = (keyspace.name.clone(), keyspace.generation);
            match self.command("finishing a keyspace", &KeyspacesCommand::MarkReady { name, generation }).await? {
                KeyspacesReply::Ready => keyspace.state = KeyspaceState::Ready,
                _ => return Err(KvError::NoSuchKeyspace(keyspace.name)),
            }
        }
        self.routes.learn(keyspace);
        Ok(())
    }

    async fn make_shard(&self, route: &Route, index: u32) -> Result<(), KvError> {
        let what = "initialising a shard";
        let KeyspacePolicy { value_type, shards, replicas, group } = &route.keyspace.policy;
        let name = &route.groups()[index as usize];
        self.make_group(name, &shard_data_name(value_type), *replicas as usize, group).await?;
        let range = KeyRange::part(index, *shards);
        let payload = ShardCommand::Initialise { range }.encode(&[]);
        let reply = self.fleet.command(name, range.first(), payload, &self.config.call).await;
        let reply = reply.map_err(|error| KvError::Command { what, error })?;
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
        replicas: usize,
        config: &raft_fleet::rafted_value::GroupConfig,
    ) -> Result<(), KvError> {
        match self.fleet.add_group(name.clone(), data, replicas, config.clone()).await {
            Ok(_) | Err(FleetError::AlreadyAdded { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the whole list, and learns from it.
    pub(crate) async fn read_all(&self) -> Result<Vec<Keyspace>, KvError> {
        let keyspaces = self.query(&KeyspacesQuery::List, &self.config.call).await.map_err(|error| match error {
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
                if unfinished.contains(&(keyspace.name.clone(), keyspace.generation)) && self.can_make(keyspace) {
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
        let limit = self.config.creation_timeout;
        match timeout(self.fleet.env().as_ref(), limit, self.make(keyspace)).await {
            Some(Ok(())) => tracing::info!(keyspace = %name, "finished a keyspace that was left half made"),
            Some(Err(error)) => tracing::warn!(keyspace = %name, %error, "a keyspace is still half made"),
            None => tracing::warn!(keyspace = %name, ?limit, "a keyspace is still half made"),
        }
    }

    async fn command(&self, what: &'static str, command: &KeyspacesCommand) -> Result<KeyspacesReply, KvError> {
        let reply = self.fleet.command(&self.group, 0, encode(command), &self.config.call).await;
        let reply: Bytes = reply.map_err(|error| KvError::Command { what, error })?;
        postcard::from_bytes(&reply).map_err(|error| KvError::Answer { what, reason: error.to_string() })
    }

    async fn query(&self, query: &KeyspacesQuery, options: &CallOptions) -> Result<Vec<Keyspace>, Unread> {
        let answer = self.fleet.query(&self.group, Freshness::Latest, encode(query), options).await;
        let answer = answer.map_err(Unread::Query)?;
        postcard::from_bytes(&answer).map_err(|error| Unread::Answer(error.to_string()))
    }
}

enum Unread {
    Query(QueryError),
    Answer(String),
}
