//! Sessions that have ended while tokens of theirs have not expired: asked for every token, so it is in memory and never waits. Bounded by the
//! seven days a token is good, and by a number; over that the session whose tokens expire first is forgotten, counted, and an error in the log.

use std::collections::{BTreeSet, HashMap};

use parking_lot::RwLock;

use crate::metrics;
use crate::session::{Ended, Sid};

/// Most sessions kept.
pub const SESSIONS_MAX: usize = 1_000_000;
/// Kept for so long after the last token has expired: leeway of clocks, and the grace of live sockets. Milliseconds.
const AFTER_MS: u64 = 120_000;

#[derive(Debug, Default)]
struct Inside {
    until: HashMap<Sid, u64>,
    by_end: BTreeSet<(u64, Sid)>,
}

/// The set.
#[derive(Debug)]
pub struct Revoked {
    inside: RwLock<Inside>,
    sessions_max: usize,
}

impl Default for Revoked {
    fn default() -> Self {
        Self::bounded(SESSIONS_MAX)
    }
}

impl Revoked {
    fn bounded(sessions_max: usize) -> Self {
        Self { inside: RwLock::default(), sessions_max }
    }

    /// Whether tokens of this session are refused.
    pub fn contains(&self, sid: Sid) -> bool {
        self.inside.read().until.contains_key(&sid)
    }

    /// Refuses the tokens of a session from now on. False: it was refused before.
    pub fn add(&self, ended: &Ended) -> bool {
        let until = ended.access_until_ms + AFTER_MS;
        let mut inside = self.inside.write();
        let before = inside.until.insert(ended.sid, until);
        if let Some(before) = before {
            inside.by_end.remove(&(before, ended.sid));
        }
        inside.by_end.insert((until, ended.sid));
        let forgotten = if inside.until.len() > self.sessions_max { inside.by_end.pop_first() } else { None };
        if let Some((_, sid)) = forgotten {
            inside.until.remove(&sid);
            metrics::forgotten();
            tracing::error!(max = self.sessions_max, "too many ended sessions: the one whose tokens expire first is forgotten");
        }
        metrics::revoked(inside.until.len());
        before.is_none()
    }

    /// Forgets sessions all of whose tokens have expired.
    pub fn tidy(&self, now_ms: u64) {
        let mut inside = self.inside.write();
        while let Some((until, sid)) = inside.by_end.first().copied()
            && until <= now_ms
        {
            inside.by_end.pop_first();
            inside.until.remove(&sid);
        }
        metrics::revoked(inside.until.len());
    }
}

#[cfg(test)]
mod tests {
    use protocol::UserId;

    use super::*;

    fn ended(access_until_ms: u64) -> Ended {
        Ended { sid: Sid::random(), user: UserId::new(1).unwrap(), access_until_ms }
    }

    #[test]
    fn refused_until_the_last_token_has_expired() {
        let revoked = Revoked::default();
        let one = ended(1000);
        assert!(!revoked.contains(one.sid));
        assert!(revoked.add(&one));
        assert!(!revoked.add(&Ended { access_until_ms: 2000, ..one }), "known");
        revoked.tidy(1000 + AFTER_MS);
        assert!(revoked.contains(one.sid), "the later end counts");
        revoked.tidy(2000 + AFTER_MS);
        assert!(!revoked.contains(one.sid));
        assert!(revoked.inside.read().by_end.is_empty());
    }

    #[test]
    fn bounded() {
        let revoked = Revoked::bounded(2);
        let [soon, late, later] = [ended(1), ended(3), ended(2)];
        for one in [&soon, &late, &later] {
            revoked.add(one);
        }
        assert_eq!([&soon, &late, &later].map(|one| revoked.contains(one.sid)), [false, true, true]);
    }
}
