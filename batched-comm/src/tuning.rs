//! What may be changed and measured while an endpoint runs: how lanes are written, and what goes through them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::frame::FAN_OUT_MAX;
use crate::hello::Features;
use crate::id::{NodeId, ServiceId};
use crate::lane::Lane;
use crate::lane_settings::{LaneSettings, SettingError};
use crate::sending_stats::{SendingStats, StatsError};

impl Endpoint {
    /// Changes how a lane is written, to all peers and those to come, from the next batch on.
    ///
    /// # Errors
    /// When a setting is out of its range; it is named, and nothing changes.
    pub fn set_lane_settings(&self, lane: Lane, settings: LaneSettings) -> Result<(), SettingError> {
        settings.check()?;
        self.shared().set_lane_settings(lane, settings);
        Ok(())
    }

    /// Changes how a lane to one peer is written, until it is changed again, for this peer or for all.
    ///
    /// # Errors
    /// When a setting is out of its range, or the node was neither named nor ever connected.
    pub fn set_lane_settings_of(
        &self,
        node: NodeId,
        lane: Lane,
        settings: LaneSettings,
    ) -> Result<(), SettingError> {
        settings.check()?;
        let peer = self.shared().peer(node).ok_or(SettingError::UnknownNode(node))?;
        peer.lane(lane).set_settings(settings);
        Ok(())
    }

    /// How a lane is written to peers that nothing else was said about.
    pub fn lane_settings(&self, lane: Lane) -> LaneSettings {
        self.shared().lane_settings(lane)
    }

    /// How a lane to a peer is written; `None` for a node that was neither named nor ever connected.
    pub fn lane_settings_of(&self, node: NodeId, lane: Lane) -> Option<LaneSettings> {
        self.shared().peer(node).map(|peer| peer.lane(lane).settings())
    }

    /// Changes how many bytes this node sends in a second on its bulk lanes, all peers together; `None` for no cap.
    ///
    /// # Errors
    /// When the rate is zero: it would send nothing.
    pub fn set_bulk_bytes_per_second_max(&self, rate: Option<u64>) -> Result<(), SettingError> {
        if rate == Some(0) {
            let problem = "0 would send nothing".to_owned();
            return Err(SettingError::OutOfRange { setting: "bulk_bytes_per_second_max", problem });
        }
        self.shared().set_bulk_rate(rate);
        Ok(())
    }

    /// How many bytes this node may send in a second on its bulk lanes.
    pub fn bulk_bytes_per_second_max(&self) -> Option<u64> {
        self.shared().bulk_rate.lock().bytes_per_second()
    }

    /// Collects what is sent to a peer for a time: each batch with its messages, its bytes and what was sent for them.
    ///
    /// It begins when the future is first polled, and dropping the future ends it. At most
    /// [`stats_batches_max`](crate::EndpointConfig::stats_batches_max) batches are kept, the others counted.
    ///
    /// # Errors
    /// When the node was neither named nor ever connected, or too many are collecting.
    pub async fn collect_sending_stats(
        &self,
        node: NodeId,
        duration: Duration,
    ) -> Result<SendingStats, StatsError> {
        let peer = self.shared().peer(node).ok_or(StatsError::UnknownNode(node))?;
        let batches_max = self.shared().config.stats_batches_max;
        let collecting = peer.collectors.start(batches_max).ok_or(StatsError::TooMany)?;
        sleep(duration).await;
        Ok(collecting.take())
    }

    /// Sends one message to several services on several nodes: one copy goes to each node and is handed to all of its
    /// services there, in the order given.
    ///
    /// Each node is told as if by [`cast`](Endpoint::cast). A node that is not connected yet, or that does not know
    /// how to hand a message out, gets a copy for each service.
    ///
    /// # Errors
    /// The nodes it was not queued for, with the reason. For all others it was.
    pub fn broadcast(
        &self,
        to: &[(NodeId, ServiceId)],
        lane: Lane,
        payload: &Bytes,
    ) -> Result<(), Vec<(NodeId, SendError)>> {
        let mut nodes: BTreeMap<NodeId, Vec<ServiceId>> = BTreeMap::new();
        for (node, service) in to {
            nodes.entry(*node).or_default().push(*service);
        }
        let failed: Vec<_> = nodes
            .into_iter()
            .filter_map(|(node, services)| {
                self.cast_to_all(node, lane, &services, payload).err().map(|error| (node, error))
            })
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Sends to all services of one node; after the first error no more is tried there.
    fn cast_to_all(
        &self,
        node: NodeId,
        lane: Lane,
        services: &[ServiceId],
        payload: &Bytes,
    ) -> Result<(), SendError> {
        let link = self.shared().peer(node).and_then(|peer| peer.link());
        let fans_out = link.is_some_and(|link| link.features.has(Features::FAN_OUT));
        if !fans_out || services.len() == 1 {
            return services.iter().try_for_each(|service| self.cast(node, lane, *service, payload.clone()));
        }
        services.chunks(FAN_OUT_MAX).try_for_each(|services| self.cast_fan_out(node, lane, services, payload))
    }
}
