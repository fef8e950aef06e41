//! One world: durable ports, processes that are started again when they die, devices; from a seed to a verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway::cursors::Cursors;
use gateway::deliver::Sessions;
use parking_lot::Mutex;
use protocol::UserId;
use protocol::limits::Limits;
use protocol::plant::{Bug, plant};
use protocol::record::Source;
use router::checkpoint::Newest;
use router::consume::Rewind;
use router::expand::{ShardId, Shards};
use router::log::memory::MemoryLog;
use router::log::{Log, Topic};
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Registry};
use storage::StorageError;
use storage::consume::Ports;
use storage::store::memory::MemoryStore;
use storage::store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::client::Device;
use crate::faults::{Committed, FaultyDeliver, FaultyLog, FaultyRegistry, FaultyStore, Gateways, Honest, Replaced};
use crate::gateway::{LogSubmit, Node};
use crate::net::Net;
use crate::process::Process;
use crate::races::Counters;
use crate::sim::Sim;
use crate::{chaos, checker};

/// Partitions of messages.
pub const SOURCES: u16 = 2;
/// Virtual shards.
pub const SHARDS: u16 = 3;
/// Gateways.
pub const GATEWAYS: u16 = 2;
/// Epoch of the log.
const LOG_EPOCH: u16 = 1;
/// How long bad things happen.
const TROUBLE: Duration = Duration::from_secs(30);
/// How long everything may take to come to rest after that.
const REST: Duration = Duration::from_secs(300);

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that is wrong; empty is good.
    pub wrong: Vec<String>,
    /// Races, by name.
    pub races: BTreeMap<String, u64>,
    /// Hash over the whole trace.
    pub hash: u64,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
}

/// What lasts, and who is there now.
pub struct World {
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// The log.
    pub log: MemoryLog,
    /// The mailboxes.
    pub store: MemoryStore,
    /// The registry.
    pub registry: Arc<MemoryRegistry>,
    /// When what was committed.
    pub committed: Arc<Committed>,
    /// Where clients connect.
    pub net: Arc<Net>,
    /// The devices.
    pub devices: Vec<Arc<Device>>,
    /// The number of shards as a type.
    pub shards: Shards,
    /// Who runs now: gateways, routers, storage owners, by kind and number; the newest last.
    pub running: Mutex<Running>,
    honest: Arc<Honest>,
    replaced: Arc<Replaced>,
    gateways: Arc<Gateways>,
    rewinds: mpsc::Sender<Rewind>,
    /// The way to the newest router of each partition.
    pub routers: Mutex<BTreeMap<u16, mpsc::Sender<Rewind>>>,
}

/// The lives of each process, the newest last.
type Running = BTreeMap<(Kind, u16), Vec<Arc<Process>>>;

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Holds connections.
    Gateway,
    /// Reads a partition of messages.
    Router,
    /// Owns a shard.
    Storage,
}

/// Runs a seed's world, with a bug planted or not.
pub fn run(seed: u64, bug: Option<Bug>, keep_trace: bool) -> Outcome {
    let counters = Counters::default();
    plant(bug);
    let (hash, trace, seen, mut wrong) = metrics::with_local_recorder(&counters, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime without I/O can always be made").block_on(async {
            let sim = Sim::new(seed, keep_trace);
            history(&sim).await;
            sim.results()
        })
    });
    plant(None);
    let mut races = counters.all();
    // what an honest log and honest routers never cause, and what only they can tell
    for never in ["storage_records wrong_digest", "storage_audits_behind", "router_forks", "router_stops"] {
        wrong.extend(races.get(never).map(|count| format!("{never}: {count} times")));
    }
    races.extend(seen.into_iter().map(|(race, count)| (race.to_owned(), count)));
    Outcome { wrong, races, hash, trace }
}

/// Everything that happens.
async fn history(sim: &Arc<Sim>) {
    sim.note(|| format!("{:?}", sim.weather));
    let world = World::new(sim).await;
    for device in &world.devices {
        tokio::spawn(Arc::clone(device).live());
    }
    if timeout(TROUBLE, chaos::reign(&world)).await.is_ok() {
        sim.wrong("chaos ended by itself".into());
    }
    sim.heal();
    world.all_go_on();
    if timeout(REST, world.rest()).await.is_err() {
        sim.wrong(format!("stuck: {}", world.lag().await.unwrap_or_default()));
    }
    checker::judge(&world).await;
}

