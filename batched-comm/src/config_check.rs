//! Settings that mean nothing or contradict each other, told before a socket is opened.

use std::time::Duration;

use crate::authority::is_node_name;
use crate::config::EndpointConfig;
use crate::error::BindError;

/// The shortest time that something may take or wait: timers are not finer.
const TIME_MIN: Duration = Duration::from_millis(1);
/// The longest one. Clocks end somewhere, and the sum of two times must not.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
const ADVERTISE_BYTES_MAX: usize = 255;

impl EndpointConfig {
    /// Whether an endpoint can be run with this.
    pub(crate) fn check(&self) -> Result<(), BindError> {
        for lane in &self.lanes {
            lane.check()?;
        }
        self.check_names()?;
        self.check_sizes()?;
        self.check_counts()?;
        self.check_times()
    }

    fn check_names(&self) -> Result<(), BindError> {
        require(is_node_name(&self.name), "name", || {
            format!("{:?} is not 1 to 255 printable ASCII characters", self.name)
        })?;
        let advertise = self.advertise.as_deref().unwrap_or_default();
        require(advertise.len() <= ADVERTISE_BYTES_MAX, "advertise", || {
            format!("{} bytes are over the limit of {ADVERTISE_BYTES_MAX}", advertise.len())
        })?;
        require(advertise.is_empty() || is_host_and_port(advertise), "advertise", || {
            format!("{advertise:?} is not host:port")
        })
    }

    fn check_sizes(&self) -> Result<(), BindError> {
        let payload_max = self.message_bytes_max.max(self.bulk_message_bytes_max);
        require(payload_max <= 1 << 30, "message_bytes_max", || {
            format!("{payload_max} bytes are over 1 GiB")
        })?;
        require(self.bulk_bytes_per_second_max != Some(0), "bulk_bytes_per_second_max", || {
            "0 would send nothing".to_owned()
        })?;
        require((16 << 10..=256 << 20).contains(&self.lane_window_bytes), "lane_window_bytes", || {
            format!("{} is outside 16 KiB to 256 MiB", self.lane_window_bytes)
        })?;
        require((1200..=65_527).contains(&self.datagram_bytes_max), "datagram_bytes_max", || {
            format!("{} is outside 1,200 to 65,527", self.datagram_bytes_max)
        })
    }

    fn check_counts(&self) -> Result<(), BindError> {
        let nobody = || "0 would let nobody in".to_owned();
        require(self.connections_max > 0, "connections_max", nobody)?;
        require(self.handshakes_max > 0, "handshakes_max", nobody)?;
        require(self.queue_messages_max > 0, "queue_messages_max", || {
            "0 would refuse everything".to_owned()
        })?;
        require((1..=1 << 24).contains(&self.calls_in_flight_max), "calls_in_flight_max", || {
            format!("{} is outside 1 to 16,777,216", self.calls_in_flight_max)
        })?;
        require(self.suspect_after_beats_missed >= 2, "suspect_after_beats_missed", || {
            format!("{} would suspect healthy peers", self.suspect_after_beats_missed)
        })?;
        require((1..=1 << 20).contains(&self.peer_events_max), "peer_events_max", || {
            format!("{} is outside 1 to 1,048,576", self.peer_events_max)
        })
    }

    fn check_times(&self) -> Result<(), BindError> {
        for (setting, time) in [
            ("connect_timeout", self.connect_timeout),
            ("reconnect_backoff_min", self.reconnect_backoff_min),
            ("reconnect_backoff_max", self.reconnect_backoff_max),
            ("keep_alive_interval", self.keep_alive_interval),
            ("idle_timeout", self.idle_timeout),
            ("stall_timeout", self.stall_timeout),
            ("metrics_interval", self.metrics_interval.unwrap_or(TIME_MAX)),
        ] {
            require((TIME_MIN..=TIME_MAX).contains(&time), setting, || {
                format!("{time:?} is outside {TIME_MIN:?} to {TIME_MAX:?}")
            })?;
        }
        require(self.keep_alive_interval < self.idle_timeout, "keep_alive_interval", || {
            format!("{:?} is not below the idle timeout of {:?}", self.keep_alive_interval, self.idle_timeout)
        })?;
        require(self.reconnect_backoff_min <= self.reconnect_backoff_max, "reconnect_backoff_min", || {
            format!("{:?} is above the longest, {:?}", self.reconnect_backoff_min, self.reconnect_backoff_max)
        })
    }
}

fn require(holds: bool, setting: &'static str, problem: impl FnOnce() -> String) -> Result<(), BindError> {
    if holds { Ok(()) } else { Err(BindError::Setting { setting, problem: problem() }) }
}

/// Whether this can be dialled, as far as it can be seen.
fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    port.parse::<u16>().is_ok_and(|port| port != 0)
        && !host.is_empty()
        && (is_bracketed || !host.contains(':'))
        && !host.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["a:1", "10.0.0.1:7000", "[::1]:7000", "node-1.example:65535"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in ["", ":1", "a", "a:", "a:0", "a:65536", "::1:7000", "a b:1", "http://a:x", "a:1/"] {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}
