//! Lifelines: one idle TCP connection beside each QUIC connection, which the system ends when the process dies.
//!
//! QUIC runs in the process, so nobody says goodbye for one that was killed, and its peers would have to wait for its
//! silence. A TCP connection belongs to the kernel: it is closed when the process ends, however it ends, and the peer
//! learns of it within a round trip.
//!
//! The accepting side of the QUIC connection draws a nonce and sends it through that connection, whose two ends have
//! proven themselves. The dialling side shows it as the first and only bytes of a TCP connection to the port of the
//! same number. Nothing else ever travels there: whoever forges, cuts or redirects a lifeline can end a connection,
//! which comes back, and learns nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::hello::Nonce;
use crate::shared::Shared;
use crate::socket::listen_for_lifelines;

/// The system keeps an idle lifeline known to the routers in between.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The wait after the system had no socket left to accept with.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The wait before a port that was taken is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// The lifelines that this endpoint waits for, by nonce.
pub(crate) struct Lifelines {
    expected: Mutex<Vec<(Nonce, oneshot::Sender<TcpStream>)>>,
    expected_max: usize,
}

/// A lifeline that is waited for; dropped, it is not welcome any more.
pub(crate) struct Expected<'a> {
    lifelines: &'a Lifelines,
    pub(crate) nonce: Nonce,
    pub(crate) stream: oneshot::Receiver<TcpStream>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        drop(self.lifelines.claim(&self.nonce));
    }
}

impl Lifelines {
    pub(crate) fn new(expected_max: usize) -> Lifelines {
        Lifelines { expected: Mutex::default(), expected_max }
    }

    /// Waits for one more lifeline; `None` when too many are waited for.
    pub(crate) fn expect(&self) -> Option<Expected<'_>> {
        let mut nonce = Nonce::default();
        SystemRandom::new().fill(&mut nonce).expect("the system provides random numbers");
        let (sender, stream) = oneshot::channel();
        let mut expected = self.expected.lock();
        if expected.len() >= self.expected_max {
            return None;
        }
        expected.push((nonce, sender));
        Some(Expected { lifelines: self, nonce, stream })
    }

    /// Takes out whoever waits for this nonce: it works once.
    ///
    /// Every nonce is compared, each in constant time, so that the time taken tells nothing about any of them.
    fn claim(&self, nonce: &Nonce) -> Option<oneshot::Sender<TcpStream>> {
        let mut expected = self.expected.lock();
        let mut found = None;
        for (place, (candidate, _)) in expected.iter().enumerate() {
            if bool::from(candidate.ct_eq(nonce)) {
                found = Some(place);
            }
        }
        found.map(|place| expected.swap_remove(place).1)
    }
}

/// Takes lifelines in until its task is aborted.
///
/// Strangers reach this port as they reach the other one: they are bounded in number, in bytes and in time.
///
/// A port that is taken, perhaps only by a passing connection of somebody else, is tried again now and then.
pub(crate) async fn accept_lifelines(shared: Arc<Shared>, mut listener: Option<TcpListener>) {
    let listener = loop {
        if let Some(listener) = listener {
            break listener;
        }
        sleep(LISTEN_RETRY).await;
        listener = shared.quinn.local_addr().and_then(listen_for_lifelines).ok();
    };
    shared.set_takes_lifelines();
    let strangers = Arc::new(());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        if Arc::strong_count(&strangers) > shared.config.handshakes_max {
            shared.counters.lifelines_refused.increment();
            continue;
        }
        let (shared, place) = (shared.clone(), strangers.clone());
        tokio::spawn(async move {
            let admitted = timeout(shared.config.connect_timeout, admit(&shared, stream)).await;
            if !matches!(admitted, Ok(Some(()))) {
                shared.counters.lifelines_refused.increment();
            }
            drop(place);
        });
    }
}

async fn admit(shared: &Shared, mut stream: TcpStream) -> Option<()> {
    let mut nonce = Nonce::default();
    stream.read_exact(&mut nonce).await.ok()?;
    keep_alive(&stream);
    shared.lifelines.claim(&nonce)?.send(stream).ok()
}

/// Dials the peer's end and shows the nonce.
pub(crate) async fn dial_lifeline(address: SocketAddr, nonce: Nonce) -> io::Result<TcpStream> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let mut stream = TcpStream::connect(address).await?;
    keep_alive(&stream);
    stream.write_all(&nonce).await?;
    Ok(stream)
}

/// How a lifeline ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LifelineEnd {
    /// The peer's system has closed it: its process has ended, or has let it go.
    Closed,
    /// The way to the peer broke, which says nothing about the process.
    Broken,
    /// The peer sent something on it.
    Misused,
}

/// Waits for the end of a lifeline; dropping the future loses nothing.
pub(crate) async fn lifeline_end(stream: &mut TcpStream) -> LifelineEnd {
    match stream.read(&mut [0]).await {
        Ok(0) => LifelineEnd::Closed,
        Ok(_) => LifelineEnd::Misused,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => LifelineEnd::Closed,
            _ => LifelineEnd::Broken,
        },
    }
}

/// A lifeline is useful without it: what the system does not grant is left.
fn keep_alive(stream: &TcpStream) {
    let keep_alive = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive) {
        tracing::debug!(%error, "no keep-alive on a lifeline");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_lets_one_lifeline_in_and_only_while_it_is_waited_for() {
        let lifelines = Lifelines::new(2);
        let (first, second) = (lifelines.expect().unwrap(), lifelines.expect().unwrap());
        assert!(lifelines.expect().is_none(), "two are enough");
        assert_ne!(first.nonce, second.nonce);
        assert!(lifelines.claim(&[0; 16]).is_none());
        let nonce = first.nonce;
        assert!(lifelines.claim(&nonce).is_some());
        assert!(lifelines.claim(&nonce).is_none(), "a nonce works once");
        let nonce = second.nonce;
        drop(second);
        assert!(lifelines.claim(&nonce).is_none(), "nobody waits for it any more");
        drop(first);
        assert!(lifelines.expect().is_some());
    }
}
