//! Dependencies point down, and no crate reaches past the layer below it.

use toml::Table;

use super::Source;
use crate::workspace::CRATES;

/// Each crate and the crates of this tree that it may use.
const BELOW: [(&str, &[&str]); 7] = [
    ("dist-agent", &["raft-kv", "foretoken"]),
    ("raft-kv", &["raft-fleet"]),
    ("raft-fleet", &["rafted-value"]),
    ("rafted-value", &["batched-comm"]),
    ("batched-comm", &[]),
    ("foretoken", &[]),
    ("xtask", &[]),
];

/// Libraries that one crate hides from all others, and that crate.
const HIDDEN: [(&str, &str); 5] = [
    ("raft", "rafted-value"),
    ("protobuf", "rafted-value"),
    ("quinn", "batched-comm"),
    ("rustls", "batched-comm"),
    ("governor", "foretoken"),
];

/// Every dependency that points up, sideways or past a layer.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    BELOW.iter().flat_map(|&(name, below)| check_crate(sources, name, below)).collect()
}

fn check_crate(sources: &[Source], name: &str, below: &[&str]) -> Vec<String> {
    let path = format!("{name}/Cargo.toml");
    let Some(source) = sources.iter().find(|source| source.path == path) else {
        return vec![format!("{path}:1: missing")];
    };
    let manifest: Table = match source.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{path}:1: {}", error.to_string().replace('\n', " "))],
    };
    let wrong = |used: &String| {
        let of_the_tree = CRATES.contains(&used.as_str()) && used != name && !below.contains(&used.as_str());
        let hidden = HIDDEN.iter().any(|(library, owner)| library == used && *owner != name);
        of_the_tree || hidden
    };
    let mut used = dependencies(&manifest);
    used.retain(wrong);
    used.iter()
        .map(|used| format!("{path}:{}: {name} must not use {used}", line_of(&source.text, used)))
        .collect()
}

/// The packages behind all dependencies of a manifest, those of tests and of single platforms included.
fn dependencies(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(|target| target.as_table());
    let per_target =
        targets.into_iter().flat_map(|targets| targets.values()).filter_map(|target| target.as_table());
    let mut used = Vec::new();
    for holder in per_target.chain([manifest]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let of_kind = holder.get(kind).and_then(|kind| kind.as_table());
            for (name, value) in of_kind.into_iter().flatten() {
                let renamed = value.get("package").and_then(|package| package.as_str());
                used.push(renamed.unwrap_or(name).to_owned());
            }
        }
    }
    used
}

/// The line that names a dependency, for the reader to jump to.
fn line_of(text: &str, name: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(name)).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, manifest: &str) -> Vec<String> {
        let text = |crate_name: &str| if crate_name == name { manifest } else { "" };
        let sources: Vec<Source> = BELOW
            .iter()
            .map(|(of, _)| Source { path: format!("{of}/Cargo.toml"), text: text(of).to_owned() })
            .collect();
        check(&sources)
    }

    #[test]
    fn the_layer_below_and_strange_libraries_are_fine() {
        assert!(found("raft-kv", "[dependencies]\nraft-fleet.workspace = true\nserde = \"1\"\n").is_empty());
        let with_itself =
            "[dependencies]\nraft-kv.workspace = true\n[dev-dependencies]\ndist-agent = \"1\"\n";
        assert!(found("dist-agent", with_itself).is_empty());
    }

    #[test]
    fn a_dependency_that_skips_a_layer_is_named_with_its_line() {
        let skips = "[dependencies]\nserde = \"1\"\nrafted-value = { workspace = true }\n";
        assert_eq!(found("raft-kv", skips), ["raft-kv/Cargo.toml:3: raft-kv must not use rafted-value"]);
    }

    #[test]
    fn a_dependency_that_points_up_is_found_wherever_it_hides() {
        for hidden in [
            "[dev-dependencies]\ndist-agent.workspace = true\n",
            "[build-dependencies]\ndist-agent = \"1\"\n",
            "[target.'cfg(unix)'.dependencies]\ndist-agent = \"1\"\n",
            "[dependencies]\nagent = { package = \"dist-agent\", version = \"1\" }\n",
        ] {
            assert_eq!(found("rafted-value", hidden).len(), 1, "{hidden}");
        }
    }

    #[test]
    fn a_library_that_one_crate_hides_is_refused_to_others() {
        assert_eq!(found("raft-fleet", "[dependencies]\nraft = \"0.7\"\n").len(), 1);
        assert!(found("rafted-value", "[dependencies]\nraft = \"0.7\"\n").is_empty());
    }

    #[test]
    fn xtask_is_built_without_the_crates_it_drives() {
        assert_eq!(found("xtask", "[dependencies]\nforetoken.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_manifest_that_is_no_toml_is_an_error_line() {
        assert_eq!(found("raft-kv", "[dependencies\n").len(), 1);
    }
}
