//! `ca new` and `node new`: the certificates of a cluster, by the calls of the library that a program would make itself.
//!
//! Keys are readable by their owner only, and nothing that exists is overwritten: a CA that is replaced by mistake locks
//! out every node.

use std::path::PathBuf;

use batched_comm::{CertificateAuthority, Identity};

use crate::bench::BoxError;

/// The certificate authority of a cluster.
#[derive(clap::Subcommand)]
pub(crate) enum Ca {
    /// Makes a certificate authority: ca.pem for every node, and ca.key for whoever adds nodes
    New(NewCa),
}

/// The certificate of a node.
#[derive(clap::Subcommand)]
pub(crate) enum Node {
    /// Makes the certificate of a node, NAME.pem, and the key to it, NAME.key
    New(NewNode),
}

/// What a new authority is made of.
#[derive(clap::Args)]
pub(crate) struct NewCa {
    /// The folder that gets the files; it is made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// For people who read the certificate
    #[arg(long, default_value = "cluster")]
    name: String,
    /// Days for which it is valid
    #[arg(long, default_value_t = 3650)]
    days: u32,
}

/// What the certificate of a new node is made of.
#[derive(clap::Args)]
pub(crate) struct NewNode {
    /// The node's name: what its configuration calls it
    name: String,
    /// The folder with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The folder that gets the files, if not that of the authority; it is made if it is not there
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Days for which it is valid
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Further names, for other tools: DNS names or IP addresses; nodes know each other by NAME, wherever they live
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
}

impl Ca {
    /// Makes the files and says which.
    pub(crate) fn run(&self) -> Result<(), BoxError> {
        let Ca::New(NewCa { dir, name, days }) = self;
        let authority = CertificateAuthority::new_for(name, *days)?;
        authority.save(dir)?;
        println!("{}: every node needs it", dir.join("ca.pem").display());
        println!("{}: whoever has it can add nodes; nodes do not need it", dir.join("ca.key").display());
        Ok(())
    }
}

impl Node {
    /// Makes the files and says which.
    pub(crate) fn run(&self) -> Result<(), BoxError> {
        let Node::New(NewNode { name, ca, dir, days, addresses }) = self;
        let authority = CertificateAuthority::from_files(ca.join("ca.pem"), ca.join("ca.key"))?;
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let node = authority.issue(name, *days, &addresses)?;
        // What no peer would accept is not written.
        Identity::from_pem(authority.ca_pem(), &node.cert_pem, &node.key_pem)?;
        let dir = dir.as_ref().unwrap_or(ca);
        node.save(dir, name)?;
        println!("{}: valid for {days} days", dir.join(format!("{name}.pem")).display());
        println!("{}: for this node only", dir.join(format!("{name}.key")).display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use batched_comm::{Endpoint, EndpointConfig, Handler, Lane, NodeId, Reply, ServiceId};
    use bytes::Bytes;

    #[derive(Parser)]
    enum Verb {
        #[command(subcommand)]
        Ca(Ca),
        #[command(subcommand)]
        Node(Node),
    }

    /// Runs a line as the shell would; `@` stands for the folder.
    fn run(folder: &Path, line: &str) -> Result<(), String> {
        let line = line.replace('@', folder.to_str().unwrap());
        let verb = Verb::try_parse_from(std::iter::once("drive").chain(line.split(' ')));
        match verb.map_err(|error| error.to_string())? {
            Verb::Ca(ca) => ca.run(),
            Verb::Node(node) => node.run(),
        }
        .map_err(|error| error.to_string())
    }

    struct Echo;

    impl Handler for Echo {
        fn on_cast(&self, _: NodeId, _: Bytes) {}

        fn on_call(&self, _: NodeId, payload: Bytes, reply: Reply) {
            reply.send(payload);
        }
    }

    #[tokio::test]
    async fn nodes_with_certificates_made_by_the_verbs_talk_to_each_other() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "ca new --dir @/ca --name test --days 30").unwrap();
        run(folder.path(), "node new one --ca @/ca --dir @/nodes").unwrap();
        run(
            folder.path(),
            "node new two --ca @/ca --dir @/nodes --days 7 --address 127.0.0.1 --address localhost",
        )
        .unwrap();
        let path = |name: String| folder.path().join(name);
        let bind = |id, name: &str| {
            let (cert, key) = (path(format!("nodes/{name}.pem")), path(format!("nodes/{name}.key")));
            let identity = Identity::from_files(path("ca/ca.pem".into()), cert, key).unwrap();
            let mut config = EndpointConfig::new(([127, 0, 0, 1], 0).into(), NodeId(id), name, identity);
            // What the call below waits for on a busy machine.
            config.connect_timeout = Duration::from_secs(10);
            Endpoint::bind(config)
        };
        let (one, two) = (bind(1, "one").await.unwrap(), bind(2, "two").await.unwrap());
        two.register(ServiceId(1), Arc::new(Echo));
        one.set_address(NodeId(2), two.advertised());
        let call = one.call(
            NodeId(2),
            Lane::Normal,
            ServiceId(1),
            Bytes::from_static(b"x"),
            Duration::from_secs(10),
        );
        assert_eq!(call.await.unwrap(), "x");
        for key in ["ca/ca.key", "nodes/one.key", "nodes/two.key"] {
            let mode = std::fs::metadata(path(key.into())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        for folder in ["ca", "nodes"] {
            assert_eq!(std::fs::metadata(path(folder.into())).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn nothing_is_overwritten_and_what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "ca new --dir @").unwrap();
        run(folder.path(), "node new one --ca @").unwrap();
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let before = ["ca.pem", "ca.key", "one.pem", "one.key"].map(read);
        #[track_caller]
        fn check(folder: &Path, line: &str, says: &str) {
            let error = run(folder, line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
        let check = |line, says| check(folder.path(), line, says);
        check("ca new --dir @", "ca.key\" exists already and is not overwritten");
        check("node new one --ca @", "one.key\" exists already and is not overwritten");
        check("node new ca --ca @", "ca.key\" exists already and is not overwritten");
        assert_eq!(["ca.pem", "ca.key", "one.pem", "one.key"].map(read), before);
        check("node new two --ca @/missing", "missing/ca.pem\": No such file");
        check("node new ../two --ca @", "cannot be the name of a file");
        check("node new 10.0.0.1 --ca @", "cannot stand in a certificate");
        check("node new two --ca @ --days 0", "a validity of 0 days is outside 1 to 36500");
        check("node new two --ca @ --days x", "invalid value 'x'");
        check("ca new --dir @/one.pem/below", "cannot write");
        check("node new --ca @", "<NAME>");
        run(folder.path(), "ca new --dir @/other").unwrap();
        std::fs::copy(folder.path().join("ca.pem"), folder.path().join("other/ca.pem")).unwrap();
        check("node new two --ca @/other", "other/ca.key: is not the key of the CA's certificate");
        assert!(!folder.path().join("two.key").exists() && !folder.path().join("other/two.key").exists());
    }
}
