//! The handshake on a fresh connection, from both sides: who is there, may they, and is it needed.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ConnectionError, ReadError, ReadExactError, WriteError};
use rustls_pki_types::CertificateDer;

use crate::hello::{Confirm, ControlMessage, Features, Hello, Verdict, WireVersion};
use crate::id::{ClusterId, NodeId};
use crate::identity::certificate_names;
use crate::link::Link;
use crate::liveness::watch_link;
use crate::peer::{Confirmation, Peer};
use crate::peer_info::PeerInfo;
use crate::refusal::Refusal;
use crate::shared::{Shared, random_u64};

/// How a handshake went wrong.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// This side does not want the connection and has to say so.
    Refusing(Refusal, String),
    /// The other side does not want it and has said so, or TLS has.
    Refused(Refusal, String),
    /// It broke without a word.
    Broken(String),
}

impl HandshakeError {
    pub(crate) fn of_connection(error: &ConnectionError) -> HandshakeError {
        match Refusal::of_connection(error) {
            Some(refusal) => HandshakeError::Refused(refusal, error.to_string()),
            None => HandshakeError::Broken(error.to_string()),
        }
    }

    pub(crate) fn of_read(error: ReadExactError) -> HandshakeError {
        match error {
            ReadExactError::ReadError(ReadError::ConnectionLost(error)) => {
                HandshakeError::of_connection(&error)
            }
            other => HandshakeError::Refusing(Refusal::Malformed, other.to_string()),
        }
    }

    fn of_write(error: WriteError) -> HandshakeError {
        match error {
            WriteError::ConnectionLost(error) => HandshakeError::of_connection(&error),
            other => HandshakeError::Refusing(Refusal::Malformed, other.to_string()),
        }
    }
}

/// The stream of the handshake, and from version 2 on of what concerns the connection as a whole.
pub(crate) struct Control {
    send: ControlSender,
    receive: ControlReceiver,
}

/// Its sending half.
pub(crate) struct ControlSender {
    stream: quinn::SendStream,
    version: WireVersion,
}

/// Its receiving half.
pub(crate) struct ControlReceiver {
    stream: quinn::RecvStream,
    version: WireVersion,
}

impl ControlSender {
    pub(crate) async fn write(&mut self, message: &ControlMessage) -> Result<(), HandshakeError> {
        self.stream.write_all(&message.encode(self.version)).await.map_err(HandshakeError::of_write)
    }

    /// The last word; returns when the peer has acknowledged it, or the connection has ended.
    pub(crate) async fn say_goodbye(&mut self) {
        // Whatever goes wrong here, the connection is about to be closed.
        if self.write(&ControlMessage::Goodbye).await.is_ok() && self.stream.finish().is_ok() {
            let _ = self.stream.stopped().await;
        }
    }
}

impl ControlReceiver {
    pub(crate) async fn read(&mut self) -> Result<ControlMessage, HandshakeError> {
        ControlMessage::read(&mut self.stream, self.version).await
    }
}

impl Control {
    fn new((send, receive): (quinn::SendStream, quinn::RecvStream), version: WireVersion) -> Control {
        let send = ControlSender { stream: send, version };
        Control { send, receive: ControlReceiver { stream: receive, version } }
    }

    async fn write(&mut self, message: ControlMessage) -> Result<(), HandshakeError> {
        self.send.write(&message).await
    }

    async fn read(&mut self) -> Result<ControlMessage, HandshakeError> {
        self.receive.read().await
    }

    pub(crate) fn split(self) -> (ControlSender, ControlReceiver) {
        (self.send, self.receive)
    }
}

/// What the two sides have said of themselves.
pub(crate) struct Introduction {
    /// The cluster this side named.
    pub(crate) announced: Option<ClusterId>,
    pub(crate) hello: Hello,
    /// What both can do.
    pub(crate) features: Features,
}

fn out_of_turn(message: &ControlMessage) -> HandshakeError {
    HandshakeError::Refusing(Refusal::Malformed, format!("handshake message out of turn: {message:?}"))
}

