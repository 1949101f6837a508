//! What the leader does beside an agent: side effects after its handlers.

use std::sync::Arc;

use crate::agent::Agent;
use crate::agent_id::AgentIdRef;
use crate::caught::caught;

/// What happens beside the agents of a type when their handlers have run: send a message, count, tell somebody. Given to
/// [`AgentTypes::with_hooks`](crate::AgentTypes::with_hooks); a type without hooks pays nothing for them.
///
/// Hooks run where the agent's shard is led, before the caller is answered, and hold up the shard for as long as they
/// take: hand what takes time to a task of your own. Each command or timeout that takes effect is told **at least once**;
/// twice, where the leader changed in between. What is refused, panics or is undone is not told. A hook that panics is
/// logged, and its agent unharmed; so is a state's `clone` that panics, and the hooks are not told of that command.
///
/// ```
/// use std::sync::mpsc::Sender;
/// use dist_agent::{Agent, AgentContext, AgentHooks, AgentTypes, HookContext, QueryContext};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Default, Serialize, Deserialize)]
/// # struct Stock(u64);
/// # impl Agent for Stock {
/// #     const TYPE: &'static str = "stock";
/// #     type Command = u64;
/// #     type Reply = u64;
/// #     type Query = ();
/// #     type Answer = u64;
/// #     fn handle_command(&mut self, _: &mut AgentContext<'_>, taken: u64) -> u64 { self.0 = self.0.saturating_sub(taken); self.0 }
/// #     fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 { self.0 }
/// # }
///
/// /// Orders more when the last piece is taken.
/// struct Orders(Sender<String>);
///
/// impl AgentHooks<Stock> for Orders {
///     fn after_command(
///         &self,
///         context: &HookContext<'_>,
///         before: Option<&Stock>,
///         _: &u64,
///         _: &u64,
///         after: Option<&Stock>,
///     ) {
///         if before.is_some_and(|stock| stock.0 > 0) && after.is_some_and(|stock| stock.0 == 0) {
///             let _ = self.0.send(format!("order more of {}", context.key()));
///         }
///     }
/// }
///
/// let (sender, orders) = std::sync::mpsc::channel();
/// let types = AgentTypes::new().with_hooks::<Stock>(Orders(sender));
/// # assert!(types.validate().is_ok());
/// ```
#[allow(unused_variables, reason = "the names are documentation")]
pub trait AgentHooks<A: Agent>: Send + Sync + 'static {
    /// A command has taken effect. `before` is `None` if it activated the agent, `after` if it ended it.
    fn after_command(
        &self,
        context: &HookContext<'_>,
        before: Option<&A>,
        command: &A::Command,
        reply: &A::Reply,
        after: Option<&A>,
    ) {
    }

    /// A query was answered. Queries that may be answered stale are not told.
    fn after_query(&self, context: &HookContext<'_>, agent: &A, query: &A::Query, answer: &A::Answer) {}

    /// A timeout was handled. `after` is `None` if it ended the agent. An agent that ends because it had no command for
    /// long enough has no handler that runs, and nothing is told.
    fn after_timeout(&self, context: &HookContext<'_>, before: &A, after: Option<&A>) {}
}

/// What a hook is told of the agent, beside its state.
#[derive(Clone, Copy, Debug)]
pub struct HookContext<'a> {
    pub(crate) id: AgentIdRef<'a>,
    pub(crate) revision: u64,
    pub(crate) now_ms: Option<u64>,
}

impl<'a> HookContext<'a> {
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

    /// How many commands and timeouts the agent had handled before this one. With the agent's identity and the stamped
    /// time it tells a second telling of the same from a new one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The stamped time of the command or timeout, in milliseconds since 1970; a query has none.
    pub fn now_ms(&self) -> Option<u64> {
        self.now_ms
    }
}

/// The hooks of a type, and how to keep a state from before a handler.
pub(crate) struct TypeHooks<A: Agent> {
    hooks: Arc<dyn AgentHooks<A>>,
    copy: fn(&A) -> A,
}

impl<A: Agent> TypeHooks<A> {
    pub(crate) fn new(hooks: impl AgentHooks<A>) -> Self
    where
        A: Clone,
    {
        Self { hooks: Arc::new(hooks), copy: A::clone }
    }

    /// A copy of a state, unless making one panics: that must not undo the command, which only this member would do.
    pub(crate) fn copy(&self, agent: &A) -> Option<A> {
        let copied = caught(|| (self.copy)(agent));
        if copied.is_err() {
            tracing::error!(
                agent_type = A::TYPE,
                "the clone of a state panicked; the hooks are not told of a command"
            );
        }
        copied.ok()
    }

    /// Tells the hooks something. A panic of theirs must not undo the command, which only this member would do.
    pub(crate) fn tell(&self, tell: impl FnOnce(&dyn AgentHooks<A>)) {
        if caught(|| tell(self.hooks.as_ref())).is_err() {
            tracing::error!(agent_type = A::TYPE, "a hook panicked");
        }
    }
}
