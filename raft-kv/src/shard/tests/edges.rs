//! What a shard does at the edges of what it may be told.

use super::*;
use crate::shard::timers::Alarm;
use crate::value_type::Woken;

/// The first steps of a move of half of the hashes, which has the entries and not the records; the number of the last.
fn begin(from: &mut Member, to: &mut Member, range: KeyRange) -> u64 {
    from.tell(&ShardCommand::Send { step: step(1), range, to: 1 }, &[]);
    to.tell(&ShardCommand::Receive { step: step(2), range, value_size_max: u64::MAX }, &[]);
    2
}

fn step(step: u64) -> MoveStep {
    MoveStep { move_id: 1, epoch: 1, step }
}

fn chunk(from: &Member, first: u64, bytes_max: u64) -> (KeyRange, usize) {
    let query = ShardQuery::Chunk { move_id: 1, from: first, bytes_max }.encode(&[]);
    match split_answer(&from.shard.query(&query).unwrap()).unwrap() {
        (ShardAnswer::Chunk { page }, slots) => (page, slots.len()),
        (other, _) => panic!("{other:?}"),
    }
}

/// Some small values before a large one once made a page that was larger than a command may be, and a shard with such
/// values could be neither split nor merged.
#[test]
fn a_page_of_a_move_has_more_than_was_asked_for_only_where_one_hash_alone_has() {
    let (mut from, mut to) = (shard(KeyRange::ALL), Member { id: 1, ..Member::new() });
    let bytes_max = 1000;
    let texts: Vec<String> =
        [300, 900, 2000].iter().map(|bytes| format!("+{}", "x".repeat(*bytes))).collect();
    begin(&mut from, &mut to, KeyRange::ALL);
    for n in 0..60 {
        command(&mut from, &format!("key-{n}"), &texts[n % 3]).unwrap();
    }
    let (mut first, mut pages, mut large) = (Some(0), 0, 0);
    while let Some(hash) = first {
        let (page, bytes) = chunk(&from, hash, bytes_max);
        let keys = from.shard.entries.count(page.hashes()).keys;
        assert!(bytes as u64 <= bytes_max || keys == 1, "{bytes} bytes of {keys} keys");
        (pages, large) = (pages + 1, large + u32::from(bytes as u64 > bytes_max));
        first = page.last().checked_add(1);
    }
    assert!(pages > 30 && large == 20, "{large} of {pages}");
    let (mut after, mut told) = (0, 0);
    loop {
        let query = ShardQuery::Changes { move_id: 1, after, bytes_max }.encode(&[]);
        let (answer, slots) = split_answer(&from.shard.query(&query).unwrap()).unwrap();
        let ShardAnswer::Changes { to, left } = answer else { panic!("{answer:?}") };
        assert!(slots.len() as u64 <= bytes_max || to == after + 1, "{} bytes", slots.len());
        told += to - after;
        after = to;
        if left == 0 {
            break;
        }
    }
    assert_eq!(told, 60);
}

/// A value that fills what a command may be once went together with a page of records.
#[test]
fn records_that_find_no_room_beside_the_last_changes_go_behind_them() {
    let (mut from, mut to) = (shard(KeyRange::ALL), Member { id: 1, ..Member::new() });
    let mut number = begin(&mut from, &mut to, KeyRange::ALL);
    let cover = Cover::Range(KeyRange::ALL);
    to.tell(&ShardCommand::Install { step: step(3), cover, last: false }, &FinalHead::default().encode(&[]));
    let command = |(n, text): (u64, String)| {
        let payload = ShardCommand::Command { key: b"k" }.encode(format!("+{text}").as_bytes());
        let (session, acknowledged, retry_until_ms) = (SessionId::new(7, n), 0, 9000);
        Command { session, sequence: 1, acknowledged, retry_until_ms, key_hash: key::hash(b"k"), payload }
    };
    let commands = [(1, "x".repeat(3000)), (2, "y".to_owned())].map(command);
    let replies = commands.each_ref().map(|command| from.run(1, command).unwrap());
    let records = RecordsAsk { since_ms: 0, after: None, bytes_max: 1000 };
    let mut ask = FinalAsk { changes_after: 0, records };
    let mut pages = Vec::new();
    loop {
        number += 2;
        let (reply, rest) = from.tell(&ShardCommand::GiveUp { step: step(number), ask }, &[]);
        let ShardReply::GivenUp { changes, records_next, complete } = reply else { panic!("{reply:?}") };
        (ask.changes_after, ask.records.after) = (changes, records_next);
        let (head, slots) = split_final(&rest).unwrap();
        assert!(slots.len() <= 1000 || head.records.is_empty(), "{} bytes and records", slots.len());
        pages.push(rest.len());
        let cover = Cover::Changes { to: changes };
        to.tell(&ShardCommand::Install { step: step(number + 1), cover, last: complete }, &rest);
        if complete {
            break;
        }
    }
    assert!(pages.iter().all(|bytes| *bytes < 3200), "{pages:?}");
    assert_eq!(to.shard.status().keys, 1);
    assert_eq!(commands.each_ref().map(|command| to.run(1, command).unwrap()), replies);
}

