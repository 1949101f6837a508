//! What the seed decides of a cluster before anything runs, and which faults there will be.

use std::time::Duration;

use dist_agent::SplitMergePolicy;
use rafted_value::sim::{NetConfig, SimRng};

/// The settings of one seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Nodes of the cluster, 3 to 7.
    pub(super) nodes: usize,
    pub(super) shards: u32,
    pub(super) agents: u16,
    /// How many agents there may be in a quota in which many more are activated.
    pub(super) quota: u32,
    /// Whether nodes have disks, and how long a sync takes at most.
    pub(super) disks: Option<Duration>,
    /// How many faults happen, one after the other; some of them last while others begin.
    pub(super) faults: u64,
    /// How much faster or slower than true time clocks run at most.
    pub(super) drift_ppm_max: u32,
    /// Which shards are split and merged, if any.
    pub(super) moves: Option<MovesPlan>,
    /// After how many commands members are compared with each other.
    pub(super) compared_every: u64,
    /// Where nodes are of two builds of the program: of a hundred lives but the first ones, so many are of the next.
    pub(super) next_builds: Option<u64>,
    /// Whether the first ones are.
    pub(super) begins_with_next: bool,
    /// How long an activation may take with its place in a quota, by clocks that are apart.
    pub(super) place_max: Duration,
    /// Of the places that are left, a client leases no more than one of so many.
    pub(super) lease_share: u32,
}

/// Splits and merges.
#[derive(Clone, Debug)]
pub(super) struct MovesPlan {
    /// When the cluster does it by itself.
    pub(super) policy: SplitMergePolicy,
    /// How often an operator asks for one, at most.
    pub(super) asked_every: Duration,
    /// How much is copied at a time, with a rest after it.
    pub(super) chunk_bytes: u64,
    pub(super) chunk_pause: Duration,
    /// How much may be left for the moment in which nobody serves the range.
    pub(super) tail_bytes: u64,
    /// What changes faster than it is copied is given up after so many rounds.
    pub(super) rounds_max: u64,
    /// How long one step is tried; a split whose new group is not there by then is given up.
    pub(super) step_timeout: Duration,
}

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A process dies, and another begins at its place: with what the disk has, else empty.
    Kill,
    /// A machine loses its power, and with it what was written and not synced.
    PowerLoss,
    /// All machines lose their power at once.
    Blackout,
    /// A machine comes back with an empty disk.
    Wipe,
    /// A node stands still.
    Pause,
    /// A node is cut off from the others.
    Cut,
    /// The same in one direction only.
    OneWay,
    /// Some links are cut, so that some nodes see each other and some do not.
    Partial,
    /// Loss, delay, duplication and reordering everywhere.
    Weather,
    /// Clocks change their speed, within what the margin covers.
    Drift,
    /// A wall clock jumps.
    Wall,
    /// A disk takes no more bytes; its node is restarted once there is room again.
    FullDisk,
    /// A node is drained and leaves, and another comes to its place.
    Drain,
    /// A node comes back as a build that speaks another version of the wire format, until its operator notices.
    Wire,
    /// Far more agents than a quota has places are activated and ended at once.
    Storm,
    /// The process that splits or merges shards just now dies.
    Performer,
}

/// How far a wall clock is off at most. A place in a quota is good for longer than two of them are apart.
pub(super) const WALL_OFFSET_MAX: Duration = Duration::from_secs(8);

/// Shards are split into no more than these.
const SHARDS_MAX: u32 = 8;

const KINDS: [(Kind, &str, u64); 16] = [
    (Kind::Kill, "kill", 4),
    (Kind::PowerLoss, "power-loss", 3),
    (Kind::Blackout, "blackout", 1),
    (Kind::Wipe, "wipe", 2),
    (Kind::Pause, "pause", 2),
    (Kind::Cut, "cut", 2),
    (Kind::OneWay, "one-way", 2),
    (Kind::Partial, "partial", 2),
    (Kind::Weather, "weather", 2),
    (Kind::Drift, "drift", 1),
    (Kind::Wall, "wall", 1),
    (Kind::FullDisk, "full-disk", 1),
    (Kind::Drain, "drain", 1),
    (Kind::Wire, "wire", 1),
    (Kind::Storm, "storm", 3),
    (Kind::Performer, "performer", 2),
];

