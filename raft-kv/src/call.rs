//! Commands and queries on their way to the shard that serves their key now, wherever it was split or merged to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_fleet::rafted_value::env::{MonoTime, sleep};
use raft_fleet::rafted_value::{CommandError, Freshness, NotApplied, QueryError, Unknown};
use raft_fleet::{CallOptions, GroupName};

use crate::error::{KvCommandError, KvNotApplied, KvQueryError, KvUnknown, RouteError};
use crate::key::Key;
use crate::keyspace::{KeyspaceName, KeyspacePolicy};
use crate::keyspace_list::KeyspaceList;
use crate::routes::Route;
use crate::shard::{Elsewhere, ShardAnswer, ShardCommand, ShardReply, split_answer, split_reply};
use crate::trail::{Next, Trail, WAIT_FIRST};

/// One call's way from shard to shard.
pub(crate) struct Way<'a> {
    list: &'a KeyspaceList,
    keyspace: &'a KeyspaceName,
    options: &'a CallOptions,
    hash: u64,
    deadline: MonoTime,
    route: Arc<Route>,
    group: GroupName,
    trail: Trail,
}

/// Why a way ends.
pub(crate) enum NoWay {
    /// Nobody knows where the shards are.
    Route(RouteError),
    /// Time is up.
    Late,
}

impl<'a> Way<'a> {
    pub(crate) async fn begin(
        list: &'a KeyspaceList,
        keyspace: &'a KeyspaceName,
        hash: u64,
        options: &'a CallOptions,
    ) -> Result<Self, RouteError> {
        let deadline = list.fleet().env().now() + options.timeout;
        let route = list.route(keyspace, options).await?;
        let shard = route.shard(hash);
        let (group, trail) = (shard.group.clone(), Trail::begin(shard.number));
        Ok(Self { list, keyspace, options, hash, deadline, route, group, trail })
    }

    /// How much of the call's time is left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.since(self.list.fleet().env().now())
    }

    /// Goes on after a shard has said that the hash is elsewhere.
    pub(crate) async fn follow(&mut self, elsewhere: Elsewhere) -> Result<(), NoWay> {
        let keyspace = &self.route.keyspace;
        // A range that was given up and has not arrived yet may still come back.
        if let Elsewhere { range, hint: Some(gone), .. } = elsewhere
            && range.is_none_or(|range| !range.contains(self.hash))
        {
            self.list.routes().learn_gone(&keyspace.name, keyspace.generation, gone);
        }
        let wait = match self.trail.next(&elsewhere) {
            Next::Ask(shard) => {
                self.group = keyspace.group(shard);
                self.trail.go(shard)
            }
            Next::Again => self.trail.stay(),
            Next::List => {
                let shard = self.look_up().await?;
                self.trail.go(shard)
            }
        };
        self.pause(wait).await
    }

    /// Goes on after a group has not answered, if the hash is another's by now. A group that ended says nothing more.
    pub(crate) async fn detour(&mut self) -> bool {
        let before = self.group.clone();
        if self.left().is_zero() {
            return false;
        }
        let Ok(shard) = self.look_up().await else { return false };
        self.trail.turn_to(shard);
        self.group != before
    }

    /// Turns to the shard that the list of keyspaces names; its number.
    async fn look_up(&mut self) -> Result<u32, NoWay> {
        // The call that asks for it is under way itself.
        let options = self.options.with_timeout(self.left().max(WAIT_FIRST)).as_essential();
        let answer = self.list.read_one(self.keyspace, &options, true).await.map_err(NoWay::Route)?;
        self.route = answer.ok_or_else(|| NoWay::Route(RouteError::NoSuchKeyspace(self.keyspace.clone())))?;
        let shard = self.route.shard(self.hash);
        self.group = shard.group.clone();
        Ok(shard.number)
    }

    async fn pause(&self, wait: Duration) -> Result<(), NoWay> {
        if wait.is_zero() {
            return Ok(());
        }
        let left = self.left();
        if left.is_zero() {
            return Err(NoWay::Late);
        }
        sleep(self.list.fleet().env().as_ref(), wait.min(left)).await;
        Ok(())
    }
}