/// The dialling side's handshake. On success the node is connected, by this connection or by another.
pub(crate) async fn greet(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    target: Option<NodeId>,
) -> Result<PeerInfo, HandshakeError> {
    let streams = connection.open_bi().await.map_err(|error| HandshakeError::of_connection(&error))?;
    let version = WireVersion::of(connection);
    let mut control = Control::new(streams, version);
    let (own_hello, own_features) = (shared.hello(), shared.features());
    let announced = own_hello.cluster;
    control
        .write(match version {
            WireVersion::V1 => ControlMessage::Hello(own_hello),
            WireVersion::V2 => ControlMessage::HelloWith(own_hello, own_features),
        })
        .await?;
    let (hello, features) = match (version, control.read().await?) {
        (WireVersion::V1, ControlMessage::Welcome(hello)) => (hello, Features::default()),
        (WireVersion::V2, ControlMessage::WelcomeWith(hello, features)) => (hello, features),
        (_, other) => return Err(out_of_turn(&other)),
    };
    check_hello(shared, connection, &hello, target)?;
    let info = PeerInfo::of_hello(&hello);
    let peer = shared.peer_or_new(hello.node);
    peer.learn_address(&reachable(&hello.advertised, connection.remote_address()));
    let said = Introduction { announced, hello, features: own_features.shared_with(features) };
    let result = settle(shared, connection, control, &peer, said).await;
    if result.is_err() {
        peer.drop_if_unused(shared);
    }
    result.map(|()| info)
}

/// The dialling side's end of the handshake: keeps the connection if it is needed and the peer agrees.
async fn settle(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    mut control: Control,
    peer: &Arc<Peer>,
    said: Introduction,
) -> Result<(), HandshakeError> {
    let Confirmation::Ask { previous, guard } = peer.confirm(said.hello.instance).await else {
        shared.close_superseded(connection);
        return Ok(());
    };
    let id = random_u64().max(1);
    control.write(ControlMessage::Confirm(Confirm { link: id, previous })).await?;
    match control.read().await? {
        ControlMessage::Verdict(Verdict::Accepted) => {
            shared.retire_predecessors(&said.hello);
            let link = Link::new(id, shared.clone(), peer.clone(), connection.clone(), true, said);
            let link = Arc::new(link);
            peer.accepted(link.clone());
            start_watch(link, control);
        }
        ControlMessage::Verdict(Verdict::Superseded) => {
            drop(guard);
            shared.close_superseded(connection);
            wait_until_connected(peer).await;
        }
        other => return Err(out_of_turn(&other)),
    }
    Ok(())
}

/// Watches the connection as a whole; the stream ended with the handshake in version 1.
fn start_watch(link: Arc<Link>, control: Control) {
    let control = (control.send.version >= WireVersion::V2).then_some(control);
    tokio::spawn(watch_link(link, control));
}

/// The other connection is being made right now; the dial's own timeout bounds the wait.
async fn wait_until_connected(peer: &Peer) {
    loop {
        let changed = peer.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if peer.link().is_some() {
            return;
        }
        changed.await;
    }
}

/// The accepting side's handshake. On success the connection is started, or another one is kept.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
) -> Result<(), HandshakeError> {
    let streams = connection.accept_bi().await.map_err(|error| HandshakeError::of_connection(&error))?;
    let version = WireVersion::of(connection);
    let mut control = Control::new(streams, version);
    let (hello, features) = match (version, control.read().await?) {
        (WireVersion::V1, ControlMessage::Hello(hello)) => (hello, Features::default()),
        (WireVersion::V2, ControlMessage::HelloWith(hello, features)) => (hello, features),
        (_, other) => return Err(out_of_turn(&other)),
    };
    check_hello(shared, connection, &hello, None)?;
    let (own_hello, own_features) = (shared.hello(), shared.features());
    let announced = own_hello.cluster;
    control
        .write(match version {
            WireVersion::V1 => ControlMessage::Welcome(own_hello),
            WireVersion::V2 => ControlMessage::WelcomeWith(own_hello, own_features),
        })
        .await?;
    let confirm = match control.read().await? {
        ControlMessage::Confirm(confirm) if confirm.link != 0 => confirm,
        other => return Err(out_of_turn(&other)),
    };
    let peer = shared.peer_or_new(hello.node);
    peer.learn_address(&reachable(&hello.advertised, connection.remote_address()));
    shared.retire_predecessors(&hello);
    let said = Introduction { announced, hello, features: own_features.shared_with(features) };
    let link = Link::new(confirm.link, shared.clone(), peer.clone(), connection.clone(), false, said);
    let link = Arc::new(link);
    if peer.admit(link.clone(), confirm) {
        control.write(ControlMessage::Verdict(Verdict::Accepted)).await?;
        start_watch(link, control);
        return Ok(());
    }
    control.write(ControlMessage::Verdict(Verdict::Superseded)).await?;
    // The dialling side closes when it has read the verdict; the caller's timeout bounds the wait.
    connection.closed().await;
    Ok(())
}

