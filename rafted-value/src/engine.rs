//! All groups of one loop, stepped together: inputs and the time in, messages and answers out. Pure.

mod done;
mod missing;
mod status;
mod time;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use self::missing::Missing;
use crate::arrivals::Arrivals;
use crate::config::{GroupConfig, HostConfig};
use crate::env::MonoTime;
use crate::errand::{Done, Errand, Work, drop_ended};
use crate::error::{GroupError, QueryError};
use crate::fenced::Fenced;
use crate::group::change::ChangeRequest;
use crate::group::recover::KeptMember;
use crate::group::{CommandResult, Group, Turn, panic_message};
use crate::id::{GroupId, MemberId, NodeId};
use crate::keepsake::Keepsake;
use crate::message::{Body, GroupMessage};
use crate::neighbours::{LoopId, Neighbours};
use crate::outputs::{Ack, Answer, Outputs, Piece};
use crate::registry::Registry;
use crate::request::{Command, Freshness};
use crate::status::GroupStatus;
use crate::store::{KeptFile, Record, StoreError};
use crate::timers::Timers;
use crate::waiter::Waiter;

/// A group to be founded, the same on each of its first nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its id, never used for another group.
    pub group: GroupId,
    /// The name of its data type in the [`Registry`].
    pub data: String,
    /// Its settings.
    pub config: GroupConfig,
    /// Where its first members live, all of them voters. Usually this node alone; with more, each of them must found
    /// the group with the same list, and the group works once a majority has.
    pub nodes: Vec<NodeId>,
}

/// What happens to an engine.
pub(crate) enum Input {
    Command {
        group: GroupId,
        command: Command,
        waiter: Waiter<CommandResult>,
    },
    Query {
        group: GroupId,
        freshness: Freshness,
        payload: Bytes,
        waiter: Waiter<Result<Bytes, QueryError>>,
    },
    Peer {
        from: NodeId,
        messages: Vec<GroupMessage>,
    },
    /// Founds a group, perhaps with what a member of another group had come to.
    Found {
        found: Found,
        keepsake: Option<Keepsake>,
        waiter: Waiter<Result<MemberId, GroupError>>,
    },
    /// What a member has come to, which is in nothing from then on.
    Retire {
        group: GroupId,
        waiter: Waiter<Result<Option<Keepsake>, GroupError>>,
    },
    /// Founds a group anew with what a member of it had kept.
    Restore {
        group: GroupId,
        kept: Box<KeptMember>,
        waiter: Waiter<Result<MemberId, GroupError>>,
    },
    Change {
        group: GroupId,
        request: ChangeRequest,
        waiter: Waiter<Result<MemberId, GroupError>>,
    },
    Transfer {
        group: GroupId,
        target: Option<MemberId>,
        waiter: Waiter<Result<MemberId, GroupError>>,
    },
    /// Ends this node's member of a group, and any up to `newest`, for ever.
    Drop {
        group: GroupId,
        newest: MemberId,
        waiter: Waiter<Result<MemberId, GroupError>>,
    },
    Statuses {
        group: Option<GroupId>,
        waiter: Waiter<Vec<GroupStatus>>,
    },
    Stop {
        waiter: Waiter<Result<MemberId, GroupError>>,
    },
    Disk(DiskEvent),
    /// Something that was to be done beside the loop is done.
    Errand(Done),
    /// A loop of another node turns.
    Beat {
        speaker: LoopId,
    },
    /// A node is not connected any more, and perhaps lives.
    Doubt {
        node: NodeId,
    },
    /// The process of another node has ended.
    Death {
        node: NodeId,
    },
}

/// What the disk says to an engine.
#[derive(Clone, Debug)]
pub(crate) enum DiskEvent {
    /// It has what these wait for.
    Kept(Vec<Ack>),
    /// A snapshot is in its file.
    SnapshotKept { group: GroupId, member: MemberId, file: KeptFile },
    /// A piece of a snapshot was read, or cannot be.
    PieceRead { piece: Piece, read: Result<Bytes, StoreError> },
    /// The log wants these groups written anew, to get rid of its oldest part.
    Rewrite(Vec<GroupId>),
    /// It does not take a group's record.
    Refused { group: GroupId, reason: String },
    /// Nothing more can be kept.
    Failed(String),
}

