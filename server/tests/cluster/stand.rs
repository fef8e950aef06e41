//! The real cluster that `scripts/cluster` brings up: Kafka, Redis, Postgres and the binary under test, each a process that can be killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use loadtest::client::Target;
use loadtest::tokens::{self, Account};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Longer than anything takes that is going to happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster; it is taken down when this is dropped.
pub(crate) struct Stand {
    folder: PathBuf,
    base: u16,
    /// Files that say where a process is to die.
    halts: TempDir,
    /// First user that no part of the run has used yet.
    next_user: std::cell::Cell<u64>,
    /// Incarnation of the log.
    log_epoch: std::cell::Cell<u16>,
}

impl Stand {
    /// Brings a cluster up, fresh.
    pub(crate) fn up(options: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
        let base = std::env::var("TEST_CLUSTER_PORTS").map_or(27_000, |base| base.parse().expect("TEST_CLUSTER_PORTS is a port"));
        let halts = tempfile::tempdir().expect("a folder");
        let stand = Self { folder, base, halts, next_user: std::cell::Cell::new(1), log_epoch: std::cell::Cell::new(1) };
        stand.must(&["down", "--wipe"]);
        let began = Instant::now();
        let mut arguments = vec!["up", "--bin", env!("CARGO_BIN_EXE_switchboard")];
        arguments.extend(options);
        stand.must(&arguments);
        println!("the cluster is up after {:.1?}", began.elapsed());
        stand
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster");
        let mut command = Command::new(script);
        command.args(arguments).stdin(Stdio::null());
        command.env("SWITCHBOARD_CLUSTER_DIR", &self.folder).env("SWITCHBOARD_CLUSTER_PORTS", self.base.to_string());
        command.env("TEST_HALTS", self.halts.path());
        command.output().expect("scripts/cluster runs")
    }

