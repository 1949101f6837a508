//! What can be asked of the demo.

use std::time::Duration;

use crate::Outcome;

/// Options of `cargo xtask demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Node processes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) nodes: u32,
    /// Counter agents to create
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) agents: u32,
    /// Clients that send commands at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) clients: u32,
    /// How long the clients send commands
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=3_600))]
    pub(crate) seconds: u64,
    /// Leave all nodes alive
    #[arg(long)]
    pub(crate) no_kill: bool,
    /// Keep the folder with certificates and logs
    #[arg(long)]
    pub(crate) keep: bool,
}

impl Options {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// Names the options that do not fit together.
    pub(crate) fn check(&self) -> Outcome {
        if !self.no_kill && self.nodes < 3 {
            return Err(format!(
                "{} nodes lose their majority with one: --nodes 3, or --no-kill",
                self.nodes
            )
            .into());
        }
        Ok(())
    }

    /// How long the clients send commands.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
