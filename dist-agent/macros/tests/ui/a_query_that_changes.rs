//! A query that would change the agent.
use dist_agent_macros::agent;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[agent(name = "counter")]
impl Counter {
    #[command(tag = 1)]
    fn add(&mut self, amount: i64) {
        self.0 += amount;
    }

    #[query(tag = 1)]
    fn take(&mut self) -> i64 {
        std::mem::take(&mut self.0)
    }
}

fn main() {}
