//! Two reports side by side: what became faster, slower, dearer.

use std::fmt;

use super::Report;
use crate::scenario::expect::SERIES;

/// What is compared, where both have it; lower is better in all but `rate`.
const STATISTICS: [&str; 4] = ["p50", "p99", "p99.9", "max"];

/// A figure of both.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// In the first, in seconds, bytes a minute, or plain.
    pub before: f64,
    /// In the second.
    pub after: f64,
}

impl Row {
    /// How much worse the second is, in percent of the first; below 0 it is better.
    #[must_use]
    pub fn worse(&self) -> f64 {
        let growth = if self.before == 0.0 {
            if self.after > 0.0 { 100.0 } else { 0.0 }
        } else {
            (self.after / self.before - 1.0) * 100.0
        };
        if self.name == "rate" { -growth } else { growth }
    }
}

/// Two reports.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Figure by figure.
    pub rows: Vec<Row>,
    /// What makes them hard to compare.
    pub notes: Vec<String>,
}

/// Compares two reports.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let names = ["rate".to_owned(), "put_back".to_owned(), "server.cpu_per_million".to_owned()];
    let series = SERIES.iter().flat_map(|series| STATISTICS.iter().map(move |statistic| format!("{series}.{statistic}")));
    let rows = names.into_iter().chain(series).filter_map(|name| {
        let (before, after) = (before.figure(&name)?, after.figure(&name)?);
        Some(Row { name, before, after })
    });
    let mut notes = Vec::new();
    let text = |report: &Report| serde_json::to_value(&report.scenario).unwrap_or_default();
    if let (serde_json::Value::Object(one), serde_json::Value::Object(other)) = (text(before), text(after)) {
        for (key, value) in one {
            if other.get(&key) != Some(&value) {
                notes.push(format!("the scenarios differ in {key}: {value} and {}", other.get(&key).unwrap_or_default()));
            }
        }
    }
    for (which, report) in [("first", before), ("second", after)] {
        if !report.is_clean() {
            notes.push(format!("the verdict of the {which} is not clean"));
        }
    }
    Comparison { rows: rows.collect(), notes }
}

impl Comparison {
    /// The rows in which the second is worse by more than `percent`. Of latencies only p50 and p99 count: the tail of one run is luck.
    #[must_use]
    pub fn worse_than(&self, percent: f64) -> Vec<&Row> {
        let counts = |name: &str| !(name.ends_with(".p99.9") || name.ends_with(".max"));
        self.rows.iter().filter(|row| counts(&row.name) && row.worse() > percent).collect()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<26} {:>14} {:>14} {:>9}", "", "first", "second", "change")?;
        for row in &self.rows {
            let timed = SERIES.iter().any(|series| row.name.starts_with(series));
            let shown = |value: f64| if timed { format!("{:.2} ms", value * 1e3) } else { format!("{value:.1}") };
            let change = if row.name == "rate" { -row.worse() } else { row.worse() };
            writeln!(out, "{:<26} {:>14} {:>14} {change:>+8.1}%", row.name, shown(row.before), shown(row.after))?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }
}
