//! How a node is configured: by flags, else by variables of the environment, else by a TOML file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;

use crate::demo::Membership;

/// A node of a cluster of counters
///
/// What no flag says is looked for in the environment, and then in the file that --config names.
#[derive(Parser, Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// A TOML file with any of the other settings, under the names of their flags
    #[arg(long, env = "DIST_AGENT_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The node's name, as its certificate says
    #[arg(long, env = "DIST_AGENT_NAME")]
    name: Option<String>,
    /// Where this node listens
    #[arg(long, env = "DIST_AGENT_LISTEN", value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where others reach it, if not where it listens
    #[arg(long, env = "DIST_AGENT_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where a node of the cluster listens; several may be named
    #[arg(long = "seed", env = "DIST_AGENT_SEEDS", value_name = "HOST:PORT", value_delimiter = ',')]
    seeds: Vec<String>,
    /// How many nodes must see each other before a new cluster is formed
    #[arg(long, env = "DIST_AGENT_EXPECT", value_name = "N")]
    expect: Option<usize>,
    /// The zone (rack, data centre) over which the members of a shard are spread; zone-1 if not given
    #[arg(long, env = "DIST_AGENT_ZONE")]
    zone: Option<String>,
    /// Into how many shards the agents are divided, the same on every node; 16 if not given
    #[arg(long, env = "DIST_AGENT_SHARDS", value_name = "N")]
    shards: Option<u32>,
    /// The length of a tick in milliseconds, as the first node says it; a minute if not given
    #[arg(long, env = "DIST_AGENT_TICK_MS", value_name = "MS")]
    tick_ms: Option<u64>,
    /// Keeps agents and quotas in this directory, so that they are there after all nodes were stopped; in memory if not given
    #[arg(long, env = "DIST_AGENT_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The certificate of the cluster's authority
    #[arg(long, env = "DIST_AGENT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// This node's certificate
    #[arg(long, env = "DIST_AGENT_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key to it
    #[arg(long, env = "DIST_AGENT_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Hands over all that the node holds before it ends, so that nobody notices
    #[arg(long)]
    #[serde(skip)]
    drain: bool,
    /// Ends the node when its standard input is closed
    #[arg(long)]
    #[serde(skip)]
    exit_on_stdin_close: bool,
}

/// Settings of which nothing is missing.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<String>,
    pub(crate) expect: usize,
    pub(crate) zone: String,
    pub(crate) shards: u32,
    pub(crate) tick: Duration,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) membership: Membership,
    pub(crate) drain: bool,
    pub(crate) exit_on_stdin_close: bool,
}

impl Settings {
    /// Adds what the file says, if one is named, and makes sure that nothing is missing.
    pub(crate) fn complete(self) -> Result<Complete, String> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => Self::default(),
        };
        self.over(file)
    }

    /// These settings, and where they say nothing those of the file.
    fn over(self, file: Self) -> Result<Complete, String> {
        let seeds = if self.seeds.is_empty() { file.seeds } else { self.seeds };
        if seeds.is_empty() {
            return Err(missing("seed", "seeds"));
        }
        let listen = wanted("listen", self.listen, file.listen)?;
        let advertise = self.advertise.or(file.advertise);
        if listen.ip().is_unspecified() && advertise.is_none() {
            let text =
                format!("--listen {listen} is no address that others can reach: name one with --advertise");
            return Err(text);
        }
        Ok(Complete {
            name: wanted("name", self.name, file.name)?,
            listen,
            advertise,
            expect: wanted("expect", self.expect, file.expect)?,
            zone: self.zone.or(file.zone).unwrap_or_else(|| "zone-1".to_owned()),
            shards: self.shards.or(file.shards).unwrap_or(16),
            tick: Duration::from_millis(self.tick_ms.or(file.tick_ms).unwrap_or(60_000)),
            dir: self.dir.or(file.dir),
            membership: Membership {
                seeds,
                ca: wanted("ca", self.ca, file.ca)?,
                cert: wanted("cert", self.cert, file.cert)?,
                key: wanted("key", self.key, file.key)?,
            },
            drain: self.drain,
            exit_on_stdin_close: self.exit_on_stdin_close,
        })
    }
}

fn read(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn wanted<T>(name: &str, said: Option<T>, in_file: Option<T>) -> Result<T, String> {
    said.or(in_file).ok_or_else(|| missing(name, name))
}

fn missing(flag: &str, name: &str) -> String {
    let variable = name.to_uppercase();
    format!("--{flag} is missing: give the flag, DIST_AGENT_{variable}, or `{name}` in the file of --config")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        name = "node-1"
        listen = "127.0.0.1:7001"
        seeds = ["127.0.0.1:7001", "127.0.0.1:7002"]
        expect = 2
        tick-ms = 500
        ca = "tls/ca.pem"
        cert = "tls/node-1.pem"
        key = "tls/node-1.key"
    "#;

    fn parse(flags: &[&str], file: &str) -> Result<Complete, String> {
        let flags =
            Settings::try_parse_from([&["node"], flags].concat()).map_err(|error| error.to_string())?;
        flags.over(toml::from_str(file).map_err(|error| error.to_string())?)
    }

    #[test]
    fn a_file_says_everything_and_flags_say_it_better() {
        let settings = parse(&[], FILE).unwrap();
        assert_eq!((settings.name.as_str(), settings.expect, settings.shards), ("node-1", 2, 16));
        assert_eq!((settings.membership.seeds.len(), settings.tick), (2, Duration::from_millis(500)));
        assert_eq!(settings.dir, None);
        let flags = [
            "--name", "node-2", "--seed", "a:1", "--seed", "b:1", "--seed", "c:1", "--shards", "4", "--dir",
            "data",
        ];
        let settings = parse(&flags, FILE).unwrap();
        assert_eq!((settings.name.as_str(), settings.shards), ("node-2", 4));
        assert_eq!(settings.membership.seeds, ["a:1", "b:1", "c:1"]);
        assert_eq!(settings.dir.as_deref(), Some(Path::new("data")));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let error = parse(&[], &FILE.replace("expect = 2", "")).unwrap_err();
        let text =
            "--expect is missing: give the flag, DIST_AGENT_EXPECT, or `expect` in the file of --config";
        assert_eq!(error, text);
        let error = parse(&[], &FILE.replace("expect", "expects")).unwrap_err();
        assert!(error.contains("unknown field `expects`"), "{error}");
        let error = parse(&["--listen", "0.0.0.0:7000"], FILE).unwrap_err();
        assert!(error.contains("--advertise"), "{error}");
        let error = Settings { config: Some("no/such/file".into()), ..Settings::default() }.complete();
        assert!(error.unwrap_err().starts_with("no/such/file: "));
    }
}
