//! The agents of a shard: the value type of the one keyspace in which all agents live.

mod changes;
mod hosted;
mod timeouts;

use bytes::Bytes;
use raft_kv::rafted_value::{CommandContext, Refused, stop_member};
use raft_kv::{Answer, Done, ValuePerKey, Woken};

use self::hosted::{Away, State};
use crate::agent_id::AgentIdRef;
use crate::agent_type::{AgentType, CommandFailure, Run};
use crate::agent_types::AgentTypes;
use crate::context::{AgentContext, Fate, QueryContext};
use crate::on_tick::Timer;
use crate::wire::{
    AgentAnswer, AgentCommand, AgentQuery, AgentReply, AgentSweep, Pass, join, split, try_encode,
};

pub(crate) use self::changes::KeptChange;
pub(crate) use self::hosted::Hosted;

/// What a command costs beside a query, as in the original.
const COMMAND_LOAD: u64 = 3;
/// What a query costs.
const QUERY_LOAD: u64 = 1;

/// Finds the type of each agent by its key.
pub(crate) struct AgentValues {
    types: AgentTypes,
}

/// A command for one agent, as it comes out of the log.
#[derive(Clone, Copy)]
struct Call<'a> {
    context: &'a CommandContext,
    id: AgentIdRef<'a>,
    of: &'a dyn AgentType,
    tick_ms: u32,
    version: u32,
    command: &'a [u8],
    leads: bool,
}

/// What became of a command.
struct Ran {
    /// What the caller gets, head and all.
    reply: Bytes,
    fate: Fate,
}

impl AgentValues {
    pub(crate) fn new(types: AgentTypes) -> Self {
        Self { types }
    }

    /// The type of an agent; ends this member if its build does not know it. Callers name a type only once every node of the
    /// cluster knows it, so that other members may well run what this one cannot.
    fn type_of(&self, name: &str) -> &dyn AgentType {
        let of = self.types.get(name);
        of.unwrap_or_else(|| stop_member(format!("this build does not know agent type {name:?}")))
    }

    fn execute(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Hosted>,
        command: &Bytes,
        leads: bool,
    ) -> Result<Done, Refused> {
        let id = parse(key)?;
        let (head, command) = split(command).map_err(Refused)?;
        let (AgentCommand::Run { tick_ms, version, .. } | AgentCommand::RunIfActive { tick_ms, version, .. }) =
            head;
        let of = self.type_of(id.agent_type);
        let call = Call { context, id, of, tick_ms, version, command, leads };
        let reply = if value.is_some() {
            self.run_on(call, value)?
        } else {
            of.must_run(id.agent_type, version);
            match head {
                AgentCommand::Run { pass: Some(pass), .. } => {
                    let (activated, reply) = self.activate(call, pass)?;
                    *value = activated;
                    reply
                }
                AgentCommand::Run { pass: None, .. } => join(&AgentReply::NotActive, &[]),
                AgentCommand::RunIfActive { call, .. } => join(&AgentReply::NotActiveFor { call }, &[]),
            }
        };
        Ok(Done { reply, load: COMMAND_LOAD, size: 0 })
    }

    /// The first command of an agent: it is there with its first effect, or not at all. Its place in its quota is looked
    /// at once more: a pass that has run out may have been given to somebody else.
    fn activate(&self, call: Call<'_>, pass: Pass) -> Result<(Option<Hosted>, Bytes), Refused> {
        let Pass { generation, until_ms } = pass;
        if call.context.now_ms > until_ms {
            return Ok((None, join(&AgentReply::PassExpired, &[])));
        }
        let state = State::Live(call.of.activate());
        let mut hosted = Hosted::new(generation, call.context.seed, state);
        hosted.set_version(call.of, call.version);
        // What cannot be kept is dropped here, and nothing has changed.
        let head = AgentReply::Activated { at_ms: call.context.now_ms };
        let ran = self.run(call, &mut hosted, &head).map_err(|failure| match failure {
            CommandFailure::NotRun(reason) | CommandFailure::Ran(reason) => refused(call.id, &reason),
        })?;
        if ran.fate == Fate::Deactivate {
            let (_, reply) = split::<AgentReply>(&ran.reply).map_err(Refused)?;
            return Ok((None, join(&AgentReply::User, reply)));
        }
        Ok((Some(hosted), ran.reply))
    }

