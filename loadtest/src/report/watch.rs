//! The server's processes, looked at from outside: memory and processor time, by their process ids.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant as Clock};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Point;
use crate::process::{Process, listening_at};

/// Memory is looked at this often until it stands still.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many looks must agree.
const LOOKS: usize = 6;
/// Two looks agree within this.
const AGREE: u64 = 256 * 1024;
/// Memory that never stands still is taken as it is after this time.
const LOOK_AT_MOST: Duration = Duration::from_secs(60);

/// What the server cost when a barrier was passed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// The barrier.
    pub name: String,
    /// Seconds since the beginning, on arrival.
    pub seconds: f64,
    /// Live connections then.
    pub sockets: i64,
    /// Anonymous memory of the server's processes, after it had settled, in bytes.
    pub memory: u64,
    /// Anonymous memory of this program's processes, in bytes.
    pub client_memory: u64,
    /// Processor seconds of the server's processes, on arrival.
    pub cpu_at: f64,
    /// And when the run went on.
    pub cpu_on: f64,
    /// Seconds since the beginning when the run went on.
    pub on_seconds: f64,
}

/// One look at the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Anonymous memory in bytes.
    pub memory: u64,
    /// Processors used since the last look.
    pub cores: f64,
}

/// A line through points, by least squares: its slope, without keeping the points.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slope {
    count: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Slope {
    /// One point more.
    pub fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    /// The slope; `None` with too few points to say.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        let spread = self.count * self.xx - self.x * self.x;
        (self.count >= 10.0 && spread > 0.0).then(|| (self.count * self.xy - self.x * self.y) / spread)
    }
}

/// Watches the server's processes.
#[derive(Debug, Default)]
pub struct Watch {
    /// And the processor seconds each had when it was last seen.
    processes: Vec<(Process, f64)>,
    find_at: Vec<SocketAddr>,
    /// Somebody who should listen at one of these has not been found, or is gone.
    missing: bool,
    last: Option<(Clock, f64)>,
    /// Of processes that are gone.
    cpu_gone: f64,
    /// What was measured at barriers.
    pub marks: Vec<Mark>,
    /// When the fault command was run, in seconds.
    pub faults: Vec<f64>,
    /// Processor seconds when measuring began.
    pub cpu_at_measured: Option<f64>,
    /// Of the server's memory, in bytes a second, while measuring.
    pub server_slope: Slope,
    /// Of this program's memory, in bytes a second, while measuring.
    pub client_slope: Slope,
}

impl Watch {
    /// Watches these, and whoever listens on this machine at the addresses of these urls.
    #[must_use]
    pub fn new(processes: Vec<Process>, find_at: &[String]) -> Self {
        let address = |url: &String| {
            let host = url.split_once("://")?.1.split('/').next()?.to_owned();
            host.to_socket_addrs().ok()?.find(|address| address.ip().is_loopback())
        };
        let processes = processes.into_iter().map(|process| (process, 0.0)).collect();
        let find_at: Vec<_> = find_at.iter().filter_map(address).collect();
        let mut watch = Self { processes, missing: !find_at.is_empty(), find_at, ..Self::default() };
        watch.find();
        watch
    }

    /// Whether there is anything to watch.
    #[must_use]
    pub fn sees(&self) -> bool {
        !self.processes.is_empty()
    }

    fn find(&mut self) {
        if !std::mem::take(&mut self.missing) {
            return;
        }
        // A listener of this very process is a test's.
        let own = std::process::id();
        for address in &self.find_at {
            let listeners: Vec<_> = listening_at(*address).into_iter().filter(|pid| *pid != own).collect();
            self.missing |= listeners.is_empty();
            for pid in listeners {
                if self.processes.iter().all(|(process, _)| process.id() != pid) {
                    self.processes.push((Process::new(pid), 0.0));
                }
            }
        }
    }

    /// Processor seconds of the server so far, of processes that are gone too.
    pub fn cpu(&mut self) -> f64 {
        let (gone, count) = (&mut self.cpu_gone, self.processes.len());
        self.processes.retain_mut(|(process, seen)| match process.cpu_seconds() {
            Ok(now) => {
                *seen = now;
                true
            }
            Err(_) => {
                *gone += *seen;
                false
            }
        });
        if self.processes.len() < count {
            self.missing = !self.find_at.is_empty();
            self.find();
        }
        self.cpu_gone + self.processes.iter().map(|(_, seen)| seen).sum::<f64>()
    }

