//! What a node process does with large groups.

use std::time::{Duration, Instant};

use rafted_value::env::random_u64_from_os;
use rafted_value::{ClientSession, Data, Found, GroupConfig, GroupId, NodeId, SessionId, encode};

use super::BoxError;
use super::blob::{Blob, Change, Held};
use super::node::BenchNode;
use super::protocol::Answer;

/// A state grows by pieces of this size.
const PIECE_BYTES: u32 = 1 << 20;
/// A log grows by commands of this size.
const CARRIED_BYTES: usize = 512 << 10;
/// One command of a large group takes no longer than this.
const COMMAND_MAX: Duration = Duration::from_secs(30);
/// A snapshot takes no longer than this.
const SNAPSHOT_MAX: Duration = Duration::from_secs(120);
/// A new member has a large state after this time.
const RENEWAL_MAX: Duration = Duration::from_secs(240);

impl BenchNode {
    pub(super) async fn found_large(
        &self,
        group: GroupId,
        held: bool,
        bytes: u64,
        carried: bool,
    ) -> Result<Answer, BoxError> {
        let config = GroupConfig { log_bytes_min: 16 << 30, ..GroupConfig::default() };
        let data = if held { Held::NAME } else { Blob::NAME };
        let nodes = vec![self.host.node()];
        self.host.found(Found { group, data: data.into(), config, nodes }).await?;
        self.add_voters(group).await?;
        let change =
            if carried { Change::Carry(vec![7; CARRIED_BYTES].into()) } else { Change::Grow(PIECE_BYTES) };
        let size = if carried { CARRIED_BYTES as u64 } else { u64::from(PIECE_BYTES) };
        let payload = encode(&change);
        let mut session = ClientSession::new(SessionId::new(random_u64_from_os(), random_u64_from_os()), 1);
        for _ in 0..bytes.div_ceil(size) {
            let until = self.now_ms() + 60_000;
            let command = session.begin(until, 0, payload.clone()).ok_or("one at a time")?;
            let sequence = command.sequence;
            self.host.command(group, command, COMMAND_MAX).await?;
            session.finish(sequence);
        }
        Ok(Answer::Founded)
    }

    /// A setting that asks for snapshots; each member takes one when it applies it.
    pub(super) async fn take_snapshot(&self, group: GroupId) -> Result<Answer, BoxError> {
        let start = Instant::now();
        let before = self.host.status(group).await.ok_or("the group is not here")?;
        let config = GroupConfig { log_bytes_min: 1, ..before.config };
        self.host.change_config(group, config).await?;
        while start.elapsed() < SNAPSHOT_MAX {
            let now = self.host.status(group).await.ok_or("the group is not here any more")?;
            if now.snapshot_index > before.snapshot_index {
                return Ok(Answer::Took { seconds: start.elapsed().as_secs_f64() });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("no snapshot within {} s", SNAPSHOT_MAX.as_secs()).into())
    }

    /// A new member in the place of the one on `node`, which is given the whole state.
    pub(super) async fn renew(&self, group: GroupId, node: NodeId) -> Result<Answer, BoxError> {
        let status = self.host.status(group).await.ok_or("the group is not here")?;
        let old = status.members.iter().find(|member| member.node == node).ok_or("it has no member there")?;
        self.host.remove_member(group, old.member).await?;
        let start = Instant::now();
        self.add_voter(group, node, RENEWAL_MAX).await?;
        Ok(Answer::Took { seconds: start.elapsed().as_secs_f64() })
    }

    /// Gives the lead to the member on `to`.
    pub(super) async fn hand_over(&self, group: GroupId, to: NodeId) -> Result<Answer, BoxError> {
        let status = self.host.status(group).await.ok_or("the group is not here")?;
        if let Some(member) = status.members.iter().find(|member| member.node == to) {
            // Whoever sees that nothing has come of it asks again.
            let _ = self.host.replace_leader(group, Some(member.member)).await;
        }
        Ok(Answer::Status(self.standing(group).await))
    }
}
