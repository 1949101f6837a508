//! A shard: the live values of one range of key hashes, replicated by one group.
//!
//! # How keys move
//!
//! A split and a merge are the same thing: a *move* of a range of hashes from one shard to another. At a split the range
//! is one end of the shard's own and the other shard is new and empty; at a merge it is all that the shard has and the
//! other is its neighbour. A move is a sequence of commands to the two shards, sent by whichever node performs it:
//!
//! | step | to | what it does |
//! |---|---|---|
//! | `Receive` | receiver | expects the range; says what has arrived already |
//! | `Send` | sender | begins to note which hashes change |
//! | `Records` | sender | gives records of commands, all of them and then those that are new |
//! | `Install` | receiver | takes in a chunk of the range, or of what has changed since it was copied, or records |
//! | `GiveUp` | sender | serves the range no more; gives the last changes, the last new records, stamped time |
//! | `Install`, the last | receiver | takes those in and serves the range |
//! | `Finish` | sender | forgets the range and remembers where it went |
//! | `Forget` | sender | removes the entries that are not its own any more, some at a time; all at once where it has nothing else |
//! | `Abort` | receiver, then sender | the range stays where it was |
//!
//! What holds:
//!
//! - **One owner.** The sender gives the range up by a committed entry before the receiver can be told its last changes, and
//!   the receiver serves nothing before it has them. A query is answered by a leader under its lease from what it has
//!   applied, so that no answer is older than the hand-over. An abort is committed by the receiver, which then never
//!   serves the range, before the sender takes it back.
//! - **Every step may be repeated**, by the same performer or by another that resumes after a crash; and a step that was
//!   overtaken, of a performer that was replaced, is refused ([`moves::MoveStep`]).
//! - **State moves, not commands.** The receiver gets values as they are, never a list of commands to run again; there is no
//!   order to keep but that of the chunks. (The original replayed the commands that came during a merge, backwards.)
//! - **Records move** with their keys ([`Records`]), with stamped time and the marks of commands to all keys
//!   ([`all_keys`]), so that a retry is answered and not run, by whichever shard it comes to.
//! - **Memory is bounded**: chunks have a limit, and of what changes meanwhile only hashes are kept.
//! - **The receiver's table has room**: a full one admits no command, and no step of a move either. So records are copied
//!   only up to a part of its limit, and a move that needs more is undone while the range is served still. Those that come
//!   with the last changes are always taken in: nothing may be lost then.
//! - **The pause is short**: what the receiver counts and indexes it counts as the chunks come, and what the sender has
//!   counted it takes back after `Finish`; so `GiveUp` and the last `Install` cost as much as what changed just before.
//!
//! Between `GiveUp` and the last `Install` nobody serves the range. A command that comes then is refused before it is
//! recorded, with a hint where the range went, and its caller sends it again there under the same number. Keeping such
//! commands and running them later would need a list in the replicated state with a limit that could be reached, and
//! their replies could come no sooner; a caller that asks again has the same wait, and its command's number makes it
//! run once. Callers wait for their replies, so that nothing that one caller orders can be overtaken by this.
//!
//! Keys lie in the order of their hashes, because a place in that order outlives every split and merge: chunks, listings
//! and commands to all keys go on at a hash, whoever has it now. The price is that keys with a common prefix do not lie
//! together.

