//! Makes a certificate authority and a certificate for each node, for trying things out.
//!
//! `certs --dir DIR --node node-1 --node node-2` writes `ca.pem`, `node-1.pem`, `node-1.key` and so on. The key of the
//! authority is not kept: whoever wants more nodes makes everything anew.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dist_agent::raft_kv::rafted_value::transport::quic::batched_comm::CertificateAuthority;

/// Makes throw-away certificates
#[derive(Parser)]
struct Options {
    /// The folder that gets the files; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The name of a node; several may be named
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

fn make(options: &Options) -> Result<(), Box<dyn Error>> {
    let Options { dir, nodes, days } = options;
    let cannot_write = |error| format!("cannot write {dir:?}: {error}");
    std::fs::create_dir_all(dir).map_err(cannot_write)?;
    let authority = CertificateAuthority::new("dist-agent");
    std::fs::write(dir.join("ca.pem"), authority.ca_pem()).map_err(cannot_write)?;
    for node in nodes {
        authority.issue(node, *days, &[])?.save(dir, node)?;
    }
    Ok(())
}
