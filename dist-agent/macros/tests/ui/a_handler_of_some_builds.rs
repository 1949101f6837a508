//! A command that only some builds have.
use dist_agent_macros::agent;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[agent(name = "counter")]
impl Counter {
    #[cfg(windows)]
    #[command(tag = 1)]
    fn add(&mut self, amount: i64) {
        self.0 += amount;
    }
}

fn main() {}
