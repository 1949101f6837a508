//! The tasks of a node that write and read: one joins what all loops want kept into one write and one sync, one writes
//! snapshots to files of their own, so that a large one holds nobody up, and one reads pieces of such files for members
//! that are given them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::pending;
use tokio::sync::{mpsc, watch};

use crate::engine::DiskEvent;
use crate::env::{BoxFuture, Env, timeout};
use crate::id::{GroupId, MemberId};
use crate::message::WireSnapshot;
use crate::outputs::{Ack, Outputs, ReadJob, SnapshotJob};
use crate::store::{
    KeptFile, KeptSnapshot, Place, Record, SnapshotFile, SnapshotFolder, SnapshotMeta, Store, StoreError,
};

/// Turns whose records wait for the disk at most; a loop that is further ahead waits.
const TURNS_WAITING_MAX: usize = 1024;
/// How much of a snapshot is written between two looks at whether anybody waits for it.
const PART_BYTES: usize = 1 << 20;

/// What one turn of one loop wants kept.
struct Batch {
    position: usize,
    records: Vec<Record>,
    acks: Vec<Ack>,
}

/// A loop's way to the disk and back.
pub(crate) struct DiskLine {
    position: usize,
    records: mpsc::Sender<Batch>,
    /// At most one snapshot a group and one that is installed: no more wait than there are groups, twice.
    snapshots: mpsc::UnboundedSender<(usize, SnapshotJob)>,
    /// A few pieces for each member that is given a snapshot.
    reads: mpsc::UnboundedSender<(usize, ReadJob)>,
    /// No more wait than turns, snapshots and pieces were handed over.
    events: mpsc::UnboundedReceiver<DiskEvent>,
}

impl DiskLine {
    /// What the disk says next.
    pub(crate) async fn hear(&mut self) -> DiskEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => pending().await,
        }
    }

    /// What the disk has said already.
    pub(crate) fn try_hear(&mut self) -> Option<DiskEvent> {
        self.events.try_recv().ok()
    }

    /// Hands over what a turn wants kept.
    pub(crate) async fn write(&self, out: &mut Outputs) {
        let position = self.position;
        if !out.records.is_empty() {
            let (records, acks) = (std::mem::take(&mut out.records), std::mem::take(&mut out.acks));
            // A writer that has ended has said why.
            drop(self.records.send(Batch { position, records, acks }).await);
        }
        for job in out.snapshots.drain(..) {
            drop(self.snapshots.send((position, job)));
        }
        for job in out.reads.drain(..) {
            drop(self.reads.send((position, job)));
        }
    }
}

/// The writing tasks of a node, as long as they run.
pub(crate) struct Writer {
    /// Closed once all of them have ended.
    ended: watch::Receiver<()>,
}

impl Writer {
    /// Starts the tasks, with a line for each of `loops` loops.
    pub(crate) fn start(
        env: &Arc<dyn Env>,
        store: Store,
        mark_idle: Duration,
        loops: usize,
    ) -> (Self, Vec<DiskLine>) {
        let (records, batches) = mpsc::channel(TURNS_WAITING_MAX);
        let (snapshots, jobs) = mpsc::unbounded_channel();
        let (reads, pieces) = mpsc::unbounded_channel();
        let (mut lines, mut voices) = (Vec::new(), Vec::new());
        for position in 0..loops {
            let (voice, events) = mpsc::unbounded_channel();
            voices.push(voice);
            let (records, snapshots, reads) = (records.clone(), snapshots.clone(), reads.clone());
            lines.push(DiskLine { position, records, snapshots, reads, events });
        }
        let (running, ended) = watch::channel(());
        let running = Arc::new(running);
        let (lock, folder) = (Arc::clone(&store.lock), store.snapshots.clone());
        let scribe =
            Scribe { env: env.clone(), store, batches, voices: voices.clone(), mark_idle, asked: Vec::new() };
        let tasks: [(_, BoxFuture<()>); 3] = [
            ("rafted-value log", Box::pin(scribe.run())),
            ("rafted-value pieces", Box::pin(read_pieces(pieces, voices.clone()))),
            ("rafted-value snapshots", Box::pin(write_snapshots(folder, jobs, voices))),
        ];
        for (name, task) in tasks {
            // Whoever opens the directory next must not find one of them in it.
            let held = (Arc::clone(&lock), Arc::clone(&running));
            let task = async move {
                task.await;
                drop(held);
            };
            drop(env.spawn_blocking(name, Box::pin(task)));
        }
        (Self { ended }, lines)
    }

    /// Waits until everything is written, once no loop hands over more, and the directory is free again.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

struct Scribe {
    env: Arc<dyn Env>,
    store: Store,
    batches: mpsc::Receiver<Batch>,
    voices: Vec<mpsc::UnboundedSender<DiskEvent>>,
    mark_idle: Duration,
    /// Groups that were asked to write themselves anew.
    asked: Vec<GroupId>,
}

impl Scribe {
    async fn run(mut self) {
        let mut batches = Vec::new();
        let mut marked = true;
        loop {
            let receive = self.batches.recv_many(&mut batches, TURNS_WAITING_MAX);
            let received = if marked {
                Some(receive.await)
            } else {
                timeout(self.env.as_ref(), self.mark_idle, receive).await
            };
            let result = match received {
                None => {
                    marked = true;
                    self.store.log.write_mark().await
                }
                Some(0) => {
                    if let Err(error) = self.store.close().await {
                        tracing::error!(%error, "the log is not closed in order");
                    }
                    return;
                }
                Some(_) => {
                    marked = false;
                    self.write(&mut batches).await
                }
            };
            if let Err(error) = result {
                fail(&self.voices, &error);
                if error.is_failed_sync()
                    && let Err(error) = self.store.distrust().await
                {
                    tracing::warn!(%error, "the next life of this node trusts what the system still has of the log");
                }
                return;
            }
        }
    }

