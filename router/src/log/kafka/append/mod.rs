//! Appends: all that waits for a broker goes to it in one request, whatever partitions it is for, and the next request goes when that one is
//! answered. (librdkafka sends one partition in a request: confluentinc/librdkafka#1700; why this is ours: docs/decisions/0012.)
//!
//! **Path of a record.** [`queue`] (pure) puts it behind the others of its partition and makes [`batch`]es; [`serve`] sends those of one broker
//! over its [`connection`]; the answer settles each. [`leaders`] says who leads what.
//!
//! **Invariants.** Idempotent producer, acks=all: a batch has a name (producer, epoch, place in the sequence of its partition) and keeps it and
//! its bytes until its fate is known, so a broker that has it already does not take it twice (KIP-98). One batch of a partition is on its way at
//! a time: none overtakes another. Whatever leaves the sequence in doubt ends the producer's name and begins another.
//!
//! **Loss policy.** Nothing is dropped in silence: each record has one fate, told once. Too much waits: refused before it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub(crate) mod batch;
mod connection;
mod leaders;
pub(crate) mod queue;
mod serve;

use super::config::KafkaConfig;
use super::health::{Doubt, Health};
use crate::log::Topic;
use leaders::Asking;
pub(crate) use queue::Fate;
use queue::{Bounds, BrokerId, Key, Pushed, Queue};

/// Leaders are asked for at least this often, and too old records are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without need they are asked for this often.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Between two questions, while there is need.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause, while no broker answers.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Who is told the fate of a record. Dropped untold, it must say "unknown" by itself.
pub(crate) trait Waiter: Send + 'static {
    /// The record's fate, once.
    fn settle(self, fate: Fate);
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Too much waits.
    Full,
    /// There is no such topic (yet).
    NoTopic,
}

/// A broker, as long as the process knows it.
#[derive(Debug)]
struct Broker {
    id: BrokerId,
    address: Mutex<String>,
    wake: Notify,
}

struct Shared<W> {
    queue: Mutex<Queue<W>>,
    brokers: RwLock<BTreeMap<BrokerId, Arc<Broker>>>,
    missing: RwLock<Vec<Topic>>,
    /// Leaders are in doubt, or the producer has no name.
    look: Notify,
    health: Arc<Health>,
    names: [String; Topic::ALL.len()],
    linger: Duration,
    timeout_ms: i32,
}

/// The appending half of a process's log.
pub(crate) struct Appender<W: Waiter> {
    shared: Arc<Shared<W>>,
    keeper: JoinHandle<()>,
}

impl<W: Waiter> Appender<W> {
    /// Starts its tasks on the runtime it is called in.
    pub(crate) fn new(config: &KafkaConfig, health: &Arc<Health>, runtime: &Handle) -> Self {
        let bounds = Bounds {
            records: config.queue_records,
            bytes: config.queue_bytes,
            batch_bytes: config.max_message_bytes,
            timeout: config.message_timeout,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(bounds)),
            brokers: RwLock::default(),
            missing: RwLock::default(),
            look: Notify::new(),
            health: Arc::clone(health),
            names: Topic::ALL.map(|topic| config.topic_name(topic)),
            linger: config.linger,
            timeout_ms: 5_000,
        });
        let keeper = runtime.spawn(keep(Arc::clone(&shared), Asking::new(config)));
        Self { shared, keeper }
    }

    /// Hands a record over, at once and without waiting; one that is not taken comes back.
    pub(crate) fn append(&self, key: Key, payload: Bytes, waiter: W) -> Result<(), (NotTaken, W)> {
        if self.shared.missing.read().contains(&key.0) {
            return Err((NotTaken::NoTopic, waiter));
        }
        let pushed = self.shared.queue.lock().push(key, payload, waiter, Instant::now());
        match pushed.map_err(|waiter| (NotTaken::Full, waiter))? {
            Pushed::First(leader) => self.shared.wake(leader),
            Pushed::Behind => {}
            Pushed::NoLeader => self.shared.look.notify_one(),
        }
        Ok(())
    }
}

impl<W: Waiter> Drop for Appender<W> {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl<W: Waiter> Shared<W> {
    fn wake(&self, leader: BrokerId) {
        if let Some(broker) = self.brokers.read().get(&leader) {
            broker.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        for broker in self.brokers.read().values() {
            broker.wake.notify_one();
        }
    }

    /// Tells fates, outside of the queue's lock.
    fn tell(&self, fates: Vec<(W, Fate)>) {
        for (waiter, fate) in fates {
            waiter.settle(fate);
        }
    }

    /// Whether the brokers must be asked something before all that waits can be sent.
    fn is_in_need(&self) -> bool {
        let queue = self.queue.lock();
        queue.wants_name() || queue.wants_leader()
    }
}

/// Knows who leads what, gives the producer its name, gives up what is too old. The tasks of the brokers end with it.
async fn keep<W: Waiter>(shared: Arc<Shared<W>>, mut asking: Asking) {
    let mut serving = tokio::task::JoinSet::new();
    let (mut asked, mut failures) = (None::<Instant>, 0_u32);
    loop {
        let in_doubt = timeout(LOOK_EVERY, shared.look.notified()).await.is_ok();
        let too_old = shared.queue.lock().give_up(Instant::now());
        shared.tell(too_old);
        if !in_doubt && !shared.is_in_need() && asked.is_some_and(|asked| asked.elapsed() < REFRESH_EVERY) {
            continue;
        }
        match ask(&shared, &mut asking).await {
            Ok(found) => {
                failures = 0;
                for broker in found {
                    serving.spawn(serve::serve(Arc::clone(&shared), broker));
                }
                shared.wake_all();
                sleep(ASK_PAUSE).await;
            }
            Err(why) => {
                failures += 1;
                tracing::debug!(%why, failures, "brokers do not say who leads what");
                shared.health.doubt(Doubt::Some);
                shared.look.notify_one();
                sleep(ASK_PAUSE.saturating_mul(1 << failures.min(8)).min(ASK_PAUSE_MAX)).await;
            }
        }
        asked = Some(Instant::now());
    }
}

/// Asks for leaders, and for a name if there is none. Returns the brokers that are new.
async fn ask<W>(shared: &Shared<W>, asking: &mut Asking) -> Result<Vec<Arc<Broker>>, connection::Broken> {
    let cluster = asking.cluster().await?;
    let mut new = Vec::new();
    {
        let mut brokers = shared.brokers.write();
        for (id, address) in cluster.addresses {
            match brokers.get(&id) {
                Some(broker) => *broker.address.lock() = address,
                None => {
                    let broker = Arc::new(Broker { id, address: Mutex::new(address), wake: Notify::new() });
                    brokers.insert(id, Arc::clone(&broker));
                    new.push(broker);
                }
            }
        }
    }
    *shared.missing.write() = cluster.missing;
    shared.queue.lock().led(cluster.leaders);
    if shared.queue.lock().wants_name() {
        match asking.name().await {
            Ok(producer) => {
                tracing::debug!(id = producer.id, epoch = producer.epoch, "the producer has a name");
                counter!("switchboard_log_producers_named_total").increment(1);
                shared.queue.lock().named(producer);
            }
            Err(why) => tracing::debug!(%why, "the producer gets no name"),
        }
    }
    Ok(new)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
