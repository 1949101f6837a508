//! One member of one group: Raft, the replicated machine, the lease, and whoever waits for an answer.
//!
//! Sans-IO: time, randomness and limits come in with each [`Turn`], and what is to be sent or answered goes out with it.
//! A turn is: take inputs ([`Group::receive`], [`Group::command`], [`Group::query`], [`Group::tick`], ...), then
//! [`Group::finish_turn`] once.

mod apply;
#[cfg(all(test, feature = "sim"))]
mod attacks;
pub(crate) mod change;
mod divergence;
mod election;
mod frozen;
mod keep;
mod machine;
mod offer;
mod pace;
mod propose;
mod quick;
mod reads;
mod records;
pub(crate) mod recover;
mod repair;
mod rest;
mod settings;
mod snapshot;
mod status;
mod stream;
mod tick;
mod transfer;
mod trim;
#[cfg(feature = "sim")]
mod watched;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{ProgressState, RawNode, StateRole};
use rand_chacha::ChaCha12Rng;

pub(crate) use self::frozen::FrozenMachine;
use self::keep::Keeper;
pub(crate) use self::machine::{CommandResult, Machine, MachineError, panic_message};
use self::offer::Outgoing;
use self::pace::Pace;
use self::reads::Read;
use self::rest::Rest;
use self::stream::Incoming;
use crate::arrivals::Arrivals;
use crate::config::{GroupConfig, HostConfig};
use crate::engine::Found;
use crate::env::MonoTime;
use crate::error::{CommandError, GroupError, NotApplied, QueryError, Unknown};
use crate::id::{FOUNDER, GroupId, MemberId, NodeId};
use crate::keepsake::Keepsake;
use crate::lease::{Exemption, Promise, Rounds};
use crate::message::{Body, GroupMessage, WireSnapshot};
use crate::neighbours::{LoopId, Neighbours};
use crate::outputs::Outputs;
use crate::raft::convert::{self, LeaseFields};
use crate::raft::log::MemberLog;
use crate::raft::{bridge, raft_config};
use crate::registry::Registry;
use crate::request::Command;
use crate::waiter::Waiter;

/// Routes to members that the membership does not name yet, at most.
const ROUTES_MAX: usize = 256;
/// What a refused caller is told to wait.
const RETRY_AFTER_MS: u64 = 20;
/// A group to which nothing was added for so many ticks gives back what it has set aside for more.
const TRIM_TICKS: u8 = 20;

/// What a turn brings from outside.
pub(crate) struct Turn<'a> {
    pub(crate) now: MonoTime,
    pub(crate) wall_ms: u64,
    /// How long all turns of the loop before this one have taken.
    pub(crate) busy: Duration,
    pub(crate) rng: &'a mut ChaCha12Rng,
    pub(crate) limits: &'a HostConfig,
    /// Places for snapshots that come.
    pub(crate) arrivals: &'a Arrivals,
    /// Whether the host has a disk.
    pub(crate) keeps: bool,
    pub(crate) out: &'a mut Outputs,
    /// The loop that drives the group.
    pub(crate) own: LoopId,
    pub(crate) neighbours: &'a mut Neighbours,
}

/// The commands of one proposed entry, in order.
struct Proposal {
    term: u64,
    index: u64,
    waiters: Vec<Waiter<CommandResult>>,
    /// When they were proposed, how long the loop had been busy by then, and how many commands waited before them.
    since: MonoTime,
    busy: Duration,
    ahead: usize,
}

