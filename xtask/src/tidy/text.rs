//! Rules about one file at a time.

use super::Source;
use super::code::{without_tests, without_text};

/// The longest Rust file, in lines.
const LINES_MAX: usize = 600;

/// Code that must not go in, and why.
const BANNED_CODE: [(&str, &str); 6] = [
    ("todo!", "unfinished"),
    ("unimplemented!", "unfinished"),
    ("dbg!", "left over from debugging"),
    ("#[ignore", "a test that nobody runs; mend it or remove it"),
    ("fn test_", "a test's name is a sentence about behaviour"),
    ("unsafe {", "no unsafe code"),
];

/// File names that say nothing about what is in the file.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "manager", "misc", "common"];

/// What excuses a file from the rule on `.unwrap()`.
const EXCUSED_UNWRAP: &str = "clippy::unwrap_used,";

/// Folders of some machine: the first part of an absolute path.
const MACHINE_FOLDERS: [&str; 5] = ["work", "tmp", "home", "root", "Users"];

/// Everything in this file that breaks a rule.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let mut found = machine_paths(&source.text);
    if source.path.ends_with(".rs") {
        let code = without_text(&source.text);
        found.extend(length(&source.text));
        found.extend(opening(&source.text));
        found.extend(name(&source.path));
        found.extend(banned_code(&code));
        // A whole file may be excused, by an attribute that clippy holds to a reason.
        if !is_test(&source.path) && !source.text.contains(EXCUSED_UNWRAP) {
            found.extend(unwraps(&without_tests(&code)));
        }
    }
    found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", source.path)).collect()
}

/// What is wrong, at which line.
type Found = (usize, String);

fn length(text: &str) -> Option<Found> {
    let lines = text.lines().count();
    (lines > LINES_MAX).then(|| (lines, format!("{lines} lines, at most {LINES_MAX}: split it by noun")))
}

fn opening(text: &str) -> Option<Found> {
    let documented = text.starts_with("//! ") || text.starts_with("#![doc = include_str!(");
    (!documented).then(|| (1, "a file opens with //! and why it exists".to_owned()))
}

fn name(path: &str) -> Option<Found> {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    // A folder may be named so, as cargo wants of `tests/common/mod.rs`.
    EMPTY_NAMES.contains(&stem).then(|| (1, format!("the name {stem} says nothing: name the noun it holds")))
}

fn banned_code(code: &str) -> Vec<Found> {
    let at = |(line, text): (usize, &str)| -> Vec<Found> {
        let here = |(banned, _): &&(&str, &str)| has_word(text, banned);
        BANNED_CODE.iter().filter(here).map(|(banned, why)| (line, format!("{banned}: {why}"))).collect()
    };
    numbered(code).flat_map(at).collect()
}

fn unwraps(code: &str) -> Vec<Found> {
    let what = || ".unwrap() outside tests: expect(\"why this holds\") or an error".to_owned();
    numbered(code).filter(|(_, text)| text.contains(".unwrap()")).map(|(line, _)| (line, what())).collect()
}

fn machine_paths(text: &str) -> Vec<Found> {
    let first = |line: &str| {
        let holds = |folder: &&str| has_path(line, folder);
        MACHINE_FOLDERS.into_iter().find(holds)
    };
    let what = |folder| format!("/{folder}/...: a path of some machine");
    numbered(text).filter_map(|(line, text)| first(text).map(|folder| (line, what(folder)))).collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Whether `text` holds `word`, not as the end of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(inside))
}

/// Whether `text` holds an absolute path that starts with `folder`.
fn has_path(text: &str, folder: &str) -> bool {
    let relative = |c: char| c.is_alphanumeric() || "_-./$}~*:".contains(c);
    let start = format!("/{folder}/");
    text.match_indices(&start).any(|(at, _)| !text[..at].ends_with(relative))
}

/// Whether a file holds nothing but tests.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "benches" || part == "tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> String {
        check(&Source { path: path.to_owned(), text: text.to_owned() }).join("\n")
    }

    #[test]
    fn a_file_that_follows_the_rules_passes() {
        assert_eq!(found("a/src/b.rs", "//! Why.\nfn main() {}\n"), "");
        assert_eq!(found("a/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n"), "");
    }

    #[test]
    fn a_file_may_have_600_lines_and_no_more() {
        assert_eq!(found("a/src/b.rs", &"//! Why.\n".repeat(600)), "");
        assert!(found("a/src/b.rs", &"//! Why.\n".repeat(601)).starts_with("a/src/b.rs:601: 601 lines"));
        assert_eq!(found("a/README.md", &"words\n".repeat(601)), "");
    }

    #[test]
    fn a_file_says_why_it_exists() {
        assert!(found("a/src/b.rs", "fn main() {}\n").contains(":1: a file opens with //!"));
        assert!(found("a/src/utils.rs", "//! Why.\n").contains("the name utils says nothing"));
    }

    #[test]
    fn unfinished_and_debugging_code_is_found_in_code_only() {
        for banned in
            ["todo!()", "unimplemented!()", "dbg!(x)", "#[ignore]", "#[ignore = \"slow\"]", "fn test_it()"]
        {
            assert!(
                found("a/src/b.rs", &format!("//! Why.\n{banned}\n")).contains("a/src/b.rs:2: "),
                "{banned}"
            );
        }
        assert_eq!(found("a/src/b.rs", "//! Why: no todo!\nlet s = \"dbg!(x)\"; my_dbg!(x);\n"), "");
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert!(
            found("a/src/b.rs", "//! Why.\nlet a = b.unwrap();\n").contains(":2: .unwrap() outside tests")
        );
        assert!(found("a/examples/b.rs", "//! Why.\nlet a = b.unwrap();\n").contains(":2: "));
        assert_eq!(found("a/tests/b.rs", "//! Why.\nlet a = b.unwrap();\n"), "");
        let excused = "//! Why.\n#![allow(clippy::unwrap_used, reason = \"a bench\")]\nlet a = b.unwrap();\n";
        assert_eq!(found("a/examples/b.rs", excused), "");
        let with_tests = "//! Why.\n#[cfg(test)]\nmod tests {\n fn f() { b.unwrap(); }\n}\n";
        assert_eq!(found("a/src/b.rs", with_tests), "");
        assert!(found("a/src/b.rs", &format!("{with_tests}fn g() {{ b.unwrap(); }}\n")).contains(":6: "));
    }

    #[test]
    fn paths_of_some_machine_are_found_in_any_text() {
        for folder in MACHINE_FOLDERS {
            assert!(
                found("a/README.md", &format!("see `/{folder}/x`\n")).starts_with("a/README.md:1: "),
                "{folder}"
            );
            assert!(found("a/Cargo.toml", &format!("path = \"/{folder}/x\"\n")).contains(":1: "), "{folder}");
            assert_eq!(
                found("a/README.md", &format!("https://example.org/{folder}/x, some/{folder}/x\n")),
                ""
            );
        }
    }
}
