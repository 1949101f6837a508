//! The handshake's messages: who is there, and whether this connection is the one to keep.
//!
//! They travel on one bidirectional stream that the dialling side opens, each behind the same 8 bytes:
//!
//! ```text
//! offset  bytes  field
//!      0      4  "BCOM"
//!      4      2  wire version, little endian
//!      6      2  length of the body, little endian
//!      8      …  body: a `ControlMessage` in postcard
//! ```
//!
//! The version stands outside the body, so that any version can tell any other what it speaks. Which one two nodes
//! speak is settled in TLS (ALPN), so that neither has to guess: the highest that both know.
//!
//! Version 1 ends with the `Verdict`. In version 2 each side adds to its `Hello` or `Welcome` what it can do, and the
//! stream stays open for what belongs to the connection as a whole: the lifeline and the goodbye. Whatever else is
//! added later is a feature bit and a variant at the end, sent only to those who have shown the bit.

use serde::{Deserialize, Serialize};

use crate::authority::is_node_name;
use crate::handshake::HandshakeError;
use crate::id::{ClusterId, NodeId};
use crate::lane_settings::Compression;
use crate::refusal::Refusal;

/// Versions of everything this crate puts on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum WireVersion {
    V1 = 1,
    /// With features.
    V2 = 2,
}

impl WireVersion {
    /// Every version this node speaks, the best one first.
    pub(crate) const ALL: [WireVersion; 2] = [WireVersion::V2, WireVersion::V1];

    /// The protocol's name in TLS; it also tells this protocol from others on the same port.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            WireVersion::V1 => b"batched-comm",
            WireVersion::V2 => b"batched-comm/2",
        }
    }

    /// The version that was settled in TLS.
    pub(crate) fn of(connection: &quinn::Connection) -> WireVersion {
        let data = connection.handshake_data();
        let data = data.and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
        let protocol = data.and_then(|data| data.protocol);
        let settled =
            WireVersion::ALL.into_iter().find(|version| protocol.as_deref() == Some(version.alpn()));
        settled.unwrap_or(WireVersion::V1)
    }
}

/// What a node can do beyond the version: a set of bits, those of both sides count.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Features(pub(crate) u64);

impl Features {
    /// A lifeline beside the connection.
    pub(crate) const LIFELINE: Features = Features(1);
    /// Packs, by algorithm.
    pub(crate) const LZ4: Features = Features(1 << 1);
    pub(crate) const GZIP: Features = Features(1 << 2);
    pub(crate) const ZSTD: Features = Features(1 << 3);
    /// Casts to several services at once.
    pub(crate) const FAN_OUT: Features = Features(1 << 4);
    /// Everything this node can do.
    pub(crate) const ALL: Features = Features(0b1_1111);

    /// These without those of `other`.
    pub(crate) fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Whether any pack is taken.
    pub(crate) fn takes_packs(self) -> bool {
        [Features::LZ4, Features::GZIP, Features::ZSTD].into_iter().any(|algorithm| self.has(algorithm))
    }

    /// Whether packs of this compression are taken.
    pub(crate) fn takes(self, compression: Compression) -> bool {
        match compression {
            Compression::None => false,
            Compression::Lz4 => self.has(Features::LZ4),
            Compression::Gzip => self.has(Features::GZIP),
            Compression::Zstd => self.has(Features::ZSTD),
        }
    }

    /// What both can do.
    pub(crate) fn shared_with(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// Whether every bit of `other` is in here.
    pub(crate) fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a lifeline shows to be let in: 128 random bits.
pub(crate) type Nonce = [u8; 16];

const MAGIC: [u8; 4] = *b"BCOM";
const PREFIX_BYTES: usize = 8;
/// Names and addresses are limited to 255 bytes each: nothing legitimate comes near this.
const BODY_BYTES_MAX: usize = 1024;

/// What two nodes tell each other before the first message. Released variants are frozen; new ones go to the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ControlMessage {
    /// The dialling side says who it is.
    Hello(Hello),
    /// The accepting side says who it is.
    Welcome(Hello),
    /// The dialling side wants to keep this connection.
    Confirm(Confirm),
    /// The accepting side decides.
    Verdict(Verdict),
    /// `Hello` of version 2.
    HelloWith(Hello, Features),
    /// `Welcome` of version 2.
    WelcomeWith(Hello, Features),
    /// The accepting side waits for a lifeline that shows this, on the TCP port of its QUIC port's number.
    Lifeline(Nonce),
    /// The accepting side has bound the lifeline to this connection.
    LifelineHeld,
    /// Nothing more will come on any lane, and this side is about to close.
    Goodbye,
}

/// Who one side is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) node: NodeId,
    /// Drawn when the endpoint was bound: tells a restarted endpoint from the same one.
    pub(crate) instance: u64,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) name: String,
    /// Where the node wants to be dialled; empty for nowhere.
    pub(crate) advertised: String,
}

