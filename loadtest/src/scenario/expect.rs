//! What must hold at the end of a run: `delivered.p99 < 100ms`, `rate >= 950`, `client.slope < 1MiB`.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{bytes, duration};

/// The series that have latencies.
pub const SERIES: [&str; 9] = ["accepted", "delivered", "synced", "backlog", "connect", "resume", "read", "attempt", "recovered"];
/// What is known of a latency series.
pub const STATISTICS: [&str; 8] = ["p50", "p90", "p95", "p99", "p99.9", "max", "mean", "count"];
/// The other figures.
pub const FIGURES: [&str; 9] =
    ["rate", "put_back", "given_up", "surge.share", "broken", "late", "server.slope", "client.slope", "server.cpu_per_million"];

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The figure, such as `delivered.p99`.
    pub figure: String,
    compare: Compare,
    /// In seconds, bytes, or plain, as the figure is.
    bound: f64,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Expectation {
    /// Whether it holds for this value of its figure.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        match self.compare {
            Compare::Less => value < self.bound,
            Compare::AtMost => value <= self.bound,
            Compare::More => value > self.bound,
            Compare::AtLeast => value >= self.bound,
        }
    }
}

impl std::str::FromStr for Expectation {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let shape = "an expectation is FIGURE < VALUE, such as delivered.p99 < 100ms";
        let at = text.find(['<', '>']).context(shape)?;
        let (figure, rest) = text.split_at(at);
        let (compare, bound) = match (rest.strip_prefix("<="), rest.strip_prefix(">=")) {
            (Some(bound), _) => (Compare::AtMost, bound),
            (_, Some(bound)) => (Compare::AtLeast, bound),
            _ if rest.starts_with('<') => (Compare::Less, rest.trim_start_matches('<')),
            _ => (Compare::More, rest.trim_start_matches('>')),
        };
        let (figure, bound) = (figure.trim(), bound.trim());
        ensure!(!bound.is_empty(), shape);
        let bound = match figure.split_once('.') {
            Some((series, "count")) if SERIES.contains(&series) => bound.parse()?,
            Some((series, statistic)) if SERIES.contains(&series) => {
                ensure!(STATISTICS.contains(&statistic), "{series} has {}, not {statistic:?}", STATISTICS.join(", "));
                duration(bound)?.as_secs_f64()
            }
            Some((_, "slope")) if FIGURES.contains(&figure) => bytes(bound)?,
            _ if FIGURES.contains(&figure) => bound.parse().with_context(|| format!("{bound:?} is no number"))?,
            _ => bail!(
                "there is no figure {figure:?}: {}, or one of {} with .p99 and the like",
                FIGURES.join(", "),
                SERIES.join(", ")
            ),
        };
        Ok(Self { figure: figure.to_owned(), compare, bound, text: text.trim().to_owned() })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Serialize for Expectation {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expectation {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map_err(|why: anyhow::Error| serde::de::Error::custom(format!("{why:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_judged() {
        let p99: Expectation = "delivered.p99 < 100ms".parse().unwrap();
        assert!(p99.holds(0.099) && !p99.holds(0.1));
        let rate: Expectation = "rate>=950".parse().unwrap();
        assert!(rate.holds(950.0) && !rate.holds(949.0));
        let slope: Expectation = "client.slope <= 1KiB".parse().unwrap();
        assert!(slope.holds(1024.0) && !slope.holds(1025.0));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for text in ["delivered.p98 < 1s", "speed > 3", "delivered.p99 < 100", "delivered.p99", "rate > fast", "rate >"] {
            assert!(text.parse::<Expectation>().is_err(), "{text}");
        }
    }
}
