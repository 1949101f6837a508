//! The replicated part of a group: the user's value, the sessions, the membership's nodes, the settings.
//!
//! Pure: the same entries give the same machine on every member. A handler that panics is undone by building the machine
//! anew from the member's snapshot and log without the poisoned command, so that the normal path pays nothing.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};
use serde::Deserialize;

use super::frozen::{FrozenMachine, join};
use crate::config::GroupConfig;
use crate::data::{CommandContext, RawData, Stopped};
use crate::entry::{Commands, EntryBody, EntryKind, command_seed};
use crate::error::{CommandError, GroupError, NotApplied, QueryError};
use crate::hooks::{Hooked, RawLeaderHook};
use crate::id::{GroupId, MemberId, NodeId};
use crate::keepsake::Keepsake;
use crate::message::{ChangeKind, MemberChange};
use crate::raft::convert::read_change;
use crate::raft::log::MemberLog;
use crate::registry::Registry;
use crate::request::Command;
use crate::session::{Admission, Outcome, Records, Sessions};
use crate::store::StoreError;

/// What the caller of a command is told.
pub(crate) type CommandResult = Result<Bytes, CommandError>;

/// Why a member cannot go on; it is fenced.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("no data type named {0:?} is registered on this node")]
    NoSuchData(String),
    #[error("the group's state at index {index} does not decode: {reason}")]
    Snapshot { index: u64, reason: String },
    #[error("log entry {index} does not decode: {reason}")]
    Entry { index: u64, reason: String },
    #[error("log entry {index} panicked when it was replayed without the command that panicked first")]
    Replay { index: u64 },
    #[error("the group's snapshot cannot be read back: {0}")]
    Unreadable(#[from] StoreError),
    #[error("the value cannot be taken down: {0}")]
    Unsnapshotable(String),
    #[error("it cannot apply what other members may be able to: {0}")]
    Stopped(String),
    #[error(
        "its state at index {index} is not that of a majority, with which it was alike at {since}; commands between: {kinds}"
    )]
    Diverged { index: u64, since: u64, kinds: String },
}

/// A group's replicated state on one member.
pub(crate) struct Machine {
    group: GroupId,
    registry: Registry,
    data_name: String,
    data: Box<dyn RawData>,
    sessions: Sessions,
    stamp_ms: u64,
    config: GroupConfig,
    nodes: BTreeMap<MemberId, NodeId>,
    next_member: u64,
    /// Commands that panicked, by index and position, as far as the log still holds them.
    poisoned: BTreeSet<(u64, usize)>,
    /// The machine as the last rebuild left it, so that a burst of panics does not replay the whole log each time.
    rebuilt: Option<Rebuilt>,
    /// Told what happens while this member leads; never while the machine is built anew.
    hooked: Hooked,
    /// Whether the value came out of a snapshot and the hook was not told of it yet.
    restored: bool,
}

/// Where a rebuild may begin. Everything but the value is kept as it is: a table of sessions is copied faster than it is
/// encoded and decoded again.
struct Rebuilt {
    index: u64,
    /// The first command of entry `index` that is not in it.
    position: usize,
    sessions: Sessions,
    stamp_ms: u64,
    config: GroupConfig,
    nodes: BTreeMap<MemberId, NodeId>,
    next_member: u64,
    value: Bytes,
}

/// How postcard numbers the first variant of a [`MachineState`].
const V1: u32 = 0;

/// A machine in a snapshot; append-only.
#[derive(Deserialize)]
enum MachineState<'a> {
    #[serde(borrow)]
    V1(MachineStateV1<'a>),
}

#[derive(Deserialize)]
struct MachineStateV1<'a> {
    data_name: String,
    config: GroupConfig,
    nodes: BTreeMap<MemberId, NodeId>,
    next_member: u64,
    stamp_ms: u64,
    sessions: Sessions,
    /// Where it lies in the snapshot: it may be most of the memory.
    value: &'a [u8],
}

/// The panic of a user's handler.
pub(super) struct Panicked(pub(super) String);

/// Why a command has no outcome.
enum NoOutcome {
    /// It is undone, on every member alike.
    Panicked(String),
    /// This member cannot go on; see [`stop_member`](crate::stop_member).
    Stopped(String),
}

/// Where a value is asked for its state.
impl From<Panicked> for MachineError {
    fn from(Panicked(message): Panicked) -> Self {
        MachineError::Unsnapshotable(message)
    }
}