/// Where a peer is to be dialled that says this of itself and is seen at `seen`.
///
/// One that listens on all addresses and was told nothing else says `0.0.0.0`, which here would be this very machine.
fn reachable(advertised: &str, seen: SocketAddr) -> Cow<'_, str> {
    match advertised.parse::<SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() => {
            Cow::Owned(SocketAddr::new(seen.ip().to_canonical(), all.port()).to_string())
        }
        _ => Cow::Borrowed(advertised),
    }
}

/// Whether the node that said `hello` may be a peer of this one.
fn check_hello(
    shared: &Shared,
    connection: &quinn::Connection,
    hello: &Hello,
    target: Option<NodeId>,
) -> Result<(), HandshakeError> {
    let refuse = |refusal, detail: String| Err(HandshakeError::Refusing(refusal, detail));
    let names =
        peer_names(connection).map_err(|detail| HandshakeError::Refusing(Refusal::Certificate, detail))?;
    if !names.contains(&hello.name) {
        return refuse(
            Refusal::Name,
            format!("the peer calls itself {:?}, its certificate {names:?}", hello.name),
        );
    }
    if let (Some(here), Some(there)) = (shared.cluster(), hello.cluster)
        && here != there
    {
        return refuse(
            Refusal::OtherCluster,
            format!("the peer belongs to cluster {there}, this node to {here}"),
        );
    }
    if hello.node == shared.config.node {
        let is_twin = hello.name == shared.config.name && hello.instance != shared.instance;
        return match is_twin {
            true => refuse(Refusal::IdTaken, taken(hello, &shared.advertised)),
            false => refuse(Refusal::OwnNode, format!("both are node {}", hello.node)),
        };
    }
    if let Some(target) = target.filter(|target| *target != hello.node) {
        return refuse(
            Refusal::OtherNode,
            format!("node {} instead of {target}: that one is gone", hello.node),
        );
    }
    let Some(peer) = shared.peer(hello.node) else { return Ok(()) };
    let Some(current) = peer.link() else { return Ok(()) };
    if current.hello.name != hello.name {
        let detail = format!("node {} is called {:?}, not {:?}", hello.node, current.hello.name, hello.name);
        return refuse(Refusal::Name, detail);
    }
    if is_second(&current.hello, hello) && peer.is_heard() {
        return refuse(Refusal::IdTaken, taken(hello, &current.hello.advertised));
    }
    Ok(())
}

/// Whether a hello is another process's than that of a connection that stands. At the same address it is the next life
/// of the first, since only one process can hold an address, whatever the connection looks like from here.
fn is_second(current: &Hello, hello: &Hello) -> bool {
    let both_say_where = !current.advertised.is_empty() && !hello.advertised.is_empty();
    current.instance != hello.instance && both_say_where && current.advertised != hello.advertised
}

fn taken(hello: &Hello, lives_at: &str) -> String {
    let Hello { node, name, advertised, .. } = hello;
    format!(
        "node {node} named {name:?} lives at {lives_at}, and another process at {advertised} says that it is it"
    )
}

/// The names in the certificate the peer has proven.
fn peer_names(connection: &quinn::Connection) -> Result<Vec<String>, String> {
    let identity = connection.peer_identity().ok_or("the peer showed no certificate")?;
    let chain =
        identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| "the peer showed no X.509 chain")?;
    certificate_names(chain.first().ok_or("the peer showed an empty chain")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_is_where_the_peer_is_seen() {
        let seen =
            |advertised: &'static str| reachable(advertised, "[::ffff:10.0.0.7]:4242".parse().unwrap());
        assert_eq!(seen("0.0.0.0:7000"), "10.0.0.7:7000");
        assert_eq!(seen("[::]:7000"), "10.0.0.7:7000");
        for said in ["10.0.0.8:7000", "node-1.example:7000", "", "nonsense"] {
            assert_eq!(seen(said), said);
        }
    }
}
