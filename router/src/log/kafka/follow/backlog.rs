//! Whether more comes into a partition than its reader works in: pure. Then the reader's process says so, and gateways refuse what would only wait.
//! A backlog alone is no reason: it is what the log is for, while a database is away and after it has come back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A reader that has had everything within this long has no backlog, only something to do.
const CURRENT_WITHIN: Duration = Duration::from_secs(3);
/// One that has taken nothing for so long stands still: that is another matter, and it may be for long.
const STANDS_AFTER: Duration = Duration::from_secs(2);
/// Over so long it is judged whether a backlog grows.
const GROWS_OVER: Duration = Duration::from_secs(3);

/// What a look sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Records that wait, as far as is known.
    pub(super) lag: u64,
    /// When the reader had everything, the last time.
    pub(super) current_at: Instant,
    /// When it took something, the last time.
    pub(super) read_at: Option<Instant>,
}

/// The backlog of one partition.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Within [`GROWS_OVER`], and one before.
    looks: VecDeque<(Instant, u64)>,
    /// It was found to grow at this size.
    grew_at: Option<u64>,
}

impl Backlog {
    /// Whether it is too much: from when it grows until it is gone, or half of what it was.
    pub(super) fn look(&mut self, Look { lag, current_at, read_at }: Look, now: Instant) -> bool {
        let within = |at: Instant, span| now.saturating_duration_since(at) <= span;
        if lag == 0 || within(current_at, CURRENT_WITHIN) || !read_at.is_some_and(|at| within(at, STANDS_AFTER)) {
            *self = Self::default();
            return false;
        }
        self.looks.push_back((now, lag));
        while self.looks.get(1).is_some_and(|(at, _)| !within(*at, GROWS_OVER)) {
            self.looks.pop_front();
        }
        match self.grew_at {
            Some(grew_at) if lag <= grew_at / 2 => *self = Self::default(),
            Some(_) => {}
            None => {
                let before = self.looks.front().filter(|(at, _)| !within(*at, GROWS_OVER));
                self.grew_at = before.and_then(|(_, before)| (lag >= *before).then_some(lag));
            }
        }
        self.grew_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks twice a second at a reader that was current 4 s before the first.
    fn looks(lags: impl IntoIterator<Item = u64>, reads: bool) -> Vec<bool> {
        let began = Instant::now();
        let (mut backlog, mut now) = (Backlog::default(), began + Duration::from_secs(4));
        lags.into_iter()
            .map(|lag| {
                now += Duration::from_millis(500);
                backlog.look(Look { lag, current_at: began, read_at: reads.then_some(now) }, now)
            })
            .collect()
    }

    #[test]
    fn one_that_grows_is_too_much_until_it_is_halved() {
        let too_much = looks((1..20).map(|n| n * 100).chain([1800, 1200, 800, 400, 300, 200, 100]), true);
        let first = too_much.iter().position(|too_much| *too_much).unwrap();
        assert!((6..=8).contains(&first), "{first}");
        assert!(too_much[first..22].iter().all(|too_much| *too_much), "{too_much:?}");
        assert!(!too_much[25], "{too_much:?}");
    }

    #[test]
    fn one_that_shrinks_or_stands_still_is_what_the_log_is_for() {
        assert!(!looks((1..60).rev().map(|n| n * 1000), true).contains(&true), "a database is back");
        assert!(!looks((1..60).map(|n| n * 1000), false).contains(&true), "a database is away");
    }

    #[test]
    fn whoever_had_everything_lately_is_only_busy() {
        let (mut backlog, began) = (Backlog::default(), Instant::now());
        for half in 1..60 {
            let now = began + Duration::from_millis(500) * half;
            let current_at = began + Duration::from_secs(2) * (half / 4);
            assert!(!backlog.look(Look { lag: u64::from(half) * 100, current_at, read_at: Some(now) }, now));
        }
    }
}
