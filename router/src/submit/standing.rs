//! Whether a queue stands: pure. A queue is there to take up bursts, so one that is long for a moment is well. One that does not get empty any more
//! only makes everybody wait: then whoever comes is better told at once to come again later. (The rule is that of "controlled delay" in Maurer, Fail
//! at Scale, ACM Queue 13-8, 2015, after CoDel, RFC 8289; in place of the drop comes a refusal, and what was taken stays, in its order.)

use std::time::{Duration, Instant};

/// What is known of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The longest wait in a queue that stands.
    wait: Duration,
    /// A queue stands when it has not been empty for so long.
    burst: Duration,
    /// When it was empty the last time.
    empty_at: Option<Instant>,
    /// When somebody was refused the last time: refusing is what makes a queue empty, and that is no sign that it stands no more.
    refused_at: Option<Instant>,
}

impl Standing {
    /// A queue that may be without an empty moment for `burst`; then one is taken only while the oldest has waited for `wait` at the
    /// most: so it waits for that, times how much more comes than is served.
    pub const fn new(wait: Duration, burst: Duration) -> Self {
        Self { wait, burst, empty_at: None, refused_at: None }
    }

    /// One is about to be put into the queue, whose oldest has waited for so long; none: it is empty. Whether that one is better refused.
    pub fn refuses(&mut self, oldest: Option<Duration>, now: Instant) -> bool {
        let Some(oldest) = oldest else {
            self.empty_at = Some(now);
            return false;
        };
        let within_burst = |at: Instant| now.saturating_duration_since(at) <= self.burst;
        let stands = self.refused_at.is_some_and(within_burst) || !self.empty_at.is_some_and(within_burst);
        let refuses = oldest > self.wait && stands;
        if refuses {
            self.refused_at = Some(now);
        }
        refuses
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const WAIT: Duration = Duration::from_millis(100);
    const BURST: Duration = Duration::from_millis(500);

    /// A queue that is served at so many a second and offered so many, in steps of a millisecond. The longest wait of the last second, and what was
    /// refused in it.
    fn run(seconds: u64, served: u64, offered: impl Fn(u64) -> u64) -> (Duration, u64) {
        let began = Instant::now();
        let (mut queue, mut standing) = (VecDeque::new(), Standing::new(WAIT, BURST));
        let (mut longest, mut refused) = (Duration::ZERO, 0);
        for ms in 0..seconds * 1000 {
            let now = began + Duration::from_millis(ms);
            let last = ms >= (seconds - 1) * 1000;
            for _ in 0..offered(ms) {
                if standing.refuses(queue.front().map(|since| now - *since), now) {
                    refused += u64::from(last);
                } else {
                    queue.push_back(now);
                }
            }
            for _ in 0..served / 1000 {
                let Some(since) = queue.pop_front() else { break };
                longest = longest.max(if last { now - since } else { Duration::ZERO });
            }
        }
        (longest, refused)
    }

    #[test]
    fn three_times_what_is_served_waits_little_and_the_rest_is_refused() {
        let (longest, refused) = run(10, 10_000, |_| 30);
        assert!(longest < Duration::from_millis(350), "{longest:?}");
        assert!((19_000..=21_000).contains(&refused), "{refused}");
    }

    #[test]
    fn what_comes_in_bursts_is_taken() {
        let (longest, refused) = run(10, 10_000, |ms| if ms % 1000 == 0 { 4000 } else { 0 });
        assert_eq!(refused, 0);
        assert!(longest > Duration::from_millis(300), "{longest:?}");
    }

    #[test]
    fn nothing_is_refused_any_more_as_soon_as_less_comes() {
        let (longest, refused) = run(12, 10_000, |ms| if ms < 10_000 { 30 } else { 9 });
        assert_eq!((longest, refused), (Duration::ZERO, 0));
    }

    #[test]
    fn a_standstill_after_a_long_rest_is_no_queue_yet() {
        let (mut standing, now) = (Standing::new(WAIT, BURST), Instant::now());
        assert!(!standing.refuses(None, now));
        let later = now + Duration::from_secs(3600);
        assert!(!standing.refuses(None, later));
        assert!(!standing.refuses(Some(Duration::from_millis(400)), later + Duration::from_millis(400)));
        assert!(standing.refuses(Some(Duration::from_millis(600)), later + Duration::from_millis(600)));
    }
}
