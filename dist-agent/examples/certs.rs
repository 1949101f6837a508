//! Makes a certificate authority and a certificate for each node and client, for trying things out.
//!
//! ```text
//! certs --dir tls --node node-1 --node node-2 --node node-3 --node client
//! ```
//!
//! writes `tls/ca.pem`, `tls/node-1.pem`, `tls/node-1.key` and so on. The key of the authority is not kept: all nodes and clients
//! are named in one call, and whoever wants more makes everything anew.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dist_agent::raft_kv::rafted_value::transport::quic::batched_comm::CertificateAuthority;

/// Makes throw-away certificates, for all nodes and clients of a cluster in one call
#[derive(Parser)]
#[command(after_help = "Example: certs --dir tls --node node-1 --node node-2 --node node-3 --node client")]
struct Options {
    /// The folder that gets the files; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The name of a node or client; all are named in this call, each behind its own --node
    #[arg(long = "node", value_name = "NAME", required = true)]
    nodes: Vec<String>,
    /// For how many days the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u32,
}

fn main() -> ExitCode {
    match make(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "a program tells its user what went wrong")]
fn report(error: &dyn Error) {
    eprintln!("certs: {error}");
}

/// Each name becomes the names of files, beside that of the authority's certificate.
fn check_names(nodes: &[String]) -> Result<(), String> {
    for (index, node) in nodes.iter().enumerate() {
        // Not every file system tells capitals from others.
        if node.eq_ignore_ascii_case(AUTHORITY) {
            return Err(format!(
                "a node cannot be named {node:?}: its certificate would replace the authority's"
            ));
        }
        if nodes[..index].iter().any(|before| before.eq_ignore_ascii_case(node)) {
            return Err(format!(
                "two nodes are named {node:?}: the certificate of one would replace the other's"
            ));
        }
    }
    Ok(())
}

/// The name of the authority's files.
const AUTHORITY: &str = "ca";

fn make(options: &Options) -> Result<(), Box<dyn Error>> {
    let Options { dir, nodes, days } = options;
    check_names(nodes)?;
    let cannot_write = |error| format!("cannot write {dir:?}: {error}");
    std::fs::create_dir_all(dir).map_err(cannot_write)?;
    let authority = CertificateAuthority::new("dist-agent");
    let path = dir.join(AUTHORITY).with_extension("pem");
    let cannot_make = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "there is an authority in {dir:?} already, whose key was not kept: name all nodes in one call, or use another \
             directory"
        ),
        _ => format!("cannot make {path:?}: {error}"),
    };
    // Certificates of nodes are not overwritten either: they would not fit a new authority.
    let mut file = std::fs::File::create_new(&path).map_err(cannot_make)?;
    file.write_all(authority.ca_pem().as_bytes()).map_err(cannot_make)?;
    for node in nodes {
        authority.issue(node, *days, &[])?.save(dir, node)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The certificate of a node of that name once replaced the authority's, and nobody got in any more.
    #[test]
    fn no_certificate_replaces_another() {
        let check = |nodes: &[&str]| {
            let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
            check_names(&nodes)
        };
        assert_eq!(check(&["node-1", "node-2", "cafe"]), Ok(()));
        assert!(check(&["node-1", "ca"]).is_err());
        assert!(check(&["CA"]).is_err());
        assert!(check(&["node-1", "Node-1"]).is_err());
    }

    /// Whoever named one node after the other was told that a file exists, and not what to do.
    #[test]
    fn a_second_call_says_to_name_all_nodes_in_one() {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let call = |node: &str| {
            let (dir, nodes) = (dir.path().to_owned(), vec![node.to_owned()]);
            make(&Options { dir, nodes, days: 30 }).map_err(|error| error.to_string())
        };
        assert_eq!(call("node-1"), Ok(()));
        let error = call("node-2").expect_err("there is an authority");
        assert!(error.contains("name all nodes in one call, or use another directory"), "{error}");
        assert!(!dir.path().join("node-2.pem").exists());
    }
}
