//! The port to the partitioned log. [`kafka`] is the cluster's, [`memory`] the simulation's.

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "contract")]
pub mod contract;
pub mod kafka;
pub mod memory;

/// Topics of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Accepted records of direct chats: the partition is a hash of the conversation.
    Messages,
    /// Accepted records of groups, likewise.
    GroupMessages,
    /// Expanded records: one partition for each virtual shard.
    Mailbox,
    /// What wakes sleeping phones.
    Notifications,
    /// What is counted later.
    Analytics,
    /// The routers' checkpoints: one partition for each partition of `Messages`, then one for each of `GroupMessages`; only the newest
    /// record counts (compacted).
    RouterCheckpoints,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Messages, Self::GroupMessages, Self::Mailbox, Self::Notifications, Self::Analytics, Self::RouterCheckpoints];

    /// Its name in the log and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::GroupMessages => "group_messages",
            Self::Mailbox => "mailbox",
            Self::Notifications => "notifications",
            Self::Analytics => "analytics",
            Self::RouterCheckpoints => "router_checkpoints",
        }
    }
}

/// Why the log did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nothing was appended or read; later it may work.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// An append that may still appear.
    #[error("the outcome of an append is unknown")]
    Unknown,
    /// It can never work: too large, not allowed, no such partition.
    #[error("the log refuses for good: {0}")]
    Refused(String),
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place: dense from 0 in each partition.
    pub offset: u64,
    /// Its bytes.
    pub payload: Bytes,
}

/// A partitioned, replicated, append-only log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Appends one record and returns its offset once it is durable (Kafka: its own delivery report under acks=all). Appends of one caller to
    /// one partition, first polled in order, stand in that order, except for those that fail. It ends in bounded time, whatever happens.
    async fn append(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError>;

    /// Up to `max` durable records from `offset` on, in order. Waits while there are none; may give up after a while with none. An offset
    /// before the first record that is kept, or behind the end, is [`LogError::Refused`]: silence would hide a loss.
    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<Entry>, LogError>;

    /// The offset the next record will get.
    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError>;

    /// When the log took the record at this offset, milliseconds since 1970 by the log's own clock; nothing: there is none yet, or this log does
    /// not say, which is the default. By this the log forgets. An offset outside of what is kept is [`LogError::Refused`].
    async fn taken_at(&self, topic: Topic, partition: u16, offset: u64) -> Result<Option<u64>, LogError> {
        let _ = (topic, partition, offset);
        Ok(None)
    }

    /// The oldest offset that is kept; of a log that forgets nothing, which is the default, 0.
    async fn start(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        let _ = (topic, partition);
        Ok(0)
    }

    /// A hint: from now on the caller reads this partition in order from this offset. Reads exactly there may then be served from what was
    /// fetched ahead; reads anywhere else stay as they are and do not disturb it. [`Following`] takes it back by itself.
    fn follow(&self, topic: Topic, partition: u16, offset: u64) {
        let _ = (topic, partition, offset);
    }

    /// Takes one [`Self::follow`] back.
    fn unfollow(&self, topic: Topic, partition: u16) {
        let _ = (topic, partition);
    }
}

/// A partition that is followed for as long as this lives.
#[must_use = "dropped, it is no longer followed"]
pub struct Following<'a> {
    log: &'a dyn Log,
    topic: Topic,
    partition: u16,
}

impl<'a> Following<'a> {
    /// Follows `partition` from `offset` on.
    pub fn new(log: &'a dyn Log, topic: Topic, partition: u16, offset: u64) -> Self {
        log.follow(topic, partition, offset);
        Self { log, topic, partition }
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.log.unfollow(self.topic, self.partition);
    }
}

impl std::fmt::Debug for Following<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("topic", &self.topic).field("partition", &self.partition).finish_non_exhaustive()
    }
}
