//! Refusals in log and metrics, without a flood.
//!
//! [`crate::server`] and [`crate::dial`] report here what they refused or what refused them. Every
//! refusal is counted; of equal ones (same address, same kind) one in ten seconds is logged, with
//! how many there were: a peer that tries again and again, or an attacker, must not fill the disk.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ministry_wire::hello::Door;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines about the same.
const QUIET: Duration = Duration::from_secs(10);
/// Different (address, kind) pairs remembered; beyond it the memory begins anew.
const REMEMBERED_MAX: usize = 1024;

#[derive(Debug)]
struct Last {
    logged: Instant,
    since: u64,
}

/// Says what was refused, at most so often.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    last: Mutex<BTreeMap<(IpAddr, &'static str), Last>>,
}

impl Refusals {
    /// We refused a caller.
    pub(crate) fn refused(
        &self,
        address: SocketAddr,
        door: Option<Door>,
        kind: &'static str,
        reason: &str,
    ) {
        metrics::counter!("ministry_transport_refused_total", "reason" => kind).increment(1);
        if let Some(equal) = self.due(address, kind) {
            let door = door.map_or("unknown", Door::name);
            tracing::warn!(%address, door, kind, equal, reason, "connection refused");
        }
    }

    /// Somebody refused us.
    pub(crate) fn was_refused(
        &self,
        address: SocketAddr,
        door: Door,
        kind: &'static str,
        reason: &str,
    ) {
        metrics::counter!("ministry_transport_was_refused_total", "reason" => kind).increment(1);
        if let Some(equal) = self.due(address, kind) {
            let door = door.name();
            tracing::warn!(%address, door, kind, equal, reason, "the other end refused us");
        }
    }

    /// How many equal ones went unlogged before this one, if this one is to be logged.
    fn due(&self, address: SocketAddr, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.len() >= REMEMBERED_MAX {
            last.clear();
        }
        match last.get_mut(&(address.ip(), kind)) {
            Some(entry) if now.duration_since(entry.logged) < QUIET => {
                entry.since += 1;
                None
            }
            Some(entry) => {
                let equal = entry.since;
                *entry = Last { logged: now, since: 0 };
                Some(equal)
            }
            None => {
                last.insert((address.ip(), kind), Last { logged: now, since: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn equal_refusals_are_logged_once_in_ten_seconds_and_counted() {
        let refusals = Refusals::default();
        let address: SocketAddr = "10.0.0.1:1".parse().unwrap();
        assert_eq!(refusals.due(address, "revoked"), Some(0));
        for _ in 0..5 {
            assert_eq!(refusals.due(address, "revoked"), None);
        }
        assert_eq!(refusals.due(address, "malformed"), Some(0));
        tokio::time::advance(QUIET).await;
        assert_eq!(refusals.due(address, "revoked"), Some(5));
    }
}