    /// A later command.
    fn run_on(&self, call: Call<'_>, value: &mut Option<Hosted>) -> Result<Bytes, Refused> {
        let hosted = value.as_mut().expect("the caller has looked");
        let of = call.of;
        let version = hosted.version(of).max(call.version);
        of.must_run(call.id.agent_type, version);
        let before = hosted.raise(of, version);
        if let Some(why) = hosted.state.kept() {
            must_not_read(of, call.id, version, why);
            let reply = join(&AgentReply::UnreadableState, why.as_bytes());
            // It is a command all the same: who is called is not to end as one that nobody calls.
            hosted.set_timer(Timer::after_command(hosted.timer(), None, call.context.now_ms, call.tick_ms));
            return Ok(reply);
        }
        match self.run(call, hosted, &AgentReply::User) {
            Ok(ran) => {
                if ran.fate == Fate::Deactivate {
                    *value = None;
                }
                Ok(ran.reply)
            }
            Err(CommandFailure::NotRun(reason)) => {
                hosted.put_back(of, before);
                Err(refused(call.id, &reason))
            }
            // There is no copy of a live agent to go back to. The engine undoes a command that panics, on every member
            // alike, and so it does this one; otherwise the whole shard would fail at its next snapshot.
            Err(CommandFailure::Ran(reason)) => panic!("{}", refused(call.id, &reason)),
        }
    }

    /// Runs a command on an agent that is live.
    fn run(&self, call: Call<'_>, hosted: &mut Hosted, head: &AgentReply) -> Result<Ran, CommandFailure> {
        let of = call.of;
        let version = hosted.version(of);
        let State::Live(agent) = &mut hosted.state else { unreachable!("only a live agent runs") };
        let mut context = AgentContext::new(call.id, call.context, hosted.revision, version);
        let run = Run { of, leads: call.leads, activates: *head != AgentReply::User };
        let reply = agent.command(&mut context, call.command, head, run)?;
        let asked = context.asked();
        hosted.changed(of, call.context.now_ms, Some(call.command));
        let timer = hosted.timer();
        let next = Timer::after_command(timer, asked.on_tick, call.context.now_ms, call.tick_ms);
        if next != timer {
            hosted.set_timer(next);
        }
        if asked.fate == Fate::Passivate {
            hosted.passivate(of);
        }
        Ok(Ran { reply, fate: asked.fate })
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
        self.execute(context, key, value, command, false)
    }

    fn command_led(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<Hosted>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        self.execute(context, key, value, command, true)
    }

    fn has_hooks(&self) -> bool {
        self.types.have_hooks()
    }

    fn wake_at(&self, hosted: &Hosted) -> Option<u64> {
        hosted.timer().map(|timer| timer.due_ms)
    }

    fn wake(&self, context: &CommandContext, key: &[u8], value: &mut Option<Hosted>, leads: bool) -> Woken {
        self.tick(context, key, value, leads);
        Woken { load: COMMAND_LOAD, size: 0 }
    }

