//! Rules about which files there are.

use super::Source;
use crate::workspace::CRATES;

/// What may lie at the top, besides the six crates, dot-files and licences.
const TOP_LEVEL: [&str; 5] = ["Cargo.toml", "Cargo.lock", "README.md", "xtask", "target"];

/// What every crate carries.
const CRATE_FILES: [&str; 2] = ["README.md", "CHANGELOG.md"];

/// The commands a newcomer must find in the first file they open.
const COMMANDS: [&str; 2] = ["cargo xtask demo", "cargo xtask ci"];

/// Everything about names at the top and files of crates that breaks a rule.
pub(crate) fn check(top_level: &[String], sources: &[Source]) -> Vec<String> {
    let mut found = strangers(top_level);
    found.extend(crate_files(sources));
    found.extend(commands(sources));
    found
}

fn strangers(top_level: &[String]) -> Vec<String> {
    let known = |name: &str| {
        TOP_LEVEL.contains(&name)
            || CRATES.contains(&name)
            || name.starts_with('.')
            || name.starts_with("LICENSE-")
    };
    let strangers = top_level.iter().filter(|name| !known(name));
    strangers
        .map(|name| format!("{name}:1: the top level is fixed: move it into the crate it serves"))
        .collect()
}

fn crate_files(sources: &[Source]) -> Vec<String> {
    let wanted = CRATES.iter().flat_map(|name| CRATE_FILES.map(|file| format!("{name}/{file}")));
    wanted.filter(|path| find(sources, path).is_none()).map(|path| format!("{path}:1: missing")).collect()
}

fn commands(sources: &[Source]) -> Vec<String> {
    let Some(readme) = find(sources, "README.md") else {
        return vec!["README.md:1: missing".to_owned()];
    };
    let missing = COMMANDS.iter().filter(|command| !readme.text.contains(*command));
    missing.map(|command| format!("README.md:1: does not show `{command}`")).collect()
}

fn find<'a>(sources: &'a [Source], path: &str) -> Option<&'a Source> {
    sources.iter().find(|source| source.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<Source> {
        let files = CRATES.iter().flat_map(|name| CRATE_FILES.map(|file| (format!("{name}/{file}"), "")));
        let readme = ("README.md".to_owned(), "cargo xtask demo, cargo xtask ci");
        let all = files.chain([readme]);
        all.map(|(path, text)| Source { path, text: text.to_owned() }).collect()
    }

    #[test]
    fn a_whole_tree_passes() {
        let top_level = [".git", "Cargo.lock", "LICENSE-MIT", "README.md", "dist-agent", "target"];
        assert_eq!(check(&top_level.map(str::to_owned), &whole()), Vec::<String>::new());
    }

    #[test]
    fn a_stranger_at_the_top_is_named() {
        let found = check(&["docs".to_owned(), "xtask".to_owned()], &whole());
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("docs:1: "));
    }

    #[test]
    fn a_missing_file_of_a_crate_is_named() {
        let mut sources = whole();
        sources.retain(|source| source.path != "raft-kv/CHANGELOG.md");
        assert_eq!(check(&[], &sources), ["raft-kv/CHANGELOG.md:1: missing"]);
    }

    #[test]
    fn the_first_page_shows_both_commands() {
        let mut sources = whole();
        sources.last_mut().unwrap().text = "cargo xtask ci".to_owned();
        assert_eq!(check(&[], &sources), ["README.md:1: does not show `cargo xtask demo`"]);
        sources.pop();
        assert_eq!(check(&[], &sources), ["README.md:1: missing"]);
    }
}