/// One member of one group on this node.
pub(crate) struct Group {
    id: GroupId,
    member: MemberId,
    registry: Registry,
    raw: RawNode<MemberLog>,
    keeper: Keeper,
    /// `None` until the first snapshot has come.
    machine: Option<Machine>,
    /// The settings of raft and of our timers: the machine's, or the default while there is none.
    config: GroupConfig,
    /// Nodes of members as their messages told, beside those that the membership names.
    routes: BTreeMap<MemberId, NodeId>,
    created: MonoTime,
    next_tick: MonoTime,
    election_deadline: MonoTime,
    /// The wait that was drawn last.
    election_wait: Duration,
    /// The elections in which it was a candidate since anybody led.
    elections_lost: u32,
    /// The leader that it follows, or followed last, is dead.
    bereaved: Option<election::Bereaved>,
    promise: Promise,
    /// The newest round accepted from a leader, and its term.
    accepted: (u64, u64),
    rounds: Rounds,
    /// The term that this member leads, if any.
    leading: Option<u64>,
    /// Whether an entry of the term it leads is applied.
    serving: bool,
    incoming: Vec<(Command, Waiter<CommandResult>)>,
    incoming_bytes: usize,
    proposals: VecDeque<Proposal>,
    waiting: usize,
    pace: Pace,
    reads: VecDeque<Read>,
    change: Option<change::PendingChange>,
    /// A change of the voters that is applied here, and who waits until enough of them know it.
    spreading: Option<change::Settled>,
    /// Where the newest change of the voters is in the log, or where the snapshot is that has it.
    voters_since: u64,
    /// The transfer of its leadership that this leader has begun.
    transfer: Option<transfer::Transfer>,
    /// What became of such a transfer is not known yet.
    succession: Option<transfer::Succession>,
    /// What lets this member campaign at the wish of the leader that it followed.
    exemption: Option<Exemption>,
    /// When the snapshot on its way to a member was sent.
    snapshots_sent: BTreeMap<MemberId, MonoTime>,
    /// Snapshots that members were offered.
    outgoing: BTreeMap<MemberId, Outgoing>,
    /// The snapshot that comes in pieces.
    incoming_snapshot: Option<Box<Incoming>>,
    /// Not before this time its missing pieces are asked for again.
    pieces_due: MonoTime,
    /// Whether a snapshot of its own is being encoded beside the loop.
    encoding: bool,
    /// Not before this time another snapshot is taken because the file of the last one is damaged.
    mend_due: MonoTime,
    /// What a leader's snapshot turned out to be, for when raft takes it.
    decoded: Option<(u64, Box<Machine>)>,
    removed: bool,
    /// Whether the timers must be started anew because the settings have changed.
    config_is_new: bool,
    /// Whether the membership was changed beside the log since the last snapshot.
    membership_forced: bool,
    divergence: divergence::Divergence,
    rest: Rest,
    /// The time for which it is entered among the timers of its loop.
    entered: Option<MonoTime>,
    /// Ticks until it gives back room that it has no use for; zero when that is done.
    trim_ticks: u8,
    /// Whether its turn must be finished.
    touched: bool,
    /// The most that it held when a part of its log went.
    held_max: u64,
}

impl Group {
    /// The first member of a new group that lives on the node at `position` of those listed.
    pub(crate) fn found(
        registry: &Registry,
        found: &Found,
        keepsake: Option<&Keepsake>,
        position: usize,
        turn: &mut Turn<'_>,
    ) -> Result<Self, GroupError> {
        let Found { group: id, data, config, nodes } = found;
        let id = *id;
        let members: BTreeMap<MemberId, NodeId> =
            (FOUNDER.0..).map(MemberId).zip(nodes.iter().copied()).collect();
        let voters: Vec<MemberId> = members.keys().copied().collect();
        let member = voters[position];
        let machine = match keepsake {
            None => Machine::found(id, registry, data, config.clone(), members)
                .map_err(|_| GroupError::NoSuchData(data.to_owned()))?,
            Some(keepsake) => Machine::found_with(id, registry, data, config.clone(), members, keepsake)?,
        };
        let state = machine
            .snapshot(0)
            .map_err(|error| GroupError::Fenced { group: id, reason: error.to_string() })?;
        // The log begins behind a snapshot, so that every later member is given one and nobody replays membership.
        let snapshot = WireSnapshot { index: 1, term: 1, voters, learners: Vec::new(), state };
        let log = MemberLog::new(convert::snapshot_from_wire(snapshot));
        let mut group = Self::new(id, member, registry, config.clone(), log, 1, turn);
        group.machine = Some(machine);
        #[cfg(feature = "sim")]
        group.tell_log();
        group.begin_to_keep(turn);
        group.hold_until_begun();
        group.campaign_alone();
        Ok(group)
    }

    /// A member that has nothing yet and waits for a leader's snapshot.
    pub(crate) fn join(id: GroupId, member: MemberId, registry: &Registry, turn: &mut Turn<'_>) -> Self {
        let log = MemberLog::new(Snapshot::default());
        Self::new(id, member, registry, GroupConfig::default(), log, 0, turn)
    }