impl KeyspaceList {
    /// Sends a command to the value of a key.
    pub(crate) async fn command_key(
        &self,
        keyspace: &KeyspaceName,
        key: &Key,
        command: &[u8],
        options: &CallOptions,
    ) -> Result<Bytes, KvCommandError> {
        if !options.essential {
            self.fleet().check_room().map_err(KvNotApplied::Group)?;
        }
        let way = Way::begin(self, keyspace, key.hash(), options).await?;
        let bytes = key.as_bytes().len() as u64;
        let limit_of = |policy: &KeyspacePolicy| u64::from(policy.key_bytes_max);
        if bytes > limit_of(&way.route.keyspace.policy)
            && let Some(limit_bytes) = self.over_limit(keyspace, options, bytes, limit_of).await?
        {
            return Err(KvNotApplied::KeyTooLong { bytes, limit_bytes }.into());
        }
        let payload = ShardCommand::Command { key: key.as_bytes() }.encode(command);
        match self.command_on(way, payload).await? {
            (ShardReply::Done, rest) => Ok(rest),
            (ShardReply::TooLarge { size: bytes, limit: limit_bytes }, _) => {
                Err(KvNotApplied::ValueTooLarge { bytes, limit_bytes }.into())
            }
            (other, _) => Err(not_understood(format!("{other:?}"))),
        }
    }

    /// The limit of a keyspace's policy, where so many bytes are over it. What is known here of the policy may be that of
    /// an earlier keyspace of the name, so that nothing is refused before the list was asked.
    pub(crate) async fn over_limit(
        &self,
        keyspace: &KeyspaceName,
        options: &CallOptions,
        bytes: u64,
        limit_of: impl Fn(&KeyspacePolicy) -> u64,
    ) -> Result<Option<u64>, RouteError> {
        let over = |route: &Route| Some(limit_of(&route.keyspace.policy)).filter(|limit| bytes > *limit);
        if over(&*self.route(keyspace, options).await?).is_none() {
            return Ok(None);
        }
        let route = self.read_one(keyspace, options, false).await?;
        Ok(over(&*route.ok_or_else(|| RouteError::NoSuchKeyspace(keyspace.clone()))?))
    }

