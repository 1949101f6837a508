//! The port through which names become addresses, anew at each dial.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

/// The addresses behind a name, when they are known.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks up `host:port`.
///
/// It is asked at each dial, so that a node that comes back under its name at another address is found; what it
/// answers is not kept. The dial's own timeout bounds the wait.
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The addresses of `host:port`, the best first; at most four of them are tried.
    fn resolve(&self, address: &str) -> Resolving;
}

/// The system's own way: DNS, the hosts file, whatever it is set up to ask.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, address: &str) -> Resolving {
        let address = address.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }
}
