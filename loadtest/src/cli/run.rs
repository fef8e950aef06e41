//! `run`, and the older names `direct` and `idle` for it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use loadtest::fleet::{self, Plan, Progress};
use loadtest::report::{Report, html, text};
use loadtest::scenario::{self, Scenario, Span};

use super::options::Options;

/// Without a terminal a line of progress is written so often.
const QUIETLY_EVERY: f64 = 10.0;

/// The options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The name of a built-in scenario, or a file.
    scenario: String,
    #[command(flatten)]
    options: Options,
}

/// The options of `direct`: users in pairs, bodies of one length.
#[derive(Debug, Args)]
pub(crate) struct Direct {
    #[command(flatten)]
    options: Options,
}

/// The options of `idle`.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    options: Options,
    /// How long all sockets are held.
    #[arg(long, value_parser = scenario::duration)]
    hold: Option<Duration>,
    /// How long the server may give memory back before it is measured.
    #[arg(long, value_parser = scenario::duration)]
    settle: Option<Duration>,
}

impl Run {
    pub(crate) async fn run(self) -> Result<bool> {
        let scenario = self.options.over(scenario::load(&self.scenario)?)?;
        once(&self.options, scenario).await
    }
}

impl Direct {
    pub(crate) async fn run(self) -> Result<bool> {
        let scenario = self.options.over(pairs(scenario::load("direct")?))?;
        once(&self.options, scenario).await
    }
}

impl Idle {
    pub(crate) async fn run(self) -> Result<bool> {
        let mut scenario = self.options.over(scenario::load("idle")?)?;
        scenario.duration = self.hold.map_or(scenario.duration, Span);
        scenario.connect.settle = self.settle.map_or(scenario.connect.settle, Span);
        once(&self.options, scenario).await
    }
}

/// The load that figures have always been measured with: pairs, 200 bytes.
pub(crate) fn pairs(mut scenario: Scenario) -> Scenario {
    scenario.contacts.count = 1;
    scenario.body = scenario::Body { median: 200, spread: 0.0, least: 32, most: 200 };
    scenario
}

async fn once(options: &Options, scenario: Scenario) -> Result<bool> {
    let plan = options.plan(scenario).await?;
    let report = measure(&plan, options.quiet).await?;
    println!("{report}");
    write(&report, options)?;
    Ok(report.passes())
}

/// Runs a plan and shows its progress.
pub(crate) async fn measure(plan: &Plan, quiet: bool) -> Result<Report> {
    let terminal = std::io::stderr().is_terminal();
    let mut shown_at = 0.0;
    let show = |progress: &Progress| {
        if quiet {
            return;
        }
        let line = text::progress(progress);
        let mut out = std::io::stderr().lock();
        // Progress that cannot be shown is no reason to stop.
        if terminal {
            let _ = write!(out, "\r\x1b[2K{line}");
        } else if progress.seconds - shown_at >= QUIETLY_EVERY {
            shown_at = progress.seconds;
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    };
    let report = fleet::run(plan, show).await;
    if terminal && !quiet {
        eprintln!();
    }
    report
}

/// Writes the files that were asked for.
pub(crate) fn write(report: &Report, options: &Options) -> Result<()> {
    let put = |path: &Path, text: String| std::fs::write(path, text).with_context(|| format!("writing {}", path.display()));
    if let Some(path) = &options.json {
        put(path, serde_json::to_string(report)?)?;
    }
    if let Some(path) = &options.html {
        put(path, html::page(report))?;
    }
    Ok(())
}
