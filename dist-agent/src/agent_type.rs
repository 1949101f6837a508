//! Agent types and live agents whose Rust types are forgotten.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use raft_kv::rafted_value::stop_member;
use twox_hash::XxHash3_128;

use crate::agent::Agent;
use crate::caught::caught;
use crate::context::{AgentContext, QueryContext};
use crate::hooks::{HookContext, TypeHooks};
use crate::quota::Span;
use crate::state_watch::{RoundTrip, StateWatch, check_encodes, is_decoded, round_trip};
use crate::wire::{AgentAnswer, AgentReply, join_value, split, try_encode};

/// An agent type whose Rust type is forgotten.
pub(crate) trait AgentType: Send + Sync {
    /// A new agent.
    fn activate(&self) -> Box<dyn LiveAgent>;

    /// The agent that [`LiveAgent::encode`] wrote when the type's states were of this version.
    fn restore(&self, version: u32, bytes: &[u8]) -> Result<Box<dyn LiveAgent>, String>;

    /// The newest version that this build knows.
    fn version(&self) -> u32;

    /// The earliest version that this build can run.
    fn version_min(&self) -> u32;

    /// The versions that this build can run, with the form of each.
    fn span(&self) -> Span;

    /// Takes note of the version that the cluster has agreed on.
    fn agree(&self, version: u32);

    /// Whether, as far as this node has heard, every node knows the newest version of this build.
    fn is_agreed(&self) -> bool;

    /// How many of its changes an agent keeps that runs as a version.
    fn changes_retained(&self, version: u32) -> u32;

    /// What was seen of the states of this type.
    fn watch(&self) -> &StateWatch;

    fn has_hooks(&self) -> bool;

    fn as_any(&self) -> &dyn Any;
}

impl dyn AgentType + '_ {
    /// Ends this member if its build cannot run a version of this type, named `name`, that other members may be able to run.
    pub(crate) fn must_run(&self, name: &str, version: u32) {
        let (first, last) = (self.version_min(), self.version());
        if !(first..=last).contains(&version) {
            stop_member(format!(
                "an agent of type {name:?} runs as version {version}, and this build runs versions {first} to {last}"
            ));
        }
    }
}

/// A live agent whose Rust type is forgotten.
pub(crate) trait LiveAgent: Send {
    /// Runs a command; the reply follows a head.
    fn command(
        &mut self,
        context: &mut AgentContext<'_>,
        command: &[u8],
        head: &AgentReply,
        run: Run<'_>,
    ) -> Result<Bytes, CommandFailure>;

    /// Runs the timeout handler; an error says that the state it leaves cannot be kept.
    fn timeout(&mut self, context: &mut AgentContext<'_>, run: Run<'_>) -> Result<(), String>;

    /// Runs a query; the answer follows a head. An error says that the query does not decode, or that the answer does not
    /// encode.
    fn query(&self, context: &QueryContext<'_>, query: &[u8], head: &AgentAnswer) -> Result<Bytes, String>;

    /// Tells the hooks of a query that was answered.
    fn answered(&self, context: &QueryContext<'_>, query: &[u8], answer: &[u8], of: &dyn AgentType);

    /// Appends the state in the form of a version, without its version head.
    fn encode(&self, version: u32, out: &mut Vec<u8>);
}

/// How a handler runs.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The agent's type.
    pub(crate) of: &'a dyn AgentType,
    /// Whether this member leads, so that the hooks are told.
    pub(crate) leads: bool,
    /// Whether it is the agent's first command.
    pub(crate) activates: bool,
}

/// Why a command gave no reply; the same on every member.
pub(crate) enum CommandFailure {
    /// It does not decode, and nothing has changed.
    NotRun(String),
    /// It ran, and left a state or gave a reply that cannot be encoded: it must be undone.
    Ran(String),
}

/// An agent type of this program.
pub(crate) struct TypeOf<A: Agent> {
    watch: StateWatch,
    hooks: Option<TypeHooks<A>>,
    /// The version that the cluster has agreed on, as this node was told last; one more, so that zero is none.
    agreed: AtomicU64,
}

impl<A: Agent> TypeOf<A> {
    pub(crate) fn new(hooks: Option<TypeHooks<A>>) -> Self {
        Self { watch: StateWatch::new(A::TYPE), hooks, agreed: AtomicU64::new(0) }
    }

    fn of(of: &dyn AgentType) -> &Self {
        of.as_any().downcast_ref().expect("an agent is run by its own type")
    }

