//! What a caller is told when a call cannot succeed, and that it is told at once where waiting would not help.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Echo, MS, SECOND, World, name};
use raft_fleet::rafted_value::env::{Env, sleep, timeout};
use raft_fleet::rafted_value::sim::SimEnv;
use raft_fleet::{
    CallOptions, CommandError, Data, Fleet, FleetError, Freshness, GroupConfig, NotApplied, QueryError,
    Unknown, encode,
};

/// Three nodes with a group of [`Echo`], and a client of them.
struct Caller {
    world: World,
    env: Arc<SimEnv>,
    client: Fleet,
}

impl Caller {
    fn new(seed: u64) -> Self {
        let mut world = World::formed(seed, 3);
        let fleet = world.fleet(0);
        world.run(async move {
            fleet.add_group(name(0), Echo::NAME, 3, GroupConfig::default()).await.expect("a new name");
        });
        let (env, client) = world.client("client");
        Self { world, env, client }
    }

    /// Sends a command that brings `sent` bytes and asks for `wanted`; also tells how long it took.
    fn command(
        &self,
        sent: usize,
        wanted: usize,
        timeout: Duration,
    ) -> (Result<u64, CommandError>, Duration) {
        let (client, env) = (self.client.clone(), self.env.clone());
        let call = async move {
            let options = CallOptions::default().with_timeout(timeout);
            let begin = env.now();
            let reply = client.command(&name(0), 0, encode(&(wanted, vec![0_u8; sent])), &options).await;
            let reply = reply.map(|reply| postcard::from_bytes::<(u64, Vec<u8>)>(&reply).expect("a reply").0);
            (reply, env.now().since(begin))
        };
        let task = self.world.sim.spawn_on(&self.env, call);
        self.world.sim.run_until(120 * SECOND, task).flatten().expect("the call ends")
    }

    /// The same with a query.
    fn query(&self, sent: usize, wanted: usize, timeout: Duration) -> (Result<u64, QueryError>, Duration) {
        let (client, env) = (self.client.clone(), self.env.clone());
        let call = async move {
            let options = CallOptions::default().with_timeout(timeout);
            let begin = env.now();
            let payload = encode(&(wanted, vec![0_u8; sent]));
            let answer = client.query(&name(0), Freshness::Latest, payload, &options).await;
            let answer =
                answer.map(|answer| postcard::from_bytes::<(u64, Vec<u8>)>(&answer).expect("an answer").0);
            (answer, env.now().since(begin))
        };
        let task = self.world.sim.spawn_on(&self.env, call);
        self.world.sim.run_until(120 * SECOND, task).flatten().expect("the call ends")
    }
}

/// A command that no message could carry was once sent again and again for its whole time.
#[test]
fn a_command_over_its_groups_limit_is_refused_before_it_is_sent() {
    let caller = Caller::new(31);
    let limit_bytes = GroupConfig::default().command_bytes_max;
    for sent in [1 << 20, 5 << 20] {
        let (reply, took) = caller.command(sent, 0, 5 * SECOND);
        let bytes = encode(&(0_usize, vec![0_u8; sent])).len() as u64;
        assert_eq!(reply, Err(NotApplied::TooLarge { bytes, limit_bytes }.into()));
        assert_eq!(took, Duration::ZERO);
    }
    assert_eq!(caller.command(1 << 19, 0, 5 * SECOND).0, Ok(1));
}

/// Such a reply was once dropped on its way, and the command sent again for its whole time.
#[test]
fn a_reply_that_fits_no_message_says_so_at_once_and_that_the_command_was_applied() {
    let caller = Caller::new(32);
    let (reply, took) = caller.command(0, 5 << 20, 5 * SECOND);
    let Err(CommandError::Unknown(Unknown::ReplyTooLarge { bytes, limit_bytes })) = reply else {
        panic!("{reply:?}");
    };
    assert!(bytes > 5 << 20 && limit_bytes < 4 << 20, "{bytes} {limit_bytes}");
    assert!(took < SECOND, "{took:?}");
    let (answer, _) = caller.query(0, 3 << 20, 5 * SECOND);
    assert_eq!(answer, Ok(1), "it ran once");
}

