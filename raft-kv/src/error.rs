//! What can go wrong, told so that a caller can act: surely not applied, or perhaps applied.

use raft_fleet::FleetError;
use raft_fleet::rafted_value::{CommandError, NotApplied, QueryError, Unknown};

use crate::key_range::KeyRange;
use crate::keyspace::{KeyspaceName, KeyspacePolicy};
use crate::keyspaces::MoveRefusal;

/// Why a command has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KvCommandError {
    /// The command surely changed nothing, and never will.
    #[error("not applied: {0}")]
    NotApplied(KvNotApplied),
    /// The command may have been applied, or may be still.
    #[error("perhaps applied: {0}")]
    Unknown(KvUnknown),
}

/// Why a command surely changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvNotApplied {
    /// The keyspace could not be found.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No shard has served the key until the command's time was up: its range is on its way from one to another.
    #[error("no shard serves the key hash {hash:016x} at the moment")]
    NotServed {
        /// The hash of the key.
        hash: u64,
    },
    /// The key is longer than its keyspace allows.
    #[error("a key of {bytes} bytes is over the keyspace's limit of {limit_bytes}")]
    KeyTooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The value is larger than its keyspace allows.
    #[error("a value of {bytes} bytes is over the keyspace's limit of {limit_bytes}")]
    ValueTooLarge {
        /// Its size, in bytes or the unit of the value type.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The time of a command to all keys was up before it had come to all of them: it did not run on what is left, and may
    /// be gone on with.
    #[error("the command to all keys has not come to its end in {limit_ms} ms")]
    TimeUp {
        /// The time that it had.
        limit_ms: u64,
    },
    /// The command to all keys is past its time. What it has not run on it never will.
    #[error("the command to all keys is past its time")]
    Expired,
    /// A shard remembers as many commands to all keys as it can; some will be past their time soon.
    #[error("the shard remembers as many commands to all keys as it can")]
    TooManyAllKeys,
    /// The shard's group did not apply it. A command that the value type refuses comes as
    /// [`NotApplied::Refused`], one whose handler panicked as [`NotApplied::Panicked`].
    #[error(transparent)]
    Group(NotApplied),
}

/// Why it is not known whether a command was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvUnknown {
    /// The shard's group did not answer.
    #[error(transparent)]
    Group(Unknown),
    /// The shard answered what this version does not understand.
    #[error("the answer is not understood: {0}")]
    Reply(String),
}

/// Why a query has no answer. A query changes nothing, so it may always be asked again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvQueryError {
    /// The key has no value.
    #[error("the key has no value")]
    KeyNotFound,
    /// The keyspace could not be found.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No shard has served the key until the query's time was up: its range is on its way from one to another.
    #[error("no shard serves the key hash {hash:016x} at the moment")]
    NotServed {
        /// The hash of the key.
        hash: u64,
    },
    /// The shard's group did not answer.
    #[error(transparent)]
    Group(QueryError),
    /// The shard answered what this version does not understand.
    #[error("the answer is not understood: {0}")]
    Answer(String),
}

/// Why it is not known which shard a key belongs to. Nothing was sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No keyspace of this name is registered.
    #[error("there is no keyspace {0:?}")]
    NoSuchKeyspace(KeyspaceName),
    /// The keyspace's shards are still being made.
    #[error("keyspace {0:?} is still being created")]
    StillCreating(KeyspaceName),
    /// The list of keyspaces could not be read.
    #[error("the list of keyspaces cannot be read: {0}")]
    Keyspaces(String),
}

