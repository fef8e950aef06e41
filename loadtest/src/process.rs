//! What a process costs, read from `/proc`: anonymous memory and processor time.

use anyhow::{Context, Result};

/// The kernel counts processor time in ticks of this many a second on every Linux we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The process with this id.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// This process.
    #[must_use]
    pub fn own() -> Self {
        Self::new(std::process::id())
    }

    /// Its anonymous resident memory in bytes (`RssAnon`: heap and stacks, no file pages).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon in status")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("RssAnon is no number")?;
        Ok(kib * 1024)
    }

    /// Its processor seconds so far, in user and kernel mode.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        cpu_of(&stat).context("stat has no utime and stime")
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.pid);
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }
}

/// The command in parentheses may hold spaces: count from the last parenthesis.
fn cpu_of(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    Some((user + kernel) / TICKS_PER_SECOND)
}

/// The number of files this process may open.
///
/// # Errors
/// When `/proc/self/limits` cannot be read.
pub fn open_files_limit() -> Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("reading /proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no such limit")?;
    let soft = line.split_whitespace().next().context("no soft limit")?;
    Ok(soft.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_limit() {
        assert!(Process::own().memory().unwrap() > 0);
        assert!(Process::own().cpu_seconds().unwrap() >= 0.0);
        assert!(open_files_limit().unwrap() > 0);
    }

    #[test]
    fn a_command_with_spaces_is_no_trouble() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_of(stat), Some(2.0));
    }
}
