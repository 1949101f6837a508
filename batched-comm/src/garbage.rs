//! Tells garbage from QUIC at the socket and counts it: QUIC itself drops it without a word.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, UdpPoller};
use quinn_proto::{ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};

use crate::counters::LiveCounters;

/// The shortest packet of RFC 9000: first byte, connection id of 8 bytes, packet number, sampled ciphertext.
const PACKET_BYTES_MIN: usize = 21;
/// What one transmission may hold when datagrams are sent as one (GSO): the most that fits into a UDP datagram
/// over IPv4. The kernel refuses larger ones, which QUIC would take for a lost burst.
const TRANSMIT_BYTES_MAX: usize = 65_507;
const LONG_HEADER: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;

/// A UDP socket that counts and drops datagrams that cannot be QUIC version 1.
pub(crate) struct FilteredSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    counters: Arc<LiveCounters>,
    transmit_segments_max: usize,
}

impl FilteredSocket {
    pub(crate) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        datagram_bytes_max: u16,
        counters: Arc<LiveCounters>,
    ) -> FilteredSocket {
        let transmit_segments_max = (TRANSMIT_BYTES_MAX / usize::from(datagram_bytes_max)).max(1);
        FilteredSocket { socket, counters, transmit_segments_max }
    }
}

impl std::fmt::Debug for FilteredSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilteredSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for FilteredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.socket.poll_recv(context, buffers, meta))?;
        for (buffer, meta) in buffers.iter().zip(meta.iter_mut()).take(received) {
            // Datagrams received as one (GRO) come from one sender and have one size: the first one tells.
            let first = &buffer[..meta.len.min(meta.stride)];
            if is_garbage(first) {
                self.counters.datagrams_garbage.add(meta.len.div_ceil(meta.stride.max(1)).max(1) as u64);
                meta.len = 0;
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(self.transmit_segments_max)
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// Whether a datagram cannot come from a peer: QUIC packets have the fixed bit (peers here never grease it) and
/// a minimal length, and those with a long header are of version 1 or negotiate the version.
pub(crate) fn is_garbage(datagram: &[u8]) -> bool {
    let Some(&first) = datagram.first() else { return true };
    if first & LONG_HEADER == 0 {
        return first & FIXED_BIT == 0 || datagram.len() < PACKET_BYTES_MIN;
    }
    match datagram.get(1..5) {
        Some([0, 0, 0, 0]) => false,
        Some([0, 0, 0, 1]) => first & FIXED_BIT == 0 || datagram.len() < PACKET_BYTES_MIN,
        _ => true,
    }
}

/// Connection ids that this node can recognise, across restarts of its process; packets with others are counted.
///
/// A packet of a connection that an earlier process of this node had is answered by a stateless reset, so that
/// the peer notices the restart at once; a packet with an invented id is garbage.
pub(crate) struct CountingIdGenerator {
    generator: HashedConnectionIdGenerator,
    counters: Arc<LiveCounters>,
}

impl CountingIdGenerator {
    pub(crate) fn new(key: u64, counters: Arc<LiveCounters>) -> CountingIdGenerator {
        CountingIdGenerator { generator: HashedConnectionIdGenerator::from_key(key), counters }
    }
}

impl ConnectionIdGenerator for CountingIdGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        self.generator.generate_cid()
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.generator.validate(id).inspect_err(|_| self.counters.datagrams_garbage.increment())
    }

    fn cid_len(&self) -> usize {
        self.generator.cid_len()
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        self.generator.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_quic_is_garbage() {
        assert!(is_garbage(b""));
        assert!(is_garbage(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(is_garbage(&[0x00; 100]));
        assert!(is_garbage(&[0xff; 100]), "version 0xffffffff");
        assert!(!is_garbage(&[0x40; 100]));
        assert!(!is_garbage(&[0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]));
    }
}
