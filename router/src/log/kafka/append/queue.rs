//! What waits to be appended and what is on its way: pure. A partition has at most one batch on its way, whose bytes and place in the producer's
//! sequence never change until its fate is known: sent again, a broker that has it already says so. What waits goes with the next one, so
//! batches grow with the time a broker takes, and nothing waits for a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::batch::{Producer, batch, next_sequence};
use crate::log::kafka::leaders::{BrokerId, Key};
use crate::submit::standing::Standing;

/// The queue of a partition that has always had something without an answer for this long stands.
const BURST: Duration = Duration::from_secs(1);
/// Then the oldest may be without one for so long.
const WAIT: Duration = Duration::from_secs(1);
/// First pause before a batch goes out again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A record counts for so many bytes beside its own: the most its head takes in a batch.
const RECORD_HEAD: usize = 32;
/// Bytes of one request, about: the batch that passes it is the last.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// What the queue may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Records without an answer.
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
    /// Bytes of the records of one batch; a single record always fits.
    pub(crate) batch_bytes: usize,
    /// How long a record may be without an answer.
    pub(crate) timeout: Duration,
}

/// What a broker has said of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Durable, its first record at this offset; a repeat of which the broker no longer knows where it is has none.
    Done(Option<u64>),
    /// Not known, or not now: the same batch goes out again.
    Again,
    /// It can never be appended.
    Refused(String),
    /// The broker does not follow the producer's sequence any more: what became of the batch is not known.
    OutOfSequence,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Durable, at this offset if it is known.
    Done(Option<u64>),
    /// It can never be appended, and was not.
    Refused(String),
    /// It was never sent.
    NeverSent,
    /// It may stand in the log or not.
    Unknown,
}

/// A record that waits.
#[derive(Debug)]
struct Waiting<W> {
    payload: Bytes,
    waiter: W,
    since: Instant,
}

/// A batch on its way.
#[derive(Debug)]
struct Flight<W> {
    bytes: Bytes,
    waiters: Vec<(W, usize)>,
    since: Instant,
    /// The broker that has been sent it and has not answered.
    at: Option<BrokerId>,
    tries: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Partition<W> {
    waiting: VecDeque<Waiting<W>>,
    flight: Option<Flight<W>>,
    /// The next place in the sequence of that life of the producer.
    next: (u64, i32),
    leader: Option<BrokerId>,
    standing: Standing,
}

impl<W> Default for Partition<W> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), flight: None, next: (0, 0), leader: None, standing: Standing::new(WAIT, BURST) }
    }
}

impl<W> Partition<W> {
    /// Whether there is something to be sent, now or after a pause.
    fn wants(&self) -> bool {
        self.flight.as_ref().map_or(!self.waiting.is_empty(), |flight| flight.at.is_none())
    }
}

/// What is to be done about a record that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// Its leader may be waiting for something to do.
    First(BrokerId),
    /// Nothing: it goes with the batch behind the one on its way.
    Behind,
    /// Nobody knows yet who leads its partition.
    NoLeader,
}

/// A batch to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Where to.
    pub(crate) key: Key,
    /// The record batch.
    pub(crate) bytes: Bytes,
}

/// All partitions of a process.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    bounds: Bounds,
    partitions: BTreeMap<Key, Partition<W>>,
    /// By leader, the partitions that want something of it.
    ready: BTreeMap<BrokerId, BTreeSet<Key>>,
    /// What the producer is called by the brokers, and how often it was renamed.
    producer: Option<Producer>,
    life: u64,
    records: usize,
    bytes: usize,
}

