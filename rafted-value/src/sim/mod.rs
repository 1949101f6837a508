//! The simulated world: many nodes in one thread, on a virtual clock and network, decided by one seed.
//!
//! [`Sim`] starts nodes, each of which sees the world through its own [`SimEnv`], and drives them. Nothing happens
//! between two calls of [`Sim::run_for`] and [`Sim::run_until`]; within them, tasks run first in, first out, and the
//! clock jumps to the next timer or message when none can run. Two runs with one seed and one program are the same
//! to the last message, which [`Sim::trace_hash`] proves. A program must hold to the rules of
//! [`Env`](crate::env::Env) for that: no other clock, thread or randomness.
//!
//! What the network keeps and what it breaks is written at [`NetConfig`]; what can be done to nodes, links and clocks
//! at [`Sim`].
//!
//! ```
//! use std::time::Duration;
//!
//! use rafted_value::env::{Env, sleep};
//! use rafted_value::sim::{NetConfig, Sim};
//!
//! let sim = Sim::new(7, NetConfig::default());
//! let env = sim.start_node("node-1", "sim:1");
//! let before = env.now();
//! sim.run_until(Duration::from_secs(7_200), sleep(&*env, Duration::from_secs(3_600))).expect("an hour passes");
//! assert_eq!(env.now().since(before), Duration::from_secs(3_600));
//! ```

mod bulk;
mod clock;
mod config;
mod dial;
mod disk;
mod disk_file;
mod endpoint;
mod env;
mod executor;
mod fate;
mod faults;
mod link;
mod mutation;
mod network;
mod place;
mod random;
pub(crate) mod show;
mod simulation;
mod sleep;
mod stats;
mod waker;
pub(crate) mod watch;

pub use self::config::{ClockConfig, NetConfig};
pub use self::disk::{SimDisk, SyncLatency};
pub use self::env::SimEnv;
pub use self::mutation::{Mutation, Planted, is_planted, plant};
pub use self::place::Place;
pub use self::random::SimRng;
pub use self::show::{WatchingShown, show, watch_shown};
pub use self::simulation::{Sim, SimTask};
pub use self::stats::SimStats;
pub use self::watch::{Deed, Standing, Watching, watch};
