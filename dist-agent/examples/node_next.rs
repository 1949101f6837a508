//! The next build of the `node` example, as a rolling upgrade replaces one by the other: its counters have another form,
//! and it knows one more type of agents. `cargo xtask upgrade` does it node after node, with clients at work.

#[path = "node_next/counter.rs"]
mod counter;
mod demo;
#[path = "node_next/note.rs"]
mod note;
#[path = "node/program.rs"]
mod program;

use std::process::ExitCode;

use counter::Counter;
use dist_agent::AgentTypes;
use note::Note;

#[tokio::main]
async fn main() -> ExitCode {
    program::main(AgentTypes::new().with::<Counter>().with::<Note>()).await
}