    fn new(
        id: GroupId,
        member: MemberId,
        registry: &Registry,
        config: GroupConfig,
        log: MemberLog,
        applied: u64,
        turn: &mut Turn<'_>,
    ) -> Self {
        let raft_config = raft_config(member, applied);
        let raw = RawNode::new(&raft_config, log, &bridge()).expect("the configuration is validated before");
        let mut group = Self {
            id,
            member,
            registry: registry.clone(),
            raw,
            keeper: Keeper::nothing(),
            machine: None,
            config,
            routes: BTreeMap::new(),
            created: turn.now,
            next_tick: turn.now,
            election_deadline: turn.now,
            election_wait: Duration::ZERO,
            elections_lost: 0,
            bereaved: None,
            promise: Promise::default(),
            accepted: (0, 0),
            rounds: Rounds::default(),
            leading: None,
            serving: false,
            incoming: Vec::new(),
            incoming_bytes: 0,
            proposals: VecDeque::new(),
            waiting: 0,
            pace: Pace::default(),
            reads: VecDeque::new(),
            change: None,
            spreading: None,
            voters_since: applied,
            transfer: None,
            succession: None,
            exemption: None,
            snapshots_sent: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            incoming_snapshot: None,
            pieces_due: MonoTime::ZERO,
            encoding: false,
            mend_due: MonoTime::ZERO,
            decoded: None,
            removed: false,
            config_is_new: false,
            membership_forced: false,
            divergence: divergence::Divergence::default(),
            rest: Rest::awake(turn.now),
            entered: None,
            trim_ticks: TRIM_TICKS,
            touched: false,
            held_max: 0,
        };
        group.forgo_append_windows();
        group.plan_tick(turn.now);
        group.draw_election_deadline(turn);
        group
    }

    pub(crate) fn member(&self) -> MemberId {
        self.member
    }

    /// Marks whether the group's turn must be finished; what it was before.
    pub(crate) fn set_touched(&mut self, touched: bool) -> bool {
        std::mem::replace(&mut self.touched, touched)
    }

    /// Whether the member was removed from its group and should be dropped.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether the member never got its state and has waited long enough for it.
    pub(crate) fn is_abandoned(&self, now: MonoTime, limit: Duration) -> bool {
        self.machine.is_none() && self.incoming_snapshot.is_none() && now.since(self.created) > limit
    }

    /// Takes in a message of another member, on node `from`.
    pub(crate) fn receive(&mut self, turn: &mut Turn<'_>, from: NodeId, mut message: GroupMessage) {
        debug_assert_eq!(message.to, self.member);
        if let Err(reason) = convert::check(&message).and_then(|()| self.check_indices(&message)) {
            metrics::counter!("rafted_value_messages_refused_total").increment(1);
            tracing::warn!(group = %self.id, %from, reason, "a message that no member would send");
            return;
        }
        if self.refuse_former_member(turn, from, &message) {
            return;
        }
        if !self.machine.as_ref().is_some_and(|machine| machine.nodes().contains_key(&message.from)) {
            self.learn_route(message.from, from);
        }
        if self.receive_in_rest(turn, from, &message) {
            return;
        }
        if planted!(AppendAnywhere)
            && let Body::Append { log_term, index, .. } = &mut message.body
            && *index > self.raw.raft.raft_log.committed
            && let Ok(own) = self.raw.raft.raft_log.term(*index)
        {
            *log_term = own;
        }
        match message.body {
            Body::Rest { .. } | Body::RestAck { .. } | Body::Wake => {}
            Body::Removed => {
                tracing::info!(group = %self.id, member = %self.member, "this member was removed while it was away");
                self.removed = true;
            }
            // Without its state a member may have forgotten a vote or a promise.
            Body::Vote { .. } | Body::TransferVote { .. } if self.machine.is_none() => {}
            Body::Vote { .. }
                if self.promise.withholds(turn.now, None, self.accepted) && !planted!(BreakPromise) =>
            {
                tracing::debug!(group = %self.id, candidate = %message.from, "a vote is withheld: a promise runs");
            }
            Body::TransferVote { .. } => self.receive_transfer_vote(turn, message),
            Body::TransferNow { round } => self.receive_transfer(turn, message, round),
            Body::Vote { pre, .. } => self.receive_vote(turn, message, pre),
            Body::Beat { round, promise_ms, .. } => self.receive_beat(turn, message, round, promise_ms),
            Body::Append { .. } | Body::Snapshot { .. } => {
                self.receive_from_leader(turn, message);
            }
            Body::BeatAck { round, .. } => {
                if self.leading == Some(message.term) && self.raw.raft.prs().get(message.from.0).is_some() {
                    self.rounds.acknowledge(message.from, MonoTime::from_nanos(round));
                }
                self.step(message);
            }
            Body::AppendAck { .. } => {
                let from = message.from;
                self.step(message);
                // An old answer leaves the snapshot under way: it may still be lost.
                let progress = self.raw.raft.prs().get(from.0);
                if progress.is_none_or(|progress| progress.state != ProgressState::Snapshot) {
                    self.snapshots_sent.remove(&from);
                    self.outgoing.remove(&from);
                }
            }
            Body::VoteAck { .. } => self.step(message),
            Body::Offer { .. } => self.receive_offer(turn, from, message),
            Body::Pull { offer, offset } => self.receive_pull(turn, from, message.from, offer, offset),
            Body::Piece { .. } => self.receive_piece(turn, from, message),
            Body::StateHash { index, hash } => self.receive_state_hash(&message, index, hash),
        }
    }

