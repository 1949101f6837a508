//! The rules of the house that no compiler knows: each is a small pure function over text, with tests beside it.

mod code;
mod layers;
mod layout;
mod tables;
mod text;

use std::fs;
use std::io;
use std::path::Path;

use crate::Outcome;
use crate::workspace;

/// One text file of the tree.
pub(crate) struct Source {
    /// The path from the root, with `/` between its parts.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

/// The endings of the files that the rules read.
const TEXT_ENDINGS: [&str; 7] = [".rs", ".md", ".toml", ".txt", ".yml", ".yaml", ".sh"];

/// `cargo xtask tidy`.
///
/// # Errors
/// Tells how many rules are broken, after having printed each with file and line.
pub(crate) fn run() -> Outcome {
    let found = check_tree()?;
    found.iter().for_each(|line| println!("{line}"));
    match found.len() {
        0 => {
            println!("tidy");
            Ok(())
        }
        broken => Err(format!("{broken} rules of the house are broken").into()),
    }
}

/// Everything in the tree that breaks a rule: `path:line: what`.
pub(crate) fn check_tree() -> io::Result<Vec<String>> {
    let root = workspace::root();
    let mut sources = Vec::new();
    gather(&root, "", &mut sources)?;
    let top_level = names(&root)?;
    Ok(check(&top_level, &sources))
}

/// Everything in these files that breaks a rule.
fn check(top_level: &[String], sources: &[Source]) -> Vec<String> {
    let mut found: Vec<String> = sources.iter().flat_map(text::check).collect();
    found.extend(layout::check(top_level, sources));
    found.extend(layers::check(sources));
    found.extend(tables::check(sources));
    found
}

/// Reads all text files below a folder; build results and git's own files are no part of the tree.
fn gather(folder: &Path, prefix: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    for name in names(folder)? {
        let path = folder.join(&name);
        let shown = format!("{prefix}{name}");
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() && name != "target" && name != ".git" {
            gather(&path, &format!("{shown}/"), sources)?;
        } else if kind.is_file()
            && (TEXT_ENDINGS.iter().any(|ending| name.ends_with(ending)) || prefix == ".ci/")
        {
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            sources.push(Source { path: shown, text });
        }
    }
    Ok(())
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
