//! What the values of a keyspace are: the callbacks of one value type, and the set of types that a node knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use raft_fleet::rafted_value::{CommandContext, Data, Refused, Registry};

use crate::shard::{Alarm, ShardData, ShardHook};

/// The callbacks of the values of a keyspace, one value for each key.
///
/// `command` runs on every member of a shard and must give the same value, reply, load and size everywhere: no clock,
/// no randomness (what a handler needs of both is in its context), no iteration over hash maps. A handler that panics
/// changes nothing on any member, and its caller is told so; that costs a rebuild of the shard, so it is for mistakes,
/// not for answers.
///
/// It is an object (`&self`) so that a layer above can find the type of a value when it runs, from the key.
pub trait ValuePerKey: Send + Sync + 'static {
    /// A live value; it stays in memory as it is, and is turned into bytes for snapshots only.
    type Value: Send + 'static;

    /// Changes the value of a key; pure.
    ///
    /// `value` is the key's value, or `None` where there is none. The handler changes it in place, fills it (a new
    /// value) or empties it (the key is removed).
    ///
    /// # Errors
    ///
    /// When the command cannot be carried out at all (it does not decode). Nothing may have changed then (a value that was
    /// taken out counts as a panic); answers that callers act on belong into the reply.
    fn command(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Self::Value>,
        command: &Bytes,
    ) -> Result<Done, Refused>;

    /// The same on the member that leads the shard: it must do to the value, and reply, exactly what
    /// [`command`](Self::command) does, and may beside that act on the world. What it does is done at least once for each
    /// command that takes effect, before its caller is answered; twice where the leader changed in between.
    ///
    /// A command that is undone because the value has become too large has been here all the same. It must not block, and
    /// whatever it does beside the command must not panic: only this member would undo the
    /// command. Called only where [`has_hooks`](Self::has_hooks) says so.
    ///
    /// # Errors
    ///
    /// Those of [`command`](Self::command).
    fn command_led(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Self::Value>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        self.command(context, key, value, command)
    }

    /// Whether [`command_led`](Self::command_led), [`answered`](Self::answered) and the `leads` of [`wake`](Self::wake)
    /// are made use of. Asked once, when the type is registered; without it nothing of this costs anything.
    fn has_hooks(&self) -> bool {
        false
    }

    /// A copy of the value that shares with it what it holds, if one can be made in a moment, however large it is: by
    /// reference counts (`Bytes`, `Arc`) or persistent collections. Default: none.
    ///
    /// With it, a value that a command has made too large is put back without further ado, and a large shard is turned
    /// into bytes beside its loop when a snapshot is taken. Either all values of a type have one or none.
    fn copy(&self, key: &[u8], value: &Self::Value) -> Option<Self::Value> {
        let _ = (key, value);
        None
    }

    /// When the value wants to be woken, in milliseconds since 1970 of stamped time; asked after each command for it.
    fn wake_at(&self, value: &Self::Value) -> Option<u64> {
        let _ = value;
        None
    }

    /// The time that [`wake_at`](Self::wake_at) gave has come; pure but for what it does where this member `leads`, see
    /// [`command_led`](Self::command_led). The value is changed in place, or taken out to remove the key. One that
    /// leaves the value as it was would be called again at once, for ever.
    ///
    /// It must not panic: values that are due together are woken by one command, and a panic undoes all of it.
    fn wake(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Self::Value>,
        leads: bool,
    ) -> Woken {
        let _ = (context, key, value, leads);
        Woken::default()
    }

    /// The class that a value is counted in: what its key begins with, and a tag. The values of each class are counted
    /// where they are, so that a [`Tally`](crate::Tally) costs in proportion to the classes. Asked before and after each
    /// command.
    fn class<'k>(&self, key: &'k [u8], value: &Self::Value) -> Option<(&'k [u8], u64)> {
        let _ = (key, value);
        None
    }

    /// A command for all keys that begin alike has come to this one; pure. Gives the size of the value that it leaves,
    /// which counts for nothing when it took it out. It must not panic, like [`wake`](Self::wake).
    fn sweep(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Self::Value>,
        payload: &Bytes,
    ) -> u64 {
        let _ = (context, key, value, payload);
        0
    }

    /// The leader has answered a query of this key for the newest state, alone or among many; see [`command_led`](Self::command_led).
    fn answered(&self, key: &[u8], value: &Self::Value, query: &Bytes, answer: &Bytes) {
        let _ = (key, value, query, answer);
    }

    /// Reads the value of a key that has one; pure.
    ///
    /// # Errors
    ///
    /// When the query cannot be answered at all (it does not decode).
    fn query(&self, key: &[u8], value: &Self::Value, query: &Bytes) -> Result<Answer, Refused>;

    /// Appends the value to `out`. It must not panic: there is no command to undo when a snapshot is taken, so the whole
    /// shard would stop. A value type whose values may fail to encode finds that out in [`command`](Self::command).
    fn encode(&self, key: &[u8], value: &Self::Value, out: &mut Vec<u8>);

    /// The value that [`encode`](ValuePerKey::encode) wrote.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<Self::Value, String>;
}

