//! A client that retries through failures, with one session a group and many operations under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rafted_value::env::{Env, sleep};
use rafted_value::sim::{SimEnv, SimRng};
use rafted_value::{
    ClientSession, Command, CommandError, Freshness, GroupCaller, GroupId, NodeId, NotApplied, QueryError,
    SessionId, Unknown, encode,
};

use super::directory::Directory;
use super::lists::{Change, Changed, Question};
use super::plan::{Load, ms};
use super::witness::Witness;
use crate::sim::history::{Key, Outcome, Record, Request, Version};
use crate::sim::tally::Tally;

/// A client without patience waits this long for an answer.
const PATIENCE_MIN: Duration = ms(40);
/// From here on, of a hundred draws, a client reads.
const READS: u64 = 70;
/// How often a command that was answered is sent again.
const SENT_AGAIN: f64 = 0.1;

/// What all clients of a seed share.
pub(super) struct Surroundings {
    pub(super) directory: Arc<Directory>,
    pub(super) witness: Arc<Witness>,
    pub(super) record: Record,
    pub(super) load: Load,
    /// Whether the network may deliver a request twice: then no refusal of one copy speaks for the other.
    pub(super) duplicates: AtomicBool,
    /// Groups that are only read for a while: a follower that hears nothing of them misses nothing.
    pub(super) lulls: Mutex<BTreeSet<u64>>,
    pub(super) stop: AtomicBool,
    pub(super) running: AtomicUsize,
    pub(super) tally: Mutex<Tally>,
    pub(super) complaint: Mutex<Option<String>>,
}

impl Surroundings {
    fn count(&self, what: &'static str) {
        self.tally.lock().one(what);
    }

    fn complain(&self, complaint: String) {
        self.complaint.lock().get_or_insert(complaint);
    }
}

/// One client on a node of its own. Clones are handles of the same one.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) env: Arc<SimEnv>,
    caller: GroupCaller,
    around: Arc<Surroundings>,
    lines: Arc<[Line]>,
    /// How often it asks a node again that had no answer.
    loyalty: f64,
    /// How long one attempt may take.
    limit: Duration,
}

/// A client's line of commands to one group.
struct Line {
    group: u64,
    session: Mutex<ClientSession>,
    /// Who answered last, or is said to lead.
    favourite: Mutex<Option<NodeId>>,
    next_place: AtomicUsize,
    /// How far the group's stamped time is known to be ahead of this client's clock, or behind it.
    ahead_ms: AtomicI64,
}

impl Client {
    /// A client of these groups.
    pub(super) fn new(env: Arc<SimEnv>, around: Arc<Surroundings>, groups: &[u64]) -> Self {
        let (loyalty, limit) = (0.0, around.load.attempt_limit);
        let line = |&group: &u64| {
            let id = SessionId::new(env.random_u64(), env.random_u64());
            Line {
                group,
                session: Mutex::new(ClientSession::new(id, around.load.session_waiting_max)),
                favourite: Mutex::new(None),
                next_place: AtomicUsize::new(env.random_u64() as u16 as usize),
                ahead_ms: AtomicI64::new(0),
            }
        };
        let lines = groups.iter().map(line).collect();
        Self { caller: GroupCaller::new(env.clone()), env, around, lines, loyalty, limit }
    }

    /// The same as one of several: every other stays with who answered it, where the plan wants that.
    pub(super) fn of_several(self, index: usize) -> Self {
        let loyalty = self.around.load.loyalty;
        match index % 2 {
            0 => Self { loyalty, ..self },
            _ if loyalty > 0.0 => Self { limit: self.limit.min(PATIENCE_MIN), ..self },
            _ => self,
        }
    }

