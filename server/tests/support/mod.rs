//! The real binary under test: started on a temporary data directory, killed, drained, measured, and never left behind.

#![allow(dead_code, reason = "each test file uses its part of it")]

mod authority;

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use loadtest::actor::{Actor, Habits, Plan};
use loadtest::client::Target;
use loadtest::process::Process;
use loadtest::record::{ClientId, Entry, Recorder};
use loadtest::settle;
use loadtest::tls;
use loadtest::tokens::{self, Account};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

pub(crate) use authority::Authority;

/// Longer than anything takes that is going to happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where a server lives: its data directory, its settings, and the port it keeps over restarts.
pub(crate) struct Stand {
    directory: TempDir,
    settings: Vec<(&'static str, &'static str)>,
    port: u16,
    /// Over TLS, with a certificate of this authority.
    authority: Option<Authority>,
}

impl Stand {
    /// A new data directory. The port is chosen at the first start.
    pub(crate) fn new(settings: &[(&'static str, &'static str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, settings: settings.to_vec(), port: 0, authority: None }
    }

    /// The same, over TLS.
    pub(crate) fn over_tls(settings: &[(&'static str, &'static str)]) -> Self {
        let mut stand = Self::new(settings);
        stand.authority = Some(Authority::new(&stand.directory.path().join("tls")));
        stand
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        // The server refuses settings it does not know, and those of the tests themselves are such.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SWITCHBOARD_")) {
            command.env_remove(name);
        }
        if let Some(authority) = &self.authority {
            command.env("SWITCHBOARD_GATEWAY__TLS__CERTIFICATE", authority.certificate());
            command.env("SWITCHBOARD_GATEWAY__TLS__KEY", authority.key());
        }
        command.envs(self.settings.iter().copied()).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Tokens of the users 1 to `last`.
    pub(crate) async fn accounts(&self, last: u64) -> Vec<Account> {
        let out = self.directory.path().join("tokens");
        let users = format!("1-{last}");
        let mut command = self.command();
        command.args(["token", "--users", &users, "--out"]).arg(&out).arg("--data").arg(self.data());
        let status = command.status().await.expect("the binary runs");
        assert!(status.success(), "switchboard token: {status}");
        let accounts = tokens::read(&out).expect("a tokens file");
        assert_eq!(accounts.len() as u64, last, "one token for each user");
        accounts
    }

    /// Starts the server and waits until it listens. The first port it got is kept.
    pub(crate) async fn start(&mut self) -> Server {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = self.command();
        command.arg("serve").arg("--data").arg(self.data()).arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let address = tokio::time::timeout(PATIENCE, listening(&mut lines)).await.expect("the server listens in time");
        let Some(address) = address else { panic!("the server ended at its start:\n{}", self.tail()) };
        self.port = address.rsplit_once(':').expect("host:port").1.trim_end_matches('/').parse().expect("a port");
        // Whatever else it prints is read, so that it never waits for us.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Server { child }
    }

    /// Where clients connect.
    pub(crate) async fn target(&self) -> Target {
        Target::resolve_by(&self.url(), &self.trusted()).await.expect("a loopback address")
    }

    /// The same as a url.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{}/ws", self.port)
    }

    /// The authority of a stand over TLS.
    pub(crate) fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("it is over TLS")
    }

    /// Who has signed the server's certificate.
    pub(crate) fn trusted(&self) -> tls::Authority {
        let read = self.authority.as_ref().map(|authority| tls::Authority::read(&authority.ca()).expect("the authority's file"));
        read.unwrap_or_default()
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, self.port))
    }

    /// The server's metrics, in the text format of Prometheus.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.address()).await.expect("the server listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("the server reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("metrics are text");
        text
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("stderr")
    }

    /// All that the server has logged.
    pub(crate) fn whole_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The end of the server's log.
    pub(crate) fn tail(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    /// Keeps a recording that was found wrong, and says where.
    pub(crate) fn keep(&self, name: &str, entries: &[Entry]) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
        let lines: Vec<_> = entries.iter().map(|entry| serde_json::to_string(entry).expect("an entry is JSON")).collect();
        std::fs::write(&path, lines.join("\n")).expect("the recording is kept");
        eprintln!("recording: {}\nserver log:\n{}", path.display(), self.tail());
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the server's log:\n{}", self.tail());
        }
    }
}

async fn listening(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    while let Some(line) = lines.next_line().await.expect("stdout is text") {
        if let Some((_, address)) = line.strip_prefix("listening on ").and_then(|url| url.split_once("://")) {
            return Some(address.to_owned());
        }
    }
    None
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process::new(self.child.id().expect("the server runs"))
    }

    /// kill -9, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("the server ran until it was killed");
    }

    /// Asks it to stop.
    pub(crate) async fn terminate(&self) {
        self.signal("-TERM").await;
    }

    /// Asks it to read certificate and key again.
    pub(crate) async fn hang_up(&self) {
        self.signal("-HUP").await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the server runs").to_string();
        let status = Command::new("kill").args([signal, &pid]).status().await.expect("kill runs");
        assert!(status.success(), "kill {signal} {pid}: {status}");
    }

    /// Waits until it ended by itself.
    pub(crate) async fn ended(mut self, deadline: Duration) -> ExitStatus {
        let status = tokio::time::timeout(deadline, self.child.wait()).await;
        status.expect("the server ends by its deadline").expect("the server can be waited for")
    }
}

/// Starts one actor.
pub(crate) fn actor(target: &Target, account: &Account, device: &str, recorder: &Recorder) -> Actor {
    let client = ClientId::new(account.user, device);
    let seed = account.user * 1000 + device.bytes().map(u64::from).sum::<u64>();
    let plan = Plan { targets: vec![target.with_token(&account.token)], client, habits: Habits::default(), seed };
    Actor::start(plan, recorder)
}

/// Waits until every actor passes the test, or says which does not.
pub(crate) async fn all_reach(actors: &[Actor], what: &str, test: impl Fn(&loadtest::actor::Status) -> bool + Copy) {
    settle::all_reach(actors, what, PATIENCE, test).await.unwrap_or_else(|why| panic!("{why:#}"));
}

/// Everything is settled; a fresh device of each user reads everything back; the old devices catch up to it and stop.
pub(crate) async fn settle_and_read_back(
    target: &Target,
    accounts: &[Account],
    actors: Vec<Actor>,
    conversations: impl Fn(u64) -> Vec<String>,
    recorder: &Recorder,
) -> Vec<Entry> {
    let read = settle::read_back(target, accounts, actors, (conversations, PATIENCE), recorder).await;
    read.unwrap_or_else(|why| panic!("{why:#}"))
}