    /// Writes what all loops have handed over as one, and lets them know.
    async fn write(&mut self, batches: &mut Vec<Batch>) -> Result<(), StoreError> {
        let sync = batches.iter().any(|batch| batch.acks.iter().any(|ack| ack.sync));
        let records: Vec<Record> =
            batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.records)).collect();
        let segments = self.store.log.size().segments;
        let appended = self.store.log.append(&records).await?;
        if sync {
            self.store.log.sync().await?;
        }
        metrics::counter!("rafted_value_log_writes_total").increment(1);
        for (group, reason) in appended.refused {
            tracing::error!(%group, reason, "a record does not fit what is written of its group");
            self.tell_all(&DiskEvent::Refused { group, reason });
        }
        for batch in batches.drain(..) {
            if !batch.acks.is_empty() {
                // A loop that has ended waits for nothing.
                let _ = self.voices[batch.position].send(DiskEvent::Kept(batch.acks));
            }
        }
        self.make_room(segments, &records).await
    }

    /// Gets rid of what nobody needs any more.
    async fn make_room(&mut self, segments: usize, records: &[Record]) -> Result<(), StoreError> {
        let mut unneeded = Vec::new();
        for record in records {
            match record {
                Record::Ended { group, newest } => {
                    unneeded.extend(self.store.snapshots.of_ended(*group, *newest));
                }
                Record::Compacted { group, member, snapshot: KeptSnapshot::File(meta), .. }
                | Record::Base { group, member, snapshot: KeptSnapshot::File(meta), .. } => {
                    let used = SnapshotFile { group: *group, member: *member, index: meta.index };
                    unneeded.extend(self.store.snapshots.unneeded(used));
                }
                _ => {}
            }
        }
        if !unneeded.is_empty() {
            // What the log on the disk speaks of must be there if power is lost now.
            self.store.log.sync().await?;
            self.store.snapshots.remove(&unneeded).await?;
        }
        let rewritten =
            records.iter().any(|record| matches!(record, Record::Base { .. } | Record::Compacted { .. }));
        if segments < self.store.log.size().segments || (segments > 1 && rewritten) {
            self.store.log.reclaim().await?;
        }
        // One that could not be written anew as it was has less by now.
        let shrunk = |group: &GroupId| {
            let shrinks =
                |record: &Record| matches!(record, Record::Compacted { group: of, .. } if of == group);
            records.iter().any(shrinks)
        };
        self.asked.retain(|group| !shrunk(group));
        let groups = self.store.log.rewrite_wanted();
        if !groups.is_empty() && groups != self.asked {
            self.tell_all(&DiskEvent::Rewrite(groups.clone()));
        }
        self.asked = groups;
        Ok(())
    }

    fn tell_all(&self, event: &DiskEvent) {
        for voice in &self.voices {
            // A loop that has ended needs not know.
            let _ = voice.send(event.clone());
        }
    }
}

async fn write_snapshots(
    folder: SnapshotFolder,
    mut jobs: mpsc::UnboundedReceiver<(usize, SnapshotJob)>,
    voices: Vec<mpsc::UnboundedSender<DiskEvent>>,
) {
    while let Some((position, job)) = jobs.recv().await {
        let SnapshotJob { group, member, snapshot } = job;
        let voice = &voices[position];
        match write_snapshot(&folder, group, member, snapshot, || voice.is_closed()).await {
            Ok(None) => tracing::debug!(%group, %member, "a snapshot is given up, as its loop has ended"),
            Ok(Some(meta)) => {
                let file = KeptFile::new(&folder, SnapshotFile { group, member, index: meta.index }, meta);
                let _ = voice.send(DiskEvent::SnapshotKept { group, member, file });
            }
            Err(error) => {
                fail(&voices, &error);
                return;
            }
        }
    }
}

/// Writes a snapshot to its file, or gives it up when nobody waits for it any more: what it leaves is removed when the
/// directory is opened next.
async fn write_snapshot(
    folder: &SnapshotFolder,
    group: GroupId,
    member: MemberId,
    snapshot: WireSnapshot,
    in_vain: impl Fn() -> bool,
) -> Result<Option<SnapshotMeta>, StoreError> {
    if in_vain() {
        return Ok(None);
    }
    let WireSnapshot { index, term, voters, learners, state } = snapshot;
    let mut file = folder.begin((group, member), Place { index, term }, voters, learners)?;
    for part in state.chunks(PART_BYTES) {
        file.write(part)?;
        if in_vain() {
            return Ok(None);
        }
    }
    file.finish().await.map(Some)
}

/// A file that cannot be read is its member's affair, which takes a new snapshot.
async fn read_pieces(
    mut jobs: mpsc::UnboundedReceiver<(usize, ReadJob)>,
    voices: Vec<mpsc::UnboundedSender<DiskEvent>>,
) {
    while let Some((position, ReadJob { piece, file, bytes_max })) = jobs.recv().await {
        if voices[position].is_closed() {
            continue;
        }
        let read = file.read_piece(piece.offset, bytes_max);
        // A loop that has ended gives nobody anything.
        let _ = voices[position].send(DiskEvent::PieceRead { piece, read });
    }
}

/// Nobody knows what the disk holds after a failed write: no member that it keeps may go on.
fn fail(voices: &[mpsc::UnboundedSender<DiskEvent>], error: &StoreError) {
    tracing::error!(%error, "the disk failed; the members that it keeps are fenced");
    metrics::counter!("rafted_value_disk_failures_total").increment(1);
    for voice in voices {
        let _ = voice.send(DiskEvent::Failed(error.to_string()));
    }
}
