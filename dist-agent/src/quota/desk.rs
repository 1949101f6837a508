//! Where the callers of one node or client get places for agents, and say what became of them.
//!
//! Whoever comes while a command for the ledger is under way waits for the next, so that one command serves all who came
//! meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use raft_kv::raft_fleet::{CallOptions, Fleet, GroupName};
use raft_kv::rafted_value::encode;
use raft_kv::rafted_value::env::{MonoTime, sleep};
use tokio::sync::oneshot;

use super::ledger::{GROUP, PASS_MAX_MS};
use super::wire::{Ask, Given, LedgerCommand, LedgerReply, PlaceFate, Told};
use crate::agent_id::QuotaName;
use crate::wire::Pass;

/// Callers that one command to the ledger serves at most.
const BATCH_MAX: usize = 4096;
/// Callers that may wait.
const WAITING_MAX: usize = 65_536;
/// What is told to the ledger and waits to be sent; what is over it is found out by reports.
const TOLD_MAX: usize = 65_536;
/// For how long a pass of an unlimited quota is used again without asking: how long after a quota was deleted or got a
/// limit an agent may still be activated by somebody who has not heard of it.
const REUSE_MAX: Duration = Duration::from_secs(2);
/// Between two attempts to tell the ledger something.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Attempts to tell the ledger something; what it is not told, it finds out by reports.
const TELL_TRIES_MAX: u32 = 10;

/// Gets places from the ledger. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Desk {
    shared: Arc<Shared>,
}

struct Shared {
    fleet: Fleet,
    group: GroupName,
    options: CallOptions,
    pass_ms: u64,
    queue: Mutex<Queue>,
    /// How new the agents were that were called last, 0 to [`NEWNESS_MAX`].
    newness: AtomicU8,
}

#[derive(Default)]
struct Queue {
    asked: Vec<(Ask, oneshot::Sender<Result<Offer, String>>)>,
    told: Vec<Told>,
    /// Whether a task sends what is here.
    is_served: bool,
    /// Passes of unlimited quotas, and until when they are used again.
    reusable: BTreeMap<QuotaName, (Pass, MonoTime)>,
    /// Quotas that had many places left, and until when that is believed.
    roomy: BTreeMap<QuotaName, MonoTime>,
}

/// Why there is no place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoPlace {
    NoSuchQuota,
    Full {
        limit: u64,
    },
    /// The ledger did not answer.
    Unheard(String),
}

/// What a caller gets. One that is gone, or goes without having looked, drops it with the place that may be in it.
enum Offer {
    Place(Place),
    NoSuchQuota,
    Full { limit: u64 },
    MayBeFull { limit: u64 },
}

/// A place in a quota. What becomes of it must be told; one that is dropped before it was shown to anybody is returned.
pub(crate) struct Place {
    desk: Desk,
    place: u64,
    pub(crate) pass: Pass,
    /// Whether there are many more.
    is_of_many: bool,
    is_shown: bool,
}

impl Desk {
    pub(crate) fn new(fleet: Fleet, options: CallOptions, pass: Duration) -> Self {
        let group = GroupName::new(GROUP).expect("a short name");
        let pass_ms = u64::try_from(pass.as_millis()).unwrap_or(u64::MAX).min(PASS_MAX_MS);
        let (queue, newness) = (Mutex::default(), AtomicU8::new(0));
        Self { shared: Arc::new(Shared { fleet, group, options, pass_ms, queue, newness }) }
    }

    /// Whether the next agent that is called most likely is not active, as the last ones were not.
    pub(crate) fn expects_new(&self) -> bool {
        self.shared.newness.load(Ordering::Relaxed) > NEWNESS_MAX / 2
    }

    /// An agent that was called without a place was not active, or was. A counter that saturates (Smith, 1981): one that is
    /// new among many that are not changes nothing.
    pub(crate) fn was_new(&self, was_new: bool) {
        let before = self.shared.newness.load(Ordering::Relaxed);
        let now = if was_new { (before + 1).min(NEWNESS_MAX) } else { before.saturating_sub(1) };
        // It is a guess: an update that is lost does no harm, and most change nothing.
        if now != before {
            self.shared.newness.store(now, Ordering::Relaxed);
        }
    }

