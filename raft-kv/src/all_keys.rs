//! Commands to all keys of a range of hashes, one shard or all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use raft_fleet::CallOptions;
use raft_fleet::rafted_value::env::MonoTime;
use raft_fleet::rafted_value::{Freshness, QueryError};

use crate::config::as_ms;
use crate::error::{KvCommandError, KvNotApplied, KvQueryError, KvUnknown};
use crate::key::Key;
use crate::key_range::KeyRange;
use crate::keyspace::KeyspaceName;
use crate::kv::Kv;
use crate::shard::{AllCommand, KeyAnswer, ShardAnswer, ShardCommand, ShardQuery, ShardReply};

/// Keys that one page of a command runs on; others' commands run in between.
const PAGE_KEYS: u32 = 500;
/// Keys that are asked alone at a time, because their shard had moved or did not answer.
const STRAGGLERS_MAX: usize = 64;
/// Keys that one query asks at most.
const QUERY_KEYS_MAX: usize = 500;

/// One command to all keys of a range, and how far it has come. It runs once on each key, however often it is gone on
/// with, and whatever is split or merged meanwhile; on a key that is added behind it while it runs it may run or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllKeysRun {
    id: u128,
    until_ms: u64,
    left: Option<KeyRange>,
    /// How many keys it ran on, as far as replies have come: one that was lost counts none.
    pub keys: u64,
    /// How many keys refused it.
    pub refused: u64,
}

impl AllKeysRun {
    /// What it has not come to yet; `None` when it is done.
    pub fn left(&self) -> Option<KeyRange> {
        self.left
    }

    /// Shards remember it for no longer than the replies of commands, whatever its caller wants.
    fn keep_for_at_most(&mut self, now_ms: u64, window_max_ms: u64) {
        self.until_ms = self.until_ms.min(now_ms.saturating_add(window_max_ms));
    }
}

impl Kv {
    /// Begins a command to all keys of a range of hashes: a shard's ([`Keyspace::shards`](crate::Keyspace::shards)), or
    /// [`KeyRange::ALL`]. It may be gone on with for as long as `options` say that a reply is kept, within what the
    /// shards' groups allow (`retry_window_max_ms`, ten minutes by default).
    pub fn all_keys(&self, range: KeyRange, options: &CallOptions) -> AllKeysRun {
        let env = self.fleet().env();
        let id = (u128::from(env.random_u64()) << 64) | u128::from(env.random_u64());
        let window_ms = as_ms(options.timeout.saturating_add(options.retry_margin));
        let until_ms = env.wall_ms().saturating_add(window_ms);
        AllKeysRun { id, until_ms, left: Some(range), keys: 0, refused: 0 }
    }

    /// Runs the same command on every key of a range, page after page, until it is done or `options.timeout` has passed.
    /// Called again with the same `run`, it goes on; with another command it must not be.
    ///
    /// A key whose handler refuses is counted and passed over. A page in which a handler panics changes nothing, and ends
    /// the run.
    ///
    /// # Errors
    ///
    /// Why it did not come to its end; `run` says how far it came.
    pub async fn command_all(
        &self,
        keyspace: &KeyspaceName,
        run: &mut AllKeysRun,
        command: &[u8],
        options: &CallOptions,
    ) -> Result<(), KvCommandError> {
        let env = self.fleet().env();
        let deadline = env.now() + options.timeout;
        let route = self.list().route(keyspace, options).await?;
        run.keep_for_at_most(env.wall_ms(), route.keyspace.policy.group.retry_window_max_ms);
        // What is not known of an attempt at the present page.
        let mut unknown = None;
        let end = |unknown: Option<KvUnknown>, error: KvCommandError| unknown.map_or(error, Into::into);
        while let Some(range) = run.left {
            let left = deadline.since(env.now());
            if left.is_zero() {
                return Err(end(unknown, KvNotApplied::TimeUp { limit_ms: as_ms(options.timeout) }.into()));
            }
            let all = AllCommand { id: run.id, until_ms: run.until_ms, range, keys_max: PAGE_KEYS };
            let payload = ShardCommand::CommandAll(all).encode(command);
            // A page that is sent again under another number is the same page all the same.
            let options = options.with_timeout(left.min(options.attempt_timeout.saturating_mul(4)));
            match self.list().command_hash(keyspace, range.first(), payload, &options).await {
                Ok((ShardReply::AllDone { covered, keys, refused }, _)) => {
                    unknown = None;
                    (run.keys, run.refused) = (run.keys + keys, run.refused + refused);
                    run.left = covered
                        .last()
                        .checked_add(1)
                        .and_then(|first| KeyRange::new(first.max(range.first()), range.last()));
                }
                Ok((ShardReply::Expired, _)) => return Err(end(unknown, KvNotApplied::Expired.into())),
                Ok((ShardReply::TooManyAll, _)) => {
                    return Err(end(unknown, KvNotApplied::TooManyAllKeys.into()));
                }
                Ok((other, _)) => return Err(KvUnknown::Reply(format!("{other:?}")).into()),
                Err(KvCommandError::Unknown(error @ KvUnknown::Group(_))) if env.now() < deadline => {
                    unknown = Some(error);
                }
                Err(error) => return Err(end(unknown, error)),
            }
        }
        Ok(())
    }

