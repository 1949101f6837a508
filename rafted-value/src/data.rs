//! What is replicated: a value with commands that change it and queries that read it.
//!
//! [`Data`] is what users write, with their own types. [`RawData`] is the same in bytes, which the host drives and
//! which layers above implement when their types are known only at run time.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::resume_unwind;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::session::Records;

/// A value that is replicated by a Raft group.
///
/// `command` runs on every member and must give the same state and reply everywhere: no clock, no randomness, no
/// iteration over hash maps, no floating-point ordering. What a handler needs of those is in its context. A handler
/// that panics changes nothing on any member, and its caller is told so. So does one whose reply does not encode.
///
/// The value itself is encoded for snapshots and must come back as it was: no `serde(skip)`, `flatten`, `untagged`, `tag`
/// or `skip_serializing_if` anywhere in it. Its default is tried when it is registered; a value that a command brings
/// into a state that does not encode fences its group at the next snapshot.
///
/// ```
/// use rafted_value::{CommandContext, Data};
///
/// /// An integer that can be added to.
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Counter(i64);
///
/// impl Data for Counter {
///     const NAME: &'static str = "counter";
///     type Command = i64;
///     type Reply = i64;
///     type Query = ();
///     type Answer = i64;
///
///     fn command(&mut self, _: &CommandContext, add: i64) -> i64 {
///         self.0 += add;
///         self.0
///     }
///
///     fn query(&self, (): ()) -> i64 {
///         self.0
///     }
/// }
/// ```
pub trait Data: Default + Serialize + DeserializeOwned + Send + 'static {
    /// The name under which every node registers the type; part of stored snapshots, so it must not change.
    const NAME: &'static str;
    /// What changes the value.
    type Command: Serialize + DeserializeOwned;
    /// What a command answers.
    type Reply: Serialize + DeserializeOwned;
    /// What asks about the value.
    type Query: Serialize + DeserializeOwned;
    /// What a query answers.
    type Answer: Serialize + DeserializeOwned;

    /// Changes the value; pure.
    fn command(&mut self, context: &CommandContext, command: Self::Command) -> Self::Reply;

    /// Reads the value; pure.
    fn query(&self, query: Self::Query) -> Self::Answer;

    /// A copy that shares with the value what it holds, if one can be made in a moment whatever the size: by reference
    /// counts (`Bytes`, `Arc`) or persistent collections. Snapshots of a large value are then encoded from it beside the
    /// loop; without one, the value's loop stands still as long as that takes, for all groups that it drives. Default:
    /// none.
    fn freeze(&self) -> Option<Self> {
        None
    }

    /// What a report calls such a command, for example the name of its variant. Default: `command`.
    fn command_kind(command: &Self::Command) -> &'static str {
        let _ = command;
        "command"
    }
}

/// What a command handler may know of the world; the same on every member.
#[derive(Clone, Copy, Debug)]
pub struct CommandContext {
    /// Milliseconds since 1970 as the leader stamped them into the log entry; never less than at the command before.
    pub now_ms: u64,
    /// The index of the log entry; grows with every entry, but one entry may hold many commands.
    pub index: u64,
    /// Differs for each command and is the same for one command on every member.
    pub seed: u64,
}

impl CommandContext {
    /// A random source that gives the same stream on every member.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed)
    }
}

/// Why a command was refused before it changed anything; the same on every member.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Ends this node's member of the group: for a command handler that cannot apply what other members may be able to, since
/// they are of another build of the program.
///
/// A handler that refuses or panics must do so on every member; one that is alone in it would leave its member with
/// another state than the others, and an acknowledged command would be lost from view when that member leads. A member
/// that is ended in this way is fenced, as its [`GroupStatus`](crate::GroupStatus) says: it answers nobody,
/// acknowledges nothing, and its group goes on without it. Whoever waits for a command of it asks another member, where
/// the command has run once.
///
/// It unwinds, as a panic does, but calls no panic hook; only command handlers may call it.
pub fn stop_member(reason: impl Into<String>) -> ! {
    resume_unwind(Box::new(Stopped(reason.into())))
}

/// Why [`stop_member`] unwinds, if it is what unwinds: a handler that catches panics of its own parts must let it through.
pub fn stopped_because(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref().map(|Stopped(reason)| reason.as_str())
}

/// What [`stop_member`] unwinds with.
pub(crate) struct Stopped(pub(crate) String);

/// Why a snapshot could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the snapshot of {data} cannot be read: {reason}")]
pub struct RestoreError {
    /// The name of the data type.
    pub data: String,
    /// What is wrong.
    pub reason: String,
}

/// Appends a value, as it was at one moment, to a buffer.
pub type Frozen = Box<dyn FnOnce(&mut Vec<u8>) + Send>;

