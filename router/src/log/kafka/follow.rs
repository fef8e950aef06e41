//! The stream of followed partitions: one consumer on one thread sorts what it fetches into a bounded buffer for each partition.
//!
//! A partition whose buffer is full is unassigned and what comes over is dropped; drained, it is assigned again at the next offset that is
//! needed (K3: never pause, seek or split queues). A record counts only for the follow whose offset it continues (K4).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::counter;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::client::Context;
use super::config::KafkaConfig;
use super::health::Health;
use crate::log::{Entry, LogError, Topic};

/// A partition.
pub(super) type Key = (Topic, u16);

/// How long the thread waits for records before it looks for changes.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// Records taken in a row before it does.
const POLL_MAX: usize = 2000;
/// A record counts for so many bytes beside its own.
const ENTRY_BYTES: usize = 64;
/// A partition that stays silent is compared with the log this often.
const COMPARE_EVERY: Duration = Duration::from_secs(30);

/// What is known of one followed partition.
#[derive(Debug)]
struct State {
    /// Fetched and not yet read, without gaps but those of the log.
    buffer: VecDeque<Entry>,
    bytes: usize,
    /// The reader's next offset.
    position: u64,
    /// The next offset to be fetched.
    wanted: u64,
    /// Too much is buffered: it is not assigned until the reader has caught up.
    parked: bool,
    /// It must be assigned anew whatever there is.
    again: bool,
    /// A gap was seen before this offset once: seen again after a new assignment, it is in the log.
    gap: Option<u64>,
    compared: Instant,
    errors_seen: u64,
}

/// One follow of one partition; the next follow of it is another one.
#[derive(Debug)]
struct Followed {
    state: Mutex<State>,
    grown: Notify,
}

/// What became of a fetched record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    Kept,
    /// Before what is wanted, or nobody wants any.
    Stale,
    /// The buffer is full.
    Full,
    /// Behind what is wanted.
    Gap,
}

impl Followed {
    fn new(offset: u64, errors_seen: u64) -> Self {
        let state = State {
            buffer: VecDeque::new(),
            bytes: 0,
            position: offset,
            wanted: offset,
            parked: false,
            again: false,
            gap: None,
            compared: Instant::now(),
            errors_seen,
        };
        Self { state: Mutex::new(state), grown: Notify::new() }
    }

    fn fetched(&self, offset: u64, payload: &[u8], bytes_max: usize) -> Fetched {
        let mut state = self.state.lock();
        if state.parked || offset < state.wanted {
            return Fetched::Stale;
        }
        if offset > state.wanted && state.gap != Some(offset) {
            state.gap = Some(offset);
            state.again = true;
            return Fetched::Gap;
        }
        if state.bytes >= bytes_max {
            state.parked = true;
            return Fetched::Full;
        }
        state.bytes += payload.len() + ENTRY_BYTES;
        state.wanted = offset + 1;
        state.gap = None;
        state.buffer.push_back(Entry { offset, payload: Bytes::copy_from_slice(payload) });
        drop(state);
        self.grown.notify_one();
        Fetched::Kept
    }
}

/// What is shared with the thread.
#[derive(Debug)]
struct Shared {
    /// Followed partitions, and how often each is.
    followed: Mutex<HashMap<Key, (Arc<Followed>, u32)>>,
    /// Those whose assignment must be looked at. Bounded by the number of partitions.
    changed: Mutex<BTreeSet<Key>>,
    /// Errors that name no partition: each one that stays silent is compared with the log.
    errors: AtomicU64,
    buffered: AtomicUsize,
    stop: AtomicBool,
    bytes_max: usize,
}

impl Shared {
    fn get(&self, key: Key) -> Option<Arc<Followed>> {
        self.followed.lock().get(&key).map(|(followed, _)| Arc::clone(followed))
    }

    fn change(&self, key: Key) {
        self.changed.lock().insert(key);
    }
}