/// Pages of records once filled the receiver's table beyond its limit, and it admitted no command any more, nor what was to
/// end the move.
#[test]
fn records_that_find_no_room_in_the_table_are_refused_and_those_that_are_there_are_not() {
    let (mut from, mut to) = (shard(KeyRange::ALL), Member { id: 1, ..Member::new() });
    begin(&mut from, &mut to, KeyRange::ALL);
    for n in 0..10 {
        let payload = ShardCommand::Command { key: b"k" }.encode(b"+x");
        let (session, acknowledged, retry_until_ms) = (SessionId::new(7, n), 0, 9000);
        let key_hash = key::hash(b"k");
        let command = Command { session, sequence: 1, acknowledged, retry_until_ms, key_hash, payload };
        from.run(1, &command).unwrap();
    }
    assert_eq!(from.tell(&ShardCommand::CountRecords, &[]).0, ShardReply::RecordsCounted { count: 21 });
    let ask = RecordsAsk { since_ms: 0, after: None, bytes_max: 1 << 20 };
    let (_, head) = from.tell(&ShardCommand::Records { step: step(3), ask }, &[]);
    let mut install = |number, count_max| {
        let cover = Cover::RecordsWithin { until_ms: None, count_max };
        let (reply, _) = to.tell(&ShardCommand::Install { step: step(number), cover, last: false }, &head);
        (reply, to.records.records().count())
    };
    // Its own session and the reply to it.
    assert_eq!(install(4, 21), (ShardReply::TooManyRecords, 2));
    let (reply, count) = install(5, 22);
    assert_eq!((reply, count), (ShardReply::Receiving(Progress::default()), 23));
    assert_eq!(install(6, 22), (reply, 23), "nothing of it is new");
}

