//! What is left to bring when a range changes hands.

use super::*;

const KEYS: u64 = 500;

/// The command of a session of its own that nobody acknowledges.
fn write(n: u64, text: &str) -> Command {
    let key = format!("key-{n}");
    let payload = ShardCommand::Command { key: key.as_bytes() }.encode(text.as_bytes());
    let (session, key_hash) = (SessionId::new(2, n), key::hash(key.as_bytes()));
    Command {
        session,
        sequence: text.len() as u64,
        acknowledged: 0,
        retry_until_ms: 90_000,
        key_hash,
        payload,
    }
}

/// The pause of a move once grew with all the replies that clients had not acknowledged, and with the keys.
#[test]
fn what_is_handed_over_in_the_pause_is_what_changed_just_before() {
    let (mut from, mut to) = (shard(KeyRange::ALL), Member { id: 1, ..Member::new() });
    for n in 0..KEYS {
        from.run(2, &write(n, "+x")).unwrap();
    }
    from.run(3, &write(KEYS, "+x")).unwrap();
    let range = KeyRange::part(1, 2);
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        MoveStep { move_id: 1, epoch: 1, step: steps }
    };
    from.tell(&ShardCommand::Send { step: step(), range, to: 1 }, &[]);
    to.tell(&ShardCommand::Receive { step: step(), range, value_size_max: u64::MAX }, &[]);
    let bytes_max = 1 << 20;
    let chunk = ShardQuery::Chunk { move_id: 1, from: range.first(), bytes_max }.encode(&[]);
    let (_, slots) = split_answer(&from.shard.query(&chunk).unwrap()).unwrap();
    let install = ShardCommand::Install { step: step(), cover: Cover::Range(range), last: false };
    to.tell(&install, &FinalHead::default().encode(&slots));
    let ask = RecordsAsk { since_ms: 0, after: None, bytes_max };
    let (reply, records) = from.tell(&ShardCommand::Records { step: step(), ask }, &[]);
    assert_eq!(reply, ShardReply::Records { stamp_ms: 3, next: None });
    let cover = Cover::Records { until_ms: Some(3) };
    let (reply, _) = to.tell(&ShardCommand::Install { step: step(), cover, last: false }, &records);
    let progress = Progress { copied: Some(u64::MAX), changes: 0, records_ms: 3 };
    assert_eq!(reply, ShardReply::Receiving(progress));
    assert_eq!((to.shard.status().keys, to.shard.class_counts().len()), (0, 0), "it is not served yet");

    let moved = (0..KEYS).filter(|n| range.contains(write(*n, "").key_hash));
    let changed: Vec<u64> = moved.clone().take(3).collect();
    for n in &changed {
        from.run(5, &write(*n, "+yz")).unwrap();
    }
    let records = RecordsAsk { since_ms: 3, after: None, bytes_max };
    let give_up = ShardCommand::GiveUp { step: step(), ask: FinalAsk { changes_after: 0, records } };
    let (reply, rest) = from.tell(&give_up, &[]);
    assert_eq!(reply, ShardReply::GivenUp { changes: 3, records_next: None, complete: true });
    assert!(
        slots.len() > 4_000 && rest.len() < 500,
        "{} bytes, and {} in the pause",
        slots.len(),
        rest.len()
    );
    assert_eq!(
        from.shard.class_counts().iter().map(|class| class.count).sum::<u64>(),
        KEYS + 1 - served(&from, range)
    );

    let last = ShardCommand::Install { step: step(), cover: Cover::Changes { to: 3 }, last: true };
    assert_eq!(to.tell(&last, &rest).0, ShardReply::Ended(Outcome::Done));
    assert_eq!(to.shard.status().keys, served(&to, range));
    for n in moved {
        assert_eq!(
            to.run(6, &write(n, "+x")).unwrap(),
            (ShardReply::Done, Bytes::new()),
            "key-{n} runs twice"
        );
    }
    for n in changed {
        assert_eq!(to.run(6, &write(n, "+yz")).unwrap(), (ShardReply::Done, Bytes::from("x")));
    }
}

fn served(member: &Member, range: KeyRange) -> u64 {
    member.shard.entries.count(range.hashes()).keys
}

