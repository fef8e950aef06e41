//! The real cluster that `scripts/cluster` brings up: Kafka, Redis, Postgres and the binary under test, each a process that can be killed.

mod admin;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use loadtest::client::Target;
use loadtest::record::Recorder;
use loadtest::tokens::{self, Account};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Longer than anything takes that is going to happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// What is done to bring something back is no fault.
const HEALING: [&str; 2] = ["start", "resume"];
/// Lines of a log that are shown.
const TAIL: usize = 20;

/// How a cluster is brought up.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The binary under test.
    pub(crate) binary: PathBuf,
    /// Where data, settings and logs are.
    pub(crate) folder: PathBuf,
    /// First of its ports.
    pub(crate) ports: u16,
    /// Kafka brokers, 1 or 3.
    pub(crate) brokers: u8,
    /// Redis has a replica and three sentinels.
    pub(crate) sentinels: bool,
    /// Leave it standing when something was wrong.
    pub(crate) keep: bool,
}

/// A cluster; it is taken down when this is dropped.
pub(crate) struct Stand {
    pub(crate) folder: PathBuf,
    binary: PathBuf,
    ports: u16,
    /// Kafka brokers.
    pub(crate) brokers: u8,
    /// Redis has a replica and three sentinels.
    pub(crate) sentinels: bool,
    keep: bool,
    /// Something was wrong.
    wrong: Cell<bool>,
    /// Files that say where a process is to die.
    halts: TempDir,
    /// First user that no part of the run has used yet.
    next_user: Cell<u64>,
    /// Incarnation of the log.
    log_epoch: Cell<u16>,
    /// While there is load: its recording, and what was done to the cluster.
    recording: RefCell<Option<Recording>>,
}

/// What clients see, and what was done to the cluster meanwhile.
struct Recording {
    recorder: Recorder,
    faults: Vec<(Duration, String)>,
}

impl Stand {
    /// Brings a cluster up, fresh.
    pub(crate) fn up(layout: Layout) -> Result<Self> {
        let Layout { binary, folder, ports, brokers, sentinels, keep } = layout;
        let halts = tempfile::tempdir()?;
        let (wrong, next_user, log_epoch, recording) = (Cell::new(false), Cell::new(1), Cell::new(1), RefCell::new(None));
        let stand = Self { folder, binary, ports, brokers, sentinels, keep, wrong, halts, next_user, log_epoch, recording };
        stand.cluster(&["down", "--wipe"])?;
        let began = Instant::now();
        let (binary, brokers) = (stand.binary.display().to_string(), brokers.to_string());
        let two = ["--databases", "2", "--gateways", "2", "--routers", "2", "--storages", "2"];
        let redis = if sentinels { "sentinel" } else { "single" };
        let mut arguments = vec!["up", "--bin", &binary, "--brokers", &brokers, "--redis", redis, "--no-nginx", "--proxied"];
        arguments.extend(two);
        stand.cluster(&arguments)?;
        println!("the cluster is up after {:.1?}", began.elapsed());
        Ok(stand)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster");
        let mut command = Command::new(script);
        command.args(arguments).stdin(Stdio::null());
        command.env("SWITCHBOARD_CLUSTER_DIR", &self.folder).env("SWITCHBOARD_CLUSTER_PORTS", self.ports.to_string());
        command.env("TEST_HALTS", self.halts.path());
        command.output().context("scripts/cluster")
    }

