//! The steps of a move, as the two shards take them. Each may come again, and a late one changes nothing.

use bytes::Bytes;
use raft_fleet::rafted_value::{ReadRecords, Records, RecordsPage, Refused};

use super::all_keys::AllKeys;
use super::arriving::Arriving;
use super::entries::{Entries, Slot};
use super::load::Load;
use super::moves::{Gone, Incoming, MoveStep, NoStep, Outcome, Outgoing, Progress};
use super::slots::SlotWriter;
use super::wire::{Cover, FinalAsk, FinalHead, RecordsAsk, ShardReply, split_final};
use super::{ShardData, slots};
use crate::key_range::KeyRange;
use crate::value_type::ValuePerKey;

impl From<NoStep> for ShardReply {
    fn from(no: NoStep) -> Self {
        match no {
            NoStep::Stale => ShardReply::Stale,
            NoStep::Over(outcome) => ShardReply::Ended(outcome),
            NoStep::Busy => ShardReply::Busy,
        }
    }
}

impl<V: ValuePerKey> ShardData<V> {
    /// Some of the range is about to go to another shard; from now on what changes there is noted.
    pub(super) fn send(&mut self, step: MoveStep, range: KeyRange, to: u32) -> ShardReply {
        if let Err(no) = self.moves.begin(step) {
            return no.into();
        }
        if let Some(outgoing) = &self.moves.outgoing {
            if (outgoing.range, outgoing.to) != (range, to) {
                return ShardReply::OutOfStep;
            }
            return ShardReply::Sending { given_up: outgoing.given_up };
        }
        let fits = self.range.is_some_and(|own| own == range || own.without(range).is_some());
        if !fits || self.moves.incoming.is_some() {
            return ShardReply::OutOfStep;
        }
        self.moves.outgoing = Some(Outgoing::new(range, to));
        ShardReply::Sending { given_up: false }
    }

    /// A range is about to come, whose values may be so large.
    pub(super) fn receive(&mut self, step: MoveStep, range: KeyRange, value_size_max: u64) -> ShardReply {
        if let Err(no) = self.moves.begin(step) {
            return no.into();
        }
        if let Some(incoming) = &self.moves.incoming {
            if incoming.range != range {
                return ShardReply::OutOfStep;
            }
            return ShardReply::Receiving(incoming.progress);
        }
        let fits = self.range.is_none_or(|own| own.joined(range).is_some());
        if !fits || self.moves.outgoing.is_some() {
            return ShardReply::OutOfStep;
        }
        let progress = Progress::default();
        self.moves.incoming = Some(Incoming { range, progress });
        self.value_size_max = value_size_max;
        ShardReply::Receiving(progress)
    }

    /// Gives records of the range that is about to go, so that few are left to tell when it does.
    pub(super) fn records(&mut self, step: MoveStep, ask: RecordsAsk, records: &mut Records<'_>) -> Bytes {
        // The reply is large, and another attempt gives the same or newer ones.
        records.keep_no_reply();
        if let Err(no) = self.moves.begin(step) {
            return ShardReply::from(no).encode(&[]);
        }
        let Some(outgoing) = &self.moves.outgoing else { return ShardReply::OutOfStep.encode(&[]) };
        let page = export(records, outgoing.range, ask);
        let head = FinalHead { all: AllKeys::default(), records: page.bytes };
        ShardReply::Records { stamp_ms: page.stamp_ms, next: page.next }.encode(&head.encode(&[]))
    }

    /// The range is served here no more. Gives what has changed since it was copied, then the records of commands; asked
    /// again and again until all is told.
    pub(super) fn give_up(&mut self, step: MoveStep, ask: FinalAsk, records: &mut Records<'_>) -> Bytes {
        // The reply is large, and another attempt gives the same.
        records.keep_no_reply();
        if let Err(no) = self.moves.begin(step) {
            return ShardReply::from(no).encode(&[]);
        }
        let Some(outgoing) = &mut self.moves.outgoing else { return ShardReply::OutOfStep.encode(&[]) };
        let range = outgoing.range;
        let bytes_max = usize::try_from(ask.records.bytes_max).unwrap_or(usize::MAX);
        // What is derived from its entries stays until the move has ended, so that this costs nothing now.
        outgoing.given_up = true;
        let mut slots = Vec::new();
        let (changes, left) = self.write_changes(ask.changes_after, bytes_max, &mut slots);
        let mut head = FinalHead::default();
        let mut records_next = None;
        // One large value leaves no room for the records: they come next.
        let room = left == 0 && slots.len() <= bytes_max;
        if room {
            let page = export(records, range, ask.records);
            records_next = page.next;
            head = FinalHead { all: self.all.within(range), records: page.bytes };
        }
        let complete = room && records_next.is_none();
        ShardReply::GivenUp { changes, records_next, complete }.encode(&head.encode(&slots))
    }