mod all_keys;
mod arriving;
mod classes;
mod entries;
#[cfg(any(feature = "fuzzing", test))]
pub(crate) mod fuzzing;
mod hook;
mod index;
mod limit;
mod load;
mod moves;
mod reads;
#[cfg(feature = "sim")]
mod shown;
mod slots;
mod snapshot;
mod steps;
mod sweep;
mod timers;
mod wake;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use raft_fleet::rafted_value::{
    CommandContext, Frozen, RawData, RecordTable, Records, Refused, RestoreError, encode,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::all_keys::AllCommand;
use self::all_keys::{AllKeys, NotAll};
use self::arriving::Arriving;
use self::classes::in_one_message;
pub use self::classes::{ClassCount, Tally};
use self::entries::{Counts, Entries, Entry};
pub(crate) use self::hook::ShardHook;
use self::index::{Index, Marks};
use self::limit::NotRun;
use self::load::Load;
pub(crate) use self::load::{BUCKETS, bucket_of, bucket_start};
use self::moves::Moves;
pub(crate) use self::moves::{Gone, MoveStep, Outcome, Progress};
pub(crate) use self::sweep::Keys;
pub(crate) use self::timers::Alarm;
pub(crate) use self::wire::{
    Cover, Elsewhere, FinalAsk, FinalHead, KeyAnswer, RecordsAsk, ShardAnswer, ShardCommand, ShardQuery,
    ShardReply, Weights, split_answer, split_reply,
};
use crate::key;
use crate::key_range::KeyRange;
use crate::value_type::{Done, ValuePerKey};

/// The values of one shard, each live and of its own type.
///
/// Replicated: the range, the limit, the entries, the moves and what commands to all keys have covered. Not replicated: the load,
/// which each member counts for itself (what it counts on the way, after a restart or a replay, need not agree with
/// anyone).
///
/// Entries may lie outside of the range: on their way in, or left behind by a move until they are forgotten. They are
/// neither served nor counted.
pub(crate) struct ShardData<V: ValuePerKey> {
    value_type: Arc<V>,
    /// What the shard is responsible for; a new group has none until its creator tells it, and one that has given all
    /// away has none any more.
    range: Option<KeyRange>,
    entries: Entries<V::Value>,
    /// The largest value, in the unit of the value type.
    value_size_max: u64,
    /// What the entries of the range come to.
    counts: Counts,
    moves: Moves,
    all: AllKeys,
    load: Load,
    /// Derived from the entries of the range. Those that were given up stay in it until their move has ended.
    index: Index,
    /// Derived from the entries that have arrived of a range that comes.
    arriving: Arriving,
    /// Entries that were all forgotten at once, of a shard that has given all away. They are no part of it any more, and
    /// go when it does: to drop a hundred thousand takes as long as to run thousands of commands, and its group drops
    /// what is large beside the loop.
    remains: Entries<V::Value>,
    /// Whether the next command runs on the member that leads; told by the hook just before it.
    leads: AtomicBool,
}

/// What one member says of its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The key hashes it is responsible for; none until its creator has told it, and none when it has given all away.
    pub range: Option<KeyRange>,
    /// How many keys have a value.
    pub keys: u64,
    /// The sum of the values' sizes.
    pub size: u64,
    /// The sum of the loads of what this member has handled since its range last changed.
    pub load: u64,
    /// The queries among that whose key had no value; their load is not in the sum.
    pub misses: u64,
    /// Whether some of its range is on its way to another shard, or some of another's to it.
    pub moving: bool,
    /// The hash that has more load than all others together, if one has.
    pub hot_hash: Option<u64>,
    /// How many thousandths of the load it has had lately.
    pub hot_permille: u16,
    /// Whether it has given some of its range up that its receiver may not serve yet.
    pub hands_over: bool,
}

impl<V: ValuePerKey> ShardData<V> {
    /// A shard that holds nothing and is responsible for nothing yet.
    pub(crate) fn new(value_type: Arc<V>) -> Self {
        Self {
            value_type,
            range: None,
            entries: Entries::new(),
            value_size_max: u64::MAX,
            counts: Counts::default(),
            moves: Moves::default(),
            all: AllKeys::default(),
            load: Load::new(None),
            index: Index::default(),
            arriving: Arriving::default(),
            remains: Entries::new(),
            leads: AtomicBool::new(false),
        }
    }

    /// The same shard, which tells this alarm when its first timer is due.
    pub(crate) fn with_alarm(mut self, alarm: Alarm) -> Self {
        self.index.set_alarm(alarm);
        self
    }

    /// Counts and indexes what lies in the range.
    fn count(&mut self) {
        self.counts = Counts::default();
        self.index.clear();
        for (_, slot) in self.range.iter().flat_map(|range| self.entries.range(range.hashes())) {
            for entry in slot.entries() {
                let marks = Marks::of(&*self.value_type, &entry.key, entry.value.as_ref());
                self.index.moved(&entry.key, &Marks::default(), &marks);
                self.counts.add(entry.size);
            }
        }
        self.load = Load::new(self.range);
    }

    /// Counts no more what lies in a part that the range has lost.
    fn uncount(&mut self, part: KeyRange) {
        if self.range.is_none() {
            self.counts = Counts::default();
            return self.index.clear();
        }
        for (_, slot) in self.entries.range(part.hashes()) {
            for entry in slot.entries() {
                let marks = Marks::of(&*self.value_type, &entry.key, entry.value.as_ref());
                self.index.moved(&entry.key, &marks, &Marks::default());
                self.counts.remove(entry.size);
            }
        }
    }