impl NoOutcome {
    fn of(panic: Box<dyn Any + Send>) -> Self {
        match panic.downcast::<Stopped>() {
            Ok(stopped) => Self::Stopped(stopped.0),
            Err(panic) => Self::Panicked(panic_message(panic.as_ref())),
        }
    }
}

impl Machine {
    /// The machine of a new group with these members.
    pub(crate) fn found(
        group: GroupId,
        registry: &Registry,
        data_name: &str,
        config: GroupConfig,
        nodes: BTreeMap<MemberId, NodeId>,
    ) -> Result<Self, MachineError> {
        let data = registry.make(data_name).ok_or_else(|| MachineError::NoSuchData(data_name.to_owned()))?;
        let next_member = nodes.keys().next_back().map_or(1, |member| member.0 + 1);
        Ok(Self {
            group,
            registry: registry.clone(),
            data_name: data_name.to_owned(),
            data,
            sessions: Sessions::default(),
            stamp_ms: 0,
            config,
            nodes,
            next_member,
            poisoned: BTreeSet::new(),
            rebuilt: None,
            hooked: Hooked::new(registry.hook(data_name)),
            restored: false,
        })
    }

    /// The machine of a new group with these members that begins with what another group had come to.
    pub(crate) fn found_with(
        group: GroupId,
        registry: &Registry,
        data_name: &str,
        config: GroupConfig,
        nodes: BTreeMap<MemberId, NodeId>,
        keepsake: &Keepsake,
    ) -> Result<Self, GroupError> {
        let broken = |error: MachineError| match error {
            MachineError::NoSuchData(name) => GroupError::NoSuchData(name),
            error => GroupError::InvalidConfig(error.to_string()),
        };
        let mut machine = Self::restore(group, registry, 1, &keepsake.state).map_err(broken)?;
        if machine.data_name != data_name {
            let held = machine.data_name;
            return Err(GroupError::InvalidConfig(format!("what was kept is a {held}, not a {data_name}")));
        }
        machine.next_member = nodes.keys().next_back().map_or(1, |member| member.0 + 1);
        machine.nodes = nodes;
        machine.config = config;
        Ok(machine)
    }

    /// The machine that a snapshot at `index` holds.
    pub(crate) fn restore(
        group: GroupId,
        registry: &Registry,
        index: u64,
        bytes: &[u8],
    ) -> Result<Self, MachineError> {
        let broken = |reason: String| MachineError::Snapshot { index, reason };
        let MachineState::V1(state) =
            postcard::from_bytes(bytes).map_err(|error| broken(error.to_string()))?;
        Self::revive(group, registry, index, state)
    }

