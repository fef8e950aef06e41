//! The [`Log`] of a cluster: Kafka.
//!
//! One [`producer`] a process, which [`append`]s, and what [`follow`]s partitions in order, fetched ahead: both of ours, each over a [`connection`] to
//! each broker, by what [`leaders`] knows. One consumer of librdkafka reads single [`point`]s, and a thread looks whether brokers can be reached
//! ([`health`]). Nothing here joins a consumer group and no position is kept on the brokers: positions live in checkpoints.
//!
//! Known pitfalls, and where each is avoided:
//!
//! | pitfall | rule | where |
//! |---|---|---|
//! | K1, K12 assignment by groups: illegal generations, fenced members | partitions by our own leases, nobody joins | `config::consumer`, [`follow`] |
//! | K2, K6 committed offsets jump back; their callbacks never come | no offset is committed | `config::consumer` |
//! | K3 pause, resume, seek and split queues skip records | each fetch says from where on it wants what | [`follow`] |
//! | K4 a record of a partition one no longer has is taken for progress | a record counts for the follow it was fetched for | `follow::fetch` |
//! | K5 finish, then fence, on revoke | the reader's task is dropped first, then its [`Following`](super::Following) | callers |
//! | K7 automatic commits lose; a dropped producer loses its queue | no automatic commits; `flush` counts what is left | [`KafkaLog::close`] |
//! | K8 flush says yes though a record failed | only the answer to the record's own batch counts | `append::serve` |
//! | K9 a local time-out breaks the idempotent producer for good | at least 120 s; in doubt about its sequence it takes a new name | `config::check`, `append::queue` |
//! | K10 a new producer repeats what the old one sent | repeats are told apart by the chain and by message ids, not here | callers |
//! | K11 latency by linger, Nagle, fetch back-off, blocking polls | set one by one | [`config`], [`connection`] |
//! | K13 transactions | not used | `config::consumer` |
//! | K14 more partitions send keys elsewhere | the count is fixed and checked; our own arithmetic chooses | [`topics`], [`producer`] |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::{Entry, Log, LogError, Topic};

mod append;
mod client;
pub mod config;
mod connection;
mod follow;
mod health;
mod leaders;
mod point;
pub(crate) mod producer;
pub mod topics;

pub use config::{KafkaConfig, Partitions};
use follow::FollowReader;
use health::Health;
use leaders::{Key, Leaders};
use point::PointReader;
use producer::{Producer, Waiter};

/// A read that finds nothing gives up after this long.
const READ_WAIT: Duration = Duration::from_millis(500);
/// A read at the end, where nothing is followed, looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The log of a cluster. Needs no broker to start: while none can be reached, appends, point reads and ends are
/// [`LogError::Unavailable`], followed reads find nothing, and all works again by itself.
#[derive(Debug)]
pub struct KafkaLog {
    config: KafkaConfig,
    follow: Arc<FollowReader>,
    point: Arc<PointReader>,
    producer: Arc<Producer>,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
    keeper: Option<std::thread::JoinHandle<()>>,
    _asking: leaders::Keeper,
}

impl KafkaLog {
    /// Starts the clients, their threads and their tasks on the runtime it is called in; connects behind the caller's back.
    ///
    /// # Errors
    /// [`LogError::Refused`] for settings that cannot be used, and outside of a runtime.
    pub fn connect(config: &KafkaConfig) -> Result<Arc<Self>, LogError> {
        config.check()?;
        let health = Arc::new(Health::new(config.brokers.join(",")));
        let runtime = Handle::try_current().map_err(|_| LogError::Refused("the log needs a runtime to be started in".into()))?;
        let (leaders, asking) = Leaders::new(config, &health, &runtime);
        let producer = Arc::new(Producer::new(config, &health, &leaders, &runtime));
        let follow = Arc::new(FollowReader::new(config, &leaders, &runtime));
        let point = Arc::new(PointReader::new(config, &health)?);
        let stop = Arc::new(AtomicBool::new(false));
        let keeper = {
            let keeper = Keeper {
                producer: Arc::clone(&producer),
                follow: Arc::clone(&follow),
                point: Arc::clone(&point),
                health: Arc::clone(&health),
                stop: Arc::clone(&stop),
            };
            std::thread::Builder::new().name("kafka-keeper".into()).spawn(move || keeper.run())
        };
        let keeper = Some(keeper.map_err(|why| LogError::Refused(why.to_string()))?);
        Ok(Arc::new(Self { config: config.clone(), follow, point, producer, health, stop, keeper, _asking: asking }))
    }

