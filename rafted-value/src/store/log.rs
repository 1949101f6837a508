//! The log that all groups of a node share: records go in, one write and one sync make them durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::footprint::{Footprint, Mode};
use super::frame::{HEADER_BYTES, Header, checksum};
use super::mark::{MARK_FILE, Mark, MarkFile};
use super::record::Record;
use super::recover::{ReadLog, Segment, TornTail, read_log};
use super::segment::{LOG_FOLDER, segment_file};
use super::state::Groups;
use super::{StoreConfig, StoreError};
use crate::disk::{Disk, DiskFile};
use crate::id::GroupId;

/// How much of an unproven tail is written again at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// The log of a node, open to be written.
///
/// One task owns it. A call that fails fences the log, and so does a future that is dropped before it is done: nobody
/// knows then what is on the disk, and every later call says so.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    config: StoreConfig,
    salt: u32,
    fence: Option<String>,
    mark: MarkFile,
    file: Box<dyn DiskFile>,
    /// The segment that is written, which is the newest of `segments`.
    segment: u64,
    segments: BTreeMap<u64, Segment>,
    footprint: Footprint,
    /// The number of the newest batch written, and of the newest one durable; 0 for none.
    written: u64,
    durable: u64,
    /// Where the newest durable batch ends in `segment`.
    durable_offset: u64,
    /// The oldest segment, if the log was too large when it last got or lost one.
    crowded: Option<u64>,
    payload: Vec<u8>,
    buffer: Vec<u8>,
}

/// What became of records that were handed to the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Appended {
    /// The number of the newest batch; durable once [`Log::sync`] has succeeded.
    pub(crate) sequence: u64,
    /// Groups one of whose records does not fit what was written before it: that record was left out, and every later
    /// one of the group in the same call, and the group must be fenced.
    pub(crate) refused: BTreeMap<GroupId, String>,
}

/// How much a log holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogSize {
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    /// About how many of the bytes are in use.
    pub(crate) live_bytes: u64,
    pub(crate) batches: u64,
}

/// What was read when a log was opened.
pub(super) struct OpenedLog {
    pub(super) log: Log,
    pub(super) groups: Groups,
    pub(super) torn: Option<TornTail>,
    pub(super) strangers: Vec<String>,
}

