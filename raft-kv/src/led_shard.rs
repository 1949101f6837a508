//! A shard that this node leads, for housekeeping that each leader does for its own.

use std::time::Duration;

use bytes::Bytes;
use raft_fleet::rafted_value::{Command, CommandError, Freshness, GroupId, Host, SessionId};

use crate::error::KvError;
use crate::kv::Kv;
use crate::shard::{
    Keys, ShardAnswer, ShardCommand, ShardQuery, ShardReply, Tally, split_answer, split_reply,
};
use crate::value_type::shard_data_name;

/// How long one command or query for a shard of this node may take.
const LIMIT: Duration = Duration::from_secs(2);
/// For how long a reply is kept; nobody asks for one twice.
const RETRY_MS: u64 = 2_000;
/// The most values that one command of a sweep visits.
const SWEEP_KEYS_MAX: u32 = 500;

/// A shard that this node led a moment ago. Whatever is done through it goes through the shard's log, so that it fails
/// where another node leads by now.
#[derive(Clone)]
pub struct LedShard {
    host: Host,
    group: GroupId,
}

impl Kv {
    /// The shards of a value type that this node leads; none where nothing is hosted.
    pub async fn led_shards(&self, value_type: &str) -> Vec<LedShard> {
        let Some(host) = self.fleet().host() else { return Vec::new() };
        let data = shard_data_name(value_type);
        let members = host.statuses().await;
        let led = members.into_iter().filter(|member| member.ready && member.data == data);
        led.map(|member| LedShard { host: host.clone(), group: member.group }).collect()
    }
}

impl LedShard {
    /// Which shard it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// How many values of each class this node's member holds, at no certain time.
    ///
    /// # Errors
    ///
    /// When the member is gone or does not answer.
    pub async fn read_tally(&self) -> Result<Tally, KvError> {
        let what = "reading the tally of a shard";
        let query = ShardQuery::Tally.encode(&[]);
        let answer = self.host.query(self.group, Freshness::Stale, query, LIMIT).await;
        let answer = answer.map_err(|error| KvError::Query { what, error })?;
        match split_answer(&answer).map_err(|reason| KvError::Answer { what, reason })? {
            (ShardAnswer::Tally, tally) => decode(what, &tally),
            (other, _) => Err(KvError::Answer { what, reason: format!("{other:?}") }),
        }
    }

    /// How many values of each class the shard holds at a place in its log: everything that was stamped before
    /// [`Tally::now_ms`] is in it.
    ///
    /// # Errors
    ///
    /// When this node does not lead the shard any more, or no reply comes.
    pub async fn tally(&self) -> Result<Tally, KvError> {
        let what = "taking the tally of a shard";
        match self.command(what, ShardCommand::Tally.encode(&[])).await? {
            (ShardReply::Tally, tally) => decode(what, &tally),
            (other, _) => Err(KvError::Answer { what, reason: format!("{other:?}") }),
        }
    }

    /// Lets the value type change or remove every value whose key begins with `prefix`, as its
    /// [`sweep`](crate::ValuePerKey::sweep) does with `payload`; a bounded number at a time, others' commands in between.
    ///
    /// # Errors
    ///
    /// When this node does not lead the shard any more, or a reply does not come. Some values may have been visited.
    pub async fn sweep(&self, prefix: &[u8], payload: &[u8]) -> Result<(), KvError> {
        let what = "sweeping a shard";
        let mut after = Vec::new();
        loop {
            let command = ShardCommand::Sweep { prefix, after: &after, keys_max: SWEEP_KEYS_MAX };
            let keys: Keys = match self.command(what, command.encode(payload)).await? {
                (ShardReply::Swept, rest) => decode(what, &rest)?,
                (other, _) => return Err(KvError::Answer { what, reason: format!("{other:?}") }),
            };
            match keys.more_after {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    async fn command(&self, what: &'static str, payload: Bytes) -> Result<(ShardReply, Bytes), KvError> {
        let env = self.host.env();
        let command = Command {
            session: SessionId::new(env.random_u64(), env.random_u64()),
            sequence: 0,
            acknowledged: 0,
            retry_until_ms: env.wall_ms() + RETRY_MS,
            key_hash: 0,
            payload,
        };
        let reply: Result<Bytes, CommandError> = self.host.command(self.group, command, LIMIT).await;
        let reply = reply.map_err(|error| KvError::Command { what, error })?;
        split_reply(&reply).map_err(|reason| KvError::Answer { what, reason })
    }
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, KvError> {
    postcard::from_bytes(bytes).map_err(|error| KvError::Answer { what, reason: error.to_string() })
}

impl std::fmt::Debug for LedShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LedShard").field(&self.group).finish()
    }
}
