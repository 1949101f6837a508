//! What the leader does beside the replicated value when something happens to it: send a message, keep an index, count.
//!
//! Hooks run on the leader only, in the loop that drives the group, and must not block. What happens is told when it is
//! applied, before anybody is answered and before any follower can have applied it: each command that took effect is
//! told **at least once**, and twice where the leader changed in between (the new one tells what it applies, its
//! predecessor may have told it too). Nothing is told by followers, nor while a value is built anew after a panic or
//! from a snapshot. A hook that panics is caught and counted (`rafted_value_hook_panics_total`); the value is untouched.
//!
//! [`LeaderHook`] is for [`Data`] and its types; [`RawLeaderHook`] for [`RawData`], in bytes.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::data::{Data, RawData, Typed};
use crate::id::{GroupId, MemberId, NodeId};

/// What the leader of a group of `D` does beside it. Every method but [`before`](LeaderHook::before) does nothing unless
/// it is written.
///
/// ```
/// use rafted_value::{CommandContext, Data, GroupId, LeaderHook, Registry};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Stock(u64);
///
/// impl Data for Stock {
///     const NAME: &'static str = "stock";
///     type Command = u64;
///     type Reply = u64;
///     type Query = ();
///     type Answer = u64;
///
///     fn command(&mut self, _: &CommandContext, taken: u64) -> u64 {
///         self.0 = self.0.saturating_sub(taken);
///         self.0
///     }
///
///     fn query(&self, (): ()) -> u64 {
///         self.0
///     }
/// }
///
/// /// Orders more when the last piece is taken.
/// struct Order;
///
/// impl LeaderHook<Stock> for Order {
///     type Before = u64;
///
///     fn before(&self, stock: &Stock, _: &u64) -> u64 {
///         stock.0
///     }
///
///     fn command_committed(&self, _: GroupId, before: u64, stock: &Stock, _: &u64, _: &u64) {
///         if before > 0 && stock.0 == 0 {
///             // ... tell the warehouse, which must expect to hear it twice.
///         }
///     }
/// }
///
/// let registry = Registry::new().with::<Stock>().with_hook::<Stock>(Order);
/// ```
pub trait LeaderHook<D: Data>: Send + Sync + 'static {
    /// What the hook wants to know of the value as it was before a command: a copy, a part, or `()`.
    type Before: 'static;

    /// Looks at the value before `command` runs. Called for commands that then panic or are refused, too.
    fn before(&self, value: &D, command: &D::Command) -> Self::Before;

    /// A command has taken effect; `value` is what it left. A command that was refused or has panicked is not told.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn command_committed(
        &self,
        group: GroupId,
        before: Self::Before,
        value: &D,
        command: &D::Command,
        reply: &D::Reply,
    ) {
    }

    /// A query for the newest state was answered. Queries that may be answered stale are not told.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn query_answered(&self, group: GroupId, value: &D, query: &D::Query, answer: &D::Answer) {}

    /// A member has become a voter. A learner is not told of before that.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn follower_added(&self, group: GroupId, value: &D, follower: MemberId, node: NodeId) {}

    /// A voter was removed, by a change of the membership that the group agreed on.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn follower_removed(&self, group: GroupId, value: &D, follower: MemberId, node: NodeId) {}

    /// This member leads, and has applied all that its predecessors committed. It is told before any command of its own
    /// term, and after those of earlier terms that it had not applied yet.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn elected(&self, group: GroupId, value: &D) {}

    /// The value of a member that leads now came out of a snapshot, another member's or its own after a restart: the
    /// hook has not been told how it came about. Told once, before [`elected`](LeaderHook::elected).
    #[allow(unused_variables, reason = "the names are documentation")]
    fn restored(&self, group: GroupId, value: &D) {}
}

