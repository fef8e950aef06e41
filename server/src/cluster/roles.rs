//! What the roles do: routers and storage owners, each with its share of the partitions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gateway::node::now_ms;
use parking_lot::Mutex;
use protocol::record::Source;
use router::assign::Kind;
use router::checkpoint::Newest;
use router::consume::Rewind;
use router::expand::ShardId;
use router::log::kafka::KafkaConfig;
use router::log::kafka::KafkaLog;
use router::log::{Log, Topic};
use router::members::Role as Lease;
use storage::link::RewindSender;
use storage::push::Deliver;
use storage::retention::{self, Policy};
use storage::store::StoreError;
use storage::{StorageError, consume, follow};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::owners::{Ended, Owners, Share};
use super::{Process, audit, shares};

/// Requests to rewind that wait for one router.
const REWINDS: usize = 16;

impl Process {
    fn owners<S>(&self, kind: Kind, start: S) -> Owners<S> {
        Owners { kind, health: Arc::clone(&self.gateway.health), troubled: Arc::clone(&self.troubled), start }
    }

    /// The share of this process in the partitions of a kind.
    fn share(&self, kind: Kind) -> Share {
        let view = self.members.view();
        // not (or no longer) seen by the others: what is here goes on until it is refused
        if !view.may_acquire() || !view.live(shares::lease_of(kind)).contains(&self.node) {
            return Share::default();
        }
        let mine = self.assigned(kind);
        Share { keep: Some(mine.clone()), take: mine }
    }

    /// The partitions that are this process's by what all members say now.
    pub(super) fn assigned(&self, kind: Kind) -> BTreeSet<u16> {
        let count = self.cluster.kafka.partitions.of(kind.topic());
        let owners = shares::owners(&self.members.view(), kind, count, &self.store.held());
        owners.into_iter().filter(|(_, owner)| *owner == self.node).map(|(partition, _)| partition).collect()
    }
}

/// Routes this process's share of the `messages` partitions.
pub(super) async fn route(process: &Arc<Process>, mut asked: mpsc::Receiver<Rewind>, stop: CancellationToken) {
    let Ok(shards) = process.cluster.postgres.shards() else { return };
    let routers: Arc<Mutex<HashMap<u16, mpsc::Sender<Rewind>>>> = Arc::default();
    let (log, ways) = (process.log.clone(), Arc::clone(&routers));
    let epoch = process.cluster.log_epoch;
    let start = move |partition| {
        let (way, rewinds) = mpsc::channel(REWINDS);
        ways.lock().insert(partition, way);
        let log = Arc::clone(&log);
        async move {
            let why = router::consume::run(&*log, Source { partition, epoch }, shards, rewinds).await;
            Ended::Stopped(why.to_string())
        }
    };
    let owners = process.owners(Kind::Messages, start);
    let hand_over = async {
        while let Some(rewind) = asked.recv().await {
            let way = routers.lock().get(&rewind.source.partition).cloned();
            // not here, or busy with others: it is asked for again
            let _ = way.map(|way| way.try_send(rewind));
        }
    };
    tokio::select! {
        () = owners.run(|| process.share(Kind::Messages), stop) => {}
        () = hand_over => {}
    }
}

/// Owns this process's share of the virtual shards, follows them for notifications, and removes what is too old.
pub(super) async fn store(process: &Arc<Process>, stop: CancellationToken) {
    let (asking, asks) = mpsc::channel(REWINDS * 16);
    let auditing = asking.clone();
    let members = process.members.clone();
    let sender = RewindSender {
        links: Arc::clone(&process.links),
        routers: Arc::new(move || members.view().live(Lease::Router)),
        local: process.cluster.has(super::Role::Router).then(|| process.rewinds.clone()),
    };
    let ports = consume::Ports {
        log: process.log.clone(),
        store: process.store.clone(),
        registry: process.registry.clone(),
        deliver: Arc::clone(&process.links) as Arc<dyn Deliver>,
        rewinds: asking,
        sent: Arc::new(Newest::new(process.log.clone(), process.cluster.kafka.partitions.of(Topic::Messages))),
    };
    let following = match follower(process) {
        Ok(following) => following,
        Err(why) => {
            tracing::error!(why, "there are no notifications");
            None
        }
    };
    let start = move |partition| {
        let (ports, following) = (ports.clone(), following.clone());
        async move {
            let shard = ShardId(partition);
            let follow = async {
                match &following {
                    Some(following) => follow::run(shard, following).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                why = consume::run(shard, &ports) => match why {
                    StorageError::Store(StoreError::Fenced(_)) => Ended::Taken,
                    why => Ended::Stopped(why.to_string()),
                },
                why = follow => Ended::Stopped(format!("notifications: {why}")),
            }
        }
    };
    let owners = process.owners(Kind::Mailbox, start);
    tokio::select! {
        () = owners.run(|| process.share(Kind::Mailbox), stop) => {}
        () = sender.run(asks) => {}
        () = retain(process) => {}
        () = audit::run(process, auditing) => {}
    }
}

/// A reader of its own for the followers: they come seconds behind the owners and read the same partitions.
fn follower(process: &Process) -> Result<Option<follow::Ports>, String> {
    let kafka = &process.cluster.kafka;
    let partitions = kafka.partitions.of(Topic::Notifications);
    if partitions == 0 {
        return Ok(None);
    }
    // some fetches a second, not one for each record
    let patient = KafkaConfig { fetch_wait: Duration::from_millis(500), fetch_min_bytes: 256 * 1024, ..kafka.clone() };
    let log = KafkaLog::connect(&patient).map_err(|why| why.to_string())?;
    let (store, registry) = (process.store.clone(), process.registry.clone());
    Ok(Some(follow::Ports { log: log as Arc<dyn Log>, store, registry, partitions }))
}

/// Removes what is too old, for ever. Every storage process tries; the database lets one at a shard.
async fn retain(process: &Process) {
    let kept = &process.retention;
    let policy = Policy { event_days: (kept.days > 0).then_some(kept.days), key_days: kept.key_days };
    let mut every = tokio::time::interval(kept.every);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if let Err(why) = retention::pass(&*process.store, policy.cutoff(now_ms())).await {
            tracing::warn!(%why, "retention failed and will be tried again");
        }
    }
}

/// Links with gateways as soon as they are members, so that their first events find a way; and has the sessions of this process entered again
/// when the registry may have forgotten them.
pub(super) async fn follow_members(process: Arc<Process>) {
    let mut changes = process.members.watch();
    let mut in_doubt = false;
    loop {
        let view = changes.borrow_and_update().clone();
        let doubts = view.hold_off || view.unreachable_since.is_some() || !view.known;
        if (in_doubt || view.hold_off) && view.known && view.unreachable_since.is_none() {
            // as soon as the store answers again or was found empty, and once more when the hold-off ends
            process.gateway.sessions.registry_forgot.notify_one();
        }
        in_doubt = doubts;
        if process.cluster.has(super::Role::Storage) {
            for node in view.live(Lease::Gateway) {
                process.links.connect(node);
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
