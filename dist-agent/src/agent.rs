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
    /// The version of the state's encoding; raised whenever its fields change. A node that reads a state of an earlier
    /// version has [`migrate`](Self::migrate) make one of this; one that reads a later version keeps the bytes and
    /// answers [`UnreadableState`](crate::AgentNotApplied::UnreadableState).
    const VERSION: u32 = 0;
    /// How many of its newest changes (commands and timeouts) an agent of this type keeps for those who watch it; see
    /// [`AgentHandle::watch`](crate::AgentHandle::watch). They are kept beside the state, in bytes. Default 0: it cannot be
    /// watched, and pays nothing.
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

    /// Reads the agent; pure.
    fn handle_query(&self, context: &QueryContext<'_>, query: Self::Query) -> Self::Answer;
}
