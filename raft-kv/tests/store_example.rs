//! The example `store` as its user runs it: lines in, lines out, and the same values there after a restart.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program that is built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("it is in deps/ of its profile");
    let program = profile.join("examples").join(format!("store{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "no {}: examples are built with all tests, not with one", program.display());
    program
}

/// The program with what it keeps in this directory, if any.
fn start(directory: Option<&Path>) -> Child {
    let mut command = Command::new(program());
    command.args(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("it starts")
}

/// What it answers to these lines, with what it keeps in this directory, if any.
fn run(directory: Option<&Path>, lines: &str) -> Vec<String> {
    let mut child = start(directory);
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
    let answers = run(Some(directory.path()), lines);
    let wanted = ["new", "1", "set", "not set; it is 2", "set", "gone", "no value", "a", "1 keys"];
    assert_eq!(answers[..9], wanted);
    assert!(answers[9].contains("no shard 9"), "{}", answers[9]);
    assert!(answers[10].contains("max_keys is 0"), "{}", answers[10]);
    assert_eq!(run(Some(directory.path()), "get a\nsplit 0\n")[0], "2");
}

#[test]
fn the_store_answers_as_the_readme_says() {
    let (_, rest) = include_str!("../README.md").split_once("```text\n").expect("the README has a session");
    let (session, _) = rest.split_once("```").expect("it ends");
    let (typed, told): (Vec<&str>, Vec<&str>) = session.lines().partition(|line| line.starts_with("> "));
    assert!(typed.len() > 10, "{typed:?}");
    let typed: String = typed.iter().map(|line| format!("{}\n", &line[2..])).collect();
    assert_eq!(run(None, &typed), told);
}

#[test]
fn what_means_nothing_to_the_store_is_an_error_that_says_so() {
    let long = "k".repeat(4_097);
    let lines = format!(
        "set {long} 1\nset a {}\nfill x\nsplit -1\npolicy frob 1\nstop node-9\nstart node-1\nfrob\nget a\n",
        "v".repeat((1 << 20) + 1)
    );
    let answers = run(None, &lines);
    for (answer, says) in answers.iter().zip([
        "a key of 4097 bytes is over the keyspace's limit of 4096",
        "a value of 1048577 bytes is over the keyspace's limit of 1048576",
        "\"x\" is not a number",
        "\"-1\" is not a number",
        "there is no setting frob",
        "no node node-9 runs",
        "node-1 runs",
        "set KEY VALUE",
    ]) {
        assert!(answer.contains(says), "{answer} says nothing of {says}");
    }
    assert_eq!(answers.last().map(String::as_str), Some("no value"), "none of it did anything");
}

/// A node that was started where no majority was left once kept all further lines waiting for minutes, those included that
/// would have started the others.
#[test]
fn a_node_that_cannot_join_keeps_no_line_waiting() {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let mut child = start(Some(directory.path()));
    let mut input = child.stdin.take().expect("it is piped");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut told = output.lines().map(|line| line.expect("it is text")).skip(1);
    let lines = "set a 1\nstop node-1\nstop node-2\nstop node-3\nstart node-1\nstart node-1\nstop node-1\nstart node-2\n";
    input.write_all(lines.as_bytes()).expect("it listens");
    for wanted in [
        "new",
        "stopped",
        "stopped",
        "stopped",
        "node-1 is not part of the cluster after 10s; it goes on trying",
        "error: node-1 runs",
        "error: node-1 can be stopped when it is part of the cluster",
        "started",
        "node-1 is part of the cluster",
    ] {
        assert_eq!(told.next().as_deref(), Some(wanted));
    }
    input.write_all(b"get a\nquit\nget a\n").expect("it listens");
    assert_eq!(told.collect::<Vec<_>>(), ["1"], "and nothing behind `quit`");
    assert!(child.wait().expect("it ends").success());
}

/// `--help` once became a directory of that name.
#[test]
fn an_option_is_no_directory() {
    let within = tempfile::tempdir().expect("a directory for temporary files");
    let output = Command::new(program()).arg("--help").current_dir(&within).output().expect("it starts");
    assert!(!output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("usage: store [DIR]"), "{told}");
    assert_eq!(std::fs::read_dir(&within).expect("it is there").count(), 0, "nothing was made");
}