    /// Appends the hashes that have changed after some version, each with what it holds now, and no more bytes than may
    /// be, unless one hash alone has more; gives the version of the last, and how many are left.
    pub(super) fn write_changes(&self, after: u64, bytes_max: usize, out: &mut Vec<u8>) -> (u64, u64) {
        let Some(outgoing) = &self.moves.outgoing else { return (after, 0) };
        let mut changes = outgoing.changes.range(after.saturating_add(1)..);
        let (mut last, mut writer) = (after, SlotWriter::new(&*self.value_type));
        for (version, hash) in changes.by_ref() {
            let before = out.len();
            writer.write(*hash, self.entries.slot(*hash), out);
            if before > 0 && out.len() > bytes_max {
                out.truncate(before);
                return (last, changes.count() as u64 + 1);
            }
            last = *version;
        }
        (last, 0)
    }

    /// Takes in slots, and with the last ones the range is served here.
    pub(super) fn install(
        &mut self,
        step: MoveStep,
        cover: Cover,
        last: bool,
        rest: &[u8],
        records: &mut Records<'_>,
    ) -> Result<ShardReply, Refused> {
        // Nothing may change before it is sure that all of it can be read.
        let (head, slots) = split_final(rest).map_err(Refused)?;
        let slots = slots::read_slots(&*self.value_type, slots).map_err(Refused)?;
        let page = (!head.records.is_empty()).then(|| ReadRecords::of(&head.records)).transpose()?;
        if let Err(no) = self.moves.begin(step) {
            return Ok(no.into());
        }
        let Some(Incoming { range, mut progress }) = self.moves.incoming else {
            return Ok(ShardReply::OutOfStep);
        };
        let copied_all = progress.copied == Some(range.last());
        let fits = match cover {
            Cover::Range(part) => {
                let next = progress.copied.map_or(range.first(), |copied| copied.saturating_add(1));
                range.covers(part)
                    && part.first() <= next
                    && slots.iter().all(|(hash, _)| part.contains(*hash))
                    && !last
            }
            Cover::Changes { .. } => copied_all && slots.iter().all(|(hash, _)| range.contains(*hash)),
            Cover::Records { .. } | Cover::RecordsWithin { .. } => slots.is_empty() && !last,
        };
        if !fits {
            return Ok(ShardReply::OutOfStep);
        }
        if let (Cover::RecordsWithin { count_max, .. }, Some(page)) = (cover, &page) {
            let new = records.count_new(page);
            if new > 0 && records.count().saturating_add(new) > count_max {
                return Ok(ShardReply::TooManyRecords);
            }
        }
        let drops_records = self.range.is_none() && planted!(DROP_SESSIONS_AT_SPLIT);
        if let Some(page) = page.filter(|_| !drops_records) {
            records.take_in(page);
        }
        let arrived = progress.copied;
        match cover {
            Cover::Range(part) => {
                // Whatever an earlier move has left there is not of this one.
                let strays: Vec<u64> = self.entries.range(part.hashes()).map(|(hash, _)| hash).collect();
                for hash in strays {
                    self.arrive(arrived, hash, None);
                }
                progress.copied = progress.copied.max(Some(part.last()));
            }
            Cover::Changes { to } => progress.changes = progress.changes.max(to),
            Cover::Records { until_ms } | Cover::RecordsWithin { until_ms, .. } => {
                progress.records_ms = progress.records_ms.max(until_ms.unwrap_or(0));
            }
        }
        let backwards = self.range.is_some() && planted!(REPLAY_MERGE_BACKWARDS);
        for (hash, slot) in slots {
            if backwards && self.entries.slot(hash).is_some() {
                continue;
            }
            self.arrive(arrived, hash, slot);
        }
        self.all.join(head.all);
        self.moves.incoming = Some(Incoming { range, progress });
        if !last {
            return Ok(ShardReply::Receiving(progress));
        }
        self.range = match self.range {
            None => Some(range),
            Some(own) => Some(own.joined(range).expect("checked when the move began")),
        };
        self.moves.came(range);
        self.moves.end(Outcome::Done);
        let Arriving { counts, index } = std::mem::take(&mut self.arriving);
        self.counts.join(counts);
        self.index.join(index);
        self.load = Load::new(self.range);
        Ok(ShardReply::Ended(Outcome::Done))
    }

