//! What a handler may know of the world beside its agent; the same on every member.

use raft_kv::rafted_value::CommandContext;
use rand_chacha::ChaCha8Rng;

use crate::agent_id::AgentIdRef;

/// What a command handler knows of the world, and how it says what shall become of its agent.
#[derive(Debug)]
pub struct AgentContext<'a> {
    id: AgentIdRef<'a>,
    command: &'a CommandContext,
    revision: u64,
    rng: Option<ChaCha8Rng>,
    deactivated: bool,
}

impl<'a> AgentContext<'a> {
    pub(crate) fn new(id: AgentIdRef<'a>, command: &'a CommandContext, revision: u64) -> Self {
        Self { id, command, revision, rng: None, deactivated: false }
    }

    /// The quota that the agent belongs to.
    pub fn quota(&self) -> &'a str {
        self.id.quota
    }

    /// The agent's key.
    pub fn key(&self) -> &'a str {
        self.id.key
    }

    /// How many commands the agent has handled since its activation; zero at the command that activates it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Milliseconds since 1970, as the shard's leader stamped them into the command; it never goes back within a shard.
    pub fn now_ms(&self) -> u64 {
        self.command.now_ms
    }

    /// A random source that gives the same stream on every member and another one for each command.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        self.rng.get_or_insert_with(|| self.command.rng())
    }

    /// Ends the agent after this command: its state is dropped, and the next command activates a new one. The reply of
    /// this command is delivered all the same.
    pub fn deactivate(&mut self) {
        self.deactivated = true;
    }

    /// The context as it was before the command ran.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.id, self.command, self.revision)
    }

    pub(crate) fn is_deactivated(&self) -> bool {
        self.deactivated
    }
}

/// What a query handler knows of the world.
#[derive(Clone, Copy, Debug)]
pub struct QueryContext<'a> {
    id: AgentIdRef<'a>,
    revision: u64,
}

impl<'a> QueryContext<'a> {
    pub(crate) fn new(id: AgentIdRef<'a>, revision: u64) -> Self {
        Self { id, revision }
    }

    /// The quota that the agent belongs to.
    pub fn quota(&self) -> &'a str {
        self.id.quota
    }

    /// The agent's key.
    pub fn key(&self) -> &'a str {
        self.id.key
    }

    /// How many commands the agent has handled since its activation.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
