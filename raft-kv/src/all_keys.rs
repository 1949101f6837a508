//! Commands to all keys of a range of hashes, one shard or all of them.

use raft_fleet::CallOptions;
use raft_fleet::rafted_value::Freshness;

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
}

impl Kv {
    /// Begins a command to all keys of a range of hashes: a shard's ([`Keyspace::shards`](crate::Keyspace::shards)), or
    /// [`KeyRange::ALL`]. It may be gone on with for as long as `options` say that a reply is kept.
    pub fn all_keys(&self, range: KeyRange, options: &CallOptions) -> AllKeysRun {
        let env = self.fleet().env();
        let id = (u128::from(env.random_u64()) << 64) | u128::from(env.random_u64());
        let window = options.timeout.saturating_add(options.retry_margin);
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
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
        while let Some(range) = run.left {
            let left = deadline.since(env.now());
            if left.is_zero() {
                return Err(KvNotApplied::NotServed { hash: range.first() }.into());
            }
            let all = AllCommand { id: run.id, until_ms: run.until_ms, range, keys_max: PAGE_KEYS };
            let payload = ShardCommand::CommandAll(all).encode(command);
            // A page that is sent again under another number is the same page all the same.
            let options = options.with_timeout(left.min(options.attempt_timeout.saturating_mul(4)));
            match self.list().command_hash(keyspace, range.first(), payload, &options).await {
                Ok((ShardReply::AllDone { covered, keys, refused }, _)) => {
                    (run.keys, run.refused) = (run.keys + keys, run.refused + refused);
                    run.left = covered
                        .last()
                        .checked_add(1)
                        .and_then(|first| KeyRange::new(first.max(range.first()), range.last()));
                }
                Ok((ShardReply::Expired, _)) => return Err(KvNotApplied::Expired.into()),
                Ok((ShardReply::TooManyAll, _)) => return Err(KvNotApplied::TooManyAllKeys.into()),
                Ok((other, _)) => return Err(KvUnknown::Reply(format!("{other:?}")).into()),
                Err(KvCommandError::Unknown(KvUnknown::Group(_))) if env.now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks the same of many keys, each shard at once; the answers are in the order of the keys. Each is the newest at
    /// the time its shard gave it; together they are of no one moment.
    pub async fn query_many(
        &self,
        keyspace: &KeyspaceName,
        keys: &[Key],
        query: &[u8],
        options: &CallOptions,
    ) -> Vec<Result<bytes::Bytes, KvQueryError>> {
        let mut answers: Vec<Option<Result<bytes::Bytes, KvQueryError>>> = vec![None; keys.len()];
        if let Ok(route) = self.list().route(keyspace, options).await {
            let mut of_shards = std::collections::BTreeMap::<u32, Vec<usize>>::new();
            for (at, key) in keys.iter().enumerate() {
                of_shards.entry(route.shard(key.hash()).number).or_default().push(at);
            }
            let parts = of_shards.values().flat_map(|of_shard| of_shard.chunks(QUERY_KEYS_MAX));
            let asked = parts.map(|part| async move {
                let some = part.iter().map(|at| keys[*at].as_bytes()).collect();
                let payload = ShardQuery::Many { keys: some }.encode(query);
                let hash = keys[part[0]].hash();
                (part, self.list().query_key(keyspace, hash, Freshness::Latest, payload, options).await)
            });
            for (part, answer) in futures_util::future::join_all(asked).await {
                let Ok((ShardAnswer::Many(some), _)) = answer else { continue };
                for (at, answer) in part.iter().zip(some) {
                    answers[*at] = match answer {
                        KeyAnswer::Answer(answer) => Some(Ok(answer)),
                        KeyAnswer::KeyNotFound => Some(Err(KvQueryError::KeyNotFound)),
                        // It is elsewhere by now, or says best itself what is wrong.
                        KeyAnswer::Elsewhere(_) | KeyAnswer::Refused(_) => None,
                    };
                }
            }
        }
        let stragglers: Vec<usize> = (0..keys.len()).filter(|at| answers[*at].is_none()).collect();
        for some in stragglers.chunks(STRAGGLERS_MAX) {
            let ask = |at: &usize| self.query(keyspace, &keys[*at], Freshness::Latest, query, options);
            let asked = futures_util::future::join_all(some.iter().map(ask)).await;
            some.iter().zip(asked).for_each(|(at, answer)| answers[*at] = Some(answer));
        }
        answers.into_iter().map(|answer| answer.expect("each was asked alone if not with others")).collect()
    }
}
