//! Scans: the keys of a keyspace, page after page over all of its shards.

use raft_fleet::rafted_value::Freshness;
use serde::{Deserialize, Serialize};

use crate::error::{KvError, KvQueryError};
use crate::key_range::KeyRange;
use crate::keyspace::KeyspaceName;
use crate::kv::Kv;
use crate::shard::{ShardAnswer, ShardQuery};

/// Answers of shards that one page is made of at most; a page may end before it is full.
const ANSWERS_MAX: usize = 16;

/// Where a scan goes on. Keys lie in the order of their hashes, so that a place means the same before and after a split
/// or a merge.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ListPosition {
    /// The first hash that was not looked at.
    hash: u64,
}

impl ListPosition {
    /// The first hash that was not looked at: where a listing of a range ([`Kv::keys_of`]) goes on.
    pub fn hash(self) -> u64 {
        self.hash
    }
}

/// Some keys, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPage {
    /// The keys of this page, in the order of their hashes; it may be empty though there are more.
    pub keys: Vec<Vec<u8>>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<ListPosition>,
}

impl Kv {
    /// The keys that begin with `prefix`, about `keys_max` of them at most, from a position on; the default one is the
    /// beginning. A key that is there all the while is given once, whatever is split or merged meanwhile; one that comes
    /// or goes may be given or not.
    ///
    /// A scan looks at every key of the keyspace, whatever the prefix: keys that begin alike do not lie together.
    ///
    /// # Errors
    ///
    /// When the keyspace is not there, or a shard does not answer in time.
    pub async fn scan_keys(
        &self,
        keyspace: &KeyspaceName,
        prefix: &[u8],
        from: &ListPosition,
        keys_max: u32,
    ) -> Result<KeyPage, KvError> {
        let range = KeyRange::new(from.hash, u64::MAX).expect("any hash is at most the last");
        self.keys_of(keyspace, range, prefix, keys_max).await
    }

    /// The same for the keys of a range of hashes, a shard's for example ([`Keyspace::shards`](crate::Keyspace::shards));
    /// the next page is that of the range from [`ListPosition::hash`] on.
    ///
    /// # Errors
    ///
    /// When the keyspace is not there, or a shard does not answer in time.
    pub async fn keys_of(
        &self,
        keyspace: &KeyspaceName,
        range: KeyRange,
        prefix: &[u8],
        keys_max: u32,
    ) -> Result<KeyPage, KvError> {
        let (list, options) = (self.list(), &self.list().config().call);
        let mut keys = Vec::new();
        let mut left = Some(range);
        for _ in 0..ANSWERS_MAX {
            let room = keys_max.max(1).saturating_sub(u32::try_from(keys.len()).unwrap_or(u32::MAX));
            let Some(range) = left.filter(|_| room > 0) else { break };
            let query = ShardQuery::Keys { range, prefix, keys_max: room }.encode(&[]);
            let answer = list.query_key(keyspace, range.first(), Freshness::Latest, query, options).await;
            match answer.map_err(|error| unread(keyspace, error))? {
                (ShardAnswer::Keys { page, found }, _) => {
                    keys.extend(found.into_iter().map(|found| found.key.to_vec()));
                    left = range.without(page);
                }
                (other, _) => {
                    let what = "listing the keys of a shard";
                    return Err(KvError::Answer { what, reason: format!("{other:?}") });
                }
            }
        }
        Ok(KeyPage { keys, next: left.map(|left| ListPosition { hash: left.first() }) })
    }
}

pub(crate) fn unread(keyspace: &KeyspaceName, error: KvQueryError) -> KvError {
    match error {
        KvQueryError::Route(crate::error::RouteError::NoSuchKeyspace(_)) => {
            KvError::NoSuchKeyspace(keyspace.clone())
        }
        KvQueryError::Route(error) => KvError::Route(error),
        KvQueryError::Group(error) => KvError::Query { what: "reading a shard", error },
        other => KvError::Answer { what: "reading a shard", reason: other.to_string() },
    }
}