/// The reader of followed partitions.
#[derive(Debug)]
pub(super) struct FollowReader {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FollowReader {
    pub(super) fn new(config: &KafkaConfig, health: &Arc<Health>) -> Result<Self, LogError> {
        let mut client = config.consumer("follow");
        client
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", (config.prefetch_bytes / 1024).max(1024).to_string())
            .set("fetch.message.max.bytes", (config.follow_bytes / 4).max(64 * 1024).to_string());
        let refused = |why: String| LogError::Refused(format!("kafka settings: {why}"));
        let consumer: BaseConsumer<Context> =
            client.create_with_context(Context::new(health)).map_err(|why| refused(why.to_string()))?;
        let shared = Arc::new(Shared {
            followed: Mutex::default(),
            changed: Mutex::default(),
            errors: AtomicU64::new(0),
            buffered: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            bytes_max: config.follow_bytes,
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            consumer,
            topics: Topic::ALL.map(|topic| (config.topic_name(topic), topic)),
            assigned: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("kafka-follow".into()).spawn(move || worker.run());
        Ok(Self { shared, thread: Some(thread.map_err(|why| LogError::Refused(why.to_string()))?) })
    }

    pub(super) fn follow(&self, key: Key, offset: u64) {
        let errors = self.shared.errors.load(Ordering::Acquire);
        let mut followed = self.shared.followed.lock();
        let entry = followed.entry(key).or_insert_with(|| (Arc::new(Followed::new(offset, errors)), 0));
        if entry.1 > 0 {
            self.forget(&entry.0);
            entry.0 = Arc::new(Followed::new(offset, errors));
        }
        entry.1 += 1;
        drop(followed);
        self.shared.change(key);
    }

    pub(super) fn unfollow(&self, key: Key) {
        let mut followed = self.shared.followed.lock();
        let Some((gone, users)) = followed.get_mut(&key) else { return };
        *users -= 1;
        if *users == 0 {
            self.forget(gone);
            followed.remove(&key);
            drop(followed);
            self.shared.change(key);
        }
    }

    fn forget(&self, followed: &Followed) {
        let mut state = followed.state.lock();
        self.shared.buffered.fetch_sub(state.bytes, Ordering::AcqRel);
        state.bytes = 0;
        state.buffer.clear();
        state.parked = true; // takes nothing more
    }

    /// Where the follower of a partition stands, if it has one.
    pub(super) fn position(&self, key: Key) -> Option<u64> {
        self.shared.get(key).map(|followed| followed.state.lock().position)
    }

    /// The next records at exactly the followed position; waits for some until `deadline`. None: the position is another one.
    pub(super) async fn read(&self, key: Key, (offset, max): (u64, usize), deadline: tokio::time::Instant) -> Option<Vec<Entry>> {
        let followed = self.shared.get(key)?;
        loop {
            let entries = self.take(key, &followed, (offset, max))?;
            if !entries.is_empty() {
                return Some(entries);
            }
            // a permit is kept when a record came since
            if timeout_at(deadline, followed.grown.notified()).await.is_err() {
                return Some(Vec::new());
            }
        }
    }

    fn take(&self, key: Key, followed: &Followed, (offset, max): (u64, usize)) -> Option<Vec<Entry>> {
        let mut state = followed.state.lock();
        if state.position != offset {
            return None;
        }
        let count = max.max(1).min(state.buffer.len());
        let entries: Vec<_> = state.buffer.drain(..count).collect();
        let Some(last) = entries.last() else { return Some(entries) };
        let bytes: usize = entries.iter().map(|entry| entry.payload.len() + ENTRY_BYTES).sum();
        state.position = last.offset + 1;
        state.bytes -= bytes;
        state.compared = Instant::now();
        self.shared.buffered.fetch_sub(bytes, Ordering::AcqRel);
        let drained = state.parked && state.bytes <= self.shared.bytes_max / 4;
        drop(state);
        if drained {
            self.shared.change(key);
        }
        Some(entries)
    }

    /// Whether a partition that gave nothing is to be compared with the log now. It then counts as compared.
    pub(super) fn is_compare_due(&self, key: Key) -> bool {
        let Some(followed) = self.shared.get(key) else { return false };
        let errors = self.shared.errors.load(Ordering::Acquire);
        let mut state = followed.state.lock();
        let due = state.errors_seen != errors || state.compared.elapsed() >= COMPARE_EVERY;
        if due {
            state.errors_seen = errors;
            state.compared = Instant::now();
        }
        due
    }

    /// The log has records that don't come: assigns the partition anew.
    pub(super) fn again(&self, key: Key) {
        let Some(followed) = self.shared.get(key) else { return };
        followed.state.lock().again = true;
        self.shared.change(key);
        counter!("switchboard_log_follows_again_total", "why" => "stalled").increment(1);
    }

    /// Bytes in all buffers.
    pub(super) fn buffered(&self) -> usize {
        self.shared.buffered.load(Ordering::Acquire)
    }
}

impl Drop for FollowReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The thread.
struct Worker {
    shared: Arc<Shared>,
    consumer: BaseConsumer<Context>,
    topics: [(String, Topic); Topic::ALL.len()],
    /// What is assigned now, and for which follow.
    assigned: HashMap<Key, Arc<Followed>>,
}

impl Worker {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.look_at_changes();
            let mut wait = POLL_WAIT;
            for _ in 0..POLL_MAX {
                match self.poll(wait) {
                    Some(()) => wait = Duration::ZERO,
                    None => break,
                }
            }
        }
    }