    fn hooks(&self, leads: bool) -> Option<&TypeHooks<A>> {
        self.hooks.as_ref().filter(|_| leads)
    }
}

impl<A: Agent> AgentType for TypeOf<A> {
    fn activate(&self) -> Box<dyn LiveAgent> {
        Box::new(Live(A::default()))
    }

    fn restore(&self, version: u32, bytes: &[u8]) -> Result<Box<dyn LiveAgent>, String> {
        let restore = || {
            if version == A::VERSION {
                return postcard::from_bytes(bytes).map_err(|error| error.to_string());
            }
            A::migrate(version, bytes)
        };
        // A shard that is restored has no command to undo, and a tick has other agents' timeouts beside this one's.
        caught(restore).flatten().map(|agent: A| Box::new(Live(agent)) as _)
    }

    fn version(&self) -> u32 {
        A::VERSION
    }

    fn version_min(&self) -> u32 {
        A::VERSION_MIN
    }

    fn span(&self) -> Span {
        let default = A::default();
        let form = |version| {
            let bytes = write(&default, version).expect("it was tried when it was registered");
            form_of(bytes, A::changes_retained(version))
        };
        Span { first: A::VERSION_MIN, forms: (A::VERSION_MIN..=A::VERSION).map(form).collect() }
    }

    fn agree(&self, version: u32) {
        self.agreed.store(u64::from(version) + 1, Ordering::Relaxed);
    }

    fn is_agreed(&self) -> bool {
        self.agreed.load(Ordering::Relaxed) > u64::from(A::VERSION)
    }

    fn changes_retained(&self, version: u32) -> u32 {
        A::changes_retained(version)
    }

    fn watch(&self) -> &StateWatch {
        &self.watch
    }

