//! A shard: the live values of one range of keys, replicated by one group.

mod classes;
mod hook;
mod index;
mod snapshot;
mod sweep;
mod timers;
mod wake;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use raft_fleet::rafted_value::{CommandContext, RawData, Refused, RestoreError, encode};
use serde::{Deserialize, Serialize};

pub use self::classes::{ClassCount, Tally};
pub(crate) use self::hook::ShardHook;
use self::index::{Index, Marks};
pub(crate) use self::sweep::Keys;
pub(crate) use self::timers::Alarm;
pub(crate) use self::wire::{ShardAnswer, ShardCommand, ShardQuery, ShardReply, split_answer, split_reply};
use crate::key;
use crate::key_range::KeyRange;
use crate::value_type::{Answer, Done, ValuePerKey};

/// The values of one shard, each live and of its own type.
///
/// Replicated: the range and the entries. Not replicated: the load, which each member counts for itself (what it
/// counts on the way, after a restart or a replay, need not agree with anyone).
pub(crate) struct ShardData<V: ValuePerKey> {
    value_type: Arc<V>,
    /// What the shard is responsible for; a new group has none until its creator tells it.
    range: Option<KeyRange>,
    entries: BTreeMap<Box<[u8]>, Entry<V::Value>>,
    /// The sum of the entries' sizes; it wraps, so that no value type can make it panic.
    size: u64,
    load: AtomicU64,
    /// Derived from the entries.
    index: Index,
    /// Whether the next command runs on the member that leads; told by the hook just before it.
    leads: AtomicBool,
}

struct Entry<T> {
    /// Always `Some` between commands; the handler works on the `Option` in place.
    value: Option<T>,
    size: u64,
}

/// What one member says of its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The key hashes it is responsible for; none until its creator has told it.
    pub range: Option<KeyRange>,
    /// How many keys have a value.
    pub keys: u64,
    /// The sum of the values' sizes.
    pub size: u64,
    /// The sum of the loads of what this member has handled in this life.
    pub load: u64,
}

impl<V: ValuePerKey> ShardData<V> {
    /// A shard that holds nothing and is responsible for nothing yet.
    pub(crate) fn new(value_type: Arc<V>) -> Self {
        Self {
            value_type,
            range: None,
            entries: BTreeMap::new(),
            size: 0,
            load: AtomicU64::new(0),
            index: Index::default(),
            leads: AtomicBool::new(false),
        }
    }

    /// The same shard, which tells this alarm when its first timer is due.
    pub(crate) fn with_alarm(mut self, alarm: Alarm) -> Self {
        self.index.set_alarm(alarm);
        self
    }

    fn initialise(&mut self, range: KeyRange) -> ShardReply {
        match self.range {
            None => self.range = Some(range),
            // A creator that died was resumed by another, which repeats this.
            Some(present) if present == range => {}
            Some(present) => return ShardReply::OtherRange { range: present },
        }
        ShardReply::Initialised
    }

    fn command_key(
        &mut self,
        context: &CommandContext,
        key: &[u8],
        command: &Bytes,
    ) -> Result<Bytes, Refused> {
        if let Err(away) = self.responsible(key) {
            return Ok(away.reply());
        }
        let leads = self.leads.swap(false, Ordering::Relaxed);
        let value_type = self.value_type.as_ref();
        let run = |value: &mut Option<V::Value>| {
            if leads {
                value_type.command_led(context, key, value, command)
            } else {
                value_type.command(context, key, value, command)
            }
        };
        let done = match self.entries.get_mut(key) {
            Some(entry) => {
                let before = Marks::of(value_type, key, entry.value.as_ref());
                let done = run(&mut entry.value)?;
                self.index.moved(key, &before, &Marks::of(value_type, key, entry.value.as_ref()));
                self.size = self.size.wrapping_sub(entry.size);
                if entry.value.is_some() {
                    entry.size = done.size;
                    self.size = self.size.wrapping_add(done.size);
                } else {
                    self.entries.remove(key);
                }
                done
            }
            None => {
                let mut value = None;
                let done = run(&mut value)?;
                if value.is_some() {
                    self.insert(key, value, done.size);
                }
                done
            }
        };
        let Done { reply, load, .. } = done;
        self.count(load);
        Ok(ShardReply::Done.encode(&reply))
    }