    /// Runs `scripts/cluster`; a failure is an error with what it said.
    pub(crate) fn cluster(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "scripts/cluster {}: {}\n{said}{}", arguments.join(" "), output.status, wrong());
        Ok(said.trim().to_owned())
    }

    /// A signal to one process, or something else that `scripts/cluster` does to one. What does harm is a fault of the load under way.
    pub(crate) fn does(&self, what: &str, name: &str) -> Result<()> {
        if !HEALING.contains(&what) {
            self.fault(format!("{what} {name}"));
        }
        self.cluster(&[what, name])?;
        Ok(())
    }

    // --- the recording of the load under way ---

    /// A new recording.
    pub(crate) fn begin_recording(&self) -> Recorder {
        let recorder = Recorder::in_memory();
        self.recording.replace(Some(Recording { recorder: recorder.clone(), faults: Vec::new() }));
        recorder
    }

    /// Something is done to the cluster, now.
    pub(crate) fn fault(&self, what: String) {
        if let Some(Recording { recorder, faults }) = self.recording.borrow_mut().as_mut() {
            faults.push((Duration::from_micros(recorder.now_us()), what));
        }
    }

    /// How many things of the recording under way pass the test.
    pub(crate) fn count(&self, test: impl Fn(&loadtest::record::Entry) -> bool) -> usize {
        self.recording.borrow().as_ref().map_or(0, |recording| recording.recorder.count(test))
    }

    /// What was done since [`Self::begin_recording`].
    pub(crate) fn end_recording(&self) -> Vec<(Duration, String)> {
        self.recording.take().map(|recording| recording.faults).unwrap_or_default()
    }

    // --- who and where ---

    /// The members of this kind.
    pub(crate) fn members(&self, kind: &str) -> Vec<String> {
        let count = match kind {
            "kafka" => self.brokers,
            "redis" => 1 + u8::from(self.sentinels),
            _ => 2,
        };
        let name = |number: u8| if kind == "postgres" { char::from(b'a' + number - 1).to_string() } else { number.to_string() };
        (1..=count).map(|number| format!("{kind}-{}", name(number))).collect()
    }

    /// Where a process of ours answers HTTP, such as `127.0.0.1:37080`.
    pub(crate) fn address(&self, name: &str) -> Result<String> {
        let url = self.cluster(&["url", name])?;
        Ok(url.rsplit("//").next().unwrap_or_default().trim_end_matches('/').to_owned())
    }

    /// Where clients connect: each gateway, by name or by address.
    pub(crate) async fn targets(&self, gateways: &[&str]) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for name in gateways {
            let address = if name.contains(':') { (*name).to_owned() } else { self.address(name)? };
            targets.push(Target::resolve(&format!("ws://{address}/ws")).await?);
        }
        Ok(targets)
    }

    /// Users nobody has used before, with their tokens.
    pub(crate) fn accounts(&self, count: u64) -> Result<Vec<Account>> {
        let first = self.next_user.get();
        self.next_user.set(first + count);
        let out = self.halts.path().join("tokens.txt");
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config("gateway-1"));
        command.args(["token", "--users", &format!("{first}-{}", first + count - 1), "--out"]).arg(&out);
        let output = command.output().context("the binary")?;
        ensure!(output.status.success(), "switchboard token: {}", String::from_utf8_lossy(&output.stderr));
        tokens::read(&out)
    }

    /// A process that `scripts/cluster` knows nothing of; it is killed when what this returns is dropped.
    pub(crate) fn extra(&self, name: &str, config: &str) -> Result<Extra> {
        let file = self.halts.path().join(format!("{name}.toml"));
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(self.folder.join("logs").join(format!("{name}.log")))?;
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(file).arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Extra(command.env("TEST_HALTS", self.halts.path()).spawn().context("the binary")?))
    }

    /// The configuration file of a process.
    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.folder.join("config").join(format!("{name}.toml"))
    }

    /// The end of a process's log.
    pub(crate) fn log(&self, name: &str) -> String {
        let text = self.whole_log(name);
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }

    /// All of it.
    pub(crate) fn whole_log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join("logs").join(format!("{name}.log"))).unwrap_or_default()
    }

    // --- waiting ---

    /// Waits until every process of ours is ready.
    pub(crate) async fn all_ready(&self) -> Result<()> {
        for kind in ["storage", "router", "gateway"] {
            for name in self.members(kind) {
                self.ready(&name).await?;
            }
        }
        Ok(())
    }

    /// Waits until a process of ours is ready.
    pub(crate) async fn ready(&self, name: &str) -> Result<()> {
        let address = self.address(name)?;
        self.until(&format!("{name} is ready"), || get(&address, "/ready").is_some_and(|(status, _)| status == 200)).await
    }

    /// The value of a metric of a process, summed over its labels that contain `label`.
    pub(crate) fn metric(&self, name: &str, metric: &str, label: &str) -> f64 {
        let answer = self.address(name).ok().and_then(|address| get(&address, "/metrics"));
        let text = answer.map(|(_, text)| text).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, test: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !test() {
            if Instant::now() >= end {
                bail!("{what}: not within {PATIENCE:?}\n{}", String::from_utf8_lossy(&self.run(&["status"])?.stdout));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// After a row that failed: whoever stands still goes on, whoever is dead starts, nobody dies anywhere any more.
    pub(crate) async fn heal(&self) -> Result<()> {
        self.wrong.set(true);
        self.recording.take();
        for place in std::fs::read_dir(self.halts.path())?.flatten() {
            if place.file_name().to_string_lossy().contains(':') {
                std::fs::remove_file(place.path())?;
            }
        }
        for kind in ["kafka", "redis", "postgres", "storage", "router", "gateway"] {
            for name in self.members(kind) {
                // refused for one that does not run, and that is started then
                let _ = self.run(&["resume", &name])?;
                self.cluster(&["start", &name])?;
            }
        }
        for name in ["storage-3", "router-3"] {
            // only a row that was cut short has left them
            let _ = self.run(&["remove", name])?;
        }
        self.all_ready().await
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let wrong = self.wrong.get() || std::thread::panicking();
        if wrong && self.keep {
            println!("the cluster still stands in {}", self.folder.display());
        } else {
            // nothing is to be done about one that does not end
            let _ = self.run(if wrong { &["down"] } else { &["down", "--wipe"] });
        }
    }
}

/// A process beside the stand's.
pub(crate) struct Extra(Child);

impl Extra {
    /// Whether the process that listens on this port is ready.
    pub(crate) fn is_ready(&self, port: u16) -> bool {
        get(&format!("127.0.0.1:{port}"), "/ready").is_some_and(|(status, _)| status == 200)
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One HTTP request, its status and body.
pub(crate) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect_timeout(&address.parse().ok()?, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}
