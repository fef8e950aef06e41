//! The open loop: the n-th send is due at start + n/rate, whatever became of the others.
//!
//! Latency counts from that time, so a server that stalls is charged for every send it held up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Latencies up to this are told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(120);

/// When sends are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    rate: f64,
    count: u64,
}

impl Schedule {
    /// `rate` sends a second for `duration`, from `start`.
    pub(super) fn new(start: Instant, rate: f64, duration: Duration) -> Self {
        Self { start, rate, count: (rate * duration.as_secs_f64()) as u64 }
    }

    /// How many sends there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// When the `n`-th send is due, counted from 0.
    pub(super) fn due(&self, n: u64) -> Instant {
        self.start + Duration::from_secs_f64(n as f64 / self.rate)
    }

    /// Calls `send` with each number when it is due, in order; late ones at once.
    pub(super) async fn run(&self, mut send: impl FnMut(u64)) {
        for n in 0..self.count {
            let due = self.due(n);
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            send(n);
        }
    }
}

/// Latencies, from many tasks.
#[derive(Debug)]
pub(super) struct Latencies {
    histogram: Mutex<Histogram<u64>>,
}

impl Default for Latencies {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let histogram = Histogram::new_with_bounds(1, longest, 3).expect("the bounds are constants in range");
        Self { histogram: Mutex::new(histogram) }
    }
}

impl Latencies {
    /// Counts the time since `intended`.
    pub(super) fn since(&self, intended: Instant) {
        self.add(intended.elapsed());
    }

    /// Counts one latency.
    pub(super) fn add(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.lock().saturating_record(micros);
    }

    /// The latency below which this share of them lies.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.lock().value_at_quantile(share))
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        // A histogram is only added to: nothing in it can be half done.
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn late_sends_are_still_due_at_their_own_time() {
        let start = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let schedule = Schedule::new(start, 100.0, Duration::from_secs(1));
        let mut numbers = Vec::new();
        schedule.run(|n| numbers.push(n)).await;
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert_eq!(schedule.due(50), start + Duration::from_millis(500));
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let latencies = Latencies::default();
        (1..=1000).for_each(|n| latencies.add(Duration::from_millis(n)));
        let p99 = latencies.quantile(0.99).as_millis();
        assert!((985..=995).contains(&p99), "{p99}");
        assert_eq!(latencies.count(), 1000);
    }
}
