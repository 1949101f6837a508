//! Agents that the attribute makes: what they do, what their messages look like, and what is refused.

use dist_agent::{
    Agent, AgentContext, AgentTypes, Cause, DistAgent, OnTick, QueryContext, QuotaLimit, WatchPosition, agent,
};
use serde::{Deserialize, Serialize};

/// A room with guests.
#[derive(Default, Serialize, Deserialize)]
struct Room {
    guests: Vec<String>,
    closed_at_ms: Option<u64>,
}

#[agent(name = "room", version = 3, version_min = 2)]
impl Room {
    /// Somebody comes in; how many are there now.
    #[command(tag = 7)]
    fn enter(&mut self, name: String, seats: u32) -> Result<usize, String> {
        if self.is_full(seats) {
            return Err(format!("{name} finds no seat"));
        }
        self.guests.push(name);
        Ok(self.guests.len())
    }

    #[command(tag = 2, since = 3)]
    fn close(&mut self, context: &mut AgentContext<'_>) {
        context.on_tick(OnTick::Timeout { ticks: 1 });
        self.closed_at_ms = Some(context.now_ms());
    }

    #[query(tag = 1)]
    fn guests(&self) -> Vec<String> {
        self.guests.clone()
    }

    #[query(tag = 300)]
    fn describe(&self, context: &QueryContext<'_>) -> String {
        format!("{} after {}", context.key(), context.revision())
    }

    #[timeout]
    fn end(&mut self, context: &mut AgentContext<'_>) {
        context.deactivate();
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [] => Ok(Self::default()),
            bytes => Ok(Self { guests: vec![format!("{from} {bytes:?}")], closed_at_ms: None }),
        }
    }

    fn write_as(&self, version: u32) -> Result<Vec<u8>, String> {
        if version == 2 && self.guests.is_empty() { Ok(vec![]) } else { Err(format!("not as {version}")) }
    }

    fn is_full(&self, seats: u32) -> bool {
        self.guests.len() >= seats as usize
    }
}

#[tokio::test]
async fn each_method_is_one_of_the_handles() {
    let cluster = DistAgent::single_node(AgentTypes::new().with::<Room>()).await.unwrap();
    cluster.put_quota("house", QuotaLimit::Unlimited).await.unwrap();
    let room = cluster.agent::<Room>("house", "kitchen").unwrap();
    assert_eq!(room.enter("ann".into(), 1).await.unwrap(), Ok(1));
    assert_eq!(room.enter("ben".into(), 1).await.unwrap(), Err("ben finds no seat".into()));
    assert_eq!(room.guests().await.unwrap(), ["ann"]);
    room.if_active().close().await.unwrap();
    assert_eq!(room.describe().await.unwrap(), "kitchen after 3");
    cluster.shutdown().await;
}

/// What was sent by an older program is in the log: neither the order of the methods nor their names may matter.
#[test]
fn a_message_is_its_tag_and_its_fields() {
    let bytes = |command: &RoomCommand| postcard::to_stdvec(command).unwrap();
    let enter = RoomCommand::Enter { name: "ann".into(), seats: 300 };
    assert_eq!(bytes(&enter), [7, 3, b'a', b'n', b'n', 0xac, 2]);
    assert_eq!(bytes(&RoomCommand::Close {}), [2]);
    assert_eq!(postcard::to_stdvec(&RoomQuery::Describe {}).unwrap(), [0xac, 2]);
    assert_eq!(postcard::to_stdvec(&RoomReply::Enter { given: Ok(1) }).unwrap(), [7, 0, 1]);
    let again: RoomCommand = postcard::from_bytes(&bytes(&enter)).unwrap();
    assert!(matches!(again, RoomCommand::Enter { name, seats: 300 } if name == "ann"));
    for unreadable in [&[9][..], &[7, 3, b'a'], &[]] {
        assert!(postcard::from_bytes::<RoomCommand>(unreadable).is_err(), "{unreadable:?}");
    }
}

#[test]
fn the_options_and_the_migration_are_the_agents() {
    assert_eq!((Room::TYPE, Room::VERSION_MIN, Room::VERSION), ("room", 2, 3));
    assert_eq!(Room::default().write_as(1), Err("not as 1".to_owned()));
    let enter = RoomCommand::Enter { name: "ann".into(), seats: 1 };
    assert_eq!([enter, RoomCommand::Close {}].map(|command| Room::version_needed(&command)), [0, 3]);
    let old = <Room as Agent>::migrate(2, &[5]).unwrap();
    assert_eq!(old.guests, ["2 [5]"]);
}

/// An agent whose methods and arguments are called what the generated code calls something of its own.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
struct Odd(u32);