    /// Runs `scripts/cluster`; a failure ends the test with what it said.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "scripts/cluster {}: {}\n{said}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        said.trim().to_owned()
    }

    /// A signal to one process, or something else that `scripts/cluster` does to one.
    pub(crate) fn does(&self, what: &str, name: &str) {
        self.must(&[what, name]);
    }

    /// Where a process of ours answers HTTP, such as `127.0.0.1:37080`.
    pub(crate) fn address(&self, name: &str) -> String {
        let url = self.must(&["url", name]);
        url.rsplit("//").next().unwrap_or_default().trim_end_matches('/').to_owned()
    }

    /// Where clients connect: each gateway, by name or by address.
    pub(crate) async fn targets(&self, gateways: &[&str]) -> Vec<Target> {
        let mut targets = Vec::new();
        for name in gateways {
            let address = if name.contains(':') { (*name).to_owned() } else { self.address(name) };
            targets.push(Target::resolve(&format!("ws://{address}/ws")).await.expect("a loopback address"));
        }
        targets
    }

    /// Users nobody has used before, with their tokens.
    pub(crate) fn accounts(&self, count: u64) -> Vec<Account> {
        let first = self.next_user.get();
        self.next_user.set(first + count);
        let out = self.halts.path().join("tokens.txt");
        let config = self.config("gateway-1");
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command
            .arg("--config")
            .arg(config)
            .args(["token", "--users", &format!("{first}-{}", first + count - 1), "--out"])
            .arg(&out);
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "switchboard token: {}", String::from_utf8_lossy(&output.stderr));
        tokens::read(&out).expect("a tokens file")
    }

    /// A process that `scripts/cluster` knows nothing of; it is killed when what this returns is dropped.
    pub(crate) fn extra(&self, name: &str, config: &str) -> Extra {
        let file = self.halts.path().join(format!("{name}.toml"));
        std::fs::write(&file, config).expect("a configuration");
        let log = std::fs::File::create(self.folder.join("logs").join(format!("{name}.log"))).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.arg("--config").arg(file).arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Extra(command.env("TEST_HALTS", self.halts.path()).spawn().expect("the binary starts"))
    }

    /// The configuration file of a process.
    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.folder.join("config").join(format!("{name}.toml"))
    }

    /// The end of a process's log.
    pub(crate) fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join("logs").join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// The next process that comes to this place in the code dies there.
    pub(crate) fn halt_at(&self, place: &str) {
        std::fs::write(self.halts.path().join(place), "").expect("a file");
    }

    /// Everybody waits so long at this place from now on; 0: nobody does.
    pub(crate) fn hold_at(&self, place: &str, ms: u64) {
        let file = self.halts.path().join(place);
        if ms == 0 {
            let _ = std::fs::remove_file(file);
        } else {
            std::fs::write(file, ms.to_string()).expect("a file");
        }
    }

    /// Runs a command of the binary with the configuration of a storage process: whether it went well, and what it said.
    pub(crate) fn admin(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.arg("--config").arg(self.config("storage-1")).args(arguments).env("TEST_HALTS", self.halts.path());
        command.envs(
            self.log_settings().map(|(key, value)| (format!("SWITCHBOARD_{}", key.to_uppercase().replace('.', "__")), value)),
        );
        let output = command.output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    /// What stands before the names of topics: another one for each incarnation of the log.
    pub(crate) fn topic_prefix(&self) -> String {
        match self.log_epoch.get() {
            1 => String::new(),
            epoch => format!("log{epoch}-"),
        }
    }

    fn log_settings(&self) -> [(&'static str, String); 2] {
        [("cluster.log_epoch", self.log_epoch.get().to_string()), ("cluster.kafka.topic_prefix", self.topic_prefix())]
    }

    /// From now on commands speak of a new log.
    pub(crate) fn begin_log(&self) -> u16 {
        self.log_epoch.set(self.log_epoch.get() + 1);
        self.log_epoch.get()
    }

    /// Starts what was stopped, on the log that commands speak of.
    pub(crate) fn up_again(&self) {
        let mut arguments = vec!["up".to_owned()];
        for (key, value) in self.log_settings() {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        self.must(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// A file that goes with the stand.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let file = self.halts.path().join(name);
        let _ = std::fs::remove_file(&file);
        file
    }

    /// The database that serves a virtual shard.
    pub(crate) fn database_of(&self, shard: u16) -> String {
        let (ok, said) = self.admin(&["shard", "list"]);
        assert!(ok, "shard list: {said}");
        let open = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut open = open.filter(|words| words.len() > 2 && words[0] == shard.to_string() && words[2] == "open");
        open.next().map(|words| words[1].to_owned()).unwrap_or_default()
    }

    /// Waits until every process of ours is ready.
    pub(crate) async fn all_ready(&self) {
        for name in ["storage-1", "storage-2", "router-1", "router-2", "gateway-1", "gateway-2"] {
            self.ready(name).await;
        }
    }

    /// Whether somebody has died there.
    pub(crate) fn has_halted_at(&self, place: &str) -> bool {
        !self.halts.path().join(place).exists()
    }

    /// Waits until a process of ours is ready.
    pub(crate) async fn ready(&self, name: &str) {
        let address = self.address(name);
        self.until(&format!("{name} is ready"), || get(&address, "/ready").is_some_and(|(status, _)| status == 200)).await;
    }

    /// The value of a metric of a process, summed over its labels that contain `label`.
    pub(crate) fn metric(&self, name: &str, metric: &str, label: &str) -> f64 {
        let (_, text) = get(&self.address(name), "/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, test: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !test() {
            assert!(
                Instant::now() < end,
                "{what}: not within {PATIENCE:?}\n{}",
                String::from_utf8_lossy(&self.run(&["status"]).stdout)
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A process beside the stand's.
pub(crate) struct Extra(std::process::Child);

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

impl Drop for Stand {
    fn drop(&mut self) {
        let kept = std::thread::panicking() && std::env::var_os("TEST_KEEP_CLUSTER").is_some();
        if !kept {
            self.run(if std::thread::panicking() { &["down"] } else { &["down", "--wipe"] });
        }
    }
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
