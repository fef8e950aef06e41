//! The log with bad luck. Appends of one process to one partition keep their order, as a producer's do, except those that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::record::{MailboxRecord, Record};
use router::checkpoint::Checkpoint;
use router::expand::{ShardId, Shards, expand};
use router::log::memory::MemoryLog;
use router::log::{Entry, Log, LogError, Topic};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Databases, Fate};
use crate::process::{Part, Process};
use crate::sim::Sim;

/// An append that is reported as failed may appear this much later.
const LATE_MS: u64 = 4000;
/// A failed append may be reported as late as this.
const REPORT_MS: u64 = 1500;

/// Looks at every router checkpoint that is stored: what it stands behind must be in the mailbox log.
pub struct Honest {
    sim: Arc<Sim>,
    log: MemoryLog,
    shards: Shards,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How far each mailbox partition is read.
    read: BTreeMap<u16, u64>,
    /// (shard, source partition, next offset) of each record there.
    present: BTreeSet<(u16, u16, u64)>,
    /// How far each source partition is checked.
    checked: BTreeMap<u16, u64>,
}

impl Honest {
    /// Looks at this log.
    pub fn new(sim: &Arc<Sim>, log: MemoryLog, shards: Shards) -> Arc<Self> {
        Arc::new(Self { sim: Arc::clone(sim), log, shards, seen: Mutex::default() })
    }

    /// How far the checkpoints of this partition have come.
    pub fn passed(&self, partition: u16) -> u64 {
        self.seen.lock().checked.get(&partition).copied().unwrap_or(0)
    }

    async fn entries(&self, topic: Topic, partition: u16, from: u64) -> Vec<Entry> {
        let end = self.log.end(topic, partition).await.unwrap_or(0);
        if from >= end { Vec::new() } else { self.log.read(topic, partition, from, usize::MAX).await.unwrap_or_default() }
    }

    async fn look(&self, partition: u16, payload: &Bytes) {
        let Ok(checkpoint) = Checkpoint::decode(payload) else { return self.sim.wrong("an unreadable router checkpoint".into()) };
        for shard in 0..self.shards.count() {
            let from = self.seen.lock().read.get(&shard).copied().unwrap_or(0);
            for entry in self.entries(Topic::Mailbox, shard, from).await {
                let mut seen = self.seen.lock();
                seen.read.insert(shard, entry.offset + 1);
                if let Ok(record) = MailboxRecord::decode(&entry.payload) {
                    seen.present.insert((shard, record.source.partition, record.link.next_offset));
                }
            }
        }
        let from = self.seen.lock().checked.get(&partition).copied().unwrap_or(0);
        for entry in self.entries(Topic::Messages, partition, from).await {
            if entry.offset >= checkpoint.next_offset {
                break;
            }
            let Ok(record) = Record::decode(&entry.payload) else { continue };
            for (shard, _) in expand(&record, self.shards) {
                if !self.seen.lock().present.contains(&(shard.0, partition, entry.offset + 1)) {
                    self.sim.wrong(format!(
                        "router checkpoint {} of {partition} passed record {}, which shard {} lacks",
                        checkpoint.next_offset, entry.offset, shard.0
                    ));
                }
            }
            self.seen.lock().checked.insert(partition, entry.offset + 1);
        }
    }
}

/// The log as one process sees it.
pub struct FaultyLog {
    /// The log.
    pub inner: MemoryLog,
    /// Whose calls these are.
    pub process: Arc<Process>,
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// Who looks at checkpoints.
    pub honest: Arc<Honest>,
    /// Who notes how far owners have read; none for other readers.
    pub notes: Option<Arc<Databases>>,
    lines: Mutex<BTreeMap<(Topic, u16), Instant>>,
}

