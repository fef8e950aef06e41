//! Benchmarks of the parts that decide the cost of a message, of the bare engines under a cluster, and of Switchboard beside its peers. Figures
//! and how they were made: `benches/README.md`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod compare;
mod cycle;
mod engines;
mod hops;
mod meter;
mod relay;

#[derive(Parser)]
#[command(about = "Benchmarks of Switchboard")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The write pattern of the commit cycle on fjall, redb and SQLite.
    Engines(Common),
    /// The real commit cycle, with nobody to deliver to.
    Cycle(Common),
    /// The bare engines of a cluster: a hop through Kafka, a commit in Postgres.
    Hops(hops::Hops),
    /// Switchboard beside its peers.
    Compare(compare::Compare),
    /// The bare relay that `compare` starts as a ceiling.
    Relay(relay::Relay),
}

#[derive(Args)]
struct Common {
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of writing in each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Where the temporary folders go: the disk that is measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Threads that flush and compact, in `cycle`.
    #[arg(long)]
    workers: Option<usize>,
    /// Size of a memtable, in `cycle`.
    #[arg(long)]
    memtable_mib: Option<u64>,
    /// Sends in flight, in `cycle`.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000, 10_000])]
    in_flight: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Engines(common) => engines::run(&common),
        What::Cycle(common) => cycle::run(&common),
        What::Hops(hops) => hops::run(&hops),
        What::Compare(compare) => compare::run(&compare),
        What::Relay(relay) => relay::run(&relay),
    }
}

/// A time such as `10s`, `500ms`, or a number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no time such as 10s or 500ms"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert!(["", "s", "-1s", "1h", "inf"].into_iter().all(|text| seconds(text).is_err()));
    }
}
