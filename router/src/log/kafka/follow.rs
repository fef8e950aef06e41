//! The stream of followed partitions: one task a broker fetches those it leads ([`fetch`]) into a bounded buffer for each.
//!
//! Each request says from where on it wants what, so nothing is paused, sought or assigned (K3): a partition whose buffer is full is left out until
//! it is drained, and a connection that broke is asked anew. A record counts only for the follow it was fetched for (K4).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout_at;

mod backlog;
mod fetch;
mod session;

use super::config::KafkaConfig;
use super::leaders::{BrokerId, Key, Leaders};
use crate::log::{Entry, Topic};
use backlog::{Backlog, Look};

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
    /// The next record to be fetched.
    wanted: Next,
    /// Too much is buffered: it is not fetched until the reader has caught up.
    parked: bool,
    /// It could not be fetched, and is left out until then.
    rests_until: Option<Instant>,
    compared: Instant,
    /// The brokers say that there is no such offset: its reader is to find out.
    outside: bool,
    /// The log ends before what was fetched, or says something else there: since when it is so, it is not fetched any more.
    cut: Option<u64>,
    /// Where the log ends, as of the last fetch that said so.
    end: u64,
    /// When the reader had everything up to there, the last time.
    current_at: Instant,
    read_at: Option<Instant>,
    backlog: Backlog,
}

impl State {
    /// A broker says where the log ends.
    fn heard_end(&mut self, end: u64, now: Instant) {
        if self.position >= self.end {
            self.current_at = now;
        }
        self.end = end;
        self.backlog.heard(end.saturating_sub(self.position), now);
    }

    /// Whether more comes than is read.
    fn is_behind(&mut self, now: Instant) -> bool {
        let current = self.position >= self.end && !self.parked;
        self.backlog.look(Look { current, current_at: self.current_at, read_at: self.read_at }, now)
    }
}

/// From where on a partition is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    offset: u64,
    /// The leader's epoch of the record before it, -1: not known. By it a broker sees that its log is not the one that was read (KIP-320).
    epoch: i32,
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
}

impl Followed {
    fn new(offset: u64) -> Self {
        let wanted = Next { offset, epoch: -1 };
        let state = State {
            buffer: VecDeque::new(),
            bytes: 0,
            position: offset,
            wanted,
            parked: false,
            rests_until: None,
            compared: Instant::now(),
            outside: false,
            cut: None,
            end: offset,
            current_at: Instant::now(),
            read_at: None,
            backlog: Backlog::default(),
        };
        Self { state: Mutex::new(state), grown: Notify::new() }
    }

    /// The next record to be fetched, if any is now.
    fn wanted(&self, now: Instant) -> Option<Next> {
        let state = self.state.lock();
        (!state.parked && state.cut.is_none() && state.rests_until.is_none_or(|until| until <= now)).then_some(state.wanted)
    }

    /// Takes a record, the first that the log has from an offset on.
    fn fetched(&self, from: u64, (offset, epoch): (u64, i32), payload: &[u8], shared: &Shared) -> Fetched {
        let mut state = self.state.lock();
        // two brokers may answer for it, one that leads no more: what either left out is for the next fetch
        if state.parked || offset < state.wanted.offset || from > state.wanted.offset {
            return Fetched::Stale;
        }
        if state.bytes >= shared.bytes_max {
            state.parked = true;
            return Fetched::Full;
        }
        let bytes = payload.len() + ENTRY_BYTES;
        state.bytes += bytes;
        state.wanted = Next { offset: offset + 1, epoch };
        state.buffer.push_back(Entry { offset, payload: Bytes::copy_from_slice(payload) });
        shared.buffered.fetch_add(bytes, Ordering::AcqRel); // under the lock: who forgets it subtracts
        Fetched::Kept
    }

