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

/// What was over hid what came for it, and was forgotten itself a moment later.
#[test]
fn a_number_that_was_used_anew_goes_along_where_the_record_of_its_first_use_is_still_there() {
    let (mut here, mut there, mut stamp) = (Sessions::default(), Sessions::default(), 999);
    here.record(10, &command(1, 5, 700, 1000), reply("first"));
    there.record(1500, &command(1, 5, 700, 9000), reply("anew"));
    carry(&mut there, 1500, &mut here, &mut stamp, ALL, 1 << 20);
    assert_eq!(here.replies(), 1);
    here.expire(stamp);
    assert_eq!(
        admit(&mut here, stamp, &command(1, 5, 700, 9000)),
        Admission::Answer(Ok(Bytes::from("anew")))
    );
    // The older of the two takes nothing back.
    let mut old = Sessions::default();
    old.record(10, &command(1, 5, 700, 8000), reply("older"));
    carry(&mut old, 10, &mut here, &mut stamp, ALL, 1 << 20);
    assert_eq!(
        admit(&mut here, stamp, &command(1, 5, 700, 9000)),
        Admission::Answer(Ok(Bytes::from("anew")))
    );
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

/// A small reply before a large one once made a page that was larger than a command may be, and the texts of refusals were
/// not counted: the keys of such records could not move.
#[test]
fn a_page_has_more_than_was_asked_for_only_where_one_record_alone_has() {
    let mut old = Sessions::default();
    for session in 0..40 {
        let refused = Err(NotApplied::Refused("r".repeat(300)));
        let large = reply(&"x".repeat(if session % 2 == 0 { 900 } else { 3000 }));
        old.record(10, &command(session, 1, 700, 9000), refused);
        old.record(10, &command(session, 2, 700, 9000), large);
    }
    let (mut new, mut stamp, mut to_stamp, mut after) = (Sessions::default(), 10, 0, None);
    loop {
        let page = Records::new(&mut old, &mut stamp).export(ALL, after, 1000);
        let before = new.replies();
        Records::new(&mut new, &mut to_stamp).import(&page.bytes).unwrap();
        let records = new.replies() - before;
        assert!(page.bytes.len() <= 1100 || records == 1, "{} bytes of {records} records", page.bytes.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(new.replies(), 80);
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

/// Every page of what has changed since, taken in by another group; what to go on with next time.
fn carry_since(
    from: &mut Sessions,
    mut stamp: u64,
    since_ms: u64,
    to: &mut Sessions,
    bytes_max: usize,
) -> (u64, usize) {
    let (mut after, mut bytes, mut to_stamp) = (None, 0, stamp);
    loop {
        let page = Records::new(from, &mut stamp).export_since(since_ms, ALL, after, bytes_max);
        Records::new(to, &mut to_stamp).import(&page.bytes).unwrap();
        bytes += page.bytes.len();
        after = page.next;
        if after.is_none() {
            return (page.stamp_ms, bytes);
        }
    }
}

/// The pause of a move once grew with all the replies that clients had not acknowledged.
#[test]
fn what_was_carried_ahead_is_not_carried_again() {
    let (mut old, mut new) = (Sessions::default(), Sessions::default());
    for session in 0..1000 {
        old.record(10, &command(session, 1, 700, 9000), reply("a reply"));
    }
    let (since, all) = carry_since(&mut old, 11, 0, &mut new, 500);
    old.record(12, &command(7, 2, 700, 9000), reply("another"));
    let (since, little) = carry_since(&mut old, 12, since, &mut new, 500);
    assert!(all > 20_000 && little < 100, "{all} and {little} bytes");
    assert_eq!(admit(&mut new, 12, &command(7, 2, 700, 9000)), Admission::Answer(Ok(Bytes::from("another"))));
    // A member that has the records from a snapshot does not know what is new in it, and carries all.
    let mut restored = restore(&old, 13);
    assert!(carry_since(&mut restored, 13, since, &mut Sessions::default(), 500).1 >= all);
}

/// A member that had come back from a snapshot carried the whole table in each pass of a move, and once more while nobody
/// served the range: a split of 4,800 sessions had not ended after three minutes.
#[test]
fn a_member_that_was_restored_carries_nothing_twice() {
    let (mut old, mut new) = (Sessions::default(), Sessions::default());
    for session in 0..1000 {
        old.record(10, &command(session, 1, 700, 9000), reply("a reply"));
    }
    let mut restored = restore(&old, 11);
    let (since, all) = carry_since(&mut restored, 12, 0, &mut new, 500);
    restored.record(13, &command(7, 2, 700, 9000), reply("another"));
    let (_, little) = carry_since(&mut restored, 13, since, &mut new, 500);
    assert!(all > 20_000 && little < 100, "{all} and {little} bytes");
    assert_eq!(admit(&mut new, 13, &command(7, 2, 700, 9000)), Admission::Answer(Ok(Bytes::from("another"))));
}

/// A member that has them from a snapshot made at that time.
fn restore(sessions: &Sessions, stamp_ms: u64) -> Sessions {
    postcard::from_bytes::<Sessions>(&encode(sessions)).unwrap().restored(stamp_ms)
}

#[derive(Clone, Debug)]
enum Happens {
    Command { session: u64, sequence: u64, acknowledged: u64 },
    Carry,
    Restore,
    Time(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0u64..3, 1u64..20, 0u64..20)
            .prop_map(|(session, sequence, acknowledged)| Happens::Command { session, sequence, acknowledged }),
        2 => Just(Happens::Carry),
        1 => Just(Happens::Restore),
        2 => (0u64..40).prop_map(Happens::Time),
    ]
}

proptest! {
    /// However often what is new was carried: the other group answers each command as the first one would.
    #[test]
    fn what_is_carried_bit_by_bit_is_all_of_it(
        steps in proptest::collection::vec(happens(), 0..80),
        bytes_max in 1usize..300,
    ) {
        let (mut old, mut new, mut stamp, mut since) = (Sessions::default(), Sessions::default(), 10, 0);
        for step in steps {
            match step {
                Happens::Command { session, sequence, acknowledged } => {
                    let acknowledged = acknowledged.min(sequence);
                    let command = Command { acknowledged, ..command(session, sequence, sequence, 3000) };
                    if admit(&mut old, stamp, &command) == Admission::Run {
                        old.record(stamp, &command, reply(&format!("{session}/{sequence}/{stamp}")));
                    }
                }
                Happens::Carry => since = carry_since(&mut old, stamp, since, &mut new, bytes_max).0,
                Happens::Restore => old = restore(&old, stamp),
                Happens::Time(ms) => stamp += ms,
            }
        }
        carry_since(&mut old, stamp, since, &mut new, bytes_max);
        for session in 0..3 {
            for sequence in 1..20 {
                let command = command(session, sequence, sequence, 3000);
                let command = Command { acknowledged: 0, ..command };
                prop_assert_eq!(admit(&mut new, stamp, &command), admit(&mut old, stamp, &command));
            }
        }
    }

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
