//! Reads a log back, and tells a torn tail from damage.
//!
//! A batch that is not whole was being written when the node crashed, unless something proves that it was durable: it
//! lies before the newest segment, or the mark or a later batch says so. Nothing is written here: what is corrupt stays
//! as it is for whoever has to look at it.

use std::collections::{BTreeMap, VecDeque};

use super::StoreError;
use super::footprint::{Fit, Footprint, Mode};
use super::frame::{BATCH_VERSION, HEADER_BYTES, Header, NoHeader, checksum};
use super::mark::{MARK_FILE, Mark, read_mark};
use super::record::Record;
use super::segment::{LOG_FOLDER, SegmentReader, segment_file, segment_of};
use super::state::Groups;
use crate::disk::{Disk, TEMPORARY};

/// The end of the newest segment that a crash left unfinished.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TornTail {
    /// The segment's file.
    pub(crate) file: String,
    /// Where the log ends now.
    pub(crate) offset: u64,
    /// How much was cut off.
    pub(crate) bytes: u64,
    /// What was wrong at `offset`.
    pub(crate) reason: String,
}

/// A log as it was read.
pub(super) struct ReadLog {
    pub(super) groups: Groups,
    pub(super) footprint: Footprint,
    pub(super) mark: (u64, Mark),
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The number of the newest batch; 0 for none.
    pub(super) newest: u64,
    /// From here to the end of the newest segment nothing proves that the log is durable.
    pub(super) unproven: u64,
    pub(super) torn: Option<TornTail>,
    /// Segments before the first that is needed, which a crash left.
    pub(super) leftover: Vec<u64>,
    /// Files in the log's folder that are none of its own.
    pub(super) strangers: Vec<String>,
}

/// A segment of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// The number of its first batch, or of the next one where it has none.
    pub(super) first_sequence: u64,
    /// How long it is, without a torn tail.
    pub(super) bytes: u64,
}

/// The names in the log's folder.
#[derive(Default)]
struct Listing {
    segments: BTreeMap<u64, u64>,
    mark: bool,
    strangers: Vec<String>,
}

impl Listing {
    fn read(disk: &dyn Disk) -> Result<Self, StoreError> {
        let mut listing = Self::default();
        for entry in disk.list(LOG_FOLDER)? {
            let name = format!("{LOG_FOLDER}/{}", entry.name);
            match segment_of(&entry.name) {
                Some(segment) => {
                    listing.segments.insert(segment, entry.bytes);
                }
                None if name == MARK_FILE => listing.mark = true,
                None if !name.ends_with(TEMPORARY) => listing.strangers.push(name),
                None => {}
            }
        }
        Ok(listing)
    }
}

/// Whether anything of a log is there, even a log that was not finished being made.
pub(super) fn has_segments(disk: &dyn Disk) -> Result<bool, StoreError> {
    Ok(!Listing::read(disk)?.segments.is_empty())
}

/// Reads the log; `None` where there is none yet.
pub(super) fn read_log(disk: &dyn Disk, salt: u32) -> Result<Option<ReadLog>, StoreError> {
    let Listing { mut segments, mark, strangers } = Listing::read(disk)?;
    let mark = if mark { read_mark(disk, salt)? } else { None };
    let Some((number, mark)) = mark else {
        // The mark is durable before the first segment is made.
        return match segments.first_key_value() {
            None => Ok(None),
            Some(_) => Err(StoreError::corrupt(MARK_FILE, 0, "there are segments but no whole mark")),
        };
    };
    if segments.is_empty() && mark.sequence == 0 {
        return Ok(None);
    }
    let needed = segments.split_off(&mark.first_segment);
    let leftover = segments.into_keys().collect();
    check_segments(&needed, &mark)?;
    let mut reading = Reading::new(salt, mark);
    let newest = needed.last_key_value().map_or(0, |(segment, _)| *segment);
    for (&segment, &bytes) in &needed {
        reading.segment(disk, segment, bytes, segment == newest)?;
    }
    reading.finish(newest)?;
    let Reading { groups, footprint, segments, next, unproven, torn, .. } = reading;
    let unproven = unproven.front().map_or(segments[&newest].bytes, |batch| batch.1);
    let newest = next - 1;
    Ok(Some(ReadLog {
        groups,
        footprint,
        mark: (number, mark),
        segments,
        newest,
        unproven,
        torn,
        leftover,
        strangers,
    }))
}

/// Every segment from the first that is needed to the last that is marked is there.
fn check_segments(segments: &BTreeMap<u64, u64>, mark: &Mark) -> Result<(), StoreError> {
    let last = segments.last_key_value().map_or(mark.segment, |(last, _)| (*last).max(mark.segment));
    let expected = mark.first_segment..=last;
    let missing = expected.zip(segments.keys().map(Some).chain(std::iter::repeat(None)));
    let missing = missing.into_iter().find(|(expected, found)| Some(expected) != *found);
    match missing {
        Some((missing, _)) => Err(StoreError::corrupt(&segment_file(missing), 0, "the segment is missing")),
        None => Ok(()),
    }
}

/// What has been read so far.
struct Reading {
    salt: u32,
    mark: Mark,
    groups: Groups,
    footprint: Footprint,
    segments: BTreeMap<u64, Segment>,
    /// The number of the next batch.
    next: u64,
    /// The newest batch that a header calls durable.
    durable_to: u64,
    /// Number and offset of the batches of the newest segment that nothing proves durable.
    unproven: VecDeque<(u64, u64)>,
    torn: Option<TornTail>,
}

/// A place in the log where there is no whole batch.
struct BadBatch {
    file: String,
    offset: u64,
    reason: String,
}