impl World {
    async fn new(sim: &Arc<Sim>) -> Arc<Self> {
        let log = MemoryLog::new(SOURCES, SHARDS);
        let shards = Shards::new(SHARDS).unwrap_or(Shards::ONE);
        let net = Net::new(sim);
        let (rewinds, requests) = mpsc::channel(64);
        let users: Vec<_> = (1..=4).map(UserId::from_stored).collect();
        let devices = [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (3, "a")];
        let device = |(user, name): (usize, &str)| Device::new(sim, &net, users[user], name, users.clone());
        let world = Arc::new(Self {
            sim: Arc::clone(sim),
            store: MemoryStore::new(),
            registry: Arc::new(MemoryRegistry::new()),
            committed: Arc::default(),
            devices: devices.into_iter().map(device).collect(),
            net,
            shards,
            running: Mutex::default(),
            honest: Honest::new(sim, log.clone(), shards),
            log,
            replaced: Arc::default(),
            gateways: Arc::default(),
            rewinds,
            routers: Mutex::default(),
        });
        world.devices_are_born().await;
        tokio::spawn(Arc::clone(&world).forward(requests));
        (0..GATEWAYS).for_each(|number| drop(tokio::spawn(Arc::clone(&world).keep_gateway(number))));
        (0..SOURCES).for_each(|number| drop(tokio::spawn(Arc::clone(&world).keep_router(number, true))));
        (0..SHARDS).for_each(|number| drop(tokio::spawn(Arc::clone(&world).keep_storage(number))));
        world
    }

    /// Every device is known to the store from the beginning, at 0.
    pub async fn devices_are_born(&self) {
        for device in &self.devices {
            if self.store.cursor(device.user, &device.name, None).await.map(|place| place.seq) != Ok(0) {
                self.sim.wrong("a device was not born at 0".into());
            }
        }
    }

    fn start(&self, kind: Kind, number: u16) -> Arc<Process> {
        let process = Process::start(&self.sim, format!("{kind:?}-{number}"));
        let mut running = self.running.lock();
        let lives = running.entry((kind, number)).or_default();
        lives.retain(|process| !process.is_dead());
        lives.push(Arc::clone(&process));
        process
    }

    fn log_of(&self, process: &Arc<Process>) -> Arc<FaultyLog> {
        FaultyLog::new(&self.log, process, &self.sim, &self.honest)
    }

    fn store_of(&self, process: &Arc<Process>) -> Arc<dyn Store> {
        Arc::new(FaultyStore {
            inner: self.store.clone(),
            process: Arc::clone(process),
            sim: Arc::clone(&self.sim),
            committed: Arc::clone(&self.committed),
        })
    }

    fn registry_of(&self, process: &Arc<Process>) -> Arc<dyn Registry> {
        Arc::new(FaultyRegistry {
            inner: Arc::clone(&self.registry),
            process: Arc::clone(process),
            sim: Arc::clone(&self.sim),
            replaced: Arc::clone(&self.replaced),
        })
    }

    /// Waits a moment, as one who starts dead processes again.
    async fn notice(&self) {
        sleep(if self.sim.is_healed() { Duration::from_millis(5) } else { self.sim.up_to_ms(3000) }).await;
    }

    /// A gateway, whenever it has died, again.
    async fn keep_gateway(self: Arc<Self>, number: u16) {
        loop {
            let process = self.start(Kind::Gateway, number);
            let store = self.store_of(&process);
            let node = Arc::new(Node {
                id: NodeId { node: number, boot: self.sim.bits() },
                process: Arc::clone(&process),
                sim: Arc::clone(&self.sim),
                limits: Limits { window_events: 8, window_bytes: 4096, in_flight: 6, ..Limits::default() },
                submit: LogSubmit::new(self.log_of(&process), &process, SOURCES),
                registry: self.registry_of(&process),
                sessions: Arc::new(Sessions::default()),
                cursors: Cursors::new(Arc::clone(&store)),
                store,
                committed: Arc::clone(&self.committed),
                replaced: Arc::clone(&self.replaced),
                gateways: Arc::clone(&self.gateways),
                shards: self.shards,
                seats: Mutex::default(),
            });
            self.gateways.enter(node.id, Arc::clone(&node.sessions));
            node.start();
            self.net.enter(&node);
            process.death().await;
            self.net.leave(&node);
            self.gateways.leave(node.id);
            drop(self.registry.bury(node.id).await);
            self.notice().await;
        }
    }