    /// What only a broken peer says of indices, and what raft would panic over or believe.
    fn check_indices(&self, message: &GroupMessage) -> Result<(), String> {
        let last = self.raw.raft.raft_log.last_index();
        match message.body {
            Body::Beat { commit, .. } | Body::Rest { commit, .. } if commit > last => {
                Err(format!("a beat commits entry {commit} of a log that ends at {last}"))
            }
            Body::AppendAck { index, .. } if self.leading == Some(message.term) && index > last => {
                Err(format!("entry {index} is acknowledged of a log that ends at {last}"))
            }
            _ => Ok(()),
        }
    }

    /// Tells a member that was removed while it was away; true if the message is dealt with.
    pub(crate) fn refuse_former_member(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        message: &GroupMessage,
    ) -> bool {
        let Some(machine) = &self.machine else { return false };
        if message.body == Body::Removed
            || machine.nodes().contains_key(&message.from)
            || message.from >= machine.next_member()
        {
            return false;
        }
        if self.commit_cap().is_some() {
            // Its removal may be what our own disk does not know yet.
            return true;
        }
        // Ids are never used again, and its removal is committed: it can be told for good.
        let term = self.raw.raft.term;
        let notice =
            GroupMessage { group: self.id, from: self.member, to: message.from, term, body: Body::Removed };
        turn.out.send(from, &notice);
        true
    }