/// A replicated value in bytes; see [`Data`] for what handlers must hold.
pub trait RawData: Any + Send {
    /// Changes the value.
    ///
    /// # Errors
    ///
    /// When the command cannot be carried out at all (it does not decode); nothing may have changed then.
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused>;

    /// The same with the records of the group's sessions at hand, for a value that moves its keys, and the records of their
    /// commands with them, from group to group. This is what groups call; by default it is
    /// [`command`](RawData::command).
    ///
    /// # Errors
    ///
    /// As [`command`](RawData::command); neither the value nor the records may have changed then.
    fn command_with_records(
        &mut self,
        context: &CommandContext,
        payload: &Bytes,
        records: &mut Records<'_>,
    ) -> Result<Bytes, Refused> {
        let _ = records;
        self.command(context, payload)
    }

    /// The reply to a command that this value, as it is now, has nothing to do with: the leader gives it at once, and the
    /// command is neither put into the log nor remembered. For values whose keys are at another group; whoever is turned
    /// away sends the command there, or here again later, under the same number. It is asked on the leader only, for every
    /// command, and says nothing of other attempts at the command, which may be in the log.
    fn turn_away(&self, payload: &Bytes) -> Option<Bytes> {
        let _ = payload;
        None
    }

    /// Reads the value.
    ///
    /// # Errors
    ///
    /// When the query cannot be answered at all (it does not decode).
    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused>;

    /// Appends the whole value to `out`.
    fn snapshot(&self, out: &mut Vec<u8>);

    /// What appends the value as it is now to a buffer, on another thread and while commands go on, exactly as
    /// [`snapshot`](RawData::snapshot) would; `None` where that takes as long as encoding it. See [`Data::freeze`].
    fn freeze(&self) -> Option<Frozen> {
        None
    }

    /// Replaces the value by one that [`snapshot`](RawData::snapshot) wrote.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a value.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;

    /// What a report calls such a command. Default: `command`.
    fn command_kind(&self, payload: &Bytes) -> String {
        let _ = payload;
        "command".to_owned()
    }
}

/// A [`Data`] driven in bytes: postcard on both sides.
pub struct Typed<D: Data> {
    value: D,
    data: PhantomData<D>,
}

impl<D: Data> Default for Typed<D> {
    fn default() -> Self {
        Self { value: D::default(), data: PhantomData }
    }
}

impl<D: Data> Typed<D> {
    /// The value itself.
    pub(crate) fn value(&self) -> &D {
        &self.value
    }
}

impl<D: Data> RawData for Typed<D> {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        let command = decode::<D::Command>("command", D::NAME, payload)?;
        Ok(encode(&self.value.command(context, command)))
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        let query = decode::<D::Query>("query", D::NAME, payload)?;
        Ok(encode(&self.value.query(query)))
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        append(&self.value, out);
    }

    fn freeze(&self) -> Option<Frozen> {
        let value = self.value.freeze()?;
        Some(Box::new(move |out| append(&value, out)))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.value = postcard::from_bytes(bytes)
            .map_err(|error| RestoreError { data: D::NAME.to_owned(), reason: error.to_string() })?;
        Ok(())
    }

    fn command_kind(&self, payload: &Bytes) -> String {
        let command = decode::<D::Command>("command", D::NAME, payload);
        command.map_or("one that does not decode", |command| D::command_kind(&command)).to_owned()
    }
}

/// The postcard bytes of `value`.
///
/// # Panics
///
/// Panics when the type's `Serialize` itself fails (a sequence of unknown length, an error of its own): a programming
/// error of that type.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    postcard::to_stdvec(value).expect("the type serialises").into()
}

/// Appends the postcard bytes of `value`, without another copy of them.
pub(crate) fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let buffer = std::mem::take(out);
    *out = postcard::to_extend(value, buffer).expect("the type serialises");
}

/// Encodes, decodes and encodes again, and says what does not come back as it was.
pub(crate) fn check_round_trip<T: Serialize + DeserializeOwned>(value: &T) -> Result<(), String> {
    let bytes = postcard::to_stdvec(value).map_err(|error| format!("it does not encode: {error}"))?;
    let (again, rest) = postcard::take_from_bytes::<T>(&bytes)
        .map_err(|error| format!("it does not decode from what it was encoded to: {error}"))?;
    if !rest.is_empty() || postcard::to_stdvec(&again).as_ref() != Ok(&bytes) {
        return Err("it decodes to another value".into());
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(what: &str, name: &str, payload: &[u8]) -> Result<T, Refused> {
    postcard::from_bytes(payload)
        .map_err(|error| Refused(format!("the {what} for {name} does not decode: {error}")))
}
