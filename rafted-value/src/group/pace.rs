//! How many commands may wait in a group whose leader gets more of them than can be done, so that those it lets in are done
//! while somebody still waits for them.
//!
//! A line that is always longer than what can be done in the time that callers wait does nothing for anybody: each command
//! is done when its caller has gone. How long a line may be is measured, as neither the cost of a command nor who else
//! needs the machine is known: what comes out a second, times how long one may wait (Little's law). That only the most that
//! came out in a while counts, and that now and then the line is shortened for a moment, to see what a command waits that
//! finds few before it, is taken from BBR (Cardwell and others, ACM Queue 14(5), 2016). The latter leaves a group alone whose
//! disks or links are slow, and which does the more the more it is given: there few wait as long as many. All groups do that at
//! the same time by the wall clock: a group whose line is short waits for the long lines of others that share its cores. What
//! its own loop was busy with meanwhile does not count as what a command waits by itself, for the same reason.

use std::time::Duration;

use crate::env::MonoTime;

/// Measured while commands were done, and more waited, for at least this time; after a burst's worth of them, for less.
const PERIOD: Duration = Duration::from_millis(100);
const PERIOD_MIN: Duration = Duration::from_millis(1);
/// Periods of which the fastest counts.
const PERIODS: usize = 16;
/// So many times what a command waits that finds few before it, it may wait anyway.
const BASE_TIMES: u32 = 3;
/// A command finds few before it where they are this part of what is done in the time that it may wait anyway.
const FEW: u64 = 4;
/// What a command that finds few before it waits is measured again at each multiple of this time while a line is too long.
const PROBE_EVERY_MS: u64 = 4_000;
/// A line is gone where at most this part of what may be waited at a time.
const GONE: u64 = 2;
/// It is gone as well where for so long so little came that nothing was measured.
const IDLE: Duration = Duration::from_secs(3);
/// So many more commands may wait than can be done in time, whatever the group does a second: one that does few beside others
/// that do many gets a larger part of what it asks for (Chiu and Jain, Computer Networks and ISDN Systems 17, 1989).
const ROOM_MIN: u64 = 16;
/// So many may wait where no line is too long: a burst.
const BURST: u64 = 512;

/// When something happens, and how long commands may wait by the settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: MonoTime,
    pub(super) wall_ms: u64,
    pub(super) wait_target: Duration,
}

/// What a leader knows of how fast its commands are done.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// Since when commands are done, one after the other, in time that is not counted yet; none while none waits. What the
    /// first of them waits by itself is not counted.
    since: Option<MonoTime>,
    /// That time in the period that is measured, how many were done, and the most that waited at a time.
    busy: Duration,
    done: u64,
    most: u64,
    /// Whether some were done in this turn.
    works: bool,
    /// Commands a second in the last periods, in turn.
    rates: [u32; PERIODS],
    at: u8,
    /// What a command waits that finds few before it, as far as known.
    base: Option<Duration>,
    /// When the last period ended.
    measured: MonoTime,
    /// Whether the line was longer in the last period than can be done in time.
    long: bool,
    /// Whether the line is too long.
    slow: bool,
    /// Whether the line is shortened for a moment, and when it was last, in multiples of the time between two.
    probing: bool,
    probed: u64,
}

impl Pace {
    /// Whether one more command may wait beside so many that do. `wait_target` is how long each of them may.
    pub(super) fn has_room(&self, waiting: usize, wait_target: Duration) -> bool {
        let room = match (self.slow, self.probing) {
            (false, _) if self.rates == [0; PERIODS] => return true,
            (false, _) => self.room(wait_target).max(BURST),
            (true, false) => self.room(wait_target),
            (true, true) => self.few(wait_target),
        };
        (waiting as u64) < room
    }

