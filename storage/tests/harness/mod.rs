//! A cycle over an embedded store in its own folder, with a deliverer and report sinks that keep everything.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use protocol::record::{Content, Event, EventBody, Identity, Record};
use protocol::{ConversationId, DeviceName};
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Registry};
use router::submit::{Outcome, Report, ReportSink, Submit};
use storage::cycle::{Cycle, Limits, Parts};
use storage::push::{Deliver, Push, ReceiptPush, Wake};
use storage::store::Store;
use storage::store::contract::{message_id, user};
use storage::store::embedded::{EmbeddedStore, Options};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const NODE: NodeId = NodeId { node: 1, boot: 7 };

/// The message with this number, from one to another.
pub fn record(from: u64, to: u64, number: u64, text: &str) -> Record {
    let (sender, other) = (user(from), user(to));
    // the receiver is in the id's own number: one sender's ids are unique over conversations
    let identity = Identity { sender, conversation: ConversationId::direct(sender, other), id: message_id(number, number) };
    Record { identity, content: Content::Text(text.to_owned()), reply_to: None, at_ms: number }
}

/// The number of a message or of the attempt that was refused.
pub fn number_of(body: &EventBody) -> u64 {
    match body {
        EventBody::Message(message) => message.record.identity.id.time_ms(),
        EventBody::Refused(refusal) => refusal.identity.id.time_ms(),
    }
}

/// Waits up to ten seconds.
pub fn wait(mut until: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !until() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Default)]
struct Pushed {
    pushes: Mutex<Vec<Push>>,
    receipts: Mutex<Vec<ReceiptPush>>,
    wakes: Arc<Mutex<usize>>,
}

struct Woken(Arc<Mutex<usize>>);
impl Wake for Woken {}
impl Drop for Woken {
    fn drop(&mut self) {
        *self.0.lock() += 1;
    }
}

impl Deliver for Pushed {
    fn push(&self, node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        assert_eq!(node, NODE);
        self.pushes.lock().extend(pushes);
        Box::new(Woken(Arc::clone(&self.wakes)))
    }

    fn receipts(&self, node: NodeId, pushes: Vec<ReceiptPush>) -> Box<dyn Wake> {
        assert_eq!(node, NODE);
        self.receipts.lock().extend(pushes);
        Box::new(Woken(Arc::clone(&self.wakes)))
    }
}

/// Outcomes by ticket.
#[derive(Default)]
struct Sink {
    outcomes: Mutex<Vec<Option<Outcome>>>,
    settled: Condvar,
}

impl ReportSink for Sink {
    fn settled(&self, ticket: u64, outcome: Outcome) {
        let before = self.outcomes.lock()[ticket as usize].replace(outcome);
        assert_eq!(before, None, "reported twice");
        self.settled.notify_all();
    }
}

/// Sends on their way.
pub struct Tickets {
    sink: Arc<Sink>,
    numbers: Vec<u64>,
}

impl Tickets {
    /// All outcomes, in order.
    pub fn wait(&self) -> Vec<Outcome> {
        self.wait_for(self.numbers.len());
        self.sink.outcomes.lock().iter().map(|outcome| outcome.unwrap()).collect()
    }

    /// Waits for that many.
    pub fn wait_for(&self, count: usize) {
        let mut outcomes = self.sink.outcomes.lock();
        while outcomes.iter().flatten().count() < count {
            let timeout = self.sink.settled.wait_for(&mut outcomes, Duration::from_secs(20));
            assert!(!timeout.timed_out(), "no report");
        }
    }

    /// Numbers of the messages that are accepted by now.
    pub fn accepted(&self) -> Vec<u64> {
        let outcomes = self.sink.outcomes.lock();
        self.numbers
            .iter()
            .zip(&*outcomes)
            .filter(|(_, outcome)| **outcome == Some(Outcome::Accepted))
            .map(|(number, _)| *number)
            .collect()
    }
}