#[agent(name = "odd")]
impl Odd {
    #[command(tag = 1)]
    fn put(&mut self, this: &mut AgentContext<'_>, context: u32, serializer: Option<Self>) -> Self {
        self.0 = context + serializer.map_or(0, |odd| odd.0);
        assert_eq!(this.revision(), 0);
        self.clone()
    }

    #[command(tag = 2)]
    fn _1(&mut self, tag: [Self; 2], fields: u32, command: u32) -> u32 {
        self.0 += tag[0].0 + tag[1].0 + fields + command;
        self.0
    }

    #[query(tag = 1)]
    fn self_(&self, query: u32) -> Vec<Self> {
        vec![self.clone(); query as usize]
    }
}

/// `Self` of an argument was once that of the generated enum, and an argument called `serializer` hid the serializer.
#[tokio::test]
async fn arguments_may_have_any_name_and_be_of_the_agents_own_type() {
    let cluster = DistAgent::single_node(AgentTypes::new().with::<Odd>()).await.unwrap();
    cluster.put_quota("house", QuotaLimit::Unlimited).await.unwrap();
    let odd = cluster.agent::<Odd>("house", "one").unwrap();
    assert_eq!(odd.put(3, Some(Odd(4))).await.unwrap(), Odd(7));
    assert_eq!(odd._1([Odd(1), Odd(2)], 3, 4).await.unwrap(), 17);
    assert_eq!(odd.self_(2).await.unwrap(), [Odd(17), Odd(17)]);
    cluster.shutdown().await;
}

/// An agent of commands alone: no query, no timeout.
#[derive(Default, Serialize, Deserialize)]
struct Tally(u32);

#[agent(name = "tally")]
impl Tally {
    #[command(tag = 1)]
    fn count(&mut self, more: u32) -> u32 {
        self.0 += more;
        self.0
    }
}

/// ... and one with a timeout, and no query either.
#[derive(Default, Serialize, Deserialize)]
struct Fuse(bool);

#[agent(name = "fuse")]
impl Fuse {
    #[command(tag = 1)]
    fn light(&mut self, context: &mut AgentContext<'_>) -> bool {
        context.on_tick(OnTick::Timeout { ticks: 1 });
        std::mem::replace(&mut self.0, true)
    }

    #[timeout]
    fn burn_down(&mut self) {
        self.0 = false;
    }
}

/// The enum of its queries has no variants, and what was generated for it did not compile.
#[tokio::test]
async fn an_agent_needs_no_query_and_no_timeout() {
    let types = AgentTypes::new().with::<Tally>().with::<Fuse>();
    let cluster = DistAgent::single_node(types).await.unwrap();
    cluster.put_quota("house", QuotaLimit::Unlimited).await.unwrap();
    let tally = cluster.agent::<Tally>("house", "one").unwrap();
    assert_eq!((tally.count(2).await.unwrap(), tally.count(3).await.unwrap()), (2, 5));
    let fuse = cluster.agent::<Fuse>("house", "one").unwrap();
    assert_eq!((fuse.light().await.unwrap(), fuse.light().await.unwrap()), (false, true));
    assert!(postcard::from_bytes::<TallyQuery>(&[1]).is_err());
    cluster.shutdown().await;
}

/// An agent that is watched, and was not before its version 1.
#[derive(Default, Serialize, Deserialize)]
struct Journal(u32);

#[agent(name = "journal", version = 1, version_min = 1, changes_retained = 2)]
impl Journal {
    #[command(tag = 1)]
    fn note(&mut self, page: u32) {
        self.0 = page;
    }

    fn changes_retained(version: u32) -> u32 {
        if version == 0 { 0 } else { Self::CHANGES_RETAINED }
    }
}

/// Agents of the attribute could not say how many changes they keep, so that nobody could watch them.
#[tokio::test]
async fn an_agent_of_the_attribute_can_be_watched() {
    let kept = [0, 1].map(<Journal as Agent>::changes_retained);
    assert_eq!((Tally::CHANGES_RETAINED, Journal::CHANGES_RETAINED, kept), (0, 2, [0, 2]));
    let cluster = DistAgent::single_node(AgentTypes::new().with::<Journal>()).await.unwrap();
    cluster.put_quota("house", QuotaLimit::Unlimited).await.unwrap();
    let journal = cluster.agent::<Journal>("house", "one").unwrap();
    for page in 1..=3 {
        journal.note(page).await.unwrap();
    }
    let mut watch = journal.watch(WatchPosition::after_revision(1));
    for revision in 2..=3 {
        let change = watch.next().await.unwrap();
        assert_eq!(change.revision, revision);
        let Cause::Command(JournalCommand::Note { page }) = change.cause else { panic!("{revision}") };
        assert_eq!(u64::from(page), revision);
    }
    cluster.shutdown().await;
}
