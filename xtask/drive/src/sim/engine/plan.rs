//! What the seed decides before anything runs: sizes, settings, and which faults there will be.

use std::time::Duration;

use rafted_value::sim::{NetConfig, SimRng};
use rafted_value::{Durability, GroupConfig, HostConfig, StoreConfig};

use crate::sim::sabotage::Sabotage;

/// Milliseconds as a duration.
pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The settings of one seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) groups: Vec<GroupPlan>,
    pub(super) host: HostConfig,
    /// The network where nothing is wrong with it.
    pub(super) network: NetConfig,
    /// Whether nodes have disks, and which.
    pub(super) disks: Option<DiskPlan>,
    pub(super) load: Load,
    /// How much faster or slower than true time any clock runs at most; the drift margin of every group covers it.
    pub(super) drift_ppm_max: u32,
    pub(super) faults: FaultPlan,
    /// How often the invariants are checked, at most.
    pub(super) watch_every: Duration,
    pub(super) sabotage: Option<Sabotage>,
}

/// One group.
#[derive(Clone, Debug)]
pub(super) struct GroupPlan {
    pub(super) id: u64,
    /// How many voters the operator keeps.
    pub(super) voters: usize,
    /// Founded on one node and grown, or on all at once.
    pub(super) founded_together: bool,
    pub(super) config: GroupConfig,
    /// Clients ask nothing of it.
    pub(super) idle: bool,
}

/// The disks of all nodes.
#[derive(Clone, Debug)]
pub(super) struct DiskPlan {
    /// How long a sync takes at most.
    pub(super) sync_max: Duration,
}

/// What clients do.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) clients: usize,
    /// Operations that one client has under way at most.
    pub(super) concurrency: usize,
    pub(super) keys: u16,
    pub(super) think_max: Duration,
    pub(super) attempt_limit: Duration,
    pub(super) give_up_after: Duration,
    pub(super) retry_window: Duration,
    pub(super) padding_max: usize,
    /// Commands that one session lets wait.
    pub(super) session_waiting_max: usize,
    /// How often every other client, when it got no answer, asks the same node again: it is the one that may not know that
    /// it no longer leads. The clients between them lose their patience soon, and find the new leader.
    pub(super) loyalty: f64,
    pub(super) retry_in_new_sessions: bool,
    pub(super) read_from_anybody: bool,
}

/// Which faults happen, and how dense.
#[derive(Clone, Debug)]
pub(super) struct FaultPlan {
    /// How long they go on.
    pub(super) time: Duration,
    pub(super) gap_max: Duration,
    /// How long one lasts at most.
    pub(super) length_max: Duration,
    /// How long a killed node stays away at most.
    pub(super) absence_max: Duration,
    /// How often the operator looks after the membership.
    pub(super) operator_every: Duration,
    /// The share of each kind.
    pub(super) weights: Vec<(Kind, u64)>,
}

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Kill,
    Stop,
    PowerLoss,
    Blackout,
    Pause,
    Depose,
    Isolate,
    Split,
    OneWay,
    Network,
    Drift,
    Wall,
    Churn,
    Transfer,
    Configure,
    Usurp,
    Freeze,
}

const KINDS: [Kind; 17] = [
    Kind::Kill,
    Kind::Stop,
    Kind::PowerLoss,
    Kind::Blackout,
    Kind::Pause,
    Kind::Depose,
    Kind::Isolate,
    Kind::Split,
    Kind::OneWay,
    Kind::Network,
    Kind::Drift,
    Kind::Wall,
    Kind::Churn,
    Kind::Transfer,
    Kind::Configure,
    Kind::Usurp,
    Kind::Freeze,
];

/// How the command line calls them, in the same order.
pub(crate) const KIND_NAMES: [&str; KINDS.len()] = [
    "kill",
    "stop",
    "power-loss",
    "blackout",
    "pause",
    "depose",
    "isolate",
    "split",
    "one-way",
    "network",
    "drift",
    "wall",
    "churn",
    "transfer",
    "configure",
    "usurp",
    "freeze",
];

impl Kind {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        let place = KINDS.iter().position(|kind| *kind == self);
        KIND_NAMES[place.expect("every kind is listed")]
    }
}

/// One of `items`, all equally likely.
pub(super) fn one_of<T: Clone>(rng: &mut SimRng, items: &[T]) -> T {
    rng.pick(items).expect("there is something to choose from").clone()
}

