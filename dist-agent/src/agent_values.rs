//! The agents of a shard: the value type of the one keyspace in which all agents live.

use bytes::Bytes;
use raft_kv::rafted_value::{CommandContext, Refused};
use raft_kv::{Answer, Done, ValuePerKey};
use serde::{Deserialize, Serialize};

use crate::agent_id::AgentIdRef;
use crate::agent_types::{AgentTypes, LiveAgent};
use crate::context::{AgentContext, QueryContext};
use crate::wire::{AgentAnswer, AgentCommand, AgentQuery, AgentReply, join, split};

/// What a command costs beside a query, as in the original.
const COMMAND_LOAD: u64 = 3;
/// What a query costs.
const QUERY_LOAD: u64 = 1;

/// Finds the type of each agent by its key.
pub(crate) struct AgentValues {
    types: AgentTypes,
}

/// One agent in its shard.
pub(crate) struct Hosted {
    /// Commands handled since the activation.
    revision: u64,
    state: State,
}

enum State {
    Live(Box<dyn LiveAgent>),
    /// The state in bytes: this node does not know the type.
    Kept(Box<[u8]>),
}

/// Opens an agent in a snapshot; its state's bytes follow. Append-only.
#[derive(Serialize, Deserialize)]
enum Head {
    V1 { revision: u64 },
}

impl AgentValues {
    pub(crate) fn new(types: AgentTypes) -> Self {
        Self { types }
    }

    /// Runs a user's command on an agent that is active.
    fn run(
        &self,
        context: &CommandContext,
        id: AgentIdRef<'_>,
        hosted: &mut Hosted,
        command: &[u8],
    ) -> Result<Ran, Refused> {
        let State::Live(agent) = &mut hosted.state else { return Ok(Ran::UnknownAgentType) };
        let mut context = AgentContext::new(id, context, hosted.revision);
        let reply =
            agent.command(&mut context, command).map_err(|error| does_not_decode("command", id, &error))?;
        hosted.revision += 1;
        Ok(Ran::Reply { reply, deactivate: context.is_deactivated() })
    }
}

/// What became of a command.
enum Ran {
    Reply { reply: Bytes, deactivate: bool },
    UnknownAgentType,
}

impl ValuePerKey for AgentValues {
    type Value = Hosted;

    fn command(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Hosted>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        let id = parse(key)?;
        let (AgentCommand::User, command) = split(command).map_err(Refused)?;
        let unknown = || done(join(&AgentReply::UnknownAgentType, &[]));
        let ran = match value {
            Some(hosted) => self.run(context, id, hosted, command)?,
            None => {
                let Some(agent_type) = self.types.get(id.agent_type) else { return Ok(unknown()) };
                // Activation and first command are one: an agent is there with its first effect, or not at all.
                let mut hosted = Hosted { revision: 0, state: State::Live(agent_type.activate()) };
                let ran = self.run(context, id, &mut hosted, command)?;
                *value = Some(hosted);
                ran
            }
        };
        match ran {
            Ran::UnknownAgentType => Ok(unknown()),
            Ran::Reply { reply, deactivate } => {
                if deactivate {
                    *value = None;
                }
                Ok(done(join(&AgentReply::User, &reply)))
            }
        }
    }

    fn query(&self, key: &[u8], hosted: &Hosted, query: &Bytes) -> Result<Answer, Refused> {
        let id = parse(key)?;
        let (AgentQuery::User, query) = split(query).map_err(Refused)?;
        let answer = match &hosted.state {
            State::Live(agent) => {
                let context = QueryContext::new(id, hosted.revision);
                let answer =
                    agent.query(&context, query).map_err(|error| does_not_decode("query", id, &error))?;
                join(&AgentAnswer::User, &answer)
            }
            State::Kept(_) => join(&AgentAnswer::UnknownAgentType, &[]),
        };
        Ok(Answer { answer, load: QUERY_LOAD })
    }

    fn encode(&self, _: &[u8], hosted: &Hosted, out: &mut Vec<u8>) {
        let head = Head::V1 { revision: hosted.revision };
        *out = postcard::to_extend(&head, std::mem::take(out)).expect("the head serialises");
        match &hosted.state {
            State::Live(agent) => out.extend_from_slice(&agent.encode()),
            State::Kept(bytes) => out.extend_from_slice(bytes),
        }
    }

    fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<Hosted, String> {
        let id = AgentIdRef::parse(key).map_err(|error| error.to_string())?;
        let (Head::V1 { revision }, bytes) = split(bytes)?;
        let state = match self.types.get(id.agent_type) {
            Some(agent_type) => State::Live(agent_type.restore(bytes)?),
            None => State::Kept(bytes.into()),
        };
        Ok(Hosted { revision, state })
    }
}

fn parse(key: &[u8]) -> Result<AgentIdRef<'_>, Refused> {
    AgentIdRef::parse(key).map_err(|error| Refused(error.to_string()))
}

fn does_not_decode(what: &str, id: AgentIdRef<'_>, error: &str) -> Refused {
    Refused(format!("the {what} for an agent of type {:?} does not decode: {error}", id.agent_type))
}

fn done(reply: Bytes) -> Done {
    Done { reply, load: COMMAND_LOAD, size: 0 }
}

#[cfg(test)]
mod tests;
