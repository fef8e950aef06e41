//! What the tests stand on: addresses from the environment, servers of their own, waiting for conditions.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use protocol::UserId;
use redis::FromRedisValue;
use router::members::Members;
use router::registry::redis::{RedisConfig, RedisLink, RedisRegistry};
use router::registry::{Registry, RegistryError};

/// An address, or a printed line that the test is skipped.
pub(crate) fn env(name: &str) -> Option<String> {
    let found = std::env::var(name).ok();
    if found.is_none() {
        assert!(std::env::var_os("TEST_REQUIRE_ENGINES").is_none(), "{name} is not set");
        println!("skipped: {name} is not set");
    }
    found
}

/// Like [`env`], but never required.
pub(crate) fn optional(name: &str) -> Option<String> {
    let found = std::env::var(name).ok();
    if found.is_none() {
        println!("skipped: {name} is not set");
    }
    found
}

/// A prefix that no other test has.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("t{}-{now:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Settings of a cluster of its own.
pub(crate) fn fresh(url: &str) -> RedisConfig {
    RedisConfig { url: Some(url.to_owned()), prefix: prefix(), ..RedisConfig::default() }
}

/// A registry that knows no members, once it is up.
pub(crate) async fn registry(config: &RedisConfig) -> RedisRegistry {
    let registry = RedisRegistry::new(RedisLink::new(config.clone()).unwrap(), Members::unknown());
    up(&registry).await;
    registry
}

/// Waits until the registry answers; says how long it took.
pub(crate) async fn up(registry: &RedisRegistry) -> Duration {
    until("the registry answers", async || registry.nodes(&[UserId::from_stored(9)]).await.is_ok()).await
}

/// Waits for a condition, at most 30 s; says how long it took.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(30), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// The call fails, no later than its time-out.
pub(crate) async fn fails_in_time<T: std::fmt::Debug>(call: impl Future<Output = Result<T, RegistryError>>) -> RegistryError {
    let began = Instant::now();
    let why = call.await.unwrap_err();
    // the time-out is 200 ms; what is tested is that there is one, on however busy a machine
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    why
}

/// A command of the test's own.
pub(crate) async fn command<T: FromRedisValue>(url: &str, words: &[&str]) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

/// A Redis of the test's own.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    dir: PathBuf,
}

impl Server {
    /// Starts one on a free port, or prints that there is none to start.
    pub(crate) async fn start() -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: there is no redis-server");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(prefix());
        std::fs::create_dir_all(&dir).unwrap();
        let server = Self { process: spawn(port, &dir), port, dir };
        server.ready().await;
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn dump(&self) -> PathBuf {
        self.dir.join("dump.rdb")
    }

    async fn ready(&self) {
        let port = self.port;
        until("redis-server listens", async || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status();
        assert!(done.unwrap().success());
    }

    /// Ends it by force.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on what lies in its folder.
    pub(crate) async fn again(&mut self) {
        self.process = spawn(self.port, &self.dir);
        self.ready().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(port: u16, dir: &Path) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string(), "--dir"]).arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
