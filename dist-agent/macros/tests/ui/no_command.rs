//! An agent that nothing activates.
use dist_agent_macros::agent;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[agent(name = "counter")]
impl Counter {
    #[query(tag = 1)]
    fn total(&self) -> i64 {
        self.0
    }
}

fn main() {}
