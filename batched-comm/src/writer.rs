//! Writes one lane of a connection: batch by batch, whatever has queued up.
//!
//! A lane is written by its own task, or, when it is quiet, by whoever has just queued something: waking a task
//! for a lone message costs a good part of a round trip. The stream is in one pair of hands at a time, and
//! batches are taken from the queue by these hands only, so that the order holds.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;

use crate::counters::LiveCounters;
use crate::lane::Lane;
use crate::link::Link;
use crate::queue::{Batch, LaneQueue, Turn};

/// A lane's stream, while nobody writes.
#[derive(Default)]
pub(crate) struct LaneStream {
    parked: Mutex<Option<Parked>>,
}

/// The stream, and what a flush could not write of its batch.
struct Parked {
    stream: quinn::SendStream,
    pieces: Vec<Bytes>,
}

impl LaneStream {
    /// Writes what waits, without waiting: what the connection does not take now is left to the writer's task.
    pub(crate) fn flush(&self, link: u64, queue: &LaneQueue, counters: &LiveCounters) {
        let mut parked = self.parked.try_lock();
        let Some(Parked { stream, pieces }) = parked.as_mut().and_then(|parked| parked.as_mut()) else {
            // Somebody is writing, or the stream is not open yet.
            return queue.wake_writer();
        };
        if !pieces.is_empty() {
            return queue.wake_writer();
        }
        let Some(batch) = queue.take(link, pieces) else { return };
        count(counters, batch);
        let poll = pin!(stream.write_all_chunks(pieces)).poll(&mut Context::from_waker(Waker::noop()));
        if poll.is_ready() {
            // An error means that the connection is gone: its tasks see to the consequences.
            pieces.clear();
        }
        // Under the lock of the stream: nobody else says otherwise at the same time.
        queue.flushed(link, poll.is_pending());
    }
}

/// Takes batches from the lane's queue and writes them until the connection ends or is replaced.
///
/// A batch that cannot be written completely is lost, and its casts are counted as dropped.
pub(crate) async fn write_lane(link: Arc<Link>, lane: Lane) {
    write_batches(&link, lane).await;
    link.lane_written();
}

async fn write_batches(link: &Link, lane: Lane) {
    let queue = link.peer.lane(lane);
    let counters = &link.shared.counters;
    let parking = link.stream(lane);
    let mut is_open = false;
    loop {
        consume_budget().await;
        match poll_fn(|context| queue.poll_ready(link.id, context)).await {
            Turn::Write => {}
            Turn::Finish => {
                let parked = parking.parked.lock().take();
                return finish(parked).await;
            }
            Turn::Stop => return,
        }
        if queue.is_busy() || link.peer.calls.in_flight() > 1 {
            // Whoever woke this task is one of many that are about to send: they go first, for a larger batch.
            // A lone message does not wait.
            yield_now().await;
        }
        let parked = parking.parked.lock().take();
        let mut parked = match parked {
            Some(parked) => parked,
            None if is_open => return,
            None => match open(link, lane).await {
                Some(opened) => opened,
                None => return,
            },
        };
        is_open = true;
        let batch = queue.take(link.id, &mut parked.pieces);
        let casts = batch.map_or(0, |batch| batch.casts);
        if parked.stream.write_all_chunks(&mut parked.pieces).await.is_err() {
            // The connection is gone: its other tasks see to the rest of the consequences.
            counters.casts_dropped.add(casts as u64);
            return;
        }
        parked.pieces.clear();
        if let Some(batch) = batch {
            count(counters, batch);
        }
        let mut parking = parking.parked.lock();
        *parking = Some(parked);
        queue.flushed(link.id, false);
    }
}

/// Ends a lane's stream and waits until the peer has all of it. A lane that nothing was sent on has none.
async fn finish(parked: Option<Parked>) {
    // What goes wrong here means that the connection is gone.
    if let Some(Parked { mut stream, .. }) = parked
        && stream.finish().is_ok()
    {
        let _ = stream.stopped().await;
    }
}

/// Opens the lane's stream; its first byte tells which lane it is.
async fn open(link: &Link, lane: Lane) -> Option<Parked> {
    let stream = link.connection.open_uni().await.ok()?;
    // A stream that is closed already is noticed at the write.
    let _ = stream.set_priority(lane.stream_priority());
    Some(Parked { stream, pieces: vec![Bytes::copy_from_slice(&[lane.tag()])] })
}

fn count(counters: &LiveCounters, batch: Batch) {
    counters.batches_sent.increment();
    counters.messages_sent.add(batch.messages as u64);
    counters.bytes_sent.add(batch.bytes as u64);
}

/// While it lives, what is pushed to the lane waits; at its end it is flushed.
pub(crate) struct Cork<'a> {
    link: &'a Link,
    lane: Lane,
}

impl Cork<'_> {
    pub(crate) fn new(link: &Link, lane: Lane) -> Cork<'_> {
        link.peer.lane(lane).cork(link.id);
        Cork { link, lane }
    }
}

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        if self.link.peer.lane(self.lane).uncork(self.link.id) {
            self.link.flush(self.lane);
        }
    }
}