    /// One operation after the other until all are told to stop.
    pub(super) async fn work(self, mut rng: SimRng) {
        self.around.running.fetch_add(1, Ordering::Relaxed);
        let mut seen = Version::default();
        while !self.around.stop.load(Ordering::Relaxed) {
            let pause = rng.duration(Duration::ZERO, self.around.load.think_max);
            sleep(self.env.as_ref(), pause).await;
            let line = &self.lines[rng.below(self.lines.len() as u64) as usize];
            let key = (line.group, rng.below(self.around.load.keys.into()) as u16);
            let draw = if self.around.lulls.lock().contains(&line.group) { READS } else { rng.below(100) };
            let version = match draw {
                0..45 => self.change(line, key, Request::Append, &mut rng).await,
                45..60 => {
                    let request = Request::AppendIf { length: seen.length };
                    self.change(line, key, request, &mut rng).await
                }
                60..63 => self.change(line, key, Request::AppendAndPanic, &mut rng).await,
                63..65 => self.change(line, key, Request::Malformed, &mut rng).await,
                65..READS => self.read_stale(key, &mut rng).await,
                _ => self.read(line, key).await,
            };
            seen = version.unwrap_or(seen);
        }
        self.around.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sends a command until its fate is known or patience ends.
    async fn change(&self, line: &Line, key: Key, request: Request, rng: &mut SimRng) -> Option<Version> {
        let stamped_now = self.env.wall_ms().saturating_add_signed(line.ahead_ms.load(Ordering::Relaxed));
        let until = stamped_now + self.around.load.retry_window.as_millis() as u64;
        // Begun in the session first: a full session begins nothing.
        let command = line.session.lock().begin(until, u64::from(key.1), Bytes::new())?;
        let number = self.around.record.begin(key, request);
        let payload = payload(key.1, number, request, self.around.load.padding_max, rng);
        let command = Command { payload, ..command };
        let outcome = self.send(line, number, &command).await;
        if let Outcome::Done { .. } = outcome
            && rng.chance(SENT_AGAIN)
        {
            self.send_again(line, number, &command, outcome).await;
        }
        line.session.lock().finish(command.sequence);
        match outcome {
            Outcome::Done { .. } => self.around.count("commands acknowledged"),
            Outcome::Never => self.around.count("commands told never to run"),
            Outcome::Perhaps => self.around.count("commands of unknown fate"),
        }
        self.around.record.end(number, outcome);
        match outcome {
            Outcome::Done { version, .. } => Some(version),
            _ => None,
        }
    }

    /// Sends once more what was answered: a session's reply never changes.
    async fn send_again(&self, line: &Line, number: u32, command: &Command, told: Outcome) {
        if self.around.load.retry_in_new_sessions {
            return;
        }
        let (node, limit) = (self.pick(line), self.limit);
        let answer = self.caller.command_at(node, GroupId(line.group), command, limit).await;
        let same = match &answer {
            Ok(reply) => {
                self.around.count("replies given twice and compared");
                postcard::from_bytes(reply)
                    .is_ok_and(|Changed { version, appended }| told == Outcome::Done { version, appended })
            }
            Err(CommandError::NotApplied(NotApplied::Panicked(_) | NotApplied::Refused(_))) => false,
            Err(_) => true,
        };
        if !same {
            self.around.complain(format!("operation {number} was told {told:?} and then {answer:?}"));
        }
    }

    async fn send(&self, line: &Line, number: u32, command: &Command) -> Outcome {
        let deadline = self.env.now() + self.around.load.give_up_after;
        let mut perhaps = false;
        for attempt in 0.. {
            let repeated = attempt > 0 && self.around.witness.has_run(line.group, number);
            let node = self.pick(line);
            let limit = self.limit;
            let mut command = command.clone();
            if self.around.load.retry_in_new_sessions {
                command.session = SessionId::new(self.env.random_u64(), self.env.random_u64());
            }
            let answer = self.caller.command_at(node, GroupId(line.group), &command, limit).await;
            let error = match answer {
                Ok(reply) => {
                    *line.favourite.lock() = Some(node);
                    if repeated {
                        self.around.count("retries answered from the session table");
                    }
                    let Changed { version, appended } =
                        postcard::from_bytes(&reply).expect("lists answer what they have changed");
                    return Outcome::Done { version, appended };
                }
                Err(error) => error,
            };
            perhaps |= self.around.duplicates.load(Ordering::Relaxed);
            match self.judge(line, node, number, &error) {
                Judgement::Ran => return Outcome::Never,
                Judgement::Refused if perhaps => return Outcome::Perhaps,
                Judgement::Refused => return Outcome::Never,
                Judgement::GiveUp => return Outcome::Perhaps,
                Judgement::AgainAfterPerhaps => perhaps = true,
                Judgement::Again => {}
            }
            if self.env.now() >= deadline {
                return if perhaps { Outcome::Perhaps } else { Outcome::Never };
            }
            sleep(self.env.as_ref(), ms(5 + 5 * attempt.min(8))).await;
        }
        unreachable!("patience ends before the attempts do")
    }

    /// What an error says about the command and the next attempt.
    fn judge(&self, line: &Line, node: NodeId, number: u32, error: &CommandError) -> Judgement {
        match error {
            CommandError::NotApplied(not_applied) => match not_applied {
                NotApplied::NotLeader { leader, .. } => {
                    *line.favourite.lock() = leader.filter(|leader| *leader != node);
                    Judgement::Again
                }
                NotApplied::Panicked(_) => {
                    self.around.count("panics undone");
                    Judgement::Ran
                }
                NotApplied::Refused(_) => Judgement::Ran,
                NotApplied::SessionTableFull { .. } => {
                    self.around.count("refused by a full session table");
                    Judgement::Refused
                }
                NotApplied::RetryWindowTooLong { asked_ms, limit_ms } => {
                    self.around.count("refused as kept for too long");
                    line.ahead_ms.fetch_sub((asked_ms - limit_ms) as i64, Ordering::Relaxed);
                    Judgement::Refused
                }
                NotApplied::TooLarge { .. } => {
                    self.around.count("refused as too large");
                    Judgement::Refused
                }
                NotApplied::Overloaded { .. } => {
                    self.around.count("refused as overloaded");
                    Judgement::Again
                }
                NotApplied::Fenced { .. } | NotApplied::Malformed(_) => {
                    self.around.complain(format!("operation {number} was told: {error}"));
                    Judgement::Refused
                }
                _ => {
                    self.is_let_down(line);
                    Judgement::Again
                }
            },
            CommandError::Unknown(Unknown::Expired { late_ms }) => {
                self.around.count("commands past their retry window");
                line.ahead_ms.fetch_add(*late_ms as i64, Ordering::Relaxed);
                Judgement::GiveUp
            }
            CommandError::Unknown(Unknown::AlreadyAcknowledged) => {
                self.around.complain(format!("operation {number} still waits and was told: {error}"));
                Judgement::GiveUp
            }
            CommandError::Unknown(_) => {
                self.is_let_down(line);
                Judgement::AgainAfterPerhaps
            }
        }
    }

    /// Asks the leader, until it answers or patience ends.
    async fn read(&self, line: &Line, key: Key) -> Option<Version> {
        let number = self.around.record.begin(key, Request::Read);
        let deadline = self.env.now() + self.around.load.give_up_after;
        let question = encode(&Question::Version { key: key.1 });
        let freshness = if self.around.load.read_from_anybody { Freshness::Stale } else { Freshness::Latest };
        while self.env.now() < deadline {
            let node = self.pick(line);
            let (limit, group) = (self.limit, GroupId(line.group));
            match self.caller.query_at(node, group, freshness, question.clone(), limit).await {
                Ok(answer) => {
                    *line.favourite.lock() = Some(node);
                    self.around.count("reads answered");
                    return Some(self.end_read(number, &answer));
                }
                Err(QueryError::NotLeader { leader, .. }) => {
                    *line.favourite.lock() = leader.filter(|leader| *leader != node);
                }
                Err(
                    error @ (QueryError::Fenced { .. } | QueryError::Refused(_) | QueryError::Panicked(_)),
                ) => {
                    self.around.complain(format!("read {number} was told: {error}"));
                }
                Err(_) => self.is_let_down(line),
            }
            sleep(self.env.as_ref(), ms(10)).await;
        }
        self.around.record.end(number, Outcome::Perhaps);
        None
    }

    /// Asks any member for what it has.
    async fn read_stale(&self, key: Key, rng: &mut SimRng) -> Option<Version> {
        let (node, address) = self.around.directory.at(rng.below(64) as usize);
        self.env.transport().set_address(node, &address);
        let number = self.around.record.begin(key, Request::ReadStale);
        let question = encode(&Question::Version { key: key.1 });
        let (limit, group) = (self.limit, GroupId(key.0));
        let answer = self.caller.query_at(node, group, Freshness::Stale, question, limit).await;
        match answer {
            Ok(answer) => {
                self.around.count("stale reads answered");
                Some(self.end_read(number, &answer))
            }
            Err(_) => {
                self.around.record.end(number, Outcome::Perhaps);
                None
            }
        }
    }

    fn end_read(&self, number: u32, answer: &[u8]) -> Version {
        let version = postcard::from_bytes(answer).expect("lists answer with a version");
        self.around.record.end(number, Outcome::Done { version, appended: false });
        version
    }

    /// The node that was asked had no answer.
    fn is_let_down(&self, line: &Line) {
        let draw = (self.env.random_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        if draw >= self.loyalty {
            *line.favourite.lock() = None;
        }
    }

    /// Whom to ask: the favourite while it is there, else one after the other.
    fn pick(&self, line: &Line) -> NodeId {
        let favourite = *line.favourite.lock();
        let known = favourite.and_then(|node| Some((node, self.around.directory.address(node)?)));
        let (node, address) = known
            .unwrap_or_else(|| self.around.directory.at(line.next_place.fetch_add(1, Ordering::Relaxed)));
        self.env.transport().set_address(node, &address);
        node
    }

    /// Whether each group serves an append now.
    pub(super) async fn probe(self, mut rng: SimRng) -> Result<(), String> {
        for line in self.lines.iter() {
            if self.change(line, (line.group, 0), Request::Append, &mut rng).await.is_none() {
                return Err(format!("group {} does not serve although everything is mended", line.group));
            }
        }
        Ok(())
    }
}

/// What follows from an error.
enum Judgement {
    /// The command ran and changed nothing; every retry will be told so.
    Ran,
    /// This attempt surely did nothing, and another would not do better.
    Refused,
    GiveUp,
    Again,
    AgainAfterPerhaps,
}

fn payload(key: u16, number: u32, request: Request, padding_max: usize, rng: &mut SimRng) -> Bytes {
    let padding = Bytes::from(vec![7; rng.below(padding_max as u64 + 1) as usize]);
    match request {
        Request::AppendIf { length } => encode(&Change::AppendIf { key, length, number, padding }),
        Request::AppendAndPanic => encode(&Change::AppendAndPanic { key, number }),
        Request::Malformed => Bytes::from_static(&[250]),
        _ => encode(&Change::Append { key, number, padding }),
    }
}
