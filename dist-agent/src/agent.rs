//! The agent: what a user writes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{AgentContext, QueryContext};

/// A small stateful object that lives in the cluster, replicated, under `(quota, agent type, key)`.
///
/// The value is its state: live and typed in the memory of every member of its shard, turned into bytes for snapshots
/// only. Its first command activates it from [`Default`]; it ends when a handler calls
/// [`AgentContext::deactivate`].
///
/// A state must come back from its encoding (postcard) as it was, or it would change when another node takes over. The
/// default state is looked at when the type is registered. After each command its state is walked once to make sure that
/// it encodes, and after some that it decodes; a command that leaves a state that does neither, or gives a reply that
/// does not encode, changes nothing and is answered with an error. Small states cost next to nothing; one of many
/// kilobytes pays for the walk at each command. Fields that are not encoded at all (`serde(skip)`) are looked for by
/// running the first commands of each type on a decoded copy as well; what that finds is logged as an error.
///
/// All handlers are pure: they run on every member of the shard and must give the same everywhere. No clock (there is
/// [`AgentContext::now_ms`]), no randomness (there is [`AgentContext::rng`]), no iteration over hash maps, no effect on
/// the world. A handler that panics changes nothing on any member, its caller is told
/// [`Panicked`](crate::AgentNotApplied::Panicked), and the agents beside it go on; but that costs a rebuild of the
/// shard, so it is for mistakes, not for answers. An abort, a stack overflow or running out of memory is not survived.
pub trait Agent: Default + Serialize + DeserializeOwned + Send + 'static {
    /// The name of the type: 1 to 255 bytes without control characters. It is part of every agent's identity and of
    /// what is stored, so it must not change, and no two types of a cluster may share it.
    const TYPE: &'static str;
    /// The version of the state's encoding and of what handlers do; raised whenever either changes. A node that reads a state
    /// of an earlier version has [`migrate`](Self::migrate) make one of this.
    ///
    /// A cluster runs each type as the newest version that *all* of its nodes know. A node of this version that lives with
    /// nodes of an earlier one goes on as they do: see [`VERSION_MIN`](Self::VERSION_MIN).
    const VERSION: u32 = 0;
    /// The earliest version as which this build can go on while other nodes know no later one: for each version from this
    /// one on it can [`migrate`](Self::migrate) from and [`write_as`](Self::write_as). At most the first version that
    /// the cluster ever ran, or the node is refused
    /// ([`BuildMismatch::Versions`](crate::BuildMismatch::Versions)). Default: [`VERSION`](Self::VERSION) alone.
    const VERSION_MIN: u32 = Self::VERSION;
    /// How many of its newest changes (commands and timeouts) an agent of this type keeps for those who watch it; see
    /// [`AgentHandle::watch`](crate::AgentHandle::watch). They are kept beside the state, in bytes. Default 0: it cannot be
    /// watched, and pays nothing. Whoever changes it raises [`VERSION`](Self::VERSION), and says in
    /// [`changes_retained`](Self::changes_retained) how many it was before.
    const CHANGES_RETAINED: u32 = 0;
    /// What changes the agent.
    type Command: Serialize + DeserializeOwned + Send;
    /// What a command answers; errors of the user's own domain belong in here.
    type Reply: Serialize + DeserializeOwned + Send;
    /// What asks about the agent.
    type Query: Serialize + DeserializeOwned + Send;
    /// What a query answers.
    type Answer: Serialize + DeserializeOwned + Send;

    /// Changes the agent; pure.
    fn handle_command(&mut self, context: &mut AgentContext<'_>, command: Self::Command) -> Self::Reply;

    /// The tick has come that [`OnTick::Timeout`](crate::OnTick) asked for; [`AgentContext::now_ms`] is its stamped time.
    /// Pure, like the other handlers. Nothing is set for later ticks unless the handler sets it.
    ///
    /// One that panics, or leaves a state that does not encode, changes nothing: the agent is as it was before, with
    /// nothing set, and an error is logged.
    #[allow(unused_variables, reason = "the name is documentation")]
    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {}

    /// The state of an earlier version, `from`, made one of this; pure. `bytes` is what postcard made of it then: keep the
    /// old struct, decode that, and turn it into the new one.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a state. The node keeps them and answers
    /// [`UnreadableState`](crate::AgentNotApplied::UnreadableState).
    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        let _ = bytes;
        Err(format!("it is of version {from}, which this node cannot migrate"))
    }

    /// The state in the form of an earlier version, `version`, byte for byte as a build of that version writes it; pure.
    /// [`migrate`](Self::migrate) of these bytes gives this state again.
    ///
    /// It is called while the cluster is upgraded: what is stored or sent to another node is written in the version that all
    /// nodes know. Each version from [`VERSION_MIN`](Self::VERSION_MIN) to before [`VERSION`](Self::VERSION) is tried with
    /// the default state when the type is registered.
    ///
    /// # Errors
    ///
    /// When the state has no such form. A member that is told so in the middle of an upgrade ends itself, because members of
    /// the earlier build may do what it cannot.
    fn write_as(&self, version: u32) -> Result<Vec<u8>, String> {
        Err(format!("version {} cannot be written as version {version}", Self::VERSION))
    }

    /// How many of its changes an agent keeps while it runs as a version, the same in every build that knows the version:
    /// members hold them beside the state, and must hold the same. A build that keeps another number is refused
    /// ([`BuildMismatch::Form`](crate::BuildMismatch::Form)). Default: [`CHANGES_RETAINED`](Self::CHANGES_RETAINED).
    fn changes_retained(version: u32) -> u32 {
        let _ = version;
        Self::CHANGES_RETAINED
    }

    /// The earliest version whose handlers understand a command. One that is new in this version must not reach a node
    /// that does not know it, and is refused with [`Upgrading`](crate::AgentNotApplied::Upgrading) until there is no such
    /// node. Default: every command of this build needs this build; say which ones are older, so that they are sent during
    /// an upgrade too.
    fn version_needed(command: &Self::Command) -> u32 {
        let _ = command;
        Self::VERSION
    }

    /// Reads the agent; pure.
    fn handle_query(&self, context: &QueryContext<'_>, query: Self::Query) -> Self::Answer;
}
