//! Another process with a node: the test binary again, running the same test in its other role.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use batched_comm::{CertificateAuthority, EndpointConfig, NodeId};
use bytes::Bytes;

use super::{LONG, authority, node_with};

/// Where the other process finds the CA; set for that process only.
const DIRECTORY: &str = "BATCHED_COMM_TEST_DIRECTORY";
/// The address it dials, if it is to dial.
const DIAL: &str = "BATCHED_COMM_TEST_DIAL";

/// The other process.
pub(crate) struct Other {
    pub(crate) child: Child,
    pub(crate) address: String,
    _directory: tempfile::TempDir,
}

impl Other {
    pub(crate) fn start(test: &str, dial: Option<&str>) -> Other {
        let directory = tempfile::tempdir().unwrap();
        authority().save(directory.path()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(DIRECTORY, directory.path())
            .envs(dial.map(|address| (DIAL, address)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the other process says where it is").unwrap();
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.to_owned();
            }
        };
        Other { child, address, _directory: directory }
    }

    /// The other role, in the process that was started for it; it ends with its standard input.
    pub(crate) fn play(mut config: EndpointConfig) -> bool {
        let Some(directory) = std::env::var_os(DIRECTORY) else { return false };
        let path = |name| std::path::Path::new(&directory).join(name);
        let authority = CertificateAuthority::from_files(path("ca.pem"), path("ca.key")).unwrap();
        config.identity = authority.identity(&config.name);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let node = runtime.block_on(async {
            let node = node_with(config).await;
            node.endpoint.register(batched_comm::ServiceId(2), std::sync::Arc::new(Forgetful));
            if let Ok(address) = std::env::var(DIAL) {
                node.endpoint.discover(&address, LONG).await.unwrap();
            }
            node
        });
        println!("listening on {}", node.endpoint.advertised());
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        runtime.block_on(node.endpoint.close());
        std::process::exit(0);
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps every reply for ever.
pub(crate) struct Forgetful;

impl batched_comm::Handler for Forgetful {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {}

    fn on_call(&self, _from: NodeId, _payload: Bytes, reply: batched_comm::Reply) {
        std::mem::forget(reply);
    }
}
