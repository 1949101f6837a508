//! Writes one lane of a connection: batch by batch, whatever has queued up.
//!
//! A lane is written by its own task, or, when it is quiet, by whoever has just queued something: waking a task
//! for a lone message costs a good part of a round trip. The stream is in one pair of hands at a time, and
//! batches are taken from the queue by these hands only, so that the order holds.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::WriteError;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use crate::lane::Lane;
use crate::link::Link;
use crate::pack::{Algorithm, Packer, take_bytes, take_part};
use crate::queue::{Batch, LaneQueue, Turn};
use crate::sending_stats::BatchStats;
use crate::shared::Shared;

/// A lane's stream, while nobody writes.
#[derive(Default)]
pub(crate) struct LaneStream {
    parked: Mutex<Option<Parked>>,
}

/// The stream, and what a flush could not write of its batch.
struct Parked {
    stream: quinn::SendStream,
    priority: i32,
    pieces: Vec<Bytes>,
    packer: Packer,
}

impl LaneStream {
    /// Writes what waits, without waiting: what the connection does not take now is left to the writer's task, and so
    /// is what takes longer, because it is to be packed or its rate is capped.
    pub(crate) fn flush(&self, link: &Link, lane: Lane) {
        let queue = link.peer.lane(lane);
        let mut parked = self.parked.try_lock();
        let Some(parked) = parked.as_mut().and_then(|parked| parked.as_mut()) else {
            // Somebody is writing, or the stream is not open yet.
            return queue.wake_writer();
        };
        if !parked.pieces.is_empty() || lane == Lane::Bulk || !queue.may_flush(link.features) {
            return queue.wake_writer();
        }
        let Some(batch) = queue.take(link.id, &mut parked.pieces) else { return };
        parked.set_priority(batch.settings.priority);
        count(link, lane, batch, batch.bytes);
        let Parked { stream, pieces, .. } = parked;
        let poll = pin!(stream.write_all_chunks(pieces)).poll(&mut Context::from_waker(Waker::noop()));
        if poll.is_ready() {
            // An error means that the connection is gone: its tasks see to the consequences.
            pieces.clear();
        }
        // Under the lock of the stream: nobody else says otherwise at the same time.
        queue.flushed(link.id, poll.is_pending());
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
    let parking = link.stream(lane);
    let mut is_open = false;
    loop {
        consume_budget().await;
        match next_turn(queue, link.id).await {
            Turn::Write | Turn::Wait(_) => {}
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
        let mut taken = Vec::new();
        let batch = queue.take(link.id, &mut taken);
        if parked.write(link, lane, batch, taken).await.is_err() {
            // The connection is gone: its other tasks see to the rest of the consequences.
            link.shared.counters.casts_dropped.add(batch.map_or(0, |batch| batch.casts) as u64);
            return;
        }
        let mut parking = parking.parked.lock();
        *parking = Some(parked);
        queue.flushed(link.id, false);
    }
}

/// What to do next, once it may be done: messages may have to wait for company first.
async fn next_turn(queue: &LaneQueue, link: u64) -> Turn {
    let mut is_due = false;
    loop {
        match poll_fn(|context| queue.poll_ready(link, context, is_due)).await {
            Turn::Wait(due) => {
                let company = poll_fn(|context| queue.poll_company(link, context));
                is_due = timeout_at(due, company).await.is_err();
            }
            turn => return turn,
        }
    }
}

impl Parked {
    fn set_priority(&mut self, priority: i32) {
        if std::mem::replace(&mut self.priority, priority) != priority {
            // A stream that is closed already is noticed at the write.
            let _ = self.stream.set_priority(priority);
        }
    }

    /// Writes what is left of the batch before, and a batch if there is one.
    async fn write(
        &mut self,
        link: &Link,
        lane: Lane,
        batch: Option<Batch>,
        taken: Vec<Bytes>,
    ) -> Result<(), WriteError> {
        let Some(batch) = batch else { return self.write_pieces().await };
        self.set_priority(batch.settings.priority);
        let compression = batch.settings.compression;
        let is_tried = link.features.takes(compression)
            && batch.bytes >= batch.settings.compression_bytes_min
            && self.packer.tries();
        let sent_bytes = if is_tried || lane == Lane::Bulk {
            self.write_pieces().await?;
            let algorithm = Algorithm::of(compression).filter(|_| is_tried);
            self.write_parts(link, lane, algorithm, taken.into()).await?
        } else {
            self.pieces.extend(taken);
            self.write_pieces().await?;
            batch.bytes
        };
        count(link, lane, batch, sent_bytes);
        Ok(())
    }

    /// Writes a batch part by part, packed where that pays, in its time on the bulk lane; returns the bytes written.
    async fn write_parts(
        &mut self,
        link: &Link,
        lane: Lane,
        mut algorithm: Option<Algorithm>,
        mut rest: VecDeque<Bytes>,
    ) -> Result<usize, WriteError> {
        let mut sent_bytes = 0;
        while !rest.is_empty() {
            let part = take_part(&mut rest);
            match algorithm {
                Some(tried) if sent_bytes == 0 => match self.packer.pack_first(tried, &part) {
                    Some(pack) => self.pieces.push(pack),
                    None => {
                        algorithm = None;
                        self.pieces.extend(part);
                    }
                },
                Some(algorithm) => self.packer.pack_next(algorithm, part, &mut self.pieces),
                None => self.pieces.extend(part),
            }
            sent_bytes += self.pieces.iter().map(Bytes::len).sum::<usize>();
            if lane == Lane::Bulk {
                self.write_paced(&link.shared).await?;
            } else {
                self.write_pieces().await?;
            }
            consume_budget().await;
        }
        Ok(sent_bytes)
    }

    /// Writes at the rate of the bulk lanes, a little at a time: what goes out at once, small messages have to wait for.
    async fn write_paced(&mut self, shared: &Shared) -> Result<(), WriteError> {
        let mut rest: VecDeque<Bytes> = std::mem::take(&mut self.pieces).into();
        while !rest.is_empty() {
            self.pieces = take_bytes(&mut rest, shared.bulk_slice_bytes());
            shared.await_bulk_tokens(self.pieces.iter().map(Bytes::len).sum()).await;
            self.write_pieces().await?;
        }
        Ok(())
    }

    async fn write_pieces(&mut self) -> Result<(), WriteError> {
        if !self.pieces.is_empty() {
            self.stream.write_all_chunks(&mut self.pieces).await?;
            self.pieces.clear();
        }
        Ok(())
    }
}

/// Ends a lane's stream and waits until the peer has all of it. A lane that nothing was sent on has none.
async fn finish(parked: Option<Parked>) {
    // What goes wrong here means that the connection is gone. A flush that took the last of the queue may have left some of
    // it to be written.
    if let Some(mut parked) = parked
        && parked.write_pieces().await.is_ok()
        && parked.stream.finish().is_ok()
    {
        let _ = parked.stream.stopped().await;
    }
}

/// Opens the lane's stream; its first byte tells which lane it is.
async fn open(link: &Link, lane: Lane) -> Option<Parked> {
    let stream = link.connection.open_uni().await.ok()?;
    let pieces = vec![Bytes::copy_from_slice(&[lane.tag()])];
    Some(Parked { stream, priority: 0, pieces, packer: Packer::default() })
}

fn count(link: &Link, lane: Lane, batch: Batch, sent_bytes: usize) {
    let counters = &link.shared.counters;
    counters.batches_sent.increment();
    counters.messages_sent.add(batch.messages as u64);
    counters.bytes_sent.add(sent_bytes as u64);
    counters.bytes_sent_raw.add(batch.bytes as u64);
    link.peer.collectors.record(BatchStats {
        lane,
        messages: batch.messages,
        raw_bytes: batch.bytes,
        sent_bytes,
    });
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::CertificateAuthority;
    use crate::config::EndpointConfig;
    use crate::id::NodeId;
    use crate::tls::{SERVER_NAME, client_config, server_config};

    /// Far more than a connection takes at once.
    const PIECES: usize = 64;
    const PIECE_BYTES: usize = 4 << 10;

    /// Both ends of a connection over loopback with small windows, and what keeps it up.
    async fn connected() -> ([quinn::Endpoint; 2], [quinn::Connection; 2]) {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let identity = CertificateAuthority::new("test").identity("node-1");
        let mut config = EndpointConfig::new(loopback, NodeId(1), "node-1", identity);
        config.lane_window_bytes = PIECE_BYTES as u32;
        config.idle_timeout = Duration::from_secs(60);
        let server = server_config(&config, &config.identity).unwrap();
        let accepting = quinn::Endpoint::server(server, loopback).unwrap();
        let dialling = quinn::Endpoint::client(loopback).unwrap();
        let client = client_config(&config, &config.identity).unwrap();
        let dial = dialling.connect_with(client, accepting.local_addr().unwrap(), SERVER_NAME).unwrap();
        let accept = async { accepting.accept().await.unwrap().await };
        let (dialled, accepted) = tokio::join!(dial, accept);
        ([dialling, accepting], [dialled.unwrap(), accepted.unwrap()])
    }

    /// What a flush had left of its batch was once dropped when the lane was ended: the peer found half a frame.
    #[tokio::test]
    async fn what_a_flush_has_left_is_written_before_the_lane_ends() {
        let (_endpoints, [here, there]) = connected().await;
        let sent: Vec<Bytes> = (0..PIECES).map(|piece| vec![piece as u8; PIECE_BYTES].into()).collect();
        let stream = here.open_uni().await.unwrap();
        let mut parked = Parked { stream, priority: 0, pieces: sent.clone(), packer: Packer::default() };
        let written = pin!(parked.write_pieces()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(written.is_pending(), "some is left");
        let read = async { there.accept_uni().await.unwrap().read_to_end(PIECES * PIECE_BYTES).await };
        let (received, ()) = tokio::join!(read, finish(Some(parked)));
        assert!(received.unwrap() == sent.concat(), "all of it, and in order");
    }
}
