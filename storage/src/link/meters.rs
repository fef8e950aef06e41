//! What links count and say.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use metrics::{Gauge, counter, gauge};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::handshake::Refused;

/// The same refusal of the same peer is said this often at most.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Peers and reasons remembered; all are forgotten when there are more.
const SAID_MAX: usize = 256;

/// What was said lately. Pure but for the clock that is given.
#[derive(Debug, Default)]
pub(super) struct Said(HashMap<(IpAddr, Refused), Instant>);

impl Said {
    /// Whether it is time to say this.
    pub(super) fn say(&mut self, what: (IpAddr, Refused), now: Instant) -> bool {
        if self.0.get(&what).is_some_and(|at| now.duration_since(*at) < SAY_EVERY) {
            return false;
        }
        if self.0.len() >= SAID_MAX {
            self.0.clear();
        }
        self.0.insert(what, now);
        true
    }
}

/// Counts a refusal, and says it when it is new.
pub(super) fn refused(said: &Mutex<Said>, peer: IpAddr, why: Refused, side: &'static str) {
    counter!("switchboard_link_refused_total", "why" => why.name()).increment(1);
    if said.lock().say((peer, why), Instant::now()) {
        tracing::warn!(%peer, why = why.name(), side, "no link with this peer");
    }
}

/// Counts dropped pushes.
pub(super) fn dropped(why: &'static str, pushes: usize) {
    if pushes > 0 {
        counter!("switchboard_drops_total", "what" => "push", "why" => why).increment(pushes as u64);
    }
}

/// A link counts as up as long as this lives.
pub(super) struct Up(Gauge);

impl Up {
    pub(super) fn new(direction: &'static str) -> Self {
        let gauge = gauge!("switchboard_links", "direction" => direction);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_refusal_is_said_once_a_minute() {
        let (mut said, now) = (Said::default(), Instant::now());
        let what = (IpAddr::V4(Ipv4Addr::LOCALHOST), Refused::Secret);
        assert!(said.say(what, now));
        assert!(!said.say(what, now + SAY_EVERY / 2));
        assert!(said.say((what.0, Refused::Cluster), now));
        assert!(said.say(what, now + SAY_EVERY));
        for number in 0..2000_u32 {
            said.say((IpAddr::V4(number.into()), Refused::Secret), now);
            assert!(said.0.len() <= SAID_MAX);
        }
    }
}
