//! What a handler may know of the world beside its agent; the same on every member.

use raft_kv::rafted_value::CommandContext;
use rand_chacha::ChaCha8Rng;

use crate::agent_id::AgentIdRef;
use crate::on_tick::OnTick;

/// What a command or timeout handler knows of the world, and how it says what shall become of its agent.
#[derive(Debug)]
pub struct AgentContext<'a> {
    id: AgentIdRef<'a>,
    command: CommandContext,
    revision: u64,
    version: u32,
    rng: Option<ChaCha8Rng>,
    asked: Asked,
}

/// What a handler asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Asked {
    pub(crate) fate: Fate,
    pub(crate) on_tick: Option<OnTick>,
}

/// What becomes of an agent after a handler.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Fate {
    #[default]
    Stay,
    Deactivate,
    Passivate,
}

impl<'a> AgentContext<'a> {
    pub(crate) fn new(id: AgentIdRef<'a>, command: &CommandContext, revision: u64, version: u32) -> Self {
        Self { id, command: *command, revision, version, rng: None, asked: Asked::default() }
    }

    /// The quota that the agent belongs to.
    pub fn quota(&self) -> &'a str {
        self.id.quota
    }

    /// The name of the agent's type.
    pub fn agent_type(&self) -> &'a str {
        self.id.agent_type
    }

    /// The agent's key.
    pub fn key(&self) -> &'a str {
        self.id.key
    }

    /// How many commands and timeouts the agent has handled since its activation; zero at the command that activates
    /// it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The version of its type as which the agent runs, the same on every member. It is less than
    /// [`Agent::VERSION`](crate::Agent::VERSION) while the cluster has nodes of an earlier build, and until the first command
    /// after that: meanwhile a handler must make of a command exactly what that build makes of it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Milliseconds since 1970, as the shard's leader stamped them into the command; it never goes back within a shard.
    pub fn now_ms(&self) -> u64 {
        self.command.now_ms
    }

    /// A random source that gives the same stream on every member and another one for each command and timeout.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        self.rng.get_or_insert_with(|| self.command.rng())
    }

    /// Says what happens at the ticks to come. A handler that does not say keeps what was said before: a timeout stays
    /// due when it was, and a deactivation waits for as many ticks again. Once it has happened nothing is set.
    pub fn on_tick(&mut self, on_tick: OnTick) {
        self.asked.on_tick = Some(on_tick);
    }

    /// Ends the agent after this command: its state is dropped, and the next command activates a new one. The reply of
    /// this command is delivered all the same.
    pub fn deactivate(&mut self) {
        self.asked.fate = Fate::Deactivate;
    }

    /// Lets the agent leave the memory after this command, and keeps its state in the store, in bytes. The next command
    /// or timeout brings it back; a query looks at it without that. It stays active, and its place in its quota.
    pub fn passivate(&mut self) {
        self.asked.fate = Fate::Passivate;
    }

    /// The context as it was before the command ran.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.id, &self.command, self.revision, self.version)
    }

    pub(crate) fn id(&self) -> AgentIdRef<'a> {
        self.id
    }

    pub(crate) fn asked(&self) -> Asked {
        self.asked
    }

    pub(crate) fn is_deactivated(&self) -> bool {
        self.asked.fate == Fate::Deactivate
    }
}

/// What a query handler knows of the world.
#[derive(Clone, Copy, Debug)]
pub struct QueryContext<'a> {
    id: AgentIdRef<'a>,
    revision: u64,
    version: u32,
}

impl<'a> QueryContext<'a> {
    pub(crate) fn id(&self) -> AgentIdRef<'a> {
        self.id
    }

    pub(crate) fn new(id: AgentIdRef<'a>, revision: u64, version: u32) -> Self {
        Self { id, revision, version }
    }

    /// The quota that the agent belongs to.
    pub fn quota(&self) -> &'a str {
        self.id.quota
    }

    /// The name of the agent's type.
    pub fn agent_type(&self) -> &'a str {
        self.id.agent_type
    }

    /// The agent's key.
    pub fn key(&self) -> &'a str {
        self.id.key
    }

    /// How many commands and timeouts the agent has handled since its activation.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The version of its type as which the agent runs.
    pub fn version(&self) -> u32 {
        self.version
    }
}