    /// There is nothing for us at this offset, the first that the log has from an offset on.
    fn passed(&self, from: u64, (offset, epoch): (u64, i32)) {
        let mut state = self.state.lock();
        if from <= state.wanted.offset && state.wanted.offset <= offset {
            state.wanted = Next { offset: offset + 1, epoch };
        }
    }

    /// What was read is not what the log says from this offset on.
    fn is_cut(&self, at: u64) {
        self.state.lock().cut = Some(at);
        self.grown.notify_one();
    }

    /// It is left out of fetches for a while.
    fn rest(&self, until: Instant, outside: bool) {
        let mut state = self.state.lock();
        state.rests_until = Some(until);
        state.outside |= outside;
    }
}

/// How is fetched.
#[derive(Debug, Clone, Copy)]
struct Fetch {
    wait_ms: i32,
    min_bytes: i32,
    /// Of an answer, and of a partition in it; a larger record comes all the same.
    bytes: i32,
    partition_bytes: i32,
}

/// What is shared with the tasks.
#[derive(Debug)]
struct Shared {
    /// Followed partitions, and how often each is.
    followed: Mutex<HashMap<Key, (Arc<Followed>, u32)>>,
    /// What wakes the task of each broker.
    wakes: RwLock<BTreeMap<BrokerId, Arc<Notify>>>,
    leaders: Arc<Leaders>,
    names: [String; Topic::ALL.len()],
    fetch: Fetch,
    buffered: AtomicUsize,
    bytes_max: usize,
}

impl Shared {
    fn get(&self, key: Key) -> Option<Arc<Followed>> {
        self.followed.lock().get(&key).map(|(followed, _)| Arc::clone(followed))
    }

    /// There may be more to be fetched of this partition.
    fn wake(&self, key: Key) {
        match self.leaders.of(key) {
            Some(leader) if self.wakes.read().get(&leader).map(|wake| wake.notify_one()).is_some() => {}
            _ => self.leaders.doubt(),
        }
    }

    /// Whether anything is followed that this broker leads.
    fn follows_of(&self, broker: BrokerId) -> bool {
        self.followed.lock().keys().any(|key| self.leaders.of(*key) == Some(broker))
    }

    /// What is to be fetched from this broker now, and from where on.
    fn wanted_of(&self, broker: BrokerId, now: Instant) -> BTreeMap<Key, (Arc<Followed>, Next)> {
        let followed = self.followed.lock();
        let led = followed.iter().filter(|(key, _)| self.leaders.of(**key) == Some(broker));
        led.filter_map(|(key, (followed, _))| Some((*key, (Arc::clone(followed), followed.wanted(now)?)))).collect()
    }
}

/// Keeps a task for each broker; they end with it.
async fn keep(shared: Arc<Shared>, mut changes: watch::Receiver<u64>) {
    let mut serving = JoinSet::new();
    changes.mark_changed(); // they may have been heard before this task was there
    while changes.changed().await.is_ok() {
        for broker in shared.leaders.brokers() {
            let mut wakes = shared.wakes.write();
            let new = !wakes.contains_key(&broker);
            let wake = Arc::clone(wakes.entry(broker).or_default());
            wake.notify_one();
            if new {
                serving.spawn(fetch::serve(Arc::clone(&shared), broker, wake));
            }
        }
    }
}

