//! Where the callers of one node or client get places for agents, and say what became of them.
//!
//! Whoever comes while a command for the ledger is under way waits for the next, so that one command serves all who came
//! meanwhile. Where many agents are new, places are leased: they are handed out, and what became of them is told, for
//! hundreds of agents in two commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use raft_kv::raft_fleet::{CallOptions, Fleet, GroupName};
use raft_kv::rafted_value::encode;
use raft_kv::rafted_value::env::{MonoTime, sleep, timeout};
use tokio::sync::{Notify, oneshot};

use super::held::{End, Held, Of, REUSE_MAX};
use super::ledger::{GROUP, PASS_MAX_MS};
use super::wire::{Ask, Given, LeaseTerms, LedgerCommand, LedgerReply, PlaceFate, Told};
use crate::agent_id::QuotaName;
use crate::config::DistAgentConfig;
use crate::wire::Pass;

/// Callers that one command to the ledger serves at most.
const BATCH_MAX: usize = 4096;
/// A command to the ledger asks for no further quota once it has this many bytes: names of quotas are the callers' own.
const ASKED_BYTES_MAX: usize = 512 << 10;
/// What a caller adds to it beside the name of its quota, at most.
const CALLER_BYTES: usize = 32;
/// Callers that may wait.
const WAITING_MAX: usize = 65_536;
/// What is told to the ledger and waits to be sent; what is over it is found out by reports.
const TOLD_MAX: usize = 65_536;
/// For how long word of places that were leased waits for more of it.
const TELL_WAIT: Duration = Duration::from_millis(20);
/// Between two attempts to tell the ledger something.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Attempts to tell the ledger something; what it is not told, it finds out by reports.
const TELL_TRIES_MAX: u32 = 10;
/// Calls in a row that change the guess whether agents are new, times two.
const NEWNESS_MAX: u8 = 7;
/// How long to wait while shards are being counted.
const UNSURE_PAUSE: Duration = Duration::from_millis(50);

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
    lease: LeaseTerms,
    queue: Mutex<Queue>,
    /// Wakes the task that waits for more to send.
    hurry: Notify,
    /// How new the agents were that were called last, 0 to [`NEWNESS_MAX`].
    newness: AtomicU8,
}

#[derive(Default)]
struct Queue {
    asked: Vec<(QuotaName, Caller)>,
    told: Vec<Told>,
    /// How much was ever told, and how much of it has arrived or was given up.
    told_ever: u64,
    arrived_ever: u64,
    /// Who waits until so much of it has arrived.
    flushing: Vec<(u64, oneshot::Sender<()>)>,
    /// Whether what is told is to be sent without waiting for more.
    is_urgent: bool,
    /// Whether a task sends what is here.
    is_served: bool,
    held: Held,
}

/// Who waits for a place.
struct Caller {
    hash: u64,
    offered: oneshot::Sender<Result<Offer, String>>,
}

/// What goes to the ledger in one command.
struct Batch {
    asked: BTreeMap<QuotaName, Vec<Caller>>,
    told: Vec<Told>,
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
    of: Of,
    hash: u64,
    pass: Pass,
    is_shown: bool,
    is_over: bool,
}

impl Desk {
    pub(crate) fn new(fleet: Fleet, config: &DistAgentConfig) -> Self {
        let group = GroupName::new(GROUP).expect("a short name");
        let pass_ms = u64::try_from(config.quota_place.as_millis()).unwrap_or(u64::MAX).min(PASS_MAX_MS);
        let lease = LeaseTerms { places_max: config.quota_lease_places, share: config.quota_lease_share };
        let shared = Shared {
            fleet,
            group,
            options: config.call,
            pass_ms,
            lease,
            queue: Mutex::default(),
            hurry: Notify::new(),
            newness: AtomicU8::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether the next agent that is called most likely is not active, as the last ones were not.
    pub(crate) fn expects_new(&self) -> bool {
        self.shared.newness.load(Ordering::Relaxed) > NEWNESS_MAX / 2
    }

    /// An agent that was called was not active, or was. A counter that saturates (Smith, 1981): one that is new among many
    /// that are not changes nothing.
    pub(crate) fn was_new(&self, was_new: bool) {
        let before = self.shared.newness.load(Ordering::Relaxed);
        let now = if was_new { (before + 1).min(NEWNESS_MAX) } else { before.saturating_sub(1) };
        // It is a guess: an update that is lost does no harm, and most change nothing.
        if now != before {
            self.shared.newness.store(now, Ordering::Relaxed);
        }
    }

    /// A place that is here, for the agent whose key has this hash: of an unlimited quota, or of a lease.
    pub(crate) fn at_hand(&self, quota: &QuotaName, hash: u64) -> Option<Place> {
        let (pass, of) = self.shared.queue.lock().held.take(quota, self.shared.fleet.env().now())?;
        Some(self.place(of, hash, pass))
    }

    /// Forgets what is at hand of a quota: it is not good any more.
    pub(crate) fn forget(&self, quota: &QuotaName) {
        let mut queue = self.shared.queue.lock();
        let told = queue.held.forget(quota);
        self.tell(&mut queue, told, false);
    }

    /// Whether a quota had much room just now: a place that turns out not to be needed is in nobody's way.
    pub(crate) fn has_room(&self, quota: &QuotaName) -> bool {
        self.shared.queue.lock().held.is_roomy(quota, self.shared.fleet.env().now())
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
                Offer::Place(place) => return Ok(place),
                Offer::NoSuchQuota => return Err(NoPlace::NoSuchQuota),
                Offer::MayBeFull { .. } if self.shared.fleet.env().now() < unsure_until => {
                    sleep(self.shared.fleet.env().as_ref(), UNSURE_PAUSE).await;
                }
                Offer::Full { limit } | Offer::MayBeFull { limit } => return Err(NoPlace::Full { limit }),
            }
        }
    }