    fn initialise(&mut self, range: KeyRange, value_size_max: u64) -> ShardReply {
        match self.range {
            None if self.moves == Moves::default() => {
                (self.range, self.value_size_max) = (Some(range), value_size_max);
                self.count();
            }
            // A creator that died was resumed by another, which repeats this.
            Some(present) if present == range => {}
            Some(present) => return ShardReply::OtherRange { range: present },
            None => return ShardReply::OutOfStep,
        }
        ShardReply::Initialised
    }

    fn command_key(
        &mut self,
        context: &CommandContext,
        key: &[u8],
        command: &Bytes,
        records: &mut Records<'_>,
        leads: bool,
    ) -> Result<Bytes, Refused> {
        let hash = key::hash(key);
        if let Err(elsewhere) = self.responsible(hash) {
            // Its caller goes on under the same number, elsewhere or here.
            records.keep_no_reply();
            return Ok(ShardReply::Elsewhere(elsewhere).encode(&[]));
        }
        match self.run(context, hash, key, command, leads) {
            Ok(Done { reply, load, .. }) => {
                self.load.count(hash, load);
                Ok(ShardReply::Done.encode(&reply))
            }
            Err(NotRun::TooLarge { size, limit }) => Ok(ShardReply::TooLarge { size, limit }.encode(&[])),
            Err(NotRun::Refused(refused)) => Err(refused),
        }
    }

    /// Lets something be done to the value of a key that is served here, which is told the value's size and gives it
    /// afterwards; an error must leave the value as it was. The one place where what is served changes, but for the steps
    /// of moves.
    fn change<T, E>(
        &mut self,
        hash: u64,
        key: &[u8],
        change: impl FnOnce(&V, &mut Option<V::Value>, u64) -> Result<(u64, T), E>,
    ) -> Result<T, E> {
        let value_type = self.value_type.as_ref();
        let given = match self.entries.get_mut(hash, key) {
            Some(entry) => {
                let before = Marks::of(value_type, key, entry.value.as_ref());
                let changed = change(value_type, &mut entry.value, entry.size);
                // The engine undoes it: an entry without a value could not be written down any more.
                assert!(
                    changed.is_ok() || entry.value.is_some(),
                    "a command was refused that took the value out"
                );
                let (size, given) = changed?;
                self.index.moved(key, &before, &Marks::of(value_type, key, entry.value.as_ref()));
                self.counts.remove(entry.size);
                if entry.value.is_some() {
                    entry.size = size;
                    self.counts.add(size);
                } else {
                    self.entries.remove(hash, key);
                }
                given
            }
            None => {
                let mut value = None;
                let (size, given) = change(value_type, &mut value, 0)?;
                if value.is_some() {
                    let marks = Marks::of(value_type, key, value.as_ref());
                    self.index.moved(key, &Marks::default(), &marks);
                    self.entries.insert(hash, Entry { key: key.into(), value, size });
                    self.counts.add(size);
                }
                given
            }
        };
        self.moves.changed(hash, moves::CHANGES_MAX);
        Ok(given)
    }

    /// Runs a command on the keys of the first hashes of a range, as far as it has not run there before.
    fn command_all(
        &mut self,
        context: &CommandContext,
        all: &AllCommand,
        command: &Bytes,
        records: &mut Records<'_>,
        leads: bool,
    ) -> Bytes {
        // What has run where is kept by id and hash: another attempt at a page does what is left of it.
        records.keep_no_reply();
        let first = all.range.first();
        let Some(served) = self.served(first) else {
            return ShardReply::Elsewhere(self.elsewhere(first)).encode(&[]);
        };
        match self.all.admit(context.now_ms, all) {
            Ok(()) => {}
            Err(NotAll::Expired) => return ShardReply::Expired.encode(&[]),
            Err(NotAll::TooMany) => return ShardReply::TooManyAll.encode(&[]),
        }
        let mut page = served.common(all.range).expect("its first hash is served");
        if let Some(covered) = self.all.covered(all.id, page) {
            if covered.first() == first {
                return ShardReply::AllDone { covered, keys: 0, refused: 0 }.encode(&[]);
            }
            page = page.split_at(covered.first()).expect("it begins behind the first").0;
        }
        let keys_max = usize::try_from(all.keys_max.max(1)).expect("fits");
        let mut slots = self.entries.range(page.hashes());
        let keys: Vec<(u64, Box<[u8]>)> = slots
            .by_ref()
            .take(keys_max)
            .flat_map(|(hash, slot)| slot.entries().iter().map(move |entry| (hash, entry.key.clone())))
            .collect();
        let next = slots.next().map(|(next, _)| next);
        drop(slots);
        if let Some(next) = next {
            page = page.split_at(next).expect("some hashes lie before it").0;
        }
        let (mut ran, mut refused) = (0, 0);
        for (hash, key) in keys {
            match self.run(context, hash, &key, command, leads) {
                Ok(Done { load, .. }) => {
                    self.load.count(hash, load);
                    ran += 1;
                }
                Err(_) => refused += 1,
            }
        }
        self.all.cover(all.id, all.until_ms, page);
        ShardReply::AllDone { covered: page, keys: ran, refused }.encode(&[])
    }

