//! Moves of ranges between shards against a plain map: random interleavings of commands, retries, steps, crashes of
//! performers and snapshots.

use proptest::prelude::*;
use raft_fleet::rafted_value::RecordPosition;

use super::*;

const SHARDS: usize = 3;
const KEYS: u8 = 24;

/// A move as its performer sees it. A performer that crashes loses everything but the move itself.
#[derive(Clone, Debug)]
struct Performer {
    from: usize,
    to: usize,
    range: KeyRange,
    step: MoveStep,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Begin,
    Copy(Progress),
    Records { progress: Progress, began_ms: Option<u64>, after: Option<RecordPosition> },
    GiveUp(FinalAsk),
    Finish,
    Abort,
    AbortSender,
    Over,
}

struct World {
    members: Vec<Member>,
    performer: Option<Performer>,
    /// Performers that were replaced and do not know it.
    replaced: Vec<Performer>,
    next_move: u64,
    now_ms: u64,
    /// Who serves which hashes, as the list of shards knows it.
    owners: Vec<(KeyRange, usize)>,
    map: BTreeMap<u8, Vec<u8>>,
    sent: Vec<Sent>,
    alls: Vec<All>,
    chunk_bytes: u64,
}

/// A command to all keys of a range, which appends its number to each; its caller asks for page after page.
#[derive(Clone, Debug)]
struct All {
    id: u128,
    text: Vec<u8>,
    left: Option<KeyRange>,
    covered: Vec<KeyRange>,
}

/// A client's command: it appends its number to a key's value, and the reply is what was there before.
#[derive(Clone, Debug)]
struct Sent {
    command: Command,
    hash: u64,
    key: u8,
    text: Vec<u8>,
    reply: Option<Bytes>,
}

impl World {
    fn new(chunk_bytes: u64) -> Self {
        let mut members = vec![shard(KeyRange::ALL)];
        members.extend((1..SHARDS).map(|id| Member { id: id as u64, ..Member::new() }));
        Self {
            members,
            performer: None,
            replaced: Vec::new(),
            next_move: 1,
            now_ms: 10,
            owners: vec![(KeyRange::ALL, 0)],
            map: BTreeMap::new(),
            sent: Vec::new(),
            alls: Vec::new(),
            chunk_bytes,
        }
    }

