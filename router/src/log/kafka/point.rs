//! Reads anywhere else, and where a partition begins and ends: one consumer on one thread serves a bounded queue of requests. It takes what
//! waits together: all questions for offsets in one request a broker, reads of different partitions side by side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::Context;
use super::config::KafkaConfig;
use super::health::{Doubt, Health, PROBE_WAIT};
use super::leaders::Key;
use crate::log::{Entry, LogError, Topic};

/// Requests that may wait.
const QUEUE: usize = 4096;
/// Requests served together.
const TOGETHER: usize = 256;
/// No request takes longer.
pub(super) const POINT_WAIT: Duration = Duration::from_secs(5);
/// A read that finds nothing at all for so long is given up, so that others get their turn.
const READ_WAIT: Duration = Duration::from_secs(2);
/// Bytes in one answer, but for its last record.
const BYTES_MAX: usize = 1024 * 1024;

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The oldest offset that is kept.
    pub(super) low: u64,
    /// The offset the next record will get.
    pub(super) high: u64,
}

type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What a read found.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    /// When the log took the first of them, milliseconds since 1970, if it says so.
    taken_ms: Option<u64>,
}

enum Request {
    End(Key, Answer<u64>),
    Bounds(Key, Answer<Bounds>),
    Read(Key, u64, usize, Answer<Found>),
}

/// The reader of single places.
pub(super) struct PointReader {
    consumer: Arc<BaseConsumer<Context>>,
    probed: String,
    requests: Option<SyncSender<(Instant, Request)>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl PointReader {
    pub(super) fn new(config: &KafkaConfig, health: &Arc<Health>) -> Result<Self, LogError> {
        let mut client = config.consumer("point");
        client
            .set("enable.partition.eof", "true") // a read at the end ends at once
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.message.max.bytes", "65536") // mostly one record is wanted; a larger one comes all the same
            .set("fetch.wait.max.ms", "5"); // a read waits for the fetch of the one before it to end (K11)
        let consumer: BaseConsumer<Context> = client
            .create_with_context(Context::new(health))
            .map_err(|why| LogError::Refused(format!("kafka settings: {why}")))?;
        let (requests, queue) = sync_channel(QUEUE);
        let consumer = Arc::new(consumer);
        let worker = Worker {
            consumer: Arc::clone(&consumer),
            health: Arc::clone(health),
            names: Topic::ALL.map(|topic| config.topic_name(topic)),
            queue,
        };
        let thread = std::thread::Builder::new().name("kafka-point".into()).spawn(move || worker.run());
        let thread = Some(thread.map_err(|why| LogError::Refused(why.to_string()))?);
        Ok(Self { consumer, probed: config.topic_name(Topic::Messages), requests: Some(requests), thread })
    }

    /// Asks the brokers something, briefly. Not through the producer: there a question waits behind appends, which may wait for a replica
    /// that has just died.
    pub(super) fn probe(&self) -> bool {
        self.consumer.fetch_metadata(Some(&self.probed), PROBE_WAIT).is_ok()
    }

    pub(super) async fn end(&self, key: Key) -> Result<u64, LogError> {
        self.ask(|answer| Request::End(key, answer)).await
    }

    pub(super) async fn bounds(&self, key: Key) -> Result<Bounds, LogError> {
        self.ask(|answer| Request::Bounds(key, answer)).await
    }

    /// What there is from this offset on; nothing: it is the end.
    pub(super) async fn read(&self, key: Key, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        self.ask(|answer| Request::Read(key, offset, max.max(1), answer)).await.map(|found| found.entries)
    }

    /// When the log took the record at this offset; nothing: there is none yet, or it does not say.
    pub(super) async fn taken_at(&self, key: Key, offset: u64) -> Result<Option<u64>, LogError> {
        self.ask(|answer| Request::Read(key, offset, 1, answer)).await.map(|found| found.taken_ms)
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, LogError> {
        let unavailable = |why: &str| LogError::Unavailable(why.to_owned());
        let (answer, answered) = oneshot::channel();
        let queue = self.requests.as_ref().ok_or_else(|| unavailable("closed"))?;
        match queue.try_send((Instant::now(), request(answer))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(unavailable("too many reads wait")),
            Err(TrySendError::Disconnected(_)) => return Err(unavailable("the reader has ended")),
        }
        match timeout(POINT_WAIT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unavailable("the reader gave it up")),
            Err(_) => Err(unavailable("no answer in 5 s")),
        }
    }
}

impl std::fmt::Debug for PointReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PointReader").finish_non_exhaustive()
    }
}