    fn has_hooks(&self) -> bool {
        self.hooks.is_some()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Live<A>(A);

impl<A: Agent> Live<A> {
    fn check_state(&self, context: &AgentContext<'_>, watch: &StateWatch) -> Result<(), String> {
        if context.is_deactivated() {
            return Ok(());
        }
        if context.version() != A::VERSION {
            self.check_earlier_form(context, watch);
            return Ok(());
        }
        if !is_decoded(context.revision()) {
            return check_encodes(&self.0).map_err(|error| format!("it does not encode: {error}"));
        }
        match round_trip(&self.0) {
            Err(RoundTrip::Broken(reason)) => Err(reason),
            Err(RoundTrip::Differs) => {
                // Not an error: the order of a hash map, which no handler looks at, does not come back either.
                watch.report("it encodes to other bytes once it was decoded");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Members of an earlier build need no other form of the state: a failure here would be of this build alone, which
    /// must not undo what they do.
    fn check_earlier_form(&self, context: &AgentContext<'_>, watch: &StateWatch) {
        let version = context.version();
        let is_decoded = is_decoded(context.revision());
        let check = || {
            let bytes = write(&self.0, version)?;
            let again = if is_decoded { Some(A::migrate(version, &bytes)?) } else { None };
            Ok(again.is_none_or(|again| try_encode(&again) == try_encode(&self.0)))
        };
        match caught(check).flatten() {
            Ok(true) => {}
            Ok(false) => watch.report("an earlier version of it becomes another state"),
            Err(reason) => stop_member(format!(
                "a state of agent type {:?} must be written as version {version}: {reason}",
                A::TYPE
            )),
        }
    }

    /// The agent as the hooks see it afterwards.
    fn after(&self, context: &AgentContext<'_>) -> Option<&A> {
        (!context.is_deactivated()).then_some(&self.0)
    }
}

/// A state in the form of a version.
pub(crate) fn write<A: Agent>(agent: &A, version: u32) -> Result<Vec<u8>, String> {
    write_behind(agent, version, Vec::new())
}

/// A state in the form of a version, behind what there is already.
fn write_behind<A: Agent>(agent: &A, version: u32, mut out: Vec<u8>) -> Result<Vec<u8>, String> {
    if version == A::VERSION {
        return postcard::to_extend(agent, out).map_err(|error| error.to_string());
    }
    out.extend_from_slice(&agent.write_as(version)?);
    Ok(out)
}

/// What tells one form of a state from another: a hash of the default state's bytes, and of how many changes are kept
/// beside it, if any are; the same on every node.
fn form_of(mut bytes: Vec<u8>, changes_retained: u32) -> u64 {
    if changes_retained > 0 {
        bytes.extend_from_slice(&changes_retained.to_le_bytes());
    }
    XxHash3_128::oneshot(&bytes) as u64
}

/// The longest reply: a little less than the largest message, with room for what the layers below add.
const REPLY_BYTES_MAX: usize = (4 << 20) - 256;

/// A reply in bytes behind a head; every member finds the same wrong with it, so that its command changes nothing.
fn encode_reply(head: &AgentReply, reply: &impl serde::Serialize) -> Result<Bytes, String> {
    let bytes = join_value(head, reply).map_err(|error| format!("its reply does not encode: {error}"))?;
    if bytes.len() > REPLY_BYTES_MAX {
        return Err(format!("its reply has {} bytes, over the limit of {REPLY_BYTES_MAX}", bytes.len()));
    }
    Ok(bytes)
}

fn hook_context<'a>(context: &AgentContext<'a>) -> HookContext<'a> {
    HookContext { id: context.id(), revision: context.revision(), now_ms: Some(context.now_ms()) }
}

impl<A: Agent> LiveAgent for Live<A> {
    fn command(
        &mut self,
        context: &mut AgentContext<'_>,
        command: &[u8],
        head: &AgentReply,
        run: Run<'_>,
    ) -> Result<Bytes, CommandFailure> {
        let TypeOf { watch, .. } = TypeOf::<A>::of(run.of);
        let hooks = TypeOf::<A>::of(run.of).hooks(run.leads);
        let decode = || {
            postcard::from_bytes::<A::Command>(command)
                .map_err(|error| CommandFailure::NotRun(format!("the command does not decode: {error}")))
        };
        let value = decode()?;
        let twin = watch.twin(&self.0);
        let before = hooks.filter(|_| !run.activates).map(|hooks| hooks.copy(&self.0));
        let reply = self.0.handle_command(context, value);
        let bytes = encode_reply(head, &reply).map_err(CommandFailure::Ran)?;
        self.check_state(context, watch).map_err(|reason| {
            CommandFailure::Ran(format!("the state that it leaves cannot be kept: {reason}"))
        })?;
        if let (Some(twin), Ok(command), Ok((_, reply))) = (twin, decode(), split::<AgentReply>(&bytes)) {
            watch.compare(&self.0, reply, context, twin, command);
        }
        // A state of which no copy could be made is told to nobody.
        let before = before.map_or(Some(None), |copied| copied.map(Some));
        if let (Some(hooks), Some(before), Ok(command)) = (hooks, before, decode()) {
            let (about, after) = (hook_context(context), self.after(context));
            hooks.tell(|hooks| hooks.after_command(&about, before.as_ref(), &command, &reply, after));
        }
        Ok(bytes)
    }

    fn timeout(&mut self, context: &mut AgentContext<'_>, run: Run<'_>) -> Result<(), String> {
        let TypeOf { watch, .. } = TypeOf::<A>::of(run.of);
        let hooks = TypeOf::<A>::of(run.of).hooks(run.leads);
        let before = hooks.and_then(|hooks| hooks.copy(&self.0));
        self.0.handle_timeout(context);
        self.check_state(context, watch)?;
        if let (Some(hooks), Some(before)) = (hooks, before) {
            let (about, after) = (hook_context(context), self.after(context));
            hooks.tell(|hooks| hooks.after_timeout(&about, &before, after));
        }
        Ok(())
    }

    fn query(&self, context: &QueryContext<'_>, query: &[u8], head: &AgentAnswer) -> Result<Bytes, String> {
        let query: A::Query =
            postcard::from_bytes(query).map_err(|error| format!("the query does not decode: {error}"))?;
        join_value(head, &self.0.handle_query(context, query))
            .map_err(|error| format!("its answer does not encode: {error}"))
    }

    fn answered(&self, context: &QueryContext<'_>, query: &[u8], answer: &[u8], of: &dyn AgentType) {
        let Some(hooks) = TypeOf::<A>::of(of).hooks(true) else { return };
        if let (Ok(query), Ok(answer)) = (postcard::from_bytes(query), postcard::from_bytes(answer)) {
            let about = HookContext { id: context.id(), revision: context.revision(), now_ms: None };
            hooks.tell(|hooks| hooks.after_query(&about, &self.0, &query, &answer));
        }
    }

    fn encode(&self, version: u32, out: &mut Vec<u8>) {
        let bytes = write_behind(&self.0, version, std::mem::take(out));
        *out = bytes.expect("that the state encodes was made sure of when a command left it so");
    }
}