impl Plan {
    /// Draws the plan of a seed.
    pub(super) fn draw(rng: &mut SimRng) -> Self {
        let nodes = 3 + rng.below(3) as usize;
        let count = one_of(rng, &[1, 1, 2, 3, 4]);
        let mut groups: Vec<GroupPlan> = (1..=count).map(|id| GroupPlan::draw(rng, id, nodes)).collect();
        let disks = rng.chance(0.5).then(|| DiskPlan::draw(rng));
        for group in &mut groups {
            group.config.durability = match disks {
                None => Durability::Memory,
                Some(_) => one_of(
                    rng,
                    &[Durability::Fsync, Durability::Fsync, Durability::Async, Durability::Memory],
                ),
            };
        }
        let drift_ppm_max = groups.iter().map(|group| drift_covered_ppm(&group.config)).min().unwrap_or(0);
        Self {
            nodes,
            groups,
            host: draw_host(rng),
            network: draw_network(rng),
            disks,
            load: Load::draw(rng),
            drift_ppm_max: one_of(rng, &[0, drift_ppm_max / 2, drift_ppm_max]),
            faults: FaultPlan::draw(rng),
            watch_every: ms(one_of(rng, &[10, 30, 100])),
            sabotage: None,
        }
    }
}

impl Plan {
    /// Breaks a rule.
    pub(super) fn sabotage(&mut self, sabotage: Option<Sabotage>) {
        self.sabotage = sabotage;
        self.load.retry_in_new_sessions = sabotage == Some(Sabotage::RetriesInNewSessions);
        self.load.read_from_anybody = sabotage == Some(Sabotage::ReadsFromAnybody);
        if sabotage == Some(Sabotage::QuietGroupsSleepOn) {
            let never = Duration::from_secs(3_600);
            let (loop_silence_max, quiet_max) = (never, never);
            self.host = HostConfig { quiet_after: ms(20), loop_silence_max, quiet_max, ..self.host.clone() };
            self.network = NetConfig {
                death_notice: 0.0,
                silence_min: never,
                silence_max: 2 * never,
                ..self.network.clone()
            };
        }
        if sabotage == Some(Sabotage::ClocksBeyondTheMargin) {
            self.drift_ppm_max = 400_000;
            for group in &mut self.groups {
                group.config.clock_drift_margin_ms = 0;
                group.config.election_timeout_min_ms =
                    group.config.promise_ms.max(2 * group.config.heartbeat_ms);
            }
        }
    }
}

/// How far off true time each of two clocks may run so that a promise on one outlasts a lease on the other, in parts
/// per million: `(promise - margin) / (1 - d) <= promise / (1 + d)`.
pub(super) fn drift_covered_ppm(config: &GroupConfig) -> u32 {
    let (promise, margin) = (u64::from(config.promise_ms), u64::from(config.clock_drift_margin_ms));
    if margin >= promise {
        return 100_000;
    }
    (1_000_000 * margin / (2 * promise - margin)).min(100_000) as u32
}

impl GroupPlan {
    fn draw(rng: &mut SimRng, id: u64, nodes: usize) -> Self {
        let voters = one_of(rng, &[1, 2, 3, 3, 3, 3, 4, 5]).min(nodes);
        let idle = id > 1 && rng.chance(0.5);
        Self { id, voters, founded_together: rng.chance(0.5), config: draw_group_config(rng), idle }
    }
}

/// The settings of a group.
pub(super) fn draw_group_config(rng: &mut SimRng) -> GroupConfig {
    let heartbeat_ms = one_of(rng, &[10, 20, 50]);
    let promise_ms = heartbeat_ms * one_of(rng, &[1, 2, 4, 8]);
    let clock_drift_margin_ms = one_of(rng, &[promise_ms / 20, promise_ms / 10, promise_ms / 2, promise_ms]);
    // Where a follower campaigns as soon as its promise ends, nothing but the promise guards the lease.
    let min = promise_ms.max(2 * heartbeat_ms) * one_of(rng, &[1, 1, 2, 3]);
    GroupConfig {
        heartbeat_ms,
        promise_ms,
        clock_drift_margin_ms,
        election_timeout_min_ms: min,
        election_timeout_max_ms: min + min * one_of(rng, &[1, 2, 4]) / 2,
        session_replies_max: one_of(rng, &[30, 300, 100_000, 100_000]),
        retry_window_max_ms: one_of(rng, &[20_000, 600_000]),
        command_bytes_max: one_of(rng, &[400, 1 << 20]),
        log_expansion_factor: one_of(rng, &[1, 2, 10]),
        log_bytes_min: one_of(rng, &[2_000, 10_000, 50_000, 1 << 20]),
        ..GroupConfig::default()
    }
}