impl FaultyLog {
    /// A process's view of the log.
    pub fn new(
        inner: &MemoryLog,
        process: &Arc<Process>,
        sim: &Arc<Sim>,
        honest: &Arc<Honest>,
        notes: Option<&Arc<Databases>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            notes: notes.map(Arc::clone),
            process: Arc::clone(process),
            sim: Arc::clone(sim),
            honest: Arc::clone(honest),
            lines: Mutex::default(),
        })
    }

    /// A place in the line of this partition: appends arrive in the order of their first poll.
    fn line_up(&self, topic: Topic, partition: u16) -> Instant {
        let soonest = Instant::now() + self.sim.delay();
        let mut lines = self.lines.lock();
        let last = lines.entry((topic, partition)).or_insert(soonest);
        *last = soonest.max(*last + Duration::from_millis(1));
        *last
    }

    async fn put(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError> {
        if topic == Topic::RouterCheckpoints {
            self.honest.look(partition, &payload).await;
        }
        let offset = self.inner.append(topic, partition, payload).await?;
        self.sim.note(|| format!("{} appends {topic:?}-{partition}@{offset}", self.process.name));
        Ok(offset)
    }

    /// It was given up, and is on its way all the same: also when the process dies.
    fn put_late(&self, topic: Topic, partition: u16, payload: Bytes) {
        let (inner, sim, name) = (self.inner.clone(), Arc::clone(&self.sim), self.process.name.clone());
        let honest = Arc::clone(&self.honest);
        let after = sim.up_to_ms(LATE_MS);
        tokio::spawn(async move {
            sleep(after).await;
            // it may be the last one there ever is
            if topic == Topic::RouterCheckpoints {
                honest.look(partition, &payload).await;
            }
            if let Ok(offset) = inner.append(topic, partition, payload).await {
                sim.note(|| format!("{name} appended {topic:?}-{partition}@{offset} late"));
                match topic {
                    Topic::Messages => sim.saw("append of a send that failed but appeared"),
                    Topic::Mailbox => sim.saw("append of a router that failed but appeared"),
                    Topic::RouterCheckpoints => sim.saw("older router checkpoint appeared late"),
                    Topic::Notifications => sim.saw("notification that failed but appeared"),
                    Topic::GroupMessages | Topic::Analytics => {}
                }
            }
        });
    }
}

#[async_trait]
impl Log for FaultyLog {
    async fn append(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError> {
        // in line at its first poll, wherever it gets stuck then
        let (mut fate, arrives) = (Fate::draw(&self.sim), self.line_up(topic, partition));
        if self.process.is_cut(Part::Log) {
            self.process.reaches(Part::Log).await;
            fate = if fate == Fate::Late { Fate::Late } else { Fate::Fails };
        }
        if fate == Fate::Done && self.sim.strikes(self.sim.weather.doubled_appends) {
            // a producer that has lost the answer sends again: the first copy stands, too
            self.sim.saw("record appended twice by a retry");
            self.put_late(topic, partition, payload.clone());
        }
        self.process.danger(self.sim.weather.crashes, "before an append").await;
        let unknown = match fate {
            Fate::Done => {
                sleep_until(arrives).await;
                let offset = self.put(topic, partition, payload).await?;
                self.process.danger(self.sim.weather.crashes, "after an append").await;
                sleep(self.sim.delay()).await;
                self.process.gate().await;
                return Ok(offset);
            }
            Fate::Fails => false,
            Fate::Unknown => {
                sleep_until(arrives).await;
                self.put(topic, partition, payload).await?;
                true
            }
            Fate::Late => {
                self.put_late(topic, partition, payload);
                true
            }
        };
        sleep(self.sim.up_to_ms(REPORT_MS)).await;
        self.process.gate().await;
        self.sim.note(|| format!("{} fails to append {topic:?}-{partition}, {fate:?}", self.process.name));
        if unknown { Err(LogError::Unknown) } else { Err(LogError::Unavailable("simulated".into())) }
    }

    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        let reaches = self.process.reaches(Part::Log).await;
        self.process.danger(self.sim.weather.crashes / 4, "before a read of the log").await;
        sleep(self.sim.delay()).await;
        if !reaches || self.sim.strikes(self.sim.weather.fails) {
            return Err(LogError::Unavailable("simulated".into()));
        }
        let max = if self.sim.is_healed() { max } else { 1 + usize::try_from(self.sim.below(max as u64)).unwrap_or(0) };
        let entries = self.inner.read(topic, partition, offset, max).await;
        self.process.gate().await;
        if let (Topic::Mailbox, Ok(entries), Some(notes)) = (topic, &entries, &self.notes)
            && let Some(last) = entries.last()
        {
            notes.note_read(ShardId(partition), last.offset + 1);
        }
        entries
    }

    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        if !self.process.reaches(Part::Log).await || self.sim.strikes(self.sim.weather.fails) {
            return Err(LogError::Unavailable("simulated".into()));
        }
        self.inner.end(topic, partition).await
    }
}