    fn learn_route(&mut self, member: MemberId, node: NodeId) {
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&member) {
            self.routes.clear();
        }
        self.routes.insert(member, node);
    }

    /// Gives a message to raft.
    fn step(&mut self, message: GroupMessage) {
        let from = message.from;
        if let Some(message) = convert::from_wire(message)
            && let Err(error) = self.raw.step(message)
        {
            tracing::debug!(group = %self.id, %from, %error, "raft did not take a message");
        }
    }

    /// Proposes what came in, moves Raft on, applies, answers.
    pub(crate) fn finish_turn(&mut self, turn: &mut Turn<'_>) -> Result<(), MachineError> {
        self.note_role(turn);
        self.propose(turn);
        self.watch_divergence(turn);
        self.ask_for_confirmation(turn);
        if planted!(AcknowledgeBeforeQuorum) && self.leading.is_some() {
            let last = self.raw.raft.raft_log.last_index();
            self.raw.raft.raft_log.commit_to(last);
        }
        while self.raw.has_ready() {
            self.perform_ready(turn)?;
            if self.removed {
                return Ok(());
            }
            self.note_role(turn);
            self.adopt_config(turn);
        }
        self.watch_transfer(turn);
        self.watch_succession(turn);
        self.watch_spreading(turn);
        self.serve_reads(turn);
        // What raft did not take in this turn it does not need.
        self.decoded = None;
        self.compact(turn)
    }

    /// Sends raft's messages, with what the lease adds to them.
    fn send(&mut self, turn: &mut Turn<'_>, messages: Vec<Message>) {
        for mut message in messages {
            match message.get_msg_type() {
                MessageType::MsgHeartbeat => self.rounds.send(turn.now),
                MessageType::MsgSnapshot if self.offer_in_pieces(turn, &mut message) => continue,
                MessageType::MsgTimeoutNow if !self.may_send_transfer(turn.now, message.to, message.term) => {
                    continue;
                }
                _ => {}
            }
            if let Some(cap) = self.commit_cap() {
                message.commit = message.commit.min(cap);
            }
            // A beat whose promise the disk does not know yet is not acknowledged with an answer to one of before.
            let known = self.accepted.0 == message.term && self.keeper.may_answer(message.term, 0);
            let accepted_round = if known { self.accepted.1 } else { 0 };
            let lease = LeaseFields {
                round: turn.now.nanos(),
                promise_ms: self.config.promise_ms,
                accepted_round,
                exemption: self.exemption,
            };
            if let Some(mut message) = convert::to_wire(self.id, message, lease)
                && let Some(node) = self.node_of(message.to)
            {
                message.body = self.with_rest(message.body, turn.own);
                #[cfg(feature = "sim")]
                self.tell_sent(&message);
                turn.out.send(node, &message);
            }
        }
    }

    /// Where a member lives, as the membership says or else as its messages did.
    fn node_of(&self, member: MemberId) -> Option<NodeId> {
        let named = self.machine.as_ref().and_then(|machine| machine.nodes().get(&member));
        named.or_else(|| self.routes.get(&member)).copied()
    }

    fn leader_node(&self) -> Option<NodeId> {
        match self.raw.raft.leader_id {
            raft::INVALID_ID => None,
            id => self.node_of(MemberId(id)),
        }
    }

    /// Where a caller may find the leader; a leader that died is nobody to wait for.
    fn leader_to_ask(&self) -> Option<NodeId> {
        if self.mourns().is_some() { None } else { self.leader_node() }
    }

    /// Notices that leadership was won or lost.
    fn note_role(&mut self, turn: &mut Turn<'_>) {
        let raft = &self.raw.raft;
        let leading = (raft.state == StateRole::Leader).then_some(raft.term);
        if leading == self.leading {
            return;
        }
        if let Some(term) = self.leading {
            self.give_up(turn, &Unknown::LeaderChanged(self.id));
            self.await_successor(term);
        }
        self.stir(turn);
        self.leading = leading;
        self.serving = false;
        self.divergence.forget_round();
        if let Some(machine) = &mut self.machine {
            machine.set_leads(leading.is_some());
        }
        self.rounds.reset();
        self.snapshots_sent.clear();
        self.outgoing.clear();
        match leading {
            Some(term) => {
                self.elections_lost = 0;
                tracing::info!(group = %self.id, member = %self.member, term, "leads");
                metrics::counter!("rafted_value_elections_won_total").increment(1);
            }
            None => self.draw_election_deadline(turn),
        }
    }

    /// Answers everybody who waits: this member cannot say what becomes of their requests.
    fn give_up(&mut self, turn: &mut Turn<'_>, why: &Unknown) {
        for proposal in self.proposals.drain(..) {
            for waiter in proposal.waiters {
                turn.out.command(waiter, Err(why.clone().into()));
            }
        }
        let successor = self.successor().and_then(|member| self.node_of(member));
        let leader = self.leader_to_ask().filter(|_| self.raw.raft.state != StateRole::Leader).or(successor);
        let refusal = NotApplied::NotLeader { group: self.id, leader };
        for (_, waiter) in self.incoming.drain(..) {
            turn.out.command(waiter, Err(CommandError::NotApplied(refusal.clone())));
        }
        self.incoming_bytes = 0;
        for read in self.reads.drain(..) {
            turn.out.query(read.waiter, Err(QueryError::NotLeader { group: self.id, leader }));
        }
        self.waiting = 0;
        self.pace.forget();
        let change = self.change.take().map(|change| change.waiter);
        for waiter in change.into_iter().chain(self.spreading.take().map(|settled| settled.waiter)) {
            turn.out.member(waiter, Err(GroupError::Unknown(self.id)));
        }
    }

    /// About how much it holds, or has held: what its state was at a snapshot, and what was in its log. A value may hold what
    /// is no part of its state any more.
    pub(crate) fn about_bytes(&self) -> u64 {
        let log = self.raw.store();
        self.held_max.max(log.state_bytes() + log.bytes())
    }

    /// Ends the member; whoever waits is told.
    pub(crate) fn stop(&mut self, turn: &mut Turn<'_>) {
        self.end_rest(turn);
        #[cfg(feature = "sim")]
        self.tell_end();
        self.give_up(turn, &Unknown::Stopped(self.id));
        self.give_up_founding(turn);
        self.drop_transfer(turn);
    }
}
