//! The store as a node or a client sees it: keyspaces, and commands and queries for their keys.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_fleet::rafted_value::env::{Env, TaskHandle, sleep};
use raft_fleet::rafted_value::{Freshness, Registry};
use raft_fleet::{CallOptions, Fleet, FleetConfig};

use crate::config::KvConfig;
use crate::error::{KvCommandError, KvError, KvNotApplied, KvQueryError, KvUnknown, RouteError};
use crate::key::Key;
use crate::keyspace::{Keyspace, KeyspaceName, KeyspacePolicy};
use crate::keyspace_list::KeyspaceList;
use crate::keyspaces::Keyspaces;
use crate::routes::Route;
use crate::shard::{
    ShardAnswer, ShardCommand, ShardQuery, ShardReply, ShardStatus, split_answer, split_reply,
};
use crate::value_type::{KvTypes, shard_data_name};

/// A sharded, replicated store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Kv {
    shared: Arc<Shared>,
}

struct Shared {
    list: Arc<KeyspaceList>,
    /// Ends with [`Kv::shutdown`].
    refresher: TaskHandle,
}

impl Kv {
    /// Makes this node a part of the cluster that hosts the store; returns once it is.
    ///
    /// # Errors
    ///
    /// When a setting cannot work or the node cannot become part of a cluster.
    pub async fn start(
        env: Arc<dyn Env>,
        fleet: FleetConfig,
        config: KvConfig,
        types: KvTypes,
    ) -> Result<Self, KvError> {
        config.validate().map_err(KvError::InvalidConfig)?;
        types.validate().map_err(KvError::InvalidValueType)?;
        let registry = types.add_to(Registry::new().with::<Keyspaces>());
        let fleet = Fleet::start(env, fleet, registry).await?;
        Ok(Self::run(fleet, config, types))
    }

    /// Connects to a cluster without being a part of it: this process hosts nothing.
    ///
    /// # Errors
    ///
    /// When a setting cannot work or no seed of the cluster answers.
    pub async fn connect(env: Arc<dyn Env>, fleet: FleetConfig, config: KvConfig) -> Result<Self, KvError> {
        config.validate().map_err(KvError::InvalidConfig)?;
        let fleet = Fleet::connect(env, fleet).await?;
        Ok(Self::run(fleet, config, KvTypes::new()))
    }

    fn run(fleet: Fleet, config: KvConfig, types: KvTypes) -> Self {
        let list = Arc::new(KeyspaceList::new(fleet, config, types));
        let refresher = list.fleet().env().spawn("kv-routes", Box::pin(Arc::clone(&list).refresh_for_ever()));
        Self { shared: Arc::new(Shared { list, refresher }) }
    }

    /// The fleet below.
    pub fn fleet(&self) -> &Fleet {
        self.shared.list.fleet()
    }

    /// Makes sure that a keyspace with this policy exists, and returns once all of its shards serve.
    ///
    /// May be called by any number of nodes, any number of times: whatever is there already is left as it is, and
    /// what a node that died left half made is finished. A node that hosts nothing may call it too.
    ///
    /// # Errors
    ///
    /// When the policy cannot work, the keyspace exists with another policy, this node hosts shards and does not know
    /// the value type, or the cluster does not answer in time. After the last the keyspace may come to be all
    /// the same; asking again continues.
    pub async fn register_keyspace(
        &self,
        name: &KeyspaceName,
        policy: &KeyspacePolicy,
    ) -> Result<(), KvError> {
        self.shared.list.register(name, policy).await
    }

    /// Every keyspace of the cluster, in the order of their names.
    ///
    /// # Errors
    ///
    /// When the group of the list does not answer in time.
    pub async fn list_keyspaces(&self) -> Result<Vec<Keyspace>, KvError> {
        self.shared.list.read_all().await
    }

    /// Sends a command to the value of a key and waits for its reply.
    ///
    /// It is tried again until `options.timeout` where that helps, and runs at most once however often it is tried.
    ///
    /// # Errors
    ///
    /// Whether the command surely changed nothing, or perhaps something.
    pub async fn command(
        &self,
        keyspace: &KeyspaceName,
        key: &Key,
        command: &[u8],
        options: &CallOptions,
    ) -> Result<Bytes, KvCommandError> {
        let route = self.route(keyspace, options).await?;
        let hash = key.hash();
        let payload = ShardCommand::Command { key: key.as_bytes() }.encode(command);
        let reply = self.fleet().command(route.group(hash), hash, payload, options).await?;
        let (reply, rest) = split_reply(&reply).map_err(not_understood)?;
        match reply {
            ShardReply::Done => Ok(rest),
            ShardReply::Elsewhere(_) => Err(KvNotApplied::NotInitialised.into()),
            _ => Err(not_understood(format!("{reply:?}"))),
        }
    }

