//! Records that move between groups.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ALL: RangeInclusive<u64> = 0..=u64::MAX;

fn command(session: u64, sequence: u64, key_hash: u64, retry_until_ms: u64) -> Command {
    let session = SessionId::new(0, session);
    Command { session, sequence, acknowledged: 1, retry_until_ms, key_hash, payload: Bytes::new() }
}

fn reply(text: &str) -> Outcome {
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

fn admit(sessions: &mut Sessions, stamp_ms: u64, command: &Command) -> Admission {
    sessions.admit(GroupId(1), &GroupConfig::default(), stamp_ms, command)
}

/// All pages of one group's records, taken in by another.
fn carry(
    from: &mut Sessions,
    mut stamp: u64,
    to: &mut Sessions,
    to_stamp: &mut u64,
    hashes: RangeInclusive<u64>,
    bytes_max: usize,
) -> usize {
    let (mut after, mut pages) = (None, 0);
    loop {
        let page = Records::new(from, &mut stamp).export(hashes.clone(), after, bytes_max);
        Records::new(to, to_stamp).import(&page.bytes).unwrap();
        pages += 1;
        after = page.next;
        if after.is_none() {
            return pages;
        }
    }
}

/// In the original a split lost what the shard remembered, and a retry ran twice.
#[test]
fn a_record_goes_with_its_key_and_a_retry_there_gets_its_reply() {
    let (mut old, mut new, mut stamp) = (Sessions::default(), Sessions::default(), 0);
    let (moved, stayed) = (command(1, 5, 700, 1000), command(1, 6, 300, 1000));
    old.record(10, &moved, reply("moved"));
    old.record(10, &stayed, reply("stayed"));
    carry(&mut old, 10, &mut new, &mut stamp, 500..=u64::MAX, 1 << 20);
    assert_eq!(admit(&mut new, 20, &moved), Admission::Answer(Ok(Bytes::from("moved"))));
    assert_eq!(admit(&mut new, 20, &stayed), Admission::Run);
    assert_eq!(new.replies(), 1);
    assert_eq!(old.replies(), 2, "the old group still answers retries that come late");
}

/// A group with an earlier clock would have run a command again whose record the other let expire.
#[test]
fn stamped_time_goes_along_so_that_an_expired_command_stays_refused() {
    let (mut old, mut new, mut stamp) = (Sessions::default(), Sessions::default(), 100);
    let late = command(1, 1, 700, 1000);
    old.record(10, &late, reply("late"));
    old.expire(5000);
    carry(&mut old, 5000, &mut new, &mut stamp, ALL, 1 << 20);
    assert_eq!(stamp, 5000);
    assert!(matches!(admit(&mut new, stamp, &late), Admission::Answer(Err(CommandError::Unknown(_)))));
}

#[test]
fn the_higher_acknowledged_mark_wins() {
    let (mut old, mut new, mut stamp) = (Sessions::default(), Sessions::default(), 0);
    new.record(10, &command(1, 1, 700, 1000), reply("one"));
    old.record(10, &Command { acknowledged: 4, ..command(1, 4, 700, 1000) }, reply("four"));
    carry(&mut old, 10, &mut new, &mut stamp, ALL, 1 << 20);
    assert_eq!(new.replies(), 1);
    let one = admit(&mut new, 20, &command(1, 1, 700, 1000));
    assert!(matches!(one, Admission::Answer(Err(CommandError::Unknown(_)))), "{one:?}");
}

#[test]
fn a_page_that_does_not_decode_changes_nothing() {
    let (mut sessions, mut stamp) = (Sessions::default(), 7);
    assert!(Records::new(&mut sessions, &mut stamp).import(&[0, 9, 200]).is_err());
    assert_eq!((sessions, stamp), (Sessions::default(), 7));
}

/// Pages travel between nodes of two versions.
#[test]
fn the_bytes_of_a_page_never_change() {
    let (mut sessions, mut stamp) = (Sessions::default(), 9);
    sessions.record(9, &command(1, 2, 3, 4000), reply("r"));
    let page = Records::new(&mut sessions, &mut stamp).export(ALL, None, 1 << 20);
    let id = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let golden = [&[0, 9, 1][..], &id, &[1, 0xa0, 0x1f, 1, 2, 0xa0, 0x1f, 3, 0, 1, b'r']].concat();
    assert_eq!(page.bytes, golden);
    assert_eq!(page.next, None);
}

proptest! {
    /// Any page size carries every live record of the range, exactly, and carrying twice is carrying once.
    #[test]
    fn pages_carry_all_records_of_a_range(
        commands in proptest::collection::btree_map((0u64..4, 1u64..30), (0u64..100, 50u64..3000), 0..60),
        bytes_max in 1usize..400,
    ) {
        let (mut old, mut new, mut stamp) = (Sessions::default(), Sessions::default(), 0);
        for ((session, sequence), (hash, until)) in &commands {
            old.record(10, &command(*session, *sequence, *hash, *until), reply(&format!("{session}/{sequence}")));
        }
        for _ in 0..2 {
            carry(&mut old, 60, &mut new, &mut stamp, 50..=u64::MAX, bytes_max);
            let mut carried = BTreeSet::new();
            for ((session, sequence), (hash, until)) in &commands {
                let answer = admit(&mut new, 60, &command(*session, *sequence, *hash, *until));
                let expected = if *hash >= 50 && answer != Admission::Run && *until >= 60 {
                    carried.insert((session, sequence));
                    Some(Admission::Answer(Ok(Bytes::from(format!("{session}/{sequence}")))))
                } else if *hash < 50 && *until >= 60 {
                    Some(Admission::Run)
                } else {
                    None
                };
                if let Some(expected) = expected {
                    prop_assert_eq!(answer, expected);
                }
            }
            let live = commands.values().filter(|(hash, until)| *hash >= 50 && *until >= 60).count();
            prop_assert_eq!(carried.len(), live);
            new.expire(61 + 1000);
            for session in new.sessions.values() {
                prop_assert!(session.last_until_ms >= 1061);
            }
            prop_assert_eq!(new.due.len(), new.sessions.len());
            let kept: u64 = new.sessions.values().map(|session| session.kept.len() as u64).sum();
            prop_assert_eq!(kept, new.replies());
            new = Sessions::default();
        }
    }
}