/// Why an operation on keyspaces, or the start of a node, did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The fleet below could not be started, or a shard could not be made.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A setting cannot work.
    #[error("the configuration cannot work: {0}")]
    InvalidConfig(String),
    /// A value type's name cannot work.
    #[error("{0}")]
    InvalidValueType(String),
    /// This node does not know the value type.
    #[error("this node knows no value type named {0:?}")]
    UnknownValueType(String),
    /// The policy cannot work.
    #[error("the policy of keyspace {name:?} cannot work: {reason}")]
    InvalidPolicy {
        /// The keyspace.
        name: KeyspaceName,
        /// A sentence that names the setting and its number.
        reason: String,
    },
    /// The keyspace is registered with another policy.
    #[error("keyspace {name:?} is registered with another policy: {}", present.differences(wanted))]
    AlreadyRegistered {
        /// The keyspace.
        name: KeyspaceName,
        /// The policy that it has.
        present: Box<KeyspacePolicy>,
        /// The policy that was asked for.
        wanted: Box<KeyspacePolicy>,
    },
    /// The cluster has as many keyspaces as it can.
    #[error("the cluster has {limit} keyspaces, its limit")]
    TooManyKeyspaces {
        /// The limit.
        limit: u64,
    },
    /// The keyspace is not registered.
    #[error("there is no keyspace {0:?}")]
    NoSuchKeyspace(KeyspaceName),
    /// The split or merge does not begin.
    #[error("keyspace {name:?}: {refusal}")]
    Move {
        /// The keyspace.
        name: KeyspaceName,
        /// Why.
        refusal: MoveRefusal,
    },
    /// The keyspace's shards could not be found.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The group of a shard exists already, with another range.
    #[error("shard {shard} of keyspace {name:?} holds the key hashes {present}, not {wanted}")]
    OtherRange {
        /// The keyspace.
        name: KeyspaceName,
        /// Which of its shards.
        shard: u32,
        /// What the shard holds.
        present: KeyRange,
        /// What it should hold.
        wanted: KeyRange,
    },
    /// The list of keyspaces, or a new shard, did not take a command; or, after [`CommandError::Unknown`], perhaps it did.
    /// Asking again is safe.
    #[error("{what}: {error}")]
    Command {
        /// What was to be done.
        what: &'static str,
        /// What happened.
        error: CommandError,
    },
    /// The list of keyspaces, or a shard, did not answer.
    #[error("{what}: {error}")]
    Query {
        /// What was to be read.
        what: &'static str,
        /// What happened.
        error: QueryError,
    },
    /// An answer is not understood.
    #[error("{what}: the answer is not understood: {reason}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl KvError {
    /// Whether the same may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            KvError::Command { error, .. } => !is_final_command(error),
            KvError::Query { .. } | KvError::Route(RouteError::Keyspaces(_)) => true,
            KvError::Fleet(error) => matches!(
                error,
                FleetError::CleanupOngoing { .. }
                    | FleetError::NoActiveNode
                    | FleetError::NoLeader(_)
                    | FleetError::Timeout { .. }
                    | FleetError::Command(_)
                    | FleetError::Query(_)
            ),
            _ => false,
        }
    }
}

/// Whether asking a group of the store itself again would give the same.
fn is_final(error: &NotApplied) -> bool {
    matches!(
        error,
        NotApplied::NoSuchName(_)
            | NotApplied::Refused(_)
            | NotApplied::Panicked(_)
            | NotApplied::TooLarge { .. }
            | NotApplied::Malformed(_)
    )
}

/// Whether sending the same to a group of the store itself again would end the same.
pub(crate) fn is_final_command(error: &CommandError) -> bool {
    match error {
        CommandError::NotApplied(error) => is_final(error),
        // The next attempt has the same reply.
        CommandError::Unknown(error) => matches!(error, Unknown::ReplyTooLarge { .. }),
    }
}

impl From<KvNotApplied> for KvCommandError {
    fn from(error: KvNotApplied) -> Self {
        KvCommandError::NotApplied(error)
    }
}

impl From<KvUnknown> for KvCommandError {
    fn from(error: KvUnknown) -> Self {
        KvCommandError::Unknown(error)
    }
}

impl From<RouteError> for KvCommandError {
    fn from(error: RouteError) -> Self {
        KvCommandError::NotApplied(KvNotApplied::Route(error))
    }
}

impl From<CommandError> for KvCommandError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotApplied(error) => KvCommandError::NotApplied(KvNotApplied::Group(error)),
            CommandError::Unknown(error) => KvCommandError::Unknown(KvUnknown::Group(error)),
        }
    }
}
