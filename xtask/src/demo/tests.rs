//! The demo with scripts in the place of its programs: what it does to them, and that none is left.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use crate::workspace;

use super::build::Programs;
use super::event::{Event, Inbox};
use super::folder::Folder;
use super::options::Options;
use super::play::Play;
use super::screen::Screen;
use super::stage::{Pace, Stage};
use super::verdict::Verdict;

/// What a demo came to, and how often each program was started.
struct Played {
    verdict: Result<Verdict, Box<dyn Error>>,
    starts: BTreeMap<String, usize>,
}

/// Plays a demo of two seconds with the scripts, and checks that no process and no certificate is missing or left.
fn play(scenario: &str, no_kill: bool, with_events: impl FnOnce(Sender<Event>)) -> Played {
    let options = Options { nodes: 3, agents: 50, clients: 4, seconds: 2, no_kill, keep: false };
    let scripts = workspace::root().join("xtask/testdata/demo");
    let script = |name: &str| scripts.join(name);
    let programs = Programs {
        node: script("node"),
        load: script("load"),
        certs: script("certs"),
        node_next: script("node"),
        ask_next: script("ask"),
    };
    let pace = Pace {
        down: Duration::from_millis(200),
        wait_max: Duration::from_secs(10),
        stop_max: Duration::from_secs(10),
    };
    let pace =
        if scenario == "never-hosts" { Pace { wait_max: Duration::from_secs(2), ..pace } } else { pace };
    let folder = Folder::new(false).expect("temporary files can be written");
    fs::write(folder.path().join("scenario"), scenario).expect("the folder is ours");
    let (events, receiver) = channel();
    with_events(events.clone());
    let screen = Screen::new(events.clone());
    let inbox = Inbox::new(events, receiver);
    let stage = Stage { programs, pace, folder: &folder, inbox: &inbox, screen: &screen };
    let verdict = Play::new(stage, &options).run();

    let certificates =
        fs::read_to_string(folder.path().join("certificates")).expect("certificates were made");
    assert_eq!(certificates, "node-1\nnode-2\nnode-3\nload\n");
    let mut starts = BTreeMap::new();
    for line in fs::read_to_string(folder.path().join("starts")).unwrap_or_default().lines() {
        let (name, pid) = line.split_once(' ').expect("a start is a name and a process id");
        *starts.entry(name.to_owned()).or_default() += 1;
        let alive = Command::new("sh").arg("-c").arg(format!("kill -0 {pid} 2>&-")).status();
        assert!(!alive.expect("there is a shell").success(), "{name} with process id {pid} is left behind");
    }
    Played { verdict, starts }
}

fn message(played: &Played) -> String {
    played.verdict.as_ref().expect_err("the demo must not succeed").to_string()
}

#[test]
fn the_node_that_leads_most_is_killed_and_started_again() {
    let played = play("all is well", false, drop);
    let verdict = played.verdict.unwrap();
    assert_eq!(verdict.agents, 50);
    assert_eq!(verdict.killed.as_ref().unwrap().0, "node-2");
    assert!(verdict.judge().is_ok());
    let starts: Vec<(&str, usize)> =
        played.starts.iter().map(|(name, &starts)| (name.as_str(), starts)).collect();
    assert_eq!(starts, [("load", 1), ("node-1", 1), ("node-2", 2), ("node-3", 1)]);
    let table = verdict.table().to_string();
    for shown in ["10,000", "2.1 ms", "312 ms", "node-2", "lost"] {
        assert!(table.contains(shown), "{shown} is missing in\n{table}");
    }
}

#[test]
fn nobody_is_killed_when_all_are_to_be_spared() {
    let played = play("all is well", true, drop);
    assert!(played.verdict.unwrap().killed.is_none());
    assert_eq!(played.starts["node-2"], 1);
}

#[test]
fn a_lost_or_doubled_command_is_a_failure() {
    let lost = play("loses", true, drop).verdict.unwrap().judge().unwrap_err();
    assert_eq!(lost.to_string(), "1 acknowledged commands lost, 0 doubled");
    let doubled = play("doubles", true, drop).verdict.unwrap().judge().unwrap_err();
    assert_eq!(doubled.to_string(), "0 acknowledged commands lost, 1 doubled");
}

#[test]
fn a_node_that_ends_by_itself_is_a_failure() {
    let played = play("node-ends", false, drop);
    assert!(message(&played).contains("ended by itself with exit status: 3"));
    assert!(!played.starts.contains_key("load"));
}

#[test]
fn a_killed_node_that_never_hosts_a_group_again_is_a_failure() {
    let played = play("never-hosts", false, drop);
    assert!(message(&played).starts_with("node-2 hosts no group"));
}

#[test]
fn an_interrupt_ends_the_demo_and_leaves_no_process() {
    let played = play("all is well", false, |events| {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(1_200));
            drop(events.send(Event::Interrupted));
        });
    });
    assert_eq!(message(&played), "interrupted");
    assert!(played.starts.contains_key("load"));
}