    /// Runs a command of any kind.
    fn execute(
        &mut self,
        context: &CommandContext,
        payload: &Bytes,
        records: &mut Records<'_>,
    ) -> Result<Bytes, Refused> {
        let leads = self.leads.swap(false, Ordering::Relaxed);
        let (command, rest) = ShardCommand::split(payload)?;
        match command {
            ShardCommand::Initialise { range, value_size_max } => {
                Ok(self.initialise(range, value_size_max).encode(&[]))
            }
            ShardCommand::Command { key } => {
                self.command_key(context, key, &payload.slice_ref(rest), records, leads)
            }
            ShardCommand::CommandAll(all) => {
                Ok(self.command_all(context, &all, &payload.slice_ref(rest), records, leads))
            }
            ShardCommand::Send { step, range, to } => Ok(self.send(step, range, to).encode(&[])),
            ShardCommand::Receive { step, range, value_size_max } => {
                Ok(self.receive(step, range, value_size_max).encode(&[]))
            }
            ShardCommand::Records { step, ask } => Ok(self.records(step, ask, records)),
            ShardCommand::CountRecords => {
                records.keep_no_reply();
                Ok(ShardReply::RecordsCounted { count: records.count() }.encode(&[]))
            }
            ShardCommand::GiveUp { step, ask } => Ok(self.give_up(step, ask, records)),
            ShardCommand::Install { step, cover, last } => {
                Ok(self.install(step, cover, last, rest, records)?.encode(&[]))
            }
            ShardCommand::Finish { step } => Ok(self.finish(step).encode(&[])),
            ShardCommand::Abort { step } => Ok(self.abort(step).encode(&[])),
            ShardCommand::Forget { slots_max } => Ok(self.forget(slots_max).encode(&[])),
            ShardCommand::Wake { keys_max } => Ok(self.wake(context, keys_max, leads).encode(&[])),
            ShardCommand::Tally => {
                // It may be large, and whoever asks again wants to know it anew.
                records.keep_no_reply();
                Ok(self.tally_at(context.now_ms))
            }
            ShardCommand::Sweep { prefix, after, keys_max } => {
                Ok(self.sweep(context, prefix, after, keys_max, &payload.slice_ref(rest)))
            }
        }
    }

    /// What is served here.
    fn serves(&self) -> Option<KeyRange> {
        match &self.moves.outgoing {
            Some(outgoing) if outgoing.given_up => self.range?.without(outgoing.range),
            _ => self.range,
        }
    }

    /// The reply to a command for a key that is on its way from or to here: it is the same that the command would get
    /// through the log, and in the pause of a move, when many ask again and again, the log has the move to bring.
    fn turned_away(&self, payload: &Bytes) -> Option<Bytes> {
        // Whoever has an old route at other times is rare, and what is looked at here is looked at for every command.
        if self.range.is_some() && self.moves.incoming.is_none() && !self.hands_over() {
            return None;
        }
        let Ok((ShardCommand::Command { key }, _)) = ShardCommand::split(payload) else { return None };
        let elsewhere = self.responsible(key::hash(key)).err()?;
        Some(ShardReply::Elsewhere(elsewhere).encode(&[]))
    }

    /// Whether it has given some of its range up that its receiver may not serve yet.
    fn hands_over(&self) -> bool {
        self.moves.outgoing.as_ref().is_some_and(|outgoing| outgoing.given_up)
    }

    /// What is served here, if this hash is.
    fn served(&self, hash: u64) -> Option<KeyRange> {
        self.serves().filter(|range| range.contains(hash))
    }

    /// Whether a key of the range is served here still: those that were given up are in the index a little longer.
    fn stays(&self) -> impl Fn(&[u8]) -> bool + use<V> {
        let given_up = self.moves.outgoing.as_ref().filter(|outgoing| outgoing.given_up);
        let gone = given_up.map(|outgoing| outgoing.range);
        move |key| gone.is_none_or(|gone| !gone.contains(key::hash(key)))
    }