/// The whole thing.
pub struct Bench {
    cycle: Option<Arc<Cycle>>,
    store: Option<Arc<EmbeddedStore>>,
    registry: Arc<MemoryRegistry>,
    pushed: Arc<Pushed>,
    fatal: Arc<Mutex<Vec<String>>>,
    limits: Limits,
    runtime: Option<Runtime>,
    dir: Option<TempDir>,
}

impl Bench {
    pub fn new(limits: Limits) -> Self {
        Self::over(tempfile::tempdir().unwrap(), limits, Options::default())
    }

    pub fn with(limits: Limits, options: Options) -> Self {
        Self::over(tempfile::tempdir().unwrap(), limits, options)
    }

    fn over(dir: TempDir, limits: Limits, options: Options) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&fatal);
        let options = Options { fatal: Arc::new(move |why| said.lock().push(why.to_owned())), ..options };
        let store = Arc::new(runtime.block_on(EmbeddedStore::open(dir.path(), options)).unwrap());
        let (registry, pushed) = (Arc::new(MemoryRegistry::new()), Arc::new(Pushed::default()));
        let parts = Parts {
            store: Arc::clone(&store),
            registry: registry.clone(),
            deliver: pushed.clone(),
            runtime: runtime.handle().clone(),
            limits,
        };
        let cycle = Some(Cycle::start(parts).unwrap());
        Self { cycle, store: Some(store), registry, pushed, fatal, limits, runtime: Some(runtime), dir: Some(dir) }
    }

    pub fn cycle(&self) -> &Cycle {
        self.cycle.as_ref().unwrap()
    }

    pub fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    pub fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// A device of this user is here.
    pub fn attach(&self, owner: u64) {
        self.block_on(self.registry.register(user(owner), &DeviceName::default(), NODE)).unwrap();
    }

    pub fn pushed(&self) -> Vec<Push> {
        self.pushed.pushes.lock().clone()
    }

    pub fn pushed_receipts(&self) -> Vec<ReceiptPush> {
        self.pushed.receipts.lock().clone()
    }

    pub fn wakes(&self) -> usize {
        *self.pushed.wakes.lock()
    }

    pub fn fatal(&self) -> Vec<String> {
        self.fatal.lock().clone()
    }

    /// Hands over sends without waiting.
    pub fn send(&self, records: impl IntoIterator<Item = Record>) -> Tickets {
        let records: Vec<_> = records.into_iter().collect();
        let sink = Arc::new(Sink { outcomes: Mutex::new(vec![None; records.len()]), settled: Condvar::new() });
        let numbers = records.iter().map(|record| record.identity.id.time_ms()).collect();
        for (record, ticket) in records.into_iter().zip(0..) {
            self.cycle().submit(record, Report::new(sink.clone(), ticket));
        }
        Tickets { sink, numbers }
    }

    /// Hands over sends and waits for all outcomes.
    pub fn send_all(&self, records: impl IntoIterator<Item = Record>) -> Vec<Outcome> {
        self.send(records).wait()
    }

    /// The whole mailbox above its floor.
    pub fn mailbox(&self, owner: u64) -> Vec<Event> {
        let floor = self.block_on(self.store().heads(router::expand::ShardId(0), &[user(owner)])).unwrap()[0].floor;
        self.block_on(self.store().read(user(owner), floor, u32::MAX, u32::MAX)).unwrap().events
    }

    /// Closed and opened again.
    pub fn reopen(mut self) -> Self {
        self.stop();
        Self::over(self.dir.take().unwrap(), self.limits, Options::default())
    }

    /// What a process that is killed now leaves behind: the files as they are, opened by another process.
    pub fn crash(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(self.path(), dir.path());
        Self::over(dir, self.limits, Options::default())
    }

    fn stop(&mut self) {
        if let Some(cycle) = self.cycle.take() {
            cycle.close();
        }
        if let Some(store) = self.store.take() {
            self.block_on(store.close());
        }
        drop(self.runtime.take());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.runtime.is_some() {
            self.stop();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "devices.sqlite-shm" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
