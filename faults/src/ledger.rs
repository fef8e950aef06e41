//! What a whole run came to, and its line in the ledger: a table of Markdown that every run adds to, failures included.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::rows::Outcome;
use crate::seen::bound;

/// The heading of the table.
const HEADING: &str = "## Ledger";

/// The sum of a run.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    what: String,
    names: Vec<String>,
    accepted: usize,
    shown: usize,
    faults: usize,
    broke: usize,
    slowest: Duration,
    back: Duration,
    /// What failed, with the first line of why.
    pub(crate) failed: Vec<(String, String)>,
    last_failed: bool,
}

impl Sum {
    pub(crate) fn new(what: String) -> Self {
        Self { what, ..Self::default() }
    }

    pub(crate) fn passed(&mut self, name: &str, outcome: &Outcome) {
        self.last_failed = false;
        self.names.push(name.to_owned());
        for seen in &outcome.seen {
            self.accepted += seen.accepted;
            self.shown += seen.shown;
            self.faults += seen.faults.len();
            self.broke += seen.closed;
            self.slowest = self.slowest.max(seen.slowest);
            self.back = self.back.max(seen.back.unwrap_or_default());
        }
    }

    pub(crate) fn failed(&mut self, name: &str, why: &anyhow::Error) {
        self.last_failed = true;
        let why = format!("{why:#}");
        self.failed.push((name.to_owned(), why.lines().next().unwrap_or_default().to_owned()));
    }

    pub(crate) fn last_failed(&self) -> bool {
        self.last_failed
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, names, accepted, shown, faults, broke, slowest, back, failed, .. } = self;
        writeln!(out, "\n{what}: {} passed, {} failed", names.len(), failed.len())?;
        writeln!(out, "{accepted} messages accepted, {shown} events shown, {faults} faults, {broke} connections broke")?;
        write!(out, "slowest message {slowest:.1?}, slowest 99 % of clients back within {back:.1?}")?;
        if failed.is_empty() {
            write!(out, "; nothing lost or doubled: with 95 % fewer than {}", bound(*accepted))?;
        }
        for (name, why) in failed {
            write!(out, "\nFAILED {name}: {why}")?;
        }
        Ok(())
    }
}

/// A file with the table.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// Of this file.
    ///
    /// # Errors
    /// When it has no such table.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        with_line(&text, "").with_context(|| format!("{}: no table under \"{HEADING}\"", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Adds a line at the end of the table.
    pub(crate) fn add(&self, sum: &Sum) -> Result<()> {
        let text = std::fs::read_to_string(&self.path)?;
        let commit =
            Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let line = line(sum, &jiff::Zoned::now().date().to_string(), &commit);
        let text = with_line(&text, &line).with_context(|| format!("no table under \"{HEADING}\""))?;
        Ok(std::fs::write(&self.path, text)?)
    }
}

fn line(sum: &Sum, date: &str, commit: &str) -> String {
    let Sum { what, names, accepted, shown, faults, broke, slowest, back, failed, .. } = sum;
    let found = match failed.as_slice() {
        [] => "nothing".to_owned(),
        failed => {
            failed.iter().map(|(name, why)| format!("**{name}**: {}", why.replace('|', "\\|"))).collect::<Vec<_>>().join("; ")
        }
    };
    format!(
        "| {date}, {commit} | {what}: {} | {accepted} messages, {shown} events | {faults} faults, {broke} connections broke | {found}; slowest message \
         {slowest:.1?}, 99 % of clients back within {back:.1?} |",
        names.join(" ")
    )
}

/// The text with one more line behind the last one of the table.
fn with_line(text: &str, line: &str) -> Option<String> {
    let table = text.find(HEADING)?;
    let first = table + text[table..].find("\n|")? + 1;
    let end = text[first..].find("\n\n").map_or(text.trim_end().len(), |at| first + at);
    Some(format!("{}\n{line}{}", &text[..end], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_behind_the_last_one_of_its_table() {
        let table = "# Page\n\n| other |\n\n## Ledger\n| a | b |\n|---|---|\n| 1 | 2 |";
        assert_eq!(with_line(&format!("{table}\n"), "| 3 |").unwrap(), format!("{table}\n| 3 |\n"));
        assert_eq!(with_line(&format!("{table}\n\nmore\n"), "| 3 |").unwrap(), format!("{table}\n| 3 |\n\nmore\n"));
        assert_eq!(with_line("no table\n", "| 3 |"), None);
    }

    #[test]
    fn what_failed_is_in_the_line_with_the_reason() {
        let mut sum = Sum::new("rows".to_owned());
        sum.failed("F1", &anyhow::anyhow!("lost | one\nand more"));
        let line = line(&sum, "2026-01-02", "abc");
        assert!(line.starts_with("| 2026-01-02, abc | rows: ") && line.contains("**F1**: lost \\| one;"), "{line}");
        assert!(!sum.failed.is_empty() && sum.last_failed());
    }
}