    /// When the first value that is served wants to be woken.
    fn next_wake(&self) -> Option<u64> {
        self.serves()?;
        self.index.next_wake(self.stays())
    }

    /// How many values of each class are served, or of each tag where that is too much for a message.
    fn class_counts(&self) -> Vec<ClassCount> {
        let Some(gone) = self.moves.outgoing.as_ref().filter(|outgoing| outgoing.given_up) else {
            return in_one_message(self.index.counts());
        };
        let mut given_up = Arriving::default();
        for (_, slot) in self.entries.range(gone.range.hashes()) {
            given_up.add(&*self.value_type, slot);
        }
        in_one_message(self.index.counts_without(&given_up.index))
    }

    fn responsible(&self, hash: u64) -> Result<(), Elsewhere> {
        self.served(hash).map(drop).ok_or_else(|| self.elsewhere(hash))
    }

    fn elsewhere(&self, hash: u64) -> Elsewhere {
        let coming = self.moves.incoming.is_some_and(|incoming| incoming.range.contains(hash));
        Elsewhere { range: self.range, hint: self.moves.hint(hash), coming }
    }

    /// The tally at a stamped time, as a reply; and as an answer, at no time.
    fn tally_at(&self, now_ms: u64) -> Bytes {
        match self.serves() {
            Some(range) => {
                ShardReply::Tally.encode(&encode(&Tally { range, now_ms, counts: self.class_counts() }))
            }
            None => ShardReply::Elsewhere(self.elsewhere(0)).encode(&[]),
        }
    }

    fn tally(&self) -> Bytes {
        match self.serves() {
            Some(range) => {
                ShardAnswer::Tally.encode(&encode(&Tally { range, now_ms: 0, counts: self.class_counts() }))
            }
            None => ShardAnswer::Elsewhere(self.elsewhere(0)).encode(&[]),
        }
    }

    fn status(&self) -> ShardStatus {
        let hot = self.load.hot();
        ShardStatus {
            range: self.range,
            keys: self.counts.keys,
            size: self.counts.size,
            load: self.load.total(),
            misses: self.load.misses(),
            moving: self.moves.outgoing.is_some() || self.moves.incoming.is_some(),
            hot_hash: hot.map(|(hash, _)| hash),
            hot_permille: hot.map_or(0, |(_, permille)| permille),
            hands_over: self.hands_over(),
        }
    }
}

impl<V: ValuePerKey> RawData for ShardData<V> {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        // Groups lend it their records; without a group there are none.
        self.command_with_records(context, payload, &mut RecordTable::default().records())
    }

    fn command_with_records(
        &mut self,
        context: &CommandContext,
        payload: &Bytes,
        records: &mut Records<'_>,
    ) -> Result<Bytes, Refused> {
        let reply = self.execute(context, payload, records);
        #[cfg(feature = "sim")]
        self.show();
        reply
    }

    fn turn_away(&self, payload: &Bytes) -> Option<Bytes> {
        self.turned_away(payload)
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        let (query, rest) = ShardQuery::split(payload)?;
        match query {
            ShardQuery::Query { key } => self.query_key(key, &payload.slice_ref(rest)),
            ShardQuery::Status => Ok(ShardAnswer::Status(self.status()).encode(&[])),
            ShardQuery::Chunk { move_id, from, bytes_max } => Ok(self.chunk(move_id, from, bytes_max)),
            ShardQuery::Changes { move_id, after, bytes_max } => Ok(self.changes(move_id, after, bytes_max)),
            ShardQuery::Keys { range, prefix, keys_max } => Ok(self.keys(range, prefix, keys_max)),
            ShardQuery::Many { keys } => Ok(self.query_many(&keys, &payload.slice_ref(rest))),
            ShardQuery::Weights => Ok(ShardAnswer::Weights(self.weights()).encode(&[])),
            ShardQuery::NextWake => Ok(ShardAnswer::NextWake(self.next_wake()).encode(&[])),
            ShardQuery::Tally => Ok(self.tally()),
        }
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        self.write_snapshot(out);
    }

    fn freeze(&self) -> Option<Frozen> {
        self.frozen()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let error = |reason| RestoreError { data: "a shard".to_owned(), reason };
        let alarm = self.index.alarm();
        *self = Self::read_snapshot(Arc::clone(&self.value_type), bytes).map_err(error)?.with_alarm(alarm);
        Ok(())
    }

    fn command_kind(&self, payload: &Bytes) -> String {
        ShardCommand::split(payload)
            .map_or("one that does not decode", |(command, _)| command.kind())
            .to_owned()
    }
}

#[cfg(test)]
mod tests;
