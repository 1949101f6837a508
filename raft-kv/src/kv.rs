//! The store as a node or a client sees it: keyspaces, and commands and queries for their keys.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_fleet::rafted_value::env::Env;
use raft_fleet::rafted_value::{Freshness, GroupId, GroupStatus};
use raft_fleet::{CallOptions, Fleet, FleetConfig};

use crate::config::KvConfig;
use crate::error::{KvCommandError, KvError, KvQueryError};
use crate::key::Key;
use crate::keyspace::{Keyspace, KeyspaceName, KeyspacePolicy, ShardPlace, SplitMergePolicy};
use crate::keyspace_list::{KeyspaceList, Task};
use crate::keyspaces::{Keyspaces, KeyspacesCommand, KeyspacesReply, Move};
use crate::mover::stats::KvService;
use crate::mover::{self, planner};
use crate::shard::{ShardAnswer, ShardQuery, ShardStatus, split_answer};
use crate::value_type::{KvTypes, shard_data_name};
use crate::waker::Waker;

/// A sharded, replicated store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Kv {
    shared: Arc<Shared>,
}

struct Shared {
    list: Arc<KeyspaceList>,
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
        let registry = types.registry().with::<Keyspaces>();
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
        // What keeps the store going must go on when callers ask too much.
        let config = KvConfig { call: config.call.as_essential(), ..config };
        let waker = Waker::new(&fleet, &config, &types);
        let list = Arc::new(KeyspaceList::new(fleet, config, types));
        if let Some(waker) = waker {
            list.run(Task::Waker, Box::pin(waker.run()));
        }
        list.run(Task::Refresher, Box::pin(Arc::clone(&list).refresh_for_ever()));
        if list.fleet().host().is_some() {
            KvService::register(&list);
            list.run(Task::Mover, Box::pin(mover::run(Arc::clone(&list))));
            list.run(Task::Planner, Box::pin(planner::run(Arc::clone(&list))));
        }
        Self { shared: Arc::new(Shared { list }) }
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

    /// Removes a keyspace with all of its values, whatever its shards are doing.
    ///
    /// Its groups are removed from all nodes by this call, and by any node later where that does not succeed. The name
    /// may be registered anew at once: that is another keyspace.
    ///
    /// # Errors
    ///
    /// [`KvError::NoSuchKeyspace`] when there is none; when the cluster does not answer in time.
    pub async fn deregister_keyspace(&self, name: &KeyspaceName) -> Result<(), KvError> {
        self.shared.list.deregister(name).await
    }

    /// Every keyspace of the cluster, in the order of their names.
    ///
    /// # Errors
    ///
    /// When the group of the list does not answer in time.
    pub async fn list_keyspaces(&self) -> Result<Vec<Keyspace>, KvError> {
        Ok(self.shared.list.read_all().await?.keyspaces)
    }

    /// A keyspace as it is now: its policy and its shards.
    ///
    /// # Errors
    ///
    /// [`KvError::NoSuchKeyspace`] when there is none; when the group of the list does not answer in time.
    pub async fn keyspace(&self, name: &KeyspaceName) -> Result<Keyspace, KvError> {
        let route = self.shared.list.read_one(name, &self.shared.list.config().call, false).await?;
        route.map(|route| route.keyspace.clone()).ok_or_else(|| KvError::NoSuchKeyspace(name.clone()))
    }

    /// Changes when the shards of a keyspace are split and merged; [`keyspace`](Kv::keyspace) tells the policy.
    ///
    /// # Errors
    ///
    /// When the policy cannot work, there is no such keyspace, or the cluster does not answer in time. After
    /// [`Unknown`](raft_fleet::rafted_value::CommandError::Unknown) it may be set or not.
    pub async fn set_policy(&self, name: &KeyspaceName, policy: &SplitMergePolicy) -> Result<(), KvError> {
        self.shared.list.set_policy(name, policy).await
    }

    /// Begins to split a shard: a new one gets its keys from the hash `at` on, by default half of its hashes. The nodes
    /// do it in the background; [`moves`](Kv::moves) tells how far they are.
    ///
    /// # Errors
    ///
    /// When there is no such shard, it takes part in a move, as many moves as there may be are under way, or the policy
    /// allows no more shards. After [`Unknown`](raft_fleet::rafted_value::CommandError::Unknown) it may have begun:
    /// [`moves`](Kv::moves) and [`keyspace`](Kv::keyspace) tell.
    pub async fn split_shard(
        &self,
        name: &KeyspaceName,
        shard: u32,
        at: Option<u64>,
    ) -> Result<Move, KvError> {
        let keyspace = self.keyspace(name).await?;
        let middle = |place: &ShardPlace| {
            let half = u64::try_from(place.range.width() / 2).expect("half of 2^64 at most");
            place.range.first() + half
        };
        // The list says by name that there is no such shard.
        let at = at.or_else(|| keyspace.shard(shard).map(middle)).unwrap_or(0);
        let (name, generation, moves_max) =
            (name.clone(), keyspace.generation, self.shared.list.config().moves_max);
        self.start_move(KeyspacesCommand::Split { name, generation, shard, at, moves_max }, keyspace).await
    }

