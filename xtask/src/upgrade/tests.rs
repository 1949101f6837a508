//! The upgrade with scripts in the place of its programs.

use std::error::Error;
use std::fs;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::demo::build::Programs;
use crate::demo::event::Inbox;
use crate::demo::folder::Folder;
use crate::demo::screen::Screen;
use crate::demo::stage::{Pace, Stage};
use crate::workspace;

use super::Options;
use super::play::Play;
use super::verdict::Verdict;

/// What the upgrade came to, and the starts of all programs in their order.
fn play(scenario: &str) -> (Result<Verdict, Box<dyn Error>>, Vec<String>) {
    let options = Options { agents: 50, clients: 4, keep: false };
    let scripts = workspace::root().join("xtask/testdata/demo");
    let script = |name: &str| scripts.join(name);
    let programs = Programs {
        node: script("node"),
        load: script("load"),
        certs: script("certs"),
        node_next: script("node_next"),
        ask_next: script("ask"),
    };
    let limit = Duration::from_secs(if scenario == "never-hosts" { 2 } else { 10 });
    let pace = Pace { wait_max: limit, stop_max: limit, ..Pace::default() };
    let folder = Folder::new(false).expect("temporary files can be written");
    fs::write(folder.path().join("scenario"), scenario).expect("the folder is ours");
    let (events, receiver) = channel();
    let screen = Screen::new(events.clone());
    let inbox = Inbox::new(events, receiver);
    let stage = Stage { programs, pace, folder: &folder, inbox: &inbox, screen: &screen };
    let verdict = Play::new(stage, &options).run();
    let starts = fs::read_to_string(folder.path().join("starts")).unwrap_or_default();
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    (verdict, starts.lines().map(name).collect())
}

#[test]
fn each_node_is_replaced_once_the_one_before_is_whole() {
    let (verdict, mut starts) = play("all is well");
    let verdict = verdict.unwrap();
    verdict.judge().unwrap();
    starts[..3].sort();
    let wanted =
        ["node-1", "node-2", "node-3", "load", "ask", "next-node-1", "next-node-2", "next-node-3", "ask"];
    assert_eq!(starts, wanted);
    let replaced: Vec<_> = verdict.replaced.iter().map(|replaced| replaced.name.as_str()).collect();
    assert_eq!(replaced, ["node-1", "node-2", "node-3"]);
    let table = verdict.table().to_string();
    for shown in ["empty after 7 ms", "0 of 50", "50 of 50", "unknown agent type", "written"] {
        assert!(table.contains(shown), "{shown} is missing in\n{table}");
    }
}

#[test]
fn a_lost_command_and_a_state_in_the_old_form_are_failures() {
    let lost = play("loses").0.unwrap().judge().unwrap_err();
    assert_eq!(lost.to_string(), "1 acknowledged commands lost, 0 doubled");
    let old = play("not-migrated").0.unwrap().judge().unwrap_err();
    assert!(old.to_string().starts_with("the next build does not have all that it must"), "{old}");
}

#[test]
fn a_node_that_ends_with_what_it_holds_or_never_hosts_again_is_a_failure() {
    let error = play("not-drained").0.unwrap_err().to_string();
    assert_eq!(error, "node-1 ended with what it held");
    let error = play("never-hosts").0.unwrap_err().to_string();
    assert!(error.contains("node-1 of the next build holds all 12 groups"), "{error}");
}
