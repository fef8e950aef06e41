//! `simulation --seeds 200`: runs seeds, prints which races happened, fails when something is wrong or a race never came.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use protocol::plant::Bug;
use simulation::races::Table;

/// The cluster path under faults, one deterministic world for each seed.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Plant a bug, by name.
    #[arg(long)]
    plant: Option<String>,
    /// Do not insist that every race happens.
    #[arg(long)]
    few: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let bug = args.plant.as_deref().map(bug_named).transpose()?;
    let seeds = args.seed.map_or(args.from..args.from + args.seeds, |seed| seed..seed + 1);
    let (mut table, mut bad, began) = (Table::default(), 0_u64, Instant::now());
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = simulation::run(seed, bug, args.trace);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        table.add(&outcome.races);
        if !outcome.wrong.is_empty() {
            bad += 1;
            println!("seed {seed} (trace {:016x}):", outcome.hash);
            outcome.wrong.iter().take(8).for_each(|wrong| println!("    {wrong}"));
        }
    }
    println!("races in {count} seeds:");
    table.lines().iter().for_each(|line| println!("{line}"));
    println!("{count} seeds, {bad} bad, {:.1} s", began.elapsed().as_secs_f64());
    let missing = table.missing();
    if !missing.is_empty() && args.seed.is_none() && !args.few {
        bail!("these races never happened, so nothing is proved about them: {missing:?}");
    }
    Ok(if bad > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn bug_named(name: &str) -> anyhow::Result<Bug> {
    let found = Bug::ALL.iter().find(|(_, known)| *known == name).map(|(bug, _)| *bug);
    found.with_context(|| format!("no such bug: {name}"))
}
