//! A type of agents that the build before did not know.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

/// A text.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Note(String);

impl Agent for Note {
    const TYPE: &'static str = "note";
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = String;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, text: String) {
        self.0 = text;
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> String {
        self.0.clone()
    }
}
