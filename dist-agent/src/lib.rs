#![doc = include_str!("../README.md")]

/// Whether a test has planted this fault: never outside of a simulation.
macro_rules! planted {
    ($mutation:ident) => {{
        #[cfg(feature = "sim")]
        {
            raft_kv::rafted_value::sim::is_planted(crate::sim::$mutation)
        }
        #[cfg(not(feature = "sim"))]
        {
            false
        }
    }};
}

#[doc(hidden)]
pub mod __private;
mod agent;
mod agent_id;
mod agent_type;
mod agent_types;
mod agent_values;
mod agreed;
mod answers;
mod call;
mod caught;
mod config;
mod context;
mod error;
#[cfg(any(feature = "fuzzing", test))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod hooks;
mod list;
mod node;
mod on_tick;
mod quota;
mod quotas;
mod rate_limits;
#[cfg(feature = "sim")]
pub mod sim;
mod single_node;
mod state_watch;
#[cfg(feature = "sim")]
pub mod testing;
mod versions;
mod watch;
mod wire;

/// Makes an agent of a plain `impl`: of each method marked `#[command(tag = ..)]` or `#[query(tag = ..)]` a variant of what
/// travels, and a method of its handles; `#[timeout]` marks the one that ticks call.
///
/// A tag is the method's name on the wire and in the log: it never changes, and one that was used is not used again. The
/// name of a method may change, and their order. Arguments and results own what they hold and are encoded by serde. A
/// method may take the context as its first argument. Everything that is not marked stays as it is.
///
/// `version = ..` and `version_min = ..` give the state's versions, functions `migrate` and `write_as` of the `impl` are the
/// agent's, and `#[command(tag = .., since = ..)]` says in which version a command is new: it is not sent before every node
/// knows that version. `changes_retained = ..` says how many changes an agent keeps for those who
/// [watch](AgentHandle::watch) it (without it none, and it cannot be watched); a function `changes_retained` says it for each
/// version.
///
/// ```
/// use dist_agent::{AgentContext, AgentTypes, DistAgent, QuotaLimit, agent};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Counter {
///     total: i64,
/// }
///
/// #[agent(name = "counter")]
/// impl Counter {
///     /// Adds to it; the new total.
///     #[command(tag = 1)]
///     fn add(&mut self, amount: i64) -> i64 {
///         self.total += amount;
///         self.total
///     }
///
///     /// Ends the counter.
///     #[command(tag = 2)]
///     fn close(&mut self, context: &mut AgentContext<'_>) {
///         context.deactivate();
///     }
///
///     #[query(tag = 1)]
///     fn total(&self) -> i64 {
///         self.total
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = DistAgent::single_node(AgentTypes::new().with::<Counter>()).await?;
/// cluster.put_quota("tenant-a", QuotaLimit::Unlimited).await?;
/// // The methods come from the trait `CounterHandle`, which was generated beside `Counter`.
/// let counter = cluster.agent::<Counter>("tenant-a", "room-42")?;
/// assert_eq!(counter.add(5).await?, 5);
/// assert_eq!(counter.total().await?, 5);
/// counter.if_active().close().await?;
/// # cluster.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// The trait [`Agent`] can be implemented by hand as well; the attribute does nothing else.
pub use dist_agent_macros::agent;
pub use foretoken::{Rate, RateError};
pub use raft_kv;
pub use raft_kv::SplitMergePolicy;
pub use rand_chacha::rand_core;

pub use self::agent::Agent;
pub use self::agent_id::{AgentId, AgentIdError, AgentKey, AgentTypeName, QuotaName};
pub use self::agent_types::{AgentTypes, AgentTypesError};
pub use self::config::{AgentsPolicy, DistAgentConfig};
pub use self::context::{AgentContext, QueryContext};
pub use self::error::{
    AgentError, AgentNotApplied, AgentQueryError, AgentUnknown, BuildMismatch, ListError, QuotaError,
    StartError,
};
pub use self::handle::AgentHandle;
pub use self::hooks::{AgentHooks, HookContext};
pub use self::list::{AgentPage, AgentPosition};
pub use self::node::DistAgent;
pub use self::on_tick::OnTick;
pub use self::quota::{QuotaLimit, QuotaUsage};
pub use self::single_node::SingleNode;
pub use self::watch::{AgentWatch, Cause, Change, WatchError, WatchPosition};

/// The workspace's README is tested here: its agent must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct WorkspaceReadme;
