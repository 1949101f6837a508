//! What every play with real processes needs: programs, certificates, a cluster that forms, a client.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use super::build::Programs;
use super::cluster::Cluster;
use super::event::{Event, Inbox};
use super::folder::Folder;
use super::program::Program;
use super::screen::Screen;

/// The name of the client in certificates and logs.
pub(crate) const LOAD: &str = "load";

/// How long things may take, and how long a killed node stays down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// From the kill to the new start.
    pub(crate) down: Duration,
    /// The most for the cluster to form, for the client to print something, and for the killed node to host again.
    pub(crate) wait_max: Duration,
    /// The most for a node to end by itself.
    pub(crate) stop_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            down: Duration::from_secs(2),
            wait_max: Duration::from_secs(60),
            stop_max: Duration::from_secs(5),
        }
    }
}

/// Where a play takes place.
pub(crate) struct Stage<'a> {
    pub(crate) programs: Programs,
    pub(crate) pace: Pace,
    pub(crate) folder: &'a Folder,
    pub(crate) inbox: &'a Inbox,
    pub(crate) screen: &'a Screen,
}

impl Stage<'_> {
    /// Makes certificates for all nodes and these clients.
    ///
    /// # Errors
    /// The program failed, did not end in time, or the play was interrupted.
    pub(crate) fn make_certificates(
        &self,
        cluster: &mut Cluster<'_>,
        clients: &[&str],
    ) -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(&self.programs.certs);
        command.arg("--dir").arg(self.folder.path());
        for name in cluster.names().iter().map(String::as_str).chain(clients.iter().copied()) {
            command.arg("--node").arg(name);
        }
        let log = self.folder.log_of("certs");
        let certs = Program::start("certs", cluster.new_id(), command, Some(&log), self.inbox)?;
        let deadline = Instant::now() + self.pace.wait_max;
        loop {
            match self.inbox.next(deadline)? {
                Some(Event::Closed { from }) if from == certs.id() => break,
                Some(_) => {}
                None => return Err("the certificates are not made in time".into()),
            }
        }
        match certs.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("certs ended with {status}").into()),
        }
    }

    /// Waits until all nodes see the whole cluster.
    ///
    /// # Errors
    /// They do not in time, one of them has ended, or the play was interrupted.
    pub(crate) fn await_ready(&self, cluster: &mut Cluster<'_>) -> Result<(), Box<dyn Error>> {
        let nodes = cluster.names().len();
        self.screen.wait_for(&format!("{nodes} nodes look for each other"));
        let begun = Instant::now();
        while !cluster.unready().is_empty() {
            match self.inbox.next(begun + self.pace.wait_max)? {
                Some(event) => cluster.hear(&event)?,
                None => return Err(format!("not ready in time: {}", cluster.unready().join(", ")).into()),
            }
        }
        let after = begun.elapsed().as_millis();
        self.screen.say(&format!("{nodes} nodes form a cluster after {after} ms"));
        Ok(())
    }

    /// Starts the client that drives counters. `end` is what it does when its input is closed.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start_load(
        &self,
        cluster: &mut Cluster<'_>,
        agents: u32,
        clients: u32,
        seconds: u64,
        end: &str,
    ) -> Result<Program, Box<dyn Error>> {
        let mut command = Command::new(&self.programs.load);
        cluster.membership(LOAD, &mut command);
        command.arg("--agents").arg(agents.to_string());
        command.arg("--clients").arg(clients.to_string());
        command.arg("--seconds").arg(seconds.to_string());
        command.arg(end);
        let log = self.folder.log_of(LOAD);
        Ok(Program::start(LOAD, cluster.new_id(), command, Some(&log), self.inbox)?)
    }
}