    /// A pass of a quota that is known to be unlimited.
    pub(crate) fn reusable(&self, quota: &QuotaName) -> Option<Pass> {
        let queue = self.shared.queue.lock();
        let (pass, until) = queue.reusable.get(quota)?;
        (self.shared.fleet.env().now() < *until).then_some(*pass)
    }

    /// Forgets a pass that was not good any more.
    pub(crate) fn forget(&self, quota: &QuotaName) {
        self.shared.queue.lock().reusable.remove(quota);
    }

    /// Whether a quota had many places left just now: one that turns out not to be needed is in nobody's way.
    pub(crate) fn has_room(&self, quota: &QuotaName) -> bool {
        let queue = self.shared.queue.lock();
        queue.roomy.get(quota).is_some_and(|until| self.shared.fleet.env().now() < *until)
    }

    /// Takes a place for the agent whose key has this hash. Where the ledger is not sure whether the quota is full, it is
    /// asked again for a little while: the shards are being counted.
    pub(crate) async fn take(
        &self,
        quota: &QuotaName,
        hash: u64,
        unsure_until: MonoTime,
    ) -> Result<Place, NoPlace> {
        loop {
            match self.ask(quota, hash).await.map_err(NoPlace::Unheard)? {
                Offer::Place(place) => {
                    self.learn(quota, &place);
                    return Ok(place);
                }
                Offer::NoSuchQuota => return Err(NoPlace::NoSuchQuota),
                Offer::MayBeFull { .. } if self.shared.fleet.env().now() < unsure_until => {
                    sleep(self.shared.fleet.env().as_ref(), UNSURE_PAUSE).await;
                }
                Offer::Full { limit } | Offer::MayBeFull { limit } => return Err(NoPlace::Full { limit }),
            }
        }
    }

