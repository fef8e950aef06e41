//! The highest rate at which the service level is met: the rate grows until it is not, then the step is halved.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use loadtest::report::Report;
use loadtest::scenario::{self, Scenario};

use super::options::Options;
use super::run::{measure, pairs, write};

/// A rate is kept when this share of it is accepted in its time.
const KEPT: f64 = 0.97;

/// The options of `search`.
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The name of a built-in scenario, or a file [default: one-to-one messages in pairs, bodies of one length].
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// The load of one step; its rate is the first one tried.
    #[command(flatten)]
    options: Options,
    /// Each step is so many times the one before.
    #[arg(long, default_value_t = 1.5)]
    factor: f64,
    /// The service level, if --expect does not say another: the p99 of delivery is below this.
    #[arg(long, default_value = "100ms", value_parser = scenario::duration)]
    p99: Duration,
    /// So many times the gap between the best good and the lowest bad rate is halved.
    #[arg(long, default_value_t = 3)]
    halvings: u32,
}

impl Search {
    /// Searches. Returns whether a good rate was found and no promise was broken at any rate.
    pub(crate) async fn run(self) -> Result<bool> {
        let base = match &self.scenario {
            Some(name) => scenario::load(name)?,
            None => pairs(scenario::load("direct")?),
        };
        let mut base = self.options.over(base)?;
        if base.expect.is_empty() {
            base.expect.push(format!("delivered.p99 < {}us", self.p99.as_micros()).parse()?);
        }
        let mut rate = base.rate();
        let (mut best, mut honest) = (None::<Report>, true);
        let bad = loop {
            let report = match self.step(&base, rate).await {
                Ok(report) => report,
                // The limit for each user ends the search, it does not spoil it.
                Err(error) if best.is_some() => {
                    println!("the search ends here: {error:#}");
                    break None;
                }
                Err(error) => return Err(error),
            };
            honest &= report.is_true();
            if !is_good(&report) {
                break Some(rate);
            }
            best = Some(report);
            rate *= self.factor.max(1.01);
        };
        if let (Some(good), Some(bad)) = (best.as_ref().map(|best| best.intended_rate), bad) {
            honest &= self.refine(&base, (good, bad), &mut best).await?;
        }
        let Some(best) = best else {
            println!("no good rate: {rate:.0}/s is too much already");
            return Ok(false);
        };
        println!("the highest good rate:\n{best}");
        write(&best, &self.options)?;
        Ok(honest)
    }

    async fn refine(&self, base: &Scenario, (mut good, mut bad): (f64, f64), best: &mut Option<Report>) -> Result<bool> {
        let mut honest = true;
        for _ in 0..self.halvings {
            let rate = f64::midpoint(good, bad);
            let report = self.step(base, rate).await?;
            honest &= report.is_true();
            if is_good(&report) {
                good = rate;
                *best = Some(report);
            } else {
                bad = rate;
            }
        }
        Ok(honest)
    }

    async fn step(&self, base: &Scenario, rate: f64) -> Result<Report> {
        let mut scenario = base.clone();
        if let Some(load) = &mut scenario.load {
            (load.rate, load.think) = (Some(rate), None);
        }
        let plan = self.options.plan(scenario).await?;
        let report = measure(&plan, self.options.quiet).await?;
        println!("{rate:.0}/s is {}\n{report}\n", if is_good(&report) { "good" } else { "bad" });
        Ok(report)
    }
}

/// The service level is met, the verdict is clean, and the rate is kept.
fn is_good(report: &Report) -> bool {
    report.passes() && report.achieved_rate >= report.intended_rate * KEPT
}