    /// Asks the same of many keys, each shard at once; the answers are in the order of the keys. Each is the newest at
    /// the time its shard gave it; together they are of no one moment. `options.timeout` is the time for all of them.
    pub async fn query_many(
        &self,
        keyspace: &KeyspaceName,
        keys: &[Key],
        query: &[u8],
        options: &CallOptions,
    ) -> Vec<Result<Bytes, KvQueryError>> {
        let many = Many { kv: self, keyspace, keys, query, options, began: self.fleet().env().now() };
        let route = match self.list().route(keyspace, options).await {
            Ok(route) => route,
            Err(error) => return keys.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let mut of_shards = BTreeMap::<u32, Vec<usize>>::new();
        for (at, key) in keys.iter().enumerate() {
            of_shards.entry(route.shard(key.hash()).number).or_default().push(at);
        }
        let parts = of_shards.values().flat_map(|of_shard| of_shard.chunks(QUERY_KEYS_MAX));
        let mut answers: Vec<Option<Result<Bytes, KvQueryError>>> = vec![None; keys.len()];
        let mut stragglers = Vec::new();
        for (at, answer) in join_all(parts.map(|part| many.ask_together(part))).await.into_iter().flatten() {
            if answer.is_none() {
                stragglers.push(at);
            }
            answers[at] = answer;
        }
        // Those whose shard has answered come first; the time may not do for the others.
        let moved: BTreeSet<usize> = stragglers.iter().copied().collect();
        stragglers.extend((0..keys.len()).filter(|at| answers[*at].is_none() && !moved.contains(at)));
        for some in stragglers.chunks(STRAGGLERS_MAX) {
            let asked = join_all(some.iter().map(|at| many.ask_alone(*at))).await;
            some.iter().zip(asked).for_each(|(at, answer)| answers[*at] = Some(answer));
        }
        answers.into_iter().map(|answer| answer.expect("each was asked alone if not with others")).collect()
    }
}

/// The same query of many keys.
struct Many<'a> {
    kv: &'a Kv,
    keyspace: &'a KeyspaceName,
    keys: &'a [Key],
    query: &'a [u8],
    options: &'a CallOptions,
    began: MonoTime,
}

/// The place of a key and its answer; `None` where it must be asked alone.
type Found = (usize, Option<Result<Bytes, KvQueryError>>);

impl Many<'_> {
    /// These options for what is left of so much time, if anything is.
    fn within(&self, time: Duration) -> Option<CallOptions> {
        let left = (self.began + time).since(self.kv.fleet().env().now());
        (!left.is_zero()).then(|| self.options.with_timeout(left))
    }

    /// Asks the shard that has, or had, all of these keys, as often as it takes: it answers no more at a time than one
    /// message holds. Half of the time is for this.
    async fn ask_together(&self, mut part: &[usize]) -> Vec<Found> {
        let mut found = Vec::with_capacity(part.len());
        while let Some((&first, options)) = part.first().zip(self.within(self.options.timeout / 2)) {
            let keys = part.iter().map(|at| self.keys[*at].as_bytes()).collect();
            let payload = ShardQuery::Many { keys }.encode(self.query);
            let (hash, list) = (self.keys[first].hash(), self.kv.list());
            let asked = list.query_key(self.keyspace, hash, Freshness::Latest, payload, &options).await;
            let Ok((ShardAnswer::Many(some), _)) = asked else { break };
            let (answered, left) = part.split_at(some.len().min(part.len()));
            if answered.is_empty() {
                break;
            }
            found.extend(answered.iter().copied().zip(some.into_iter().map(|answer| match answer {
                KeyAnswer::Answer(answer) => Some(Ok(answer)),
                KeyAnswer::KeyNotFound => Some(Err(KvQueryError::KeyNotFound)),
                // It is elsewhere by now, or says best itself what is wrong.
                KeyAnswer::Elsewhere(_) | KeyAnswer::Refused(_) => None,
            })));
            part = left;
        }
        found
    }

    async fn ask_alone(&self, at: usize) -> Result<Bytes, KvQueryError> {
        let Some(options) = self.within(self.options.timeout) else {
            let limit_ms = as_ms(self.options.timeout);
            return Err(KvQueryError::Group(QueryError::Timeout { limit_ms }));
        };
        self.kv.query(self.keyspace, &self.keys[at], Freshness::Latest, self.query, &options).await
    }
}