impl<W> Queue<W> {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self { bounds, partitions: BTreeMap::new(), ready: BTreeMap::new(), producer: None, life: 0, records: 0, bytes: 0 }
    }

    /// Whether what is to be appended there is better refused, if it may be: more comes than the broker takes, for longer than a burst.
    pub(crate) fn stands(&mut self, key: Key, now: Instant) -> bool {
        let partition = self.partitions.entry(key).or_default();
        // what is on its way has no answer either
        let first =
            partition.flight.as_ref().map(|flight| flight.since).or_else(|| partition.waiting.front().map(|first| first.since));
        partition.standing.refuses(first.map(|since| now.saturating_duration_since(since)), now)
    }

    /// Takes a record; full, its waiter comes back.
    pub(crate) fn push(&mut self, key: Key, payload: Bytes, waiter: W, now: Instant) -> Result<Pushed, W> {
        let bytes = payload.len() + RECORD_HEAD;
        if self.records >= self.bounds.records || (self.records > 0 && self.bytes + bytes > self.bounds.bytes) {
            return Err(waiter);
        }
        self.records += 1;
        self.bytes += bytes;
        let partition = self.partitions.entry(key).or_default();
        partition.waiting.push_back(Waiting { payload, waiter, since: now });
        let Some(leader) = partition.leader else { return Ok(Pushed::NoLeader) };
        if partition.flight.is_some() {
            return Ok(Pushed::Behind);
        }
        self.ready.entry(leader).or_default().insert(key);
        Ok(Pushed::First(leader))
    }

    /// Who leads which partition, as far as the brokers say. A partition they say nothing of keeps whom it had.
    pub(crate) fn led(&mut self, leaders: impl IntoIterator<Item = (Key, BrokerId)>) {
        for (key, leader) in leaders {
            self.partitions.entry(key).or_default().leader = Some(leader);
        }
        self.ready.clear();
        for (key, partition) in &self.partitions {
            if let Some(leader) = partition.leader.filter(|_| partition.wants()) {
                self.ready.entry(leader).or_default().insert(*key);
            }
        }
    }

    /// The brokers of which something is wanted.
    pub(crate) fn wanted(&self) -> Vec<BrokerId> {
        self.ready.iter().filter(|(_, keys)| !keys.is_empty()).map(|(broker, _)| *broker).collect()
    }

    /// What the brokers call the producer from now on: its sequences begin anew.
    pub(crate) const fn named(&mut self, producer: Producer) {
        self.producer = Some(producer);
        self.life += 1;
    }

    /// Whether the producer has no name: nothing new is sent until it has.
    pub(crate) const fn wants_name(&self) -> bool {
        self.producer.is_none()
    }

    /// The batches to be sent to this broker now, in one request; and when to look again, if some of it must pause.
    pub(crate) fn take(&mut self, leader: BrokerId, now: Instant, now_ms: i64) -> (Vec<Outgoing>, Option<Instant>) {
        let (mut outgoing, mut later, mut bytes) = (Vec::new(), None::<Instant>, 0);
        let keys: Vec<_> = self.ready.get(&leader).into_iter().flatten().copied().collect();
        for key in keys {
            if bytes >= REQUEST_BYTES {
                break;
            }
            let Some(partition) = self.partitions.get_mut(&key) else { continue };
            if partition.flight.is_none() {
                let Some(producer) = self.producer else { continue };
                partition.flight = depart(key, partition, (producer, self.life), self.bounds.batch_bytes, now_ms);
            }
            let Some(flight) = partition.flight.as_mut().filter(|flight| flight.at.is_none()) else { continue };
            if let Some(pause) = flight.not_before.filter(|pause| *pause > now) {
                later = Some(later.map_or(pause, |at| at.min(pause)));
                continue;
            }
            flight.at = Some(leader);
            flight.tries += 1;
            bytes += flight.bytes.len();
            outgoing.push(Outgoing { key, bytes: flight.bytes.clone() });
            self.unready(leader, key);
        }
        (outgoing, later)
    }

    fn unready(&mut self, leader: BrokerId, key: Key) {
        if let Some(keys) = self.ready.get_mut(&leader) {
            keys.remove(&key);
        }
    }

    fn ready(&mut self, key: Key) {
        let Some(partition) = self.partitions.get(&key) else { return };
        if let Some(leader) = partition.leader.filter(|_| partition.wants()) {
            self.ready.entry(leader).or_default().insert(key);
        }
    }

    /// A broker has answered for a partition. Returns whom to tell what.
    pub(crate) fn answered(&mut self, leader: BrokerId, key: Key, answer: Answer, now: Instant) -> Vec<(W, Fate)> {
        let Some(partition) = self.partitions.get_mut(&key) else { return Vec::new() };
        let Some(mut flight) = partition.flight.take_if(|flight| flight.at == Some(leader)) else { return Vec::new() };
        if answer == Answer::Again {
            flight.at = None;
            flight.not_before = Some(now + pause(flight.tries));
            partition.flight = Some(flight);
            self.ready(key);
            return Vec::new();
        }
        if !matches!(answer, Answer::Done(_)) {
            // what the sequence says next is not what the brokers expect any more
            self.producer = None;
        }
        self.ready(key);
        let fate = |at: usize| match &answer {
            Answer::Done(offset) => Fate::Done(offset.map(|offset| offset + at as u64)),
            // an earlier try, whose answer was lost, may have been appended
            Answer::Refused(_) if flight.tries > 1 => Fate::Unknown,
            Answer::Refused(why) => Fate::Refused(why.clone()),
            Answer::Again | Answer::OutOfSequence => Fate::Unknown,
        };
        self.tell(flight.waiters, fate)
    }

    /// The connection to a broker broke: whatever it has not answered goes out again.
    pub(crate) fn lost(&mut self, leader: BrokerId, now: Instant) {
        let there = |partition: &Partition<W>| partition.flight.as_ref().is_some_and(|flight| flight.at == Some(leader));
        let keys: Vec<_> = self.partitions.iter().filter(|(_, partition)| there(partition)).map(|(key, _)| *key).collect();
        for key in keys {
            drop(self.answered(leader, key, Answer::Again, now));
        }
    }

    /// Gives up what is too old. A batch that is with a broker at this moment is left to it: it answers or is lost within seconds.
    pub(crate) fn give_up(&mut self, now: Instant) -> Vec<(W, Fate)> {
        let Some(before) = now.checked_sub(self.bounds.timeout) else { return Vec::new() };
        let mut told = Vec::new();
        let keys: Vec<_> = self.partitions.keys().copied().collect();
        for key in keys {
            let Some(partition) = self.partitions.get_mut(&key) else { continue };
            let flight = partition.flight.take_if(|flight| flight.at.is_none() && flight.since <= before);
            let fresh = partition.waiting.partition_point(|waiting| waiting.since <= before);
            let waiting: Vec<_> = partition.waiting.drain(..fresh).map(|one| (one.waiter, one.payload.len())).collect();
            if flight.is_none() && waiting.is_empty() {
                continue;
            }
            if let (leader, false) = (partition.leader, partition.wants()) {
                leader.into_iter().for_each(|leader| self.unready(leader, key));
            }
            if let Some(flight) = flight {
                self.producer = None;
                told.extend(self.tell(flight.waiters, |_| Fate::Unknown));
            }
            told.extend(self.tell(waiting, |_| Fate::NeverSent));
        }
        told
    }

    fn tell(&mut self, waiters: Vec<(W, usize)>, fate: impl Fn(usize) -> Fate) -> Vec<(W, Fate)> {
        self.records -= waiters.len();
        self.bytes -= waiters.iter().map(|(_, bytes)| bytes + RECORD_HEAD).sum::<usize>();
        waiters.into_iter().enumerate().map(|(at, (waiter, _))| (waiter, fate(at))).collect()
    }
}

/// Makes a batch of what waits, with its place in the sequence.
fn depart<W>(
    key: Key,
    partition: &mut Partition<W>,
    (producer, life): (Producer, u64),
    batch_bytes: usize,
    now_ms: i64,
) -> Option<Flight<W>> {
    let since = partition.waiting.front()?.since;
    let mut bytes = 0;
    let fitting = partition.waiting.iter().take_while(|waiting| {
        bytes += waiting.payload.len() + RECORD_HEAD;
        bytes <= batch_bytes
    });
    let count = fitting.count().max(1);
    let sequence = if partition.next.0 == life { partition.next.1 } else { 0 };
    let payloads = partition.waiting.iter().take(count).map(|waiting| &waiting.payload);
    let bytes = batch(key, payloads, (producer, sequence), now_ms);
    partition.next = (life, next_sequence(sequence, count));
    let waiters = partition.waiting.drain(..count).map(|one| (one.waiter, one.payload.len())).collect();
    Some(Flight { bytes, waiters, since, at: None, tries: 0, not_before: None })
}

/// The pause before a batch goes out again for the n-th time.
fn pause(tries: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;