    /// Asks the value of a key.
    ///
    /// # Errors
    ///
    /// [`KvQueryError::KeyNotFound`] when the key has no value; anything else says why there is no answer.
    pub async fn query(
        &self,
        keyspace: &KeyspaceName,
        key: &Key,
        freshness: Freshness,
        query: &[u8],
        options: &CallOptions,
    ) -> Result<Bytes, KvQueryError> {
        let route = self.route(keyspace, options).await?;
        let hash = key.hash();
        let payload = ShardQuery::Query { key: key.as_bytes() }.encode(query);
        let answer = self.fleet().query(route.group(hash), freshness, payload, options).await;
        let answer = answer.map_err(KvQueryError::Group)?;
        let (answer, rest) = split_answer(&answer).map_err(KvQueryError::Answer)?;
        match answer {
            ShardAnswer::Answer => Ok(rest),
            ShardAnswer::KeyNotFound => Err(KvQueryError::KeyNotFound),
            ShardAnswer::Elsewhere(_) => Err(KvQueryError::NotInitialised),
            _ => Err(KvQueryError::Answer(format!("{answer:?}"))),
        }
    }

    /// What the shards of a keyspace hold, in the order of their ranges; each is asked in turn.
    ///
    /// # Errors
    ///
    /// When the keyspace is not there, or a shard does not answer in time.
    pub async fn shard_statuses(&self, keyspace: &KeyspaceName) -> Result<Vec<ShardStatus>, KvError> {
        let what = "reading the status of a shard";
        let options = &self.shared.list.config().call;
        let route = match self.route(keyspace, options).await {
            Ok(route) => route,
            Err(RouteError::NoSuchKeyspace(name)) => return Err(KvError::NoSuchKeyspace(name)),
            Err(error) => return Err(KvError::Answer { what, reason: error.to_string() }),
        };
        let mut statuses = Vec::with_capacity(route.groups().len());
        for group in route.groups() {
            let answer = self.fleet().query(group, Freshness::Latest, status_query(), options).await;
            let answer = answer.map_err(|error| KvError::Query { what, error })?;
            let status = read_status(&answer).map_err(|reason| KvError::Answer { what, reason })?;
            statuses.push(status);
        }
        Ok(statuses)
    }

    /// What the members on this node hold of a value type, leaders or not, without asking any other node; empty where
    /// nothing is hosted.
    pub async fn local_shards(&self, value_type: &str) -> Vec<ShardStatus> {
        let Some(host) = self.fleet().host() else { return Vec::new() };
        let data = shard_data_name(value_type);
        let mut statuses = Vec::new();
        for member in host.statuses().await {
            if member.data != data {
                continue;
            }
            let answer = host.query(member.group, Freshness::Stale, status_query(), LOCAL_QUERY_LIMIT).await;
            // A member may go away at any moment; it then holds nothing.
            statuses.extend(answer.ok().and_then(|answer| read_status(&answer).ok()));
        }
        statuses
    }

    /// Ends this node's part in the store.
    pub async fn shutdown(&self) {
        self.shared.refresher.abort();
        self.fleet().shutdown().await;
    }

    /// The shards of a keyspace; one that is not known here is asked for, and one that is being made is waited for.
    async fn route(&self, name: &KeyspaceName, options: &CallOptions) -> Result<Arc<Route>, RouteError> {
        let list = &self.shared.list;
        if let Some(route) = list.routes().get(name).filter(|route| route.is_ready()) {
            return Ok(route);
        }
        let env = self.fleet().env();
        let deadline = env.now() + options.timeout;
        loop {
            match list.read_one(name, options).await? {
                Some(route) if route.is_ready() => return Ok(route),
                Some(_) if env.now() + options.retry_interval < deadline => {
                    sleep(env.as_ref(), options.retry_interval).await;
                }
                Some(_) => return Err(RouteError::StillCreating(name.clone())),
                None => return Err(RouteError::NoSuchKeyspace(name.clone())),
            }
        }
    }
}

/// How long a member on this node may take to say how much it holds.
const LOCAL_QUERY_LIMIT: Duration = Duration::from_millis(500);

fn status_query() -> Bytes {
    ShardQuery::Status.encode(&[])
}

fn read_status(answer: &Bytes) -> Result<ShardStatus, String> {
    match split_answer(answer)? {
        (ShardAnswer::Status(status), _) => Ok(status),
        (other, _) => Err(format!("{other:?}")),
    }
}

fn not_understood(reason: String) -> KvCommandError {
    KvCommandError::Unknown(KvUnknown::Reply(reason))
}