    /// One attempt at a command, at a shard that may or may not have its key.
    fn attempt(&mut self, sent: usize, at: usize) {
        let Sent { command, key, text, reply, .. } = self.sent[sent].clone();
        let Ok((answer, rest)) = self.members[at].run(self.now_ms, &command) else {
            return;
        };
        match answer {
            ShardReply::Done => match &reply {
                Some(before) => assert_eq!(rest, before, "a retry gets the first reply"),
                None => {
                    let value = self.map.entry(key).or_default();
                    assert_eq!(rest, *value, "the command ran on the newest value, at shard {at}");
                    value.extend_from_slice(&text);
                    self.sent[sent].reply = Some(rest);
                }
            },
            ShardReply::Elsewhere(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, key: u8, at: usize) {
        let sequence = self.sent.len() as u64 + 1;
        let text = format!("{sequence},").into_bytes();
        let name = key.to_string();
        let payload = ShardCommand::Command { key: name.as_bytes() }.encode(&[b"+", &text[..]].concat());
        let hash = key::hash(name.as_bytes());
        let session = SessionId::new(0, u64::from(key % 3));
        let acknowledged = self.acknowledged(session);
        let retry_until_ms = self.now_ms + 100_000;
        let command = Command { session, sequence, acknowledged, retry_until_ms, key_hash: hash, payload };
        self.sent.push(Sent { command, hash, key, text, reply: None });
        self.attempt(self.sent.len() - 1, at);
    }

    fn begin_all(&mut self, first: u64, more: u64) {
        let left = KeyRange::new(first, first.saturating_add(more));
        let id = self.alls.len() as u128;
        self.alls.push(All { id, text: format!("all-{id},").into_bytes(), left, covered: Vec::new() });
    }

    /// One page, at a shard that may or may not have it; its reply may be lost.
    fn attempt_all(&mut self, all: usize, at: usize, lost: bool) {
        let All { id, text, left: Some(range), .. } = self.alls[all].clone() else { return };
        let command = AllCommand { id, until_ms: 1 << 40, range, keys_max: 2 };
        let payload = [b"+", &text[..]].concat();
        let covered = match self.tell(at, &ShardCommand::CommandAll(command), &payload).0 {
            ShardReply::AllDone { covered, .. } => covered,
            ShardReply::Elsewhere(_) => return,
            other => panic!("{other:?}"),
        };
        assert!(range.covers(covered) && range.first() == covered.first());
        let All { covered: before, left, .. } = &mut self.alls[all];
        for (key, value) in &mut self.map {
            let hash = key::hash(key.to_string().as_bytes());
            if covered.contains(hash) && !before.iter().any(|before| before.contains(hash)) {
                value.extend_from_slice(&text);
            }
        }
        before.push(covered);
        if !lost {
            *left = range.without(covered);
        }
    }

    /// A client acknowledges what came before its oldest command without a reply.
    fn acknowledged(&self, session: SessionId) -> u64 {
        let waiting = self.sent.iter().filter(|sent| sent.command.session == session && sent.reply.is_none());
        waiting.map(|sent| sent.command.sequence).min().unwrap_or(self.sent.len() as u64 + 1)
    }

    fn begin_move(&mut self, owner: usize, cut: u64, merge: bool) {
        if self.performer.is_some() {
            return;
        }
        let (range, from) = self.owners[owner % self.owners.len()];
        let (range, to) = if merge {
            let neighbour = self.owners.iter().find(|(other, _)| other.joined(range).is_some());
            let Some((_, to)) = neighbour else { return };
            (range, *to)
        } else {
            let free = (0..SHARDS).find(|shard| self.owners.iter().all(|(_, owner)| owner != shard));
            let Some(((low, high), to)) = range.split_at(cut).zip(free) else { return };
            (if cut.is_multiple_of(2) { low } else { high }, to)
        };
        let step = MoveStep { move_id: self.next_move, epoch: 1, step: 0 };
        self.next_move += 1;
        self.performer = Some(Performer { from, to, range, step, stage: Stage::Begin });
    }

    /// The performer dies, or is only thought dead, and another begins from what the shards say.
    fn replace_performer(&mut self) {
        if let Some(performer) = &mut self.performer {
            self.replaced.push(performer.clone());
            let stage = match performer.stage {
                Stage::Abort | Stage::AbortSender => Stage::Abort,
                Stage::Over => Stage::Over,
                _ => Stage::Begin,
            };
            let MoveStep { move_id, epoch, .. } = performer.step;
            performer.step = MoveStep { move_id, epoch: epoch + 1, step: 0 };
            performer.stage = stage;
        }
    }

    fn abort(&mut self) {
        if let Some(performer) = &mut self.performer
            && !matches!(performer.stage, Stage::Finish | Stage::Over)
        {
            performer.stage = Stage::Abort;
        }
    }

    fn advance(&mut self) {
        let Some(mut performer) = self.performer.take() else { return };
        self.step(&mut performer);
        match performer.stage {
            Stage::Over => {}
            _ => self.performer = Some(performer),
        }
    }

    /// A performer that was replaced goes on as if it were not.
    fn advance_replaced(&mut self, index: usize) {
        if self.replaced.is_empty() {
            return;
        }
        let index = index % self.replaced.len();
        let mut performer = self.replaced.swap_remove(index);
        let owners = self.owners.clone();
        self.step(&mut performer);
        // The list of shards listens to the newest performer alone.
        self.owners = owners;
    }

    fn tell(&mut self, at: usize, command: &ShardCommand<'_>, rest: &[u8]) -> (ShardReply, Bytes) {
        self.members[at].tell(command, rest)
    }

    fn step(&mut self, performer: &mut Performer) {
        performer.step.step += 1;
        let Performer { from, to, range, step, .. } = *performer;
        match performer.stage.clone() {
            Stage::Begin => {
                let receive = ShardCommand::Receive { step, range, value_size_max: u64::MAX };
                let progress = match self.tell(to, &receive, &[]).0 {
                    ShardReply::Receiving(progress) => progress,
                    ShardReply::Ended(Outcome::Done) => return self.activated(performer),
                    ShardReply::Stale => return performer.stage = Stage::Over,
                    other => panic!("{other:?}"),
                };
                let command = ShardCommand::Send { step, range, to: to as u32 };
                match self.tell(from, &command, &[]).0 {
                    ShardReply::Sending { .. } => performer.stage = Stage::Copy(progress),
                    ShardReply::Stale => performer.stage = Stage::Over,
                    other => panic!("{other:?}"),
                }
            }
            Stage::Copy(progress) => self.copy(performer, progress),
            Stage::Records { progress, began_ms, after } => {
                self.records(performer, progress, began_ms, after);
            }
            Stage::GiveUp(ask) => self.hand_over(performer, ask),
            Stage::Finish => match self.tell(from, &ShardCommand::Finish { step }, &[]).0 {
                ShardReply::Ended(Outcome::Done) | ShardReply::Stale => performer.stage = Stage::Over,
                other => panic!("{other:?}"),
            },
            Stage::Abort => match self.tell(to, &ShardCommand::Abort { step }, &[]).0 {
                ShardReply::Ended(Outcome::Done) => self.activated(performer),
                ShardReply::Ended(Outcome::Aborted) => performer.stage = Stage::AbortSender,
                ShardReply::Stale => performer.stage = Stage::Over,
                other => panic!("{other:?}"),
            },
            Stage::AbortSender => match self.tell(from, &ShardCommand::Abort { step }, &[]).0 {
                ShardReply::Ended(Outcome::Aborted) | ShardReply::Stale => performer.stage = Stage::Over,
                other => panic!("{other:?}"),
            },
            Stage::Over => {}
        }
    }

    fn copy(&mut self, performer: &mut Performer, progress: Progress) {
        let Performer { from, to, range, step, .. } = *performer;
        let (move_id, bytes_max) = (step.move_id, self.chunk_bytes);
        let (query, done) = match progress.copied {
            Some(copied) if copied == range.last() => {
                (ShardQuery::Changes { move_id, after: progress.changes, bytes_max }, true)
            }
            copied => {
                let from = copied.map_or(range.first(), |copied| copied + 1);
                (ShardQuery::Chunk { move_id, from, bytes_max }, false)
            }
        };
        let answer = self.members[from].shard.query(&query.encode(&[])).unwrap();
        let (answer, slots) = split_answer(&answer).unwrap();
        let cover = match answer {
            ShardAnswer::Chunk { page } => Cover::Range(page),
            ShardAnswer::Changes { to, .. } => Cover::Changes { to },
            ShardAnswer::NoSuchMove => return performer.stage = Stage::Over,
            other => panic!("{other:?}"),
        };
        let rest = FinalHead::default().encode(&slots);
        match self.tell(to, &ShardCommand::Install { step, cover, last: false }, &rest).0 {
            ShardReply::Receiving(progress) => {
                performer.stage = Stage::Copy(progress);
                if done {
                    performer.stage = Stage::Records { progress, began_ms: None, after: None };
                }
            }
            ShardReply::Stale => performer.stage = Stage::Over,
            other => panic!("{other:?}"),
        }
    }

    /// One page of records, while the range is served; after the last one the range is given up, or copied once more.
    fn records(
        &mut self,
        performer: &mut Performer,
        progress: Progress,
        began_ms: Option<u64>,
        after: Option<RecordPosition>,
    ) {
        let Performer { from, to, step, .. } = *performer;
        let (bytes_max, since_ms) = (self.chunk_bytes, progress.records_ms);
        let ask = RecordsAsk { since_ms, after, bytes_max };
        let (stamp_ms, next, head) = match self.tell(from, &ShardCommand::Records { step, ask }, &[]) {
            (ShardReply::Records { stamp_ms, next }, head) => (stamp_ms, next, head),
            (ShardReply::Stale | ShardReply::Ended(_), _) => return performer.stage = Stage::Over,
            (other, _) => panic!("{other:?}"),
        };
        let began_ms = began_ms.or(Some(stamp_ms));
        performer.step.step += 1;
        let cover = Cover::Records { until_ms: began_ms.filter(|_| next.is_none()) };
        let install = ShardCommand::Install { step: performer.step, cover, last: false };
        match self.tell(to, &install, &head).0 {
            ShardReply::Receiving(progress) if next.is_some() => {
                performer.stage = Stage::Records { progress, began_ms, after: next };
            }
            ShardReply::Receiving(progress) if performer.step.step % 4 == 1 => {
                performer.stage = Stage::Copy(progress);
            }
            ShardReply::Receiving(progress) => {
                let records = RecordsAsk { since_ms: progress.records_ms, after: None, bytes_max };
                performer.stage = Stage::GiveUp(FinalAsk { changes_after: progress.changes, records });
            }
            ShardReply::Stale | ShardReply::Ended(_) => performer.stage = Stage::Over,
            other => panic!("{other:?}"),
        }
    }

    fn hand_over(&mut self, performer: &mut Performer, ask: FinalAsk) {
        let Performer { from, to, step, .. } = *performer;
        let (changes, records_next, complete, rest) =
            match self.tell(from, &ShardCommand::GiveUp { step, ask }, &[]) {
                (ShardReply::GivenUp { changes, records_next, complete }, rest) => {
                    (changes, records_next, complete, rest)
                }
                (ShardReply::Stale | ShardReply::Ended(_), _) => return performer.stage = Stage::Over,
                (other, _) => panic!("{other:?}"),
            };
        let cover = Cover::Changes { to: changes };
        performer.step.step += 1;
        let install = ShardCommand::Install { step: performer.step, cover, last: complete };
        match self.tell(to, &install, &rest).0 {
            ShardReply::Receiving(_) => {
                let records = RecordsAsk { after: records_next, ..ask.records };
                performer.stage = Stage::GiveUp(FinalAsk { changes_after: changes, records });
            }
            ShardReply::Ended(Outcome::Done) => self.activated(performer),
            ShardReply::Stale => performer.stage = Stage::Over,
            other => panic!("{other:?}"),
        }
    }

    /// The receiver serves the range; the list of shards learns it.
    fn activated(&mut self, performer: &mut Performer) {
        let Performer { from, to, range, .. } = *performer;
        self.owners.retain(|(_, owner)| *owner != from && *owner != to);
        for shard in [from, to] {
            let hashes = self.members[shard].shard.range.and_then(|own| {
                if shard == from && own.covers(range) { own.without(range) } else { Some(own) }
            });
            self.owners.extend(hashes.map(|hashes| (hashes, shard)));
        }
        performer.stage = Stage::Finish;
    }

    /// At most one shard answers for a key, and what it answers is what the map holds; and each shard counts, and would
    /// wake, what it serves and nothing else.
    fn check_queries(&self) {
        for Member { shard, .. } in &self.members {
            let served = shard.serves().map_or(0, |range| shard.entries.count(range.hashes()).keys);
            assert_eq!(shard.class_counts().iter().map(|class| class.count).sum::<u64>(), served);
            let own = shard.range.map_or(Counts::default(), |range| shard.entries.count(range.hashes()));
            assert_eq!(shard.counts, own);
            let arrived = Arriving::of(&Strings, &shard.entries, shard.moves.incoming);
            assert_eq!(shard.arriving.counts, arrived.counts);
            assert_eq!(shard.arriving.index.counts(), arrived.index.counts());
        }
        for key in 0..KEYS {
            let name = key.to_string();
            let payload = ShardQuery::Query { key: name.as_bytes() }.encode(&[]);
            let mut answers = 0;
            for member in &self.members {
                let answer = split_answer(&member.shard.query(&payload).unwrap()).unwrap();
                match answer {
                    (ShardAnswer::Answer, value) => {
                        assert_eq!(Some(&value[..]), self.map.get(&key).map(|value| &value[..]));
                        answers += 1;
                    }
                    (ShardAnswer::KeyNotFound, _) => {
                        assert_eq!(self.map.get(&key), None);
                        answers += 1;
                    }
                    (ShardAnswer::Elsewhere(_), _) => {}
                    (other, _) => panic!("{other:?}"),
                }
            }
            assert!(answers <= 1, "{answers} shards answer for key {key}");
        }
    }

    /// The performer, or the next one, comes to an end; then every command has its reply at its first try or its last.
    fn settle(&mut self) {
        let mut steps = 0;
        while self.performer.is_some() {
            self.advance();
            steps += 1;
            assert!(steps < 10_000, "a move does not end: {:?}", self.performer);
        }
        for member in &mut self.members {
            while member.tell(&ShardCommand::Forget { slots_max: 2 }, &[]).0
                == (ShardReply::Forgotten { left: true })
            {}
        }
        self.check_queries();
        let total: u64 = self.members.iter().map(|member| member.shard.status().keys).sum();
        assert_eq!(total, self.map.len() as u64);
        for member in &self.members {
            assert!(!member.shard.status().moving, "a shard stays locked");
            assert_eq!(member.shard.entries.count(0..=u64::MAX), member.shard.counts);
        }
        for all in 0..self.alls.len() {
            while let Some(left) = self.alls[all].left {
                let owner = self.owners.iter().find(|(range, _)| range.contains(left.first())).unwrap().1;
                self.attempt_all(all, owner, false);
            }
        }
        self.check_queries();
        for sent in 0..self.sent.len() {
            let hash = self.sent[sent].hash;
            let owner = self.owners.iter().find(|(range, _)| range.contains(hash)).unwrap().1;
            for at in (0..SHARDS).chain([owner, owner]) {
                self.attempt(sent, at);
            }
        }
        for sent in &self.sent {
            let value = String::from_utf8(self.map[&sent.key].clone()).unwrap();
            let text = String::from_utf8(sent.text.clone()).unwrap();
            let times = value.split_inclusive(',').filter(|part| *part == text).count();
            assert_eq!(times, 1, "{text} in {value}");
        }
        self.check_queries();
    }
}

#[derive(Clone, Debug)]
enum Event {
    Send { key: u8, at: usize },
    Retry { sent: usize, at: usize },
    Move { owner: usize, cut: u64, merge: bool },
    Advance,
    Replace,
    AdvanceReplaced(usize),
    Abort,
    BeginAll { first: u64, more: u64 },
    All { all: usize, at: usize, lost: bool },
    Snapshot(usize),
    Forget(usize),
    Time(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        10 => (0..KEYS, 0..SHARDS).prop_map(|(key, at)| Event::Send { key, at }),
        6 => (any::<usize>(), 0..SHARDS).prop_map(|(sent, at)| Event::Retry { sent, at }),
        4 => (any::<usize>(), any::<u64>(), any::<bool>())
            .prop_map(|(owner, cut, merge)| Event::Move { owner, cut, merge }),
        24 => Just(Event::Advance),
        2 => Just(Event::Replace),
        2 => any::<usize>().prop_map(Event::AdvanceReplaced),
        1 => Just(Event::Abort),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(first, more)| Event::BeginAll { first, more }),
        5 => (any::<usize>(), 0..SHARDS, any::<bool>())
            .prop_map(|(all, at, lost)| Event::All { all, at, lost }),
        2 => (0..SHARDS).prop_map(Event::Snapshot),
        1 => (0..SHARDS).prop_map(Event::Forget),
        1 => (0..50_u64).prop_map(Event::Time),
    ];
    proptest::collection::vec(event, 0..200)
}

fn run(events: Vec<Event>, chunk_bytes: u64) {
    let mut world = World::new(chunk_bytes);
    for event in events {
        match event {
            Event::Send { key, at } => world.send(key, at),
            Event::Retry { sent, at } if !world.sent.is_empty() => {
                // A client does not repeat what it has a reply to once it has told so; until then a copy may be late.
                let sent = sent % world.sent.len();
                let waits = world.sent[sent].reply.is_none();
                let late =
                    world.acknowledged(world.sent[sent].command.session) <= world.sent[sent].command.sequence;
                if waits || late {
                    world.attempt(sent, at);
                }
            }
            Event::Retry { .. } => {}
            Event::Move { owner, cut, merge } => world.begin_move(owner, cut, merge),
            Event::Advance => world.advance(),
            Event::Replace => world.replace_performer(),
            Event::AdvanceReplaced(index) => world.advance_replaced(index),
            Event::Abort => world.abort(),
            Event::BeginAll { first, more } => world.begin_all(first, more),
            Event::All { all, at, lost } if !world.alls.is_empty() => {
                world.attempt_all(all % world.alls.len(), at, lost);
            }
            Event::All { .. } => {}
            Event::Snapshot(at) => {
                let bytes = snapshot(&world.members[at]);
                world.members[at].shard = restored(&bytes).unwrap();
                assert_eq!(snapshot(&world.members[at]), bytes);
            }
            Event::Forget(at) => drop(world.members[at].tell(&ShardCommand::Forget { slots_max: 3 }, &[])),
            Event::Time(ms) => world.now_ms += ms,
        }
        world.check_queries();
    }
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However commands, retries, moves, crashes and late messages interleave: every command runs once, on the newest
    /// value of its key, and one to all keys runs once on each; at most one shard answers for a key, and never an old
    /// value; and no shard stays locked.
    #[test]
    fn a_store_that_splits_and_merges_is_a_map(events in events(), chunk_bytes in 1_u64..200) {
        run(events, chunk_bytes);
    }
}
