//! The demo itself, act by act.

use std::error::Error;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::event::{Event, LoadLine, LoadResult};
use super::options::Options;
use super::screen::{grouped, latency};
use super::stage::{LOAD, Stage};
use super::verdict::Verdict;

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
    stage: Stage<'a>,
    options: &'a Options,
    fate: Fate,
}

impl<'a> Play<'a> {
    /// A demo that has not begun.
    pub(crate) fn new(stage: Stage<'a>, options: &'a Options) -> Play<'a> {
        let fate = if options.no_kill { Fate::Spared } else { Fate::Pending };
        Play { stage, options, fate }
    }

    /// Certificates, cluster, load with the kill in its middle, and the end.
    ///
    /// # Errors
    /// Something did not happen in time, a program ended that should not, or the demo was interrupted.
    pub(crate) fn run(mut self) -> Result<Verdict, Box<dyn Error>> {
        let Stage { folder, inbox, .. } = self.stage;
        let mut cluster = Cluster::new(&self.stage.programs.node, self.options.nodes, folder, inbox)?;
        self.stage.make_certificates(&mut cluster, &[LOAD])?;
        cluster.start_all()?;
        self.stage.await_ready(&mut cluster)?;
        let (agents, result) = self.drive(&mut cluster)?;
        self.await_hosting(&mut cluster)?;
        cluster.stop(self.stage.pace.stop_max)?;
        let killed = match self.fate {
            Fate::Hosting { name, after } => Some((name, after)),
            Fate::Spared => None,
            _ => return Err("the client ended before half time, and no node was killed".into()),
        };
        Ok(Verdict { result, agents, killed })
    }

    /// Lets the client do its work, and kills and restarts a node meanwhile.
    fn drive(&mut self, cluster: &mut Cluster<'_>) -> Result<(u64, LoadResult), Box<dyn Error>> {
        let Options { agents, clients, seconds, .. } = *self.options;
        let load = self.stage.start_load(cluster, agents, clients, seconds, "--exit-on-stdin-close")?;
        self.stage.screen.wait_for(&format!("creating {} agents", grouped(self.options.agents.into())));
        let mut heard = Heard::new();
        // Each line of the client gives it another while; a client that falls silent is given up.
        let mut silent_from = Instant::now();
        loop {
            let deadline = silent_from + self.stage.pace.wait_max;
            let wake = self.next_act(heard.created).map_or(deadline, |act| act.min(deadline));
            let event = self.stage.inbox.next(wake)?;
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
                self.stage.screen.wait_for("reading every counter");
            }
        }
        self.stage.screen.end();
        let status = load.wait()?;
        match (heard.agents, heard.result) {
            (Some(agents), Some(result)) => Ok((agents, result)),
            _ => Err(format!("the client ended with {status} before it had a result").into()),
        }
    }

    fn hear_load(&self, heard: &mut Heard, line: &str) -> Result<(), Box<dyn Error>> {
        match LoadLine::read(line)? {
            LoadLine::Created { agents } => {
                let clients = self.options.clients;
                self.stage
                    .screen
                    .say(&format!("{} agents exist; {clients} clients send commands", grouped(agents)));
                self.stage.screen.begin(self.options.duration());
                (heard.agents, heard.created) = (Some(agents), Some(Instant::now()));
            }
            LoadLine::Progress { commands, per_second, p99_us } => {
                let (total, rate) = (grouped(commands), grouped(per_second as u64));
                let elapsed = heard.created.map_or(Duration::ZERO, |created| created.elapsed());
                let how = format!("{rate} commands/s  p99 {}  {total} in all", latency(p99_us));
                self.stage.screen.progress(elapsed.min(self.options.duration()), &how);
            }
            LoadLine::Outage { ms } => {
                if ms > heard.outage_ms && !matches!(self.fate, Fate::Spared | Fate::Pending) {
                    self.stage.screen.say(&format!("outage: {ms:.0} ms without a completed command"));
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
            Fate::Down { since, .. } => Some(*since + self.stage.pace.down),
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
                self.stage.screen.say(&format!("kill -9 {name}, {led}"));
                self.fate = Fate::Down { index, name, since: now };
            }
            Fate::Down { index, name, .. } if due => {
                cluster.start(*index)?;
                self.stage.screen.say(&format!("{name} is started again, with an empty memory"));
                self.fate = Fate::Back { index: *index, name: name.clone(), since: now };
            }
            Fate::Back { index, name, since } if cluster.groups_of(*index) > 0 => {
                let (after, groups) = (since.elapsed(), cluster.groups_of(*index));
                self.stage
                    .screen
                    .say(&format!("{name} hosts {groups} groups again, {} ms later", after.as_millis()));
                self.fate = Fate::Hosting { name: name.clone(), after };
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits until the killed node has members again.
    fn await_hosting(&mut self, cluster: &mut Cluster<'_>) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + self.stage.pace.down + self.stage.pace.wait_max;
        if let Fate::Down { name, .. } | Fate::Back { name, .. } = &self.fate {
            self.stage.screen.wait_for(&format!("waiting for {name} to host groups again"));
        }
        loop {
            self.act(cluster, None)?;
            let (Fate::Down { name, .. } | Fate::Back { name, .. }) = &self.fate else { return Ok(()) };
            let wake = self.next_act(None).map_or(deadline, |act| act.min(deadline));
            match self.stage.inbox.next(wake)? {
                Some(event) => cluster.hear(&event)?,
                None if Instant::now() >= deadline => {
                    return Err(format!(
                        "{name} hosts no group {:?} after its new start",
                        self.stage.pace.wait_max
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