    /// A router; again, whenever it has died, if it is to be kept.
    pub async fn keep_router(self: Arc<Self>, number: u16, keep: bool) {
        loop {
            let process = self.start(Kind::Router, number);
            let (sender, rewinds) = mpsc::channel(8);
            self.routers.lock().insert(number, sender);
            let (log, sim, shards) = (self.log_of(&process), Arc::clone(&self.sim), self.shards);
            let source = Source { partition: number, epoch: LOG_EPOCH };
            process.spawn(async move {
                let why = router::consume::run(&*log, source, shards, rewinds).await;
                sim.wrong(format!("router {number} stopped: {why}"));
            });
            process.death().await;
            if self.unfinished(number).await {
                self.sim.saw("router died with records on their way");
            }
            if !keep {
                return;
            }
            self.notice().await;
        }
    }

    /// Whether the routers of this partition have not yet remembered all of it. (An older checkpoint may have appeared late behind the newest.)
    async fn unfinished(&self, number: u16) -> bool {
        self.honest.passed(number) < self.log.end(Topic::Messages, number).await.unwrap_or(0)
    }

    /// An owner of a shard; another one, whenever it has died or stands still, or was fenced without a successor.
    async fn keep_storage(self: Arc<Self>, number: u16) {
        loop {
            let process = self.start(Kind::Storage, number);
            let ports = Ports {
                log: self.log_of(&process),
                store: self.store_of(&process),
                registry: self.registry_of(&process),
                deliver: Arc::new(FaultyDeliver { gateways: Arc::clone(&self.gateways), sim: Arc::clone(&self.sim) }),
                rewinds: self.rewinds.clone(),
                sent: Arc::new(Newest::new(self.log_of(&process), SOURCES)),
            };
            let (sim, own) = (Arc::clone(&self.sim), Arc::clone(&process));
            process.spawn(async move {
                match storage::consume::run(ShardId(number), &ports).await {
                    StorageError::Store(StoreError::Fenced(_)) => own.kill("fenced"),
                    why => sim.wrong(format!("storage of shard {number} stopped: {why}")),
                }
            });
            tokio::select! {
                biased;
                () = process.death() => self.notice().await,
                () = process.standstill() => self.sim.saw("two owners of one shard"),
            }
        }
    }

    /// Carries requests to rewind to the routers; some are lost.
    async fn forward(self: Arc<Self>, mut requests: mpsc::Receiver<Rewind>) {
        while let Some(request) = requests.recv().await {
            self.sim.note(|| format!("{request:?}"));
            if self.sim.strikes(self.sim.weather.fails) {
                self.sim.saw("request to rewind lost");
                continue;
            }
            let router = self.routers.lock().get(&request.source.partition).cloned();
            let after = self.sim.delay();
            tokio::spawn(async move {
                sleep(after).await;
                if let Some(router) = router {
                    let _ = router.try_send(request); // full or gone: it is asked again
                }
            });
        }
    }

    /// Who stands still goes on.
    pub fn all_go_on(&self) {
        self.running.lock().values().flatten().for_each(|process| process.go_on());
    }

    /// Waits until everything is said and nothing is on its way; then until every device has attached once more.
    async fn rest(&self) {
        while self.lag().await.is_some() {
            sleep(Duration::from_millis(250)).await;
        }
        self.sim.call_last();
        while self.devices.iter().any(|device| !device.disk.lock().finished) {
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// What is not yet done.
    pub async fn lag(&self) -> Option<String> {
        for number in 0..SOURCES {
            if self.unfinished(number).await {
                return Some(format!("router {number} is behind"));
            }
        }
        for number in 0..SHARDS {
            let checkpoint = self.store.checkpoint(ShardId(number)).await.unwrap_or_default();
            if Ok(checkpoint.offset) != self.log.end(Topic::Mailbox, number).await {
                return Some(format!("shard {number} is behind at {}", checkpoint.offset));
            }
        }
        let behind = self.devices.iter().find(|device| !device.disk.lock().is_settled());
        behind.map(|device| format!("{}/{} has sends that are not answered", device.user, device.name))
    }
}
