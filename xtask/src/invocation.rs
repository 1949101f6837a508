//! A command line that can be run and can be printed for somebody to run again.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use crate::workspace;

/// A call of a program, from the root of the tree if not said otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Where it runs; `None` for the root of the tree.
    folder: Option<PathBuf>,
}

impl Invocation {
    /// Cargo with arguments that are separated by spaces.
    pub(crate) fn cargo(arguments: &str) -> Invocation {
        Invocation {
            program: "cargo".to_owned(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            environment: Vec::new(),
            folder: None,
        }
    }

    /// The same in a folder other than the root of the tree.
    pub(crate) fn in_folder(mut self, folder: PathBuf) -> Invocation {
        self.folder = Some(folder);
        self
    }

    /// The same with more arguments, taken as they are.
    pub(crate) fn with_arguments(mut self, arguments: Vec<String>) -> Invocation {
        self.arguments.extend(arguments);
        self
    }

    /// The same with a variable of the environment.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Invocation {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, ready to be run.
    pub(crate) fn command(&self) -> Command {
        // The cargo that runs this program, not another one that PATH may know.
        let program = if self.program == "cargo" { env::var("CARGO").ok() } else { None };
        let mut command = Command::new(program.unwrap_or_else(|| self.program.clone()));
        command.args(&self.arguments).current_dir(self.folder.clone().unwrap_or_else(workspace::root));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "{}", self.program)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

/// The word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_prints_as_a_line_that_a_shell_runs() {
        let doc = Invocation::cargo("doc  --no-deps").with_variable("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(doc.to_string(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
        let odd = Invocation::cargo("run").with_arguments(vec!["it's".to_owned(), String::new()]);
        assert_eq!(odd.to_string(), r"cargo run 'it'\''s' ''");
    }
}
