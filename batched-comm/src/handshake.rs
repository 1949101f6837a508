//! The handshake on a fresh connection, from both sides: who is there, may they, and is it needed.

use std::sync::Arc;

use quinn::{ConnectionError, ReadError, ReadExactError, WriteError};
use rustls_pki_types::CertificateDer;

use crate::hello::{Confirm, ControlMessage, Hello, Verdict};
use crate::id::{ClusterId, NodeId};
use crate::identity::certificate_names;
use crate::link::Link;
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

/// The stream of the handshake.
struct Control {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl Control {
    async fn write(&mut self, message: ControlMessage) -> Result<(), HandshakeError> {
        self.send.write_all(&message.encode()).await.map_err(HandshakeError::of_write)
    }

    async fn read(&mut self) -> Result<ControlMessage, HandshakeError> {
        ControlMessage::read(&mut self.receive).await
    }
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
    let (send, receive) =
        connection.open_bi().await.map_err(|error| HandshakeError::of_connection(&error))?;
    let mut control = Control { send, receive };
    let own_hello = shared.hello();
    let announced = own_hello.cluster;
    control.write(ControlMessage::Hello(own_hello)).await?;
    let hello = match control.read().await? {
        ControlMessage::Welcome(hello) => hello,
        other => return Err(out_of_turn(&other)),
    };
    check_hello(shared, connection, &hello, target)?;
    let info = PeerInfo::of_hello(&hello);
    let peer = shared.peer_or_new(hello.node);
    peer.learn_address(&hello.advertised);
    let result = settle(shared, connection, &mut control, &peer, (announced, hello)).await;
    if result.is_err() {
        peer.drop_if_unused(shared);
    }
    result.map(|()| info)
}

/// The dialling side's end of the handshake: keeps the connection if it is needed and the peer agrees.
async fn settle(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    control: &mut Control,
    peer: &Arc<Peer>,
    (announced, hello): (Option<ClusterId>, Hello),
) -> Result<(), HandshakeError> {
    let Confirmation::Ask { previous, guard } = peer.confirm(hello.instance).await else {
        shared.close_superseded(connection);
        return Ok(());
    };
    let id = random_u64().max(1);
    control.write(ControlMessage::Confirm(Confirm { link: id, previous })).await?;
    match control.read().await? {
        ControlMessage::Verdict(Verdict::Accepted) => {
            shared.retire_predecessors(&hello);
            let said = (announced, hello);
            let link = Link::new(id, shared.clone(), peer.clone(), connection.clone(), true, said);
            peer.accepted(Arc::new(link));
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
    let (send, receive) =
        connection.accept_bi().await.map_err(|error| HandshakeError::of_connection(&error))?;
    let mut control = Control { send, receive };
    let hello = match control.read().await? {
        ControlMessage::Hello(hello) => hello,
        other => return Err(out_of_turn(&other)),
    };
    check_hello(shared, connection, &hello, None)?;
    let own_hello = shared.hello();
    let announced = own_hello.cluster;
    control.write(ControlMessage::Welcome(own_hello)).await?;
    let confirm = match control.read().await? {
        ControlMessage::Confirm(confirm) if confirm.link != 0 => confirm,
        other => return Err(out_of_turn(&other)),
    };
    let peer = shared.peer_or_new(hello.node);
    peer.learn_address(&hello.advertised);
    shared.retire_predecessors(&hello);
    let said = (announced, hello);
    let link = Link::new(confirm.link, shared.clone(), peer.clone(), connection.clone(), false, said);
    if peer.admit(Arc::new(link), confirm) {
        return control.write(ControlMessage::Verdict(Verdict::Accepted)).await;
    }
    control.write(ControlMessage::Verdict(Verdict::Superseded)).await?;
    // The dialling side closes when it has read the verdict; the caller's timeout bounds the wait.
    connection.closed().await;
    Ok(())
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
        return refuse(Refusal::OwnNode, format!("both are node {}", hello.node));
    }
    if let Some(target) = target.filter(|target| *target != hello.node) {
        return refuse(
            Refusal::OtherNode,
            format!("node {} instead of {target}: that one is gone", hello.node),
        );
    }
    let current = shared.peer(hello.node).and_then(|peer| peer.link());
    if let Some(current) = current.filter(|link| link.hello.name != hello.name) {
        let detail = format!("node {} is called {:?}, not {:?}", hello.node, current.hello.name, hello.name);
        return refuse(Refusal::Name, detail);
    }
    Ok(())
}

/// The names in the certificate the peer has proven.
fn peer_names(connection: &quinn::Connection) -> Result<Vec<String>, String> {
    let identity = connection.peer_identity().ok_or("the peer showed no certificate")?;
    let chain =
        identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| "the peer showed no X.509 chain")?;
    certificate_names(chain.first().ok_or("the peer showed an empty chain")?)
}
