//! The agents of a shard: the value type of the one keyspace in which all agents live.

use bytes::Bytes;
use raft_kv::rafted_value::{CommandContext, Refused};
use raft_kv::{Answer, Done, ValuePerKey};
use serde::{Deserialize, Serialize};

use crate::agent_id::AgentIdRef;
use crate::agent_types::{AgentType, AgentTypes, CommandFailure, LiveAgent};
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
    /// The state in bytes, because this node cannot make an agent of it.
    Kept {
        bytes: Box<[u8]>,
        why: Kept,
    },
}

/// Why an agent is kept in bytes.
enum Kept {
    /// This node does not know the type.
    UnknownAgentType,
    /// The bytes do not decode as a state of the type.
    Unreadable(Box<str>),
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

    /// The first command of an agent: it is there with its first effect, or not at all.
    fn activate(
        &self,
        context: &CommandContext,
        id: AgentIdRef<'_>,
        command: &[u8],
    ) -> Result<(Option<Hosted>, Bytes), Refused> {
        let Some(agent_type) = self.types.get(id.agent_type) else {
            return Ok((None, join(&AgentReply::UnknownAgentType, &[])));
        };
        let mut hosted = Hosted { revision: 0, state: State::Live(agent_type.activate()) };
        // What cannot be kept is dropped here, and nothing has changed.
        let ran = self.run(context, id, &mut hosted, command).map_err(|failure| match failure {
            CommandFailure::NotRun(reason) | CommandFailure::Ran(reason) => refused(id, &reason),
        })?;
        let is_over = ran.is_over;
        Ok(((!is_over).then_some(hosted), ran.reply))
    }

    /// A later command.
    fn run_on(
        &self,
        context: &CommandContext,
        id: AgentIdRef<'_>,
        value: &mut Option<Hosted>,
        command: &[u8],
    ) -> Result<Bytes, Refused> {
        let hosted = value.as_mut().expect("the caller has looked");
        match self.run(context, id, hosted, command) {
            Ok(ran) => {
                if ran.is_over {
                    *value = None;
                }
                Ok(ran.reply)
            }
            Err(CommandFailure::NotRun(reason)) => Err(refused(id, &reason)),
            // There is no copy of a live agent to go back to. The engine undoes a command that panics, on every member
            // alike, and so it does this one; otherwise the whole shard would fail at its next snapshot.
            Err(CommandFailure::Ran(reason)) => panic!("{}", refused(id, &reason)),
        }
    }

    fn run(
        &self,
        context: &CommandContext,
        id: AgentIdRef<'_>,
        hosted: &mut Hosted,
        command: &[u8],
    ) -> Result<Ran, CommandFailure> {
        let agent = match &mut hosted.state {
            State::Live(agent) => agent,
            State::Kept { why, .. } => return Ok(Ran { reply: why.reply(), is_over: false }),
        };
        let watch = self.types.get(id.agent_type).map(AgentType::watch).expect("a live agent has a type");
        let mut context = AgentContext::new(id, context, hosted.revision);
        let reply = agent.command(&mut context, command, watch)?;
        hosted.revision += 1;
        Ok(Ran { reply: join(&AgentReply::User, &reply), is_over: context.is_deactivated() })
    }
}

/// What became of a command.
struct Ran {
    reply: Bytes,
    /// The agent has deactivated itself.
    is_over: bool,
}

impl Kept {
    fn reply(&self) -> Bytes {
        match self {
            Kept::UnknownAgentType => join(&AgentReply::UnknownAgentType, &[]),
            Kept::Unreadable(reason) => join(&AgentReply::UnreadableState, reason.as_bytes()),
        }
    }

    fn answer(&self) -> Bytes {
        match self {
            Kept::UnknownAgentType => join(&AgentAnswer::UnknownAgentType, &[]),
            Kept::Unreadable(reason) => join(&AgentAnswer::UnreadableState, reason.as_bytes()),
        }
    }
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
        let reply = if value.is_some() {
            self.run_on(context, id, value, command)?
        } else {
            let (activated, reply) = self.activate(context, id, command)?;
            *value = activated;
            reply
        };
        Ok(Done { reply, load: COMMAND_LOAD, size: 0 })
    }

    fn query(&self, key: &[u8], hosted: &Hosted, query: &Bytes) -> Result<Answer, Refused> {
        let id = parse(key)?;
        let (AgentQuery::User, query) = split(query).map_err(Refused)?;
        let answer = match &hosted.state {
            State::Live(agent) => {
                let context = QueryContext::new(id, hosted.revision);
                let answer = agent.query(&context, query).map_err(|reason| refused(id, &reason))?;
                join(&AgentAnswer::User, &answer)
            }
            State::Kept { why, .. } => why.answer(),
        };
        Ok(Answer { answer, load: QUERY_LOAD })
    }

    fn encode(&self, _: &[u8], hosted: &Hosted, out: &mut Vec<u8>) {
        let head = Head::V1 { revision: hosted.revision };
        *out = postcard::to_extend(&head, std::mem::take(out)).expect("the head serialises");
        match &hosted.state {
            State::Live(agent) => out.extend_from_slice(&agent.encode()),
            State::Kept { bytes, .. } => out.extend_from_slice(bytes),
        }
    }

    fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<Hosted, String> {
        let id = AgentIdRef::parse(key).map_err(|error| error.to_string())?;
        let (Head::V1 { revision }, bytes) = split(bytes)?;
        let Some(agent_type) = self.types.get(id.agent_type) else {
            let state = State::Kept { bytes: bytes.into(), why: Kept::UnknownAgentType };
            return Ok(Hosted { revision, state });
        };
        // One agent that cannot be read must not take the others of its shard with it.
        let state = agent_type.restore(bytes).map_or_else(
            |reason| {
                agent_type.watch().report(&format!("the state of an agent does not decode: {reason}"));
                State::Kept { bytes: bytes.into(), why: Kept::Unreadable(reason.into()) }
            },
            State::Live,
        );
        Ok(Hosted { revision, state })
    }
}

fn parse(key: &[u8]) -> Result<AgentIdRef<'_>, Refused> {
    AgentIdRef::parse(key).map_err(|error| Refused(error.to_string()))
}

fn refused(id: AgentIdRef<'_>, reason: &str) -> Refused {
    Refused(format!("an agent of type {:?}: {reason}", id.agent_type))
}

#[cfg(test)]
mod tests;