/// The clocks as they read once the inputs of a turn were taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) now: MonoTime,
    pub(crate) wall_ms: u64,
}

/// All groups of one loop.
pub(crate) struct Engine {
    node: NodeId,
    id: LoopId,
    config: HostConfig,
    registry: Registry,
    /// Places for snapshots that come, of all loops of the node.
    arrivals: Arrivals,
    rng: ChaCha12Rng,
    /// Boxed: half of what a tree of them holds is room for more.
    groups: BTreeMap<GroupId, Box<Group>>,
    /// Members that failed on this node, and why.
    fenced: BTreeMap<GroupId, Fenced>,
    /// What members of groups that are over had come to, each of which is fenced.
    retired: BTreeMap<GroupId, Option<Keepsake>>,
    /// The newest member of a group that this node had and has no more: it, and any before it, stays dead.
    buried: BTreeMap<GroupId, MemberId>,
    /// Groups whose turn must be finished, each once.
    touched: Vec<GroupId>,
    /// Groups that have done commands in this turn.
    worked: Vec<GroupId>,
    /// How long all turns have taken.
    busy: Duration,
    timers: Timers,
    /// The loops that quiet groups are shared with.
    neighbours: Neighbours,
    /// When those are told next that this one turns.
    next_beat: MonoTime,
    /// Whether the host has a disk.
    keeps: bool,
    /// Why the disk keeps nothing more.
    disk_failed: Option<String>,
    stopped: bool,
}

/// The turn's surroundings for a group, with the engine's other fields still free.
macro_rules! turn {
    ($engine:ident, $clocks:ident, $out:ident) => {
        Turn {
            now: $clocks.now,
            wall_ms: $clocks.wall_ms,
            busy: $engine.busy,
            rng: &mut $engine.rng,
            limits: &$engine.config,
            arrivals: &$engine.arrivals,
            keeps: $engine.keeps,
            out: $out,
            own: $engine.id,
            neighbours: &mut $engine.neighbours,
        }
    };
}

// After the macro that they use.
mod founding;
mod restore;

impl Engine {
    pub(crate) fn new(
        (node, id): (NodeId, LoopId),
        config: HostConfig,
        registry: Registry,
        arrivals: Arrivals,
        seed: u64,
    ) -> Self {
        Self {
            node,
            id,
            config,
            registry,
            arrivals,
            rng: ChaCha12Rng::seed_from_u64(seed),
            groups: BTreeMap::new(),
            fenced: BTreeMap::new(),
            retired: BTreeMap::new(),
            buried: BTreeMap::new(),
            touched: Vec::new(),
            worked: Vec::new(),
            busy: Duration::ZERO,
            timers: Timers::default(),
            neighbours: Neighbours::default(),
            next_beat: MonoTime::ZERO,
            keeps: false,
            disk_failed: None,
            stopped: false,
        }
    }

    /// Takes in, on a host with a disk, the members that the disk has and those that have ended on this node. A member that cannot come back is fenced; the disk keeps what it has of it.
    pub(crate) fn recover(
        &mut self,
        members: BTreeMap<GroupId, KeptMember>,
        damaged: BTreeMap<GroupId, Fenced>,
        ended: BTreeMap<GroupId, MemberId>,
        clocks: Clocks,
        out: &mut Outputs,
    ) {
        self.keeps = true;
        self.buried = ended;
        self.fenced = damaged;
        for (id, kept) in members {
            let (member, term) = (kept.member, kept.vote.term);
            let mut turn = turn!(self, clocks, out);
            let registry = &self.registry;
            let recover = || Group::recover(id, kept, registry, &mut turn);
            match catch_unwind(AssertUnwindSafe(recover)) {
                Ok(group) => self.insert(id, group, clocks, out),
                Err(panic) => {
                    let reason = format!("it panicked: {}", panic_message(panic.as_ref()));
                    tracing::error!(group = %id, node = %self.node, reason, "a member cannot be recovered");
                    self.fenced.insert(id, Fenced { member, term, reason, kept: None });
                }
            }
        }
    }