    /// Waits until the ledger has heard what became of all places of which it is known here, or does not answer.
    pub(crate) async fn flush(&self) {
        let (sender, done) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            let ever = queue.told_ever;
            if queue.arrived_ever >= ever || queue.flushing.len() >= WAITING_MAX {
                return;
            }
            queue.flushing.push((ever, sender));
            self.serve(&mut queue, true);
        }
        // Whether it has heard or not, there is nothing else to do here.
        let _ = done.await;
    }

    async fn ask(&self, quota: &QuotaName, hash: u64) -> Result<Offer, String> {
        let (offered, offer) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.asked.len() >= WAITING_MAX {
                return Err(format!("{WAITING_MAX} activations wait already"));
            }
            queue.asked.push((quota.clone(), Caller { hash, offered }));
            self.serve(&mut queue, true);
        }
        offer.await.unwrap_or_else(|_| Err("this node is shutting down".to_owned()))
    }

    fn place(&self, of: Of, hash: u64, pass: Pass) -> Place {
        Place { desk: self.clone(), of, hash, pass, is_shown: false, is_over: false }
    }

    /// A place has come to its end.
    fn ended(&self, place: &Place, end: End) {
        let mut queue = self.shared.queue.lock();
        let (told, urgent) = match place.of {
            Of::Unlimited => return,
            Of::Lease(id) => (queue.held.ended(id, end), false),
            Of::One(id) => {
                let fate = match end {
                    End::Used { at_ms, .. } => PlaceFate::Used { at_ms },
                    End::Unused => PlaceFate::Returned,
                    End::Unknown => return,
                };
                (Some(Told { place: id, fate }), true)
            }
        };
        self.tell(&mut queue, told, urgent);
    }

    fn tell(&self, queue: &mut Queue, told: Option<Told>, urgent: bool) {
        let Some(told) = told else { return };
        if queue.told.len() < TOLD_MAX {
            queue.told.push(told);
            queue.told_ever += 1;
        }
        self.serve(queue, urgent);
    }

    /// Makes sure that a task sends what waits.
    fn serve(&self, queue: &mut Queue, urgent: bool) {
        if urgent && !std::mem::replace(&mut queue.is_urgent, true) {
            self.shared.hurry.notify_one();
        }
        if !std::mem::replace(&mut queue.is_served, true) {
            let desk = self.clone();
            self.shared.fleet.env().spawn("quota-desk", Box::pin(async move { desk.send_all().await }));
        }
    }

    /// Sends command after command until nothing waits.
    async fn send_all(&self) {
        let env = self.shared.fleet.env();
        let mut tries = 0;
        loop {
            let is_urgent = self.shared.queue.lock().is_urgent;
            if !is_urgent {
                // Whether it was woken or has waited long enough, it goes on.
                let _ = timeout(env.as_ref(), TELL_WAIT, self.shared.hurry.notified()).await;
            }
            let Some(Batch { asked, told }) = self.shared.queue.lock().batch() else { return };
            let only_told = asked.is_empty();
            match self.send(&asked, told.clone()).await {
                Ok(given) => {
                    tries = 0;
                    self.shared.queue.lock().arrived(told.len());
                    for ((quota, callers), given) in asked.into_iter().zip(given) {
                        self.hand_out(&quota, callers, given);
                    }
                }
                Err(reason) => {
                    for caller in asked.into_values().flatten() {
                        // It does not matter who is gone.
                        let _ = caller.offered.send(Err(reason.clone()));
                    }
                    tries += 1;
                    self.shared.queue.lock().failed(told, tries < TELL_TRIES_MAX);
                    if only_told {
                        sleep(env.as_ref(), RETRY_INTERVAL).await;
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        asked: &BTreeMap<QuotaName, Vec<Caller>>,
        told: Vec<Told>,
    ) -> Result<Vec<Given>, String> {
        let Shared { fleet, group, options, pass_ms, lease, .. } = &*self.shared;
        let lease = self.expects_new().then_some(*lease);
        let ask = |(quota, callers): (&QuotaName, &Vec<Caller>)| Ask {
            quota: quota.clone(),
            hashes: callers.iter().map(|caller| caller.hash).collect(),
            lease,
        };
        let command =
            LedgerCommand::Places { asked: asked.iter().map(ask).collect(), told, pass_ms: *pass_ms };
        let reply = fleet.command(group, 0, encode(&command), options).await;
        let reply = reply.map_err(|error| error.to_string())?;
        match postcard::from_bytes(&reply) {
            Ok(LedgerReply::Places(given)) if given.len() == asked.len() => Ok(given),
            Ok(other) => Err(format!("the answer is not understood: {other:?}")),
            Err(error) => Err(format!("the answer does not decode: {error}")),
        }
    }

    /// Gives all who asked for a place in a quota what the ledger has given.
    fn hand_out(&self, quota: &QuotaName, callers: Vec<Caller>, given: Given) {
        let of_all = |of: Of, pass: Pass| move |_: u64, hash: u64| Offer::Place(self.place(of, hash, pass));
        match given {
            Given::NoSuchQuota => offer(callers, |_, _| Offer::NoSuchQuota),
            Given::Unlimited { generation, until_ms } => {
                let pass = Pass { generation, until_ms };
                let reuse = REUSE_MAX.min(Duration::from_millis(self.shared.pass_ms / 2));
                let mut queue = self.shared.queue.lock();
                let told = queue.held.keep_unlimited(quota, pass, self.shared.fleet.env().now(), reuse);
                self.tell(&mut queue, told, false);
                drop(queue);
                offer(callers, of_all(Of::Unlimited, pass));
            }
            Given::Lease { lease, places, generation, until_ms } => {
                let pass = Pass { generation, until_ms };
                self.keep_lease(quota, (lease, pass), (places, callers.len() as u32));
                offer(callers, of_all(Of::Lease(lease), pass));
            }
            Given::Places { first, places, generation, until_ms, limit, unsure } => {
                let pass = Pass { generation, until_ms };
                offer(callers, |number, hash| match number {
                    number if number < u64::from(places) => {
                        Offer::Place(self.place(Of::One(first + number), hash, pass))
                    }
                    _ if unsure => Offer::MayBeFull { limit },
                    _ => Offer::Full { limit },
                });
            }
        }
    }

    /// Keeps a lease of which so many places were given to so many callers, until its time is over.
    fn keep_lease(&self, quota: &QuotaName, lease: (u64, Pass), places: (u32, u32)) {
        let env = self.shared.fleet.env();
        let mut queue = self.shared.queue.lock();
        let (until, told) = queue.held.keep_lease(quota, lease, places, env.now());
        self.tell(&mut queue, told, false);
        drop(queue);
        let (desk, (id, _)) = (self.clone(), lease);
        let close = async move {
            desk.shared.fleet.env().sleep_until(until).await;
            let mut queue = desk.shared.queue.lock();
            let told = queue.held.close(id);
            desk.tell(&mut queue, told, false);
        };
        env.spawn("quota-lease", Box::pin(close));
    }
}

/// Makes an offer to each caller, of whom it is told the number and the hash.
fn offer(callers: Vec<Caller>, offer: impl Fn(u64, u64) -> Offer) {
    for (number, caller) in (0..).zip(callers) {
        // It does not matter who is gone.
        let _ = caller.offered.send(Ok(offer(number, caller.hash)));
    }
}

impl Queue {
    /// What is to be sent next; `None` if nothing waits, and then nobody serves any more.
    fn batch(&mut self) -> Option<Batch> {
        // Who has gone needs no place, and must not be in the way of who has not.
        self.asked.retain(|(_, caller)| !caller.offered.is_closed());
        if self.asked.is_empty() && self.told.is_empty() {
            (self.is_served, self.is_urgent) = (false, false);
            return None;
        }
        let told = self.told.len().min(BATCH_MAX);
        let (asked, told) = (self.some_asked(), self.told.drain(..told).collect());
        self.is_urgent = !self.asked.is_empty() || !self.told.is_empty();
        Some(Batch { asked, told })
    }

    /// Those who have waited longest, as many as go into one command.
    fn some_asked(&mut self) -> BTreeMap<QuotaName, Vec<Caller>> {
        let (mut by_quota, mut bytes) = (BTreeMap::<_, Vec<_>>::new(), 0);
        let mut fits = |(quota, _): &(QuotaName, Caller)| {
            bytes += quota.as_str().len() + CALLER_BYTES;
            bytes <= ASKED_BYTES_MAX
        };
        let asked = self.asked.iter().take(BATCH_MAX).take_while(|caller| fits(caller)).count();
        for (quota, caller) in self.asked.drain(..asked) {
            by_quota.entry(quota).or_default().push(caller);
        }
        by_quota
    }

    /// So much of what was told has arrived.
    fn arrived(&mut self, told: usize) {
        self.arrived_ever += told as u64;
        let arrived = self.arrived_ever;
        self.flushing.retain(|(ever, _)| *ever > arrived);
    }

    /// What was told may not have arrived: it is told again before anything else, or given up.
    fn failed(&mut self, mut told: Vec<Told>, again: bool) {
        if again {
            told.append(&mut self.told);
            self.told = told;
        } else {
            self.arrived_ever += told.len() as u64;
        }
        self.flushing.clear();
    }
}

impl Place {
    /// It is about to be shown to the agent's shard: from now on nobody but the shard knows what becomes of it.
    pub(crate) fn show(&mut self) -> Pass {
        self.is_shown = true;
        self.pass
    }

    /// It was surely not used.
    pub(crate) fn give_back(mut self) {
        self.end(End::Unused);
    }

    /// The agent was activated with it, at this stamped time.
    pub(crate) fn used(mut self, at_ms: u64) {
        self.end(End::Used { hash: self.hash, at_ms });
    }

    fn end(&mut self, end: End) {
        self.is_over = true;
        self.desk.ended(self, end);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(if self.is_shown { End::Unknown } else { End::Unused });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answered = oneshot::Receiver<Result<Offer, String>>;

    fn asks(queue: &mut Queue, quota: &str) -> Answered {
        let (offered, answered) = oneshot::channel();
        queue.asked.push((QuotaName::new(quota).unwrap(), Caller { hash: 1, offered }));
        answered
    }

    fn callers(batch: &Batch) -> usize {
        batch.asked.values().map(Vec::len).sum()
    }

    /// Callers whose time was over while they waited once took the places of those who came behind them: a quota that was
    /// empty was told to be full.
    #[test]
    fn who_has_gone_takes_no_place_from_who_waits() {
        let mut queue = Queue::default();
        (0..10).for_each(|_| drop(asks(&mut queue, "ten")));
        let waits = asks(&mut queue, "ten");
        let batch = queue.batch().expect("somebody waits");
        assert_eq!(callers(&batch), 1);
        drop((batch, waits));
        (0..10).for_each(|_| drop(asks(&mut queue, "ten")));
        assert!(queue.batch().is_none(), "nobody waits");
        assert!(!queue.is_served);
    }

    /// Each caller names a quota, existing or not, and a command that is too large is refused for all who are in it.
    #[test]
    fn a_command_to_the_ledger_has_room_for_the_longest_names() {
        let mut queue = Queue::default();
        let waiting: Vec<_> = (0..BATCH_MAX).map(|n| asks(&mut queue, &format!("{n:0>255}"))).collect();
        let mut served = 0;
        while let Some(batch) = queue.batch() {
            let lease = Some(LeaseTerms { places_max: u32::MAX, share: u32::MAX });
            let hashes = vec![u64::MAX];
            let ask = |quota: &QuotaName| Ask { quota: quota.clone(), hashes: hashes.clone(), lease };
            let asked = batch.asked.keys().map(ask).collect();
            let fate = PlaceFate::UsedOf { number: u32::MAX, hash: u64::MAX, at_ms: u64::MAX };
            let told = vec![Told { place: u64::MAX, fate }; BATCH_MAX];
            let bytes = encode(&LedgerCommand::Places { asked, told, pass_ms: u64::MAX }).len();
            assert!(bytes < 1 << 20, "{bytes}");
            served += callers(&batch);
        }
        assert_eq!(served, waiting.len());
    }
}
