//! The address of one agent, with what is needed to talk to it.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use raft_kv::raft_fleet::CallOptions;
use raft_kv::rafted_value::Freshness;
use raft_kv::{Key, Kv};

use crate::agent::Agent;
use crate::agent_id::AgentId;
use crate::error::{AgentError, AgentNotApplied, AgentQueryError, AgentUnknown};
use crate::node::keyspace;
use crate::wire::{AgentAnswer, AgentCommand, AgentQuery, AgentReply, Pass, join_value, split};

/// Talks to one agent, wherever in the cluster it lives. Cheap to clone; making one sends nothing.
pub struct AgentHandle<A: Agent> {
    kv: Kv,
    id: AgentId,
    key: Key,
    options: CallOptions,
    tick_ms: u32,
    agent: PhantomData<fn() -> A>,
}

impl<A: Agent> AgentHandle<A> {
    pub(crate) fn new(kv: Kv, id: AgentId, options: CallOptions, tick_ms: u32) -> Self {
        let key = id.store_key();
        Self { kv, id, key, options, tick_ms, agent: PhantomData }
    }

    /// Which agent this is.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The same agent, with this much time for a whole call, every retry included.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Sends a command and waits for its reply; an agent that is not active is activated by it.
    ///
    /// It is tried again until the handle's timeout where that helps, and runs at most once however often it is tried.
    ///
    /// # Errors
    ///
    /// Whether the command surely changed nothing, or perhaps something. Errors of the agent's own are in its reply.
    pub async fn command(&self, command: A::Command) -> Result<A::Reply, AgentError> {
        let pass = Some(Pass { generation: 0, until_ms: u64::MAX });
        let payload = join_value(&AgentCommand::Run { tick_ms: self.tick_ms, pass }, &command)
            .map_err(|reason| AgentNotApplied::Unencodable { agent: self.id.clone(), reason })?;
        drop(command);
        let reply = self.kv.command(keyspace(), &self.key, &payload, &self.options).await;
        let reply = reply.map_err(|error| AgentError::of_store(&self.id, error))?;
        match split::<AgentReply>(&reply).map_err(|reason| self.reply_error(reason))? {
            (AgentReply::User | AgentReply::Activated { .. }, reply) => {
                postcard::from_bytes(reply).map_err(|error| self.reply_error(error.to_string()).into())
            }
            (AgentReply::UnknownAgentType, _) => {
                Err(AgentNotApplied::UnknownAgentType(self.id.clone()).into())
            }
            (AgentReply::UnreadableState, reason) => {
                let (agent, reason) = (self.id.clone(), text(reason));
                Err(AgentNotApplied::UnreadableState { agent, reason }.into())
            }
            (reply @ (AgentReply::NotActive | AgentReply::PassExpired), _) => {
                Err(self.reply_error(format!("{reply:?}")).into())
            }
        }
    }

    /// Asks the agent, and gets an answer that is no older than the question.
    ///
    /// # Errors
    ///
    /// [`AgentQueryError::AgentNotFound`] when the agent is not active; anything else says why there is no answer.
    pub async fn query(&self, query: A::Query) -> Result<A::Answer, AgentQueryError> {
        let payload = join_value(&AgentQuery::User, &query)
            .map_err(|reason| AgentQueryError::Unencodable { agent: self.id.clone(), reason })?;
        drop(query);
        let answer = self.kv.query(keyspace(), &self.key, Freshness::Latest, &payload, &self.options).await;
        let answer = answer.map_err(|error| AgentQueryError::of_store(&self.id, error))?;
        match split::<AgentAnswer>(&answer).map_err(|reason| self.answer_error(reason))? {
            (AgentAnswer::User, answer) => {
                postcard::from_bytes(answer).map_err(|error| self.answer_error(error.to_string()))
            }
            (AgentAnswer::UnknownAgentType, _) => Err(AgentQueryError::UnknownAgentType(self.id.clone())),
            (AgentAnswer::UnreadableState, reason) => {
                Err(AgentQueryError::UnreadableState { agent: self.id.clone(), reason: text(reason) })
            }
        }
    }

    fn reply_error(&self, reason: String) -> AgentUnknown {
        AgentUnknown::Reply { agent: self.id.clone(), reason }
    }

    fn answer_error(&self, reason: String) -> AgentQueryError {
        AgentQueryError::Answer { agent: self.id.clone(), reason }
    }
}

/// A text of another node's.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<A: Agent> Clone for AgentHandle<A> {
    fn clone(&self) -> Self {
        let Self { kv, id, key, options, tick_ms, agent } = self;
        Self {
            kv: kv.clone(),
            id: id.clone(),
            key: key.clone(),
            options: *options,
            tick_ms: *tick_ms,
            agent: *agent,
        }
    }
}

impl<A: Agent> fmt::Debug for AgentHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentHandle").field(&self.id).finish()
    }
}