/// What may be left out beside: splits and merges,
pub(super) const MOVES: &str = "moves";
/// ... and nodes of another build.
pub(super) const BUILDS: &str = "builds";

/// How the command line calls the kinds of faults.
pub(crate) const KIND_NAMES: [&str; KINDS.len() + 2] = {
    let mut names = [MOVES; KINDS.len() + 2];
    names[KINDS.len()] = BUILDS;
    let mut place = 0;
    while place < KINDS.len() {
        names[place] = KINDS[place].1;
        place += 1;
    }
    names
};

impl Plan {
    /// Draws the plan of a seed.
    pub(super) fn draw(rng: &mut SimRng) -> Self {
        let sync_max = Duration::from_millis(*rng.pick(&[1, 5, 30]).unwrap_or(&1));
        Self {
            nodes: 3 + rng.below(5) as usize,
            shards: 1 + rng.below(4) as u32,
            agents: 1 + rng.below(12) as u16,
            quota: 1 + rng.below(12) as u32,
            disks: rng.chance(0.5).then_some(sync_max),
            faults: 3 + rng.below(8),
            drift_ppm_max: *rng.pick(&[0, 500, 20_000]).unwrap_or(&0),
            moves: rng.chance(0.8).then(|| MovesPlan::draw(rng)),
            compared_every: *rng.pick(&[5, 50]).unwrap_or(&5),
            next_builds: rng.chance(0.4).then(|| *rng.pick(&[50, 90, 95]).unwrap_or(&50)),
            begins_with_next: rng.chance(0.3),
            place_max: 3 * WALL_OFFSET_MAX + Duration::from_secs(*rng.pick(&[0, 40]).unwrap_or(&0)),
            lease_share: *rng.pick(&[1, 2, 64]).unwrap_or(&1),
        }
    }
}

impl MovesPlan {
    fn draw(rng: &mut SimRng) -> Self {
        let one_of = |rng: &mut SimRng, items: &[u64]| *rng.pick(items).unwrap_or(&0);
        let policy = SplitMergePolicy {
            max_shards: SHARDS_MAX,
            max_keys: rng.chance(0.5).then(|| 2 + rng.below(8)),
            merge_percent: one_of(rng, &[0, 50, 100]) as u32,
            cooling_ms: one_of(rng, &[200, 3_000]),
            ..SplitMergePolicy::default()
        };
        Self {
            policy,
            asked_every: Duration::from_millis(one_of(rng, &[400, 2_000, 8_000])),
            chunk_bytes: one_of(rng, &[200, 2_000, 20_000, 256 << 10]),
            chunk_pause: Duration::from_millis(one_of(rng, &[0, 0, 20])),
            tail_bytes: one_of(rng, &[0, 2_000, 128 << 10]),
            rounds_max: one_of(rng, &[0, 3, 200, 200]),
            step_timeout: Duration::from_millis(one_of(rng, &[1_000, 5_000, 30_000, 30_000])),
        }
    }
}

impl Kind {
    /// Draws a fault, with its name.
    pub(super) fn draw(rng: &mut SimRng) -> (Self, &'static str) {
        let total = KINDS.iter().map(|(_, _, weight)| weight).sum();
        let mut draw = rng.below(total);
        for (kind, name, weight) in KINDS {
            if draw < weight {
                return (kind, name);
            }
            draw -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

/// A network that is worse than usual.
pub(super) fn draw_weather(rng: &mut SimRng) -> NetConfig {
    let one_of = |rng: &mut SimRng, items: &[u64]| *rng.pick(items).unwrap_or(&0);
    NetConfig {
        loss: rng.below(50) as f64 / 1000.0,
        delay_max: Duration::from_millis(1 + rng.below(100)),
        duplication: rng.below(3) as f64 * 0.05,
        reordering: rng.below(3) as f64 * 0.2,
        straggling_max: Duration::from_millis(one_of(rng, &[5, 50, 500])),
        ..NetConfig::default()
    }
}
