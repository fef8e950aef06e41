//! Whether more comes into a partition than its reader works in: pure. Then the reader's process says so, and gateways refuse what would only wait.
//! A backlog alone is no reason: it is what the log is for, while a database is away and after it has come back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A reader that has had everything within this long has no backlog, only something to do.
const CURRENT_WITHIN: Duration = Duration::from_secs(3);
/// One that has taken nothing for so long stands still: that is another matter, and it may be for long.
const STANDS_AFTER: Duration = Duration::from_secs(10);
/// Over so long it is judged whether a backlog grows.
const GROWS_OVER: Duration = Duration::from_secs(3);
/// Two that were heard within this are one.
const HEARD_EVERY: Duration = Duration::from_millis(250);

/// What a look sees of the reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// It has everything that the log is known to have.
    pub(super) current: bool,
    /// When it had everything, the last time.
    pub(super) current_at: Instant,
    /// When it took something, the last time.
    pub(super) read_at: Option<Instant>,
}

/// The backlog of one partition. How long it is, only a fetch says: while the buffer is full there is none, and what was heard last holds.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Within [`GROWS_OVER`] of the last, and one before.
    heard: VecDeque<(Instant, u64)>,
    /// It was found to grow at this length.
    grew_at: Option<u64>,
}

impl Backlog {
    /// A fetch said where the log ends: so many records wait.
    pub(super) fn heard(&mut self, lag: u64, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.heard.back().is_some_and(|(at, _)| since(*at) < HEARD_EVERY) {
            return;
        }
        self.heard.push_back((now, lag));
        while self.heard.get(1).is_some_and(|(at, _)| since(*at) > GROWS_OVER) {
            self.heard.pop_front();
        }
        self.grew_at = match (self.grew_at, self.heard.front()) {
            (Some(grew_at), _) => Some(grew_at).filter(|grew_at| lag > grew_at / 2),
            (None, Some((at, before))) if since(*at) > GROWS_OVER && lag >= *before => Some(lag),
            (None, _) => None,
        };
    }

    /// Whether it is too much: from when it grows until it is gone, or half of what it was.
    pub(super) fn look(&mut self, Look { current, current_at, read_at }: Look, now: Instant) -> bool {
        let within = |at: Instant, span| now.saturating_duration_since(at) <= span;
        if current || !read_at.is_some_and(|at| within(at, STANDS_AFTER)) {
            *self = Self::default();
        } else if within(current_at, CURRENT_WITHIN) {
            self.grew_at = None;
        }
        self.grew_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches and looks twice a second at a reader that was current 4 s before the first; none: the buffer is full, and nothing is fetched.
    fn looks(lags: impl IntoIterator<Item = Option<u64>>, reads: bool) -> Vec<bool> {
        let began = Instant::now();
        let (mut backlog, mut now) = (Backlog::default(), began + Duration::from_secs(4));
        let look = |lag: Option<u64>| {
            now += Duration::from_millis(500);
            if let Some(lag) = lag {
                backlog.heard(lag, now);
            }
            backlog.look(Look { current: false, current_at: began, read_at: reads.then_some(now) }, now)
        };
        lags.into_iter().map(look).collect()
    }

    #[test]
    fn one_that_grows_is_too_much_until_it_is_halved() {
        let too_much = looks((1..20).map(|n| n * 100).chain([1800, 1200, 800, 400, 300, 200, 100]).map(Some), true);
        let first = too_much.iter().position(|too_much| *too_much).unwrap();
        assert!((6..=8).contains(&first), "{first}");
        assert!(too_much[first..22].iter().all(|too_much| *too_much), "{too_much:?}");
        assert!(!too_much[25], "{too_much:?}");
    }

    #[test]
    fn one_that_shrinks_or_stands_still_is_what_the_log_is_for() {
        assert!(!looks((1..60).rev().map(|n| Some(n * 1000)), true).contains(&true), "a database is back");
        assert!(!looks((1..60).map(|n| Some(n * 1000)), false).contains(&true), "a database is away");
    }

    #[test]
    fn what_is_not_heard_while_the_buffer_is_full_is_no_growth_and_no_relief() {
        let rounds = |from: u64| (0..8).flat_map(move |round| [Some(from - round * 1000)].into_iter().chain([None; 9]));
        assert!(!looks(rounds(20_000), true).contains(&true), "a long backlog that shrinks, heard of every 5 s");
        let growing = (1..10).flat_map(|round| [Some(round * 1000)].into_iter().chain([None; 9]));
        let too_much = looks(growing, true);
        assert!(too_much[11..].iter().all(|too_much| *too_much), "{too_much:?}");
    }

    #[test]
    fn whoever_had_everything_lately_is_only_busy() {
        let (mut backlog, began) = (Backlog::default(), Instant::now());
        for half in 1..60 {
            let now = began + Duration::from_millis(500) * half;
            let current_at = began + Duration::from_secs(2) * (half / 4);
            backlog.heard(u64::from(half) * 100, now);
            assert!(!backlog.look(Look { current: false, current_at, read_at: Some(now) }, now));
        }
    }
}
