//! Values that turn commands away: those that have nothing to do with them, as values of moving keys do.

use std::time::Duration;

use bytes::Bytes;
use rafted_value::env::{Env, RealEnv};
use rafted_value::transport::memory::MemoryNetwork;
use rafted_value::{
    Command, CommandContext, Found, GroupConfig, GroupId, Host, HostConfig, NodeId, RawData, Refused,
    Registry, RestoreError, SessionId,
};

const GROUP: GroupId = GroupId(7);
const SECOND: Duration = Duration::from_secs(1);

/// Counts commands while it is open. `open` and `close` always run.
#[derive(Default)]
struct Door {
    is_open: bool,
    count: u8,
}

impl RawData for Door {
    fn command(&mut self, _: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        match &payload[..] {
            b"open" => self.is_open = true,
            b"close" => self.is_open = false,
            _ => self.count += 1,
        }
        Ok(vec![self.count].into())
    }

    fn turn_away(&self, payload: &Bytes) -> Option<Bytes> {
        assert!(payload != "panic", "as it was told");
        (payload == "knock" && !self.is_open).then(|| Bytes::from_static(b"closed"))
    }

    fn query(&self, _: &Bytes) -> Result<Bytes, Refused> {
        Ok(vec![self.count].into())
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.extend([u8::from(self.is_open), self.count]);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        (self.is_open, self.count) = (bytes[0] == 1, bytes[1]);
        Ok(())
    }
}

struct Caller {
    env: std::sync::Arc<RealEnv>,
    host: Host,
}

impl Caller {
    async fn tell(&self, sequence: u64, payload: &'static str) -> Bytes {
        let command = Command {
            session: SessionId::new(1, 1),
            sequence,
            acknowledged: 0,
            retry_until_ms: self.env.wall_ms() + 60_000,
            key_hash: 0,
            payload: payload.into(),
        };
        self.host.command(GROUP, command, SECOND).await.expect("it is answered")
    }

    async fn last_index(&self) -> u64 {
        self.host.status(GROUP).await.expect("it is here").last_index
    }
}

async fn door() -> Caller {
    let registry = Registry::new().with_raw("door", || Box::<Door>::default());
    let env = RealEnv::new(MemoryNetwork::new().join(NodeId(1), "node-1"));
    let host = Host::start(env.clone(), HostConfig::default(), registry);
    let nodes = vec![host.node()];
    host.found(Found { group: GROUP, data: "door".into(), config: GroupConfig::default(), nodes })
        .await
        .expect("it is founded");
    let caller = Caller { env, host };
    // Whoever leads knows that once it has committed something.
    caller.tell(1, "close").await;
    caller
}

/// Callers that waited for a range to arrive once filled the log with commands that did nothing, just when the log had
/// the range to bring.
#[tokio::test]
async fn a_command_that_is_turned_away_is_not_in_the_log_and_runs_once_when_it_comes_again() {
    let door = door().await;
    let before = door.last_index().await;
    for _ in 0..10 {
        assert_eq!(door.tell(2, "knock").await, "closed");
    }
    assert_eq!(door.last_index().await, before);
    assert_eq!(door.tell(3, "open").await, [0][..]);
    assert_eq!(door.tell(2, "knock").await, [1][..]);
    assert_eq!(door.tell(4, "other").await, [2][..]);
    assert_eq!(door.tell(2, "knock").await, [1][..], "it has run");
}

#[tokio::test]
async fn a_value_that_panics_over_whom_to_turn_away_is_asked_in_the_log() {
    let door = door().await;
    assert_eq!(door.tell(2, "panic").await, [1][..]);
    assert_eq!(door.tell(3, "other").await, [2][..]);
}