impl Drop for PointReader {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// One read while it is served.
struct Reading {
    wanted: u64,
    max: usize,
    found: Found,
    bytes: usize,
    done: bool,
    /// A gap was seen before this offset once: seen again after a new assignment, it is in the log.
    gap: Option<u64>,
    answer: Answer<Found>,
}

impl Reading {
    /// Takes a record. True: it must be assigned anew.
    fn fetched(&mut self, offset: u64, payload: &[u8], taken_ms: Option<u64>) -> bool {
        if self.done || offset < self.wanted {
            return false;
        }
        if offset > self.wanted && self.gap != Some(offset) {
            self.gap = Some(offset);
            return true;
        }
        if self.found.entries.is_empty() {
            self.found.taken_ms = taken_ms;
        }
        self.found.entries.push(Entry { offset, payload: Bytes::copy_from_slice(payload) });
        self.bytes += payload.len();
        self.wanted = offset + 1;
        self.done = self.found.entries.len() >= self.max || self.bytes >= BYTES_MAX;
        false
    }
}

struct Worker {
    consumer: Arc<BaseConsumer<Context>>,
    health: Arc<Health>,
    names: [String; Topic::ALL.len()],
    queue: Receiver<(Instant, Request)>,
}

impl Worker {
    fn run(self) {
        loop {
            let first = match self.queue.recv_timeout(Duration::from_millis(200)) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    drop(self.consumer.poll(Duration::ZERO)); // log lines and errors of the client
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let others = std::iter::from_fn(|| self.queue.try_recv().ok()).take(TOGETHER - 1);
            let fresh = |since: &Instant| since.elapsed() < POINT_WAIT; // nobody waits for the others any more
            let together: Vec<_> = std::iter::once(first).chain(others).filter(|(since, _)| fresh(since)).collect();
            self.serve(together.into_iter().map(|(_, request)| request));
        }
    }

    fn serve(&self, requests: impl Iterator<Item = Request>) {
        let (mut ends, mut bounds) = (Vec::new(), Vec::new());
        let mut rounds: Vec<BTreeMap<Key, Reading>> = Vec::new();
        for request in requests {
            match request {
                Request::End(key, answer) => ends.push((key, answer)),
                Request::Bounds(key, answer) => bounds.push((key, answer)),
                Request::Read(key, offset, max, answer) => {
                    let reading =
                        Reading { wanted: offset, max, found: Found::default(), bytes: 0, done: false, gap: None, answer };
                    // a round reads one topic (the end of a partition is told without its topic), each partition once
                    let fits = |round: &BTreeMap<Key, Reading>| {
                        !round.contains_key(&key) && round.keys().all(|(topic, _)| *topic == key.0)
                    };
                    match rounds.iter_mut().find(|round| fits(round)) {
                        Some(round) => drop(round.insert(key, reading)),
                        None => rounds.push(BTreeMap::from([(key, reading)])),
                    }
                }
            }
        }
        let asked: Vec<_> = ends.iter().map(|(key, _)| *key).chain(bounds.iter().map(|(key, _)| *key)).collect();
        let highs = self.offsets(&asked, Offset::End);
        let lows = self.offsets(&bounds.iter().map(|(key, _)| *key).collect::<Vec<_>>(), Offset::Beginning);
        for (key, answer) in ends {
            drop(answer.send(of(&highs, key)));
        }
        for (key, answer) in bounds {
            let both = of(&lows, key).and_then(|low| of(&highs, key).map(|high| Bounds { low, high }));
            drop(answer.send(both));
        }
        for round in rounds {
            self.read(round);
        }
    }

    /// First or last offsets of partitions, in one request to each broker.
    fn offsets(&self, keys: &[Key], which: Offset) -> Result<BTreeMap<Key, Result<u64, LogError>>, LogError> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        if !self.health.is_up() {
            return Err(LogError::Unavailable("no broker can be reached".into()));
        }
        let found = || -> KafkaResult<TopicPartitionList> {
            let mut asked = TopicPartitionList::with_capacity(keys.len());
            for key in keys.iter().collect::<std::collections::BTreeSet<_>>() {
                asked.add_partition_offset(&self.names[key.0 as usize], i32::from(key.1), which)?;
            }
            // the library takes these "times" for the first and the last offset, as the protocol does
            self.consumer.offsets_for_times(asked, Duration::from_secs(2))
        };
        let found = found().map_err(|why| {
            self.health.doubt(Doubt::Some);
            LogError::Unavailable(why.to_string())
        })?;
        let one = |key: &Key| {
            let element = found.find_partition(&self.names[key.0 as usize], i32::from(key.1));
            let element = element.ok_or_else(|| LogError::Unavailable("the answer leaves a partition out".into()))?;
            element.error().map_err(|why| LogError::Unavailable(why.to_string()))?;
            match element.offset() {
                Offset::Offset(offset) => u64::try_from(offset).map_err(|_| LogError::Unavailable("no such offset".into())),
                other => Err(LogError::Unavailable(format!("an answer without an offset: {other:?}"))),
            }
        };
        Ok(keys.iter().map(|key| (*key, one(key))).collect())
    }

