//! A timeout that would need an argument.
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

    #[timeout]
    fn end(&mut self, context: &mut dist_agent::AgentContext<'_>, amount: i64) {
        self.0 -= amount;
        context.deactivate();
    }
}

fn main() {}