    /// Replaces what a hash of the range that comes holds; everything up to `arrived` is of this move.
    fn arrive(&mut self, arrived: Option<u64>, hash: u64, slot: Option<Slot<V::Value>>) {
        let before = self.entries.replace(hash, None);
        if let Some(before) = before.filter(|_| arrived >= Some(hash)) {
            self.arriving.remove(&*self.value_type, &before);
        }
        if let Some(slot) = slot {
            self.arriving.add(&*self.value_type, &slot);
            self.entries.replace(hash, Some(slot));
        }
    }

    /// The receiver serves the range: it is another shard's for good.
    pub(super) fn finish(&mut self, step: MoveStep) -> ShardReply {
        if let Err(no) = self.moves.begin(step) {
            return no.into();
        }
        let Some(outgoing) = self.moves.outgoing.take_if(|outgoing| outgoing.given_up) else {
            return ShardReply::OutOfStep;
        };
        let Outgoing { range, to, .. } = outgoing;
        self.range = self.range.and_then(|own| own.without(range));
        self.moves.end(Outcome::Done);
        self.moves.went(Gone { range, to, move_id: step.move_id });
        self.uncount(range);
        self.load = Load::new(self.range);
        ShardReply::Ended(Outcome::Done)
    }

    /// The range stays where it was.
    pub(super) fn abort(&mut self, step: MoveStep) -> ShardReply {
        if let Err(no) = self.moves.begin(step) {
            return no.into();
        }
        self.moves.end(Outcome::Aborted);
        self.arriving = Arriving::default();
        // What was given up is served here again.
        self.index.remind();
        ShardReply::Ended(Outcome::Aborted)
    }

    /// Removes some of the entries that are not this shard's.
    pub(super) fn forget(&mut self, slots_max: u32) -> ShardReply {
        let slots_max = usize::try_from(slots_max.max(1)).expect("fits");
        let owns_none = self.range.is_none() && self.moves.incoming.is_none();
        if owns_none && self.entries.slots().len() <= slots_max {
            if self.entries.slots().len() > 0 {
                self.remains = std::mem::replace(&mut self.entries, Entries::new());
            }
            return ShardReply::Forgotten { left: false };
        }
        let mut strays = Vec::new();
        for gap in gaps(self.range, self.moves.incoming.map(|incoming| incoming.range)) {
            let room = (slots_max + 1).saturating_sub(strays.len());
            strays.extend(self.entries.range(gap.hashes()).map(|(hash, _)| hash).take(room));
        }
        let left = strays.len() > slots_max;
        strays.truncate(slots_max);
        for hash in strays {
            self.entries.replace(hash, None);
        }
        ShardReply::Forgotten { left }
    }
}

fn export(records: &Records<'_>, range: KeyRange, ask: RecordsAsk) -> RecordsPage {
    let RecordsAsk { since_ms, after, bytes_max } = ask;
    records.export_since(since_ms, range.hashes(), after, usize::try_from(bytes_max).unwrap_or(usize::MAX))
}

/// What lies in neither of two ranges, in order.
fn gaps(one: Option<KeyRange>, other: Option<KeyRange>) -> Vec<KeyRange> {
    let mut kept: Vec<KeyRange> = one.into_iter().chain(other).collect();
    kept.sort_by_key(|range| range.first());
    let (mut gaps, mut next) = (Vec::new(), Some(0));
    for range in kept {
        if let (Some(first), Some(last)) = (next, range.first().checked_sub(1)) {
            gaps.extend(KeyRange::new(first, last));
        }
        next = next.and_then(|next| range.last().checked_add(1).map(|behind| behind.max(next)));
    }
    gaps.extend(next.and_then(|next| KeyRange::new(next, u64::MAX)));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_neither_range_holds() {
        let range = |first, last| KeyRange::new(first, last).unwrap();
        assert_eq!(gaps(None, None), [KeyRange::ALL]);
        assert_eq!(gaps(Some(KeyRange::ALL), None), []);
        assert_eq!(gaps(Some(range(5, 9)), Some(range(10, 12))), [range(0, 4), range(13, u64::MAX)]);
        assert_eq!(gaps(Some(range(20, u64::MAX)), Some(range(0, 9))), [range(10, 19)]);
    }
}
