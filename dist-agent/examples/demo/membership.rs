//! The way into a cluster: its seeds, and the certificate that opens them.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dist_agent::raft_kv::rafted_value::env::{Env, RealEnv, random_u64_from_os};
use dist_agent::raft_kv::rafted_value::transport::quic::batched_comm::{
    Endpoint, EndpointConfig, Identity, NodeId,
};

/// The flags that say which cluster, and as whom.
#[derive(Args, Debug)]
pub(crate) struct Membership {
    /// Where a node of the cluster listens; several may be named
    #[arg(long = "seed", value_name = "IP:PORT", required = true)]
    pub(crate) seeds: Vec<String>,
    /// The certificate of the cluster's authority
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// This program's certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// The private key to it
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

impl Membership {
    /// Opens the door to the world: a QUIC endpoint on `listen`, under `name` or else the certificate's own. Others are
    /// told to reach it at `advertise`, or else where it listens.
    pub(crate) async fn open(
        &self,
        listen: SocketAddr,
        advertise: Option<String>,
        name: Option<&str>,
    ) -> Result<(Endpoint, Arc<dyn Env>), Box<dyn Error>> {
        let identity = Identity::from_files(&self.ca, &self.cert, &self.key)?;
        let name = match (name, identity.names()) {
            (Some(name), _) => name.to_owned(),
            (None, [name, ..]) => name.clone(),
            (None, []) => return Err(format!("{:?} names nobody", self.cert).into()),
        };
        let node = NodeId(random_u64_from_os().max(1));
        let config =
            EndpointConfig { advertise, ..EndpointConfig::new(listen, node, name.clone(), identity) };
        let endpoint = Endpoint::bind(config).await?;
        Ok((endpoint.clone(), RealEnv::over_quic(endpoint, name)))
    }
}