#[test]
fn a_query_or_an_answer_that_fits_no_message_says_so_at_once() {
    let caller = Caller::new(33);
    let (answer, took) = caller.query(0, 5 << 20, 5 * SECOND);
    assert!(matches!(answer, Err(QueryError::AnswerTooLarge { bytes, .. }) if bytes > 5 << 20), "{answer:?}");
    assert!(took < SECOND, "{took:?}");
    let (answer, took) = caller.query(5 << 20, 0, 5 * SECOND);
    assert!(matches!(answer, Err(QueryError::TooLarge { bytes, .. }) if bytes > 5 << 20), "{answer:?}");
    assert!(took < SECOND, "{took:?}");
}

/// It once named the time of the last attempt, half a second.
#[test]
fn a_timeout_names_the_time_of_the_whole_call() {
    let paused = |seed: u64| {
        let caller = Caller::new(seed);
        assert_eq!(caller.command(0, 0, 5 * SECOND).0, Ok(1));
        caller.world.nodes.iter().for_each(|node| caller.world.sim.pause(&node.env));
        caller
    };
    let (reply, took) = paused(34).command(0, 0, 600 * MS);
    assert_eq!(reply, Err(Unknown::Timeout { limit_ms: 600 }.into()));
    assert!(took >= 600 * MS, "{took:?}");
    let (answer, took) = paused(34).query(0, 0, 600 * MS);
    assert_eq!(answer, Err(QueryError::Timeout { limit_ms: 600 }));
    assert!(took >= 600 * MS, "{took:?}");
}

/// The sum of the times once overflowed.
#[test]
fn a_call_may_take_for_ever() {
    let caller = Caller::new(35);
    assert_eq!(caller.command(0, 0, Duration::MAX).0, Ok(1));
    assert_eq!(caller.query(0, 0, Duration::MAX).0, Ok(1));
}

/// It once was the text of an unreachable node, which a program cannot tell from others.
#[test]
fn an_unknown_name_is_an_error_of_its_own() {
    let caller = Caller::new(36);
    let client = caller.client.clone();
    let (reply, answer) = caller.world.run(async move {
        let options = CallOptions::default();
        let reply = client.command(&name(7), 0, encode(&0), &options).await;
        (reply, client.query(&name(7), Freshness::Latest, encode(&0), &options).await)
    });
    assert_eq!(reply, Err(NotApplied::NoSuchName("group-7".into()).into()));
    assert_eq!(answer, Err(QueryError::NoSuchName("group-7".into())));
}

/// A caller that would rather know soon gives a number of attempts.
#[test]
fn a_call_ends_after_the_attempts_that_it_may_take() {
    let mut caller = Caller::new(37);
    assert_eq!(caller.command(0, 0, 5 * SECOND).0, Ok(1));
    (0..3).for_each(|place| caller.world.kill(place));
    caller.world.sim.run_for(5 * SECOND);
    let took = |attempts_max: u32, retry_interval: Duration| {
        let (client, env) = (caller.client.clone(), caller.env.clone());
        let task = caller.world.sim.spawn_on(&caller.env, async move {
            let options = CallOptions { attempts_max, retry_interval, ..CallOptions::default() };
            let options = options.with_timeout(100 * SECOND);
            let begin = env.now();
            let payload = encode(&(0_usize, vec![0_u8; 1]));
            let reply = client.command(&name(0), 0, payload.clone(), &options).await;
            assert!(reply.is_err(), "{reply:?}");
            let answer = client.query(&name(0), Freshness::Latest, payload, &options).await;
            assert!(answer.is_err(), "{answer:?}");
            env.now().since(begin)
        });
        caller.world.sim.run_until(120 * SECOND, task).flatten().expect("the calls end")
    };
    let (few, many) = (took(3, 10 * MS), took(12, 10 * MS));
    assert!(few < many && many < 30 * SECOND, "{few:?} {many:?}");
    assert!(took(12, SECOND) > many + 2 * SECOND, "the wait between two attempts counts");
}

