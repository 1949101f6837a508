//! Which segments of the log are still needed, and by whom: pure accounting, no bytes.
//!
//! It also decides whether a record fits what was written before it, so that whatever recovery would have to call
//! corrupt is refused before it is written.

use std::collections::{BTreeMap, VecDeque};

use super::record::Record;
use crate::id::{GroupId, MemberId};

/// What a record without entries is taken to cost.
const META_BYTES: u64 = 128;

/// Whether records are being written, or read back from a log whose beginning may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// A record of a group that has no base is refused.
    Writing,
    /// Records of a group may come before its base, and of members that have ended.
    Recovering,
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It counts.
    Counts,
    /// It is of a member that is void since.
    Void,
}

/// Which segments the groups of a log need.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    groups: BTreeMap<GroupId, Group>,
    ended: BTreeMap<GroupId, Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    newest: MemberId,
    segment: u64,
}

#[derive(Debug)]
struct Group {
    member: MemberId,
    /// Whether a base, or what stands for one, was seen.
    based: bool,
    /// Whether records were read whose predecessors are gone with their segment. Gaps are then no damage: what they
    /// lack may have been replaced or dropped later. At the end of the log there are none.
    loose: bool,
    meta_segment: u64,
    /// About what of it is in use there.
    meta_bytes: u64,
    vote_segment: u64,
    before: u64,
    last: u64,
    /// Entries in use, oldest first; a run begins where the one before it ends.
    runs: VecDeque<Run>,
}

/// Entries in one segment.
#[derive(Clone, Copy, Debug)]
struct Run {
    segment: u64,
    last: u64,
    bytes: u64,
}

impl Footprint {
    /// Takes in a record of `bytes` bytes that lies in `segment`.
    ///
    /// # Errors
    ///
    /// Says why it does not fit what came before it; then nothing has changed.
    pub(super) fn apply(
        &mut self,
        record: &Record,
        segment: u64,
        bytes: u64,
        mode: Mode,
    ) -> Result<Fit, String> {
        let (group, member) = (record.group(), record.member());
        if let Record::Ended { newest, .. } = record {
            let ended = self.ended.entry(group).or_insert(Ended { newest: *newest, segment });
            *ended = Ended { newest: ended.newest.max(*newest), segment };
            if self.groups.get(&group).is_some_and(|group| group.member <= *newest) {
                self.groups.remove(&group);
            }
            return Ok(Fit::Counts);
        }
        let void = |why: &str| match mode {
            Mode::Writing => Err(format!("member {member} of group {group} {why}")),
            Mode::Recovering => Ok(Fit::Void),
        };
        if self.ended.get(&group).is_some_and(|ended| member <= ended.newest) {
            return void("has ended");
        }
        let known = self.groups.get(&group);
        if known.is_some_and(|known| member < known.member) {
            return void("was followed by another");
        }
        if let Record::Base { .. } = record {
            self.groups.insert(group, Group::base(record, segment, bytes)?);
            return Ok(Fit::Counts);
        }
        if known.is_some_and(|known| member > known.member) {
            return Err(format!("member {member} of group {group} has no base"));
        }
        if known.is_none() {
            if mode == Mode::Writing {
                return Err(format!("group {group} has no base"));
            }
            self.groups.insert(group, Group::headless(member, segment));
        }
        let known = self.groups.get_mut(&group).expect("just put there");
        known.apply(record, segment, bytes)?;
        Ok(Fit::Counts)
    }

    /// Ends recovery: from here on every record must follow those before it.
    ///
    /// # Errors
    ///
    /// Names a group of which no base was seen, nor what stands for one.
    pub(super) fn recovered(&mut self) -> Result<(), String> {
        for (id, group) in &mut self.groups {
            if !group.based {
                return Err(format!("group {id} has no base"));
            }
            group.loose = false;
        }
        Ok(())
    }

    /// The oldest segment that anything is needed of; `None` when nothing is.
    pub(super) fn oldest_needed(&self) -> Option<u64> {
        let groups = self.groups.values().map(Group::oldest);
        groups.chain(self.ended.values().map(|ended| ended.segment)).min()
    }

    /// Groups that need a segment up to `segment`, `limit` of them at most.
    pub(super) fn groups_needing(&self, segment: u64, limit: usize) -> Vec<GroupId> {
        let needing = self.groups.iter().filter(|(_, group)| group.oldest() <= segment);
        needing.map(|(id, _)| *id).take(limit).collect()
    }

    /// Records of ended members in segments up to `segment`, to be written again; `limit` of them at most.
    pub(super) fn ended_in(&self, segment: u64, limit: usize) -> Vec<Record> {
        let old = self.ended.iter().filter(|(_, ended)| ended.segment <= segment);
        old.map(|(group, ended)| Record::Ended { group: *group, newest: ended.newest }).take(limit).collect()
    }

