//! Writes one lane of a connection: batch by batch, whatever has queued up.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;

use crate::lane::Lane;
use crate::link::Link;

/// Takes batches from the lane's queue and writes them until the connection ends or is replaced.
///
/// A batch that cannot be written completely is lost, and its casts are counted as dropped.
pub(crate) async fn write_lane(link: Arc<Link>, lane: Lane) {
    let queue = link.peer.lane(lane);
    let counters = &link.shared.counters;
    let mut stream: Option<quinn::SendStream> = None;
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut is_busy = false;
    loop {
        consume_budget().await;
        if !poll_fn(|context| queue.poll_ready(link.id, context)).await {
            return;
        }
        if is_busy {
            // Whoever woke this task is one of many that are about to send: they go first, for a larger batch.
            // A lone message does not wait.
            yield_now().await;
        }
        let Some(batch) = queue.take(link.id, &mut pieces) else { return };
        is_busy = batch.messages > 1;
        let is_written = write(&link, lane, &mut stream, &mut pieces).await;
        pieces.clear();
        if !is_written {
            // The connection is gone: its other tasks see to the rest of the consequences.
            counters.casts_dropped.add(batch.casts as u64);
            return;
        }
        counters.batches_sent.increment();
        counters.messages_sent.add(batch.messages as u64);
        counters.bytes_sent.add(batch.bytes as u64);
    }
}

async fn write(
    link: &Link,
    lane: Lane,
    stream: &mut Option<quinn::SendStream>,
    pieces: &mut Vec<Bytes>,
) -> bool {
    if stream.is_none() {
        let Ok(opened) = link.connection.open_uni().await else { return false };
        // A stream that is closed already is noticed at the write.
        let _ = opened.set_priority(lane.stream_priority());
        pieces.insert(0, Bytes::copy_from_slice(&[lane.tag()]));
        *stream = Some(opened);
    }
    match stream {
        Some(stream) => stream.write_all_chunks(pieces).await.is_ok(),
        None => false,
    }
}
