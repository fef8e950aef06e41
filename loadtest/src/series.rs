//! Latencies as histograms that merge without loss, whoever counted them.
//!
//! Every histogram has the same bounds, so a bucket here is a bucket everywhere: adding up buckets is exact, and a
//! quantile of the sum is what one histogram of all of it would say. Averages of quantiles are never taken.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies up to this are told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3600);
/// Significant digits: an error of at most a thousandth.
const DIGITS: u8 = 3;

/// What a latency is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// From the intended time of a send to `accepted`.
    Accepted,
    /// From the intended time to the event at a device of the receiver that was there.
    Delivered,
    /// From the intended time to the event at another device of the sender.
    Synced,
    /// As `Delivered`, at a device that was away or did not read, on purpose, when it was sent.
    Backlog,
    /// From the intended time of a connection to live, the first time of a device.
    Connect,
    /// From setting out again, or from the break, to live.
    Resume,
    /// From saying that something is read to the receipt at its sender.
    Read,
    /// From the first writing since it was refused, if it was, to `accepted`: what an overloaded server makes those wait whom it takes. Counted where senders give up.
    Attempt,
    /// As `Accepted`, of what was due after a surge; or until it was given up.
    Recovered,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Delivered,
        Self::Synced,
        Self::Backlog,
        Self::Connect,
        Self::Resume,
        Self::Read,
        Self::Attempt,
        Self::Recovered,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Synced => "synced",
            Self::Backlog => "backlog",
            Self::Connect => "connect",
            Self::Resume => "resume",
            Self::Read => "read",
            Self::Attempt => "attempt",
            Self::Recovered => "recovered",
        }
    }
}

/// Latencies of one kind.
#[derive(Debug, Clone)]
pub struct Series {
    histogram: Histogram<u64>,
}

/// A series on its way: microseconds and how often, ascending.
pub type Buckets = Vec<(u64, u64)>;

impl Default for Series {
    fn default() -> Self {
        // It grows to the longest it has seen: a quiet series costs little. All grow over the same buckets.
        let mut histogram = Histogram::new_with_bounds(1, 2, DIGITS).expect("the bounds are constants in range");
        histogram.auto(true);
        Self { histogram }
    }
}

impl Series {
    /// Counts one latency.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.min(LONGEST).as_micros()).unwrap_or(u64::MAX);
        self.record(micros.max(1), 1);
    }

    fn record(&mut self, micros: u64, count: u64) {
        self.histogram.record_n(micros, count).expect("it grows, and an hour of microseconds is far below its end");
    }

    /// Takes everything out, for sending it on.
    pub fn take(&mut self) -> Buckets {
        let buckets = self.buckets();
        self.histogram.reset();
        buckets
    }

    /// Everything in it.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, buckets: &[(u64, u64)]) {
        for (micros, count) in buckets {
            self.record(*micros, *count);
        }
    }

    /// The latency below which this share of them lies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_quantile(share))
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.histogram.mean() / 1e6).unwrap_or_default()
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut series = Series::default();
        (1..=1000).for_each(|n| series.add(Duration::from_millis(n)));
        let p99 = series.quantile(0.99).as_millis();
        assert!((989..=991).contains(&p99), "{p99}");
        assert_eq!(series.count(), 1000);
        assert!(series.quantile(1.0) >= Duration::from_secs(1));
    }

    #[test]
    fn merging_is_exact() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut whole = Series::default();
        let mut parts = [Series::default(), Series::default(), Series::default()];
        let mut merged = Series::default();
        for n in 0..30_000_usize {
            // from microseconds to a minute, as latencies are
            let latency = Duration::from_secs_f64(10f64.powf(rng.random_range(-6.0..1.8)));
            whole.add(latency);
            parts[n % 3].add(latency);
            if n % 1000 == 0 {
                merged.merge(&parts[n / 1000 % 3].take());
            }
        }
        parts.iter_mut().for_each(|part| merged.merge(&part.take()));
        assert_eq!(merged.buckets(), whole.buckets());
        assert_eq!((merged.count(), merged.quantile(0.999)), (30_000, whole.quantile(0.999)));
        assert_eq!(parts[0].count(), 0, "what was taken is gone here");
    }
}
