//! A server as a process group that cannot outlive this process, and what it costs.
//!
//! A small shell stands between: it starts the server in a session of its own and waits on a pipe whose other end only this process holds.
//! However this process ends, by itself, by a panic, by Ctrl-C or by SIGKILL, the pipe closes, and the shell kills the server with all its
//! children and removes its folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A server is ready after so long, or does not start.
const START_WAIT: Duration = Duration::from_secs(90);
/// The shell has made the server's process after so long: where none is then, it has ended.
const FORK_WAIT: Duration = Duration::from_secs(1);
/// A killed group is gone after so long.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// The end of a log that is shown when something went wrong, bytes.
const LOG_SHOWN: u64 = 2000;
/// The kernel counts processor time in ticks of this many a second.
const TICKS_PER_S: f64 = 100.0;

const SHELL: &str =
    r#"dir=$1; shift; setsid "$@" & job=$!; read -r _; kill -KILL "-$job"; kill -KILL "$job"; wait; rm -rf -- "$dir""#;

/// A running server.
pub(crate) struct Server {
    shell: Child,
    log: PathBuf,
}

/// What the processes of a server have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Processor seconds, user and kernel.
    pub(crate) cpu_s: f64,
    /// Anonymous resident memory, bytes.
    pub(crate) memory: u64,
}

impl Server {
    /// Starts a command in the folder `dir`, which is the server's and goes with it; what it prints goes to `dir/server.log`.
    pub(crate) fn start(command: &Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join("server.log");
        let out = File::create(&log)?;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SHELL).arg("sh").arg(dir).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.current_dir(dir).process_group(0).stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        let shell = shell.spawn().context("sh can't be started")?;
        Ok(Self { shell, log })
    }

    /// Waits until `is_ready` says so.
    pub(crate) fn wait(&self, is_ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + START_WAIT;
        let mut seen = Instant::now();
        while !is_ready() {
            if self.is_alive()? {
                seen = Instant::now();
            }
            if Instant::now() > until || seen.elapsed() > FORK_WAIT {
                bail!("the server does not start: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether anything runs beside the shell.
    fn is_alive(&self) -> anyhow::Result<bool> {
        Ok(tree(self.shell.id())?.len() > 1)
    }

    /// What its processes have used so far.
    pub(crate) fn cost(&self) -> anyhow::Result<Cost> {
        let mut sum = Cost::default();
        for pid in tree(self.shell.id())? {
            // a helper may just have ended
            let Some(one) = cost_of(pid) else { continue };
            sum = Cost { cpu_s: sum.cpu_s + one.cpu_s, memory: sum.memory + one.memory };
        }
        Ok(sum)
    }

    /// The end of what it printed.
    pub(crate) fn log(&self) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let until = Instant::now() + STOP_WAIT;
        while Instant::now() < until && matches!(self.shell.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A command without the settings of whoever runs this: the variables of its environment whose names begin with `settings`.
pub(crate) fn command(binary: &Path, settings: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(settings)) {
        command.env_remove(name);
    }
    command
}

/// Whether a port takes connections.
pub(crate) fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Whether `GET path` answers 200.
pub(crate) fn answers(address: SocketAddr, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    ask(address, &request, Duration::from_secs(2)).unwrap_or(false)
}

/// Whether `POST path` with this JSON answers 200.
pub(crate) fn accepts(address: SocketAddr, path: &str, json: &str) -> std::io::Result<bool> {
    let (kind, length) = ("application/json", json.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}"
    );
    ask(address, &format!("{head}\r\n\r\n{json}"), Duration::from_secs(30))
}

fn ask(address: SocketAddr, request: &str, wait: Duration) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(wait))?;
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head == *b"HTTP/1.1 200")
}

/// A process and all below it.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // of a zombie nothing is to be read
        if let Some((parent, _)) = parent_of(&stat).filter(|(_, state)| *state != 'Z') {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut at) = (vec![root], 0);
    while at < found.len() {
        found.extend(children.remove(&found[at]).unwrap_or_default());
        at += 1;
    }
    Ok(found)
}

/// Fields behind the name in brackets, which may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn parent_of(stat: &str) -> Option<(u32, char)> {
    let mut fields = fields(stat);
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

fn cpu_of(stat: &str) -> Option<f64> {
    let mut fields = fields(stat).skip(11);
    let (user, kernel): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + kernel) / TICKS_PER_S)
}

fn cost_of(pid: u32) -> Option<Cost> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = anonymous.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(Cost { cpu_s: cpu_of(&stat)?, memory: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_behind_the_name() {
        let stat = "7 (a b) c) S 42 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(parent_of(stat), Some((42, 'S')));
        assert_eq!(cpu_of(stat), Some(2.0));
    }

    #[test]
    fn a_server_ends_with_all_its_children_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg("sleep 1000 & echo up; wait");
        let server = Server::start(&command, dir.path()).unwrap();
        server.wait(|| server.log().contains("up")).unwrap();
        let all = tree(server.shell.id()).unwrap();
        assert_eq!(all.len(), 3, "the shell, the server, its child");
        assert!(server.cost().unwrap().memory > 0);
        drop(server);
        let until = Instant::now() + STOP_WAIT;
        let is_there = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| parent_of(&stat).is_some_and(|(_, state)| state != 'Z'))
        };
        while all.iter().any(is_there) {
            assert!(Instant::now() < until, "something outlived its server");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_server_that_ends_by_itself_is_told_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo no such setting; exit 1");
        let server = Server::start(&command, dir.path()).unwrap();
        let why = server.wait(|| false).unwrap_err().to_string();
        assert!(why.contains("no such setting"), "{why}");
    }
}