    /// About how many bytes of the log are in use.
    pub(super) fn live_bytes(&self) -> u64 {
        let of_group = |group: &Group| group.runs.iter().map(|run| run.bytes).sum::<u64>() + group.meta_bytes;
        self.groups.values().map(of_group).sum::<u64>() + self.ended.len() as u64 * META_BYTES
    }
}

impl Group {
    /// A group of which something is read whose base comes later.
    fn headless(member: MemberId, segment: u64) -> Self {
        Self {
            member,
            based: false,
            loose: true,
            meta_segment: segment,
            meta_bytes: META_BYTES,
            vote_segment: segment,
            before: 0,
            last: 0,
            runs: VecDeque::new(),
        }
    }

    fn base(record: &Record, segment: u64, bytes: u64) -> Result<Self, String> {
        let Record::Base { member, snapshot, before, entries, .. } = record else {
            return Err("not a base".into());
        };
        if snapshot.index() < before.index {
            let snapshot = snapshot.index();
            return Err(format!("a base whose snapshot {snapshot} lacks entries up to {}", before.index));
        }
        let last = check_row(entries.iter().map(|entry| entry.index), before.index)?;
        let mut group = Self::headless(*member, segment);
        (group.based, group.loose) = (true, false);
        (group.before, group.last) = (before.index, last);
        group.meta_bytes = META_BYTES + snapshot.inline_bytes();
        if last > before.index {
            group.runs.push_back(Run { segment, last, bytes });
        }
        Ok(group)
    }

    fn apply(&mut self, record: &Record, segment: u64, bytes: u64) -> Result<(), String> {
        match record {
            Record::Append { entries, .. } => {
                if let Some(first) = entries.first() {
                    self.append(first.index, entries.iter().map(|entry| entry.index), segment, bytes)?;
                }
                self.vote_segment = segment;
            }
            Record::Compacted { snapshot, before, .. } => {
                self.compact(snapshot.index(), before.index)?;
                self.meta_bytes = META_BYTES + snapshot.inline_bytes();
                (self.meta_segment, self.vote_segment) = (segment, segment);
            }
            Record::Base { .. } | Record::Ended { .. } => return Err("not a record of a base's own".into()),
        }
        Ok(())
    }

    fn append(
        &mut self,
        first: u64,
        indexes: impl Iterator<Item = u64>,
        segment: u64,
        bytes: u64,
    ) -> Result<(), String> {
        let Some(previous) = first.checked_sub(1) else { return Err("an entry at index 0".into()) };
        if !self.loose && previous < self.before {
            return Err(format!("entry {first} would replace what is dropped up to {}", self.before));
        }
        if !self.loose && previous > self.last {
            return Err(format!("entry {first} leaves a gap after {}", self.last));
        }
        let last = check_row(indexes, previous)?;
        self.cut(previous);
        self.last = last;
        match self.runs.back_mut() {
            Some(run) if run.segment == segment => (run.last, run.bytes) = (last, run.bytes + bytes),
            _ => self.runs.push_back(Run { segment, last, bytes }),
        }
        Ok(())
    }

    fn compact(&mut self, snapshot: u64, before: u64) -> Result<(), String> {
        if snapshot < before {
            return Err(format!("entries up to {before} are dropped, which snapshot {snapshot} lacks"));
        }
        if !self.loose && before < self.before {
            return Err(format!("entries up to {before} are dropped, after those up to {}", self.before));
        }
        if !self.loose && before > self.last {
            return Err(format!("entries up to {before} are dropped, of {}", self.last));
        }
        while self.runs.front().is_some_and(|run| run.last <= before) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.bytes = share(run.bytes, run.last - before, run.last.saturating_sub(self.before));
        }
        (self.based, self.before, self.last) = (true, before, self.last.max(before));
        Ok(())
    }

    /// Drops entries after `index`.
    fn cut(&mut self, index: u64) {
        while let Some(run) = self.runs.pop_back() {
            let start = self.runs.back().map_or(self.before, |before| before.last);
            if start >= index {
                continue;
            }
            let last = run.last.min(index);
            let bytes = share(run.bytes, last - start, run.last - start);
            self.runs.push_back(Run { last, bytes, ..run });
            break;
        }
    }

    fn oldest(&self) -> u64 {
        let oldest = self.meta_segment.min(self.vote_segment);
        self.runs.front().map_or(oldest, |run| run.segment.min(oldest))
    }
}

/// The last index of entries that follow `previous` in a row; `previous` when there are none.
fn check_row(indexes: impl Iterator<Item = u64>, previous: u64) -> Result<u64, String> {
    let mut last = previous;
    for index in indexes {
        if last.checked_add(1) != Some(index) {
            return Err(format!("entry {index} follows entry {last}"));
        }
        last = index;
    }
    Ok(last)
}

/// The part of `bytes` that `count` of `of` entries have.
fn share(bytes: u64, count: u64, of: u64) -> u64 {
    (u128::from(bytes) * u128::from(count.min(of)) / u128::from(of.max(1))) as u64
}

#[cfg(test)]
mod tests;
