//! The README tells every setting with its default.

use std::collections::{BTreeMap, BTreeSet};

use raft_kv::KvConfig;

/// The names in the first cells of the rows below a heading, each with what the last cell says in its place.
fn told() -> BTreeMap<String, String> {
    let (_, rest) =
        include_str!("../README.md").split_once("`KvConfig`,\n").expect("the README has this part");
    let rows = rest.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut told = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names: Vec<&str> = cells[0].split(", ").collect();
        let says: Vec<&str> = if names.len() == 1 { vec![cells[2]] } else { cells[2].split(", ").collect() };
        assert_eq!(names.len(), says.len(), "{row}");
        for (name, says) in names.iter().zip(says) {
            told.insert(name.trim_matches('`').to_owned(), says.replace([' ', ','], ""));
        }
    }
    told
}

#[test]
fn the_readme_tells_every_setting_and_its_default() {
    let told = told();
    let text = format!("{:#?}", KvConfig::default());
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let own = lines.filter(|line| !line.starts_with([' ', '}', ']', ')']));
    let mut names = BTreeSet::new();
    for (name, default) in own.filter_map(|line| line.split_once(": ")) {
        let default = default.trim_end_matches(',');
        names.insert(name.to_owned());
        let says = told.get(name).unwrap_or_else(|| panic!("{name} is not in the README"));
        if !says.starts_with('`') {
            assert_eq!(says, default, "{name}");
        }
    }
    assert!(names.len() > 15, "{text}");
    assert_eq!(told.into_keys().collect::<BTreeSet<_>>(), names, "the README has no others");
}