    /// Begins to merge two neighbours: the first one's keys go to the second, and it ends.
    ///
    /// # Errors
    ///
    /// As for [`split_shard`](Kv::split_shard).
    pub async fn merge_shards(&self, name: &KeyspaceName, from: u32, to: u32) -> Result<Move, KvError> {
        let keyspace = self.keyspace(name).await?;
        let (name, generation, moves_max) =
            (name.clone(), keyspace.generation, self.shared.list.config().moves_max);
        self.start_move(KeyspacesCommand::Merge { name, generation, from, to, moves_max }, keyspace).await
    }

    async fn start_move(&self, command: KeyspacesCommand, keyspace: Keyspace) -> Result<Move, KvError> {
        let what = "starting a move";
        match self.shared.list.command_once(what, &command).await? {
            KeyspacesReply::Moving(started) => Ok(started),
            KeyspacesReply::MoveRefused(refusal) => Err(KvError::Move { name: keyspace.name, refusal }),
            KeyspacesReply::NoSuchKeyspace => Err(KvError::NoSuchKeyspace(keyspace.name)),
            other => Err(KvError::Answer { what, reason: format!("{other:?}") }),
        }
    }

    /// The splits and merges that are under way.
    ///
    /// # Errors
    ///
    /// When the group of the list of keyspaces does not answer in time.
    pub async fn moves(&self) -> Result<Vec<Move>, KvError> {
        Ok(self.shared.list.read_all().await?.moves)
    }

    /// Sends a command to the value of a key and waits for its reply.
    ///
    /// It is tried again until `options.timeout` where that helps, and runs at most once however often it is tried.
    /// `options.number`, where it is given, must be no other command's of the keyspace: keys move between groups.
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
        self.shared.list.command_key(keyspace, key, command, options).await
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
        let payload = ShardQuery::Query { key: key.as_bytes() }.encode(query);
        let answer = self.shared.list.query_key(keyspace, key.hash(), freshness, payload, options).await?;
        match answer {
            (ShardAnswer::Answer, rest) => Ok(rest),
            (ShardAnswer::KeyNotFound, _) => Err(KvQueryError::KeyNotFound),
            (other, _) => Err(KvQueryError::Answer(format!("{other:?}"))),
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
        let keyspace = self.keyspace(keyspace).await?;
        let mut statuses = Vec::with_capacity(keyspace.shards.len());
        for place in &keyspace.shards {
            let group = keyspace.group(place.number);
            let answer = self.fleet().query(&group, Freshness::Latest, status_query(), options).await;
            let answer = answer.map_err(|error| KvError::Query { what, error })?;
            let status = read_status(&answer).map_err(|reason| KvError::Answer { what, reason })?;
            statuses.push(status);
        }
        Ok(statuses)
    }

    pub(crate) fn list(&self) -> &KeyspaceList {
        &self.shared.list
    }

    /// What the members on this node hold of a value type, leaders or not, without asking any other node; empty where
    /// nothing is hosted.
    pub async fn local_shards(&self, value_type: &str) -> Vec<ShardStatus> {
        let data = shard_data_name(value_type);
        let statuses = local_statuses(self.fleet(), |member| member.data == data).await;
        statuses.into_iter().map(|(_, status)| status).collect()
    }

    /// Ends this node's part in the store.
    pub async fn shutdown(&self) {
        self.shared.list.end_tasks();
        self.fleet().shutdown().await;
    }
}

/// How long a member on this node may take to say how much it holds.
const LOCAL_QUERY_LIMIT: Duration = Duration::from_millis(500);

/// What the members on this node hold that are `wanted`; empty where nothing is hosted.
pub(crate) async fn local_statuses(
    fleet: &Fleet,
    wanted: impl Fn(&GroupStatus) -> bool,
) -> Vec<(GroupId, ShardStatus)> {
    let Some(host) = fleet.host() else { return Vec::new() };
    let mut statuses = Vec::new();
    for member in host.statuses().await.into_iter().filter(wanted) {
        let answer = host.query(member.group, Freshness::Stale, status_query(), LOCAL_QUERY_LIMIT).await;
        // A member may go away at any moment; it then holds nothing.
        let status = answer.ok().and_then(|answer| read_status(&answer).ok());
        statuses.extend(status.map(|status| (member.group, status)));
    }
    statuses
}

fn status_query() -> Bytes {
    ShardQuery::Status.encode(&[])
}

fn read_status(answer: &Bytes) -> Result<ShardStatus, String> {
    match split_answer(answer)? {
        (ShardAnswer::Status(status), _) => Ok(status),
        (other, _) => Err(format!("{other:?}")),
    }
}