/// What the leader says to a command at once, without the log.
fn turned_away(member: &Member, n: u64) -> Option<Elsewhere> {
    let reply = member.shard.turn_away(&write(n, "+x").payload)?;
    match split_reply(&reply).unwrap() {
        (ShardReply::Elsewhere(elsewhere), rest) if rest.is_empty() => Some(elsewhere),
        other => panic!("{other:?}"),
    }
}

/// Commands for a range that nobody served once went through the log to be told so, again and again, and held up what was
/// to end that.
#[test]
fn a_command_for_a_range_that_nobody_serves_is_turned_away_with_what_the_log_would_say() {
    let (mut from, mut to) = (shard(KeyRange::ALL), Member { id: 1, ..Member::new() });
    let range = KeyRange::part(1, 2);
    let moves = (0..).find(|n| range.contains(write(*n, "").key_hash)).unwrap();
    let stays = (0..).find(|n| !range.contains(write(*n, "").key_hash)).unwrap();
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        MoveStep { move_id: 1, epoch: 1, step: steps }
    };
    to.tell(&ShardCommand::Receive { step: step(), range, value_size_max: u64::MAX }, &[]);
    from.tell(&ShardCommand::Send { step: step(), range, to: 1 }, &[]);
    let coming = Elsewhere { range: None, hint: None, coming: true };
    assert_eq!((turned_away(&from, moves), turned_away(&to, moves)), (None, Some(coming)));

    let records = RecordsAsk { since_ms: 0, after: None, bytes_max: 1 << 20 };
    let give_up = ShardCommand::GiveUp { step: step(), ask: FinalAsk { changes_after: 0, records } };
    let (_, rest) = from.tell(&give_up, &[]);
    let hint = Some(Gone { range, to: 1, move_id: 1 });
    let gone = Elsewhere { range: Some(KeyRange::ALL), hint, coming: false };
    assert_eq!((turned_away(&from, moves), turned_away(&to, moves)), (Some(gone), Some(coming)));
    assert_eq!(turned_away(&from, stays), None);
    for (member, elsewhere) in [(&mut from, gone), (&mut to, coming)] {
        let (reply, _) = member.run(2, &write(moves, "+x")).unwrap();
        assert_eq!(reply, ShardReply::Elsewhere(elsewhere));
    }

    let all = ShardCommand::Install { step: step(), cover: Cover::Range(range), last: false };
    to.tell(&all, &FinalHead::default().encode(&[]));
    let last = ShardCommand::Install { step: step(), cover: Cover::Changes { to: 0 }, last: true };
    assert_eq!(to.tell(&last, &rest).0, ShardReply::Ended(Outcome::Done));
    assert_eq!((turned_away(&from, moves), turned_away(&to, moves)), (Some(gone), None));
    assert_eq!(to.run(3, &write(moves, "+x")).unwrap().0, ShardReply::Done);
}

/// A shard that was merged away once kept all that it had until its group was removed, and as nothing happened there any
/// more, each of its members took a snapshot of that first.
#[test]
fn a_shard_that_has_given_all_away_forgets_it_at_once_with_the_same_result_as_bit_by_bit() {
    let forget = |slots_max: u32| {
        let mut from = shard(KeyRange::ALL);
        for n in 0..KEYS {
            from.run(2, &write(n, "+x")).unwrap();
        }
        let step = |step| MoveStep { move_id: 1, epoch: 1, step };
        from.tell(&ShardCommand::Send { step: step(1), range: KeyRange::ALL, to: 1 }, &[]);
        let records = RecordsAsk { since_ms: 0, after: None, bytes_max: 1 << 20 };
        let ask = FinalAsk { changes_after: 0, records };
        from.tell(&ShardCommand::GiveUp { step: step(2), ask }, &[]);
        let (reply, _) = from.tell(&ShardCommand::Finish { step: step(3) }, &[]);
        assert_eq!(reply, ShardReply::Ended(Outcome::Done));
        let mut commands = 1;
        while from.tell(&ShardCommand::Forget { slots_max }, &[]).0 == (ShardReply::Forgotten { left: true })
        {
            commands += 1;
        }
        let mut snapshot = Vec::new();
        from.shard.snapshot(&mut snapshot);
        (commands, snapshot)
    };
    let (once, at_once) = forget(u32::MAX);
    let (often, bit_by_bit) = forget(100);
    assert_eq!((once, often), (1, 5));
    assert_eq!(at_once, bit_by_bit);
    assert!(at_once.len() < 100, "{} bytes of nothing", at_once.len());
}
