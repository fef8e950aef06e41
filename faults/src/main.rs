//! Faults under load, on a real cluster: Kafka, Redis, Postgres, and our own processes, each killed, frozen, cut off or moved while clients write.
//! After it everything that was accepted must be in every mailbox once, in one order.
//!
//! The path: [`stand`] (brings the cluster up, does things to it) → [`load`] (clients that write whatever happens, and the judges of the load harness) →
//! [`seen`] (what that came to) ← [`rows`] (the fault matrix, with [`proxy`] between parts) and [`soak`] (what a seed chooses, for as long as one likes) →
//! [`ledger`] (a line in `docs/reliability.md`).
//!
//! Invariants: a row whose fault did not bite is a failed row; the judges read only what clients saw; a failed row leaves a healed cluster to the next.
//!
//! Deliberately absent: faults of the machine (power, kernel), for which this is no place; two faults at once.

mod stand;

mod load;

mod seen;

mod proxy;

mod rows;

mod soak;

mod ledger;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use tokio::time::Instant;

use ledger::{Ledger, Sum};
use rows::{Outcome, ROWS, Row, When};
use stand::{Layout, Stand};

/// Faults under load on a real cluster of this machine, and what came of them. Needs the engines: `scripts/setup kafka redis postgres`.
#[derive(Debug, Parser)]
#[command(name = "faults", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What rows there are.
    List,
    /// The fault matrix, row after row.
    Rows {
        /// Only these, such as F1 or F10; named rows run whatever they need.
        names: Vec<String>,
        /// Those that take minutes too.
        #[arg(long)]
        long: bool,
        /// The whole so many times.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Slices of load with a fault every now and then, chosen by a seed.
    Soak {
        #[arg(long, default_value_t = 6)]
        slices: u32,
        /// Length of a slice.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// The least time from one fault to the next, seconds; the longest is twice that.
        #[arg(long, default_value_t = 20.0)]
        every: f64,
        /// Two things happen at once, to different kinds of processes.
        #[arg(long)]
        pairs: bool,
        /// Sends a second.
        #[arg(long, default_value_t = 300)]
        rate: u32,
        /// Of what happens; another one each time by default.
        #[arg(long)]
        seed: Option<u64>,
    },
}

