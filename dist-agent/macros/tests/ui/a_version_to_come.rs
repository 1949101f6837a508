//! A command of a version that the agent does not have.
use dist_agent_macros::agent;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[agent(name = "counter", version = 2)]
impl Counter {
    #[command(tag = 1, since = 3)]
    fn add(&mut self, amount: i64) {
        self.0 += amount;
    }
}

fn main() {}