impl DiskPlan {
    fn draw(rng: &mut SimRng) -> Self {
        Self { sync_max: ms(one_of(rng, &[1, 1, 5, 40])) }
    }
}

fn draw_store(rng: &mut SimRng) -> StoreConfig {
    StoreConfig {
        segment_bytes: one_of(rng, &[2_000, 20_000, 64 << 20]),
        batch_bytes: one_of(rng, &[500, 8 << 20]),
        mark_idle: ms(one_of(rng, &[1, 100])),
        log_garbage_ratio: one_of(rng, &[2, 4]),
        segments_max: one_of(rng, &[2, 64]),
        snapshot_chunk_bytes: one_of(rng, &[1_000, 256 << 10]),
        ..StoreConfig::default()
    }
}

/// In some seeds nobody is told of a death, and connections outlast it by long.
fn draw_network(rng: &mut SimRng) -> NetConfig {
    let silence_min = ms(one_of(rng, &[500, 500, 10_000]));
    let death_notice = one_of(rng, &[1.0, 0.5, 0.0]);
    NetConfig { death_notice, silence_min, silence_max: 2 * silence_min, ..NetConfig::default() }
}

fn draw_host(rng: &mut SimRng) -> HostConfig {
    let loop_beat = ms(one_of(rng, &[2, 5, 10]));
    HostConfig {
        quiet_after: ms(one_of(rng, &[0, 20, 20, 60, 200])),
        loop_beat,
        loop_silence_max: loop_beat * 4,
        quiet_max: ms(one_of(rng, &[200, 2_000, 60_000])),
        loops: 1 + rng.below(3) as usize,
        inbox_max: one_of(rng, &[8, 65_536, 65_536]),
        turn_inputs_max: one_of(rng, &[1, 4, 4096]),
        entry_commands_max: one_of(rng, &[1, 3, 1024]),
        entry_bytes_max: one_of(rng, &[100, 256 << 10]),
        group_waiting_max: one_of(rng, &[4, 65_536, 65_536]),
        uninitialised_max: ms(one_of(rng, &[2_000, 60_000])),
        snapshot_retry: ms(one_of(rng, &[300, 2_000, 10_000])),
        handover_max: ms(one_of(rng, &[0, 50, 1_000])),
        store: draw_store(rng),
        divergence_check_commands: one_of(rng, &[1, 5, 50]),
        ..HostConfig::default()
    }
}

impl Load {
    fn draw(rng: &mut SimRng) -> Self {
        Self {
            clients: 2 + rng.below(3) as usize,
            concurrency: 1 + rng.below(4) as usize,
            keys: one_of(rng, &[1, 2, 5]),
            think_max: ms(one_of(rng, &[20, 100, 300])),
            attempt_limit: ms(one_of(rng, &[30, 200, 1_000])),
            give_up_after: ms(one_of(rng, &[300, 2_000, 8_000])),
            retry_window: ms(one_of(rng, &[500, 10_000, 18_000])),
            padding_max: one_of(rng, &[0, 50, 500]),
            session_waiting_max: one_of(rng, &[2, 100]),
            loyalty: one_of(rng, &[0.0, 0.0, 0.5, 0.95]),
            retry_in_new_sessions: false,
            read_from_anybody: false,
        }
    }
}

impl FaultPlan {
    fn draw(rng: &mut SimRng) -> Self {
        let mut weights: Vec<(Kind, u64)> =
            KINDS.iter().map(|kind| (*kind, one_of(rng, &[0, 1, 1, 4]))).collect();
        if weights.iter().all(|(_, weight)| *weight == 0) {
            weights[0].1 = 1;
        }
        Self {
            time: ms(one_of(rng, &[1_500, 3_000, 6_000])),
            gap_max: ms(one_of(rng, &[50, 200, 800])),
            length_max: ms(one_of(rng, &[100, 500, 2_000])),
            absence_max: ms(one_of(rng, &[1, 500, 2_000])),
            operator_every: ms(one_of(rng, &[20, 100, 400])),
            weights,
        }
    }

    /// Draws a fault.
    pub(super) fn draw_kind(&self, rng: &mut SimRng) -> Kind {
        let total = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut draw = rng.below(total);
        for (kind, weight) in &self.weights {
            if draw < *weight {
                return *kind;
            }
            draw -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}
