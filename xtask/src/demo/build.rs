//! The programs of the demo and of the upgrade, built in release mode.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::invocation::Invocation;

use super::event::{Event, Inbox};
use super::program::Program;
use super::screen::Screen;

/// The longest time a build may take.
const BUILD_MAX: Duration = Duration::from_secs(3_600);

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// Hosts agents.
    pub(crate) node: PathBuf,
    /// Creates agents, sends commands, compares.
    pub(crate) load: PathBuf,
    /// Writes the CA and the certificates.
    pub(crate) certs: PathBuf,
    /// Hosts agents as well, in the next build of the program.
    pub(crate) node_next: PathBuf,
    /// Asks what only the next build can answer.
    pub(crate) ask_next: PathBuf,
}

/// Builds the examples of dist-agent and asks cargo where it put them.
///
/// # Errors
/// The build failed, an example is missing, or the demo was interrupted.
pub(crate) fn build(inbox: &Inbox, screen: &Screen) -> Result<Programs, Box<dyn Error>> {
    let quiet = if io::stdout().is_terminal() { "" } else { "--quiet" };
    let line = format!("build {quiet} --locked --release --package dist-agent --examples");
    let cargo = Invocation::cargo(&line);
    screen.say(&format!("building: {cargo}"));
    let told = cargo.clone().with_arguments(vec!["--message-format=json-render-diagnostics".to_owned()]);
    let program = Program::start("cargo", 0, told.command(), None, inbox)?;
    let deadline = Instant::now() + BUILD_MAX;
    let mut built = Vec::new();
    loop {
        match inbox.next(deadline)? {
            Some(Event::Line { line, .. }) => built.extend(executable(&line)),
            Some(_) => break,
            None => return Err(format!("no end after {BUILD_MAX:?}: {cargo}").into()),
        }
    }
    let status = program.wait()?;
    if !status.success() {
        return Err(format!("the build ended with {status}; to repeat it: {cargo}").into());
    }
    let find = |wanted: &str| {
        let found = built.iter().find(|(name, _)| name == wanted).map(|(_, path)| path.clone());
        found.ok_or_else(|| format!("dist-agent has no example {wanted}"))
    };
    Ok(Programs {
        node: find("node")?,
        load: find("load")?,
        certs: find("certs")?,
        node_next: find("node_next")?,
        ask_next: find("ask_next")?,
    })
}

/// The example that a line of cargo tells to be built: its name and where it is.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let target = message.get("target")?;
    let example = target.get("kind")?.as_array()?.iter().any(|kind| kind == "example");
    let path = message.get("executable")?.as_str()?;
    example.then_some((target.get("name")?.as_str()?.to_owned(), PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_example_is_read_from_what_cargo_tells() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"node"},"executable":"x/node"}"#;
        assert_eq!(executable(line), Some(("node".to_owned(), PathBuf::from("x/node"))));
        assert_eq!(executable(&line.replace("example", "lib")), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("words"), None);
    }
}
