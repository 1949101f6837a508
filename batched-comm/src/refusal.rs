//! Why a connection was refused, in the words both sides use.

use std::fmt;

use quinn::{ConnectionError, VarInt};
use serde::Serialize;

/// Why one of two nodes did not want the connection.
///
/// The side that refuses logs it and sends it as the code of the connection's close, so that the other side's
/// error says it too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The certificate was not issued by the cluster's CA.
    OtherAuthority,
    /// The certificate is of the right CA but not usable: expired, not yet valid, of the wrong purpose.
    Certificate,
    /// The peer belongs to another cluster.
    OtherCluster,
    /// The peer speaks another version of the wire format.
    OtherWireVersion,
    /// Another node than the one dialled for lives at the address: the old one is gone.
    OtherNode,
    /// The peer claims the id of this very node, or is it.
    OwnNode,
    /// The peer's name is not in its certificate, or its id is in use by a node of another name.
    Name,
    /// Two connections between the same nodes, and this one was the loser: nothing is wrong.
    Superseded,
    /// The peer has as many connections as it may.
    TooManyConnections,
    /// The peer sent something that is not this protocol.
    Malformed,
    /// The peer is shutting down.
    ShuttingDown,
    /// A process of this id and name lives at another address: two of them cannot both be that node.
    IdTaken,
}

impl Refusal {
    /// The application close code that carries this refusal.
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Refusal::ShuttingDown => 1,
            Refusal::OtherWireVersion => 2,
            Refusal::OtherCluster => 3,
            Refusal::OtherNode => 4,
            Refusal::OwnNode => 5,
            Refusal::Name => 6,
            Refusal::Superseded => 7,
            Refusal::Malformed => 8,
            Refusal::TooManyConnections => 9,
            Refusal::OtherAuthority => 10,
            Refusal::Certificate => 11,
            Refusal::IdTaken => 12,
        })
    }

    /// The refusal a close code stands for; a code of a later version counts as malformed.
    pub(crate) fn from_code(code: VarInt) -> Refusal {
        match code.into_inner() {
            1 => Refusal::ShuttingDown,
            2 => Refusal::OtherWireVersion,
            3 => Refusal::OtherCluster,
            4 => Refusal::OtherNode,
            5 => Refusal::OwnNode,
            6 => Refusal::Name,
            7 => Refusal::Superseded,
            9 => Refusal::TooManyConnections,
            10 => Refusal::OtherAuthority,
            11 => Refusal::Certificate,
            12 => Refusal::IdTaken,
            _ => Refusal::Malformed,
        }
    }

    /// What a broken connection says about a refusal, when it says anything.
    pub(crate) fn of_connection(error: &ConnectionError) -> Option<Refusal> {
        match error {
            ConnectionError::ApplicationClosed(close) => Some(Refusal::from_code(close.error_code)),
            ConnectionError::ConnectionClosed(close) => of_transport_code(close.error_code.into()),
            ConnectionError::TransportError(error) => of_transport_code(error.code.into()),
            ConnectionError::VersionMismatch => Some(Refusal::OtherWireVersion),
            _ => None,
        }
    }
}

/// QUIC carries a TLS alert as 0x100 plus its number (RFC 9001, section 4.8; alerts: RFC 8446, section 6).
fn of_transport_code(code: u64) -> Option<Refusal> {
    const CONNECTION_REFUSED: u64 = 0x2;
    match code {
        CONNECTION_REFUSED => Some(Refusal::TooManyConnections),
        // unknown_ca
        0x130 => Some(Refusal::OtherAuthority),
        // bad_certificate, unsupported, revoked, expired, unknown, access_denied, decrypt_error, required
        0x12a..=0x12e | 0x131 | 0x133 | 0x174 => Some(Refusal::Certificate),
        // any other alert, no_application_protocol included
        0x100..=0x1ff => Some(Refusal::Malformed),
        _ => None,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::OtherAuthority => "certificate of another CA",
            Refusal::Certificate => "unusable certificate",
            Refusal::OtherCluster => "another cluster id",
            Refusal::OtherWireVersion => "another wire version",
            Refusal::OtherNode => "another node at this address",
            Refusal::OwnNode => "the node id is the receiver's own",
            Refusal::Name => "node name not covered by the certificate",
            Refusal::Superseded => "superseded by another connection of the same nodes",
            Refusal::TooManyConnections => "too many connections",
            Refusal::Malformed => "malformed data",
            Refusal::ShuttingDown => "shutting down",
            Refusal::IdTaken => "another living process has the node id",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_trip_through_its_close_code() {
        for refusal in [
            Refusal::OtherAuthority,
            Refusal::Certificate,
            Refusal::OtherCluster,
            Refusal::OtherWireVersion,
            Refusal::OtherNode,
            Refusal::OwnNode,
            Refusal::Name,
            Refusal::Superseded,
            Refusal::TooManyConnections,
            Refusal::Malformed,
            Refusal::ShuttingDown,
            Refusal::IdTaken,
        ] {
            assert_eq!(Refusal::from_code(refusal.code()), refusal);
        }
    }
}
