//! What holds of a machine that is built anew.

use super::*;
use crate::data::{Refused, RestoreError, encode};
use crate::id::SessionId;
use crate::message::WireSnapshot;
use crate::raft::convert::snapshot_from_wire;

const GROUP: GroupId = GroupId(7);
const NAME: &str = "clock";

/// Takes in records of another group on "raise", whose time is later, and panics on "panic".
#[derive(Default)]
struct Clock;

impl RawData for Clock {
    fn command(&mut self, _: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        assert!(payload != "panic", "as it was told");
        Ok(Bytes::new())
    }

    fn command_with_records(
        &mut self,
        context: &CommandContext,
        payload: &Bytes,
        records: &mut Records<'_>,
    ) -> Result<Bytes, Refused> {
        if payload == "raise" {
            let (mut sessions, mut later) = (Sessions::default(), 10_000);
            let page = Records::new(&mut sessions, &mut later).export(0..=u64::MAX, None, 1000);
            records.import(&page.bytes)?;
        }
        self.command(context, payload)
    }

    fn query(&self, _: &Bytes) -> Result<Bytes, Refused> {
        Ok(Bytes::new())
    }

    fn snapshot(&self, _: &mut Vec<u8>) {}

    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

fn command(session: u64, retry_until_ms: u64, payload: &'static str) -> Command {
    let session = SessionId::new(0, session);
    Command { session, sequence: 0, acknowledged: 0, retry_until_ms, key_hash: 0, payload: payload.into() }
}

fn entry(index: u64, stamp_ms: u64, commands: Vec<Command>) -> Entry {
    let data = encode(&EntryBody::Commands(Commands { stamp_ms, commands }));
    Entry { index, term: 1, data, ..Entry::default() }
}

/// Whoever had a panic behind a command that had raised its time let what was over by then go at once, and whoever knew of the
/// panic already let it go with the next entry: their tables of sessions differed.
#[test]
fn a_machine_that_is_built_anew_in_the_middle_of_an_entry_lets_nothing_expire_twice() {
    let registry = Registry::new().with_raw(NAME, || Box::new(Clock));
    let nodes = BTreeMap::from([(MemberId(1), NodeId(1))]);
    let mut machine =
        Machine::found(GROUP, &registry, NAME, GroupConfig::default(), nodes).expect("it is known");
    let state = machine.snapshot(0).expect("it encodes");
    let (voters, learners) = (vec![MemberId(1)], Vec::new());
    let mut log =
        MemberLog::new(snapshot_from_wire(WireSnapshot { index: 1, term: 1, voters, learners, state }));
    let entries = [
        entry(2, 10, vec![command(1, 5_000, "kept")]),
        entry(
            3,
            10,
            vec![command(2, 60_000, "raise"), command(3, 60_000, "panic"), command(4, 60_000, "panic")],
        ),
        entry(4, 10, vec![command(5, 60_000, "next")]),
    ];
    log.append(&entries);
    let mut kept = |entry: &Entry| {
        machine.apply_commands(&log, entry).expect("it is applied");
        machine.session_replies()
    };
    assert_eq!(entries.each_ref().map(&mut kept), [1, 4, 4]);
}
