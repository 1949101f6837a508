//! The example `store` as its user runs it: lines in, lines out, and the same values there after a restart.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program that is built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("it is in deps/ of its profile");
    let program = profile.join("examples").join(format!("store{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "no {}: examples are built with all tests, not with one", program.display());
    program
}

/// What it answers to these lines.
fn run(directory: &Path, lines: &str) -> Vec<String> {
    let mut child = Command::new(program())
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(lines.as_bytes()).expect("it listens");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).expect("it is text");
    lines.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn the_store_answers_its_lines_and_keeps_what_it_was_told() {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let lines =
        "set a 1\nget a\ncas a 1 2\ncas a 1 3\ncas b - 4\ndel b\nget b\nscan\nsplit 9\npolicy max_keys 0\n";
    let answers = run(directory.path(), lines);
    let wanted = ["new", "1", "set", "not set; it is 2", "set", "gone", "no value", "a", "1 keys"];
    assert_eq!(answers[..9], wanted);
    assert!(answers[9].contains("no shard 9"), "{}", answers[9]);
    assert!(answers[10].contains("max_keys is 0"), "{}", answers[10]);
    assert_eq!(run(directory.path(), "get a\nsplit 0\n")[0], "2");
}
