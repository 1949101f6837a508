//! The upgrade itself, act by act.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::demo::cluster::Cluster;
use crate::demo::event::{Event, LoadLine, LoadResult, ProgramId};
use crate::demo::program::Program;
use crate::demo::screen::{grouped, latency};
use crate::demo::stage::{LOAD, Stage};

use super::Options;
use super::verdict::{Asked, Replaced, Verdict};

const NODES: u32 = 3;
/// The name of the client of the next build.
const ASK: &str = "ask";
/// The most for the clients to work; they are told when it is enough.
const LOAD_SECONDS_MAX: u64 = 3_600;
/// For how long they work on the upgraded cluster.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// One upgrade.
pub(crate) struct Play<'a> {
    stage: Stage<'a>,
    options: &'a Options,
    heard: Heard,
}

/// What the clients have said so far.
#[derive(Default)]
struct Heard {
    load: Option<ProgramId>,
    agents: Option<u64>,
    result: Option<LoadResult>,
    /// How the commands go.
    how: String,
    load_ended: bool,
    ask: Option<ProgramId>,
    asked: Option<Asked>,
    ask_ended: bool,
}

impl<'a> Play<'a> {
    /// An upgrade that has not begun.
    pub(crate) fn new(stage: Stage<'a>, options: &'a Options) -> Play<'a> {
        Play { stage, options, heard: Heard::default() }
    }

    /// A cluster of the first build under load, its nodes replaced one after the other, and the end.
    ///
    /// # Errors
    /// Something did not happen in time, a program ended that should not, or the play was interrupted.
    pub(crate) fn run(mut self) -> Result<Verdict, Box<dyn Error>> {
        let Stage { folder, inbox, .. } = self.stage;
        let cluster = Cluster::new(&self.stage.programs.node, NODES, folder, inbox)?;
        let cluster = &mut cluster.draining();
        self.stage.make_certificates(cluster, &[LOAD, ASK])?;
        cluster.start_all()?;
        self.stage.await_ready(cluster)?;
        let Options { agents, clients, .. } = *self.options;
        let end = "--compare-on-stdin-close";
        let mut load = self.stage.start_load(cluster, agents, clients, LOAD_SECONDS_MAX, end)?;
        self.heard.load = Some(load.id());
        self.until(cluster, "counters are created", |heard, _| heard.agents.is_some())?;
        let before = self.ask(cluster, "the first build")?;
        // Each says twice what it hosts, so that once is after everything was made.
        let told: Vec<u32> = all().map(|node| cluster.statuses_of(node)).collect();
        self.until(cluster, "all nodes host the same groups", |_, cluster| {
            let groups = cluster.groups_of(0);
            groups > 0
                && all().all(|node| {
                    cluster.groups_of(node) == groups && cluster.statuses_of(node) >= told[node] + 2
                })
        })?;
        let groups = cluster.groups_of(0);
        let mut replaced = Vec::new();
        for node in all() {
            replaced.push(self.replace(cluster, node, groups)?);
        }
        let after = self.ask(cluster, "the next build")?;
        self.work_on(cluster, AFTERWARDS)?;
        load.close_input();
        self.until(cluster, "every counter is read", |heard, _| heard.result.is_some())?;
        self.until(cluster, "the clients end", |heard, _| heard.load_ended)?;
        cluster.stop(self.stage.pace.stop_max)?;
        match (self.heard.agents, self.heard.result) {
            (Some(agents), Some(result)) => Ok(Verdict { result, agents, replaced, before, after }),
            _ => Err("the clients have no result".into()),
        }
    }

    /// One node of the first build hands over what it holds and ends, and one of the next takes its place.
    fn replace(
        &mut self,
        cluster: &mut Cluster<'_>,
        node: usize,
        groups: u32,
    ) -> Result<Replaced, Box<dyn Error>> {
        let name = cluster.names()[node].clone();
        cluster.tell_to_end(node);
        let what = format!("{name} hands over what it holds and ends");
        self.until(cluster, &what, |_, cluster| cluster.has_ended(node))?;
        let drained = cluster.drained(node).ok_or_else(|| format!("{name} ended with what it held"))?;
        cluster.replace(node, &self.stage.programs.node_next);
        let start = Instant::now();
        cluster.start(node)?;
        let what = format!("{name} of the next build holds all {groups} groups");
        self.until(cluster, &what, |_, cluster| {
            cluster.unready().is_empty() && cluster.groups_of(node) == groups
        })?;
        let replaced = Replaced { name, drained, hosting: start.elapsed() };
        let (name, how) = (&replaced.name, &self.heard.how);
        let after = replaced.hosting.as_millis();
        self.stage.screen.say(&format!("{name} is of the next build, whole after {after} ms; {how}"));
        Ok(replaced)
    }

    /// Has a client of the next build ask every counter.
    fn ask(&mut self, cluster: &mut Cluster<'_>, whom: &str) -> Result<Asked, Box<dyn Error>> {
        let mut command = Command::new(&self.stage.programs.ask_next);
        cluster.membership(ASK, &mut command);
        command.arg("--agents").arg(self.options.agents.to_string()).arg("--exit-on-stdin-close");
        let log = self.stage.folder.log_of(ASK);
        let program = Program::start(ASK, cluster.new_id(), command, Some(&log), self.stage.inbox)?;
        (self.heard.ask, self.heard.asked, self.heard.ask_ended) = (Some(program.id()), None, false);
        let what = format!("a client of the next build asks {whom}");
        self.until(cluster, &what, |heard, _| heard.ask_ended)?;
        let status = program.wait()?;
        let asked = self.heard.asked.take().filter(|_| status.success());
        let asked = asked.ok_or_else(|| format!("{what}: it ended with {status}"))?;
        let (migrated, note) = (grouped(asked.migrated), &asked.note);
        let why = asked.why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        self.stage.screen.say(&format!("{whom}: {migrated} counters in the new form{why}; the note: {note}"));
        Ok(asked)
    }

    /// Lets the clients work for a while.
    fn work_on(&mut self, cluster: &mut Cluster<'_>, duration: Duration) -> Result<(), Box<dyn Error>> {
        let end = Instant::now() + duration;
        while let Some(event) = self.stage.inbox.next(end)? {
            self.hear(cluster, &event)?;
        }
        Ok(())
    }

    /// Takes in what happens until something is so.
    fn until(
        &mut self,
        cluster: &mut Cluster<'_>,
        what: &str,
        is_so: impl Fn(&Heard, &Cluster<'_>) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        self.stage.screen.wait_for(what);
        let limit = self.stage.pace.wait_max.max(self.stage.pace.stop_max);
        let deadline = Instant::now() + limit;
        while !is_so(&self.heard, cluster) {
            match self.stage.inbox.next(deadline)? {
                Some(event) => self.hear(cluster, &event)?,
                None => return Err(format!("not in {limit:?}: {what}").into()),
            }
        }
        Ok(())
    }

    fn hear(&mut self, cluster: &mut Cluster<'_>, event: &Event) -> Result<(), Box<dyn Error>> {
        match event {
            Event::Line { from, line } if Some(*from) == self.heard.load => self.hear_load(line),
            Event::Closed { from } if Some(*from) == self.heard.load => {
                self.heard.load_ended = true;
                match self.heard.result {
                    Some(_) => Ok(()),
                    None => Err("the clients ended before they had a result".into()),
                }
            }
            Event::Line { from, line } if Some(*from) == self.heard.ask => {
                let asked = serde_json::from_str(line);
                self.heard.asked = Some(asked.map_err(|error| format!("{ASK} printed {line:?}: {error}"))?);
                Ok(())
            }
            Event::Closed { from } if Some(*from) == self.heard.ask => {
                self.heard.ask_ended = true;
                Ok(())
            }
            other => cluster.hear(other),
        }
    }

    fn hear_load(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        match LoadLine::read(line)? {
            LoadLine::Created { agents } => {
                self.stage.screen.say(&format!("{} counters are created", grouped(agents)));
                self.heard.agents = Some(agents);
            }
            LoadLine::Progress { per_second, p99_us, .. } => {
                let rate = grouped(per_second as u64);
                self.heard.how = format!("{rate} commands/s, p99 {}", latency(p99_us));
            }
            LoadLine::Result(result) => self.heard.result = Some(result),
            LoadLine::Outage { .. } | LoadLine::Other => {}
        }
        Ok(())
    }
}

/// All nodes.
fn all() -> std::ops::Range<usize> {
    0..NODES as usize
}