/// An answer to many keys once held all of them, however large, and was thrown away when it was made.
#[test]
fn an_answer_to_many_keys_has_the_first_of_them_where_all_are_too_much() {
    let mut member = shard(KeyRange::ALL);
    let text = format!("+{}", "x".repeat(600 << 10));
    for key in ["a", "b", "c"] {
        command(&mut member, key, &text).unwrap();
    }
    let answers = |keys: &[&'static [u8]]| {
        let query = ShardQuery::Many { keys: keys.to_vec() }.encode(&[]);
        match split_answer(&member.shard.query(&query).unwrap()).unwrap().0 {
            ShardAnswer::Many(answers) => answers.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answers(&[b"a", b"b", b"c", b"d"]), 2);
    assert_eq!(answers(&[b"c", b"d"]), 2);
}

/// Each was once kept for two seconds though nobody asks for one twice, and moved with the range that has the first hash: a
/// large one made a page that no command holds.
#[test]
fn tallies_are_not_kept() {
    let mut member = shard(KeyRange::ALL);
    command(&mut member, "k", "+1").unwrap();
    let kept = member.records.replies();
    let tally = Command {
        session: SessionId::new(8, 1),
        sequence: 1,
        acknowledged: 0,
        retry_until_ms: 9000,
        key_hash: 0,
        payload: ShardCommand::Tally.encode(&[]),
    };
    assert_eq!(member.run(1, &tally).unwrap().0, ShardReply::Tally);
    assert_eq!(member.records.replies(), kept);
}

/// It once took note of the step, and so a refused command had changed something.
#[test]
fn records_that_do_not_decode_leave_the_receiver_as_it_was() {
    let (mut from, mut to) = (shard(KeyRange::ALL), Member { id: 1, ..Member::new() });
    begin(&mut from, &mut to, KeyRange::ALL);
    let before = snapshot(&to);
    let records = Bytes::from_static(&[0, 9, 200]);
    let rest = FinalHead { records, ..FinalHead::default() }.encode(&[]);
    let cover = Cover::Records { until_ms: None };
    let payload = ShardCommand::Install { step: step(3), cover, last: false }.encode(&rest);
    let refused = to.shard.command(&CommandContext { now_ms: 1, index: 9, seed: 9 }, &payload);
    assert!(refused.unwrap_err().0.contains("page of records"));
    assert_eq!(snapshot(&to), before);
}

/// It once stayed without a value, and the next snapshot of the shard panicked.
#[test]
fn a_command_that_is_refused_after_it_took_the_value_out_is_undone_by_the_engine() {
    let mut member = shard(KeyRange::ALL);
    command(&mut member, "k", "+1").unwrap();
    let payload = ShardCommand::Command { key: b"k" }.encode(b"take and refuse");
    let context = CommandContext { now_ms: 1, index: 9, seed: 9 };
    let ran =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| member.shard.command(&context, &payload)));
    let message = *ran.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(message, "a command was refused that took the value out");
    let payload = ShardCommand::Command { key: b"new" }.encode(b"take and refuse");
    assert!(member.shard.command(&context, &payload).is_err(), "there was none to take out");
}

/// Each value is a time at which it wants to be woken.
struct Sleepers;

impl ValuePerKey for Sleepers {
    type Value = u8;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<u8>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        *value = command.first().copied();
        Ok(Done { reply: Bytes::new(), load: 1, size: 1 })
    }

    fn wake_at(&self, value: &u8) -> Option<u64> {
        Some(u64::from(*value))
    }

    fn wake(&self, _: &CommandContext, _: &[u8], value: &mut Option<u8>, _: bool) -> Woken {
        *value = None;
        Woken::default()
    }

    fn query(&self, _: &[u8], _: &u8, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: Bytes::new(), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &u8, out: &mut Vec<u8>) {
        out.push(*value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<u8, String> {
        Ok(bytes[0])
    }
}

/// Whoever looks while a range is given up finds nothing to wake; the alarm was once not set again when the range came
/// back, and its values slept on until something else woke the node.
#[test]
fn values_of_a_range_that_was_given_up_and_came_back_are_woken() {
    let alarm = Alarm::default();
    let mut shard = ShardData::new(Arc::new(Sleepers)).with_alarm(alarm.clone());
    let mut tell = |now_ms, command: ShardCommand<'_>, rest: &[u8]| {
        let context = CommandContext { now_ms, index: 1, seed: 1 };
        split_reply(&shard.command(&context, &command.encode(rest)).unwrap()).unwrap().0
    };
    let range = KeyRange::ALL;
    tell(1, ShardCommand::Initialise { range, value_size_max: 9 }, &[]);
    tell(1, ShardCommand::Command { key: b"k" }, &[50]);
    tell(1, ShardCommand::Send { step: step(1), range, to: 1 }, &[]);
    let records = RecordsAsk { since_ms: 0, after: None, bytes_max: 1000 };
    let ask = FinalAsk { changes_after: 0, records };
    tell(1, ShardCommand::GiveUp { step: step(2), ask }, &[]);
    assert!(alarm.rings(50), "somebody looks");
    assert_eq!(tell(50, ShardCommand::Wake { keys_max: 9 }, &[]), ShardReply::Woken { keys: 0, more: false });
    assert_eq!(tell(51, ShardCommand::Abort { step: step(3) }, &[]), ShardReply::Ended(Outcome::Aborted));
    assert!(alarm.rings(51), "somebody looks again");
    assert_eq!(tell(51, ShardCommand::Wake { keys_max: 9 }, &[]), ShardReply::Woken { keys: 1, more: false });
}
