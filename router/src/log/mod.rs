//! The port to the partitioned log. Kafka comes with the cluster; [`memory`] is the simulation's.

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "contract")]
pub mod contract;
pub mod memory;

/// Topics of the message path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Accepted records, keyed by conversation.
    Messages,
    /// Expanded records: one partition for each virtual shard.
    Mailbox,
    /// The routers' checkpoints: one partition for each partition of `Messages`; only the newest record counts (compacted).
    RouterCheckpoints,
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

    /// Up to `max` durable records from `offset` on, in order. Waits while there are none; may give up after a while with none.
    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<Entry>, LogError>;

    /// The offset the next record will get.
    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError>;
}
