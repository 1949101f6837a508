//! The way into a cluster: its seeds, and the certificate that opens them.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dist_agent::raft_kv::rafted_value::disk::{Disk, RealDisk};
use dist_agent::raft_kv::rafted_value::env::{Env, RealEnv, random_u64_from_os};
use dist_agent::raft_kv::rafted_value::node_on;
use dist_agent::raft_kv::rafted_value::transport::quic::QuicTransport;
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
    /// told to reach it at `advertise`, or else where it listens. With a directory it is the node that the directory knows,
    /// and keeps there what it is told; without one it is another node in each life.
    pub(crate) async fn open(
        &self,
        listen: SocketAddr,
        advertise: Option<String>,
        name: Option<&str>,
        directory: Option<&Path>,
    ) -> Result<(Endpoint, Arc<dyn Env>), Box<dyn Error>> {
        let identity = Identity::from_files(&self.ca, &self.cert, &self.key)?;
        let name = match (name, identity.names()) {
            (Some(name), _) => name.to_owned(),
            (None, [name, ..]) => name.clone(),
            (None, []) => return Err(format!("{:?} names nobody", self.cert).into()),
        };
        let disk: Option<Arc<dyn Disk>> = match directory {
            Some(directory) => Some(Arc::new(RealDisk::open(directory)?)),
            None => None,
        };
        let kept = disk.as_deref().map(node_on).transpose()?.flatten();
        let node = NodeId(kept.map_or_else(|| random_u64_from_os().max(1), |node| node.0));
        let config =
            EndpointConfig { advertise, ..EndpointConfig::new(listen, node, name.clone(), identity) };
        let endpoint = Endpoint::bind(config).await?;
        let transport = QuicTransport::new(endpoint.clone(), name);
        let env = match disk {
            Some(disk) => RealEnv::with_disk(transport, disk),
            None => RealEnv::new(transport),
        };
        Ok((endpoint, env))
    }
}
