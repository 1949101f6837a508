//! The demo itself, act by act.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use super::build::Programs;
use super::cluster::Cluster;
use super::event::{Event, Inbox, LoadLine, LoadResult};
use super::folder::Folder;
use super::options::Options;
use super::program::Program;
use super::screen::{Screen, grouped, latency};
use super::verdict::Verdict;

/// The name of the client in certificates and logs.
const LOAD: &str = "load";

/// How long things may take, and how long the killed node stays down.
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

/// What happens to the node that is killed.
enum Fate {
    /// Nobody is killed.
    Spared,
    /// Someone will be, at half time.
    Pending,
    /// Killed, not started again yet.
    Down { index: usize, name: String, since: Instant },
    /// Started again, without groups so far.
    Back { index: usize, name: String, since: Instant },
    /// It hosts groups again, this long after its new start.
    Hosting { name: String, after: Duration },
}

/// One demo.
pub(crate) struct Play<'a> {
    programs: Programs,
    options: &'a Options,
    pace: Pace,
    folder: &'a Folder,
    inbox: &'a Inbox,
    screen: &'a Screen,
    fate: Fate,
}

impl<'a> Play<'a> {
    /// A demo that has not begun.
    pub(crate) fn new(
        programs: Programs,
        options: &'a Options,
        pace: Pace,
        folder: &'a Folder,
        inbox: &'a Inbox,
        screen: &'a Screen,
    ) -> Play<'a> {
        let fate = if options.no_kill { Fate::Spared } else { Fate::Pending };
        Play { programs, options, pace, folder, inbox, screen, fate }
    }

    /// Certificates, cluster, load with the kill in its middle, and the end.
    ///
    /// # Errors
    /// Something did not happen in time, a program ended that should not, or the demo was interrupted.
    pub(crate) fn run(mut self) -> Result<Verdict, Box<dyn Error>> {
        let mut cluster = Cluster::new(&self.programs.node, self.options.nodes, self.folder, self.inbox)?;
        self.make_certificates(&mut cluster)?;
        cluster.start_all()?;
        self.await_ready(&mut cluster)?;
        let (agents, result) = self.drive(&mut cluster)?;
        self.await_hosting(&mut cluster)?;
        cluster.stop(self.pace.stop_max)?;
        let killed = match self.fate {
            Fate::Hosting { name, after } => Some((name, after)),
            Fate::Spared => None,
            _ => return Err("the client ended before half time, and no node was killed".into()),
        };
        Ok(Verdict { result, agents, killed })
    }

    fn make_certificates(&self, cluster: &mut Cluster<'_>) -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(&self.programs.certs);
        command.arg("--dir").arg(self.folder.path());
        for name in cluster.names().iter().map(String::as_str).chain([LOAD]) {
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

    fn await_ready(&self, cluster: &mut Cluster<'_>) -> Result<(), Box<dyn Error>> {
        self.screen.wait_for(&format!("{} nodes look for each other", self.options.nodes));
        let begun = Instant::now();
        while !cluster.unready().is_empty() {
            match self.inbox.next(begun + self.pace.wait_max)? {
                Some(event) => cluster.hear(&event)?,
                None => return Err(format!("not ready in time: {}", cluster.unready().join(", ")).into()),
            }
        }
        self.screen.say(&format!(
            "{} nodes form a cluster after {} ms",
            self.options.nodes,
            begun.elapsed().as_millis()
        ));
        Ok(())
    }

    /// Lets the client do its work, and kills and restarts a node meanwhile.
    fn drive(&mut self, cluster: &mut Cluster<'_>) -> Result<(u64, LoadResult), Box<dyn Error>> {
        let load = self.start_load(cluster)?;
        self.screen.wait_for(&format!("creating {} agents", grouped(self.options.agents.into())));
        let mut heard = Heard::new();
        // Each line of the client gives it another while; a client that falls silent is given up.
        let mut silent_from = Instant::now();
        loop {
            let deadline = silent_from + self.pace.wait_max;
            let wake = self.next_act(heard.created).map_or(deadline, |act| act.min(deadline));
            let event = self.inbox.next(wake)?;
            match &event {
                Some(Event::Line { from, line }) if *from == load.id() => {
                    silent_from = Instant::now();
                    self.hear_load(&mut heard, line)?;
                }
                Some(Event::Closed { from }) if *from == load.id() => break,
                Some(event) => cluster.hear(event)?,
                None if Instant::now() >= deadline => return Err("the client says nothing any more".into()),
                None => {}
            }
            self.act(cluster, heard.created)?;
            if !heard.comparing
                && heard.created.is_some_and(|created| created.elapsed() > self.options.duration())
            {
                heard.comparing = true;
                self.screen.wait_for("reading every counter");
            }
        }
        self.screen.end();
        let status = load.wait()?;
        match (heard.agents, heard.result) {
            (Some(agents), Some(result)) => Ok((agents, result)),
            _ => Err(format!("the client ended with {status} before it had a result").into()),
        }
    }

    fn start_load(&self, cluster: &mut Cluster<'_>) -> Result<Program, Box<dyn Error>> {
        let mut command = Command::new(&self.programs.load);
        cluster.membership(LOAD, &mut command);
        command.arg("--agents").arg(self.options.agents.to_string());
        command.arg("--clients").arg(self.options.clients.to_string());
        command.arg("--seconds").arg(self.options.seconds.to_string());
        command.arg("--exit-on-stdin-close");
        let log = self.folder.log_of(LOAD);
        Ok(Program::start(LOAD, cluster.new_id(), command, Some(&log), self.inbox)?)
    }

    fn hear_load(&self, heard: &mut Heard, line: &str) -> Result<(), Box<dyn Error>> {
        match serde_json::from_str(line).map_err(|error| format!("the client printed {line:?}: {error}"))? {
            LoadLine::Created { agents } => {
                let clients = self.options.clients;
                self.screen
                    .say(&format!("{} agents exist; {clients} clients send commands", grouped(agents)));
                self.screen.begin(self.options.duration());
                (heard.agents, heard.created) = (Some(agents), Some(Instant::now()));
            }
            LoadLine::Progress { commands, per_second, p99_us } => {
                let (total, rate) = (grouped(commands), grouped(per_second as u64));
                let elapsed = heard.created.map_or(Duration::ZERO, |created| created.elapsed());
                let how = format!("{rate} commands/s  p99 {}  {total} in all", latency(p99_us));
                self.screen.progress(elapsed.min(self.options.duration()), &how);
            }
            LoadLine::Outage { ms } => {
                if ms > heard.outage_ms && !matches!(self.fate, Fate::Spared | Fate::Pending) {
                    self.screen.say(&format!("outage: {ms:.0} ms without a completed command"));
                }
                heard.outage_ms = heard.outage_ms.max(ms);
            }
            LoadLine::Result(result) => heard.result = Some(result),
            LoadLine::Other => {}
        }
        Ok(())
    }

    /// When something is to be done to the cluster next.
    fn next_act(&self, created: Option<Instant>) -> Option<Instant> {
        match &self.fate {
            Fate::Pending => created.map(|created| created + self.options.duration() / 2),
            Fate::Down { since, .. } => Some(*since + self.pace.down),
            _ => None,
        }
    }

    /// Does what is due to the cluster, and notes how the killed node fares.
    fn act(&mut self, cluster: &mut Cluster<'_>, created: Option<Instant>) -> Result<(), Box<dyn Error>> {
        let now = Instant::now();
        let due = self.next_act(created).is_some_and(|act| act <= now);
        match &self.fate {
            Fate::Pending if due => {
                let busiest = cluster.busiest().ok_or("no node says that it leads a group")?;
                let (index, name, status) = (busiest.0, busiest.1.to_owned(), busiest.2);
                cluster.kill(index);
                let led = format!("which led {} of its {} groups", status.leading, status.groups);
                self.screen.say(&format!("kill -9 {name}, {led}"));
                self.fate = Fate::Down { index, name, since: now };
            }
            Fate::Down { index, name, .. } if due => {
                cluster.start(*index)?;
                self.screen.say(&format!("{name} is started again, with an empty memory"));
                self.fate = Fate::Back { index: *index, name: name.clone(), since: now };
            }
            Fate::Back { index, name, since } if cluster.groups_of(*index) > 0 => {
                let (after, groups) = (since.elapsed(), cluster.groups_of(*index));
                self.screen
                    .say(&format!("{name} hosts {groups} groups again, {} ms later", after.as_millis()));
                self.fate = Fate::Hosting { name: name.clone(), after };
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits until the killed node has members again.
    fn await_hosting(&mut self, cluster: &mut Cluster<'_>) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + self.pace.down + self.pace.wait_max;
        if let Fate::Down { name, .. } | Fate::Back { name, .. } = &self.fate {
            self.screen.wait_for(&format!("waiting for {name} to host groups again"));
        }
        loop {
            self.act(cluster, None)?;
            let (Fate::Down { name, .. } | Fate::Back { name, .. }) = &self.fate else { return Ok(()) };
            let wake = self.next_act(None).map_or(deadline, |act| act.min(deadline));
            match self.inbox.next(wake)? {
                Some(event) => cluster.hear(&event)?,
                None if Instant::now() >= deadline => {
                    return Err(format!(
                        "{name} hosts no group {:?} after its new start",
                        self.pace.wait_max
                    )
                    .into());
                }
                None => {}
            }
        }
    }
}

/// What the client has said so far.
struct Heard {
    created: Option<Instant>,
    agents: Option<u64>,
    outage_ms: f64,
    /// Whether the time is over and the counters are read.
    comparing: bool,
    result: Option<LoadResult>,
}

impl Heard {
    fn new() -> Heard {
        Heard { created: None, agents: None, outage_ms: 0.0, comparing: false, result: None }
    }
}