    fn query_key(&self, key: &[u8], query: &Bytes) -> Result<Bytes, Refused> {
        if let Err(away) = self.responsible(key) {
            return Ok(away.answer());
        }
        let Some(value) = self.entries.get(key).and_then(|entry| entry.value.as_ref()) else {
            self.count(MISSING_KEY_LOAD);
            return Ok(ShardAnswer::KeyNotFound.encode(&[]));
        };
        let Answer { answer, load } = self.value_type.query(key, value, query)?;
        self.count(load);
        Ok(ShardAnswer::Answer.encode(&answer))
    }

    fn responsible(&self, key: &[u8]) -> Result<(), Away> {
        match self.range {
            None => Err(Away::NotInitialised),
            Some(range) if range.contains(key::hash(key)) => Ok(()),
            Some(range) => Err(Away::OutOfRange { range }),
        }
    }

    /// Adds an entry whose key has none.
    fn insert(&mut self, key: &[u8], value: Option<V::Value>, size: u64) {
        let marks = Marks::of(self.value_type.as_ref(), key, value.as_ref());
        self.index.moved(key, &Marks::default(), &marks);
        let previous = self.entries.insert(key.into(), Entry { value, size });
        assert!(previous.is_none(), "an entry is added where there is none");
        self.size = self.size.wrapping_add(size);
    }

    fn count(&self, load: u64) {
        self.load.fetch_add(load, Ordering::Relaxed);
    }

    /// The tally at a stamped time, as a reply; and as an answer, at no time.
    fn tally_at(&self, now_ms: u64) -> Bytes {
        self.leads.store(false, Ordering::Relaxed);
        match self.range {
            Some(range) => {
                ShardReply::Tally.encode(&encode(&Tally { range, now_ms, counts: self.index.counts() }))
            }
            None => Away::NotInitialised.reply(),
        }
    }

    fn tally(&self) -> Bytes {
        match self.range {
            Some(range) => {
                ShardAnswer::Tally.encode(&encode(&Tally { range, now_ms: 0, counts: self.index.counts() }))
            }
            None => Away::NotInitialised.answer(),
        }
    }

    fn status(&self) -> ShardStatus {
        let load = self.load.load(Ordering::Relaxed);
        ShardStatus { range: self.range, keys: self.entries.len() as u64, size: self.size, load }
    }
}

/// What a query for a key without a value costs.
const MISSING_KEY_LOAD: u64 = 1;

/// Why a key is not served here.
enum Away {
    NotInitialised,
    OutOfRange { range: KeyRange },
}

impl Away {
    fn reply(&self) -> Bytes {
        let reply = match *self {
            Away::NotInitialised => ShardReply::NotInitialised,
            Away::OutOfRange { range } => ShardReply::OutOfRange { range },
        };
        reply.encode(&[])
    }

    fn answer(&self) -> Bytes {
        let answer = match *self {
            Away::NotInitialised => ShardAnswer::NotInitialised,
            Away::OutOfRange { range } => ShardAnswer::OutOfRange { range },
        };
        answer.encode(&[])
    }
}

impl<V: ValuePerKey> RawData for ShardData<V> {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        let (command, rest) = ShardCommand::split(payload)?;
        match command {
            ShardCommand::Initialise { range } => Ok(self.initialise(range).encode(&[])),
            ShardCommand::Command { key } => self.command_key(context, key, &payload.slice_ref(rest)),
            ShardCommand::Wake { keys_max } => Ok(self.wake(context, keys_max).encode(&[])),
            ShardCommand::Tally => Ok(self.tally_at(context.now_ms)),
            ShardCommand::Sweep { prefix, after, keys_max } => {
                Ok(self.sweep(context, prefix, after, keys_max, &payload.slice_ref(rest)))
            }
        }
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        let (query, rest) = ShardQuery::split(payload)?;
        match query {
            ShardQuery::Query { key } => self.query_key(key, &payload.slice_ref(rest)),
            ShardQuery::Status => Ok(ShardAnswer::Status(self.status()).encode(&[])),
            ShardQuery::Tally => Ok(self.tally()),
            ShardQuery::List { prefix, after, keys_max } => Ok(self.list(prefix, after, keys_max)),
            ShardQuery::NextWake => Ok(ShardAnswer::NextWake(self.index.next_wake()).encode(&[])),
        }
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        self.write_snapshot(out);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let error = |reason| RestoreError { data: "a shard".to_owned(), reason };
        let alarm = self.index.alarm();
        *self = Self::read_snapshot(Arc::clone(&self.value_type), bytes).map_err(error)?.with_alarm(alarm);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