    /// When the engine wants to be stepped even if nothing comes in.
    pub(crate) fn next_tick(&self) -> Option<MonoTime> {
        let beat = (!self.neighbours.is_empty()).then_some(self.next_beat);
        self.timers.next().into_iter().chain(beat).min()
    }

    /// One turn: takes in `inputs`, moves every group that is touched or due, and says what is to be done.
    pub(crate) fn step(&mut self, inputs: &mut Vec<Input>, clocks: Clocks, out: &mut Outputs) {
        self.worked.clear();
        for input in inputs.drain(..) {
            self.take_in(input, clocks, out);
        }
        self.tick(clocks, out);
        self.keep_company(clocks, out);
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.finish_group(id, clocks, out);
        }
        self.touched = touched;
    }

    /// The turn that began at `began` has taken until `now`.
    pub(crate) fn has_stepped(&mut self, began: MonoTime, now: MonoTime) {
        self.busy += now.since(began);
    }

    /// Whether [`end_turn`](Self::end_turn) wants to be told of the end of this turn.
    pub(crate) fn has_worked(&self) -> bool {
        !self.worked.is_empty()
    }

    /// All that a turn brought is done, and this is when.
    pub(crate) fn end_turn(&mut self, clocks: Clocks) {
        for id in self.worked.drain(..) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.end_turn(clocks, self.config.wait_target);
            }
        }
    }

    fn take_in(&mut self, input: Input, clocks: Clocks, out: &mut Outputs) {
        match input {
            Input::Command { group, command, waiter } => match self.group(group) {
                Ok(()) => self.with(group, clocks, out, |group, turn| {
                    group.stir_leader(turn);
                    group.command(turn, command, waiter);
                }),
                Err(missing) => out.command(waiter, Err(missing.not_applied().into())),
            },
            Input::Query { group, freshness, payload, waiter } => match self.group(group) {
                Ok(()) => {
                    self.with(group, clocks, out, |group, turn| {
                        if freshness == Freshness::Latest {
                            group.stir_leader(turn);
                        }
                        group.query(turn, freshness, payload, waiter);
                    });
                }
                Err(missing) => out.query(waiter, Err(missing.query_error())),
            },
            Input::Change { group, request, waiter } => match self.group(group) {
                Ok(()) => {
                    self.with(group, clocks, out, |group, turn| {
                        group.stir(turn);
                        group.request_change(turn, request, waiter);
                    });
                }
                Err(missing) => out.member(waiter, Err(missing.group_error())),
            },
            Input::Transfer { group, target, waiter } => match self.group(group) {
                Ok(()) => {
                    self.with(group, clocks, out, |group, turn| {
                        group.stir(turn);
                        group.request_transfer(turn, target, waiter);
                    });
                }
                Err(missing) => out.member(waiter, Err(missing.group_error())),
            },
            Input::Peer { from, messages } => {
                for message in messages {
                    self.receive(from, message, clocks, out);
                }
            }
            Input::Found { found, keepsake, waiter } => {
                let made = self.found(&found, keepsake.as_ref(), clocks, out);
                self.answer_founder(found.group, made, waiter, clocks, out);
            }
            Input::Retire { group, waiter } => {
                let retired = self.retire(group, clocks, out);
                out.answers.push(Answer::Keepsake(waiter, retired));
            }
            Input::Restore { group, kept, waiter } => {
                let made = self.restore(group, *kept, clocks, out);
                self.answer_founder(group, made, waiter, clocks, out);
            }
            Input::Drop { group, newest, waiter } => {
                self.bury(group, newest, clocks, out);
                out.member(waiter, Ok(newest));
            }
            Input::Statuses { group, waiter } => {
                let statuses = self.statuses(group, clocks.now);
                out.answers.push(Answer::Statuses(waiter, statuses));
            }
            Input::Disk(event) => self.hear_of_disk(event, clocks, out),
            Input::Errand(done) => self.take_done(done, clocks, out),
            Input::Beat { speaker } => self.neighbours.hear(speaker, clocks.now),
            Input::Doubt { node } => self.doubt(&self.neighbours.on(node), clocks, out),
            Input::Death { node } => {
                self.doubt(&self.neighbours.on(node), clocks, out);
                let follow = self.groups.iter().filter(|(_, group)| group.follows(node));
                for id in follow.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.with(id, clocks, out, |group, turn| group.hear_of_death(turn, node));
                }
            }
            Input::Stop { waiter } => {
                self.stopped = true;
                for (id, group) in std::mem::take(&mut self.groups) {
                    self.end(id, group, clocks, out);
                }
                out.member(waiter, Ok(MemberId(u64::MAX)));
            }
        }
    }

    fn group(&self, id: GroupId) -> Result<(), Missing> {
        if self.groups.contains_key(&id) {
            return Ok(());
        }
        if self.stopped {
            return Err(Missing::Stopped);
        }
        Err(match self.fenced.get(&id) {
            Some(fenced) => Missing::Fenced(id, fenced.reason.clone()),
            None => Missing::NoSuchGroup(id),
        })
    }

    /// Runs `act` on a group, whose turn must be finished then; one that panics is fenced, and the others live on.
    fn with(
        &mut self,
        id: GroupId,
        clocks: Clocks,
        out: &mut Outputs,
        act: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.set_touched(true) {
            self.touched.push(id);
        }
        let mut turn = turn!(self, clocks, out);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(group, &mut turn))) {
            let reason = format!("it panicked: {}", panic_message(panic.as_ref()));
            self.tell_fence(id, &reason);
            // What it wrote down last may be half done.
            self.put_aside(id, reason, None, clocks, out);
        }
    }

    /// The same for one member of a group, if it is still the one that lives here.
    fn with_member(
        &mut self,
        id: GroupId,
        member: MemberId,
        clocks: Clocks,
        out: &mut Outputs,
        act: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) {
        if self.groups.get(&id).is_some_and(|group| group.member() == member) {
            self.with(id, clocks, out, act);
        }
    }

    fn finish_group(&mut self, id: GroupId, clocks: Clocks, out: &mut Outputs) {
        let mut failure = None;
        // It stays marked while its turn is finished, so that it is not listed again.
        self.with(id, clocks, out, |group, turn| {
            failure = group.finish_turn(turn).err().map(|error| error.to_string());
        });
        if let Some(reason) = failure {
            self.fence(id, reason, clocks, out);
        } else if let Some(group) = self.groups.get_mut(&id) {
            group.set_touched(false);
            if group.has_worked() {
                self.worked.push(id);
            }
            #[cfg(feature = "sim")]
            group.tell_standing(self.node, clocks.now);
            if group.is_removed() {
                let member = group.member();
                self.bury(id, member, clocks, out);
            } else if let Some(due) = group.enter_timer() {
                self.timers.enter(due, id);
            }
        }
    }

    /// Takes a group that failed out of service on this node; its caller must repair or remove it.
    fn fence(&mut self, id: GroupId, reason: String, clocks: Clocks, out: &mut Outputs) {
        self.tell_fence(id, &reason);
        let kept = self.groups.get(&id).and_then(|group| group.all_records(&self.config));
        self.put_aside(id, reason, kept, clocks, out);
    }

    fn tell_fence(&self, id: GroupId, reason: &str) {
        tracing::error!(group = %id, node = %self.node, reason, "a group is fenced on this node");
        metrics::counter!("rafted_value_groups_fenced_total").increment(1);
    }

    /// Takes a group out of service; whoever waits for it is told.
    fn put_aside(
        &mut self,
        id: GroupId,
        reason: String,
        kept: Option<Record>,
        clocks: Clocks,
        out: &mut Outputs,
    ) {
        let Some(group) = self.groups.remove(&id) else { return };
        let (member, term) = (group.member(), group.term());
        self.end(id, group, clocks, out);
        self.fenced.insert(id, Fenced { member, term, reason, kept });
    }

    /// Answers whoever waits for a group that is no more, and drops it: beside the loop where there is much to drop, as
    /// other groups would wait for that.
    fn end(&mut self, id: GroupId, mut group: Box<Group>, clocks: Clocks, out: &mut Outputs) {
        let mut turn = turn!(self, clocks, out);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| group.stop(&mut turn))) {
            let reason = panic_message(panic.as_ref());
            tracing::error!(group = %id, node = %self.node, reason, "a member panicked when it ended");
        }
        if group.about_bytes() < self.config.snapshot_beside_bytes {
            return drop_ended(group);
        }
        out.errands.push(Errand { group: id, member: group.member(), work: Work::Drop(group) });
    }

    /// Ends this node's member of a group for ever, and with it any member up to `newest`.
    fn bury(&mut self, id: GroupId, newest: MemberId, clocks: Clocks, out: &mut Outputs) {
        // Whoever says so may not know yet that a newer one is here.
        if self.groups.get(&id).is_some_and(|group| group.member() <= newest)
            && let Some(group) = self.groups.remove(&id)
        {
            tracing::info!(group = %id, member = %group.member(), "the member ends");
            self.end(id, group, clocks, out);
        }
        if self.fenced.get(&id).is_some_and(|fenced| fenced.member <= newest) {
            self.fenced.remove(&id);
            self.retired.remove(&id);
        }
        let buried = self.buried.entry(id).or_insert(newest);
        *buried = newest.max(*buried);
        if self.keeps {
            out.keep(Record::Ended { group: id, newest: *buried }, None);
        }
    }

    fn insert(&mut self, id: GroupId, group: Group, clocks: Clocks, out: &mut Outputs) {
        let mut group = Box::new(group);
        // Its first turn may be a while away: where it is read from the disk, nothing else may come in.
        if let Some(due) = group.enter_timer() {
            self.timers.enter(due, id);
        }
        self.groups.insert(id, group);
        self.with(id, clocks, out, |_, _| {});
    }

    /// A message of a peer: to our member, or to one that we do not have yet, or have no more.
    fn receive(&mut self, from: NodeId, message: GroupMessage, clocks: Clocks, out: &mut Outputs) {
        let (id, to) = (message.group, message.to);
        if self.stopped {
            return;
        }
        if let Some(fenced) = self.fenced.get(&id).map(|fenced| fenced.member) {
            if to <= fenced || !speaks_as_leader(&message) {
                return;
            }
            // The group has given up the member that failed, and has a new one for this node.
            self.bury(id, fenced, clocks, out);
        }
        let ours = match self.groups.get_mut(&id) {
            Some(group) if group.member() == to => {
                if group.receive_quick(&message, clocks.now, out, from) {
                    #[cfg(feature = "sim")]
                    group.tell_standing(self.node, clocks.now);
                    return;
                }
                Some(to)
            }
            other => other.map(|group| group.member()),
        };
        match ours {
            Some(ours) if ours == to => {
                self.with(id, clocks, out, |group, turn| group.receive(turn, from, message));
                return;
            }
            // Ids only grow, and a node has one member of a group at a time: ours was removed while we were away.
            Some(ours) if ours < to && speaks_as_leader(&message) => self.bury(id, ours, clocks, out),
            // An older one of this node was removed, and whoever speaks to it may not know that of itself either.
            Some(_) => {
                self.with(id, clocks, out, |group, turn| {
                    group.refuse_former_member(turn, from, &message);
                });
                return;
            }
            None => {}
        }
        let dead = self.buried.get(&id).is_some_and(|buried| to <= *buried);
        if !dead && self.disk_failed.is_none() && speaks_as_leader(&message) {
            tracing::debug!(group = %id, member = %to, "a leader has added a member here");
            let mut turn = turn!(self, clocks, out);
            let group = Group::join(id, to, &self.registry, &mut turn);
            self.insert(id, group, clocks, out);
            self.with(id, clocks, out, |group, turn| group.receive(turn, from, message));
        }
    }
}

/// Whether only a leader says this; a candidate may be anybody, and makes no members.
fn speaks_as_leader(message: &GroupMessage) -> bool {
    matches!(
        message.body,
        Body::Beat { .. }
            | Body::Rest { .. }
            | Body::Append { .. }
            | Body::Snapshot { .. }
            | Body::Offer { .. }
    )
}
