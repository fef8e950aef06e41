//! One world: durable ports, processes that are started again when they die, devices; from a seed to a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::UserId;
use protocol::plant::{Bug, plant};
use router::expand::{ShardId, Shards};
use router::log::memory::MemoryLog;
use router::log::{Log, Topic};
use router::registry::NodeId;
use storage::store::Store as _;
use tokio::time::{sleep, timeout};

use crate::client::{Around, Device};
use crate::faults::{Book, Databases, Honest, Redis};
use crate::net::Net;
use crate::node::{Kind, Node};
use crate::races::Counters;
use crate::sim::Sim;
use crate::{chaos, checker, determinism};

/// Partitions of messages.
pub const SOURCES: u16 = 2;
/// Virtual shards.
pub const SHARDS: u16 = 3;
/// Processes.
pub const NODES: u16 = 4;
/// Epoch of the log.
pub const LOG_EPOCH: u16 = 1;
/// How long bad things happen.
const TROUBLE: Duration = Duration::from_secs(30);
/// How long everything may take to come to rest after that.
const REST: Duration = Duration::from_secs(300);
/// How long a device that is attached may be without an event that is in its mailbox, when nothing bad happens any more: a comparison of heads,
/// and then a read.
const HEALED: Duration = Duration::from_secs(20);
/// Stack of a world's thread.
const STACK_BYTES: usize = 16 << 20;

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
    pub databases: Arc<Databases>,
    /// Registry and leases.
    pub redis: Arc<Redis>,
    /// Who can be linked with.
    pub book: Arc<Book>,
    /// Where clients connect.
    pub net: Arc<Net>,
    /// The devices.
    pub devices: Vec<Arc<Device>>,
    /// Somebody whose only device stays away until the end.
    pub sleeper: UserId,
    /// Who looks at router checkpoints.
    pub honest: Arc<Honest>,
    /// The newest life of each process.
    pub nodes: Mutex<BTreeMap<u16, Arc<Node>>>,
    owned: Mutex<BTreeMap<(Kind, u16), BTreeSet<NodeId>>>,
}

/// Runs a seed's world, with a bug planted or not, on a thread of its own.
pub fn run(seed: u64, bug: Option<Bug>, keep_trace: bool) -> Outcome {
    let world = std::thread::Builder::new().name(format!("seed-{seed}")).stack_size(STACK_BYTES);
    let thread = world.spawn(move || {
        determinism::enter(seed);
        plant(bug);
        on_this_thread(seed, keep_trace)
    });
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            let why =
                panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
            let wrong = vec![format!("panic: {}", why.unwrap_or_default())];
            Outcome { wrong, races: BTreeMap::new(), hash: 0, trace: Vec::new() }
        }
        Err(why) => Outcome { wrong: vec![format!("no thread: {why}")], races: BTreeMap::new(), hash: 0, trace: Vec::new() },
    }
}

fn on_this_thread(seed: u64, keep_trace: bool) -> Outcome {
    let counters = Counters::default();
    let (hash, trace, seen, mut wrong) = metrics::with_local_recorder(&counters, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime without I/O can always be made").block_on(async {
            let sim = Sim::new(seed, keep_trace);
            history(&sim).await;
            sim.results()
        })
    });
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
        if device.user != world.sleeper {
            tokio::spawn(Arc::clone(device).live());
        }
    }
    if timeout(TROUBLE, chaos::reign(&world)).await.is_ok() {
        sim.wrong("chaos ended by itself".into());
    }
    sim.heal();
    chaos::mend(&world).await;
    if timeout(REST, world.rest()).await.is_err() {
        sim.wrong(format!("stuck: {}", world.lag().await.unwrap_or_default()));
    }
    checker::judge(&world).await;
}

impl World {
    async fn new(sim: &Arc<Sim>) -> Arc<Self> {
        let log = MemoryLog::new(SOURCES, SHARDS);
        let shards = Shards::new(SHARDS).unwrap_or(Shards::ONE);
        let (net, book, redis) = (Net::new(sim), Arc::<Book>::default(), Redis::new(sim));
        let databases = Databases::new(sim, &log, shards);
        let around = Around {
            sim: Arc::clone(sim),
            net: Arc::clone(&net),
            book: Arc::clone(&book),
            databases: Arc::clone(&databases),
            redis: Arc::clone(&redis),
        };
        let users: Vec<_> = (1..=5).map(UserId::from_stored).collect();
        let devices = [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (3, "a"), (4, "a")];
        let device = |(user, name): (usize, &str)| Device::new(&around, users[user], name, users.clone());
        let world = Arc::new(Self {
            sim: Arc::clone(sim),
            devices: devices.into_iter().map(device).collect(),
            sleeper: users[4],
            redis,
            book,
            net,
            honest: Honest::new(sim, log.clone(), shards),
            databases,
            log,
            nodes: Mutex::default(),
            owned: Mutex::default(),
        });
        // every device is known to the store from the beginning, at 0
        for device in &world.devices {
            let store = world.databases.of(device.user);
            if store.cursor(device.user, &device.name, None).await.map(|place| place.seq) != Ok(0) {
                world.sim.wrong("a device was not born at 0".into());
            }
        }
        (0..NODES).for_each(|number| drop(tokio::spawn(Arc::clone(&world).keep(number))));
        world
    }