impl Log {
    /// Opens the log in `disk`, or makes it where that may be. What it gives is durable.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        salt: u32,
        may_create: bool,
    ) -> Result<OpenedLog, StoreError> {
        match read_log(&*disk, salt)? {
            Some(read) => Self::resume(disk, config, salt, read).await,
            None if may_create => Self::create(disk, config, salt).await,
            None => Err(StoreError::corrupt(MARK_FILE, 0, "the log is missing, although the node had one")),
        }
    }

    async fn create(disk: Arc<dyn Disk>, config: StoreConfig, salt: u32) -> Result<OpenedLog, StoreError> {
        let first = Mark { first_sequence: 1, ..Mark::default() };
        let mark = MarkFile::create(&*disk, salt, first).await?;
        let file = disk.open(&segment_file(0))?;
        disk.sync_folder(LOG_FOLDER).await?;
        let segments = BTreeMap::from([(0, Segment { first_sequence: 1, bytes: 0 })]);
        let log = Self::new(disk, config, salt, mark, file, segments, Footprint::default(), 0);
        Ok(OpenedLog { log, groups: Groups::default(), torn: None, strangers: Vec::new() })
    }

    /// Cuts off a torn tail, and makes durable what was only read.
    async fn resume(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        salt: u32,
        read: ReadLog,
    ) -> Result<OpenedLog, StoreError> {
        let ReadLog { groups, footprint, mark, segments, newest, unproven, torn, leftover, strangers } = read;
        let (&segment, &Segment { bytes, .. }) =
            segments.last_key_value().expect("a log that was read has a segment");
        let name = segment_file(segment);
        let mut file = disk.open(&name)?;
        // A sync of an earlier life may have failed, and left pages that read well and will never be written. Writing
        // them again makes them dirty; the sync then speaks of them.
        let mut at = unproven;
        while at < bytes {
            let piece = disk.read_at(&name, at, REWRITE_BYTES.min((bytes - at) as usize))?;
            if piece.is_empty() {
                return Err(StoreError::corrupt(&name, at, "the file has shrunk"));
            }
            file.write_at(at, &piece)?;
            at += piece.len() as u64;
        }
        file.truncate(bytes)?;
        file.sync().await?;
        // What the mark says is not needed goes only when the mark is sure to stay.
        let mut mark = MarkFile::open(&*disk, mark)?;
        mark.confirm(salt).await?;
        for leftover in &leftover {
            disk.remove(&segment_file(*leftover))?;
        }
        disk.sync_folder(LOG_FOLDER).await?;
        let mut log = Self::new(disk, config, salt, mark, file, segments, footprint, newest);
        log.write_mark().await?;
        Ok(OpenedLog { log, groups, torn, strangers })
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where all parts of a log come together")]
    fn new(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        salt: u32,
        mark: MarkFile,
        file: Box<dyn DiskFile>,
        segments: BTreeMap<u64, Segment>,
        footprint: Footprint,
        newest: u64,
    ) -> Self {
        let (&segment, &Segment { bytes, .. }) = segments.last_key_value().expect("a log has a segment");
        let mut log = Self {
            disk,
            config,
            salt,
            fence: None,
            mark,
            file,
            segment,
            segments,
            footprint,
            written: newest,
            durable: newest,
            durable_offset: bytes,
            crowded: None,
            payload: Vec::new(),
            buffer: Vec::new(),
        };
        log.crowded = log.find_crowded();
        log
    }

    /// Writes records in their order with one write, after a new segment was begun if the present one is full. They are
    /// durable after the next [`sync`](Log::sync), all or those of a beginning of them; a snapshot that a record speaks
    /// of must be durable before.
    ///
    /// # Errors
    ///
    /// The log is fenced from then on.
    pub(crate) async fn append(&mut self, records: &[Record]) -> Result<Appended, StoreError> {
        self.enter()?;
        let done = self.write(records).await;
        self.leave(done)
    }

    async fn write(&mut self, records: &[Record]) -> Result<Appended, StoreError> {
        if self.newest().bytes >= self.config.segment_bytes {
            self.roll().await?;
        }
        let mut appended = Appended::default();
        self.buffer.clear();
        let ended = self.ended_to_rewrite();
        let mut records = ended.iter().chain(records).peekable();
        while records.peek().is_some() {
            self.batch(&mut records, &mut appended.refused);
        }
        let offset = self.newest().bytes;
        if !self.buffer.is_empty() {
            self.file.write_at(offset, &self.buffer)?;
            self.segments.entry(self.segment).and_modify(|segment| segment.bytes += self.buffer.len() as u64);
        }
        appended.sequence = self.written;
        Ok(appended)
    }

    /// Puts the next batch into the buffer.
    fn batch<'a>(
        &mut self,
        records: &mut impl Iterator<Item = &'a Record>,
        refused: &mut BTreeMap<GroupId, String>,
    ) {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let mut count: u64 = 0;
        while payload.len() < self.config.batch_bytes {
            let Some(record) = records.next() else { break };
            let start = payload.len();
            match self.fit(record, &mut payload, refused) {
                Ok(()) => count += 1,
                Err(reason) => {
                    payload.truncate(start);
                    refused.entry(record.group()).or_insert(reason);
                }
            }
        }
        if count > 0 {
            let mut counted = [0; 10];
            let counted = postcard::to_slice(&count, &mut counted).expect("a varint has at most 10 bytes");
            self.written += 1;
            let header = Header {
                payload_bytes: (counted.len() + payload.len()) as u32,
                sequence: self.written,
                durable_to: self.durable,
                payload_crc: checksum(checksum(self.salt, counted), &payload),
            };
            self.buffer.reserve(HEADER_BYTES + counted.len() + payload.len());
            self.buffer.extend_from_slice(&header.write(self.salt));
            self.buffer.extend_from_slice(counted);
            self.buffer.extend_from_slice(&payload);
        }
        self.payload = payload;
    }

    /// Appends a record to the payload and to the books, or says why not.
    fn fit(
        &mut self,
        record: &Record,
        payload: &mut Vec<u8>,
        refused: &BTreeMap<GroupId, String>,
    ) -> Result<(), String> {
        if !matches!(record, Record::Ended { .. }) && refused.contains_key(&record.group()) {
            return Err("an earlier record was refused".into());
        }
        let start = payload.len();
        *payload = postcard::to_extend(record, std::mem::take(payload)).expect("records serialise");
        let bytes = payload.len() - start;
        if bytes > self.config.record_bytes_max {
            return Err(format!(
                "a record of {bytes} bytes is over the limit of {}",
                self.config.record_bytes_max
            ));
        }
        self.footprint.apply(record, self.segment, bytes as u64, Mode::Writing).map(|_| ())
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    ///
    /// The log is fenced from then on.
    pub(crate) async fn sync(&mut self) -> Result<(), StoreError> {
        self.enter()?;
        let done = self.make_durable().await;
        self.leave(done)
    }

    async fn make_durable(&mut self) -> Result<(), StoreError> {
        if self.durable < self.written {
            self.file.sync().await?;
            (self.durable, self.durable_offset) = (self.written, self.newest().bytes);
        }
        Ok(())
    }

    /// Marks how far the log is durable, so that damage up to there is never taken for a torn tail. For when nothing
    /// was written for `mark_idle`.
    ///
    /// # Errors
    ///
    /// The log is fenced from then on.
    pub(crate) async fn write_mark(&mut self) -> Result<(), StoreError> {
        self.enter()?;
        let done = self.mark_durable().await;
        self.leave(done)
    }

    async fn mark_durable(&mut self) -> Result<(), StoreError> {
        let mark = Mark {
            sequence: self.durable,
            segment: self.segment,
            offset: self.durable_offset,
            ..*self.mark.newest()
        };
        if mark != *self.mark.newest() {
            self.mark.write(self.salt, mark).await?;
        }
        Ok(())
    }

    /// Begins a new segment after what is written.
    async fn roll(&mut self) -> Result<(), StoreError> {
        self.make_durable().await?;
        self.mark_durable().await?;
        self.segment += 1;
        self.file = self.disk.open(&segment_file(self.segment))?;
        self.file.truncate(0)?;
        self.disk.sync_folder(LOG_FOLDER).await?;
        self.segments.insert(self.segment, Segment { first_sequence: self.written + 1, bytes: 0 });
        self.durable_offset = 0;
        self.crowded = self.find_crowded();
        Ok(())
    }

    /// Groups that hold back the oldest segments of a log that is too large: each is to be written anew, with a
    /// [`Record::Base`]. Empty while the log is small enough.
    pub(crate) fn rewrite_wanted(&self) -> Vec<GroupId> {
        match self.crowded {
            Some(oldest) => self.footprint.groups_needing(oldest, self.config.rewrites_max),
            None => Vec::new(),
        }
    }

    /// The oldest segment, if the log is too large.
    fn find_crowded(&self) -> Option<u64> {
        let (&oldest, _) = self.segments.first_key_value()?;
        let LogSize { segments, bytes, live_bytes, .. } = self.size();
        let much_garbage = bytes > live_bytes.saturating_mul(self.config.log_garbage_ratio);
        let many = segments > self.config.segments_max && bytes > live_bytes + live_bytes / 2;
        (oldest < self.segment && (much_garbage || many)).then_some(oldest)
    }

    fn ended_to_rewrite(&self) -> Vec<Record> {
        match self.crowded {
            Some(oldest) => self.footprint.ended_in(oldest, self.config.rewrites_max),
            None => Vec::new(),
        }
    }

    /// Removes the oldest segments if nothing in them is needed, after having made durable what makes that so. Gives how
    /// many. Looks at every group: call it after a new segment was begun or groups were written anew, not every time.
    ///
    /// # Errors
    ///
    /// The log is fenced from then on.
    pub(crate) async fn reclaim(&mut self) -> Result<usize, StoreError> {
        self.enter()?;
        let done = self.remove_unneeded().await;
        self.leave(done)
    }

    async fn remove_unneeded(&mut self) -> Result<usize, StoreError> {
        let needed = self.footprint.oldest_needed().unwrap_or(self.segment).min(self.segment);
        let kept = self.segments.split_off(&needed);
        let unneeded = std::mem::replace(&mut self.segments, kept);
        if !unneeded.is_empty() {
            self.make_durable().await?;
            let first_sequence = self.segments[&needed].first_sequence;
            let mark = Mark {
                sequence: self.durable,
                segment: self.segment,
                offset: self.durable_offset,
                first_segment: needed,
                first_sequence,
            };
            self.mark.write(self.salt, mark).await?;
            for segment in unneeded.keys() {
                self.disk.remove(&segment_file(*segment))?;
            }
            self.disk.sync_folder(LOG_FOLDER).await?;
        }
        self.crowded = self.find_crowded();
        Ok(unneeded.len())
    }

    /// Fences the log until the call that begins is done.
    fn enter(&mut self) -> Result<(), StoreError> {
        match &self.fence {
            Some(reason) => Err(StoreError::Fenced { reason: reason.clone() }),
            None => {
                self.fence = Some("an earlier call was given up".into());
                Ok(())
            }
        }
    }

    fn leave<T>(&mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        self.fence = done.as_ref().err().map(ToString::to_string);
        done
    }

    /// Makes everything durable and marks it: what is damaged afterwards is known to be.
    ///
    /// # Errors
    ///
    /// As [`sync`](Log::sync).
    pub(crate) async fn close(mut self) -> Result<(), StoreError> {
        self.sync().await?;
        self.write_mark().await
    }

    /// How much the log holds.
    pub(crate) fn size(&self) -> LogSize {
        LogSize {
            segments: self.segments.len(),
            bytes: self.segments.values().map(|segment| segment.bytes).sum(),
            live_bytes: self.footprint.live_bytes(),
            batches: self.written,
        }
    }

    fn newest(&self) -> &Segment {
        &self.segments[&self.segment]
    }
}