impl BadBatch {
    fn corrupt(self, proof: &str) -> StoreError {
        StoreError::Corrupt {
            file: self.file,
            offset: self.offset,
            reason: format!("{}; {proof}", self.reason),
        }
    }
}

impl Reading {
    fn new(salt: u32, mark: Mark) -> Self {
        Self {
            salt,
            mark,
            groups: Groups::default(),
            footprint: Footprint::default(),
            segments: BTreeMap::new(),
            next: mark.first_sequence,
            durable_to: 0,
            unproven: VecDeque::new(),
            torn: None,
        }
    }

    fn segment(&mut self, disk: &dyn Disk, segment: u64, bytes: u64, newest: bool) -> Result<(), StoreError> {
        let mut reader = SegmentReader::new(disk, segment, bytes);
        let (first_sequence, mut offset) = (self.next, 0);
        while offset < bytes {
            match self.batch(&mut reader, segment, offset)? {
                Ok(end) => {
                    if newest {
                        self.unproven.push_back((self.next - 1, offset));
                    }
                    offset = end;
                }
                Err(reason) => {
                    let bad = BadBatch { file: reader.file.clone(), offset, reason };
                    self.tail(&mut reader, bad, newest)?;
                    break;
                }
            }
        }
        let proven = self.durable_to.max(self.mark.sequence);
        while self.unproven.front().is_some_and(|(sequence, _)| *sequence <= proven) {
            self.unproven.pop_front();
        }
        self.segments.insert(segment, Segment { first_sequence, bytes: offset });
        Ok(())
    }

    /// Takes in the batch at `offset` and gives its end, or says why there is no whole one.
    fn batch(
        &mut self,
        reader: &mut SegmentReader<'_>,
        segment: u64,
        offset: u64,
    ) -> Result<Result<u64, String>, StoreError> {
        let header = match Header::read(self.salt, reader.read(offset, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(NoHeader::Bad(reason)) => return Ok(Err(reason.to_owned())),
            Err(NoHeader::Newer(found)) => {
                let file = reader.file.clone();
                return Err(StoreError::NewerFormat { file, found, known: BATCH_VERSION });
            }
        };
        if header.sequence != self.next {
            let reason = format!("batch {} where {} should be", header.sequence, self.next);
            return Err(StoreError::corrupt(&reader.file, offset, reason));
        }
        if header.durable_to >= header.sequence {
            let reason = format!("batch {} calls {} durable", header.sequence, header.durable_to);
            return Err(StoreError::corrupt(&reader.file, offset, reason));
        }
        self.durable_to = self.durable_to.max(header.durable_to);
        let start = offset + HEADER_BYTES as u64;
        let end = start + u64::from(header.payload_bytes);
        if end > reader.bytes {
            return Ok(Err(format!("batch {} is cut off", header.sequence)));
        }
        let payload = reader.read(start, header.payload_bytes as usize)?;
        if checksum(self.salt, payload) != header.payload_crc {
            return Ok(Err(format!("the checksum of batch {} is wrong", header.sequence)));
        }
        let applied = self.payload(payload, segment);
        applied.map_err(|reason| StoreError::corrupt(&reader.file, offset, reason))?;
        self.next += 1;
        Ok(Ok(end))
    }

    fn payload(&mut self, payload: &[u8], segment: u64) -> Result<(), String> {
        let undecodable = |error: postcard::Error| format!("a record does not decode: {error}");
        let (count, mut rest) = postcard::take_from_bytes::<u64>(payload).map_err(undecodable)?;
        for _ in 0..count {
            let (record, after) = postcard::take_from_bytes::<Record>(rest).map_err(undecodable)?;
            let bytes = (rest.len() - after.len()) as u64;
            if self.footprint.apply(&record, segment, bytes, Mode::Recovering)? == Fit::Counts {
                self.groups.apply(record);
            }
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes after the last record", rest.len())) }
    }

    /// Decides whether a bad batch is a torn tail.
    fn tail(
        &mut self,
        reader: &mut SegmentReader<'_>,
        bad: BadBatch,
        newest: bool,
    ) -> Result<(), StoreError> {
        if !newest {
            return Err(bad.corrupt("a later segment follows"));
        }
        if self.mark.sequence >= self.next {
            return Err(bad.corrupt(&format!("the mark calls batch {} durable", self.mark.sequence)));
        }
        let (salt, next) = (self.salt, self.next);
        let proof = |mut bytes: &[u8]| {
            let mut skipped = 0;
            while let Some((at, header)) = Header::find(salt, bytes) {
                if header.sequence > next && header.durable_to >= next {
                    return Some((skipped + at, header));
                }
                skipped += at + 1;
                bytes = &bytes[at + 1..];
            }
            None
        };
        if let Some((at, header)) = reader.search(bad.offset + 1, proof)? {
            let (later, durable) = (header.sequence, header.durable_to);
            return Err(bad.corrupt(&format!("batch {later} at byte {at} calls batch {durable} durable")));
        }
        let BadBatch { file, offset, reason } = bad;
        self.torn = Some(TornTail { file, offset, bytes: reader.bytes - offset, reason });
        Ok(())
    }

    /// Checks what can only be known at the end.
    fn finish(&mut self, newest: u64) -> Result<(), StoreError> {
        let (file, offset) = (segment_file(newest), self.segments[&newest].bytes);
        if self.mark.sequence >= self.next {
            let reason =
                format!("the log ends before batch {}, which the mark calls durable", self.mark.sequence);
            return Err(StoreError::corrupt(&file, offset, reason));
        }
        let checked = self.footprint.recovered().and_then(|()| self.groups.check_rows());
        checked.map_err(|reason| StoreError::corrupt(&file, offset, reason))
    }
}
