//! Watching an agent: every change, in order.

use std::collections::VecDeque;
use std::fmt;

use raft_kv::rafted_value::env::sleep;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::agent_id::AgentId;
use crate::agent_values::KeptChange;
use crate::error::AgentQueryError;
use crate::handle::AgentHandle;
use crate::wire::{AgentAnswer, AgentQuery, split};

/// Where a watch goes on: behind a revision of one life of an agent. It may be kept, and sent to somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct WatchPosition {
    /// Which of the agents that there were under one identity; 0 is whichever is there when the watch begins.
    life: u64,
    revision: u64,
}

impl WatchPosition {
    /// Behind a revision of the agent that is there when the watch begins; 0 is its first command.
    pub fn after_revision(revision: u64) -> Self {
        Self { life: 0, revision }
    }

    /// The revision.
    pub fn revision(self) -> u64 {
        self.revision
    }
}

/// Something that happened to an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change<C> {
    /// The agent's revision after it: the first command makes it 1.
    pub revision: u64,
    /// The stamped time, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub cause: Cause<C>,
}

/// What changed an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause<C> {
    /// A command ran.
    Command(C),
    /// The timeout handler ran.
    Timeout,
}

/// Gives every change of an agent that was committed, in order, each once.
///
/// An agent keeps its newest [`Agent::CHANGES_RETAINED`] changes; whoever falls behind them is told
/// [`Compacted`](WatchError::Compacted). The agent is asked for what is new every
/// [`watch_interval`](crate::DistAgentConfig::watch_interval) while there is nothing.
///
/// The changes are kept with the agent and go with it: when it ends, the command or tick that ends it is never given, nor is
/// anything before it that was not fetched yet. Whoever must not miss how an agent ends has a command that says so before
/// the one that ends it, or uses a hook ([`AgentHooks`](crate::AgentHooks)).
pub struct AgentWatch<A: Agent> {
    handle: AgentHandle<A>,
    position: WatchPosition,
    fetched: VecDeque<KeptChange>,
}

impl<A: Agent> AgentWatch<A> {
    pub(crate) fn new(handle: AgentHandle<A>, position: WatchPosition) -> Self {
        Self { handle, position, fetched: VecDeque::new() }
    }

    /// Where a watch that is begun later goes on without a gap: behind the change that was given last.
    pub fn position(&self) -> WatchPosition {
        self.position
    }

    /// Waits for the next change. It may be dropped and asked again, and after an error too.
    ///
    /// # Errors
    ///
    /// When the type keeps no changes, there is a gap, the agent is not active or has ended, or it does not answer.
    pub async fn next(&mut self) -> Result<Change<A::Command>, WatchError> {
        loop {
            if let Some(kept) = self.fetched.pop_front() {
                let KeptChange { revision, at_ms, command } = kept;
                self.position.revision = revision;
                let cause =
                    match command {
                        None => Cause::Timeout,
                        Some(bytes) => Cause::Command(postcard::from_bytes(&bytes).map_err(|error| {
                            WatchError::Unreadable { revision, reason: error.to_string() }
                        })?),
                    };
                return Ok(Change { revision, at_ms, cause });
            }
            if !self.fetch().await? {
                let cluster = self.handle.cluster();
                sleep(cluster.fleet().env().as_ref(), cluster.config().watch_interval).await;
            }
        }
    }

    /// Asks for what is new; whether there is anything.
    async fn fetch(&mut self) -> Result<bool, WatchError> {
        let WatchPosition { life, revision } = self.position;
        if (A::VERSION_MIN..=A::VERSION).all(|version| A::changes_retained(version) == 0) {
            return Err(WatchError::NotKept { agent_type: A::TYPE });
        }
        let answer = self.handle.ask(&AgentQuery::Changes { life, revision }).await;
        let answer = answer.map_err(|error| match error {
            AgentQueryError::AgentNotFound(agent) if life == 0 => WatchError::NotActive(agent),
            AgentQueryError::AgentNotFound(agent) => WatchError::Ended(agent),
            error => WatchError::Query(error),
        })?;
        let wrong = |reason: String| {
            WatchError::Query(AgentQueryError::Answer { agent: self.handle.id().clone(), reason })
        };
        match split::<AgentAnswer>(&answer).map_err(wrong)? {
            (AgentAnswer::Changes { life }, changes) => {
                self.fetched = postcard::from_bytes(changes).map_err(|error| wrong(error.to_string()))?;
                self.position.life = life;
                Ok(!self.fetched.is_empty())
            }
            (AgentAnswer::Compacted { oldest }, _) => {
                Err(WatchError::Compacted { agent: self.handle.id().clone(), revision, oldest })
            }
            (AgentAnswer::OtherLife, _) => Err(WatchError::Ended(self.handle.id().clone())),
            (other, _) => Err(wrong(format!("{other:?}"))),
        }
    }
}

/// Why there is no next change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The type keeps no changes, as this program has it: its agents cannot be watched. See [`Agent::CHANGES_RETAINED`].
    #[error("agent type {agent_type:?} keeps no changes: its CHANGES_RETAINED is 0")]
    NotKept {
        /// The agent type.
        agent_type: &'static str,
    },
    /// No change of the agent was seen, and it is not active. The watch goes on when a command has activated it.
    #[error("{0} is not active")]
    NotActive(AgentId),
    /// The agent that was watched has ended, perhaps to begin anew; what was not fetched before is gone with it, its end
    /// included. A new watch from [`WatchPosition::default`] sees its next life.
    #[error("{0} has ended")]
    Ended(AgentId),
    /// The next change is not kept any more. A query shows what the agent has come to.
    #[error("{agent} keeps its changes from revision {oldest} on, not those behind {revision}")]
    Compacted {
        /// The agent.
        agent: AgentId,
        /// Where the watch was.
        revision: u64,
        /// The oldest change that is kept.
        oldest: u64,
    },
    /// The next change is a command that does not decode as one of the agent's type, by this program. The watch goes on behind
    /// it.
    #[error("the change to revision {revision} does not decode: {reason}")]
    Unreadable {
        /// The revision.
        revision: u64,
        /// What is wrong.
        reason: String,
    },
    /// The agent did not answer. Asking again is safe.
    #[error(transparent)]
    Query(AgentQueryError),
}

impl<A: Agent> fmt::Debug for AgentWatch<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentWatch")
            .field("agent", self.handle.id())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