    /// Whether a broker can be reached, as far as is known: false until the first has answered. Costs one atomic read.
    pub fn is_reachable(&self) -> bool {
        self.health.is_up()
    }

    /// The partitions of a topic that are followed here and into which more comes than is read; [`Log::follow`]. To be asked about twice a second.
    pub fn behind(&self, topic: Topic) -> BTreeSet<u16> {
        self.follow.behind(topic)
    }

    /// The same, to wait for its changes.
    pub fn reachable(&self) -> watch::Receiver<bool> {
        self.health.subscribe()
    }

    /// Bytes fetched ahead for followers and not yet read.
    pub fn buffered_bytes(&self) -> usize {
        self.follow.buffered()
    }

    /// The settings it runs with.
    pub const fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// Waits until every record under way is reported, at most `deadline`. Returns how many are left: durable or not, nobody knows. Blocks
    /// its thread.
    pub fn close(&self, deadline: Duration) -> usize {
        let left = self.producer.flush(deadline);
        if left > 0 {
            tracing::warn!(left, "records of this process are left without a report");
        }
        left
    }

    pub(crate) fn producer(&self) -> Arc<Producer> {
        Arc::clone(&self.producer)
    }

    fn key(&self, topic: Topic, partition: u16) -> Result<Key, LogError> {
        if partition < self.config.partitions.of(topic) {
            return Ok((topic, partition));
        }
        Err(LogError::Refused(format!("there is no partition {partition} of {}", topic.name())))
    }

    /// A followed partition gave nothing for a while: seldom, or after an error, it is asked whether there should have been something.
    async fn compare(&self, key: Key, offset: u64) -> Result<(), LogError> {
        let Ok(bounds) = self.point.bounds(key).await else { return Ok(()) };
        point::outside(key, offset, bounds)?;
        if bounds.high > offset && self.follow.position(key) == Some(offset) {
            self.follow.stalled(key);
        }
        Ok(())
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.health.wake();
        if let Some(keeper) = self.keeper.take() {
            drop(keeper.join());
        }
    }
}

/// The thread that looks after all.
struct Keeper {
    producer: Arc<Producer>,
    follow: Arc<FollowReader>,
    point: Arc<PointReader>,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
}

impl Keeper {
    fn run(self) {
        while !self.stop.load(Ordering::Acquire) {
            self.producer.look_after();
            metrics::gauge!("switchboard_log_buffered_bytes").set(self.follow.buffered() as f64);
            if self.health.wait() && !self.stop.load(Ordering::Acquire) {
                self.health.answered(self.point.probe());
            }
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn append(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError> {
        let (answer, answered) = oneshot::channel();
        // before the first await: appends polled in order stand in order
        self.producer.send((topic, partition), payload, Waiter::Append(answer)).map_err(|(why, _)| why)?;
        answered.await.unwrap_or(Err(LogError::Unknown))
    }

    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        let key = self.key(topic, partition)?;
        let deadline = Instant::now() + READ_WAIT;
        if let Some(entries) = self.follow.read(key, (offset, max), deadline).await {
            if let (true, Some(at)) = (entries.is_empty(), self.follow.cut(key)) {
                let (topic, why) = (topic.name(), "what was read behind that is not in it");
                return Err(LogError::Refused(format!("{topic} {partition} was cut at offset {at} before {offset}: {why}")));
            }
            if entries.is_empty() && self.is_reachable() && self.follow.is_compare_due(key) {
                self.compare(key, offset).await?;
            }
            return Ok(entries);
        }
        // of a followed partition only what is before its follower: so who has gone back meets the stream again
        let max = match self.follow.position(key).and_then(|position| position.checked_sub(offset)) {
            Some(before @ 1..) => max.min(usize::try_from(before).unwrap_or(max)),
            _ => max,
        };
        loop {
            let entries = self.point.read(key, offset, max).await?;
            if !entries.is_empty() || Instant::now() + LOOK_AGAIN > deadline {
                return Ok(entries);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        self.point.end(self.key(topic, partition)?).await
    }

    async fn taken_at(&self, topic: Topic, partition: u16, offset: u64) -> Result<Option<u64>, LogError> {
        self.point.taken_at(self.key(topic, partition)?, offset).await
    }

    async fn start(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        Ok(self.point.bounds(self.key(topic, partition)?).await?.low)
    }

    fn follow(&self, topic: Topic, partition: u16, offset: u64) {
        if let Ok(key) = self.key(topic, partition) {
            self.follow.follow(key, offset);
        }
    }

    fn unfollow(&self, topic: Topic, partition: u16) {
        if let Ok(key) = self.key(topic, partition) {
            self.follow.unfollow(key);
        }
    }
}
