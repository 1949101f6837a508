//! An argument that borrows.
use dist_agent_macros::agent;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[agent(name = "counter")]
impl Counter {
    #[command(tag = 1)]
    fn rename(&mut self, name: &str) {
        self.0 = name.len() as i64;
    }
}

fn main() {}
