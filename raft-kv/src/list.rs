//! Lists of keys: page after page over all shards of a keyspace.

use raft_fleet::rafted_value::Freshness;
use serde::{Deserialize, Serialize};

use crate::error::KvError;
use crate::key_range::KeyRange;
use crate::keyspace::KeyspaceName;
use crate::kv::Kv;
use crate::shard::{Keys, ShardAnswer, ShardQuery, split_answer};

/// Where a list goes on. Keys are spread by their hash, so a list goes from shard to shard, and in each in the order of
/// its keys.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ListPosition {
    /// The lowest hash of the shard that comes next.
    hash: u64,
    /// The last key of it that was given.
    after: Vec<u8>,
}

/// Some keys, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPage {
    /// The keys of this page; it may be empty though there are more.
    pub keys: Vec<Vec<u8>>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<ListPosition>,
}

impl Kv {
    /// The keys that begin with `prefix`, at most `keys_max` of them, from a position on; the default one is the
    /// beginning. A key that is there all the while is given once; one that comes or goes meanwhile may be given or not.
    ///
    /// # Errors
    ///
    /// When the keyspace is not there, or a shard does not answer in time.
    pub async fn list_keys(
        &self,
        keyspace: &KeyspaceName,
        prefix: &[u8],
        from: &ListPosition,
        keys_max: u32,
    ) -> Result<KeyPage, KvError> {
        let what = "listing the keys of a shard";
        let route = self.listed_route(keyspace, what).await?;
        let shards = route.keyspace.policy.shards;
        let index = KeyRange::part_of(from.hash, shards);
        let query = ShardQuery::List { prefix, after: &from.after, keys_max: keys_max.max(1) }.encode(&[]);
        let group = &route.groups()[index as usize];
        let answer = self.fleet().query(group, Freshness::Latest, query, self.call_options()).await;
        let answer = answer.map_err(|error| KvError::Query { what, error })?;
        let keys: Keys = match split_answer(&answer).map_err(|reason| KvError::Answer { what, reason })? {
            (ShardAnswer::Keys, rest) => postcard::from_bytes(&rest)
                .map_err(|error| KvError::Answer { what, reason: error.to_string() })?,
            (other, _) => return Err(KvError::Answer { what, reason: format!("{other:?}") }),
        };
        let next = match keys.more_after {
            Some(after) => Some(ListPosition { hash: from.hash, after }),
            None if index + 1 < shards => {
                Some(ListPosition { hash: KeyRange::part(index + 1, shards).first(), after: Vec::new() })
            }
            None => None,
        };
        Ok(KeyPage { keys: keys.keys, next })
    }
}
