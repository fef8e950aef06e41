//! The open loop: every send has its time, whatever became of the others.
//!
//! Latency counts from that time, so a server that stalls is charged for every send it held up.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::scenario::{Arrivals, Scenario};

/// When sends are due: at a rate that may rise over the warm-up.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    from: f64,
    rate: f64,
    ramp: f64,
    length: f64,
    surge: Option<Step>,
}

/// Another rate for a while, in seconds and sends a second.
#[derive(Debug, Clone, Copy)]
struct Step {
    at: f64,
    lasts: f64,
    rate: f64,
}

impl Schedule {
    /// `rate` sends a second for `length`.
    #[must_use]
    pub fn steady(rate: f64, length: Duration) -> Self {
        Self { from: rate, rate, ramp: 0.0, length: length.as_secs_f64(), surge: None }
    }

    /// The schedule of a scenario: warm-up and measured time.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let (rate, warmup) = (scenario.rate(), scenario.warmup.0);
        let from = scenario.load.as_ref().and_then(|load| load.ramp_from);
        let ramp = if from.is_some() { warmup.as_secs_f64() } else { 0.0 };
        let surge = scenario.surge.as_ref().map(|surge| Step {
            at: (warmup + surge.after.0).as_secs_f64(),
            lasts: surge.lasts.0.as_secs_f64(),
            rate: rate * surge.factor,
        });
        Self { from: from.unwrap_or(rate), rate, ramp, length: (warmup + scenario.duration.0).as_secs_f64(), surge }
    }

    /// When the `n`-th send is due, in seconds; `n` may lie between two sends.
    #[must_use]
    pub fn due(&self, n: f64) -> f64 {
        let ramped = (self.from + self.rate) / 2.0 * self.ramp;
        if n >= ramped {
            return self.ramp + self.due_at_rate(n - ramped);
        }
        let growth = (self.rate - self.from) / self.ramp;
        if growth == 0.0 { n / self.from } else { ((self.from * self.from + 2.0 * growth * n).sqrt() - self.from) / growth }
    }

    /// The same behind the ramp, counted from its end.
    fn due_at_rate(&self, n: f64) -> f64 {
        let Some(surge) = self.surge else { return n / self.rate };
        let before = (surge.at - self.ramp) * self.rate;
        let during = surge.lasts * surge.rate;
        if n <= before {
            n / self.rate
        } else if n <= before + during {
            surge.at - self.ramp + (n - before) / surge.rate
        } else {
            surge.at - self.ramp + surge.lasts + (n - before - during) / self.rate
        }
    }

    /// The times of all sends, in seconds and in order. With `phase`, a part of the distance of two sends, those of
    /// several crews lie between each other and are together as many as one crew's.
    pub fn times<'a>(&'a self, arrivals: Arrivals, phase: f64, rng: &'a mut impl Rng) -> impl Iterator<Item = f64> + 'a {
        let mut at = phase;
        std::iter::from_fn(move || {
            let due = self.due(at);
            at += match arrivals {
                Arrivals::Even => 1.0,
                Arrivals::Poisson => -(1.0 - rng.random::<f64>()).ln(),
            };
            // One that falls on the end, but for rounding, is not in it.
            (due + 1e-9 < self.length).then_some(due)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn even_sends_are_due_at_equal_distances() {
        let times: Vec<_> =
            Schedule::steady(100.0, Duration::from_secs(1)).times(Arrivals::Even, 0.0, &mut StdRng::seed_from_u64(1)).collect();
        assert_eq!(times.len(), 100);
        assert!((times[50] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn crews_send_together_what_one_would() {
        let times = |rate, phase| {
            let schedule = Schedule::steady(rate, Duration::from_millis(2300));
            schedule.times(Arrivals::Even, phase, &mut StdRng::seed_from_u64(1)).collect::<Vec<_>>()
        };
        let mut parts: Vec<f64> = (0..3).flat_map(|crew| times(100.0 / 3.0, f64::from(crew) / 3.0)).collect();
        parts.sort_by(f64::total_cmp);
        let whole = times(100.0, 0.0);
        assert_eq!((parts.len(), whole.len()), (230, 230));
        assert!(parts.iter().zip(&whole).all(|(part, whole)| (part - whole).abs() < 1e-9));
    }

    #[test]
    fn a_ramp_rises_to_the_rate() {
        let schedule = Schedule { from: 0.0, rate: 100.0, ramp: 2.0, length: 3.0, surge: None };
        let times: Vec<_> = schedule.times(Arrivals::Even, 0.0, &mut StdRng::seed_from_u64(1)).collect();
        assert_eq!(times.len(), 200, "100 in the ramp, 100 after it");
        let first = times.iter().filter(|at| **at < 1.0).count();
        assert!((24..=26).contains(&first), "a quarter of the ramp in its first half: {first}");
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_surge_is_a_multiple_for_its_time() {
        let surge = Some(Step { at: 3.0, lasts: 2.0, rate: 300.0 });
        let schedule = Schedule { from: 0.0, rate: 100.0, ramp: 2.0, length: 7.0, surge };
        let times: Vec<_> = schedule.times(Arrivals::Even, 0.0, &mut StdRng::seed_from_u64(1)).collect();
        let within = |from: f64, to: f64| times.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!(times.len(), 100 + 100 + 600 + 200);
        assert_eq!((within(0.0, 2.0), within(2.0, 3.0), within(3.0, 5.0), within(5.0, 7.0)), (100, 100, 600, 200));
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn random_arrivals_keep_the_rate() {
        let schedule = Schedule::steady(1000.0, Duration::from_secs(20));
        let count = schedule.times(Arrivals::Poisson, 0.0, &mut StdRng::seed_from_u64(7)).count();
        assert!((19_000..21_000).contains(&count), "{count}");
    }
}