    /// The machine of this state at `index`.
    fn revive(
        group: GroupId,
        registry: &Registry,
        index: u64,
        state: MachineStateV1<'_>,
    ) -> Result<Self, MachineError> {
        let broken = |reason: String| MachineError::Snapshot { index, reason };
        let mut data = catch(|| registry.make(&state.data_name))
            .map_err(|Panicked(message)| broken(message))?
            .ok_or_else(|| MachineError::NoSuchData(state.data_name.clone()))?;
        catch(|| data.restore(state.value))
            .map_err(|Panicked(message)| broken(message))?
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            group,
            registry: registry.clone(),
            hooked: Hooked::new(registry.hook(&state.data_name)),
            restored: true,
            data_name: state.data_name,
            data,
            sessions: if planted!(DropSessions) {
                Sessions::default()
            } else {
                state.sessions.restored(state.stamp_ms)
            },
            stamp_ms: state.stamp_ms,
            config: state.config,
            nodes: state.nodes,
            next_member: state.next_member,
            poisoned: BTreeSet::new(),
            rebuilt: None,
        })
    }

    /// The whole machine in bytes, which are expected to be about as many as given.
    pub(crate) fn snapshot(&self, expected_bytes: usize) -> Result<Bytes, MachineError> {
        join(&self.head(), expected_bytes, |out| catch(|| self.data.snapshot(out)))
    }

    /// The same to be encoded on another thread, where the value can be copied in a moment.
    pub(crate) fn freeze(&self, expected_bytes: usize) -> Result<Option<FrozenMachine>, MachineError> {
        let value = catch(|| self.data.freeze())?;
        Ok(value.map(|value| FrozenMachine { head: self.head(), value, bytes: expected_bytes }))
    }

    /// A [`MachineState`] up to its value.
    fn head(&self) -> Bytes {
        let (data_name, config, nodes) = (&self.data_name, &self.config, &self.nodes);
        crate::data::encode(&(V1, data_name, config, nodes, self.next_member, self.stamp_ms, &self.sessions))
    }

    /// What commands and settings have made so far, for a comparison with other members.
    pub(super) fn compared_bytes(&self) -> Result<Vec<u8>, MachineError> {
        let mut bytes = Vec::new();
        crate::data::append(&(&self.data_name, &self.config, self.stamp_ms), &mut bytes);
        self.sessions.write_compared(&mut bytes);
        catch(|| self.data.snapshot(&mut bytes))?;
        Ok(bytes)
    }

    /// Adds the kinds of the commands in an entry.
    pub(super) fn kinds_of(&self, entry: &Entry, kinds: &mut BTreeSet<String>) {
        if entry.get_entry_type() != EntryType::EntryNormal
            || EntryKind::of(&entry.data) != EntryKind::Commands
        {
            return;
        }
        let Ok(commands) = read_commands(entry) else { return };
        for command in &commands.commands {
            // A report is no reason to panic.
            kinds.extend(catch(|| self.data.command_kind(&command.payload)).ok());
        }
    }

    /// Knows of the same poisoned commands as the machine that it was copied from.
    pub(crate) fn poisoned_like(self, other: &Machine) -> Self {
        Self { poisoned: other.poisoned.clone(), ..self }
    }

    /// Forgets poisoned commands that a snapshot at `index` has left behind.
    pub(crate) fn forget_poisoned(&mut self, index: u64) {
        self.poisoned.retain(|&(poisoned, _)| poisoned > index);
        self.rebuilt = self.rebuilt.take().filter(|rebuilt| rebuilt.index > index);
    }

    pub(crate) fn data_name(&self) -> &str {
        &self.data_name
    }

    pub(crate) fn config(&self) -> &GroupConfig {
        &self.config
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<MemberId, NodeId> {
        &self.nodes
    }

    pub(crate) fn next_member(&self) -> MemberId {
        MemberId(self.next_member)
    }

    /// The stamp of the newest entry.
    pub(crate) fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// How much of its state it holds in bytes beside itself.
    pub(crate) fn held_bytes(&self) -> u64 {
        let held = |rebuilt: &Rebuilt| rebuilt.value.len() as u64 + rebuilt.sessions.about_bytes();
        self.rebuilt.as_ref().map_or(0, held)
    }

    pub(crate) fn session_replies(&self) -> u64 {
        self.sessions.replies()
    }

    /// What the value says to a command that it has nothing to do with. One that panics over it has to be asked in the log.
    pub(crate) fn turn_away(&self, payload: &Bytes) -> Option<Bytes> {
        catch(|| self.data.turn_away(payload)).unwrap_or(None)
    }

    /// Answers a query from what is applied.
    pub(crate) fn query(&self, payload: &Bytes) -> Result<Bytes, QueryError> {
        match catch(|| self.data.query(payload)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refused)) => Err(QueryError::Refused(refused.0)),
            Err(Panicked(message)) => Err(QueryError::Panicked(message)),
        }
    }

    /// Answers a query as the leader.
    pub(crate) fn answer(&self, payload: &Bytes) -> Result<Bytes, QueryError> {
        let answer = self.query(payload)?;
        self.tell(|hook, group, value| hook.query_answered(group, value, payload, &answer));
        Ok(answer)
    }

    /// Whether the hook is told what happens.
    pub(crate) fn set_leads(&mut self, leads: bool) {
        self.hooked.set_leads(leads);
    }

    /// Tells the hook that this member serves as the leader.
    pub(crate) fn tell_elected(&mut self) {
        if std::mem::take(&mut self.restored) {
            self.tell(|hook, group, value| hook.restored(group, value));
        }
        self.tell(|hook, group, value| hook.elected(group, value));
    }

    /// Tells the hook something of the value.
    pub(crate) fn tell(&self, tell: impl FnOnce(&dyn RawLeaderHook, GroupId, &dyn RawData)) {
        self.hooked.tell(self.group, |hook| tell(hook, self.group, self.data.as_ref()));
    }

    /// Applies a committed entry of commands; `log` holds everything since the member's snapshot, this entry included.
    pub(crate) fn apply_commands(
        &mut self,
        log: &MemberLog,
        entry: &Entry,
    ) -> Result<Vec<CommandResult>, MachineError> {
        let commands = read_commands(entry)?;
        self.stamp(&commands);
        let mut results = Vec::with_capacity(commands.commands.len());
        for (position, command) in commands.commands.iter().enumerate() {
            match self.run(entry.index, position, command) {
                Ok(result) => results.push(result),
                Err(NoOutcome::Stopped(reason)) => return Err(MachineError::Stopped(reason)),
                Err(NoOutcome::Panicked(message)) => {
                    tracing::error!(group = %self.group, index = entry.index, position, message, "a command handler panicked; it is undone");
                    self.poisoned.insert((entry.index, position));
                    self.rebuild(log, entry.index, position)?;
                    results.push(Err(NotApplied::Panicked(message).into()));
                }
            }
        }
        Ok(results)
    }

    /// Applies a committed change of the membership.
    pub(crate) fn apply_change(&mut self, change: &MemberChange) {
        match change.kind {
            ChangeKind::AddLearner => {
                self.nodes.insert(change.member, change.node);
                self.next_member = self.next_member.max(change.member.0 + 1);
            }
            ChangeKind::Promote => {}
            ChangeKind::Remove => {
                self.nodes.remove(&change.member);
            }
        }
    }

    /// Applies committed settings.
    pub(crate) fn apply_config(&mut self, entry: &Entry) -> Result<(), MachineError> {
        let EntryBody::Config(config) = read_body(entry)? else {
            return Err(MachineError::Entry { index: entry.index, reason: "it holds no settings".into() });
        };
        self.config = config;
        Ok(())
    }

    /// Applies an entry of a log that its group left behind; what it says to whom is long answered, or never will be.
    pub(crate) fn catch_up(&mut self, log: &MemberLog, entry: &Entry) -> Result<(), MachineError> {
        let normal = entry.get_entry_type() == EntryType::EntryNormal;
        if normal && EntryKind::of(&entry.data) == EntryKind::Commands {
            return self.apply_commands(log, entry).map(drop);
        }
        self.replay(entry, 0..0)
    }

    /// Makes it the machine of a group whose only member is a new one on `node`, with an id above all that the group
    /// ever had and above `newest`; that id.
    pub(crate) fn found_anew(&mut self, node: NodeId, newest: Option<MemberId>) -> MemberId {
        let member = MemberId(self.next_member.max(newest.map_or(0, |newest| newest.0.saturating_add(1))));
        self.nodes = BTreeMap::from([(member, node)]);
        self.next_member = member.0 + 1;
        member
    }

    fn stamp(&mut self, commands: &Commands) {
        self.stamp_ms = self.stamp_ms.max(commands.stamp_ms);
        self.sessions.expire(self.stamp_ms);
    }

    fn run(&mut self, index: u64, position: usize, command: &Command) -> Result<CommandResult, NoOutcome> {
        match self.sessions.admit(self.group, &self.config, self.stamp_ms, command) {
            Admission::Answer(answer) => return Ok(answer),
            Admission::Run => {}
        }
        let (outcome, kept) = if self.poisoned.contains(&(index, position)) {
            // The text is the same on every member, unlike what a panic says of itself.
            (Err(NotApplied::Panicked("whoever sent it first was told why".into())), true)
        } else {
            self.call(index, position, command)?
        };
        if kept {
            self.sessions.record(self.stamp_ms, command, outcome.clone());
        }
        Ok(outcome.map_err(CommandError::NotApplied))
    }

    /// Calls the value's handler, and says whether its reply is kept.
    fn call(&mut self, index: u64, position: usize, command: &Command) -> Result<(Outcome, bool), NoOutcome> {
        let seed = command_seed(self.group.0, index, position as u64);
        let context = CommandContext { now_ms: self.stamp_ms, index, seed };
        let data = &mut self.data;
        let before = self.hooked.tell(self.group, |hook| hook.before(data.as_ref(), &command.payload));
        let mut records = Records::new(&mut self.sessions, &mut self.stamp_ms);
        #[cfg(feature = "sim")]
        crate::sim::show::applies(self.group, index, position);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            data.command_with_records(&context, &command.payload, &mut records)
        }));
        let outcome = ran.map_err(NoOutcome::of)?.map_err(|refused| NotApplied::Refused(refused.0));
        let kept = records.keeps_reply();
        if let (Some(before), Ok(reply)) = (before, &outcome) {
            self.hooked.tell(self.group, |hook| {
                hook.command_committed(self.group, before, data.as_ref(), &command.payload, reply);
            });
        }
        Ok((outcome, kept))
    }

    /// Builds the machine anew up to and with the command at `position` of entry `index`, which is poisoned.
    fn rebuild(&mut self, log: &MemberLog, index: u64, position: usize) -> Result<(), MachineError> {
        let (first, mut from, mut fresh) = match &self.rebuilt {
            Some(rebuilt) => (rebuilt.index, rebuilt.position, self.as_rebuilt(rebuilt)?),
            None => {
                let (state, first) = (log.load_state()?, log.snapshot_index() + 1);
                (first, 0, Self::restore(self.group, &self.registry, first, &state)?)
            }
        };
        fresh.poisoned = std::mem::take(&mut self.poisoned);
        for entry in log.range(first, index) {
            let to = if entry.index == index { position + 1 } else { usize::MAX };
            fresh.replay(entry, from..to)?;
            from = 0;
        }
        fresh.rebuilt = Some(fresh.note_rebuilt(index, position + 1)?);
        (fresh.hooked, fresh.restored) = (std::mem::take(&mut self.hooked), self.restored);
        *self = fresh;
        Ok(())
    }

    /// The machine as a rebuild left it.
    fn as_rebuilt(&self, rebuilt: &Rebuilt) -> Result<Self, MachineError> {
        let state = MachineStateV1 {
            data_name: self.data_name.clone(),
            config: rebuilt.config.clone(),
            nodes: rebuilt.nodes.clone(),
            next_member: rebuilt.next_member,
            stamp_ms: rebuilt.stamp_ms,
            sessions: rebuilt.sessions.clone(),
            value: &rebuilt.value,
        };
        Self::revive(self.group, &self.registry, rebuilt.index, state)
    }

    /// The machine as it is, up to the command at `position` of entry `index`.
    fn note_rebuilt(&self, index: u64, position: usize) -> Result<Rebuilt, MachineError> {
        let mut value = Vec::new();
        catch(|| self.data.snapshot(&mut value))?;
        value.shrink_to_fit();
        Ok(Rebuilt {
            index,
            position,
            sessions: self.sessions.clone(),
            stamp_ms: self.stamp_ms,
            config: self.config.clone(),
            nodes: self.nodes.clone(),
            next_member: self.next_member,
            value: value.into(),
        })
    }

    /// Applies the commands at `positions` of an entry that was applied before.
    fn replay(&mut self, entry: &Entry, positions: Range<usize>) -> Result<(), MachineError> {
        if entry.get_entry_type() != EntryType::EntryNormal {
            let change = read_change(entry)
                .ok_or(MachineError::Entry { index: entry.index, reason: "not a change".into() })?;
            self.apply_change(&change);
            return Ok(());
        }
        match EntryKind::of(&entry.data) {
            EntryKind::Nothing | EntryKind::Comparison => return Ok(()),
            EntryKind::Config => return self.apply_config(entry),
            EntryKind::Commands => {}
        }
        let commands = read_commands(entry)?;
        // In the middle of an entry time has passed already, and a command of it may have raised it further: what expires then
        // expires with the next entry.
        if positions.start == 0 {
            self.stamp(&commands);
        }
        let commands = commands.commands.iter().enumerate();
        for (position, command) in commands.filter(|(position, _)| positions.contains(position)) {
            // The result was answered when the command first ran.
            let _ = self.run(entry.index, position, command).map_err(|none| match none {
                NoOutcome::Stopped(reason) => MachineError::Stopped(reason),
                NoOutcome::Panicked(_) => MachineError::Replay { index: entry.index },
            })?;
        }
        Ok(())
    }
}

fn read_commands(entry: &Entry) -> Result<Commands, MachineError> {
    match read_body(entry)? {
        EntryBody::Commands(commands) => Ok(commands),
        _ => Err(MachineError::Entry { index: entry.index, reason: "it holds no commands".into() }),
    }
}

pub(super) fn read_body(entry: &Entry) -> Result<EntryBody, MachineError> {
    postcard::from_bytes(&entry.data)
        .map_err(|error| MachineError::Entry { index: entry.index, reason: error.to_string() })
}

pub(super) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| Panicked(panic_message(payload.as_ref())))
}

/// What a panic said, as far as it is text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(Stopped(reason)) = payload.downcast_ref() {
        return reason.clone();
    }
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
