//! The neutral client of all peers: many sockets, messages in an open loop, latency from the time a message was due.
//!
//! One thread sends when messages are due, straight into the sockets; a small runtime receives. Client `n` writes to client `n ^ 1`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::dialect::{self, Dialect, Seen, Session};
use super::websocket::{self, Decoder};

/// A client is in after so long, or tries again on a new connection: said, and part of what setting up costs.
const ENTER_WAIT: Duration = Duration::from_secs(5);
/// Tries to enter, before the run fails.
const ENTER_TRIES: usize = 4;
/// Clients that enter at the same time.
const ENTERING: usize = 64;
/// The last messages may come so late.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// Bytes that wait for a socket, at most.
const BACKLOG: usize = 1 << 20;
/// Histograms that are written apart and merged at the end.
const SHARDS: usize = 16;
/// Latencies above are counted as this, microseconds.
const LONGEST_US: u64 = 120_000_000;

/// When the `n`-th message is due, in nanoseconds after the first.
pub(crate) fn due_ns(n: u64, rate: f64) -> u64 {
    (n as f64 * 1e9 / rate) as u64
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are constants in range")
}

/// All of them as one.
pub(crate) fn merge<'a>(parts: impl IntoIterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut sum = histogram();
    for part in parts {
        sum.add(part).expect("the same bounds");
    }
    sum
}

/// What the receivers of one run share.
struct Counts {
    /// Times in messages count from here.
    epoch: Instant,
    /// Messages due before are warm-up.
    counted_from: AtomicU64,
    latency_us: [Mutex<Histogram<u64>>; SHARDS],
    delivered: AtomicU64,
    confirmed: AtomicU64,
    lost: Mutex<Option<String>>,
}

impl Counts {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn count(&self, client: usize, seen: &Seen) {
        self.confirmed.fetch_add(seen.confirmed, Ordering::Relaxed);
        for due in &seen.delivered {
            if *due >= self.counted_from.load(Ordering::Relaxed) {
                let latency = self.now_ns().saturating_sub(*due) / 1000;
                self.latency_us[client % SHARDS].lock().saturating_record(latency);
            }
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A socket that two write into: the sending thread, and its own task.
struct Line {
    stream: TcpStream,
    /// What the socket did not take yet.
    backlog: Mutex<Vec<u8>>,
    more: Notify,
}

impl Line {
    /// Writes now if the socket takes it, else later. Never waits.
    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut backlog = self.backlog.lock();
        let mut written = 0;
        if backlog.is_empty() {
            written = match self.stream.try_write(bytes) {
                Ok(written) => written,
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(why) => return Err(why),
            };
        }
        if written < bytes.len() {
            if backlog.len() > BACKLOG {
                return Err(std::io::Error::other("the server does not read"));
            }
            backlog.extend_from_slice(&bytes[written..]);
            drop(backlog);
            self.more.notify_one();
        }
        Ok(())
    }

    async fn flush(&self) -> std::io::Result<()> {
        loop {
            self.stream.writable().await?;
            let mut backlog = self.backlog.lock();
            match self.stream.try_write(&backlog) {
                Ok(written) => drop(backlog.drain(..written)),
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why),
            }
            if backlog.is_empty() {
                *backlog = Vec::new();
                return Ok(());
            }
        }
    }
}

/// One client's task: reads, answers, counts.
struct Client {
    number: usize,
    line: Arc<Line>,
    decoder: Decoder,
    session: Box<dyn Session>,
    opcode: u8,
}

impl Client {
    /// Up to being ready: connect, upgrade, the protocol's own way in.
    async fn enter(address: SocketAddr, number: usize, dialect: &dyn Dialect) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let line = Arc::new(Line { stream, backlog: Mutex::default(), more: Notify::new() });
        line.stream.writable().await?;
        line.write(websocket::request(&dialect.opening(number), &address.to_string()).as_bytes())?;
        let mut head = Vec::new();
        let end = loop {
            read(&line.stream, |bytes| head.extend_from_slice(bytes)).await?;
            if let Some(end) = websocket::response(&head)? {
                break end;
            }
        };
        let mut decoder = Decoder::default();
        decoder.push(&head[end..]);
        let mut client = Self { number, line, decoder, session: dialect.session(number), opcode: dialect.opcode() };
        if let Some(hello) = client.session.hello() {
            client.say(client.opcode, &hello)?;
        }
        while !client.take()?.ready {
            read(&client.line.stream, |bytes| client.decoder.push(bytes)).await?;
        }
        Ok(client)
    }

