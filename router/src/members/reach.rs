//! What a process reaches of the parts it works on (the log, each database), as it says in its lease entry (pure).
//!
//! A process may renew its lease and not reach such a part. Its partitions that need it would stand still for as long as that lasts, although others
//! could go on with them. So each says since when each part is there or away, in Redis's time, and everybody computes owners alike:
//!
//! - whoever has said for [`SETTLED_US`] that a part is away has no share in what needs it, *if* somebody who has reached everything it needs for
//!   as long is there. When a part is away for all, all have said so before the first of them counts, and nothing moves;
//! - who comes back says so and has its share again at once; the others are not less able by that;
//! - a new process reaches nothing until it has, so one that is started again and again while it is cut off takes nothing;
//! - as long as a build takes part that says nothing of this, nobody has no share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A part that is not reached for this long is away.
pub const AWAY: Duration = Duration::from_secs(2);
/// A part that was away is there when it has been reached for this long; twice that after each relapse.
pub const BACK: Duration = Duration::from_secs(3);
/// But never longer.
pub const BACK_MAX: Duration = Duration::from_secs(60);
/// What has been so for this long counts. Longer than the time between the first and the last process to notice that a part is away for all:
/// they ask their databases every 2 s, and say what they see within 1 s.
pub const SETTLED_US: u64 = 6_000_000;

/// A part, and since when it is so by Redis's time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// It is reached.
    Here(u64),
    /// It is not.
    Away(u64),
}

/// What a process says of its parts, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reach(BTreeMap<String, Part>);

impl Reach {
    /// What has been so for long enough to count.
    pub(super) fn settled(&self, now_us: u64) -> Settled {
        let mut settled = Settled::default();
        for (name, part) in &self.0 {
            let (since_us, names) = match part {
                Part::Here(since_us) => (since_us, &mut settled.here),
                Part::Away(since_us) => (since_us, &mut settled.away),
            };
            if now_us.saturating_sub(*since_us) >= SETTLED_US {
                names.insert(name.clone());
            }
        }
        settled
    }

    /// Names of parts that are said to be away after they had been reached.
    pub fn lost(&self) -> Vec<&str> {
        let lost = |part: &Part| matches!(part, Part::Away(since_us) if *since_us > 0);
        self.0.iter().filter(|(_, part)| lost(part)).map(|(name, _)| name.as_str()).collect()
    }

    /// Names of parts that are said to be away.
    pub fn away(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, part)| matches!(part, Part::Away(_))).map(|(name, _)| name.as_str()).collect()
    }
}

/// What a member has said for long enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settled {
    here: BTreeSet<String>,
    away: BTreeSet<String>,
}

impl Settled {
    /// Everything needed has been reached for long.
    pub(super) fn proven(&self, needs: &[&str]) -> bool {
        needs.iter().all(|name| self.here.contains(*name))
    }

    /// Something needed has been away for long.
    pub(super) fn unable(&self, needs: &[&str]) -> bool {
        needs.iter().any(|name| self.away.contains(*name))
    }
}

/// Turns looks into what is said.
#[derive(Debug, Default)]
pub struct Observer(BTreeMap<String, Observed>);

#[derive(Debug)]
struct Observed {
    there: bool,
    /// Since when it is as it was at the last look.
    since: Instant,
    said: Part,
    said_at: Instant,
    /// How long it must be there before it is said.
    back: Duration,
}

impl Observer {
    /// Which parts are reached now; `now_us`: Redis's time of its last answer, 0 when it is away, and then nothing new is said.
    pub fn look(&mut self, parts: &[(String, bool)], now: Instant, now_us: u64) -> Reach {
        for (name, there) in parts {
            // reached by nobody yet, as long as one can think
            let new = || Observed { there: *there, since: now, said: Part::Away(0), said_at: now, back: Duration::ZERO };
            self.0.entry(name.clone()).or_insert_with(new).look(*there, now, now_us);
        }
        Reach(self.0.iter().map(|(name, seen)| (name.clone(), seen.said)).collect())
    }
}