/// The dialling side has no other connection to this node, and names this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Confirm {
    /// Drawn by the dialling side.
    pub(crate) link: u64,
    /// The last connection to this node that it has seen end: if the accepting side still holds that one, it is
    /// a dead one.
    pub(crate) previous: Option<u64>,
}

/// The end of the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Verdict {
    Accepted,
    /// The accepting side keeps, or is about to make, another connection between the two.
    Superseded,
}

impl Hello {
    /// What the types cannot say.
    fn check(&self) -> Result<(), String> {
        if !is_node_name(&self.name) {
            return Err("the node name is not 1 to 255 printable ASCII characters".to_owned());
        }
        if self.advertised.len() > 255 || !self.advertised.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the advertised address is not up to 255 printable ASCII characters".to_owned());
        }
        Ok(())
    }
}

impl ControlMessage {
    /// The message as it goes on the wire.
    pub(crate) fn encode(&self, version: WireVersion) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a plain struct can be encoded");
        let body_bytes =
            u16::try_from(body.len()).expect("names and addresses are limited before they get here");
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(version as u16).to_le_bytes());
        bytes.extend_from_slice(&body_bytes.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a body.
    pub(crate) fn decode(body: &[u8]) -> Result<ControlMessage, HandshakeError> {
        let malformed = |detail: String| HandshakeError::Refusing(Refusal::Malformed, detail);
        let (message, rest) = postcard::take_from_bytes::<ControlMessage>(body)
            .map_err(|error| malformed(format!("handshake message: {error}")))?;
        if !rest.is_empty() {
            return Err(malformed(format!("handshake message with {} bytes too many", rest.len())));
        }
        if let ControlMessage::Hello(hello)
        | ControlMessage::Welcome(hello)
        | ControlMessage::HelloWith(hello, _)
        | ControlMessage::WelcomeWith(hello, _) = &message
        {
            hello.check().map_err(malformed)?;
        }
        Ok(message)
    }

    /// Reads the next message of the handshake.
    pub(crate) async fn read(
        stream: &mut quinn::RecvStream,
        version: WireVersion,
    ) -> Result<ControlMessage, HandshakeError> {
        let mut prefix = [0; PREFIX_BYTES];
        stream.read_exact(&mut prefix).await.map_err(HandshakeError::of_read)?;
        let mut body = vec![0; body_bytes(prefix, version)?];
        stream.read_exact(&mut body).await.map_err(HandshakeError::of_read)?;
        ControlMessage::decode(&body)
    }
}