    /// A command is let in that finds so many before it.
    pub(super) fn lets_in(&mut self, now: MonoTime, waiting: usize) {
        if waiting == 0 {
            if now.since(self.measured) > IDLE {
                (self.slow, self.probing) = (false, false);
                self.begin(waiting);
            }
            self.since = self.base.map(|base| now + base);
        }
        self.most = self.most.max(waiting as u64 + 1);
    }

    /// `count` commands are done that have waited for `waited` beside what their loop was busy, the last of which found
    /// `ahead` before it.
    pub(super) fn takes_out(
        &mut self,
        now: MonoTime,
        count: usize,
        (waited, ahead): (Duration, usize),
        wait_target: Duration,
    ) {
        (self.done, self.works) = (self.done + count as u64, true);
        self.since = Some(self.since.map_or(now, |since| since.min(now)));
        if (ahead as u64) < self.few(wait_target)
            && (self.probing || self.base.is_none_or(|base| waited < base))
        {
            self.base = Some(waited);
            if std::mem::take(&mut self.probing) {
                // That few waited meanwhile says nothing.
                self.begin(0);
            }
        }
    }

    /// Whether [`ends_turn`](Self::ends_turn) wants to be told.
    pub(super) fn works(&self) -> bool {
        self.works
    }

    /// A turn has ended in which commands were done, and so many wait still.
    pub(super) fn ends_turn(&mut self, at: Moment, waiting: usize) {
        let Moment { now, wall_ms, wait_target } = at;
        self.works = false;
        self.busy += self.since.map_or(Duration::ZERO, |since| now.since(since));
        self.since = (waiting > 0).then_some(now);
        let is_measured = self.busy >= PERIOD || (self.done >= BURST && self.busy >= PERIOD_MIN);
        if !is_measured {
            return;
        }
        let rate = u128::from(self.done) * 1_000_000_000 / self.busy.as_nanos();
        let is_known = self.rates[usize::from(self.at)] > 0;
        self.at = (self.at + 1) % PERIODS as u8;
        self.rates[usize::from(self.at)] = u32::try_from(rate).unwrap_or(u32::MAX).max(1);
        let room = self.room(wait_target);
        let was_long = std::mem::replace(&mut self.long, self.most > room);
        self.slow = match self.slow {
            // A line that is kept short is not gone.
            true => self.probing || self.most > room / GONE,
            // One period may have been a stall of the disk; of many that have just come none can be done yet.
            false => is_known && self.long && (was_long || self.done >= self.most),
        };
        let round = wall_ms / PROBE_EVERY_MS;
        if self.slow && self.probed != round {
            (self.probing, self.probed) = (true, round);
        }
        self.measured = now;
        self.begin(waiting);
    }

