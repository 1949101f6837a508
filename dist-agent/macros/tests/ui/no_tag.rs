//! A command without a tag.
use dist_agent_macros::agent;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[agent(name = "counter")]
impl Counter {
    #[command]
    fn add(&mut self, amount: i64) -> i64 {
        self.0 += amount;
        self.0
    }
}

fn main() {}