    /// A process, whenever it has died, again.
    async fn keep(self: Arc<Self>, number: u16) {
        loop {
            let node = Node::start(&self, number);
            self.nodes.lock().insert(number, Arc::clone(&node));
            if node.gateway.is_some() {
                self.net.enter(&node);
            }
            node.process.death().await;
            self.net.leave(&node);
            self.book.leave(node.id);
            self.bury(&node).await;
            drop(node);
            sleep(if self.sim.is_healed() { Duration::from_millis(5) } else { self.sim.up_to_ms(3000) }).await;
        }
    }

    async fn bury(&self, node: &Node) {
        let of: Vec<_> = {
            let mut owned = self.owned.lock();
            let ours = owned.iter_mut().filter_map(|(what, owners)| owners.remove(&node.id).then_some(*what));
            ours.collect()
        };
        for (kind, partition) in of {
            if kind == Kind::Router && self.unfinished(partition).await {
                self.sim.saw("router died with records on their way");
            }
        }
    }

    /// A process has begun to work on a partition, or has ended it.
    pub fn owned(&self, kind: Kind, partition: u16, node: NodeId, now: bool) {
        self.sim.note(|| format!("node-{} {} {kind:?} {partition}", node.node, if now { "takes" } else { "gives up" }));
        let mut owned = self.owned.lock();
        let owners = owned.entry((kind, partition)).or_default();
        if now {
            owners.insert(node);
        } else {
            owners.remove(&node);
        }
        if owners.len() > 1 {
            self.sim.saw(match kind {
                Kind::Router => "two routers of one partition",
                Kind::Storage => "two owners of one shard",
            });
        }
    }

    /// Whether the routers of this partition have not yet remembered all of it. (An older checkpoint may have appeared late behind the newest.)
    async fn unfinished(&self, number: u16) -> bool {
        self.honest.passed(number) < self.log.end(Topic::Messages, number).await.unwrap_or(0)
    }

    /// Waits until everything is said and nothing is on its way; then until every device has attached once more.
    async fn rest(&self) {
        while self.lag().await.is_some() {
            sleep(Duration::from_millis(250)).await;
        }
        if timeout(HEALED, self.healed()).await.is_err() {
            let late: Vec<_> = self
                .devices
                .iter()
                .filter(|device| device.user != self.sleeper && self.lacks(device))
                .map(|device| device.label())
                .collect();
            self.sim.wrong(format!("late: {late:?} are attached and lack events that were never told to them"));
        }
        checker::notified(self).await;
        self.sim.call_last();
        if let Some(sleeper) = self.devices.iter().find(|device| device.user == self.sleeper) {
            tokio::spawn(Arc::clone(sleeper).live());
        }
        while self.devices.iter().any(|device| !device.disk.lock().finished) {
            sleep(Duration::from_millis(250)).await;
        }
    }

    async fn healed(&self) {
        while self.devices.iter().any(|device| device.user != self.sleeper && self.lacks(device)) {
            sleep(Duration::from_millis(250)).await;
        }
    }

    fn lacks(&self, device: &Device) -> bool {
        let attached = device.live.lock().is_some();
        !attached || device.disk.lock().cursor() < self.databases.committed.head(device.user)
    }

    /// What is not yet done.
    pub async fn lag(&self) -> Option<String> {
        for number in 0..SOURCES {
            if self.unfinished(number).await {
                return Some(format!("router {number} is behind"));
            }
        }
        for number in 0..SHARDS {
            let shard = ShardId(number);
            let store = self.databases.newest(shard);
            let checkpoint = store.checkpoint(shard).await.unwrap_or_default();
            let end = self.log.end(Topic::Mailbox, number).await;
            if Ok(checkpoint.offset) != end {
                return Some(format!("shard {number} is behind at {}", checkpoint.offset));
            }
            let followed = store.followed(shard).await;
            if followed != end.map_err(|_| storage::store::StoreError::Unknown) {
                return Some(format!("the follower of shard {number} is behind at {followed:?}"));
            }
        }
        let behind = self.devices.iter().find(|device| !device.disk.lock().is_settled());
        behind.map(|device| format!("{} has sends that are not answered", device.label()))
    }
}
