//! What the README shows is what its example prints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use raft_fleet::{CallOptions, FleetConfig};

#[path = "../examples/three_nodes.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program, of which the test runs the story")]
mod three_nodes;

/// Text without its figures and ids: those change with every layer below.
fn without_figures(text: &str) -> String {
    let mut out = String::new();
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let figure = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).parse::<f64>().is_ok();
        let id = |word: &str| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            bare.len() > 10
                && bare.strip_prefix('n').is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()))
        };
        out.push_str(if figure(word) || id(word) { "#" } else { word });
        out.push(' ');
    }
    out
}

/// The block of the README that follows the example's command. `RAFT_FLEET_REWRITE=1` writes it anew.
#[test]
fn the_readme_shows_what_the_example_prints() {
    let said = three_nodes::story().expect("the walk goes well");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let command = "cargo run -p raft-fleet --example three_nodes --features sim";
    let (before, rest) = readme.split_once(command).expect("the README names the command");
    let (lead, rest) = rest.split_once("```text\n").expect("its output follows");
    let (shown, after) = rest.split_once("```").expect("the output ends");
    if std::env::var_os("RAFT_FLEET_REWRITE").is_some() {
        let fresh = format!("{before}{command}{lead}```text\n{said}```{after}");
        return std::fs::write(path, fresh).expect("the README can be written");
    }
    assert_eq!(without_figures(shown), without_figures(&said));
}

const README: &str = include_str!("../README.md");

/// The first cells of the rows below a heading, each name in backquotes with what the last cell says in its place.
fn fields(heading: &str) -> BTreeMap<String, String> {
    let (_, rest) = README.split_once(heading).expect("the README has this part");
    let rows = rest.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    let mut fields = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (names, says) = (cells[0].split(", "), cells[cells.len() - 1]);
        let names: Vec<&str> = names.collect();
        let says: Vec<&str> = if names.len() == 1 { vec![says] } else { says.split(", ").collect() };
        assert_eq!(names.len(), says.len(), "{row}");
        for (name, says) in names.iter().zip(says) {
            fields.insert(name.trim_matches('`').to_owned(), says.replace([' ', ','], ""));
        }
    }
    fields
}

/// Every field of a config is in the README, with its default where that is a number, a time or a word.
fn check_fields(heading: &str, config: &impl std::fmt::Debug) {
    let told = fields(heading);
    let text = format!("{config:#?}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let own = lines.filter(|line| !line.starts_with([' ', '}', ']', ')']));
    let mut names = BTreeSet::new();
    for (name, default) in own.filter_map(|line| line.split_once(": ")) {
        let default = default.trim_end_matches(',');
        names.insert(name.to_owned());
        let says = told.get(name).unwrap_or_else(|| panic!("{name} is not in the README"));
        let is_plain = !default.ends_with(['{', '(', '[', '}', ')']);
        match default {
            "None" | "[]" => assert!(says.starts_with("none"), "{name}: {says}"),
            "4294967295" => assert!(says.starts_with("nolimit"), "{name}: {says}"),
            _ if says.starts_with('`') => (),
            default if is_plain => assert_eq!(says, default, "{name}"),
            _ => (),
        }
    }
    assert!(names.len() > 5, "{text}");
    assert_eq!(told.into_keys().collect::<BTreeSet<_>>(), names, "the README has no others");
}

#[test]
fn the_readme_tells_every_setting_and_its_default() {
    check_fields("`FleetConfig`, one node's", &FleetConfig::default());
    check_fields("`CallOptions`, one command's", &CallOptions::default());
}

/// The names of all counters in the sources of a folder.
fn counters(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            counters(&path, found);
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("sources are text");
        for rest in source.split("metrics::").skip(1).filter_map(|rest| rest.split_once("!(\"")) {
            let kind = ["counter", "gauge", "histogram"].contains(&rest.0);
            found.extend(kind.then(|| rest.1.split('"').next().unwrap_or_default().to_owned()));
        }
    }
}

#[test]
fn the_readme_tells_every_metric_and_no_other() {
    let mut emitted = BTreeSet::new();
    counters(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut emitted);
    assert!(emitted.len() >= 5, "{emitted:?}");
    let told: BTreeSet<String> = fields("through the `metrics` facade").into_keys().collect();
    assert_eq!(told, emitted);
}
