//! A report for people at a terminal.

use std::fmt;

use super::{Report, ServerCost, Summary};
use crate::crew::Fault;
use crate::fleet::Progress;
use crate::frame::Encoding;
use crate::series::Kind;

/// So many offenders are printed.
const SHOWN: usize = 30;

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenario = &self.scenario;
        write!(out, "{}: {} sockets, {} devices a user", scenario.name, scenario.sockets, scenario.devices)?;
        if scenario.encoding != Encoding::default() {
            write!(out, ", {}", scenario.encoding.name())?;
        }
        writeln!(out, ", {} workers, {} measured, {:.0} s in all", self.workers, scenario.duration, self.seconds)?;
        if scenario.load.is_some() {
            write!(out, "rate: {:.0}/s intended, {:.0}/s accepted", self.intended_rate, self.achieved_rate)?;
            if let Some(surge) = &scenario.surge {
                let (from, peak, accepted) = (surge.after, scenario.peak(), self.accepted_in_surge());
                write!(out, "; a surge of {peak:.0}/s from {from} for {}, {accepted:.0}/s accepted in it", surge.lasts)?;
            }
            writeln!(out)?;
        }
        for (kind, summary) in self.series.iter().filter(|(_, summary)| summary.count > 0) {
            writeln!(out, "{:<10} {}", format!("{}:", kind.name()), line(summary))?;
        }
        if let Some(server) = &self.server {
            self.write_server(out, server)?;
        }
        if let Some(slope) = self.client_slope {
            writeln!(out, "client memory: {} a minute while measuring", size(slope))?;
        }
        writeln!(out, "client CPU: {:.1} s", self.client_cpu)?;
        self.write_verdict(out)
    }
}

impl Report {
    fn write_verdict(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let verdict = if self.is_clean() { "clean" } else { "WRONG" };
        write!(out, "verdict: {verdict}: {} sends, {} accepted, {} shown", counts.due, counts.accepted, counts.delivered)?;
        for fault in Fault::ALL {
            write!(out, ", {} {}", self.found.count(fault), fault.name())?;
        }
        write!(out, "; {} put off, {} connections broke, {} attempts failed", counts.put_back, counts.broken, counts.failed)?;
        if counts.given_up > 0 {
            write!(out, ", {} given up by their senders before they went out", counts.given_up)?;
        }
        if counts.foreign > 0 {
            write!(out, ", {} messages of other runs", counts.foreign)?;
        }
        if let Some(trouble) = &self.trouble {
            write!(out, "; the first trouble: {trouble}")?;
        }
        for sample in self.found.samples.iter().take(SHOWN) {
            write!(out, "\n  {sample}")?;
        }
        for judged in &self.expectations {
            let holds = if judged.holds { "holds" } else { "FAILS" };
            let value = judged.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.6}"));
            write!(out, "\nexpected {}: {holds} ({value})", judged.text)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of memory and counts of sockets")]
    fn write_server(&self, out: &mut fmt::Formatter<'_>, server: &ServerCost) -> fmt::Result {
        if let Some(cpu) = server.cpu_per_million {
            writeln!(out, "server CPU: {cpu:.1} s for a million messages")?;
        }
        if let Some(slope) = server.slope {
            writeln!(out, "server memory: {} a minute while measuring", size(slope))?;
        }
        // Rounds of coming: what connections cost, and what the server keeps of them.
        let mut before = None;
        for mark in &server.marks {
            let what = match (mark.name.as_str(), self.scenario.load.is_some()) {
                (name, _) if name.starts_with("attached") => {
                    let cpu = before.map(|before: &super::Mark| (mark.cpu_at - before.cpu_on) * 1e3 / mark.sockets.max(1) as f64);
                    cpu.map_or_else(String::new, |cpu| format!(", {cpu:.3} ms of CPU a connection"))
                }
                ("quiet", false) => before.map_or_else(String::new, |before| {
                    let share = (mark.cpu_at - before.cpu_on) * 100.0 / (mark.seconds - before.on_seconds).max(1e-9);
                    format!(", holding cost {share:.2} % of a core")
                }),
                _ => String::new(),
            };
            let first = server.marks.first().map_or(0, |first| first.memory);
            let grown = mark.memory.saturating_sub(first) as f64 / mark.sockets.max(1) as f64;
            let socket = if mark.sockets > 0 && mark.memory > first {
                format!(" ({grown:.0} B a socket over the beginning)")
            } else {
                String::new()
            };
            let client = match server.marks.first() {
                Some(first) if mark.sockets > 0 => {
                    mark.client_memory.saturating_sub(first.client_memory) / mark.sockets.unsigned_abs()
                }
                _ => 0,
            };
            let client = if client > 0 { format!(", {client} B of client a socket") } else { String::new() };
            writeln!(
                out,
                "server at {:?}: {} sockets, {} KiB{socket}{what}{client}",
                mark.name,
                mark.sockets,
                mark.memory / 1024
            )?;
            before = Some(mark);
        }
        Ok(())
    }
}

/// One line: the quantiles and the number.
#[must_use]
pub fn line(summary: &Summary) -> String {
    let Summary { p50_ms, p99_ms, p999_ms, max_ms, count, .. } = summary;
    format!("p50 {p50_ms:.2} ms  p99 {p99_ms:.2} ms  p99.9 {p999_ms:.2} ms  max {max_ms:.2} ms  (n = {count})")
}

/// The line that is written over and over while a run goes on.
#[must_use]
pub fn progress(progress: &Progress) -> String {
    let point = &progress.point;
    let mut line = format!("{:>4.0} s  {:<10} {:>6} sockets", progress.seconds, progress.phase, point.sockets);
    if point.due > 0.0 || point.accepted > 0.0 {
        line.push_str(&format!("  {:>6.0}/s due {:>6.0}/s accepted", point.due, point.accepted));
    }
    for kind in [Kind::Delivered, Kind::Connect, Kind::Resume] {
        if let Some([p50, p99, max]) = point.latency.get(&kind) {
            line.push_str(&format!("  {} p50 {p50:.1} p99 {p99:.1} max {max:.1} ms", kind.name()));
        }
    }
    if point.put_back > 0.0 {
        line.push_str(&format!("  {:.0} put off", point.put_back));
    }
    if point.broken > 0.0 {
        line.push_str(&format!("  {:.0} broke", point.broken));
    }
    if point.offences > 0 {
        line.push_str(&format!("  {} WRONG", point.offences));
    }
    line
}

/// Bytes for people.
#[must_use]
pub fn size(bytes: f64) -> String {
    let amount = bytes.abs();
    let (divisor, unit) = if amount >= 1024.0 * 1024.0 { (1024.0 * 1024.0, "MiB") } else { (1024.0, "KiB") };
    format!("{:+.1} {unit}", bytes / divisor)
}
