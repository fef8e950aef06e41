//! `simulation --seeds 200`: runs seeds, prints which races happened, fails when something is wrong or a race never came.
//! `simulation --seeds 10000 --jobs 2`: the same, longer. `simulation --seed N --trace`: one seed, and all that happens in it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use protocol::plant::Bug;
use simulation::Outcome;
use simulation::races::Table;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Findings printed of one seed.
const WRONG_MAX: usize = 8;

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
    /// Worlds at once, each on a thread of its own. What comes out does not depend on it.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// The last seed first.
    #[arg(long)]
    backwards: bool,
    /// Print only the hash of everything that happens, by seed.
    #[arg(long)]
    hash: bool,
    /// Plant a bug, by name.
    #[arg(long)]
    plant: Option<String>,
    /// Do not insist that every race happens.
    #[arg(long)]
    few: bool,
    /// Go on behind a seed that went wrong.
    #[arg(long)]
    all: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let bug = args.plant.as_deref().map(bug_named).transpose()?;
    let seeds = args.seed.map_or(args.from..args.from + args.seeds, |seed| seed..seed + 1);
    let began = Instant::now();
    let (mut table, mut bad, mut done, mut told) = (Table::default(), 0_u64, 0_u64, began);
    let wanted = seeds.end - seeds.start;
    run_all(&args, seeds, bug, |seed, outcome| {
        done += 1;
        if args.hash {
            println!("{seed} {:016x}", outcome.hash);
        }
        outcome.trace.iter().for_each(|line| println!("{line}"));
        table.add(&outcome.races);
        if !outcome.wrong.is_empty() {
            bad += 1;
            println!("seed {seed} (trace {:016x}):", outcome.hash);
            outcome.wrong.iter().take(WRONG_MAX).for_each(|wrong| println!("    {wrong}"));
            let planted = args.plant.as_ref().map(|name| format!(" --plant {name}")).unwrap_or_default();
            println!("    all of it: simulation --seed {seed} --trace{planted}");
        }
        if told.elapsed() >= TELL_EVERY && !args.hash {
            told = Instant::now();
            println!("{done} of {wanted} seeds, {bad} bad, {:.0} s", began.elapsed().as_secs_f64());
        }
        bad == 0 || args.all
    });
    if !args.hash {
        println!("races in {done} seeds:");
        table.lines().iter().for_each(|line| println!("{line}"));
        println!("{done} seeds, {bad} bad, {:.1} s", began.elapsed().as_secs_f64());
    }
    let missing = table.missing();
    if !missing.is_empty() && bad == 0 && args.seed.is_none() && !args.few && !args.hash {
        bail!("these never happened, so nothing is proved about them: {missing:?}");
    }
    Ok(if bad > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs seeds on so many threads; `took` hears of each and says whether to go on.
fn run_all(args: &Args, seeds: std::ops::Range<u64>, bug: Option<Bug>, mut took: impl FnMut(u64, Outcome) -> bool) {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (tell, heard) = mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            let (next, stop, start, end, tell) = (&next, &stop, seeds.start, seeds.end, tell.clone());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let seed = if args.backwards { start + end.saturating_sub(1 + at) } else { at };
                    if at >= end || tell.send((seed, simulation::run(seed, bug, args.trace))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for (seed, outcome) in heard {
            if !stop.load(Ordering::Relaxed) && !took(seed, outcome) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

fn bug_named(name: &str) -> anyhow::Result<Bug> {
    let found = Bug::ALL.iter().find(|(_, known)| *known == name).map(|(bug, _)| *bug);
    found.with_context(|| format!("no such bug: {name}"))
}