    /// Reads partitions of one topic side by side.
    fn read(&self, mut round: BTreeMap<Key, Reading>) {
        let up = self.health.is_up();
        let assigned = if up { self.assign(&round) } else { Err(LogError::Unavailable("no broker can be reached".into())) };
        if let Err(why) = assigned {
            for (_, reading) in round {
                drop(reading.answer.send(Err(why.clone())));
            }
            return;
        }
        let deadline = Instant::now() + READ_WAIT;
        let mut failure = None;
        while round.values().any(|reading| !reading.done) && Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(20)) {
                None if round.values().all(|reading| reading.done || !reading.found.entries.is_empty()) => break,
                None => {}
                Some(Ok(message)) => {
                    let (partition, offset) = (u16::try_from(message.partition()), u64::try_from(message.offset()));
                    let (Ok(partition), Ok(offset)) = (partition, offset) else { continue };
                    let of_it = |key: &Key| key.1 == partition && self.names[key.0 as usize] == message.topic();
                    let Some((_, reading)) = round.iter_mut().find(|(key, _)| of_it(key)) else { continue };
                    let taken_ms = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok());
                    if reading.fetched(offset, message.payload().unwrap_or_default(), taken_ms) {
                        drop(self.consumer.unassign());
                        if self.assign(&round).is_err() {
                            break;
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    round.iter_mut().filter(|(key, _)| i32::from(key.1) == partition).for_each(|(_, one)| one.done = true);
                }
                // connections are the matter of [`Health`]
                Some(Err(why)) if why.rdkafka_error_code() == Some(RDKafkaErrorCode::BrokerTransportFailure) => {}
                Some(Err(why)) => {
                    failure = Some(why); // of some partition of these: which one is told by its bounds
                    break;
                }
            }
        }
        drop(self.consumer.unassign());
        self.answer(round, failure);
    }

    fn assign(&self, round: &BTreeMap<Key, Reading>) -> Result<(), LogError> {
        let assign = || -> KafkaResult<()> {
            let mut list = TopicPartitionList::with_capacity(round.len());
            for (key, reading) in round.iter().filter(|(_, reading)| !reading.done) {
                let offset = Offset::Offset(i64::try_from(reading.wanted).unwrap_or(i64::MAX));
                list.add_partition_offset(&self.names[key.0 as usize], i32::from(key.1), offset)?;
            }
            self.consumer.assign(&list)
        };
        assign().map_err(|why| LogError::Unavailable(why.to_string()))
    }

    /// Answers what was read; what stayed silent is held against the bounds of its partition.
    fn answer(&self, round: BTreeMap<Key, Reading>, failure: Option<KafkaError>) {
        let (settled, silent): (Vec<_>, Vec<_>) =
            round.into_iter().partition(|(_, reading)| reading.done || !reading.found.entries.is_empty());
        for (_, reading) in settled {
            drop(reading.answer.send(Ok(reading.found)));
        }
        if silent.is_empty() {
            return;
        }
        let keys: Vec<_> = silent.iter().map(|(key, _)| *key).collect();
        let (lows, highs) = (self.offsets(&keys, Offset::Beginning), self.offsets(&keys, Offset::End));
        for (key, reading) in silent {
            let both = of(&lows, key).and_then(|low| of(&highs, key).map(|high| Bounds { low, high }));
            let result = both.and_then(|bounds| {
                outside(key, reading.wanted, bounds)?;
                let why = failure.as_ref().map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
                Err(LogError::Unavailable(why))
            });
            drop(reading.answer.send(result));
        }
    }
}

fn of(found: &Result<BTreeMap<Key, Result<u64, LogError>>, LogError>, key: Key) -> Result<u64, LogError> {
    let found = found.as_ref().map_err(Clone::clone)?;
    found.get(&key).cloned().unwrap_or_else(|| Err(LogError::Unavailable("not asked".into())))
}

/// A position outside of what the partition has: it was cut under its reader.
pub(super) fn outside(key: Key, offset: u64, bounds: Bounds) -> Result<(), LogError> {
    let (topic, partition) = (key.0.name(), key.1);
    let Bounds { low, high } = bounds;
    if offset < low {
        return Err(LogError::Refused(format!(
            "{topic} {partition} begins at offset {low}, above {offset}: what was there is gone"
        )));
    }
    if offset > high {
        return Err(LogError::Refused(format!("offset {offset} of {topic} {partition} is behind its end {high}: it was cut")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_outside_is_refused() {
        let key = (Topic::Mailbox, 3);
        let bounds = Bounds { low: 5, high: 9 };
        assert!((5..=9).all(|offset| outside(key, offset, bounds).is_ok()));
        assert!(matches!(outside(key, 4, bounds), Err(LogError::Refused(_))));
        assert!(matches!(outside(key, 10, bounds), Err(LogError::Refused(_))));
    }
}