    /// Takes one event. None: there was none.
    fn poll(&self, wait: Duration) -> Option<()> {
        match self.consumer.poll(wait)? {
            Ok(message) => {
                let Some((_, topic)) = self.topics.iter().find(|(name, _)| name == message.topic()) else { return Some(()) };
                let (Ok(partition), Ok(offset)) = (u16::try_from(message.partition()), u64::try_from(message.offset())) else {
                    return Some(());
                };
                let payload = message.payload().unwrap_or_default();
                let key = (*topic, partition);
                let fetched = self.assigned.get(&key).map_or(Fetched::Stale, |followed| {
                    let bytes = payload.len() + ENTRY_BYTES;
                    self.shared.buffered.fetch_add(bytes, Ordering::AcqRel); // first: who forgets it subtracts
                    let fetched = followed.fetched(offset, payload, self.shared.bytes_max);
                    if fetched != Fetched::Kept {
                        self.shared.buffered.fetch_sub(bytes, Ordering::AcqRel);
                    }
                    fetched
                });
                let dropped = match fetched {
                    Fetched::Kept => return Some(()),
                    Fetched::Stale => "stale",
                    Fetched::Full => "full",
                    Fetched::Gap => "gap",
                };
                counter!("switchboard_log_fetched_dropped_total", "why" => dropped).increment(1);
                if fetched != Fetched::Stale {
                    self.shared.change(key);
                }
            }
            Err(KafkaError::PartitionEOF(_)) => {}
            Err(why) => self.failed(&why),
        }
        Some(())
    }