/// [`LeaderHook`] in bytes; see there for when each method is called. A value can be looked at as its own type through
/// [`Any`]: `(value as &dyn Any).downcast_ref::<MyData>()`.
pub trait RawLeaderHook: Send + Sync + 'static {
    /// What the hook wants to know of the value before a command; handed back to it afterwards.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn before(&self, value: &dyn RawData, command: &Bytes) -> Option<Box<dyn Any>> {
        None
    }

    /// A command has taken effect.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn command_committed(
        &self,
        group: GroupId,
        before: Option<Box<dyn Any>>,
        value: &dyn RawData,
        command: &Bytes,
        reply: &Bytes,
    ) {
    }

    /// A query for the newest state was answered.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn query_answered(&self, group: GroupId, value: &dyn RawData, query: &Bytes, answer: &Bytes) {}

    /// A member has become a voter.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn follower_added(&self, group: GroupId, value: &dyn RawData, follower: MemberId, node: NodeId) {}

    /// A voter was removed.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn follower_removed(&self, group: GroupId, value: &dyn RawData, follower: MemberId, node: NodeId) {}

    /// This member leads.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn elected(&self, group: GroupId, value: &dyn RawData) {}

    /// The value came out of a snapshot.
    #[allow(unused_variables, reason = "the names are documentation")]
    fn restored(&self, group: GroupId, value: &dyn RawData) {}
}

/// A typed hook, driven in bytes.
pub(crate) struct TypedHook<D: Data, H> {
    hook: H,
    data: PhantomData<fn() -> D>,
}

impl<D: Data, H: LeaderHook<D>> TypedHook<D, H> {
    pub(crate) fn new(hook: H) -> Self {
        Self { hook, data: PhantomData }
    }
}

/// The value of a registered [`Data`]; none where bytes of another type were registered under its name.
fn typed<D: Data>(value: &dyn RawData) -> Option<&D> {
    (value as &dyn Any).downcast_ref::<Typed<D>>().map(Typed::value)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

impl<D: Data, H: LeaderHook<D>> RawLeaderHook for TypedHook<D, H> {
    fn before(&self, value: &dyn RawData, command: &Bytes) -> Option<Box<dyn Any>> {
        let command: D::Command = read(command)?;
        Some(Box::new(self.hook.before(typed(value)?, &command)))
    }

    fn command_committed(
        &self,
        group: GroupId,
        before: Option<Box<dyn Any>>,
        value: &dyn RawData,
        command: &Bytes,
        reply: &Bytes,
    ) {
        let before = before.and_then(|before| before.downcast::<H::Before>().ok());
        if let (Some(before), Some(value), Some(command), Some(reply)) =
            (before, typed(value), read(command), read(reply))
        {
            self.hook.command_committed(group, *before, value, &command, &reply);
        }
    }

    fn query_answered(&self, group: GroupId, value: &dyn RawData, query: &Bytes, answer: &Bytes) {
        if let (Some(value), Some(query), Some(answer)) = (typed(value), read(query), read(answer)) {
            self.hook.query_answered(group, value, &query, &answer);
        }
    }

    fn follower_added(&self, group: GroupId, value: &dyn RawData, follower: MemberId, node: NodeId) {
        if let Some(value) = typed(value) {
            self.hook.follower_added(group, value, follower, node);
        }
    }

    fn follower_removed(&self, group: GroupId, value: &dyn RawData, follower: MemberId, node: NodeId) {
        if let Some(value) = typed(value) {
            self.hook.follower_removed(group, value, follower, node);
        }
    }

    fn elected(&self, group: GroupId, value: &dyn RawData) {
        if let Some(value) = typed(value) {
            self.hook.elected(group, value);
        }
    }

    fn restored(&self, group: GroupId, value: &dyn RawData) {
        if let Some(value) = typed(value) {
            self.hook.restored(group, value);
        }
    }
}

/// A group's hook, if its data type has one, and whether this member leads.
#[derive(Clone, Default)]
pub(crate) struct Hooked {
    hook: Option<Arc<dyn RawLeaderHook>>,
    leads: bool,
}

impl Hooked {
    pub(crate) fn new(hook: Option<Arc<dyn RawLeaderHook>>) -> Self {
        Self { hook, leads: false }
    }

    pub(crate) fn set_leads(&mut self, leads: bool) {
        self.leads = leads;
    }

    /// Tells the hook something, if there is one to be told; a panic of it is nobody else's business.
    pub(crate) fn tell<T>(&self, group: GroupId, tell: impl FnOnce(&dyn RawLeaderHook) -> T) -> Option<T> {
        let hook = self.hook.as_ref().filter(|_| self.leads)?;
        match catch_unwind(AssertUnwindSafe(|| tell(hook.as_ref()))) {
            Ok(told) => Some(told),
            Err(panic) => {
                let message = crate::group::panic_message(panic.as_ref());
                tracing::error!(%group, message, "a hook panicked");
                metrics::counter!("rafted_value_hook_panics_total").increment(1);
                None
            }
        }
    }
}