/// The reader of followed partitions.
#[derive(Debug)]
pub(super) struct FollowReader {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

impl FollowReader {
    pub(super) fn new(config: &KafkaConfig, leaders: &Arc<Leaders>, runtime: &Handle) -> Self {
        let number = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
        let fetch = Fetch {
            wait_ms: i32::try_from(config.fetch_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: i32::try_from(config.fetch_min_bytes.max(1)).unwrap_or(i32::MAX),
            bytes: number(config.prefetch_bytes.max(1024 * 1024)),
            partition_bytes: number((config.follow_bytes / 4).max(64 * 1024)),
        };
        let shared = Arc::new(Shared {
            followed: Mutex::default(),
            wakes: RwLock::default(),
            leaders: Arc::clone(leaders),
            names: Topic::ALL.map(|topic| config.topic_name(topic)),
            fetch,
            buffered: AtomicUsize::new(0),
            bytes_max: config.follow_bytes,
        });
        let keeper = runtime.spawn(keep(Arc::clone(&shared), leaders.changes()));
        Self { shared, keeper }
    }

    pub(super) fn follow(&self, key: Key, offset: u64) {
        let mut followed = self.shared.followed.lock();
        let entry = followed.entry(key).or_insert_with(|| (Arc::new(Followed::new(offset)), 0));
        if entry.1 > 0 {
            self.forget(&entry.0);
            entry.0 = Arc::new(Followed::new(offset));
        }
        entry.1 += 1;
        drop(followed);
        self.shared.wake(key);
    }

    pub(super) fn unfollow(&self, key: Key) {
        let mut followed = self.shared.followed.lock();
        let Some((gone, users)) = followed.get_mut(&key) else { return };
        *users -= 1;
        if *users == 0 {
            self.forget(gone);
            followed.remove(&key);
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
            if !entries.is_empty() || followed.state.lock().cut.is_some() {
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
        let now = Instant::now();
        (state.compared, state.read_at) = (now, Some(now));
        if state.position >= state.end {
            state.current_at = now;
        }
        self.shared.buffered.fetch_sub(bytes, Ordering::AcqRel);
        let drained = state.parked && state.bytes <= self.shared.bytes_max / 4;
        state.parked &= !drained;
        drop(state);
        if drained {
            self.shared.wake(key);
        }
        Some(entries)
    }

    /// The partitions of a topic into which more comes than is read, of those that are followed here. To be asked about twice a second.
    pub(super) fn behind(&self, topic: Topic) -> BTreeSet<u16> {
        let followed = self.shared.followed.lock();
        let behind = |followed: &Followed| followed.state.lock().is_behind(Instant::now());
        let of_topic = followed.iter().filter(|((of, _), _)| *of == topic);
        of_topic.filter(|(_, (followed, _))| behind(followed)).map(|((_, partition), _)| *partition).collect()
    }

    /// Whether the log of a partition was cut under its follower, and where.
    pub(super) fn cut(&self, key: Key) -> Option<u64> {
        self.shared.get(key)?.state.lock().cut
    }

    /// Whether a partition that gave nothing is to be compared with the log now. It then counts as compared.
    pub(super) fn is_compare_due(&self, key: Key) -> bool {
        let Some(followed) = self.shared.get(key) else { return false };
        let mut state = followed.state.lock();
        let due = state.outside || state.compared.elapsed() >= COMPARE_EVERY;
        if due {
            state.outside = false;
            state.compared = Instant::now();
        }
        due
    }

    /// The log has records that don't come, though it was asked for them: which must not be.
    pub(super) fn stalled(&self, (topic, partition): Key) {
        tracing::warn!(topic = topic.name(), partition, "the log has records that do not come");
        counter!("switchboard_log_follows_stalled_total").increment(1);
        self.shared.leaders.doubt();
        self.shared.wake((topic, partition));
    }

    /// Bytes in all buffers.
    pub(super) fn buffered(&self) -> usize {
        self.shared.buffered.load(Ordering::Acquire)
    }
}

impl Drop for FollowReader {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::kafka::health::Health;

    pub(super) fn shared(bytes_max: usize) -> Shared {
        let config = KafkaConfig::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (leaders, _keeper) = Leaders::new(&config, &Arc::new(Health::new(String::new())), runtime.handle());
        Shared {
            followed: Mutex::default(),
            wakes: RwLock::default(),
            leaders,
            names: Topic::ALL.map(|topic| config.topic_name(topic)),
            fetch: Fetch { wait_ms: 1, min_bytes: 1, bytes: 1, partition_bytes: 1 },
            buffered: AtomicUsize::new(0),
            bytes_max,
        }
    }

    #[test]
    fn only_what_continues_is_kept() {
        let (one, shared) = (Followed::new(10), shared(1000));
        let at = |offset| (offset, 3);
        assert_eq!(one.fetched(10, at(9), b"x", &shared), Fetched::Stale, "its batch began before");
        assert_eq!(one.fetched(10, at(10), b"x", &shared), Fetched::Kept);
        assert_eq!(one.fetched(10, at(10), b"x", &shared), Fetched::Stale, "twice");
        one.passed(11, at(11));
        assert_eq!(one.wanted(Instant::now()), Some(Next { offset: 12, epoch: 3 }));
        assert_eq!(
            one.fetched(14, at(14), b"x", &shared),
            Fetched::Stale,
            "an answer to another question says nothing of what lies between"
        );
        one.passed(14, at(14));
        assert_eq!(one.fetched(12, at(20), b"x", &shared), Fetched::Kept, "the broker has nothing between");
        assert_eq!(shared.buffered.load(Ordering::Acquire), 2 * (1 + ENTRY_BYTES));
    }

    #[test]
    fn a_reader_is_behind_when_more_comes_than_it_takes_and_not_after_a_rest_or_an_outage() {
        let one = Followed::new(0);
        let mut state = one.state.lock();
        let began = Instant::now();
        let at = |half: u32| began + Duration::from_millis(500) * half;
        // an hour of nothing, then a hundred records that are read at the next look
        let later = 7200;
        state.heard_end(100, at(later));
        (state.position, state.read_at) = (50, Some(at(later)));
        assert!(!state.is_behind(at(later)), "it had everything until now");
        // 200 come in each half second, 100 are read
        for half in later + 1..later + 21 {
            let past = u64::from(half - later);
            (state.position, state.read_at) = (50 + past * 100, Some(at(half)));
            state.heard_end(100 + past * 200, at(half));
            assert_eq!(state.is_behind(at(half)), past > 7, "{past}");
        }
        // nothing is read for a minute, and then more than comes; the buffer was full, so little was heard
        state.parked = true;
        assert!(!state.is_behind(at(later + 141)), "it stands still");
        state.parked = false;
        for half in later + 142..later + 180 {
            let past = u64::from(half - later - 142);
            (state.position, state.read_at) = (2_050 + past * 1_000, Some(at(half)));
            state.heard_end(30_000 + past * 200, at(half));
            assert!(!state.is_behind(at(half)), "{past}");
        }
    }

    #[test]
    fn a_full_buffer_is_left_out_until_it_is_drained_and_one_that_failed_for_a_while() {
        let (one, shared) = (Followed::new(0), shared(100));
        assert_eq!(one.fetched(0, (0, 1), &[0; 100], &shared), Fetched::Kept);
        assert_eq!(one.fetched(1, (1, 1), b"x", &shared), Fetched::Full);
        assert_eq!(one.fetched(2, (2, 1), b"x", &shared), Fetched::Stale, "the excess");
        let now = Instant::now();
        assert_eq!(one.wanted(now), None);
        let other = Followed::new(7);
        other.rest(now + Duration::from_secs(1), true);
        let wanted = |at| other.wanted(at).map(|next| next.offset);
        assert_eq!((wanted(now), wanted(now + Duration::from_secs(1))), (None, Some(7)));
        assert!(other.state.lock().outside);
    }

    #[tokio::test]
    async fn a_broker_that_was_heard_of_before_the_reader_was_there_is_served() {
        let (config, runtime) = (KafkaConfig::default(), Handle::current());
        let (leaders, _keeper) = Leaders::new(&config, &Arc::new(Health::new(String::new())), &runtime);
        leaders.hear_of(7);
        let reader = FollowReader::new(&config, &leaders, &runtime);
        let served = async {
            while !reader.shared.wakes.read().contains_key(&7) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), served).await.expect("its task runs");
    }
}
