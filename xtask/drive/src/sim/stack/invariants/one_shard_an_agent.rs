//! No agent is active in two shards: a shard that has given an agent up serves it no more.

use std::collections::BTreeMap;

use super::Shards;

/// # Errors
///
/// An agent that two shards serve.
pub(in crate::sim::stack) fn one_shard_an_agent(shards: &Shards) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for (group, shard) in shards {
        let serves = |hash: u64| shard.serves.is_some_and(|range| range.contains(hash));
        for (_, key) in shard.keys.iter().filter(|(hash, _)| serves(*hash)) {
            if let Some(other) = found.insert(&**key, group) {
                return Err(format!("the agent {} is active in {other} and in {group}", key.escape_ascii()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{giving, range, serving, shards};
    use super::*;

    #[test]
    fn an_agent_that_is_active_in_two_shards_is_found() {
        let (one, other) = (serving(range(0, 99), &[5, 60]), serving(range(50, 99), &[60]));
        let given = giving(&one, range(50, 99));
        assert_eq!(one_shard_an_agent(&shards(&[given, other.clone()])), Ok(()));
        assert!(one_shard_an_agent(&shards(&[one, other])).unwrap_err().contains("60 is active in"));
    }
}