    fn say(&self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        websocket::encode(&mut bytes, opcode, payload);
        self.line.write(&bytes)
    }

    /// Works in what has been read.
    fn take(&mut self) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        while let Some((opcode, payload)) = self.decoder.next()? {
            match opcode {
                websocket::PING => self.say(websocket::PONG, &payload)?,
                websocket::PONG => {}
                websocket::CLOSE => {
                    anyhow::bail!("the server closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default()))
                }
                _ => self.session.take(&payload, &mut seen)?,
            }
        }
        for reply in std::mem::take(&mut seen.replies) {
            self.say(self.opcode, &reply)?;
        }
        self.decoder.rest();
        Ok(seen)
    }

    async fn run(mut self, counts: Arc<Counts>) {
        loop {
            let done = self.step(&counts).await;
            if let Err(why) = done {
                counts.lost.lock().get_or_insert_with(|| format!("client {}: {why:#}", self.number));
                return;
            }
        }
    }

    async fn step(&mut self, counts: &Counts) -> anyhow::Result<()> {
        let line = Arc::clone(&self.line);
        tokio::select! {
            read = read(&line.stream, |bytes| self.decoder.push(bytes)) => read?,
            () = line.more.notified() => line.flush().await?,
        }
        let seen = self.take()?;
        counts.count(self.number, &seen);
        Ok(())
    }
}

/// What is there, once something is. Bytes are on the stack of whoever reads, so that idle connections hold none. Safe to cancel.
async fn read(stream: &TcpStream, mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
    loop {
        stream.readable().await?;
        let mut bytes = [0; 8192];
        match stream.try_read(&mut bytes) {
            Ok(0) => anyhow::bail!("the server closed the connection"),
            Ok(length) => {
                take(&bytes[..length]);
                return Ok(());
            }
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why.into()),
        }
    }
}

/// The clients of one peer.
pub(crate) struct Crowd {
    dialect: Arc<dyn Dialect>,
    lines: Vec<Arc<Line>>,
    tasks: Vec<AbortHandle>,
    counts: Arc<Counts>,
}

/// What a run of messages gave.
pub(crate) struct Load {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) confirmed: u64,
    pub(crate) latency_us: Histogram<u64>,
}

impl Crowd {
    /// One client, in as many tries as it needs.
    async fn client(address: SocketAddr, number: usize, dialect: &dyn Dialect) -> anyhow::Result<Client> {
        for _ in 0..ENTER_TRIES {
            match tokio::time::timeout(ENTER_WAIT, Client::enter(address, number, dialect)).await {
                Ok(entered) => return entered,
                Err(_) => eprintln!("client {number} is not in after {ENTER_WAIT:?}"),
            }
        }
        anyhow::bail!("not in after {ENTER_TRIES} tries")
    }

    /// So many clients enter, some at a time, and stay.
    pub(crate) async fn enter(address: SocketAddr, count: usize, dialect: Arc<dyn Dialect>) -> anyhow::Result<Self> {
        let counts = Arc::new(Counts {
            epoch: Instant::now(),
            counted_from: AtomicU64::new(0),
            latency_us: std::array::from_fn(|_| Mutex::new(histogram())),
            delivered: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            lost: Mutex::default(),
        });
        let mut crowd = Self { dialect, lines: Vec::with_capacity(count), tasks: Vec::with_capacity(count), counts };
        let dialect = Arc::clone(&crowd.dialect);
        let entering = futures_util::stream::iter(0..count).map(|number| {
            let dialect = Arc::clone(&dialect);
            let entering = async move { Self::client(address, number, &*dialect).await };
            async move { tokio::spawn(entering).await?.with_context(|| format!("client {number}")) }
        });
        let mut entering = entering.buffered(ENTERING);
        while let Some(client) = entering.next().await {
            let client: Client = client?;
            crowd.lines.push(Arc::clone(&client.line));
            crowd.tasks.push(tokio::spawn(client.run(Arc::clone(&crowd.counts))).abort_handle());
        }
        drop(entering);
        Ok(crowd)
    }

    /// Only the first `count` stay.
    pub(crate) fn shrink(&mut self, count: usize) {
        for task in self.tasks.drain(count.min(self.tasks.len())..) {
            task.abort();
        }
        self.lines.truncate(count);
    }

