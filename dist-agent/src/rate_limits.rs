//! How many calls each agent gets from this node, where their handles limit that.

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::sync::Arc;

use foretoken::{Clock, Config, Foretoken, Rate, Sleep, TakeError};
use raft_kv::rafted_value::env::{Env, MonoTime};

use crate::agent_id::AgentId;

/// What a query costs.
pub(crate) const QUERY_TOKENS: u32 = 1;
/// What a command costs.
pub(crate) const COMMAND_TOKENS: u32 = 3;

/// The limit of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RateLimit {
    pub(crate) rate: Rate,
    pub(crate) tokens_max: u32,
}

/// A bucket for each agent that is called with a limit.
pub(crate) struct RateLimits(Foretoken<AgentId, Seeded>);

impl RateLimits {
    pub(crate) fn new(env: &Arc<dyn Env>, buckets_max: usize) -> Self {
        let config = Config { buckets_max, ..Config::default() };
        Self(Foretoken::with(&config, Arc::new(EnvClock(Arc::clone(env))), Seeded(env.random_u64())))
    }

    pub(crate) fn take(&self, agent: &AgentId, limit: RateLimit, tokens: u32) -> Result<(), TakeError> {
        self.0.take(agent, limit.rate, limit.tokens_max, tokens)
    }
}

/// The clock behind the one door to the world.
struct EnvClock(Arc<dyn Env>);

impl Clock for EnvClock {
    fn now_nanos(&self) -> u64 {
        self.0.now().nanos()
    }

    fn sleep_until(&self, at_nanos: u64) -> Sleep {
        self.0.sleep_until(MonoTime::from_nanos(at_nanos))
    }
}

/// Hashes that an outsider cannot foresee, and a simulation can repeat.
#[derive(Clone, Copy)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}
