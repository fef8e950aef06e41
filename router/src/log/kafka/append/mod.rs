//! Appends: all that waits for a broker goes to it in one request, whatever partitions it is for, and the next request goes when that one is
//! answered. (librdkafka sends one partition in a request: confluentinc/librdkafka#1700; why this is ours: docs/decisions/0012.)
//!
//! **Path of a record.** [`queue`] (pure) puts it behind the others of its partition and makes [`batch`]es; [`serve`] sends those of one broker
//! over its connection; the answer settles each.
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
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

pub(crate) mod batch;
pub(crate) mod queue;
mod serve;

use super::config::KafkaConfig;
use super::leaders::{BrokerId, Key, Leaders};
use crate::log::Topic;
use batch::Producer;
pub(crate) use queue::Fate;
use queue::{Bounds, Pushed, Queue};

/// Too old records are looked for this often, and a producer without a name asks for one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a broker may wait for its replicas.
const REPLICAS_WAIT_MS: i32 = 5_000;

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

struct Shared<W> {
    queue: Mutex<Queue<W>>,
    /// What wakes the task of each broker.
    wakes: RwLock<BTreeMap<BrokerId, Arc<Notify>>>,
    leaders: Arc<Leaders>,
    names: [String; Topic::ALL.len()],
    linger: Duration,
}

/// The appending half of a process's log.
pub(crate) struct Appender<W: Waiter> {
    shared: Arc<Shared<W>>,
    keeper: JoinHandle<()>,
}

impl<W: Waiter> Appender<W> {
    /// Starts its tasks on this runtime.
    pub(super) fn new(config: &KafkaConfig, leaders: &Arc<Leaders>, runtime: &Handle) -> Self {
        let bounds = Bounds {
            records: config.queue_records,
            bytes: config.queue_bytes,
            batch_bytes: config.max_message_bytes,
            timeout: config.message_timeout,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(bounds)),
            wakes: RwLock::default(),
            leaders: Arc::clone(leaders),
            names: Topic::ALL.map(|topic| config.topic_name(topic)),
            linger: config.linger,
        });
        let keeper = runtime.spawn(keep(Arc::clone(&shared), leaders.changes()));
        Self { shared, keeper }
    }

    /// Whether more comes for this partition than its broker takes, for longer than a burst. Asked before a record that may be refused.
    pub(crate) fn stands(&self, key: Key) -> bool {
        self.shared.queue.lock().stands(key, Instant::now())
    }

    /// Hands a record over, at once and without waiting; one that is not taken comes back.
    pub(crate) fn append(&self, key: Key, payload: Bytes, waiter: W) -> Result<(), (NotTaken, W)> {
        if self.shared.leaders.is_missing(key.0) {
            self.shared.leaders.doubt();
            return Err((NotTaken::NoTopic, waiter));
        }
        let pushed = self.shared.queue.lock().push(key, payload, waiter, Instant::now());
        match pushed.map_err(|waiter| (NotTaken::Full, waiter))? {
            Pushed::First(leader) => self.shared.wake(leader),
            Pushed::Behind => {}
            Pushed::NoLeader => self.shared.leaders.doubt(),
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
        if let Some(wake) = self.wakes.read().get(&leader) {
            wake.notify_one();
        }
    }

    fn wake_all(&self) {
        self.wakes.read().values().for_each(|wake| wake.notify_one());
    }

    /// Tells fates, outside of the queue's lock.
    fn tell(&self, fates: Vec<(W, Fate)>) {
        for (waiter, fate) in fates {
            waiter.settle(fate);
        }
    }

    /// Takes over what the brokers have said. Returns those that are new here, with what wakes their tasks.
    fn led(&self) -> Vec<(BrokerId, Arc<Notify>)> {
        self.queue.lock().led(self.leaders.all());
        let mut wakes = self.wakes.write();
        let new: Vec<_> = self.leaders.brokers().into_iter().filter(|broker| !wakes.contains_key(broker)).collect();
        new.into_iter().map(|broker| (broker, Arc::clone(wakes.entry(broker).or_default()))).collect()
    }

    /// Gives the producer a name, if it has none.
    async fn name(&self) {
        match self.leaders.producer_id().await {
            Ok((id, epoch)) => {
                tracing::debug!(id, epoch, "the producer has a name");
                counter!("switchboard_log_producers_named_total").increment(1);
                self.queue.lock().named(Producer { id, epoch });
                self.wake_all();
            }
            Err(why) => tracing::debug!(%why, "the producer gets no name"),
        }
    }
}

/// Follows who leads what, gives the producer its name, gives up what is too old. The tasks of the brokers end with it.
async fn keep<W: Waiter>(shared: Arc<Shared<W>>, mut changes: watch::Receiver<u64>) {
    let mut serving = JoinSet::new();
    changes.mark_changed(); // they may have been heard before this task was there
    loop {
        if timeout(LOOK_EVERY, changes.changed()).await.is_ok_and(|changed| changed.is_ok()) {
            for (broker, wake) in shared.led() {
                serving.spawn(serve::serve(Arc::clone(&shared), broker, wake));
            }
            shared.wake_all();
        }
        let (too_old, nameless, wanted) = {
            let mut queue = shared.queue.lock();
            (queue.give_up(Instant::now()), queue.wants_name(), queue.wanted())
        };
        shared.tell(too_old);
        // a leader may have changed while the one before was being answered
        wanted.into_iter().for_each(|broker| shared.wake(broker));
        if nameless && !shared.leaders.brokers().is_empty() {
            shared.name().await;
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
