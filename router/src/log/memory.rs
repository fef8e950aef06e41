//! The log of the simulation: in memory, durable for as long as one handle lives, so that it survives the "processes" that crash around it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Entry, Log, LogError, Topic};

/// A read at the end gives up after this long.
const READ_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Partition {
    records: Mutex<Vec<Bytes>>,
    grown: Notify,
}

/// A handle to one log; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    partitions: Arc<BTreeMap<(Topic, u16), Partition>>,
}

impl MemoryLog {
    /// An empty log with so many partitions of messages (and of router checkpoints) and so many of mailboxes; the other topics have one.
    pub fn new(messages: u16, mailboxes: u16) -> Self {
        let count = |topic| match topic {
            Topic::Messages => messages,
            Topic::Mailbox => mailboxes,
            Topic::RouterCheckpoints => messages + 1,
            Topic::GroupMessages | Topic::Notifications | Topic::Analytics => 1,
        };
        let counts = Topic::ALL.map(|topic| (topic, count(topic)));
        let all =
            counts.into_iter().flat_map(|(topic, count)| (0..count).map(move |number| ((topic, number), Partition::default())));
        Self { partitions: Arc::new(all.collect()) }
    }

    fn partition(&self, topic: Topic, number: u16) -> Result<&Partition, LogError> {
        self.partitions
            .get(&(topic, number))
            .ok_or_else(|| LogError::Refused(format!("there is no partition {number} of {topic:?}")))
    }
}

impl Partition {
    /// What there is; none: not yet anything.
    fn take(&self, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        let records = self.records.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        if from > records.len() {
            return Err(LogError::Refused(format!("offset {offset} is behind the end {}", records.len())));
        }
        let entries = (offset..).zip(&records[from..]).take(max.max(1));
        Ok(entries.map(|(offset, payload)| Entry { offset, payload: payload.clone() }).collect())
    }

    /// Waits for at least one.
    async fn wait(&self, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        loop {
            let grown = self.grown.notified();
            let mut grown = std::pin::pin!(grown);
            grown.as_mut().enable(); // before looking: a record that comes in between wakes us
            let entries = self.take(offset, max)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            grown.await;
        }
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError> {
        let partition = self.partition(topic, partition)?;
        let offset = {
            let mut records = partition.records.lock();
            records.push(payload);
            records.len() as u64 - 1
        };
        partition.grown.notify_waiters();
        Ok(offset)
    }

    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        let partition = self.partition(topic, partition)?;
        timeout(READ_WAIT, partition.wait(offset, max)).await.unwrap_or(Ok(Vec::new()))
    }

    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        Ok(self.partition(topic, partition)?.records.lock().len() as u64)
    }
}
