//! Reads one lane of a connection and hands out its messages.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::calls::Answer;
use crate::frame::{Frame, FrameError};
use crate::handler::{Reply, Route};
use crate::lane::Lane;
use crate::lane_decoder::LaneDecoder;
use crate::link::Link;
use crate::writer::Cork;

/// Chunks taken from the connection at a time: each is at most a packet's worth.
const CHUNKS: usize = 64;

/// Reads a lane until its stream or the connection ends; whatever is wrong with it closes the connection.
pub(crate) async fn read_lane(link: Arc<Link>, stream: quinn::RecvStream) {
    if let Err(error) = read_frames(&link, stream).await {
        link.refuse_frame(error);
    }
}

async fn read_frames(link: &Arc<Link>, mut stream: quinn::RecvStream) -> Result<(), FrameError> {
    let stall = link.shared.config.stall_timeout;
    let mut tag = [0];
    match timeout(stall, stream.read_exact(&mut tag)).await {
        Ok(Ok(())) => {}
        Ok(Err(quinn::ReadExactError::FinishedEarly(_))) => return Err(FrameError::Truncated),
        Ok(Err(_)) => return Ok(()),
        Err(_) => return Err(FrameError::Stalled),
    }
    let lane = Lane::from_tag(tag[0]).filter(|lane| link.open_lane(*lane)).ok_or(FrameError::Lane(tag[0]))?;
    let mut decoder = LaneDecoder::new(link.shared.config.message_bytes_max(lane), link.features);
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        consume_budget().await;
        let read = if decoder.is_inside_frame() {
            timeout(stall, stream.read_chunks(&mut chunks)).await.map_err(|_| FrameError::Stalled)?
        } else {
            stream.read_chunks(&mut chunks).await
        };
        let count = match read {
            Ok(Some(count)) => count,
            Ok(None) | Err(quinn::ReadError::Reset(_)) => {
                return if decoder.is_inside_frame() { Err(FrameError::Truncated) } else { Ok(()) };
            }
            // The connection is gone: its other tasks see to the consequences.
            Err(_) => return Ok(()),
        };
        let mut messages = 0;
        let mut cork = Cork::new(link, lane);
        for chunk in &mut chunks[..count] {
            decoder.push(std::mem::take(chunk));
            while let Some(frame) = decoder.next()? {
                deliver(link, lane, frame);
                messages += 1;
                if decoder.ends_turn() {
                    drop(cork);
                    yield_now().await;
                    cork = Cork::new(link, lane);
                }
            }
        }
        drop(cork);
        link.shared.counters.messages_received.add(messages);
    }
}

fn deliver(link: &Arc<Link>, lane: Lane, frame: Frame) {
    let shared = &link.shared;
    let from = link.peer.node;
    match frame {
        Frame::Cast { service, payload } => shared.services.deliver_cast(from, service, payload),
        Frame::Call { correlation, .. } if !link.begin_call() => link.refuse_call(lane, correlation),
        Frame::Call { service, correlation, payload } => {
            let reply = Reply::new(Route::Remote { link: link.clone(), lane, correlation });
            shared.services.deliver_call(from, service, payload, reply);
        }
        Frame::Outcome { correlation, outcome } => {
            let waiter = link.peer.calls.remove(correlation);
            if waiter.and_then(|waiter| waiter.send(Answer::Outcome(outcome)).ok()).is_none() {
                shared.counters.replies_unexpected.increment();
            }
        }
        Frame::Cluster(id) => link.learn_cluster(id),
        Frame::FanOut { services, payload } => {
            for service in services {
                shared.services.deliver_cast(from, service, payload.clone());
            }
        }
        // The decoder has taken it apart.
        Frame::Pack { .. } => {}
    }
}