/// What a caller remembers of a leader may be old; the one it asks knows better.
#[test]
fn a_leadership_that_has_moved_costs_a_caller_one_redirect_and_no_wait() {
    let caller = Caller::new(38);
    assert_eq!(caller.command(0, 0, 5 * SECOND).0, Ok(1));
    let before = caller.client.cached_leader(&name(0)).expect("it was just asked");
    let group = caller.world.fleet(0).cluster().groups()[&name(0)].id;
    let leader = (0..3).map(|place| caller.world.fleet(place)).find(|fleet| fleet.node() == before);
    let host = leader.and_then(|fleet| fleet.host().cloned()).expect("a node leads");
    caller.world.run(async move {
        let status = host.status(group).await.expect("it has a member");
        let next = status.members.iter().find(|member| member.node != before).expect("there are three");
        host.replace_leader(group, Some(next.member)).await.expect("it follows");
    });
    let (reply, took) = caller.command(0, 0, 5 * SECOND);
    assert_eq!(reply, Ok(2));
    assert!(took < CallOptions::default().retry_interval, "{took:?}");
    let after = caller.client.cached_leader(&name(0)).expect("it was just asked");
    assert_ne!(after, before);
}

/// Followers once named the dead leader until another led. Whoever followed them there waited half a second for a
/// connection, twice as long as the election took.
#[test]
fn a_caller_hears_from_the_next_leader_soon_after_the_last_has_died() {
    for seed in 40..60 {
        let mut caller = Caller::new(seed);
        assert_eq!(caller.command(0, 0, 5 * SECOND).0, Ok(1));
        let leader = caller.client.cached_leader(&name(0)).expect("it was just asked");
        let place = (0..3).find(|place| caller.world.id(*place) == leader).expect("a node leads");
        caller.world.kill(place);
        let ((reply, command_took), (answer, query_took)) = match seed % 2 {
            0 => (caller.command(0, 0, 5 * SECOND), caller.query(0, 0, 5 * SECOND)),
            _ => {
                let query = caller.query(0, 0, 5 * SECOND);
                (caller.command(0, 0, 5 * SECOND), query)
            }
        };
        assert!(reply.is_ok() && answer.is_ok(), "seed {seed}: {reply:?} {answer:?}");
        let took = command_took + query_took;
        assert!(took < 350 * MS, "seed {seed}: {took:?}");
    }
}

/// A group's members were once all that a caller knew of it by its name, whoever has the name by now.
#[test]
fn a_command_for_a_group_is_not_given_to_the_next_one_of_its_name() {
    let caller = Caller::new(170);
    let client = caller.client.clone();
    let call = async move {
        let (options, payload) = (CallOptions::default(), encode(&(1_usize, vec![0_u8; 1])));
        let name = &name(0);
        let send = |id| client.command_of(name, id, 0, payload.clone(), &options);
        let first = client.await_group(name).await.unwrap();
        assert!(send(first).await.is_ok());
        client.delete_group(name).await.unwrap();
        let second = loop {
            let added = client.add_group(name.clone(), Echo::NAME, 3, GroupConfig::default()).await;
            match added {
                Ok(second) => break second,
                Err(FleetError::CleanupOngoing { .. }) => sleep(client.env().as_ref(), SECOND / 10).await,
                Err(error) => panic!("{error}"),
            }
        };
        let gone = Err(CommandError::NotApplied(NotApplied::NoSuchName(name.as_str().to_owned())));
        assert_eq!(send(first).await, gone);
        assert!(send(second).await.is_ok());
    };
    let task = caller.world.sim.spawn_on(&caller.env, call);
    caller.world.sim.run_until(120 * SECOND, task).flatten().expect("the call ends");
}

/// What was under way when its caller stopped to wait was once forgotten, and the next refusal taken for the whole.
#[test]
fn a_command_whose_caller_stopped_to_wait_may_have_been_applied_whatever_the_next_group_says() {
    let caller = Caller::new(171);
    let client = caller.client.clone();
    let call = async move {
        let (env, options) = (client.env().clone(), CallOptions::default());
        let payload = encode(&(1_usize, vec![0_u8; 1]));
        let mut begun = client.begin(&name(0), 0, payload, &options).await.unwrap();
        let sent = timeout(env.as_ref(), MS / 10, client.send(&name(0), &mut begun)).await;
        assert!(sent.is_none(), "it was stopped: {sent:?}");
        let error = client.send(&name(9), &mut begun).await.unwrap_err();
        assert!(matches!(error, CommandError::Unknown(_)), "{error}");
        assert!(client.send(&name(0), &mut begun).await.is_ok());
    };
    let task = caller.world.sim.spawn_on(&caller.env, call);
    caller.world.sim.run_until(120 * SECOND, task).flatten().expect("the call ends");
}