    async fn ask(&self, quota: &QuotaName, hash: u64) -> Result<Offer, String> {
        let (sender, offered) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.asked.len() >= WAITING_MAX {
                return Err(format!("{WAITING_MAX} activations wait already"));
            }
            queue.asked.push((Ask { quota: quota.clone(), hash }, sender));
            self.serve(&mut queue);
        }
        offered.await.unwrap_or_else(|_| Err("this node is shutting down".to_owned()))
    }

    fn offer(&self, given: Given) -> Offer {
        match given {
            Given::Place { place, generation, until_ms } => {
                Offer::Place(self.place(place, Pass { generation, until_ms }, false))
            }
            Given::PlaceOfMany { place, generation, until_ms } => {
                Offer::Place(self.place(place, Pass { generation, until_ms }, true))
            }
            Given::NoSuchQuota => Offer::NoSuchQuota,
            Given::Full { limit } => Offer::Full { limit },
            Given::MayBeFull { limit } => Offer::MayBeFull { limit },
        }
    }

    fn place(&self, place: u64, pass: Pass, is_of_many: bool) -> Place {
        Place { desk: self.clone(), place, pass, is_of_many, is_shown: false }
    }

    fn tell(&self, place: u64, fate: PlaceFate) {
        if place == 0 {
            return;
        }
        let mut queue = self.shared.queue.lock();
        if queue.told.len() < TOLD_MAX {
            queue.told.push(Told { place, fate });
        }
        self.serve(&mut queue);
    }

    /// What a place says about its quota.
    fn learn(&self, quota: &QuotaName, place: &Place) {
        let now = self.shared.fleet.env().now();
        let mut queue = self.shared.queue.lock();
        if place.place == 0 {
            let reuse = REUSE_MAX.min(Duration::from_millis(self.shared.pass_ms / 2));
            keep(&mut queue.reusable, quota, (place.pass, now + reuse), |(_, until)| *until > now);
        } else if place.is_of_many {
            keep(&mut queue.roomy, quota, now + ROOM_MAX, |until| *until > now);
        } else {
            queue.roomy.remove(quota);
        }
    }

    /// Makes sure that a task sends what waits.
    fn serve(&self, queue: &mut Queue) {
        if !std::mem::replace(&mut queue.is_served, true) {
            let desk = self.clone();
            self.shared.fleet.env().spawn("quota-desk", Box::pin(async move { desk.send_all().await }));
        }
    }

    /// Sends command after command until nothing waits.
    async fn send_all(&self) {
        let mut tries = 0;
        loop {
            let (asked, told) = {
                let mut queue = self.shared.queue.lock();
                let (asked, told) = (queue.asked.len().min(BATCH_MAX), queue.told.len().min(BATCH_MAX));
                let batch = (
                    queue.asked.drain(..asked).collect::<Vec<_>>(),
                    queue.told.drain(..told).collect::<Vec<_>>(),
                );
                if batch.0.is_empty() && batch.1.is_empty() {
                    queue.is_served = false;
                    return;
                }
                batch
            };
            let (asks, waiting): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
            let only_told = asks.is_empty();
            match self.send(asks, told.clone()).await {
                Ok(given) => {
                    tries = 0;
                    for (caller, given) in waiting.into_iter().zip(given) {
                        // It does not matter who is gone.
                        let _ = caller.send(Ok(self.offer(given)));
                    }
                }
                Err(reason) => {
                    for caller in waiting {
                        // It does not matter who is gone.
                        let _ = caller.send(Err(reason.clone()));
                    }
                    tries += 1;
                    if tries < TELL_TRIES_MAX {
                        self.shared.queue.lock().told.extend(told);
                    }
                    if only_told {
                        sleep(self.shared.fleet.env().as_ref(), RETRY_INTERVAL).await;
                    }
                }
            }
        }
    }

    async fn send(&self, asked: Vec<Ask>, told: Vec<Told>) -> Result<Vec<Given>, String> {
        let Shared { fleet, group, options, pass_ms, .. } = &*self.shared;
        let count = asked.len();
        let command = LedgerCommand::Places { asked, told, pass_ms: *pass_ms };
        let reply = fleet.command(group, 0, encode(&command), options).await;
        let reply = reply.map_err(|error| error.to_string())?;
        match postcard::from_bytes(&reply) {
            Ok(LedgerReply::Places(given)) if given.len() == count => Ok(given),
            Ok(other) => Err(format!("the answer is not understood: {other:?}")),
            Err(error) => Err(format!("the answer does not decode: {error}")),
        }
    }
}

/// Calls in a row that change the guess whether agents are new, times two.
const NEWNESS_MAX: u8 = 7;
/// Quotas of which something is kept.
const QUOTAS_MAX: usize = 10_000;
/// For how long it is believed that a quota has many places left.
const ROOM_MAX: Duration = Duration::from_secs(1);
/// How long to wait while shards are being counted.
const UNSURE_PAUSE: Duration = Duration::from_millis(50);

/// Keeps something of a quota, where there is room for it beside what is still good.
fn keep<T>(kept: &mut BTreeMap<QuotaName, T>, quota: &QuotaName, value: T, is_good: impl Fn(&T) -> bool) {
    if kept.len() >= QUOTAS_MAX {
        kept.retain(|_, value| is_good(value));
    }
    if kept.len() < QUOTAS_MAX {
        kept.insert(quota.clone(), value);
    }
}

impl Place {
    /// It is about to be shown to the agent's shard: from now on nobody but the shard knows what becomes of it.
    pub(crate) fn show(&mut self) -> Pass {
        self.is_shown = true;
        self.pass
    }

    /// It was surely not used.
    pub(crate) fn give_back(self) {
        self.desk.tell(self.place, PlaceFate::Returned);
    }

    /// The agent was activated with it, at this stamped time.
    pub(crate) fn used(self, at_ms: u64) {
        self.desk.tell(self.place, PlaceFate::Used { at_ms });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_shown {
            self.desk.tell(self.place, PlaceFate::Returned);
        }
    }
}
