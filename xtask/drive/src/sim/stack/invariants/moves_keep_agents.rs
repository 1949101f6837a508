//! Who takes a range in has the agents of it that there were when it was given up, no fewer and no others.

use dist_agent::raft_kv::KeyRange;
use dist_agent::raft_kv::sim::ShardShown;
use rafted_value::GroupId;

use super::Shards;

/// A group has come from one state to another; `shards` are those of the moment.
///
/// # Errors
///
/// When it serves a range from now on that nobody has given up, or with other agents.
pub(in crate::sim::stack) fn moves_keep_agents(
    group: GroupId,
    before: &ShardShown,
    now: &ShardShown,
    shards: &Shards,
) -> Result<(), String> {
    let Some(range) = before.receives.filter(|range| now.serves.is_some_and(|now| now.covers(*range))) else {
        return Ok(());
    };
    let gives = |shard: &&ShardShown| {
        shard.sends == Some(range) && shard.serves.is_none_or(|serves| !serves.overlaps(range))
    };
    let Some(sender) = shards.values().find(gives) else {
        return Err(format!("{group} serves the hashes {range}, which nobody has given up"));
    };
    let (given, taken) = (within(sender, range), within(now, range));
    if given == taken {
        return Ok(());
    }
    let names = |keys: &[&[u8]], others: &[&[u8]]| -> Vec<String> {
        let missing = keys.iter().filter(|key| !others.contains(key));
        missing.map(|key| key.escape_ascii().to_string()).collect()
    };
    let (lost, invented) = (names(&given, &taken), names(&taken, &given));
    Err(format!("{group} takes in the hashes {range} without {lost:?}, and with {invented:?}"))
}

fn within(shard: &ShardShown, range: KeyRange) -> Vec<&[u8]> {
    let keys = shard.keys.iter().filter(|(hash, _)| range.contains(*hash));
    keys.map(|(_, key)| &**key).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{giving, range, serving, shards};
    use super::*;

    const RECEIVER: GroupId = GroupId(2);

    #[test]
    fn agents_that_a_move_loses_or_invents_are_found() {
        let part = range(50, 99);
        let sender = serving(range(0, 99), &[5, 60, 70]);
        let waits = ShardShown { range: None, serves: None, receives: Some(part), ..serving(part, &[]) };
        let check = |sender: &ShardShown, keys: &[u64]| {
            let receiver = serving(part, keys);
            let all = shards(&[sender.clone(), receiver.clone()]);
            moves_keep_agents(RECEIVER, &waits, &receiver, &all)
        };
        let given = giving(&sender, part);
        assert_eq!(check(&given, &[60, 70]), Ok(()));
        assert!(check(&given, &[60]).unwrap_err().contains("without [\"storm\\\\x0070\"]"));
        assert!(check(&given, &[60, 70, 80]).unwrap_err().contains("with [\"storm\\\\x0080\"]"));
        assert!(check(&sender, &[60, 70]).unwrap_err().contains("nobody has given up"));
        assert_eq!(moves_keep_agents(RECEIVER, &waits, &waits, &shards(&[])), Ok(()));
    }
}
