//! A committed entry stands in the logs of a majority of those whose votes count.

use std::collections::BTreeMap;

use rafted_value::MemberId;

use super::chronicle::Known;
use super::log::Link;

/// Whether a majority of one of `memberships` has an entry: that of the committing leader before its turn, or after it.
///
/// # Errors
///
/// Who has it, when it is no majority.
pub(super) fn committed_on_a_quorum(
    members: &BTreeMap<MemberId, Known>,
    memberships: [&[MemberId]; 2],
    index: u64,
    link: Link,
) -> Result<(), String> {
    // Who has begun behind it has it in what it began with.
    let has = |member: &&MemberId| {
        let log = members.get(member).and_then(|known| known.log.as_ref());
        log.is_some_and(|log| log.at(index) == Some(link) || log.first() > index)
    };
    let majority = |voters: &[MemberId]| 2 * voters.iter().filter(has).count() > voters.len();
    if memberships.iter().any(|voters| majority(voters)) {
        return Ok(());
    }
    let voters = memberships[1];
    let having: Vec<&MemberId> = voters.iter().filter(has).collect();
    Err(format!("commits entry {index} of term {} that only {having:?} of {voters:?} have", link.term))
}

#[cfg(test)]
mod tests {
    use super::super::log::Log;
    use super::*;

    #[test]
    fn an_entry_that_too_few_have_is_found() {
        let mut log = Log::from(1, Link::root(1, 1));
        let short = Known { log: Some(log.clone()), ..Known::default() };
        let link = log.put(2, 1, 20).unwrap();
        let long = Known { log: Some(log), ..Known::default() };
        let [one, two, three] = [1, 2, 3].map(MemberId);
        let mut members = BTreeMap::from([(one, long), (two, short)]);
        let voters = [one, two, three];
        let check = |members: &_| committed_on_a_quorum(members, [&voters, &voters], 2, link);
        assert!(check(&members).unwrap_err().contains("commits entry 2"));
        members.get_mut(&two).unwrap().log.as_mut().unwrap().put(2, 1, 20).unwrap();
        check(&members).unwrap();
    }
}