    fn memory(&self) -> u64 {
        self.processes.iter().filter_map(|(process, _)| process.memory().ok()).sum()
    }

    /// Looks once.
    pub fn sample(&mut self) -> Look {
        self.find();
        let (now, cpu) = (Clock::now(), self.cpu());
        let cores = self.last.map_or(0.0, |(then, before)| {
            let passed = now.duration_since(then).as_secs_f64();
            if passed > 0.0 { ((cpu - before) / passed).max(0.0) } else { 0.0 }
        });
        self.last = Some((now, cpu));
        Look { memory: self.memory(), cores }
    }

    /// Adds a point of the timeline to the slopes.
    pub fn look(&mut self, point: &Point) {
        if !point.measured {
            return;
        }
        if self.cpu_at_measured.is_none() {
            self.cpu_at_measured = Some(self.cpu());
        }
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory, below 2^53")]
        let (server, client) = (point.server_memory as f64, point.client_memory as f64);
        if self.sees() {
            self.server_slope.add(point.seconds, server);
        }
        self.client_slope.add(point.seconds, client);
    }

    /// Measures at a barrier; with `settle`, when memory stands still.
    pub async fn mark(&mut self, name: &str, settle: Duration, (began, sockets): (Instant, i64)) -> Mark {
        let seconds = began.elapsed().as_secs_f64();
        self.find();
        let cpu_at = self.cpu();
        if self.sees() && !settle.is_zero() {
            tokio::time::sleep(settle).await;
            self.stand_still().await;
        }
        Mark {
            name: name.to_owned(),
            seconds,
            sockets,
            memory: self.memory(),
            client_memory: 0,
            cpu_at,
            cpu_on: self.cpu(),
            on_seconds: began.elapsed().as_secs_f64(),
        }
    }

    async fn stand_still(&self) {
        let start = Instant::now();
        let mut looks: Vec<u64> = Vec::new();
        while start.elapsed() < LOOK_AT_MOST {
            looks.push(self.memory());
            let last = looks.get(looks.len().saturating_sub(LOOKS)..).unwrap_or_default();
            let spread = last.iter().max().zip(last.iter().min()).map_or(0, |(most, least)| most - least);
            if last.len() == LOOKS && spread <= AGREE {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn the_slope_of_a_line_is_found() {
        let mut slope = Slope::default();
        assert_eq!(slope.slope(), None);
        (0..100).for_each(|x| slope.add(f64::from(x), 5.0 + 3.0 * f64::from(x) + f64::from(x % 2)));
        assert!((slope.slope().unwrap() - 3.0).abs() < 0.01);
    }

    #[test]
    fn every_listener_is_watched_and_what_one_used_stays_counted_when_it_is_gone() {
        let listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sum(range(10**7)); input()";
        let mut servers: Vec<_> = (0..2)
            .map(|_| {
                let mut command = Command::new("python3");
                command.args(["-c", listen]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let url = |server: &mut Child| {
            let mut port = String::new();
            BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
            format!("ws://127.0.0.1:{}/ws", port.trim())
        };
        let urls: Vec<_> = servers.iter_mut().map(url).collect();
        let mut watch = Watch::new(Vec::new(), &urls);
        assert_eq!(
            watch.processes.iter().map(|(process, _)| process.id()).collect::<Vec<_>>(),
            servers.iter().map(Child::id).collect::<Vec<_>>()
        );
        let memory = watch.memory();
        while watch.processes.iter().any(|(_, seen)| *seen < 0.02) {
            watch.cpu();
        }
        let both = watch.cpu();
        servers[0].kill().unwrap();
        servers[0].wait().unwrap();
        assert!(watch.cpu() >= both, "what the first used is still counted");
        assert!(watch.processes.len() == 1 && watch.missing && watch.memory() < memory);
        servers[1].kill().unwrap();
        servers[1].wait().unwrap();
    }
}