    /// Who waited was told something else, or the group is led anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn begin(&mut self, waiting: usize) {
        (self.busy, self.done, self.most) = (Duration::ZERO, 0, waiting as u64);
    }

    /// How long commands may wait.
    fn patience(&self, wait_target: Duration) -> Duration {
        self.base.map_or(wait_target, |base| wait_target.max(base.saturating_mul(BASE_TIMES)))
    }

    /// How many are done in that time.
    fn room(&self, wait_target: Duration) -> u64 {
        self.done_in(self.patience(wait_target)).saturating_add(ROOM_MIN)
    }

    /// How many do not count.
    fn few(&self, wait_target: Duration) -> u64 {
        (self.done_in(wait_target) / FEW).max(1)
    }

    fn done_in(&self, time: Duration) -> u64 {
        let rate = self.rates.iter().max().copied().unwrap_or(0);
        u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const TARGET: Duration = Duration::from_millis(200);

    /// What limits how fast commands are done.
    #[derive(Clone, Copy)]
    enum Bound {
        /// So many in a millisecond.
        Work(u64),
        /// So many milliseconds, however many there are.
        Delay(u64),
        /// The same, and up to so many more.
        Jitter(u64),
    }

    /// The same numbers in each run.
    #[derive(Default)]
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    /// A leader and its callers, millisecond by millisecond.
    #[derive(Default)]
    struct Model {
        pace: Pace,
        now_ms: u64,
        line: VecDeque<(u64, usize, Duration)>,
        /// How long it has worked.
        busy: Duration,
        chance: Chance,
        refused: u64,
        done: u64,
        longest_ms: u64,
    }

    impl Model {
        fn moment(&self) -> Moment {
            let now = MonoTime::from_nanos(self.now_ms * 1_000_000);
            Moment { now, wall_ms: self.now_ms + 1_234_567, wait_target: TARGET }
        }

        fn arrive(&mut self) {
            let waiting = self.line.len();
            if !self.pace.has_room(waiting, TARGET) {
                self.refused += 1;
                return;
            }
            self.pace.lets_in(self.moment().now, waiting);
            self.line.push_back((self.now_ms, waiting, self.busy));
        }

        fn work(&mut self, bound: Bound) {
            let ready = match bound {
                Bound::Work(rate) => (rate as usize).min(self.line.len()),
                Bound::Jitter(delay_ms) => {
                    let patience_ms = delay_ms + self.chance.below(delay_ms);
                    self.line.iter().take_while(|(since, ..)| since + patience_ms <= self.now_ms).count()
                }
                Bound::Delay(delay_ms) => {
                    self.line.iter().take_while(|(since, ..)| since + delay_ms <= self.now_ms).count()
                }
            };
            if let Bound::Work(rate @ 1..) = bound {
                self.busy += Duration::from_nanos(1_000_000 * ready as u64 / rate);
            }
            for _ in 0..ready {
                let Some((since, ahead, busy)) = self.line.pop_front() else { return };
                let waited_ms = self.now_ms - since;
                let alone = Duration::from_millis(waited_ms).saturating_sub(self.busy - busy);
                self.pace.takes_out(self.moment().now, 1, (alone, ahead), TARGET);
                self.done += 1;
                self.longest_ms = self.longest_ms.max(waited_ms);
            }
            if self.pace.works() {
                let (mut end, waiting) = (self.moment(), self.line.len());
                // Half of the millisecond has gone.
                end.now = end.now + Duration::from_micros(500);
                self.pace.ends_turn(end, waiting);
            }
        }

        /// So many arrive each millisecond, whatever becomes of them.
        fn flood(&mut self, for_ms: u64, arrivals: u64, bound: Bound) {
            (self.refused, self.done, self.longest_ms) = (0, 0, 0);
            for _ in 0..for_ms {
                self.now_ms += 1;
                (0..arrivals).for_each(|_| self.arrive());
                self.work(bound);
            }
        }

        /// So many callers send one command after the other, and wait 50 ms where they are refused.
        fn callers(&mut self, for_ms: u64, callers: usize, bound: Bound) {
            (self.refused, self.done, self.longest_ms) = (0, 0, 0);
            let mut back = VecDeque::new();
            for _ in 0..for_ms {
                self.now_ms += 1;
                while back.front().is_some_and(|at| *at <= self.now_ms) {
                    back.pop_front();
                }
                for _ in self.line.len() + back.len()..callers {
                    let refused = self.refused;
                    self.arrive();
                    if self.refused > refused {
                        back.push_back(self.now_ms + 50);
                    }
                }
                self.work(bound);
            }
        }
    }

    /// Ten times what could be done once left nothing that was done in time.
    #[test]
    fn of_too_many_commands_as_many_are_done_as_can_be_and_none_waits_long() {
        for rate in [1, 5, 100] {
            let mut model = Model::default();
            model.flood(2_000, rate * 10, Bound::Work(rate));
            assert!(model.longest_ms <= 1_000, "{} ms", model.longest_ms);
            model.flood(10_000, rate * 10, Bound::Work(rate));
            assert!(model.longest_ms <= 300, "{} ms", model.longest_ms);
            assert!(model.done >= 10_000 * rate * 95 / 100, "{} were done", model.done);
        }
    }

    #[test]
    fn where_each_takes_long_by_itself_more_callers_are_served_and_not_fewer() {
        for (callers, delay_ms) in [(10, 300), (1_000, 300), (1_000, 2_000)] {
            let mut model = Model::default();
            model.callers(10 * delay_ms, callers, Bound::Delay(delay_ms));
            model.callers(40 * delay_ms, callers, Bound::Delay(delay_ms));
            assert_eq!(model.refused, 0, "{callers} callers, {delay_ms} ms");
            assert!(model.done >= 38 * callers as u64, "{} were done", model.done);
        }
    }

    #[test]
    fn where_it_becomes_slow_by_itself_it_goes_on() {
        let mut model = Model::default();
        model.callers(10_000, 256, Bound::Delay(2));
        assert_eq!(model.refused, 0);
        model.callers(10_000, 256, Bound::Delay(500));
        model.callers(50_000, 256, Bound::Delay(500));
        assert_eq!(model.refused, 0);
    }

    /// After a stall of the disk in the first moments of a leader its rate looked low, and callers of which each waited for
    /// 8 ms were refused.
    #[test]
    fn one_stall_is_no_reason_to_refuse() {
        for stall_ms in [150, 400] {
            let mut model = Model::default();
            model.callers(10, 1, Bound::Delay(2));
            model.callers(stall_ms, 250, Bound::Work(0));
            assert_eq!((model.refused, model.done), (0, 0));
            model.callers(2_000, 250, Bound::Work(100));
            assert_eq!(model.refused, 0, "after {stall_ms} ms");
        }
    }

    #[test]
    fn a_burst_is_let_in_and_so_is_one_after_a_flood() {
        let mut model = Model::default();
        model.flood(1, 512, Bound::Work(100));
        assert_eq!(model.refused, 0);
        model.flood(2_000, 0, Bound::Work(100));
        model.flood(3_000, 1_000, Bound::Work(100));
        assert!(model.refused > 0);
        model.flood(4_000, 0, Bound::Work(100));
        model.flood(1, 10_000, Bound::Work(100));
        assert_eq!(model.refused, 0);
    }

    #[test]
    fn as_much_as_can_be_done_is_let_in() {
        let mut model = Model::default();
        model.flood(20_000, 95, Bound::Work(100));
        assert_eq!(model.refused, 0);
    }

    #[test]
    fn where_work_becomes_harder_fewer_may_wait() {
        let mut model = Model::default();
        model.flood(2_000, 300, Bound::Work(100));
        model.flood(8_000, 300, Bound::Work(10));
        model.flood(5_000, 300, Bound::Work(10));
        assert!(model.longest_ms <= 400, "{} ms", model.longest_ms);
        assert!(model.done >= 47_000, "{} were done", model.done);
        model.flood(3_000, 300, Bound::Work(100));
        assert!(model.done >= 270_000, "{} were done", model.done);
    }

    /// One loop drives them in turns, in which it takes in, sends to followers that are as busy, and does what they have
    /// acknowledged: the line of each is in the way of all. Each gets so many a second. Gives how long one waited at most
    /// once it has settled, and how many of each group were done a second then.
    fn share_a_core(per_second: u64, asked: &[u64]) -> (u64, Vec<u64>) {
        const UNTIL_US: u64 = 30_000_000;
        const SETTLED_US: u64 = 15_000_000;
        let groups = asked.len();
        let mut paces = vec![Pace::default(); groups];
        let mut sent: Vec<VecDeque<(u64, usize)>> = vec![VecDeque::new(); groups];
        let (mut kept, mut done) = (sent.clone(), vec![0; groups]);
        let (mut owed, mut now_us, mut last_us, mut longest_us) = (vec![0; groups], 0, 0, 0);
        let mut chance = Chance::default();
        while now_us < UNTIL_US {
            let now = MonoTime::from_nanos(now_us * 1_000);
            let (mut count, mut oldest_us) = (0, now_us);
            for group in 0..groups {
                let (pace, sent, kept) = (&mut paces[group], &mut sent[group], &mut kept[group]);
                // Twice as many as asked, or none.
                owed[group] += (now_us - last_us) * asked[group] * 2 * chance.below(2);
                let first = sent.len();
                while owed[group] >= 1_000_000 {
                    owed[group] -= 1_000_000;
                    let waiting = sent.len() + kept.len();
                    if pace.has_room(waiting, TARGET) {
                        pace.lets_in(now, waiting);
                        sent.push_back((now_us, waiting));
                    }
                }
                let ready = std::mem::take(kept);
                if let (Some((oldest, _)), Some((_, ahead))) = (ready.front(), ready.back()) {
                    // The loop is never idle while anything waits.
                    pace.takes_out(now, ready.len(), (Duration::ZERO, *ahead), TARGET);
                    oldest_us = oldest_us.min(*oldest);
                }
                count += ready.len() as u64;
                done[group] += if now_us > SETTLED_US { ready.len() as u64 } else { 0 };
                kept.extend(sent.drain(..first));
            }
            last_us = now_us;
            now_us += (count * 1_000_000 / per_second).max(500);
            let now = MonoTime::from_nanos(now_us * 1_000);
            let at = Moment { now, wall_ms: now_us / 1_000, wait_target: TARGET };
            for (pace, kept) in paces.iter_mut().zip(&kept).filter(|(pace, _)| pace.works()) {
                pace.ends_turn(at, kept.len());
            }
            if now_us > SETTLED_US {
                longest_us = longest_us.max(now_us - oldest_us);
            }
        }
        let a_second = |done: u64| done * 1_000_000 / (UNTIL_US - SETTLED_US);
        (longest_us, done.into_iter().map(a_second).collect())
    }

    /// When each looked by itself what a short line waits, it saw the others' long ones, took that for its own, and let more
    /// in: after a minute commands waited for ten seconds. Groups that are asked alike did not show it.
    #[test]
    fn groups_that_share_a_core_do_not_take_each_others_lines_for_their_own() {
        let (a_bit, much) = ([9, 9, 10, 10, 10, 10, 11, 11], [3, 5, 7, 9, 10, 12, 15, 19]);
        for (per_second, asked) in [(4_000, [10; 8]), (4_000, a_bit), (8_000, much)] {
            for tenths in [13, 100] {
                let asked = asked.map(|part| part * per_second * tenths / 10 / 80);
                let (longest_us, done) = share_a_core(per_second, &asked);
                assert!(longest_us <= 1_500_000, "{asked:?} of {per_second}: {longest_us} us");
                let sum: u64 = done.iter().sum();
                assert!(sum >= per_second * 9 / 10, "{asked:?} of {per_second}: {done:?} were done");
            }
        }
    }

    #[test]
    fn a_group_beside_a_flooded_one_does_most_of_what_is_asked_of_it() {
        for lights in [&[1_200][..], &[200; 7], &[50, 200, 400]] {
            let asked: Vec<u64> = [40_000].iter().chain(lights).copied().collect();
            let (_, done) = share_a_core(4_000, &asked);
            for (of, light) in done[1..].iter().zip(lights) {
                assert!(of * 10 >= light * 7, "{asked:?}: {done:?}");
            }
        }
    }

    /// A few callers leave a low rate behind. Of a hundred that come next none can be done yet when a period ends, and they
    /// were refused, though each would have waited for no longer than the few.
    #[test]
    fn more_callers_than_before_are_no_flood() {
        for (delay_ms, callers) in [(4, 300), (20, 100), (60, 100), (70, 300)] {
            for run in 0..50 {
                let mut model = Model { chance: Chance(run), ..Model::default() };
                model.callers(3_000 + 17 * run, 2, Bound::Jitter(delay_ms));
                assert_eq!(model.refused, 0);
                model.callers(10 * delay_ms, callers, Bound::Jitter(delay_ms));
                assert_eq!(model.refused, 0, "{callers} callers, {delay_ms} ms, {run}");
            }
        }
    }
}
