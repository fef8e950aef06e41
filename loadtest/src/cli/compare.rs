//! `compare`: two reports side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use loadtest::report::{Report, compare};

/// The options of `compare`.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The report to compare with, as `--json` wrote it.
    first: PathBuf,
    /// The report that is judged.
    second: PathBuf,
    /// Exit with 1 if p50, p99, the rate or the cost is worse by more than so many percent.
    #[arg(long, value_name = "PERCENT")]
    fail_above: Option<f64>,
}

impl Compare {
    pub(crate) fn run(&self) -> Result<bool> {
        let comparison = compare::compare(&read(&self.first)?, &read(&self.second)?);
        print!("{comparison}");
        let Some(percent) = self.fail_above else { return Ok(true) };
        let worse = comparison.worse_than(percent);
        for row in &worse {
            println!("worse by more than {percent} %: {} ({:+.1} %)", row.name, row.worse());
        }
        Ok(worse.is_empty())
    }
}

fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of --json", path.display()))
}