    /// What went wrong, if something did.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.counts.lost.lock().clone() {
            Some(why) => anyhow::bail!(why),
            None => Ok(()),
        }
    }

    /// Messages at a fixed rate: a warm-up, then those that count. `begins` is called when the warm-up is over.
    pub(crate) async fn send(&self, plan: &Plan, begins: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Load> {
        let count = |length: Duration| (plan.rate * length.as_secs_f64()) as u64;
        let (warm, all) = (count(plan.warmup), count(plan.warmup + plan.duration));
        ensure!(!self.lines.is_empty() && self.lines.len().is_multiple_of(2) && all > warm, "nothing would be sent");
        self.counts.delivered.store(0, Ordering::Relaxed);
        self.counts.latency_us.iter().for_each(|part| part.lock().reset());
        let start = self.counts.now_ns() + 100_000_000;
        self.counts.counted_from.store(start + due_ns(warm, plan.rate), Ordering::Relaxed);
        let sender = Sender {
            lines: self.lines.clone(),
            dialect: Arc::clone(&self.dialect),
            counts: Arc::clone(&self.counts),
            start,
            plan: *plan,
        };
        let stop = Stop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let sending = tokio::task::spawn_blocking(move || sender.run(all, &stopped));
        let until = |ns| tokio::time::Instant::from_std(self.counts.epoch + Duration::from_nanos(ns));
        tokio::time::sleep_until(until(start + due_ns(warm, plan.rate))).await;
        let confirmed = self.counts.confirmed.load(Ordering::Relaxed);
        begins()?;
        sending.await??;
        drop(stop);
        let end = Instant::now() + LAST_WAIT;
        while self.counts.delivered.load(Ordering::Relaxed) < all && Instant::now() < end {
            self.check()?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.check()?;
        let parts: Vec<_> = self.counts.latency_us.iter().map(|part| part.lock().clone()).collect();
        let latency_us = merge(&parts);
        let confirmed = self.counts.confirmed.load(Ordering::Relaxed) - confirmed;
        Ok(Load { sent: all - warm, delivered: latency_us.len(), confirmed, latency_us })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Ends the sending thread when whoever waits for it goes away.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rate: f64,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) bytes: usize,
}

struct Sender {
    lines: Vec<Arc<Line>>,
    dialect: Arc<dyn Dialect>,
    counts: Arc<Counts>,
    start: u64,
    plan: Plan,
}

impl Sender {
    fn run(&self, count: u64, stop: &AtomicBool) -> anyhow::Result<()> {
        let (mut payload, mut bytes) = (Vec::new(), Vec::new());
        for number in 0..count {
            let due = self.start + due_ns(number, self.plan.rate);
            let early = due.saturating_sub(self.counts.now_ns());
            if early > 0 {
                std::thread::sleep(Duration::from_nanos(early));
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let from = usize::try_from(number % self.lines.len() as u64)?;
            let body = dialect::body(due, self.plan.bytes);
            payload.clear();
            bytes.clear();
            self.dialect.send(from ^ 1, due, &body, &mut payload);
            websocket::encode(&mut bytes, self.dialect.opcode(), &payload);
            if let Some(then) = self.dialect.then() {
                websocket::encode(&mut bytes, self.dialect.opcode(), then);
            }
            self.lines[from].write(&bytes).with_context(|| format!("client {from}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_the_rate_whatever_happened_before() {
        assert_eq!((due_ns(0, 1000.0), due_ns(1, 1000.0), due_ns(2500, 1000.0)), (0, 1_000_000, 2_500_000_000));
        assert_eq!(due_ns(3, 3.0), 1_000_000_000);
        let gaps: Vec<_> = (1..10_000).map(|n| due_ns(n, 7777.0) - due_ns(n - 1, 7777.0)).collect();
        assert!(gaps.iter().all(|gap| (128_583..=128_585).contains(gap)), "they never bunch");
    }

    #[test]
    fn merged_histograms_count_everything_once() {
        let part = |from: u64| {
            let mut one = histogram();
            (from..from + 500).for_each(|value| one.record(value).unwrap());
            one
        };
        let merged = merge(&[part(1), part(501), histogram()]);
        assert_eq!((merged.len(), merged.min(), merged.value_at_quantile(0.5)), (1000, 1, 500));
    }
}
