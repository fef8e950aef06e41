//! The share of a process in the partitions: the loop of the server's `owners`, and what each partition runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::record::Source;
use router::assign::{Kind as Assigned, mine};
use router::checkpoint::Newest;
use router::consume::Rewind;
use router::expand::ShardId;
use router::members::Role;
use storage::StorageError;
use storage::consume::Ports;
use storage::store::StoreError;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::Node;
use super::lease::{DATABASES, LOG};
use crate::faults::FaultyLog;
use crate::world::{LOG_EPOCH, SHARDS, SOURCES};

/// How often the share is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// A partition that was taken away is looked at again after this.
const TAKEN_REST: Duration = Duration::from_millis(30);
/// And after up to this more when that happens again within [`DISPUTED`].
const DISPUTED_REST_MS: u64 = 1500;
/// Soon.
const DISPUTED: Duration = Duration::from_secs(3);
/// Requests to rewind that wait for one router.
const REWINDS: usize = 16;

/// What is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Partitions of messages.
    Router,
    /// Virtual shards.
    Storage,
}

impl Kind {
    const fn count(self) -> u16 {
        match self {
            Self::Router => SOURCES,
            Self::Storage => SHARDS,
        }
    }
}

#[derive(Default)]
struct Running {
    here: BTreeMap<u16, (u64, AbortHandle)>,
    starts: u64,
    resting: BTreeMap<u16, Instant>,
    taken: BTreeMap<u16, Instant>,
}

/// Keeps the tasks of one role in line with its share.
pub(super) async fn keep(node: Arc<Node>, kind: Kind) {
    let (tell, mut ended) = mpsc::channel::<(u16, u64)>(64);
    let mut running = Running::default();
    loop {
        tokio::select! {
            biased;
            Some((partition, start)) = ended.recv() => {
                if running.here.get(&partition).is_some_and(|(newest, _)| *newest == start) {
                    taken_away(&node, &mut running, kind, partition);
                }
                continue;
            }
            () = sleep(EVERY) => {}
        }
        node.process.gate().await;
        let Some(share) = share(&node, kind) else { continue };
        let given: Vec<_> = running.here.keys().filter(|partition| !share.contains(partition)).copied().collect();
        for partition in given {
            if let Some((_, task)) = running.here.remove(&partition) {
                task.abort();
                node.world.owned(kind, partition, node.id, false);
            }
        }
        let now = Instant::now();
        for partition in share {
            if running.here.contains_key(&partition) || running.resting.get(&partition).is_some_and(|until| *until > now) {
                continue;
            }
            running.starts += 1;
            let start = running.starts;
            if let Some(handle) = begin(&node, kind, partition, (start, tell.clone())) {
                running.here.insert(partition, (start, handle));
                node.world.owned(kind, partition, node.id, true);
            }
        }
    }
}

/// None: everything stays as it is.
fn share(node: &Node, kind: Kind) -> Option<BTreeSet<u16>> {
    let (assigned, role, needs) = match kind {
        Kind::Router => (Assigned::Messages, Role::Router, &[LOG][..]),
        Kind::Storage => (Assigned::Mailbox, Role::Storage, &[LOG, DATABASES][..]),
    };
    let view = node.members.view();
    let live = view.live(role);
    if !view.may_acquire() || !live.contains(&node.id) {
        return None;
    }
    let able = view.able(role, needs);
    if able.len() < live.len() {
        node.world.sim.saw("a member that does not reach what it needs has no share");
    }
    Some(mine(assigned, kind.count(), &able, node.id))
}

/// Somebody else has taken it: it is looked at again after a rest.
fn taken_away(node: &Node, running: &mut Running, kind: Kind, partition: u16) {
    running.here.remove(&partition);
    node.world.owned(kind, partition, node.id, false);
    let before = running.taken.insert(partition, Instant::now());
    let disputed = before.is_some_and(|at| at.elapsed() < DISPUTED);
    let rest = if disputed { node.world.sim.up_to_ms(DISPUTED_REST_MS) } else { Duration::ZERO };
    running.resting.insert(partition, Instant::now() + TAKEN_REST + rest);
}

fn begin(node: &Arc<Node>, kind: Kind, partition: u16, ended: (u64, mpsc::Sender<(u16, u64)>)) -> Option<AbortHandle> {
    let own = Arc::clone(node);
    let (start, tell) = ended;
    node.process.spawn(async move {
        match kind {
            Kind::Router => route(&own, partition).await,
            Kind::Storage => store(&own, partition).await,
        }
        let _ = tell.send((partition, start)).await;
    })
}

fn log_of(node: &Node, owner: bool) -> Arc<FaultyLog> {
    let world = &node.world;
    FaultyLog::new(&world.log, &node.process, &world.sim, &world.honest, owner.then_some(&world.databases))
}

async fn route(node: &Arc<Node>, partition: u16) {
    let (way, rewinds) = mpsc::channel(REWINDS);
    node.routers.lock().insert(partition, way);
    let source = Source { partition, epoch: LOG_EPOCH };
    let why = router::consume::run(&*log_of(node, false), source, node.world.databases.shards, rewinds).await;
    node.world.sim.wrong(format!("router {partition} stopped: {why}"));
}

async fn store(node: &Arc<Node>, partition: u16) {
    let (asking, asks) = mpsc::channel(REWINDS * 4);
    let log = log_of(node, true);
    let ports = Ports {
        log: log.clone(),
        store: node.store.clone(),
        registry: node.registry.clone(),
        deliver: node.links.clone(),
        rewinds: asking,
        sent: Arc::new(Newest::new(log, SOURCES)),
    };
    let following = storage::follow::Ports {
        log: log_of(node, false),
        store: node.store.clone(),
        registry: node.registry.clone(),
        partitions: 1,
    };
    let shard = ShardId(partition);
    tokio::select! {
        biased;
        why = storage::consume::run(shard, &ports) => if !matches!(why, StorageError::Store(StoreError::Fenced(_))) {
            node.world.sim.wrong(format!("storage of shard {partition} stopped: {why}"));
        },
        why = storage::follow::run(shard, &following) => {
            node.world.sim.wrong(format!("the follower of shard {partition} stopped: {why}"));
        }
        () = Arc::clone(node).ask_routers(asks) => {}
    }
}

/// Carries requests to rewind to the routers that are here.
pub(super) async fn hand_over(node: Arc<Node>, mut asked: mpsc::Receiver<Rewind>) {
    while let Some(request) = asked.recv().await {
        node.process.gate().await;
        let way = node.routers.lock().get(&request.source.partition).cloned();
        // not here, or busy with others: it is asked for again
        let _ = way.map(|way| way.try_send(request));
    }
}