    /// An error of some partition, the library doesn't say which. Connections are the matter of [`Health`].
    fn failed(&self, why: &KafkaError) {
        match why.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) => {}
            _ => {
                tracing::debug!(%why, "a followed partition failed: those that stay silent are compared with the log");
                self.shared.errors.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Brings what is assigned in line with what is followed.
    fn look_at_changes(&mut self) {
        let changed = std::mem::take(&mut *self.shared.changed.lock());
        if changed.is_empty() {
            return;
        }
        let (mut off, mut on) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut begins = Vec::new();
        for key in &changed {
            let want = self.shared.get(*key);
            let begin = want.as_ref().and_then(|followed| begin(followed, self.assigned.get(key), self.shared.bytes_max));
            let keeps = begin == Some(Begin::Goes);
            if !keeps && self.assigned.remove(key).is_some() {
                off.add_partition(self.name(key.0), i32::from(key.1));
            }
            if let (Some(Begin::At(offset)), Some(followed)) = (begin, want) {
                let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
                if on.add_partition_offset(self.name(key.0), i32::from(key.1), offset).is_ok() {
                    begins.push((*key, followed));
                }
            }
        }
        let off_done = off.count() == 0 || self.tried("unassign", self.consumer.incremental_unassign(&off));
        let on_done = on.count() == 0 || self.tried("assign", self.consumer.incremental_assign(&on));
        if on_done {
            self.assigned.extend(begins);
        }
        if !(off_done && on_done) {
            // both calls name several partitions: what the library has now is not known, so all begins anew
            drop(self.consumer.unassign());
            let mut changed = self.shared.changed.lock();
            changed.extend(self.assigned.drain().map(|(key, _)| key));
            changed.extend(self.shared.followed.lock().keys());
        }
    }

    fn tried(&self, what: &str, result: Result<(), KafkaError>) -> bool {
        if let Err(why) = &result {
            tracing::warn!(what, %why, "the assignment of followed partitions begins anew");
            counter!("switchboard_log_follows_again_total", "why" => "refused").increment(1);
            std::thread::sleep(Duration::from_millis(100));
        }
        result.is_ok()
    }

    fn name(&self, topic: Topic) -> &str {
        &self.topics[topic as usize].0
    }
}

/// What is to be done with a partition that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// It is assigned and stays so.
    Goes,
    /// It is to be assigned (anew) at this offset.
    At(u64),
    /// Its buffer is still full.
    Rests,
}

fn begin(followed: &Arc<Followed>, assigned: Option<&Arc<Followed>>, bytes_max: usize) -> Option<Begin> {
    let mut state = followed.state.lock();
    let same = assigned.is_some_and(|assigned| Arc::ptr_eq(assigned, followed));
    if same && !state.parked && !state.again {
        return Some(Begin::Goes);
    }
    if state.parked && state.bytes > bytes_max / 4 {
        return Some(Begin::Rests);
    }
    (state.parked, state.again) = (false, false);
    Some(Begin::At(state.wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(offset: u64) -> Arc<Followed> {
        Arc::new(Followed::new(offset, 0))
    }

    #[test]
    fn only_what_continues_is_kept_and_a_gap_must_be_seen_twice() {
        let one = followed(10);
        assert_eq!(one.fetched(9, b"x", 1000), Fetched::Stale, "of an older follow");
        assert_eq!(one.fetched(10, b"x", 1000), Fetched::Kept);
        assert_eq!(one.fetched(10, b"x", 1000), Fetched::Stale, "twice");
        assert_eq!(one.fetched(20, b"x", 1000), Fetched::Gap, "of a follow further on?");
        assert_eq!(begin(&one, Some(&one), 1000), Some(Begin::At(11)));
        assert_eq!(one.fetched(20, b"x", 1000), Fetched::Kept, "no: it is in the log");
        assert_eq!(begin(&one, Some(&one), 1000), Some(Begin::Goes));
    }

    #[test]
    fn a_full_buffer_rests_until_it_is_drained() {
        let one = followed(0);
        assert_eq!(one.fetched(0, &[0; 100], 100), Fetched::Kept);
        assert_eq!(one.fetched(1, b"x", 100), Fetched::Full);
        assert_eq!(one.fetched(2, b"x", 100), Fetched::Stale, "the excess");
        assert_eq!(begin(&one, Some(&one), 100), Some(Begin::Rests));
        {
            let mut state = one.state.lock();
            state.buffer.clear();
            state.bytes = 0;
        }
        assert_eq!(begin(&one, None, 100), Some(Begin::At(1)), "the next that is needed");
        assert_eq!(begin(&followed(7), Some(&one), 100), Some(Begin::At(7)), "another follow");
    }
}
