//! Micro benchmarks of the parts that decide the cost of a message. Figures and how they were made: `benches/README.md`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod cycle;
mod engines;
mod meter;

#[derive(Parser)]
#[command(about = "Micro benchmarks of Switchboard")]
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
    }
}