    /// Sends a command to the shard of a hash, under one number wherever it goes.
    pub(crate) async fn command_hash(
        &self,
        keyspace: &KeyspaceName,
        hash: u64,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<(ShardReply, Bytes), KvCommandError> {
        self.command_on(Way::begin(self, keyspace, hash, options).await?, payload).await
    }

    async fn command_on(
        &self,
        mut way: Way<'_>,
        payload: Bytes,
    ) -> Result<(ShardReply, Bytes), KvCommandError> {
        let Way { keyspace, options, hash, .. } = way;
        let mut begun = loop {
            let options = options.with_timeout(way.left().max(WAIT_FIRST));
            match self.fleet().begin(&way.group, hash, payload.clone(), &options).await {
                Ok(begun) => break begun,
                Err(error) => {
                    if !is_gone(&error) || !way.detour().await {
                        return Err(self.no_reply(keyspace, error));
                    }
                }
            }
        };
        loop {
            let reply = match self.fleet().send(&way.group, &mut begun).await {
                Ok(reply) => reply,
                Err(error) => {
                    if is_final(&error) || !way.detour().await {
                        return Err(self.no_reply(keyspace, error));
                    }
                    continue;
                }
            };
            let (reply, rest) = split_reply(&reply).map_err(not_understood)?;
            let elsewhere = match reply {
                ShardReply::Elsewhere(elsewhere) => elsewhere,
                other => return Ok((other, rest)),
            };
            if let Err(no) = way.follow(elsewhere).await {
                // What is not known of an earlier attempt stays so.
                if let Some(unknown) = begun.unknown() {
                    return Err(KvCommandError::Unknown(KvUnknown::Group(unknown.clone())));
                }
                return Err(match no {
                    NoWay::Route(error) => error.into(),
                    NoWay::Late => KvNotApplied::NotServed { hash }.into(),
                });
            }
        }
    }

    /// Asks the shard of a hash.
    pub(crate) async fn query_key(
        &self,
        keyspace: &KeyspaceName,
        hash: u64,
        freshness: Freshness,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<(ShardAnswer, Bytes), KvQueryError> {
        let mut way = Way::begin(self, keyspace, hash, options).await?;
        loop {
            let left = options.with_timeout(way.left().max(WAIT_FIRST));
            let answer = match self.fleet().query(&way.group, freshness, payload.clone(), &left).await {
                Ok(answer) => answer,
                Err(error) => {
                    let gone = matches!(error, QueryError::NoSuchName(_));
                    if is_final_query(&error) || !way.detour().await {
                        if gone && self.routes().get(keyspace).is_none() {
                            return Err(RouteError::NoSuchKeyspace(keyspace.clone()).into());
                        }
                        return Err(KvQueryError::Group(error));
                    }
                    continue;
                }
            };
            match split_answer(&answer).map_err(KvQueryError::Answer)? {
                (ShardAnswer::Elsewhere(elsewhere), _) => match way.follow(elsewhere).await {
                    Ok(()) => {}
                    Err(NoWay::Route(error)) => return Err(error.into()),
                    Err(NoWay::Late) => return Err(KvQueryError::NotServed { hash }),
                },
                answer => return Ok(answer),
            }
        }
    }

    /// The shards of a keyspace; one that is not known here is asked for, and one that is being made is waited for.
    pub(crate) async fn route(
        &self,
        name: &KeyspaceName,
        options: &CallOptions,
    ) -> Result<Arc<Route>, RouteError> {
        if let Some(route) = self.routes().get(name).filter(|route| route.is_ready()) {
            return Ok(route);
        }
        let env = self.fleet().env();
        let deadline = env.now() + options.timeout;
        loop {
            match self.read_one(name, options, false).await? {
                Some(route) if route.is_ready() => return Ok(route),
                Some(_) if env.now() + options.retry_interval < deadline => {
                    sleep(env.as_ref(), options.retry_interval.max(WAIT_FIRST)).await;
                }
                Some(_) => return Err(RouteError::StillCreating(name.clone())),
                None => return Err(RouteError::NoSuchKeyspace(name.clone())),
            }
        }
    }

    /// A group that is gone with its keyspace is told as that.
    fn no_reply(&self, keyspace: &KeyspaceName, error: CommandError) -> KvCommandError {
        if matches!(error, CommandError::NotApplied(_)) && self.routes().get(keyspace).is_none() {
            return RouteError::NoSuchKeyspace(keyspace.clone()).into();
        }
        error.into()
    }
}

fn is_gone(error: &CommandError) -> bool {
    matches!(error, CommandError::NotApplied(NotApplied::NoSuchName(_)))
}

/// Whether no other group could say anything else; whoever asks too much is not to ask for the list of shards as well.
fn is_final(error: &CommandError) -> bool {
    match error {
        CommandError::NotApplied(error) => matches!(
            error,
            NotApplied::Refused(_)
                | NotApplied::Panicked(_)
                | NotApplied::Malformed(_)
                | NotApplied::TooLarge { .. }
                | NotApplied::RetryWindowTooLong { .. }
                | NotApplied::Overloaded { .. }
        ),
        CommandError::Unknown(error) => matches!(
            error,
            Unknown::Expired { .. } | Unknown::AlreadyAcknowledged | Unknown::ReplyTooLarge { .. }
        ),
    }
}

fn is_final_query(error: &QueryError) -> bool {
    matches!(
        error,
        QueryError::Refused(_)
            | QueryError::Panicked(_)
            | QueryError::Malformed(_)
            | QueryError::TooLarge { .. }
            | QueryError::AnswerTooLarge { .. }
            | QueryError::Overloaded { .. }
    )
}

fn not_understood(reason: String) -> KvCommandError {
    KvCommandError::Unknown(KvUnknown::Reply(reason))
}
