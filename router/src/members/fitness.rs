//! Whether a process can fill its roles (pure): it may be able to renew its lease and not to reach what a role works on. Then its partitions would
//! stand still for as long as that lasts, although others could go on with them.
//!
//! A process says that it is unfit when a part has been away for [`AWAY`], with Redis's time of that moment; everybody counts it as unfit when it
//! has said so for [`SETTLED_US`]. So when a part is away for everybody, all have said it before the first counts, and nothing moves: work goes from
//! the unfit to the fit only. It is fit again when every part has been there for [`BACK`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Role;

/// A part that is away for this long makes unfit.
pub const AWAY: Duration = Duration::from_secs(4);
/// Parts that were away are there again for this long before a process is fit again.
pub const BACK: Duration = Duration::from_secs(3);
/// Who has said for this long that it is unfit counts as such: others that are, too, have said so by then.
pub const SETTLED_US: u64 = 3_000_000;

/// Since when a process cannot fill a role, by Redis's time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unfit {
    /// [`Role::Router`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<u64>,
    /// [`Role::Storage`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<u64>,
}

impl Unfit {
    /// Whether there is nothing to say.
    pub fn is_fit(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it has been so for long enough to count.
    pub(super) fn counts(&self, role: Role, now_us: u64) -> bool {
        let since = match role {
            Role::Router => self.router,
            Role::Storage => self.storage,
            Role::Gateway => None,
        };
        since.is_some_and(|since_us| now_us.saturating_sub(since_us) >= SETTLED_US)
    }
}

/// Whether the parts that one role works on are there, over time.
#[derive(Debug, Clone, Default)]
pub struct Fitness {
    /// Since when not all of them, or all of them again, are there.
    changed: Option<(bool, Instant)>,
    unfit_since_us: Option<u64>,
}

impl Fitness {
    /// Whether all parts are there now. Returns since when this process is unfit, by Redis's time (`now_us`; 0: it is not known, and nobody hears it).
    pub fn look(&mut self, there: bool, now: Instant, now_us: u64) -> Option<u64> {
        let since = match self.changed {
            Some((before, since)) if before == there => since,
            _ => {
                self.changed = Some((there, now));
                now
            }
        };
        let lasts = now.saturating_duration_since(since);
        if there && lasts >= BACK {
            self.unfit_since_us = None;
        } else if !there && lasts >= AWAY && self.unfit_since_us.is_none() && now_us > 0 {
            self.unfit_since_us = Some(now_us);
        }
        self.unfit_since_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_away_for_long_makes_unfit_until_it_is_back_for_long() {
        let (mut fitness, start) = (Fitness::default(), Instant::now());
        let mut look = |there, at_ms| fitness.look(there, start + Duration::from_millis(at_ms), 1_000_000 + at_ms);
        assert_eq!([look(true, 0), look(false, 1000), look(false, 4999)], [None; 3]);
        assert_eq!(look(true, 5000), None, "a short absence is none");
        assert_eq!(look(false, 6000), None);
        assert_eq!([look(false, 10_000), look(false, 60_000)], [Some(1_010_000); 2]);
        assert_eq!([look(true, 61_000), look(false, 62_000), look(true, 63_000)], [Some(1_010_000); 3], "it comes and goes");
        assert_eq!([look(true, 65_999), look(true, 66_000)], [Some(1_010_000), None]);
    }

    #[test]
    fn without_a_time_to_say_it_is_not_said() {
        let (mut fitness, start) = (Fitness::default(), Instant::now());
        assert_eq!(fitness.look(false, start, 0), None);
        assert_eq!(fitness.look(false, start + 2 * AWAY, 0), None);
        assert_eq!(fitness.look(false, start + 3 * AWAY, 7), Some(7));
    }

    #[test]
    fn what_is_said_counts_after_a_while_and_for_its_role_only() {
        let unfit = Unfit { router: None, storage: Some(5_000_000) };
        let counts = |role, now_us| unfit.counts(role, now_us);
        assert!(!counts(Role::Storage, 7_999_999) && counts(Role::Storage, 8_000_000));
        assert!(!counts(Role::Router, 60_000_000) && !counts(Role::Gateway, 60_000_000));
    }
}