impl Observed {
    fn look(&mut self, there: bool, now: Instant, now_us: u64) {
        if self.there != there {
            (self.there, self.since) = (there, now);
        }
        if now_us == 0 {
            return;
        }
        let lasts = now.saturating_duration_since(self.since);
        let was = now.saturating_duration_since(self.said_at);
        self.said = match self.said {
            Part::Here(_) if !there && lasts >= AWAY => {
                self.back = if was < BACK_MAX { (self.back * 2).clamp(BACK, BACK_MAX) } else { BACK };
                self.said_at = now;
                Part::Away(now_us)
            }
            Part::Away(_) if there && lasts >= self.back => {
                self.said_at = now;
                Part::Here(now_us)
            }
            // a clock that was set back
            Part::Here(since_us) => Part::Here(since_us.min(now_us)),
            Part::Away(since_us) => Part::Away(since_us.min(now_us)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    /// Looks at one part once a second, at Redis's time 100 s and on, and returns what is said each time.
    fn said(looks: &[bool]) -> Vec<Part> {
        let (mut observer, start) = (Observer::default(), Instant::now());
        let look = |(at, there): (u64, &bool)| {
            let reach = observer.look(&[("log".to_owned(), *there)], start + Duration::from_secs(at), (100 + at) * S);
            reach.0["log"]
        };
        (0..).zip(looks).map(look).collect()
    }

    #[test]
    fn a_new_process_reaches_nothing_until_it_has() {
        assert_eq!(said(&[false, false]), [Part::Away(0); 2]);
        assert_eq!(said(&[false, true, true]), [Part::Away(0), Part::Here(101 * S), Part::Here(101 * S)]);
    }

    #[test]
    fn a_short_absence_is_none_and_a_short_return_neither() {
        let here = Part::Here(100 * S);
        assert_eq!(said(&[true, false, false, true]), [here; 4]);
        let away = Part::Away(103 * S);
        assert_eq!(
            said(&[true, false, false, false, true, false, true, true, true]),
            [here, here, here, away, away, away, away, away, away]
        );
        assert_eq!(said(&[true, false, false, false, true, true, true, true])[7], Part::Here(107 * S));
    }

    #[test]
    fn what_comes_and_goes_must_stay_longer_each_time() {
        let round = [false, false, false, true, true, true, true];
        let all = said(&[&[true], &round[..], &round, &[true; 3]].concat());
        assert_eq!((all[7], all[10], all[14]), (Part::Here(107 * S), Part::Away(110 * S), Part::Away(110 * S)));
        assert_eq!((all[16], all[17]), (Part::Away(110 * S), Part::Here(117 * S)), "6 s the second time");
    }

    #[test]
    fn without_redis_nothing_new_is_said_and_its_clock_may_go_back() {
        let (mut observer, start) = (Observer::default(), Instant::now());
        let mut look =
            |at, there, now_us| observer.look(&[("log".to_owned(), there)], start + Duration::from_secs(at), now_us).0["log"];
        assert_eq!(look(0, true, 50 * S), Part::Here(50 * S));
        assert_eq!([look(1, false, 0), look(9, false, 0)], [Part::Here(50 * S); 2]);
        assert_eq!(look(10, false, 7 * S), Part::Away(7 * S));
        assert_eq!(look(11, false, 3 * S), Part::Away(3 * S));
    }

    #[test]
    fn what_is_said_counts_after_a_while() {
        let reach = Reach([("a".to_owned(), Part::Away(10 * S)), ("log".to_owned(), Part::Here(12 * S))].into());
        assert_eq!(reach.settled(15 * S), Settled::default());
        let settled = reach.settled(18 * S);
        assert!(settled.unable(&["log", "a"]) && !settled.unable(&["log", "b"]) && settled.proven(&["log"]));
        assert!(!settled.proven(&["log", "b"]), "nothing is said of it");
        assert_eq!((reach.away(), reach.lost()), (vec!["a"], vec!["a"]));
        let new = Reach([("a".to_owned(), Part::Away(0))].into());
        assert_eq!((new.away(), new.lost()), (vec!["a"], vec![]), "what was never reached is away and not lost");
    }
}
