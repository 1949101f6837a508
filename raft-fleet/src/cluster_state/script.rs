//! Stories of the cluster state as text: `testdata/*.script`.
//!
//! A line that begins with `>` is a command or a question, what follows is the answer. `RAFT_FLEET_REWRITE=1` writes the
//! answers anew.

use std::fmt::Write;
use std::path::PathBuf;

use rafted_value::{Durability, encode};

use super::*;

/// The state of a story, and its time.
#[derive(Default)]
struct Story {
    state: ClusterState,
    now_ms: u64,
}

impl Story {
    fn tell(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["wait", ms] => {
                self.now_ms += number(ms);
                format!("it is {} ms", self.now_ms)
            }
            ["where", group] => {
                let name = name(group);
                let replicas = self.state.groups().get(&name).map_or(3, |entry| entry.replicas);
                format!("{:?}", self.state.desired(&name, replicas))
            }
            ["groups"] => lines(
                self.state
                    .groups()
                    .iter()
                    .map(|(name, entry)| format!("{name} is group {}, {:?}", entry.id, entry.state)),
            ),
            ["kept"] => lines(
                self.state
                    .kept()
                    .iter()
                    .map(|(name, kept)| format!("{name} of group {} on {:?}", kept.group, kept.holders)),
            ),
            ["nodes"] => lines(self.state.nodes().iter().map(|(node, entry)| {
                let suspected = if self.state.suspects().contains_key(node) { ", suspected" } else { "" };
                let active = if entry.active { "active" } else { "inactive" };
                format!("{node} is {} in {}, {active}{suspected}", entry.name, entry.zone)
            })),
            _ => self.apply(command(&words)),
        }
    }

    fn apply(&mut self, command: ClusterCommand) -> String {
        // As it is sent and stored.
        let command = postcard::from_bytes(&encode(&command)).expect("it was just encoded");
        match self.state.apply(self.now_ms, command) {
            ClusterReply::Refused(refusal) => format!("refused: {refusal}"),
            ClusterReply::Done => "done".into(),
            ClusterReply::Joined { superseded: None } => "joined".into(),
            ClusterReply::Joined { superseded: Some(former) } => format!("joined in the place of {former}"),
            ClusterReply::GroupAdded { id, founder } => format!("group {id}, to be founded on {founder}"),
            ClusterReply::GroupRemoved { id } => format!("group {id} is removed"),
        }
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "none".into() } else { lines.join("\n") }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

fn small(word: &str) -> u32 {
    u32::try_from(number(word)).expect("a number of a story")
}

fn node(word: &str) -> NodeId {
    NodeId(number(word))
}

fn name(word: &str) -> GroupName {
    GroupName::new(word).expect("a name of a story")
}

/// A node called `name-place` is at the address of that name, whatever its id.
fn info(id: &str, name: &str, zone: &str) -> NodeInfo {
    NodeInfo { node: node(id), name: name.into(), zone: zone.into(), address: format!("{name}:1") }
}

fn command(words: &[&str]) -> ClusterCommand {
    const CLUSTER: ClusterId = ClusterId(7);
    match *words {
        ["form"] => ClusterCommand::Form { cluster: CLUSTER, nodes: Vec::new(), cluster_members_max: 7 },
        ["join", id, name, zone] => ClusterCommand::Join { node: info(id, name, zone), cluster: CLUSTER },
        ["activate", id, name, zone] => {
            ClusterCommand::Activate { node: info(id, name, zone), cluster: CLUSTER }
        }
        ["leave", id] => ClusterCommand::Leave { node: node(id) },
        ["suspect", id, "by", by] => {
            ClusterCommand::Suspect { node: node(id), by: node(by), silent_ms: 3_000 }
        }
        ["hear", id, "by", by] => ClusterCommand::Hear { node: node(id), by: node(by) },
        ["purge", id, "by", by] => {
            ClusterCommand::PurgeSilent { node: node(id), by: node(by), window_ms: 60_000 }
        }
        ["give-up", id, "by", by] => ClusterCommand::Purge { node: node(id), by: node(by) },
        ["weigh", id, weight] => ClusterCommand::Weigh { node: node(id), weight: small(weight) },
        ["add", group, replicas, durability] => {
            let durability = if durability == "fsync" { Durability::Fsync } else { Durability::Memory };
            ClusterCommand::AddGroup {
                name: name(group),
                data: "counter".into(),
                replicas: small(replicas),
                config: GroupConfig { durability, ..GroupConfig::default() },
            }
        }
        ["ready", group, id] => ClusterCommand::GroupReady { name: name(group), id: GroupId(number(id)) },
        ["remove", group] => ClusterCommand::RemoveGroup { name: name(group) },
        ["delete", group] => ClusterCommand::DeleteGroup { name: name(group) },
        ["keep", id, group, rank] => {
            ClusterCommand::Keep { node: node(id), group: GroupId(number(group)), rank: number(rank) }
        }
        ["cleaned", id, group] => {
            ClusterCommand::CleanedUp { node: node(id), groups: vec![GroupId(number(group))] }
        }
        ["pin", group, ref zones @ ..] => ClusterCommand::Pin {
            name: name(group),
            zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
        },
        _ => panic!("no story says {words:?}"),
    }
}

/// Tells the story of a file again, and compares.
fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file);
    let expected = std::fs::read_to_string(&path).expect("the story exists");
    let (mut told, mut story) = (String::new(), Story::default());
    for line in expected.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(told, "{line}\n{}", story.tell(command)).expect("a string takes everything");
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(told, "{line}").expect("a string takes everything");
        }
    }
    if std::env::var_os("RAFT_FLEET_REWRITE").is_some() {
        return std::fs::write(&path, &told).expect("testdata is writable");
    }
    assert_eq!(told, expected, "in {}", path.display());
}

#[test]
fn nodes_come_are_suspected_and_go_as_the_story_says() {
    check("nodes.script");
}

#[test]
fn groups_are_added_founded_anew_removed_and_restored_as_the_story_says() {
    check("groups.script");
}
