//! A group that ends, and another one that begins with what it had come to.

use std::time::Duration;

use rafted_value::sim::{NetConfig, Sim};
use rafted_value::{
    ClientSession, CommandContext, Data, Found, Freshness, GroupConfig, GroupError, GroupId, Host,
    HostConfig, Registry, SessionId, encode,
};

/// An integer that can be added to.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

impl Data for Counter {
    const NAME: &'static str = "counter";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

/// The same under another name.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Other(u64);

impl Data for Other {
    const NAME: &'static str = "other";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, add: u64) -> u64 {
        add
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_group_begins_with_the_state_and_the_sessions_of_one_that_has_ended() {
    let sim = Sim::new(1, NetConfig::default());
    let env = sim.start_node("node", "node:1");
    let host = Host::start(env, HostConfig::default(), Registry::new().with::<Counter>().with::<Other>());
    let found = |group: u64, data: &str| Found {
        group: GroupId(group),
        data: data.into(),
        config: GroupConfig::default(),
        nodes: vec![host.node()],
    };
    let all = async {
        assert_eq!(host.retire(GroupId(7)).await, Ok(None), "there is no such group");
        host.found(found(7, "counter")).await.expect("a new group");
        let mut session = ClientSession::new(SessionId::new(1, 1), 4);
        let until = host.env().wall_ms() + 60_000;
        let command = session.begin(until, 0, encode(&5_u64)).expect("there is room");
        let reply = host.command(GroupId(7), command.clone(), SECOND).await;
        assert_eq!(reply, Ok(encode(&5_u64)));
        let keepsake = host.retire(GroupId(7)).await.expect("it is there").expect("it has come to something");
        host.drop_member(GroupId(7)).await.expect("it ends");

        let other = host.found_with(found(8, "other"), keepsake.clone()).await;
        let reason = "what was kept is a counter, not a other".to_owned();
        assert_eq!(other, Err(GroupError::InvalidConfig(reason)));
        let mut damaged = keepsake.clone();
        damaged.state = damaged.state.slice(..damaged.state.len() - 1);
        assert!(matches!(
            host.found_with(found(8, "counter"), damaged).await,
            Err(GroupError::InvalidConfig(_))
        ));
        host.found_with(found(8, "counter"), keepsake).await.expect("a new group");
        let again = host.command(GroupId(8), command, SECOND).await;
        assert_eq!(
            again,
            Ok(encode(&5_u64)),
            "the same command is the same command, and is not applied again"
        );
        let answer = host.query(GroupId(8), Freshness::Latest, encode(&()), SECOND).await;
        assert_eq!(answer, Ok(encode(&5_u64)));
    };
    sim.run_until(20 * SECOND, all).expect("it ends in time");
}