    /// Agents are counted by quota, and by which quota of that name they were activated under.
    fn class<'k>(&self, key: &'k [u8], hosted: &Hosted) -> Option<(&'k [u8], u64)> {
        Some((AgentIdRef::quota_prefix(key)?, hosted.generation))
    }

    fn sweep(&self, _: &CommandContext, _: &[u8], value: &mut Option<Hosted>, payload: &Bytes) -> u64 {
        let ends = |hosted: &Hosted| match split(payload) {
            Ok((AgentSweep::EndQuota { generation }, _)) => hosted.generation == generation,
            Ok((AgentSweep::EndQuotas, list)) => {
                postcard::from_bytes(list).is_ok_and(|list: Vec<u64>| list.contains(&hosted.generation))
            }
            Err(_) => false,
        };
        if value.as_ref().is_some_and(ends) {
            *value = None;
        }
        0
    }

    fn query(&self, key: &[u8], hosted: &Hosted, query: &Bytes) -> Result<Answer, Refused> {
        let id = parse(key)?;
        let query = match split(query).map_err(Refused)? {
            (AgentQuery::User, query) => query,
            (AgentQuery::Changes { life, revision }, _) => {
                return Ok(Answer { answer: changes_after(hosted, life, revision), load: QUERY_LOAD });
            }
            (AgentQuery::IsActive, _) => {
                return Ok(Answer { answer: join(&AgentAnswer::Active, &[]), load: QUERY_LOAD });
            }
        };
        let of = self.type_of(id.agent_type);
        let context = QueryContext::new(id, hosted.revision, hosted.version(of));
        let answer = match &hosted.state {
            State::Live(agent) => agent.query(&context, query, &AgentAnswer::User),
            State::InBytes(away) => match &**away {
                Away::Passive(state) => {
                    let agent = of.restore(state.version, &state.bytes);
                    agent.and_then(|agent| agent.query(&context, query, &AgentAnswer::User))
                }
                Away::Kept(kept) => Ok(join(&AgentAnswer::UnreadableState, kept.why.as_bytes())),
            },
        };
        let answer = answer.map_err(|reason| refused(id, &reason))?;
        Ok(Answer { answer, load: QUERY_LOAD })
    }

    fn answered(&self, key: &[u8], hosted: &Hosted, query: &Bytes, answer: &Bytes) {
        let Ok(id) = parse(key) else { return };
        let Some(of) = self.types.get(id.agent_type).filter(|of| of.has_hooks()) else { return };
        let (Ok((AgentQuery::User, query)), Ok((AgentAnswer::User, answer))) = (split(query), split(answer))
        else {
            return;
        };
        let context = QueryContext::new(id, hosted.revision, hosted.version(of));
        match &hosted.state {
            State::Live(agent) => agent.answered(&context, query, answer, of),
            State::InBytes(away) => {
                if let Away::Passive(state) = &**away
                    && let Ok(agent) = of.restore(state.version, &state.bytes)
                {
                    agent.answered(&context, query, answer, of);
                }
            }
        }
    }

    fn encode(&self, key: &[u8], hosted: &Hosted, out: &mut Vec<u8>) {
        let name = AgentIdRef::type_in(key).expect("only keys that are identities have agents");
        hosted.encode(self.type_of(name), out);
    }

    fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<Hosted, String> {
        let id = AgentIdRef::parse(key).map_err(|error| error.to_string())?;
        Hosted::decode(self.type_of(id.agent_type), id.agent_type, bytes)
    }
}

/// A state that this member cannot read gets a command of this version. Where every node is of this build, none can read it,
/// and all refuse the command alike. Where some know no later version than an earlier one, they may read and run what this
/// member cannot, and it ends itself: what they acknowledge must not be lost from view where this one leads. Nobody is told
/// of a timeout, for which no member ends.
fn must_not_read(of: &dyn AgentType, id: AgentIdRef<'_>, version: u32, why: &str) {
    if version < of.version() && !of.is_agreed() {
        stop_member(format!("a state of agent type {:?} cannot be read: {why}", id.agent_type));
    }
}

/// The changes of an agent behind a revision of one of its lives.
fn changes_after(hosted: &Hosted, life: u64, revision: u64) -> Bytes {
    if life != 0 && life != hosted.life {
        return join(&AgentAnswer::OtherLife, &[]);
    }
    match hosted.changes().after(revision, hosted.revision, CHANGES_MAX, CHANGES_BYTES_MAX) {
        Ok(changes) => {
            let changes = try_encode(&changes).expect("numbers and bytes serialise");
            join(&AgentAnswer::Changes { life: hosted.life }, &changes)
        }
        Err(oldest) => join(&AgentAnswer::Compacted { oldest }, &[]),
    }
}

/// Changes in one answer.
const CHANGES_MAX: usize = 256;
/// An answer holds no more bytes of changes, unless one alone has more.
const CHANGES_BYTES_MAX: usize = 1 << 20;

fn parse(key: &[u8]) -> Result<AgentIdRef<'_>, Refused> {
    AgentIdRef::parse(key).map_err(|error| Refused(error.to_string()))
}

fn refused(id: AgentIdRef<'_>, reason: &str) -> Refused {
    Refused(format!("an agent of type {:?}: {reason}", id.agent_type))
}

#[cfg(test)]
mod tests;
