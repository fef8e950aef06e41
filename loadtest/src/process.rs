//! What a process costs, read from `/proc`: anonymous memory and processor time.

use std::net::SocketAddr;

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

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid
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

/// The processes that listen at this address, as far as this user may see them.
#[must_use]
pub fn listening_at(address: SocketAddr) -> Vec<u32> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let table = std::fs::read_to_string(table).unwrap_or_default();
    let sockets: Vec<_> = table.lines().filter_map(|line| listener(line, address.port())).collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| holds_any(*pid, &sockets)).collect()
}

/// `socket:[inode]` of a line of `/proc/net/tcp`, if it listens at the port.
fn listener(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?.rsplit_once(':')?.1;
    let (state, inode) = (fields.nth(1)?, fields.nth(5)?);
    let here = u16::from_str_radix(local, 16).ok()? == port && state == "0A";
    here.then(|| format!("socket:[{inode}]"))
}

fn holds_any(pid: u32, sockets: &[String]) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    links.into_iter().any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
}

/// The numbers of files this process may open, and could allow itself to open: the soft and the hard limit.
///
/// # Errors
/// When `/proc/self/limits` cannot be read.
pub fn open_files_limits() -> Result<(u64, u64)> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("reading /proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no such limit")?;
    let mut limits = line.split_whitespace().map(|limit| limit.parse().unwrap_or(u64::MAX));
    Ok((limits.next().context("no soft limit")?, limits.next().context("no hard limit")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_limit() {
        assert!(Process::own().memory().unwrap() > 0);
        assert!(Process::own().cpu_seconds().unwrap() >= 0.0);
        let (soft, hard) = open_files_limits().unwrap();
        assert!(soft > 0 && hard >= soft);
    }

    #[test]
    fn a_listener_is_found_by_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listening_at(listener.local_addr().unwrap()), [std::process::id()]);
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(listening_at(address).is_empty());
    }

    #[test]
    fn a_command_with_spaces_is_no_trouble() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_of(stat), Some(2.0));
    }
}
