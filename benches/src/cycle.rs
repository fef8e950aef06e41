//! The real commit cycle over the real store: 10,000 users attached, a deliverer that drops what it gets, and so many sends in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::{Condvar, Mutex};
use protocol::record::{Content, Identity, Record};
use protocol::{ConversationId, DeviceName, MessageId, UserId};
use rand::RngExt as _;
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Registry as _};
use router::submit::{Outcome, Report, ReportSink, Submit as _};
use storage::cycle::{Cycle, Limits, Parts};
use storage::push::{Deliver, Push, Wake};
use storage::store::embedded::{EmbeddedStore, Options};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::{Common, meter};

const USERS: u64 = 10_000;
const BODY: usize = 200;

struct Nobody;
struct NoWake;
impl Wake for NoWake {}
impl Deliver for Nobody {
    fn push(&self, _node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        std::hint::black_box(pushes);
        Box::new(NoWake)
    }
}

/// Counts answers; a ticket is the time of its send in microseconds.
struct Answers {
    start: Instant,
    in_flight: Mutex<u64>,
    room: Condvar,
    bad: AtomicU64,
    latency_us: Mutex<Histogram<u64>>,
}

impl ReportSink for Answers {
    fn settled(&self, ticket: u64, outcome: Outcome) {
        if outcome != Outcome::Accepted {
            self.bad.fetch_add(1, Ordering::Relaxed);
        }
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.latency_us.lock().saturating_record(now.saturating_sub(ticket));
        *self.in_flight.lock() -= 1;
        self.room.notify_one();
    }
}

fn record(text: &str) -> Record {
    let mut random = rand::rng();
    let mut user = || UserId::from_stored(random.random_range(1..=USERS));
    let (sender, other) = (user(), user());
    let id = MessageId::from_stored(Uuid::now_v7().as_bytes()).expect("16 bytes");
    let identity = Identity { sender, conversation: ConversationId::direct(sender, other), id };
    Record { identity, content: Content::Text(text.to_owned()), reply_to: None, at_ms: 1 }
}

struct Figures {
    rate: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    disk: f64,
}

fn measure(common: &Common, in_flight: u64) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir_in(&common.dir)?;
    let runtime = Runtime::new()?;
    let defaults = Options::default();
    let options = Options {
        workers: common.workers.unwrap_or(defaults.workers),
        memtable_bytes: common.memtable_mib.map_or(defaults.memtable_bytes, |mib| mib << 20),
        ..defaults
    };
    let store = Arc::new(runtime.block_on(EmbeddedStore::open(dir.path(), options))?);
    let registry = Arc::new(MemoryRegistry::new());
    let device = DeviceName::default();
    for user in 1..=USERS {
        let entry = registry.register(UserId::from_stored(user), &device, NodeId { node: 0, boot: 1 });
        runtime.block_on(entry)?;
    }
    let parts = Parts {
        store: Arc::clone(&store),
        registry,
        deliver: Arc::new(Nobody),
        runtime: runtime.handle().clone(),
        limits: Limits::default(),
    };
    let cycle = Cycle::start(parts)?;
    let answers = Arc::new(Answers {
        start: Instant::now(),
        in_flight: Mutex::new(0),
        room: Condvar::new(),
        bad: AtomicU64::new(0),
        latency_us: Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?),
    });
    let text = "x".repeat(BODY);
    let (cpu, start, length) = (meter::cpu()?, Instant::now(), Duration::from_secs_f64(common.seconds));
    let mut count = 0_u64;
    while start.elapsed() < length {
        let mut flying = answers.in_flight.lock();
        answers.room.wait_while(&mut flying, |flying| *flying >= in_flight);
        *flying += 1;
        drop(flying);
        let ticket = u64::try_from(answers.start.elapsed().as_micros())?;
        cycle.submit(record(&text), Report::new(answers.clone(), ticket));
        count += 1;
    }
    cycle.close();
    let rate = count as f64 / start.elapsed().as_secs_f64();
    meter::settle()?;
    let cpu_us = (meter::cpu()? - cpu).as_secs_f64() * 1e6 / count as f64;
    anyhow::ensure!(answers.bad.load(Ordering::Relaxed) == 0, "not everything was accepted");
    let latency = answers.latency_us.lock();
    let of = |percent| latency.value_at_quantile(percent) as f64;
    Ok(Figures { rate, cpu_us, p50_us: of(0.5), p99_us: of(0.99), disk: meter::disk(dir.path()) as f64 / count as f64 })
}

/// All loads, some rounds each.
pub(crate) fn run(common: &Common) -> anyhow::Result<()> {
    println!("| in flight | messages/s | CPU µs a message | p50 ms | p99 ms | disk bytes a message |\n|---|---|---|---|---|---|");
    for in_flight in common.in_flight.iter().copied() {
        let mut figures = Vec::new();
        for _ in 0..common.rounds {
            let one = measure(common, in_flight)?;
            eprintln!("{in_flight}: {:.0}/s {:.1} us, load {}", one.rate, one.cpu_us, meter::load());
            figures.push(one);
        }
        let of = |pick: fn(&Figures) -> f64| meter::median(figures.iter().map(pick).collect());
        let (p50, p99) = (of(|f| f.p50_us) / 1000.0, of(|f| f.p99_us) / 1000.0);
        println!(
            "| {in_flight} | {:.0} | {:.1} | {p50:.2} | {p99:.2} | {:.0} |",
            of(|f| f.rate),
            of(|f| f.cpu_us),
            of(|f| f.disk)
        );
    }
    Ok(())
}