/// Judges the bytes in front of a body and returns its length.
pub(crate) fn body_bytes(prefix: [u8; PREFIX_BYTES], agreed: WireVersion) -> Result<usize, HandshakeError> {
    let [m0, m1, m2, m3, v0, v1, l0, l1] = prefix;
    let (magic, version) = ([m0, m1, m2, m3], u16::from_le_bytes([v0, v1]));
    let body_bytes = usize::from(u16::from_le_bytes([l0, l1]));
    if magic != MAGIC {
        return Err(HandshakeError::Refusing(Refusal::Malformed, "not a batched-comm handshake".to_owned()));
    }
    let agreed = agreed as u16;
    if version != agreed {
        let detail = format!("the peer speaks version {version}, this node {agreed}");
        return Err(HandshakeError::Refusing(Refusal::OtherWireVersion, detail));
    }
    if body_bytes > BODY_BYTES_MAX {
        let detail =
            format!("a handshake message of {body_bytes} bytes is over the limit of {BODY_BYTES_MAX}");
        return Err(HandshakeError::Refusing(Refusal::Malformed, detail));
    }
    Ok(body_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            node: NodeId(0x0102),
            instance: 3,
            cluster: Some(ClusterId(4)),
            name: "node-a".into(),
            advertised: "localhost:7000".into(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<ControlMessage, HandshakeError> {
        let (prefix, body) = bytes.split_at(PREFIX_BYTES);
        let version = if bytes[4] == 2 { WireVersion::V2 } else { WireVersion::V1 };
        assert_eq!(body_bytes(prefix.try_into().unwrap(), version)?, body.len());
        ControlMessage::decode(body)
    }

    /// The bytes of version 1: they may never change.
    #[test]
    fn the_bytes_of_the_handshake_are_those_of_version_1() {
        let mut stranger = hello();
        stranger.cluster = None;
        stranger.advertised = "".into();
        let golden: [(ControlMessage, &[u8]); 5] = [
            (
                ControlMessage::Hello(hello()),
                b"BCOM\x01\0\x1c\0\x00\x82\x02\x03\x01\x04\x06node-a\x0elocalhost:7000",
            ),
            (ControlMessage::Welcome(stranger), b"BCOM\x01\0\x0d\0\x01\x82\x02\x03\x00\x06node-a\0"),
            (
                ControlMessage::Confirm(Confirm { link: 5, previous: Some(6) }),
                b"BCOM\x01\0\x04\0\x02\x05\x01\x06",
            ),
            (ControlMessage::Verdict(Verdict::Accepted), b"BCOM\x01\0\x02\0\x03\0"),
            (ControlMessage::Verdict(Verdict::Superseded), b"BCOM\x01\0\x02\0\x03\x01"),
        ];
        for (message, bytes) in golden {
            assert_eq!(message.encode(WireVersion::V1), bytes, "{message:?}");
            assert_eq!(decode(bytes).unwrap(), message);
        }
    }

    /// The bytes of version 2: they may never change.
    #[test]
    fn the_bytes_of_the_handshake_are_those_of_version_2() {
        let mut stranger = hello();
        stranger.cluster = None;
        stranger.advertised = "".into();
        let golden: [(ControlMessage, &[u8]); 6] = [
            (
                ControlMessage::HelloWith(hello(), Features(0x0180)),
                b"BCOM\x02\0\x1e\0\x04\x82\x02\x03\x01\x04\x06node-a\x0elocalhost:7000\x80\x03",
            ),
            (
                ControlMessage::WelcomeWith(stranger, Features::LIFELINE),
                b"BCOM\x02\0\x0e\0\x05\x82\x02\x03\x00\x06node-a\0\x01",
            ),
            (ControlMessage::Lifeline(*b"0123456789abcdef"), b"BCOM\x02\0\x11\0\x060123456789abcdef"),
            (ControlMessage::LifelineHeld, b"BCOM\x02\0\x01\0\x07"),
            (ControlMessage::Goodbye, b"BCOM\x02\0\x01\0\x08"),
            (ControlMessage::Verdict(Verdict::Accepted), b"BCOM\x02\0\x02\0\x03\0"),
        ];
        for (message, bytes) in golden {
            assert_eq!(message.encode(WireVersion::V2), bytes, "{message:?}");
            assert_eq!(decode(bytes).unwrap(), message);
        }
    }

    #[test]
    fn another_wire_version_is_refused_with_both_numbers() {
        let mut bytes = ControlMessage::Hello(hello()).encode(WireVersion::V1);
        bytes[4] = 3;
        let Err(HandshakeError::Refusing(Refusal::OtherWireVersion, detail)) = decode(&bytes) else {
            panic!("refused")
        };
        assert_eq!(detail, "the peer speaks version 3, this node 1");
    }

    #[test]
    fn a_message_with_bytes_left_over_is_malformed() {
        let mut body =
            ControlMessage::Verdict(Verdict::Accepted).encode(WireVersion::V1).split_off(PREFIX_BYTES);
        body.push(0);
        assert!(matches!(
            ControlMessage::decode(&body),
            Err(HandshakeError::Refusing(Refusal::Malformed, _))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..BODY_BYTES_MAX)) {
            let _ = ControlMessage::decode(&body);
        }
    }
}
