//! The highest rate at which delivery stays fast: the rate grows until it does not, then the step is halved.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::direct::{self, Outcome};

/// A rate is kept when this share of it is accepted in its time.
const KEPT: f64 = 0.97;

/// The options of `search`.
#[derive(Debug, Clone, Args)]
#[group(skip)] // options are flattened into each other
pub struct Options {
    /// The load of one step; its rate is the first one tried.
    #[command(flatten)]
    load: direct::Options,
    /// Each step is so many times the one before.
    #[arg(long, default_value_t = 1.5)]
    factor: f64,
    /// Delivery is fast while its p99 is below this.
    #[arg(long, default_value = "100ms", value_parser = super::duration)]
    p99: Duration,
    /// So many times the gap between the best good and the lowest bad rate is halved.
    #[arg(long, default_value_t = 3)]
    halvings: u32,
}

/// Runs the scenario. Returns whether a good rate was found and no verdict was wrong.
///
/// # Errors
/// When a step cannot be set up.
pub async fn run(options: Options) -> Result<bool> {
    let mut best: Option<Outcome> = None;
    let mut rate = options.load.rate;
    let bad = loop {
        let outcome = match step(&options, rate).await {
            Ok(outcome) => outcome,
            // The limit for each user ends the search, it does not spoil it.
            Err(error) if best.is_some() => {
                println!("the search ends here: {error:#}");
                break None;
            }
            Err(error) => return Err(error),
        };
        if !is_good(&options, &outcome) {
            break Some(outcome);
        }
        rate = outcome.rate * options.factor.max(1.01);
        best = Some(outcome);
    };
    let clean = bad.as_ref().is_none_or(is_true);
    let refined = match (&best, &bad) {
        (Some(good), Some(bad)) => refine(&options, good.rate, bad.rate).await?,
        _ => None,
    };
    let Some(best) = refined.or(best) else {
        println!("no good rate: {rate:.0}/s is too much already");
        return Ok(false);
    };
    println!("the highest good rate:\n{best}");
    Ok(clean)
}

async fn refine(options: &Options, mut good: f64, mut bad: f64) -> Result<Option<Outcome>> {
    let mut best = None;
    for _ in 0..options.halvings {
        let rate = f64::midpoint(good, bad);
        let outcome = step(options, rate).await?;
        if is_good(options, &outcome) {
            good = rate;
            best = Some(outcome);
        } else {
            bad = rate;
        }
    }
    Ok(best)
}

async fn step(options: &Options, rate: f64) -> Result<Outcome> {
    let load = direct::Options { rate, ..options.load.clone() };
    let outcome = direct::measure(&load).await?;
    let verdict = if is_good(options, &outcome) { "good" } else { "bad" };
    println!("{rate:.0}/s is {verdict}\n{outcome}\n");
    Ok(outcome)
}

fn is_good(options: &Options, outcome: &Outcome) -> bool {
    let fast = outcome.delivered.quantile(0.99) < options.p99;
    fast && outcome.achieved >= outcome.rate * KEPT && outcome.tally.is_clean()
}

/// Too slow may be, wrong may not: an overloaded server answers late, but what it accepted arrives once and in order.
fn is_true(outcome: &Outcome) -> bool {
    let tally = &outcome.tally;
    tally.lost + tally.duplicates + tally.inversions + tally.holes + tally.phantoms == 0
}