#[derive(Debug, Args)]
struct Cluster {
    /// The binary under test, built with `--features server/testing`; by default beside this one.
    #[arg(long, global = true)]
    bin: Option<PathBuf>,
    /// Kafka brokers: 1 or 3.
    #[arg(long, global = true, default_value_t = 1)]
    brokers: u8,
    /// Redis with a replica and three sentinels.
    #[arg(long, global = true)]
    sentinels: bool,
    /// Where the cluster's data, settings and logs are.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// First of its ports.
    #[arg(long, global = true, default_value_t = 27_000)]
    ports: u16,
    /// Leave the cluster standing when something was wrong.
    #[arg(long, global = true)]
    keep: bool,
    /// Append a line about this run to the ledger in this file.
    #[arg(long, global = true, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

impl Cluster {
    fn layout(&self) -> Result<Layout> {
        let own = std::env::current_exe()?;
        let beside = own.with_file_name("switchboard");
        let binary = self
            .bin
            .clone()
            .or_else(|| std::env::var_os("TEST_BIN").filter(|name| !name.is_empty()).map(PathBuf::from))
            .unwrap_or(beside);
        ensure!(
            binary.is_file(),
            "{} is not there: build it with --features server/testing, or name it with --bin",
            binary.display()
        );
        let folder = self.folder.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/faults"));
        let folder = std::path::absolute(folder)?;
        Ok(Layout {
            binary: binary.canonicalize()?,
            folder,
            ports: self.ports,
            brokers: self.brokers,
            sentinels: self.sentinels,
            keep: self.keep,
        })
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { what, cluster } = Arguments::parse();
    let ledger = cluster.ledger.as_deref().map(Ledger::open).transpose()?;
    let sum = match what {
        What::List => {
            for Row { name, what, when, .. } in ROWS {
                let when = match when {
                    When::Always => "",
                    When::Long => "   (with --long)",
                    When::Named => "   (only by name)",
                };
                println!("{name:<5} {what}{when}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        What::Rows { names, long, rounds } => {
            let unknown = names.iter().find(|name| ROWS.iter().all(|row| row.name != name.as_str()));
            ensure!(unknown.is_none(), "no such row: {}; `faults list` shows them", unknown.map_or("", String::as_str));
            let stand = Stand::up(cluster.layout()?)?;
            run_rows(&stand, |row| wanted(row, &names, long), rounds).await
        }
        What::Soak { slices, minutes, every, pairs, rate, seed } => {
            let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
            let slice = Duration::from_secs_f64(minutes * 60.0);
            let plan = soak::Plan { slices, slice, every_s: every..2.0 * every, pairs, rate, seed };
            let stand = Stand::up(cluster.layout()?)?;
            run_soak(&stand, &plan).await
        }
    };
    println!("{sum}");
    if let Some(ledger) = ledger {
        ledger.add(&sum)?;
    }
    Ok(if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wanted(row: &Row, names: &[String], long: bool) -> bool {
    let usual = row.when == When::Always || (row.when == When::Long && long);
    names.iter().any(|name| name == row.name) || (names.is_empty() && usual)
}

async fn run_rows(stand: &Stand, wanted: impl Fn(&Row) -> bool, rounds: u32) -> Sum {
    let mut sum = Sum::new(format!("rows, {} of Kafka's brokers", stand.brokers));
    for _ in 0..rounds {
        for row in ROWS.iter().filter(|row| wanted(row)) {
            let began = Instant::now();
            let outcome = (row.run)(stand).await;
            tell(&mut sum, (row.name, row.what), began.elapsed(), outcome);
            if !goes_on(stand, &mut sum).await {
                return sum;
            }
        }
    }
    sum
}

async fn run_soak(stand: &Stand, plan: &soak::Plan) -> Sum {
    let soak::Plan { slices, slice, every_s, pairs, rate, seed } = plan;
    let mut sum = Sum::new(format!(
        "soak{}, seed {seed}, slices of {slice:.0?} at {rate}/s",
        if *pairs { ", two faults at once" } else { "" }
    ));
    for number in 0..*slices {
        let began = Instant::now();
        let outcome = soak::slice(stand, plan, number).await.map(Outcome::from);
        let name = format!("{seed}+{number}");
        tell(&mut sum, (&name, &format!("a fault every {:.0} to {:.0} s", every_s.start, every_s.end)), began.elapsed(), outcome);
        if !goes_on(stand, &mut sum).await {
            break;
        }
    }
    sum
}

/// The cluster is well again for what comes next; if not, that is in the sum.
async fn goes_on(stand: &Stand, sum: &mut Sum) -> bool {
    let well = if sum.last_failed() { stand.heal().await } else { stand.all_ready().await };
    if let Err(why) = &well {
        println!("the cluster is not well again, the run ends: {why:#}");
        sum.failed("afterwards", why);
    }
    well.is_ok()
}

/// Prints what a row or a slice saw, and adds it up.
fn tell(sum: &mut Sum, (name, what): (&str, &str), took: Duration, outcome: Result<Outcome>) {
    match outcome {
        Ok(outcome) => {
            println!("{name:<4} {what}: passed, {took:.0?}");
            for seen in &outcome.seen {
                print!("{seen}");
            }
            if !outcome.more.is_empty() {
                println!("     {}", outcome.more);
            }
            sum.passed(name, &outcome);
        }
        Err(why) => {
            println!("{name:<4} {what}: FAILED, {took:.0?}\n     {why:#}");
            sum.failed(name, &why);
        }
    }
}
