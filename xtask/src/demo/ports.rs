//! Addresses on loopback that nobody listens on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// How often a port that is free for UDP may turn out to be taken for TCP.
const TRIES_MAX: usize = 100;

/// `count` different addresses that were free a moment ago, for UDP as well as for TCP.
///
/// All are held until the last is found, and then let go; another program may take one before the node does, and the
/// node then says that the port is in use.
pub(crate) fn free_addresses(count: u32) -> io::Result<Vec<SocketAddr>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(free_address()?);
    }
    held.iter().map(|(socket, _)| socket.local_addr()).collect()
}

fn free_address() -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        match TcpListener::bind(socket.local_addr()?) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if tries == TRIES_MAX => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ_and_can_be_bound() {
        let mut addresses = free_addresses(9).unwrap();
        let _sockets: Vec<UdpSocket> =
            addresses.iter().map(|address| UdpSocket::bind(address).unwrap()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 9);
    }
}