/// What a command gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// What the caller gets.
    pub reply: Bytes,
    /// What the command cost, in a unit of the value type's choice; summed up per shard.
    pub load: u64,
    /// How large the value is now, in bytes or a unit of the value type's choice; summed up per shard, and limited by
    /// [`KeyspacePolicy::value_bytes_max`](crate::KeyspacePolicy::value_bytes_max): a command that leaves a larger value
    /// changes nothing, and its caller is told so. Counts for nothing when the command removed the value.
    pub size: u64,
}

/// What waking a value gives.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Woken {
    /// What it cost, in the same unit as a command's load.
    pub load: u64,
    /// How large the value is now; counts for nothing when it was removed.
    pub size: u64,
}

/// What a query gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the caller gets.
    pub answer: Bytes,
    /// What the query cost, in the same unit as a command's load.
    pub load: u64,
}

type AddTo = Arc<dyn Fn(Registry, String) -> Registry + Send + Sync>;

/// The value types that a node knows, by name. Every node of a cluster must know the same under the same names.
#[derive(Clone, Default)]
pub struct KvTypes {
    types: BTreeMap<String, AddTo>,
    /// Told by every shard of this node when its first value is due.
    alarm: Alarm,
    /// Replicated values beside the store, in groups of their own.
    data: Registry,
}

impl KvTypes {
    /// A set that is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value type. A later one replaces an earlier one of the same name.
    #[must_use]
    pub fn with<V: ValuePerKey>(mut self, name: impl Into<String>, value_type: V) -> Self {
        let (value_type, alarm) = (Arc::new(value_type), self.alarm.clone());
        let add = move |mut registry: Registry, data: String| {
            let (value_type, alarm) = (Arc::clone(&value_type), alarm.clone());
            if value_type.has_hooks() {
                registry = registry.with_raw_hook(data.clone(), ShardHook::<V>::new());
            }
            registry.with_raw(data, move || {
                Box::new(ShardData::new(Arc::clone(&value_type)).with_alarm(alarm.clone()))
            })
        };
        self.types.insert(name.into(), Arc::new(add));
        self
    }

    /// Adds a replicated value that the layer above keeps in a group of its own, beside the store; it makes the group
    /// itself, through [`Kv::fleet`](crate::Kv::fleet).
    #[must_use]
    pub fn with_data<D: Data>(mut self) -> Self {
        self.data = self.data.with::<D>();
        self
    }

    /// Whether a type of this name is known.
    pub fn contains(&self, name: &str) -> bool {
        self.types.contains_key(name)
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Says which name cannot work, if any.
    pub(crate) fn validate(&self) -> Result<(), String> {
        self.types.keys().try_for_each(|name| check_name(name))
    }

    /// Registers the shards of every type, beside what was added for the layer above.
    pub(crate) fn registry(&self) -> Registry {
        let registry = self.data.clone();
        self.types.iter().fold(registry, |registry, (name, add)| add(registry, shard_data_name(name)))
    }
}

impl fmt::Debug for KvTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types.keys()).finish()
    }
}

/// The name under which hosts know the shards of a value type.
pub(crate) fn shard_data_name(value_type: &str) -> String {
    format!("{SHARD_DATA}{value_type}")
}

/// How the names of all shards' data begin.
pub(crate) const SHARD_DATA: &str = "kv/";

/// The longest name of a value type, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// Refuses what is no name of a value type.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name of the value type is empty".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the name of the value type has {} bytes, over the limit of {NAME_BYTES_MAX}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("the name of the value type {name:?} holds a control character"));
    }
    Ok(())
}
